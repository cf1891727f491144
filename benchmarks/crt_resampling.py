"""Null statistics of one unit: CPU milliseconds against a plain transcription of programDE's loops.

The transcription has programDE's algorithm and arithmetic, compiled by Numba where programDE's is:
a cell's resamples are the beginning of a permutation of all of them; draws are written down as
index lists of resamples; design and outcomes of treated cells are gathered in double
precision; strata are drawn by one NumPy call for each stratum and resample; rank sums are a sparse
product. Fitting propensities is timed alone (programDE has scikit-learn's lbfgs, not run here).
"""

import argparse
import statistics

import numpy as np
from common import timed, write_results
from scipy.sparse import csc_array, csr_array

COLUMNS = {
    "cells": "cells",
    "programs": "programs",
    "treated": "treated",
    "resamples": "resamples",
    "what": "statistic",
    "plait_ms": "plait, CPU ms",
    "transcription_ms": "transcription, CPU ms",
    "ratio": "ratio",
}
CASES = [(10_000, 20, 206), (50_000, 70, 957)]
COVARIATES = 8
RESAMPLES = 1023


def screen(cells, programs, treated, seed=1):
    """Return design, outcomes and one unit's treatment, which depends on the covariates."""
    random = np.random.default_rng(seed)
    design = np.column_stack([np.ones(cells), random.standard_normal((cells, COVARIATES))])
    design[:, 1] = random.integers(0, 2, cells)
    tilt = np.exp(0.3 * design[:, 1] + 0.3 * design[:, 2])
    is_treated = random.random(cells) < tilt * treated / tilt.sum()
    return design, random.standard_normal((cells, programs)), is_treated


# ---------------------------------------------------------------- programDE's algorithm


def transcription():
    """Return the compiled loops of the transcription."""
    from numba import njit

    @njit
    def seed_loops(seed):
        np.random.seed(seed)  # noqa: NPY002

    @njit
    def draw(probabilities, resamples):
        n = len(probabilities)
        many = np.empty(n, dtype=np.int64)
        for i in range(n):
            many[i] = np.random.binomial(resamples, probabilities[i])  # noqa: NPY002
        chosen = np.empty(many.sum(), dtype=np.int64)
        counts = np.zeros(resamples, dtype=np.int64)
        start = 0
        for i in range(n):
            if many[i] > 0:
                ids = np.random.permutation(resamples)[: many[i]]  # noqa: NPY002
                for b in ids:
                    chosen[start] = b
                    counts[b] += 1
                    start += 1
        starts = np.zeros(resamples + 1, dtype=np.int64)
        starts[1:] = np.cumsum(counts)
        place = starts[:-1].copy()
        cells = np.empty(len(chosen), dtype=np.int32)
        start = 0
        for i in range(n):
            for _ in range(many[i]):
                b = chosen[start]
                cells[place[b]] = i
                place[b] += 1
                start += 1
        return starts, cells

    @njit
    def effects(starts, cells, design, outcomes, inverse, cross):
        p, k = design.shape[1], outcomes.shape[1]
        result = np.zeros((len(starts) - 1, k))
        for b in range(len(starts) - 1):
            v, s = np.zeros(p), np.zeros(k)
            for place in range(starts[b], starts[b + 1]):
                i = cells[place]
                for j in range(p):
                    v[j] += design[i, j]
                for j in range(k):
                    s[j] += outcomes[i, j]
            solved = inverse @ v
            denominator = starts[b + 1] - starts[b] - solved @ v
            if denominator > 1e-12:
                result[b] = (s - solved @ cross) / denominator
        return result

    return seed_loops, draw, effects


def draw_strata(stratum, treated, resamples, random):
    """Return index lists of a permutation within strata."""
    members = [np.flatnonzero(stratum == s) for s in range(len(treated))]
    lists = []
    for _ in range(resamples):
        parts = [
            random.choice(cells, count, replace=False)
            for cells, count in zip(members, treated, strict=True)
            if count
        ]
        lists.append(np.concatenate(parts))
    starts = np.cumsum([0, *map(len, lists)])
    return starts.astype(np.int64), np.concatenate(lists).astype(np.int32)


def rank_biserial(starts, cells, ranks):
    """Return rank-biserial correlations by a sparse product."""
    resamples, n = len(starts) - 1, len(ranks)
    drawn = csr_array((np.ones(len(cells), ranks.dtype), cells, starts), shape=(resamples, n))
    n1 = np.diff(starts)[:, None]
    u = drawn @ ranks - n1 * (n1 + 1) / 2
    return 2 * u / (n1 * (n - n1)) - 1


