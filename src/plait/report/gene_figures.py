"""Figures of a gene-level screen's page: its cells and guides, its pairs, its positive controls."""

from itertools import pairwise
from textwrap import wrap

import numpy as np
from numpy.typing import NDArray

from plait.crt.gene_plots import (
    EXPRESSION,
    cell_covariates,
    expression_of,
    pair_names,
    removed_of,
)
from plait.crt.gene_results import GeneTestResult
from plait.crt.gene_screen import GeneScreen
from plait.data.words import counted
from plait.plot.manhattan import thinned
from plait.plot.pair_violin import density
from plait.plot.screen_cells import bounded_bins, is_wide, multiplicities, share_text
from plait.plot.screen_pairs import beside
from plait.report.figures import (
    BLUE,
    GREY,
    INK,
    VERMILION,
    Spec,
    bar_rows_height,
    count_axis,
    numbers,
    plain,
)
from plait.report.page import Figure, Numbers, Section
from plait.report.screen_figures import named
from plait.report.screen_verdicts import LEVEL

Array = NDArray[np.float64]

_MOST_PAIRS, _MOST_POINTS, _MOST_CONTROLS = 12, 2500, 1500
_HEIGHT, _ROW = 340, 46
_MOST_NAMED, _WIDEST = 12, 14
"""Positive controls that have names; letters of a line of a label."""


def cells_section(screen: GeneScreen) -> Section:
    """Say which cells have which guides, and which cells are used."""
    assert screen.assignment is not None
    n_cells = screen.data.n_cells
    removed = removed_of(screen)
    used = n_cells - removed["any reason"]
    return Section(
        "cells-section",
        "Cells and guides",
        f"{used:,} of {counted(n_cells, 'cell')} are used. "
        f"{counted(len(screen.data.targets.guides), 'guide')} "
        f"({int(screen.data.targets.is_control.sum()):,} non-targeting) of "
        f"{counted(len(screen.data.target_names), 'target')}.",
        [_guides(screen), _multiplicity(screen), _covariates(screen), _removed(removed, n_cells)],
    )  # fmt: skip


def pairs_figure(screen: GeneScreen, result: GeneTestResult) -> Figure:
    """Show the expression of the surest pairs in treated cells and controls."""
    rows = np.flatnonzero(result.pass_qc)[:_MOST_PAIRS]
    names = pair_names(result, rows, "itself")
    choice = f" One of the {len(rows)} surest pairs can be chosen." if len(rows) > 1 else ""
    views = {}
    for name, row in zip(names, rows.tolist(), strict=True):
        treated, controls = expression_of(screen, result, row)
        views[name] = violin(treated, controls)
    return Figure(
        name="violin",
        title="Expression of the surest pairs",
        caption=(
            "How often cells have which expression: grey, the cells compared with; coloured, "
            "treated cells (blue where their mean is higher, orange where it is lower). Lines are "
            "means; under the mouse they say of how many cells. Counts are as if every cell had "
            f"the median depth, while the tests take all covariates into account.{choice}"
        ),
        description="Violins: expression of a gene in treated and in control cells.",
        spec=next(iter(views.values())),
        views=views,
        key=[(GREY, "control cells"), (BLUE, "treated, higher"), (VERMILION, "treated, lower")],
    )


def violin(treated: Array, controls: Array) -> Spec:
    """Draw the distributions of a gene in treated cells and controls, back to back."""
    colour = BLUE if treated.mean() >= controls.mean() else VERMILION
    data: list[Spec] = []
    for values, side, shade, name in (
        (controls, -1.0, GREY, "control cells"),
        (treated, 1.0, colour, "treated cells"),
    ):
        places, heights = density(values)
        mean = float(values.mean())
        data.append(
            {
                "type": "scatter", "mode": "lines", "fill": "toself", "fillcolor": shade,
                "x": numbers(np.r_[0.0, side * heights, 0.0], 3),
                "y": numbers(np.r_[places[0], places, places[-1]]),
                "line": {"width": 1, "color": shade}, "opacity": 0.8, "hoverinfo": "skip",
            }
        )  # fmt: skip
        data.append(
            {
                "type": "scatter", "mode": "lines", "x": [0.0, side], "y": numbers([mean, mean]),
                "line": {"width": 1.5, "color": INK}, "meta": f"{len(values):,} {name}",
                "hovertemplate": "%{meta}, mean %{y:.2f}<extra></extra>",
            }
        )  # fmt: skip
    layout = {
        "height": 380,
        "hovermode": "closest",
        "xaxis": {
            "range": [-1.15, 1.15], "tickmode": "array", "tickvals": [-0.5, 0.5],
            "ticktext": ["controls", "treated"],
            "showgrid": False, "zeroline": False,
        },
        "yaxis": {"title": {"text": plain(EXPRESSION)}, "zeroline": False},
    }  # fmt: skip
    return {"data": data, "layout": layout}


