"""The correlation of the errors: closed form, truncation, missing cells, EM."""

import numpy as np
import pytest

from plait import mash as pm
from plait.errors import InputError, ModelWarning, OptionError
from plait.mash.likelihoods import Components
from plait.mash.posterior import error_second_moment
from plait.simulate import simulate_effects
from tests.mash.conftest import random_correlation
from tests.reference_files import load


def test_reference_simple():
    file = load("mash", "d_corr.npz")
    data = pm.mash_set_data(file["Bhat"], file["Shat"])
    found = pm.estimate_null_correlation_simple(data)
    np.testing.assert_allclose(found, file["Vsimple"], atol=1e-12)
    found = pm.estimate_null_correlation_simple(data, z_thresh=1.5, est_cor=False)
    np.testing.assert_allclose(found, file["Vsimple_cov_z1.5"], atol=1e-12)


def test_reference_em():
    file = load("mash", "d_corr.npz")
    data = pm.mash_set_data(file["Bhat"], file["Shat"])
    data = pm.subset_mash_data(data, file["em_rows_0based"])
    fit = pm.mash_estimate_corr_em(
        data, pm.cov_canonical(data), init=file["em_init"], max_iter=10, track_fit=True
    )
    np.testing.assert_allclose(fit.V, file["em_V"], atol=1e-3)
    np.testing.assert_allclose(fit.loglik, file["em_loglik"], atol=2e-6 * 667 * 2)
    assert fit.niter == len(fit.trace) == int(file["em_niter"])
    assert fit.mash_model.posterior_mean.shape == (667, 5)
    start = pm.mash_update_data(data, V=file["em_init"])
    components = Components(pm.cov_canonical(start), file["E_V_first_grid"], True)
    total, count = error_second_moment(start, components, file["E_V_first_pi"])
    np.testing.assert_allclose(total, file["E_V_first"], rtol=1e-6)
    assert count == 667


def planted(random, missing=0.0, n=6000):
    V = random_correlation(random, 3)
    sim = simulate_effects(
        n, {"equal": 9 * np.ones((3, 3))}, {"equal": 0.1}, error_correlation=V, missing=missing,
        seed=5,
    )  # fmt: skip
    return V, sim


def test_em_recovers_a_planted_correlation(random):
    V, sim = planted(random)
    data = pm.mash_set_data(sim["Bhat"], sim["Shat"])
    found = pm.mash_estimate_corr_em(data, pm.cov_canonical(data), details=False)
    assert np.abs(found - V).max() < 0.05


def test_em_with_missing_cells_recovers_it_too(random):
    """Counting missing cells as zero errors would pull the correlation towards the identity."""
    V, sim = planted(random, missing=0.3)
    data = pm.mash_set_data(sim["Bhat"], sim["Shat"])
    fit = pm.mash_estimate_corr_em(data, pm.cov_canonical(data), tol=0.05)
    assert np.abs(fit.V - V).max() < 0.06
    assert np.all(np.diff(fit.loglik) >= 0)


def test_truncated_ml_undoes_the_selection(random):
    V, sim = planted(random, n=20_000)
    data = pm.mash_set_data(np.asarray(sim["Bhat"] - sim["B"]))
    simple = pm.estimate_null_correlation_simple(data)
    better = pm.estimate_null_correlation_simple(data, method="truncated_ml")
    assert np.abs(better - V).max() < 0.04
    assert np.abs(simple - V).max() > 2 * np.abs(better - V).max()


def test_truncated_ml_is_not_misled_by_the_other_conditions(random):
    """Pairs chosen from effects that are small everywhere would still be shrunk (to 0.68)."""
    V = np.full((8, 8), 0.7)
    np.fill_diagonal(V, 1.0)
    z = random.normal(size=(20_000, 8)) @ np.linalg.cholesky(V).T
    found = pm.estimate_null_correlation_simple(pm.mash_set_data(z), method="truncated_ml")
    assert abs(found[np.triu_indices(8, 1)].mean() - 0.7) < 0.01


