"""Tables of tools whose dialects are not confirmed: what the error shows works as it stands.

The rows below were written by hand in the formats that the tools document; no tool made them.
"""

import re

import numpy as np
import pytest

from plait.cli.main import main
from plait.io import read_summary_statistics

# Of each: lines of the table, and the alleles (effect, other), effects, errors or z, and log10 p
# of its two rows, each row worked out from the numbers in it.
TABLES = {
    "gcta-mlma": (
        "Chr\tSNP\tbp\tA1\tA2\tFreq\tb\tse\tp",
        ["1\trs1\t1000\tA\tG\t0.2\t0.5\t0.1\t5.733e-07",
         "2\trs2\t2000\tT\tC\t0.3\t-0.2\t0.1\t0.0455"],
        {"ea": ["A", "T"], "oa": ["G", "C"], "beta": [0.5, -0.2], "se": [0.1, 0.1],
         "log10p": np.log10([5.733e-07, 0.0455]), "eaf": [0.2, 0.3], "pos": [1000, 2000]},
    ),
    "metal": (
        "MarkerName\tAllele1\tAllele2\tFreq1\tFreqSE\tEffect\tStdErr\tP-value\tDirection",
        ["rs1\ta\tg\t0.2\t0.01\t0.5\t0.1\t5.733e-07\t++",
         "rs2\tat\ta\t0.3\t0.01\t-0.2\t0.1\t0.0455\t--"],
        {"ea": ["A", "AT"], "oa": ["G", "A"], "beta": [0.5, -0.2], "se": [0.1, 0.1],
         "log10p": np.log10([5.733e-07, 0.0455]), "eaf": [0.2, 0.3], "id": ["rs1", "rs2"]},
    ),
    "metal-sample-size": (
        "MarkerName\tAllele1\tAllele2\tWeight\tZscore\tP-value\tDirection",
        ["rs1\ta\tg\t5000\t5\t5.733e-07\t++", "rs2\tt\tc\t4000\t-2\t0.0455\t--"],
        {"ea": ["A", "T"], "oa": ["G", "C"], "z": [5, -2], "n": [5000, 4000]},
    ),
    "mtag": (
        "SNP\tCHR\tBP\tA1\tA2\tmeta_freq\tmtag_beta\tmtag_se\tmtag_z\tmtag_pval",
        ["rs1\t1\t1000\tA\tG\t0.2\t0.5\t0.1\t5\t5.733e-07",
         "rs2\tX\t2000\tT\tC\t0.3\t-0.2\t0.1\t-2\t0.0455"],
        {"ea": ["A", "T"], "oa": ["G", "C"], "beta": [0.5, -0.2], "se": [0.1, 0.1], "z": [5, -2],
         "eaf": [0.2, 0.3], "chrom": ["1", "X"]},
    ),
    "mtag-input": (
        "snpid\tchr\tbpos\ta1\ta2\tfreq\tz\tpval\tn",
        ["rs1\t1\t1000\tA\tG\t0.2\t5\t5.733e-07\t5000",
         "rs2\t2\t2000\tT\tC\t0.3\t-2\t0.0455\t4000"],
        {"ea": ["A", "T"], "oa": ["G", "C"], "z": [5, -2], "n": [5000, 4000], "eaf": [0.2, 0.3],
         "pos": [1000, 2000]},
    ),
    "finngen": (
        "#chrom\tpos\tref\talt\trsids\tnearest_genes\tpval\tmlogp\tbeta\tsebeta\taf_alt\t"
        "af_alt_cases\taf_alt_controls",
        ["1\t1000\tG\tA\trs1\tGENE1\t5.733e-07\t6.2416\t0.5\t0.1\t0.2\t0.21\t0.19",
         "23\t2000\tC\tT\t\t\t0\t400.5\t-4.3\t0.1\t0.3\t0.3\t0.3"],
        {"ea": ["A", "T"], "oa": ["G", "C"], "beta": [0.5, -4.3], "se": [0.1, 0.1],
         "log10p": [-6.2416, -400.5], "eaf": [0.2, 0.3], "rsid": ["rs1", None],
         "chrom": ["1", "X"]},
    ),
    "neale": (
        "variant\tminor_allele\tminor_AF\tlow_confidence_variant\tn_complete_samples\tAC\tytx\t"
        "beta\tse\ttstat\tpval",
        ["1:1000:G:A\tA\t0.2\tfalse\t5000\t2000\t1.5\t0.5\t0.1\t5\t5.733e-07",
         "X:2000:CT:C\tCT\t0.3\ttrue\t4000\t2800\t1.5\t-0.2\t0.1\t-2\t0.0455"],
        {"ea": ["A", "C"], "oa": ["G", "CT"], "beta": [0.5, -0.2], "se": [0.1, 0.1],
         "n": [5000, 4000], "chrom": ["1", "X"], "pos": [1000, 2000],
         "log10p": np.log10([5.733e-07, 0.0455])},
    ),
    "pan-ukb": (
        "chr\tpos\tref\talt\taf_EUR\taf_AFR\tbeta_EUR\tbeta_AFR\tse_EUR\tse_AFR\t"
        "neglog10_pval_EUR\tneglog10_pval_AFR\tlow_confidence_EUR\tlow_confidence_AFR",
        ["1\t1000\tG\tA\t0.2\t0.4\t0.5\t0.1\t0.1\t0.2\t6.2416\t0.2\tfalse\tfalse",
         "X\t2000\tC\tT\t0.3\t0.5\t-4.3\tNA\t0.1\tNA\t400.5\tNA\tfalse\ttrue"],
        {"ea": ["A", "T"], "oa": ["G", "C"], "beta": [0.5, -4.3], "se": [0.1, 0.1],
         "log10p": [-6.2416, -400.5], "eaf": [0.2, 0.3]},
    ),
    "ldak": (
        "Predictor\tA1\tA2\tZ\tn\tA1Freq",
        ["1:1000\tA\tG\t5\t5000\t0.2", "2:2000\tT\tC\t-2\t4000\t0.3"],
        {"ea": ["A", "T"], "oa": ["G", "C"], "z": [5, -2], "n": [5000, 4000], "eaf": [0.2, 0.3],
         "id": ["1:1000", "2:2000"]},
    ),
}  # fmt: skip


