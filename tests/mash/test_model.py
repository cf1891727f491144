"""Fitting: against the reference program, the rules of the arguments, and what must not matter."""

import numpy as np
import pytest

from plait.errors import ConvergenceWarning, InputError, OptionError, ShapeError
from plait.execution.threads import use_threads
from plait.mash.covariances import cov_canonical
from plait.mash.data import mash_set_data, mash_update_data, subset_mash_data
from plait.mash.model import (
    mash,
    mash_compute_loglik,
    mash_compute_posterior_matrices,
    mash_compute_vloglik,
)
from plait.mash.results import FittedG, MashResult
from tests.reference_files import load


def reference_case(name):
    """Return the file, the prefix of the fit, the key of the objective, data and fit options."""
    file_name, prefix, objective, options = {
        "canonical": ("a_canonical", "fit_", "penalised_objective", {}),
        "tight": ("a_canonical", "tight_", "tight_penalised_objective", {}),
        "uniform": ("a_canonical", "uniform_", None, {"prior": "uniform"}),
        "grid": ("a_canonical", "grid3_nw101_", None, {"grid": [0.3, 1, 2.5], "nullweight": 101}),
        "data-driven": ("b_datadriven", "fit_", "penalised_objective", {}),
        "alpha": ("c_alpha1", "fit_", "penalised_objective", {}),
        "varying": ("c2_varying_alpha0", "fit_", "penalised_objective", {}),
        "correlated": ("d_corr", "fit_", "penalised_objective", {}),
        "per-effect": ("e_per_effect_V", "fit_", "penalised_objective", {}),
        "contrast": ("f_contrast", "ref_1_", "ref_1_penalised_objective", {}),
        "mean": ("f_contrast", "ref_mean_", "ref_mean_penalised_objective", {}),
        "many": ("g_many", "fit_", "penalised_objective", {}),
        "missing": ("k_missing", "fit_", "penalised_objective", {}),
        "missing-alpha": ("k_missing", "alpha1_", None, {}),
    }[name]
    file = load("mash", f"{file_name}.npz")
    if name == "alpha":
        data = mash_set_data(file["Bhat_in"], file["Shat_in"], alpha=1)
    elif file_name == "k_missing":
        alpha = 1 if prefix == "alpha1_" else 0
        data = mash_set_data(file["Bhat_in_nan"], file["Shat_in_nan"], alpha=alpha)
    elif file_name == "f_contrast":
        data = mash_set_data(file["Chat"], file["Shat"])
        data = mash_update_data(data, ref=0 if name == "contrast" else "mean")
    else:
        V = file.get("V_RRJ", file.get("V"))
        data = mash_set_data(file["Bhat"], file.get("Shat"), V=V)
    names = [str(n) for n in file[prefix + "U_names"]]
    Ulist = dict(zip(names, file[prefix + "U_stack"], strict=True))
    return file, prefix, objective, data, Ulist, options


@pytest.mark.parametrize(
    "name",
    [
        "canonical", "tight", "uniform", "grid", "data-driven", "alpha", "varying", "correlated",
        "per-effect", "contrast", "mean", "many", "missing", "missing-alpha",
    ],
)  # fmt: skip
def test_own_fit_reaches_the_reference(name):
    file, prefix, objective, data, Ulist, options = reference_case(name)
    result = mash(data, Ulist, **options)
    J = data.n_effects
    np.testing.assert_allclose(result.fitted_g.grid, file[prefix + "grid"], rtol=1e-12)
    assert result.converged
    assert result.optim["dual_gap"] <= 1e-9
    assert abs(result.loglik - float(file[prefix + "loglik"])) <= 2e-6 * J
    if objective is not None:
        excess = result.optim["objective"] - float(file[objective])
        assert -1e-9 * J <= excess <= 5e-6 * J
    for ours, theirs in (("posterior_mean", "PosteriorMean"), ("lfsr", "lfsr")):
        difference = np.abs(getattr(result, ours) - file[prefix + theirs])
        assert np.quantile(difference, 0.999) < 1e-3
        assert difference.max() < 5e-3


