"""The commands that show what was found: tables and figures of a result."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plait.cli import check as installation
from plait.cli import options
from plait.cli.console import say, session
from plait.cli.options import INPUT, MODEL, OUTPUT
from plait.cli.outputs import (
    FIGURES,
    TABLES,
    check_file,
    check_folder,
    use_no_window,
    write_matrix,
    write_table,
)
from plait.cli.records import RECORD, beside, write_record
from plait.cli.results import named_row, read_result
from plait.data.words import counted

if TYPE_CHECKING:
    from polars import DataFrame

    from plait.mash.results import MashResult

FigureOut = Annotated[
    Path,
    typer.Option(
        "--out",
        metavar="FILE",
        help="The figure: .png, .pdf or .svg.",
        rich_help_panel=OUTPUT,
    ),
]


def sharing(
    result: options.ResultFile,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="A table (.csv, .tsv, .npy) or a figure (.png, .pdf, .svg).",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    factor: options.Factor = 0.5,
    lfsr_thresh: options.LfsrThresh = 0.05,
    from_samples: Annotated[
        bool,
        typer.Option(
            "--from-samples",
            help="Average over posterior draws (fit with --posterior-samples).",
            rich_help_panel=MODEL,
        ),
    ] = False,
    cluster: Annotated[
        bool | None,
        typer.Option(
            show_default="above 8 conditions",
            help="In the figure: put conditions that share much next to each other.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Show how much of their effects each pair of conditions shares."""
    if out is not None:
        check_file(out, (".csv", ".tsv", ".npy", *FIGURES), overwrite)
    with session(None, quiet, debug):
        from plait.mash import get_pairwise_sharing, get_pairwise_sharing_from_samples

        loaded = read_result(result)
        measure = get_pairwise_sharing_from_samples if from_samples else get_pairwise_sharing
        matrix = measure(loaded, factor, lfsr_thresh)
        if out is not None and out.suffix.lower() in FIGURES:
            from plait import plot

            use_no_window()
            axes = plot.sharing(matrix, loaded.condition_names, cluster=cluster, caption=True)
            plot.save_figure(axes, out, overwrite)
        elif out is not None:
            write_matrix(out, matrix, loaded.condition_names, overwrite)
        if out is not None:
            write_record(beside(out), {"conditions": len(matrix)})
    show_matrix(quiet, matrix, loaded.condition_names)
    if out is not None:
        say(quiet, f"written: {out}")


