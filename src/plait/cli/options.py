"""The options that commands share, each with one name and one meaning, and how help is laid out."""

import inspect
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from plait.cli.invocation import enter

INPUT, MODEL, OUTPUT, RUN = "Input", "Model", "Output", "Run"


def option(*names: str, panel: str, help: str, **settings: Any) -> Any:
    """Return an option that stands in one of the panels of the help."""
    return typer.Option(*names, help=help, rich_help_panel=panel, **settings)


class Missing(StrEnum):
    """How missing cells enter the likelihood."""

    AUTO = "auto"
    LARGE_SE = "large_se"
    EXACT = "exact"


class Prior(StrEnum):
    """Prior of the mixture weights."""

    NULLBIASED = "nullbiased"
    UNIFORM = "uniform"


class Optimiser(StrEnum):
    """Optimiser of the mixture weights."""

    MIXSQP = "mixsqp"
    SQUAREM = "squarem"
    SLSQP = "slsqp"
    EM = "em"
    MIXIP = "mixip"
    AUTO = "auto"


class Selection(StrEnum):
    """Which effects the weights are fitted on when they are too many."""

    TOPZ_RANDOM = "topz_random"
    RANDOM = "random"


class Weighting(StrEnum):
    """Whether selected effects stand for those left out."""

    INCLUSION = "inclusion"
    NONE = "none"


class Algorithm(StrEnum):
    """Algorithm of extreme deconvolution."""

    BOVY = "bovy"
    TEEM = "teem"


class NullMethod(StrEnum):
    """Estimator of the error correlation from null effects."""

    SIMPLE = "simple"
    TRUNCATED_ML = "truncated_ml"


class TooFewNulls(StrEnum):
    """What to do when there are fewer null effects than conditions."""

    ERROR = "error"
    IDENTITY = "identity"
    ALL = "all"


class Devices(StrEnum):
    """Where likelihoods and posteriors are computed."""

    CPU = "cpu"
    CUDA = "cuda"
    AUTO = "auto"


