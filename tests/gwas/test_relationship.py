"""Relationships of more samples than one panel holds, against the direct product."""

import numpy as np
import pytest

from plait.errors import InputError
from plait.gwas import relationship_matrix
from tests.gwas.conftest import InMemory, draw_calls


@pytest.fixture(scope="module")
def many():
    random = np.random.default_rng(3)
    return InMemory(draw_calls(random, 2500, 700, 0.02), chromosomes=["1"] * 2200 + ["2"] * 300)


def vanraden(calls):
    calls = calls.astype(float)
    calls[calls < 0] = np.nan
    f = np.nanmean(calls, axis=1) / 2
    w = np.nan_to_num(calls - 2 * f[:, None])
    return w.T @ w / (2 * f * (1 - f)).sum()


def test_against_the_direct_product(many):
    found = relationship_matrix(many)
    np.testing.assert_allclose(found.matrix(), vanraden(many.calls), atol=1e-6)
    np.testing.assert_allclose(found.matrix("2"), vanraden(many.calls[:2200]), atol=1e-6)
    np.testing.assert_array_equal(found.matrix(), found.matrix().T)


def test_a_chromosome_in_two_runs(many):
    split = InMemory(many.calls, chromosomes=["1"] * 1000 + ["2"] * 300 + ["1"] * 1200)
    found = relationship_matrix(split)
    assert found.n_variants.tolist() == [2200, 300]
    without_two = np.delete(many.calls, np.s_[1000:1300], axis=0)
    np.testing.assert_allclose(found.matrix("2"), vanraden(without_two), atol=1e-6)


def test_calls_and_the_same_dosages(many):
    class Dosages(InMemory):
        kind = "dosage"

    chosen = np.arange(699, 0, -3)
    expected = relationship_matrix(many, samples=chosen, min_frequency=0.2)
    found = relationship_matrix(Dosages(many.calls), samples=chosen, min_frequency=0.2)
    assert found.n_variants.sum() == expected.n_variants.sum() < 2300
    np.testing.assert_allclose(found.matrix(), expected.matrix(), atol=1e-6)


@pytest.mark.parametrize("missing", [0.0, 0.3, None])
def test_calls_that_are_missing_count_as_the_mean(missing):
    random = np.random.default_rng(6)
    calls = draw_calls(random, 9000, 60, missing or 0.0)
    if missing is None:  # in some blocks many, in others few
        calls[random.random(calls.shape) < np.linspace(0, 0.2, 9000)[:, None]] = -1
    calls[:, 7] = -1  # nothing is known of a sample
    found = relationship_matrix(InMemory(calls)).matrix()
    np.testing.assert_allclose(found, vanraden(calls), atol=3e-7)
    np.testing.assert_allclose(found[7], 0.0, atol=3e-7)


def test_threads_do_not_change_a_bit(many):
    alone = relationship_matrix(many, threads=1)
    np.testing.assert_array_equal(relationship_matrix(many, threads=3).sums, alone.sums)


def test_nothing_left_to_relate_by():
    random = np.random.default_rng(4)
    calls = draw_calls(random, 30, 200)
    calls[20:] = 0
    found = relationship_matrix(InMemory(calls, chromosomes=["1"] * 20 + ["2"] * 10))
    with pytest.raises(InputError, match="once chromosome '1' is left out"):
        found.matrix("1")
