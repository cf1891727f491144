"""Statistics of resampled treatments, added up while the treated cells are drawn.

The effect of a treatment x on outcome k, adjusted for covariates, is S_k / D with
S_k = sum of the residuals R_k over treated cells and D = n1 - |Q'x|^2, where R = MY, M projects out
the covariates and Q is an orthonormal basis of their span (Frisch, Waugh and Lovell). So a resample
needs only the sums of [R | Q] over its treated cells.

A perturbation is tested only where cells are treated, others are not, and the covariates do not
determine which. So the null law is that of treatments that could be tested: resamples that could
not be have no statistic (NaN) and count for nothing; see `NullStatistics.tested`.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from plait.crt.resampling import Resampler, check_resamples
from plait.crt.seeds import RESAMPLES_PER_BLOCK
from plait.data.words import counted
from plait.errors import InputError, ShapeError

_SMALLEST_DENOMINATOR = 1e-12
_SINGLE_ROUNDING = 1e-6
"""Share of n1 below which D is rounding of the float32 rows, so that there is no effect."""
_BLOCKS_TOGETHER = 2
"""Blocks of resamples that go through the cells side by side; their sums are in a core's cache."""
_CELLS = 1024
"""Cells whose ranks are converted at a time."""
_COLUMNS = 8
"""Tables have a multiple of this many columns, which one instruction adds."""


@dataclass(frozen=True, slots=True, eq=False)
class CellTable:
    """What is added up over treated cells.

    Attributes
    ----------
    rows : (cells, columns) float32 or int32 array
        The outcomes, then the basis, then zeros up to a multiple of 8 columns.
    n_outcomes, n_basis : int
        How many columns are outcomes and basis.
    """

    rows: NDArray[np.float32] | NDArray[np.int32]
    n_outcomes: int
    n_basis: int


@dataclass(frozen=True, slots=True, eq=False)
class NullStatistics:
    """A statistic in every resample.

    Attributes
    ----------
    values : (resamples, outcomes) array
        The effects, or the rank-biserial correlations; NaN where a treatment has none.
    n_treated : (resamples,) int64 array
        Treated cells.
    """

    values: NDArray[np.float64]
    n_treated: NDArray[np.int64]

    @property
    def tested(self) -> NDArray[np.float64]:
        """The rows of `values` that have the statistic, (tested resamples, outcomes).

        With these ``P(p <= a) <= a`` holds given that a perturbation is tested. With all resamples
        (programDE counts the others with the effect 0) it would not where few cells are expected to
        be treated: of one cell, a third of them treat none.
        """
        return with_statistic(self.values)


def residual_table(residuals: NDArray[np.float64], basis: NDArray[np.float64]) -> CellTable:
    """Put residuals and basis side by side in single precision.

    Parameters
    ----------
    residuals : (cells, outcomes) array
        Outcomes with the covariates projected out.
    basis : (cells, p) array
        Orthonormal basis of the covariates' span.

    Returns
    -------
    CellTable
        Of 4 x cells x (outcomes + p) bytes; made once for all units.

    Raises
    ------
    ShapeError
        The arrays are not matrices of the same cells.
    """
    _check_same_cells(residuals, basis)
    n_outcomes, n_basis = residuals.shape[1], basis.shape[1]
    rows = np.zeros((len(residuals), _padded(n_outcomes + n_basis)), dtype=np.float32)
    rows[:, :n_outcomes] = residuals
    rows[:, n_outcomes : n_outcomes + n_basis] = basis
    return CellTable(rows, n_outcomes, n_basis)


def rank_table(ranks: NDArray[np.floating]) -> CellTable:
    """Return twice the centred ranks, 2 rank - (cells + 1), which are whole numbers.

    Parameters
    ----------
    ranks : (cells, outcomes) array
        Ranks from 1, by any rule; see `plait.crt.ranks.rank_columns`.

    Returns
    -------
    CellTable
        Of 4 x cells x outcomes bytes. Sums of it are exact, so that ties are ties.
    """
    if ranks.ndim != 2:
        raise ShapeError(
            f"ranks have {counted(ranks.ndim, 'dimension')}; cells x outcomes are expected."
        )
    rows = np.zeros((len(ranks), _padded(ranks.shape[1])), dtype=np.int32)
    for begin in range(0, len(ranks), _CELLS):
        part = ranks[begin : begin + _CELLS]
        rows[begin : begin + _CELLS, : ranks.shape[1]] = 2.0 * part.astype(np.float64) - (
            len(ranks) + 1
        )
    return CellTable(rows, ranks.shape[1], 0)


