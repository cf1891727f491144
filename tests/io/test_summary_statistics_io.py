"""Reading tables of summary statistics: files that tools made, and files that are wrong."""

import gzip
import logging
import shutil
import subprocess

import numpy as np
import polars as pl
import pytest

from plait.data.p_values import log10_p_of_z
from plait.data.variants import VariantTable
from plait.errors import FileFormatError, LabelError
from plait.io.eqtl import find_eqtl_format
from plait.io.plink import write_bed
from plait.io.summary_statistics import chromosome_names, read_summary_statistics
from tests.reference_files import REFERENCE, real_data

MADE = REFERENCE / "summary_statistics"


def made(name):
    return MADE / name


def variants():
    rows = [line.split() for line in made("plink.bim").read_text().splitlines()]
    chrom, ids, _, pos, ea, oa = zip(*rows, strict=True)
    return VariantTable.of(chrom, [int(p) for p in pos], oa, ea, ids)


def write(path, text):
    path.write_bytes(text.encode())
    return path


@pytest.fixture(scope="module")
def linear():
    return read_summary_statistics(made("plink2.glm.linear"))


@pytest.mark.parametrize(
    ("name", "needs_variants"),
    [
        ("plink19.assoc.linear", True),
        ("gemma_lm.assoc.txt", False),
    ],
)
def test_tools_agree_on_the_same_regression(name, needs_variants, linear):
    table = read_summary_statistics(made(name), variants=variants() if needs_variants else None)
    # PLINK 1.9 prints four digits; its standard error comes from them, beta / t.
    assert table.keys.to_list() == linear.keys.to_list() or name != "gemma_lm.assoc.txt"
    by_key = dict(zip(linear.frame["id"], range(len(linear)), strict=True))
    rows = [by_key[name] for name in table.frame["id"]]
    sign = np.where(table.frame["ea"] == linear.frame["ea"][rows], 1, -1)
    assert (table.frame["pos"] == linear.frame["pos"][rows]).all()
    np.testing.assert_allclose(table.column("beta") * sign, linear.column("beta")[rows], rtol=2e-3)
    np.testing.assert_allclose(table.column("se"), linear.column("se")[rows], rtol=3e-3)
    np.testing.assert_allclose(table.column("log10p"), linear.column("log10p")[rows], atol=2e-3)
    np.testing.assert_array_equal(table.column("n"), 200)
    assert table.frame["oa"].null_count() == 0


def test_a_table_without_alleles(linear, caplog):
    """PLINK 1.9 made the minor allele the effect allele: the .bim does not tell which it was."""
    table = read_summary_statistics(made("plink19.qassoc"), variants=variants())
    assert table.frame["ea"].null_count() == 30 and "no effect alleles" in caplog.text
    assert table.frame["pos"].to_list() == linear.frame["pos"].to_list()
    asked = read_summary_statistics(made("plink19.qassoc"), "plink19-qassoc", variants=variants())
    assert asked.frame["ea"].null_count() == 0 and "--keep-allele-order" in caplog.text
    # With A1 from the .bim, signs are wrong exactly where the minor allele is its second one.
    sign = np.where(asked.frame["ea"] == linear.frame["ea"], 1, -1)
    wrong = np.sign(asked.column("beta") * sign) != np.sign(linear.column("beta"))
    frequency = np.where(sign > 0, linear.column("eaf"), 1 - linear.column("eaf"))
    np.testing.assert_array_equal(wrong, frequency > 0.5)


def test_logistic_regressions_agree():
    ours = read_summary_statistics(made("plink2.glm.logistic.hybrid"))
    theirs = read_summary_statistics(made("plink19_ci.assoc.logistic"), variants=variants())
    sign = np.where(ours.frame["ea"] == theirs.frame["ea"], 1, -1)
    np.testing.assert_allclose(theirs.column("beta") * sign, ours.column("beta"), atol=1e-3)
    np.testing.assert_allclose(theirs.column("se"), ours.column("se"), rtol=1e-3)
    firth = read_summary_statistics(made("plink2.glm.firth"))
    np.testing.assert_allclose(firth.column("log10p"), log10_p_of_z(firth.column("z")), atol=1e-3)
    counted = read_summary_statistics(made("plink19.assoc"))
    assert np.corrcoef(counted.column("beta"), firth.column("beta") * sign)[0, 1] > 0.99


def test_gemma_mixed_model():
    table = read_summary_statistics(made("gemma_lmm.assoc.txt"), trait="y")
    assert len(table) == 30 and not np.isnan(table.column("eaf")).any()
    assert abs(table.column("log10p") - log10_p_of_z(table.column("z"))).max() < 0.1
    assert table.to_effects().n_effects == 30


@pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not installed")
def test_plink2_against_least_squares(tmp_path):
    rng = np.random.default_rng(5)
    calls = rng.binomial(2, 0.4, (8, 60)).astype(np.int8)
    names = [f"s{i}" for i in range(60)]
    y = 0.8 * calls[2] + rng.normal(size=60)
    there = VariantTable.of(["chr1"] * 8, range(10, 18), ["A"] * 8, ["G"] * 8)
    write_bed(tmp_path / "d.bed", [calls], there, names)
    people = [line.split()[:2] for line in (tmp_path / "d.fam").read_text().splitlines()]
    rows = "".join(
        f"{family} {name} {value!r}\n"
        for (family, name), value in zip(people, y.tolist(), strict=True)
    )
    write(tmp_path / "p.txt", f"#FID IID y\n{rows}")
    command = ["plink2", "--bfile", "d", "--pheno", "p.txt", "--glm", "allow-no-covars",
               "--out", "o", "--threads", "1"]  # fmt: skip
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    table = read_summary_statistics(tmp_path / "o.y.glm.linear", build="hg38")
    assert table.build == "GRCh38" and set(table.frame["chrom"]) == {"1"}
    for row in range(8):
        x = np.column_stack([np.ones(60), calls[row]])
        beta, rss, *_ = np.linalg.lstsq(x, y, rcond=None)
        se = np.sqrt(rss[0] / 58 * np.linalg.inv(x.T @ x)[1, 1])
        sign = 1 if table.frame["ea"][row] == "G" else -1
        assert table.column("beta")[row] * sign == pytest.approx(beta[1], rel=1e-4)
        assert table.column("se")[row] == pytest.approx(se, rel=1e-4)


def test_real_tables():
    table = read_summary_statistics(real_data("attention", "quant_trait_sumstats.csv.gz"))
    assert len(table) == 82_448 and table.column("log10p").min() < -7.3
    assert int((table.column("log10p") < np.log10(5e-8)).sum()) == 1665
    only_z = read_summary_statistics(real_data("attention", "rbc_chr22_sumstats.csv.gz"))
    assert len(only_z) == 6419 and not only_z.has_effects
    assert set(only_z.column("n")) == {383_290.0}


TOOLS = {
    "regenie": "CHROM GENPOS ID ALLELE0 ALLELE1 A1FREQ INFO N TEST BETA SE CHISQ LOG10P EXTRA\n"
    "1 5 rs1 A G 0.3 1 90 ADD 0.2 0.1 4 1.3 NA\n23 6 rs2 A G 0.3 1 90 ADD-INT_E 0.2 0.1 4 1.3 NA\n",
    "saige": "CHR\tPOS\tMarkerID\tAllele1\tAllele2\tAC_Allele2\tAF_Allele2\tMissingRate\tBETA\tSE\t"
    "Tstat\tvar\tp.value\tp.value.NA\tIs.SPA\tAF_case\tAF_ctrl\tN_case\tN_ctrl\n"
    "1\t5\trs1\tA\tG\t9\t0.3\t0\t0.2\t0.1\t9\t9\t0.05\t0.05\tfalse\t0.1\t0.1\t40\t50\n",
    "snptest": '# Analysis: "x"\n# \nalternate_ids rsid chromosome position alleleA alleleB index '
    "info all_total frequentist_add_pvalue frequentist_add_beta_1 frequentist_add_se_1 comment\n"
    "a rs1 01 5 A G 1 0.9 90 0.05 0.2 0.1 NA\n# Completed\n",
    "gcta": "CHR\tSNP\tPOS\tA1\tA2\tN\tAF1\tBETA\tSE\tP\nchr1\trs1\t5\tG\tA\t90\t0.3\t0.2\t"
    "0.1\t0.05\n",
}


@pytest.mark.parametrize("tool", TOOLS)
def test_layouts_of_other_tools(tool, tmp_path):
    table = read_summary_statistics(write(tmp_path / "t.txt", TOOLS[tool]))
    row = table.frame.row(0, named=True)
    assert (row["chrom"], row["pos"], row["ea"], row["oa"]) == ("1", 5, "G", "A")
    assert (row["beta"], row["se"], row["n"], len(table)) == (0.2, 0.1, 90, 1)
    assert row["log10p"] == pytest.approx(-1.3, abs=2e-3)


