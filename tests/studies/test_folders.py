"""The road in a folder that holds something else, interrupted, and on nothing."""

import polars as pl
import pytest

from plait.cli.main import main
from plait.studies.stages import Stages


def test_files_that_are_not_the_studys_own_are_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/report.html").write_text("my own")
    line = "gwas-to-mash --geno g.bed --pheno y.csv --out mine"
    assert main(line.split()) == 2
    assert "mine/report.html exists" in capsys.readouterr().err
    assert (tmp_path / "mine/report.html").read_text() == "my own"


def test_an_interrupted_stage_says_that_the_others_are_kept(tmp_path):
    def interrupted():
        raise KeyboardInterrupt

    stages = Stages(tmp_path, {}, lambda *_: None)
    with pytest.raises(KeyboardInterrupt) as found:
        stages.run("scan", "", interrupted, ())
    assert found.value.__notes__ == ["finished stages are kept; the same command goes on."]


def test_genotypes_without_a_variant(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    samples = [f"s{i}" for i in range(20)]
    fixed = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT"]
    columns = "\t".join(fixed + samples)
    header = '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">'
    (tmp_path / "g.vcf").write_text(f"##fileformat=VCFv4.2\n{header}\n{columns}\n")
    frame = pl.DataFrame({"IID": samples, "a": list(range(20)), "b": list(range(20, 0, -1))})
    frame.write_csv(tmp_path / "y.csv")
    base = ["gwas", "scan", "--geno", "g.vcf", "--pheno", "y.csv", "--out", "o"]
    assert main(base) == 2
    assert "there is no variant in the genotypes" in capsys.readouterr().err
    assert main([*base, "--traits", "a,a"]) == 2
    assert "'a' is named twice" in capsys.readouterr().err
