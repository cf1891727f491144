"""GWAS-SSF v1.0, the format of the GWAS Catalog: a table and its metadata beside it."""

import gzip
import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.data.summary_statistics import SummaryStatistics, described
from plait.errors import FileFormatError, InputError, OptionError, ShapeError
from plait.io.atomic import replace_file
from plait.io.gwas_ssf_metadata import (
    FILE_TYPE,
    HM_CODES,
    completed,
    metadata_path,
    metadata_problems,
    read_gwas_ssf_metadata,
    unknown_keys,
)
from plait.io.metadata_yaml import write_yaml
from plait.io.summary_statistics import header_of, read_summary_statistics, read_table

if TYPE_CHECKING:
    from polars import DataFrame, Expr, Series

_log = logging.getLogger("plait.io")

MANDATORY = (
    "chromosome", "base_pair_location", "effect_allele", "other_allele", "effect",
    "standard_error", "effect_allele_frequency", "p",
)  # fmt: skip
_EFFECTS = ("beta", "odds_ratio", "hazard_ratio")
_P_VALUES = ("p_value", "neg_log_10_p_value")
_UNHELD = (
    "another chromosome than 1 to 22, X, Y and MT, no position, or other letters than A, C, G and T"
)
_CATALOGUE_ROWS = 100_000
_SMALLEST = -300.0
_NUMBERS = {str(number): number for number in range(1, 25)} | {"X": 23, "Y": 24, "MT": 25}
_VARIANT_ID = r"^\w+_\d+_[ACGT]+_[ACGT]+$"
_RSID = r"^rs\d+$"
_ALLELE = r"^([ACGT]+|LONG_STRING)$"
_MISSING = ("#NA", "NA")


@dataclass(frozen=True)
class GwasSsfFindings:
    """What is wrong with a file.

    Attributes
    ----------
    errors : tuple of str
        Against the standard.
    warnings : tuple of str
        The standard allows it and the catalogue would refuse it.
    """

    errors: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def valid(self) -> bool:
        """Whether the file keeps to the standard."""
        return not self.errors


def read_gwas_ssf(path: str | os.PathLike[str], **options: Any) -> SummaryStatistics:
    """Read a table and, where they are, its genome build and trait from its metadata.

    Parameters
    ----------
    path : path
        The ``.tsv`` or ``.tsv.gz``.
    **options
        Of `read_summary_statistics`.

    Returns
    -------
    SummaryStatistics
    """
    if metadata_path(path).is_file():
        about = read_gwas_ssf_metadata(path)
        traits = about.get("trait_description") or []
        traits = traits if isinstance(traits, list) else [traits]
        if "trait" not in options and traits:
            options["trait"] = ", ".join(map(str, traits))
    elif options.get("build") is None:
        _log.warning("%s has no metadata beside it: the genome build is not known", path)
    return read_summary_statistics(path, dialect="gwas-ssf", **options)


def write_gwas_ssf(
    table: SummaryStatistics,
    path: str | os.PathLike[str],
    metadata: Mapping[str, Any] | None = None,
    *,
    p: str = "auto",
    hm_code: ArrayLike | None = None,
    overwrite: bool = False,
) -> None:
    """Write a table and its metadata.

    Parameters
    ----------
    table : SummaryStatistics
        With effects, positions and alleles in every row (`expressible_rows` tells which the
        standard can hold). Rows are written in their order.
    path : path
        ``NAME.tsv`` or ``NAME.tsv.gz``; the metadata go to ``NAME.tsv[.gz]-meta.yaml``.
    metadata : mapping, optional
        Keys of the standard. What the table tells (assembly, trait, the size of one sample, order,
        name, checksum, date) need not be given.
    p : {"auto", "p_value", "neg_log_10_p_value"}
        How p is written; by default as -log10 p where a double cannot hold it.
    hm_code : (M,) array of int, optional
        For a table that was harmonised, what happened to each row
        (`plait.gwas.harmonisation.Harmonised.hm_code`).
    overwrite : bool

    Raises
    ------
    OptionError, ShapeError
        ``p`` is unknown, or there is not one ``hm_code`` for each row.
    InputError
        A row lacks what the standard demands, or metadata are missing.
    OutputError
        A file exists or cannot be written.
    """
    path = Path(path)
    if p not in ("auto", *_P_VALUES):
        raise OptionError(f"p is {p!r}; give 'auto', 'p_value' or 'neg_log_10_p_value'.")
    if not path.name.endswith((".tsv", ".tsv.gz")):
        raise InputError(f"{path}: a GWAS-SSF file is called NAME.tsv or NAME.tsv.gz.")
    frame = _to_columns(table, p)
    if hm_code is not None:
        codes = np.asarray(hm_code)
        if codes.shape != (len(table),):
            raise ShapeError(f"hm_code has shape {codes.shape}; the table has {len(table):,} rows.")
        frame = frame.with_columns(hm_code=codes)
    text = frame.write_csv(separator="\t", null_value="#NA", line_terminator="\n").encode()
    # No name and no time in the header: the same table gives the same bytes.
    data = gzip.compress(text, mtime=0) if path.suffix == ".gz" else text
    about = _metadata_of(table, frame, metadata or {})
    if hm_code is not None:
        about |= {"is_harmonised": True, "hm_code_definition": HM_CODES}
    about["data_file_name"] = path.name
    about["data_file_md5sum"] = hashlib.md5(data, usedforsecurity=False).hexdigest()
    problems = metadata_problems(about)
    if problems:
        raise InputError(
            f"metadata of {path.name}: {'; '.join(problems)}. Give metadata=... with them."
        )
    with (
        replace_file(path, overwrite) as table_place,
        replace_file(metadata_path(path), overwrite) as metadata_place,
    ):
        table_place.write_bytes(data)
        metadata_place.write_text(write_yaml(about), encoding="utf-8")


