"""``python -m plait``: the program."""

from plait.cli.main import run

run()
