"""Compiled saddlepoint tails; see `plait.numerics.saddlepoint`.

Notation: ``S = sum_i w_i (x_i - p_i) + N(0, extra)`` with independent ``x_i ~ Bernoulli(p_i)``, and
``K`` the cumulant generating function of S; its mean is 0.
"""

import math

import numpy as np

from plait.numerics.compiled import njit

_LOG_2 = math.log(2.0)
NEAR_MEAN = 0.03
"""Below this many standard deviations the saddlepoint formula is 0/0 and Edgeworth's is used."""
_AT_THE_EDGE = 1e-9
_SMALL_CORRECTION = 0.05
_STEPS = 200
ANY_ORDER = {"reassoc", "contract", "nsz"}
"""Sums of many terms may be made in lanes: Numba's ``fastmath`` without what is not exact."""
_LOG2_E = 1.0 / _LOG_2
_LOG_2_HIGH = 0.693147180369123816490
_LOG_2_LOW = 1.90821492927058770002e-10
_NEAR_SADDLEPOINT = 1e-5
_CHUNK = 32


@njit(nogil=True, cache=True)
def log_normal_tail(x):  # type: ignore[no-untyped-def]
    """``ln P(Z >= x)`` of a standard normal Z, at any depth."""
    if x < 0.0:
        return math.log1p(-0.5 * math.erfc(-x / math.sqrt(2.0)))
    if x < 5.0:
        return math.log(0.5 * math.erfc(x / math.sqrt(2.0)))
    # Continued fraction of Mills' ratio (DLMF 7.9.2).
    total = x
    for k in range(60, 0, -1):
        total = x + k / total
    return -0.5 * x * x - 0.5 * math.log(2.0 * math.pi) - math.log(total)


@njit(nogil=True, cache=True)
def log_sum(a, b):  # type: ignore[no-untyped-def]
    """``ln(e^a + e^b)``."""
    if a < b:
        a, b = b, a
    if a == -np.inf:
        return a
    return a + math.log1p(math.exp(b - a))


@njit(nogil=True, cache=True)
def _derivatives(s, weights, probabilities, sign, extra):  # type: ignore[no-untyped-def]
    """``K'(s)`` and ``K''(s)`` of ``sign * S``."""
    first, second = s * extra, extra
    for i in range(weights.shape[0]):
        w, p = sign * weights[i], probabilities[i]
        a = s * w
        if a > 0.0:
            q = p / (p + (1.0 - p) * math.exp(-a))
        else:
            e = p * math.exp(a)
            q = e / (1.0 - p + e)
        first += w * (q - p)
        second += w * w * q * (1.0 - q)
    return first, second


@njit(nogil=True, cache=True)
def _cumulant_function(s, weights, probabilities, sign, extra):  # type: ignore[no-untyped-def]
    """``K(s)`` of ``sign * S``."""
    total = 0.5 * s * s * extra
    for i in range(weights.shape[0]):
        p = probabilities[i]
        a = s * sign * weights[i]
        if a > 1.0:
            total += (1.0 - p) * a + math.log(p + (1.0 - p) * math.exp(-a))
        else:
            total += math.log1p(p * math.expm1(a)) - p * a
    return total


@njit(nogil=True, cache=True)
def _log_of_largest(weights, probabilities, sign):  # type: ignore[no-untyped-def]
    """Return the largest value of ``sign * S`` (no normal part) and its log probability."""
    largest, log_p = 0.0, 0.0
    for i in range(weights.shape[0]):
        w, p = sign * weights[i], probabilities[i]
        if w > 0.0:
            largest += w * (1.0 - p)
            log_p += math.log(p) if p > 0.0 else -np.inf
        elif w < 0.0:
            largest -= w * p
            log_p += math.log1p(-p) if p < 1.0 else -np.inf
    return largest, log_p


