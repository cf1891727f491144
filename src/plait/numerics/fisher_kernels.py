"""Compiled tails of Fisher's F distribution; see `plait.numerics.fisher`."""

import math

import numpy as np

from plait.numerics.compiled import njit
from plait.numerics.student_kernels import log10_p, log_gamma_step

_LOG_10 = math.log(10.0)
_LOG_GAMMA_3_2 = math.log(0.5 * math.sqrt(math.pi))
_FLAT = -0.1
"""Above this, ln p follows to full precision from 1 - p."""
_LARGE = 1e200
_MOST_TERMS = 10_000


@njit(nogil=True, cache=True)
def fill_log10_f(ratio, q, df, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` from vectors; what depends on ``df`` alone is kept while that lasts."""
    last = -1.0
    constant = 0.0
    for i in range(ratio.shape[0]):
        if df[i] != last:
            last = df[i]
            constant = log_gamma_step(0.5 * last)
        out[i] = log10_f(ratio[i], q, last, constant)


@njit(nogil=True, cache=True)
def log10_f(ratio, q, df, constant):  # type: ignore[no-untyped-def]
    """log10 p-value of ``ratio = q F / df``; ``constant`` is `log_gamma_step` of ``df / 2``."""
    if math.isnan(ratio):
        return np.nan
    if ratio <= 0.0:
        return 0.0
    if math.isinf(ratio):
        return -np.inf
    if q == 1:
        return log10_p(math.sqrt(ratio * df), df, constant)
    a, b = 0.5 * df, 0.5 * q
    log_x = -math.log1p(ratio)
    y = ratio / (1.0 + ratio)
    # The first term: that of b = 0 or 1/2, as a logarithm.
    odd = q % 2 == 1
    order = 0.5 if odd else 0.0
    first = a * log_x
    if odd:
        first += 0.5 * math.log(y) + constant - _LOG_GAMMA_3_2
    total, term, scale = 0.0, 1.0, 0.0
    while order < b:
        total += term
        term *= y * ((a + order) / (order + 1.0))
        order += 1.0
        if total > _LARGE:
            total, term, scale = total / _LARGE, term / _LARGE, scale + math.log(_LARGE)
    log_p = first + scale + math.log(total)
    if odd:
        start = log10_p(math.sqrt(ratio * df), df, constant) * _LOG_10
        larger, smaller = max(log_p, start), min(log_p, start)
        log_p = larger + math.log1p(math.exp(smaller - larger))
    if log_p < _FLAT:
        return log_p / _LOG_10
    return math.log1p(-_left_out(a, b, y, term) * math.exp(first + scale)) / _LOG_10


@njit(nogil=True, cache=True)
def _left_out(a, b, y, term):  # type: ignore[no-untyped-def]
    """Sum the terms from the one of ``b`` on, where they make the smaller part of 1."""
    total = 0.0
    for _ in range(_MOST_TERMS):
        total += term
        term *= y * ((a + b) / (b + 1.0))
        b += 1.0
        if term < 1e-17 * total:
            break
    return total
