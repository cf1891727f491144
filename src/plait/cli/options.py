"""Options that mean the same in every command."""

from pathlib import Path
from typing import Annotated

import typer

INPUT, MODEL, OUTPUT, RUN = "Input", "Model", "Output", "Run"

Threads = Annotated[
    int | None,
    typer.Option(help="Threads (default: all cores). Never changes a result.", rich_help_panel=RUN),
]
Seed = Annotated[int, typer.Option(help="Seed of everything random.", rich_help_panel=RUN)]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print errors only.", rich_help_panel=RUN)
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show a traceback on errors.", rich_help_panel=RUN)
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace existing output.", rich_help_panel=OUTPUT)
]
Bhat = Annotated[
    Path | None,
    typer.Option(
        help="Effects, one row each: npy, npz, csv, tsv (also .gz) or parquet.",
        rich_help_panel=INPUT,
    ),
]
Shat = Annotated[
    Path | None,
    typer.Option(
        help="Standard errors, same rows and columns. Left out: the effects are z-scores.",
        rich_help_panel=INPUT,
    ),
]
EffectsStore = Annotated[
    str | None,
    typer.Option(
        "--effects", help="An effects store in place of --bhat/--shat/--v.", rich_help_panel=INPUT
    ),
]
V = Annotated[
    Path | None, typer.Option("--v", help="Correlation of the errors.", rich_help_panel=INPUT)
]
Conditions = Annotated[
    str | None,
    typer.Option(
        help="Comma-separated columns to use (default: every other column).", rich_help_panel=INPUT
    ),
]
Alpha = Annotated[
    float,
    typer.Option(
        help="0: effects are exchangeable; 1: z-scores are (usual for GWAS).", rich_help_panel=MODEL
    ),
]
Missing = Annotated[
    str | None,
    typer.Option(
        help="Missing cells: auto, exact or large_se (default: auto; exact with --effects).",
        rich_help_panel=MODEL,
    ),
]
ZeroShatReset = Annotated[
    float,
    typer.Option(help="Value for standard errors of zero.", rich_help_panel=INPUT),
]
ZeroBhatShatReset = Annotated[
    float,
    typer.Option(
        help="Value for standard errors of zero where the effect is zero too.",
        rich_help_panel=INPUT,
    ),
]
Ulist = Annotated[
    Path | None,
    typer.Option(
        help="Covariance matrices: npz (one 2-D array per name, or u_stack) or npy (K, R, R).",
        rich_help_panel=MODEL,
    ),
]
