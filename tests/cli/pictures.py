"""Pictures that cost nothing, for tests of commands that are about something else."""

import pytest

from plait.cli import gene_screen_figures


def leave_pictures_empty(patch):
    """Let commands for gene-level screens write all their pictures, each an empty inch.

    Drawing is most of the time that a command takes with a small screen.
    """

    def empty():
        from matplotlib.figure import Figure

        return Figure(figsize=(1, 1))

    named = gene_screen_figures._pictures
    patch.setattr(
        gene_screen_figures, "_pictures", lambda *given: dict.fromkeys(named(*given), empty)
    )


@pytest.fixture
def empty_pictures(monkeypatch):
    leave_pictures_empty(monkeypatch)
