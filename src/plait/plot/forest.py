"""Forest plot: one effect in every context."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from plait.errors import ShapeError
from plait.plot.axes import BLUE, GREY, new_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def forest(
    mean: ArrayLike,
    sd: ArrayLike,
    labels: Sequence[str] | None = None,
    *,
    ci: float = 1.96,
    boxes: bool = False,
    xlab: str = "Effect size",
    ylab: str = "Condition",
    title: str | None = None,
    raw: tuple[ArrayLike, ArrayLike] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw estimates with intervals, the first context on top.

    Parameters
    ----------
    mean, sd : (R,) arrays
    labels : sequence of str, optional
        Default the numbers from 1.
    ci : float
        Half-width of the intervals in standard deviations.
    boxes : bool
        Draw boxes with an area proportional to the precision.
    xlab, ylab, title : str
    raw : pair of (R,) arrays, optional
        Estimates and standard errors before shrinkage, drawn in grey for comparison.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    centre, spread = np.asarray(mean, dtype=np.float64), np.asarray(sd, dtype=np.float64)
    if centre.ndim != 1 or centre.shape != spread.shape:
        raise ShapeError(f"mean {centre.shape} and sd {spread.shape} must be equally long vectors.")
    names = [str(i + 1) for i in range(len(centre))] if labels is None else list(labels)
    if len(names) != len(centre):
        raise ShapeError(f"{len(names)} labels were given for {len(centre)} contexts.")
    ax = new_axes(ax, 5.0, max(2.0, 0.4 * len(centre)))
    rows = np.arange(len(centre))[::-1]
    ax.axvline(0.0, color=GREY, linestyle="--", linewidth=1, zorder=0)
    if raw is not None:
        estimate, error = (np.asarray(part, dtype=np.float64) for part in raw)
        ax.errorbar(
            estimate, rows + 0.18, xerr=ci * error, fmt="o", color=GREY, markersize=3,
            elinewidth=1, label="estimate",
        )  # fmt: skip
    ax.errorbar(
        centre, rows, xerr=ci * spread, fmt="none" if boxes else "o", color=BLUE, markersize=5,
        elinewidth=1.6, label="posterior",
    )  # fmt: skip
    if boxes:
        precision = np.where(spread > 0, 1 / np.where(spread > 0, spread, 1.0) ** 2, 0.0)
        ax.scatter(centre, rows, s=120 * precision / max(precision.max(), 1e-300), marker="s",
                   color=BLUE, zorder=3)  # fmt: skip
    ax.set_yticks(rows, names)
    ax.set_ylim(-0.7, len(centre) - 0.3)
    ax.set_xlabel(xlab)
    ax.set_ylabel(ylab)
    if title:
        ax.set_title(title, loc="left", fontsize=11)
    if raw is not None:
        ax.legend(frameon=False, fontsize=8, loc="best")
    tidy(ax, grid="x")
    return ax
