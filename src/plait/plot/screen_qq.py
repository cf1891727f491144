"""QQ curves of perturbation screens: negative controls beside the genes."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import InputError, OptionError, ShapeError
from plait.plot.style import (
    BLUE,
    COLOURS,
    GREY,
    VERMILION,
    axes_for,
    save_figure,
    styled,
    write_caption,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

_DPI = 150
"""Of files of curves, as programDE's."""
_CHANCE = (
    "All p-values against those that chance alone would give; the grey band holds 95% of chance. "
)
_BOTH = (
    "Negative controls should stay in it; where they leave it, the tests do so for the same "
    "reason. Tests above the controls are effects."
)
_CONTROLS = (
    "Negative controls have no effect and should stay in it. Above it p-values are too small, and "
    "discoveries too many; below it they are cautious."
)
_TESTS = "Without negative controls beside them nobody knows whether points above it are effects."
_BEYOND = " Triangles are beyond the dotted line."
_MOST = 20_000
_SMALLEST = 2_000
_BAND_POINTS = 400
_ROOM = 1.45
"""Height of a picture that is cut over its limit: above it stands the legend."""
_ABOVE_CONTROLS, _WORTH = 2.0, 1.5
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
    limit: float | None = None,
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
    limit : float, optional
        Points above this ``-log10 p`` stand at a dotted line there as triangles, and the legend
        says how many they are; see `readable_limit`. Default: none is moved.
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
        A style is unknown, or the limit is not positive.
    """
    if limit is not None and not limit > 0.0:
        raise OptionError(f"limit is {limit}; give a positive -log10 p.")
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
            _draw(ax, curve, x, y, limit, 3 + layer / len(curves))
        ax.set(xlim=(0, None), ylim=(0, None))
        if limit is not None:
            _say_limit(ax, [np.asarray(curve.y, dtype=np.float64) for curve in curves], limit)
        ax.set_xlabel("expected −log₁₀ p")
        ax.set_ylabel("observed −log₁₀ p")
        if title is not None:
            ax.set_title(title)
        ax.legend(loc="upper left", handletextpad=0.4)
    return ax


def controls_qq(
    tests: ArrayLike,
    controls: ArrayLike | None = None,
    *,
    names: tuple[str, str] = ("perturbations", "negative controls"),
    title: str | None = None,
    caption: bool = False,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the p-values of tests, and of negative controls, against chance.

    Parameters
    ----------
    tests, controls : arrays
        log10 of p-values, of any shape; NaN is left out. One of them may be empty.
    names : pair of str
        What they are of, in the plural.
    title : str, optional
    caption : bool
        Write below the figure how to read it.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
        Cut at `readable_limit`, so that controls and their band can be seen under large effects.

    Raises
    ------
    InputError
        There is no p-value.
    """
    heights = []
    for values in (tests, () if controls is None else controls):
        known = -np.asarray(values, dtype=np.float64).ravel()
        heights.append(np.sort(known[np.isfinite(known)])[::-1])
    if not sum(map(len, heights)):
        raise InputError("there are no p-values to draw.")
    curves = [
        QQCurve(-np.log10((np.arange(len(y)) + 0.5) / len(y)), y, f"{name} ({len(y):,})", colour,
                size=size, alpha=0.8)
        for name, colour, size, y in zip(names, (VERMILION, BLUE), (12.0, 20.0), heights,
                                         strict=True)
        if len(y)
    ]  # fmt: skip
    band = uniform_band(min(len(y) for y in heights if len(y)), 0.05, "95% of chance", GREY, 0.3)
    limit = readable_limit(*heights)
    drawn = screen_qq(curves, under=band, limit=limit, reference=None, title=title, ax=ax)
    if caption:
        has_tests, has_controls = (len(y) > 0 for y in heights)
        about = _BOTH if has_tests and has_controls else _TESTS if has_tests else _CONTROLS
        write_caption(drawn, f"{_CHANCE}{about}{_BEYOND if limit is not None else ''}")
    return drawn


def readable_limit(tests: Array, controls: Array) -> float | None:
    """Return where a QQ plot is cut so that controls and the band of chance can be seen.

    Parameters
    ----------
    tests, controls : arrays
        ``-log10 p``.

    Returns
    -------
    float or None
        Twice the highest control, or what chance gives in 1 of 40 sets of as many p-values, if
        that is higher; rounded up. None where no test is far beyond it, and where without controls
        most tests are.
    """
    count = len(controls) or len(tests)
    chance = -np.log10(-np.expm1(np.log(0.975) / count))
    limit = float(np.ceil(_ABOVE_CONTROLS * max(chance, controls.max(initial=0.0))))
    if not len(controls) and (tests > limit).sum() > len(tests) / 2:
        return None  # such as positive controls, of which nothing would be left to see
    return limit if tests.max(initial=0.0) > _WORTH * limit else None


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
    save_figure(screen_qq(drawn, under=band, title=title), out_png, overwrite=True, dpi=_DPI)


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


def _draw(
    ax: "Axes", curve: QQCurve, x: Array, y: Array, limit: float | None, layer: float
) -> None:
    if curve.style != "points":
        ax.plot(
            x, y, color=curve.colour, linewidth=1.6, linestyle=_LINES[curve.style],
            label=curve.label, zorder=layer,
        )  # fmt: skip
        return
    beyond = np.zeros(len(y), dtype=bool) if limit is None else y > limit
    how: Any = {"color": curve.colour, "alpha": curve.alpha, "linewidths": 0, "zorder": layer}
    ax.scatter(
        x[~beyond], y[~beyond], s=curve.size, marker=curve.marker, label=curve.label,
        rasterized=len(x) > 5000, **how,
    )  # fmt: skip
    if beyond.any():
        ax.scatter(
            x[beyond], np.full(int(beyond.sum()), limit), s=3.0 * curve.size, marker="^",
            clip_on=False, **how,
        )  # fmt: skip


def _say_limit(ax: "Axes", heights: Sequence[Array], limit: float) -> None:
    """Mark where the axis ends, and say how many points are beyond it; room for the legend."""
    beyond = sum(int((y > limit).sum()) for y in heights)
    if not beyond:
        return
    highest = max(float(y.max()) for y in heights)
    ax.axhline(limit, color=GREY, linewidth=0.8, linestyle=_LINES["dotted"], zorder=1)
    ax.scatter(
        [], [], marker="^", color=GREY, s=30,
        label=f"{beyond:,} beyond {limit:.3g}, up to {highest:,.3g}",
    )  # fmt: skip
    ax.set_ylim(0, limit * _ROOM)
    ax.set_yticks([tick for tick in ax.get_yticks() if 0 <= tick <= limit])
