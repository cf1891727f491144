"""Compiled loops of deconvolution for rows that each have their own error covariance.

Rows are taken `LANES` at a time, one in each lane (`plait.mash.lane_kernels`). A missing cell is
decoupled from the others by a row and column of the identity and a residual of zero, which
marginalises it exactly: it adds nothing to the determinant, the quadratic form or the sums.

Notation: ``T = U + Sigma = L L^T`` on the observed cells, ``r = y - m``, ``z = L^{-1} r``. The
errors are ``Sigma_ij = scale_i correlation_ij scale_j``, with one correlation or one per row.
Widths of correlations and prior covariances are padded to whole tiles by zeros.
"""

import math

import numpy as np

from plait.mash.lane_kernels import (
    LANES,
    TILE,
    add_moments,
    factor_tile,
    multiply_row,
    padded,
    scaled_total_row,
    solve_row,
    solve_tile,
    total_row,
    vectors,
)
from plait.numerics.compiled import njit

_LOG_2PI = math.log(2.0 * math.pi)
_LOG_2 = math.log(2.0)
_MANTISSA = 52
_FRACTION = (1 << _MANTISSA) - 1
_BIAS = 1023
_NEGLIGIBLE = 1e-30


@njit(nogil=True, cache=True)
def _load(effects, scales, correlations, observed, chosen, y, scale, errors, seen):  # type: ignore[no-untyped-def]
    """Transpose one batch of rows; lanes beyond the last one get no observed cell."""
    width = effects.shape[1]
    stride = padded(width) + 1
    own = correlations.shape[0] > 1
    for buffer in (y, scale, seen):
        buffer[:] = 0.0
    if own:
        errors[:] = 0.0
    for lane in range(chosen.shape[0]):
        row = chosen[lane]
        for i in range(width):
            if not observed[row, i]:
                continue
            seen[i * LANES + lane] = 1.0
            y[i * LANES + lane] = effects[row, i]
            scale[i * LANES + lane] = scales[row, i]
            if own:
                for j in range(i + 1):
                    if observed[row, j]:
                        scaled = scales[row, i] * scales[row, j] * correlations[row, i, j]
                        errors[(i * stride + j) * LANES + lane] = scaled


@njit(nogil=True, cache=True)
def _factor(  # type: ignore[no-untyped-def]
    scale, correlation, errors, own, prior, seen, factor, diagonal, inverse, failed
):
    """Factorise ``T`` of every lane; returns the first lane where it is not PD, or -1."""
    size = seen.shape[0] // LANES
    stride = size + 1
    failed[:] = 0.0
    for i in range(size):
        if own:
            total_row(errors, prior, seen, factor, i, size, stride)
        else:
            scaled_total_row(scale, correlation, prior, seen, factor, i, size, stride)
    for i in range(0, size, TILE):
        for j in range(0, i, TILE):
            solve_tile(factor, factor, inverse, i, j, 0, stride)
        factor_tile(factor, diagonal, inverse, failed, i, stride)
    for lane in range(LANES):
        if failed[lane] > 0.0:
            return lane
    return -1


@njit(nogil=True, cache=True)
def _whiten(y, seen, mean, factor, inverse, z):  # type: ignore[no-untyped-def]
    """Solve ``L z = y - m`` in every lane."""
    size = seen.shape[0] // LANES
    z[:] = y
    for i in range(mean.shape[0]):
        m = mean[i]
        if m != 0.0:
            for lane in range(i * LANES, (i + 1) * LANES):
                z[lane] -= m * seen[lane]
    for j in range(0, size, TILE):
        solve_row(z, factor, inverse, 0, j, 0, size + 1)


@njit(nogil=True, cache=True)
def _invert(factor, inverse, seen, z, x, t):  # type: ignore[no-untyped-def]
    """``x = L^{-T}`` without the missing cells, and ``t = x z``."""
    size = seen.shape[0] // LANES
    stride = size + 1
    x[:] = 0.0
    for i in range(size):
        place = (i * stride + i) * LANES
        for lane in range(LANES):
            x[place + lane] = seen[i * LANES + lane]
    for i in range(0, size, TILE):
        for j in range(i, size, TILE):
            solve_tile(x, factor, inverse, i, j, i, stride)
        multiply_row(x, z, t, i, i, size, stride)


