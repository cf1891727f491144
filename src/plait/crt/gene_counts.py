"""Counts of genes in cells: in memory, or in a file from which they are read gene by gene."""

import hashlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, issparse

from plait.data.words import counted
from plait.errors import InputError, InputTypeError
from plait.io.cell_ranger import CellsInFile

Indices = NDArray[np.integer]

_AT_ONCE = 1 << 22
"""Counts that are not 0 (of a matrix that has all: counts) that are held at once."""
_FILES = {"indices": np.dtype(np.int32), "data": np.dtype(np.float32)}


class _Folder:
    """A temporary folder that is removed with this object, at the latest when the process ends."""

    def __init__(self) -> None:
        self.place = tempfile.mkdtemp(prefix="plait-counts-")
        weakref.finalize(self, shutil.rmtree, self.place, ignore_errors=True)


class StoredCounts:
    """Counts of genes in a file by genes, of which some at a time are in memory.

    Build it with `stored_counts`.

    Parameters
    ----------
    folder : str
        Holds ``indices`` and ``data``: for each gene the cells with counts, and these.
    indptr : (genes + 1,) int array
        Where each gene begins in these.
    n_cells : int
        Cells of the file.
    cells : (cells,) array of int, optional
        Those that are wanted, ascending; default all.
    owner : object, optional
        Keeps the folder, which is removed with it. Copies in other processes have none.
    """

    def __init__(
        self,
        folder: str,
        indptr: NDArray[np.int64],
        n_cells: int,
        cells: Indices | None = None,
        owner: Any = None,
    ) -> None:
        self._folder, self._indptr, self._n_cells, self._owner = folder, indptr, n_cells, owner
        self._cells = cells
        self._place: NDArray[np.int32] | None = None
        if cells is not None:
            self._place = np.full(n_cells, -1, dtype=np.int32)
            self._place[cells] = np.arange(len(cells), dtype=np.int32)

    def __reduce__(self) -> tuple[type["StoredCounts"], tuple[Any, ...]]:
        return StoredCounts, (self._folder, self._indptr, self._n_cells, self._cells)

    @property
    def shape(self) -> tuple[int, int]:
        """Cells and genes."""
        n_cells = self._n_cells if self._cells is None else len(self._cells)
        return n_cells, len(self._indptr) - 1

    def rows(self, cells: Indices) -> "StoredCounts":
        """Return the counts of some cells, ascending."""
        chosen = cells if self._cells is None else self._cells[cells]
        return StoredCounts(self._folder, self._indptr, self._n_cells, chosen, self._owner)

    def gene(self, gene: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Return the cells with counts of a gene, ascending, and these counts."""
        start, stop = int(self._indptr[gene]), int(self._indptr[gene + 1])
        cells: NDArray[np.int32] = self._read("indices", start, stop)
        counts: NDArray[np.float32] = self._read("data", start, stop)
        if self._place is None:
            return cells, counts
        places = self._place[cells]
        kept = places >= 0
        return places[kept], counts[kept]

    def _read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        kind = _FILES[name]
        place = start * kind.itemsize
        return np.fromfile(f"{self._folder}/{name}", kind, stop - start, offset=place)

    def bounds(self) -> NDArray[np.int64]:
        """Return where each gene begins in the file: a measure of how large genes are."""
        return self._indptr


GeneCounts: TypeAlias = "csc_array | StoredCounts"
"""Counts of cells x genes; a csc_array has sorted indices and no zeros."""


def gene_of(counts: GeneCounts, gene: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the cells with counts of a gene, ascending, and these counts."""
    if isinstance(counts, StoredCounts):
        return counts.gene(gene)
    part = slice(counts.indptr[gene], counts.indptr[gene + 1])
    cells: NDArray[np.int32] = counts.indices[part]
    return cells, counts.data[part]


def genes_of(counts: GeneCounts, genes: Indices) -> csc_array:
    """Return the counts of some genes, in memory."""
    if not isinstance(counts, StoredCounts):
        return counts[:, genes]
    parts = [counts.gene(int(gene)) for gene in genes]
    bounds = np.concatenate([[0], np.cumsum([len(cells) for cells, _ in parts])]).astype(np.int64)
    cells = np.concatenate([np.empty(0, np.int32), *(cells for cells, _ in parts)])
    data = np.concatenate([np.empty(0, np.float32), *(values for _, values in parts)])
    return csc_array((data, cells, bounds), shape=(counts.shape[0], len(parts)))


def blocks_of_genes(counts: GeneCounts) -> Iterator[tuple[slice, csc_array]]:
    """Yield all genes in order, as many at a time as memory is meant for."""
    if not isinstance(counts, StoredCounts):
        yield slice(0, counts.shape[1]), counts
        return
    for genes in _cut(counts.bounds()):
        yield genes, genes_of(counts, np.arange(genes.start, genes.stop))


def rows_of(counts: GeneCounts, cells: Indices) -> GeneCounts:
    """Return the counts of some cells, ascending."""
    return counts.rows(cells) if isinstance(counts, StoredCounts) else csc_rows(counts, cells)


def csc_rows(counts: csc_array, cells: Indices) -> csc_array:
    """Return some rows, ascending, of a matrix by columns."""
    place = np.full(counts.shape[0], -1, dtype=np.int32)
    place[cells] = np.arange(len(cells), dtype=np.int32)
    rows = place[counts.indices]
    kept = rows >= 0
    bounds = np.concatenate([[0], np.cumsum(kept)])[counts.indptr]
    return csc_array((counts.data[kept], rows[kept], bounds), shape=(len(cells), counts.shape[1]))


def fingerprint_of_counts(counts: GeneCounts) -> str:
    """Return a short digest of counts, the same in memory and in a file."""
    parts = [hashlib.blake2b(digest_size=16) for _ in range(3)]
    for _, block in blocks_of_genes(counts):
        parts[0].update(np.diff(block.indptr).astype(np.int64).tobytes())
        parts[1].update(np.ascontiguousarray(block.indices, dtype=np.int32).data)
        parts[2].update(np.ascontiguousarray(block.data, dtype=np.float32).data)
    whole = hashlib.blake2b(repr(tuple(counts.shape)).encode(), digest_size=16)
    for part in parts:
        whole.update(part.digest())
    return f"blake2b:{whole.hexdigest()}"


def as_counts(source: Any, what: str, first_cell: int = 0, first_column: int = 0) -> csc_array:
    """Return counts by columns, without zeros and with sorted indices.

    Parameters
    ----------
    source : (cells, columns) array or sparse array
    what : str
        What it is, for messages.
    first_cell, first_column : int
        Where it begins in what it is a part of, for messages.

    Raises
    ------
    InputTypeError
        It is no matrix of numbers.
    InputError
        It holds what is no count.
    """
    if issparse(source):
        matrix = csc_array(source, copy=True)
    else:
        dense = np.asarray(source)
        if dense.ndim != 2 or dense.dtype.kind not in "biuf":
            raise InputTypeError(
                f"{what} are an array of {dense.dtype} with {counted(dense.ndim, 'dimension')}; "
                "expected a matrix of numbers with a row for each cell."
            )
        matrix = csc_array(dense)
    data = matrix.data
    bad = ~np.isfinite(data) | (data < 0) | (data != np.floor(data))
    if bad.any():
        place = int(np.argmax(bad))
        column = int(np.searchsorted(matrix.indptr, place, side="right")) - 1
        raise InputError(
            f"{what} are not counts in {counted(int(bad.sum()), 'place')} (first: {data[place]} "
            f"in cell {first_cell + int(matrix.indices[place]) + 1}, column "
            f"{first_column + column + 1}); give UMI counts as they were counted, not normalised "
            "ones."
        )
    matrix.sum_duplicates()
    matrix = matrix.astype(np.float32)
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return matrix


def is_on_disk(source: Any) -> bool:
    """Tell whether a matrix is one of an open file: of a backed AnnData, or `CellsInFile`."""
    is_sparse = hasattr(source, "to_memory") and hasattr(source, "format")
    return is_sparse or type(source).__module__.startswith("h5py")


def in_memory(source: Any) -> Any:
    """Return a matrix, read if it is one of a file that is open."""
    if not is_on_disk(source):
        return source
    return source.to_memory() if hasattr(source, "to_memory") else source[:]


def stored_counts(source: Any, what: str) -> StoredCounts:
    """Copy counts of a file into a temporary one by genes.

    Parameters
    ----------
    source : matrix of a backed AnnData, or plait.io.cell_ranger.CellsInFile
    what : str
        What it is, for messages.

    Returns
    -------
    StoredCounts
        8 bytes for each count that is not 0, in the folder for temporary files (``TMPDIR``); they
        are removed with the object.

    Raises
    ------
    InputError, InputTypeError
        See `as_counts`.

    Notes
    -----
    The file is read twice, in blocks of at most about 4 million counts that are not 0: to see how
    many each gene has, and to write them where they belong. Time O(counts that are not 0).
    """
    owner = _Folder()
    n_cells, n_genes = source.shape
    sizes = np.zeros(n_genes, dtype=np.int64)
    for _, genes, block in _clean_blocks(source, what):
        sizes[genes] += np.diff(block.indptr)
    indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    position = indptr[:-1].copy()
    files = {name: os.open(f"{owner.place}/{name}", os.O_WRONLY | os.O_CREAT) for name in _FILES}
    try:
        for first_cell, genes, block in _clean_blocks(source, what):
            arrays = {"indices": block.indices + first_cell, "data": block.data}
            for name, kind in _FILES.items():
                values = np.ascontiguousarray(arrays[name], dtype=kind)
                for k in np.flatnonzero(np.diff(block.indptr)).tolist():
                    part = values[block.indptr[k] : block.indptr[k + 1]]
                    place = int(position[genes.start + k]) * kind.itemsize
                    _write(files[name], part, place)
            position[genes] += np.diff(block.indptr)
    finally:
        for file in files.values():
            os.close(file)
    return StoredCounts(owner.place, indptr, n_cells, None, owner)


def _write(file: int, values: NDArray[Any], place: int) -> None:
    rest = memoryview(values.tobytes())
    while len(rest):
        written = os.pwrite(file, rest, place)
        rest, place = rest[written:], place + written


def _clean_blocks(source: Any, what: str) -> Iterator[tuple[int, slice, csc_array]]:
    """Yield the first cell, the genes and the counts of blocks of cells, or of genes."""
    n_cells, n_genes = source.shape
    kind = getattr(source, "format", "dense")
    if kind == "csc":
        for genes in _cut(_bounds_of(source, n_genes, n_cells)):
            yield 0, genes, as_counts(source[:, genes], what, first_column=genes.start)
        return
    bounds = _bounds_of(source, n_cells, n_genes)
    for cells in _cut(bounds):
        block = as_counts(source[cells], what, first_cell=cells.start)
        yield cells.start, slice(0, n_genes), block


def _bounds_of(source: Any, n_items: int, width: int) -> NDArray[np.int64]:
    """Return where each row (or column) begins among the entries of a matrix of a file."""
    if getattr(source, "format", "dense") == "dense":
        return np.arange(n_items + 1, dtype=np.int64) * width
    indptr = source.indptr if isinstance(source, CellsInFile) else source.group["indptr"][:]
    return np.asarray(indptr, dtype=np.int64)


def _cut(bounds: NDArray[np.int64]) -> Iterator[slice]:
    """Yield items in order, together with at most so many entries, or one by one."""
    start, n = 0, len(bounds) - 1
    while start < n:
        stop = int(np.searchsorted(bounds, bounds[start] + _AT_ONCE, side="right")) - 1
        stop = min(max(stop, start + 1), n)
        yield slice(start, stop)
        start = stop
