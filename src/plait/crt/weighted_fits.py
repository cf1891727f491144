"""The negative binomial of a gene's counts with weights of cells."""

import numpy as np
from numpy.typing import NDArray

from plait.crt.negative_binomial import GeneFit

Array = NDArray[np.float64]


def fit_weighted_gene(design: Array, counts: Array, weights: Array) -> GeneFit:
    """Regress a gene's counts on a design, each cell with a weight.

    Parameters
    ----------
    design : (columns, cells) array
    counts : (cells,) array
    weights : (cells,) array
        Positive, of mean 1.

    Returns
    -------
    GeneFit
        Of the weighted likelihoods; scores, information, ``counts`` and ``mean`` are times the
        weights. With whole numbers as weights the same as with each cell so many times.

    Notes
    -----
    As `plait.crt.negative_binomial.fit_gene`: iteratively reweighted least squares, then theta by
    Newton's method on its likelihood, else ``sum v / sum v (y / mu - 1)^2``.
    """
    y, v = np.asarray(counts, dtype=np.float64), weights
    coefficients, mean, converged = _poisson(design, y, v)
    theta = _theta(y, mean, v)
    shrunk = v / (1.0 + mean / theta)
    parts = np.empty((3 + len(design), len(y)))
    parts[0], parts[1] = (y - mean) * shrunk, mean * shrunk
    root = _factor(design, parts[1])
    for j in range(len(design)):
        row = design[j] * parts[1] - root[j, :j] @ parts[3 : 3 + j]
        parts[3 + j] = row / root[j, j] if root[j, j] > 0.0 else 0.0
    parts[2] = (parts[3:] ** 2).sum(axis=0)
    return GeneFit(coefficients, theta, converged, v * y, v * mean, parts)


def _factor(design: Array, w: Array) -> Array:
    """Return the Cholesky factor of ``X' diag(w) X``; 0 for columns that others determine."""
    from plait.numerics.factor_kernels import cholesky

    factor: Array = np.ascontiguousarray((design * w) @ design.T)
    cholesky(factor)
    return factor


def _poisson(design: Array, y: Array, v: Array) -> tuple[Array, Array, bool]:
    from plait.crt.negative_binomial_kernels import (
        LARGEST_PREDICTOR,
        MOST_STEPS,
        SAME_DEVIANCE,
    )
    from plait.numerics.factor_kernels import solve_factored

    mean = y + 0.1
    eta = np.log(mean)
    constant = float(np.sum(v * (np.where(y > 0.0, y * np.log(np.maximum(y, 1.0)), 0.0) - y)))
    deviance = 2.0 * (constant + float(np.sum(v * (mean - y * eta))))
    coefficients = np.zeros(len(design))
    for _ in range(MOST_STEPS):
        w = v * mean
        coefficients = design @ (w * eta + v * (y - mean))
        solve_factored(_factor(design, w), coefficients)
        eta = np.clip(coefficients @ design, -LARGEST_PREDICTOR, LARGEST_PREDICTOR)
        mean = np.exp(eta)
        new = 2.0 * (constant + float(np.sum(v * (mean - y * eta))))
        if abs(new - deviance) < SAME_DEVIANCE * (abs(new) + 0.1):
            return coefficients, mean, True
        deviance = new
    return coefficients, mean, False


def _theta(y: Array, mean: Array, v: Array) -> float:
    """Return the size by Newton's method on its weighted likelihood.

    Limits are sceptre's, as the kernel's are; `plait.crt.single_fits.dispersion_given_mean` has
    spacrt's, which are wider, and therefore searches the logarithm of theta.
    """
    from scipy.special import digamma, polygamma

    from plait.crt.negative_binomial_kernels import (
        LARGEST_THETA,
        MOST_THETA_STEPS,
        SAME_THETA,
        SMALLEST_THETA,
    )

    start = float(v.sum() / np.sum(v * (y / mean - 1.0) ** 2))
    values, place = np.unique(y, return_inverse=True)
    of_value = np.bincount(place, v)
    theta = start
    for _ in range(MOST_THETA_STEPS):
        theta = abs(theta)
        total = theta + mean
        ratio = (y + theta) / total
        score = float(np.sum(v * (1.0 - ratio - np.log1p(mean / theta))))
        score += float(np.sum(of_value * (digamma(values + theta) - digamma(theta))))
        slope = float(np.sum(v * (2.0 - ratio) / total)) - float(v.sum()) / theta
        slope -= float(np.sum(of_value * (polygamma(1, values + theta) - polygamma(1, theta))))
        step = score / slope
        theta += step
        if not np.isfinite(theta):
            break
        if abs(step) <= SAME_THETA and theta > 0.0:
            return min(max(theta, SMALLEST_THETA), LARGEST_THETA)
    return min(max(start, SMALLEST_THETA), LARGEST_THETA)
