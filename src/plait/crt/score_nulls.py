"""Score statistics of resampled treatments, and p-values that are counted among them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plait.crt.p_values import calibrated_p_value, empirical_p_values
from plait.crt.resampling import BernoulliResampler, Resampler
from plait.crt.seeds import RESAMPLES_PER_BLOCK, UnitStream
from plait.crt.staged import TIE, set_ties, staged_p_values

Array = NDArray[np.float64]

_FEWEST_TO_GO_ON = 0.02
"""A p-value above this is not looked at more closely."""
_NO_VARIATION = 1e-9
_COLUMNS = 8
_ENOUGH = 20
"""Exceedances that make a counted p-value."""
_TILTED_BLOCKS = 20
_TIE = 1e-9
"""Statistics that differ by less, relatively, are equal."""


@dataclass(frozen=True, slots=True)
class Stages:
    """How many resamples each stage draws.

    Attributes
    ----------
    first, second, third : int
        Of counted p-values; of the skew-normal (0: there is none); and of p-values that are
        counted where that does not fit (0: those of the second stage).
    """

    first: int = 499
    second: int = 4999
    third: int = 0

    @property
    def most(self) -> int:
        """Resamples of the largest stage."""
        return max(self.first, self.second, self.third)


@dataclass(frozen=True, slots=True, eq=False)
class StagedPValue:
    """A p-value, its stage, the parameters of its skew-normal, and the resamples it is from."""

    p_value: float
    stage: int
    parameters: tuple[float, float, float]
    null: Array


class _Sums:
    """Sums of scores of genes over the cells that resamples treat.

    Columns of the table are a, w and d of each gene, then the weights if there are any.
    """

    def __init__(
        self, parts: Sequence[Array], resampler: Resampler, weights: Array | None = None
    ) -> None:
        each = len(parts[0]) - 1
        n_columns = each * len(parts) + (weights is not None)
        self._rows = np.zeros((parts[0].shape[1], -(-n_columns // _COLUMNS) * _COLUMNS))
        for gene, part in enumerate(parts):
            begin = gene * each
            self._rows[:, begin : begin + 2] = part[:2].T
            self._rows[:, begin + 2 : begin + each] = part[3:].T
        if weights is not None:
            self._rows[:, n_columns - 1] = weights
        self._n_genes, self._each = len(parts), each
        self._last = n_columns - 1
        self._resampler = resampler

    def block(self, number: int) -> tuple[Array, Array, NDArray[np.int64]]:
        """Return z (512, genes), sums of the last column and numbers of treated cells of a block.

        z is 0 where nothing varies.
        """
        from plait.crt.resampling_kernels import fill_scores

        sums = np.zeros((RESAMPLES_PER_BLOCK, self._rows.shape[1]))
        counts = np.zeros(RESAMPLES_PER_BLOCK, dtype=np.int64)
        block = range(number, number + 1)
        self._resampler.add_rows(self._rows, block, sums[None], counts[None])
        z = np.empty((RESAMPLES_PER_BLOCK, self._n_genes))
        fill_scores(sums, self._each, _NO_VARIATION, z)
        return z, sums[:, self._last], counts


class NullScores:
    """Statistics of genes in resamples of one treatment.

    Parameters
    ----------
    parts : sequence of (3 + columns, cells) arrays
        Of each gene, from `plait.crt.negative_binomial.fit_gene`.
    resampler : Resampler
        Draws the treated cells; the genes share its draws.
    """

    def __init__(self, parts: Sequence[Array], resampler: Resampler) -> None:
        self._sums = _Sums(parts, resampler)

    def block(self, number: int) -> Array:
        """Return the statistics (512, genes) of a block of resamples; 0 where nothing varies."""
        return self._sums.block(number)[0]

    def counted(
        self, z: Array, side: str, max_resamples: int
    ) -> tuple[Array, NDArray[np.bool_], NDArray[np.bool_]]:
        """Return p-values of as many resamples as it takes, and whether these were enough.

        The last array says where resamples at or above z were counted, not at or below it. Of both
        sides the tail that is smaller among the first resamples is doubled: where covariates do not
        describe a gene, the middle of its null is not at 0. (P-values are valid whichever tail is
        chosen, as each tail's are.) See `plait.crt.staged.staged_p_values`.
        """
        first = self.block(0)
        is_right = np.full(len(z), side == "right")
        if side == "both":
            some, tie = first[:max_resamples], TIE * np.abs(z)
            is_right = (some >= z - tie).sum(axis=0) <= (some <= z + tie).sum(axis=0)
        signs = np.where(is_right, 1.0, -1.0)
        found = staged_p_values(
            signs * z,
            lambda number: signs * (self.block(number) if number else first),
            side="right",
            max_resamples=max_resamples,
        )
        p = np.minimum(2.0 * found.p_value, 1.0) if side == "both" else found.p_value
        return p, found.exceedances >= _ENOUGH, is_right

    def draws(self, first_block: int, resamples: int) -> tuple[Array, int]:
        """Return so many resamples of the first gene from a block on, and the next block."""
        n_blocks = -(-resamples // RESAMPLES_PER_BLOCK)
        blocks = [self.block(first_block + i)[:, 0] for i in range(n_blocks)]
        return np.concatenate(blocks)[:resamples], first_block + n_blocks

    def staged(self, z: float, side: str, stages: Stages) -> StagedPValue:
        """Return the p-value of the first gene in sceptre's three stages.

        Counted in the first resamples; if it is 0.02 or less, by a skew-normal fitted to the next;
        if that does not fit, counted in the next. Both tails are doubled for both sides.
        """

        def drawn(first_block: int, resamples: int) -> tuple[Array, int]:
            null, following = self.draws(first_block, resamples)
            set_ties(null[:, None], np.array([z]), _TIE)  # sums are of other orders of cells
            return null, following

        null, block = drawn(0, stages.first)
        p = _count(z, null, side)
        if p > _FEWEST_TO_GO_ON:
            return StagedPValue(p, 1, (np.nan,) * 3, null)
        parameters = (np.nan, np.nan, np.nan)
        if stages.second:
            null, block = drawn(block, stages.second)
            p, parameters, status = calibrated_p_value(z, null, side=side)
            if status == "ok":
                return StagedPValue(p, 2, parameters, null)
        if stages.third:
            null, _ = drawn(block, stages.third)
            p = _count(z, null, side)
        return StagedPValue(p, 3, parameters, null)


def _count(z: float, null: Array, side: str) -> float:
    return float(empirical_p_values([z], null[:, None], side=side, two_sided="double_tail")[0])


def _side_of(z: float, side: str) -> str:
    return side if side != "both" else "right" if z >= 0.0 else "left"


def tilted_p_value(
    z: float,
    side: str,
    parts: Array,
    log_odds: Array,
    n_treated: int | None,
    stream: UnitStream,
) -> tuple[float, float]:
    """Return ln p from treatments that are drawn so that z is not rare, and its relative error.

    Cells are treated independently with the probabilities that the saddlepoint of the tail gives
    them; resamples beyond z count with the ratio of their chances. In a permutation those with
    another number of treated cells count for nothing. Unbiased; the error is estimated from the
    same draws.

    Parameters
    ----------
    z : float
        On the side that is looked at.
    side : {"both", "left", "right"}
    parts : (3 + columns, cells) array
    log_odds : (cells,) array
        Of treatment.
    n_treated : int or None
        Of a permutation.
    stream : UnitStream
        Names the random numbers.

    Returns
    -------
    log_p, relative_error : float
        NaN and infinity where there is no saddlepoint or no resample beyond z.
    """
    from plait.crt.gene_tail_kernels import log_tail, tilt, tilted_chances

    buffers, chances = np.empty((3, len(log_odds))), np.empty(len(log_odds))
    tilted_chances(log_odds, log_odds, 0.0, 0.0, chances)
    is_permuted = n_treated is not None
    _, _, s, shift = log_tail(z, parts, log_odds, chances, is_permuted, True, buffers)
    if not math.isfinite(s):
        return math.nan, math.inf
    weights, sums = buffers[1], np.empty(5)
    level = tilt(s, shift, weights, log_odds, sums) - tilt(0.0, 0.0, weights, log_odds, sums)
    if n_treated is not None:
        level -= log_binomial(n_treated, len(log_odds), float(chances[0]))
    tilted_chances(log_odds, weights, s, shift, chances)
    scores = _Sums([parts], BernoulliResampler(chances, stream), weights)
    is_right = _side_of(z, side) == "right"
    threshold = z - _TIE * abs(z) if is_right else z + _TIE * abs(z)
    ratios = []
    for number in range(_TILTED_BLOCKS):
        drawn, total, counts = scores.block(number)
        beyond = drawn[:, 0] >= threshold if is_right else drawn[:, 0] <= threshold
        if n_treated is not None:
            beyond &= counts == n_treated
        # Ratios above e^700 would mean a tail above 1.
        log_ratio = np.minimum(level - s * total - shift * counts, 700.0)
        ratios.append(np.where(beyond, log_ratio, -np.inf))
    logs = np.concatenate(ratios)
    largest = float(logs.max())
    if not math.isfinite(largest):
        return math.nan, math.inf
    scaled = np.exp(logs - largest)
    mean = float(scaled.mean())
    log_p = largest + math.log(mean) + (math.log(2.0) if side == "both" else 0.0)
    return min(log_p, 0.0), float(scaled.std()) / math.sqrt(len(scaled)) / mean


def log_binomial(m: int, n: int, p: float) -> float:
    """Return the log probability of m events among n of probability p."""
    ways = math.lgamma(n + 1) - math.lgamma(m + 1) - math.lgamma(n - m + 1)
    return ways + m * math.log(p) + (n - m) * math.log1p(-p)
