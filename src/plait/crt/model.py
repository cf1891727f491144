"""Test every perturbation of a screen on every program by conditional randomization.

Under the null a cell's treatment is independent of its programs given its covariates, so the
statistic is compared with what it is when treatments are drawn anew from their distribution given
the covariates (Candes et al. 2018). P-values come from such draws, or in closed form as if there
were infinitely many (`plait.crt.analytic`).
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from plait.crt.data import CRTInputs, require_inputs
from plait.crt.guides import as_names
from plait.crt.logistic import TILE, WIDTH
from plait.crt.options import CRTOptions, RankOptions, refuse_idle
from plait.crt.propensity import (
    PropensityModel,
    fit_propensity_logistic,
    propensity_blocks,
    units_per_block,
)
from plait.crt.results import CRTResult
from plait.crt.statistic import residual_correlation
from plait.crt.strata import (
    StrataOptions,
    first_appearance_codes,
    numeric_burden,
    stratification_values,
)
from plait.crt.unit_tests import UnitTester
from plait.data.labels import require_distinct
from plait.errors import InputError, LabelError, OptionError
from plait.execution.blocks import Block, plan_blocks, workers_that_fit
from plait.execution.executors import Workforce, run_blocks, workforce
from plait.execution.progress import stage
from plait.execution.stored_output import StoredOutput, filled_store, write_region
from plait.execution.threads import beside, single_threaded_blas, use_threads
from plait.io.stored_arrays import Layout
from plait.numerics.multiple_testing import false_discovery_rates
from plait.provenance import Provenance, fingerprint

NEGATIVE_CONTROLS = ("NTC", "SAFE", "non-targeting", "safe-targeting")
"""Targets that are taken for negative controls where they occur."""
_SCOPES = ("all", "per_program", "per_unit", "per_gene")
"""The last two are the same."""
_COPIES = 5
"""Arrays of the size of a block's propensities that are alive while it is worked on (measured)."""
_MOST_BLOCKS = 64
"""A screen is cut into about as many blocks, and at least `WIDTH` units fit together."""


