"""Compiled loops of the mixture of a guide's counts in cells with and without it.

Cells without the guide have a background: Poisson counts whose mean has a logarithm that is linear
in the design. Cells with it, a share of all, have negative binomial counts of a mean and a size of
their own, above 0 (a guide without counts cannot be found). Both are fitted together, by an EM
algorithm that regresses the background on the cells without the guide alone: on all cells it would
explain the guide itself, the more the more cells have it.
"""

import math

import numpy as np

from plait.crt.negative_binomial_kernels import add_products, dot, linear_predictor
from plait.numerics.compiled import njit
from plait.numerics.factor_kernels import cholesky, solve_factored
from plait.numerics.saddlepoint_kernels import ANY_ORDER, exp_of_negative

_MOST_STEPS = 100
_SAME_LIKELIHOOD = 1e-3
_FEWEST_ABOVE = 3
"""A start with fewer counts above it is left out."""
_NO_CELLS = 0.01
"""With a smaller sum of probabilities no cell has the guide."""
_SMALLEST_SIZE, _LARGEST_SIZE = 1.0, 1000.0
"""At smaller sizes the most frequent count would be 1, as of a background."""
_SLOPE_PRECISION = 1.0
"""Of the normal prior of slopes, on covariates of variance 1: a background may have few counts."""
_COUNTS_BEFORE = 0.5
"""Counts of the background before any is seen, so that its mean is not 0."""
_LARGEST_STEP = 1.0
_LARGEST_LOG_MEAN = 30.0
_TILE = 512


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _exponential(log_mean, mean):  # type: ignore[no-untyped-def]
    """Write ``exp(log_mean)``, bounded, and return its sum."""
    total = 0.0
    for i in range(mean.shape[0]):
        log_mean[i] = min(max(log_mean[i], -_LARGEST_LOG_MEAN), _LARGEST_LOG_MEAN)
        e = exp_of_negative(-abs(log_mean[i]))
        mean[i] = 1.0 / e if log_mean[i] > 0.0 else e
        total += mean[i]
    return total


@njit(nogil=True, cache=True, error_model="numpy")
def _background(design, coefficients, log_mean, mean):  # type: ignore[no-untyped-def]
    """Fill the background's means, and return their sum."""
    total = 0.0
    for start in range(0, mean.shape[0], _TILE):
        stop = min(start + _TILE, mean.shape[0])
        linear_predictor(design, coefficients, start, log_mean[start:stop])
        total += _exponential(log_mean[start:stop], mean[start:stop])
    return total


@njit(nogil=True, cache=True, error_model="numpy")
def _improve(design, cells, counts, posterior, mean, weight, coefficients):  # type: ignore[no-untyped-def]
    """Move the background's coefficients by a step of Newton's, over cells without the guide."""
    n, q = mean.shape[0], design.shape[0]
    hessian, step, buffer = np.zeros((q, q)), np.empty(q), np.empty(_TILE)
    weight[:] = mean
    for a in range(cells.shape[0]):
        weight[cells[a]] *= 1.0 - posterior[a]
    for start in range(0, n, _TILE):
        stop = min(start + _TILE, n)
        add_products(design, start, weight[start:stop], buffer[: stop - start], hessian)
    for j in range(q):
        precision = _SLOPE_PRECISION if j > 0 else 0.0
        step[j] = -dot(design[j], weight) - precision * coefficients[j]
        hessian[j, j] += precision
        for a in range(cells.shape[0]):
            step[j] += design[j, cells[a]] * (1.0 - posterior[a]) * counts[a]
    step[0] += _COUNTS_BEFORE
    cholesky(hessian)
    solve_factored(hessian, step)
    largest = 0.0
    for j in range(q):
        largest = max(largest, abs(step[j]))
    factor = min(1.0, _LARGEST_STEP / largest) if largest > 0.0 else 1.0
    for j in range(q):
        coefficients[j] += factor * step[j]


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def _signal(counts, posterior, at_zero):  # type: ignore[no-untyped-def]
    """Return the sum of the probabilities, and the mean and the size of a guide's counts.

    ``at_zero`` is the share of cells with the guide that have no counts, by the last mean and size.
    """
    total, first, second = 0.0, 0.0, 0.0
    for a in range(counts.shape[0]):
        total += posterior[a]
        first += posterior[a] * counts[a]
        second += posterior[a] * counts[a] * counts[a]
    mean = first / total * (1.0 - at_zero)
    more = second / total * (1.0 - at_zero) - mean * mean - mean
    size = mean * mean / more if more > 0.0 else _LARGEST_SIZE
    return total, mean, min(max(size, _SMALLEST_SIZE), _LARGEST_SIZE)


