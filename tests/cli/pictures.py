"""Pictures that cost nothing, for tests of commands that are about something else."""

import pytest

from plait.cli import gene_screen_figures, gwas, gwas_interaction


def leave_pictures_empty(patch):
    """Let commands for gene-level screens and scans write all their pictures, each an empty inch.

    Drawing is most of the time that a command takes with few cells or samples.
    """

    def empty():
        from matplotlib.figure import Figure

        return Figure(figsize=(1, 1))

    def of_scan(_, out):
        from plait.plot import save_figure

        for name in gwas.PICTURES:
            save_figure(empty(), out / name, overwrite=True)
        return list(gwas.PICTURES)

    named = gene_screen_figures._pictures
    patch.setattr(
        gene_screen_figures, "_pictures", lambda *given: dict.fromkeys(named(*given), empty)
    )
    for command in (gwas, gwas_interaction):
        patch.setattr(command, "draw_scan", of_scan)


@pytest.fixture
def empty_pictures(monkeypatch):
    leave_pictures_empty(monkeypatch)
