"""The pairs of an analysis: their units, which of them can be tested, and their table."""

import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from plait.crt.arguments import whole_number
from plait.crt.assignment import GuideAssignment, indicator_of_lists
from plait.crt.cell_quality import CellQuality
from plait.crt.gene_counts import (
    GeneCounts,
    blocks_of_genes,
    csc_rows,
    fingerprint_of_counts,
    rows_of,
)
from plait.crt.gene_data import GeneScreenData
from plait.crt.gene_design import GeneDesign, design_columns
from plait.crt.gene_problem import GeneProblem
from plait.crt.gene_results import GeneTestResult
from plait.crt.gene_tests import BlockOfPairs, pairs_found
from plait.crt.guides import union_obs_idx_from_cols
from plait.crt.pairs import Pairs, listed, nonzero_treated
from plait.crt.screen_parameters import ScreenParameters
from plait.crt.stored_pairs import StoreOptions, stored_result
from plait.data.words import counted
from plait.errors import ConvergenceWarning
from plait.execution.executors import Workforce
from plait.numerics.multiple_testing import false_discovery_rates
from plait.provenance import Provenance, fingerprint

Array = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class PairQuality:
    """How many treated cells and controls must have counts of a pair's gene."""

    min_treated: int = 7
    min_controls: int = 7

    def __post_init__(self) -> None:
        whole_number(self.min_treated, "min_treated", 1)
        whole_number(self.min_controls, "min_controls", 1)


