"""The page of a gene-level screen in a real browser: it draws everything and fits a phone."""

import pytest

from plait.report.gene_screen import write_gene_screen_report
from tests.report.test_browser import Visit, browser, names_are_whole  # noqa: F401
from tests.report.test_gene_screen import screen  # noqa: F401


@pytest.fixture(scope="module")
def page(screen, tmp_path_factory):  # noqa: F811
    path = tmp_path_factory.mktemp("genes") / "page.html"
    write_gene_screen_report(
        screen.discovery,
        path,
        calibration=screen.calibration,
        power=screen.power,
        screen=screen,
    )
    return path


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_draws_everything_and_fits(browser, page, width):  # noqa: F811
    visit = Visit(browser, page, width=width)
    try:
        assert visit.complaints == []
        assert visit.requests == [visit.address]
        assert visit.fits()
        drawn = visit.page.locator(".js-plotly-plot").count()
        assert drawn >= 9
        choices = visit.page.locator("select").all()
        named = [choice.locator("option").all_inner_texts() for choice in choices]
        assert names_are_whole(visit)
        pairs = next(names for names in named if "T0 on itself" in names)
        choices[named.index(pairs)].select_option(label=pairs[1])
        assert visit.complaints == []
    finally:
        visit.context.close()
