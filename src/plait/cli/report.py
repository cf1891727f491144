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
from plait.cli.results import STORE, read_result
from plait.cli.words import as_options

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
        from plait.gwas import AssociationResult
        from plait.report import write_mash_report
        from plait.report.page import check_libraries

        check_libraries()
        loaded, folder = read_result(result), study_of(result)
        described = read_description(result) if folder is None else read_fit(folder)
        place = Path(result.rstrip("/")) if folder is None else folder.resolve()
        page = write_mash_report(
            loaded,
            out,
            title=title or f"Effects across contexts: {place.stem}",
            level=level,
            described=described,
            scan=None if folder is None else AssociationResult.open(folder),
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
    for doubt in described.get("doubts", {}).values():
        say(quiet, f"warning: {as_options(doubt)}")
    say(quiet, f"written: {out} ({out.stat().st_size / 1e6:.1f} MB; open it in a browser)")


def study_of(place: str) -> Path | None:
    """Return the folder of the study that a result is of, given either; None of any other."""
    from plait.studies.gwas_to_mash import RECORD

    path = Path(place)
    folder = path.parent if path.name == STORE else path
    return folder if (folder / RECORD).is_file() and (folder / STORE).is_dir() else None


def read_fit(folder: Path) -> dict[str, Any]:
    """Return what a study wrote on its fit."""
    from plait.studies.gwas_to_mash import KEPT

    found: dict[str, Any] = json.loads((folder / KEPT / "fit.json").read_text(encoding="utf-8"))
    return found


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
