"""P-values of conditional randomization tests as if there were infinitely many resamples.

The effect of a resampled treatment is a ratio S / D of sums over its treated cells. D is linear
in the treatment up to terms that hardly vary, so that an effect beyond a threshold is a weighted
sum of indicators beyond another. Its tail comes from four cumulants where it is large and nearly
normal, else from a saddlepoint; where neither is to be trusted, treatments are drawn.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.crt.analytic_laws import (
    UNITS_TOGETHER,
    BernoulliLaw,
    Columns,
    Law,
    StratifiedLaw,
)
from plait.crt.null_statistics import (
    CellTable,
    null_effects_of_block,
    null_rank_biserial_of_block,
    rank_table,
    residual_table,
)
from plait.crt.propensity import SMALLEST_PROPENSITY
from plait.crt.resampling import (
    BernoulliResampler,
    Resampler,
    StratifiedResampler,
    check_probabilities,
)
from plait.crt.seeds import UnitStream
from plait.crt.staged import TIE, staged_p_values, tie_of_effects
from plait.crt.strata import Strata
from plait.data.words import counted
from plait.errors import InputError, OptionError, ShapeError
from plait.execution.threads import resolve_threads

Array = NDArray[np.float64]

_METHODS = np.array(["none", "bulk", "saddlepoint", "monte carlo"], dtype="<U12")
_FLAGS = np.array(["ok", "beyond_support", "skewed", "few_cells", "few_treated"], dtype="<U14")
_LOG_10 = math.log(10.0)


@dataclass(frozen=True, slots=True, eq=False)
class AnalyticTable:
    """What the tests of all units share; see `analytic_table` and `rank_analytic_table`.

    Attributes
    ----------
    columns : Columns
        Outcomes in single precision and basis, cells innermost: 4 K + 8 p bytes a cell.
    per_effect : (programs,) array
        What an effect is multiplied with to be a ratio S / D of the columns.
    cells : CellTable
        The same with programs innermost, of which resamples are summed up: 4 (K + p) bytes a cell.
    """

    columns: Columns
    per_effect: Array
    cells: CellTable


@dataclass(frozen=True, slots=True, eq=False)
class AnalyticPValues:
    """P-values of J units and K programs.

    Attributes
    ----------
    p_value, log10_p : (J, K) arrays
        In [0, 1], and its logarithm, which is finite where the p-value is below 1e-308 and 0.
    method : (J, K) array of str
        "bulk" (four cumulants), "saddlepoint", "monte carlo", or "none": the effect is 0 or the
        unit cannot vary, and p is 1.
    flag : (J, K) array of str
        "ok", or why treatments were drawn: "few_treated", "skewed", "few_cells" (too few cells
        contribute), "beyond_support" (the effect lies where the linear form of D has no value).
    null_mean, null_sd : (J, K) arrays
        Of the effect under the null: ``E S / E D`` and ``sd(S) / E D``; NaN where ``E D`` is 0.
    expected_denominator : (J,) array
        ``E D``.
    resamples : (J, K) int64 array
        Drawn for the p-value; 0 where none was.
    """

    p_value: Array
    log10_p: Array
    method: NDArray[np.str_]
    flag: NDArray[np.str_]
    null_mean: Array
    null_sd: Array
    expected_denominator: Array
    resamples: NDArray[np.int64]


def analytic_table(residuals: Array, basis: Array, cells: CellTable | None = None) -> AnalyticTable:
    """Return the table of least-squares effects.

    Parameters
    ----------
    residuals : (cells, programs) array
        R, orthogonal to the covariates.
    basis : (cells, p) array
        Q, an orthonormal basis of the covariates.
    cells : CellTable, optional
        `residual_table` of the two, where there is one already.

    Returns
    -------
    AnalyticTable

    Raises
    ------
    ShapeError
        The arrays are not matrices of the same cells.
    """
    cells = residual_table(residuals, basis) if cells is None else cells
    return _table(residuals, basis, cells, 1.0)


def rank_analytic_table(ranks: Array, cells: CellTable | None = None) -> AnalyticTable:
    """Return the table of rank-biserial correlations under Bernoulli resampling.

    Parameters
    ----------
    ranks : (cells, programs) array
        Ranks from 1, by any rule.
    cells : CellTable, optional
        `rank_table` of them, where there is one already.

    Returns
    -------
    AnalyticTable

    Notes
    -----
    ``r = 2 sum_treated (R - (N + 1) / 2) / (n1 n0)``, and ``n1 n0 / N`` is D of the design of a
    constant; so ``N r / 2`` is a ratio S / D, n1 being random.
    """
    cells = rank_table(ranks) if cells is None else cells
    n = len(ranks)
    centred = ranks - 0.5 * (n + 1.0)
    return _table(centred, np.full((n, 1), 1.0 / math.sqrt(n)), cells, 0.5 * n)


def analytic_p_values(
    table: AnalyticTable,
    beta: Array,
    probabilities: Array,
    names: Sequence[str],
    *,
    strata: Sequence[Strata] | None = None,
    side: str = "both",
    seed: int = 0,
    bulk_above: float = 0.02,
    exceedances: int = 20,
    max_resamples: int = 10**6,
    threads: int | None = None,
) -> AnalyticPValues:
    """Return p-values of effects under infinitely many resampled treatments.

    Parameters
    ----------
    table : AnalyticTable
        Shared by all units.
    beta : (J, K) array
        Observed effects of a block of units (`ols_statistics`), or rank-biserial correlations with
        `rank_analytic_table`. A unit whose effects are all 0 has no test.
    probabilities : (cells, J) array
        Their propensities, as of `propensity_blocks`.
    names : sequence of str
        The units; they name the random streams.
    strata : sequence of Strata, optional
        Treatment is permuted within them. By default every cell is treated by its propensity.
    side : {"both", "left", "right"}
        ``P(|beta*| >= |beta|)``, ``P(beta* <= beta)`` or ``P(beta* >= beta)``.
    seed : int
        Of the treatments that are drawn.
    bulk_above : float
        Larger p-values are left to four cumulants where these are near the normal's (0.02).
    exceedances, max_resamples : int
        Of treatments that are drawn; see `staged_p_values`.
    threads : int, optional
        Default all cores; never changes the numbers.

    Returns
    -------
    AnalyticPValues
        A unit's numbers do not depend on the units it is tested with, bit for bit.

    Raises
    ------
    OptionError, ShapeError, InputError
        An option is unknown, or the arrays do not fit each other or hold no probabilities.

    Notes
    -----
    Under ``x_i ~ Bernoulli(p_i)``, ``beta* >= t`` is ``sum x_i w_i >= t c``, where ``w_i = r_i -
    t g_i`` and D is replaced by its first-order (Hoeffding) projection ``E D + sum g_i (x_i -
    p_i)``. Deep in the tail treatments that are as extreme have another mean q than p, and D loses
    ``|Q'(q - p)|^2`` that is of second order; where it counts D is projected about q instead. What
    is then neglected has a standard deviation of the order of the share of treated cells. Bulk:
    Edgeworth's expansion to the fourth cumulant, in one pass of single precision (relative errors
    of a p-value below 2e-4 up to a million treated cells). Tail:
    Barndorff-Nielsen's r* in double precision; within strata, where numbers of treated cells are
    fixed, Skovgaard's double saddlepoint and the moments of finite populations. Drawn instead:
    units of fewer than 20 expected treated cells (or of such a D), and tails with a skewness
    beyond 2 or fewer than 15 effective cells. Treatments without treated or untreated cells, which
    are not tested, are no part of the null: those that are drawn are left out, and with 20 expected
    they are less likely than 2 e^-20 = 4e-9, which changes no p-value.

    Time O(N (K + p)) for each unit and O(10 N) for each tail; memory 16 N bytes for each unit of
    the block beside the table.
    """
    if side not in ("both", "left", "right"):
        raise OptionError(f"side is {side!r}; give 'both', 'left' or 'right'.")
    beta = np.asarray(beta, dtype=np.float64)
    n_cells = table.columns.residuals.shape[1]
    _check(beta, probabilities, names, strata, len(table.per_effect), n_cells)
    p = _propensities(probabilities)
    found = _Found(beta.shape)
    varies = (beta != 0.0).any(axis=1)
    if strata is not None:
        varies &= np.array([unit.n_informative > 0 for unit in strata], dtype=bool)
    units = np.flatnonzero(varies)
    groups = [units[i : i + UNITS_TOGETHER] for i in range(0, len(units), UNITS_TOGETHER)]

    def test(group: NDArray[np.intp]) -> None:
        first, last = group[[0, -1]].tolist()
        is_run = last - first + 1 == len(group)  # which needs no copy
        law: Law = (
            BernoulliLaw(table.columns, p[first : last + 1] if is_run else p[group])
            if strata is None
            else StratifiedLaw(table.columns, [strata[j] for j in group])
        )
        _test(law, group, beta[group] * table.per_effect, side, bulk_above, found)

    def draw(j: int) -> None:
        stream = UnitStream(seed, names[j])
        resampler: Resampler = (
            BernoulliResampler(p[j], stream)
            if strata is None
            else StratifiedResampler(strata[j].stratum, strata[j].treated, stream)
        )
        treated = p[j].sum() if strata is None else strata[j].treated.sum()
        tie = tie_of_effects(float(treated), found.denominator[j]) if table.cells.n_basis else TIE
        _draw(table.cells, resampler, j, beta, side, exceedances, max_resamples, tie, found)

    _in_threads(test, groups, threads)
    _in_threads(draw, np.flatnonzero(found.is_drawn.any(axis=1)), threads)
    return found.described(table.per_effect)


def _propensities(probabilities: Array) -> Array:
    """Return propensities (units, cells), away from 0 and 1."""
    p = np.ascontiguousarray(np.transpose(probabilities), dtype=np.float64)
    if not p.size:
        return p
    lowest, highest = p.min(), p.max()
    if not (lowest >= 0.0 and highest <= 1.0):
        for row in p:
            check_probabilities(row)
    least, most = SMALLEST_PROPENSITY, 1.0 - SMALLEST_PROPENSITY
    # Fitted ones need no copy.
    return p if lowest >= least and highest <= most else np.clip(p, least, most)


class _Found:
    """What is found of all units, filled in group by group; methods and flags by their number."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.log10_p = np.zeros(shape)
        self.method, self.flag = np.zeros(shape, dtype=np.int8), np.zeros(shape, dtype=np.int8)
        self.null_mean, self.null_sd = np.full(shape, np.nan), np.full(shape, np.nan)
        self.denominator = np.zeros(shape[0])
        self.resamples = np.zeros(shape, dtype=np.int64)

    @property
    def is_drawn(self) -> NDArray[np.bool_]:
        """Whether treatments are drawn for a p-value."""
        from plait.crt.analytic_kernels import DRAWN

        is_drawn: NDArray[np.bool_] = self.method == DRAWN
        return is_drawn

    def described(self, per_effect: Array) -> AnalyticPValues:
        """Return it in words, and moments of effects as they are asked for."""
        return AnalyticPValues(
            p_value=np.power(10.0, self.log10_p),
            log10_p=self.log10_p,
            method=_METHODS[self.method],
            flag=_FLAGS[self.flag],
            null_mean=self.null_mean / per_effect,
            null_sd=self.null_sd / per_effect,
            expected_denominator=self.denominator,
            resamples=self.resamples,
        )


