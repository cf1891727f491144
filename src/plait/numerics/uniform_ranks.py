"""Where the smallest, the second smallest, ... of uniform numbers lie."""

import numpy as np
from numpy.typing import NDArray

from plait.numerics.gaussian import z_from_log_tail


def quantiles_of_ranks(ranks: NDArray[np.int64], count: int, level: float) -> NDArray[np.float64]:
    """Return quantiles of the order statistics of uniform numbers.

    Parameters
    ----------
    ranks : (n,) array of int
        From 1, the smallest, to ``count``.
    count : int
        How many uniform numbers there are.
    level : float
        In (0, 1).

    Returns
    -------
    (n,) array
        Quantiles of Beta(rank, count - rank + 1), with a relative error below 1e-10.

    Notes
    -----
    By Halley's method on the incomplete beta function (DLMF 8.17.22), from an approximation by the
    normal quantile (Abramowitz and Stegun 26.5.22).
    """
    from plait.numerics.uniform_rank_kernels import fill_quantiles

    z = float(z_from_log_tail(np.log(level)))
    out = np.empty(len(ranks))
    fill_quantiles(np.asarray(ranks, dtype=np.int64), count, level, z, out)
    return out
