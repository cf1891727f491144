"""Variants on chromosome 0, of which nobody knows the place."""

import numpy as np
import pytest

from plait import gwas
from plait.data.phenotypes import SampleTable
from tests.gwas.conftest import InMemory


def study(name):
    random = np.random.default_rng(4)
    calls = random.integers(0, 3, size=(120, 200))
    trait = random.normal(size=200) + 0.3 * calls[::20].sum(axis=0)
    source = InMemory(calls, chromosomes=np.repeat([name, "1", "2"], 40))
    return source, SampleTable(source.samples, ("y",), trait[:, None])


@pytest.mark.parametrize("model", ["mixed", "whole-genome"])
def test_they_are_left_out_together_as_those_of_a_chromosome(model):
    """The place of each is unknown, so that all of them are taken for neighbours."""
    found, other = (gwas.scan(*study(name), model=model) for name in ("0", "9"))
    np.testing.assert_array_equal(found.log10p, other.log10p)
    assert np.isfinite(found.log10p).all()
    assert found.log10p.min() < -4
