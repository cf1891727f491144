"""The association scan: one regression for each variant and trait.

    trait = covariates + beta * copies of the effect allele + error

with independent errors (`plait.gwas.linear`), errors of related samples (`plait.gwas.mixed`), or
less what the other chromosomes predict (`plait.gwas.whole_genome`); of cases and controls it is the
log odds that follow covariates and alleles (`plait.gwas.binary`), beside what the other chromosomes
predict (`plait.gwas.whole_genome_logistic`).
See `plait.gwas.design` for how covariates and traits are made ready.
"""

import logging
import os
import time
import warnings
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from plait.data.fingerprints import study_fingerprints
from plait.data.genotypes import GenotypeSource
from plait.data.phenotypes import (
    AlignedSamples,
    SampleTable,
    align,
    independent_covariates,
)
from plait.errors import DataWarning, InputError, ModelWarning, OptionError
from plait.execution.executors import refuse_forks, workforce
from plait.gwas.binary import binary_traits, cases_and_controls, make_binary_designs
from plait.gwas.design import EXACT_BELOW, make_designs
from plait.gwas.inputs import open_study
from plait.gwas.passes import (
    LinearMethod,
    LogisticMethod,
    MixedMethod,
    ScanMethod,
    WholeGenomeLogisticMethod,
    WholeGenomeMethod,
    scan_in_memory,
)
from plait.gwas.quality import VariantFilter
from plait.gwas.results import AssociationResult
from plait.gwas.sex_chromosomes import haploid_chromosomes, warn_without_sex
from plait.gwas.stored_scan import scan_to_store
from plait.gwas.variant_results import VARIANT_COLUMNS
from plait.provenance import Provenance, fingerprint

if TYPE_CHECKING:
    from plait.gwas.given_relationships import RelationshipsLike
    from plait.gwas.inputs import GenotypesLike, TableLike
    from plait.io.relationship_files import RelationshipFile

_log = logging.getLogger("plait.gwas")


_LOGISTIC = ("logistic", "whole-genome-logistic")
_WHOLE_GENOME = ("whole-genome", "whole-genome-logistic")
_TESTS = ("wald", "lrt", "score")
_SHARES_BESIDE = {"lrt": 1.0, "score": 0.0}
"""The ``exact_below`` that tests imply."""
_MODELS = ("linear", "mixed", "whole-genome", *_LOGISTIC)


