"""How often screens of few genes find effects that are not there, by the covariates of guides.

Run with ``python benchmarks/crt_few_genes.py [screens]``: simulated screens without effects, many
guides in a cell, guides assigned by the default mixture. Shares of p-values are divided by their
level; errors are those between screens.
"""

import sys
import warnings

import numpy as np
from common import write_results

from plait import crt
from plait.errors import DataWarning
from plait.simulate import make_count_screen

GENES = (60, 80, 150, 300, 500)
LEVELS = {"05": 0.05, "01": 0.01}
FORMULA = (
    "~ log(response_n_nonzero) + log(response_n_umis) + log({} + 1) + log(grna_n_umis + 1) + batch"
)
COVARIATES = {"guides with counts": "grna_n_nonzero", "guides assigned": "grna_n_assigned"}
COLUMNS = {
    "genes": "genes", "covariate": "covariate", "below_05": "below 0.05", "error_05": "its error",
    "below_01": "below 0.01", "error_01": "its error",
}  # fmt: skip


def rates(n_genes, seed):
    """Return the shares of p-values below the levels, over these, for each covariate."""
    made = make_count_screen(
        N=3000, n_genes=n_genes, n_targets=30, moi="high", seed=seed, global_null=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # that genes are few
        screen = crt.GeneScreen.from_anndata(made, "high", covariates=["batch"])
        pairs, found = crt.trans_pairs(screen.data), []
        for name in COVARIATES.values():
            screen.set_parameters(discovery_pairs=pairs, formula=FORMULA.format(name), side="left")
            p = screen.run_discovery().to_frame()["p_value"].drop_nulls().to_numpy()
            found.append([(p <= level).mean() / level for level in LEVELS.values()])
    return found


def main(screens):
    rows = []
    for n_genes in GENES:
        found = np.array([rates(n_genes, seed) for seed in range(screens)])
        mean, error = found.mean(axis=0), found.std(axis=0, ddof=1) / np.sqrt(screens)
        for k, covariate in enumerate(COVARIATES):
            row = {"genes": n_genes, "covariate": covariate}
            for i, level in enumerate(LEVELS):
                row[f"below_{level}"] = round(mean[k, i], 2)
                row[f"error_{level}"] = round(error[k, i], 2)
            rows.append(row)
            print(row, flush=True)
    notes = (
        f"{screens} screens of 3,000 cells and 30 targets for each row, none with effects, "
        "p-values of fewer counts (`--side left`); 1 is right.",
    )
    write_results("crt_few_genes", rows, COLUMNS, notes)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
