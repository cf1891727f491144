"""Gene-level screens: CPU seconds of plait beside those of sceptre 0.99.0 for the same pairs.

sceptre's seconds are those of its runs whose tables are the reference of the tests
(``shared/reference/crt/sceptre_r/timings.txt``): R is not run here. The pairs, the cells and the
statistics are the same; plait's p-values are analytic, or with ``--staged`` those of sceptre's
stages of resamples. One thread. The real screen (Papalexi et al. 2021) has no run to compare with.
"""

import argparse
import statistics
import sys
from pathlib import Path

import numpy as np
from common import timed, write_results

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
COLUMNS = {
    "screen": "screen",
    "cells": "cells",
    "pairs": "pairs",
    "cpu_seconds": "plait, CPU s",
    "pairs_per_second": "plait, pairs/s",
    "sceptre_cpu_seconds": "sceptre, CPU s",
    "ratio": "ratio",
}


def sceptre_seconds():
    """Return CPU seconds (user and system) of each of sceptre's analyses."""
    lines = (SHARED / "reference/crt/sceptre_r/timings.txt").read_text().splitlines()
    found = {}
    for name, values in zip(lines, lines[2:], strict=False):
        if name.startswith("$"):
            user, system = map(float, values.split()[:2])
            found[name.removeprefix("$")] = user + system
    return found


def measured(screen, name, analysis, repeats):
    """Return a row of one analysis; the first call, which compiles, is not counted."""
    run = screen.run_discovery if analysis == "disc" else screen.run_calibration_check
    run(threads=1)
    calls = [timed(lambda: run(threads=1)) for _ in range(repeats)]
    result, seconds = calls[0][0], statistics.median(cpu for _, _, cpu in calls)
    pairs = int(result.pass_qc.sum())
    return {
        "screen": f"{name}, {'discovery' if analysis == 'disc' else 'calibration'}",
        "cells": int(screen.cells.is_used.sum()),
        "pairs": pairs,
        "cpu_seconds": round(seconds, 3),
        "pairs_per_second": round(pairs / seconds),
    }


def real_screen(n_pairs, seed=1, **options):
    """Return the real screen with some of its pairs, chosen at random."""
    import anndata

    from plait.crt.gene_screen import GeneScreen
    from plait.crt.pairs import Pairs, trans_pairs

    adata = anndata.read_h5ad(SHARED / "data/crt/papalexi.h5ad")
    screen = GeneScreen.from_anndata(adata, "low", covariates=["bio_rep"])
    pairs = trans_pairs(screen.data)
    if n_pairs is not None:
        some = np.random.default_rng(seed).choice(len(pairs), n_pairs, replace=False)
        pairs = Pairs(pairs.targets[some], pairs.responses[some])
    return screen.set_parameters(discovery_pairs=pairs, **options).quality_control()


def main():
    """Time every configuration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--staged", action="store_true", help="sceptre's stages of resamples")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from tests.crt.gene_cases import RUNS, reference_screen

    resampling = "sceptre_staged" if options.staged else "analytic"
    theirs, rows = sceptre_seconds(), []
    for run in RUNS:
        screen = reference_screen(run, resampling)
        for analysis in ("disc", "calib"):
            row = measured(screen, run, analysis, options.repeats)
            seconds = theirs[f"{run}_{analysis}"]
            ratio = round(seconds / row["cpu_seconds"], 1)
            rows.append(row | {"sceptre_cpu_seconds": round(seconds, 2), "ratio": ratio})
    complement = {"control_group": "complement", "mechanism": "crt", "resampling": resampling}
    for n_pairs, settings, what in (
        (169, complement, "Papalexi, complement"),
        (None, complement, "Papalexi, complement"),
        (None, {"resampling": resampling}, "Papalexi, non-targeting cells"),
    ):
        screen = real_screen(n_pairs, **settings)
        rows.append(measured(screen, what, "disc", max(1, options.repeats // 2)))
    name = "crt_genes_staged" if options.staged else "crt_genes"
    notes = (
        "sceptre's seconds are of its reference runs, not of this run; ratios are of CPU seconds.",
        "low_perm_nt_bonferroni: pairs of a target; each is tested once for every guide.",
    )
    write_results(name, rows, COLUMNS, notes, options=vars(options))


if __name__ == "__main__":
    main()
