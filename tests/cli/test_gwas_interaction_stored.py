"""``plait gwas interaction`` that is killed, stopped, repeated and asked for other tables."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest

from plait.cli.main import main
from plait.data.variants import VariantTable
from plait.errors import FileFormatError
from plait.gwas import AssociationResult, InteractionResult, VariantFilter, scan_interaction
from plait.io import open_genotypes, read_covariates, read_phenotypes
from plait.io.plink import write_bed
from tests.cli.pictures import empty_pictures
from tests.gwas.conftest import draw_calls

__all__ = ["empty_pictures"]  # a fixture
pytestmark = pytest.mark.usefixtures("empty_pictures")

N, M = 80, 20_000


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Files of 80 samples, 20,000 variants (three chunks of a store) and two traits."""
    folder = tmp_path_factory.mktemp("study")
    random = np.random.default_rng(8)
    samples = [f"s{i}" for i in range(N)]
    table = VariantTable.of(["1"] * M, np.arange(1, M + 1), ["A"] * M, ["G"] * M)
    write_bed(folder / "g.bed", iter([draw_calls(random, M, N, missing=0.01)]), table, samples)
    values = random.normal(size=(N, 4))
    pl.DataFrame({"IID": samples, "a": values[:, 0], "b": values[:, 1]}).write_csv(folder / "y.csv")
    columns = {"IID": samples, "heat": 20 + values[:, 2], "size": values[:, 3]}
    pl.DataFrame(columns).write_csv(folder / "x.csv")
    return folder


@pytest.fixture
def folder(study, tmp_path, monkeypatch):
    for name in ("g.bed", "g.bim", "g.fam", "y.csv", "x.csv"):
        (tmp_path / name).symlink_to(study / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(*more):
    given = ["--geno", "g.bed", "--pheno", "y.csv", "--covar", "x.csv", "--environment", "heat"]
    return ["gwas", "interaction", *given, "--min-mac", "5", "--out", "out", *more]


def in_memory(study, **options):
    covariates = read_covariates(study / "x.csv")
    return scan_interaction(
        open_genotypes(study / "g.bed"),
        read_phenotypes(study / "y.csv"),
        covariates.select(["heat"]),
        covariates,
        variant_filter=VariantFilter(min_minor_count=5),
        **options,
    )


@pytest.mark.parametrize("workers", [["--threads", "1"], ["--dask", "local:2"]])
def test_a_killed_command_goes_on(study, folder, workers):
    line = [sys.executable, "-m", "plait", *words("--robust", *workers)]
    process = subprocess.Popen(line, cwd=folder, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list((folder / "out").glob(".interactions.zarr.run/*/blocks/*.json")):
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / "out/interactions.zarr").exists()
    again = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=True)
    assert "resumed after" in again.stderr
    found = InteractionResult.open(folder / "out")
    expected = in_memory(study, robust=True)
    assert found.allclose(expected, rtol=0)
    assert found.filtered == expected.filtered
    table = pl.read_parquet(folder / "out/interactions.parquet")
    assert table.equals(expected.to_table(), null_equal=True)
    assert {path.name for path in (folder / "out").iterdir()} == {
        "interactions.zarr", "interactions.parquet", "manhattan.png", "qq.png", "run.json"
    }  # fmt: skip


def test_a_command_stopped_while_it_writes_its_table_keeps_its_scan(folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(InteractionResult, "write_parquet", lambda *_, **__: 1 / 0)
        assert main(words("--quiet")) == 1
    made = (folder / "out/interactions.zarr/zarr.json").stat().st_mtime_ns
    assert main(words("--quiet")) == 0
    assert (folder / "out/interactions.zarr/zarr.json").stat().st_mtime_ns == made
    assert not (folder / "out/.interaction.json").exists()
    assert main(words("--quiet")) == 2  # it exists
    assert main(words("--quiet", "--overwrite")) == 0
    with pytest.raises(FileFormatError, match=r"associations.zarr is not in it.*plait gwas scan"):
        AssociationResult.open(folder / "out")
    (folder / "none").mkdir()
    with pytest.raises(FileFormatError, match=r"interactions.zarr is not.*plait gwas interaction"):
        InteractionResult.open(folder / "none")


def test_tables_of_both_formats_and_effects_at_environments(study, folder, capsys):
    assert main(words("--quiet", "--at", "18, 22.5")) == 0
    expected = in_memory(study).to_table(environments=(18, 22.5))
    table = pl.read_parquet(folder / "out/interactions.parquet")
    assert table.equals(expected, null_equal=True)
    assert {"beta_at_18.a", "se_at_22.5.b"} <= set(table.columns)
    assert main(words("--overwrite", "--format", "tsv")) == 0
    assert "out/interactions.tsv.gz" in capsys.readouterr().out
    assert not (folder / "out/interactions.parquet").exists()
    text = pl.read_csv(
        folder / "out/interactions.tsv.gz",
        separator="\t",
        null_values="NA",
        schema_overrides={"chrom": pl.String},
    )
    assert text.equals(expected.select(text.columns).fill_nan(None), null_equal=True)


def test_lambda_and_what_raises_it(study, folder, capsys):
    """A variance that changes with the environment makes p-values too small, unless robust."""
    frame = pl.read_csv("x.csv")
    heat = frame["heat"].to_numpy()
    noise = np.random.default_rng(2).normal(size=N) * np.exp(heat - 20)
    pl.DataFrame({"IID": frame["IID"], "a": noise}).write_csv("uneven.csv")
    line = words("--pheno", "uneven.csv")
    assert main(line) == 0
    said = capsys.readouterr().out
    (attention,) = [row for row in said.splitlines() if row.startswith("attention: ")]
    inflation = json.loads((folder / "out/run.json").read_text())["lambda_gc"]["a"]
    assert inflation > 1.5
    assert f"lambda {inflation:.3f}" in said
    assert f"interactions inflated. The largest lambda is {inflation:.2f} (a)" in attention
    assert attention.endswith("changes with heat; the last is taken away by --robust.")
    assert "out/manhattan.png · out/qq.png" in said
    assert main([*line, "--robust", "--overwrite"]) == 0
    said = capsys.readouterr().out
    assert "attention" not in said
    assert 0.6 < json.loads((folder / "out/run.json").read_text())["lambda_gc"]["a"] < 1.2


def test_no_variant_that_can_be_tested(folder, capsys):
    assert main(words("--quiet", "--min-mac", "500")) == 2
    assert "no variant was tested; tests left out: " in capsys.readouterr().err
    assert not (folder / "out/run.json").exists()


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ("18,warm", "--at '18,warm' is not a list of numbers"),
        ("18,nan", "give finite numbers, each of them once"),
        ("18,18.0", "give finite numbers, each of them once"),
    ],
)
def test_environments_that_cannot_be(folder, capsys, at, said):
    assert main(words("--quiet", "--at", at)) == 2
    assert said in capsys.readouterr().err
    assert not (folder / "out").exists()
