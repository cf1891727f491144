"""Compiled loops of the negative-binomial score test of a gene.

A gene's counts y are regressed on the design by a Poisson model; with its means mu and a size
theta, cells have the score ``a = (y - mu) / (1 + mu / theta)`` and the weight
``w = mu / (1 + mu / theta)``. A treatment x has the statistic ``z = A / sqrt(V)`` with
``A = sum x a`` and ``V = sum x w - |sum x d|^2``, where ``d_i = L^-1 w_i z_i`` and
``L L' = sum w z z'``. Designs have the shape (columns, cells), cells contiguous.
"""

import math

import numpy as np

from plait.numerics.compiled import njit
from plait.numerics.factor_kernels import DETERMINED, cholesky, solve_factored
from plait.numerics.saddlepoint_kernels import ANY_ORDER, exp_of_negative

_TILE = 512
"""Cells whose columns stay in a core's first cache."""
MOST_STEPS = 25
SAME_DEVIANCE = 1e-8
MOST_THETA_STEPS = 50
SAME_THETA = 2.0**-13
"""The fourth root of the rounding of 1."""
SMALLEST_THETA, LARGEST_THETA = 0.01, 1000.0
LARGEST_PREDICTOR = 600.0
_LOG_PRODUCT = 700.0
"""Logarithm of a number somewhat below the largest double."""


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def dot(left, right):  # type: ignore[no-untyped-def]
    """Return the sum of products."""
    total = 0.0
    for i in range(left.shape[0]):
        total += left[i] * right[i]
    return total


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _multiply(left, right, out):  # type: ignore[no-untyped-def]
    for i in range(left.shape[0]):
        out[i] = left[i] * right[i]


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def add_scaled(values, factor, out):  # type: ignore[no-untyped-def]
    """Add ``factor * values`` to ``out``."""
    for i in range(out.shape[0]):
        out[i] += factor * values[i]


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def linear_predictor(design, coefficients, start, out):  # type: ignore[no-untyped-def]
    """Write ``sum_j coefficients_j design_j`` of ``len(out)`` cells from ``start`` on."""
    out[:] = 0.0
    for j in range(design.shape[0]):
        add_scaled(design[j][start : start + out.shape[0]], coefficients[j], out)


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _means(eta, mu):  # type: ignore[no-untyped-def]
    """Write ``exp(eta)``, eta kept where it is a finite, positive number."""
    for i in range(eta.shape[0]):
        x = min(max(eta[i], -LARGEST_PREDICTOR), LARGEST_PREDICTOR)
        e = exp_of_negative(-abs(x))
        mu[i] = 1.0 / e if x > 0.0 else e


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _loss(y, eta, mu, residual):  # type: ignore[no-untyped-def]
    """Write ``y - mu`` and return ``sum mu - y eta``."""
    total = 0.0
    for i in range(y.shape[0]):
        residual[i] = y[i] - mu[i]
        total += mu[i] - y[i] * eta[i]
    return total


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def add_products(design, start, weight, buffer, hessian):  # type: ignore[no-untyped-def]
    """Add a tile's ``sum w z z'`` to the lower triangle of ``hessian``."""
    stop = start + weight.shape[0]
    for j in range(design.shape[0]):
        _multiply(design[j][start:stop], weight, buffer)
        for k in range(j + 1):
            hessian[j, k] += dot(design[k][start:stop], buffer)


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def _poisson_pass(design, y, coefficients, mu, hessian, score):  # type: ignore[no-untyped-def]
    """Fill means, ``X'WX`` and ``X'(y - mu)`` at coefficients; return ``sum mu - y eta``."""
    n, q = y.shape[0], design.shape[0]
    eta, residual, buffer = np.empty(_TILE), np.empty(_TILE), np.empty(_TILE)
    hessian[:] = 0.0
    score[:] = 0.0
    loss = 0.0
    for start in range(0, n, _TILE):
        stop = min(start + _TILE, n)
        size = stop - start
        linear_predictor(design, coefficients, start, eta[:size])
        part = mu[start:stop]
        _means(eta[:size], part)
        loss += _loss(y[start:stop], eta[:size], part, residual[:size])
        for j in range(q):
            score[j] += dot(design[j][start:stop], residual[:size])
        add_products(design, start, part, buffer[:size], hessian)
    return loss


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def _first_step(design, y, hessian, coefficients):  # type: ignore[no-untyped-def]
    """Fill the coefficients that one weighted regression from the means y + 0.1 gives.

    Returns the constant of the deviance, ``sum y ln y - y``, and the loss at these means.
    """
    n, q = y.shape[0], design.shape[0]
    weight, response, buffer = np.empty(_TILE), np.empty(_TILE), np.empty(_TILE)
    hessian[:] = 0.0
    coefficients[:] = 0.0
    constant, loss = 0.0, 0.0
    for start in range(0, n, _TILE):
        stop = min(start + _TILE, n)
        size = stop - start
        for i in range(size):
            count = y[start + i]
            mean = count + 0.1
            eta = math.log(mean)
            weight[i] = mean
            response[i] = mean * eta + count - mean
            constant += count * math.log(count) - count if count > 0.0 else 0.0
            loss += mean - count * eta
        for j in range(q):
            coefficients[j] += dot(design[j][start:stop], response[:size])
        add_products(design, start, weight[:size], buffer[:size], hessian)
    cholesky(hessian)
    solve_factored(hessian, coefficients)
    return constant, loss


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def fit_poisson(design, y, coefficients, mu):  # type: ignore[no-untyped-def]
    """Fit a Poisson regression by iteratively reweighted least squares; return whether it ended.

    From means y + 0.1 until the deviance changes by less than 1e-8 of itself, at most 25 times, as
    R's `glm.fit` does; a step to an infinite deviance is halved.
    """
    q = design.shape[0]
    hessian, score, trial = np.empty((q, q)), np.empty(q), np.empty(q)
    constant, loss = _first_step(design, y, hessian, trial)
    deviance = 2.0 * (constant + loss)
    coefficients[:] = 0.0
    for _ in range(MOST_STEPS):
        loss = _poisson_pass(design, y, trial, mu, hessian, score)
        new = 2.0 * (constant + loss)
        halvings = 0
        while not new < 1e200 and halvings < MOST_STEPS:
            for j in range(q):
                trial[j] = 0.5 * (trial[j] + coefficients[j])
            new = 2.0 * (constant + _poisson_pass(design, y, trial, mu, hessian, score))
            halvings += 1
        coefficients[:] = trial
        if abs(new - deviance) < SAME_DEVIANCE * (abs(new) + 0.1):
            return True
        deviance = new
        cholesky(hessian)
        solve_factored(hessian, score)
        for j in range(q):
            trial[j] += score[j]
    return False


