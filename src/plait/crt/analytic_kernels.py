"""Compiled loops of analytic p-values under Bernoulli resampling.

Notation (one unit, program and threshold t > 0): x treated cells, p their probabilities,
``v = p (1 - p)``, r the program's residuals, Q the basis of the covariates, ``h_i = |Q_i|^2``,
``S = sum x r``, ``D = n1 - |Q'x|^2``. To first order about p, ``D = mean + sum g (x - p)``, so that
``S - t D >= 0`` is ``sum x w >= t c`` with ``w = r - t g`` and ``c = mean - sum g p``; and
``S + t D <= 0`` the same with ``w = -r - t g``.
"""

import math

import numpy as np

from plait.numerics.compiled import njit
from plait.numerics.saddlepoint_kernels import (
    ANY_ORDER,
    NEAR_MEAN,
    log_sum,
    log_tail_at,
    saddlepoint_of_many,
    sum_cumulants,
    tail_near_mean,
    tilt,
)

OK, BEYOND_SUPPORT, SKEWED, FEW_CELLS, FEW_TREATED = 0, 1, 2, 3, 4
"""Whether a p-value by cumulants or a saddlepoint is to be trusted, or why not."""
NONE, BULK, TAIL, DRAWN = 0, 1, 2, 3
"""Where a p-value comes from: no test, four cumulants, a saddlepoint, treatments that are drawn."""
FEWEST_TREATED = 20.0
"""Below so many expected treated cells, or so small an expected D, treatments are drawn."""
_FEWEST_FOR_BULK = 100.0
LARGEST_SKEWNESS = 2.0
_LARGEST_SKEWNESS_FOR_BULK, _LARGEST_KURTOSIS_FOR_BULK = 0.2, 0.3
_FARTHEST = 40.0
"""Standard deviations beyond which a normal tail is 0."""
FEWEST_CELLS = 15.0
"""Effective number of cells that contribute to the variance."""
TILE = 512
"""Cells whose residuals (4 bytes for each program) stay in a core's second cache."""
_ROWS = 64
N_SUMS = 10
_SINGLE = np.float32
PROJECTIONS = 6
SECOND_ORDER = 0.01
"""Error of a log p-value from D's second order that is none."""


@njit(nogil=True, cache=True, error_model="numpy")
def fill_columns(rows, scales, columns):  # type: ignore[no-untyped-def]
    """Fill ``columns`` (k, n) with the columns of ``rows`` (n, k), each divided by its scale.

    Some rows at a time, which stay in a core's first cache for all columns.
    """
    n = rows.shape[0]
    for start in range(0, n, _ROWS):
        for k in range(rows.shape[1]):
            for i in range(start, min(start + _ROWS, n)):
                columns[k, i] = rows[i, k] / scales[k]


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def project_denominator(p, basis, leverage, g):  # type: ignore[no-untyped-def]
    """Write D's first-order coefficients; return its mean, ``c`` and ``sum g p``.

    ``basis`` (columns, cells), ``leverage`` h (cells,).
    """
    treated, treated_leverage, square_leverage, explained = 0.0, 0.0, 0.0, 0.0
    for i in range(p.shape[0]):
        ph = p[i] * leverage[i]
        treated += p[i]
        treated_leverage += ph
        square_leverage += p[i] * ph
        g[i] = 1.0 - leverage[i] + 2.0 * ph
    for j in range(basis.shape[0]):
        column = basis[j]
        u = 0.0
        for i in range(p.shape[0]):
            u += column[i] * p[i]
        explained += u * u
        for i in range(p.shape[0]):
            g[i] -= 2.0 * u * column[i]
    # E D = sum p (1 - h) + p'Mp - sum p^2 (1 - h), with M = I - QQ'.
    mean = treated - treated_leverage + square_leverage - explained
    constant = explained - square_leverage
    return mean, constant, mean - constant


