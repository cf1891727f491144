"""What is in a file of eQTL results, and what the commands on summary statistics say of it."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from plait.cli.main import main
from plait.errors import FileFormatError
from plait.io.eqtl import find_eqtl_format
from plait.io.eqtl_contents import eqtl_contents
from plait.io.eqtl_formats import FORMATS
from tests.io.test_eqtl import GTEX, MADE, gtex

ROWS = [("g1", 100, 0.5, 0.1), ("g1", 200, -0.2, 0.1), ("g2", 100, 0.1, 0.1)]


def test_formats(tmp_path):
    names = {
        "tensorqtl.cis_qtl_pairs.chr1.parquet": "tensorqtl",
        "tensorqtl_interaction.cis_qtl_pairs.chr1.parquet": "tensorqtl-interaction",
        "qtltools_nominal.txt": "qtltools-nominal-without-errors",
        "fastqtl_nominal.txt": "fastqtl-7",
    }
    for file, name in names.items():
        assert find_eqtl_format(MADE / file).name == name
    (tmp_path / "gwas.tsv").write_text("chrom\tpos\tea\toa\tbeta\tse\n1\t5\tA\tG\t1\t1\n")
    (tmp_path / "empty.tsv").write_text("")
    (tmp_path / "nine.tsv").write_text("1\t5\trs1\tA\tG\t0.2\tADD\t0.1\t0.1\n")
    assert find_eqtl_format(tmp_path / "nine.tsv") is None  # as many columns as FastQTL's
    assert find_eqtl_format(tmp_path / "gwas.tsv") is None
    assert find_eqtl_format(tmp_path / "empty.tsv") is None
    with pytest.raises(FileFormatError, match="no such file"):
        find_eqtl_format(tmp_path / "absent.tsv")


def test_contents(tmp_path):
    path = gtex(tmp_path / "liver.txt.gz", [*ROWS, ("g2", 100, 0.3, 0.1), ("g3", 7, "NA", "NA")])
    found = eqtl_contents(path, find_eqtl_format(path))
    assert (found.n_effects, found.n_genes, found.n_variants) == (4, 2, 2)
    assert (found.n_repeated, found.builds, found.n_placed) == (2, ("GRCh38",), 2)
    assert found.largest_z == pytest.approx(5)
    assert found.lambda_gc == pytest.approx(np.median([25, 4, 1, 9]) / 0.4549364)
    assert np.isnan(found.log10p_limit)
    chosen = gtex(tmp_path / "chosen.txt.gz", [("g1", pos, 0.6, 0.1) for pos in range(100, 120)])
    significant = eqtl_contents(chosen, find_eqtl_format(chosen))
    assert significant.log10p_limit == pytest.approx(np.log10(1.9731753e-9), abs=1e-7)
    assert np.isnan(significant.lambda_gc)
    twice = gtex(tmp_path / "twice.txt.gz", [*ROWS, ROWS[0]])  # equal rows are one
    assert eqtl_contents(twice, find_eqtl_format(twice)).n_repeated == 0
    none = tmp_path / "none.txt"
    none.write_text(GTEX)
    with pytest.raises(FileFormatError, match="no row with an effect"):
        eqtl_contents(none, find_eqtl_format(none))
    damaged = tmp_path / "damaged.txt"
    damaged.write_text(GTEX + "g\tv\t1\t1\t1\t0.1\t0.5\tx\t0.1\n")
    with pytest.raises(FileFormatError, match="cannot be read"):
        eqtl_contents(damaged, find_eqtl_format(damaged))


def test_check(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    gtex(tmp_path / "liver.txt.gz", ROWS)
    assert main(["sumstats", "check", "liver.txt.gz"]) == 0
    said = capsys.readouterr().out
    assert "liver.txt.gz: eQTL results, format gtex: a row for each gene and variant" in said
    assert "gene=gene_id, variant=variant_id, beta=slope, se=slope_se, p=pval_nominal" in said
    assert "3 effects with standard errors, of 2 genes and 2 variants; largest |z| 5.0" in said
    assert "position and alleles (on GRCh38) are told by 2 variant ids" in said
    assert "plait.io.read_contexts({'tissue': 'liver.txt.gz', ...})" in said
    assert "aliases" not in said and "attention" not in said
    assert main(["sumstats", "check", "liver.txt.gz", "--build", "hg38"]) == 2
    assert "--build does nothing with eQTL results" in capsys.readouterr().err
    # Of a documented format that no file confirmed, and of one without names.
    catalogue = pl.DataFrame(
        {
            "molecular_trait_id": ["g1", "g1"], "chromosome": [1, 1], "position": [5, 6],
            "ref": ["A", "C"], "alt": ["G", "T"], "variant": ["chr1_5_A_G", "chr1_6_C_T"],
            "ma_samples": [3, 4], "pvalue": [0.1, 0.2], "beta": [0.5, 0.2], "se": [0.1, 0.1],
        }
    )  # fmt: skip
    catalogue.write_csv("catalogue.tsv", separator="\t")
    assert main(["sumstats", "check", "catalogue.tsv"]) == 0
    captured = capsys.readouterr()
    assert "format eqtl-catalogue, known from documentation only" in captured.out
    assert "format='eqtl-catalogue')" in captured.out
    assert main(["sumstats", "check", str(MADE / "qtltools_nominal.txt")]) == 0
    captured = capsys.readouterr()
    assert "qtltools-nominal-without-errors" in captured.out
    assert "standard errors from p by the normal distribution" in captured.err


def test_rows_of_genes_in_columns_of_no_tool(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = "Gene\tsnp\tbeta\tse\nG1\trs1\t1\t1\nG2\trs1\t2\t1\nG2\trs2\t2\t1\n"
    (tmp_path / "mine.tsv").write_text(rows)
    assert main(["sumstats", "check", "mine.tsv"]) == 0
    said = capsys.readouterr().out
    assert "1 that occur again" in said
    assert "attention: variants occur again and there is a column 'Gene': if rows are" in said
    (tmp_path / "genes.tsv").write_text("GENE\tCHR\tZSTAT\tP\nG1\t1\t1\t0.3173\nG2\t1\t0\t1\n")
    assert main(["sumstats", "check", "genes.tsv"]) == 0
    said = capsys.readouterr().out
    assert "attention: no row names a variant" in said and "0 that occur again" in said


@pytest.mark.parametrize(
    "words",
    [
        "convert liver.txt.gz --to tsv --out o.tsv",
        "harmonise liver.txt.gz --reference liver.txt.gz --out o.tsv",
        "combine a=liver.txt.gz b=liver.txt.gz --out e.zarr",
    ],
)
def test_what_takes_a_row_for_each_variant(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    gtex(tmp_path / "liver.txt.gz", ROWS)
    assert main(["sumstats", *words.split()]) == 2
    said = capsys.readouterr().err
    assert "holds eQTL results (format gtex): a row for each gene and variant" in said
    assert "plait sumstats check" in said and len(said.splitlines()) == 1


def test_rows_of_one_gene_by_their_columns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gtex(tmp_path / "one.txt.gz", ROWS[:2])
    columns = ["--columns", "variant=variant_id,beta=slope,se=slope_se,p=pval_nominal"]
    assert (
        main(["sumstats", "convert", "one.txt.gz", *columns, "--to", "tsv", "--out", "o.tsv"]) == 0
    )
    found = pl.read_csv("o.tsv", separator="\t").select("chrom", "pos", "oa", "ea", "beta")
    assert found.rows() == [(1, 100, "A", "G", 0.5), (1, 200, "A", "G", -0.2)]


def test_the_guide_has_every_format():
    """docs/gwas.md lists all formats, and which are known from documentation only."""
    text = (Path(__file__).parents[2] / "docs/gwas.md").read_text(encoding="utf-8")
    rows = text.partition("### eQTL results")[2].partition("\n###")[0].splitlines()
    listed = {
        name: "documentation only" in row
        for row in rows
        if row.startswith("| `")
        for name in re.findall("`([^`]*)`", row.split("|")[1])
    }
    assert listed == {form.name: not form.confirmed for form in FORMATS}
