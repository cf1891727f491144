"""The association scan: one regression for each variant and trait.

    trait = covariates + beta * copies of the effect allele + error

with independent errors (`plait.gwas.linear`), or errors of related samples (`plait.gwas.mixed`); of
cases and controls it is the log odds that follow covariates and alleles (`plait.gwas.binary`).
See `plait.gwas.design` for how covariates and traits are made ready.
"""

import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from plait.data.genotypes import GenotypeSource
from plait.data.phenotypes import AlignedSamples, SampleTable, align
from plait.errors import ModelWarning, OptionError
from plait.execution.blocks import Block, plan_blocks
from plait.execution.executors import Workforce, run_blocks, workforce
from plait.execution.progress import stage
from plait.gwas.binary import (
    BinaryScan,
    binary_traits,
    cases_and_controls,
    make_binary_designs,
)
from plait.gwas.design import Design, make_designs, residual_correlation
from plait.gwas.linear import TILE, Associations, GroupedScan, LinearScan
from plait.gwas.mixed import EXACT_BELOW, MixedScan, NullModel
from plait.gwas.quality import VariantFilter
from plait.gwas.relationship import relationship_matrix
from plait.gwas.results import VARIANT_COLUMNS, AssociationResult
from plait.provenance import Provenance

_log = logging.getLogger("plait.gwas")


_MODELS = ("linear", "mixed", "logistic")
_VALUES = ("beta", "se", "log10p", "n")
_Part_co = TypeVar("_Part_co", covariant=True)


def scan(
    genotypes: GenotypeSource,
    traits: SampleTable,
    covariates: SampleTable | None = None,
    *,
    model: str = "linear",
    loco: bool | None = None,
    missing_genotypes: str = "mean",
    transform: str = "none",
    variant_filter: VariantFilter | None = None,
    covariate_missing: str = "error",
    precision: str = "single",
    exact_below: float = EXACT_BELOW,
    executor: Any = None,
    memory: int | str | None = None,
    threads: int | None = None,
) -> AssociationResult:
    """Regress every trait on every variant, one variant at a time.

    Parameters
    ----------
    genotypes : GenotypeSource
    traits, covariates : SampleTable
        Matched to the genotypes by the names of samples. Covariates do not include the constant.
    model : {"linear", "mixed", "logistic"}
        "mixed" allows for the relationships of the samples, which it takes from the genotypes.
        "logistic" is for cases and controls, written 1 and 0, or 2 and 1; effects are logs of odds
        ratios, and small p-values hold with few cases and rare alleles too.
    loco : bool, optional
        Mixed: leave the chromosome of a variant out of the relationships, so that they do not take
        the variant's own effect away. Default yes, where there are two chromosomes or more.
    missing_genotypes : {"mean", "drop"}
        A missing genotype is the mean of its variant, or (linear) its sample is left out of the
        regression of that variant, exactly, without fitting anew.
    transform : {"none", "rank"}
        "rank": traits are replaced by the normal scores of their ranks.
    variant_filter : VariantFilter, optional
        Which variants are tested; counted among the samples of each trait.
    covariate_missing : {"error", "drop"}
    precision : {"single", "double"}
        Linear, logistic: of the products with genotypes. Single: t within 1e-4 max(1, |t|), redone
        in double where that would not hold.
    exact_below : float
        Mixed: p-value from which the variance share is estimated again beside the variant.
    executor, memory, threads
        As everywhere in plait; they never change the numbers.

    Returns
    -------
    AssociationResult

    Raises
    ------
    LabelError
        No sample has genotypes, traits and covariates.
    InputError
        Logistic: a trait is not of cases and controls, or covariates separate them.
    MissingCovariateError, TooFewSamplesError, ConstantTraitError
        See `plait.data.phenotypes.align` and `plait.gwas.design.make_designs`.
    CapacityError
        Mixed: the relationships do not fit in memory.

    Notes
    -----
    Cost, for each pattern of missing traits: linear 2 N M (p + T) flops and N M / 4 bytes read;
    logistic 2 N M T (p + 2) flops; mixed N^2 M for the relationships, about 10 N^3 for each
    chromosome, and 2 N^2 M for rotating the genotypes. Traits measured on the same samples share
    everything.
    """
    started = time.perf_counter()
    _check_options(model, missing_genotypes, transform)
    traits = _checked_traits(model, traits)
    samples = align(genotypes.samples, traits, covariates, covariate_missing=covariate_missing)
    _log.info("samples: %s", ", ".join(f"{name} {n:,}" for name, n in samples.counts.items()))
    rules = VariantFilter() if variant_filter is None else variant_filter
    force = workforce(executor, memory, threads)
    if model == "logistic":
        found = _logistic(genotypes, samples, precision, rules, force)
    else:
        designs = make_designs(samples.traits, samples.covariates, samples.rows, transform)
        if model == "linear":
            count = len(samples.traits.names)
            work = LinearScan(genotypes, designs, count, missing_genotypes, precision, rules)
            found = _grouped(work, designs, [design.traits for design in designs], force)
        else:
            found = _mixed(genotypes, designs, rules, loco, exact_below, force, memory)
    return AssociationResult(
        **found.values,
        **variant_columns(genotypes),
        traits=samples.traits.names,
        filtered={name: count for name, count in found.filtered.items() if count},
        provenance=Provenance(
            "gwas scan",
            options={
                "model": model,
                "loco": loco,
                "missing_genotypes": missing_genotypes,
                "transform": transform,
                "covariates": [] if samples.covariates is None else samples.covariates.names,
                "min_call_rate": rules.min_call_rate,
                "min_minor_count": rules.min_minor_count,
                "min_frequency": rules.min_frequency,
                "precision": precision,
                "exact_below": exact_below,
                **samples.counts,
            },
            seconds=time.perf_counter() - started,
            threads=force.workers * force.threads,
        ),
    )


