"""Relationships that the user gives: matched to samples by name, and checked."""

import logging
import os
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigvalsh
from scipy.linalg.lapack import dpotrf

from plait.errors import InputError, InputTypeError, LabelError
from plait.execution.threads import single_threaded_blas
from plait.gwas.relationship_results import Relationships
from plait.io.relationship_files import (
    SUFFIXES,
    RelationshipFile,
    read_relationship_table,
    read_relationships,
    relationship_paths,
)

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    RelationshipsLike: TypeAlias = (
        RelationshipFile | Relationships | str | os.PathLike[str] | pl.DataFrame | pd.DataFrame
    )

Array = NDArray[np.float64]

_SYMMETRY = 1e-5
"""Of the mean diagonal: files hold seven digits."""
_ROUNDING = 5e-7
"""Eigenvalues that are negative by less, of the mean diagonal, are of rounding."""
_BENT = 0.05
"""Eigenvalues that are negative by more, of the mean diagonal, are no rounding of missing calls."""
_TOLD = 1e-3
"""Smaller ones are not told in the console."""
_log = logging.getLogger("plait.gwas")


def opened_relationships(given: "RelationshipsLike") -> RelationshipFile:
    """Return relationships, read where they are not yet.

    Parameters
    ----------
    given : path, pandas or polars DataFrame, RelationshipFile, or Relationships
        The prefix of GCTA's files, or one of them; a table, see
        `plait.io.relationship_files.read_relationship_table`; or what
        `plait.gwas.relationship_matrix` returns, of which all chromosomes are taken.

    Raises
    ------
    InputTypeError
        It is none of these.
    """
    if isinstance(given, RelationshipFile):
        return given
    if isinstance(given, Relationships):
        return RelationshipFile(given.samples, given.samples, given.matrix())
    if isinstance(given, str | os.PathLike):
        is_grm = os.fspath(given).endswith(SUFFIXES) or relationship_paths(given)[0].is_file()
        return read_relationships(given) if is_grm else read_relationship_table(given)
    if hasattr(given, "columns"):
        return read_relationship_table(given)
    raise InputTypeError(
        f"the relationships are of the type {type(given).__name__}; give the prefix of GCTA's "
        "files, a table with names of samples, or what plait.gwas.relationship_matrix returns."
    )


def relationships_of(given: RelationshipFile, samples: NDArray[np.str_]) -> Relationships:
    """Return the relationships of some samples, in their order, scaled to a mean diagonal of 1.

    Parameters
    ----------
    given : RelationshipFile
    samples : (N,) array of str

    Raises
    ------
    LabelError
        Samples are not among them.
    InputError
        The matrix is not finite, not symmetric or not positive semidefinite, or has no diagonal.

    Notes
    -----
    Where genotypes were missing, relationships may have eigenvalues a little below 0: by up to 5 %
    of the mean diagonal, their size is added to the diagonal. The covariances ``a K + b I`` stay
    the same, but for those that are none. Cost: N^3 / 3 flops, and 4/3 N^3 more in that case.
    """
    place = {name: number for number, name in enumerate(given.samples.tolist())}
    missing = [name for name in samples.tolist() if name not in place]
    if missing:
        raise LabelError(
            f"{len(missing):,} of the {len(samples):,} samples with genotypes, traits and "
            f"covariates are not among the {len(place):,} of the relationships (first: "
            f"{missing[0]!r}; theirs begin with {', '.join(map(repr, list(place)[:3]))}). Leave "
            "those samples out of the traits, or give their relationships."
        )
    rows = np.array([place[name] for name in samples.tolist()], dtype=np.intp)
    matrix = np.asarray(given.matrix, dtype=np.float64)[np.ix_(rows, rows)]
    if not np.isfinite(matrix).all():
        i, j = np.argwhere(~np.isfinite(matrix))[0]
        raise InputError(
            f"the relationship of {str(samples[i])!r} and {str(samples[j])!r} is missing or "
            "infinite."
        )
    size = float(np.diagonal(matrix).mean())
    if not size > 0:
        raise InputError(
            f"the relationships of samples with themselves are {size:.3g} in the mean; expected "
            "numbers around 1 (or 2)."
        )
    apart = np.abs(matrix - matrix.T)
    if apart.max() > _SYMMETRY * size:
        i, j = np.unravel_index(int(apart.argmax()), apart.shape)
        raise InputError(
            f"relationships are not symmetric: that of {str(samples[i])!r} and "
            f"{str(samples[j])!r} is {matrix[i, j]:.6g} and {matrix[j, i]:.6g}."
        )
    scaled = _semidefinite((matrix + matrix.T) / (2.0 * size))
    ones, none = np.ones(1), np.zeros(1, dtype=np.int64)
    # The sum of one "chromosome", already divided, in double precision.
    sums: Any = scaled[np.tril_indices(len(scaled))][None]
    return Relationships(samples, ("given",), sums, ones, none, "given")


def _semidefinite(matrix: Array) -> Array:
    """Return a matrix of mean diagonal 1 without negative eigenvalues; refuse large ones."""
    n = len(matrix)
    with single_threaded_blas():
        lifted = np.array(matrix, order="F")
        lifted[np.diag_indices(n)] += _ROUNDING
        if dpotrf(lifted, lower=1, overwrite_a=1)[1] == 0:
            return matrix
        least = float(eigvalsh(matrix, subset_by_index=(0, 0))[0])
    if least < -_BENT:
        raise InputError(
            f"relationships are not positive semidefinite: their smallest eigenvalue is "
            f"{least:.3g} times the mean relationship of a sample with itself, so that they are "
            "no covariance of samples. Check that all pairs were computed alike."
        )
    _log.info(
        "relationships have eigenvalues down to %.2g times their mean diagonal, as where genotypes "
        "were missing: as much was added to the diagonal",
        least,
        extra={"notice": least < -_TOLD},
    )
    bent = matrix.copy()
    bent[np.diag_indices(n)] -= least
    scaled: Array = bent / (1.0 - least)
    return scaled
