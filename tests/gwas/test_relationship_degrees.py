"""Relatives are found, and chance is not taken for them."""

import numpy as np
import pytest

from plait.errors import OptionError
from plait.gwas import close_relatives, relationship_matrix
from plait.simulate import cohort
from tests.gwas.conftest import InMemory, draw_calls

CHROMOSOMES = 20


def haplotypes(random, n, n_variants, ancestors=300):
    """Draw mosaics of the haplotypes of ancestors: linkage, and stretches that are shared."""
    frequency = random.uniform(0.05, 0.95, (n_variants, 1))
    old = (random.random((n_variants, ancestors)) < frequency).astype(np.int8)
    switch = random.random((n_variants, n)) < 0.1
    switch[:: n_variants // CHROMOSOMES] = True
    source, out = np.zeros(n, dtype=int), np.empty((n_variants, n), dtype=np.int8)
    for j in range(n_variants):
        source[switch[j]] = random.integers(0, ancestors, switch[j].sum())
        out[j] = old[j, source]
    return out


def gamete(random, parent):
    """Recombine the two haplotypes of a parent: 1.5 crossovers on each chromosome."""
    n_variants = len(parent)
    switch = random.random(n_variants) < 1.5 * CHROMOSOMES / n_variants
    switch[:: n_variants // CHROMOSOMES] = random.random(CHROMOSOMES) < 0.5
    return parent[np.arange(n_variants), np.cumsum(switch) % 2]


def families(seed, n_founders, n_variants, n_families):
    """Drop genes: in each family two children, and of each of them a child with a founder.

    Returns calls, and twice the kinship of the pedigree.
    """
    random = np.random.default_rng(seed)
    founders = haplotypes(random, 2 * n_founders, n_variants)
    people = [founders[:, 2 * i : 2 * i + 2] for i in range(n_founders)]
    parents = [()] * n_founders

    def child(one, two):
        people.append(np.column_stack([gamete(random, people[p]) for p in (one, two)]))
        parents.append((one, two))
        return len(people) - 1

    for first in range(0, 4 * n_families, 4):
        one, two = child(first, first + 1), child(first, first + 1)
        child(one, first + 2)
        child(two, first + 3)
    kinship = 0.5 * np.eye(len(people))
    for i, pair in enumerate(parents):
        if pair:
            kinship[i, :i] = kinship[:i, i] = kinship[list(pair), :i].mean(axis=0)
    return np.column_stack([person.sum(axis=1) for person in people]), 2 * kinship


def of_halves(calls, method="vanraden"):
    return relationship_matrix(InMemory(calls), method, by_chromosome=False, halves=True)


@pytest.mark.parametrize("method", ["vanraden", "gcta"])
def test_families(method):
    calls, expected = families(seed=1, n_founders=120, n_variants=20_000, n_families=12)
    calls = calls.astype(np.int8)
    calls[np.random.default_rng(2).random(calls.shape) < 0.01] = -1
    found = close_relatives(of_halves(calls, method))
    of_pairs = expected[found.pairs[:, 0], found.pairs[:, 1]]
    assert (of_pairs > 0).all()
    for coefficient, degree in ((0.5, "first degree"), (0.25, "second degree")):
        there = (np.triu(expected, 1) == coefficient).sum()
        assert (of_pairs == coefficient).sum() == there > 50
        assert (found.degrees[of_pairs == coefficient] == degree).mean() > 0.85
    cousins = (np.triu(expected, 1) == 0.125).sum()
    # A cousin may share less than half-way to the next degree: then he is one of the fourth.
    assert (of_pairs == 0.125).sum() >= 0.6 * cousins > 0
    assert found.chance < 0.088 and not found.is_many
    assert f"{len(found.pairs)} pairs of 96 samples" in found.summary()
    assert "above 0.088)" in found.summary()


def test_unrelated_samples_raise_no_alarm():
    """Normal thresholds would take dozens of these pairs for relatives: their errors are not."""
    largest = []
    for seed in range(1, 9):
        calls = cohort(n_samples=150, n_variants=2000, n_causal=5, seed=seed).calls
        for method in ("vanraden", "gcta"):
            relationships = of_halves(calls, method)
            found = close_relatives(relationships)
            assert not len(found.pairs), (seed, method)
            assert found.summary().startswith("relatives: none (coefficient of relationship above")
            assert found.summary().endswith("less may be chance with these variants)")
            largest.append(np.tril(relationships.matrix(), -1).max())
    assert min(largest) > 0.25


def test_populations_are_not_called_families():
    random = np.random.default_rng(4)
    frequency = random.uniform(0.2, 0.8, (6000, 1))
    shift = 0.15 * random.standard_normal((6000, 1))
    parts = [np.clip(frequency + sign * shift, 0.02, 0.98) for sign in (1, -1)]
    calls = np.hstack([random.binomial(2, part, (6000, 60)) for part in parts]).astype(np.int8)
    found = close_relatives(of_halves(calls))
    assert found.is_many and "of populations or lines rather than families" in found.summary()
    same = (found.pairs < 60).all(axis=1) | (found.pairs >= 60).all(axis=1)
    assert same.all()


def test_few_of_another_population_are_not_called_a_family():
    random = np.random.default_rng(0)
    frequency = random.uniform(0.1, 0.9, 8000)
    parts = [(random.beta(19 * frequency, 19 * (1 - frequency)), n) for n in (100, 15)]
    calls = np.hstack([random.binomial(2, part[:, None], (8000, n)) for part, n in parts])
    found = close_relatives(of_halves(calls.astype(np.int8)))
    assert found.is_many and (found.pairs >= 100).all()


@pytest.mark.parametrize("method", ["vanraden", "gcta", "standardised"])
def test_samples_with_few_calls_are_not_taken_for_relatives(method):
    """Pairs of them err more by GCTA's method, also where all others do not."""
    calls = [draw_calls(np.random.default_rng(seed), 2000, 150) for seed in range(15)]
    for seed, drawn in enumerate(calls):
        drawn[:, :6][np.random.default_rng(100 + seed).random((2000, 6)) < 0.9] = -1
    found = [close_relatives(of_halves(drawn, method)) for drawn in calls]
    assert sum(len(each.pairs) for each in found) == 0
    assert max(each.chance for each in found) < 0.25


def test_duplicates_in_a_small_cohort():
    people = cohort(n_samples=100, n_variants=3000, n_causal=5, seed=1)
    calls = np.column_stack([people.calls, people.calls[:, :3]])
    found = close_relatives(of_halves(calls))
    assert sorted(map(tuple, found.pairs.tolist())) == [(0, 100), (1, 101), (2, 102)]
    assert (found.degrees == "identical").all()
    table = found.to_table()
    assert table.columns == ["sample1", "sample2", "coefficient", "degree"]
    assert set(table["sample2"]) == {"s100", "s101", "s102"}
    np.testing.assert_allclose(found.coefficients, 1, atol=1e-6)
    assert "3 identical; closest s" in found.summary()


def test_by_chromosome_and_without_an_order_of_samples():
    calls, _ = families(seed=3, n_founders=300, n_variants=4000, n_families=5)
    chromosomes = np.repeat([str(k) for k in range(CHROMOSOMES)], 4000 // CHROMOSOMES)
    found = close_relatives(relationship_matrix(InMemory(calls, chromosomes=chromosomes)))
    order = np.random.default_rng(0).permutation(calls.shape[1])
    moved = InMemory(calls[:, order], chromosomes=chromosomes)
    again = close_relatives(relationship_matrix(moved))
    assert len(found.pairs) > 20
    np.testing.assert_allclose(again.chance, found.chance, rtol=1e-5)
    back = {frozenset(order[pair].tolist()) for pair in again.pairs}
    assert back == {frozenset(pair) for pair in found.pairs.tolist()}
    np.testing.assert_array_equal(found.coefficients, np.sort(found.coefficients)[::-1])


def test_too_little_to_tell():
    calls = draw_calls(np.random.default_rng(0), 1, 60)
    found = close_relatives(of_halves(calls))
    assert found.chance == np.inf and not len(found.pairs)
    assert found.summary() == "relatives: not looked for, there are too few variants"
    assert found.to_table().height == 0
    whole = relationship_matrix(InMemory(draw_calls(np.random.default_rng(0), 50, 60)))
    assert close_relatives(whole).chance == np.inf  # one chromosome has no halves
    with pytest.raises(OptionError, match="by chromosome or by halves"):
        relationship_matrix(InMemory(calls), halves=True)