@dataclass(frozen=True, eq=False)
class _Found:
    """Arrays of all variants, filled block by block."""

    values: dict[str, NDArray[Any]]
    filtered: dict[str, int]

    @classmethod
    def empty(cls, n_variants: int, n_traits: int) -> "_Found":
        values: dict[str, NDArray[Any]] = {
            name: np.full((n_variants, n_traits), np.nan) for name in _VALUES[:3]
        }
        values["n"] = np.zeros((n_variants, n_traits), dtype=np.int64)
        values["frequency"] = np.full(n_variants, np.nan)
        return cls(values, {})

    def put(self, rows: slice, columns: Any, part: Associations) -> None:
        for name in _VALUES:
            self.values[name][rows, columns] = getattr(part, name)
        for name, count in part.filtered.items():
            self.filtered[name] = self.filtered.get(name, 0) + count


def _check_options(model: str, missing_genotypes: str, transform: str) -> None:
    if model not in _MODELS:
        raise OptionError(f"model is {model!r}; give 'linear', 'mixed' or 'logistic'.")
    if model != "linear" and missing_genotypes != "mean":
        raise OptionError(f"the {model} model takes missing_genotypes='mean' only.")
    if model == "logistic" and transform != "none":
        raise OptionError("the logistic model takes traits as they are, transform='none'.")


def _checked_traits(model: str, traits: SampleTable) -> SampleTable:
    """Return the traits as the model takes them."""
    if model == "logistic":
        return cases_and_controls(traits)
    binary = binary_traits(traits)
    if binary:
        _log.info(
            "%d of %d traits are of cases and controls (first: %s); their effects are differences "
            "of risk. model='logistic' estimates odds ratios, and is safe with few cases.",
            len(binary),
            len(traits.names),
            binary[0],
        )
    return traits


def _grouped(
    work: GroupedScan, designs: list[Design], residuals: Sequence[NDArray[Any]], force: Workforce
) -> _Found:
    """Scan all designs in one pass over the genotypes."""
    n_variants = work.source.n_variants
    found = _Found.empty(n_variants, work.n_traits)
    with stage("scan", n_variants) as advance:
        for block, part in scan_blocks(work, work.source, slice(0, n_variants), force):
            found.put(block.rows, slice(None), part)
            found.values["frequency"][block.rows] = part.frequency
            advance(len(block))
    found.values["V0"] = residual_correlation(designs, residuals, work.n_traits)
    return found


