"""The linear scan with complete cases against PLINK 2, where it is installed."""

import shutil
import subprocess

import numpy as np
import polars as pl
import pytest

from plait.data.phenotypes import SampleTable
from plait.data.variants import VariantTable
from plait.errors import DataWarning
from plait.gwas import VariantFilter, scan
from plait.io import open_genotypes
from plait.io.plink import write_bed
from tests.gwas.conftest import draw_calls

pytestmark = pytest.mark.skipif(
    shutil.which("plink2") is None, reason="plink2 is not installed here"
)


def test_complete_cases(tmp_path):
    random = np.random.default_rng(8)
    n, m = 300, 200
    calls = draw_calls(random, m, n, missing=0.03)
    names = np.array([f"p{i}" for i in range(n)])
    variants = VariantTable.of(
        ["1"] * m, np.arange(1, m + 1), ["A"] * m, ["G"] * m, [f"v{j}" for j in range(m)]
    )
    write_bed(tmp_path / "g.bed", [calls], variants, names)
    traits = random.normal(size=(n, 2)) + 0.5 * np.maximum(calls[:2], 0).T
    traits[5:20, 1] = np.nan
    covariates = random.normal(size=(n, 2))
    for name, values, columns in (
        ("pheno", traits, ["y1", "y2"]),
        ("covar", covariates, ["c1", "c2"]),
    ):
        frame = pl.DataFrame({"#IID": names} | dict(zip(columns, values.T, strict=True)))
        frame.fill_nan(None).write_csv(tmp_path / f"{name}.tsv", separator="\t", null_value="NA")
    command = (
        "plink2 --bfile g --pheno pheno.tsv --covar covar.tsv --glm hide-covar omit-ref "
        "allow-no-covars --out theirs"
    )
    done = subprocess.run(
        command.split(), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    ours = scan(
        open_genotypes(tmp_path / "g.bed"),
        SampleTable(names, ("y1", "y2"), traits),
        SampleTable(names, ("c1", "c2"), covariates),
        missing_genotypes="drop",
        variant_filter=VariantFilter(None, None, None),
    )
    for t, trait in enumerate(("y1", "y2")):
        theirs = pl.read_csv(
            tmp_path / f"theirs.{trait}.glm.linear", separator="\t", null_values=["NA", "."]
        )
        assert theirs["ID"].to_list() == ours.id.tolist()
        sign = np.where(theirs["A1"].to_numpy() == ours.ea, 1.0, -1.0)
        for column, found in (("BETA", sign * ours.beta[:, t]), ("SE", ours.se[:, t])):
            expected = theirs[column].to_numpy()
            # PLINK prints six significant digits.
            np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)
        np.testing.assert_allclose(10 ** ours.log10p[:, t], theirs["P"].to_numpy(), rtol=1e-4)
        called = (calls >= 0) & ~np.isnan(traits[:, t])
        np.testing.assert_array_equal(theirs["OBS_CT"].to_numpy(), called.sum(axis=1))
        np.testing.assert_array_equal(ours.n[:, t], called.sum(axis=1))


