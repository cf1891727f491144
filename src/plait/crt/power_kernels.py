"""Compiled loops of the power of a gene's score test against a fold change in treated cells.

With fitted means mu for cells without an effect, treated cells have the mean ``mu (1 + f)`` and,
as the covariates take up the share h of a treatment, the gene's regression finds
``mu (1 + f h)``. Cells then have scores ``e = (y - mu (1 + f h)) / (1 + mu (1 + f h) / theta)``.
A tail of z beyond t is, to first order in resampled treatments x with chances p (see
`plait.crt.gene_tail_kernels.project_variance`), that of ``sum (x - p) (e - s g)`` with
``s = t / (2 sqrt V)``; both what treatments find and what resamples would are described by
expected cumulants of this sum over negative binomial counts.
"""

import math

import numpy as np

from plait.crt.gene_tail_kernels import project_variance
from plait.crt.negative_binomial_kernels import add_products, cholesky, solve_factored
from plait.numerics.compiled import njit
from plait.numerics.saddlepoint_kernels import ANY_ORDER

_SMALLEST_RATIO = 0.02
"""Of a mean that is found to one that is fitted, where covariates would take up more."""
_ROUNDS = 4
_NO_SKEWNESS = 1e-4
_LARGEST_CORRECTION = 0.25
_LARGEST_CHANGE = 1023.0
_STEPS = 40
_SAME_CHANGE = 1e-4
"""Relative to the fold change."""
_SAME_POWER = 1e-3


@njit(nogil=True, cache=True, error_model="numpy")
def fill_projection(design, mean, factor):  # type: ignore[no-untyped-def]
    """Fill the Cholesky factor of ``X' diag(mean) X``, of a Poisson regression with these means."""
    buffer = np.empty(mean.shape[0])
    factor[:] = 0.0
    add_products(design, 0, mean, buffer, factor)
    cholesky(factor)


@njit(nogil=True, cache=True, error_model="numpy")
def _fill_fitted(design, factor, coefficients, out):  # type: ignore[no-untyped-def]
    solve_factored(factor, coefficients)
    out[:] = 0.0
    for j in range(design.shape[0]):
        for i in range(out.shape[0]):
            out[i] += design[j, i] * coefficients[j]