def scan(
    genotypes: "GenotypesLike",
    traits: "TableLike",
    covariates: "TableLike | None" = None,
    *,
    model: str = "linear",
    loco: bool | None = None,
    relationships: "RelationshipsLike | None" = None,
    test: str = "wald",
    missing_genotypes: str = "mean",
    transform: str = "none",
    variant_filter: VariantFilter | None = None,
    covariate_missing: str = "error",
    precision: str = "single",
    exact_below: float = EXACT_BELOW,
    seed: int = 1,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    executor: Any = None,
    memory: int | str | None = None,
    threads: int | None = None,
) -> AssociationResult:
    """Regress every trait on every variant, one variant at a time.

    Parameters
    ----------
    genotypes : path or GenotypeSource
        A file as `plait.io.open_genotypes` takes it, or what that returns.
    traits, covariates : path, pandas or polars DataFrame, or SampleTable
        One row for each sample. A file has a column that names them, a DataFrame such a column or
        an index; see `plait.io.read_phenotypes` and `plait.io.read_covariates`. Matched to the
        genotypes by the names of samples. Covariates do not include the constant.
    model : {"linear", "mixed", "whole-genome", "logistic", "whole-genome-logistic"}
        "mixed" allows for the relationships of the samples, which it takes from the genotypes.
        "whole-genome" does so for more samples than have room in a matrix: it tests what the other
        chromosomes do not predict.
        "logistic" is for cases and controls, written 1 and 0, or 2 and 1; effects are logs of odds
        ratios, and small p-values hold with few cases and rare alleles too; "whole-genome-logistic"
        has the prediction from the other chromosomes as a covariate.
    loco : bool, optional
        Mixed: leave the chromosome of a variant out of the relationships, so that they do not take
        the variant's own effect away. Default yes, where there are two chromosomes or more.
    relationships : path, pandas or polars DataFrame, or Relationships, optional
        Mixed: how samples are related, instead of by these genotypes: the prefix of GCTA's
        ``.grm.*`` files, a square table with names of samples (of a pedigree, say), or what
        `relationship_matrix` returns. Matched by name and scaled to a mean diagonal of 1; ``loco``
        cannot be then, so that relationships that hold a variant's own effect hide part of it.
    test : {"wald", "lrt", "score"}
        Mixed. "wald": Student's t test by restricted maximum likelihood. "lrt": chi-square of twice
        the log of the ratio of likelihoods with and without the variant, each with the share that
        makes it largest, of what covariates leave (see `plait.gwas.likelihood_ratio`; GEMMA's p_lrt
        is of the whole data); effects and errors are as with ``exact_below=1``, which it implies:
        every test is done by itself, for some 10 N^2 steps, and each chromosome that is left out
        takes 4/3 N^3. "score": chi-square with the variances without the variant, which
        ``exact_below=0`` goes with; errors are of those variances. The last two are tests of large
        samples; with few the t test is safer.
    missing_genotypes : {"mean", "drop"}
        A missing genotype is the mean of its variant, or (linear, whole-genome) its sample is left
        out of the regression of that variant, exactly, without fitting anew.
    transform : {"none", "rank", "rank-residuals"}
        "rank": traits are replaced by the normal scores of their ranks (Blom's); "rank-residuals":
        by those of what the covariates leave of them, beside which the covariates stay.
    variant_filter : VariantFilter, optional
        Which variants are tested; counted among the samples of each trait.
    covariate_missing : {"error", "drop"}
    precision : {"single", "double"}
        Of the products with genotypes. Single: t within 1e-4 max(1, |t|), redone in double where
        that would not hold. Mixed: products are single, and with "double" the relationships without
        each chromosome are decomposed, some N^3 steps each, where otherwise their variance shares
        have a little noise (``checks`` of the result say how much).
    exact_below : float
        Mixed: p-value from which the variance share is estimated again beside the variant. 1 does
        so for every test, and in double precision (some 10 N^2 steps each); with
        ``precision="double"`` the whole scan is exact then.
    seed : int
        Whole-genome: of the folds in which samples are predicted.
    out : str or path, optional
        A store to write to, block by block: memory then follows the block and not the number of
        variants, and a scan that was killed goes on where it was. Default: all in memory.
    overwrite : bool
        Whether a store that exists is replaced.
    executor, memory, threads
        As everywhere in plait; they never change the numbers.

    Returns
    -------
    AssociationResult
        With ``out``, opened from there.

    Raises
    ------
    FileFormatError, InputTypeError
        A file cannot be read; something is neither a file nor a table.
    LabelError
        No sample has genotypes, traits and covariates; some have no given relationships.
    InputError
        There is no variant. Relationships are not finite, symmetric and positive semidefinite.
        Logistic: a trait is not of cases and controls, or covariates separate
        them. Whole-genome: variants that can predict are on one chromosome only.
    ConvergenceError
        Whole-genome logistic: prediction and covariates separate cases from controls.
    MissingCovariateError, TooFewSamplesError, ConstantTraitError
        See `plait.data.phenotypes.align` and `plait.gwas.design.make_designs`.
    CapacityError
        The relationships (mixed), or the smallest blocks, do not fit in memory.
    OutputError
        The store exists, or cannot be written.

    Notes
    -----
    Relationships (mixed) are VanRaden's, a missing genotype being the mean of its variant also
    where `plait.gwas.relationship_matrix` could leave it out of a pair: only so are they a
    covariance, without eigenvalues below 0, for whichever chromosome is left out.

    Cost, for each pattern of missing traits: linear 2 N M (p + T) flops and N M / 4 bytes read;
    logistic 2 N M T (p + 2) flops; mixed and whole-genome see `plait.gwas.mixed.MixedModel` and
    `plait.gwas.whole_genome.WholeGenomeModel`. Traits measured on the same samples share
    everything.
    """
    started = time.perf_counter()
    has_own = relationships is not None
    check_options(model, loco, missing_genotypes, transform, test, has_relationships=has_own)
    if exact_below not in (EXACT_BELOW, _SHARES_BESIDE.get(test, exact_below)):
        raise OptionError(
            f"exact_below is {exact_below}; test={test!r} always takes {_SHARES_BESIDE[test]:g}."
        )
    given = None
    if relationships is not None:
        from plait.gwas.given_relationships import opened_relationships

        given = opened_relationships(relationships)
    genotypes, traits, covariates = open_study(genotypes, traits, covariates)
    traits, samples = checked_samples(model, genotypes, traits, covariates, covariate_missing)
    if samples.covariates is not None:
        samples = replace(samples, covariates=independent_covariates(samples.covariates))
    _log.info("samples: %s", ", ".join(f"{name} {n:,}" for name, n in samples.counts.items()))
    rules = VariantFilter() if variant_filter is None else variant_filter
    if rules.min_info and genotypes.kind == "hardcall":
        warnings.warn(
            "min_info does nothing: these genotypes are hard calls, which have no imputation "
            "quality.",
            DataWarning,
            stacklevel=2,
        )
    known = None if samples.covariates is None else samples.covariates.values
    warn_without_sex(genotypes, samples.rows, known)
    refuse_forks(executor)
    force = workforce(executor, memory, threads)
    options = {
        "model": model,
        "loco": loco,
        "relationships": None if given is None else "given",
        "test": test,
        "missing_genotypes": missing_genotypes,
        "transform": transform,
        "covariates": [] if samples.covariates is None else samples.covariates.names,
        **asdict(rules),
        "precision": precision,
        "exact_below": exact_below,
        "seed": seed,
    }
    inputs = study_fingerprints(genotypes, traits, covariates)
    if given is not None:
        inputs["the relationships"] = fingerprint(given.matrix)
        inputs["the samples of the relationships"] = fingerprint(given.samples)
    provenance = Provenance(
        "gwas scan",
        options={**options, **samples.counts, "haploid": haploid_chromosomes(genotypes, False)},
        inputs=inputs,
        threads=force.workers * force.threads,
    )
    names = samples.traits.names
    method = _prepared(genotypes, samples, rules, options, memory, force.workers, given)
    if out is not None:
        versions = {"plait": provenance.version, **provenance.libraries}
        identity = {"what": "scan", "inputs": inputs, "options": options, "versions": versions}
        return scan_to_store(
            method, genotypes, names, out, identity, provenance, started, force, overwrite
        )
    found = scan_in_memory(method, genotypes, len(names), force)
    return AssociationResult(
        **found,
        **variant_columns(genotypes),
        traits=names,
        provenance=replace(provenance, seconds=time.perf_counter() - started),
    )


