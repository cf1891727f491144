"""Traits that tell one another: how much, and what is said of them."""

import warnings

import numpy as np
import pytest

from plait.data.phenotypes import SampleTable
from plait.errors import DataWarning
from plait.gwas import scan
from plait.gwas.trait_dependence import told_traits
from plait.io import open_genotypes, write_effects
from plait.io.plink import write_bed
from plait.numerics.linalg import multiple_correlations
from plait.simulate import cohort

NAMES = ("hdl", "tg", "tc", "bmi", "ldl")


@pytest.fixture(scope="module")
def lipids():
    """LDL is computed from the other lipids, as by Friedewald's formula."""
    random = np.random.default_rng(1)
    hdl, tg, tc, bmi = random.normal(size=(4, 300))
    return np.column_stack([hdl, tg, tc + hdl, bmi, tc - tg / 5])


def test_the_share_is_that_of_a_regression(lipids):
    noisy = lipids + np.random.default_rng(2).normal(size=lipids.shape)
    told = multiple_correlations(np.corrcoef(noisy, rowvar=False))
    for k in range(noisy.shape[1]):
        others = np.column_stack([np.ones(len(noisy)), np.delete(noisy, k, axis=1)])
        left = noisy[:, k] - others @ np.linalg.lstsq(others, noisy[:, k], rcond=None)[0]
        assert told[k] == pytest.approx(1 - left.var() / noisy[:, k].var(), abs=1e-12)
    assert told_traits(np.corrcoef(noisy, rowvar=False), NAMES) == []


@pytest.fixture(scope="module")
def scanned(lipids, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lipids")
    people = cohort(n_samples=300, n_variants=200, n_causal=2, seed=3)
    write_bed(folder / "g.bed", people.blocks(), people.variants, people.samples)

    def of(values, names):
        return scan(open_genotypes(folder / "g.bed"), SampleTable(people.samples, names, values))

    return of


def test_effects_of_traits_that_tell_one_another_warn(scanned, lipids, tmp_path):
    result = scanned(lipids, NAMES)
    said = "^traits 'hdl', 'tg', 'tc', 'ldl' tell one another: .* Leave one of them out.$"
    with pytest.warns(DataWarning, match=said):
        effects = result.to_effects()
    with pytest.warns(DataWarning, match=said):
        result.write_effects(tmp_path / "e.zarr")
    assert effects.contexts == NAMES
    write_effects([effects], tmp_path / "own.zarr")  # who made them was told


def test_other_traits_do_not(scanned, lipids):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scanned(lipids[:, :4], NAMES[:4]).to_effects()


def test_what_other_samples_have_is_not_told(scanned, lipids):
    """The same trait in halves of the samples with few in common is evidence of its own."""
    twice = np.column_stack([lipids[:, 0], lipids[:, 0]])
    twice[:140, 0] = np.nan
    twice[160:, 1] = np.nan
    result = scanned(twice, ("first", "second"))
    assert result.V0[0, 1] == pytest.approx(20 / 160, abs=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result.to_effects()
