"""Violins: what a gene does in treated cells and in those that they are compared with."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.data.p_values import p_value_text
from plait.errors import InputError, ShapeError
from plait.plot.style import (
    BLUE,
    GREY,
    INK,
    VERMILION,
    axes_for,
    check_labels,
    label_size,
    styled,
    write_caption,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

CAPTION = (
    "How often cells have which expression: grey, cells that are compared with; coloured, treated "
    "cells (blue where their mean is higher, orange where it is lower). Lines are means. The test "
    "takes covariates into account, the picture does not."
)
_BINS, _POINTS = 512, 128
_HALF = 0.42
_NARROWEST = 0.02
"""Smallest bandwidth, as a share of the range: cells without counts are one narrow bump."""


def pair_violin(
    treated: Sequence[ArrayLike],
    controls: Sequence[ArrayLike],
    labels: Sequence[str] | None = None,
    log10p: ArrayLike | None = None,
    *,
    ylabel: str = "expression",
    title: str | None = None,
    caption: bool = False,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw a response in treated and control cells for chosen pairs.

    Parameters
    ----------
    treated, controls : sequences of (cells,) arrays
        The response of each pair; NaN is left out.
    labels : sequence of str, optional
        Names of the pairs.
    log10p : (pairs,) array, optional
        log10 of p-values, written above the pairs.
    ylabel : str
        What the response is, with its unit.
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
        There are no pairs, or not as many treated as control arrays, labels or p-values.
    InputError
        A pair has no treated or no control cells.
    """
    names = check_labels(labels, len(treated), "pairs")
    pairs = _checked(treated, controls, names)
    p = None if log10p is None else np.asarray(log10p, dtype=np.float64)
    if p is not None and p.shape != (len(pairs),):
        raise ShapeError(f"p-values have shape {p.shape} for {len(pairs)} pairs.")
    with styled() as plt:
        width = 1.2 + 0.75 * max(len(pairs), 5)
        longest = max(len(line) for name in names for line in name.split("\n"))
        ax = axes_for(plt, ax, width, 3.2 + 0.05 * longest)
        top = max(float(values.max()) for both in pairs for values in both)
        for place, (own, others) in enumerate(pairs):
            colour = BLUE if own.mean() >= others.mean() else VERMILION
            for values, side, shade in ((others, -1, GREY), (own, 1, colour)):
                _half(ax, values, place, side, shade)
            if p is not None:
                words = f"p = {p_value_text(float(p[place]), 0)}"
                ax.annotate(words, (place, top), xytext=(0, 4), fontsize=7,
                            textcoords="offset points", ha="center")  # fmt: skip
        size = label_size(len(pairs), 4.0 * width)
        ax.set_xticks(range(len(pairs)), names, rotation=35, ha="right", fontsize=size)
        ax.set_xlim(-0.6, len(pairs) - 0.4)
        _say_colours(ax, pairs)
        ax.set_ylabel(ylabel)
        if title is not None:
            ax.set_title(title, pad=30)
        if caption:
            write_caption(ax, CAPTION)
    return ax


def density(values: Array) -> tuple[Array, Array]:
    """Return a smoothed distribution: where, and how dense, between the extremes.

    Parameters
    ----------
    values : (n,) array
        Finite; at least one.

    Returns
    -------
    places, heights : arrays
        Gaussian kernels of Scott's bandwidth, of values in 512 bins; the highest is 1. Of one
        place where all values are equal.
    """
    low, high = float(values.min()), float(values.max())
    if low == high:
        return np.array([low]), np.ones(1)
    counts, edges = np.histogram(values, _BINS, (low, high))
    bandwidth = float(values.std(ddof=1)) * len(values) ** -0.2
    bandwidth = max(bandwidth, _NARROWEST * (high - low))
    places = np.linspace(low, high, _POINTS)
    middles = (edges[:-1] + edges[1:]) / 2.0
    occupied = counts > 0
    off = (places[:, None] - middles[occupied]) / bandwidth
    heights = np.exp(-0.5 * off**2) @ counts[occupied]
    return places, heights / heights.max()


def _checked(
    treated: Sequence[ArrayLike], controls: Sequence[ArrayLike], names: Sequence[str]
) -> list[tuple[Array, Array]]:
    """Return the finite values of treated cells and controls of each pair."""
    if not len(treated) or len(treated) != len(controls):
        raise ShapeError(
            f"there are {len(treated)} arrays of treated cells and {len(controls)} of controls; "
            "give one of each for every pair."
        )
    pairs = [(_finite(own), _finite(rest)) for own, rest in zip(treated, controls, strict=True)]
    for name, (own, others) in zip(names, pairs, strict=True):
        if not len(own) or not len(others):
            raise InputError(f"{name} has no treated or no control cells to draw.")
    return pairs


def _say_colours(ax: "Axes", pairs: Sequence[tuple[Array, Array]]) -> None:
    is_higher = [own.mean() >= others.mean() for own, others in pairs]
    for name, colour, occurs in (
        ("control cells", GREY, True),
        ("treated cells, higher", BLUE, any(is_higher)),
        ("treated cells, lower", VERMILION, not all(is_higher)),
    ):
        if occurs:
            ax.fill_between([], [], [], color=colour, alpha=0.75, linewidth=0, label=name)
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.03), ncols=3)


def _finite(values: ArrayLike) -> Array:
    array = np.asarray(values, dtype=np.float64).ravel()
    return array[np.isfinite(array)]


def _half(ax: "Axes", values: Array, place: int, side: int, colour: str) -> None:
    where, heights = density(values)
    ax.fill_betweenx(
        where, place, place + side * _HALF * heights, color=colour, alpha=0.75, linewidth=0.6
    )
    mean = float(values.mean())
    ax.plot([place, place + side * _HALF], [mean, mean], color=INK, linewidth=1.0)
