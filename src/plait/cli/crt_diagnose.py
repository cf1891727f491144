"""``plait crt diagnose``: the test on a simulated screen without effects."""

from pathlib import Path
from typing import Annotated

import typer

from plait.cli import options
from plait.cli.console import announce_compilation, say, session
from plait.cli.crt import DOCS
from plait.cli.options import INPUT, MODEL, OUTPUT, documented, option
from plait.cli.outputs import (
    FIGURES,
    TABLES,
    check_file,
    check_folder,
    use_no_window,
    write_table,
)
from plait.cli.records import beside, write_record
from plait.data.words import counted

EXAMPLE = "plait crt diagnose --cells 1500 --programs 5 --targets 60 --resamples 99 --out diagnosed"

_FEWEST_TOLD = 10
"""Units of a third, of which fewer say nothing."""
_THIRDS = {
    "low": "the third with fewest treated cells",
    "middle": "the third in the middle",
    "high": "the third with most treated cells",
}
_KINDS = (
    ("real_gene", "target", "targets"),
    ("ntc_group", "group of control guides", "groups of control guides"),
)
_UNITS, _SUMMARY, _FIT = "diagnostics_units.csv", "diagnostics_summary.txt", "fit.png"
"""What is written into the folder, unless an option names a place of its own."""


def diagnose(
    cells: Annotated[int, option("--cells", min=1, panel=INPUT, help="Simulated cells.")] = 5000,
    programs: Annotated[int, option("--programs", min=2, panel=INPUT, help="Gene programs.")] = 20,
    targets: Annotated[int, option("--targets", min=1, panel=INPUT, help="Target genes.")] = 50,
    causal: Annotated[
        float,
        option(
            "--causal",
            min=0.0,
            max=1.0,
            panel=INPUT,
            help="Share of the targets that have effects.",
        ),
    ] = 0.2,
    effect_size: Annotated[
        float, option("--effect-size", panel=INPUT, help="Their size; 0 is no effect anywhere.")
    ] = 0.0,
    resamples: Annotated[
        int, option("--resamples", min=1, panel=MODEL, help="Of every unit.")
    ] = 1000,
    group_size: Annotated[
        int,
        option("--group-size", min=1, panel=MODEL, help="Guides of a group of negative controls."),
    ] = 6,
    ensembles: Annotated[
        int, option("--ensembles", min=1, panel=MODEL, help="Sets of such groups.")
    ] = 3,
    bins: Annotated[
        int,
        option("--bins", min=1, panel=MODEL, help="Bins of guide frequency, to match groups by."),
    ] = 10,
    null_groups: Annotated[
        int,
        option(
            "--null-groups",
            min=0,
            panel=MODEL,
            help="Groups whose resamples make the null curve; 0: all.",
        ),
    ] = 10,
    out: Annotated[
        Path,
        option(
            "--out",
            metavar="FOLDER",
            panel=OUTPUT,
            help="Folder for the table, the summary and the QQ plot.",
        ),
    ] = Path("diagnostics"),
    out_csv: Annotated[
        Path | None,
        option(
            "--out-csv",
            metavar="TABLE",
            panel=OUTPUT,
            show_default=f"{_UNITS} in the folder",
            help="A row for each target and group of controls: .csv or .tsv (also .gz), or "
            ".parquet.",
        ),
    ] = None,
    out_summary: Annotated[
        Path | None,
        option(
            "--out-summary",
            metavar="TEXT",
            panel=OUTPUT,
            show_default=f"{_SUMMARY} in the folder",
            help="The summary, as JSON.",
        ),
    ] = None,
    plot_fit: Annotated[
        Path | None,
        option(
            "--plot-fit",
            metavar="FIGURE",
            panel=OUTPUT,
            show_default=f"{_FIT} in the folder",
            help="QQ plot with fitted propensities.",
        ),
    ] = None,
    plot_oracle: Annotated[
        Path | None,
        option(
            "--plot-oracle",
            metavar="FIGURE",
            panel=OUTPUT,
            show_default="none",
            help="QQ plot with the true ones.",
        ),
    ] = None,
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Simulate a screen without effects, test it, and say whether p-values are uniform."""
    from plait.io import check_writable

    given = {_UNITS: out_csv, _SUMMARY: out_summary, _FIT: plot_fit}
    if own := [name for name, path in given.items() if path is None]:
        check_folder(out, own, overwrite)
        out.mkdir(exist_ok=True)
    out_csv, out_summary, plot_fit = (path or out / name for name, path in given.items())
    check_file(out_csv, TABLES, overwrite)
    check_writable(out_summary, overwrite)
    for figure in (plot_fit, plot_oracle):
        if figure is not None:
            check_file(figure, FIGURES, overwrite)
    with session(threads, quiet, debug):
        import polars as pl

        from plait.crt import run_global_null_diagnostics
        from plait.crt.diagnostics import UNIT_FIELDS, uniformity_words

        use_no_window()
        announce_compilation(quiet)
        found = run_global_null_diagnostics(
            cells,
            programs,
            targets,
            resamples,
            seed,
            causal,
            effect_size,
            ensembles,
            group_size,
            bins,
            null_groups,
            None,
            out_summary,
            plot_fit,
            plot_oracle,
            n_jobs=threads,
            overwrite=overwrite,
        )
        table = pl.DataFrame(found.records, infer_schema_length=None).select(UNIT_FIELDS)
        write_table(out_csv, table, overwrite)
    for name, one, several in _KINDS:
        about = found.summary[name]
        if (raw := about["calibration"]["raw"]) is None:
            units = counted(about["n_units"], one, several)
            say(quiet, f"{units}: none has treated and untreated cells")
            continue
        say(
            quiet,
            f"{counted(about['n_units'], one, several)} with a median of "
            f"{counted(round(about['n_treated_median']), 'treated cell')}: {uniformity_words(raw)}",
        )
        for third, words in _THIRDS.items():
            part = about["calibration_by_treated"]["raw"].get(third)
            if part is not None and part["count"] >= _FEWEST_TOLD:
                say(quiet, f"  {words}: {uniformity_words(part)}")
        if effect_size and name == "real_gene":
            say(quiet, "  some targets have effects, so that their p-values should be small")
    written = [path for path in (out_csv, out_summary, plot_fit, plot_oracle) if path is not None]
    write_record(beside(out_csv), {"units": len(found.records)})
    say(quiet, "written: " + " · ".join(map(str, written)))


def register(app: typer.Typer) -> None:
    """Add the command to those of ``plait crt``."""
    documented(app, "diagnose", diagnose, EXAMPLE, DOCS)
