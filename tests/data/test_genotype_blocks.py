"""Blocks of hard calls and of dosages against the same numbers."""

import numpy as np
import pytest

from plait.data.genotype_blocks import TILE, CallBlock, DosageBlock, padded, read_block
from plait.data.variants import VariantTable
from tests.gwas.conftest import Dosages, InMemory, as_dosages, draw_calls, draw_dosages


@pytest.fixture
def random():
    return np.random.default_rng(17)


def test_any_start_of_a_block(random):
    """Tiles are where they are among all variants, not where a block begins."""
    dosages = draw_dosages(random, 3 * TILE, 10, missing=0.1)
    source = Dosages(dosages)
    for rows in (slice(0, 3 * TILE), slice(100, 700), slice(TILE, TILE + 1), slice(5, 5)):
        block = read_block(source, rows)
        assert isinstance(block, DosageBlock)
        seen = []
        for part, tile, used in block.tiles(np.float64):
            assert tile.shape == (TILE, 12)
            assert (rows.start + part.start - used.start) % TILE == 0
            seen += range(rows.start + part.start, rows.start + part.stop)
            numbers = np.arange(part.start, part.stop)
            np.testing.assert_array_equal(tile[used, :10], block.centred(numbers))
            tile[used] = 0.0
            assert not tile.any()
        assert seen == list(range(rows.start, rows.stop))


@pytest.mark.parametrize("dosages", [False, True])
def test_what_a_block_says(random, dosages):
    """Both kinds of block against the same numbers."""
    calls = draw_calls(random, 40, 23, missing=0.2)
    calls[3] = -1
    values = as_dosages(calls) if not dosages else draw_dosages(random, 40, 23, missing=0.2)
    values[3] = np.nan
    source = Dosages(values) if dosages else InMemory(calls)
    samples = random.permutation(23)[:17]
    whole = read_block(source, slice(0, 40))
    assert whole.of_samples(np.arange(23)) is whole
    rows = np.array([0, 3, 7, 20])
    for block in (whole.of_samples(samples), read_block(source, slice(0, 40), samples)):
        assert isinstance(block, DosageBlock if dosages else CallBlock)
        chosen = values[:, samples].astype(float)
        missing = np.isnan(chosen)
        called = (~missing).sum(axis=1)
        counts = np.nansum(chosen, axis=1)
        with np.errstate(invalid="ignore"):
            means = counts / called
        assert len(block) == 40
        np.testing.assert_array_equal(block.calls.n_called, called)
        np.testing.assert_array_equal(block.calls.n_missing, missing.sum(axis=1))
        np.testing.assert_allclose(block.calls.frequency, means / 2, rtol=1e-14)
        minor = np.minimum(counts, 2 * called - counts)
        np.testing.assert_allclose(block.calls.minor_count, minor, rtol=1e-13)
        share = minor / np.maximum(2 * called, 1)
        np.testing.assert_allclose(block.calls.minor_frequency, share, rtol=1e-13)
        centred = np.where(missing, 0.0, chosen - means[:, None])
        np.testing.assert_allclose(block.squares, (centred**2).sum(axis=1), rtol=1e-12)
        np.testing.assert_allclose(block.centred(rows), centred[rows], atol=1e-14)
        np.testing.assert_array_equal(block.is_missing(rows), missing[rows])
        known = np.array([0, 7, 20])
        copies, signs = block.rarer_copies(known)
        filled = np.where(missing, means[:, None], chosen)[known]
        expected = np.where(signs[:, None] > 0, filled, 2 - filled)
        np.testing.assert_allclose(copies, expected, atol=1e-14)
        np.testing.assert_array_equal(copies == 0, expected == 0)
        assert (copies.mean(axis=1) <= 1).all()
        if dosages:
            used = called > 0
            info = block.squares[used] / called[used] / (2 * share[used] * (1 - share[used]))
            np.testing.assert_allclose(block.calls.info[used], info, rtol=1e-12)
            assert block.calls.info[3] == 0