def _test(
    law: Law, group: NDArray[np.intp], effects: Array, side: str, bulk_above: float, found: _Found
) -> None:
    """Fill in what is found of a group of units, but for what is to be drawn."""
    from plait.crt.analytic_kernels import DRAWN, FEW_TREATED, OK, TAIL, bulk_p_values

    if side == "both":
        thresholds, signs = np.abs(effects), np.where(effects < 0.0, -1.0, 1.0)
    else:
        signs = np.full(effects.shape, 1.0 if side == "right" else -1.0)
        thresholds = signs * effects
    moments = law.moments(thresholds)
    d = moments.denominator
    scale = np.divide(1.0, d, out=np.full(len(d), np.nan), where=d > 0.0)[:, None]
    found.denominator[group] = d
    found.null_mean[group] = scale * moments.mean
    found.null_sd[group] = scale * np.sqrt(moments.variance)
    p_values, method = np.empty(effects.shape), np.empty(effects.shape, dtype=np.int8)
    bulk_p_values(
        moments.treated,
        d,
        moments.constant,
        moments.mean_g,
        moments.mean,
        moments.cumulants,
        thresholds,
        signs,
        side == "both",
        bulk_above,
        p_values,
        method,
    )
    log10_p, flag = np.log10(p_values), np.where(method == DRAWN, FEW_TREATED, OK)
    is_tail = method == TAIL
    if is_tail.any():
        log_p, status = law.tails(is_tail, thresholds, signs, side == "both", moments)
        log10_p[is_tail] = log_p[is_tail] / _LOG_10
        flag[is_tail] = status[is_tail]
        method[is_tail & (status != OK)] = DRAWN
    found.log10_p[group], found.method[group], found.flag[group] = log10_p, method, flag


