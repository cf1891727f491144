"""Ranks of outcomes for the U statistic."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from plait.crt.composition import floor_usage
from plait.data.words import counted
from plait.errors import InputError, OptionError, ShapeError
from plait.execution.threads import resolve_threads

RankMethod = Literal["average", "min", "max", "dense", "ordinal"]

_METHODS = ("average", "min", "max", "dense", "ordinal")
_LARGEST_SINGLE = 2**24
"""float32 holds all whole numbers up to this one."""


def rank_columns(
    outcome: NDArray[np.floating],
    method: RankMethod = "average",
    dtype: DTypeLike = np.float64,
    threads: int | None = None,
) -> NDArray[np.floating]:
    """Rank the cells in every column, from 1.

    Parameters
    ----------
    outcome : (cells, outcomes) array
        Finite numbers; compared as they are, so float32 values may tie where float64 ones do not.
    method : str
        What ties get: their "average" (default), "min" or "max" rank, "dense" ranks without gaps,
        or "ordinal" ranks in order of the cells. Only with "average" is the statistic a true U.
    dtype : dtype
        float64 (default), or float32 for at most 16 777 216 cells (half as many for average
        ranks, which may end in .5): it holds their ranks exactly.
    threads : int, optional
        Default all cores; never changes the numbers.

    Returns
    -------
    (cells, outcomes) array

    Raises
    ------
    OptionError
        The method is unknown, or there are too many cells for float32.
    InputError, ShapeError
        The outcome is not a matrix of finite numbers.

    Notes
    -----
    Time O(cells log cells) for each outcome.
    """
    dtype = check_rank_options(method, dtype)
    outcome = np.asarray(outcome)
    if outcome.ndim != 2:
        raise ShapeError(
            f"the outcome to rank has {counted(outcome.ndim, 'dimension')}; cells x outcomes are "
            "expected."
        )
    # An average rank of two neighbours has a half, one more bit.
    largest = _LARGEST_SINGLE // 2 if method == "average" else _LARGEST_SINGLE
    if dtype == np.float32 and len(outcome) > largest:
        raise OptionError(
            f"float32 cannot hold the ranks of {counted(len(outcome), 'cell')}, only of up to "
            f"{largest}; take rank_dtype='float64'."
        )
    ranks = np.empty(outcome.shape, dtype=dtype)
    is_finite = np.empty(outcome.shape[1], dtype=bool)

    def rank(columns: NDArray[np.int64]) -> None:
        held = np.empty(len(outcome))
        for column in columns.tolist():
            is_finite[column] = _fill(np.ascontiguousarray(outcome[:, column]), method, held)
            ranks[:, column] = held

    workers = max(1, min(resolve_threads(threads), outcome.shape[1]))
    with ThreadPoolExecutor(workers) as pool:
        # Neighbours go to one thread, which writes to other lines of the cache than the next.
        list(pool.map(rank, np.array_split(np.arange(outcome.shape[1]), workers)))
    if not is_finite.all():
        columns = np.flatnonzero(~is_finite)
        raise InputError(
            f"the outcome to rank is not finite in {counted(len(columns), 'column')} (first: "
            f"column {columns[0]})."
        )
    return ranks


def check_rank_options(method: str, dtype: DTypeLike) -> np.dtype[Any]:
    """Return the type of ranks, or refuse a method or type that there is not.

    Raises
    ------
    OptionError
        The method is unknown, or the type neither float32 nor float64.
    """
    if method not in _METHODS:
        raise OptionError(f"the rank method is {method!r}; give one of {', '.join(_METHODS)}.")
    for known in (np.dtype(np.float32), np.dtype(np.float64)):
        try:
            if dtype is not None and np.dtype(dtype) == known:
                return known
        except TypeError:
            break
    raise OptionError(f"ranks were asked for as {dtype!r}; give 'float32' or 'float64'.")


def usage_to_rank(usage: NDArray[np.floating], eps_quantile: float = 1e-4) -> NDArray[np.float64]:
    """Return program usage as it is ranked: raised to a floor, rows scaled to sum 1.

    Parameters
    ----------
    usage : (cells, programs) array
        Not negative.
    eps_quantile : float
        The floor is this quantile of all entries (1e-4), and the smallest positive double where
        that is not positive.

    Returns
    -------
    (cells, programs) float64 array
    """
    if not 0 <= eps_quantile <= 1:
        raise OptionError(f"eps_quantile is {eps_quantile}; give a number between 0 and 1.")
    floor = float(np.quantile(usage, eps_quantile))
    if not (np.isfinite(floor) and floor > 0):
        floor = float(np.finfo(np.float64).tiny)
    return floor_usage(usage, floor)


def _fill(values: NDArray[np.floating], method: RankMethod, ranks: NDArray[np.float64]) -> bool:
    """Fill in the ranks of one column, and return whether it is finite."""
    from plait.crt.rank_kernels import fill_ranks

    # Only ordinal ranks depend on the order of ties, and any order is found in a third of the time.
    order = np.argsort(values, kind="stable" if method == "ordinal" else None)
    return bool(fill_ranks(values, order, _METHODS.index(method), ranks))
