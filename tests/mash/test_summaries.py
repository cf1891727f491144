"""Reading results: getters, significance and sharing."""

import numpy as np
import pytest

from plait import mash as pm
from plait.errors import InputError, LabelError, NotAvailableError, OptionError, ShapeError
from plait.execution.threads import use_threads
from plait.mash import summaries
from tests.mash.conftest import random_correlation
from tests.reference_files import load


@pytest.fixture(scope="module")
def study():
    sim = pm.simple_sims(150, 4, 0.7, seed=2)
    data = pm.mash_set_data(sim["Bhat"], sim["Shat"], condition_names=["a", "b", "c", "d"])
    fit = pm.mash(data, pm.cov_canonical(data), output_lfdr=True, posterior_samples=2000)
    return data, fit


def reference_result():
    """The reference program's own fit, as a result of ours."""
    file = load("mash", "a_canonical.npz")
    names = [str(name) for name in file["fit_U_names"]]
    prior = pm.FittedG(
        file["fit_pi"], dict(zip(names, file["fit_U_stack"], strict=True)), file["fit_grid"]
    )
    return file, pm.MashResult(
        posterior_mean=file["fit_PosteriorMean"], posterior_sd=file["fit_PosteriorSD"],
        lfsr=file["fit_lfsr"], lfdr=file["fit_lfdr"], negative_prob=file["fit_NegativeProb"],
        zero_prob=file["fit_lfdr"], loglik=float(file["fit_loglik"]),
        vloglik=file["fit_vloglik"], null_loglik=file["fit_null_loglik"],
        alt_loglik=file["fit_alt_loglik"], fitted_g=prior, posterior_weights=None,
        component_index=None, alpha=0.0,
    )  # fmt: skip


def test_reference_getters():
    """On the reference's own posterior everything is closed form."""
    file, fit = reference_result()
    np.testing.assert_allclose(pm.get_log10bf(fit), file["log10bf"], rtol=0, atol=1e-10)
    np.testing.assert_array_equal(pm.get_significant_results(fit), file["sig_rows_0based"])
    np.testing.assert_array_equal(pm.get_n_significant_conditions(fit), file["n_sig"])
    np.testing.assert_allclose(pm.get_estimated_pi(fit), file["pi_cov"], atol=1e-12)
    np.testing.assert_allclose(pm.get_estimated_pi(fit, "grid"), file["pi_grid"], atol=1e-12)
    assert list(pm.get_estimated_pi(fit).index[1:3]) == [str(n) for n in file["pi_cov_names"][1:3]]
    for name, options in (
        ("sharing_f0.5", {}),
        ("sharing_f0", {"factor": 0}),
        ("sharing_f0.5_abs", {"FUN": np.abs}),
    ):
        np.testing.assert_allclose(pm.get_pairwise_sharing(fit, **options), file[name], atol=1e-12)


def test_reference_getters_after_our_own_fit():
    file = load("mash", "a_canonical.npz")
    data = pm.mash_set_data(file["Bhat"], file["Shat"])
    fit = pm.mash(data, pm.cov_canonical(data))
    np.testing.assert_allclose(pm.get_log10bf(fit), file["log10bf"], atol=1e-4)
    np.testing.assert_array_equal(pm.get_significant_results(fit), file["sig_rows_0based"])
    np.testing.assert_array_equal(pm.get_n_significant_conditions(fit), file["n_sig"])
    np.testing.assert_allclose(pm.get_estimated_pi(fit), file["pi_cov"], atol=1e-3)
    np.testing.assert_allclose(pm.get_estimated_pi(fit, "grid"), file["pi_grid"], atol=1e-3)
    assert pm.get_estimated_pi(fit, "all").index[0] == "null"
    for name, options in (
        ("sharing_f0.5", {}),
        ("sharing_f0", {"factor": 0}),
        ("sharing_f0.5_abs", {"FUN": np.abs}),
    ):
        np.testing.assert_allclose(pm.get_pairwise_sharing(fit, **options), file[name], atol=1e-12)


def test_reference_sharing_from_samples():
    file = load("mash", "m_sampling.npz")
    data = pm.mash_set_data(file["Bhat"], file["Shat"])
    names = [str(n) for n in file["fit_U_names"]]
    prior = pm.FittedG(
        file["fit_pi"], dict(zip(names, file["fit_U_stack"], strict=True)), file["fit_grid"]
    )
    fit = pm.mash(data, g=prior, fixg=True, posterior_samples=500)
    np.testing.assert_allclose(pm.get_pairwise_sharing(fit), file["sharing_point"], atol=1e-12)
    sampled = pm.get_pairwise_sharing_from_samples(fit)
    np.testing.assert_allclose(sampled, file["sharing_from_200_samples"], atol=0.05)


