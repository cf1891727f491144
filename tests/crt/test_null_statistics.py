import tracemalloc

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, rankdata

from plait.crt.null_statistics import (
    null_effects,
    null_rank_biserial,
    rank_biserial_of_index_lists,
    rank_table,
    residual_table,
)
from plait.crt.ranks import rank_columns, usage_to_rank
from plait.crt.resampling import BernoulliResampler, StratifiedResampler, index_lists
from plait.crt.seeds import UnitStream
from plait.errors import InputError, OptionError, ShapeError
from tests.crt.cases import effects_of_index_lists, random_screen, reference_screen
from tests.reference_files import load

STREAM = UnitStream(7, "unit")
SCREENS = ["synth_a", "synth_b"]


def as_list(cells):
    return np.array([0, len(cells)]), np.asarray(cells, dtype=np.int32)


@pytest.mark.parametrize("name", SCREENS)
def test_effects_of_given_resamples_match_programde(name):
    screen, fixed = reference_screen(name), load(f"crt/{name}", "fixed_resamples.npz")
    null = effects_of_index_lists(screen.residuals, screen.basis, fixed["indptr"], fixed["indices"])
    np.testing.assert_allclose(null, fixed["beta_null"], rtol=1e-10, atol=1e-12)
    observed = effects_of_index_lists(
        screen.residuals, screen.basis, *as_list(screen.cells[str(fixed["gene"])])
    )
    np.testing.assert_allclose(observed[0], fixed["beta_obs"], rtol=1e-10)