def assert_is(table, expected):
    for name, values in expected.items():
        found = table.frame[name].to_list()
        if isinstance(values[0], str) or name == "pos":
            assert found == list(values)
        else:
            np.testing.assert_allclose(found, values, rtol=1e-12)


@pytest.mark.parametrize("name", TABLES)
def test_what_the_error_shows_works(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    header, rows, expected = TABLES[name]
    (tmp_path / "table.tsv").write_text("\n".join([header, *rows, ""]))
    convert = ["sumstats", "convert", "table.tsv", "--to", "parquet", "--out"]
    assert main([*convert, "o.parquet"]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert f"has the columns {', '.join(header.lstrip('#').split())}" in " ".join(said.split())
    assert f"--dialect {name}" in said
    columns = re.search(r"--columns (\S+)\.$", said.strip())[1]
    for choice in (["--columns", columns], ["--dialect", name]):
        if name == "pan-ukb" and choice[0] == "--dialect":
            choice = [*choice, "--context", "EUR"]
        assert main([*convert, "o.parquet", *choice, "--overwrite"]) == 0
        assert_is(read_summary_statistics("o.parquet"), expected)
        capsys.readouterr()


@pytest.mark.parametrize(
    ("header", "parts"),
    [
        (
            "SNP\tCHR\tPOS\tAllele1\tAllele2\tEffect\tStdErr\tPval",
            ["tools differ in which one", "if it is of Allele1",
             "--columns chrom=CHR,pos=POS,id=SNP,"
             "ea=Allele1,oa=Allele2,beta=Effect,se=StdErr,p=Pval."],
        ),
        (
            "rs\tchr\tbp\ta1\ta2\tn\tpval\tp_value\tbeta\tse",
            ["several columns that may be p: pval, p_value",
             "--columns chrom=chr,pos=bp,ea=a1,oa=a2,beta=beta,se=se,p=pval,n=n,rsid=rs."],
        ),
        (
            "marker\ta1\ta2\tlogodds\terror",
            ["no column that is known to hold an effect or z",
             "It has marker, a1, a2, logodds, error.",
             "with se, t, p or ci_lower and ci_upper, or z alone",
             "--columns id=marker,ea=a1,oa=a2,beta=...,se=...."],
        ),
    ],
)  # fmt: skip
def test_other_headers(tmp_path, monkeypatch, capsys, header, parts):
    monkeypatch.chdir(tmp_path)
    cells = {"a1": "A", "a2": "G", "allele1": "A", "allele2": "G", "chr": "1"}
    row = "\t".join(cells.get(cell.lower(), "0.5") for cell in header.split("\t"))
    row = row.replace("0.5", "7") if "bp" in header or "POS" in header else row
    row = "\t".join("0.1" if h.lower().startswith("p") and h != "POS" else c
                    for h, c in zip(header.split("\t"), row.split("\t"), strict=True))  # fmt: skip
    (tmp_path / "table.tsv").write_text(f"{header}\n{row}\n")
    assert main(["sumstats", "check", "table.tsv"]) == 2
    said = capsys.readouterr().err
    for part in parts:
        assert part in said
    shown = re.search(r"--columns (\S+)\.$", said.strip())[1]
    if "..." in shown:
        shown = shown.replace("beta=...,se=...", "beta=logodds,se=error").rstrip(".")
    assert main(["sumstats", "check", "table.tsv", "--columns", shown]) == 0


def test_a_column_of_log10_p_may_be_given_by_hand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for role, sign in (("neg_log10_p", 1), ("log10p", -1)):
        (tmp_path / "t.tsv").write_text(
            f"c\tb\te\to\teff\tlp\n1\t5\ta\tg\t0.5\t{sign * 350.25}\n1\t6\ta\tg\t-0.5\t{sign * 2}\n"
        )
        words = ["--columns", f"chrom=c,pos=b,ea=e,oa=o,beta=eff,{role}=lp"]
        line = ["sumstats", "convert", "t.tsv", "--to", "parquet", "--out", "o.parquet"]
        assert main([*line, *words, "--overwrite"]) == 0
        found = read_summary_statistics("o.parquet")
        np.testing.assert_allclose(found.column("log10p"), [-350.25, -2])
        assert found.frame["ea"].to_list() == ["A", "A"]
