"""Analytic p-values under permutation within strata: against enumeration and draws."""

from itertools import combinations, pairwise, product
from math import comb

import numpy as np
import pytest

from plait.crt.analytic import analytic_p_values, analytic_table
from plait.crt.null_statistics import null_effects
from plait.crt.resampling import StratifiedResampler
from plait.crt.seeds import UnitStream
from plait.crt.strata import Strata, StrataOptions, Stratification
from plait.crt.stratified_kernels import (
    finite_population,
    log_tail_within_strata,
)
from plait.errors import ShapeError
from tests.crt.cases import random_screen


def all_sums(values, sizes, treated):
    """Every sum of ``treated`` of ``sizes`` values, stratum by stratum, all equally likely."""
    starts = np.concatenate([[0], np.cumsum(sizes)])
    parts = [
        [sum(chosen) for chosen in combinations(values[begin : begin + n], m)]
        for begin, n, m in zip(starts[:-1], sizes, treated, strict=True)
    ]
    return np.array([sum(chosen) for chosen in product(*parts)])


@pytest.mark.parametrize(("n", "m"), [(2, 1), (3, 1), (3, 2), (4, 2), (7, 3), (8, 7)])
def test_cumulants_of_a_finite_population(n, m):
    random = np.random.default_rng(n * 10 + m)
    d = random.standard_normal(n)
    d -= d.mean()
    sums = all_sums(d, [n], [m])
    variance = (sums**2).mean()
    factors = np.empty((1, 4))
    finite_population(np.array([n]), np.array([m]), factors)
    p2, p3, p4 = (d**2).sum(), (d**3).sum(), (d**4).sum()
    assert factors[0, 0] * p2 == pytest.approx(variance, rel=1e-12)
    assert factors[0, 1] * p3 == pytest.approx((sums**3).mean(), rel=1e-9, abs=1e-12)
    fourth = (sums**4).mean() - 3 * variance**2
    assert factors[0, 2] * p4 + factors[0, 3] * p2**2 == pytest.approx(fourth, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("sizes", "treated"),
    [((8, 7, 9), (3, 2, 4)), ((18,), (7,)), ((2, 2, 2, 3, 12), (1, 1, 1, 2, 5))],
)
def test_tails_against_enumeration(sizes, treated):
    random = np.random.default_rng(sum(sizes))
    d = random.gamma(2.0, size=sum(sizes))
    starts = np.concatenate([[0], np.cumsum(sizes)])
    d[np.repeat(sizes, sizes) < 5] *= 0.3  # pairs of equal weight would make the sum lumpy
    for begin, end in pairwise(starts):
        d[begin:end] -= d[begin:end].mean()
    sums = all_sums(d, sizes, treated)
    variance = (sums**2).mean()
    skewness = (sums**3).mean() / variance**1.5
    given = (d, starts.astype(np.int64), np.array(treated), variance, skewness)
    shifts = np.empty(len(sizes))
    for z in (-2.0, -1.0, -0.02, 0.0, 0.5, 1.0, 2.0, 2.5):
        c = z * np.sqrt(variance)
        p0 = (sums >= c).mean()
        if 0.001 < p0 < 0.999:
            found = np.exp(log_tail_within_strata(c, *given, shifts)[0])
            assert found == pytest.approx(p0, rel=0.06, abs=0.004)
    assert np.isnan(log_tail_within_strata(1.01 * sums.max(), *given, shifts)[0])


@pytest.fixture(scope="module")
def screen():
    made = random_screen(n_cells=2000, n_outcomes=3, n_covariates=3, mean=0.06, seed=14)
    random = np.random.default_rng(15)
    outcome = np.log(random.gamma(0.8, size=(2000, 3))) + 0.5 * made.design[:, 1:2]
    made.residuals = outcome - made.basis @ (made.basis.T @ outcome)
    made.table = analytic_table(made.residuals, made.basis)
    treated = np.flatnonzero(random.random(2000) < made.probabilities)
    batch = (made.design[:, 1] > 0.5).astype(int)
    made.strata = Stratification(StrataOptions(n_bins=12), batch).strata(
        made.probabilities, treated
    )
    return made


