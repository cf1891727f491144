"""Saddlepoint tails against exact distributions."""

import numpy as np
import pytest
from scipy import stats

from plait.errors import InputError, ShapeError
from plait.numerics.saddlepoint import log10_tail
from plait.numerics.saddlepoint_kernels import (
    exp_of_negative,
    log_normal_tail,
    log_tail_at,
    log_upper_tail,
    saddlepoint_of_many,
    sum_cumulants,
    tilt,
)


def exact(weights, probabilities):
    """Values and probabilities of ``sum w (x - p)``, for whole-numbered weights."""
    low = int(weights[weights < 0].sum())
    law = np.zeros(int(np.abs(weights).sum()) + 1)
    law[-low] = 1.0  # where the sum of the x w is 0
    for w, p in zip(weights.astype(int), probabilities, strict=True):
        law = law * (1 - p) + np.roll(law, w) * p
    values = np.arange(low, low + len(law)) - (weights * probabilities).sum()
    return values, law


def study(random, n, rate, carriers=1.0):
    """Weights as of a genotype with covariates projected out, and probabilities of cases."""
    genotype = np.where(random.random(n) < carriers, random.integers(1, 3, n), 0)
    weights = np.round(200 * (genotype - genotype.mean() + random.normal(0, 0.1, n)))
    return weights, np.clip(rate * np.exp(random.normal(0, 0.3, n)), 0, 1)


@pytest.mark.parametrize(
    ("n", "rate", "carriers"), [(60, 0.3, 0.5), (150, 0.05, 0.3), (300, 0.1, 0.1), (300, 0.5, 0.5)]
)
def test_against_the_exact_distribution(n, rate, carriers):
    random = np.random.default_rng(n)
    weights, p = study(random, n, rate, carriers)
    values, law = exact(weights, p)
    deviation = np.sqrt((weights**2 * p * (1 - p)).sum())
    for z in (0.01, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0):
        c = z * deviation
        for alternative, within in (
            ("two-sided", np.abs(values) >= c), ("greater", values >= c), ("less", values <= c),
        ):  # fmt: skip
            truth = law[within].sum()
            if truth < 1e-14:
                continue
            found = log10_tail(c, weights, p, alternative=alternative)
            assert found == pytest.approx(np.log10(truth), rel=0.02, abs=0.01)


def test_the_sparse_form_agrees_with_the_whole():
    """Non-carriers as one normal term (Dey et al. 2017)."""
    random = np.random.default_rng(2)
    weights, p = study(random, 3000, 0.05, 0.03)
    carried = np.abs(weights) > 100
    variances = weights**2 * p * (1 - p)
    c = 5 * np.sqrt(variances.sum())
    whole = log10_tail(c, weights, p)
    extra = variances[~carried].sum()
    sparse = log10_tail(c, weights[carried], p[carried], extra_variance=extra)
    assert sparse == pytest.approx(whole, rel=0.01)
    normal = (np.log(2) + stats.norm.logsf(5)) / np.log(10)
    assert abs(normal - whole) > 1  # and not because all is normal


def test_a_normal_sum_is_exact():
    random = np.random.default_rng(3)
    weights = random.normal(size=20_000)
    p = np.full(20_000, 0.5)
    deviation = 0.5 * np.sqrt((weights**2).sum())
    for z in (0.0, 0.02, 0.04, 1.0, 5.0, 12.0):
        truth = (np.log(2) + stats.norm.logsf(z)) / np.log(10)
        assert log10_tail(z * deviation, weights, p) == pytest.approx(truth, rel=5e-3, abs=1e-5)
        only = log10_tail(z, [], [], extra_variance=1.0)
        assert only == pytest.approx(truth, rel=1e-9, abs=1e-12)


def test_sides_scales_and_edges():
    random = np.random.default_rng(4)
    weights, p = study(random, 100, 0.1)
    c = 3 * np.sqrt((weights**2 * p * (1 - p)).sum())
    base = log10_tail(c, weights, p)
    assert log10_tail(-c, weights, p) == base
    assert log10_tail(c, -weights, p) == pytest.approx(base, rel=1e-12)
    assert log10_tail(1e-6 * c, 1e-6 * weights, p) == pytest.approx(base, rel=1e-6)
    assert log10_tail(c, weights, p, alternative="less") == pytest.approx(0, abs=0.01)
    # The largest value that there is, and beyond it.
    w, q = np.array([1.0, 2.0, -1.0]), np.array([0.1, 0.2, 0.3])
    top = 0.9 + 1.6 + 0.3
    assert log10_tail(top, w, q, alternative="greater") == pytest.approx(np.log10(0.1 * 0.2 * 0.7))
    assert log10_tail(1.1 * top, w, q) == -np.inf
    assert log10_tail(-1.1 * top, w, q, alternative="greater") == 0
    # Nothing varies.
    assert log10_tail(1.0, w, np.array([0.0, 1.0, 0.0])) == -np.inf
    # Deep tails end without overflow.
    assert -400 < log10_tail(0.999 * weights[weights > 0].sum(), weights, p) < -50


