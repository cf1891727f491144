"""Compiled ranks; see `plait.crt.ranks`."""

import math

from plait.numerics.compiled import njit

AVERAGE, MIN, MAX, DENSE, ORDINAL = range(5)


@njit(nogil=True, cache=True)
def fill_ranks(values, order, method, ranks):  # type: ignore[no-untyped-def]
    """Fill ``ranks`` of values, which ``order`` puts in ascending order.

    Return whether the first and the last are finite: then all are.
    """
    n, groups, start = values.shape[0], 0, 0
    while start < n:
        value, stop = values[order[start]], start + 1
        while method != ORDINAL and stop < n and values[order[stop]] == value:
            stop += 1
        groups += 1
        if method == AVERAGE:
            rank = 0.5 * (start + 1.0 + stop)
        elif method == MAX:
            rank = float(stop)
        elif method == DENSE:
            rank = float(groups)
        else:  # of ordinal ranks a group has one member
            rank = start + 1.0
        for i in range(start, stop):
            ranks[order[i]] = rank
        start = stop
    return n == 0 or (math.isfinite(values[order[0]]) and math.isfinite(values[order[n - 1]]))
