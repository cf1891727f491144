"""Pruning and clumping against brute force, relationships against their definition."""

import shutil
import subprocess

import numpy as np
import pytest

from plait.data.variants import VariantTable
from plait.errors import CapacityError, LabelError, OptionError, ShapeError
from plait.gwas import clump, ld_prune, relationship_matrix
from plait.gwas.linkage import standardised
from plait.io import SelectedGenotypes, convert_genotypes, open_genotypes
from plait.io.plink import write_bed
from tests.gwas.conftest import Dosages, InMemory, draw_calls
from tests.reference_files import real_data


@pytest.fixture
def linked():
    """Variants in runs of neighbours that resemble one another, on two chromosomes."""
    random = np.random.default_rng(3)
    calls = draw_calls(random, 700, 150, missing=0.01)
    for j in range(1, 700):
        copied = random.random(150) < 0.8
        calls[j, copied] = calls[j - 1, copied]
    calls[20] = 1
    return InMemory(calls, chromosomes=["1"] * 400 + ["2"] * 300)


def squared_correlations(source):
    rows, minor = standardised(source, slice(0, source.n_variants))
    return (rows @ rows.T) ** 2, minor


def pairwise_complete(calls, i, j):
    """The squared correlation of two variants, of the samples that have both, as a fraction."""
    both = (calls[i] >= 0) & (calls[j] >= 0)
    x, y = calls[i, both].astype(object), calls[j, both].astype(object)
    n = len(x)
    products = [n * np.dot(a, b) - sum(a) * sum(b) for a, b in ((x, y), (x, x), (y, y))]
    return products[0] ** 2, products[1] * products[2]


def imputed(dosages, i, j):
    """The squared correlation where missing dosages are the mean, as a fraction."""
    rows = [np.where(np.isnan(d), np.nanmean(d), d) for d in dosages[[i, j]].astype(np.float64)]
    return np.corrcoef(*rows)[0, 1] ** 2, 1.0


def major_frequencies(source):
    values = source.read(slice(0, source.n_variants), None, np.float64)
    frequency = np.nanmean(values, axis=1) / 2
    return np.maximum(frequency, 1 - frequency), np.nanvar(values, axis=1) > 1e-9


def pruned_one_by_one(source, r2, *, window_kb=None, window_variants=None, step=1, squared):
    """Windows as PLINK moves them, and in each of them all pairs, one after another."""
    major, varies = major_frequencies(source)
    kept = varies.copy()
    for _, run in source.variants.chromosomes:
        pos = source.variants.pos[run]
        unchecked, start = np.arange(1, len(pos) + 1), 0
        while True:
            if window_kb is None:
                end = min(start + window_variants, len(pos))
            else:
                end = int((pos <= pos[start] + 1000 * window_kb).sum())
            goes_on = True
            while goes_on:
                goes_on = False
                for i in range(start, end):
                    if not kept[run.start + i]:
                        continue
                    first, unchecked[i] = max(unchecked[i], i + 1), end
                    for j in range(first, end):
                        one, other = run.start + i, run.start + j
                        if not kept[other]:
                            continue
                        covariance, variances = squared(one, other)
                        if covariance > r2 * variances * (1 + 1e-13):
                            goes_on = True
                            if major[one] > major[other] * (1 + 1e-13):
                                kept[one] = False
                            else:
                                kept[other], unchecked[i] = False, j + 1
                            break
            if end == len(pos):
                break
            start += step
    return np.flatnonzero(kept)


WINDOWS = [
    {"window_variants": 2, "step": 1},
    {"window_variants": 5, "step": 5},
    {"window_variants": 50, "step": 5},
    {"window_variants": 1000, "step": 7},
    {"window_kb": 0.02},
    {"window_kb": 0.3},
]


def draw_linked(random, n_variants, n_samples, missing):
    """Variants that resemble one a few places before, more or less; some of them do not vary."""
    calls = draw_calls(random, n_variants, n_samples)
    for j in range(1, n_variants):
        copied = random.random(n_samples) < random.choice([0.3, 0.6, 0.9])
        calls[j, copied] = calls[max(0, j - random.integers(1, 6)), copied]
    calls[random.random(n_variants) < 0.03] = 2
    calls[random.random(calls.shape) < missing] = -1
    return calls


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("missing", [0.0, 0.05])
def test_pruning_one_by_one(missing, window, monkeypatch):
    """The same variants, to the last, in blocks of any size and of some of the samples."""
    random = np.random.default_rng(11)
    chromosomes = ["1"] * 170 + ["2"] * 130
    calls = draw_linked(random, 300, 70, missing)
    source = InMemory(calls, chromosomes=chromosomes)
    expected = pruned_one_by_one(
        source, 0.2, **window, squared=lambda i, j: pairwise_complete(calls, i, j)
    )
    assert 20 < len(expected) < 250
    np.testing.assert_array_equal(ld_prune(source, r2=0.2, **window), expected)
    some = random.permutation(70)[:40]
    of_some = ld_prune(source, r2=0.2, samples=some, **window)
    monkeypatch.setattr(InMemory, "block_size", lambda _: 64)
    np.testing.assert_array_equal(ld_prune(source, r2=0.2, **window), expected)
    alone = InMemory(calls[:, some], chromosomes=chromosomes)
    np.testing.assert_array_equal(of_some, ld_prune(alone, r2=0.2, **window))


