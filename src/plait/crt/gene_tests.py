"""Tests of what a target does to a gene, for many pairs of the two."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from plait.crt.logistic import WIDTH
from plait.crt.negative_binomial import GeneFit, fit_gene, score_statistics
from plait.crt.propensity import fit_propensities
from plait.crt.resampling import BernoulliResampler, Resampler, StratifiedResampler
from plait.crt.score_nulls import NullScores, Stages, tilted_p_value
from plait.crt.seeds import UnitStream
from plait.errors import OptionError
from plait.execution.blocks import Block, plan_blocks
from plait.execution.executors import Workforce, run_blocks
from plait.execution.progress import stage

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

RESAMPLINGS = ("analytic", "sceptre_staged")
SIDES = ("both", "left", "right")
MECHANISMS = ("crt", "permutations")
FEWEST_TREATED = 20
"""Below so many treated cells p-values are counted and not taken from a saddlepoint."""
_METHOD_NAMES = {0: "bulk", 1: "saddlepoint"}
_FIRST_COUNTED = 8192
"""A p-value that so many resamples do not settle is looked for with tilted ones."""
_LARGEST_ERROR = 0.25
"""Relative error up to which the latter are believed."""
_MOST_BLOCKS = 64
_LEAST_LOG_P = math.log(5e-324)


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneTestOptions:
    """How pairs are tested.

    Attributes
    ----------
    side : {"both", "left", "right"}
        Of both, the smaller tail is doubled.
    mechanism : {"crt", "permutations"}
        How treatments are drawn: each cell by its propensity given the covariates, or as many
        cells as there are treated ones, all alike.
    resampling : {"analytic", "sceptre_staged"}
        P-values of infinitely many resamples (counted where too few cells are treated for that),
        or of three stages of resamples.
    stages : Stages
        Of "sceptre_staged".
    max_resamples : int
        The most for a p-value that is counted (a million).
    seed : int
    """

    side: str = "both"
    mechanism: str = "crt"
    resampling: str = "analytic"
    stages: Stages = field(default_factory=Stages)
    max_resamples: int = 10**6
    seed: int = 123

    def __post_init__(self) -> None:
        for name, known in (
            ("side", SIDES),
            ("mechanism", MECHANISMS),
            ("resampling", RESAMPLINGS),
        ):
            if getattr(self, name) not in known:
                raise OptionError(
                    f"{name} is {getattr(self, name)!r}; give one of {', '.join(map(repr, known))}."
                )
        if self.seed < 0 or self.max_resamples < 1:
            raise OptionError("the seed is 0 or more, and max_resamples at least 1.")


@dataclass(frozen=True, eq=False)
class GeneProblem:
    """Cells, their genes, their covariates and their treatments.

    Attributes
    ----------
    responses : (cells, genes) csc_array
        Counts.
    design : (columns, cells) array
        Ones, then a basis of the covariates (`plait.crt.gene_design.GeneDesign.rows`).
    treated : (cells, units) csc_array
        Something stored in treated cells.
    units : tuple of str
        Their names, which name random streams.
    controls : array of int or None
        The cells that treated ones are compared with; None: all others.
    """

    responses: csc_array
    design: Array
    treated: csc_array
    units: tuple[str, ...]
    controls: NDArray[np.intp] | None = None

    def treated_cells(self, unit: int) -> NDArray[np.int32]:
        """Return a unit's treated cells, ascending."""
        indptr = self.treated.indptr
        return np.asarray(self.treated.indices[indptr[unit] : indptr[unit + 1]], dtype=np.int32)

    def counts(self, response: int) -> Array:
        """Return the counts of a gene in all cells."""
        part = slice(self.responses.indptr[response], self.responses.indptr[response + 1])
        dense = np.zeros(self.responses.shape[0])
        dense[self.responses.indices[part]] = self.responses.data[part]
        return dense

    def around(self, unit: int) -> tuple["GeneProblem", NDArray[np.intp]]:
        """Return the problem of one unit's treated cells and the controls, and these cells."""
        assert self.controls is not None
        treated = self.treated_cells(unit)
        cells = np.union1d(treated, self.controls)
        rows = np.searchsorted(cells, treated).astype(np.int32)
        one = csc_array(
            (np.ones(len(rows), np.int8), rows, np.array([0, len(rows)])), shape=(len(cells), 1)
        )
        design = np.ascontiguousarray(self.design[:, cells])
        return GeneProblem(self.responses, design, one, (self.units[unit],)), cells


