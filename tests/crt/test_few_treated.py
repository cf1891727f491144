"""Few treated cells: the null law is that of treatments that could be tested.

A perturbation without treated cells is not tested, so that its p-values have to be right given that
there are treated cells. With few cells all treatments can be enumerated, and the law of p-values is
known exactly.
"""

from functools import partial
from itertools import product

import numpy as np
import pytest
from scipy.stats import binom

from plait.crt import compute_gene_null_pvals, perturbation_effects, prepare_crt_inputs
from plait.crt.null_statistics import (
    null_effects,
    null_effects_of_block,
    null_rank_biserial,
    null_rank_biserial_of_block,
    rank_biserial_of_index_lists,
    rank_table,
    residual_table,
)
from plait.crt.p_values import empirical_p_values, skew_normal_p_values
from plait.crt.ranks import rank_columns
from plait.crt.resampling import BernoulliResampler, index_lists
from plait.crt.seeds import UnitStream
from plait.crt.staged import TIE, set_ties, staged_p_values
from plait.errors import InputError
from tests.crt.cases import effects_of_index_lists, random_screen
from tests.crt.screens import small_screen

N = 7
CHANCES = np.array([0.05, 0.1, 0.1, 0.15, 0.2, 0.25, 0.3])
"""Of treatment: 1.15 cells are expected, and none with probability 0.28."""
SIDES = {"both": np.abs, "left": np.negative, "right": np.positive}


class Enumerated:
    """All treatments of seven cells: how likely each is, and its statistic (NaN: it has none)."""

    def __init__(self, statistic):
        # No effect is so near 0 that single precision hides a tie.
        screen = random_screen(n_cells=N, n_outcomes=2, n_covariates=1, seed=9)
        treatments = np.array(list(product([0, 1], repeat=N)))
        self.weights = np.prod(np.where(treatments, CHANCES, 1 - CHANCES), axis=1)
        starts = np.concatenate([[0], np.cumsum(treatments.sum(axis=1))])
        cells = np.concatenate([np.flatnonzero(x) for x in treatments]).astype(np.int32)
        if statistic == "ols":
            self.table = residual_table(screen.residuals, screen.basis)
            self.values = effects_of_index_lists(screen.residuals, screen.basis, starts, cells)
            self.draw, self.block = null_effects, null_effects_of_block
        else:
            self.table = rank_table(rank_columns(screen.outcome))
            self.values = rank_biserial_of_index_lists(self.table, starts, cells).values
            self.draw, self.block = null_rank_biserial, null_rank_biserial_of_block
        self.can_be_tested = ~np.isnan(self.values[:, 0])
        self.share = self.weights[self.can_be_tested].sum()

    def p_values(self, side):
        """Return exact p-values of program 0 among testable treatments, and their weights."""
        extreme = SIDES[side](self.values[self.can_be_tested, 0])
        weights = self.weights[self.can_be_tested] / self.share
        ties = TIE * np.abs(extreme)[:, None]
        return (extreme >= extreme[:, None] - ties) @ weights, weights


@pytest.fixture(scope="module", params=["ols", "utest"])
def all_treatments(request):
    return Enumerated(request.param)


@pytest.mark.parametrize("side", SIDES)
def test_p_values_of_infinitely_many_resamples_are_exact(all_treatments, side):
    """P(p <= a | tested) = a wherever p can be a; with all resamples in the null it is 1.4 a."""
    p, weights = all_treatments.p_values(side)
    below = (p <= p[:, None] * (1 + 1e-12)) @ weights
    np.testing.assert_allclose(below, p, rtol=1e-12)
    # No effect where there is no treatment, and never as extreme: what the specification says.
    among_all = p * all_treatments.share
    below = (among_all <= among_all[:, None] * (1 + 1e-12)) @ weights
    np.testing.assert_allclose(below, among_all / all_treatments.share, rtol=1e-12)
    some = 1 - np.prod(1 - CHANCES) - np.prod(CHANCES)
    assert all_treatments.share == pytest.approx(some, rel=1e-12) and 1 / some > 1.37


@pytest.mark.parametrize("resamples", [9, 19, 99])
@pytest.mark.parametrize("side", SIDES)
def test_counted_p_values_are_valid_given_that_there_is_a_test(all_treatments, side, resamples):
    """Exactly, at every level: the number of resamples with a statistic is binomial, and so on."""
    p, weights = all_treatments.p_values(side)
    m = np.arange(resamples + 1)
    chance = binom.pmf(m, resamples, all_treatments.share)
    worst = 0.0
    for level in np.arange(1, resamples + 1) / (resamples + 1):
        most = np.floor(level * (m + 1) + 1e-9) - 1
        rate = weights @ binom.cdf(most, m, p[:, None]) @ chance
        assert rate <= level * (1 + 1e-9)
        most = np.floor(level * (resamples + 1) + 1e-9) - 1
        among_all = weights @ binom.cdf(most, resamples, p * all_treatments.share)
        worst = max(worst, among_all / level)
    assert worst > 1.2


