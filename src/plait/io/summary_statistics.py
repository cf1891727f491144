"""Tables of summary statistics in any tool's columns, as text or Parquet."""

import gzip
import io
import logging
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.data.summary_statistics import SummaryStatistics, described, standard_build
from plait.data.variants import VariantTable
from plait.errors import FileFormatError, LabelError, OptionError, OutputError
from plait.io import gwas_vcf
from plait.io.atomic import check_writable, replace_file
from plait.io.dialects import find_contexts, find_roles, only_context
from plait.io.exchanged_files import require_summary_table
from plait.io.gwas_ssf_metadata import (
    ASSEMBLY,
    assembly_beside,
    assembly_metadata,
    metadata_path,
    stated_assembly,
)
from plait.io.summary_rows import harmonised, of_success, of_test

if TYPE_CHECKING:
    from polars import DataFrame, Expr, Series

_log = logging.getLogger("plait.io")

MISSING = ("", "NA", "NaN", "nan", ".", "null", "NULL", "None", "-", "#NA")
"""What may stand for a missing value."""
NUMBERS = frozenset(
    [
        "eaf", "beta", "se", "z", "t", "neg_log10_p", "log10p", "odds_ratio", "hazard_ratio",
        "ci_lower", "ci_upper", "n", "n_cases", "n_controls", "info",
    ]
)  # fmt: skip
TABLE_SUFFIXES = (".parquet", ".tsv", ".tsv.gz")
"""What `write_summary_statistics` writes."""
_NEEDED = ("chrom", "pos", "ea", "oa", "beta", "se")
_SNIFFED = 1 << 16
_HEADER_BYTES = 1 << 24
_BLANKS = re.compile(rb"[ \t]+")
_LETTERS = {"M": "MT", "x": "X", "y": "Y", "mt": "MT"}
_LETTERS |= dict.fromkeys(("XY", "PAR1", "PAR2"), "X")  # parts of X that Y shares
_OF_PLINK = {"23": "X", "24": "Y", "25": "X", "26": "MT"}  # 25 are those parts
_OF_GWAS_SSF = {"23": "X", "24": "Y", "25": "MT"}
_BEYOND_HUMAN = r"^(2[7-9]|[3-9]\d|\d{3,})$"


def read_summary_statistics(
    path: str | os.PathLike[str],
    dialect: str | None = None,
    columns: Mapping[str, str] | None = None,
    *,
    context: str | None = None,
    delimiter: str | None = None,
    test: str | None = "ADD",
    variants: VariantTable | None = None,
    trait: str | None = None,
    build: str | None = None,
    normalise_chromosomes: bool = True,
    bad_se: str = "drop",
    allow_standardised: bool = False,
) -> SummaryStatistics:
    """Read a table of summary statistics.

    Parameters
    ----------
    path : path
        Text separated by tabs, commas or blanks, compressed with gzip or not, GWAS-VCF, or Parquet.
    dialect : str, optional
        The tool that wrote it (`plait.io.dialects`); default: found by the names of the columns.
    columns : mapping of role to column, optional
        What the columns are, for example ``{"ea": "A1", "oa": "A2", "beta": "b", "se": "se"}``.
    context : str, optional
        Which population, method or study, where the table holds several side by side
        (`read_summary_contexts` reads all of them).
    delimiter : str, optional
        The character between columns; default: the one that the header and the rows agree on.
    test : str, optional
        Which rows to keep where there is a column of tests; None keeps all.
    variants : VariantTable, optional
        Where to find positions and alleles that the table lacks, by id: the .bim of PLINK 1.9.
        Effect alleles are taken from it only when ``dialect`` is given, because PLINK 1.9 may
        have exchanged the alleles of the .bim.
    trait : str, optional
        Name of the trait or context. Default: what the table says, else its context.
    build : str, optional
        Genome build of the positions, see `plait.data.summary_statistics.standard_build`.
        Default: what a GWAS-VCF, Parquet that plait wrote, or metadata beside the table state.
    normalise_chromosomes : bool
        Whether ``chr1`` and ``01`` become ``1``, 23 ``X`` and 24 ``Y``; in GWAS-SSF 25 ``MT``,
        elsewhere, as in PLINK, 25 and ``XY`` ``X`` and 26 ``MT`` (see `chromosome_names`).
    bad_se : {"drop", "error"}
        What happens to rows without a usable standard error.
    allow_standardised : bool
        Whether effects on a standardised phenotype may be made of z, frequency and n.

    Returns
    -------
    SummaryStatistics

    Raises
    ------
    FileFormatError
        The file is no table, or a cell is not a number where one is expected.
    UnknownDialectError, AmbiguousAlleleColumnsError
        It is not clear what the columns are.
    OptionError
        There is no such build.

    Notes
    -----
    What was derived, filtered and left out is logged on ``plait.io``. Rows that the tool itself
    marks as failed are left out and counted: ERRCODE of PLINK 2, EXTRA=TEST_FAIL of REGENIE,
    CONVERGE=0 of fastGWA-GLMM, Is.SPA.converge of SAIGE before 1.0. Rows of low confidence
    (``low_confidence_variant`` of the Neale lab, ``low_confidence_*`` of Pan-UKB) are kept and
    counted in a warning. Text is held in memory once
    (about its uncompressed size); the columns that are not used are never parsed.
    """
    path = Path(path)
    require_summary_table(path)
    return _read(
        path,
        _open(path, delimiter),
        dialect,
        columns,
        context=context,
        test=test,
        variants=variants,
        trait=trait,
        build=build,
        normalise_chromosomes=normalise_chromosomes,
        bad_se=bad_se,
        allow_standardised=allow_standardised,
    )


