"""Counts that stay in a file: the same numbers and the same results as in memory."""

import gc
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csc_array, csr_matrix, random_array

from plait.crt import gene_counts
from plait.crt.gene_counts import (
    as_counts,
    blocks_of_genes,
    fingerprint_of_counts,
    gene_of,
    genes_of,
    is_on_disk,
    rows_of,
    stored_counts,
)
from plait.crt.gene_data import gene_screen_data, read_gene_screen
from plait.crt.gene_screen import GeneScreen
from plait.crt.pairs import positive_control_pairs, trans_pairs
from plait.errors import InputError, LabelError
from plait.io.cell_ranger import screen_from_cell_ranger
from tests.crt.gene_cases import needs_anndata, random_screen, write_cell_ranger


def in_file(tmp_path, counts, layout="csr"):
    """Return the X of a backed AnnData."""
    import anndata

    made = {"csr": csr_matrix, "csc": lambda x: csr_matrix(x).tocsc(), "dense": np.asarray}
    dense = counts.toarray() if hasattr(counts, "toarray") else counts
    path = tmp_path / f"{layout}.h5ad"
    anndata.AnnData(made[layout](dense)).write_h5ad(path)
    return anndata.read_h5ad(path, backed="r").X


def some_counts(seed=0, n_cells=70, n_genes=23):
    random = np.random.default_rng(seed)
    counts = random.poisson(0.4, (n_cells, n_genes)).astype(np.float32)
    counts[:, 5] = 0
    return counts


@pytest.mark.parametrize("layout", ["csr", "csc", "dense"])
@pytest.mark.parametrize("at_once", [1, 60, 1 << 22])
def test_counts_in_a_file_are_those_in_memory(tmp_path, monkeypatch, layout, at_once):
    needs_anndata()
    monkeypatch.setattr(gene_counts, "_AT_ONCE", at_once)
    dense = some_counts()
    source = in_file(tmp_path, dense, layout)
    assert is_on_disk(source) and not is_on_disk(dense)
    stored, held = stored_counts(source, "counts"), as_counts(dense, "counts")
    assert stored.shape == held.shape
    cells = np.array([0, 3, 4, 30, 69])
    for one, other in (
        (stored, held),
        (rows_of(stored, cells), rows_of(held, cells)),
        (rows_of(rows_of(stored, cells), cells[:2]), rows_of(rows_of(held, cells), cells[:2])),
        (pickle.loads(pickle.dumps(rows_of(stored, cells))), rows_of(held, cells)),
    ):
        assert one.shape == other.shape
        for gene in range(dense.shape[1]):
            for found, expected in zip(gene_of(one, gene), gene_of(other, gene), strict=True):
                np.testing.assert_array_equal(found, expected)
        genes = np.array([2, 5, 7, 22])
        assert (genes_of(one, genes) != genes_of(other, genes)).nnz == 0
        assert fingerprint_of_counts(one) == fingerprint_of_counts(other)
        slices = [genes for genes, _ in blocks_of_genes(one)]
        assert [s.start for s in slices] == [0, *(s.stop for s in slices[:-1])]
        assert slices[-1].stop == dense.shape[1]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_rows_of_a_matrix_by_columns(seed):
    random = np.random.default_rng(seed)
    matrix = csc_array(random_array((40, 9), density=0.2, rng=random))
    matrix.sort_indices()
    cells = np.flatnonzero(random.random(40) < 0.4)
    np.testing.assert_array_equal(rows_of(matrix, cells).toarray(), matrix.toarray()[cells])


def test_the_temporary_file_goes_with_the_counts(tmp_path, monkeypatch):
    needs_anndata()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stored = stored_counts(in_file(tmp_path, some_counts()), "counts")
    part = rows_of(stored, np.arange(4))
    (folder,) = tmp_path.glob("plait-counts-*")
    size = sum(path.stat().st_size for path in Path(folder).iterdir())
    assert size == 8 * np.count_nonzero(some_counts())
    del stored
    gc.collect()
    assert folder.exists()  # the part needs it
    del part
    gc.collect()
    assert not folder.exists()


@pytest.mark.parametrize("layout", ["csr", "csc", "dense"])
def test_what_is_no_count_is_named_by_its_place(tmp_path, monkeypatch, layout):
    needs_anndata()
    monkeypatch.setattr(gene_counts, "_AT_ONCE", 20)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    counts = some_counts()
    counts[33, 7] = 1.5
    with pytest.raises(InputError, match=r"first: 1.5 in cell 34, column 8"):
        stored_counts(in_file(tmp_path, counts, layout), "the counts of genes")
    gc.collect()
    assert not list(tmp_path.glob("plait-counts-*"))


