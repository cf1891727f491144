"""Contrasts of conditions: deviations from a baseline or from the mean."""

from collections.abc import Sequence
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray

from plait.errors import LabelError

Array = NDArray[np.float64]


@overload
def contrast_matrix(
    R: int, ref: int | str, names: Sequence[str] | None = ..., *, details: Literal[False] = ...
) -> Array: ...
@overload
def contrast_matrix(
    R: int, ref: int | str, names: Sequence[str] | None = ..., *, details: Literal[True]
) -> tuple[Array, tuple[str, ...], str]: ...
def contrast_matrix(
    R: int, ref: int | str, names: Sequence[str] | None = None, *, details: bool = False
) -> Array | tuple[Array, tuple[str, ...], str]:
    """Return the matrix that turns effects in R conditions into R - 1 contrasts.

    Parameters
    ----------
    R : int
        Number of conditions, at least 2.
    ref : int or str
        The baseline: a column number from 0, a condition name, or ``"mean"``.
    names : sequence of str, optional
        Condition names. Default "1".."R".
    details : bool
        Return the row names and the name of the baseline as well.

    Returns
    -------
    (R - 1, R) array, or (array, row names, baseline) with ``details``

    Raises
    ------
    LabelError
        The baseline is unknown, ambiguous or out of range.
    """
    labels = [str(r + 1) for r in range(R)] if names is None else [str(name) for name in names]
    if R < 2:
        raise LabelError("a contrast needs at least two conditions.")
    if len(labels) != R:
        raise LabelError(f"{len(labels)} condition names were given for {R} conditions.")
    if isinstance(ref, str) and ref == "mean":
        matrix = (np.eye(R) - 1.0 / R)[:-1]
        baseline, kept = "mean", labels[:-1]
    else:
        column = _column(ref, labels)
        matrix = np.delete(np.eye(R), column, axis=0)
        matrix[:, column] = -1.0
        baseline = labels[column]
        kept = [label for r, label in enumerate(labels) if r != column]
    if not details:
        return matrix
    return matrix, tuple(f"{label}-{baseline}" for label in kept), baseline


def _column(ref: int | str, labels: list[str]) -> int:
    if isinstance(ref, str):
        count = labels.count(ref)
        if count != 1:
            found = "not in the given conditions" if count == 0 else f"there {count} times"
            raise LabelError(f"the reference {ref!r} is {found}: {', '.join(labels[:20])}.")
        return labels.index(ref)
    if not 0 <= ref < len(labels):
        raise LabelError(
            f"the reference {ref} is not in the given conditions: give 0 to {len(labels) - 1}."
        )
    return int(ref)
