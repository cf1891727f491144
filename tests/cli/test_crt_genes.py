"""``plait crt assign|qc|calibrate|power|discover``: gene-level screens from a file."""

import json

import anndata
import pandas as pd
import polars as pl
import pytest

from plait.cli import crt_genes
from plait.cli.main import main
from plait.simulate import make_count_screen
from tests.cli.pictures import empty_pictures, leave_pictures_empty

__all__ = ["empty_pictures"]  # a fixture


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    place = tmp_path_factory.mktemp("genes") / "screen.h5ad"
    made = make_count_screen(
        N=1500, n_genes=40, K=4, n_targets=8, ntc_frac_guides=0.3, moi="low", depth_mean=3000.0,
        seed=1,
    )  # fmt: skip
    guides = list(made.uns["guide_names"])
    targets = [made.uns["guide2gene"][guide] for guide in guides]
    table = pd.DataFrame({"grna_id": guides, "grna_target": targets})
    made.uns = {
        "grna_target_table": table.replace({"NTC": "non-targeting"}),
        "grna_ids": guides,
    }
    made.obsm["grna_counts"] = made.obsm.pop("guide_umis")
    made.write_h5ad(place)
    return place


@pytest.fixture
def here(screen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "screen.h5ad").symlink_to(screen)
    return tmp_path


def run(*words):
    return main(["crt", *map(str, words)])


GIVEN = ["--h5ad", "screen.h5ad", "--moi", "low", "--covariates", "batch"]


def test_the_examples_run(here, monkeypatch, capsys):
    for name, example in crt_genes.EXAMPLES.items():
        assert main(example.split()[1:]) == 0, example
        assert main(example.split()[1:]) == 2  # it exists
        with monkeypatch.context() as patch:
            leave_pictures_empty(patch)
            assert main([*example.split()[1:], "--overwrite", "--quiet"]) == 0
        capsys.readouterr()
        assert run(name, "--help") == 0
        assert f"Example: {example}" in " ".join(capsys.readouterr().out.split())
    everywhere = {
        "assignment.tsv.gz", "cells.tsv.gz", "summary.txt", "run.json", "guides.png", "cells.png",
        "pairs.png",
    }  # fmt: skip
    for folder, more in (
        ("calibrated", {"calibration.tsv", "calibration.zarr", "fold_changes.png", "qq.png"}),
        ("powered", {"power.tsv", "power.zarr", "power.png", "violins.png"}),
        ("discovered", {"calibration.tsv", "power.tsv", "discovery.tsv", "calibration.zarr",
                        "power.zarr", "discovery.zarr", "fold_changes.png", "power.png",
                        "violins.png", "volcano.png", "report.html", "qq.png"}),
    ):  # fmt: skip
        assert {path.name for path in (here / folder).iterdir()} == everywhere | more
    power = pl.read_csv("powered/power.tsv", separator="\t")
    assert (power["p_value"] < 0.01).mean() > 0.8  # knocked down, as simulated
    record = json.loads((here / "discovered/run.json").read_text())
    assert record["counts"]["pairs"] == 8 * 40


@pytest.mark.usefixtures("empty_pictures")
def test_the_page_of_a_discovery_is_made_anew(here, capsys):
    assert run("discover", *GIVEN, "--out", "found", "--quiet") == 0
    assert run("report", "found", "--out", "again.html", "--title", "Once more") == 0
    assert "written: again.html" in capsys.readouterr().out
    text = (here / "again.html").read_text(encoding="utf-8")
    assert "<h1>Once more</h1>" in text and "groups of non-targeting" in text
    assert run("report", "found", "--out", "x.html", "--level", "0.05") == 2
    assert "--level does nothing with what 'plait crt discover' wrote" in capsys.readouterr().err


@pytest.mark.usefixtures("empty_pictures")
def test_qq_of_a_discovery(here, capsys):
    assert run("discover", *GIVEN, "--out", "found", "--quiet") == 0
    assert run("calibrate", *GIVEN, "--out", "checked", "--quiet") == 0
    assert run("power", *GIVEN, "--out", "powered", "--quiet") == 0
    for folder in ("found", "checked"):
        assert run("qq", folder, "--out", f"{folder}.svg") == 0
        assert f"written: {folder}.svg" in capsys.readouterr().out
    words = {name: (here / f"{name}.svg").read_text("utf-8") for name in ("found", "checked")}
    assert "pairs (" in words["found"] and "pairs (" not in words["checked"]
    assert all("non-targeting guides (" in text for text in words.values())
    assert run("qq", "powered", "--out", "x.png") == 2
    said = capsys.readouterr().err
    assert "'plait crt run --out' or 'plait crt discover --out' wrote" in said


@pytest.mark.usefixtures("empty_pictures")
def test_an_assignment_that_was_written_is_the_one_made_now(here):
    assert run("assign", *GIVEN, "--out", "a.tsv", "--quiet") == 0
    assert run("qc", *GIVEN, "--out", "direct.csv", "--quiet") == 0
    assert run("qc", *GIVEN, "--assignment", "a.tsv", "--out", "later.csv", "--quiet") == 0
    assert pl.read_csv("direct.csv").equals(pl.read_csv("later.csv"))
    assert run("discover", *GIVEN, "--out", "direct", "--quiet") == 0
    assert run("discover", *GIVEN, "--assignment", "a.tsv", "--out", "later", "--quiet") == 0
    one, other = (pl.read_csv(f"{f}/discovery.tsv", separator="\t") for f in ("direct", "later"))
    assert one.equals(other)


