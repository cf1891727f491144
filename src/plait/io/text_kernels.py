"""Compiled loops over the text of tables beside genotypes: bytes in, arrays out."""

import numpy as np

from plait.numerics.compiled import njit

_TAB, _LINE_FEED, _POINT, _ZERO, _NINE = 9, 10, 46, 48, 57
_SPACE, _LAST = 32, 126
_MOST_DIGITS = 18
"""Of whole numbers that 64 bits hold."""


@njit(nogil=True, cache=True)
def split_rows(text, begins, whole, decimal, numbers, longest):  # type: ignore[no-untyped-def]
    """Find the columns of plain rows; False where any row is not.

    Plain rows are ASCII, with a tab between columns and a line feed at the end, and no column is
    empty; the column ``whole`` has digits only, and ``decimal`` digits with a point among them, or
    none.

    Parameters
    ----------
    text : (bytes,) uint8 array
        Ends with a line feed.
    begins : (rows, columns + 1) int32 array
        Filled with where columns begin; the last one with where the next row does.
    whole, decimal : int
        Numbers of columns.
    numbers : (rows,) int64 array
        Filled with those of ``whole``.
    longest : (columns,) int64 array
        Filled with the bytes of the longest of each column.
    """
    rows, width = begins.shape[0], begins.shape[1] - 1
    longest[:] = 0
    place = 0
    for row in range(rows):
        begins[row, 0] = place
        for column in range(width):
            begin = place
            while place < text.shape[0] and _SPACE < text[place] <= _LAST:
                place += 1
            if place == begin or place == text.shape[0]:
                return False
            if text[place] != (_TAB if column < width - 1 else _LINE_FEED):
                return False
            longest[column] = max(longest[column], place - begin)
            if column == whole:
                number = np.int64(0)
                for i in range(begin, place):
                    if not _ZERO <= text[i] <= _NINE:
                        return False
                    number = 10 * number + np.int64(text[i]) - _ZERO
                numbers[row] = number
            elif column == decimal:
                points = 0
                for i in range(begin, place):
                    inside = begin < i < place - 1
                    if text[i] == _POINT and inside and points == 0:
                        points += 1
                    elif not _ZERO <= text[i] <= _NINE:
                        return False
            place += 1
            begins[row, column + 1] = place
    return place == text.shape[0] and longest[whole] <= _MOST_DIGITS


@njit(nogil=True, cache=True)
def code_points(text, begins, column, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` (rows, longest) with the characters of a column, and 0 beyond its end."""
    for row in range(out.shape[0]):
        begin = begins[row, column]
        length = begins[row, column + 1] - 1 - begin
        for i in range(out.shape[1]):
            out[row, i] = text[begin + i] if i < length else 0
