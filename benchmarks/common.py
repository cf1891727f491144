"""What the benchmarks share: data, measured subprocesses, result files and tables.

Only NumPy and the standard library are imported here, so that a peer's environment can use it.
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
LIBRARIES = ("plait", "numpy", "scipy", "numba")
START_UP = 60
"""Seconds that a subprocess may take, beside its limit, to import, to compile and to warm up."""


# ---------------------------------------------------------------------------- data


def full_rank_covariances(count, width, random):
    """Return covariances like those learned from data: a few factors and a small full-rank part."""
    matrices = []
    for _ in range(count):
        factors = random.standard_normal((3, width)) * np.array([[1.0], [0.6], [0.4]])
        matrix = factors.T @ factors + 0.2 * np.eye(width)
        matrices.append(matrix / matrix.diagonal().max())
    return np.array(matrices)


def simulate(n_effects, width, seed, alpha=1, learned=0):
    """Simulate effects with varying standard errors: half null, the rest in shared patterns.

    Patterns of the real effects: independent, equal, in one condition alone, and ``learned``
    full-rank patterns, which are returned too. Effects divided by ``shat**alpha`` are exchangeable.
    """
    random = np.random.default_rng(seed)
    patterns = full_rank_covariances(max(learned, 1), width, random)
    kind = random.choice(5, n_effects, p=[0.5, 0.1, 0.15, 0.15, 0.1])
    size = random.choice([0.5, 1.0, 2.0], (n_effects, 1))
    z = size * random.standard_normal((n_effects, width))
    z[kind == 0] = 0.0
    z[kind == 2] = z[kind == 2][:, :1]
    alone = np.flatnonzero(kind == 3)
    z[alone] *= np.arange(width) == random.integers(width, size=(len(alone), 1))
    for number, factor in enumerate(np.linalg.cholesky(patterns)):
        rows = np.flatnonzero(kind == 4)[number :: len(patterns)]
        z[rows] = z[rows] @ factor.T
    shat = np.exp(0.35 * random.standard_normal((n_effects, width)))
    bhat = shat**alpha * z + shat * random.standard_normal((n_effects, width))
    return {"bhat": bhat, "shat": shat, "learned": patterns[:learned]}


# ---------------------------------------------------------------------------- measuring


def peak_bytes():
    """Return the largest memory this process has held."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would count the parent's memory before exec, too
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):
                return 1024 * int(line.split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def timed(function, *arguments):
    """Return the value of a call, its wall seconds and its CPU seconds (all threads)."""
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    value = function(*arguments)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return value, wall, cpu


def best_of(function, repeats=7):
    """Return the shortest wall seconds of a few calls: what the machine can do."""
    return min(timed(function)[1] for _ in range(repeats))


def run_worker(side, task, arrays, *, threads, repeats=1, limit=None, python=None):
    """Run one side of a comparison in a process of its own.

    Returns
    -------
    dict
        ``seconds``, ``cpu_seconds`` (medians), ``warm_up_seconds``, ``peak_bytes``, ``versions``
        and ``outputs`` (arrays); or ``over_limit`` where the limit passed, or ``failed``.
    """
    # The reference cuts rows itself: a threaded BLAS under its threads would only spin.
    blas = 1 if side == "reference" else threads
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "given.npz", Path(folder) / "made.npz"
        np.savez(given, **arrays)
        command = [python or sys.executable, HERE / "worker.py", side, task, given, made]
        command += [f"--threads={threads}", f"--repeats={repeats}"]
        try:
            done = subprocess.run(
                [str(part) for part in command],
                capture_output=True,
                text=True,
                timeout=None if limit is None else repeats * limit + START_UP,
                env=os.environ | dict.fromkeys(names, str(blas)),
            )
        except subprocess.TimeoutExpired:
            return {"over_limit": limit}
        if done.returncode and side == "plait":
            raise RuntimeError(f"{task} failed:\n{done.stderr}")
        if done.returncode:
            return {"failed": done.stderr.strip().splitlines()[-1:]}
        report = json.loads(done.stdout.splitlines()[-1])
        if limit is not None and report["seconds"] > limit:
            report["over_limit"] = limit
        with np.load(made) as archive:
            report["outputs"] = {name: archive[name] for name in archive.files}
        return report


def ratio_text(ours, theirs):
    """Return how many times slower the other side was; a lower bound where it was stopped."""
    if "failed" in theirs or not theirs:
        return "-"
    if "over_limit" in theirs:
        return f"> {theirs['over_limit'] / ours['seconds']:.0f}"
    return f"{theirs['seconds'] / ours['seconds']:.1f}"


def seconds_text(report):
    """Return the seconds of a side, or why there are none."""
    if not report:
        return "-"
    if "failed" in report:
        return "failed"
    return f"> {report['over_limit']}" if "over_limit" in report else f"{report['seconds']:.2f}"


# ---------------------------------------------------------------------------- results


def versions():
    """Return the versions of the libraries that are installed here."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine():
    """Describe the machine, and calibrate it by a product of two 1000 x 1000 matrices."""
    model, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":")[1].strip() if names else model
    square = np.random.default_rng(0).standard_normal((1000, 1000))
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "calibration_gemm_seconds": best_of(lambda: square @ square),
    }


def write_results(name, rows, columns, notes=(), options=None):
    """Write ``results/<name>.json`` and print its tables (``columns``: one mapping, or several)."""
    columns = columns if isinstance(columns, list) else [columns]
    document = {
        "benchmark": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "options": dict(options or {}),
        "columns": columns,
        "notes": list(notes),
        "rows": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(document, indent=1, default=float)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    for part in columns:
        print("\n".join(table(part, rows)), end="\n\n")
    for note in notes:
        print(f"- {note}")


def table(columns, rows):
    """Return a Markdown table of some columns, ``{key: heading}``."""
    cells = [list(columns.values())] + [[_cell(row.get(key)) for key in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = [
        "| " + " | ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in cells
    ]
    return [lines[0], "|" + "|".join("-" * (w + 1) + ":" for w in widths) + "|", *lines[1:]]


def _cell(value):
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)


def median(values):
    """Return the median as a float."""
    return float(statistics.median(values))
