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


def test_the_field_of_a_vcf_is_an_option(tmp_path, monkeypatch, capsys):
    """Typed variants come first; imputed ones are read by the field that was asked for."""
    random = np.random.default_rng(5)
    dosages = draw_dosages(random, 60, 80)
    monkeypatch.chdir(tmp_path)
    names = [f"p{i}" for i in range(80)]
    write_vcf(tmp_path / "g.vcf", dosages, names)
    lines = (tmp_path / "g.vcf").read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    for row, line in enumerate(lines[first:]):
        start = "\t".join(line.split("\t")[:8])
        calls = [("0/0", "0/1", "1/1")[round(value)] for value in dosages[row]]
        cells = [f"{call}:{value:.3f}" for call, value in zip(calls, dosages[row], strict=True)]
        typed = row == 0
        lines[first + row] = "\t".join(
            [start, "GT" if typed else "GT:DS", *(calls if typed else cells)]
        )
    (tmp_path / "g.vcf").write_text("\n".join(lines) + "\n")
    pl.DataFrame({"IID": names, "y": random.normal(size=80)}).write_csv("y.csv")
    base = "gwas scan --geno g.vcf --pheno y.csv --min-mac 1 --quiet"
    found = {}
    for name in ("auto", "DS", "GT"):
        assert main(f"{base} --dosage {name} --out {name}".split()) == 0
        found[name] = pl.read_parquet(f"{name}/associations.parquet")["eaf"].to_numpy()
    np.testing.assert_allclose(found["auto"][1:], dosages[1:].mean(axis=1) / 2, atol=1e-3)
    np.testing.assert_array_equal(found["DS"], found["auto"])
    np.testing.assert_allclose(found["GT"][1:], np.rint(dosages[1:]).mean(axis=1) / 2, atol=1e-12)
    assert main(f"{base} --dosage GP --out GP".split()) == 2
    assert "declares no GP" in capsys.readouterr().err


def test_a_table_of_text_with_its_map(tmp_path, monkeypatch, capsys):
    random = np.random.default_rng(6)
    calls = random.integers(0, 3, (80, 30))
    names = [f"p{i}" for i in range(80)]
    markers = [f"m{j}" for j in range(30)]
    monkeypatch.chdir(tmp_path)
    columns = dict(zip(markers, calls.T, strict=True))
    pl.DataFrame({"ID": names} | columns).write_csv("g.txt", separator=" ")
    places = {"markerID": markers, "chromosome": ["1"] * 15 + ["7"] * 15, "position": range(30)}
    pl.DataFrame(places).write_csv("map.txt")
    pl.DataFrame({"IID": names, "y": random.normal(size=80)}).write_csv("y.csv")
    base = "--geno g.txt --map map.txt --quiet"
    assert main(f"gwas scan {base} --pheno y.csv --out scanned".split()) == 0
    found = pl.read_parquet("scanned/associations.parquet")
    assert found["chrom"].to_list() == places["chromosome"]
    assert found["pos"].to_list() == list(range(30))
    about = json.loads((tmp_path / "scanned" / "run.json").read_text())
    assert set(about["inputs"]) == {"g.txt", "map.txt", "y.csv"}
    assert main(f"gwas qc {base} --out checked".split()) == 0
    (tmp_path / "g.bed").write_bytes(b"")
    assert (
        main(["gwas", "qc", "--geno", "g.bed", "--map", "map.txt", "--out", "other", "--quiet"])
        == 2
    )
    assert "genotypes of the format bed" in capsys.readouterr().err
