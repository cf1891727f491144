"""Cells and guides of a screen: which cells have which guides, and which cells are used."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.data.words import counted
from plait.errors import InputError, OptionError, ShapeError
from plait.plot.style import (
    BLUE,
    GREY,
    VERMILION,
    axes_for,
    check_labels,
    label_size,
    set_counts,
    styled,
    write_words,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

_COUNTS = (
    "Cells by how many counts of the guide they have (cells without any are left out). Blue: the "
    "guide was assigned to the cell; grey: it was not, its counts are taken for background."
)
_PER_GUIDE = "Cells that have each guide, most first. Guides with few cells tell little."
_PER_CELL = "Cells by the number of guides that they have."
_HISTOGRAM = "All cells; orange, those left out for this reason; dotted, the bounds."
_REMOVED = "Share of all cells that each reason speaks against; some cells have several reasons."
_MOST_NAMED, _MOST_DRAWN, _MOST_BARS, _MOST_TICKS, _BINS = 45, 400, 15, 12, 50
_ROOM = 1.35
"""Height of a histogram with a legend, over that of its bars."""


def guide_counts(
    counts: ArrayLike,
    is_assigned: ArrayLike,
    *,
    title: str | None = None,
    caption: bool = False,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the distribution of a guide's counts, in cells that have it and in others.

    Parameters
    ----------
    counts : (cells,) array
        UMI counts of the guide; cells without counts are left out.
    is_assigned : (cells,) bool array
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
        The lengths differ.
    InputError
        No cell has counts.
    """
    values, has = np.asarray(counts, dtype=np.float64), np.asarray(is_assigned, dtype=bool)
    if values.ndim != 1 or values.shape != has.shape:
        raise ShapeError(f"counts and assignment have shapes {values.shape} and {has.shape}.")
    edges, without, with_guide = counted_bins(values, has)
    with styled() as plt:
        ax = axes_for(plt, ax, 3.6, 2.8)
        for heights, colour, label in (
            (without, GREY, f"not assigned ({int(without.sum()):,})"),
            (with_guide, BLUE, f"assigned ({int(with_guide.sum()):,})"),
        ):
            ax.bar(edges[:-1], heights, np.diff(edges), align="edge", color=colour, alpha=0.75,
                   label=label)  # fmt: skip
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_ylim(0.7, 8.0 * float(max(without.max(), with_guide.max())))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            axis.set_minor_formatter(lambda *_: "")
        ax.set_xlabel("counts of the guide")
        ax.set_ylabel("cells")
        ax.legend(loc="upper right")
        write_words(ax, title, _COUNTS if caption else None)
    return ax


def counted_bins(
    counts: Array, is_assigned: NDArray[np.bool_]
) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]]:
    """Return bins of counts that widen, and the cells in each without and with the guide.

    Raises
    ------
    InputError
        No cell has counts.
    """
    known = counts > 0
    if not known.any():
        raise InputError("no cell has counts of the guide.")
    edges = _widening(1.0, float(counts.max()), 32)
    without = np.histogram(counts[known & ~is_assigned], edges)[0]
    with_guide = np.histogram(counts[known & is_assigned], edges)[0]
    return edges, without, with_guide


