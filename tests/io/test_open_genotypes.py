"""One door to genotypes: formats, equal numbers in all of them, parts, copies, errors."""

import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from plait.data.genotypes import GenotypeSource
from plait.errors import (
    DependencyError,
    DuplicateSampleError,
    FileFormatError,
    LabelError,
    OptionError,
    OutputError,
    ShapeError,
    UnknownGenotypeFormatError,
)
from plait.io import SelectedGenotypes, convert_genotypes, open_genotypes
from plait.io.genotype_files import library
from plait.io.plink import write_bed
from plait.io.regions import Region
from plait.io.vcf_zarr import write_vcf_zarr

from .genotype_examples import (
    CALLS,
    CHROM,
    EA,
    IDS,
    OA,
    POS,
    SAMPLES,
    VARIANTS,
    floats,
    write_bgen,
    write_csv,
    write_pgen,
    write_vcf,
)

FORMATS = ("bed", "pgen", "vcf", "bgen", "vcz", "csv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("genotypes")
    write_bed(place / "a.bed", [CALLS], VARIANTS, SAMPLES)
    (place / "pgen").mkdir()
    write_pgen(place / "pgen" / "a.pgen")
    write_vcf(place / "a.vcf")
    write_bgen(place / "a.bgen")
    write_vcf_zarr(place / "a.vcz", [CALLS], VARIANTS, SAMPLES)
    write_csv(place / "a.csv")
    return place


def opened(folder, format, **options):
    place = folder / "pgen" if format == "pgen" else folder
    if format == "csv":
        options["map"] = place / "map.csv"
    return open_genotypes(place / f"a.{format}", **options)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("count", ["ea", "oa"])
def test_every_format_gives_the_same(folder, format, count):
    with opened(folder, format, count=count) as source:
        assert source.samples.tolist() == SAMPLES
        frame = source.variants.frame
        assert frame["chrom"].to_list() == CHROM
        assert frame["pos"].to_list() == POS
        assert frame["id"].to_list() == IDS
        assert frame["ea"].to_list() == (EA if count == "ea" else OA)
        assert frame["oa"].to_list() == (OA if count == "ea" else EA)
        expected = floats() if count == "ea" else 2 - floats()
        tolerance = 1 / 255 if format == "bgen" else 0
        for dtype in (np.float32, np.float64):
            found = source.read(dtype=dtype)
            assert found.dtype == dtype
            np.testing.assert_allclose(found, expected, atol=tolerance)
        rows, columns = np.array([4, 0, 3]), np.array([6, 0, 3])
        np.testing.assert_allclose(
            source.read(rows, columns), expected[rows][:, columns], atol=tolerance
        )
        np.testing.assert_allclose(source.read(slice(1, 6, 2)), expected[1:6:2], atol=tolerance)
        assert source.read(slice(2, 2)).shape == (0, 7)
        assert source.read(slice(0, 2), np.array([], int)).shape == (2, 0)
        for bad in (np.array([6]), np.array([-1]), np.array([0.5])):
            with pytest.raises(ShapeError, match="variants are"):
                source.read(bad)
        with pytest.raises(OptionError, match="float32"):
            source.read(dtype=np.int16)


@pytest.mark.parametrize("format", FORMATS)
def test_hard_calls_of_every_format(folder, format):
    source = opened(folder, format, dosage="hardcall")
    assert source.kind == "hardcall"
    np.testing.assert_array_equal(source.read(dtype=np.int8), CALLS)
    bed = opened(folder, "bed")
    for samples in (None, np.array([5, 1, 2])):
        np.testing.assert_array_equal(
            source.read_packed(slice(1, 5), samples), bed.read_packed(slice(1, 5), samples)
        )
    counts = source.counts()
    np.testing.assert_array_equal(counts.n_missing, (CALLS == -1).sum(1))
    np.testing.assert_array_equal(counts.n2, (CALLS == 2).sum(1))


@pytest.mark.parametrize("format", FORMATS)
def test_sources_travel(folder, format):
    source = opened(folder, format, count="oa", samples=["eve", "ann"], variants=["rs4", "rs2"])
    source.read()
    again = pickle.loads(pickle.dumps(source))
    source.close()
    np.testing.assert_array_equal(again.read(), source.read())  # a closed one opens again
    assert again.samples.tolist() == ["eve", "ann"]
    assert again.variants.frame["id"].to_list() == ["rs2", "rs4"]


@pytest.mark.parametrize("name", ["a", "a.bim", "a.fam", "a.bed"])
def test_any_of_the_three_files_names_a_bed(folder, name):
    assert open_genotypes(folder / name).n_variants == 6


@pytest.mark.parametrize("name", ["a", "a.psam", "a.pvar"])
def test_any_of_the_three_files_names_a_pgen(folder, name):
    assert open_genotypes(folder / "pgen" / name).n_variants == 6


def test_formats_are_known_by_their_first_bytes(folder, tmp_path):
    for name, suffix in (("vcf", "vcf"), ("bgen", "bgen")):
        shutil.copy(folder / f"a.{suffix}", tmp_path / name)
        assert open_genotypes(tmp_path / name).n_variants == 6
    shutil.copytree(folder / "a.vcz", tmp_path / "store")
    assert open_genotypes(tmp_path / "store").n_variants == 6
    shutil.copy(folder / "a.csv", tmp_path / "table.csv")
    assert open_genotypes(tmp_path / "table.csv", "dense").n_variants == 6


def test_unknown_formats(tmp_path):
    (tmp_path / "a.xyz").write_text("hello")
    with pytest.raises(UnknownGenotypeFormatError, match=r"format=") as caught:
        open_genotypes(tmp_path / "a.xyz")
    assert "bgen" in caught.value.tried
    assert pickle.loads(pickle.dumps(caught.value)).tried == caught.value.tried
    (tmp_path / "b.xyz").write_bytes(b"\x1f\x8b\x00")
    with pytest.raises(UnknownGenotypeFormatError):
        open_genotypes(tmp_path / "b.xyz")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UnknownGenotypeFormatError):
        open_genotypes(tmp_path / "folder")
    for name in ("nothing", "nothing.bed", "nothing.vcf"):
        with pytest.raises(FileFormatError, match="no such file"):
            open_genotypes(tmp_path / name)


