"""The process of the program: when it looks for garbage, and what its threads take.

A command imports some hundred thousand objects that live as long as it does, and then works on few
large arrays. Python would go through all of them again and again while they come, and twice at the
end: a fifth of the time of a short command. The C library of Linux gives threads heaps of their
own, each of which keeps what was freed in it: tens of MB, of which plait's threads, who take few
and large pieces, have nothing. And each thread of each OpenBLAS goes round in circles for a
fortieth of a second, when it is loaded and after all work, before it sleeps.
"""

import ctypes
import gc
import os
import sys

_NEW_OBJECTS = 500_000
"""New objects after which garbage is looked for, more than a scan makes; Python's own number is
700."""
_PATIENCE = "OPENBLAS_THREAD_TIMEOUT", "20"
"""For how long a thread of OpenBLAS waits awake, as a power of two of ticks: less than a
thousandth of a second, but longer than what lies between the calls of one piece of work."""
_ARENAS = "MALLOC_ARENA_MAX", -8
"""What the number of heaps is called in the environment, and by ``mallopt`` of the GNU library."""


def settle() -> None:
    """Look for garbage rarely, let idle threads sleep, and have one heap for all of them.

    Before NumPy is imported: OpenBLAS looks once. The heap where the C library knows of it (GNU's);
    what the environment says of either is left.
    """
    gc.set_threshold(_NEW_OBJECTS, *gc.get_threshold()[1:])
    os.environ.setdefault(*_PATIENCE)
    name, number = _ARENAS
    if sys.platform == "linux" and name not in os.environ:
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(number, 1)


def leave() -> None:
    """Look for no garbage any more: the process ends, and everything goes with it."""
    gc.freeze()
