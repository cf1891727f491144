"""VCF and BCF: fields, alleles, the order of reading, indexes, damaged files."""

import ctypes
import gzip
import pickle
import shutil
import subprocess

import numpy as np
import pytest

from plait.errors import (
    DuplicateSampleError,
    FileFormatError,
    LabelError,
    MissingSidecarError,
    OptionError,
    TruncatedFileError,
)
from plait.io import convert_genotypes, genotype_files, open_genotypes
from plait.io import vcf as vcf_module
from plait.io.plink import write_bed
from plait.io.vcf import VcfSource

from .genotype_examples import CALLS, VARIANTS, VCF_HEADER, vcf_text, write_vcf

NAN = np.nan


def write(path, rows, samples=("a", "b", "c")):
    path.write_text(vcf_text(rows, samples))
    return path


def compressed(path, suffix=".bcf"):
    """Write a BCF or a compressed VCF."""
    import cyvcf2

    place = path.with_suffix(suffix)
    reader = cyvcf2.VCF(str(path))
    writer = cyvcf2.Writer(str(place), reader, mode="wb" if suffix == ".bcf" else "wz")
    for record in reader:
        writer.write_record(record)
    writer.close()
    reader.close()
    return place


def index(path):
    """Index a file as bcftools does: the library inside cyvcf2 can, cyvcf2 itself cannot."""
    import cyvcf2

    build = getattr(ctypes.CDLL(cyvcf2.cyvcf2.__file__), "bcf_index_build", None)
    if build is None:
        pytest.skip("this cyvcf2 does not show the function that makes an index")
    assert build(str(path).encode(), 14) == 0


@pytest.fixture
def several(tmp_path):
    """Two ALT alleles with every field, no ALT, half missing and haploid calls."""
    return write(
        tmp_path / "m.vcf",
        [
            ("1", 10, "r", "A", "G,T", "GT:DS:GP", [
                "0/1:0.9,0.1:0,1,0,0,0,0", ".:.,.:.", "1/2:1,1:0,0,0,0,1,0",
            ]),
            ("1", 11, ".", "A", ".", "GT", ["0/0", "0/.", "0"]),
            ("1", 12, ".", "A", "C", "GT:GP", ["0|1:0,.75,.25", "./.:.", "1:.25,.75"]),
            ("1", 13, ".", "A", "C", "GT", ["0", "1", "."]),
        ],
    )  # fmt: skip


def test_fields_in_their_order(several):
    source = VcfSource(several)
    assert source.kind == "dosage"
    assert source.variants.frame["ea"].to_list() == ["G", "T", ".", "C", "C"]
    assert source.variants.frame["id"].to_list() == ["r", "r", ".", ".", "."]
    expected = [
        [0.9, NAN, 1], [0.1, NAN, 1], [0, NAN, 0], [1.25, NAN, 1.5], [0, 2, NAN],
    ]  # fmt: skip
    np.testing.assert_allclose(source.read(), expected, rtol=1e-6)
    with pytest.raises(OptionError, match="hardcall"):
        source.read(dtype=np.int8)


def test_hard_calls_and_alleles(several):
    source = VcfSource(several, dosage="hardcall")
    expected = [[1, -1, 1], [0, -1, 1], [0, -1, 0], [1, -1, 2], [0, 2, -1]]
    np.testing.assert_array_equal(source.read(dtype=np.int8), expected)
    other = VcfSource(several, dosage="hardcall", count="oa")
    expected = [[1, -1, 1], [2, -1, 1], [2, -1, 2], [1, -1, 0], [2, 0, -1]]
    np.testing.assert_array_equal(other.read(dtype=np.int8), expected)
    dropped = VcfSource(several, dosage="hardcall", multiallelic="drop")
    assert dropped.variants.pos.tolist() == [11, 12, 13]
    np.testing.assert_array_equal(dropped.read(dtype=np.int8)[0], [0, -1, 0])
    counted = VcfSource(several, count="oa").read(slice(0, 1))
    np.testing.assert_allclose(counted, [[1.1, NAN, 1]], rtol=1e-6)


def test_probabilities_of_three_alleles(tmp_path):
    path = write(
        tmp_path / "p.vcf",
        [("1", 1, ".", "A", "C,G", "GP", [".1,.2,.3,.1,.2,.1", "0,0,0,0,0,1", "0,0,0,1,0,0"])],
    )
    source = VcfSource(path)
    np.testing.assert_allclose(source.read(), [[1.0, 0, 0], [0.5, 2, 1]], rtol=1e-6)