def test_without_point_mass():
    file, _, _, data, Ulist, _ = reference_case("canonical")
    with pytest.warns(Warning, match="without a point mass"):
        result = mash(data, Ulist, usepointmass=False)
    assert abs(result.loglik - float(file["nopm_loglik"])) <= 2e-6 * data.n_effects
    assert result.null_loglik is None
    again = mash(data, g=result, fixg=True)
    np.testing.assert_array_equal(again.lfsr, result.lfsr)


@pytest.fixture
def small(random):
    effects = random.normal(size=(300, 3)) * random.choice([0, 3], size=(300, 1))
    bhat = effects + random.normal(size=(300, 3))
    return mash_set_data(bhat, condition_names=["a", "b", "c"])


@pytest.mark.parametrize("method", ["squarem", "mixip", "auto"])
@pytest.mark.filterwarnings("ignore:the mixture weights:plait.errors.ConvergenceWarning")
def test_other_optimisers_agree(small, method):
    Ulist = cov_canonical(small)
    best = mash(small, Ulist)
    other = mash(small, Ulist, optmethod=method)
    assert other.converged == (other.optim["dual_gap"] <= 1e-8)
    np.testing.assert_allclose(other.lfsr, best.lfsr, atol=2e-3)
    assert other.loglik <= best.loglik + 1e-4


def test_an_optimiser_that_stops_early_says_so(small):
    with pytest.warns(ConvergenceWarning, match="dual gap"):
        result = mash(small, cov_canonical(small), optmethod="em", control={"max_iter": 3})
    assert not result.converged
    assert "NOT CONVERGED" in result.summary()


def test_output_levels(small):
    Ulist = cov_canonical(small)
    one = mash(small, Ulist, outputlevel=1)
    assert one.posterior_mean is None
    assert one.posterior_weights.shape[0] == 300
    four = mash(small, Ulist, outputlevel=4, output_lfdr=True, posterior_samples=3)
    assert four.lik_matrix.shape == (300, len(four.fitted_g.pi))
    np.testing.assert_array_equal(four.lik_matrix.max(axis=1), 0.0)
    assert four.posterior_cov.shape == (300, 3, 3)
    assert four.posterior_samples.shape == (300, 3, 3)
    np.testing.assert_array_equal(four.lfdr, four.zero_prob)
    np.testing.assert_allclose(
        np.sqrt(np.einsum("jqq->jq", four.posterior_cov)), four.posterior_sd, atol=1e-12
    )
    assert mash(small, Ulist).lfdr is None
    np.testing.assert_allclose(four.posterior_weights.sum(axis=1), 1.0)


def test_new_effects_under_an_old_fit(small):
    result = mash(small, cov_canonical(small), outputlevel=3)
    new = subset_mash_data(small, np.array([5, 7, 250]))
    found = mash_compute_posterior_matrices(result, new, output_posterior_cov=True)
    np.testing.assert_allclose(found.posterior_mean, result.posterior_mean[[5, 7, 250]], atol=1e-12)
    np.testing.assert_allclose(found.posterior_cov, result.posterior_cov[[5, 7, 250]], atol=1e-12)
    np.testing.assert_allclose(
        mash_compute_vloglik(result, new), result.vloglik[[5, 7, 250]], atol=1e-12
    )
    assert mash_compute_loglik(result.fitted_g, small) == pytest.approx(result.loglik, abs=1e-9)


def test_equal_seeds_equal_bits_whatever_the_threads(small):
    Ulist = cov_canonical(small)
    runs = [mash(small, Ulist, posterior_samples=4, seed=7, n_jobs=n) for n in (1, 2, 3)]
    for other in runs[1:]:
        np.testing.assert_array_equal(other.posterior_samples, runs[0].posterior_samples)
        np.testing.assert_array_equal(other.fitted_g.pi, runs[0].fitted_g.pi)
        np.testing.assert_array_equal(other.lfsr, runs[0].lfsr)
    other = mash(small, Ulist, posterior_samples=4, seed=8)
    assert not np.array_equal(other.posterior_samples, runs[0].posterior_samples)


def test_threads_do_not_change_a_large_fit(random):
    data = mash_set_data(random.normal(size=(5000, 3)) * 1.5)
    with use_threads(1):
        one = mash(data, cov_canonical(data))
    with use_threads(4):
        four = mash(data, cov_canonical(data))
    np.testing.assert_array_equal(one.fitted_g.pi, four.fitted_g.pi)
    np.testing.assert_array_equal(one.posterior_mean, four.posterior_mean)
    assert one.loglik == four.loglik


