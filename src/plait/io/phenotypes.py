"""Tables of phenotypes and covariates: one row per sample, a column with its name.

The column of names is the first of `ID_COLUMNS` that occurs, else the first column; a family column
``FID`` in front of it counts where names repeat without it, there or in the genotypes
(`plait.data.phenotypes.named_as`). Missing values are written as in
`MISSING`; -9 is missing too, but only in columns without any other negative value. Nothing of this
is silent: what was decided is logged.

Expression in the layout of FastQTL and tensorQTL (`BED_COLUMNS`, then a column per sample) is read
too: one row per gene, which becomes a trait. So is that of QTLtools, where the gene's group and
strand stand between.

A data frame of pandas or polars is read as the file that it would be. Samples are named by one of
`ID_COLUMNS`, by the index (pandas, unless it is a mere numbering), or by a first column of text.
"""

import gzip
import logging
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from plait.data.labels import first_repeat
from plait.data.phenotypes import SampleTable
from plait.data.words import counted, listed
from plait.errors import (
    DataWarning,
    FileFormatError,
    InputError,
    LabelError,
    MissingCovariateError,
    MissingSidecarError,
)
from plait.io.exchanged_files import require_sample_table
from plait.io.genotype_files import distinct_samples

if TYPE_CHECKING:
    import pandas as pd
    from polars import DataFrame, Series

    Frame: TypeAlias = DataFrame | pd.DataFrame

ID_COLUMNS = (
    "IID", "#IID", "ID", "id", "sample", "sample_id", "taxa", "Taxa", "genotype", "Genotype",
    "accession",
)  # fmt: skip
FAMILY_COLUMNS = ("#FID", "FID")
BED_COLUMNS = (
    ("#chr", "#chrom"), ("start",), ("end",),
    ("phenotype_id", "gene_id", "gene", "trid", "id", "pid"),
)  # fmt: skip
"""What the first columns of a table of expression are called, capitals or not."""
_STRAND = 5
"""Where QTLtools has the strand, after the gene's group."""
MISSING = ("", "NA", "NaN", "nan", ".", "null")
_NINES = -9
_CODES = (_NINES, -99, -999, -9999)
"""Numbers that people write where a value is missing."""
_ENOUGH_TO_JUDGE, _REPEATS = 10, 3
"""Numbers beside such a one, and times that -9 occurs, from which it is judged."""

_log = logging.getLogger("plait.io")
_FRACTION = re.compile(r"[+-]?\d*\.\d+(?:[eE][+-]?\d+)?")
"""A number that names nothing; whole numbers do, environments and batches for example."""
_REPEATED = re.compile(r"(.*)_duplicated_\d+")
"""What Polars makes of a name that a header has twice."""


def read_phenotypes(
    path: "str | os.PathLike[str] | Frame", traits: Sequence[str] | None = None
) -> SampleTable:
    """Read traits of samples.

    Parameters
    ----------
    path : path, or pandas or polars DataFrame
        A table with a header, delimited by tabs, commas or blanks (also .gz), or parquet. Of
        expression (``#chr start end phenotype_id``, of QTLtools also ``gene_id strand``, and a
        column for each sample) genes are traits.
    traits : sequence of str, optional
        Columns to read, in this order. Default every column but those that name samples.

    Returns
    -------
    SampleTable

    Raises
    ------
    MissingSidecarError
        There is no such file.
    FileFormatError
        A trait has text that is not a number, or is infinite; the message names the sample.
    LabelError
        There is no such column.
    DuplicateSampleError
        A sample occurs twice.
    """
    place = "the table of traits" if is_frame(path) else str(path)
    samples, families, frame = _read(path, place, traits)
    advice = " Where some columns are no traits, name those that are (traits=...)."
    advice = advice if traits is None else ""
    columns = [_numbers(place, frame[name], samples, advice=advice) for name in frame.columns]
    _mark_missing(place, frame.columns, columns)
    values = _table(columns, len(samples))
    return SampleTable(np.array(samples), tuple(frame.columns), values, families=families)


