"""How often genes without effects are called by comparison with negative controls.

Run with ``python benchmarks/crt_negative_controls.py [screens]``: simulated screens without any
effect, whose genes differ in frequency and whose control guides do not, so that few pseudo-genes
are as rare or as frequent as genes. The shares of p-values up to 0.05 and 0.01 are those of all
genes and programs; their error is that between screens.

With ``guides [screens]``: how many control guides are enough. Pseudo-genes of few guides share most
of them, and spread less than genes do.
"""

import sys
import warnings

import numpy as np
import pandas as pd
from common import write_results

from plait.crt import ntc_empirical_tests, prepare_crt_inputs
from plait.errors import DataWarning
from plait.simulate import make_sceptre_style_synth

SETTINGS = [
    ("pooled", "fisher", "beta"),
    ("pooled", "fisher", "z"),
    ("meta", "fisher", "beta"),
    ("meta", "fisher", "z"),
    ("meta", "stouffer", "beta"),
    ("meta", "stouffer", "z"),
    ("meta", "stouffer_abs", "beta"),
    ("meta", "stouffer_abs", "z"),
]
COLUMNS = {
    "batches": "batches", "combined": "combined by", "statistic": "compared",
    "below_05": "share up to 0.05", "error_05": "its error", "below_01": "share up to 0.01",
}  # fmt: skip


def screen(seed, guides_per_gene=6, ntc_frac_guides=0.4):
    """Return a screen of two batches without effects."""
    made = make_sceptre_style_synth(
        N=3000, K=6, n_target_genes=60, guides_per_gene=guides_per_gene,
        ntc_frac_guides=ntc_frac_guides, n_cov_extra=1, n_effect_programs=1,
        moi_mean=6, seed=seed, global_null=True,
    )  # fmt: skip
    _, batch, depth, other = made.obsm["covar"].T
    made.obsm["covar"] = pd.DataFrame(
        {"batch": batch.astype(int).astype(str), "depth": depth, "x": other}, index=made.obs_names
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # a usage in seven is near 0
        return prepare_crt_inputs(made, usage_key="usage")


def main(screens):
    shares = {setting: [] for setting in SETTINGS}
    treated, of_controls = [], []
    for seed in range(screens):
        inputs = screen(seed)
        genes = [gene for gene in inputs.units if gene != "NTC"]
        treated += [len(inputs.treated(gene)) for gene in genes]
        for setting in SETTINGS:
            mode, combined, statistic = setting
            options = {"ntc_labels": ["NTC"], "n_ntc_units": 1500, "batch_mode": mode,
                       "combine_method": combined, "statistic": statistic}  # fmt: skip
            found = ntc_empirical_tests(inputs, genes, options)
            shares[setting].append([(found.p <= level).mean() for level in (0.05, 0.01)])
        carried = inputs.G.tocsc()
        of_controls += [
            len(np.unique(carried[:, guides].indices)) for guides in found.units.guides[:50]
        ]
    rows = []
    for (mode, combined, statistic), values in shares.items():
        mean, error = np.mean(values, axis=0), np.std(values, axis=0) / np.sqrt(screens)
        rows.append(
            {"batches": mode, "combined": combined if mode == "meta" else "-",
             "statistic": statistic, "below_05": round(mean[0], 4),
             "error_05": round(error[0], 4), "below_01": round(mean[1], 4)}
        )  # fmt: skip
    low, high = np.quantile(treated, [0.05, 0.95])
    narrow = np.quantile(of_controls, [0.05, 0.95])
    notes = [
        f"{screens} screens of 3,000 cells; 90 % of the genes have {low:.0f} to {high:.0f} treated "
        f"cells and 90 % of the pseudo-genes {narrow[0]:.0f} to {narrow[1]:.0f}."
    ]
    write_results("crt_negative_controls", rows, COLUMNS, notes, {"screens": screens})


def guides(screens):
    rows = []
    for size in (2, 4, 6):
        for ratio in (2, 3, 5, 8, 10, 15, 20, 30, 40):
            count = ratio * size
            shares = []
            for seed in range(screens):
                inputs = screen(seed, size, count / (count + 60 * size))
                genes = [gene for gene in inputs.units if gene != "NTC"]
                options = {"ntc_labels": ["NTC"], "n_ntc_units": 1500, "guides_per_unit": size,
                           "batch_mode": "pooled", "statistic": "z"}  # fmt: skip
                found = ntc_empirical_tests(inputs, genes, options)
                shares.append([(found.p <= level).mean() for level in (0.05, 0.01)])
            mean, error = np.mean(shares, axis=0), np.std(shares, axis=0) / np.sqrt(screens)
            rows.append(
                {"size": size, "guides": count, "ratio": ratio, "below_05": round(mean[0], 4),
                 "error_05": round(error[0], 4), "below_01": round(mean[1], 4)}
            )  # fmt: skip
    columns = {
        "size": "guides of a gene", "guides": "control guides", "ratio": "ratio",
        "below_05": "share up to 0.05", "error_05": "its error", "below_01": "share up to 0.01",
    }  # fmt: skip
    notes = [f"{screens} screens of 3,000 cells, effects over their errors, in all cells."]
    write_results("crt_negative_control_guides", rows, columns, notes, {"screens": screens})


if __name__ == "__main__" and sys.argv[1:2] == ["guides"]:
    guides(*[int(number) for number in sys.argv[2:]] or [40])
elif __name__ == "__main__":
    main(*[int(number) for number in sys.argv[1:]] or [40])
