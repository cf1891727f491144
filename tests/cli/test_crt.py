"""``plait crt run|report|qq``: from a file to results, a page and pictures."""

import json
import subprocess
import sys

import anndata
import numpy as np
import polars as pl
import pytest

from plait.cli import crt as commands
from plait.cli import crt_diagnose, crt_show
from plait.cli.main import main
from plait.crt import CRTResult
from plait.io import read_effects
from plait.simulate.screen import make_sceptre_style_synth

GIVEN = ["--usage", "usage", "--covar", "covar"]
pytestmark = pytest.mark.filterwarnings("ignore:covariates left out")


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    place = tmp_path_factory.mktemp("screen") / "screen.h5ad"
    made = make_sceptre_style_synth(
        N=1500, K=5, n_target_genes=24, ntc_frac_guides=0.4, effect_size=0.8,
        sprinkle_near_zero_frac=0.0, seed=3,
    )  # fmt: skip
    made.obs["lane"] = np.where(np.arange(1500) % 3 == 0, "a", "b")
    made.obs["umis"] = np.random.default_rng(0).integers(0, 9000, 1500)
    made.uns = {key: made.uns[key] for key in ("guide_names", "guide2gene")}
    made.write_h5ad(place)
    return place


@pytest.fixture
def ran(screen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "screen.h5ad").symlink_to(screen)
    return tmp_path


def run(*words):
    return main(["crt", *map(str, words)])


def test_the_examples_run(ran, capsys):
    for name, example in (
        ("run", commands.EXAMPLE),
        ("report", crt_show.REPORT_EXAMPLE),
        ("qq", crt_show.QQ_EXAMPLE),
        ("diagnose", crt_diagnose.EXAMPLE),
    ):
        assert main(example.split()[1:]) == 0, example
        capsys.readouterr()
        assert run(name, "--help") == 0
        assert f"Example: {example}" in " ".join(capsys.readouterr().out.split())
    assert {path.name for path in (ran / "screened").iterdir()} == set(commands.FILES)
    assert (ran / "screen.html").stat().st_size > 1e5
    for name in ("qq.png", "diagnosed/fit.png"):
        assert (ran / name).stat().st_size > 1e4
    assert pl.read_csv(ran / "diagnosed/diagnostics_units.csv").height == 77


def test_what_is_written(ran, capsys):
    assert run("run", "--h5ad", "screen.h5ad", *GIVEN, "--out", "x", "--write-h5ad", "y.h5ad") == 0
    said = capsys.readouterr().out
    assert "1,500 cells, 240 guides of 25 targets, 5 programs" in said
    assert "significant at a false discovery rate of 0.1" in said
    result = CRTResult.load("x/result.zarr")
    table = pl.read_parquet("x/effects.parquet")
    assert table.shape[0] == 25 * 5
    np.testing.assert_array_equal(table["beta"], result.beta.ravel())
    np.testing.assert_array_equal(table["n_treated"][::5], result.n_treated)
    effects = read_effects("x/effects.zarr")
    assert list(effects.effects) == [name for name in result.units if name != "NTC"]
    np.testing.assert_array_equal(effects.bhat, result.beta[~result.is_control])
    back = anndata.read_h5ad("y.h5ad")
    np.testing.assert_array_equal(back.uns["crt_union_gene_program_pvals"], result.p)
    assert set(back.uns["guide2gene"]) == set(back.uns["guide_names"])
    stored = back.uns["crt_union_gene_program_table"]
    np.testing.assert_array_equal(stored["log10p"], result.log10p.ravel())
    assert set(stored["status"]) == {"ok"} and stored["q"].notna().any()
    record = json.loads((ran / "x/run.json").read_text())
    assert record["counts"]["perturbations"] == 25
    assert record["options"]["method"] == "analytic"
    assert record["dropped_covariates"] == ["covar_0"]


