"""Map of effects: rows that act alike and columns that respond alike stand together."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import ShapeError
from plait.plot.sharing import clustered_order
from plait.plot.style import axes_for, check_labels, label_size, styled, write_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CAPTION = (
    "Colour: effect over its error; blue raises, orange lowers. Rows and columns are arranged so "
    "that what is alike stands together. A dot marks what is significant."
)
_LIMIT = 8.0


def alike(values: NDArray[np.float64]) -> list[int]:
    """Return an order of rows in which those that point the same way stand together."""
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    directions = values / np.where(lengths > 0, lengths, 1.0)
    return clustered_order(directions @ directions.T)


def effect_map(
    z: ArrayLike,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    is_significant: ArrayLike | None = None,
    *,
    title: str | None = None,
    caption: bool = False,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw effects over their errors as a heat map.

    Parameters
    ----------
    z : (n, K) array
        Finite; beyond 8 colours do not change.
    rows, columns : sequences of str, optional
    is_significant : (n, K) bool array, optional
        Marked by a dot.
    title : str, optional
    caption : bool
        Write below the figure how to read it.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ShapeError
        ``z`` is no matrix of finite numbers, or labels do not fit.
    """
    values = np.asarray(z, dtype=np.float64)
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise ShapeError(f"z has shape {values.shape} and must be a matrix of finite numbers.")
    names = check_labels(rows, len(values), "rows")
    tops = check_labels(columns, values.shape[1], "columns")
    down, across = alike(values), alike(values.T)
    shown = values[np.ix_(down, across)]
    limit = float(np.clip(np.abs(values).max(), 1.0, _LIMIT))
    with styled() as plt:
        from matplotlib.colors import LinearSegmentedColormap

        colours = LinearSegmentedColormap.from_list("plait", ["#D55E00", "#F7F7F7", "#0072B2"])
        width, height = 2.4 + 0.24 * len(tops), 1.6 + 0.17 * len(names)
        ax = axes_for(plt, ax, width, height)
        image = ax.imshow(shown, cmap=colours, vmin=-limit, vmax=limit, aspect="auto")
        ax.set_yticks(range(len(names)), [names[j] for j in down],
                      fontsize=label_size(len(names), height - 1.2))  # fmt: skip
        ax.set_xticks(range(len(tops)), [tops[k] for k in across], rotation=90,
                      fontsize=label_size(len(tops), width - 1.8))  # fmt: skip
        ax.tick_params(length=0)
        if is_significant is not None:
            marked = np.argwhere(np.asarray(is_significant, dtype=bool)[np.ix_(down, across)])
            ax.scatter(marked[:, 1], marked[:, 0], s=3, color="#222222", linewidths=0)
        bar = ax.figure.colorbar(image, ax=ax, shrink=0.7, pad=0.02)
        bar.outline.set_visible(False)
        bar.set_label("effect / error")
        write_words(ax, title, CAPTION if caption else None)
    return ax
