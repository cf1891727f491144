"""Relationships against the direct product, every pair by itself, and PLINK 2."""

import shutil
import subprocess

import numpy as np
import pytest

from plait.errors import InputError
from plait.gwas import relationship, relationship_matrix, relationship_missing
from plait.io import read_relationships
from plait.io.plink import write_bed
from tests.gwas.conftest import Dosages, InMemory, as_dosages, draw_calls

THREE = ["1"] * 1000 + ["2"] * 2300 + ["3"] * 1200


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


def test_leaving_out_is_a_subtraction(many):
    names = [str(k // 300) for k in range(2500)]
    found = relationship_matrix(InMemory(many.calls, chromosomes=names))
    for k in (0, 5, 8):
        rest = np.delete(np.arange(9), k)
        direct = found.sums[rest].sum(axis=0, dtype=float) / found.norms[rest].sum()
        triangle = found.matrix(str(k))[np.tril_indices(700)]
        np.testing.assert_allclose(triangle, direct, rtol=0, atol=1e-15)


@pytest.mark.parametrize("method", ["vanraden", "gcta"])
@pytest.mark.parametrize("n_chromosomes", [3, 9])
def test_some_samples_and_products(many, method, n_chromosomes):
    names = [str(k * n_chromosomes // 2500) for k in range(2500)]
    found = relationship_matrix(InMemory(many.calls, chromosomes=names), method)
    samples = np.arange(699, 0, -2)
    for without in (None, "1"):
        whole = found.matrix(without)
        some = found.matrix(without, samples=samples)
        np.testing.assert_array_equal(some, whole[np.ix_(samples, samples)])
        single = found.matrix(without, dtype=np.float32)
        np.testing.assert_array_equal(single, whole.astype(np.float32))
    columns = np.random.default_rng(2).normal(size=(len(whole), 3))
    np.testing.assert_allclose(found.times(columns), found.matrix() @ columns, atol=1e-12)


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


@pytest.mark.parametrize("n", [1, 37, 64, 130])
def test_rare_alleles_of_either_kind_and_any_number_of_samples(n):
    """Products of calls are far larger than those of centred calls where an allele is rare."""
    random = np.random.default_rng(n)
    frequency = np.repeat([0.02, 0.98, 0.5], [3000, 3000, 70])[:, None]
    calls = random.binomial(2, frequency, (6070, n)).astype(np.int8)
    calls[random.random(calls.shape) < 0.02] = -1
    used = np.array([0 < row[row >= 0].sum() < 2 * (row >= 0).sum() for row in calls])
    found = relationship_matrix(InMemory(calls), min_frequency=0.0)
    assert found.n_variants.sum() == used.sum()
    np.testing.assert_allclose(found.matrix(), vanraden(calls[used]), atol=3e-7, rtol=3e-7)


def test_threads_do_not_change_a_bit(many):
    alone = relationship_matrix(many, threads=1)
    np.testing.assert_array_equal(relationship_matrix(many, threads=3).sums, alone.sums)


@pytest.mark.parametrize("method", ["vanraden", "gcta"])
def test_variants_with_few_calls_count_unless_a_rate_is_asked_for(method):
    random = np.random.default_rng(8)
    calls = draw_calls(random, 400, 60, 0.04)
    samples = np.arange(3, 55)
    called = (calls[:, samples] >= 0).mean(axis=1) >= 0.97
    assert 50 < called.sum() < 350
    given = {"method": method, "samples": samples, "by_chromosome": False}
    found = relationship_matrix(InMemory(calls), min_call_rate=0.97, **given)
    direct = relationship_matrix(InMemory(calls[called]), **given)
    np.testing.assert_allclose(found.matrix(), direct.matrix(), atol=1e-7)
    assert found.n_variants.sum() == direct.n_variants.sum()
    everything = relationship_matrix(InMemory(calls), min_call_rate=0.0, **given)
    default = relationship_matrix(InMemory(calls), **given)
    np.testing.assert_array_equal(default.matrix(), everything.matrix())


def test_nothing_left_to_relate_by():
    random = np.random.default_rng(4)
    calls = draw_calls(random, 30, 200)
    calls[20:] = 0
    found = relationship_matrix(InMemory(calls, chromosomes=["1"] * 20 + ["2"] * 10))
    with pytest.raises(InputError, match="once chromosome '1' is left out"):
        found.matrix("1")


def pairwise(calls):
    """Every pair by itself: the mean product over the variants with calls of both."""
    f = np.array([row[row >= 0].mean() / 2 for row in calls])
    calls, f = calls[(f > 0) & (f < 1)], f[(f > 0) & (f < 1)]
    z = np.where(calls >= 0, (calls - 2 * f[:, None]) / np.sqrt(2 * f * (1 - f))[:, None], np.nan)
    n = calls.shape[1]
    matrix, counts = np.empty((n, n)), np.empty((n, n), dtype=int)
    for i in range(n):
        for j in range(n):
            products = z[:, i] * z[:, j]
            counts[i, j] = np.isfinite(products).sum()
            matrix[i, j] = np.nanmean(products)
    return matrix, counts


@pytest.fixture(scope="module")
def unevenly():
    """Calls of which samples lack between none and four fifths, 2 % of them in the middle block."""
    random = np.random.default_rng(11)
    calls = draw_calls(random, 4500, 41)
    shares = np.linspace(0, 0.8, 41) * np.ones((4500, 1))
    shares[1000:3300] = 0.02
    calls[random.random(calls.shape) < shares] = -1
    return InMemory(calls, chromosomes=THREE)


def test_gcta_is_over_the_calls_of_both_samples(unevenly):
    found = relationship_matrix(unevenly, "gcta", min_frequency=0.0)
    matrix, counts = pairwise(unevenly.calls)
    np.testing.assert_array_equal(found.pair_counts(), counts)
    np.testing.assert_allclose(found.matrix(), matrix, atol=1e-6)
    np.testing.assert_array_equal(found.matrix(), found.matrix().T)
    rest = np.delete(unevenly.calls, np.s_[1000:3300], axis=0)
    matrix, counts = pairwise(rest)
    np.testing.assert_array_equal(found.pair_counts("2"), counts)
    np.testing.assert_allclose(found.matrix("2"), matrix, atol=1e-6)
    assert counts.min() < 200 < counts.max()


def test_gcta_of_dosages_some_samples_and_variants(unevenly):
    chosen = np.arange(40, 0, -2)
    calls = relationship_matrix(unevenly, "gcta", samples=chosen, min_frequency=0.3)
    dosages = Dosages(as_dosages(unevenly.calls))
    found = relationship_matrix(
        dosages, "gcta", samples=chosen, min_frequency=0.3, by_chromosome=False
    )
    assert calls.n_variants.sum() < 4000
    np.testing.assert_array_equal(found.pair_counts(), calls.pair_counts())
    np.testing.assert_allclose(found.matrix(), calls.matrix(), atol=1e-6)


def test_gcta_by_lists_and_by_bits(unevenly, monkeypatch):
    found = []
    for share in (0.0, 2.0):
        monkeypatch.setattr(relationship_missing, "_MANY", share)
        found.append(relationship_matrix(unevenly, "gcta").jointly_missing)
    np.testing.assert_array_equal(*found)
    lacking = unevenly.calls[1000:3300] < 0
    together = lacking.T.astype(int) @ lacking
    np.testing.assert_array_equal(found[0][1], together[np.tril_indices(len(together))])


def test_gcta_whatever_threads_and_blocks_of_the_source(unevenly, monkeypatch):
    monkeypatch.setattr(relationship, "_PANEL", 16)
    alone = relationship_matrix(unevenly, "gcta", threads=1)
    again = relationship_matrix(unevenly, "gcta", threads=4)
    np.testing.assert_array_equal(again.sums, alone.sums)
    np.testing.assert_array_equal(again.jointly_missing, alone.jointly_missing)
    np.testing.assert_array_equal(again.matrix("1"), alone.matrix("1"))


def test_without_missing_calls_methods_are_the_same():
    source = InMemory(draw_calls(np.random.default_rng(2), 300, 20))
    gcta, mean = (relationship_matrix(source, method) for method in ("gcta", "standardised"))
    np.testing.assert_array_equal(gcta.matrix(), mean.matrix())
    assert (gcta.pair_counts() == 300).all() and (mean.pair_counts() == 300).all()
    vanraden_counts = relationship_matrix(source).pair_counts()
    assert vanraden_counts.shape == (20, 20) and (vanraden_counts == 300).all()


@pytest.mark.parametrize("method", ["vanraden", "standardised"])
def test_the_mean_keeps_eigenvalues_from_below_0(unevenly, method):
    gcta = relationship_matrix(unevenly, "gcta").matrix()
    assert np.linalg.eigvalsh(gcta)[0] < -1e-3
    matrix = relationship_matrix(unevenly, method).matrix()
    assert np.linalg.eigvalsh(matrix)[0] > -1e-6


def test_samples_without_calls_in_common():
    calls = draw_calls(np.random.default_rng(5), 200, 30)
    calls[:100, 3] = calls[100:, 7] = -1
    source = InMemory(calls, chromosomes=["1"] * 100 + ["2"] * 100)
    found = relationship_matrix(source, "gcta")
    with pytest.raises(InputError, match=r"'s3' and 's7' have no call in common .* 200 var"):
        found.matrix()
    with pytest.raises(InputError, match=r"sample 's3' has no call .*or take method 'vanraden'"):
        found.matrix("2")
    assert found.pair_counts()[3, 7] == 0


@pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not installed here")
def test_against_plink2(unevenly, tmp_path):
    """PLINK's relationships are GCTA's, and with meanimpute missing calls are the mean.

    Without ``--mac 1`` it counts variants of which all calls are the same.
    """
    calls = np.hstack([unevenly.calls, unevenly.calls[:, ::-1]])  # for frequencies it wants 50
    samples = [f"s{i}" for i in range(82)]
    source = InMemory(calls, samples, THREE)
    write_bed(tmp_path / "g.bed", [calls], unevenly.variants, samples)
    for method, modifier in (("gcta", ""), ("standardised", "meanimpute")):
        for without in (None, "2"):
            rest = "" if without is None else f"--not-chr {without}"
            for wanted in ("--make-grm-bin", "--make-rel square"):
                words = f"plink2 --bfile g --mac 1 {wanted} {modifier} {rest} --out theirs"
                subprocess.run(words.split(), cwd=tmp_path, capture_output=True, check=True)
            ours = relationship_matrix(source, method, min_frequency=0.0)
            theirs = read_relationships(tmp_path / "theirs")
            np.testing.assert_allclose(ours.matrix(without), theirs.matrix, atol=2e-6)
            text = np.loadtxt(tmp_path / "theirs.rel")
            np.testing.assert_allclose(ours.matrix(without), text, rtol=1e-5, atol=1e-5)
            np.testing.assert_array_equal(ours.pair_counts(without), theirs.n_variants)


def test_gcta_of_a_chromosome_in_two_runs(unevenly):
    runs = ["2"] * 500 + ["1"] * 500 + ["2"] * 3500
    source = InMemory(unevenly.calls, chromosomes=runs)
    found = relationship_matrix(source, "gcta", min_frequency=0.0)
    matrix, counts = pairwise(unevenly.calls[np.r_[0:500, 1000:4500]])
    np.testing.assert_array_equal(found.pair_counts("1"), counts)
    np.testing.assert_allclose(found.matrix("1"), matrix, atol=1e-6)
