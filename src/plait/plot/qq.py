"""Quantile-quantile plot: whether small p-values are more frequent than chance makes them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import ShapeError
from plait.io.stored_arrays import parts_of
from plait.numerics.order_statistics import column_medians
from plait.numerics.uniform_ranks import quantiles_of_ranks
from plait.numerics.uniformity import inflation_of_medians
from plait.plot.manhattan import ALWAYS_DRAWN, thinned
from plait.plot.style import (
    COLOURS,
    GREY,
    axes_for,
    check_labels,
    chosen_traits,
    counted,
    styled,
    write_words,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CAPTION = (
    "Observed p-values against those that chance alone would give, both as −log₁₀. Grey: where 95% "
    "of them lie without any effect. Points that leave the band only at the right are signals. "
    "Points above it from the start, and a lambda (the ratio of the medians) above 1, come from "
    "very many true effects in linkage, or from relatedness and population structure, which make "
    "all p-values too small. A mixed model tells them apart: what is left of lambda there is "
    "mostly signal."
)
_BAND_POINTS = 300
_RANKS = 20_000
_READ_BYTES = 1 << 20
_COLUMNS_AT_ONCE = 16
_BINS = 1 << 16
"""Heights at which p-values above 0.001 are counted: they are drawn within 0.00003."""

_MOST_INSIDE = 3
"""Entries of the legend that leave room for the points."""


def qq(
    log10p: ArrayLike,
    labels: Sequence[str] | None = None,
    *,
    title: str | None = None,
    caption: bool | str = False,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw observed against expected ``-log10 p``, one colour per trait.

    Beyond 8 traits, those with the smallest p-values have colours of their own, as in the Manhattan
    plot; the others are grey. The legend stands beside the picture from 4 traits on.

    Parameters
    ----------
    log10p : (M,) or (M, T) array
        log10 of p-values; NaN is left out.
    labels : (T,) sequence of str, optional
        Names of the traits.
    title : str, optional
    caption : bool or str
        Write below the figure how to read it; where p-values are of something else than variants,
        a text of one's own.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ShapeError
        There is no p-value, or labels do not fit.
    """
    table: Any = log10p if hasattr(log10p, "shape") else np.asarray(log10p, dtype=np.float64)
    table = np.asarray(table)[:, None] if table.ndim == 1 else table
    curves = list(_curves(table)) if table.ndim == 2 else []
    if not any(curve.count for curve in curves):
        raise ShapeError(f"log10p has shape {table.shape} and must hold some p-values.")
    names = check_labels(labels, len(curves), "traits") if labels is not None else None
    with styled() as plt:
        beside = len(curves) > _MOST_INSIDE
        ax = axes_for(plt, ax, 6.0 if beside else 3.6, 3.6)
        _draw_band(ax, max(curve.count for curve in curves))
        inflation = np.array([curve.inflation for curve in curves])
        own, others = chosen_traits(np.array([curve.peak for curve in curves]))
        for t in others:
            curves[t].draw(ax, GREY, 3)
        for colour, t in zip(COLOURS, own, strict=False):
            text = f"lambda {inflation[t]:.2f}"
            curves[t].draw(ax, colour, 6, text if names is None else f"{names[t]}, {text}")
        rest = inflation[others][np.isfinite(inflation[others])]
        if len(rest):
            text = f"{counted(len(rest))}, lambda {rest.min():.2f}"
            text += f" to {rest.max():.2f}" if len(rest) > 1 else ""
            ax.scatter([], [], s=3, color=GREY, label=text)
        ax.set_xlim(0)
        ax.set_ylim(0)
        ax.set_xlabel("expected −log₁₀ p")
        ax.set_ylabel("observed −log₁₀ p")
        anchor = {"bbox_to_anchor": (1.0, 1.0)} if beside else {}
        ax.legend(loc="upper left", handletextpad=0.2, markerscale=2, **anchor)
        words = caption if isinstance(caption, str) else CAPTION
        write_words(ax, title, words if caption else None)
    return ax