def test_covariates_are_columns_of_obs(ran, capsys):
    words = ["run", "--h5ad", "screen.h5ad", "--usage", "usage", "--sampler", "stratified"]
    words += ["--batch", "lane", "--method", "empirical", "--resamples", "99"]
    ranked = ["--covariates", "lane,log(umis)", "--statistic", "utest", "--out", "ranked"]
    assert run(*words, *ranked) == 0
    assert CRTResult.load("ranked/result.zarr").settings["ranks"]["use"] == "residual"
    capsys.readouterr()
    assert run(*words, "--covariates", "lane, log(umis)", "--out", "x") == 0
    assert "3 columns of covariates" in capsys.readouterr().out
    assert CRTResult.load("x/result.zarr").settings["strata"]["batch_key"] == "lane"
    assert run(*words, "--covariates", "lane,depth", "--out", "y") == 2
    assert "no column 'depth' in obs for --covariates; there are 'lane', 'umis'. Name one" in (
        capsys.readouterr().err
    )
    assert run(*words, "--covariates", "lane,log(n_umis)", "--out", "y") == 2
    assert (
        "no column 'n_umis' in obs for --covariates, which names log(n_umis); near it: 'umis'; "
        "there are 'lane', 'umis'. Name one of these, by itself or as log(NAME), or leave it out."
    ) in capsys.readouterr().err
    assert run(*words, "--covariates", "log(lane)", "--out", "y") == 2
    assert "column 'lane' of obs holds others, such as" in capsys.readouterr().err
    assert run(*words, "--covar", "nothing", "--out", "y") == 2
    assert "as in --covariates 'lane,log(umis)'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.nan, "column 'umis' of obs is missing in 2 cells (first: "),
        (-1.0, "column 'umis' of obs is negative in 2 cells (first: "),
    ],
)
def test_a_covariate_without_a_logarithm_says_where(ran, capsys, value, said):
    adata = anndata.read_h5ad("screen.h5ad")
    adata.obs["umis"] = np.where(np.isin(np.arange(1500), [7, 11]), value, 5.0)
    adata.obs["share"] = np.linspace(0, 1, 1500)
    adata.write_h5ad("holes.h5ad")
    words = ["run", "--h5ad", "holes.h5ad", "--usage", "usage", "--out", "y"]
    assert run(*words, "--covariates", "lane,log(umis)") == 2
    error = capsys.readouterr().err
    assert "holes.h5ad: log(umis) of --covariates needs numbers of 0 or more" in error
    assert f"{said}{str(adata.obs_names[7])!r})" in error and "fill it in" in error
    assert run(*words, "--covar", "nothing") == 2
    assert "as in --covariates 'lane,umis,share'" in capsys.readouterr().err


def test_numbers_that_become_groups_are_said_and_can_stay_numbers(ran, capsys):
    adata = anndata.read_h5ad("screen.h5ad")
    adata.obs["day"] = np.arange(1500) % 7
    adata.write_h5ad("days.h5ad")
    words = ["run", "--h5ad", "days.h5ad", "--usage", "usage", "--covariates", "lane,day"]
    assert run(*words, "--out", "x") == 0
    said = capsys.readouterr()
    assert "8 columns of covariates" in said.out
    assert "warning: numeric covariates" in said.err and "day (7 values)" in said.err
    assert "numbers that are taken as categories" in (ran / "x/report.html").read_text()
    assert run(*words, "--numeric-as-category", "0", "--out", "y") == 0
    said = capsys.readouterr()
    assert "3 columns of covariates" in said.out and "categories" not in said.err


def test_against_negative_controls(ran, capsys):
    words = ["run", "--h5ad", "screen.h5ad", "--usage", "usage", "--null", "ntc-empirical"]
    words += ["--covariates", "lane,log(umis)", "--batch", "lane", "--out", "x"]
    assert run(*words) == 0
    result = CRTResult.load("x/result.zarr")
    assert set(result.p_method.ravel()) == {"controls"}
    assert result.settings["method"] == "ntc-empirical"
    assert not (ran / "x/controls.zarr").exists()
    about = result.settings
    assert (about["control_guides"], about["guides_per_unit"]) == (96, 6)
    assert 0.0 < about["smallest_p"] <= result.p.min()
    assert run(*words[:-1], "y", "--method", "adaptive") == 2
    assert "--method does nothing with --null ntc-empirical" in capsys.readouterr().err


def test_what_is_wrong_is_said_in_one_line(ran, capsys):
    for words, said in (
        (["--h5ad", "none.h5ad", "--out", "x"], "none.h5ad"),
        (["--h5ad", "screen.h5ad", "--out", "x", "--usage", "cnmf_usage"], "no 'cnmf_usage'"),
        (["--h5ad", "screen.h5ad", *GIVEN, "--out", "x", "--targets", "genes"], "no 'genes'"),
        (["--h5ad", "screen.h5ad", *GIVEN, "--out", "x", "--exclude", "TP53"], "TP53"),
        (["--h5ad", "screen.h5ad", *GIVEN, "--out", "x", "--resamples", "9"], "--resamples does"),
        (["--h5ad", "screen.h5ad", *GIVEN, "--out", "x", "--eps", "-1"], "--eps is -1"),
        (["--h5ad", "screen.h5ad", *GIVEN, "--out", "x", "--level", "0"], "--level is 0"),
        (["--h5ad", "screen.h5ad", *GIVEN, "--out", "x", "--batch", "lane"], "--batch does noth"),
        (
            [
                "--h5ad",
                "screen.h5ad",
                *GIVEN,
                "--out",
                "x",
                "--batch",
                "b",
                "--sampler",
                "stratified",
            ],
            "no covariate or column of obs 'b', which --batch names; there are",
        ),
        (
            ["--h5ad", "screen.h5ad", "--usage", "none.txt", "--out", "x"],
            "there is no file none.txt",
        ),
        (
            ["--h5ad", "screen.h5ad", *GIVEN, "--covariates", "lane", "--out", "x"],
            "--covar does nothing with --covariates",
        ),
    ):
        assert run("run", *words) == 2
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error
    (ran / "cut.h5ad").write_bytes((ran / "screen.h5ad").read_bytes()[:5000])
    assert run("run", "--h5ad", "cut.h5ad", *GIVEN, "--out", "x") == 2
    assert "cut.h5ad cannot be read as .h5ad" in capsys.readouterr().err
    assert run("report", ran, "--out", "page.html") == 2
    assert "not the folder of a tested screen" in capsys.readouterr().err


