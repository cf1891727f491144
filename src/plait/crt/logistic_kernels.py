"""Compiled loops of logistic regressions of many treatments on one design.

Loss, slope and curvature of all cells come from one call, which holds no lock of Python's or of a
library's: threads that fit treatments do not wait for one another. Treatments share the products of
covariates; a treatment's own sums are made alike whichever others are fitted, so that a fit has the
same bits beside any other.
"""

import math

import numpy as np

from plait.numerics.compiled import njit
from plait.numerics.saddlepoint_kernels import ANY_ORDER, exp_of_negative

WIDTH = 16
"""Treatments that are fitted together."""
_CELLS = 256
"""Cells that are worked on together: all of theirs is in a core's first cache, and a product of as
many numbers from 1 to 2 is below the largest double."""
_TILE = 4
"""Products and treatments whose sums are added up together, in registers: 4 x 4 of them."""


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _add_tile(products, values, j, rows, sums):  # type: ignore[no-untyped-def]
    """Add the sums over cells of four products times the values of four treatments."""
    a0, a1, a2, a3 = products[0], products[1], products[2], products[3]
    b0, b1, b2, b3 = values[j], values[j + 1], values[j + 2], values[j + 3]
    s00, s01, s02, s03, s10, s11, s12, s13 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    s20, s21, s22, s23, s30, s31, s32, s33 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(rows):
        x0, x1, x2, x3 = a0[i], a1[i], a2[i], a3[i]
        y = b0[i]
        s00 += x0 * y
        s10 += x1 * y
        s20 += x2 * y
        s30 += x3 * y
        y = b1[i]
        s01 += x0 * y
        s11 += x1 * y
        s21 += x2 * y
        s31 += x3 * y
        y = b2[i]
        s02 += x0 * y
        s12 += x1 * y
        s22 += x2 * y
        s32 += x3 * y
        y = b3[i]
        s03 += x0 * y
        s13 += x1 * y
        s23 += x2 * y
        s33 += x3 * y
    for row, (t0, t1, t2, t3) in enumerate(
        ((s00, s01, s02, s03), (s10, s11, s12, s13), (s20, s21, s22, s23), (s30, s31, s32, s33))
    ):
        out = sums[row]
        out[j] += t0
        out[j + 1] += t1
        out[j + 2] += t2
        out[j + 3] += t3


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _fill_terms(eta, weight):  # type: ignore[no-untyped-def]
    """Overwrite ``eta`` by the derivative of log(1 + exp(eta)), write the second; return its sum.

    At most `_CELLS` cells.
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


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _add_columns(columns, begin, coefficients, values):  # type: ignore[no-untyped-def]
    """Write the linear predictor of some cells."""
    values[:] = 0.0
    for k in range(columns.shape[0]):
        column, factor = columns[k, begin : begin + values.shape[0]], coefficients[k]
        for i in range(values.shape[0]):
            values[i] += factor * column[i]


@njit(nogil=True, cache=True)
def evaluate(columns, coefficients, n, loss, slope, curvature):  # type: ignore[no-untyped-def]
    """Add up loss, slope and curvature of the first ``n`` treatments over all cells.

    ``columns`` (q, N), the first of them ones; ``coefficients`` (`WIDTH`, q); ``loss`` (`WIDTH`,);
    ``slope`` (q, `WIDTH`) of sums of the columns times probabilities; ``curvature`` (q (q + 1) / 2,
    `WIDTH`) of sums of products of pairs times weights p (1 - p).
    """
    q, n_cells = columns.shape
    first, second = np.empty(curvature.shape[0], np.int64), np.empty(curvature.shape[0], np.int64)
    pair = 0
    for a in range(q):
        for b in range(a, q):
            first[pair], second[pair] = a, b
            pair += 1
    terms, weights = np.zeros((WIDTH, _CELLS)), np.zeros((WIDTH, _CELLS))
    products, sums = np.zeros((_TILE, _CELLS)), np.empty((_TILE, WIDTH))
    for begin in range(0, n_cells, _CELLS):
        rows = min(_CELLS, n_cells - begin)
        for j in range(n):
            _add_columns(columns, begin, coefficients[j], terms[j, :rows])
            loss[j] += _fill_terms(terms[j, :rows], weights[j, :rows])
        for tile in range(0, curvature.shape[0], _TILE):
            used = min(_TILE, curvature.shape[0] - tile)
            for k in range(used):
                left = columns[first[tile + k], begin : begin + rows]
                right = columns[second[tile + k], begin : begin + rows]
                for i in range(rows):
                    products[k, i] = left[i] * right[i]
            sums[:] = 0.0
            for j in range(0, n, _TILE):
                _add_tile(products, weights, j, rows, sums)
            for k in range(used):
                curvature[tile + k] += sums[k]
            if tile < q:  # the pairs of the first column, of ones, are the columns themselves
                sums[:] = 0.0
                for j in range(0, n, _TILE):
                    _add_tile(products, terms, j, rows, sums)
                for k in range(min(_TILE, q - tile)):
                    slope[tile + k] += sums[k]


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy")
def fill_probabilities(columns, coefficients, least, places, rows):  # type: ignore[no-untyped-def]
    """Write the probabilities of coefficients (treatments, q) to some of ``rows`` (., N).

    They are at least ``least`` away from 0 and 1; treatment j has row ``places[j]``.
    """
    most = 1.0 - least
    for j in range(coefficients.shape[0]):
        row = rows[places[j]]
        # Some cells at a time: they stay in a core's first cache while covariates are added.
        for begin in range(0, row.shape[0], _CELLS):
            near = row[begin : begin + _CELLS]
            near[:] = 0.0
            for k in range(columns.shape[0]):
                column, factor = columns[k, begin : begin + _CELLS], coefficients[j, k]
                for i in range(near.shape[0]):
                    near[i] += factor * column[i]
            for i in range(near.shape[0]):
                x = near[i]
                tail = exp_of_negative(-abs(x))
                inverse = 1.0 / (1.0 + tail)
                near[i] = min(max(inverse if x > 0.0 else tail * inverse, least), most)
