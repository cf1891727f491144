"""Reading results back."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.cli.outputs import RESULT_ARRAYS, is_store
from plait.errors import FileFormatError, LabelError, NotAvailableError

if TYPE_CHECKING:
    from plait.mash.results import MashResult

STORE = "result.zarr"
"""The result in the folder of a study."""


def read_result(place: str) -> "MashResult":
    """Read the npz that a mash command wrote, or open the store, or that in the folder of a study.

    Raises
    ------
    FileFormatError
        There is no such result, or it is damaged.
    NotAvailableError
        It holds no posterior.
    """
    from plait.mash.results import FittedG, MashResult

    if not is_store(place) and (Path(place) / STORE).is_dir():
        place = str(Path(place) / STORE)
    if is_store(place):
        result = MashResult.open(place)
    else:
        path = Path(place)
        if not path.exists() and Path(f"{place}.npz").exists():
            path = Path(f"{place}.npz")
        arrays = _read_arrays(path)
        if "vloglik" not in arrays:
            raise FileFormatError(f"{path} is not a result of plait mash: it has no vloglik.")
        prior: Any = FittedG.load(path) if "fitted_u_stack" in arrays else []
        names = arrays.get("condition_names")
        parts: dict[str, Any] = {name: arrays.get(name) for name in RESULT_ARRAYS}
        result = MashResult(
            **parts,
            zero_prob=arrays.get("lfdr"),
            loglik=float(arrays["vloglik"].sum()),
            fitted_g=prior,
            alpha=float(arrays.get("alpha", 0.0)),
            condition_names=None if names is None else tuple(str(name) for name in names),
            effect_names=arrays.get("effect_names"),
        )
    if result.posterior_mean is None:
        raise NotAvailableError(f"{place} holds no posterior; fit with --outputlevel 2 or more.")
    return result


def _read_arrays(path: Path) -> dict[str, Any]:
    from zipfile import BadZipFile

    import numpy as np

    if not path.exists():
        raise FileFormatError(f"{path} does not exist.")
    if path.is_dir():
        raise FileFormatError(
            f"{path} is a folder in which there is no {STORE}. Give what 'plait mash fit' wrote "
            "(.npz or .zarr), or the folder of 'plait gwas-to-mash'."
        )
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, LookupError, BadZipFile, AttributeError) as error:
        raise FileFormatError(f"{path} is damaged or not an .npz file: {error}.") from None


def named_row(result: "MashResult", effect: str) -> int | str:
    """Return an effect given as text: its name where there is such a name, else a row number."""
    from plait.io.stored_arrays import find_label

    names = result.effect_names
    if names is not None and find_label(names, effect):
        return effect
    if effect.removeprefix("-").isdigit():
        return int(effect)
    known = "they have no names" if names is None else f"the first is {str(names[0])!r}"
    raise LabelError(
        f"--effect {effect!r} is neither the name of an effect ({known}) nor a row number."
    )
