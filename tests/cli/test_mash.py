"""The mash commands on example data, and every way in which they must refuse."""

import json
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from plait import mash as pm
from plait.cli.main import main

pytestmark = pytest.mark.filterwarnings(
    "ignore:only .* effects for the principal components", "ignore:there are only 2 conditions"
)
NAMES = ["liver", "lung", "skin", "brain"]


def write_table(path, values, header=None, ids=None, end="\n", start=""):
    lines = [] if header is None else [",".join(([""] if ids is not None else []) + header)]
    for j, row in enumerate(values):
        cells = ["NA" if np.isnan(v) else repr(float(v)) for v in row]
        lines.append(",".join(([ids[j]] if ids is not None else []) + cells))
    path.write_bytes((start + end.join(lines) + end).encode())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sim = pm.simple_sims(60, 4, 0.6, seed=1)
    ids = [f"rs{j}" for j in range(240)]
    write_table(tmp_path / "b.csv", sim["Bhat"], NAMES, ids)
    write_table(tmp_path / "s.csv", sim["Shat"], NAMES, ids)
    return tmp_path


def plait(text):
    return main(text.split())


def test_fit_and_everything_after(folder, capsys):
    assert plait("mash fit --bhat b.csv --shat s.csv --out r --output-lfdr --posterior-samples 3 "
                 "--outputlevel 4 --seed 5") == 0  # fmt: skip
    assert "converged" in capsys.readouterr().out
    with np.load("r.npz", allow_pickle=False) as archive:
        arrays = dict(archive)
    assert arrays["posterior_mean"].shape == (240, 4)
    assert arrays["posterior_samples"].shape == (240, 4, 3)
    assert arrays["posterior_cov"].shape == (240, 4, 4)
    assert arrays["lik_matrix"].shape == (240, len(arrays["pi"]))
    assert arrays["condition_names"].tolist() == NAMES
    assert arrays["effect_names"][7] == "rs7"
    assert len(arrays["u_names"]) == len(arrays["fitted_u_stack"]) == 9
    meta = json.loads((folder / "r.json").read_text())
    for key in ("command", "loglik", "n_effects", "n_components_active", "alpha", "usepointmass",
                "null_loglik_total", "alt_loglik_total", "dual_gap", "niter", "seconds", "version",
                "n_conditions", "train_size", "seed"):  # fmt: skip
        assert key in meta
    assert plait("mash apply --g r.npz --bhat b.csv --shat s.csv --out again --quiet") == 0
    with np.load("again.npz") as again:
        np.testing.assert_array_equal(again["lfsr"], arrays["lfsr"])
    assert plait("mash sharing r.npz --out sharing.csv") == 0
    assert plait("mash sharing r.npz --out sharing.png --quiet") == 0
    assert plait("mash plot-meta r.npz --effect rs7 --out meta.png") == 0
    assert plait("mash plot-meta r.npz --effect 7 --out meta.pdf") == 0
    assert (folder / "meta.png").read_bytes().startswith(b"\x89PNG")
    assert "liver" in (folder / "sharing.csv").read_text()


def test_learned_covariances(folder):
    tables = "--bhat b.csv --shat s.csv --quiet"
    assert plait(f"mash pca {tables} --npc 2 --out pca.npz") == 0
    assert plait(f"mash ed {tables} --ulist pca.npz --out ed.npz") == 0
    assert plait(f"mash fit {tables} --ulist ed.npz --out r") == 0
    with np.load("r.npz") as archive:
        assert "ED_PCA_1" in archive["u_names"]
    assert plait(f"mash fit {tables} --ulist ed.npz --cov-methods none --out only") == 0
    with np.load("only.npz") as archive:
        assert archive["u_names"].tolist() == ["ED_PCA_1", "ED_PCA_2", "ED_tPCA"]


@pytest.mark.parametrize("given", ["", "--ulist pca.npz"])
def test_what_is_learned_is_lifted_as_in_python(folder, given):
    """As in docs/mash.md, from the components of the command itself and from given ones."""
    tables = "--bhat b.csv --shat s.csv --alpha 1 --all-effects --quiet"
    assert plait(f"mash pca {tables} --out pca.npz") == 0
    assert plait(f"mash ed {tables} {given} --out ed.npz") == 0
    sim = pm.simple_sims(60, 4, 0.6, seed=1)
    data = pm.mash_set_data(sim["Bhat"], sim["Shat"], alpha=1)
    starts = pm.lift_cov(pm.cov_pca(data, 4), 0.1)
    expected = pm.lift_cov(pm.cov_ed(data, starts), 0.05)
    with np.load("ed.npz") as archive:
        found = dict(zip(archive["u_names"].tolist(), archive["u_stack"], strict=True))
    assert list(found) == list(expected)
    for name, U in expected.items():
        np.testing.assert_allclose(found[name], U, rtol=1e-12)


