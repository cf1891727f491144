"""What was run is written beside whatever a command writes: one kind of record."""

import hashlib
import json
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from typer.main import get_command

from plait.cli.main import app, main
from plait.cli.records import beside, current_command, write_record
from plait.gwas import AssociationResult
from plait.io.plink import write_bed
from plait.provenance import Provenance, glance
from plait.simulate import cohort, make_count_screen
from plait.simulate.screen import make_sceptre_style_synth
from tests.cli.pictures import empty_pictures

FIELDS = {
    "command", "method", "options", "seed", "inputs", "seconds", "threads", "version", "libraries",
    "python", "created", "cpu_seconds", "peak_memory_bytes", "counts",
}  # fmt: skip
__all__ = ["empty_pictures"]  # a fixture
pytestmark = [
    pytest.mark.filterwarnings("ignore:only .* effects for the principal components"),
    pytest.mark.usefixtures("empty_pictures"),
]


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
    made = make_sceptre_style_synth(
        N=1500, K=5, n_target_genes=24, ntc_frac_guides=0.4, effect_size=0.8,
        sprinkle_near_zero_frac=0.0, seed=3,
    )  # fmt: skip
    made.uns = {key: made.uns[key] for key in ("guide_names", "guide2gene")}
    made.write_h5ad(folder / "screen.h5ad")
    write_counts(folder / "counted.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for line in (
            f"gwas scan --geno {folder}/g.bed --pheno {folder}/traits.csv --out {folder}/scanned",
            f"mash fit --bhat {folder}/b.csv --alpha 1 --out {folder}/r",
            f"crt run --h5ad {folder}/screen.h5ad --usage usage --covar covar --out "
            f"{folder}/screened",
        ):
            assert main([*line.split(), "--quiet"]) == 0
    return folder


def write_counts(place):
    """Write a small screen with counts of genes and guides, with positive controls."""
    made = make_count_screen(
        N=600, n_genes=20, K=4, n_targets=8, ntc_frac_guides=0.3, moi="low", depth_mean=3000.0,
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


@pytest.fixture
def here(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in files.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


SCANNED = "--geno ./g.bed --pheno traits.csv"
COUNTED = "--h5ad counted.h5ad --moi low --covariates batch"
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
    ("mash apply --bhat b.csv --alpha 1 --g r.npz --out o", "o.run.json", ["b.csv", "r.npz"]),
    ("mash pca --bhat b.csv --all-effects --out o.npz", "o.npz.run.json", ["b.csv"]),
    ("mash ed --bhat b.csv --all-effects --out o.npz", "o.npz.run.json", ["b.csv"]),
    ("mash ud --bhat b.csv --all-effects --out o.npz", "o.npz.run.json", ["b.csv"]),
    ("mash estimate-null-corr-simple --bhat b.csv --out o.csv", "o.csv.run.json", ["b.csv"]),
    ("mash estimate-null-corr-em --bhat b.csv --out o.csv", "o.csv.run.json", ["b.csv"]),
    ("mash significant r.npz --out o.csv", "o.csv.run.json", ["r.npz"]),
    ("mash sharing r.npz --out o.tsv", "o.tsv.run.json", ["r.npz"]),
    ("mash sharing r.npz --out o.png", "o.png.run.json", ["r.npz"]),
    ("mash plot-meta r.npz --effect 0 --out o.pdf", "o.pdf.run.json", ["r.npz"]),
    ("mash plots r.npz --out o", "o/run.json", ["r.npz"]),
    ("report r.npz --out o.html", "o.html.run.json", ["r.npz"]),
    ("gwas region scanned --geno ./g.bed --out o.png", "o.png.run.json", ["g.bed", "scanned"]),
    ("demo --people 200 --variants 1000 --out o", "o/run.json", []),
    ("crt run --h5ad screen.h5ad --usage usage --covar covar --out o", "o/run.json",
     ["screen.h5ad"]),
    ("crt report screened --out o.html", "o.html.run.json", ["screened"]),
    ("crt qq screened --out o.png", "o.png.run.json", ["screened"]),
    ("crt diagnose --cells 1500 --programs 5 --targets 20 --resamples 99 --out-csv o.csv",
     "o.csv.run.json", []),
    (f"crt assign {COUNTED} --out o.tsv", "o.tsv.run.json", ["counted.h5ad"]),
    (f"crt qc {COUNTED} --out o.tsv", "o.tsv.run.json", ["counted.h5ad"]),
    (f"crt calibrate {COUNTED} --pairs trans --out o", "o/run.json", ["counted.h5ad"]),
    (f"crt power {COUNTED} --out o", "o/run.json", ["counted.h5ad"]),
    (f"crt discover {COUNTED} --pairs trans --out o", "o/run.json", ["counted.h5ad"]),
)  # fmt: skip
SHOWN = ("crt report", "crt qq")
"""Commands that count nothing: the result that they show says it."""


def commands_of(command, words=()):
    """Yield the name of every command of the program, and its parser."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield " ".join(words), command
        return
    for name, one in inner.items():
        yield from commands_of(one, (*words, name))


NAMES = dict(commands_of(get_command(app)))


def test_every_command_that_writes_is_here():
    writing = {
        name
        for name, command in NAMES.items()
        if any(text.startswith("--out") for option in command.params for text in option.opts
               if text not in ("--outputlevel", "--output-lfdr"))
    }  # fmt: skip
    lines = [line for line, _, _ in COMMANDS]
    assert writing == {name for name in NAMES if any(ln.startswith(f"{name} ") for ln in lines)}
    assert len(writing) > 25


@pytest.mark.filterwarnings("ignore:covariates left out")
@pytest.mark.parametrize(("line", "place", "inputs"), COMMANDS, ids=[c[0] for c in COMMANDS])
def test_every_command_leaves_the_same_record(here, line, place, inputs):
    assert main([*line.split(), "--quiet"]) == 0
    about = json.loads((here / place).read_text(encoding="utf-8"))
    assert set(about) >= FIELDS
    assert about["command"] == f"plait {line} --quiet"
    assert about["method"] in NAMES and line.startswith(about["method"] + " ")
    beside = ["g.bim", "g.fam"] if "--geno" in line else []
    files = [*inputs, *beside]
    digests = {name: glance(name) if Path(name).is_file() else None for name in files}
    assert {Path(name).as_posix(): digest for name, digest in about["inputs"].items()} == digests
    assert about["cpu_seconds"] > 0
    assert 0 < about["seconds"] < 600
    assert about["peak_memory_bytes"] > 50e6
    assert bool(about["counts"]) == (about["method"] not in SHOWN)
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
    file = about["inputs"]["./g.bed"]
    assert file["bytes"] == Path("g.bed").stat().st_size
    assert file["sha256"] == hashlib.sha256(Path("g.bed").read_bytes()).hexdigest()
    assert file["sha256"] in about["fingerprints"]["the genotypes"]


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