Bhat = Annotated[
    Path | None,
    option(
        "--bhat",
        metavar="FILE",
        panel=INPUT,
        help="Effects, one row per effect, one column per condition: .csv, .tsv (also .gz), "
        ".parquet, .npy or .npz. NA is a missing cell.",
    ),
]
Shat = Annotated[
    Path | None,
    option(
        "--shat",
        metavar="FILE",
        panel=INPUT,
        help="Their standard errors, same shape and order. Left out: the effects are z-scores.",
    ),
]
EffectsStore = Annotated[
    str | None,
    option(
        "--effects",
        metavar="STORE",
        panel=INPUT,
        help="A store of effects (.zarr, any URL) instead of --bhat, --shat and --v.",
    ),
]
Conditions = Annotated[
    str | None,
    option(
        "--conditions",
        metavar="LIST",
        panel=INPUT,
        help="Columns to use, separated by commas. Default: every column that is not an id.",
    ),
]
V = Annotated[
    Path | None,
    option(
        "--v",
        metavar="FILE",
        panel=INPUT,
        help="Correlation of the errors between conditions (R x R). Default: none.",
    ),
]
Alpha = Annotated[
    float,
    option(
        "--alpha",
        panel=MODEL,
        help="0: effects are comparable between rows; 1: z-scores are (the usual choice for GWAS).",
    ),
]
MissingCells = Annotated[
    Missing | None,
    option(
        "--missing",
        panel=INPUT,
        show_default="auto; exact with --effects",
        help="Missing cells: left out (exact) or given a large standard error (large_se).",
    ),
]
ZeroShat = Annotated[
    float,
    option(
        "--zero-shat-reset",
        panel=INPUT,
        show_default="refuse them",
        help="Standard error for cells where it is zero.",
    ),
]
ZeroBoth = Annotated[
    float,
    option(
        "--zero-bhat-shat-reset",
        panel=INPUT,
        show_default="refuse them",
        help="Standard error for cells where it and the effect are zero.",
    ),
]
Ulist = Annotated[
    Path | None,
    option(
        "--ulist",
        metavar="FILE",
        panel=MODEL,
        help="Covariance matrices (.npz, .npy), for example from 'plait mash ed'. Replaces the "
        "canonical ones unless --cov-methods is given as well.",
    ),
]
CovMethods = Annotated[
    str | None,
    option(
        "--cov-methods",
        metavar="LIST",
        panel=MODEL,
        show_default="all, or none with --ulist",
        help="Canonical covariance matrices, separated by commas: identity, singletons, "
        "equal_effects, simple_het; all or none of them.",
    ),
]
Nullweight = Annotated[
    float,
    option("--nullweight", panel=MODEL, help="Prior count of the null (with nullbiased)."),
]
OutPrefix = Annotated[
    str,
    option(
        "--out",
        metavar="PREFIX",
        panel=OUTPUT,
        help="Writes PREFIX.npz and PREFIX.json; a name ending in .zarr (or a URL): a store.",
    ),
]
Overwrite = Annotated[
    bool,
    option("--overwrite", panel=OUTPUT, help="Replace outputs that exist."),
]
Gridmult = Annotated[
    float, option("--gridmult", panel=MODEL, help="Ratio of neighbouring values of the grid.")
]
Grid = Annotated[
    str | None,
    option(
        "--grid",
        metavar="G ...",
        panel=MODEL,
        show_default="chosen from the data",
        help="Prior standard deviations that scale the matrices: --grid 0.5 1 2.",
    ),
]
NoNormalizeU = Annotated[
    bool,
    option("--no-normalize-u", panel=MODEL, help="Keep the scale of the covariance matrices."),
]
NoPointmass = Annotated[
    bool, option("--no-pointmass", panel=MODEL, help="Leave out the component without effects.")
]
PriorOfWeights = Annotated[
    Prior, option("--prior", panel=MODEL, help="Prior of the mixture weights.")
]
Optmethod = Annotated[
    Optimiser, option("--optmethod", panel=MODEL, help="Optimiser; mixsqp certifies its result.")
]
PiThresh = Annotated[
    float,
    option("--pi-thresh", panel=MODEL, help="Components with less weight are left out."),
]
PosteriorSamples = Annotated[
    int, option("--posterior-samples", panel=OUTPUT, help="Posterior draws per effect.")
]
OutputLevel = Annotated[
    int,
    option(
        "--outputlevel",
        min=1,
        max=4,
        panel=OUTPUT,
        help="1: weights; 2: posterior too; 3: posterior covariances too; 4: likelihoods too.",
    ),
]
OutputLfdr = Annotated[
    bool, option("--output-lfdr", panel=OUTPUT, help="Write local false discovery rates too.")
]
ChunkSize = Annotated[
    int,
    option(
        "--chunk-size",
        min=0,
        panel=RUN,
        help="With more effects than this the weights are fitted on a weighted subset of this "
        "size; 0: always on all.",
    ),
]
TrainSize = Annotated[
    int | None,
    option(
        "--train-size",
        metavar="N",
        panel=RUN,
        show_default="all, or the chunk size",
        help="Fit the weights on this many effects.",
    ),
]
SelectMethod = Annotated[
    Selection,
    option("--select-method", panel=RUN, help="Which ones: strong and random, or random."),
]
BackgroundFraction = Annotated[
    float,
    option("--background-fraction", panel=RUN, help="Random share of topz_random."),
]
Weights = Annotated[
    Weighting,
    option(
        "--weighting",
        panel=RUN,
        help="Whether the selected effects stand for those left out.",
    ),
]
Seed = Annotated[
    int, option("--seed", panel=RUN, help="Seed of everything random; recorded in the output.")
]
Threads = Annotated[
    int | None,
    option(
        "--threads",
        panel=RUN,
        show_default="all cores",
        help="Threads. They change the speed, never the numbers.",
    ),
]
Memory = Annotated[
    str | None,
    option(
        "--memory",
        metavar="SIZE",
        panel=RUN,
        show_default="half of what is free",
        help="Memory for the blocks of a store under way on one machine, as in 2GB. The effects "
        "that the weights are fitted on (--train-size) come on top: of N of them in R conditions "
        "about 150 N R bytes, and up to 1 GiB of likelihoods.",
    ),
]
ScanMemory = Annotated[
    str | None,
    option(
        "--memory",
        metavar="SIZE",
        panel=RUN,
        show_default="half of what is free",
        help="Memory for the blocks under way on one machine, as in 2GB, and for relationships.",
    ),
]
ScreenMemory = Annotated[
    str | None,
    option(
        "--memory",
        metavar="SIZE",
        panel=RUN,
        show_default="half of what is free",
        help="Memory for the blocks of perturbations under way on one machine, as in 2GB, beside "
        "the screen itself (20 bytes a cell and program).",
    ),
]
Dask = Annotated[
    str | None,
    option(
        "--dask",
        metavar="ADDRESS",
        panel=RUN,
        show_default="this process",
        help="Let a Dask cluster work on a store: tcp://host:port, or local:N for N processes.",
    ),
]
LogJson = Annotated[
    bool,
    option("--log-json", panel=RUN, help="Log every finished block to stderr, as a line of JSON."),
]
Device = Annotated[
    Devices,
    option(
        "--device",
        panel=RUN,
        help="Where to compute: cuda is a GPU (through PyTorch) for effects with common errors.",
    ),
]
Quiet = Annotated[bool, option("--quiet", panel=RUN, help="Print nothing but warnings and errors.")]
Debug = Annotated[bool, option("--debug", panel=RUN, help="Show the traceback of an error.")]
Strong = Annotated[
    str | None,
    option(
        "--strong",
        metavar="RESULT",
        panel=INPUT,
        show_default="screen now",
        help="Output of 'plait mash onebyone': its significant effects are learned from.",
    ),
]
AllEffects = Annotated[
    bool,
    option("--all-effects", panel=INPUT, help="Learn from all effects instead of strong ones."),
]
Level = Annotated[
    float,
    option("--level", panel=INPUT, help="Effects with an lfsr below this are strong."),
]
Npc = Annotated[
    int | None,
    option(
        "--npc",
        panel=MODEL,
        show_default="5, or R if less",
        help="Number of principal components.",
    ),
]
ResultFile = Annotated[
    str,
    typer.Argument(
        metavar="RESULT",
        help="Output of 'plait mash fit' or 'apply', its .npz file or .zarr store, or the folder "
        "of 'plait gwas-to-mash'.",
        show_default=False,
    ),
]
Factor = Annotated[
    float,
    option(
        "--factor",
        panel=MODEL,
        help="Effects are shared when their ratio is between this and its inverse; 0: same sign.",
    ),
]
LfsrThresh = Annotated[
    float,
    option("--lfsr-thresh", panel=MODEL, help="Effects count when their lfsr is below this."),
]


