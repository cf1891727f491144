"""Outputs of eQTL mapping, one file per tissue or cell type, and joining them into effects."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plait.data.effects import Effects
from plait.data.p_values import absolute_z_of_log10_p, log10_of_text
from plait.errors import (
    FileFormatError,
    GenomeBuildError,
    LabelError,
    OptionError,
    ShapeError,
    UnknownDialectError,
)
from plait.io.eqtl_formats import FORMATS, EqtlFormat
from plait.io.summary_statistics import MISSING, read_bytes, require_file, sniff_delimiter
from plait.provenance import Provenance

if TYPE_CHECKING:
    from polars import DataFrame, LazyFrame, Series

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
_log = logging.getLogger("plait.io")
_NUMBERS = ("beta", "se", "t")
_ID = r"^(?:chr)?([^_:]+)[_:](\d+)[_:]([^_:]+)[_:]([^_:]+)(?:[_:](b3[78]))?$"
_BUILDS = {"b37": "GRCh37", "b38": "GRCh38"}
_SEPARATOR = ":"
_USABLE, _NO_ESTIMATE, _NO_ERROR = 0, 1, 2
"""What a row holds: an effect and its error, neither, or an effect without a usable error."""
_SHOWN = 5


def scan_eqtl(
    path: str | os.PathLike[str],
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    *,
    degrees_of_freedom: float | None = None,
) -> "LazyFrame":
    """Scan one file of eQTL results.

    Parameters
    ----------
    path : path
        Parquet, or text separated by tabs, commas or blanks, compressed with gzip or not.
    format : str, optional
        Name of one of `plait.io.eqtl_formats.FORMATS`; default: by the names, or the number, of
        the columns.
    columns : mapping of role to column, optional
        ``gene``, ``variant``, ``beta``, one of ``se``, ``t`` and ``p``, and ``n``; go before the
        format's.
    degrees_of_freedom : float, optional
        Of the t statistics, where the standard error comes from p; default: the normal
        distribution, which is logged.

    Returns
    -------
    polars.LazyFrame
        ``gene``, ``variant``, ``beta`` and ``se``. Rows without an estimate are not in it, nor
        those without a usable standard error (0, negative or missing; where it comes from p, a p
        of 0): how many there are, and the first of them, is logged.

    Raises
    ------
    UnknownDialectError
        The format is not known, or only from documentation and was not asked for by name.
    FileFormatError
        The file cannot be read.

    Notes
    -----
    Rows that are not usable are counted now, in one pass over the file that holds none of the
    others. A p such as 1e-400 is read from its text: it keeps its size.
    """
    import polars as pl

    rows = _rows(Path(path), format, columns, degrees_of_freedom)
    names = [name for name in ("gene", "variant") if name in rows.collect_schema().names()]
    lost = rows.filter(pl.col("state") != _USABLE).select("state", _joined(names))
    _tell_lost(_collected(lost, str(path)), str(path))
    return rows.filter(pl.col("state") == _USABLE).drop("state", "n")


def _rows(
    path: Path,
    format: str | None,
    columns: Mapping[str, str] | None,
    degrees_of_freedom: float | None,
) -> "LazyFrame":
    """Return all rows of a file: gene, variant, beta, se, n, and what a row holds (``state``)."""
    import polars as pl

    scanned, names, header = _scan(path)
    found = _format_of(names, header, format, columns, path)
    if not header:
        if found.header:
            raise UnknownDialectError(f"{path} has no header, which {found.name} has.")
        renamed = dict(zip(scanned.collect_schema().names(), found.columns, strict=True))
        scanned = scanned.rename(renamed)
    roles = {**found.roles, **(columns or {})}
    if found.name == "qtltools-header" and "slope_se" not in names:
        roles.pop("se")
    present = set(found.columns if not header else names)
    absent = [name for name in roles.values() if name not in present]
    if absent:
        raise LabelError(f"{path} has no column {absent[0]!r}; it has {', '.join(names)}.")
    texts = [name for name in ("gene", "variant") if name in roles]
    frame = scanned.select(
        *(pl.col(roles[name]).cast(pl.String).alias(name) for name in texts),
        *(pl.col(roles[name]).cast(pl.Float64).alias(name) for name in _NUMBERS if name in roles),
        *(pl.col(roles[name]).alias(name) for name in ("p",) if name in roles),
        _sample_size(roles, present).alias("n"),
    )
    frame = frame.with_columns(se=_standard_error(set(roles), degrees_of_freedom, path))
    usable = pl.col("beta").is_finite() & pl.col("se").is_finite() & (pl.col("se") > 0)
    state = (
        pl.when(pl.col("beta").fill_nan(None).is_null())
        .then(_NO_ESTIMATE)
        .when(usable)
        .then(_USABLE)
        .otherwise(_NO_ERROR)
    )
    return frame.select(*texts, "beta", "se", "n", state.cast(pl.Int8).alias("state"))


def _sample_size(roles: Mapping[str, str], present: set[str]) -> Any:
    """Return the samples of each row: given, or by what it says of their alleles; else null."""
    import polars as pl

    def number(name: str) -> Any:
        return pl.col(name).cast(pl.Float64)

    if "n" in roles:
        return number(roles["n"])
    frequency = next((name for name in ("af", "maf") if name in present), None)
    if "ma_count" in present and frequency is not None:
        rarer = pl.min_horizontal(number(frequency), 1 - number(frequency))
        return number("ma_count") / (2 * rarer)
    return number("an") / 2 if "an" in present else pl.lit(None, dtype=pl.Float64)


def _joined(names: Sequence[str]) -> Any:
    """Return what a row is called: by its gene and variant, as far as they are there."""
    import polars as pl

    named = pl.concat_str(*names, separator=_SEPARATOR, ignore_nulls=True) if names else pl.lit("")
    return named.alias("key")


def _tell_lost(lost: "DataFrame", where: str, things: str = "rows") -> None:
    """Log how many rows, or effects, are not usable, and name the first of them."""
    import polars as pl

    for state, level, what in (
        (_NO_ESTIMATE, logging.INFO, "no estimate"),
        (
            _NO_ERROR,
            logging.WARNING,
            "no usable standard error (zero, negative or missing, or to be made of a p of 0)",
        ),
    ):
        keys = lost.filter(pl.col("state") == state)["key"]
        if len(keys):
            more = ", ..." if len(keys) > _SHOWN else ""
            named = ", ".join(map(str, keys.head(_SHOWN).to_list()))
            count = f"{len(keys):,} {things}"
            _log.log(level, "%s: %s in %s (%s%s); left out", where, what, count, named, more)


def find_eqtl_format(path: str | os.PathLike[str]) -> EqtlFormat | None:
    """Return the format that a file's columns are of; None where they are of none.

    Raises
    ------
    FileFormatError
        The file cannot be read.
    """
    names, header, _ = _first_line(Path(path))
    return _fitting(names, header)


def read_contexts(
    paths: Mapping[str, Paths],
    key: Sequence[str] = ("gene", "variant"),
    join: str = "outer",
    *,
    format: str | None = None,
    columns: Mapping[str, Any] | None = None,
    degrees_of_freedom: float | None = None,
) -> Effects:
    """Read the results of several tissues or cell types into effects.

    Parameters
    ----------
    paths : mapping of context to path, or to several paths (one per chromosome)
    key : sequence of {"gene", "variant"}
        What identifies an effect; joined with ``":"``.
    join : {"outer", "inner"}
        All effects, with cells that were not measured (``shat = inf``), or those of all contexts.
    format, degrees_of_freedom
        See `scan_eqtl`.
    columns : mapping, optional
        See `scan_eqtl`; or one such mapping per context, where contexts are columns of one table.

    Returns
    -------
    Effects
        In the order in which effects are first met. With missing cells, fit with
        ``missing="exact"``. ``provenance.options["n"]`` has the median sample size of each
        context, where its rows tell it (a column with the role ``n``, ``ma_count`` with ``af`` or
        ``maf``, or ``an``), else None.

    Raises
    ------
    GenomeBuildError
        Variant ids such as ``chr1_64764_C_T_b38`` are of different builds.
    LabelError
        An effect occurs twice in a context, or none is in all of them.

    Notes
    -----
    Effects without a usable standard error are left out, counted and named in the log, as by
    `scan_eqtl`. Files are scanned twice: for the keys of all contexts, then for the numbers of one
    context at a time. Memory: the distinct keys, one context, and 16 bytes per cell.
    """
    if join not in ("outer", "inner"):
        raise OptionError(f"join is {join!r}; give 'outer' or 'inner'.")
    if not key or not set(key) <= {"gene", "variant"}:
        raise OptionError(f"key is {tuple(key)}; it is made of 'gene' and 'variant'.")
    if not paths:
        raise ShapeError("there are no files to read.")

    def scan(context: str) -> "LazyFrame":
        given = columns
        if columns is not None and context in columns and isinstance(columns[context], Mapping):
            given = columns[context]
        return _keyed(paths[context], key, format, given, degrees_of_freedom)

    keys = _all_keys(paths, scan, key, join)
    bhat = np.zeros((keys.height, len(paths)))
    shat = np.full(bhat.shape, np.inf)
    sizes: dict[str, int | None] = {}
    for column, context in enumerate(paths):
        rows, found = _numbers(keys, scan(context), context)
        bhat[rows, column], shat[rows, column] = found["beta"], found["se"]
        known = found["n"].filter(found["n"].is_finite())
        sizes[context] = round(float(np.median(known))) if len(known) else None
        _log.info("%s: %s of %s effects", context, f"{len(rows):,}", f"{keys.height:,}")
    return Effects(
        bhat,
        shat,
        effects=np.array(keys["key"].to_list(), dtype=np.str_),
        contexts=tuple(paths),
        provenance=Provenance("read_contexts", {"join": join, "key": list(key), "n": sizes}),
    )


def parse_variant_ids(ids: "Series") -> "DataFrame":
    """Return ``chrom``, ``pos``, ``oa``, ``ea`` and ``build`` of ids such as chr1_64764_C_T_b38.

    The effect is of the last allele. Null where an id is of another form.
    """
    import polars as pl

    parts = ids.str.extract_groups(_ID)
    named = parts.struct.rename_fields(["chrom", "pos", "oa", "ea", "build"]).struct.unnest()
    return named.with_columns(
        pl.col("pos").cast(pl.Int64), pl.col("build").replace_strict(_BUILDS, default=None)
    )


def _scan(path: Path) -> tuple["LazyFrame", list[str], bool]:
    """Return the file, the names of its columns (or its first cells), and whether it has names."""
    import polars as pl

    names, header, separator = _first_line(path)
    if separator is None:
        return pl.scan_parquet(path), names, True
    lazy = pl.scan_csv(
        path,
        separator=separator,
        has_header=header,
        null_values=list(MISSING),
        infer_schema=False,  # a whole number in the first rows does not make a whole column
        quote_char=None,
    )
    return lazy, names, header


def _first_line(path: Path) -> tuple[list[str], bool, str | None]:
    """Return the first cells of a file, whether they are names, and what separates them in text."""
    import polars as pl

    require_file(path)
    if path.suffix in (".parquet", ".pq"):
        return list(pl.read_parquet_schema(path)), True, None
    sample = _first_bytes(path)
    first = sample.split(b"\n", 1)[0]
    separator = sniff_delimiter(first, sample)
    cells = first.decode(errors="replace").rstrip("\r").split(separator)
    return [cell.strip('"') for cell in cells], not any(map(_is_number, cells)), separator


def _first_bytes(path: Path) -> bytes:
    import gzip

    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    if not packed:
        with path.open("rb") as raw:
            return raw.read(1 << 16)
    try:
        with gzip.open(path) as stream:
            return stream.read(1 << 16)
    except (OSError, EOFError):
        return read_bytes(path)  # says what is wrong


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _format_of(
    names: list[str],
    header: bool,
    wanted: str | None,
    columns: Mapping[str, str] | None,
    path: Path,
) -> EqtlFormat:
    if wanted is not None:
        known = {form.name: form for form in FORMATS}
        if wanted not in known:
            raise OptionError(f"unknown format {wanted!r}; there are {', '.join(known)}.")
        if not known[wanted].confirmed:
            _log.warning("format %s: from documentation, not confirmed on a file", wanted)
        return known[wanted]
    if columns is not None:
        return EqtlFormat("columns", {}, tuple(names))
    best = _fitting(names, header)
    if best is None:
        kind = f"the columns {', '.join(names)}" if header else f"{len(names)} columns, no header"
        raise UnknownDialectError(
            f"{path} has {kind}, which is no known output of eQTL mapping. Say what the columns "
            "are: columns={'gene': ..., 'variant': ..., 'beta': ..., 'se': ...}."
        )
    if not best.confirmed:
        raise UnknownDialectError(
            f"{path} looks like {best.name}, which plait knows from documentation only and has not "
            f"confirmed on a file. If you know it is, give format={best.name!r}, or say what the "
            f"columns are: columns={dict(best.roles)}."
        )
    return best


def _fitting(names: list[str], header: bool) -> EqtlFormat | None:
    """Return the format that most of the columns are of, confirmed or not."""

    def fits(form: EqtlFormat) -> bool:
        if header:
            return set(form.columns) <= set(names)
        if len(form.columns) != len(names):
            return False
        cells = dict(zip(form.columns, names, strict=True))
        numbers = [cells[column] for role, column in form.roles.items() if role in ("beta", "p")]
        return all(_is_number(cell) or cell in MISSING for cell in numbers)

    found = [form for form in FORMATS if form.header == header and fits(form)]
    return max(found, key=lambda form: len(form.columns), default=None)


def _standard_error(roles: set[str], degrees_of_freedom: float | None, path: Path) -> Any:
    """Return the standard error: given, from t, or from p."""
    import polars as pl

    if "se" in roles:
        return pl.col("se")
    if "t" in roles:
        return (pl.col("beta") / pl.col("t")).abs()
    if "p" not in roles:
        raise UnknownDialectError(f"{path}: none of the columns is the role 'se', 't' or 'p'.")
    if degrees_of_freedom is None:
        _log.warning(
            "%s: standard errors from p by the normal distribution; give degrees_of_freedom=", path
        )

    def quantile(p: "Series") -> "Series":
        p.cast(pl.Float64)  # text that is no number is an error
        return pl.Series(_absolute_t(log10_of_text(p), degrees_of_freedom))

    return pl.col("beta").abs() / pl.col("p").map_batches(
        quantile, return_dtype=pl.Float64, is_elementwise=True
    )


def _absolute_t(log10_p: NDArray[Any], degrees_of_freedom: float | None) -> NDArray[np.float64]:
    from plait.numerics.student import t_from_log10_p

    if degrees_of_freedom is None:
        return absolute_z_of_log10_p(log10_p)
    return t_from_log10_p(log10_p, degrees_of_freedom)


def _keyed(
    paths: Paths,
    key: Sequence[str],
    format: str | None,
    columns: Mapping[str, str] | None,
    degrees_of_freedom: float | None,
) -> "LazyFrame":
    import polars as pl

    several = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    whole = pl.concat(_rows(Path(path), format, columns, degrees_of_freedom) for path in several)
    lacking = [name for name in key if name not in whole.collect_schema().names()]
    if lacking:
        raise LabelError(f"{several[0]} has no column of {lacking[0]}s, which the key needs.")
    return whole.with_columns(key=pl.concat_str(*key, separator=_SEPARATOR)).drop_nulls("key")


def _all_keys(paths: Mapping[str, Paths], scan: Any, key: Sequence[str], join: str) -> "DataFrame":
    """Return the keys of all contexts in the order in which they are first met."""
    import polars as pl

    keys: DataFrame | None = None
    builds: dict[str, str] = {}
    # An id such as chr1_5_A_G_b38 names its build; a key without variants joins any.
    named = pl.col("variant").str.extract(r"[_:](b3[78])$")
    build = named if "variant" in key else pl.lit(None, dtype=pl.String)
    for context in paths:
        wanted = scan(context).select("key", "state", build=build)
        own = _collected(wanted.unique(["key", "state"], maintain_order=True), context)
        _tell_lost(own, context, "effects")
        _require_one_build(context, own["build"].drop_nulls().unique().to_list(), builds)
        own = own.filter(pl.col("state") == _USABLE).select("key")
        if keys is None:
            keys = own
        elif join == "inner":
            keys = keys.join(own, on="key", how="semi", maintain_order="left")
        else:
            keys = pl.concat([keys, own]).unique("key", maintain_order=True)
    if keys is None or keys.is_empty():
        raise LabelError(
            f"no effect is in {'all' if join == 'inner' else 'any'} of the contexts "
            f"{', '.join(paths)}: are genes and variants named alike in all of them?"
        )
    return keys.with_row_index("row")


def _collected(scanned: "LazyFrame", context: str) -> "DataFrame":
    import polars as pl

    try:
        return scanned.collect(engine="streaming")
    except pl.exceptions.PolarsError as error:
        first = str(error).strip().splitlines()[0]
        raise FileFormatError(f"the files of {context} cannot be read: {first}.") from None


def _require_one_build(context: str, found: list[str], builds: dict[str, str]) -> None:
    for build in found:
        other = next((name for name, theirs in builds.items() if theirs != build), None)
        if other is not None or len(found) > 1:
            raise GenomeBuildError(
                f"variants of {context} are on {_BUILDS[build]} and others, of "
                f"{other or context}, are not. Lift one of them over first; plait never does so "
                "by itself."
            )
        builds[context] = build


def _numbers(
    keys: "DataFrame", scanned: "LazyFrame", context: str
) -> tuple[NDArray[Any], "DataFrame"]:
    """Return the rows of a context's effects, and their numbers."""
    import polars as pl

    # A variant with several rs numbers has several equal rows in some files.
    names = ["key", "beta", "se"]
    usable = scanned.filter(pl.col("state") == _USABLE).select(*names, "n")
    own = _collected(usable.unique(names, keep="any", maintain_order=True), context)
    if own["key"].n_unique() < own.height:
        first = own.filter(own["key"].is_duplicated())["key"][0]
        raise LabelError(f"{context} has several estimates of the effect {first!r}.")
    placed = own.join(keys, on="key", how="inner")
    return placed["row"].to_numpy(), placed