@njit(nogil=True, cache=True)
def _log_densities(z, diagonal, seen, fraction, bits, exponent, out):  # type: ignore[no-untyped-def]
    """Log-density of every lane; the determinant is a product with its exponent kept apart.

    ``bits`` is ``fraction`` seen as integers.
    """
    whole = diagonal.view(np.int64)
    for lane in range(LANES):
        out[lane] = 0.0
        exponent[lane] = 0
        fraction[LANES + lane] = 1.0
    for i in range(seen.shape[0] // LANES):
        at = i * LANES
        for lane in range(LANES):
            # An infinite pivot must not pass for a number.
            out[lane] -= 0.5 * (z[at + lane] * z[at + lane] + _LOG_2PI * seen[at + lane]) + (
                0.0 * diagonal[at + lane]
            )
            exponent[lane] += (whole[at + lane] >> _MANTISSA) - _BIAS
            bits[lane] = (whole[at + lane] & _FRACTION) | (_BIAS << _MANTISSA)
        for lane in range(LANES):
            fraction[LANES + lane] *= fraction[lane]
    for lane in range(LANES):
        out[lane] -= math.log(fraction[LANES + lane]) + _LOG_2 * exponent[lane]


@njit(nogil=True, cache=True)
def row_log_densities(  # type: ignore[no-untyped-def]
    effects, scales, correlations, observed, means, covariances, first, last, out
):
    """Fill ``out`` (K, n) with ``log N(y_j; m_k, U_k + Sigma_j)`` over the observed cells.

    Does the rows ``first <= j < last``. Returns the first one with a ``T`` that is not positive
    definite, or -1.
    """
    width = effects.shape[1]
    size = padded(width)
    y, scale, seen, z = vectors(size), vectors(size), vectors(size), vectors(size)
    diagonal, inverse, failed = vectors(size), vectors(size), vectors(1)
    own = correlations.shape[0] > 1
    errors = vectors(size * (size + 1) if own else 1)
    factor = vectors(size * (size + 1))
    correlation = correlations[0].ravel()
    fraction, values, exponent = vectors(2), vectors(1), np.zeros(LANES, dtype=np.int64)
    bits = fraction.view(np.int64)
    for start in range(first, last, LANES):
        chosen = np.arange(start, min(start + LANES, last))
        _load(effects, scales, correlations, observed, chosen, y, scale, errors, seen)
        for k in range(means.shape[0]):
            prior = covariances[k].ravel()
            bad = _factor(
                scale, correlation, errors, own, prior, seen, factor, diagonal, inverse, failed
            )
            if bad >= 0:
                return start + bad
            _whiten(y, seen, means[k], factor, inverse, z)
            _log_densities(z, diagonal, seen, fraction, bits, exponent, values)
            for lane in range(chosen.shape[0]):
                out[k, start + lane] = values[lane]
    return -1


@njit(nogil=True, cache=True)
def _unfold(sums, width, first_out, second_out, first_sums):  # type: ignore[no-untyped-def]
    """Add up lanes: packed tiles to a symmetric matrix."""
    for a in range(width):
        first_out[a] = first_sums[a * LANES : (a + 1) * LANES].sum()
    tile = 0
    for i in range(0, width, TILE):
        for j in range(0, i + 1, TILE):
            for r in range(TILE):
                for s in range(TILE):
                    a, b = i + r, j + s
                    place = (tile * TILE * TILE + r * TILE + s) * LANES
                    if b <= a < width:
                        second_out[a, b] = sums[place : place + LANES].sum()
                        second_out[b, a] = second_out[a, b]
            tile += 1


@njit(nogil=True, cache=True)
def row_statistics(  # type: ignore[no-untyped-def]
    effects,
    scales,
    correlations,
    observed,
    means,
    covariances,
    responsibilities,
    first,
    last,
    first_out,
    second_out,
):
    """Fill ``sum_j q t`` (K, R) and ``sum_j q (t t^T - T^{-1})`` (K, R, R), ``t = T^{-1} r``.

    ``responsibilities`` is (K, n); the sums are over ``first <= j < last``, without rows whose
    share is nothing beside the largest. Every ``T`` is known to be positive definite.
    """
    width = effects.shape[1]
    size = padded(width)
    stride = size + 1
    y, scale, seen, z, t = vectors(size), vectors(size), vectors(size), vectors(size), vectors(size)
    diagonal, inverse, failed, weight = vectors(size), vectors(size), vectors(1), vectors(1)
    own = correlations.shape[0] > 1
    errors = vectors(size * stride if own else 1)
    factor, x = vectors(size * stride), vectors(size * stride)
    correlation = correlations[0].ravel()
    tiles = size // TILE
    first_sums, second_sums = vectors(size), vectors(tiles * (tiles + 1) // 2 * TILE * TILE)
    for k in range(means.shape[0]):
        prior = covariances[k].ravel()
        first_sums[:] = 0.0
        second_sums[:] = 0.0
        shares = responsibilities[k, first:last]
        active = first + np.flatnonzero(shares > _NEGLIGIBLE * shares.max())
        for start in range(0, active.shape[0], LANES):
            chosen = active[start : start + LANES]
            weight[:] = 0.0
            for lane in range(chosen.shape[0]):
                weight[lane] = responsibilities[k, chosen[lane]]
            _load(effects, scales, correlations, observed, chosen, y, scale, errors, seen)
            _factor(scale, correlation, errors, own, prior, seen, factor, diagonal, inverse, failed)
            _whiten(y, seen, means[k], factor, inverse, z)
            _invert(factor, inverse, seen, z, x, t)
            for a in range(size):
                for lane in range(LANES):
                    first_sums[a * LANES + lane] += weight[lane] * t[a * LANES + lane]
            tile = 0
            for i in range(0, size, TILE):
                for j in range(0, i + 1, TILE):
                    place = tile * TILE * TILE
                    add_moments(x, t, weight, second_sums, place, i, j, size, stride)
                    tile += 1
        _unfold(second_sums, width, first_out[k], second_out[k], first_sums)
