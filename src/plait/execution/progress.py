"""Progress of long work, told to whoever listens.

The library reports stages; a listener (the command line's progress bars, a notebook) is installed
with `listen`. Without a listener nothing happens and nothing is printed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class ProgressListener(Protocol):
    """Receives the stages of long work."""

    def begin(self, label: str, total: int) -> int:
        """Start a stage of ``total`` steps and return its key."""

    def advance(self, key: int, steps: int, note: str = "") -> None:
        """Tell that ``steps`` more steps of the stage are done."""

    def end(self, key: int) -> None:
        """Tell that the stage is over."""


_listener: ContextVar[ProgressListener | None] = ContextVar("plait_progress", default=None)


@contextmanager
def listen(listener: ProgressListener | None) -> Iterator[None]:
    """Send the progress of everything called inside the ``with`` block to ``listener``."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def stage(label: str | None, total: int) -> Iterator[Callable[..., None]]:
    """Report a stage; yields ``advance(steps, note="")``.

    ``total`` 0 means that the length is not known. Without a label or a listener, ``advance``
    does nothing.
    """
    listener = _listener.get()
    if label is None or listener is None:
        yield lambda steps=1, note="": None
        return
    key = listener.begin(label, total)
    try:
        yield lambda steps=1, note="": listener.advance(key, steps, note)
    finally:
        listener.end(key)
