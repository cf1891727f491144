"""One condition at a time: against the reference program, and what excluded rows must say."""

import numpy as np
import pytest
from scipy.stats import norm

from plait import mash as pm
from plait.errors import ConvergenceWarning, InputError, OptionError
from plait.execution.threads import use_threads
from plait.mash.ash import NormalMixture, ash, mash_1by1, running_mean
from plait.mash.data import mash_set_data
from plait.mash.results import MashResult
from tests.reference_files import load


@pytest.mark.parametrize(("name", "alpha"), [("common", 0), ("vary", 0), ("varyalpha1", 1)])
def test_reference_1by1(name, alpha):
    file = load("mash", "h_ash_1by1.npz")
    data = mash_set_data(file[f"{name}_Bhat"], file[f"{name}_Shat"])
    found = mash_1by1(data, alpha=alpha)
    np.testing.assert_allclose(found.lfsr, file[f"{name}_lfsr"], atol=2e-3)
    np.testing.assert_allclose(found.posterior_mean, file[f"{name}_PosteriorMean"], atol=2e-3)
    np.testing.assert_allclose(found.posterior_sd, file[f"{name}_PosteriorSD"], atol=2e-3)
    assert abs(found.loglik - float(file[f"{name}_loglik"])) <= 2e-6 * 2000
    assert found.vloglik.sum() == pytest.approx(found.loglik, abs=1e-6)


def test_reference_ash_with_excluded_rows():
    file = load("mash", "h_ash_1by1.npz")
    x, s = file["ash_x"], file["ash_s"]
    found = ash(x, s)
    np.testing.assert_allclose(found.fitted_g.sd, file["ash_sd"], rtol=1e-12)
    use = np.isfinite(x) & np.isfinite(s)
    for ours, theirs in (
        ("posterior_mean", "PosteriorMean"),
        ("posterior_sd", "PosteriorSD"),
        ("lfdr", "lfdr"),
    ):
        np.testing.assert_allclose(getattr(found, ours), file[f"ash_{theirs}"], atol=2e-3)
    np.testing.assert_allclose(found.lfsr[use], file["ash_lfsr"][use], atol=2e-3)
    np.testing.assert_allclose(found.negative_prob[use], file["ash_NegativeProb"][use], atol=2e-3)
    np.testing.assert_allclose(running_mean(file["ash_lfsr"]), file["ash_svalue"], atol=1e-12)
    np.testing.assert_allclose(running_mean(file["ash_lfdr"]), file["ash_qvalue"], atol=1e-12)
    at_reference = ash(x, s, g=NormalMixture(file["ash_pi"], file["ash_sd"]), fixg=True)
    assert at_reference.loglik == pytest.approx(-3316.06209, abs=1e-4)


def test_reference_uniform_without_point_mass():
    file = load("mash", "h_ash_1by1.npz")
    found = ash(file["vary_Bhat"][:, 1], file["vary_Shat"][:, 1], prior="uniform", pointmass=False)
    np.testing.assert_allclose(found.fitted_g.sd, file["ashU_sd"], rtol=1e-12)
    np.testing.assert_allclose(found.lfsr, file["ashU_lfsr"], atol=2e-3)
    assert abs(found.loglik - float(file["ashU_loglik"])) <= 2e-6 * 2000


def penalised_objective(x, s, pi, sd):
    density = norm.pdf(x[:, None], scale=np.sqrt(s[:, None] ** 2 + sd**2))
    return np.log(density @ pi).sum() + 9 * np.log(pi[0])


def test_objective_is_not_below_the_references():
    file = load("mash", "h_ash_1by1.npz")
    use = np.isfinite(file["ash_x"]) & np.isfinite(file["ash_s"])
    x, s = file["ash_x"][use], file["ash_s"][use]
    found = ash(x, s)
    ours = penalised_objective(x, s, found.fitted_g.pi, found.fitted_g.sd)
    theirs = penalised_objective(x, s, file["ash_pi"], file["ash_sd"])
    assert ours >= theirs - 1e-9 * len(x)
    assert found.optim["dual_gap"] <= 1e-8 and found.optim["converged"]