@njit(nogil=True, cache=True)
def project_denominators(p, basis, leverage, g, about_d):  # type: ignore[no-untyped-def]
    """Project D of some units, (U, N): what `project_denominator` returns are rows of (3, U)."""
    for unit in range(p.shape[0]):
        about_d[0, unit], about_d[1, unit], about_d[2, unit] = project_denominator(
            p[unit], basis, leverage, g[unit]
        )


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _fill_tile(p, g, tile):  # type: ignore[no-untyped-def]
    """Write p, its second to fourth cumulant and g in single precision: rows of ``tile``."""
    for i in range(p.shape[0]):
        v = p[i] * (1.0 - p[i])
        tile[0, i] = p[i]
        tile[1, i] = v
        tile[2, i] = v * (1.0 - 2.0 * p[i])
        tile[3, i] = v * (1.0 - 6.0 * v)
        tile[4, i] = g[i]


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _add_tile(residuals, tile, threshold, sums):  # type: ignore[no-untyped-def]
    """Add a tile's part of the sums of `weighted_sums`: single precision in, double out."""
    p, v, third, fourth, g = tile[0], tile[1], tile[2], tile[3], tile[4]
    zero = _SINGLE(0.0)
    a0, a1, a2, a3, a4 = zero, zero, zero, zero, zero
    a5, a6, a7, a8, a9 = zero, zero, zero, zero, zero
    for i in range(residuals.shape[0]):
        r = residuals[i]
        shift = threshold * g[i]
        a0 += p[i] * r
        a1 += v[i] * r * r
        w = r - shift
        w2 = w * w
        vw2 = v[i] * w2
        a2 += vw2
        a3 += third[i] * w2 * w
        a4 += fourth[i] * w2 * w2
        a5 += vw2 * vw2
        w = r + shift
        w2 = w * w
        vw2 = v[i] * w2
        a6 += vw2
        a7 += third[i] * w2 * w
        a8 += fourth[i] * w2 * w2
        a9 += vw2 * vw2
    sums[0] += a0
    sums[1] += a1
    sums[2] += a2
    sums[3] += a3
    sums[4] += a4
    sums[5] += a5
    sums[6] += a6
    sums[7] -= a7
    sums[8] += a8
    sums[9] += a9


@njit(nogil=True, cache=True)
def weighted_sums(residuals, probabilities, g, thresholds, tile, sums):  # type: ignore[no-untyped-def]
    """Fill all sums of all programs of some units, in one pass over the residuals.

    ``residuals`` (K, N) float32, ``probabilities`` and ``g`` (U, N), ``thresholds`` (U, K) float32,
    ``tile`` (5, `TILE`) float32, ``sums`` (U, K, `N_SUMS`): ``sum p r``, ``sum v r^2``, then the
    second to fourth cumulants of ``sum x w`` and ``sum (v w^2)^2`` for ``w = r - t g`` and for
    ``w = -r - t g``.
    """
    sums[:] = 0.0
    n_units, n_cells = probabilities.shape
    for start in range(0, n_cells, TILE):
        stop = min(start + TILE, n_cells)
        for unit in range(n_units):
            _fill_tile(probabilities[unit, start:stop], g[unit, start:stop], tile)
            for program in range(residuals.shape[0]):
                _add_tile(
                    residuals[program, start:stop],
                    tile,
                    thresholds[unit, program],
                    sums[unit, program],
                )


@njit(nogil=True, cache=True, forceinline=True)
def _edgeworth_tail(z, skewness, kurtosis):  # type: ignore[no-untyped-def]
    """Return the chance of more than z standard deviations, to the fourth cumulant."""
    z = min(max(z, -_FARTHEST), _FARTHEST)
    z2 = z * z
    correction = (
        skewness / 6.0 * (z2 - 1.0)
        + kurtosis / 24.0 * z * (z2 - 3.0)
        + skewness * skewness / 72.0 * z * (z2 * z2 - 10.0 * z2 + 15.0)
    )
    density = math.exp(-0.5 * z2) / math.sqrt(2.0 * math.pi)
    return min(max(0.5 * math.erfc(z / math.sqrt(2.0)) + density * correction, 0.0), 1.0)


@njit(nogil=True, cache=True, forceinline=True)
def _bulk_p_value(mean, cumulants, mean_g, constant, t, sign, other):  # type: ignore[no-untyped-def]
    """Return a p-value by Edgeworth's expansion, and whether cumulants are near the normal's."""
    total, near = 0.0, True
    for _ in range(2 if other else 1):
        found = cumulants[0 if sign > 0.0 else 1]
        variance = found[0]
        safe = variance if variance > 0.0 else 1.0
        deviation = math.sqrt(safe)
        shift = sign * mean - t * mean_g
        skewness, kurtosis = found[1] / (safe * deviation), found[2] / (safe * safe)
        near &= (
            variance > 0.0
            and abs(skewness) < _LARGEST_SKEWNESS_FOR_BULK
            and abs(kurtosis) < _LARGEST_KURTOSIS_FOR_BULK
            and variance * variance >= FEWEST_CELLS * found[3]
        )
        total += _edgeworth_tail((t * constant - shift) / deviation, skewness, kurtosis)
        sign = -sign
    return min(total, 1.0), near