def _prepared(
    genotypes: GenotypeSource,
    samples: AlignedSamples,
    rules: VariantFilter,
    options: dict[str, Any],
    memory: int | str | None,
    threads: int,
    relationships: "RelationshipFile | None",
) -> ScanMethod:
    """Do what a model needs before any variant is tested."""
    model, precision, missing = (
        options[name] for name in ("model", "precision", "missing_genotypes")
    )
    names = samples.traits.names
    if model in _LOGISTIC:
        nulls = make_binary_designs(samples.traits, samples.covariates, samples.rows)
        designs = [null.design for null in nulls]
    else:
        designs = make_designs(
            samples.traits, samples.covariates, samples.rows, options["transform"]
        )
    if model == "linear":
        return LinearMethod(genotypes, designs, len(names), missing, precision, rules)
    if model == "logistic":
        return LogisticMethod(genotypes, nulls, len(names), precision, rules)
    if model == "mixed":
        loco = relationships is None and _leaves_chromosomes_out(genotypes, options["loco"])
        own = loco, options["exact_below"], memory, threads, precision
        return MixedMethod(genotypes, designs, rules, *own, relationships, options["test"])
    from plait.gwas.whole_genome import WholeGenomeModel
    from plait.gwas.whole_genome_logistic import WholeGenomeLogistic

    fitted = WholeGenomeModel(
        genotypes, designs, rules, missing, precision, memory, threads, options["seed"]
    )
    if model == "whole-genome":
        return WholeGenomeMethod(fitted)
    return WholeGenomeLogisticMethod(WholeGenomeLogistic(fitted, nulls, names))


