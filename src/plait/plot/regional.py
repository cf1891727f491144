"""Regional plot: the associations around one variant, and how they follow from linkage with it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import ShapeError
from plait.plot.manhattan import GENOME_WIDE
from plait.plot.style import (
    BESIDE_POINTS,
    GREY,
    INK,
    VERMILION,
    check_labels,
    styled,
    write_words,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CAPTION = (
    "Each point is a variant: its position and −log₁₀ of its p-value. The diamond is the lead "
    "variant; colours are the squared correlation of the others with it. One signal is a group of "
    "warm colours that falls off together; a high point in a cold colour is a second signal. The "
    "dashed line is genome-wide significance (p < 5e-8)."
)
R2_BREAKS = (0.2, 0.4, 0.6, 0.8)
R2_COLOURS = ("#B9D4E7", "#6BAED6", "#2C6FA6", "#E69F00", "#D55E00")
"""From no linkage with the lead variant to the same information."""
_R2_NAMES = ("0.8 to 1", "0.6 to 0.8", "0.4 to 0.6", "0.2 to 0.4", "0 to 0.2")
_UNKNOWN = "#C9C9C9"
_LEAD = "#7B3294"
_POINT = 17
_GENE_COLOUR = "#33658A"
_MOST_GENE_ROWS = 8

Genes = Sequence[tuple[float, float, str]]


def regional(
    pos: ArrayLike,
    log10p: ArrayLike,
    r2: ArrayLike | None,
    lead: int,
    traits: Sequence[str] | None = None,
    *,
    chrom: str = "",
    lead_name: str = "",
    window: tuple[float, float] | None = None,
    genes: Genes | None = None,
    line: float | None = GENOME_WIDE,
    title: str | None = None,
    caption: bool = False,
    axes: "Sequence[Axes] | None" = None,
) -> "list[Axes]":
    """Draw ``-log10 p`` around a lead variant, coloured by linkage with it, one panel per trait.

    Parameters
    ----------
    pos : (M,) array
        Positions, on one chromosome.
    log10p : (M,) or (M, T) array
        log10 of p-values; NaN is left out.
    r2 : (M,) array, optional
        Squared correlation with the lead variant, NaN where unknown. Default: unknown.
    lead : int
        Which variant is the lead.
    traits : (T,) sequence of str, optional
        Names of the panels.
    chrom : str
        Name of the chromosome.
    lead_name : str
        Name of the lead variant, written beside it in the first panel.
    window : (float, float), optional
        First and last position of the picture; default those of the variants.
    genes : sequence of (start, end, name), optional
        Drawn below the panels.
    line : float, optional
        Height of the dashed line; None draws none.
    title : str, optional
    caption : bool
        Write below the figure how to read it.
    axes : sequence of matplotlib Axes, optional
        One per trait, and one more for genes. Default a new figure.

    Returns
    -------
    list of matplotlib.axes.Axes
        One per trait, from top to bottom, and one more for genes.

    Raises
    ------
    ShapeError
        The lengths differ, the lead is none of the variants, or traits, axes or labels do not fit.
    """
    places = np.asarray(pos, dtype=np.float64)
    heights = -np.asarray(log10p, dtype=np.float64)
    heights = heights[:, None] if heights.ndim == 1 else heights
    linkage = np.full(len(places), np.nan) if r2 is None else np.asarray(r2, dtype=np.float64)
    if not len(places) == len(heights) == len(linkage) or not 0 <= lead < len(places):
        raise ShapeError(
            f"pos, log10p and r2 have {len(places)}, {len(heights)} and {len(linkage)} entries; "
            f"the lead is number {lead} of them."
        )
    names = check_labels(traits, heights.shape[1], "traits")
    limits = _limits(places, window)
    rows = _gene_rows(genes, limits) if genes is not None else []
    with styled() as plt:
        panels = _new_panels(plt, len(names), rows, genes is not None) if axes is None else axes
        panels = list(panels)
        if len(panels) != len(names) + (genes is not None):
            raise ShapeError(f"{len(panels)} axes for {len(names)} traits.")
        for number, panel in enumerate(panels[: len(names)]):
            _draw_panel(panel, places / 1e6, heights[:, number], linkage, lead, line)
            if traits is not None:
                panel.set_title(
                    names[number], fontsize=9, fontweight="normal",
                    loc="left" if title is None else "right",
                )  # fmt: skip
        if genes is not None:
            _draw_genes(panels[-1], rows)
        _name_lead(panels[0], places[lead] / 1e6, heights[lead, 0], lead_name, limits)
        for panel in panels:
            panel.set_xlim(limits[0] / 1e6, limits[1] / 1e6)
            panel.tick_params(axis="x", labelbottom=panel is panels[-1])
        panels[-1].set_xlabel(f"position on chromosome {chrom} (Mb)" if chrom else "position (Mb)")
        _write_legend(panels[0], np.isfinite(linkage).any(), np.isnan(linkage).any())
        write_words(panels[0], title, CAPTION if caption else None)
    return panels


def _limits(places: NDArray[np.float64], window: tuple[float, float] | None) -> tuple[float, float]:
    first, last = (places.min(), places.max()) if window is None else window
    margin = 0.015 * (last - first) or 1000.0
    return float(first - margin), float(last + margin)


def _new_panels(plt: Any, n_traits: int, rows: list[Any], with_genes: bool) -> "list[Axes]":
    each = 2.7 if n_traits == 1 else 1.75
    heights = [each] * n_traits + ([0.2 + 0.2 * max(len(rows), 1)] if with_genes else [])
    _, grid = plt.subplots(
        len(heights),
        1,
        figsize=(7.2, sum(heights) + 0.45),
        height_ratios=heights,
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    panels = list(grid[:, 0])
    panels[0].figure.align_ylabels(panels)  # ticks of panels differ in width
    return panels


def _draw_panel(
    ax: "Axes",
    places: NDArray[np.float64],
    heights: NDArray[np.float64],
    r2: NDArray[np.float64],
    lead: int,
    line: float | None,
) -> None:
    others = np.isfinite(heights)
    others[lead] = False
    colour = np.digitize(r2, R2_BREAKS)
    # Unknown first, then from no linkage to much, so that what belongs to the signal is on top.
    for number in (-1, *range(len(R2_COLOURS))):
        drawn = others & (np.isnan(r2) if number < 0 else np.isfinite(r2) & (colour == number))
        if not drawn.any():
            continue
        ax.scatter(
            places[drawn], heights[drawn], s=_POINT, linewidths=0.25, edgecolors="white",
            color=_UNKNOWN if number < 0 else R2_COLOURS[number], rasterized=True,
            zorder=2 + number / 10,
        )  # fmt: skip
    ax.axvline(places[lead], color=_LEAD, linewidth=0.6, alpha=0.35, zorder=1)
    if np.isfinite(heights[lead]):
        ax.scatter(
            places[lead], heights[lead], s=52, marker="D", color=_LEAD, edgecolors="white",
            linewidths=0.8, zorder=4, clip_on=False,
        )  # fmt: skip
    known = heights[np.isfinite(heights)]
    top = max(float(known.max(initial=0.0)), 0.0 if line is None else 1.05 * line, 1.0)
    if not len(known):
        ax.text(0.5, 0.5, "not tested here", transform=ax.transAxes, ha="center", color=GREY)
    if line is not None:
        ax.axhline(line, color=VERMILION, linewidth=0.8, linestyle="--", zorder=1.5)
    ax.set_ylim(0, 1.14 * top)
    ax.set_ylabel("−log₁₀ p")


def _name_lead(
    ax: "Axes", place: float, height: float, name: str, limits: tuple[float, float]
) -> None:
    if not name or not np.isfinite(height):
        return
    left = place - limits[0] / 1e6 > 0.75 * (limits[1] - limits[0]) / 1e6
    ax.annotate(
        name, (place, height), (-7 if left else 7, 3), textcoords="offset points",
        ha="right" if left else "left", va="center", fontsize=8, color=INK, zorder=5,
        bbox=BESIDE_POINTS,
    )  # fmt: skip


def _write_legend(ax: "Axes", some_known: bool, some_unknown: bool) -> None:
    from matplotlib.lines import Line2D

    def mark(colour: str, name: str, shape: str = "o", size: float = 5.5) -> Line2D:
        return Line2D(
            [], [], linestyle="", marker=shape, color=colour, markeredgewidth=0, markersize=size,
            label=name,
        )  # fmt: skip

    marks = [mark(_LEAD, "lead", "D", 5)]
    if some_known:
        marks += [
            mark(colour, name) for colour, name in zip(R2_COLOURS[::-1], _R2_NAMES, strict=True)
        ]
    if some_unknown:
        marks.append(mark(_UNKNOWN, "unknown"))
    ax.legend(
        handles=marks, title="r² with lead" if some_known else None, title_fontsize=8,
        fontsize=7.5, loc="upper left", bbox_to_anchor=(1.005, 1.02), handletextpad=0.1,
        labelspacing=0.35, borderaxespad=0, alignment="left",
    )  # fmt: skip


def _gene_rows(genes: Genes, limits: tuple[float, float]) -> list[list[tuple[float, float, str]]]:
    """Put genes into rows in which neither they nor their names overlap."""
    inside = [gene for gene in genes if gene[1] >= limits[0] and gene[0] <= limits[1]]
    letter = 0.0105 * (limits[1] - limits[0])
    rows: list[list[tuple[float, float, str]]] = []
    ends: list[float] = []
    for start, end, name in sorted(inside):
        left, right = max(start, limits[0]), min(end, limits[1])
        half = max(right - left, letter * (len(name) + 2)) / 2
        middle = (left + right) / 2
        row = next((k for k, last in enumerate(ends) if last <= middle - half), len(ends))
        if row == len(ends):
            if row == _MOST_GENE_ROWS:
                continue
            ends.append(0.0)
            rows.append([])
        ends[row] = middle + half
        rows[row].append((left, right, name))
    return rows


def _draw_genes(ax: "Axes", rows: list[list[tuple[float, float, str]]]) -> None:
    for number, row in enumerate(rows):
        for start, end, name in row:
            ax.plot(
                [start / 1e6, end / 1e6], [number, number], color=_GENE_COLOUR, linewidth=3,
                solid_capstyle="butt",
            )  # fmt: skip
            ax.annotate(
                name, ((start + end) / 2e6, number), (0, 3), textcoords="offset points",
                ha="center", va="bottom", fontsize=6.5, fontstyle="italic", color=INK,
                annotation_clip=True,
            )  # fmt: skip
    ax.set_ylim(max(len(rows), 1) - 0.5, -1.0)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
