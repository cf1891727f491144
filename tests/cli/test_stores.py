"""The commands on effects that stay in their store."""

import json
import shlex
import subprocess
import sys
import warnings

import numpy as np
import pytest

from plait import mash as pm
from plait.cli.console import session
from plait.cli.main import main
from plait.cli.outputs import check_target
from plait.data import Effects
from plait.errors import DataWarning, OutputError
from plait.execution.blocks import Block
from plait.execution.checkpoint import Run
from plait.execution.executors import log_block
from plait.execution.progress import stage
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
    logged = [item for item in logged if item["event"] == "block"]
    assert {"checking", "strongest effects", "posterior"} <= {item["what"] for item in logged}
    assert all({"time", "event", "start", "stop", "seconds", "host"} <= set(i) for i in logged)
    assert "3,000 effects x 4 conditions, 1 cell missing" in heard.out
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


def after_a_block(monkeypatch, error):
    """End the next run with an error when its first block is recorded."""

    def record(self, block, *what):
        recorded(self, block, *what)
        raise error

    recorded = Run.record
    monkeypatch.setattr(Run, "record", record)


def test_an_interrupted_run_says_what_is_kept_and_what_changed(folder, capsys, monkeypatch):
    line = "mash fit --effects e.zarr --out r.zarr --train-size"
    with monkeypatch.context() as patch:
        after_a_block(patch, KeyboardInterrupt())
        assert plait(f"{line} 900") == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("plait: error: interrupted; finished blocks (3,000 effects) are kept")
    assert said.endswith("the same command goes on from there.")
    assert plait(f"{line} 800") == 0
    assert "because --train-size was 900 and is 800" in capsys.readouterr().err


@pytest.mark.parametrize("quiet", [True, False])
def test_a_log_in_json_is_json(capsys, quiet):
    with session(None, quiet, log_json=True), stage("posterior", 2) as advance:
        advance(1, note="resumed after 1")
        log_block(Block(1, 2), what="posterior")
        warnings.warn("odd", DataWarning, stacklevel=1)
        advance(1)
    logged = [json.loads(text) for text in capsys.readouterr().err.splitlines()]
    assert [item["event"] for item in logged] == ["block", "message", "stage"][: 2 + (not quiet)]
    assert "odd" in logged[1]["message"]
    assert quiet or logged[2]["note"] == "resumed after 1"


def test_a_line_in_the_middle_of_a_stage_does_not_end_it(capsys):
    with session(None, quiet=False), stage("posterior", 2) as advance:
        advance(1, note="resumed after 1")
        warnings.warn("odd", DataWarning, stacklevel=1)
        advance(1)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "plait: warning: odd"
    assert said[1].startswith("posterior")
    assert said[1].endswith("resumed after 1")


@pytest.mark.parametrize("out", ["e.zarr", "e.zarr/r.zarr", "e.zarr/r", "./e.zarr/"])
def test_an_output_in_the_way_of_the_effects(folder, capsys, out):
    with pytest.raises(OutputError, match="is or overlaps"):
        check_target(out, overwrite=True, effects="e.zarr")
    for command in ("fit", "apply --g none.npz", "onebyone"):
        assert plait(f"mash {command} --effects e.zarr --out {out} --overwrite") == 2
        assert "is or overlaps" in capsys.readouterr().err


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
