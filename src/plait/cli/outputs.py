"""Output files of the commands. Checked before the work starts; never half-written."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.errors import OutputError

if TYPE_CHECKING:
    from plait.mash.results import MashResult

FIGURES = (".png", ".pdf", ".svg")
TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")

RESULT_ARRAYS = (
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


def is_store(target: str) -> bool:
    """Tell whether an output is a Zarr store rather than an npz prefix."""
    return "://" in target or target.rstrip("/").endswith(".zarr")


def _files(target: str) -> tuple[Path, Path]:
    prefix = target.removesuffix(".npz")
    if not prefix or prefix.endswith("/"):
        raise OutputError(f"--out {target!r} is not the beginning of a file name.")
    return Path(f"{prefix}.npz"), Path(f"{prefix}.json")


def check_target(target: str, overwrite: bool, effects: str | None = None) -> None:
    """Refuse an output that cannot be written, or that is in the way of the store it is made from.

    Before any work is done.
    """
    from plait.io import check_store_writable, check_writable
    from plait.io.store import require_apart

    places = [target] if is_store(target) else [str(path) for path in _files(target)]
    for place in places:
        if effects is not None:
            require_apart(place, effects)
        if is_store(target):
            check_store_writable(place, overwrite)
        else:
            check_writable(place, overwrite)


def check_file(path: Path, suffixes: Sequence[str], overwrite: bool) -> None:
    """Refuse an output file that cannot be written, or whose format its name does not tell."""
    from plait.io import check_writable

    if not path.name.lower().endswith(tuple(suffixes)):
        raise OutputError(f"{path}: the output must end in {' or '.join(suffixes)}.")
    check_writable(path, overwrite)


def check_folder(
    folder: Path,
    names: Sequence[str],
    overwrite: bool,
    unfinished: str | None = None,
) -> None:
    """Refuse a folder that must not be written into; see `plait.io.folders.check_folder`."""
    from plait.io import folders

    folders.check_folder(folder, names, overwrite, unfinished)


def use_no_window() -> None:
    """Draw into files: a command must not need a display, nor Matplotlib's texts of help.

    Those list all that can be set of every kind of thing that is drawn, and are made as the kinds
    are imported, which takes longer than the rest of the import.
    """
    try:
        from matplotlib import artist, use
    except ModuleNotFoundError:
        return  # the figure itself says what to install
    artist.kwdoc = lambda artist: ""
    kinds: Any = artist.Artist
    kinds._update_set_signature_and_docstring = classmethod(lambda kind: None)
    use("Agg")


def write_result(
    result: "MashResult", target: str, overwrite: bool, command: str, extra: dict[str, Any]
) -> list[str]:
    """Write a result to ``<target>.npz`` and ``<target>.json``, or to a store; return the names."""
    if is_store(target):
        result.save(target, overwrite=overwrite)
        return [target]
    import numpy as np

    from plait.io import replace_file
    from plait.provenance import json_safe

    arrays = result_arrays(result)
    text = json.dumps(json_safe(result_metadata(result, command) | extra), indent=2)
    npz, described = _files(target)
    with replace_file(npz, overwrite) as numbers, replace_file(described, overwrite) as summary:
        summary.write_text(text + "\n", encoding="utf-8")
        np.savez_compressed(numbers, **arrays)
    return [str(npz), str(described)]


def result_arrays(result: "MashResult") -> dict[str, Any]:
    """Return the arrays of ``<out>.npz`` by name; names are fixed-width text, never objects."""
    import numpy as np

    from plait.mash.results import FittedG

    arrays = {name: v for name in RESULT_ARRAYS if (v := getattr(result, name)) is not None}
    prior = result.fitted_g
    if isinstance(prior, FittedG):
        arrays |= {
            "pi": prior.pi,
            "grid": prior.grid,
            "fitted_u_stack": np.stack(list(prior.Ulist.values())),
            "u_names": np.array(list(prior.Ulist), dtype=np.str_),
        }
        if prior.V_hint is not None:
            arrays["V_hint"] = prior.V_hint
    arrays["alpha"] = np.float64(result.alpha)
    for name in ("condition_names", "effect_names"):
        labels = getattr(result, name)
        if labels is not None:
            arrays[name] = np.asarray(labels, dtype=np.str_)
    return arrays


def result_metadata(result: "MashResult", command: str) -> dict[str, Any]:
    """Return what goes to ``<out>.json``."""
    import numpy as np

    from plait import __version__
    from plait.mash.results import FittedG

    prior = result.fitted_g if isinstance(result.fitted_g, FittedG) else None
    width = None
    if result.posterior_mean is not None:
        width = result.n_conditions
    elif prior is not None:
        width = next(iter(prior.Ulist.values())).shape[0]
    totals = {
        f"{name}_total": None if (values := getattr(result, name)) is None else float(values.sum())
        for name in ("null_loglik", "alt_loglik")
    }
    return {
        "command": command,
        "loglik": result.loglik,
        "n_effects": result.n_effects,
        "n_conditions": width,
        "n_components_active": None if prior is None else int(np.sum(prior.pi > 1e-10)),
        "alpha": result.alpha,
        "usepointmass": prior is None or prior.usepointmass,
        **totals,
        "converged": result.converged,
        "dual_gap": result.optim.get("dual_gap"),
        "niter": result.optim.get("niter"),
        "seconds": None if result.provenance is None else result.provenance.seconds,
        "version": __version__,
    }


def write_covariances(path: Path, matrices: dict[str, Any], overwrite: bool) -> None:
    """Write covariance matrices as ``u_stack`` and ``u_names``, which --ulist reads."""
    import numpy as np

    from plait.io import replace_file

    with replace_file(path, overwrite) as temporary:
        np.savez_compressed(
            temporary,
            u_stack=np.stack(list(matrices.values())),
            u_names=np.array(list(matrices), dtype=np.str_),
        )


def write_matrix(path: Path, matrix: Any, names: Sequence[str] | None, overwrite: bool) -> None:
    """Write an R x R matrix to ``.npy``, ``.csv`` or ``.tsv``, the latter with condition names."""
    import numpy as np

    from plait.io import replace_file

    if path.suffix.lower() == ".npy":
        with replace_file(path, overwrite) as temporary:
            np.save(temporary, matrix)
        return
    import polars as pl

    labels = [str(i + 1) for i in range(len(matrix))] if names is None else list(names)
    columns = dict(zip(labels, np.asarray(matrix).T, strict=True))
    write_table(path, pl.DataFrame({"": labels, **columns}), overwrite)


def write_table(path: Path, frame: Any, overwrite: bool) -> None:
    """Write a polars table in the format of `TABLES` that its name ends in."""
    import gzip

    from plait.io import replace_file

    name = path.name.lower()
    with replace_file(path, overwrite) as temporary:
        if name.endswith(".parquet"):
            frame.write_parquet(temporary, compression="zstd")
            return
        separator = "\t" if name.removesuffix(".gz").endswith(".tsv") else ","
        text = frame.write_csv(separator=separator, null_value="NA").encode()
        # No name and no time in the header: the same table gives the same bytes.
        temporary.write_bytes(gzip.compress(text, mtime=0) if name.endswith(".gz") else text)
