"""Tables with the rows up to a largest p-value alone are whole tables that were filtered after."""

import gzip
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from plait.data.phenotypes import SampleTable
from plait.data.variants import VariantTable
from plait.errors import OptionError
from plait.gwas import (
    AssociationResult,
    EnvironmentsResult,
    InteractionResult,
    VariantFilter,
    scan,
    scan_interaction,
)
from plait.gwas.association_tables import write_tables
from plait.gwas.variant_results import chunk_variants
from plait.io import open_genotypes
from plait.io.plink import write_bed

N, M = 60, 20_000
"""A chunk of a store of two traits has 8192 variants: three of them."""
TRAITS = ("a", "LDL/HDL ratio")
RULES = VariantFilter(min_call_rate=0.95, min_minor_count=5)
THRESHOLDS = (1e-3, 0.03, 1.0)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Chromosomes in runs, one of them in two, with variants that are tested for no trait."""
    folder = tmp_path_factory.mktemp("study")
    random = np.random.default_rng(1)
    calls = random.binomial(2, random.uniform(0.02, 0.5, (M, 1)), (M, N)).astype(np.int8)
    calls[random.random((M, N)) < 0.01] = -1
    chrom = np.repeat(["1", "2", "1", "3"], [9000, 3000, 6000, M - 18_000])
    ids = [f"rs{j}" for j in range(M)]
    table = VariantTable.of(chrom, np.arange(1, M + 1), ["A"] * M, ["G"] * M, ids)
    samples = np.array([f"s{i}" for i in range(N)])
    write_bed(folder / "g.bed", iter([calls]), table, samples)
    values = random.normal(size=(N, 4))
    values[3:16, 1] = np.nan  # so that rare variants are tested for the other trait alone
    return (
        open_genotypes(folder / "g.bed"),
        SampleTable(samples, TRAITS, values[:, :2]),
        SampleTable(samples, ("heat", "rain"), values[:, 2:]),
    )


@pytest.fixture(scope="module")
def results(study, tmp_path_factory):
    """Scans whose arrays lie in stores, of each kind, and the p-values that tables go by."""
    genotypes, traits, environments = study
    folder = tmp_path_factory.mktemp("scans")

    def options(name):
        return {"variant_filter": RULES, "out": folder / f"{name}.zarr"}

    one = environments.select(["heat"])
    found = {
        "scan": scan(genotypes, traits, **options("scan")),
        "one": scan_interaction(genotypes, traits, one, **options("one")),
        "several": scan_interaction(genotypes, traits, environments, **options("several")),
    }
    kinds = AssociationResult, InteractionResult, EnvironmentsResult
    assert tuple(map(type, found.values())) == kinds
    return found


KINDS = {"scan": "log10p", "one": "log10p_interaction", "several": "log10p_interaction"}


def those_within(table, name, p_threshold):
    """Rows of a table whose smallest p-value of all traits is low enough; none without a test."""
    logs = np.column_stack([table[f"{name}.{trait}"].to_numpy() for trait in TRAITS])
    smallest = np.where(np.isnan(logs), np.inf, logs).min(axis=1)
    return np.flatnonzero(smallest <= np.log10(p_threshold))


def assert_same_table(found, expected):
    """Equal in names, types and bits, NaN included."""
    assert found.schema == expected.schema
    assert found.equals(expected, null_equal=True)
    for name in found.columns:
        if found.schema[name] == pl.Float64:
            bits = (frame[name].to_numpy().view(np.uint64) for frame in (found, expected))
            np.testing.assert_array_equal(*bits)


@pytest.mark.parametrize("kind", list(KINDS))
def test_parquet_and_text_have_the_rows_of_whole_tables(results, kind, tmp_path):
    result = results[kind]
    result.write_parquet(tmp_path / "all.parquet")
    result.write_tsv(tmp_path / "all.tsv.gz")
    whole = pl.read_parquet(tmp_path / "all.parquet")
    header, *lines = gzip.decompress((tmp_path / "all.tsv.gz").read_bytes()).splitlines()
    tested = np.isfinite(getattr(result, KINDS[kind])[:])
    assert tested.all(axis=1).sum() < tested.any(axis=1).sum() < M
    for p_threshold in THRESHOLDS:
        rows = those_within(whole, KINDS[kind], p_threshold)
        assert 0 < len(rows) < M
        result.write_parquet(tmp_path / "few.parquet", True, p_threshold=p_threshold)
        assert_same_table(pl.read_parquet(tmp_path / "few.parquet"), whole[rows])
        result.write_tsv(tmp_path / "few.tsv.gz", True, p_threshold=p_threshold)
        text = gzip.decompress((tmp_path / "few.tsv.gz").read_bytes()).splitlines()
        assert text == [header, *(lines[row] for row in rows)]
        assert result.n_within(p_threshold) == len(rows)
    assert len(rows) == tested.any(axis=1).sum()  # p <= 1 leaves out what was not tested alone


def test_effects_in_environments_stand_in_the_rows_that_are_left(results, tmp_path):
    result = results["one"]
    whole = result.to_table(environments=(18, 22.5))
    rows = those_within(whole, KINDS["one"], 1e-3)
    more = {"environments": (18, 22.5), "p_threshold": 1e-3}
    result.write_parquet(tmp_path / "few.parquet", **more)
    assert_same_table(pl.read_parquet(tmp_path / "few.parquet"), whole[rows])
    result.write_tsv(tmp_path / "few.tsv.gz", **more)
    text = whole[rows].fill_nan(None).write_csv(separator="\t", null_value="NA")
    assert gzip.decompress((tmp_path / "few.tsv.gz").read_bytes()).decode() == text


@pytest.mark.parametrize("mixed_up", [False, True])
def test_files_of_chromosomes(results, mixed_up, tmp_path):
    """Every chromosome has its file: without a row where it has no p-value that is low enough."""
    result = results["scan"].take(slice(None))
    if mixed_up:
        chrom = np.random.default_rng(2).choice(["2", "1", "X"], M)
        result = replace(result, chrom=chrom)
    whole = result.to_table()
    rows = those_within(whole, "log10p", 1e-3)
    empty = whole["chrom"][int(rows[0])]
    rows = rows[(whole["chrom"] == empty).to_numpy()[rows]]
    log10p = result.log10p.copy()
    log10p[rows] = -1.0
    result = replace(result, log10p=log10p)
    whole = result.to_table()
    for stored in (False, True):
        if stored:
            result.save(tmp_path / "a.zarr")
            result = AssociationResult.open(tmp_path / "a.zarr")
        folder = tmp_path / f"parts{stored}"
        result.write_parquet(folder, partition="chromosome", p_threshold=1e-3)
        kept = whole[those_within(whole, "log10p", 1e-3)]
        names = whole["chrom"].unique(maintain_order=True).to_list()
        assert {path.name for path in folder.iterdir()} == {f"{name}.parquet" for name in names}
        for name in names:
            found = pl.read_parquet(folder / f"{name}.parquet")
            assert_same_table(found, kept.filter(pl.col("chrom") == name))
            assert (found.height == 0) == (name == empty)
        together = pl.scan_parquet(folder / "*.parquet").sort("pos").collect()
        assert_same_table(together, kept)


def test_a_table_without_rows_has_its_columns(results, tmp_path):
    result = results["scan"]
    assert result.n_within(1e-200) == 0
    result.write_parquet(tmp_path / "a.parquet", p_threshold=1e-200)
    assert_same_table(pl.read_parquet(tmp_path / "a.parquet"), result.to_table(slice(0, 0)))
    result.write_tsv(tmp_path / "a.tsv.gz", p_threshold=1e-200)
    text = gzip.decompress((tmp_path / "a.tsv.gz").read_bytes()).decode()
    assert text == result.to_table(slice(0, 0)).write_csv(separator="\t")


@pytest.mark.parametrize("kind", list(KINDS))
def test_frames(results, kind):
    """Long ones have a row for each variant and trait, each with a p-value of its own."""
    result = results[kind]
    long, wide = result.to_frame(), result.to_frame("wide")
    for p_threshold in THRESHOLDS:
        logs = long[KINDS[kind]].to_numpy()
        with np.errstate(invalid="ignore"):
            rows = np.flatnonzero(logs <= np.log10(p_threshold))
        assert_same_table(result.to_frame(p_threshold=p_threshold), long[rows])
        rows = those_within(wide, KINDS[kind], p_threshold)
        assert_same_table(result.to_frame("wide", p_threshold), wide[rows])


def made(log10p):
    m, t = np.shape(log10p)
    return AssociationResult(
        beta=np.ones((m, t)),
        se=np.where(np.isnan(log10p), np.nan, 0.5),
        log10p=np.asarray(log10p),
        n=np.full((m, t), 90),
        frequency=np.full(m, 0.25),
        chrom=np.repeat("1", m),
        pos=np.arange(1, m + 1),
        id=np.array([f"rs{k}" for k in range(m)]),
        oa=np.repeat("A", m),
        ea=np.repeat("C", m),
        traits=tuple(f"y{k}" for k in range(t)),
        V0=np.eye(t),
    )


def test_the_threshold_itself_and_p_values_beyond_doubles():
    """p <= threshold, as PLINK 2, and in logs: 1e-400 is no p of 0, and 1e-300 tells them apart."""
    for p_threshold in (0.01, 5e-8, 1e-300):
        at = np.log10(p_threshold)
        logs = [[at], [np.nextafter(at, 0)], [np.nan], [-400.0], [-1e5], [0.0]]
        result = made(logs)
        assert result.to_frame(p_threshold=p_threshold)["id"].to_list() == ["rs0", "rs3", "rs4"]
        assert result.n_within(p_threshold) == 3
    assert made(logs).n_within(1) == 5


def test_single_rows_far_apart_are_one_row_group(tmp_path):
    """A file of rows from many parts is small, whatever parts it was written in."""
    n = 40 * chunk_variants(1, 1)
    logs = np.full((n, 1), -0.3)
    logs[:: chunk_variants(1, 1)] = -9.0
    result = made(logs)
    result.write_parquet(tmp_path / "few.parquet", p_threshold=1e-8)
    result.take(slice(None, None, chunk_variants(1, 1))).write_parquet(tmp_path / "known.parquet")
    few, known = (tmp_path / f"{name}.parquet" for name in ("few", "known"))
    assert pl.read_parquet(few).height == 40
    assert few.read_bytes() == known.read_bytes()


@pytest.mark.parametrize("p_threshold", [0, -0.1, 1.0000001, 5, np.nan, np.inf])
def test_what_is_no_threshold(results, tmp_path, p_threshold):
    for name, result in results.items():
        for work in (
            lambda r: r.write_parquet(tmp_path / "a", p_threshold=p_threshold),
            lambda r: r.write_parquet(
                tmp_path / "a", partition="chromosome", p_threshold=p_threshold
            ),
            lambda r: r.write_tsv(tmp_path / "a", p_threshold=p_threshold),
            lambda r: r.to_frame(p_threshold=p_threshold),
            lambda r: r.n_within(p_threshold),
        ):
            said = rf"^p_threshold is {p_threshold}; give a number above 0, at most 1\.$"
            with pytest.raises(OptionError, match=said):
                work(result)
        assert list(tmp_path.iterdir()) == [], name


def test_gwas_ssf_has_all_variants(tmp_path):
    with pytest.raises(OptionError, match="asks for all variants that were tested, what"):
        write_tables(made([[-3.0]]), tmp_path, "ssf", {}, 0.01)
    with pytest.raises(OptionError, match="p_threshold is 2; give"):
        write_tables(made([[-3.0]]), tmp_path, "tsv", None, 2)
    assert list(tmp_path.iterdir()) == []
