"""Compiled loops over dosages, and over calls in two bits each (`plait.data.genotypes.pack`)."""

import numpy as np

from plait.numerics.compiled import njit
from plait.numerics.lane_kernels import FLOATS, add, add_to, lanes_at, put, word_at, zeros_like

_MISSING = 1
_LOW_BITS = np.uint64(0x5555555555555555)
_PAIRS = np.uint64(0x3333333333333333)
_NIBBLES = np.uint64(0x0F0F0F0F0F0F0F0F)
_BYTES = np.uint64(0x0101010101010101)
_ONE = np.uint64(1)
_BYTE = np.uint64(255)
_TOGETHER = 16
"""Bytes of calls whose sums are looked up together: their tables stay in the second cache."""
_TERMS = 64
"""Most terms of a sum in single precision."""
_APART = 257
"""Rows from one table to the next; after 256 they would be where caches have little room."""


@njit(nogil=True, cache=True)
def _set_bits(word):  # type: ignore[no-untyped-def]
    """Count the set bits of a 64-bit word."""
    word = word - ((word >> np.uint64(1)) & _LOW_BITS)
    word = (word & _PAIRS) + ((word >> np.uint64(2)) & _PAIRS)
    word = (word + (word >> np.uint64(4))) & _NIBBLES
    return (word * _BYTES) >> np.uint64(56)


@njit(nogil=True, cache=True)
def count_genotypes(packed, n_samples):  # type: ignore[no-untyped-def]
    """Count the codes 0, 1, 2 and 3 of every variant: (variants, 4)."""
    n_variants, n_bytes = packed.shape
    counts = np.zeros((n_variants, 4), dtype=np.int64)
    whole = n_bytes // 8
    for j in range(n_variants):
        words = packed[j, : whole * 8].view(np.uint64)
        low = np.uint64(0)
        high = np.uint64(0)
        both = np.uint64(0)
        for i in range(whole):
            word = words[i]
            upper = (word >> np.uint64(1)) & _LOW_BITS
            lower = word & _LOW_BITS
            low += _set_bits(lower)
            high += _set_bits(upper)
            both += _set_bits(lower & upper)
        for i in range(whole * 8, n_bytes):
            for shift in range(0, 8, 2):
                code = (packed[j, i] >> shift) & 3
                low += np.uint64(code & 1)
                high += np.uint64(code >> 1)
                both += np.uint64(code == 3)
        counts[j, 3] = both
        counts[j, 2] = high - both
        counts[j, 1] = np.int64(low - both) - (4 * n_bytes - n_samples)
        counts[j, 0] = n_samples - counts[j, 1] - counts[j, 2] - counts[j, 3]
    return counts


