"""Quality of genotypes against counting by hand."""

import numpy as np
import pytest

from plait.errors import InputError
from plait.gwas import GenotypeQuality, genotype_quality, hardy_weinberg_p
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
    assert "2,300 variants" in text
    assert "2 monomorphic" in text
    assert "1 with F more than 3 standard deviations" in text
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
    assert "F: median" not in genotype_quality(only_x).summary()
