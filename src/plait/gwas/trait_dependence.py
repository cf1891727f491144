"""Traits that tell one another: the same trait twice, or a total beside its parts."""

import numpy as np
from numpy.typing import NDArray

from plait.numerics.linalg import TOLD, told_by_others

Array = NDArray[np.float64]


def told_traits(correlation: Array, traits: tuple[str, ...], share: float = TOLD) -> list[str]:
    """Return the traits whose errors tell one another; see `plait.numerics.linalg.told_by_others`.

    Parameters
    ----------
    correlation : (T, T) array
        Of the errors of the effects of any two traits, positive definite, as
        `plait.gwas.design.residual_correlation` returns it.
    traits : tuple of str
    share : float
    """
    return [traits[t] for t in told_by_others(correlation, share)]


def why_not_for_mash(names: str) -> str:
    """Say of traits that tell one another why mash cannot take all of them, and what to do.

    Parameters
    ----------
    names : str
        Some traits, in words.
    """
    return (
        f"traits {names} tell one another: one is a copy of another, or is made of others (a "
        "total, a difference, another unit). Their errors leave next to nothing by which they can "
        "differ, and mash would take what rounding and chance leave there for effects on single "
        "traits, or not see true ones. Leave one of them out."
    )
