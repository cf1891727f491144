"""Manhattan plot: how sure each association is, along the genome."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import OptionError, ShapeError
from plait.plot.labels import name_points
from plait.plot.style import (
    COLOURS,
    GREY,
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
    "Each point is a variant: its place in the genome and −log₁₀ of its p-value; higher is surer. "
    "Points above the dashed line pass genome-wide significance (p < 5e-8). A true signal is a "
    "column of points (neighbours inherited together); a single high point deserves distrust."
)
_UNPLACED_CAPTION = (
    "Each point is a variant and −log₁₀ of its p-value; higher is surer. The places of the "
    "variants are not known: they are drawn in their order. Points above the dashed line pass "
    "genome-wide significance (p < 5e-8)."
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
_PEAKS_APART = 0.03
"""The smallest distance of two peaks that are named, as a share of the genome."""
_COLUMNS, _STEPS = 500, 50
"""Stretches of the genome whose highest point ends a column; points of one that names keep off."""
_ACROSS, _BOLD, _MARKER = 120, 1.4, 6
"""Letters of a legend across a picture; how many a letter of the title and a marker take."""


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
    All points above 3 are drawn, and of the others at most 20,000, evenly over the picture. Arrays
    may be in a store: four times over, parts of them are read.
    """
    names, places, logs = (_in_parts(values) for values in (chrom, pos, log10p))
    if not len(names) == len(logs) == len(places):
        raise ShapeError(
            f"chrom, pos and log10p have {len(names)}, {len(places)} and {len(logs)} entries."
        )
    if name_peaks < 0:
        raise OptionError(f"name_peaks is {name_peaks}; it cannot be negative.")
    groups = None if trait_of is None else _in_parts(trait_of)
    if groups is not None and len(groups) != len(names):
        raise ShapeError(f"trait_of has {len(groups)} entries for {len(names)} variants.")
    genome = GenomeLayout.of(names, places)
    ticks = genome.ticks

    def pieces() -> Iterator[Points]:
        for rows in _pieces(len(logs)):
            across = genome.across(rows, places[rows])
            yield Points(np.arange(rows.start, rows.stop), across, -_floats(logs[rows]))

    tall, peak = _tall(pieces, ALWAYS_DRAWN if line is None else min(line, ALWAYS_DRAWN))
    high = tall.where(np.isfinite(tall.heights) & (tall.heights > ALWAYS_DRAWN))
    shown = Points.joined([_evenly(_low(pieces), _MOST), high])
    shades = shade_of(genome.number(shown.rows), ticks)
    with styled() as plt:
        ax = axes_for(plt, ax, 8.0, 2.8)
        for kind, shade in enumerate((*_SHADES, GREY)):
            part = shown.where(shades == kind)
            ax.scatter(part.across, part.heights, s=5, color=shade, linewidths=0, rasterized=True)
        top = max(peak, 1.0) * 1.12
        if line is not None:
            ax.axhline(line, color=VERMILION, linewidth=0.8, linestyle="--")
            top = max(top, 1.1 * line)
            if groups is not None:
                high = shown.where(shown.heights > line)
                _draw_by_trait(ax, high, _taken(groups, high.rows), traits, title or "")
        ax.set_ylim(0, top)
        ax.margins(x=0.01)
        ax.set_xticks([place for _, place in ticks], [name for name, _ in ticks])
        ax.tick_params(axis="x", length=0, labelsize=7 if len(ticks) > 12 else 8)
        ax.set_xlabel("chromosome")
        ax.set_ylabel("−log₁₀ p")
        coloured = groups is not None and line is not None and peak > line
        colours = " Colours: the trait of the smallest p-value." if coloured else ""
        is_placed = not all(name == UNPLACED for name, _ in ticks)
        text = (CAPTION if is_placed else _UNPLACED_CAPTION) + colours
        write_words(ax, title, text if caption else None)
        if labels is not None and line is not None:
            _name_peaks(ax, tall, shown, labels, line, name_peaks, genome.end)
    return ax


def _in_parts(values: Any) -> Any:
    """Return what can be read in parts: an array, also one in a store, or an array of a list."""
    return values if hasattr(values, "shape") else np.asarray(values)


def _floats(values: Any) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)


def _pieces(count: int) -> Iterator[slice]:
    for start in range(0, count, _PIECE):
        yield slice(start, min(start + _PIECE, count))


