"""What a person sees: progress, warnings and errors on stderr, everything else on stdout."""

import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TextIO

from plait.cli.words import as_options
from plait.errors import DataWarning, PlaitWarning

if TYPE_CHECKING:
    from rich.progress import Progress


@contextmanager
def session(
    threads: int | None, quiet: bool, debug: bool = False, log_json: bool = False
) -> Iterator[None]:
    """Run the body of a command with its threads, its progress and one line per warning.

    Parameters
    ----------
    threads : int or None
    quiet : bool
        Show no progress and no notes.
    debug : bool
        Show the warnings of other libraries too.
    log_json : bool
        Write a line of JSON to stderr per finished block, stage, warning and note.
    """
    from plait.execution.progress import listen
    from plait.execution.threads import use_threads

    with ExitStack() as stack:
        stack.enter_context(use_threads(threads))
        stack.enter_context(_warnings_as_lines(debug))
        stack.enter_context(_notices_as_lines(quiet))
        if log_json:
            stack.enter_context(_blocks_as_json())
        if log_json or not quiet:
            stages = _stages_of(log_json)
            token = _stages.set(stages)
            stack.callback(_stages.reset, token)
            stack.callback(stages.close)
            if not quiet:
                stack.enter_context(listen(stages))
        yield


def _stages_of(log_json: bool) -> "_StageLines | _StageBars":
    if log_json:
        return _StageRecords(sys.stderr)
    return _StageBars() if sys.stderr.isatty() else _StageLines(sys.stderr)


@contextmanager
def workers_of(
    dask: str | None, memory: str | None, threads: int | None
) -> Iterator[dict[str, Any]]:
    """Yield who works on a store: the ``executor``, ``memory`` and ``threads`` of the library."""
    from plait.execution.executors import dask_client
    from plait.execution.memory import parse_bytes

    if memory is not None:
        parse_bytes(memory)  # refused before the work, not in its midst
    with dask_client(dask) as client:
        yield {"executor": client, "memory": memory, "threads": threads}


@contextmanager
def _notices_as_lines(quiet: bool) -> Iterator[None]:
    """Show what the library logs for the person who waits.

    Warnings (rows that were left out, and why) are warnings here too; of the rest what is marked
    as a ``notice``: how data were understood, where they could be meant otherwise.
    """
    told: set[str] = set()

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if record.levelno >= logging.WARNING:
                warnings.warn(text, DataWarning, stacklevel=2)
            elif getattr(record, "notice", False) and text not in told:
                told.add(text)
                say(quiet, f"note: {as_options(text)}")

    # Libraries may give the root logger a handler of its own (the reader of BGEN does), which would
    # say everything again.
    logger = logging.getLogger("plait")
    propagates, logger.propagate = logger.propagate, False
    try:
        with _listening("plait", Lines()):
            yield
    finally:
        logger.propagate = propagates


@contextmanager
def _listening(name: str, handler: logging.Handler) -> Iterator[None]:
    """Let a handler have what a logger is told from INFO on."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@contextmanager
def _blocks_as_json() -> Iterator[None]:
    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            block = getattr(record, "block", None)
            if block is not None:
                print(_as_json(record.created, "block", **block), file=sys.stderr, flush=True)

    with _listening("plait.execution", Lines()):
        yield


def _as_json(when: float, event: str, **about: Any) -> str:
    import json
    from datetime import UTC, datetime

    now = datetime.fromtimestamp(when, UTC).isoformat()
    return json.dumps({"time": now, "event": event, **about})


def say(quiet: bool, text: str) -> None:
    """Write a line on what is done or what was found."""
    if quiet:
        return
    stages = _stages.get()
    if isinstance(stages, _StageBars) and stages.are_shown:
        stages.write(text)
        return
    if isinstance(stages, _StageLines):
        stages.settle()
    print(text, flush=True)


def clear_bars() -> None:
    """Take the bars of stages that are over off the screen, where a line says what they did."""
    stages = _stages.get()
    if isinstance(stages, _StageBars):
        stages.clear()


def announce_compilation(quiet: bool) -> None:
    """From now on, say once when kernels are compiled: those not in Numba's cache."""
    from numba.core import event

    class Notice(event.Listener):
        said = quiet

        def on_start(self, event: Any) -> None:
            if not self.said:
                self.said = True
                _write_error("compiling kernels (once)")

        def on_end(self, event: Any) -> None:
            """Nothing to say."""

    for listener in _listeners:
        event.unregister("numba:compile", listener)  # type: ignore[no-untyped-call]
    _listeners[:] = [Notice()]
    event.register("numba:compile", _listeners[0])  # type: ignore[no-untyped-call]


_listeners: list[Any] = []


@contextmanager
def _warnings_as_lines(debug: bool) -> Iterator[None]:
    told: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        text = " ".join(as_options(str(message)).split())
        if text not in told:
            told.add(text)
            _write_error(f"plait: warning: {text}")

    with warnings.catch_warnings():
        warnings.simplefilter("default" if debug else "ignore")
        warnings.simplefilter("always", PlaitWarning)
        warnings.showwarning = show
        yield


def _write_error(text: str) -> None:
    stages = _stages.get()
    if stages is None:
        print(text, file=sys.stderr, flush=True)
    else:
        stages.write(text)


