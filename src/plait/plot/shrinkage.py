"""Effects before and after shrinkage."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from plait.errors import ShapeError
from plait.plot.style import axes_for, styled, write_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DRAWN = 100_000
_STEPS = (
    (0.0, 0.01, "lfsr < 0.01", "#08306B", 7.0),
    (0.01, 0.05, "0.01 to 0.05", "#2B8CBE", 6.0),
    (0.05, 0.2, "0.05 to 0.2", "#F0A63A", 4.0),
    (0.2, np.inf, "0.2 and above", "#C9C9C9", 3.0),
)
CAPTION = (
    "Each point: one effect in one context. On the line: unchanged; towards the horizontal axis: "
    "shrunken. An effect that others support moves less, or even away from zero."
)


def shrinkage(
    effect: ArrayLike,
    posterior: ArrayLike,
    lfsr: ArrayLike,
    *,
    xlabel: str = "estimated effect",
    ylabel: str = "posterior mean",
    title: str | None = "Shrinkage",
    caption: bool = False,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw posterior means against the estimates, coloured by local false sign rate.

    Parameters
    ----------
    effect, posterior, lfsr : arrays of one shape
        Cells where any of the three is NaN are left out.
    xlabel, ylabel, title : str
    caption : bool
        Write below the figure how to read it.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ShapeError
        The shapes differ.

    Notes
    -----
    Of more than 100 000 points in a colour every n-th is drawn; the legend counts all of them.
    """
    arrays = [np.asarray(values, dtype=np.float64) for values in (effect, posterior, lfsr)]
    if len({array.shape for array in arrays}) > 1:
        raise ShapeError(
            f"effect, posterior and lfsr have shapes {', '.join(str(a.shape) for a in arrays)}; "
            "they must be equal."
        )
    x, y, rate = (array.ravel() for array in arrays)
    known = np.isfinite(x) & np.isfinite(y) & np.isfinite(rate)
    x, y, rate = x[known], y[known], rate[known]
    with styled() as plt:
        ax = axes_for(plt, ax, 4.6, 4.2)
        reach = 1.05 * float(np.abs(x).max(initial=1e-12))
        ax.axhline(0.0, color="#777777", linewidth=0.8, zorder=0)
        ax.plot([-reach, reach], [-reach, reach], color="#777777", linewidth=0.8, linestyle="--")
        for low, high, name, colour, area in reversed(_STEPS):
            chosen = np.flatnonzero((rate >= low) & (rate < high))
            drawn = chosen[:: max(1, -(-len(chosen) // _DRAWN))]
            ax.scatter(
                x[drawn], y[drawn], s=area, color=colour, linewidths=0, rasterized=True,
                label=f"{name}  ({len(chosen):,})",
            )  # fmt: skip
        ax.set_xlim(-reach, reach)
        ax.set_xlabel(xlabel)
        ax.set_ylabel(ylabel)
        handles, names = ax.get_legend_handles_labels()
        ax.legend(handles[::-1], names[::-1], loc="upper left", markerscale=2, handletextpad=0.2)
        write_words(ax, title, CAPTION if caption else None)
    return ax
