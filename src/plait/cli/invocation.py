"""The command that runs: its options as they were typed, and the time and memory it takes."""

import shlex
import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Flag:
    """How an option is written.

    Attributes
    ----------
    name : str
        With its dashes, ``--min-maf``; of what has no name, its place holder, ``FILE``.
    value : str or None
        What stands for its value, ``NAME``; None for a switch.
    negative : str or None
        What switches it off, ``--no-loco``.
    """

    name: str
    value: str | None = None
    negative: str | None = None


@dataclass(frozen=True)
class Invocation:
    """One run of the program.

    Attributes
    ----------
    words : tuple of str
        As typed, without the name of the program.
    started, cpu_started : float
        Clocks when it began.
    command : str
        Its name, ``gwas scan``; empty until it is known.
    flags : mapping of str to Flag
        How the parameters of the command are written.
    values : mapping of str to object
        What the parameters are, given or by default.
    given : frozenset of str
        The parameters that were given.
    """

    words: tuple[str, ...]
    started: float
    cpu_started: float
    command: str = ""
    flags: Mapping[str, Flag] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    given: frozenset[str] = frozenset()

    @property
    def line(self) -> str:
        """What was typed."""
        return shlex.join(("plait", *self.words))


_current: ContextVar[Invocation | None] = ContextVar("plait_invocation", default=None)


def begin(words: Sequence[str]) -> None:
    """Note what was typed, and when."""
    _current.set(Invocation(tuple(words), time.perf_counter(), cpu_and_memory()[0]))


def enter(context: Any) -> None:
    """Note the command that was chosen and its options, from the context of its parser."""
    begun = current()
    if begun is None:  # the parser was called without the program around it
        begin(())
        begun = current()
    assert begun is not None
    flags = {option.name: flag_of(option) for option in context.command.params}
    given = {
        name
        for name in context.params
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }
    _current.set(
        replace(
            begun,
            command=context.command_path.partition(" ")[2],
            flags=flags,
            values=dict(context.params),
            given=frozenset(given),
        )
    )


def current() -> Invocation | None:
    """Return the run that is under way."""
    return _current.get()


def flag_of(option: Any) -> Flag:
    """Return how an option or argument of a parser is written."""
    long = [name for name in option.opts if name.startswith("--")]
    if not long:
        return Flag(option.metavar or option.name.upper(), option.metavar)
    if option.is_flag:
        return Flag(long[0], None, next(iter(option.secondary_opts), None))
    return Flag(long[0], option.metavar or "VALUE")


def cpu_and_memory() -> tuple[float, int | None]:
    """Return the CPU seconds of this process and of its children that ended, and the peak memory.

    Bytes, of the largest of these processes; None where the system does not tell.
    """
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return time.process_time(), None
    import sys

    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    unit = 1 if sys.platform == "darwin" else 1024
    seconds = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    return seconds, unit * max(usage.ru_maxrss for usage in usages)
