"""The scan of interactions: whether the effect of a variant depends on an environment.

    trait = covariates + E + a g + b (g E) + error

E is any measured quantity: a temperature, a treatment of 0 and 1, sex, age. ``b`` is how much the
effect of one copy changes with one unit of E, and ``a`` the effect where E is 0; from both, with
their covariance, follows the effect in any environment. Covariates that matter in interaction (age,
when E is a treatment that the old get) are the caller's to add, as columns multiplied by E.

Where the variance of the trait changes with E, or its mean does so on no straight line, the
ordinary test of b finds too much; ``robust=True`` uses errors that hold then, too (HC3).
"""

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plait.data.fingerprints import study_fingerprints
from plait.data.genotype_blocks import TILE
from plait.data.genotypes import GenotypeSource
from plait.data.phenotypes import AlignedSamples, SampleTable, align
from plait.data.sample_names import no_overlap
from plait.errors import InputError, LabelError, OptionError, TooFewSamplesError
from plait.execution.executors import refuse_forks, workforce
from plait.gwas.design import make_designs
from plait.gwas.inputs import open_study, opened_covariates
from plait.gwas.interaction_results import InteractionResult
from plait.gwas.interaction_scan import InteractionScan
from plait.gwas.model import variant_columns
from plait.gwas.passes import SinglePass, scan_in_memory
from plait.gwas.quality import VariantFilter
from plait.gwas.stored_scan import scan_to_store
from plait.provenance import Provenance, fingerprint

if TYPE_CHECKING:
    from plait.gwas.inputs import GenotypesLike, TableLike

Array = NDArray[np.float64]


def scan_interaction(
    genotypes: "GenotypesLike",
    traits: "TableLike",
    environment: "TableLike",
    covariates: "TableLike | None" = None,
    *,
    robust: bool = False,
    transform: str = "none",
    variant_filter: VariantFilter | None = None,
    covariate_missing: str = "error",
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    executor: Any = None,
    memory: int | str | None = None,
    threads: int | None = None,
) -> InteractionResult:
    """Test for every variant and trait whether the effect changes with an environment.

    Parameters
    ----------
    genotypes : path or GenotypeSource
    traits : path, pandas or polars DataFrame, or SampleTable
    environment : str, path, pandas or polars DataFrame, or SampleTable
        The name of a covariate, or a table with one column besides the names of the samples:
        numbers, or text with two values, of which the rarer counts as 1. It need not be centred:
        that changes where the main effect is read off, not the interaction.
    covariates : path, pandas or polars DataFrame, or SampleTable, optional
        The environment itself is always one; it may be among them.
    robust : bool
        Standard errors that hold where the variance differs among samples (HC3; MacKinnon and
        White 1985, Journal of Econometrics 29). About ten times slower.
    transform, variant_filter, covariate_missing
        As in `plait.gwas.scan`; ``covariate_missing`` is also for the environment.
    out, overwrite, executor, memory, threads
        As in `plait.gwas.scan`: into a store block by block, and on with it after a crash.

    Returns
    -------
    InteractionResult
        With ``out``, opened from there.

    Raises
    ------
    OptionError
        There is not exactly one environment.
    FileFormatError, InputTypeError
        As in `plait.gwas.scan`; the environment is neither a covariate nor a table.
    InputError
        It does not vary, or there is no variant.
    LabelError, MissingCovariateError, TooFewSamplesError, ConstantTraitError
        As in `plait.gwas.scan`.
    CapacityError, OutputError
        The smallest blocks do not fit in memory; the store exists, or cannot be written.

    Notes
    -----
    Student's test with N - p - 2 degrees of freedom, p counting the constant, the covariates and
    the environment; F with 2 for both effects. Robust: with Bell and McCaffrey's (2002) degrees of
    freedom, which are few where carriers are few; without them HC3 finds 20 times too many p below
    0.001 at 30 copies of an allele. A missing genotype is the mean of its variant.
    Cost 4 N M (p + T + 1) flops in double precision; robust N M (p + T) more, out of BLAS.
    """
    started = time.perf_counter()
    genotypes, traits, covariates = open_study(genotypes, traits, covariates)
    environment = chosen_environment(environment, covariates)
    name = environment.names[0]
    joined = _joined(covariates, environment)
    samples = align(genotypes.samples, traits, joined, covariate_missing=covariate_missing)
    assert samples.covariates is not None
    rules = VariantFilter() if variant_filter is None else variant_filter
    refuse_forks(executor)
    force = workforce(executor, memory, threads)
    method = InteractionMethod(genotypes, samples, name, robust, transform, rules)
    options = {
        "environment": name,
        "robust": robust,
        "transform": transform,
        "covariates": samples.covariates.names,
        **asdict(rules),
    }
    inputs = {
        **study_fingerprints(genotypes, traits, covariates),
        "the environment": fingerprint(environment.values),
        "the samples of the environment": fingerprint(environment.samples),
    }
    provenance = Provenance(
        "gwas interaction",
        options={**options, **samples.counts},
        inputs=inputs,
        threads=force.workers * force.threads,
    )
    names = samples.traits.names
    if out is not None:
        versions = {"plait": provenance.version, **provenance.libraries}
        identity = {"what": "interaction", "inputs": inputs, "options": options}
        identity["versions"] = versions
        return scan_to_store(
            method, genotypes, names, out, identity, provenance, started, force, overwrite
        )
    found = scan_in_memory(method, genotypes, len(names), force)
    return InteractionResult(
        **found,
        **variant_columns(genotypes),
        traits=names,
        provenance=replace(provenance, seconds=time.perf_counter() - started),
    )


