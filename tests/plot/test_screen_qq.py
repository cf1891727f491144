import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plait.crt.qq import bootstrap_qq_envelope, qq_coords
from plait.errors import InputError, OptionError
from plait.plot.screen_qq import QQCurve, decimated, plot_qq_curves, screen_qq, uniform_band


def test_curves_and_envelope_are_drawn_into_a_new_folder(tmp_path):
    pytest.importorskip("matplotlib")
    random = np.random.default_rng(0)
    held_out, genes = random.random(300), random.random(300) ** 1.6
    path = tmp_path / "batch" / "qq.png"
    curves = {
        "NTC holdout (B vs A)": qq_coords(held_out),
        "Real genes (vs A)": qq_coords(genes),
    }
    plot_qq_curves(curves, path, "Gene level", bootstrap_qq_envelope(held_out))
    with_envelope = path.read_bytes()
    assert with_envelope.startswith(b"\x89PNG")
    plot_qq_curves(curves, path, "Gene level")
    assert path.read_bytes() != with_envelope


def test_curves_that_cannot_be_drawn_are_refused(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(InputError, match="0 QQ curves"):
        plot_qq_curves({}, tmp_path / "a.png", "none")
    with pytest.raises(InputError, match="'x' has shapes"):
        plot_qq_curves({"x": ([1.0], [1.0, 2.0])}, tmp_path / "a.png", "none")


def test_the_uniform_band_is_that_of_order_statistics():
    from scipy.stats import beta

    band = uniform_band(50, 0.1, "90%", "grey")
    ranks = np.round(50 * 10**-band.x + 0.5)
    np.testing.assert_allclose(10**-band.high, beta.ppf(0.05, ranks, 51 - ranks), rtol=1e-9)
    np.testing.assert_allclose(10**-band.low, beta.ppf(0.95, ranks, 51 - ranks), rtol=1e-9)
    with pytest.raises(OptionError, match="count is 0"):
        uniform_band(0, 0.1, "", "grey")


@given(st.integers(1, 3_000_000))
@settings(deadline=None, max_examples=30)
def test_the_smallest_p_values_are_all_drawn(count):
    shown = decimated(count)
    assert len(shown) <= 20_000 and (np.diff(shown) > 0).all()
    np.testing.assert_array_equal(shown[:2000], np.arange(min(count, 2000)))
    assert shown[-1] == count - 1
    if count <= 20_000:
        assert len(shown) == count


def test_a_style_that_is_unknown_is_refused():
    with pytest.raises(OptionError, match="'wavy'"):
        screen_qq([QQCurve([1.0], [1.0], "a", "black", "wavy")])
