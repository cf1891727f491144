"""Writing whole or not at all: a temporary sibling, renamed when it is complete."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from plait.errors import OutputError

NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
STORE_MARKER = "zarr.json"
"""A file that tells a store from any other folder: only such folders are ever replaced."""


def check_writable(path: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Check that an output can be written, before the work starts.

    Parameters
    ----------
    path : str or path
        The file or store to be written.
    overwrite : bool
        Whether an output that exists may be replaced. A folder that is not a store never is.

    Returns
    -------
    pathlib.Path
        The path, with symbolic links followed.

    Raises
    ------
    OutputError
        The folder is missing or not writable, or the output exists and may not be replaced.
    """
    shown, path = path, Path(os.path.realpath(path))
    folder = path.parent
    if not folder.exists():
        raise OutputError(f"{shown}: the folder {folder} does not exist; create it first.")
    if not folder.is_dir():
        raise OutputError(f"{shown}: {folder} is not a folder.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{shown}: the folder {folder} is not writable.")
    _put_back(path)
    if path.exists():
        if not overwrite:
            raise OutputError(f"{shown} exists; to replace it use --overwrite (overwrite=True).")
        if path.is_dir() and not (path / STORE_MARKER).exists() and any(path.iterdir()):
            raise OutputError(f"{shown} is a folder and not a store; it will not be replaced.")
    return path


@contextmanager
def replace_file(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Yield a path in a temporary folder beside ``path``, renamed to it when the block ends well.

    When the block raises, the temporary folder is removed and what stood at ``path`` is untouched;
    what a writer of ``path`` that was killed left is removed by the next one. The name is that of
    ``path``, so that writers which look at suffixes do the same.

    Raises
    ------
    OutputError
        See `check_writable`; also when the disk is full.
    """
    target = check_writable(path, overwrite)
    if target.is_dir():
        raise OutputError(f"{path} is a folder; a file is to be written there.")
    with _said_clearly(path, target), _temporary_folder(target) as folder:
        yield folder / target.name
        _refuse_newcomer(path, target, overwrite)
        (folder / target.name).replace(target)


@contextmanager
def replace_folder(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Yield a new temporary folder beside ``path``, renamed to it when the block ends well.

    When the block raises, the temporary folder is removed and what stood at ``path`` is untouched;
    what a writer of ``path`` that was killed left is removed by the next one.

    Raises
    ------
    OutputError
        See `check_writable`; also when the disk is full.
    """
    target = check_writable(path, overwrite)
    if target.is_file():
        raise OutputError(f"{path} is a file; a store (a folder) is to be written there.")
    with _said_clearly(path, target), _temporary_folder(target) as temporary:
        yield temporary
        move_into_place(temporary, path, overwrite)


def move_into_place(
    folder: str | os.PathLike[str], path: str | os.PathLike[str], overwrite: bool = False
) -> None:
    """Rename a finished folder to where it is wanted, on the same disk.

    Killed at any instant, what stood at ``path`` or the new folder is there, or is put back by the
    next `check_writable`.

    Parameters
    ----------
    folder : str or path
    path : str or path
    overwrite : bool
        Whether what stands there is replaced.

    Raises
    ------
    OutputError
        Something stands there.
    """
    folder, target = Path(folder), Path(os.path.realpath(path))
    _refuse_newcomer(path, target, overwrite)
    if not target.exists():
        folder.rename(target)
        return
    # A folder cannot be replaced in one step: put the old one aside until the new one is there.
    old = _aside(target)
    if old.exists():
        shutil.rmtree(old)
    target.rename(old)
    try:
        folder.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.replaced")


def _put_back(target: Path) -> None:
    """Put back what was put aside by a writer that was killed before its own output was there."""
    old = _aside(target)
    if old.exists() and not target.exists():
        old.rename(target)


def _around(target: Path) -> tuple[str, str]:
    """Return what names of temporary folders of ``target`` begin and end with."""
    stem = target.name.split(".")[0]
    return f".{stem}.", f".partial{target.name[len(stem) :]}"


@contextmanager
def _temporary_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder beside ``target``, locked while this process lives, removed at the end."""
    _remove_leftovers(target)
    folder, lock = _new_folder(target)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _new_folder(target: Path) -> tuple[Path, int | None]:
    head, tail = _around(target)
    while True:
        folder = target.with_name(f"{head}{token_hex(4)}{tail}")
        folder.mkdir()
        with suppress(BlockingIOError, FileNotFoundError):
            lock = _lock(folder)
            if lock is None or folder.exists():
                return folder, lock
            os.close(lock)
        # Another writer took it for a leftover before it was locked.


def _remove_leftovers(target: Path) -> None:
    """Remove temporary folders of ``target`` whose writers are no more: nobody locks them."""
    sought = re.compile("[0-9a-f]{8}".join(map(re.escape, _around(target))))
    found: list[str] = []
    with suppress(OSError), os.scandir(target.parent) as entries:
        found += [entry.path for entry in entries if sought.fullmatch(entry.name)]
    for place in found:
        with suppress(OSError):
            lock = _lock(place)
            if lock is not None:
                shutil.rmtree(place, ignore_errors=True)
                os.close(lock)


def _lock(folder: str | os.PathLike[str]) -> int | None:
    """Lock a folder until the descriptor is closed or the process ends; None where none can be.

    Raises
    ------
    BlockingIOError
        Another has locked it.
    """
    try:
        from fcntl import LOCK_EX, LOCK_NB, flock
    except ModuleNotFoundError:  # on Windows
        return None
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise
        return None
    return descriptor


def _refuse_newcomer(shown: str | os.PathLike[str], target: Path, overwrite: bool) -> None:
    if not overwrite and target.exists():
        raise OutputError(f"{shown} appeared while it was being written; it is left as it is.")


@contextmanager
def _said_clearly(shown: str | os.PathLike[str], target: Path) -> Iterator[None]:
    """Say what a full disk means, and a folder that refuses."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise OutputError(
                f"{shown} was not written: no space left on the disk. Nothing was kept; "
                "free some space or write elsewhere."
            ) from error
        own = str(target.with_name(_around(target)[0]))
        if error.errno in _REFUSED and str(error.filename).startswith(own):
            raise OutputError(f"{shown} was not written: {error.strerror}.") from error
        raise