def test_null_correlations(folder):
    for command, out in (("simple", "v1.npy"), ("em", "v2.npy")):
        text = f"mash estimate-null-corr-{command} --bhat b.csv --shat s.csv --out {out}"
        assert plait(text) == 0
        np.testing.assert_allclose(np.diag(np.load(out)), 1.0)
    assert plait("mash fit --bhat b.csv --shat s.csv --v v1.npy --out r --quiet") == 0


def test_train_and_apply_options(folder):
    text = "mash fit --bhat b.csv --shat s.csv --chunk-size 100 --out r --quiet"
    assert plait(text) == 0
    with np.load("r.npz") as archive:
        assert "posterior_weights" not in archive
        assert archive["lfsr"].shape == (240, 4)
    meta = json.loads((folder / "r.json").read_text())
    assert meta["train_size"] == 100
    assert meta["select_method"] == "topz_random"
    assert plait("mash fit --bhat b.csv --shat s.csv --train-size 120 --select-method random "
                 "--out q --quiet") == 0  # fmt: skip


def test_store_and_effects(folder):
    from plait.data import Effects
    from plait.io import write_effects

    sim = pm.simple_sims(40, 3, 0.6, seed=2)
    write_effects(Effects(sim["Bhat"], sim["Shat"], contexts=["a", "b", "c"]), "e.zarr")
    assert plait("mash fit --effects e.zarr --out r.zarr --quiet") == 0
    result = pm.MashResult.load("r.zarr")
    assert result.condition_names == ("a", "b", "c")
    assert plait("mash sharing r.zarr --quiet") == 0
    assert plait("mash fit --effects e.zarr --bhat b.csv --out x") == 2


def test_a_spreadsheet_users_files(folder, capsys):
    """Byte order mark, Windows line ends, a blank last line, NA."""
    values = np.random.default_rng(0).normal(size=(30, 3))
    values[4, 1] = np.nan
    errors = np.where(np.isnan(values), np.nan, 0.5)
    ids = [f"m{j}" for j in range(30)]
    for name, table in (("b.csv", values), ("s.csv", errors)):
        write_table(folder / name, table, ["x", "y", "z"], ids, end="\r\n", start="\ufeff")
        with (folder / name).open("ab") as stream:
            stream.write(b"\r\n")
    assert plait("mash fit --bhat b.csv --shat s.csv --out r") == 0
    with np.load("r.npz") as archive:
        assert archive["lfsr"].shape == (30, 3)
        assert archive["condition_names"].tolist() == ["x", "y", "z"]
        assert archive["effect_names"][0] == "m0"


def test_z_scores_alone(folder, capsys):
    assert plait("mash fit --bhat b.csv --out r") == 0
    assert "z-scores" in capsys.readouterr().out


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def spoil(folder, how):
    b, s = folder / "b.csv", folder / "s.csv"
    if how == "ragged":
        lines = b.read_text().splitlines()
        lines[5] += ",1"
        b.write_text("\n".join(lines))
    elif how == "text":
        lines = b.read_text().splitlines()
        lines[5] = lines[5].rsplit(",", 1)[0] + ",oops"
        b.write_text("\n".join(lines))
    elif how == "duplicate":
        edit(b, "rs3,", "rs4,")
    elif how == "order":
        lines = s.read_text().splitlines()
        lines[1], lines[2] = lines[2], lines[1]
        s.write_text("\n".join(lines))
    elif how == "ids":
        edit(s, "rs3,", "other,")
    elif how == "empty":
        b.write_text("")
    elif how == "zero":
        edit(s, "0.6", "0")
    elif how == "negative":
        edit(s, "0.6", "-1")
    elif how == "inf":
        lines = b.read_text().splitlines()
        lines[5] = lines[5].rsplit(",", 1)[0] + ",inf"
        b.write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("how", "fragments"),
    [
        ("ragged", ["b.csv", "6"]),
        ("text", ["oops", "brain"]),
        ("duplicate", ["rs4"]),
        ("order", ["order"]),
        ("ids", ["rs3", "other"]),
        ("empty", ["empty"]),
        ("zero", ["1 zeros", "rs0", "liver", "--zero-shat-reset"]),
        ("negative", ["negative"]),
        ("inf", ["Inf"]),
    ],
)
def test_bad_tables(folder, capsys, how, fragments):
    spoil(folder, how)
    before = sorted(path.name for path in folder.iterdir())
    assert plait("mash fit --bhat b.csv --shat s.csv --out r") == 2
    said = capsys.readouterr().err
    assert said.startswith("plait: error: ")
    assert "Traceback" not in said
    for fragment in fragments:
        assert fragment in said
    assert sorted(path.name for path in folder.iterdir()) == before


