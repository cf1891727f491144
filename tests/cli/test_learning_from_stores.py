"""What commands learn from effects in a store, and who works for them."""

import shlex

import numpy as np
import pytest

from plait.cli.main import main
from plait.data import Effects
from plait.errors import CapacityError
from plait.io import write_effects

N = 2000


def plait(text):
    return main(shlex.split(text))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(1)
    bhat = random.normal(size=(N, 3)) + np.where(
        random.random((N, 1)) < 0.2, 3 * random.normal(size=(N, 1)), 0
    )
    errors = np.ones_like(bhat)
    errors[random.random(bhat.shape) < 0.05] = np.inf
    errors[:, 2] = np.inf
    write_effects(Effects(bhat, errors, contexts=["a", "b", "c"]), "e.zarr")
    (tmp_path / "v.csv").write_text(",a,b,c\na,1,0.5,0\nb,0.5,1,0\nc,0,0,1\n")
    return tmp_path


def test_filled_cells_and_correlated_errors_are_warned_of(folder, capsys):
    text = "mash onebyone --effects e.zarr --v v.csv --missing large_se --out s"
    assert plait(text) == 0
    assert "smaller than they are" in capsys.readouterr().err
    assert plait("mash onebyone --effects e.zarr --v v.csv --out s2") == 0
    assert "smaller than they are" not in capsys.readouterr().err


def test_errors_name_the_store_or_the_correlation(folder, capsys):
    (folder / "v.csv").write_text(",a,b,c\na,1,2,0\nb,2,1,0\nc,0,0,1\n")
    assert plait("mash onebyone --effects e.zarr --v v.csv --out s") == 2
    assert "v.csv" in capsys.readouterr().err
    assert plait("mash onebyone --effects none.zarr --v v.csv --out s") == 2
    assert "does not exist" in capsys.readouterr().err


def test_a_condition_that_was_never_measured(folder):
    assert plait("mash onebyone --effects e.zarr --out s --quiet") == 0
    with np.load("s.npz") as found:
        assert (found["lfsr"][:, 2] == 1).all()
        assert (found["lfsr"][:, 0] < 0.05).any()
    assert plait("mash pca --effects e.zarr --npc 2 --out pca.npz --quiet") == 0


def test_the_workers_of_the_command_estimate_the_correlation(folder, monkeypatch):
    from plait.mash import null_correlation

    asked = []

    def workforce(*arguments):
        asked.append(arguments)
        return real(*arguments)

    real = null_correlation.workforce
    monkeypatch.setattr(null_correlation, "workforce", workforce)
    line = "mash estimate-null-corr-simple --effects e.zarr --conditions a,b --out v.npy --quiet"
    assert plait(f"{line} --memory 123MB --threads 1") == 0
    assert asked == [(None, "123MB", 1)]


def test_the_memory_of_one_correlation_per_effect_counts(tmp_path):
    from plait.cli.inputs import in_memory
    from plait.mash import mash_open_data

    random = np.random.default_rng(0)
    bhat = random.normal(size=(1000, 10))
    V = np.broadcast_to(np.eye(10), (1000, 10, 10))
    for name, correlation in (("one.zarr", V[0]), ("each.zarr", V)):
        write_effects(Effects(bhat, np.ones_like(bhat), correlation), tmp_path / name)
    assert in_memory(mash_open_data(tmp_path / "one.zarr"), "2MB").n_effects == 1000
    with pytest.raises(CapacityError, match="raise --memory"):
        in_memory(mash_open_data(tmp_path / "each.zarr"), "2MB")
