"""The exact test against enumeration of all outcomes."""

from fractions import Fraction
from math import comb, factorial

import numpy as np
import pytest

from plait.errors import InputError, ShapeError
from plait.gwas import hardy_weinberg_p, hardy_weinberg_x_p


def probability(n, rare, h):
    """Chance of h heterozygotes among n samples with ``rare`` copies of one allele."""
    a, b = (rare - h) // 2, n - h - (rare - h) // 2
    ways = factorial(n) // (factorial(a) * factorial(h) * factorial(b)) * 2**h
    return Fraction(ways, comb(2 * n, rare))


def by_enumeration(n0, n1, n2, mid_p):
    n = n0 + n1 + n2
    rare = 2 * min(n0, n2) + n1
    outcomes = [probability(n, rare, h) for h in range(rare % 2, min(rare, 2 * n - rare) + 1, 2)]
    own = probability(n, rare, n1)
    assert sum(outcomes) == 1
    tail = sum(p for p in outcomes if p <= own)
    return float(tail - (sum(p for p in outcomes if p == own) / 2 if mid_p else 0))


@pytest.mark.parametrize("mid_p", [False, True])
def test_all_small_tables(mid_p):
    tables = [
        (a, b, n - a - b) for n in range(1, 31) for a in range(n + 1) for b in range(n + 1 - a)
    ]
    n0, n1, n2 = np.array(tables).T
    found = hardy_weinberg_p(n0, n1, n2, mid_p)
    for table, p in zip(tables, found, strict=True):
        monomorphic = table[1] == 0 and 0 in (table[0], table[2])
        expected = 1.0 if monomorphic else by_enumeration(*table, mid_p)
        assert p == pytest.approx(expected, rel=1e-12), table


def test_large_counts_and_symmetry():
    random = np.random.default_rng(0)
    counts = random.multinomial(200_000, [0.3, 0.45, 0.25], 50)
    p = hardy_weinberg_p(*counts.T)
    np.testing.assert_array_equal(p, hardy_weinberg_p(*counts.T[::-1]))
    assert ((p >= 0) & (p <= 1)).all()
    far = hardy_weinberg_p([50_000], [0], [50_000])
    assert 0 <= far[0] < 1e-300


def test_null_p_values_are_not_too_small():
    random = np.random.default_rng(1)
    calls = random.binomial(2, 0.3, (4000, 200))
    counts = [(calls == copies).sum(axis=1) for copies in range(3)]
    p = hardy_weinberg_p(*counts)
    for level in (0.01, 0.05, 0.2):
        assert (p <= level).mean() <= level + 5 * np.sqrt(level / 4000)


def test_bad_counts():
    with pytest.raises(ShapeError):
        hardy_weinberg_p([1, 2], [1], [3])
    with pytest.raises(InputError, match="negative"):
        hardy_weinberg_p([1], [-1], [3])


def both_sexes(m0, m1, f0, f1, f2):
    """Graffelman and Weir's sum over all outcomes, in exact fractions."""
    males, females = m0 + m1, f0 + f1 + f2
    copies, alleles = m1 + f1 + 2 * f2, males + 2 * females
    outcomes = {}
    for m in range(males + 1):
        for h in range(females + 1):
            twice, odd = divmod(copies - m - h, 2)
            if odd or twice < 0 or twice + h > females:
                continue
            ways = 2**h * comb(males, m) * comb(females, h) * comb(females - h, twice)
            outcomes[m, h] = Fraction(ways, comb(alleles, copies))
    assert sum(outcomes.values()) == 1
    own = outcomes[m1, f1]
    return float(sum(p for p in outcomes.values() if p <= own))


def test_all_small_tables_of_both_sexes():
    tables = [
        (m0, males - m0, f0, f1, females - f0 - f1)
        for males in range(7)
        for females in range(8 - males)
        for m0 in range(males + 1)
        for f0 in range(females + 1)
        for f1 in range(females - f0 + 1)
    ]
    found = hardy_weinberg_x_p(*np.array(tables).T)
    for table, p in zip(tables, found, strict=True):
        assert p == pytest.approx(both_sexes(*table) if sum(table) else 1.0, rel=1e-11), table


@pytest.mark.parametrize(
    "table", [(20, 3, 31, 9, 0), (3, 30, 9, 9, 20), (40, 0, 10, 20, 10), (0, 0, 12, 30, 8)]
)
def test_larger_tables_of_both_sexes(table):
    found = hardy_weinberg_x_p(*([count] for count in table))[0]
    assert found == pytest.approx(both_sexes(*table), rel=1e-10)
    if table[:2] == (0, 0):  # without males it is the test of autosomes
        assert found == pytest.approx(hardy_weinberg_p(*([n] for n in table[2:]))[0], rel=1e-10)


def test_both_sexes_find_what_females_cannot():
    # In Hardy-Weinberg proportions among females, and rarer among males.
    assert hardy_weinberg_p([250], [500], [250])[0] > 0.9
    assert hardy_weinberg_x_p([900], [100], [250], [500], [250])[0] < 1e-90
    random = np.random.default_rng(4)
    males, females = random.binomial(1, 0.3, (3000, 150)), random.binomial(2, 0.3, (3000, 120))
    counts = [(males == k).sum(axis=1) for k in (0, 1)]
    counts += [(females == k).sum(axis=1) for k in (0, 1, 2)]
    p = hardy_weinberg_x_p(*counts)
    for level in (0.01, 0.05, 0.2):
        assert (p <= level).mean() <= level + 5 * np.sqrt(level / 3000)
    np.testing.assert_allclose(p, hardy_weinberg_x_p(*(counts[k] for k in (1, 0, 4, 3, 2))))


def test_bad_counts_of_both_sexes():
    with pytest.raises(ShapeError):
        hardy_weinberg_x_p([1, 2], [1], [3], [1], [1])
    with pytest.raises(InputError, match="negative"):
        hardy_weinberg_x_p([1], [-1], [3], [1], [1])