def power_figure(power: GeneTestResult, calibration: GeneTestResult | None) -> Figure:
    """Show positive controls beside negative ones."""
    rows = np.flatnonzero(power.pass_qc)
    positive, names = -power.log10_p[rows], pair_names(power, rows)
    none = np.empty(0)
    if calibration is not None:
        none = np.sort(-calibration.log10_p[calibration.pass_qc])[::-1]
    # Of very many the smallest p-values, and others at even distances.
    shown = none[thinned(np.arange(len(none), dtype=np.float64), none, _MOST_CONTROLS)]
    data: list[Spec] = []
    for place, values, colour, size, about in (
        (0, shown, GREY, 4, ["non-targeting guides"] * len(shown)),
        (1, positive, BLUE, 8, names),
    ):
        if not len(values):
            continue
        data.append(
            {
                "type": "scatter", "mode": "markers", "x": numbers(place + beside(values)),
                "y": numbers(np.log10(1.0 + values)), "text": numbers(values, 3),
                "customdata": [plain(name) for name in about],
                "marker": {"color": colour, "size": size, "opacity": 0.7},
                "hovertemplate": "%{customdata}<br>−log₁₀ p %{text}<extra></extra>",
            }
        )  # fmt: skip
    top = float(np.max(np.r_[positive, shown]))
    ticks = [tick for tick in (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if tick <= 1.3 * top]
    layout = {
        "height": 380,
        "hovermode": "closest",
        "xaxis": {
            "range": [-0.6, 1.6], "tickmode": "array", "tickvals": [0, 1], "showgrid": False,
            "ticktext": ["negative", "positive"],
            "zeroline": False,
        },
        "yaxis": {
            "title": {"text": "−log₁₀ p"}, "tickmode": "array", "zeroline": False,
            "tickvals": numbers(np.log10(1.0 + np.array(ticks))),
            "ticktext": [f"{tick:,}" for tick in ticks],
        },
        "annotations": named(
            1 + beside(positive), np.log10(1.0 + positive),
            np.argsort(-positive, kind="stable")[:_MOST_NAMED].tolist(),
            [name.split(" on ")[0] for name in names], (-0.6, 1.6),
        ),
    }  # fmt: skip
    return Figure(
        name="power",
        title="Positive controls beside negative ones",
        caption=(
            f"{counted(len(rows), 'positive control')}, pairs that should have an effect, and "
            f"{counted(len(none), 'negative one')}, which have none. The more the two lie apart, "
            "the more an effect of this size is found. Heights are drawn by their logarithms: see "
            "the ticks."
        ),
        description="Points: minus log10 p of positive and of negative controls.",
        spec={"data": data, "layout": layout},
        numbers=Numbers(
            ["controls", "number", f"share below {LEVEL:g}"],
            [
                [name, f"{len(values):,}", f"{(values > -np.log10(LEVEL)).mean():.1%}"]
                for name, values in (("positive", positive), ("negative", none))
                if len(values)
            ],
        ),
    )


def _guides(screen: GeneScreen) -> Figure:
    assert screen.assignment is not None
    cells = np.diff(screen.assignment.cells.indptr)
    order = np.argsort(-cells, kind="stable")
    control = screen.data.targets.is_control[order]
    names = screen.assignment.guides[order].tolist()
    targets = screen.data.targets.targets[order].tolist()
    data: list[Spec] = [
        {
            "type": "bar", "name": name, "x": np.flatnonzero(chosen).tolist(),
            "y": [int(v) for v in cells[order][chosen]],
            "customdata": [plain(names[j]) for j in np.flatnonzero(chosen)],
            "marker": {"color": colour},
            "hovertemplate": "%{customdata}: %{y:,} cells<extra></extra>",
        }
        for name, chosen, colour in (
            ("guides of targets", ~control, BLUE), ("non-targeting guides", control, GREY),
        )
        if chosen.any()
    ]  # fmt: skip
    layout = {
        "height": _HEIGHT,
        "barmode": "overlay",
        "bargap": 0.1 if len(names) <= 60 else 0,
        "xaxis": {"title": {"text": counted(len(names), "guide")}, "showticklabels": False,
                  "showgrid": False, "zeroline": False},
        "yaxis": count_axis("cells", int(cells.max(initial=0))),
    }  # fmt: skip
    none = int((cells == 0).sum())
    return Figure(
        name="guides",
        title="Cells of each guide",
        caption=(
            f"How many cells have each guide, most first; the median is {int(np.median(cells)):,}"
            + (
                f". {counted(none, 'guide')} {'is' if none == 1 else 'are'} in no cell."
                if none
                else "."
            )
            + " Guides with few cells tell little."
        ),
        description="Bars: cells of each guide, most first.",
        spec={"data": data, "layout": layout},
        key=[(part["marker"]["color"], part["name"]) for part in data],
        numbers=Numbers(
            ["guide", "target", "cells"],
            [
                [name, target, f"{int(count):,}"]
                for name, target, count in zip(names, targets, cells[order], strict=True)
            ],
        ),
    )


def _multiplicity(screen: GeneScreen) -> Figure:
    assert screen.assignment is not None
    names, cells = multiplicities(screen.assignment.guides_per_cell)
    spec = {
        "data": [
            {
                "type": "bar", "x": list(range(len(cells))), "y": [int(v) for v in cells],
                "marker": {"color": BLUE},
                "hovertemplate": "%{y:,} cells<extra></extra>",
            }
        ],
        "layout": {
            "height": _HEIGHT, "bargap": 0.2,
            "xaxis": {"title": {"text": "guides in a cell"}, "tickmode": "array",
                      "tickvals": list(range(len(cells))), "ticktext": names, "showgrid": False,
                      "zeroline": False, "range": [-0.6, max(len(cells), 4) - 0.4]},
            "yaxis": count_axis("cells", int(cells.max())),
        },
    }  # fmt: skip
    return Figure(
        name="multiplicity",
        title="Guides of each cell",
        caption="Cells by the number of guides that were assigned to them, before any is left out.",
        description="Bars: cells by their number of guides.",
        spec=spec,
        numbers=Numbers(
            ["guides", "cells"],
            [[name, f"{int(count):,}"] for name, count in zip(names, cells, strict=True)],
        ),
    )


def _covariates(screen: GeneScreen) -> Figure:
    views = {
        name: histogram(values, low, high, name)
        for name, (values, low, high) in cell_covariates(screen).items()
    }
    return Figure(
        name="covariates",
        title="Covariates of cells",
        caption=(
            "All cells; orange, those left out because they are beyond the bounds (dotted). One of "
            f"{counted(len(views), 'covariate')} can be chosen."
        ),
        description="Histogram of a covariate of cells, one at a time.",
        spec=next(iter(views.values())),
        views=views,
        key=[(BLUE, "within the bounds"), (VERMILION, "left out")],
    )


def histogram(values: Array, low: float | None, high: float | None, name: str) -> Spec:
    """Draw the distribution of a covariate of cells, and what lies outside its bounds."""
    edges, used, left = bounded_bins(values, low, high)
    known = values[np.isfinite(values)]
    is_log = is_wide(known)
    edge = np.log10(edges) if is_log else edges
    data = [
        {
            "type": "bar", "x": numbers((edge[:-1] + edge[1:]) / 2), "y": [int(v) for v in heights],
            "width": numbers(np.diff(edge)), "marker": {"color": colour},
            "customdata": [f"{a:,.4g} to {b:,.4g}" for a, b in pairwise(edges)],
            "hovertemplate": "%{customdata}: %{y:,} cells<extra></extra>",
        }
        for heights, colour in ((used, BLUE), (left, VERMILION))
    ]  # fmt: skip
    places = [
        float(np.log10(bound) if is_log else bound) for bound in (low, high) if bound is not None
    ]
    axis: Spec = {"title": {"text": plain(name)}, "zeroline": False}
    if is_log:
        ticks = [t for e in range(8) for t in (10**e, 3 * 10**e) if edges[0] <= t <= edges[-1]]
        axis |= {
            "tickmode": "array",
            "tickvals": numbers(np.log10(ticks)),
            "ticktext": [f"{tick:,}" for tick in ticks],
        }
    layout = {
        "height": _HEIGHT, "barmode": "stack", "bargap": 0, "xaxis": axis,
        "yaxis": count_axis("cells", int((used + left).max())),
        "shapes": [
            {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": place, "x1": place,
             "line": {"color": GREY, "width": 1, "dash": "dot"}}
            for place in places if edge[0] <= place <= edge[-1]
        ],
    }  # fmt: skip
    return {"data": data, "layout": layout}


def _removed(removed: dict[str, int], n_cells: int) -> Figure:
    names, counts = list(removed), list(removed.values())
    bars = {
        "type": "bar", "orientation": "h", "y": list(range(len(names))),
        "x": numbers(np.array(counts) / n_cells),
        "text": [plain(share_text(c / n_cells)) for c in counts],
        "textposition": "outside", "cliponaxis": False, "marker": {"color": VERMILION},
        "customdata": [f"{count:,}" for count in counts],
        "hovertemplate": "%{customdata} cells<extra></extra>",
    }  # fmt: skip
    layout = {
        "height": bar_rows_height(0) + _ROW * len(names), "bargap": 0.5,
        "xaxis": {"title": {"text": "share of all cells"}, "tickformat": ".2~%",
                  "range": [0, 1.25 * max([*(c / n_cells for c in counts), 0.01])]},
        "yaxis": {"tickmode": "array", "tickvals": list(range(len(names))),
                  "ticktext": ["<br>".join(map(plain, wrap(name, _WIDEST))) for name in names],
                  "range": [len(names) - 0.4, -0.6],
                  "showgrid": False, "zeroline": False, "automargin": True,
                  "ticklabelstandoff": 4},
    }  # fmt: skip
    return Figure(
        name="removed",
        title="Why cells are left out",
        caption="Share of all cells that each reason speaks against; some cells have several.",
        description="Bars: share of cells left out for each reason.",
        spec={"data": [bars], "layout": layout},
        numbers=Numbers(
            ["reason", "cells", "share"],
            [[n, f"{c:,}", share_text(c / n_cells)] for n, c in removed.items()],
        ),
    )


def counts_figure(result: GeneTestResult) -> Figure:
    """Show in how many treated and control cells the gene of each pair has counts."""
    x, y = (np.log10(1.0 + v) for v in (result.n_nonzero_trt, result.n_nonzero_cntrl))
    shown = thinned(x, y / max(float(y.max()), 1.0), _MOST_POINTS)  # none is "always drawn"
    data = []
    for chosen, colour, name in (
        (result.pass_qc, BLUE, "tested"), (~result.pass_qc, VERMILION, "not tested"),
    ):  # fmt: skip
        rows = shown[chosen[shown]]
        data.append(
            {
                "type": "scatter", "mode": "markers", "name": name, "x": numbers(x[rows]),
                "y": numbers(y[rows]),
                "customdata": [
                    f"{plain(name)}<br>{int(result.n_nonzero_trt[j]):,} treated, "
                    f"{counted(int(result.n_nonzero_cntrl[j]), 'control cell')}"
                    for j, name in zip(rows.tolist(), pair_names(result, rows), strict=True)
                ],
                "marker": {"color": colour, "size": 4, "opacity": 0.5},
                "hovertemplate": "%{customdata}<extra></extra>",
            }
        )  # fmt: skip
    ticks = [0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000, 300_000, 10**6]

    def axis(title: str, values: Array) -> Spec:
        some = [tick for tick in ticks if np.log10(1.0 + tick) <= values.max() + 0.1]
        return {
            "title": {"text": title}, "tickmode": "array", "zeroline": False,
            "tickvals": numbers(np.log10(1.0 + np.array(some))),
            "ticktext": [f"{tick:,}" for tick in some],
        }  # fmt: skip

    left = int((~result.pass_qc).sum())
    return Figure(
        name="counts-of-pairs",
        title="Cells with counts behind each pair",
        caption=(
            "Each point is a pair of a target and a gene: treated cells and control cells with "
            f"counts of the gene. {counted(left, 'pair')} with too few of either "
            f"{'is' if left == 1 else 'are'} not tested. Where points crowd, some are left out."
        ),
        description="Scatter plot: control cells against treated cells with counts, by pair.",
        spec={
            "data": data,
            "layout": {
                "height": 380,
                "hovermode": "closest",
                "xaxis": axis("treated cells with counts", x),
                "yaxis": axis("control cells with counts", y),
            },
        },
        key=[(BLUE, "tested"), (VERMILION, "not tested")],
    )