def p_values_of(screen, strata, beta, **options):
    return analytic_p_values(
        screen.table,
        beta[None],
        screen.probabilities[:, None],
        ["unit"],
        strata=[strata],
        **options,
    )


def forced(strata):
    """The same strata with one of them treated whole, and one not at all."""
    treated = strata.treated.copy()
    treated[2], treated[5] = strata.sizes[2], 0
    return Strata(strata.stratum, strata.sizes, treated, strata.propensity_bins)


@pytest.mark.parametrize("case", ["as drawn", "some forced", "one stratum"])
def test_against_draws(screen, case):
    strata = screen.strata
    if case == "some forced":
        strata = forced(strata)
    if case == "one stratum":
        zeros = np.zeros(2000, dtype=np.int64)
        strata = Strata(zeros, np.array([2000]), np.array([screen.strata.treated.sum()]), 1)
    draws = 200_000
    resampler = StratifiedResampler(strata.stratum, strata.treated, UnitStream(1, case))
    null = null_effects(screen.table.cells, resampler, draws).values
    mean, deviation = null.mean(axis=0), null.std(axis=0)
    for z in (-2.0, 0.4, 1.0, 2.0, 3.0, 3.8):
        beta = mean + z * deviation
        for side, extreme in (
            ("both", np.abs(null) >= np.abs(beta)), ("right", null >= beta), ("left", null <= beta),
        ):  # fmt: skip
            p0 = extreme.mean(axis=0)
            # The first in the bulk, the second by the saddlepoint wherever that can be.
            for bulk_above in (0.02, 0.999):
                found = p_values_of(screen, strata, beta, side=side, bulk_above=bulk_above)
                known = p0 * draws >= 30
                error = np.abs(np.log(found.p_value[0] / p0))[known]
                assert (error <= 0.03 + 5 / np.sqrt(p0 * draws)[known]).all()
    assert found.null_mean[0] == pytest.approx(mean, abs=0.02 * deviation.min())
    assert found.null_sd[0] == pytest.approx(deviation, rel=0.03)


def conditional_draws(odds, m, draws, random):
    """Draw m of the cells with chances in proportion to the product of odds; their log total.

    Cell by cell: the elementary symmetric polynomials of the odds of the cells still to come give
    each one's chance (Chen, Dempster and Liu 1994).
    """
    n = len(odds)
    total = np.zeros((n + 1, m + 1))
    total[:, 0] = 1.0
    for i in range(n - 1, -1, -1):
        total[i, 1:] = total[i + 1, 1:] + odds[i] * total[i + 1, :-1]
    left = np.full(draws, m)
    x = np.zeros((draws, n))
    for i in range(n):
        some = left > 0
        chance = np.zeros(draws)
        chance[some] = odds[i] * total[i + 1, left[some] - 1] / total[i, left[some]]
        x[:, i] = random.random(draws) < chance
        left -= x[:, i].astype(int)
    return x, np.log(total[0, m])


