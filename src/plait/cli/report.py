"""``plait report``: a result as one page."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from plait.cli import options
from plait.cli.console import say, session
from plait.cli.options import MODEL, OUTPUT
from plait.cli.outputs import check_file, is_store
from plait.cli.records import beside, write_record
from plait.cli.results import read_result

DOCS = "docs/report.md"
EXAMPLE = "plait report demo/tables/results.npz -o report.html"


def report(
    result: options.ResultFile,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="The page: one .html file that needs no network.",
            rich_help_panel=OUTPUT,
        ),
    ],
    title: Annotated[
        str | None,
        typer.Option(
            "--title",
            help="Headline of the page.",
            show_default="the name of the result",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    level: Annotated[
        float,
        typer.Option(
            "--level",
            help="Effects with an lfsr below this are significant.",
            rich_help_panel=MODEL,
        ),
    ] = 0.05,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Show a result as a page for a browser: the answer, whether to believe it, every figure."""
    check_file(out, (".html", ".htm"), overwrite)
    with session(None, quiet, debug):
        from plait.report import write_mash_report
        from plait.report.page import check_libraries

        check_libraries()
        loaded = read_result(result)
        page = write_mash_report(
            loaded,
            out,
            title=title or f"Effects across contexts: {Path(result.rstrip('/')).stem}",
            level=level,
            described=read_description(result),
            overwrite=overwrite,
        )
    write_record(
        beside(out),
        {"effects": loaded.n_effects},
        verdict=page.verdict,
        reasons=list(page.reasons),
    )
    for sentence in page.answer:
        say(quiet, sentence)
    say(quiet, f"{page.verdict}: {', '.join(page.reasons)}")
    say(quiet, f"written: {out} ({out.stat().st_size / 1e6:.1f} MB; open it in a browser)")


def read_description(place: str) -> dict[str, Any]:
    """Return what a mash command wrote beside the arrays of an .npz; empty where there is none."""
    path = Path(f"{place.removesuffix('.npz')}.json")
    if is_store(place) or not path.is_file():
        return {}
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return described if isinstance(described, dict) and "command" in described else {}
