"""Figures of the page: Plotly descriptions (plain dicts) made from arrays and labels.

Colours are named, ``var(--blue)``; the page looks them up, so that a figure is at home in light and
in dark. Labels are escaped for Plotly, which otherwise takes them for a kind of HTML.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.data.p_values import p_value_text
from plait.data.words import shortened
from plait.plot.manhattan import thinned
from plait.plot.patterns import top_pattern
from plait.plot.qq import chance_band

Array = NDArray[np.float64]
Spec = dict[str, Any]

BLUE, SKY, VERMILION = "var(--blue)", "var(--sky)", "var(--vermilion)"
GREY, LINE, INK = "var(--grey)", "var(--line)", "var(--ink)"

_HEAT = [[i / 4, f"var(--heat-{i})"] for i in range(5)]
_DIVERGING = [[0.0, "var(--vermilion)"], [0.5, "var(--middle)"], [1.0, "var(--blue)"]]
_ANNOTATED = 14
_QQ_LOW, _QQ_HIGH = 400, 300
_ALONE = 0.95
_TOP = 30.0
"""Values of -log10 lfsr above this are drawn at the edge."""

_FEW = 5
"""Up to this number, ticks chosen by Plotly would stand between whole ones."""

AXIS_LABEL = 26
"""Longest label on an axis; the whole one is shown when the mouse is over it."""


def plain(label: str) -> str:
    """Return a label as Plotly shows it literally."""
    return escape(label, quote=False)


def short(label: str, longest: int = AXIS_LABEL) -> str:
    """Return a label with its middle left out where it is long, escaped."""
    return plain(shortened(label, longest))


def numbers(values: Any, digits: int = 4) -> list[Any]:
    """Return numbers as JSON can hold them, to some significant digits; None where there is none.

    Nested like the array.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim > 1:
        return [numbers(row, digits) for row in array]
    return [float(f"{v:.{digits}g}") if np.isfinite(v) else None for v in array.tolist()]


def rate_text(rate: float) -> str:
    """Return a rate of wrong signs, or of false discoveries, as p-values are written."""
    return p_value_text(math.log10(rate)) if rate > 0 else f"{rate:g}"


def key_of(spec: Spec) -> list[tuple[str, str]]:
    """Return the colours of a figure's named parts and what they mean."""
    return [(part["marker"]["color"], part["name"]) for part in spec["data"] if "name" in part]


def _places(labels: Sequence[str], **more: Any) -> Spec:
    """Return an axis of contexts: numbered places with labels, so that equal names stay apart."""
    count = len(labels)
    return {
        "tickmode": "array",
        "tickvals": list(range(count)),
        "ticktext": [short(label) for label in labels],
        "tickfont": {"size": 12 if count <= 24 else 10},
        "ticklabelstandoff": 4,
        "showgrid": False,
        "zeroline": False,
        "automargin": True,
        **more,
    }


def _downwards(count: int) -> list[float]:
    return [count - 0.4, -0.6]


def bar_rows_height(count: int, extra: int = 78) -> int:
    """Return the height of a figure with one row per bar, in pixels."""
    each = 30 if count <= 12 else 22 if count <= 24 else 15
    return max(150, extra + each * count)


def count_axis(title: str, most: int) -> Spec:
    """Return an axis of numbers of things up to ``most``, with ticks at whole numbers alone."""
    axis: Spec = {"title": {"text": title}, "rangemode": "tozero", "tickformat": ",d"}
    return axis | ({"tick0": 0, "dtick": 1} if most <= _FEW else {})


def found_by_context(
    contexts: Sequence[str],
    alone: NDArray[np.int64],
    several: NDArray[np.int64],
    everywhere: NDArray[np.int64],
) -> Spec:
    """Draw how many effects are significant in each context, by how many others they are in."""
    parts = [
        (f"in all {len(contexts)} contexts", everywhere, BLUE),
        ("in some others too", several, SKY),
        ("in this context alone", alone, VERMILION),
    ]
    shown = [part for part in parts if int(part[1].sum())] or parts[:1]
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": list(range(len(contexts))),
            "x": [int(v) for v in values],
            "customdata": [plain(c) for c in contexts],
            "marker": {"color": colour},
            "hovertemplate": "%{customdata}<br>%{x:,} effects " + name + "<extra></extra>",
        }
        for name, values, colour in shown
    ]
    layout = {
        "barmode": "stack",
        "bargap": 0.28,
        "height": bar_rows_height(len(contexts)),
        "xaxis": count_axis("significant effects", int((alone + several + everywhere).max())),
        "yaxis": _places(contexts, range=_downwards(len(contexts))),
    }
    return {"data": data, "layout": layout}


def weight_bars(names: Sequence[str], weights: Sequence[float], colours: Sequence[str]) -> Spec:
    """Draw mixture weights as bars, the first on top."""
    count = len(names)
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": list(range(count)),
        "x": numbers(weights),
        "text": [f"{weight:.1%}" for weight in weights],
        "textposition": "outside",
        "cliponaxis": False,
        "customdata": [plain(name) for name in names],
        "marker": {"color": list(colours)},
        "hovertemplate": "%{customdata}: %{x:.2%}<extra></extra>",
    }
    layout = {
        "height": bar_rows_height(count),
        "bargap": 0.3,
        "xaxis": {
            "title": {"text": "fraction of all effects"},
            "tickformat": ".0%",
            "range": [0, 1.18 * max([*weights, 1e-9])],
        },
        "yaxis": _places(names, range=_downwards(count)),
    }
    return {"data": [bars], "layout": layout}