@njit(nogil=True, cache=True, error_model="numpy")
def prepare_pair(  # type: ignore[no-untyped-def]
    design, factor, parts, mean, treated, chances, is_permuted, taken_up, influence, g
):
    """Fill what a treatment's power needs of every cell; return V and ``sum (x - p) g``.

    ``taken_up``: the share h of the treatment that the regression takes for covariates.
    ``influence``: what a cell's residual takes from ``sum (x - p) e`` by changing the regression.
    ``g``: coefficients of V.
    """
    q, n = design.shape
    toward, correction = np.zeros(q), np.zeros(q)
    for j in range(q):
        for i in treated:
            toward[j] += mean[i] * design[j, i]
            correction[j] += parts[1, i] * design[j, i]
        for i in range(n):
            correction[j] -= chances[i] * parts[1, i] * design[j, i]
    _fill_fitted(design, factor, toward, taken_up)
    _fill_fitted(design, factor, correction, influence)
    variance, level = project_variance(parts, chances, is_permuted, g)
    observed = -level
    for i in treated:
        observed += g[i]
    return variance, observed


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _average_score(mean, theta, is_treated, taken_up, change):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(mean.shape[0]):
        found = mean[i] * max(1.0 + change * taken_up[i], _SMALLEST_RATIO)
        true = mean[i] * (1.0 + change * is_treated[i])
        total += (true - found) / (1.0 + found / theta)
    return total / mean.shape[0]


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def fill_cumulants(  # type: ignore[no-untyped-def]
    mean, theta, is_treated, chances, taken_up, influence, g, is_permuted, change, sums
):
    """Fill expected sums at a fold change of ``1 + change``; see `tail_power` for their order."""
    n = mean.shape[0]
    centre, centre_of_g = 0.0, 0.0
    if is_permuted:
        centre = _average_score(mean, theta, is_treated, taken_up, change)
        centre_of_g = g.mean()
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = s9 = s10 = s11 = s12 = s13 = 0.0
    for i in range(n):
        found = mean[i] * max(1.0 + change * taken_up[i], _SMALLEST_RATIO)
        true = mean[i] * (1.0 + change * is_treated[i])
        scale = 1.0 / (1.0 + found / theta)
        spread = true / theta
        variance = true * (1.0 + spread)
        third = variance * (1.0 + 2.0 * spread)
        fourth = variance * (1.0 + 6.0 * spread * (1.0 + spread))
        p = chances[i]
        v = p * (1.0 - p)
        contrast = is_treated[i] - p
        weight = contrast * scale - influence[i]
        shift = (true - found) * scale
        # What is observed: mean, variance and third cumulant.
        s0 += contrast * shift
        s1 += weight * weight * variance
        s2 += weight * weight * weight * third
        # What resamples find: moments of e, with those of g.
        e1, d = shift - centre, g[i] - centre_of_g
        square = scale * scale
        m2, m3 = variance * square, third * square * scale
        m4 = fourth * square * square + 3.0 * m2 * m2
        e2 = m2 + e1 * e1
        e3 = m3 + 3.0 * e1 * m2 + e1 * e1 * e1
        e4 = m4 + 4.0 * e1 * m3 + 6.0 * e1 * e1 * m2 + e1 * e1 * e1 * e1
        odd = v * (1.0 - 2.0 * p)
        s3 += v * e2
        s4 += v * d * e1
        s5 += v * d * d
        s6 += odd * e3
        s7 += odd * d * e2
        s8 += odd * d * d * e1
        s9 += odd * d * d * d
        s10 += v * (1.0 - 6.0 * v) * e4
        # How the two go together, and the spread of the second.
        s11 += v * weight * (third * square + 2.0 * e1 * variance * scale)
        s12 += v * v * (m4 - m2 * m2 + 4.0 * e1 * (m3 + e1 * m2))
        s13 += v
    found_sums = (s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13)
    for k in range(len(found_sums)):
        sums[k] = found_sums[k]


@njit(nogil=True, cache=True, error_model="numpy")
def log_chance_of_none(mean, theta, chances):  # type: ignore[no-untyped-def]
    """Return the log probability that a resample treats no cell with counts.

    No decrease has a smaller p-value.
    """
    total = 0.0
    for i in range(mean.shape[0]):
        total += math.log1p(chances[i] * math.expm1(-theta * math.log1p(mean[i] / theta)))
    return total


