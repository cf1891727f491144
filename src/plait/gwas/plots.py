"""Figures of a scan: thin calls of `plait.plot`."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from plait import plot
from plait.errors import LabelError
from plait.gwas.results import AssociationResult
from plait.io.stored_arrays import parts_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_manhattan(
    result: AssociationResult,
    trait: str | None = None,
    *,
    caption: bool = False,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the Manhattan plot of one trait, or of the surest of all traits at every variant."""
    values = _one_trait(result, trait)
    title = "surest of all traits" if trait is None and len(result.traits) > 1 else trait
    return plot.manhattan(
        np.asarray(result.chrom),
        np.asarray(result.pos),
        values,
        labels=result.id,
        title=title or result.traits[0],
        caption=caption,
        ax=ax,
    )


def plot_qq(
    result: AssociationResult,
    trait: str | None = None,
    *,
    caption: bool = False,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the QQ plot of one trait, or of all of them overlaid."""
    if trait is None:
        return plot.qq(np.asarray(result.log10p), result.traits, caption=caption, ax=ax)
    return plot.qq(_one_trait(result, trait), title=trait, caption=caption, ax=ax)


def _one_trait(result: AssociationResult, trait: str | None) -> NDArray[np.float64]:
    if trait is None:
        parts = [np.fmin.reduce(result.log10p[rows], axis=1) for rows in parts_of(result.log10p)]
        return np.concatenate(parts)
    if trait not in result.traits:
        raise LabelError(f"there is no trait {trait!r}; there are {', '.join(result.traits)}.")
    return np.asarray(result.log10p[:, result.traits.index(trait)])
