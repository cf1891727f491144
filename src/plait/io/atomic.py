"""Writing whole or not at all: a temporary sibling, renamed when it is complete."""

import errno
import os
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
    """Yield a temporary path beside ``path``, renamed to it when the block ends well.

    When the block raises, the temporary file is removed and what stood at ``path`` is untouched.
    The temporary name keeps the suffixes, so that writers which look at them do the same.

    Raises
    ------
    OutputError
        See `check_writable`; also when the disk is full.
    """
    target = check_writable(path, overwrite)
    if target.is_dir():
        raise OutputError(f"{path} is a folder; a file is to be written there.")
    temporary = _sibling(target)
    with _said_clearly(path, temporary):
        yield temporary
        _refuse_newcomer(path, target, overwrite)
        temporary.replace(target)


@contextmanager
def replace_folder(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Yield a new temporary folder beside ``path``, renamed to it when the block ends well.

    When the block raises, the temporary folder is removed and what stood at ``path`` is untouched.

    Raises
    ------
    OutputError
        See `check_writable`; also when the disk is full.
    """
    target = check_writable(path, overwrite)
    if target.is_file():
        raise OutputError(f"{path} is a file; a store (a folder) is to be written there.")
    temporary = _sibling(target)
    with _said_clearly(path, temporary):
        temporary.mkdir()
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


def _sibling(path: Path) -> Path:
    stem = path.name.split(".")[0]
    return path.with_name(f".{stem}.{token_hex(4)}.partial{path.name[len(stem) :]}")


def _refuse_newcomer(shown: str | os.PathLike[str], target: Path, overwrite: bool) -> None:
    if not overwrite and target.exists():
        raise OutputError(f"{shown} appeared while it was being written; it is left as it is.")


@contextmanager
def _said_clearly(shown: str | os.PathLike[str], temporary: Path) -> Iterator[None]:
    """Remove the temporary output on any exception and say what a full disk means."""
    try:
        yield
    except BaseException as error:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            raise OutputError(
                f"{shown} was not written: no space left on the disk. Nothing was kept; "
                "free some space or write elsewhere."
            ) from error
        if (
            isinstance(error, OSError)
            and error.errno in _REFUSED
            and str(error.filename).startswith(str(temporary))
        ):
            raise OutputError(f"{shown} was not written: {error.strerror}.") from error
        raise
