"""Stores: Zarr v3 groups as xarray reads them, on disk or behind any fsspec URL.

They are written and read by Zarr itself: xarray, which takes most of a second to import, is there
for users (`Contents.to_xarray`, or ``xarray.open_zarr`` on any store).

A store says what it holds (``schema = "plait/<kind>"``), in which version of the layout, and where
the numbers came from. A newer major version of the layout is refused; minor versions only add.
"""

import json
import os
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plait.errors import FileFormatError, OutputError
from plait.io.atomic import STORE_MARKER, check_writable, replace_folder
from plait.provenance import Provenance

if TYPE_CHECKING:
    from xarray import Dataset

_CHUNK_BYTES = 1 << 23
_ROWS = 1024
SCHEMA_VERSION = "1.0"


@dataclass(frozen=True, eq=False)
class Contents:
    """What stands in a group of a store.

    Attributes
    ----------
    arrays : dict of str to (tuple of str, array)
        Dimensions and values by name. An array called like its only dimension holds its labels.
    attributes : dict
        As JSON holds them.
    """

    arrays: dict[str, tuple[tuple[str, ...], Any]]
    attributes: dict[str, Any] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def __getitem__(self, name: str) -> Any:
        return self.arrays[name][1]

    def get(self, name: str) -> Any:
        """Return the values of an array, or None when there is none."""
        return self.arrays[name][1] if name in self.arrays else None

    @property
    def labelled(self) -> list[str]:
        """The dimensions that have labels."""
        return [name for name, (dims, _) in self.arrays.items() if dims == (name,)]

    def with_attributes(self, **more: Any) -> "Contents":
        """Return the same arrays with more attributes."""
        return Contents(self.arrays, {**self.attributes, **more})

    def to_xarray(self) -> "Dataset":
        """Return a dataset, labels as coordinates."""
        import xarray

        labels = {name: self.arrays[name] for name in self.labelled}
        others = {name: item for name, item in self.arrays.items() if name not in labels}
        return xarray.Dataset(others, coords=labels, attrs=self.attributes)


def write_store(
    contents: Contents,
    url: str | os.PathLike[str],
    *,
    kind: str,
    provenance: Provenance | None = None,
    overwrite: bool = False,
    groups: Mapping[str, Contents] | None = None,
    schema_version: str = SCHEMA_VERSION,
) -> None:
    """Write a store.

    Parameters
    ----------
    contents : Contents
    url : str or path
        A path or any fsspec URL (``memory://``, ``s3://``). A local store appears whole or not at
        all; a remote one is marked complete when everything is there, and refused before that.
    kind : str
        What it holds; stored as ``schema = "plait/<kind>"``.
    provenance : Provenance, optional
    overwrite : bool
        Whether a store that exists is replaced.
    groups : mapping of str to Contents, optional
        More of them, written as groups inside the store.
    schema_version : str
        Version of the layout, ``"major.minor"``.

    Raises
    ------
    OutputError
        The store exists, the folder is missing or not writable, or the disk is full.
    """
    with replacing_store(url, overwrite) as place:
        extend_store(
            contents,
            place,
            kind=kind,
            provenance=provenance,
            groups=groups,
            schema_version=schema_version,
        )


def extend_store(
    contents: Contents,
    url: str | os.PathLike[str],
    *,
    kind: str,
    provenance: Provenance | None = None,
    groups: Mapping[str, Contents] | None = None,
    schema_version: str = SCHEMA_VERSION,
) -> None:
    """Write arrays beside what stands in a store already, and mark it complete.

    What an earlier, interrupted call wrote is replaced.

    Parameters
    ----------
    contents, url, kind, provenance, groups, schema_version
        As in `write_store`.
    """
    attributes = {"schema": f"plait/{kind}", "schema_version": schema_version}
    if provenance is not None:
        attributes["provenance"] = json.dumps(provenance.to_dict(), allow_nan=False)
    everything = {"": contents.with_attributes(**attributes), **(groups or {})}
    _remove_earlier(everything, os.fspath(url))
    _write_groups(everything, os.fspath(url))


@contextmanager
def replacing_store(url: str | os.PathLike[str], overwrite: bool) -> Iterator[str]:
    """Yield where to write a store; it stands at ``url`` when the block ends well.

    A local store is written beside and renamed. A remote one is written in its place, with a mark
    beside it that lets a torn store be replaced without being asked, and removed when the block
    raises.

    Raises
    ------
    OutputError
        The store exists, the folder is missing or not writable, or the disk is full.
    """
    local = local_path(url)
    if local is not None:
        with replace_folder(local, overwrite) as folder:
            yield str(folder)
        return
    check_store_writable(url, overwrite)
    filesystem, place = _remote(url)
    filesystem.pipe_file(_mark(place), b"{}")
    _remove_store(filesystem, place)
    try:
        yield os.fspath(url)
    except BaseException:
        _remove_store(filesystem, place)
        filesystem.rm(_mark(place))
        raise
    filesystem.rm(_mark(place))


