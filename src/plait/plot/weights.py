"""Bar chart of mixture weights."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from plait.errors import ShapeError
from plait.plot.axes import BLUE, GREY, new_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def weights(
    values: ArrayLike,
    labels: Sequence[str],
    *,
    most: int = 20,
    title: str = "Which patterns of sharing carry the effects",
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the weight of every covariance pattern, the largest on top.

    Parameters
    ----------
    values : (K,) array
    labels : sequence of str
        A pattern named ``null`` is drawn in grey.
    most : int
        Patterns shown; the rest are summed in a last bar.
    title : str
    ax : matplotlib Axes, optional
    """
    shares = np.asarray(values, dtype=np.float64)
    if shares.shape != (len(labels),):
        raise ShapeError(f"{len(labels)} labels were given for weights of shape {shares.shape}.")
    order = np.argsort(-shares, kind="stable")
    shown, rest = order[:most], order[most:]
    names = [labels[k] for k in shown]
    heights = list(shares[shown])
    if len(rest):
        names.append(f"{len(rest)} others")
        heights.append(float(shares[rest].sum()))
    ax = new_axes(ax, 5.5, max(2.0, 0.26 * len(names) + 0.9))
    rows = np.arange(len(names))[::-1]
    colours = [GREY if name == "null" else BLUE for name in names]
    ax.barh(rows, heights, color=colours, height=0.75)
    for row, height in zip(rows, heights, strict=True):
        ax.text(height + 0.008, row, f"{height:.1%}", va="center", fontsize=8)
    ax.set_yticks(rows, names, fontsize=9)
    ax.set_xlim(0, min(max(heights) * 1.18 + 0.02, 1.12))
    ax.set_xlabel("mixture weight")
    ax.set_title(title, loc="left", fontsize=11)
    tidy(ax)
    return ax
