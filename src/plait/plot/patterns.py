"""The pattern of a covariance matrix: its leading eigenvector."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from plait.errors import ShapeError
from plait.plot.axes import BLUE, GREY, ORANGE, new_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def pattern(
    covariance: ArrayLike,
    labels: Sequence[str] | None = None,
    *,
    title: str | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the leading eigenvector of a covariance, scaled to a largest entry of 1.

    Parameters
    ----------
    covariance : (R, R) array
    labels : sequence of str, optional
        Default the numbers from 1.
    title : str, optional
        The share of the variance along the vector is added.
    ax : matplotlib Axes, optional
    """
    matrix = np.asarray(covariance, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ShapeError(f"a covariance is square, not {matrix.shape}.")
    names = [str(i + 1) for i in range(len(matrix))] if labels is None else list(labels)
    if len(names) != len(matrix):
        raise ShapeError(f"{len(names)} labels were given for {len(matrix)} contexts.")
    values, vectors = np.linalg.eigh(matrix)
    leading = vectors[:, -1]
    leading = leading / leading[int(np.argmax(np.abs(leading)))]
    share = values[-1] / max(float(values.sum()), 1e-300)
    ax = new_axes(ax, max(3.5, 0.22 * len(names) + 1.5), 3.0)
    ax.bar(range(len(names)), leading, color=[BLUE if v >= 0 else ORANGE for v in leading])
    ax.axhline(0.0, color=GREY, linewidth=0.8)
    crowded = len(names) > 8
    ax.set_xticks(range(len(names)), names, rotation=90 if crowded else 0,
                  fontsize=7 if crowded else 9)  # fmt: skip
    ax.set_ylim(-1.08, 1.08)
    ax.set_ylabel("relative effect")
    ax.set_title(f"{title or 'Pattern'} ({share:.0%} of variance)", loc="left", fontsize=11)
    tidy(ax)
    return ax
