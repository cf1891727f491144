"""Tables of summary statistics on the command line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from plait.cli import sumstats
from plait.cli.main import app, main
from plait.cli.words import as_options
from plait.io import (
    read_effects,
    read_gwas_ssf,
    read_summary_statistics,
    validate_gwas_ssf,
)

METADATA = """samples:
  - sample_size: 5000
    sample_ancestry_category:
      - European
genotyping_technology:
  - Genome-wide genotyping array
trait_description:
  - height
"""


def regenie(random, n=400):
    """A table as REGENIE writes it, with four letters in turn and two palindromic rows."""
    ea = np.array(list("ACGT") * (n // 4))
    oa = np.array(list("GTAC") * (n // 4))
    oa[:2] = ["T", "G"]
    f = random.uniform(0.1, 0.35, n)
    se = 1 / np.sqrt(2 * f * (1 - f) * 5000)
    beta = se * random.standard_normal(n)
    from plait.data.p_values import log10_p_of_z

    return pl.DataFrame(
        {
            "CHROM": np.repeat([1, 2], n // 2),
            "GENPOS": np.tile(np.arange(1, n // 2 + 1) * 100, 2),
            "ID": [f"rs{i}" for i in range(n)],
            "ALLELE0": oa,
            "ALLELE1": ea,
            "A1FREQ": f,
            "N": np.full(n, 5000),
            "TEST": ["ADD"] * n,
            "BETA": beta,
            "SE": se,
            "CHISQ": (beta / se) ** 2,
            "LOG10P": -log10_p_of_z(beta / se),
            "EXTRA": ["NA"] * n,
        }
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(4)
    height, bmi = regenie(random), regenie(random)
    flipped = pl.Series(np.arange(400) % 3 == 0)  # every third row of bmi is of the other allele
    bmi = bmi.with_columns(
        pl.when(flipped).then("ALLELE1").otherwise("ALLELE0").alias("ALLELE0"),
        pl.when(flipped).then("ALLELE0").otherwise("ALLELE1").alias("ALLELE1"),
        pl.when(flipped).then(-pl.col("BETA")).otherwise("BETA").alias("BETA"),
        pl.when(flipped).then(1 - pl.col("A1FREQ")).otherwise("A1FREQ").alias("A1FREQ"),
    )
    for name, frame in (("height", height), ("bmi", bmi.head(390))):
        frame.write_csv(f"{name}.regenie", separator=" ")
    bim = height.select("CHROM", "ID", cm=pl.lit(0), pos="GENPOS", ea="ALLELE1", oa="ALLELE0")
    bim.head(380).write_csv("genotypes.bim", separator="\t", include_header=False)
    (tmp_path / "about.yaml").write_text(METADATA)
    bases = {name: list("N" * 20_100) for name in ("1", "2")}
    for chrom, pos, oa in height.select("CHROM", "GENPOS", "ALLELE0").iter_rows():
        bases[str(chrom)][pos - 1] = oa
    lines = [f">{name}\n{''.join(letters)}\n" for name, letters in bases.items()]
    (tmp_path / "genome.fa").write_text("".join(lines))
    return tmp_path


@pytest.mark.parametrize(("name", "example"), [(name, e) for name, _, e in sumstats.COMMANDS])
def test_the_example_of_every_help_runs(folder, name, example):
    shown = CliRunner().invoke(app, ["sumstats", name, "--help"], env={"COLUMNS": "200"}).output
    assert f"Example: {example}" in shown
    assert "Docs: docs/gwas.md" in shown
    assert main(example.split()[1:]) == 0
    assert main(["sumstats"]) == 0


def test_check(folder, capsys):
    assert main(["sumstats", "check", "height.regenie"]) == 0
    said = capsys.readouterr().out
    assert "dialect regenie" in said
    assert "ea=ALLELE1" in said
    assert "400 of single letters, 2 of them A/T or C/G; 0 longer" in said
    assert "chromosomes: 1, 2" in said
    assert "sample size: 5000 to 5000, in 400 of 400 rows" in said
    assert "info: not in the table" in said
    assert "genome build: not stated" in said
    held = "p-values and z; errors, frequencies and sample sizes"
    assert f"nothing in it disagrees: {held}\n" in said
    frame = pl.read_csv("height.regenie", separator=" ")
    names = {"ID": "SNP", "CHROM": "CHR", "GENPOS": "BP", "ALLELE1": "A1", "ALLELE0": "A2"}
    alone = frame.select(*names, "N", Z=pl.col("BETA") / pl.col("SE")).rename(names)
    alone.write_csv("alone.sumstats", separator="\t")
    assert main(["sumstats", "check", "alone.sumstats"]) == 0
    assert "nothing in it could be held against" in capsys.readouterr().out
    odd = frame.with_columns(
        LOG10P=pl.col("LOG10P") + 0.5,
        SE=pl.when(pl.int_range(pl.len()) < 7).then(0).otherwise("SE"),
    )
    odd.write_csv("odd.regenie", separator=" ")
    assert main(["sumstats", "check", "odd.regenie"]) == 0
    captured = capsys.readouterr()
    assert "left out: 7 rows with no usable standard error" in captured.out
    assert "attention: p and z disagree" in captured.out
    assert captured.err.startswith("plait: warning: no usable standard error")


def test_p_of_another_test_is_said_by_all(folder, capsys):
    """By every command that reads a table, of each table that joins."""
    frame = pl.read_csv("height.regenie", separator=" ")
    frame.with_columns(LOG10P=pl.col("LOG10P") + 0.5).write_csv("odd.regenie", separator=" ")
    said = []
    for words in (
        "check odd.regenie",
        "convert odd.regenie --to tsv --out odd.tsv",
        "harmonise odd.regenie --reference genotypes.bim --out harmonised.tsv",
        "combine bmi=bmi.regenie height=odd.regenie --out e.zarr",
    ):
        assert main(["sumstats", *words.split()]) == 0
        captured = capsys.readouterr()
        lines = [x for x in (captured.out + captured.err).splitlines() if "p and z disagree" in x]
        said += lines
        assert len(lines) == 1
    assert said[1] == said[0] and said[0].startswith("attention: p and z disagree in ")
    flag = said[0].removeprefix("attention: ")
    assert said[3] == f"plait: warning: the table of 'height': {flag}."
    assert main(["sumstats", "convert", "height.regenie", "--to", "tsv", "--out", "fine.tsv"]) == 0
    assert "attention" not in capsys.readouterr().out


def test_columns_and_dialects(folder, capsys):
    frame = pl.read_csv("height.regenie", separator=" ")
    frame.select(SNP="ID", A1="ALLELE1", A2="ALLELE0", b="BETA", se="SE").write_csv("mine.csv")
    assert main(["sumstats", "check", "mine.csv"]) == 0
    assert "dialect aliases" in capsys.readouterr().out
    given = ["--columns", "id=SNP,ea=A2,oa=A1,beta=b,se=se", "--variants", "genotypes.bim"]
    assert main(["sumstats", "convert", "mine.csv", *given, "--to", "tsv", "--out", "m.tsv"]) == 0
    table = read_summary_statistics("m.tsv")
    assert table.frame["ea"].to_list() == frame["ALLELE0"].to_list()
    assert table.frame["pos"].to_list()[:380] == frame["GENPOS"].to_list()[:380]
    for columns, text in (("ea", "--columns has 'ea'"), ("wrong=A1", "unknown role 'wrong'")):
        assert main(["sumstats", "check", "mine.csv", "--columns", columns]) == 2
        assert text in capsys.readouterr().err
    assert main(["sumstats", "check", "mine.csv", "--dialect", "regenie"]) == 2
    assert "not of the dialect 'regenie'" in capsys.readouterr().err
    frame.rename({"ID": "SNP", "ALLELE1": "Allele1", "ALLELE0": "Allele2"}).write_csv("two.csv")
    assert main(["sumstats", "check", "two.csv"]) == 2
    said = capsys.readouterr().err
    assert "if it is of Allele1: It has CHROM, GENPOS, SNP, Allele2, Allele1" in said
    # What is shown works as it stands.
    given = re.search(r"--columns (\S+)\.$", said)[1]
    assert main(["sumstats", "check", "two.csv", "--columns", given]) == 0


def test_messages_in_the_words_of_the_program():
    assert (
        as_options("Say which: columns={'id': 'SNP', ...}.") == "Say which: --columns id=SNP,...."
    )
    assert as_options("columns={'ea': ..., 'se': 'b c'}") == "--columns ea=...,se=b c"


@pytest.mark.parametrize("out", ["t.parquet", "t.tsv", "t.tsv.gz"])
def test_convert_and_read_again(folder, out, capsys):
    to = "parquet" if out.endswith("parquet") else "tsv"
    command = f"sumstats convert height.regenie --to {to} --out {out} --trait height".split()
    assert main(command) == 0
    assert "(400 rows)" in capsys.readouterr().out
    first, again = read_summary_statistics("height.regenie", trait="height"), None
    again = read_summary_statistics(out)
    assert again.frame.equals(first.frame, null_equal=True)
    assert main(command) == 2
    assert "exists" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    assert not list(folder.glob(".*partial*"))


def test_gwas_ssf(folder, capsys):
    command = [
        "sumstats",
        "convert",
        "height.regenie",
        "--to",
        "ssf",
        "--build",
        "hg38",
        "--out",
        "h.tsv.gz",
    ]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "missing trait_description, samples, genotyping_technology" in said
    assert "--metadata" in said
    assert not (folder / "h.tsv.gz").exists()
    assert main([*command, "--metadata", "about.yaml"]) == 0
    assert validate_gwas_ssf("h.tsv.gz").valid
    assert read_gwas_ssf("h.tsv.gz").build == "GRCh38"
    capsys.readouterr()
    assert main(["sumstats", "check", "h.tsv.gz"]) == 0
    said = capsys.readouterr().out
    assert "keeps to the standard" in said
    assert "would be refused by the catalogue" in said
    assert "trait 'height', GRCh38" in said
    again = ["sumstats", "convert", "h.tsv.gz", "--to", "ssf", "--out", "again.tsv.gz"]
    assert main(again) == 0  # the metadata beside it are taken
    assert read_gwas_ssf("again.tsv.gz").frame.equals(read_gwas_ssf("h.tsv.gz").frame)
    (folder / "h.tsv.gz-meta.yaml").unlink()
    assert main(["sumstats", "check", "h.tsv.gz"]) == 2
    assert "not valid GWAS-SSF: 1 error (" in capsys.readouterr().err


def test_harmonised_gwas_ssf(folder, capsys):
    command = (
        "sumstats harmonise bmi.regenie --reference genotypes.bim --to ssf --build hg38 "
        "--metadata about.yaml --out b.tsv.gz"
    )
    assert main(command.split()) == 0
    assert validate_gwas_ssf("b.tsv.gz").valid
    raw = pl.read_csv("b.tsv.gz", separator="\t")
    assert set(raw["hm_code"].unique()) <= {10, 11, 12, 13}
    about = (folder / "b.tsv.gz-meta.yaml").read_text()
    assert "is_harmonised: true" in about and "harmonisation_reference: genotypes.bim" in about
    # Read again, it fits as it is.
    assert (
        main(
            ["sumstats", "harmonise", "b.tsv.gz", "--reference", "genotypes.bim", "--out", "c.tsv"]
        )
        == 0
    )
    assert read_summary_statistics("c.tsv").keys.equals(read_gwas_ssf("b.tsv.gz").keys)


def test_what_was_run_is_beside_the_output(folder, capsys):
    runs = {
        "c.tsv": "convert bmi.regenie --to tsv",
        "h.tsv": "harmonise bmi.regenie --reference genotypes.bim --palindromic-maf 0.3",
        "e.zarr": "combine height=height.regenie bmi=bmi.regenie --join inner",
    }
    for out, words in runs.items():
        assert main(["sumstats", *words.split(), "--out", out]) == 0
        about = json.loads((folder / f"{out}.run.json").read_text())
        assert about["method"] == f"sumstats {words.split()[0]}"
        assert len(about["inputs"]["bmi.regenie"]["sha256"]) == 64
        assert about["seconds"] > 0
        assert main(["sumstats", *words.split(), "--out", out, "--overwrite"]) == 0
    assert about["options"]["join"] == "inner"
    assert list(about["inputs"]) == ["height.regenie", "bmi.regenie"]


@pytest.mark.parametrize("reference", ["genotypes.bim", "height.regenie"])
def test_harmonise(folder, reference, capsys):
    command = f"sumstats harmonise bmi.regenie --reference {reference} --out b.tsv".split()
    assert main(command) == 0
    captured = capsys.readouterr()
    said = captured.out
    found, target = read_summary_statistics("b.tsv"), pl.read_csv("height.regenie", separator=" ")
    if reference.endswith("bim"):  # which knows no frequencies
        assert "2 A/T and C/G rows of the table left out: there are no allele" in captured.err
        assert "--palindromic infer, as the other rows, or --palindromic keep_forward" in (
            captured.err
        )
        assert "2 left out: A/T or C/G, strand unknown" in said
        assert "10 left out: position not in the reference" in said
        assert len(found) == 378
        target = target[2:380]
    else:
        assert "A/T and C/G: 2 decided by frequency" in said
        assert len(found) == 390
        target = target[:390]
    n_flipped = int((np.arange(390)[2:380] % 3 == 0).sum()) if len(found) == 378 else 130
    assert f"{n_flipped} flipped: effect and other allele exchanged" in said
    assert found.frame["ea"].to_list() == target["ALLELE1"].to_list()
    assert (found.column("eaf") < 0.5).all()


def test_combine_into_memory(folder, capsys):
    """A store behind a URL has its list of variants beside it, as one on disk."""
    import fsspec

    line = "sumstats combine height=height.regenie bmi=bmi.regenie --out"
    assert main([*line.split(), "memory://both.zarr"]) == 0
    assert (
        "written: memory://both.zarr · memory://both.zarr.variants.tsv" in capsys.readouterr().out
    )
    assert main([*line.split(), "e.zarr"]) == 0
    with fsspec.open("memory://both.zarr.variants.tsv", "rb") as listed:
        assert listed.read() == (folder / "e.zarr.variants.tsv").read_bytes()
    assert main([*line.split(), "memory://both.zarr"]) == 2
    fsspec.filesystem("memory").rm("/both.zarr", recursive=True)
    assert main([*line.split(), "memory://both.zarr"]) == 2
    said = capsys.readouterr().err
    assert "memory://both.zarr.variants.tsv exists; to replace it use --overwrite." in said
    assert main([*line.split(), "memory://both.zarr", "--overwrite"]) == 0


def test_tables_that_share_nothing_have_no_next_step(folder, capsys):
    table = pl.read_csv("bmi.regenie", separator=" ")
    far = table.with_columns(CHROM=pl.lit(9), ID=pl.format("other{}", "ID"))
    far.write_csv("far.regenie", separator=" ")
    command = "sumstats combine a=height.regenie b=far.regenie --out n.zarr"
    assert main(command.split()) == 0
    said = capsys.readouterr().out
    assert "no variant is in two contexts: nothing can be learned of what they share" in said
    assert "next:" not in said


def test_combine_keeps_the_build(folder, capsys):
    line = "sumstats combine height=height.regenie bmi=bmi.regenie --out"
    for words, said, kept in (
        ("plain.zarr", "genome build: not stated", None),
        ("built.zarr --build hg19", "genome build: GRCh37", "GRCh37"),
    ):
        assert main([*line.split(), *words.split()]) == 0
        assert said in capsys.readouterr().out
        store = words.split()[0]
        assert read_effects(store).provenance.options["build"] == kept
        assert json.loads((folder / f"{store}.run.json").read_text())["build"] == kept


def test_combine_filters(folder, capsys):
    """The same rows are left out as convert leaves out; what does nothing is refused."""
    line = "sumstats combine height=height.regenie bmi=bmi.regenie --out f.zarr --filters"
    assert main([*line.split(), "ldsc"]) == 0
    assert "height: filters ldsc: not applied, not in the table: info" in capsys.readouterr().out
    names = []
    for name in ("height", "bmi"):
        convert = f"sumstats convert {name}.regenie --to tsv --filters ldsc --out {name}.tsv"
        assert main(convert.split()) == 0
        names += pl.read_csv(f"{name}.tsv", separator="\t")["id"].to_list()
    combined = pl.read_csv("f.zarr.variants.tsv", separator="\t")
    assert set(combined["id"]) == set(names) and combined.height < 400
    capsys.readouterr()
    assert main([*line.split(), "gwaslab", "--overwrite"]) == 2
    assert "no place for STATUS" in capsys.readouterr().err


def test_chromosomes_that_a_reference_lacks_are_named(folder, capsys):
    table = pl.read_csv("bmi.regenie", separator=" ")
    far = table.with_columns(CHROM=pl.int_range(pl.len()) % 3 + 20)
    pl.concat([table, far]).write_csv("wide.regenie", separator=" ")
    command = "sumstats harmonise wide.regenie --reference genotypes.bim --out b.tsv"
    assert main(command.split()) == 0
    assert "  of chromosomes 20, 21, 22 nothing is in the reference" in capsys.readouterr().out


@pytest.mark.parametrize("join", ["inner", "outer"])
def test_combine(folder, join, capsys):
    command = ["sumstats", "combine", "height=height.regenie", "bmi=bmi.regenie", "--out", "e.zarr"]
    assert main([*command, "--join", join]) == 0
    said = capsys.readouterr().out
    assert "height: 400 rows" in said
    assert "130 flipped" in said
    assert "--effects e.zarr" in said and "the reference" not in said
    assert "samples in common their errors correlate, which tables do not tell: give --v" in said
    effects = read_effects("e.zarr")
    assert effects.contexts == ("height", "bmi")
    assert len(effects.bhat) == (390 if join == "inner" else 400)
    assert f"missing: {10 if join == 'outer' else 0} cells" in said
    bmi = pl.read_csv("bmi.regenie", separator=" ")
    sign = np.where(np.arange(390) % 3 == 0, -1, 1)
    np.testing.assert_allclose(effects.bhat[:390, 1], sign * bmi["BETA"].to_numpy(), rtol=1e-12)
    assert main(command) == 2
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("check absent.tsv", "absent.tsv: there is no such file"),
        ("check scanned", "is a folder; give the table in it, scanned/associations.parquet"),
        ("combine a=height.regenie b=. --out e.zarr", ". is a folder; give a table."),
        ("harmonise height.regenie --reference g.bed --out x.tsv", "beside it: give g.bim"),
        ("convert height.regenie --to parquet --out x.tsv", "must end in .parquet"),
        ("convert height.regenie --to ssf --out x.parquet", "must end in .tsv or .tsv.gz"),
        ("convert height.regenie --to ssf --out x.tsv --metadata no.yaml", "no.yaml: there is no"),
        ("convert height.regenie --to tsv --out no/x.tsv", "create it first"),
        ("harmonise height.regenie --reference no.bim --out x.tsv", "no.bim: there is no such"),
        ("harmonise height.regenie --reference genotypes.bim --out x.csv", "must end in"),
        ("combine a=height.regenie --out e.zarr", "one table only"),
        ("combine height.regenie bmi.regenie --out e.zarr", "give each table with its name"),
        ("combine a=height.regenie a=bmi.regenie --out e.zarr", "two tables are called 'a'"),
        ("combine a=height.regenie b=bmi.regenie --out e.csv", "must end in .zarr"),
        ("combine a=height.regenie b=bmi.regenie --out e.zarr --palindromic-maf 2", "0 and 0.5"),
    ],
)
def test_errors(folder, words, text, capsys):
    (folder / "scanned").mkdir()
    (folder / "scanned/associations.parquet").touch()
    before = sorted(folder.iterdir())
    assert main(["sumstats", *words.split()]) == 2
    said = capsys.readouterr().err
    assert text in said
    assert len(said.strip().splitlines()) == 1
    assert sorted(folder.iterdir()) == before


def test_the_guide(folder):
    """The commands and the Python of docs/gwas.md on summary statistics run."""
    text = (Path(__file__).parents[2] / "docs/gwas.md").read_text(encoding="utf-8")
    commands = re.search(r"```bash\n(plait sumstats .*?)```", text, flags=re.DOTALL)[1]
    for command in commands.strip().splitlines():
        assert main(command.split()[1:]) == 0, command
    program = re.search(r"```python\n(from plait.io import Fasta.*?)```", text, flags=re.DOTALL)[1]
    made = {}
    exec(compile("from plait import gwas\n" + program, "docs/gwas.md", "exec"), made)
    assert made["joined"].effects.contexts == ("height", "bmi")
    assert made["found"].counts["forward"] == len(made["found"].table) > 300


def test_tables_of_z(folder, capsys):
    """A table without effects is kept as it is, and its z combined."""
    frame = pl.read_csv("height.regenie", separator=" ")
    columns = {"SNP": "ID", "CHR": "CHROM", "BP": "GENPOS", "A1": "ALLELE1", "A2": "ALLELE0"}
    z = frame.select(**columns, N="N", Z=pl.col("BETA") / pl.col("SE"))
    z.write_csv("z.sumstats", separator="\t")
    convert = "sumstats convert z.sumstats --to tsv --out z.tsv"
    assert main(convert.split()) == 0
    assert "z only" in capsys.readouterr().out
    again = read_summary_statistics("z.tsv")
    assert not again.has_effects
    np.testing.assert_array_equal(again.column("z"), z["Z"].to_numpy())
    combine = "sumstats combine a=z.tsv b=bmi.regenie --palindromic keep_forward --out e.zarr"
    assert main(combine.split()) == 2
    assert "Use --scale z, or read it with --allow-standardised" in capsys.readouterr().err
    assert main([*combine.split(), "--scale", "z"]) == 0
    np.testing.assert_array_equal(read_effects("e.zarr").shat[:390], 1)


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from plait.cli.main import main; main(['sumstats', 'check', '--help']); "
        "main(['gwas', 'pca', '--help']); "
        "heavy = {'numba', 'numpy', 'polars', 'scipy', 'zarr', 'xarray', 'matplotlib'}; "
        "print('LOADED', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "LOADED []" in done.stdout


def test_a_vcf_as_reference(folder, capsys):
    """Of sites alone, of which AF tells the strand of A/T and C/G."""
    raw = pl.read_csv("height.regenie", separator=" ")
    head = '##fileformat=VCFv4.2\n##INFO=<ID=AF,Number=A,Type=Float,Description="frequency">\n'
    head += "##contig=<ID=chr1>\n##contig=<ID=chr2>\n"
    lines = [
        f"chr{row['CHROM']}\t{row['GENPOS']}\t{row['ID']}\t{row['ALLELE0']}\t{row['ALLELE1']}\t.\t"
        f".\t{'AF=' + str(row['A1FREQ']) if number != 1 else '.'}"
        for number, row in enumerate(raw.iter_rows(named=True))
    ]
    lines[5] = lines[5].replace(f"\t{raw['ALLELE1'][5]}\t", f"\t{raw['ALLELE1'][5]},N\t")
    (folder / "sites.vcf").write_text(
        head + "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n" + "\n".join(lines) + "\n"
    )
    command = "sumstats harmonise bmi.regenie --reference sites.vcf --out b.tsv"
    assert main(command.split()) == 0
    said = capsys.readouterr().out
    assert "sites.vcf: 401 variants" in said
    assert "1 decided by frequency, 0 by assumption, 1 left out" in said
    found = read_summary_statistics("b.tsv")
    assert found.frame["ea"].to_list() == raw["ALLELE1"].gather([0, *range(2, 390)]).to_list()


def test_the_rows_of_a_test(folder, capsys):
    """Tools that test several models write a row for each: which are taken is said by --test."""
    height = pl.read_csv("height.regenie", separator=" ", null_values="NA")
    other = height.with_columns(TEST=pl.lit("DOM"), BETA=-pl.col("BETA"))
    pl.concat([height, other]).write_csv("both.regenie", separator=" ", null_value="NA")
    other.write_csv("dom.regenie", separator=" ", null_value="NA")
    assert main(["sumstats", "check", "dom.regenie"]) == 2
    said = capsys.readouterr().err
    assert "dom.regenie: no row is of the test 'ADD'; there are 'DOM'." in said
    assert "Say which: --test NAME" in said
    assert main(["sumstats", "check", "dom.regenie", "--test", "DOM"]) == 0
    assert "SummaryStatistics(400 variants" in capsys.readouterr().out
    to = ["--to", "parquet", "--test", "DOM", "--out", "dom.parquet"]
    assert main(["sumstats", "convert", "both.regenie", *to]) == 0
    written = pl.read_parquet("dom.parquet")
    assert set(written["test"]) == {"DOM"}
    np.testing.assert_array_equal(written["beta"], -height["BETA"].to_numpy())
    to = ["--reference", "genotypes.bim", "--test", "DOM", "--out", "h.tsv"]
    assert main(["sumstats", "harmonise", "both.regenie", *to]) == 0
    to = ["--test", "DOM", "--out", "e.zarr"]
    assert main(["sumstats", "combine", "a=both.regenie", "b=dom.regenie", *to]) == 0
    effects = read_effects("e.zarr")
    np.testing.assert_array_equal(effects.bhat[:, 0], effects.bhat[:, 1])
    capsys.readouterr()
    assert main(["sumstats", "check", "dom.parquet", "--test", "ADD"]) == 2
    assert "no row is of the test 'ADD'" in capsys.readouterr().err
    written.drop("test").write_parquet("bare.parquet")
    assert main(["sumstats", "check", "bare.parquet", "--test", "ADD"]) == 2
    assert "--test does nothing here (no column says which test a row is of)" in (
        capsys.readouterr().err
    )


def test_rows_that_gwas_ssf_cannot_hold(folder, capsys):
    """One insertion in letters of its own, or one contig, does not refuse a table."""
    height = pl.read_csv("height.regenie", separator=" ")
    odd = height.with_row_index("i").with_columns(
        pl.when(pl.col("i") == 3).then(pl.lit("I")).otherwise("ALLELE1").alias("ALLELE1"),
        pl.when(pl.col("i") == 3).then(pl.lit("D")).otherwise("ALLELE0").alias("ALLELE0"),
        pl.when(pl.col("i") == 5).then(pl.lit("GL7")).when(pl.col("i") == 6).then(pl.lit("25"))
        .otherwise(pl.col("CHROM").cast(pl.String)).alias("CHROM"),
    )  # fmt: skip
    odd.drop("i").write_csv("odd.regenie", separator=" ")
    to = ["--to", "ssf", "--build", "hg38", "--metadata", "about.yaml"]
    assert main(["sumstats", "convert", "odd.regenie", *to, "--out", "o.tsv.gz"]) == 0
    said = capsys.readouterr()
    assert "GWAS-SSF cannot hold 2 rows (1:400:D:I, GL7:600:" in said.err
    assert "written: o.tsv.gz (398 rows)" in said.out
    assert validate_gwas_ssf("o.tsv.gz").valid
    assert read_gwas_ssf("o.tsv.gz").frame["chrom"].value_counts(sort=True)["chrom"].to_list() == [
        "2", "1", "X",
    ]  # fmt: skip
    assert main(["sumstats", "check", "o.tsv.gz"]) == 0
    # So does harmonise, whose codes stay with their rows.
    odd.select("CHROM", "ID", cm=pl.lit(0), pos="GENPOS", ea="ALLELE1", oa="ALLELE0").write_csv(
        "odd.bim", separator="\t", include_header=False
    )
    capsys.readouterr()
    command = ["sumstats", "harmonise", "odd.regenie", "--reference", "odd.bim", *to]
    assert main([*command, "--out", "h.tsv.gz"]) == 0
    said = capsys.readouterr()
    assert "GWAS-SSF cannot hold 2 rows (1:400:D:I, GL7:600:" in said.err
    assert "written: h.tsv.gz (396 rows)" in said.out  # and two are A/T or C/G
    assert validate_gwas_ssf("h.tsv.gz").valid
    pl.DataFrame(
        {"chrom": ["GL7"], "pos": [1], "ea": ["A"], "oa": ["G"], "beta": [0.1], "se": [0.1]}
    ).write_csv("none.csv")
    assert main(["sumstats", "convert", "none.csv", *to, "--out", "n.tsv.gz"]) == 2
    assert "GWAS-SSF can hold none of the rows of none.csv" in capsys.readouterr().err
