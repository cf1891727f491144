"""Order statistics of numbers that come in parts and are never held together."""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

LEADING_BITS = 16


def leading_bits(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the leading 16 bits of numbers that are not negative: they are ordered like them."""
    bits = np.ascontiguousarray(values).view(np.uint64) >> np.uint64(64 - LEADING_BITS)
    return bits.astype(np.int64)


def column_medians(
    parts: Callable[[], Iterable[NDArray[np.float64]]], n_columns: int
) -> NDArray[np.float64]:
    """Return the median of every column of a table that comes in parts, exactly.

    Parameters
    ----------
    parts : callable
        Yields parts (n, n_columns) of the table, the same at each call. Numbers are not negative;
        NaN is left out.
    n_columns : int

    Returns
    -------
    (n_columns,) array
        NaN for a column without numbers.

    Notes
    -----
    Goes twice over the parts: first numbers are counted by their leading 16 bits, then those that
    share them with the median are collected, some percent of all.
    """
    counts = np.zeros((n_columns, 1 << LEADING_BITS), dtype=np.int64)
    for part in parts():
        for k in range(n_columns):
            column = part[:, k]
            counts[k] += np.bincount(
                leading_bits(column[~np.isnan(column)]), minlength=1 << LEADING_BITS
            )
    below = counts.cumsum(axis=1, out=counts)
    totals = below[:, -1]
    ranks = np.stack([(totals - 1) // 2, totals // 2])
    bins = np.array([(below <= rank[:, None]).sum(axis=1) for rank in ranks])
    found: list[list[NDArray[np.float64]]] = [[] for _ in range(n_columns)]
    for part in parts():
        for k in np.flatnonzero(totals).tolist():
            column = part[:, k]
            column = column[~np.isnan(column)]
            place = leading_bits(column)
            found[k].append(column[(place >= bins[0, k]) & (place <= bins[1, k])])
    medians = np.full(n_columns, np.nan)
    for k in np.flatnonzero(totals).tolist():
        near = np.sort(np.concatenate(found[k]))
        first = below[k, bins[0, k] - 1] if bins[0, k] else 0
        medians[k] = near[ranks[:, k] - first].mean()
    return medians
