"""Compiled loops of analytic p-values of the negative-binomial score statistic.

Notation of `plait.crt.negative_binomial_kernels`; ``K = d d'``. To first order about chances q of
treatment, ``V = mean + sum g (x - q)``; with the tangent of the square root at that mean,
``A - t sqrt(V) >= 0`` is ``sum x b >= c`` with ``b = a - t g / (2 sqrt(mean))`` and
``c = t (sqrt(mean) - sum g q / (2 sqrt(mean)))``. Expanded about the chances p that treatments are
drawn with, that is good near the mean; about the chances that are likely when the event happens
(the tilted ones), it is good in the tail.

Treatments are independent with log odds that differ between cells, or a permutation: all log odds
the same and the number of treated cells given.
"""

import math

import numpy as np

from plait.crt.negative_binomial_kernels import dot, linear_predictor
from plait.numerics.compiled import njit
from plait.numerics.saddlepoint_kernels import (
    ANY_ORDER,
    exp_of_negative,
    first_saddlepoint,
    tail_near_mean,
    tail_of_signed_root,
)

BULK, SADDLEPOINT, SKEWED, FEW_CELLS, BEYOND_SUPPORT, UNDEFINED = 0, 1, 2, 3, 4, 5
"""How a p-value was found, or why it has to be counted."""
LARGEST_SKEWNESS = 2.0
FEWEST_CELLS = 15.0
_LARGEST_BULK_SKEWNESS, _LARGEST_BULK_KURTOSIS = 0.2, 0.3
_SMALLEST_BULK_TAIL = 0.01
_FEWEST_FOR_BULK = 100.0
_NEAR_MEAN = 0.03
_STEPS = 60
_CONVERGED = 1e-9
_CHUNK = 256
"""Cells of which a product of numbers from 1 to 2 is made: below the largest double."""
_EXPANSIONS = 3
_LARGEST_TAIL_TO_EXPAND = math.log(0.003)
_SAME_TAIL = 1e-3
_LARGEST_LOG_ODDS = 13.815509557963773
"""Of the probability 1 - 1e-6."""


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _clip(values, bound):  # type: ignore[no-untyped-def]
    for i in range(values.shape[0]):
        values[i] = min(max(values[i], -bound), bound)


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def fill_log_odds(design, coefficients, log_odds):  # type: ignore[no-untyped-def]
    """Write the log odds of treatment, of probabilities between 1e-6 and 1 - 1e-6."""
    linear_predictor(design, coefficients, 0, log_odds)
    _clip(log_odds, _LARGEST_LOG_ODDS)


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def tilted_chances(log_odds, weights, s, shift, chances):  # type: ignore[no-untyped-def]
    """Write the probabilities with log odds ``log_odds + s weights + shift``."""
    for i in range(log_odds.shape[0]):
        x = log_odds[i] + s * weights[i] + shift
        e = exp_of_negative(-abs(x))
        inverse = 1.0 / (1.0 + e)
        chances[i] = inverse if x > 0.0 else e * inverse


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _weighted_sums(q, w, leverage):  # type: ignore[no-untyped-def]
    """Return sums of ``q w``, ``q (1 - q) |d|^2``, ``q`` and ``q^2``."""
    a, b, c, e = 0.0, 0.0, 0.0, 0.0
    for i in range(q.shape[0]):
        a += q[i] * w[i]
        b += q[i] * (1.0 - q[i]) * leverage[i]
        c += q[i]
        e += q[i] * q[i]
    return a, b, c, e


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _start_g(q, w, leverage, g):  # type: ignore[no-untyped-def]
    for i in range(q.shape[0]):
        g[i] = w[i] - leverage[i] * (1.0 - 2.0 * q[i])


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _subtract(row, factor, g):  # type: ignore[no-untyped-def]
    for i in range(g.shape[0]):
        g[i] -= factor * row[i]


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def project_variance(parts, q, is_permuted, g):  # type: ignore[no-untyped-def]
    """Write first-order coefficients of V about chances q; return its mean and ``sum g q``."""
    columns = parts.shape[0] - 3
    weight, spread, total, squares = _weighted_sums(q, parts[1], parts[2])
    _start_g(q, parts[1], parts[2], g)
    mean = weight - spread
    if is_permuted:
        # Cells that are drawn without replacement repel one another a little: covariances of
        # -v_i v_j / sum v in place of none.
        mean += _repulsion(parts, q, total - squares)
    for j in range(columns):
        u = dot(q, parts[3 + j])
        mean -= u * u
        _subtract(parts[3 + j], 2.0 * u, g)
    level = dot(q, g)
    return mean, level


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _spread_product(q, row):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(q.shape[0]):
        total += q[i] * (1.0 - q[i]) * row[i]
    return total


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def _repulsion(parts, q, spread):  # type: ignore[no-untyped-def]
    total = 0.0
    for j in range(parts.shape[0] - 3):
        u = _spread_product(q, parts[3 + j])
        total += u * u
    return total / spread


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _fill_weights(a, g, sign, factor, weights):  # type: ignore[no-untyped-def]
    for i in range(a.shape[0]):
        weights[i] = sign * a[i] - factor * g[i]


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _first_two(weights, p):  # type: ignore[no-untyped-def]
    """Return sums of p, pw, v and vw."""
    a, b, c, e = 0.0, 0.0, 0.0, 0.0
    for i in range(p.shape[0]):
        v = p[i] * (1.0 - p[i])
        a += p[i]
        b += p[i] * weights[i]
        c += v
        e += v * weights[i]
    return a, b, c, e


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _cumulants(weights, p, centre):  # type: ignore[no-untyped-def]
    """Return cumulants 2 to 4 of ``sum x d``, d = w - centre, and ``sum (v d^2)^2``."""
    second, third, fourth, concentration = 0.0, 0.0, 0.0, 0.0
    for i in range(p.shape[0]):
        v = p[i] * (1.0 - p[i])
        d = weights[i] - centre
        vd2 = v * d * d
        second += vd2
        third += vd2 * d * (1.0 - 2.0 * p[i])
        fourth += vd2 * d * d * (1.0 - 6.0 * v)
        concentration += vd2 * vd2
    return second, third, fourth, concentration


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _tilted_chunk(s, shift, weights, log_odds):  # type: ignore[no-untyped-def]
    """Return sums of q, v, qw, vw and vw^2, then a and b of ``sum ln(1 + e^..) = a + ln b``."""
    total, variance, mean, cross, square = 0.0, 0.0, 0.0, 0.0, 0.0
    linear, product = 0.0, 1.0
    for i in range(weights.shape[0]):
        w = weights[i]
        x = log_odds[i] + s * w + shift
        e = exp_of_negative(-abs(x))
        inverse = 1.0 / (1.0 + e)
        q = inverse if x > 0.0 else e * inverse
        v = e * inverse * inverse
        total += q
        variance += v
        mean += q * w
        cross += v * w
        square += v * w * w
        linear += x if x > 0.0 else 0.0
        product *= 1.0 + e
    return total, variance, mean, cross, square, linear, product


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def tilt(s, shift, weights, log_odds, sums):  # type: ignore[no-untyped-def]
    """Fill sums of q, v, qw, vw and vw^2 under the tilt; return ``sum ln(1 + e^..)``."""
    sums[:] = 0.0
    level = 0.0
    for start in range(0, weights.shape[0], _CHUNK):
        stop = min(start + _CHUNK, weights.shape[0])
        a, b, c, d, e, linear, product = _tilted_chunk(
            s, shift, weights[start:stop], log_odds[start:stop]
        )
        sums[0] += a
        sums[1] += b
        sums[2] += c
        sums[3] += d
        sums[4] += e
        level += linear + math.log(product)
    return level


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def saddlepoint(c, weights, log_odds, is_permuted, deviation, skewness, mean):  # type: ignore[no-untyped-def]
    """Return what `saddlepoint_near` does, from where a sum with three cumulants has its root."""
    s = first_saddlepoint((c - mean) / deviation, skewness) / deviation
    shift = 0.0
    if is_permuted:
        total = 0.0
        for i in range(weights.shape[0]):
            total += weights[i]
        shift = -s * total / weights.shape[0]
    return saddlepoint_near(c, weights, log_odds, is_permuted, s, shift)


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def saddlepoint_near(c, weights, log_odds, is_permuted, s, shift):  # type: ignore[no-untyped-def]
    """Return ``ln P(sum x w >= c)`` with the tilt s and the shift of log odds; NaN without a root.

    The minimum of the convex ``K(s, shift) - s c - shift n1`` by Newton's method with halved steps
    from s and shift on; in a permutation over both, else over s. Barndorff-Nielsen's form; for a
    permutation that of the double saddlepoint (Skovgaard 1987).
    """
    sums = np.empty(5)
    base = tilt(0.0, 0.0, weights, log_odds, sums)
    treated, spread = sums[0], sums[1]
    trial, trial_shift = s, shift
    length, lowest, step, step_of_shift, decrement = 1.0, np.inf, 0.0, 0.0, 0.0
    for _ in range(_STEPS):
        level = tilt(trial, trial_shift, weights, log_odds, sums) - base
        level -= trial * c + trial_shift * treated
        if not level <= lowest - 1e-4 * length * decrement + 1e-9:
            length *= 0.5
        else:
            s, shift, lowest, length = trial, trial_shift, level, 1.0
            curvature, gap = sums[4], sums[2] - c
            if is_permuted:
                excess = sums[0] - treated
                curvature -= sums[3] * sums[3] / sums[1]
                step = -(gap - sums[3] * excess / sums[1]) / curvature
                step_of_shift = -(excess + sums[3] * step) / sums[1]
                decrement = -gap * step - excess * step_of_shift
            else:
                step = -gap / curvature
                decrement = -gap * step
            if not (curvature > 0.0 and math.isfinite(decrement)):
                break
            if decrement < _CONVERGED:
                scale = math.sqrt(curvature * (sums[1] / spread if is_permuted else 1.0))
                log_p = tail_of_signed_root(0.5 * decrement - lowest, (s + step) * scale)
                return log_p, s + step, shift + step_of_shift
        trial, trial_shift = s + length * step, shift + length * step_of_shift
    return np.nan, np.nan, np.nan


