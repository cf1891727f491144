"""Bar chart of the mixture weights: which patterns of sharing the data support."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from plait.errors import OptionError, ShapeError
from plait.plot.style import BLUE, GREY, axes_for, check_labels, styled, write_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CAPTION = (
    "Estimated fraction of all effects that follow each pattern of sharing, summed over effect "
    "sizes. Grey: no effect in any context."
)


def weights(
    values: ArrayLike,
    labels: Sequence[str] | None = None,
    *,
    null: str = "null",
    largest: int = 20,
    smallest: float = 0.001,
    title: str | None = "Mixture weights by pattern",
    caption: bool = False,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw mixture weights as bars, the largest on top.

    Parameters
    ----------
    values : (K,) array
        Weights, adding up to 1.
    labels : sequence of str, optional
        Names of the patterns.
    null : str
        Label of the pattern drawn in grey.
    largest : int
        Bars to draw; the rest is added up in a bar of its own.
    smallest : float
        Weights below this are part of the rest.
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
        The weights are no vector, or labels do not fit.
    OptionError
        ``largest`` is below 1.
    """
    heights = np.asarray(values, dtype=np.float64)
    if heights.ndim != 1 or heights.size == 0:
        raise ShapeError(f"weights have shape {heights.shape}; expected one per pattern.")
    if largest < 1:
        raise OptionError(f"largest is {largest}; it must be at least 1.")
    names = check_labels(labels, len(heights), "patterns")
    order = [int(i) for i in np.argsort(-heights, kind="stable") if heights[i] >= smallest]
    shown = order[:largest]
    bars = [(names[i], float(heights[i]), GREY if names[i] == null else BLUE) for i in shown]
    rest = float(heights.sum() - sum(height for _, height, _ in bars))
    if len(shown) < len(heights) and rest >= smallest:
        bars.append((f"{len(heights) - len(shown)} others", rest, "#56B4E9"))
    with styled() as plt:
        ax = axes_for(plt, ax, 5.2, max(1.8, 0.9 + 0.26 * len(bars)))
        lengths = [height for _, height, _ in bars]
        ax.barh(range(len(bars)), lengths, height=0.7, color=[colour for *_, colour in bars])
        for i, height in enumerate(lengths):
            ax.annotate(
                f"{height:.1%}", (height, i), (4, 0), textcoords="offset points",
                va="center", fontsize=8,
            )  # fmt: skip
        ax.set_yticks(range(len(bars)), [name for name, *_ in bars])
        ax.set_ylim(len(bars) - 0.4, -0.6)
        ax.set_xlim(0, 1.14 * max([*lengths, 1e-9]))
        ax.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.set_xlabel("fraction of effects")
        write_words(ax, title, CAPTION if caption else None)
    return ax
