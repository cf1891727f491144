"""What a scan says of how it took the data, and what it refuses: in flags, in one line."""

import re

import numpy as np
import polars as pl
import pytest

from plait.cli.main import main
from plait.io.plink import write_bed
from plait.simulate import cohort
from tests.cli.pictures import empty_pictures
from tests.cli.test_words import PYTHON

__all__ = ["empty_pictures"]  # a fixture
pytestmark = pytest.mark.usefixtures("empty_pictures")

N = 150


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    people = cohort(n_samples=N, n_variants=300, n_causal=3, seed=3)
    write_bed(folder / "g.bed", people.blocks(), people.variants, people.samples)
    names = people.samples.tolist()
    age = people.covariates.values[:, 0]
    pl.DataFrame({"IID": names, "age": age}).write_csv(folder / "c.csv")
    height = people.traits.values[:, 0] + 10
    coded = np.where(np.arange(N) < 7, -9, height)
    case = (people.traits.values[:, 1] > 0).astype(int)
    traits = {"height": height, "coded": coded, "gout": case, "asthma": case + 1}
    pl.DataFrame({"IID": names} | traits).write_csv(folder / "y.csv")
    variants = people.variants.frame.select("chrom", "pos", "ea", "oa")
    variants.with_columns(beta=0.1, se=0.1).write_csv(folder / "t.tsv", separator="\t")
    return folder


