"""Genotypes of one allele count twice in every format, as PLINK 2 has them."""

import logging
import pickle
import shutil
import subprocess

import numpy as np
import pytest

from plait.data.genotype_blocks import read_block
from plait.io import open_genotypes
from plait.io.bgen import BgenSource
from plait.io.vcf import VcfSource
from plait.io.vcf_zarr import VcfZarrSource
from tests.gwas.conftest import InMemory

NAN = np.nan
HEADER = """##fileformat=VCFv4.2
##contig=<ID=1>
##contig=<ID=X>
##contig=<ID=Y>
##contig=<ID=MT>
##FORMAT=<ID=GT,Number=1,Type=String,Description="genotype">
##FORMAT=<ID=DS,Number=A,Type=Float,Description="dosage">
##FORMAT=<ID=GP,Number=G,Type=Float,Description="probabilities">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ta\tb\tc\td
"""
CALLS = [
    ("1", ["0/1", "1", "0", "1/1"]),
    ("1", ["0", "1", ".", "1"]),
    ("X", ["0/1", "1", "0", "./."]),
    ("Y", ["0", "1", "1", "0"]),
    ("MT", ["0", "1", ".", "1"]),
]
COPIES = [[1, 2, 0, 2], [0, 2, NAN, 2], [1, 2, 0, NAN], [0, 2, 2, 0], [0, 2, NAN, 2]]
FIELDS = {
    "DS": [
        ("X", ["0/1:1.1", "1:0.9", "0:0.2", "1/1:1.8"]),
        ("Y", ["0:0.1", "1:0.9", "1:1", "0:0.3"]),
    ],
    "GP": [
        ("X", ["0/1:0.1,0.7,0.2", "1:0.1,0.9", "0:0.8,0.2", "1/1:0,0.2,0.8"]),
        ("Y", ["0:0.9,0.1", "1:0.1,0.9", "1:0,1", "0:0.7,0.3"]),
    ],
}
DOSAGES = [[1.1, 1.8, 0.4, 1.8], [0.2, 1.8, 2, 0.6]]

needs_plink2 = pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not installed")


def write(path, records, fields="GT"):
    lines = [
        "\t".join([chrom, str(pos), f"v{pos}", "A", "G", ".", "PASS", ".", fields, *cells])
        for pos, (chrom, cells) in enumerate(records, start=1)
    ]
    path.write_text(HEADER + "\n".join(lines) + "\n")
    return path


def plink2(folder, *options):
    """Import a VCF, all samples being male."""
    (folder / "men.psam").write_text("#IID\tSEX\na\t1\nb\t1\nc\t1\nd\t1\n")
    command = ["plink2", "--psam", "men.psam", "--threads", "1", *options]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)


def test_calls(tmp_path, caplog):
    source = VcfSource(write(tmp_path / "a.vcf", CALLS))
    assert source.kind == "hardcall"
    np.testing.assert_array_equal(source.read(), COPIES)
    np.testing.assert_array_equal(source.read(slice(1, 3)), COPIES[1:3])
    assert caplog.text.count("haploid genotypes") == 1
    other = VcfSource(source.path, count="oa")
    np.testing.assert_array_equal(other.read(), 2 - np.array(COPIES))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).read(), COPIES)


def test_a_missing_call_says_nothing_of_ploidy(tmp_path, caplog):
    source = VcfSource(write(tmp_path / "a.vcf", [("1", ["0/1", ".", "./.", "1|1"])]))
    np.testing.assert_array_equal(source.read(), [[1, NAN, NAN, 2]])
    assert "haploid" not in caplog.text


@pytest.mark.parametrize("field", ["DS", "GP"])
def test_dosages(tmp_path, field, caplog):
    source = VcfSource(write(tmp_path / "a.vcf", FIELDS[field], f"GT:{field}"))
    assert source.kind == "dosage"
    np.testing.assert_allclose(source.read(), DOSAGES, atol=1e-6)
    assert caplog.text.count("haploid genotypes") == 1
    other = VcfSource(source.path, count="oa")
    np.testing.assert_allclose(other.read(), 2 - np.array(DOSAGES), atol=1e-6)


