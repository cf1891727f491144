"""Posterior effects from one store into another, block by block; killed runs are taken up again."""

import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.errors import OptionError
from plait.execution.blocks import Block
from plait.execution.devices import torch_device
from plait.execution.executors import Workforce
from plait.execution.grains import grains
from plait.execution.stored_output import StoredOutput, filled_store, write_region
from plait.io.store import require_apart
from plait.io.stored_arrays import Layout, StoredArray, parts_of
from plait.mash.posterior import Request, apply_mixture, output_map
from plait.mash.results import FittedG, MashResult, as_components, check_prior_width
from plait.mash.stored import StoredData
from plait.provenance import Provenance, fingerprint

Array = NDArray[np.float64]

_BOTH = ("effects", "contexts")


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
        return write_region(self.target, block.rows, written)


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
    layouts = _layouts(data, prior, request, output_lfdr)
    about = about or {}
    with filled_store(
        out,
        layouts,
        _identity(data, prior, request, layouts, about),
        n_items=data.n_effects,
        unit=data.unit,
        items="effects",
        force=force,
        overwrite=overwrite,
    ) as output:
        work = ApplyBlock(data, prior, request, tuple(layouts), output.target)
        finished, width = list(output.finished), _width(layouts)
        for block, digest in data.map_blocks(work, force, "posterior", finished, width):
            output.record(block, digest)
        output.complete(_described(data, prior, output, started, force, optim or {}, about))
    return MashResult.open(out)


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


def _described(
    data: StoredData,
    prior: FittedG,
    output: StoredOutput,
    started: float,
    force: Workforce,
    optim: dict[str, Any],
    about: dict[str, Any],
) -> MashResult:
    """Return the result whose arrays are in the store."""
    stored = {name: output.stored(name) for name in output.arrays if name != "effects"}
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
