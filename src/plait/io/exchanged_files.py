"""Files that are given in the place of others: what they are, by first bytes and by name."""

import gzip
import zlib
from pathlib import Path

from plait.errors import FileFormatError

_MAGIC = (
    ("bed", 0, b"\x6c\x1b\x01"),
    ("bed", 0, b"\x6c\x1b\x00"),
    ("pgen", 0, b"\x6c\x1b"),
    ("vcf", 0, b"##fileformat=VCF"),
    ("vcf", 0, b"BCF\2"),
    ("bgen", 16, b"bgen"),
    ("trees", 0, b"\x89KAS\r\n\x1a\n"),
)
"""What files of genotypes have at which place."""
_LONGEST = 64
_KINDS = {
    "bed": "holds PLINK's genotypes",
    "pgen": "holds PLINK 2's genotypes",
    "vcf": "is a VCF",
    "bgen": "holds genotypes (BGEN)",
    "trees": "is a tree sequence",
}
_VARIANT_LISTS = (".bim", ".bim.gz", ".pvar", ".pvar.zst")


def genotype_format(path: Path) -> str | None:
    """Return the format of genotypes, as `plait.io.open_genotypes` calls it, by the first bytes.

    None where a file, which may be compressed with gzip, is of none that its bytes tell.
    """
    with path.open("rb") as stream:
        start = stream.read(_LONGEST)
    if start[:2] == b"\x1f\x8b":
        try:
            with gzip.open(path) as unpacked:
                start = unpacked.read(_LONGEST)
        except (OSError, EOFError, zlib.error):
            return None
    return next((name for name, at, magic in _MAGIC if start[at : at + len(magic)] == magic), None)


def require_sample_table(path: Path) -> None:
    """Raise a FileFormatError where a file is plainly no table of traits or covariates."""
    expected = "expected a table of traits or covariates, with a row for each sample"
    if path.is_dir():
        raise FileFormatError(f"{path} is a folder; {expected}.")
    if (kind := _kind(path)) is not None:
        raise FileFormatError(
            f"{path} {kind}; {expected}. It seems that files are exchanged: this one goes where "
            "genotypes are asked for."
        )


def require_summary_table(path: Path) -> None:
    """Raise a FileFormatError where a file is plainly no table of summary statistics."""
    kind = _kind(path)
    if kind is not None and kind != _KINDS["vcf"]:  # which may be a GWAS-VCF
        raise FileFormatError(
            f"{path} {kind}; expected a table of summary statistics, with the effect of each "
            "variant. It seems that files are exchanged, or that the genotypes are not scanned yet."
        )


def _kind(path: Path) -> str | None:
    """Say what a file is, if it is genotypes or their variants."""
    if not path.is_file():
        return None
    if path.name.lower().endswith(_VARIANT_LISTS):
        return "lists the variants of genotypes"
    found = genotype_format(path)
    return None if found is None else _KINDS[found]
