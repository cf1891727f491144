"""One side of a comparison, in a process of its own: ``worker.py SIDE TASK GIVEN MADE``.

Warms up on a few rows (imports, compiled kernels), then times the task. Prints one JSON line.
"""

import argparse
import json

import common
import numpy as np

WARM_ROWS = 1200
ENOUGH = 60
"""Seconds after which a task is not repeated again."""
ROW_ARRAYS = ("bhat", "shat")


def plait_fit(arrays, threads):
    from plait import mash

    data = mash.mash_set_data(arrays["bhat"], arrays["shat"], alpha=float(arrays["alpha"]))
    result = mash.mash(
        data,
        dict(zip(arrays["names"].tolist(), arrays["matrices"], strict=True)),
        grid=arrays["grid"],
        n_jobs=threads,
        chunk_size=None,
    )
    return {
        "pi": result.fitted_g.pi,
        "loglik": result.loglik,
        "dual_gap": result.optim["dual_gap"],
        "posterior_mean": result.posterior_mean,
        "lfsr": result.lfsr,
    }


def plait_apply(arrays, threads):
    from plait import mash

    data = mash.mash_set_data(arrays["bhat"], arrays["shat"], alpha=float(arrays["alpha"]))
    matrices = dict(zip(arrays["names"].tolist(), arrays["matrices"], strict=True))
    prior = mash.FittedG(arrays["pi"], matrices, arrays["grid"], True, data.alpha)
    result = mash.apply_mash_prior(data, prior, mash_kwargs={"n_jobs": threads})
    return {"posterior_mean": result.posterior_mean, "lfsr": result.lfsr}


def plait_deconvolve(arrays, threads):
    from plait import mash

    data = mash.mash_set_data(arrays["bhat"], arrays["shat"])
    fit = mash.cov_ed(
        data,
        dict(zip(arrays["names"].tolist(), arrays["matrices"], strict=True)),
        tol=0.0,
        maxiter=int(arrays["iterations"]),
        details=True,
        threads=threads,
    )
    return {"pi": fit["pi"], "objective": fit["objective"]}


def peer_fit(arrays, threads):
    # Threads come from OMP_NUM_THREADS. SQUAREM is the fastest of the peer's methods at these
    # sizes: its default and its mixsqp solve dense quadratic programmes over all components.
    import pymash

    data = pymash.mash_set_data(
        arrays["bhat"].copy(), arrays["shat"].copy(), alpha=float(arrays["alpha"])
    )
    method = str(arrays.get("peer_method", "squarem"))
    result = pymash.mash(data, list(arrays["matrices"]), grid=arrays["grid"], optmethod=method)
    return {
        "pi": result.fitted_g.pi,
        "loglik": result.loglik,
        "posterior_mean": result.posterior_mean,
        "lfsr": result.lfsr,
    }


def peer_apply(arrays, threads):
    import pymash

    data = pymash.mash_set_data(
        arrays["bhat"].copy(), arrays["shat"].copy(), alpha=float(arrays["alpha"])
    )
    prior = pymash.FittedG(arrays["pi"], list(arrays["matrices"]), arrays["grid"], True)
    result = pymash.mash(data, g=prior, fixg=True)
    return {"posterior_mean": result.posterior_mean, "lfsr": result.lfsr}


def peer_deconvolve(arrays, threads):
    import pymash
    from pymash.ed import bovy_wrapper

    data = pymash.mash_set_data(arrays["bhat"].copy(), arrays["shat"].copy())
    fit = bovy_wrapper(
        data, list(arrays["matrices"]), tol=1e-300, maxiter=int(arrays["iterations"])
    )
    return {"pi": fit["pi"], "objective": fit["objective"]}


def task_of(side, task):
    """Return the function of a side and a task."""
    if side == "reference":
        import reference

        return getattr(reference, task)
    if task == "phases":
        import phases

        return phases.measure
    return globals()[f"{side}_{task}"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=("plait", "reference", "peer"))
    parser.add_argument("task", choices=("fit", "apply", "deconvolve", "phases"))
    parser.add_argument("given")
    parser.add_argument("made")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    with np.load(options.given) as archive:
        arrays = {name: archive[name] for name in archive.files}
    few = arrays | {name: arrays[name][:WARM_ROWS] for name in ROW_ARRAYS}
    function = task_of(options.side, options.task)
    warm_up = common.timed(function, few, options.threads)[1]
    runs = [common.timed(function, arrays, options.threads)]
    while len(runs) < options.repeats and sum(run[1] for run in runs) < ENOUGH:
        runs.append(common.timed(function, arrays, options.threads))
    np.savez(options.made, **runs[-1][0])
    report = {
        "seconds": common.median(wall for _, wall, _ in runs),
        "cpu_seconds": common.median(cpu for _, _, cpu in runs),
        "all_seconds": [wall for _, wall, _ in runs],
        "warm_up_seconds": warm_up,
        "peak_bytes": common.peak_bytes(),
        "versions": common.versions(),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
