"""What was run on what, written beside every folder and table: one kind of record, one writer."""

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plait.cli.invocation import Flag, Invocation, cpu_and_memory, current

RECORD = "run.json"
"""The record in a folder that a command wrote."""
_FILES = ("FILE", "STORE", "RESULT", "SCAN", "FOLDER")
"""What stands for an option's value in the help where it is a file to read."""
_URL = re.compile(r"\w{2,}:/")


def beside(out: str | Path) -> Path:
    """Return where the record of a file, a store or a prefix of names is."""
    return Path(f"{str(out).rstrip('/')}.{RECORD}")


def write_record(place: Path, counts: Mapping[str, Any] | None = None, **found: Any) -> None:
    """Write what the command that is under way was told, read, counted and used.

    Parameters
    ----------
    place : Path
        ``run.json`` in the folder that was written, or `beside` what was written. Beside a URL
        nothing is written: a store carries its own provenance.
    counts : mapping, optional
        Numbers of samples, variants, rows that were left out and so on.
    **found
        What else belongs to this command, JSON-safe or described (see `plait.provenance`).
    """
    from plait.io import replace_file

    if _URL.match(str(place)):
        return
    record = record_of(current_command(), counts or {}, found)
    with replace_file(place, overwrite=True) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def current_command() -> Invocation:
    """Return the command that is under way."""
    running = current()
    if running is None:
        raise RuntimeError("no command is under way, so that there is nothing to record.")
    return running


def record_of(
    running: Invocation, counts: Mapping[str, Any], found: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the record of a command.

    Its fields are those of `plait.provenance.Provenance` (``options`` are all of the command's,
    given or by default), ``command`` as it was typed, ``cpu_seconds`` and ``peak_memory_bytes`` (of
    the largest process) with those of processes that it started, and ``counts``.
    """
    from plait.execution.threads import resolve_threads
    from plait.provenance import Provenance, json_safe

    cpu, memory = cpu_and_memory()
    options = {_key(running.flags[name], name): value for name, value in running.values.items()}
    origin = Provenance(
        running.command,
        options,
        seed=options.get("seed"),
        inputs=_inputs(running),
        seconds=time.perf_counter() - running.started,
        threads=resolve_threads(running.values.get("threads")),
    )
    return {
        "command": running.line,
        **origin.to_dict(),
        "cpu_seconds": cpu - running.cpu_started,
        "peak_memory_bytes": memory,
        "counts": json_safe(counts),
        **json_safe(found),
    }


def _key(flag: Flag, name: str) -> str:
    return flag.name[2:].replace("-", "_") if flag.name.startswith("--") else name


def _inputs(running: Invocation) -> dict[str, Any]:
    """Return what `plait.provenance.glance` says of every file read; None of folders and URLs.

    Genotypes are several files where some lie beside the one that was named.
    """
    from plait.provenance import glance

    found: dict[str, Any] = {}
    for name, value in running.values.items():
        kind = running.flags[name].value or ""
        if name == "out" or value is None or not any(word in kind for word in _FILES):
            continue
        for text in value if isinstance(value, list | tuple) else [value]:
            place = str(text).partition("=")[2] if "NAME=" in kind and "=" in str(text) else text
            if "|" in kind and not Path(place).exists():
                continue  # a word or a key, which may stand instead of a file
            for file in _parts(str(place)) if name == "geno" else [str(place)]:
                found[file] = glance(file) if Path(file).is_file() else None
    return found


def _parts(geno: str) -> list[str]:
    """Return the files of genotypes; the one that was named as it was written."""
    from plait.io.genotypes import genotype_files

    files = genotype_files(geno)
    return [geno if Path(geno) == Path(file) else str(file) for file in files]
