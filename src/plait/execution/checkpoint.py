"""Runs that can be killed: what is being made, from what, and which blocks of it are finished.

A run folder stands beside the output while it is made. It says what the run is and whose it is
(``run.json``). In a folder of its owner it holds what is made, and one small file per finished
block, written after the block's region of the output, with a digest of what was written. A run
that is started again with the same inputs and options takes over the blocks whose region still has
this digest and works on the others; anything else starts anew.

Whoever begins a run owns it from then on. The former owner may still be alive, or a cluster may
still work for it: it finds at its next record that it was replaced, and where files can be renamed
the new owner has moved what there is to another folder, out of reach of late writers. In an object
store the folder stays while the run is the same; late writers put the very bytes that stand there.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.errors import OutputError
from plait.execution.blocks import Block
from plait.provenance import json_safe

_RUN = "run.json"
_BLOCKS = "blocks"
_TOLD = 3


@dataclass(frozen=True, slots=True)
class Finished:
    """What is recorded of a finished block: a digest of what it wrote, and what else it found."""

    digest: str
    about: dict[str, Any]


class Run:
    """The folder of a run that is under way.

    Parameters
    ----------
    place : str
        Where it is, a path or any fsspec URL.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self._identity: Any = None
        self._owner = ""
        self._folder = ""
        self._is_begun = self._is_resumed = False

    @property
    def folder(self) -> str:
        """Where the run keeps what it makes; fixed by `begin` and `start_anew`."""
        return f"{self.place}/{self._folder}"

    def begin(self, identity: Mapping[str, Any]) -> str | None:
        """Begin, or take up a run that was interrupted; another owner finds itself replaced.

        Parameters
        ----------
        identity : mapping
            Everything that the numbers depend on: inputs (by fingerprint), options, versions.

        Returns
        -------
        str or None
            Why what was there cannot be used, when there was something; then it is removed. None
            when the run is new or goes on.
        """
        self._identity = json_safe(identity)
        filesystem, place = self._filesystem()
        # What others make after this is theirs: only what is here now may be removed.
        entries = self._entries()
        reason, former = None, None
        if f"{place}/{_RUN}" in entries:
            found = self._record_of_run()
            reason = _difference(found.get("identity"), self._identity)
            candidates = [found.get("folder"), found.get("former")]
            if reason is None:
                former = next((c for c in candidates if f"{place}/{c}" in entries), None)
        self._owner, self._is_begun = token_hex(8), False
        self._is_resumed = former is not None
        can_rename = _is_local(filesystem)
        self._folder = self._owner if former is None or can_rename else former
        self._claim(former)
        if former is not None and can_rename:
            try:
                Path(f"{place}/{former}").rename(f"{place}/{self._folder}")
            except OSError:
                self.require_ownership()
                raise
        for entry in entries - {f"{place}/{name}" for name in (_RUN, former, self._folder)}:
            _remove(filesystem, entry)
        return reason

    def start_anew(self) -> None:
        """Leave what was taken over, and make everything in a new folder."""
        self.require_ownership()
        if not self._is_resumed:
            return
        left, self._folder, self._is_resumed = self._folder, token_hex(8), False
        self._claim(None)
        filesystem, place = self._filesystem()
        _remove(filesystem, f"{place}/{left}")

    def record(self, block: Block, digest: str, about: Mapping[str, Any] | None = None) -> None:
        """Write down that a block is finished.

        Raises
        ------
        OutputError
            Another run has taken over.
        """
        self.require_ownership()
        content = {"start": block.start, "stop": block.stop, "digest": digest}
        self._write(self._name_of(block), content | {"about": json_safe(dict(about or {}))})

    def finished(self) -> dict[Block, Finished]:
        """Return the finished blocks with what is recorded of them, in order."""
        filesystem, place = self._filesystem()
        folder = f"{place}/{self._folder}/{_BLOCKS}"
        try:
            names = filesystem.ls(folder, detail=False)
        except FileNotFoundError:
            return {}
        found = [self._read(str(name)) for name in names if str(name).endswith(".json")]
        # A record that was cut short or damaged is a block that is not finished.
        whole = [item for item in found if _is_block_record(item)]
        blocks = {
            Block(item["start"], item["stop"]): Finished(item["digest"], item["about"])
            for item in whole
        }
        return dict(sorted(blocks.items()))

    def keep(self, blocks: Iterable[Block]) -> None:
        """Forget the finished blocks that are not among these: they are worked on again."""
        filesystem, _ = self._filesystem()
        kept = set(blocks)
        for block in self.finished():
            if block not in kept:
                with suppress(FileNotFoundError):
                    filesystem.rm(self._name_of(block))

    def require_ownership(self) -> None:
        """Raise OutputError when another run has taken over."""
        if self.was_taken_over():
            raise OutputError(
                f"another run has taken over {self.place} or removed it, and this one stops; let "
                "the other one finish, or choose another output."
            )

    def was_taken_over(self) -> bool:
        """Tell whether somebody else has begun or removed the run since it was begun here."""
        return self._is_begun and self._record_of_run().get("owner") != self._owner

    def require_all(self, n_items: int) -> None:
        """Raise OutputError unless the finished blocks are all of the items."""
        position = 0
        for block in self.finished():
            if block.start > position:
                break
            position = max(position, block.stop)
        if position != n_items:
            raise OutputError(
                f"{self.place} lacks blocks from {position:,} on; run the same command again."
            )

    def abandon(self) -> None:
        """Remove what this run made after another one took over."""
        filesystem, place = self._filesystem()
        if _is_local(filesystem):  # elsewhere the folder may be the other one's too
            _remove(filesystem, f"{place}/{self._folder}")
            _remove_if_empty(filesystem, place)

    def discard(self) -> None:
        """Remove the folder of the run with all that is in it."""
        filesystem, place = self._filesystem()
        entries = self._entries()
        for entry in sorted(entries, key=lambda name: name != f"{place}/{_RUN}"):
            _remove(filesystem, entry)
        _remove_if_empty(filesystem, place)

    def _claim(self, former: str | None) -> None:
        content = {"owner": self._owner, "folder": self._folder, "former": former}
        _, place = self._filesystem()
        self._write(f"{place}/{_RUN}", content | {"identity": self._identity})
        self._is_begun = True

    def _record_of_run(self) -> dict[str, Any]:
        _, place = self._filesystem()
        found = self._read(f"{place}/{_RUN}")
        return found if isinstance(found, dict) else {}

    def _name_of(self, block: Block) -> str:
        _, place = self._filesystem()
        return f"{place}/{self._folder}/{_BLOCKS}/{block.start:015d}.json"

    def _entries(self) -> set[str]:
        filesystem, place = self._filesystem()
        try:
            return {str(name).rstrip("/") for name in filesystem.ls(place, detail=False)}
        except FileNotFoundError:
            return set()

    def _filesystem(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        filesystem, place = url_to_fs(self.place)
        filesystem.invalidate_cache()
        return filesystem, place

    def _read(self, name: str) -> Any:
        filesystem, _ = self._filesystem()
        try:
            return json.loads(filesystem.cat_file(name))
        except (ValueError, FileNotFoundError):
            return None

    def _write(self, name: str, content: Any) -> None:
        """Write a file whole: on disk by renaming, in an object store a put is whole by itself."""
        filesystem, _ = self._filesystem()
        text = json.dumps(content).encode()
        if not _is_local(filesystem):
            filesystem.pipe_file(name, text)
            return
        filesystem.makedirs(name.rpartition("/")[0], exist_ok=True)
        partial = Path(f"{name}.{token_hex(4)}.partial")
        try:
            partial.write_bytes(text)
            partial.replace(name)
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise


def digest_of(arrays: Sequence[NDArray[Any]]) -> str:
    """Return a digest of some arrays, in order."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _is_local(filesystem: Any) -> bool:
    return "file" in filesystem.protocol


def _remove(filesystem: Any, name: str) -> None:
    """Remove a file or a folder, of which a late writer may still add parts."""
    if not _is_local(filesystem):
        with suppress(FileNotFoundError):
            filesystem.rm(name, recursive=True)
        return
    path = Path(name)
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    # Renamed first: nobody may find, or put in its place, a folder that is half removed.
    removed = path.with_name(f"{token_hex(8)}.removed")
    with suppress(OSError):
        path.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)


def _remove_if_empty(filesystem: Any, place: str) -> None:
    if _is_local(filesystem):
        with suppress(OSError):
            Path(place).rmdir()


def _is_block_record(item: Any) -> bool:
    return (
        isinstance(item, dict)
        and all(type(item.get(name)) is int for name in ("start", "stop"))
        and 0 <= item["start"] < item["stop"]
        and isinstance(item.get("digest"), str)
        and isinstance(item.get("about"), dict)
    )


def _difference(found: Any, wanted: Any) -> str | None:
    """Say in words how two identities differ; None when they do not."""
    if not isinstance(found, dict):
        return "its record is damaged"
    differences = []
    for name in sorted(set(found) | set(wanted)):
        old, new = found.get(name), wanted.get(name)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            parts = [key for key in sorted(set(old) | set(new)) if old.get(key) != new.get(key)]
            differences += [_changed(key, old.get(key), new.get(key)) for key in parts]
        else:
            differences.append(_changed(name, old, new))
    if not differences:
        return None
    more = f" and {len(differences) - _TOLD} more" if len(differences) > _TOLD else ""
    return ", ".join(differences[:_TOLD]) + more


def _changed(name: str, old: Any, new: Any) -> str:
    digests = ("blake2b:", "sha256:")
    if any(isinstance(value, str) and value.startswith(digests) for value in (old, new)):
        return f"{name} changed"
    return f"{name} was {old} and is {new}"
