"""Large studies: fit the prior on a subset, apply it to everything, in chunks if need be."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import ModelWarning, OptionError
from plait.execution.grains import sum_in_order
from plait.mash.data import MashData, subset_mash_data
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

Array = NDArray[np.float64]
Rows = NDArray[np.intp]


def _strengths(data: MashData) -> Array:
    z = np.abs(data.Bhat) / np.maximum(data.Shat, np.finfo(np.float64).tiny)
    score: Array = np.where(np.isfinite(z), z, 0.0).max(axis=1)
    return score


def _strata(n_train: int, background_fraction: float) -> tuple[int, int]:
    background = round(background_fraction * n_train)
    return n_train - background, background


def select_training_effects(
    data: MashData,
    n_train: int,
    method: str = "random",
    seed: int = 123,
    background_fraction: float = 0.2,
) -> Rows:
    """Choose the effects on which the mixture weights are fitted.

    Parameters
    ----------
    data : MashData
    n_train : int
        1 to J.
    method : {"random", "topz_random"}
        All at random, or the largest ``max |z|`` and a random background.
    seed : int
    background_fraction : float
        Share of the background in ``"topz_random"``.

    Returns
    -------
    (n_train,) sorted array of row numbers
    """
    size = data.n_effects
    if not 0 < n_train <= size:
        raise OptionError(f"n_train is {n_train}; it must be from 1 to the {size} effects.")
    if not 0 <= background_fraction <= 1:
        raise OptionError(f"background_fraction is {background_fraction:g}; it must be in [0, 1].")
    random = np.random.default_rng(seed)
    if method == "random":
        return np.sort(random.choice(size, n_train, replace=False)).astype(np.intp)
    if method != "topz_random":
        raise OptionError(f"select_method {method!r} is unknown; choose 'random' or 'topz_random'.")
    n_top, n_background = _strata(n_train, background_fraction)
    order = np.argsort(-_strengths(data), kind="stable")
    background = random.choice(order[n_top:], n_background, replace=False)
    return np.sort(np.concatenate([order[:n_top], background])).astype(np.intp)


def inclusion_weights(
    data: MashData, rows: Rows, n_train: int, background_fraction: float
) -> Array:
    """Return inverse inclusion probabilities of a ``topz_random`` selection (spec 15.3).

    The strong stratum is complete (weight 1); a background effect stands for
    ``(J - n_top) / n_background`` effects.
    """
    n_top, n_background = _strata(n_train, background_fraction)
    if n_train >= data.n_effects:
        return np.ones(len(rows))
    if n_background == 0:
        raise OptionError(
            "background_fraction 0 leaves no background effects that could be weighted up: raise "
            "it, or use weighting='none' (biased towards effects that are not null)."
        )
    strong = np.zeros(data.n_effects, dtype=bool)
    strong[np.argsort(-_strengths(data), kind="stable")[:n_top]] = True
    return np.where(strong[rows], 1.0, (data.n_effects - n_top) / n_background)


def fit_mash_prior(
    data: MashData,
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
) -> tuple[FittedG, Rows, MashResult]:
    """Fit the mash prior on a subset of the effects.

    Parameters
    ----------
    data : MashData
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
        rows = select_training_effects(
            data, n_train, select_method, select_seed, background_fraction
        )
        if select_method == "topz_random" and weighting == "inclusion":
            weights = inclusion_weights(data, rows, n_train, background_fraction)
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
    result = mash(subset_mash_data(data, rows), Ulist, weights=weights, **options)
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
    data: MashData,
    fitted_g: FittedG | MashResult,
    *,
    chunk_size: int = 250_000,
    mash_kwargs: Mapping[str, Any] | None = None,
    out_prefix: str | Path | None = None,
) -> ChunkedApplyResult:
    """Apply a fitted prior chunk by chunk, optionally straight into ``.npy`` files.

    Parameters
    ----------
    data : MashData
    fitted_g : FittedG or MashResult
    chunk_size : int
        Effects per chunk. Does not change the results.
    mash_kwargs : mapping, optional
        ``outputlevel`` (1 or 2), ``output_lfdr``, ``A``, ``pi_thresh``.
    out_prefix : path, optional
        Write ``<out_prefix>.<name>.npy`` and return memory maps.

    Returns
    -------
    ChunkedApplyResult
    """
    if chunk_size <= 0:
        raise OptionError(f"chunk_size is {chunk_size}; it must be positive.")
    options = _apply_options(mash_kwargs)
    level = options.get("outputlevel", 2)
    if level not in (1, 2) or options.get("posterior_samples", 0):
        raise OptionError("applying in chunks gives outputlevel 1 or 2, without posterior samples.")
    unknown = sorted(set(options) - _APPLY_OPTIONS)
    if unknown:
        raise OptionError(
            f"mash_kwargs {', '.join(unknown)} cannot be used when a prior is applied."
        )
    prior, components = as_components(fitted_g, data.alpha)
    check_prior_width(prior, data.n_conditions)
    request = Request(
        A=options.get("A"), posterior=level == 2, pi_thresh=options.get("pi_thresh", 1e-10)
    )
    mapping = output_map(data, request.A)
    width = data.n_conditions if mapping is None else len(mapping)
    shapes = _chunk_outputs(data.n_effects, width, level, prior.usepointmass)
    arrays, paths = _allocate(shapes, out_prefix, bool(options.get("output_lfdr")))
    targets = {("zero_prob" if name == "lfdr" else name): a for name, a in arrays.items()}
    starts = range(0, data.n_effects, chunk_size)
    for start in starts:
        rows = slice(start, min(start + chunk_size, data.n_effects))
        apply_mixture(
            data,
            components,
            prior.pi,
            request,
            rows=rows,
            out=targets,
            threads=options.get("n_jobs"),
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
        effect_names=data.effect_names,
    )


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
    data: MashData,
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
) -> TrainApplyResult:
    """Fit the prior on a subset and apply it to all effects; see `fit_mash_prior`.

    Returns
    -------
    TrainApplyResult
        ``train_indices``, ``train_result`` and ``apply_result``.
    """
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
    )
    applied = apply_mash_prior(
        data, fitted_g, chunk_size=apply_chunk_size, mash_kwargs=apply_mash_kwargs
    )
    return TrainApplyResult(rows, trained, applied)
