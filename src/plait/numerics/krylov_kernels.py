"""Compiled steps of the Lanczos iteration; see `plait.numerics.krylov`."""

import math

import numpy as np

from plait.numerics.compiled import njit
from plait.numerics.lane_kernels import (
    DOUBLES,
    FLOATS,
    add_product,
    converted_at,
    lanes_at,
    sum_of,
    zeros_like,
)
from plait.numerics.search_kernels import BEST, SEARCH, first_place, next_place

_TOGETHER = 16
"""Pivots whose product is taken before the logarithm."""
_CELL = 0.8
"""Width of a cell of a table, in logarithms of odds."""
_NOTHING = 1e-300
"""For what a variant leaves of a trait that it explains."""


@njit(nogil=True, cache=True)
def multiply(matrix, turned, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` (m, n) with the product of ``matrix`` (m, N) and the transpose of (n, N).

    In the precision of the latter, which is that of the matrix or double. Four rows and five
    columns share what is loaded of one another; their sums stay in registers. What becomes of a row
    and a column does not depend, to the last bit, on which others they are with.
    """
    height, length = matrix.shape
    of_matrix, given = matrix.reshape(matrix.size), turned.reshape(turned.size)
    last, last_column = (height - 1) * length, (turned.shape[0] - 1) * length
    width = FLOATS if turned.itemsize == 4 else DOUBLES
    whole = length // width * width
    for top in range(0, height, 4):
        row0 = top * length
        row1, row2 = min(row0 + length, last), min(row0 + 2 * length, last)
        row3 = min(row0 + 3 * length, last)
        for left in range(0, turned.shape[0], 5):
            column0 = left * length
            column1 = min(column0 + length, last_column)
            column2 = min(column0 + 2 * length, last_column)
            column3 = min(column0 + 3 * length, last_column)
            column4 = min(column0 + 4 * length, last_column)
            none = zeros_like(given)
            sums0 = sums1 = sums2 = sums3 = (none, none, none, none, none)
            for k in range(0, whole, width):
                x = (
                    lanes_at(given, column0 + k),
                    lanes_at(given, column1 + k),
                    lanes_at(given, column2 + k),
                    lanes_at(given, column3 + k),
                    lanes_at(given, column4 + k),
                )
                sums0 = _with_products(sums0, converted_at(given, of_matrix, row0 + k), x)
                sums1 = _with_products(sums1, converted_at(given, of_matrix, row1 + k), x)
                sums2 = _with_products(sums2, converted_at(given, of_matrix, row2 + k), x)
                sums3 = _with_products(sums3, converted_at(given, of_matrix, row3 + k), x)
            for r, sums in enumerate((sums0, sums1, sums2, sums3)):
                for c, some in enumerate(sums):
                    row, column = min(top + r, height - 1), min(left + c, turned.shape[0] - 1)
                    total = sum_of(some)
                    for k in range(whole, length):
                        total += matrix[row, k] * turned[column, k]
                    out[row, column] = total


@njit(nogil=True, cache=True, inline="always")
def _with_products(sums, a, x):  # type: ignore[no-untyped-def]
    """Add the products of a vector with five others to five sums."""
    return (
        add_product(sums[0], a, x[0]),
        add_product(sums[1], a, x[1]),
        add_product(sums[2], a, x[2]),
        add_product(sums[3], a, x[3]),
        add_product(sums[4], a, x[4]),
    )


@njit(nogil=True, cache=True)
def sums_of_squares(columns, out):  # type: ignore[no-untyped-def]
    """Fill the squared lengths (n,) of columns (N, n), in double precision."""
    out[:] = 0.0
    for i in range(columns.shape[0]):
        for j in range(columns.shape[1]):
            out[j] += np.float64(columns[i, j]) * np.float64(columns[i, j])


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
def forms_of_variant(trait, variant, h2):  # type: ignore[no-untyped-def]
    """Return ``y^T P y``, ``g^T P y``, ``g^T P g`` of a trait and a variant at a share.

    ``trait`` is the ``diagonal`` and ``after`` (k,) of the Krylov space of y, and the length of y;
    ``variant`` are the products (k,) of g with the unit vectors of that space, and of its own space
    the ``diagonal`` and ``after`` and ``g^T g``.
    """
    diagonal, after, length = trait
    products, own_diagonal, own_after, square = variant
    rest = 1.0 - h2
    pivot = h2 * diagonal[0] + rest
    a, b = length, products[0]
    yy, gy = a * a / pivot, b * a / pivot
    for i in range(1, diagonal.shape[0]):
        coupling = h2 * after[i - 1]
        multiple = coupling / pivot
        pivot = h2 * diagonal[i] + rest - multiple * coupling
        a = -multiple * a
        b = products[i] - multiple * b
        yy += a * a / pivot
        gy += b * a / pivot
    pivot = 1.0
    for i in range(own_diagonal.shape[0] - 1, -1, -1):
        value = h2 * own_diagonal[i] + rest
        if i < own_diagonal.shape[0] - 1:
            coupling = h2 * own_after[i]
            value -= coupling * coupling / pivot
        pivot = value
    return yy, gy, square / pivot


@njit(nogil=True, cache=True)
def highest_likelihood(trait, variant, determinant, df, low, guess, high, tolerance):  # type: ignore[no-untyped-def]
    """Return the largest log-likelihood between two shares, but for a constant, and where it is.

    That is the restricted one of a model with the variant, ``df`` its degrees of freedom; see
    `forms_of_variant` and `determinant_without_covariates`. There is one maximum between them.
    """
    search = np.empty(SEARCH)
    place = first_place(search, low, guess, high)
    while not math.isnan(place):
        value = _log_likelihood(trait, variant, determinant, df, place)
        place = next_place(search, value, tolerance)
    largest, best = -np.inf, guess
    for place in (search[BEST], low, guess, high):
        value = _log_likelihood(trait, variant, determinant, df, place)
        if value > largest:
            largest, best = value, place
    return largest, best


@njit(nogil=True, cache=True)
def _log_likelihood(trait, variant, determinant, df, h2):  # type: ignore[no-untyped-def]
    yy, gy, gg = forms_of_variant(trait, variant, h2)
    left = max(yy - gy * gy / gg, _NOTHING)
    whole = determinant_without_covariates(determinant, h2)
    return -0.5 * (df * math.log(left) + whole + math.log(gg))


@njit(nogil=True, cache=True)
def determinant_without_covariates(determinant, h2):  # type: ignore[no-untyped-def]
    """Return ``ln |h2 A + (1 - h2) I|`` on the space orthogonal to the covariates.

    ``determinant`` is the table of `tabulate_log_determinant` and what it was made of, then what
    was added to the eigenvalues, and the number of covariates: in their directions A is that.
    """
    table, diagonal, off_diagonal, nodes, weights, lifted, n_covariates = determinant
    whole = tabulated(table, h2)
    if math.isnan(whole):
        whole = log_determinant(diagonal, off_diagonal, nodes, weights, h2)
    return whole - n_covariates * math.log(h2 * lifted + 1.0 - h2)


@njit(nogil=True, cache=True)
def tabulate_log_determinant(diagonal, off_diagonal, nodes, weights, table):  # type: ignore[no-untyped-def]
    """Fill ``table`` (cells, k) with Chebyshev coefficients of `log_determinant`.

    Cells are `_CELL` wide in ``ln (h2 / (1 - h2))``, as many of them below 0 as above. The nearest
    singularities are pi away from the real line: a coefficient more divides the error by 15.
    """
    n_cells, k = table.shape
    values = np.empty(k)
    for cell in range(n_cells):
        for i in range(k):
            x = math.cos(math.pi * (i + 0.5) / k)
            place = _CELL * (cell + 0.5 * (1.0 + x) - 0.5 * n_cells)
            share = 1.0 / (1.0 + math.exp(-place))
            values[i] = log_determinant(diagonal, off_diagonal, nodes, weights, share)
        for j in range(k):
            total = 0.0
            for i in range(k):
                total += values[i] * math.cos(math.pi * j * (i + 0.5) / k)
            table[cell, j] = (1.0 if j == 0 else 2.0) * total / k


@njit(nogil=True, cache=True)
def tabulated(table, h2):  # type: ignore[no-untyped-def]
    """Return what a table says at a share; NaN beyond its cells."""
    n_cells, k = table.shape
    if not 0.0 < h2 < 1.0:
        return np.nan
    place = math.log(h2 / (1.0 - h2)) / _CELL + 0.5 * n_cells
    cell = math.floor(place)
    if not 0 <= cell < n_cells:
        return np.nan
    x = 2.0 * (place - cell) - 1.0
    one, two = 0.0, 0.0
    for j in range(k - 1, 0, -1):  # Clenshaw's recurrence
        one, two = 2.0 * x * one - two + table[cell, j], one
    return x * one - two + table[cell, 0]


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
