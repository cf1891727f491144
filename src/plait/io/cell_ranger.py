"""Counts of Cell Ranger: the ``.h5`` that it writes for single cells, with several modalities."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from plait.errors import DependencyError, FileFormatError

_PARTS = ("data", "indices", "indptr", "shape", "barcodes", "features")


class CellsInFile:
    """Counts in arrays of an open file, by cells.

    Parameters
    ----------
    data, indices : array-like of a file
    indptr : (cells + 1,) array
    shape : (int, int)
        Cells and features.
    features : (F,) array of int, optional
        Those that are wanted; default all.
    """

    format = "csr"

    def __init__(
        self,
        data: Any,
        indices: Any,
        indptr: NDArray[np.int64],
        shape: tuple[int, int],
        features: NDArray[np.integer] | None = None,
    ) -> None:
        self._data, self._indices, self.indptr = data, indices, indptr
        self._whole, self._features = shape, features

    @property
    def shape(self) -> tuple[int, int]:
        """Cells and features that are wanted."""
        n_features = self._whole[1] if self._features is None else len(self._features)
        return self._whole[0], n_features

    def select(self, features: NDArray[np.integer]) -> "CellsInFile":
        """Return some features, by their numbers."""
        return CellsInFile(self._data, self._indices, self.indptr, self._whole, features)

    def __getitem__(self, cells: slice) -> csr_array:
        start, stop = int(self.indptr[cells.start]), int(self.indptr[cells.stop])
        part = csr_array(
            (
                self._data[start:stop],
                self._indices[start:stop],
                self.indptr[cells.start : cells.stop + 1] - start,
            ),
            shape=(cells.stop - cells.start, self._whole[1]),
        )
        return part if self._features is None else part[:, self._features]

    def to_memory(self) -> csr_array:
        """Return all cells."""
        return self[slice(0, self._whole[0])]


@dataclass(frozen=True, eq=False)
class CellRangerCounts:
    """What a ``.h5`` of Cell Ranger holds.

    Attributes
    ----------
    counts : CellsInFile
    barcodes : (cells,) array of str
    features : (features,) array of str
        Names, of those that occur twice the ids.
    kinds : (features,) array of str
        "Gene Expression", "CRISPR Guide Capture" and others.
    """

    counts: CellsInFile
    barcodes: NDArray[np.str_]
    features: NDArray[np.str_]
    kinds: NDArray[np.str_]


@contextmanager
def open_cell_ranger(path: str | os.PathLike[str]) -> Iterator[CellRangerCounts]:
    """Open a ``.h5`` of Cell Ranger 3 or later; counts stay on disk.

    Parameters
    ----------
    path : path
        ``filtered_feature_bc_matrix.h5``.

    Yields
    ------
    CellRangerCounts
        Its counts can be read inside only.

    Raises
    ------
    FileFormatError
        There is no such file, or it is none of these.
    DependencyError
        h5py is not installed.
    """
    try:
        import h5py
    except ModuleNotFoundError as missing:
        raise DependencyError(
            "h5py is not installed, which reads .h5: pip install 'plait[singlecell]'."
        ) from missing
    if not Path(path).is_file():
        raise FileFormatError(f"there is no file {path}.")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read as .h5: {error}.") from error
    with file:
        group = file.get("matrix")
        if group is None or any(name not in group for name in _PARTS):
            raise FileFormatError(
                f"{path} has no group 'matrix' with {', '.join(_PARTS)}; expected the "
                "filtered_feature_bc_matrix.h5 of Cell Ranger 3 or later."
            )
        names, ids = (_text(group["features"][name]) for name in ("name", "id"))
        _, place, times = np.unique(names, return_inverse=True, return_counts=True)
        n_features, n_cells = (int(size) for size in group["shape"][:])
        indptr = group["indptr"][:].astype(np.int64)
        yield CellRangerCounts(
            CellsInFile(group["data"], group["indices"], indptr, (n_cells, n_features)),
            _text(group["barcodes"]),
            np.where(times[place] > 1, ids, names),
            _text(group["features"]["feature_type"]),
        )


def _text(dataset: Any) -> NDArray[np.str_]:
    return np.array([value.decode() for value in dataset[:]], dtype=np.str_)
