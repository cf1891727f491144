"""Checks of gene-level tests: counts behind pairs, positive controls, fold changes of controls."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.data.words import shortened
from plait.errors import InputError, ShapeError
from plait.plot.labels import name_points
from plait.plot.manhattan import thinned
from plait.plot.style import (
    BLUE,
    GREY,
    INK,
    VERMILION,
    axes_for,
    check_labels,
    set_counts,
    styled,
    write_words,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

_PAIRS = (
    "Each point is a pair of a target and a gene: treated cells and control cells with counts of "
    "the gene."
)
_NOT_TESTED = " Orange: too few of one of them, so the pair is not tested."
_BOUNDS = " Dotted: the fewest that a pair needs."
_LEFT_OUT = " Where points crowd, some are left out."
_POWER = (
    "Positive controls, pairs that should have an effect, beside negative controls, which have "
    "none. The more the two lie apart, the more an effect of this size is found. Lines are medians."
)
_POWER_ALONE = "Positive controls, pairs that should have an effect. The line is their median."
_FOLDS = (
    "log₂ fold changes of groups of non-targeting guides, which have no effect: their mean should "
    "be 0. Dotted, 0; line, the mean."
)
_MOST, _NAMED, _SPREAD, _LONGEST = 4000, 12, 0.32, 20
_COUNTS = (((10,), 6), ((10, 30), 3), ((10, 20, 50), 3), ((10, 15, 20, 30, 50, 70), 0))
"""First two digits of ticks of numbers of cells, and how many ticks of these are enough."""
_SHORTEST = 4.0
_NEAR = 2.0
"""Bounds are drawn where a pair has fewer cells than this many times as many."""
_BEND = 10
"""Up to here -log10 p is drawn linearly, above by its logarithm."""
_BENT = f" Above the dotted line at {_BEND} heights are drawn by their logarithms: see the ticks."
_ABOVE_BEND = (15, 20, 30, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
_FINE = (15, 30)
"""Ticks that there is only room for where no height is above `_COARSE_FROM`."""
_COARSE_FROM = 100


def pair_quality(
    n_treated: ArrayLike,
    n_controls: ArrayLike,
    passes: ArrayLike,
    fewest: tuple[int, int] | None = None,
    *,
    title: str | None = None,
    caption: bool = False,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw in how many treated and control cells the gene of each pair has counts.

    Parameters
    ----------
    n_treated, n_controls : (pairs,) int arrays
    passes : (pairs,) bool array
        Which pairs are tested.
    fewest : pair of int, optional
        Treated and control cells that a pair needs.
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
        There is no pair, or the lengths differ.
    """
    x, y = (np.asarray(v, dtype=np.float64) for v in (n_treated, n_controls))
    good = np.asarray(passes, dtype=bool)
    if x.ndim != 1 or not len(x) or x.shape != y.shape or x.shape != good.shape:
        raise ShapeError(
            f"treated cells, controls and passes have shapes {x.shape}, {y.shape} and {good.shape}."
        )
    height = np.log1p(y) / max(float(np.log1p(y).max()), 1.0)  # none is "always drawn"
    shown = thinned(np.log1p(x), height, _MOST)
    with styled() as plt:
        ax = axes_for(plt, ax, 4.2, 3.6)
        for chosen, colour, label in (
            (good, BLUE, f"tested ({int(good.sum()):,})"),
            (~good, VERMILION, f"not tested ({int((~good).sum()):,})"),
        ):
            rows = shown[chosen[shown]]
            if not len(rows):
                continue
            ax.scatter(x[rows], y[rows], s=5, color=colour, alpha=0.5, linewidths=0, label=label,
                       rasterized=True)  # fmt: skip
        is_bounded = False
        for name, values, bound, line in zip(
            "xy", (x, y), fewest or (None, None), (ax.axvline, ax.axhline), strict=True
        ):
            if bound is not None and values.min() < _NEAR * bound:
                line(bound - 0.5, color="#555555", linewidth=0.9, linestyle=":")
                is_bounded = True
            _set_counts(ax, name, values)
        ax.set_xlabel("treated cells with counts")
        ax.set_ylabel("control cells with counts")
        ax.legend(loc="lower right", markerscale=2, frameon=True, framealpha=0.9, edgecolor="none")
        words = _PAIRS + _NOT_TESTED * (not good.all()) + _BOUNDS * is_bounded
        words += _LEFT_OUT * (len(shown) < len(x))
        write_words(ax, title, words if caption else None)
    return ax


