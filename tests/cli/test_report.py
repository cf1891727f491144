"""``plait report`` from a fit to a page, and every way in which it must refuse."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from plait import mash as pm
from plait.cli.main import app, main
from plait.io.plink import write_bed
from plait.simulate import cohort
from tests.report.results import make_result

runner = CliRunner()


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    sim = pm.simple_sims(300, 4, 0.6, seed=1)
    np.save(folder / "b.npy", sim["Bhat"])
    np.save(folder / "s.npy", sim["Shat"])
    command = f"mash fit --bhat {folder}/b.npy --shat {folder}/s.npy --quiet"
    assert main([*command.split(), "--out", str(folder / "r")]) == 0
    assert main([*command.split(), "--out", str(folder / "r.zarr")]) == 0
    return folder


@pytest.fixture
def folder(fitted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("r.npz", "r.json", "r.zarr"):
        (tmp_path / name).symlink_to(fitted / name)
    return tmp_path


@pytest.mark.parametrize("result", ["r.npz", "r", "r.zarr"])
def test_a_page(folder, result, capsys):
    assert main(["report", result, "-o", "p.html"]) == 0
    said = capsys.readouterr().out
    assert "of 1,200 effects" in said
    assert "least one of 4 contexts" in said
    assert re.search(r"written: p.html \(\d\.\d MB", said)
    text = (folder / "p.html").read_text(encoding="utf-8")
    assert "<title>Effects across contexts: r</title>" in text
    assert "Dual gap" in text
    assert "Convergence not recorded" not in text


@pytest.mark.filterwarnings("ignore:only .* effects for the principal components")
def test_a_page_of_a_study(tmp_path, monkeypatch, capsys):
    """The folder, or the store in it: the same page as the study's own, with its scan and fit."""
    monkeypatch.chdir(tmp_path)
    people = cohort(n_samples=300, n_variants=1000, n_causal=4, seed=3)
    write_bed("g.bed", people.blocks(), people.variants, people.samples)
    columns = dict(zip(people.traits.names, people.traits.values.T, strict=True))
    pl.DataFrame({"IID": people.samples.tolist()} | columns).write_csv("y.csv")
    line = "gwas-to-mash --geno g.bed --pheno y.csv --out mine --quiet"
    assert main(line.split()) == 0
    for result, page in (("mine", "a.html"), ("mine/", "b.html"), ("mine/result.zarr", "c.html")):
        capsys.readouterr()
        assert main(["report", result, "-o", page]) == 0
        said = capsys.readouterr().out
        assert "scan" in said and "no patterns were learned: " in said
        text = Path(page).read_text(encoding="utf-8")
        assert "<title>Effects across contexts: mine</title>" in text
        for words in ('data-figure="manhattan"', 'data-figure="qq"', "Converged"):
            assert words in text
    assert main(["mash", "significant", "mine", "--quiet", "--out", "s.csv"]) == 0
    own = pl.read_csv("mine/significant.csv").select("effect", "condition", "lfsr")
    assert pl.read_csv("s.csv").select(own.columns).height == own.height
    (tmp_path / "mine/result.zarr").rename(tmp_path / "elsewhere.zarr")
    for command in (["report", "mine", "-o", "d.html"], ["mash", "significant", "mine"]):
        assert main(command) == 2
        assert "mine is a folder in which there is no result.zarr" in capsys.readouterr().err


def test_without_the_description(folder, capsys):
    (folder / "r.json").unlink()
    assert main(["report", "r.npz", "-o", "p.html"]) == 0
    assert "Convergence not recorded" in (folder / "p.html").read_text(encoding="utf-8")
    (folder / "r.json").write_text("{ damaged")
    assert main(["report", "r.npz", "-o", "q.html", "--quiet"]) == 0
    (folder / "r.json").write_text(json.dumps({"something": "else"}))
    assert main(["report", "r.npz", "-o", "s.html", "--quiet"]) == 0


def test_title_level_and_quiet(folder, capsys):
    given = ["report", "r.npz", "-o", "p.html", "--title", "A <b>study</b>", "--level", "0.001"]
    assert main([*given, "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
    text = (folder / "p.html").read_text(encoding="utf-8")
    assert "<title>A &lt;b&gt;study&lt;/b&gt;</title>" in text
    assert "lfsr&nbsp;&lt;&nbsp;0.001" in text or "lfsr\u00a0&lt;\u00a00.001" in text


def test_existing_pages_are_kept(folder, capsys):
    (folder / "p.html").write_text("mine")
    assert main(["report", "r.npz", "-o", "p.html"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (folder / "p.html").read_text() == "mine"
    assert main(["report", "r.npz", "-o", "p.html", "--overwrite", "--quiet"]) == 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("report absent.npz -o p.html", "absent.npz does not exist"),
        ("report r.npz -o p.pdf", "must end in .html"),
        ("report r.npz -o no/p.html", "does not exist"),
        ("report r.npz -o p.html --level 2", "between 0 and 1"),
        ("report r.npz", "--out"),
        ("report", "RESULT"),
    ],
)
def test_refusals_are_one_line(folder, capsys, given, words):
    assert main(given.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("plait: error: ")
    assert len(error.strip().splitlines()) == 1
    assert words in error
    assert not list(folder.glob("p.*"))


def test_outputs_are_checked_first(folder):
    done = runner.invoke(app, ["report", "absent.npz", "-o", "no/p.html"])
    assert done.exit_code == 2
    assert "absent.npz" not in done.stderr


def test_no_posterior(folder, capsys):
    make_result(50, 3, posterior_mean=None).save("w.zarr")
    assert main(["report", "w.zarr", "-o", "p.html"]) == 2
    assert "posterior" in capsys.readouterr().err


def test_one_context_at_a_time(folder, fitted, capsys):
    tables = f"--bhat {fitted}/b.npy --shat {fitted}/s.npy"
    assert main(f"mash onebyone {tables} --out one --quiet".split()) == 0
    assert main(["report", "one.npz", "-o", "p.html"]) == 0
    assert "one context at a time" in capsys.readouterr().out


def test_help():
    shown = runner.invoke(app, ["report", "--help"], env={"COLUMNS": "160"})
    assert shown.exit_code == 0
    for words in ("Example: plait report demo/tables/results.npz -o report.html", "docs/report.md",
                  "--title", "--level", "--overwrite", "--quiet", "--debug"):  # fmt: skip
        assert words in shown.output
    assert "plait report" in runner.invoke(app, []).output


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from plait.cli.main import main; main(['report', '--help']); "
        "heavy = {'numpy', 'numba', 'plotly', 'jinja2', 'polars', 'plait.report'}; "
        "print('LOADED', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "LOADED []" in done.stdout
