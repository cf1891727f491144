"""Search for the highest value of a function between bounds: Brent's method, value by value.

Whoever has the function gives the values that are asked for, so that functions in Python and
compiled ones are searched alike.
"""

import math

import numpy as np

from plait.numerics.compiled import njit

SEARCH = 11
"""Numbers of a search, by their places."""
BEST = 0
"""Where the highest value was, of those given."""
_SECOND, _THIRD = 1, 2
_VALUES = 3
"""From here on, the values at the three highest places."""
_LOW, _HIGH = 6, 7
"""The maximum is between these."""
_STEP, _STEP_BEFORE, _ASKED = 8, 9, 10
_GOLDEN = 0.5 * (3.0 - math.sqrt(5.0))
_ROUNDING = math.sqrt(np.finfo(np.float64).eps)
"""How well a maximum is known from values of a function, relative to its place."""


@njit(nogil=True, cache=True)
def first_place(search, low, guess, high):  # type: ignore[no-untyped-def]
    """Begin a search between bounds; return where the first value is asked for."""
    search[:] = 0.0
    search[BEST] = np.nan
    search[_LOW], search[_HIGH] = low, high
    search[_ASKED] = guess if low < guess < high else low + _GOLDEN * (high - low)
    return search[_ASKED]


@njit(nogil=True, cache=True)
def next_place(search, value, tolerance):  # type: ignore[no-untyped-def]
    """Take the value that was asked for; return where the next one is, or NaN at the end.

    By parabolas through the three highest values, and golden sections where those do not help
    (Brent 1973, Algorithms for Minimization without Derivatives, chapter 5).
    """
    _keep(search, value)
    low, high, x = search[_LOW], search[_HIGH], search[BEST]
    middle, near = 0.5 * (low + high), _ROUNDING * abs(search[BEST]) + tolerance / 3.0
    if abs(x - middle) <= 2.0 * near - 0.5 * (high - low):
        return np.nan
    p, q, before = 0.0, 0.0, search[_STEP_BEFORE]
    if abs(before) > near:
        second, third = x - search[_SECOND], x - search[_THIRD]
        r = second * (search[_VALUES + 2] - search[_VALUES])
        q = third * (search[_VALUES + 1] - search[_VALUES])
        p, q = third * q - second * r, 2.0 * (q - r)
        if q > 0.0:
            p = -p
        q = abs(q)
        search[_STEP_BEFORE] = search[_STEP]
    if abs(p) < abs(0.5 * q * before) and q * (low - x) < p < q * (high - x):
        step = p / q
        if x + step - low < 2.0 * near or high - x - step < 2.0 * near:
            step = math.copysign(near, middle - x)
    else:
        search[_STEP_BEFORE] = (high if x < middle else low) - x
        step = _GOLDEN * search[_STEP_BEFORE]
    search[_STEP] = step
    search[_ASKED] = x + (step if abs(step) >= near else math.copysign(near, step))
    return search[_ASKED]


@njit(nogil=True, cache=True)
def _keep(search, value):  # type: ignore[no-untyped-def]
    """Sort a value in, and draw the bounds nearer."""
    place, best = search[_ASKED], search[BEST]
    if np.isnan(best):
        search[:_VALUES] = place
        search[_VALUES : 2 * _VALUES] = value
        return
    if value >= search[_VALUES]:
        search[_HIGH if place < best else _LOW] = best
        rank = 0
    else:
        search[_LOW if place < best else _HIGH] = place
        second, third = search[_SECOND], search[_THIRD]
        if value >= search[_VALUES + 1] or second == best:
            rank = 1
        elif value >= search[_VALUES + 2] or third in (best, second):
            rank = 2
        else:
            return
    for k in range(2, rank, -1):
        search[k], search[_VALUES + k] = search[k - 1], search[_VALUES + k - 1]
    search[rank], search[_VALUES + rank] = place, value
