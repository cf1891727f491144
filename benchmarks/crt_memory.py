"""A screen of a million cells, from a file to a page: memory, and killed and resumed.

Claim: a million cells, 100 programs and 2,000 perturbations are tested within 4 GB, and a run that
is killed at half goes on to the same bits. All runs are the command line.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from common import write_results
from mash_scale import Watch
from scipy.sparse import csr_array

COLUMNS = {
    "run": "run",
    "cells": "cells",
    "programs": "programs",
    "units": "units",
    "seconds": "s",
    "peak_mb": "peak MB",
    "same": "same bits",
}
CASES = [(250_000, 100, 2000), (1_000_000, 100, 2000)]
SMALL = [(5000, 5, 100)]
GUIDES_OF_TARGET = 2
CONTROL_GUIDES = 200
GUIDES_OF_CELL = 5


def write_screen(path, cells, programs, units, seed=1):
    """Write a screen whose guides are distributed by batch and depth."""
    random = np.random.default_rng(seed)
    depth, batch = random.standard_normal(cells), random.integers(0, 2, cells)
    usage = np.empty((cells, programs), dtype=np.float32)
    for part in np.array_split(np.arange(cells), max(cells // 50_000, 1)):
        values = np.exp(0.5 * random.standard_normal((len(part), programs)))
        usage[part] = values / values.sum(axis=1, keepdims=True)
    guides = units * GUIDES_OF_TARGET + CONTROL_GUIDES
    names = [f"guide{g}" for g in range(guides)]
    of_guide = [f"target{g // GUIDES_OF_TARGET}" for g in range(guides - CONTROL_GUIDES)]
    has = np.sort(random.integers(0, guides, (cells, GUIDES_OF_CELL)), axis=1)
    # Deep cells have fewer of the first half of the guides.
    kept = (has >= guides // 2) | (random.random(has.shape) < 1 / (1 + np.exp(depth[:, None])))
    kept[:, 1:] &= has[:, 1:] != has[:, :-1]
    starts = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
    held = csr_array((np.ones(starts[-1], np.int8), has[kept], starts), shape=(cells, guides))
    covariates = pd.DataFrame({"batch": np.where(batch, "b", "a"), "depth": depth})
    for number in range(6):
        covariates[f"c{number}"] = random.standard_normal(cells)
    covariates.index = [f"cell{i}" for i in range(cells)]
    screen = anndata.AnnData(obs=pd.DataFrame(index=covariates.index))
    screen.obsm.update({"usage": usage, "guide_assignment": held, "covar": covariates})
    screen.uns["guide_names"] = names
    screen.uns["guide2gene"] = dict(
        zip(names, of_guide + ["non-targeting"] * CONTROL_GUIDES, strict=True)
    )
    screen.write_h5ad(path)


def run(words, kill_at=None):
    """Run a command, or kill it when so many units are done; return seconds and MB."""
    started = time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    watch, log = Watch(process), []
    for line in process.stderr:
        log.append(line)
        done = json.loads(line).get("stop", 0) if line.startswith("{") else 0
        if kill_at is not None and done >= kill_at:
            process.send_signal(signal.SIGKILL)
            break
    process.stderr.close()
    code, seconds = process.wait(), time.monotonic() - started
    watch.thread.join()
    if code != (0 if kill_at is None else -signal.SIGKILL):
        raise RuntimeError(f"the command ended with {code}:\n{''.join(log[-20:])}")
    return {"seconds": round(seconds, 1), "peak_mb": round(watch.largest / 1e6)}


def p_values(folder):
    """Return the bytes of all p-values of a run."""
    from plait.crt import CRTResult

    return CRTResult.load(folder / "result.zarr").p.tobytes()


def main():
    """Run each size, kill and resume it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a small case, to try it")
    options = parser.parse_args()
    rows = []
    for cells, programs, units in SMALL if options.small else CASES:
        about = {"cells": cells, "programs": programs, "units": units}
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_screen(folder / "screen.h5ad", cells, programs, units)
            given = ["--h5ad", folder / "screen.h5ad", "--log-json"]
            words = [sys.executable, "-m", "plait", "crt", "run", *given, "--out"]
            words = [str(word) for word in words]
            whole, broken = folder / "whole", folder / "broken"
            rows.append({"run": "whole"} | about | run([*words, str(whole)]))
            rows.append({"run": "killed"} | about | run([*words, str(broken)], units // 2))
            resumed = run([*words, str(broken)])
            same = "yes" if p_values(whole) == p_values(broken) else "NO"
            rows.append({"run": "resumed"} | about | resumed | {"same": same})
    name = "crt_memory_small" if options.small else "crt_memory"
    write_results(name, rows, COLUMNS, options=vars(options))


if __name__ == "__main__":
    main()