class _StageLines:
    """Progress where stderr is not a terminal: one line per stage, when it is first over."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._label, self._total, self._seconds, self._note = "", 0, 0.0, ""
        self._started, self._is_running = 0.0, False
        self._told: set[str] = set()

    def begin(self, label: str, total: int) -> int:
        if label != self._label:
            self._flush()
            self._label, self._seconds = label, 0.0
        self._total, self._note = total, ""
        self._started, self._is_running = time.perf_counter(), True
        return 0

    def advance(self, key: int, steps: int, note: str = "") -> None:
        self._note = note or self._note

    def end(self, key: int) -> None:
        self._seconds += time.perf_counter() - self._started
        self._is_running = False

    def write(self, text: str) -> None:
        """Write a line after those of the stages that are over."""
        self.settle()
        self._print(text)

    def settle(self) -> None:
        """Write the lines of the stages that are over."""
        if not self._is_running:
            self._flush()

    def close(self) -> None:
        self._flush()

    def _flush(self) -> None:
        if self._label and self._label not in self._told:
            self._told.add(self._label)
            self._tell()
        self._label = ""

    def _tell(self) -> None:
        total = f"{self._total:,}" if self._total else ""
        line = f"{self._label:<26} {total:>10}  {self._seconds:6.1f} s  {self._note}"
        self._print(line.rstrip())

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class _StageRecords(_StageLines):
    """Progress for programs: everything on stderr is a line of JSON, but for the last error."""

    def write(self, text: str) -> None:
        self._print(_as_json(time.time(), "message", message=text))

    def _tell(self) -> None:
        about = {"what": self._label, "total": self._total, "seconds": self._seconds}
        self._print(_as_json(time.time(), "stage", **about, note=self._note))


class _StageBars:
    """Progress on a terminal: a bar per stage, with its rate and the time left."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._tasks: dict[str, Any] = {}

    def begin(self, label: str, total: int) -> Any:
        if self._progress is None:
            self._progress = _progress_display()
            self._progress.start()
        if label in self._tasks:
            # The same stage once more: its bar starts anew, bars do not pile up.
            self._progress.reset(self._tasks[label], total=total or None, note="")
        else:
            self._tasks[label] = self._progress.add_task(label, total=total or None, note="")
        return self._tasks[label]

    def advance(self, key: Any, steps: int, note: str = "") -> None:
        if self._progress is not None:
            # What was said once stays: "resumed after ..." is not for the first block alone.
            said: dict[str, Any] = {"note": note} if note else {}
            self._progress.update(key, advance=steps, **said)

    def end(self, key: Any) -> None:
        if self._progress is not None:
            task = next(task for task in self._progress.tasks if task.id == key)
            steps = max(task.completed if task.total is None else task.total, 1)
            self._progress.update(key, total=steps, completed=steps)

    @property
    def are_shown(self) -> bool:
        """Whether bars are on the screen now."""
        return self._progress is not None

    def write(self, text: str) -> None:
        """Write a line above the bars."""
        if self._progress is None:
            print(text, file=sys.stderr, flush=True)
        else:
            self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def clear(self) -> None:
        """Take the bars away; the next stage begins with none."""
        if self._progress is not None:
            self._progress.live.transient = True
        self.close()

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
            self._tasks = {}


_stages: ContextVar[_StageLines | _StageBars | None] = ContextVar("plait_stages", default=None)


def _progress_display() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.text import Text

    class Pace(ProgressColumn):
        def render(self, task: Task) -> Text:
            seconds = task.finished_time if task.finished else task.elapsed
            text = f"{seconds or 0.0:.1f} s"
            if not task.finished and task.speed and task.time_remaining is not None:
                text += f"  {task.speed:,.0f}/s, {task.time_remaining:.0f} s left"
            return Text(text, style="dim")

    return Progress(
        TextColumn("{task.description:<26}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:>10,.0f}"),
        Pace(),
        TextColumn("{task.fields[note]}", style="dim"),
        console=Console(stderr=True),
        refresh_per_second=8,
    )


def describe(error: BaseException) -> str:
    """Return the one line that tells what went wrong and what to do."""
    from plait.errors import PlaitError

    if isinstance(error, KeyboardInterrupt):
        notes = getattr(error, "__notes__", ["nothing was written."])
        text = f"interrupted; {' '.join(notes)}"
    elif isinstance(error, PlaitError):
        text = as_options(str(error))
    elif hasattr(error, "format_message"):  # wrong usage, as Typer tells it
        said = error.format_message().replace("Value error, ", "")
        text = f"{said}{'' if said.endswith(('.', '?')) else '.'} See --help."
    elif isinstance(error, MemoryError):
        text = f"not enough memory. {error}"
    elif isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        text = f"{place}{error.strerror or error}."
    else:
        text = (
            f"{type(error).__name__}: {error}. This is a defect of plait: run it again with "
            "--debug and report what it prints."
        )
    return " ".join(text.split())


INTERRUPTED = 130


def exit_status(error: BaseException) -> int:
    """Return the exit status of an error: 2 bad input or usage, 3 no usable result, else 1."""
    from plait.errors import ConvergenceError, InputError, OutputError

    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, OutputError) and isinstance(error.__cause__, OSError):
        return 1  # the disk is full: nothing is wrong with the input
    if isinstance(error, InputError) or hasattr(error, "format_message"):
        return 2
    if isinstance(error, ConvergenceError) or type(error).__name__ == "LinAlgError":
        return 3
    return 1


def report_error(error: BaseException) -> None:
    """Print one clear line for an error."""
    print(f"plait: error: {describe(error)}", file=sys.stderr, flush=True)
