"""Heat map of how much contexts share."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import ShapeError
from plait.plot.axes import new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_ANNOTATED = 14


def sharing(
    matrix: ArrayLike,
    labels: Sequence[str] | None = None,
    *,
    cluster: bool = False,
    title: str = "Sharing of effects",
    legend: str = "share of effects with the same sign, within a factor of 2",
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw a sharing matrix.

    Parameters
    ----------
    matrix : (R, R) array
        Values in [0, 1]; NaN is left blank.
    labels : sequence of str, optional
        Default the numbers from 1.
    cluster : bool
        Put similar contexts next to one another.
    title, legend : str
    ax : matplotlib Axes, optional
    """
    values = np.asarray(matrix, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] != values.shape[1]:
        raise ShapeError(f"a sharing matrix is square, not {values.shape}.")
    size = len(values)
    names = [str(i + 1) for i in range(size)] if labels is None else list(labels)
    if len(names) != size:
        raise ShapeError(f"{len(names)} labels were given for {size} contexts.")
    order = _clustered(values) if cluster and size > 2 else np.arange(size)
    values = values[np.ix_(order, order)]
    names = [names[i] for i in order]
    side = min(max(4.2, 0.28 * size + 2.0), 14.0)
    ax = new_axes(ax, side + 0.9, side)
    image = ax.imshow(values, cmap="viridis", vmin=0.0, vmax=1.0)
    font = 9.0 if size <= 20 else 6.5
    ax.set_xticks(range(size), names, rotation=90 if size > 8 else 45, fontsize=font,
                  ha="center" if size > 8 else "right", rotation_mode="anchor"
                  if size <= 8 else "default")  # fmt: skip
    ax.set_yticks(range(size), names, fontsize=font)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    if size <= _MOST_ANNOTATED:
        for (i, j), value in np.ndenumerate(values):
            if np.isfinite(value):
                ax.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8,
                        color="white" if value < 0.6 else "black")  # fmt: skip
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.85)
    bar.set_label(legend, fontsize=9)
    bar.outline.set_visible(False)  # type: ignore[operator]
    ax.set_title(title, loc="left", fontsize=11)
    return ax


def _clustered(values: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the order of leaves of average-linkage clustering."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    distance = 1 - np.nan_to_num(values, nan=0.0)
    distance = np.clip(0.5 * (distance + distance.T), 0.0, None)
    np.fill_diagonal(distance, 0.0)
    order: NDArray[np.intp] = leaves_list(
        linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
    )
    return order
