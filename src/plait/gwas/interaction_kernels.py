"""Compiled loops of the interaction scan: arrays in, arrays out.

Notation (per variant, of N samples): g is the centred genotype and h = g E its product with the
environment, covariates projected out; ``A = [a b; b c]`` are their products ``g^T g``, ``g^T h``
and ``h^T h``.
"""

import math

import numpy as np

from plait.gwas.kernels import COLLINEAR
from plait.numerics.compiled import njit

_NO_LEVERAGE_LEFT = 1e-6
SAMPLES = 256
"""Samples whose moments are one product of matrices."""
_LOG_10 = math.log(10.0)


@njit(nogil=True, cache=True)
def interaction_statistics(  # type: ignore[no-untyped-def]
    products, squares, p, df, slopes, covariances, joint, left_of_trait
):
    """Fill slopes of g and of h = g E, their covariances, and the joint log10 p, of unit traits.

    ``products`` (n, 2 (p + T)) holds those of g with the basis of the covariates and with the
    traits, then those of h; ``squares`` (n, 3) are ``g^T g``, ``g^T h`` and ``h^T h``. ``slopes``
    is (n, T, 2); ``covariances`` (n, T, 3) those of g, of both, and of h. The joint test of both is
    F with 2 and df degrees of freedom, whose tail is ``(rss / rss_0)^(df / 2)``; ``left_of_trait``
    (n, T) is that ratio. What cannot be told from the covariates, or g from h, stays NaN.
    """
    n_traits = slopes.shape[1]
    width = p + n_traits
    for j in range(products.shape[0]):
        a, b, c = squares[j, 0], squares[j, 1], squares[j, 2]
        for k in range(p):
            g, h = products[j, k], products[j, width + k]
            a -= g * g
            b -= g * h
            c -= h * h
        if not a > COLLINEAR * squares[j, 0]:
            continue
        left = c - b * b / a
        if not left > COLLINEAR * squares[j, 2]:
            continue
        determinant = a * left
        for t in range(n_traits):
            g, h = products[j, p + t], products[j, width + p + t]
            first = (c * g - b * h) / determinant
            second = (h - b * g / a) / left
            rest = max(1.0 - first * g - second * h, 0.0)
            left_of_trait[j, t] = rest
            slopes[j, t, 0], slopes[j, t, 1] = first, second
            variance = rest / df
            covariances[j, t, 0] = variance * c / determinant
            covariances[j, t, 1] = -variance * b / determinant
            covariances[j, t, 2] = variance / left
            joint[j, t] = 0.5 * df * math.log(rest) / _LOG_10 if rest > 0.0 else -np.inf


@njit(nogil=True, cache=True)
def robust_covariances(  # type: ignore[no-untyped-def]
    genotypes, environment, basis, traits, products, squares, shift, slopes, covariances, joint, df
):
    """Replace covariances and joint tests by those that unequal variances do not disturb (HC3).

    MacKinnon and White (1985, Journal of Econometrics 29): ``A^-1 D^T diag(e^2 / (1 - l)^2) D
    A^-1`` with D (N, 2) the columns g and h, e the residuals and l the leverages. Inputs as in
    `interaction_statistics`.

    ``df`` (n, 2), of the main effect where E is 0 (which is ``-shift``) and of the interaction,
    falls to Satterthwaite's (Bell and McCaffrey 2002, Survey Methodology 28): with few carriers
    the variance is estimated from few residuals. ``(tr B)^2 / tr B^2`` with ``B = (I - H) diag(c^2
    / (1 - l)^2) (I - H)`` and c the coefficients of the estimate. ``H = X X^T`` is that of the
    covariates and of D, X their orthonormal columns, so that ``sum_ij H_ij^2 w_i w_j``, which is
    ``|X^T diag(w) X|^2``, takes one pass over the samples: 4 N (p + 2)^2 flops.
    A variant that fits a sample perfectly has no such variance and becomes NaN.
    """
    p, n_traits = basis.shape[1], traits.shape[1]
    width = p + n_traits
    middle = np.empty((n_traits, 3))
    sums = np.empty((2, 2))
    moments = np.empty((p + 2, 2 * (p + 2)))
    for j in range(genotypes.shape[0]):
        if np.isnan(slopes[j, 0, 0]):
            continue
        a, b, c = squares[j, 0], squares[j, 1], squares[j, 2]
        for k in range(p):
            g, h = products[j, k], products[j, width + k]
            a -= g * g
            b -= g * h
            c -= h * h
        known = genotypes[j], environment, basis, traits, products[j], slopes[j]
        if not _sum_over_samples(*known, shift, a, b, c, middle, sums, moments):
            slopes[j], covariances[j], joint[j] = np.nan, np.nan, np.nan
            continue
        for k in range(2):
            spread = sums[k, 1]
            for value in moments[:, k * (p + 2) : (k + 1) * (p + 2)].flat:
                spread += value**2
            own_df = max(sums[k, 0] ** 2 / spread, 1.0) if spread > 0.0 else 1.0
            df[j, k] = min(df[j, k], own_df)
        # The interaction's, not the main effect's: that depends on where E is 0.
        _sandwich(a, b, c, middle, slopes[j], df[j, 1], covariances[j], joint[j])


