"""Figures of a perturbation screen: effects as a map, and how sure they are."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from plait.data.words import counted
from plait.plot.manhattan import thinned
from plait.plot.screen_qq import readable_limit
from plait.report.figures import (
    BLUE,
    GREY,
    VERMILION,
    Spec,
    against_chance,
    bar_rows_height,
    count_axis,
    numbers,
    plain,
    rate_text,
    short,
)
from plait.report.page import Figure, Numbers
from plait.report.screen_verdicts import LEVEL

Array = NDArray[np.float64]

_DIVERGING = [[0.0, "var(--vermilion)"], [0.5, "var(--middle)"], [1.0, "var(--blue)"]]
_MOST_POINTS = 2500
_NAMED = 8
_CHARACTER, _LINE, _LONGEST = 0.013, 0.05, 26
"""Width and height of a letter, as shares of the picture; most letters of a name."""
_EDGE = 0.2
"""Names of points within this share of the width from an end begin, or end, at the point."""


def effect_map(
    z: Array, effect: Array, rate: Array, units: Sequence[str], programs: Sequence[str]
) -> Spec:
    """Draw effects over their errors, perturbations in rows and programs in columns.

    Parameters
    ----------
    z, effect, rate : (n, K) arrays
        Effect over error (the colour), effect, and false discovery rate (said under the mouse).
    units, programs : sequences of str
    """
    limit = float(np.clip(np.nanmax(np.abs(z), initial=1.0), 1.0, 8.0))
    about = [
        [
            [plain(u), plain(p), f"{e:+.3g}", rate_text(r)]
            for p, e, r in zip(programs, es, rs, strict=True)
        ]
        for u, es, rs in zip(units, effect, rate, strict=True)
    ]
    cells = {
        "type": "heatmap",
        "z": numbers(np.clip(z, -limit, limit), 3),
        "zmin": -limit,
        "zmax": limit,
        "colorscale": _DIVERGING,
        "xgap": 1 if len(programs) <= 40 else 0,
        "ygap": 1 if len(units) <= 60 else 0,
        "customdata": about,
        "hovertemplate": "%{customdata[0]} → %{customdata[1]}<br>effect %{customdata[2]}, "
        "q %{customdata[3]}<extra></extra>",
        "colorbar": {"thickness": 10, "len": 0.8, "outlinewidth": 0, "title": {"text": "z"}},
    }
    side = 18 if len(units) <= 40 else 13
    layout = {
        "height": max(240, 130 + side * len(units)),
        "xaxis": _places(programs, tickangle=-90 if len(programs) > 6 else -40),
        "yaxis": _places(units, range=[len(units) - 0.5, -0.5]),
    }
    return {"data": [cells], "layout": layout}


def controls_qq(
    tests: Array, controls: Array, names: tuple[str, str], more: str = "", *, is_wide: bool = True
) -> Figure:
    """Draw the p-values of tests beside those of negative controls, against chance.

    Parameters
    ----------
    tests, controls : arrays
        -log10 p; there may be no controls.
    names : pair of str
        What they are of, in the plural.
    more : str
        A further sentence of the caption.
    is_wide : bool
        Whether it stands alone in its row.
    """
    what, control = names
    curves = [(what, VERMILION, tests.ravel())]
    if controls.size:
        curves.insert(0, (control, BLUE, controls.ravel()))
    limit = readable_limit(tests[np.isfinite(tests)].ravel(), controls.ravel())
    caption = (
        "All p-values, smallest at the right, against what chance alone gives; the band holds 95% "
        "of chance. "
    )
    if controls.size:
        caption += (
            f"{control[0].upper()}{control[1:]} should follow the line: where they leave it, so do "
            f"{what} for the same reason. What lies above them are effects. "
        )
    if limit is not None:
        beyond = int((tests > limit).sum())
        caption += (
            f"{counted(beyond, 'triangle')} at the dotted line: p-values below 1e-{limit:.0f}. "
        )
    return Figure(
        name="qq",
        title="Observed against expected p-values",
        caption=(caption + more).strip(),
        description="QQ plot: observed against expected minus log10 p.",
        spec=against_chance(curves, len(curves[0][2]), limit),
        key=[(colour, name) for name, colour, _ in curves],
        numbers=Numbers(
            ["tests", "number", f"share below {LEVEL:g}"],
            [
                [name, f"{len(heights):,}", f"{(heights > -np.log10(LEVEL)).mean():.1%}"]
                for name, _, heights in curves
            ],
        ),
        is_wide=is_wide,
        most_width=620 if is_wide else 0,
    )


def volcano(
    effect: Array, log10p: Array, is_found: NDArray[np.bool_], units: Sequence[str], xlabel: str
) -> Spec:
    """Draw how sure effects are against how large they are.

    Parameters
    ----------
    effect, log10p : (n,) arrays
    is_found : (n,) bool array
        What is significant.
    units : sequence of str
        What each effect is of; the surest significant ones are named.
    xlabel : str
    """
    heights = -log10p
    shown = thinned(effect, heights, _MOST_POINTS, _MOST_POINTS)
    data = []
    groups = (
        ("not significant", ~is_found, GREY, 4),
        ("raises", is_found & (effect > 0), BLUE, 7),
        ("lowers", is_found & (effect < 0), VERMILION, 7),
    )
    for name, chosen, colour, size in groups:
        rows = shown[chosen[shown]]
        if not len(rows):
            continue
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": numbers(effect[rows]),
                "y": numbers(heights[rows]),
                "customdata": [plain(units[j]) for j in rows.tolist()],
                "marker": {"color": colour, "size": size, "opacity": 0.75},
                "hovertemplate": "%{customdata}<br>effect %{x}, −log₁₀ p %{y:.1f}<extra></extra>",
            }
        )
    surest = [j for j in np.argsort(log10p, kind="stable")[:_NAMED].tolist() if is_found[j]]
    layout = {
        "height": 420,
        "hovermode": "closest",
        "xaxis": {"title": {"text": plain(xlabel)}, "zeroline": True},
        "yaxis": {"title": {"text": "−log₁₀ p"}, "rangemode": "tozero", "zeroline": False},
        "annotations": named(effect, heights, surest, units),
    }
    return {"data": data, "layout": layout}


def named(
    x: Array,
    y: Array,
    rows: Sequence[int],
    names: Sequence[str],
    across: tuple[float, float] | None = None,
) -> list[Spec]:
    """Return the names of some points, over them, but for those that would touch another.

    Another name, that is, or another point.

    Parameters
    ----------
    x, y : (n,) arrays
    rows : sequence of int
        The points, the most important first.
    names : (n,) sequence of str
    across : pair of float, optional
        The range of the axis. Default that of the points.
    """
    low, high = across or (float(x.min()), float(x.max()))
    width, height = (high - low) or 1.0, _LINE * (float(y.max()) or 1.0)
    places = (x - low) / width
    taken: list[tuple[float, float, float]] = []
    found = []
    for j in rows:
        text, place = _short_pair(names[j]), float(places[j])
        anchor = "left" if place < _EDGE else "right" if place > 1.0 - _EDGE else "center"
        wide = _CHARACTER * (min(len(names[j]), _LONGEST) + 1)
        start = place - {"left": 0.0, "center": 0.5, "right": 1.0}[anchor] * wide
        touches = any(
            start < end and begin < start + wide and abs(y[j] - up) < height
            for begin, end, up in taken
        )
        over = (places > start) & (places < start + wide)
        over &= (y > y[j] + 0.25 * height) & (y < y[j] + 1.1 * height)
        if touches or over.any():
            continue
        taken.append((start, start + wide, float(y[j])))
        found.append(
            {
                "x": float(f"{x[j]:.4g}"), "y": float(f"{y[j]:.4g}"), "text": text,
                "showarrow": False, "xanchor": anchor, "yshift": 11, "font": {"size": 11},
            }
        )  # fmt: skip
    return found


def _short_pair(name: str) -> str:
    """Return a name with its middle left out where it is long; of "A on B", that of A and of B."""
    one, on, other = name.rpartition(" on ")
    if not on or len(name) <= _LONGEST:
        return short(name, _LONGEST)
    room = _LONGEST - len(on)
    least = min(len(one), len(other), room // 2)
    of_one = least if len(one) < len(other) else room - least
    return f"{short(one, of_one)}{on}{short(other, room - of_one)}"


def found_by_program(
    programs: Sequence[str], up: NDArray[np.int64], down: NDArray[np.int64]
) -> Spec:
    """Draw how many perturbations raise and lower each program."""
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": list(range(len(programs))),
            "x": [int(v) for v in values],
            "customdata": [plain(p) for p in programs],
            "marker": {"color": colour},
            "hovertemplate": "%{customdata}<br>%{x:,} perturbations " + verb + " it<extra></extra>",
        }
        for name, values, colour, verb in (
            ("raised by", up, BLUE, "raise"),
            ("lowered by", down, VERMILION, "lower"),
        )
    ]
    layout = {
        "barmode": "stack",
        "bargap": 0.28,
        "height": bar_rows_height(len(programs)),
        "xaxis": count_axis("perturbations with an effect", int((up + down).max(initial=0))),
        "yaxis": _places(programs, range=[len(programs) - 0.4, -0.6]),
    }
    return {"data": data, "layout": layout}


def _places(labels: Sequence[str], **more: object) -> Spec:
    """Return an axis of labels at numbered places, so that equal names stay apart."""
    return {
        "tickmode": "array",
        "tickvals": list(range(len(labels))),
        "ticktext": [short(label) for label in labels],
        "tickfont": {"size": 12 if len(labels) <= 24 else 10},
        "ticklabelstandoff": 4,
        "showgrid": False,
        "zeroline": False,
        "automargin": True,
        **more,
    }
