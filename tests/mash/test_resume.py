"""Runs from store to store: killed, cut otherwise, on a cluster, in an object store."""

import errno
import json
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest

from plait import mash
from plait.data import Effects
from plait.errors import CapacityError, DataWarning, OutputError
from plait.execution import devices, stored_output
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
    data, prior = opened(study)
    mash.apply_mash_prior_to_store(data, prior, tmp_path / "a.zarr", memory="130MB", threads=2)
    assert_same(tmp_path / "a.zarr", study)
    with ProcessPoolExecutor(2) as pool:
        mash.apply_mash_prior_to_store(data, prior, tmp_path / "b.zarr", executor=pool)
    assert_same(tmp_path / "b.zarr", study)


def test_a_budget_that_is_too_small(study, tmp_path):
    with pytest.raises(CapacityError, match=r"raise .*memory"):
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
    run = tmp_path / ".out.zarr.run"
    deadline = time.monotonic() + 120
    while len(list(run.glob("*/blocks/*.json"))) < 2:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = {path.name for path in run.glob("*/blocks/*.json")}
    assert not out.exists()
    assert 2 <= len(finished) < 7

    again = subprocess.run(line, cwd=study, capture_output=True, text=True, check=True)
    logged = [json.loads(text) for text in again.stderr.splitlines() if text.startswith("{")]
    worked_on = {
        f"{item['start']:015d}.json"
        for item in logged
        if item.get("what") == "posterior" and item["event"] == "block"
    }
    assert len(worked_on | finished) == 7
    assert not worked_on & finished
    assert "resumed after" in again.stderr
    assert_same(out, study)
    assert not run.exists()


def opened(study):
    return (
        mash.mash_open_data(study / "effects.zarr"),
        mash.FittedG.load(study / "prior.npz"),
    )


class Stop(Exception):
    """The end of a run in the middle of it."""


@contextmanager
def after_blocks(count, act):
    """Do something when some blocks were recorded."""

    def record(self, block, *what):
        recorded(self, block, *what)
        seen.append(block)
        if len(seen) == count:
            act()

    recorded, seen = stored_output.Run.record, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_output.Run, "record", record)
        yield


def stop():
    raise Stop


def interrupted(study, out, act=stop, **options):
    """Leave a run behind in which only the first blocks are finished."""
    data, prior = opened(study)
    with after_blocks(3, act), pytest.raises(Stop):
        mash.apply_mash_prior_to_store(data, prior, out, memory="65MB", threads=1, **options)
    return data, prior


def test_a_region_that_was_damaged_is_made_again(study, tmp_path):
    out = tmp_path / "out.zarr"
    data, prior = interrupted(study, out)
    (chunk,) = (tmp_path / ".out.zarr.run").glob("*/store/lfsr/c/1/0")
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


def test_another_correlation_starts_anew(study, tmp_path):
    out = tmp_path / "out.zarr"
    data, prior = interrupted(study, out)
    V = np.full((WIDTH, WIDTH), 0.5) + 0.5 * np.eye(WIDTH)
    other = replace(data, V=V)  # the fingerprint of the effects is that of another V
    with pytest.warns(DataWarning, match="because the error correlation changed"):
        found = mash.apply_mash_prior_to_store(other, prior, out)
    own = mash.MashResult.open(study / "expected.zarr").provenance.inputs
    assert found.provenance.inputs["the error correlation"] != own["the error correlation"]


def test_the_device_that_auto_means_is_the_same_run(study, tmp_path):
    if devices.torch_device("auto") is not None:
        pytest.skip("there is a GPU here")
    data, prior = interrupted(study, tmp_path / "out.zarr", mash_kwargs={"device": "auto"})
    mash.apply_mash_prior_to_store(data, prior, tmp_path / "out.zarr")  # or it would warn
    assert_same(tmp_path / "out.zarr", study)


def test_two_different_runs_on_one_output(study, tmp_path):
    """The one that began first ends with an error, and what the other one made is whole."""
    out = tmp_path / "out.zarr"
    data, prior = opened(study)

    def rival():
        mash.apply_mash_prior_to_store(data, prior, out)

    with (
        after_blocks(3, rival),
        pytest.warns(DataWarning, match="pi_thresh"),
        pytest.raises(OutputError, match="another run has taken over"),
    ):
        mash.apply_mash_prior_to_store(
            data, prior, out, memory="65MB", threads=1, mash_kwargs={"pi_thresh": 1e-9}
        )
    assert_same(out, study)
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]


