import gzip
import logging
from types import SimpleNamespace

import anndata
import mudata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from plait.errors import DependencyError, FileFormatError, InputError, LabelError, OptionError
from plait.io.anndata import (
    get_from_adata_any,
    get_from_uns,
    read_cnmf_usage,
    read_guide_table,
    read_screen,
    screen_from_mudata,
)

CELLS = ["c0", "c1", "c2", "c3"]


def test_containers_are_searched_in_order():
    names = ["obsm", "layers", "obsp", "uns", "obs"]
    containers = {name: {"key": name} for name in names}
    for i, name in enumerate(names):
        kept = {other: containers[other] for other in names[i:]}
        assert get_from_adata_any(SimpleNamespace(**kept), "key") == name
    obs = pd.DataFrame({"key": [1, 2]})
    assert get_from_adata_any(SimpleNamespace(uns=None, obs=obs), "key").tolist() == [1, 2]
    assert get_from_adata_any({"key": 3}, "key") == 3
    assert get_from_uns(SimpleNamespace(), "key") is None


def test_what_is_nowhere():
    screen = SimpleNamespace(obsm={"usage": 1}, uns={})
    with pytest.raises(KeyError) as caught:
        get_from_adata_any(screen, "usages")
    assert str(caught.value) == (
        "there is no 'usages' in this SimpleNamespace; searched obsm, uns and the object itself. "
        "It holds obsm: 'usage'."
    )
    with pytest.raises(LabelError, match="It holds nothing"):
        get_from_adata_any(SimpleNamespace(), "usages")
    # AnnData takes a name of a cell for a request for a part of it.
    adata = anndata.AnnData(obs=pd.DataFrame(index=CELLS))
    with pytest.raises(LabelError, match="no 'c1' in this AnnData"):
        get_from_adata_any(adata, "c1")


@pytest.fixture
def guides():
    return anndata.AnnData(
        csr_matrix(np.array([[1.0, 0, 2], [0, 3, 0], [0, 0, 0], [4, 0, 0]])),
        obs=pd.DataFrame({"lane": list("aabb")}, index=CELLS),
        var=pd.DataFrame({"intended_target_name": ["A", "A", None]}, index=["g0", "g1", "g2"]),
    )


@pytest.fixture
def expression():
    return anndata.AnnData(
        np.ones((4, 2), dtype=np.float32),
        obs=pd.DataFrame({"depth": [3.0, 2.0, 1.0, 0.0]}, index=CELLS[::-1]),
        var=pd.DataFrame(index=["x", "y"]),
        obsm={"cnmf_usage": np.arange(8.0).reshape(4, 2)},
        uns={"program_names": np.array(["p", "q"])},
    )


def multimodal(**parts):
    with mudata.set_options(pull_on_update=False):
        return mudata.MuData(parts)


def test_a_screen_in_two_modalities(tmp_path, guides, expression):
    with mudata.set_options(pull_on_update=False):
        multimodal(rna=expression, guide=guides).write_h5mu(tmp_path / "screen.h5mu")
    screen = read_screen(tmp_path / "screen.h5mu")
    depth = dict(zip(expression.obs_names, expression.obs["depth"], strict=True))
    assert screen.obs["depth"].tolist() == [depth[cell] for cell in screen.obs_names]
    usage = dict(zip(expression.obs_names, expression.obsm["cnmf_usage"].tolist(), strict=True))
    assert screen.obsm["cnmf_usage"].tolist() == [usage[cell] for cell in screen.obs_names]
    carried = dict(zip(guides.obs_names, guides.X.toarray().tolist(), strict=True))
    assert screen.obsm["guide_assignment"].toarray().tolist() == [
        carried[cell] for cell in screen.obs_names
    ]
    assert screen.uns["guide_names"].tolist() == ["g0", "g1", "g2"]
    assert screen.uns["guide2gene"] == {"g0": "A", "g1": "A"}
    assert screen.uns["program_names"].tolist() == ["p", "q"]


def test_logging_of_a_program_is_its_own(tmp_path, guides, expression, monkeypatch):
    with mudata.set_options(pull_on_update=False):
        multimodal(rna=expression, guide=guides).write_h5mu(tmp_path / "screen.h5mu")
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    read_screen(tmp_path / "screen.h5mu")
    assert root.handlers == []


def test_the_layer_of_assigned_guides_comes_before_counts(guides):
    guides.layers["guide_assignment"] = (guides.X > 1).astype(np.int8)
    guides.var = guides.var.rename(columns={"intended_target_name": "who"})
    screen = screen_from_mudata(
        multimodal(library=guides), guide_modality="library", target_column="who"
    )
    assert screen.obsm["guide_assignment"].sum() == 3


def test_modalities_that_do_not_fit(guides, expression):
    with pytest.raises(LabelError, match=r"no modality of guides 'guide' or .* there are 'rna'"):
        screen_from_mudata(multimodal(rna=expression))
    with pytest.raises(LabelError, match="no column of targets 'who'; there are 'intended"):
        screen_from_mudata(multimodal(guide=guides), target_column="who")
    with pytest.raises(InputError, match="1 of 4 cells are not in the modality of guides"):
        screen_from_mudata(multimodal(rna=expression, guide=guides[:3].copy()))


def test_screens_are_opened_without_reading_them(tmp_path, expression):
    expression.write_h5ad(tmp_path / "screen.h5ad")
    screen = read_screen(tmp_path / "screen.h5ad")
    assert screen.isbacked
    screen.file.close()


