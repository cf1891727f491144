"""Screens without effects whose targets have few treated cells: shares of small p-values.

Treatments go with covariates, and so do usages; propensities are fitted. Programs of a target share
its treatment, so errors are those between targets.
"""

import argparse
import types
import warnings

import numpy as np
import pandas as pd
from common import write_results
from scipy.sparse import csc_array

COLUMNS = {
    "cells": "cells",
    "covariates": "columns of covariates",
    "treated": "treated cells expected",
    "sampler": "sampler",
    "below_05": "share below 0.05",
    "error_05": "its error",
    "below_01": "share below 0.01",
    "error_01": "its error",
}
PROGRAMS = 6


def screen(cells, columns, treated, targets, seed=1):
    """Return the inputs of a screen without effects."""
    from plait.crt import prepare_crt_inputs

    random = np.random.default_rng(seed)
    covariates = random.standard_normal((cells, columns))
    covariates[:, 0] = random.integers(0, 2, cells)
    tilt = np.exp(0.3 * covariates[:, 0] + 0.3 * covariates[:, 1])
    share = tilt * treated / tilt.sum()
    guides = np.column_stack([random.random(cells) < share for _ in range(targets)])
    loadings = 0.2 * random.standard_normal((columns, PROGRAMS))
    usage = np.exp(covariates @ loadings + 0.5 * random.standard_normal((cells, PROGRAMS)))
    names = [f"g{j}" for j in range(targets)]
    frame = pd.DataFrame(covariates, columns=["batch", *(f"c{j}" for j in range(1, columns))])
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


def main():
    """Test every screen with both samplers."""
    from plait.crt import perturbation_effects

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=4000)
    options = parser.parse_args()
    rows = []
    for cells in (1000, 10_000):
        for columns in (5, 25):
            for treated in (4, 8, 20):
                inputs = screen(cells, columns, treated, options.targets)
                for sampler in ("bernoulli", "stratified"):
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")  # targets without treated cells
                        found = perturbation_effects(inputs, sampler=sampler)
                    p = found.p[found.status == "ok"]
                    row = {"cells": cells, "covariates": columns}
                    row |= {"treated": treated, "sampler": sampler}
                    for level, name in ((0.05, "05"), (0.01, "01")):
                        shares = (p < level).mean(axis=1)
                        error = shares.std() / np.sqrt(len(shares))
                        row |= {f"below_{name}": round(shares.mean(), 4)}
                        row |= {f"error_{name}": round(error, 4)}
                    rows.append(row)
    write_results("crt_few_treated", rows, COLUMNS, options=vars(options))


if __name__ == "__main__":
    main()