def sharing_map(sharing: Array, contexts: Sequence[str]) -> Spec:
    """Draw the share of similar effects of every pair of contexts as a heat map."""
    count = len(contexts)
    names = [plain(context) for context in contexts]
    cells = {
        "type": "heatmap",
        "z": numbers(100 * sharing),
        "zmin": 0,
        "zmax": 100,
        "colorscale": _HEAT,
        "xgap": 1.5 if count <= 24 else 0,
        "ygap": 1.5 if count <= 24 else 0,
        "hoverongaps": False,
        "meta": names,  # the page makes the pairs of them that are shown under the mouse
        "hovertemplate": "%{customdata[0]} and %{customdata[1]}: %{z:.0f}%<extra></extra>",
        "colorbar": {
            "thickness": 10,
            "len": 0.8,
            "outlinewidth": 0,
            "tickvals": [0, 25, 50, 75, 100],
            "ticktext": ["0%", "25%", "50%", "75%", "100%"],
        },
    }
    if count <= _ANNOTATED:
        cells |= {"texttemplate": "%{z:.0f}", "textfont": {"size": 12 if count <= 9 else 10}}
    side = 26 if count <= 24 else 13
    layout = {
        "height": max(300, 150 + max(side, 34 if count <= 9 else 0) * count),
        "xaxis": _places(contexts, tickangle=-90 if count > 6 else -40, constrain="domain"),
        "yaxis": _places(contexts, range=[count - 0.5, -0.5]),
    }
    return {"data": [cells], "layout": layout}


def similar_counts(counts: NDArray[np.int64]) -> Spec:
    """Draw in how many contexts effects are about as large as where they are strongest."""
    total = max(int(counts.sum()), 1)
    places = list(range(1, len(counts) + 1))
    bars = {
        "type": "bar",
        "x": places,
        "y": numbers(counts / total),
        "customdata": [int(count) for count in counts],
        "marker": {"color": [VERMILION, *[SKY] * (len(counts) - 2), BLUE][-len(counts) :]},
        "hovertemplate": "%{x} contexts: %{y:.1%} (%{customdata:,} effects)<extra></extra>",
    }
    layout = {
        "height": 330,
        "bargap": 0.25,
        "xaxis": {
            "title": {"text": "contexts with a similar effect"},
            "showgrid": False,
            "tickmode": "array" if len(counts) <= 12 else "auto",
            "tickvals": places,
        },
        "yaxis": {"title": {"text": "significant effects"}, "tickformat": ".1~%"},
    }
    return {"data": [bars], "layout": layout}


def pattern(covariance: Array, contexts: Sequence[str]) -> Spec:
    """Draw a covariance: its correlations as a heat map, its main direction as bars."""
    count = len(contexts)
    names = [plain(context) for context in contexts]
    sd = np.sqrt(np.clip(np.diag(covariance), 0, None))
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = np.clip(covariance / np.outer(sd, sd), -1, 1)
    correlation[~np.isfinite(correlation)] = np.nan
    cells = {
        "type": "heatmap",
        "z": numbers(correlation, 3),
        "zmin": -1,
        "zmax": 1,
        "colorscale": _DIVERGING,
        "xgap": 1 if count <= 24 else 0,
        "ygap": 1 if count <= 24 else 0,
        "showscale": False,
        "hoverongaps": False,
        "meta": names,  # the page makes the pairs of them that are shown under the mouse
        "hovertemplate": "%{customdata[0]} and %{customdata[1]}: %{z:.2f}<extra></extra>",
    }
    vector, title = main_direction(covariance)
    bars = {
        "type": "bar",
        "orientation": "h",
        "xaxis": "x2",
        "y": list(range(count)),
        "x": numbers(vector, 3),
        "customdata": names,
        "marker": {"color": [BLUE if value >= 0 else VERMILION for value in vector]},
        "hovertemplate": "%{customdata}: %{x:.2f}<extra></extra>",
    }
    bottom = -1.05 if vector.min() < -0.02 else -0.03
    layout = {
        "height": max(160, 82 + (24 if count <= 12 else 18 if count <= 24 else 11) * count),
        "bargap": 0.3,
        "margin": {"t": 4, "b": 62},
        "xaxis": {
            "domain": [0, 0.54], "showticklabels": False, "showgrid": False, "zeroline": False,
            "title": {"text": "correlation", "standoff": 6}, "ticks": "",
        },
        "xaxis2": {
            "domain": [0.6, 1], "range": [bottom, 1.05], "zeroline": True, "nticks": 4,
            "title": {"text": title, "standoff": 6},
        },
        "yaxis": _places(contexts, range=[count - 0.5, -0.5]),
    }  # fmt: skip
    return {"data": [cells, bars], "layout": layout}


