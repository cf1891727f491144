"""Folders that results are written into: new or empty, or with what plait left there."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from plait.errors import OutputError
from plait.io.atomic import check_writable


def check_folder(
    folder: Path,
    names: Sequence[str],
    overwrite: bool = False,
    unfinished: str | None = None,
    own: Sequence[str] = (),
) -> None:
    """Refuse, before the work starts, a folder that results must not be written into.

    Nobody's files are written among by mistake: a folder with other files is refused, unless
    ``overwrite``. Files of other names than the results have are never touched.

    Parameters
    ----------
    folder : Path
        Made later, if it is not there.
    names : sequence of str
        What is to be written into it.
    overwrite : bool
        Replace those, and write beside other files.
    unfinished : str, optional
        A file that tells a folder of a killed run, of which anything is replaced.
    own : sequence of str
        What else such a run may have left there. Hidden files, and those that begin with one of
        the names and a dot, always may.

    Raises
    ------
    OutputError
        The folder is a file, cannot be written, or has other files in it.
    """
    if not folder.is_dir():
        if folder.exists():
            raise OutputError(f"{folder} is a file; give a folder.")
        check_writable(folder)
        return
    if unfinished is not None and (folder / unfinished).exists():
        return
    for name in names:
        check_writable(folder / name, overwrite)
    if overwrite:
        return
    known, begun = {*names, *own}, ("", *names)
    others = sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.name not in known and not entry.name.startswith(tuple(f"{n}." for n in begun))
    )
    if others:
        more = f" and {len(others) - 1:,} more" if len(others) > 1 else ""
        raise OutputError(
            f"{folder} holds files that are not of this command ({others[0]}{more}). Give a new or "
            "an empty folder, or --overwrite (overwrite=True) to write beside them: they are left "
            "as they are."
        )


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make a folder, if it is not there; what fails before it writes anything leaves none behind.

    Parameters
    ----------
    folder : Path
    """
    is_new = not folder.exists()
    folder.mkdir(exist_ok=True)
    try:
        yield
    finally:
        if is_new and not any(folder.iterdir()):
            folder.rmdir()
