"""Heat map of how much of their effects contexts share."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import ShapeError
from plait.plot.style import axes_for, check_labels, label_size, styled, write_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

_ANNOTATED = 24
_CLUSTERED = 8
CAPTION = (
    "Each cell: of the effects significant in one or both contexts, the fraction that have the "
    "same sign and a size within the stated factor in both. Grey: no such effects."
)


def sharing(
    matrix: ArrayLike,
    labels: Sequence[str] | None = None,
    *,
    cluster: bool | None = None,
    annotate: bool | None = None,
    title: str | None = "Pairwise sharing of effects",
    legend: str = "share of effects",
    caption: bool = False,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw pairwise sharing as a heat map.

    Parameters
    ----------
    matrix : (R, R) array
        Fractions in [0, 1]; NaN where there is nothing to compare.
    labels : sequence of str, optional
        Names of the contexts; numbered from 1 by default.
    cluster : bool, optional
        Put contexts that share much next to each other. Default with more than 8 contexts.
    annotate : bool, optional
        Write the fractions into the cells. Default with at most 24 contexts.
    title, legend : str
    caption : bool
        Write below the figure how to read it.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ShapeError
        The matrix is not square, or labels do not fit.
    """
    values = np.asarray(matrix, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or values.size == 0:
        raise ShapeError(f"a sharing matrix has shape (R, R), not {values.shape}.")
    count = len(values)
    names = check_labels(labels, count, "contexts")
    if cluster if cluster is not None else count > _CLUSTERED:
        order = clustered_order(values)
        values, names = values[np.ix_(order, order)], [names[i] for i in order]
    side = max(3.4, min(10.0, 1.8 + 0.55 * count)) if count <= 15 else max(8.0, 0.215 * count + 1.6)
    with styled() as plt:
        ax = axes_for(plt, ax, side + 0.9, side)
        colours = plt.get_cmap("YlGnBu").with_extremes(bad="#D9D9D9")
        image = ax.imshow(values, vmin=0, vmax=1, cmap=colours, aspect="equal")
        size = label_size(count, 0.75 * side)
        is_short = max(map(len, names)) <= 4
        turn = 90 if count > 8 else 0 if is_short else 45
        ax.set_xticks(range(count), names, fontsize=size, rotation=turn)
        if turn == 45:
            plt.setp(ax.get_xticklabels(), ha="right", rotation_mode="anchor")
        ax.set_yticks(range(count), names, fontsize=size)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_xticks(np.arange(1, count) - 0.5, minor=True)
        ax.set_yticks(np.arange(1, count) - 0.5, minor=True)
        ax.grid(which="minor", color="white", linewidth=1.2 if count <= 15 else 0.4)
        ax.tick_params(which="minor", length=0)
        if annotate if annotate is not None else count <= _ANNOTATED:
            _annotate(ax, values, min(8.5, 0.95 * size))
        bar = ax.figure.colorbar(image, ax=ax, shrink=0.8, aspect=24, pad=0.02)
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0)
        bar.set_label(legend, fontsize=8)
        write_words(ax, title, CAPTION if caption else None)
    return ax


def clustered_order(values: Array) -> list[int]:
    """Return an order that puts contexts next to each other that share much."""
    if len(values) < 3:
        return list(range(len(values)))
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    distance = 1.0 - np.nan_to_num(0.5 * (values + values.T), nan=0.0)
    np.fill_diagonal(distance, 0.0)
    tree = linkage(
        squareform(np.maximum(distance, 0.0), checks=False), "average", optimal_ordering=True
    )
    order: Any = leaves_list(tree)
    # A tree may be read from either end: start at the end where the first context is.
    place = int(np.flatnonzero(order == 0)[0])
    return [int(i) for i in (order if place < len(order) / 2 else order[::-1])]


def _annotate(ax: "Axes", values: Array, size: float) -> None:
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            if np.isfinite(value):
                ax.text(
                    j,
                    i,
                    f"{value:.2f}".replace("1.00", "1").removeprefix("0"),
                    ha="center",
                    va="center",
                    fontsize=size,
                    color="white" if value > 0.6 else "#222222",
                )
