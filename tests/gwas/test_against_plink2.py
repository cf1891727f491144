"""The linear scan with complete cases against PLINK 2, where it is installed."""

import shutil
import subprocess

import numpy as np
import polars as pl
import pytest

from plait.data.phenotypes import SampleTable
from plait.data.variants import VariantTable
from plait.errors import DataWarning
from plait.gwas import (
    QualityControl,
    VariantFilter,
    genotype_quality,
    quality_control,
    scan,
    scan_interaction,
)
from plait.io import open_genotypes
from plait.io.genotypes import SelectedGenotypes
from plait.io.plink import write_bed
from tests.gwas.conftest import draw_calls


class AsDosages(SelectedGenotypes):
    """The same genotypes, as a format has them that knows no calls."""

    def __init__(self, source):
        super().__init__(source)
        self.kind = "dosage"


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
    calls[[51, 52], [0, 3]] = 2  # females, who have no Y
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
        "plink2 --bfile g --pheno pheno.tsv --glm hide-covar omit-ref allow-no-covars "
        "cols=+a1freq,+a1count,+totallele --out theirs"
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
        rarer = min(row["A1_CT"], row["ALLELE_CT"] - row["A1_CT"])
        assert ours.mac[j, 0] == pytest.approx(rarer, rel=2e-5)


@pytest.fixture
def both_sexes(tmp_path):
    """Rare alleles on all kinds of chromosomes, missing and impossible calls, and unknown sexes."""
    random = np.random.default_rng(12)
    n, sexes = 230, np.resize([1, 2, 1, 0, 2, 1], 230)
    chrom = np.repeat(["1", "X", "Y", "MT"], 40)
    once = np.isin(chrom, ["Y", "MT"])[:, None] | ((chrom == "X")[:, None] & (sexes == 1))
    frequency = random.uniform(0.01, 0.12, (len(chrom), 1))
    calls = random.binomial(2, frequency, (len(chrom), n)).astype(np.int8)
    calls = np.where(once, 2 * (calls > 0), calls).astype(np.int8)
    calls[(chrom == "Y")[:, None] & (sexes != 1)] = -1
    calls[random.random(calls.shape) < random.uniform(0, 0.09, (len(chrom), 1))] = -1
    calls[85, [1, 3, 4]] = 0, 2, 2  # nobody who has a Y
    calls[[50, 90, 130], [0, 2, 1]] = 1  # half a copy
    names, ids = np.array([f"p{i}" for i in range(n)]), [f"v{j}" for j in range(len(chrom))]
    alleles = ["A"] * len(chrom), ["G"] * len(chrom)
    places = np.arange(3_000_000, 3_000_000 + len(chrom))
    write_bed(tmp_path / "g.bed", [calls], VariantTable.of(chrom, places, *alleles, ids), names)
    people = [f"0\t{name}\t0\t0\t{s}\t-9\n" for name, s in zip(names, sexes, strict=True)]
    (tmp_path / "g.fam").write_text("".join(people))
    return tmp_path, chrom, ids


def run_plink2(folder, words):
    command = f"plink2 --bfile g --out theirs {words}"
    done = subprocess.run(command.split(), cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout


def read_theirs(folder, suffix):
    return pl.read_csv(folder / f"theirs.{suffix}", separator="\t", null_values="nan")


def test_call_rates_and_copies_where_samples_are_haploid(both_sexes):
    """Only males have Y; haploids have one copy; a filter keeps the same variants."""
    folder, chrom, ids = both_sexes
    run_plink2(folder, "--missing --freq counts")
    quality = genotype_quality(folder / "g.bed")
    table = quality.variant_table()
    missing = read_theirs(folder, "vmiss")
    np.testing.assert_allclose(1 - table["call_rate"], missing["F_MISS"], rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(table["n_missing"], missing["MISSING_CT"])
    samples = read_theirs(folder, "smiss")
    np.testing.assert_allclose(
        1 - quality.sample_call_rate, samples["F_MISS"], rtol=1e-5, atol=1e-7
    )
    counts = read_theirs(folder, "acount")
    copies = counts["ALT_CTS"].to_numpy()
    rarer = np.minimum(copies, counts["OBS_CT"].to_numpy() - copies)
    np.testing.assert_array_equal(table["mac"], rarer)
    not_x = chrom != "X"
    frequency = (copies / counts["OBS_CT"].to_numpy())[not_x]
    np.testing.assert_allclose(table["eaf"].to_numpy()[not_x], frequency, rtol=1e-12)
    run_plink2(folder, "--geno 0.05 --mac 12 --write-snplist")
    kept = (folder / "theirs.snplist").read_text().split()
    assert all(5 < np.isin(kept, np.array(ids)[chrom == name]).sum() < 36 for name in set(chrom))
    rules = QualityControl(min_sample_call_rate=None, min_minor_count=12)
    assert quality_control(folder / "g.bed", rules).kept_variant_names() == kept


@pytest.mark.parametrize("is_dosage", [False, True])
@pytest.mark.parametrize("model", ["linear", "mixed", "logistic", "interaction"])
def test_which_variants_of_haploids_are_tested(model, is_dosage, both_sexes):
    folder, _, ids = both_sexes
    run_plink2(folder, "--geno 0.05 --mac 12 --write-snplist")
    kept = (folder / "theirs.snplist").read_text().split()
    genotypes = open_genotypes(folder / "g.bed")
    if is_dosage:
        genotypes = AsDosages(genotypes)
    random, n = np.random.default_rng(13), genotypes.n_samples
    y = random.normal(size=(n, 1)) if model != "logistic" else np.resize([0.0, 1.0, 1.0], (n, 1))
    sex = (genotypes.sexes == 1).astype(float)
    trait = SampleTable(genotypes.samples, ("y",), y)
    covariates = SampleTable(genotypes.samples, ("sex",), sex[:, None])
    rules = VariantFilter(min_minor_count=12)
    if model == "interaction":
        age = SampleTable(genotypes.samples, ("age",), random.normal(size=(n, 1)))
        with pytest.warns(DataWarning, match="chromosome X and chromosome Y are scanned in"):
            found = scan_interaction(genotypes, trait, age, variant_filter=rules)
    else:
        found = scan(genotypes, trait, covariates, model=model, variant_filter=rules)
    tested = np.isfinite(found.log10p if model != "interaction" else found.log10p_interaction)
    assert np.array(ids)[tested[:, 0]].tolist() == kept