def test_files_that_are_no_screens(tmp_path, monkeypatch):
    for name in ("screen.h5ad", "screen.h5mu"):
        with pytest.raises(FileFormatError, match="there is no file"):
            read_screen(tmp_path / name)
        (tmp_path / name).write_bytes(b"nothing of the kind" * 100)
        with pytest.raises(FileFormatError, match=f"{name} cannot be read as"):
            read_screen(tmp_path / name)
    with pytest.raises(FileFormatError, match=r"expected .h5ad or .h5mu"):
        read_screen(tmp_path / "screen.loom")
    monkeypatch.setitem(__import__("sys").modules, "mudata", None)
    with pytest.raises(DependencyError, match=r"mudata is not installed.*plait\[singlecell\]"):
        read_screen(tmp_path / "screen.h5mu")


@pytest.fixture
def usages(tmp_path):
    path = tmp_path / "run.usages.k_2.dt_0_1.consensus.txt"
    path.write_text("\t1\t2\nc2\t3.0\t1.0\nc0\t0\t5\nc9\t1\t1\nc1\t1.5\t0.5\n")
    return path


def test_usages_of_cnmf_are_aligned_and_scaled(usages):
    frame = read_cnmf_usage(usages, ["c0", "c1", "c2"])
    assert frame.index.tolist() == ["c0", "c1", "c2"] and frame.columns.tolist() == ["1", "2"]
    np.testing.assert_array_equal(frame, [[0.0, 1.0], [0.75, 0.25], [0.75, 0.25]])
    assert frame.attrs == {"n_programs": 2, "density_threshold": 0.1}


def test_cells_without_usages(usages):
    with pytest.raises(LabelError, match=r"1 of 4 cells are not in .*first: 'c3'.*missing='drop'"):
        read_cnmf_usage(usages, CELLS)
    assert read_cnmf_usage(usages, CELLS, missing="drop").index.tolist() == CELLS[:3]
    assert read_cnmf_usage(usages, CELLS, missing="uniform").loc["c3"].tolist() == [0.5, 0.5]
    # Cells of two lanes may have one barcode: they are not one cell.
    with pytest.raises(LabelError, match="cell 'c0' occurs twice"):
        read_cnmf_usage(usages, ["c0", "c1", "c0"])
    with pytest.raises(LabelError, match="2 of 2 cells"):
        read_cnmf_usage(usages, ["a", "b"], missing="uniform")
    with pytest.raises(OptionError, match="'error', 'drop', 'uniform'"):
        read_cnmf_usage(usages, CELLS, missing="zeros")


@pytest.mark.parametrize(
    ("name", "text", "error", "message"),
    [
        ("run.usages.k_3.dt_2_0.consensus.txt", "\t1\t2\nc0\t1\t1\n", FileFormatError, "says 3"),
        ("u.txt", "\t1\t2\nc0\t1\t1\nc0\t1\t1\n", LabelError, "cell of .*u.txt 'c0' occurs twice"),
        ("u.txt", "\t1\t2\nc0\t1\tx\n", FileFormatError, "program '2' of .* no numbers"),
        ("u.txt", "\t1\t2\nc0\t1\t-1\n", InputError, "program '2' by cell 'c0' .* is -1"),
        ("u.txt", "\t1\t2\nc0\t1\t1\nc1\t1\t\n", InputError, "by cell 'c1' .* is nan"),
        ("u.txt", "\t1\t2\nc0\t0\t0\n", InputError, "cell 'c0' in .* uses no program"),
        ("u.txt", "c0\n", FileFormatError, "expected cells × programs"),
        ("u.txt", "", FileFormatError, "not a table with a header"),
        ("u.txt", None, FileFormatError, "there is no file"),
    ],
)
def test_tables_that_are_no_usages(tmp_path, name, text, error, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(error, match=message):
        read_cnmf_usage(tmp_path / name, ["c0"])


@pytest.mark.parametrize("name", ["guides.csv", "guides.csv.gz", "guides.tsv"])
def test_a_long_table_of_guides(tmp_path, name):
    text = "guide,umis,cell\ng2,3,c1\ng0,1,c0\ng2,4,c1\ng1,9,elsewhere\n"
    if name.endswith(".tsv"):
        text = text.replace(",", "\t")
    open_file = gzip.open if name.endswith(".gz") else open
    with open_file(tmp_path / name, "wt") as file:
        file.write(text)
    assignment, names = read_guide_table(tmp_path / name, CELLS)
    assert names == ["g0", "g1", "g2"]
    np.testing.assert_array_equal(
        assignment.toarray(), [[1, 0, 0], [0, 0, 2], [0, 0, 0], [0, 0, 0]]
    )
    assignment, _ = read_guide_table(tmp_path / name, CELLS, count="umis")
    assert assignment[1, 2] == 7
    with pytest.raises(LabelError, match="no column 'barcode'; it has guide, umis, cell"):
        read_guide_table(tmp_path / name, CELLS, cell="barcode")
    with pytest.raises(LabelError, match="it has 'c1', the data have 'x'"):
        read_guide_table(tmp_path / name, ["x"])
    with pytest.raises(FileFormatError, match=r"column 'guide' of .* no numbers"):
        read_guide_table(tmp_path / name, CELLS, count="guide")
    with pytest.raises(LabelError, match="cell 'c0' occurs twice"):
        read_guide_table(tmp_path / name, ["c0", "c0"])


def test_a_row_without_a_guide(tmp_path):
    (tmp_path / "guides.csv").write_text("cell,guide\nc0,g0\nc1,\n")
    with pytest.raises(FileFormatError, match=r"line 3 of .* has no 'guide'"):
        read_guide_table(tmp_path / "guides.csv", CELLS)
