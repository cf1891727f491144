"""PLINK 2 files: hard calls, dosages, several ALT alleles, damaged files."""

import shutil
import subprocess

import numpy as np
import pytest

from plait.errors import (
    DuplicateSampleError,
    FileFormatError,
    MissingSidecarError,
    OptionError,
    TruncatedFileError,
)
from plait.io import open_genotypes
from plait.io.pgen import PgenSource
from plait.io.plink import write_bed

from .genotype_examples import CALLS, SAMPLES, VARIANTS, write_pgen, write_pgen_tables

DOSAGES = np.array([0, 0.3, 1.7, np.nan, 2, 1, 0.95])
PAIRS = np.array([[0, 1], [1, 2], [0, 0], [-9, -9], [2, 2], [0, 2], [1, 1]], dtype=np.int32)


@pytest.fixture
def pgen(tmp_path):
    return write_pgen(tmp_path / "a.pgen")


def with_dosages(path):
    import pgenlib

    writer = pgenlib.PgenWriter(
        str(path).encode(), 7, variant_ct=2, nonref_flags=False, dosage_present=True
    )
    with writer:
        writer.append_dosages(np.nan_to_num(DOSAGES, nan=-9).astype(np.float32))
        writer.append_biallelic(CALLS[5].copy())
    write_pgen_tables(path, [("1", 5, "d", "A", "C"), ("1", 6, "h", "A", "C")])
    return path


def with_several_alts(path):
    import pgenlib

    writer = pgenlib.PgenWriter(
        str(path).encode(), 7, variant_ct=3, nonref_flags=False, allele_ct_limit=3
    )
    with writer:
        writer.append_biallelic(np.array([0, 1, 2, -9, 0, 1, 2], np.int8))
        writer.append_alleles(PAIRS.ravel().copy())
        writer.append_biallelic(np.array([2, 1, 0, -9, 2, 1, 0], np.int8))
    rows = [("1", 5, "a", "A", "C"), ("1", 6, "b", "A", "C,G"), ("1", 7, "c", "A", "C")]
    write_pgen_tables(path, rows)
    return path


def test_dosages_are_read_where_there_are_some(tmp_path, pgen):
    assert PgenSource(pgen).kind == "hardcall"
    assert PgenSource(pgen, dosage="dosage").kind == "dosage"
    np.testing.assert_array_equal(PgenSource(pgen, "dosage").read(), PgenSource(pgen).read())
    source = PgenSource(with_dosages(tmp_path / "d.pgen"))
    assert source.kind == "dosage"
    np.testing.assert_allclose(source.read(slice(0, 1))[0], DOSAGES, atol=1e-4)
    other = PgenSource(source.path, count="oa")
    np.testing.assert_allclose(other.read(dtype=np.float64)[0], 2 - DOSAGES, atol=1e-4)
    with pytest.raises(OptionError, match="hardcall"):
        source.read(dtype=np.int8)
    hard = PgenSource(source.path, dosage="hardcall")
    # the calls that the file holds beside the dosages
    np.testing.assert_array_equal(
        hard.read(dtype=np.int8)[0],
        np.where(np.isin(DOSAGES, [0, 1, 2, 0.95]), np.rint(DOSAGES), -1),
    )


@pytest.mark.parametrize("count", ["ea", "oa"])
def test_one_row_for_each_alt(tmp_path, count):
    source = PgenSource(with_several_alts(tmp_path / "m.pgen"), count=count)
    assert source.variants.frame["ea" if count == "ea" else "oa"].to_list() == ["C", "C", "G", "C"]
    assert source.variants.frame["id"].to_list() == ["a", "b", "b", "c"]
    calls = source.read(dtype=np.int8)
    for row, allele in ((1, 1), (2, 2)):
        copies = (allele == PAIRS).sum(axis=1)
        expected = copies if count == "ea" else 2 - copies
        np.testing.assert_array_equal(calls[row], np.where(PAIRS[:, 0] < 0, -1, expected))
    order = np.array([2, 3, 0, 1])
    np.testing.assert_array_equal(source.read(order, dtype=np.int8), calls[order])
    dropped = PgenSource(source.path, count=count, multiallelic="drop")
    assert dropped.variants.frame["id"].to_list() == ["a", "c"]
    np.testing.assert_array_equal(dropped.read(dtype=np.int8), calls[[0, 3]])


def test_compressed_and_longer_tables(pgen):
    zstandard = pytest.importorskip("zstandard")
    pvar = pgen.with_suffix(".pvar")
    lines = pvar.read_text().splitlines()
    rows = [f"{line}\t.\tPASS\t.\t{i / 2}" for i, line in enumerate(lines[2:])]
    text = "\n".join([lines[0], lines[1] + "\tQUAL\tFILTER\tINFO\tCM", *rows]) + "\n"
    pvar.with_suffix(".pvar.zst").write_bytes(zstandard.ZstdCompressor().compress(text.encode()))
    pvar.unlink()
    source = PgenSource(pgen)
    assert source.variants.frame["cm"].to_list() == [0, 0.5, 1, 1.5, 2, 2.5]
    assert source.variants.keys.to_list() == VARIANTS.keys.to_list()
    pvar.with_suffix(".pvar.zst").write_bytes(b"not zstandard")
    with pytest.raises(FileFormatError, match="damaged"):
        PgenSource(pgen)