def test_tests_are_chosen(tmp_path):
    path = write(tmp_path / "t.txt", TOOLS["regenie"])
    assert read_summary_statistics(path, test=None).frame["chrom"].to_list() == ["1", "X"]
    assert len(read_summary_statistics(path, test="ADD-INT_E")) == 1
    with pytest.raises(LabelError, match="ADD-INT_E"):
        read_summary_statistics(path, test="DOM")


def test_text_packed_padded_and_parquet_are_the_same(tmp_path):
    plain = "snp ea oa beta se\nrs1 a g 0.1 0.2\nrs2 C T . NA\n"
    tables = [
        write(tmp_path / "a.txt", plain),
        write(tmp_path / "b.csv", plain.replace(" ", ",")),
        write(tmp_path / "c.txt", plain.replace(" ", "   ").replace("\n", "  \n  ")),
        write(tmp_path / "d.tsv", plain.replace(" ", "\t").replace("\n", "\r\n")),
    ]
    (tmp_path / "e.txt.gz").write_bytes(gzip.compress(plain.encode()))
    frame = pl.DataFrame({"snp": ["rs1"], "ea": ["a"], "oa": ["g"], "beta": [0.1], "se": [0.2]})
    frame.write_parquet(tmp_path / "f.parquet")
    for path in [*tables, tmp_path / "e.txt.gz", tmp_path / "f.parquet"]:
        table = read_summary_statistics(path)
        assert table.frame.select("id", "ea", "oa", "beta", "se").rows() == [
            ("rs1", "A", "G", 0.1, 0.2)
        ]


def test_p_in_logarithms(tmp_path, caplog):
    head = "snp ea oa beta se mlogp\n"
    text = f"{head}rs1 A G 0.1 0.1 412.5\nrs2 A G 0.1 0.1 0\n"
    table = read_summary_statistics(write(tmp_path / "a", text))
    assert table.column("log10p").tolist() == [-412.5, 0]
    with caplog.at_level(logging.INFO, "plait.io"):
        table = read_summary_statistics(write(tmp_path / "b", text.replace("412.5", "-412.5")))
    assert table.column("log10p")[0] == -412.5 and "taken for log10 p" in caplog.text
    with pytest.raises(FileFormatError, match="both signs"):
        read_summary_statistics(write(tmp_path / "c", f"{text}rs3 A G 0.1 0.1 -1\n"))
    text = "snp ea oa beta pval mlogp\nrs1 A G 0.5 0 412.5\nrs2 A G 0.5 1.2e-350 NA\n"
    table = read_summary_statistics(write(tmp_path / "d", text))
    np.testing.assert_allclose(table.column("log10p"), [-412.5, np.log10(1.2) - 350])


def test_explicit_columns_and_variant_names(tmp_path):
    path = write(tmp_path / "t", "name\tx\ty\tb1\n1:5:A:G\t0.1\t0.2\t3\n")
    columns = {"variant": "name", "beta": "x", "se": "y", "n": "b1"}
    row = read_summary_statistics(path, columns=columns).frame.row(0, named=True)
    assert (row["chrom"], row["pos"], row["oa"], row["ea"]) == ("1", 5, "A", "G")
    assert row["id"] == "1:5:A:G" and row["n"] == 3


def test_errors_of_intervals_and_statistics(tmp_path):
    """Tables of no tool: the columns that an error is made of are known by their usual names."""
    head = "chr,pos,effect_allele,other_allele"
    names = ("ci_lower,ci_upper", "L95,U95", "Lower_CI,Upper_CI")
    for name in names:
        text = f"{head},OR,{name}\n1,10,A,G,1.5,1.1,2.0454545\n"
        table = read_summary_statistics(write(tmp_path / "t.csv", text))
        assert table.column("se")[0] == pytest.approx(np.log(2.0454545 / 1.1) / 3.919928)
    for name in ("t", "T_STAT", "tstat"):
        text = f"{head},beta,{name},p\n1,10,A,G,-0.5,-3,0.0077\n"
        table = read_summary_statistics(write(tmp_path / "t.csv", text))
        assert table.column("se")[0] == pytest.approx(0.5 / 3)
    plink = "CHR SNP BP A1 TEST NMISS BETA STAT P\n1 rs1 1000 A ADD 20 0.5 3 0.0077\n"
    table = read_summary_statistics(write(tmp_path / "a.assoc.linear", plink))
    assert table.column("se")[0] == pytest.approx(0.5 / 3)
    assert table.column("log10p")[0] == pytest.approx(np.log10(0.0077))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("snp ea oa beta se\nrs1 A G 0,1 0.2\n", "'0,1' in row 1"),
        ("snp ea oa beta se\nrs1 A G 0.1\nrs2 A G 0.1 0.2\n", "4 cells and the header 5"),
        ("snp ea oa beta se\nrs1 A G 0.1 0.2 9\nrs2 A G 0.1 0.2\n", "6 cells"),
        ("snp ea oa pos beta se\nrs1 A G 1.5 0.1 0.2\n", "not a position"),
        ("snp ea oa beta se p\nrs1 A G 0.1 0.2 <1e-9\n", "'<1e-9'"),
    ],
)
def test_files_that_are_wrong(text, message, tmp_path):
    with pytest.raises(FileFormatError, match=message):
        read_summary_statistics(write(tmp_path / "t.txt", text))