def perturbation_effects(
    inputs: CRTInputs,
    units: Iterable[str] | None = None,
    *,
    method: str = "analytic",
    statistic: str = "ols",
    sampler: str = "bernoulli",
    side: str = "both",
    resamples: int | None = None,
    exceedances: int | None = None,
    max_resamples: int | None = None,
    bulk_above: float | None = None,
    propensity_model: PropensityModel = fit_propensity_logistic,
    strata: Mapping[str, Any] | None = None,
    ranks: Mapping[str, Any] | None = None,
    exclude: Iterable[str] = (),
    negative_controls: Iterable[str] = NEGATIVE_CONTROLS,
    fdr: str | None = "BH",
    fdr_scope: str = "all",
    seed: int = 123,
    device: str = "cpu",
    threads: int | None = None,
    executor: Any = None,
    memory: int | str | None = None,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> CRTResult:
    """Test what every perturbation does to every program.

    Parameters
    ----------
    inputs : CRTInputs
        From `prepare_crt_inputs`.
    units : iterable of str, optional
        The targets to test, in this order. Default all, sorted.
    method : {"analytic", "empirical", "skew-normal", "adaptive"}
        The p-value: of infinitely many resamples; counted in ``resamples``; by a skew-normal
        fitted to them; or counted in as many as it takes.
    statistic : {"ols", "utest"}
        The effect given the covariates, or the rank-biserial correlation, which is not adjusted
        for them unless residuals are ranked (``ranks``).
    sampler : {"bernoulli", "stratified"}
        Treat each cell by its propensity, or permute treatment within strata of like propensity
        (and batch, and burden).
    side : {"both", "left", "right"}
        Resamples whose statistic is as large in absolute value, as low, or as high, count. "both"
        of a skew-normal is twice its smaller tail.
    resamples : int, optional
        For "empirical" and "skew-normal" (1023).
    exceedances, max_resamples : int, optional
        For "adaptive", and for "analytic" where it draws: a p-value is drawn until so many
        resamples are as extreme (20), or there are so many of them (a million).
    bulk_above : float, optional
        For "analytic": larger p-values are left to four cumulants (0.02).
    propensity_model : callable, "const", (cells, units) array or DataFrame
        Default: penalised logistic regression on the covariates. See
        `plait.crt.propensity.propensity_blocks`. An array has a column for each of
        ``inputs.units``, in that order, whichever are tested; the columns of a DataFrame are found
        by the names of units.
    strata : mapping, optional
        Options of stratified sampling: `plait.crt.strata.StrataOptions`.
    ranks : mapping, optional
        Options of the U statistic: ``use``, ``rank_method``, ``rank_dtype``. By default log-ratios
        are ranked, as programDE does. Where treatment goes with covariates, resamples then have a
        mean, and a two-sided test does not see effects against it; ``{"use": "residual"}`` does.
    exclude : iterable of str
        Targets that are not tested.
    negative_controls : iterable of str
        Targets that are negative controls, where they occur; they are tested and take no part in
        false discovery rates.
    fdr : {"BH", "BY", "storey", None}
        See `plait.numerics.multiple_testing.false_discovery_rates`.
    fdr_scope : {"all", "per_program", "per_unit"}
        What one family of tests is; "per_gene" is another name of the last.
    seed : int
        Random numbers depend on it and on the name of a unit alone.
    device : {"cpu", "cuda", "auto"}
        Where the effects of Bernoulli draws are computed, of ``method`` "empirical" and
        "skew-normal"; a GPU draws others than the CPU, of the same law.
    threads : int, optional
        Default all cores.
    executor : concurrent.futures.Executor or dask.distributed.Client, optional
        Who works on blocks of units; default ``threads`` of this process.
    memory : int or str, optional
        Bytes for blocks under way, beside what all share (notes); default half of what is free.
    out : str or path, optional
        A store to write block by block. The same call after an interruption goes on from there.
    overwrite : bool
        Whether a store that exists is replaced.

    Returns
    -------
    CRTResult
        The same bits for any threads, executor, order, and other units.

    Raises
    ------
    OptionError
        An option is unknown, out of range, contradicts another or does nothing beside it.
    LabelError
        A target has no guide, or occurs twice (also a KeyError).
    InputError
        Propensities or strata cannot be made; see `plait.crt.propensity` and `plait.crt.strata`.
    CapacityError, OutputError
        See `plait.execution`.

    Notes
    -----
    Time for each unit: propensities O(N p^2), analytic p-values O(N (K + p)), resamples O(B n_1 (K
    + p)), n_1 being its treated cells. Memory 4 N (K + p) bytes for all and 16 N bytes for a unit
    of a block.
    """
    options = options_of(
        statistic=statistic,
        sampler=sampler,
        method=method,
        side=side,
        resamples=resamples,
        exceedances=exceedances,
        max_resamples=max_resamples,
        bulk_above=bulk_above,
        propensity_model=propensity_model,
        strata=strata,
        ranks=ranks,
        seed=seed,
        device=device,
    )
    names = chosen_units(inputs, units, exclude)
    controls = as_names(negative_controls)
    rates = Rates(fdr, fdr_scope, tuple(name for name in names if name in controls))
    force = workforce(executor, memory, threads)
    return run_tests(inputs, names, options, rates, force, out, overwrite)


def options_of(
    strata: Mapping[str, Any] | None = None,
    ranks: Mapping[str, Any] | None = None,
    *,
    resamples: int | None = None,
    exceedances: int | None = None,
    max_resamples: int | None = None,
    bulk_above: float | None = None,
    **options: Any,
) -> CRTOptions:
    """Return the options of `perturbation_effects` that say how a perturbation is tested.

    Raises
    ------
    OptionError
        One is unknown, out of range, or does nothing beside the others.
    """
    numbers: dict[str, Any] = {
        "resamples": resamples,
        "exceedances": exceedances,
        "max_resamples": max_resamples,
        "bulk_above": bulk_above,
    }
    chosen = CRTOptions(
        strata=StrataOptions.from_mapping(strata),
        ranks=RankOptions.from_mapping(ranks),
        **{name: value for name, value in numbers.items() if value is not None},
        **options,
    )
    refuse_idle("strata", strata, chosen.sampler == "stratified", "sampler='stratified'")
    refuse_idle("ranks", ranks, chosen.statistic == "utest", "statistic='utest'")
    counted, drawn = "method 'empirical' or 'skew-normal'", "method 'analytic' or 'adaptive'"
    refuse_idle("resamples", resamples, chosen.is_resampled, counted)
    refuse_idle("exceedances", exceedances, not chosen.is_resampled, drawn)
    refuse_idle("max_resamples", max_resamples, not chosen.is_resampled, drawn)
    refuse_idle("bulk_above", bulk_above, chosen.method == "analytic", "method 'analytic'")
    return chosen


def run_tests(
    inputs: CRTInputs,
    names: tuple[str, ...],
    options: CRTOptions,
    rates: "Rates",
    force: Workforce,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> CRTResult:
    """Test targets on every program; for what is returned see `perturbation_effects`."""
    # BLAS is limited once: to look for its libraries again takes longer than some parts.
    with use_threads(force.workers), single_threaded_blas(), beside(force.workers) as start:
        return _run_tests(inputs, names, options, rates, force, start, out, overwrite)


def _run_tests(
    inputs: CRTInputs,
    names: tuple[str, ...],
    options: CRTOptions,
    rates: "Rates",
    force: Workforce,
    start: Callable[[Callable[[], Any]], Callable[[], Any]],
    out: str | os.PathLike[str] | None,
    overwrite: bool,
) -> CRTResult:
    started = time.perf_counter()
    about = options.described() | {
        "fdr": rates.method,
        "fdr_scope": rates.scope,
        "eps": inputs.eps,
        "cells": inputs.n_cells,
        "numbers_as_categories": ", ".join(inputs.numbers_as_categories) or None,
    }
    digests = start(partial(digests_of, inputs, options))
    correlation = start(partial(correlation_of, inputs, options))
    provenance = Provenance(
        "crt run", options=about, seed=options.seed, threads=force.workers * force.threads
    )
    work, force = BlockOfTests.of(inputs, options, names).fitting(force)

    def result_of(found: dict[str, NDArray[Any]]) -> CRTResult:
        told = replace(provenance, inputs=digests(), seconds=time.perf_counter() - started)
        return assembled(found, work, rates, about, told, correlation())

    if out is None:
        return result_of(work.in_memory(force))
    identity = {
        "what": "crt",
        "inputs": digests() | _digest_of_model(inputs, options.propensity_model),
        "options": about,
        "seed": options.seed,
        "units": names,
        "versions": {"plait": provenance.version, **provenance.libraries},
    }
    with filled_store(
        out,
        work.layouts(),
        identity,
        n_items=len(names),
        unit=work.unit,
        items="perturbations",
        force=force,
        overwrite=overwrite,
    ) as output:
        work.into(output, force)
        output.complete(
            result_of({name: np.asarray(output.stored(name)) for name in output.arrays})
        )
    return CRTResult.load(out)


def units_of_block(n_units: int) -> int:
    """Return how many units of a screen are a block: `WIDTH`, or in long screens a multiple."""
    return WIDTH * max(1, -(-n_units // (WIDTH * _MOST_BLOCKS)))


def units_of_stored_block(n_units: int) -> int:
    """Return how many units of a screen are a block of its store, whoever works on it.

    Of short screens somewhat fewer than `units_of_block`, so that there are an even number of
    blocks: two workers end together.
    """
    most = units_of_block(n_units)
    return most if most > WIDTH else -(-n_units // (2 * -(-n_units // (2 * most))))


@dataclass(frozen=True, eq=False)
class BlockOfTests:
    """Tests a block of units; what they share goes with it.

    Attributes
    ----------
    tester : UnitTester
    names : tuple of str
    treated : (cells, units) csc_array
    at_once : int
        Units whose propensities are held together, at most `units_per_block`; never changes the
        numbers.
    """

    tester: UnitTester
    names: tuple[str, ...]
    treated: csc_array
    at_once: int = WIDTH

    def __post_init__(self) -> None:
        self.tester.require_propensities(self.names)

    @classmethod
    def of(cls, inputs: CRTInputs, options: CRTOptions, names: Sequence[str]) -> "BlockOfTests":
        """Return the test of targets by name."""
        return cls(UnitTester(inputs, options), tuple(names), inputs.treated_matrix(names))

    @property
    def unit(self) -> int:
        """How many units a block of a store has, whoever works on it."""
        return units_of_stored_block(len(self.names))

    def __call__(self, block: Block) -> dict[str, NDArray[Any]]:
        """Return what is found of the units of a block."""
        parts = []
        for start in range(block.start, block.stop, self.at_once):
            few = slice(start, min(start + self.at_once, block.stop))
            treated = self.treated[:, few]
            parts.append(
                self.tester.test(self.names[few], treated, self.propensities(few, treated))
            )
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def propensities(self, units: slice, treated: csc_array) -> NDArray[np.float64]:
        """Return the (cells, units) propensities of at most `at_once` units."""
        names = self.names[units]
        model = self.tester.propensity_model_of(names)
        ((_, found),) = propensity_blocks(model, self.tester.covariates, treated, names)
        return found

    def _balanced(self, workers: int) -> list[Block]:
        """Cut the units into rounds, in each of which all workers have blocks of like size.

        Blocks have a multiple of `TILE` units, as fewer take as long to fit; those of the
        last round are half as large: workers that come to it at different times end together.
        """
        count = len(self.names)
        rounds = -(-count // (max(units_of_block(count), self.at_once) * workers))
        tiles = -(-count // (TILE * workers))
        ends = [min(TILE * workers * (tiles * i // rounds), count) for i in range(rounds + 1)]
        halves = 2 if workers > 1 and ends[-1] - ends[-2] >= 2 * TILE * workers else 1
        edges = [
            start + (stop - start) * i // blocks
            for start, stop in pairwise(ends)
            for blocks in [workers * (halves if stop == count else 1)]
            for i in range(blocks)
        ]
        return [Block(start, stop) for start, stop in pairwise([*edges, count]) if start < stop]

    def fitting(self, force: Workforce) -> tuple["BlockOfTests", Workforce]:
        """Return as many workers of this process as have room for a block, at least one.

        Each takes `units_per_block` units at once, and fewer where there is no room for them.
        """
        if force.executor is not None:
            return self, force
        n_cells = self.tester.inputs.n_cells
        of_unit = 8 * n_cells * _COPIES
        room = max(force.memory // of_unit, 1)
        each = min(room // force.workers, units_per_block(n_cells))
        at_once = min(room, max(each, WIDTH))
        size = (at_once, of_unit, force.memory)
        workers = workers_that_fit(*size, force.workers, len(self.names))
        return replace(self, at_once=at_once), replace(force, workers=workers)

    def in_memory(
        self, force: Workforce, label: str | None = "perturbations"
    ) -> dict[str, NDArray[Any]]:
        """Test all units; ``label`` is what the progress calls them."""
        blocks = self._balanced(force.workers)
        parts = []
        with stage(label, len(self.names)) as advance:
            for block, part in run_blocks(self, blocks, force, "crt"):
                parts.append(part)
                advance(len(block))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def into(self, output: StoredOutput, force: Workforce) -> None:
        """Test the units that a store lacks, and write them to it."""
        writer = _WriteBlock(self, output.target)
        with stage("perturbations", len(self.names)) as advance:
            if done := sum(len(block) for block in output.finished):
                advance(done, note=f"resumed after {done:,}")
            left = plan_blocks(len(self.names), self.unit, output.finished)
            for block, digest in run_blocks(writer, left, force, "crt"):
                output.record(block, digest)
                advance(len(block))

    def layouts(self) -> dict[str, Layout]:
        """Return how a store holds what is found."""
        sizes = {
            "units": len(self.names),
            "programs": self.tester.inputs.n_programs,
            "parameters": 3,
        }
        return {
            name: Layout(CRTResult.dims[name], tuple(sizes[d] for d in CRTResult.dims[name]), dtype)
            for name, dtype in self.tester.found_types().items()
        }


@dataclass(frozen=True, eq=False)
class _WriteBlock:
    """Tests a block of units and writes it to its region of the store."""

    work: BlockOfTests
    target: str

    def __call__(self, block: Block) -> str:
        return write_region(self.target, block.rows, self.work(block))


@dataclass(frozen=True)
class Rates:
    """Which false discovery rates are wanted."""

    method: str | None
    scope: str
    controls: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.scope not in _SCOPES:
            raise OptionError(f"fdr_scope is {self.scope!r}; give one of {', '.join(_SCOPES)}.")
        if self.scope == "per_gene":
            object.__setattr__(self, "scope", "per_unit")
        if self.method is not None:
            false_discovery_rates([1.0], self.method)  # says what is wrong before hours of work

    def of(
        self, p: NDArray[np.float64], status: NDArray[np.str_], names: Sequence[str]
    ) -> NDArray[np.float64] | None:
        """Return the rates of tested units that are no controls; NaN elsewhere."""
        if self.method is None:
            return None
        is_counted = (status == "ok") & ~np.isin(np.asarray(names), self.controls)
        counted = np.where(is_counted[:, None], p, np.nan)
        if self.scope == "all":
            return false_discovery_rates(counted, self.method)
        rates = np.empty(p.shape)
        for i in range(p.shape[1] if self.scope == "per_program" else p.shape[0]):
            family = (slice(None), i) if self.scope == "per_program" else (i, slice(None))
            rates[family] = false_discovery_rates(counted[family], self.method)
        return rates


def correlation_of(inputs: CRTInputs, options: CRTOptions) -> NDArray[np.float64] | None:
    """Return the correlation of residuals between programs, where effects have errors."""
    return residual_correlation(inputs.residuals, 1) if options.statistic == "ols" else None


def assembled(
    found: dict[str, NDArray[Any]],
    work: BlockOfTests,
    rates: Rates,
    about: dict[str, Any],
    provenance: Provenance | None,
    correlation: NDArray[np.float64] | None,
) -> CRTResult:
    """Return what was found of all units as a result; for the last see `correlation_of`."""
    inputs = work.tester.inputs
    return CRTResult(
        **found,
        q=rates.of(found["p"], found["status"], work.names),
        residual_correlation=correlation,
        units=work.names,
        programs=inputs.program_names,
        negative_controls=rates.controls,
        settings=about,
        provenance=provenance,
    )


def chosen_units(
    inputs: CRTInputs, units: Iterable[str] | None, exclude: Iterable[str]
) -> tuple[str, ...]:
    """Return the targets to test, in their order.

    Raises
    ------
    LabelError
        One occurs twice, or one to leave out is none.
    InputError
        None is left.
    """
    require_inputs(inputs)
    left_out = set(as_names(exclude))
    if unknown := sorted(left_out - set(inputs.units)):
        raise LabelError(f"no guide targets {unknown[0]!r}, which was to be left out.")
    names = inputs.units if units is None else as_names(units)
    require_distinct("target", names)
    chosen = tuple(name for name in names if name not in left_out)
    if not chosen:
        raise InputError("there is no target to test.")
    return chosen


def _digest_of_model(inputs: CRTInputs, model: PropensityModel) -> dict[str, str]:
    """Return the fingerprint of what a function of one's own makes of one target.

    Functions of one name may differ, and an interrupted run must go on with the same.
    """
    if not callable(model) or model is fit_propensity_logistic:
        return {}
    for name in inputs.units:
        if 0 < len(inputs.treated(name)) < inputs.n_cells:
            treated = inputs.treated_matrix([name])
            _, made = next(iter(propensity_blocks(model, inputs.C, treated, (name,))))
            return {"propensities": fingerprint(made)}
    return {}


def digests_of(inputs: CRTInputs, options: CRTOptions) -> dict[str, str]:
    """Return fingerprints of everything that the numbers depend on."""
    guides = np.concatenate([inputs.G.indptr, inputs.G.indices])
    parts = {
        "usage": fingerprint(inputs.usage),
        "covariates": fingerprint(inputs.C),
        "guides": fingerprint(guides),
        "targets": fingerprint(np.array(sorted(inputs.guide2gene.items()), dtype=np.str_)),
    }
    if options.sampler == "stratified":
        batch, burden = stratification_values(
            options.strata, inputs.covar_df_raw, inputs.batch_raw, inputs.batch_key
        )
        if batch is not None:  # its names change nothing
            parts["batch"] = fingerprint(first_appearance_codes(batch))
        if burden is not None:
            parts["burden"] = fingerprint(numeric_burden(burden, options.strata.burden_key))
    return parts
