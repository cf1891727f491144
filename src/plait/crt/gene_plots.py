"""Figures of a gene-level screen: its guides and cells, its checks, and single pairs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plait import plot
from plait.crt.cell_quality import COVARIATES, CellQuality
from plait.crt.gene_counts import gene_of
from plait.crt.gene_results import GeneTestResult
from plait.crt.gene_screen import GeneScreen
from plait.crt.guides import union_obs_idx_from_cols
from plait.errors import LabelError, NotAvailableError
from plait.plot.style import styled, write_caption

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

EXPRESSION = "log₂(1 + counts at the median depth)"
"""What `pair_expression` returns."""
_GUIDES = (
    "Above: cells that have each guide, and guides of each cell. Below, of some guides: cells by "
    "their counts of the guide; blue, the guide was assigned; grey, its counts are taken for "
    "background."
)
_CELLS = (
    "Covariates of cells; orange, cells left out for it; dotted, the bounds. Last: the share of "
    "cells that each reason speaks against; some cells have several."
)
_PLACES = np.array([0.0, 0.5, 0.9])
_COLUMNS, _MOST = 3, 8


def plot_guides(screen: GeneScreen, guides: Sequence[str] | None = None) -> "Figure":
    """Draw which cells have which guides, and the counts that say so.

    Parameters
    ----------
    screen : GeneScreen
        With guides assigned.
    guides : sequence of str, optional
        Whose counts are drawn; default the guide with most cells, one in the middle, and one that
        nine of ten guides have more cells than.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    NotAvailableError
        Guides are not assigned.
    LabelError
        A guide is none of the screen's.
    """
    assignment = screen.assignment
    if assignment is None:
        raise NotAvailableError("guides are not assigned; call assign_guides first.")
    per_guide = np.diff(assignment.cells.indptr)
    columns = _typical(per_guide) if guides is None else _columns(guides, assignment.guides)
    if screen.data.is_assigned:
        columns = []
    with styled() as plt:
        rows = 1 + -(-len(columns) // _COLUMNS)
        figure: Figure = plt.figure(figsize=(9.0, 2.8 * rows), layout="constrained")
        grid = figure.add_gridspec(rows, _COLUMNS)
        plot.cells_per_guide(
            per_guide,
            assignment.guides.tolist(),
            screen.data.targets.is_control,
            title="Cells of each guide",
            ax=figure.add_subplot(grid[0, :2]),
        )
        top = plot.guides_per_cell(
            assignment.guides_per_cell,
            title="Guides of each cell",
            ax=figure.add_subplot(grid[0, 2]),
        )
        for i, column in enumerate(columns):
            counts, has = guide_column(screen, column)
            plot.guide_counts(
                counts,
                has,
                title=str(assignment.guides[column]),
                ax=figure.add_subplot(grid[1 + i // _COLUMNS, i % _COLUMNS]),
            )
        write_caption(top, _GUIDES if columns else _GUIDES.split(" Below")[0])
    return figure


def plot_cells(screen: GeneScreen) -> "Figure":
    """Draw the covariates of cells with their bounds, and why cells are left out.

    Parameters
    ----------
    screen : GeneScreen
        After quality control.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    NotAvailableError
        There was no quality control.
    """
    panels, removed = cell_covariates(screen), removed_of(screen)
    rows = -(-(len(panels) + 1) // _COLUMNS)
    with styled() as plt:
        figure: Figure = plt.figure(figsize=(9.0, 2.7 * rows), layout="constrained")
        grid = figure.add_gridspec(rows, _COLUMNS)
        for i, (name, (values, low, high)) in enumerate(panels.items()):
            ax = figure.add_subplot(grid[i // _COLUMNS, i % _COLUMNS])
            plot.cell_histogram(values, low, high, xlabel=name, ax=ax)
        rest = figure.add_subplot(grid[-1, len(panels) % _COLUMNS :])  # the rest of the row
        last = plot.removed_cells(removed, screen.data.n_cells, ax=rest)
        write_caption(last, _CELLS)
    return figure


def plot_gene_calibration(
    result: GeneTestResult, calibration: GeneTestResult | None = None, **options: Any
) -> "Axes":
    """Draw the p-values of pairs, and of groups of non-targeting guides, against chance.

    Parameters
    ----------
    result : GeneTestResult
    calibration : GeneTestResult, optional
        Of the same screen.
    **options
        ``title``, ``caption`` and ``ax`` of `plait.plot.controls_qq`.

    Raises
    ------
    NotAvailableError
        No pair was tested.
    """
    tests, checked = (
        np.empty(0) if one is None else one.log10_p[one.pass_qc] for one in (result, calibration)
    )
    if not len(tests) + len(checked):
        raise NotAvailableError("no pair was tested; there are no p-values to draw.")
    what = "positive controls" if result.analysis == "power" else "pairs"
    if result.analysis == "calibration":
        tests, checked = np.empty(0), tests
    return plot.controls_qq(tests, checked, names=(what, "non-targeting guides"), **options)


def plot_pair_quality(result: GeneTestResult, **options: Any) -> "Axes":
    """Draw in how many cells the gene of each pair has counts; see `plait.plot.pair_quality`."""
    return plot.pair_quality(
        result.n_nonzero_trt, result.n_nonzero_cntrl, result.pass_qc, **options
    )


def plot_power(
    power: GeneTestResult, calibration: GeneTestResult | None = None, **options: Any
) -> "Axes":
    """Draw positive controls beside negative ones; see `plait.plot.power_check`."""
    tested = power.pass_qc
    return plot.power_check(
        power.log10_p[tested],
        np.empty(0) if calibration is None else calibration.log10_p[calibration.pass_qc],
        [_short_name(name) for name in pair_names(power, np.flatnonzero(tested))],
        **options,
    )


def plot_pairs(
    screen: GeneScreen, result: GeneTestResult, most: int = _MOST, **options: Any
) -> "Axes":
    """Draw the expression of treated cells and controls for the surest pairs.

    Parameters
    ----------
    screen : GeneScreen
        After quality control.
    result : GeneTestResult
    most : int
        Pairs that are drawn.
    **options
        ``title``, ``caption`` and ``ax`` of `plait.plot.pair_violin`.

    Raises
    ------
    NotAvailableError
        No pair was tested.
    """
    rows = np.flatnonzero(result.pass_qc)[:most]
    if not len(rows):
        raise NotAvailableError("no pair was tested; there is nothing to draw.")
    expression = [expression_of(screen, result, row) for row in rows.tolist()]
    return plot.pair_violin(
        [own for own, _ in expression],
        [others for _, others in expression],
        ["\non ".join(name.rsplit(" on ", 1)) for name in pair_names(result, rows, "itself")],
        result.log10_p[rows],
        ylabel=EXPRESSION,
        **options,
    )


def expression_of(screen: GeneScreen, result: GeneTestResult, row: int) -> tuple[Array, Array]:
    """Return `pair_expression` of a row of a result: of its target, its guide or its controls."""
    who = result.grna_target if result.grna_id is None else result.grna_id
    return pair_expression(screen, str(who[row]), str(result.response_id[row]))


def pair_expression(screen: GeneScreen, target: str, gene: str) -> tuple[Array, Array]:
    """Return the expression of a gene in treated cells and in those they are compared with.

    Parameters
    ----------
    screen : GeneScreen
        After quality control.
    target : str
        A target, a guide, or guides joined by "&".
    gene : str

    Returns
    -------
    treated, controls : arrays
        log2(1 + c), where c are the counts that a cell of median depth would have.

    Raises
    ------
    NotAvailableError
        There was no quality control.
    LabelError
        The screen has no such target, guide or gene.
    """
    data, cells, assignment = screen.data, _quality_of(screen), screen.assignment
    assert assignment is not None
    assert screen.parameters is not None
    columns = data.targets.columns_of(target)
    if not len(columns):
        columns = np.array(_columns(target.split("&"), data.targets.guides), dtype=np.intp)
    place = np.flatnonzero(data.response_names == gene)
    if not len(place):
        raise LabelError(f"the screen has no gene {gene!r}.")

    def having(some: NDArray[np.intp]) -> NDArray[np.bool_]:
        has = np.zeros(data.n_cells, dtype=bool)
        has[union_obs_idx_from_cols(assignment.cells, some)] = True
        return has

    treated = having(columns)
    others = ~treated
    if screen.parameters.control_group == "nt_cells":
        is_control = data.targets.is_control
        others &= having(np.flatnonzero(is_control)) & ~having(np.flatnonzero(~is_control))
    counts = np.zeros(data.n_cells)
    cells_with_counts, found = gene_of(data.responses, int(place[0]))
    counts[cells_with_counts] = found
    depth = np.maximum(data.covariates["response_n_umis"].astype(np.float64), 1.0)
    values = np.log2(1.0 + counts * np.median(depth[cells.is_used]) / depth)
    return values[treated & cells.is_used], values[others & cells.is_used]


def cell_covariates(
    screen: GeneScreen,
) -> dict[str, tuple[Array, float | None, float | None]]:
    """Return covariates of cells that are made of counts, by name in words, with their bounds.

    Raises
    ------
    NotAvailableError
        There was no quality control.
    """
    settings, found = _quality_of(screen).settings, {}
    quantiles = {
        "response_n_umis": settings["umis_quantiles"],
        "response_n_nonzero": settings["nonzero_quantiles"],
    }
    for name, words in COVARIATES.items():
        if name not in screen.data.covariates:
            continue
        values = screen.data.covariates[name].astype(np.float64)
        low: float | None = None
        high: float | None = None
        if name in quantiles:
            low, high = (float(bound) for bound in np.quantile(values, quantiles[name]))
        elif name == "response_p_mito":
            high = float(settings["max_mito"])
        found[words] = (values, low, high)
    return found


def removed_of(screen: GeneScreen) -> dict[str, int]:
    """Return how many cells each reason speaks against, in words, and how many all do.

    Raises
    ------
    NotAvailableError
        There was no quality control.
    """
    cells = _quality_of(screen)
    removed = {
        COVARIATES.get(reason, reason): count for reason, count in cells.removed.items() if count
    }
    return removed | {"any reason": int((~cells.is_used).sum())}


def _quality_of(screen: GeneScreen) -> CellQuality:
    if screen.cells is None:
        raise NotAvailableError("cells are not chosen; call quality_control first.")
    return screen.cells


def guide_column(screen: GeneScreen, column: int) -> tuple[Array, NDArray[np.bool_]]:
    """Return a guide's counts in all cells, and which cells have it."""
    assert screen.assignment is not None
    counts, has = np.zeros(screen.data.n_cells), np.zeros(screen.data.n_cells, dtype=bool)
    guides, cells = screen.data.guides, screen.assignment.cells
    part = slice(guides.indptr[column], guides.indptr[column + 1])
    counts[guides.indices[part]] = guides.data[part]
    has[cells.indices[cells.indptr[column] : cells.indptr[column + 1]]] = True
    return counts, has