@njit(nogil=True, cache=True, error_model="numpy")
def _expect(cells, counts, level_of, log_signal, log_mean, mean, posterior):  # type: ignore[no-untyped-def]
    """Fill probabilities, and return what cells with counts add to the log-likelihood.

    ``log_signal`` has, for each level of the counts, the log density in cells with the guide times
    the odds of having it. A count that is not above the background's mean is no guide's.
    """
    likelihood = 0.0
    for a in range(cells.shape[0]):
        i, count = cells[a], counts[a]
        log_density = count * log_mean[i]
        likelihood += log_density
        if count <= mean[i]:
            posterior[a] = 0.0
            continue
        change = log_signal[level_of[a]] - log_density + mean[i]
        e = math.exp(-abs(change))
        posterior[a] = 1.0 / (1.0 + e) if change > 0.0 else e / (1.0 + e)
        likelihood += max(change, 0.0) + math.log1p(e)
    return likelihood


@njit(nogil=True, cache=True, error_model="numpy")
def _one_start(design, cells, counts, levels, level_of, least, posterior):  # type: ignore[no-untyped-def]
    """Run the algorithm from all counts from ``least`` on; return the log-likelihood, or NaN."""
    n = design.shape[1]
    log_mean, mean, weight = np.empty(n), np.empty(n), np.empty(n)
    coefficients, log_signal = np.zeros(design.shape[0]), np.empty(levels.shape[0])
    below = _COUNTS_BEFORE
    for a in range(cells.shape[0]):
        posterior[a] = 1.0 if counts[a] >= least else 0.0
        below += (1.0 - posterior[a]) * counts[a]
    coefficients[0] = math.log(below / n)
    mean[:] = below / n
    before, at_zero = np.nan, 0.0
    for _ in range(_MOST_STEPS):
        total, signal, size = _signal(counts, posterior, at_zero)
        if total < _NO_CELLS:
            return before
        _improve(design, cells, counts, posterior, mean, weight, coefficients)
        background = _background(design, coefficients, log_mean, mean)
        at_zero = (size / (size + signal)) ** size
        without = math.log1p(-min(total / n, 1.0 - 0.5 / n))
        common = math.log(total / n) - without - math.log1p(-at_zero) - math.lgamma(size)
        common += size * math.log(size / (size + signal))
        for k in range(levels.shape[0]):
            share = levels[k] * math.log(signal / (size + signal))
            log_signal[k] = math.lgamma(levels[k] + size) + share + common
        likelihood = n * without - background
        likelihood += _expect(cells, counts, level_of, log_signal, log_mean, mean, posterior)
        if not math.isfinite(likelihood):
            return np.nan
        if abs(likelihood - before) < _SAME_LIKELIHOOD:
            return likelihood
        before = likelihood
    return before


@njit(nogil=True, cache=True, error_model="numpy")
def signal_posterior(design, cells, counts, levels, level_of, starts, posterior):  # type: ignore[no-untyped-def]
    """Fill the probability that cells with counts have the guide, by the best of several starts.

    ``levels`` are the different counts and ``level_of`` their places in it; a start takes counts
    from it on for the guide's. Returns whether the mixture could be fitted from any.
    """
    trial = np.empty(counts.shape[0])
    best = np.nan
    for least in starts:
        above = 0
        for a in range(counts.shape[0]):
            above += counts[a] >= least
        if above < _FEWEST_ABOVE:
            continue
        found = _one_start(design, cells, counts, levels, level_of, least, trial)
        if not math.isnan(found) and not found <= best:
            best = found
            posterior[:] = trial
    return not math.isnan(best)