@pytest.mark.parametrize("suffix", [".pvar", ".psam"])
def test_missing_sidecars(pgen, suffix):
    pgen.with_suffix(suffix).unlink()
    with pytest.raises(MissingSidecarError, match=rf"a\{suffix}.* beside it"):
        PgenSource(pgen)


def test_names_of_samples(pgen):
    psam = pgen.with_suffix(".psam")
    psam.write_text("#IID\tSEX\n" + "".join(f"{name}\t1\n" for name in SAMPLES))
    assert PgenSource(pgen).samples.tolist() == SAMPLES
    psam.write_text("#FID IID\n" + "".join(f"f{i} s{i // 2}\n" for i in range(7)))
    assert PgenSource(pgen).samples.tolist()[:2] == ["f0:s0", "f1:s0"]
    psam.write_text("#IID\n" + "a\n" * 7)
    with pytest.raises(DuplicateSampleError, match="rows 1 and 2"):
        PgenSource(pgen)
    psam.write_text("#ID\n" + "a\n" * 7)
    with pytest.raises(FileFormatError, match="lacks the column IID"):
        PgenSource(pgen)
    psam.write_text("1 2 3\n")
    with pytest.raises(FileFormatError, match="expected a header"):
        PgenSource(pgen)


def test_bad_tables_of_variants(pgen):
    pvar = pgen.with_suffix(".pvar")
    text = pvar.read_text()
    for old, new, match in (
        ("100", "x", "'x' is not a position"),
        ("\tALT", "\tOTHER", "lacks the column ALT"),
        ("\tG\tC\n", "\tG\n", "variant 3 lacks columns"),
    ):
        pvar.write_text(text.replace(old, new, 1))
        with pytest.raises(FileFormatError, match=match):
            _ = PgenSource(pgen).variants


def test_damaged_files(pgen):
    data = pgen.read_bytes()
    for size in (len(data) - 1, 25):
        pgen.write_bytes(data[:size])
        with pytest.raises(TruncatedFileError, match="cut off"):
            PgenSource(pgen)
    for start, match in ((b"PK", "not a PLINK 2"), (b"\x6c\x1b\x01", "PLINK 1")):
        pgen.write_bytes(start + data[len(start) :])
        with pytest.raises(FileFormatError, match=match):
            PgenSource(pgen)
    pgen.write_bytes(data)
    write_pgen_tables(pgen, [("1", 1, ".", "A", "C")])
    with pytest.raises(FileFormatError, match="do not belong together"):
        PgenSource(pgen)


def test_records_that_cannot_be_read(pgen):
    source = PgenSource(pgen)
    source.close()
    data = bytearray(pgen.read_bytes())
    data[-1] ^= 0xFF
    pgen.write_bytes(data[: len(data) - 4])
    with pytest.raises(FileFormatError, match=r"cannot be read|do not belong together"):
        source.read()


def test_plink2_reads_and_writes_the_same(tmp_path):
    if shutil.which("plink2") is None:
        pytest.skip("plink2 is not installed")
    random = np.random.default_rng(1)
    write_bed(tmp_path / "a.bed", [CALLS], VARIANTS, SAMPLES)
    command = ["plink2", "--bfile", "a", "--make-pgen", "vzs", "--out", "b", "--threads", "1"]
    subprocess.run(
        [*command, "--allow-extra-chr"], cwd=tmp_path, check=True, capture_output=True, timeout=60
    )
    source = PgenSource(tmp_path / "b.pgen")
    np.testing.assert_array_equal(source.read(dtype=np.int8), CALLS)
    assert source.variants.keys.to_list() == VARIANTS.keys.to_list()
    rows, columns = random.permutation(6), random.permutation(7)[:4]
    np.testing.assert_array_equal(source.read(rows, columns, np.int8), CALLS[rows][:, columns])


def test_sexes_of_the_psam(tmp_path):
    path = write_pgen(tmp_path / "a.pgen")
    assert open_genotypes(path).sexes.tolist() == [0] * 7
    rows = zip(SAMPLES, ["1", "2", "M", "f", "NA", "0", "F"], strict=True)
    lines = ["#IID\tSEX", *("\t".join(row) for row in rows)]
    path.with_suffix(".psam").write_text("\n".join(lines) + "\n")
    assert open_genotypes(path).sexes.tolist() == [1, 2, 1, 2, 0, 0, 2]
    assert open_genotypes(path, samples=["flo", "dee"]).sexes.tolist() == [0, 2]
