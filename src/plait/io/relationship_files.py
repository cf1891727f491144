"""Relationship matrices: tables, and the binary files of GCTA.

These are ``.grm.bin``, ``.grm.N.bin`` and ``.grm.id``. The two binary files hold the lower triangle
with its diagonal, row by row, in single precision: relationships, and the number of variants behind
each of them.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.data.words import counted
from plait.errors import (
    FileFormatError,
    InputError,
    LabelError,
    MissingSidecarError,
    ShapeError,
    TruncatedFileError,
)
from plait.io.atomic import check_writable, replace_file
from plait.io.genotype_files import distinct_samples, family_samples

Array = NDArray[np.float64]

SUFFIXES = (".grm.bin", ".grm.N.bin", ".grm.id")
_FLOAT = np.dtype("<f4")
_ROWS = 1024


@dataclass(frozen=True, eq=False)
class RelationshipFile:
    """What GCTA's files hold.

    Attributes
    ----------
    samples : (N,) array of str
        Their own names, or ``family:name`` where those repeat.
    families : (N,) array of str
    matrix : (N, N) array
    n_variants : (N, N) array or None
        How many variants each relationship is from; None where there is no ``.grm.N.bin``.
    """

    samples: NDArray[np.str_]
    families: NDArray[np.str_]
    matrix: Array
    n_variants: Array | None = None


def relationship_paths(prefix: str | os.PathLike[str]) -> tuple[Path, Path, Path]:
    """Return the three files of a prefix; the name of one of them will do as well."""
    text = os.fspath(prefix)
    for suffix in SUFFIXES:
        text = text.removesuffix(suffix)
    return Path(f"{text}.grm.bin"), Path(f"{text}.grm.N.bin"), Path(f"{text}.grm.id")


def check_relationships_writable(prefix: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Refuse a prefix whose files cannot be written, before the work starts."""
    for path in relationship_paths(prefix):
        check_writable(path, overwrite)


