"""Volcano plot: how sure effects are, against how large."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from plait.errors import ShapeError
from plait.plot.labels import name_points
from plait.plot.manhattan import thinned
from plait.plot.style import BLUE, GREY, VERMILION, axes_for, check_labels, styled, write_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CAPTION = (
    "Each point is one effect; height: −log₁₀ of its p-value. Blue raises, orange lowers, grey is "
    "not significant. Of the surest ones those have names that leave room for one."
)
_NAMED = 8
_MOST = 4000


def volcano(
    effect: ArrayLike,
    log10p: ArrayLike,
    is_significant: ArrayLike,
    labels: Sequence[str] | None = None,
    *,
    xlabel: str = "effect",
    title: str | None = None,
    caption: bool = False,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw ``-log10 p`` against effects.

    Parameters
    ----------
    effect, log10p : (n,) arrays
        NaN is left out.
    is_significant : (n,) bool array
    labels : (n,) sequence of str, optional
        Of the 8 surest significant effects those are named that leave room for a name, over no
        other name or point; a line joins a name to a point that it is not next to.
    xlabel : str
        What effects are, with their unit.
    title : str, optional
    caption : bool
        Write below the figure how to read it.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ShapeError
        The lengths differ, no effect has a finite p-value, or labels do not fit.
    """
    x, y = np.asarray(effect, dtype=np.float64), -np.asarray(log10p, dtype=np.float64)
    found = np.asarray(is_significant, dtype=bool)
    if x.ndim != 1 or x.shape != y.shape or x.shape != found.shape or not np.isfinite(x + y).any():
        raise ShapeError(
            f"effects, p-values and significance have shapes {x.shape}, {y.shape} and "
            f"{found.shape}; give one of each for every effect, and at least one."
        )
    names = None if labels is None else check_labels(labels, len(x), "effects")
    shown = thinned(x, y, _MOST, _MOST)
    with styled() as plt:
        ax = axes_for(plt, ax, 4.2, 3.6)
        for chosen, colour, size in (
            (~found, GREY, 6), (found & (x > 0), BLUE, 14), (found & (x < 0), VERMILION, 14),
        ):  # fmt: skip
            rows = shown[chosen[shown]]
            ax.scatter(x[rows], y[rows], s=size, color=colour, linewidths=0, alpha=0.8,
                       rasterized=True)  # fmt: skip
        ax.axvline(0.0, color=GREY, linewidth=0.8, zorder=0)
        ax.set_ylim(0)
        ax.margins(x=0.1)
        ax.set_xlabel(xlabel)
        ax.set_ylabel("−log₁₀ p")
        write_words(ax, title, CAPTION if caption else None)
        if names is not None:
            surest = [j for j in np.argsort(-y, kind="stable").tolist() if found[j]]
            ax.set_ylim(0, ax.get_ylim()[1] * 1.06)  # room for the name of the highest
            name_points(ax, x, y, names, surest[:_NAMED])
    return ax