@pytest.mark.parametrize("rate", [0.03, 0.2, 0.5])
def test_the_short_way_agrees_with_the_saddlepoint(rate):
    """Two tails together by Edgeworth's expansion where that suffices, else one by one."""
    random = np.random.default_rng(5)
    for n in (300, 3000, 30_000):
        weights = random.binomial(2, 0.3, n) - 0.6 + random.normal(0, 0.1, n)
        p = rate * random.uniform(0.7, 1.3, n)
        deviation = np.sqrt((weights**2 * p * (1 - p)).sum())
        for z in (0.1, 1.0, 1.7321, 2.0, 2.857, 4.0, 6.0):
            c = z * deviation
            upper = 10 ** log10_tail(c, weights, p, alternative="greater")
            lower = 10 ** log10_tail(-c, weights, p, alternative="less")
            together = log10_tail(c, weights, p)
            assert together == pytest.approx(np.log10(upper + lower), abs=3e-4)


def test_normal_tails():
    x = np.array([-30.0, -8.0, -1.0, 0.0, 1.0, 4.999, 5.001, 8.0, 40.0, 1000.0])
    found = [log_normal_tail(value) for value in x]
    np.testing.assert_allclose(found, stats.norm.logsf(x), rtol=1e-11)


def test_sums_of_many_terms_agree_with_the_plain_loops():
    random = np.random.default_rng(6)
    for n in (37, 5000):
        weights = random.gamma(1.0, size=n) - 0.7
        p = np.clip(0.1 * random.gamma(0.5, size=n), 1e-6, 0.9)
        v = p * (1 - p)
        given = sum_cumulants(weights, p)
        assert given[0] == pytest.approx(weights @ p, rel=1e-12, abs=1e-12)
        assert given[1] == pytest.approx(weights**2 @ v, rel=1e-12)
        assert given[2] == pytest.approx(weights**3 @ (v * (1 - 2 * p)), rel=1e-11)
        assert given[3] == pytest.approx(weights**4 @ (v * (1 - 6 * v)), rel=1e-11)
        assert given[4] == pytest.approx(((v * weights**2) ** 2).sum(), rel=1e-12)
        assert given[5] == pytest.approx(np.minimum(weights, 0).sum(), rel=1e-12)
        assert given[6] == pytest.approx(np.maximum(weights, 0).sum(), rel=1e-12)
        deviation = np.sqrt(given[1])
        for z in (-3.0, -1.0, -0.04, 0.04, 1.0, 4.0, 9.0):
            c = given[0] + z * deviation
            if not given[5] < c < 0.95 * given[6]:
                continue
            plain = log_upper_tail(c - given[0], weights, p, 1.0, 0.0)
            s, first, second = saddlepoint_of_many(c, weights, p, *given[:3])
            found = log_tail_at(c, s, first, second, weights, p)
            assert found == pytest.approx(plain, rel=1e-5)
            tilted = np.empty(n)
            tilt(s, weights, p, tilted)
            assert weights @ tilted == pytest.approx(c, abs=1e-4 * np.sqrt(second))
            assert first == pytest.approx(weights @ tilted, rel=1e-11, abs=1e-11)
            assert second == pytest.approx(weights**2 @ (tilted * (1 - tilted)), rel=1e-11)
        assert np.isnan(saddlepoint_of_many(1.01 * given[6], weights, p, *given[:3])[0])


def test_the_exponential_of_negative_numbers():
    x = -np.concatenate([[0.0, 1e-300, 1e-9], np.logspace(-6, np.log10(700.0), 2000)])
    found = np.array([exp_of_negative(value) for value in x])
    np.testing.assert_allclose(found, np.exp(x), rtol=2e-13)
    assert exp_of_negative(-1e9) == pytest.approx(np.exp(-700.0), rel=1e-12)


def test_bad_input():
    with pytest.raises(ShapeError, match="weights have shape"):
        log10_tail(1.0, [1.0, 2.0], [0.1])
    with pytest.raises(InputError, match="between 0 and 1"):
        log10_tail(1.0, [1.0], [1.1])
    with pytest.raises(InputError, match="finite"):
        log10_tail(1.0, [np.inf], [0.1])
    with pytest.raises(InputError, match="extra_variance"):
        log10_tail(1.0, [1.0], [0.1], extra_variance=-1)
    with pytest.raises(InputError, match="alternative"):
        log10_tail(1.0, [1.0], [0.1], alternative="both")