def _read(
    path: Path,
    opened: tuple[list[str], Any, str | None],
    dialect: str | None,
    columns: Mapping[str, str] | None = None,
    *,
    context: str | None = None,
    test: str | None = "ADD",
    variants: VariantTable | None = None,
    trait: str | None = None,
    build: str | None = None,
    normalise_chromosomes: bool = True,
    bad_se: str = "drop",
    allow_standardised: bool = False,
) -> SummaryStatistics:
    """Read a table that was opened; see `read_summary_statistics`."""
    header, load, stated = opened
    build = standard_build(build) or stated or assembly_beside(path)
    found, roles = find_roles(header, dialect, columns, str(path), context)
    _log.info("%s: dialect %s, columns %s", path, found, roles)
    raw = load(list(dict.fromkeys(roles.values())))
    frame = raw.select(raw[column].alias(role) for role, column in roles.items())
    frame = _with_numbers(frame, path, roles)
    frame, failed = of_success(harmonised(of_test(frame, test, path), path), path)
    frame = _with_alleles(frame, path)
    if "chrom" in frame.columns and normalise_chromosomes:
        frame = frame.with_columns(chromosome_names(frame["chrom"], found == "gwas-ssf"))
    if variants is not None:
        frame = _completed(frame, variants, normalise_chromosomes, dialect is not None)
    table = SummaryStatistics.from_frame(
        frame,
        build=build,
        trait=trait or context or only_context(header, found),
        file=os.path.realpath(path),
        bad_se=bad_se,
        allow_standardised=allow_standardised,
    )
    return replace(table, counts={"failed": failed, **table.counts}) if failed else table


def read_summary_contexts(
    path: str | os.PathLike[str],
    dialect: str | None = None,
    *,
    delimiter: str | None = None,
    **options: Any,
) -> dict[str, SummaryStatistics]:
    """Read all contexts of a table that holds several side by side.

    Parameters
    ----------
    path : path
        What ``plait gwas scan`` wrote (a context for each trait), a GWAS-VCF (for each study), or
        a table with columns for each population (Pan-UKB) or method (PANICLE). Meta-analyses of
        the others are left out; they are read by their name with `read_summary_statistics`.
    dialect, delimiter, **options
        Of `read_summary_statistics`.

    Returns
    -------
    dict of str to SummaryStatistics
        By the name of the context, in the order of the table.

    Raises
    ------
    OptionError
        The table is of one context.
    """
    path = Path(path)
    require_summary_table(path)
    opened = _open(path, delimiter)
    names = find_contexts(opened[0], dialect, str(path))
    if not names:
        raise OptionError(f"{path} holds one context only.")
    return {name: _read(path, opened, dialect, context=name, **options) for name in names}


