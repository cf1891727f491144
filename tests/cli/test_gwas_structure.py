"""Quality, relationships and components of genotypes on the command line."""

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from plait import gwas
from plait.cli import gwas_qc, gwas_structure
from plait.cli.main import app, main
from plait.io import SelectedGenotypes, open_genotypes, read_covariates, read_relationships
from plait.io.plink import write_bed
from plait.simulate import cohort
from tests.cli.pictures import empty_pictures

__all__ = ["empty_pictures"]  # a fixture
pytestmark = pytest.mark.usefixtures("empty_pictures")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("cohort")
    (place / "demo").mkdir()
    people = cohort(n_samples=200, n_variants=1500, n_causal=5, seed=3)
    write_bed(place / "demo/genotypes.bed", people.blocks(), people.variants, people.samples)
    for name, table in (("traits", people.traits), ("covariates", people.covariates)):
        columns = dict(zip(table.names, table.values.T, strict=True))
        frame = pl.DataFrame({"IID": table.samples.tolist()} | columns)
        frame.write_csv(place / f"demo/{name}.csv")
    return place


@pytest.fixture
def here(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").symlink_to(folder / "demo")
    return tmp_path


EXAMPLES = [("qc", gwas_qc.EXAMPLE), *((name, e) for name, _, e in gwas_structure.COMMANDS)]


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_the_example_of_every_help_runs(here, name, example):
    shown = CliRunner().invoke(app, ["gwas", name, "--help"], env={"COLUMNS": "200"}).output
    assert f"Example: {example}" in shown
    assert main(example.split()[1:]) == 0
    assert main(example.split()[1:]) == 2  # it exists
    assert main([*example.split()[1:], "--overwrite", "--quiet"]) == 0


def test_qc(here, capsys):
    assert main(["gwas", "qc", "--geno", "demo/genotypes.bed", "--out", "checked"]) == 0
    said = capsys.readouterr().out
    assert "variants: 1,500; removed 0 by call rate < 0.95, 0 by monomorphic; kept 1,500" in said
    assert "samples: 200; removed 0 by call rate < 0.9; kept 200" in said
    assert "next:" not in said
    direct = gwas.genotype_quality(open_genotypes("demo/genotypes.bed"))
    variants = pl.read_parquet("checked/variants.parquet")
    assert variants.drop("removed_by").equals(direct.variant_table())
    assert variants["removed_by"].null_count() == 1500
    samples = pl.read_csv("checked/samples.csv")
    np.testing.assert_allclose(samples["F"].to_numpy(), direct.inbreeding, rtol=1e-12)
    about = json.loads((here / "checked/run.json").read_text())
    assert about["method"] == "gwas qc"
    assert len(about["inputs"]["demo/genotypes.bed"]["sha256"]) == 64


def test_what_qc_keeps_is_what_the_next_command_uses(here, capsys):
    source = open_genotypes("demo/genotypes.bed")
    calls = source.read(dtype=np.int8)
    calls[:, 7] = np.where(np.arange(1500) % 3, calls[:, 7], -1)  # a bad sample
    calls[11, ::4] = -1  # a bad variant
    even = int(np.abs(calls.mean(axis=1) - 1).argmin())
    calls[even] = np.where(calls[even] == 1, 2 * (np.arange(200) % 2), calls[even])
    write_bed("bad.bed", [calls], source.variants, source.samples)
    disease = (np.arange(200) < 120).astype(int)
    pl.DataFrame({"IID": source.samples, "disease": disease}).write_csv("disease.csv")
    command = "gwas qc --geno bad.bed --out checked --min-maf 0.02 --population outbred"
    assert main([*command.split(), "--pheno", "disease.csv"]) == 0
    said = capsys.readouterr().out
    assert "1 by call rate < 0.9; kept 199" in said
    assert "by Hardy-Weinberg p < 1e-06 in controls" in said
    lists = "--keep-variants checked/kept_variants.txt --keep-samples checked/kept_samples.txt"
    assert f"next: plait gwas scan --geno bad.bed {lists}" in said
    rules = gwas.QualityControl(min_frequency=0.02, population="outbred")
    controls = source.samples[disease == 0]
    direct = gwas.quality_control("bad.bed", rules, controls=controls)
    kept = Path("checked/kept_variants.txt").read_text().split()
    ids = source.variants.frame["id"].to_numpy()
    assert kept == ids[direct.kept_variants].tolist()
    assert not set(ids[[11, even]]) & set(kept)
    record = json.loads((here / "checked/run.json").read_text())
    assert record["kept"] == {"variants": len(kept), "samples": 199}
    assert record["removed"]["samples"] == {"call rate < 0.9": 1}
    # The lists of one command are those of the next.
    assert main(["gwas", "qc", "--geno", "bad.bed", "--out", "again", *lists.split()]) == 0
    assert f"kept {len(kept):,}\nsamples: 199; removed 0 by" in capsys.readouterr().out
    excluded = "--exclude-variants checked/kept_variants.txt --exclude-samples bad.txt"
    Path("bad.txt").write_text("#FID IID\n0 nobody\n0 " + str(source.samples[7]) + "\n")
    assert main(["gwas", "qc", "--geno", "bad.bed", "--out", "others", *excluded.split()]) == 0
    shown = capsys.readouterr()
    assert f"variants: {1500 - len(kept):,};" in shown.out and "samples: 199;" in shown.out
    assert "1 of 2 samples to leave out are not in the genotypes" in shown.err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--pheno demo/traits.csv", "--pheno does nothing without --population outbred"),
        ("--population outbred --pheno demo/traits.csv", "say which one tells cases from controls"),
        (
            "--population outbred --pheno demo/traits.csv --trait trait1",
            "trait1 is not written 0 and 1, or 1 and 2",
        ),
        ("--population outbred --trait trait1", "--trait does nothing without --pheno"),
        ("--min-call-rate 95", "min-call-rate"),
        ("--keep-samples absent.txt", "absent.txt: this list of names cannot be read"),
        ("--min-mac 1000", "no variant is left"),
    ],
)
def test_qc_refuses(here, words, text, capsys):
    command = ["gwas", "qc", "--geno", "demo/genotypes.bed", "--out", "checked", *words.split()]
    assert main(command) == 2
    assert text in capsys.readouterr().err


