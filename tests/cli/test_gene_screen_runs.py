"""Commands for gene-level screens that are killed and repeated; their stores and options."""

import subprocess
import sys

import anndata
import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_matrix

from plait.cli.gene_screen_runs import KEPT_GUIDES, UNFINISHED
from plait.crt import GeneScreen, GeneTestResult
from plait.crt.stored_pairs import open_result
from plait.numerics.multiple_testing import false_discovery_rates
from tests.cli.pictures import empty_pictures
from tests.cli.test_crt_genes import GIVEN, here, run, screen

__all__ = ["empty_pictures", "here", "screen"]  # fixtures

DYING = """
import os, sys
from plait.crt import gene_tests, stored_pairs
gene_tests._LEAST_WORK = 1  # small blocks, so that some are left
region, count = stored_pairs.write_region, []

def dying(*given):
    digest = region(*given)
    count.append(digest)
    if len(count) == int(sys.argv[1]):
        os.kill(os.getpid(), 9)
    return digest

stored_pairs.write_region = dying
from plait.cli.main import main
main(sys.argv[2:])
"""


def tables(folder):
    return {
        path.name: pl.read_csv(path, separator="\t", null_values="NA")
        for path in folder.iterdir()
        if path.suffix == ".tsv"
    }


@pytest.mark.usefixtures("empty_pictures")
@pytest.mark.parametrize("blocks", [4, 70])
def test_a_killed_command_goes_on(here, blocks):
    """Killed during the calibration check, or during what comes after it."""
    words = ["discover", *GIVEN, "--out", "killed", "--quiet", "--threads", "1"]
    command = [sys.executable, "-W", "ignore", "-c", DYING, str(blocks), "crt", *words]
    died = subprocess.run(command, check=False)
    assert died.returncode == -9
    assert not (here / "killed/discovery.zarr").exists()
    assert (here / "killed" / UNFINISHED).exists() == (blocks == 70)
    assert run(*words) == 0
    assert not (here / "killed" / UNFINISHED).exists()
    assert not [path for path in (here / "killed").iterdir() if path.name.startswith(".")]
    assert run("discover", *GIVEN, "--out", "whole", "--quiet") == 0
    one, other = tables(here / "killed"), tables(here / "whole")
    assert one.keys() == other.keys() >= {"calibration.tsv", "power.tsv", "discovery.tsv"}
    assert all(one[name].equals(other[name]) for name in one)
    assert run(*words) == 2  # it is finished now, and not overwritten


@pytest.mark.usefixtures("empty_pictures")
def test_mixtures_of_a_killed_command_are_kept(tmp_path, monkeypatch, capsys):
    from plait.crt.gene_screen import GeneScreen
    from plait.simulate import make_count_screen

    monkeypatch.chdir(tmp_path)
    made = make_count_screen(
        N=500, n_genes=20, K=4, n_targets=4, ntc_frac_guides=0.4, moi="high", depth_mean=2000.0,
        seed=3,
    )  # fmt: skip
    made.write_h5ad("high.h5ad")
    words = ["discover", "--h5ad", "high.h5ad", "--moi", "high", "--out", "x", "--quiet"]
    with monkeypatch.context() as patch:
        patch.setattr(GeneScreen, "run_calibration_check", lambda *_, **__: 1 / 0)
        assert run(*words) == 1
    assert {path.name for path in (tmp_path / "x").iterdir()} == {UNFINISHED, KEPT_GUIDES}
    with monkeypatch.context() as patch:
        patch.setattr(GeneScreen, "assign_guides", lambda *_, **__: 1 / 0)
        assert run(*words, "--threshold", "6") == 1  # which is another mixture's
        assert run(*words) == 0
    capsys.readouterr()
    assert not [path for path in (tmp_path / "x").iterdir() if path.name.startswith(".")]
    words[words.index("x")] = "whole"
    assert run(*words) == 0
    for path in (tmp_path / "whole").iterdir():
        if path.suffix in (".tsv", ".gz", ".txt"):
            assert path.read_bytes() == (tmp_path / "x" / path.name).read_bytes()


@pytest.mark.usefixtures("empty_pictures")
def test_a_command_killed_while_it_writes_keeps_its_tests(here, monkeypatch):
    from plait.crt.gene_screen import GeneScreen

    words = ["calibrate", *GIVEN, "--out", "x", "--quiet"]
    with monkeypatch.context() as patch:
        patch.setattr(GeneScreen, "write_tables", lambda *_, **__: 1 / 0)
        assert run(*words) == 1
    with monkeypatch.context() as patch:
        patch.setattr(GeneScreen, "run_calibration_check", lambda *_, **__: 1 / 0)
        assert run(*words) == 0
    found = GeneTestResult.load("x/calibration.zarr")
    assert tables(here / "x")["calibration.tsv"].height == len(found)


