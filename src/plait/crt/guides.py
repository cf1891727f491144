"""Guides of cells: their matrix, their names, their targets, and the cells of a target."""

import json
import logging
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csc_array, issparse

from plait.data.labels import require_distinct
from plait.data.words import counted, listed
from plait.errors import InputError, InputTypeError, LabelError, ShapeError
from plait.io.anndata import get_from_adata_any, get_from_uns

if TYPE_CHECKING:
    from pandas import DataFrame

_NONE = np.empty(0, dtype=np.intp)
_MOST_NAMED = 5
_log = logging.getLogger("plait.crt")


def to_csc_matrix(assignment: Any) -> csc_array:
    """Return guides of cells as a sparse matrix by columns, a copy without explicit zeros.

    Parameters
    ----------
    assignment : (N, G) DataFrame, array or sparse array
        Numbers or truth values; anything but 0 is present.

    Returns
    -------
    (N, G) csc_array
        Rows ascending in each column.

    Raises
    ------
    InputError
        An entry is negative or not finite.
    InputTypeError, ShapeError
        It is no matrix of numbers.
    """
    if issparse(assignment):
        matrix = csc_array(assignment, copy=True)
    elif hasattr(assignment, "iloc"):
        matrix = _sparse_frame(assignment)
    else:
        dense = np.asarray(assignment)
        if dense.ndim != 2:
            raise ShapeError(
                f"the guide assignment has {counted(dense.ndim, 'dimension')}; expected a row for "
                "each cell and a column for each guide."
            )
        matrix = csc_array(dense) if dense.dtype.kind in "biuf" else dense
    if matrix.dtype.kind not in "biuf":
        raise InputTypeError(
            f"the guide assignment holds {matrix.dtype}; expected numbers or truth values."
        )
    bad = ~np.isfinite(matrix.data) | (matrix.data < 0)
    if bad.any():
        place = int(np.argmax(bad))
        column = int(np.searchsorted(matrix.indptr, place, side="right")) - 1
        raise InputError(
            f"the guide assignment of cell {int(matrix.indices[place]) + 1} and guide {column + 1} "
            f"(from 1) is {matrix.data[place]}; expected 0 where a guide is absent and a positive "
            "number where it is present."
        )
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return matrix


def build_gene_to_cols(
    guide_names: Sequence[str], guide2gene: Mapping[str, str]
) -> dict[str, NDArray[np.intp]]:
    """Return the columns of each target's guides, ascending; targets in sorted order.

    Parameters
    ----------
    guide_names : (G,) sequence of str
    guide2gene : mapping of str to str
        Targets of guides. Guides that are no column are counted in the log and left out; columns
        without a target belong to none.

    Returns
    -------
    dict of str to (n,) array of int

    Raises
    ------
    InputError
        No guide has a target.
    InputTypeError
        The names are no sequence, or the targets no mapping (also a TypeError).
    """
    if not isinstance(guide2gene, Mapping):
        raise InputTypeError(
            f"the targets are of type {type(guide2gene).__name__}; give a mapping of guides to "
            "targets."
        )
    guide_names = as_names(guide_names)
    columns: dict[str, list[int]] = {}
    for column, guide in enumerate(guide_names):
        if guide in guide2gene:
            columns.setdefault(guide2gene[guide], []).append(column)
    if not columns:
        some = ", ".join(map(repr, list(guide2gene)[:2])) or "nothing"
        raise InputError(
            f"no target has a guide: the mapping has {some} and the columns of the guide "
            f"assignment are {', '.join(map(repr, guide_names[:2]))}. Names must agree exactly."
        )
    absent = len(set(guide2gene) - set(guide_names))
    if absent:
        _log.info("not in the guide assignment: %s of the mapping", counted(absent, "guide"))
    return {gene: np.array(columns[gene], dtype=np.intp) for gene in sorted(columns)}


def warn_of_guides_without_target(
    guide_names: Sequence[str], with_target: Container[str], what_of_them: str
) -> None:
    """Log guides that are in no test, as where a table of targets is incomplete."""
    if others := [repr(guide) for guide in guide_names if guide not in with_target]:
        _log.warning(
            "%d of %d guides have no target and %s: %s",
            len(others), len(guide_names), what_of_them, listed(others, _MOST_NAMED),
        )  # fmt: skip