def write_relationships(
    prefix: str | os.PathLike[str],
    matrix: ArrayLike,
    samples: Sequence[str] | NDArray[np.str_],
    n_variants: ArrayLike,
    families: Sequence[str] | NDArray[np.str_] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write relationships as GCTA does.

    Parameters
    ----------
    prefix : path
        The files are ``prefix.grm.bin``, ``prefix.grm.N.bin`` and ``prefix.grm.id``.
    matrix : (N, N) array
        Symmetric; kept in single precision.
    samples : (N,) names
        Without blanks.
    n_variants : int or (N, N) array
        Variants behind each relationship.
    families : (N,) names, optional
        Default the names of the samples, as PLINK does where there are no families.
    overwrite : bool

    Raises
    ------
    ShapeError, InputError, LabelError
        The matrix is not square, not symmetric or not finite; a name has blanks.
    OutputError
        A file exists or cannot be written.
    """
    values = np.asarray(matrix)
    names = np.asarray(samples, dtype=np.str_)
    if values.shape != (len(names), len(names)):
        raise ShapeError(
            f"relationships have shape {values.shape}; there are {len(names)} samples."
        )
    counts = np.asarray(n_variants)
    if counts.ndim and counts.shape != values.shape:
        raise ShapeError(f"n_variants has shape {counts.shape}; expected {values.shape} or one.")
    if not np.isfinite(values).all():
        raise InputError("a relationship is not a finite number.")
    if not np.allclose(values, values.T, rtol=1e-6, atol=1e-8):
        raise InputError("relationships are not symmetric.")
    identity = _id_lines(names, families)
    binary, number, ids = relationship_paths(prefix)
    with ExitStack() as stack:
        places = [stack.enter_context(replace_file(p, overwrite)) for p in (binary, number, ids)]
        _write_triangle(places[0], values)
        _write_triangle(places[1], np.broadcast_to(counts, values.shape))
        places[2].write_text(identity, encoding="utf-8")


def read_relationships(prefix: str | os.PathLike[str]) -> RelationshipFile:
    """Read relationships written by GCTA, PLINK (``--make-grm-bin``) or `write_relationships`.

    Parameters
    ----------
    prefix : path
        What the files begin with, or one of the files. ``.grm.N.bin`` may be absent.

    Raises
    ------
    MissingSidecarError
        ``.grm.bin`` or ``.grm.id`` is not there.
    TruncatedFileError
        A file is not as long as the samples want it.
    """
    binary, number, ids = relationship_paths(prefix)
    for path in (binary, ids):
        if not path.is_file():
            raise MissingSidecarError(f"{path} is not there; relationships are in {binary.name}, "
                                      f"{number.name} and {ids.name}.")  # fmt: skip
    rows = [line.split() for line in ids.read_text(encoding="utf-8").splitlines() if line.strip()]
    if rows and rows[0][0] in ("#FID", "FID"):  # PLINK 2 writes a header
        rows = rows[1:]
    wrong = next((i for i, row in enumerate(rows) if len(row) != 2), None)
    if wrong is not None:
        raise FileFormatError(
            f"{ids}: row {wrong + 1} has {len(rows[wrong])} columns; expected family and name."
        )
    families = [row[0] for row in rows]
    return RelationshipFile(
        family_samples(ids, families, [row[1] for row in rows]),
        np.array(families, dtype=np.str_),
        _read_triangle(binary, len(rows)),
        _read_triangle(number, len(rows)) if number.is_file() else None,
    )


def read_relationship_table(table: Any) -> RelationshipFile:
    """Read relationships that are a square table with the names of samples.

    Parameters
    ----------
    table : path, or pandas or polars DataFrame
        Text or parquet, or a frame: a column for each sample, called like it, and a row for each,
        named by the first column (pandas: or the index), in any order.

    Raises
    ------
    FileFormatError
        It cannot be read as a table of numbers.
    LabelError, DuplicateSampleError
        Rows and columns are not of the same samples.
    """
    from plait.io.phenotypes import is_frame, read_phenotypes

    place = "the table of relationships" if is_frame(table) else str(table)
    found = read_phenotypes(table)
    rows = found.samples.tolist()
    if sorted(rows) != sorted(found.names):
        alone = sorted(set(rows) ^ set(found.names))
        raise LabelError(
            f"{place} has {len(rows):,} rows and {len(found.names):,} columns of relationships, "
            f"and {alone[0]!r} is in one of them only; expected a row and a column for each sample."
        )
    column = {name: number for number, name in enumerate(found.names)}
    matrix = np.ascontiguousarray(found.values[:, [column[name] for name in rows]])
    return RelationshipFile(found.samples, found.samples, matrix)


def _id_lines(names: NDArray[np.str_], families: Sequence[str] | NDArray[np.str_] | None) -> str:
    own = distinct_samples("relationships", names.tolist()).tolist()
    of = own if families is None else [str(family) for family in families]
    if len(of) != len(own):
        raise ShapeError(f"there are {len(of)} families and {len(own)} samples.")
    bare = [name.removeprefix(f"{family}:") for family, name in zip(of, own, strict=True)]
    if families is not None and len(set(bare)) < len(bare):
        own = bare  # the reader puts families before names that repeat
    blank = [text for text in (*of, *own) if not text or text.split() != [text]]
    if blank:
        raise LabelError(f"the name {blank[0]!r} has blanks, which separate columns in .grm.id.")
    return "".join(f"{family}\t{name}\n" for family, name in zip(of, own, strict=True))


def _write_triangle(path: Path, values: NDArray[np.generic]) -> None:
    with path.open("wb") as stream:
        for start in range(0, len(values), _ROWS):
            stop = min(start + _ROWS, len(values))
            block = values[start:stop, :stop].astype(_FLOAT)
            below = np.arange(stop) <= np.arange(start, stop)[:, None]
            stream.write(block[below].tobytes())


def _read_triangle(path: Path, n: int) -> Array:
    found, expected = path.stat().st_size, _FLOAT.itemsize * n * (n + 1) // 2
    if found != expected:
        raise TruncatedFileError(
            f"{path} has {counted(found, 'byte')}; the lower triangle of "
            f"{counted(n, 'sample')} has {expected:,}."
        )
    out = np.zeros((n, n))
    with path.open("rb") as stream:
        for row in range(n):
            values = np.frombuffer(stream.read(_FLOAT.itemsize * (row + 1)), dtype=_FLOAT)
            out[row, : row + 1] = values
            out[: row + 1, row] = values
    return out
