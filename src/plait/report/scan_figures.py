"""Figures of a scan: the Manhattan and the QQ plot, of a bounded number of points."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.plot.manhattan import GENOME_WIDE, along_genome, highest_peaks, shade_of, thinned
from plait.report.figures import GREY, VERMILION, Spec, against_chance, numbers, plain, short

Array = NDArray[np.float64]
Rows = NDArray[np.intp]

_MOST_LOW, _MOST_HIGH = 3000, 1000
"""Points of a Manhattan plot up to 3 and above."""
_TOLD = 3.0
"""Height above which a point says which variant it is."""
_WIDTH = 1000.0
_PEAKS, _APART = 5, 0.1
"""Peaks that are named, and the share of the picture that a name takes."""
_LONGEST_PEAK = 18


def trait_colour(number: int) -> str:
    """Return the colour of a trait among those with a colour of their own."""
    return f"var(--trait-{number})"


@dataclass(frozen=True, eq=False)
class Genome:
    """Where the variants of a scan are in a picture.

    Attributes
    ----------
    across : (M,) array
        From 0 to 1000.
    ticks : list of (str, float)
        Chromosomes, and where their names are.
    number : (M,) int array
        Of which chromosome each variant is.
    """

    across: Array
    ticks: list[tuple[str, float]]
    number: Rows

    @classmethod
    def of(cls, chrom: NDArray[Any], pos: NDArray[np.int64]) -> "Genome":
        """Put chromosomes side by side."""
        across, ticks, number = along_genome(chrom.astype(np.str_), pos.astype(np.float64))
        scale = _WIDTH / max(float(across.max(initial=0.0)), 1.0)
        return cls(scale * across, [(name, scale * place) for name, place in ticks], number)


@dataclass(frozen=True, eq=False)
class View:
    """The points of a Manhattan plot that are drawn.

    Attributes
    ----------
    rows : (n,) array
        Which variants.
    heights : (n,) array
        -log10 p.
    groups : list of (colour, (n,) bool array)
        The colours of points above the line.
    traits : (n,) array of str, optional
        The trait of each point, where they differ.
    """

    rows: Rows
    heights: Array
    groups: list[tuple[str, NDArray[np.bool_]]]
    traits: NDArray[Any] | None = None

    @property
    def told(self) -> NDArray[np.bool_]:
        """Which points say what they are when the mouse is over them: the others are too many."""
        return self.heights > _TOLD


def shown_of(genome: Genome, heights: Array) -> Rows:
    """Return the variants that are drawn of all."""
    return thinned(genome.across, heights, _MOST_LOW, _MOST_HIGH)


def manhattan(genome: Genome, view: View, about: Mapping[int, tuple[str, str]]) -> Spec:
    """Draw -log10 p along the genome.

    Parameters
    ----------
    genome : Genome
    view : View
    about : mapping
        The name and the place of the variants that say what they are.
    """
    line = float(GENOME_WIDE)
    high, shade = view.heights > line, shade_of(genome.number[view.rows], genome.ticks)
    parts: list[tuple[NDArray[np.bool_], str, int]] = []
    for kind, colour in enumerate(("var(--chromosome-0)", "var(--chromosome-1)", GREY)):
        both = (~view.told, view.told)
        parts += [((shade == kind) & ~high & chosen, colour, 4) for chosen in both]
    parts += [(high & chosen, colour, 6) for colour, chosen in view.groups]
    top = 1.1 * max(float(np.max(view.heights, initial=0.0)), line)
    layout = {
        "height": 380,
        "hovermode": "closest",
        "xaxis": {
            "title": {"text": "chromosome"}, "range": [-0.01 * _WIDTH, 1.01 * _WIDTH],
            "tickmode": "array", "tickvals": [round(place, 1) for _, place in genome.ticks],
            "ticktext": [short(name, 12) for name, _ in genome.ticks], "tickangle": 0,
            "showgrid": False, "zeroline": False,
        },
        "yaxis": {"title": {"text": "−log₁₀ p"}, "range": [0, top], "zeroline": False},
        "shapes": [
            {
                "type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": line, "y1": line,
                "line": {"color": VERMILION, "width": 1, "dash": "dash"},
            }
        ],
        "annotations": _peak_names(genome, view, line, about),
    }  # fmt: skip
    data = [_points(genome, view, *part, about) for part in parts if part[0].any()]
    return {"data": data, "layout": layout}


def qq(columns: Sequence[Array], traits: Sequence[str]) -> Spec:
    """Draw observed against expected -log10 p of some traits.

    Parameters
    ----------
    columns : sequence of (M,) arrays
        log10 p of each trait; NaN is left out.
    traits : sequence of str
    """
    curves = [
        (trait, trait_colour(number), -column)
        for number, (trait, column) in enumerate(zip(traits, columns, strict=True))
    ]
    return against_chance(curves, max(int(np.isfinite(c).sum()) for c in columns))


def _points(
    genome: Genome,
    view: View,
    chosen: NDArray[np.bool_],
    colour: str,
    size: int,
    about: Mapping[int, tuple[str, str]],
) -> Spec:
    """Return points of one colour."""
    rows = view.rows[chosen]
    part: Spec = {
        "type": "scatter",
        "mode": "markers",
        "x": numbers(genome.across[rows], 5),
        "y": numbers(view.heights[chosen]),
        "marker": {"color": colour, "size": size},
    }
    if not view.told[chosen].all():
        return part | {"hoverinfo": "skip"}
    said = [[plain(text) for text in about[row]] for row in rows.tolist()]
    if view.traits is not None:
        for texts, trait in zip(said, view.traits[chosen].tolist(), strict=True):
            texts[1] += f", {plain(trait)}"
    template = "%{customdata[0]}<br>%{customdata[1]}: −log₁₀ p %{y:.1f}<extra></extra>"
    return part | {"customdata": said, "hovertemplate": template}


def _peak_names(
    genome: Genome, view: View, line: float, about: Mapping[int, tuple[str, str]]
) -> list[Spec]:
    if not len(view.rows):
        return []
    across = genome.across[view.rows]
    apart = _APART * float(np.ptp(across))
    return [
        {
            "x": float(f"{across[peak]:.5g}"), "y": float(f"{view.heights[peak]:.4g}"),
            "text": short(about[int(view.rows[peak])][0], _LONGEST_PEAK), "showarrow": False,
            "yshift": 11, "font": {"size": 11}, "bgcolor": "var(--page)", "borderpad": 0,
            "opacity": 0.85,
        }
        for peak in highest_peaks(across, view.heights, line, _PEAKS, apart)
    ]  # fmt: skip
