"""Numba's ``njit``, with caches that notice a change in any compiled file of plait.

Numba keeps compiled functions on disk and compiles one again when its own file has changed. It does
not look at the functions that are called from there: after an upgrade in which only those changed,
it would go on running their old code. Here a cached function is current only while all files with
compiled functions are as they were.

Before Numba looks into a cache, it makes ready to compile: all that it can type and lower is
registered, which takes a third of a second and 30 MB. Code that is in the cache needs none of it,
only the addresses of the functions of Numba's runtime. What is not there is compiled as ever.
"""

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import MethodType
from typing import Any

import numba

_SOURCES = Path(__file__).parents[1]
_KNOWN = ("0.68",)
"""Versions of Numba whose caches need no more than `_name_runtime` gives; others load as ever."""


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles a function; see `numba.njit`."""
    compiles = numba.njit(**options)

    def decorate(function: Callable[..., Any]) -> Any:
        compiled = compiles(function)
        if options.get("cache"):
            index = compiled._cache._cache_file
            index._source_stamp = (index._source_stamp, digest_of_sources(_SOURCES))
            index._load_index = MethodType(_load_index, index)
            if loads_alone():
                compiled._cache.load_overload = MethodType(_load_overload, compiled._cache)
        return compiled

    return decorate


@cache
def loads_alone() -> bool:
    """Tell whether compiled code is loaded without making Numba ready to compile."""
    return ".".join(numba.__version__.split(".")[:2]) in _KNOWN


def _load_index(index: Any) -> dict[Any, str]:
    """Return what is in a cache; nothing if it names types that plait does not have any more.

    Numba looks at the stamp of an index after its types.
    """
    try:
        return type(index)._load_index(index)  # type: ignore[no-any-return]
    except (AttributeError, ImportError):
        return {}


def _load_overload(known: Any, signature: Any, target: Any) -> Any:
    """Return the compiled function of a signature from its cache, or None.

    As `numba.core.caching.Cache.load_overload`, but for ``target.refresh()``: whatever compiles
    calls that for itself.
    """
    _name_runtime()
    with known._guard_against_spurious_io_errors():
        return known._load_overload(signature, target)


@cache
def _name_runtime() -> None:
    """Tell the linker where the functions of Numba's runtime are, as initialising it does.

    Symbols that text is hashed with are not among them: no compiled function hashes text.
    """
    from llvmlite.binding import add_symbol  # type: ignore[import-untyped]
    from numba.core.runtime import _nrt_python as _nrt  # type: ignore[attr-defined]

    for name, address in _nrt.c_helpers.items():
        add_symbol(name if name.startswith("_") else f"NRT_{name}", address)


@cache
def digest_of_sources(folder: Path) -> str:
    """Return a digest of all files below a folder that hold compiled functions."""
    digest = hashlib.blake2b(digest_size=16)
    found = (f"{inside}/{name}" for inside, _, names in os.walk(folder) for name in names)
    for path in (Path(name) for name in sorted(found) if name.endswith(".py")):
        source = path.read_bytes()
        if b"plait.numerics.compiled" in source or b"numba" in source:
            digest.update(str(path.relative_to(folder)).encode())
            digest.update(source)
    return digest.hexdigest()