def written_screen(tmp_path, moi, layout="csr"):
    """Write a random screen as a file; return its path."""
    import anndata
    import pandas as pd

    options, _ = random_screen(seed=5, moi=moi, n_cells=400)
    names = [*options["response_names"][:-2], "MT-A", "MT-B"]
    made = anndata.AnnData(
        options["responses"].asformat(layout),
        obs=options["covariates"].set_index(pd.Index([f"c{i}" for i in range(400)])),
        var=pd.DataFrame(index=names),
        obsm={"grna_counts": options["guides"]},
        uns={"grna_ids": options["guide_names"], "grna_target_table": options["targets"]},
    )
    path = tmp_path / f"screen_{layout}.h5ad"
    made.write_h5ad(path)
    return path


@pytest.mark.parametrize("moi", ["high", "low"])
@pytest.mark.parametrize("layout", ["csr", "csc"])
def test_a_screen_on_disk_gives_the_same_bits(tmp_path, monkeypatch, moi, layout):
    needs_anndata()
    monkeypatch.setattr(gene_counts, "_AT_ONCE", 500)
    path = written_screen(tmp_path, moi, layout)
    results = []
    for on_disk in (False, True):
        data = read_gene_screen(path, moi, covariates=["batch"], on_disk=on_disk)
        assert isinstance(data.responses, gene_counts.StoredCounts) == on_disk
        screen = GeneScreen(data)
        screen.set_parameters(
            discovery_pairs=trans_pairs(data), positive_control_pairs=positive_control_pairs(data)
        )
        screen.quality_control(max_mito=1.0)
        results.append(
            [
                screen.run_calibration_check(),
                screen.run_power_check(),
                screen.run_discovery(),
                screen.detectable_effects(p_threshold=0.01),
            ]
        )
        assert screen.discovery.pass_qc.sum() > 30
        for name, values in data.covariates.items():
            results[0].append({name: values})
    held, stored = results
    for one, other in zip(held[:4], stored, strict=True):
        assert one.allclose(other, rtol=0)
        assert one.provenance is None or one.provenance.inputs == other.provenance.inputs
    values = [(name, array) for part in held[4:] for name, array in part.items()]
    half = len(values) // 2
    for (name, one), (same, other) in zip(values[:half], values[half:], strict=True):
        assert name == same
        np.testing.assert_array_equal(one, other)


def test_a_mudata_on_disk(tmp_path):
    needs_anndata()
    mudata = pytest.importorskip("mudata")
    import anndata
    import pandas as pd

    options, _ = random_screen(seed=6, n_cells=200)
    cells = pd.Index([f"c{i}" for i in range(200)])
    genes = anndata.AnnData(
        options["responses"],
        obs=options["covariates"].set_index(cells),
        var=pd.DataFrame(index=options["response_names"]),
    )
    guides = anndata.AnnData(
        options["guides"],
        obs=pd.DataFrame(index=cells),
        var=options["targets"].set_index("grna_id"),
    )
    with mudata.set_options(pull_on_update=False):
        mudata.MuData({"rna": genes, "guide": guides}).write(tmp_path / "screen.h5mu")
    one, other = (
        read_gene_screen(tmp_path / "screen.h5mu", "high", covariates=["batch"], on_disk=on_disk)
        for on_disk in (False, True)
    )
    assert isinstance(other.responses, gene_counts.StoredCounts)
    assert fingerprint_of_counts(one.responses) == fingerprint_of_counts(other.responses)
    assert (one.guides != other.guides).nnz == 0


def cell_ranger_file(path, options, kinds=("Gene Expression", "CRISPR Guide Capture")):
    """Write the counts of a screen as Cell Ranger does; the last two genes have one name."""
    genes = [*options["response_names"][:-2], "SAME", "SAME"]
    counts = options["responses"], options["guides"]
    return write_cell_ranger(path, *counts, genes, options["guide_names"], kinds=kinds)


