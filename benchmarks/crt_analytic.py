"""Analytic p-values of a screen: speed against programDE's skew-normal run, and calibration.

``speed``: CPU milliseconds for each unit, from treated cells to p-values of all programs, of plait
(penalised fit, four cumulants, saddlepoints) and of a plain transcription of programDE's Bernoulli
run with skew-normal p-values (`crt_resampling.transcription`, 1023 resamples, then a fit by moments
with its diagnostics for each program, with SciPy's skew-normal tail).

``calibration``: treatments are drawn again and again from the propensities of units of a simulated
screen, each draw is tested as if observed: p-values are then uniform but for the method's own
error. Then every unit of a screen without effects is tested once, propensities fitted. Bounds hold
with probability 1 - 1e-6 and take account of the programs of a draw together.
"""

import argparse

import numpy as np
from common import write_results
from crt_resampling import CASES, RESAMPLES, median_ms, screen, transcription
from scipy import stats
from scipy.sparse import csc_array

SPEED = {
    "cells": "cells",
    "programs": "programs",
    "treated": "treated",
    "sampler": "sampler",
    "fit_ms": "plait, fit, CPU ms",
    "p_ms": "plait, p-values, CPU ms",
    "saddlepoints": "pairs by saddlepoint",
    "draw_ms": "transcription, draws and effects, CPU ms",
    "skew_ms": "transcription, skew-normal, CPU ms",
    "ratio": "ratio",
}
CALIBRATION = {
    "propensities": "propensities",
    "expected": "expected treated cells",
    "units": "units",
    "tests": "tests",
    "level": "level",
    "rate": "rate",
    "low": "lower bound",
    "high": "upper bound",
    "ks_p": "KS p, one program a draw",
    "drawn": "share by Monte Carlo",
}
LEVELS = (1e-2, 1e-3, 1e-4)
BOUND = stats.norm.isf(0.5e-6)
UNITS = 16


# ---------------------------------------------------------------- speed


