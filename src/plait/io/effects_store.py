"""Stores of effects: written whole or part by part, read whole or row by row."""

import json
import os
from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.data.effects import Effects
from plait.errors import FileFormatError, LabelError, ShapeError
from plait.io.store import (
    SCHEMA_VERSION,
    read_labels,
    read_provenance,
    read_store,
    replacing_store,
)
from plait.io.stored_arrays import Layout, chunk_rows, complete, lay_out

KIND = "effects"


def write_effects(
    effects: Effects | Iterable[Effects],
    url: str | os.PathLike[str],
    overwrite: bool = False,
) -> None:
    """Save effects as a store.

    Parameters
    ----------
    effects : Effects or iterable of Effects
        All effects, or consecutive parts of them with the same contexts and V: of a study that
        does not fit in memory, only one part is held at a time.
    url : str or path
        A path or any fsspec URL. The store appears whole or not at all.
    overwrite : bool
        Whether a store that exists is replaced.

    Raises
    ------
    OutputError
        The store exists, the folder is missing or not writable, or the disk is full.
    LabelError, ShapeError
        The parts do not fit together.
    """
    parts = iter([effects] if isinstance(effects, Effects) else effects)
    first = next(parts, None)
    if first is None:
        raise ShapeError("there are no effects to write.")
    with replacing_store(url, overwrite) as place:
        filling = _Filling(first, place, _lay_out(first, place))
        for part in chain([first], parts):
            _require_alike(first, part)
            filling.add(part)
        filling.flush()
        attributes: dict[str, Any] = {"schema": f"plait/{KIND}", "schema_version": SCHEMA_VERSION}
        if first.provenance is not None:
            origin = first.provenance.to_dict()
            attributes["provenance"] = json.dumps(origin, allow_nan=False)
        complete(place, attributes)


def read_effects(url: str | os.PathLike[str]) -> Effects:
    """Load effects saved by `write_effects`.

    Raises
    ------
    FileFormatError
        There is no such store, it is damaged, holds something else, or was written by a later
        version of plait with another layout.
    """
    contents = read_store(url, kind=KIND)
    contexts = read_labels(contents, "contexts")
    try:
        return Effects(
            contents["bhat"],
            contents["shat"],
            contents.get("V"),
            read_labels(contents, "effects"),
            None if contexts is None else tuple(str(name) for name in contexts),
            read_provenance(contents),
        )
    except KeyError as error:
        raise FileFormatError(f"{url} lacks {error}.") from None


def _lay_out(first: Effects, place: str) -> int:
    """Make the arrays; return the rows of a chunk."""
    width = first.n_contexts
    both = ("effects", "contexts")
    arrays = {name: Layout(both, (0, width)) for name in ("bhat", "shat")}
    if first.effects is not None:
        arrays["effects"] = Layout(("effects",), (0,), "str")
    if first.contexts is not None:
        arrays["contexts"] = Layout(("contexts",), (width,), "str")
    if first.V is not None and first.common_V:
        arrays["V"] = Layout(("contexts", "contexts_2"), (width, width))
    elif first.V is not None:
        arrays["V"] = Layout((*both, "contexts_2"), (0, width, width))
    rows = chunk_rows(8 * width * (1 if first.common_V else width))
    lay_out(place, arrays, rows)
    _fill(first, place)
    return rows


def _fill(first: Effects, place: str) -> None:
    """Write what all parts share."""
    import zarr

    group: Any = zarr.open_group(place, mode="r+")
    if first.contexts is not None:
        group["contexts"][:] = np.array(first.contexts, dtype=object)
    if first.V is not None and first.common_V:
        group["V"][:] = first.V


class _Filling:
    """Appends parts of any size in whole chunks: one that is begun would be written again."""

    def __init__(self, first: Effects, place: str, rows: int) -> None:
        import zarr

        self._group: Any = zarr.open_group(place, mode="r+")
        self._rows = rows
        self._waiting: dict[str, list[NDArray[Any]]] = {"bhat": [], "shat": []}
        if first.effects is not None:
            self._waiting["effects"] = []
        if first.V is not None and not first.common_V:
            self._waiting["V"] = []

    def add(self, part: Effects) -> None:
        """Take a part; what fills chunks is written."""
        for name, waiting in self._waiting.items():
            waiting.append(getattr(part, name))
            ready = sum(map(len, waiting)) // self._rows * self._rows
            if ready:
                joined = np.concatenate(waiting)
                self._write(name, joined[:ready])
                waiting[:] = [joined[ready:].copy()]

    def flush(self) -> None:
        """Write what is left."""
        for name, waiting in self._waiting.items():
            if sum(map(len, waiting)):
                self._write(name, np.concatenate(waiting))

    def _write(self, name: str, values: NDArray[Any]) -> None:
        self._group[name].append(values.astype(object) if name == "effects" else values)


def _require_alike(first: Effects, part: Effects) -> None:
    if part.n_contexts != first.n_contexts:
        raise ShapeError(
            f"a part has {part.n_contexts} contexts and the first one {first.n_contexts}."
        )
    if part.contexts != first.contexts:
        raise LabelError("the contexts of a part differ from those of the first one.")
    if (part.effects is None) != (first.effects is None):
        raise LabelError("some parts have labels of effects and others have none.")
    if part.common_V != first.common_V or (first.common_V and not _equal(part.V, first.V)):
        raise ShapeError("the error correlations V of the parts differ.")


def _equal(a: NDArray[Any] | None, b: NDArray[Any] | None) -> bool:
    return a is b or (a is not None and b is not None and np.array_equal(a, b))
