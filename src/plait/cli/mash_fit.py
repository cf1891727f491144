"""The commands that fit: ``plait mash fit``, ``apply`` and ``onebyone``."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plait.cli import options
from plait.cli.console import announce_compilation, say, session, workers_of
from plait.cli.inputs import in_memory, load_covariances, load_data, refuse_idle, split_numbers
from plait.cli.options import MODEL
from plait.cli.outputs import check_target, is_store, write_result
from plait.cli.records import beside, write_record

if TYPE_CHECKING:
    from plait.mash.data import MashData
    from plait.mash.results import MashResult
    from plait.mash.stored import StoredData


def fit(
    out: options.OutPrefix,
    bhat: options.Bhat = None,
    shat: options.Shat = None,
    effects: options.EffectsStore = None,
    conditions: options.Conditions = None,
    v: options.V = None,
    missing: options.MissingCells = None,
    zero_shat_reset: options.ZeroShat = 0.0,
    zero_bhat_shat_reset: options.ZeroBoth = 0.0,
    alpha: options.Alpha = 0.0,
    ulist: options.Ulist = None,
    cov_methods: options.CovMethods = None,
    grid: options.Grid = None,
    gridmult: options.Gridmult = 2**0.5,
    no_normalize_u: options.NoNormalizeU = False,
    no_pointmass: options.NoPointmass = False,
    prior: options.PriorOfWeights = options.Prior.NULLBIASED,
    nullweight: options.Nullweight = 10.0,
    optmethod: options.Optmethod = options.Optimiser.MIXSQP,
    pi_thresh: options.PiThresh = 1e-10,
    posterior_samples: options.PosteriorSamples = 0,
    outputlevel: options.OutputLevel = 2,
    output_lfdr: options.OutputLfdr = False,
    overwrite: options.Overwrite = False,
    chunk_size: options.ChunkSize = 250_000,
    train_size: options.TrainSize = None,
    select_method: options.SelectMethod = options.Selection.TOPZ_RANDOM,
    background_fraction: options.BackgroundFraction = 0.2,
    weighting: options.Weights = options.Weighting.INCLUSION,
    seed: options.Seed = 123,
    threads: options.Threads = None,
    memory: options.Memory = None,
    dask: options.Dask = None,
    log_json: options.LogJson = False,
    device: options.Device = options.Devices.CPU,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Learn from all effects how they are shared, and write what that says about each of them."""
    check_target(out, overwrite, effects)
    refuse_idle(("gridmult",), grid is not None, "with --grid")
    refuse_idle(("nullweight",), prior is options.Prior.UNIFORM, "with --prior uniform")
    model: dict[str, Any] = {
        "grid": split_numbers(grid, "--grid"),
        "gridmult": gridmult,
        "normalizeU": not no_normalize_u,
        "usepointmass": not no_pointmass,
        "prior": str(prior),
        "nullweight": nullweight,
        "optmethod": str(optmethod),
    }
    outputs: dict[str, Any] = {
        "pi_thresh": pi_thresh,
        "posterior_samples": posterior_samples,
        "seed": seed,
        "outputlevel": outputlevel,
        "output_lfdr": output_lfdr,
        "device": str(device),
    }
    selection: dict[str, Any] = {
        "select_method": str(select_method),
        "background_fraction": background_fraction,
        "weighting": str(weighting),
    }
    with (
        session(threads, quiet, debug, log_json),
        workers_of(dask, memory, threads) as workers,
    ):
        data = load_data(
            bhat, shat, effects, v, alpha=alpha, conditions=conditions, missing=missing,
            zero_shat_reset=zero_shat_reset, zero_bhat_shat_reset=zero_bhat_shat_reset,
            quiet=quiet, workers=workers,
        )  # fmt: skip
        matrices = load_covariances(data, ulist, cov_methods)
        announce_compilation(quiet)
        is_large = 0 < chunk_size < data.n_effects and outputlevel <= 2 and not posterior_samples
        trained_on = None
        if train_size is not None or is_large:
            trained_on = chunk_size if train_size is None else train_size
        if trained_on is not None and _by_blocks(data, out, outputs):
            place = {"out": out, "overwrite": overwrite, **workers}
            result, written = (
                _fit(data, matrices, trained_on, selection, model, outputs, place),
                [out],
            )
        else:
            whole = in_memory(data, memory)
            result = _fit(whole, matrices, trained_on, selection, model, outputs, {})
            if is_large:
                result = replace(result, posterior_weights=None, component_index=None)
            about: dict[str, Any] = {"seed": seed, "train_size": trained_on or data.n_effects}
            chosen = selection if trained_on is not None else dict.fromkeys(selection)
            written = write_result(result, out, overwrite, "fit", about | chosen)
    _tell(quiet, result, out, written)


def _by_blocks(data: "MashData | StoredData", out: str, outputs: dict[str, Any]) -> bool:
    """Tell whether a posterior can go from store to store, never being in memory whole."""
    from plait.mash import StoredData

    small = outputs["outputlevel"] <= 2 and not outputs["posterior_samples"]
    return isinstance(data, StoredData) and is_store(out) and small


