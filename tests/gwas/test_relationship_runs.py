"""Relationships where chromosomes alternate in the file."""

import numpy as np
import pytest

from plait.gwas import relationship, relationship_matrix
from tests.gwas.conftest import InMemory, draw_calls


@pytest.mark.parametrize("method", ["vanraden", "gcta", "standardised"])
def test_runs_of_a_chromosome_are_put_together(method, monkeypatch):
    """The same bits as of a file in order, and a matrix for each chromosome, not for each run."""
    random = np.random.default_rng(9)
    calls = draw_calls(random, 3000, 90, missing=0.02)
    labels = np.where(np.arange(3000) % 7 == 0, "0", "1")
    order = np.argsort(labels == "1", kind="stable")
    expected = relationship_matrix(InMemory(calls[order], chromosomes=labels[order]), method)
    sums, plain = [], relationship._total

    def counted(*given):
        total = plain(*given)
        begin = total.begin
        total.begin = lambda lacking: (sums.append(lacking), begin(lacking))
        return total

    monkeypatch.setattr(relationship, "_total", counted)
    alternating = InMemory(calls, chromosomes=labels)
    assert len(alternating.variants.chromosomes) > 800
    found = relationship_matrix(alternating, method)
    assert len(sums) == 2
    assert found.chromosomes == expected.chromosomes == ("0", "1")
    np.testing.assert_array_equal(found.sums, expected.sums)
    np.testing.assert_array_equal(found.n_variants, expected.n_variants)
    for without in (None, "0", "1"):
        np.testing.assert_array_equal(found.matrix(without), expected.matrix(without))