@dataclass(frozen=True, eq=False)
class PairedUnits:
    """Pairs of a gene and a unit, which is the cells of some guides.

    Attributes
    ----------
    names : tuple of str
        Of the units: targets, guides, or guides joined by "&".
    columns : tuple of arrays of int
        The guides of each unit.
    unit, response : (P,) arrays of int
    targets : (P,) array of str
        What is tested, for the table.
    guides : (P,) array of str or None
        Guides that are tested one by one.
    """

    names: tuple[str, ...]
    columns: tuple[Indices, ...]
    unit: Indices
    response: Indices
    targets: NDArray[np.str_]
    guides: NDArray[np.str_] | None = None

    @classmethod
    def of_targets(cls, pairs: Pairs, data: GeneScreenData, strategy: str) -> "PairedUnits":
        """Return the units of pairs of targets, or of each of their guides."""
        response = _places(pairs.responses, data.response_names)
        distinct = list(dict.fromkeys(pairs.targets.tolist()))
        columns = {target: data.targets.columns_of(target) for target in distinct}
        target = _places(pairs.targets, np.array(distinct, dtype=np.str_))
        if strategy == "union":
            return cls(tuple(distinct), tuple(columns.values()), target, response, pairs.targets)
        counts = np.array([len(part) for part in columns.values()], dtype=np.intp)
        firsts = np.concatenate([[0], np.cumsum(counts)]).astype(np.intp)
        repeats = counts[target]
        row = np.repeat(np.arange(len(pairs)), repeats)
        within = np.arange(len(row)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        unit = firsts[target][row] + within
        guides = np.concatenate([np.empty(0, dtype=np.intp), *columns.values()])
        names = data.targets.guides[guides]
        return cls(
            tuple(names.tolist()),
            tuple(guides[i : i + 1] for i in range(len(guides))),
            unit,
            response[row],
            pairs.targets[row],
            names[unit],
        )

    @classmethod
    def of_groups(
        cls,
        pairs: Pairs,
        groups: Mapping[str, tuple[int, ...]],
        controls: Indices,
        data: GeneScreenData,
    ) -> "PairedUnits":
        """Return the units of groups of negative controls (places in ``controls``)."""
        return cls(
            tuple(groups),
            tuple(controls[list(group)] for group in groups.values()),
            _places(pairs.targets, np.array(list(groups), dtype=np.str_)),
            _places(pairs.responses, data.response_names),
            pairs.targets,
        )


@dataclass(frozen=True, eq=False)
class QualityOfPairs:
    """Cells with counts, and which pairs have enough.

    Attributes
    ----------
    treated : (cells, units) csc_array of int8
    n_treated, n_controls : (P,) arrays of int
        Treated cells and controls with counts.
    passing : (P,) array of bool
    """

    treated: csc_array
    n_treated: NDArray[np.int64]
    n_controls: NDArray[np.int64]
    passing: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class CellProblem:
    """Cells of an analysis with their genes, guides and covariates.

    Attributes
    ----------
    responses : (cells, genes) csc_array or StoredCounts
    guides : (cells, guides) csc_array of int8
    design : GeneDesign
    controls : array of int or None
        See `plait.crt.gene_problem.GeneProblem`.
    enough : PairQuality
    response_names : (genes,) array of str
    weights : (cells,) array or None
        How much cells count, of mean 1.
    """

    responses: GeneCounts
    guides: csc_array
    design: GeneDesign
    controls: Indices | None
    enough: PairQuality
    response_names: NDArray[np.str_]
    weights: Array | None = None

    def quality(self, units: PairedUnits) -> QualityOfPairs:
        """Return in how many cells pairs have counts, and whether these are enough."""
        lists = [union_obs_idx_from_cols(self.guides, columns) for columns in units.columns]
        treated = indicator_of_lists(lists, self.guides.shape[0])
        n_treated = nonzero_treated(self.responses, treated, units.response, units.unit)
        if self.controls is None:
            n_controls = self._n_nonzero(None)[units.response] - n_treated
        else:
            n_controls = self._n_nonzero(self.controls)[units.response]
        passing = (n_treated >= self.enough.min_treated) & (n_controls >= self.enough.min_controls)
        return QualityOfPairs(treated, n_treated, n_controls, passing)

    def gene_problem(self, units: PairedUnits, quality: QualityOfPairs) -> GeneProblem:
        """Return what pairs of genes and units are tested with."""
        return GeneProblem(
            self.responses,
            self.design.rows,
            quality.treated,
            units.names,
            self.controls,
            self.weights,
        )

    def digests(self) -> dict[str, str]:
        """Return fingerprints of counts, guides and covariates, for the record of a run."""
        return {
            "responses": fingerprint_of_counts(self.responses),
            "guides": fingerprint(self.guides.indices),
            "covariates": fingerprint(self.design.rows),
        }

    def _n_nonzero(self, cells: Indices | None) -> NDArray[np.int64]:
        """Return in how many of some cells each gene has counts."""
        is_chosen = np.zeros(self.responses.shape[0], dtype=np.int64)
        is_chosen[slice(None) if cells is None else cells] = 1
        found = np.zeros(self.responses.shape[1], dtype=np.int64)
        for genes, block in blocks_of_genes(self.responses):
            sums = np.concatenate([[0], np.cumsum(is_chosen[block.indices])])
            found[genes] = np.diff(sums[block.indptr])
        return found


@dataclass(frozen=True, eq=False)
class ScreenCells:
    """The cells of a screen that are used.

    Attributes
    ----------
    problem : CellProblem
        Of discovery and power check.
    data : GeneScreenData
    columns : (cells, columns) array
        Of the formula.
    names : tuple of str
    """

    problem: CellProblem
    data: GeneScreenData
    columns: Array
    names: tuple[str, ...]

    @classmethod
    def of(
        cls,
        data: GeneScreenData,
        assignment: GuideAssignment,
        quality: CellQuality,
        enough: PairQuality,
        parameters: ScreenParameters,
    ) -> "ScreenCells":
        """Return the cells that are used, with their design.

        Raises
        ------
        InputError
            Covariates of a formula that was given determine one another among these cells.
        """
        cells = quality.cells
        per_cell = assignment.guides_per_cell
        names, columns = design_columns(data, parameters.formula, per_cell)
        guides = csc_rows(assignment.cells, cells)
        controls = None
        if parameters.control_group == "nt_cells":
            is_control = data.targets.is_control
            controls = np.setdiff1d(
                union_obs_idx_from_cols(guides, np.flatnonzero(is_control)),
                union_obs_idx_from_cols(guides, np.flatnonzero(~is_control)),
            ).astype(np.intp)
        name, weights = parameters.weights, None
        if name is not None:
            weights = _scaled(data.covariates[name][cells])
        problem = CellProblem(
            rows_of(data.responses, cells),
            guides,
            GeneDesign.of(names, columns[cells], leave_out_determined=parameters.is_usual_formula),
            controls,
            enough,
            data.response_names,
            weights,
        )
        return cls(problem, data, columns[cells], names)

    def calibration_problem(self) -> CellProblem:
        """Return the cells of the calibration check: all, or those of non-targeting guides."""
        whole = self.problem
        cells = whole.controls
        if cells is None:
            return whole
        return CellProblem(
            rows_of(whole.responses, cells),
            csc_rows(whole.guides, cells),
            # Some levels of a category have no cell of a non-targeting guide.
            GeneDesign.of(self.names, self.columns[cells], leave_out_determined=True),
            None,
            whole.enough,
            whole.response_names,
            None if whole.weights is None else _scaled(whole.weights[cells]),
        )


def pairs_tested(
    analysis: str,
    problem: CellProblem,
    units: PairedUnits,
    parameters: ScreenParameters,
    force: Workforce,
    n_pairs: int | None = None,
    store: StoreOptions | None = None,
) -> GeneTestResult:
    """Test the pairs that can be, and return the table of all.

    Parameters
    ----------
    analysis : {"calibration", "power", "discovery"}
    problem : CellProblem
    units : PairedUnits
    parameters : ScreenParameters
    force : Workforce
    n_pairs : int, optional
        What the third stage of resamples is made for; default the pairs that are tested.
    store : StoreOptions, optional
        Where what is found goes block by block.

    Warns
    -----
    ConvergenceWarning
        Regressions of genes did not end within 25 steps.
    """
    started = time.perf_counter()
    quality = problem.quality(units)
    passing = np.flatnonzero(quality.passing)
    options = parameters.test_options(len(passing) if n_pairs is None else n_pairs)
    genes = problem.gene_problem(units, quality)
    response, unit = units.response[passing], units.unit[passing]
    provenance = Provenance(
        f"crt {analysis}",
        options=parameters.described(),
        seed=parameters.seed,
        inputs=problem.digests(),
        threads=force.workers * force.threads,
    )

    def assembled(found: dict[str, NDArray[Any]]) -> tuple[GeneTestResult, Indices]:
        failed = problem.response_names[response[~found.pop("converged")]]
        _warn_of_failures(failed, len(passing))
        columns = _columns(found, problem, units, quality, parameters)
        if analysis != "power":
            columns["q_value"] = adjusted(columns["p_value"], parameters.fdr)
            columns["significant"] = np.nan_to_num(columns["q_value"], nan=1.0) < parameters.level
        order = np.lexsort((columns["grna_target"], columns["response_id"], columns["log10_p"]))
        places = columns.pop("place")[order]
        result = GeneTestResult(
            **{name: values[order] for name, values in columns.items()},
            analysis=analysis,
            level=parameters.level,
            notes=parameters.notes,
            settings=parameters.described(),
            provenance=replace(provenance, seconds=time.perf_counter() - started),
        )
        return result, places

    if store is None:
        return assembled(pairs_found(genes, response, unit, options, force))[0]
    kept = options.stages.most if store.keep_draws else 0
    work = BlockOfPairs.of(genes, response, unit, options, force, kept)
    identity = {
        "what": f"crt {analysis}",
        "inputs": _identity(genes, problem, units),
        "options": parameters.described() | {"stages": asdict(options.stages), "kept": kept},
        "enough": asdict(problem.enough),
        "versions": {"plait": provenance.version, **provenance.libraries},
    }
    return stored_result(work, force, store, identity, assembled)


def _scaled(weights: Array) -> Array:
    return np.asarray(weights / weights.mean())


def _warn_of_failures(failed: NDArray[np.str_], n_pairs: int) -> None:
    if len(failed):
        warnings.warn(
            f"the regressions of {len(failed):,} of {counted(n_pairs, 'pair')} did not converge; "
            f"their genes: {listed(dict.fromkeys(failed.tolist()))}.",
            ConvergenceWarning,
            stacklevel=5,
        )


def _columns(
    found: dict[str, NDArray[Any]],
    problem: CellProblem,
    units: PairedUnits,
    quality: QualityOfPairs,
    parameters: ScreenParameters,
) -> dict[str, NDArray[Any]]:
    """Return the columns of the table of all pairs, and each one's place among those tested."""
    passing = np.flatnonzero(quality.passing)
    columns = {name: _spread(values, passing, len(units.unit)) for name, values in found.items()}
    with np.errstate(divide="ignore"):
        columns["log_2_fold_change"] = np.log2(columns["fold_change"])
    columns |= {
        "response_id": problem.response_names[units.response],
        "grna_target": units.targets,
        "n_nonzero_trt": quality.n_treated,
        "n_nonzero_cntrl": quality.n_controls,
        "pass_qc": quality.passing,
        "place": np.where(quality.passing, np.cumsum(quality.passing) - 1, -1),
    }
    if units.guides is not None:
        columns["grna_id"] = units.guides
        if parameters.strategy == "bonferroni":
            columns = _smallest_of_targets(columns)
    return columns


def adjusted(p_values: Array, method: str) -> Array:
    """Return false discovery rates, p-values times their number, or p-values as they are."""
    if method == "none":
        return np.array(p_values)
    if method == "bonferroni":
        return np.minimum(p_values * np.count_nonzero(~np.isnan(p_values)), 1.0)
    return false_discovery_rates(p_values, method)


def _smallest_of_targets(columns: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return each pair's guide with the smallest p-value, times the number of guides tested.

    Where none is tested, the guide with counts in the most treated cells.
    """
    keys = np.stack([columns["response_id"], columns["grna_target"]])
    _, first, group = np.unique(keys, axis=1, return_index=True, return_inverse=True)
    group = group.ravel()
    order = np.lexsort((-columns["n_nonzero_trt"], columns["log10_p"], group))
    chosen = order[np.searchsorted(group[order], np.arange(len(first)))]
    tested = np.bincount(group, columns["pass_qc"], minlength=len(first))
    kept = {name: values[chosen] for name, values in columns.items()}
    times = np.maximum(tested, 1.0)
    kept["p_value"] = np.minimum(kept["p_value"] * times, 1.0)
    kept["log10_p"] = np.minimum(kept["log10_p"] + np.log10(times), 0.0)
    return kept


def _spread(values: NDArray[Any], places: Indices, n: int) -> NDArray[Any]:
    """Return values at their places of n; elsewhere NaN, "none" or 0."""
    if values.dtype.kind == "U":
        whole: NDArray[Any] = np.full(n, "none", dtype=values.dtype)
    else:
        whole = np.full(n, np.nan) if values.dtype.kind == "f" else np.zeros(n, values.dtype)
    whole[places] = values
    return whole


def _places(names: NDArray[np.str_], known: NDArray[np.str_]) -> Indices:
    places = {name: i for i, name in enumerate(known.tolist())}
    return np.array([places[name] for name in names.tolist()], dtype=np.intp)


def _identity(genes: GeneProblem, problem: CellProblem, units: PairedUnits) -> dict[str, str]:
    """Return fingerprints of everything that the numbers of pairs depend on."""
    names = {"genes": problem.response_names, "units": np.array(units.names, dtype=np.str_)}
    arrays: dict[str, NDArray[Any]] = {
        **names,
        "pairs": np.stack([units.unit, units.response]),
        "treated cells": genes.treated.indices,
        "numbers of treated cells": genes.treated.indptr,
        "covariates": genes.design,
    }
    if genes.controls is not None:
        arrays["controls"] = genes.controls
    if genes.weights is not None:
        arrays["weights"] = genes.weights
    found = {name: fingerprint(values) for name, values in arrays.items()}
    return found | {"counts": fingerprint_of_counts(problem.responses)}
