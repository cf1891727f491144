"""The look shared by all figures, and loading matplotlib when it is first needed."""

from typing import TYPE_CHECKING, Any

from plait.errors import DependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#8C8C8C"
"""Colours that stay apart for colour-blind readers (Okabe and Ito)."""


def new_axes(ax: "Axes | None", width: float, height: float) -> "Axes":
    """Return the given axes, or those of a new figure of this size in inches."""
    if ax is not None:
        return ax
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise DependencyError(
            "matplotlib is required for plotting: pip install 'plait[plot]'."
        ) from None
    figure = Figure(figsize=(width, height), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    axes: Axes = figure.add_subplot()
    return axes


def tidy(ax: "Axes", *, grid: str | None = None) -> None:
    """Remove what carries no information."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    if grid is not None:
        ax.grid(axis=_axis(grid), color="#E6E6E6", linewidth=0.8)
        ax.set_axisbelow(True)


def _axis(name: str) -> Any:
    return name