def written_with(name, targets=None, guides=None):
    """Write the screen with other targets of guides, or other guides of cells."""
    screen = anndata.read_h5ad("screen.h5ad")
    if targets is not None:
        screen.uns["guide2gene"] = {g: targets(t) for g, t in screen.uns["guide2gene"].items()}
    if guides is not None:
        screen.obsm["guide_assignment"] = guides * screen.obsm["guide_assignment"]
    screen.write_h5ad(name)


@pytest.mark.parametrize("more", [[], ["--sampler", "stratified", "--batch", "lane"]])
def test_screens_with_nothing_to_show_are_written_without_a_page(ran, capsys, more):
    written_with("controls.h5ad", targets=lambda _: "NTC")
    written_with("empty.h5ad", guides=0)
    for name, said, files in (
        ("controls", "There is no page: every target is a negative control.", set()),
        ("empty", "There is no page: nothing was tested.", {"controls.zarr"}),
    ):
        assert run("run", "--h5ad", f"{name}.h5ad", *GIVEN, "--out", name, *more) == 0
        out = capsys.readouterr().out
        assert said in out
        files = files | {"result.zarr", "effects.parquet", "run.json"}
        assert {path.name for path in (ran / name).iterdir()} == files
    assert "not tested (p = 1): 25 perturbations (no cell is treated: " in out
    assert (CRTResult.load("empty/result.zarr").p == 1.0).all()


def test_controls_are_checked_before_anything_is_tested(ran, capsys):
    written_with("none.h5ad", targets=lambda target: "OTHER" if target == "NTC" else target)
    for words, said in (
        (
            ["none.h5ad", "--null", "ntc-empirical"],
            "the negative controls NTC, SAFE, non-targeting, safe-targeting have 0 guides",
        ),
        (["screen.h5ad", "--controls", "NTC,NCT"], "no guide targets 'NCT', which --controls"),
        (["screen.h5ad", "--exclude", "TP53"], "no guide targets 'TP53', which --exclude names"),
    ):
        assert run("run", "--h5ad", *words, *GIVEN, "--out", "x") == 2
        assert said in capsys.readouterr().err
        assert not (ran / "x").exists()


def test_a_folder_is_not_overwritten_by_accident(ran, capsys):
    words = ["run", "--h5ad", "screen.h5ad", *GIVEN, "--out", "x"]
    assert run(*words) == 0
    assert run(*words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run(*words, "--overwrite") == 0


DYING = """
import os, sys
from plait.report import screen
screen.write_screen_report = lambda *_, **__: os.kill(os.getpid(), 9)
from plait.cli.main import main
main(sys.argv[1:])
"""


def test_a_command_killed_while_it_writes_keeps_its_tests(ran, monkeypatch):
    words = ["crt", "run", "--h5ad", "screen.h5ad", *GIVEN, "--out", "x"]
    died = subprocess.run([sys.executable, "-W", "ignore", "-c", DYING, *words], check=False)
    assert died.returncode == -9
    assert not (ran / "x/report.html").exists()
    monkeypatch.setattr("plait.crt.perturbation_effects", None)  # not called again
    assert main(words) == 0
    assert (ran / "x/report.html").exists()


def test_another_null_does_not_take_over_what_a_killed_command_left(ran):
    """Its store holds p-values among controls, which are none of resampling."""
    words = ["crt", "run", "--h5ad", "screen.h5ad", *GIVEN, "--out", "x"]
    killed = [*words, "--null", "ntc-empirical"]
    died = subprocess.run([sys.executable, "-W", "ignore", "-c", DYING, *killed], check=False)
    assert died.returncode == -9
    assert set(CRTResult.load("x/result.zarr").p_method.ravel()) == {"controls"}
    assert main(words) == 0
    assert "controls" not in CRTResult.load("x/result.zarr").p_method


def test_what_diagnose_says_follows_from_the_numbers(ran, capsys):
    words = ["diagnose", "--cells", "1200", "--programs", "4", "--targets", "30"]
    words += ["--resamples", "99", "--ensembles", "1", "--overwrite"]
    assert run(*words) == 0
    assert "targets with" in (said := capsys.readouterr().out) and "NOT uniform" not in said
    assert run(*words, "--causal", "1", "--effect-size", "2") == 0
    said = capsys.readouterr().out
    assert "p-values are NOT uniform but too small" in said
    assert "third with fewest treated cells: p-values are NOT uniform" in said
    summary = json.loads((ran / "diagnostics/diagnostics_summary.txt").read_text())
    assert set(summary["real_gene"]["calibration_by_treated"]["raw"]) == {"low", "middle", "high"}
