"""Screens on two threads against one: whole calls of ``perturbation_effects``, in seconds.

Claim: two threads are at least 1.8 times as fast as one, or 0.9 of what the machine gives to two.
A virtual machine's two cores may be halves of one, or be lent to others: whatever fills a core is
then less than twice as fast on two. So the same call is also run in two processes of one thread
each at the same time, which share no memory and no lock: twice what one such process does in the
same seconds is the most that two threads can give. A call takes what it needs, and more where
something else disturbs the machine, a call on two cores twice as often: of many calls the one with
the fewest seconds is told, and rounds go over all cases. Results are to be the same bits.
Analytic p-values of a short screen take a tenth of a second; they are timed for a usual number of
perturbations too.
"""

import argparse
import multiprocessing
import time
import types
import warnings

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
    "ceiling": "2 processes",
    "reached": "of these",
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
SECONDS = 3.0
"""What a case takes of a round at least: short calls are repeated."""


def drawn_guides(random, covariates, treated, units):
    """Return guides (cells, units) that depend on the first two covariates."""
    tilt = np.exp(0.3 * covariates[:, 0] + 0.3 * covariates[:, 1])
    share = tilt * treated / tilt.sum()
    return np.column_stack([random.random(len(covariates)) < share for _ in range(units)])


def prepared(covariates, guides, usage):
    """Return the inputs of a screen, a target for each guide; the first covariate is a batch."""
    from plait.crt import prepare_crt_inputs

    names = [f"g{j}" for j in range(guides.shape[1])]
    columns = ["batch", *(f"c{j}" for j in range(1, covariates.shape[1]))]
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


def screen(cells, programs, treated, units, seed=1):
    """Return the inputs of a screen whose treatments depend on a batch and a covariate."""
    random = np.random.default_rng(seed)
    covariates = random.standard_normal((cells, COVARIATES))
    covariates[:, 0] = random.integers(0, 2, cells)
    guides = drawn_guides(random, covariates, treated, units)
    return prepared(covariates, guides, np.exp(0.5 * random.standard_normal((cells, programs))))


def begin(sizes, cases):
    """Return the screens, and run a little of every case, so that all code is compiled."""
    from plait.crt import perturbation_effects

    screens = {size: screen(*size) for size in sizes}
    for size, what in cases:
        inputs = screens[size]
        perturbation_effects(inputs, inputs.units[:16], threads=1, **METHODS[what])
    return screens


def call(inputs, what, threads):
    """Return the result, seconds and CPU seconds of one call."""
    from plait.crt import perturbation_effects

    return timed(lambda: perturbation_effects(inputs, threads=threads, **METHODS[what]))


def second_process(sizes, cases, connection):
    """Run the cases that come by the connection, and say when each is done."""
    screens = begin(sizes, cases)
    connection.send(None)
    while (case := connection.recv()) is not None:
        call(screens[case[0]], case[1], 1)
        connection.send(time.monotonic())


def calls(inputs, case, connection):
    """Return seconds and CPU seconds on one thread and on two, and seconds of two processes."""
    one, two = call(inputs, case[1], 1), call(inputs, case[1], 2)
    if one[0].p.tobytes() != two[0].p.tobytes():
        raise RuntimeError(f"p-values of one and of two threads differ ({case[1]}).")
    start = time.monotonic()
    connection.send(case)
    call(inputs, case[1], 1)
    here = time.monotonic()
    return one[1:], two[1:], max(here, connection.recv()) - start


def main():
    """Time every kind of p-value at both sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--small", action="store_true", help="a small case, to try it")
    options = parser.parse_args()
    sizes = SMALL if options.small else [*CASES, *LONG]
    cases = [(size, what) for size in sizes for what in METHODS if size not in LONG]
    cases += [(size, "analytic") for size in sizes if size in LONG]
    connection, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    second = context.Process(target=second_process, args=(sizes, cases, theirs), daemon=True)
    second.start()
    screens = begin(sizes, cases)
    connection.recv()
    found = {case: [] for case in cases}
    for _ in range(options.repeats):
        for case in cases:
            until = time.monotonic() + SECONDS
            found[case].append(calls(screens[case[0]], case, connection))
            while time.monotonic() < until:
                found[case].append(calls(screens[case[0]], case, connection))
    connection.send(None)
    second.join()
    rows = []
    for (size, what), repeats in found.items():
        one, two, both = (min(several) for several in zip(*repeats, strict=True))
        row = dict(zip(("cells", "programs", "treated", "units"), size, strict=True))
        scaling, ceiling = one[0] / two[0], 2.0 * one[0] / both
        row |= {"what": what, "scaling": round(scaling, 2), "ceiling": round(ceiling, 2)}
        row |= {"reached": round(scaling / ceiling, 2)}
        rows.append(
            row | dict(zip(("one", "one_cpu", "two", "two_cpu"), (*one, *two), strict=True))
        )
    notes = [
        "Seconds are the fewest of all rounds. `2 processes`: how much more two processes of one "
        "thread each do in the same seconds than one of them, which is the most that this machine "
        "gives to two threads; `of these`: the share that two threads reach.",
        "1,023 resamples; strata of 20 bins of the propensity and a batch of 2 values.",
    ]
    name = "crt_scaling_small" if options.small else "crt_scaling"
    write_results(name, rows, COLUMNS, notes, options=vars(options))


if __name__ == "__main__":
    main()
