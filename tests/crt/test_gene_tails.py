"""Analytic p-values of the score statistic against draws, near and far."""

import math

import numpy as np
import pytest
from numba import njit

from plait.crt.gene_design import GeneDesign
from plait.crt.gene_tail_kernels import SADDLEPOINT, fill_log_odds, gene_tails, log_tail
from plait.crt.gene_tests import _of_side
from plait.crt.negative_binomial import fit_gene
from plait.crt.resampling import BernoulliResampler, StratifiedResampler, index_lists
from plait.crt.score_nulls import NullScores, Stages, log_binomial, tilted_p_value
from plait.crt.seeds import UnitStream


def case(seed=0, n=500, mean=1.0, theta=1.5, share=0.08):
    """Return parts of a gene, log odds of a treatment and its coefficients."""
    random = np.random.default_rng(seed)
    x = np.column_stack([np.ones(n), random.standard_normal(n), random.integers(0, 2, n)])
    design = GeneDesign.of(["1", "a", "b"], x).rows
    mu = mean * np.exp(0.5 * x[:, 1])
    y = random.poisson(mu * random.gamma(theta, 1 / theta, n)).astype(float)
    coefficients = np.array([math.log(share / (1 - share)), 0.4, 0.3])
    log_odds = np.empty(n)
    fill_log_odds(design, coefficients, log_odds)
    return design, fit_gene(design, y).parts, log_odds, coefficients


@njit
def draws(parts, chances, n_treated, resamples, seed):
    np.random.seed(seed)  # noqa: NPY002
    n = parts.shape[1]
    order, z = np.arange(n), np.empty(resamples)
    sums = np.zeros(parts.shape[0])
    for b in range(resamples):
        sums[:] = 0.0
        if n_treated > 0:
            for k in range(n_treated):
                j = k + np.random.randint(0, n - k)  # noqa: NPY002
                order[k], order[j] = order[j], order[k]
                sums += parts[:, order[k]]
        else:
            for i in range(n):
                if np.random.random() < chances[i]:  # noqa: NPY002
                    sums += parts[:, i]
        variance = sums[1] - np.sum(sums[3:] ** 2)
        z[b] = sums[0] / np.sqrt(variance) if variance > 0 else 0.0
    return z


@pytest.mark.parametrize("is_permuted", [False, True])
@pytest.mark.parametrize("share", [0.08, 0.3])
def test_tails_agree_with_draws(is_permuted, share):
    design, parts, log_odds, coefficients = case(seed=int(100 * share), share=share)
    chances = 1 / (1 + np.exp(-log_odds))
    n_treated = round(share * len(chances))
    resamples = 200_000
    null = np.sort(draws(parts, chances, n_treated if is_permuted else 0, resamples, 1))
    checked = 0
    for p in (0.3, 0.05, 1e-2, 1e-3):
        for z in (null[int(p * resamples)], null[int((1 - p) * resamples)]):
            log_p, method = np.empty(1), np.empty(1, dtype=np.int64)
            gene_tails(
                np.array([z]), parts, design, coefficients[None], np.array([float(n_treated)]),
                is_permuted, np.empty((5, len(chances))), log_p, method,
            )  # fmt: skip
            share_beyond = np.mean(null >= z) if z >= 0 else np.mean(null <= z)
            hits = share_beyond * resamples
            assert method[0] <= SADDLEPOINT
            assert abs(log_p[0] - np.log(share_beyond)) < 0.1 + 5 / np.sqrt(hits)
            checked += 1
    assert checked == 8


@pytest.mark.parametrize("is_permuted", [False, True])
@pytest.mark.parametrize("z", [-5.0, -4.0, 5.0, 9.0])
def test_deep_tails_agree_with_tilted_draws(is_permuted, z):
    """Expanded about the law before tilting, the first of these would be off by e^-3."""
    _, parts, log_odds, _ = case(seed=3, n=700, share=0.06)
    n_treated = 42 if is_permuted else None
    if is_permuted:
        log_odds = np.full(len(log_odds), math.log(42 / 658))
    chances = 1 / (1 + np.exp(-log_odds))
    log_p, method, s, _ = log_tail(
        z, parts, log_odds, chances, is_permuted, False, np.empty((3, len(chances)))
    )
    side = "right" if z > 0 else "left"
    drawn, error = tilted_p_value(z, side, parts, log_odds, n_treated, UnitStream(1, "a"))
    assert method == SADDLEPOINT and s > 0
    assert error < 0.25
    assert log_p < math.log(1e-4)
    assert abs(log_p - drawn) < 0.3 + 4 * error


def test_tilted_draws_are_unbiased():
    _, parts, log_odds, _ = case(seed=4, share=0.05, n=300)
    chances = 1 / (1 + np.exp(-log_odds))
    resamples = 400_000
    null = draws(parts, chances, 0, resamples, 2)
    for z in np.quantile(null, [0.002, 0.998]):
        side = "right" if z > 0 else "left"
        log_p, error = tilted_p_value(z, side, parts, log_odds, None, UnitStream(1, "b"))
        counted = np.mean(null >= z) if z > 0 else np.mean(null <= z)
        spread = math.hypot(error, 1 / math.sqrt(counted * resamples))
        assert abs(log_p - math.log(counted)) < 5 * spread
    null = draws(parts, chances, 15, resamples, 3)
    odds = np.full(len(chances), math.log(15 / 285))
    z = float(np.quantile(null, 0.998))
    log_p, error = tilted_p_value(z, "right", parts, odds, 15, UnitStream(1, "b"))
    counted = np.mean(null >= z)
    assert abs(log_p - math.log(counted)) < 5 * math.hypot(error, 1 / math.sqrt(800))


