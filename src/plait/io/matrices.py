"""Matrices of numbers with labels from files: effects, standard errors, covariances."""

import os
import pickle
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.data.labels import describe_difference, first_repeat
from plait.errors import FileFormatError, LabelError, ShapeError
from plait.io.text_tables import check_names, pick_columns, read_text_table

Array = NDArray[np.float64]

_DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
SUFFIXES = (".npy", ".npz", ".csv", ".tsv", ".tab", ".csv.gz", ".tsv.gz", ".tab.gz", ".parquet")
"""Formats that `read_matrix` understands."""


@dataclass(frozen=True, eq=False)
class LabelledMatrix:
    """A matrix read from a file.

    Attributes
    ----------
    values : (J, R) float64 array
        Read-only; missing cells are NaN. `read_square` may give (J, R, R).
    row_names : (J,) array of str or None
    column_names : tuple of str or None
    path : pathlib.Path
    """

    values: Array
    row_names: NDArray[np.str_] | None
    column_names: tuple[str, ...] | None
    path: Path

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the values."""
        return self.values.shape


def read_matrix(
    path: str | os.PathLike[str], conditions: Sequence[str] | None = None
) -> LabelledMatrix:
    """Read a matrix of numbers: one row per effect, one column per condition.

    Parameters
    ----------
    path : str or path
        ``.npy``; ``.npz`` with exactly one array; ``.csv``, ``.tsv`` or ``.tab``, also with
        ``.gz``; or ``.parquet``. A one-dimensional array is one row.
    conditions : sequence of str, optional
        Names of the columns to read, in this order. Default: every column that is not an id.

    Returns
    -------
    LabelledMatrix

    Raises
    ------
    FileFormatError
        The file is missing, damaged or not such a table. The message names file, row (line of
        the file, from 1), column and what was found.
    LabelError
        A condition is unknown; ids or names occur twice.
    ShapeError
        An array has more than two dimensions or is empty.

    Notes
    -----
    In text, a header row and leading id columns are recognised when they are not numeric; several
    id columns (``gene_id,variant_id``) are joined to one id with ``":"``. A numeric column is
    always a condition unless conditions are named or its header is empty. Missing: ``NA``,
    ``NaN``, ``nan``, ``null``, ``.`` or an empty cell. A byte order mark, Windows line ends,
    quoted fields and blank last lines are fine. In parquet, the text columns at the beginning
    (or else at the end, where pandas puts the index) are the ids.

    Text is read as a stream: memory is 8 bytes per number and the ids, not the text.
    """
    path = Path(path)
    suffix = _suffix(path)
    with _errors_named(path):
        if suffix in _DELIMITERS:
            values, ids, names = read_text_table(path, _DELIMITERS[suffix], conditions)
        elif suffix == ".parquet":
            values, ids, names = _read_parquet(path, conditions)
        else:
            if conditions is not None:
                raise LabelError(
                    f"{path} has no column names, so the conditions {', '.join(conditions)} "
                    "cannot be found."
                )
            array = _one_array(path) if suffix == ".npz" else _load_npy(path)
            values, ids, names = _as_matrix(path, array), None, None
    values.flags.writeable = False
    rows = None if ids is None else np.array(ids, dtype=np.str_)
    if rows is not None:
        rows.flags.writeable = False
    return LabelledMatrix(values, rows, names, path)


def read_effect_tables(
    bhat_path: str | os.PathLike[str],
    shat_path: str | os.PathLike[str] | None = None,
    conditions: Sequence[str] | None = None,
) -> tuple[LabelledMatrix, LabelledMatrix | None]:
    """Read a table of effects and one of standard errors that belong together.

    Parameters
    ----------
    bhat_path, shat_path : str or path
        See `read_matrix`. ``shat_path`` None: there is no table of errors (z-scores).
    conditions : sequence of str, optional
        Names of the columns to read from both.

    Returns
    -------
    bhat : LabelledMatrix
    shat : LabelledMatrix or None

    Raises
    ------
    LabelError
        Ids or names differ or are in another order; the tables are never aligned silently.
    ShapeError
        The shapes differ.
    FileFormatError
        See `read_matrix`; also when a column has the same name and the same values in both (an
        allele frequency, a position), which would be fitted as a condition.
    """
    bhat = read_matrix(bhat_path, conditions)
    if shat_path is None:
        return bhat, None
    shat = read_matrix(shat_path, conditions)
    for what, ours, theirs in (
        ("condition names", bhat.column_names, shat.column_names),
        ("ids", bhat.row_names, shat.row_names),
    ):
        if ours is not None and theirs is not None and list(ours) != list(theirs):
            difference = describe_difference(list(map(str, ours)), list(map(str, theirs)))
            raise LabelError(
                f"the {what} of {bhat.path} and {shat.path} differ: {difference}. Tables are never "
                "aligned silently: put both in the same order first."
            )
    if bhat.shape != shat.shape:
        raise ShapeError(
            f"the dimensions of {bhat.path} {bhat.shape} and {shat.path} {shat.shape} differ; "
            "they must be equal."
        )
    if conditions is None:
        _refuse_shared_columns(bhat, shat)
    return bhat, shat


def read_covariances(
    path: str | os.PathLike[str], n_conditions: int | None = None
) -> dict[str, Array]:
    """Read covariance matrices (a Ulist).

    Parameters
    ----------
    path : str or path
        ``.npy`` with a (K, R, R) array; or ``.npz`` with ``u_stack`` (K, R, R) and, if wanted,
        ``u_names`` (K,), or with one (R, R) array per key, the key being the name.
    n_conditions : int, optional
        The R that is expected.

    Returns
    -------
    dict of str to (R, R) float64 array
        In the order of the file. Without names they are called ``U_1``, ``U_2``, ...

    Raises
    ------
    FileFormatError
        The file is missing, damaged or holds something else.
    ShapeError
        A matrix has another shape; the message names the file and the expected shape.
    """
    path = Path(path)
    suffix = _suffix(path, (".npy", ".npz"))
    with _errors_named(path):
        arrays = {"u_stack": _load_npy(path)} if suffix == ".npy" else _load_npz(path)
    if not arrays:
        raise FileFormatError(f"{path} holds no array.")
    if "u_stack" in arrays:
        stack = _numeric(path, arrays["u_stack"], "u_stack")
        if stack.ndim != 3 or stack.shape[1] != stack.shape[2] or len(stack) == 0:
            raise ShapeError(f"{path} has shape {stack.shape}; expected (K, R, R).")
        names = [str(name) for name in np.atleast_1d(arrays.get("u_names", np.zeros(0)))]
        if "u_names" not in arrays:
            names = [f"U_{i + 1}" for i in range(len(stack))]
        if len(names) != len(stack):
            raise ShapeError(f"{path} has {len(stack)} matrices and {len(names)} u_names.")
        if len(set(names)) < len(names):
            repeated = names[first_repeat(names)[1]]
            raise LabelError(f"{path}: the name {repeated!r} occurs more than once in u_names.")
        matrices = dict(zip(names, stack, strict=True))
    else:
        matrices = {name: _numeric(path, value, name) for name, value in arrays.items()}
    width = n_conditions or next(iter(matrices.values())).shape[-1:]
    expected = (width, width) if isinstance(width, int) else (*width, *width)
    for name, matrix in matrices.items():
        if matrix.shape != expected:
            raise ShapeError(f"{path}: {name!r} has shape {matrix.shape}; expected {expected}.")
    return matrices


def read_square(
    path: str | os.PathLike[str], conditions: Sequence[str] | None = None
) -> LabelledMatrix:
    """Read a square matrix, such as the correlation of the errors.

    Parameters
    ----------
    path : str or path
        See `read_matrix`; an array file may also hold one matrix per effect, (J, R, R).
    conditions : sequence of str, optional
        The conditions it must be for. Where the file has names they must be these, in this order.

    Raises
    ------
    ShapeError
        The matrix is not square, or not of the number of conditions.
    LabelError
        Row names, column names and conditions are not the same, in the same order.
    FileFormatError
        See `read_matrix`.
    """
    path = Path(path)
    suffix = _suffix(path)
    if suffix in (".npy", ".npz"):
        with _errors_named(path):
            array = _one_array(path) if suffix == ".npz" else _load_npy(path)
        values = _numeric(path, array) if array.ndim == 3 else _as_matrix(path, array)
        values.flags.writeable = False
        matrix = LabelledMatrix(values, None, None, path)
    else:
        matrix = read_matrix(path)
    width = matrix.shape[-1] if conditions is None else len(conditions)
    if matrix.shape[-2:] != (width, width):
        raise ShapeError(f"{path} has shape {matrix.shape}; expected ({width}, {width}).")
    known: list[tuple[str, Any]] = [
        ("conditions", conditions),
        ("column names", matrix.column_names),
    ]
    known.append(("row names", matrix.row_names))
    named = [(what, list(map(str, names))) for what, names in known if names is not None]
    for (what, ours), (other, theirs) in pairwise(named):
        if ours != theirs:
            raise LabelError(
                f"{path}: the {what} and the {other} differ: {describe_difference(ours, theirs)}."
            )
    return matrix


def _suffix(path: Path, allowed: tuple[str, ...] = SUFFIXES) -> str:
    """Return the suffix without ``.gz``, after checking that there is such a file."""
    name = path.name.lower()
    if not name.endswith(allowed):
        raise FileFormatError(
            f"{path}: the format is not known by its name; expected one of {', '.join(allowed)}."
        )
    if not path.exists():
        raise FileFormatError(f"{path} does not exist.")
    if path.is_dir():
        raise FileFormatError(f"{path} is a folder; a file is expected.")
    return Path(name.removesuffix(".gz")).suffix


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    """Turn what libraries raise on an unreadable file into an error that names the file."""
    try:
        yield
    except (FileFormatError, LabelError, ShapeError):
        raise
    except PermissionError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror}.") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError) as error:
        raise FileFormatError(f"{path} is damaged or truncated: {error}") from None
    except (ValueError, pickle.UnpicklingError, SyntaxError) as error:
        if "allow_pickle" in str(error):
            raise FileFormatError(
                f"{path} holds Python objects (pickled), which are not read; save numbers."
            ) from None
        raise FileFormatError(f"{path} is damaged or truncated: {error}") from None


def _load_npy(path: Path) -> NDArray[Any]:
    with path.open("rb") as file:
        if file.read(6) != b"\x93NUMPY":
            raise FileFormatError(f"{path} is not a .npy file.")
    # Mapping compares the size of the file with its header before anything is allocated.
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    return np.array(mapped)


def _load_npz(path: Path) -> dict[str, NDArray[Any]]:
    if not zipfile.is_zipfile(path):
        raise FileFormatError(f"{path} is damaged or truncated: it is not a .npz archive.")
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _one_array(path: Path) -> NDArray[Any]:
    arrays = _load_npz(path)
    if len(arrays) != 1:
        raise FileFormatError(
            f"{path} holds {len(arrays)} arrays ({', '.join(arrays)}); expected exactly one."
        )
    return next(iter(arrays.values()))


def _numeric(path: Path, array: NDArray[Any], name: str | None = None) -> Array:
    if array.dtype.kind not in "fiu":
        what = f"{path}: {name!r}" if name else str(path)
        raise FileFormatError(f"{what} holds values of type {array.dtype}; expected real numbers.")
    return np.ascontiguousarray(array, dtype=np.float64)


def _as_matrix(path: Path, array: NDArray[Any]) -> Array:
    values = _numeric(path, array)
    if array.ndim not in (1, 2):
        raise ShapeError(f"{path} has {array.ndim} dimensions {array.shape}; expected two.")
    values = np.atleast_2d(values)
    if values.size == 0:
        raise ShapeError(f"{path} is empty: its shape is {array.shape}.")
    return values


def _read_parquet(
    path: Path, conditions: Sequence[str] | None
) -> tuple[Array, list[str] | None, tuple[str, ...] | None]:
    import polars as pl
    from polars.exceptions import PolarsError

    try:
        schema = pl.read_parquet_schema(path)
        header = list(schema)
        text = [not dtype.is_numeric() for dtype in schema.values()]
        leading = text.index(False) if False in text else len(text)
        trailing = 0 if leading else text[::-1].index(False)
        ids = header[:leading] or header[len(header) - trailing :]
        names = [name for name in header if name not in ids]
        if conditions is not None:
            names = [header[i] for i in pick_columns(path, header, conditions)]
        for name in names:
            if not schema[name].is_numeric():
                raise FileFormatError(
                    f"{path}: column {name!r} holds {schema[name]}; expected numbers. If it is not "
                    "a condition, name those that are with --conditions."
                )
        if not names:
            raise FileFormatError(f"{path} has no column of numbers.")
        check_names(path, names, range(1, len(names) + 1))
        frame = pl.read_parquet(path, columns=[*ids, *names])
    except PolarsError as error:
        raise FileFormatError(f"{path} is damaged or truncated: {error}") from None
    if frame.height == 0:
        raise FileFormatError(f"{path} has no rows of data.")
    values = np.ascontiguousarray(frame.select(pl.col(names).cast(pl.Float64)).to_numpy())
    labels = None
    if ids:
        parts = [pl.col(name).cast(pl.String).fill_null("") for name in ids]
        labels = frame.select(pl.concat_str(parts, separator=":")).to_series().to_list()
        if len(set(labels)) < len(labels):
            one, other = first_repeat(labels)
            raise LabelError(
                f"{path}: the id {labels[one]!r} occurs more than once (rows {one + 1} and "
                f"{other + 1}). Ids must differ."
            )
    return values, labels, tuple(names)


def _refuse_shared_columns(bhat: LabelledMatrix, shat: LabelledMatrix) -> None:
    if bhat.column_names is None or shat.column_names is None:
        return
    shared = [
        name
        for i, name in enumerate(bhat.column_names)
        if np.array_equal(bhat.values[:, i], shat.values[:, i], equal_nan=True)
        and not np.isnan(bhat.values[:, i]).all()
    ]
    if not shared:
        return
    others = [name for name in bhat.column_names if name not in shared]
    hint = (
        f"name the conditions, for example --conditions {','.join(others)}"
        if others
        else "are they the same table? Otherwise name the conditions with --conditions"
    )
    raise FileFormatError(
        f"{bhat.path} and {shat.path} hold the same values in column"
        f"{'s' if len(shared) > 1 else ''} {', '.join(map(repr, shared))}, which cannot be both "
        f"effects and standard errors: {hint}."
    )
