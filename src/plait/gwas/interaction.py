"""The scan of interactions: whether the effect of a variant depends on environments.

    trait = covariates + E + a g + b (g E) + error

E is any measured quantity: a temperature, a treatment of 0 and 1, sex, age. ``b`` is how much the
effect of one copy changes with one unit of E, and ``a`` the effect where E is 0; from both, with
their covariance, follows the effect in any environment. Covariates that matter in interaction (age,
when E is a treatment that the old get) are the caller's to add, as columns multiplied by E.
Several environments at once, and the groups of a text, each have a b of their own.

Where the variance of the trait changes with E, or its mean does so on no straight line, the
ordinary test of b finds too much; ``robust=True`` uses errors that hold then, too (HC3).
"""

import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plait.data.fingerprints import study_fingerprints
from plait.data.genotype_blocks import TILE
from plait.data.genotypes import GenotypeSource
from plait.data.phenotypes import AlignedSamples, SampleTable, align, named_as
from plait.data.sample_names import no_overlap
from plait.errors import (
    InputError,
    LabelError,
    ModelWarning,
    OptionError,
    TooFewSamplesError,
)
from plait.execution.executors import refuse_forks, workforce
from plait.gwas.binary import binary_traits
from plait.gwas.design import Design, make_designs
from plait.gwas.environments_results import EnvironmentsResult, group_names
from plait.gwas.environments_scan import EnvironmentsScan
from plait.gwas.inputs import open_study, opened_covariates
from plait.gwas.interaction_results import InteractionResult
from plait.gwas.interaction_scan import InteractionScan
from plait.gwas.model import variant_columns
from plait.gwas.passes import SinglePass, scan_in_memory
from plait.gwas.quality import VariantFilter
from plait.gwas.sex_chromosomes import haploid_chromosomes, warn_without_sex
from plait.gwas.stored_scan import scan_to_store
from plait.provenance import Provenance, fingerprint

if TYPE_CHECKING:
    from plait.gwas.inputs import GenotypesLike, TableLike

Array = NDArray[np.float64]

_LEAST_GROUP = 10
_FEW_COPIES = 50
"""Copies of an allele for which no skewness is warned of: few variants, and moderate errors."""