def copy_store(
    source: str | os.PathLike[str], url: str | os.PathLike[str], check: Callable[[], None]
) -> None:
    """Copy a remote store inside its file system, without its passing through this machine.

    Parameters
    ----------
    source, url : str or path
    check : callable
        Called before what makes the copy complete is written; what it raises leaves it incomplete.
    """
    filesystem, start = _remote(source)
    _, place = _remote(url)
    root = f"{start}/{STORE_MARKER}"
    names = [name for name in filesystem.find(start) if name != root]
    filesystem.copy(names, [place + name.removeprefix(start) for name in names])
    check()
    filesystem.cp_file(root, f"{place}/{STORE_MARKER}")


def read_store(
    url: str | os.PathLike[str],
    *,
    kind: str | None = None,
    group: str | None = None,
    leave_out: Sequence[str] = (),
    schema_version: str = SCHEMA_VERSION,
) -> Contents:
    """Read a store.

    Parameters
    ----------
    url : str or path
    kind : str, optional
        What it must hold.
    group : str, optional
        A group inside the store.
    leave_out : sequence of str
        Arrays that are not read.
    schema_version : str
        The version of the layout the caller understands.

    Returns
    -------
    Contents
        Text as arrays of Python strings.

    Raises
    ------
    FileFormatError
        There is no such store, it is damaged, holds another kind, or was written by a later
        version of plait with another layout.
    """
    import zarr
    from zarr.errors import BaseZarrError

    place = local_path(url)
    if place is not None and not place.exists():
        raise FileFormatError(f"{url} does not exist.")
    source = os.fspath(url) if place is None else str(place)
    failures = (BaseZarrError, OSError, KeyError, ValueError, RuntimeError)
    try:
        _check_schema(url, zarr.open_group(source, mode="r").attrs, kind, schema_version)
        found: Any = zarr.open_group(source, path=group or "", mode="r")
        arrays = {
            name: (tuple(array.metadata.dimension_names or ()), _values(array))
            for name, array in sorted(found.arrays())
            if name not in leave_out
        }
        return Contents(arrays, dict(found.attrs))
    except FileFormatError:
        raise
    except failures as error:
        raise FileFormatError(f"{url} is not a store or is damaged: {error}") from error


def check_schema_of(
    url: str | os.PathLike[str], kind: str, schema_version: str = SCHEMA_VERSION
) -> dict[str, Any]:
    """Check that a store is there, complete and of a kind, and return its attributes.

    Raises
    ------
    FileFormatError
        See `read_store`.
    """
    import zarr
    from zarr.errors import BaseZarrError

    place = local_path(url)
    if place is not None and not place.exists():
        raise FileFormatError(f"{url} does not exist.")
    try:
        attributes = dict(zarr.open_group(os.fspath(url), mode="r").attrs)
    except (BaseZarrError, OSError, KeyError, ValueError) as error:
        raise FileFormatError(f"{url} is not a store or is damaged: {error}") from error
    _check_schema(url, attributes, kind, schema_version)
    return attributes


def can_be_filled(url: str | os.PathLike[str]) -> bool:
    """Tell whether a store that is being made can be opened for writing."""
    import zarr
    from zarr.errors import BaseZarrError

    try:
        zarr.open_group(os.fspath(url), mode="r+")
    except (BaseZarrError, OSError, KeyError, ValueError, TypeError):
        return False
    return True


def read_provenance(contents: Contents) -> Provenance | None:
    """Return the provenance in a store."""
    text = contents.attributes.get("provenance")
    return None if text is None else Provenance.from_dict(json.loads(text))


def distinct_dims(dims: Sequence[str]) -> tuple[str, ...]:
    """Return dimensions that differ, as xarray wants them: ``contexts``, ``contexts_2``."""
    return tuple(
        name if name not in dims[:i] else f"{name}_{list(dims[: i + 1]).count(name)}"
        for i, name in enumerate(dims)
    )


def label_arrays(labels: Mapping[str, Any]) -> dict[str, tuple[tuple[str, ...], Any]]:
    """Return the arrays of the labels of dimensions, but for those without.

    Python strings become Zarr's variable-length strings; NumPy's fixed-width ones have no
    specification in Zarr v3.
    """
    return {
        name: ((name,), np.array([str(label) for label in values], dtype=object))
        for name, values in labels.items()
        if values is not None
    }


def read_labels(contents: Contents, name: str) -> NDArray[np.str_] | None:
    """Return the labels of a dimension, or None when it has none."""
    if name not in contents.labelled:
        return None
    # NumPy finds the width of fixed-width text from objects only.
    labels: NDArray[np.str_] = contents[name].astype(object).astype(np.str_)
    return labels


def local_path(url: str | os.PathLike[str]) -> Path | None:
    """Return the local path that a path or URL means, None when it is remote."""
    text = os.fspath(url)
    if "://" not in text:
        return Path(text)
    return Path(text.removeprefix("file://")) if text.startswith("file://") else None