@pytest.mark.parametrize("window", WINDOWS)
def test_pruning_dosages(window):
    """r2 of dosages is their own."""
    random = np.random.default_rng(12)
    dosages = np.clip(
        draw_linked(random, 200, 70, 0.0) + random.normal(0, 0.1, (200, 70)), 0, 2
    ).astype(np.float32)
    dosages[random.random(dosages.shape) < 0.02] = np.nan
    dosages[20] = 0.5
    source = Dosages(dosages)
    expected = pruned_one_by_one(source, 0.2, **window, squared=lambda i, j: imputed(dosages, i, j))
    assert 20 < len(expected) < 180
    assert 20 not in expected
    np.testing.assert_array_equal(ld_prune(source, r2=0.2, **window), expected)


def test_no_two_of_a_window_are_linked(linked):
    kept = ld_prune(linked, r2=0.2, window_variants=50, step=1)
    squares, _ = squared_correlations(linked)
    chromosome = np.array([0] * 400 + [1] * 300)
    near = (np.abs(kept[:, None] - kept) < 50) & (chromosome[kept][:, None] == chromosome[kept])
    np.fill_diagonal(near, val=False)
    # Missing calls, 1 %, make some difference to r2.
    assert squares[np.ix_(kept, kept)][near].max() < 0.21
    assert 20 not in kept
    frequent = ld_prune(linked, r2=0.2, window_variants=50, min_frequency=0.3)
    assert major_frequencies(linked)[0][frequent].max() <= 0.7


def test_windows(linked):
    """Positions are 1, 2, 3, ...: up to 0.05 kb away there are 50 preceding variants."""
    by_distance = ld_prune(linked, window_kb=0.05)
    np.testing.assert_array_equal(by_distance, ld_prune(linked, window_variants=51, step=1))
    default = ld_prune(linked, window_variants=50)
    np.testing.assert_array_equal(default, ld_prune(linked, window_variants=50, step=5))
    short = ld_prune(linked, window_variants=3)
    np.testing.assert_array_equal(short, ld_prune(linked, window_variants=3, step=3))
    assert len(ld_prune(linked, r2=1.0)) == 699  # one does not vary
    with pytest.raises(OptionError, match="r2"):
        ld_prune(linked, r2=0.0)
    with pytest.raises(OptionError, match="both given; give one window"):
        ld_prune(linked, window_kb=0.05, window_variants=51)
    with pytest.raises(OptionError, match="window_variants is 1; give 2"):
        ld_prune(linked, window_variants=1)
    with pytest.raises(OptionError, match="window_kb is -1; give a distance"):
        ld_prune(linked, window_kb=-1)
    with pytest.raises(OptionError, match="step is 5; windows of a distance move by 1"):
        ld_prune(linked, step=5)
    for step in (0, 6):
        with pytest.raises(OptionError, match=f"step is {step}; give 1 to 5"):
            ld_prune(linked, window_variants=5, step=step)


def test_the_order_of_the_file_does_not_matter(linked, caplog):
    """Variants are compared by their positions, chromosomes may be in pieces; and that is said."""
    random = np.random.default_rng(5)
    shuffled = random.permutation(700)
    source = SelectedGenotypes(linked, shuffled)
    assert len(source.variants.chromosomes) > 100
    with caplog.at_level("INFO", logger="plait.gwas"):
        kept = ld_prune(source, window_kb=0.05)
    said = [record for record in caplog.records if getattr(record, "notice", False)]
    (note,) = (record.getMessage() for record in said)
    assert note.startswith("positions do not ascend on chromosome ")
    assert note.endswith(": sorted to find linked variants")
    assert (np.diff(kept) > 0).all()
    expected = ld_prune(linked, window_kb=0.05)
    np.testing.assert_array_equal(np.sort(shuffled[kept]), expected)
    log10p = -4 * random.random(700)
    clumps = clump(linked, log10p, r2=0.3, window_kb=0.05, p_index=0.01, p_member=0.1)
    found = clump(source, log10p[shuffled], r2=0.3, window_kb=0.05, p_index=0.01, p_member=0.1)
    np.testing.assert_array_equal(shuffled[found.index], clumps.index)
    for mine, theirs in zip(found.members, clumps.members, strict=True):
        np.testing.assert_array_equal(np.sort(shuffled[mine]), theirs)


