"""Compiled loops over packed calls that relationships are made of.

Codes are PLINK's: 0 two copies of the effect allele, 1 missing, 2 one, 3 none.
"""

import numpy as np

from plait.numerics.compiled import njit
from plait.numerics.lane_kernels import (
    WORDS,
    add,
    add_to,
    both,
    count_bits,
    differing,
    lanes_at,
    zeros_like,
)

_ALTERNATE = np.uint64(0x5555555555555555)
_PAIRS = np.uint64(0x3333333333333333)
_NIBBLES = np.uint64(0x0F0F0F0F0F0F0F0F)
_BYTES = np.uint64(0x0101010101010101)
_ONE = np.uint64(1)
_WORD = 64
_SQUARE = 64
"""Samples whose words stay in the nearest cache together."""
_TOGETHER = 2048
_NARROW = 128
"""Variants, and samples, that are decoded together: they stay in the second cache."""
_ADDED = 32
"""Most terms of a sum in single precision."""


@njit(nogil=True, cache=True, inline="always")
def _set_bits(word):  # type: ignore[no-untyped-def]
    """Count the set bits of a word, in a way that compilers know as one instruction."""
    word = word - ((word >> _ONE) & _ALTERNATE)
    word = (word & _PAIRS) + ((word >> np.uint64(2)) & _PAIRS)
    word = (word + (word >> np.uint64(4))) & _NIBBLES
    return (word * _BYTES) >> np.uint64(56)


