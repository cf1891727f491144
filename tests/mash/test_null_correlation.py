import numpy as np
import pytest

from plait import mash as pm
from plait.errors import InputError, OptionError
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
    with pytest.raises(OptionError, match="truncated_ml"):
        pm.estimate_null_correlation_simple(mixed, method="guess")


def test_em_refuses_contrasts_and_starts_from_the_identity(random):
    data = pm.mash_set_data(random.normal(size=(40, 3)) * 20)
    with pytest.raises(OptionError, match="contrasts"):
        pm.mash_estimate_corr_em(pm.mash_update_data(data, ref=0), [np.eye(2)])
    with pytest.warns(Warning, match="starts from the identity"):
        V = pm.mash_estimate_corr_em(data, pm.cov_canonical(data), details=False, max_iter=1)
    assert V.shape == (3, 3)
