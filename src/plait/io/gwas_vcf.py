"""GWAS-VCF: summary statistics written as a VCF, with a column for each study.

The fields of a study are read as columns ``STUDY:ES`` (effect of ALT), ``STUDY:SE``, ``STUDY:LP``
(-log10 p) and so on, beside ``CHROM``, ``POS``, ``ID``, ``REF`` and ``ALT``. See Lyon et al. 2021,
https://doi.org/10.1186/s13059-020-02248-0, and the specification at
https://github.com/MRCIEU/gwas-vcf-specification.
"""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.errors import FileFormatError

if TYPE_CHECKING:
    from polars import DataFrame, Series

_HEADER_BYTES = 1 << 24
START = b"##fileformat=VCF"
MISSING = (".", "")
FIELDS = ("ES", "SE", "LP", "AF", "SS", "NS", "EZ", "SI")
_FIXED = ("CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT")
_READ = ("CHROM", "POS", "ID", "REF", "ALT")
_P_WAS_ZERO = "999"
"""What gwas2vcf writes as -log10 of a p-value of 0."""


def open_gwas_vcf(path: Path, text: bytes) -> tuple[list[str], Callable[[list[str]], "DataFrame"]]:
    """Return the names of the columns of a GWAS-VCF, and a function that reads some of them.

    Parameters
    ----------
    path : Path
        For messages.
    text : bytes
        The whole file, not compressed.

    Raises
    ------
    FileFormatError
        It has no studies, or holds genotypes.
    """
    header, rows = _parts(text)
    names = header.decode().lstrip("#").rstrip("\n").split("\t")
    studies = names[len(_FIXED) :]
    if tuple(names[: len(_FIXED)]) != _FIXED or not studies:
        raise FileFormatError(f"{path} is a VCF without a column of a study.")
    described = set(re.findall(rb"^##FORMAT=<ID=(\w+),", _meta(text), re.MULTILINE))
    fields = [name for name in FIELDS if name.encode() in described]
    if not {"ES", "SE"} <= set(fields):
        raise FileFormatError(
            f"{path} is a VCF without the fields ES and SE: it holds genotypes, not summary "
            "statistics."
        )
    columns = [*_READ, *(f"{study}:{field}" for study in studies for field in fields)]
    return columns, lambda wanted: _read(path, rows, studies, wanted)


def is_gwas_vcf(path: Path) -> bool:
    """Tell by its header whether a text is a GWAS-VCF, not a VCF of genotypes or sites."""
    from plait.io.summary_statistics import read_bytes

    text = read_bytes(path, _HEADER_BYTES)
    return text.startswith(START) and re.search(rb"^##FORMAT=<ID=ES,", text, re.M) is not None


def build_of(text: bytes) -> str | None:
    """Return the genome build that the header of a VCF names, if it does."""
    found = re.search(rb"GRCh3[78]|hg19|hg38|human_g1k_v37", _meta(text), re.IGNORECASE)
    if found is None:
        return None
    return "GRCh37" if found[0].lower() in (b"grch37", b"hg19", b"human_g1k_v37") else "GRCh38"


def _meta(text: bytes) -> bytes:
    """Return the lines above that of the columns."""
    return text[: text.find(b"\n#CHROM") + 1]


def _parts(text: bytes) -> tuple[bytes, bytes]:
    """Return the line of the columns, and the rows below it."""
    start = text.find(b"\n#CHROM") + 1
    end = text.find(b"\n", start) + 1
    return (text[start:end], text[end:]) if start and end else (b"", b"")


def _read(path: Path, rows: bytes, studies: list[str], wanted: list[str]) -> "DataFrame":
    import polars as pl

    if not rows.strip():
        return pl.DataFrame({name: [] for name in wanted}, schema=dict.fromkeys(wanted, pl.String))
    asked = [name.rpartition(":")[::2] for name in wanted if name not in _READ]
    names = [name for name in (*_FIXED, *studies) if name in (*_READ, "FORMAT")]
    names += [study for study in studies if study in {study for study, _ in asked}]
    places = [[*_FIXED, *studies].index(name) for name in names]
    try:
        frame = pl.read_csv(
            io.BytesIO(rows),
            has_header=False,
            columns=places,
            infer_schema=False,
            separator="\t",
            quote_char=None,
        )
    except pl.exceptions.PolarsError as error:
        raise FileFormatError(f"{path} cannot be read as a VCF: {error}.") from None
    frame = frame.rename(dict(zip(frame.columns, names, strict=True)))
    columns = [frame[name] for name in wanted if name in _READ]
    columns += [_field(frame, *pair).alias(":".join(pair)) for pair in asked]
    table = pl.DataFrame(columns).with_columns(pl.all().replace(dict.fromkeys(MISSING)))
    # Several alternatives in one row have several effects, and the format gives each its own row.
    several = pl.col("ALT").str.contains(",")
    return table.filter(~several) if "ALT" in table.columns else table


def _field(frame: "DataFrame", study: str, field: str) -> "Series":
    """Return a field of a study as text; which place it has may change from row to row."""
    import polars as pl

    found: Any = pl.lit(None, dtype=pl.String)
    for order in frame["FORMAT"].unique().to_list():
        names = order.split(":")
        if field in names:
            cell = pl.col(study).str.split(":").list.get(names.index(field), null_on_oob=True)
            found = pl.when(pl.col("FORMAT") == order).then(cell).otherwise(found)
    # A field that the header declares and no row has is a column of nothing, as long as the others.
    values = frame.with_columns(found.alias(field))[field]
    return values.replace({_P_WAS_ZERO: None}) if field == "LP" else values
