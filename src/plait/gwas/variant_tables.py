"""Tables of a row per variant, written part by part."""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from plait.io import replace_file

if TYPE_CHECKING:
    from polars import DataFrame

Table = Callable[[slice], "DataFrame"]
"""The rows of some variants; of none, the columns."""

_GROUP_BYTES = 1 << 22
_FEWEST_ROWS = 8192


def write_parquet(
    path: str | os.PathLike[str], table: Table, parts: Iterable[slice], overwrite: bool = False
) -> None:
    """Write a parquet file, in row groups of about 4 MiB.

    Parameters
    ----------
    path : str or path
    table : callable
        Makes the rows of a part.
    parts : iterable of slice
        All variants, in order; one part is held at a time.
    overwrite : bool
        Whether a file that exists is replaced.

    Raises
    ------
    OutputError
        The file exists or cannot be written.
    """
    from polars.io.plugins import register_io_source

    def tables(*_: Any) -> Iterator["DataFrame"]:
        for rows in parts:
            yield table(rows)

    schema = table(slice(0, 0)).schema
    lazy = register_io_source(tables, schema=schema)
    with replace_file(path, overwrite) as temporary:
        rows = max(_GROUP_BYTES // (8 * len(schema)), _FEWEST_ROWS)
        lazy.sink_parquet(temporary, compression="zstd", row_group_size=rows)


def write_tsv(
    path: str | os.PathLike[str], table: Table, parts: Iterable[slice], overwrite: bool = False
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
        for rows in parts:
            text = table(rows).fill_nan(None)
            stream.write(
                text.write_csv(separator="\t", null_value="NA", include_header=False).encode()
            )
