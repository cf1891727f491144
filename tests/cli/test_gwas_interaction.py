"""``plait gwas interaction``, and components as covariates."""

import json

import numpy as np
import polars as pl
import pytest

from plait.cli.main import main
from plait.gwas import InteractionResult, principal_components, scan, scan_interaction
from plait.io import open_genotypes, read_covariates, read_phenotypes
from plait.io.plink import write_bed
from plait.simulate import cohort


@pytest.fixture
def files(tmp_path, monkeypatch):
    simulated = cohort(n_samples=300, n_variants=400, n_causal=4, seed=5)
    write_bed(tmp_path / "g.bed", simulated.blocks(), simulated.variants, simulated.samples)
    for name, table in (("traits", simulated.traits), ("covariates", simulated.covariates)):
        columns = dict(zip(table.names, table.values.T, strict=True))
        frame = pl.DataFrame({"IID": table.samples.tolist()} | columns)
        frame.write_csv(tmp_path / f"{name}.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


BASE = "--geno g.bed --pheno traits.csv --covar covariates.csv --quiet"


def test_an_interaction_scan(files, capsys):
    line = f"gwas interaction {BASE} --environment age --robust --out found"
    assert main(line.split()) == 0
    found = InteractionResult.load(files / "found/interactions.zarr")
    covariates = read_covariates("covariates.csv")
    expected = scan_interaction(
        open_genotypes("g.bed"),
        read_phenotypes("traits.csv"),
        covariates.select(["age"]),
        covariates,
        robust=True,
    )
    assert found.allclose(expected, rtol=0)
    table = pl.read_parquet(files / "found/interactions.parquet")
    assert table.height == 400
    assert json.loads((files / "found/run.json").read_text())["options"]["environment"] == "age"
    assert main(line.split()) == 2
    assert "--overwrite" in capsys.readouterr().err
    line = f"gwas interaction {BASE} --environment height --out other"
    assert main(line.split()) == 2
    assert "the environment 'height' is no covariate; there are age, sex" in capsys.readouterr().err


def test_an_environment_of_two_groups(files, capsys):
    frame = pl.read_csv("covariates.csv")
    group = ["F" if k % 3 else "M" for k in range(frame.height)]
    cage = [f"c{k % 4}" for k in range(frame.height)]
    frame.with_columns(pl.Series("group", group), pl.Series("cage", cage)).write_csv("groups.csv")
    base = "gwas interaction --geno g.bed --pheno traits.csv --covar groups.csv --quiet"
    line = f"{base} --covariates age,group --environment group --out found"
    assert main(line.split()) == 0
    assert InteractionResult.open("found").environment == "group=M"
    assert main(f"{base} --environment cage --out other".split()) == 2
    assert "'cage' is text with 4 values" in capsys.readouterr().err


def test_components_are_covariates(files):
    assert main(f"gwas scan {BASE} --pcs 3 --out scanned".split()) == 0
    about = json.loads((files / "scanned/run.json").read_text())
    assert about["covariates"][-3:] == ["PC1", "PC2", "PC3"]
    assert about["options"]["pcs"] == 3
    genotypes = open_genotypes("g.bed")
    covariates = principal_components(genotypes, 3).to_covariates(read_covariates("covariates.csv"))
    expected = scan(genotypes, read_phenotypes("traits.csv"), covariates)
    table = pl.read_parquet(files / "scanned/associations.parquet")
    name = expected.traits[0]
    np.testing.assert_array_equal(table[f"beta.{name}"].to_numpy(), expected.beta[:, 0])