def test_posterior_against_quadrature(random):
    """The point mass apart, integrate likelihood times prior over the effect itself."""
    x, s = random.normal(size=6) * 3, np.exp(0.5 * random.normal(size=6))
    g = NormalMixture(np.array([0.3, 0.5, 0.2]), np.array([0.0, 1.0, 4.0]))
    found = ash(x, s, g=g, fixg=True)
    b = np.linspace(-40, 40, 400_001)
    prior = 0.5 * norm.pdf(b) + 0.2 * norm.pdf(b, scale=4)
    step = b[1] - b[0]
    for j in range(6):
        density = norm.pdf(x[j], b, s[j]) * prior * step
        null = 0.3 * norm.pdf(x[j], 0, s[j])
        total = density.sum() + null
        negative, positive = density[b < 0].sum() / total, density[b > 0].sum() / total
        mean = (b * density).sum() / total
        assert found.posterior_mean[j] == pytest.approx(mean, abs=1e-8)
        second = (b**2 * density).sum() / total
        assert found.posterior_sd[j] == pytest.approx(np.sqrt(second - mean**2), abs=1e-8)
        assert found.lfdr[j] == pytest.approx(null / total, abs=1e-8)
        assert found.negative_prob[j] == pytest.approx(negative, abs=1e-4)
        assert found.lfsr[j] == pytest.approx(null / total + min(negative, positive), abs=1e-4)


def test_weights_count_effects(random):
    x, s = random.normal(size=200) * 2, np.exp(0.2 * random.normal(size=200))
    twice = np.repeat([1, 2], 100)
    weighted = ash(x, s, weights=twice)
    repeated = ash(np.repeat(x, twice), np.repeat(s, twice))
    np.testing.assert_allclose(weighted.fitted_g.pi, repeated.fitted_g.pi, atol=1e-6)


def test_bits_do_not_depend_on_threads(random):
    x, s = random.normal(size=5000) * 2, np.exp(0.2 * random.normal(size=5000))
    found = []
    for threads in (1, 3):
        with use_threads(threads):
            found.append(ash(x, s))
    assert found[0].allclose(found[1], rtol=0)


def test_rows_without_data_say_that_the_sign_is_unknown(random):
    x = np.append(random.normal(size=200) * 3, [np.nan, 1.0, 1.0])
    s = np.append(np.ones(200), [1.0, np.inf, 0.0])
    found = ash(x, s)
    pi0 = found.fitted_g.pi[0]
    np.testing.assert_allclose(found.lfsr[-3:], (1 + pi0) / 2)
    np.testing.assert_allclose(found.lfdr[-3:], pi0)
    np.testing.assert_allclose(found.negative_prob[-3:], (1 - pi0) / 2)
    np.testing.assert_array_equal(found.posterior_mean[-3:], 0.0)


def test_very_strong_effects_keep_their_rate(random):
    found = ash(np.append(random.normal(size=300), 30.0), np.ones(301))
    assert 0 < found.lfsr[-1] < 1e-100


def test_1by1_reports_the_original_scale(random):
    bhat = random.normal(size=(300, 3)) * 4
    shat = np.exp(0.3 * random.normal(size=(300, 3)))
    scaled = mash_1by1(mash_set_data(bhat, shat, alpha=1))
    z = mash_1by1(mash_set_data(bhat / shat))
    np.testing.assert_allclose(scaled.lfsr, z.lfsr, atol=1e-12)
    np.testing.assert_allclose(scaled.posterior_mean, z.posterior_mean * shat, rtol=1e-9)
    assert scaled.loglik == pytest.approx(z.loglik - np.log(shat).sum())


