"""Quality of genotypes against counting by hand."""

import numpy as np
import pytest

from plait.errors import InputError, OptionError
from plait.gwas import GenotypeQuality, genotype_quality, hardy_weinberg_p, hardy_weinberg_x_p
from plait.io import SelectedGenotypes
from tests.gwas.conftest import InMemory, draw_calls


@pytest.fixture(scope="module")
def source():
    random = np.random.default_rng(2)
    calls = draw_calls(random, 2300, 61, missing=0.05)
    calls[7] = 0
    calls[8] = -1
    calls[:, 60] = np.where(calls[:, 60] == 1, 2, calls[:, 60])  # no heterozygotes
    return InMemory(calls, chromosomes=["1"] * 1200 + ["2"] * 900 + ["chrX"] * 200)


def test_counts_by_hand(source):
    found = genotype_quality(source)
    calls = source.calls
    np.testing.assert_allclose(found.sample_call_rate, (calls >= 0).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.variant_call_rate, (calls >= 0).mean(axis=1), rtol=1e-12)
    for copies, counted in enumerate((found.n0, found.n1, found.n2)):
        np.testing.assert_array_equal(counted, (calls == copies).sum(axis=1))
    p = hardy_weinberg_p(found.n0, found.n1, found.n2)
    np.testing.assert_array_equal(found.hardy_weinberg[:2100], p[:2100])
    assert np.isnan(found.hardy_weinberg[2100:]).all()
    observed, expected = np.zeros(61), np.zeros(61)
    for row in calls[:2100]:
        known = row >= 0
        n = known.sum()
        if not n or len(set(row[known])) == 1:
            continue
        f = row[known].sum() / (2 * n)
        observed += row == 1
        expected += known * 2 * f * (1 - f) * 2 * n / (2 * n - 1)
    np.testing.assert_array_equal(found.heterozygous, observed)
    np.testing.assert_allclose(found.expected_heterozygous, expected, rtol=1e-12)
    np.testing.assert_allclose(found.inbreeding, 1 - observed / expected, atol=1e-12)
    assert found.inbreeding[60] == 1
    assert abs(np.median(found.inbreeding)) < 0.05


def test_threads_change_nothing(source):
    one, three = (genotype_quality(source, threads=n) for n in (1, 3))
    for name in ("sample_call_rate", "expected_heterozygous", "heterozygous", "hardy_weinberg"):
        np.testing.assert_array_equal(getattr(one, name), getattr(three, name))


def test_tables_summary_and_store(source, tmp_path):
    found = genotype_quality(source)
    variants, samples = found.variant_table(), found.sample_table()
    assert variants.columns[:5] == ["chrom", "pos", "id", "oa", "ea"]
    assert variants["hwe_p"].null_count() == 200
    assert variants["eaf"].null_count() == 1
    np.testing.assert_array_equal(variants["mac"].to_numpy(), found.counts.minor_count)
    assert samples["IID"].to_list() == source.samples.tolist()
    text = found.summary()
    assert "2,300 variants, 61 samples): call rates from 0.000 of variants" in text
    found.save(tmp_path / "q.zarr")
    again = GenotypeQuality.load(tmp_path / "q.zarr")
    assert again.variant_table().equals(variants)
    assert again.sample_table().equals(samples)
    assert again.to_frame().height == 61


def test_nothing_to_count():
    with pytest.raises(InputError, match="nothing to count"):
        genotype_quality(InMemory(np.zeros((0, 5), dtype=np.int8)))
    only_x = InMemory(np.ones((3, 4), dtype=np.int8), chromosomes=["X"] * 3)
    assert np.isnan(genotype_quality(only_x).inbreeding).all()


def test_hardy_weinberg_on_x_is_of_females(source):
    sexes = np.array([1, 2, 0] * 20 + [2])
    source = InMemory(source.calls, chromosomes=["1"] * 1200 + ["2"] * 900 + ["chrX"] * 200)
    source.sexes = sexes
    on_x = source.calls[2100:]
    counts = {
        sex: [(on_x[:, sexes == sex] == copies).sum(axis=1) for copies in range(3)]
        for sex in (1, 2)
    }
    females = genotype_quality(source)
    np.testing.assert_array_equal(females.hardy_weinberg[2100:], hardy_weinberg_p(*counts[2]))
    both = genotype_quality(source, hardy_weinberg_x="both", threads=2)
    # Heterozygous males are no males of either allele.
    np.testing.assert_array_equal(
        both.hardy_weinberg[2100:], hardy_weinberg_x_p(counts[1][0], counts[1][2], *counts[2])
    )
    np.testing.assert_array_equal(both.hardy_weinberg[:2100], females.hardy_weinberg[:2100])
    # The sexes follow the samples.
    some = np.arange(60, 20, -1)
    part = SelectedGenotypes(source, np.arange(2050, 2300), some)
    own = InMemory(source.calls[2050:][:, some], chromosomes=["2"] * 50 + ["chrX"] * 200)
    own.sexes = sexes[some]
    np.testing.assert_array_equal(
        genotype_quality(part).hardy_weinberg, genotype_quality(own).hardy_weinberg
    )
    with pytest.raises(OptionError, match="'females' or 'both'"):
        genotype_quality(source, hardy_weinberg_x="graffelman")