def test_counted_p_values():
    _, parts, log_odds, _ = case(seed=5, share=0.03)
    chances = 1 / (1 + np.exp(-log_odds))
    null = NullScores([parts], BernoulliResampler(chances, UnitStream(1, "c")))
    many = np.sort(draws(parts, chances, 0, 100_000, 4))
    for p in (0.4, 0.1, 0.01):
        z = float(many[int((1 - p) * len(many))])
        (found,), (is_enough,), (is_right,) = null.counted(np.array([z]), "right", 100_000)
        assert is_enough and is_right
        assert abs(math.log(found / np.mean(many >= z))) < 5 * math.sqrt(1 / 20 + 1 / 1000)
    (both,), _, _ = null.counted(np.array([z]), "both", 100_000)
    assert both == pytest.approx(2 * found)
    (least,), (is_enough,), _ = null.counted(np.array([50.0]), "right", 2048)
    assert least == 1 / 2049 and not is_enough


def test_of_both_sides_the_smaller_tail_is_doubled_wherever_the_null_has_its_middle():
    """As covariates that describe a gene badly move it: 0 may be far out in a tail."""
    _, parts, log_odds, _ = case(seed=5, share=0.03)
    parts[0] += 0.8 * parts[0].std()
    chances = 1 / (1 + np.exp(-log_odds))
    resampler = BernoulliResampler(chances, UnitStream(1, "c"))
    many = np.sort(draws(parts, chances, 0, 100_000, 4))
    assert many[500] > 0.0
    z = np.quantile(many, [0.002, 0.02, 0.3, 0.9, 0.999])
    null = NullScores([parts] * len(z), resampler)
    found, _, is_right = null.counted(z, "both", 100_000)
    assert is_right.tolist() == [False, False, False, True, True]
    expected = 2 * np.array([0.002, 0.02, 0.3, 0.1, 0.001])
    assert (np.abs(np.log(found / expected)) < 5 * math.sqrt(1 / 20 + 1 / 100)).all()


def test_stages_count_resamples_that_are_the_data():
    """Of 56 treatments one is the data, and sums of its cells are rounded by their order."""
    _, parts, _, _ = case(seed=6, n=8, mean=3.0)
    resampler = StratifiedResampler(np.zeros(8, dtype=np.int64), [3], UnitStream(1, "f"))
    _, cells = index_lists(resampler, 499)
    treated = cells.reshape(499, 3)
    null = NullScores([parts], resampler)
    z, _ = null.draws(0, 499)
    for observed in ([0, 1, 2], [1, 4, 6], [2, 3, 7]):
        (at,) = np.flatnonzero((treated == observed).all(axis=1))[:1]
        others = [np.unique(z[(treated == row).all(axis=1)]).mean() for row in treated]
        exact = np.array(others) >= others[at] - 1e-9
        for sign in (-1, 1):  # as rounded down, and up
            found = null.staged(z[at] * (1 + sign * 1e-14), "right", Stages(499, 0, 0))
            assert found.p_value == (1 + exact.sum()) / 500


def test_permutations_keep_the_number_of_treated_cells():
    _, parts, _, _ = case(seed=6)
    stratum = np.zeros(parts.shape[1], dtype=int)
    null = NullScores([parts], StratifiedResampler(stratum, [25], UnitStream(1, "d")))
    found = np.sort(np.concatenate([null.block(i)[:, 0] for i in range(40)]))
    expected = np.sort(draws(parts, np.zeros(1), 25, 20_480, 5))
    gaps = np.abs(np.searchsorted(found, expected) - np.arange(len(expected))) / len(expected)
    assert gaps.max() < 2.6 * math.sqrt(2 / len(expected))  # Kolmogorov and Smirnov, p 1e-6


def test_sides():
    tail = math.log(0.01)
    assert math.exp(_of_side(tail, 3.0, "both")) == pytest.approx(0.02)
    assert math.exp(_of_side(tail, 3.0, "right")) == pytest.approx(0.01)
    assert math.exp(_of_side(tail, 3.0, "left")) == pytest.approx(0.99)
    assert math.exp(_of_side(tail, -3.0, "left")) == pytest.approx(0.01)
    assert math.exp(_of_side(math.log(0.7), 0.1, "both")) == pytest.approx(0.6)
    assert _of_side(0.0, 0.0, "both") == 0.0
    assert log_binomial(3, 10, 0.2) == pytest.approx(math.log(120 * 0.2**3 * 0.8**7))


def test_memory_does_not_grow_with_resamples():
    """Draws are added up as they come; sceptre and its Python port hold them all (defect 13)."""
    import tracemalloc

    _, parts, log_odds, _ = case(seed=7)
    chances = 1 / (1 + np.exp(-log_odds))
    peaks = []
    for resamples in (1024, 1024, 32_768):
        null = NullScores([parts], BernoulliResampler(chances, UnitStream(1, "e")))
        tracemalloc.start()
        (p,), _, _ = null.counted(np.array([60.0]), "right", resamples)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert p == 1 / (resamples + 1)
    assert peaks[2] < 1.2 * peaks[1]
