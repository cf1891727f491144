import numpy as np
import pytest

from plait.errors import OptionError
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
    with pytest.raises(OptionError, match="at most 1"):
        simulate_effects(5, {"a": np.eye(2)}, {"a": 1.5})
