"""Compiled loops of deconvolution for rows that each have their own error covariance.

Rows are taken in batches of `_LANES`, and the row number is the fastest index of every scratch
array, so that each step of the factorisations is one vector operation over the rows of the batch. A
missing cell is decoupled from the others by a row and column of the identity and a residual of
zero, which marginalises it exactly: it adds nothing to the determinant, the quadratic form or the
sums.

Notation: ``T = U + Sigma = L L^T`` on the observed cells, ``r = y - m``, ``z = L^{-1} r``.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

_LANES = 64
_FOLD = 8
_LOG_2PI = math.log(2.0 * math.pi)


@njit(nogil=True, cache=True)
def _load(effects, sigma, observed, first, y, errors, seen):  # type: ignore[no-untyped-def]
    """Transpose one batch of rows; rows beyond the last one get no observed cell."""
    width = effects.shape[1]
    errors[:] = 0.0
    y[:] = 0.0
    seen[:] = 0.0
    for lane in range(min(_LANES, effects.shape[0] - first)):
        row = first + lane
        for i in range(width):
            if not observed[row, i]:
                continue
            seen[i, lane] = 1.0
            y[i, lane] = effects[row, i]
            for j in range(i + 1):
                if observed[row, j]:
                    errors[i, j, lane] = sigma[row, i, j]
    for i in range(width):
        for lane in range(_LANES):
            if seen[i, lane] == 0.0:
                errors[i, i, lane] = 1.0


@njit(nogil=True, cache=True)
def _factor(errors, seen, covariance, chol, inverse_diagonal, work):  # type: ignore[no-untyped-def]
    """Factorise ``T`` of every lane; returns the first lane where it is not PD, or -1."""
    width = seen.shape[0]
    for i in range(width):
        for j in range(i + 1):
            u = covariance[i, j]
            for lane in range(_LANES):
                work[lane] = errors[i, j, lane] + u * (seen[i, lane] * seen[j, lane])
            for k in range(j):
                for lane in range(_LANES):
                    work[lane] -= chol[i, k, lane] * chol[j, k, lane]
            if i == j:
                for lane in range(_LANES):
                    if not work[lane] > 0.0:
                        return lane
                for lane in range(_LANES):
                    chol[i, i, lane] = math.sqrt(work[lane])
                    inverse_diagonal[i, lane] = 1.0 / chol[i, i, lane]
            else:
                for lane in range(_LANES):
                    chol[i, j, lane] = work[lane] * inverse_diagonal[j, lane]
    return -1


@njit(nogil=True, cache=True)
def _whiten(y, seen, mean, chol, inverse_diagonal, z):  # type: ignore[no-untyped-def]
    """Solve ``L z = y - m`` in every lane."""
    for i in range(y.shape[0]):
        for lane in range(_LANES):
            z[i, lane] = y[i, lane] - mean[i] * seen[i, lane]
        for k in range(i):
            for lane in range(_LANES):
                z[i, lane] -= chol[i, k, lane] * z[k, lane]
        for lane in range(_LANES):
            z[i, lane] *= inverse_diagonal[i, lane]


@njit(nogil=True, cache=True)
def _invert(chol, inverse_diagonal, seen, z, inverse, t, work):  # type: ignore[no-untyped-def]
    """``X = L^{-1}`` without the missing cells, and ``t = X^T z``."""
    width = seen.shape[0]
    for i in range(width):
        for j in range(i):
            work[:] = 0.0
            for k in range(j, i):
                for lane in range(_LANES):
                    work[lane] -= chol[i, k, lane] * inverse[k, j, lane]
            for lane in range(_LANES):
                inverse[i, j, lane] = work[lane] * inverse_diagonal[i, lane]
        for lane in range(_LANES):
            inverse[i, i, lane] = inverse_diagonal[i, lane] * seen[i, lane]
    for j in range(width):
        for lane in range(_LANES):
            t[j, lane] = 0.0
        for i in range(j, width):
            for lane in range(_LANES):
                t[j, lane] += inverse[i, j, lane] * z[i, lane]


@njit(nogil=True, cache=True)
def _accumulate(inverse, t, weight, first, second, work):  # type: ignore[no-untyped-def]
    """Add ``q t`` and the lower half of ``q (t t^T - X^T X)``, folded into `_FOLD` partial sums."""
    width = t.shape[0]
    for a in range(width):
        for lane in range(_LANES):
            first[a, lane % _FOLD] += weight[lane] * t[a, lane]
        for b in range(a + 1):
            for lane in range(_LANES):
                work[lane] = t[a, lane] * t[b, lane]
            for i in range(a, width):
                for lane in range(_LANES):
                    work[lane] -= inverse[i, a, lane] * inverse[i, b, lane]
            for part in range(_LANES // _FOLD):
                for lane in range(_FOLD):
                    at = part * _FOLD + lane
                    second[a, b, lane] += weight[at] * work[at]


@njit(nogil=True, cache=True)
def row_log_densities(effects, sigma, observed, means, covariances, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` (K, n) with ``log N(y_j; m_k, U_k + Sigma_j)`` over the observed cells.

    Returns the first row with a ``T`` that is not positive definite, or -1.
    """
    n, width = effects.shape
    y = np.empty((width, _LANES))
    errors = np.empty((width, width, _LANES))
    seen = np.empty((width, _LANES))
    chol = np.empty((width, width, _LANES))
    inverse_diagonal = np.empty((width, _LANES))
    z = np.empty((width, _LANES))
    work = np.empty(_LANES)
    for first in range(0, n, _LANES):
        _load(effects, sigma, observed, first, y, errors, seen)
        for k in range(means.shape[0]):
            failed = _factor(errors, seen, covariances[k], chol, inverse_diagonal, work)
            if failed >= 0:
                return first + failed
            _whiten(y, seen, means[k], chol, inverse_diagonal, z)
            work[:] = 0.0
            for i in range(width):
                for lane in range(_LANES):
                    work[lane] += 0.5 * (
                        z[i, lane] * z[i, lane] + _LOG_2PI * seen[i, lane]
                    ) + math.log(chol[i, i, lane])
            for lane in range(min(_LANES, n - first)):
                out[k, first + lane] = -work[lane]
    return -1


