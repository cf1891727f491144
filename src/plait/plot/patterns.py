"""Patterns of sharing: the top eigenvectors of covariance matrices over the contexts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import ShapeError
from plait.plot.style import BLUE, VERMILION, check_labels, label_size, styled, write_caption

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

CAPTION = (
    "Each panel: the main direction (top eigenvector) of a covariance matrix of effects, scaled to "
    "a largest value of 1. Bars on the same side: effects of the same sign; per cent: how much of "
    "the matrix this direction makes up."
)


def top_pattern(covariance: ArrayLike) -> tuple[Array, float]:
    """Return the top eigenvector of a covariance matrix and its share of the trace.

    The vector is scaled so that its largest entry in absolute value is +1.
    """
    matrix = np.asarray(covariance, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise ShapeError(f"a covariance has shape (R, R), not {matrix.shape}.")
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    vector = vectors[:, -1]
    total = float(np.clip(values, 0, None).sum())
    peak = vector[int(np.argmax(np.abs(vector)))]
    return vector / peak, float(values[-1]) / total if total > 0 else 0.0


def patterns(
    covariances: ArrayLike,
    labels: Sequence[str] | None = None,
    titles: Sequence[str] | None = None,
    *,
    caption: bool = False,
    axes: "Sequence[Axes] | None" = None,
) -> "list[Axes]":
    """Draw the top eigenvector of each covariance matrix, one panel per matrix.

    Parameters
    ----------
    covariances : (K, R, R) array
    labels : sequence of str, optional
        Names of the contexts; numbered from 1 by default.
    titles : sequence of str, optional
        Names of the matrices.
    caption : bool
        Write below the figure how to read it.
    axes : sequence of matplotlib Axes, optional
        One per matrix. Default a new figure with the panels side by side.

    Returns
    -------
    list of matplotlib.axes.Axes
    """
    stack = np.asarray(covariances, dtype=np.float64)
    if stack.ndim != 3 or stack.size == 0:
        raise ShapeError(f"covariances have shape {stack.shape}; expected (K, R, R).")
    count, width = stack.shape[:2]
    names = check_labels(labels, width, "contexts")
    heads = check_labels(titles, count, "matrices")
    with styled() as plt:
        panels = list(axes) if axes is not None else _panels(plt, count, width)
        if len(panels) != count:
            raise ShapeError(f"{len(panels)} axes were given for {count} matrices.")
        for panel, matrix, head in zip(panels, stack, heads, strict=True):
            vector, share = top_pattern(matrix)
            panel.barh(
                range(width), vector, height=0.75,
                color=[BLUE if value >= 0 else VERMILION for value in vector],
            )  # fmt: skip
            panel.axvline(0.0, color="#555555", linewidth=0.8)
            panel.set_xlim(-1.08 if vector.min() < -0.02 else -0.04, 1.08)
            panel.set_ylim(width - 0.4, -0.6)
            panel.set_title(f"{head}\n{share:.0%} of the matrix", fontsize=8.5)
            panel.tick_params(axis="y", length=0)
            panel.spines["left"].set_visible(False)
            size = label_size(width, panel.figure.get_figheight() * 0.8)  # type: ignore[union-attr]
            panel.set_yticks(range(width), names, fontsize=size)
        if axes is None:
            for position, panel in enumerate(panels):
                panel.tick_params(axis="y", labelleft=position % _per_row(count) == 0)
        if caption:
            write_caption(panels[0], CAPTION)
    return panels


def _per_row(count: int) -> int:
    return min(count, 5)


def _panels(plt: Any, count: int, width: int) -> "list[Axes]":
    columns = _per_row(count)
    rows = -(-count // columns)
    height = max(1.6, 0.85 + (0.2 if width <= 20 else 0.15) * width)
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(1.2 + 1.75 * columns, rows * height + 0.3),
        layout="constrained",
        squeeze=False,
    )
    panels = list(grid.ravel())
    for empty in panels[count:]:
        figure.delaxes(empty)
    return panels[:count]