@pytest.mark.usefixtures("empty_pictures")
def test_a_killed_command_does_not_keep_tests_of_other_thresholds(here, monkeypatch):
    from plait.crt.gene_screen import GeneScreen

    words = ["discover", *GIVEN, "--out", "x", "--quiet"]
    with monkeypatch.context() as patch:
        patch.setattr(GeneScreen, "write_tables", lambda *_, **__: 1 / 0)
        assert run(*words) == 1
    before = open_result("x/discovery.zarr")
    fewest = int(np.median(before.n_nonzero_trt))
    assert run(*words, "--min-treated", str(fewest)) == 0
    found = open_result("x/discovery.zarr")
    assert before.pass_qc.sum() > found.pass_qc.sum() > 0
    assert (found.n_nonzero_trt[found.pass_qc] >= fewest).all()


@pytest.mark.usefixtures("empty_pictures")
def test_draws_are_kept(here, capsys):
    assert run("power", *GIVEN, "--keep-draws", "--out", "x") == 2
    assert "--resampling" in capsys.readouterr().err
    words = [*GIVEN, "--resampling", "sceptre_staged", "--keep-draws", "--quiet"]
    assert run("power", *words, "--out", "y") == 0
    found = open_result("y/power.zarr")
    loaded = GeneTestResult.load("y/power.zarr")
    kept = np.isfinite(found.null_draws[:]).sum(axis=1)
    assert set(kept[found.pass_qc].tolist()) <= {499, 4999, 24999}
    assert found.to_frame().equals(loaded.to_frame())
    np.testing.assert_array_equal(found.null_draws[:], loaded.null_draws)


@pytest.mark.usefixtures("empty_pictures")
def test_what_can_be_found_is_written_and_said(here, capsys):
    assert run("discover", *GIVEN, "--detectable", "0.8", "--out", "x") == 0
    said = capsys.readouterr().out
    assert "mean power at a fold change of 0.5" in said
    assert "x/detectable.tsv" in " ".join(said.split())
    table = tables(here / "x")["detectable.tsv"]
    assert table.height == 8 * 40
    assert {"log_2_decrease", "log_2_increase", "power_at_0.5"} <= set(table.columns)
    assert run("discover", *GIVEN, "--detectable", "2", "--out", "z") == 2
    assert "--detectable is 2" in capsys.readouterr().err
    assert run("discover", *GIVEN, "--detectable", ".8", "--strategy", "bonferroni", "--out", "z")
    assert "--strategy singleton" in capsys.readouterr().err
    assert not (here / "z").exists()


@pytest.mark.usefixtures("empty_pictures")
def test_a_screen_on_disk_gives_the_same_tables(here):
    assert run("discover", *GIVEN, "--out", "memory", "--quiet") == 0
    assert run("discover", *GIVEN, "--on-disk", "--out", "disk", "--quiet") == 0
    one, other = tables(here / "memory"), tables(here / "disk")
    assert all(one[name].equals(other[name]) for name in one)


@pytest.mark.usefixtures("empty_pictures")
def test_weights_of_cells(here, capsys):
    words = [*GIVEN[:4], "--weights", "log_depth", "--quiet"]  # of a column that is a covariate too
    assert run("power", *words, "--out", "x") == 0
    found = GeneTestResult.load("x/power.zarr")
    assert found.settings["weights"] == "log_depth"
    assert "log_depth" not in found.settings["formula"]
    assert run("power", *GIVEN, "--weights", "depth", "--out", "y") == 2
    assert "'depth'" in capsys.readouterr().err
    both = ["--covariates", "log_depth", "--weights", "log_depth", "--quiet"]
    assert run("power", *GIVEN[:4], *both, "--out", "z") == 0
    assert run("discover", *GIVEN, *both[2:], "--detectable", "0.5", "--out", "w") == 2
    assert "--detectable is not known with --weights" in capsys.readouterr().err


def test_how_guides_are_assigned_and_cells_chosen(here, capsys):
    """What Python's options do, the commands' do."""
    adata = anndata.read_h5ad(here / "screen.h5ad")
    expected = GeneScreen.from_anndata(adata, "low", covariates=["batch"]).set_parameters()
    names = adata.obs_names[[3, 8]].tolist()
    (here / "away.txt").write_text('"cell"\n' + "".join(f'"{name}"\n' for name in names))
    expected.assign_guides(smallest_share=0.95, smallest_count=12)
    expected.quality_control(umis_quantiles=(0.05, 1.0), nonzero_quantiles=(0.0, 0.9), remove=names)
    options = ["--smallest-share", ".95", "--smallest-count", "12", "--remove", "away.txt"]
    options += ["--umis-quantiles", "0.05,1", "--nonzero-quantiles", "0,0.9"]
    assert run("qc", *GIVEN, *options, "--out", "cells.tsv") == 0
    table = pl.read_csv("cells.tsv", separator="\t")
    assert table["is_used"].to_list() == expected.cells.is_used.tolist()
    assert not table.filter(pl.col("cell").is_in(names))["is_used"].any()
    several = ["--assign", "thresholding", "--keep-with-non-targeting"]
    assert run("qc", *GIVEN, *several, "--out", "kept.tsv") == 0
    capsys.readouterr()
    for words, message in (
        (["--mixture", "legacy"], "--mixture does nothing without --assign mixture"),
        (["--umis-quantiles", "0.1"], "give two numbers, as 0.01,0.99"),
        (["--remove", "nowhere.txt"], "nowhere.txt cannot be read"),
        (
            ["--keep-with-non-targeting"],
            "--keep-with-non-targeting does nothing where guides are assigned by --assign maximum, "
            "which gives a cell one guide; give --assign thresholding or --assign mixture",
        ),
        (
            ["--assign", "thresholding", "--smallest-count", "3"],
            "--smallest-count does nothing without --assign maximum",
        ),
    ):
        assert run("qc", *GIVEN, *words, "--out", "no.tsv") == 2
        assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.usefixtures("empty_pictures")
