"""Likelihoods and posteriors: against the reference program and against brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plait.execution.threads import use_threads
from plait.mash.covariances import cov_canonical
from plait.mash.data import mash_set_data, mash_update_data, subset_mash_data
from plait.mash.likelihoods import Components, calc_lik_matrix, calc_relative_lik_matrix
from plait.mash.posterior import Request, apply_mixture, completed_moments, error_second_moment
from tests.mash import oracle
from tests.mash.conftest import random_correlation
from tests.reference_files import load

FIELDS = {
    "posterior_mean": "PosteriorMean",
    "posterior_sd": "PosteriorSD",
    "negative_prob": "NegativeProb",
    "lfsr": "lfsr",
    "zero_prob": "lfdr",
    "vloglik": "vloglik",
    "null_loglik": "null_loglik",
    "alt_loglik": "alt_loglik",
    "posterior_cov": "PosteriorCov",
}


def components_of(file, prefix):
    names = [str(name) for name in file[prefix + "U_names"]]
    matrices = dict(zip(names, file[prefix + "U_stack"], strict=True))
    grid, pi = file[prefix + "grid"], file[prefix + "pi"]
    return Components(matrices, grid, len(pi) == len(names) * len(grid) + 1), pi


def assert_reproduces(file, prefix, data, tolerance=1e-9, **request):
    components, pi = components_of(file, prefix)
    found = apply_mixture(data, components, pi, Request(**request))
    compared = 0
    for ours, theirs in FIELDS.items():
        if ours in found and prefix + theirs in file:
            np.testing.assert_allclose(found[ours], file[prefix + theirs], rtol=0, atol=tolerance)
            compared += 1
    assert compared >= 4


@pytest.mark.parametrize(
    "prefix", ["fit_", "uniform_", "nopm_", "grid3_nw101_", "mixEM_", "tight_"]
)
def test_reference_canonical(prefix):
    file = load("mash", "a_canonical.npz")
    assert_reproduces(file, prefix, mash_set_data(file["Bhat"], file["Shat"]))


def test_reference_data_driven():
    file = load("mash", "b_datadriven.npz")
    assert_reproduces(file, "fit_", mash_set_data(file["Bhat"], file["Shat"]))


def test_reference_alpha_one():
    file = load("mash", "c_alpha1.npz")
    data = mash_set_data(file["Bhat_in"], file["Shat_in"], alpha=1)
    np.testing.assert_allclose(data.Bhat, file["Bhat"], rtol=1e-14)
    assert_reproduces(file, "fit_", data)


def test_reference_alpha_half():
    file = load("mash", "c_alpha1.npz")
    data = mash_set_data(file["Bhat_in"][:300], file["Shat_in"][:300], alpha=0.5)
    prefix = "alpha0.5_first300_"
    assert_reproduces(file, prefix, data)
    components, _ = components_of(file, prefix)
    loglik = calc_lik_matrix(data, components, log=True)
    expected = file[prefix + "rel_loglik"] + file[prefix + "lfactors"][:, None]
    np.testing.assert_allclose(loglik, expected, rtol=0, atol=1e-9)


def test_reference_varying_errors_and_output_map():
    file = load("mash", "c2_varying_alpha0.npz")
    data = mash_set_data(file["Bhat"], file["Shat"])
    assert_reproduces(file, "fit_", data)
    assert_reproduces(file, "A_", data, A=file["A"], covariance=True)
    new = mash_set_data(file["new_Bhat"], file["new_Shat"])
    for key in ("U_names", "U_stack", "grid", "pi"):
        file["new_" + key] = file["fit_" + key]
    assert_reproduces(file, "new_", new, covariance=True)


def test_reference_correlated_errors():
    file = load("mash", "d_corr.npz")
    data = mash_set_data(file["Bhat"], file["Shat"], V=file["V"])
    assert_reproduces(file, "fit_", data)
    components, pi = components_of(file, "fit_")
    first = subset_mash_data(data, slice(0, 300))
    found = apply_mixture(first, components, pi, Request(covariance=True))
    np.testing.assert_allclose(
        found["posterior_cov"], file["first300_PosteriorCov"], rtol=0, atol=1e-9
    )


def test_reference_correlation_per_effect():
    file = load("mash", "e_per_effect_V.npz")
    data = mash_set_data(file["Bhat"], file["Shat"], V=file["V_RRJ"])
    assert_reproduces(file, "fit_", data)
    relative = calc_relative_lik_matrix(data, components_of(file, "fit_")[0])
    np.testing.assert_allclose(relative["loglik_matrix"], file["fit_rel_loglik"], atol=1e-9)
    np.testing.assert_allclose(relative["lfactors"], file["fit_lfactors"], atol=1e-9)


@pytest.mark.parametrize(("name", "ref"), [("1", 0), ("5", 4), ("mean", "mean")])
def test_reference_contrasts(name, ref):
    file = load("mash", "f_contrast.npz")
    data = mash_update_data(mash_set_data(file["Chat"], file["Shat"]), ref=ref)
    prefix = f"ref_{name}_"
    for field in ("Bhat", "L", "LSVSLt", "Shat"):
        np.testing.assert_allclose(getattr(data, field), file[prefix + field], atol=1e-12)
    assert_reproduces(file, prefix, data)


def test_reference_contrast_with_varying_errors():
    file = load("mash", "f_contrast.npz")
    data = mash_set_data(file["vary_Chat"], file["vary_Shat"], V=file["vary_V"])
    data = mash_update_data(data, ref=0)
    np.testing.assert_allclose(data.LSVSLt[:50], file["vary_ref1_LSVSLt_first50"], atol=1e-12)
    assert_reproduces(file, "vary_ref1_", data)


def test_reference_many_conditions():
    file = load("mash", "g_many.npz")
    assert_reproduces(file, "fit_", mash_set_data(file["Bhat"]))


@pytest.mark.parametrize(("prefix", "alpha"), [("fit_", 0), ("alpha1_", 1)])
def test_reference_missing_cells(prefix, alpha):
    file = load("mash", "k_missing.npz")
    data = mash_set_data(file["Bhat_in_nan"], file["Shat_in_nan"], alpha=alpha)
    assert data.missing == "large_se"
    assert_reproduces(file, prefix, data)


def test_reference_posterior_covariance():
    file = load("mash", "m_sampling.npz")
    data = mash_set_data(file["Bhat"], file["Shat"])
    assert_reproduces(file, "fit_", data, covariance=True)


@pytest.mark.parametrize("name", ["r_wheat", "r_lipids"])
def test_reference_real_data(name):
    from tests.mash.test_real_data import lipids_data, wheat_data

    file = load("mash", f"{name}.npz")
    data = wheat_data() if name == "r_wheat" else lipids_data()
    assert_reproduces(file, "fit_", data, tolerance=1e-8)


# ---------------------------------------------------------------- brute force


def example(random, width=4, effects=30, *, common=False, correlated=True, missing=0.0):
    """Data and a mixture with matrices of every rank."""
    bhat = 3 * random.normal(size=(effects, width))
    shat = (
        np.ones((effects, width)) if common else np.exp(0.5 * random.normal(size=(effects, width)))
    )
    V = random_correlation(random, width) if correlated else None
    mask = random.random((effects, width)) < missing
    bhat[mask] = np.nan
    shat[mask] = np.nan
    matrices = {"identity": np.eye(width), "equal": np.ones((width, width))}
    matrices["first"] = np.diag([1.0] + [0.0] * (width - 1))
    low = random.normal(size=(width, 2))
    matrices["rank2"] = low @ low.T
    full = random.normal(size=(width, width))
    matrices["full"] = full @ full.T
    components = Components(matrices, np.array([0.0, 0.5, 2.0]), True)
    pi = random.dirichlet(np.ones(components.size))
    return bhat, shat, V, components, pi


def expanded(components):
    width = len(next(iter(components.covariances.values())))
    return [np.zeros((width, width))] + [
        g**2 * U for g in components.grid for U in components.covariances.values()
    ]


@pytest.mark.parametrize("common", [True, False])
@pytest.mark.parametrize("correlated", [True, False])
@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("use_map", [True, False])
def test_brute_force(random, common, correlated, missing, use_map):
    bhat, shat, V, components, pi = example(
        random, common=common, correlated=correlated, missing=missing
    )
    bhat[3], shat[3] = (np.nan, np.nan) if missing else (bhat[3], shat[3])
    data = mash_set_data(bhat, shat, V=V, missing="exact")
    A = np.array([[1.0, -1, 0, 0], [0.5, 0.5, 0.5, 0.5]]) if use_map else None
    found = apply_mixture(data, components, pi, Request(A=A, covariance=True))
    sigma = data.error_covariances(slice(None))
    expected = oracle.posterior(
        data.Bhat, sigma, expanded(components), pi, data.observed(slice(None)), A
    )
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=2e-9, err_msg=name)


def test_row_without_data_keeps_the_prior(random):
    bhat, shat, V, components, pi = example(random)
    bhat[0], shat[0] = np.nan, np.nan
    found = apply_mixture(mash_set_data(bhat, shat, V=V), components, pi, Request(covariance=True))
    prior = sum(p * U for p, U in zip(pi, expanded(components), strict=True))
    np.testing.assert_allclose(found["posterior_mean"][0], 0.0, atol=1e-12)
    np.testing.assert_allclose(found["posterior_cov"][0], prior, atol=1e-9)
    np.testing.assert_allclose(found["vloglik"][0], 0.0, atol=1e-12)


def test_exact_and_large_se_agree_without_error_correlation(random):
    bhat, shat, _, components, pi = example(random, correlated=False, missing=0.3)
    exact = mash_set_data(bhat, shat, missing="exact")
    filled = mash_set_data(bhat, shat, missing="large_se")
    a = apply_mixture(exact, components, pi, Request())
    b = apply_mixture(filled, components, pi, Request())
    seen = ~exact.missing_mask
    for name in ("posterior_mean", "posterior_sd", "lfsr"):
        np.testing.assert_allclose(a[name][seen], b[name][seen], atol=1e-7)


def test_the_fill_is_overconfident_with_error_correlation():
    """The worked example of the specification, section 2.4."""
    V = np.array([[1, 0.6, 0.3], [0.6, 1, 0.5], [0.3, 0.5, 1]])
    components = Components({"equal": np.ones((3, 3))}, np.ones(1), False)
    bhat = np.array([[2, 1.5, np.nan]])
    pi = np.ones(1)
    with pytest.warns(Warning, match="exact"):
        filled = mash_set_data(bhat, np.ones((1, 3)) + 0 * bhat, V=V, missing="large_se")
    a = apply_mixture(filled, components, pi, Request())
    assert a["posterior_mean"][0, 0] == pytest.approx(1.040, abs=5e-4)
    assert a["posterior_sd"][0, 0] == pytest.approx(0.622, abs=5e-4)
    exact = mash_set_data(bhat, np.ones((1, 3)) + 0 * bhat, V=V)
    assert exact.missing == "exact"
    b = apply_mixture(exact, components, pi, Request())
    assert b["posterior_mean"][0, 0] == pytest.approx(0.972, abs=5e-4)
    assert b["posterior_sd"][0, 0] == pytest.approx(0.667, abs=5e-4)


def test_contrast_output_of_an_equal_effects_prior_is_exactly_zero(random):
    data = mash_set_data(random.normal(size=(20, 4)), np.exp(0.3 * random.normal(size=(20, 4))))
    components = Components({"equal": np.ones((4, 4))}, np.array([1.0, 3.0]), False)
    A = np.array([[1.0, -1, 0, 0], [1 / 3, 1 / 3, 1 / 3, -1]])
    found = apply_mixture(data, components, np.array([0.4, 0.6]), Request(A=A))
    np.testing.assert_allclose(found["zero_prob"], 1.0, atol=1e-12)
    np.testing.assert_array_equal(found["negative_prob"], 0.0)


# ---------------------------------------------------------------- extremes


def test_lfsr_of_very_strong_effects_is_not_rounded_to_zero():
    data = mash_set_data(np.array([[20.0, 20.0, 20.0]]), np.ones((1, 3)))
    components = Components({"identity": np.eye(3)}, np.array([100.0]), True)
    found = apply_mixture(data, components, np.array([0.5, 0.5]), Request())
    # N(20 s, s) with s = 1/(1 + 1e-4), and the null's own share.
    from mpmath import erfc, mpf, sqrt, workdps

    with workdps(30):
        s = mpf(10000) / 10001
        tail = erfc(20 * s / sqrt(s) / sqrt(2)) / 2
    weight = found["zero_prob"][0, 0]
    assert 0 < weight < 1e-200
    np.testing.assert_allclose(found["lfsr"][0], float(tail) + weight, rtol=1e-10)


@pytest.mark.parametrize("scale", [1e-9, 1e12])
def test_units_do_not_matter(random, scale):
    bhat, shat, V, components, pi = example(random)
    matrices = components.covariances
    rescaled = Components(matrices, components.grid * scale, True)
    a = apply_mixture(mash_set_data(bhat, shat, V=V), components, pi, Request())
    b = apply_mixture(mash_set_data(bhat * scale, shat * scale, V=V), rescaled, pi, Request())
    np.testing.assert_allclose(
        b["posterior_mean"] / scale, a["posterior_mean"], rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(b["lfsr"], a["lfsr"], rtol=1e-9)


def test_tiny_errors_and_huge_z(random):
    bhat = random.normal(size=(50, 3))
    data = mash_set_data(bhat, 1e-9 * np.exp(random.normal(size=(50, 3)) * 0.1))
    components = Components(cov_canonical(data), np.array([1e-9, 1e-3, 1.0]), True)
    pi = np.full(components.size, 1 / components.size)
    found = apply_mixture(data, components, pi, Request())
    np.testing.assert_allclose(found["posterior_mean"], bhat, rtol=1e-6)
    assert np.all(found["lfsr"] >= 0)
    assert np.all(np.isfinite(found["vloglik"]))


# ---------------------------------------------------------------- invariances


def same_bits(a, b):
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("common", [True, False])
def test_threads_and_blocks_do_not_change_a_bit(random, common):
    bhat, shat, V, components, pi = example(random, effects=2500, common=common, missing=0.02)
    data = mash_set_data(bhat, shat, V=V)
    request = Request(samples=2)
    with use_threads(1):
        whole = apply_mixture(data, components, pi, request)
    with use_threads(3):
        same_bits(whole, apply_mixture(data, components, pi, request))
    for start, stop in ((0, 700), (700, 1500), (1500, 2500)):
        part = apply_mixture(data, components, pi, request, rows=slice(start, stop))
        same_bits({name: values[start:stop] for name, values in whole.items()}, part)


@pytest.mark.filterwarnings("ignore:standard errors vary a lot")
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_order_of_rows_and_conditions_does_not_matter(seed):
    random = np.random.default_rng(seed)
    bhat, shat, V, components, pi = example(random, effects=12, missing=0.2)
    base = apply_mixture(mash_set_data(bhat, shat, V=V), components, pi, Request())
    rows = random.permutation(12)
    found = apply_mixture(mash_set_data(bhat[rows], shat[rows], V=V), components, pi, Request())
    np.testing.assert_allclose(found["lfsr"], base["lfsr"][rows], atol=1e-11)
    columns = random.permutation(4)
    turned = Components(
        {n: U[np.ix_(columns, columns)] for n, U in components.covariances.items()},
        components.grid,
        True,
    )
    data = mash_set_data(bhat[:, columns], shat[:, columns], V=V[np.ix_(columns, columns)])
    found = apply_mixture(data, turned, pi, Request())
    np.testing.assert_allclose(
        found["posterior_mean"], base["posterior_mean"][:, columns], atol=1e-9
    )
    np.testing.assert_allclose(found["lfsr"], base["lfsr"][:, columns], atol=1e-9)
    np.testing.assert_allclose(found["vloglik"], base["vloglik"], atol=1e-9)


# ---------------------------------------------------------------- second moments of the errors


def test_completed_moment_is_the_conditional_expectation(random):
    V = random_correlation(random, 4)
    seen = np.array([True, False, True, False])
    root = np.linalg.cholesky(V)
    errors = random.normal(size=(400_000, 4)) @ root.T
    inside = np.array([[0.4, 0.1], [0.1, 2.0]])
    # Given second moments E_oo of the observed errors, e_m = W e_o + noise with covariance V_m|o.
    W = V[np.ix_(~seen, seen)] @ np.linalg.inv(V[np.ix_(seen, seen)])
    noise = errors[:, ~seen] - errors[:, seen] @ W.T
    observed = random.normal(size=(400_000, 2)) @ np.linalg.cholesky(inside).T
    full = np.empty((400_000, 4))
    full[:, seen], full[:, ~seen] = observed, observed @ W.T + noise
    moment = np.zeros((4, 4))
    moment[np.ix_(seen, seen)] = inside
    np.testing.assert_allclose(
        completed_moments(moment[None], seen[None], V)[0], full.T @ full / 400_000, atol=0.02
    )


@pytest.mark.parametrize("own", [False, True])
def test_rows_that_miss_the_same_are_completed_together(random, own):
    n, R = 200, 3
    roots = random.normal(size=(n, R, R))
    moments, observed = roots @ roots.transpose(0, 2, 1), random.random((n, R)) < 0.7
    V = np.stack([random_correlation(random, R) for _ in range(n if own else 1)])
    total = np.zeros((R, R))
    for j, seen in enumerate(observed):
        W = np.zeros((R, R))
        W[seen, seen] = 1.0
        known = V[j if own else 0]
        W[np.ix_(~seen, seen)] = np.linalg.solve(known[np.ix_(seen, seen)], known[seen][:, ~seen]).T
        total += W @ moments[j] @ W.T + known - W @ known @ W.T
    completed = completed_moments(moments, observed, V if own else V[0])
    assert len(completed) == (n if own else 2**R)
    np.testing.assert_allclose(completed.sum(axis=0), total, rtol=1e-12)
    nothing = completed_moments(moments[:0], observed[:0], V[:0] if own else V[0])
    assert nothing.shape == (0, R, R)


def brute_force_error_moment(data, components, pi):
    """Condition the joint normal of effects and standardised errors on what was observed."""
    width = data.n_conditions
    total, count = np.zeros((width, width)), 0
    observed = data.observed(slice(None))
    loglik = oracle.log_likelihoods(
        data.Bhat, data.error_covariances(slice(None)), expanded(components), observed
    )
    weights = pi * np.exp(loglik - loglik.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    for j in range(data.n_effects):
        o = np.arange(width) if observed is None else np.flatnonzero(observed[j])
        if len(o) == 0:
            continue
        count += 1
        design = np.hstack([np.eye(width), np.diag(data.Shat[j])])[o]
        for w, U in zip(weights[j], expanded(components), strict=True):
            prior = np.block([[U, np.zeros((width, width))], [np.zeros((width, width)), data.V]])
            gain = prior @ design.T @ np.linalg.inv(design @ prior @ design.T)
            mean = (gain @ data.Bhat[j, o])[width:]
            spread = (prior - gain @ design @ prior)[width:, width:]
            total += w * (spread + np.outer(mean, mean))
    return total, count


@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize("common", [True, False])
def test_second_moment_of_the_errors_by_brute_force(random, missing, common):
    bhat, shat, V, components, pi = example(random, missing=missing, common=common)
    data = mash_set_data(bhat, shat, V=V)
    assert data.missing == ("exact" if missing else "large_se")
    total, count = error_second_moment(data, components, pi)
    expected, number = brute_force_error_moment(data, components, pi)
    assert count == number
    np.testing.assert_allclose(total, expected, atol=1e-8)


def test_second_moment_skips_rows_without_data(random):
    bhat, shat, V, components, pi = example(random, missing=0.2)
    bhat[5], shat[5] = np.nan, np.nan
    total, count = error_second_moment(mash_set_data(bhat, shat, V=V), components, pi)
    keep = np.arange(30) != 5
    rest, number = error_second_moment(mash_set_data(bhat[keep], shat[keep], V=V), components, pi)
    assert count == number == np.sum(~np.isnan(bhat).all(axis=1))
    np.testing.assert_allclose(total, rest, atol=1e-10)


# ---------------------------------------------------------------- draws


def test_draws_match_the_posterior(random):
    bhat, shat, V, components, pi = example(random, effects=400, missing=0.1)
    data = mash_set_data(bhat, shat, V=V)
    found = apply_mixture(data, components, pi, Request(covariance=True, samples=4000, seed=5))
    draws = found["posterior_samples"]
    alive = found["posterior_sd"] > 0
    z = (draws.mean(axis=2) - found["posterior_mean"])[alive]
    z /= found["posterior_sd"][alive] / np.sqrt(4000)
    assert np.abs(z).max() < 7
    assert abs(np.mean(z**2) - 1) < 8 / np.sqrt(400)
    centred = draws - found["posterior_mean"][:, :, None]
    product = centred[:, 0] * centred[:, 1]
    error = product.mean(axis=1) - found["posterior_cov"][:, 0, 1]
    z = error / (product.std(axis=1) / np.sqrt(4000))
    assert abs(np.mean(z**2) - 1) < 8 / np.sqrt(400)
    zero = (draws == 0).mean(axis=2)
    np.testing.assert_allclose(zero, found["zero_prob"], atol=0.06)


def test_draws_reach_the_reference_posterior():
    file = load("mash", "m_sampling.npz")
    components, pi = components_of(file, "fit_")
    data = mash_set_data(file["Bhat"], file["Shat"])
    draws = apply_mixture(data, components, pi, Request(samples=2000))["posterior_samples"]
    z = (draws.mean(axis=2) - file["fit_PosteriorMean"]) / (file["fit_PosteriorSD"] / np.sqrt(2000))
    assert abs(np.mean(z**2) - 1) < 8 / np.sqrt(80)
    assert np.abs(z).max() < 7