@njit(nogil=True, cache=True)
def log_upper_tail(c, weights, probabilities, sign, extra):  # type: ignore[no-untyped-def]
    """``ln P(sign * S >= c)``, by Barndorff-Nielsen's r*."""
    variance, third = extra, 0.0
    for i in range(weights.shape[0]):
        w, p = sign * weights[i], probabilities[i]
        v = p * (1.0 - p)
        variance += w * w * v
        third += w * w * w * v * (1.0 - 2.0 * p)
    if not variance > 0.0:
        return 0.0 if c <= 0.0 else -np.inf
    deviation = math.sqrt(variance)
    z = c / deviation
    if abs(z) < NEAR_MEAN:
        # Edgeworth to first order: the limit of r* at the mean.
        return log_normal_tail(z + third / (6.0 * variance * deviation) * (1.0 - z * z))
    if extra == 0.0:
        largest, log_p = _log_of_largest(weights, probabilities, sign)
        if c > largest * (1.0 - _AT_THE_EDGE):
            return log_p if c <= largest * (1.0 + _AT_THE_EDGE) else -np.inf
        smallest = -_log_of_largest(weights, probabilities, -sign)[0]
        if c <= smallest * (1.0 - _AT_THE_EDGE):
            return 0.0
    s = _saddlepoint(c, variance, weights, probabilities, sign, extra)
    second = _derivatives(s, weights, probabilities, sign, extra)[1]
    exponent = s * c - _cumulant_function(s, weights, probabilities, sign, extra)
    side = 1.0 if s > 0.0 else -1.0
    r = side * math.sqrt(max(2.0 * exponent, 0.0))
    u = s * math.sqrt(second)
    if r == 0.0 or not u / r > 0.0:
        return log_normal_tail(z)
    return log_normal_tail(r + math.log(u / r) / r)


@njit(nogil=True, cache=True)
def _saddlepoint(c, variance, weights, probabilities, sign, extra):  # type: ignore[no-untyped-def]
    """Solve ``K'(s) = c``: Newton's steps, kept inside a bracket (K' increases)."""
    low, high = (0.0, np.inf) if c > 0.0 else (-np.inf, 0.0)
    s = c / variance
    deviation = math.sqrt(variance)
    for _ in range(_STEPS):
        first, second = _derivatives(s, weights, probabilities, sign, extra)
        if abs(first - c) <= 1e-10 * deviation:
            break
        if first < c:
            low = s
        else:
            high = s
        proposed = s - (first - c) / second if second > 0.0 else np.inf
        if not low < proposed < high:
            proposed = 2.0 * s if math.isinf(low) or math.isinf(high) else 0.5 * (low + high)
        elif abs(proposed) > 4.0 * abs(s):
            proposed = 4.0 * s  # where K' is flat a full step would go far beyond
        if proposed == s:
            break
        s = proposed
    return s


@njit(nogil=True, cache=True)
def log_two_sided(c, weights, probabilities, extra):  # type: ignore[no-untyped-def]
    """``ln P(|S| >= |c|)``.

    Where S is so nearly normal that Edgeworth's expansion to the fourth cumulant changes the tail
    by less than `_SMALL_CORRECTION`, that is the answer: its error is of the order of the square,
    and one pass over the terms instead of twenty gives it. In the sum of the two tails the third
    cumulant counts only by its square.
    """
    c = abs(c)
    variance, third, fourth = extra, 0.0, 0.0
    for i in range(weights.shape[0]):
        w, p = weights[i], probabilities[i]
        v = p * (1.0 - p)
        w2 = w * w
        variance += w2 * v
        third += w2 * w * v * (1.0 - 2.0 * p)
        fourth += w2 * w2 * v * (1.0 - 6.0 * v)
    if variance > 0.0:
        z = c / math.sqrt(variance)
        log_normal = _LOG_2 + log_normal_tail(z)
        hazard = math.exp(-0.5 * z * z - 0.5 * math.log(2.0 * math.pi) + _LOG_2 - log_normal)
        z2 = z * z
        kurtosis = hazard * fourth / variance**2 / 24.0 * z
        skewness = hazard * third**2 / variance**3 / 72.0 * z
        # Terms without regard to sign: at a root of a polynomial the next ones need not be small.
        size = abs(kurtosis) * (z2 + 3.0) + skewness * (z2 * (z2 + 10.0) + 15.0)
        if size < _SMALL_CORRECTION:
            change = kurtosis * (z2 - 3.0) + skewness * (z2 * (z2 - 10.0) + 15.0)
            return min(log_normal + math.log1p(change), 0.0)
    upper = log_upper_tail(c, weights, probabilities, 1.0, extra)
    lower = log_upper_tail(c, weights, probabilities, -1.0, extra)
    return min(log_sum(upper, lower), 0.0)


