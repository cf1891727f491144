"""Output files of the mash commands: npz and json, or a store. Never half-written."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.errors import OptionError

if TYPE_CHECKING:
    from plait.mash.results import MashResult


def is_store(target: str) -> bool:
    """Tell whether an output is a Zarr store rather than an npz prefix."""
    return target.rstrip("/").endswith(".zarr")


def check_target(target: str, overwrite: bool) -> None:
    """Refuse an output that cannot be written, before any work is done."""
    from plait.io import check_store_writable, check_writable

    if is_store(target):
        check_store_writable(target, overwrite)
        return
    for suffix in (".npz", ".json"):
        check_writable(f"{target}{suffix}", overwrite)


def write_result(
    result: "MashResult", target: str, overwrite: bool, command: str, extra: dict[str, Any]
) -> list[str]:
    """Write a result to ``<target>.npz`` and ``<target>.json``, or to a store; return the names."""
    if is_store(target):
        result.save(target, overwrite=overwrite)
        return [target]
    return _write_npz_and_json(result, target, overwrite, command, extra)


def _write_npz_and_json(
    result: "MashResult", target: str, overwrite: bool, command: str, extra: dict[str, Any]
) -> list[str]:
    import numpy as np

    from plait.io import replace_file

    arrays, meta = result_arrays(result), result_metadata(result, command, extra)
    npz, text = Path(f"{target}.npz"), Path(f"{target}.json")
    with (
        replace_file(npz, overwrite) as numbers,
        replace_file(text, overwrite) as summary,
    ):
        with numbers.open("wb") as stream:
            np.savez_compressed(stream, **arrays)
        summary.write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    return [str(npz), str(text)]


_ALWAYS = (
    "posterior_mean",
    "posterior_sd",
    "lfsr",
    "negative_prob",
    "lfdr",
    "posterior_cov",
    "posterior_samples",
    "posterior_weights",
    "component_index",
    "vloglik",
    "lik_matrix",
    "null_loglik",
    "alt_loglik",
)


def result_arrays(result: "MashResult") -> dict[str, Any]:
    """Return the arrays of ``<out>.npz`` by name; names are fixed-width text, never objects."""
    import numpy as np

    from plait.mash.results import FittedG

    arrays = {name: v for name in _ALWAYS if (v := getattr(result, name)) is not None}
    prior = result.fitted_g
    if isinstance(prior, FittedG):
        arrays |= {
            "pi": prior.pi,
            "grid": prior.grid,
            "fitted_u_stack": np.stack(list(prior.Ulist.values())),
            "u_names": np.array(list(prior.Ulist), dtype=np.str_),
            "alpha": np.float64(result.alpha),
        }
    for name in ("condition_names", "effect_names"):
        labels = getattr(result, name)
        if labels is not None:
            arrays[name] = np.asarray(labels, dtype=np.str_)
    return arrays


def result_metadata(result: "MashResult", command: str, extra: dict[str, Any]) -> dict[str, Any]:
    """Return what goes to ``<out>.json``."""
    import numpy as np

    from plait import __version__
    from plait.mash.results import FittedG

    prior = result.fitted_g
    meta: dict[str, Any] = {
        "command": command,
        "loglik": result.loglik,
        "n_effects": result.n_effects,
        "alpha": result.alpha,
        "version": __version__,
        "seconds": None if result.provenance is None else result.provenance.seconds,
        "converged": result.converged,
        "dual_gap": result.optim.get("dual_gap"),
        "niter": result.optim.get("niter"),
    }
    if result.posterior_mean is not None:
        meta["n_conditions"] = result.n_conditions
    if isinstance(prior, FittedG):
        meta |= {
            "n_conditions": next(iter(prior.Ulist.values())).shape[0],
            "n_components_active": int(np.sum(prior.pi > 1e-10)),
            "usepointmass": prior.usepointmass,
        }
    for name in ("null_loglik", "alt_loglik"):
        values = getattr(result, name)
        meta[f"{name}_total"] = None if values is None else float(values.sum())
    return meta | extra


def write_arrays(target: Path, arrays: dict[str, Any], overwrite: bool) -> None:
    """Write arrays to an npz file, or a single one to npy."""
    import numpy as np

    from plait.io import replace_file

    with replace_file(target, overwrite) as temporary, temporary.open("wb") as stream:
        if target.suffix == ".npy":
            np.save(stream, next(iter(arrays.values())))
        else:
            np.savez_compressed(stream, **arrays)


def check_suffix(target: Path, *suffixes: str) -> None:
    """Refuse an output file with another ending than the command writes."""
    if target.suffix not in suffixes:
        raise OptionError(f"{target}: the output must end in {' or '.join(suffixes)}.")