@pytest.fixture
def here(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in files.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


def scanned(options, out="o"):
    return main(f"gwas scan --geno g.bed --pheno y.csv --out {out} {options}".split())


def notes(captured):
    return [line for line in captured.out.splitlines() if line.startswith("note: ")]


def test_how_data_were_understood_is_said_once(here, capsys):
    assert scanned("") == 0
    assert notes(capsys.readouterr()) == [
        "note: y.csv: values of -9 taken as missing, where no other value is negative: 7 (in "
        "'coded')",
        "note: traits of cases and controls: 2 of 4 (first: 'gout'). The linear model takes them "
        "as numbers, and effects are differences of risk; --model logistic estimates odds ratios, "
        "and is safe with few cases.",
    ]


@pytest.mark.filterwarnings("ignore:calibration")
def test_traits_that_nobody_named(here, capsys):
    """Which columns are traits: folds of a cross-validation, say, are one more if not told."""
    table = pl.read_csv("y.csv").select("IID", "height").with_columns(fold=pl.int_range(N) % 5)
    table.write_csv("folds.csv")
    every = "300 variants x 2 traits: height, fold (all columns; --traits chooses among them)"
    commands = {
        "gwas scan --geno g.bed --pheno folds.csv": every,
        "gwas scan --geno g.bed --pheno folds.csv --traits height": "300 variants x 1 trait",
        "gwas interaction --geno g.bed --pheno folds.csv --covar c.csv --environment age": every,
    }
    for number, (command, expected) in enumerate(commands.items()):
        assert main([*command.split(), "--out", f"folds{number}"]) == 0
        assert capsys.readouterr().out.splitlines()[0] == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("plait.cli.gwas._LISTED", 1)
        assert main([*next(iter(commands)).split(), "--out", "folds9"]) == 0
    assert "2 traits: height, ... (all" in capsys.readouterr().out


def test_other_models_than_the_linear_one(here, capsys):
    assert scanned("--traits gout --model mixed") == 0
    (note,) = notes(capsys.readouterr())
    assert "The mixed model takes them as numbers" in note
    assert "--model whole-genome-logistic estimates" in note
    assert scanned("--traits gout,asthma --model logistic", "l") == 0
    assert notes(capsys.readouterr()) == []


def test_nothing_is_said_where_nothing_is_meant_otherwise(here, capsys):
    assert scanned("--traits height") == 0
    assert notes(capsys.readouterr()) == []
    assert scanned("--traits height,gout --quiet", "q") == 0
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_a_quality_asked_of_hard_calls(here, capsys):
    assert scanned("--traits height --min-info 0.3") == 0
    said = capsys.readouterr().err
    assert "plait: warning: --min-info does nothing: these genotypes are hard calls" in said


SCAN = "gwas scan --geno g.bed --pheno y.csv --out o"
STUDY = "gwas-to-mash --geno g.bed --pheno y.csv --out o"
INTERACTION = "gwas interaction --geno g.bed --pheno y.csv --covar c.csv --environment age --out o"
REFUSED = (
    (f"{SCAN} --loco", "--loco is for --model mixed; in the linear model there are no"),
    (f"{SCAN} --no-loco", "--no-loco is for --model mixed; in the linear model"),
    (f"{SCAN} --traits gout --model logistic --loco", "--loco is for --model mixed; in the log"),
    (f"{SCAN} --model whole-genome --no-loco", "always leaves chromosomes out; --no-loco cannot"),
    (f"{SCAN} --model mixed --missing drop", "the mixed model takes --missing mean only"),
    (f"{SCAN} --traits gout --model logistic --transform rank", "as they are, --transform none"),
    (f"{SCAN} --model logistic", "--model logistic takes traits of controls and cases"),
    (f"{SCAN} --metadata m.yaml", "--metadata does nothing without --format ssf: leave it out"),
    (f"{SCAN} --format ssf", "--format ssf needs --metadata FILE"),
    (f"{SCAN} --covariates age", "--covariates does nothing without --covar FILE"),
    (f"{SCAN} --categorical age", "--categorical does nothing without --covar FILE"),
    (f"{SCAN} --drop-missing-covariates", "--drop-missing-covariates does nothing without --covar"),
    (f"{SCAN} --model straight", "error: Invalid value for '--model': 'straight' is not one of"),
    (f"{SCAN} --min-mac few", "unable to parse string as an integer. See --help."),
    (f"{SCAN} --min-maf 2", "--min-maf is 2.0; give a number between 0 and 0.5"),
    (f"{SCAN} --min-call-rate 2", "--min-call-rate is 2.0; give a number between 0 and 1"),
    (f"{SCAN} --min-info 2", "--min-info is 2.0; give a number"),
    (f"{SCAN} --min-mac -2", "--min-mac is -2; it cannot be negative"),
    (f"{SCAN} --pcs 999", "--pcs is 999; of 150 samples there are 1 to 149 components"),
    (f"{SCAN} --pcs -1", "--pcs is -1; of 150 samples"),
    (f"{SCAN} --memory 1M",
     "--memory is '1M' (1,000,000 bytes); give an amount of at least 1 MiB (1,048,576 bytes"),
    (f"{SCAN} --threads 0", "--threads is 0; give at least 1, or -1"),
    (f"{STUDY} --loco", "--loco is for --model mixed"),
    (f"{STUDY} --strong-p 2", "--strong-p is 2.0; give a p-value between 0 and 1"),
    (f"{STUDY} --random-size 2", "--random-size is 2; give at least 100"),
    (f"{STUDY} --covariates age", "--covariates does nothing without --covar FILE"),
    (f"{INTERACTION} --min-maf 2", "--min-maf is 2.0"),
    ("gwas pca --geno g.bed --out o.csv -k -1", "--components is -1; of 150 samples there are"),
    ("gwas pca --geno g.bed --out o.csv --r2 7", "--r2 is 7.0; give a number above 0"),
    ("gwas pca --geno g.bed --out o.csv --min-maf 0.499", "Lower --min-maf or raise --r2"),
    ("gwas pca --geno g.bed --out o.csv --exclude-region 1:5-2", "--exclude-region is '1:5-2'"),
    ("gwas region t.tsv --window-kb -1 --out o.png", "--window-kb is -1.0; give a number above 0"),
    ("sumstats convert t.tsv --to parquet --metadata m.yaml --out o.parquet",
     "--metadata does nothing without --to ssf"),
    ("sumstats harmonise t.tsv --reference g.bim --palindromic-maf 2 --out o.tsv",
     "--palindromic-maf is 2.0; it is between 0 and 0.5"),
    ("sumstats check t.tsv --context EUR", "holds one context only; leave out --context EUR"),
    ("sumstats check t.tsv --dialect nothing", "unknown dialect 'nothing'"),
    ("sumstats combine a=t.tsv b=t.tsv --out y.csv", "y.csv: the output must end in .zarr"),
)  # fmt: skip


@pytest.mark.parametrize(("line", "text"), REFUSED, ids=[line for line, _ in REFUSED])
def test_what_is_refused_is_said_in_flags(here, line, text, capsys):
    assert main([*line.split(), "--quiet"]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert text in told
    assert PYTHON.search(told.removeprefix("plait: error: ")) is None
    assert not re.search(r"\((?:overwrite|memory)=", told)


@pytest.mark.parametrize("line", [SCAN, STUDY, "gwas qc --geno g.bed --out o"])
def test_a_folder_that_holds_something_else(here, line, capsys):
    (here / "o").mkdir()
    for name in ("run.json", "associations.zarr"):
        (here / "o" / name).write_text("mine")
    assert main(line.split()) == 2
    said = capsys.readouterr().err
    assert re.search(r"o/[a-z.]+ exists; to replace it use --overwrite\.$", said.strip())
    assert (here / "o/run.json").read_text() == "mine"


@pytest.mark.parametrize("line", [SCAN, STUDY, "gwas qc --geno g.bed --out o", "demo --out o"])
def test_a_folder_of_somebody(here, line, capsys):
    """Nothing is written among other files, unless that is asked for; they are never touched."""
    (here / "o").mkdir()
    (here / "o" / "thesis.doc").write_text("mine")
    assert main(line.split()) == 2
    told = capsys.readouterr().err.strip()
    assert told.endswith(
        "o holds files that are not of this command (thesis.doc). Give a new or an empty folder, "
        "or --overwrite to write beside them: they are left as they are."
    )
    assert [path.name for path in (here / "o").iterdir()] == ["thesis.doc"]
    if line.startswith("gwas qc"):
        assert main([*line.split(), "--overwrite", "--quiet"]) == 0
        assert (here / "o/thesis.doc").read_text() == "mine" and (here / "o/run.json").exists()


def test_components_of_dosages_are_those_of_their_calls(here, capsys):
    """Dosages are scanned; components come from the calls beside them."""
    random = np.random.default_rng(1)
    calls = random.integers(0, 3, (400, N))
    names = [f"p{i}" for i in range(N)]
    fixed = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT"]
    lines = [
        "##fileformat=VCFv4.2",
        '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">',
        '##FORMAT=<ID=DS,Number=1,Type=Float,Description="Dosage">',
        "##contig=<ID=1>",
        "\t".join(fixed + names),
    ]
    texts = ("0/0:0.1", "0/1:1.2", "1/1:1.9")
    for i, row in enumerate(calls):
        lines.append("\t".join(["1", str(100 + i), f"v{i}", *"AG.", "PASS", ".", "GT:DS",
                                *(texts[call] for call in row)]))  # fmt: skip
    (here / "g.vcf").write_text("\n".join(lines) + "\n")
    pl.DataFrame({"IID": names, "y": random.normal(size=N)}).write_csv("z.csv")
    line = "gwas scan --geno g.vcf --pheno z.csv --pcs 2 --out o"
    assert main(line.split()) == 0, capsys.readouterr().err


def test_traits_without_tests_are_named(here, capsys):
    frame = pl.read_csv("y.csv")
    few = pl.when(pl.int_range(pl.len()) < 9).then(pl.col("height")).alias("few")
    frame.select("IID", "height", few).write_csv("few.csv")
    assert main(["gwas", "scan", "--geno", "g.bed", "--pheno", "few.csv", "--out", "o"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "attention: no variant was tested for 'few'; see tests left out" in lines


def test_handlers_of_libraries_do_not_say_everything_again(here, capsys, monkeypatch):
    """The reader of BGEN gives the root logger a handler."""
    import logging

    heard = []
    handler = logging.Handler()
    handler.emit = heard.append
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [*root.handlers, handler])
    assert scanned("--traits height") == 0
    assert [record.getMessage() for record in heard if record.name.startswith("plait")] == []
    assert logging.getLogger("plait").propagate
