"""Posterior effects from one store into another, block by block; killed runs are taken up again."""

import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.errors import DataWarning, OptionError, OutputError
from plait.execution.blocks import Block
from plait.execution.checkpoint import Run, digest_of
from plait.execution.executors import Workforce, run_blocks
from plait.execution.grains import grains
from plait.io.atomic import NO_SPACE, move_into_place
from plait.io.store import (
    can_be_filled,
    check_store_writable,
    copy_store,
    local_path,
    replacing_store,
    require_apart,
)
from plait.io.stored_arrays import Layout, StoredArray, lay_out, parts_of, write_rows
from plait.mash.device import torch_device
from plait.mash.posterior import Request, apply_mixture, output_map
from plait.mash.results import FittedG, MashResult, as_components, check_prior_width
from plait.mash.stored import StoredData
from plait.provenance import Provenance, fingerprint

Array = NDArray[np.float64]

_BOTH = ("effects", "contexts")
_UNREADABLE = "unreadable"


@dataclass(frozen=True, eq=False)
class ApplyBlock:
    """Computes the posterior of a block of effects and writes it to its region of the output.

    Attributes
    ----------
    data : StoredData
    prior : FittedG
    request : Request
    arrays : tuple of str
        What is written.
    target : str
        The store that is filled.
    """

    data: StoredData
    prior: FittedG
    request: Request
    arrays: tuple[str, ...]
    target: str

    def __call__(self, block: Block) -> str:
        """Return a digest of what was written."""
        part = self.data.read(block.rows)
        found: dict[str, Any] = apply_mixture(
            part, self.prior.components, self.prior.pi, self.request, label=None
        )
        found["lfdr"] = found.pop("zero_prob", None)
        written = {name: found[name] for name in self.arrays if name != "effects"}
        if "effects" in self.arrays:
            written["effects"] = part.effect_names
        write_rows(self.target, block.rows, written)
        return _digest(written)


@dataclass(frozen=True)
class _ReadBack:
    """Digests what stands in a finished region."""

    target: str
    arrays: tuple[str, ...]

    def __call__(self, block: Block) -> str:
        try:
            found = {name: StoredArray(self.target, name)[block.rows] for name in self.arrays}
        except (OSError, ValueError, RuntimeError, KeyError, TypeError):
            return _UNREADABLE  # a file that a crash cut short cannot be decoded
        return _digest(found)


def _digest(arrays: dict[str, Any]) -> str:
    # The width of fixed-width text depends on the block; the text itself is digested.
    plain = [
        np.frombuffer("\0".join(values).encode(), np.uint8) if values.dtype.kind in "OU" else values
        for values in (arrays[name] for name in sorted(arrays))
    ]
    return digest_of(plain)


def apply_to_store(
    data: StoredData,
    fitted_g: FittedG | MashResult,
    out: str | os.PathLike[str],
    *,
    force: Workforce,
    request: Request,
    output_lfdr: bool = False,
    overwrite: bool = False,
    optim: dict[str, Any] | None = None,
    about: dict[str, Any] | None = None,
) -> MashResult:
    """Compute the posterior of all effects in a store under a fitted prior, into a store.

    Parameters
    ----------
    data : StoredData
    fitted_g : FittedG or MashResult
    out : str or path
        The store to make, a path or any fsspec URL that the workers can reach.
    force : Workforce
    request : Request
        Without covariances and samples.
    output_lfdr : bool
    overwrite : bool
        Whether a store that exists is replaced.
    optim, about : dict, optional
        How the prior was fitted, for the record. A run with another ``about`` is another run.

    Returns
    -------
    MashResult
        Its arrays stay in the store.

    Notes
    -----
    While it is made, the output and a record of its finished blocks are kept beside it. The same
    call after a crash finishes what is missing; other inputs or options start anew.
    """
    started = time.perf_counter()
    prior, _ = as_components(fitted_g, data.alpha)
    check_prior_width(prior, data.n_conditions)
    require_apart(out, data.url)
    check_store_writable(out, overwrite)
    layouts = _layouts(data, prior, request, output_lfdr)
    run = Run(_beside(out))
    with _ending_clearly(run, out):
        if reason := run.begin(_identity(data, prior, request, layouts, about or {})):
            warnings.warn(
                f"{out}: the interrupted run cannot be continued, because {reason}; starting anew.",
                DataWarning,
                stacklevel=3,
            )
        finished = _taken_over(run, layouts, data.unit, force)
        target = _store_of(run)
        work = ApplyBlock(data, prior, request, tuple(layouts), target)
        for block, digest in data.map_blocks(work, force, "posterior", finished, _width(layouts)):
            run.record(block, digest)
        result = _described(data, prior, target, layouts, started, force, optim or {}, about or {})
        run.require_ownership()
        result.save_around(target, tuple(layouts))
        _put_in_place(run, out, data.n_effects, overwrite)
    run.discard()
    return MashResult.open(out)


@contextmanager
def _ending_clearly(run: Run, out: str | os.PathLike[str]) -> Iterator[None]:
    """Say what is kept when a run is stopped, and when it fails because another took over."""
    try:
        yield
    except KeyboardInterrupt as interruption:
        interruption.add_note(_what_is_kept(run))
        raise
    except Exception as error:
        if run.was_taken_over():
            run.abandon()
            run.require_ownership()
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            raise OutputError(
                f"{out} is not finished: no space is left where {run.place} is; free some. "
                f"{_what_is_kept(run).capitalize()}"
            ) from error
        raise


def _what_is_kept(run: Run) -> str:
    count = sum(len(block) for block in run.finished())
    if count == 0:
        return "no block was finished; the same command starts again."
    return (
        f"finished blocks ({count:,} effects) are kept in {run.place}, and the same command goes "
        "on from there."
    )