@njit(nogil=True, cache=True)
def bulk_p_values(  # type: ignore[no-untyped-def]
    treated, denominator, constant, mean_g, mean, cumulants, thresholds, signs, other, bulk_above,
    p_values, methods,
):  # fmt: skip
    """Fill p-values of units by four cumulants, and which method is to give those that stay 1.

    The first six are those of `plait.crt.analytic_laws.Moments`. The p-value is the chance of
    ``sign beta* >= t`` and, with ``other``, of ``sign beta* <= -t``; a threshold of 0 is no test.
    """
    p_values[:], methods[:] = 1.0, NONE
    for unit in range(thresholds.shape[0]):
        is_few = min(treated[unit], denominator[unit]) < FEWEST_TREATED
        for program in range(thresholds.shape[1]):
            t = thresholds[unit, program]
            if t == 0.0:
                continue
            if is_few:
                methods[unit, program] = DRAWN
                continue
            p_value, near = _bulk_p_value(
                mean[unit, program],
                cumulants[unit, program],
                mean_g[unit],
                constant[unit],
                t,
                signs[unit, program],
                other,
            )
            methods[unit, program] = TAIL
            if near and p_value > bulk_above and treated[unit] >= _FEWEST_FOR_BULK:
                p_values[unit, program], methods[unit, program] = p_value, BULK


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _fill_weights(residuals, g, sign, threshold, weights):  # type: ignore[no-untyped-def]
    for i in range(residuals.shape[0]):
        weights[i] = sign * residuals[i] - threshold * g[i]


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _distance(q, centre, basis):  # type: ignore[no-untyped-def]
    """``|Q'(q - centre)|^2``: what D loses between the two beyond first order."""
    total = 0.0
    for j in range(basis.shape[0]):
        column = basis[j]
        u = 0.0
        for i in range(q.shape[0]):
            u += column[i] * (q[i] - centre[i])
        total += u * u
    return total


@njit(nogil=True, cache=True, forceinline=True)
def _log_tail(residuals, sign, t, p, basis, leverage, g, constant, work):  # type: ignore[no-untyped-def]
    """``ln P(sign S - t D >= 0)`` and whether it is to be trusted.

    D is projected about p; should the law that leads there, tilted by the saddlepoint, have its
    mean q so far from p that D's second order counts, about q, again and again. ``g`` and
    ``constant`` are the projection about p, ``work`` (4, N) is a buffer.
    """
    weights, new_g, centre, q = work[0], work[1], work[2], work[3]
    _fill_weights(residuals, g, sign, t, weights)
    log_p, status = np.nan, OK
    for attempt in range(PROJECTIONS):
        c = t * constant
        mean, variance, third, _, concentration, smallest, largest = sum_cumulants(weights, p)
        if c <= smallest:
            return 0.0, OK
        if not c < largest:
            return -np.inf, BEYOND_SUPPORT
        if attempt == 0:
            if abs(third) > LARGEST_SKEWNESS * variance**1.5:
                return np.nan, SKEWED
            if variance * variance < FEWEST_CELLS * concentration:
                return np.nan, FEW_CELLS
        deviation = math.sqrt(variance)
        z = (c - mean) / deviation
        if abs(z) < NEAR_MEAN:
            return tail_near_mean(z, third / (variance * deviation)), OK
        s, first, second = saddlepoint_of_many(c, weights, p, mean, variance, third)
        if math.isnan(s):
            return -np.inf, BEYOND_SUPPORT
        tilt(s, weights, p, q)
        if abs(s * t) * _distance(q, p if attempt == 0 else centre, basis) < SECOND_ORDER:
            break
        centre[:] = q
        _, constant, _ = project_denominator(q, basis, leverage, new_g)
        _fill_weights(residuals, new_g, sign, t, weights)
    log_p = log_tail_at(c, s, first, second, weights, p)
    return (-np.inf, BEYOND_SUPPORT) if math.isnan(log_p) else (log_p, status)


@njit(nogil=True, cache=True)
def saddlepoint_tails(  # type: ignore[no-untyped-def]
    residuals, p, basis, leverage, g, constant, wanted, thresholds, signs, other, log_p, status
):
    """Fill natural logarithms of the p-values that are ``wanted``, (U, K), by the saddlepoint.

    The p-value is the probability of ``sign beta* >= t`` and, with ``other``, of
    ``sign beta* <= -t``.
    """
    work = np.empty((4, p.shape[1]))
    for unit in range(wanted.shape[0]):
        for program in range(wanted.shape[1]):
            if not wanted[unit, program]:
                continue
            total, worst = 0.0, OK
            for side in range(2 if other else 1):
                tail, found = _log_tail(
                    residuals[program],
                    signs[unit, program] if side == 0 else -signs[unit, program],
                    thresholds[unit, program],
                    p[unit],
                    basis,
                    leverage,
                    g[unit],
                    constant[unit],
                    work,
                )
                total = tail if side == 0 else log_sum(total, tail)
                # Observed is possible; on the other side nothing may be so far out.
                worst = max(worst, found if side == 0 or found != BEYOND_SUPPORT else OK)
            log_p[unit, program], status[unit, program] = min(total, 0.0), worst
