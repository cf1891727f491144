"""What was run is written beside whatever a command writes: one kind of record."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from plait.cli.main import main
from plait.cli.records import beside, current_command, write_record
from plait.gwas import AssociationResult
from plait.io.plink import write_bed
from plait.provenance import Provenance, glance
from plait.simulate import cohort

FIELDS = {
    "command", "method", "options", "seed", "inputs", "seconds", "threads", "version", "libraries",
    "python", "created", "cpu_seconds", "peak_memory_bytes", "counts",
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:only .* effects for the principal components")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    people = cohort(n_samples=150, n_variants=300, n_causal=3, seed=3)
    write_bed(folder / "g.bed", people.blocks(), people.variants, people.samples)
    for name, table in (("traits", people.traits), ("covariates", people.covariates)):
        columns = dict(zip(table.names, table.values.T, strict=True))
        pl.DataFrame({"IID": table.samples.tolist()} | columns).write_csv(folder / f"{name}.csv")
    random = np.random.default_rng(1)
    effects = random.normal(size=(300, 3)) * 2
    pl.DataFrame(effects, schema=["a", "b", "c"]).write_csv(folder / "b.csv")
    variants = people.variants.frame.select("chrom", "pos", "ea", "oa")
    for name, column in (("one", 0), ("two", 1)):
        numbers = {"beta": effects[:, column], "se": np.full(300, 0.5)}
        variants.with_columns(**numbers).write_csv(folder / f"{name}.tsv", separator="\t")
    return folder


@pytest.fixture
def here(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in files.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


SCANNED = "--geno ./g.bed --pheno traits.csv"
FIT = "mash fit --bhat b.csv --alpha 1 --out"
COMMANDS = (
    (f"gwas scan {SCANNED} --traits trait1,trait2 --pcs 2 --min-maf 0.1 --out o", "o/run.json",
     ["g.bed", "traits.csv"]),
    (f"gwas interaction {SCANNED} --covar covariates.csv --environment age --out o", "o/run.json",
     ["g.bed", "traits.csv", "covariates.csv"]),
    ("gwas qc --geno ./g.bed --out o", "o/run.json", ["g.bed"]),
    ("gwas kinship --geno ./g.bed --out o", "o.run.json", ["g.bed"]),
    ("gwas pca --geno ./g.bed -k 2 --out o.csv", "o.csv.run.json", ["g.bed"]),
    ("sumstats convert one.tsv --to parquet --out o.parquet", "o.parquet.run.json", ["one.tsv"]),
    ("sumstats harmonise one.tsv --reference g.bim --out o.tsv", "o.tsv.run.json",
     ["one.tsv", "g.bim"]),
    ("sumstats combine a=one.tsv b=two.tsv --out o.zarr", "o.zarr.run.json",
     ["one.tsv", "two.tsv"]),
    (f"gwas-to-mash {SCANNED} --out o", "o/run.json", ["g.bed", "traits.csv"]),
    (f"{FIT} o", "o.run.json", ["b.csv"]),
    (f"{FIT} o.zarr", "o.zarr.run.json", ["b.csv"]),
    ("mash onebyone --bhat b.csv --out o", "o.run.json", ["b.csv"]),
    ("mash pca --bhat b.csv --all-effects --out o.npz", "o.npz.run.json", ["b.csv"]),
    ("mash estimate-null-corr-simple --bhat b.csv --out o.csv", "o.csv.run.json", ["b.csv"]),
)  # fmt: skip


@pytest.mark.parametrize(("line", "place", "inputs"), COMMANDS, ids=[c[0] for c in COMMANDS])
def test_every_command_leaves_the_same_record(here, line, place, inputs):
    assert main([*line.split(), "--quiet"]) == 0
    about = json.loads((here / place).read_text(encoding="utf-8"))
    assert set(about) >= FIELDS
    assert about["command"] == f"plait {line} --quiet"
    assert about["method"] == line.split(" --")[0].split(" a=")[0].split(" one.")[0]
    digests = {name: glance(name) for name in inputs}
    assert {Path(name).as_posix(): digest for name, digest in about["inputs"].items()} == digests
    assert about["cpu_seconds"] > 0
    assert 0 < about["seconds"] < 600
    assert about["peak_memory_bytes"] > 50e6
    assert about["counts"]
    assert about["options"]["quiet"] is True
    assert Provenance.from_dict(about).method == about["method"]


def test_options_are_those_given_and_those_by_default(here):
    line = (
        f"gwas scan {SCANNED} --traits trait1 --pcs 2 --min-maf 0.1 --format tsv --seed 7 --out o"
    )
    assert main([*line.split(), "--quiet", "--threads", "1"]) == 0
    about = json.loads(Path("o/run.json").read_text(encoding="utf-8"))
    options = about["options"]
    given = {"traits": "trait1", "pcs": 2, "min_maf": 0.1, "format": "tsv", "seed": 7, "threads": 1}
    assert {name: options[name] for name in given} == given
    assert options["min_mac"] == 20 and options["model"] == "linear" and options["covar"] is None
    assert about["seed"] == 7 and about["threads"] == 1
    assert about["covariates"] == ["PC1", "PC2"]
    assert about["counts"]["n_used"] == 150 and about["counts"]["variants"] == 300
    scanned = AssociationResult.open("o")
    assert about["lambda_gc"] == {"trait1": pytest.approx(scanned.lambda_gc[0], rel=1e-15)}
    assert about["fingerprints"]["the genotypes"] == about["inputs"]["./g.bed"]


def test_results_that_are_shown_leave_one_too(here):
    assert main([*f"{FIT} r".split(), "--quiet"]) == 0
    for command, place in (
        ("significant r.npz --out s.csv", "s.csv.run.json"),
        ("sharing r.npz --out m.tsv", "m.tsv.run.json"),
        ("plots r.npz --out figures", "figures/run.json"),
    ):
        assert main(["mash", *command.split(), "--quiet"]) == 0
        about = json.loads(Path(place).read_text(encoding="utf-8"))
        assert about["inputs"] == {"r.npz": glance("r.npz")}


def test_a_command_that_failed_leaves_none(here):
    assert main(f"gwas scan {SCANNED} --traits height --out o --quiet".split()) == 2
    assert not Path("o/run.json").exists()


def test_words_are_quoted_as_a_shell_needs_them(here):
    Path("my traits.csv").write_bytes(Path("traits.csv").read_bytes())
    words = ["gwas", "scan", "--geno", "g.bed", "--pheno", "my traits.csv", "--out", "o", "--quiet"]
    assert main(words) == 0
    about = json.loads(Path("o/run.json").read_text(encoding="utf-8"))
    assert shlex.split(about["command"]) == ["plait", *words]


def test_beside_a_url_nothing_is_written(here):
    write_record(beside("memory://bucket/r.zarr"))
    assert str(beside("r.zarr/")) == "r.zarr.run.json"


def test_without_a_command_there_is_nothing_to_record():
    code = "from plait.cli.records import write_record; write_record('x.run.json')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "no command is under way" in done.stderr


def test_time_and_memory_of_processes_that_a_command_starts(here, monkeypatch):
    """A child that ends during the command counts, with the memory of the largest."""
    burn = "import time\nx = b'x' * 400_000_000\nwhile time.process_time() < 0.5: pass"

    def start(quiet):
        subprocess.run([sys.executable, "-c", burn], check=True)

    monkeypatch.setattr("plait.cli.gwas_qc.announce_compilation", start)
    assert main(["gwas", "qc", "--geno", "g.bed", "--out", "o"]) == 0
    about = json.loads(Path("o/run.json").read_text(encoding="utf-8"))
    assert about["cpu_seconds"] > 0.5
    assert about["peak_memory_bytes"] > 400e6
    assert current_command().command == "gwas qc"