def _curves(table: Any) -> Iterator["_Curve"]:
    """Yield the curves of the columns of a table, which may be in a store and is read in parts."""
    for start in range(0, table.shape[1], _COLUMNS_AT_ONCE):
        columns = slice(start, min(start + _COLUMNS_AT_ONCE, table.shape[1]))
        yield from _curves_of(partial(_finite_heights, table, columns), columns.stop - start)


def _finite_heights(table: Any, columns: slice) -> Iterator[NDArray[np.float64]]:
    """Yield -log10 p in parts, with NaN where it is not finite."""
    for rows in parts_of(table, _READ_BYTES):
        heights = np.abs(np.asarray(table[rows, columns], dtype=np.float64))
        heights[np.isinf(heights)] = np.nan
        yield heights


def _curves_of(parts: Callable[[], Iterator[NDArray[np.float64]]], width: int) -> "list[_Curve]":
    """Return the curves of heights that come in parts, the same at each call."""
    low = np.zeros((width, _BINS + 1), dtype=np.int64)
    high: list[list[NDArray[np.float64]]] = [[] for _ in range(width)]
    for part in parts():
        for k in range(width):
            heights = part[:, k]
            high[k].append(heights[heights > ALWAYS_DRAWN])
            crowd = heights[heights <= ALWAYS_DRAWN]  # NaN is neither
            place = np.rint(crowd * (_BINS / ALWAYS_DRAWN)).astype(np.intp)
            low[k] += np.bincount(place, minlength=_BINS + 1)
    medians = column_medians(parts, width)
    return [_Curve.of(np.concatenate(high[k]), low[k], medians[k]) for k in range(width)]


@dataclass(frozen=True)
class _Curve:
    """What is drawn of a trait.

    Attributes
    ----------
    count : int
        P-values.
    inflation, peak : float
        See `inflation_of_medians`; the largest -log10 p.
    expected, observed : arrays
        The points, where they crowd a part of them.
    """

    count: int
    inflation: float
    peak: float
    expected: NDArray[np.float64]
    observed: NDArray[np.float64]

    @classmethod
    def of(cls, high: NDArray[np.float64], low: NDArray[np.int64], median: float) -> "_Curve":
        """Take the heights above 3, the numbers of others at every height, and the median."""
        high = np.sort(high)[::-1]
        up_to = len(high) + np.cumsum(low[::-1])
        count = int(up_to[-1])
        ranks = np.unique(np.geomspace(1, max(count, 1), _RANKS).astype(np.intp))
        ranks = np.union1d(ranks, np.arange(1, len(high) + 1))[:count]
        bins = _BINS - np.searchsorted(up_to, ranks[len(high) :])
        observed = np.concatenate([high, bins * (ALWAYS_DRAWN / _BINS)])
        expected = -np.log10((ranks - 0.5) / max(count, 1))
        shown = thinned(expected, observed, 2000)
        peak = float(observed.max(initial=0.0))
        return cls(
            count, float(inflation_of_medians(median)), peak, expected[shown], observed[shown]
        )

    def draw(self, ax: "Axes", colour: str, size: float, label: str | None = None) -> None:
        """Draw the points, if there are any."""
        if self.count:
            ax.scatter(
                self.expected, self.observed, s=size, linewidths=0, rasterized=True, color=colour,
                label=label,
            )  # fmt: skip


def chance_band(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return where p-values lie without any effect, all as -log10, from the smallest p on.

    Returns
    -------
    expected, low, high : arrays
        What chance gives, and the 2.5 and 97.5 % points of the order statistics of uniforms.
    """
    ranks = np.unique(np.round(np.geomspace(1, count, _BAND_POINTS)).astype(np.int64))
    expected = -np.log10((ranks - 0.5) / count)
    low, high = (-np.log10(quantiles_of_ranks(ranks, count, q)) for q in (0.975, 0.025))
    return expected, low, high


def _draw_band(ax: "Axes", count: int) -> None:
    """Draw the diagonal, and the band around it."""
    expected, low, high = chance_band(count)
    ax.fill_between(expected, low, high, color=GREY, alpha=0.3, linewidth=0)
    ax.plot([0, expected[0]], [0, expected[0]], color=GREY, linewidth=0.8)
