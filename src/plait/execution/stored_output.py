"""Stores that are filled block by block, by a run that can be killed and taken up again.

While it is made, the store and a record of its finished blocks are kept beside the place where it
is wanted. The same call after a crash finishes what is missing; other inputs or options start anew.
"""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.errors import DataWarning, OutputError
from plait.execution.blocks import Block
from plait.execution.checkpoint import Run, digest_of
from plait.execution.executors import Workforce, run_blocks
from plait.io.atomic import NO_SPACE, move_into_place
from plait.io.result import Result
from plait.io.store import (
    can_be_filled,
    check_store_writable,
    copy_store,
    local_path,
    replacing_store,
)
from plait.io.stored_arrays import Layout, StoredArray, lay_out, write_rows

_UNREADABLE = "unreadable"
_COPIED_NUMBERS = 1 << 21
"""Numbers, 16 MiB of them, that are copied at once into another order."""
_COPIED_ROWS = 1 << 18
"""Rows that are copied at once at most, for the sake of text."""


class StoredOutput:
    """A store that is being filled.

    Attributes
    ----------
    target : str
        Where it is meanwhile; blocks write their regions there (see `write_region`).
    arrays : tuple of str
        What they write.
    finished : dict of Block to dict
        The blocks of an interrupted run that stand in the store as they were written, with what
        was recorded about them.
    """

    def __init__(self, run: Run, layouts: Mapping[str, Layout], finished: dict[Block, Any]) -> None:
        self._run, self._layouts, self.finished = run, layouts, finished
        self.arrays = tuple(layouts)
        self.target = _store_of(run)

    def record(self, block: Block, digest: str, about: Mapping[str, Any] | None = None) -> None:
        """Write down that a block is finished, with what is to be remembered of it.

        Raises
        ------
        OutputError
            Another run has taken over.
        """
        self._run.record(block, digest, about)

    def stored(self, name: str) -> StoredArray:
        """Return an array of the store, to be read by rows."""
        return StoredArray(self.target, name)

    def complete(self, result: Result) -> None:
        """Add everything of a result that was not written block by block."""
        self._run.require_ownership()
        result.save_around(self.target, self.arrays)

    def complete_in_order(
        self,
        result: Result,
        order: NDArray[np.integer],
        copied: Sequence[str] = (),
        chunk: int | None = None,
    ) -> None:
        """Put the store of a result in place of what blocks wrote.

        Parameters
        ----------
        result : Result
            Its rows need not be those of the blocks.
        order : (rows,) array of int
            For each row of the result that of the blocks; -1 where there is none.
        copied : sequence of str
            Arrays that the result does not hold in memory, which are copied part by part; NaN where
            there is no row, which only those of floats may lack.
        chunk : int, optional
            Rows of a chunk of the copies. Default: as many as are copied at once.
        """
        self._run.require_ownership()
        written, self.target = self.target, f"{self._run.folder}/ordered"
        layouts = {
            name: Layout(layout.dims, (len(order), *layout.shape[1:]), layout.dtype)
            for name, layout in self._layouts.items()
            if name in copied
        }
        widest = max((int(np.prod(item.shape[1:])) for item in layouts.values()), default=1)
        step = max(1, min(_COPIED_NUMBERS // widest, _COPIED_ROWS))
        chunk = step if chunk is None else chunk
        step = max(1, step // chunk) * chunk
        lay_out(self.target, layouts, chunk)
        for name in layouts:
            source = StoredArray(written, name)
            for start in range(0, len(order), step):
                chosen = order[start : start + step]
                places = np.flatnonzero(chosen >= 0)
                wanted, back = np.unique(chosen[places], return_inverse=True)
                known = source[wanted][back] if len(wanted) else np.nan
                part = np.asarray(known)
                if len(places) < len(chosen):
                    part = np.full((len(chosen), *source.shape[1:]), np.nan)
                    part[places] = known
                write_rows(self.target, slice(start, start + len(chosen)), {name: part})
        result.save_around(self.target, tuple(layouts))


@contextmanager
def filled_store(
    out: str | os.PathLike[str],
    layouts: Mapping[str, Layout],
    identity: Mapping[str, Any],
    *,
    n_items: int,
    unit: int,
    items: str,
    force: Workforce,
    overwrite: bool = False,
) -> Iterator[StoredOutput]:
    """Make a store block by block; it appears whole or not at all.

    Parameters
    ----------
    out : str or path
        The store to make, a path or any fsspec URL that the workers can reach.
    layouts : mapping of str to Layout
        The arrays that blocks write.
    identity : mapping
        Everything that the numbers depend on: inputs (by fingerprint), options, versions. A run
        with another identity is another run.
    n_items, unit : int
        Rows in all, and of a chunk: blocks that are worked on at the same time write other chunks.
    items : str
        What the rows are, in the plural, for messages.
    force : Workforce
        Reads back what an interrupted run has finished.
    overwrite : bool
        Whether a store that exists is replaced.

    Yields
    ------
    StoredOutput
        Inside, all blocks are written and recorded, and the result is completed.

    Raises
    ------
    OutputError
        The store exists, cannot be written, the disk is full, or another run has taken over.
    """
    check_store_writable(out, overwrite)
    run = Run(_beside(out))
    with _ending_clearly(run, out, items):
        if reason := run.begin(identity):
            warnings.warn(
                f"{out}: the interrupted run cannot be continued, because {reason}; starting anew.",
                DataWarning,
                stacklevel=5,
            )
        output = StoredOutput(run, layouts, _taken_over(run, layouts, unit, force))
        yield output
        _put_in_place(run, output.target, out, n_items, overwrite)
    run.discard()


def write_region(target: str, rows: slice, arrays: Mapping[str, NDArray[Any]]) -> str:
    """Write some rows of a store; return a digest of what was written."""
    write_rows(target, rows, arrays)
    return _digest(arrays)


@dataclass(frozen=True)
class _ReadBack:
    """Digests what stands in a finished region."""

    target: str
    arrays: tuple[str, ...]

    def __call__(self, block: Block) -> str:
        try:
            found = {name: StoredArray(self.target, name)[block.rows] for name in self.arrays}
        except (OSError, ValueError, RuntimeError, KeyError, TypeError):
            return _UNREADABLE  # a file that a crash cut short cannot be decoded
        return _digest(found)


def _digest(arrays: Mapping[str, Any]) -> str:
    # The width of fixed-width text depends on the block; the text itself is digested.
    plain = [
        np.frombuffer("\0".join(values.flat).encode(), np.uint8)
        if values.dtype.kind in "OU"
        else values
        for values in (arrays[name] for name in sorted(arrays))
    ]
    return digest_of(plain)


@contextmanager
def _ending_clearly(run: Run, out: str | os.PathLike[str], items: str) -> Iterator[None]:
    """Say what is kept when a run is stopped, and when it fails because another took over."""
    try:
        yield
    except KeyboardInterrupt as interruption:
        interruption.add_note(_what_is_kept(run, items))
        raise
    except Exception as error:
        if run.was_taken_over():
            run.abandon()
            run.require_ownership()
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            raise OutputError(
                f"{out} is not finished: no space is left where {run.place} is; free some. "
                f"{_what_is_kept(run, items).capitalize()}"
            ) from error
        raise


def _what_is_kept(run: Run, items: str) -> str:
    count = sum(len(block) for block in run.finished())
    if count == 0:
        return "no block was finished; the same command starts again."
    return (
        f"finished blocks ({count:,} {items}) are kept in {run.place}, and the same command goes "
        "on from there."
    )


def _beside(out: str | os.PathLike[str]) -> str:
    """Return the folder of the run that makes an output."""
    local = local_path(out)
    if local is None:
        return f"{os.fspath(out).rstrip('/')}.run"
    path = Path(os.path.realpath(local))
    return str(path.with_name(f".{path.name}.run"))


def _store_of(run: Run) -> str:
    """Return the store that a run fills; it is put in its place when it is complete."""
    return f"{run.folder}/store"


def _taken_over(
    run: Run, layouts: Mapping[str, Layout], unit: int, force: Workforce
) -> dict[Block, Any]:
    """Return the finished blocks that stand in the store as they were written.

    Without any, an empty store is laid out.
    """
    finished = run.finished()
    good: dict[Block, Any] = {}
    if finished and can_be_filled(_store_of(run)):
        read_back = _ReadBack(_store_of(run), tuple(layouts))
        found = run_blocks(read_back, finished, force, "checking what is finished")
        good = {
            block: finished[block].about
            for block, digest in found
            if digest == finished[block].digest
        }
    if good:
        run.keep(good)
    else:
        run.start_anew()
        lay_out(_store_of(run), layouts, unit)
    return good


def _put_in_place(
    run: Run, target: str, out: str | os.PathLike[str], n_items: int, overwrite: bool
) -> None:
    """Let the store stand where it is wanted.

    On disk it is renamed. An object store cannot rename; there it is copied, and what makes the
    copy complete comes last, when it is sure that nobody else has changed what was copied.
    """
    run.require_all(n_items)
    run.require_ownership()
    local = local_path(out)
    if local is None:
        with replacing_store(out, overwrite) as place:
            copy_store(target, place, run.require_ownership)
    else:
        # What a writer that was killed had not renamed yet is no part of the store.
        for partial in Path(target).rglob("*.partial"):
            partial.unlink(missing_ok=True)
        move_into_place(target, local, overwrite)
