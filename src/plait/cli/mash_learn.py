"""The commands that learn matrices: covariances of effects, and the correlation of errors."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plait.cli import options
from plait.cli.console import announce_compilation, say, session, workers_of
from plait.cli.inputs import in_memory, load_covariances, load_data, refuse_idle, strong_data
from plait.cli.mash_show import show_matrix
from plait.cli.options import INPUT, MODEL, OUTPUT
from plait.cli.outputs import check_file, write_covariances, write_matrix
from plait.cli.records import beside, write_record
from plait.data.words import counted

if TYPE_CHECKING:
    from plait.mash.data import MashData
    from plait.mash.stored import StoredData

MATRICES = (".npy", ".csv", ".tsv")
_EM_EFFECTS = 100_000

UlistOut = Annotated[
    Path,
    typer.Option(
        "--out",
        metavar="FILE.npz",
        help="Covariance matrices, for --ulist.",
        rich_help_panel=OUTPUT,
    ),
]
MatrixOut = Annotated[
    Path,
    typer.Option(
        "--out",
        metavar="FILE",
        help="The matrix, for --v: .npy, or .csv or .tsv with the names of the conditions.",
        rich_help_panel=OUTPUT,
    ),
]


def pca(
    out: UlistOut,
    bhat: options.Bhat = None,
    shat: options.Shat = None,
    effects: options.EffectsStore = None,
    conditions: options.Conditions = None,
    v: options.V = None,
    missing: options.MissingCells = None,
    strong: options.Strong = None,
    all_effects: options.AllEffects = False,
    level: options.Level = 0.05,
    alpha: options.Alpha = 0.0,
    npc: options.Npc = None,
    overwrite: options.Overwrite = False,
    threads: options.Threads = None,
    memory: options.Memory = None,
    dask: options.Dask = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Learn covariance matrices from the principal components of the strong effects."""
    check_file(out, (".npz",), overwrite)
    with session(threads, quiet, debug), workers_of(dask, memory, threads) as workers:
        data = load_data(
            bhat, shat, effects, v, alpha=alpha, conditions=conditions, missing=missing,
            quiet=quiet, workers=workers,
        )  # fmt: skip
        chosen = strong_data(data, strong, all_effects, level, quiet, workers)
        found = _components(chosen, npc)
        write_covariances(out, found, overwrite)
    _tell(quiet, out, chosen, len(found))


