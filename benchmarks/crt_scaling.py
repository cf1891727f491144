"""Screens on two threads against one: whole calls of ``perturbation_effects``, in seconds.

Claim: two threads are at least 1.8 times as fast as one. A call takes what it needs, and more where
something else disturbs the machine, a call on two cores twice as often: of several calls the one
with the fewest seconds is told, and rounds go over all cases. A machine whose two cores are one
gives less to any program, so its own ceiling is measured too: pure compute (no memory, no lock of
Python's) on one thread and on two. Results are to be the same bits. Analytic p-values of a short
screen take a tenth of a second; they are timed for a usual number of perturbations too.
"""

import argparse
import threading
import types
import warnings
from functools import cache

import numpy as np
import pandas as pd
from common import timed, write_results
from scipy.sparse import csc_array

COLUMNS = {
    "cells": "cells",
    "programs": "programs",
    "treated": "treated",
    "units": "units",
    "what": "p-values",
    "one": "1 thread, s",
    "two": "2 threads, s",
    "scaling": "ratio",
    "one_cpu": "1 thread, CPU s",
    "two_cpu": "2 threads, CPU s",
}
CASES = [(10_000, 20, 206, 208), (50_000, 70, 957, 96)]
LONG = [(10_000, 20, 206, 2000), (50_000, 70, 957, 2000)]
SMALL = [(1000, 5, 50, 32)]
METHODS = {
    "counted, Bernoulli": {"method": "empirical"},
    "counted, strata": {"method": "empirical", "sampler": "stratified"},
    "skew-normal, Bernoulli": {"method": "skew-normal"},
    "counted, U": {"method": "empirical", "statistic": "utest"},
    "analytic": {"method": "analytic"},
}
COVARIATES = 8
STEPS = 60_000_000
"""Of the pure compute, a tenth of a second."""


def screen(cells, programs, treated, units, seed=1):
    """Return the inputs of a screen whose treatments depend on a batch and a covariate."""
    from plait.crt import prepare_crt_inputs

    random = np.random.default_rng(seed)
    covariates = random.standard_normal((cells, COVARIATES))
    covariates[:, 0] = random.integers(0, 2, cells)
    tilt = np.exp(0.3 * covariates[:, 0] + 0.3 * covariates[:, 1])
    share = tilt * treated / tilt.sum()
    guides = np.column_stack([random.random(cells) < share for _ in range(units)])
    usage = np.exp(0.5 * random.standard_normal((cells, programs)))
    names = [f"g{j}" for j in range(units)]
    columns = ["batch", *(f"c{j}" for j in range(1, COVARIATES))]
    frame = pd.DataFrame(covariates, columns=columns)
    held = types.SimpleNamespace(
        obsm={
            "cnmf_usage": usage / usage.sum(axis=1, keepdims=True),
            "covar": frame,
            "guide_assignment": csc_array(guides.astype(np.int8)),
        },
        uns={"guide_names": names, "guide2gene": {name: f"T{name}" for name in names}},
        obs=frame,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is odd about simulated covariates
        return prepare_crt_inputs(held)


@cache
def pure_compute():
    """Return a compiled loop that needs neither memory nor Python."""
    from numba import njit

    @njit(nogil=True)
    def work(steps):
        total, x = 0.0, 1.000001
        for _ in range(steps):
            x = x * 1.0000001 + 1e-9
            total += x * x
        return total

    work(10)
    return work


def ceiling(steps=STEPS):
    """Return the seconds of pure compute on one thread, and of twice as much on two."""
    work = pure_compute()

    def on(threads):
        running = [threading.Thread(target=work, args=(steps,)) for _ in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()

    return timed(on, 1)[1], timed(on, 2)[1]


def calls(inputs, options):
    """Return the seconds and CPU seconds of a call on one thread and of one on two."""
    from plait.crt import perturbation_effects

    def call(threads):
        return timed(lambda: perturbation_effects(inputs, threads=threads, **options))

    one, two = call(1), call(2)
    if one[0].p.tobytes() != two[0].p.tobytes():
        raise RuntimeError(f"p-values of one and of two threads differ ({options}).")
    return one[1:], two[1:]


def main():
    """Time every kind of p-value at both sizes."""
    from plait.crt import perturbation_effects

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--small", action="store_true", help="a small case, to try it")
    options = parser.parse_args()
    sizes = SMALL if options.small else [*CASES, *LONG]
    screens = {size: screen(*size) for size in sizes}
    cases = [(size, what) for size in sizes for what in METHODS if size not in LONG]
    cases += [(size, "analytic") for size in sizes if size in LONG]
    for size, what in cases:  # what is compiled
        inputs = screens[size]
        perturbation_effects(inputs, inputs.units[:16], threads=1, **METHODS[what])
    ceilings, found = [], {case: [] for case in cases}
    for _ in range(options.repeats):
        for size, what in cases:
            ceilings.append(ceiling())
            found[size, what].append(calls(screens[size], METHODS[what]))
    rows = []
    for (size, what), repeats in found.items():
        one, two = (min(pairs) for pairs in zip(*repeats, strict=True))
        row = dict(zip(("cells", "programs", "treated", "units"), size, strict=True))
        row |= {"what": what, "scaling": round(one[0] / two[0], 2)}
        rows.append(
            row | dict(zip(("one", "one_cpu", "two", "two_cpu"), (*one, *two), strict=True))
        )
    alone, both = (min(seconds) for seconds in zip(*ceilings, strict=True))
    notes = [
        "Seconds are the fewest of all rounds. Pure compute on two threads against one: "
        f"{2.0 * alone / both:.2f}.",
        "1,023 resamples; strata of 20 bins of the propensity and a batch of 2 values.",
    ]
    name = "crt_scaling_small" if options.small else "crt_scaling"
    write_results(name, rows, COLUMNS, notes, options=vars(options))


if __name__ == "__main__":
    main()
