"""Large studies: fit the prior on a subset, apply it to everything, in chunks if need be."""

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import ModelWarning, OptionError
from plait.execution.executors import Workforce, workforce
from plait.execution.grains import GRAIN, sum_in_order
from plait.execution.threads import use_threads
from plait.io.store import check_store_writable
from plait.mash.data import MashData, part_of
from plait.mash.grid import autoselect_grid
from plait.mash.model import mash
from plait.mash.posterior import Request, apply_mixture, output_map
from plait.mash.results import (
    ChunkedApplyResult,
    FittedG,
    MashResult,
    TrainApplyResult,
    as_components,
    as_prior,
    check_prior_width,
)
from plait.mash.selection import select_effects
from plait.mash.stored import StoredData
from plait.mash.stored_apply import apply_to_store

Array = NDArray[np.float64]
Rows = NDArray[np.intp]


def fit_mash_prior(
    data: MashData | StoredData,
    Ulist: Any,
    *,
    train_indices: Sequence[int] | Rows | None = None,
    n_train: int | None = None,
    select_method: str = "random",
    select_seed: int = 123,
    background_fraction: float = 0.2,
    weighting: str = "inclusion",
    train_weights: ArrayLike | None = None,
    mash_kwargs: Mapping[str, Any] | None = None,
    force: Workforce | None = None,
) -> tuple[FittedG, Rows, MashResult]:
    """Fit the mash prior on a subset of the effects.

    Parameters
    ----------
    data : MashData or StoredData
        All effects; the grid is chosen on all of them.
    Ulist : dict or list of (R, R) arrays
    train_indices : sequence of int, optional
        The effects to fit on; otherwise ``n_train`` are selected, see `select_training_effects`.
    n_train, select_method, select_seed, background_fraction
        The selection.
    weighting : {"inclusion", "none"}
        Weight ``"topz_random"`` effects by their inverse inclusion probability, so that the
        fit stands for all effects. ``"none"`` over-weights strong effects.
    train_weights : array, optional
        Weights of ``train_indices``.
    mash_kwargs : mapping, optional
        Further arguments of `mash`.
    force : Workforce, optional
        Who looks through data in a store.

    Returns
    -------
    FittedG, row numbers, MashResult
        The result has outputlevel 1.
    """
    if weighting not in ("inclusion", "none"):
        raise OptionError(f"weighting is {weighting!r}; choose 'inclusion' or 'none'.")
    weights = None
    if train_indices is not None:
        rows: Rows = np.asarray(train_indices, dtype=np.intp)
        weights = None if train_weights is None else np.asarray(train_weights, dtype=np.float64)
    elif n_train is not None:
        chosen = select_effects(
            data, n_train, select_method, select_seed, background_fraction, force
        )
        rows = chosen.rows
        if select_method == "topz_random" and weighting == "inclusion":
            weights = chosen.inclusion_weights()
        elif select_method == "topz_random" and n_train < data.n_effects:
            warnings.warn(
                "strong effects were selected and not weighted: the weight of the null will be too "
                "small and lfsr too optimistic.",
                ModelWarning,
                stacklevel=2,
            )
    else:
        raise OptionError("give n_train, or train_indices.")
    options = {"outputlevel": 1, **dict(mash_kwargs or {})} | {"outputlevel": 1, "chunk_size": None}
    if options.get("grid") is None and options.get("g") is None:
        options["grid"] = autoselect_grid(data, options.pop("gridmult", float(np.sqrt(2.0))))
    subset = data.read(rows) if isinstance(data, StoredData) else part_of(data, rows)
    result = mash(subset, Ulist, weights=weights, **options)
    return as_prior(result), rows, result


_APPLY_OPTIONS = {
    "outputlevel",
    "output_lfdr",
    "A",
    "pi_thresh",
    "posterior_samples",
    "seed",
    "n_jobs",
    "verbose",
    "device",
}


