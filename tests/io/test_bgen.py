"""BGEN: dosages, names of samples, indexes, damaged files."""

import logging
import shutil
import sqlite3
import subprocess

import numpy as np
import pytest

from plait.errors import (
    DataWarning,
    DuplicateSampleError,
    FileFormatError,
    MissingSidecarError,
    TruncatedFileError,
)
from plait.io.bgen import BgenSource
from plait.io.plink import write_bed

from .genotype_examples import CALLS, SAMPLES, VARIANTS, floats, write_bgen


@pytest.fixture
def bgen(tmp_path):
    return write_bgen(tmp_path / "a.bgen")


def write_uncertain(path):
    from bgen import BgenWriter

    first = np.array([[0.1, 0.7, 0.2], [0, 0.05, 0.95], [np.nan] * 3])
    haplotypes = np.array([[1, 0, 0.25, 0.75], [0, 1, 0, 1], [np.nan] * 4])
    with BgenWriter(str(path), 3, samples=["a", "b", "c"]) as writer:
        writer.add_variant("v1", "", "1", 10, ["A", "G"], first, bit_depth=16)
        writer.add_variant("v2", "rs2", "1", 11, ["A", "G"], haplotypes, phased=True)
    return path


def test_dosage_is_of_the_second_allele(tmp_path):
    source = BgenSource(write_uncertain(tmp_path / "u.bgen"))
    assert source.kind == "dosage"
    expected = np.array([[1.1, 1.95, np.nan], [0.75, 2, np.nan]])
    np.testing.assert_allclose(source.read(dtype=np.float64), expected, atol=1 / 255)
    np.testing.assert_allclose(
        BgenSource(source.path, count="oa").read(), 2 - expected, atol=1 / 255
    )
    assert source.variants.frame["id"].to_list() == [".", "rs2"]
    hard = BgenSource(source.path, dosage="hardcall")
    # 1.1 is as close as may be, 0.75 is not
    np.testing.assert_array_equal(hard.read(dtype=np.int8), [[1, 2, -1], [-1, 2, -1]])


def test_what_is_assumed_of_the_first_allele_is_logged(bgen, caplog):
    with caplog.at_level(logging.WARNING, logger="plait.io"):
        BgenSource(bgen, first_allele="unknown")
        assert not caplog.records
        BgenSource(bgen)
    assert "taken as the reference" in caplog.text


def test_names_from_a_sample_file(tmp_path):
    path = write_bgen(tmp_path / "b.bgen", samples=None)
    with pytest.raises(MissingSidecarError, match=r"needs b\.sample beside it"):
        BgenSource(path)
    place = tmp_path / "b.sample"
    head = "ID_1 ID_2 missing sex\n0 0 0 D\n"
    place.write_text(head + "".join(f"f {name} 0 1\n" for name in SAMPLES))
    assert BgenSource(path).samples.tolist() == SAMPLES
    place.rename(tmp_path / "c.txt")
    assert BgenSource(path, sample_path=tmp_path / "c.txt").samples.tolist() == SAMPLES
    for text, kind, match in (
        (head + "f a 0 1\n" * 7, DuplicateSampleError, "rows 1 and 2"),
        (head + "f a 0 1\n", FileFormatError, "1 samples and .* 7"),
        (head + "a\n" * 7, FileFormatError, "fewer than 2"),
        ("ID_1 ID_2\na b\n", FileFormatError, "two lines of header"),
    ):
        place.write_text(text)
        with pytest.raises(kind, match=match):
            BgenSource(path)


def test_repeated_names_inside(tmp_path):
    with pytest.raises(DuplicateSampleError, match="'ann'"):
        BgenSource(write_bgen(tmp_path / "b.bgen", samples=["ann"] * 7))


def test_variants_with_further_alleles_are_left_out(tmp_path):
    from bgen import BgenWriter

    with BgenWriter(str(tmp_path / "m.bgen"), 1, samples=["a"]) as writer:
        writer.add_variant("v", "v", "1", 1, ["A", "C", "G"], np.eye(6)[:1])
        writer.add_variant("w", "w", "1", 2, ["A", "C"], np.eye(3)[2:])
    with pytest.warns(DataWarning, match="1 variants with other than two alleles"):
        source = BgenSource(tmp_path / "m.bgen")
    assert source.variants.frame["id"].to_list() == ["w"]
    assert source.read().tolist() == [[2.0]]


def write_index(path, rows):
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE Variant (chromosome, position, rsid, number_of_alleles, allele1, "
            "allele2, file_start_position, size_in_bytes)"
        )
        connection.executemany("INSERT INTO Variant VALUES (?, ?, ?, 2, ?, ?, ?, 0)", rows)
    connection.close()


def test_an_index_gives_the_same(bgen):
    from bgen import BgenReader

    bgen.with_name("a.bgen.bgi").unlink()  # made by the writer
    whole = BgenSource(bgen)
    assert whole.variants.frame["id"][0] == "rs1"
    expected, keys = whole.read(), whole.variants.keys.to_list()
    rows = [(v.chrom, v.pos, v.rsid, *v.alleles, v.fileoffset) for v in BgenReader(str(bgen))]
    index = bgen.with_name("a.bgen.bgi")
    write_index(index, rows[::-1])
    source = BgenSource(bgen)
    np.testing.assert_array_equal(source.read(), expected)
    assert source.variants.keys.to_list() == keys
    index.unlink()
    write_index(index, rows[:3])
    with pytest.raises(TruncatedFileError, match="make the index again"):
        BgenSource(bgen)
    index.write_text("no index")
    with pytest.raises(FileFormatError, match="not an index"):
        BgenSource(bgen)


def test_damaged_files(bgen):
    data = bgen.read_bytes()
    bgen.write_bytes(data[:-1])
    with pytest.raises(TruncatedFileError, match="by its index"):
        BgenSource(bgen)
    bgen.with_name("a.bgen.bgi").unlink()
    for size in (len(data) - 40, len(data) // 2):
        bgen.write_bytes(data[:size])
        with pytest.raises(FileFormatError, match=r"cut off|cannot be read"):
            BgenSource(bgen).read()
    bgen.write_bytes(b"x" * 200)
    with pytest.raises(FileFormatError, match="not a BGEN"):
        BgenSource(bgen)
    bgen.unlink()
    with pytest.raises(FileFormatError, match="no such file"):
        BgenSource(bgen)


@pytest.mark.parametrize("bits", [8, 16])
def test_files_of_plink2(tmp_path, bits):
    if shutil.which("plink2") is None:
        pytest.skip("plink2 is not installed")
    write_bed(tmp_path / "a.bed", [CALLS], VARIANTS, SAMPLES)
    command = ["plink2", "--bfile", "a", "--export", "bgen-1.2", f"bits={bits}", "ref-first"]
    subprocess.run(
        [*command, "id-paste=iid", "--out", "b", "--threads", "1"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=60,
    )
    source = BgenSource(tmp_path / "b.bgen")
    np.testing.assert_allclose(source.read(), floats(), atol=1 / 255)
    assert source.samples.tolist() == SAMPLES
    assert source.variants.frame["ea"].to_list() == VARIANTS.frame["ea"].to_list()
