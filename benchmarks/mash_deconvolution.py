"""Extreme deconvolution: 20 iterations from 10 full-rank starts, 2 threads, three sides.

Claim: at least 20 times faster than R and the Python peer. ``recorded`` columns are not from this
run: seconds measured once at the same sizes (R 4.2.2 with mashr 0.2.81 and the peer pymashrink,
which do the same work whether errors are common or vary).
"""

import argparse

import numpy as np
from common import full_rank_covariances, ratio_text, run_worker, seconds_text, write_results

R_SECONDS = {(1000, 5): 0.57, (1000, 20): 4.9, (400, 44): 9.8}
PEER_SECONDS = {(1000, 5): 0.37, (1000, 20): 5.1}
COLUMNS = {
    "case": "J x R, errors",
    "seconds": "plait s",
    "cpu": "CPU s",
    "reference": "NumPy s",
    "reference_ratio": "ratio",
    "reference_difference": "largest difference of the path",
    "peer": "peer s",
    "peer_ratio": "ratio",
    "peer_recorded": "peer, recorded",
    "r": "R, recorded",
    "r_ratio": "ratio",
}


def deconvolution_arrays(n_effects, width, varying, seed=1):
    """Return strong effects in 5 patterns, and 10 starting matrices."""
    random = np.random.default_rng(seed)
    truth = full_rank_covariances(5, width, random)
    effects = random.standard_normal((n_effects, width))
    for number, factor in enumerate(np.linalg.cholesky(4 * truth)):
        effects[number::5] = effects[number::5] @ factor.T
    shat = np.exp(0.35 * varying * random.standard_normal((n_effects, width)))
    return {
        "bhat": effects + shat * random.standard_normal((n_effects, width)),
        "shat": shat,
        "matrices": full_rank_covariances(10, width, random),
        "names": np.array([f"start_{k + 1}" for k in range(10)]),
        "iterations": np.array(20),
    }


def run_case(n_effects, width, varying, options):
    """Return the row of one case."""
    arrays = deconvolution_arrays(n_effects, width, varying)
    row = {"case": f"{n_effects} x {width} {'varying' if varying else 'common'}"}
    threads, limit = options.threads, options.peer_limit
    ours = run_worker("plait", "deconvolve", arrays, threads=threads, repeats=options.repeats)
    row |= {
        "seconds": ours["seconds"],
        "all_seconds": ours["all_seconds"],
        "cpu": ours["cpu_seconds"],
        "warm_up": ours["warm_up_seconds"],
    }
    for side, python in (("reference", None), ("peer", options.peer_python)):
        if side == "peer" and not python:
            continue
        theirs = run_worker(side, "deconvolve", arrays, threads=threads, limit=limit, python=python)
        row |= {side: seconds_text(theirs), f"{side}_ratio": ratio_text(ours, theirs)}
        if "outputs" in theirs:
            paths = [ours["outputs"]["objective"], theirs["outputs"]["objective"]]
            length = min(map(len, paths))
            gap = np.abs(paths[0][:length] - paths[1][:length]).max()
            row[f"{side}_difference"] = float(gap)
    row["peer_recorded"] = PEER_SECONDS.get((n_effects, width))
    row["r"] = R_SECONDS[n_effects, width]
    row["r_ratio"] = row["r"] / row["seconds"]
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", help="Python of an environment with pymashrink")
    parser.add_argument("--peer-limit", type=float, default=300, help="seconds per case and side")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    rows = [run_case(*size, varying, options) for varying in (False, True) for size in R_SECONDS]
    notes = [
        "the path is the average log-likelihood at every iteration",
        "'recorded' seconds were measured once elsewhere, at the same sizes",
    ]
    write_results("mash_deconvolution", rows, COLUMNS, notes, vars(options) | {"peer_python": ""})


if __name__ == "__main__":
    main()