@njit(nogil=True, cache=True)
def pack_calls(calls):  # type: ignore[no-untyped-def]
    """Pack int8 dosages (variants, samples) of 0, 1 or 2; anything else is missing."""
    n_variants, n_samples = calls.shape
    packed = np.full((n_variants, (n_samples + 3) // 4), 0x55, dtype=np.uint8)
    for j in range(n_variants):
        for i in range(n_samples):
            call = calls[j, i]
            code = 1
            if call == 0:
                code = 3
            elif call == 1:
                code = 2
            elif call == 2:
                code = 0
            shift = 2 * (i % 4)
            packed[j, i // 4] = (packed[j, i // 4] & ~(3 << shift)) | (code << shift)
    return packed


@njit(nogil=True, cache=True)
def select_samples(packed, samples):  # type: ignore[no-untyped-def]
    """Return the packed genotypes of some samples, in this order."""
    n_variants = packed.shape[0]
    count = samples.shape[0]
    chosen = np.full((n_variants, (count + 3) // 4), 0x55, dtype=np.uint8)
    for j in range(n_variants):
        for byte in range(count // 4):
            value = 0
            for part in range(4):
                sample = samples[4 * byte + part]
                value |= ((packed[j, sample >> 2] >> (2 * (sample & 3))) & 3) << (2 * part)
            chosen[j, byte] = value
        for i in range(count // 4 * 4, count):
            sample = samples[i]
            code = (packed[j, sample >> 2] >> (2 * (sample & 3))) & 3
            shift = 2 * (i % 4)
            chosen[j, i // 4] = (chosen[j, i // 4] & ~(3 << shift)) | (code << shift)
    return chosen


@njit(nogil=True, cache=True)
def unpack_calls(packed, n_samples):  # type: ignore[no-untyped-def]
    """Return int8 dosages (variants, samples), -1 where missing."""
    values = np.array([2, -1, 1, 0], dtype=np.int8)
    n_variants = packed.shape[0]
    calls = np.empty((n_variants, n_samples), dtype=np.int8)
    for j in range(n_variants):
        for i in range(n_samples):
            calls[j, i] = values[(packed[j, i >> 2] >> (2 * (i & 3))) & 3]
    return calls


@njit(nogil=True, cache=True)
def centred_values(counts, values, squares):  # type: ignore[no-untyped-def]
    """From counts by code: ``values[j, code]``, centred, and the sum of their squares.

    A missing genotype has the value 0: it is imputed by the mean.
    """
    for j in range(counts.shape[0]):
        n2, n1, n0 = counts[j, 0], counts[j, 2], counts[j, 3]
        called = n0 + n1 + n2
        mean = (n1 + 2.0 * n2) / max(called, 1)
        values[j, 0] = 2.0 - mean
        values[j, 1] = 0.0
        values[j, 2] = 1.0 - mean
        values[j, 3] = -mean
        # From differences, so that a nearly constant genotype does not cancel.
        squares[j] = n2 * (2.0 - mean) ** 2 + n1 * (1.0 - mean) ** 2 + n0 * mean**2


@njit(nogil=True, cache=True)
def multiply_calls(packed, counts, regressors, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` (variants, K) with products of the centred calls and ``regressors``.

    Those are (4 x bytes, K) in single precision, 0 beyond the last sample, K a multiple of
    `FLOATS`; a missing call is the mean. Sums over the four samples of a byte are looked up in
    tables of all 256 bytes ("four Russians"), and added in single precision within 64 samples.

    Copies of the rarer allele are what is counted, so that sums are as small as they can be: with
    c copies, mean m and the sign s of that allele, ``s (sum c r - m (sum r - sum r of missing))``.
    """
    n, n_bytes = packed.shape
    width = regressors.shape[1]
    table = _room_for_tables()
    pairs = np.empty((32, FLOATS), dtype=np.float32)
    out[:] = 0.0
    for left in range(0, width, FLOATS):
        for begin in range(0, n_bytes, _TOGETHER):
            end = min(begin + _TOGETHER, n_bytes)
            _tabulate(regressors, begin, end, left, pairs, table)
            if end - begin == _TOGETHER:
                _add_whole(packed, counts, table, begin, left, out)
            else:
                _add_rest(packed, counts, table, begin, left, out)
    sums = np.zeros(width)
    for i in range(regressors.shape[0]):
        for c in range(width):
            sums[c] += regressors[i, c]
    of_missing = np.empty(width)
    samples = np.empty(4 * n_bytes + 2, dtype=np.int64)
    for j in range(n):
        of_missing[:] = 0.0
        if counts[j, 1] > 0:
            count = _without_call(packed, j, samples)
            for left in range(0, width, FLOATS):
                total = zeros_like(table)
                for k in range(count):
                    total = add(total, lanes_at(regressors, samples[k] * width + left))
                    if k % _TERMS == _TERMS - 1:
                        add_to(of_missing, left, total)
                        total = zeros_like(table)
                add_to(of_missing, left, total)
        n2, n1, n0 = counts[j, 0], counts[j, 2], counts[j, 3]
        mean = (n1 + 2.0 * min(n2, n0)) / max(n0 + n1 + n2, 1)
        sign = -1.0 if n2 > n0 else 1.0
        for c in range(width):
            out[j, c] = sign * (out[j, c] - mean * (sums[c] - of_missing[c]))


@njit(nogil=True, cache=True)
def _tabulate(regressors, begin, end, left, pairs, table):  # type: ignore[no-untyped-def]
    """Fill a table for each of some bytes: sums of regressors by copies, of all that it can be.

    Those of bytes from ``end`` on are 0.
    """
    width = regressors.shape[1]
    zero = zeros_like(table)
    for k in range(_TOGETHER):
        if begin + k >= end:
            for value in range(256):
                put(table, (_APART * k + value) * FLOATS, zero)
            continue
        for half in range(2):
            place = (4 * (begin + k) + 2 * half) * width + left
            first, second = lanes_at(regressors, place), lanes_at(regressors, place + width)
            for code in range(4):
                high = zero
                if code == 2:
                    high = second
                elif code == 0:
                    high = add(second, second)
                row = 16 * half + 4 * code
                put(pairs, row * FLOATS, add(high, add(first, first)))
                put(pairs, (row + 1) * FLOATS, high)
                put(pairs, (row + 2) * FLOATS, add(high, first))
                put(pairs, (row + 3) * FLOATS, high)
        for high in range(16):
            of_high = lanes_at(pairs, (16 + high) * FLOATS)
            for low in range(16):
                row = _APART * k + 16 * high + low
                put(table, row * FLOATS, add(of_high, lanes_at(pairs, low * FLOATS)))


@njit(nogil=True, cache=True)
def _turned(word, turned):  # type: ignore[no-untyped-def]
    """Swap codes 00 and 11 where ``turned`` has the low bit of a code: both flip where equal."""
    same = ~(word ^ (word >> _ONE)) & turned
    return word ^ (same | (same << _ONE))


@njit(nogil=True, cache=True)
def _room_for_tables():  # type: ignore[no-untyped-def]
    """Return room for the tables, of which no row crosses a line of the cache."""
    size = _TOGETHER * _APART * FLOATS
    room = np.empty(size + FLOATS, dtype=np.float32)
    begin = -(room.ctypes.data // 4) % FLOATS
    return room[begin : begin + size]


@njit(nogil=True, cache=True)
def _add_whole(packed, counts, table, begin, left, out):  # type: ignore[no-untyped-def]
    """Add what tables say of the 16 bytes from the place ``begin`` on, for every variant."""
    n, n_bytes = packed.shape
    for j in range(n):
        turned = _LOW_BITS if counts[j, 0] > counts[j, 3] else np.uint64(0)
        place = j * n_bytes + begin
        one = _of_word(_turned(word_at(packed, place), turned), table, 0)
        two = _of_word(_turned(word_at(packed, place + 8), turned), table, 8)
        add_to(out, j * out.shape[1] + left, add(one, two))


@njit(nogil=True, cache=True)
def _add_rest(packed, counts, table, begin, left, out):  # type: ignore[no-untyped-def]
    """Do what `_add_whole` does for fewer bytes, up to the end of the row."""
    for j in range(packed.shape[0]):
        turned = _LOW_BITS if counts[j, 0] > counts[j, 3] else np.uint64(0)
        one = _of_word(_turned(_word_from(packed, j, begin), turned), table, 0)
        two = _of_word(_turned(_word_from(packed, j, begin + 8), turned), table, 8)
        add_to(out, j * out.shape[1] + left, add(one, two))


@njit(nogil=True, cache=True)
def _of_word(word, table, first):  # type: ignore[no-untyped-def]
    """Look up the bytes of a word, in the tables from ``first`` on, and add what is there.

    In two sums, of which neither waits for the other.
    """
    even, odd = zeros_like(table), zeros_like(table)
    for k in range(0, 8, 2):
        row = _APART * (first + k) + np.int64((word >> np.uint64(8 * k)) & _BYTE)
        even = add(even, lanes_at(table, row * FLOATS))
        row = _APART * (first + k + 1) + np.int64((word >> np.uint64(8 * k + 8)) & _BYTE)
        odd = add(odd, lanes_at(table, row * FLOATS))
    return add(even, odd)


@njit(nogil=True, cache=True)
def _word_from(packed, j, byte):  # type: ignore[no-untyped-def]
    """Return the eight bytes of a row from the place ``byte`` on, 0 beyond its end, as a word."""
    n_bytes = packed.shape[1]
    if byte + 8 <= n_bytes:
        return word_at(packed, j * n_bytes + byte)
    word = np.uint64(0)
    for k in range(n_bytes - byte):
        word |= np.uint64(packed[j, byte + k]) << np.uint64(8 * k)
    return word


@njit(nogil=True, cache=True)
def _lacking(word):  # type: ignore[no-untyped-def]
    """Return the lower bits of those codes of a word that are missing."""
    return word & ~(word >> _ONE) & _LOW_BITS


@njit(nogil=True, cache=True)
def _without_call(packed, j, samples):  # type: ignore[no-untyped-def]
    """Fill ``samples`` with those that lack variant j, as codes beyond the last do; count them.

    Of two words together: the lower bits of codes are those of the first, the upper ones those of
    the second. Two are taken whether or not there are any: to ask first is slower.
    """
    count = 0
    for byte in range(0, packed.shape[1], 16):
        flags = _lacking(_word_from(packed, j, byte))
        flags |= _lacking(_word_from(packed, j, byte + 8)) << _ONE
        taken = 0
        while taken < 2 or flags != 0:
            bit = np.int64(_set_bits((flags - _ONE) & ~flags))
            samples[count] = 4 * byte + (bit >> 1) + 32 * (bit & 1)
            count += flags != 0
            flags &= flags - _ONE
            taken += 1
    return count


@njit(nogil=True, cache=True)
def decode(packed, values, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` (variants, 4 x bytes) with ``values[j, code]``, two genotypes at a time.

    Those beyond the last sample get ``values[j, 1]``, as missing ones do.
    """
    n_variants, n_bytes = packed.shape
    table = np.empty((16, 2), dtype=values.dtype)
    for j in range(n_variants):
        for code in range(16):
            table[code, 0] = values[j, code & 3]
            table[code, 1] = values[j, code >> 2]
        for i in range(n_bytes):
            low, high = packed[j, i] & 15, packed[j, i] >> 4
            out[j, 4 * i] = table[low, 0]
            out[j, 4 * i + 1] = table[low, 1]
            out[j, 4 * i + 2] = table[high, 0]
            out[j, 4 * i + 3] = table[high, 1]


@njit(nogil=True, cache=True)
def decode_exactly(packed, values, n_samples):  # type: ignore[no-untyped-def]
    """Return ``values[j, code]`` of every genotype, (variants, samples) in double precision."""
    out = np.empty((packed.shape[0], n_samples))
    for j in range(packed.shape[0]):
        for i in range(n_samples):
            out[j, i] = values[j, (packed[j, i >> 2] >> (2 * (i & 3))) & 3]
    return out


@njit(nogil=True, cache=True)
def count_allele(alleles, allele, others):  # type: ignore[no-untyped-def]
    """Count an allele (or all others) among the alleles (samples, ploidy) that samples carry.

    -1 is a missing allele, which makes the count -1; -2 is none, as a haploid has no second one.
    The one allele of a haploid counts twice, as that of a homozygote.
    """
    n_samples, ploidy = alleles.shape
    counts = np.empty(n_samples, dtype=np.int8)
    for i in range(n_samples):
        copies, present = 0, 0
        for k in range(ploidy):
            carried = alleles[i, k]
            if carried == -1 or (carried < 0 and k == 0):
                copies, present = -1, 0
                break
            if carried >= 0:
                present += 1
                if (carried == allele) != others:
                    copies += 1
        counts[i] = 2 * copies if present == 1 else copies
    return counts


@njit(nogil=True, cache=True)
def missing_calls(packed, n_samples):  # type: ignore[no-untyped-def]
    """Return which calls are missing, (variants, samples)."""
    flags = np.empty((packed.shape[0], n_samples), dtype=np.bool_)
    for j in range(packed.shape[0]):
        for i in range(n_samples // 4):
            # The lower bit of a code alone says that it is missing.
            lower = packed[j, i] & ~(packed[j, i] >> 1)
            flags[j, 4 * i] = lower & 1
            flags[j, 4 * i + 1] = lower & 4
            flags[j, 4 * i + 2] = lower & 16
            flags[j, 4 * i + 3] = lower & 64
        for i in range(n_samples // 4 * 4, n_samples):
            flags[j, i] = (packed[j, i >> 2] >> (2 * (i & 3))) & 3 == _MISSING
    return flags


@njit(nogil=True, cache=True)
def rarer_copies(packed, counts, n_samples):  # type: ignore[no-untyped-def]
    """Return copies of the rarer allele (variants, samples), and where it is the effect allele.

    From counts by code. A missing call is the mean; the second is 1 for the effect allele, else -1.
    """
    copies, signs = np.empty((packed.shape[0], n_samples)), np.empty(packed.shape[0])
    values = np.empty(4)
    for j in range(packed.shape[0]):
        n2, n1, n0 = counts[j, 0], counts[j, 2], counts[j, 3]
        signs[j] = 1.0 if n2 <= n0 else -1.0
        values[0] = 1.0 + signs[j]
        values[1] = (n1 + 2.0 * min(n2, n0)) / max(n0 + n1 + n2, 1)
        values[2] = 1.0
        values[3] = 1.0 - signs[j]
        for i in range(n_samples):
            copies[j, i] = values[(packed[j, i >> 2] >> (2 * (i & 3))) & 3]
    return copies, signs


@njit(nogil=True, cache=True)
def summarise_dosages(dosages, sums, means, squares, n_missing):  # type: ignore[no-untyped-def]
    """Fill sums and means of dosages (variants, samples), and sums of squares about the mean.

    Those that are missing (NaN) are counted. Without any the mean is NaN and the others 0.
    """
    n_variants, n_samples = dosages.shape
    for j in range(n_variants):
        called, total = 0, 0.0
        low, high = np.inf, -np.inf
        for i in range(n_samples):
            dosage = np.float64(dosages[j, i])
            if np.isnan(dosage):
                continue
            called += 1
            total += dosage
            low, high = min(low, dosage), max(high, dosage)
        # The mean of equal numbers is exactly these: what does not vary leaves no rounding errors.
        mean = total / called if low < high else low
        spread = 0.0
        for i in range(n_samples):
            dosage = np.float64(dosages[j, i])
            if not np.isnan(dosage):
                spread += (dosage - mean) ** 2
        sums[j], means[j], squares[j] = total, mean if called > 0 else np.nan, spread
        n_missing[j] = n_samples - called


@njit(nogil=True, cache=True)
def centre_dosages(dosages, means, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` with dosages less their means, 0 where missing, and beyond the last sample."""
    n_variants, n_samples = dosages.shape
    for j in range(n_variants):
        for i in range(n_samples):
            difference = np.float64(dosages[j, i]) - means[j]
            out[j, i] = 0.0 if np.isnan(difference) else difference
        for i in range(n_samples, out.shape[1]):
            out[j, i] = 0.0
