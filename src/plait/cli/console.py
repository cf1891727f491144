"""What a person sees: progress bars, warnings, errors and exit statuses."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


class _Bars:
    """Shows the stages of long work; a stage that is over leaves one line."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def begin(self, label: str, total: int) -> int:
        return int(self._progress.add_task(label, total=total or None))

    def advance(self, key: int, steps: int, note: str = "") -> None:
        self._progress.update(key, advance=steps, note=note)  # type: ignore[arg-type]

    def end(self, key: int) -> None:
        self._progress.update(key, visible=False)  # type: ignore[arg-type]


@contextmanager
def session(threads: int | None, quiet: bool) -> Iterator[None]:
    """Run a command with its threads, its progress bars and one line per warning."""
    from plait.execution.progress import listen
    from plait.execution.threads import use_threads

    with ExitStack() as stack:
        stack.enter_context(use_threads(threads))
        stack.enter_context(warnings.catch_warnings())
        warnings.showwarning = _show_warning
        if not quiet and err.is_terminal:
            progress = stack.enter_context(
                Progress(
                    SpinnerColumn(),
                    TextColumn("{task.description}"),
                    BarColumn(),
                    MofNCompleteColumn(),
                    TimeElapsedColumn(),
                    TimeRemainingColumn(),
                    console=err,
                    transient=True,
                )
            )
            stack.enter_context(listen(_Bars(progress)))
        yield


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    err.print(f"plait: warning: {message}", markup=False)


def say(quiet: bool, text: str) -> None:
    """Print a line of what was done."""
    if not quiet:
        out.print(text, markup=False)


def announce_compilation(quiet: bool) -> None:
    """Say that kernels are compiled, where they have not been compiled on this machine."""
    from plait.mash import kernels

    if not quiet and not any(_cached(kernels)):
        err.print("compiling kernels (once)", markup=False)


def _cached(module: object) -> Iterator[bool]:
    from pathlib import Path

    folder = Path(str(getattr(module, "__file__", ""))).parent / "__pycache__"
    yield any(folder.glob("kernels.common_posterior*.nbc"))


def exit_status(error: BaseException) -> int:
    """Return the exit status of an error: 2 bad input or usage, 3 numerical failure, else 1."""
    import typer.exceptions

    from plait.errors import ConvergenceError, InputError

    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, ConvergenceError):
        return 3
    if isinstance(error, (InputError, typer.exceptions.TyperException)):
        return 2
    return 1


def report_error(error: BaseException) -> None:
    """Print one clear line for an error."""
    from plait.errors import PlaitError

    if isinstance(error, KeyboardInterrupt):
        text = "interrupted; nothing was written."
    elif hasattr(error, "format_message"):
        text = str(error.format_message())
    elif isinstance(error, (PlaitError, OSError, MemoryError)):
        text = str(error) or type(error).__name__
    else:
        text = (
            f"unexpected {type(error).__name__}: {error}. This is a defect of plait; run again "
            "with --debug and report what it prints."
        )
    print(f"plait: error: {text}", file=sys.stderr)
