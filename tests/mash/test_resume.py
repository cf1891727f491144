"""Runs from store to store: killed, cut otherwise, on a cluster, in an object store."""

import json
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from plait import mash
from plait.data import Effects
from plait.errors import CapacityError, DataWarning, OutputError
from plait.io import write_effects

ARRAYS = ("posterior_mean", "posterior_sd", "lfsr", "negative_prob", "vloglik", "null_loglik")
WIDTH = 6


def parts(n_effects, seed=0, step=65_536):
    random = np.random.default_rng(seed)
    for start in range(0, n_effects, step):
        size = min(step, n_effects - start)
        truth = np.where(random.random((size, 1)) < 0.1, random.normal(size=(size, 1)) * 3, 0.0)
        errors = random.uniform(0.5, 2, (size, WIDTH))
        bhat = truth + random.normal(size=errors.shape) * errors
        yield Effects(bhat, errors, contexts=[f"c{r}" for r in range(WIDTH)])


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Effects in a store, a prior, and the posterior as one process computes it."""
    folder = tmp_path_factory.mktemp("study")
    write_effects(parts(400_000), folder / "effects.zarr")
    data = mash.mash_open_data(folder / "effects.zarr")
    prior, _, _ = mash.fit_mash_prior(data, mash.cov_canonical(data), n_train=2000)
    prior.save(folder / "prior.npz")
    mash.apply_mash_prior_to_store(data, prior, folder / "expected.zarr", threads=1)
    return folder


def assert_same(found, folder):
    """The arrays of two stores are the same, to the bytes of their files."""
    for name in ARRAYS:
        ours, theirs = Path(found) / name, folder / "expected.zarr" / name
        files = sorted(path.relative_to(ours) for path in ours.rglob("*") if path.is_file())
        assert len(files) > 1
        assert files == sorted(p.relative_to(theirs) for p in theirs.rglob("*") if p.is_file())
        for file in files:
            assert (ours / file).read_bytes() == (theirs / file).read_bytes(), f"{name}/{file}"


def test_neither_budget_threads_nor_workers_change_a_bit(study, tmp_path):
    data, prior = (
        mash.mash_open_data(study / "effects.zarr"),
        mash.FittedG.load(study / "prior.npz"),
    )
    mash.apply_mash_prior_to_store(data, prior, tmp_path / "a.zarr", memory="130MB", threads=2)
    assert_same(tmp_path / "a.zarr", study)
    with ProcessPoolExecutor(2) as pool:
        mash.apply_mash_prior_to_store(data, prior, tmp_path / "b.zarr", executor=pool)
    assert_same(tmp_path / "b.zarr", study)


def test_a_budget_that_is_too_small(study, tmp_path):
    with pytest.raises(CapacityError, match="raise memory, or lower threads"):
        mash.mash_open_data(study / "effects.zarr", memory="20MB")
    assert not list(tmp_path.iterdir())


def command(study, out, *extra):
    arguments = ("--effects", "effects.zarr", "--g", "prior.npz", "--out", str(out), *extra)
    return [sys.executable, "-m", "plait", "mash", "apply", *arguments]


def test_killed_and_run_again(study, tmp_path):
    out = tmp_path / "out.zarr"
    # One thread and the smallest blocks: there is time to kill it between two of them.
    line = command(study, out, "--threads", "1", "--memory", "65MB", "--log-json")
    process = subprocess.Popen(line, cwd=study, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    blocks = tmp_path / ".out.zarr.run" / "blocks"
    deadline = time.monotonic() + 120
    while not (blocks.exists() and len(list(blocks.glob("*.json"))) >= 2):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = {path.name for path in blocks.glob("*.json")}
    assert not out.exists()
    assert 2 <= len(finished) < 7

    again = subprocess.run(line, cwd=study, capture_output=True, text=True, check=True)
    logged = [json.loads(text) for text in again.stderr.splitlines() if text.startswith("{")]
    worked_on = {f"{item['start']:015d}.json" for item in logged if item["what"] == "posterior"}
    assert len(worked_on | finished) == 7
    assert not worked_on & finished
    assert "resumed after" in again.stderr
    assert_same(out, study)
    assert not blocks.parent.exists()


def interrupted(study, out):
    """Leave a run behind in which only the first blocks are finished."""
    data, prior = (
        mash.mash_open_data(study / "effects.zarr"),
        mash.FittedG.load(study / "prior.npz"),
    )
    from plait.mash import stored_apply

    class Stop(Exception):
        pass

    def stop(self, block, digest, seen=[]):  # noqa: B006
        record(self, block, digest)
        seen.append(block)
        if len(seen) == 3:
            raise Stop

    record = stored_apply.Run.record
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_apply.Run, "record", stop)
        with pytest.raises(Stop):
            mash.apply_mash_prior_to_store(data, prior, out, memory="65MB", threads=1)
    return data, prior


def test_a_region_that_was_damaged_is_made_again(study, tmp_path):
    out = tmp_path / "out.zarr"
    data, prior = interrupted(study, out)
    chunk = tmp_path / ".out.zarr.run" / "store" / "lfsr" / "c" / "1" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-100])
    mash.apply_mash_prior_to_store(data, prior, out)
    assert_same(out, study)


def test_other_options_start_anew_and_say_why(study, tmp_path):
    out = tmp_path / "out.zarr"
    data, prior = interrupted(study, out)
    with pytest.warns(
        DataWarning, match=r"because pi_thresh was 1e-10 and is 1e-09; starting anew"
    ):
        mash.apply_mash_prior_to_store(data, prior, out, mash_kwargs={"pi_thresh": 1e-9})
    assert mash.MashResult.open(out).n_effects == data.n_effects


def test_an_output_that_stands_is_not_touched(study, tmp_path):
    data, prior = (
        mash.mash_open_data(study / "effects.zarr"),
        mash.FittedG.load(study / "prior.npz"),
    )
    mash.apply_mash_prior_to_store(data, prior, tmp_path / "out.zarr")
    with pytest.raises(OutputError, match="--overwrite"):
        mash.apply_mash_prior_to_store(data, prior, tmp_path / "out.zarr")
    mash.apply_mash_prior_to_store(data, prior, tmp_path / "out.zarr", overwrite=True)
    assert_same(tmp_path / "out.zarr", study)


def test_the_command_line_on_a_local_cluster(study, tmp_path):
    pytest.importorskip("distributed")
    line = command(study, tmp_path / "out.zarr", "--dask", "local:2")
    done = subprocess.run(line, cwd=study, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "out.zarr", study)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """Start an S3-compatible server and make a bucket."""
    pytest.importorskip("moto.server", reason="moto's S3 server is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    settings = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        import s3fs

        deadline = time.monotonic() + 60
        while True:
            try:
                s3fs.S3FileSystem().mkdir("plait")
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        yield "s3://plait"
    server.terminate()
    server.wait()


def test_an_object_store(study, bucket):
    effects = f"{bucket}/effects.zarr"
    write_effects(parts(150_000), effects)
    data = mash.mash_open_data(effects)
    prior = mash.FittedG.load(study / "prior.npz")
    found = mash.apply_mash_prior_to_store(data, prior, f"{bucket}/out.zarr")
    expected = mash.MashResult.open(study / "expected.zarr")
    rows = slice(0, 131_072)  # the parts that are the same as those of the study
    for name in ARRAYS:
        ours, theirs = getattr(found, name)[rows], getattr(expected, name)[rows]
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
    with pytest.raises(OutputError, match="--overwrite"):
        mash.apply_mash_prior_to_store(data, prior, f"{bucket}/out.zarr")
    loaded = mash.MashResult.load(f"{bucket}/out.zarr")
    assert loaded.condition_names == tuple(f"c{r}" for r in range(WIDTH))