def main_direction(covariance: Array) -> tuple[Array, str]:
    """Return the top eigenvector scaled to 1, and what to call it; zeros where there is none.

    Where the two largest eigenvalues are nearly equal the direction is an accident of rounding.
    """
    values = np.linalg.eigvalsh(0.5 * (covariance + covariance.T))
    if values[-1] <= 0 or (len(values) > 1 and values[-2] > _ALONE * values[-1]):
        return np.zeros(len(covariance)), "no main<br>direction"
    vector, share = top_pattern(covariance)
    return vector, f"main direction<br>({share:.0%})"


def lfsr_against_effect(
    mean: Array,
    lfsr: Array,
    effects: Sequence[str],
    contexts: Sequence[str],
    level: float,
    unit: str = "posterior mean",
) -> Spec:
    """Draw how sure each effect is against how large it is."""
    with np.errstate(divide="ignore"):
        sure = -np.log10(lfsr)
    beyond, significant = sure > _TOP, lfsr < level
    groups = (
        (f"lfsr {level:g} or more", ~significant, GREY, "circle", 4),
        (f"lfsr below {level:g}", significant & ~beyond, BLUE, "circle", 5),
        (f"triangles: below 1e-{_TOP:.0f}", significant & beyond, BLUE, "triangle-up", 7),
    )
    data = []
    for name, chosen, colour, symbol, size in groups:
        if not chosen.any():
            continue
        places = np.flatnonzero(chosen).tolist()
        about = [[plain(effects[i]), plain(contexts[i]), rate_text(float(lfsr[i]))] for i in places]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": numbers(mean[places]),
                "y": numbers(np.minimum(sure[places], _TOP)),
                "customdata": about,
                "marker": {"color": colour, "symbol": symbol, "size": size, "opacity": 0.55},
                "hovertemplate": "%{customdata[0]}<br>%{customdata[1]}: %{x}<br>"
                "lfsr %{customdata[2]}<extra></extra>",
            }
        )
    edge = float(-np.log10(level))
    layout = {
        "height": 420,
        "hovermode": "closest",
        "xaxis": {"title": {"text": unit}, "zeroline": True},
        "yaxis": {"title": {"text": "−log₁₀ lfsr"}, "rangemode": "tozero", "zeroline": False},
        "shapes": [
            {
                "type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": edge, "y1": edge,
                "line": {"color": GREY, "width": 1, "dash": "dash"},
            }
        ],
    }  # fmt: skip
    return {"data": data, "layout": layout}


def against_chance(
    curves: Sequence[tuple[str, str, Array]], band_of: int, limit: float | None = None
) -> Spec:
    """Draw observed against expected -log10 p, over the band that holds 95% of chance.

    Parameters
    ----------
    curves : sequence of (name, colour, (n,) array of -log10 p)
        What is not finite is left out; of an empty curve nothing is drawn.
    band_of : int
        Number of p-values that the band is for.
    limit : float, optional
        Points above it stand at a dotted line there as triangles.
    """
    top = np.inf if limit is None else limit
    expected, low, high = chance_band(band_of)
    longest = max(len(heights) for _, _, heights in curves)
    end = float(-np.log10(0.5 / max(longest, 1)))
    data: list[Spec] = [
        {
            "type": "scatter", "mode": "lines", "fill": "toself", "fillcolor": LINE,
            "x": numbers(np.concatenate([expected, expected[::-1]])),
            "y": numbers(np.concatenate([low, high[::-1]])),
            "line": {"width": 0, "color": LINE}, "hoverinfo": "skip",
        },
        {
            "type": "scatter", "mode": "lines", "x": [0, end], "y": [0, end], "hoverinfo": "skip",
            "line": {"width": 1, "color": GREY},
        },
    ]  # fmt: skip
    for name, colour, heights in curves:
        seen = np.sort(heights[np.isfinite(heights)])[::-1]
        if not len(seen):
            continue
        places = -np.log10((np.arange(len(seen)) + 0.5) / len(seen))
        shown = thinned(places, seen, _QQ_LOW, _QQ_HIGH)
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": numbers(places[shown]),
                "y": numbers(np.minimum(seen[shown], top)),
                "customdata": numbers(seen[shown]),
                "meta": plain(name),
                "marker": {
                    "color": colour,
                    "size": [8 if y > top else 5 for y in seen[shown]],
                    "line": {"width": 0},
                    "symbol": ["triangle-up" if y > top else "circle" for y in seen[shown]],
                },
                "hovertemplate": "%{meta}<br>observed %{customdata:.2f}, expected %{x:.2f}"
                "<extra></extra>",
            }
        )
    if limit is not None:
        data.append(
            {
                "type": "scatter", "mode": "lines", "x": [0, end], "y": [limit, limit],
                "hoverinfo": "skip", "line": {"width": 1, "color": GREY, "dash": "dot"},
            }
        )  # fmt: skip
    layout = {
        "height": 420,
        "hovermode": "closest",
        "xaxis": {"title": {"text": "expected −log₁₀ p"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "observed −log₁₀ p"}, "rangemode": "tozero"},
    }
    return {"data": data, "layout": layout}
