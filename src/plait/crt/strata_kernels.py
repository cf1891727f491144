"""Compiled loops that put cells into strata, and into the order of their strata."""

import numpy as np

from plait.numerics.compiled import njit

_CELLS_NEAR = 1024
"""Cells whose bins stay in a core's first cache while they are searched for."""


@njit(nogil=True, cache=True, forceinline=True)
def fill_edges(ascending, shares, edges):  # type: ignore[no-untyped-def]
    """Write the distinct quantiles of ordered values, in order; return how many there are.

    By linear interpolation from the nearer value, bit for bit as `numpy.quantile` does.
    """
    last = ascending.shape[0] - 1
    for k in range(shares.shape[0]):
        place = shares[k] * last
        below = np.int64(np.floor(place))
        left, right = ascending[below], ascending[min(below + 1, last)]
        share, step = place - below, right - left
        edge = right - step * (1.0 - share) if share >= 0.5 else left + step * share
        # Rounding may have left an edge below the one before it.
        i = k
        while i > 0 and edges[i - 1] > edge:
            edges[i] = edges[i - 1]
            i -= 1
        edges[i] = edge
    n = 1
    for k in range(1, shares.shape[0]):
        if edges[k] != edges[n - 1]:
            edges[n] = edges[k]
            n += 1
    return n


@njit(nogil=True, cache=True, forceinline=True)
def fill_bins(values, inner, bins):  # type: ignore[no-untyped-def]
    """Write how many of the ordered edges are not above each value."""
    bins[:] = 0
    span = inner.shape[0]
    # All values take a step of the search by halves together: no branch depends on a value.
    while span > 0:
        half = (span + 1) >> 1
        for i in range(values.shape[0]):
            bins[i] += half if inner[np.uint64(bins[i] + half - 1)] <= values[i] else 0
        span -= half


@njit(nogil=True, cache=True)
def fill_strata(  # type: ignore[no-untyped-def]
    probabilities, ascending, shares, batch, burden, n_burden_bins, least, stratum, sizes
):
    """Write each cell's stratum and the strata's sizes; return the strata and bins there are.

    A stratum is a batch, a bin of the propensity and one of the burden, numbered in this order;
    those of fewer than ``least`` cells are one, the last. ``ascending`` are the propensities in
    order and ``shares`` the edges of their bins, none for a single one. ``batch`` and ``burden``
    are numbers of batches and bins, empty where cells are not stratified by them.
    """
    n_cells = probabilities.shape[0]
    edges = np.empty(shares.shape[0])
    n_edges = fill_edges(ascending, shares, edges) if n_cells > 0 and shares.shape[0] > 0 else 0
    n_bins = max(n_edges - 1, 1)
    inner = edges[1:n_bins]
    n_batches = 1
    for i in range(batch.shape[0]):
        n_batches = max(n_batches, batch[i] + 1)
    numbers = np.zeros(n_batches * n_bins * n_burden_bins, dtype=np.int64)
    for begin in range(0, n_cells, _CELLS_NEAR):
        cells = slice(begin, min(begin + _CELLS_NEAR, n_cells))
        fill_bins(probabilities[cells], inner, stratum[cells])
    for i in range(n_cells):
        label = stratum[i] * n_burden_bins
        if burden.shape[0] > 0:
            label += burden[i]
        if batch.shape[0] > 0:
            label += batch[i] * n_bins * n_burden_bins
        stratum[i] = label
        numbers[label] += 1
    # Sizes become numbers.
    n_kept, n_merged = 0, 0
    for label in range(numbers.shape[0]):
        size = numbers[label]
        if size >= least:
            sizes[n_kept] = size
            numbers[label] = n_kept
            n_kept += 1
        else:
            numbers[label] = -1
            n_merged += size
    for i in range(n_cells):
        number = numbers[stratum[i]]
        stratum[i] = number if number >= 0 else n_kept
    if n_merged > 0:
        sizes[n_kept] = n_merged
        n_kept += 1
    return n_kept, n_bins


@njit(nogil=True, cache=True)
def fill_members(stratum, starts, members):  # type: ignore[no-untyped-def]
    """Write the cells in the order of their strata, and where each of these begins.

    Stratum h has ``members[starts[h]:starts[h + 1]]``, ascending. Returns whether all numbers of
    strata are those of one.
    """
    n_strata = starts.shape[0] - 1
    starts[:] = 0
    for i in range(stratum.shape[0]):
        if not 0 <= stratum[i] < n_strata:
            return False
        starts[stratum[i] + 1] += 1
    places = np.zeros(n_strata, dtype=np.int64)
    for h in range(n_strata):
        places[h] = starts[h]
        starts[h + 1] += starts[h]
    for i in range(stratum.shape[0]):
        members[places[stratum[i]]] = i
        places[stratum[i]] += 1
    return True