def read_covariates(
    path: "str | os.PathLike[str] | Frame",
    names: Sequence[str] | None = None,
    categorical: Sequence[str] = (),
) -> SampleTable:
    """Read covariates of samples; text becomes indicators of its values.

    Parameters
    ----------
    path : path, or pandas or polars DataFrame
        As in `read_phenotypes`.
    names : sequence of str, optional
        Columns to read. Default every column but those that name samples.
    categorical : sequence of str
        Columns whose numbers are names of groups (batches, say).

    Returns
    -------
    SampleTable
        Of a text column one indicator ``column=value`` for every value but the most frequent one.
        Missing values are those of `MISSING`, and -9 where no other number is negative.

    Raises
    ------
    MissingCovariateError
        A covariate is infinite.
    LabelError, DuplicateSampleError
        As in `read_phenotypes`.
    """
    place = "the table of covariates" if is_frame(path) else str(path)
    samples, families, frame = _read(path, place, names)
    unknown = sorted(set(categorical) - set(frame.columns))
    if unknown:
        raise LabelError(f"{place}: there is no column {unknown[0]!r} to take as categorical.")
    labels: list[str] = []
    columns: list[NDArray[np.float64]] = []
    coded: dict[str, int] = {}
    bases: dict[str, str] = {}
    for name in frame.columns:
        text = frame[name]
        if name in categorical or _first_text(text) is not None:
            text, nines = _without_nines(text)
            coded |= {name: nines} if nines else {}
            made, values, base = _indicators(text)
            labels += made
            columns += values
            bases[name] = base
        else:
            labels.append(name)
            columns.append(_numbers(place, text, samples, MissingCovariateError))
    _mark_missing(place, labels, columns, coded)
    table = _table(columns, len(samples))
    return SampleTable(np.array(samples), tuple(labels), table, bases, families)


def is_frame(table: Any) -> bool:
    """Tell whether something is a data frame of pandas or polars."""
    return hasattr(table, "columns") and hasattr(table, "shape")


def is_binary(values: NDArray[np.float64]) -> bool:
    """Tell whether a trait is of cases and controls: 0 and 1, or 1 (control) and 2 (case)."""
    found = np.unique(values[~np.isnan(values)])
    return len(found) == 2 and tuple(found.tolist()) in ((0.0, 1.0), (1.0, 2.0))


def _is_expression(header: list[str]) -> bool:
    """Tell whether a table has a row for each gene and a column for each sample."""
    pairs = zip(header, BED_COLUMNS, strict=False)
    return len(header) > _first_sample(header) and all(
        name.lower() in known for name, known in pairs
    )


def _first_sample(header: list[str]) -> int:
    """Return which column of a table of expression is the first sample's."""
    has_strand = len(header) > _STRAND and header[_STRAND].lower() == "strand"
    return _STRAND + 1 if has_strand else len(BED_COLUMNS)


def _transposed(path: str, frame: "DataFrame") -> "DataFrame":
    """Return a table of genes by samples with a row for each sample."""
    import polars as pl

    column = frame.columns[len(BED_COLUMNS) - 1]
    samples = frame.columns[_first_sample(frame.columns) :]
    genes = frame[column].fill_null("").to_list()
    if len(set(genes)) < len(genes):
        one, other = first_repeat(genes)
        raise LabelError(f"{path}: rows {one + 1} and {other + 1} are both {genes[one]!r}.")
    _log.info("%s: %d traits named by column %r", path, len(genes), column)
    turned = frame.select(samples).transpose(column_names=genes)
    return turned.insert_column(0, pl.Series("IID", samples))


def _read(
    table: "str | os.PathLike[str] | Frame", path: str, wanted: Sequence[str] | None
) -> tuple[list[str], NDArray[np.str_] | None, "DataFrame"]:
    """Return names of samples, their families if any, and the wanted columns as text.

    Errors name ``path``.
    """
    if isinstance(table, str | os.PathLike):
        frame = _read_text(Path(table))
    else:
        frame = _text_of_frame(table, path)
    if _is_expression(frame.columns):
        frame = _transposed(path, frame)
    header = frame.columns
    sample = next((name for name in ID_COLUMNS if name in header), header[0])
    family = next((name for name in FAMILY_COLUMNS if name in header and name != sample), None)
    others = [name for name in header if name not in (sample, family)]
    if wanted is not None:
        if len(set(wanted)) < len(wanted):
            one, _ = first_repeat(list(wanted))
            raise LabelError(f"the column {wanted[one]!r} is named twice; name it once.")
        unknown = [name for name in wanted if name not in others]
        if unknown:
            raise LabelError(
                f"{path}: there is no column {unknown[0]!r}; there are {', '.join(others[:10])}"
                f"{', ...' if len(others) > 10 else ''}."
            )
        others = list(wanted)
    names = frame[sample].fill_null("").to_list()
    families = None if family is None else frame[family].fill_null("").to_list()
    if families is not None and len(set(names)) < len(names):
        names = [f"{first}:{second}" for first, second in zip(families, names, strict=True)]
    _log.info("%s: %d samples named by column %r", path, len(names), sample)
    distinct_samples(path, names)
    known = None if families is None else np.array(families, dtype=np.str_)
    return names, known, frame.select(others)