def checked_samples(
    model: str,
    genotypes: GenotypeSource,
    traits: SampleTable,
    covariates: SampleTable | None = None,
    covariate_missing: str = "error",
) -> tuple[SampleTable, AlignedSamples]:
    """Return the traits as a model takes them, and the samples that it would scan.

    Takes no pass over the genotypes: what a scan refuses is known before any such work (principal
    components, say). Parameters and errors are those of `scan`.
    """
    if model in _WHOLE_GENOME and len(runs := genotypes.variants.chromosomes) == 1:
        raise InputError(
            f"all variants are on chromosome {runs[0][0]}; model={model!r} tests each chromosome "
            "beside a prediction from the others, and needs two. Use model='mixed' or "
            "model='linear'."
        )
    traits = _checked_traits(model, traits)
    return traits, align(genotypes.samples, traits, covariates, covariate_missing=covariate_missing)


def check_options(
    model: str,
    loco: bool | None,
    missing_genotypes: str,
    transform: str,
    test: str = "wald",
    *,
    has_relationships: bool = False,
) -> None:
    """Refuse options of `scan` that do not go together."""
    if model not in _MODELS:
        raise OptionError(f"model is {model!r}; give one of {', '.join(map(repr, _MODELS))}.")
    if model in _WHOLE_GENOME and loco is False:
        raise OptionError(f"model={model!r} always leaves chromosomes out; loco=False cannot be.")
    if model in ("linear", "logistic") and loco is not None:
        raise OptionError(
            f"loco={loco} is for model='mixed'; in the {model} model there are no relationships "
            "to leave a chromosome out of."
        )
    if test not in _TESTS:
        raise OptionError(f"test is {test!r}; give one of {', '.join(map(repr, _TESTS))}.")
    if test != "wald" and model != "mixed":
        raise OptionError(f"test={test!r} is for model='mixed'; model is {model!r}.")
    if has_relationships and model != "mixed":
        raise OptionError(f"relationships are for model='mixed'; model is {model!r}.")
    if has_relationships and loco:
        raise OptionError(
            "relationships that are given are one matrix, which no chromosome can be left out of; "
            "loco=True needs those of the genotypes."
        )
    if model in ("mixed", *_LOGISTIC) and missing_genotypes != "mean":
        raise OptionError(f"the {model} model takes missing_genotypes='mean' only.")
    if model in _LOGISTIC and transform != "none":
        raise OptionError(f"the {model} model takes traits as they are, transform='none'.")


def _checked_traits(model: str, traits: SampleTable) -> SampleTable:
    """Return the traits as the model takes them."""
    if model in _LOGISTIC:
        return cases_and_controls(traits)
    binary = binary_traits(traits)
    if binary:
        _log.info(
            "traits of cases and controls: %d of %d (first: %r). The %s model takes them as "
            "numbers, and effects are differences of risk; model='%s' estimates odds ratios, and "
            "is safe with few cases.",
            len(binary),
            len(traits.names),
            binary[0],
            model,
            "logistic" if model == "linear" else "whole-genome-logistic",
            extra={"notice": True},
        )
    return traits


def _leaves_chromosomes_out(genotypes: GenotypeSource, loco: bool | None) -> bool:
    """Tell whether the chromosome of a variant is left out of the relationships."""
    several = len({name for name, _ in genotypes.variants.chromosomes}) > 1
    if loco and not several:
        warnings.warn(
            "there is one chromosome only, and without it there are no relationships: all variants "
            "count towards them.",
            ModelWarning,
            stacklevel=4,
        )
    return several if loco is None else loco and several


def variant_columns(genotypes: GenotypeSource) -> dict[str, Any]:
    """Return the columns of the variants that results carry."""
    return dict(genotypes.variants.arrays(VARIANT_COLUMNS))
