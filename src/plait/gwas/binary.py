"""The scan of binary traits: score tests of logistic regressions.

    logit P(case) = covariates + beta * copies of the effect allele

The regression without variants is fitted once per trait; a variant then costs a weighted product.
With X the covariates, mu the fitted probabilities, W = diag(mu (1 - mu)) and g~ the genotype with X
projected out in the metric of W, the score ``s = g~^T (y - mu)`` has variance ``v = g~^T W g~``.

With few cases, or a rare allele, s is far from normal and its normal p-value far too small. Beyond
two standard deviations the p-value is therefore the saddlepoint's (Dey et al. 2017, American
Journal of Human Genetics 101), which knows the whole distribution of s; see
`plait.numerics.saddlepoint`.

There the effect is a log odds ratio with Firth's penalty (1993, Biometrika 80), which is finite
when all carriers are cases, or none is. As in REGENIE (Mbatchou et al. 2021, Nature Genetics 53)
the effects of covariates stay those of the null fit. The genotype is cleared of what covariates
explain of it, since with g itself the estimate would shrink by that share. The constant is fitted
beside the effect: kept too, it would leave the effect of an allele of frequency 0.1 and an odds
ratio of 4.5 12 % short where 3 % of the samples are cases. Against all coefficients fitted anew,
log odds ratios up to 1.5 were within 5 %, their median within 2 % (13 % where a covariate changes
the odds of the allele 3.7 times for each of its standard deviations). The standard error is what
makes ``beta / se`` the normal deviate of the saddlepoint p-value, so that whoever uses the two
together uses the right evidence.

Below two standard deviations the effect is one step of Newton's from 0, ``s / v``, and its standard
error ``1 / sqrt(v)``. The step takes v for constant: with few copies of the rarer allele in cases
it is too large where cases have more of it than expected, and too small where they have less.
Between one and two standard deviations its median is off by 2 % or less in as many cases as
controls (10 copies expected in cases), and with 4 to 50 controls to a case by 2 to 3 % (80 copies
expected), 6 % (20), 10 % (8) and 25 % (2).
"""

import logging
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from plait.data.genotype_blocks import TILE, GenotypeBlock, padded
from plait.data.genotypes import GenotypeSource
from plait.data.p_values import absolute_z_of_log10_p
from plait.data.phenotypes import SampleTable
from plait.data.words import counted
from plait.errors import InputError, OptionError, TooFewSamplesError
from plait.gwas.design import Design, make_designs
from plait.gwas.linear import Associations, GroupedScan
from plait.gwas.quality import VariantFilter
from plait.io.phenotypes import is_binary

Array = NDArray[np.float64]

SADDLEPOINT_ABOVE = 2.0
"""Standard deviations from which p-values are the saddlepoint's, and effects penalised fits."""
_CONVERGED = 1e-10
_STEADY = 1e-4
_ITERATIONS = 40

_log = logging.getLogger("plait.gwas")


@dataclass(frozen=True, eq=False)
class BinaryDesign:
    """Binary traits of the same samples, and their regressions without variants.

    Attributes
    ----------
    design : Design
    probabilities : (T, N) array
        Of being a case, given the covariates.
    residuals : (T, N) array
        1 for a case and 0 for a control, less the probability.
    loadings : (T, N, p) array
        The covariates, the constant first, orthonormal in the metric of the weights.
    n_cases : (T,) array of int
    """

    design: Design
    probabilities: Array
    residuals: Array
    loadings: Array
    n_cases: NDArray[np.int64]

    @property
    def weights(self) -> Array:
        """Variances of the outcomes (T, N)."""
        return self.probabilities * (1.0 - self.probabilities)

    @property
    def unit_residuals(self) -> Array:
        """Residuals (N, T), each of length 1."""
        result: Array = (self.residuals / np.linalg.norm(self.residuals, axis=1)[:, None]).T
        return result


class BinaryScan(GroupedScan):
    """The logistic scan of some designs.

    Parameters
    ----------
    source : GenotypeSource
    designs : list of BinaryDesign
    n_traits : int
    precision : {"single", "double"}
        Of the products with the genotypes. Statistics beyond `SADDLEPOINT_ABOVE`, and those of
        variants that covariates nearly explain, are always done in double precision.
    rules : VariantFilter
        Which variants are tested; counted among the samples of each trait.
    saddlepoint_above : float
        See `SADDLEPOINT_ABOVE`; infinity keeps normal p-values and single steps.

    Notes
    -----
    A missing genotype is the mean of its variant. Cost: 2 N M T (p + 2) flops, and for the few
    percent beyond two standard deviations about 20 passes over the carriers.
    """

    def __init__(
        self,
        source: GenotypeSource,
        designs: list[BinaryDesign],
        n_traits: int,
        precision: str = "single",
        rules: VariantFilter | None = None,
        saddlepoint_above: float = SADDLEPOINT_ABOVE,
    ) -> None:
        if precision not in ("single", "double"):
            raise OptionError(f"precision is {precision!r}; give 'single' or 'double'.")
        if not saddlepoint_above > 0:
            raise OptionError(f"saddlepoint_above is {saddlepoint_above}; give a positive number.")
        rules = VariantFilter() if rules is None else rules
        groups = [_Group(part, precision, rules, saddlepoint_above) for part in designs]
        super().__init__(source, groups, n_traits)


