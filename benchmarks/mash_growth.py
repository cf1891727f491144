"""How the time and memory of fit and posterior grow with the number of effects J.

Claim: time linear in J (exponent near 1), memory by the table and not by J x P; from store to store
memory is that of the budget and of the fit. Common errors, canonical matrices, 2 threads.

In memory all effects are fitted (``chunk_size=None``); above a bound (1 GiB) the likelihoods are
computed again at every pass rather than held, which shows in the last rows. From store to store
(``plait mash fit --effects``) the weights are fitted on 20,000 of them.
"""

import argparse
import tempfile
from pathlib import Path

import mash_scale
import numpy as np
from cases import fit_arrays
from common import run_worker, write_results

from plait.io import write_effects

EFFECTS = (10_000, 30_000, 100_000, 300_000, 1_000_000)
STORED = (100_000, 300_000, 1_000_000, 3_000_000)
COLUMNS = {
    "route": "route",
    "width": "R",
    "effects": "J",
    "components": "P",
    "seconds": "s",
    "cpu": "CPU s",
    "micro": "us per effect",
    "peak_mb": "peak MB",
    "table_mb": "input MB",
    "exponent": "exponent so far",
}


def in_memory(width, options):
    """Return the rows of one number of conditions."""
    rows = []
    for effects in (n for n in EFFECTS if n <= options.largest):
        arrays = fit_arrays(effects, width, 1, 0)
        ours = run_worker("plait", "fit", arrays, threads=options.threads)
        rows.append(
            {
                "route": "in memory",
                "width": width,
                "effects": effects,
                "components": len(ours["outputs"]["pi"]),
                "seconds": ours["seconds"],
                "cpu": ours["cpu_seconds"],
                "micro": 1e6 * ours["seconds"] / effects,
                "peak_mb": round(ours["peak_bytes"] / 1e6),
                "table_mb": round(16 * effects * width / 1e6),
            }
        )
        print(rows[-1], flush=True)
    return with_exponents(rows)


def from_store_to_store(options):
    """Return the rows of the command line on stores."""
    options.memory, rows = "600MB", []
    for effects in (n for n in STORED if n <= 3 * options.largest):
        with tempfile.TemporaryDirectory() as folder:
            write_effects(mash_scale.parts(effects), Path(folder) / "effects.zarr")
            words = mash_scale.command(Path(folder), "out.zarr", options, "--train-size", "20000")
            found = mash_scale.run("whole", words, effects)
        rows.append(
            {
                "route": "store, 600 MB",
                "width": mash_scale.WIDTH,
                "effects": effects,
                "seconds": found["seconds"],
                "micro": found["per_million"],
                "peak_mb": found["peak_mb"],
                "table_mb": round(16 * effects * mash_scale.WIDTH / 1e6),
            }
        )
        print(rows[-1], flush=True)
    return with_exponents(rows)


def with_exponents(rows):
    """Add to every row the exponent of the rows down to it."""
    for last in range(1, len(rows)):
        known = np.log([(row["effects"], row["seconds"]) for row in rows[: last + 1]])
        rows[last]["exponent"] = float(np.polyfit(*known.T, 1)[0])
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--largest", type=int, default=EFFECTS[-1])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    rows = in_memory(5, options) + in_memory(20, options) + from_store_to_store(options)
    notes = [
        "exponent: least squares of log time on log J, over the rows of this route and R down to "
        "here; stores include starting the program and looking over the data"
    ]
    write_results("mash_growth", rows, COLUMNS, notes, vars(options))


if __name__ == "__main__":
    main()
