"""How much memory there is, and how it is written on a command line."""

import os
import re
from pathlib import Path

from plait.errors import OptionError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_SMALLEST = 2**20


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
        raise OptionError(
            f"memory is {amount!r}; give an amount of at least 1 MiB, such as '2GB' or '512MiB'."
        )
    return value


def free_memory() -> int:
    """Return the memory in bytes that this process could still take, swap not counted."""
    limits = [_machine_free()]
    group = Path("/sys/fs/cgroup")
    for limit, used in (
        (group / "memory.max", group / "memory.current"),
        (group / "memory/memory.limit_in_bytes", group / "memory/memory.usage_in_bytes"),
    ):
        allowed = _read_number(limit)
        if allowed is not None:
            limits.append(max(allowed - (_read_number(used) or 0), 0))
    return min(limits)


def memory_budget(memory: int | str | None) -> int:
    """Return the budget in bytes; None is half of what is free."""
    return max(free_memory() // 2, _SMALLEST) if memory is None else parse_bytes(memory)


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
