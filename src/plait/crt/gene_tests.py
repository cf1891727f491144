"""Tests of what a target does to a gene, for many pairs of the two."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.crt.arguments import whole_number
from plait.crt.gene_problem import Cells, FittedPair, GeneProblem, LogOdds, log_odds_of
from plait.crt.negative_binomial import GeneFit, score_statistics
from plait.crt.resampling import Resampler
from plait.crt.score_nulls import NullScores, Stages, tilted_p_value
from plait.crt.seeds import UnitStream
from plait.crt.staged import FIRST_STAGE
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
_LEAST_WORK = 2**18
"""Cells times pairs of a block at least: smaller ones would share fewer draws."""
_MOST_KEPT = 1 << 23
"""Resamples that a block keeps, 64 MiB of them."""
NULL_DRAWS = "null_draws"
_GENES_TOGETHER = 16
"""Genes that share a unit's draws, if there are not too many cells to hold so many fits."""
_CELLS_TOGETHER = 2**21
"""Cells times these genes at most: 16 genes of 130,000 cells are 0.2 GiB with five covariates."""
_MOST_RESAMPLES = 10**9
_LEAST_P = 5e-324
_LEAST_LOG_P = math.log(_LEAST_P)


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
        whole_number(self.seed, "seed", 0)
        whole_number(self.max_resamples, "max_resamples", 1, most=_MOST_RESAMPLES)


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
        ``z_orig``, ``fold_change``, ``se_fold_change``, ``theta``, ``converged`` (whether the
        gene's regression ended), ``p_value``, ``log10_p``, ``p_method``; with "sceptre_staged"
        ``stage`` and the skew-normal's ``xi``, ``omega`` and ``alpha``. The same bits for any
        workers and whichever pairs are tested together.

    Notes
    -----
    Without controls a gene is fitted once, O(cells x columns^2); with them once for each pair.
    A pair then costs O(cells x columns) for an analytic p-value.
    """
    work = BlockOfPairs.of(problem, response, unit, options, force)
    found = {name: _empty(len(work), name) for name in work.names()}
    with stage("pairs", len(work)) as advance:
        for block, part in run_blocks(work, plan_blocks(len(work), work.size), force, "pairs"):
            for name, values in part.items():
                found[name][work.order[block.rows]] = values
            advance(len(block))
    return found


def _empty(n: int, name: str, kept: int = 0) -> NDArray[Any]:
    if name == NULL_DRAWS:
        return np.full((n, kept), np.nan)
    if name == "p_method":
        return np.full(n, "none", dtype="<U12")
    if name == "converged":
        return np.ones(n, dtype=bool)
    return np.zeros(n, dtype=np.int64) if name == "stage" else np.full(n, np.nan)


@dataclass(frozen=True, eq=False)
class BlockOfPairs:
    """Tests a block of pairs, those of a gene (where there are controls, of a unit) together.

    Attributes
    ----------
    problem : GeneProblem
    options : GeneTestOptions
    group, member : (P,) arrays of int
        Gene and unit of the pairs, or unit and gene where there are controls, sorted by the first,
        whose pairs are tested together.
    order : (P,) array of int
        The places that these pairs have among those given.
    coefficients : (units, columns) array or None
        Of log odds of treatment, where they are the same for all genes.
    kept : int
        Resamples of each pair that are returned.
    """

    problem: GeneProblem
    options: GeneTestOptions
    group: Indices
    member: Indices
    order: Indices
    coefficients: Array | None
    kept: int = 0

    @classmethod
    def of(
        cls,
        problem: GeneProblem,
        response: NDArray[np.integer],
        unit: NDArray[np.integer],
        options: GeneTestOptions,
        force: Workforce,
        kept: int = 0,
    ) -> "BlockOfPairs":
        """Return what tests blocks of pairs; see `pairs_found`."""
        by_unit = problem.controls is not None
        group, member = (unit, response) if by_unit else (response, unit)
        order = np.argsort(group, kind="stable")
        coefficients = None
        if options.mechanism == "crt" and not by_unit:
            coefficients = log_odds_of(problem, np.unique(unit), force)
        group, member = (np.asarray(part, dtype=np.int64)[order] for part in (group, member))
        return cls(problem, options, group, member, order, coefficients, kept)

    def __len__(self) -> int:
        return len(self.order)

    @property
    def size(self) -> int:
        """How many pairs a block has; a gene whose pairs are in two blocks is fitted twice."""
        n_cells = int(self.problem.design.shape[1])
        whole = max(-(-len(self) // _MOST_BLOCKS), _LEAST_WORK // n_cells, 1)
        return whole if self.kept == 0 else max(min(whole, _MOST_KEPT // self.kept), 1)

    @property
    def genes_together(self) -> int:
        """How many genes share the draws of a unit; their fits are held meanwhile."""
        n_cells = int(self.problem.design.shape[1])
        return max(min(_GENES_TOGETHER, _CELLS_TOGETHER // n_cells), 1)

    def names(self) -> tuple[str, ...]:
        """Return what is found of each pair."""
        names: tuple[str, ...] = (
            "z_orig",
            "fold_change",
            "se_fold_change",
            "theta",
            "converged",
            "p_value",
            "log10_p",
            "p_method",
        )
        if self.options.resampling != "sceptre_staged":
            return names
        names = (*names, "stage", "xi", "omega", "alpha")
        return (*names, NULL_DRAWS) if self.kept else names

    def __call__(self, block: Block) -> dict[str, NDArray[Any]]:
        """Return what is found of the pairs of a block, in their order."""
        found = {name: _empty(len(block), name, self.kept) for name in self.names()}
        spans = self._spans(block)
        if self.problem.controls is not None:
            for unit, place, genes in spans:
                self._around(unit, genes, place, found)
            return found
        cells = self._cells()
        for begin in range(0, len(spans), self.genes_together):
            drawn: dict[int, list[FittedPair]] = {}
            for gene, place, units in spans[begin : begin + self.genes_together]:
                for pair in self._test(cells, self.problem.counts(gene), units, place, found):
                    drawn.setdefault(pair.unit, []).append(pair)
            for pairs in drawn.values():
                self._draw(pairs, found)
        return found

    def fitted(self, block: Block) -> Iterator[FittedPair]:
        """Yield the pairs of a block with their cells and fits."""
        for item, place, members in self._spans(block):
            if self.problem.controls is None:
                cells = self._cells()
                fit = self.problem.fit(self.problem.counts(item))
                for k, unit in enumerate(members.tolist(), place):
                    yield FittedPair(k, unit, cells, fit)
            else:
                cells, used = self._cells_around(item)
                for k, gene in enumerate(members.tolist(), place):
                    counts = self.problem.counts(gene)[used]
                    yield FittedPair(k, 0, cells, cells.problem.fit(counts))

    def _spans(self, block: Block) -> list[tuple[int, int, Indices]]:
        """Return the groups of a block, the place in it that each begins at, and its members."""
        items, places = np.unique(self.group[block.rows], return_index=True)
        members = np.split(self.member[block.rows], places[1:])
        return list(zip(items.tolist(), places.tolist(), members, strict=True))

    def _cells(self) -> Cells:
        """Return all cells, which pairs of all units share where there are no controls."""
        return Cells(self.problem, self.coefficients)

    def _cells_around(self, unit: int) -> tuple[Cells, NDArray[np.intp]]:
        """Return a unit's treated cells and the controls, and which these are."""
        problem, used = self.problem.around(unit)
        coefficients = None
        if self.options.mechanism == "crt":
            coefficients = LogOdds(problem.design, problem.treated, problem.units)(Block(0, 1))
        return Cells(problem, coefficients), used

    def _around(self, unit: int, genes: Indices, place: int, found: dict[str, Any]) -> None:
        """Test a unit's genes, each fitted to its treated cells and the controls."""
        cells, used = self._cells_around(unit)
        only = np.zeros(1, dtype=np.int64)
        for begin in range(0, len(genes), self.genes_together):
            drawn: list[FittedPair] = []
            for offset, gene in enumerate(genes[begin : begin + self.genes_together], begin):
                counts = self.problem.counts(int(gene))[used]
                drawn += self._test(cells, counts, only, place + offset, found)
            if drawn:
                self._draw(drawn, found)

    def _test(
        self, cells: Cells, counts: Array, units: Indices, place: int, found: dict[str, Any]
    ) -> list[FittedPair]:
        """Write what is found of one gene and some units; return pairs that need draws."""
        fit = cells.problem.fit(counts)
        statistics = score_statistics(fit, cells.problem.treated, units)
        rows = slice(place, place + len(units))
        found["z_orig"][rows] = statistics.z
        found["fold_change"][rows] = statistics.fold_change
        found["se_fold_change"][rows] = statistics.se_fold_change
        found["theta"][rows] = fit.theta
        found["converged"][rows] = fit.converged
        pairs = [
            FittedPair(place + k, int(unit), cells, fit, float(z))
            for k, (unit, z) in enumerate(zip(units, statistics.z, strict=True))
        ]
        for pair in pairs:
            if math.isnan(pair.z):
                _write(found, pair.place, p_value=1.0, log10_p=0.0)
        pairs = [pair for pair in pairs if not math.isnan(pair.z)]
        if self.options.resampling == "sceptre_staged":
            for pair in pairs:
                self._stage(pair, found)
            return []
        return self._analyse(cells, fit, pairs, found)

    def _stage(self, pair: FittedPair, found: dict[str, Any]) -> None:
        """Write the p-value of a pair by stages of resamples."""
        resampler = pair.cells.resampler(pair.unit, self.options.seed)
        null = NullScores([pair.fit.parts], resampler)
        staged = null.staged(pair.z, self.options.side, self.options.stages)
        xi, omega, alpha = staged.parameters
        _write(
            found,
            pair.place,
            p_value=staged.p_value,
            log10_p=math.log10(staged.p_value),
            p_method="skew-normal" if staged.stage == 2 else "empirical",
            stage=staged.stage,
            xi=xi,
            omega=omega,
            alpha=alpha,
        )
        if self.kept:
            found[NULL_DRAWS][pair.place, : len(staged.null)] = staged.null

    def _analyse(
        self, cells: Cells, fit: GeneFit, pairs: list[FittedPair], found: dict[str, Any]
    ) -> list[FittedPair]:
        """Write analytic p-values of a gene's pairs; return those that have none."""
        from plait.crt.gene_tail_kernels import gene_tails

        units = np.array([pair.unit for pair in pairs], dtype=np.int64)
        n_treated = np.diff(cells.problem.treated.indptr)[units].astype(np.float64)
        z = np.array([pair.z for pair in pairs])
        log_p, method = np.empty(len(units)), np.empty(len(units), dtype=np.int64)
        gene_tails(
            np.where(n_treated < FEWEST_TREATED, np.nan, z),
            fit.parts,
            cells.problem.design,
            np.zeros((len(units), 1)) if cells.coefficients is None else cells.coefficients[units],
            n_treated,
            cells.coefficients is None,
            np.empty((5, cells.problem.design.shape[1])),
            log_p,
            method,
        )
        left = []
        for pair, log_tail, how in zip(pairs, log_p.tolist(), method.tolist(), strict=True):
            if how not in _METHOD_NAMES:
                left.append(pair)
                continue
            value = _of_side(log_tail, pair.z, self.options.side)
            _write_log(found, pair.place, value, _METHOD_NAMES[how])
        return left

    def _draw(self, pairs: list[FittedPair], found: dict[str, Any]) -> None:
        """Write p-values of pairs of one unit from draws.

        They are counted where they are large, else found with tilted draws.
        """
        side, most = self.options.side, self.options.max_resamples
        cells, unit = pairs[0].cells, pairs[0].unit
        resampler = cells.resampler(unit, self.options.seed)
        p, is_enough, is_right = _counted(pairs, resampler, side, min(FIRST_STAGE, most))
        left = np.flatnonzero(~is_enough)
        if len(left):
            some = [pairs[k] for k in left]
            p[left], is_enough[left], is_right[left] = _counted(
                some, resampler, side, min(_FIRST_COUNTED, most)
            )
        stream = UnitStream(self.options.seed, f"tilted:{cells.problem.units[unit]}")
        for k, pair in enumerate(pairs):
            # Tilted draws are of the tail on z's side of 0, which is the other where the middle of
            # the null is between the two.
            if not is_enough[k] and is_right[k] == (pair.z >= 0.0):
                n_treated, log_odds = cells.law(unit)
                log_p, error = tilted_p_value(
                    pair.z, side, pair.fit.parts, log_odds, n_treated, stream
                )
                if error < _LARGEST_ERROR:
                    _write_log(found, pair.place, log_p, "tilted draws")
                    continue
            if not is_enough[k]:
                p[k] = _counted([pair], resampler, side, most)[0][0]
            _write_log(found, pair.place, math.log(p[k]), "monte carlo", p[k])


def _counted(
    pairs: list[FittedPair], resampler: Resampler, side: str, max_resamples: int
) -> tuple[Array, NDArray[np.bool_], NDArray[np.bool_]]:
    """Return p-values of pairs of one unit; see `NullScores.counted`."""
    null = NullScores([pair.fit.parts for pair in pairs], resampler)
    return null.counted(np.array([pair.z for pair in pairs]), side, max_resamples)


def _write(found: dict[str, Any], place: int, **values: Any) -> None:
    for name, value in values.items():
        found[name][place] = value


def _write_log(
    found: dict[str, Any], place: int, log_p: float, method: str, p_value: float | None = None
) -> None:
    log10_p = log_p / math.log(10)
    value = max(10.0**log10_p, _LEAST_P) if p_value is None else p_value
    _write(found, place, p_value=value, log10_p=log10_p, p_method=method)


def _of_side(log_tail: float, z: float, side: str) -> float:
    """Return the log p-value of a side from the tail beyond z on its own."""
    tail = min(math.exp(log_tail), 1.0)
    log_rest = math.log1p(-tail) if tail < 1.0 else -math.inf
    if side == "both":
        return min(min(log_tail, log_rest) + math.log(2.0), 0.0) if tail < 1.0 else 0.0
    is_own = (side == "right") == (z >= 0.0)
    return min(log_tail, 0.0) if is_own else max(log_rest, _LEAST_LOG_P)
