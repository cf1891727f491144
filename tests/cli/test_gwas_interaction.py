"""``plait gwas interaction``, and components as covariates."""

import json

import numpy as np
import polars as pl
import pytest

from plait.cli.main import main
from plait.errors import FileFormatError
from plait.gwas import (
    AssociationResult,
    EnvironmentsResult,
    InteractionResult,
    principal_components,
    scan,
    scan_interaction,
)
from plait.io import open_genotypes, read_covariates, read_phenotypes
from plait.io.plink import write_bed
from plait.simulate import cohort
from tests.cli.pictures import empty_pictures

__all__ = ["empty_pictures"]  # a fixture
pytestmark = pytest.mark.usefixtures("empty_pictures")


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


def test_an_environment_of_two_groups(files):
    frame = pl.read_csv("covariates.csv")
    group = ["F" if k % 3 else "M" for k in range(frame.height)]
    frame.with_columns(pl.Series("group", group)).write_csv("groups.csv")
    base = "gwas interaction --geno g.bed --pheno traits.csv --covar groups.csv --quiet"
    line = f"{base} --covariates age,group --environment group --out found"
    assert main(line.split()) == 0
    assert InteractionResult.open("found").environment == "group=M"


def test_more_groups_and_several_environments(files, capsys):
    frame = pl.read_csv("covariates.csv")
    cage = [f"c{k % 4}" if k else "c1" for k in range(frame.height)]
    frame.with_columns(pl.Series("cage", cage)).write_csv("groups.csv")
    base = "gwas interaction --geno g.bed --pheno traits.csv --covar groups.csv --quiet"
    line = f"{base} --covariates age --environment cage --robust --out found"
    assert main(line.split()) == 0
    found = EnvironmentsResult.open("found")
    assert found.groups == ("cage=c1", "cage=c0", "cage=c2", "cage=c3")
    covariates = read_covariates("groups.csv", ["age", "cage"])
    known = open_genotypes("g.bed"), read_phenotypes("traits.csv"), "cage", covariates
    expected = scan_interaction(*known, robust=True)
    assert EnvironmentsResult.load("found").allclose(expected, rtol=0)
    made = pl.read_parquet("found/interactions.parquet")
    trait = found.traits[0]
    beta, covariance = expected.effects_at()
    np.testing.assert_array_equal(made[f"beta_cage=c0.{trait}"], beta[:, 0, 1])
    np.testing.assert_array_equal(made[f"se_cage=c0.{trait}"], np.sqrt(covariance[:, 0, 1, 1]))
    for name in ("manhattan.png", "qq.png", "run.json"):
        assert (files / "found" / name).exists()
    with pytest.raises(FileFormatError, match="environments"):
        InteractionResult.open("found")

    assert main(f"{base} --environment age,cage --out other".split()) == 0
    other = EnvironmentsResult.open("other")
    assert other.terms == ("main", "age", "cage=c0", "cage=c2", "cage=c3")
    assert other.groups is None
    assert f"beta_age.{trait}" in pl.read_parquet("other/interactions.parquet").columns
    assert main(f"{base} --environment cage --at 1 --out third".split()) == 2
    assert "--at is for one environment; there are 3" in " ".join(capsys.readouterr().err.split())
    # One environment after several, in the same folder.
    assert main(f"{base} --environment age --out other --overwrite".split()) == 0
    assert InteractionResult.open("other").environment == "age"


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


def test_a_scan_with_relationships_of_a_file(files, capsys):
    assert main(["gwas", "kinship", "--geno", "g.bed", "--out", "related", "--quiet"]) == 0
    line = f"gwas scan {BASE} --model mixed --relationships related --out found"
    assert main(line.split()) == 0
    found = AssociationResult.load("found")
    given = files / "related.grm.bin"
    study = (
        open_genotypes("g.bed"),
        read_phenotypes("traits.csv"),
        read_covariates("covariates.csv"),
    )
    assert found.allclose(scan(*study, model="mixed", relationships=given), rtol=0)
    assert main(f"{line} --loco --overwrite".split()) == 2
    assert "no chromosome can be left out of; --loco needs" in " ".join(
        capsys.readouterr().err.split()
    )
    assert main(f"gwas scan {BASE} --relationships related --out other".split()) == 2
    assert "relationships are for --model mixed; --model is 'linear'" in " ".join(
        capsys.readouterr().err.split()
    )


def test_tests_of_the_mixed_model(files, capsys):
    line = f"gwas scan {BASE} --model mixed --no-loco --test score --out found"
    assert main(line.split()) == 0
    study = (
        open_genotypes("g.bed"),
        read_phenotypes("traits.csv"),
        read_covariates("covariates.csv"),
    )
    expected = scan(*study, model="mixed", loco=False, test="score")
    assert AssociationResult.load("found").allclose(expected, rtol=0)
    assert main(f"gwas scan {BASE} --test lrt --out other".split()) == 2
    assert "is for --model mixed" in " ".join(capsys.readouterr().err.split())
