"""The number of threads of BLAS, as callers of programDE set it."""

import os
from types import TracebackType

from plait.crt.arguments import whole_number
from plait.execution.threads import limit_blas

_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class ThreadLimit:
    """A limit on the threads of BLAS and OpenMP, in force until `lift` or the end of ``with``."""

    def __init__(self, n: int) -> None:
        self._added = [name for name in _VARIABLES if name not in os.environ]
        os.environ.update(dict.fromkeys(self._added, str(n)))
        self._lift = limit_blas(n, user_api=None)

    def lift(self) -> None:
        """Bring back the number of threads and the environment as they were."""
        self._lift()
        for name in self._added:
            os.environ.pop(name, None)
        self._added = []

    def __enter__(self) -> "ThreadLimit":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.lift()


def limit_threading(n: int = 1) -> ThreadLimit:
    """Limit the threads of BLAS and OpenMP in this process and in those it starts.

    Parameters
    ----------
    n : int
        At least 1.

    Returns
    -------
    ThreadLimit
        As a plain call the limit stays; ``with limit_threading():`` lifts it at the end.

    Raises
    ------
    OptionError
        ``n`` is less than 1.
    InputTypeError
        It is no whole number (also a TypeError).

    Notes
    -----
    ``OMP_NUM_THREADS``, ``MKL_NUM_THREADS`` and ``OPENBLAS_NUM_THREADS`` are set where they are not
    yet, for processes to come; libraries that are loaded are limited at once. The numbers of plait
    do not depend on it: its own work keeps BLAS at one thread (``threads=`` sets how many take it).
    """
    return ThreadLimit(whole_number(n, "n", least=1))