@njit(nogil=True, cache=True, error_model="numpy")
def _edgeworth_tail(z, skewness, kurtosis):  # type: ignore[no-untyped-def]
    """``P(Z >= z)`` by Edgeworth's expansion to the fourth cumulant."""
    z2 = z * z
    change = skewness / 6.0 * (z2 - 1.0) + kurtosis / 24.0 * z * (z2 - 3.0)
    change += skewness * skewness / 72.0 * z * (z2 * (z2 - 10.0) + 15.0)
    density = math.exp(-0.5 * z2) / math.sqrt(2.0 * math.pi)
    return 0.5 * math.erfc(z / math.sqrt(2.0)) + density * change


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def _expand(parts, chances, sign, t, is_permuted, g, weights):  # type: ignore[no-untyped-def]
    """Write the weights of the event about chances; return c, NaN without a positive mean of V."""
    variance, level = project_variance(parts, chances, is_permuted, g)
    if not variance > 0.0:
        return np.nan
    root = math.sqrt(variance)
    factor = 0.5 * t / root
    _fill_weights(parts[0], g, sign, factor, weights)
    return t * root - factor * level


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def log_tail(z, parts, log_odds, chances, is_permuted, is_forced, buffers):  # type: ignore[no-untyped-def]
    """Return the log of ``P(Z >= z)`` (of ``P(Z <= z)`` for negative z), and how it was found.

    Then the tilt of the saddlepoint and its shift of log odds, NaN without one; the weights of the
    event are left in ``buffers[1]``. ``chances`` are the probabilities of ``log_odds``; ``buffers``
    (3, cells). With ``is_forced`` a saddlepoint is looked for even where it is not to be trusted.
    """
    g, weights, tilted = buffers[0], buffers[1], buffers[2]
    sign, t = (1.0 if z >= 0.0 else -1.0), abs(z)
    c = _expand(parts, chances, sign, t, is_permuted, g, weights)
    if math.isnan(c):
        return np.nan, UNDEFINED, np.nan, np.nan
    treated, mean, spread, cross = _first_two(weights, chances)
    centre = cross / spread if is_permuted else 0.0
    second, third, fourth, concentration = _cumulants(weights, chances, centre)
    if second * second < FEWEST_CELLS * concentration and not is_forced:
        return np.nan, FEW_CELLS, np.nan, np.nan
    if is_permuted:
        n, balance = float(weights.shape[0]), 1.0 - 2.0 * chances[0]
        fourth -= 3.0 * balance * balance * second * second / spread
        second *= n / (n - 1.0)
        third *= n * n / ((n - 1.0) * (n - 2.0))
    deviation = math.sqrt(second)
    skewness, kurtosis = third / (second * deviation), fourth / (second * second)
    if abs(skewness) > LARGEST_SKEWNESS and not is_forced:
        return np.nan, SKEWED, np.nan, np.nan
    distance = (c - mean) / deviation
    if (
        treated >= _FEWEST_FOR_BULK
        and abs(skewness) < _LARGEST_BULK_SKEWNESS
        and abs(kurtosis) < _LARGEST_BULK_KURTOSIS
        and not is_forced
    ):
        tail = _edgeworth_tail(distance, skewness, kurtosis)
        if tail > _SMALLEST_BULK_TAIL:
            return math.log(min(tail, 1.0)), BULK, np.nan, np.nan
    if abs(distance) < _NEAR_MEAN:
        return tail_near_mean(distance, skewness), SADDLEPOINT, np.nan, np.nan
    log_p, s, shift = saddlepoint(c, weights, log_odds, is_permuted, deviation, skewness, mean)
    for _ in range(_EXPANSIONS):
        if math.isnan(log_p) or log_p > _LARGEST_TAIL_TO_EXPAND:
            break
        tilted_chances(log_odds, weights, s, shift, tilted)
        c = _expand(parts, tilted, sign, t, is_permuted, g, weights)
        if math.isnan(c):
            return np.nan, UNDEFINED, np.nan, np.nan
        before = log_p
        log_p, s, shift = saddlepoint_near(c, weights, log_odds, is_permuted, s, shift)
        if abs(log_p - before) < _SAME_TAIL:
            break
    return log_p, BEYOND_SUPPORT if math.isnan(log_p) else SADDLEPOINT, s, shift


@njit(nogil=True, cache=True, error_model="numpy")
def gene_tails(  # type: ignore[no-untyped-def]
    z, parts, design, coefficients, n_treated, is_permuted, buffers, log_p, method
):
    """Fill logs of the tail beyond each treatment's z on its own side, and how they were found.

    ``coefficients`` (treatments, columns) of log odds; of a permutation the number of treated
    cells says all. ``buffers`` (5, cells).
    """
    n_cells = parts.shape[1]
    log_odds, chances = buffers[3], buffers[4]
    for k in range(z.shape[0]):
        if math.isnan(z[k]):
            log_p[k], method[k] = 0.0, UNDEFINED
            continue
        if is_permuted:
            share = n_treated[k] / n_cells
            log_odds[:] = math.log(share / (1.0 - share))
            chances[:] = share
        else:
            fill_log_odds(design, coefficients[k], log_odds)
            tilted_chances(log_odds, log_odds, 0.0, 0.0, chances)
        log_p[k], method[k], _, _ = log_tail(
            z[k], parts, log_odds, chances, is_permuted, False, buffers[:3]
        )
