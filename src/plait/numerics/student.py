"""Tails of Student's distribution, in logs and to full precision at any depth."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import InputError

_HELD = -290.0
"""log10 of p-values that a double holds with every digit."""
_LARGEST_LOG = 700.0
_MOST_STEPS = 100


def log10_p_value(t: ArrayLike, df: ArrayLike) -> NDArray[np.float64]:
    """Return log10 of the two-sided p-value of Student's t.

    Parameters
    ----------
    t : array
        Statistics; NaN gives NaN.
    df : array
        Degrees of freedom, positive, of a shape that broadcasts with ``t``.

    Returns
    -------
    array
        At most 0; relative error of ln p below 1e-12, however small p is.

    Notes
    -----
    ``p = I_x(df/2, 1/2)`` with ``x = df / (df + t^2)``. Far from the centre, or with few degrees of
    freedom, by the continued fraction of the incomplete beta function; near the centre by its
    expansion in incomplete gamma functions, which here are error functions (DiDonato and Morris
    1992, ACM TOMS 18, algorithm 708, BGRAT). About 100 ns a value.
    """
    from plait.numerics.student_kernels import fill_log10_p

    values, freedom = np.asarray(t, np.float64), np.asarray(df, np.float64)
    if not (freedom > 0).all():
        raise InputError("degrees of freedom must be positive.")
    shape = np.broadcast_shapes(values.shape, freedom.shape)
    if values.shape != shape:
        values = np.array(np.broadcast_to(values, shape))
    out = np.empty(values.size)
    fill_log10_p(values.ravel(), np.array(np.broadcast_to(freedom, shape)).ravel(), out)
    return out.reshape(shape)


def student_log_tail(t: ArrayLike, df: ArrayLike) -> NDArray[np.float64]:
    """Return ``ln P(T > |t|)``; see `log10_p_value`."""
    return math.log(10.0) * log10_p_value(t, df) - math.log(2.0)


def normal_errors(effects: ArrayLike, errors: ArrayLike, df: ArrayLike) -> NDArray[np.float64]:
    """Widen the errors of t statistics until a normal law gives the t-test's p-values.

    Parameters
    ----------
    effects, errors : array
        Finite, errors positive.
    df : array
        Degrees of freedom, positive, of a shape that broadcasts with ``effects``.

    Returns
    -------
    array
        Errors as they are where an effect is 0, which says nothing about them (0/0).
    """
    from plait.numerics.gaussian import z_from_log_tail

    bhat, freedom = np.broadcast_arrays(np.asarray(effects, np.float64), np.asarray(df, np.float64))
    widened = np.array(errors, dtype=np.float64)
    told = bhat != 0
    log_tail = student_log_tail(bhat[told] / widened[told], freedom[told])
    widened[told] = np.abs(bhat[told]) / z_from_log_tail(log_tail)
    return widened


def t_from_log10_p(log10_p: ArrayLike, df: float) -> NDArray[np.float64]:
    """Return the ``|t|`` of two-sided p-values given as log10.

    Parameters
    ----------
    log10_p : array
        At most 0, however small; NaN, and what is above 0, gives NaN.
    df : float
        Degrees of freedom, positive.

    Returns
    -------
    array
        Infinite where a double cannot hold t. Relative error below 1e-12 where a double cannot
        hold p, elsewhere that of `scipy.special.stdtrit`.

    Notes
    -----
    Where a double cannot hold p, by Newton's method on ln p as a function of ln t, which falls and
    is concave: steps that start below the root go past it once, and come down to it.
    """
    from scipy.special import gammaln, stdtrit

    if not df > 0:
        raise InputError("degrees of freedom must be positive.")
    logs = np.asarray(log10_p, np.float64)
    with np.errstate(invalid="ignore"):
        t: NDArray[np.float64] = np.abs(stdtrit(df, 10.0 ** np.maximum(logs, _HELD) / 2))
        t = np.where(logs <= 0, t, np.nan)
        deep = logs < _HELD
    if not deep.any():
        return t
    wanted = logs[deep] * math.log(10.0) - math.log(2.0)
    constant = gammaln((df + 1) / 2) - gammaln(df / 2) - 0.5 * math.log(df * math.pi)
    steps = np.log(t[deep])
    for _ in range(_MOST_STEPS):
        at = np.minimum(steps, _LARGEST_LOG)
        tail = student_log_tail(np.exp(at), df)
        log_density = constant - 0.5 * (df + 1) * np.logaddexp(0.0, 2 * at - math.log(df))
        change = (tail - wanted) * np.exp(tail - log_density - at)
        steps += change
        if np.abs(change).max() < 1e-14:
            break
    t[deep] = np.where(steps < _LARGEST_LOG, np.exp(np.minimum(steps, _LARGEST_LOG)), np.inf)
    return t