@pytest.mark.parametrize("name", SCREENS)
def test_observed_effects_match_programde(name):
    screen = reference_screen(name)
    starts, cells = screen.treated.indptr.astype(np.int64), screen.treated.indices
    observed = effects_of_index_lists(screen.residuals, screen.basis, starts, cells)
    np.testing.assert_allclose(observed, screen.known["betas"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", SCREENS)
@pytest.mark.parametrize("outcome", ["clr_average", "usage_average", "usage_min"])
def test_rank_biserial_of_given_resamples_matches_programde(name, outcome):
    screen, fixed = reference_screen(name), load(f"crt/{name}", "fixed_resamples.npz")
    use, method = outcome.split("_")
    values = (
        screen.outcome
        if use == "clr"
        else usage_to_rank(screen.usage.astype(np.float32).astype(np.float64))
    )
    table = rank_table(rank_columns(values, method))
    null = rank_biserial_of_index_lists(table, fixed["indptr"], fixed["indices"])
    np.testing.assert_allclose(null.values, fixed[f"rbc_null_{outcome}"], atol=1e-6)
    observed = rank_biserial_of_index_lists(table, *as_list(screen.cells[str(fixed["gene"])]))
    np.testing.assert_allclose(observed.values[0], fixed[f"rbc_obs_{outcome}"], atol=1e-6)


@pytest.mark.parametrize("kind", ["bernoulli", "stratified"])
def test_fused_effects_are_those_of_the_same_draws(kind):
    screen = random_screen(n_cells=600, n_outcomes=5, n_covariates=3)
    resampler = (
        BernoulliResampler(screen.probabilities, STREAM)
        if kind == "bernoulli"
        else StratifiedResampler(np.arange(600) % 7, np.arange(7) * 3, STREAM)
    )
    null = null_effects(residual_table(screen.residuals, screen.basis), resampler, 700)
    starts, cells = index_lists(resampler, 700)
    plain = effects_of_index_lists(screen.residuals, screen.basis, starts, cells)
    assert null.values.shape == (700, 5)
    np.testing.assert_array_equal(null.n_treated, np.diff(starts))
    np.testing.assert_allclose(null.values, plain, atol=1e-7 * plain.std())


@pytest.mark.parametrize("method", ["average", "min", "max", "dense", "ordinal"])
@pytest.mark.parametrize("kind", ["bernoulli", "stratified"])
def test_fused_rank_statistics_are_the_same_bits(kind, method):
    screen = random_screen(n_cells=500)
    resampler = (
        BernoulliResampler(screen.probabilities, STREAM)
        if kind == "bernoulli"
        else StratifiedResampler(np.arange(500) % 7, np.arange(7) * 3, STREAM)
    )
    table = rank_table(rank_columns(screen.outcome.round(1), method))
    null = null_rank_biserial(table, resampler, 600)
    plain = rank_biserial_of_index_lists(table, *index_lists(resampler, 600))
    np.testing.assert_array_equal(null.values, plain.values)


def test_effect_is_the_regression_coefficient():
    screen = random_screen(n_cells=200)
    cells = np.random.default_rng(1).choice(200, 37, replace=False)
    treatment = np.isin(np.arange(200), cells)
    full = np.column_stack([treatment, screen.design])
    expected = np.linalg.lstsq(full, screen.outcome, rcond=None)[0][0]
    found = effects_of_index_lists(screen.residuals, screen.basis, *as_list(cells))
    np.testing.assert_allclose(found[0], expected, rtol=1e-10)


def test_effect_without_covariates_is_the_difference_of_means():
    outcome = np.random.default_rng(2).standard_normal((50, 2))
    basis = np.full((50, 1), np.sqrt(1 / 50))
    found = effects_of_index_lists(outcome - outcome.mean(axis=0), basis, *as_list(range(12)))
    expected = outcome[:12].mean(axis=0) - outcome[12:].mean(axis=0)
    np.testing.assert_allclose(found[0], expected, rtol=1e-12)


def test_permutation_of_one_stratum_has_the_moments_of_a_finite_population():
    """Var(S) = n1 (N - n1) / (N (N - 1)) sum R^2."""
    n, treated, draws = 120, 30, 20_000
    outcome = np.random.default_rng(3).standard_normal((n, 4))
    residuals = outcome - outcome.mean(axis=0)
    basis = np.full((n, 1), np.sqrt(1 / n))
    resampler = StratifiedResampler(np.zeros(n, dtype=int), np.array([treated]), STREAM)
    null = null_effects(residual_table(residuals, basis), resampler, draws)
    denominator = treated * (1 - treated / n)
    variance = treated * (n - treated) / (n * (n - 1)) * (residuals**2).sum(0) / denominator**2
    assert (np.abs(null.values.mean(axis=0)) < 5 * np.sqrt(variance / draws)).all()
    assert (np.abs(null.values.var(axis=0) / variance - 1) < 5 * np.sqrt(2 / draws)).all()


@pytest.mark.parametrize("kind", ["bernoulli", "stratified"])
def test_memory_does_not_grow_with_the_treated_cells_of_resamples(kind):
    """No lists of treated cells: programDE's are 4 bytes for each, 33 MB here."""
    screen = random_screen(n_cells=20_000, mean=0.2)
    treated = np.flatnonzero(np.random.default_rng(1).random(20_000) < screen.probabilities)
    stratum = (screen.probabilities > 0.2).astype(np.int64)
    resampler = (
        BernoulliResampler(screen.probabilities, STREAM)
        if kind == "bernoulli"
        else StratifiedResampler(stratum, np.bincount(stratum[treated]), STREAM)
    )
    table = residual_table(screen.residuals, screen.basis)
    null_effects(table, resampler, 1)
    tracemalloc.start()
    null = null_effects(table, resampler, 2048)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 4 * null.n_treated.sum() > 3e7
    assert peak < 3e6


def test_resamples_without_treated_cells_have_no_statistic():
    screen = random_screen(n_cells=30)
    resampler = BernoulliResampler(np.full(30, 1e-6), STREAM)
    null = null_effects(residual_table(screen.residuals, screen.basis), resampler, 20)
    ranked = null_rank_biserial(rank_table(rank_columns(screen.outcome)), resampler, 20)
    for found in (null, ranked):
        assert np.isnan(found.values).all() and found.tested.shape == (0, 3)


def test_treatments_that_the_covariates_explain_have_no_statistic():
    """Everybody treated: D is 0, and in single precision its rounding."""
    screen = random_screen(n_cells=300)
    table = residual_table(screen.residuals, screen.basis)
    null = null_effects(table, BernoulliResampler(np.ones(300), STREAM), 5)
    assert np.isnan(null.values).all()
    np.testing.assert_array_equal(null.n_treated, 300)
    ranked = null_rank_biserial(
        rank_table(rank_columns(screen.outcome)), BernoulliResampler(np.ones(300), STREAM), 5
    )
    assert np.isnan(ranked.values).all()


def test_rank_biserial_is_the_mann_whitney_u():
    random = np.random.default_rng(4)
    outcome = random.integers(0, 30, (80, 3)).astype(float)
    cells = np.sort(random.choice(80, 25, replace=False))
    found = rank_biserial_of_index_lists(rank_table(rank_columns(outcome)), *as_list(cells))
    rest = np.setdiff1d(np.arange(80), cells)
    u = mannwhitneyu(outcome[cells], outcome[rest]).statistic
    np.testing.assert_allclose(found.values[0], 2 * u / (25 * 55) - 1, atol=1e-14)
    all_above = rank_biserial_of_index_lists(
        rank_table(rank_columns(np.arange(10.0)[:, None])), *as_list([7, 8, 9])
    )
    assert all_above.values[0, 0] == 1


@pytest.mark.parametrize("method", ["average", "min", "max", "dense", "ordinal"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ranks_are_scipys(method, dtype):
    outcome = np.random.default_rng(5).integers(0, 40, (200, 3)).astype(float)
    ranks = rank_columns(outcome, method, dtype)
    assert ranks.dtype == dtype
    np.testing.assert_array_equal(ranks, rankdata(outcome, method, axis=0))


def test_rank_sums_above_single_precision_are_exact():
    """Rank sums pass 2^24 here: one rank moved by 1 is seen, and equal sums tie."""
    n, treated = 60_000, 1000
    table = rank_table(np.arange(1.0, n + 1)[:, None])
    one = np.arange(n - 2 * treated, n, 2)
    lower, balanced = one.copy(), one.copy()
    lower[0] -= 1
    balanced[0] -= 1
    balanced[-1] += 1
    found = [
        rank_biserial_of_index_lists(table, *as_list(cells)).values[0, 0]
        for cells in (one, lower, balanced)
    ]
    assert found[0] == found[2]
    assert (found[0] - found[1]) * treated * (n - treated) == pytest.approx(2, abs=1e-6)


def test_usage_is_floored_and_scaled():
    usage = np.array([[0.0, 0.5, 0.5], [0.2, 0.2, 0.4]])
    floored = usage_to_rank(usage, eps_quantile=0.0)
    assert (floored > 0).all()
    np.testing.assert_allclose(floored.sum(axis=1), 1)
    np.testing.assert_allclose(floored[1], [0.25, 0.25, 0.5])
    raised = usage_to_rank(usage, eps_quantile=0.5)
    floor = np.median(usage)
    np.testing.assert_allclose(raised[0], np.array([floor, 0.5, 0.5]) / (1 + floor))


def test_unusable_input_is_refused():
    outcome = np.ones((3, 2))
    with pytest.raises(OptionError, match="rank method is 'middle'"):
        rank_columns(outcome, "middle")
    with pytest.raises(OptionError, match="float16"):
        rank_columns(outcome, dtype=np.float16)
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(InputError, match=r"1 column .*column 1"):
            rank_columns(np.array([[1.0, 2.0], [1.0, bad], [0.0, 3.0]]))
    with pytest.raises(ShapeError, match="1 dimension;"):
        rank_columns(np.ones(3))
    with pytest.raises(ShapeError, match="1 dimension;"):
        rank_table(np.ones(3))
    with pytest.raises(OptionError, match="eps_quantile"):
        usage_to_rank(outcome, 2.0)
    with pytest.raises(ShapeError, match="row for each cell"):
        residual_table(outcome, np.ones((4, 1)))
    table = residual_table(outcome, np.ones((3, 1)))
    with pytest.raises(ShapeError, match="2 cells, but the table has 3"):
        null_effects(table, BernoulliResampler(np.full(2, 0.5), STREAM), 5)
    with pytest.raises(OptionError, match="0 resamples"):
        null_effects(table, BernoulliResampler(np.full(3, 0.5), STREAM), 0)
    with pytest.raises(InputError, match="name cells 5 to 5"):
        rank_biserial_of_index_lists(rank_table(rank_columns(outcome)), *as_list([5]))


def test_single_precision_ranks_of_too_many_cells_are_refused():
    many = np.broadcast_to(np.zeros((1, 1), dtype=np.float32), (2**24 + 1, 1))
    with pytest.raises(OptionError, match="rank_dtype='float64'"):
        rank_columns(many, "min", np.float32)


def test_null_shares_match_the_deep_oracle():
    """Shares of null effects beyond the observed one, against those in the oracle's many draws.

    Programs of one unit share their draws, so the mean of z^2 is allowed [0.35, 1.8] (the bounds
    of the reference: false alarm below 1e-6).
    """
    screen, oracle = reference_screen("synth_a"), load("crt/synth_a", "oracle.npz")
    table, draws = residual_table(screen.residuals, screen.basis), 1023
    z = []
    for j, gene in enumerate(screen.genes):
        resampler = BernoulliResampler(
            oracle["propensity_optimum"][:, j], UnitStream(123, str(gene))
        )
        null = null_effects(table, resampler, draws)
        known = oracle["B"][j]
        observed = oracle["thresholds"][j, :, 0]
        share = (oracle["count_right"][j, :, 0] + oracle["count_left"][j, :, 0]) / known
        found = (np.abs(null.values) >= observed).mean(axis=0)
        enough = draws * np.minimum(share, 1 - share) >= 5
        spread = np.sqrt(share * (1 - share) * (1 / draws + 1 / known))
        z.extend(((found - share) / spread)[enough])
    assert len(z) > 150
    assert 0.35 < np.mean(np.square(z)) < 1.8
    assert np.abs(z).max() < 7
