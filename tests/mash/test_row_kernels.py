"""Rows with their own error covariances: every width and rank, lanes, and extreme ratios."""

import mpmath
import numpy as np
import pytest

from plait.mash.data import mash_set_data
from plait.mash.kernels import row_log_likelihoods, row_posterior
from plait.mash.likelihoods import Components, ErrorModel, Plan, calc_lik_matrix
from plait.mash.posterior import Request, apply_mixture, groups_of
from tests.mash import oracle
from tests.mash.conftest import random_correlation

NAMES = ("posterior_mean", "posterior_sd", "negative_prob", "zero_prob", "lfsr", "posterior_cov")


def matrices_of_ranks(random, R, ranks):
    factors = {f"rank {rank}": random.normal(size=(R, rank)) for rank in ranks}
    matrices = {name: factor @ factor.T for name, factor in factors.items()}
    first = np.zeros((R, R))
    first[0, 0] = 1.0
    return matrices | {"first": first}


def problem(random, R, effects, missing, correlated, ranks):
    bhat = 3 * random.normal(size=(effects, R))
    shat = random.uniform(0.5, 1.5, (effects, R))
    mask = random.random((effects, R)) < missing
    bhat[mask], shat[mask] = np.nan, np.nan
    V = None
    if correlated:
        # Some effects with a diagonal error covariance among the others.
        V = np.stack(
            [random_correlation(random, R) if j % 3 else np.eye(R) for j in range(effects)]
        )
    data = mash_set_data(bhat, shat, V=V, missing="exact")
    matrices = matrices_of_ranks(random, R, ranks)
    components = Components(matrices, np.array([0.0, 0.3, 1.0, 1.5, 2.0, 2.5]), True)
    return data, components, random.dirichlet(np.ones(components.size))


