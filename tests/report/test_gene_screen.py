"""The page of a gene-level screen."""

import numpy as np
import pytest

from plait.crt import GeneScreen, GeneTestResult, positive_control_pairs, trans_pairs
from plait.errors import NotAvailableError
from plait.report.figures import VERMILION
from plait.report.gene_screen import calibrated, gene_screen_page, write_gene_screen_report
from plait.report.page import render
from tests.crt.gene_cases import random_data


def made(p, analysis="discovery", *, groups=20, seed=0, **changes):
    """Return tests with given p-values, sorted as results are."""
    p = np.sort(np.asarray(p, dtype=np.float64))
    n = len(p)
    random = np.random.default_rng(seed)
    fold = np.exp(random.normal(size=n))
    place = random.permutation(n) if analysis == "calibration" else np.arange(n)
    fields = {
        "response_id": np.array([f"g{i // groups}" for i in place]),
        "grna_target": np.array([f"t{i % groups}" for i in place]),
        "n_nonzero_trt": np.full(n, 30),
        "n_nonzero_cntrl": np.full(n, 300),
        "pass_qc": np.ones(n, dtype=bool),
        "p_value": p,
        "log10_p": np.log10(p),
        "fold_change": fold,
        "se_fold_change": 0.1 * fold,
        "log_2_fold_change": np.log2(fold),
        "z_orig": np.zeros(n),
        "theta": np.ones(n),
        "p_method": np.full(n, "saddlepoint"),
        "q_value": np.minimum(p * n, 1.0),
        "significant": p * n < 0.1,
        "analysis": analysis,
    }
    return GeneTestResult(**fields | changes)


def uniform(n, seed=1):
    return np.random.default_rng(seed).uniform(size=n)


def discoveries():
    return made(np.r_[1e-40, 1e-12, uniform(398)])


def lamps(page):
    return {verdict.title: verdict.state for verdict in page.verdicts}


def test_the_answer():
    page = gene_screen_page(discoveries(), calibration=made(uniform(400, 2), "calibration"))
    assert page.answer[0].startswith("2 of 400 pairs of a target and a gene are significant")
    assert "2 targets act on 1 gene" in page.answer[0]
    assert "p = 1.0e-40" in page.answer[1]
    assert page.table.effects[0] == "t0 on g0"
    assert lamps(page)["Calibrated"] == "good"


def test_nothing_found_and_nothing_checked():
    page = gene_screen_page(made(np.maximum(uniform(300), 0.01)))
    assert page.answer[0].startswith("None of 300 pairs")
    assert lamps(page)["Calibration not checked"] == "unknown"


def test_checks_that_fail():
    power = made(np.full(10, 0.6), "power")
    page = gene_screen_page(
        discoveries(), calibration=made(uniform(400) ** 3, "calibration"), power=power
    )
    assert lamps(page)["P-values too small"] == "bad"
    assert lamps(page)["Positive controls missed"] == "caution"
    assert "false discover" in page.verdicts[0].reason
    found = gene_screen_page(discoveries(), power=made(np.full(10, 1e-9), "power"))
    assert lamps(found)["Positive controls found"] == "good"


def test_pairs_that_were_not_tested():
    p = np.r_[1e-9, uniform(99)]
    few = made(p, pass_qc=np.arange(100) < 40)
    assert lamps(gene_screen_page(few))["Pairs with too few counts left out"] == "caution"
    with pytest.raises(NotAvailableError, match="no pair was tested"):
        gene_screen_page(made(p, pass_qc=np.zeros(100, dtype=bool)))


