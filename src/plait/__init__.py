"""Effects across contexts.

What a variant, a gene or a perturbation does in each tissue, trait, cell type, environment or
gene program, and how much of it they share. Each question has its own package; start with
:mod:`plait.gwas`, :mod:`plait.mash` or :mod:`plait.crt`.
"""

from importlib import import_module
from typing import Any

__version__: str

_PACKAGES = ("crt", "data", "gwas", "io", "mash", "plot", "report", "simulate")

__all__ = ["__version__", *_PACKAGES]


def __getattr__(name: str) -> Any:
    """Import a package of plait when it is first used, so that ``import plait`` stays instant.

    The version, too, is looked up when it is asked for.
    """
    if name in _PACKAGES:
        return import_module(f"plait.{name}")
    if name == "__version__":
        from importlib.metadata import version

        return version("plait")
    raise AttributeError(f"module 'plait' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
