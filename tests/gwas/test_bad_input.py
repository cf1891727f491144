"""What a user is told about input that cannot be used: one clear line, and the right class.

The names follow the table of errors in the specification of genotypes and summary statistics.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from plait import errors, gwas
from plait.cli import main as program
from plait.data.genotypes import pack
from plait.io import open_genotypes, read_covariates, read_phenotypes, read_summary_statistics
from plait.io.plink import write_bed
from plait.simulate import cohort
from tests.gwas.conftest import InMemory
from tests.io.genotype_examples import write_vcf

N, M = 60, 120
SCAN = "gwas scan --geno geno.bed --pheno traits.csv --covar covariates.csv --out out"


@pytest.fixture(scope="module")
def people():
    return cohort(n_samples=N, n_variants=M, n_causal=2, seed=4)


@pytest.fixture
def folder(people, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_bed("geno.bed", people.blocks(), people.variants, people.samples)
    for name, table in (("traits", people.traits), ("covariates", people.covariates)):
        columns = dict(zip(table.names, table.values.T, strict=True))
        pl.DataFrame({"IID": table.samples.tolist()} | columns).write_csv(f"{name}.csv")
    return tmp_path


def lines_of(name, change: Callable[[list[str]], list[str]]):
    """Rewrite a text file, line by line."""
    lines = change(Path(name).read_text().splitlines())
    Path(name).write_text("\n".join(lines) + "\n")


def cell(name, row, column, value):
    def change(lines):
        cells = lines[row].split(",")
        cells[column] = value
        return [*lines[:row], ",".join(cells), *lines[row + 1 :]]

    lines_of(name, change)


def table(name, rows, columns="chrom pos id ea oa beta se"):
    text = [columns.split(), *([str(value) for value in row] for row in rows)]
    Path(name).write_text("\n".join("\t".join(row) for row in text) + "\n")


def first_bytes(name, start):
    data = Path(name).read_bytes()
    Path(name).write_bytes(start + data[len(start) :])


def write_sample_major():
    """The .bed with rows of samples, as PLINK wrote it long ago."""
    calls = open_genotypes("geno.bed").read(dtype=np.int8)
    rows = pack(np.ascontiguousarray(calls.T)).tobytes()
    Path("geno.bed").write_bytes(b"\x6c\x1b\x00" + rows)


def other_build(name):
    rows = [("1", 1000 + i, f"rs{i}", "A", "G", 0.1, 0.1) for i in range(20)]
    table("here.tsv", rows)
    table("there.tsv", [(c, pos + 777, *rest) for c, pos, *rest in rows])
    return name


@dataclass
class Row:
    """A situation: how it comes about, the command that meets it, and what it answers."""

    name: str
    spoil: Callable[[], object]
    error: type[Exception]
    says: tuple[str, ...]
    command: str = SCAN
    status: int = 2


ROWS = (
    Row("no file", lambda: Path("geno.bed").unlink(), errors.MissingSidecarError,
        ("geno.bed: there is no such file",)),
    Row("no bim", lambda: Path("geno.bim").unlink(), errors.MissingSidecarError,
        ("geno.bed needs geno.bim (or .gz) beside it",)),
    Row("no fam", lambda: Path("geno.fam").unlink(), errors.MissingSidecarError,
        ("geno.bed needs geno.fam (or .gz) beside it",)),
    Row("no traits", lambda: Path("traits.csv").unlink(), errors.MissingSidecarError,
        ("traits.csv: there is no such file",)),
    Row("bim of other columns", lambda: lines_of("geno.bim", lambda lines: ["1 a 0 5", *lines[1:]]),
        errors.FileFormatError, ("geno.bim: row 1 has 4 columns; expected 6: chrom, id",)),
    Row("truncated bed",
        lambda: Path("geno.bed").write_bytes(Path("geno.bed").read_bytes()[:-10]),
        errors.TruncatedFileError,
        ("geno.bed has 1,793 bytes", "120 variants (.bim) of 60 samples (.fam) take 1,803",
         "cut off, or these files do not belong together")),
    Row("longer bed",
        lambda: Path("geno.bed").write_bytes(Path("geno.bed").read_bytes() + b"\0"),
        errors.TruncatedFileError, ("has 1,804 bytes", "take 1,803")),
    Row("sample-major bed", write_sample_major, errors.UnsupportedLayoutError,
        ("geno.bed is stored sample by sample",
         "plink2 --bfile geno --make-bed --out NEW")),
    Row("no bed at all", lambda: first_bytes("geno.bed", b"PK\3"), errors.FileFormatError,
        ("geno.bed is not a PLINK .bed file: it begins b'PK",)),
    Row("unknown format", lambda: Path("geno.what").write_text("hello\n"),
        errors.UnknownGenotypeFormatError,
        ("geno.what: neither its suffix nor its first bytes", "tried bed, pgen, vcf, bgen"),
        SCAN.replace("geno.bed", "geno.what")),
    Row("sample twice in fam",
        lambda: lines_of("geno.fam", lambda lines: [lines[0], lines[0], *lines[2:]]),
        errors.DuplicateSampleError,
        ("geno.fam: rows 1 and 2 are the same sample, '0:person00001'",)),
    Row("sample twice in traits", lambda: cell("traits.csv", 2, 0, "person00001"),
        errors.DuplicateSampleError,
        ("traits.csv: more than one sample is called 'person00001'", "Remove or rename")),
    Row("text in a trait", lambda: cell("traits.csv", 2, 1, "tall"), errors.FileFormatError,
        ("traits.csv: column 'trait1' has 'tall' for sample 'person00002'; expected a number",
         "Missing values are written NA")),
    Row("cases and controls in words",
        lambda: lines_of("traits.csv", lambda lines: [
            lines[0], *(f"{x.split(',')[0]},{'FM'[k % 2]},0" for k, x in enumerate(lines[1:]))
        ]),
        errors.FileFormatError,
        ("column 'trait1' has 'F' for sample 'person00001'; expected a number",
         "A trait of two values ('F' and 'M') is written 0 (control) and 1 (case), or 1 and 2."),
        f"{SCAN} --model logistic --traits trait1"),
    Row("infinite trait", lambda: cell("traits.csv", 2, 1, "inf"), errors.FileFormatError,
        ("traits.csv: column 'trait1' is infinite for 1 sample (first: 'person00002')",)),
    Row("no such trait", lambda: None, errors.LabelError,
        ("traits.csv: there is no column 'height'; there are trait1, trait2",),
        f"{SCAN} --traits height"),
    Row("no sample in common",
        lambda: lines_of("traits.csv", lambda lines: [lines[0], *("F7_" + x for x in lines[1:])]),
        errors.LabelError,
        ("genotypes and phenotypes have no sample in common", "begin 'person00001', 'person00002'",
         "begin 'F7_person00001'", "60 would match with the prefix 'F7_' of the phenotypes")),
    Row("names in capitals", lambda: lines_of("traits.csv", lambda lines: [
            lines[0], *(x.replace("person", "PERSON") for x in lines[1:])]),
        errors.LabelError, ("60 would match with capital and small letters the same",)),
    Row("names with separators", lambda: lines_of("traits.csv", lambda lines: [
            lines[0], *(x.replace("person", "per.son-") for x in lines[1:])]),
        errors.LabelError, ("60 would match with '-', '.', '_' and blanks left out",)),
    Row("too few samples", lambda: lines_of("traits.csv", lambda lines: lines[:5]),
        errors.TooFewSamplesError,
        ("trait 'trait1' is measured on 4 of the 4 samples with genotypes, some trait and all "
         "covariates; with 2 covariates and the constant",
         "at least 5 are needed"), f"{SCAN} --covariates age,sex"),
    Row("trait without a value",
        lambda: [cell("traits.csv", row, 1, "NA") for row in range(1, N + 1)],
        errors.TooFewSamplesError,
        ("trait 'trait1' is measured on 0 of the 60 samples", "at least 3 are needed")),
    Row("trait without a value, mixed",
        lambda: [cell("traits.csv", row, 1, "-9") for row in range(1, N + 1)],
        errors.TooFewSamplesError, ("trait 'trait1' is measured on 0 of the 60 samples",),
        f"{SCAN} --model mixed"),
    Row("trait without a value, interaction",
        lambda: [cell("traits.csv", row, 1, "NA") for row in range(1, N + 1)],
        errors.TooFewSamplesError, ("trait 'trait1' is measured on 0 of the 60 samples",),
        f"{SCAN.replace('scan', 'interaction')} --environment age"),
    Row("trait without a value, logistic", lambda: pl.read_csv("traits.csv").select(
            "IID", pl.lit(None).alias("ill")).write_csv("traits.csv", null_value="NA"),
        errors.TooFewSamplesError, ("trait 'ill' has no value in any of 60 samples",),
        f"{SCAN} --model logistic"),
    Row("constant trait",
        lambda: [cell("traits.csv", row, 1, "3") for row in range(1, N + 1)],
        errors.ConstantTraitError, ("trait 'trait1' does not vary", "60 samples", "Leave it out")),
    Row("missing covariate", lambda: cell("covariates.csv", 2, 1, ""),
        errors.MissingCovariateError,
        ("covariate 'age' is missing for 1 of 60 samples", "--drop-missing-covariates")),
    Row("a note for a covariate",
        lambda: [cell("covariates.csv", row, 1, f"note {row}") for row in range(1, N + 1)],
        errors.TooFewSamplesError,
        ("59 of the covariates are indicators of the values of 'age', which is text: leave it out",
         "(--covariates)"), f"{SCAN} --covariates age"),
    Row("infinite covariate", lambda: cell("covariates.csv", 2, 1, "inf"),
        errors.MissingCovariateError,
        ("covariates.csv: column 'age' is infinite for 1 sample (first: 'person00002')",)),
    Row("ambiguous alleles",
        lambda: table("a.tsv", [(1, 5, "r1", "A", "G", 0.1, 0.1)],
                      "CHROM POS ID Allele1 Allele2 BETA SE"),
        errors.AmbiguousAlleleColumnsError,
        ("a.tsv has the allele columns Allele1, Allele2", "METAL: Allele1, SAIGE: Allele2",
         "--columns chrom=CHROM,pos=POS,id=ID,ea=Allele1,oa=Allele2,beta=BETA,se=SE",
         "--dialect NAME"), "sumstats check a.tsv"),
    Row("no effect column",
        lambda: table("a.tsv", [(1, 5, "A", "G", 0.1)], "CHROM POS ea oa P"),
        errors.UnknownDialectError,
        ("a.tsv has no column that is known to hold an effect or z. It has CHROM, POS, ea, oa, P",
         "--columns"), "sumstats check a.tsv"),
    Row("no variant fits",
        lambda: table("a.tsv", [(1, 7, "r1", "A", "G", 0.1, 0.1)]),
        errors.HarmonisationError,
        ("none of the 1 rows of the table fits the 120 variants of the reference",
         "reference: 1 are at other positions",
         "on different genome builds, cover other regions, or name chromosomes"),
        "sumstats harmonise a.tsv --reference geno.bim --out b.tsv"),
    Row("builds declared differently",
        lambda: table("a.tsv", [(1, 249250000, "r1", "A", "G", 0.1, 0.1)]),
        errors.GenomeBuildError,
        ("the table of 'height' is said to be on GRCh38",
         "position 1:249250000 lies beyond the end of the chromosome (248,956,422)"),
        "sumstats harmonise a.tsv --build hg38 --trait height --reference a.tsv --out b.tsv"),
    Row("builds by known positions", lambda: other_build("a"), errors.GenomeBuildError,
        ("20 of the 20 variants that the table of 'there' and the table of 'here' both name",
         "different genome builds", "Lift one of them over first"),
        "sumstats combine here=here.tsv there=there.tsv --out b.zarr"),
    Row("all standard errors zero",
        lambda: table("a.tsv", [(1, i, f"r{i}", "A", "G", 0.1, 0) for i in range(1, 8)]),
        errors.InputError,
        ("no usable standard error (zero, negative or missing) in 7 rows "
         "(1:1:G:A, 1:2:G:A, 1:3:G:A, 1:4:G:A, 1:5:G:A, ...)",),
        "sumstats check a.tsv"),
    Row("text in a table",
        lambda: table("a.tsv", [(1, 5, "r1", "A", "G", 0.1, "small")]),
        errors.FileFormatError,
        ("a.tsv: column 'se' has 'small' in row 1 of the data, where a number is expected",),
        "sumstats check a.tsv"),
    Row("damaged table",
        lambda: Path("a.tsv.gz").write_bytes(b"\x1f\x8b\x08\0damaged"), errors.FileFormatError,
        ("a.tsv.gz is damaged or cut short",), "sumstats check a.tsv.gz"),
)  # fmt: skip


def test_positions_that_do_not_ascend_are_sorted_and_that_is_said(folder, capsys):
    lines_of("geno.bim", lambda lines: lines[::-1])
    assert program.main(["gwas", "pca", "--geno", "geno.bed", "-k", "2", "--out", "out.csv"]) == 0
    said = capsys.readouterr().out
    assert "note: positions do not ascend on chromosome 5, 4, 3, 2, 1: sorted to find li" in said


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_one_line_says_what_is_wrong(folder, row, capsys, monkeypatch):
    row.spoil()
    met = []
    tell = program.report_error
    monkeypatch.setattr(program, "report_error", lambda error: (met.append(error), tell(error)))
    assert program.main([*row.command.split(), "--quiet"]) == row.status
    told = capsys.readouterr().err.splitlines()
    assert len(met) == 1
    assert type(met[0]) is row.error
    assert len(told) == 1
    assert told[0].startswith("plait: error: ")
    for text in row.says:
        assert text in told[0]
    assert not Path("out").exists()


def test_some_standard_errors_zero_are_counted_with_the_first_keys(folder, capsys):
    rows = [(1, i, f"r{i}", "A", "G", 0.1, 0 if i < 7 else 0.1) for i in range(1, 9)]
    table("a.tsv", rows)
    assert program.main(["sumstats", "check", "a.tsv"]) == 0
    said = capsys.readouterr()
    assert "6 rows (1:1:G:A, 1:2:G:A, 1:3:G:A, 1:4:G:A, 1:5:G:A, ...); left out" in said.err
    assert "left out: 6 rows with no usable standard error" in said.out
    with pytest.raises(errors.InputError, match="6 rows"):
        read_summary_statistics("a.tsv", bad_se="error")


def test_samples_with_a_missing_covariate_can_be_left_out(folder):
    cell("covariates.csv", 2, 1, "NA")
    assert program.main([*SCAN.split(), "--quiet", "--drop-missing-covariates"]) == 0


def test_unsorted_variants_are_found_by_region_and_scanned(folder):
    lines_of("geno.bim", lambda lines: lines[::-1])
    whole = open_genotypes("geno.bed")
    middle = int(np.median(whole.variants.pos))
    found = open_genotypes("geno.bed", region=f"1:1-{middle}")
    frame = whole.variants.frame
    asked = ((frame["chrom"] == "1") & (frame["pos"] <= middle)).to_numpy()
    assert 0 < found.n_variants == asked.sum()
    np.testing.assert_array_equal(found.read(dtype=np.int8), whole.read(dtype=np.int8)[asked])
    traits = read_phenotypes("traits.csv", ["trait1"])
    rules = gwas.VariantFilter(None, 1)
    scanned = gwas.scan(whole, traits, variant_filter=rules)
    alone = gwas.scan(found, traits, variant_filter=rules)
    np.testing.assert_array_equal(scanned.beta[asked], alone.beta)


def test_one_chromosome_and_loco_warns(folder):
    genotypes = open_genotypes("geno.bed", region="1:1-")
    traits = read_phenotypes("traits.csv", ["trait1"])
    rules = gwas.VariantFilter(None, 1)
    with pytest.warns(errors.ModelWarning, match="one chromosome only"):
        asked = gwas.scan(genotypes, traits, model="mixed", loco=True, variant_filter=rules)
    without = gwas.scan(genotypes, traits, model="mixed", loco=False, variant_filter=rules)
    np.testing.assert_array_equal(asked.beta, without.beta)


def test_region_of_a_vcf_without_index(tmp_path):
    path = write_vcf(tmp_path / "a.vcf")
    with pytest.raises(errors.MissingSidecarError, match=r"a\.vcf\.tbi or \.csi .* bcftools index"):
        open_genotypes(path, region="1:1-100")


def test_relationships_beyond_memory_are_refused_before_the_work():
    chromosomes = [str(number) for number in range(1, 10)]
    genotypes = InMemory(np.ones((9, 1200), dtype=np.int8), chromosomes=chromosomes)
    said = "1,200 samples on 9 chromosome.* take 41 MiB and memory is 32 MiB: raise --memory .* or "
    with pytest.raises(errors.CapacityError, match=said + "give by_chromosome=False"):
        gwas.relationship_matrix(genotypes, memory="32MiB")
    # The option that the message names is one that fits.
    gwas.relationship_matrix(genotypes, by_chromosome=False, memory="32MiB")
    with pytest.raises(errors.CapacityError, match=r"raise --memory \(memory=\)\.$"):
        gwas.relationship_matrix(genotypes, by_chromosome=False, memory="16MiB")


def test_a_scan_beyond_memory_says_so_in_one_line(people, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    samples = [f"s{i}" for i in range(900)]
    calls = np.random.default_rng(0).integers(0, 3, (len(people.variants), 900)).astype(np.int8)
    write_bed("geno.bed", [calls], people.variants, samples)
    values = np.random.default_rng(1).standard_normal(900)
    pl.DataFrame({"IID": samples, "y": values}).write_csv("traits.csv")
    command = "gwas scan --geno geno.bed --pheno traits.csv --out out --model mixed --quiet"
    assert program.main([*command.split(), "--memory", "16MiB"]) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert "relationships of 900 samples on" in told[0]
    assert "raise --memory, or give --no-loco." in told[0]


def test_tables_of_samples(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("FID,IID,y,x,batch\nf,a,1,-9,two\ng,b,-9,-2,one\nh,c,2.5,.,one\n")
    traits = read_phenotypes(path, ["y", "x"])
    assert traits.samples.tolist() == ["a", "b", "c"]
    # -9 is missing only where no other value is negative.
    np.testing.assert_array_equal(traits.values, [[1, -9], [np.nan, -2], [2.5, np.nan]])
    covariates = read_covariates(path, ["batch"])
    assert covariates.names == ("batch=two",)
    np.testing.assert_array_equal(covariates.values, [[1.0], [0.0], [0.0]])
    with pytest.raises(errors.LabelError, match=r"t\.csv: there is no column 'z'; there are y, x"):
        read_phenotypes(path, ["z"])
    with pytest.raises(errors.LabelError, match="take as categorical"):
        read_covariates(path, categorical=["z"])
    # Names that repeat are told apart by their family, as in PLINK's tables.
    path.write_text("#FID IID y\nf a 1\ng a 2\n")
    assert read_phenotypes(path).samples.tolist() == ["f:a", "g:a"]
