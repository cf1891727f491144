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

    Notes
    -----
    A skewness beyond +-0.995, which no skew-normal has, is taken as +-0.8955: on both sides, so
    that left-skewed values are fitted too.
    """
    y = np.asarray(values, dtype=np.float64)
    if y.ndim != 1 or y.size == 0:
        raise InputError(f"values have shape {y.shape}; a one-dimensional sample is needed.")
    mean = float(y.mean())
    deviation = math.sqrt(max(float(np.mean(y * y)) - mean * mean, 0.0))
    if not (math.isfinite(deviation) and deviation > 0.0):
        return math.nan, math.nan, math.nan, mean, deviation
    skewness = float(np.mean((y - mean) ** 3)) / deviation**3
    if abs(skewness) > _LARGEST_SKEWNESS:
        skewness = math.copysign(_SHRINK * _LARGEST_SKEWNESS, skewness)
    c = math.sqrt(2.0 / math.pi)
    r = math.copysign((2.0 * abs(skewness) / (4.0 - math.pi)) ** (1.0 / 3.0), skewness)
    delta = r / (c * math.sqrt(1.0 + r * r))
    shape = delta / math.sqrt(1.0 - delta * delta)
    scale = deviation / math.sqrt(1.0 - (c * delta) ** 2)
    return mean - scale * c * delta, scale, shape, mean, deviation


def log_upper_tail(
    values: ArrayLike, location: float, scale: float, shape: float
) -> NDArray[np.float64]:
    """Return ``ln P(X >= value)`` of a skew-normal X.

    Parameters
    ----------
    values : array of any shape
    location, scale, shape : float
        ``scale`` is positive; ``shape`` is alpha of the density
        ``2 / scale phi(t) Phi(alpha t)`` with ``t = (x - location) / scale``.

    Notes
    -----
    ``Phi(-t) + 2 T(t, alpha)`` with Owen's T, but the two terms cancel where alpha is negative:
    where ``alpha t < -4`` or ``t > 6`` the density is integrated from t on by Gauss and Laguerre's
    rule on the scale of its own decline, in logarithms (relative error of the tail below 1e-8).
    The lower tail is the upper one of ``(-x, -location, scale, -shape)``.
    """
    from scipy.special import log_ndtr, ndtr, owens_t

    if not scale > 0:
        raise InputError(f"scale is {scale}; it must be positive.")
    x = np.asarray(values, dtype=np.float64)
    t = (np.atleast_1d(x) - location) / scale
    deep = (t > 6.0) | ((t > 0.0) & (shape * t < -4.0))
    near = np.where(deep, 0.0, t)
    log_tail = np.log(np.minimum(ndtr(-near) + 2.0 * owens_t(near, shape), 1.0))
    if deep.any():
        start = t[deep]
        log_cdf = log_ndtr(shape * start)
        log_density = -0.5 * start**2 - 0.5 * math.log(2.0 * math.pi)
        # The slope of ln phi(u) Phi(alpha u) at t: the density declines at least so fast beyond.
        mills = np.exp(-0.5 * (shape * start) ** 2 - 0.5 * math.log(2.0 * math.pi) - log_cdf)
        rate = start - shape * mills
        step = _NODES / rate[:, None]
        change = -step * (start[:, None] + 0.5 * step)
        change += log_ndtr(shape * (start[:, None] + step)) - log_cdf[:, None]
        integral = np.exp(change + _NODES) @ _NODE_WEIGHTS
        log_tail[deep] = math.log(2.0) + log_density + log_cdf + np.log(integral / rate)
    return np.asarray(log_tail, dtype=np.float64).reshape(x.shape)
