"""Counts of Cell Ranger: the ``.h5`` that it writes for single cells, with several modalities."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from plait.errors import DependencyError, FileFormatError, InputError, LabelError

if TYPE_CHECKING:
    from anndata import AnnData

GENES, GUIDES = "Gene Expression", "CRISPR Guide Capture"
"""Types of features."""
GEM_WELL = "gem_well"
"""What cells have in common that were in one well of a chip: the number behind their barcodes."""

_PARTS = (
    *("data", "indices", "indptr", "shape", "barcodes"),
    *("features/name", "features/id", "features/feature_type"),
)
_TARGET = "features/target_gene_name"
_NO_TARGET = ("", "None", "Ignore")
_NON_TARGETING = "Non-Targeting"
_AT_ONCE = 4_000_000
"""Counts that are read together."""


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
        Names; the ids where two features of one type have the same name. An antibody or a guide
        may be called like a gene.
    kinds : (features,) array of str
        "Gene Expression", "CRISPR Guide Capture" and others.
    targets : (features,) array of str or None
        ``target_gene_name`` of the feature reference, "" of features without a target; what it
        calls "Non-Targeting" is "non-targeting". None where the reference did not have it.
    """

    counts: CellsInFile
    barcodes: NDArray[np.str_]
    features: NDArray[np.str_]
    kinds: NDArray[np.str_]
    targets: NDArray[np.str_] | None = None

    def places(self, kind: str) -> NDArray[np.intp]:
        """Return where features of a type are.

        Raises
        ------
        InputError
            There is none.
        """
        found = np.flatnonzero(self.kinds == kind)
        if not len(found):
            there = ", ".join(map(repr, np.unique(self.kinds).tolist()))
            raise InputError(f"there are no features of the type {kind!r}; there are {there}.")
        return found

    def target_of_guides(self) -> dict[str, str]:
        """Return the target of each guide that has one.

        Raises
        ------
        LabelError
            The feature reference did not say (also a KeyError).
        """
        if self.targets is None:
            raise LabelError(
                "the file does not say what guides target: its feature reference had no column "
                "'target_gene_name'. Give a table with grna_id and grna_target (targets=...)."
            )
        places = self.places(GUIDES)
        named = places[self.targets[places] != ""]
        return dict(zip(self.features[named].tolist(), self.targets[named].tolist(), strict=True))


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
        names, ids, kinds = (
            _text(group[f"features/{name}"]) for name in ("name", "id", "feature_type")
        )
        of_kind = np.stack([names, kinds])
        _, place, times = np.unique(of_kind, axis=1, return_inverse=True, return_counts=True)
        n_features, n_cells = (int(size) for size in group["shape"][:])
        indptr = group["indptr"][:].astype(np.int64)
        yield CellRangerCounts(
            CellsInFile(group["data"], group["indices"], indptr, (n_cells, n_features)),
            _text(group["barcodes"]),
            np.where(times[place.ravel()] > 1, ids, names),
            kinds,
            _targets(_text(group[_TARGET])) if _TARGET in group else None,
        )


def gem_wells(barcodes: NDArray[np.str_]) -> NDArray[np.str_]:
    """Return the well of each cell: what is behind the last "-" of its barcode, or "1"."""
    return np.array([name.rpartition("-")[2] if "-" in name else "1" for name in barcodes])


def screen_from_cell_ranger(path: str | os.PathLike[str], targets: Any = None) -> "AnnData":
    """Read the guides of a ``.h5`` of Cell Ranger, for tests of programs.

    Parameters
    ----------
    path : path
        ``filtered_feature_bc_matrix.h5``.
    targets : table or mapping, optional
        What guides target. Default ``target_gene_name`` of the feature reference.

    Returns
    -------
    AnnData
        Without expression. ``obsm["guide_umis"]`` are counts of guides, ``uns["guide_names"]`` and
        ``uns["guide2gene"]`` (of a table ``uns["grna_target_table"]``) say what they are;
        ``obs`` has ``n_umis`` and ``n_nonzero``, counts of genes, and ``gem_well``, the number
        behind the barcodes.

    Raises
    ------
    FileFormatError, DependencyError, InputError, LabelError
        See `open_cell_ranger`, `CellRangerCounts.places` and `CellRangerCounts.target_of_guides`.
    """
    with open_cell_ranger(path) as found:
        import anndata
        import pandas as pd

        genes, guides = (found.counts.select(found.places(kind)) for kind in (GENES, GUIDES))
        known = found.target_of_guides() if targets is None else targets
        n_umis, n_nonzero = _sums(genes)
        obs = pd.DataFrame(
            {
                "n_umis": n_umis,
                "n_nonzero": n_nonzero,
                GEM_WELL: pd.Categorical(gem_wells(found.barcodes)),
            },
            index=found.barcodes.astype(object),
        )
        return anndata.AnnData(
            obs=obs,
            obsm={"guide_umis": guides.to_memory()},
            uns={
                "guide_names": found.features[found.places(GUIDES)],
                "grna_target_table" if hasattr(known, "columns") else "guide2gene": known,
            },
        )


def _sums(counts: CellsInFile) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return for each cell the sum of its counts and how many are not 0, in blocks of cells."""
    n_umis = np.zeros(counts.shape[0])
    n_nonzero = np.zeros(counts.shape[0], dtype=np.int64)
    start = 0
    while start < len(n_umis):
        last = int(np.searchsorted(counts.indptr, counts.indptr[start] + _AT_ONCE, side="right"))
        cells = slice(start, min(max(last - 1, start + 1), len(n_umis)))
        block = counts[cells]
        n_umis[cells] = block.sum(axis=1)
        n_nonzero[cells] = (block != 0).sum(axis=1)
        start = cells.stop
    return n_umis, n_nonzero


def _targets(given: NDArray[np.str_]) -> NDArray[np.str_]:
    known = np.where(np.isin(given, _NO_TARGET), "", given)
    return np.where(known == _NON_TARGETING, _NON_TARGETING.lower(), known)


def _text(dataset: Any) -> NDArray[np.str_]:
    return np.array([value.decode() for value in dataset[:]], dtype=np.str_)
