"""Tables that hold several contexts side by side: methods, populations, studies."""

import gzip
import logging

import numpy as np
import polars as pl
import pytest

from plait.cli.main import main
from plait.errors import FileFormatError, LabelError, OptionError, UnknownDialectError
from plait.io import read_effects, read_summary_contexts, read_summary_statistics
from tests.reference_files import REFERENCE

PANICLE = REFERENCE / "summary_statistics/panicle_GWAS_trait1_all_results.csv"
VCF = """##fileformat=VCFv4.2
##FORMAT=<ID=ES,Number=A,Type=Float,Description="Effect size estimate relative to the alternative">
##FORMAT=<ID=SE,Number=A,Type=Float,Description="Standard error of effect size estimate">
##FORMAT=<ID=LP,Number=A,Type=Float,Description="-log10 p-value for effect estimate">
##FORMAT=<ID=AF,Number=A,Type=Float,Description="Alternate allele frequency">
##FORMAT=<ID=SS,Number=A,Type=Float,Description="Sample size used to estimate genetic effect">
##FORMAT=<ID=ID,Number=1,Type=String,Description="Study variant identifier">
##contig=<ID=1,length=249250621,assembly=HG19/GRCh37>
#CHROM POS ID REF ALT QUAL FILTER INFO FORMAT bmi t2d
1 100 rs1 A G . PASS . ES:SE:LP:AF:SS:ID 0.2:0.1:1.342:0.3:500:rs1 0.1:0.05:1.342:0.31:400:rs1
1 200 rs2 C T . PASS . ES:SE:LP:ID -1:0.02:999:rs2 .:.:.:rs2
1 300 rs3 C T,G . PASS . ES:SE:LP:ID 1:0.1:2:rs3 1:0.1:2:rs3
X 400 rs4 G GA . PASS AF=0.5 SE:ES 0.5:0.25 0.5:-0.25
""".replace(" ", "\t").replace("size\testimate", "size estimate")


@pytest.fixture
def studies(tmp_path):
    path = tmp_path / "studies.vcf.gz"
    path.write_bytes(gzip.compress(VCF.encode()))
    return path


def test_methods_of_panicle():
    raw = pl.read_csv(PANICLE).drop_nulls()
    found = read_summary_contexts(PANICLE)
    assert list(found) == ["GLM", "MLM"]
    for method, table in found.items():
        assert table.frame["ea"].to_list() == raw["ALT"].to_list()
        assert table.frame["oa"].to_list() == raw["REF"].to_list()
        for name, column in (("beta", "Effect"), ("se", "SE")):
            np.testing.assert_array_equal(table.column(name), raw[f"{method}_{column}"])
        np.testing.assert_allclose(table.p, raw[f"{method}_P"], rtol=1e-12)


def test_panicle_without_standard_errors_has_those_of_p(tmp_path):
    path = tmp_path / "a.csv"
    frame = pl.read_csv(PANICLE).drop("GLM_SE", "MLM_SE")
    frame.write_csv(path)
    bare, whole = (read_summary_statistics(f, context="GLM") for f in (path, PANICLE))
    # PANICLE's p-values are normal for as many samples as these.
    np.testing.assert_allclose(bare.column("se"), whole.column("se"), rtol=1e-10)


def test_populations_of_pan_ukb(tmp_path, caplog):
    path = tmp_path / "pan.tsv"
    names = ["beta", "se", "neglog10_pval"]
    columns = ["chr", "pos", "ref", "alt"]
    columns += [f"{name}_{where}" for name in ["af", *names] for where in ("meta", "AFR", "EUR")]
    columns += ["neglog10_pval_heterogeneity", "low_confidence_AFR", "low_confidence_EUR"]
    rows = (
        "1 5 A G .2 .1 .3 .5 NA .4 .1 NA .2 6.2 NA 1.3 0.2 NA false",
        "1 9 T C .2 .1 .3 .5 .7 .4 .1 .3 .2 6.2 1.7 1.3 0.2 false false",
    )
    path.write_text("\n".join([" ".join(columns), *rows]).replace(" ", "\t") + "\n")
    with pytest.raises(UnknownDialectError, match="dialect='pan-ukb'"):
        read_summary_contexts(path)
    with caplog.at_level(logging.WARNING, "plait.io"):
        found = read_summary_contexts(path, "pan-ukb")
    assert "not confirmed" in caplog.text
    assert list(found) == ["AFR", "EUR"]  # not the meta-analysis of them
    assert found["AFR"].frame["pos"].to_list() == [9]
    np.testing.assert_array_equal(found["EUR"].column("beta"), [0.4, 0.4])
    np.testing.assert_array_equal(found["EUR"].column("log10p"), [-1.3, -1.3])
    np.testing.assert_array_equal(found["EUR"].column("eaf"), [0.3, 0.3])
    meta = read_summary_statistics(path, "pan-ukb", context="meta")
    np.testing.assert_array_equal(meta.column("beta"), [0.5, 0.5])