# ---------------------------------------------------------------- sums of many terms


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def exp_of_negative(x):  # type: ignore[no-untyped-def]
    """``e^x`` for ``x <= 0`` with 13 digits, without a call: loops of it are vectorised.

    Below -700 it is ``e^-700``.
    """
    x = x if x > -700.0 else -700.0
    n = np.floor(x * _LOG2_E + 0.5)
    r = (x - n * _LOG_2_HIGH) - n * _LOG_2_LOW
    y = 1.0 / 3628800.0 + r * (1.0 / 39916800.0)
    y = 1.0 / 362880.0 + r * y
    y = 1.0 / 40320.0 + r * y
    y = 1.0 / 5040.0 + r * y
    y = 1.0 / 720.0 + r * y
    y = 1.0 / 120.0 + r * y
    y = 1.0 / 24.0 + r * y
    y = 1.0 / 6.0 + r * y
    y = 0.5 + r * y
    y = 1.0 + r * y
    y = 1.0 + r * y
    power = np.int64((np.int64(n) + np.int64(1023)) << np.int64(52))
    return y * power.view(np.float64)


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def sum_cumulants(weights, probabilities):  # type: ignore[no-untyped-def]
    """Mean, variance, third and fourth cumulant of ``sum_i w_i x_i``, and what bounds it.

    The fifth number is ``sum_i (v_i w_i^2)^2``, of which the square of the variance is the
    effective number of terms; then the smallest and the largest value of the sum.
    """
    mean, second, third, fourth = 0.0, 0.0, 0.0, 0.0
    concentration, smallest, largest = 0.0, 0.0, 0.0
    for i in range(weights.shape[0]):
        w, p = weights[i], probabilities[i]
        v = p * (1.0 - p)
        w2 = w * w
        vw2 = v * w2
        mean += p * w
        second += vw2
        third += vw2 * w * (1.0 - 2.0 * p)
        fourth += vw2 * w2 * (1.0 - 6.0 * v)
        concentration += vw2 * vw2
        smallest += w if w < 0.0 else 0.0
        largest += w if w > 0.0 else 0.0
    return mean, second, third, fourth, concentration, smallest, largest


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _tilted(s, weights, probabilities):  # type: ignore[no-untyped-def]
    """Mean and variance of ``sum_i w_i x_i`` under the tilted law: ``K'(s)`` and ``K''(s)``."""
    first, second = 0.0, 0.0
    for i in range(weights.shape[0]):
        w, p = weights[i], probabilities[i]
        a = s * w
        e = exp_of_negative(-abs(a))
        above = p if a > 0.0 else p * e
        below = (1.0 - p) * e if a > 0.0 else 1.0 - p
        q = above / (above + below)
        qw = q * w
        first += qw
        second += qw * w * (1.0 - q)
    return first, second


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _tilted_chunk(s, weights, probabilities):  # type: ignore[no-untyped-def]
    """Return a and b of ``K(s) = a + ln b`` for so few terms that b does not underflow."""
    linear, product = 0.0, 1.0
    for i in range(weights.shape[0]):
        a, p = s * weights[i], probabilities[i]
        e = exp_of_negative(-abs(a))
        linear += a if a > 0.0 else 0.0
        product *= p + (1.0 - p) * e if a > 0.0 else (1.0 - p) + p * e
    return linear, product


@njit(nogil=True, cache=True, forceinline=True)
def _log_moment(s, weights, probabilities):  # type: ignore[no-untyped-def]
    """``K(s)`` of ``sum_i w_i x_i``; one logarithm for a chunk of terms."""
    total = 0.0
    for start in range(0, weights.shape[0], _CHUNK):
        stop = min(start + _CHUNK, weights.shape[0])
        linear, product = _tilted_chunk(s, weights[start:stop], probabilities[start:stop])
        total += linear + math.log(product)
    return total