@pytest.mark.parametrize("side", SIDES)
def test_drawn_p_values_are_those_of_the_enumeration(all_treatments, side):
    """Counts of the same draws to the last one, and the exact p-value to their error."""
    resampler = BernoulliResampler(CHANCES, UnitStream(5, "unit"))
    b = 4000
    null = all_treatments.draw(all_treatments.table, resampler, b)
    starts, cells = index_lists(resampler, b)
    numbers = np.zeros(b, dtype=np.int64)
    np.add.at(numbers, np.repeat(np.arange(b), np.diff(starts)), 1 << (N - 1 - cells))
    drawn = all_treatments.values[numbers]
    is_tested = all_treatments.can_be_tested[numbers]
    np.testing.assert_allclose(null.values, drawn, rtol=2e-6, atol=1e-7)
    assert 0.2 < 1 - is_tested.mean() < 0.4
    m = int(is_tested.sum())
    np.testing.assert_array_equal(null.tested, null.values[is_tested])
    exact, _ = all_treatments.p_values(side)
    for p, values in zip(exact, all_treatments.values[all_treatments.can_be_tested], strict=True):
        extreme, own = SIDES[side](drawn[is_tested, 0]), SIDES[side](values[0])
        count = int((extreme >= own - TIE * abs(own)).sum())
        tie = {"both": -values * TIE, "left": TIE * abs(values), "right": -TIE * abs(values)}[side]
        counted = empirical_p_values(values + tie, null.tested, side=side)[0]
        assert counted == (1 + count) / (1 + m)
        assert abs(count / m - p) <= 5 * np.sqrt(p * (1 - p) / m) + 1e-9
        staged = staged_p_values(
            values,
            partial(all_treatments.block, all_treatments.table, resampler),
            side=side,
            exceedances=b,
            max_resamples=b,
        )
        assert staged.p_value[0] == counted and (staged.resamples == m).all()


def few_treated():
    """Return inputs whose targets A and B have one and two treated cells, C and NTC many."""
    screen = small_screen(seed=4)
    guides = screen.obsm["guide_assignment"]
    guides[:, :4] = 0
    guides[7, 0] = guides[11, 2] = guides[30, 3] = 1
    return prepare_crt_inputs(screen)


@pytest.mark.parametrize("statistic", ["ols", "utest"])
@pytest.mark.parametrize("side", SIDES)
def test_a_screen_counts_resamples_that_could_be_tested(statistic, side):
    """Whatever the method; counted among all of them, p-values are those of the specification."""
    inputs, b = few_treated(), 1024
    chances = np.tile([1 / 60, 2 / 60, 0.35, 0.35], (60, 1))
    given = {"statistic": statistic, "side": side, "propensity_model": chances, "seed": 3}
    staged = {"max_resamples": b, "exceedances": b}
    counted, fitted = (
        perturbation_effects(inputs, method=method, resamples=b, **given)
        for method in ("empirical", "skew-normal")
    )
    adaptive, analytic = (
        perturbation_effects(inputs, method=method, **staged, **given)
        for method in ("adaptive", "analytic")
    )
    is_rank = statistic == "utest"
    table = (
        rank_table(rank_columns(inputs.Y))
        if is_rank
        else residual_table(inputs.residuals, inputs.basis)
    )
    for j, unit in enumerate(inputs.units):
        resampler = BernoulliResampler(chances[:, j], UnitStream(3, unit))
        null = (null_rank_biserial if is_rank else null_effects)(table, resampler, b)
        is_tested = null.n_treated > 0
        m = int(is_tested.sum())
        assert (m < b) == (unit in "AB")
        own = SIDES[side](counted.beta[j])
        exceeds = SIDES[side](null.values) >= own - TIE * np.abs(own)
        assert not exceeds[~is_tested].any()
        for found in (counted, adaptive, analytic)[: 3 if unit in "AB" else 2]:
            expected = (1 + exceeds.sum(axis=0)) / (m + 1)
            np.testing.assert_allclose(found.p[j], expected, rtol=1e-14)
            assert (found.n_resamples[j] == m).all()
        np.testing.assert_array_equal(fitted.p_raw[j], counted.p[j])
        with_ties = null.values[is_tested]
        set_ties(with_ties, counted.beta[j])
        refitted = skew_normal_p_values(counted.beta[j], with_ties, side=side)
        np.testing.assert_array_equal(fitted.p_skew[j], refitted.p_values)
        if side == "both":  # where a resample without treated cells has the effect 0
            of_all = empirical_p_values(own * (1 - TIE), np.nan_to_num(null.values))
            np.testing.assert_allclose(of_all * (b + 1), counted.p[j] * (m + 1), rtol=1e-12)


