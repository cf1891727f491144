"""Text written whole or not at all, on disk or behind any fsspec URL."""

import os
import posixpath
from typing import Any

from plait.errors import OutputError
from plait.io.atomic import check_writable, replace_file
from plait.io.store import local_path


def check_text_writable(url: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Refuse, before the work starts, a text that cannot be written or that exists.

    Parameters
    ----------
    url : str or path
        A path or any fsspec URL.
    overwrite : bool
        Whether what exists is replaced.

    Raises
    ------
    OutputError
        It exists, or cannot be written.
    """
    local = local_path(url)
    if local is not None:
        check_writable(local, overwrite)
    elif not overwrite and _remote(url)[0].exists(_remote(url)[1]):
        raise OutputError(f"{url} exists; to replace it use --overwrite (overwrite=True).")


def write_text(text: str, url: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write a text; see `check_text_writable`."""
    local = local_path(url)
    if local is not None:
        with replace_file(local, overwrite) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return
    check_text_writable(url, overwrite)
    filesystem, place = _remote(url)
    filesystem.makedirs(posixpath.dirname(place), exist_ok=True)
    filesystem.pipe_file(place, text.encode())


def _remote(url: str | os.PathLike[str]) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    filesystem, place = url_to_fs(os.fspath(url))
    filesystem.invalidate_cache()
    return filesystem, place