def test_qc_of_chromosome_x(here, capsys):
    genotypes = open_genotypes("demo/genotypes.bed")
    write_bed("x.bed", [genotypes.read(dtype=np.int8)], genotypes.variants, genotypes.samples)
    for name, column, values in (("bim", 0, ["X"]), ("fam", 4, ["1", "2", "2", "0"])):
        rows = [line.split("\t") for line in Path(f"x.{name}").read_text().splitlines()]
        for number, row in enumerate(rows):
            row[column] = values[number % len(values)]
        Path(f"x.{name}").write_text("\n".join("\t".join(row) for row in rows) + "\n")
    females = np.arange(200) % 4 % 3 > 0
    assert main(["gwas", "qc", "--geno", "x.bed", "--out", "females"]) == 0
    found = pl.read_parquet("females/variants.parquet")
    calls = genotypes.read(dtype=np.int8)[:, females]
    counts = [(calls == copies).sum(axis=1) for copies in range(3)]
    np.testing.assert_array_equal(found["hwe_p"], gwas.hardy_weinberg_p(*counts))
    assert main(["gwas", "qc", "--geno", "x.bed", "--out", "both", "--hwe-x", "both"]) == 0
    both = pl.read_parquet("both/variants.parquet")["hwe_p"]
    assert both.null_count() == 0 and (both != found["hwe_p"]).any()
    about = json.loads((here / "both/run.json").read_text())
    assert about["options"]["hwe_x"] == "both"


def test_kinship(here, capsys):
    command = "gwas kinship --geno demo/genotypes.bed --out k --method gcta --min-maf 0.05"
    assert main(command.split()) == 0
    said = capsys.readouterr().out
    assert "200 samples from" in said
    assert "relatives: none (coefficient of relationship above 0." in said
    direct = gwas.relationship_matrix(
        open_genotypes("demo/genotypes.bed"), "gcta", min_frequency=0.05
    )
    found = read_relationships("k")
    np.testing.assert_allclose(found.matrix, direct.matrix(), atol=1e-6)
    assert found.n_variants[0, 0] == direct.n_variants.sum()
    assert found.samples.tolist() == direct.samples.tolist()
    assert json.loads((here / "k.run.json").read_text())["options"]["method"] == "gcta"
    assert (
        main(
            ["gwas", "kinship", "--geno", "demo/genotypes.bed", "--out", "none", "--min-maf", "0.6"]
        )
        == 2
    )
    assert "between 0 and 0.5" in capsys.readouterr().err
    source = open_genotypes("demo/genotypes.bed", variants=slice(0, 3))
    calls = np.zeros((3, 200), dtype=np.int8)
    write_bed(here / "constant.bed", [calls], source.variants, source.samples)
    assert main(["gwas", "kinship", "--geno", "constant.bed", "--out", "none"]) == 2
    assert "no variant that is frequent and called enough" in capsys.readouterr().err


