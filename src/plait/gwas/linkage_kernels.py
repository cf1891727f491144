"""Compiled loops that thin linked variants.

With x = copies less 1 (-1, 0 or 1) of two variants over the n samples that have both calls, r2 is
``(n sum xy - sum x sum y)^2 / ((n sum xx - (sum x)^2) (n sum yy - (sum y)^2))``, of whole numbers.
"""

import numpy as np

from plait.numerics.compiled import njit
from plait.numerics.lane_kernels import (
    FLOATS,
    WORDS,
    add,
    add_to,
    both,
    count_bits,
    differing,
    lanes_at,
    multiply,
    subtract,
    zeros_like,
)

VARIES, NEGATIVE, CALLED = 0, 1, 2
"""Words of a variant: samples with two copies or none, those of them with none, those called."""
_WORDS = 3
_TIE = 1.0 + 2.0**-44
"""How much commoner an allele is for frequencies to differ, as in PLINK."""


@njit(nogil=True, cache=True)
def prune_windows(  # type: ignore[no-untyped-def]
    starts, ends, numbers, words, sums, values, minor, unchecked, n_samples, alive, limit
):
    """Clear ``alive`` of variants that are linked with a commoner one, window after window.

    Window w holds the variants (K,), whose ``numbers`` ascend, from ``starts[w]`` to before
    ``ends[w]``; neither ever falls. ``words`` (K, 3, W) are hard calls, and ``sums`` (K, 3) what
    each has: samples called, ``sum x`` and ``sum xx``; or ``values`` (K, N) are dosages of mean 0
    and length 1, W being 0. Both are filled up with zeros to whole vectors. ``minor`` (K,) are
    frequencies. The variant of number ``unchecked[k]`` is the next that k is compared with.

    In a window each variant in turn is compared with those after it until one is linked; of the two
    the one with the rarer allele goes, the later one of a tie. That is repeated until none goes.
    """
    flat_words, flat_values = words.reshape(words.size), values.reshape(values.size)
    width, length = words.shape[2], values.shape[1]
    bits, parts = np.empty(WORDS, dtype=np.int32), np.empty(FLOATS)
    inside = np.empty(len(numbers), dtype=np.int64)
    n_inside, entered = 0, 0
    for window in range(len(starts)):
        while entered < len(numbers) and numbers[entered] < ends[window]:
            inside[n_inside] = entered
            n_inside += 1
            entered += 1
        goes_on = True
        while goes_on:
            goes_on = False
            n_inside = _left(inside, n_inside, numbers, alive, starts[window])
            for place in range(n_inside):
                one = inside[place]
                if not alive[one] or unchecked[one] >= ends[window]:
                    continue
                first = _first(inside, n_inside, numbers, unchecked[one])
                unchecked[one] = ends[window]
                for later in range(first, n_inside):
                    other = inside[later]
                    if not alive[other]:
                        continue
                    if width:
                        linked = _calls_linked(
                            flat_words, sums, width, n_samples, one, other, limit, bits
                        )
                    else:
                        linked = _dosages_linked(flat_values, length, one, other, limit, parts)
                    if not linked:
                        continue
                    goes_on = True
                    if 1.0 - minor[one] > (1.0 - minor[other]) * _TIE:
                        alive[one] = False
                    else:
                        alive[other] = False
                        unchecked[one] = numbers[other] + 1
                    break


@njit(nogil=True, cache=True)
def _left(inside, n_inside, numbers, alive, start):  # type: ignore[no-untyped-def]
    """Move up those of the window that are alive and not before its start; return how many."""
    kept = 0
    for place in range(n_inside):
        if alive[inside[place]] and numbers[inside[place]] >= start:
            inside[kept] = inside[place]
            kept += 1
    return kept


@njit(nogil=True, cache=True)
def _first(inside, n_inside, numbers, number):  # type: ignore[no-untyped-def]
    """Return the place of the first of the window whose number is not smaller."""
    low, high = 0, n_inside
    while low < high:
        middle = (low + high) // 2
        if numbers[inside[middle]] < number:
            low = middle + 1
        else:
            high = middle
    return low


@njit(nogil=True, cache=True)
def _calls_linked(words, sums, width, n_samples, one, other, limit, bits):  # type: ignore[no-untyped-def]
    """Tell whether r2 of hard calls is above a limit, on the samples that have both."""
    ours, theirs = one * _WORDS * width, other * _WORDS * width
    n, x, xx = sums[one, 0], sums[one, 1], sums[one, 2]
    y, yy = sums[other, 1], sums[other, 2]
    total = zeros_like(words)
    if n == n_samples and sums[other, 0] == n_samples:
        for place in range(0, width, WORDS):
            total = add(total, _products(words, ours + place, theirs + place, width))
    else:
        called, of_x, of_xx, of_y, of_yy = total, total, total, total, total
        for place in range(0, width, WORDS):
            total = add(total, _products(words, ours + place, theirs + place, width))
            mine = lanes_at(words, ours + CALLED * width + place)
            his = lanes_at(words, theirs + CALLED * width + place)
            called = add(called, count_bits(both(mine, his)))
            of_xx = add(of_xx, count_bits(both(his, lanes_at(words, ours + place))))
            of_yy = add(of_yy, count_bits(both(mine, lanes_at(words, theirs + place))))
            negative = lanes_at(words, ours + NEGATIVE * width + place)
            of_x = add(of_x, count_bits(both(his, negative)))
            negative = lanes_at(words, theirs + NEGATIVE * width + place)
            of_y = add(of_y, count_bits(both(mine, negative)))
        n, xx, yy = _sum_of(called, bits), _sum_of(of_xx, bits), _sum_of(of_yy, bits)
        x, y = xx - 2 * _sum_of(of_x, bits), yy - 2 * _sum_of(of_y, bits)
    covariance = np.float64(n * _sum_of(total, bits) - x * y)
    return covariance * covariance > limit * np.float64(n * xx - x * x) * np.float64(n * yy - y * y)


@njit(nogil=True, cache=True, inline="always")
def _products(words, ours, theirs, width):  # type: ignore[no-untyped-def]
    """Return ``sum x y`` of the samples of each word."""
    vary = both(lanes_at(words, ours), lanes_at(words, theirs))
    negative = lanes_at(words, ours + NEGATIVE * width)
    unlike = differing(negative, lanes_at(words, theirs + NEGATIVE * width))
    unlike = count_bits(both(vary, unlike))
    return subtract(count_bits(vary), add(unlike, unlike))


@njit(nogil=True, cache=True, inline="always")
def _sum_of(lanes, bits):  # type: ignore[no-untyped-def]
    """Add the whole numbers of a vector."""
    for lane in range(WORDS):
        bits[lane] = 0
    add_to(bits, 0, lanes)
    total = np.int32(0)
    for lane in range(WORDS):
        total += bits[lane]
    return np.int64(total)


@njit(nogil=True, cache=True)
def _dosages_linked(values, length, one, other, limit, parts):  # type: ignore[no-untyped-def]
    """Tell whether r2 of rows of mean 0 and length 1 is above a limit."""
    total = zeros_like(values)
    for place in range(0, length, FLOATS):
        ours, theirs = (
            lanes_at(values, one * length + place),
            lanes_at(values, other * length + place),
        )
        total = add(total, multiply(ours, theirs))
    parts[:] = 0.0
    add_to(parts, 0, total)
    r = parts.sum()
    return r * r > limit
