"""Tables of numbers in delimited text, read as a stream: the text is never held in memory.

How a table is understood (also said in the documentation of `plait.io.read_matrix`):

- The first row is a *header* when all its cells are text, except that the first may be empty. It
  may hold numbers as names (years) when it begins with a usual name of an id column (``id``,
  ``marker``, ``gene_id``, ...) or with an empty cell above an id. Any other first row that mixes
  text and numbers is data when its text is ids like those of the second row, else an error,
  because guessing would lose a row of data.
- *Id columns* are the leading columns whose first value is text, and a first column that the
  header leaves unnamed. Several are joined with ``":"``. When conditions are named, every text
  column in front of the first of them counts.
- All other columns are conditions, and every cell of them is a number or missing.
"""

import csv
import gzip
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from plait.data.labels import first_repeat
from plait.errors import FileFormatError, LabelError

Cells = list[str]
Row = tuple[int, Cells]
Table = tuple[NDArray[np.float64], list[str] | None, tuple[str, ...] | None]

MISSING = frozenset({"", "NA", "NaN", "nan", ".", "null"})
"""What may stand for a missing number."""

_ID_NAMES = frozenset(
    [
        "id",
        "ids",
        "name",
        "names",
        "marker",
        "snp",
        "rsid",
        "variant",
        "gene",
        "transcript",
        "protein",
        "effect",
        "locus",
        "feature",
        "probe",
        "pair",
        "row",
        "rownames",
        "phenotype",
        "guide",
        "perturbation",
        "sample",
    ]
)
_MISSING_ADVICE = "Missing values are written NA, NaN, nan, null, '.' or left empty."


def read_text_table(path: Path, delimiter: str, conditions: Sequence[str] | None = None) -> Table:
    """Read a table of numbers.

    Parameters
    ----------
    path : Path
        The file; compressed with gzip or not.
    delimiter : str
        The character between columns.
    conditions : sequence of str, optional
        The columns to read, in this order; others are skipped.

    Returns
    -------
    values : (J, R) float64 array
    ids : list of str or None
    names : tuple of str or None

    Raises
    ------
    FileFormatError
        The file is not such a table; the message names the file, the row (line of the file,
        counted from 1), the column and the text found.
    LabelError
        A condition is not in the header, or an id or a name occurs twice.
    """
    with _open_text(path) as lines:
        rows = _rows(path, csv.reader(lines, delimiter=delimiter, strict=True))
        first = next(rows, None)
        if first is None:
            raise FileFormatError(f"{path} is empty.")
        second = next(rows, None)
        layout = _layout(path, first, second, conditions)
        start = [row for row in (None if layout.has_header else first, second) if row is not None]
        return _read_rows(path, layout, chain(start, rows))


@dataclass(frozen=True, slots=True)
class _Layout:
    """Which columns of a table are what."""

    has_header: bool
    width: int
    id_columns: tuple[int, ...]
    value_columns: tuple[int, ...]
    names: tuple[str, ...] | None

    def column_name(self, position: int) -> str:
        """Return how a value column is called in messages."""
        number = str(self.value_columns[position] + 1)
        return number if self.names is None else f"{self.names[position]!r} ({number})"


@contextmanager
def _open_text(path: Path) -> Iterator[TextIO]:
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    opener: Callable[..., TextIO] = gzip.open if compressed else open
    with opener(path, "rt", encoding="utf-8-sig", newline="") as lines:
        yield lines


def _rows(path: Path, reader: Any) -> Iterator[Row]:
    """Yield the rows with their line numbers; blank lines may only stand at the end."""
    blank = 0
    line = 0
    try:
        for cells in reader:
            line = reader.line_num
            if not cells or (len(cells) == 1 and cells[0].isspace()):
                blank = blank or line
                continue
            if blank:
                raise FileFormatError(f"{path}: row {blank} is empty but more rows follow.")
            yield line, cells
    except csv.Error as error:
        raise FileFormatError(f"{path}: row {line + 1} cannot be read: {error}.") from None
    except UnicodeDecodeError as error:
        raise FileFormatError(
            f"{path}: the text after row {line} is not UTF-8 (byte {error.object[error.start]:#x})."
            " Save the table as UTF-8 text."
        ) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FileFormatError(
            f"{path}: the compressed file is truncated or damaged after row {line}: {error}"
        ) from None


def _number(cell: str) -> float | None:
    """Return the number in a cell, NaN where it is missing, None where it is text."""
    cell = cell.strip()
    if cell in MISSING:
        return float("nan")
    if "_" in cell:  # float() reads 1_000 as a number; a table does not mean that
        return None
    try:
        return float(cell)
    except ValueError:
        return None


