"""The share of p-values below a level, and how well it is known where tests depend on another."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import OptionError, ShapeError
from plait.numerics.bivariate_normal import bivariate_normal_cdf

Array = NDArray[np.float64]


def rejection_correlation(correlation: ArrayLike, level: float, sides: int = 2) -> Array:
    """Return how rejections go together of tests whose normal scores correlate.

    Parameters
    ----------
    correlation : array
        Of the scores, in [-1, 1]; any shape.
    level : float
        A test rejects where its p-value is below this, in (0, 1).
    sides : {1, 2}
        Tails that a test looks at.

    Returns
    -------
    array
        Correlation of the two events, without any effect; of the same shape.

    Raises
    ------
    OptionError
        ``level`` or ``sides`` is out of range.
    """
    from scipy.special import ndtri

    if not 0.0 < level < 1.0 or sides not in (1, 2):
        raise OptionError(f"level is {level} (between 0 and 1) and sides {sides} (1 or 2).")
    rho = np.clip(np.asarray(correlation, dtype=np.float64), -1.0, 1.0)
    threshold = float(ndtri(level / sides))
    together = bivariate_normal_cdf(threshold, threshold, rho)
    if sides == 2:
        together = 2.0 * (together + bivariate_normal_cdf(threshold, threshold, -rho))
    return np.asarray((together - level**2) / (level * (1.0 - level)))


def effective_tests(correlation: ArrayLike, level: float, sides: int = 2) -> float:
    """Return how many independent tests tell as much of the share of rejections.

    Parameters
    ----------
    correlation : (K, K) array
        Of the scores of K tests without effects.
    level, sides
        As in `rejection_correlation`.

    Returns
    -------
    float
        K^2 over the sum of the correlations of rejections, from 1 to K.

    Raises
    ------
    ShapeError
        The correlation is no square matrix.
    """
    rho = np.asarray(correlation, dtype=np.float64)
    if rho.ndim != 2 or rho.shape[0] != rho.shape[1] or not len(rho):
        raise ShapeError(f"the correlation has shape {rho.shape}; give a square matrix.")
    together = rejection_correlation(np.nan_to_num(rho), level, sides)
    np.fill_diagonal(together, 1.0)
    return float(np.clip(len(rho) ** 2 / together.sum(), 1.0, len(rho)))


def clustered_effective(values: ArrayLike, level: float, *clusters: NDArray[Any]) -> float:
    """Return how many independent tests tell as much of the share, from how tests cluster.

    Parameters
    ----------
    values : (n,) array
        P-values, or their logarithms.
    level : float
        On the same scale; the share is that of values below it.
    *clusters : (n,) arrays
        Labels, one array for each of one or two ways in which tests hang together.

    Returns
    -------
    float
        At least 1 and at most n.

    Notes
    -----
    The variance of a share under clusters of one or two ways (Cameron, Gelbach and Miller 2011,
    equation 2.11: that of the one way plus that of the other less that of their cells). No value
    below the level, or all of them, say nothing of how tests cluster: the share below the median
    says it then, and where all values are equal, too, a cluster counts as one test. How tests
    cluster is itself known from the clusters only: with few of them (C, of the way that has the
    fewest) the number is multiplied by the squared ratio of the 97.5 % points of Student's
    distributions of n - 1 and C - 1 degrees of freedom (Korn and Graubard 1998).
    """
    from scipy.special import stdtrit

    numbers = np.asarray(values, dtype=np.float64)
    count = len(numbers)
    codes = [np.unique(labels, return_inverse=True)[1] for labels in clusters]
    fewest = min(int(code.max()) + 1 for code in codes)
    if fewest == 1:
        return 1.0
    for bound in (level, float(np.median(numbers))):
        is_below = numbers < bound
        if is_below.any() and not is_below.all():
            break
    else:
        return float(fewest)
    share = float(is_below.mean())
    independent = share * (1.0 - share) / count
    off: Array = is_below.astype(np.float64) - share
    variance = float(sum([_clustered_variance(off, code) for code in codes]))
    if len(codes) == 2:
        both = codes[0] * (int(codes[1].max()) + 1) + codes[1]
        variance -= _clustered_variance(off, np.unique(both, return_inverse=True)[1])
    known = float(stdtrit(count - 1, 0.975) / stdtrit(fewest - 1, 0.975)) ** 2
    return float(np.clip(known * count * independent / max(variance, independent), 1.0, count))


def share_interval(share: float, tests: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval of Clopper and Pearson around a share of so many independent tests.

    Parameters
    ----------
    share : float
        In [0, 1].
    tests : float
        Need not be whole (Korn and Graubard 1998).
    confidence : float
        In (0, 1).

    Returns
    -------
    low, high : float
    """
    from scipy.special import betaincinv

    below, above, tail = share * tests, (1.0 - share) * tests, (1.0 - confidence) / 2.0
    low = float(betaincinv(below, above + 1.0, tail)) if below > 0 else 0.0
    high = float(betaincinv(below + 1.0, above, 1.0 - tail)) if above > 0 else 1.0
    return low, high


def _clustered_variance(off: Array, code: NDArray[np.intp]) -> float:
    sums = np.bincount(code, off)
    few = len(sums) / max(len(sums) - 1, 1)
    return few * float((sums**2).sum()) / len(off) ** 2
