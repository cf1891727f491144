"""The page of a perturbation screen: what it says of results made up for it."""

import numpy as np
import pytest

from plait.crt import CRTResult, plot_calibration, plot_effect_map, plot_volcano, z_scores
from plait.errors import LabelError, NotAvailableError, OptionError
from plait.numerics.multiple_testing import false_discovery_rates
from plait.report.page import render
from plait.report.screen import screen_page, write_screen_report
from plait.report.screen_figures import named


def made(p, *, seed=0, prefix="GENE", controls=(), method="analytic", resamples=None, **changes):
    """Return a result with given p-values (units, programs) and effects that fit them."""
    from scipy.special import ndtri

    p = np.asarray(p, dtype=np.float64)
    random = np.random.default_rng(seed)
    z = -ndtri(p / 2) * random.choice([-1, 1], p.shape)
    status = np.full(len(p), "ok", dtype="<U12")
    fields = {
        "beta": 0.1 * z,
        "p": p,
        "log10p": np.log10(p),
        "q": false_discovery_rates(p),
        "p_method": np.full(p.shape, "bulk"),
        "status": status,
        "n_treated": np.full(len(p), 200),
        "expected_treated": np.full(len(p), 200.0),
        "null_sd": np.full(p.shape, 0.1),
        "se": np.full(p.shape, 0.1),
        "units": tuple(f"{prefix}{j}" for j in range(len(p))),
        "programs": tuple(f"program {k}" for k in range(p.shape[1])),
        "negative_controls": tuple(controls),
        "settings": {"method": method, "resamples": resamples, "statistic": "ols"},
    }
    return CRTResult(**fields | changes)


def uniform(n, k, seed=1):
    return np.random.default_rng(seed).uniform(size=(n, k))


def with_effects(n=60, k=5):
    p = uniform(n, k)
    p[3, 2], p[3, 1], p[7, 0] = 1e-40, 1e-12, 1e-9
    return made(p)


def lamps(page):
    return {verdict.title: verdict.state for verdict in page.verdicts}


def test_the_answer():
    page = screen_page(with_effects())
    assert page.answer[0].startswith("2 of 60 perturbations have an effect on at least one of 5")
    assert "GENE3" in page.answer[1] and "program 2 (p = 1.0e-40)" in page.answer[1]
    assert "GENE3 acts on more programs than any other (2 of 5)." in page.answer[1]

    def ends(*effects):
        p = np.full((60, 5), 0.5)
        for effect in effects:
            p[effect] = 1e-30
        return screen_page(made(p)).answer[1].split("). ", 1)[1]

    assert ends((3, 2), (7, 1)) == "None acts on more than one program."
    assert ends((3, 2), (3, 1), (7, 1), (7, 0)) == (
        "GENE3 and GENE7 act on the most programs (2 of 5)."
    )
    assert ends(*((j, k) for j in range(9) for k in (0, 4))) == (
        "9 perturbations act on as many programs as any (2 of 5)."
    )
    assert page.table is not None and page.table.effects[0] == "GENE3"


def test_of_equal_p_values_the_largest_effect_over_its_error_is_first():
    p = np.full((3, 2), 1 / 1001)
    beta = np.array([[0.5, 0.1], [0.3, -0.9], [0.2, 0.2]])
    null_sd = np.array([[0.1, 0.1], [0.01, 0.2], [0.1, 0.1]])
    result = made(p, beta=beta, null_sd=null_sd, q=p)
    lines = [line for line in result.summary(0.1).splitlines() if "->" in line]
    assert [line.split(":")[0].strip() for line in lines[:3]] == [
        "GENE1 -> program 0",  # 30 errors
        "GENE0 -> program 0",  # 5
        "GENE1 -> program 1",  # 4.5
    ]
    page = screen_page(result)
    assert "GENE1 raises program 0" in page.answer[1]
    assert page.table.effects == ["GENE1", "GENE0", "GENE2"]


def test_the_page_of_ranks_has_their_words_and_no_errors():
    p = uniform(30, 4)
    p[3, 2] = 1e-30
    settings = {"method": "analytic", "resamples": None, "statistic": "utest"}
    page = screen_page(made(p, null_sd=None, se=None, settings=settings))
    assert page.table.error is None and page.table.to_json()["error"] is None
    assert page.table.estimate_name == "rank-biserial correlation"
    assert "normal score of the p-value" in page.lead.caption
    assert "rank-biserial correlation" in page.sections[1].intro
    text = render(page)
    assert "sd under the null" not in text and "bars:" not in text
    assert "effect over its error" not in text
    assert "bars: ± 1.96 sd under the null" in render(screen_page(made(p)))


