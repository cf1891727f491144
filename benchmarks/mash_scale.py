"""Ten million effects from store to store: memory, kill and resume, and the same bits every way.

Claim: 10 million x 20 z-scores (alpha=1) are fitted and applied within 3 GB; a run that is killed
at half resumes; its output, and that of other budgets, threads and a Dask cluster of which a worker
is killed, are the same bytes. All runs are the command line; the peak is of the largest process and
of all together.
"""

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from common import simulate, timed, write_results

from plait.data import Effects
from plait.io import write_effects

WIDTH = 20
PART = 250_000
COLUMNS = {
    "run": "run",
    "effects": "J",
    "seconds": "s",
    "per_million": "s per million",
    "peak_mb": "peak MB",
    "all_peak_mb": "all processes MB",
    "blocks": "blocks done",
    "bytes": "bytes",
}
ARRAYS = ("posterior_mean", "posterior_sd", "lfsr", "negative_prob", "vloglik")


def parts(n_effects):
    """Yield z-scores part by part."""
    for start in range(0, n_effects, PART):
        size = min(PART, n_effects - start)
        made = simulate(size, WIDTH, seed=start)
        z = made["bhat"] / made["shat"]
        yield Effects(z, np.ones(z.shape), contexts=[f"context_{r + 1}" for r in range(WIDTH)])


class Watch:
    """Follows the memory of a process and of its children until it ends."""

    def __init__(self, process):
        self.process, self.largest, self.together = process, 0, 0
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()

    def _follow(self):
        while self.process.poll() is None:
            held = [_resident(pid) for pid in _family(self.process.pid)]
            self.largest = max([self.largest, *held])
            self.together = max(self.together, sum(held))
            time.sleep(0.05)


def _family(pid):
    """Return a process and all that descend from it."""
    known, found = [pid], []
    while known:
        found.append(known.pop())
        tasks = Path(f"/proc/{found[-1]}/task").glob("*/children")
        known += [int(child) for task in tasks for child in _read(task).split()]
    return found


def _resident(pid):
    fields = _read(Path(f"/proc/{pid}/statm")).split()
    return 4096 * int(fields[1]) if fields else 0


def _read(path):
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
        return ""


def command(folder, out, options, *extra):
    """Return the command line of a run."""
    given = ["--effects", folder / "effects.zarr", "--alpha", "1", "--train-size", "100000"]
    given += ["--memory", options.memory, "--threads", options.threads, "--log-json"]
    words = [sys.executable, "-m", "plait", "mash", "fit", *given, "--out", folder / out, *extra]
    return [str(word) for word in words]


def run(name, words, n_effects, stop_after=None, lose_after=None):
    """Run a command, or kill it, or its largest worker, after some blocks; return its row."""
    started = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    watch, blocks, log = Watch(process), 0, []
    for line in process.stderr:
        log.append(line)
        blocks += '"start"' in line and '"what": "posterior"' in line
        if blocks == stop_after:
            process.send_signal(signal.SIGKILL)
            break
        if blocks == lose_after:
            os.kill(max(_family(process.pid)[1:], key=_resident), signal.SIGKILL)
            lose_after = None
    process.stderr.close()
    code, seconds = process.wait(), time.perf_counter() - started
    watch.thread.join()
    if code != (0 if stop_after is None else -signal.SIGKILL):
        raise RuntimeError(f"{name} ended with {code}:\n{''.join(log[-20:])}")
    return {
        "run": name,
        "effects": n_effects,
        "seconds": seconds,
        "per_million": seconds / n_effects * 1e6,
        "peak_mb": round(watch.largest / 1e6),
        "all_peak_mb": round(watch.together / 1e6),
        "blocks": blocks,
    }


def digest(store):
    """Return a hash of the bytes of all arrays of a result."""
    total = hashlib.sha256()
    for name in ARRAYS:
        for path in sorted(p for p in (store / name).rglob("*") if p.is_file()):
            total.update(str(path.relative_to(store)).encode())
            with path.open("rb") as stream:
                total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()[:12]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--effects", type=int, default=10_000_000)
    parser.add_argument("--memory", default="1500MB")
    parser.add_argument("--small-memory", default="600MB", help="another budget")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to work; removed afterwards")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    rows, count = [], options.effects
    try:
        seconds = timed(write_effects, parts(count), folder / "effects.zarr")[1]
        rows.append({"run": "simulate and write the store", "effects": count, "seconds": seconds})
        whole = run("whole", command(folder, "a.zarr", options), count)
        whole["bytes"] = digest(folder / "a.zarr")
        half = whole["blocks"] // 2
        shutil.rmtree(folder / "a.zarr")
        killed = run("killed at half", command(folder, "b.zarr", options), count, half)
        again = run("the same again", command(folder, "b.zarr", options), count)
        again["bytes"] = digest(folder / "b.zarr")
        shutil.rmtree(folder / "b.zarr")
        small = command(folder, "c.zarr", options, "--memory", options.small_memory)
        small = run(f"--memory {options.small_memory}", [*small, "--threads", "1"], count)
        small["run"] += ", 1 thread"
        small["bytes"] = digest(folder / "c.zarr")
        shutil.rmtree(folder / "c.zarr")
        cluster = command(folder, "d.zarr", options, "--dask", "local:2")
        cluster = run("--dask local:2, a worker killed", cluster, count, lose_after=half)
        cluster["bytes"] = digest(folder / "d.zarr")
        rows += [whole, killed, again, small, cluster]
    finally:
        shutil.rmtree(folder)
    notes = ["bytes: hash of every file of every array of the result"]
    name = "mash_scale" if count == 10_000_000 else "mash_scale_small"
    write_results(name, rows, COLUMNS, notes, vars(options) | {"folder": ""})
    same = len({row["bytes"] for row in (whole, again, small, cluster)}) == 1
    print("all runs wrote the same bytes" if same else "THE RUNS DIFFER")
    return 0 if same and again["blocks"] < whole["blocks"] else 1


if __name__ == "__main__":
    sys.exit(main())
