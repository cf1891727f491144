"""The program ``plait``: its commands, and the door through which every error leaves."""

import sys
from collections.abc import Sequence
from copy import copy
from typing import Annotated, Any

import typer

from plait.cli import (
    check,
    crt,
    crt_diagnose,
    crt_genes,
    crt_show,
    demo,
    gwas,
    gwas_interaction,
    gwas_qc,
    gwas_region,
    gwas_structure,
    mash,
    report,
    study,
    sumstats,
)
from plait.cli.console import INTERRUPTED, exit_status, report_error
from plait.cli.invocation import begin
from plait.cli.options import PanelledCommand, PanelledGroup, documented
from plait.cli.process import leave, settle

QUESTIONS = (
    ("from genotypes to effects", "plait gwas"),
    ("what is in a table of summary statistics?", "plait sumstats"),
    ("which effects are real, and where are they shared?", "plait mash"),
    ("what do perturbations do to programs and genes?", "plait crt"),
    ("from genotypes to what traits share, in one go", "plait gwas-to-mash"),
    ("what does that look like where the truth is known?", "plait demo"),
    ("what does a result look like as a page?", "plait report"),
    ("is this installation in order?", "plait check"),
)


class _Interrupted(Exception):
    """Ctrl-C inside a command; Typer would make a bare status of it and lose what it says."""


class Program(PanelledGroup):
    """The outermost group: one line per error, and the exit status."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was chosen."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interruption:
            raise _Interrupted from interruption

    def main(  # type: ignore[override]
        self, args: Any = None, prog_name: str | None = None, **extra: Any
    ) -> Any:
        """Run the program and exit: 0 done, 2 bad input, 3 no usable result, 1 anything else."""
        typed = sys.argv[1:] if args is None else list(args)
        begin(typed)
        given = join_numbers(typed)
        extra["standalone_mode"] = False
        try:
            status = super().main(args=given, prog_name=prog_name or "plait", **extra)
            if status == INTERRUPTED:  # before a command was chosen
                report_error(KeyboardInterrupt())
        except (Exception, KeyboardInterrupt) as failure:
            cause = failure.__cause__ if isinstance(failure, _Interrupted) else None
            error = cause or failure
            if "--debug" in given:
                import traceback

                traceback.print_exception(error)
            report_error(error)
            status = exit_status(error)
        sys.exit(status if isinstance(status, int) else 0)


def join_numbers(arguments: list[str]) -> list[str]:
    """Let several numbers follow one option, ``--grid 0.5 1 2``: join them by commas."""
    joined: list[str] = []
    for argument in arguments:
        if len(joined) > 1 and joined[-2] == "--grid" and _is_number(argument):
            joined[-1] += f",{argument}"
        else:
            joined.append(argument)
    return joined


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


app = typer.Typer(
    cls=Program,
    help="Effects across contexts: what each effect does in every context, and what they share.",
    epilog="Docs: docs/index.md",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.add_typer(mash.app, name="mash")
gwas_qc.register(gwas.app)
gwas_structure.register(gwas.app)
gwas_interaction.register(gwas.app)
gwas_region.register(gwas.app)
app.add_typer(gwas.app, name="gwas")
app.add_typer(sumstats.app, name="sumstats")
crt_show.register(crt.app)
crt_diagnose.register(crt.app)
crt_genes.register(crt.app)
app.add_typer(crt.app, name="crt")
documented(app, "gwas-to-mash", study.gwas_to_mash, study.EXAMPLE, study.DOCS)
documented(app, "report", report.report, report.EXAMPLE, report.DOCS)
app.command("demo", cls=PanelledCommand, epilog="Docs: README.md")(demo.demo)
app.command("check", cls=PanelledCommand, epilog="Docs: docs/index.md")(check.check)


def _show_version(asked: bool) -> None:
    if asked:
        from plait import __version__

        print(f"plait {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def questions(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Effects across contexts: what each effect does in every context, and what they share."""
    if context.invoked_subcommand is None:
        print("plait: effects across contexts\n")
        for question, command in QUESTIONS:
            print(f"  {question:<54}{command}")
        print("\nEvery command explains itself: plait mash --help, plait mash fit --help")


def only_what_is_asked(group: typer.Typer, words: Sequence[str]) -> typer.Typer:
    """Return a group with the one command that words begin with; whole where they do with none.

    To make ready to parse the options of all commands takes longer than to parse those of one.
    """
    first = words[0] if words else ""
    commands = [known for known in group.registered_commands if known.name == first]
    groups = [copy(known) for known in group.registered_groups if known.name == first]
    if not commands and not groups:
        return group
    for inner in groups:
        if inner.typer_instance is not None:
            inner.typer_instance = only_what_is_asked(inner.typer_instance, words[1:])
    narrow = copy(group)
    narrow.registered_commands, narrow.registered_groups = commands, groups
    return narrow


def main(arguments: list[str] | None = None) -> int:
    """Run the program and return its exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        only_what_is_asked(app, words)(words)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


def run() -> None:
    """Entry point of the program."""
    settle()
    status = main()
    leave()
    sys.exit(status)