def _draw(
    cells: CellTable, resampler: Resampler, j: int, beta: Array, side: str, exceedances: int,
    max_resamples: int, tie: float, found: _Found,
) -> None:  # fmt: skip
    """Fill in the p-values of a unit that are to be drawn."""
    programs = np.flatnonzero(found.is_drawn[j])
    null = null_effects_of_block if cells.n_basis else null_rank_biserial_of_block
    drawn = staged_p_values(
        beta[j, programs],
        lambda block: null(cells, resampler, block)[:, programs],
        side=side,
        exceedances=exceedances,
        max_resamples=max_resamples,
        tie=tie,
    )
    found.log10_p[j, programs] = np.log10(drawn.p_value)
    found.resamples[j, programs] = drawn.resamples


def _table(values: Array, basis: Array, cells: CellTable, per_effect: float) -> AnalyticTable:
    from plait.crt.analytic_kernels import fill_columns

    if values.ndim != 2 or basis.ndim != 2 or len(values) != len(basis):
        raise ShapeError(
            f"outcomes have the shape {values.shape} and the basis {basis.shape}; both must be "
            "matrices with a row for each cell."
        )
    if cells.rows.shape[0] != len(values) or cells.n_outcomes != values.shape[1]:
        raise ShapeError(
            f"the table of cells is of {counted(cells.rows.shape[0], 'cell')} and "
            f"{counted(cells.n_outcomes, 'outcome')}, and the outcomes have the shape "
            f"{values.shape}."
        )
    scales = np.sqrt(np.einsum("ik,ik->k", values, values) / len(values))
    scales[scales == 0.0] = 1.0
    columns = Columns(
        np.empty(values.shape[::-1], dtype=np.float32),
        np.empty(basis.shape[::-1]),
        np.einsum("ij,ij->i", basis, basis),
    )
    fill_columns(values, scales, columns.residuals)
    fill_columns(basis, np.ones(basis.shape[1]), columns.basis)
    return AnalyticTable(columns, per_effect / scales, cells)


