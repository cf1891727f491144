"""QQ curves of perturbation screens: negative controls beside the genes."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import InputError, OptionError, ShapeError
from plait.plot.style import COLOURS, GREY, axes_for, save_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]
_MOST = 20_000
_SMALLEST = 2_000
_BAND_POINTS = 400
_LINES = {"dashed": (0, (5, 2.5)), "dotted": (0, (1, 1.6)), "solid": "-"}


@dataclass(frozen=True, slots=True, eq=False)
class QQCurve:
    """One curve of a QQ plot.

    Attributes
    ----------
    x, y : (m,) arrays
        Expected and observed ``-log10 p``, the smallest p-value first.
    label, colour : str
    style : {"points", "solid", "dashed", "dotted"}
    marker : str
    size, alpha : float
        Of points; the opacity of lines too.
    """

    x: ArrayLike
    y: ArrayLike
    label: str
    colour: str
    style: str = "points"
    marker: str = "."
    size: float = 12.0
    alpha: float = 0.6


@dataclass(frozen=True, slots=True, eq=False)
class QQBand:
    """A band of a QQ plot.

    Attributes
    ----------
    x, low, high : (m,) arrays
        Expected ``-log10 p`` and the bounds of the observed ones.
    label, colour : str
    alpha : float
        Opacity.
    """

    x: ArrayLike
    low: ArrayLike
    high: ArrayLike
    label: str
    colour: str
    alpha: float = 1.0


def screen_qq(
    curves: Sequence[QQCurve],
    *,
    under: QQBand | None = None,
    over: QQBand | None = None,
    reference: str | None = "y=x",
    title: str | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw QQ curves of a screen, in the order given, over one band and under another.

    Parameters
    ----------
    curves : sequence of QQCurve
        Of more than 20 000 points, the 2 000 smallest p-values and the others at even distances
        are drawn.
    under, over : QQBand, optional
        Such as where uniform p-values lie, and the spread of several sets of controls.
    reference : str or None
        Label of the diagonal; None does not draw it.
    title : str, optional
    ax : matplotlib Axes, optional
        Default a new figure of 6 x 5 inches.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError
        There are no curves, or the lengths of one differ.
    OptionError
        A style is unknown.
    """
    if not curves:
        raise InputError("0 QQ curves were given; give at least one.")
    points = [_points(curve) for curve in curves]
    farthest = max(float(x.max()) for x, _ in points)
    with styled() as plt:
        ax = axes_for(plt, ax, 6.0, 5.0)
        for layer, band in ((1, under), (5, over)):
            if band is not None:
                x, low, high = (np.asarray(v, float) for v in (band.x, band.low, band.high))
                ax.fill_between(
                    x, low, high, color=band.colour, alpha=band.alpha, linewidth=0,
                    label=band.label, zorder=layer,
                )  # fmt: skip
        if reference is not None:
            ax.plot(
                [0, farthest], [0, farthest], color="#444444", linewidth=0.9, label=reference,
                zorder=2,
            )  # fmt: skip
        for layer, (curve, (x, y)) in enumerate(zip(curves, points, strict=True)):
            _draw(ax, curve, x, y, 3 + layer / len(curves))
        ax.set(xlim=(0, None), ylim=(0, None))
        ax.set_xlabel("Expected -log10(p)")
        ax.set_ylabel("Observed -log10(p)")
        if title is not None:
            ax.set_title(title)
        ax.legend(loc="upper left", handletextpad=0.4)
    return ax


def uniform_band(count: int, alpha: float, label: str, colour: str, opacity: float = 1.0) -> QQBand:
    """Return where the order statistics of uniform p-values lie, rank by rank.

    Parameters
    ----------
    count : int
        Number of p-values, at least 1.
    alpha : float
        Share outside the band, in (0, 1).
    label, colour : str
    opacity : float

    Returns
    -------
    QQBand
        Quantiles of Beta(i, m - i + 1) at some 400 ranks.
    """
    from scipy.special import betaincinv

    if count < 1 or not 0.0 < alpha < 1.0:
        raise OptionError(f"count is {count} (at least 1) and alpha {alpha} (between 0 and 1).")
    ranks = np.unique(np.round(np.geomspace(1, count, _BAND_POINTS)))
    low, high = (
        -np.log10(np.maximum(betaincinv(ranks, count - ranks + 1, q), 1e-300))
        for q in (1 - alpha / 2, alpha / 2)
    )
    return QQBand(-np.log10((ranks - 0.5) / count), low, high, label, colour, opacity)


def decimated(count: int, most: int = _MOST, smallest: int = _SMALLEST) -> NDArray[np.intp]:
    """Return which of ``count`` ranks are drawn: the smallest p-values and then ever sparser ones.

    Parameters
    ----------
    count : int
    most, smallest : int
        All are drawn up to ``most``; else the first ``smallest``, the last and those between at
        even distances of ``log10``.
    """
    if count <= most:
        return np.arange(count)
    others = np.geomspace(smallest + 1, count, most - smallest)
    return np.concatenate([np.arange(smallest), np.unique(np.round(others).astype(np.intp)) - 1])


def plot_qq_curves(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    out_png: str | os.PathLike[str],
    title: str,
    envelope: tuple[ArrayLike, ArrayLike, ArrayLike] | None = None,
) -> None:
    """Draw QQ curves into a file, which is replaced if it exists.

    Parameters
    ----------
    curves : mapping
        Label to expected and observed ``-log10 p``, as of `plait.crt.qq.qq_coords`; at most 8.
    out_png : str or path
        Its folder is made if need be.
    title : str
    envelope : tuple of three arrays, optional
        Expected ``-log10 p`` and the band around it, as of `plait.crt.qq.bootstrap_qq_envelope`.

    Raises
    ------
    InputError
        There are no curves, too many, or the lengths of one differ.
    """
    if not 1 <= len(curves) <= len(COLOURS):
        raise InputError(f"{len(curves)} QQ curves were given; 1 to {len(COLOURS)} can be drawn.")
    Path(out_png).parent.mkdir(parents=True, exist_ok=True)
    drawn = [
        QQCurve(x, y, label, colour, size=36.0, alpha=0.8)
        for colour, (label, (x, y)) in zip(COLOURS, curves.items(), strict=False)
    ]
    band = None if envelope is None else QQBand(*envelope, "bootstrap envelope", GREY, 0.25)
    save_figure(screen_qq(drawn, under=band, title=title), out_png, overwrite=True)


def _points(curve: QQCurve) -> tuple[Array, Array]:
    x, y = (np.asarray(values, dtype=np.float64) for values in (curve.x, curve.y))
    if x.shape != y.shape or x.ndim != 1 or not len(x):
        raise ShapeError(f"the curve {curve.label!r} has shapes {x.shape} and {y.shape}.")
    if curve.style != "points" and curve.style not in _LINES:
        raise OptionError(
            f"the style of {curve.label!r} is {curve.style!r}; give 'points' or one of "
            f"{', '.join(_LINES)}."
        )
    shown = decimated(len(x))
    return x[shown], y[shown]


def _draw(ax: "Axes", curve: QQCurve, x: Array, y: Array, layer: float) -> None:
    if curve.style == "points":
        ax.scatter(
            x, y, s=curve.size, marker=curve.marker, color=curve.colour, alpha=curve.alpha,
            linewidths=0, label=curve.label, zorder=layer, rasterized=len(x) > 5000,
        )  # fmt: skip
    else:
        ax.plot(
            x, y, color=curve.colour, linewidth=1.6, linestyle=_LINES[curve.style],
            label=curve.label, zorder=layer,
        )  # fmt: skip
