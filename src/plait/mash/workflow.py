"""Large studies: fit the prior on a subset, apply it to everything, in chunks if need be."""

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import ModelWarning, OptionError
from plait.execution.executors import Workforce, workforce
from plait.execution.grains import GRAIN, sum_in_order
from plait.execution.threads import resolve_threads, use_threads
from plait.io.atomic import check_writable, replace_file
from plait.io.store import check_store_writable
from plait.mash.covariances import select_rows
from plait.mash.data import MashData, part_of
from plait.mash.grid import autoselect_grid
from plait.mash.likelihoods import Components
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
    executor: Any = None,
    memory: int | str | None = None,
    threads: int | None = None,
) -> tuple[FittedG, Rows, MashResult]:
    """Fit the mash prior on a subset of the effects.

    Parameters
    ----------
    data : MashData or StoredData
        All effects; the grid is chosen on all of them.
    Ulist : dict or list of (R, R) arrays
    train_indices : sequence of int, or one bool per effect, optional
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
    executor, memory, threads
        Who looks through data in a store, as in `mash_open_data`; ``threads`` are those of the fit
        too.

    Returns
    -------
    FittedG, row numbers, MashResult
        The result has outputlevel 1.

    Raises
    ------
    OptionError
        Options are out of range or conflict: the effects are given or selected, not both.
    InputError
        ``train_indices`` do not fit the data.

    Notes
    -----
    The effects that are fitted on are in memory, whatever ``memory`` says, as are their
    likelihoods under all components where these take at most 1 GiB.
    """
    force = workforce(executor, memory, threads) if isinstance(data, StoredData) else None
    choice = _Choice(
        train_indices, n_train, select_method, select_seed, background_fraction, weighting,
        train_weights,
    )  # fmt: skip
    with use_threads(resolve_threads(threads)):
        return _fit_prior(data, Ulist, choice, mash_kwargs, force)


@dataclass(frozen=True, eq=False)
class _Choice:
    """How the effects that the prior is fitted on are chosen; see `fit_mash_prior`."""

    train_indices: Any
    n_train: int | None
    select_method: str
    select_seed: int
    background_fraction: float
    weighting: str
    train_weights: ArrayLike | None = None

    def __post_init__(self) -> None:
        if self.weighting not in ("inclusion", "none"):
            raise OptionError(f"weighting is {self.weighting!r}; choose 'inclusion' or 'none'.")
        if (self.train_indices is None) == (self.n_train is None):
            raise OptionError("give either n_train or train_indices, and not both.")
        if self.train_weights is not None and self.train_indices is None:
            raise OptionError("train_weights are those of train_indices, which were not given.")

    def rows_of(
        self, data: MashData | StoredData, force: Workforce | None
    ) -> tuple[Rows, Array | None]:
        """Return the rows to fit on, and their weights."""
        if self.n_train is None:
            rows = select_rows(data, self.train_indices)
            if self.train_weights is None:
                return rows, None
            weights = np.asarray(self.train_weights, dtype=np.float64)
            if weights.shape != rows.shape:
                raise OptionError(
                    f"train_weights has shape {weights.shape}; {len(rows)} effects are fitted on."
                )
            return rows, weights
        chosen = select_effects(
            data,
            self.n_train,
            self.select_method,
            self.select_seed,
            self.background_fraction,
            force,
        )
        if self.select_method != "topz_random":
            return chosen.rows, None
        if self.weighting == "inclusion":
            return chosen.rows, chosen.inclusion_weights()
        if self.n_train < data.n_effects:
            warnings.warn(
                "strong effects were selected and not weighted: the weight of the null will be too "
                "small and lfsr too optimistic.",
                ModelWarning,
                stacklevel=4,
            )
        return chosen.rows, None


def _fit_prior(
    data: MashData | StoredData,
    Ulist: Any,
    choice: _Choice,
    mash_kwargs: Mapping[str, Any] | None,
    force: Workforce | None,
) -> tuple[FittedG, Rows, MashResult]:
    """Choose effects and fit the prior on them."""
    rows, weights = choice.rows_of(data, force)
    options = {"outputlevel": 1, **dict(mash_kwargs or {})} | {"outputlevel": 1, "chunk_size": None}
    if options.get("grid") is None and options.get("g") is None:
        options["grid"] = autoselect_grid(data, options.pop("gridmult", float(np.sqrt(2.0))))
    subset = data.read(rows) if isinstance(data, StoredData) else part_of(data, rows)
    result = mash(subset, Ulist, weights=weights, **options)
    return as_prior(result), rows, result