def significant(
    result: options.ResultFile,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="The table: .csv, .tsv or .parquet.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    lfsr_thresh: options.LfsrThresh = 0.05,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """List the significant effects, the surest first: one row per effect and condition."""
    if out is not None:
        check_file(out, TABLES, overwrite)
    with session(None, quiet, debug):
        loaded = read_result(result)
        frame = significant_frame(loaded, lfsr_thresh)
        if out is not None:
            write_table(out, frame, overwrite)
            write_record(beside(out), {"effects": loaded.n_effects, "rows": frame.height})
    n_rows = frame["effect"].n_unique()
    say(
        quiet,
        f"{n_rows:,} of {counted(loaded.n_effects, 'effect')} {'has' if n_rows == 1 else 'have'} "
        f"lfsr < {lfsr_thresh:g} somewhere",
    )
    for line in _aligned(frame.head(10)):
        say(quiet, f"  {line}")
    if frame.height > 10:
        say(quiet, f"  and {counted(frame.height - 10, 'more row')}")
    if out is not None:
        say(quiet, f"written: {out}")


def _aligned(frame: "DataFrame") -> list[str]:
    """Return the names of the columns and the rows of a table, one below the other."""
    rows = [
        [f"{v:.3g}" if isinstance(v, float) else str(v) for v in row] for row in frame.iter_rows()
    ]
    if not rows:
        return []
    columns = list(zip(frame.columns, *rows, strict=True))
    widths = [max(len(text) for text in column) for column in columns]
    return [
        "  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)).rstrip()
        for line in zip(*columns, strict=True)
    ]


def significant_frame(result: "MashResult", level: float) -> Any:
    """Return the cells with a small lfsr as a polars table, sorted by it."""
    import numpy as np
    import polars as pl

    from plait.mash import get_significant_results

    columns = ("posterior_mean", "posterior_sd", "lfsr")
    rows = np.sort(get_significant_results(result, level))
    frame = result.take(rows).to_frame()
    if result.effect_names is None:
        frame = frame.with_columns(effect=pl.Series(np.repeat(rows, result.n_conditions)))
    labels = [name for name in frame.columns[:2]]
    return (
        frame.select(*labels, *columns)
        .rename({labels[1]: "condition"})
        .filter(pl.col("lfsr") < level)
        .sort("lfsr", maintain_order=True)
    )


def plot_meta(
    result: options.ResultFile,
    effect: Annotated[
        str,
        typer.Option(
            "--effect",
            metavar="NAME",
            help="The effect: its name, or its row number from 0.",
            rich_help_panel=INPUT,
        ),
    ],
    out: FigureOut,
    ci: Annotated[
        float,
        typer.Option(help="Half length of the bars in posterior sd.", rich_help_panel=OUTPUT),
    ] = 1.96,
    boxes: Annotated[
        bool,
        typer.Option("--boxes", help="Squares with an area by precision.", rich_help_panel=OUTPUT),
    ] = False,
    xlab: Annotated[str, typer.Option(rich_help_panel=OUTPUT, help="Axis.")] = "Effect size",
    ylab: Annotated[str, typer.Option(rich_help_panel=OUTPUT, help="Axis.")] = "Condition",
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Draw a forest plot of one effect: what it is in every condition, and how sure that is."""
    check_file(out, FIGURES, overwrite)
    with session(None, quiet, debug):
        from plait import plot
        from plait.mash import mash_plot_meta

        loaded = read_result(result)
        row = named_row(loaded, effect)
        use_no_window()
        axes = mash_plot_meta(loaded, row, xlab, ylab, ci=ci, boxes=boxes, caption=True)
        plot.save_figure(axes, out, overwrite)
        write_record(beside(out), {"effects": loaded.n_effects})
        say(quiet, f"written: {out}")


def plots(
    result: options.ResultFile,
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="FOLDER", help="Folder for the figures.", rich_help_panel=OUTPUT
        ),
    ],
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Draw sharing, mixture weights, patterns and the surest effect, each to a .png file."""
    names = ("sharing.png", "weights.png", "patterns.png", "forest.png", RECORD)
    check_folder(out, names, overwrite)
    with session(None, quiet, debug):
        from plait import plot
        from plait.mash import plots as figures
        from plait.mash.results import FittedG

        loaded = read_result(result)
        use_no_window()
        drawn = {
            "sharing.png": figures.plot_sharing(loaded, caption=True),
            "forest.png": figures.mash_plot_meta(loaded, surest(loaded), caption=True),
        }
        if isinstance(loaded.fitted_g, FittedG):
            drawn["weights.png"] = figures.plot_weights(loaded, caption=True)
            drawn["patterns.png"] = figures.plot_patterns(loaded, caption=True)[0]
        out.mkdir(exist_ok=True)
        for name, axes in drawn.items():
            plot.save_figure(axes, out / name, overwrite)
        write_record(out / RECORD, {"effects": loaded.n_effects})
        say(quiet, f"written: {' · '.join(str(out / name) for name in drawn)}")


def check(debug: options.Debug = False) -> None:
    """Check the installation: versions, compiled kernels, threads, and a small fit."""
    installation.check(debug)


def surest(result: "MashResult") -> int:
    """Return the effect with the smallest lfsr in all conditions together."""
    import numpy as np

    from plait.io.stored_arrays import parts_of

    means = [result.lfsr[rows].mean(axis=1) for rows in parts_of(result.lfsr)]  # type: ignore[index]
    return int(np.argmin(np.concatenate(means)))


def show_matrix(quiet: bool, matrix: Any, names: Any) -> None:
    """Print an R x R matrix with labels, where it fits a screen."""
    labels = [str(i + 1) for i in range(len(matrix))] if names is None else [str(n) for n in names]
    if len(labels) > 12:
        return
    width = max(6, *(len(label) for label in labels)) + 2
    say(quiet, " " * width + "".join(f"{label:>{width}}" for label in labels))
    for label, row in zip(labels, matrix, strict=True):
        cells = ("-" if math.isnan(value) else f"{value:.2f}" for value in row)
        say(quiet, f"{label:<{width}}" + "".join(f"{cell:>{width}}" for cell in cells))
