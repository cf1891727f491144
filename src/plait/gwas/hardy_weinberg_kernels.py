"""Compiled loops of the exact Hardy-Weinberg test of both sexes: arrays in, arrays out."""

import numpy as np

from plait.numerics.compiled import njit

_AS_LIKELY = 1e-7
"""Outcomes whose log probabilities differ by less are equally likely."""
_NEGLIGIBLE = 45.0
"""Outcomes less likely than the observed one by this factor (its log) do not add to the sum."""


@njit(nogil=True, cache=True)
def exact_hardy_weinberg_x(m0, m1, f0, f1, f2, log_factorial, out):  # type: ignore[no-untyped-def]
    """Fill p-values of Graffelman and Weir (2016), eq. 4, for variants of chromosome X.

    ``m0`` and ``m1`` are males, ``f0``, ``f1`` and ``f2`` females, with so many copies of an
    allele; ``log_factorial`` those of 0, 1, ... up to the number of alleles.
    """
    lf, log_2 = log_factorial, np.log(2.0)
    for j in range(len(m0)):
        males, females = m0[j] + m1[j], f0[j] + f1[j] + f2[j]
        copies, alleles = m1[j] + f1[j] + 2 * f2[j], males + 2 * females
        if copies == 0 or copies == alleles:
            out[j] = 1.0
            continue
        constant = lf[copies] + lf[alleles - copies] + lf[males] + lf[females] - lf[alleles]
        observed = constant + f1[j] * log_2
        observed -= lf[m0[j]] + lf[m1[j]] + lf[f0[j]] + lf[f1[j]] + lf[f2[j]]
        lowest = max(0, copies - 2 * females)
        highest = min(males, copies)
        likeliest = min(max(copies * males // alleles, lowest), highest)
        total = 0.0
        for side in range(2):
            m = likeliest + side
            while lowest <= m <= highest:
                of_males = constant - lf[m] - lf[males - m]
                rest = copies - m
                peak = rest * (2 * females - rest) // max(2 * females, 1)
                peak += (peak ^ rest) & 1
                largest = -np.inf
                for direction in range(2):
                    h = peak + 2 * direction
                    while 0 <= h <= min(rest, 2 * females - rest):
                        a = (rest - h) // 2
                        value = of_males + h * log_2 - lf[a] - lf[h] - lf[females - h - a]
                        largest = max(largest, value)
                        if value <= observed + _AS_LIKELY:
                            total += np.exp(value)
                        if value < observed - _NEGLIGIBLE:
                            break
                        h += 2 if direction == 1 else -2
                if largest < observed - _NEGLIGIBLE:
                    break
                m += 1 if side == 1 else -1
        out[j] = min(total, 1.0)
