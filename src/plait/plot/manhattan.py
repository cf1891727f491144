"""Manhattan plot: how sure each association is, along the genome."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import OptionError, ShapeError
from plait.plot.style import (
    BESIDE_POINTS,
    COLOURS,
    GREY,
    INK,
    VERMILION,
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
    "Each point is a variant: its place in the genome and -log10 of its p-value; higher is surer. "
    "Points above the dashed line pass genome-wide significance (p < 5e-8). A true signal is a "
    "column of points (neighbours inherited together); a single high point deserves distrust."
)
GENOME_WIDE = -np.log10(5e-8)
NOWHERE, UNPLACED = "0", "unplaced"
"""The chromosome of variants whose place is not known, as PLINK writes it; what it is called."""
_SHADES = ("#33658A", "#86BBD8")
ALWAYS_DRAWN = 3.0
_MOST = 20_000
_WIDER = 6
"""How many times more cells the grid that points are thinned by has across than up."""
_PIECE = 1 << 16
_CHARACTER, _LINE = 0.008, 0.06
"""Width and height of a letter, as shares of the picture."""


def manhattan(
    chrom: Sequence[str] | NDArray[np.str_],
    pos: ArrayLike,
    log10p: ArrayLike,
    *,
    labels: Sequence[str] | NDArray[np.str_] | None = None,
    traits: Sequence[str] | None = None,
    trait_of: ArrayLike | None = None,
    line: float | None = GENOME_WIDE,
    name_peaks: int = 5,
    title: str | None = None,
    caption: bool = False,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw ``-log10 p`` along the genome, chromosomes side by side.

    Parameters
    ----------
    chrom : (M,) sequence of str
        Chromosomes, drawn in the order in which they occur; "0", of variants without a place, comes
        last and is grey, its variants one beside the other.
    pos : (M,) array
        Positions; variants without one (all 0) are drawn in their order.
    log10p : (M,) array
        log10 of p-values; NaN is left out.
    labels : (M,) sequence of str, optional
        Names of variants, for the peaks.
    traits : sequence of str, optional
    trait_of : (M,) array of int, optional
        The trait of each point, by number: points above the line are coloured by it. Beyond 8
        traits, those with the highest peaks have colours of their own.
    line : float, optional
        Height of the dashed line; None draws none.
    name_peaks : int
        How many peaks above the line get their name.
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
    OptionError
        ``name_peaks`` is negative.

    Notes
    -----
    All points above 3 are drawn, and of the others at most 20,000, evenly over the picture.
    """
    names = np.asarray(chrom, dtype=np.str_)
    heights = -np.asarray(log10p, dtype=np.float64)
    places = np.asarray(pos, dtype=np.float64)
    if not len(names) == len(heights) == len(places):
        raise ShapeError(
            f"chrom, pos and log10p have {len(names)}, {len(places)} and {len(heights)} entries."
        )
    if name_peaks < 0:
        raise OptionError(f"name_peaks is {name_peaks}; it cannot be negative.")
    groups = None if trait_of is None else np.asarray(trait_of)
    if groups is not None and len(groups) != len(names):
        raise ShapeError(f"trait_of has {len(groups)} entries for {len(names)} variants.")
    del chrom, pos, log10p, trait_of  # arrays of many variants take more than the picture
    across, ticks, number = along_genome(names, places)
    del names, places
    shown = thinned(across, heights)
    shades = shade_of(number[shown], ticks)
    del number
    with styled() as plt:
        ax = axes_for(plt, ax, 8.0, 2.8)
        for kind, shade in enumerate((*_SHADES, GREY)):
            part = shown[shades == kind]
            ax.scatter(across[part], heights[part], s=5, color=shade, linewidths=0, rasterized=True)
        top = max(float(np.nanmax(heights, initial=1.0)), 1.0) * 1.12
        if line is not None:
            ax.axhline(line, color=VERMILION, linewidth=0.8, linestyle="--")
            top = max(top, 1.1 * line)
            if groups is not None:
                high = shown[heights[shown] > line]
                _draw_by_trait(ax, across[high], heights[high], groups[high], traits)
            if labels is not None:
                peaks = highest_peaks(across, heights, line, 3 * name_peaks)
                texts = {peak: str(labels[peak]) for peak in peaks}
                for peak in _apart(across, heights, top, texts)[:name_peaks]:
                    ax.annotate(
                        texts[peak], (across[peak], heights[peak]), (0, 4), ha="center",
                        textcoords="offset points", fontsize=7, color=INK, bbox=BESIDE_POINTS,
                        zorder=5,
                    )  # fmt: skip
        ax.set_ylim(0, top)
        ax.margins(x=0.01)
        ax.set_xticks([place for _, place in ticks], [name for name, _ in ticks])
        ax.tick_params(axis="x", length=0, labelsize=7 if len(ticks) > 12 else 8)
        ax.set_xlabel("chromosome")
        ax.set_ylabel("$-\\log_{10} p$")
        coloured = groups is not None and line is not None and bool((heights > line).any())
        colours = " Colours: the trait of the smallest p-value." if coloured else ""
        write_words(ax, title, CAPTION + colours if caption else None)
    return ax


