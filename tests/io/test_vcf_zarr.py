"""VCF-Zarr: what is written, what bio2zarr writes, several ALT alleles, damaged stores."""

import warnings
import zipfile

import numpy as np
import pytest

from plait.data.variants import VariantTable
from plait.errors import DuplicateSampleError, FileFormatError, OutputError, ShapeError
from plait.io import open_genotypes
from plait.io.plink import write_bed
from plait.io.vcf_zarr import VcfZarrSource, write_vcf_zarr

from .genotype_examples import CALLS, SAMPLES, VARIANTS, floats


@pytest.fixture
def store(tmp_path):
    write_vcf_zarr(tmp_path / "a.vcz", [CALLS[:1], CALLS[1:]], VARIANTS, SAMPLES)
    return tmp_path / "a.vcz"


def group_of(path, mode="r"):
    import zarr

    return zarr.open_group(path, mode=mode)


def test_what_is_written_is_the_specification(store):
    group = group_of(store)
    assert group.attrs["vcf_zarr_version"] == "0.4"
    assert group["call_genotype"].dtype == np.int8
    assert group["call_genotype"].metadata.dimension_names == ("variants", "samples", "ploidy")
    genotypes = group["call_genotype"][:]
    np.testing.assert_array_equal(np.where(genotypes[..., 0] < 0, -1, genotypes.sum(-1)), CALLS)
    assert genotypes[0, 1].tolist() == [0, 1]
    np.testing.assert_array_equal(group["call_genotype_mask"][:], genotypes < 0)
    assert not group["call_genotype_phased"][:].any()
    assert group["variant_allele"][3].tolist() == ["AT", "A"]
    assert group["variant_length"][:].tolist() == [1, 1, 1, 2, 1, 1]
    assert group["contig_id"][:].tolist() == ["1", "2", "X"]
    assert group["region_index"][:].tolist() == [
        [0, 0, 100, 251, 251, 3], [0, 1, 80, 1000, 1000, 2], [0, 2, 5, 5, 5, 1],
    ]  # fmt: skip


def test_blocks_of_any_size_fill_whole_chunks(tmp_path):
    random = np.random.default_rng(1)
    calls = random.integers(-1, 3, (2500, 3)).astype(np.int8)
    table = VariantTable.of(["1"] * 2500, range(1, 2501), ["A"] * 2500, ["C"] * 2500)
    blocks = [calls[:7], calls[7:1900], calls[1900:]]
    write_vcf_zarr(tmp_path / "b.vcz", iter(blocks), table, ["a", "b", "c"])
    source = VcfZarrSource(tmp_path / "b.vcz")
    np.testing.assert_array_equal(source.read(dtype=np.int8), calls)
    rows = random.permutation(2500)[:40]
    columns = np.array([2, 0])
    np.testing.assert_array_equal(source.read(rows, columns, np.int8), calls[rows][:, columns])
    assert group_of(tmp_path / "b.vcz")["region_index"].shape == (3, 6)


def test_dosages(tmp_path):
    values = floats() * 0.9
    write_vcf_zarr(tmp_path / "d.vcz", [values], VARIANTS, SAMPLES)
    source = VcfZarrSource(tmp_path / "d.vcz")
    assert source.kind == "dosage"
    np.testing.assert_allclose(source.read(), values, rtol=1e-6)
    np.testing.assert_allclose(
        VcfZarrSource(tmp_path / "d.vcz", count="oa").read(), 2 - values, rtol=1e-6
    )


def test_several_alts_haploid_and_padded(store):
    group = group_of(store, "r+")
    for name in ("variant_allele", "call_genotype"):
        del group[name]
    alleles = np.full((6, 3), "", dtype=np.dtypes.StringDType())
    alleles[:, :2] = [["A", "C"]] * 6
    alleles[1, 2], alleles[2, 1] = "G", ""
    group.create_array("variant_allele", data=alleles)
    genotypes = np.zeros((6, 7, 2), np.int8)
    genotypes[1, :4] = [[0, 1], [1, 2], [2, 2], [2, -2]]
    genotypes[3, :3] = [[1, -1], [-1, -1], [1, -2]]
    group.create_array("call_genotype", data=genotypes)
    source = VcfZarrSource(store)
    assert source.variants.frame["ea"].to_list() == ["C", "C", "G", ".", "C", "C", "C"]
    calls = source.read(dtype=np.int8)
    assert calls[1, :4].tolist() == [1, 1, 0, 0]
    assert calls[2, :4].tolist() == [0, 1, 2, 2]
    assert calls[4, :3].tolist() == [-1, -1, 2]
    order = np.array([4, 2, 1])
    np.testing.assert_array_equal(source.read(order, dtype=np.int8), calls[order])
    other = VcfZarrSource(store, count="oa")
    assert other.read(dtype=np.int8)[2, :4].tolist() == [2, 1, 0, 0]
    assert VcfZarrSource(store, multiallelic="drop").n_variants == 5