def skew_normal_p(observed, null):
    """Return programDE's two-sided p-values of all programs; -1 where its diagnostics fail."""
    resamples = len(null)
    z = (null - null.mean(axis=0)) / null.std(axis=0)
    z_observed = (observed - null.mean(axis=0)) / null.std(axis=0)
    p = np.full(len(observed), -1.0)
    c = np.sqrt(2.0 / np.pi)
    for k in range(len(observed)):
        y = np.sort(z[:, k])
        m, s = y.mean(), y.std()
        skewness = np.mean((y - m) ** 3) / s**3
        if abs(skewness) > 0.995:
            skewness = np.sign(skewness) * 0.8955
        r = np.sign(skewness) * (2.0 * abs(skewness) / (4.0 - np.pi)) ** (1.0 / 3.0)
        delta = r / (c * np.sqrt(1.0 + r * r))
        alpha = delta / np.sqrt(1.0 - delta**2)
        scale = s / np.sqrt(1.0 - (c * delta) ** 2)
        location = m - scale * c * delta
        extreme = s * np.sqrt(2.0 * np.log(resamples))
        if y[-1] / (m + extreme) > 1.5 or y[0] / (m - extreme) > 1.5:
            continue
        law = (alpha, location, scale)
        is_right = z_observed[k] >= y[(resamples - 1) // 2]
        tail, tail_law = (y, law) if is_right else (-y[::-1], (-alpha, -location, scale))
        passed = True
        for i in range(180, 199):
            q = i / 200
            at = tail[min(int(np.ceil(resamples * q)), resamples - 1)]
            fitted = stats.skewnorm.sf(at, *tail_law)
            if fitted <= 0 or (1 - q) / fitted > 2:
                passed = False
                break
        if passed:
            one = stats.skewnorm.sf if is_right else stats.skewnorm.cdf
            p[k] = 2 * one(z_observed[k], *law)
    return p


def ours_ms(design, outcomes, is_treated, repeats):
    """Return plait's milliseconds for a unit by sampler, share of saddlepoints, and one unit."""
    from plait.crt.analytic import analytic_p_values, analytic_table
    from plait.crt.propensity import fit_propensities
    from plait.crt.statistic import ols_statistics
    from plait.crt.strata import StrataOptions, Stratification

    basis = np.linalg.qr(design)[0]
    residuals = outcomes - basis @ (basis.T @ outcomes)
    random = np.random.default_rng(2)
    treated = csc_array(
        np.column_stack([random.permutation(is_treated) for _ in range(UNITS)]) * 1.0
    )
    p = fit_propensities(design, treated).probabilities
    beta = ols_statistics(residuals, basis, treated).beta
    table = analytic_table(residuals, basis)
    stratification = Stratification(StrataOptions(), design[:, 1])
    cells_of = np.split(treated.indices, treated.indptr[1:-1])
    names = [f"unit{j}" for j in range(UNITS)]

    def bernoulli():
        return analytic_p_values(table, beta, p, names, threads=1)

    def stratified():
        strata = [stratification.strata(p[:, j], cells_of[j]) for j in range(UNITS)]
        return analytic_p_values(table, beta, p, names, strata=strata, threads=1)

    fit = median_ms(lambda: fit_propensities(design, treated), repeats) / UNITS
    times = {
        what: (median_ms(test, repeats) / UNITS, np.mean(test().method == "saddlepoint"))
        for what, test in (("Bernoulli", bernoulli), ("strata", stratified))
    }
    return fit, times, (np.ascontiguousarray(p[:, 0]), beta[0])


def transcription_ms(design, outcomes, p, beta):
    """Return milliseconds for a unit's draws with their effects, and for its skew-normals."""
    seed_loops, draw, effects = transcription()
    seed_loops(1)
    inverse, cross = np.linalg.inv(design.T @ design), design.T @ outcomes

    def null():
        return effects(*draw(p, RESAMPLES), design, outcomes, inverse, cross)

    sample = null()
    return median_ms(null, 3), median_ms(lambda: skew_normal_p(beta, sample), 3)


def speed(options):
    """Time both sides at both sizes."""
    rows = []
    for case in [(1000, 5, 50)] if options.small else CASES:
        design, outcomes, is_treated = screen(*case)
        fit, times, unit = ours_ms(design, outcomes, is_treated, options.repeats)
        draw, skew = transcription_ms(design, outcomes, *unit)
        for sampler, (mine, share) in times.items():
            row = {
                "cells": case[0],
                "programs": case[1],
                "treated": int(is_treated.sum()),
                "sampler": sampler,
                "fit_ms": round(fit, 2),
                "p_ms": round(mine, 2),
                "saddlepoints": f"{100 * share:.1f} %",
            }
            if sampler == "Bernoulli":
                row |= {"draw_ms": round(draw, 1), "skew_ms": round(skew, 1)}
                row["ratio"] = round((draw + skew) / (fit + mine), 1)
            rows.append(row)
    notes = ["the ratio leaves out programDE's own fit of propensities; plait's is in it"]
    name = "crt_analytic_small" if options.small else "crt_analytic"
    write_results(name, rows, SPEED, notes, options=vars(options))


# ---------------------------------------------------------------- calibration


def simulated(cells, programs, genes, seed):
    """Return residuals, basis and fitted propensities of a simulated screen without effects."""
    from plait.crt import prepare_crt_inputs
    from plait.crt.propensity import fit_propensities
    from plait.simulate.screen import make_sceptre_style_synth

    data = make_sceptre_style_synth(
        N=cells, K=programs, n_target_genes=genes, seed=seed, global_null=True
    )
    data.obsm["covar"] = data.obsm["covar"][:, 1:]  # the design has an intercept
    inputs = prepare_crt_inputs(data, usage_key="usage")
    fitted = fit_propensities(inputs.C, inputs.treated_matrix()).probabilities
    return inputs.residuals, inputs.basis, fitted


def p_values_of_draws(table, residuals, basis, p, draws, name, random):
    """Draw treatments of one unit and return their p-values and methods (draws, programs)."""
    from plait.crt.analytic import analytic_p_values

    drawn = (random.random((draws, len(p))) < p).astype(np.float32)
    sums = drawn @ residuals.astype(np.float32)
    projection = drawn @ basis.astype(np.float32)
    denominator = drawn.sum(axis=1, dtype=np.float64) - (projection.astype(float) ** 2).sum(axis=1)
    found = analytic_p_values(
        table,
        sums / denominator[:, None],
        np.broadcast_to(p[:, None], (len(p), draws)),
        [f"{name}:{d}" for d in range(draws)],
        threads=1,
    )
    return found.p_value, found.method


def calibration(options):
    """Test draws of units in three ranges of expected treated cells."""
    from plait.crt.analytic import analytic_table

    cells, programs = 2000, 12
    residuals, basis, fitted = simulated(cells, programs, 80, 5)
    table = analytic_table(residuals, basis)
    expected = fitted.sum(axis=0)
    total = 20_000 if options.small else options.draws
    random = np.random.default_rng(1)
    rows, everything = [], []
    for low, high in ((25, 60), (60, 120), (120, 2000)):
        units = np.flatnonzero((expected >= low) & (expected < high))[:20]
        counts, ones, drawn = [], [], 0
        for _ in range(max(1, round(total / 3 / len(units) / 500))):
            for j in units:
                p, method = p_values_of_draws(
                    table, residuals, basis, fitted[:, j], 500, f"{j}:{drawn}", random
                )
                counts.append(np.stack([(p <= level).sum(axis=1) for level in LEVELS], axis=1))
                ones.append(p[:, 0])
                drawn += int((method == "monte carlo").sum())
        counts = np.concatenate(counts)
        everything.append(counts)
        about = {
            "propensities": "known",
            "expected": f"{expected[units].min():.0f}-{expected[units].max():.0f}",
            "units": len(units),
            "ks_p": stats.kstest(np.concatenate(ones), "uniform").pvalue,
            "drawn": drawn / (counts.shape[0] * programs),
        }
        rows += [about | row for row in rates(counts, programs)]
    about = {"propensities": "known", "expected": "all"}
    about["units"] = sum(row["units"] for row in rows[:: len(LEVELS)])
    rows += [about | row for row in rates(np.concatenate(everything), programs)]
    rows += fitted_rows(options)
    notes = ["bounds: level +- 4.9 standard errors, clustered by draw"]
    name = "crt_calibration_small" if options.small else "crt_calibration"
    write_results(name, rows, CALIBRATION, notes, options=vars(options))


def fitted_rows(options):
    """Return rows of whole screens without effects, each unit tested once as a user would."""
    from plait.crt import perturbation_effects, prepare_crt_inputs
    from plait.simulate.screen import make_sceptre_style_synth

    cells, programs, genes = (4000, 12, 200) if options.small else (20_000, 12, 2400)
    data = make_sceptre_style_synth(
        N=cells, K=programs, n_target_genes=genes, seed=6, confound_strength=0.3, global_null=True
    )
    data.obsm["covar"] = data.obsm["covar"][:, 1:]
    inputs = prepare_crt_inputs(data, usage_key="usage")
    rows = []
    for sampler in ("bernoulli", "stratified"):
        strata = {"stratify_by_batch": False} if sampler == "stratified" else None
        found = perturbation_effects(
            inputs, sampler=sampler, strata=strata, exclude=["NTC"], threads=1
        )
        p = np.asarray(found.p)
        about = {
            "propensities": f"fitted, {sampler}",
            "expected": f"{found.expected_treated.min():.0f}-{found.expected_treated.max():.0f}",
            "units": len(p),
            "ks_p": stats.kstest(p[:, 0], "uniform").pvalue,
            "drawn": float(np.mean(np.asarray(found.p_method) == "monte carlo")),
        }
        counts = np.stack([(p <= level).sum(axis=1) for level in LEVELS], axis=1)
        rows += [about | row for row in rates(counts, programs)]
    return rows


def rates(counts, programs):
    """Return a row for each level: the rate, and where it lies if p-values are uniform."""
    rows = []
    for level, count in zip(LEVELS, counts.T, strict=True):
        # The variance at the level itself: that of the counts, were their mean what it should be.
        mean = programs * level
        inflation = max(count.var() / max(count.mean(), 1e-12), 1.0)
        error = BOUND * np.sqrt(inflation * mean / len(count)) / programs
        rows.append(
            {
                "tests": len(count) * programs,
                "level": level,
                "rate": count.mean() / programs,
                "low": max(level - error, 0.0),
                "high": level + error,
            }
        )
    return rows


def main():
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["speed", "calibration"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--draws", type=int, default=1_020_000, help="of treatments, 12 tests each")
    parser.add_argument("--small", action="store_true", help="a small case, to try it")
    options = parser.parse_args()
    {"speed": speed, "calibration": calibration}[options.what](options)


if __name__ == "__main__":
    main()