def test_resamples_that_are_the_data_count_where_no_skew_normal_fits():
    """One treated cell of a stratum of ten: a tenth of the resamples are the data.

    Their effects differ from it by the rounding of single precision.
    """
    n_cells, n_uncalibrated = 60, 0
    chances = np.linspace(0.01, 0.02, n_cells)[:, None]
    for cell in range(0, n_cells, 7):
        screen = small_screen(seed=4)
        screen.obsm["guide_assignment"] = np.eye(n_cells, dtype=np.int8)[:, [cell]]
        screen.uns = {"guide_names": ["A_g0"], "guide2gene": {"A_g0": "A"}}
        inputs = prepare_crt_inputs(screen)
        found = {
            side: perturbation_effects(
                inputs,
                method="skew-normal",
                sampler="stratified",
                strata={"n_bins": 6, "stratify_by_batch": False},
                side=side,
                propensity_model=chances,
                resamples=1023,
            )
            for side in SIDES
        }
        left, right = found["left"].p_raw, found["right"].p_raw
        assert (left + right > 1.05).all()  # both tails hold the data
        doubled = np.minimum(2 * np.minimum(left, right), 1.0)
        for side, counted in (("left", left), ("right", right), ("both", doubled)):
            is_counted = found[side].skew_status != "ok"
            np.testing.assert_array_equal(found[side].p_skew[is_counted], counted[is_counted])
            n_uncalibrated += is_counted.sum()
    assert n_uncalibrated > 20


@pytest.mark.parametrize("method", ["empirical", "skew-normal", "adaptive", "analytic"])
@pytest.mark.parametrize("sampler", ["bernoulli", "stratified"])
def test_resamples_that_are_the_data_count_where_few_cells_are_not_treated(method, sampler):
    """D is then 1 of 59, and single precision rounds it relative to 59."""
    n_cells = 60
    screen = small_screen(seed=4)
    others = np.array([3, 17, 40])
    screen.obsm["guide_assignment"] = 1 - np.eye(n_cells, dtype=np.int8)[:, others]
    screen.uns = {"guide_names": list("ABC"), "guide2gene": dict(zip("ABC", "ABC", strict=True))}
    inputs = prepare_crt_inputs(screen)
    if sampler == "bernoulli":  # every resample is the data
        chances = 1.0 - np.eye(n_cells)[:, others]
        expected = np.ones((3, 4))
        how = {}
    else:  # the untreated cell is any of a stratum of ten, equally often
        chances = np.repeat(np.arange(6), 10)[:, None] * np.ones(3) / 10 + 0.1
        how = {"strata": {"n_bins": 6, "stratify_by_batch": False}}
        ones = np.ones((n_cells, n_cells)) - np.eye(n_cells)
        d = np.einsum("ij,ij->j", ones, ones - inputs.basis @ (inputs.basis.T @ ones))
        effects = np.abs(ones.T @ inputs.residuals / d[:, None])
        expected = np.array(
            [(effects[c // 10 * 10 :][:10] >= effects[c] - 1e-9).mean(axis=0) for c in others]
        )
    drawn = "resamples" if method in ("empirical", "skew-normal") else "max_resamples"
    found = perturbation_effects(
        inputs,
        method=method,
        sampler=sampler,
        propensity_model=chances,
        **how,
        **{drawn: 4000},
        **({} if drawn == "resamples" else {"exceedances": 4000}),
    )
    p = found.p if found.p_raw is None else found.p_raw
    assert (np.abs(p - expected) <= 5 * np.sqrt(expected * (1 - expected) / 4000) + 1e-3).all()


def test_nothing_is_left_out_where_many_are_treated():
    screen = random_screen(n_cells=400)
    resampler = BernoulliResampler(screen.probabilities, UnitStream(5, "unit"))
    null = null_effects(residual_table(screen.residuals, screen.basis), resampler, 2000)
    assert null.tested is null.values


def test_p_values_of_resamples_are_among_those_that_could_be_tested():
    inputs, b = few_treated(), 300
    for statistic in ("ols", "utest"):
        p = compute_gene_null_pvals("A", inputs, B=b, propensity_model="const", test_stat=statistic)
        m = len(p)
        assert 150 < m < 230
        # As many as have the same treatment have the same p-value.
        np.testing.assert_allclose(p * m, np.rint(p * m), atol=1e-9)
        assert (p.max(axis=0) == 1).all() and (p.min(axis=0) < 0.05).all()
    chances = np.full((60, 4), 1e-6)
    with pytest.raises(InputError, match="no cell is treated in 1 resample of 'A'"):
        compute_gene_null_pvals("A", inputs, B=1, propensity_model=chances)
    nothing = perturbation_effects(
        inputs, units=["A"], method="skew-normal", resamples=3, propensity_model=chances
    )
    assert (nothing.p == 1).all() and (nothing.n_resamples == 0).all()
