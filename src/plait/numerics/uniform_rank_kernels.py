"""Compiled quantiles of order statistics; see `plait.numerics.uniform_ranks`."""

import math

from plait.numerics.compiled import njit
from plait.numerics.student_kernels import beta_fraction

_MOST_STEPS = 20
_ENOUGH = 1e-7
"""A relative step after which the next, which would be its cube, changes nothing."""


@njit(nogil=True, cache=True)
def fill_quantiles(ranks, count, level, z, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` with quantiles at a level, of which ``z`` is the upper normal quantile."""
    for i in range(ranks.shape[0]):
        a = float(ranks[i])
        b = count - a + 1.0
        if b == 1.0:
            out[i] = math.exp(math.log(level) / a)
        elif a == 1.0:
            out[i] = -math.expm1(math.log1p(-level) / b)
        else:
            out[i] = _quantile(a, b, level, _start(a, b, z))


@njit(nogil=True, cache=True)
def _start(a, b, z):  # type: ignore[no-untyped-def]
    """Approximate quantile of Beta(a, b), a and b above 1."""
    one, other = 1.0 / (2.0 * a - 1.0), 1.0 / (2.0 * b - 1.0)
    third = (z * z - 3.0) / 6.0
    mean = 2.0 / (one + other)
    w = z * math.sqrt(mean + third) / mean
    w -= (other - one) * (third + 5.0 / 6.0 - 2.0 / (3.0 * mean))
    return a / (a + b * math.exp(2.0 * w))


@njit(nogil=True, cache=True)
def _quantile(a, b, level, x):  # type: ignore[no-untyped-def]
    """Improve a quantile of Beta(a, b)."""
    constant = _rise(max(a, b), min(a, b)) - math.lgamma(min(a, b))
    for _ in range(_MOST_STEPS):
        front = math.exp(a * math.log(x) + b * math.log1p(-x) + constant)
        if x < (a + 1.0) / (a + b + 2.0):
            excess = front / a * beta_fraction(a, b, x) - level
        else:
            excess = 1.0 - level - front / b * beta_fraction(b, a, 1.0 - x)
        step = excess / front * x * (1.0 - x)
        step /= 1.0 - 0.5 * step * ((a - 1.0) / x - (b - 1.0) / (1.0 - x))
        x -= step
        if abs(step) < _ENOUGH * min(x, 1.0 - x):
            break
    return x


@njit(nogil=True, cache=True)
def _rise(a, b):  # type: ignore[no-untyped-def]
    """``ln Gamma(a + b) - ln Gamma(a)``, without cancellation (Stirling's series)."""
    if a < 15.0:
        return math.lgamma(a + b) - math.lgamma(a)
    rise = (a - 0.5) * math.log1p(b / a) + b * (math.log(a + b) - 1.0)
    return rise + _stirling(a + b) - _stirling(a)


@njit(nogil=True, cache=True)
def _stirling(a):  # type: ignore[no-untyped-def]
    r = 1.0 / (a * a)
    return (1.0 / 12 - r * (1.0 / 360 - r * (1.0 / 1260 - r * (1.0 / 1680 - r / 1188)))) / a