class _Group:
    """The traits of one design."""

    def __init__(
        self, null: BinaryDesign, precision: str, rules: VariantFilter, cut: float
    ) -> None:
        from plait.gwas.binary_kernels import N_SHIFTS, totals_of_shifted

        self.null, self.rules, self.cut = null, rules, float(cut)
        self.design, self.columns = null.design, null.design.columns
        self.dtype = np.dtype(np.float32 if precision == "single" else np.float64)
        parts = [
            np.column_stack([weights[:, None] * loadings, residuals])
            for weights, loadings, residuals in zip(
                null.weights, null.loadings, null.residuals, strict=True
            )
        ]
        self.regressors = padded(np.hstack(parts), self.dtype)
        self.weights = padded(null.weights.T, self.dtype)
        self.totals = np.empty((len(null.probabilities), N_SHIFTS, 4))
        totals_of_shifted(null.probabilities, self.totals)

    def run(self, block: GenotypeBlock) -> Associations:
        from plait.gwas.binary_kernels import score_statistics

        null, n = self.null, len(block)
        n_traits, n_samples, p = null.loadings.shape
        block = block.of_samples(null.design.rows)
        beta, se, log10p = np.full((3, n, n_traits), np.nan)
        again = np.zeros((n, n_traits), dtype=np.bool_)
        for part, tile, used in block.tiles(self.dtype):
            products = (tile @ self.regressors).astype(np.float64)[used]
            squares = (tile**2 @ self.weights).astype(np.float64)[used]
            outputs = beta[part], se[part], log10p[part], again[part]
            score_statistics(products, squares, p, self.cut, *outputs)
        removed = self.rules.removed(block.calls)
        gone = np.logical_or.reduce(list(removed.values()))
        again[gone] = False
        self._do_again(block, beta, se, log10p, again)
        se[again] = np.abs(beta[again]) / absolute_z_of_log10_p(log10p[again])
        for array in (beta, se, log10p):
            array[gone] = np.nan
        filtered = {name: int(flags.sum()) * n_traits for name, flags in removed.items()}
        filtered["collinearity with the covariates"] = int(np.isnan(beta[~gone]).sum())
        samples = np.full((n, n_traits), n_samples)
        return Associations(beta, se, log10p, samples, block.calls.frequency, filtered)

    def _do_again(
        self,
        block: GenotypeBlock,
        beta: Array,
        se: Array,
        log10p: Array,
        again: NDArray[np.bool_],
    ) -> None:
        """Do tests in double precision, some variants at a time, which take eight bytes a copy."""
        from plait.gwas.binary_kernels import saddlepoint_statistics

        null, marked = self.null, np.flatnonzero(again.any(axis=1))
        model = null.loadings, null.probabilities, null.residuals, self.totals
        for first in range(0, len(marked), TILE):
            rows = marked[first : first + TILE]
            outputs = beta, se, log10p, again
            saddlepoint_statistics(*block.rarer_copies(rows), rows, *model, self.cut, *outputs)


def cases_and_controls(traits: SampleTable) -> SampleTable:
    """Return binary traits as 1 for cases and 0 for controls.

    Raises
    ------
    InputError
        A trait is neither of 0 and 1 nor of 1 and 2; the message names it and its values.
    TooFewSamplesError
        A trait has no value.
    """
    values = traits.values.copy()
    for column, name in zip(values.T, traits.names, strict=True):
        if not is_binary(column):
            found = np.unique(column[~np.isnan(column)])
            if not len(found):
                raise TooFewSamplesError(
                    f"trait {name!r} has no value in any of {len(column):,} samples; leave it out."
                )
            shown = ", ".join(f"{value:g}" for value in found[:5]) + (", ..." * (len(found) > 5))
            raise InputError(
                f"model='logistic' takes traits of controls and cases, written 0 and 1, or 1 and "
                f"2; {name!r} has {counted(len(found), 'value')} ({shown}). Take model='linear' "
                "for it, or correct it."
            )
        column -= np.nanmin(column)
    return SampleTable(traits.samples, traits.names, values)