def test_frequencies_and_counts_of_mitochondria(tmp_path):
    """Of 4 samples 1 carries the reference: 2 copies of 8."""
    source = VcfSource(write(tmp_path / "a.vcf", [("MT", ["0", "1", "1", "1"])]))
    calls = read_block(source, slice(0, 1)).calls
    assert calls.frequency[0] == 0.75
    assert calls.minor_count[0] == 2


@needs_plink2
def test_calls_are_those_of_plink2(tmp_path):
    write(tmp_path / "a.vcf", CALLS)
    plink2(tmp_path, "--vcf", "a.vcf", "--make-bed", "--out", "b")
    theirs = open_genotypes(tmp_path / "b.bed").read()
    np.testing.assert_array_equal(VcfSource(tmp_path / "a.vcf").read(), theirs)


@needs_plink2
@pytest.mark.parametrize(("field", "option"), [("DS", "DS"), ("GP", "GP-force")])
def test_dosages_are_those_of_plink2(tmp_path, field, option):
    write(tmp_path / "a.vcf", FIELDS[field], f"GT:{field}")
    plink2(tmp_path, "--vcf", "a.vcf", f"dosage={option}", "--make-pgen", "--out", "b")
    theirs = open_genotypes(tmp_path / "b.pgen").read()
    np.testing.assert_allclose(VcfSource(tmp_path / "a.vcf").read(), theirs, atol=1e-4)


@needs_plink2
def test_bgen_of_plink2(tmp_path, caplog):
    """It has one probability for each allele on X, Y and MT: half a copy of a heterozygote."""
    write(tmp_path / "a.vcf", CALLS)
    export = ("--export", "bgen-1.2", "bits=16", "ref-first", "--out", "b")
    plink2(tmp_path, "--vcf", "a.vcf", *export)
    source = BgenSource(tmp_path / "b.bgen")
    np.testing.assert_allclose(source.read(), COPIES, atol=1e-4)
    assert caplog.text.count("haploid genotypes") == 1
    np.testing.assert_allclose(
        BgenSource(source.path, count="oa").read(), 2 - np.array(COPIES), atol=1e-4
    )


@pytest.mark.parametrize("width", [1, 2])
def test_stores_of_one_allele(tmp_path, width, caplog):
    """Every genotype is haploid, or those of two samples among diploid ones."""
    zarr = pytest.importorskip("zarr")
    from plait.io.vcf_zarr import write_vcf_zarr

    path = tmp_path / "a.vcz"
    source = InMemory(np.zeros((2, 4)), ["a", "b", "c", "d"])
    write_vcf_zarr(path, source)
    group = zarr.open_group(path, mode="r+")
    del group["call_genotype"]
    genotypes = np.array([[[0, -2], [1, -2], [0, 1], [1, 1]], [[1, -2], [-1, -2], [0, 0], [1, 0]]])
    expected = np.array([[0, 2, 1, 2], [2, NAN, 0, 1]])
    if width == 1:
        expected = np.array([[0, 2, 0, 2], [2, NAN, 0, 2]])
    group.create_array("call_genotype", data=genotypes[:, :, :width].astype(np.int8))
    found = VcfZarrSource(path)
    np.testing.assert_array_equal(found.read(), expected)
    np.testing.assert_array_equal(found.read(), expected)
    assert caplog.text.count("haploid genotypes") == 1
    np.testing.assert_array_equal(VcfZarrSource(path, count="oa").read(), 2 - expected)
    dosages = np.array([[0.1, 0.9, 0.7, 0.3], [1, NAN, 0, 0.5]], dtype=np.float32)
    group.create_array("call_DS", data=dosages)
    alone = genotypes[:, :, 1] == -2 if width == 2 else np.True_
    expected = np.where(alone, 2 * dosages, dosages)
    np.testing.assert_array_equal(VcfZarrSource(path).read(), expected)


@pytest.fixture(autouse=True)
def _logged(caplog):
    caplog.set_level(logging.WARNING, logger="plait.io")
