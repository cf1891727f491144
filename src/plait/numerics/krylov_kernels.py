"""Compiled steps of the Lanczos iteration; see `plait.numerics.krylov`."""

import math

import numpy as np

from plait.numerics.compiled import njit

_TOGETHER = 16


@njit(nogil=True, cache=True)
def advance(previous, current, following, before, diagonal, after):  # type: ignore[no-untyped-def]
    """Make the next unit vectors of ``following = A current``, in place, (N, n).

    ``before`` (n,) is what coupled ``previous`` and ``current``; ``diagonal`` and ``after`` (n,)
    are filled. Sums are in double precision; columns do not touch one another.
    """
    n_rows, n = current.shape
    diagonal[:] = 0.0
    for i in range(n_rows):
        for j in range(n):
            diagonal[j] += np.float64(current[i, j]) * np.float64(following[i, j])
    after[:] = 0.0
    for i in range(n_rows):
        for j in range(n):
            value = following[i, j] - diagonal[j] * current[i, j] - before[j] * previous[i, j]
            following[i, j] = value
            after[j] += value * value
    inverse = np.zeros(n)
    for j in range(n):
        after[j] = math.sqrt(after[j])
        if after[j] > 0.0:
            inverse[j] = 1.0 / after[j]
    for i in range(n_rows):
        for j in range(n):
            following[i, j] *= inverse[j]


@njit(nogil=True, cache=True)
def resolvents(diagonal, after, counts, shares, forms):  # type: ignore[no-untyped-def]
    """Fill ``e_1^T (h T + (1 - h) I)^-1 e_1`` (n, m) of n tridiagonal matrices and m shares h.

    ``diagonal`` and ``after`` (k, n): those of column j are the first ``counts[j]``.
    """
    for j in range(forms.shape[0]):
        for s in range(shares.shape[0]):
            h = shares[s]
            pivot = 1.0
            for i in range(counts[j] - 1, -1, -1):
                value = h * diagonal[i, j] + 1.0 - h
                if i < counts[j] - 1:
                    coupling = h * after[i, j]
                    value -= coupling * coupling / pivot
                pivot = value
            forms[j, s] = 1.0 / pivot


@njit(nogil=True, cache=True)
def log_determinant(diagonal, off_diagonal, nodes, weights, h2):  # type: ignore[no-untyped-def]
    """Return ``ln |h2 T + (1 - h2) I|`` plus ``sum_k weights_k ln(h2 nodes_k + 1 - h2)``."""
    rest = 1.0 - h2
    pivot = h2 * diagonal[0] + rest
    total, product = 0.0, pivot
    for i in range(1, diagonal.shape[0]):
        below = h2 * off_diagonal[i - 1]
        pivot = h2 * diagonal[i] + rest - below * below / pivot
        product *= pivot
        if i % _TOGETHER == 0:  # within 1e-6 and N each, so that few cannot overflow
            total += math.log(product)
            product = 1.0
    total += math.log(product)
    for k in range(nodes.shape[0]):
        total += weights[k] * math.log(h2 * nodes[k] + rest)
    return total
