"""Tables of genotypes, samples by markers, and HapMap text."""

import gzip

import numpy as np
import polars as pl
import pytest

from plait.errors import (
    DataWarning,
    DuplicateSampleError,
    FileFormatError,
    LabelError,
    OptionError,
    ShapeError,
    UnknownGenotypeFormatError,
)
from plait.io import open_genotypes
from plait.io.dense_genotypes import DenseSource
from tests.reference_files import real_data

from .genotype_examples import CALLS, IDS, SAMPLES, VARIANTS, floats, write_csv

HEAD = "rs#\talleles\tchrom\tpos\tstrand\tassembly#\tcenter\tprotLSID\tassayLSID\tpanel\tQCcode"


@pytest.fixture
def table(tmp_path):
    return write_csv(tmp_path / "a.csv")


def test_the_same_in_every_kind_of_file(table, tmp_path):
    frame = pl.read_csv(table, null_values="NA")
    frame.write_csv(tmp_path / "a.tsv", separator="\t")
    frame.write_parquet(tmp_path / "a.parquet")
    with gzip.open(tmp_path / "a.csv.gz", "wb") as stream:
        stream.write(table.read_bytes())
    np.save(tmp_path / "a.npy", floats().T)
    np.savez(tmp_path / "a.npz", genotypes=floats().T, samples=SAMPLES, markers=IDS)
    for suffix in ("csv", "tsv", "parquet", "csv.gz", "npz", "npy"):
        source = open_genotypes(tmp_path / f"a.{suffix}")
        np.testing.assert_array_equal(source.read(), floats())
        if suffix == "npy":  # mapped: what it holds is not known before it is read
            assert source.kind == "dosage"
            assert source.samples.tolist() == ["1", "2", "3", "4", "5", "6", "7"]
        else:
            assert source.kind == "hardcall"
            assert source.samples.tolist() == SAMPLES
            assert source.variants.frame["id"].to_list() == IDS
        hard = DenseSource(tmp_path / f"a.{suffix}", dosage="hardcall")
        np.testing.assert_array_equal(hard.read(dtype=np.int8), CALLS)
    np.save(tmp_path / "b.npy", CALLS.T)
    assert DenseSource(tmp_path / "b.npy").kind == "hardcall"
    np.testing.assert_array_equal(DenseSource(tmp_path / "b.npy", count="oa").read(), 2 - floats())
    np.save(tmp_path / "c.npy", CALLS.T.astype(int))
    np.testing.assert_array_equal(DenseSource(tmp_path / "c.npy").read(dtype=np.int8), CALLS)


def test_positions_from_a_map(table):
    without = DenseSource(table).variants
    assert without.frame["chrom"].to_list() == ["0"] * 6
    assert without.pos.tolist() == [1, 2, 3, 4, 5, 6]
    source = DenseSource(table, map=table.with_name("map.csv"))
    assert source.variants.keys.to_list() == VARIANTS.keys.to_list()
    place = table.with_name("other.tsv")
    place.write_text("Marker\tChr\tPosition\n" + "".join(f"{n}\t5\t9\n" for n in reversed(IDS)))
    frame = DenseSource(table, map=place).variants.frame
    assert frame["ea"].to_list() == ["."] * 6 and frame["pos"].to_list() == [9] * 6
    for text, kind, match in (
        ("SNP\tCHROM\tPOS\nrs1\t1\t5\n", LabelError, "lacks 5 of the 6 markers"),
        ("SNP\tCHROM\nrs1\t1\n", FileFormatError, "lacks a column of pos"),
        ("SNP\tCHROM\tPOS\nrs1\t1\tx\n", FileFormatError, "row 1 has the position 'x'"),
    ):
        place.write_text(text)
        with pytest.raises(kind, match=match):
            DenseSource(table, map=place)


def test_dosages_and_what_is_close_to_calls(tmp_path):
    (tmp_path / "d.csv").write_text("id,m\na,0.05\nb,1.5\nc,NA\nd,1.9\n")
    source = DenseSource(tmp_path / "d.csv")
    assert source.kind == "dosage"
    np.testing.assert_allclose(source.read(), [[0.05, 1.5, np.nan, 1.9]])
    np.testing.assert_allclose(
        DenseSource(tmp_path / "d.csv", count="oa").read(), [[1.95, 0.5, np.nan, 0.1]], rtol=1e-6
    )
    hard = DenseSource(tmp_path / "d.csv", dosage="hardcall", count="oa")
    np.testing.assert_array_equal(hard.read(dtype=np.int8), [[2, -1, -1, 0]])
    with pytest.raises(OptionError, match="hardcall"):
        source.read(dtype=np.int8)


