"""Draws on a device: of the same law as those of the kernels, and the same whenever repeated."""

import numpy as np
import pytest

from plait.crt import options as options_module
from plait.crt import perturbation_effects, prepare_crt_inputs, unit_tests
from plait.crt.device_draws import DeviceTable, null_effects_on_device
from plait.crt.null_statistics import null_effects, residual_table
from plait.crt.resampling import BernoulliResampler
from plait.crt.seeds import UnitStream
from plait.errors import OptionError
from tests.crt.cases import random_screen
from tests.crt.screens import reference_screen

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from tests.pretended_device import PLACE, pretended  # noqa: E402

STREAM = UnitStream(7, "unit")


@pytest.fixture(params=["cpu", "cuda"])
def place(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU here")
    return torch.device(request.param)


def test_effects_have_the_law_of_the_kernels(place):
    screen = random_screen(n_cells=600, n_outcomes=4, n_covariates=3)
    table = residual_table(screen.residuals, screen.basis)
    b = 6000
    expected = null_effects(table, BernoulliResampler(screen.probabilities, STREAM), b)
    found = null_effects_on_device(DeviceTable.of(table, place), screen.probabilities, STREAM, b)
    share = screen.probabilities.sum()
    spread = np.sqrt((screen.probabilities * (1 - screen.probabilities)).sum() / b)
    assert abs(found.n_treated.mean() - share) < 6 * spread
    scale = expected.values.std(axis=0)
    off = found.values.mean(axis=0) - expected.values.mean(axis=0)
    assert (np.abs(off) < 6 * scale * np.sqrt(2 / b)).all()
    np.testing.assert_allclose(found.values.std(axis=0), scale, rtol=6 / np.sqrt(b))


def test_the_same_draws_again_and_more_extend_fewer(place):
    screen = random_screen(n_cells=300)
    table = DeviceTable.of(residual_table(screen.residuals, screen.basis), place)
    few, again, many = (
        null_effects_on_device(table, screen.probabilities, STREAM, b) for b in (600, 600, 1100)
    )
    np.testing.assert_array_equal(few.values, again.values)
    np.testing.assert_array_equal(many.values[:600], few.values)
    other = null_effects_on_device(table, screen.probabilities, UnitStream(7, "other"), 600)
    assert not np.array_equal(other.values, few.values)


def test_resamples_without_treated_cells_are_left_out(place):
    screen = random_screen(n_cells=300)
    table = DeviceTable.of(residual_table(screen.residuals, screen.basis), place)
    null = null_effects_on_device(table, np.full(300, 1 / 300), STREAM, 900)
    is_empty = null.n_treated == 0
    assert 250 < is_empty.sum() < 420
    np.testing.assert_array_equal(np.isnan(null.values).all(axis=1), is_empty)
    np.testing.assert_array_equal(null.tested, null.values[~is_empty])


def test_a_screen(place, monkeypatch):
    inputs = prepare_crt_inputs(reference_screen("synth_b")[0])
    expected = perturbation_effects(inputs, method="skew-normal", resamples=2000)
    for module in (unit_tests, options_module):
        monkeypatch.setattr(module, "torch_device", lambda device: place)
    found = perturbation_effects(inputs, method="skew-normal", resamples=2000, device="cuda")
    np.testing.assert_array_equal(found.beta, expected.beta)
    assert not np.array_equal(found.p_raw, expected.p_raw)
    p = expected.p_raw
    z = (found.p_raw - p) / np.sqrt(np.maximum(p * (1 - p), 1e-3) * 2 / 2000)
    assert np.abs(z).max() < 6
    assert found.settings["device"] == str(place)


def test_arrays_of_a_device_meet_no_others(monkeypatch):
    screen = random_screen(n_cells=300)
    table = DeviceTable.of(residual_table(screen.residuals, screen.basis), PLACE)
    with pretended(monkeypatch) as seen:
        found = null_effects_on_device(table, screen.probabilities, STREAM, 900)
    assert len(found.values) == 900
    assert seen.operations > 10
    assert not seen.mixed


def test_what_a_device_does_not_draw():
    inputs = prepare_crt_inputs(reference_screen("synth_b")[0])
    for options in ({}, {"statistic": "utest"}, {"sampler": "stratified"}):
        method = {"method": "empirical"} if options else {}
        with pytest.raises(OptionError, match="a GPU draws for"):
            perturbation_effects(inputs, device="cuda", **method, **options)
