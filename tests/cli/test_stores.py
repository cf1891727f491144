"""The commands on effects that stay in their store."""

import json
import shlex
import subprocess
import sys

import numpy as np
import pytest

from plait import mash as pm
from plait.cli.main import main
from plait.data import Effects
from plait.io import write_effects

N = 3000


def plait(text):
    return main(shlex.split(text))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sim = pm.simple_sims(N // 4, 4, 0.8, seed=3)
    errors = sim["Shat"].copy()
    errors[5, 2] = np.inf
    effects = Effects(
        sim["Bhat"], errors, effects=[f"rs{j}" for j in range(N)], contexts=["a", "b", "c", "d"]
    )
    write_effects(effects, "e.zarr")
    return tmp_path


def test_the_whole_road_on_a_store(folder, capsys):
    store = "--effects e.zarr"
    assert plait(f"mash estimate-null-corr-simple {store} --method truncated_ml --out v.csv") == 0
    assert plait(f"mash pca {store} --v v.csv --npc 2 --out pca.npz") == 0
    assert plait(f"mash ed {store} --v v.csv --ulist pca.npz --out ed.npz --memory 300MB") == 0
    assert plait(f"mash ud {store} --n-unconstrained 1 --max-iterations 3 --out ud.npz") == 0
    assert plait(f"mash estimate-null-corr-em {store} --max-iterations 1 --out em.npy") == 0
    text = f"mash fit {store} --v v.csv --ulist ed.npz --cov-methods all --train-size 900"
    assert plait(f"{text} --out r.zarr --memory 400MB --threads 2 --log-json") == 0
    heard = capsys.readouterr()
    logged = [json.loads(line) for line in heard.err.splitlines() if line.startswith("{")]
    assert {"checking", "strongest effects", "posterior"} <= {item["what"] for item in logged}
    assert all({"time", "event", "start", "stop", "seconds", "host"} <= set(i) for i in logged)
    assert "3,000 effects x 4 conditions, 1 cells missing" in heard.out
    assert "written: r.zarr" in heard.out
    result = pm.MashResult.load("r.zarr")
    assert result.effect_names[7] == "rs7"
    assert result.provenance.options["train_size"] == 900
    assert result.converged


def test_a_stored_result_is_shown(folder, capsys):
    assert plait("mash fit --effects e.zarr --train-size 900 --out r.zarr --quiet") == 0
    assert plait("mash fit --effects e.zarr --train-size 900 --out r --quiet") == 0
    for command, out in (
        ("significant", "s{}.csv"),
        ("sharing", "sharing{}.csv"),
    ):
        for i, result in enumerate(("r.zarr", "r.npz")):
            assert plait(f"mash {command} {result} --out {out.format(i)}") == 0
        assert (folder / out.format(0)).read_text() == (folder / out.format(1)).read_text()
    assert plait("mash plot-meta r.zarr --effect rs7 --out f.png") == 0
    assert plait("mash plot-meta r.zarr --effect rs none --out f.png") == 2
    assert plait("mash plots r.zarr --out figures --quiet") == 0


def test_what_needs_everything_in_memory(folder, capsys):
    assert plait("mash onebyone --effects e.zarr --out s --quiet") == 0
    assert plait("mash ed --effects e.zarr --strong s.npz --out ed.npz --quiet") == 0
    assert plait("mash fit --effects e.zarr --outputlevel 3 --out r3 --quiet") == 0
    assert plait("mash ed --effects e.zarr --all-effects --out x.npz --memory 2MB") == 1
    assert "raise --memory" in capsys.readouterr().err


def test_wrong_use(folder, capsys):
    assert plait("mash fit --effects e.zarr --memory lots --out r.zarr") == 2
    assert "such as '2GB'" in capsys.readouterr().err
    assert plait("mash fit --effects e.zarr --dask nowhere --out r.zarr") == 2
    assert plait("mash fit --effects none.zarr --out r.zarr") == 2
    assert plait("mash apply --effects e.zarr --g none.npz --out r.zarr") == 2


PEAK = """
import resource, sys
from plait.cli.main import main
status = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)
raise SystemExit(status)
"""


def peak_of(folder, name):
    line = (
        f"mash fit --effects {name} --train-size 2000 --memory 120MB --threads 1 --quiet "
        f"--out result.{name}"
    )
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *line.split()],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return int(done.stderr.split()[-1])


def test_memory_does_not_grow_with_the_number_of_effects(tmp_path):
    """Five times the effects and 380 MB more of numbers in and out: about the same peak."""
    random = np.random.default_rng(0)
    part = Effects(random.normal(size=(65_536, 5)), np.ones((65_536, 5)))
    for name, count in (("small.zarr", 6), ("large.zarr", 30)):
        write_effects((part for _ in range(count)), tmp_path / name)
    small, large = peak_of(tmp_path, "small.zarr"), peak_of(tmp_path, "large.zarr")
    assert large - small < 80
