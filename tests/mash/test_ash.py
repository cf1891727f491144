"""One condition at a time: against the reference program, and what excluded rows must say."""

import numpy as np
import pytest

from plait.errors import InputError, OptionError
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
    ],
)
def test_bad_options(options, fragment):
    with pytest.raises(InputError, match=fragment):
        ash(np.arange(5.0), np.ones(5), **options)
    with pytest.raises(InputError):
        ash(np.ones((2, 2)), np.ones((2, 2)))


def test_option_errors_are_option_errors():
    with pytest.raises(OptionError):
        ash(np.arange(5.0), np.ones(5), optmethod="none")
