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
    from plait.crt import CRTResult
    from plait.report.page import Page

REPORT_EXAMPLE = "plait crt report screened --out screen.html --level 0.05"
QQ_EXAMPLE = "plait crt qq screened --out qq.png"

Screened = Annotated[
    Path,
    typer.Argument(
        metavar="FOLDER",
        show_default=False,
        help="What 'plait crt run --out' wrote, or a store of results (.zarr).",
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
    from plait.crt.stored_pairs import open_result
    from plait.report.gene_screen import write_gene_screen_report

    found = {
        name: open_result(folder / store)
        for name, store in STORES.items()
        if (folder / store).is_dir()
    }
    return write_gene_screen_report(
        found["discovery"],
        out,
        calibration=found.get("calibration"),
        power=found.get("power"),
        title=title or f"What perturbations do to genes: {folder.name}",
        overwrite=overwrite,
    )


def qq(
    screened: Screened,
    out: Annotated[
        Path, option("--out", metavar="FIGURE", panel=OUTPUT, help="A .png, .pdf or .svg.")
    ],
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Draw the p-values of perturbations and of negative controls against chance."""
    check_file(out, FIGURES, overwrite)
    with session(None, quiet, debug):
        from plait import plot
        from plait.crt import plot_calibration

        result, controls = open_screen(screened)
        use_no_window()
        plot.save_figure(plot_calibration(result, controls, caption=True), out, overwrite)
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
            f"{place} is not the folder of a tested screen: {STORE} is not in it. Give what "
            "'plait crt run --out' wrote, or to 'plait crt report' what 'plait crt discover --out' "
            "did."
        )
    controls = store.parent / CONTROLS
    is_pair = store.name == STORE and controls.is_dir()
    return CRTResult.load(store), CRTResult.load(controls) if is_pair else None


def register(app: typer.Typer) -> None:
    """Add the commands to those of ``plait crt``."""
    documented(app, "report", report, REPORT_EXAMPLE, DOCS)
    documented(app, "qq", qq, QQ_EXAMPLE, DOCS)