def _taken(values: Any, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return some rows, in ascending order, of an array that is read in parts."""
    found = [np.empty(0, dtype=np.intp)]
    for piece in _pieces(len(values)):
        first, last = np.searchsorted(rows, (piece.start, piece.stop))
        if first < last:
            here = rows[first:last]
            found.append(np.asarray(values[int(here[0]) : int(here[-1]) + 1])[here - here[0]])
    return np.concatenate(found)


def _name_peaks(
    ax: "Axes",
    tall: "Points",
    shown: "Points",
    labels: Sequence[str] | NDArray[np.str_],
    line: float,
    count: int,
    end: float,
) -> None:
    """Write names at the highest points that have room for one, over no point that is shown.

    Nor are they, or lines to them, between the points of a column, whose name they would seem.
    """
    peaks = highest_peaks(tall.across, tall.heights, line, 3 * count, _PEAKS_APART * end)
    texts = {peak: str(labels[int(tall.rows[peak])]) for peak in peaks}
    over = tall.where(np.isfinite(tall.heights) & (tall.heights > line))
    columns = over.where(_summits(over.across, over.heights, _COLUMNS)) if len(over.rows) else over
    up = line + (columns.heights[:, None] - line) * np.linspace(0.0, 1.0, _STEPS)
    walls = np.repeat(columns.across, _STEPS), up.ravel()
    across = np.concatenate([tall.across, shown.across])
    heights = np.concatenate([tall.heights, shown.heights])
    name_points(ax, across, heights, texts, peaks, count, walls)


def _draw_by_trait(
    ax: "Axes",
    high: "Points",
    groups: NDArray[np.intp],
    traits: Sequence[str] | None,
    title: str,
) -> None:
    """Draw points in the colours of their traits, and say which is which, beside the title."""
    count = int(groups.max(initial=-1)) + 1
    names = check_labels(traits, count if traits is None else max(count, len(traits)), "traits")
    peaks = np.zeros(len(names))
    np.maximum.at(peaks, groups, high.heights)
    own, others = chosen_traits(peaks)
    shown = []
    for colour, k in zip((*COLOURS[: len(own)], GREY), (*own, -1), strict=True):
        here = groups == k if k >= 0 else np.isin(groups, others)
        if here.any():
            shown.append(names[k] if k >= 0 else counted(int((peaks[others] > 0).sum())))
            ax.scatter(
                high.across[here], high.heights[here], s=9, color=colour, linewidths=0,
                rasterized=True, label=shown[-1], zorder=3,
            )  # fmt: skip
    if len(groups):
        ax.legend(
            loc="lower right", bbox_to_anchor=(1, 1), ncols=_columns(shown, title),
            handletextpad=0, columnspacing=0.8, borderaxespad=0.2, markerscale=1.6,
        )  # fmt: skip


def _columns(names: Sequence[str], title: str) -> int:
    """Return how many columns of names, five at most, have room beside the title."""
    room = _ACROSS - _BOLD * len(title)
    for count in range(min(5, len(names)), 1, -1):
        columns = np.array_split([len(name) for name in names], count)
        if sum(int(column.max()) + _MARKER for column in columns) <= room:
            return count
    return 1


@dataclass(frozen=True, eq=False)
class Points:
    """Points of a picture: numbers (n,), in ascending order, places (n,) and heights (n,)."""

    rows: NDArray[np.intp]
    across: NDArray[np.float64]
    heights: NDArray[np.float64]

    def where(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> "Points":
        """Return some of them."""
        return Points(self.rows[chosen], self.across[chosen], self.heights[chosen])

    @classmethod
    def joined(cls, parts: "Sequence[Points]") -> "Points":
        """Return all points of the parts, in order."""
        rows = np.concatenate([np.empty(0, dtype=np.intp), *(part.rows for part in parts)])
        across, heights = (
            np.concatenate([np.empty(0), *(getattr(part, name) for part in parts)])
            for name in ("across", "heights")
        )
        return cls(rows, across, heights).where(np.argsort(rows, kind="stable"))


Pieces = Callable[[], Iterable[Points]]
"""Yields points in pieces, the same at each call, so that they need not be held together."""


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

    def pieces() -> Iterator[Points]:
        for rows in _pieces(len(heights)):
            yield Points(np.arange(rows.start, rows.stop), x[rows], heights[rows])

    low = _evenly(_low(pieces), most)
    high = Points.joined([_above(part, ALWAYS_DRAWN) for part in pieces()])
    if most_high is not None and len(high.rows) > most_high:
        summits = _summits(high.across, high.heights, most_high // 4)
        others = high.where(np.setdiff1d(np.arange(len(high.rows)), summits, assume_unique=True))
        left = _evenly(lambda: [others], most_high - len(summits))
        high = Points.joined([high.where(summits), left])
    return Points.joined([low, high]).rows


def _low(pieces: Pieces) -> Pieces:
    """Leave out points above 3, and those without a height."""

    def low() -> Iterator[Points]:
        for part in pieces():
            yield part.where(np.isfinite(part.heights) & (part.heights <= ALWAYS_DRAWN))

    return low


def _above(part: Points, height: float) -> Points:
    return part.where(np.isfinite(part.heights) & (part.heights > height))


def _tall(pieces: Pieces, line: float) -> tuple[Points, float]:
    """Return the points above a line, infinite ones too, and the height of the highest of all."""
    found, peak = [], -np.inf
    for part in pieces():
        found.append(part.where(part.heights > line))  # NaN is not
        peak = max(peak, float(np.fmax.reduce(part.heights, initial=-np.inf)))
    return Points.joined(found), peak


def _summits(
    x: NDArray[np.float64], heights: NDArray[np.float64], stretches: int
) -> NDArray[np.intp]:
    """Return the highest point of every stretch."""
    stretch = np.floor(stretches * _Range(float(x.min()), float(x.max())).share(x))
    order = np.lexsort((-heights, stretch))
    return order[np.flatnonzero(np.diff(stretch[order], prepend=-1.0))]


def _evenly(pieces: Pieces, most: int) -> Points:
    """Choose at most ``most`` points, as many from every cell of a grid of at most ``most``.

    From anywhere in its cell, by a hash of the number of each point: the first ones of all cells
    would stand in stripes.
    """
    count, across, up = 0, _Range(), _Range()
    for part in pieces():
        count += len(part.rows)
        across, up = across.with_values(part.across), up.with_values(part.heights)
    if count <= most:
        return Points.joined(list(pieces()))
    rows = max(int((most / _WIDER) ** 0.5), 1)
    columns = most // rows

    def cells(part: Points) -> NDArray[np.intp]:
        column = (columns * across.share(part.across)).astype(np.intp)
        return column * rows + (rows * up.share(part.heights)).astype(np.intp)

    counts = np.zeros(rows * columns, dtype=np.intp)
    for part in pieces():
        counts += np.bincount(cells(part), minlength=len(counts))
    # The largest number per cell that fits: one always does.
    at_least = np.cumsum(np.bincount(counts)[::-1])[::-1]
    depth = int((np.cumsum(at_least[1:]) <= most).sum())
    kept = Points.joined([])
    for part in pieces():
        asked = Points.joined([kept, part])
        cell = cells(asked)
        scattered = asked.rows.astype(np.uint64) * np.uint64(2654435761) % np.uint64(1 << 32)
        order = np.lexsort((scattered, cell))
        starts = np.flatnonzero(np.diff(cell[order], prepend=-1))
        rank = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
        kept = asked.where(np.sort(order[rank < depth]))
    return kept


@dataclass(frozen=True)
class _Range:
    """From where to where numbers go."""

    low: float = np.inf
    high: float = -np.inf

    def with_values(self, values: NDArray[np.float64]) -> "_Range":
        """Return the range of more numbers."""
        if not len(values):
            return self
        return _Range(min(self.low, float(values.min())), max(self.high, float(values.max())))

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
    genome, rows = GenomeLayout.of(names, places), np.arange(len(names))
    return genome.across(slice(0, len(names)), places), genome.ticks, genome.number(rows)


@dataclass(frozen=True, eq=False)
class GenomeLayout:
    """Where chromosomes are, one after another, in the order in which they occur, "0" last.

    Attributes
    ----------
    runs, before : (R,) int arrays
        Where runs of consecutive variants on one chromosome begin, and how many variants of their
        chromosomes there are before.
    numbers : (R,) int array
        The chromosomes of the runs, from 0.
    low, step, starts : (C,) arrays
        The smallest position of each chromosome; how far apart its variants are where positions
        tell nothing, else NaN; where it begins.
    ticks : list of (str, float)
        Chromosomes, and where to name them.
    end : float
        Where the last one ends.
    """

    runs: NDArray[np.intp]
    before: NDArray[np.intp]
    numbers: NDArray[np.intp]
    low: NDArray[np.float64]
    step: NDArray[np.float64]
    starts: NDArray[np.float64]
    ticks: list[tuple[str, float]]
    end: float

    @classmethod
    def of(cls, names: Any, places: Any) -> "GenomeLayout":
        """Go over chromosomes and positions (M,), arrays that may be in a store, in parts."""
        codes: dict[str, int] = {}
        runs, of_run = [np.empty(0, np.intp)], [np.empty(0, np.intp)]
        low, high = np.empty(0), np.empty(0)
        for rows in _pieces(len(names)):
            text, place = np.asarray(names[rows]), _floats(places[rows])
            first = np.r_[0, np.flatnonzero(text[1:] != text[:-1]) + 1]
            code = np.array([codes.setdefault(str(name), len(codes)) for name in text[first]])
            more = len(codes) - len(low)
            low, high = np.append(low, [np.inf] * more), np.append(high, [-np.inf] * more)
            np.minimum.at(low, code, np.minimum.reduceat(place, first))
            np.maximum.at(high, code, np.maximum.reduceat(place, first))
            runs.append(rows.start + first)
            of_run.append(code)
        return cls._laid_out(
            list(codes), np.concatenate(runs), np.concatenate(of_run), low, high, len(names)
        )

    @classmethod
    def _laid_out(
        cls,
        names: list[str],
        runs: NDArray[np.intp],
        codes: NDArray[np.intp],
        low: NDArray[np.float64],
        high: NDArray[np.float64],
        total: int,
    ) -> "GenomeLayout":
        sizes = np.diff(runs, append=total)
        counts = np.bincount(codes, sizes, len(names)).astype(np.intp)
        by_code = np.argsort(codes, kind="stable")
        earlier = np.cumsum(sizes[by_code]) - sizes[by_code]
        before = np.empty_like(sizes)
        before[by_code] = earlier - (np.cumsum(counts) - counts)[codes[by_code]]
        order = np.array(sorted(range(len(names)), key=lambda k: names[k] == NOWHERE), np.intp)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        lengths: list[float] = []
        step = np.full(len(order), np.nan)
        for place, k in enumerate(order.tolist()):
            if names[k] == NOWHERE:  # positions there tell nothing
                placed = total - int(counts[k])
                step[place] = sum(lengths) / placed if placed else 1.0
            elif high[k] == low[k]:
                step[place] = 1.0
            along = high[k] - low[k] if np.isnan(step[place]) else (counts[k] - 1) * step[place]
            lengths.append(float(along))
        gap = 0.01 * sum(lengths)
        starts, ticks, start, end = [], [], 0.0, 0.0
        for k, length in zip(order.tolist(), lengths, strict=True):
            starts.append(start)
            ticks.append((UNPLACED if names[k] == NOWHERE else names[k], start + length / 2))
            end = length + start
            start += length + gap
        return cls(runs, before, rank[codes], low[order], step, np.array(starts), ticks, end)

    def across(self, rows: slice, places: Any) -> NDArray[np.float64]:
        """Return where consecutive variants (n,) are in the picture, from 0, by their positions."""
        number = np.arange(rows.start, rows.stop)
        run = np.searchsorted(self.runs, number, side="right") - 1
        on = self.numbers[run]
        local = _floats(places) - self.low[on]
        by_rank = ~np.isnan(self.step[on])
        if by_rank.any():
            rank = self.before[run] + number - self.runs[run]
            local[by_rank] = (rank * self.step[on])[by_rank]
        result: NDArray[np.float64] = local + self.starts[on]
        return result

    def number(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return of which chromosome some variants are, from 0."""
        return self.numbers[np.searchsorted(self.runs, rows, side="right") - 1]


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
    apart: float,
) -> list[int]:
    """Return the highest points above the line that are further apart than ``apart``."""
    above = np.flatnonzero(heights > line)  # NaN is not
    found: list[int] = []
    for point in above[np.argsort(-heights[above], kind="stable")]:
        if len(found) == count:
            break
        if all(abs(across[point] - across[other]) > apart for other in found):
            found.append(int(point))
    return found