def fits_gwas_ssf(frame: "DataFrame") -> "Series":
    """Tell which rows have a chromosome, a position and alleles that the standard can hold.

    Parameters
    ----------
    frame : polars.DataFrame
        With ``chrom`` (see `plait.io.summary_statistics.chromosome_names`), ``pos``, ``ea`` and
        ``oa``.
    """
    placed = _chromosome_numbers(frame["chrom"]).is_not_null() & frame["pos"].is_not_null()
    alleles = [frame[name].str.contains(_ALLELE).fill_null(False) for name in ("ea", "oa")]
    return (placed & alleles[0] & alleles[1]).alias("fits")


def expressible_rows(frame: "DataFrame", what: str) -> NDArray[np.bool_]:
    """Tell which rows the standard can hold, and log how many it cannot.

    Parameters
    ----------
    frame : polars.DataFrame
        See `fits_gwas_ssf`.
    what : str
        What the rows are, for messages.

    Returns
    -------
    (rows,) bool array

    Raises
    ------
    InputError
        It can hold none of them.
    """
    fits: NDArray[np.bool_] = fits_gwas_ssf(frame).to_numpy()
    if len(frame) and not fits.any():
        raise InputError(f"GWAS-SSF can hold none of {what}: {_UNHELD}.")
    if not fits.all():
        _log.warning("GWAS-SSF cannot hold %s (%s); left out", described(frame, ~fits), _UNHELD)
    return fits


def _chromosome_numbers(names: "Series") -> "Series":
    import polars as pl

    return names.replace_strict(_NUMBERS, default=None, return_dtype=pl.Int64)


def _require_standard(frame: "DataFrame") -> None:
    """Refuse rows that the standard cannot hold, saying why."""
    outside = _chromosome_numbers(frame["chrom"]).is_null()
    if outside.any():
        odd = frame["chrom"].filter(outside).unique().sort()
        raise InputError(f"GWAS-SSF has chromosomes 1 to 22, X, Y and MT, not {odd.to_list()[:5]}.")
    for name in ("pos", "ea", "oa"):
        if frame[name].has_nulls():
            raise InputError(
                f"GWAS-SSF needs {name} in every row; {frame[name].null_count()} lack it."
            )
    bad = ~fits_gwas_ssf(frame).to_numpy()
    if bad.any():
        raise InputError(
            f"GWAS-SSF has alleles of the letters A, C, G and T, not those of "
            f"{described(frame, bad)}."
        )


def _to_columns(table: SummaryStatistics, p: str) -> "DataFrame":
    import polars as pl

    if not table.has_effects:
        raise InputError("GWAS-SSF needs effects with standard errors; this table has z only.")
    frame = table.frame
    _require_standard(frame)
    log10p = frame["log10p"].fill_nan(None)
    if log10p.has_nulls():
        raise InputError("GWAS-SSF needs p in every row.")
    as_logs = p == "neg_log_10_p_value" or (p == "auto" and (log10p < _SMALLEST).any())
    columns = [
        _chromosome_numbers(frame["chrom"]).alias("chromosome"),
        frame["pos"].alias("base_pair_location"),
        frame["ea"].alias("effect_allele"),
        frame["oa"].alias("other_allele"),
        frame["beta"],
        frame["se"].alias("standard_error"),
        frame["eaf"].alias("effect_allele_frequency"),
        (0.0 - log10p).alias("neg_log_10_p_value")
        if as_logs
        # What was read as 0.69 is not to be written as 0.6899999999999999.
        else pl.Series("p_value", 10.0 ** log10p.to_numpy()).round_sig_figs(15),
    ]
    for name, values in _further_columns(frame).items():
        if values.null_count() < len(values):
            columns.append(values.alias(name))
    return pl.DataFrame(columns).with_columns(pl.selectors.float().fill_nan(None))


