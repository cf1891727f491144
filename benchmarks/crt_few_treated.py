"""Screens without effects whose targets have few treated cells: shares of small p-values.

Treatments go with covariates, and so do usages; propensities are fitted. Programs of a target share
its treatment, so errors are those between targets.
"""

import argparse
import warnings

import numpy as np
from common import write_results
from crt_scaling import drawn_guides, prepared

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
    random = np.random.default_rng(seed)
    covariates = random.standard_normal((cells, columns))
    covariates[:, 0] = random.integers(0, 2, cells)
    guides = drawn_guides(random, covariates, treated, targets)
    loadings = 0.2 * random.standard_normal((columns, PROGRAMS))
    noise = 0.5 * random.standard_normal((cells, PROGRAMS))
    return prepared(covariates, guides, np.exp(covariates @ loadings + noise))


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