def _check(
    beta: Array, probabilities: Array, names: Sequence[str], strata: Sequence[Strata] | None,
    n_programs: int, n_cells: int,
) -> None:  # fmt: skip
    if beta.ndim != 2 or beta.shape[1] != n_programs:
        raise ShapeError(
            f"effects have the shape {beta.shape}; units x {counted(n_programs, 'program')} are "
            "expected."
        )
    if not np.isfinite(beta).all():
        j = int(np.flatnonzero(~np.isfinite(beta).all(axis=1))[0])
        raise InputError(
            f"effects of {counted(int((~np.isfinite(beta)).any(axis=1).sum()), 'unit')} are not "
            f"finite (first: unit {j}); effects that cannot be estimated are 0."
        )
    if np.shape(probabilities) != (n_cells, len(beta)):
        raise ShapeError(
            f"propensities have the shape {np.shape(probabilities)}; {counted(n_cells, 'cell')} x "
            f"{counted(len(beta), 'unit')} are expected."
        )
    if len(names) != len(beta) or (strata is not None and len(strata) != len(beta)):
        raise ShapeError(
            f"effects are of {counted(len(beta), 'unit')}, names of {len(names)}"
            + (f" and strata of {len(strata)}." if strata is not None else ".")
        )


def _in_threads(
    function: Callable[[Any], None], items: Sequence[Any] | NDArray[Any], threads: int | None
) -> None:
    """Call a function for every item; each writes to its own rows."""
    workers = min(resolve_threads(threads), len(items))
    if workers <= 1:
        for item in items:
            function(item)
        return
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(function, items):
            pass