@pytest.mark.parametrize("dosages", [False, True])
def test_haploids(random, dosages):
    """Alleles are counted one by one: two of whom has two copies, one of whom has one."""
    n, chrom = 31, np.repeat(["1", "chrX", "Y", "MT"], 5)
    sexes = np.resize([1, 2, 2, 1, 0], n)
    calls = draw_calls(random, 20, n, missing=0.2)
    values = as_dosages(calls) if not dosages else draw_dosages(random, 20, n, missing=0.2)
    source = Dosages(values) if dosages else InMemory(calls)
    places = np.full(20, 5_000_000)
    places[9] = 2_000_000  # shared with Y
    source._variants = VariantTable.of(chrom, places, ["A"] * 20, ["G"] * 20)
    source.sexes = sexes
    meanings = {"1": "1", "chrX": "X", "Y": "Y", "MT": "MT"}
    samples = random.permutation(n)[:22]
    is_male = sexes[samples] == 1
    whole = read_block(source, slice(2, 20), meanings=meanings)
    for block in (whole.of_samples(samples), read_block(source, slice(2, 20), samples, meanings)):
        for j in range(18):
            copies, name = values[2 + j, samples].astype(float), chrom[2 + j]
            if name == "Y":
                copies[~is_male] = np.nan
            called, here = ~np.isnan(copies), is_male if name == "Y" else np.ones(22, dtype=bool)
            once = (name in ("Y", "MT")) | ((name == "chrX") & (2 + j != 9) & is_male)
            each = np.where(once, 0.5, 1.0)
            alleles, total = (each * copies)[called].sum(), 2 * (each * called).sum()
            found = block.calls
            assert found.minor_count[j] == pytest.approx(min(alleles, total - alleles), rel=1e-12)
            assert found.call_rate[j] == pytest.approx(called.sum() / here.sum())
            assert found.frequency[j] == pytest.approx(copies[called].mean() / 2)
            assert found.n_missing[j] == (~called).sum()
            np.testing.assert_array_equal(block.is_missing(np.array([j]))[0], ~called)
    assert read_block(source, slice(0, 5), meanings=meanings).haploid is None
    source.sexes = None
    calls = read_block(source, slice(10, 15), meanings=meanings).calls
    np.testing.assert_allclose(calls.call_rate, (~np.isnan(values[10:15])).mean(axis=1))


def test_other_ploidy(random):
    dosages = random.uniform(0, 4, (5, 30)).astype(np.float32)
    dosages[:2] = np.minimum(4, dosages[:2] + 3)
    block = DosageBlock(dosages, 0, ploidy=4)
    f = dosages.astype(float).mean(axis=1) / 4
    np.testing.assert_allclose(block.calls.frequency, f, rtol=1e-12)
    np.testing.assert_allclose(block.calls.minor_frequency, np.minimum(f, 1 - f), rtol=1e-12)
    variance = dosages.astype(float).var(axis=1)
    np.testing.assert_allclose(block.calls.info, variance / (4 * f * (1 - f)), rtol=1e-12)
    copies, signs = block.rarer_copies(np.arange(5))
    assert signs[:2].tolist() == [-1.0, -1.0]
    np.testing.assert_allclose(copies[0], 4 - dosages[0].astype(float), rtol=1e-12)


@pytest.mark.parametrize(
    ("n_samples", "columns"), [(3, 1), (46, 3), (64, 15), (130, 16), (1237, 21)]
)
def test_products_of_calls_without_decoding(random, n_samples, columns):
    """Sums of bytes against double precision; whatever the cut, the same bits."""
    calls = draw_calls(random, 90, n_samples, missing=0.1)
    calls[4], calls[5], calls[6] = -1, 2, 0
    calls[7, 1:] = 2  # the effect allele is the common one
    regressors = random.normal(size=(n_samples, columns))
    block = read_block(InMemory(calls), slice(0, 90))
    found = block.products(padded(regressors, np.float32))
    exact = block.products(padded(regressors, np.float64))
    np.testing.assert_allclose(exact, block.centred(np.arange(90)) @ regressors, atol=1e-10)
    lengths = np.sqrt(np.maximum(block.squares, 1.0))[:, None]
    assert (np.abs(found - exact) <= 2e-6 * np.sqrt(n_samples) * lengths).all()
    assert not found[4:7].any()
    parts = [
        read_block(InMemory(calls), rows).products(padded(regressors, np.float32))
        for rows in (slice(0, 37), slice(37, 38), slice(38, 90))
    ]
    np.testing.assert_array_equal(np.concatenate(parts), found)