def test_kinship_with_missing_calls_and_samples_twice(here, capsys):
    source = open_genotypes("demo/genotypes.bed")
    calls = source.read(dtype=np.int8)[:, [*range(150), 3, 8]]
    calls[np.random.default_rng(1).random(calls.shape) < 0.03] = -1
    write_bed("g.bed", [calls], source.variants, [*source.samples[:150], "again", "too"])
    command = "gwas kinship --geno g.bed --out k --method gcta --min-maf 0 --min-call-rate 0"
    assert main(command.split()) == 0
    said = capsys.readouterr().out
    assert "relatives: 2 pairs of 4 samples" in said and "2 identical; closest person0000" in said
    varying = (calls > 0).any(axis=1) & ((calls == 0) | (calls == 1)).any(axis=1)
    called = (calls[varying] >= 0).astype(float)
    np.testing.assert_array_equal(read_relationships("k").n_variants, called.T @ called)


@pytest.mark.parametrize(("words", "least"), [("", 0.95), ("--min-call-rate 0.85", 0.85)])
def test_relationships_and_components_are_of_variants_with_enough_calls(here, words, least):
    source = open_genotypes("demo/genotypes.bed")
    calls = source.read(dtype=np.int8)
    random = np.random.default_rng(2)
    calls[random.random(calls.shape) < random.choice([0.01, 0.1, 0.4], (1500, 1))] = -1
    write_bed("g.bed", [calls], source.variants, source.samples)
    called = np.flatnonzero((calls >= 0).mean(axis=1) >= least)
    chosen = SelectedGenotypes(open_genotypes("g.bed"), called)
    assert main(f"gwas kinship --geno g.bed --out k {words}".split()) == 0
    direct = gwas.relationship_matrix(chosen)
    # In single precision in the file, and summed by halves of all variants.
    np.testing.assert_allclose(read_relationships("k").matrix, direct.matrix(), atol=1e-6)
    record = json.loads(Path("k.run.json").read_text())
    assert record["counts"]["variants_used"] == direct.n_variants.sum()
    assert main(f"gwas pca --geno g.bed --out pcs.csv -k 2 {words}".split()) == 0
    scores = gwas.principal_components(chosen, 2, min_call_rate=0.0).scores
    np.testing.assert_allclose(read_covariates("pcs.csv").values, scores, rtol=1e-12)


def test_components_are_covariates(here, capsys):
    command = "gwas pca --geno demo/genotypes.bed --covar demo/covariates.csv --out pcs.csv -k 3"
    assert main(command.split()) == 0
    assert "PC3" in capsys.readouterr().out
    table = read_covariates("pcs.csv")
    assert table.names == ("age", "sex", "batch1", "batch2", "PC1", "PC2", "PC3")
    direct = gwas.principal_components(open_genotypes("demo/genotypes.bed"), 3)
    np.testing.assert_allclose(table.values[:, 4:], direct.scores, rtol=1e-12)
    about = json.loads((here / "pcs.csv.run.json").read_text())
    np.testing.assert_allclose(about["eigenvalues"], direct.eigenvalues)
    scan = "gwas scan --geno demo/genotypes.bed --pheno demo/traits.csv --covar pcs.csv --out s"
    assert main([*scan.split(), "--quiet"]) == 0
    used = json.loads((here / "s/run.json").read_text())["covariates"]
    assert used[-1] == "PC3"


@pytest.mark.parametrize(
    ("line", "failing", "kept", "store"),
    [
        ("gwas scan", "plait.cli.gwas.write_scan", ".components.zarr", "associations.zarr"),
        ("gwas scan", "plait.gwas.scan", ".components.zarr", "associations.zarr"),
        ("gwas interaction --environment age", "plait.cli.gwas_interaction._scan_into",
         ".components.zarr", "interactions.zarr"),
        ("gwas-to-mash", "plait.studies.gwas_to_mash", "stages/components.zarr",
         "associations.zarr"),
    ],
)  # fmt: skip
def test_components_are_computed_once(here, line, failing, kept, store, monkeypatch):
    """A run that is taken up again has those of the run that was killed, bit for bit."""
    inputs = "--geno demo/genotypes.bed --pheno demo/traits.csv --covar demo/covariates.csv"
    command = [*line.split(), *inputs.split(), "--traits", "trait1,trait2", "--pcs", "2", "--quiet"]
    assert main([*command, "--out", "whole"]) == 0

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(failing, killed)
        assert main([*command, "--out", "again"]) == 130
    assert (here / "again" / kept).is_dir()
    monkeypatch.setattr("plait.gwas.principal_components", killed)
    assert main([*command, "--pcs", "3", "--out", "again"]) == 130
    assert main([*command, "--out", "again"]) == 0
    is_study = line == "gwas-to-mash"
    assert (here / "again" / kept).is_dir() == is_study
    assert not [path for path in (here / "again").iterdir() if path.name.startswith(".")]
    result = gwas.InteractionResult if "interaction" in line else gwas.AssociationResult
    whole, again = (result.load(f"{name}/{store}") for name in ("whole", "again"))
    for name in result.statistics:
        np.testing.assert_array_equal(getattr(whole, name), getattr(again, name))
    whole, again = (set(path.name for path in Path(name).iterdir()) for name in ("whole", "again"))
    assert whole == again


