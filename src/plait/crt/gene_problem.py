"""Cells of a gene-level analysis: their genes, covariates, treatments and propensities."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from plait.crt.gene_counts import GeneCounts, gene_of
from plait.crt.logistic import WIDTH
from plait.crt.negative_binomial import GeneFit, fit_gene
from plait.crt.propensity import fit_propensities
from plait.crt.resampling import BernoulliResampler, Resampler, StratifiedResampler
from plait.crt.seeds import UnitStream
from plait.crt.weighted_fits import fit_weighted_gene
from plait.execution.blocks import Block, plan_blocks
from plait.execution.executors import Workforce, run_blocks

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class GeneProblem:
    """Cells, their genes, their covariates and their treatments.

    Attributes
    ----------
    responses : (cells, genes) csc_array or StoredCounts
        Counts.
    design : (columns, cells) array
        Ones, then a basis of the covariates (`plait.crt.gene_design.GeneDesign.rows`).
    treated : (cells, units) csc_array
        Something stored in treated cells.
    units : tuple of str
        Their names, which name random streams.
    controls : array of int or None
        The cells that treated ones are compared with; None: all others.
    weights : (cells,) array or None
        How much cells count.
    """

    responses: GeneCounts
    design: Array
    treated: csc_array
    units: tuple[str, ...]
    controls: NDArray[np.intp] | None = None
    weights: Array | None = None

    def fit(self, counts: Array) -> GeneFit:
        """Regress counts of a gene on the covariates."""
        if self.weights is None:
            return fit_gene(self.design, counts)
        return fit_weighted_gene(self.design, counts, self.weights)

    def treated_cells(self, unit: int) -> NDArray[np.int32]:
        """Return a unit's treated cells, ascending."""
        indptr = self.treated.indptr
        return np.asarray(self.treated.indices[indptr[unit] : indptr[unit + 1]], dtype=np.int32)

    def counts(self, response: int) -> Array:
        """Return the counts of a gene in all cells."""
        cells, values = gene_of(self.responses, response)
        dense = np.zeros(self.responses.shape[0])
        dense[cells] = values
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
        weights = None if self.weights is None else self.weights[cells]
        one_unit = (self.units[unit],)
        return GeneProblem(self.responses, design, one, one_unit, weights=weights), cells


@dataclass(frozen=True, eq=False)
class LogOdds:
    """Fits the log odds of treatment of a block of units.

    Attributes
    ----------
    design : (columns, cells) array
    treated : (cells, units) csc_array
    names : tuple of str
        Of the units.
    """

    design: Array
    treated: csc_array
    names: tuple[str, ...]

    def __call__(self, block: Block) -> Array:
        """Return coefficients (units of the block, columns)."""
        fit = fit_propensities(
            np.ascontiguousarray(self.design.T),
            self.treated[:, block.rows],
            names=self.names[block.rows],
            C_value=np.inf,
        )
        coefficients = fit.coefficients.T.copy()
        coefficients[:, 0] = fit.intercepts
        return coefficients


def log_odds_of(problem: GeneProblem, units: Indices, force: Workforce) -> Array:
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
    work = LogOdds(problem.design, treated[:, units], names)
    coefficients = np.zeros((len(problem.units), len(problem.design)))
    for block, part in run_blocks(work, plan_blocks(len(units), WIDTH), force, "propensities"):
        coefficients[units[block.rows]] = part
    return coefficients


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells with their treatments and what is known of how these come about.

    Attributes
    ----------
    problem : GeneProblem
    coefficients : (units, columns) array or None
        Of log odds of treatment; None where treatments are permuted.
    """

    problem: GeneProblem
    coefficients: Array | None

    def law(self, unit: int) -> tuple[int | None, Array]:
        """Return how many cells a permutation treats (else None), and log odds of treatment."""
        from plait.crt.gene_tail_kernels import fill_log_odds

        n_cells = self.problem.design.shape[1]
        if self.coefficients is None:
            n = len(self.problem.treated_cells(unit))
            return n, np.full(n_cells, math.log(n / (n_cells - n)))
        log_odds = np.empty(n_cells)
        fill_log_odds(self.problem.design, self.coefficients[unit], log_odds)
        return None, log_odds

    def resampler(self, unit: int, seed: int) -> Resampler:
        """Return what draws a unit's treated cells."""
        from plait.crt.gene_tail_kernels import tilted_chances

        stream = UnitStream(seed, self.problem.units[unit])
        n_treated, log_odds = self.law(unit)
        if n_treated is not None:
            stratum = np.zeros(len(log_odds), dtype=np.int64)
            return StratifiedResampler(stratum, np.array([n_treated]), stream)
        chances = np.empty(len(log_odds))
        tilted_chances(log_odds, log_odds, 0.0, 0.0, chances)
        return BernoulliResampler(chances, stream)


@dataclass(frozen=True, slots=True, eq=False)
class FittedPair:
    """A pair of a gene and a unit among those of a block.

    Attributes
    ----------
    place : int
        Among the pairs of the block.
    unit : int
        Of the problem of ``cells``.
    cells : Cells
    fit : GeneFit
        The gene's regression in these cells.
    z : float
        The statistic, where it was asked for.
    """

    place: int
    unit: int
    cells: Cells
    fit: GeneFit
    z: float = math.nan