def test_pairs_of_a_table_and_near_genes(here, capsys):
    pair = pl.DataFrame({"grna_target": ["gene"], "response_id": ["gene"]})
    pair.write_csv("unknown.csv")
    pair[:0].write_csv("empty.csv")
    pair[["grna_target"]].write_csv("narrow.csv")
    for option in ("--pairs", "--positive-controls"):
        for place, said in (
            ("unknown.csv", "unknown.csv: the pairs have 1 target that the data do not have"),
            ("empty.csv", "empty.csv has no rows below its header"),
            ("narrow.csv", "narrow.csv has no column 'response_id'; it has grna_target"),
        ):
            assert run("discover", *GIVEN, option, place, "--out", "x") == 2
            assert said in capsys.readouterr().err
    assert run("discover", *GIVEN, "--pairs", "all", "--out", "x") == 2
    assert "--pairs is 'all'; give trans, cis, or a table" in capsys.readouterr().err
    assert run("discover", *GIVEN, "--pairs", "cis", "--out", "x") == 2
    assert "--pairs cis needs --gene-positions" in capsys.readouterr().err
    assert run("discover", *GIVEN, "--gene-positions", "unknown.csv", "--out", "x") == 2
    assert "--gene-positions does nothing without --pairs cis" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "tsv.gz", "parquet"])
def test_tables_of_all_formats_are_written_and_read_back(here, ending):
    assert run("assign", *GIVEN, "--out", f"a.{ending}", "--quiet") == 0
    assert run("qc", *GIVEN, "--assignment", f"a.{ending}", "--out", f"q.{ending}", "--quiet") == 0
    assert run("qc", *GIVEN, "--out", "direct.csv", "--quiet") == 0
    separator = "\t" if "tsv" in ending else ","
    whole = ending == "parquet"
    cells = (
        pl.read_parquet("q.parquet") if whole else pl.read_csv(f"q.{ending}", separator=separator)
    )
    assert cells.equals(pl.read_csv("direct.csv"))
    if ending.endswith("gz"):
        assert (here / f"a.{ending}").read_bytes()[:2] == b"\x1f\x8b"


def test_tables_that_are_in_the_way_are_seen_before_the_work(here, capsys):
    (here / "x").mkdir()
    (here / "x/discovery.tsv").write_text("somebody's")
    assert run("discover", *GIVEN, "--out", "x") == 2
    output = capsys.readouterr()
    assert "x/discovery.tsv exists; to replace it use --overwrite" in output.err
    assert output.out == ""


@pytest.mark.usefixtures("empty_pictures")
def test_fewer_pairs_than_asked_for_and_no_positive_controls(here, capsys):
    words = ["--n-pairs", "100000", "--group-size", "1", "--out", "x"]
    assert run("calibrate", *GIVEN, *words) == 0
    assert "fewer than --n-pairs 100,000" in capsys.readouterr().out
    screen = anndata.read_h5ad("screen.h5ad")
    screen.var_names = [f"other {name}" for name in screen.var_names]
    screen.write_h5ad("others.h5ad")
    assert run("power", "--h5ad", "others.h5ad", *GIVEN[2:], "--out", "y") == 2
    assert "others.h5ad: no target is called like a gene" in capsys.readouterr().err


def test_many_guides_in_a_cell_with_low_moi_are_seen(here, capsys):
    screen = anndata.read_h5ad("screen.h5ad")
    several = screen.obsm["grna_counts"].toarray()
    several[: int(0.8 * len(several)), 1:3] = 20
    screen.obsm["grna_counts"] = several
    screen.write_h5ad("several.h5ad")
    assert run("qc", "--h5ad", "several.h5ad", *GIVEN[2:], "--out", "x.csv") == 0
    assert "If cells are meant to have many guides, give --moi high" in capsys.readouterr().err


def test_what_is_wrong_is_said_in_one_line(here, capsys):
    for words, said in (
        (["--guide-counts", "umis"], "no 'umis'"),
        (["--targets", "table"], "no 'table'"),
        (["--covariates", "lane"], "'lane'"),
        (["--control-group", "nt_cells", "--moi", "high"], "--control-group is 'nt_cells'"),
        (["--level", "2"], "--level is 2"),
        (["--assignment", "a.tsv", "--threshold", "3"], "does nothing with --assignment"),
        (["--formula", "~ depth"], "'depth'"),
        (["--formula", "log(batch"], "parentheses that do not match"),
        (["--threshold", "3"], "--threshold does nothing with --assign maximum"),
        (["--assign", "maximum", "--moi", "high"], "--assign maximum finds one guide"),
        (["--min-treated", "0"], "'--min-treated'"),
        (["--max-mito", "3"], "'--max-mito'"),
    ):
        assert run("discover", *GIVEN, *words, "--out", "x") == 2, words
        error = capsys.readouterr().err
        assert said in error, error
        assert not (here / "x").exists()


def test_a_seed_below_0_is_refused(here, capsys):
    assert run("discover", *GIVEN, "--seed", "-1", "--out", "x") == 2
    assert "--seed is -1; give at least 0" in capsys.readouterr().err


@pytest.mark.usefixtures("empty_pictures")
def test_discoveries_come_with_what_their_controls_show(here, capsys):
    assert run("discover", *GIVEN, "--out", "x") == 0
    p = pl.read_csv("x/calibration.tsv", separator="\t")["p_value"].drop_nulls()
    said = f"{(p < 0.05).mean():.1%} of {len(p)} pairs have p < 0.05"
    assert said in capsys.readouterr().out
