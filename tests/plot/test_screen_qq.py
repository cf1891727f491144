import numpy as np
import pytest

from plait.crt.qq import bootstrap_qq_envelope, qq_coords
from plait.errors import InputError
from plait.plot.screen_qq import plot_qq_curves


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
