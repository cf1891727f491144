"""Principal components against dense algebra, and what must not change them."""

import numpy as np
import polars as pl
import pytest

from plait.data.phenotypes import SampleTable
from plait.data.variants import VariantTable
from plait.errors import (
    CapacityError,
    ConvergenceWarning,
    GenomeBuildError,
    InputError,
    LabelError,
    OptionError,
)
from plait.gwas import PrincipalComponents, ld_prune, principal_components
from plait.gwas.long_range_linkage import long_range_variants
from plait.gwas.structure import _choose_variants, _outside
from plait.io import read_covariates
from plait.io.genotypes import SelectedGenotypes
from tests.gwas.conftest import InMemory

REST = {"r2": None, "min_call_rate": 0.0}


@pytest.fixture(scope="module")
def population():
    """Three groups of samples with different frequencies, and missing genotypes."""
    random = np.random.default_rng(5)
    common = random.uniform(0.2, 0.8, 2500)
    calls = np.empty((2500, 240), dtype=np.int8)
    for group, spread in enumerate((0.05, 0.1, 0.15)):
        frequency = np.clip(common + spread * random.standard_normal(2500), 0.02, 0.98)
        part = slice(80 * group, 80 * (group + 1))
        calls[:, part] = random.binomial(2, frequency[:, None], (2500, 80))
    calls[random.random(calls.shape) < 0.02] = -1
    return InMemory(calls, chromosomes=["1"] * 1500 + ["2"] * 1000)


def dense(source, used):
    calls = source.calls[used].astype(float)
    calls[calls < 0] = np.nan
    f = np.nanmean(calls, axis=1, keepdims=True) / 2
    z = np.nan_to_num((calls - 2 * f) / np.sqrt(2 * f * (1 - f)))
    return z.T @ z / len(z)


