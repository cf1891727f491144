"""Whether the traits of a study have something to tell: each by itself, and beside the others."""

import warnings
from typing import TYPE_CHECKING

import numpy as np

from plait.data.genotypes import GenotypeSource
from plait.data.phenotypes import SampleTable, independent_covariates
from plait.data.words import listed
from plait.errors import DataWarning, InputError
from plait.gwas.design import make_designs, residual_correlation
from plait.gwas.model import checked_samples
from plait.gwas.trait_dependence import told_traits, why_not_for_mash
from plait.numerics.linalg import NEARLY_TOLD

if TYPE_CHECKING:
    from plait.gwas import AssociationResult


def require_own_errors(
    genotypes: GenotypeSource,
    traits: SampleTable,
    covariates: SampleTable | None,
    model: str,
    transform: str,
) -> None:
    """Refuse traits that tell one another, before anything is scanned.

    Parameters
    ----------
    genotypes : GenotypeSource
    traits, covariates : SampleTable
    model, transform : str
        As in `plait.gwas.scan`.

    Raises
    ------
    InputError
        Others tell more than 0.999 of what covariates leave of a trait
        (`plait.gwas.trait_dependence`), among the samples that they share.
    """
    traits, samples = checked_samples(model, genotypes, traits, covariates)
    known = samples.covariates
    with warnings.catch_warnings():  # the scan says it
        warnings.simplefilter("ignore", DataWarning)
        known = None if known is None else independent_covariates(known)
        designs = make_designs(samples.traits, known, samples.rows, transform)
    names = samples.traits.names
    residuals = [design.traits for design in designs]
    if told := told_traits(residual_correlation(designs, residuals, len(names)), names):
        raise InputError(why_not_for_mash(listed([repr(name) for name in told])))


def trait_doubts(scanned: "AssociationResult") -> dict[str, str]:
    """Say, each under a title, which traits have no test, and which nearly tell one another.

    Parameters
    ----------
    scanned : AssociationResult
        The whole scan: of `lambda_gc` it is known which traits were tested.
    """
    said = {}
    if untested := traits_without_tests(scanned):
        names = listed([repr(name) for name in untested])
        said["Traits without tests"] = (
            f"no variant was tested for {names}: effects there, and how many are shared, are what "
            "other traits say, and no result of the data. Leave such a trait out, or measure it in "
            "more samples."
        )
    told = told_traits(scanned.V0, scanned.traits, NEARLY_TOLD)
    if told and not told_traits(scanned.V0, scanned.traits):
        names = listed([repr(name) for name in told])
        said["Traits that nearly tell one another"] = (
            f"others tell more than {NEARLY_TOLD:.0%} of each of the traits {names} (measured "
            "twice, or made of one another?): the little that is left of them counts for much, "
            "and effects are found less often, on all traits, than without one of these."
        )
    return said


def traits_without_tests(scanned: "AssociationResult") -> list[str]:
    """Return the traits for which no variant was tested."""
    tested = np.isfinite(scanned.lambda_gc)
    return [name for name, known in zip(scanned.traits, tested, strict=True) if not known]
