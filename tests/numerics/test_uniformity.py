from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import binomtest, kstest

from plait.errors import InputError, OptionError
from plait.numerics.uniformity import (
    anderson_darling_p,
    inflation_of_medians,
    log10_p_limit,
    uniformity,
)


def limit_tail(z):
    """Return P(sum chi2_j / (j (j + 1)) > z) by inverting its characteristic function (Imhof)."""
    weights = 1 / (np.arange(1, 2000) * np.arange(2, 2001))
    z -= 1 - weights.sum()

    def integrand(u):
        angle = 0.5 * (np.arctan(weights * u).sum() - z * u)
        return np.sin(angle) / (u * np.exp(0.25 * np.log1p((weights * u) ** 2).sum()))

    edges = np.append(1e-12, np.arange(1, 80) * 2 * np.pi / max(z, 1))
    return 0.5 + sum(quad(integrand, a, b)[0] for a, b in pairwise(edges)) / np.pi


@pytest.mark.parametrize("z", [0.3, 0.8, 1.5, 2.4, 3.1, 5.0, 8.0])
def test_the_tail_of_anderson_and_darling_is_that_of_its_characteristic_function(z):
    assert anderson_darling_p(z, 10**9) == pytest.approx(limit_tail(z), rel=5e-3, abs=1e-5)


@pytest.mark.parametrize("n", [1, 2, 3, 20])
def test_the_p_value_of_few_values_is_uniform(n):
    """The correction for few values, against simulation."""
    values = np.random.default_rng(n).random((4000, n))
    p = np.array([uniformity(row).ad_p for row in values])
    assert kstest(p, "uniform").pvalue > 1e-6


def test_statistics_by_their_definitions():
    p = np.random.default_rng(1).random(300) ** 1.1
    found = uniformity(p, level=0.1)
    expected = kstest(p, "uniform", method="exact")
    assert found.ks_statistic == pytest.approx(expected.statistic)
    assert found.ks_p == pytest.approx(expected.pvalue)
    grid = (np.arange(400_000) + 0.5) / 400_000
    share = np.searchsorted(np.sort(p), grid, side="right") / 300
    integral = 300 * ((share - grid) ** 2 / (grid * (1 - grid))).mean()
    assert found.ad_statistic == pytest.approx(integral, rel=1e-3)
    interval = binomtest(int((p <= 0.1).sum()), 300).proportion_ci(0.95, "exact")
    np.testing.assert_allclose([found.low, found.high], interval)
    assert found.share == (p <= 0.1).mean()


def test_inflation_is_the_factor_of_chi_squares():
    from scipy.stats import chi2

    p = (np.arange(100_000) + 0.5) / 100_000
    assert uniformity(p).inflation == pytest.approx(1.0, abs=1e-4)
    assert uniformity(chi2.sf(1.3 * chi2.isf(p, 1), 1)).inflation == pytest.approx(1.3, abs=1e-3)


def test_inflation_is_that_of_the_median_also_where_it_is_at_an_end():
    p = np.random.default_rng(2).random(101) ** 3
    expected = inflation_of_medians(-np.log10(np.median(p)))
    assert uniformity(p).inflation == expected
    assert uniformity([0.0, 0.0, 0.5]).inflation == np.inf
    assert uniformity([1.0, 1.0, 0.5]).inflation == 0.0


@pytest.mark.parametrize("limit", [-0.35, -1.0, -3.0, -7.3, -400.0])
@pytest.mark.parametrize("contexts", [1, 5])
def test_rows_chosen_by_p_are_told_from_those_of_chance(limit, contexts):
    """Rows with a p-value up to a limit in one context; then one row without is put to them."""
    random = np.random.default_rng(3)
    log10p = np.log10(random.random((2000, contexts)))
    assert np.isnan(log10_p_limit(log10p))
    assert np.isnan(log10_p_limit(np.repeat(log10p[:60], 10, axis=0)))  # blocks in linkage
    chosen = log10p.copy()
    chosen[np.arange(2000), random.integers(contexts, size=2000)] += limit
    told = chosen.min(axis=1).max()
    # Of five contexts 95 % of all rows have one with p below 10^-0.35.
    assert log10_p_limit(chosen) == told or (contexts == 5 and limit == -0.35)
    chosen[7] = np.log10(0.9)
    assert np.isnan(log10_p_limit(chosen))


def test_few_rows_do_not_tell_how_they_were_chosen():
    assert log10_p_limit(np.full(20, -7.5)) == -7.5
    assert log10_p_limit(np.append(np.full(20, -7.5), np.nan)) == -7.5
    assert np.isnan(log10_p_limit(np.full(9, -300.0)))
    assert np.isnan(log10_p_limit(np.full(100, -0.5)))  # 0.3^10 is no proof
    assert np.isnan(log10_p_limit([])) and np.isnan(log10_p_limit([np.nan, np.nan]))
    # Every tenth of 300 rows in another block: the chance of none above 1/2 is 2^-30.
    assert log10_p_limit(np.full(310, np.log10(0.499))) == np.log10(0.499)


def test_counted_p_values_are_taken_at_the_middles_of_their_steps():
    p = np.repeat(np.arange(1, 101) / 100, 100)
    found = uniformity(p, resamples=99, level=0.055)
    assert (found.level, found.share) == (0.05, 0.05)
    assert found.inflation == pytest.approx(1.0, abs=0.03)
    assert found.ks_statistic == pytest.approx(0.005)
    assert uniformity(p, level=0.05).share == 0.05
    none = uniformity([0.2, np.nan], level=0.1)
    assert (none.count, none.share, none.low) == (1, 0.0, 0.0) and none.high > 0.9
    assert uniformity([0.0, 0.9]).ad_p < 1e-6
    assert uniformity(np.append(np.arange(1, 20) / 20, 1.0)).ad_p > 0.5


@pytest.mark.parametrize("p", [[], [np.nan], [1.2]])
def test_no_p_values_are_refused(p):
    with pytest.raises(InputError):
        uniformity(p)


@pytest.mark.parametrize("option", [{"level": 0.0}, {"confidence": 1.0}, {"resamples": 0}])
def test_options_outside_their_range_are_refused(option):
    with pytest.raises(OptionError, match=next(iter(option))):
        uniformity([0.5], **option)
