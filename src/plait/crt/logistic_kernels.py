"""Compiled loops of logistic regressions of many treatments on one design.

Loss, slope and curvature of all cells come from one call, which holds no lock of Python's: threads
that fit treatments do not wait for one another. Matrix products have the same shape whichever
treatments are fitted (`WIDTH` of them, of `_CELLS` cells, zeros where there are fewer), so that a
fit has the same bits beside any other.
"""

import math

import numpy as np

from plait.numerics.compiled import njit
from plait.numerics.saddlepoint_kernels import ANY_ORDER, exp_of_negative

WIDTH = 16
"""Treatments that are fitted together."""
_CELLS = 512
"""Cells whose products are made together; they stay in a core's second cache."""
_CHUNK = 256
"""Cells of which a product of numbers from 1 to 2 is made: below the largest double."""


@njit(nogil=True, cache=True, forceinline=True)
def _fill_products(columns, begin, products):  # type: ignore[no-untyped-def]
    """Write the products of each pair of columns of some cells, zeros beyond the last cell."""
    q = columns.shape[0]
    rows = min(products.shape[1], columns.shape[1] - begin)
    products[:, rows:] = 0.0
    pair = 0
    for a in range(q):
        left = columns[a, begin : begin + rows]
        for b in range(a, q):
            right, product = columns[b, begin : begin + rows], products[pair]
            for i in range(rows):
                product[i] = left[i] * right[i]
            pair += 1
    return rows


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _fill_terms(eta, weight):  # type: ignore[no-untyped-def]
    """Overwrite ``eta`` by the derivative of log(1 + exp(eta)), write the second; return its sum.

    At most `_CHUNK` cells.
    """
    # Two loops: LLVM does not vectorise one that overwrites what it reads and sums as well.
    linear, product = 0.0, 1.0
    for i in range(eta.shape[0]):
        tail = exp_of_negative(-abs(eta[i]))
        linear += max(eta[i], 0.0)
        product *= 1.0 + tail
        weight[i] = tail
    for i in range(eta.shape[0]):
        tail = weight[i]
        inverse = 1.0 / (1.0 + tail)
        eta[i] = inverse if eta[i] > 0.0 else tail * inverse
        weight[i] = tail * inverse * inverse
    return linear + math.log(product)


@njit(nogil=True, cache=True)
def evaluate(columns, coefficients, n, loss, slope, curvature):  # type: ignore[no-untyped-def]
    """Add up loss, slope and curvature of the first ``n`` treatments over all cells.

    ``columns`` (q, N), the first of them ones; ``coefficients`` (`WIDTH`, q), zeros from row ``n``
    on; ``loss`` (`WIDTH`,); ``slope`` (q, `WIDTH`) of sums of the columns times probabilities;
    ``curvature`` (q (q + 1) / 2, `WIDTH`) of sums of products of pairs times weights p (1 - p).
    """
    q, n_cells = columns.shape
    products = np.empty((curvature.shape[0], _CELLS))
    terms, weights = np.empty((WIDTH, _CELLS)), np.zeros((WIDTH, _CELLS))
    own_slope, own_curvature = np.empty(slope.shape), np.empty(curvature.shape)
    for begin in range(0, n_cells, _CELLS):
        rows = _fill_products(columns, begin, products)
        # The pairs of the first column, of ones, are the columns themselves.
        np.dot(coefficients, products[:q], terms)
        for j in range(n):
            for start in range(0, rows, _CHUNK):
                stop = min(start + _CHUNK, rows)
                loss[j] += _fill_terms(terms[j, start:stop], weights[j, start:stop])
        np.dot(products[:q], terms.T, own_slope)
        np.dot(products, weights.T, own_curvature)
        slope += own_slope
        curvature += own_curvature


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy")
def fill_probabilities(columns, coefficients, probabilities):  # type: ignore[no-untyped-def]
    """Write the probabilities (treatments, N) of coefficients (treatments, q)."""
    for j in range(coefficients.shape[0]):
        row = probabilities[j]
        row[:] = 0.0
        for k in range(columns.shape[0]):
            column, factor = columns[k], coefficients[j, k]
            for i in range(row.shape[0]):
                row[i] += factor * column[i]
        for i in range(row.shape[0]):
            x = row[i]
            tail = exp_of_negative(-abs(x))
            inverse = 1.0 / (1.0 + tail)
            row[i] = inverse if x > 0.0 else tail * inverse
