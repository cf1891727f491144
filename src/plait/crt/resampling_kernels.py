"""Compiled loops that draw treated cells and add up their rows.

A draw is a hit: a cell and the resample (of the current block) in which it is treated. Samplers
fill buffers with hits until their random numbers are used up and go on where they stopped, so that
neither index lists nor a matrix of treated cells is ever held.
"""

import numpy as np

from plait.numerics.compiled import njit


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
def stratified_hits(members, starts, treated, resamples, uniforms, place, cells, slots):  # type: ignore[no-untyped-def]
    """Draw treated cells without replacement within strata until random numbers run out.

    Strata are outermost, so that the rows of one stratum stay near while all resamples of the block
    draw from it. A draw is the beginning of a Fisher-Yates shuffle of the stratum's part of
    ``members``; any order that earlier draws left is as good a start as another.

    ``place`` holds the stratum, the resample and the position where to go on. Returns the number of
    hits written, one for each random number except at the end.
    """
    stratum, slot, position = place[0], place[1], place[2]
    n = 0
    while stratum < treated.shape[0] and n < uniforms.shape[0]:
        if position == treated[stratum]:
            position = 0
            slot += 1
            if slot == resamples or treated[stratum] == 0:
                slot = 0
                stratum += 1
            continue
        first = starts[stratum] + position
        # 53 random bits: the chances of two cells differ by less than cells / 2^53.
        other = first + np.int64(uniforms[n] * (starts[stratum + 1] - first))
        chosen = members[other]
        members[other] = members[first]
        members[first] = chosen
        cells[n] = chosen
        slots[n] = slot
        n += 1
        position += 1
    place[0], place[1], place[2] = stratum, slot, position
    return n


@njit(nogil=True, cache=True)
def add_hits(table, cells, slots, n, sums, counts):  # type: ignore[no-untyped-def]
    """Add each hit's row of ``table`` (cells, columns) to its resample's row of ``sums``."""
    # Plain loops over contiguous columns: nests of short loops are not vectorised.
    columns = table.shape[1]
    i = 0
    while i < n:
        slot = slots[i]
        if i + 3 < n and slots[i + 1] == slot and slots[i + 2] == slot and slots[i + 3] == slot:
            # Draws within strata come in such runs; the sums are then read and written once.
            a, b, c, d = cells[i], cells[i + 1], cells[i + 2], cells[i + 3]
            for column in range(columns):
                first = np.float64(table[a, column]) + np.float64(table[b, column])
                second = np.float64(table[c, column]) + np.float64(table[d, column])
                sums[slot, column] += first + second
            counts[slot] += 4
            i += 4
        else:
            cell = cells[i]
            for column in range(columns):
                sums[slot, column] += table[cell, column]
            counts[slot] += 1
            i += 1
