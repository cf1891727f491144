"""The association scan: one regression per variant and trait, all in one pass over the genotypes.

    trait = covariates + beta * copies of the effect allele + error

See `plait.gwas.linear` for how it is computed and `plait.gwas.design` for covariates and traits.
"""

import logging
import time
from typing import Any

import numpy as np

from plait.data.genotypes import GenotypeSource
from plait.data.phenotypes import SampleTable, align
from plait.errors import OptionError
from plait.execution.blocks import Block, plan_blocks
from plait.execution.executors import run_blocks, workforce
from plait.execution.progress import stage
from plait.gwas.design import make_designs, residual_correlation
from plait.gwas.linear import TILE, Associations, LinearScan
from plait.gwas.quality import VariantFilter
from plait.gwas.results import VARIANT_COLUMNS, AssociationResult
from plait.provenance import Provenance

_log = logging.getLogger("plait.gwas")


def scan(
    genotypes: GenotypeSource,
    traits: SampleTable,
    covariates: SampleTable | None = None,
    *,
    model: str = "linear",
    missing_genotypes: str = "mean",
    transform: str = "none",
    variant_filter: VariantFilter | None = None,
    covariate_missing: str = "error",
    precision: str = "single",
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
    model : {"linear"}
    missing_genotypes : {"mean", "drop"}
        A missing genotype is the mean of its variant, or its sample is left out of the regression
        of that variant (exactly, without fitting anew).
    transform : {"none", "rank"}
        "rank": traits are replaced by the normal scores of their ranks.
    variant_filter : VariantFilter, optional
        Which variants are tested; counted among the samples of each trait.
    covariate_missing : {"error", "drop"}
    precision : {"single", "double"}
        Of the products with genotypes. Single: t within 1e-4 max(1, |t|), redone in double where
        that would not hold.
    executor, memory, threads
        As everywhere in plait; they never change the numbers.

    Returns
    -------
    AssociationResult

    Raises
    ------
    LabelError
        No sample has genotypes, traits and covariates.
    MissingCovariateError, TooFewSamplesError, ConstantTraitError
        See `plait.data.phenotypes.align` and `plait.gwas.design.make_designs`.

    Notes
    -----
    Cost: 2 N M (p + T) flops and N M / 4 bytes read, for each pattern of missing traits. Traits
    measured on the same samples share everything.
    """
    started = time.perf_counter()
    if model != "linear":
        raise OptionError(f"model is {model!r}; give 'linear'.")
    samples = align(genotypes.samples, traits, covariates, covariate_missing=covariate_missing)
    _log.info("samples: %s", ", ".join(f"{name} {n:,}" for name, n in samples.counts.items()))
    designs = make_designs(samples.traits, samples.covariates, samples.rows, transform)
    rules = VariantFilter() if variant_filter is None else variant_filter
    names = samples.traits.names
    work = LinearScan(genotypes, designs, len(names), missing_genotypes, precision, rules)
    force = workforce(executor, memory, threads)
    unit = max(genotypes.block_size() // TILE, 1) * TILE
    blocks = plan_blocks(genotypes.n_variants, unit)
    parts: list[Associations] = []
    with stage("scan", genotypes.n_variants) as advance:
        for block, part in run_blocks(_ScanBlock(work), blocks, force, "scan"):
            parts.append(part)
            advance(len(block))
    table = genotypes.variants.frame
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("beta", "se", "log10p", "n", "frequency")
    }
    return AssociationResult(
        **joined,
        **{name: _column(table[name]) for name in VARIANT_COLUMNS},
        traits=names,
        V0=residual_correlation(designs, len(names)),
        filtered=_added(parts),
        provenance=Provenance(
            "gwas scan",
            options={
                "model": model,
                "missing_genotypes": missing_genotypes,
                "transform": transform,
                "covariates": [] if samples.covariates is None else samples.covariates.names,
                "min_call_rate": rules.min_call_rate,
                "min_minor_count": rules.min_minor_count,
                "min_frequency": rules.min_frequency,
                "precision": precision,
                **samples.counts,
            },
            seconds=time.perf_counter() - started,
            threads=force.workers * force.threads,
        ),
    )


class _ScanBlock:
    """Scans one block of variants."""

    def __init__(self, work: LinearScan) -> None:
        self.work = work

    def __call__(self, block: Block) -> Associations:
        return self.work.run(block.rows)


def _column(series: Any) -> Any:
    if series.dtype.is_numeric():
        return series.to_numpy()
    return np.array(series.to_list(), dtype=np.str_)


def _added(parts: list[Associations]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for name, count in part.filtered.items():
            total[name] = total.get(name, 0) + count
    return {name: count for name, count in total.items() if count}
