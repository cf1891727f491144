"""Resampled treatment indicators: independent Bernoulli draws and permutations within strata.

A resampler hands out hits (a cell treated in a resample) in short batches, block by block of
`plait.crt.seeds.RESAMPLES_PER_BLOCK` resamples. `null_statistics` adds them up as they come;
`index_lists` writes the same draws down. Strata are made in `plait.crt.strata`.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from plait.crt.seeds import RESAMPLES_PER_BLOCK, Method, UnitStream
from plait.data.words import counted
from plait.errors import InputError, OptionError, ShapeError

Array = NDArray[np.float64]
Rows = NDArray[np.float32] | NDArray[np.float64] | NDArray[np.int32]

_LARGEST_BATCH = 16384
"""Hits that are drawn and added up together; their buffers stay in a core's second cache."""
_LARGEST_HAZARD = 740.0
"""-log of the smallest positive double: stands for a cell that is always treated."""


class Hits(NamedTuple):
    """A batch of draws; the arrays are buffers that the next batch overwrites.

    Attributes
    ----------
    cells : (hits,) int32 array
    starts : (runs + 1,) int64 array
        Run r is ``cells[starts[r]:starts[r + 1]]``, cells of one resample.
    slots : (runs,) int32 array
        The resample of each run, within the block; a resample may have several runs.
    """

    cells: NDArray[np.int32]
    starts: NDArray[np.int64]
    slots: NDArray[np.int32]


class Resampler(Protocol):
    """Draws the treated cells of one unit."""

    n_cells: int

    def hits(self, block: int) -> Iterator[Hits]:
        """Yield all draws of one block of resamples."""

    def add_rows(self, rows: Rows, blocks: range, sums: Array, counts: NDArray[np.int64]) -> None:
        """Add the rows of treated cells to the sums of some blocks, in a single call.

        Parameters
        ----------
        rows : (cells, columns) array
        blocks : range
            The sums are those of `hits`, added up batch by batch; blocks take turns.
        sums : (blocks, resamples, columns) array
        counts : (blocks, resamples) int64 array
            Also added to: the number of treated cells.
        """


class BernoulliResampler:
    """Treats every cell independently with its own probability.

    Parameters
    ----------
    probabilities : (cells,) array
        In [0, 1].
    stream : UnitStream
        The unit's random numbers.

    Raises
    ------
    InputError, ShapeError
        The probabilities are not such a vector.

    Notes
    -----
    Time O(cells + resamples x sum of probabilities) and one random number for each hit, where a
    permutation of all resamples for every cell costs O(cells x resamples).
    """

    def __init__(self, probabilities: NDArray[np.float64], stream: UnitStream) -> None:
        probabilities = check_probabilities(probabilities)
        with np.errstate(divide="ignore"):
            hazards = -np.log1p(-probabilities)
        self._hazards = np.minimum(hazards, _LARGEST_HAZARD)
        self._batch = _batch(float(self._hazards.sum()))
        self._stream = stream
        self.n_cells = len(probabilities)

    def hits(self, block: int) -> Iterator[Hits]:
        """Yield the draws of a block, of some cells after those of others."""
        from plait.crt.resampling_kernels import bernoulli_hits, runs_of_slots

        random = self._stream.generator(Method.BERNOULLI, block)
        exponentials = np.empty(self._batch)
        cells, slots = np.empty(self._batch, np.int32), np.empty(self._batch, np.int32)
        hits = _empty_hits(self._batch)
        place, waiting = np.array([0, 0, 1], dtype=np.int64), np.zeros(1)
        while place[0] < self.n_cells:
            random.standard_exponential(out=exponentials)
            n = bernoulli_hits(
                self._hazards, RESAMPLES_PER_BLOCK, exponentials, place, waiting, cells, slots
            )
            runs = runs_of_slots(cells, slots, n, RESAMPLES_PER_BLOCK, *hits)
            yield _first_runs(hits, runs)

    def add_rows(self, rows: Rows, blocks: range, sums: Array, counts: NDArray[np.int64]) -> None:
        """Add the rows of treated cells to the sums of some blocks; see `Resampler`."""
        from plait.crt.resampling_kernels import add_bernoulli

        states = _states(self._stream, Method.BERNOULLI, blocks)
        add_bernoulli(rows, self._hazards, self._batch, states, sums, counts)


