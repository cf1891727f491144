"""Variants of .bim and .pvar without the files they belong to."""

import gzip

import pytest

from plait.errors import FileFormatError
from plait.io.variant_files import is_variant_file, read_variants

BIM = "chr1\trs1\t0\t100\tA\tG\n23\trs2\t0.5\t200\tC\tCT\n"
PVAR = (
    "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\nchr1\t100\trs1\tG\tA\n23\t200\trs2\tC\tT,G\n"
)


@pytest.mark.parametrize("suffix", [".bim", ".bim.gz"])
def test_bim(tmp_path, suffix):
    place = tmp_path / f"x{suffix}"
    place.write_bytes(gzip.compress(BIM.encode()) if suffix.endswith("gz") else BIM.encode())
    assert is_variant_file(place)
    found = read_variants(place)
    assert found.keys.to_list() == ["chr1:100:G:A", "23:200:CT:C"]
    assert found.frame["cm"].to_list() == [0, 0.5]
    assert read_variants(place, True).keys.to_list() == ["1:100:G:A", "X:200:CT:C"]


def test_pvar(tmp_path):
    place = tmp_path / "x.pvar"
    place.write_text(PVAR)
    assert read_variants(place, True).keys.to_list() == ["1:100:G:A", "X:200:C:T", "X:200:C:G"]


def test_errors(tmp_path):
    assert not is_variant_file("x.vcf")
    with pytest.raises(FileFormatError, match=r"\.bim"):
        read_variants(tmp_path / "x.vcf")
    with pytest.raises(FileFormatError, match="no such file"):
        read_variants(tmp_path / "x.bim")
    (tmp_path / "x.bim").write_text(BIM.replace("100", "here"))
    with pytest.raises(FileFormatError, match="'here' as position"):
        read_variants(tmp_path / "x.bim")