def pair_names(result: GeneTestResult, rows: NDArray[np.intp], own: str | None = None) -> list[str]:
    """Return what pairs are called: the target (or guide) and the gene, "A on B".

    ``own`` is what the gene is called that is the target itself, where there is little room.
    """
    who = result.grna_target if result.grna_id is None else result.grna_id
    return [
        f"{name} on {gene if own is None or gene != name else own}"
        for name, gene in zip(who[rows].tolist(), result.response_id[rows].tolist(), strict=True)
    ]


def _short_name(name: str) -> str:
    """Return the name of a pair for a picture: once where target and gene are the same."""
    target, _, gene = name.rpartition(" on ")
    return target if target == gene else name


def _typical(per_guide: NDArray[np.integer]) -> list[int]:
    """Return the guides with most cells, in the middle, and with fewer than nine of ten have."""
    order = [j for j in np.argsort(-per_guide, kind="stable").tolist() if per_guide[j]]
    places = np.unique(np.round(_PLACES * (len(order) - 1)).astype(int)) if order else ()
    return [order[i] for i in places]


def _columns(guides: Sequence[str], known: NDArray[np.str_]) -> list[int]:
    places = {name: j for j, name in enumerate(known.tolist())}
    if unknown := [name for name in guides if name not in places]:
        raise LabelError(f"the screen has no target or guide {unknown[0]!r}.")
    return [places[name] for name in guides]
