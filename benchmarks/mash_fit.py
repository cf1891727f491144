"""Whole mash fit and posterior, 2 threads: plait, a plain-NumPy reference, and the Python peer.

Claims: at least 10 times faster than the Python peer (30 times where errors are common), 20 times
faster than R, and never a worse objective. Twelve cases: (J, R) in (20000, 5), (20000, 20),
(50000, 40); common errors (alpha 1) and varying errors (alpha 0); canonical matrices alone and with
10 of full rank. All sides get the same data, matrices and grid, in processes of their own.

The columns ``R, recorded`` and ``peer, recorded`` are not from this run: they are seconds measured
once on similar data of the same size (R 4.2.2 with mashr 0.2.81; the peer pymashrink with SQUAREM,
and at 1000 x 5 with its default), for the cases where they exist and a few that have nothing else.
"""

import argparse

import numpy as np
from cases import SIZES, fit_arrays, objective
from common import ratio_text, run_worker, seconds_text, write_results

R_SECONDS = {
    (20_000, 5, 1, 0): 3.96,
    (20_000, 20, 1, 0): 17.0,
    (20_000, 20, 1, 10): 30.5,
    (4000, 5, 1, 0): 0.13 + 0.53 + 0.05,
    (4000, 5, 0, 0): 0.63 + 0.58 + 0.10,
    (4000, 20, 1, 0): 0.46 + 3.53 + 0.39,
    (2000, 40, 1, 0): 0.65 + 13.0 + 0.31,
}
PEER_SECONDS = {
    (20_000, 5, 1, 0): 0.26 + 16.9 + 0.35,
    (4000, 20, 1, 0): 0.23 + 3.45 + 0.46,
    (1000, 5, 1, 0): 0.02 + 19.0 + 0.01,
}
COLUMNS = {
    "case": "J x R, errors, matrices",
    "components": "P",
    "seconds": "plait s",
    "cpu": "CPU s",
    "peak_mb": "MB",
    "reference": "NumPy s",
    "reference_ratio": "ratio",
    "reference_cpu_ratio": "CPU ratio",
    "reference_worse": "its objective",
    "peer": "peer s",
    "peer_ratio": "ratio",
    "peer_worse": "its objective",
    "peer_recorded": "peer, recorded",
    "peer_recorded_ratio": "ratio",
    "r": "R, recorded",
    "r_ratio": "ratio",
}
PHASE_COLUMNS = {
    "case": "J x R, errors, matrices",
    "data": "data s",
    "likelihood": "likelihoods s",
    "weights": "weights s",
    "posterior": "posterior s",
    "full_passes": "full passes",
    "iterations": "iterations",
    "active": "active",
    "dual_gap": "dual gap",
    "warm_up": "first call s",
}
NOTES = (
    "'its objective' is the penalised log-likelihood of the other side's weights minus that of "
    "plait's, by one function: negative means plait's is better",
    "'> s' is a side stopped at the limit, and its ratio a lower bound",
    "'recorded' seconds were measured once elsewhere, on data of the same size; see the script",
)


def compare(arrays, ours, side, options, threads, python=None):
    """Run another side; return its cells."""
    theirs = run_worker(
        side, "fit", arrays, threads=threads, limit=options.peer_limit, python=python
    )
    cells = {side: seconds_text(theirs), f"{side}_ratio": ratio_text(ours, theirs)}
    cells[f"{side}_detail"] = {k: v for k, v in theirs.items() if k != "outputs"}
    if "outputs" in theirs:
        cells[f"{side}_cpu_ratio"] = theirs["cpu_seconds"] / ours["cpu_seconds"]
        best = objective(arrays, ours["outputs"]["pi"])[1]
        loglik, penalised = objective(arrays, theirs["outputs"]["pi"])
        cells[f"{side}_worse"] = f"{penalised - best:+.3g}"
        if "loglik" in theirs["outputs"]:  # the same data, matrices and order of components
            cells[f"{side}_check"] = loglik - float(theirs["outputs"]["loglik"])
        means = theirs["outputs"]["posterior_mean"] - ours["outputs"]["posterior_mean"]
        cells[f"{side}_mean_difference"] = float(np.quantile(np.abs(means), 0.999))
    return cells


def run_case(n_effects, width, alpha, learned, options):
    """Return the row of one case."""
    arrays = fit_arrays(n_effects, width, alpha, learned)
    arrays["peer_method"] = np.array(options.peer_method)
    threads, key = options.threads, (n_effects, width, alpha, learned)
    errors, matrices = ("common" if alpha else "varying"), ("+10" if learned else "canonical")
    row = {"case": f"{n_effects} x {width} {errors} {matrices}"}
    ours = run_worker("plait", "fit", arrays, threads=threads, repeats=options.repeats)
    phases = run_worker("plait", "phases", arrays, threads=threads)["outputs"]
    row |= {
        "components": len(ours["outputs"]["pi"]),
        "seconds": ours["seconds"],
        "all_seconds": ours["all_seconds"],
        "cpu": ours["cpu_seconds"],
        "peak_mb": round(ours["peak_bytes"] / 1e6),
        "warm_up": ours["warm_up_seconds"],
        "dual_gap": float(ours["outputs"]["dual_gap"]),
        "objective": objective(arrays, ours["outputs"]["pi"]),
        "active": int(np.sum(ours["outputs"]["pi"] > 1e-10)),
    }
    for name in ("data", "likelihood", "weights", "posterior", "full_seconds"):
        row[name] = float(phases[name])
    row |= {"full_passes": int(phases["full_passes"]), "iterations": int(phases["iterations"])}
    recorded = (PEER_SECONDS.get(key), R_SECONDS.get(key))
    for name, seconds in zip(("peer_recorded", "r"), recorded, strict=True):
        row[name] = seconds
        row[f"{name}_ratio"] = seconds / row["seconds"] if seconds else None
    if not options.no_reference:
        row |= compare(arrays, ours, "reference", options, threads)
    if options.peer_python:
        row |= compare(arrays, ours, "peer", options, threads, options.peer_python)
    return row


def cases(shrink):
    """Return the cases that are compared, and those that have recorded seconds alone."""
    twelve = [
        (n // shrink, width, alpha, learned)
        for alpha in (1, 0)
        for n, width in SIZES
        for learned in (0, 10)
    ]
    recorded = {*R_SECONDS, *PEER_SECONDS}
    return twelve + sorted(recorded - set(twelve)) * (shrink == 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", help="Python of an environment with pymashrink")
    parser.add_argument("--peer-method", default="squarem", help="weights of the peer")
    parser.add_argument("--peer-limit", type=float, default=300, help="seconds per case and side")
    parser.add_argument("--no-reference", action="store_true", help="leave out the NumPy reference")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shrink", type=int, default=1, help="divide J, to try the script")
    options = parser.parse_args()
    rows = []
    for case in cases(options.shrink):
        rows.append(run_case(*case, options))
        shown = {k: rows[-1].get(k) for k in ("case", "seconds", "reference", "peer")}
        print(shown, flush=True)
    name = "mash_fit" if options.shrink == 1 else "mash_fit_small"
    write_results(name, rows, [COLUMNS, PHASE_COLUMNS], NOTES, vars(options) | {"peer_python": ""})


if __name__ == "__main__":
    main()
