"""Reading results: getters, significance, sharing, credible sets."""

import numpy as np
import pytest

from plait import mash as pm
from plait.errors import InputError, LabelError, NotAvailableError, OptionError
from plait.numerics.bivariate_normal import bivariate_normal_cdf, same_sign_probability
from tests.reference_files import load


@pytest.fixture(scope="module")
def study():
    sim = pm.simple_sims(150, 4, 0.7, seed=2)
    data = pm.mash_set_data(sim["Bhat"], sim["Shat"], condition_names=["a", "b", "c", "d"])
    fit = pm.mash(data, pm.cov_canonical(data), output_lfdr=True, posterior_samples=2000)
    return data, fit


def test_reference_getters():
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
    with pytest.raises(NotAvailableError, match="log10bf"):
        pm.get_log10bf(matrices)
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


def test_exact_sharing_probabilities_agree_with_draws(study):
    data, fit = study
    exact = pm.pairwise_sharing_prob(fit, data)
    drawn = pm.get_pairwise_sharing_from_samples(fit)
    np.testing.assert_allclose(exact["in_band"], drawn, atol=0.01)
    same_sign = pm.get_pairwise_sharing_from_samples(fit, factor=0)
    np.testing.assert_allclose(exact["same_sign"], same_sign, atol=0.01)


def test_bivariate_normal():
    from scipy.stats import multivariate_normal

    for rho in (-0.95, -0.3, 0.0, 0.6, 0.99):
        for h, k in ((0.0, 0.0), (1.0, -0.5), (-2.0, -1.0), (0.0, 1.3), (3.0, 2.0)):
            exact = multivariate_normal([0, 0], [[1, rho], [rho, 1]]).cdf([h, k])
            assert float(bivariate_normal_cdf(h, k, rho)) == pytest.approx(exact, abs=1e-6)
    assert float(bivariate_normal_cdf(0.3, 1.0, 1.0)) == pytest.approx(0.6179114, abs=1e-6)
    assert float(bivariate_normal_cdf(0.3, 1.0, -1.0)) == pytest.approx(0.4592561, abs=1e-6)
    point = same_sign_probability(np.array([[1.0, 0.0]]), np.zeros((1, 2, 2)))
    assert point[0] == 0


def test_contrast_of_a_finished_fit(study):
    data, fit = study
    A = np.array([[1.0, -1, 0, 0]])
    found = pm.get_posterior_condition_wise_summary(data, fit, A)
    difference = fit.posterior_mean[:, [0]] - fit.posterior_mean[:, [1]]
    np.testing.assert_allclose(found.posterior_mean, difference, atol=1e-10)


def test_credible_sets(study):
    labels = np.array([3, 3, 0, 7, 7, 9])
    log10bf = np.array([1.0, 2.0, 50.0, 8.0, np.nan, np.nan])
    renumbered, summary = pm.renumber_credible_sets_by_logbf(labels, log10bf)
    np.testing.assert_array_equal(renumbered, [2, 2, 0, 1, 1, 3])
    assert summary[0].lead_effect == 3
    assert summary[1].mean_log10bf == 1.5
    assert summary[2].lead_log10bf == -np.inf
    assert np.isnan(summary[2].mean_log10bf)
    table = pm.format_credible_set_report(summary, top_n=2)
    assert len(table.splitlines()) == 3
    with pytest.raises(OptionError):
        pm.format_credible_set_report(summary, top_n=0)
    for bad in (np.zeros((2, 3), int), np.zeros(5, int), np.zeros(6)):
        with pytest.raises(InputError):
            pm.renumber_credible_sets_by_logbf(bad, log10bf)
    data, fit = study
    sets = np.repeat([1, 2], 300)
    _, found = pm.renumber_credible_sets_from_result(fit, sets)
    assert found[0].lead_log10bf == pytest.approx(np.max(pm.get_log10bf(fit)))
    with pytest.raises(NotAvailableError, match="log10bf"):
        pm.renumber_credible_sets_from_result(pm.mash_1by1(data), sets)