def scan_interaction(
    genotypes: "GenotypesLike",
    traits: "TableLike",
    environment: "TableLike | Sequence[str]",
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
) -> "InteractionResult | EnvironmentsResult":
    """Test for every variant and trait whether the effect changes with the environment.

    Parameters
    ----------
    genotypes : path or GenotypeSource
    traits : path, pandas or polars DataFrame, or SampleTable
    environment : str, sequence of str, path, pandas or polars DataFrame, or SampleTable
        The name of a covariate, or of several, or a table with a column for each environment
        besides the names of the samples: numbers, or text, whose most frequent value counts as 0
        and every other one has an indicator (so that text with k values are k - 1 environments).
        They need not be centred: that changes where the main effect is read off, not the
        interaction.
    covariates : path, pandas or polars DataFrame, or SampleTable, optional
        The environments themselves always are; they may be among them.
    robust : bool
        Standard errors that hold where the variance differs among samples (HC3; MacKinnon and
        White 1985, Journal of Econometrics 29). About nine times slower with one environment
        and ten covariates, 50 times with three environments; see Notes.
    transform, variant_filter, covariate_missing
        As in `plait.gwas.scan`; ``covariate_missing`` is also for the environment.
    out, overwrite, executor, memory, threads
        As in `plait.gwas.scan`: into a store block by block, and on with it after a crash.

    Returns
    -------
    InteractionResult or EnvironmentsResult
        Of one environment the former, of q > 1 the latter (in Student's and F tests, effects and
        errors the same with one). With ``out``, opened from there.

    Warns
    -----
    ModelWarning
        A trait is of cases and controls, and errors are not robust. Errors are robust, and a trait
        is so skewed that tests of variants with few carriers find too much; see Notes.

    Raises
    ------
    OptionError
        There is no environment.
    FileFormatError, InputTypeError
        As in `plait.gwas.scan`; the environment is neither a covariate nor a table.
    InputError
        One does not vary, or follows from the others; there is no variant.
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
    Robust tests of a skewed trait find too much at variants with few carriers, the main and the
    joint test most (they miss the tail: carriers without any large value have a small variance,
    too). At a frequency of 0.05 in 1,000 samples, a fifth of them exposed, the rate of p < 0.001 of
    the joint test was 4.5 times the nominal one with exponential traits, 8 to 9 with lognormal
    ones, 33 (15) with cases and controls at a risk of 0.05 (0.2); that of the interaction was 1.4
    or less, and 0.5 (5.6) with cases. After ``transform="rank"`` the rates of measured traits were
    0.4 to 1.1, and up to 1.5 where exposure trebles the standard deviation.
    With q environments F tests of q and of 1 + q effects, with N - p - 1 - q degrees of freedom;
    robust those of Pustejovsky and Tipton (2018), see
    `plait.gwas.environments_kernels.robust_environments`. A variant has no test where its product
    with one environment follows from the others: where nobody in a group has an allele, say; and
    none that is robust where a sample is fitted perfectly: the one carrier in a group.
    Cost 2 (1 + q) N M (p + T + q / 2) flops in double precision; robust, of each variant, 4 N (p +
    2)^2 more with one environment and 2 N (p + 1 + q)^2 (1 + q)^2 with several.
    """
    started = time.perf_counter()
    genotypes, traits, covariates = open_study(genotypes, traits, covariates)
    families = getattr(genotypes, "families", None)
    chosen = named_as(chosen_environment(environment, covariates), genotypes.samples, families)
    joined = _joined(covariates, chosen)
    samples = align(genotypes.samples, traits, joined, covariate_missing=covariate_missing)
    assert samples.covariates is not None
    warn_without_sex(genotypes, samples.rows, samples.covariates.values)
    if not robust:
        _warn_of_cases(samples.traits)
    rules = VariantFilter() if variant_filter is None else variant_filter
    refuse_forks(executor)
    force = workforce(executor, memory, threads)
    method = InteractionMethod(genotypes, samples, chosen, robust, transform, rules)
    options = {
        "environment": ", ".join(chosen.names),
        "robust": robust,
        "transform": transform,
        "covariates": samples.covariates.names,
        **asdict(rules),
    }
    inputs = {
        **study_fingerprints(genotypes, traits, covariates),
        "the environment": fingerprint(chosen.values),
        "the samples of the environment": fingerprint(chosen.samples),
    }
    provenance = Provenance(
        "gwas interaction",
        options={**options, **samples.counts, "haploid": haploid_chromosomes(genotypes, False)},
        inputs=inputs,
        threads=force.workers * force.threads,
    )
    names = samples.traits.names
    if out is not None:
        versions = {"plait": provenance.version, **provenance.libraries}
        identity = {"what": "interaction", "inputs": inputs, "options": options}
        identity["versions"] = versions
        stored: InteractionResult | EnvironmentsResult = scan_to_store(
            method, genotypes, names, out, identity, provenance, started, force, overwrite
        )
        return stored
    found = scan_in_memory(method, genotypes, len(names), force)
    result: InteractionResult | EnvironmentsResult = method.result(
        **found,
        **variant_columns(genotypes),
        traits=names,
        provenance=replace(provenance, seconds=time.perf_counter() - started),
    )
    return result


def chosen_environment(
    environment: "TableLike | Sequence[str]", covariates: SampleTable | None = None
) -> SampleTable:
    """Return the columns of the environments.

    Parameters
    ----------
    environment : str, sequence of str, path, pandas or polars DataFrame, or SampleTable
        Names of covariates (of text without the ``=value`` of its indicators), or a table.
    covariates : SampleTable, optional

    Raises
    ------
    OptionError
        There is no column.
    LabelError
        A text is neither the name of a covariate nor a file.
    """
    if isinstance(environment, str):
        known = () if covariates is None else covariates.names
        if covariates is not None and _columns_of(covariates, environment):
            return environment_among(covariates, [environment])
        if not Path(environment).exists():
            raise LabelError(
                f"the environment {environment!r} is neither a covariate (there are "
                f"{', '.join(known) or 'none'}) nor a file."
            )
    if isinstance(environment, list | tuple):
        none = SampleTable(np.empty(0, np.str_), (), np.empty((0, 0)))
        return environment_among(none if covariates is None else covariates, environment)
    table = opened_covariates(environment, "environment")
    if not table.names:
        raise OptionError("the table of the environment has no column besides names of samples.")
    return table


