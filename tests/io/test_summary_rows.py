"""Rows that a tool itself marks: as failed, or of low confidence."""

import logging

import numpy as np
import polars as pl
import pytest

from plait.cli.main import main
from plait.errors import InputError, LabelError
from plait.io import read_summary_contexts, read_summary_statistics

PLINK2 = """#CHROM POS ID REF ALT A1 FIRTH? TEST OBS_CT OR LOG(OR)_SE Z_STAT P ERRCODE
1 10 rs1 A G G N ADD 100 1.5 0.2 2.03 0.04 .
1 20 rs2 A G A N ADD 100 99.5 5.2 2.03 0.04 UNFINISHED
1 30 rs3 A G A N ADD 100 NA NA NA NA VIF_TOO_HIGH
"""
TABLES = {
    "plink2": PLINK2,
    "regenie": "CHROM GENPOS ID ALLELE0 ALLELE1 A1FREQ INFO N TEST BETA SE CHISQ LOG10P EXTRA\n"
    "1 10 rs1 A G 0.2 1 100 ADD 0.5 0.1 25 6 NA\n"
    "1 20 rs2 A G 0.2 1 100 ADD 0.5 0.1 25 6 TEST_FAIL\n"
    "1 30 rs3 A G 0.2 1 100 ADD NA NA NA NA TEST_FAIL\n",
    "fastgwa": "CHR SNP POS A1 A2 N AF1 T SE_T P_noSPA BETA SE P CONVERGE\n"
    "1 rs1 10 A G 100 .1 5 1 .1 .5 .1 1e-6 1\n"
    "1 rs2 20 A G 100 .1 5 1 .1 .5 .1 1e-6 0\n"
    "1 rs3 30 A G 100 .1 5 1 .1 NA NA NA 0\n",
    "saige-0": "CHR POS rsid SNPID Allele1 Allele2 AC_Allele2 AF_Allele2 imputationInfo N BETA SE "
    "Tstat p.value p.value.NA Is.SPA.converge varT varTstar\n"
    "1 10 rs1 rs1 A G 9 .1 1 90 .5 .1 5 1e-6 1e-6 1 1 1\n"
    "1 20 rs2 rs2 A G 9 .1 1 90 .5 .1 5 1e-6 1e-6 0 1 1\n"
    "1 30 rs3 rs3 A G 9 .1 1 90 NA NA 5 NA NA 0 1 1\n",
}


@pytest.mark.parametrize("tool", TABLES)
def test_rows_that_the_tool_marks_as_failed(tool, tmp_path, caplog):
    path = tmp_path / "table.txt"
    path.write_text(TABLES[tool])
    with caplog.at_level(logging.INFO, "plait.io"):
        table = read_summary_statistics(path)
    assert table.frame["id"].to_list() == ["rs1"]
    # The third was not tested: it has no estimate that could be doubted.
    assert table.counts == {"failed": 1, "no_estimate": 1}
    assert "marked as failed by the tool: 1 rows (1:20:" in caplog.text
    frame = pl.read_csv(path, separator=" ").rename({"#CHROM": "CHROM"}, strict=False)
    frame.write_parquet(tmp_path / "table.parquet")  # the same, in columns of numbers
    assert read_summary_statistics(tmp_path / "table.parquet").counts["failed"] == 1


def test_words_for_no(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text(TABLES["saige-0"].replace(" 0 1 1", " FALSE 1 1"))
    assert len(read_summary_statistics(path)) == 1
    path.write_text(TABLES["fastgwa"].replace(" 1\n", " 0\n"))
    with pytest.raises(InputError, match="every row"):
        read_summary_statistics(path, columns={"beta": "SE_T"}, dialect="fastgwa")
    given = {"id": "SNP", "beta": "BETA", "se": "SE"}
    assert len(read_summary_statistics(path, columns=given)) == 2  # nobody named the column
    named = given | {"converged": "CONVERGE"}
    path.write_text(TABLES["fastgwa"])
    assert read_summary_statistics(path, columns=named).counts["failed"] == 1


def test_the_command_says_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.glm.logistic.hybrid").write_text(PLINK2)
    assert main(["sumstats", "check", "a.glm.logistic.hybrid"]) == 0
    said = capsys.readouterr()
    assert "left out: 1 row with an estimate that the tool marks as failed" in said.out
    assert "marked as failed by the tool: 1 rows (1:20:" in said.err


def test_rows_of_low_confidence(tmp_path, caplog):
    path = tmp_path / "neale.tsv"
    rows = "\n".join(
        f"1:{15_790 + i}:C:T\tT\t5e-6\t{word}\t360388\t3.9\t-1\t-0.02\t0.3\t-.1\t0.9"
        for i, word in enumerate(("true", "false", "true"))
    )
    names = "variant minor_allele minor_AF low_confidence_variant n_complete_samples AC ytx beta se"
    path.write_text("\t".join([*names.split(), "tstat", "pval"]) + f"\n{rows}\n")
    table = read_summary_statistics(path, "neale")
    assert len(table) == 3 and table.counts == {}
    assert "2 of 3 rows are of low confidence, says the tool; they are kept" in caplog.text
    caplog.clear()
    pan = tmp_path / "pan.tsv"
    names = [f"{name}_{where}" for where in ("AFR", "EUR")
             for name in ("beta", "se", "neglog10_pval", "low_confidence")]  # fmt: skip
    head = "\t".join(["chr", "pos", "ref", "alt", *names])
    pan.write_text(f"{head}\n1\t5\tA\tG\t1\t1\t1\ttrue\t1\t1\t1\tfalse\n")
    found = read_summary_contexts(pan, "pan-ukb")
    np.testing.assert_array_equal([len(table) for table in found.values()], 1)
    assert caplog.text.count("1 of 1 rows are of low confidence") == 1


def test_no_row_of_a_test(tmp_path):
    path = tmp_path / "a.regenie"
    path.write_text(TABLES["regenie"])
    with pytest.raises(
        LabelError,
        match=r"a\.regenie: no row is of the test 'DOM'; there are 'ADD'. Say which: read_",
    ):
        read_summary_statistics(path, test="DOM")