def test_pairs_use_the_effects_measured_in_both(random):
    z = random.normal(size=(500, 3)) @ np.linalg.cholesky(random_correlation(random, 3)).T
    z[random.random(z.shape) < 0.2] = np.nan
    data = pm.mash_set_data(z)
    found = pm.estimate_null_correlation_simple(data)
    null = ~np.any(np.abs(z) >= 2, axis=1) & ~np.isnan(z).all(axis=1)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        both = null & ~np.isnan(z[:, i]) & ~np.isnan(z[:, j])
        expected = np.corrcoef(z[both, i], z[both, j])[0, 1]
        assert found[i, j] == pytest.approx(expected, abs=1e-12)
        covariance = pm.estimate_null_correlation_simple(data, est_cor=False)[i, j]
        assert covariance == pytest.approx(np.cov(z[both, i], z[both, j])[0, 1], abs=1e-12)


def test_contrasts_leave_out_what_they_cannot_compare(random):
    z = random.normal(size=(400, 3))
    z[:100, 0] = np.nan
    complete = pm.estimate_null_correlation_simple(
        pm.mash_update_data(pm.mash_set_data(z[100:]), ref=2)
    )
    data = pm.mash_update_data(pm.mash_set_data(z, missing="large_se"), ref=2)
    holes = pm.estimate_null_correlation_simple(data)
    assert holes.shape == (2, 2)
    assert holes[0, 1] == pytest.approx(complete[0, 1], abs=1e-12)


def test_ridge_keeps_a_correlation_a_correlation(random):
    data = pm.mash_set_data(random.normal(size=(200, 3)))
    plain = pm.estimate_null_correlation_simple(data)
    ridged = pm.estimate_null_correlation_simple(data, v_ridge=0.1)
    np.testing.assert_array_equal(np.diag(ridged), 1.0)
    assert ridged[0, 1] == pytest.approx(plain[0, 1] / 1.1)
    covariance = pm.estimate_null_correlation_simple(data, est_cor=False)
    ridged = pm.estimate_null_correlation_simple(data, est_cor=False, v_ridge=0.1)
    np.testing.assert_allclose(ridged, covariance + 0.1 * np.eye(3))


def test_missing_cells_are_excluded_pairwise(random):
    bhat = random.normal(size=(4000, 3)) @ np.linalg.cholesky(random_correlation(random, 3)).T
    full = pm.estimate_null_correlation_simple(pm.mash_set_data(bhat))
    bhat[:1500, 0] = np.nan
    holes = pm.estimate_null_correlation_simple(pm.mash_set_data(bhat))
    assert np.abs(full - holes).max() < 0.08
    assert np.linalg.eigvalsh(holes)[0] > 0


def test_too_few_nulls():
    data = pm.mash_set_data(np.full((10, 3), 9.0))
    with pytest.raises(InputError, match="not enough null"):
        pm.estimate_null_correlation_simple(data)
    with pytest.warns(Warning, match="identity is returned"):
        V = pm.estimate_null_correlation_simple(data, on_insufficient_null="identity")
    np.testing.assert_array_equal(V, np.eye(3))
    mixed = pm.mash_set_data(np.random.default_rng(0).normal(size=(10, 3)) * 9)
    with pytest.warns(Warning, match="all effects are used"):
        V = pm.estimate_null_correlation_simple(mixed, on_insufficient_null="all")
    assert V.shape == (3, 3)
    with pytest.raises(OptionError, match="identity"):
        pm.estimate_null_correlation_simple(data, on_insufficient_null="guess")
    with pytest.warns(Warning, match="all effects are used"):
        same = pm.estimate_null_correlation_simple(
            mixed, on_insufficient_null="all", method="truncated_ml", z_thresh=0.01
        )
    np.testing.assert_allclose(same, V, atol=1e-14)
    for options, fragment in (
        ({"method": "guess"}, "truncated_ml"),
        ({"method": "truncated_ml", "est_cor": False}, "est_cor"),
        ({"z_thresh": 0}, "positive"),
        ({"v_ridge": -1, "z_thresh": 99}, "negative"),
    ):
        with pytest.raises(OptionError, match=fragment):
            pm.estimate_null_correlation_simple(mixed, **options)


