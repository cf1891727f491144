"""Pruning and clumping against brute force, relationships against their definition."""

import shutil
import subprocess

import numpy as np
import pytest

from plait.errors import CapacityError, LabelError, OptionError, ShapeError
from plait.gwas import clump, ld_prune, relationship_matrix
from plait.gwas.linkage import standardised
from plait.io import SelectedGenotypes, convert_genotypes, open_genotypes
from tests.gwas.conftest import InMemory, draw_calls
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


@pytest.mark.parametrize("window", [5, 50, 1000])
def test_pruned_variants(linked, window):
    kept = ld_prune(linked, r2=0.2, window_variants=window)
    squares, minor = squared_correlations(linked)
    assert (np.diff(kept) > 0).all()
    assert 20 not in kept
    chromosome = np.array([0] * 400 + [1] * 300)
    expected = []
    for c in (0, 1):
        alive = []
        for j in np.flatnonzero(chromosome == c):
            if minor[j] == 0:
                continue
            survives = True
            for i in list(alive):
                if i > j - window and squares[i, j] > 0.2:
                    if minor[j] > minor[i]:
                        alive.remove(i)
                    else:
                        survives = False
                        break
            if survives:
                alive.append(j)
        expected += alive
    np.testing.assert_array_equal(kept, expected)


def test_pruning_by_distance(linked):
    """Positions are 1, 2, 3, ...: up to 0.05 kb away there are 50 preceding variants."""
    np.testing.assert_array_equal(
        ld_prune(linked, window_kb=0.05), ld_prune(linked, window_variants=51)
    )
    with pytest.raises(OptionError, match="r2"):
        ld_prune(linked, r2=0.0)
    with pytest.raises(OptionError, match="both given; give one window"):
        ld_prune(linked, window_kb=0.05, window_variants=51)
    with pytest.raises(OptionError, match="window_variants is 1; give 2"):
        ld_prune(linked, window_variants=1)
    with pytest.raises(OptionError, match="window_kb is -1; give a distance"):
        ld_prune(linked, window_kb=-1)


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


@pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not installed")
def test_pruning_as_plink2(tmp_path):
    genotypes = open_genotypes(real_data("attention", "g1000_eur_subset.bed"), region="3:1-")
    genotypes = SelectedGenotypes(genotypes, slice(0, 3000))
    convert_genotypes(genotypes, tmp_path / "a.bed")
    command = ["plink2", "--bfile", "a", "--indep-pairwise", "50", "1", "0.2", "--out", "a"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    theirs = set((tmp_path / "a.prune.in").read_text().split())
    names = genotypes.variants.frame["id"].to_list()
    ours = {names[k] for k in ld_prune(genotypes, r2=0.2, window_variants=50)}
    assert len(ours) > 300
    # Ties of frequencies are broken differently.
    assert len(ours ^ theirs) <= 0.005 * len(theirs)


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
    np.testing.assert_allclose(found.matrix(), direct(everything), atol=1e-6)
    np.testing.assert_allclose(found.matrix(without="2"), direct(chromosome == "1"), atol=1e-6)
    again = relationship_matrix(linked, method, min_frequency=0.05, threads=3)
    np.testing.assert_array_equal(again.sums, found.sums)
    some = relationship_matrix(linked, method, samples=np.arange(5), by_chromosome=False)
    assert some.matrix().shape == (5, 5)
    with pytest.raises(LabelError, match="'3'"):
        found.matrix(without="3")


def test_relationships_that_are_too_large(linked):
    with pytest.raises(CapacityError, match=r"400 samples on 1 chromosome.* take 3 MiB"):
        relationship_matrix(InMemory(draw_calls(np.random.default_rng(0), 4, 400)), memory="1MiB")
    with pytest.raises(OptionError, match="method"):
        relationship_matrix(linked, "ibs")
