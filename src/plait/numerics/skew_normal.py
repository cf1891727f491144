"""The skew-normal distribution: fit by moments and tails accurate at any depth."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import InputError

_LARGEST_SKEWNESS = 0.995
"""Skewness of the skew-normal stays below 0.99527."""
_SHRINK = 0.9
_NODES, _NODE_WEIGHTS = np.polynomial.laguerre.laggauss(64)


def fit_by_moments(values: ArrayLike) -> tuple[float, float, float, float, float]:
    """Fit a skew-normal by mean, population standard deviation and skewness.

    Parameters
    ----------
    values : (n,) array

    Returns
    -------
    location, scale, shape, mean, standard_deviation : float
        Not finite where the values are constant or not finite.

    Raises
    ------
    InputError
        The values are no vector, or there are none.

    Notes
    -----
    A skewness beyond +-0.995, which no skew-normal has, is taken as +-0.8955: on both sides, so
    that left-skewed values are fitted too.
    """
    y = np.asarray(values, dtype=np.float64)
    if y.ndim != 1 or y.size == 0:
        raise InputError(f"values have shape {y.shape}; a one-dimensional sample is needed.")
    fits = fits_of_moments(*moments_of_samples(np.ascontiguousarray(y[None])))
    location, scale, shape, mean, deviation = fits[:, 0].tolist()
    return location, scale, shape, mean, deviation


def moments_of_samples(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return mean, mean square and third central moment (3, k) of each of (k, n) samples."""
    from plait.numerics.skew_normal_kernels import sample_moments

    moments = np.empty((3, len(samples)))
    sample_moments(samples, *moments)
    return moments


def fits_of_moments(
    mean: NDArray[np.float64], mean_square: NDArray[np.float64], third: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Fit a skew-normal to each of some samples; see `fit_by_moments`.

    Parameters
    ----------
    mean, mean_square, third : (k,) arrays
        Of each sample; the last is its third central moment.

    Returns
    -------
    (5, k) array
        Location, scale, shape, mean and standard deviation; the first three are NaN where a
        sample is constant or not finite.
    """
    # Of constant or infinite samples.
    with np.errstate(divide="ignore", invalid="ignore"):
        deviation = np.sqrt(np.maximum(mean_square - mean * mean, 0.0))
        skewness = third / deviation**3
    is_fitted = np.isfinite(deviation) & (deviation > 0.0)
    skewness = np.where(is_fitted, skewness, 0.0)
    shrunk = np.copysign(_SHRINK * _LARGEST_SKEWNESS, skewness)
    skewness = np.where(np.abs(skewness) > _LARGEST_SKEWNESS, shrunk, skewness)
    c = math.sqrt(2.0 / math.pi)
    r = np.copysign(np.cbrt(2.0 * np.abs(skewness) / (4.0 - math.pi)), skewness)
    delta = r / (c * np.sqrt(1.0 + r * r))
    shape = delta / np.sqrt(1.0 - delta * delta)
    scale = deviation / np.sqrt(1.0 - (c * delta) ** 2)
    fits = np.stack([mean - scale * c * delta, scale, shape, mean, deviation])
    fits[:3, ~is_fitted] = np.nan
    return fits


def log_upper_tail(
    values: ArrayLike, location: ArrayLike, scale: ArrayLike, shape: ArrayLike
) -> NDArray[np.float64]:
    """Return ``ln P(X >= value)`` of a skew-normal X.

    Parameters
    ----------
    values : array of any shape
    location, scale, shape : float, or arrays that broadcast with the values
        ``scale`` is positive; ``shape`` is alpha of the density
        ``2 / scale phi(t) Phi(alpha t)`` with ``t = (x - location) / scale``.

    Raises
    ------
    InputError
        A scale is not positive.

    Notes
    -----
    ``Phi(-t) + 2 T(t, alpha)`` with Owen's T, but the two terms cancel where alpha is negative:
    where ``alpha t < -4`` or ``t > 6`` the density is integrated from t on by Gauss and Laguerre's
    rule on the scale of its own decline, in logarithms (relative error of the tail below 1e-8).
    The lower tail is the upper one of ``(-x, -location, scale, -shape)``.
    """
    from scipy.special import log_ndtr, ndtr, owens_t

    given = [np.asarray(part, dtype=np.float64) for part in (values, location, scale, shape)]
    x, centre, width, alpha = np.broadcast_arrays(*given)
    if not (width > 0.0).all():
        raise InputError(f"scale is {scale!r}; it must be positive.")
    t, alpha = np.atleast_1d((x - centre) / width), np.atleast_1d(alpha)
    deep = (t > 6.0) | ((t > 0.0) & (alpha * t < -4.0))
    near = np.where(deep, 0.0, t)
    log_tail = np.log(np.minimum(ndtr(-near) + 2.0 * owens_t(near, alpha), 1.0))
    if deep.any():
        start, slope = t[deep], alpha[deep]
        log_cdf = log_ndtr(slope * start)
        log_density = -0.5 * start**2 - 0.5 * math.log(2.0 * math.pi)
        # The slope of ln phi(u) Phi(alpha u) at t: the density declines at least so fast beyond.
        mills = np.exp(-0.5 * (slope * start) ** 2 - 0.5 * math.log(2.0 * math.pi) - log_cdf)
        rate = start - slope * mills
        step = _NODES / rate[:, None]
        change = -step * (start[:, None] + 0.5 * step)
        change += log_ndtr(slope[:, None] * (start[:, None] + step)) - log_cdf[:, None]
        # A product of matrix and vector would round a row by its place among the others.
        integral = (np.exp(change + _NODES) * _NODE_WEIGHTS).sum(axis=1)
        log_tail[deep] = math.log(2.0) + log_density + log_cdf + np.log(integral / rate)
    return np.asarray(log_tail, dtype=np.float64).reshape(x.shape)
