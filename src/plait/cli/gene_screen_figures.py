"""Pictures and the page that commands for gene-level screens write beside their tables."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.cli.outputs import use_no_window

if TYPE_CHECKING:
    from plait.crt.gene_results import GeneTestResult
    from plait.crt.gene_screen import GeneScreen
    from plait.report.page import Verdict

REPORT = "report.html"
FIGURES = (
    "guides.png",
    "cells.png",
    "pairs.png",
    "qq.png",
    "fold_changes.png",
    "power.png",
    "violins.png",
    "volcano.png",
)


def write_figures(
    screen: "GeneScreen", result: "GeneTestResult", out: Path, overwrite: bool
) -> "tuple[list[str], Sequence[Verdict]]":
    """Draw an analysis into a folder, and write the page of a discovery.

    Returns
    -------
    names : list of str
        What was written: some of `FIGURES`, and `REPORT`.
    verdicts : sequence of Verdict
        Whether to believe the tests; none of a power check, or where no pair was tested.
    """
    from plait import plot
    from plait.report.gene_screen import calibrated, write_gene_screen_report

    use_no_window()
    pictures = _pictures(screen, result)
    for name, draw in pictures.items():
        plot.save_figure(draw(), out / name, overwrite)
    if result.analysis != "discovery" or not result.pass_qc.any():
        is_check = result.analysis == "calibration" and bool(result.pass_qc.any())
        return list(pictures), [calibrated(result)] if is_check else []
    page = write_gene_screen_report(
        result,
        out / REPORT,
        calibration=screen.calibration,
        power=screen.power,
        screen=screen,
        title=f"What perturbations do to genes: {out.name}",
        overwrite=overwrite,
    )
    return [*pictures, REPORT], page.verdicts


def _pictures(screen: "GeneScreen", result: "GeneTestResult") -> dict[str, Callable[[], Any]]:
    """Return what there is to draw, by the names of files, in their order."""
    from plait import crt, plot

    assert screen.pair_quality is not None
    fewest = (screen.pair_quality.min_treated, screen.pair_quality.min_controls)
    pictures: dict[str, Callable[[], Any]] = {
        "guides.png": lambda: crt.plot_guides(screen),
        "cells.png": lambda: crt.plot_cells(screen),
    }
    if len(result):
        pictures["pairs.png"] = lambda: crt.plot_pair_quality(result, fewest=fewest, caption=True)
    if not result.pass_qc.any():
        return pictures
    checked, power = screen.calibration, screen.power
    beside = None if result is checked else checked
    title = f"{result.analysis.capitalize()}: p-values"
    if result is not power:  # positive controls are to be beside chance: power.png shows how far
        pictures["qq.png"] = lambda: crt.plot_gene_calibration(
            result, beside, title=title, caption=True
        )
    if checked is not None and checked.pass_qc.any():
        folds = checked.log_2_fold_change[checked.pass_qc]
        pictures["fold_changes.png"] = lambda: plot.fold_changes(
            folds, title="Non-targeting guides: fold changes", caption=True
        )
    if power is not None and power.pass_qc.any():
        pictures["power.png"] = lambda: crt.plot_power(
            power, checked, title="Positive controls", caption=True
        )
    if result is not checked:
        pictures["violins.png"] = lambda: crt.plot_pairs(
            screen, result, title="The surest pairs", caption=True
        )
    if result.analysis == "discovery":
        pictures["volcano.png"] = lambda: _volcano(result)
    return pictures


def _volcano(result: "GeneTestResult") -> Any:
    import numpy as np

    from plait import plot
    from plait.crt.gene_plots import pair_names

    tested = result.pass_qc
    found = np.zeros(len(result), bool) if result.significant is None else result.significant
    return plot.volcano(
        result.log_2_fold_change[tested],
        result.log10_p[tested],
        found[tested],
        pair_names(result, np.flatnonzero(tested), "itself"),
        xlabel="log₂ fold change",
        caption=True,
    )