def environment_among(covariates: SampleTable, names: Sequence[str]) -> SampleTable:
    """Return some covariates alone; text by its name without ``=value``, with all its columns.

    Raises
    ------
    LabelError
        There is no such covariate.
    OptionError
        None is asked for.
    """
    columns: list[str] = []
    for name in names:
        found = _columns_of(covariates, name)
        if not found:
            raise LabelError(
                f"the environment {name!r} is no covariate; there are "
                f"{', '.join(covariates.names) or 'none'}."
            )
        columns += [column for column in found if column not in columns]
    if not columns:
        raise OptionError("no environment is named; give one covariate at least.")
    return covariates.select(columns)


def _columns_of(covariates: SampleTable, name: str) -> list[str]:
    if name in covariates.names:
        return [name]
    return [known for known in covariates.names if known.startswith(f"{name}=")]


class InteractionMethod(SinglePass):
    """Effects that depend on environments, with independent errors: one pass."""

    bytes_per_sample: int = 16 * TILE  # a tile in double precision, and its squares
    checks: Sequence[dict[str, Any]] = ()

    def __init__(
        self,
        genotypes: GenotypeSource,
        samples: AlignedSamples,
        environments: SampleTable,
        robust: bool,
        transform: str,
        rules: VariantFilter,
    ) -> None:
        names, n_traits = environments.names, len(samples.traits.names)
        assert samples.covariates is not None  # the environments are some
        values = samples.covariates.select(names).values
        text = names[0].partition("=")[0]
        groups = group_names(names, values, environments.bases.get(text))
        if groups is not None:
            _check_groups(text, groups, values, samples.traits)
        for trait, column in zip(samples.traits.names, samples.traits.values.T, strict=True):
            used = ~np.isnan(column)
            _check(names, values[used], trait, len(used), len(samples.covariates.names))
        designs = make_designs(samples.traits, samples.covariates, samples.rows, transform)
        if robust:
            _warn_of_skewness(samples.traits, designs, rules)
        own = [values[np.searchsorted(samples.rows, design.rows)] for design in designs]
        self.inner: dict[str, tuple[int, ...]] = {}
        self.result: type[Any] = InteractionResult
        self._totals: dict[str, Any] = {"environment": names[0], "robust": robust}
        if len(names) == 1:
            alone = [columns[:, 0] for columns in own]
            self.work = InteractionScan(genotypes, designs, alone, n_traits, robust, rules)
            return
        self.result = EnvironmentsResult
        k = 1 + len(names)
        self.inner = {"coefficients": (k,), "covariance": (k, k)}
        self._totals["environment"] = ", ".join(names) if groups is None else text
        self._totals |= {"terms": ("main", *names), "groups": groups}
        self.work = EnvironmentsScan(genotypes, designs, own, n_traits, robust, rules)

    def totals(self) -> dict[str, Any]:
        """Return the environments, and how errors were estimated."""
        return self._totals


def _warn_of_cases(traits: SampleTable) -> None:
    """Warn where ordinary errors are asked for traits whose variance changes with their mean."""
    binary = binary_traits(traits)
    if binary:
        warnings.warn(
            f"traits of cases and controls: {len(binary)} of {len(traits.names)} (first: "
            f"{binary[0]!r}). Their variance changes with the risk, so that where the environment "
            "changes it the ordinary test finds too many interactions: 35 times too many p below "
            "0.001 where a fifth of the samples has a risk of 0.5 and the others of 0.05. Use "
            "--robust (robust=True) where carriers are many.",
            ModelWarning,
            stacklevel=3,
        )