def _is_text(cell: str) -> bool:
    return _number(cell) is None


def _is_missing(cell: str) -> bool:
    return cell.strip() in MISSING


def _layout(
    path: Path, first: Row, second: Row | None, conditions: Sequence[str] | None
) -> _Layout:
    if not _is_header(path, first[1], None if second is None else second[1]):
        if conditions is not None:
            raise LabelError(
                f"{path} has no header, so the conditions {', '.join(conditions)} cannot be found."
            )
        return _arrange(path, None, first[1], None)
    if second is None:
        raise FileFormatError(f"{path} has a header and no rows.")
    header, cells = [name.strip() for name in first[1]], second[1]
    if len(cells) == len(header) + 1 and _is_text(cells[0]):
        header.insert(0, "")  # R's write.table leaves the column of row names out of the header
    if len(cells) != len(header):
        raise FileFormatError(
            f"{path}: row {second[0]} has {len(cells)} columns; the header has {len(header)}."
        )
    return _arrange(path, header, cells, conditions)


def _is_header(path: Path, first: Cells, second: Cells | None) -> bool:
    text = [_is_text(cell) for cell in first]
    corner = first[0].strip().lstrip("#").lower()
    ids_below = second is not None and _is_text(second[0])
    if all(text) or (any(text) and not corner and (all(text[1:]) or ids_below)):
        return True
    if text[0] and (corner in _ID_NAMES or corner.endswith("_id")):
        return True
    if not any(text):
        return not corner and second is not None and _numbers_are_names(first, second)
    below = text if second is None else [_is_text(cell) for cell in second]
    odd = next((i for i, (a, b) in enumerate(zip(text, below, strict=False)) if a and not b), None)
    odd = None if odd == 0 and second is not None and _is_missing(second[0]) else odd
    leading = text.index(False)
    if odd is None and any(text[leading:]):
        odd = text.index(True, leading)
    if odd is None:
        return False
    raise FileFormatError(
        f"{path}: row 1 mixes numbers and text (column {odd + 1}: {first[odd]!r}) and is neither "
        f"a header nor data. If it is a header, call its first column 'id'. {_MISSING_ADVICE}"
    )


def _numbers_are_names(first: Cells, second: Cells) -> bool:
    """Tell whether a row of numbers after an empty cell is a header.

    It is when ids stand below the empty cell, and in what pandas writes of an unlabelled frame:
    ``,0,1,2`` above rows that begin with 0, 1, ...
    """
    counted = [cell.strip() for cell in first[1:]] == [str(i) for i in range(len(first) - 1)]
    return _is_text(second[0]) or (counted and second[0].strip() == "0")


def _arrange(
    path: Path, header: Cells | None, cells: Cells, conditions: Sequence[str] | None
) -> _Layout:
    """Tell id columns from value columns by the header and the first row of data."""
    width = len(cells)
    text = [_is_text(cell) for cell in cells]
    leading = next((i for i, is_text in enumerate(text) if not is_text), width)
    if header is not None and not header[0]:
        leading = max(leading, 1)
    ids, values = tuple(range(leading)), tuple(range(leading, width))
    if header is not None and conditions is not None:
        values = pick_columns(path, header, conditions)
        ids = tuple(i for i in range(min(values)) if text[i] or i < leading)
        ids = tuple(i for i in ids if i not in values)
    if not values:
        raise FileFormatError(f"{path} has no column of numbers.{_delimiter_hint(cells)}")
    names = None if header is None else tuple(header[i] for i in values)
    check_names(path, names, [i + 1 for i in values])
    return _Layout(header is not None, width, ids, values, names)


def pick_columns(path: Path, header: Sequence[str], conditions: Sequence[str]) -> tuple[int, ...]:
    """Return the positions of the conditions in the header."""
    if len(set(conditions)) < len(conditions):
        raise LabelError(f"a condition is named twice: {', '.join(conditions)}.")
    if not conditions:
        raise LabelError("the list of conditions is empty.")
    for name in conditions:
        if list(header).count(name) != 1:
            what = "occurs more than once" if name in header else "is not in the header"
            raise LabelError(
                f"{path}: the condition {name!r} {what}. The columns are: {', '.join(header)}."
            )
    return tuple(list(header).index(name) for name in conditions)


def check_names(path: Path, names: Sequence[str] | None, numbers: Sequence[int]) -> None:
    """Check that every condition has a name and that names differ."""
    if names is None:
        return
    if "" in names:
        raise FileFormatError(f"{path}: column {numbers[list(names).index('')]} has no name.")
    if len(set(names)) < len(names):
        one, other = first_repeat(names)
        raise LabelError(
            f"{path}: the name {names[one]!r} occurs more than once in the header "
            f"(columns {numbers[one]} and {numbers[other]})."
        )


