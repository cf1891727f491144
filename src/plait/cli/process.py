"""The process of the program: how it looks for garbage, and where its threads take memory from.

A command imports some hundred thousand objects that live as long as it does, and then works on few
large arrays. Python would go through all of them again and again while they come, and twice at the
end: a fifth of the time of a short command. And the C library of Linux gives threads heaps of their
own, each of which keeps what was freed in it: tens of MB, of which plait's threads, who take few
and large pieces, have nothing.
"""

import ctypes
import gc
import os
import sys

_NEW_OBJECTS = 100_000
"""New objects after which garbage is looked for; Python's own number is 700."""
_ARENAS = "MALLOC_ARENA_MAX", -8
"""What the number of heaps is called in the environment, and by ``mallopt`` of the GNU library."""


def settle() -> None:
    """Look for garbage rarely, and have one heap for all threads.

    The latter where the C library knows of it (GNU's), and unless the environment says how many.
    """
    gc.set_threshold(_NEW_OBJECTS, *gc.get_threshold()[1:])
    name, number = _ARENAS
    if sys.platform == "linux" and name not in os.environ:
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(number, 1)


def leave() -> None:
    """Look for no garbage any more: the process ends, and everything goes with it."""
    gc.freeze()