def test_deep_tails_against_importance_sampling():
    """The exact S / D of draws from the tilted law within strata, weighted."""
    random = np.random.default_rng(21)
    sizes, treated = np.array([60, 50, 40, 50]), np.array([9, 12, 6, 10])
    n, draws = sizes.sum(), 10_000
    stratum = np.repeat(np.arange(4), sizes)
    design = np.column_stack([np.ones(n), random.standard_normal((n, 2)) + 0.3 * stratum[:, None]])
    basis = np.linalg.qr(design)[0]
    values = np.log(random.gamma(1.0, size=(n, 1)))
    residuals = values - basis @ (basis.T @ values)
    table = analytic_table(residuals, basis)
    strata = Strata(stratum, sizes, treated, 4)
    p = np.repeat((treated / sizes)[:, None], sizes, axis=0).reshape(n, 1)
    deviation = analytic_p_values(table, np.ones((1, 1)), p, ["u"], strata=[strata]).null_sd[0, 0]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    for z in (-5.0, -2.0, 2.5, 5.0):
        beta = z * deviation
        found = analytic_p_values(
            table, np.array([[beta]]), p, ["u"], strata=[strata], side="right" if z > 0 else "left"
        )
        # Any tilt gives an unbiased estimate; this one leads near the observed effect.
        s = abs(z) / (deviation * treated.sum())
        r = np.sign(z) * residuals[:, 0]
        estimates = []
        for tilt in s * np.array([0.7, 1.0, 1.5, 2.2, 3.2]):
            parts, log_mass = [], 0.0
            for h in range(4):
                cells = slice(starts[h], starts[h + 1])
                x, log_total = conditional_draws(np.exp(tilt * r[cells]), treated[h], draws, random)
                parts.append(x)
                log_mass += log_total - np.log(float(comb(sizes[h], treated[h])))
            x = np.hstack(parts)
            effect = (x @ r) / (x.sum(1) - ((x @ basis) ** 2).sum(1))
            weight = np.where(effect >= abs(beta), np.exp(log_mass - tilt * (x @ r)), 0.0)
            if weight.any():
                estimates.append((weight.std() / weight.mean() / np.sqrt(draws), weight.mean()))
        error, p0 = min(estimates)
        assert error < 0.06
        assert found.method[0, 0] == "saddlepoint"
        assert abs(10 ** found.log10_p[0, 0] / p0 - 1) < 0.05 + 4 * error


def test_deep_tails_decrease_smoothly(screen):
    deviation = p_values_of(screen, screen.strata, np.ones(3)).null_sd[0]
    depths = np.linspace(3.0, 12.0, 10)
    found = np.array([p_values_of(screen, screen.strata, z * deviation).log10_p[0] for z in depths])
    assert (np.diff(found, axis=0) < 0).all()
    assert (np.abs(np.diff(found, n=2, axis=0)) < 1.0).all()
    assert found.min() < -15


def test_units_of_a_block_and_threads(screen):
    random = np.random.default_rng(16)
    strata = [forced(screen.strata), screen.strata] * 3
    beta = random.normal(0, 0.2, (6, 3))
    names = [str(j) for j in range(6)]
    p = np.repeat(screen.probabilities[:, None], 6, axis=1)
    whole = analytic_p_values(screen.table, beta, p, names, strata=strata, threads=1)
    again = analytic_p_values(screen.table, beta, p, names, strata=strata, threads=3)
    assert np.array_equal(whole.log10_p, again.log10_p)
    for j in (1, 4):
        one = analytic_p_values(screen.table, beta[[j]], p[:, [j]], [names[j]], strata=[strata[j]])
        assert np.array_equal(one.log10_p[0], whole.log10_p[j])


def test_no_variation_and_few_treated(screen):
    nothing = Strata(
        screen.strata.stratum, screen.strata.sizes, np.zeros_like(screen.strata.sizes), 12
    )
    found = p_values_of(screen, nothing, np.ones(3))
    assert (found.p_value == 1.0).all() and (found.method == "none").all()
    few = np.minimum(screen.strata.treated, 1)
    few[3:] = 0
    found = p_values_of(
        screen,
        Strata(screen.strata.stratum, screen.strata.sizes, few, 12),
        np.ones(3),
        max_resamples=3000,
    )
    assert (found.method == "monte carlo").all() and (found.flag == "few_treated").all()
    with pytest.raises(ShapeError, match="strata of 2"):
        analytic_p_values(
            screen.table,
            np.ones((1, 3)),
            screen.probabilities[:, None],
            ["u"],
            strata=[screen.strata] * 2,
        )


def test_beyond_support_is_drawn(screen):
    largest = np.abs(screen.residuals).max(axis=0)
    found = p_values_of(screen, screen.strata, 3.0 * largest, max_resamples=2000)
    assert (found.flag == "beyond_support").all()
    assert found.p_value[0] == pytest.approx(np.full(3, 1 / 2001))