@njit(nogil=True, cache=True, error_model="numpy")
def _counts_above(y):  # type: ignore[no-untyped-def]
    """Return how many counts are above 0, 1, 2, ...."""
    above = np.zeros(np.int64(y.max()) + 1, dtype=np.int64)
    for i in range(y.shape[0]):
        above[np.int64(y[i])] += 1
    for k in range(above.shape[0] - 2, -1, -1):
        above[k] += above[k + 1]
    return above[1:]  # at or above 1, 2, ... is above 0, 1, ...


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _theta_terms(y, mu, theta):  # type: ignore[no-untyped-def]
    """Terms of score and information that are not digamma functions of counts."""
    score, information = 0.0, 0.0
    for i in range(y.shape[0]):
        total = theta + mu[i]
        ratio = (y[i] + theta) / total
        score -= ratio
        information += (2.0 - ratio) / total
    return score, information


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _product_of_totals(mu, inverse):  # type: ignore[no-untyped-def]
    product = 1.0
    for i in range(mu.shape[0]):
        product *= 1.0 + mu[i] * inverse
    return product


@njit(nogil=True, cache=True, error_model="numpy")
def _log_totals(mu, largest, theta):  # type: ignore[no-untyped-def]
    """``sum ln(1 + mu / theta)``, by logarithms of products; ``largest`` is that of mu."""
    most = math.log1p(largest / theta)
    # As many cells as keep their product below the largest double.
    many = int(min(max(_LOG_PRODUCT / most, 1.0), _TILE)) if most > 0.0 else _TILE
    total = 0.0
    for start in range(0, mu.shape[0], many):
        total += math.log(_product_of_totals(mu[start : start + many], 1.0 / theta))
    return total


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def _theta_by_likelihood(y, mu, start):  # type: ignore[no-untyped-def]
    """Newton's method for the size; NaN where it does not end at a positive number.

    Sums of ``digamma(theta + y) - digamma(theta)`` and its derivative run over the numbers below
    each count, of which there are as many as counts above them.
    """
    above, largest = _counts_above(y), mu.max()
    n = y.shape[0]
    theta, step = start, np.inf
    steps = 0
    while steps < MOST_THETA_STEPS and abs(step) > SAME_THETA:
        theta = abs(theta)
        score, information = _theta_terms(y, mu, theta)
        score += n - _log_totals(mu, largest, theta)
        information -= n / theta
        for k in range(above.shape[0]):
            score += above[k] / (theta + k)
            information += above[k] / (theta + k) ** 2
        step = score / information
        theta += step
        steps += 1
        if not math.isfinite(theta):
            return np.nan
    return theta if theta > 0.0 and abs(step) <= SAME_THETA else np.nan


