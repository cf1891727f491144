"""What flows between the parts of plait: validated once at the door, then only read."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plait.data.effects import Effects
    from plait.data.summary_statistics import SummaryStatistics

__all__ = [
    "Effects",
    "SummaryStatistics",
]

_MODULES = {"Effects": "effects", "SummaryStatistics": "summary_statistics"}


def __getattr__(name: str) -> Any:
    """Import a class when it is first used: words of messages, beside them, need no NumPy."""
    if name in _MODULES:
        return getattr(import_module(f"plait.data.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'plait.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
