"""Files made for tests of programs and files made for tests of genes serve both commands."""

import json
import warnings

import anndata
import numpy as np
import pandas as pd
import polars as pl
import pytest

from plait.cli.main import main
from plait.simulate import make_count_screen
from tests.cli.pictures import empty_pictures, leave_pictures_empty
from tests.crt.gene_cases import write_cell_ranger

__all__ = ["empty_pictures"]  # a fixture
pytestmark = pytest.mark.filterwarnings("ignore:covariates left out")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One screen: guides assigned, with a mapping; and counted, with a table."""
    place = tmp_path_factory.mktemp("layouts")
    made = make_count_screen(
        N=900, n_genes=25, K=4, n_targets=6, ntc_frac_guides=0.3, moi="low", depth_mean=3000.0,
        seed=2,
    )  # fmt: skip
    umis, names = made.obsm["guide_umis"], list(made.uns["guide_names"])
    targets = made.uns["guide2gene"]
    del made.obsm["guide_umis"]
    made.obsm["guide_assignment"] = (umis >= 5).astype(np.int8)
    made.uns = {"guide_names": names, "guide2gene": targets}
    made.write_h5ad(place / "programs.h5ad")
    del made.obsm["guide_assignment"]
    made.obsm["grna_counts"] = umis
    table = pd.DataFrame({"grna_id": names, "grna_target": [targets[name] for name in names]})
    made.uns = {
        "grna_ids": names, "grna_target_table": table.replace({"NTC": "non-targeting"}),
    }  # fmt: skip
    made.write_h5ad(place / "genes.h5ad")
    return place


@pytest.fixture
def here(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file in files.iterdir():
        (tmp_path / file.name).symlink_to(file)
    return tmp_path


def run(*words):
    return main(["crt", *map(str, words)])


def test_programs_from_either_file(here, capsys):
    assert run("run", "--h5ad", "programs.h5ad", "--out", "assigned") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "note: usage of programs: obsm['usage']; covariates: obsm['covar']; guides of cells: "
        "obsm['guide_assignment']; names of guides: uns['guide_names']; targets of guides: "
        "uns['guide2gene']"
    ) in said
    assert run("run", "--h5ad", "genes.h5ad", "--out", "counted") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "guides of cells: obsm['grna_counts']; names of guides: uns['grna_ids']" in said
    assert "a guide is taken for present from 5 counts on" in said
    one, other = (pl.read_parquet(f"{name}/effects.parquet") for name in ("assigned", "counted"))
    one = one.with_columns(pl.col("unit").replace({"NTC": "non-targeting"}))
    order = ["unit", "program"]
    for name in ("beta", "n_treated"):
        assert one.sort(order)[name].equals(other.sort(order)[name])
    assert run("run", "--h5ad", "genes.h5ad", "--guides", "grna_counts", "--out", "any") == 0
    assert "anything but 0 is taken for a guide" in " ".join(capsys.readouterr().out.split())


@pytest.mark.usefixtures("empty_pictures")
def test_genes_from_either_file(here, capsys):
    words = ["--moi", "low", "--covariates", "batch"]
    assert run("discover", "--h5ad", "programs.h5ad", *words, "--out", "assigned") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "note: guides of cells: obsm['guide_assignment']" in said
    assert "guides of cells are zeros and ones: taken as assigned, not as counts" in said
    assert "no guide is 'non-targeting': those of 'NTC' are taken for it" in said
    counted = ["--h5ad", "genes.h5ad", *words, "--assign", "thresholding"]
    assert run("discover", *counted, "--out", "counted") == 0
    assert "targets of guides: uns['grna_target_table']" in " ".join(
        capsys.readouterr().out.split()
    )
    for name in ("discovery", "calibration", "power"):
        one, other = (
            pl.read_csv(f"{place}/{name}.tsv", separator="\t") for place in ("assigned", "counted")
        )
        assert one.equals(other)


@pytest.mark.usefixtures("empty_pictures")
def test_modalities_serve_both(here, capsys):
    mudata = pytest.importorskip("mudata")
    screen = anndata.read_h5ad("genes.h5ad")
    table = screen.uns.pop("grna_target_table")
    var = table.set_index("grna_id").rename(columns={"grna_target": "intended_target_name"})
    umis = screen.obsm.pop("grna_counts")
    with warnings.catch_warnings(), mudata.set_options(pull_on_update=False):
        warnings.simplefilter("ignore")
        for name, about, uns in (
            ("column", var, {}),
            ("uns", var[[]], {"grna_target_table": table}),
        ):
            guides = anndata.AnnData(umis, obs=screen.obs[[]], var=about)
            both = mudata.MuData({"rna": screen, "guide": guides})
            both.uns = uns
            both.write_h5mu(f"{name}.h5mu")
    for name in ("column", "uns"):
        given = ["--h5ad", f"{name}.h5mu"]
        assert run("run", *given, "--out", f"{name}-run") == 0
        assert "from 5 counts on" in " ".join(capsys.readouterr().out.split())
        words = [*given, "--moi", "low", "--covariates", "batch"]
        assert run("discover", *words, "--out", name) == 0
        capsys.readouterr()
    one, other = (
        pl.read_csv(f"{name}/discovery.tsv", separator="\t") for name in ("column", "uns")
    )
    assert one.equals(other) and (one["p_value"] < 1e-3).any()
    assert run("discover", *words, "--guide-counts", "grna", "--out", "x") == 2
    assert "--guide-counts does nothing with an .h5mu" in capsys.readouterr().err


@pytest.mark.usefixtures("empty_pictures")
def test_a_mapping_as_json_serves_all(here, capsys):
    """Some files can hold no mapping but text; `prepare_crt_inputs` takes it, too."""
    mudata = pytest.importorskip("mudata")
    screen = anndata.read_h5ad("programs.h5ad")
    targets = screen.uns.pop("guide2gene")
    screen.uns["guide2gene_json"] = json.dumps(targets)
    screen.write_h5ad("json.h5ad")
    guides = anndata.AnnData(
        screen.obsm["guide_assignment"],
        obs=screen.obs[[]],
        var=pd.DataFrame(index=screen.uns["guide_names"]),
        uns={"guide2gene_json": screen.uns.pop("guide2gene_json")},
    )
    with warnings.catch_warnings(), mudata.set_options(pull_on_update=False):
        warnings.simplefilter("ignore")
        mudata.MuData({"rna": screen, "guide": guides}).write_h5mu("json.h5mu")
    words = ["--moi", "low", "--covariates", "batch"]
    found = {}
    for name, where in (
        ("programs.h5ad", "uns['guide2gene']"),
        ("json.h5ad", "uns['guide2gene_json']"),
        ("json.h5mu", "'guide2gene_json' in uns of the guides"),
    ):
        out = name.replace(".", "-")
        assert run("power", "--h5ad", name, *words, "--out", out) == 0
        assert f"targets of guides: {where}" in " ".join(capsys.readouterr().out.split())
        assert run("run", "--h5ad", name, "--out", f"{out}-programs") == 0
        capsys.readouterr()
        found[name] = (
            (here / out / "power.tsv").read_bytes(),
            pl.read_parquet(here / f"{out}-programs" / "effects.parquet"),
        )
    expected = found.pop("programs.h5ad")
    for table, effects in found.values():
        assert table == expected[0]
        assert effects.equals(expected[1])


def test_a_file_of_cell_ranger_serves_both(here, monkeypatch, capsys):
    pytest.importorskip("h5py")
    screen = anndata.read_h5ad("genes.h5ad")
    table = screen.uns["grna_target_table"]
    wells = screen.obs["batch"].astype("category").cat.codes.to_numpy() + 1
    screen.obs["gem_well"] = wells.astype(str)
    screen.obs_names = [f"ACGT{i}-{well}" for i, well in enumerate(wells)]
    screen.obs["n_umis"] = screen.X.sum(axis=1)
    screen.write_h5ad("same.h5ad")
    counts = screen.X, screen.obsm["grna_counts"], screen.var_names, table["grna_id"]
    named = {"barcodes": screen.obs_names}
    write_cell_ranger("plain.h5", *counts, **named)
    capitals = table["grna_target"].replace({"non-targeting": "Non-Targeting"})
    write_cell_ranger("matrix.h5", *counts, targets=capitals, **named)
    table.to_csv("targets.tsv", sep="\t", index=False)
    usage = pd.DataFrame(screen.obsm["usage"], index=screen.obs_names)
    usage.to_csv("x.usages.k_4.dt_0_1.consensus.txt", sep="\t")
    programs = ["--usage", "x.usages.k_4.dt_0_1.consensus.txt"]
    programs += ["--covariates", "gem_well,log(n_umis)"]
    genes = ["--moi", "low", "--covariates", "gem_well"]
    found = []
    for name, more in (
        ("same.h5ad", []),
        ("matrix.h5", []),
        ("plain.h5", ["--targets", "targets.tsv"]),
    ):
        out = name.replace(".", "-")
        assert run("run", "--h5ad", name, *programs, *more, "--out", f"{out}-run") == 0
        assert "5 counts on" in " ".join(capsys.readouterr().out.split())
        disk = ["--on-disk"] if more else []
        with monkeypatch.context() as patch:
            if name != "plain.h5":  # once they are drawn from a file of Cell Ranger on disk
                leave_pictures_empty(patch)
            assert run("discover", "--h5ad", name, *genes, *more, *disk, "--out", out) == 0
        capsys.readouterr()
        effects = pl.read_parquet(f"{out}-run/effects.parquet").sort("unit", "program")
        found.append((effects, (here / out / "discovery.tsv").read_bytes()))
    for effects, discovered in found[1:]:
        assert effects.equals(found[0][0])
        assert discovered == found[0][1]
    for words, said in (
        (["plain.h5"], "plain.h5: the file does not say what guides target"),
        (["matrix.h5", "--targets", "guide2gene"], "there is no file guide2gene, which --targets"),
        (["matrix.h5", "--layer", "x"], "--layer does nothing with Cell Ranger's .h5"),
        (["matrix.h5", "--covariates", "batch"], "has no covariate 'batch'; it has 'gem_well'"),
    ):
        assert run("qc", "--moi", "low", "--h5ad", *words, "--out", "cells.tsv") == 2
        assert said in " ".join(capsys.readouterr().err.split())
    words = ["--h5ad", "matrix.h5", *programs, "--out", "x", "--write-h5ad", "y.h5ad"]
    assert run("run", *words) == 2
    assert "--write-h5ad does nothing with matrix.h5, which is no" in capsys.readouterr().err


def without(source, target, **parts):
    screen = anndata.read_h5ad(source)
    for slot, keys in parts.items():
        for key in keys:
            del getattr(screen, slot)[key]
    screen.write_h5ad(target)


def test_all_that_is_missing_is_named_with_what_there_is(here, capsys):
    without("programs.h5ad", "bare.h5ad", obsm=["guide_assignment", "covar"], uns=["guide2gene"])
    assert run("run", "--h5ad", "bare.h5ad", "--out", "x") == 2
    error = capsys.readouterr().err
    assert error == (
        "plait: error: bare.h5ad: there is no 'covar' for covariates (--covar KEY), no "
        "'guide_assignment' or 'grna_counts' or 'guide_umis' for guides of cells (--guides KEY), "
        "no 'guide2gene' or 'grna_target_table' or 'guide2gene_json' for targets of guides "
        "(--targets KEY); there are obsm: 'usage'; layers: nothing; uns: 'guide_names'. Say with "
        "KEY where it is. Covariates can be columns of obs instead, as in --covariates "
        "'batch,log_depth'; there are batch, log_depth.\n"
    )
    without("programs.h5ad", "counts_alone.h5ad", obsm=["usage"])
    assert run("run", "--h5ad", "counts_alone.h5ad", "--out", "x") == 2
    error = capsys.readouterr().err
    assert "is tested gene by gene: plait crt discover" in error and "--covariates" not in error
    assert run("discover", "--h5ad", "bare.h5ad", "--moi", "low", "--out", "x") == 2
    error = capsys.readouterr().err
    assert "no 'grna_counts' or 'guide_umis' or 'guide_assignment' for guides of cells (" in error
    assert "(--guide-counts KEY)" in error and "(--targets KEY)" in error
    assert not (here / "x").exists()


def test_tables_of_targets_and_names_that_do_not_fit(here, capsys):
    screen = anndata.read_h5ad("genes.h5ad")
    table = screen.uns["grna_target_table"]
    screen.uns["few"] = table[["grna_id"]]
    screen.uns["twice"] = pd.concat([table, table[:1]]).reset_index(drop=True)
    screen.uns["text"] = "no JSON"
    screen.uns["others"] = {"guide": "gene"}
    screen.obsm["framed"] = pd.DataFrame(
        screen.obsm["grna_counts"].toarray(), index=screen.obs_names, columns=table["grna_id"]
    )
    screen.write_h5ad("odd.h5ad")
    for words, said in (
        (["--targets", "few"], "column 'grna_target'"),
        (["--targets", "twice"], "guide"),
        (["--targets", "text"], "is text but not JSON"),
        (["--targets", "others"], "no target has a guide"),
        (["--guide-names", "names"], "no 'names' for names of guides (--guide-names KEY)"),
    ):
        for command in (["run"], ["discover", "--moi", "low"]):
            assert run(*command, "--h5ad", "odd.h5ad", *words, "--out", "x") == 2, words
            error = capsys.readouterr().err
            assert said in error and "odd.h5ad: " in error
    for words in (
        ["run", "--guides", "framed"],
        ["discover", "--moi", "low", "--guide-counts", "framed"],
    ):
        assert run(*words, "--h5ad", "odd.h5ad", "--guide-names", "grna_ids", "--out", "x") == 2
        assert "--guide-names grna_ids does nothing: obsm['framed'] is a table" in (
            capsys.readouterr().err
        )
