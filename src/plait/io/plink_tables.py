"""The tables beside PLINK genotypes (.bim, .fam): rows of columns between blanks, no header."""

import gzip
import hashlib
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plait.data.variants import VariantsInFile, VariantTable
from plait.errors import FileFormatError, TruncatedFileError

if TYPE_CHECKING:
    from polars import DataFrame

_BIM_COLUMNS = ("chrom", "id", "cm", "pos", "ea", "oa")
_POSITION, _CENTIMORGANS = _BIM_COLUMNS.index("pos"), _BIM_COLUMNS.index("cm")
_GROUP = 1024
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class TextRows:
    """Where the rows of a text are, so that some of them are read without the others.

    Attributes
    ----------
    place : Path
    count : int
        Rows; blank ones at the end do not count.
    starts : (groups + 1,) array
        Where, in bytes, each group of 1,024 rows begins, and where the last one ends.
    modified : int
        When the file was changed last, in nanoseconds.
    """

    place: Path
    count: int
    starts: NDArray[np.int64]
    modified: int

    @classmethod
    def of(cls, place: Path) -> "TextRows":
        """Go over a text, which may be compressed by gzip, once; it is not held."""
        modified = place.stat().st_mtime_ns
        count, ended, place_of_piece, end = 0, 0, 0, 0
        starts = [np.zeros(1, dtype=np.int64)]
        for piece in _pieces(place):
            ends = np.flatnonzero(np.frombuffer(piece, dtype=np.uint8) == ord("\n"))
            starts.append(place_of_piece + 1 + ends[-(ended + 1) % _GROUP :: _GROUP])
            if filled := len(piece.rstrip()):
                end = place_of_piece + filled
                count = ended + int(np.searchsorted(ends, filled)) + 1
            ended += len(ends)
            place_of_piece += len(piece)
        known = np.concatenate(starts)
        return cls(place, count, np.append(known[known < end], end), modified)

    def read(self, start: int, stop: int) -> tuple[bytes, int]:
        """Return the text of groups that hold some rows, at least one, and their first row."""
        first, last = start // _GROUP, min(-(-stop // _GROUP), len(self.starts) - 1)
        begin, end = int(self.starts[first]), int(self.starts[last])
        with self.place.open("rb") as stream:
            stream.seek(begin)
            data = stream.read(end - begin)
        self._require_unchanged(len(data) == end - begin)
        return data, first * _GROUP

    def digest(self) -> str:
        """Return a digest of the file."""
        digest = hashlib.blake2b(digest_size=16)
        for piece in _pieces(self.place):
            digest.update(piece)
        self._require_unchanged()
        return f"blake2b:{digest.hexdigest()}"

    def _require_unchanged(self, was_all_there: bool = True) -> None:
        if not was_all_there or self.place.stat().st_mtime_ns != self.modified:
            raise TruncatedFileError(f"{self.place} changed while it was read: was it replaced?")


def read_table(place: Path, columns: tuple[str, ...]) -> "DataFrame":
    """Return the columns of a table as text.

    Raises
    ------
    FileFormatError
        It is damaged, or has another number of columns.
    """
    data = b"".join(_pieces(place)).rstrip()
    return _parsed(data, place, columns, _has_tabs(data, place, columns))


def require_filled(
    table: "DataFrame", place: Path, names: Sequence[str] | None = None, first: int = 0
) -> None:
    """Refuse rows with nothing in some columns (None: in any).

    ``first`` is the number of the first row.

    Raises
    ------
    FileFormatError
        A cell is empty, or a row has fewer columns than the first one.
    """
    for name in table.columns if names is None else names:
        if table[name].null_count():
            row = int(table[name].is_null().arg_max() or 0)
            raise FileFormatError(
                f"{place}: row {first + row + 1} has nothing in column "
                f"{table.columns.index(name) + 1} of {table.width} ({', '.join(table.columns)}); "
                "expected a value in each, with the same blanks between them in all rows. PLINK "
                "writes what is unknown as 0, and unknown names of variants as a point."
            )


def read_bim(place: Path, count: str = "ea") -> VariantTable:
    """Read the variants of a .bim (or .bim.gz), in the order of the file."""
    return VariantTable(_variants(read_table(place, _BIM_COLUMNS), place, count))


def bim_variants(rows: TextRows, count: str = "ea") -> VariantTable:
    """Return the variants of a .bim, which stay in the file; those of a .bim.gz are read.

    Parameters
    ----------
    rows : TextRows
        Of the file.
    count : {"ea", "oa"}
        Which allele is counted, the first of the file or the second.
    """
    if rows.place.suffix == ".gz":
        return read_bim(rows.place, count)
    tabs = _has_tabs(rows.read(0, 1)[0], rows.place, _BIM_COLUMNS)
    return VariantsInFile(rows.count, _BimReader(rows, count, tabs))


