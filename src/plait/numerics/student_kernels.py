"""Compiled tails of Student's distribution; see `plait.numerics.student`."""

import math

import numpy as np

from plait.numerics.compiled import njit
from plait.numerics.gaussian_kernels import scaled_erfc

_LOG_10 = math.log(10.0)
_HALF_LOG_PI = 0.5 * math.log(math.pi)
_LARGE = 20.0
"""Half the degrees of freedom from which the expansion at the normal is used, near the centre."""
_CENTRE = 0.7
_FLAT = 1e-2
"""Below this, ln p is nearly 0 and follows to full precision from 1 - p."""
_TERMS = 16
_TINY = 1e-300
_ORDER = 9
"""Values that a p-value between them is interpolated from."""
_INTERVALS = 64
_PER_UNIT = 8.0
"""Intervals of t of length 1: a table ends at t = 8."""
_NODES = 0.5 - 0.5 * np.cos((np.arange(_ORDER) + 0.5) * math.pi / _ORDER)
_TABULATED = 10.0
"""Degrees of freedom from which interpolation is precise."""


@njit(nogil=True, cache=True)
def fill_log10_p(t, df, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` from vectors; what depends on ``df`` alone is kept while that lasts."""
    last = -1.0
    constant = 0.0
    for i in range(t.shape[0]):
        if df[i] != last:
            last = df[i]
            constant = log_gamma_step(0.5 * last)
        out[i] = log10_p(t[i], last, constant)


@njit(nogil=True, cache=True)
def log_gamma_step(a):  # type: ignore[no-untyped-def]
    """``ln Gamma(a + 1/2) - ln Gamma(a)``, without cancellation at large ``a``."""
    if a < 15.0:
        return math.lgamma(a + 0.5) - math.lgamma(a)
    r = 1.0 / (a * a)
    series = -1.0 / 8 + r * (1.0 / 192 + r * (-1.0 / 640 + r * (17.0 / 14336 - r * 31.0 / 18432)))
    return 0.5 * math.log(a) + series / a


@njit(nogil=True, cache=True)
def log10_p(t, df, constant):  # type: ignore[no-untyped-def]
    """Two-sided log10 p-value; ``constant`` is `log_gamma_step` of ``df / 2``."""
    if math.isnan(t):
        return np.nan
    if t == 0.0:
        return 0.0
    if math.isinf(t):
        return -np.inf
    a = 0.5 * df
    ratio = t * (t / df)
    if math.isinf(ratio):
        log_x = math.log(df) - 2.0 * math.log(abs(t))
        return (a * log_x + constant - _HALF_LOG_PI - math.log(a)) / _LOG_10
    log_x = -math.log1p(ratio)
    x = 1.0 / (1.0 + ratio)
    if a >= _LARGE and x > _CENTRE and a * ratio > _FLAT:
        return _near_normal(a, log_x, constant) / _LOG_10
    log_y = math.log(ratio) + log_x
    # ln of x^a y^(1/2) / B(a, 1/2)
    front = a * log_x + 0.5 * log_y + constant - _HALF_LOG_PI
    if x < (a + 1.0) / (a + 2.5):
        return (front - math.log(a) + math.log(beta_fraction(a, 0.5, x))) / _LOG_10
    inside = math.exp(front) * 2.0 * beta_fraction(0.5, a, ratio / (1.0 + ratio))
    return math.log1p(-inside) / _LOG_10


@njit(nogil=True, cache=True)
def table_of_log10_p(df):  # type: ignore[no-untyped-def]
    """Return the table (intervals, `_ORDER`) of `tabulated_log10_p`; no interval where df are few.

    Of ``log10_p / t``, which has no zero, divided differences at the Chebyshev nodes of intervals:
    of few degrees of freedom it has a pole too close to them.
    """
    table = np.empty((_INTERVALS if df >= _TABULATED else 0, _ORDER))
    constant = log_gamma_step(0.5 * df)
    for k in range(table.shape[0]):
        row = table[k]
        for i in range(_ORDER):
            t = (k + _NODES[i]) / _PER_UNIT
            row[i] = log10_p(t, df, constant) / t
        for order in range(1, _ORDER):
            for i in range(_ORDER - 1, order - 1, -1):
                row[i] = (row[i] - row[i - 1]) / (_NODES[i] - _NODES[i - order])
    return table


@njit(nogil=True, cache=True)
def tabulated_log10_p(t, df, constant, table):  # type: ignore[no-untyped-def]
    """Two-sided log10 p-value by interpolation, or as `log10_p` where t is beyond the table."""
    place = abs(t) * _PER_UNIT
    if not place < table.shape[0]:
        return log10_p(t, df, constant)
    row = table[int(place)]
    place -= int(place)
    value = row[_ORDER - 1]
    for i in range(_ORDER - 2, -1, -1):
        value = row[i] + (place - _NODES[i]) * value
    return value * abs(t) + 0.0  # not -0.0


@njit(nogil=True, cache=True)
def beta_fraction(a, b, x):  # type: ignore[no-untyped-def]
    """Continued fraction of the incomplete beta function, by Lentz's method (DLMF 8.17.22)."""
    c = 1.0
    d = 1.0 - (a + b) * x / (a + 1.0)
    d = 1.0 / (d if abs(d) > _TINY else _TINY)
    total = d
    for m in range(1, 5000):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        d = 1.0 + even * d
        c = 1.0 + even / c
        d = 1.0 / (d if abs(d) > _TINY else _TINY)
        c = c if abs(c) > _TINY else _TINY
        total *= d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        d = 1.0 + odd * d
        c = 1.0 + odd / c
        d = 1.0 / (d if abs(d) > _TINY else _TINY)
        c = c if abs(c) > _TINY else _TINY
        step = d * c
        total *= step
        if abs(step - 1.0) < 1e-16:
            break
    return total


@njit(nogil=True, cache=True)
def _near_normal(a, log_x, constant):  # type: ignore[no-untyped-def]
    """``ln I_x(a, 1/2)`` for large ``a`` and x not far below 1.

    The leading term is ``erfc(sqrt(u))``, ``u = -(a - 1/4) ln x``; the others are powers of 1/a^2.
    """
    scale = a - 0.25
    u = -scale * log_x
    root = math.sqrt(u)
    term = math.sqrt(math.pi) * scaled_erfc(root) / root
    total = term
    coefficients = np.empty(_TERMS)
    inverse_factorials = np.empty(_TERMS)  # 1 / (2 m + 1)!
    coefficients[0] = 1.0
    inverse_factorials[0] = 1.0
    power = 1.0
    for n in range(1, _TERMS):
        step = 2.0 * (n - 1)
        term = (0.5 + step) * (1.5 + step) * term + (u + 1.5 + step) * power
        term /= 4.0 * scale * scale
        power *= 0.25 * log_x * log_x
        inverse_factorials[n] = inverse_factorials[n - 1] / ((2 * n) * (2 * n + 1.0))
        value = -0.5 * inverse_factorials[n]
        for m in range(1, n):
            value += (0.5 * m - n) * coefficients[n - m] * inverse_factorials[m] / n
        coefficients[n] = value
        total += value * term
        if abs(value * term) < 1e-17 * abs(total):
            break
    return constant - 0.5 * math.log(scale) + 0.5 * math.log(u) - u - _HALF_LOG_PI + math.log(total)