def _read_text(path: Path) -> "DataFrame":
    import polars as pl

    require_sample_table(path)
    try:
        if path.suffix == ".parquet":
            return _as_text(pl.read_parquet(path))
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        first = data.split(b"\n", 1)[0]
        delimiter = next((mark for mark in (b"\t", b",", b";") if mark in first), b" ")
        if delimiter == b" ":
            data = re.sub(rb"[ \t\r]+(?=\n|$)|^[ \t]+", b"", data, flags=re.MULTILINE)
            data = re.sub(rb"[ \t]+", b" ", data)
        frame = pl.read_csv(
            data, separator=delimiter.decode(), infer_schema=False, null_values=list(MISSING)
        )
    except FileNotFoundError:
        raise MissingSidecarError(f"{path}: there is no such file.") from None
    except (OSError, EOFError, pl.exceptions.PolarsError) as error:
        raise FileFormatError(f"{path} is not a readable table ({error}).") from None
    _require_header(path, frame.columns)
    return frame


def _require_header(path: Path, header: list[str]) -> None:
    """Refuse a first line of data, whose sample would be lost and whose values would be names."""
    for name in header:
        if _FRACTION.fullmatch(name):
            why = f"the first line has {name!r} for the name of a column"
        elif again := _REPEATED.fullmatch(name):
            why = f"two columns are both named {again[1]!r}"
        else:
            continue
        raise FileFormatError(
            f"{path}: {why}. Expected a first line with a name for each column, that of samples "
            "(IID) and those of traits or covariates."
        )


def _text_of_frame(frame: Any, place: str) -> "DataFrame":
    """Return a data frame as text, the names of its samples in a column."""
    import polars as pl

    if not isinstance(frame, pl.DataFrame):
        frame = _from_pandas(frame, place)
    names = any(name in frame.columns for name in ID_COLUMNS)
    if not names and not _is_expression(frame.columns) and frame.dtypes[:1] != [pl.String]:
        raise LabelError(
            f"{place} does not name its samples: give it a column IID, or (pandas) names as index."
        )
    return _as_text(frame)


def _from_pandas(frame: Any, place: str) -> "DataFrame":
    import polars as pl

    is_numbering = frame.index.nlevels == 1 and (
        frame.index.name is None and frame.index.dtype.kind in "iu"
    )
    if not is_numbering and not any(name in frame.columns for name in ID_COLUMNS):
        frame = frame.reset_index()
    names = [str(name) for name in frame.columns]
    if len(set(names)) < len(names):
        one, other = first_repeat(names)
        raise LabelError(f"{place}: columns {one + 1} and {other + 1} are both {names[one]!r}.")
    columns = []
    for number, name in enumerate(names):
        column = frame.iloc[:, number]
        values = column.astype(object).where(column.notna(), None).tolist()
        columns.append(pl.Series(name, values, strict=False))
    return pl.DataFrame(columns)


def _as_text(frame: "DataFrame") -> "DataFrame":
    """Return all columns as text, null where a value is missing; numbers keep every digit."""
    import polars as pl

    exact = frame.cast({pl.Float32: pl.Float64, pl.Boolean: pl.Int8})
    text = exact.cast(pl.String)
    return text.with_columns(pl.when(~pl.all().is_in(MISSING)).then(pl.all()))


def _first_text(column: "Series") -> int | None:
    """Return the first row with text that is not a number."""
    import polars as pl

    bad = (column.cast(pl.Float64, strict=False).is_null() & column.is_not_null()).arg_true()
    return int(bad[0]) if len(bad) else None


