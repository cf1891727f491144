"""Compiled loops over lists of treated cells."""

import numpy as np

from plait.numerics.compiled import njit

_CHUNK = 512
"""Cells that are added up before their sum is: one running sum over a million cells loses five
digits."""


@njit(nogil=True, cache=True)
def add_treated(values, starts, cells, sums):  # type: ignore[no-untyped-def]
    """Add the rows of ``values`` (N, W) of the cells of each list to its row of ``sums``.

    List j is ``cells[starts[j] : starts[j + 1]]``.
    """
    near = np.empty(values.shape[1])
    for j in range(sums.shape[0]):
        for begin in range(starts[j], starts[j + 1], _CHUNK):
            near[:] = 0.0
            for place in range(begin, min(begin + _CHUNK, starts[j + 1])):
                row = values[cells[place]]
                for k in range(near.shape[0]):
                    near[k] += row[k]
            for k in range(near.shape[0]):
                sums[j, k] += near[k]


@njit(nogil=True, cache=True)
def unite(starts, rows, columns, ends, last_set, united, found):  # type: ignore[no-untyped-def]
    """Write the rows that are stored in any column of each set, ascending, each once.

    Column c has ``rows[starts[c] : starts[c + 1]]`` and set s the columns up to ``ends[s]`` from
    where the one before ends; it gets ``united[found[s] : found[s + 1]]``. ``last_set`` (N,) is -1.
    """
    n, first = 0, 0
    found[0] = 0
    for s in range(ends.shape[0]):
        ascending = True
        for i in range(first, ends[s]):
            for place in range(starts[columns[i]], starts[columns[i] + 1]):
                row = rows[place]
                if last_set[row] == s:
                    continue
                last_set[row] = s
                ascending &= n == found[s] or united[n - 1] < row
                united[n] = row
                n += 1
        if not ascending:
            united[found[s] : n].sort()
        first, found[s + 1] = ends[s], n