def test_a_file_of_cell_ranger(tmp_path, monkeypatch):
    pytest.importorskip("h5py")
    from plait.crt import gene_screen_from_cell_ranger

    monkeypatch.setattr(gene_counts, "_AT_ONCE", 100)
    options, _ = random_screen(seed=8, n_cells=150)
    path = cell_ranger_file(tmp_path / "matrix.h5", options)
    given = (path, "high", options["targets"])
    expected = gene_screen_data(**options)
    for on_disk in (True, False):
        found = gene_screen_from_cell_ranger(
            *given, covariates=options["covariates"], on_disk=on_disk
        )
        assert isinstance(found.responses, gene_counts.StoredCounts) == on_disk
        one, other = (fingerprint_of_counts(data.responses) for data in (found, expected))
        assert one == other
        assert (found.guides != expected.guides).nnz == 0
        n = len(options["response_names"])
        assert found.response_names[-2:].tolist() == [f"ID{n - 2}", f"ID{n - 1}"]
        assert found.cell_names[3] == "cell-3"
        np.testing.assert_array_equal(
            found.covariates["response_n_umis"], expected.covariates["response_n_umis"]
        )
    other = cell_ranger_file(tmp_path / "b.h5", options, ("Gene Expression", "Antibody Capture"))
    with pytest.raises(InputError, match="no features of the type 'CRISPR Guide Capture'; there"):
        gene_screen_from_cell_ranger(other, "high", options["targets"])
    with pytest.raises(LabelError, match=r"does not say what guides target.*'target_gene_name'"):
        gene_screen_from_cell_ranger(path, "high")


def test_a_guide_that_is_called_like_a_gene_leaves_it_its_name(tmp_path):
    pytest.importorskip("h5py")
    options, _ = random_screen(seed=8, n_cells=150)
    guides = ["T0", *options["guide_names"][1:]]
    targets = options["targets"].assign(grna_id=guides)
    counts = options["responses"], options["guides"]
    path = write_cell_ranger(tmp_path / "matrix.h5", *counts, options["response_names"], guides)
    found = read_gene_screen(path, "high", targets=targets)
    assert found.response_names.tolist() == options["response_names"]
    assert found.targets.guides.tolist() == guides
    assert positive_control_pairs(found).targets.tolist() == ["T0"]


def test_what_a_feature_reference_and_barcodes_say(tmp_path):
    pytest.importorskip("h5py")
    options, _ = random_screen(seed=8, n_cells=150)
    expected = gene_screen_data(**options)
    given = options["targets"]["grna_target"].replace({"non-targeting": "Non-Targeting"}).tolist()
    given[1] = "Ignore"
    cells = [f"ACGT{i}-{1 + i % 3}" for i in range(150)]
    counts = options["responses"], options["guides"]
    path = write_cell_ranger(
        tmp_path / "matrix.h5", *counts, options["response_names"], options["guide_names"],
        targets=given, barcodes=cells,
    )  # fmt: skip
    found = read_gene_screen(path, "high", covariates=["gem_well"], on_disk=True)
    assert isinstance(found.responses, gene_counts.StoredCounts)
    kept = np.delete(np.arange(len(given)), 1)
    assert found.targets.guides.tolist() == expected.targets.guides[kept].tolist()
    assert found.targets.targets.tolist() == expected.targets.targets[kept].tolist()
    assert found.targets.is_control.sum() == 6
    assert found.levels["gem_well"] == ("1", "2", "3")
    assert found.covariates["gem_well"].tolist() == [name[-1] for name in cells]
    assert "gem_well" not in read_gene_screen(path, "high").covariates
    with pytest.raises(LabelError, match=r"has no covariate 'batch'; it has 'gem_well'"):
        read_gene_screen(path, "high", covariates=["batch"])
    programs = screen_from_cell_ranger(path)
    assert programs.uns["guide2gene"] == dict(
        zip(found.targets.guides.tolist(), found.targets.targets.tolist(), strict=True)
    )
    assert (programs.obsm["guide_umis"] != options["guides"]).nnz == 0
    np.testing.assert_array_equal(programs.obs["n_umis"], found.covariates["response_n_umis"])
    np.testing.assert_array_equal(programs.obs["n_nonzero"], found.covariates["response_n_nonzero"])
    assert programs.obs["gem_well"].tolist() == found.covariates["gem_well"].tolist()


def test_what_is_no_file_of_cell_ranger(tmp_path):
    h5py = pytest.importorskip("h5py")
    from plait.crt import gene_screen_from_cell_ranger
    from plait.errors import FileFormatError

    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["matrix/data"] = [1]
    (tmp_path / "text.h5").write_text("no")
    for name, said in (
        ("other", "has no group 'matrix' with"),
        ("text", "cannot be read as .h5"),
        ("absent", "there is no file"),
    ):
        with pytest.raises(FileFormatError, match=said):
            gene_screen_from_cell_ranger(tmp_path / f"{name}.h5", "low", {})