@njit(nogil=True, cache=True)
def row_statistics(  # type: ignore[no-untyped-def]
    effects, sigma, observed, means, covariances, responsibilities, first_out, second_out
):
    """Fill ``sum_j q t`` (K, R) and ``sum_j q (t t^T - T^{-1})`` (K, R, R), ``t = T^{-1} r``.

    ``responsibilities`` is (K, n). Every ``T`` is known to be positive definite.
    """
    n, width = effects.shape
    count = means.shape[0]
    y = np.empty((width, _LANES))
    errors = np.empty((width, width, _LANES))
    seen = np.empty((width, _LANES))
    chol = np.empty((width, width, _LANES))
    inverse = np.empty((width, width, _LANES))
    inverse_diagonal = np.empty((width, _LANES))
    z = np.empty((width, _LANES))
    t = np.empty((width, _LANES))
    work = np.empty(_LANES)
    weight = np.zeros(_LANES)
    first_sums = np.zeros((count, width, _FOLD))
    second_sums = np.zeros((count, width, width, _FOLD))
    for start in range(0, n, _LANES):
        _load(effects, sigma, observed, start, y, errors, seen)
        for k in range(count):
            weight[:] = 0.0
            largest = 0.0
            for lane in range(min(_LANES, n - start)):
                weight[lane] = responsibilities[k, start + lane]
                largest = max(largest, weight[lane])
            if largest == 0.0:
                continue
            _factor(errors, seen, covariances[k], chol, inverse_diagonal, work)
            _whiten(y, seen, means[k], chol, inverse_diagonal, z)
            _invert(chol, inverse_diagonal, seen, z, inverse, t, work)
            _accumulate(inverse, t, weight, first_sums[k], second_sums[k], work)
    for k in range(count):
        for a in range(width):
            first_out[k, a] = first_sums[k, a].sum()
            for b in range(a + 1):
                second_out[k, a, b] = second_sums[k, a, b].sum()
                second_out[k, b, a] = second_out[k, a, b]
