"""Cases of the perturbation-screen tests: programDE's reference runs and small random screens."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
from scipy import sparse

from plait.crt.null_statistics import effects_of_sums
from tests.reference_files import load


def effects_of_index_lists(residuals, basis, starts, cells):
    """Return effects (treatments, outcomes) of given lists of treated cells, summed as they are."""
    lists = [cells[begin:end] for begin, end in pairwise(starts)]
    sums = (np.array([rows[one].sum(axis=0) for one in lists]) for rows in (residuals, basis))
    return effects_of_sums(*sums, np.diff(starts))


def reference_screen(name):
    """Return a reference screen as arrays: design, basis, log-ratios, residuals, treated cells."""
    inputs, known = load(f"crt/{name}", "inputs.npz"), load(f"crt/{name}", "deterministic.npz")
    guides = sparse.csc_matrix(
        (np.ones(len(inputs["G_indices"])), inputs["G_indices"], inputs["G_indptr"]),
        shape=tuple(inputs["G_shape"]),
    )
    genes = known["genes"]
    columns = [
        np.unique(guides[:, np.flatnonzero(inputs["guide_gene"] == gene)].indices) for gene in genes
    ]
    treated = sparse.csc_matrix(
        (
            np.ones(sum(map(len, columns))),
            np.concatenate(columns),
            np.cumsum([0, *map(len, columns)]),
        ),
        shape=(len(known["C"]), len(genes)),
    )
    usage = np.maximum(inputs["usage"], known["eps"])
    outcome = np.log(usage / usage.sum(axis=1, keepdims=True))
    outcome -= outcome.mean(axis=1, keepdims=True)
    basis = np.linalg.qr(known["C"])[0]
    return SimpleNamespace(
        known=known,
        genes=list(genes),
        treated=treated,
        cells=dict(zip(genes, columns, strict=True)),
        usage=inputs["usage"],
        design=known["C"],
        basis=basis,
        outcome=outcome,
        residuals=outcome - basis @ (basis.T @ outcome),
    )


def random_screen(n_cells=400, n_outcomes=3, n_covariates=2, mean=0.1, seed=0):
    """Return residuals, basis and propensities of a small screen."""
    random = np.random.default_rng(seed)
    design = np.column_stack([np.ones(n_cells), random.standard_normal((n_cells, n_covariates))])
    basis = np.linalg.qr(design)[0]
    outcome = random.standard_normal((n_cells, n_outcomes))
    probabilities = np.clip(mean * np.exp(0.8 * random.standard_normal(n_cells)), 1e-6, 0.95)
    return SimpleNamespace(
        design=design,
        basis=basis,
        outcome=outcome,
        residuals=outcome - basis @ (basis.T @ outcome),
        probabilities=probabilities,
    )