def _set_counts(ax: "Axes", name: str, values: Array) -> None:
    """Set an axis of numbers of cells: logarithmic, as far as there are any, from 0 if need be."""
    least = float(values.min())
    high = 1.4 * max(float(values.max()), 1.0)
    low = -0.3 if least < 1.0 else min(0.75 * least, high / _SHORTEST)
    for digits, enough in _COUNTS:
        ticks = [0, *(k * 10**e // 10 for e in range(8) for k in digits if e or k % 10 == 0)]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= enough:
            break
    getattr(ax, f"set_{name}scale")("symlog", linthresh=1)
    getattr(ax, f"set_{name}lim")(low, high)
    large = (4, 5, 6, 7) if high > 1e5 else ()  # in full these would touch
    sizes = {10**e: f"$10^{e}$" for e in large}
    getattr(ax, f"set_{name}ticks")(ticks, [sizes.get(tick, f"{tick:,}") for tick in ticks])
    getattr(ax, f"{name}axis").minorticks_off()


def power_check(
    positive: ArrayLike,
    negative: ArrayLike,
    labels: Sequence[str] | None = None,
    *,
    title: str | None = None,
    caption: bool = False,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the p-values of positive controls beside those of negative ones.

    Parameters
    ----------
    positive, negative : (n,) and (m,) arrays
        log10 p; NaN is left out. There may be no negative controls.
    labels : (n,) sequence of str, optional
        Names of the positive controls, of which the surest are written.
    title : str, optional
    caption : bool
        Write below the figure how to read it.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
        Of -log10 p, linear up to 10; where there are larger ones, logarithmic above it, which a
        dotted line and the caption tell.

    Raises
    ------
    InputError
        There is no positive control.
    """
    found = -np.asarray(positive, dtype=np.float64).ravel()
    names = None if labels is None else check_labels(labels, len(found), "positive controls")
    none = -np.asarray(negative, dtype=np.float64).ravel()
    none = none[np.isfinite(none)]
    if not np.isfinite(found).any():
        raise InputError("there are no p-values of positive controls to draw.")
    with styled() as plt:
        ax = axes_for(plt, ax, 4.2, 3.6)
        for place, values, colour, size in ((0, none, GREY, 6), (1, found, BLUE, 18)):
            x = place + beside(values)
            ax.scatter(x, values, s=size, color=colour, alpha=0.7, linewidths=0,
                       rasterized=len(values) > 2000)  # fmt: skip
            if len(values):
                middle = float(np.nanmedian(values))
                ax.plot([place - _SPREAD, place + _SPREAD], [middle] * 2, color=INK, linewidth=1.2)
        is_bent = _set_heights(ax, float(np.nanmax(np.r_[found, none])))
        kinds = [
            (0, f"negative\ncontrols ({len(none):,})", len(none)),
            (1, f"positive\ncontrols ({int(np.isfinite(found).sum()):,})", len(found)),
        ]
        kinds = [kind for kind in kinds if kind[2]]
        ax.set_xticks([kind[0] for kind in kinds], [kind[1] for kind in kinds])
        ax.set_xlim(-0.6 if len(none) else 0.4, 2.0 if names else 1.6)
        ax.set_ylabel("−log₁₀ p")
        write_words(
            ax,
            title,
            (_POWER if len(none) else _POWER_ALONE) + _BENT * is_bent if caption else None,
        )
        if names is not None:
            surest = np.argsort(-found, kind="stable")[:_NAMED].tolist()
            short = [shortened(name, _LONGEST) for name in names]
            # No name over a line, either.
            line, bend = np.linspace(1 - _SPREAD, 1 + _SPREAD, 30), np.linspace(*ax.get_xlim(), 60)
            across = np.r_[1 + beside(found), line, bend, beside(none)]
            level = np.full(len(bend), _BEND if is_bent else np.nan)
            up = np.r_[found, np.full(len(line), np.nanmedian(found)), level, none]
            named = [row for row in surest if np.isfinite(found[row])]
            name_points(ax, across, up, short, named)
    return ax


def _set_heights(ax: "Axes", highest: float) -> bool:
    """Set the axis of -log10 p up to a height, and return whether it bends on the way."""
    if highest <= _BEND:
        ax.set_ylim(0, min(1.3 * max(highest, 1.0), 1.05 * _BEND))
        return False
    ax.set_yscale("symlog", linthresh=_BEND)
    top = max(1.3 * highest, 2.0 * _BEND)  # a tick above the bend, whatever the height
    above = [t for t in _ABOVE_BEND if t <= top and (top < _COARSE_FROM or t not in _FINE)]
    ticks = [*range(0, _BEND + 1, 2), *above]
    ax.set_ylim(0, top)
    ax.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
    ax.minorticks_off()
    ax.axhline(_BEND, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
    return True


def beside(values: Array) -> Array:
    """Return offsets that keep points of like height apart, the same ones every time.

    Within 0.32 of the middle: ranks in the order of a van der Corput sequence.
    """
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    offset, part = np.zeros(len(values)), 0.5
    while ranks.any():
        offset += part * (ranks % 2)
        ranks, part = ranks // 2, part / 2
    return np.asarray(_SPREAD * (2.0 * offset - 1.0)) if len(values) > 1 else np.zeros(len(values))


def fold_changes(
    values: ArrayLike,
    *,
    title: str | None = None,
    caption: bool = False,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the log2 fold changes of negative controls, whose mean should be 0.

    Parameters
    ----------
    values : (n,) array
        NaN and infinities are left out.
    title : str, optional
    caption : bool
        Write below the figure how to read it.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError
        There is no finite value.
    """
    known = np.asarray(values, dtype=np.float64).ravel()
    known = known[np.isfinite(known)]
    if not len(known):
        raise InputError("there are no fold changes to draw.")
    with styled() as plt:
        ax = axes_for(plt, ax, 3.6, 2.8)
        ax.hist(known, 50, color=GREY)
        ax.xaxis.set_major_locator(plt.MaxNLocator(5))
        set_counts(ax.yaxis)
        ax.set_ylim(0, 1.15 * ax.get_ylim()[1])  # room for the legend
        mean = float(known.mean())
        ax.axvline(0.0, color="#555555", linewidth=0.9, linestyle=":")
        ax.axvline(
            mean, color=VERMILION, linewidth=1.2, label=f"mean {mean:+.3f}".replace("-", "−")
        )
        ax.set_xlabel("log₂ fold change")
        ax.set_ylabel("pairs")
        ax.legend(loc="upper right")
        write_words(ax, title, _FOLDS if caption else None)
    return ax
