"""``plait gwas scan`` of the imputed dosages of a VCF."""

import gzip
import json

import numpy as np
import polars as pl

from plait.cli.main import main
from tests.gwas.conftest import draw_dosages
from tests.gwas.test_dosages import write_vcf


def test_a_scan_of_imputed_genotypes(tmp_path, monkeypatch, capsys):
    random = np.random.default_rng(2)
    dosages = draw_dosages(random, 300, 200, missing=0.01)
    dosages[40] = random.uniform(0.4, 0.6, 200)  # imputed, and nothing known
    names = [f"p{i}" for i in range(200)]
    monkeypatch.chdir(tmp_path)
    write_vcf(tmp_path / "g.vcf", dosages, names)
    (tmp_path / "g.vcf.gz").write_bytes(gzip.compress((tmp_path / "g.vcf").read_bytes()))
    height = random.normal(size=200) + 0.8 * np.nan_to_num(dosages[7])
    pl.DataFrame({"IID": names, "height": height}).write_csv("traits.csv")
    base = "gwas scan --geno g.vcf.gz --pheno traits.csv"
    assert main(f"{base} --min-info 0.3 --out scanned".split()) == 0
    out = capsys.readouterr()
    assert "surest v7" in out.out + out.err
    about = json.loads((tmp_path / "scanned" / "run.json").read_text())
    assert about["options"]["min_info"] == 0.3
    assert about["counts"]["filtered"] == {"imputation quality": 1}
    found = pl.read_parquet("scanned/associations.parquet")
    assert found["beta.height"].is_nan().arg_true().to_list() == [40]
    wrong = (tmp_path / "g.vcf").read_text().replace("./.:2.000", "./.:2.500", 1)
    (tmp_path / "wrong.vcf").write_text(wrong)
    base = base.replace("g.vcf.gz", "wrong.vcf")
    assert main(f"{base} --out other".split()) == 2
    assert "is 2.5. Dosages are copies of an allele, 0 to 2" in capsys.readouterr().err