def _warn_of_skewness(traits: SampleTable, designs: list[Design], rules: VariantFilter) -> None:
    """Warn where robust tests of variants with few carriers find too much: of skewed traits.

    Student's test of n values finds ``1 + (88 s^2 - 7.6 k) / n`` times too many p below 0.001, to
    first order, s their skewness and k their excess kurtosis (Hall 1992, The Bootstrap and
    Edgeworth Expansion, 2.6, at 3.29). With n copies of the rarer allele, a fifth of the samples
    exposed, that was found of joint tests with skewness 1 to 2.
    """
    found: list[tuple[int, float, str]] = []
    for design in designs:
        n = len(design.rows)
        skewness = n**0.5 * (design.traits**3).sum(axis=0)
        excess = n * (design.traits**4).sum(axis=0) - 3.0
        tested = max(rules.min_minor_count or 0, 2 * n * (rules.min_frequency or 0.0), _FEW_COPIES)
        copies = 88.0 * skewness**2 - 7.6 * excess
        found += [
            (int(copies[t]), float(skewness[t]), traits.names[column])
            for t, column in enumerate(design.columns.tolist())
            if copies[t] > tested
        ]
    if not found:
        return
    copies_needed, most, name = max(found)
    advice = "take --transform rank (transform='rank')"
    if name in binary_traits(traits):
        advice = "scan each group by itself (`plait gwas scan --model logistic`)"
    warnings.warn(
        f"skewed traits: {len(found)} of {len(traits.names)} (most: {name!r}, skewness "
        f"{most:.1f}). Robust tests of variants with few carriers find too much then, those of "
        "main and joint effects most: more than twice too many p below 0.001 with fewer than "
        f"about {copies_needed:,} copies of the rarer allele. For such variants {advice}, or leave "
        "them out (--min-mac, VariantFilter(min_minor_count=...)).",
        ModelWarning,
        stacklevel=4,
    )


def _joined(covariates: SampleTable | None, environments: SampleTable) -> SampleTable:
    """Return covariates and environments as one table of the samples that both have."""
    names = environments.names
    if covariates is None:
        return environments
    others = covariates.select([other for other in covariates.names if other not in names])
    place = {sample: number for number, sample in enumerate(environments.samples.tolist())}
    rows = [row for row, sample in enumerate(others.samples.tolist()) if sample in place]
    if not rows:
        ours, theirs = others.samples.tolist(), environments.samples.tolist()
        raise LabelError(no_overlap("covariates", ours, "values of the environment", theirs))
    theirs = [place[sample] for sample in others.samples[rows].tolist()]
    values = np.concatenate([others.values[rows], environments.values[theirs]], axis=1)
    return SampleTable(others.samples[rows], (*others.names, *names), values)


def _check_groups(
    text: str, groups: tuple[str, ...], indicators: Array, traits: SampleTable
) -> None:
    """Refuse groups so small that most variants do not vary in them."""
    for trait, column in zip(traits.names, traits.values.T, strict=True):
        used = indicators[~np.isnan(column)]
        sizes = used.sum(axis=0).astype(int).tolist()
        sizes.insert(0, len(used) - sum(sizes))
        small = [pair for pair in zip(sizes, groups, strict=True) if pair[0] < _LEAST_GROUP]
        if small:
            told = ", ".join(f"{name!r} with {size}" for size, name in sorted(small)[:3])
            raise TooFewSamplesError(
                f"of the {len(groups)} groups of the environment {text!r} {len(small)} have fewer "
                f"than {_LEAST_GROUP} samples with trait {trait!r} ({told}). A variant is tested "
                "where it varies in every group: merge small groups, or leave their samples out."
            )


def _check(
    names: tuple[str, ...], environments: Array, trait: str, n_samples: int, n_covariates: int
) -> None:
    """Refuse environments that a trait cannot be tested with."""
    if len(environments) < (least := n_covariates + len(names) + 3):
        ours = repr(names[0]) if len(names) == 1 else f"{len(names)} environments"
        raise TooFewSamplesError(
            f"trait {trait!r} is measured on {len(environments)} of the {n_samples:,} samples with "
            "genotypes, some trait, environment and all covariates; with "
            f"{n_covariates} covariates, {ours} among them, and the constant at least "
            f"{least} are needed for an interaction."
        )
    for name, values in zip(names, environments.T, strict=True):
        if values.std() <= 1e-12 * np.abs(values).max(initial=0.0):
            raise InputError(
                f"environment {name!r} is the same for all {len(values)} samples with trait "
                f"{trait!r}, so that nothing can depend on it."
            )
    scaled = (environments - environments.mean(axis=0)) / environments.std(axis=0)
    for last in range(2, len(names) + 1):
        if np.linalg.matrix_rank(scaled[:, :last], tol=1e-8 * len(scaled) ** 0.5) < last:
            raise InputError(
                f"environment {names[last - 1]!r} follows from {', '.join(names[: last - 1])} in "
                f"the samples with trait {trait!r}; leave it out."
            )