def test_mixtures_as_in_sceptre_and_false_discovery_rates(here):
    options = ["--assign", "mixture", "--mixture", "legacy"]
    assert run("assign", *GIVEN, *options, "--out", "guides.tsv") == 0
    adata = anndata.read_h5ad(here / "screen.h5ad")
    expected = GeneScreen.from_anndata(adata, "low", covariates=["batch"]).set_parameters()
    expected.assign_guides("mixture", mixture="legacy")
    made = pl.read_csv("guides.tsv", separator="\t")
    assert made["cell"].cast(str).to_list() == expected.assignment.to_frame()["cell"].to_list()
    assert run("discover", *GIVEN, "--fdr", "BY", "--out", "found", "--quiet") == 0
    found = GeneTestResult.load(here / "found/discovery.zarr")
    tested = found.pass_qc
    np.testing.assert_allclose(
        found.q_value[tested], false_discovery_rates(found.p_value[tested], "BY")
    )


def test_the_formula_of_an_assignment_is_that_of_the_background(here, capsys):
    adata = anndata.read_h5ad(here / "screen.h5ad")
    random = np.random.default_rng(1)
    depth = np.exp(2 * adata.obs[["log_depth"]].to_numpy() - 2 * adata.obs["log_depth"].mean())
    few = adata.obsm["grna_counts"].toarray() // 6
    adata.obsm["grna_counts"] = csr_matrix(few + random.poisson(0.5 * depth, few.shape))
    adata.write_h5ad(here / "deep.h5ad")  # deeper cells have more background
    words = ["--h5ad", "deep.h5ad", *GIVEN[2:], "--assign", "mixture", "--formula", "~ batch"]
    assert run("assign", *words, "--out", "guides.tsv", "--quiet") == 0
    screen = GeneScreen.from_anndata(adata, "low", covariates=["batch"]).set_parameters()
    made = pl.read_csv("guides.tsv", separator="\t")
    usual, expected = (
        screen.assign_guides("mixture", formula=formula).assignment.to_frame()
        for formula in (None, "~ batch")
    )
    for name in ("grna_id", "cell"):
        assert made[name].cast(str).to_list() == expected[name].to_list()
    assert len(usual) != len(expected)
    assert run("assign", *GIVEN, "--formula", "~ batch", "--out", "x.tsv") == 2
    assert "--formula does nothing without --assign mixture" in capsys.readouterr().err


def test_one_non_targeting_guide_is_enough_to_discover(here, capsys):
    adata = anndata.read_h5ad(here / "screen.h5ad")
    table = adata.uns["grna_target_table"]
    is_control = table["grna_target"] == "non-targeting"
    adata.uns["grna_target_table"] = table[~is_control | (is_control.cumsum() == 1)]
    adata.write_h5ad(here / "one.h5ad")
    words = ["--h5ad", "one.h5ad", "--moi", "low", "--covariates", "batch"]
    assert run("discover", *words, "--out", "found") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "note: no calibration check, which needs 2 non-targeting guides" in said
    assert not (here / "found/calibration.tsv").exists()
    found = pl.read_csv("found/discovery.tsv", separator="\t")
    assert found["pass_qc"].any() and found["significant"].any()
    assert run("calibrate", *words, "--out", "checked") == 2
    assert "there is 1 non-targeting guide; the calibration check" in capsys.readouterr().err


@pytest.mark.usefixtures("empty_pictures")
def test_a_check_without_groups_to_test_says_so(here, capsys):
    assert run("calibrate", *GIVEN, "--min-treated", "100000", "--out", "x") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "calibration: 0 pairs" in said and "nothing says whether p-values are right" in said
    assert not (here / "x/pairs.png").exists()
    assert run("report", "x", "--out", "page.html") == 2
    assert "neither result.zarr nor discovery.zarr is in it" in capsys.readouterr().err
