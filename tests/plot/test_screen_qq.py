import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plait.crt.qq import bootstrap_qq_envelope, qq_coords
from plait.errors import InputError, OptionError
from plait.plot.screen_qq import (
    QQCurve,
    controls_qq,
    decimated,
    plot_qq_curves,
    readable_limit,
    screen_qq,
    uniform_band,
)


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
    sides = [int.from_bytes(with_envelope[begin : begin + 4], "big") for begin in (16, 20)]
    assert sides == [900, 750]  # 6 x 5 inches at 150 dots
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
    with pytest.raises(OptionError, match="limit is 0"):
        screen_qq([QQCurve([1.0], [1.0], "a", "black")], limit=0.0)


def points_of(ax):
    """Return the points that are drawn, by the label of their curve; "" of triangles."""
    return {
        "" if part.get_label().startswith("_") else part.get_label(): np.asarray(part.get_offsets())
        for part in ax.collections
        if len(part.get_offsets()) and part.get_array() is None and part.get_paths()
    }


def test_points_beyond_the_limit_are_triangles_at_it():
    plt = pytest.importorskip("matplotlib.pyplot")
    y = np.array([90.0, 30.0, 3.0, 1.0])
    ax = screen_qq([QQCurve([2.0, 1.5, 1.0, 0.5], y, "tests", "black")], limit=8.0)
    points = points_of(ax)
    np.testing.assert_allclose(points["tests"], [[1.0, 3.0], [0.5, 1.0]])
    np.testing.assert_allclose(points[""], [[2.0, 8.0], [1.5, 8.0]])
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "2 beyond 8, up to 90" in labels
    assert ax.get_ylim()[1] > 8 and max(ax.get_yticks()) <= 8
    assert ax.get_xlabel() == "expected −log₁₀ p"
    # Without points beyond it there is nothing to say.
    ax = screen_qq([QQCurve([1.0, 0.5], [2.0, 1.0], "tests", "black")], limit=8.0)
    assert not any("beyond" in text.get_text() for text in ax.get_legend().get_texts())
    plt.close("all")


def test_controls_have_half_of_the_picture_below_the_limit():
    random = np.random.default_rng(0)
    controls = -np.log10(random.random(500))
    tests = np.r_[controls, 200.0]
    limit = readable_limit(tests, controls)
    assert controls.max() / limit > 0.3
    assert limit >= 2 * controls.max()
    assert readable_limit(controls, controls) is None
    assert readable_limit(tests, np.empty(0)) == readable_limit(tests, controls)
    # Controls far above chance are not cut.
    assert readable_limit(tests, np.r_[controls, 60.0]) == 120


def test_controls_beside_tests():
    plt = pytest.importorskip("matplotlib.pyplot")
    random = np.random.default_rng(1)
    controls = np.log10(random.random((20, 5)))
    tests = np.log10(random.random((30, 5)))
    tests[0, 0], tests[1, 1] = -120.0, np.nan
    ax = controls_qq(tests, controls, names=("pairs", "controls"), caption=True, title="Both")
    points = points_of(ax)
    assert len(points["pairs (149)"]) == 148 and len(points["controls (100)"]) == 100
    np.testing.assert_allclose(points["controls (100)"][:, 1], np.sort(-controls.ravel())[::-1])
    assert points["controls (100)"][0, 0] == pytest.approx(-np.log10(0.5 / 100))

    def caption_of(axes):
        return " ".join(axes.figure.get_supxlabel().split())

    assert "Negative controls should stay" in caption_of(ax)
    assert "Triangles" in caption_of(ax)
    assert "Without negative controls" in caption_of(controls_qq(tests, caption=True))
    checked = caption_of(controls_qq([], controls, caption=True))
    assert "controls have no effect" in checked and "Triangles" not in checked
    with pytest.raises(InputError, match="no p-values"):
        controls_qq([np.nan])
    plt.close("all")
