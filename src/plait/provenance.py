"""Where numbers came from: what ran, on what, with which options and versions."""

import hashlib
import math
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _distribution_version
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

_LIBRARIES = ("numpy", "scipy", "numba", "polars", "zarr", "xarray")
_BLOCK_BYTES = 1 << 24
_GLANCE_BYTES = 1 << 20


@cache
def _version_of(distribution: str) -> str:
    try:
        return _distribution_version(distribution)
    except PackageNotFoundError:
        return "unknown"


def _library_versions() -> dict[str, str]:
    versions = {name: _version_of(name) for name in _LIBRARIES}
    return {name: version for name, version in versions.items() if version != "unknown"}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Provenance:
    """What made a result. Every value is JSON-safe and survives a round trip unchanged.

    Attributes
    ----------
    method : str
        The function or command that ran, for example ``"plait mash fit"``.
    options : dict
        Its options. Values that JSON cannot hold are described: arrays of more than 64 numbers by
        their fingerprint, infinities and NaN by name, objects by their type.
    seed : int, list or None
        Seed of the random numbers.
    inputs : dict
        Name of each input and its `fingerprint`, or of a large file what `glance` says.
    seconds : float or None
        Wall time.
    threads : int or None
        Threads used (never changes the numbers).
    version : str
        Version of plait.
    libraries : dict of str to str
        Versions of the numerical libraries.
    python : str
        Version of Python.
    created : str
        When, in UTC, ISO 8601.
    """

    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: Any = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    threads: int | None = None
    version: str = field(default_factory=lambda: _version_of("plait"))
    libraries: Mapping[str, str] = field(default_factory=_library_versions)
    python: str = field(default_factory=platform.python_version)
    created: str = field(default_factory=_now)

    def __post_init__(self) -> None:
        for item in fields(self):
            object.__setattr__(self, item.name, json_safe(getattr(self, item.name)))

    def to_dict(self) -> dict[str, Any]:
        """Return the provenance as a dict that JSON can hold."""
        return {item.name: json_safe(getattr(self, item.name)) for item in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make a provenance from a dict; unknown keys (of later versions) are left out."""
        known = {item.name for item in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})


def json_safe(value: Any) -> Any:
    """Return a value as strict JSON can hold it, describing what it cannot (see `Provenance`)."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float | np.floating):
        number = float(value)
        return number if math.isfinite(number) else str(number)
    if isinstance(value, np.bool_ | np.integer | np.str_):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(name): json_safe(part) for name, part in value.items()}
    if isinstance(value, np.ndarray):
        return json_safe(value.tolist()) if value.size <= 64 else fingerprint(value)
    if isinstance(value, list | tuple):
        return [json_safe(part) for part in value]
    if isinstance(value, set | frozenset):
        return sorted((json_safe(part) for part in value), key=repr)
    return f"<{type(value).__name__}>"


def fingerprint(source: ArrayLike | os.PathLike[str]) -> str:
    """Return a short digest of an array, a file or a folder.

    Parameters
    ----------
    source : array, str or path
        Arrays are digested by shape, type and values (whatever their memory order or byte order);
        files by their bytes; folders by the names and bytes of the files inside.

    Returns
    -------
    str
        ``"blake2b:"`` and 32 hexadecimal digits.

    Raises
    ------
    TypeError
        The array holds Python objects.
    OSError
        The file cannot be read.

    Notes
    -----
    Reads in blocks of about 16 MiB, so memory-mapped arrays larger than memory are fine.
    """
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        for name in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if name.is_dir():
                continue
            if name != path:
                digest.update(name.relative_to(path).as_posix().encode() + b"\0")
            for block in _file_blocks(name):
                digest.update(block)
    else:
        array = np.asanyarray(source)
        if array.dtype.hasobject:
            raise TypeError("an array of Python objects has no fingerprint; convert it first.")
        portable = array.dtype.newbyteorder("<")
        digest.update(f"{array.shape}{portable.str}".encode())
        for part in _array_blocks(array):
            # The bytes as they lie in memory: others work on while these are digested.
            flat = np.ascontiguousarray(part, dtype=portable).reshape(-1)
            digest.update(flat.view(np.uint8).data)
    return f"blake2b:{digest.hexdigest()}"


def glance(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the size of a file, when it was written, and a digest of its first and last MiB.

    For files that take long to read; `fingerprint` reads all of it.

    Returns
    -------
    dict
        ``bytes``, ``modified`` (UTC, ISO 8601) and ``sha256``; of a file of up to two MiB that is
        the digest of all of it.
    """
    path = Path(path)
    state = path.stat()
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(_GLANCE_BYTES))
        file.seek(max(state.st_size - _GLANCE_BYTES, min(state.st_size, _GLANCE_BYTES)))
        digest.update(file.read(_GLANCE_BYTES))
    written = datetime.fromtimestamp(state.st_mtime, UTC).isoformat(timespec="microseconds")
    return {"bytes": state.st_size, "modified": written, "sha256": digest.hexdigest()}


def _file_blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block


def _array_blocks(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    if array.ndim == 0 or array.nbytes <= _BLOCK_BYTES:
        yield array
        return
    step = max(1, _BLOCK_BYTES * len(array) // array.nbytes)
    for start in range(0, len(array), step):
        yield array[start : start + step]
