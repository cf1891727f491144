"""Quantile-quantile plot: whether small p-values are more frequent than chance makes them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import ShapeError
from plait.io.stored_arrays import parts_of
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
    "Observed p-values against those that chance alone would give, both as -log10. Grey: where 95% "
    "of them lie without any effect. Points that leave the band only at the right are signals. "
    "Points above it from the start, and a lambda (the ratio of the medians) above 1, come from "
    "very many true effects in linkage, or from relatedness and population structure, which make "
    "all p-values too small. A mixed model tells them apart: what is left of lambda there is "
    "mostly signal."
)
_BAND_POINTS = 300
_RANKS = 20_000
_READ_BYTES = 1 << 23
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
    curves = [_Curve.of(values) for values in _columns(table)] if table.ndim == 2 else []
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
        if others:
            low, high = np.nanmin(inflation[others]), np.nanmax(inflation[others])
            text = f"{counted(len(others))}, lambda {low:.2f}"
            text += f" to {high:.2f}" if len(others) > 1 else ""
            ax.scatter([], [], s=3, color=GREY, label=text)
        ax.set_xlim(0)
        ax.set_ylim(0)
        ax.set_xlabel("expected $-\\log_{10} p$")
        ax.set_ylabel("observed $-\\log_{10} p$")
        anchor = {"bbox_to_anchor": (1.0, 1.0)} if beside else {}
        ax.legend(loc="upper left", handletextpad=0.2, markerscale=2, **anchor)
        words = caption if isinstance(caption, str) else CAPTION
        write_words(ax, title, words if caption else None)
    return ax


def _columns(table: Any) -> Iterator[NDArray[np.float64]]:
    """Yield the columns of a table, which may be in a store: there, as many as fit are read."""
    width = max(1, _READ_BYTES // (4 * max(len(table), 1)))
    for start in range(0, table.shape[1], width):
        columns = np.empty((min(width, table.shape[1] - start), len(table)), dtype=np.float32)
        for rows in parts_of(table, _READ_BYTES // 4):
            columns[:, rows] = table[rows, start : start + width].T
        yield from columns


@dataclass(frozen=True)
class _Curve:
    """What is drawn of a trait.

    Attributes
    ----------
    count : int
        P-values.
    inflation, peak : float
        See `genomic_inflation`; the largest -log10 p.
    expected, observed : arrays
        The points, where they crowd a part of them.
    """

    count: int
    inflation: float
    peak: float
    expected: NDArray[np.float64]
    observed: NDArray[np.float64]

    @classmethod
    def of(cls, log10p: NDArray[np.float64]) -> "_Curve":
        """Take the p-values of a trait, which are sorted in place; NaN is left out."""
        log10p.sort()  # NaN comes last
        kind = log10p.dtype.type  # a number of another type would make a copy
        first = np.searchsorted(log10p, kind(-np.inf), side="right")
        known = log10p[first : np.searchsorted(log10p, kind(np.inf))]
        count = len(known)
        ranks = np.unique(np.geomspace(1, max(count, 1), _RANKS).astype(np.intp))
        ranks = np.union1d(ranks, np.arange(1, np.searchsorted(known, kind(-ALWAYS_DRAWN)) + 1))[
            :count
        ]
        observed = -known[ranks - 1].astype(np.float64)
        expected = -np.log10((ranks - 0.5) / max(count, 1))
        shown = thinned(expected, observed, 2000)
        peak = float(observed.max(initial=0.0))
        middle = known[max(count - 1, 0) // 2 : count // 2 + 1]
        return cls(count, genomic_inflation(middle), peak, expected[shown], observed[shown])

    def draw(self, ax: "Axes", colour: str, size: float, label: str | None = None) -> None:
        """Draw the points, if there are any."""
        if self.count:
            ax.scatter(
                self.expected, self.observed, s=size, linewidths=0, rasterized=True, color=colour,
                label=label,
            )  # fmt: skip


def genomic_inflation(log10p: NDArray[np.float64]) -> float:
    """Return the median chi-square of p-values over that without any effect; NaN without any."""
    from scipy.special import ndtri_exp

    if not len(log10p):
        return float("nan")

    middle = float(np.median(log10p)) * np.log(10) - np.log(2)
    return float(ndtri_exp(middle) ** 2 / ndtri_exp(np.log(0.25)) ** 2)


def chance_band(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return where p-values lie without any effect, all as -log10, from the smallest p on.

    Returns
    -------
    expected, low, high : arrays
        What chance gives, and the 2.5 and 97.5 % points of the order statistics of uniforms.
    """
    from scipy.special import betaincinv  # scipy.stats takes 40 MB, and long to import

    ranks = np.unique(np.round(np.geomspace(1, count, _BAND_POINTS)))
    expected = -np.log10((ranks - 0.5) / count)
    low, high = (-np.log10(betaincinv(ranks, count - ranks + 1, q)) for q in (0.975, 0.025))
    return expected, low, high


def _draw_band(ax: "Axes", count: int) -> None:
    """Draw the diagonal, and the band around it."""
    expected, low, high = chance_band(count)
    ax.fill_between(expected, low, high, color=GREY, alpha=0.3, linewidth=0)
    ax.plot([0, expected[0]], [0, expected[0]], color=GREY, linewidth=0.8)