def check_store_writable(url: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Check that a store can be written, before the work starts (see `check_writable`)."""
    local = local_path(url)
    if local is not None:
        check_writable(local, overwrite)
        return
    filesystem, place = _remote(url)
    if not filesystem.exists(place) or _is_torn(filesystem, place):
        return
    if not overwrite:
        raise OutputError(f"{url} exists; to replace it use --overwrite (overwrite=True).")
    if not filesystem.exists(f"{place}/{STORE_MARKER}"):
        raise OutputError(f"{url} exists and is not a store; it will not be replaced.")


def require_apart(url: str | os.PathLike[str], source: str | os.PathLike[str]) -> None:
    """Refuse an output that is, contains or lies inside what it is made from.

    Raises
    ------
    OutputError
        They are not apart.
    """
    (kind, one), (other_kind, other) = _canonical(url), _canonical(source)
    if kind == other_kind and (f"{one}/".startswith(f"{other}/") or other.startswith(f"{one}/")):
        raise OutputError(
            f"{url} is or overlaps {source}, which it is made from and which would be lost; "
            "choose another output."
        )


def _canonical(url: str | os.PathLike[str]) -> tuple[str, str]:
    local = local_path(url)
    if local is not None:
        return "file", os.path.realpath(local)
    filesystem, place = _remote(url)
    return type(filesystem).__name__, posixpath.normpath(place)


def _remote(url: str | os.PathLike[str]) -> tuple[Any, str]:
    """Return the file system of a remote store and the path in it, forgetting what it cached."""
    from fsspec.core import url_to_fs

    filesystem, place = url_to_fs(os.fspath(url))
    filesystem.invalidate_cache()
    return filesystem, place.rstrip("/")


def _mark(place: str) -> str:
    """Return what stands beside a remote store while it is written."""
    return f"{place}.partial"


def _is_torn(filesystem: Any, place: str) -> bool:
    """Tell whether a remote store is what a writer of plait left that was killed."""
    if not filesystem.exists(_mark(place)):
        return False
    try:
        described = json.loads(filesystem.cat_file(f"{place}/{STORE_MARKER}"))
        return bool(described["attributes"].get("complete") is not True)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return True


def _remove_store(filesystem: Any, place: str) -> None:
    """Remove a remote store, first what makes it look complete."""
    if filesystem.exists(f"{place}/{STORE_MARKER}"):
        filesystem.rm(f"{place}/{STORE_MARKER}")
    filesystem.invalidate_cache()
    if filesystem.exists(place):
        filesystem.rm(place, recursive=True)


def _values(array: Any) -> Any:
    """Return the values of a Zarr array, text as Python strings."""
    values = np.asarray(array[...])
    return values.astype(object) if values.dtype.kind in "OT" else values


def _remove_earlier(everything: Mapping[str, Contents], place: str) -> None:
    """Remove what an interrupted writer left of these arrays and groups, whatever its state."""
    from fsspec.core import url_to_fs

    filesystem, folder = url_to_fs(place)
    filesystem.invalidate_cache()
    names = set(everything[""].arrays)
    for name in sorted(names | {group.partition("/")[0] for group in everything if group}):
        if filesystem.exists(f"{folder}/{name}"):
            filesystem.rm(f"{folder}/{name}", recursive=True)


def _write_groups(everything: Mapping[str, Contents], place: str) -> None:
    import zarr

    root = zarr.open_group(place, mode="a", zarr_format=3)
    for path, contents in everything.items():
        group = root.require_group(path) if path else root
        for name, (dims, given) in contents.arrays.items():
            values = np.asarray(given)
            is_text = values.dtype.kind in "OU"
            array = group.create_array(
                name,
                shape=values.shape,
                dtype="str" if is_text else values.dtype,
                chunks=_chunks(values),
                dimension_names=dims,
                fill_value=np.nan if values.dtype.kind == "f" else None,
            )
            array[...] = values.astype(object) if is_text else values
        group.attrs.update(contents.attributes)
    root.attrs["complete"] = True


def _chunks(values: NDArray[Any]) -> Any:
    """Cut along the first dimension, in whole grains, to about 8 MiB."""
    if values.ndim == 0 or values.size == 0 or values.dtype.kind not in "fiub":
        return "auto"
    rows = max(1, _CHUNK_BYTES * len(values) // max(values.nbytes, 1))
    rows = rows // _ROWS * _ROWS if rows >= _ROWS else rows
    return (min(rows, len(values)), *values.shape[1:])


def _check_schema(
    url: str | os.PathLike[str], attributes: Mapping[Any, Any], kind: str | None, version: str
) -> None:
    schema, written = str(attributes.get("schema", "")), str(attributes.get("schema_version", ""))
    if not schema.startswith("plait/") or not written:
        raise FileFormatError(f"{url} is not a store of plait.")
    if attributes.get("complete") is not True:
        raise FileFormatError(f"{url} is not complete: its writing was interrupted.")
    if kind is not None and schema != f"plait/{kind}":
        raise FileFormatError(
            f"{url} is a store of {schema.removeprefix('plait/')}; one of {kind} is expected."
        )
    if int(written.split(".")[0]) > int(version.split(".")[0]):
        raise FileFormatError(
            f"{url} has layout version {written} and this version of plait reads up to "
            f"{version.split('.')[0]}: install a later version of plait."
        )