def test_the_cause_of_each_unit_that_was_not_tested_is_said():
    result = made(uniform(6, 3))
    status, treated = np.array(result.status), np.array(result.n_treated)
    status[[0, 1, 2]], treated[0], treated[1] = "degenerate", 0, 900
    settings = {**result.settings, "cells": 900}
    causes = {"status": status, "n_treated": treated, "settings": settings}
    reason = next(
        v.reason for v in screen_page(made(uniform(6, 3), **causes)).verdicts
        if v.title == "Some not tested"
    )  # fmt: skip
    assert "(no cell is treated: GENE0)" in reason
    assert "(every cell is treated: GENE1)" in reason
    assert "(the covariates determine the treatment: GENE2)" in reason


def test_nothing_found():
    page = screen_page(made(np.maximum(uniform(30, 4), 0.01)))
    assert page.answer[0].startswith("None of 120 effects of 30 perturbations on 4 programs")
    assert page.table.note.startswith("No effect is significant")


def test_p_values_below_the_smallest_double_have_their_logs():
    result = with_effects()
    log10p = np.array(result.log10p)
    log10p[3, 2] = -412.3
    page = screen_page(made(result.p, log10p=log10p, q=result.q))
    assert "p = 5.0e-413" in page.answer[1]


@pytest.mark.parametrize(
    ("p", "title", "state"),
    [
        (uniform(200, 5), "Calibrated", "good"),
        (uniform(200, 5) ** 2, "P-values too small", "bad"),
        (uniform(200, 5) ** 1.15, "P-values may be too small", "caution"),
        (uniform(200, 5) ** 0.5, "P-values too large", "caution"),
        (uniform(6, 5, seed=3), "Too few controls to tell", "unknown"),
        (uniform(3, 5), "Calibration not checked", "unknown"),
    ],
)
def test_negative_controls_are_judged(p, title, state):
    page = screen_page(with_effects(), controls=made(p, prefix="ntc_"))
    assert lamps(page)[title] == state


def test_controls_among_the_units():
    p = uniform(80, 5)
    result = made(p, controls=[f"GENE{j}" for j in range(20)])
    assert "20 negative-control targets" in screen_page(result).verdicts[0].reason


def test_counted_p_values_that_cannot_be_small():
    page = screen_page(made(uniform(200, 10), method="empirical", resamples=99))
    assert lamps(page)["P-values cannot be small"] == "caution"
    enough = screen_page(made(uniform(20, 1), method="empirical", resamples=9999))
    assert "P-values cannot be small" not in lamps(enough)


def test_what_was_not_tested_and_has_few_cells():
    status = np.array(["ok"] * 50 + ["degenerate"] * 8 + ["no_variation"] * 2)
    result = with_effects()
    q = np.array(result.q)
    q[50:] = np.nan
    page = screen_page(made(result.p, status=status, q=q, n_treated=np.full(60, 9)))
    assert lamps(page)["Some not tested"] == "caution"
    assert lamps(page)["Few treated cells"] == "bad"
    reason = next(v.reason for v in page.verdicts if v.title == "Some not tested")
    assert "8 perturbations (the covariates" in reason and "2 perturbations (strata" in reason
    assert len(page.sections[1].figures[1].spec["data"]) > 0


def test_skew_normal_fits():
    status = np.full((60, 5), "ok")
    good = screen_page(made(uniform(60, 5), skew_status=status, p_skew=uniform(60, 5)))
    assert lamps(good)["Skew-normal fits accepted"] == "good"
    status[:30] = "tail"
    bad = screen_page(made(uniform(60, 5), skew_status=status, p_skew=uniform(60, 5)))
    assert lamps(bad)["Skew-normal fits refused"] == "caution"


def test_labels_are_text(tmp_path):
    result = with_effects()
    nasty = "<script>alert(1)</script>"
    names = (nasty, *result.units[1:])
    text = render(screen_page(made(result.p, units=names, programs=(nasty, "b", "c", "d", "e"))))
    assert nasty not in text


def test_many_programs_have_a_bounded_page(tmp_path):
    page = write_screen_report(made(uniform(300, 60)), tmp_path / "page.html")
    volcano = page.sections[1].figures[1]
    assert len(volcano.views) == 24
    assert "The 24 programs with most effects" in volcano.caption
    assert (tmp_path / "page.html").stat().st_size < 8e6


def test_what_cannot_be_shown():
    with pytest.raises(NotAvailableError, match="rates: fdr=None was given"):
        screen_page(made(uniform(5, 3), q=None))
    none, degenerate = np.full((5, 3), np.nan), np.full(5, "degenerate", dtype="<U12")
    with pytest.raises(NotAvailableError) as caught:
        screen_page(made(uniform(5, 3), q=none, status=degenerate, controls=["GENE0"]))
    assert "fdr" not in str(caught.value)
    assert "no false discovery rates: 1 of 5 targets;" in str(caught.value)
    assert "the status of the others is: 4 degenerate." in str(caught.value)
    everyone = [f"GENE{j}" for j in range(5)]
    with pytest.raises(NotAvailableError, match=r"rates: 5 of 5 targets.*there are none"):
        screen_page(made(uniform(5, 3), q=none, controls=everyone))
    with pytest.raises(OptionError, match="level is 2"):
        screen_page(with_effects(), level=2.0)