def _apart(
    across: NDArray[np.float64],
    heights: NDArray[np.float64],
    top: float,
    texts: Mapping[int, str],
) -> list[int]:
    """Return the points, the first ones first, whose names do not touch one before."""
    letter = _CHARACTER * float(across.max() - across.min()) if texts else 0.0
    kept: list[int] = []
    for point, text in texts.items():
        if all(
            abs(across[point] - across[other]) > letter * (len(text) + len(texts[other]) + 2) / 2
            or abs(heights[point] / top - heights[other] / top) > _LINE
            for other in kept
        ):
            kept.append(point)
    return kept


def _draw_by_trait(
    ax: "Axes",
    across: NDArray[np.float64],
    heights: NDArray[np.float64],
    groups: NDArray[np.intp],
    traits: Sequence[str] | None,
) -> None:
    """Draw points in the colours of their traits, and say which is which."""
    count = int(groups.max(initial=-1)) + 1
    names = check_labels(traits, count if traits is None else max(count, len(traits)), "traits")
    peaks = np.zeros(len(names))
    np.maximum.at(peaks, groups, heights)
    own, others = chosen_traits(peaks)
    for colour, k in zip((*COLOURS[: len(own)], GREY), (*own, -1), strict=True):
        here = groups == k if k >= 0 else np.isin(groups, others)
        if here.any():
            name = names[k] if k >= 0 else counted(int((peaks[others] > 0).sum()))
            ax.scatter(
                across[here], heights[here], s=9, color=colour, linewidths=0, rasterized=True,
                label=name, zorder=3,
            )  # fmt: skip
    if len(groups):
        ax.legend(
            loc="lower right", bbox_to_anchor=(1, 1), ncols=5, handletextpad=0, columnspacing=0.8,
            borderaxespad=0.2, markerscale=1.6,
        )  # fmt: skip


