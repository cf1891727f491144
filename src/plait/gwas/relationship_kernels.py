"""Compiled loops over packed calls that relationships are made of.

Codes are PLINK's: 0 two copies of the effect allele, 1 missing, 2 one, 3 none.
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
    number_at,
    of_codes,
    put,
    repeated_at,
    subtract,
    word_at,
    zeros_like,
)

_ALTERNATE = np.uint64(0x5555555555555555)
_PAIRS = np.uint64(0x3333333333333333)
_NIBBLES = np.uint64(0x0F0F0F0F0F0F0F0F)
_BYTES = np.uint64(0x0101010101010101)
_LOWER_HALF = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_ONE = np.uint64(1)
_WORD = 64
_OF_ONE_COPY = 0xAA
"""A byte of four calls of one copy each."""
_SQUARE = 64
"""Samples whose words stay in the nearest cache together."""
_ROWS = 32
"""Samples whose words of two bits stay there."""
STRIP = 32
"""Samples whose calls are decoded together."""
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
def turn_calls(packed, used, planes, missing):  # type: ignore[no-untyped-def]
    """Fill words of 64 variants for each sample: who is homozygous, and who lacks a call.

    ``planes`` (groups of `WORDS` samples, words, 2 `WORDS`): the words of a group lie beside one
    another, those of "two copies or none" before those of "not two, or missing". ``missing`` is
    (N, words). Variants that are not used are one copy of everyone.
    """
    n, n_bytes = packed.shape
    rows = np.empty((_WORD, (n_bytes + 7) // 8), dtype=np.uint64)
    held = rows.view(np.uint8)  # the first byte is the lowest: samples are in the order of bits
    for word in range(planes.shape[1]):
        for place in range(_WORD):
            j = _WORD * word + place
            held[place] = _OF_ONE_COPY
            if j < n and used[j]:
                held[place, :n_bytes] = packed[j]
        _transpose(rows)
        for i in range(WORDS * planes.shape[0]):
            low, high = rows[2 * (i % 32), i // 32], rows[2 * (i % 32) + 1, i // 32]
            planes[i // WORDS, word, i % WORDS] = ~(low ^ high)
            planes[i // WORDS, word, WORDS + i % WORDS] = high
            if i < missing.shape[0]:
                missing[i, word] = low & ~high


@njit(nogil=True, cache=True)
def _transpose(rows):  # type: ignore[no-untyped-def]
    """Turn 64 rows of words, so that bit k of row b was bit b of row k, in each column."""
    distance, kept = 32, _LOWER_HALF
    while distance > 0:
        shift = np.uint64(distance)
        for one in range(_WORD):
            if one & distance:
                continue
            upper, lower = rows[one], rows[one + distance]
            for column in range(rows.shape[1]):
                swapped = ((upper[column] >> shift) ^ lower[column]) & kept
                upper[column] ^= swapped << shift
                lower[column] ^= swapped
        distance //= 2
        kept ^= kept << np.uint64(distance)


@njit(nogil=True, cache=True)
def add_products(planes, first, last, begin, end, total):  # type: ignore[no-untyped-def]
    """Add ``sum h_i h_k`` of samples i in first:last and k <= i in begin:end to ``total``.

    ``h`` are copies less 1, and 0 where missing. Samples k are the lanes of vectors, four samples i
    share what is loaded of them; numbers ``first`` and ``begin`` are multiples of `WORDS`, and so
    are the sides of ``total``.
    """
    size, width = planes.shape[1] * 2 * WORDS, total.shape[1]
    flat = planes.reshape(planes.size)
    for top in range(first, last, _ROWS):
        for left in range(begin, min(end, top + _ROWS), WORDS):
            for i in range(max(top, left), min(top + _ROWS, last), 4):
                ours, theirs = i // WORDS * size + i % WORDS, left // WORDS * size
                all0, all1 = zeros_like(flat), zeros_like(flat)
                all2, all3 = zeros_like(flat), zeros_like(flat)
                unlike0, unlike1 = zeros_like(flat), zeros_like(flat)
                unlike2, unlike3 = zeros_like(flat), zeros_like(flat)
                for _ in range(planes.shape[1]):
                    are, signs = lanes_at(flat, theirs), lanes_at(flat, theirs + WORDS)
                    x = both(are, repeated_at(flat, ours))
                    y = both(x, differing(signs, repeated_at(flat, ours + WORDS)))
                    all0, unlike0 = add(all0, count_bits(x)), add(unlike0, count_bits(y))
                    x = both(are, repeated_at(flat, ours + 1))
                    y = both(x, differing(signs, repeated_at(flat, ours + WORDS + 1)))
                    all1, unlike1 = add(all1, count_bits(x)), add(unlike1, count_bits(y))
                    x = both(are, repeated_at(flat, ours + 2))
                    y = both(x, differing(signs, repeated_at(flat, ours + WORDS + 2)))
                    all2, unlike2 = add(all2, count_bits(x)), add(unlike2, count_bits(y))
                    x = both(are, repeated_at(flat, ours + 3))
                    y = both(x, differing(signs, repeated_at(flat, ours + WORDS + 3)))
                    all3, unlike3 = add(all3, count_bits(x)), add(unlike3, count_bits(y))
                    ours += 2 * WORDS
                    theirs += 2 * WORDS
                place = i * width + left
                add_to(total, place, subtract(all0, add(unlike0, unlike0)))
                add_to(total, place + width, subtract(all1, add(unlike1, unlike1)))
                add_to(total, place + 2 * width, subtract(all2, add(unlike2, unlike2)))
                add_to(total, place + 3 * width, subtract(all3, add(unlike3, unlike3)))


@njit(nogil=True, cache=True)
def listed(words):  # type: ignore[no-untyped-def]
    """Return the bits that are set in each row of words: where its list starts, and the lists."""
    n, width = words.shape
    starts = np.zeros(n + 1, dtype=np.int64)
    for i in range(n):
        count = np.uint64(0)
        for word in range(width):
            count += _set_bits(words[i, word])
        starts[i + 1] = starts[i] + np.int64(count)
    members = np.empty(starts[n], dtype=np.int32)
    place = 0
    for i in range(n):
        for word in range(width):
            bits = words[i, word]
            while bits != 0:
                members[place] = _WORD * word + np.int64(_set_bits((bits - _ONE) & ~bits))
                place += 1
                bits &= bits - _ONE
    return starts, members


@njit(nogil=True, cache=True)
def add_missing(packed, means, starts, members, first, last, alone, values, total):  # type: ignore[no-untyped-def]
    """Add what centring, and missing calls, make of products of samples first:last.

    With w the centred copies, 0 where missing (x = 1), and m the mean of a variant (n,) less 1, 0
    for one that is not used: ``sum m x_k (w_i - m x_i / 2)`` to row k and column i of ``total``,
    which is (strips of `STRIP` samples i, N, STRIP), and ``sum m^2 x_i - m w_i`` to ``alone`` (N,).
    ``first`` is a multiple of `STRIP`. Where an allele is rare, m is near 1 or -1, but w is small.
    ``values`` (n, STRIP) is room for decoded genotypes, which is faster where a cache line begins.
    """
    n_samples = starts.shape[0] - 1
    flat = values.reshape(values.size)
    for left in range(first, last, STRIP):
        _decode(packed, means, left, last, flat, alone)
        for k in range(n_samples):
            place = (left // STRIP * n_samples + k) * STRIP
            for some in range(starts[k], starts[k + 1], _ADDED):
                sum0, sum1 = zeros_like(flat), zeros_like(flat)
                for here in range(some, min(some + _ADDED, starts[k + 1])):
                    row = np.int64(number_at(members, here)) * STRIP
                    sum0 = add(sum0, lanes_at(flat, row))
                    sum1 = add(sum1, lanes_at(flat, row + FLOATS))
                add_to(total, place, sum0)
                add_to(total, place + FLOATS, sum1)
        for i in range(left, min(left + STRIP, last)):
            for here in range(starts[i], starts[i + 1]):
                mean = np.float64(means[members[here]])
                alone[i] += 0.5 * mean * mean


@njit(nogil=True, cache=True)
def add_tile(products, total, alone, first, last, begin, end, triangle):  # type: ignore[no-untyped-def]
    """Add the sums of samples i in first:last and k <= i in begin:end to a triangle.

    ``triangle`` is a lower one, row after row; ``products`` is what `add_products` added to, and
    ``total`` and ``alone`` what `add_missing` did. Squares of `STRIP` samples, which ``first`` and
    ``begin`` are multiples of, stay in the nearest cache.
    """
    square = np.empty((STRIP, STRIP))
    for top in range(first, last, STRIP):
        height = min(STRIP, last - top)
        for left in range(begin, min(end, top + STRIP), STRIP):
            width = min(STRIP, end - left)
            halves = total[top // STRIP, left : left + width]
            for k in range(width):
                for i in range(height):
                    square[i, k] = halves[k, i] + alone[left + k]
            for i in range(height):
                right = left + (i + 1 if left == top else width)
                start = (top + i) * (top + i + 1) // 2
                halves, own = total[left // STRIP, top + i], alone[top + i]
                whole, out = products[top + i, left:right], triangle[start + left : start + right]
                for k in range(right - left):
                    out[k] += square[i, k] + halves[k] + own + whole[k]


@njit(nogil=True, cache=True)
def _decode(packed, means, left, last, values, alone):  # type: ignore[no-untyped-def]
    """Fill ``values`` with ``m (w_i - m x_i / 2)``, and take their sums from ``alone``.

    Of all variants and the `STRIP` samples from ``left`` on.
    """
    n, n_bytes = packed.shape
    own = np.zeros(STRIP)
    for part in range(0, STRIP, 2 * FLOATS):
        byte = (left + part) // 4
        sum0, sum1 = zeros_like(values), zeros_like(values)
        for j in range(n):
            mean = np.float64(means[j])
            two, missing = np.float32(mean * (1.0 - mean)), np.float32(-0.5 * mean * mean)
            one, none = np.float32(-mean * mean), np.float32(-mean * (1.0 + mean))
            whole = byte + 8 <= n_bytes
            word = word_at(packed, j * n_bytes + byte) if whole else _last_word(packed, j, byte)
            value0 = of_codes(word, two, missing, one, none)
            value1 = of_codes(word >> _HALF, two, missing, one, none)
            put(values, j * STRIP + part, value0)
            put(values, j * STRIP + part + FLOATS, value1)
            sum0, sum1 = add(sum0, value0), add(sum1, value1)
            if j % _ADDED == _ADDED - 1 or j == n - 1:
                add_to(own, part, sum0)
                add_to(own, part + FLOATS, sum1)
                sum0, sum1 = zeros_like(values), zeros_like(values)
    for i in range(left, min(left + STRIP, last)):
        alone[i] -= own[i - left]


@njit(nogil=True, cache=True)
def _last_word(packed, j, byte):  # type: ignore[no-untyped-def]
    """Return the bytes of a row from the place ``byte`` on, fewer than eight, as a word."""
    word = np.uint64(0)
    for k in range(packed.shape[1] - byte):
        word |= np.uint64(packed[j, byte + k]) << np.uint64(8 * k)
    return word


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
def add_jointly_listed(variant_starts, samples, sample_starts, variants, first, last, triangle):  # type: ignore[no-untyped-def]
    """Add to a triangle how many variants samples first:last and those before each lack together.

    From lists of the samples that lack a variant, ascending, and of the variants a sample lacks.
    """
    for i in range(first, last):
        row = triangle[i * (i + 1) // 2 :]
        for place in range(sample_starts[i], sample_starts[i + 1]):
            j = variants[place]
            for k in samples[variant_starts[j] : variant_starts[j + 1]]:
                if k > i:
                    break
                row[k] += 1


@njit(nogil=True, cache=True)
def add_jointly_set(words, first, last, begin, end, triangle):  # type: ignore[no-untyped-def]
    """Add to a triangle how many bits of i in first:last and k <= i in begin:end are both set."""
    for top in range(first, last, _SQUARE):
        for left in range(begin, min(end, top + _SQUARE), _SQUARE):
            for i in range(top, min(top + _SQUARE, last)):
                row = triangle[i * (i + 1) // 2 :]
                for k in range(left, min(left + _SQUARE, end, i + 1)):
                    both = np.uint64(0)
                    for word in range(words.shape[1]):
                        both += _set_bits(words[i, word] & words[k, word])
                    row[k] += np.int64(both)


@njit(nogil=True, cache=True)
def add_rows(values, first, begin, triangle):  # type: ignore[no-untyped-def]
    """Add to a triangle those of ``values`` that are in it, of samples from first and begin on."""
    for i in range(values.shape[0]):
        row = triangle[(first + i) * (first + i + 1) // 2 + begin :]
        for k in range(min(values.shape[1], first + i + 1 - begin)):
            row[k] += values[i, k]


@njit(nogil=True, cache=True)
def unfold(values, first, rows):  # type: ignore[no-untyped-def]
    """Fill rows of a symmetric matrix, (n, first + n), with those of its triangle from first on."""
    place, height = 0, rows.shape[0]
    for i in range(height):
        for k in range(first + i + 1):
            rows[i, k] = values[place + k]
        place += first + i + 1
    for i in range(height):
        for k in range(i + 1, height):
            rows[i, first + k] = rows[k, first + i]
