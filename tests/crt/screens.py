"""Small perturbation screens: the reference runs, and ones made up."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
from scipy.sparse import csc_array

from tests.reference_files import load, reference_file


def reference_screen(name):
    """Return the screen of a reference run as a plain object, and what the peer made of it."""
    given = load("crt", f"{name}/inputs.npz")
    guides = csc_array(
        (np.ones(len(given["G_indices"]), dtype=np.int8), given["G_indices"], given["G_indptr"]),
        shape=tuple(given["G_shape"]),
    )
    covariates = pd.read_csv(
        reference_file("crt", f"{name}/covar.csv.gz"), index_col=0, float_precision="round_trip"
    )
    screen = SimpleNamespace(
        obsm={"cnmf_usage": given["usage"], "covar": covariates, "guide_assignment": guides},
        uns={
            "guide_names": given["guide_names"].tolist(),
            "guide2gene": dict(
                zip(given["guide_names"].tolist(), given["guide_gene"].tolist(), strict=True)
            ),
        },
    )
    return screen, load("crt", f"{name}/deterministic.npz")


def small_screen(seed=0, n_cells=60, n_programs=4, guides_per_gene=2):
    """Return a screen of three targets and controls, numeric covariates, as a plain object."""
    random = np.random.default_rng(seed)
    targets = np.repeat(["A", "B", "C", "NTC"], guides_per_gene)
    names = [f"{target}_g{i}" for i, target in enumerate(targets)]
    return SimpleNamespace(
        obsm={
            "cnmf_usage": random.dirichlet(np.full(n_programs, 0.7), size=n_cells),
            "covar": random.normal(size=(n_cells, 2)),
            "guide_assignment": (random.random((n_cells, len(names))) < 0.2).astype(np.int8),
        },
        uns={"guide_names": names, "guide2gene": dict(zip(names, targets.tolist(), strict=True))},
    )
