"""Reading results back, and writing figures and tables made of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.errors import FileFormatError

if TYPE_CHECKING:
    from plait.mash.results import MashResult


def read_result(path: str) -> "MashResult":
    """Read the npz (or the store) written by ``plait mash fit``."""
    from plait.cli.outputs import is_store
    from plait.mash.results import FittedG, MashResult

    if is_store(path):
        return MashResult.load(path)
    arrays = _read_arrays(path)
    if "posterior_mean" not in arrays:
        raise FileFormatError(f"{path}: holds no posterior; fit with --outputlevel 2 or more.")
    prior: Any = FittedG.load(path) if "fitted_u_stack" in arrays else []
    names = arrays.get("condition_names")
    return MashResult(
        posterior_mean=arrays["posterior_mean"],
        posterior_sd=arrays["posterior_sd"],
        lfsr=arrays["lfsr"],
        lfdr=arrays.get("lfdr"),
        negative_prob=arrays["negative_prob"],
        zero_prob=arrays.get("lfdr"),
        loglik=float(arrays["vloglik"].sum()),
        vloglik=arrays["vloglik"],
        null_loglik=arrays.get("null_loglik"),
        alt_loglik=arrays.get("alt_loglik"),
        fitted_g=prior,
        posterior_weights=arrays.get("posterior_weights"),
        component_index=arrays.get("component_index"),
        alpha=float(arrays.get("alpha", 0.0)),
        condition_names=None if names is None else tuple(str(name) for name in names),
        effect_names=arrays.get("effect_names"),
    )


def _read_arrays(path: str) -> dict[str, Any]:
    from zipfile import BadZipFile

    import numpy as np

    try:
        with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise FileFormatError(f"{path}: there is no such file.") from None
    except (OSError, ValueError, EOFError, BadZipFile, AttributeError) as error:
        raise FileFormatError(f"{path}: not a result of plait mash fit ({error}).") from None


def save_figure(path: Path, axes: Any, overwrite: bool) -> None:
    """Write the figure of an Axes; the ending of the path decides the format."""
    from plait.io import replace_file

    with replace_file(path, overwrite) as temporary:
        axes.figure.savefig(temporary, dpi=150)


def write_matrix_csv(path: Path, matrix: Any, names: Any, overwrite: bool) -> None:
    """Write a square matrix with labels on both sides."""
    import csv

    from plait.io import replace_file

    labels = [str(i + 1) for i in range(len(matrix))] if names is None else list(names)
    with (
        replace_file(path, overwrite) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(["", *labels])
        for label, row in zip(labels, matrix, strict=True):
            writer.writerow([label, *(repr(float(value)) for value in row)])