# ---------------------------------------------------------------- the comparison


def median_ms(function, repeats):
    """Return the median CPU milliseconds of calls after the first."""
    function()
    return statistics.median(1e3 * timed(function)[2] for _ in range(repeats))


def both_sides(cells, programs, treated):
    """Return a call of each side for each statistic."""
    from plait.crt.null_statistics import (
        null_effects,
        null_rank_biserial,
        rank_table,
        residual_table,
    )
    from plait.crt.propensity import fit_propensities
    from plait.crt.ranks import rank_columns
    from plait.crt.resampling import BernoulliResampler, StratifiedResampler
    from plait.crt.seeds import UnitStream
    from plait.crt.strata import StrataOptions, Stratification

    design, outcomes, is_treated = screen(cells, programs, treated)
    basis = np.linalg.qr(design)[0]
    residuals = outcomes - basis @ (basis.T @ outcomes)
    unit = csc_array(is_treated.astype(float)[:, None])
    p = fit_propensities(design, unit).probabilities[:, 0]
    table, ranks = residual_table(residuals, basis), rank_columns(outcomes)
    ranked, single = rank_table(ranks), ranks.astype(np.float32)
    stream, random = UnitStream(123, "unit"), np.random.default_rng(1)
    stratification = Stratification(StrataOptions(), design[:, 1])
    treated_cells = np.flatnonzero(is_treated)
    inverse, cross = np.linalg.inv(design.T @ design), design.T @ outcomes
    seed_loops, draw, effects = transcription()
    seed_loops(1)

    def plain_effects(lists):
        return effects(*lists, design, outcomes, inverse, cross)

    def stratified():
        strata = stratification.strata(p, treated_cells)
        return StratifiedResampler(strata.stratum, strata.treated, stream)

    def plain_stratified():
        strata = stratification.strata(p, treated_cells)
        return draw_strata(strata.stratum, strata.treated, RESAMPLES, random)

    pairs = {
        "effects, Bernoulli": (
            lambda: null_effects(table, BernoulliResampler(p, stream), RESAMPLES),
            lambda: plain_effects(draw(p, RESAMPLES)),
        ),
        "effects, strata": (
            lambda: null_effects(table, stratified(), RESAMPLES),
            lambda: plain_effects(plain_stratified()),
        ),
        "ranks, Bernoulli": (
            lambda: null_rank_biserial(ranked, BernoulliResampler(p, stream), RESAMPLES),
            lambda: rank_biserial(*draw(p, RESAMPLES), single),
        ),
        "ranks, strata": (
            lambda: null_rank_biserial(ranked, stratified(), RESAMPLES),
            lambda: rank_biserial(*plain_stratified(), single),
        ),
    }
    return pairs, (design, is_treated)


def fit_ms(design, is_treated, units=16):
    """Return the milliseconds for each of the units of one block, and for one alone."""
    from plait.crt.propensity import fit_propensities

    random = np.random.default_rng(2)
    many = csc_array(np.column_stack([random.permutation(is_treated) for _ in range(units)]) * 1.0)
    block = median_ms(lambda: fit_propensities(design, many), 3) / units
    return block, median_ms(lambda: fit_propensities(design, many[:, [0]]), 3)


def main():
    """Time every statistic at both sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="a small case, to try it")
    options = parser.parse_args()
    rows = []
    for cells, programs, treated in [(1000, 5, 50)] if options.small else CASES:
        pairs, unit = both_sides(cells, programs, treated)
        case = {
            "cells": cells,
            "programs": programs,
            "treated": int(unit[1].sum()),
            "resamples": RESAMPLES,
        }
        for what, (ours, plain) in pairs.items():
            mine, theirs = median_ms(ours, options.repeats), median_ms(plain, 2)
            rows.append(
                case
                | {
                    "what": what,
                    "plait_ms": round(mine, 2),
                    "transcription_ms": round(theirs, 1),
                    "ratio": round(theirs / mine, 1),
                }
            )
        block, alone = fit_ms(*unit)
        for what, milliseconds in (("propensity, one of 16", block), ("propensity, alone", alone)):
            rows.append(case | {"what": what, "plait_ms": round(milliseconds, 2)})
    name = "crt_resampling_small" if options.small else "crt_resampling"
    write_results(name, rows, COLUMNS, options=vars(options))


if __name__ == "__main__":
    main()
