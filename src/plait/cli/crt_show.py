"""``plait crt report|qq``: a screen that was tested, as a page and as a picture."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plait.cli import options
from plait.cli.console import say, session
from plait.cli.crt import CONTROLS, DOCS, STORE, Level, require_level
from plait.cli.gene_screen_runs import STORES
from plait.cli.inputs import refuse_idle
from plait.cli.options import OUTPUT, documented, option
from plait.cli.outputs import FIGURES, check_file, use_no_window
from plait.cli.records import beside, write_record
from plait.errors import FileFormatError

if TYPE_CHECKING:
    from plait.crt import CRTResult, GeneTestResult
    from plait.report.page import Page

REPORT_EXAMPLE = "plait crt report screened --out screen.html --level 0.05"
QQ_EXAMPLE = "plait crt qq screened --out qq.png"

Screened = Annotated[
    Path,
    typer.Argument(
        metavar="FOLDER",
        show_default=False,
        help="What 'plait crt run --out' or 'plait crt discover --out' wrote, or a store of the "
        "results of run (.zarr).",
    ),
]


def report(
    screened: Screened,
    out: Annotated[Path, option("--out", "-o", metavar="HTML", panel=OUTPUT, help="The page.")],
    title: Annotated[
        str | None,
        option("--title", panel=OUTPUT, show_default="the folder's name", help="Its headline."),
    ] = None,
    level: Level = 0.1,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Show the tests of a screen as a page: the answer, whether to believe it, every figure.

    Of a folder that plait crt discover wrote the page has no pictures of cells and guides.
    """
    require_level(level)
    check_file(out, (".html", ".htm"), overwrite)
    with session(None, quiet, debug):
        if (screened / STORES["discovery"]).is_dir():
            refuse_idle(("level",), True, "with what 'plait crt discover' wrote, which has its own")
            page = _page_of_genes(screened, out, title, overwrite)
        else:
            page = _page_of_programs(screened, out, title, level, overwrite)
    for sentence in page.answer:
        say(quiet, sentence)
    say(quiet, f"{page.verdict}: {', '.join(page.reasons)}")
    write_record(beside(out))
    say(quiet, f"written: {out} ({out.stat().st_size / 1e6:.1f} MB; open it in a browser)")


def _page_of_programs(
    screened: Path, out: Path, title: str | None, level: float, overwrite: bool
) -> "Page":
    from plait.report.screen import write_screen_report

    result, controls = open_screen(screened)
    return write_screen_report(
        result,
        out,
        title=title or f"What perturbations do: {screened.stem}",
        level=level,
        controls=controls,
        overwrite=overwrite,
    )


def _page_of_genes(folder: Path, out: Path, title: str | None, overwrite: bool) -> "Page":
    """Write the page of a discovery from its folder alone: without pictures of cells."""
    from plait.report.gene_screen import write_gene_screen_report

    found = _results_of_genes(folder)
    return write_gene_screen_report(
        found["discovery"],
        out,
        calibration=found.get("calibration"),
        power=found.get("power"),
        title=title or f"What perturbations do to genes: {folder.name}",
        overwrite=overwrite,
    )


def _results_of_genes(folder: Path) -> "dict[str, GeneTestResult]":
    """Return the results that commands for gene-level screens left in a folder, by analysis.

    None of a power check alone: positive controls are to be beside chance.
    """
    from plait.crt.stored_pairs import open_result

    found = {name: folder / store for name, store in STORES.items() if (folder / store).is_dir()}
    if found.keys() <= {"power"}:
        return {}
    return {name: open_result(store) for name, store in found.items()}


def qq(
    screened: Screened,
    out: Annotated[
        Path, option("--out", metavar="FIGURE", panel=OUTPUT, help="A .png, .pdf or .svg.")
    ],
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Draw the p-values of perturbations and of negative controls against chance.

    Of a folder that plait crt discover (or calibrate) wrote: those of its pairs, and of
    non-targeting guides.
    """
    check_file(out, FIGURES, overwrite)
    with session(None, quiet, debug):
        from plait import plot
        from plait.crt import plot_calibration, plot_gene_calibration

        use_no_window()
        if of_genes := _results_of_genes(screened):
            pairs = of_genes.pop("discovery" if "discovery" in of_genes else "calibration")
            drawn = plot_gene_calibration(pairs, of_genes.get("calibration"), caption=True)
        else:
            result, controls = open_screen(screened)
            drawn = plot_calibration(result, controls, caption=True)
        plot.save_figure(drawn, out, overwrite)
    write_record(beside(out))
    say(quiet, f"written: {out}")


def open_screen(place: Path) -> "tuple[CRTResult, CRTResult | None]":
    """Return the result in a folder, and its groups of negative controls if there are any.

    Raises
    ------
    FileFormatError
        It is neither such a folder nor a store.
    """
    from plait.crt import CRTResult

    store = place if place.suffix == ".zarr" else place / STORE
    if not store.is_dir():
        raise FileFormatError(
            f"{place} is not the folder of a tested screen: neither {STORE} nor discovery.zarr is "
            "in it. Give what 'plait crt run --out' or 'plait crt discover --out' wrote."
        )
    controls = store.parent / CONTROLS
    is_pair = store.name == STORE and controls.is_dir()
    return CRTResult.load(store), CRTResult.load(controls) if is_pair else None


def register(app: typer.Typer) -> None:
    """Add the commands to those of ``plait crt``."""
    documented(app, "report", report, REPORT_EXAMPLE, DOCS)
    documented(app, "qq", qq, QQ_EXAMPLE, DOCS)