def test_alpha_one_is_the_analysis_of_z_scores(random):
    bhat, shat = random.normal(size=(200, 3)) * 3, np.exp(0.3 * random.normal(size=(200, 3)))
    scaled = mash_set_data(bhat, shat, alpha=1)
    z = mash_set_data(bhat / shat)
    a = mash(scaled, cov_canonical(scaled), outputlevel=3)
    b = mash(z, cov_canonical(z), outputlevel=3)
    np.testing.assert_allclose(a.lfsr, b.lfsr, atol=1e-12)
    np.testing.assert_allclose(a.posterior_mean, b.posterior_mean * shat, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(a.loglik, b.loglik - np.log(shat).sum(), rtol=1e-12)
    weights = np.array([[1.0, -1, 0]])
    contrast = mash_compute_posterior_matrices(a, scaled, A=weights, output_posterior_cov=True)
    expected = np.einsum("qi,jik,pk->jqp", weights, a.posterior_cov, weights)
    np.testing.assert_allclose(contrast.posterior_cov, expected, atol=1e-10)


@pytest.mark.parametrize(
    ("shape", "missing"), [((1, 3), False), ((40, 1), False), ((1, 1), False), ((3, 4), True)]
)
def test_tiny_inputs(random, shape, missing):
    bhat = random.normal(size=shape) * 2
    shat = np.ones(shape)
    if missing:
        bhat[1] = np.nan
        shat[1] = np.nan
    data = mash_set_data(bhat, shat, alpha=1)
    result = mash(data, cov_canonical(data))
    assert result.posterior_mean.shape == shape
    assert np.isfinite(result.lfsr).all()
    assert result.converged


def test_one_condition_equals_ash(random):
    ash = pytest.importorskip("plait.mash.ash")
    bhat = random.normal(size=(500, 1)) * 2
    data = mash_set_data(bhat)
    ours = mash(data, {"identity": np.eye(1)})
    other = ash.ash(bhat[:, 0], np.ones(500))
    np.testing.assert_allclose(ours.lfsr[:, 0], other.lfsr, atol=1e-6)
    np.testing.assert_allclose(ours.posterior_mean[:, 0], other.posterior_mean, atol=1e-6)


def test_duplicated_effects_equal_weights(small):
    Ulist, grid = cov_canonical(small), [0.5, 1.0, 2.0, 4.0]
    doubled = mash_set_data(np.concatenate([small.Bhat, small.Bhat[:50]]))
    weights = np.ones(300)
    weights[:50] = 2
    a = mash(doubled, Ulist, grid=grid)
    b = mash(small, Ulist, grid=grid, weights=weights)
    assert a.optim["objective"] == pytest.approx(b.optim["objective"], abs=1e-6)
    np.testing.assert_allclose(a.lfsr[:300], b.lfsr, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        ({}, "must supply Ulist"),
        ({"Ulist": {}}, "empty"),
        ({"Ulist": {"x": np.eye(2)}}, "must be of dimension"),
        ({"Ulist": {"x": -np.eye(3)}}, "positive semi-definite"),
        ({"Ulist": {"x": np.triu(np.ones((3, 3)))}}, "symmetric"),
        ({"Ulist": {"x": np.full((3, 3), np.nan)}}, "finite"),
        ({"Ulist": [np.eye(3)], "grid": [[1.0]]}, "one-dimensional"),
        ({"Ulist": [np.eye(3)], "grid": [-1.0]}, "not negative"),
        ({"Ulist": [np.eye(3)], "prior": np.ones(4)}, "wrong length"),
        ({"Ulist": [np.eye(3)], "prior": "flat"}, "nullbiased"),
        ({"Ulist": [np.eye(3)], "nullweight": 0.5}, "at least 1"),
        ({"Ulist": [np.eye(3)], "weights": np.ones(4)}, "wrong length"),
        ({"Ulist": [np.eye(3)], "weights": np.zeros(300)}, "positive"),
        ({"Ulist": [np.eye(3)], "fixg": True}, "cannot fix g"),
        ({"Ulist": [np.eye(3)], "optmethod": "best"}, "mixsqp"),
        ({"Ulist": [np.eye(3)], "outputlevel": 5}, "1, 2, 3 or 4"),
        ({"Ulist": [np.eye(3)], "gridmult": 0.5}, "gridmult"),
        ({"Ulist": [np.eye(3)], "A": np.ones((1, 2))}, "A has invalid dimensions"),
        ({"Ulist": [np.eye(3)], "pi_thresh": 1.5}, "pi_thresh"),
    ],
)
def test_bad_arguments(small, options, fragment):
    with pytest.raises(InputError, match=fragment):
        mash(small, **options)