def test_what_a_record_lacks_is_said(tmp_path):
    path = write(tmp_path / "p.vcf", [("1", 7, ".", "A", "C", "DS", ["0", "1", "2"])])
    with pytest.raises(FileFormatError, match="1:7 has no GT"):
        VcfSource(path, dosage="hardcall").read()
    for field, cells, match in (
        ("DS", ["0,1", "1,1", "2,0"], "2 values of DS for 1 ALT"),
        ("GP", ["0,1,0,0", "0,0,1,0", "1,0,0,0"], "4 values of GP for 1 ALT"),
    ):
        write(path, [("1", 7, ".", "A", "C", field, cells)])
        with pytest.raises(FileFormatError, match=match):
            VcfSource(path).read()


def test_auto_of_a_header_that_declares_what_no_record_has(tmp_path, monkeypatch):
    path = write_vcf(tmp_path / "a.vcf")
    assert VcfSource(path).kind == "hardcall"
    source = VcfSource(path, dosage="dosage")
    assert source.kind == "dosage"
    np.testing.assert_array_equal(source.read()[0], [0, 1, 2, NAN, 0, 1, 2])
    empty = VcfSource(write(tmp_path / "e.vcf", []))
    assert (empty.kind, empty.n_variants, empty.read().shape) == ("hardcall", 0, (0, 3))
    monkeypatch.setattr(vcf_module, "_LOOKED_AT", 3)  # too many records to look at all of them
    late = VcfSource(path)
    assert late.kind == "dosage"
    np.testing.assert_array_equal(late.read()[0], [0, 1, 2, NAN, 0, 1, 2])


def test_typed_variants_before_imputed_ones(tmp_path):
    """Every record is read by the best field that it has, whatever the first one has."""
    rows = [
        ("1", 1, "typed", "A", "C", "GT", ["0/0", "0/1", "1/1"]),
        ("1", 2, "ds", "A", "C", "GT:DS", ["0/0:0.25", "0/1:1.5", "1/1:1.75"]),
        ("1", 3, "gp", "A", "C", "GT:GP", ["0/0:.5,.5,0", "0/1:0,1,0", "1/1:0,.25,.75"]),
        ("1", 4, "both", "A", "C", "DS:GP", ["0.25:0,1,0", "1:0,1,0", "1.5:0,1,0"]),
        ("1", 5, "none", "A", "C", "DS", [".", ".", "."]),
    ]
    path = write(tmp_path / "i.vcf", rows)
    source = VcfSource(path)
    assert source.kind == "dosage"
    typed, ds, gp = [0, 1, 2], [0.25, 1.5, 1.75], [0.5, 1, 1.75]
    both, none = [0.25, 1, 1.5], [NAN] * 3
    np.testing.assert_array_equal(source.read(), [typed, ds, gp, both, none])
    by_gp = open_genotypes(path, dosage="GP", variants=slice(0, 4))
    np.testing.assert_array_equal(by_gp.read(), [typed, typed, gp, [1, 1, 1]])
    by_ds = open_genotypes(path, dosage="DS", variants=slice(0, 3))
    np.testing.assert_array_equal(by_ds.read(), [typed, ds, typed])
    assert (by_ds.kind, VcfSource(path, dosage="hardcall").kind) == ("dosage", "hardcall")
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again.read(slice(1, 3)), [ds, gp])


def test_samples_without_the_field_have_their_calls(tmp_path):
    """PLINK 2 writes DS and GP only where they differ from the call."""
    rows = [
        ("1", 1, "ds", "A", "C", "GT:DS", ["0/0", "0/1:1.25", "1/1:."]),
        ("1", 2, "gp", "A", "C", "GT:GP", ["./.", "./.:.25,.5,.25", "1/1:."]),
        ("1", 3, "one", "A", "C", "GT:DS", ["1", "0/1:1.25", "0"]),
        ("1", 4, "two", "A", "C,G", "GT:DS", ["1/2", "0/1:1.25,0.5", "2/2:."]),
    ]
    path = write(tmp_path / "c.vcf", rows)
    expected = np.array([[0, 1.25, 2], [NAN, 1, 2], [2, 1.25, 0], [1, 1.25, 0], [1, 0.5, 2]])
    np.testing.assert_array_equal(VcfSource(path).read(), expected)
    np.testing.assert_array_equal(VcfSource(path, count="oa").read(), 2 - expected)
    np.testing.assert_array_equal(VcfSource(path, dosage="DS").read(slice(0, 1)), expected[:1])


@pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not installed")
@pytest.mark.parametrize("field", ["DS", "GP"])
def test_dosages_that_plink2_writes(tmp_path, field):
    cells = ["0/0:0", "0/1:1", "0/1:1.25"]
    write(tmp_path / "a.vcf", [("1", 7, "v", "A", "C", "GT:DS", cells)])
    for options in (
        ["--vcf", "a.vcf", "dosage=DS", "--make-pgen"],
        ["--pfile", "b", "--export", "vcf", f"vcf-dosage={field}"],
    ):
        command = ["plink2", "--threads", "1", *options, "--out", "b"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    assert "\t0/0\t" in (tmp_path / "b.vcf").read_text()
    np.testing.assert_allclose(VcfSource(tmp_path / "b.vcf").read(), [[0, 1, 1.25]], atol=1e-4)


def test_probabilities_in_proportion(tmp_path):
    """As PLINK 2 reads them: what does not add up to 1 is scaled, and zeros are missing."""
    diploid = ("1", 1, ".", "A", "C", "GT:GP", ["./.:.2,.2,.2", "./.:0,0,0", "0/1:.9,.9,.2"])
    haploid = ("1", 2, ".", "A", "C", "GT:GP", [".:.1,.3", ".:0,0", ".:1,0"])
    path = write(tmp_path / "p.vcf", [diploid, haploid])
    expected = [[1, NAN, 0.65], [1.5, NAN, 0]]
    np.testing.assert_allclose(VcfSource(path).read(), expected, rtol=1e-6)


def test_polyploid_genotypes_are_refused(tmp_path):
    """Three and four copies would be packed as missing."""
    row = ("1", 7, ".", "A", "C", "GT", ["0/0/0/1", "1/1/1/1", "0/0/1/1"])
    path = write(tmp_path / "p.vcf", [row])
    with pytest.raises(FileFormatError, match="1:7 has genotypes of 4 alleles; plait takes one"):
        VcfSource(path).read()


def test_fields_that_are_not_there(tmp_path):
    path = write(tmp_path / "g.vcf", [("1", 1, ".", "A", "C", "GT", ["0/0", "0/1", "1/1"])])
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "ID=DS" not in line and "ID=GP" not in line))
    assert VcfSource(path).kind == "hardcall"
    with pytest.raises(OptionError, match=r"g\.vcf declares no DS"):
        open_genotypes(path, dosage="DS")
    other = write(tmp_path / "o.vcf", [("1", 7, ".", "A", "C", "XX", ["0", "1", "2"])])
    with pytest.raises(FileFormatError, match="1:7 has none of DS, GP and GT"):
        VcfSource(other, dosage="dosage").read()
    write_bed(tmp_path / "g.bed", [CALLS], VARIANTS, list("abcdefg"))
    with pytest.raises(OptionError, match="is no VCF, and has no field GP"):
        open_genotypes(tmp_path / "g.bed", dosage="GP")


def test_blocks_continue_one_stream(tmp_path, several, monkeypatch):
    opened = []
    original = VcfSource._open
    monkeypatch.setattr(
        VcfSource, "_open", lambda self, *a, **k: opened.append(1) or original(self, *a, **k)
    )
    for path in (write_vcf(tmp_path / "a.vcf"), several):
        source = VcfSource(path, dosage="hardcall")
        whole = source.read(dtype=np.int8)
        source.close()
        opened.clear()
        # blocks of one cut between the two ALT alleles of a record
        blocks = [source.read(rows, dtype=np.int8) for rows in source.blocks(1)]
        np.testing.assert_array_equal(np.concatenate(blocks), whole)
        assert len(opened) == 1
        source.read(slice(0, 1))
        assert len(opened) == 2
        order = np.array([3, 0, 3, 4, 1])
        np.testing.assert_array_equal(source.read(order, dtype=np.int8), whole[order])


def test_bcf_gives_the_same(tmp_path):
    place = compressed(write_vcf(tmp_path / "a.vcf"))
    source = open_genotypes(place)
    np.testing.assert_array_equal(source.read(dtype=np.int8), CALLS)
    assert source.variants.keys.to_list() == VARIANTS.keys.to_list()
    with pytest.raises(MissingSidecarError, match=r"a\.bcf\.tbi or \.csi"):
        open_genotypes(place, region="1:100-250")
    place.write_bytes(place.read_bytes()[:-28])
    with pytest.raises(TruncatedFileError, match="cut off"):
        VcfSource(place)


def test_a_region_needs_an_index(tmp_path):
    with pytest.raises(MissingSidecarError, match="bcftools index"):
        open_genotypes(write_vcf(tmp_path / "a.vcf"), region="1:1-200")


