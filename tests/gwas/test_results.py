"""What variants are called in tables, stores and effects, and where a scan is opened from."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.data.phenotypes import SampleTable
from plait.errors import FileFormatError, LabelError, OptionError, OutputError
from plait.gwas import scan
from plait.gwas.results import AssociationResult
from plait.gwas.variant_results import VARIANT_COLUMNS, chunk_variants
from plait.io import read_effects
from tests.gwas.conftest import InMemory

TRAITS = ("a", "b")


def made(ids, pos=None, alleles=None):
    """A result with these ids, whose numbers say where they are."""
    n = len(ids)
    values = np.arange(2.0 * n).reshape(n, 2)
    return AssociationResult(
        beta=values,
        se=np.ones((n, 2)),
        log10p=-values,
        n=np.full((n, 2), 100),
        frequency=np.full(n, 0.25),
        chrom=np.full(n, "1"),
        pos=np.arange(1, n + 1) if pos is None else np.array(pos),
        id=np.array(ids, dtype=np.str_),
        oa=np.full(n, "A"),
        ea=np.full(n, "G") if alleles is None else np.array(alleles),
        traits=TRAITS,
        V0=np.eye(2),
    )


@pytest.mark.parametrize(
    ("ids", "pos", "expected"),
    [
        (["rs1", "rs2"], [1, 2], ["rs1", "rs2"]),
        (["rs1", ".", ""], [1, 2, 3], ["rs1", "1:2:A:G", "1:3:A:G"]),
        (["rs1", "rs1"], [1, 2], ["1:1:A:G", "1:2:A:G"]),
        # Without an id of their own, at one place: what tells them apart is added.
        (["rs1", "rs1"], [5, 5], ["1:5:A:G:rs1", "1:5:A:G:rs1:2"]),
        ([".", "."], [5, 5], ["1:5:A:G", "1:5:A:G:2"]),
        # An id that is the key of another variant would be two variants' name.
        (["1:2:A:G", "."], [1, 2], ["1:1:A:G", "1:2:A:G"]),
        (["1:1:A:G", "x"], [1, 2], ["1:1:A:G", "x"]),
    ],
)
def test_names(ids, pos, expected):
    found = made(ids, pos)
    assert found.variants.tolist() == expected
    assert found.to_effects().effects.tolist() == expected
    for row, name in enumerate(expected):
        assert found.names_of(slice(row, row + 1)).tolist() == [name]


@given(
    st.lists(
        st.tuples(st.sampled_from(["rs1", "rs2", "rs3", ".", "", "1:1:A:G"]), st.integers(1, 4)),
        min_size=1,
        max_size=12,
    )
)
def test_names_differ(variants):
    ids, pos = zip(*variants, strict=True)
    names = made(list(ids), list(pos)).variants
    assert len(set(names.tolist())) == len(names)
    for name, label in zip(names.tolist(), ids, strict=True):
        if ids.count(label) == 1 and label.startswith("rs"):
            assert name == label


def test_names_do_not_depend_on_parts(tmp_path):
    """A scan of several chunks, opened from its store: a repeat in another chunk is seen."""
    n = 2 * chunk_variants(2, 1) + 10
    ids = [f"rs{k}" for k in range(n)]
    ids[-1] = ids[0]
    whole = made(ids)
    whole.save(tmp_path / "a.zarr")
    opened = AssociationResult.open(tmp_path / "a.zarr")
    assert opened.variants.tolist() == whole.variants.tolist()
    assert opened.variants[[0, 1, -1]].tolist() == ["1:1:A:G", "rs1", f"1:{n}:A:G"]
    opened.write_effects(tmp_path / "effects.zarr")
    effects = read_effects(tmp_path / "effects.zarr")
    assert effects.effects.tolist() == whole.variants.tolist()


@pytest.mark.parametrize("how", ["memory", "store"])
def test_tables_carry_the_variants(how, tmp_path):
    found = made(["rs7", ".", "rs9"], alleles=["G", "T", "C"])
    if how == "store":
        found.save(tmp_path / "a.zarr")
        found = AssociationResult.open(tmp_path / "a.zarr")
    names = ["rs7", "1:2:A:T", "rs9"]
    long = found.to_frame()
    assert long.columns == [
        "variant", *VARIANT_COLUMNS, "trait", "beta", "se", "log10p", "n"
    ]  # fmt: skip
    assert long["variant"].to_list() == [name for name in names for _ in TRAITS]
    assert long["trait"].to_list() == [*TRAITS] * 3
    assert long.filter(pl.col("variant") == "1:2:A:T")["ea"].to_list() == ["T", "T"]
    assert long["beta"].to_list() == np.asarray(found.beta).ravel().tolist()
    wide = found.to_frame("wide")
    assert wide["variant"].to_list() == names
    assert wide["id"].to_list() == ["rs7", ".", "rs9"]
    assert wide["beta.b"].to_list() == [1.0, 3.0, 5.0]
    dataset = found.to_xarray()
    assert dataset.sel(variants="1:2:A:T", traits="b")["beta"] == 3.0
    assert set(VARIANT_COLUMNS) <= set(dataset.coords)
    assert dataset.set_xindex("pos").sel(pos=3)["beta"].values.tolist() == [4.0, 5.0]
    assert "rs9" in found._repr_html_()


def test_no_trait_left_and_one_of_each():
    one = made(["rs1"])
    single = replace(
        one, beta=one.beta[:, :1], se=one.se[:, :1], log10p=one.log10p[:, :1], n=one.n[:, :1],
        traits=("a",), V0=np.eye(1),
    )  # fmt: skip
    assert repr(single) == "AssociationResult(1 variant x 1 trait; 1 tested)"
    assert repr(one) == "AssociationResult(1 variant x 2 traits; 1 tested)"
    nothing = one.take(slice(0, 0))
    assert nothing.to_frame().height == 0


def test_summary_names_the_place_once():
    said = made(["rs1", "."]).summary()
    assert "surest 1:2:A:G, p = " in said
    assert "surest rs2 (1:2), p = " in made([".", "rs2"]).summary()


def test_opened_from_the_folder_of_a_scan(tmp_path):
    found = made(["rs1", "rs2"])
    folder = tmp_path / "scanned"
    folder.mkdir()
    found.save(folder / "associations.zarr")
    for place in (folder, str(folder), folder / "associations.zarr"):
        assert AssociationResult.open(place).allclose(found)
        assert AssociationResult.load(place).allclose(found)
    (tmp_path / "other").mkdir()
    for method in (AssociationResult.open, AssociationResult.load):
        with pytest.raises(FileFormatError, match="other is not the folder of a scan: assoc"):
            method(tmp_path / "other")
        with pytest.raises(FileFormatError, match="absent does not exist"):
            method(tmp_path / "absent")
        (tmp_path / "a.txt").write_text("text")
        with pytest.raises(FileFormatError, match=r"a\.txt"):
            method(tmp_path / "a.txt")


def test_a_file_of_each_chromosome(tmp_path):
    """Every variant is in the file of its chromosome, in its order, with the types of one file."""
    n = 3 * chunk_variants(2, 1) + 10
    chrom = np.repeat(["1", "X", "HLA*01:01", "1"], [n // 2, n // 4, 5, n - n // 2 - n // 4 - 5])
    result = replace(made([f"rs{k}" for k in range(n)]), chrom=chrom)
    result.write_parquet(tmp_path / "whole.parquet")
    result.write_parquet(tmp_path / "parts", partition="chromosome")
    names = {"1": "1.parquet", "X": "X.parquet", "HLA*01:01": "HLA_01_01.parquet"}
    assert {path.name for path in (tmp_path / "parts").iterdir()} == set(names.values())
    whole = pl.read_parquet(tmp_path / "whole.parquet")
    for name, file in names.items():
        found = pl.read_parquet(tmp_path / "parts" / file)
        assert found.equals(whole.filter(pl.col("chrom") == name))
    together = pl.scan_parquet(tmp_path / "parts" / "*.parquet").sort("pos").collect()
    assert together.equals(whole.sort("pos"))
    stored = tmp_path / "a.zarr"
    result.save(stored)
    AssociationResult.open(stored).write_parquet(tmp_path / "again", partition="chromosome")
    assert pl.read_parquet(tmp_path / "again/1.parquet").equals(
        pl.read_parquet(tmp_path / "parts/1.parquet")
    )


def test_chromosomes_in_any_order(tmp_path):
    """Variant by variant, as no file should be and some are: as few pieces as in any other."""
    n = chunk_variants(2, 1) + 10
    chrom = np.random.default_rng(1).choice(["2", "1", "X"], n)
    result = replace(made([f"rs{k}" for k in range(n)]), chrom=chrom)
    pieces = result.by_chromosome()
    assert list(pieces) == list(dict.fromkeys(chrom.tolist()))
    assert all(len(own) == 2 for own in pieces.values())
    for name, own in pieces.items():
        rows = np.concatenate([np.arange(n)[span][rows] for span, rows in own])
        np.testing.assert_array_equal(rows, np.flatnonzero(chrom == name))
    result.write_parquet(tmp_path / "whole.parquet")
    result.write_parquet(tmp_path / "parts", partition="chromosome")
    whole = pl.read_parquet(tmp_path / "whole.parquet")
    for name in pieces:
        found = pl.read_parquet(tmp_path / "parts" / f"{name}.parquet")
        assert found.equals(whole.filter(pl.col("chrom") == name))


def test_which_folder_takes_the_files_of_chromosomes(tmp_path):
    result = made(["rs1", "rs2"])
    result.write_parquet(tmp_path / "parts", partition="chromosome")
    with pytest.raises(OutputError, match=r"1\.parquet exists"):
        result.write_parquet(tmp_path / "parts", partition="chromosome")
    result.write_parquet(tmp_path / "parts", True, partition="chromosome")
    other = replace(result, chrom=np.array(["2", "2"]))
    with pytest.raises(OutputError, match=r"other tables \(1\.parquet\), which would be read"):
        other.write_parquet(tmp_path / "parts", True, partition="chromosome")
    with pytest.raises(OptionError, match="partition is 'gene'"):
        result.write_parquet(tmp_path / "parts", partition="gene")
    alike = replace(result, chrom=np.array(["c", "C"]))
    with pytest.raises(LabelError, match="chromosomes 'c' and 'C' would be written to the same"):
        alike.write_parquet(tmp_path / "alike", partition="chromosome")


def test_copies_of_the_rarer_allele():
    random = np.random.default_rng(3)
    calls = random.integers(0, 3, size=(30, 80)) * (random.random((30, 80)) < 0.8)
    values = random.normal(size=(80, 2))
    samples = np.array([f"s{k}" for k in range(80)])
    found = scan(InMemory(calls), SampleTable(samples, TRAITS, values), variant_filter=None)
    copies = calls.sum(axis=1)
    np.testing.assert_allclose(found.mac, np.minimum(copies, 160 - copies)[:, None].repeat(2, 1))


def test_chunks_are_powers_of_two_and_larger_in_large_studies():
    assert [chunk_variants(2, n) for n in (1, 90_000, 100_000, 10**7)] == [
        8192,
        8192,
        16384,
        16384,
    ]
    assert [chunk_variants(n, 10**6) for n in (100, 3000, 10**6)] == [8192, 256, 256]
