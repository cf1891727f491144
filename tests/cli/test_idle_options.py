"""Options of ``plait mash`` that would do nothing are refused."""

import numpy as np
import pytest

from plait.cli.main import main
from plait.data import Effects
from plait.io import write_effects


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(1)
    effects = Effects(random.normal(size=(200, 3)) * 2, np.ones((200, 3)))
    write_effects(effects, "e.zarr")
    np.save("b.npy", effects.bhat)
    np.savez("u.npz", u_stack=np.eye(3)[None], u_names=np.array(["one"]))
    return tmp_path


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("fit --bhat b.npy --grid 1,2 --gridmult 2", "--gridmult does nothing with --grid"),
        (
            "fit --bhat b.npy --prior uniform --nullweight 5",
            "--nullweight does nothing with --prior uniform",
        ),
        (
            "fit --effects e.zarr --zero-shat-reset 1",
            "--zero-shat-reset does nothing with --effects",
        ),
        (
            "pca --bhat b.npy --all-effects --level 0.1 --npc 2",
            "--level does nothing with --all-effects",
        ),
        ("ed --bhat b.npy --ulist u.npz --npc 2", "--npc does nothing with --ulist"),
    ],
)
def test_refused(here, line, text, capsys):
    before = sorted(here.iterdir())
    assert main(["mash", *line.split(), "--out", "o.npz", "--quiet"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said == f"plait: error: {text}: leave it out."
    assert sorted(here.iterdir()) == before


@pytest.mark.filterwarnings("ignore:only .* effects for the principal components")
@pytest.mark.parametrize(
    "line",
    [
        "fit --bhat b.npy --gridmult 2 --nullweight 5",
        "fit --bhat b.npy --grid 1,2 --prior uniform",
        "pca --bhat b.npy --level 0.1 --npc 2",
    ],
)
def test_what_does_something_is_taken(here, line):
    assert main(["mash", *line.split(), "--out", "o.npz", "--quiet"]) == 0
