"""The command line: ``plait``."""

import sys
from typing import Annotated

import typer
import typer.main

from plait.cli import check, demo, mash
from plait.cli.console import exit_status, out, report_error

app = typer.Typer(
    name="plait",
    help="Effects across contexts: what they are, and how much of them is shared.",
    no_args_is_help=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.add_typer(mash.app, name="mash")
app.command("check")(check.check)
app.command("demo")(demo.demo)

_QUESTIONS = """\
Effects across contexts: what they are, and how much of them is shared.

  which effects are real, and which are shared?     plait mash
  does the installation work?                       plait check
  what does it look like on data with known truth?  plait demo

Each command explains itself: plait mash --help, plait mash fit --help"""


def _version(asked: bool) -> None:
    if asked:
        from plait import __version__

        out.print(f"plait {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def questions(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Effects across contexts: what they are, and how much of them is shared."""
    if context.invoked_subcommand is None:
        out.print(_QUESTIONS, markup=False)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    command = typer.main.get_command(app)
    try:
        status = command.main(args=given, prog_name="plait", standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in given:
            raise
        report_error(error)
        return exit_status(error)
    return status if isinstance(status, int) else 0


def run() -> None:
    """Entry point of the ``plait`` program."""
    sys.exit(main())
