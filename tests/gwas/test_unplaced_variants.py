"""Variants on chromosome 0, of which nobody knows the place."""

from dataclasses import replace

import numpy as np
import pytest

from plait import gwas
from plait.cli.main import main
from plait.data.phenotypes import SampleTable
from plait.errors import NotAvailableError
from plait.gwas.regional import locus_around
from tests.gwas.conftest import InMemory


def study(name):
    random = np.random.default_rng(4)
    calls = random.integers(0, 3, size=(120, 200))
    trait = random.normal(size=200) + 0.3 * calls[::20].sum(axis=0)
    source = InMemory(calls, chromosomes=np.repeat([name, "1", "2"], 40))
    return source, SampleTable(source.samples, ("y",), trait[:, None])


def key(found, row):
    return ":".join(str(getattr(found, name)[row]) for name in ("chrom", "pos", "oa", "ea"))


@pytest.mark.parametrize("model", ["mixed", "whole-genome"])
def test_they_are_left_out_together_as_those_of_a_chromosome(model):
    """The place of each is unknown, so that all of them are taken for neighbours."""
    found, other = (gwas.scan(*study(name), model=model) for name in ("0", "9"))
    np.testing.assert_array_equal(found.log10p, other.log10p)
    assert np.isfinite(found.log10p).all()
    assert found.log10p.min() < -4


def test_there_is_nothing_around_them(tmp_path, monkeypatch, capsys):
    """Their numbers are no bases; variants with a place are drawn all the same."""
    monkeypatch.chdir(tmp_path)
    found = gwas.scan(*study("0"))
    unplaced, placed = key(found, 0), key(found, 60)
    with pytest.raises(NotAvailableError, match=r"is unplaced \(chromosome 0, position \d+\)"):
        locus_around(found, lead=unplaced)
    assert locus_around(found, lead=placed).chrom == "1"
    found.save("associations.zarr")
    command = ["gwas", "region", ".", "--out", "region.png", "--lead"]
    assert main([*command, unplaced]) == 2
    assert "whose place is known (--lead ID)" in capsys.readouterr().err
    assert not (tmp_path / "region.png").exists()
    assert main([*command, placed]) == 0


def test_position_0_is_no_place():
    found = gwas.scan(*study("3"))
    nowhere = replace(found, pos=np.where(np.arange(120) == 5, 0, found.pos))
    with pytest.raises(NotAvailableError, match=r"\(chromosome 3, position 0\)"):
        locus_around(nowhere, lead=key(nowhere, 5))
