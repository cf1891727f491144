"""Tails of Student's distribution, in logs and to full precision at any depth."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import InputError


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

    values, freedom = np.broadcast_arrays(np.asarray(t, np.float64), np.asarray(df, np.float64))
    if not (freedom > 0).all():
        raise InputError("degrees of freedom must be positive.")
    out = np.empty(values.size)
    fill_log10_p(values.ravel(), freedom.ravel(), out)
    return out.reshape(values.shape)


def student_log_tail(t: ArrayLike, df: ArrayLike) -> NDArray[np.float64]:
    """Return ``ln P(T > |t|)``; see `log10_p_value`."""
    return math.log(10.0) * log10_p_value(t, df) - math.log(2.0)
