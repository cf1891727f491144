"""How much memory there is, and how it is written on a command line."""

import ctypes
import os
import re
import sys
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from plait.data.words import counted
from plait.errors import OptionError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_SMALLEST = 2**20
_UNLIMITED = 2**62
"""A group of version 1 without a limit has the largest number of whole pages."""


class _Files(NamedTuple):
    """Where a version of control groups tells what is allowed, used, and can be had back."""

    limit: str
    used: str
    pages: str


_V1 = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = _Files("memory.max", "memory.current", "inactive_file")


def parse_bytes(amount: int | str) -> int:
    """Return a number of bytes given as a number or as text such as ``"2GB"`` or ``"512 MiB"``.

    Raises
    ------
    OptionError
        It is not an amount of memory, or less than 1 MiB.
    """
    value = None
    if isinstance(amount, str):
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([kmgt]?)(i?)b?\s*", amount.lower())
        if match is not None:
            number, unit, binary = match.groups()
            value = int(float(number) * (_BINARY if binary and unit else _UNITS)[unit])
    else:
        value = int(amount)
    if value is None or value < _SMALLEST:
        bytes_ = "" if value is None else f" ({counted(value, 'byte')})"
        raise OptionError(
            f"memory is {amount!r}{bytes_}; give an amount of at least 1 MiB ({_SMALLEST:,} bytes; "
            "MB are millions), such as '2GB' or '512MiB'."
        )
    return value


def free_memory() -> int:
    """Return the memory in bytes that this process could still take, swap not counted."""
    return min([_machine_free(), *group_headrooms()])


def group_headrooms(root: Path = Path("/")) -> list[int]:
    """Return what the process's control groups, its own and those above it, leave it in bytes.

    Parameters
    ----------
    root : path
        Where ``proc`` and ``sys`` are.

    Notes
    -----
    Pages of files that were read once (``inactive_file``) count as used until something needs the
    room; a group full of them is not full. A container may see its own group at the mount point
    under another path than the one it is told: what does not exist there is passed over.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            version, mounts = _V2, [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"]
        elif "memory" in controllers.split(","):
            version, mounts = _V1, [root / "sys/fs/cgroup/memory"]
        else:
            continue
        for group in [PurePosixPath(path), *PurePosixPath(path).parents]:
            for mount in mounts:
                room = _headroom(mount / group.relative_to("/"), version)
                found += [] if room is None else [room]
    return found


def _headroom(group: Path, version: _Files) -> int | None:
    limit = _read_number(group / version.limit)
    if limit is None or limit >= _UNLIMITED:
        return None
    used = _read_number(group / version.used)
    if used is None:
        return None
    return max(limit - max(used - _read_statistic(group / "memory.stat", version.pages), 0), 0)


def _read_statistic(path: Path, name: str) -> int:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0)


def memory_budget(memory: int | str | None) -> int:
    """Return the budget in bytes; None is half of what is free."""
    return max(free_memory() // 2, _SMALLEST) if memory is None else parse_bytes(memory)


def give_back() -> None:
    """Give the memory that was freed back to the system, after work that has taken much.

    The GNU C library keeps what lies between things that are still used, and after some work that
    is tens of MB. Other libraries are left as they are. Takes about a millisecond.
    """
    if (trim := _trim()) is not None:
        trim(0)


@cache
def _trim() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def _machine_free() -> int:
    table = Path("/proc/meminfo")
    if table.exists():
        for line in table.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # there is no such limit, or it says "max"
        return None
