"""Normal and Student tails in logs."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]


def z_from_two_sided_p(p: ArrayLike) -> Array:
    """Return ``|z|`` of two-sided normal p-values in (0, 1]."""
    result: Array = np.abs(special.ndtri(np.asarray(p, dtype=np.float64) / 2))
    return result


def z_from_log_tail(log_tail: ArrayLike) -> Array:
    """Return the ``z >= 0`` whose upper normal tail has the given natural logarithm."""
    result: Array = -special.ndtri_exp(np.asarray(log_tail, dtype=np.float64))
    return result


def student_log_tail(t: ArrayLike, df: ArrayLike) -> Array:
    """Return ``log P(T > |t|)`` for Student's t, accurate where the probability underflows.

    The tail is ``I_x(df/2, 1/2) / 2`` with ``x = df/(df + t^2)``. Where the incomplete beta
    function underflows, the first terms of its series at small ``x`` are used, in logs:
    ``x^a (1-x)^b / (a B(a, b)) * (1 + (a+b) x/(a+1) + ...)`` (DLMF 8.17.22).
    """
    size = np.abs(np.asarray(t, dtype=np.float64))
    degrees = np.broadcast_to(np.asarray(df, dtype=np.float64), size.shape)
    a, b = degrees / 2, 0.5
    log_ratio = 2 * (np.log(np.maximum(size, 1e-300)) - 0.5 * np.log(degrees))
    log_x = -np.logaddexp(0.0, log_ratio)
    x = np.exp(log_x)
    with np.errstate(divide="ignore", under="ignore"):
        direct = np.log(0.5 * special.betainc(a, b, x))
    series = np.ones_like(x)
    term = np.ones_like(x)
    for n in range(1, 200):
        term = term * x * (a + b + n - 1) / (a + n)
        series += term
        if np.all(term <= 1e-17 * series):
            break
    log_series = (
        a * log_x + b * np.log1p(-np.minimum(x, 0.5)) - np.log(a) - special.betaln(a, b)
    ) + np.log(series)
    result: Array = np.where(direct > -650, direct, log_series - np.log(2))
    return result
