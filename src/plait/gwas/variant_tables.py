"""Tables of a row per variant, written part by part."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plait.errors import LabelError, OptionError, OutputError
from plait.io import replace_file
from plait.io.folders import check_folder

if TYPE_CHECKING:
    from polars import DataFrame, Schema

Table = Callable[[slice], "DataFrame"]
"""The rows of some variants; of none, the columns."""

Piece = tuple[slice, NDArray[np.intp] | slice]
"""Some consecutive variants, and which of them are meant."""

_GROUP_BYTES = 1 << 22
_FEWEST_ROWS = 8192
_LONGEST = 150
"""Bytes of a name, which leaves room for endings in the 255 that file systems have."""


def check_p_threshold(p_threshold: float | None) -> None:
    """Refuse a largest p-value of the rows of a table that is none.

    Raises
    ------
    OptionError
        It is not above 0 and at most 1.
    """
    if p_threshold is not None and not 0 < p_threshold <= 1:
        raise OptionError(f"p_threshold is {p_threshold}; give a number above 0, at most 1.")


def write_parquet(
    path: str | os.PathLike[str], table: Table, pieces: Iterable[Piece], overwrite: bool = False
) -> None:
    """Write a parquet file, in row groups of about 4 MiB.

    Parameters
    ----------
    path : str or path
    table : callable
        Makes the rows of a part.
    pieces : iterable of `Piece`
        The variants, in order; one piece is held at a time.
    overwrite : bool
        Whether a file that exists is replaced.

    Raises
    ------
    OutputError
        The file exists or cannot be written.

    Notes
    -----
    A row group is held whole until it is written. Groups of a million rows, as single traits are
    often written in, would take 880 MB with the effects of ten traits; these take 250 MB, most of
    which are the libraries, whatever the number of traits.
    """
    tables = (table(span)[rows] for span, rows in pieces)
    _write_groups(path, table(slice(0, 0)).schema, tables, overwrite)


def _write_groups(
    path: str | os.PathLike[str], schema: "Schema", tables: Iterable["DataFrame"], overwrite: bool
) -> None:
    """Write a parquet file of tables that are made when their turn comes."""
    from polars.io.plugins import register_io_source

    def in_turn(*_: Any) -> Iterator["DataFrame"]:
        yield from tables

    lazy = register_io_source(in_turn, schema=schema)
    with replace_file(path, overwrite) as temporary:
        rows = max(_GROUP_BYTES // (8 * len(schema)), _FEWEST_ROWS)
        lazy.sink_parquet(temporary, compression="zstd", row_group_size=rows, statistics=True)


def write_partitioned(
    folder: str | os.PathLike[str],
    table: Table,
    pieces: Mapping[str, Iterable[Piece]],
    overwrite: bool = False,
) -> list[Path]:
    """Write a parquet file of each chromosome into a folder.

    Parameters
    ----------
    folder : path
        Made if it is not there.
    table : callable
        Makes the rows of a part.
    pieces : mapping of str to iterable of `Piece`
        The variants of each chromosome, in order; one piece is held at a time. The file of a
        chromosome without any has the columns, and no rows.
    overwrite : bool
        Whether files that exist are replaced.

    Returns
    -------
    list of Path
        The files, in the order of the chromosomes: ``1.parquet`` and so on, see `file_names`.

    Raises
    ------
    OutputError
        A file exists or cannot be written, or the folder holds others: parquet files of other
        chromosomes, too, which would be read with these.
    LabelError
        Two chromosomes would have the same file.
    """
    place = Path(folder)
    names = file_names(list(pieces), ".parquet", "chromosomes")
    check_folder(place, tuple(names.values()), overwrite)
    others = set(place.glob("*.parquet")) - {place / name for name in names.values()}
    if others:
        raise OutputError(
            f"{place} holds other tables ({min(others).name}), which would be read with those of "
            "this scan. Remove them, or give another folder."
        )
    place.mkdir(exist_ok=True)
    for chrom, own in pieces.items():
        write_parquet(place / names[chrom], table, own, overwrite)
    return [place / name for name in names.values()]


def file_names(labels: Sequence[str], suffix: str, what: str) -> dict[str, str]:
    """Return the name of the file of each label.

    Letters, digits and ``.+-`` are kept; runs of anything else, as blanks and slashes, become
    ``_``.

    Parameters
    ----------
    labels : sequence of str
    suffix : str
        What the names end in.
    what : str
        What the labels are of, in the plural, for messages.

    Raises
    ------
    LabelError
        Two would have the same file; capital and small letters are one on many systems.
    """
    names: dict[str, str] = {}
    taken: dict[str, str] = {}
    for label in labels:
        bare = re.sub(r"[^\w.+-]+", "_", label).lstrip("_.-").rstrip("_")
        name = bare.encode()[:_LONGEST].decode(errors="ignore") or what.removesuffix("s")
        other = taken.setdefault(name.casefold(), label)
        if other != label:
            raise LabelError(
                f"the {what} {other!r} and {label!r} would be written to the same file "
                f"{name}{suffix}: rename one of them."
            )
        names[label] = name + suffix
    return names


def write_tsv(
    path: str | os.PathLike[str], table: Table, pieces: Iterable[Piece], overwrite: bool = False
) -> None:
    """Write text compressed by gzip; missing values are ``NA``.

    Parameters are those of `write_parquet`.
    """
    import gzip

    with (
        replace_file(path, overwrite) as temporary,
        gzip.GzipFile(temporary, "wb", mtime=0) as stream,
    ):
        header = table(slice(0, 0)).write_csv(separator="\t")
        stream.write(header.encode())
        for span, rows in pieces:
            text = table(span)[rows].fill_nan(None)
            stream.write(
                text.write_csv(separator="\t", null_value="NA", include_header=False).encode()
            )
