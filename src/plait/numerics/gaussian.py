"""Normal tails, in logs where they underflow."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def z_from_two_sided_p(p: ArrayLike) -> Array:
    """Return ``|z|`` of two-sided normal p-values in (0, 1]."""
    from scipy.special import ndtri

    result: Array = np.abs(ndtri(np.asarray(p, dtype=np.float64) / 2))
    return result


def z_from_log_tail(log_tail: ArrayLike) -> Array:
    """Return the z whose upper normal tail has the given natural logarithm, to the last digits."""
    from plait.numerics.gaussian_kernels import fill_z

    logs = np.asarray(log_tail, dtype=np.float64)
    z = np.empty(logs.size)
    fill_z(logs.ravel(), z)
    return z.reshape(logs.shape)