def test_em_refuses_contrasts_and_starts_from_the_identity(random):
    data = pm.mash_set_data(random.normal(size=(40, 3)) * 20)
    with pytest.raises(OptionError, match="contrasts"):
        pm.mash_estimate_corr_em(pm.mash_update_data(data, ref=0), [np.eye(2)])
    with pytest.warns(Warning, match="starts from the identity"):
        V = pm.mash_estimate_corr_em(data, pm.cov_canonical(data), details=False, max_iter=1)
    assert V.shape == (3, 3)


def test_em_from_the_identity_compares_like_with_like(random):
    """A start at the identity must not count missing cells in its log-likelihood alone."""
    V, sim = planted(random, missing=0.2, n=2000)
    data = pm.mash_set_data(sim["Bhat"], sim["Shat"])
    assert data.missing == "large_se"
    fit = pm.mash_estimate_corr_em(data, pm.cov_canonical(data), init=np.eye(3), tol=0.1)
    assert np.abs(fit.V - V).max() < 0.1
    exact = pm.mash_set_data(sim["Bhat"], sim["Shat"], missing="exact")
    first = pm.mash(exact, pm.cov_canonical(exact)).loglik
    assert fit.loglik[0] == pytest.approx(first, abs=1e-6)


def test_em_warns_about_filled_cells(random):
    _, sim = planted(random, missing=0.2, n=300)
    data = pm.mash_set_data(sim["Bhat"], sim["Shat"], missing="large_se")
    with pytest.warns(ModelWarning) as caught:
        pm.mash_estimate_corr_em(data, pm.cov_canonical(data), max_iter=1, details=False)
    assert any("errors of zero" in str(w.message) for w in caught)


def test_em_passes_options_on_and_does_not_depend_on_the_scale(random):
    _, sim = planted(random, n=1500)
    shat = np.exp(0.4 * random.normal(size=sim["Bhat"].shape))
    scaled = pm.mash_set_data(sim["Bhat"] * shat, shat, alpha=1)
    plain = pm.mash_set_data(sim["Bhat"])
    options = {"grid": [0.5, 1, 2, 4], "nullweight": 5, "n_jobs": 1, "max_iter": 3}
    one = pm.mash_estimate_corr_em(
        scaled, pm.cov_canonical(scaled), outputlevel=3, output_lfdr=True, **options
    )
    other = pm.mash_estimate_corr_em(plain, pm.cov_canonical(plain), **options)
    np.testing.assert_allclose(one.V, other.V, atol=1e-9)
    assert one.mash_model.posterior_cov.shape == (1500, 3, 3)
    assert one.mash_model.lfdr is not None
    assert one.mash_model.optim["dual_gap"] <= 1e-8
    assert one.trace is None
    with pytest.raises(OptionError, match="max_iter"):
        pm.mash_estimate_corr_em(plain, pm.cov_canonical(plain), max_iter=-1)


def test_em_keeps_a_covariance_when_asked(random):
    _, sim = planted(random, n=3000)
    data = pm.mash_set_data(sim["Bhat"] * np.sqrt(2))
    found = pm.mash_estimate_corr_em(data, pm.cov_canonical(data), est_cor=False, details=False)
    assert np.abs(np.diag(found) - 2).max() < 0.3


def test_em_round_trip(random, tmp_path):
    data = pm.mash_set_data(random.normal(size=(200, 3)), condition_names=["a", "b", "c"])
    fit = pm.mash_estimate_corr_em(data, pm.cov_canonical(data), max_iter=2, track_fit=True)
    fit.save(tmp_path / "fit.zarr")
    back = pm.NullCorrelationFit.load(tmp_path / "fit.zarr")
    assert back.allclose(fit)
    assert back.mash_model.fitted_g.Ulist.keys() == fit.mash_model.fitted_g.Ulist.keys()
    np.testing.assert_array_equal(fit.trace[-1], fit.V)
    assert fit.to_frame().shape == (fit.niter, 2)
    assert "3 contexts" in repr(fit)
