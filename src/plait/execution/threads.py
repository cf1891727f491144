"""How many threads there are, and keeping BLAS from using them a second time.

BLAS and plait share one budget: work is cut into grains (`plait.execution.grains`), a grain is
computed by one thread with single-threaded BLAS, and the pool hands out grains. So the number of
threads changes the speed and never the bits.
"""

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import cache, lru_cache
from numbers import Integral
from threading import Lock
from typing import Any

from threadpoolctl import OpenBLASController, ThreadpoolController

from plait.errors import InputTypeError, OptionError

_ambient: ContextVar[int | None] = ContextVar("plait_threads", default=None)


def resolve_threads(threads: int | None = None) -> int:
    """Return the number of threads to use.

    Parameters
    ----------
    threads : int, optional
        An explicit number (at least 1; -1 means all cores). None takes the number set by
        `use_threads`, and without that every core this process may run on.

    Returns
    -------
    int

    Raises
    ------
    OptionError
        The number is neither positive nor -1.
    InputTypeError
        It is no whole number (also a TypeError).
    """
    if threads is None:
        threads = _ambient.get()
    if threads is None or threads == -1:
        return (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else (os.cpu_count() or 1)
        )
    if not isinstance(threads, Integral):
        raise InputTypeError(f"threads is {threads!r}; give a whole number.")
    if threads < 1:
        raise OptionError(f"threads is {threads}; give at least 1, or -1 for all cores.")
    return int(threads)


@contextmanager
def use_threads(threads: int | None) -> Iterator[None]:
    """Set the default number of threads for everything called inside the ``with`` block."""
    token = _ambient.set(None if threads is None else resolve_threads(threads))
    try:
        yield
    finally:
        _ambient.reset(token)


@contextmanager
def beside(threads: int) -> Iterator[Callable[[Callable[[], Any]], Callable[[], Any]]]:
    """Yield what starts a function beside other work and returns what waits for its result.

    With a single thread a function is called when its result is first asked for.
    """
    if threads == 1:
        yield cache
        return
    with ThreadPoolExecutor(1) as pool:
        yield lambda function: pool.submit(copy_context().run, function).result


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Keep every BLAS that is loaded at one thread inside the ``with`` block.

    The limit is the process's, not the thread's: it is set when the first thread enters and lifted
    when the last one leaves, or a thread that leaves early would lift it for the others.

    SciPy brings a BLAS of its own. Modules that call it import `scipy.linalg` at their top, and so
    before any block in which they work; where none of them is needed, SciPy is not loaded.
    """
    with _limit.lock:
        _limit.depth += 1
        if _limit.depth == 1:
            _limit.lift = limit_blas(1)
    try:
        yield
    finally:
        with _limit.lock:
            _limit.depth -= 1
            if _limit.depth == 0:
                _limit.lift()


def limit_blas(threads: int, user_api: str | None = "blas") -> Callable[[], None]:
    """Limit the threads of the BLAS libraries that are loaded, and return what lifts the limit.

    Without its controlling thread cleared, threadpoolctl lets the first thread that ever limited
    OpenBLAS own the limit while it lives, and silently does nothing for any other.
    """

    def as_any_thread(action: Callable[[], Any]) -> Any:
        OpenBLASController.clear_controlling_thread(force=True)
        try:
            return action()
        finally:
            OpenBLASController.clear_controlling_thread(force=True)

    libraries = _libraries(len(sys.modules))
    limits = as_any_thread(lambda: libraries.limit(limits=threads, user_api=user_api))
    return lambda: as_any_thread(limits.restore_original_limits)


@lru_cache(maxsize=1)
def _libraries(n_modules: int) -> ThreadpoolController:
    """Return the libraries with threads that are loaded.

    To look for them takes a millisecond; no module imported since, there are no others.
    """
    return ThreadpoolController()


class _Limit:
    """Who is inside `single_threaded_blas`."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.depth = 0
        self.lift: Callable[[], None]


_limit = _Limit()
