"""Gene-level screens of the tests: small random ones, and sceptre's runs."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from plait.crt.gene_data import gene_screen_data
from plait.crt.gene_screen import GeneScreen
from plait.crt.pairs import cis_pairs, positive_control_pairs, trans_pairs
from tests.reference_files import real_data, reference_file

RUNS = (
    "high_crt_left",
    "high_perm_both_trans",
    "low_perm_nt",
    "low_crt_complement_right",
    "low_perm_nt_bonferroni",
)


def random_screen(seed=0, moi="high", n_cells=300, n_genes=12, n_targets=4, mean=2.0, effect=0.0):
    """Return counts of a screen: two guides a target, six controls; the first gene is a target's.

    ``effect`` is the log fold change of gene "T0" in cells with guides of the target "T0".
    """
    random = np.random.default_rng(seed)
    targets = np.repeat([f"T{i}" for i in range(n_targets)], 2).tolist() + ["non-targeting"] * 6
    guides = [f"{target}_g{i}" for i, target in enumerate(targets)]
    batch = random.integers(0, 2, n_cells)
    if moi == "high":
        has = random.random((n_cells, len(guides))) < 0.12 + 0.05 * batch[:, None]
    else:
        has = np.eye(len(guides), dtype=bool)[random.integers(0, len(guides), n_cells)]
    depth = np.exp(0.3 * random.standard_normal(n_cells))
    mu = mean * depth[:, None] * np.exp(0.2 * batch[:, None] + np.zeros(n_genes))
    mu[:, 0] *= np.exp(effect * has[:, :2].any(axis=1))
    counts = random.poisson(mu * random.gamma(3.0, 1 / 3.0, mu.shape))
    umis = random.poisson(np.where(has, 40.0, 0.05))
    return {
        "responses": csr_matrix(counts.astype(np.float32)),
        "guides": csr_matrix(umis.astype(np.float32)),
        "targets": pd.DataFrame({"grna_id": guides, "grna_target": targets}),
        "moi": moi,
        "response_names": ["T0", *(f"gene{i}" for i in range(1, n_genes))],
        "guide_names": guides,
        "covariates": pd.DataFrame({"batch": pd.Categorical(batch.astype(str))}),
    }, has


def write_cell_ranger(
    path,
    genes,
    guides,
    gene_names,
    guide_names,
    *,
    targets=None,
    barcodes=None,
    kinds=("Gene Expression", "CRISPR Guide Capture"),
):
    """Write counts (cells, genes) and (cells, guides) as Cell Ranger does, and return the path.

    ``targets`` are those of guides that the feature reference had, if it had any.
    """
    import h5py
    from scipy.sparse import hstack

    both = csr_matrix(hstack([genes, guides]).astype(int))
    names = [*gene_names, *guide_names]
    types = np.repeat(kinds, [len(gene_names), len(guide_names)])
    cells = [f"cell-{i}" for i in range(both.shape[0])] if barcodes is None else list(barcodes)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(both, name)
        group["shape"] = both.shape[::-1]
        group["barcodes"] = np.array(cells, dtype="S")
        group["features/name"] = np.array(names, dtype="S")
        group["features/id"] = np.array([f"ID{i}" for i in range(len(names))], dtype="S")
        group["features/feature_type"] = types.astype("S")
        if targets is not None:
            named = [""] * len(gene_names) + list(targets)
            group["features/target_gene_name"] = np.array(named, dtype="S")
    return path


def random_data(**options):
    """Return the data of a random screen."""
    return gene_screen_data(**random_screen(**options)[0])


def coefficients_of_columns(fit, matrix):
    """Return coefficients of a matrix (cells, columns) from the means of a gene's regression."""
    return np.linalg.lstsq(matrix, np.log(fit.mean), rcond=None)[0]


def reference_data(run):
    """Return the data of a run of sceptre."""
    import anndata

    from plait.crt.gene_data import gene_screen_from_anndata

    moi = "high" if run.startswith("high") else "low"
    adata = anndata.read_h5ad(real_data("crt", f"sim{moi}.h5ad"))
    return gene_screen_from_anndata(adata, moi, covariates=["batch"])


def reference_table(name):
    """Return a table of sceptre's output."""
    path = reference_file("crt", f"sceptre_r/{name}.csv.gz")
    return pd.read_csv(path, float_precision="round_trip")


def reference_screen(run, resampling="analytic", **options):
    """Return a screen with the parameters, assignment and cells of a run of sceptre."""
    data = reference_data(run)
    controls = positive_control_pairs(data)
    settings, assigned = {}, {}
    if run == "high_crt_left":
        positions = pd.read_csv(real_data("crt", "gene_tss_grch38.csv.gz"))
        pairs = cis_pairs(data, positions, controls, distance=5_000_000)
        settings, assigned = {"side": "left"}, {"method": "mixture", "mixture": "legacy"}
    else:
        pairs = trans_pairs(data, controls, exclude="pc_pairs")
    if run == "high_perm_both_trans":
        settings, assigned = {"mechanism": "permutations"}, {"method": "thresholding"}
    elif run == "low_crt_complement_right":
        settings = {"side": "right", "control_group": "complement", "mechanism": "crt"}
    elif run == "low_perm_nt_bonferroni":
        settings = {"strategy": "bonferroni"}
    return (
        GeneScreen(data)
        .set_parameters(
            discovery_pairs=pairs,
            positive_control_pairs=controls,
            resampling=resampling,
            **(settings | options),
        )
        .assign_guides(**assigned)
        .quality_control()
    )


def frame_of(result, keys=("response_id", "grna_target")):
    """Return a result as a pandas table, by pairs."""
    return pd.DataFrame(result.to_frame().to_dict(as_series=False)).set_index(list(keys))


def close_relative(found, expected, tolerance):
    """Check relative closeness, with numbers below 1e-3 taken as 1e-3."""
    scale = np.maximum(np.abs(expected), 1e-3)
    worst = float(np.max(np.abs(np.asarray(found, float) - np.asarray(expected, float)) / scale))
    assert worst <= tolerance, worst


def needs_anndata():
    """Skip without anndata."""
    pytest.importorskip("anndata")