def write_summary_statistics(
    table: SummaryStatistics,
    path: str | os.PathLike[str],
    *,
    extra: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a table with the house's columns, which `read_summary_statistics` reads by itself.

    Parameters
    ----------
    table : SummaryStatistics
        Columns of which nothing is known are left out.
    path : path
        Ends in .parquet, .tsv or .tsv.gz. Text writes every number so that it is read back as it
        is, and ``NA`` where nothing is known. The genome build, where it is known, is in the
        metadata of Parquet, and beside text in ``NAME-meta.yaml``, as GWAS-SSF has it.
    extra : mapping of name to (M,) array, optional
        Columns to write after the house's; they are not read again.
    overwrite : bool

    Raises
    ------
    OutputError
        The name ends in something else, or a file exists or cannot be written.
    """
    import polars as pl

    place = Path(path)
    if not place.name.endswith(TABLE_SUFFIXES):
        raise OutputError(f"{place}: the output must end in {' or '.join(TABLE_SUFFIXES)}.")
    frame = table.frame.with_columns(pl.selectors.float().fill_nan(None))
    known = [name for name in frame.columns if frame[name].null_count() < frame.height]
    frame = frame.select(name for name in frame.columns if name in known or name in _NEEDED)
    frame = frame.with_columns(pl.Series(name, values) for name, values in (extra or {}).items())
    if place.suffix == ".parquet":
        stated = None if table.build is None else {ASSEMBLY: table.build}
        with replace_file(place, overwrite) as temporary:
            frame.write_parquet(temporary, compression="zstd", metadata=stated)
        return
    about = metadata_path(place)
    with ExitStack() as files:
        temporary = files.enter_context(replace_file(place, overwrite))
        if table.build is not None:
            told = files.enter_context(replace_file(about, overwrite))
            told.write_text(assembly_metadata(table.build, place.name), encoding="utf-8")
        else:
            check_writable(about, overwrite)
        text = frame.write_csv(separator="\t", null_value="NA", line_terminator="\n").encode()
        # No name and no time in the header: the same table gives the same bytes.
        temporary.write_bytes(gzip.compress(text, mtime=0) if place.suffix == ".gz" else text)
    if table.build is None:  # what stands there is said of the table that was there before
        about.unlink(missing_ok=True)


def chromosome_names(names: "Series", of_gwas_ssf: bool = False) -> "Series":
    """Return chromosome labels without ``chr`` and leading zeros, X, Y and MT by their letters.

    Parameters
    ----------
    names : polars.Series of str
    of_gwas_ssf : bool
        Whether numbers are those of GWAS-SSF: 23 X, 24 Y, 25 MT. Else they are PLINK's, which the
        other tools share: 23 X, 24 Y, 25 (also XY) the parts of X that Y shares, which are X here,
        26 MT.

    Notes
    -----
    Where there are chromosomes above 26 numbers are numbers: the species has that many.
    """
    bare = names.str.replace(r"^(?i:chr)", "").str.replace(r"^0+([0-9])", "$1")
    if bare.unique().str.contains(_BEYOND_HUMAN).any():
        return bare.replace(_LETTERS)
    return bare.replace(_LETTERS | (_OF_GWAS_SSF if of_gwas_ssf else _OF_PLINK))


def read_table(
    path: Path,
    wanted: Sequence[str] | None = None,
    delimiter: str | None = None,
    missing: Sequence[str] = MISSING,
) -> "DataFrame":
    """Read columns of a delimited text as text, or of Parquet by their types."""
    header, load, _ = _open(path, delimiter, missing=missing)
    frame: DataFrame = load(list(header if wanted is None else wanted))
    return frame


def header_of(path: Path) -> list[str]:
    """Return the names of the columns of a delimited text or Parquet file, from its beginning."""
    require_summary_table(path)
    return _open(path, None, _HEADER_BYTES)[0]


def require_file(path: Path) -> None:
    """Raise a FileFormatError unless there is such a file; name the table in a scan's folder."""
    if path.is_dir():
        table = next((file for file in sorted(path.glob("associations.*")) if file.is_file()), None)
        wanted = "a table" if table is None else f"the table in it, {table}"
        raise FileFormatError(f"{path} is a folder; give {wanted}.")
    if not path.is_file():
        raise FileFormatError(f"{path}: there is no such file.")


def _open(
    path: Path, delimiter: str | None, limit: int = -1, missing: Sequence[str] = MISSING
) -> tuple[list[str], Any, str | None]:
    """Return the names of the columns, a function that reads some, and the build if it is said.

    With a limit no more bytes of text than that are read.
    """
    import polars as pl

    require_file(path)
    if path.suffix in (".parquet", ".pq"):

        def columns(wanted: list[str]) -> "DataFrame":
            texts = pl.col(pl.String).replace(dict.fromkeys(missing))
            return pl.read_parquet(path, columns=wanted).with_columns(texts)

        stated = stated_assembly(pl.read_parquet_metadata(path).get(ASSEMBLY), path)
        return list(pl.read_parquet_schema(path)), columns, stated
    text = read_bytes(path, limit)
    if text.startswith(gwas_vcf.START):
        return *gwas_vcf.open_gwas_vcf(path, text), gwas_vcf.build_of(text)
    start, first = _header_line(path, text)
    separator = delimiter or sniff_delimiter(first, text[start : start + _SNIFFED])
    body = text[start:]
    if separator == " " and (b"  " in body[:_SNIFFED] or body[:1] == b" " or b" \n" in body):
        # Padded columns: one tab instead of every run of blanks, none at the ends.
        body = b"\n".join(_BLANKS.sub(b"\t", line.strip()) for line in body.splitlines())
        separator = "\t"
        first = body.split(b"\n", 1)[0]
    try:
        cells = first.decode().split(separator)
    except UnicodeDecodeError:
        raise FileFormatError(
            f"{path} is no text, and its name does not end in .parquet."
        ) from None
    header = [cell.strip().strip('"') for cell in cells]
    header[0] = header[0].lstrip("#")
    if len(set(header)) < len(header):
        twice = sorted({name for name in header if header.count(name) > 1})
        raise LabelError(f"{path} has several columns called {', '.join(twice)}.")
    rows = body.partition(b"\n")[2]
    has_comments = start > 0 or rows[-4096:].find(b"\n# ") >= 0

    def load(wanted: list[str]) -> "DataFrame":
        _check_widths(path, rows, separator, len(header), has_comments)
        return _parse(path, rows, separator, header, wanted, has_comments, missing)

    return header, load, None


def read_bytes(path: Path, limit: int = -1) -> bytes:
    """Return the bytes of a file, or so many of them, unpacked if it is compressed with gzip."""
    with path.open("rb") as stream:
        is_compressed = stream.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if is_compressed else path.open("rb") as stream:
            raw = stream.read(limit)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FileFormatError(f"{path} is damaged or cut short: {error}.") from None
    return raw.replace(b"\r\n", b"\n") if b"\r\n" in raw[:_SNIFFED] else raw


def _header_line(path: Path, text: bytes) -> tuple[int, bytes]:
    """Return where the header begins and the header: the first line that is no comment."""
    start = 0
    while start < len(text):
        end = text.find(b"\n", start)
        end = len(text) if end < 0 else end
        line = text[start:end]
        if line.strip() and not re.match(rb"##|#\s|#$", line):
            return start, line
        start = end + 1
    raise FileFormatError(f"{path} is empty.")


def sniff_delimiter(first: bytes, sample: bytes) -> str:
    """Return the delimiter of a header: tab, comma, else blanks."""
    for candidate in ("\t", ","):
        if candidate.encode() in first:
            return candidate
    return " " if b" " in first.strip() or b" " in sample else "\t"


def _check_widths(path: Path, rows: bytes, separator: str, width: int, has_comments: bool) -> None:
    """Refuse rows of another width: their cells would be taken for those of another column."""
    if b'"' in rows or has_comments:
        lines = rows[:_SNIFFED].split(b"\n")[:-1]
    else:
        n_rows = rows.count(b"\n") + (not rows.endswith(b"\n") and bool(rows))
        if rows.count(separator.encode()) == n_rows * (width - 1):
            return
        lines = rows.split(b"\n")
    for number, line in enumerate(lines, start=2):
        cells = line.count(separator.encode()) + 1
        if line.strip() and b'"' not in line and not line.startswith(b"#") and cells != width:
            raise FileFormatError(
                f"{path}: row {number} below the comments has {cells} cells and the header "
                f"{width}. Its values would be read as those of other columns."
            )


def _parse(
    path: Path,
    rows: bytes,
    separator: str,
    header: list[str],
    wanted: list[str],
    comments: bool,
    missing: Sequence[str],
) -> "DataFrame":
    import polars as pl

    if not rows.strip():
        return pl.DataFrame({name: [] for name in wanted}, schema=dict.fromkeys(wanted, pl.String))
    # By position: the names that Polars makes for columns differ between its versions.
    places = [i for i, name in enumerate(header) if name in wanted]
    try:
        frame = pl.read_csv(
            io.BytesIO(rows),
            has_header=False,
            columns=places,
            infer_schema=False,
            separator=separator,
            null_values=list(missing),
            comment_prefix="# " if comments else None,
            quote_char='"' if b'"' in rows else None,
        )
    except pl.exceptions.PolarsError as error:
        raise FileFormatError(f"{path} cannot be read as a table: {error}.") from None
    return frame.rename(dict(zip(frame.columns, [header[i] for i in places], strict=True)))


def _with_numbers(frame: "DataFrame", path: Path, roles: Mapping[str, str]) -> "DataFrame":
    """Return the frame with numbers where numbers are expected; p stays text."""
    import polars as pl

    columns: list[Any] = []
    for role in frame.columns:
        values = frame[role]
        if role in NUMBERS or role == "pos":
            numbers = to_numbers(values, f"{path}: column {roles.get(role, role)!r}")
            columns.append(_as_positions(numbers, path) if role == "pos" else numbers)
        elif role == "p":
            to_numbers(values, f"{path}: column {roles.get(role, role)!r}")
            columns.append(values)
        else:
            columns.append(values.cast(pl.String))
    frame = pl.DataFrame(columns)
    if "neg_log10_p" in frame.columns:
        frame = _signed_log10_p(frame, path)
    if {"n_cases", "n_controls"} & set(frame.columns):
        if "n" not in frame.columns and {"n_cases", "n_controls"} <= set(frame.columns):
            frame = frame.with_columns(n=pl.col("n_cases") + pl.col("n_controls"))
        frame = frame.drop("n_cases", "n_controls", strict=False)
    return frame


def to_numbers(values: "Series", where: str) -> "Series":
    """Return a column as doubles; text that is no number is an error that names its row."""
    import polars as pl

    if values.dtype != pl.String:
        return values.cast(pl.Float64)
    numbers = values.str.strip_chars().cast(pl.Float64, strict=False)
    bad = (numbers.is_null() & values.is_not_null()).to_numpy()
    if bad.any():
        row = int(bad.argmax())
        raise FileFormatError(
            f"{where} has {values[row]!r} in row {row + 1:,} of the data, where a number is "
            f"expected ({int(bad.sum()):,} such cells). Missing values are written "
            f"{', '.join(repr(text) for text in MISSING if text)} or left empty."
        )
    return numbers


def _as_positions(numbers: "Series", path: Path) -> "Series":
    import polars as pl

    whole = numbers.cast(pl.Int64, strict=False)
    bad = ((whole.cast(pl.Float64) != numbers).fill_null(False)).to_numpy()
    if bad.any():
        raise FileFormatError(f"{path}: {numbers[int(bad.argmax())]} is not a position.")
    return whole


def _signed_log10_p(frame: "DataFrame", path: Path) -> "DataFrame":
    """Take -log10 p for what it is, or for log10 p where no value is positive."""
    import polars as pl

    values = frame["neg_log10_p"].fill_nan(None)
    if (values < 0).any():
        if (values > 0).any():
            raise FileFormatError(f"{path}: the column of -log10 p has values of both signs.")
        _log.info("%s: all values of -log10 p are negative; taken for log10 p", path)
        values = -values
    log10p = (0.0 - values).alias("log10p")
    frame = frame.drop("neg_log10_p").with_columns(log10p)
    if "p" in frame.columns:  # the logarithm says more
        frame = frame.with_columns(p=pl.when(log10p.is_null()).then("p"))
    return frame


def _with_alleles(frame: "DataFrame", path: Path) -> "DataFrame":
    """Make the other allele of ref and alt, and all of chr:pos:ref:alt."""
    import polars as pl

    if "variant" in frame.columns:
        parts = frame["variant"].str.extract_groups(r"^([^:_]+)[:_](\d+)[:_]([^:_]+)[:_]([^:_]+)")
        named = parts.struct.rename_fields(["chrom", "pos", "oa", "ea"]).struct.unnest()
        new = [name for name in named.columns if name not in frame.columns]
        frame = frame.with_columns(named.with_columns(pl.col("pos").cast(pl.Int64))[new])
        frame = frame.rename({"variant": "id"}) if "id" not in frame.columns else frame
        frame = frame.drop("variant", strict=False)
    if {"ref", "alt"} <= set(frame.columns):
        ea, ref, alt = (pl.col(name).str.to_uppercase() for name in ("ea", "ref", "alt"))
        # With several alternatives in one cell, the other allele is not one allele.
        other: Expr = pl.when(ea == ref).then(alt).when(ea == alt).then(ref)
        other = pl.when(other.str.contains(",")).then(None).otherwise(other)
        given = pl.col("oa") if "oa" in frame.columns else pl.lit(None, dtype=pl.String)
        frame = frame.with_columns(oa=pl.coalesce(given, other))
        lost = frame["oa"].is_null().to_numpy()
        if lost.any():
            _log.warning("%s: no single other allele in %s", path, described(frame, lost))
    return frame.drop("ref", "alt", strict=False)


def _completed(
    frame: "DataFrame", variants: VariantTable, normalise: bool, name_effect_alleles: bool
) -> "DataFrame":
    """Fill in positions and alleles by id, from variants that have it once."""
    import polars as pl

    if "id" not in frame.columns:
        raise LabelError("variants are found by id, and the table has no column of ids.")
    source = variants.frame.select("id", "chrom", "pos", "ea", "oa").filter(
        pl.col("id").is_unique()
    )
    if normalise:
        source = source.with_columns(chromosome_names(source["chrom"]))
    joined = frame.join(
        source.rename(lambda name: name if name == "id" else f"{name}_"),
        on="id",
        how="left",
        maintain_order="left",
    )
    found = joined["chrom_"].is_not_null().to_numpy()
    if not found.all():
        _log.warning("ids of %s are not among the variants", described(frame, ~found))
    if "ea" not in frame.columns:
        _log.warning(
            "%s: PLINK 1.9 makes the minor allele the effect allele, whatever the .bim says, "
            "unless it ran with --keep-allele-order or wrote that .bim itself",
            "effect alleles are the variants'" if name_effect_alleles else "no effect alleles",
        )
    names = ["chrom", "pos", *(["ea"] if name_effect_alleles or "ea" in frame.columns else [])]
    for name in names:
        given = pl.col(name) if name in frame.columns else pl.lit(None)
        joined = joined.with_columns(pl.coalesce(given, pl.col(f"{name}_")).alias(name))
    if "ea" not in joined.columns:
        joined = joined.with_columns(ea=pl.lit(None, dtype=pl.String))
    ea = pl.col("ea").str.to_uppercase()
    first, second = (pl.col(name).str.to_uppercase() for name in ("ea_", "oa_"))
    other = pl.when(ea == first).then(second).when(ea == second).then(first)
    given = pl.col("oa") if "oa" in frame.columns else pl.lit(None, dtype=pl.String)
    joined = joined.with_columns(oa=pl.coalesce(given, other))
    differs = found & joined["oa"].is_null().to_numpy()
    if differs.any():
        _log.warning("alleles differ from the variants' in %s", described(joined, differs))
    return joined.drop("chrom_", "pos_", "ea_", "oa_")
