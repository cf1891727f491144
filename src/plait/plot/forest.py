"""Forest plot: one effect in all contexts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import OptionError, ShapeError
from plait.plot.style import BLUE, GREY, axes_for, check_labels, styled, write_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]


def forest(
    mean: ArrayLike,
    sd: ArrayLike,
    labels: Sequence[str] | None = None,
    *,
    ci: float = 1.96,
    boxes: bool = False,
    lfsr: ArrayLike | None = None,
    level: float = 0.05,
    before: tuple[ArrayLike, ArrayLike] | None = None,
    xlabel: str = "Effect size",
    ylabel: str = "Condition",
    title: str | None = None,
    caption: bool = False,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw an effect and its uncertainty in every context, the first context on top.

    Parameters
    ----------
    mean, sd : (R,) arrays
        Point and standard deviation. A context that is NaN is left empty.
    labels : sequence of str, optional
        Names of the contexts; numbered from 1 by default.
    ci : float
        Half length of the bars in standard deviations.
    boxes : bool
        Draw squares whose area is proportional to the precision ``1 / sd^2``.
    lfsr : (R,) array, optional
        Local false sign rates: contexts at ``level`` or above are drawn hollow.
    level : float
    before : (mean, sd), optional
        The estimates before shrinkage, drawn in grey below the others.
    xlabel, ylabel, title : str
    caption : bool
        Write below the figure how to read it.
    ax : matplotlib Axes, optional
        Where to draw. Default a new figure, ``max(2, 0.4 R)`` inches high.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ShapeError
        There is not one value of each for every context.
    OptionError
        ``ci`` is not positive.
    """
    centre, spread = _row(mean, "mean"), _row(sd, "sd")
    if len(centre) != len(spread):
        raise ShapeError(f"mean has {len(centre)} values and sd {len(spread)}.")
    if not ci > 0:
        raise OptionError(f"ci is {ci:g}; it must be positive.")
    names = check_labels(labels, len(centre), "contexts")
    earlier = None if before is None else (_row(before[0], "before"), _row(before[1], "before"))
    rates = None if lfsr is None else _row(lfsr, "lfsr")
    hollow = np.zeros(len(centre), dtype=bool) if rates is None else ~(rates < level)
    places = np.arange(len(centre), dtype=np.float64)
    with styled() as plt:
        ax = axes_for(plt, ax, 5.2, max(2.0, 0.4 * len(centre)))
        ax.axvline(0.0, color="#777777", linestyle="--", linewidth=0.9, zorder=0)
        if earlier is not None:
            places = places - 0.14
            _bars(ax, *earlier, places + 0.3, ci, GREY, "o", 3.6, label="estimate")
        _bars(ax, centre, spread, places, ci, BLUE, None, 0.0)
        _points(ax, centre, spread, places, hollow, boxes, earlier is not None)
        ax.set_yticks(np.arange(len(centre)), names)
        ax.set_ylim(len(centre) - 0.4, -0.6)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.set_xlabel(xlabel)
        ax.set_ylabel(ylabel)
        if earlier is not None:
            ax.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, handletextpad=0.3)
        words = _caption(ci, boxes, rates is not None, level, before)
        write_words(ax, title, words if caption else None)
    return ax


def _row(values: ArrayLike, name: str) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ShapeError(f"{name} has shape {array.shape}; expected one value per context.")
    return array


def _bars(
    ax: "Axes",
    centre: Array,
    spread: Array,
    places: Array,
    ci: float,
    colour: str,
    marker: str | None,
    size: float,
    label: str | None = None,
) -> None:
    ax.errorbar(
        centre,
        places,
        xerr=ci * spread,
        fmt="none" if marker is None else marker,
        markersize=size,
        color=colour,
        ecolor=colour,
        elinewidth=1.5 if marker is None else 1.0,
        capsize=0,
        zorder=2,
        label=label,
    )


def _points(
    ax: "Axes",
    centre: Array,
    spread: Array,
    places: Array,
    hollow: NDArray[np.bool_],
    boxes: bool,
    labelled: bool,
) -> None:
    area: Any = np.full(len(centre), 34.0)
    if boxes:
        with np.errstate(divide="ignore"):
            precision = np.where(spread > 0, 1.0 / spread**2, np.nan)
        largest = np.nanmax(precision) if np.isfinite(precision).any() else 1.0
        area = np.maximum(np.nan_to_num(110.0 * precision / largest, nan=110.0), 4.0)
    ax.scatter(
        centre,
        places,
        s=area,
        marker="s" if boxes else "o",
        facecolors=["white" if empty else BLUE for empty in hollow],
        edgecolors=BLUE,
        linewidths=1.2,
        zorder=3,
        label="posterior" if labelled else None,
    )


def _caption(ci: float, boxes: bool, rates: bool, level: float, before: Any) -> str:
    parts = [f"Points: posterior means; bars: ± {ci:g} posterior standard deviations."]
    if boxes:
        parts.append("The area of a square is proportional to the precision.")
    if rates:
        parts.append(f"Filled: local false sign rate below {level:g}.")
    if before is not None:
        parts.append(f"Grey: the estimate before shrinkage ± {ci:g} standard errors.")
    return " ".join(parts)
