"""``--p-threshold``: the table of a scan has variants with small p-values, all else has all."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from plait.cli.main import main
from plait.data.p_values import log10_p_of_z
from plait.data.variants import VariantTable
from plait.gwas import AssociationResult, EnvironmentsResult, InteractionResult
from plait.io import read_effects
from plait.io.plink import write_bed
from tests.cli.pictures import leave_pictures_empty

N, M = 150, 600
TABLES = {"parquet": ".parquet", "tsv": ".tsv.gz"}
INPUTS = "--geno g.bed --pheno y.csv --covar x.csv --min-mac 10"
SCAN = f"gwas scan {INPUTS} --covariates heat"
INTERACTION = f"gwas interaction {INPUTS} --environment"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Two traits with effects, of which one changes, and rare variants, which are not tested."""
    random = np.random.default_rng(3)
    calls = random.binomial(2, random.choice([0.01, 0.3], (M, 1)), (M, N)).astype(np.int8)
    chrom = np.repeat(["1", "2", "3"], M // 3)
    ids = [f"rs{j}" for j in range(M)]
    table = VariantTable.of(chrom, np.arange(1, M + 1), ["A"] * M, ["G"] * M, ids)
    samples = [f"s{i}" for i in range(N)]
    write_bed(tmp_path / "g.bed", iter([calls]), table, samples)
    common = np.flatnonzero(calls.mean(axis=1) > 0.3)
    heat = 20 + random.normal(size=N)
    values = random.normal(size=(N, 2)) + 0.5 * calls[common[[10, 50]]].T
    values[:, 0] += (heat - 20) * calls[common[3]]
    traits = pl.DataFrame({"IID": samples, "a": values[:, 0], "b": values[:, 1]})
    traits.write_csv(tmp_path / "y.csv")
    cages = [f"c{k % 3}" for k in range(N)]
    pl.DataFrame({"IID": samples, "heat": heat, "cage": cages}).write_csv(tmp_path / "x.csv")
    (tmp_path / "about.yaml").write_text("genome_assembly: GRCh38\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(path):
    """Return a table; of text every digit."""
    if path.endswith(".parquet"):
        return pl.read_parquet(path)
    return pl.read_csv(path, separator="\t", infer_schema=False, null_values="NA")


def within(table, name, p_threshold):
    """Return the rows with a p-value up to a threshold for some of the traits in the table."""
    logs = [pl.col(column).cast(pl.Float64) for column in table.columns if f"{name}." in column]
    is_low = [log.is_not_nan() & (log <= np.log10(p_threshold)) for log in logs]
    return table.filter(pl.any_horizontal(is_low))


def records(*folders):
    return [json.loads(Path(folder, "run.json").read_text()) for folder in folders]


def assert_alike(*names):
    for name in names:
        assert Path("all", name).read_bytes() == Path("few", name).read_bytes(), name


@pytest.fixture
def form(request, monkeypatch):
    """The format of a table; pictures, which it does not change, are drawn beside one of them."""
    if request.param != "parquet":
        leave_pictures_empty(monkeypatch)
    return request.param


@pytest.mark.parametrize("form", list(TABLES), indirect=True)
def test_the_table_of_a_scan_is_small_and_all_else_the_same(here, capsys, form):
    assert main(f"{SCAN} --format {form} --out all".split()) == 0
    assert "table:" not in capsys.readouterr().out
    assert main(f"{SCAN} --format {form} --p-threshold 0.01 --out few".split()) == 0
    said = capsys.readouterr().out
    whole, few = (read(f"{name}/associations{TABLES[form]}") for name in ("all", "few"))
    kept = within(whole, "log10p", 0.01)
    assert few.equals(kept, null_equal=True)
    assert 2 < len(kept) < 60 and len(whole) == M
    told = f"table: {len(kept)} of 600 variants, those with p <= 0.01 for some trait; "
    assert f"{told}associations.zarr has all\n" in said
    before, after = records("all", "few")
    assert after["counts"].pop("table_rows") == {"kept": len(kept), "of": M}
    assert after["options"]["p_threshold"] == 0.01 and before["options"]["p_threshold"] is None
    assert before["counts"] == after["counts"] and before["lambda_gc"] == after["lambda_gc"]
    assert_alike("manhattan.png", "qq.png", "error_correlation.csv")
    found, other = (AssociationResult.load(name) for name in ("all", "few"))
    assert found.allclose(other, rtol=0) and len(other.n) == M
    effects, others = (read_effects(f"{name}/effects.zarr") for name in ("all", "few"))
    np.testing.assert_array_equal(effects.bhat, others.bhat)
    np.testing.assert_array_equal(effects.shat, others.shat)
    # What a table has is read again by other commands.
    table = f"few/associations{TABLES[form]}"
    assert main(["sumstats", "combine", table, "--out", "few.zarr", "--quiet"]) == 0
    assert len(read_effects("few.zarr").bhat) == len(kept)
    one = f"{SCAN} --traits b --format {form} --p-threshold 0.01 --out one"
    assert main(one.split()) == 0
    assert "those with p <= 0.01; associations.zarr has all\n" in capsys.readouterr().out
    alone = read(f"one/associations{TABLES[form]}")
    logs = alone["log10p.b"].cast(pl.Float64).to_numpy()
    assert 0 < len(logs) < len(kept) and (logs <= -2).all()


@pytest.mark.parametrize("form", list(TABLES), indirect=True)
@pytest.mark.parametrize(
    ("more", "kind"), [("heat --at 18,22", InteractionResult), ("cage", EnvironmentsResult)]
)
def test_the_table_of_interactions(here, capsys, more, kind, form):
    line = f"{INTERACTION} {more} --format {form}"
    assert main(f"{line} --out all".split()) == 0
    capsys.readouterr()
    assert main(f"{line} --p-threshold 0.02 --out few".split()) == 0
    said = capsys.readouterr().out
    whole, few = (read(f"{name}/interactions{TABLES[form]}") for name in ("all", "few"))
    kept = within(whole, "log10p_interaction", 0.02)
    assert few.equals(kept, null_equal=True)
    assert 2 < len(kept) < 60 and len(whole) == M
    told = f"table: {len(kept)} of 600 variants, those with p <= 0.02 for some trait; "
    assert f"{told}interactions.zarr has all\n" in said
    before, after = records("all", "few")
    assert after["counts"].pop("table_rows") == {"kept": len(kept), "of": M}
    assert before["counts"] == after["counts"] and before["lambda_gc"] == after["lambda_gc"]
    assert_alike("manhattan.png", "qq.png")
    assert kind.load("all").allclose(kind.load("few"), rtol=0)


SSF = "--format ssf --metadata about.yaml"


@pytest.mark.parametrize("command", [SCAN, f"{INTERACTION} heat"])
@pytest.mark.parametrize("value", ["0", "-0.5", "1.5", "nan", "1e-400"])
def test_what_is_no_threshold_is_refused_before_the_scan(here, capsys, command, value):
    assert main(f"{command} --p-threshold {value} --out o --quiet".split()) == 2
    (told,) = capsys.readouterr().err.splitlines()
    given = float(value)
    assert told == f"plait: error: --p-threshold is {given}; give a number above 0, at most 1."
    assert not (here / "o").exists()


def test_gwas_ssf_asks_for_all_variants(here, capsys):
    assert main(f"{SCAN} {SSF} --p-threshold 0.01 --out o --quiet".split()) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told == (
        "plait: error: GWAS-SSF asks for all variants that were tested, whatever their p-values: "
        "leave out --p-threshold, or write parquet or tsv."
    )
    assert not (here / "o").exists()


def test_a_scan_stopped_at_its_table_goes_on_with_another_threshold(here, monkeypatch, capsys):
    """The store has every p-value, so that nothing is scanned again."""
    with monkeypatch.context() as patch:
        patch.setattr(AssociationResult, "write_parquet", lambda *_, **__: 1 / 0)
        assert main(f"{SCAN} --out few --quiet".split()) == 1
    made = (here / "few/associations.zarr/zarr.json").stat().st_mtime_ns
    assert main(f"{SCAN} --p-threshold 1e-3 --out few --quiet".split()) == 0
    assert (here / "few/associations.zarr/zarr.json").stat().st_mtime_ns == made
    whole = AssociationResult.open("few").to_table()
    assert read("few/associations.parquet").equals(within(whole, "log10p", 1e-3), null_equal=True)


def test_no_variant_is_left(here, capsys):
    assert main(f"{SCAN} --p-threshold 1e-200 --out none".split()) == 0
    assert "table: 0 of 600 variants, those with p <= 1e-200 for some" in capsys.readouterr().out
    found = read("none/associations.parquet")
    assert found.shape == (0, len(AssociationResult.open("none").to_table().columns))


@pytest.mark.parametrize("form", list(TABLES))
def test_no_lambda_is_told_of_rows_that_were_chosen_by_p(tmp_path, monkeypatch, capsys, form):
    """Here by the smaller of two, so that neither trait by itself shows it."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(8)
    z = random.normal(size=(6000, 2))
    places = pl.DataFrame({"chrom": ["1"] * 6000, "pos": np.arange(1, 6001)})
    letters = places.with_columns(id=pl.format("rs{}", "pos"), oa=pl.lit("A"), ea=pl.lit("G"))
    found = {"eaf": np.full(6000, 0.3)}
    for name, values in zip("ab", z.T, strict=True):
        found |= {f"beta.{name}": values, f"se.{name}": np.ones(6000)}
        found |= {f"log10p.{name}": log10_p_of_z(values), f"n.{name}": np.full(6000, 900)}
    whole = letters.with_columns(**found)
    few = within(whole, "log10p", 0.05)
    for name, table in (("whole", whole), ("few", few)):
        if form == "parquet":
            table.write_parquet(f"{name}.parquet")
        else:
            table.write_csv(f"{name}.tsv.gz", separator="\t", compression="gzip")
    flag = f"all of {len(few)} rows have p <= 0.050 in any of its contexts, which chance does not"
    for command in ("check", "convert --to tsv --out b.tsv"):
        line = f"sumstats {command} {{}}{TABLES[form]} --context b".split()
        assert main([part.format("few") for part in line]) == 0
        said = capsys.readouterr().out
        told = "lambda cannot be told: only rows with p <= 0.050 in one context or another are"
        assert f"; {told} there\n" in said
        assert f"attention: {flag}" in said
    assert main(["sumstats", "check", f"whole{TABLES[form]}", "--context", "b"]) == 0
    said = capsys.readouterr().out
    assert "; lambda 0.99" in said and "nothing in it disagrees" in said
    assert main(["sumstats", "combine", f"few{TABLES[form]}", "--out", "few.zarr"]) == 0
    assert f"attention: few{TABLES[form]}: {flag}" in capsys.readouterr().out
    one = within(whole.rename({"log10p.a": "p.a"}), "log10p", 0.02)
    one.select(pl.all().exclude("^.*[.]a$")).write_parquet("one.parquet")
    line = f"sumstats combine b=one.parquet a=whole{TABLES[form]} --out b.zarr"
    assert main(line.split()) == 0
    warned = capsys.readouterr().err
    assert f"warning: the table of 'b': all of {len(one)} rows have p <= 0.0" in warned
    assert warned.count("rows have p") == 1