def test_the_file(tmp_path):
    nasty = "<script>alert(1)</script>"
    result = discoveries()
    names = np.array([nasty, *result.grna_target[1:]])
    assert nasty not in render(gene_screen_page(made(result.p_value, grna_target=names)))
    write_gene_screen_report(result, tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < 8e6


def test_what_to_do_where_controls_are_off():
    p = np.r_[np.full(40, 1e-30), uniform(360)]
    for group, is_meant in (("complement", True), ("nt_cells", False)):
        result = made(p, settings={"control_group": group})
        off = made(uniform(400) ** 3, "calibration", settings={"control_group": group})
        reason = gene_screen_page(result, calibration=off).verdicts[0].reason
        assert ("--control-group nt_cells" in reason) == is_meant
        assert "40 pairs have a false discovery rate below 0.1" in reason
        assert "do not take discoveries at face value" in reason
        alone = calibrated(off)
        assert alone.state == "bad" and "false discovery rate" not in alone.reason


@pytest.fixture(scope="module")
def screen():
    """A small screen that was tested, with an effect of the target T0 on itself."""
    data = random_data(effect=-1.5, n_cells=400, mean=4.0)
    made = GeneScreen(data).set_parameters(
        discovery_pairs=trans_pairs(data), positive_control_pairs=positive_control_pairs(data)
    )
    made.quality_control()
    made.run_calibration_check(threads=1)
    made.run_power_check(threads=1)
    made.run_discovery(threads=1)
    return made


def figures_of(page):
    return {figure.name: figure for section in page.sections for figure in section.figures}


def test_the_screen_itself_is_shown(screen):
    page = gene_screen_page(
        screen.discovery, calibration=screen.calibration, power=screen.power, screen=screen
    )
    assert [section.title for section in page.sections] == [
        "Checks", "Single pairs", "Cells and guides",
    ]  # fmt: skip
    figures = figures_of(page)
    assert next(iter(figures["violin"].views)) == "T0 on itself"
    control, mean, treated, own_mean = figures["violin"].spec["data"]
    assert max(control["x"]) == 0 == min(treated["x"]) and max(treated["x"]) == 1
    assert own_mean["y"][0] < mean["y"][0] and treated["fillcolor"] == VERMILION
    bars = figures["guides"].spec["data"]
    assert sum(sum(part["y"]) for part in bars) == screen.assignment.cells.nnz
    assert sum(figures["multiplicity"].spec["data"][0]["y"]) == screen.data.n_cells
    for view in figures["covariates"].views.values():
        assert sum(sum(part["y"]) for part in view["data"]) == screen.data.n_cells
    left = figures["removed"].numbers.rows[-1]
    assert left[:2] == ["any reason", f"{(~screen.cells.is_used).sum():,}"]
    drawn = figures["counts-of-pairs"].spec["data"]
    assert [len(part["x"]) for part in drawn] == [48, 0]
    below, positive = figures["power"].spec["data"]
    assert len(positive["x"]) == 1 and max(positive["text"]) > max(below["text"])
    intro, targets = page.sections[2].intro, screen.data.targets
    assert intro.startswith(f"{screen.cells.is_used.sum():,} of 400 cells")
    assert intro.endswith(
        f"{len(targets.guides)} guides ({targets.is_control.sum()} non-targeting) of "
        f"{len(screen.data.target_names)} targets."
    )
    assert page.settings["How it was tested"]["treated cells are compared with"] == (
        "all other cells"
    )
    assert "T0 on T0" in render(page)


@pytest.mark.parametrize(
    ("small", "note"),
    [
        (0, "Listed: the surest, 50 pairs; significant: 0, of 300 that were tested. All are"),
        (1, "Listed: the surest, 50 pairs; significant: 1, of 300 that were tested. All are"),
        (60, "Listed: 60 pairs that are significant, of 300 that were tested. All are"),
    ],
)
def test_which_pairs_are_listed(small, note):
    p = np.linspace(0.5, 1, 300)
    p[:small] = 1e-12
    assert gene_screen_page(made(p)).table.note.startswith(note)


def test_without_the_screen_only_tests_are_shown(screen):
    page = gene_screen_page(screen.discovery, power=screen.power)
    assert list(figures_of(page)) == ["qq", "power"]
    assert len(figures_of(page)["power"].spec["data"]) == 1


def test_the_words_about_controls_follow_the_state():
    p = uniform(600, 3)
    p[:4] = 1e-7
    verdict = calibrated(made(p, "calibration"))
    assert (verdict.state, verdict.title) == ("caution", "False discoveries among controls")
    assert "There are 4 false discoveries among them." in verdict.reason
    assert "That is what chance gives" not in verdict.reason
    good = calibrated(made(uniform(600, 3), "calibration"))
    assert good.state == "good" and good.reason.endswith("That is what chance gives.")
    settings = {"formula": "log(grna_n_nonzero + 1) + batch", "control_group": "complement"}
    off = calibrated(made(uniform(600, 3) ** 2, "calibration", settings=settings))
    assert off.state == "bad" and "log(grna_n_assigned + 1) + batch" in off.reason
    assert "nt_cells" not in off.reason


def test_controls_of_other_names_are_seen():
    tests = made(uniform(40), grna_target=np.array(["my_control", "STAT1"] * 20))
    reason = calibrated(None, tests).reason
    assert "look like controls: my_control; call them non-targeting" in reason
    assert "look like" not in calibrated(None, discoveries()).reason