def union_obs_idx_from_cols(G_csc: csc_array, cols: ArrayLike) -> NDArray[np.int32]:
    """Return the rows with something stored in any of some columns, ascending, each once.

    Parameters
    ----------
    G_csc : (N, G) sparse array by columns
        Without explicit zeros (`to_csc_matrix`).
    cols : sequence of int
        Columns, from 0.

    Returns
    -------
    (n,) int32 array

    Raises
    ------
    InputTypeError
        The matrix is not sparse by columns, or the columns are no whole numbers (also a TypeError).
    InputError
        One is no column.
    """
    if not issparse(G_csc) or G_csc.format != "csc":
        raise InputTypeError(
            f"the guides are of type {type(G_csc).__name__}; give what to_csc_matrix returns."
        )
    if not np.size(cols):
        return np.empty(0, dtype=np.int32)
    parts = [
        G_csc.indices[G_csc.indptr[j] : G_csc.indptr[j + 1]]
        for j in guide_columns(cols, G_csc.shape[1])
    ]
    # NumPy's unique hashes first, which takes ten times as long as to sort.
    rows = np.sort(np.concatenate(parts))
    return rows[np.diff(rows, prepend=-1) > 0].astype(np.int32)


def guide_columns(guide_idx: ArrayLike, n_guides: int) -> NDArray[np.intp]:
    """Return a set of columns, ascending, each once.

    Raises
    ------
    InputError
        The set is empty, or one is no column.
    InputTypeError
        They are not whole numbers: a mask would be taken for the columns 0 and 1.
    """
    given = np.asarray(guide_idx)
    if not given.size:
        raise InputError("the set of guides is empty.")
    if given.dtype.kind not in "iu":
        raise InputTypeError(
            f"the set of guides holds {given.dtype}; give positions of columns, as whole numbers."
        )
    columns = np.unique(given)
    if columns[0] < 0 or columns[-1] >= n_guides:
        wrong = columns[0] if columns[0] < 0 else columns[-1]
        raise InputError(
            f"the set of guides has the column {wrong}; the screen has "
            f"{counted(n_guides, 'guide')}, from 0."
        )
    return columns.astype(np.intp)


def as_names(names: str | Iterable[str]) -> tuple[str, ...]:
    """Return names of targets; a text is one name, not its letters.

    Raises
    ------
    InputTypeError
        They are no names (also a TypeError).
    """
    if not isinstance(names, Iterable):
        raise InputTypeError(f"{names!r} was given for names; give a text or several.")
    return (names,) if isinstance(names, str) else tuple(str(name) for name in names)


def indicator_matrix(G: csc_array, sets: Iterable[ArrayLike]) -> csc_array:
    """Return for each set of columns which rows have something stored in any of them.

    Parameters
    ----------
    G : (N, G) csc_array
    sets : J sequences of int

    Returns
    -------
    (N, J) csc_array of int8
    """
    from plait.crt.treated_kernels import unite

    given = [np.asarray(part) if np.size(part) else _NONE for part in sets]
    chosen = [part.astype(np.intp, copy=False) for part in given]
    columns = np.concatenate([_NONE, *chosen])
    if any(part.dtype.kind not in "iu" for part in given) or not (
        0 <= columns.min(initial=0) <= columns.max(initial=-1) < G.shape[1]
    ):
        for part in given:
            if part.size:
                guide_columns(part, G.shape[1])  # says which is wrong
    united = np.empty(np.diff(G.indptr)[columns].sum(), dtype=np.int32)
    found = np.empty(len(chosen) + 1, dtype=np.int64)
    unite(
        G.indptr.astype(np.int64),
        G.indices.astype(np.int32, copy=False),
        columns,
        np.cumsum([len(part) for part in chosen], dtype=np.int64),
        np.full(G.shape[0], -1, dtype=np.int32),
        united,
        found,
    )
    indices = united[: found[-1]]
    return csc_array(
        (np.ones(len(indices), dtype=np.int8), indices, found), shape=(G.shape[0], len(chosen))
    )