def thinned(
    x: NDArray[np.float64],
    heights: NDArray[np.float64],
    most: int = _MOST,
    most_high: int | None = None,
) -> NDArray[np.intp]:
    """Return the points to draw: of those up to 3 at most ``most``, of those above ``most_high``.

    Points are thinned where they crowd: the same number from every cell of a grid over the picture.
    By default all above 3 are drawn; else the highest of every stretch is among those that are.
    """
    finite = np.isfinite(heights)
    low = np.flatnonzero(finite & (heights <= ALWAYS_DRAWN))
    high = np.flatnonzero(finite & (heights > ALWAYS_DRAWN))
    low = _evenly(x, heights, low, most)
    if most_high is not None and len(high) > most_high:
        summits = high[_summits(x[high], heights[high], most_high // 4)]
        others = np.setdiff1d(high, summits, assume_unique=True)
        high = np.concatenate([summits, _evenly(x, heights, others, most_high - len(summits))])
    return np.sort(np.concatenate([low, high]))


def _summits(
    x: NDArray[np.float64], heights: NDArray[np.float64], stretches: int
) -> NDArray[np.intp]:
    """Return the highest point of every stretch."""
    stretch = np.floor(stretches * _Range(float(x.min()), float(x.max())).share(x))
    order = np.lexsort((-heights, stretch))
    return order[np.flatnonzero(np.diff(stretch[order], prepend=-1.0))]


def _evenly(
    x: NDArray[np.float64], heights: NDArray[np.float64], points: NDArray[np.intp], most: int
) -> NDArray[np.intp]:
    """Choose at most ``most`` of the points, as many from every cell of a grid of at most ``most``.

    From anywhere in its cell, by a hash of the number of each point: the first ones of all cells
    would stand in stripes. Points are taken in pieces, for memory.
    """
    if len(points) <= most:
        return points
    rows = max(int((most / _WIDER) ** 0.5), 1)
    columns = most // rows
    across, up = _Range.of(x, points), _Range.of(heights, points)

    def cells(chosen: NDArray[np.intp]) -> NDArray[np.intp]:
        column = (columns * across.share(x[chosen])).astype(np.intp)
        return column * rows + (rows * up.share(heights[chosen])).astype(np.intp)

    pieces = [slice(start, start + _PIECE) for start in range(0, len(points), _PIECE)]
    counts = np.zeros(rows * columns, dtype=np.intp)
    for piece in pieces:
        counts += np.bincount(cells(points[piece]), minlength=len(counts))
    # The largest number per cell that fits: one always does.
    at_least = np.cumsum(np.bincount(counts)[::-1])[::-1]
    depth = int((np.cumsum(at_least[1:]) <= most).sum())
    kept = points[:0]
    for piece in pieces:
        asked = np.concatenate([kept, points[piece]])
        cell = cells(asked)
        scattered = asked.astype(np.uint64) * np.uint64(2654435761) % np.uint64(1 << 32)
        order = np.lexsort((scattered, cell))
        starts = np.flatnonzero(np.diff(cell[order], prepend=-1))
        rank = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
        kept = asked[order[rank < depth]]
    return kept


@dataclass(frozen=True)
class _Range:
    """From where to where numbers go."""

    low: float
    high: float

    @classmethod
    def of(cls, values: NDArray[np.float64], points: NDArray[np.intp]) -> "_Range":
        chosen = values[points]
        return cls(float(chosen.min()), float(chosen.max()))

    def share(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how far along each value is, from 0 to less than 1."""
        if self.high <= self.low:
            return np.zeros(len(values))
        result: NDArray[np.float64] = (values - self.low) / (self.high - self.low)
        return np.minimum(result, 1 - 1e-9)


def along_genome(
    names: NDArray[np.str_], places: NDArray[np.float64]
) -> tuple[NDArray[np.float64], list[tuple[str, float]], NDArray[np.intp]]:
    """Put chromosomes one after another, in the order in which they occur, the unplaced last.

    Returns
    -------
    across : (M,) array
        The places, from 0.
    ticks : list of (str, float)
        Chromosomes, and where to name them.
    number : (M,) array
        Of which chromosome each variant is, from 0.
    """
    starts = np.r_[:1, np.flatnonzero(names[1:] != names[:-1]) + 1][: len(names)]  # of runs
    found, first, inverse = np.unique(names[starts], return_index=True, return_inverse=True)
    order = np.lexsort((first, found == NOWHERE))
    rank = np.empty(len(order), dtype=np.intp)
    rank[order] = np.arange(len(order))
    number = np.repeat(rank[inverse], np.diff(starts, append=len(names)))
    across, ticks, start = np.empty(len(places)), [], 0.0
    lengths: list[float] = []
    for k in range(len(order)):
        here = np.flatnonzero(number == k)
        local = places[here] - places[here].min()
        if found[order[k]] == NOWHERE:  # positions there tell nothing
            placed = len(places) - len(here)
            local = np.arange(len(here)) * (sum(lengths) / placed if placed else 1.0)
        elif local.max() == 0:
            local = np.arange(len(here), dtype=np.float64)
        across[here] = local
        lengths.append(float(local.max()))
    gap = 0.01 * sum(lengths)
    for k, length in enumerate(lengths):
        across[number == k] += start
        name = str(found[order[k]])
        ticks.append((UNPLACED if name == NOWHERE else name, start + length / 2))
        start += length + gap
    return across, ticks, number


def shade_of(number: NDArray[np.intp], ticks: Sequence[tuple[str, float]]) -> NDArray[np.intp]:
    """Return 0 or 1 for points of chromosomes in turn, and 2 for those without a place.

    Parameters
    ----------
    number : (n,) array
        The chromosomes of points, from 0.
    ticks : list of (str, float)
        Of `along_genome`.
    """
    nowhere = len(ticks) > 1 and ticks[-1][0] == UNPLACED
    return np.where(nowhere & (number == len(ticks) - 1), 2, number % 2)


def highest_peaks(
    across: NDArray[np.float64],
    heights: NDArray[np.float64],
    line: float,
    count: int,
    apart: float = 0.03,
) -> list[int]:
    """Return the highest points above the line that are apart by some share of the genome."""
    above = np.flatnonzero(heights > line)  # NaN is not
    span = apart * (float(across.max()) - float(across.min()))
    found: list[int] = []
    for point in above[np.argsort(-heights[above], kind="stable")]:
        if len(found) == count:
            break
        if all(abs(across[point] - across[other]) > span for other in found):
            found.append(int(point))
    return found