def test_dosages_of_each_alt(store):
    group = group_of(store, "r+")
    values = np.random.default_rng(1).uniform(0, 2, (6, 7, 1)).astype(np.float32)
    group.create_array("call_DS", data=values)
    np.testing.assert_array_equal(VcfZarrSource(store).read(), values[:, :, 0])
    hard = VcfZarrSource(store, dosage="hardcall")
    np.testing.assert_array_equal(hard.read(dtype=np.int8), CALLS)
    values[::2, ::2] = np.nan  # as where PLINK 2 writes only what differs from the call
    group["call_DS"][:] = values
    calls = np.where(CALLS < 0, np.nan, CALLS)
    expected = np.where(np.isnan(values[:, :, 0]), calls, values[:, :, 0])
    np.testing.assert_array_equal(VcfZarrSource(store).read(), expected)
    other = VcfZarrSource(store, count="oa").read()
    np.testing.assert_allclose(other, 2 - expected, atol=1e-6)


def test_polyploid_genotypes_are_refused(store):
    group = group_of(store, "r+")
    genotypes = group["call_genotype"][:]
    del group["call_genotype"]
    absent = np.full_like(genotypes, -2)
    group.create_array("call_genotype", data=np.concatenate([genotypes, absent], axis=2))
    np.testing.assert_array_equal(VcfZarrSource(store).read(dtype=np.int8), CALLS)
    group["call_genotype"][:, :, 2:] = 1
    with pytest.raises(FileFormatError, match="has genotypes of 4 alleles; plait takes one or two"):
        VcfZarrSource(store).read()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_stores_of_bio2zarr(tmp_path, zarr_format):
    plink = pytest.importorskip("bio2zarr.plink", reason="bio2zarr is not installed")
    write_bed(tmp_path / "a.bed", [CALLS], VARIANTS, SAMPLES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plink.convert(tmp_path / "a", tmp_path / "b.vcz", zarr_format=zarr_format)
    source = open_genotypes(tmp_path / "b.vcz")
    np.testing.assert_array_equal(source.read(dtype=np.int8), CALLS)
    assert source.variants.keys.to_list() == VARIANTS.keys.to_list()
    assert source.samples.tolist() == SAMPLES
    ours = tmp_path / "c.vcz"
    write_vcf_zarr(ours, source)
    theirs, ours = group_of(tmp_path / "b.vcz"), group_of(ours)
    for name in set(theirs.array_keys()) & set(ours.array_keys()) - {"variant_quality"}:
        np.testing.assert_array_equal(theirs[name][:], ours[name][:], err_msg=name)
        assert theirs[name].dtype.kind == ours[name].dtype.kind, name


def test_a_zip_and_a_url(store, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zarr.zip", "w") as archive:
        for place in sorted(store.rglob("*")):
            if place.is_file():
                archive.write(place, place.relative_to(store))
    for path in (tmp_path / "a.zarr.zip", f"file://{store}"):
        source = open_genotypes(path)
        np.testing.assert_array_equal(source.read(dtype=np.int8), CALLS)
    data = (tmp_path / "a.zarr.zip").read_bytes()
    (tmp_path / "a.zarr.zip").write_bytes(data[:-100])
    with pytest.raises(FileFormatError, match="cut off"):
        open_genotypes(tmp_path / "a.zarr.zip")


def test_what_is_written_must_fit(tmp_path):
    place = tmp_path / "b.vcz"
    for calls, match in (
        (CALLS[:5], "5 rows of genotypes, but 6"),
        (np.tile(CALLS, (2, 1)), "more rows"),
        (CALLS[:, :3], "7 samples"),
    ):
        with pytest.raises(ShapeError, match=match):
            write_vcf_zarr(place, [calls], VARIANTS, SAMPLES)
    with pytest.raises(ShapeError, match="come with"):
        write_vcf_zarr(place, [CALLS])
    assert not list(tmp_path.iterdir())
    write_vcf_zarr(place, [], VARIANTS[:0], SAMPLES)
    assert VcfZarrSource(place).read().shape == (0, 7)
    with pytest.raises(OutputError, match="exists"):
        write_vcf_zarr(place, [CALLS], VARIANTS, SAMPLES)


def test_damaged_stores(store, tmp_path):
    chunk = next(p for p in (store / "call_genotype" / "c").rglob("*") if p.is_file())
    chunk.write_bytes(b"broken")
    with pytest.raises(FileFormatError, match="call_genotype of records 1 to 6 cannot be read"):
        VcfZarrSource(store).read()
    chunk.unlink()
    assert np.isnan(VcfZarrSource(store).read()).all()  # never a call that was not made
    group = group_of(store, "r+")
    group["sample_id"][1] = SAMPLES[0]
    with pytest.raises(DuplicateSampleError, match="'ann'"):
        VcfZarrSource(store)
    group["sample_id"][1] = "bob"
    del group["call_genotype"]
    with pytest.raises(FileFormatError, match="no call_genotype and no call_DS"):
        VcfZarrSource(store)
    group.create_array("call_genotype", data=np.zeros((5, 7, 2), np.int8))
    with pytest.raises(FileFormatError, match="has the shape"):
        VcfZarrSource(store)
    del group["variant_allele"]
    with pytest.raises(FileFormatError, match="lacks the array variant_allele"):
        VcfZarrSource(store)
    del group.attrs["vcf_zarr_version"]
    with pytest.raises(FileFormatError, match="vcf_zarr_version"):
        VcfZarrSource(store)
    (tmp_path / "x.vcz").mkdir()
    with pytest.raises(FileFormatError, match="not a VCF-Zarr"):
        VcfZarrSource(tmp_path / "x.vcz")
    with pytest.raises(FileFormatError, match="no such file"):
        VcfZarrSource(tmp_path / "y.vcz")
