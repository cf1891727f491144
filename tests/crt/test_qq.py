import numpy as np
import pytest

from plait.crt.qq import bootstrap_qq_envelope, is_bh_adjusted_like, qq_coords, qq_expected_grid
from plait.errors import InputError
from tests.reference_files import load


@pytest.mark.parametrize("name", ["synth_a", "synth_b"])
def test_coordinates_and_envelope_are_those_of_programde(name):
    known = load(f"crt/{name}", "qq.npz")
    x, y = qq_coords(known["p"])
    np.testing.assert_allclose(x, known["x"], rtol=1e-9)
    np.testing.assert_allclose(y, known["y"], rtol=1e-9)
    _, low, high = bootstrap_qq_envelope(known["p"])
    np.testing.assert_allclose(low, known["env_lo"], rtol=1e-9)
    np.testing.assert_allclose(high, known["env_hi"], rtol=1e-9)


def test_expected_grid_and_values_that_are_not_finite():
    np.testing.assert_allclose(qq_expected_grid(4), [0.125, 0.375, 0.625, 0.875])
    x, y = qq_coords([0.1, np.nan, 0.0, np.inf])
    np.testing.assert_allclose(x, -np.log10([0.25, 0.75]))
    np.testing.assert_allclose(y, [300, 1])


def test_no_p_values_are_refused():
    for p in ([], [np.nan]):
        with pytest.raises(InputError, match="at least one p-value"):
            qq_coords(p)
    with pytest.raises(InputError, match="alpha"):
        bootstrap_qq_envelope([0.5], alpha=1.0)


def test_adjusted_p_values_are_recognised():
    p = np.random.default_rng(1).random(1000)
    assert not is_bh_adjusted_like(p)
    assert not is_bh_adjusted_like([])
    assert is_bh_adjusted_like(np.where(p < 0.3, 1.0, p))
    assert is_bh_adjusted_like(np.repeat([0.7, 0.9], 50))
