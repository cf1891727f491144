"""Compiled logistic regressions of many treatments on one design.

Treatments are fitted in one call, which holds no lock of Python's or of a library's: threads that
fit treatments do not wait for one another. Treatments share the products of covariates; a
treatment's own sums are made alike whichever others are fitted, so that a fit has the same bits
beside any other.
"""

import math

import numpy as np

from plait.numerics.compiled import njit
from plait.numerics.factor_kernels import cholesky, solve_factored
from plait.numerics.saddlepoint_kernels import ANY_ORDER, exp_of_negative

WIDTH = 16
"""Treatments that are fitted together, as in `plait.crt.logistic`, which loads without Numba."""
TILE = 4
"""Products and treatments whose sums are added up together, in registers: 4 x 4 of them."""
_CELLS = 256
"""Cells that are worked on together: all of theirs is in a core's first cache, and a product of as
many numbers from 1 to 2 is below the largest double."""
_ROUNDING = 1e-12
"""Share of the objective that an increase may be and still be rounding."""
_FLAT = 1e-9
"""Decrease of the objective, as Newton's method expects it, that is none."""
_LONG = 0.1
"""Change of the linear predictor of some cell that is not one of convergence."""
_SINGULAR = 1e-15
"""Share of a column's curvature that is none beside those of the columns before, but rounding."""


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


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def _evaluate(columns, coefficients, n, loss, slope, curvature):  # type: ignore[no-untyped-def]
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
    products, sums = np.zeros((TILE, _CELLS)), np.empty((TILE, WIDTH))
    for begin in range(0, n_cells, _CELLS):
        rows = min(_CELLS, n_cells - begin)
        for j in range(n):
            _add_columns(columns, begin, coefficients[j], terms[j, :rows])
            loss[j] += _fill_terms(terms[j, :rows], weights[j, :rows])
        for tile in range(0, curvature.shape[0], TILE):
            used = min(TILE, curvature.shape[0] - tile)
            for k in range(used):
                left = columns[first[tile + k], begin : begin + rows]
                right = columns[second[tile + k], begin : begin + rows]
                for i in range(rows):
                    products[k, i] = left[i] * right[i]
            sums[:] = 0.0
            for j in range(0, n, TILE):
                _add_tile(products, weights, j, rows, sums)
            for k in range(used):
                curvature[tile + k] += sums[k]
            if tile < q:  # the pairs of the first column, of ones, are the columns themselves
                sums[:] = 0.0
                for j in range(0, n, TILE):
                    _add_tile(products, terms, j, rows, sums)
                for k in range(min(TILE, q - tile)):
                    slope[tile + k] += sums[k]


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def _penalised_sum(coefficients, response, penalty, slope):  # type: ignore[no-untyped-def]
    """Make a treatment's slope (q,) that of its objective; return what is beside the loss."""
    total = 0.0
    for k in range(coefficients.shape[0]):
        shrunk = penalty * coefficients[k] if k > 0 else 0.0
        total += coefficients[k] * (0.5 * shrunk - response[k])
        slope[k] += shrunk - response[k]
    return total


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def _newton_step(curvature, slope, penalty, hessian, step):  # type: ignore[no-untyped-def]
    """Write a treatment's step (q,); return whether its Hessian is singular."""
    q, pair = step.shape[0], 0
    for a in range(q):
        for b in range(a, q):
            hessian[b, a] = curvature[pair]
            pair += 1
        hessian[a, a] += penalty if a > 0 else 0.0
    cholesky(hessian, _SINGULAR)
    step[:] = slope
    solve_factored(hessian, step)
    singular = False
    for a in range(q):
        singular |= hessian[a, a] == 0.0
    return singular


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def _is_endless(step, slope, reaches):  # type: ignore[no-untyped-def]
    """Tell whether a step goes off to infinity: a long one that gains nothing."""
    gain, length = 0.0, 0.0
    for k in range(step.shape[0]):
        gain += step[k] * slope[k]
        length = max(length, abs(step[k]) * reaches[k])
    return not math.isfinite(gain) or (gain < _FLAT and length > _LONG)


@njit(nogil=True, cache=True, error_model="numpy")
def fit(  # type: ignore[no-untyped-def]
    columns, reaches, starts, cells, penalty, tolerance, max_iterations,
    coefficients, iterations, halvings, converged, separated,
):  # fmt: skip
    """Fit up to `WIDTH` treatments by Newton's method; see `plait.crt.logistic.fit_logistic`.

    ``columns`` (q, N), the first of them ones; ``reaches`` (q,) of `plait.crt.logistic.Design`;
    treatment j is of ``cells[starts[j] : starts[j + 1]]``. The others are filled: ``coefficients``
    (n, q), ``iterations``, ``halvings``, ``converged`` and ``separated`` (n,).
    """
    n, q = coefficients.shape
    n_pairs = q * (q + 1) // 2
    response, hessian = np.zeros((n, q)), np.empty((q, q))
    coefficients[:] = 0.0
    for j in range(n):
        treated = starts[j + 1] - starts[j]
        coefficients[j, 0] = math.log(treated / (columns.shape[1] - treated))
        for k in range(q):
            for place in range(starts[j], starts[j + 1]):
                response[j, k] += columns[k, cells[place]]
    halvings[:], converged[:], separated[:] = 0, False, False
    # Where a fit starts is tried first, by no step: it is better than nothing.
    iterations[:] = -1
    objective, steps, scale = np.full(n, np.inf), np.zeros((n, q)), np.zeros(n)
    active, trials = np.empty(WIDTH, np.int64), np.zeros((WIDTH, q))
    for _ in range(max_iterations + 1):
        n_active = 0
        for j in range(n):
            if converged[j] or separated[j]:
                continue
            # A full step below the tolerance is the last; that it is no worse need not be seen.
            if scale[j] == 1.0 and np.abs(steps[j]).max() < tolerance:
                coefficients[j] -= steps[j]
                iterations[j] += 1
                converged[j] = True
                continue
            trials[n_active] = coefficients[j] - scale[j] * steps[j]
            active[n_active] = j
            n_active += 1
        if n_active == 0:
            break
        loss, slopes = np.zeros(WIDTH), np.zeros((q, WIDTH))
        curvature = np.zeros((n_pairs, WIDTH))
        _evaluate(columns, trials, n_active, loss, slopes, curvature)
        for place in range(n_active):
            j, trial, slope = active[place], trials[place], slopes[:, place]
            value = loss[place] + _penalised_sum(trial, response[j], penalty, slope)
            if not value <= objective[j] + _ROUNDING * abs(objective[j]):
                scale[j] /= 2.0
                halvings[j] += 1
                continue
            coefficients[j], objective[j], scale[j] = trial, value, 1.0
            iterations[j] += 1
            singular = _newton_step(curvature[:, place], slope, penalty, hessian, steps[j])
            separated[j] = singular or _is_endless(steps[j], slope, reaches)


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