@njit(nogil=True, cache=True, error_model="numpy")
def _quantile(z, skewness, kurtosis):  # type: ignore[no-untyped-def]
    """Return the quantile of a standardised sum that the normal z stands for.

    That of a gamma distribution with the skewness (Wilson and Hilferty 1931), which grows with z
    everywhere, as Cornish and Fisher's expansion does not; with their term of the kurtosis that a
    gamma distribution does not have.
    """
    root = z
    if abs(skewness) > _NO_SKEWNESS:
        base = max(1.0 + skewness * z / 6.0 - skewness * skewness / 36.0, 0.0)
        root = 2.0 / skewness * (base * base * base - 1.0)
    change = (kurtosis - 1.5 * skewness * skewness) / 24.0 * z * (z * z - 3.0)
    bound = _LARGEST_CORRECTION * abs(root)
    return root + min(max(change, -bound), bound)


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def tail_power(sums, variance, observed, balance, quantile, sign):  # type: ignore[no-untyped-def]
    """Return the probability that z is beyond a normal quantile's tail on one side.

    ``sums`` of `fill_cumulants`; ``variance`` and ``observed`` of `prepare_pair`; ``balance`` is
    ``1 - 2 p`` of a permutation, else 0. The threshold comes from the cumulants of what resamples
    find, to the fourth; the probability is Edgeworth's of what is observed, whose variance has that
    of the threshold, too.
    """
    tilt, threshold, spread, slope = 0.0, 0.0, 1.0, 1.0
    for _ in range(_ROUNDS):
        s = sign * tilt
        second = sums[3] - 2.0 * s * sums[4] + s * s * sums[5]
        third = sums[6] - 3.0 * s * sums[7] + 3.0 * s * s * sums[8] - s * s * s * sums[9]
        spread = math.sqrt(second)
        skewness = sign * third / (second * spread)
        kurtosis = sums[10] / (second * second) - 3.0 * balance * balance / sums[13]
        slope = _quantile(quantile, skewness, kurtosis)
        threshold = spread * slope
        tilt = threshold / (2.0 * variance)
    threshold += tilt * observed
    total = sums[1] - sign * slope * sums[11] / spread
    total += slope * slope * sums[12] / (4.0 * spread * spread)
    if not total > 0.0:
        return np.nan
    deviation = math.sqrt(total)
    skewness = sign * sums[2] / (total * deviation)
    x = (threshold - sign * sums[0]) / deviation
    tail = 0.5 * math.erfc(x / math.sqrt(2.0))
    density = math.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
    return min(max(tail + density * skewness / 6.0 * (x * x - 1.0), 0.0), 1.0)


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def power_at(  # type: ignore[no-untyped-def]
    mean, theta, is_treated, chances, taken_up, influence, g, is_permuted, variance, observed,
    quantile, sides, can_fall, change, sums
):  # fmt: skip
    """Return the power at a fold change of ``1 + change``: of both ``sides`` together, or of one.

    ``sides`` is 0 (both), 1 (right) or -1 (left); ``can_fall`` says whether a p-value of the left
    side can be small enough at all (`log_chance_of_none`).
    """
    fill_cumulants(
        mean, theta, is_treated, chances, taken_up, influence, g, is_permuted, change, sums
    )
    balance = 1.0 - 2.0 * chances[0] if is_permuted else 0.0
    total = 0.0
    for sign in (-1.0, 1.0):
        if (sides == 0 or sides == sign) and (sign > 0.0 or can_fall):
            total += tail_power(sums, variance, observed, balance, quantile, sign)
    return min(total, 1.0)


@njit(nogil=True, cache=True, error_model="numpy")
def smallest_change(  # type: ignore[no-untyped-def]
    mean, theta, is_treated, chances, taken_up, influence, g, is_permuted, variance, observed,
    quantile, sides, can_fall, power, sign, sums
):  # fmt: skip
    """Return the change (of a fold change ``1 + change``) on one side that is found with a power.

    NaN where none is: where even the loss of all counts, or a thousandfold gain, is not.
    """
    low, high = 0.0, -1.0 if sign < 0.0 else 0.25
    at_low = -power
    while True:
        at_high = power_at(
            mean, theta, is_treated, chances, taken_up, influence, g, is_permuted, variance,
            observed, quantile, sides, can_fall, high, sums
        ) - power  # fmt: skip
        if at_high >= 0.0:
            break
        if sign < 0.0 or high >= _LARGEST_CHANGE:
            return np.nan
        low, at_low, high = high, at_high, 2.0 * high
    for step in range(_STEPS):
        if abs(high - low) < _SAME_CHANGE * (1.0 + high):
            break
        share = at_low / (at_low - at_high) if step % 3 else 0.5
        middle = low + min(max(share, 0.05), 0.95) * (high - low)
        found = power_at(
            mean, theta, is_treated, chances, taken_up, influence, g, is_permuted, variance,
            observed, quantile, sides, can_fall, middle, sums
        ) - power  # fmt: skip
        if abs(found) < _SAME_POWER:
            return middle
        if found > 0.0:
            high, at_high = middle, found
        else:
            low, at_low = middle, found
    return 0.5 * (low + high)