def null_effects(table: CellTable, resampler: Resampler, resamples: int) -> NullStatistics:
    """Return one unit's effects in resamples of its treatment.

    Parameters
    ----------
    table : CellTable
        From `residual_table`.
    resampler : Resampler
        Draws the unit's treated cells.
    resamples : int
        How many, at least 1.

    Returns
    -------
    NullStatistics
        NaN where a resample treats no cell, or where the covariates explain all but 1e-6 of its
        treatment (then D would be the rounding of the single-precision rows).

    Raises
    ------
    OptionError, ShapeError
        No resample, or cells that do not fit.

    Notes
    -----
    Sums are in double precision, rows in single: effects agree with double precision to about
    1e-7 of their standard deviation. Time O(resamples x treated cells x columns), memory
    O(1024 x columns) beside the result.
    """
    sums, counts = treated_sums(table, resampler, resamples)
    k = table.n_outcomes
    return NullStatistics(effects_of_sums(sums[:, :k], sums[:, k:], counts), counts)


def null_effects_of_block(
    table: CellTable, resampler: Resampler, block: int
) -> NDArray[np.float64]:
    """Return one unit's effects in the resamples of one block, (512, outcomes).

    Rows ``512 block`` and on of what `null_effects` returns for enough resamples, bit for bit.
    """
    sums, counts = _sums_of_blocks(table, resampler, range(block, block + 1))
    k, columns = table.n_outcomes, table.n_outcomes + table.n_basis
    return effects_of_sums(sums[:, :k], sums[:, k:columns], counts)


def null_rank_biserial(table: CellTable, resampler: Resampler, resamples: int) -> NullStatistics:
    """Return one unit's rank-biserial correlations in resamples of its treatment.

    Parameters
    ----------
    table : CellTable
        From `rank_table`.
    resampler : Resampler
        Draws the unit's treated cells.
    resamples : int
        How many, at least 1.

    Returns
    -------
    NullStatistics
        NaN where a resample treats no cell or every cell.

    Raises
    ------
    OptionError, ShapeError
        No resample, or cells that do not fit.
    """
    sums, counts = treated_sums(table, resampler, resamples)
    return NullStatistics(_rank_biserial(sums, counts, len(table.rows)), counts)


def null_rank_biserial_of_block(
    table: CellTable, resampler: Resampler, block: int
) -> NDArray[np.float64]:
    """Return one unit's rank-biserial correlations in the resamples of one block, (512, outcomes).

    Rows ``512 block`` and on of what `null_rank_biserial` returns for enough resamples.
    """
    sums, counts = _sums_of_blocks(table, resampler, range(block, block + 1))
    return _rank_biserial(sums[:, : table.n_outcomes], counts, len(table.rows))


