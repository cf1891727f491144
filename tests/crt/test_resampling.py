import concurrent.futures
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, chi2

from plait.crt.resampling import BernoulliResampler, StratifiedResampler, index_lists
from plait.crt.resampling_kernels import stratified_runs
from plait.crt.seeds import RESAMPLES_PER_BLOCK, UnitStream, guide_set_name, unit_key
from plait.errors import InputError, OptionError, ShapeError
from tests.crt.cases import random_screen

STREAM = UnitStream(123, "GENE00001")


def indicator(starts, cells, n_cells):
    """Return the draws as a matrix (resamples, cells) of how often a cell was drawn."""
    drawn = np.zeros((len(starts) - 1, n_cells), dtype=int)
    np.add.at(drawn, (np.repeat(np.arange(len(starts) - 1), np.diff(starts)), cells), 1)
    return drawn


def outside_binomial_bounds(counts, draws, probabilities, error=1e-6):
    """Return which counts are outside of two-sided bounds that all together fail so seldom."""
    share = error / (2 * np.size(counts))
    return (binom.cdf(counts, draws, probabilities) < share) | (
        binom.sf(counts - 1, draws, probabilities) < share
    )


def strata_of(n_cells=300, seed=1):
    """Return strata with none, some and all of their cells treated."""
    random = np.random.default_rng(seed)
    stratum = random.permutation(np.repeat(np.arange(6), n_cells // 6))
    return stratum, np.array([0, 1, 10, 25, 49, 50])


def test_keys_are_the_digest_of_eight_bytes():
    assert unit_key("GENE00001") != unit_key("GENE00002")
    # BLAKE2b depends on the digest's length: not the first bytes of a longer one.
    assert unit_key("abc") == int.from_bytes(bytes.fromhex("d8bb14d833d59559"), "little")


def test_a_guide_set_has_one_name():
    assert guide_set_name(["g2", "g1"]) == guide_set_name(("g1", "g2")) == "guides:g1&g2"


def test_bernoulli_draws_have_the_probabilities():
    case = random_screen(n_cells=500, mean=0.15)
    probabilities = case.probabilities.copy()
    probabilities[:4] = [1e-6, 0.999999, 0.5, 1 - 1e-3]
    draws = 4000
    drawn = indicator(
        *index_lists(BernoulliResampler(probabilities, STREAM), draws), len(probabilities)
    )
    assert drawn.max() == 1
    assert not outside_binomial_bounds(drawn.sum(axis=0), draws, probabilities).any()
    total = drawn.sum(axis=1)
    sd = np.sqrt((probabilities * (1 - probabilities)).sum())
    assert abs(total.mean() - probabilities.sum()) < 5 * sd / np.sqrt(draws)
    # Independence of cells makes the variance of their number the sum of theirs.
    assert abs(total.var() / sd**2 - 1) < 5 * np.sqrt(2 / draws)


def test_bernoulli_draws_are_independent():
    """Pairs of cells (also neighbours, which share variates) and consecutive resamples."""
    probabilities = np.full(60, 0.3)
    draws = 8192
    drawn = indicator(*index_lists(BernoulliResampler(probabilities, STREAM), draws), 60)
    centred = (drawn - 0.3) / np.sqrt(0.21)
    between_cells = (centred.T @ centred / draws)[np.triu_indices(60, 1)]
    assert np.abs(between_cells).max() * np.sqrt(draws) < 6.5
    assert 0.8 < between_cells.var() * draws < 1.2
    for lag in (1, 2, RESAMPLES_PER_BLOCK):
        z = (centred[lag:] * centred[:-lag]).sum(axis=0) / np.sqrt(draws - lag)
        assert np.abs(z).max() < 6
    # A cell's last resample of a block and the next cell's first one.
    block = centred.reshape(-1, RESAMPLES_PER_BLOCK, 60)
    z = (block[:, -1, :-1] * block[:, 0, 1:]).sum() / np.sqrt(block[:, 0, 1:].size)
    assert abs(z) < 5


def test_gaps_between_draws_of_a_cell_are_geometric():
    probability = 0.02
    starts, cells = index_lists(BernoulliResampler(np.full(200, probability), STREAM), 512)
    drawn = indicator(starts, cells, 200)
    gaps = np.concatenate([np.diff(np.flatnonzero(column)) for column in drawn.T])
    near = np.bincount(np.minimum(gaps, 11), minlength=12)[1:11]
    # Gaps are cut off by the block's end: compare with pairs of resamples that are in it.
    expected = np.array(
        [200 * (512 - g) * probability**2 * (1 - probability) ** (g - 1) for g in range(1, 11)]
    )
    assert (np.abs(near - expected) < 5.5 * np.sqrt(expected)).all()


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_certain_cells(probability):
    drawn = indicator(
        *index_lists(BernoulliResampler(np.array([0.3, probability, 0.4]), STREAM), 600), 3
    )
    assert (drawn[:, 1] == probability).all()
    assert not outside_binomial_bounds(drawn[:, [0, 2]].sum(axis=0), 600, [0.3, 0.4]).any()


def test_empty_resamples_are_empty():
    starts, cells = index_lists(BernoulliResampler(np.full(5, 1e-6), STREAM), 50)
    np.testing.assert_array_equal(starts, 0)
    assert len(cells) == 0
    starts, cells = index_lists(
        StratifiedResampler(np.zeros(5, dtype=int), np.array([0]), STREAM), 50
    )
    np.testing.assert_array_equal(starts, np.zeros(51))


@pytest.mark.parametrize("kind", ["bernoulli", "stratified"])
def test_more_resamples_extend_fewer(kind):
    resampler = resampler_of(kind, STREAM)
    starts, cells = index_lists(resampler, 1300)
    assert all((np.diff(cells[begin:end]) > 0).all() for begin, end in pairwise(starts))
    for fewer in (1, 511, 512, 513, 1023):
        first_starts, first_cells = index_lists(resampler, fewer)
        np.testing.assert_array_equal(first_starts, starts[: fewer + 1])
        np.testing.assert_array_equal(first_cells, cells[: starts[fewer]])


def resampler_of(kind, stream):
    if kind == "bernoulli":
        return BernoulliResampler(random_screen().probabilities, stream)
    return StratifiedResampler(*strata_of(), stream)


@pytest.mark.parametrize("kind", ["bernoulli", "stratified"])
def test_draws_depend_on_seed_and_unit_alone(kind):
    expected = index_lists(resampler_of(kind, STREAM), 700)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for starts, cells in pool.map(
            lambda _: index_lists(resampler_of(kind, STREAM), 700), "abcd"
        ):
            np.testing.assert_array_equal(starts, expected[0])
            np.testing.assert_array_equal(cells, expected[1])
    for other in (UnitStream(124, "GENE00001"), UnitStream(123, "GENE00002")):
        assert not np.array_equal(index_lists(resampler_of(kind, other), 700)[1], expected[1])


def test_draws_are_the_same_in_another_process():
    """Python's string hash, salted in every process, has no part in them."""
    program = (
        "from tests.crt.test_resampling import *;"
        "import hashlib; s, c = index_lists(resampler_of('bernoulli', STREAM), 100);"
        "print(hashlib.sha256(s.tobytes() + c.tobytes()).hexdigest())"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1


def test_strata_keep_their_treated_cells():
    stratum, treated = strata_of()
    draws = 3000
    drawn = indicator(*index_lists(StratifiedResampler(stratum, treated, STREAM), draws), 300)
    assert drawn.max() == 1
    for number, count in enumerate(treated):
        assert (drawn[:, stratum == number].sum(axis=1) == count).all()
    share = (treated / 50)[stratum]
    counts = drawn.sum(axis=0)
    inner = (share > 0) & (share < 1)
    np.testing.assert_array_equal(counts[~inner], draws * share[~inner])
    assert not outside_binomial_bounds(counts[inner], draws, share[inner]).any()


def test_every_subset_of_a_stratum_is_as_likely():
    """Two of five cells: ten subsets, also in runs of resamples that follow one another."""
    draws = 20_000
    drawn = indicator(
        *index_lists(StratifiedResampler(np.zeros(5, dtype=int), np.array([2]), STREAM), draws),
        5,
    )
    subset = drawn @ (2 ** np.arange(5))
    _, counts = np.unique(subset, return_counts=True)
    assert len(counts) == 10
    assert not outside_binomial_bounds(counts, draws, 0.1).any()
    same_as_last = int((subset[1:] == subset[:-1]).sum())
    assert not outside_binomial_bounds(np.array([same_as_last]), draws - 1, 0.1).any()


def test_subsets_of_unequal_strata_are_uniform():
    """Chi-square over the 15 x 10 pairs of subsets of two strata, four of six and two of five."""
    stratum, draws = np.repeat([0, 1], [6, 5]), 60_000
    drawn = indicator(
        *index_lists(StratifiedResampler(stratum, np.array([4, 2]), STREAM), draws), 11
    )
    _, counts = np.unique(drawn @ (2 ** np.arange(11)), return_counts=True)
    assert len(counts) == 150
    expected = draws / 150
    assert 1e-6 < chi2.sf(((counts - expected) ** 2).sum() / expected, 149) < 1 - 1e-6


def test_bits_that_would_favour_a_cell_are_drawn_anew():
    """2^32 mod 3 is 1: of three cells one would have a number of 32 bits more than the others."""
    lowest, highest = 0, 2**32 - 1
    words = np.array([highest << 32 | lowest, 1 << 32 | lowest], dtype=np.uint64)
    hits = np.empty(4, np.int32), np.empty(6, np.int64), np.empty(5, np.int32)
    place = np.zeros(3, dtype=np.int64)
    runs = stratified_runs(
        np.arange(3, dtype=np.int32), np.array([0, 3]), np.array([1]), 2, words, place, *hits
    )
    # The first and third numbers are 0, the one too many; the others take the last and first place.
    assert runs == 2
    np.testing.assert_array_equal(hits[0][:2], [2, 2])
    np.testing.assert_array_equal(hits[1][:3], [0, 1, 2])
    np.testing.assert_array_equal(hits[2][:2], [0, 1])
    np.testing.assert_array_equal(place, [1, 0, 0])


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=40),
    st.integers(0, 2**32 - 1),
    st.integers(1, 30),
)
def test_any_strata_keep_their_counts(labels, seed, resamples):
    _, stratum = np.unique(labels, return_inverse=True)
    treated = np.random.default_rng(seed).integers(0, np.bincount(stratum) + 1)
    resampler = StratifiedResampler(stratum, treated, UnitStream(seed, "unit"))
    drawn = indicator(*index_lists(resampler, resamples), len(stratum))
    assert drawn.max() <= 1
    for number, count in enumerate(treated):
        assert (drawn[:, stratum == number].sum(axis=1) == count).all()


def test_unusable_input_is_refused():
    with pytest.raises(InputError, match=r"in 1 cell .*cell 1, nan"):
        BernoulliResampler(np.array([0.1, np.nan]), STREAM)
    with pytest.raises(InputError, match="not numbers between 0 and 1"):
        BernoulliResampler(np.array([0.1, 1.1]), STREAM)
    with pytest.raises(ShapeError, match="2 dimensions"):
        BernoulliResampler(np.full((2, 2), 0.1), STREAM)
    with pytest.raises(ShapeError, match="vectors"):
        StratifiedResampler(np.zeros((2, 2), dtype=int), np.array([1]), STREAM)
    with pytest.raises(InputError, match="stratum 1 has 1 cell and 2 treated"):
        StratifiedResampler(np.array([0, 1]), np.array([0, 2]), STREAM)
    with pytest.raises(InputError, match="numbered 0 to 1"):
        StratifiedResampler(np.array([0, 1]), np.array([1]), STREAM)
    with pytest.raises(OptionError, match="0 resamples"):
        index_lists(BernoulliResampler(np.array([0.1]), STREAM), 0)