def test_more_that_is_refused(tmp_path):
    with pytest.raises(FileFormatError, match="no such file"):
        read_summary_statistics(tmp_path / "absent")
    with pytest.raises(LabelError, match="several columns called beta"):
        read_summary_statistics(write(tmp_path / "t", "snp beta beta\n1 2 3\n"))
    packed = gzip.compress(b"snp ea oa beta se\nrs1 A G 0.1 0.2\n" * 50)
    (tmp_path / "cut.gz").write_bytes(packed[:-12])
    with pytest.raises(FileFormatError, match="cut short"):
        read_summary_statistics(tmp_path / "cut.gz")
    with pytest.raises(LabelError, match="by id"):
        read_summary_statistics(
            write(tmp_path / "u", "chrom pos ea oa beta se\n1 2 A G 0.1 0.2\n"), variants=variants()
        )


def test_chromosome_names():
    names = pl.Series(["chr1", "01", "CHR10", "chrX", "M", "10", "XY", "PAR1", "GL000207.1"])
    plain = ["1", "1", "10", "X", "MT", "10", "X", "X", "GL000207.1"]
    for of_gwas_ssf in (False, True):
        assert chromosome_names(names, of_gwas_ssf).to_list() == plain
    # 25 is the part of X that Y shares in PLINK, and the mitochondrion in GWAS-SSF.
    numbers = pl.Series(["22", "23", "24", "25", "26", "chr25"])
    assert chromosome_names(numbers).to_list() == ["22", "X", "Y", "X", "MT", "X"]
    assert chromosome_names(numbers, True).to_list() == ["22", "X", "Y", "MT", "26", "MT"]
    # Cattle have 29 pairs and X: their numbers are their names.
    cattle = pl.Series([str(number) for number in range(1, 30)] + ["X", "MT"])
    assert chromosome_names(cattle).equals(cattle)


def test_chromosome_25_of_each_format(tmp_path):
    plink = "#CHROM POS ID REF ALT A1 TEST OBS_CT BETA SE T_STAT P ERRCODE\n"
    rows = "".join(f"{c} 10 rs{c} A G G ADD 90 0.2 0.1 2 0.05 .\n" for c in (23, 25, "XY", 26))
    table = read_summary_statistics(write(tmp_path / "a.glm.linear", plink + rows))
    assert table.frame["chrom"].to_list() == ["X", "X", "X", "MT"]
    ssf = "chromosome base_pair_location effect_allele other_allele beta standard_error "
    ssf += "effect_allele_frequency p_value\n"
    rows = "".join(f"{c} 10 A G 0.2 0.1 0.3 0.05\n" for c in (23, 25))
    table = read_summary_statistics(write(tmp_path / "a.tsv", (ssf + rows).replace(" ", "\t")))
    assert table.frame["chrom"].to_list() == ["X", "MT"]


def test_alleles_that_the_variants_do_not_have(tmp_path, caplog):
    text = "CHR SNP BP A1 TEST NMISS BETA STAT P\n1 rs0 1000 X ADD 9 0.1 2 0.05\n"
    text += "1 nowhere 1000 A ADD 9 0.1 2 0.05\n"
    table = read_summary_statistics(write(tmp_path / "t", text), variants=variants())
    assert table.frame["oa"].to_list() == [None, None]
    assert "alleles differ" in caplog.text and "not among the variants" in caplog.text


@pytest.mark.parametrize("name", ["t.tsv", "t.bed"])
def test_what_is_no_text(tmp_path, name):
    (tmp_path / name).write_bytes(b"\xfe\x1b\x01\xfc\xff\n\x88")
    with pytest.raises(FileFormatError, match="is no text"):
        read_summary_statistics(tmp_path / name)
    assert find_eqtl_format(tmp_path / name) is None