def guide_labels(adata: Any, assignment: Any, key: str) -> tuple[str, ...]:
    """Return the names of an assignment's columns: its own, or those under a key of ``uns``."""
    given = getattr(assignment, "columns", None)
    if given is None:
        given = get_from_uns(adata, key)
    if given is None:
        raise InputError(f"guide column names are required: pass a DataFrame or uns[{key!r}].")
    names = tuple(str(name) for name in given)
    shape = np.shape(assignment)
    if len(shape) != 2:
        raise ShapeError(
            f"the guide assignment has {counted(len(shape), 'dimension')}; expected a row for each "
            "cell and a column for each guide."
        )
    if len(names) != shape[1]:
        raise ShapeError(
            f"the guide assignment has {counted(len(names), 'name')} of guides and "
            f"{counted(shape[1], 'column')}."
        )
    require_distinct("guide", names)
    return names


def guide_targets(adata: Any, key: str) -> dict[str, str]:
    """Return the target of each guide that has one, from what an AnnData holds under a key."""
    return targets_of(get_from_adata_any(adata, key), repr(key))


def targets_of(source: Any, what: str) -> dict[str, str]:
    """Return the target of each guide that has one.

    Parameters
    ----------
    source : mapping, str or table
        Guides and their targets, the same as JSON, or a table with ``grna_id`` and ``grna_target``.
    what : str
        What it is, for messages.

    Raises
    ------
    InputError
        It is text but not JSON, or a guide is there twice.
    InputTypeError
        It is something else.
    LabelError
        It is a table without one of the columns.
    """
    if isinstance(source, str):
        try:
            source = json.loads(source)
        except json.JSONDecodeError as error:
            raise InputError(f"{what} is text but not JSON: {error}.") from None
    if hasattr(source, "columns"):
        pairs = _pairs_of_table(source, list(source.columns), what)
    elif hasattr(source, "items"):
        is_table = "grna_id" in source and "grna_target" in source
        pairs = _pairs_of_table(source, list(source), what) if is_table else list(source.items())
    else:
        raise InputTypeError(
            f"{what} is a {type(source).__name__}; expected a mapping of guides to their targets, "
            "or a table with 'grna_id' and 'grna_target'."
        )
    return {
        str(guide): str(gene)
        for guide, gene in pairs
        # A target that is NaN or blank is none.
        if gene is not None and gene == gene and str(gene).strip()
    }


def _pairs_of_table(source: Any, columns: Sequence[Any], what: str) -> list[tuple[Any, Any]]:
    for name in ("grna_id", "grna_target"):
        if name not in columns:
            raise LabelError(
                f"{what} is a table without a column {name!r}; it has "
                f"{', '.join(map(repr, columns[:10]))}."
            )
    guides, targets = np.asarray(source["grna_id"]), np.asarray(source["grna_target"])
    require_distinct("guide", [str(name) for name in guides])
    return list(zip(guides.tolist(), targets.tolist(), strict=True))


def _sparse_frame(frame: "DataFrame") -> csc_array:
    # Column by column: N x G dense numbers may not fit in memory.
    columns = [np.asarray(frame.iloc[:, j]) for j in range(frame.shape[1])]
    for name, column in zip(frame.columns, columns, strict=True):
        if column.dtype.kind not in "biuf":
            raise InputTypeError(
                f"the guide {name!r} of the guide assignment holds {column.dtype}; expected "
                "numbers or truth values."
            )
    rows = [np.flatnonzero(column) for column in columns]
    bounds = np.concatenate([[0], np.cumsum([len(part) for part in rows])]).astype(np.int64)
    entries = [column[part] for column, part in zip(columns, rows, strict=True)]
    return csc_array(
        (
            np.concatenate([np.empty(0, np.int8), *entries]),
            np.concatenate([np.empty(0, np.int32), *rows]).astype(np.int32),
            bounds,
        ),
        shape=frame.shape,
    )