def _described(parameters: list[Any], ctx: Any) -> list[Any]:
    """Return parameters whose help says what is typed after them.

    After a flag nothing is; choices have blanks between them, where a narrow help may break lines.
    """
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
        elif parameter.metavar is None and hasattr(parameter, "display_type"):
            shown = parameter.display_type(ctx)
            parameter.metavar = shown.replace("|", " | ") if "|" in shown else None
    return parameters


class PanelledGroup(TyperGroup):
    """A group of commands; its help is laid out as theirs."""

    def get_params(self, ctx: Any) -> Any:
        """Return the options."""
        return _described(super().get_params(ctx), ctx)


class PanelledCommand(TyperCommand):
    """A command whose help shows its panels in the order in which one thinks of them.

    What it was given is known to whoever asks for the `plait.cli.invocation.current` one.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        enter(ctx)
        return super().invoke(ctx)

    def get_params(self, ctx: Any) -> Any:
        """Return the options, Input first; those without a panel come last."""
        order = {panel: place for place, panel in enumerate((INPUT, MODEL, OUTPUT, RUN))}
        return sorted(
            _described(super().get_params(ctx), ctx),
            key=lambda option: order.get(getattr(option, "rich_help_panel", None) or "", 9),
        )


def command_group(help: str, docs: str) -> typer.Typer:
    """Return an empty group of commands; without a command it prints its help."""
    group = typer.Typer(
        cls=PanelledGroup,
        help=help,
        epilog=f"Docs: {docs}",
        rich_markup_mode="rich",
        invoke_without_command=True,
    )

    def about(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            print(context.get_help())

    group.callback(help=help)(about)
    return group


def documented(
    app: typer.Typer, name: str, function: Callable[..., Any], example: str, docs: str
) -> None:
    """Register a command; its help is its docstring, an example that runs, and where to read on.

    The examples run on the files of ``plait demo``; the tests run all of them.
    """
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    # A paragraph is a line: the terminal breaks it, not the source.
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    text += f"\n\n\b\nExample: {example}"
    app.command(name, cls=PanelledCommand, help=text, epilog=f"Docs: {docs}")(function)