def test_getters_accept_every_result(study):
    data, fit = study
    matrices = pm.mash_compute_posterior_matrices(fit, data)
    workflow = pm.mash_train_apply(data, pm.cov_canonical(data), n_train=600)
    chunked = pm.apply_mash_prior_chunked(data, fit.fitted_g, mash_kwargs={"output_lfdr": True})
    for result in (fit, matrices, chunked):
        for getter in (pm.get_pm, pm.get_psd, pm.get_lfsr, pm.get_lfdr, pm.get_np):
            np.testing.assert_array_equal(getter(result), getter(fit))
    assert pm.get_ncond(workflow) == 4
    assert pm.get_loglik(workflow) == workflow.apply_result.loglik
    assert pm.get_fitted_g(chunked) is fit.fitted_g
    with pytest.raises(NotAvailableError, match="lfdr is not available in this result"):
        pm.get_lfdr(workflow)
    with pytest.raises(NotAvailableError, match="posterior_samples"):
        pm.get_samples(matrices)
    with pytest.raises(NotAvailableError, match="log10bf is not available in this result"):
        pm.get_log10bf(matrices)
    np.testing.assert_array_equal(pm.get_log10bf(chunked), pm.get_log10bf(fit))
    with pytest.raises(NotAvailableError, match="not available"):
        pm.get_estimated_pi(pm.mash_1by1(data))


def test_significance(study):
    _, fit = study
    rows = pm.get_significant_results(fit)
    smallest = fit.lfsr.min(axis=1)
    assert np.all(np.diff(smallest[rows]) >= 0)
    assert len(rows) == np.sum(smallest < 0.05)
    by_name = pm.get_significant_results(fit, conditions=["b"])
    np.testing.assert_array_equal(by_name, pm.get_significant_results(fit, conditions=[1]))
    np.testing.assert_array_equal(by_name, pm.get_significant_results(fit, conditions=np.int64(1)))
    assert np.all(fit.lfsr[by_name, 1] < 0.05)
    by_lfdr = pm.get_significant_results(fit, sig_fn=pm.get_lfdr)
    assert len(by_lfdr) >= len(rows)
    with pytest.raises(LabelError, match="no condition 'x'"):
        pm.get_significant_results(fit, conditions=["x"])
    with pytest.raises(InputError, match="no condition 7"):
        pm.get_significant_results(fit, conditions=[7])
    with pytest.raises(OptionError, match="cov"):
        pm.get_estimated_pi(fit, "other")


def test_sharing_edges():
    ones = np.ones((3, 2))
    result = pm.PosteriorMatrices(
        posterior_mean=np.array([[1.0, 0.6], [1.0, -1.0], [0.0, 0.0]]),
        posterior_sd=ones, negative_prob=ones, zero_prob=ones, lfdr=ones,
        lfsr=np.array([[0.01, 0.2], [0.01, 0.9], [0.01, 0.01]]),
    )  # fmt: skip
    found = pm.get_pairwise_sharing(result)
    assert found[0, 1] == pytest.approx(1 / 3)
    assert found[0, 0] == pytest.approx(2 / 3)
    nothing = pm.get_pairwise_sharing(result, lfsr_thresh=0.001)
    assert np.isnan(nothing).all()
    with pytest.raises(OptionError, match="factor"):
        pm.get_pairwise_sharing(result, factor=2)


def naive_sharing(values, significant, factor):
    """One pair, one effect, one draw at a time."""
    _, width, draws = values.shape
    result = np.full((width, width), np.nan)
    for i in range(width):
        for j in range(width):
            shares = []
            for row in np.flatnonzero(significant[:, i] | significant[:, j]):
                similar = 0
                for d in range(draws):
                    x, y = values[row, i, d], values[row, j, d]
                    if factor == 0:
                        similar += x * y > 0
                    else:
                        similar += y != 0 and factor < x / y < 1 / factor
                shares.append(similar / draws)
            if shares:
                result[i, j] = np.mean(shares)
    return result