@njit(nogil=True, cache=True, error_model="numpy")
def _theta_by_moments(y, mu, start, degrees):  # type: ignore[no-untyped-def]
    """Solve ``sum (y - mu)^2 / (mu + mu^2 / theta) = degrees``; NaN without a positive root."""
    theta, step = start, np.inf
    steps = 0
    while steps < MOST_THETA_STEPS and abs(step) > SAME_THETA:
        theta = abs(theta)
        top, bottom = 0.0, 0.0
        for i in range(y.shape[0]):
            square = (y[i] - mu[i]) ** 2
            top += square / (mu[i] + mu[i] * mu[i] / theta)
            bottom += square / (mu[i] + theta) ** 2
        step = (top - degrees) / bottom
        theta -= step
        steps += 1
        if not math.isfinite(theta):
            return np.nan
    return theta if theta > 0.0 and abs(step) <= SAME_THETA else np.nan


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def estimate_theta(y, mu, n_columns):  # type: ignore[no-untyped-def]
    """Return the size of the negative binomial at given means, in [0.01, 1000]."""
    n = y.shape[0]
    total = 0.0
    for i in range(n):
        total += (y[i] / mu[i] - 1.0) ** 2
    start = n / total
    theta = _theta_by_likelihood(y, mu, start)
    if math.isnan(theta):
        theta = _theta_by_moments(y, mu, start, float(n - n_columns))
    if math.isnan(theta):
        theta = start
    return min(max(theta, SMALLEST_THETA), LARGEST_THETA)


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _scores(y, mu, theta, a, w):  # type: ignore[no-untyped-def]
    for i in range(y.shape[0]):
        shrunk = 1.0 / (1.0 + mu[i] / theta)
        a[i] = (y[i] - mu[i]) * shrunk
        w[i] = mu[i] * shrunk


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _scale(out, factor):  # type: ignore[no-untyped-def]
    for i in range(out.shape[0]):
        out[i] *= factor


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _add_squares(values, out):  # type: ignore[no-untyped-def]
    for i in range(out.shape[0]):
        out[i] += values[i] * values[i]


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def fill_scores(design, y, mu, theta, parts):  # type: ignore[no-untyped-def]
    """Fill what the statistic of any treatment is made of.

    ``parts`` (3 + q, cells): a, w, ``|d|^2``, then the q rows of d.
    """
    n, q = y.shape[0], design.shape[0]
    hessian, buffer = np.zeros((q, q)), np.empty(_TILE)
    for start in range(0, n, _TILE):
        stop = min(start + _TILE, n)
        _scores(y[start:stop], mu[start:stop], theta, parts[0][start:stop], parts[1][start:stop])
        add_products(design, start, parts[1][start:stop], buffer[: stop - start], hessian)
    cholesky(hessian)
    for start in range(0, n, _TILE):
        stop = min(start + _TILE, n)
        leverage = parts[2][start:stop]
        leverage[:] = 0.0
        for j in range(q):
            row = parts[3 + j][start:stop]
            if hessian[j, j] == 0.0:
                row[:] = 0.0
                continue
            _multiply(design[j][start:stop], parts[1][start:stop], row)
            for k in range(j):
                add_scaled(parts[3 + k][start:stop], -hessian[j, k], row)
            _scale(row, 1.0 / hessian[j, j])
            _add_squares(row, leverage)


@njit(nogil=True, cache=True, error_model="numpy")
def fit_gene(design, y, coefficients, mu, parts):  # type: ignore[no-untyped-def]
    """Fit one gene: coefficients, means and `fill_scores`; return theta and whether it ended."""
    ended = fit_poisson(design, y, coefficients, mu)
    theta = estimate_theta(y, mu, design.shape[0])
    fill_scores(design, y, mu, theta, parts)
    return theta, ended


@njit(nogil=True, cache=True, error_model="numpy")
def observed_statistic(parts, y, mu, cells):  # type: ignore[no-untyped-def]
    """Return z, the fold change and its standard error of one treatment.

    z is NaN where the design determines the treatment.
    """
    q = parts.shape[0] - 3
    top, bottom, counts, expected = 0.0, 0.0, 0.0, 0.0
    for place in range(cells.shape[0]):
        i = cells[place]
        top += parts[0, i]
        bottom += parts[1, i]
        counts += y[i]
        expected += mu[i]
    whole = bottom
    for j in range(q):
        row, total = parts[3 + j], 0.0
        for place in range(cells.shape[0]):
            total += row[cells[place]]
        bottom -= total * total
    fold = counts / expected
    square = 0.0
    for place in range(cells.shape[0]):
        i = cells[place]
        square += (y[i] - fold * mu[i]) ** 2
    z = top / math.sqrt(bottom) if bottom > DETERMINED * whole else np.nan
    return z, fold, math.sqrt(square) / expected


@njit(nogil=True, cache=True, error_model="numpy")
def observed_statistics(parts, y, mu, starts, cells, chosen, z, fold, error):  # type: ignore[no-untyped-def]
    """Fill `observed_statistic` of the chosen of many lists of treated cells."""
    for k in range(chosen.shape[0]):
        unit = chosen[k]
        treated = cells[starts[unit] : starts[unit + 1]]
        z[k], fold[k], error[k] = observed_statistic(parts, y, mu, treated)