_MODEL_OPTIONS = {
    "grid",
    "gridmult",
    "normalizeU",
    "usepointmass",
    "prior",
    "nullweight",
    "optmethod",
}
"""Options of the fit that its numbers depend on."""

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
    overwrite: bool = False,
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
        Write ``<out_prefix>.<name>.npy`` and return memory maps. The files appear when all of
        them are whole.
    overwrite : bool
        Whether such files that exist are replaced.

    Returns
    -------
    ChunkedApplyResult

    Raises
    ------
    OutputError
        A file exists or cannot be written.
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
    if not options.get("output_lfdr"):
        shapes.pop("lfdr", None)
    with _allocated(shapes, out_prefix, overwrite) as arrays:
        n_chunks = _fill_chunks(
            data, components, prior.pi, request, chunk_size, options.get("n_jobs"), arrays
        )
        loglik = sum_in_order(arrays["vloglik"])
    paths = _files_of(shapes, out_prefix)
    return ChunkedApplyResult(
        arrays=arrays if paths is None else {k: np.load(p, "r") for k, p in paths.items()},
        output_paths=paths,
        loglik=loglik,
        n_effects=data.n_effects,
        n_conditions=width,
        chunk_size=chunk_size,
        n_chunks=n_chunks,
        alpha=data.alpha,
        fitted_g=prior,
        condition_names=data.condition_names,
        effect_names=data.effect_names,
    )


def _fill_chunks(
    data: MashData | StoredData,
    components: Components,
    pi: Array,
    request: Request,
    chunk_size: int,
    threads: int | None,
    arrays: Mapping[str, Any],
) -> int:
    """Compute the posterior chunk by chunk into arrays, and return the number of chunks."""
    targets = {("zero_prob" if name == "lfdr" else name): a for name, a in arrays.items()}
    starts = range(0, data.n_effects, chunk_size)
    for start in starts:
        rows = slice(start, min(start + chunk_size, data.n_effects))
        if isinstance(data, StoredData):
            part, places = data.read(rows), {name: a[rows] for name, a in targets.items()}
            apply_mixture(part, components, pi, request, out=places, threads=threads)
        else:
            apply_mixture(data, components, pi, request, rows=rows, out=targets, threads=threads)
    return len(starts)


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


def _files_of(names: Iterable[str], out_prefix: str | Path | None) -> dict[str, Path] | None:
    return (
        None if out_prefix is None else {name: Path(f"{out_prefix}.{name}.npy") for name in names}
    )


@contextmanager
def _allocated(
    shapes: Mapping[str, tuple[int, ...]], out_prefix: str | Path | None, overwrite: bool
) -> Iterator[dict[str, Any]]:
    """Yield arrays to fill: in memory, or in files that get their names when the block ends."""
    paths = _files_of(shapes, out_prefix)
    if paths is None:
        yield {name: np.empty(shape) for name, shape in shapes.items()}
        return
    next(iter(paths.values())).parent.mkdir(parents=True, exist_ok=True)
    for path in paths.values():  # all of them, before one is written
        check_writable(path, overwrite)
    with ExitStack() as stack:
        arrays: dict[str, Any] = {}
        for name, path in paths.items():
            temporary = stack.enter_context(replace_file(path, overwrite))
            arrays[name] = np.lib.format.open_memmap(temporary, "w+", np.float64, shapes[name])
        yield arrays
        for array in arrays.values():
            array.flush()


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
        Options conflict, or ``out`` is missing. Data in memory take no ``out``, ``overwrite``,
        ``executor`` or ``memory``.
    """
    choice = _Choice(
        train_indices, n_train, select_method, select_seed, background_fraction, weighting
    )
    with use_threads(resolve_threads(threads)):
        if not isinstance(data, StoredData):
            _refuse_work_on_stores(out, overwrite, executor, memory)
            fitted_g, rows, trained = _fit_prior(data, Ulist, choice, train_mash_kwargs, None)
            applied = apply_mash_prior(
                data, fitted_g, chunk_size=apply_chunk_size, mash_kwargs=apply_mash_kwargs
            )
            return TrainApplyResult(rows, trained, applied)
        if out is None:
            raise OptionError("data in a store need out, the store to make.")
        options = _stored_options(apply_mash_kwargs)
        check_store_writable(out, overwrite)
        force = workforce(executor, memory, threads)
        fitted_g, rows, trained = _fit_prior(data, Ulist, choice, train_mash_kwargs, force)
    applied = apply_to_store(
        data,
        fitted_g,
        out,
        force=force,
        overwrite=overwrite,
        optim=trained.optim,
        about={
            "train_size": len(rows),
            "select_method": None if train_indices is not None else select_method,
            "weighting": weighting,
            "select_seed": select_seed,
            "background_fraction": background_fraction,
            **{k: v for k, v in (train_mash_kwargs or {}).items() if k in _MODEL_OPTIONS},
        },
        **options,
    )
    return TrainApplyResult(rows, trained, applied)


def _refuse_work_on_stores(out: Any, overwrite: bool, executor: Any, memory: Any) -> None:
    """Refuse the options of data in a store, which data in memory would ignore."""
    given = {"out": out, "overwrite": overwrite or None, "executor": executor, "memory": memory}
    if found := [name for name, value in given.items() if value is not None]:
        raise OptionError(
            f"data in memory take no {' and no '.join(found)}: save the result with its save(), or "
            "write the effects to a store and open it with mash_open_data()."
        )


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