def _fit(
    data: "MashData | StoredData",
    matrices: dict[str, Any],
    trained_on: int | None,
    selection: dict[str, Any],
    model: dict[str, Any],
    outputs: dict[str, Any],
    place: dict[str, Any],
) -> "MashResult":
    """Fit on all effects, or on some and apply to all, with ``place`` from store to store."""
    from plait.mash import mash, mash_train_apply

    if trained_on is None:
        return mash(in_memory(data), matrices, chunk_size=None, **model, **outputs)
    study = mash_train_apply(
        data,
        matrices,
        n_train=trained_on,
        select_seed=outputs["seed"],
        **selection,
        train_mash_kwargs=model | {name: outputs[name] for name in ("pi_thresh", "device")},
        apply_mash_kwargs=outputs,
        **place,
    )
    return replace(study.apply_result, optim=study.train_result.optim)


def _tell(quiet: bool, result: "MashResult", out: str, written: list[str]) -> None:
    """Record what was run, and say what was found and where it is."""
    write_record(beside(out.removesuffix(".npz")), {"effects": result.n_effects})
    say(quiet, result.summary())
    say(quiet, f"written: {' · '.join(written)}")


def apply(
    g: Annotated[
        Path,
        typer.Option(
            "--g",
            metavar="FILE",
            help="The prior: .npz of 'plait mash fit', or of FittedG.save.",
            rich_help_panel=MODEL,
        ),
    ],
    out: options.OutPrefix,
    bhat: options.Bhat = None,
    shat: options.Shat = None,
    effects: options.EffectsStore = None,
    conditions: options.Conditions = None,
    v: options.V = None,
    missing: options.MissingCells = None,
    zero_shat_reset: options.ZeroShat = 0.0,
    zero_bhat_shat_reset: options.ZeroBoth = 0.0,
    alpha: options.Alpha = 0.0,
    pi_thresh: options.PiThresh = 1e-10,
    posterior_samples: options.PosteriorSamples = 0,
    outputlevel: options.OutputLevel = 2,
    output_lfdr: options.OutputLfdr = False,
    overwrite: options.Overwrite = False,
    seed: options.Seed = 123,
    threads: options.Threads = None,
    memory: options.Memory = None,
    dask: options.Dask = None,
    log_json: options.LogJson = False,
    device: options.Device = options.Devices.CPU,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Compute the posterior of effects, old or new, under a prior that was fitted before."""
    check_target(out, overwrite, effects)
    with (
        session(threads, quiet, debug, log_json),
        workers_of(dask, memory, threads) as workers,
    ):
        from plait.mash import (
            FittedG,
            StoredData,
            apply_mash_prior,
            apply_mash_prior_to_store,
        )

        prior = FittedG.load(g)
        data = load_data(
            bhat, shat, effects, v, alpha=alpha, conditions=conditions, missing=missing,
            zero_shat_reset=zero_shat_reset, zero_bhat_shat_reset=zero_bhat_shat_reset,
            quiet=quiet, workers=workers,
        )  # fmt: skip
        announce_compilation(quiet)
        outputs = {
            "pi_thresh": pi_thresh,
            "posterior_samples": posterior_samples,
            "seed": seed,
            "outputlevel": outputlevel,
            "output_lfdr": output_lfdr,
            "device": str(device),
        }
        if isinstance(data, StoredData) and _by_blocks(data, out, outputs):
            result = apply_mash_prior_to_store(
                data, prior, out, mash_kwargs=outputs, overwrite=overwrite, **workers
            )
            written = [out]
        else:
            result = apply_mash_prior(in_memory(data, memory), prior, mash_kwargs=outputs)
            written = write_result(result, out, overwrite, "apply", {"seed": seed, "g": str(g)})
    _tell(quiet, result, out, written)


def onebyone(
    out: options.OutPrefix,
    bhat: options.Bhat = None,
    shat: options.Shat = None,
    effects: options.EffectsStore = None,
    conditions: options.Conditions = None,
    v: options.V = None,
    missing: options.MissingCells = None,
    zero_shat_reset: options.ZeroShat = 0.0,
    zero_bhat_shat_reset: options.ZeroBoth = 0.0,
    alpha: options.Alpha = 0.0,
    overwrite: options.Overwrite = False,
    threads: options.Threads = None,
    memory: options.Memory = None,
    dask: options.Dask = None,
    log_json: options.LogJson = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Analyse every condition by itself: the screen that finds strong effects, not the result."""
    check_target(out, overwrite, effects)
    with (
        session(threads, quiet, debug, log_json),
        workers_of(dask, memory, threads) as workers,
    ):
        from plait.mash import mash_1by1

        data = load_data(
            bhat, shat, effects, v, alpha=alpha, conditions=conditions, missing=missing,
            zero_shat_reset=zero_shat_reset, zero_bhat_shat_reset=zero_bhat_shat_reset,
            quiet=quiet, workers=workers,
        )  # fmt: skip
        result = mash_1by1(in_memory(data, memory))
        written = write_result(result, out, overwrite, "onebyone", {})
    _tell(quiet, result, out, written)