def binary_traits(traits: SampleTable) -> list[str]:
    """Return the names of the traits that are of cases and controls."""
    pairs = zip(traits.names, traits.values.T, strict=True)
    return [name for name, column in pairs if is_binary(column)]


def make_binary_designs(
    traits: SampleTable, covariates: SampleTable | None, rows: NDArray[np.intp]
) -> list[BinaryDesign]:
    """Group binary traits by the samples they were measured on, and fit them without variants.

    Parameters
    ----------
    traits : SampleTable
        Of 0 and 1; see `cases_and_controls`.
    covariates, rows
        As in `plait.gwas.design.make_designs`.

    Raises
    ------
    InputError
        Covariates tell cases from controls perfectly, all or some, so that there is no fit.
    TooFewSamplesError, ConstantTraitError
        As `plait.gwas.design.make_designs`.
    """
    made = []
    for design in make_designs(traits, covariates, rows):
        used = np.searchsorted(rows, design.rows)
        outcomes = traits.values[np.ix_(used, design.columns)].T
        fits, loadings = [], []
        for column, y in zip(design.columns.tolist(), outcomes, strict=True):
            probabilities = fit_null(design.basis, y)
            if probabilities is None:
                _explain_separation(traits.names[column], y, covariates, used)
            fits.append(probabilities)
            loadings.append(weighted_basis(design.basis, probabilities))
        mu = np.array(fits)
        n_cases = outcomes.sum(axis=1).astype(np.int64)
        for column, cases in zip(design.columns.tolist(), n_cases.tolist(), strict=True):
            _log.info("%s: %d cases, %d controls", traits.names[column], cases, len(used) - cases)
        made.append(BinaryDesign(design, mu, outcomes - mu, np.array(loadings), n_cases))
    return made


def weighted_basis(basis: Array, probabilities: Array) -> Array:
    """Return covariates (N, p) orthonormal in the metric of the variances of the outcomes."""
    weights = probabilities * (1.0 - probabilities)
    triangle = np.linalg.qr(np.sqrt(weights)[:, None] * basis)[1]
    loadings: Array = np.linalg.solve(triangle.T, basis.T).T
    return loadings


def fit_null(basis: Array, y: Array) -> Array | None:
    """Return the fitted probabilities of a logistic regression.

    Parameters
    ----------
    basis : (N, p) array
        Orthonormal, the first column constant.
    y : (N,) array
        0 and 1.

    Returns
    -------
    (N,) array or None
        None where there is no fit, because some samples are separated perfectly.

    Notes
    -----
    Newton's method, steps halved while the likelihood falls. Where a combination of the covariates
    separates samples, the likelihood still converges but their linear predictors move on by about 1
    each step: that they come to rest is asked for too.
    """
    share = y.mean()
    if not 0 < share < 1:
        return None
    eta = np.full(len(y), np.log(share / (1.0 - share)))
    deviance = _deviance(eta, y)
    for _ in range(_ITERATIONS):
        mu = _logistic(eta)
        weights = mu * (1.0 - mu)
        score = basis.T @ (y - mu)
        try:
            step = np.linalg.solve((basis * weights[:, None]).T @ basis, score)
        except np.linalg.LinAlgError:
            return None
        change = basis @ step
        if not np.isfinite(change).all():
            return None
        for _ in range(_ITERATIONS):
            trial = _deviance(eta + change, y)
            if trial <= deviance * (1.0 + 1e-12):
                break
            change *= 0.5
        eta, deviance = eta + change, trial
        if score @ step < _CONVERGED and np.abs(change).max() < _STEADY:
            return _logistic(eta)
    return None


def _logistic(eta: Array) -> Array:
    from scipy.special import expit

    result: Array = expit(eta)
    return result


def _deviance(eta: Array, y: Array) -> float:
    return float(2.0 * (np.logaddexp(0.0, eta) - y * eta).sum())


def _explain_separation(
    trait: str, y: Array, covariates: SampleTable | None, used: NDArray[np.intp]
) -> NoReturn:
    """Raise, naming a covariate that separates alone if there is one."""
    who = "the covariates together tell"
    pairs = () if covariates is None else zip(covariates.names, covariates.values.T, strict=True)
    for name, column in pairs:
        values = column[used]
        cases, controls = values[y == 1], values[y == 0]
        if cases.max() <= controls.min() or controls.max() <= cases.min():
            who = f"the covariate {name!r} tells"
            break
    raise InputError(
        f"trait {trait!r}: {who} some cases and controls apart without error (a group with cases "
        "only, or with controls only, does), so that the logistic regression has no fit. Merge "
        "such groups, or leave the covariate or those samples out."
    )
