"""Estimates before and after shrinkage."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from plait.errors import ShapeError
from plait.plot.axes import GREY, new_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_POINTS = 20_000


def shrinkage(
    estimate: ArrayLike,
    posterior_mean: ArrayLike,
    lfsr: ArrayLike,
    *,
    title: str = "Shrinkage",
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw posterior means against estimates, coloured by local false sign rate.

    Parameters
    ----------
    estimate, posterior_mean, lfsr : arrays of one shape
        Above 20,000 points, a regular sample and every point with lfsr below 0.05 up to that
        number are drawn.
    title : str
    ax : matplotlib Axes, optional
    """
    x, y, rate = (np.asarray(v, dtype=np.float64).ravel() for v in (estimate, posterior_mean, lfsr))
    if not x.shape == y.shape == rate.shape:
        raise ShapeError(f"estimate {x.shape}, mean {y.shape} and lfsr {rate.shape} must agree.")
    if len(x) > _MOST_POINTS:
        strong = np.flatnonzero(rate < 0.05)[: _MOST_POINTS // 2]
        every = np.arange(0, len(x), -(-2 * len(x) // _MOST_POINTS))
        keep = np.union1d(strong, every)
        x, y, rate = x[keep], y[keep], rate[keep]
    order = np.argsort(-rate, kind="stable")
    ax = new_axes(ax, 5.2, 4.4)
    limit = float(np.nanmax(np.abs(x))) * 1.05
    ax.plot([-limit, limit], [-limit, limit], color=GREY, linewidth=0.8, linestyle="--")
    ax.axhline(0.0, color="#DDDDDD", linewidth=0.8, zorder=0)
    points = ax.scatter(
        x[order], y[order], c=np.log10(np.maximum(rate[order], 1e-6)), cmap="viridis_r", s=8,
        linewidths=0, vmin=-6, vmax=0, rasterized=True,
    )  # fmt: skip
    bar = ax.figure.colorbar(points, ax=ax)
    bar.set_label("log10 local false sign rate")
    bar.outline.set_visible(False)  # type: ignore[operator]
    ax.set_xlabel("estimate")
    ax.set_ylabel("posterior mean")
    ax.set_title(title, loc="left", fontsize=11)
    tidy(ax)
    return ax