@pytest.mark.parametrize(
    ("text", "kind", "match"),
    [
        ("id,m\na,AA\n", FileFormatError, "marker 'm' of sample 'a' is 'AA'"),
        ("id\na\n", FileFormatError, "expected names of samples"),
        ("id,m\na,1\na,2\n", DuplicateSampleError, "'a'"),
        ("id,m\na,1,2\n", FileFormatError, "not such a table"),
        ("", FileFormatError, "not such a table"),
    ],
)
def test_bad_tables(tmp_path, text, kind, match):
    (tmp_path / "d.csv").write_text(text)
    with pytest.raises(kind, match=match):
        DenseSource(tmp_path / "d.csv")


def test_bad_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", genotypes=CALLS.T, samples=SAMPLES[:3])
    with pytest.raises(ShapeError, match="samples has the shape"):
        DenseSource(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", genotypes=CALLS.T, markers=["x"] * 6)
    with pytest.raises(LabelError, match="markers 1 and 2 are both 'x'"):
        DenseSource(tmp_path / "b.npz")
    np.save(tmp_path / "c.npy", np.zeros(3))
    with pytest.raises(FileFormatError, match="expected one array"):
        DenseSource(tmp_path / "c.npy")
    (tmp_path / "d.npy").write_bytes((tmp_path / "c.npy").read_bytes()[:-9])
    with pytest.raises(FileFormatError, match="cannot be read"):
        DenseSource(tmp_path / "d.npy")
    np.save(tmp_path / "e.npy", np.array([[{}]]), allow_pickle=True)
    with pytest.raises(FileFormatError):
        DenseSource(tmp_path / "e.npy")


def write_hapmap(path, rows, samples):
    dots = "\t".join(["NA"] * 7)
    lines = ["\t".join([n, a, c, str(p), dots, *calls]) for n, a, c, p, calls in rows]
    path.write_text("\n".join(["\t".join([HEAD, *samples]), *lines]) + "\n")
    return path


def test_hapmap_by_one_or_two_letters(tmp_path):
    path = write_hapmap(
        tmp_path / "a.hmp.txt",
        [
            ("m1", "A/G", "1", 5, ["A", "R", "G", "N"]),
            ("m2", "C/T", "1", 6, ["CC", "CT", "TC", "NN"]),
            ("m3", "+/-", "2", 7, ["+", "0", "-", "N"]),
            ("m4", "NA", "2", 8, ["A", "A", "T", "W"]),
        ],
        ["a", "b", "c", "d"],
    )
    source = open_genotypes(path)
    assert source.kind == "hardcall"
    expected = [[0, 1, 2, -1], [0, 1, 1, -1], [0, 1, 2, -1], [0, 0, 2, 1]]
    np.testing.assert_array_equal(source.read(dtype=np.int8), expected)
    assert source.variants.keys.to_list() == ["1:5:A:G", "1:6:C:T", "2:7:+:-", "2:8:A:T"]
    with gzip.open(tmp_path / "b.hmp.txt.gz", "wb") as stream:
        stream.write(path.read_bytes())
    np.testing.assert_array_equal(
        open_genotypes(tmp_path / "b.hmp.txt.gz").read(dtype=np.int8), expected
    )
    with pytest.raises(OptionError, match="positions of its own"):
        open_genotypes(path, map=path)


def test_bad_hapmap(tmp_path):
    path = tmp_path / "a.hmp.txt"
    write_hapmap(path, [("m", "A/G", "1", 5, ["A", "T", "C"])], ["a", "b", "c"])
    with pytest.warns(DataWarning, match="2 calls of a further allele"):
        source = DenseSource(path)
    np.testing.assert_array_equal(source.read(dtype=np.int8), [[0, -1, -1]])
    write_hapmap(path, [("m", "A/G", "1", "x", ["A"])], ["a"])
    with pytest.raises(FileFormatError, match="line 2 has the position 'x'"):
        DenseSource(path)
    write_hapmap(path, [("m", "A/G", "1", 5, ["A"])], ["a", "b"])
    with pytest.raises(FileFormatError, match="line 2 has 12 columns, the header 13"):
        DenseSource(path)
    write_hapmap(path, [], ["a", "a"])
    with pytest.raises(DuplicateSampleError):
        DenseSource(path)
    path.write_text("id\tx\n")
    with pytest.raises(FileFormatError, match="11 columns"):
        DenseSource(path)


JWAS = "ID,m1,m2,m3\na1,1,2,1\na3,1,NA,0\na4,2,0,0.5\n"


@pytest.mark.parametrize("separator", [",", "\t", ";", "  "])
@pytest.mark.parametrize("name", ["genotypes.txt", "genotypes", "genotypes.txt.gz"])
def test_text_of_any_suffix_and_separator(tmp_path, separator, name):
    """As JWAS has it: a header of markers, names of samples first, and a map of the markers."""
    text = JWAS.replace(",", separator)
    place = tmp_path / name
    place.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    table = "markerID,chromosome,position\nm1,1,16977\nm2,2,434311\nm3,2,5\n"
    (tmp_path / "map.txt").write_text(table.replace(",", separator))
    for format in (None, "dense"):
        source = open_genotypes(place, format, map=tmp_path / "map.txt")
        assert source.samples.tolist() == ["a1", "a3", "a4"]
        assert source.variants.frame["chrom"].to_list() == ["1", "2", "2"]
        assert source.variants.pos.tolist() == [16977, 434311, 5]
        np.testing.assert_array_equal(source.read(), [[1, 1, 2], [2, np.nan, 0], [1, 0, 0.5]])


def test_the_demonstration_of_jwas():
    place = real_data("bayes", "jwas_demo/genotypes.txt")
    source = open_genotypes(place, map=place.with_name("map.txt"))
    assert (source.n_samples, source.n_variants, source.kind) == (7, 5, "hardcall")
    assert source.variants.keys[0] == "1:16977:.:."


@pytest.mark.parametrize("text", ["hello\n", "a b\nc d\n", "a,b\n1,2,3\n", "", "a,b\n\xff,\xfe\n"])
def test_other_text_is_no_table(tmp_path, text):
    (tmp_path / "x.txt").write_text(text, encoding="latin-1")
    with pytest.raises(UnknownGenotypeFormatError):
        open_genotypes(tmp_path / "x.txt")


def centred_table(place, calls, names=None):
    """Write calls (markers, samples) less their mean, means where they are missing."""
    values = np.where(calls < 0, np.nan, calls)
    values = np.nan_to_num(values - np.nanmean(values, axis=1, keepdims=True))
    names = [f"m{k}" for k in range(len(calls))] if names is None else names
    samples = [f"s{i}" for i in range(calls.shape[1])]
    frame = pl.DataFrame({"ID": samples} | dict(zip(names, values.round(4), strict=True)))
    frame.write_csv(place)
    return frame


def test_centred_calls_are_calls_again(tmp_path, caplog):
    """As JWAS holds them: less the mean, which stands for a missing call, with a few digits."""
    random = np.random.default_rng(2)
    calls = random.binomial(2, random.uniform(0.2, 0.8, (60, 1)), (60, 50)).astype(np.int8)
    calls[0] = np.where(random.random(50) < 0.2, 1, 0)  # no sample has two copies
    calls[1] = np.where(random.random(50) < 0.2, 1, 2)  # or none
    calls[2] = 2 * (random.random(50) < 0.4)  # inbred lines
    calls[random.random(calls.shape) < 0.04] = -1
    centred_table(tmp_path / "c.csv", calls)
    with caplog.at_level("INFO", logger="plait.io"):
        source = open_genotypes(tmp_path / "c.csv")
    assert source.kind == "hardcall"
    # Where a mean is one copy, it cannot be told from a call of one.
    for row in calls:
        row[row < 0] = 1 if row[row >= 0].mean() == 1 else -1
    np.testing.assert_array_equal(source.read(dtype=np.int8), calls)
    np.testing.assert_array_equal(
        open_genotypes(tmp_path / "c.csv", count="oa").read(dtype=np.int8),
        np.where(calls < 0, -1, 2 - calls),
    )
    missing = int((calls < 0).sum())
    two = sum(set(row[row >= 0]) in ({0, 1}, {1, 2}) for row in calls)
    assert missing > 100 and two >= 2
    (said,) = [one.getMessage() for one in caplog.records if getattr(one, "notice", False)]
    assert "60 of 60 markers are centred; copies of alleles are taken from how far apart" in said
    assert f"{missing} means in the place of calls as missing. {two} markers with two" in said


def test_centred_values_that_tell_no_copies(tmp_path):
    values = CALLS[:, :6].astype(float)
    centred = (values - values.mean(axis=1, keepdims=True))[[0, 3, 4]]
    frame = pl.DataFrame({"ID": SAMPLES[:6]} | dict(zip("abc", 0.7 * centred, strict=True)))
    frame.write_csv(tmp_path / "c.csv")
    said = r"3 of 3 markers are centred about 0, and not all .* whole numbers apart.* Add to every"
    with pytest.raises(FileFormatError, match=said):
        open_genotypes(tmp_path / "c.csv")
    frame.with_columns(b=pl.lit(float("-inf"))).write_csv(tmp_path / "c.csv")
    with pytest.raises(FileFormatError, match=r"expected copies of an allele, 0 to 2\. If this"):
        open_genotypes(tmp_path / "c.csv")
    frame.with_columns(b=pl.lit(-3.0)).write_csv(tmp_path / "c.csv")
    with pytest.raises(FileFormatError, match=r"expected copies of an allele, 0 to 2\. If this"):
        open_genotypes(tmp_path / "c.csv")
