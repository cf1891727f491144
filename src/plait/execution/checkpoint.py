"""Runs that can be killed: what is being made, from what, and which blocks of it are finished.

A run folder stands beside the output while it is made. It says what the run is (``run.json``) and
holds one small file per finished block, written after the block's region of the output, with a
digest of what was written. A run that is started again with the same inputs and options keeps the
blocks whose region still has this digest and works on the others; anything else starts anew.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.execution.blocks import Block
from plait.provenance import json_safe

_RUN = "run.json"
_BLOCKS = "blocks"
_TOLD = 3


@dataclass(frozen=True, slots=True)
class Run:
    """The folder of a run that is under way.

    Attributes
    ----------
    place : str
        Where it is, a path or any fsspec URL.
    """

    place: str

    def begin(self, identity: Mapping[str, Any]) -> str | None:
        """Begin, or take up a run that was interrupted.

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
        wanted = json_safe(identity)
        filesystem, folder = self._filesystem()
        reason = None
        if filesystem.exists(f"{folder}/{_RUN}"):
            reason = _difference(self._read(f"{folder}/{_RUN}"), wanted)
            if reason is None:
                return None
        self.discard()
        self._write(f"{folder}/{_RUN}", wanted)
        return reason

    def record(self, block: Block, digest: str) -> None:
        """Write down that a block is finished."""
        _, folder = self._filesystem()
        name = f"{folder}/{_BLOCKS}/{block.start:015d}.json"
        self._write(name, {"start": block.start, "stop": block.stop, "digest": digest})

    def finished(self) -> dict[Block, str]:
        """Return the finished blocks with their digests, in order."""
        filesystem, folder = self._filesystem()
        if not filesystem.exists(f"{folder}/{_BLOCKS}"):
            return {}
        # A file that was cut short by the crash is a block that is not finished.
        names = filesystem.ls(f"{folder}/{_BLOCKS}", detail=False)
        found = [self._read(name) or {} for name in names if str(name).endswith(".json")]
        whole = [item for item in found if {"start", "stop", "digest"} <= set(item)]
        blocks = {Block(item["start"], item["stop"]): str(item["digest"]) for item in whole}
        return dict(sorted(blocks.items()))

    def discard(self) -> None:
        """Remove the folder of the run with all that is in it."""
        filesystem, folder = self._filesystem()
        if filesystem.exists(folder):
            filesystem.rm(folder, recursive=True)

    def _filesystem(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        filesystem, folder = url_to_fs(self.place)
        filesystem.invalidate_cache()
        return filesystem, folder

    def _read(self, name: str) -> Any:
        filesystem, _ = self._filesystem()
        try:
            return json.loads(filesystem.cat_file(name))
        except ValueError:
            return None

    def _write(self, name: str, content: Any) -> None:
        """Write a file whole: on disk by renaming, in an object store a put is whole by itself."""
        filesystem, _ = self._filesystem()
        text = json.dumps(content).encode()
        if "file" not in filesystem.protocol:
            filesystem.pipe_file(name, text)
            return
        filesystem.makedirs(name.rpartition("/")[0], exist_ok=True)
        filesystem.pipe_file(f"{name}.partial", text)
        Path(f"{name}.partial").replace(name)


def digest_of(arrays: Sequence[NDArray[Any]]) -> str:
    """Return a digest of some arrays, in order."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


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
    if isinstance(old, str) and old.startswith("blake2b:"):
        return f"{name} changed"
    return f"{name} was {old} and is {new}"