def test_studies_of_gwas_vcf(studies):
    found = read_summary_contexts(studies)
    assert list(found) == ["bmi", "t2d"]
    bmi = found["bmi"]
    assert bmi.build == "GRCh37"
    # A row with several alternatives is left out.
    assert bmi.keys.to_list() == ["1:100:A:G", "1:200:C:T", "X:400:G:GA"]
    np.testing.assert_array_equal(bmi.column("beta"), [0.2, -1.0, 0.25])
    np.testing.assert_array_equal(bmi.column("se"), [0.1, 0.02, 0.5])
    assert bmi.column("log10p")[0] == -1.342
    # 999 stands for a p-value of 0, which z knows better: log10 p of z = 50 is -544.6.
    np.testing.assert_allclose(bmi.column("log10p")[1], -544.6, atol=0.1)
    np.testing.assert_array_equal(bmi.column("n"), [500, np.nan, np.nan])
    assert found["t2d"].keys.to_list() == ["1:100:A:G", "X:400:G:GA"]
    assert found["t2d"].column("beta")[1] == -0.25
    assert read_summary_statistics(studies, context="t2d").frame.equals(found["t2d"].frame)


def test_fields_that_no_row_has(tmp_path, monkeypatch, capsys):
    """OpenGWAS declares EZ, SI and NC in every header and writes them in few files."""
    declared = "".join(
        f'##FORMAT=<ID={name},Number=A,Type=Float,Description="not written">\n'
        for name in ("EZ", "SI", "NC")
    )
    path = tmp_path / "ieu.vcf"
    path.write_text(VCF.replace("##contig", f"{declared}##contig"))
    found = read_summary_contexts(path)
    assert found["bmi"].keys.to_list() == ["1:100:A:G", "1:200:C:T", "X:400:G:GA"]
    np.testing.assert_allclose(found["bmi"].column("z"), [2, -50, 0.5], rtol=1e-15)
    assert np.isnan(found["bmi"].column("info")).all()
    assert found["t2d"].keys.to_list() == ["1:100:A:G", "X:400:G:GA"]
    monkeypatch.chdir(tmp_path)
    assert main(["sumstats", "check", "ieu.vcf", "--context", "bmi"]) == 0
    assert "SummaryStatistics(3 variants, trait 'bmi'" in capsys.readouterr().out
    assert main(["sumstats", "combine", "ieu.vcf", "--out", "e.zarr"]) == 0


def test_errors(studies, tmp_path):
    with pytest.raises(OptionError, match="several contexts: bmi, t2d"):
        read_summary_statistics(studies)
    with pytest.raises(LabelError, match="no context 'x'; there are bmi, t2d"):
        read_summary_statistics(studies, context="x")
    one = tmp_path / "a.tsv"
    one.write_text("SNP A1 A2 N Z\nrs1 A G 5 1\n")
    with pytest.raises(OptionError, match="one context only"):
        read_summary_contexts(one)
    with pytest.raises(OptionError, match="leave out context='x'"):
        read_summary_statistics(one, context="x")
    plain = tmp_path / "b.vcf"
    plain.write_text("##fileformat=VCFv4.2\n#CHROM\tPOS\n")
    with pytest.raises(FileFormatError, match="without a column of a study"):
        read_summary_statistics(plain)
    plain.write_text(VCF.replace("ID=ES", "ID=GT"))
    with pytest.raises(FileFormatError, match="holds genotypes, not summary"):
        read_summary_statistics(plain)
    plain.write_text("\n".join(VCF.splitlines()[:9]) + "\n")
    with pytest.raises(OptionError, match="several contexts"):
        read_summary_statistics(plain)
    assert len(read_summary_statistics(plain, context="bmi")) == 0


def test_on_the_command_line(studies, monkeypatch, capsys):
    monkeypatch.chdir(studies.parent)
    assert main(["sumstats", "check", "studies.vcf.gz"]) == 2
    assert "several contexts: bmi, t2d. Say which: --context NAME." in capsys.readouterr().err
    assert main(["sumstats", "check", "studies.vcf.gz", "--context", "bmi"]) == 0
    said = capsys.readouterr().out
    assert "dialect gwas-vcf" in said and "trait 'bmi', GRCh37" in said
    assert main(["sumstats", "combine", "studies.vcf.gz", "--out", "e.zarr"]) == 0
    effects = read_effects("e.zarr")
    assert effects.contexts == ("bmi", "t2d")
    assert effects.effects.tolist() == ["rs1", "rs2", "rs4"]
    assert np.isinf(effects.shat[1, 1])
    one = "sumstats convert studies.vcf.gz --context t2d --to tsv --out t2d.tsv"
    assert main(one.split()) == 0
    assert main(["sumstats", "combine", "studies.vcf.gz", "t2d=t2d.tsv", "--out", "f.zarr"]) == 2
    assert "two tables are called 't2d'" in capsys.readouterr().err
    assert main(["sumstats", "combine", "studies.vcf.gz", "again=t2d.tsv", "--out", "f.zarr"]) == 0
    assert read_effects("f.zarr").contexts == ("bmi", "t2d", "again")