@njit(nogil=True, cache=True)
def _sum_over_samples(  # type: ignore[no-untyped-def]
    genotype, environment, basis, traits, products, slopes, shift, a, b, c, middle, sums, moments
):
    """Fill the sums over samples that `robust_covariances` takes, for one variant.

    ``middle`` (T, 3) is ``D^T diag(e^2 / (1 - l)^2) D``. ``sums`` (2, 2), of each estimate, are tr
    B and what the diagonals add to tr B^2; ``moments`` (p + 2, 2 (p + 2)) are ``X^T diag(c^2 /
    (1 - l)^2) X`` of both. False where a sample is fitted perfectly; all are without meaning then.
    """
    n_samples, p = basis.shape
    n_traits = traits.shape[1]
    width = p + n_traits
    X, weighted = np.zeros((p + 2, SAMPLES)), np.zeros((2 * (p + 2), SAMPLES))
    weights = np.zeros((2, SAMPLES))
    part = np.empty_like(moments)
    determinant = a * c - b * b
    length, left = math.sqrt(a), math.sqrt(determinant / a)
    middle[:] = 0.0
    sums[:] = 0.0
    moments[:] = 0.0
    for i in range(n_samples):
        g = genotype[i]
        h = g * environment[i]
        place = i % SAMPLES
        leverage = 0.0
        for k in range(p):
            q = basis[i, k]
            g -= q * products[k]
            h -= q * products[width + k]
            leverage += q * q
            X[k, place] = q
        first, second = g / length, (h - b / a * g) / left
        X[p, place], X[p + 1, place] = first, second
        room = 1.0 - leverage - first * first - second * second
        if room < _NO_LEVERAGE_LEFT:
            return False
        slope = (a * h - b * g) / determinant
        main = (c * g - b * h) / determinant - shift * slope
        for k in range(2):
            weight = ((main if k == 0 else slope) / room) ** 2
            sums[k, 0] += weight * room
            sums[k, 1] += weight**2 * (room**2 - (1.0 - room) ** 2)
            weights[k, place] = weight
        for t in range(n_traits):
            e = (traits[i, t] - slopes[t, 0] * g - slopes[t, 1] * h) / room
            middle[t, 0] += e * e * g * g
            middle[t, 1] += e * e * g * h
            middle[t, 2] += e * e * h * h
        if place == SAMPLES - 1 or i == n_samples - 1:
            weights[:, place + 1 :] = 0.0
            weigh(X, weights, weighted)
            np.dot(X, weighted.T, part)
            moments += part
    return True


@njit(nogil=True, cache=True)
def weigh(X, weights, weighted):  # type: ignore[no-untyped-def]
    """Fill the rows of X (P, samples) times those of weights, (weights P, samples)."""
    P = X.shape[0]
    for a in range(weights.shape[0]):
        for b in range(P):
            for i in range(X.shape[1]):
                weighted[a * P + b, i] = weights[a, i] * X[b, i]


@njit(nogil=True, cache=True)
def _sandwich(a, b, c, middle, slopes, df, covariances, joint):  # type: ignore[no-untyped-def]
    """Fill ``A^-1 middle A^-1`` (T, 3) of one variant, and the joint tests (T,) with it."""
    determinant = a * c - b * b
    for t in range(middle.shape[0]):
        m0, m1, m2 = middle[t]
        v0 = (c * c * m0 - 2.0 * b * c * m1 + b * b * m2) / determinant**2
        v1 = (-b * c * m0 + (a * c + b * b) * m1 - a * b * m2) / determinant**2
        v2 = (b * b * m0 - 2.0 * a * b * m1 + a * a * m2) / determinant**2
        covariances[t, 0], covariances[t, 1], covariances[t, 2] = v0, v1, v2
        first, second = slopes[t]
        spread = v0 * v2 - v1 * v1
        if not spread > 0.0:
            joint[t] = np.nan
            continue
        wald = (v2 * first**2 - 2.0 * v1 * first * second + v0 * second**2) / spread
        joint[t] = -0.5 * df * math.log1p(wald / df) / _LOG_10
