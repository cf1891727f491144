"""Shares of p-values of dependent tests, against bivariate normals, simulation and brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from scipy.stats import t as student

from plait.errors import OptionError, ShapeError
from plait.numerics.dependent_shares import (
    clustered_effective,
    effective_tests,
    rejection_correlation,
    share_interval,
)


@pytest.mark.parametrize("rho", [-0.9, -0.5, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("level", [0.05, 0.3])
def test_rejections_go_together_as_those_of_two_normals(rho, sides, level):
    from scipy.stats import multivariate_normal, norm

    def both_below(r, z):
        return multivariate_normal([0, 0], [[1, r], [r, 1]]).cdf([-z, -z])

    z = norm.isf(level / sides)
    together = both_below(rho, z)
    if sides == 2:
        together = 2 * together + 2 * both_below(-rho, z)
    expected = (together - level**2) / (level * (1 - level))
    np.testing.assert_allclose(rejection_correlation(rho, level, sides), expected, atol=1e-6)


def test_rejections_at_the_ends():
    np.testing.assert_allclose(
        rejection_correlation([-1.0, 0.0, 1.0], 0.05), [1.0, 0.0, 1.0], atol=1e-12
    )
    np.testing.assert_allclose(
        rejection_correlation([-1.0, 1.0], 0.05, sides=1), [-0.05 / 0.95, 1.0]
    )
    with pytest.raises(OptionError, match="sides 3"):
        rejection_correlation(0.1, 0.05, 3)
    with pytest.raises(OptionError, match="level is 0"):
        rejection_correlation(0.1, 0.0)


def test_effective_tests():
    assert effective_tests(np.eye(7), 0.05) == pytest.approx(7)
    assert effective_tests(np.ones((7, 7)), 0.05) == pytest.approx(1)
    blocks = np.kron(np.eye(3), np.ones((4, 4)))
    assert effective_tests(blocks, 0.05) == pytest.approx(3)
    # Missing correlations, of programs that do not vary, are none.
    blocks[0, 1] = blocks[1, 0] = np.nan
    assert 3 < effective_tests(blocks, 0.05) < 4
    with pytest.raises(ShapeError, match=r"\(2, 3\)"):
        effective_tests(np.ones((2, 3)), 0.05)


def test_the_variance_of_a_share_is_that_of_effective_tests():
    random = np.random.default_rng(5)
    rho = np.where(np.add.outer(np.arange(10), np.arange(10)) % 2 == 0, 0.7, -0.6)
    np.fill_diagonal(rho, 1.0)
    z = random.multivariate_normal(np.zeros(10), rho, 200_000, method="eigh", check_valid="raise")
    shares = (np.abs(z) > 1.959964).mean(axis=1)
    assert 0.05 * 0.95 / shares.var() == pytest.approx(effective_tests(rho, 0.05), rel=0.03)


def test_clusters_that_agree_count_once():
    random = np.random.default_rng(2)
    once = random.random(400) < 0.3
    labels = np.repeat(np.arange(400), 5)
    p = np.where(np.repeat(once, 5), 0.01, 0.5)
    assert clustered_effective(p, 0.05, labels) == pytest.approx(400, rel=0.01)
    alone = np.where(random.random(2000) < 0.3, 0.01, 0.5)
    assert clustered_effective(alone, 0.05, np.arange(2000)) == pytest.approx(2000, rel=0.01)


def test_tests_without_a_rejection_cluster_as_their_p_values_do():
    """Twenty groups that agree within are no 400 tests: 0 of 20 says nothing of p-values."""
    p = np.random.default_rng(3).uniform(0.1, 1.0, 20)
    labels = np.repeat(np.arange(20), 20)
    few = (student.ppf(0.975, 399) / student.ppf(0.975, 19)) ** 2
    assert clustered_effective(np.repeat(p, 20), 0.05, labels) == pytest.approx(20 * few)
    scattered = np.random.default_rng(4).uniform(0.1, 1.0, 400)
    assert 200 < clustered_effective(scattered, 0.05, labels) <= 400
    assert clustered_effective(np.ones(400), 0.05, labels) == 20
    assert clustered_effective(np.ones(400), 0.05, labels, np.tile(np.arange(20), 20)) == 20


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize(
    ("n_groups", "by_group", "by_gene"),
    [(3, 0.3, 0.0), (5, 0.7, 0.0), (10, 0.7, 0.0), (20, 0.7, 0.0), (10, 0.9, 0.0), (10, 0.4, 0.3)],
)
def test_intervals_of_few_groups_cover(n_groups, by_group, by_gene, sides):
    """Of 5 to 20 groups with a correlation of 0.7 within, intervals from the variance of
    rejections alone cover 0.80 to 0.85: where few are seen by chance they seem well known."""
    random, inside = np.random.default_rng(1), []
    groups, genes = np.repeat(np.arange(n_groups), 100), np.tile(np.arange(100), n_groups)
    ways = (groups, genes) if by_gene else (groups,)
    for _ in range(500):
        z = np.sqrt(by_group) * random.normal(size=(n_groups, 1))
        z = z + np.sqrt(by_gene) * random.normal(size=100)
        z = z + np.sqrt(1 - by_group - by_gene) * random.normal(size=(n_groups, 100))
        p = (norm.sf(z) if sides == 1 else 2 * norm.sf(abs(z))).ravel()
        tests = clustered_effective(p, 0.05, *ways, sides=sides)
        low, high = share_interval((p < 0.05).mean(), tests)
        inside.append(low <= 0.05 <= high)
    # 0.95 less what chance makes of 500 once in a thousand times.
    assert np.mean(inside) > 0.92
    assert clustered_effective(p, 0.05, np.zeros(len(p))) == 1


def test_intervals_of_few_groups_are_no_wider_than_they_must_be():
    """Groups whose tests are independent keep most of what so many tests say."""
    random = np.random.default_rng(2)
    labels = np.repeat(np.arange(20), 100)
    found = [clustered_effective(random.random(2000), 0.05, labels) for _ in range(50)]
    assert np.median(found) > 0.7 * 2000


def test_clusters_of_two_ways_follow_the_variance_of_a_share():
    rows, columns = np.repeat(np.arange(40), 30), np.tile(np.arange(30), 40)

    def drawn(seed):
        random = np.random.default_rng(seed)
        scores = random.normal(size=40)[rows] + random.normal(size=30)[columns]
        return norm.cdf((scores + random.normal(size=1200)) / np.sqrt(3))

    found = np.array([(drawn(seed) < 0.2).mean() for seed in range(2000)])
    expected = found.mean() * (1 - found.mean()) / found.var()
    estimates = [clustered_effective(drawn(s), 0.2, rows, columns, sides=1) for s in range(200)]
    # Clusters of one way alone see about half of the variance.
    assert np.median(estimates) == pytest.approx(expected, rel=0.2)


@given(st.integers(1, 300), st.floats(0, 1))
def test_the_interval_is_that_of_the_binomial(count, part):
    from scipy.stats import binomtest

    below = round(part * count)
    expected = binomtest(below, count).proportion_ci(0.95)
    found = share_interval(below / count, count)
    np.testing.assert_allclose(found, (expected.low, expected.high), rtol=1e-6, atol=1e-9)
