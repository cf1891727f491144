"""Compiled loops that draw treated cells and add up their rows.

A draw is a hit: a cell and the resample (of the current block) in which it is treated. Samplers
fill buffers with hits until their random numbers are used up and go on where they stopped, so that
neither index lists nor a matrix of treated cells is ever held. Hits of one resample that follow
one another are a run: its rows are added up before the resample's sums are touched.
"""

import numpy as np

from plait.numerics.compiled import njit
from plait.numerics.random_kernels import fill_exponentials, fill_words


@njit(nogil=True, cache=True)
def are_probabilities(values):  # type: ignore[no-untyped-def]
    """Return whether all values are between 0 and 1."""
    found = True
    for i in range(values.shape[0]):
        found &= 0.0 <= values[i] <= 1.0
    return found


@njit(nogil=True, cache=True)
def bernoulli_hits(hazards, resamples, exponentials, place, waiting, cells, slots):  # type: ignore[no-untyped-def]
    """Draw hits of independent Bernoulli variables, cell by cell, until random numbers run out.

    The resamples of all cells, one cell after the other, are a discrete time line on which cell i
    has the hazard h_i = -log(1 - p_i) per resample. An exponential variate is walked off along it:
    the resample where it ends is a hit. What is left of it at a cell's end serves the next cell
    (it has no memory), so cells without a hit cost no random number.

    ``place`` holds the cell and the resample where to go on, and whether the variate being walked
    off, ``waiting[0]``, is used up. Returns the number of hits written.
    """
    n_cells = hazards.shape[0]
    cell, slot = place[0], place[1]
    used = 0
    if place[2] == 1:
        waiting[0] = exponentials[0]
        used = 1
        place[2] = 0
    left = waiting[0]
    n = 0
    while cell < n_cells:
        hazard = hazards[cell]
        room = resamples - slot
        reach = hazard * room
        if left >= reach or room == 0:
            left -= reach
            cell += 1
            slot = 0
            continue
        # Rounding may have left a value a little below 0, or its quotient at the very end.
        skip = min(max(np.int64(left / hazard), 0), room - 1)
        slot += skip
        cells[n] = cell
        slots[n] = slot
        n += 1
        slot += 1
        if used == exponentials.shape[0]:
            place[2] = 1
            break
        left = exponentials[used]
        used += 1
    place[0], place[1] = cell, slot
    waiting[0] = left
    return n


@njit(nogil=True, cache=True)
def runs_of_slots(cells, slots, n, resamples, ordered, run_starts, run_slots):  # type: ignore[no-untyped-def]
    """Order hits by resample, else as they are; return the number of runs, one a resample.

    Run r is ``ordered[run_starts[r]:run_starts[r + 1]]``, cells of the resample ``run_slots[r]``.
    """
    places = np.zeros(resamples + 1, dtype=np.int64)
    for i in range(n):
        places[slots[i] + 1] += 1
    runs = 0
    for slot in range(resamples):
        if places[slot + 1] > 0:
            run_starts[runs] = places[slot]
            run_slots[runs] = slot
            runs += 1
        places[slot + 1] += places[slot]
    run_starts[runs] = n
    for i in range(n):
        slot = slots[i]
        ordered[places[slot]] = cells[i]
        places[slot] += 1
    return runs


