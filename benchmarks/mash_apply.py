"""Apply a fixed prior with 30 active components at R = 20: seconds per million effects, 2 threads.

Claim: at most 10 s per million effects. R needs 69 s per million at R = 5 with 10 components (1.4 s
for 20,000, measured once elsewhere).
"""

import argparse

import numpy as np
from cases import fit_arrays
from common import run_worker, write_results

COLUMNS = {
    "case": "R, errors, matrices",
    "effects": "J",
    "per_million": "s per million",
    "cpu_per_million": "CPU s per million",
    "peak_mb": "MB",
    "reference_effects": "J of NumPy",
    "reference_per_million": "NumPy s per million",
    "peer_per_million": "peer s per million",
}


def with_weights(arrays, full_rank, active=30, seed=2):
    """Give half the weight to the null and the rest to ``active`` components."""
    random = np.random.default_rng(seed)
    names, count = arrays["names"].tolist(), len(arrays["grid"])
    dense = [k for k, U in enumerate(arrays["matrices"]) if np.linalg.matrix_rank(U) > 1]
    wanted = dense if full_rank else range(len(names))
    middle = range(count // 2, count - 2)
    choices = [1 + g * len(names) + k for g in middle for k in wanted]
    pi = np.zeros(1 + count * len(names))
    chosen = random.choice(choices, active - 1, replace=False)
    pi[chosen] = random.dirichlet(np.ones(active - 1)) / 2
    pi[0] = 0.5
    return arrays | {"pi": pi}


def run_case(alpha, full_rank, options):
    """Return the row of one case."""
    matrices = "full rank" if full_rank else "canonical"
    row = {
        "case": f"20, {'common' if alpha else 'varying'}, {matrices}",
        "effects": options.effects,
        "reference_effects": options.reference_effects,
    }
    threads = options.threads
    arrays = with_weights(fit_arrays(options.effects, 20, alpha, 10 * full_rank), full_rank)
    ours = run_worker("plait", "apply", arrays, threads=threads, repeats=options.repeats)
    million = 1e6 / options.effects
    row["per_million"] = ours["seconds"] * million
    row["cpu_per_million"] = ours["cpu_seconds"] * million
    row["peak_mb"] = round(ours["peak_bytes"] / 1e6)
    few = arrays | {name: arrays[name][: options.reference_effects] for name in ("bhat", "shat")}
    for side, python in (("reference", None), ("peer", options.peer_python)):
        if side == "reference" or python:
            limit = options.peer_limit
            theirs = run_worker(side, "apply", few, threads=threads, limit=limit, python=python)
            if "seconds" in theirs:
                row[f"{side}_per_million"] = theirs["seconds"] * 1e6 / options.reference_effects
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--effects", type=int, default=200_000)
    parser.add_argument("--reference-effects", type=int, default=20_000)
    parser.add_argument("--peer-python", help="Python of an environment with pymashrink")
    parser.add_argument("--peer-limit", type=float, default=300, help="seconds per case and side")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    rows = [run_case(alpha, full, options) for alpha in (1, 0) for full in (False, True)]
    notes = ["'full rank': all 29 components with effects are full rank, the dearest kind"]
    write_results("mash_apply", rows, COLUMNS, notes, vars(options) | {"peer_python": ""})


if __name__ == "__main__":
    main()