@dataclass(frozen=True, eq=False)
class _BimReader:
    """Reads consecutive variants of a .bim; see `plait.data.variants.VariantReader`."""

    rows: TextRows
    count: str
    tabs: bool

    def frame(self, start: int, stop: int) -> "DataFrame":
        """Return a table of variants."""
        text, first = self.rows.read(start, stop)
        table = _parsed(text, self.rows.place, _BIM_COLUMNS, self.tabs, first)
        variants = _variants(table, self.rows.place, self.count, first)
        return variants[start - first : stop - first]

    def arrays(self, names: Sequence[str], start: int, stop: int) -> dict[str, NDArray[Any]]:
        """Return columns of variants; of plain text without an object for each value."""
        text, first = self.rows.read(start, stop)
        n_rows = min(-(-stop // _GROUP) * _GROUP, self.rows.count) - first
        split = _split(text, n_rows) if self.tabs else None
        if split is None:
            return VariantTable(self.frame(start, stop)).arrays(names)
        chosen = slice(start - first, stop - first)
        return {name: split.column(_column_number(name, self.count), chosen) for name in names}

    def digest(self) -> str:
        """Return a digest of the file."""
        return self.rows.digest()


@dataclass(frozen=True, eq=False)
class _PlainRows:
    """Rows of a .bim, split; see `plait.io.text_kernels.split_rows`."""

    text: NDArray[np.uint8]
    begins: NDArray[np.int32]
    positions: NDArray[np.int64]

    def column(self, number: int, rows: slice) -> NDArray[Any]:
        """Return a column of some rows: positions as numbers, others as text."""
        from plait.io.text_kernels import code_points

        if number == _POSITION:
            return self.positions[rows]
        begins = self.begins[rows]
        longest = int(np.max(begins[:, number + 1] - begins[:, number], initial=2)) - 1
        characters = np.empty((len(begins), longest), dtype=np.uint32)
        code_points(self.text, begins, number, characters)
        return characters.view(f"U{longest}")[:, 0]


def _split(text: bytes, n_rows: int) -> _PlainRows | None:
    """Split rows that are plain, as nearly all are; None where one is not, or is wrong."""
    from plait.io.text_kernels import split_rows

    octets = np.frombuffer(text if text.endswith(b"\n") else text + b"\n", dtype=np.uint8)
    width = len(_BIM_COLUMNS)
    begins = np.empty((n_rows, width + 1), dtype=np.int32)
    positions, longest = np.empty(n_rows, dtype=np.int64), np.empty(width, dtype=np.int64)
    is_plain = split_rows(octets, begins, _POSITION, _CENTIMORGANS, positions, longest)
    return _PlainRows(octets, begins, positions) if is_plain else None


def _column_number(name: str, count: str) -> int:
    """Return which column of a .bim one of a `VariantTable` is."""
    other = {"ea": "oa", "oa": "ea"}
    return _BIM_COLUMNS.index(name if count == "ea" else other.get(name, name))


def _variants(bim: "DataFrame", place: Path, count: str, first: int = 0) -> "DataFrame":
    """Return the columns of a `VariantTable`; ``first`` is the number of the first row."""
    import polars as pl

    require_filled(bim, place, first=first)
    numbers = {"pos": pl.Int64, "cm": pl.Float64}
    for name, kind in numbers.items():
        cast = bim[name].cast(kind, strict=False)
        if cast.null_count():
            row = int(cast.is_null().arg_max() or 0)
            raise FileFormatError(
                f"{place}: row {first + row + 1} has {bim[name][row]!r} as "
                f"{'position' if name == 'pos' else 'genetic position'}; expected a number."
            )
        bim = bim.with_columns(cast)
    ea, oa = ("ea", "oa") if count == "ea" else ("oa", "ea")
    return bim.select("chrom", "pos", "id", oa=oa, ea=ea, cm="cm")


def _pieces(place: Path) -> Iterator[bytes]:
    try:
        with gzip.open(place) if place.suffix == ".gz" else place.open("rb") as stream:
            while piece := stream.read(_PIECE_BYTES):
                yield piece
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise FileFormatError(f"{place} is damaged ({error}).") from None


def _has_tabs(data: bytes, place: Path, columns: tuple[str, ...]) -> bool:
    """Tell by the first row whether columns are between tabs, not any blanks."""
    end = data.find(b"\n")
    first = (data if end < 0 else data[:end]).strip()
    if len(first.split()) != len(columns):
        raise FileFormatError(
            f"{place}: row 1 has {len(first.split())} columns; expected {len(columns)}: "
            f"{', '.join(columns)}."
        )
    return first.count(b"\t") == len(columns) - 1 and b" " not in first


def _parsed(
    data: bytes, place: Path, columns: tuple[str, ...], tabs: bool, first: int = 0
) -> "DataFrame":
    """Return rows as text without blanks around it; ``first`` is the number of the first row."""
    import polars as pl

    if not tabs:
        data = re.sub(rb"[ \t\r]*\n[ \t]*", b"\n", re.sub(rb"[ \t]+", b"\t", data.strip()))
    elif b" " in data:
        data = re.sub(rb" *(\t|\r?\n) *", rb"\1", data.strip(b" "))
        if b" " in data:  # PLINK would take it for the end of a column
            _refuse_row(data, place, columns, first)
    try:
        return pl.read_csv(
            data,
            separator="\t",
            has_header=False,
            new_columns=list(columns),
            schema_overrides=[pl.String] * len(columns),
            quote_char=None,
        )
    except pl.exceptions.PolarsError:
        _refuse_row(data, place, columns, first)
        raise FileFormatError(
            f"{place} is not a table of {len(columns)} columns of text in UTF-8: "
            f"{', '.join(columns)}."
        ) from None


def _refuse_row(data: bytes, place: Path, columns: tuple[str, ...], first: int) -> None:
    """Raise for the first row with more columns between blanks than expected, if there is one."""
    for row, line in enumerate(data.split(b"\n"), first + 1):
        if (found := len(line.split())) > len(columns):
            raise FileFormatError(
                f"{place}: row {row} has {found} columns; expected {len(columns)}: "
                f"{', '.join(columns)}. Blanks and tabs end a column: names and alleles may hold "
                "none."
            )