def test_figures():
    import matplotlib.pyplot as plt

    result, controls = with_effects(), made(uniform(20, 5, seed=4), prefix="ntc_")
    ax = plot_volcano(result, "program 2", caption=True)
    assert [t.get_text() for t in ax.texts] == ["GENE3"]
    ax = plot_effect_map(result, most=10, title="Map")
    assert len(ax.get_yticks()) == 10
    assert ax.get_yticklabels()[0].get_text() in result.units
    ax = plot_calibration(result, controls, caption=True)
    names = [t.get_text() for t in ax.get_legend().get_texts()]
    assert {"perturbations (300)", "negative controls (100)"} <= set(names)
    with pytest.raises(LabelError, match="no program 'x'"):
        plot_volcano(result, "x")
    plt.close("all")


def test_z_scores_of_ranks_come_from_p():
    result = with_effects()
    ranks = made(result.p, null_sd=None, se=None)
    np.testing.assert_allclose(z_scores(ranks), z_scores(result), rtol=1e-6)


def test_controls_can_be_seen_under_large_effects():
    page = screen_page(with_effects(), controls=made(uniform(20, 5, seed=4), prefix="ntc_"))
    figure = page.sections[0].figures[0]
    limit = figure.spec["data"][-1]["y"][0]
    tests = next(part for part in figure.spec["data"] if part.get("meta") == "perturbations")
    assert max(tests["y"]) == limit < 12 and max(tests["customdata"]) == 40.0
    symbols = tests["marker"]["symbol"]
    assert symbols.count("triangle-up") == sum(y > limit for y in tests["customdata"]) > 0
    assert f"below 1e-{limit:.0f}" in figure.caption
    alone = screen_page(with_effects()).sections[0].figures[0]
    assert "should follow the line" not in alone.caption


def test_settings_in_words():
    settings = {"method": "analytic", "resamples": None, "device": "cpu", "statistic": "ols"}
    said = screen_page(made(uniform(30, 4), settings=settings)).settings["How it was tested"]
    assert said["p-values"] == "analytic, those of infinitely many resamples"
    assert not any("resamples are drawn" in name for name in said)
    settings |= {"method": "empirical", "resamples": 999}
    said = screen_page(made(uniform(30, 4), settings=settings)).settings["How it was tested"]
    assert said["resamples are drawn on"] == "the processor" and said["resamples"] == "999"
    strata = {"n_bins": 20, "burden_key": None, "n_burden_bins": 8}
    settings |= {"cells": 20_729, "seed": 20_261_122, "eps": 9.9993e-8, "strata": strata}
    said = screen_page(made(uniform(30, 4), settings=settings)).settings["How it was tested"]
    assert (said["cells"], said["seed"]) == ("20,729", "20261122")
    assert "1e-7" in said.values() and said["bins of the propensity"] == "20"
    assert not any("its bins" in name for name in said)
    settings["strata"] = strata | {"burden_key": "n_guides"}
    said = screen_page(made(uniform(30, 4), settings=settings)).settings["How it was tested"]
    assert said["its bins"] == "8"
    settings |= {"method": "ntc-empirical", "sampler": "bernoulli"}
    page = screen_page(made(uniform(30, 4), settings=settings))
    told = page.settings["How it was tested"]
    assert not any("drawn" in name or "drawing" in name for name in told)


def test_names_of_points_are_over_no_other_name_or_point():
    x, y = np.array([0.0, 5.0, 5.2, 5.1, 10.0]), np.array([9.0, 9.0, 9.1, 9.4, 9.0])
    notes = named(x, y, [4, 0, 1, 2, 3], ["first", "crowded", "near", "upper", "last"])
    assert [note["text"] for note in notes] == ["last", "first", "upper"]
    assert [note["xanchor"] for note in notes] == ["right", "left", "center"]


def test_long_names_of_pairs_keep_both_ends():
    x, y = np.array([0.0, 1.0, 2.0]), np.array([9.0, 1.0, 9.0])
    names = ["candidate_enh_15 on ENSG00000211641", "STAT1 on ENSG00000211641.12", "T on G"]
    texts = [note["text"] for note in named(x, y, [0, 1, 2], names)]
    assert texts == ["candid…h_15 on ENSG00…1641", "STAT1 on ENSG000002…641.12", "T on G"]
    assert max(map(len, texts)) == 26


def test_a_summary_is_in_words():
    result = with_effects()
    told = result.settings | {"side": "both", "sampler": "bernoulli"}
    said = made(result.p, settings=told).summary()
    assert said.startswith("screen: 60 perturbations on 5 programs\n  effects by least squares, of")
    assert "treatments drawn cell by cell" in said and "p = 1.0e-40" in said and "10^" not in said
    among = made(result.p, settings=told | {"method": "ntc-empirical"}).summary()
    assert "treatments drawn" not in among and "pseudo-genes" in among