@pytest.mark.parametrize("factor", [0, 0.5])
@pytest.mark.parametrize("block", [1, 1 << 25])
def test_sharing_against_loops(random, monkeypatch, factor, block):
    monkeypatch.setattr(summaries, "_BLOCK_BYTES", block)
    n, ones = 40, np.ones((40, 3))
    draws = random.normal(size=(n, 3, 5)) + 1
    result = pm.PosteriorMatrices(
        posterior_mean=draws[:, :, 0], posterior_sd=ones, negative_prob=ones, zero_prob=ones,
        lfdr=ones, lfsr=random.random((n, 3)) ** 2, posterior_samples=draws,
    )  # fmt: skip
    significant = result.lfsr < 0.1
    found = pm.get_pairwise_sharing(result, factor, 0.1)
    expected = naive_sharing(draws[:, :, :1], significant, factor)
    np.testing.assert_allclose(found, expected, atol=1e-14)
    found = pm.get_pairwise_sharing_from_samples(result, factor, 0.1)
    np.testing.assert_allclose(found, naive_sharing(draws, significant, factor), atol=1e-14)


def test_exact_sharing_probabilities_agree_with_draws(study):
    data, fit = study
    exact = pm.pairwise_sharing_prob(fit, data)
    drawn = pm.get_pairwise_sharing_from_samples(fit)
    np.testing.assert_allclose(exact["in_band"], drawn, atol=0.01)
    same_sign = pm.get_pairwise_sharing_from_samples(fit, factor=0)
    np.testing.assert_allclose(exact["same_sign"], same_sign, atol=0.01)


def test_contrast_of_a_finished_fit(study):
    data, fit = study
    A = np.array([[1.0, -1, 0, 0]])
    found = pm.get_posterior_condition_wise_summary(data, fit, A)
    difference = fit.posterior_mean[:, [0]] - fit.posterior_mean[:, [1]]
    np.testing.assert_allclose(found.posterior_mean, difference, atol=1e-10)


def test_exact_sharing_with_correlated_errors_missing_cells_and_scaling(random):
    sim = pm.simple_sims(100, 3, 1.0, seed=4)
    shat = np.exp(0.3 * random.normal(size=(400, 3)))
    bhat = sim["B"] * 4 + shat * random.normal(size=(400, 3))
    bhat[::7, 1] = np.nan
    data = pm.mash_set_data(
        bhat, np.where(np.isnan(bhat), np.nan, shat), alpha=1, V=random_correlation(random, 3)
    )
    A = np.array([[1.0, 0, 0], [0, 1, 0], [1, -1, 0], [0, 1, 1]])
    fit = pm.mash(data, pm.cov_canonical(data), posterior_samples=1000, A=A)
    exact = pm.pairwise_sharing_prob(fit, data, A=A)
    drawn = pm.get_pairwise_sharing_from_samples(fit)
    np.testing.assert_allclose(exact["in_band"], drawn, atol=0.02)
    np.testing.assert_allclose(exact["in_band"], exact["in_band"].T)
    with use_threads(1):
        again = pm.pairwise_sharing_prob(fit, data, A=A)
    np.testing.assert_array_equal(again["in_band"], exact["in_band"])
    with pytest.raises(ShapeError, match="give the A of the result"):
        pm.pairwise_sharing_prob(fit, data)
    with pytest.raises(ShapeError, match="400 effects"):
        pm.pairwise_sharing_prob(fit, pm.subset_mash_data(data, slice(0, 9)), A=A)
    with pytest.raises(OptionError, match="factor"):
        pm.pairwise_sharing_prob(fit, data, factor=1, A=A)


def test_exact_sharing_on_the_edge_of_the_band(random):
    """Effects in the ratio 2 : 1 by the prior are outside a band that ends at 2, not half in it."""
    pattern = np.array([2.0, 1.0, 0.0])
    data = pm.mash_set_data(random.normal(size=(50, 3)) + 9 * pattern)
    prior = pm.FittedG(np.array([0.0, 1.0]), {"tied": pm.r1cov(pattern)}, np.array([5.0]))
    fit = pm.mash(data, g=prior, fixg=True)
    at_edge = pm.pairwise_sharing_prob(fit, data, factor=0.5)
    assert at_edge["in_band"][0, 1] == 0
    inside = pm.pairwise_sharing_prob(fit, data, factor=0.49)
    assert inside["in_band"][0, 1] == pytest.approx(1, abs=1e-12)
    assert at_edge["same_sign"][0, 1] == pytest.approx(1, abs=1e-12)
    # An effect that is zero for certain shares nothing, not even with itself.
    np.testing.assert_array_equal(at_edge["same_sign"][2, :2], 0.0)
    nothing = pm.pairwise_sharing_prob(fit, data, lfsr_thresh=0.0)
    assert np.isnan(nothing["same_sign"]).all()