@pytest.mark.parametrize(
    "options",
    [{"Ulist": [np.eye(3)]}, {"grid": [1.0]}, {"normalizeU": True}, {"usepointmass": True}],
)
def test_a_fitted_prior_excludes_its_parts(small, options):
    fitted = mash(small, cov_canonical(small), outputlevel=1)
    with pytest.raises(OptionError, match="cannot supply both g and"):
        mash(small, g=fitted, **options)
    refitted = mash(small, g=fitted)
    np.testing.assert_allclose(refitted.loglik, fitted.loglik)
    for name, value in (("prior", "uniform"), ("optmethod", "em")):
        with pytest.raises(OptionError, match="cannot supply both fixg"):
            mash(small, g=fitted, fixg=True, **{name: value})


def test_alpha_must_agree(small, random):
    fitted = mash(small, cov_canonical(small), outputlevel=1)
    other = mash_set_data(random.normal(size=(4, 3)), np.full((4, 3), 2.0), alpha=1)
    for function in (mash_compute_posterior_matrices, mash_compute_vloglik):
        with pytest.raises(OptionError, match="alpha"):
            function(fitted, other)
    with pytest.raises(OptionError, match="alpha"):
        mash(other, g=fitted, fixg=True)


def test_only_mash_data(small):
    with pytest.raises(InputError, match="mash_set_data"):
        mash(np.ones((3, 3)), [np.eye(3)])


def test_results_are_read_only_and_round_trip(small, tmp_path):
    result = mash(small, cov_canonical(small), outputlevel=3)
    with pytest.raises(ValueError, match="read-only"):
        result.lfsr[0, 0] = 0
    result.save(tmp_path / "fit.zarr")
    again = MashResult.load(tmp_path / "fit.zarr")
    assert again.allclose(result)
    assert again.condition_names == ("a", "b", "c")
    assert list(again.fitted_g.Ulist) == list(result.fitted_g.Ulist)
    frame = result.to_frame()
    assert frame.columns[:2] == ["effect", "context"]
    assert len(frame) == 900
    assert "converged" in result.summary()
    assert "<table" in result._repr_html_()


def test_prior_round_trip_expand_and_prune(small, tmp_path):
    fitted = mash(small, cov_canonical(small), outputlevel=1).fitted_g
    fitted.save(tmp_path / "prior.npz")
    again = FittedG.load(tmp_path / "prior.npz")
    np.testing.assert_array_equal(again.pi, fitted.pi)
    assert list(again.Ulist) == list(fitted.Ulist)
    assert again.alpha == fitted.alpha
    assert list(fitted.expand())[:2] == ["null", "identity.1"]
    pruned = fitted.prune()
    assert len(pruned.Ulist) <= len(fitted.Ulist)
    a = mash_compute_posterior_matrices(fitted, small)
    b = mash_compute_posterior_matrices(pruned, small)
    np.testing.assert_allclose(a.lfsr, b.lfsr, atol=1e-8)
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(InputError, match="not a readable npz"):
        FittedG.load(tmp_path / "broken.npz")
    with pytest.raises(InputError, match="no such file"):
        FittedG.load(tmp_path / "absent.npz")
    with pytest.raises(OptionError, match="pi has length"):
        FittedG(np.ones(3) / 3, {"a": np.eye(2)}, np.ones(5))


def test_huge_posterior_covariances_are_refused(random):
    from plait.errors import CapacityError

    data = mash_set_data(random.normal(size=(40_000, 90)))
    fitted = FittedG(np.array([0.5, 0.5]), {"identity": np.eye(90)}, np.ones(1))
    with pytest.raises(CapacityError, match="outputlevel=2"):
        mash_compute_posterior_matrices(fitted, data, output_posterior_cov=True)


def test_grid_shape_error(small):
    with pytest.raises(ShapeError):
        mash(small, [np.eye(3)], grid=np.zeros((2, 2)))
