"""How the time and memory of fit and posterior grow with the number of effects J.

Claim: time linear in J (exponent near 1), memory by the table and not by J x P. All effects are
fitted (``chunk_size=None``); above a bound the likelihoods are computed again at every pass rather
than held. Common errors, canonical matrices, 2 threads.
"""

import argparse

import numpy as np
from cases import fit_arrays
from common import run_worker, write_results

EFFECTS = (10_000, 30_000, 100_000, 300_000, 1_000_000)
COLUMNS = {
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--largest", type=int, default=EFFECTS[-1])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    rows = []
    for width in (5, 20):
        known = []
        for effects in (n for n in EFFECTS if n <= options.largest):
            arrays = fit_arrays(effects, width, 1, 0)
            ours = run_worker("plait", "fit", arrays, threads=options.threads)
            known.append((effects, ours["seconds"]))
            row = {
                "width": width,
                "effects": effects,
                "components": len(ours["outputs"]["pi"]),
                "seconds": ours["seconds"],
                "cpu": ours["cpu_seconds"],
                "micro": 1e6 * ours["seconds"] / effects,
                "peak_mb": round(ours["peak_bytes"] / 1e6),
                "table_mb": round(16 * effects * width / 1e6),
            }
            if len(known) > 1:
                row["exponent"] = float(np.polyfit(*np.log(np.array(known).T), 1)[0])
            rows.append(row)
            print(row, flush=True)
    notes = ["exponent: least squares of log time on log J, over the rows of this R down to here"]
    write_results("mash_growth", rows, COLUMNS, notes, vars(options))


if __name__ == "__main__":
    main()