def long_vcf(folder):
    """A VCF with deletions that reach over what follows, and repeated positions."""
    rows = [("1", 90, "del", "A" * 30, "A", "GT", ["0/1", "0/0", "1/1"])]
    random = np.random.default_rng(3)
    texts = ["0/0", "0/1", "1/1", "./."]
    for number in range(300):
        cells = [texts[i] for i in random.integers(0, 4, 3)]
        chrom, pos = "12"[number // 200], 100 + number % 200 // 2
        rows.append((chrom, pos, f"v{number}", "A", "CG"[number % 2], "GT", cells))
    return write(folder / "r.vcf", rows)


@pytest.mark.parametrize("suffix", [".bcf", ".vcf.gz"])
def test_an_index_finds_regions_and_places(tmp_path, monkeypatch, suffix):
    plain = long_vcf(tmp_path)
    place = compressed(plain, suffix)
    index(place)
    whole = VcfSource(plain)
    source = VcfSource(place)
    expected = whole.read(dtype=np.int8)
    monkeypatch.setattr(vcf_module, "_FAR", 5)
    for start in (250, 17, 18, 60, 201, 200, 199, 0, 299):
        rows = slice(start, start + 3)
        np.testing.assert_array_equal(source.read(rows, dtype=np.int8), expected[rows])
    part = open_genotypes(place, region="1:101-120")
    rows = (whole.variants.frame["chrom"] == "1").to_numpy()
    rows &= (whole.variants.pos >= 101) & (whole.variants.pos <= 120)
    assert part.variants.keys.to_list() == whole.variants.keys.filter(rows).to_list()
    np.testing.assert_array_equal(part.read(dtype=np.int8), expected[rows])
    np.testing.assert_array_equal(part.read(slice(3, 5), dtype=np.int8), expected[rows][3:5])
    assert pickle.loads(pickle.dumps(part)).n_variants == part.n_variants
    with pytest.raises(LabelError, match="writes it '1'"):
        open_genotypes(place, region="chr1:1-2")


def test_damaged_files(tmp_path):
    path = write_vcf(tmp_path / "a.vcf")
    text = path.read_text()
    path.write_text(text.replace("\t100\t", "\tx\t"))
    with pytest.raises(FileFormatError, match="record 1 cannot be read"):
        VcfSource(path)
    path.write_text(text.rstrip().rsplit("\t", 2)[0] + "\n")
    source = VcfSource(path)  # the sites are whole; the samples of the last one are not
    with pytest.raises(FileFormatError, match="record 6 cannot be read"):
        source.read()
    path.write_text(text[: text.rindex("rs6") + 3])
    with pytest.raises(FileFormatError, match="damaged or cut off"):
        VcfSource(path)
    path.write_text("hello\n")
    with pytest.raises(FileFormatError, match="not a VCF"):
        VcfSource(path)


def test_a_file_that_is_replaced_while_it_is_read(tmp_path):
    path = write_vcf(tmp_path / "a.vcf")
    source = VcfSource(path)
    path.write_text(VCF_HEADER + vcf_text([])[len(VCF_HEADER) :])
    with pytest.raises(FileFormatError, match="was it replaced"):
        source.read()


def test_repeated_samples(tmp_path):
    with pytest.raises(DuplicateSampleError, match="'a'"):
        VcfSource(write(tmp_path / "a.vcf", [], ["a", "b", "a"]))


def test_conversion_of_dosages(several, tmp_path):
    source = VcfSource(several)
    convert_genotypes(source, tmp_path / "b.vcz")
    np.testing.assert_array_equal(open_genotypes(tmp_path / "b.vcz").read(), source.read())


def test_an_interrupted_read_starts_over(tmp_path, monkeypatch):
    source = VcfSource(write_vcf(tmp_path / "a.vcf"))
    source.read(slice(0, 2))
    stream = source._stream

    def interrupted():
        yield next(stream)
        raise KeyboardInterrupt

    source._stream = interrupted()
    with pytest.raises(KeyboardInterrupt):
        source.read(slice(2, 5))
    np.testing.assert_array_equal(source.read(slice(3, 6), dtype=np.int8), CALLS[3:])


def test_tables_of_many_variants_come_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(genotype_files, "_VARIANTS_OF_A_PART", 4)
    source = VcfSource(write_vcf(tmp_path / "a.vcf"))
    assert source.variants.keys.to_list() == VARIANTS.keys.to_list()


def test_plain_gzip(tmp_path):
    path = write_vcf(tmp_path / "a.vcf")
    place = tmp_path / "b.vcf.gz"
    place.write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(VcfSource(place).read(dtype=np.int8), CALLS)
    place.write_bytes(place.read_bytes()[:-40])
    with pytest.raises(FileFormatError):
        VcfSource(place).read()
