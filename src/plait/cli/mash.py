"""``plait mash``: the commands of multivariate adaptive shrinkage."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plait.cli import options
from plait.cli.console import announce_compilation, out, say, session
from plait.cli.inputs import load_data, split_list
from plait.cli.options import MODEL, OUTPUT, RUN
from plait.cli.outputs import check_suffix, check_target, write_arrays, write_result
from plait.errors import OptionError

if TYPE_CHECKING:
    from plait.mash.data import MashData
    from plait.mash.results import MashResult

app = typer.Typer(
    help="Which effects are real, and in which conditions are they shared?",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Out = Annotated[
    str,
    typer.Option(help="Prefix of <out>.npz and <out>.json, or a .zarr store.",
                 rich_help_panel=OUTPUT),
]  # fmt: skip
OutputLevel = Annotated[
    int,
    typer.Option(
        "--outputlevel",
        help="1 weights; 2 + posterior; 3 + covariances; 4 + likelihoods.",
        rich_help_panel=OUTPUT,
    ),
]
OutputLfdr = Annotated[
    bool,
    typer.Option(
        "--output-lfdr", help="Write local false discovery rates.", rich_help_panel=OUTPUT
    ),
]
Samples = Annotated[int, typer.Option(help="Posterior draws per effect.", rich_help_panel=OUTPUT)]
ChunkSize = Annotated[
    int,
    typer.Option(
        help="Above this many effects, fit on a weighted subset (0: never).", rich_help_panel=RUN
    ),
]


def _model(text: str) -> Any:
    return typer.Option(help=text, rich_help_panel=MODEL)


@app.command()
def fit(
    out_: Annotated[str, typer.Option("--out", help="Prefix of <out>.npz and <out>.json, or a "
                                      ".zarr store.", rich_help_panel=OUTPUT)],
    bhat: options.Bhat = None,
    shat: options.Shat = None,
    effects: options.EffectsStore = None,
    v: options.V = None,
    conditions: options.Conditions = None,
    zero_shat_reset: options.ZeroShatReset = 0.0,
    zero_bhat_shat_reset: options.ZeroBhatShatReset = 0.0,
    alpha: options.Alpha = 0.0,
    missing: options.Missing = None,
    ulist: options.Ulist = None,
    cov_methods: Annotated[
        str, _model("Canonical covariances: identity, singletons, equal_effects, simple_het; "
                    "'none' with --ulist.")
    ] = "identity,singletons,equal_effects,simple_het",
    grid: Annotated[list[float] | None, _model("Grid value; repeat for several.")] = None,
    gridmult: Annotated[float, _model("Ratio of neighbouring grid values.")] = 1.41421356,
    no_normalize_u: Annotated[
        bool, typer.Option("--no-normalize-u", help="Keep the scale of the covariances.",
                           rich_help_panel=MODEL)
    ] = False,
    no_pointmass: Annotated[
        bool, typer.Option("--no-pointmass", help="Leave the null component out.",
                           rich_help_panel=MODEL)
    ] = False,
    prior: Annotated[str, _model("nullbiased or uniform.")] = "nullbiased",
    nullweight: Annotated[float, _model("Prior weight of the null.")] = 10.0,
    optmethod: Annotated[
        str, _model("mixsqp (certified), squarem, slsqp, em, mixip or auto.")
    ] = "mixsqp",
    pi_thresh: Annotated[
        float, _model("Components with less weight do not enter the posterior.")
    ] = 1e-10,
    posterior_samples: Samples = 0,
    outputlevel: OutputLevel = 2,
    output_lfdr: OutputLfdr = False,
    chunk_size: ChunkSize = 250_000,
    train_size: Annotated[
        int | None, typer.Option(help="Effects to fit on (default: the chunk size).",
                                 rich_help_panel=RUN)
    ] = None,
    select_method: Annotated[
        str, typer.Option(help="topz_random or random.", rich_help_panel=RUN)
    ] = "topz_random",
    background_fraction: Annotated[
        float, typer.Option(help="Random share of topz_random.", rich_help_panel=RUN)
    ] = 0.2,
    weighting: Annotated[
        str, typer.Option(help="inclusion or none.", rich_help_panel=RUN)
    ] = "inclusion",
    seed: options.Seed = 123,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
    overwrite: options.Overwrite = False,
) -> None:  # fmt: skip
    """Fit mash and write the posterior of every effect.

    Example: plait mash fit --bhat demo/bhat.csv --shat demo/shat.csv --alpha 1 --out my_result

    More: docs/mash.md
    """
    from plait.mash import mash as fit_mash

    check_target(out_, overwrite)
    with session(threads, quiet):
        data = load_data(
            bhat, shat, effects, v, alpha=alpha, conditions=conditions, missing=missing,
            zero_shat_reset=zero_shat_reset, zero_bhat_shat_reset=zero_bhat_shat_reset,
            quiet=quiet,
        )  # fmt: skip
        covariances = _covariances(data, ulist, cov_methods)
        announce_compilation(quiet)
        model: dict[str, Any] = {
            "gridmult": gridmult, "grid": grid or None, "normalizeU": not no_normalize_u,
            "usepointmass": not no_pointmass, "prior": prior, "nullweight": nullweight,
            "optmethod": optmethod,
        }  # fmt: skip
        outputs: dict[str, Any] = {
            "pi_thresh": pi_thresh, "posterior_samples": posterior_samples, "seed": seed,
            "outputlevel": outputlevel, "output_lfdr": output_lfdr,
        }  # fmt: skip
        training: dict[str, Any] = {"train_size": data.n_effects, "seed": seed}
        n_train = train_size or chunk_size
        if train_size is not None or (0 < chunk_size < data.n_effects):
            selection = {
                "select_method": select_method, "background_fraction": background_fraction,
                "weighting": weighting,
            }  # fmt: skip
            n_train = min(n_train, data.n_effects)
            result = _train_and_apply(data, covariances, n_train, seed, selection, model, outputs)
            training |= {"train_size": n_train, **selection}
        else:
            result = fit_mash(data, covariances, chunk_size=None, **model, **outputs)
        written = write_result(result, out_, overwrite, "fit", training)
    say(quiet, result.summary())
    say(quiet, f"written: {', '.join(written)}")


def _covariances(data: "MashData", ulist: Path | None, methods: str) -> dict[str, Any]:
    from plait.io import read_covariances
    from plait.mash import cov_canonical

    names = [] if methods == "none" else (split_list(methods) or [])
    found = cov_canonical(data, names) if names else {}
    if ulist is not None:
        for name, matrix in read_covariances(ulist, data.n_conditions).items():
            found[name if name not in found else f"{name}_given"] = matrix
    if not found:
        raise OptionError("there are no covariances: give --ulist or --cov-methods.")
    return found


def _train_and_apply(
    data: "MashData",
    covariances: dict[str, Any],
    n_train: int,
    seed: int,
    selection: dict[str, Any],
    model: dict[str, Any],
    outputs: dict[str, Any],
) -> "MashResult":
    from dataclasses import replace

    from plait.mash import mash_train_apply

    study = mash_train_apply(
        data, covariances, n_train=n_train, select_seed=seed, **selection,
        train_mash_kwargs=model, apply_mash_kwargs=outputs,
    )  # fmt: skip
    return replace(
        study.apply_result,
        optim=study.train_result.optim,
        posterior_weights=None,
        component_index=None,
    )


@app.command()
def apply(
    g: Annotated[Path, typer.Option("--g", help="A fitted prior: the npz of fit.",
                                    rich_help_panel=MODEL)],
    out_: Annotated[str, typer.Option("--out", help="Prefix of <out>.npz and <out>.json, or a "
                                      ".zarr store.", rich_help_panel=OUTPUT)],
    bhat: options.Bhat = None,
    shat: options.Shat = None,
    effects: options.EffectsStore = None,
    v: options.V = None,
    conditions: options.Conditions = None,
    alpha: options.Alpha = 0.0,
    missing: options.Missing = None,
    posterior_samples: Samples = 0,
    outputlevel: OutputLevel = 2,
    output_lfdr: OutputLfdr = False,
    seed: options.Seed = 123,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
    overwrite: options.Overwrite = False,
) -> None:  # fmt: skip
    """Compute the posterior of effects under a prior fitted before.

    Example: plait mash apply --g my_result.npz --bhat demo/bhat.csv --shat demo/shat.csv
    --alpha 1 --out applied

    More: docs/mash.md
    """
    from plait.mash import FittedG, apply_mash_prior

    check_target(out_, overwrite)
    with session(threads, quiet):
        data = load_data(
            bhat, shat, effects, v, alpha=alpha, conditions=conditions, missing=missing,
            quiet=quiet,
        )  # fmt: skip
        announce_compilation(quiet)
        result = apply_mash_prior(
            data,
            FittedG.load(g),
            mash_kwargs={
                "outputlevel": outputlevel, "output_lfdr": output_lfdr, "seed": seed,
                "posterior_samples": posterior_samples,
            },
        )  # fmt: skip
        written = write_result(result, out_, overwrite, "apply", {"seed": seed})
    say(quiet, result.summary())
    say(quiet, f"written: {', '.join(written)}")


@app.command()
def onebyone(
    out_: Annotated[str, typer.Option("--out", help="Prefix of <out>.npz and <out>.json, or a "
                                      ".zarr store.", rich_help_panel=OUTPUT)],
    bhat: options.Bhat = None,
    shat: options.Shat = None,
    effects: options.EffectsStore = None,
    v: options.V = None,
    conditions: options.Conditions = None,
    alpha: options.Alpha = 0.0,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
    overwrite: options.Overwrite = False,
) -> None:  # fmt: skip
    """Analyse every condition by itself: the screen for strong effects.

    Example: plait mash onebyone --bhat demo/bhat.csv --shat demo/shat.csv --out screen

    More: docs/mash.md
    """
    from plait.mash import mash_1by1

    check_target(out_, overwrite)
    with session(threads, quiet):
        data = load_data(
            bhat, shat, effects, v, alpha=alpha, conditions=conditions, quiet=quiet
        )  # fmt: skip
        result = mash_1by1(data)
        written = write_result(result, out_, overwrite, "onebyone", {})
    say(quiet, result.summary())
    say(quiet, f"written: {', '.join(written)}")


@app.command("estimate-null-corr-simple")
def estimate_null_corr_simple(
    out_: Annotated[Path, typer.Option("--out", help="An .npy file.", rich_help_panel=OUTPUT)],
    bhat: options.Bhat = None,
    shat: options.Shat = None,
    effects: options.EffectsStore = None,
    conditions: options.Conditions = None,
    alpha: options.Alpha = 0.0,
    z_thresh: Annotated[
        float, _model("Effects with all |z| below this count as null.")
    ] = 2.0,
    est_cov: Annotated[
        bool, typer.Option("--est-cov", help="Write the covariance of z-scores instead.",
                           rich_help_panel=OUTPUT)
    ] = False,
    method: Annotated[
        str, _model("simple (as in R; shrunk by the selection), or truncated_ml (not).")
    ] = "simple",
    threads: options.Threads = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
    overwrite: options.Overwrite = False,
) -> None:  # fmt: skip
    """Estimate the correlation of the errors from effects without a large z-score.

    Example: plait mash estimate-null-corr-simple --bhat demo/bhat.csv --shat demo/shat.csv
    --out vhat.npy

    More: docs/mash.md
    """
    from plait.io import check_writable
    from plait.mash import estimate_null_correlation_simple

    check_suffix(out_, ".npy")
    check_writable(out_, overwrite)
    with session(threads, quiet):
        data = load_data(bhat, shat, effects, None, alpha=alpha, conditions=conditions, quiet=quiet)
        V = estimate_null_correlation_simple(
            data, z_thresh=z_thresh, est_cor=not est_cov, method=method
        )
        write_arrays(out_, {"V": V}, overwrite)
    _show_matrix(quiet, V, data.condition_names)
    say(quiet, f"written: {out_}")


@app.command("estimate-null-corr-em")
def estimate_null_corr_em(
    out_: Annotated[Path, typer.Option("--out", help="An .npy file.", rich_help_panel=OUTPUT)],
    bhat: options.Bhat = None,
    shat: options.Shat = None,
    effects: options.EffectsStore = None,
    conditions: options.Conditions = None,
    alpha: options.Alpha = 0.0,
    ulist: options.Ulist = None,
    cov_methods: Annotated[
        str, _model("Canonical covariances.")
    ] = "identity,singletons,equal_effects,simple_het",
    max_iterations: Annotated[int, _model("EM iterations at most.")] = 30,
    tolerance: Annotated[float, _model("Stop below this gain in log-likelihood.")] = 1.0,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
    overwrite: options.Overwrite = False,
) -> None:  # fmt: skip
    """Estimate the correlation of the errors by EM, using the sharing that mash learns.

    Example: plait mash estimate-null-corr-em --bhat demo/bhat.csv --shat demo/shat.csv
    --out vhat_em.npy

    More: docs/mash.md
    """
    from plait.io import check_writable
    from plait.mash import mash_estimate_corr_em

    check_suffix(out_, ".npy")
    check_writable(out_, overwrite)
    with session(threads, quiet):
        data = load_data(bhat, shat, effects, None, alpha=alpha, conditions=conditions, quiet=quiet)
        announce_compilation(quiet)
        V = mash_estimate_corr_em(
            data, _covariances(data, ulist, cov_methods), max_iter=max_iterations, tol=tolerance,
            details=False,
        )  # fmt: skip
        write_arrays(out_, {"V": V}, overwrite)
    _show_matrix(quiet, V, data.condition_names)
    say(quiet, f"written: {out_}")


Strong = Annotated[
    float,
    typer.Option(help="Learn from effects with lfsr below this in a one-by-one screen (1: all).",
                 rich_help_panel=MODEL),
]  # fmt: skip


def _strong_rows(data: "MashData", threshold: float) -> Any:
    from plait.mash import get_significant_results, mash_1by1

    if threshold >= 1:
        return None
    rows = get_significant_results(mash_1by1(data), thresh=threshold)
    if len(rows) == 0:
        raise OptionError(f"no effect has lfsr below {threshold:g}: raise --strong.")
    return rows


@app.command()
def pca(
    out_: Annotated[Path, typer.Option("--out", help="An .npz file of covariances.",
                                       rich_help_panel=OUTPUT)],
    npc: Annotated[int, _model("Principal components.")] = 5,
    strong: Strong = 0.05,
    bhat: options.Bhat = None,
    shat: options.Shat = None,
    effects: options.EffectsStore = None,
    v: options.V = None,
    conditions: options.Conditions = None,
    alpha: options.Alpha = 0.0,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
    overwrite: options.Overwrite = False,
) -> None:  # fmt: skip
    """Learn covariances from the principal components of strong effects.

    Example: plait mash pca --bhat demo/bhat.csv --shat demo/shat.csv --npc 3 --out pca.npz

    More: docs/mash.md
    """
    from plait.io import check_writable
    from plait.mash import cov_pca

    check_suffix(out_, ".npz")
    check_writable(out_, overwrite)
    with session(threads, quiet):
        data = load_data(bhat, shat, effects, v, alpha=alpha, conditions=conditions, quiet=quiet)
        found = cov_pca(data, npc, _strong_rows(data, strong))
        write_arrays(out_, dict(found), overwrite)
    say(quiet, f"written: {out_} ({', '.join(found)})")


@app.command()
def ed(
    ulist: Annotated[Path, typer.Option(help="Starting covariances, for example of pca.",
                                        rich_help_panel=MODEL)],
    out_: Annotated[Path, typer.Option("--out", help="An .npz file of covariances.",
                                       rich_help_panel=OUTPUT)],
    strong: Strong = 0.05,
    algorithm: Annotated[str, _model("bovy or teem.")] = "bovy",
    bhat: options.Bhat = None,
    shat: options.Shat = None,
    effects: options.EffectsStore = None,
    v: options.V = None,
    conditions: options.Conditions = None,
    alpha: options.Alpha = 0.0,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
    overwrite: options.Overwrite = False,
) -> None:  # fmt: skip
    """Refine covariances by extreme deconvolution of strong effects.

    Example: plait mash ed --bhat demo/bhat.csv --shat demo/shat.csv --ulist pca.npz --out ed.npz

    More: docs/mash.md
    """
    from plait.io import check_writable, read_covariances
    from plait.mash import cov_ed

    check_suffix(out_, ".npz")
    check_writable(out_, overwrite)
    with session(threads, quiet):
        data = load_data(bhat, shat, effects, v, alpha=alpha, conditions=conditions, quiet=quiet)
        starts = read_covariances(ulist, data.n_conditions)
        rows = _strong_rows(data, strong)
        announce_compilation(quiet)
        found = cov_ed(data, starts, subset=rows, algorithm=algorithm)
        write_arrays(out_, dict(found), overwrite)
    say(quiet, f"written: {out_} ({', '.join(found)})")


ResultFile = Annotated[
    str, typer.Argument(help="A result: the npz of fit, or a .zarr store.", show_default=False)
]


def _read_result(path: str) -> "MashResult":
    from plait.cli.results import read_result

    return read_result(path)


@app.command()
def sharing(
    result: ResultFile,
    out_: Annotated[
        Path | None, typer.Option("--out", help="A .csv, .png, .pdf or .svg file.",
                                  rich_help_panel=OUTPUT)
    ] = None,
    factor: Annotated[
        float, _model("Similar: ratio between this and its inverse (0: same sign).")
    ] = 0.5,
    lfsr_thresh: Annotated[float, _model("Effects significant in either condition.")] = 0.05,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
    overwrite: options.Overwrite = False,
) -> None:  # fmt: skip
    """Show how often conditions share their effects.

    Example: plait mash sharing my_result.npz --out sharing.png

    More: docs/mash.md
    """
    from plait.cli.results import save_figure, write_matrix_csv
    from plait.io import check_writable
    from plait.mash import get_pairwise_sharing, plot_sharing

    if out_ is not None:
        check_suffix(out_, ".csv", ".png", ".pdf", ".svg")
        check_writable(out_, overwrite)
    with session(None, quiet):
        loaded = _read_result(result)
        matrix = get_pairwise_sharing(loaded, factor, lfsr_thresh)
        if out_ is not None and out_.suffix == ".csv":
            write_matrix_csv(out_, matrix, loaded.condition_names, overwrite)
        elif out_ is not None:
            save_figure(out_, plot_sharing(loaded, factor, lfsr_thresh), overwrite)
    _show_matrix(quiet, matrix, loaded.condition_names)
    if out_ is not None:
        say(quiet, f"written: {out_}")


@app.command("plot-meta")
def plot_meta(
    result: ResultFile,
    effect: Annotated[str, typer.Option(help="Row number from 0, or name, of the effect.",
                                        rich_help_panel=options.INPUT)],
    out_: Annotated[Path, typer.Option("--out", help="A .png, .pdf or .svg file.",
                                       rich_help_panel=OUTPUT)],
    quiet: options.Quiet = False,
    debug: options.Debug = False,
    overwrite: options.Overwrite = False,
) -> None:  # fmt: skip
    """Draw a forest plot of one effect.

    Example: plait mash plot-meta my_result.npz --effect 0 --out effect.png

    More: docs/mash.md
    """
    from plait.cli.results import save_figure
    from plait.io import check_writable
    from plait.mash import mash_plot_meta

    check_suffix(out_, ".png", ".pdf", ".svg")
    check_writable(out_, overwrite)
    with session(None, quiet):
        loaded = _read_result(result)
        names = loaded.effect_names
        known = names is not None and effect in names
        row: int | str = int(effect) if effect.isdigit() and not known else effect
        save_figure(out_, mash_plot_meta(loaded, row), overwrite)
    say(quiet, f"written: {out_}")


def _show_matrix(quiet: bool, matrix: Any, names: Any) -> None:
    if quiet:
        return
    from rich.table import Table

    labels = [str(i + 1) for i in range(len(matrix))] if names is None else list(names)
    if len(labels) > 12:
        return
    table = Table(box=None, pad_edge=False)
    for label in ["", *labels]:
        table.add_column(label, justify="right")
    for label, row in zip(labels, matrix, strict=True):
        table.add_row(label, *(f"{value:.2f}" for value in row))
    out.print(table)
