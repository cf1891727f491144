"""Which of many items have the same hash, of hashes that come in parts and are never held together.

Of all hashes the last 32 bits are held at once, 4 bytes of an item; all 64 bits only of items that
share those, which by chance are M^2 / 2^32 of M.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", np.uint32, np.uint64)
Hashes = NDArray[np.uint64]
Parts = Callable[[], Iterable[tuple[NDArray[np.intp], Hashes]]]
"""Yields numbers of items, and their hashes, in parts, the same at each call."""


def repeated(parts: Parts) -> NDArray[np.intp]:
    """Return the items whose hash another one has, too, in their order."""
    ends = _sorted_ends(parts)
    rows, hashes = _with_end_among(parts, _twice(ends))
    return rows[_among(hashes, _twice(np.sort(hashes)))]


def met(parts: Parts, others: Parts) -> NDArray[np.intp]:
    """Return the items whose hash an item of the others has, in their order."""
    ends = _sorted_ends(parts)
    _, hashes = _with_end_among(others, ends)
    found = np.unique(hashes)
    rows, hashes = _with_end_among(parts, np.unique(_ends(found)))
    return rows[_among(hashes, found)]


def _ends(hashes: Hashes) -> NDArray[np.uint32]:
    return hashes.astype(np.uint32)  # the last bits


def _sorted_ends(parts: Parts) -> NDArray[np.uint32]:
    found = bytearray()  # grows where it is: parts beside their whole would take twice its memory
    for _, hashes in parts():
        found += _ends(hashes).tobytes()
    ends = np.frombuffer(found, dtype=np.uint32)
    ends.sort()
    return ends


def _with_end_among(parts: Parts, ends: NDArray[np.uint32]) -> tuple[NDArray[np.intp], Hashes]:
    """Return the items whose hashes end in one of some ways, which are in order."""
    rows, found = [np.empty(0, np.intp)], [np.empty(0, np.uint64)]
    for numbers, hashes in parts() if len(ends) else ():
        here = _among(_ends(hashes), ends)
        rows.append(numbers[here])
        found.append(hashes[here])
    return np.concatenate(rows), np.concatenate(found)


def _twice(ordered: NDArray[Number]) -> NDArray[Number]:
    """Return the numbers that occur more than once among numbers in order."""
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def _among(values: NDArray[Number], ordered: NDArray[Number]) -> NDArray[np.bool_]:
    """Tell which values are among others in order."""
    if not len(ordered):
        return np.zeros(len(values), dtype=np.bool_)
    places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    found: NDArray[np.bool_] = ordered[places] == values
    return found
