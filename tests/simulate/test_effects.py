"""Simulators plant what they say."""

import numpy as np
import pytest

from plait.errors import InputError
from plait.simulate import (
    sim_contrast1,
    sim_contrast2,
    simple_sims,
    simple_sims2,
    simulate_effects,
)


def test_simple_sims():
    sim = simple_sims(50, 3, 0.5, seed=1)
    assert sim["B"].shape == (200, 3)
    assert not sim["B"][:50].any()
    assert not sim["B"][100:150, 1:].any()
    np.testing.assert_array_equal(sim["B"][150:, 0], sim["B"][150:, 2])
    assert np.all(sim["Shat"] == 0.5)
    np.testing.assert_array_equal(sim["Bhat"], simple_sims(50, 3, 0.5, seed=1)["Bhat"])
    assert abs((sim["Bhat"] - sim["B"]).std() - 0.5) < 0.05


def test_other_sims():
    two = simple_sims2(20, 0.1, seed=1)["B"]
    assert two.shape == (40, 5)
    assert not two[:20, 2:].any()
    assert not two[20:, :2].any()
    base = sim_contrast1(30, 4, seed=1)["B"]
    assert np.ptp(base, axis=1).max() == 0
    deviated = sim_contrast2(1000, 5, seed=1)["B"]
    assert np.sum(np.ptp(deviated, axis=1) > 0) == 100


def test_planted_mixture():
    sim = simulate_effects(
        20_000, {"equal": np.ones((3, 3))}, {"equal": 0.25}, error_spread=0.2, missing=0.1, seed=3
    )
    assert abs(np.mean(sim["component"] == 0) - 0.25) < 0.02
    assert not sim["B"][sim["component"] == -1].any()
    holes = np.isnan(sim["Bhat"])
    assert abs(holes.mean() - 0.1) < 0.01
    np.testing.assert_array_equal(holes, np.isnan(sim["Shat"]))


def test_planted_moments():
    U = np.array([[2.0, 1.0], [1.0, 1.0]])
    V = np.array([[1.0, 0.6], [0.6, 1.0]])
    sim = simulate_effects(
        100_000, {"only": U}, {"only": 1.0}, error_correlation=V, error_spread=0.3, seed=4
    )
    np.testing.assert_allclose(np.cov(sim["B"], rowvar=False), U, atol=0.05)
    z = (sim["Bhat"] - sim["B"]) / sim["Shat"]
    np.testing.assert_allclose(np.cov(z, rowvar=False), V, atol=0.03)
    assert np.log(sim["Shat"]).std() == pytest.approx(0.3, abs=0.01)


def test_contrast_deviations_are_of_three_kinds():
    sim = sim_contrast2(1000, 5, seed=1)
    deviation = sim["B"] - sim["B"][:, [4]]
    assert not deviation[:900].any()
    assert np.all(np.ptp(deviation[900:933, :4], axis=1) > 0)
    np.testing.assert_allclose(np.ptp(deviation[933:966, :4], axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(deviation[966:, 1:], 0, atol=1e-12)
    assert np.all(deviation[966:, 0] != 0)
    assert np.all(sim["Shat"] == np.sqrt(0.5))


@pytest.mark.parametrize(
    ("covariances", "weights", "options", "fragment"),
    [
        ({"a": np.eye(2)}, {"a": 1.5}, {}, "at most 1"),
        ({"a": np.eye(2)}, {"a": -0.1}, {}, "negative"),
        ({"a": np.eye(2)}, {"b": 0.1}, {}, "no covariance"),
        ({}, {}, {}, "empty"),
        ({"a": np.eye(2), "b": np.eye(3)}, {}, {}, "b has shape"),
        ({"a": np.eye(2)}, {}, {"error_correlation": np.eye(3)}, "error_correlation has shape"),
        ({"a": np.eye(2)}, {}, {"missing": 2}, "missing is 2"),
    ],
)
def test_bad_mixtures(covariances, weights, options, fragment):
    with pytest.raises(InputError, match=fragment):
        simulate_effects(5, covariances, weights, **options)