def pairs_found(
    problem: GeneProblem,
    response: NDArray[np.integer],
    unit: NDArray[np.integer],
    options: GeneTestOptions,
    force: Workforce,
) -> dict[str, NDArray[Any]]:
    """Test pairs of a gene and a unit.

    Parameters
    ----------
    problem : GeneProblem
    response, unit : (P,) arrays of int
        Columns of ``problem.responses`` and ``problem.treated``; each unit has treated cells and
        others, each gene counts.
    options : GeneTestOptions
    force : Workforce
        Who works on blocks of genes (or of units, where there are ``controls``).

    Returns
    -------
    dict of (P,) arrays
        ``z``, ``fold_change``, ``se_fold_change``, ``theta``, ``p_value``, ``log10_p``,
        ``p_method``; with "sceptre_staged" ``stage`` and the skew-normal's ``xi``, ``omega`` and
        ``alpha``. The same bits for any workers and whichever pairs are tested together.

    Notes
    -----
    Without controls a gene is fitted once, O(cells x columns^2); with them once for each pair.
    A pair then costs O(cells x columns) for an analytic p-value.
    """
    by_unit = problem.controls is not None
    outer = np.asarray(unit if by_unit else response, dtype=np.int64)
    items, starts, order = _grouped(outer)
    coefficients = None
    if options.mechanism == "crt" and not by_unit:
        coefficients = _log_odds(problem, np.unique(unit), force)
    work = BlockOfPairs(
        problem,
        options,
        items,
        starts,
        order,
        np.asarray(response, np.int64),
        np.asarray(unit, np.int64),
        coefficients,
    )
    found = {name: _empty(len(outer), name) for name in work.names()}
    size = max(1, -(-len(items) // _MOST_BLOCKS))
    with stage("pairs", len(outer)) as advance:
        for block, part in run_blocks(work, plan_blocks(len(items), size), force, "pairs"):
            rows = order[starts[block.start] : starts[block.stop]]
            for name, values in part.items():
                found[name][rows] = values
            advance(len(rows))
    return found


def _grouped(outer: Indices) -> tuple[Indices, Indices, Indices]:
    """Return distinct items, where each begins in the order, and the order of the pairs."""
    order = np.argsort(outer, kind="stable")
    items, first = np.unique(outer[order], return_index=True)
    return items, np.append(first, len(outer)).astype(np.int64), order


def _empty(n: int, name: str) -> NDArray[Any]:
    if name == "p_method":
        return np.full(n, "none", dtype="<U12")
    return np.zeros(n, dtype=np.int64) if name == "stage" else np.full(n, np.nan)


@dataclass(frozen=True, eq=False)
class _LogOdds:
    """Fits the propensities of a block of units."""

    design: Array
    treated: csc_array
    names: tuple[str, ...]

    def __call__(self, block: Block) -> Array:
        fit = fit_propensities(
            np.ascontiguousarray(self.design.T),
            self.treated[:, block.rows],
            names=self.names[block.rows],
            C_value=np.inf,
        )
        coefficients = fit.coefficients.T.copy()
        coefficients[:, 0] = fit.intercepts
        return coefficients


def _log_odds(problem: GeneProblem, units: Indices, force: Workforce) -> Array:
    """Return the coefficients (all units, columns) of log odds of treatment; others are 0."""
    treated = csc_array(
        (
            np.ones(problem.treated.nnz, dtype=np.int8),
            problem.treated.indices,
            problem.treated.indptr,
        ),
        shape=problem.treated.shape,
    )
    names = tuple(problem.units[j] for j in units)
    work = _LogOdds(problem.design, treated[:, units], names)
    coefficients = np.zeros((len(problem.units), len(problem.design)))
    for block, part in run_blocks(work, plan_blocks(len(units), WIDTH), force, "propensities"):
        coefficients[units[block.rows]] = part
    return coefficients


@dataclass(frozen=True, eq=False)
class BlockOfPairs:
    """Tests the pairs of a block of genes or, where there are controls, of units."""

    problem: GeneProblem
    options: GeneTestOptions
    items: Indices
    starts: Indices
    order: Indices
    response: Indices
    unit: Indices
    coefficients: Array | None

    def names(self) -> tuple[str, ...]:
        """Return what is found of each pair."""
        names = ("z", "fold_change", "se_fold_change", "theta", "p_value", "log10_p", "p_method")
        is_staged = self.options.resampling == "sceptre_staged"
        return (*names, "stage", "xi", "omega", "alpha") if is_staged else names

    def __call__(self, block: Block) -> dict[str, NDArray[Any]]:
        """Return what is found of the pairs of a block, in their order."""
        begin = self.starts[block.start]
        n = int(self.starts[block.stop] - begin)
        found = {name: _empty(n, name) for name in self.names()}
        for item in range(block.start, block.stop):
            rows = self.order[self.starts[item] : self.starts[item + 1]]
            place = int(self.starts[item] - begin)
            if self.problem.controls is None:
                counts = self.problem.counts(int(self.items[item]))
                self._test(self.problem, counts, self.unit[rows], self.coefficients, place, found)
            else:
                self._around(int(self.items[item]), rows, place, found)
        return found

    def _around(self, unit: int, rows: Indices, place: int, found: dict[str, Any]) -> None:
        """Test a unit's genes, each fitted to its treated cells and the controls."""
        problem, cells = self.problem.around(unit)
        only = np.zeros(1, dtype=np.int64)
        coefficients = None
        if self.options.mechanism == "crt":
            coefficients = _LogOdds(problem.design, problem.treated, problem.units)(Block(0, 1))
        for offset, response in enumerate(self.response[rows]):
            counts = self.problem.counts(int(response))[cells]
            self._test(problem, counts, only, coefficients, place + offset, found)

    def _test(
        self,
        problem: GeneProblem,
        counts: Array,
        units: Indices,
        coefficients: Array | None,
        place: int,
        found: dict[str, Any],
    ) -> None:
        """Write what is found of one gene and some units."""
        fit = fit_gene(problem.design, counts)
        statistics = score_statistics(fit, problem.treated, units)
        rows = slice(place, place + len(units))
        found["z"][rows] = statistics.z
        found["fold_change"][rows] = statistics.fold_change
        found["se_fold_change"][rows] = statistics.se_fold_change
        found["theta"][rows] = fit.theta
        if self.options.resampling == "sceptre_staged":
            pairs = self._staged(problem, fit, statistics.z, units, coefficients)
        else:
            pairs = self._analytic(problem, fit, statistics.z, units, coefficients)
        for offset, values in enumerate(pairs):
            for name, value in values.items():
                found[name][place + offset] = value

    def _staged(
        self,
        problem: GeneProblem,
        fit: GeneFit,
        z: Array,
        units: Indices,
        coefficients: Array | None,
    ) -> Iterator[dict[str, Any]]:
        for k, unit in enumerate(units):
            if math.isnan(z[k]):
                yield {"p_value": 1.0, "log10_p": 0.0}
                continue
            null = NullScores(fit.parts, self._resampler(problem, int(unit), coefficients))
            staged = null.staged(float(z[k]), self.options.side, self.options.stages)
            xi, omega, alpha = staged.parameters
            yield {
                "p_value": staged.p_value,
                "log10_p": math.log10(staged.p_value),
                "p_method": "skew-normal" if staged.stage == 2 else "empirical",
                "stage": staged.stage,
                "xi": xi,
                "omega": omega,
                "alpha": alpha,
            }

    def _analytic(
        self,
        problem: GeneProblem,
        fit: GeneFit,
        z: Array,
        units: Indices,
        coefficients: Array | None,
    ) -> Iterator[dict[str, Any]]:
        from plait.crt.gene_tail_kernels import gene_tails

        n_treated = np.diff(problem.treated.indptr)[units].astype(np.float64)
        is_few = n_treated < FEWEST_TREATED
        log_p, method = np.empty(len(units)), np.empty(len(units), dtype=np.int64)
        gene_tails(
            np.where(is_few, np.nan, z),
            fit.parts,
            problem.design,
            np.zeros((len(units), 1)) if coefficients is None else coefficients[units],
            n_treated,
            coefficients is None,
            np.empty((5, problem.design.shape[1])),
            log_p,
            method,
        )
        for k, unit in enumerate(units):
            if math.isnan(z[k]):
                yield {"p_value": 1.0, "log10_p": 0.0}
            elif int(method[k]) in _METHOD_NAMES:
                log10_p = _of_side(float(log_p[k]), float(z[k]), self.options.side) / math.log(10)
                yield {
                    "p_value": max(10.0**log10_p, 5e-324),
                    "log10_p": log10_p,
                    "p_method": _METHOD_NAMES[int(method[k])],
                }
            else:
                yield self._drawn(problem, fit, float(z[k]), int(unit), coefficients)

    def _drawn(
        self,
        problem: GeneProblem,
        fit: GeneFit,
        z: float,
        unit: int,
        coefficients: Array | None,
    ) -> dict[str, Any]:
        """Return a p-value from draws: counted where it is large, else from tilted ones."""
        side, most = self.options.side, self.options.max_resamples
        null = NullScores(fit.parts, self._resampler(problem, unit, coefficients))
        p, is_enough = null.counted(z, side, min(_FIRST_COUNTED, most))
        if is_enough or (side != "both" and (z >= 0.0) != (side == "right")):
            return {"p_value": p, "log10_p": math.log10(p), "p_method": "monte carlo"}
        n_cells = problem.design.shape[1]
        n_treated = len(problem.treated_cells(unit)) if coefficients is None else None
        if n_treated is None:
            log_odds = self._log_odds_of(problem, unit, coefficients)
        else:
            log_odds = np.full(n_cells, math.log(n_treated / (n_cells - n_treated)))
        stream = UnitStream(self.options.seed, f"tilted:{problem.units[unit]}")
        log_p, error = tilted_p_value(z, side, fit.parts, log_odds, n_treated, stream)
        if error < _LARGEST_ERROR:
            log10_p = log_p / math.log(10)
            return {
                "p_value": max(10.0**log10_p, 5e-324),
                "log10_p": log10_p,
                "p_method": "tilted draws",
            }
        p, _ = null.counted(z, side, most)
        return {"p_value": p, "log10_p": math.log10(p), "p_method": "monte carlo"}

    def _log_odds_of(self, problem: GeneProblem, unit: int, coefficients: Array | None) -> Array:
        from plait.crt.gene_tail_kernels import fill_log_odds

        assert coefficients is not None
        log_odds = np.empty(problem.design.shape[1])
        fill_log_odds(problem.design, coefficients[unit], log_odds)
        return log_odds

    def _resampler(self, problem: GeneProblem, unit: int, coefficients: Array | None) -> Resampler:
        from plait.crt.gene_tail_kernels import tilted_chances

        stream = UnitStream(self.options.seed, problem.units[unit])
        n_cells = problem.design.shape[1]
        if coefficients is None:
            n_treated = len(problem.treated_cells(unit))
            return StratifiedResampler(
                np.zeros(n_cells, dtype=np.int64), np.array([n_treated]), stream
            )
        log_odds, chances = self._log_odds_of(problem, unit, coefficients), np.empty(n_cells)
        tilted_chances(log_odds, log_odds, 0.0, 0.0, chances)
        return BernoulliResampler(chances, stream)


def _of_side(log_tail: float, z: float, side: str) -> float:
    """Return the log p-value of a side from the tail beyond z on its own."""
    tail = min(math.exp(log_tail), 1.0)
    log_rest = math.log1p(-tail) if tail < 1.0 else -math.inf
    if side == "both":
        return min(min(log_tail, log_rest) + math.log(2.0), 0.0) if tail < 1.0 else 0.0
    is_own = (side == "right") == (z >= 0.0)
    return min(log_tail, 0.0) if is_own else max(log_rest, _LEAST_LOG_P)