@pytest.mark.parametrize(("method", "k"), [("exact", 6), ("randomised", 6)])
def test_dense_eigenvectors(population, method, k):
    found = principal_components(population, k, method, **REST)
    K = dense(population, found.variants)
    values, vectors = np.linalg.eigh(K)
    values, vectors = values[::-1][:k], vectors[:, ::-1][:, :k]
    np.testing.assert_allclose(found.eigenvalues, values, rtol=1e-5)
    np.testing.assert_allclose(found.variance_explained, values / np.trace(K), rtol=1e-5)
    same = np.abs((found.scores * vectors).sum(axis=0)) / np.sqrt(239)
    np.testing.assert_allclose(same[:2], 1, atol=1e-8)
    np.testing.assert_allclose(same, 1, atol=1e-5)
    np.testing.assert_allclose(found.scores.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(found.scores.var(axis=0, ddof=1), 1, rtol=1e-12)
    assert (found.scores[np.abs(found.scores).argmax(axis=0), np.arange(k)] > 0).all()
    # Two components tell three groups apart.
    means = [found.scores[80 * g : 80 * (g + 1), :2].mean(axis=0) for g in range(3)]
    assert min(np.linalg.norm(means[a] - means[b]) for a, b in ((0, 1), (0, 2), (1, 2))) > 0.5


@pytest.mark.parametrize("method", ["exact", "randomised"])
def test_what_changes_nothing(population, method):
    found = principal_components(population, 3, method, threads=1, **REST)
    again = principal_components(population, 3, method, threads=3, **REST)
    np.testing.assert_array_equal(found.scores, again.scores)
    flipped = np.where(population.calls < 0, -1, 2 - population.calls)
    other = principal_components(InMemory(flipped), 3, method, **REST)
    np.testing.assert_allclose(other.scores, found.scores, atol=1e-3)
    order = np.random.default_rng(1).permutation(240)
    moved = principal_components(population, 3, method, samples=order, **REST)
    np.testing.assert_array_equal(moved.samples, population.samples[order])
    np.testing.assert_allclose(moved.scores[:, :2], found.scores[order][:, :2], atol=1e-3)
    np.testing.assert_allclose(moved.eigenvalues, found.eigenvalues, rtol=1e-4)


def test_randomised_with_another_seed_and_small_memory(population):
    first = principal_components(population, 2, "randomised", **REST)
    second = principal_components(population, 2, "randomised", seed=9, memory="1MiB", **REST)
    np.testing.assert_allclose(first.scores, second.scores, atol=1e-3)
    assert (first.residuals < 1e-4).all()
    assert (second.residuals < 1e-4).all()


def test_fewer_variants_than_samples(population):
    """The Krylov space is exhausted: the rank is 15."""
    few = InMemory(population.calls[:15])
    exact = principal_components(few, 4, "exact", **REST)
    random = principal_components(few, 4, "randomised", **REST)
    np.testing.assert_allclose(random.eigenvalues, exact.eigenvalues, rtol=1e-5)
    np.testing.assert_allclose(random.scores, exact.scores, atol=1e-3)


def test_inaccurate_components_are_told(population, monkeypatch):
    monkeypatch.setattr("plait.gwas.structure._MAX_PASSES", 1)
    with pytest.warns(ConvergenceWarning, match="from PC3 on|from PC2 on|from PC1 on"):
        principal_components(population, 10, "randomised", **REST)


RULES = (0.2, 1000.0, 0.05, 0.9, None)


def test_which_variants_are_used(population):
    calls = population.calls.copy()
    calls[3, :60] = -1
    calls[4] = np.random.default_rng(0).binomial(2, 0.01, 240)
    calls[11:20] = calls[10]
    source = InMemory(calls, chromosomes=["1"] * 1500 + ["2"] * 1000)
    used = _choose_variants(source, _outside(source, ["2:100-", "1:1-3"]), *RULES)
    assert not {0, 1, 2, 3, 4} & set(used.tolist())
    assert used.max() < 1500
    assert len(set(range(10, 20)) & set(used.tolist())) <= 1
    minor = SelectedGenotypes(source, used).counts().minor_count
    assert minor.min() >= 0.05 * 2 * 200
    everything = _choose_variants(source, np.arange(2500), 0.2, 1000.0, 0.0, 0.0, None)
    np.testing.assert_array_equal(everything, ld_prune(source, r2=0.2))
    found = principal_components(source, 2, exclude_regions=["2"], min_call_rate=0.9)
    np.testing.assert_array_equal(found.variants, _choose_variants(source, np.arange(1500), *RULES))
    assert "  variants in 2, left out: 1,000\n  PC1" in found.summary()


GENES = {  # within the regions: positions in GRCh37 and GRCh38
    ("2", "LCT"): (136_545_410, 135_787_850),
    ("6", "HLA-DRB1"): (32_546_546, 32_578_769),
    ("8", "GATA4"): (11_561_717, 11_704_202),
    ("12", "SH2B3"): (111_843_752, 111_405_948),
}
OUTSIDE = {  # TP53, APOE and PCSK9
    ("17", "TP53"): (7_571_720, 7_668_402),
    ("19", "APOE"): (45_409_039, 44_905_796),
    ("1", "PCSK9"): (55_505_221, 55_039_447),
}


@pytest.mark.parametrize("prefix", ["", "chr"])
@pytest.mark.parametrize("build", ["GRCh37", "GRCh38"])
def test_long_range_linkage_of_human_genomes(prefix, build):
    places = [(chrom, at[build == "GRCh38"]) for (chrom, _), at in (GENES | OUTSIDE).items()]
    chrom, pos = zip(*places, strict=True)
    table = VariantTable.of([prefix + name for name in chrom], pos, ["A"] * 7, ["G"] * 7)
    assert long_range_variants(table, build).tolist() == [True] * 4 + [False] * 3


def test_long_range_linkage_is_left_out_of_components(population):
    source = InMemory(population.calls, chromosomes=["8"] * 1500 + ["9"] * 1000)
    pos = np.arange(2500) * 10_000 + 1
    source._variants = VariantTable.of(["8"] * 1500 + ["9"] * 1000, pos, ["A"] * 2500, ["G"] * 2500)
    every = (None, *RULES[1:])
    used = _choose_variants(source, _outside(source, ["GRCh38"]), *every)
    whole = _choose_variants(source, np.arange(2500), *every)
    np.testing.assert_array_equal(used, whole[(pos[whole] < 8.1e6) | (pos[whole] > 12.2e6)])
    np.testing.assert_array_equal(_outside(source, ["hg38"]), _outside(source, ["GRCh38"]))
    source._variants = VariantTable.of(["8"] * 2500, pos * 60, ["A"] * 2500, ["G"] * 2500)
    with pytest.raises(GenomeBuildError, match="not on GRCh37: position 8:"):
        principal_components(source, 2, exclude_regions=["GRCh37"])


def test_table_covariates_and_store(population, tmp_path):
    found = principal_components(population, 3, **REST)
    assert found.method == "exact"
    table = found.to_table()
    assert table.columns == ["IID", "PC1", "PC2", "PC3"]
    table.write_csv(tmp_path / "pcs.csv")
    read = read_covariates(tmp_path / "pcs.csv")
    np.testing.assert_array_equal(read.values, found.scores)
    np.testing.assert_array_equal(read.samples, found.samples)
    others = SampleTable(["s5", "nobody", "s2"], ("age",), np.array([[1.0], [2.0], [3.0]]))
    both = found.to_covariates(others)
    assert both.names == ("age", "PC1", "PC2", "PC3")
    assert both.samples.tolist() == ["s5", "s2"]
    np.testing.assert_array_equal(both.values[:, 0], [1, 3])
    np.testing.assert_array_equal(both.values[:, 1:], found.scores[[5, 2]])
    np.testing.assert_array_equal(found.to_covariates().values, found.scores)
    with pytest.raises(InputError, match="no sample"):
        found.to_covariates(SampleTable(["x"], ("age",), np.ones((1, 1))))
    found.save(tmp_path / "pcs.zarr")
    again = PrincipalComponents.load(tmp_path / "pcs.zarr")
    np.testing.assert_array_equal(again.scores, found.scores)
    assert again.components == found.components
    assert again.summary() == found.summary()
    assert "PC1" in found.summary()
    assert repr(found) == (
        "PrincipalComponents(3 components of 240 samples, from "
        f"{len(found.variants):,} variants; exact)"
    )
    assert isinstance(found.to_frame(), pl.DataFrame)


def test_errors(population):
    with pytest.raises(OptionError, match="method"):
        principal_components(population, 2, "svd")
    for k in (0, 240):
        with pytest.raises(OptionError, match="1 to 239"):
            principal_components(population, k)
    with pytest.raises(InputError, match="5 variants are common"):
        principal_components(InMemory(population.calls[:5]), 5, **REST)
    with pytest.raises(LabelError, match="no chromosome '7'"):
        principal_components(population, 2, exclude_regions=["7"])
    with pytest.raises(LabelError, match=r"'GRCh19' is no build .* there are GRCh37, G"):
        principal_components(population, 2, exclude_regions=["GRCh19"])
    with pytest.raises(InputError, match="0 variants of the 0 outside the excluded regions"):
        principal_components(population, 2, exclude_regions=["1", "2"])


def test_components_for_which_the_relationships_take_too_much(population):
    population = InMemory(np.hstack([population.calls, population.calls[:, :60]]))
    with pytest.raises(CapacityError, match=r"raise .*, or give method='randomised'\.$"):
        principal_components(population, 2, memory=1_100_000)
    found = principal_components(population, 2, "randomised", memory=1_100_000)
    assert found.method == "randomised"


def test_positions_that_do_not_ascend(population):
    """The same variants in another order have the same components."""
    order = np.random.default_rng(2).permutation(population.n_variants)
    expected = principal_components(population, 2)
    found = principal_components(SelectedGenotypes(population, order), 2)
    np.testing.assert_array_equal(np.sort(order[found.variants]), expected.variants)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