class StratifiedResampler:
    """Permutes the treatment within strata, so that each keeps its number of treated cells.

    Parameters
    ----------
    stratum : (cells,) integer array
        Each cell's stratum, from 0.
    treated : (strata,) integer array
        Treated cells of each stratum.
    stream : UnitStream
        The unit's random numbers.

    Raises
    ------
    InputError, ShapeError
        A stratum has fewer cells than treated cells, or the arrays do not fit.

    Notes
    -----
    Time O(cells + resamples x treated cells).
    """

    def __init__(
        self, stratum: NDArray[np.integer], treated: NDArray[np.integer], stream: UnitStream
    ) -> None:
        from plait.crt.strata_kernels import fill_members

        # A copy in order, where it is of other integers; one kernel takes all.
        stratum = np.asarray(stratum).astype(np.int64, order="C", casting="safe", copy=False)
        treated = np.asarray(treated, dtype=np.int64)
        if stratum.ndim != 1 or treated.ndim != 1:
            raise ShapeError(
                f"strata have {stratum.ndim} and their treated counts "
                f"{counted(treated.ndim, 'dimension')}; both must be vectors."
            )
        self._starts = np.empty(len(treated) + 1, dtype=np.int64)
        self._members = np.empty(len(stratum), dtype=np.int32)
        if not fill_members(stratum, self._starts, self._members):
            raise InputError(
                f"strata are numbered {stratum.min()} to {stratum.max()}, but there are counts of "
                f"treated cells for {len(treated)} strata."
            )
        sizes = np.diff(self._starts)
        if np.any((treated < 0) | (treated > sizes)):
            first = int(np.flatnonzero((treated < 0) | (treated > sizes))[0])
            raise InputError(
                f"stratum {first} has {counted(int(sizes[first]), 'cell')} and "
                f"{treated[first]} treated; the treated must be between 0 and all."
            )
        self._treated = treated
        self._batch = _batch(float(treated.sum()))
        self._stream = stream
        self.n_cells = len(stratum)

    def hits(self, block: int) -> Iterator[Hits]:
        """Yield the draws of a block, stratum by stratum."""
        from plait.crt.resampling_kernels import stratified_runs

        words = self._stream.generator(Method.STRATIFIED_PERMUTATION, block).bit_generator
        hits = _empty_hits(self._batch)
        place = np.zeros(3, dtype=np.int64)
        members = self._members.copy()
        while place[0] < len(self._treated):
            runs = stratified_runs(
                members,
                self._starts,
                self._treated,
                RESAMPLES_PER_BLOCK,
                words.random_raw(self._batch // 2),
                place,
                *hits,
            )
            yield _first_runs(hits, runs)

    def add_rows(self, rows: Rows, blocks: range, sums: Array, counts: NDArray[np.int64]) -> None:
        """Add the rows of treated cells to the sums of some blocks; see `Resampler`."""
        from plait.crt.resampling_kernels import add_stratified

        states = _states(self._stream, Method.STRATIFIED_PERMUTATION, blocks)
        add_stratified(
            rows, self._members, self._starts, self._treated, self._batch, states, sums, counts
        )


def _states(stream: UnitStream, method: Method, blocks: range) -> NDArray[np.uint64]:
    """Return where the random numbers of blocks begin, (blocks, 4)."""
    from plait.numerics.random_kernels import words_of_state

    return np.stack([words_of_state(stream.generator(method, block)) for block in blocks])


def _batch(treated: float) -> int:
    """Return the hits of a batch (an even number) where so many cells are treated on average."""
    mean = RESAMPLES_PER_BLOCK * treated
    most_likely = mean + 6.0 * math.sqrt(mean) + 16.0
    return 2 * int(min(most_likely, _LARGEST_BATCH) / 2.0)


def _empty_hits(batch: int) -> Hits:
    """Return the buffers of a batch; each run but the last has a hit."""
    return Hits(
        np.empty(batch, np.int32), np.empty(batch + 2, np.int64), np.empty(batch + 1, np.int32)
    )


def _first_runs(hits: Hits, runs: int) -> Hits:
    return Hits(hits.cells[: hits.starts[runs]], hits.starts[: runs + 1], hits.slots[:runs])


def index_lists(
    resampler: Resampler, resamples: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the treated cells of every resample.

    Parameters
    ----------
    resampler : Resampler
        What draws them.
    resamples : int
        How many, at least 1.

    Returns
    -------
    starts : (resamples + 1,) int64 array
        Resample b has the cells ``cells[starts[b]:starts[b + 1]]``.
    cells : int32 array
        Ascending within each resample.

    Raises
    ------
    OptionError
        Fewer than one resample.

    Notes
    -----
    Memory O(resamples x treated cells). The statistics of `plait.crt.null_statistics` come from
    the same draws without it.
    """
    check_resamples(resamples)
    parts, counts = [], []
    for block, size in blocks_of_resamples(resamples):
        # Cells above resamples: one sort orders both.
        drawn = [
            np.repeat(hits.slots.astype(np.int64), np.diff(hits.starts)) * resampler.n_cells
            + hits.cells
            for hits in resampler.hits(block)
        ]
        keys = np.sort(np.concatenate(drawn)) if drawn else np.empty(0, dtype=np.int64)
        keys = keys[: np.searchsorted(keys, size * resampler.n_cells)]
        parts.append((keys % resampler.n_cells).astype(np.int32))
        counts.append(np.bincount(keys // resampler.n_cells, minlength=size))
    starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)
    return starts, np.concatenate(parts)


def blocks_of_resamples(resamples: int) -> Iterator[tuple[int, int]]:
    """Yield each block's number and how many of its resamples are wanted."""
    for block in range(-(-resamples // RESAMPLES_PER_BLOCK)):
        yield block, min(RESAMPLES_PER_BLOCK, resamples - block * RESAMPLES_PER_BLOCK)


def check_resamples(resamples: int) -> None:
    """Refuse a number of resamples below one."""
    if resamples < 1:
        raise OptionError(f"{resamples} resamples were asked for; give at least 1.")


def check_probabilities(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities as a float64 vector, or say what is wrong with them."""
    from plait.crt.resampling_kernels import are_probabilities

    probabilities = np.asarray(probabilities, dtype=np.float64, order="C")
    if probabilities.ndim != 1:
        raise ShapeError(
            f"the propensities have {counted(probabilities.ndim, 'dimension')}; one probability "
            "for each cell is expected."
        )
    if not are_probabilities(probabilities):
        wrong = ~((probabilities >= 0) & (probabilities <= 1))
        first = int(np.flatnonzero(wrong)[0])
        raise InputError(
            "propensities are not numbers between 0 and 1 in "
            f"{counted(int(wrong.sum()), 'cell')} (first: cell {first}, {probabilities[first]})."
        )
    return probabilities
