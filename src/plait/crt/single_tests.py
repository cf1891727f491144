"""Tests of one treatment and one outcome given covariates: normal, resampled and saddlepoint.

The three tests of Niu, Choudhury and Katsevich (2024): x and y are each compared with their means
given the covariates Z, and the test asks whether what is left of the two goes together. They differ
in the null distribution of ``T = n^(-1/2) sum_i (x_i - E x_i) (y_i - E y_i)``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.crt.arguments import number_array, whole_number
from plait.crt.single_fits import (
    FAMILIES,
    check_family,
    dispersion_given_mean,
    fitted_mean,
    forest_mean,
)
from plait.data.words import counted
from plait.errors import InputError, OptionError, ShapeError, TooFewSamplesError

Array = NDArray[np.float64]

_SIDES = ("two.sided", "greater", "less")
_FITS = ("glm", "forest")
_MOST_RESAMPLES = 10**9
_FIRST_BRACKET = 5.0
_LARGEST_EXPONENT = 600.0
_NEAR_MEAN = 0.03
_FEWEST_EVENTS = 1.0
"""Variance of the number of treatments below which their law is one point and no saddlepoint."""
_BLOCK = 2**20
"""Numbers that are drawn at a time."""
_TIE = 1e-12
_EXPLAINED = 1e-8
"""Share of the largest value up to which residuals are what a regression leaves by rounding."""


@dataclass(frozen=True, slots=True)
class SingleTest:
    """The result of one test.

    Attributes
    ----------
    statistic : float
        T; of `gcm_test` T divided by its standard deviation.
    p_value : float
        In [0, 1].
    log10_p : float
        Its logarithm, which holds what is below 1e-308.
    success : bool
        Whether the p-value is the method's own; False where `spacrt_test` had no saddlepoint and
        took the normal p-value of `gcm_test`.
    """

    statistic: float
    p_value: float
    log10_p: float
    success: bool = True


def gcm_test(
    x: ArrayLike,
    y: ArrayLike,
    Z: ArrayLike,
    *,
    x_family: str = "binomial",
    y_family: str = "negative.binomial",
    x_mean: ArrayLike | None = None,
    y_mean: ArrayLike | None = None,
    side: str = "two.sided",
    x_fit: str = "glm",
    y_fit: str = "glm",
    seed: int = 0,
    threads: int | None = None,
) -> SingleTest:
    """Test by the generalised covariance measure, whose null is normal.

    Parameters
    ----------
    x, y : (n,) arrays
        Treatment and outcome.
    Z : (n, p) array
        Covariates, without an intercept.
    x_family, y_family : {"binomial", "poisson", "negative.binomial"}
        The generalised linear models of x and y given Z ("binomial", "negative.binomial"). Not
        used of means that are given or come from a forest; x and y may then be any numbers.
    x_mean, y_mean : (n,) array, optional
        Means of x and y given Z from elsewhere; of whatever learns from the data, those of
        observations that it has not seen.
    side : {"two.sided", "greater", "less"}
        Of the association between what is left of x and y.
    x_fit, y_fit : {"glm", "forest"}
        How means that are not given are fitted: a generalised linear model with an intercept, or a
        random forest, whose means are those out of bag (`plait.crt.single_fits.forest_mean`).
    seed : int
        Of random forests (0).
    threads : int, optional
        Of random forests; default all cores. Never changes the numbers.

    Returns
    -------
    SingleTest

    Raises
    ------
    OptionError, InputError, ShapeError
        An option is unknown, x or y is not of its family, values are not finite, or lengths differ.
    InputTypeError
        Values are no numbers (also a TypeError).
    DependencyError
        A forest is asked for and scikit-learn is not installed.
    TooFewSamplesError
        A forest is asked for of fewer than 20 observations.

    Warns
    -----
    ConvergenceWarning
        A regression did not converge.

    Notes
    -----
    With ``pi_i = (x_i - E x_i) (y_i - E y_i)`` the statistic is ``n^(-1/2) sum pi / sd(pi)`` (Shah
    and Peters 2020, Annals of Statistics 48). Time O(n p^2) for each step of a regression. Where
    the covariates explain all of x or y, which leaves rounding errors as residuals, T is 0 and p 1.

    P-values are right as far as the product of the errors of the two means is small beside
    ``n^(-1/2)``. A linear model that lacks a curve that x and y share finds effects that are none.
    In simulations of such a curve without effects (``tests/crt/test_single_forests.py``; forests of
    100 trees) generalised linear models rejected 54 of 60 at level 0.05 with 400 observations and 3
    covariates, forests 3; with 1000 observations and 5 covariates forests rejected 9 of 120. They
    are a repair, not a guarantee: with few observations or many covariates forests smooth too much,
    and p-values are too small.
    """
    data = _Pair.of(
        x, y, Z, side, families=(x_family, y_family), means=(x_mean, y_mean), fits=(x_fit, y_fit),
        seed=seed, threads=threads,
    )  # fmt: skip
    return _gcm(data, side)


def dcrt_test(
    x: ArrayLike,
    y: ArrayLike,
    Z: ArrayLike,
    *,
    x_family: str = "binomial",
    y_family: str = "negative.binomial",
    x_mean: ArrayLike | None = None,
    y_mean: ArrayLike | None = None,
    side: str = "two.sided",
    B: int = 5000,
    seed: int = 0,
    x_fit: str = "glm",
    y_fit: str = "glm",
    threads: int | None = None,
) -> SingleTest:
    """Test by drawing x from its fitted law (the distilled conditional randomization test).

    Parameters
    ----------
    x, y, Z, y_family, x_mean, y_mean, side, x_fit, y_fit, threads
        As of `gcm_test`.
    x_family : {"binomial", "poisson", "negative.binomial"}
        The law that x is drawn from, with its mean; of "negative.binomial" the dispersion is fitted
        to x. Means from a forest are kept at 1 / (2 n) or more and, of "binomial", at 1 - 1 / (2 n)
        or less: where no tree has seen a treatment, half an observation is thought of.
    B : int
        Draws (5000).
    seed : int
        Of the draws and of random forests (0).

    Returns
    -------
    SingleTest
        One side: ``(1 + count) / (B + 1)``, ties counted; both: twice the smaller, at
        most 1.

    Raises
    ------
    OptionError, InputError, ShapeError, InputTypeError, DependencyError, TooFewSamplesError
        As of `gcm_test`; also B below 1, x not of its law, or a mean that the
        law cannot have.

    Warns
    -----
    ConvergenceWarning
        A regression did not converge.

    Notes
    -----
    Algorithm 1 of Niu et al. (2024), after Liu, Katsevich, Janson and Ramdas (2022), Biometrika
    109. Time O(n B) random numbers; see `spacrt_test` for the limit of many. Valid where
    the law of x is known or well estimated; what `gcm_test` says of forests holds here too (in its
    simulations 2 of 60 and 10 of 120 were rejected by the limit of many draws). The means have to
    be those out of bag: of means in sample, whose law has seen x, p-values are not uniform.
    """
    B = whole_number(B, "B", least=1, most=_MOST_RESAMPLES)
    data = _Pair.of(
        x, y, Z, side, families=(x_family, y_family), means=(x_mean, y_mean), fits=(x_fit, y_fit),
        law=x_family, seed=seed, threads=threads,
    )  # fmt: skip
    _require_law(data, x_family)
    sequence = np.random.SeedSequence(whole_number(seed, "seed", least=0))
    random = np.random.Generator(np.random.PCG64DXSM(sequence))
    w, observed = data.y_residuals, float(data.x_residuals @ data.y_residuals)
    centre = float(data.x_mean @ w)
    tie = _TIE * float(np.abs(w) @ (np.abs(data.x) + data.x_mean))
    above = below = 0
    rows = max(1, _BLOCK // len(w))
    for start in range(0, B, rows):
        size = (min(rows, B - start), len(w))
        null = _drawn(random, data, x_family, size) @ w - centre
        above += int((null >= observed - tie).sum())
        below += int((null <= observed + tie).sum())
    greater, less = (1.0 + above) / (B + 1.0), (1.0 + below) / (B + 1.0)
    p = {"greater": greater, "less": less, "two.sided": min(1.0, 2.0 * min(greater, less))}[side]
    return SingleTest(observed / math.sqrt(len(w)), p, math.log10(p))


def spacrt_test(
    x: ArrayLike,
    y: ArrayLike,
    Z: ArrayLike,
    *,
    x_family: str = "binomial",
    y_family: str = "negative.binomial",
    x_mean: ArrayLike | None = None,
    y_mean: ArrayLike | None = None,
    side: str = "two.sided",
    x_fit: str = "glm",
    y_fit: str = "glm",
    seed: int = 0,
    threads: int | None = None,
) -> SingleTest:
    """Test as if x were drawn infinitely often, by a saddlepoint.

    Parameters
    ----------
    x, y, Z, x_mean, y_mean, y_family, side, x_fit, y_fit, seed, threads
        As of `gcm_test`.
    x_family : {"binomial", "poisson"}
        The law of x, with its mean; means from a forest are kept inside as in `dcrt_test`.

    Returns
    -------
    SingleTest
        Two-sided: twice the smaller tail, at most 1. Where there is no saddlepoint (T at the end
        of what x can give, or covariates that leave the sum of x a variance below 1) the result of
        `gcm_test`, and ``success`` is False.

    Raises
    ------
    OptionError, InputError, ShapeError, InputTypeError, DependencyError, TooFewSamplesError
        As of `gcm_test`; also x not of its law, or a mean that the law cannot have.

    Warns
    -----
    ConvergenceWarning
        A regression did not converge.

    Notes
    -----
    The approximation of Niu, Choudhury and Katsevich (2024) to `dcrt_test` of infinitely many
    draws; time O(n) for each of about 10 steps of the search. The cumulant generating function of
    ``sum x_i w_i``, ``w = y - E y``, is ``sum ln(1 + p (e^(s w) - 1))`` or ``sum p (e^(s w) - 1)``;
    its tail is Barndorff-Nielsen's r*, which agrees with the Lugannani and Rice formula of the
    paper to the order of its error and stays in [0, 1]. Not the test of `plait.crt.analytic`:
    there the outcome is residualised on the covariates of x too, and divided by what they leave of
    x.
    """
    if x_family not in ("binomial", "poisson"):
        raise OptionError(
            f"the family of x is {x_family!r}; a saddlepoint is there for 'binomial' and 'poisson'."
        )
    data = _Pair.of(
        x, y, Z, side, families=(x_family, y_family), means=(x_mean, y_mean), fits=(x_fit, y_fit),
        law=x_family, seed=seed, threads=threads,
    )  # fmt: skip
    _require_law(data, x_family)
    observed = float(data.x_residuals @ data.y_residuals)
    tails = {}
    for name, sign in (("greater", 1.0), ("less", -1.0)):
        if side in (name, "two.sided"):
            tails[name] = _log_tail(
                sign * observed, sign * data.y_residuals, data.x_mean, x_family == "binomial"
            )
    log_p = min(tails.values()) + (math.log(2.0) if side == "two.sided" else 0.0)
    if any(math.isnan(tail) for tail in tails.values()):
        normal = _gcm(data, side)
        return SingleTest(normal.statistic, normal.p_value, normal.log10_p, success=False)
    log_p = min(log_p, 0.0)
    return SingleTest(observed / math.sqrt(len(data.x)), math.exp(log_p), log_p / math.log(10.0))


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """A treatment and an outcome with their means given the covariates."""

    x: Array
    x_mean: Array
    x_residuals: Array
    y: Array
    y_residuals: Array
    dispersion: float

    @classmethod
    def of(
        cls,
        x: ArrayLike,
        y: ArrayLike,
        Z: ArrayLike,
        side: str,
        *,
        families: tuple[str, str],
        means: tuple[ArrayLike | None, ArrayLike | None],
        fits: tuple[str, str],
        seed: int,
        threads: int | None,
        law: str | None = None,
    ) -> "_Pair":
        """Check the data and fit the means that are not given; x is of a law if one is named."""
        if side not in _SIDES:
            raise OptionError(f"side is {side!r}; give one of {', '.join(_SIDES)}.")
        if unknown := [family for family in families if family not in FAMILIES]:
            raise OptionError(f"the family is {unknown[0]!r}; give one of {', '.join(FAMILIES)}.")
        values, covariates = _checked(x, y, Z, means)
        if law is not None:
            check_family(values["x"], law, "x")
        fitted, dispersion = {}, math.inf
        for place, (name, family, fit) in enumerate(zip("xy", families, fits, strict=True)):
            if fit not in _FITS:
                raise OptionError(f"{name}_fit is {fit!r}; give one of {', '.join(_FITS)}.")
            theta = math.inf
            if f"{name}_mean" in values:
                if fit != "glm":
                    raise OptionError(f"{name}_mean is given; {name}_fit={fit!r} fits nothing.")
                fitted[name] = values[f"{name}_mean"]
            elif fit == "glm":
                fitted[name], theta = fitted_mean(values[name], covariates, family, name)
            else:
                fitted[name] = forest_mean(
                    values[name], covariates, name, seed=_forest_seed(seed, place), threads=threads
                )
                if name == "x" and law is not None:
                    fitted[name], theta = _within_law(values[name], fitted[name], law)
            dispersion = theta if name == "x" else dispersion
        return cls(
            values["x"],
            fitted["x"],
            values["x"] - fitted["x"],
            values["y"],
            values["y"] - fitted["y"],
            dispersion,
        )


def _checked(
    x: ArrayLike, y: ArrayLike, Z: ArrayLike, means: tuple[ArrayLike | None, ArrayLike | None]
) -> tuple[dict[str, Array], Array]:
    """Return values and means by their names, and covariates (n, p): finite, of one length."""
    given = {"x": x, "y": y} | {
        f"{name}_mean": mean for name, mean in zip("xy", means, strict=True) if mean is not None
    }
    arrays = {name: number_array(value, name) for name, value in given.items()}
    covariates = number_array(Z, "Z")
    covariates = covariates[:, None] if covariates.ndim == 1 else covariates
    n = arrays["x"].size
    for name, array in (arrays | {"Z": covariates}).items():
        if array.ndim != (2 if name == "Z" else 1) or len(array) != n:
            raise ShapeError(
                f"{name} has the shape {array.shape}; {counted(n, 'observation')} are needed, as "
                "many as of x."
            )
        if not np.isfinite(array).all():
            count = int((~np.isfinite(array)).sum())
            raise InputError(f"{name} has {counted(count, 'value')} not finite.")
    if n < 2:
        raise TooFewSamplesError(f"x has {counted(n, 'observation')}; at least 2 are needed.")
    return arrays, covariates


def _forest_seed(seed: int, place: int) -> int:
    """Return the seed of the forest of x (0) or y (1), which no draws of x share."""
    sequence = np.random.SeedSequence(whole_number(seed, "seed", least=0), spawn_key=(1, place))
    return int(sequence.generate_state(1)[0])


def _within_law(x: Array, mean: Array, law: str) -> tuple[Array, float]:
    """Return means that the law can have, and its dispersion."""
    least = 1.0 / (2.0 * len(x))
    mean = np.clip(mean, least, 1.0 - least if law == "binomial" else None)
    return mean, dispersion_given_mean(x, mean) if law == "negative.binomial" else math.inf


def _gcm(data: _Pair, side: str) -> SingleTest:
    from scipy.special import log_ndtr

    for values, residuals in ((data.x, data.x_residuals), (data.y, data.y_residuals)):
        if 0.0 < np.abs(residuals).max() <= _EXPLAINED * np.abs(values).max():
            return SingleTest(0.0, 1.0, 0.0)
    products = data.x_residuals * data.y_residuals
    spread = float(products.std())
    if not spread > 0.0:
        raise InputError(
            "the products of the residuals of x and y do not vary; there is nothing to test."
        )
    statistic = math.sqrt(len(products)) * float(products.mean()) / spread
    value = {"two.sided": -abs(statistic), "greater": -statistic, "less": statistic}[side]
    log_p = float(log_ndtr(value)) + (math.log(2.0) if side == "two.sided" else 0.0)
    log_p = min(log_p, 0.0)
    return SingleTest(statistic, math.exp(log_p), log_p / math.log(10.0))


def _require_law(data: _Pair, family: str) -> None:
    largest = 1.0 if family == "binomial" else math.inf
    if not ((data.x_mean >= 0.0) & (data.x_mean <= largest)).all():
        raise InputError(
            f"means of x must lie between 0 and {largest:g} for the {family} law; they are between "
            f"{data.x_mean.min():g} and {data.x_mean.max():g}."
        )
    impossible = (data.x_mean == 0.0) & (data.x != 0.0)
    if family == "binomial":
        impossible |= (data.x_mean == 1.0) & (data.x != 1.0)
    if impossible.any():
        raise InputError(
            f"values of x impossible by their means: {int(impossible.sum()):,} (first: "
            f"number {int(np.argmax(impossible)) + 1}, from 1); give means that allow what is "
            "there."
        )
    if family == "negative.binomial" and math.isinf(data.dispersion):
        raise OptionError(
            "means of x were given, but not the dispersion of its negative binomial law; let x be "
            "fitted, or give 'poisson'."
        )


def _drawn(random: np.random.Generator, data: _Pair, family: str, size: tuple[int, int]) -> Array:
    """Return resampled treatments, (draws, n)."""
    if family == "binomial":
        return (random.random(size) < data.x_mean).astype(np.float64)
    rates = np.broadcast_to(data.x_mean, size)
    if family == "negative.binomial":
        rates = rates * random.standard_gamma(data.dispersion, size) / data.dispersion
    return random.poisson(rates).astype(np.float64)


def _log_tail(c: float, w: Array, p: Array, binary: bool) -> float:
    """Return ``ln P(sum (x - p) w >= c)``; NaN without a saddlepoint."""
    from scipy.optimize import brentq

    from plait.numerics.saddlepoint_kernels import tail_near_mean, tail_of_signed_root

    used = (w != 0.0) & (p > 0.0) & ((p < 1.0) if binary else True)
    w, p = w[used], p[used]
    v = p * (1.0 - p) if binary else p
    variance = float(v @ w**2)
    if not variance > 0.0 or float(v.sum()) < _FEWEST_EVENTS:
        return math.nan
    z = c / math.sqrt(variance)
    third = float((v * (1.0 - 2.0 * p) if binary else v) @ w**3)
    if abs(z) < _NEAR_MEAN:
        return float(tail_near_mean(z, third / variance**1.5))
    slope = _binomial_slope if binary else _poisson_slope
    bracket = _bracket(lambda s: slope(s, w, p)[0] - c, float(np.abs(w).max()))
    if bracket is None:
        return math.nan
    s = float(brentq(lambda s: slope(s, w, p)[0] - c, *bracket, xtol=1e-14, rtol=1e-12))
    level = _binomial_level(s, w, p) if binary else float(p @ (np.expm1(s * w) - s * w))
    curvature = slope(s, w, p)[1]
    return float(tail_of_signed_root(s * c - level, s * math.sqrt(curvature)))


def _bracket(gap: Callable[[float], float], largest_weight: float) -> tuple[float, float] | None:
    """Return where an increasing function changes its sign: [-5, 5], doubled while it does not."""
    end = min(_FIRST_BRACKET, _LARGEST_EXPONENT / largest_weight)
    limit = max(end, _LARGEST_EXPONENT / largest_weight)
    while True:
        if gap(-end) <= 0.0 <= gap(end):
            return -end, end
        if end >= limit:
            return None
        end = min(2.0 * end, limit)


def _binomial_slope(s: float, w: Array, p: Array) -> tuple[float, float]:
    """Return K' and K'' of ``sum (x - p) w`` for Bernoulli x, without overflow."""
    tail = np.exp(-np.abs(s * w))
    above = np.where(s * w > 0.0, p, p * tail)
    below = np.where(s * w > 0.0, (1.0 - p) * tail, 1.0 - p)
    q = above / (above + below)
    return float((q - p) @ w), float((q * (1.0 - q)) @ w**2)


def _poisson_slope(s: float, w: Array, p: Array) -> tuple[float, float]:
    """Return K' and K'' of ``sum (x - p) w`` for Poisson x."""
    return float((p * np.expm1(s * w)) @ w), float((p * np.exp(s * w)) @ w**2)


def _binomial_level(s: float, w: Array, p: Array) -> float:
    """Return K of ``sum (x - p) w`` for Bernoulli x: ``ln(1 + p expm1(s w))`` without overflow."""
    a = s * w
    near = np.log1p(p * np.expm1(np.minimum(a, 1.0)))
    far = a + np.log(p + (1.0 - p) * np.exp(-np.maximum(a, 1.0)))
    return float((np.where(a > 1.0, far, near) - p * a).sum())