def _logistic(
    genotypes: GenotypeSource,
    samples: AlignedSamples,
    precision: str,
    rules: VariantFilter,
    force: Workforce,
) -> _Found:
    nulls = make_binary_designs(samples.traits, samples.covariates, samples.rows)
    n_traits = len(samples.traits.names)
    work = BinaryScan(genotypes, nulls, n_traits, precision, rules)
    residuals = [null.unit_residuals for null in nulls]
    found = _grouped(work, [null.design for null in nulls], residuals, force)
    found.values["n_cases"] = np.empty(n_traits, dtype=np.int64)
    for null in nulls:
        found.values["n_cases"][null.design.columns] = null.n_cases
    return found


def _mixed(
    genotypes: GenotypeSource,
    designs: list[Design],
    rules: VariantFilter,
    loco: bool | None,
    exact_below: float,
    force: Workforce,
    memory: int | str | None,
) -> _Found:
    """Scan design by design, and there chromosome by chromosome when it is left out."""
    n_traits = sum(len(design.columns) for design in designs)
    found = _Found.empty(genotypes.n_variants, n_traits)
    h2, h2_se, residuals = np.empty(n_traits), np.empty(n_traits), []
    runs = genotypes.variants.chromosomes
    names = {name for name, _ in runs}
    loco = len(names) > 1 if loco is None else loco
    if loco and len(names) < 2:
        warnings.warn(
            "there is one chromosome only, and without it there are no relationships: all variants "
            "count towards them.",
            ModelWarning,
            stacklevel=3,
        )
        loco = False
    for design in designs:
        relationships = relationship_matrix(
            genotypes, samples=design.rows, by_chromosome=loco, memory=memory, threads=force.workers
        )
        everything = NullModel.of(design, relationships.matrix())
        h2[design.columns], h2_se[design.columns] = everything.fit.h2, everything.fit.se
        residuals.append(everything.whitened_residuals())
        nulls: dict[str, NullModel] = {}
        with stage("scan", genotypes.n_variants) as advance:
            for name, run in runs if loco else [("", slice(0, genotypes.n_variants))]:
                if loco and name not in nulls:
                    nulls = {name: NullModel.of(design, relationships.matrix(without=name))}
                null = nulls[name] if loco else everything
                work = MixedScan(genotypes, design, null, rules, exact_below)
                for block, part in scan_blocks(work, genotypes, run, force):
                    found.put(block.rows, design.columns, part)
                    advance(len(block))
    found.values["frequency"][:] = genotypes.counts().frequency
    found.values.update(h2=h2, h2_se=h2_se)
    found.values["V0"] = residual_correlation(designs, residuals, n_traits)
    return found


class _Work(Protocol[_Part_co]):
    """What scans consecutive variants."""

    def run(self, rows: slice) -> _Part_co: ...


def scan_blocks(
    work: _Work[_Part_co], genotypes: GenotypeSource, run: slice, force: Workforce
) -> Iterator[tuple[Block, _Part_co]]:
    """Scan consecutive variants, block by block."""
    unit = max(genotypes.block_size() // TILE, 1) * TILE
    blocks = [
        Block(run.start + block.start, run.start + block.stop)
        for block in plan_blocks(run.stop - run.start, unit)
    ]
    yield from run_blocks(_ScanBlock(work), blocks, force, "scan")


class _ScanBlock(Generic[_Part_co]):
    """Scans one block of variants."""

    def __init__(self, work: _Work[_Part_co]) -> None:
        self.work = work

    def __call__(self, block: Block) -> _Part_co:
        return self.work.run(block.rows)


def variant_columns(genotypes: GenotypeSource) -> dict[str, Any]:
    """Return the columns of the variants that results carry."""
    table = genotypes.variants.frame
    return {name: _column(table[name]) for name in VARIANT_COLUMNS}


def _column(series: Any) -> Any:
    if series.dtype.is_numeric():
        return series.to_numpy()
    return np.array(series.to_list(), dtype=np.str_)