@njit(nogil=True, cache=True)
def carriers(packed, used, bits):  # type: ignore[no-untyped-def]
    """Fill ``bits`` (groups of `WORDS` samples, words, 2 `WORDS`): who has one copy, who has two.

    A bit is a variant; missing calls and variants that are not used have none. The words of a group
    lie beside one another, those of "one copy or more" before those of "two".
    """
    n, n_bytes = packed.shape
    single = np.empty(4 * n_bytes, dtype=np.uint64)
    double = np.empty(4 * n_bytes, dtype=np.uint64)
    for word in range(bits.shape[1]):
        single[:] = 0
        double[:] = 0
        for place in range(min(_WORD, n - _WORD * word)):
            j = _WORD * word + place
            if not used[j]:
                continue
            shift = np.uint64(place)
            for i in range(n_bytes):
                value = np.uint64(packed[j, i] ^ 255)
                for part in range(4):
                    low = (value >> np.uint64(2 * part)) & _ONE
                    high = (value >> np.uint64(2 * part + 1)) & _ONE
                    single[4 * i + part] |= low << shift
                    double[4 * i + part] |= (low & high) << shift
        for i in range(4 * n_bytes):
            bits[i // WORDS, word, i % WORDS] = single[i]
            bits[i // WORDS, word, WORDS + i % WORDS] = double[i]


@njit(nogil=True, cache=True)
def add_squared_distances(bits, first, last, begin, end, total):  # type: ignore[no-untyped-def]
    """Add ``sum (g_i - g_k)^2`` of samples i in first:last and k <= i in begin:end to ``total``.

    With x and y the bits in which "one copy or more" and "two copies" differ, it is ``x + y + 2 x
    y`` for every variant, of which ``x + y - 2 x y`` is whether only one of them is set. Samples k
    are the lanes of vectors, two samples i share what is loaded of them; numbers ``first`` and
    ``begin`` are multiples of `WORDS`, and so are the sides of ``total``.
    """
    size, width = bits.shape[1] * 2 * WORDS, total.shape[1]
    flat = bits.reshape(bits.size)
    for left in range(begin // WORDS, (end + WORDS - 1) // WORDS):
        for i in range(max(first, WORDS * left), last, 2):
            ours, theirs = i // WORDS * size + i % WORDS, left * size
            single, twice = zeros_like(flat), zeros_like(flat)
            next_single, next_twice = zeros_like(flat), zeros_like(flat)
            for _ in range(bits.shape[1]):
                one, two = lanes_at(flat, theirs), lanes_at(flat, theirs + WORDS)
                x = differing(one, flat[ours])
                y = differing(two, flat[ours + WORDS])
                single = add(single, count_bits(differing(x, y)))
                twice = add(twice, count_bits(both(x, y)))
                x = differing(one, flat[ours + 1])
                y = differing(two, flat[ours + WORDS + 1])
                next_single = add(next_single, count_bits(differing(x, y)))
                next_twice = add(next_twice, count_bits(both(x, y)))
                ours += 2 * WORDS
                theirs += 2 * WORDS
            twice, next_twice = add(twice, twice), add(next_twice, next_twice)
            place = i * width + WORDS * left
            add_to(total, place, add(single, add(twice, twice)))
            add_to(total, place + width, add(next_single, add(next_twice, next_twice)))


@njit(nogil=True, cache=True)
def missing_lists(packed, used, n_samples):  # type: ignore[no-untyped-def]
    """Return the variants that each sample lacks: where its list starts (N + 1,), and the lists."""
    n, n_bytes = packed.shape
    starts = np.zeros(n_samples + 1, dtype=np.int64)
    words = np.zeros(-(-n_bytes // 8), dtype=np.uint64)
    held = words.view(np.uint8)  # the first byte is the lowest: samples are in the order of bits
    for fill in range(2):
        if fill == 1:
            for i in range(n_samples):
                starts[i + 1] += starts[i]
            members = np.empty(starts[n_samples], dtype=np.int32)
            place = starts.copy()
        for j in range(n):
            if not used[j]:
                continue
            held[:n_bytes] = packed[j]
            for i in range(words.shape[0]):
                flags = words[i] & ~(words[i] >> _ONE) & _ALTERNATE
                while flags != 0:
                    lowest = flags & (~flags + _ONE)
                    flags ^= lowest
                    sample = 32 * i + np.int64(_set_bits(lowest - _ONE)) // 2
                    if sample >= n_samples:
                        break
                    if fill == 0:
                        starts[sample + 1] += 1
                    else:
                        members[place[sample]] = j
                        place[sample] += 1
    return starts, members


@njit(nogil=True, cache=True)
def _of_bytes():  # type: ignore[no-untyped-def]
    """Return for each byte of four calls their copies, and what share of the mean they lack."""
    copies = np.zeros((256, 4), dtype=np.float32)
    multiples = np.ones((256, 4), dtype=np.float32)
    for value in range(256):
        for part in range(4):
            code = (value >> (2 * part)) & 3
            if code == 0:
                copies[value, part] = 2.0
            elif code == 1:
                multiples[value, part] = 0.5
            elif code == 2:
                copies[value, part] = 1.0
    return copies, multiples


@njit(nogil=True, cache=True)
def add_missing(packed, used, means, starts, members, first, last, squares, total):  # type: ignore[no-untyped-def]
    """Add to ``squares`` (N,) and ``total`` (N, N) what samples first:last are to the others.

    With G the copies, 0 where missing (x = 1), m the mean of a variant: ``sum (G_i - m)^2``, and
    ``sum m x_k (G_i - m + m x_i / 2)`` in row k and column i. ``first`` is a multiple of 4.
    """
    n, n_samples = packed.shape[0], starts.shape[0] - 1
    copies, multiples = _of_bytes()
    values = np.zeros((_TOGETHER, _NARROW), dtype=np.float32)
    sums = np.empty(_NARROW, dtype=np.float32)
    own = np.empty(_NARROW)
    for left in range(first, last, _NARROW):
        width = min(_NARROW, last - left)
        place = starts[:n_samples].copy()
        own[:] = 0.0
        for begin in range(0, n, _TOGETHER):
            end = min(begin + _TOGETHER, n)
            for j in range(begin, end):
                if not used[j]:
                    continue
                m, row = np.float32(means[j]), values[j - begin]
                for i in range((width + 3) // 4):
                    value = packed[j, left // 4 + i]
                    for part in range(4):
                        row[4 * i + part] = copies[value, part] - m * multiples[value, part]
                for i in range(_NARROW):
                    own[i] += np.float64(row[i]) * np.float64(row[i])
            for k in range(n_samples):
                here, out = place[k], total[k, left : left + width]
                while here < starts[k + 1] and members[here] < end:
                    sums[:] = 0.0
                    stop = min(here + _ADDED, starts[k + 1])
                    while here < stop and members[here] < end:
                        j = members[here]
                        m, row = np.float32(means[j]), values[j - begin]
                        for i in range(_NARROW):
                            sums[i] += m * row[i]
                        if left <= k < left + width:  # a missing call stands for 0 copies here
                            own[k - left] += 0.75 * means[j] * means[j]
                        here += 1
                    for i in range(width):
                        out[i] += sums[i]
                place[k] = here
        squares[left : left + width] += own[:width]


@njit(nogil=True, cache=True)
def lists_turned(starts, members, count):  # type: ignore[no-untyped-def]
    """Return for each of 0, ..., count - 1 the lists that it is a member of: starts, and lists."""
    turned = np.zeros(count + 1, dtype=np.int64)
    for member in members:
        turned[member + 1] += 1
    for j in range(count):
        turned[j + 1] += turned[j]
    place = turned.copy()
    lists = np.empty(len(members), dtype=np.int32)
    for i in range(len(starts) - 1):
        for member in members[starts[i] : starts[i + 1]]:
            lists[place[member]] = i
            place[member] += 1
    return turned, lists


@njit(nogil=True, cache=True)
def add_jointly_listed(variant_starts, samples, sample_starts, variants, first, last, total):  # type: ignore[no-untyped-def]
    """Add to ``total`` how many variants samples first:last and those before each lack together.

    From lists of the samples that lack a variant, ascending, and of the variants a sample lacks.
    """
    for i in range(first, last):
        row = total[i]
        for place in range(sample_starts[i], sample_starts[i + 1]):
            j = variants[place]
            for k in samples[variant_starts[j] : variant_starts[j + 1]]:
                if k > i:
                    break
                row[k] += 1


@njit(nogil=True, cache=True)
def add_jointly_set(words, first, last, begin, end, total):  # type: ignore[no-untyped-def]
    """Add to ``total`` how many bits of i in first:last and k <= i in begin:end are both set."""
    for top in range(first, last, _SQUARE):
        for left in range(begin, min(end, top + _SQUARE), _SQUARE):
            for i in range(top, min(top + _SQUARE, last)):
                for k in range(left, min(left + _SQUARE, end, i + 1)):
                    both = np.uint64(0)
                    for word in range(words.shape[1]):
                        both += _set_bits(words[i, word] & words[k, word])
                    total[i, k] += np.int64(both)
