"""PLINK bed: bytes, labels, and everything that can be wrong with the three files."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from plait.data.genotypes import pack
from plait.data.variants import VariantTable
from plait.errors import (
    DuplicateSampleError,
    FileFormatError,
    MissingSidecarError,
    OptionError,
    OutputError,
    ShapeError,
    TruncatedFileError,
    UnsupportedLayoutError,
)
from plait.io import plink
from plait.io.genotypes import open_genotypes
from plait.io.plink import BedSource, write_bed

from .genotype_examples import CALLS, SAMPLES, VARIANTS

REAL = Path(__file__).parents[3] / "shared/data/attention/g1000_eur_subset.bed"


@pytest.fixture
def bed(tmp_path):
    write_bed(tmp_path / "a.bed", [CALLS[:2], CALLS[2:]], VARIANTS, SAMPLES)
    return tmp_path / "a.bed"


def numbered(count):
    return VariantTable.of(["1"] * count, range(1, count + 1), ["A"] * count, ["C"] * count)


@settings(max_examples=25, deadline=None)
@given(
    calls=arrays(
        np.int8, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(-1, 2)
    ),
    data=st.data(),
)
def test_round_trip_of_calls_and_bytes(tmp_path_factory, calls, data):
    folder = tmp_path_factory.mktemp("bed")
    names = [f"s{i}" for i in range(calls.shape[1])]
    write_bed(folder / "a.bed", [calls], numbered(len(calls)), names)
    source = BedSource(folder / "a.bed")
    np.testing.assert_array_equal(source.read(dtype=np.int8), calls)
    np.testing.assert_array_equal(source.read_packed(slice(None)), pack(calls))
    write_bed(folder / "b.bed", [source.read(dtype=np.int8)], source.variants, source.samples)
    for suffix in ("bed", "bim", "fam"):
        assert (folder / f"a.{suffix}").read_bytes() == (folder / f"b.{suffix}").read_bytes()
    order = data.draw(st.permutations(range(calls.shape[1])))
    np.testing.assert_array_equal(
        source.read(samples=np.array(order), dtype=np.int8), calls[:, order]
    )


def test_bytes_are_those_of_the_format(bed):
    assert bed.read_bytes()[:3] == b"\x6c\x1b\x01"
    # 0 1 2 -1 | 0 1 2 of the allele in the fifth column: 11 10 00 01 | 11 10 00, low bits first
    assert bed.read_bytes()[3:5] == bytes([0b01_00_10_11, 0b00_10_11])
    assert bed.with_suffix(".bim").read_text().splitlines()[0] == "1\trs1\t0.0\t100\tG\tA"


def test_bits_beyond_the_last_sample_are_ignored(bed):
    data = bytearray(bed.read_bytes())
    clean = BedSource(bed).read_packed(slice(None))
    data[4] |= 0b1100_0000
    bed.write_bytes(data)
    np.testing.assert_array_equal(BedSource(bed).read_packed(slice(None)), clean)
    assert BedSource(bed).counts().n0[0] == 2


def test_counting_the_other_allele(bed):
    source = BedSource(bed, "oa")
    expected = np.where(CALLS < 0, -1, 2 - CALLS)
    np.testing.assert_array_equal(source.read(dtype=np.int8), expected)
    np.testing.assert_array_equal(source.read_packed(slice(None)), pack(expected.astype(np.int8)))
    assert source.variants.frame["ea"].to_list() == VARIANTS.frame["oa"].to_list()
    with pytest.raises(OptionError, match="'ea' or 'oa'"):
        BedSource(bed, "minor")


def test_rows_in_any_order_and_number(bed):
    source = BedSource(bed)
    for rows in ([5, 0, 0, 1, 2], [3], [], slice(4, 1), slice(None, None, -2), slice(3, 99)):
        expected = CALLS[rows] if len(np.atleast_1d(rows)) else CALLS[:0]
        wanted = rows if isinstance(rows, slice) else np.array(rows, int)
        np.testing.assert_array_equal(source.read(wanted, dtype=np.int8), expected)
    for bad in ([6], [-1]):
        with pytest.raises(ShapeError, match="0 to 5"):
            source.read(np.array(bad))


@pytest.mark.parametrize(("gap", "span"), [(0, 1), (2, 6), (6, 100), (100, 4), (2**15, 2**22)])
def test_rows_that_are_read_together(bed, monkeypatch, gap, span):
    monkeypatch.setattr(plink, "_GAP", gap)
    monkeypatch.setattr(plink, "_SPAN", span)
    source, random = BedSource(bed), np.random.default_rng(4)
    for size in (1, 2, 3, 6, 9):
        for rows in (random.integers(0, 6, size), np.sort(random.integers(0, 6, size))):
            np.testing.assert_array_equal(source.read(rows, dtype=np.int8), CALLS[rows])


def test_labels_from_text_with_blanks_or_compressed(bed):
    bim = bed.with_suffix(".bim")
    lines = bim.read_text().replace("\t", "  ")
    bim.write_text("\n".join(" " + line for line in lines.splitlines()) + "\n\n")
    assert BedSource(bed).variants.keys.to_list() == VARIANTS.keys.to_list()
    with gzip.open(f"{bim}.gz", "wt") as stream:
        stream.write(lines)
    bim.unlink()
    assert BedSource(bed).variants.keys.to_list() == VARIANTS.keys.to_list()
    Path(f"{bim}.gz").write_bytes(Path(f"{bim}.gz").read_bytes()[:-12])
    with pytest.raises(FileFormatError, match="damaged"):
        BedSource(bed)


def test_families_tell_samples_apart(bed):
    fam = bed.with_suffix(".fam")
    rows = [f"f{i} s{i // 2} 0 0 {i % 3} -9" for i in range(7)]
    fam.write_text("\n".join(rows))
    source = BedSource(bed)
    assert source.samples.tolist()[:2] == ["f0:s0", "f1:s0"]
    assert source.sexes.tolist() == [0, 1, 2, 0, 1, 2, 0]
    fam.write_text("\n".join([*rows[:6], rows[2]]))
    with pytest.raises(DuplicateSampleError, match="rows 3 and 7 are the same sample, 'f2:s1'"):
        BedSource(bed)


def test_samples_without_a_name_are_refused(bed):
    fam = bed.with_suffix(".fam")
    rows = ["\t".join([f"f{i}", f"s{i}", "0", "0", "0", "-9"]) for i in range(7)]
    fam.write_text("\n".join([*rows[:6], "f6\ts6\t0\t0\t\t-9"]))
    assert BedSource(bed).sexes.tolist() == [0] * 7
    fam.write_text("\n".join([*rows[:6], "f6\t\t0\t0\t0\t-9"]))
    with pytest.raises(FileFormatError, match=r"a\.fam: row 7 has nothing in column 2 of 6"):
        BedSource(bed)


@pytest.mark.parametrize("suffix", [".bim", ".fam"])
def test_missing_sidecars(bed, suffix):
    bed.with_suffix(suffix).unlink()
    with pytest.raises(MissingSidecarError, match=rf"needs a\{suffix} \(or \.gz\) beside it"):
        BedSource(bed)


@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"\0", lambda d: d[:3]])
def test_wrong_sizes(bed, change):
    bed.write_bytes(change(bed.read_bytes()))
    with pytest.raises(TruncatedFileError, match=r"6 variants .* of 7 samples .* take 15"):
        BedSource(bed)


def test_a_file_that_shrinks_while_it_is_read(bed):
    source = BedSource(bed)
    bed.write_bytes(bed.read_bytes()[:9])
    with pytest.raises(TruncatedFileError, match="ended while it was read"):
        source.read()


def test_other_layouts_and_files(bed):
    data = bed.read_bytes()
    bed.write_bytes(b"\x6c\x1b\x00" + data[3:])
    with pytest.raises(UnsupportedLayoutError, match=r"plink2 --bfile .*a --make-bed"):
        BedSource(bed)
    bed.write_bytes(b"PK" + data)
    with pytest.raises(FileFormatError, match="not a PLINK"):
        BedSource(bed)
    bed.unlink()
    with pytest.raises(FileFormatError, match="no such file"):
        BedSource(bed)


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("100", "here", "row 1 has 'here' as position"),
        ("0.0", "far", "row 1 has 'far' as genetic position"),
        ("1\trs1\t", "1\t", "row 1 has 5 columns"),
    ],
)
def test_bad_bim(bed, old, new, match):
    bim = bed.with_suffix(".bim")
    bim.write_text(bim.read_text().replace(old, new, 1))
    with pytest.raises(FileFormatError, match=match):
        _ = BedSource(bed).variants.frame
    with pytest.raises(FileFormatError, match=match):
        open_genotypes(bed)


def test_what_is_written_must_fit(tmp_path):
    for calls, match in ((CALLS[:5], "5 rows of calls, but 6"), (CALLS[:, :3], "3 samples, not 7")):
        with pytest.raises(ShapeError, match=match):
            write_bed(tmp_path / "b.bed", [calls], VARIANTS, SAMPLES)
    assert not list(tmp_path.iterdir())
    write_bed(tmp_path / "b.bed", [CALLS], VARIANTS, SAMPLES)
    with pytest.raises(OutputError, match="exists"):
        write_bed(tmp_path / "b.bed", [CALLS], VARIANTS, SAMPLES)


def test_real_data():
    if not REAL.exists():
        pytest.skip("the 1000 Genomes subset is not here")
    with BedSource(REAL) as source:
        assert (source.n_samples, source.n_variants) == (489, 82_448)
        assert [name for name, _ in source.variants.chromosomes] == [str(c) for c in range(1, 23)]
        frequency = source.counts().frequency
        assert frequency.min() > 0 and frequency.max() < 1
        rows = np.array([0, 40_000, 82_447])
        np.testing.assert_allclose(np.nanmean(source.read(rows), axis=1) / 2, frequency[rows], 1e-6)