@njit(nogil=True, cache=True)
def stratified_runs(  # type: ignore[no-untyped-def]
    members, starts, treated, resamples, words, place, cells, run_starts, run_slots
):
    """Draw treated cells without replacement within strata until random numbers run out.

    Strata are outermost, so that the rows of one stratum stay near while all resamples of the block
    draw from it. A draw is the beginning of a Fisher-Yates shuffle of the stratum's part of
    ``members``; any order that earlier draws left is as good a start as another. A place among the
    ``n`` that are left is ``x n / 2^32`` of 32 random bits x, where x is drawn anew if it is one of
    the ``2^32 mod n`` too many (Lemire 2019, algorithm 5): all places are exactly as likely.

    ``words`` are 64 random bits each, the lower half used first; ``place`` holds the stratum, the
    resample and the position where to go on. Returns the number of runs; see `runs_of_slots`.
    """
    half, low_bits = np.uint64(32), np.uint64(0xFFFFFFFF)
    stratum, slot, position = place[0], place[1], place[2]
    used, available = 0, 2 * words.shape[0]
    n, runs = 0, 0
    while stratum < treated.shape[0] and used < available:
        part, count = members[starts[stratum] : starts[stratum + 1]], treated[stratum]
        while slot < resamples and count > 0 and used < available:
            run_starts[runs], run_slots[runs] = n, slot
            runs += 1
            while position < count and used < available:
                word = (words[used >> 1] >> np.uint64(32 * (used & 1))) & low_bits
                used += 1
                left = np.uint64(part.shape[0] - position)
                product = word * left
                rest = product & low_bits
                if rest < left and rest < np.uint64(2**32) % left:
                    continue
                other = position + np.int64(product >> half)
                chosen = part[other]
                part[other] = part[position]
                part[position] = chosen
                cells[n] = chosen
                n += 1
                position += 1
            if position == count:
                position = 0
                slot += 1
        if slot == resamples or count == 0:
            slot = 0
            stratum += 1
    run_starts[runs] = n
    place[0], place[1], place[2] = stratum, slot, position
    return runs


@njit(nogil=True, cache=True)
def add_runs(table, cells, run_starts, run_slots, sums, counts):  # type: ignore[no-untyped-def]
    """Add the rows of ``table`` (cells, columns) of each run to its resample's row of ``sums``."""
    # Plain loops over contiguous columns: nests of short loops are not vectorised.
    columns = table.shape[1]
    for run in range(run_slots.shape[0]):
        i, end, slot = run_starts[run], run_starts[run + 1], run_slots[run]
        counts[slot] += end - i
        row = sums[slot]
        while i + 8 <= end:
            a, b, c, d = cells[i], cells[i + 1], cells[i + 2], cells[i + 3]
            e, f, g, h = cells[i + 4], cells[i + 5], cells[i + 6], cells[i + 7]
            for column in range(columns):
                first = np.float64(table[a, column]) + np.float64(table[b, column])
                second = np.float64(table[c, column]) + np.float64(table[d, column])
                third = np.float64(table[e, column]) + np.float64(table[f, column])
                fourth = np.float64(table[g, column]) + np.float64(table[h, column])
                row[column] += (first + second) + (third + fourth)
            i += 8
        if i + 4 <= end:
            a, b, c, d = cells[i], cells[i + 1], cells[i + 2], cells[i + 3]
            for column in range(columns):
                first = np.float64(table[a, column]) + np.float64(table[b, column])
                second = np.float64(table[c, column]) + np.float64(table[d, column])
                row[column] += first + second
            i += 4
        while i < end:
            cell = cells[i]
            for column in range(columns):
                row[column] += table[cell, column]
            i += 1


@njit(nogil=True, cache=True)
def add_bernoulli(table, hazards, batch, states, sums, counts):  # type: ignore[no-untyped-def]
    """Add the rows of ``table`` that Bernoulli variables hit to the sums of some blocks.

    ``sums`` (blocks, resamples, columns) and ``counts`` (blocks, resamples); ``states`` (blocks, 4)
    of the blocks' random numbers, which are used up. One call for all batches: no lock of Python's
    is taken between them. Blocks take turns: batches of the same number are of about the same
    cells, whose rows then still are near.
    """
    n_blocks, resamples = counts.shape
    exponentials = np.empty(batch)
    cells, slots = np.empty(batch, np.int32), np.empty(batch, np.int32)
    ordered, run_slots = np.empty(batch, np.int32), np.empty(batch + 1, np.int32)
    run_starts = np.empty(batch + 2, np.int64)
    places, waiting = np.zeros((n_blocks, 3), np.int64), np.zeros((n_blocks, 1))
    places[:, 2] = 1
    while places[:, 0].min() < hazards.shape[0]:
        for block in range(n_blocks):
            if places[block, 0] == hazards.shape[0]:
                continue
            fill_exponentials(states[block], exponentials)
            n = bernoulli_hits(
                hazards, resamples, exponentials, places[block], waiting[block], cells, slots
            )
            runs = runs_of_slots(cells, slots, n, resamples, ordered, run_starts, run_slots)
            add_runs(table, ordered, run_starts, run_slots[:runs], sums[block], counts[block])


