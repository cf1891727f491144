"""The page in a real browser: it works, it fetches nothing, it fits a phone."""

import csv
import os
import shutil
from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest

from plait.plot import style
from plait.plot.style import COLOURS
from plait.report import mash_page, write_mash_report
from plait.report.screen import write_screen_report
from tests.report.results import make_result
from tests.report.test_scan import make_scan
from tests.report.test_screen import made

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
NASTY = "<script>document.title='broken'</script>"
N, WIDTH = 1500, 6


@pytest.fixture(scope="module")
def browser():
    program = os.environ.get("PLAIT_BROWSER") or next(
        filter(None, map(shutil.which, BROWSERS)), None
    )
    if program is None:
        pytest.skip("no Chromium is installed (looked for " + ", ".join(BROWSERS) + ")")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A page, and the result it is about; one context and one effect have nasty names."""
    path = tmp_path_factory.mktemp("report") / "page.html"
    names = [f"rs{j}" for j in range(N)]
    surest = mash_page(make_result(N, WIDTH)).table.effects[0]
    names[names.index(surest)] = NASTY
    long = "a very long name of a context that no phone can show"
    contexts = ("liver", "lung", NASTY, long, "<b>x</b>", "%{x}")
    result = make_result(N, WIDTH, condition_names=contexts, effect_names=np.array(names))
    made = write_mash_report(result, path, title="A study")
    return path, made, result


class Visit:
    """A page that is open, with everything it complained about or asked for."""

    def __init__(self, browser, path, width=1280, height=900, **settings):
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, accept_downloads=True, **settings
        )
        self.page = self.context.new_page()
        self.complaints, self.requests = [], []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.address = path.as_uri()
        self.page.goto(self.address)
        self.page.wait_for_selector("html[data-drawn=all]", state="attached")

    def rows(self):
        return self.page.locator("#rows .pick").all_inner_texts()

    def column(self, place):
        texts = self.page.locator(f"#rows tr.effect td:nth-child({place})").all_inner_texts()
        return [float(text.replace("−", "-")) for text in texts]

    def fits(self):
        return self.page.evaluate(
            "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        )


@pytest.fixture
def visit(browser, report):
    opened = []

    def start(**settings):
        opened.append(Visit(browser, report[0], **settings))
        return opened[-1]

    yield start
    for one in opened:
        one.context.close()


@pytest.fixture(scope="module")
def untouched(browser, report):
    """A visit in which nothing is chosen: a page takes seconds to draw."""
    here = Visit(browser, report[0])
    yield here
    here.context.close()


@pytest.fixture(scope="module")
def used(browser, report):
    """A visit in which one effect is chosen after the other."""
    here = Visit(browser, report[0])
    yield here
    here.context.close()


def test_loads_without_complaint_and_without_network(untouched, report):
    here = untouched
    assert here.complaints == []
    asked = [url for url in here.requests if not url.startswith(("data:", "blob:"))]
    assert asked == [here.address]
    assert here.page.title() == "A study"
    drawn = here.page.locator(".plot .main-svg").count()
    assert drawn >= len(report[1].figures)
    assert here.page.locator("h1").inner_text() == "A study"
    assert here.fits()


def test_labels_are_shown_as_they_are(untouched):
    here = untouched
    assert here.rows()[0] == NASTY
    ticks = here.page.locator("#found .ytick").all_text_contents()
    assert "<b>x</b>" in ticks
    assert "%{x}" in ticks
    assert any(tick.startswith("<script>docum") for tick in ticks)
    assert here.page.locator("#one-name").inner_text() == NASTY
    assert here.page.title() == "A study"


def test_sort(visit, report):
    here = visit()
    table = report[1].table
    assert here.page.locator("#rows tr.effect").count() == 50
    assert here.rows() == list(table.effects[:50])
    here.page.locator("#rows th[data-key=estimate] button").click()
    rising = here.column(3)
    assert rising == sorted(rising)
    assert here.page.locator("th[data-key=estimate]").get_attribute("aria-sort") == "ascending"
    here.page.locator("#rows th[data-key=estimate] button").press("Enter")
    falling = here.column(3)
    assert falling == sorted(falling, reverse=True)
    assert falling[0] > rising[-1]
    here.page.locator("#rows th[data-key=effect] button").click()
    numbers = [int(name[2:]) for name in here.rows() if name.startswith("rs")]
    assert numbers == sorted(numbers)


def test_search_and_filter(visit, report):
    here = visit()
    table = report[1].table
    here.page.fill("#search", "RS11")
    expected = [name for name in table.effects if "rs11" in name]
    assert here.rows() == expected[:50]
    assert f"{len(expected)} of {len(table.effects)}" in here.page.inner_text("#count")
    here.page.fill("#search", "no such effect")
    assert here.rows() == []
    here.page.fill("#search", "")
    here.page.select_option("#where", "5")
    expected = [n for n, rate in zip(table.effects, table.rate, strict=True) if rate[5] < 0.05]
    assert f"{len(expected)} of" in here.page.inner_text("#count")
    assert here.rows() == expected[:50]


def test_pages(untouched, report):
    here = untouched
    table = report[1].table
    here.page.click("#after")
    assert here.rows() == list(table.effects[50:100])
    assert here.page.inner_text("#page").startswith("page 2 of ")
    here.page.click("#before")
    assert here.page.is_disabled("#before")


def test_a_row_shows_its_forest(used, report):
    here = used
    table = report[1].table
    here.page.locator("#rows .pick").nth(4).click()
    here.page.wait_for_selector(f"#forest[data-effect='{table.effects[4]}']")
    assert here.page.inner_text("#one-name") == table.effects[4]
    assert here.page.locator("#forest .ytick").count() == WIDTH
    shown = here.page.evaluate("document.getElementById('forest').data.map(t => [t.y, t.x])")
    places = {int(r): x for ys, xs in shown for r, x in zip(ys, xs, strict=True)}
    np.testing.assert_allclose(
        [places[r] for r in range(WIDTH)], table.estimate[4], rtol=1e-4, atol=1e-12
    )
    is_sure, is_up = table.rate[4] < 0.05, table.estimate[4] >= 0
    assert [ys for ys, _ in shown] == [
        np.flatnonzero(chosen).tolist() for chosen in (is_sure & is_up, is_sure & ~is_up, ~is_sure)
    ]
    colours = here.page.evaluate(
        "document.getElementById('forest').data.map(t => t.marker.color.toUpperCase())"
    )
    assert colours == [style.BLUE.upper(), style.VERMILION.upper(), style.GREY.upper()]
    sure = is_sure.sum()
    assert f"significant in {sure} of {WIDTH}" in here.page.get_attribute("#forest", "aria-label")
    assert here.complaints == []


def test_keyboard(used, report):
    here = used
    table = report[1].table
    here.page.locator("#rows .pick").first.focus()
    here.page.keyboard.press("ArrowDown")
    here.page.keyboard.press("ArrowDown")
    here.page.wait_for_selector(f"#forest[data-effect='{table.effects[2]}']")
    here.page.keyboard.press("Tab")
    here.page.keyboard.press("Enter")
    here.page.wait_for_selector(f"#forest[data-effect='{table.effects[3]}']")


def test_download(untouched, report, tmp_path):
    here = untouched
    table = report[1].table
    with here.page.expect_download() as waiting:
        here.page.click("#download")
    waiting.value.save_as(tmp_path / "t.csv")
    assert waiting.value.suggested_filename == "surest_effects.csv"
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    assert [row[0] for row in rows[1:]] == list(table.effects)
    head = rows[0]
    assert head[:6] == [
        "effect", "surest_in", "posterior_mean", "posterior_sd", "lfsr", "n_significant",
    ]  # fmt: skip
    assert len(head) == 6 + 3 * WIDTH
    lfsr = np.array([row[-WIDTH:] for row in rows[1:]], dtype=float)
    np.testing.assert_allclose(lfsr, table.rate, rtol=1e-4)
    best = np.array([row[4] for row in rows[1:]], dtype=float)
    np.testing.assert_array_equal(best, lfsr.min(axis=1))
    assert here.complaints == []


def test_phone(visit, report):
    here = visit(width=390, height=844, is_mobile=True, has_touch=True, device_scale_factor=2)
    assert here.fits()
    assert here.complaints == []
    table = report[1].table
    here.page.locator("#rows .pick").nth(1).tap()
    here.page.wait_for_selector(f"#rows tr.inline #forest[data-effect='{table.effects[1]}']")
    assert here.fits()
    box = here.page.locator("#forest .main-svg").first.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 391
    here.page.locator("#rows .pick").nth(1).tap()
    assert here.page.is_hidden("#one")
    here.page.locator("#rows .pick").nth(1).tap()
    here.page.fill("#search", "rs1")
    assert here.complaints == []


def names_are_whole(here):
    """Return whether no name of the table is cut, and no column beyond the edge."""
    return here.page.evaluate(
        "[...document.querySelectorAll('#rows .pick, #rows td.context, .rows')]"
        ".every(part => part.scrollWidth <= part.clientWidth + 1)"
    )


def test_names_of_a_screen_are_whole_on_a_phone(browser, tmp_path):
    p = np.full((30, 4), 1e-30)
    units = [f"candidate_enhancer_{j}" for j in range(30)]
    programs = ("program_10", "program_11", "interferon gamma response", "cell cycle")
    beta = np.where(np.arange(4) == np.arange(30)[:, None] % 4, 3.0, 0.5)
    error = np.ones((30, 4))
    screen = made(p, beta=beta, units=units, programs=programs, null_sd=error, se=error)
    write_screen_report(screen, tmp_path / "page.html")
    here = Visit(browser, tmp_path / "page.html", width=390, height=844)
    assert here.fits() and here.complaints == []
    assert here.page.locator("#rows td.context").first.is_visible()
    assert not here.page.locator("#rows td.strip").first.is_visible()
    assert names_are_whole(here)
    here.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(visit, scheme):
    here = visit(color_scheme=scheme)

    def brightness():
        colour = here.page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(v) for v in colour[4:-1].split(","))

    def ink():
        return here.page.evaluate("document.querySelector('#found .ytick text').style.fill")

    is_light = scheme == "light"
    assert (brightness() > 600) == is_light
    before = ink()
    here.page.emulate_media(color_scheme="dark" if is_light else "light")
    assert (brightness() > 600) != is_light
    here.page.wait_for_timeout(200)
    assert ink() != before


def test_paper(visit):
    here = visit(color_scheme="dark")
    here.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    here.page.emulate_media(media="print")
    assert here.page.is_hidden(".tools")
    widest = here.page.evaluate(
        "Math.max(...Array.from(document.querySelectorAll('.main-svg'), s => s.clientWidth))"
    )
    assert widest <= 700
    assert here.complaints == []


@pytest.mark.parametrize(
    ("n", "width", "strength"),
    [
        (1, 1, 1),
        (1, 2, 0),
        pytest.param(40, 2, 1, marks=pytest.mark.slow),
        (300, 60, 1),
        (200, 9, 0),
    ],
)
def test_every_shape_is_drawn(browser, tmp_path, n, width, strength):
    made = write_mash_report(
        make_result(n, width, strength=strength, names=n > 1), tmp_path / "p.html"
    )
    for size in (1280, 390):
        here = Visit(browser, tmp_path / "p.html", width=size)
        assert here.complaints == []
        assert here.fits()
        assert here.page.locator(".plot .main-svg").count() >= len(made.figures)
        here.page.locator("#rows .pick").first.click()
        assert here.complaints == []
        here.context.close()


def test_the_scan(browser, tmp_path):
    """A trait is chosen from the list: its points are drawn, and again in the other colours."""
    scan = make_scan(4000, 3, chromosomes=22)
    result = make_result(600, 3, condition_names=scan.traits)
    write_mash_report(result, tmp_path / "p.html", scan=scan)
    for size in (1280, 390):
        here = Visit(browser, tmp_path / "p.html", width=size)

        def drawn(place, here=here):
            script = "p => document.querySelector(p).data.map(t => t.x.length)"
            return sum(here.page.evaluate(script, f"#{place} .plot"))

        def colours(here=here):
            script = (
                "() => document.querySelector('#manhattan .plot').data.map(t => t.marker.color)"
            )
            return here.page.evaluate(script)

        assert here.fits()
        assert drawn("manhattan") > 2000
        assert drawn("qq") > 1000
        here.page.select_option("[data-views=manhattan]", label="t1")
        assert len(set(colours())) == 3  # two shades, and the trait
        light = colours()
        assert light[-1] == COLOURS[1]
        here.page.emulate_media(color_scheme="dark")
        here.page.wait_for_timeout(200)
        assert here.page.input_value("[data-views=manhattan]") == "2"
        assert len(colours()) == len(light) and not set(colours()) & set(light)
        names = here.page.locator("#manhattan .xtick text").all_text_contents()
        boxes = here.page.locator("#manhattan .xtick text").evaluate_all(
            "all => all.map(t => t.getBoundingClientRect()).map(b => [b.left, b.right])"
        )
        shown = [box for name, box in zip(names, boxes, strict=True) if name.strip()]
        assert len(shown) >= 8
        assert all(a[1] <= b[0] for a, b in pairwise(shown))
        assert here.complaints == []
        here.context.close()


@pytest.mark.parametrize(
    ("places", "named", "size"),
    [
        ((0,), 1, 390),
        ((3999,), 1, 390),
        ((0, 700, 3999), 1, 390),
        pytest.param((0, 420, 3999), 1, 390, marks=pytest.mark.slow),
        pytest.param((0,), 1, 1280, marks=pytest.mark.slow),
        pytest.param((3999,), 1, 1280, marks=pytest.mark.slow),
        ((0, 700, 3999), 3, 1280),
        ((0, 420, 3999), 2, 1280),
    ],
)
def test_names_of_peaks_are_within_the_axes(browser, tmp_path, size, places, named):
    """At the ends of the genome names begin, or end, with the axis; none is over another."""
    scan = make_scan(4000, 3, chromosomes=22)
    log10p = np.maximum(scan.log10p, -4.0)
    log10p[list(places), 0] = -30.0 - np.arange(len(places))
    ids = np.array([f"a_variant_{j}_long" for j in range(4000)])
    result = make_result(600, 3, condition_names=scan.traits)
    scan = replace(scan, log10p=log10p, id=ids)
    write_mash_report(result, tmp_path / "p.html", scan=scan)
    here = Visit(browser, tmp_path / "p.html", width=size)
    boxes = {
        name: here.page.locator(f"#manhattan {part}").evaluate_all(
            "all => all.map(t => t.getBoundingClientRect())"
            ".map(b => [b.left, b.right, b.top, b.bottom])"
        )
        for name, part in (("notes", ".annotation"), ("axes", ".nsewdrag"), ("ticks", ".ytick"))
    }
    (left, right, _, _), *_ = boxes["axes"]
    assert len(boxes["notes"]) == named
    assert all(left - 1 <= a and b <= right + 1 for a, b, _, _ in boxes["notes"])
    assert all(tick[1] <= note[0] + 1 for tick in boxes["ticks"] for note in boxes["notes"])
    for one, other in combinations(boxes["notes"], 2):
        assert one[1] <= other[0] or other[1] <= one[0] or one[3] <= other[2] or other[3] <= one[2]
    assert here.complaints == [] and here.fits()
    here.context.close()


def test_a_table_without_errors_has_no_column_of_them(browser, tmp_path):
    p = np.random.default_rng(1).uniform(size=(30, 4))
    p[3, 2] = 1e-30
    ranks = made(p, null_sd=None, se=None, settings={"method": "analytic", "statistic": "utest"})
    write_screen_report(ranks, tmp_path / "page.html")
    here = Visit(browser, tmp_path / "page.html")
    heads = here.page.locator("#rows thead th").all_inner_texts()
    cells = here.page.locator("#rows tr.effect").first.locator("td").count()
    assert len(heads) == cells and not any("sd" in head for head in heads)
    here.page.locator("#rows .pick").first.click()
    here.page.wait_for_selector("#forest[data-effect='GENE3']", state="attached")
    with here.page.expect_download() as waiting:
        here.page.click("#download")
    waiting.value.save_as(tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    assert rows[0][2:5] == ["rank-biserial_correlation", "q", "n_significant"]
    assert {len(row) for row in rows} == {5 + 2 * 4}
    assert not here.complaints
    here.context.close()