def _apply_options(mash_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    options = dict(mash_kwargs or {})
    for name in ("g", "fixg"):
        if name in options:
            raise OptionError(
                f"{name} cannot be given in mash_kwargs: the fitted prior is applied."
            )
    return options


def apply_mash_prior(
    data: MashData,
    fitted_g: FittedG | MashResult,
    *,
    chunk_size: int = 250_000,
    mash_kwargs: Mapping[str, Any] | None = None,
) -> MashResult:
    """Compute the posterior of all effects under a fitted prior: ``mash(..., g=, fixg=True)``."""
    options = _apply_options(mash_kwargs)
    return mash(data, g=fitted_g, fixg=True, chunk_size=chunk_size, **options)


def apply_mash_prior_chunked(
    data: MashData | StoredData,
    fitted_g: FittedG | MashResult,
    *,
    chunk_size: int = 250_000,
    mash_kwargs: Mapping[str, Any] | None = None,
    out_prefix: str | Path | None = None,
) -> ChunkedApplyResult:
    """Apply a fitted prior chunk by chunk, optionally straight into ``.npy`` files.

    `apply_mash_prior_to_store` does this into a store, with workers, and resumes.

    Parameters
    ----------
    data : MashData or StoredData
    fitted_g : FittedG or MashResult
    chunk_size : int
        Effects per chunk. Does not change the results; of data in a store, which are read chunk
        by chunk, it is rounded up to whole grains of 1024.
    mash_kwargs : mapping, optional
        ``outputlevel`` (1 or 2), ``output_lfdr``, ``A``, ``pi_thresh``, ``device``.
    out_prefix : path, optional
        Write ``<out_prefix>.<name>.npy`` and return memory maps.

    Returns
    -------
    ChunkedApplyResult
    """
    if chunk_size <= 0:
        raise OptionError(f"chunk_size is {chunk_size}; it must be positive.")
    options = _apply_options(mash_kwargs)
    level = _level_of(options)
    prior, components = as_components(fitted_g, data.alpha)
    check_prior_width(prior, data.n_conditions)
    request = Request(
        A=options.get("A"),
        posterior=level == 2,
        pi_thresh=options.get("pi_thresh", 1e-10),
        device=options.get("device", "cpu"),
    )
    first: Any = data
    if isinstance(data, StoredData):
        chunk_size = -(-chunk_size // GRAIN) * GRAIN
        first = data.read(slice(0, 1))
    mapping = output_map(first, request.A)
    width = data.n_conditions if mapping is None else len(mapping)
    shapes = _chunk_outputs(data.n_effects, width, level, prior.usepointmass)
    arrays, paths = _allocate(shapes, out_prefix, bool(options.get("output_lfdr")))
    targets = {("zero_prob" if name == "lfdr" else name): a for name, a in arrays.items()}
    starts = range(0, data.n_effects, chunk_size)
    for start in starts:
        rows = slice(start, min(start + chunk_size, data.n_effects))
        threads = options.get("n_jobs")
        if isinstance(data, StoredData):
            part, places = data.read(rows), {name: a[rows] for name, a in targets.items()}
            apply_mixture(part, components, prior.pi, request, out=places, threads=threads)
        else:
            apply_mixture(
                data, components, prior.pi, request, rows=rows, out=targets, threads=threads
            )
    for array in arrays.values():
        if isinstance(array, np.memmap):
            array.flush()
    return ChunkedApplyResult(
        arrays=arrays,
        output_paths=paths,
        loglik=sum_in_order(arrays["vloglik"]),
        n_effects=data.n_effects,
        n_conditions=width,
        chunk_size=chunk_size,
        n_chunks=len(starts),
        alpha=data.alpha,
        fitted_g=prior,
        condition_names=data.condition_names,
        effect_names=data.labels(slice(None))
        if isinstance(data, StoredData)
        else data.effect_names,
    )


def apply_mash_prior_to_store(
    data: StoredData,
    fitted_g: FittedG | MashResult,
    out: str | os.PathLike[str],
    *,
    mash_kwargs: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    executor: Any = None,
    memory: int | str | None = None,
    threads: int | None = None,
) -> MashResult:
    """Apply a fitted prior to all effects of a store, block by block, into another store.

    A run that was killed is taken up again by the same call: finished blocks are kept.

    Parameters
    ----------
    data : StoredData
        From `mash_open_data`.
    fitted_g : FittedG or MashResult
    out : str or path
        The store to make: a path or any fsspec URL that the workers can reach.
    mash_kwargs : mapping, optional
        ``outputlevel`` (1 or 2), ``output_lfdr``, ``A``, ``pi_thresh``, ``device``.
    overwrite, executor, memory, threads
        As in `mash_train_apply`.

    Returns
    -------
    MashResult
        Its arrays stay in the store.

    Raises
    ------
    OutputError
        ``out`` exists or cannot be written.
    CapacityError
        The budget is too small for even the smallest blocks.

    Notes
    -----
    Memory follows the budget. The same bits for any budget, threads and workers, killed or not.
    """
    check_store_writable(out, overwrite)
    return apply_to_store(
        data,
        fitted_g,
        out,
        force=workforce(executor, memory, threads),
        overwrite=overwrite,
        **_stored_options(mash_kwargs),
    )


def _level_of(options: Mapping[str, Any]) -> int:
    """Return the output level of work in blocks, refusing what it cannot give."""
    level = options.get("outputlevel", 2)
    if level not in (1, 2) or options.get("posterior_samples", 0):
        raise OptionError("applying in chunks gives outputlevel 1 or 2, without posterior samples.")
    unknown = sorted(set(options) - _APPLY_OPTIONS)
    if unknown:
        raise OptionError(
            f"mash_kwargs {', '.join(unknown)} cannot be used when a prior is applied."
        )
    return int(level)


def _chunk_outputs(
    n_effects: int, width: int, level: int, usepointmass: bool
) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"vloglik": (n_effects,)}
    if level == 2:
        for name in ("posterior_mean", "posterior_sd", "lfsr", "lfdr", "negative_prob"):
            shapes[name] = (n_effects, width)
    if usepointmass:
        shapes |= {"null_loglik": (n_effects,), "alt_loglik": (n_effects,)}
    return shapes


def _allocate(
    shapes: dict[str, tuple[int, ...]], out_prefix: str | Path | None, with_lfdr: bool
) -> tuple[dict[str, Any], dict[str, Path] | None]:
    if not with_lfdr:
        shapes.pop("lfdr", None)
    if out_prefix is None:
        return {name: np.empty(shape) for name, shape in shapes.items()}, None
    paths = {name: Path(f"{out_prefix}.{name}.npy") for name in shapes}
    next(iter(paths.values())).parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {
        name: np.lib.format.open_memmap(paths[name], "w+", np.float64, shape)
        for name, shape in shapes.items()
    }
    return arrays, paths


def mash_train_apply(
    data: MashData | StoredData,
    Ulist: Any,
    *,
    train_indices: Sequence[int] | Rows | None = None,
    n_train: int | None = None,
    select_method: str = "random",
    select_seed: int = 123,
    background_fraction: float = 0.2,
    weighting: str = "inclusion",
    train_mash_kwargs: Mapping[str, Any] | None = None,
    apply_chunk_size: int = 250_000,
    apply_mash_kwargs: Mapping[str, Any] | None = None,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    executor: Any = None,
    memory: int | str | None = None,
    threads: int | None = None,
) -> TrainApplyResult:
    """Fit the prior on a subset and apply it to all effects; see `fit_mash_prior`.

    Parameters
    ----------
    data : MashData or StoredData
        Data in a store (`mash_open_data`) are never loaded whole, and so need ``out``.
    Ulist, train_indices, n_train, select_method, select_seed, background_fraction, weighting
        As in `fit_mash_prior`.
    train_mash_kwargs, apply_mash_kwargs : mapping, optional
        Further arguments of `mash` in the two stages.
    apply_chunk_size : int
        Of data in memory. Does not change the results.
    out : str or path, optional
        The store to make of data in a store. A run that was killed is taken up again.
    overwrite : bool
        Whether a store that exists is replaced.
    executor : concurrent.futures.Executor or dask.distributed.Client, optional
        Who works on the blocks of a store. Default threads of this process.
    memory : int or str, optional
        Bytes, or text such as ``"2GB"``, for the blocks under way on one machine. Default half of
        what is free.
    threads : int, optional
        Default all cores.

    Returns
    -------
    TrainApplyResult
        ``train_indices``, ``train_result`` and ``apply_result``, whose arrays stay in the store
        when the data do.

    Raises
    ------
    OptionError
        Options conflict, or ``out`` is missing or not wanted.
    """
    stored = isinstance(data, StoredData)
    if stored is (out is None):
        raise OptionError(
            "data in a store need out, the store to make; data in memory take none "
            "(save the result with its save())."
        )
    target = out or ""
    force = workforce(executor, memory, threads)
    options = _stored_options(apply_mash_kwargs) if stored else {}
    if stored:
        check_store_writable(target, overwrite)
    with use_threads(threads):
        fitted_g, rows, trained = fit_mash_prior(
            data,
            Ulist,
            train_indices=train_indices,
            n_train=n_train,
            select_method=select_method,
            select_seed=select_seed,
            background_fraction=background_fraction,
            weighting=weighting,
            mash_kwargs=train_mash_kwargs,
            force=force,
        )
        if not isinstance(data, StoredData):
            applied = apply_mash_prior(
                data, fitted_g, chunk_size=apply_chunk_size, mash_kwargs=apply_mash_kwargs
            )
            return TrainApplyResult(rows, trained, applied)
    applied = apply_to_store(
        data,
        fitted_g,
        target,
        force=force,
        overwrite=overwrite,
        optim=trained.optim,
        about={
            "train_size": len(rows),
            "select_method": None if train_indices is not None else select_method,
            "weighting": weighting,
            "select_seed": select_seed,
        },
        **options,
    )
    return TrainApplyResult(rows, trained, applied)


def _stored_options(mash_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the arguments of `mash` that shape the posterior, as `apply_to_store` takes them."""
    options = _apply_options(mash_kwargs)
    level = _level_of(options)
    return {
        "request": Request(
            A=options.get("A"),
            posterior=level == 2,
            pi_thresh=options.get("pi_thresh", 1e-10),
            device=options.get("device", "cpu"),
        ),
        "output_lfdr": bool(options.get("output_lfdr")),
    }