def _width(layouts: dict[str, Layout]) -> int:
    """Return the number of columns of the output."""
    return max((layout.shape[1] for layout in layouts.values() if layout.dims == _BOTH), default=0)


def _layouts(
    data: StoredData, prior: FittedG, request: Request, output_lfdr: bool
) -> dict[str, Layout]:
    if request.covariance or request.samples:
        raise OptionError("applying in blocks gives outputlevel 1 or 2, without posterior samples.")
    mapping = output_map(data.read(slice(0, 1)), request.A)
    width = data.n_conditions if mapping is None else len(mapping)
    names = {}
    if request.posterior:
        wanted = ["posterior_mean", "posterior_sd", "lfsr", "negative_prob"]
        for name in [*wanted, "lfdr"] if output_lfdr else wanted:
            names[name] = Layout(_BOTH, (data.n_effects, width))
    likelihoods = ["vloglik", "null_loglik", "alt_loglik"] if prior.usepointmass else ["vloglik"]
    for name in likelihoods:
        names[name] = Layout(("effects",), (data.n_effects,))
    if data.has_effect_names:
        names["effects"] = Layout(("effects",), (data.n_effects,), "str")
    return names


def _beside(out: str | os.PathLike[str]) -> str:
    """Return the folder of the run that makes an output."""
    local = local_path(out)
    if local is None:
        return f"{os.fspath(out).rstrip('/')}.run"
    path = Path(os.path.realpath(local))
    return str(path.with_name(f".{path.name}.run"))


def _store_of(run: Run) -> str:
    """Return the store that a run fills; it is put in its place when it is complete."""
    return f"{run.folder}/store"


def _identity(
    data: StoredData,
    prior: FittedG,
    request: Request,
    layouts: dict[str, Layout],
    about: dict[str, Any],
) -> dict[str, Any]:
    """Return everything that the numbers depend on."""
    here = Provenance("mash")
    libraries = {name: here.libraries.get(name) for name in ("numpy", "scipy", "numba")}
    return {
        "what": "mash posterior",
        "fit": about,
        "inputs": {
            **_inputs(data),
            "the prior": fingerprint(
                np.concatenate([prior.pi, prior.grid, *(U.ravel() for U in prior.Ulist.values())])
            ),
        },
        "options": {
            "alpha": data.alpha,
            "missing": data.missing,
            "conditions": list(data.columns),
            "pi_thresh": request.pi_thresh,
            "A": None if request.A is None else fingerprint(request.A),
            "outputs": sorted(layouts),
            "device": str(torch_device(request.device) or "cpu"),
        },
        "size": [data.n_effects, data.n_conditions, data.unit],
        "versions": {"plait": here.version, **libraries},
    }


def _inputs(data: StoredData) -> dict[str, str]:
    """Return the digests of the data; the correlation may be another than that of the store."""
    V = "one per effect, in the store" if data.V is None else fingerprint(data.V)
    return {"the effects": data.known.fingerprint, "the error correlation": V}


def _taken_over(run: Run, layouts: dict[str, Layout], unit: int, force: Workforce) -> list[Block]:
    """Return the finished blocks that stand in the store as they were written.

    Without any, an empty store is laid out.
    """
    finished = run.finished()
    good: list[Block] = []
    if finished and can_be_filled(_store_of(run)):
        read_back = _ReadBack(_store_of(run), tuple(layouts))
        found = run_blocks(read_back, finished, force, "checking what is finished")
        good = [block for block, digest in found if digest == finished[block]]
    if good:
        run.keep(good)
    else:
        run.start_anew()
        lay_out(_store_of(run), layouts, unit)
    return good


def _put_in_place(run: Run, out: str | os.PathLike[str], n_effects: int, overwrite: bool) -> None:
    """Let the store stand where it is wanted.

    On disk it is renamed. An object store cannot rename; there it is copied, and what makes the
    copy complete comes last, when it is sure that nobody else has changed what was copied.
    """
    run.require_all(n_effects)
    run.require_ownership()
    target, local = _store_of(run), local_path(out)
    if local is None:
        with replacing_store(out, overwrite) as place:
            copy_store(target, place, run.require_ownership)
    else:
        # What a writer that was killed had not renamed yet is no part of the store.
        for partial in Path(target).rglob("*.partial"):
            partial.unlink(missing_ok=True)
        move_into_place(target, local, overwrite)


def _described(
    data: StoredData,
    prior: FittedG,
    target: str,
    layouts: dict[str, Layout],
    started: float,
    force: Workforce,
    optim: dict[str, Any],
    about: dict[str, Any],
) -> MashResult:
    """Return the result whose arrays are in the store."""
    stored = {name: StoredArray(target, name) for name in layouts if name != "effects"}
    fields: dict[str, Any] = {name: None for name in MashResult.dims} | stored
    return MashResult(
        **fields,
        loglik=_sum_stored(stored["vloglik"]),
        fitted_g=prior,
        alpha=data.alpha,
        condition_names=data.condition_names,
        effect_names=None,
        optim=optim or {"method": "fixed", "niter": 0, "converged": True},
        provenance=Provenance(
            "mash",
            options={"alpha": data.alpha, "missing": data.missing, **about},
            inputs=_inputs(data),
            seconds=time.perf_counter() - started,
            threads=force.workers * force.threads,
        ),
    )


def _sum_stored(values: StoredArray) -> float:
    """Sum a vector grain by grain, as `sum_in_order` does in memory."""
    sums: list[float] = []
    for rows in parts_of(values):
        part = values[rows]
        sums += [float(np.sum(part[g.rows])) for g in grains(0, len(part))]
    return float(sum(sums))