def ed(
    out: UlistOut,
    bhat: options.Bhat = None,
    shat: options.Shat = None,
    effects: options.EffectsStore = None,
    conditions: options.Conditions = None,
    v: options.V = None,
    missing: options.MissingCells = None,
    strong: options.Strong = None,
    all_effects: options.AllEffects = False,
    level: options.Level = 0.05,
    ulist: Annotated[
        Path | None,
        typer.Option(
            "--ulist",
            metavar="FILE",
            show_default="principal components",
            help="Covariance matrices to start from, for example from 'plait mash pca'.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    alpha: options.Alpha = 0.0,
    npc: options.Npc = None,
    algorithm: Annotated[
        options.Algorithm, typer.Option("--algorithm", rich_help_panel=MODEL)
    ] = options.Algorithm.BOVY,
    tolerance: Annotated[
        float,
        typer.Option(
            "--tolerance",
            help="Stop when the average log-likelihood gains less (bovy).",
            rich_help_panel=MODEL,
        ),
    ] = 1e-6,
    max_iterations: Annotated[
        int | None,
        typer.Option(
            "--max-iterations",
            show_default="none; 5000 with teem",
            help="Largest number of iterations.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    threads: options.Threads = None,
    memory: options.Memory = None,
    dask: options.Dask = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Refine covariance matrices by extreme deconvolution of the strong effects.

    10 % of their mean variance is added to the diagonal of those to start from, and 5 % to what is
    learned: from patterns of rank 1 small effects would look certain.
    """
    check_file(out, (".npz",), overwrite)
    refuse_idle(("npc",), ulist is not None, "with --ulist")
    with session(threads, quiet, debug), workers_of(dask, memory, threads) as workers:
        from plait.io import read_covariances
        from plait.mash import cov_ed
        from plait.mash.covariances import START_LIFT, lift_cov

        data = load_data(
            bhat, shat, effects, v, alpha=alpha, conditions=conditions, missing=missing,
            quiet=quiet, workers=workers,
        )  # fmt: skip
        chosen = strong_data(data, strong, all_effects, level, quiet, workers)
        if ulist is None:
            start = _components(chosen, npc)
        else:
            start = read_covariances(ulist, data.n_conditions)
        announce_compilation(quiet)
        limit: dict[str, Any] = {} if max_iterations is None else {"maxiter": max_iterations}
        fit = cov_ed(
            chosen, lift_cov(start, START_LIFT), algorithm=str(algorithm), tol=tolerance,
            details=True, **limit,
        )  # fmt: skip
        write_covariances(out, lift_cov(fit["Ulist"]), overwrite)
        state = "converged" if fit["converged"] else "stopped before it converged"
        say(quiet, f"extreme deconvolution {state} after {counted(fit['niter'], 'iteration')}")
    _tell(quiet, out, chosen, len(fit["Ulist"]), converged=fit["converged"])


def ud(
    out: UlistOut,
    bhat: options.Bhat = None,
    shat: options.Shat = None,
    effects: options.EffectsStore = None,
    conditions: options.Conditions = None,
    v: options.V = None,
    missing: options.MissingCells = None,
    strong: options.Strong = None,
    all_effects: options.AllEffects = False,
    level: options.Level = 0.05,
    alpha: options.Alpha = 0.0,
    n_rank1: Annotated[
        int,
        typer.Option(min=0, help="Matrices of rank 1 to learn.", rich_help_panel=MODEL),
    ] = 0,
    n_unconstrained: Annotated[
        int,
        typer.Option(min=0, help="Matrices of any rank to learn.", rich_help_panel=MODEL),
    ] = 8,
    max_iterations: Annotated[
        int, typer.Option(min=1, help="Largest number of iterations.", rich_help_panel=MODEL)
    ] = 20,
    overwrite: options.Overwrite = False,
    seed: options.Seed = 123,
    threads: options.Threads = None,
    memory: options.Memory = None,
    dask: options.Dask = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Learn scaled, rank-1 and free covariance matrices of the strong effects together."""
    check_file(out, (".npz",), overwrite)
    with session(threads, quiet, debug), workers_of(dask, memory, threads) as workers:
        from plait.mash import cov_ud

        data = load_data(
            bhat, shat, effects, v, alpha=alpha, conditions=conditions, missing=missing,
            quiet=quiet, workers=workers,
        )  # fmt: skip
        chosen = strong_data(data, strong, all_effects, level, quiet, workers)
        announce_compilation(quiet)
        found = cov_ud(
            chosen,
            n_rank1=n_rank1,
            n_unconstrained=n_unconstrained,
            maxiter=max_iterations,
            seed=seed,
        )
        write_covariances(out, found, overwrite)
    _tell(quiet, out, chosen, len(found))


def _tell(quiet: bool, out: Path, chosen: "MashData", n_matrices: int, **found: Any) -> None:
    """Record what was learned, and say where it is."""
    write_record(beside(out), {"effects": chosen.n_effects, "matrices": n_matrices}, **found)
    say(quiet, f"written: {out}")


def _components(data: "MashData", npc: int | None) -> dict[str, Any]:
    from plait.mash import cov_pca

    return cov_pca(data, min(5, data.n_conditions) if npc is None else npc)


def estimate_null_corr_simple(
    out: MatrixOut,
    bhat: options.Bhat = None,
    shat: options.Shat = None,
    effects: options.EffectsStore = None,
    conditions: options.Conditions = None,
    missing: options.MissingCells = None,
    alpha: options.Alpha = 0.0,
    z_thresh: Annotated[
        float,
        typer.Option(help="Effects with all |z| below this count as null.", rich_help_panel=MODEL),
    ] = 2.0,
    method: Annotated[
        options.NullMethod,
        typer.Option(
            help="simple: as R, shrunk by leaving out large z-scores; truncated_ml undoes that.",
            rich_help_panel=MODEL,
        ),
    ] = options.NullMethod.SIMPLE,
    on_insufficient_null: Annotated[
        options.TooFewNulls,
        typer.Option(
            help="With fewer null effects than conditions: stop, no correlation, or use all.",
            rich_help_panel=MODEL,
        ),
    ] = options.TooFewNulls.ERROR,
    est_cov: Annotated[
        bool,
        typer.Option(
            "--est-cov", help="Write the covariance of the z-scores.", rich_help_panel=OUTPUT
        ),
    ] = False,
    overwrite: options.Overwrite = False,
    threads: options.Threads = None,
    memory: options.Memory = None,
    dask: options.Dask = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Estimate the correlation of the errors from the effects without a large z-score."""
    check_file(out, MATRICES, overwrite)
    with session(threads, quiet, debug), workers_of(dask, memory, threads) as workers:
        from plait.mash import estimate_null_correlation_simple

        data = load_data(
            bhat, shat, effects, None, alpha=alpha, conditions=conditions, missing=missing,
            quiet=quiet, workers=workers,
        )  # fmt: skip
        V = estimate_null_correlation_simple(
            data,
            z_thresh=z_thresh,
            est_cor=not est_cov,
            on_insufficient_null=str(on_insufficient_null),
            method=str(method),
            **workers,
        )
        write_matrix(out, V, data.condition_names, overwrite)
    write_record(beside(out), {"effects": data.n_effects})
    show_matrix(quiet, V, data.condition_names)
    say(quiet, f"written: {out}")


def _for_em(data: "MashData | StoredData", memory: str | None, quiet: bool) -> "MashData":
    """Return the data that EM runs on: those of a large store are represented by a sample."""
    from plait.mash import StoredData, select_training_effects

    if not isinstance(data, StoredData) or data.n_effects <= _EM_EFFECTS:
        return in_memory(data, memory)
    say(quiet, f"learning from {_EM_EFFECTS:,} random effects")
    return data.read(select_training_effects(data, _EM_EFFECTS))


def estimate_null_corr_em(
    out: MatrixOut,
    bhat: options.Bhat = None,
    shat: options.Shat = None,
    effects: options.EffectsStore = None,
    conditions: options.Conditions = None,
    missing: options.MissingCells = None,
    alpha: options.Alpha = 0.0,
    ulist: options.Ulist = None,
    cov_methods: options.CovMethods = None,
    max_iterations: Annotated[
        int, typer.Option(min=1, help="Largest number of iterations.", rich_help_panel=MODEL)
    ] = 30,
    tolerance: Annotated[
        float,
        typer.Option(help="Stop when the log-likelihood gains less.", rich_help_panel=MODEL),
    ] = 1.0,
    est_cov: Annotated[
        bool,
        typer.Option("--est-cov", help="Write the covariance of errors.", rich_help_panel=OUTPUT),
    ] = False,
    overwrite: options.Overwrite = False,
    threads: options.Threads = None,
    memory: options.Memory = None,
    dask: options.Dask = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Estimate the correlation of the errors by EM, together with how effects are shared."""
    check_file(out, MATRICES, overwrite)
    with session(threads, quiet, debug), workers_of(dask, memory, threads) as workers:
        from plait.mash import mash_estimate_corr_em

        data = load_data(
            bhat, shat, effects, None, alpha=alpha, conditions=conditions, missing=missing,
            quiet=quiet, workers=workers,
        )  # fmt: skip
        matrices = load_covariances(data, ulist, cov_methods)
        announce_compilation(quiet)
        fit: Any = mash_estimate_corr_em(
            _for_em(data, memory, quiet),
            matrices,
            max_iter=max_iterations,
            tol=tolerance,
            est_cor=not est_cov,
        )
        write_matrix(out, fit.V, data.condition_names, overwrite)
    write_record(beside(out), {"effects": data.n_effects}, loglik=fit.loglik)
    show_matrix(quiet, fit.V, data.condition_names)
    say(quiet, f"log-likelihood {fit.loglik[0]:,.1f} → {fit.loglik[-1]:,.1f}\nwritten: {out}")