def chosen_environment(
    environment: "TableLike", covariates: SampleTable | None = None
) -> SampleTable:
    """Return the one column of an environment.

    Parameters
    ----------
    environment : str, path, pandas or polars DataFrame, or SampleTable
        The name of a covariate (of text with two values without the ``=value`` of its indicator),
        or a table.
    covariates : SampleTable, optional

    Raises
    ------
    OptionError
        There is not exactly one column.
    LabelError
        A text is neither the name of a covariate nor a file.
    """
    if isinstance(environment, str):
        known = () if covariates is None else covariates.names
        if covariates is not None and any(
            other == environment or other.startswith(f"{environment}=") for other in known
        ):
            return environment_among(covariates, environment)
        if not Path(environment).exists():
            raise LabelError(
                f"the environment {environment!r} is neither a covariate (there are "
                f"{', '.join(known) or 'none'}) nor a file."
            )
    table = opened_covariates(environment, "environment")
    _require_one(table.names, "the table of the environment")
    return table


def environment_among(covariates: SampleTable, name: str) -> SampleTable:
    """Return a covariate alone; one of text with two values by its name without ``=value``.

    Raises
    ------
    LabelError
        There is no such covariate.
    OptionError
        It is text with more than two values.
    """
    groups = [known for known in covariates.names if known.startswith(f"{name}=")]
    if name not in covariates.names and not groups:
        raise LabelError(
            f"the environment {name!r} is no covariate; there are {', '.join(covariates.names)}."
        )
    columns = [name] if name in covariates.names else groups
    _require_one(columns, f"the environment {name!r}")
    return covariates.select(columns)


def _require_one(columns: Sequence[str], what: str) -> None:
    if len(columns) == 1:
        return
    if columns and len({name.partition("=")[0] for name in columns}) == 1:
        raise OptionError(
            f"{what} is text with {len(columns) + 1} values; an environment is a number, or text "
            "with two values."
        )
    raise OptionError(
        f"one environment is tested at a time; {what} has {len(columns)} columns. Give one of them "
        "as the environment, and the others as covariates."
    )


class InteractionMethod(SinglePass):
    """Effects that depend on an environment, with independent errors: one pass."""

    bytes_per_sample: int = 16 * TILE  # a tile in double precision, and its squares
    result: type[InteractionResult] = InteractionResult
    checks: Sequence[dict[str, Any]] = ()

    def __init__(
        self,
        genotypes: GenotypeSource,
        samples: AlignedSamples,
        environment: str,
        robust: bool,
        transform: str,
        rules: VariantFilter,
    ) -> None:
        self.environment, self.robust = environment, robust
        assert samples.covariates is not None  # the environment is one
        values = samples.covariates.values[:, samples.covariates.names.index(environment)]
        for trait, column in zip(samples.traits.names, samples.traits.values.T, strict=True):
            used = ~np.isnan(column)
            _check(environment, values[used], trait, len(used), len(samples.covariates.names))
        designs = make_designs(samples.traits, samples.covariates, samples.rows, transform)
        own = [values[np.searchsorted(samples.rows, design.rows)] for design in designs]
        n_traits = len(samples.traits.names)
        self.work = InteractionScan(genotypes, designs, own, n_traits, robust, rules)

    def totals(self) -> dict[str, Any]:
        """Return the environment, and how errors were estimated."""
        return {"environment": self.environment, "robust": self.robust}


def _joined(covariates: SampleTable | None, environment: SampleTable) -> SampleTable:
    """Return covariates and environment as one table of the samples that both have."""
    name = environment.names[0]
    if covariates is None:
        return environment
    others = covariates.select([other for other in covariates.names if other != name])
    place = {sample: number for number, sample in enumerate(environment.samples.tolist())}
    rows = [row for row, sample in enumerate(others.samples.tolist()) if sample in place]
    if not rows:
        names, theirs = others.samples.tolist(), environment.samples.tolist()
        raise LabelError(no_overlap("covariates", names, "values of the environment", theirs))
    theirs = [place[sample] for sample in others.samples[rows].tolist()]
    values = np.concatenate([others.values[rows], environment.values[theirs]], axis=1)
    return SampleTable(others.samples[rows], (*others.names, name), values)


def _check(name: str, environment: Array, trait: str, n_samples: int, n_covariates: int) -> None:
    if environment.std() <= 1e-12 * np.abs(environment).max(initial=0.0):
        raise InputError(
            f"environment {name!r} is the same for all {len(environment)} samples with trait "
            f"{trait!r}, so that nothing can depend on it."
        )
    if len(environment) < n_covariates + 4:
        raise TooFewSamplesError(
            f"trait {trait!r} is measured on {len(environment)} of the {n_samples:,} samples with "
            "genotypes, some trait, environment and all covariates; with "
            f"{n_covariates} covariates, {name!r} among them, and the constant at least "
            f"{n_covariates + 4} are needed for an interaction."
        )
