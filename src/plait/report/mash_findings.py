"""What there is to say about the effects of a mash result, collected in one pass over its rows.

Arrays of a result may stay in a store: only ``array[start:stop]`` is asked of them, block by block,
so that memory follows the block and never the number of effects.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plait.data.words import counted
from plait.errors import NotAvailableError, OptionError, ShapeError

if TYPE_CHECKING:
    from plait.mash.results import MashResult

Array = NDArray[np.float64]
Rows = NDArray[np.intp]

MOST_ROWS = 2000
"""Effects in the table of a page, at most."""

_MOST_CELLS = 150_000
_BLOCK_CELLS = 1 << 20
_SHARING_ROWS = 4096
_FACTOR = 0.5
_PER_BAND = 500
_BANDS = np.array([0.1, 0.3, 0.6, 1.0, 1.3, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 40.0])
"""Limits, in -log10 lfsr, of the bands that points are drawn from."""


@dataclass(frozen=True, eq=False)
class Surest:
    """The effects with the smallest lfsr, the surest first."""

    rows: Rows
    mean: Array
    sd: Array
    lfsr: Array

    @property
    def best(self) -> Array:
        """The smallest lfsr of every effect; infinite where there is none."""
        return _smallest(self.lfsr)


@dataclass(frozen=True, eq=False)
class Points:
    """Some cells of a result: every one of the surest, some of the others."""

    rows: Rows
    contexts: Rows
    mean: Array
    lfsr: Array


@dataclass(frozen=True, eq=False)
class Findings:
    """Counts over all effects, and the few effects that are shown one by one.

    Attributes
    ----------
    n_effects, n_contexts : int
    level : float
        Effects count as significant where their lfsr is below this.
    significant, alone : (R,) integer arrays
        Effects significant in each context; in that context only.
    n_anywhere, n_everywhere : int
        Effects significant in at least one context; in all of them.
    expected_wrong : float
        Mean lfsr of the significant cells: the share of wrong signs to expect. NaN without any.
    n_empty : int
        Cells without a number.
    similar : (R,) integer array
        How many significant effects are, in k = 1, ..., R contexts, of the same sign and within a
        factor of 2 as where they are strongest.
    sharing : (R, R) array
        As `plait.mash.get_pairwise_sharing`, NaN where nothing is significant.
    same_sign : (R, R) array
        The same of whatever sizes: with ``factor=0``.
    surest : Surest
    points : Points
    """

    n_effects: int
    n_contexts: int
    level: float
    significant: NDArray[np.int64]
    alone: NDArray[np.int64]
    n_anywhere: int
    n_everywhere: int
    expected_wrong: float
    n_empty: int
    similar: NDArray[np.int64]
    sharing: Array
    same_sign: Array
    surest: Surest
    points: Points


def collect(result: "MashResult", level: float = 0.05, most: int = MOST_ROWS) -> Findings:
    """Go over the effects of a result once, block by block.

    Parameters
    ----------
    result : MashResult
        Its arrays may be lazy: anything with ``shape`` that gives NumPy arrays when it is sliced.
    level : float
    most : int
        Effects to keep one by one.

    Raises
    ------
    NotAvailableError
        The result holds no posterior.
    OptionError
        ``level`` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise OptionError(f"level is {level:g}; it must be between 0 and 1.")
    arrays = (result.posterior_mean, result.posterior_sd, result.lfsr)
    for name, array in zip(("posterior_mean", "posterior_sd", "lfsr"), arrays, strict=True):
        if array is None:
            raise NotAvailableError(
                f"this result holds no {name}, and a report is about the posterior; "
                "fit with outputlevel=2 or more."
            )
    n_effects, width = (int(size) for size in arrays[0].shape)  # type: ignore[union-attr]
    if n_effects == 0 or width == 0:
        raise ShapeError(
            f"the result is empty: {counted(n_effects, 'effect')} in {counted(width, 'context')}."
        )
    tally = _Tally(width, level, min(most, max(1, _MOST_CELLS // width)))
    for start in range(0, n_effects, step := block_rows(width)):
        rows = slice(start, min(start + step, n_effects))
        tally.add(rows, *(np.asarray(array[rows], dtype=np.float64) for array in arrays))  # type: ignore[index]
    return tally.findings(n_effects)


def block_rows(width: int) -> int:
    """Return the rows of a block: a power of two, so that blocks and chunks of stores agree."""
    return 1 << (max(_BLOCK_CELLS // max(width, 1), 1024).bit_length() - 1)


def labels_of(names: Sequence[str] | Any | None, rows: Rows) -> list[str]:
    """Return the names of some effects, reading a lazy array of names block by block."""
    if names is None:
        return [f"row {row}" for row in rows]
    found = [""] * len(rows)
    step = 1 << 16
    places = np.argsort(rows, kind="stable")
    blocks = rows[places] // step
    for block in np.unique(blocks):
        part = names[int(block) * step : (int(block) + 1) * step]
        for place in places[blocks == block]:
            found[place] = str(part[int(rows[place]) - int(block) * step])
    return found


class _Tally:
    """Sums over the rows seen so far."""

    def __init__(self, width: int, level: float, most: int) -> None:
        self.width, self.level, self.most = width, level, most
        self.significant, self.alone, self.similar = np.zeros((3, width), dtype=np.int64)
        self.n_anywhere = self.n_everywhere = self.n_empty = self.n_cells = 0
        self.sum_lfsr = 0.0
        self.shared, self.alike, self.counted = np.zeros((3, width, width), dtype=np.int64)
        none = np.empty((0, width))
        self.surest = Surest(np.empty(0, dtype=np.intp), none, none, none)
        self.sample = _Sample(width)

    def add(self, rows: slice, mean: Array, sd: Array, lfsr: Array) -> None:
        """Take in a block of effects."""
        significant = lfsr < self.level
        counts = significant.sum(axis=1)
        self.significant += significant.sum(axis=0)
        self.alone += significant[counts == 1].sum(axis=0)
        self.n_anywhere += int(np.count_nonzero(counts))
        self.n_everywhere += int(np.count_nonzero(counts == self.width))
        self.n_empty += int(np.count_nonzero(~np.isfinite(mean) | ~np.isfinite(lfsr)))
        self.n_cells += int(counts.sum())
        self.sum_lfsr += float(lfsr[significant].sum())
        chosen = np.flatnonzero(counts)
        for start in range(0, len(chosen), _SHARING_ROWS):
            part = chosen[start : start + _SHARING_ROWS]
            self._compare(mean[part], significant[part])
        self._keep_surest(rows.start, mean, sd, lfsr)
        self.sample.add(rows.start, mean, lfsr)

    def _compare(self, mean: Array, significant: NDArray[np.bool_]) -> None:
        with np.errstate(divide="ignore", invalid="ignore"):
            for i in range(self.width):
                either = significant[:, i, None] | significant[:, i:]
                ratio = mean[:, i, None] / mean[:, i:]
                close = (ratio > _FACTOR) & (ratio < 1 / _FACTOR) & either
                self.shared[i, i:] += close.sum(axis=0)
                self.alike[i, i:] += ((ratio > 0) & either).sum(axis=0)
                self.counted[i, i:] += either.sum(axis=0)
            size = np.where(significant, np.abs(mean), -1.0)
            strongest = np.take_along_axis(mean, size.argmax(axis=1)[:, None], axis=1)
            ratio = mean / strongest
            close = (ratio > _FACTOR) & (ratio < 1 / _FACTOR)
        in_contexts = np.bincount(close.sum(axis=1), minlength=self.width + 1)
        self.similar += in_contexts[1:]

    def _keep_surest(self, first: int, mean: Array, sd: Array, lfsr: Array) -> None:
        old = self.surest
        best = _smallest(lfsr)
        if len(old.rows) == self.most:
            candidates = np.flatnonzero(best <= old.best[-1])
        else:
            candidates = np.arange(len(best))
        if len(candidates) > self.most:
            limit = np.partition(best[candidates], self.most - 1)[self.most - 1]
            candidates = candidates[best[candidates] <= limit]
        joined = [
            np.concatenate([before, block[candidates]])
            for before, block in ((old.mean, mean), (old.sd, sd), (old.lfsr, lfsr))
        ]
        rows = np.concatenate([old.rows, candidates + first])
        with np.errstate(divide="ignore", invalid="ignore"):
            strength = np.nan_to_num(np.abs(joined[0] / joined[1]), posinf=np.inf).max(axis=1)
        order = np.lexsort((rows, -strength, _smallest(joined[2])))[: self.most]
        self.surest = Surest(rows[order], *(array[order] for array in joined))

    def findings(self, n_effects: int) -> Findings:
        """Return what was found."""
        with np.errstate(invalid="ignore"):
            sharing, same_sign = self.shared / self.counted, self.alike / self.counted
        lower = np.tril_indices(self.width, -1)
        for matrix in (sharing, same_sign):
            matrix[lower] = matrix.T[lower]
        return Findings(
            n_effects=n_effects,
            n_contexts=self.width,
            level=self.level,
            significant=self.significant,
            alone=self.alone,
            n_anywhere=self.n_anywhere,
            n_everywhere=self.n_everywhere,
            expected_wrong=self.sum_lfsr / self.n_cells if self.n_cells else np.nan,
            n_empty=self.n_empty,
            similar=self.similar,
            sharing=sharing,
            same_sign=same_sign,
            surest=self.surest,
            points=self.sample.points(),
        )


class _Sample:
    """Cells to draw: a fixed number from each band of lfsr, so that every sure one is there.

    Which ones depends on their place alone, never on how the rows were cut into blocks: each cell
    has a random-looking number made of its place, and those with the smallest are kept.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        count = len(_BANDS) + 1
        self.kept = [np.empty((0, 4)) for _ in range(count)]
        self.limits = np.full(count, np.inf)

    def add(self, first: int, mean: Array, lfsr: Array) -> None:
        """Take in a block of effects."""
        with np.errstate(divide="ignore", invalid="ignore"):
            sure = -np.log10(lfsr.ravel())
        place = np.arange(first * self.width, (first + len(mean)) * self.width, dtype=np.uint64)
        number = _scrambled(place)
        band = np.searchsorted(_BANDS, sure)
        usable = np.isfinite(mean.ravel()) & ~np.isnan(sure)
        candidates = np.flatnonzero(usable & (number < self.limits[band]))
        for b in np.unique(band[candidates]):
            chosen = candidates[band[candidates] == b]
            new = np.column_stack(
                [number[chosen], place[chosen], mean.ravel()[chosen], lfsr.ravel()[chosen]]
            )
            joined = np.concatenate([self.kept[b], new])
            if len(joined) > _PER_BAND:
                joined = joined[np.argpartition(joined[:, 0], _PER_BAND)[:_PER_BAND]]
                self.limits[b] = joined[:, 0].max()
            self.kept[b] = joined

    def points(self) -> Points:
        """Return the cells that were kept, in the order of the result."""
        cells = np.concatenate(self.kept)
        cells = cells[np.argsort(cells[:, 1])]
        rows, contexts = np.divmod(cells[:, 1].astype(np.intp), self.width)
        return Points(rows, contexts, cells[:, 2], cells[:, 3])


def _scrambled(place: NDArray[np.uint64]) -> Array:
    """Return a number in [0, 1) for every place that looks random (SplitMix64)."""
    z = (place + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    scrambled: Array = (z ^ (z >> np.uint64(31))).astype(np.float64) / 2.0**64
    return scrambled


def _smallest(lfsr: Array) -> Array:
    """Return the smallest lfsr of every row, infinite where a row has none."""
    smallest: Array = np.where(np.isnan(lfsr), np.inf, lfsr).min(axis=1)
    return smallest