def with_statistic(null: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the resamples (rows) that have a statistic; where all have one, what was given."""
    has_none = np.asarray(np.isnan(null).all(axis=1))
    return null[~has_none] if has_none.any() else null


def rank_biserial_of_index_lists(
    table: CellTable, starts: NDArray[np.int64], cells: NDArray[np.int32]
) -> NullStatistics:
    """Return rank-biserial correlations of given treatments; the observed one is such a list.

    Parameters
    ----------
    table : CellTable
        From `rank_table`.
    starts, cells : integer arrays
        Treatment b has the cells ``cells[starts[b]:starts[b + 1]]``, each once.

    Returns
    -------
    NullStatistics
        The same bits as `null_rank_biserial` has for the same draws.

    Raises
    ------
    InputError, ShapeError
        A list names a cell that there is not.
    """
    sums, counts = _sums_of_lists(table.rows[:, : table.n_outcomes], starts, cells)
    return NullStatistics(_rank_biserial(sums, counts, len(table.rows)), counts)


def treated_sums(
    table: CellTable, resampler: Resampler, resamples: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the sums of a table's rows over each resample's treated cells, and their number."""
    check_resamples(resamples)
    columns = table.n_outcomes + table.n_basis
    sums = np.empty((resamples, columns))
    counts = np.empty(resamples, dtype=np.int64)
    n_blocks = -(-resamples // RESAMPLES_PER_BLOCK)
    for first in range(0, n_blocks, _BLOCKS_TOGETHER):
        blocks = range(first, min(first + _BLOCKS_TOGETHER, n_blocks))
        near, near_counts = _sums_of_blocks(table, resampler, blocks)
        rows = slice(first * RESAMPLES_PER_BLOCK, (first + len(blocks)) * RESAMPLES_PER_BLOCK)
        sums[rows] = near[: resamples - rows.start, :columns]
        counts[rows] = near_counts[: resamples - rows.start]
    return sums, counts


def _sums_of_blocks(
    table: CellTable, resampler: Resampler, blocks: range
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the sums of all columns of the table in each resample of some blocks."""
    if resampler.n_cells != len(table.rows):
        raise ShapeError(
            f"treatments are drawn for {counted(resampler.n_cells, 'cell')}, but the table has "
            f"{len(table.rows)}."
        )
    sums = np.zeros((len(blocks), RESAMPLES_PER_BLOCK, table.rows.shape[1]))
    counts = np.zeros((len(blocks), RESAMPLES_PER_BLOCK), dtype=np.int64)
    resampler.add_rows(table.rows, blocks, sums, counts)
    return sums.reshape(-1, sums.shape[2]), counts.ravel()


def _sums_of_lists(
    rows: NDArray[np.floating] | NDArray[np.integer],
    starts: NDArray[np.int64],
    cells: NDArray[np.int32],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the sums of rows over each list's cells, and the number of its cells."""
    cells = np.asarray(cells)
    if len(cells) and not 0 <= cells.min() <= cells.max() < len(rows):
        raise InputError(
            f"the lists name cells {cells.min()} to {cells.max()}, but there "
            f"{'is' if len(rows) == 1 else 'are'} {counted(len(rows), 'cell')}, numbered from 0."
        )
    counts = np.diff(starts).astype(np.int64)
    sums = np.empty((len(counts), rows.shape[1]))
    for number, (begin, end) in enumerate(pairwise(starts)):
        sums[number] = rows[cells[begin:end]].sum(axis=0, dtype=np.float64)
    return sums, counts


def effects_of_sums(
    outcome_sums: NDArray[np.float64],
    basis_sums: NDArray[np.float64],
    counts: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return effects from sums over treated cells of rows in single precision.

    Parameters
    ----------
    outcome_sums : (resamples, outcomes) array
    basis_sums : (resamples, p) array
    counts : (resamples,) int64 array
        Treated cells.

    Returns
    -------
    (resamples, outcomes) array
        NaN where no cell is treated or the covariates explain all but 1e-6 of a treatment.
    """
    from plait.crt.resampling_kernels import fill_effects

    effects = np.empty(outcome_sums.shape)
    fill_effects(outcome_sums, basis_sums, counts, _SMALLEST_DENOMINATOR, _SINGLE_ROUNDING, effects)
    return effects


def _rank_biserial(
    sums: NDArray[np.float64], counts: NDArray[np.int64], n_cells: int
) -> NDArray[np.float64]:
    """Return 2 U / (n1 n0) - 1, which is the sum of 2 rank - (N + 1) over the treated / (n1 n0)."""
    pairs = (counts * (n_cells - counts))[:, None]
    correlations = np.full(sums.shape, np.nan)
    np.divide(sums, pairs, out=correlations, where=pairs > 0)
    return correlations


def _check_same_cells(residuals: NDArray[np.float64], basis: NDArray[np.float64]) -> None:
    if residuals.ndim != 2 or basis.ndim != 2 or len(residuals) != len(basis):
        raise ShapeError(
            f"residuals have the shape {residuals.shape} and the basis {basis.shape}; both must be "
            "matrices with a row for each cell."
        )


def _padded(columns: int) -> int:
    return -(-columns // _COLUMNS) * _COLUMNS