def test_the_same_command_twice_at_once(study, tmp_path):
    line = command(study, tmp_path / "out.zarr", "--threads", "1", "--memory", "65MB", "--quiet")
    both = [subprocess.Popen(line, cwd=study, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        said = process.communicate()[1]
        assert process.returncode == 0 or said.startswith("plait: error: "), said
        assert len(said.splitlines()) <= 1
    assert 0 in [process.returncode for process in both]
    assert_same(tmp_path / "out.zarr", study)


def test_stopped_before_the_last_rename(study, tmp_path):
    """The small arrays are there already, or half of them."""
    out = tmp_path / "out.zarr"
    data, prior = opened(study)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_output, "move_into_place", lambda *_: stop())
        with pytest.raises(Stop):
            mash.apply_mash_prior_to_store(data, prior, out)
    (group,) = tmp_path.glob(".out.zarr.run/*/store/fitted_g")
    (group / "zarr.json").write_text("{")
    with after_blocks(1, stop):  # no block is worked on again
        mash.apply_mash_prior_to_store(data, prior, out)
    assert_same(out, study)
    assert mash.MashResult.load(out).fitted_g.Ulist.keys() == prior.Ulist.keys()


@pytest.mark.parametrize("text", [None, "", "{"])
def test_a_store_without_its_root_is_laid_out_anew(study, tmp_path, text):
    data, prior = interrupted(study, tmp_path / "out.zarr")
    (root,) = tmp_path.glob(".out.zarr.run/*/store/zarr.json")
    root.unlink() if text is None else root.write_text(text)
    mash.apply_mash_prior_to_store(data, prior, tmp_path / "out.zarr")
    assert_same(tmp_path / "out.zarr", study)


def test_a_full_disk_says_what_is_kept(study, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    data, prior = opened(study)
    out = tmp_path / "out.zarr"
    with (
        after_blocks(2, lambda: monkeypatch.setattr(stored_output, "write_rows", full)),
        pytest.raises(OutputError, match=r"out.zarr.run is; free some. .*the same command goes on"),
    ):
        mash.apply_mash_prior_to_store(data, prior, out, memory="65MB", threads=1)
    monkeypatch.undo()
    mash.apply_mash_prior_to_store(data, prior, out)
    assert_same(out, study)


@pytest.mark.parametrize("place", ["e.zarr", "e.zarr/out.zarr", "memory://e.zarr"])
def test_the_effects_are_never_replaced(tmp_path, place):
    source = place if "://" in place else tmp_path / "e.zarr"
    write_effects(parts(100), source)
    data = mash.mash_open_data(source)
    prior, _, _ = mash.fit_mash_prior(data, mash.cov_canonical(data), n_train=100)
    out = place if "://" in place else f"{tmp_path}/{place}"
    with pytest.raises(OutputError, match="is or overlaps"):
        mash.apply_mash_prior_to_store(data, prior, out, overwrite=True)
    mash.mash_open_data(source)
    if "://" in place:
        fsspec.filesystem("memory").store.clear()


def test_an_output_that_stands_is_not_touched(study, tmp_path):
    data, prior = opened(study)
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


def s3fs_of(bucket):
    return fsspec.filesystem(bucket.partition(":")[0])


def test_killed_and_run_again_in_an_object_store(study, bucket, tmp_path):
    out, store = f"{bucket}/killed.zarr", s3fs_of(bucket)
    line = command(study, out, "--threads", "1", "--memory", "65MB", "--log-json")
    process = subprocess.Popen(line, cwd=study, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while True:
        store.invalidate_cache()
        finished = {Path(name).name for name in store.glob(f"{out}.run/*/blocks/*.json")}
        if len(finished) >= 2:
            break
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGKILL)
    process.communicate()
    again = subprocess.run(line, cwd=study, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "resumed after" in again.stderr
    store.invalidate_cache()
    assert not store.exists(f"{out}.run")
    assert not store.exists(f"{out}.partial")
    store.get(out, str(tmp_path / "out.zarr"), recursive=True)
    assert_same(tmp_path / "out.zarr", study)


def test_killed_while_an_object_store_copies(study, tmp_path):
    out, memory = "memory://copies/out.zarr", fsspec.filesystem("memory")
    write_effects(parts(2000), "memory://copies/e.zarr")
    data = mash.mash_open_data("memory://copies/e.zarr")
    prior = mash.FittedG.load(study / "prior.npz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_output.Run, "discard", lambda _: stop())
        with pytest.raises(Stop):
            mash.apply_mash_prior_to_store(data, prior, out)
    memory.rm("/copies/out.zarr/zarr.json")
    with pytest.raises(OutputError, match="exists"):  # it could be anybody's
        mash.apply_mash_prior_to_store(data, prior, out)
    memory.pipe_file("/copies/out.zarr.partial", b"{}")
    mash.apply_mash_prior_to_store(data, prior, out)
    assert mash.MashResult.load(out).n_effects == 2000
    with pytest.raises(OutputError, match="is or overlaps"):  # its arrays are still there
        mash.MashResult.open(out).save(out, overwrite=True)
    assert {name.split("/")[2] for name in memory.find("/copies")} == {"out.zarr", "e.zarr"}
    memory.store.clear()


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