def cells_per_guide(
    counts: ArrayLike,
    labels: Sequence[str] | None = None,
    is_control: ArrayLike | None = None,
    *,
    title: str | None = None,
    caption: bool = False,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw how many cells have each guide, most first.

    Parameters
    ----------
    counts : (guides,) int array
    labels : (guides,) sequence of str, optional
        Written where there are at most 45 guides.
    is_control : (guides,) bool array, optional
        Non-targeting guides, which are grey.
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
        There is no guide, or the lengths differ.
    """
    cells = np.asarray(counts, dtype=np.float64)
    if cells.ndim != 1 or not len(cells):
        raise ShapeError(f"counts have shape {cells.shape}; give one for each guide.")
    names = check_labels(labels, len(cells), "guides")
    control = np.zeros(len(cells), dtype=bool)
    if is_control is not None:
        control = np.asarray(is_control, dtype=bool)
        if control.shape != cells.shape:
            raise ShapeError(f"is_control has shape {control.shape} for {len(cells)} guides.")
    order = np.argsort(-cells, kind="stable")
    with styled() as plt:
        ax = axes_for(plt, ax, 5.6, 2.8)
        places = np.arange(len(cells))
        for chosen, colour, label in (
            (~control[order], BLUE, "guides of targets"),
            (control[order], GREY, "non-targeting guides"),
        ):
            if not chosen.any():
                continue
            heights = cells[order][chosen]
            if len(cells) > _MOST_DRAWN:  # as many bars would take seconds
                ax.vlines(places[chosen], 0, heights, color=colour, linewidth=0.8, label=label)
            else:
                width = 1.0 if len(cells) > _MOST_NAMED else 0.8
                ax.bar(places[chosen], heights, width, color=colour, label=label)
        if labels is not None and len(cells) <= _MOST_NAMED:
            ax.set_xticks(places, [names[j] for j in order], rotation=90,
                          fontsize=label_size(len(cells), 4.8))  # fmt: skip
        else:
            ax.set_xticks([])
            ax.set_xlabel(counted(len(cells), "guide"))
        ax.set_ylabel("cells")
        ax.set_ylim(0)
        set_counts(ax.yaxis)
        if is_control is not None:
            ax.legend(loc="upper right")
        write_words(ax, title, _PER_GUIDE if caption else None)
    return ax


def guides_per_cell(
    counts: ArrayLike,
    *,
    title: str | None = None,
    caption: bool = False,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw how many cells have no guide, one, two and so on.

    Parameters
    ----------
    counts : (cells,) int array
        Guides of each cell.
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
        There is no cell.
    """
    names, cells = multiplicities(np.asarray(counts))
    with styled() as plt:
        ax = axes_for(plt, ax, 3.6, 2.8)
        ax.bar(range(len(cells)), cells, 0.8, color=BLUE)
        every = -(-len(names) // _MOST_TICKS)
        ticks = [k for k in range(len(names)) if k % every == 0]
        ax.set_xticks(ticks, [names[k] for k in ticks])
        ax.set_xlabel("guides in a cell")
        ax.set_ylabel("cells")
        set_counts(ax.yaxis)
        write_words(ax, title, _PER_CELL if caption else None)
    return ax


def multiplicities(counts: NDArray[np.integer]) -> tuple[list[str], NDArray[np.int64]]:
    """Return numbers of guides, those above 15 in one, and how many cells have each."""
    if counts.ndim != 1 or not len(counts):
        raise ShapeError(f"counts have shape {counts.shape}; give one for each cell.")
    cells = np.bincount(np.minimum(counts, _MOST_BARS + 1))
    names = [str(i) for i in range(len(cells))]
    if len(cells) > _MOST_BARS + 1:
        names[-1] = f">{_MOST_BARS}"
    return names, cells


def cell_histogram(
    values: ArrayLike,
    low: float | None = None,
    high: float | None = None,
    *,
    xlabel: str = "value",
    title: str | None = None,
    caption: bool = False,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the distribution of a covariate of cells, and what lies outside its bounds.

    Parameters
    ----------
    values : (cells,) array
        NaN is left out. Bins widen where values are at least 1 and span more than a factor of 30.
    low, high : float, optional
        Cells below the one or above the other are left out of the analysis.
    xlabel : str
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
    edges, used, left = bounded_bins(known, low, high)
    with styled() as plt:
        ax = axes_for(plt, ax, 3.6, 2.8)
        for heights, bottom, colour, label in (
            (used, 0, BLUE, "within bounds"), (left, used, VERMILION, "left out"),
        ):  # fmt: skip
            ax.bar(edges[:-1], heights, np.diff(edges), bottom, align="edge", color=colour,
                   label=f"{label} ({int(heights.sum()):,})")  # fmt: skip
        for bound in (low, high):
            if bound is not None and edges[0] <= bound <= edges[-1]:
                # Not through the legend.
                ax.axvline(bound, 0, 1 / _ROOM, color="#555555", linewidth=0.9, linestyle=":")
        if is_wide(known[np.isfinite(known)]):
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
            ax.xaxis.set_minor_formatter(lambda *_: "")
        ax.set_xlabel(xlabel)
        ax.set_ylabel("cells")
        ax.set_ylim(0, _ROOM * float((used + left).max()))
        if left.any():
            ax.legend(loc="upper right")
        set_counts(ax.yaxis)
        write_words(ax, title, _HISTOGRAM if caption else None)
    return ax


def bounded_bins(
    values: Array, low: float | None, high: float | None
) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]]:
    """Return at most 50 bins, and the cells in each within and outside the bounds.

    Raises
    ------
    InputError
        There is no finite value.
    """
    known = values[np.isfinite(values)]
    if not len(known):
        raise InputError("there are no finite values of cells to draw.")
    least, most = float(known.min()), float(known.max())
    is_whole = bool((known == np.round(known)).all()) and most > least
    if is_wide(known):
        edges = np.geomspace(least, most, _BINS + 1)
        if is_whole:  # wide bins: those of one number beside those of two look like a comb
            edges = _widening(least, most, _BINS // 2)
    elif is_whole:
        width = np.ceil((most - least + 1.0) / _BINS)
        edges = np.arange(least, most + width + 0.5, width) - 0.5
    else:
        edges = np.linspace(least, most if most > least else least + 1.0, _BINS + 1)
    edges[-1] = np.nextafter(max(edges[-1], most), np.inf)
    edges[0] = min(edges[0], least)
    outside = np.zeros(len(known), dtype=bool)
    if low is not None:
        outside |= known < low
    if high is not None:
        outside |= known > high
    return edges, np.histogram(known[~outside], edges)[0], np.histogram(known[outside], edges)[0]


def _widening(least: float, most: float, count: int) -> Array:
    """Return edges of some bins of whole numbers, of which none is narrower than the one before.

    Bins of two numbers between bins of three would look like a comb.
    """
    edges, width = [least - 0.5], 1.0
    growth = ((most + 1.0) / least) ** (1.0 / count) - 1.0
    while edges[-1] < most:
        width = max(width, np.round((edges[-1] + 0.5) * growth))
        edges.append(edges[-1] + width)
    return np.array(edges)


def is_wide(values: Array) -> bool:
    """Return whether values are counts that are better seen on a logarithmic axis."""
    least = float(values.min())
    return least >= 1.0 and float(values.max()) > 30.0 * least


def share_text(share: float) -> str:
    """Return a share in percent; one that is not 0 is not written as 0."""
    return "< 0.1%" if 0.0 < share < 5e-4 else f"{share:.1%}"


def removed_cells(
    removed: Mapping[str, int],
    n_cells: int,
    *,
    title: str | None = None,
    caption: bool = False,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the share of cells that each reason of quality control speaks against.

    Parameters
    ----------
    removed : mapping of str to int
        Cells of each reason; and of "any reason" all that are left out.
    n_cells : int
        All cells.
    title : str, optional
    caption : bool
        Write below the figure how to read it.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    OptionError
        There are fewer cells than one reason speaks against, or there is no reason.
    """
    if not removed or max(removed.values()) > n_cells:
        raise OptionError(f"{dict(removed)} of {n_cells} cells: give reasons and all cells.")
    names = list(removed)
    shares = np.array([removed[name] for name in names]) / n_cells
    with styled() as plt:
        ax = axes_for(plt, ax, 3.6, 0.9 + 0.36 * len(names))
        ax.barh(range(len(names)), shares, 0.36, color=VERMILION)
        for place, (name, share) in enumerate(zip(names, shares.tolist(), strict=True)):
            ax.annotate(f"{name}: {share_text(share)}", (0.0, place - 0.2), xytext=(1, 1.5),
                        fontsize=7, textcoords="offset points")  # fmt: skip
        ax.set_yticks([])
        ax.set_ylim(len(names) - 0.7, -0.8)
        ax.set_xlim(0, 1.18 * max(float(shares.max()), 0.01))
        ax.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
        ax.set_xlabel("cells left out")
        write_words(ax, title, _REMOVED if caption else None)
    return ax