def test_components_that_a_study_has_no_more_are_removed(here, monkeypatch):
    inputs = "--geno demo/genotypes.bed --pheno demo/traits.csv --traits trait1,trait2 --quiet"
    command = ["gwas-to-mash", *inputs.split(), "--out", "study"]
    assert main([*command, "--pcs", "2"]) == 0
    components, record = here / "study/stages/components.zarr", here / "study/stages/stages.json"
    with monkeypatch.context() as patch:  # a run that fails removes nothing
        patch.setattr("plait.studies.gwas_to_mash", lambda *_, **__: 1 / 0)
        assert main(command) != 0
    assert components.is_dir() and "pcs" in json.loads(record.read_text())
    assert main(command) == 0
    assert not components.exists() and "pcs" not in json.loads(record.read_text())
    assert main([*command[:-1], "plain"]) == 0
    names = [
        {path.name for path in Path(where, "stages").iterdir()} for where in ("study", "plain")
    ]
    assert names[0] == names[1]
    assert main([*command, "--pcs", "2"]) == 0
    assert components.is_dir() and "pcs" in json.loads(record.read_text())


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("pca --geno demo/genotypes.bed --out p.txt", "must end in"),
        ("pca --geno demo/genotypes.bed --out p.csv -k 500", "1 to 199"),
        ("pca --geno demo/genotypes.bed --out p.csv --exclude-region 99", "no chromosome '99'"),
        ("pca --geno absent.bed --out p.csv", "absent.bed: there is no such file"),
        ("qc --geno demo/genotypes.bed --out no/where", "create it first"),
        ("kinship --geno demo/genotypes.bed --out no/where", "create it first"),
        ("kinship --geno demo/genotypes.bed --out k --min-call-rate 95", "--min-call-rate"),
    ],
)
def test_errors(here, words, text, capsys):
    assert main(["gwas", *words.split()]) == 2
    assert text in capsys.readouterr().err
    assert [path.name for path in here.iterdir()] == ["demo"]


def test_the_guide(here, monkeypatch, capsys):
    """The commands and the Python of docs/gwas.md on structure run."""
    monkeypatch.chdir(here / "demo")
    text = (Path(__file__).parents[2] / "docs/gwas.md").read_text(encoding="utf-8")
    commands = re.search(r"```bash\n(plait gwas qc .*?)```", text, flags=re.DOTALL)[1]
    programs = re.findall(
        r"```python\n((?:components|relationships) = .*?)```", text, flags=re.DOTALL
    )
    for name in ("checked", "related.grm.bin", "pcs.csv", "with_components"):
        assert not (here / "demo" / name).exists()
    for command in commands.strip().splitlines():
        assert main(command.split()[1:]) == 0, command
    before = "from plait import gwas\nfrom plait.io import open_genotypes, read_covariates\n"
    for program in programs:
        exec(compile(before + program, "docs/gwas.md", "exec"), {})
    said = capsys.readouterr().out
    assert "PC5" in said and "sample1" in said


@pytest.mark.parametrize("command", ["scan", "interaction --environment age", "kinship", "pca"])
def test_commands_use_the_lists(here, command):
    """On some samples and variants, a command does what it does on a file of them alone."""
    source = open_genotypes("demo/genotypes.bed")
    samples, variants = np.arange(3, 190), np.r_[0:700, 705:1400]
    part = SelectedGenotypes(source, variants, samples)
    write_bed("part.bed", [part.read(dtype=np.int8)], part.variants, part.samples)
    Path("samples.txt").write_text("\n".join(source.samples[:190]))
    Path("not.txt").write_text("\n".join(source.samples[:3]))
    ids = source.variants.frame["id"].to_list()
    Path("variants.txt").write_text("\n".join(ids[:1400]))
    Path("odd.txt").write_text("\n".join(source.variants.keys.to_list()[700:705]))
    lists = "--keep-samples samples.txt --exclude-samples not.txt --keep-variants variants.txt "
    lists += "--exclude-variants odd.txt"
    tables = "--pheno demo/traits.csv --covar demo/covariates.csv"
    words = f"gwas {command} {tables if command[0] in 'si' else ''} --quiet".split()
    out = ("a.csv", "b.csv") if command == "pca" else ("a", "b")
    assert main([*words, "--geno", "demo/genotypes.bed", *lists.split(), "--out", out[0]]) == 0
    assert main([*words, "--geno", "part.bed", "--out", out[1]]) == 0
    written = {
        "scan": "/associations.parquet",
        "interaction": "/interactions.parquet",
        "kinship": ".grm.bin",
        "pca": "",
    }[command.split()[0]]
    assert Path(out[0] + written).read_bytes() == Path(out[1] + written).read_bytes()