def test_options_are_checked(folder):
    for options, match in (
        ({"format": "plink"}, "format"),
        ({"dosage": "both"}, "dosage"),
        ({"count": "alt"}, "count"),
        ({"multiallelic": "split"}, "multiallelic is not an option"),
        ({"dosage": "dosage"}, "hard calls only"),
        ({"region": "1:9-3"}, "first is not after"),
        ({"region": ""}, "expected"),
    ):
        with pytest.raises(OptionError, match=match):
            open_genotypes(folder / "a.bed", **options)


@pytest.mark.parametrize("format", ["bed", "pgen", "bgen", "vcz"])
def test_regions(folder, format):
    def ids(region, **more):
        return opened(folder, format, region=region, **more).variants.frame["id"].to_list()

    assert ids("1") == ["rs1", "rs2", "rs3"]
    assert ids("1:100-250") == ["rs1", "rs2"]
    assert ids("1:251") == ["rs3"]
    assert ids("2:81-") == ["rs5"]
    assert ids("2:1-79") == []
    assert ids("1:200-1,000", variants=[1]) == ["rs3"]
    with pytest.raises(LabelError, match="this file writes it '1'"):
        ids("chr1")
    with pytest.raises(LabelError, match="there are 1, 2, X"):
        ids("7")


def test_region_text():
    assert Region.parse("HLA:X:3-4") == Region("HLA:X", 3, 4)
    assert Region.parse(" chr2:1,000-2,000 ") == Region("chr2", 1000, 2000)


def test_variants_by_mask_name_and_key(folder):
    def rows(variants):
        source = open_genotypes(folder / "a.bed", variants=variants)
        return source.variants.frame["id"].to_list()

    assert rows(np.array(POS) > 200) == ["rs2", "rs3", "rs5"]
    assert rows(["1:251:G:C", "rs1"]) == ["rs1", "rs3"]
    assert rows([3, 1]) == ["rs4", "rs2"]
    assert rows(slice(4, None)) == ["rs5", "rs6"]
    assert rows([]) == []
    with pytest.raises(LabelError, match="1 of 2 variants are not there"):
        rows(["rs1", "rs99"])
    with pytest.raises(ShapeError, match="booleans"):
        rows(np.array([True]))
    with pytest.raises(LabelError, match="no genotypes"):
        open_genotypes(folder / "a.bed", samples=["ann", "zoe"])
    with pytest.raises(DuplicateSampleError, match="'ann'"):
        open_genotypes(folder / "a.bed", samples=["ann", "ann"])


@pytest.mark.parametrize("rows", [slice(1, 5), np.array([5, 0, 1, 2]), np.array([], int)])
@pytest.mark.parametrize("columns", [None, np.array([6, 2, 3, 0, 1]), np.arange(7)])
def test_selected_genotypes_compose(folder, rows, columns):
    whole = open_genotypes(folder / "a.bed")
    part = SelectedGenotypes(whole, rows, columns)
    expected = CALLS[rows] if columns is None else CALLS[rows][:, columns]
    np.testing.assert_array_equal(part.read(dtype=np.int8), expected)
    assert part.n_variants == len(expected) == len(part.variants)
    again = SelectedGenotypes(part, slice(1, 3), np.array([3, 1]))
    np.testing.assert_array_equal(again.read(dtype=np.int8), expected[1:3][:, [3, 1]])
    np.testing.assert_array_equal(
        part.read_packed(slice(1, 3), np.array([3, 1])), again.read_packed(slice(0, 2))
    )
    np.testing.assert_array_equal(part.counts().n1, (expected == 1).sum(1))
    assert "SelectedGenotypes" in repr(part)


