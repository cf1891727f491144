"""Arrays that stay in their store: read by rows, written by rows, never held whole.

A store that is filled block by block is laid out first (`lay_out`), then regions are written in
any order and by any process (`write_rows`), and at last it is marked complete (`complete`). Its
chunks depend on the shape of the data alone: the same numbers make the same files.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from plait.io.store import local_path

_READ_BYTES = 1 << 25
_CHUNK_BYTES = 1 << 23
_ROWS = 1024
_MOST_ROWS = 65_536


class StoredArray:
    """An array in a store that is read when it is indexed.

    Parameters
    ----------
    url : str or path
        The store.
    name : str
        The array inside it.

    Notes
    -----
    ``array[rows]`` with a slice or row numbers reads these rows; ``np.asarray(array)`` reads all of
    them. Text comes as Python strings (an array of objects): in fixed-width text a single long
    label would make all others as long. It can be sent to other processes, wherever they run.
    """

    def __init__(self, url: str | os.PathLike[str], name: str) -> None:
        import zarr

        self.url, self.name = place_of(url), name
        self._array: Any = zarr.open_array(self.url, path=name, mode="r")

    def __reduce__(self) -> tuple[type["StoredArray"], tuple[str, str]]:
        return StoredArray, (self.url, self.name)

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(self._array.shape)

    @property
    def ndim(self) -> int:
        """Number of its dimensions."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of its elements."""
        kind: np.dtype[Any] = self._array.dtype
        return kind

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        is_single = isinstance(index, int | np.integer)
        if isinstance(index, np.ndarray | list) and np.asarray(index).dtype.kind in "biu":
            values = self._array.oindex[np.asarray(index)]
        else:
            values = self._array[index]
        if np.asarray(values).dtype.kind not in "OT":
            return values
        return str(values) if is_single else np.asarray(values).astype(object)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.shape))
        return f"StoredArray({self.name}: {shape} {self.dtype}, in {self.url})"


def place_of(url: str | os.PathLike[str]) -> str:
    """Return where a store is, for processes with another working directory too."""
    local = local_path(url)
    return os.fspath(url) if local is None else os.path.realpath(local)


def has_array(url: str | os.PathLike[str], name: str) -> bool:
    """Tell whether a store has an array of this name."""
    import zarr

    return name in zarr.open_group(os.fspath(url), mode="r")


@dataclass(frozen=True, slots=True)
class Layout:
    """An array of a store that is filled by rows.

    Attributes
    ----------
    dims : tuple of str
    shape : tuple of int
    dtype : str
        A NumPy type, or ``"str"`` for text.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str = "float64"


def chunk_rows(bytes_per_row: int) -> int:
    """Return the rows of a chunk: a power of two, at least 1024, of at most about 8 MiB.

    Parameters
    ----------
    bytes_per_row : int
        Bytes of a row in the widest array.
    """
    rows = min(_MOST_ROWS, max(_ROWS, _CHUNK_BYTES // max(bytes_per_row, 1)))
    return int(2 ** (rows.bit_length() - 1))


def lay_out(url: str | os.PathLike[str], arrays: Mapping[str, Layout], rows: int) -> None:
    """Make a store of empty arrays.

    Parameters
    ----------
    url : str or path
        A path or any fsspec URL; what is there is replaced.
    arrays : mapping of str to Layout
        An array of no rows is one that will be appended to.
    rows : int
        Rows of a chunk. Two processes may write at the same time where they write other chunks.
    """
    import zarr
    from zarr.codecs import BloscCodec

    group = zarr.open_group(os.fspath(url), mode="w", zarr_format=3)
    for name, layout in arrays.items():
        is_text = layout.dtype == "str"
        fast = BloscCodec(cname="zstd", clevel=1, shuffle="shuffle")
        group.create_array(
            name,
            shape=layout.shape,
            chunks=(min(rows, layout.shape[0] or rows), *layout.shape[1:]),
            dtype="str" if is_text else layout.dtype,
            dimension_names=layout.dims,
            compressors="auto" if is_text else fast,
            fill_value="" if is_text else np.nan if layout.dtype.startswith("f") else 0,
        )


def write_rows(
    url: str | os.PathLike[str], rows: slice, arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Write some rows of the arrays of a store."""
    import zarr

    group = zarr.open_group(os.fspath(url), mode="r+")
    for name, values in arrays.items():
        is_text = values.dtype.kind in "OTU"
        group[name][rows] = values.astype(object) if is_text else values  # type: ignore[index]


def complete(url: str | os.PathLike[str], attributes: Mapping[str, Any]) -> None:
    """Mark a store as complete, with its attributes."""
    import zarr

    zarr.open_group(os.fspath(url), mode="r+").attrs.update({**attributes, "complete": True})


def parts_of(array: Any, size: int = _READ_BYTES) -> Iterator[slice]:
    """Yield the rows of an array in parts of about 32 MiB (``size``), of whole grains, in order.

    For arrays in memory and stored ones alike: what goes over them part by part needs memory for a
    part only.
    """
    shape = array.shape
    width = int(np.prod(shape[1:], dtype=np.int64)) * max(array.dtype.itemsize, 8)
    step = max(_ROWS, size // max(width, 1) // _ROWS * _ROWS)
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def find_label(labels: Any, label: str) -> list[int]:
    """Return the places of a label among labels in memory or in a store."""
    found: list[int] = []
    for rows in parts_of(labels):
        found += (rows.start + np.flatnonzero(np.asarray(labels[rows]) == label)).tolist()
    return found
