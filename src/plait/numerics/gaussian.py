"""Normal tails, in logs where they underflow."""

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