def test_the_rows_of_a_table_up_to_a_p_value(tmp_path):
    """``p_threshold`` keeps the rows of ``--pfilter``; of several traits those of any of them."""
    random = np.random.default_rng(9)
    n, m = 200, 500
    calls = draw_calls(random, m, n)
    calls[5] = 2  # without a p-value
    names = np.array([f"p{i}" for i in range(n)])
    ids = [f"v{j}" for j in range(m)]
    variants = VariantTable.of(["1"] * m, np.arange(1, m + 1), ["A"] * m, ["G"] * m, ids)
    write_bed(tmp_path / "g.bed", [calls], variants, names)
    traits = random.normal(size=(n, 2)) + 0.3 * calls[:2].T
    frame = pl.DataFrame({"#IID": names, "y1": traits[:, 0], "y2": traits[:, 1]})
    frame.write_csv(tmp_path / "pheno.tsv", separator="\t")
    table = SampleTable(names, ("y1", "y2"), traits)
    genotypes = open_genotypes(tmp_path / "g.bed")
    rules = VariantFilter(None, None, None)
    result = scan(genotypes, table, variant_filter=rules)
    for p_threshold in (0.01, 0.2, 1):
        command = (
            "plink2 --bfile g --pheno pheno.tsv --glm omit-ref allow-no-covars --out theirs "
            f"--pfilter {p_threshold}"
        )
        done = subprocess.run(
            command.split(), cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr + done.stdout
        either = set()
        for trait in ("y1", "y2"):
            theirs = pl.read_csv(tmp_path / f"theirs.{trait}.glm.linear", separator="\t")
            alone = scan(genotypes, table.select([trait]), variant_filter=rules)
            alone.write_parquet(tmp_path / "ours.parquet", True, p_threshold=p_threshold)
            ours = pl.read_parquet(tmp_path / "ours.parquet")
            assert ours["id"].to_list() == theirs["ID"].to_list()
            assert 0 < len(ours) < m
            either |= set(ours["id"])
        result.write_parquet(tmp_path / "ours.parquet", True, p_threshold=p_threshold)
        ours = pl.read_parquet(tmp_path / "ours.parquet")
        assert ours["id"].to_list() == [name for name in ids if name in either]


def test_effects_of_one_copy_on_haploid_chromosomes(tmp_path):
    """On X males count as 0 and 2 copies, on Y and MT samples as 0 and 1, of both programs."""
    random = np.random.default_rng(10)
    n = 240
    chrom = np.repeat(["1", "X", "Y", "MT"], [10, 40, 20, 20])
    male = np.arange(n) % 3 > 0
    calls = random.binomial(2, 0.35, (len(chrom), n)).astype(np.int8)
    once = np.isin(chrom, ["Y", "MT"])[:, None] | ((chrom == "X")[:, None] & male)
    calls[once] = 2 * random.binomial(1, 0.35, once.sum())
    calls[(chrom == "Y")[:, None] & ~male] = -1
    calls[[55, 75], [1, 2]] = 1  # half a copy
    names = np.array([f"p{i}" for i in range(n)])
    ids = [f"v{j}" for j in range(len(chrom))]
    alleles = ["A"] * len(chrom), ["G"] * len(chrom)
    variants = VariantTable.of(chrom, np.arange(1, len(chrom) + 1), *alleles, ids)
    write_bed(tmp_path / "g.bed", [calls], variants, names)
    sexes = np.where(male, 1, 2)
    people = [f"0\t{name}\t0\t0\t{s}\t-9\n" for name, s in zip(names, sexes, strict=True)]
    (tmp_path / "g.fam").write_text("".join(people))
    y = random.normal(size=n) + 0.3 * male + 0.3 * np.maximum(calls[[20, 60, 80]], 0).sum(axis=0)
    table = pl.DataFrame({"#IID": names, "y": y})
    table.write_csv(tmp_path / "pheno.tsv", separator="\t")
    command = (
        "plink2 --bfile g --pheno pheno.tsv --glm hide-covar omit-ref allow-no-covars cols=+a1freq "
        "--out theirs"
    )
    done = subprocess.run(
        command.split(), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    theirs = pl.read_csv(tmp_path / "theirs.y.glm.linear", separator="\t", null_values=["NA", "."])
    genotypes, trait = open_genotypes(tmp_path / "g.bed"), SampleTable(names, ("y",), y[:, None])
    sex = SampleTable(names, ("sex",), male[:, None].astype(float))
    given = {"missing_genotypes": "drop", "variant_filter": VariantFilter(None, None, None)}
    with pytest.warns(DataWarning, match="chromosome X"):
        alone = scan(genotypes, trait, **given)
    # PLINK adds the sex on X by itself, and only there.
    on_x = scan(genotypes, trait, sex, **given)
    assert theirs["ID"].to_list() == ids
    for j in range(len(chrom)):
        ours, row = (on_x if chrom[j] == "X" else alone), theirs.row(j, named=True)
        sign = 1.0 if row["A1"] == ours.ea[j] else -1.0
        assert sign * ours.beta[j, 0] == pytest.approx(row["BETA"], rel=2e-5, abs=2e-6)
        assert ours.se[j, 0] == pytest.approx(row["SE"], rel=2e-5)
        assert 10 ** ours.log10p[j, 0] == pytest.approx(row["P"], rel=1e-4)
        frequency = ours.frequency[j] if sign > 0 else 1 - ours.frequency[j]
        assert frequency == pytest.approx(row["A1_FREQ"], rel=2e-5)
        assert ours.n[j, 0] == row["OBS_CT"]
