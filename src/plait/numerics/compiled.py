"""Numba's ``njit``, with caches that notice a change in any compiled file of plait.

Numba keeps compiled functions on disk and compiles one again when its own file has changed. It does
not look at the functions that are called from there: after an upgrade in which only those changed,
it would go on running their old code. Here a cached function is current only while all files with
compiled functions are as they were.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba

_SOURCES = Path(__file__).parents[1]


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles a function; see `numba.njit`."""
    compiles = numba.njit(**options)

    def decorate(function: Callable[..., Any]) -> Any:
        compiled = compiles(function)
        if options.get("cache"):
            index = compiled._cache._cache_file
            index._source_stamp = (index._source_stamp, digest_of_sources(_SOURCES))
        return compiled

    return decorate


@cache
def digest_of_sources(folder: Path) -> str:
    """Return a digest of all files below a folder that hold compiled functions."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.rglob("*.py")):
        source = path.read_bytes()
        if b"plait.numerics.compiled" in source or b"numba" in source:
            digest.update(str(path.relative_to(folder)).encode())
            digest.update(source)
    return digest.hexdigest()
