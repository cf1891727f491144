"""Traits that tell one another: the same trait twice, or a total beside its parts."""

import numpy as np
from numpy.typing import NDArray

from plait.numerics.linalg import multiple_correlations

Array = NDArray[np.float64]

TOLD = 0.999
"""Share of a trait's errors that those of others tell, from which mash cannot take it."""
NEARLY_TOLD = 0.99
"""Share from which effects are found less often."""


def told_traits(correlation: Array, traits: tuple[str, ...], share: float = TOLD) -> list[str]:
    """Return the traits that tell one another, if others tell more than a share of some of them.

    Those of which others tell nearly as much (`NEARLY_TOLD`) are among them: what is a combination
    has several parts, of which the small ones are told less well.

    Parameters
    ----------
    correlation : (T, T) array
        Of the errors of the effects of any two traits, positive definite, as
        `plait.gwas.design.residual_correlation` returns it.
    traits : tuple of str
    share : float
    """
    told = multiple_correlations(correlation)
    if not (told > share).any():
        return []
    return [name for name, known in zip(traits, told, strict=True) if known > NEARLY_TOLD]


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
