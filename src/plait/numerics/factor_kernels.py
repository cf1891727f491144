"""Compiled factors of small positive matrices, and solutions by them."""

import math

from plait.numerics.compiled import njit

DETERMINED = 1e-9
"""A column of which the others leave a smaller share is left out."""


@njit(nogil=True, cache=True, error_model="numpy")
def cholesky(matrix, least=DETERMINED):  # type: ignore[no-untyped-def]
    """Factorise in place (lower triangle).

    Columns of which those before leave no larger share than ``least`` become 0.
    """
    q = matrix.shape[0]
    for j in range(q):
        whole = matrix[j, j]
        for k in range(j):
            whole -= matrix[j, k] * matrix[j, k]
        pivot = math.sqrt(whole) if whole > least * matrix[j, j] else 0.0
        for i in range(j + 1, q):
            total = matrix[i, j]
            for k in range(j):
                total -= matrix[i, k] * matrix[j, k]
            matrix[i, j] = total / pivot if pivot > 0.0 else 0.0
        matrix[j, j] = pivot


@njit(nogil=True, cache=True, error_model="numpy")
def solve_factored(factor, values):  # type: ignore[no-untyped-def]
    """Solve ``L L' x = values`` in place; 0 for columns that were left out."""
    q = factor.shape[0]
    for j in range(q):
        for k in range(j):
            values[j] -= factor[j, k] * values[k]
        values[j] = values[j] / factor[j, j] if factor[j, j] > 0.0 else 0.0
    for j in range(q - 1, -1, -1):
        for k in range(j + 1, q):
            values[j] -= factor[k, j] * values[k]
        values[j] = values[j] / factor[j, j] if factor[j, j] > 0.0 else 0.0
