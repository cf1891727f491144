"""Stages of a study: a stage whose inputs and options are those of last time is not done again."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from plait.io import replace_file
from plait.provenance import Provenance, json_safe


class Stages:
    """The stages of a study in a folder.

    A stage is known by its options and by the stages before it: a change in one makes everything
    after it again. What a stage writes is whole before the stage is recorded.

    Parameters
    ----------
    folder : Path
        Where the study is written.
    inputs : mapping
        Fingerprints of the input files, and all that every stage depends on.
    tell : callable
        Called with ``(name, what, seconds)``; seconds are None for a stage that was kept.
    record : str
        The file in the folder that says what is done.
    """

    def __init__(
        self,
        folder: Path,
        inputs: Mapping[str, Any],
        tell: Callable[[str, str, float | None], None],
        record: str = "stages.json",
    ) -> None:
        self.folder, self.tell = folder, tell
        self._place = folder / record
        self._done = self._read()
        self._chain = _digest({"inputs": inputs, "version": Provenance("study").version})

    def run(
        self,
        name: str,
        what: str,
        work: Callable[[], None],
        outputs: tuple[str, ...],
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Do a stage, unless it was done and its outputs are there.

        Parameters
        ----------
        name, what : str
            For the person who waits.
        work : callable
            Writes the outputs, replacing what is there.
        outputs : tuple of str
            Files and stores in the folder.
        options : mapping, optional
            What the stage depends on besides the stages before it.
        """
        self._chain = _digest({"before": self._chain, "name": name, "options": options or {}})
        there = all((self.folder / output).exists() for output in outputs)
        if there and self._done.get(name) == self._chain:
            self.tell(name, what, None)
            return
        self._done.pop(name, None)
        started = time.perf_counter()
        try:
            work()
        except KeyboardInterrupt as interruption:
            if not hasattr(interruption, "__notes__"):
                interruption.add_note("finished stages are kept; the same command goes on.")
            raise
        self._done[name] = self._chain
        self._write()
        self.tell(name, what, time.perf_counter() - started)

    def drop(self, name: str, outputs: tuple[str, ...]) -> None:
        """Remove what a stage wrote that the study has no more, so that it is not taken for its."""
        if self._done.pop(name, None) is None:
            return
        for output in outputs:
            place = self.folder / output
            if place.is_dir():
                shutil.rmtree(place)
            else:
                place.unlink(missing_ok=True)
        self._write()

    def _write(self) -> None:
        with replace_file(self._place, overwrite=True) as temporary:
            temporary.write_text(json.dumps(self._done, indent=2) + "\n", encoding="utf-8")

    def _read(self) -> dict[str, str]:
        try:
            found = json.loads(self._place.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _digest(content: Any) -> str:
    text = json.dumps(json_safe(content), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
