"""The share of p-values below a level, and how well it is known where tests depend on another."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import OptionError, ShapeError
from plait.numerics.bivariate_normal import bivariate_normal_cdf

Array = NDArray[np.float64]

_CORRELATIONS = np.linspace(0.0, 1.0, 101)


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


def clustered_effective(
    p: ArrayLike, level: float, *clusters: NDArray[Any], sides: int = 2
) -> float:
    """Return how many independent tests tell as much of the share, from how tests cluster.

    Parameters
    ----------
    p : (n,) array
        P-values.
    level : float
        The share is that of p-values below it, in (0, 1).
    *clusters : (n,) arrays
        Labels, one array for each of one or two ways in which tests hang together.
    sides : {1, 2}
        Tails that a test looks at.

    Returns
    -------
    float
        At least 1 and at most n.

    Raises
    ------
    OptionError
        ``level`` or ``sides`` is out of range.

    Notes
    -----
    The larger of two variances of the share counts. One is that under clusters of one or two ways
    (Cameron, Gelbach and Miller 2011, equation 2.11: that of the one way plus that of the other
    less that of their cells). Of few clusters it is small wherever the share is, so that shares
    that are small by chance would seem well known. The other comes from p-values on either side of
    their median, of which there are many: how these cluster says how the tests' normal scores
    correlate, and these how rejections do (`rejection_correlation`). Where p-values are all equal,
    a cluster counts as one test. How tests cluster is itself known from the clusters only: with few
    of them (C, of the way that has the fewest) the number is multiplied by the squared ratio of the
    97.5 % points of Student's distributions of n - 1 and C - 1 degrees of freedom (Korn and
    Graubard 1998).
    """
    from scipy.special import stdtrit

    numbers = np.asarray(p, dtype=np.float64)
    count = len(numbers)
    codes = [np.unique(labels, return_inverse=True)[1] for labels in clusters]
    fewest = min(int(code.max()) + 1 for code in codes)
    at_level = rejection_correlation(_CORRELATIONS, level, sides)
    if fewest == 1:
        return 1.0
    growths = [
        _growth_of_rejections(numbers < level, codes),
        _growth_by_median(numbers < np.median(numbers), codes, at_level, sides),
    ]
    known = [growth for growth in growths if growth is not None]
    if not known:
        return float(fewest)
    few = float(stdtrit(count - 1, 0.975) / stdtrit(fewest - 1, 0.975)) ** 2
    return float(np.clip(few * count / max(1.0, *known), 1.0, count))


def _growth_of_rejections(
    is_below: NDArray[np.bool_], codes: list[NDArray[np.intp]]
) -> float | None:
    """Return the variance of a share under clusters over that of independent tests, if known."""
    if is_below.all() or not is_below.any():
        return None
    share = float(is_below.mean())
    off: Array = is_below.astype(np.float64) - share
    variance = float(sum([_clustered_variance(off, code) for code in codes]))
    if len(codes) == 2:
        both = codes[0] * (int(codes[1].max()) + 1) + codes[1]
        variance -= _clustered_variance(off, np.unique(both, return_inverse=True)[1])
    return variance / (share * (1.0 - share) / len(off))


def _growth_by_median(
    is_below: NDArray[np.bool_], codes: list[NDArray[np.intp]], at_level: Array, sides: int
) -> float | None:
    """Return the same from how tests that are below the median cluster, if any are.

    ``at_level`` is how rejections correlate where normal scores have `_CORRELATIONS`.
    """
    if not is_below.any():
        return None
    at_median = rejection_correlation(_CORRELATIONS, 0.5, sides)
    off: Array = is_below - is_below.mean()
    count, total, growth = len(off), float(off @ off), 1.0
    for code in codes:
        sizes = np.bincount(code)
        pairs = float((sizes * (sizes - 1.0)).sum())
        if pairs:
            together = count**2 * _clustered_variance(off, code) - total
            correlation = np.interp(together * count / (pairs * total), at_median, _CORRELATIONS)
            growth += pairs / count * float(np.interp(correlation, _CORRELATIONS, at_level))
    return growth


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
