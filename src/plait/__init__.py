"""Effects across contexts.

What a variant, a gene or a perturbation does in each tissue, trait, cell type, environment or
gene program, and how much of it they share. Each question has its own package; start with
:mod:`plait.gwas`, :mod:`plait.mash` or :mod:`plait.crt`.
"""

from importlib import import_module
from importlib.metadata import version as _distribution_version
from types import ModuleType

__version__ = _distribution_version("plait")

_PACKAGES = ("crt", "data", "gwas", "io", "mash", "plot", "report", "simulate")

__all__ = ["__version__", *_PACKAGES]


def __getattr__(name: str) -> ModuleType:
    """Import a package of plait when it is first used, so that ``import plait`` stays instant."""
    if name in _PACKAGES:
        return import_module(f"plait.{name}")
    raise AttributeError(f"module 'plait' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
