"""Tails of Fisher's F distribution, in logs and to full precision at any depth."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import InputError


def log10_f_p_value(ratio: ArrayLike, q: int, df: ArrayLike) -> NDArray[np.float64]:
    """Return log10 of the p-value of an F test.

    Parameters
    ----------
    ratio : array
        ``q F / df``: the sum of squares that is tested over that of the residuals. NaN gives NaN.
    q : int
        Numerator degrees of freedom, positive.
    df : array
        Denominator degrees of freedom, positive, of a shape that broadcasts with ``ratio``; they
        need not be whole.

    Returns
    -------
    array
        At most 0; relative error of ln p below 1e-12, however small p is.

    Notes
    -----
    ``p = I_x(a, b)`` with ``x = 1 / (1 + ratio)``, ``a = df / 2`` and ``b = q / 2``. From b to
    b + 1 it grows by ``x^a (1 - x)^b / (b B(a, b))`` (DLMF 8.17.20), so that it is Student's tail
    (odd q) or ``x^a`` (even q) and q / 2 positive terms; near 1 it is 1 less those left out.
    """
    from plait.numerics.fisher_kernels import fill_log10_f

    if q < 1:
        raise InputError("numerator degrees of freedom must be positive.")
    values, freedom = np.broadcast_arrays(np.asarray(ratio, np.float64), np.asarray(df, np.float64))
    if not (freedom > 0).all():
        raise InputError("denominator degrees of freedom must be positive.")
    if (values < 0).any():
        raise InputError("sums of squares must not be negative.")
    out = np.empty(values.size)
    fill_log10_f(values.ravel(), int(q), freedom.ravel(), out)
    return out.reshape(values.shape)