def _delimiter_hint(cells: Cells) -> str:
    for delimiter, name in ((";", "';'"), ("\t", "tabs"), (",", "','")):
        if len(cells) == 1 and delimiter in cells[0]:
            return f" Its columns look separated by {name}: write commas in .csv, tabs in .tsv."
    return ""


def _picker(columns: tuple[int, ...]) -> Callable[[Cells], Sequence[str]]:
    if columns == tuple(range(columns[0], columns[-1] + 1)):
        return itemgetter(slice(columns[0], columns[-1] + 1))
    return itemgetter(*columns)


def _read_rows(path: Path, layout: _Layout, rows: Iterator[Row]) -> Table:
    values = array("d")
    ids = _Ids(path, layout)
    pick = _picker(layout.value_columns)
    blank = 0
    for line, cells in rows:
        if layout.id_columns and not any(cells):  # a spreadsheet writes blank rows as ",,,"
            blank = blank or line
            continue
        if blank:
            raise FileFormatError(f"{path}: row {blank} is empty but more rows follow.")
        if len(cells) != layout.width:
            raise FileFormatError(
                f"{path}: row {line} has {len(cells)} columns; the rows above have {layout.width}."
            )
        picked = pick(cells)
        try:
            numbers = list(map(float, picked))
        except ValueError:
            numbers = _slow_numbers(path, layout, line, picked)
        else:
            if "_" in "".join(picked):
                numbers = _slow_numbers(path, layout, line, picked)
        values.extend(numbers)
        if layout.id_columns:
            ids.add(line, cells)
    if not values:
        raise FileFormatError(f"{path} has no rows of data.")
    matrix = np.frombuffer(values, dtype=np.float64).reshape(-1, len(layout.value_columns))
    return matrix, ids.checked() if layout.id_columns else None, layout.names


class _Ids:
    """The ids of the rows, and whether their columns really hold ids."""

    def __init__(self, path: Path, layout: _Layout) -> None:
        self.path = path
        self.layout = layout
        self.labels: list[str] = []
        self.lines = array("q")
        self.texts = self.numbers = 0

    def add(self, line: int, cells: Cells) -> None:
        """Take the id of a row."""
        parts = [cells[i].strip() for i in self.layout.id_columns]
        for column, part in zip(self.layout.id_columns[1:], parts[1:], strict=True):
            # The first value of the column was text: either it or this number is a mistake.
            if not _is_text(part) and part not in MISSING:
                raise FileFormatError(
                    f"{self.path}: row {line}, column {column + 1}: found the number {part!r} in a "
                    f"column that begins with text and was taken for ids. {_MISSING_ADVICE}"
                )
        if self.texts < 2 and parts[0] not in MISSING:
            is_text = _is_text(parts[0])
            self.texts += is_text
            self.numbers += not is_text
        self.labels.append(":".join(parts))
        self.lines.append(line)

    def checked(self) -> list[str]:
        """Return the ids, which must differ and not be numbers below one text."""
        if self.texts == 1 and self.numbers:
            raise FileFormatError(
                f"{self.path}: row {self.lines[0]}, column {self.layout.id_columns[0] + 1}: found "
                f"{self.labels[0]!r} where the rows below have numbers. {_MISSING_ADVICE}"
            )
        if len(set(self.labels)) < len(self.labels):
            one, other = first_repeat(self.labels)
            raise LabelError(
                f"{self.path}: the id {self.labels[one]!r} occurs more than once (rows "
                f"{self.lines[one]} and {self.lines[other]}). Ids must differ."
            )
        return self.labels


def _slow_numbers(path: Path, layout: _Layout, line: int, picked: Sequence[str]) -> list[float]:
    """Parse a row cell by cell: one is missing, or is text, which is an error."""
    numbers = []
    for position, cell in enumerate(picked):
        number = _number(cell)
        if number is None:
            comma = cell.strip().replace(",", ".", 1)
            hint = " Write decimals with a point." if "," in cell and not _is_text(comma) else ""
            if len(picked) == 1:
                hint = hint or _delimiter_hint([cell])
            raise FileFormatError(
                f"{path}: row {line}, column {layout.column_name(position)}: found {cell!r} where "
                f"a number is expected.{hint} {_MISSING_ADVICE} If the column is not a condition, "
                "name those that are with --conditions."
            )
        numbers.append(number)
    return numbers