@njit(nogil=True, cache=True)
def first_saddlepoint(z, skewness):  # type: ignore[no-untyped-def]
    """Where to look first, in units of 1 / deviation: the root for a fourth cumulant of 0."""
    inner = 1.0 + 2.0 * skewness * z
    return 2.0 * z / (1.0 + math.sqrt(max(inner, 0.0)))


@njit(nogil=True, cache=True)
def tail_near_mean(z, skewness):  # type: ignore[no-untyped-def]
    """Log of the tail by Edgeworth's expansion to first order, the limit of r* at the mean."""
    return log_normal_tail(z + skewness / 6.0 * (1.0 - z * z))


@njit(nogil=True, cache=True)
def tail_of_signed_root(exponent, u):  # type: ignore[no-untyped-def]
    """Log of the tail by r*; ``exponent = s c - K(s)``, u has the sign of s."""
    r = math.copysign(math.sqrt(max(2.0 * exponent, 0.0)), u)
    if r == 0.0 or not u / r > 0.0:
        return np.nan
    return log_normal_tail(r + math.log(u / r) / r)


@njit(nogil=True, cache=True, forceinline=True)
def saddlepoint_of_many(c, weights, probabilities, mean, variance, third):  # type: ignore[no-untyped-def]
    """Solve ``K'(s) = c`` for ``sum_i w_i x_i``; returns s, K'(s) and K''(s), s NaN without root.

    K' is within 1e-5 tilted standard deviations of c, nearer where s is small. For probabilities of
    at least 1e-9 and at most 1 - 1e-9, a positive variance, and c strictly between the smallest and
    the largest value; the first three cumulants are `sum_cumulants`'.
    """
    deviation = math.sqrt(variance)
    s = first_saddlepoint((c - mean) / deviation, third / (variance * deviation)) / deviation
    low, high = (0.0, np.inf) if c > mean else (-np.inf, 0.0)
    for _ in range(_STEPS):
        first, second = _tilted(s, weights, probabilities)
        # r* divides by u = s sqrt(K''): near the mean the root must be the nearer.
        if abs(first - c) <= _NEAR_SADDLEPOINT * min(math.sqrt(second), abs(s) * second):
            return s, first, second
        if first < c:
            low = s
        else:
            high = s
        proposed = s + (c - first) / second if second > 0.0 else np.inf
        if not low < proposed < high:
            proposed = 2.0 * s if math.isinf(low) or math.isinf(high) else 0.5 * (low + high)
        elif abs(proposed) > 4.0 * abs(s):
            proposed = 4.0 * s
        if proposed == s:
            break
        s = proposed
    return np.nan, np.nan, np.nan


@njit(nogil=True, cache=True, forceinline=True)
def log_tail_at(c, s, first, second, weights, probabilities):  # type: ignore[no-untyped-def]
    """``ln P(sum_i w_i x_i >= c)`` by r*, given what `saddlepoint_of_many` returned.

    Farther than `NEAR_MEAN` standard deviations from the mean; nearer there is `tail_near_mean`.
    """
    # s c - K(s) has its largest value at the root: to second order in what is left.
    left = (c - first) ** 2 / second
    exponent = s * c - _log_moment(s, weights, probabilities) + 0.5 * left
    return tail_of_signed_root(exponent, (s + (c - first) / second) * math.sqrt(second))


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def tilt(s, weights, probabilities, tilted):  # type: ignore[no-untyped-def]
    """Write each term's probability under the tilted law: ``p e^(s w) / (1 - p + p e^(s w))``."""
    for i in range(weights.shape[0]):
        a, p = s * weights[i], probabilities[i]
        e = exp_of_negative(-abs(a))
        above = p if a > 0.0 else p * e
        below = (1.0 - p) * e if a > 0.0 else 1.0 - p
        tilted[i] = above / (above + below)