def kept_by_plink2(folder, window):
    words = ["plink2", "--bfile", "a", "--indep-pairwise", *window, "--out", "a"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return (folder / "a.prune.in").read_text().split()


AS_PLINK2 = [
    (("50", "5", "0.2"), {"window_variants": 50}),
    (("3", "1", "0.05"), {"window_variants": 3, "step": 1, "r2": 0.05}),
    (("5", "5", "0.5"), {"window_variants": 5, "step": 5, "r2": 0.5}),
    (("2kb", "0.2"), {"window_kb": 2}),
    (("0.5kb", "0.5"), {"window_kb": 0.5, "r2": 0.5}),
    (("1000kb", "0.05"), {"r2": 0.05}),
]


@pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not installed")
@pytest.mark.parametrize("missing", [0.0, 0.02, 0.2])
def test_pruning_as_plink2(tmp_path, missing):
    random = np.random.default_rng(13)
    calls = draw_linked(random, 1000, 130, missing)
    pos = np.sort(random.integers(1, 100_000, 1000))
    places = ["1"] * 500 + ["2"] * 500, np.concatenate([pos[::2], pos[1::2]])
    variants = VariantTable.of(*places, ["A"] * 1000, ["G"] * 1000, [str(j) for j in range(1000)])
    write_bed(tmp_path / "a.bed", [calls], variants, np.array([f"s{i}" for i in range(130)]))
    for words, options in AS_PLINK2:
        ours = ld_prune(tmp_path / "a.bed", **options)
        assert 50 < len(ours) < 950
        assert [str(j) for j in ours] == kept_by_plink2(tmp_path, words), words


@pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not installed")
def test_pruning_real_genotypes_as_plink2(tmp_path):
    genotypes = open_genotypes(real_data("attention", "g1000_eur_subset.bed"))
    genotypes = SelectedGenotypes(genotypes, slice(0, 20_000))
    convert_genotypes(genotypes, tmp_path / "a.bed")
    names = genotypes.variants.frame["id"].to_numpy()
    for words, options in (AS_PLINK2[0], (("250kb", "0.2"), {"window_kb": 250})):
        ours = names[ld_prune(genotypes, **options)]
        assert len(ours) > 1000
        assert ours.tolist() == kept_by_plink2(tmp_path, words)


def test_clumps(linked):
    random = np.random.default_rng(0)
    log10p = np.log10(random.random(700)) * 3
    log10p[::50] = np.nan
    found = clump(linked, log10p, r2=0.3, window_kb=0.03, p_index=1e-3, p_member=0.05)
    squares, _ = squared_correlations(linked)
    chromosome = np.array([0] * 400 + [1] * 300)
    free = np.nan_to_num(log10p, nan=1.0) <= np.log10(0.05)
    index = []
    for j in np.argsort(np.nan_to_num(log10p, nan=1.0), kind="stable"):
        if not free[j] or log10p[j] > -3:
            continue
        near = free & (chromosome == chromosome[j]) & (np.abs(np.arange(700) - j) <= 30)
        together = near & (squares[j] >= 0.3)
        together[j] = False
        np.testing.assert_array_equal(np.flatnonzero(together), found.members[len(index)])
        index.append(j)
        free &= ~together
        free[j] = False
    assert len(index) > 5
    np.testing.assert_array_equal(found.index, index)
    with pytest.raises(ShapeError, match="one value for each of 700"):
        clump(linked, log10p[:5])
    with pytest.raises(OptionError, match="p_index"):
        clump(linked, log10p, p_index=0.1, p_member=0.01)


@pytest.mark.parametrize("method", ["vanraden", "gcta"])
def test_relationships(linked, method):
    found = relationship_matrix(linked, method, min_frequency=0.05)
    calls = linked.calls.astype(float)
    calls[calls < 0] = np.nan
    f = np.nanmean(calls, axis=1) / 2
    w = np.nan_to_num(calls - 2 * f[:, None])
    chromosome = np.array(["1"] * 400 + ["2"] * 300)
    kept = np.minimum(f, 1 - f) >= 0.05
    variance = 2 * f * (1 - f)

    def direct(use):
        use = use & kept
        if method == "gcta":
            z = w[use] / np.sqrt(variance[use])[:, None]
            called = ~np.isnan(calls[use])
            return z.T @ z / (called.T.astype(float) @ called)
        return w[use].T @ w[use] / variance[use].sum()

    everything = np.ones(700, dtype=bool)
    rounding = np.finfo(np.float32).eps * 700**0.5  # of sums of so many numbers around 1
    np.testing.assert_allclose(found.matrix(), direct(everything), atol=rounding)
    np.testing.assert_allclose(found.matrix(without="2"), direct(chromosome == "1"), atol=rounding)
    again = relationship_matrix(linked, method, min_frequency=0.05, threads=3)
    np.testing.assert_array_equal(again.sums, found.sums)
    some = relationship_matrix(linked, method, samples=np.arange(5), by_chromosome=False)
    assert some.matrix().shape == (5, 5)
    with pytest.raises(LabelError, match="'3'"):
        found.matrix(without="3")


def test_relationships_that_are_too_large(linked):
    with pytest.raises(CapacityError, match=r"400 samples on 1 chromosome.* take 2 MiB"):
        relationship_matrix(InMemory(draw_calls(np.random.default_rng(0), 4, 400)), memory="1MiB")
    with pytest.raises(OptionError, match="method"):
        relationship_matrix(linked, "pedigree")