@pytest.mark.parametrize("R", [1, 2, 3, 4, 5, 8, 13])
@pytest.mark.parametrize("correlated", [False, True])
@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize("outputs", [None, 1, 9])
def test_all_widths_and_ranks_agree_with_brute_force(random, R, correlated, missing, outputs):
    ranks = sorted({0, 1, 2, R // 2, R - 1, R} & set(range(R + 1)))
    data, components, pi = problem(random, R, 19, missing, correlated, ranks)
    A = None if outputs is None else random.normal(size=(outputs, R))
    matrices = [np.zeros((R, R))] + [
        g**2 * U for g in components.grid for U in components.covariances.values()
    ]
    sigma, observed = data.error_covariances(slice(None)), data.observed(slice(None))
    loglik = oracle.log_likelihoods(data.Bhat, sigma, matrices, observed)
    np.testing.assert_allclose(calc_lik_matrix(data, components, log=True), loglik, atol=1e-9)
    found = apply_mixture(data, components, pi, Request(A=A, covariance=True))
    expected = oracle.posterior(data.Bhat, sigma, matrices, pi, observed, A)
    for name in NAMES:
        np.testing.assert_allclose(found[name], expected[name], atol=2e-8, err_msg=name)
    again = apply_mixture(data, components, pi, Request(A=A))
    for name in NAMES[:-1]:
        np.testing.assert_array_equal(again[name], found[name], err_msg=name)


def test_a_wide_row_that_misses_most_cells_has_a_likelihood(random):
    """What the reduction leaves of its matrix falls below the smallest numbers."""
    data, components, _ = problem(random, 30, 64, 0.8, False, [29, 30])
    loglik = calc_lik_matrix(data, components, log=True)
    matrices = [np.zeros((30, 30))] + [
        g**2 * U for g in components.grid for U in components.covariances.values()
    ]
    expected = oracle.log_likelihoods(
        data.Bhat, data.error_covariances(slice(None)), matrices, data.observed(slice(None))
    )
    np.testing.assert_allclose(loglik, expected, atol=1e-8)


@pytest.mark.parametrize("diagonal", [True, False])
def test_rows_beside_do_not_change_a_bit(random, diagonal):
    data, components, pi = problem(random, 6, 40, 0.2, not diagonal, [1, 3, 6])
    model, plan = ErrorModel(data, components), Plan.of(components, None)
    errors = model.row_inputs(slice(None))
    # Rows that need every component, and rows that need few.
    weights = pi[:, None] * np.exp(-60 * random.random((len(pi), 40)))
    weights[5:, ::3] *= 1e-40
    weights /= weights.sum(axis=0)
    mapped = (False, np.zeros((1, 1)), np.ones((40, 6)))

    def summaries(rows):
        loglik = np.zeros((plan.size, 40))
        parts = (components.padded, components.products, components.offsets)
        assert row_log_likelihoods(errors, rows, diagonal, *parts, plan.arrays, loglik) == -1
        outputs = (*np.zeros((5, 40, 6)), np.zeros((40, 6, 6)))
        groups = groups_of(components, np.arange(components.size))
        factors = components.triangular
        row_posterior(errors, rows, diagonal, weights, 0, groups, factors, mapped, True, outputs)
        return [loglik.T[rows], *(values[rows] for values in outputs)]

    whole = summaries(np.arange(40))
    for rows in (random.permutation(40), np.arange(3, 40, 7), np.array([11, 25])):
        for part, values in zip(summaries(rows), whole, strict=True):
            np.testing.assert_array_equal(part, values[rows])


def exact_posterior(bhat, shat, matrices, pi):
    """Weights, means, standard deviations and lfsr with many digits."""
    R = len(bhat)
    b, S = mpmath.matrix(bhat), mpmath.diag([mpmath.mpf(s) ** 2 for s in shat])
    parts = []
    for U, p in zip(matrices, pi, strict=True):
        prior = mpmath.matrix(U)
        inverse = (S + prior) ** -1
        form = (b.T * inverse * b)[0]
        weight = p * mpmath.sqrt(mpmath.det(inverse)) * mpmath.exp(-form / 2)
        parts.append((weight, prior * inverse * b, prior - prior * inverse * prior))
    total = mpmath.fsum(part[0] for part in parts)
    mean, sd, lfsr = [], [], []
    for q in range(R):
        share = [part[0] / total for part in parts]
        centre = mpmath.fsum(w * part[1][q] for w, part in zip(share, parts, strict=True))
        spread = mpmath.fsum(
            w * (part[2][q, q] + (part[1][q] - centre) ** 2)
            for w, part in zip(share, parts, strict=True)
        )
        sides = [mpmath.mpf(0), mpmath.mpf(0)]
        for w, part in zip(share, parts, strict=True):
            z = part[1][q] / mpmath.sqrt(2 * part[2][q, q])
            sides[0] += w * mpmath.erfc(z) / 2
            sides[1] += w * mpmath.erfc(-z) / 2
        mean.append(float(centre))
        sd.append(float(mpmath.sqrt(spread)))
        lfsr.append(float(min(sides)))
    return np.array(mean), np.array(sd), np.array(lfsr)


@pytest.mark.parametrize("ratio", [1e-9, 1e-4, 1.0, 1e4, 1e9])
@pytest.mark.parametrize("nearly", [1.0, 1e-6, 1e-10])
def test_nothing_cancels_at_any_ratio_of_prior_to_error(random, ratio, nearly):
    """Also for prior covariances that are nearly singular."""
    direction = np.array([1.0, -1.0, 1e-3, 1.0])
    U = np.outer(direction, direction) + np.diag([1.0, 2.0, 1.0, 3.0]) * nearly
    shat = random.uniform(0.5, 1.5, (9, 4))
    bhat = shat * random.normal(size=(9, 4)) * 2
    components = Components({"U": U}, np.array([ratio]), False)
    found = apply_mixture(mash_set_data(bhat, shat), components, np.ones(1), Request())
    # The rounding of U itself shows as far as its small eigenvalues matter beside the errors.
    tolerance = 1e-12 + 1e-14 * min(ratio**2, 1 / nearly)
    for j in range(len(bhat)):
        with mpmath.workdps(80):
            prior = mpmath.mpf(ratio) ** 2 * mpmath.matrix(U.tolist())
            mean, sd, lfsr = exact_posterior(bhat[j], shat[j], [prior], [1])
        distance = (found["posterior_mean"][j] - mean) / sd
        np.testing.assert_allclose(distance, 0.0, atol=tolerance)
        np.testing.assert_allclose(found["posterior_sd"][j], sd, rtol=tolerance)
        np.testing.assert_allclose(found["lfsr"][j], lfsr, rtol=10 * tolerance)


def test_a_tiny_share_that_makes_the_tail_is_counted():
    """The heavy component (taken first) is certain of the sign; the light one makes the lfsr."""
    bhat, shat = np.array([[30.0, 28.0]]), np.array([[1.0, 1.1]])
    U = {"one": np.ones((2, 2)), "two": np.diag([1e-2, 2e-2])}
    components = Components(U, np.array([30.0]), False)
    weights = np.array([1 - 1e-9, 1e-9])
    with mpmath.workdps(60):
        _, _, lfsr = exact_posterior(
            bhat[0], shat[0], [(900 * matrix).tolist() for matrix in U.values()], weights
        )
    found = apply_mixture(mash_set_data(bhat, shat), components, weights, Request())
    assert np.all(lfsr < 1e-60)
    np.testing.assert_allclose(found["lfsr"][0], lfsr, rtol=1e-9)