def test_1by1_leaves_missing_cells_out(random):
    bhat = random.normal(size=(300, 3)) * 3
    bhat[:50, 1] = np.nan
    V = np.eye(3) * 0.5 + 0.5
    found = mash_1by1(mash_set_data(bhat, V=V))
    alone = ash(bhat[50:, 1], np.ones(250))
    np.testing.assert_allclose(found.lfsr[50:, 1], alone.lfsr, atol=1e-9)
    assert np.all(found.lfsr[:50, 1] > 0.5)


def test_1by1_says_which_condition_fails(random):
    bhat = random.normal(size=(60, 3)) * 3
    data = pm.mash_set_data(bhat, condition_names=["liver", "lung", "skin"])
    with pytest.warns(ConvergenceWarning) as caught:
        found = mash_1by1(data, optmethod="em", control={"max_iter": 2})
    assert "of condition 'liver' (em)" in str(caught[0].message)
    assert len(caught) == 3
    assert not found.converged
    bhat[:, 1] = np.nan
    empty = pm.mash_set_data(bhat, condition_names=["liver", "lung", "skin"], missing="exact")
    without = mash_1by1(empty)  # nothing was measured there, and nothing is said about it
    assert (without.lfsr[:, 1] == 1).all() and (without.lfdr[:, 1] == 1).all()
    np.testing.assert_array_equal(without.lfsr[:, ::2], mash_1by1(data).lfsr[:, ::2])
    nothing = pm.mash_set_data(bhat * np.nan, missing="exact")
    with pytest.raises(InputError, match="in any condition"):
        mash_1by1(nothing)


def test_1by1_with_shared_mixture_and_few_effects(random):
    data = mash_set_data(random.normal(size=(1, 3)) * 3)
    found = mash_1by1(data, mixsd=[0.5, 2.0], prior="uniform", pointmass=False)
    assert [part["sd"] for part in found.fitted_g] == [[0.5, 2.0]] * 3
    assert np.isfinite(found.lfsr).all()
    assert {"method", "niter", "converged", "dual_gap", "objective", "seconds"} == set(found.optim)


def test_1by1_round_trip(random, tmp_path):
    found = mash_1by1(mash_set_data(random.normal(size=(60, 3)) * 3))
    found.save(tmp_path / "screen.zarr")
    assert MashResult.load(tmp_path / "screen.zarr").allclose(found)


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        ({"mixcompdist": "uniform"}, "normal"),
        ({"mode": 1}, "mode=0"),
        ({"fixg": True}, "cannot fix g"),
        ({"prior": "flat"}, "nullbiased"),
        ({"prior": np.ones(2)}, "wrong length"),
        ({"prior": np.zeros(4), "mixsd": [0.0, 1, 2, 3]}, "at least 1"),
        ({"nullweight": 0.1}, "at least 1"),
        ({"mixsd": [[1.0]]}, "one-dimensional"),
        ({"mixsd": [-1.0]}, "not negative"),
        ({"mixsd": [1.0], "g": NormalMixture(np.ones(1), np.ones(1))}, "both g and mixsd"),
        ({"weights": np.ones(4)}, "wrong length"),
        ({"weights": np.zeros(5)}, "positive"),
    ],
)
def test_bad_options(options, fragment):
    with pytest.raises(InputError, match=fragment):
        ash(np.arange(5.0), np.ones(5), **options)


@pytest.mark.parametrize(
    ("x", "s", "fragment"),
    [
        (np.ones((2, 2)), 1.0, "one-dimensional"),
        (np.ones(0), 1.0, "not empty"),
        (np.ones(3), np.ones(2), "dimensions"),
        ([1.0, np.inf], 1.0, "Inf at row 1"),
        ([1.0, 2.0], [1.0, -1.0], "negative .* at row 1"),
        ([np.nan, 1.0], [1.0, np.inf], "nothing to learn"),
    ],
)
def test_bad_data(x, s, fragment):
    with pytest.raises(InputError, match=fragment):
        ash(x, s)


def test_option_errors_are_option_errors():
    with pytest.raises(OptionError):
        ash(np.arange(5.0), np.ones(5), optmethod="none")