@njit(nogil=True, cache=True)
def add_stratified(table, members, starts, treated, batch, states, sums, counts):  # type: ignore[no-untyped-def]
    """Add the rows of ``table`` of cells drawn within strata to the sums of some blocks.

    See `stratified_runs`, and `add_bernoulli` for the other arguments.
    """
    n_blocks, resamples = counts.shape
    words = np.empty(batch // 2, np.uint64)
    cells, run_slots = np.empty(batch, np.int32), np.empty(batch + 1, np.int32)
    run_starts = np.empty(batch + 2, np.int64)
    places = np.zeros((n_blocks, 3), np.int64)
    shuffled = np.empty((n_blocks, members.shape[0]), np.int32)
    shuffled[:] = members
    while places[:, 0].min() < treated.shape[0]:
        for block in range(n_blocks):
            if places[block, 0] == treated.shape[0]:
                continue
            fill_words(states[block], words)
            runs = stratified_runs(
                shuffled[block], starts, treated, resamples, words, places[block], cells,
                run_starts, run_slots,
            )  # fmt: skip
            add_runs(table, cells, run_starts, run_slots[:runs], sums[block], counts[block])


@njit(nogil=True, cache=True)
def fill_effects(  # type: ignore[no-untyped-def]
    outcome_sums, basis_sums, counts, smallest, smallest_share, effects
):
    """Write S / D of each resample, D = n1 - |Q'x|^2; NaN where D is below what is rounding.

    That is the larger of ``smallest`` and of ``smallest_share`` of n1.
    """
    for b in range(counts.shape[0]):
        square = 0.0
        for k in range(basis_sums.shape[1]):
            square += basis_sums[b, k] * basis_sums[b, k]
        denominator = counts[b] - square
        if denominator > max(smallest, smallest_share * counts[b]):
            for k in range(effects.shape[1]):
                effects[b, k] = outcome_sums[b, k] / denominator
        else:
            effects[b, :] = np.nan


@njit(nogil=True, cache=True)
def fill_scores(sums, each, smallest_share, z):  # type: ignore[no-untyped-def]
    """Write ``a / sqrt(w - |d|^2)`` of each resample and gene; 0 where next to no variance is left.

    ``sums`` (resamples, columns) have a, w and d of a gene, ``each`` columns, then the next gene's;
    ``z`` (resamples, genes).
    """
    for b in range(z.shape[0]):
        for gene in range(z.shape[1]):
            begin = gene * each
            weight = sums[b, begin + 1]
            variance = weight
            for k in range(begin + 2, begin + each):
                variance -= sums[b, k] * sums[b, k]
            varies = variance > smallest_share * weight
            z[b, gene] = sums[b, begin] / np.sqrt(variance) if varies else 0.0


@njit(nogil=True, cache=True)
def set_near(null, observed, tie):  # type: ignore[no-untyped-def]
    """Set what differs from +-observed by at most ``tie`` of it to that, in (resamples, programs).

    NaN stays.
    """
    for b in range(null.shape[0]):
        for k in range(null.shape[1]):
            size = abs(observed[k])
            if abs(abs(null[b, k]) - size) <= tie * size:
                null[b, k] = np.copysign(size, null[b, k])


@njit(nogil=True, cache=True)
def count_extreme(null, observed, side, counts):  # type: ignore[no-untyped-def]
    """Count the resamples of ``null`` (resamples, programs) that are as extreme as observed.

    ``side`` is 1 for as high, -1 for as low, 0 for as large in absolute value.
    """
    for b in range(null.shape[0]):
        for k in range(counts.shape[0]):
            if side == 0:
                counts[k] += abs(null[b, k]) >= abs(observed[k])
            elif side > 0:
                counts[k] += null[b, k] >= observed[k]
            else:
                counts[k] += null[b, k] <= observed[k]