def _numbers(
    path: str,
    column: "Series",
    samples: list[str],
    if_infinite: type[InputError] = FileFormatError,
    advice: str = "",
) -> NDArray[np.float64]:
    import polars as pl

    row = _first_text(column)
    if row is not None:
        raise FileFormatError(
            f"{path}: column {column.name!r} has {column[row]!r} for sample {samples[row]!r}; "
            f"expected a number. Missing values are written {', '.join(MISSING[1:])} or left empty."
            f"{_binary_advice(column)}{advice}"
        )
    values: NDArray[np.float64] = column.cast(pl.Float64).fill_null(np.nan).to_numpy().copy()
    infinite = np.flatnonzero(np.isinf(values))
    if len(infinite):
        raise if_infinite(
            f"{path}: column {column.name!r} is infinite for "
            f"{counted(len(infinite), 'sample')} (first: {samples[infinite[0]]!r}). Write NA "
            "where a value is missing."
        )
    return values


def _binary_advice(column: "Series") -> str:
    """Say how cases and controls are written, where a column has two words."""
    found = sorted(column.drop_nulls().unique().to_list())
    if len(found) != 2 or any(_first_text(column.filter(column == word)) is None for word in found):
        return ""
    return (
        f" A trait of two values ({found[0]!r} and {found[1]!r}) is written 0 (control) and 1 "
        "(case), or 1 and 2."
    )


def _without_nines(column: "Series") -> tuple["Series", int]:
    """Return a column of groups without values of -9, and how many; see `_mark_missing`."""
    import polars as pl

    numbers = column.cast(pl.Float64, strict=False)
    negative = numbers.filter(numbers < 0)
    if not len(negative) or (negative != _NINES).any():
        return column, 0
    return column.zip_with((numbers != _NINES).fill_null(True), column.clear(1)), len(negative)


def _mark_missing(
    path: str,
    names: Sequence[str],
    columns: list[NDArray[np.float64]],
    coded: Mapping[str, int] | None = None,
) -> None:
    """Make -9 NaN, in place, where a column has no other negative value; log what is missing.

    ``coded`` has how many values of -9 columns had that are made indicators already.
    """
    coded, kept = dict(coded or {}), dict[str, tuple[int, int]]()
    for name, values in zip(names, columns, strict=True):
        negative = values[values < 0]
        if len(negative) and (negative == _NINES).all():
            values[values == _NINES] = np.nan
            coded[name] = len(negative)
        elif (code := _code_among(values)) is not None:
            kept[name] = int((values == code).sum()), code
        if missing := int(np.isnan(values).sum()):
            _log.info("%s: %r is missing for %d samples", path, name, missing)
    if coded:
        also = f" and {len(coded) - 1:,} more" if len(coded) > 1 else ""
        _log.info(
            "%s: values of -9 taken as missing, where no other value is negative: %s (in %r%s)",
            path,
            f"{sum(coded.values()):,}",
            next(iter(coded)),
            also,
            extra={"notice": True},
        )
    if kept:
        found = listed(
            [f"{code} in {name!r}, {n:,} of them" for name, (n, code) in kept.items()], 5
        )
        warnings.warn(
            f"{path}: values that look like missing ones are taken as numbers: {found}. Write NA "
            "where a value is missing.",
            DataWarning,
            stacklevel=3,
        )


def _code_among(values: NDArray[np.float64]) -> int | None:
    """Return the number that looks like a missing value among others; None where none does.

    It is by itself below all others, by more than their standard deviation; or, of -9, the most
    common of numbers with decimals.
    """
    for code in _CODES:
        others = values[np.isfinite(values) & (values != code)]
        count = int((values == code).sum())
        if not count or len(others) < _ENOUGH_TO_JUDGE:
            continue
        if others.min() - code > others.std():
            return code
        if code != _NINES or count < _REPEATS or (others == np.round(others)).all():
            continue
        if count > int(np.unique(others, return_counts=True)[1].max()):
            return code
    return None


def _indicators(column: "Series") -> tuple[list[str], list[NDArray[np.float64]], str]:
    """Return indicators of the values of a text, with names, and the value that has none."""
    text = column.to_list()
    seen = [value for value in text if value is not None]
    values = sorted(set(seen))
    if not values:
        return [], [], ""
    common = max(values, key=seen.count)
    missing = np.array([value is None for value in text])
    labels, columns = [], []
    for value in values:
        if value != common:
            indicator = np.array([float(other == value) for other in text])
            indicator[missing] = np.nan
            labels.append(f"{column.name}={value}")
            columns.append(indicator)
    _log.info("%r has %d groups; %r is the base", column.name, len(values), common)
    return labels, columns, common


def _table(columns: list[NDArray[np.float64]], n_samples: int) -> NDArray[np.float64]:
    return np.column_stack(columns) if columns else np.empty((n_samples, 0))