def test_selected_runs_are_read_as_they_are_packed(folder, monkeypatch):
    whole = open_genotypes(folder / "a.bed")
    asked = []
    original = type(whole).read_packed
    monkeypatch.setattr(
        type(whole), "read_packed", lambda self, *a: asked.append(a[0]) or original(self, *a)
    )
    SelectedGenotypes(whole, slice(1, 5)).read_packed(slice(1, 3))
    SelectedGenotypes(whole, np.array([0, 1, 4])).read_packed(slice(0, 3))
    assert asked == [slice(2, 4), slice(0, 2), slice(4, 5)]


def test_selected_samples_are_in_range(folder):
    with pytest.raises(ShapeError, match="0 to 6"):
        SelectedGenotypes(open_genotypes(folder / "a.bed"), None, np.array([7]))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("suffix", ["bed", "vcz", "zarr"])
def test_conversion_keeps_calls_and_labels(folder, tmp_path, format, suffix):
    source = opened(folder, format, dosage="hardcall", samples=SAMPLES[:5])
    convert_genotypes(source, tmp_path / f"b.{suffix}")
    again = open_genotypes(tmp_path / f"b.{suffix}")
    np.testing.assert_array_equal(again.read(dtype=np.int8), CALLS[:, :5])
    assert again.samples.tolist() == SAMPLES[:5]
    assert again.variants.keys.to_list() == VARIANTS.keys.to_list()
    with pytest.raises(OutputError, match="exists"):
        convert_genotypes(source, tmp_path / f"b.{suffix}")
    convert_genotypes(source, tmp_path / f"b.{suffix}", overwrite=True)


def test_conversion_opens_a_path(folder, tmp_path):
    convert_genotypes(folder / "a.bed", tmp_path / "b.vcz")
    with open_genotypes(folder / "a.bed") as source, open_genotypes(tmp_path / "b.vcz") as again:
        np.testing.assert_array_equal(again.read(dtype=np.int8), source.read(dtype=np.int8))


def test_dosages_become_vcf_zarr_only(folder, tmp_path):
    source = opened(folder, "bgen")
    with pytest.raises(OptionError, match=r"\.vcz"):
        convert_genotypes(source, tmp_path / "b.bed")
    with pytest.raises(OutputError, match="are written as"):
        convert_genotypes(source, tmp_path / "b.vcf")
    convert_genotypes(source, tmp_path / "b.vcz")
    again = open_genotypes(tmp_path / "b.vcz")
    assert again.kind == "dosage"
    np.testing.assert_array_equal(again.read(), source.read())
    with pytest.raises(FileFormatError, match="only dosages"):
        open_genotypes(tmp_path / "b.vcz", dosage="hardcall")
    for asked in (lambda: source.read(dtype=np.int8), lambda: again.read_packed(slice(0, 1))):
        with pytest.raises(OptionError, match="dosage='hardcall'"):
            asked()


def test_missing_libraries_name_the_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pgenlib", None)
    with pytest.raises(DependencyError, match=r"pip install 'plait\[genotypes\]'"):
        library("pgenlib")


def test_every_source_is_a_genotype_source(folder):
    assert all(isinstance(opened(folder, format), GenotypeSource) for format in FORMATS)


@pytest.mark.parametrize("format", FORMATS)
def test_threads_take_turns(folder, format):
    source = opened(folder, format, dosage="hardcall")
    rows = [np.array([i % 6, (i * 5 + 2) % 6]) for i in range(60)]
    columns = [np.array([i % 7, (i + 3) % 7]) for i in range(60)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda r, c: source.read(r, c, np.int8), rows, columns))
    for calls, r, c in zip(found, rows, columns, strict=True):
        np.testing.assert_array_equal(calls, CALLS[r][:, c])


@pytest.mark.parametrize("format", ["bed", "pgen", "csv"])
def test_negative_positions_mark_what_is_excluded(folder, tmp_path, format, caplog):
    place = tmp_path / "marked"
    shutil.copytree(folder / "pgen" if format == "pgen" else folder, place)
    name, column, mark = {
        "bed": ("a.bim", 3, "\t"), "pgen": ("a.pvar", 1, "\t"), "csv": ("map.csv", 2, ","),
    }[format]  # fmt: skip
    lines = (place / name).read_text().splitlines()
    for row, pos in ((-5, "0"), (-4, "-1"), (-1, "-5")):
        cells = lines[row].split(mark)
        cells[column] = pos
        lines[row] = mark.join(cells)
    (place / name).write_text("\n".join(lines) + "\n")
    options = {"map": place / "map.csv"} if format == "csv" else {}
    with caplog.at_level("INFO", "plait.io"):
        source = open_genotypes(place / f"a.{format}", **options)
    told = [record for record in caplog.records if getattr(record, "notice", False)]
    assert "2 variants left out for a negative position" in told[0].getMessage()
    kept = [0, 1, 3, 4]
    assert source.variants.frame["id"].to_list() == [IDS[row] for row in kept]
    assert source.variants.pos.tolist() == [100, 0, 80, 1000]
    np.testing.assert_array_equal(source.read(), floats()[kept])
    part = open_genotypes(place / f"a.{format}", region="2", variants=[1], **options)
    assert part.variants.frame["id"].to_list() == ["rs5"]
    np.testing.assert_array_equal(part.read(), floats()[[4]])