def test_bad_arrays(folder, capsys):
    (folder / "cut.npz").write_bytes(b"PK\x03\x04 cut off")
    np.savez(folder / "two.npz", a=np.ones((2, 2)), b=np.ones((2, 2)))
    for name in ("cut.npz", "two.npz", "absent.csv"):
        assert plait(f"mash fit --bhat {name} --out r") == 2
        assert name in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "mash fit --bhat b.csv --shat s.csv --out missing_folder/r",
        "mash fit --bhat b.csv --shat s.csv --out r --cov-methods nonsense",
        "mash fit --bhat b.csv --shat s.csv --out r --optmethod nonsense",
        "mash fit --bhat b.csv --shat s.csv --out r --outputlevel 9",
        "mash fit --bhat b.csv --shat s.csv --out r --missing maybe",
        "mash fit --shat s.csv --out r",
        "mash fit --bhat b.csv",
        "mash nonsense",
        "mash pca --bhat b.csv --shat s.csv --out wrong.csv",
        "mash sharing b.csv",
        "mash estimate-null-corr-simple --bhat b.csv --shat s.csv --z-thresh 0.0001 --out v.npy",
    ],
)
def test_bad_usage(folder, capsys, text):
    before = sorted(path.name for path in folder.iterdir())
    assert plait(text) == 2
    said = capsys.readouterr().err
    assert said.startswith("plait: error: ")
    assert sorted(path.name for path in folder.iterdir()) == before


def test_existing_output_is_kept(folder, capsys):
    (folder / "r.npz").write_text("precious")
    assert plait("mash fit --bhat b.csv --shat s.csv --out r") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (folder / "r.npz").read_text() == "precious"
    assert plait("mash fit --bhat b.csv --shat s.csv --out r --overwrite --quiet") == 0


def test_full_disk(folder, capsys, monkeypatch):
    import errno

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    before = sorted(path.name for path in folder.iterdir())
    assert plait("mash fit --bhat b.csv --shat s.csv --out r --quiet") in (1, 2)
    assert "space" in capsys.readouterr().err.lower()
    assert sorted(path.name for path in folder.iterdir()) == before


def test_unexpected_failures_are_one_line(folder, capsys, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("surprise")

    monkeypatch.setattr(pm, "mash", broken)
    assert plait("mash fit --bhat b.csv --shat s.csv --out r") == 1
    said = capsys.readouterr().err
    assert "surprise" in said
    assert "--debug" in said
    assert plait("mash fit --bhat b.csv --shat s.csv --out r --debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_front_door(capsys):
    assert plait("") == 0
    assert "plait mash" in capsys.readouterr().out
    assert plait("--version") == 0
    assert capsys.readouterr().out.startswith("plait 0.")
    assert plait("check") == 0
    assert "converged" in capsys.readouterr().out
    for command in ("", "fit ", "apply ", "onebyone ", "pca ", "ed ", "sharing ", "plot-meta ",
                    "estimate-null-corr-simple ", "estimate-null-corr-em "):  # fmt: skip
        assert plait(f"mash {command}--help") == 0
        said = capsys.readouterr().out
        assert command == "" or "Example: plait mash" in said


def test_demo(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert plait("demo --people 400 --variants 2000") == 0
    said = capsys.readouterr().out
    assert "realised false-sign rate" in said
    assert "nan" not in said
    demo = tmp_path / "demo"
    assert sorted(path.name for path in demo.iterdir()) == [
        "associations.parquet", "associations.zarr", "covariates.csv", "figures", "genotypes.bed",
        "genotypes.bim", "genotypes.fam", "report.html", "result.zarr", "run.json",
        "significant.csv", "stages", "tables", "traits.csv", "truth.csv",
    ]  # fmt: skip
    for line in said.splitlines():  # what it says that it wrote is there
        if line.startswith(("Results", "Figures", "Tables", "Report")):
            first, *others = line.split(maxsplit=1)[1].split(": ")[0].split(" · ")
            folder = first.rpartition("/")[0]
            for name in (first, *(f"{folder}/{other}" for other in others)):
                assert (tmp_path / name).exists(), name
    found, truth = (pl.read_csv(demo / name) for name in ("significant.csv", "truth.csv"))
    assert truth.columns[:5] == ["variant", "chrom", "pos", "oa", "ea"]
    assert set(found["effect"]) & set(truth["variant"])
    assert plait("demo --people 400 --variants 2000") == 2
    assert "genotypes.bed exists" in capsys.readouterr().err
    for path in demo.glob("*.*"):
        if path.is_file():
            path.unlink()
    assert plait("demo --people 400 --variants 2000") == 2
    assert "exists" in capsys.readouterr().err


def test_as_a_program(folder):
    command = [sys.executable, "-c", "from plait.cli.main import run; run()", "mash", "fit"]
    done = subprocess.run(
        [*command, "--bhat", "b.csv"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("plait: error: ")
