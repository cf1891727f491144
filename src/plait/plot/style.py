"""What all figures share: colours, type, sizes, captions and files."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from textwrap import fill
from typing import TYPE_CHECKING, Any

from plait.errors import DependencyError, OutputError, ShapeError
from plait.execution.memory import give_back
from plait.io.atomic import replace_file

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

BLUE, VERMILION, GREY, INK = "#0072B2", "#D55E00", "#9A9A9A", "#222222"
"""Colours of Okabe and Ito, which people with any colour vision tell apart."""

_DPI = 220
_COMPRESSION = 4
"""Of a .png, 0 to 9: the usual 6 takes twice the time for a twentieth of the bytes."""
COLOURS = (BLUE, VERMILION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444", "#8C564B")
"""Of several traits in one picture; more cannot be told apart."""

FIGURE_SUFFIXES = (".png", ".pdf", ".svg")

_STYLE: Any = {
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": "#555555",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.dpi": 110,
    "savefig.dpi": _DPI,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
}


@contextmanager
def styled() -> Iterator[Any]:
    """Yield ``matplotlib.pyplot`` with the house style, which ends with the block.

    Raises
    ------
    DependencyError
        Matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "matplotlib":
            raise
        raise DependencyError(
            "matplotlib is required for plotting; install it with: pip install 'plait[plot]'",
            name="matplotlib",
        ) from None
    with plt.rc_context(_STYLE):
        yield plt


def axes_for(plt: Any, ax: "Axes | None", width: float, height: float) -> "Axes":
    """Return the Axes to draw on: the given one, or a new figure of that size in inches."""
    if ax is not None:
        return ax
    new: Axes = plt.subplots(figsize=(width, height), layout="constrained")[1]
    return new


def write_caption(ax: "Axes", text: str) -> None:
    """Write how to read the picture below it, on space added to the figure."""
    figure: Any = ax.figure
    wrapped = fill(text, max(30, int(figure.get_figwidth() * 16)))
    figure.set_figheight(figure.get_figheight() + 0.15 * (wrapped.count("\n") + 2))
    figure.supxlabel(wrapped, x=0.01, ha="left", fontsize=7.5, color="#555555", linespacing=1.35)


def write_words(ax: "Axes", title: str | None, caption: str | None) -> None:
    """Write a title above and how to read the picture below it, where there are any."""
    if title is not None:
        ax.set_title(title)
    if caption is not None:
        write_caption(ax, caption)


def check_labels(labels: Sequence[str] | None, count: int, what: str) -> list[str]:
    """Return labels as text, numbered from 1 where there are none."""
    if labels is None:
        return [str(i + 1) for i in range(count)]
    names = [str(label) for label in labels]
    if len(names) != count:
        raise ShapeError(f"{len(names)} labels were given for {count} {what}.")
    return names


def chosen_traits(
    importance: "NDArray[np.floating[Any] | np.integer[Any]]",
) -> "tuple[list[int], list[int]]":
    """Return the traits that get colours of their own, in their order, and the others.

    All of them where there are colours enough, else the most important ones.
    """
    order = sorted(range(len(importance)), key=lambda k: -float(importance[k]))
    own = sorted(order[: len(COLOURS)])
    return own, sorted(set(order) - set(own))


def counted(others: int) -> str:
    """Return what a legend calls the traits without a colour of their own."""
    return "1 other" if others == 1 else f"{others} others"


def set_counts(axis: "Axis") -> None:
    """Put the ticks of a linear axis of numbers of things at whole numbers, with commas."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}")


BESIDE_POINTS: Any = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.8}
"""The ground of text that lies over points. An outline of its letters would make them no text in
a .svg."""


def label_size(count: int, inches: float) -> float:
    """Return a font size in points at which ``count`` labels fit side by side into a length."""
    return float(min(8.0, max(4.0, 0.75 * 72 * inches / max(count, 1))))


def save_figure(
    figure: "Axes | Figure",
    path: str | os.PathLike[str],
    overwrite: bool = False,
    dpi: int = _DPI,
) -> None:
    """Write a figure to a file, whole or not at all, and close it.

    Parameters
    ----------
    figure : Axes or Figure
    path : str or path
        Ends in ``.png``, ``.pdf`` or ``.svg`` (text stays text).
    overwrite : bool
        Whether a file that exists is replaced.
    dpi : int
        Dots per inch of a ``.png`` (220).

    Raises
    ------
    OutputError
        The file exists or cannot be written, or its format is not one of the three.
    """
    check_figure_path(path)
    whole: Any = figure.get_figure(root=True) if hasattr(figure, "get_title") else figure
    with styled() as plt, replace_file(path, overwrite) as temporary:
        # Without a date and a version the same figure is the same file.
        metadata = {".png": {"Software": None}, ".pdf": {"CreationDate": None}}
        kind = temporary.suffix
        packed: Any = {"pil_kwargs": {"compress_level": _COMPRESSION}} if kind == ".png" else {}
        if any(axes.get_aspect() != "auto" for axes in whole.axes):
            # One pass of the layout finds no room for the title of a square between long names.
            whole.draw_without_rendering()
        whole.savefig(temporary, dpi=dpi, metadata=metadata.get(kind, {"Date": None}), **packed)
        plt.close(whole)
    give_back()


def check_figure_path(path: str | os.PathLike[str]) -> None:
    """Refuse a file name that is not one of a picture."""
    if not str(os.fspath(path)).lower().endswith(FIGURE_SUFFIXES):
        raise OutputError(f"{path}: a figure is written as one of {', '.join(FIGURE_SUFFIXES)}.")
