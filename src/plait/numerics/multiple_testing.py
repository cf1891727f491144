"""False discovery rates of many tests."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import InputError, OptionError

METHODS = ("BH", "BY", "storey")
_STOREY_THRESHOLD = 0.5


def false_discovery_rates(p_values: ArrayLike, method: str = "BH") -> NDArray[np.float64]:
    """Return the smallest false discovery rate at which each test is significant.

    Parameters
    ----------
    p_values : array of any shape
        In [0, 1]; one family of tests. NaN is not tested and stays NaN.
    method : {"BH", "BY", "storey"}
        Benjamini and Hochberg (1995), for independent or positively dependent tests; Benjamini and
        Yekutieli (2001), for any dependence; Storey (2002), which estimates the share of true
        nulls from the p-values above 0.5.

    Returns
    -------
    array of the same shape

    Raises
    ------
    OptionError
        The method is unknown.
    InputError
        A p-value is outside [0, 1].
    """
    if method not in METHODS:
        raise OptionError(f"fdr is {method!r}; give one of {', '.join(METHODS)}.")
    values = np.asarray(p_values, dtype=np.float64)
    is_tested = ~np.isnan(values)
    p = values[is_tested]
    if ((p < 0.0) | (p > 1.0)).any():
        raise InputError(f"p-values range from {p.min():.3g} to {p.max():.3g}; expected 0 to 1.")
    rates = np.full(values.shape, np.nan)
    if not p.size:
        return rates
    count = p.size
    factor = 1.0
    if method == "BY":
        factor = float((1.0 / np.arange(1, count + 1)).sum())
    elif method == "storey":
        above = 1.0 + np.count_nonzero(p > _STOREY_THRESHOLD)
        factor = min(1.0, above / (count * (1.0 - _STOREY_THRESHOLD)))
    order = np.argsort(p, kind="stable")
    scaled = factor * count * p[order] / np.arange(1, count + 1)
    adjusted = np.empty(count)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    rates[is_tested] = adjusted
    return rates