def _further_columns(frame: "DataFrame") -> dict[str, "Series"]:
    """Return what the standard encourages, by its names; ids that are rs numbers as these."""
    import polars as pl

    ids, rsid = frame["id"], frame["rsid"]
    numbered = ids.str.contains(_RSID).fill_null(False)
    if rsid.null_count() == len(rsid):
        rsid = frame.select(pl.when(numbered).then("id"))["id"]
        ids = ids.clear(len(ids)) if numbered.all() else ids
    named = "variant_id" if ids.drop_nulls().str.contains(_VARIANT_ID).all() else "id"
    n = frame["n"].fill_nan(None)
    whole = (n == n.round()).all()
    return {
        named: ids,
        "rsid": rsid,
        "info": frame["info"].fill_nan(None),
        "n": n.cast(pl.Int64) if whole else n,
    }


def _metadata_of(
    table: SummaryStatistics, frame: "DataFrame", given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the metadata in the order of the standard, with what the table tells filled in."""
    if unknown := unknown_keys(given):
        _log.warning("metadata: not keys of GWAS-SSF, written as they are: %s", ", ".join(unknown))
    traits = table.frame["trait"].drop_nulls().unique().sort().to_list()
    n = table.column("n")
    told = {
        "genome_assembly": table.build,
        "coordinate_system": "1-based",
        "trait_description": traits or None,
        "is_sorted": _is_sorted(frame),
        "is_harmonised": False,
        "file_type": FILE_TYPE,
        "date_metadata_last_modified": datetime.now(UTC).date().isoformat(),
    }
    return completed(given, told, int(np.nanmax(n)) if np.isfinite(n).any() else None)


def _is_sorted(frame: "DataFrame") -> bool:
    ordered = frame.select("chromosome", "base_pair_location")
    return ordered.equals(ordered.sort("chromosome", "base_pair_location"))


def validate_gwas_ssf(path: str | os.PathLike[str]) -> GwasSsfFindings:
    """Check a file and its metadata against the standard.

    Parameters
    ----------
    path : path
        The ``.tsv`` or ``.tsv.gz``.

    Returns
    -------
    GwasSsfFindings
        Errors against the standard, and warnings about what the catalogue refuses besides: fewer
        than 100 000 rows, and autosomes that are absent.
    """
    path = Path(path)
    warnings: list[str] = []
    errors: list[str] = []
    if not path.name.endswith((".tsv", ".tsv.gz")):
        errors.append("the name does not end in .tsv or .tsv.gz")
    try:
        header = header_of(path)
        errors += _header_problems(header)
        frame = _cells(path)
    except FileFormatError as error:
        return GwasSsfFindings((*errors, str(error)), ())
    about: dict[str, Any] = {}
    try:
        about = read_gwas_ssf_metadata(path)
        errors += [f"metadata: {problem}" for problem in metadata_problems(about)]
        found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        if about.get("data_file_md5sum") not in (None, found):
            errors.append(f"metadata: data_file_md5sum is not that of the file ({found})")
        if about.get("data_file_name") not in (None, path.name):
            warnings.append(f"metadata: data_file_name is {about['data_file_name']}")
        if about.get("is_sorted") is True and not _is_sorted_text(frame):
            errors.append("metadata: is_sorted is true, and the rows are not in order")
    except FileFormatError as error:
        errors.append(str(error))
    errors += _cell_problems(frame, bool(about.get("analysis_software")))
    warnings += _refusals(frame)
    return GwasSsfFindings(tuple(errors), tuple(warnings))


def _cells(path: Path) -> "DataFrame":
    """Return all cells as text, null where the standard's word for missing stands."""
    import polars as pl

    frame = read_table(path, delimiter="\t", missing=())
    # A cell without anything in it is none of these words.
    return frame.with_columns(pl.all().fill_null("").replace(dict.fromkeys(_MISSING)))


def _refusals(frame: "DataFrame") -> list[str]:
    """Return what the standard allows and the catalogue's validator does not."""
    found = []
    refused = "would be refused by the catalogue: "
    if frame.height < _CATALOGUE_ROWS:
        found.append(f"{refused}{frame.height:,} rows, at least {_CATALOGUE_ROWS:,} are wanted")
    if "chromosome" in frame.columns:
        present = set(frame["chromosome"].drop_nulls().unique().to_list())
        absent = [str(number) for number in range(1, 23) if str(number) not in present]
        if absent and present != {"23"}:
            found.append(f"{refused}no variants on chromosomes {', '.join(absent)}")
    needed = (*_EFFECTS, "standard_error", "effect_allele_frequency")
    missing = {name: frame[name].null_count() for name in needed if name in frame.columns}
    return found + [
        f"{refused}{name} is missing in {count:,} rows" for name, count in missing.items() if count
    ]


def _is_sorted_text(frame: "DataFrame") -> bool:
    import polars as pl

    names = ("chromosome", "base_pair_location")
    if not set(names) <= set(frame.columns):
        return True  # that they are absent is said already
    return _is_sorted(frame.select(pl.col(name).cast(pl.Int64, strict=False) for name in names))


def _header_problems(header: list[str]) -> list[str]:
    problems = []
    for place, name in enumerate(MANDATORY):
        allowed = {"effect": _EFFECTS, "p": _P_VALUES}.get(name, (name,))
        found = header[place] if place < len(header) else "nothing"
        if found not in allowed:
            problems.append(f"column {place + 1} is {found}, not {' or '.join(allowed)}")
    several = [name for name in _EFFECTS if name in header]
    if len(several) > 1:
        problems.append(f"there is one effect column, not {' and '.join(several)}")
    return problems


def _cell_problems(frame: "DataFrame", zero_allowed: bool) -> list[str]:
    """Check every cell of the columns that the standard describes."""
    import polars as pl

    def number(name: str) -> "Expr":
        return pl.col(name).cast(pl.Float64, strict=False)

    unit = "is not a number from 0 to 1"
    rules: dict[str, tuple[Expr, str, bool]] = {}  # what is right, what is said, null allowed
    text = pl.col
    rules["chromosome"] = (
        text("chromosome").str.contains(r"^([1-9]|1\d|2[0-5])$"), "is not 1 to 25", False
    )  # fmt: skip
    rules["base_pair_location"] = (
        text("base_pair_location").str.contains(r"^\d+$"), "is not a whole number", False
    )  # fmt: skip
    for name in ("effect_allele", "other_allele"):
        rules[name] = (text(name).str.contains(_ALLELE), "is not ACGT", False)
    rules["beta"] = (number("beta").is_finite(), "is not a number", True)
    for name in ("odds_ratio", "hazard_ratio"):
        rules[name] = (number(name) >= 0, "is not a number from 0", True)
    rules["standard_error"] = (number("standard_error").is_finite(), "is not a number", True)
    for name in ("effect_allele_frequency", "info"):
        rules[name] = (number(name).is_between(0, 1), unit, True)
    lower = number("p_value") >= 0 if zero_allowed else _above_zero("p_value")
    zero = "" if zero_allowed else " (0 only with analysis_software in the metadata)"
    rules["p_value"] = (lower & (number("p_value") <= 1), f"{unit}{zero}", False)
    rules["neg_log_10_p_value"] = (number("neg_log_10_p_value") >= 0, "is not from 0", False)
    for name in ("ci_upper", "ci_lower"):
        rules[name] = (number(name).is_finite(), "is not a number", True)
    rules["rsid"] = (text("rsid").str.contains(_RSID), "is not rs and digits", True)
    rules["variant_id"] = (
        text("variant_id").str.contains(r"^[A-Za-z0-9_]+$"), "is not chr_pos_ref_alt", True
    )  # fmt: skip
    rules["hm_code"] = (
        text("hm_code").str.contains(r"^([1-9]|1[0-8])$"), "is not a code from 1 to 18", True
    )  # fmt: skip
    rules["n"] = (text("n").str.contains(r"^\d+$"), "is not a whole number", True)
    rules["ref_allele"] = (text("ref_allele").str.contains(r"^(EA|OA)$"), "is not EA or OA", True)
    problems = []
    for name, (right, said, may_miss) in rules.items():
        if name not in frame.columns:
            continue
        missing = pl.col(name).is_null()
        good = right.fill_null(False) | missing if may_miss else right.fill_null(False) & ~missing
        bad = ~frame.select(good).to_series().to_numpy()
        if bad.any():
            row = int(np.argmax(bad))
            problems.append(
                f"{name} {said} in {int(bad.sum()):,} rows (first: row {row + 1:,}, "
                f"{frame[name][row]!r})"
            )
    return problems


def _above_zero(name: str) -> "Expr":
    """Return whether a number written as text is above 0, also where a double rounds it to 0."""
    import polars as pl

    return pl.col(name).str.contains(r"^\+?[0-9.]*[1-9]")
