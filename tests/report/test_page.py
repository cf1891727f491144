"""The page: what it says, that labels are harmless, and that every shape of result makes one."""

import builtins
import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command

from plait.cli.main import app
from plait.data import Effects
from plait.errors import DependencyError, NotAvailableError, OutputError
from plait.io import write_effects
from plait.mash import (
    apply_mash_prior_to_store,
    cov_canonical,
    get_pairwise_sharing,
    mash,
    mash_1by1,
    mash_open_data,
    mash_set_data,
    mash_train_apply,
    simple_sims,
)
from plait.mash.results import FittedG, MashResult
from plait.plot import style
from plait.report import mash_page, page, render, write_mash_report
from plait.report.figures import count_axis, found_by_context, main_direction, short
from plait.report.gene_figures import histogram
from plait.report.screen_figures import found_by_program
from tests.report.results import make_result

NASTY = ["<script>alert(1)</script>", "</script><b>x", "a\"b'c", "%{x}", "{{ 7 * 7 }}", "<!--"]


def data_of(text):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(found[1])


def without_scripts(text):
    return re.sub(r"<script.*?</script>|<style>.*?</style>", "", text, flags=re.S)


def check_figures(made):
    """Every figure is one that Plotly's own checks accept."""
    import plotly.graph_objects as go

    for figure in made.figures:
        for spec in (figure.spec, *figure.views.values()):
            text = re.sub(r"var\(--[a-z0-9-]+\)", "#123456", json.dumps(spec, allow_nan=False))
            go.Figure(json.loads(text))
        assert figure.height >= 150


def test_the_answer():
    made = mash_page(make_result(2000, 4), title="A study")
    first, second = made.answer
    assert re.match(r"\d+ of 2,000 effects \(\d+\.\d%\) are significant", first)
    assert "least one of 4 contexts" in first
    assert "wrong sign" in first
    assert "most tissue" in second
    assert "within a factor of 2" in second
    assert made.state == "good", made.verdicts
    text = render(made)
    shown = without_scripts(text)
    for words in (
        "A study", made.question, "Sound", "Converged", "Enough data", "null effects",
        "Significant effects in each context", "How much pairs of contexts share",
        "In how many contexts an effect is alike", "Estimated weights", "Pattern learned",
        "How sure, against how large", "Settings and versions", "mixsqp", "Urbut", "BibTeX",
        "10.1038/s41588-018-0268-8", "Plotly",
    ):  # fmt: skip
        assert words in shown, words
    check_figures(made)


def test_sizes_in_different_units_are_not_compared():
    """The answer is by signs, and figures that compare sizes say what they depend on."""
    result = make_result(2000, 4)
    made = mash_page(result, described={"same_unit": False})
    signs = get_pairwise_sharing(result, factor=0)[np.triu_indices(4, 1)]
    assert signs.min() >= 0.995
    assert made.answer[1] == (
        "Any two contexts share 100% of the signs of their effects (same sign; sizes are in "
        "different units)."
    )
    turned = np.array(result.posterior_mean) * np.where(np.arange(2000) % 3, 1, -1)[:, None] ** (
        np.arange(4) == 2
    )
    result = make_result(2000, 4, posterior_mean=turned)
    signs = get_pairwise_sharing(result, factor=0)[np.triu_indices(4, 1)]
    made = mash_page(result, described={"same_unit": False})
    assert made.answer[1].startswith(
        f"Two contexts typically share {np.median(signs):.0%} of the signs of their effects (same "
        "sign; sizes are in different units): most tissue 1 and tissue 2 (100%), least tissue"
    )
    said = {figure.name: figure.caption for figure in made.figures}
    for name in ("sharing", "similar"):
        assert said[name].endswith("Contexts are in different units, which sizes depend on.")
    assert "same_unit" not in without_scripts(render(made))
    assert "different units" not in render(mash_page(result, described={"same_unit": True}))
    two = mash_page(make_result(2000, 2), described={"same_unit": False}).answer[1]
    assert re.match(r"The two contexts share \d+% of the signs of their effects", two)


def test_needs_nothing_else():
    text = render(mash_page(make_result()))
    shown = without_scripts(text)
    assert not re.search(r"<(link|img|iframe|object|embed)\b|\bsrc=|@import|url\(", shown)
    assert "default-src 'none'" in shown
    assert "connect-src" not in shown


def test_colours_are_those_of_the_figures():
    text = render(mash_page(make_result()))
    assert f"--blue: {style.BLUE}" in text
    assert f"--vermilion: {style.VERMILION}" in text


def test_labels_are_harmless():
    n, width = 60, len(NASTY)
    result = make_result(
        n, width, condition_names=tuple(NASTY),
        effect_names=np.array([f"{NASTY[j % width]} {j}" for j in range(n)]),
    )  # fmt: skip
    made = mash_page(result, title=NASTY[0], described={NASTY[1]: NASTY[0]})
    text = render(made)
    assert "<script>alert" not in text
    assert "</script><b>" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "{{ 7 * 7 }}" in text
    data = data_of(text)
    assert data["table"]["contexts"] == NASTY
    ticks = data["figures"]["found"][0]["layout"]["yaxis"]["ticktext"]
    assert ticks[1] == "&lt;/script&gt;&lt;b&gt;x"
    for figure in made.figures:
        assert "<script" not in json.dumps(figure.spec)
        for trace in figure.spec["data"]:
            for template in (trace.get("hovertemplate", ""), trace.get("texttemplate", "")):
                assert not any(label in template for label in NASTY[:3])
    check_figures(made)


@pytest.mark.parametrize("n", [1, 2, 7, 150])
@pytest.mark.parametrize("width", [1, 2, 3, 17, 60])
@pytest.mark.parametrize("names", [True, False])
@pytest.mark.parametrize("strength", [0, 1])
def test_every_shape(n, width, names, strength):
    made = mash_page(make_result(n, width, names=names, strength=strength))
    check_figures(made)
    assert len(made.answer) == 2
    assert all(sentence.endswith(".") for sentence in made.answer)
    assert len(made.table.effects) >= 1
    assert "nan" not in " ".join([*made.answer, *(v.reason for v in made.verdicts)]).lower()
    data = data_of(render(made))
    assert len(data["table"]["rate"]) == len(made.table.effects) * width


def test_nothing_significant():
    made = mash_page(make_result(1500, 3, strength=0))
    assert made.answer[0].startswith("None of 1,500 effects")
    assert "the surest effect is rs" in made.answer[1]
    assert "No effect is significant" in made.table.note
    assert len(made.table.effects) == 50
    titles = {figure.title for figure in made.figures}
    assert not {"How much pairs of contexts share", "Significant effects in each context"} & titles
    text = render(made)
    assert 'data-figure="found"' not in text and 'class="first wordy"' in text
    assert 'data-figure="found"' in render(mash_page(make_result(300, 4)))


def test_one_effect():
    assert mash_page(make_result(1, 3, strength=0)).answer[0].startswith("The effect is not")


@pytest.mark.parametrize(
    ("mean", "same_unit", "said"),
    [
        ([9.0, 8.0, -9.0, 6.0], True, "in 2 of 3 others: tissue 2, tissue 4."),
        ([9.0, 2.0, -9.0, 1.0], True, "in none of 3 others."),
        ([9.0, 2.0, -9.0, 1.0], False, "in 2 of 3 others: tissue 2, tissue 4."),
        ([9.0, 8.0], True, "it is alike (same sign, within a factor of 2) in tissue 2."),
        ([9.0, -8.0], True, "it is not alike (same sign, within a factor of 2) in tissue 2."),
    ],
)
def test_of_one_significant_effect_no_shares_are_told(mean, same_unit, said):
    """Shares of pairs would be 0% or 100%, and say of one effect what is typical."""
    plain = make_result(30, len(mean), strength=0)
    means, lfsr = np.array(plain.posterior_mean), np.array(plain.lfsr)
    means[7], lfsr[7, 0] = mean, 0.001
    result = make_result(30, len(mean), posterior_mean=means, lfsr=lfsr)
    first, second = mash_page(result, described={"same_unit": same_unit}).answer
    assert first.startswith("1 of 30 effects (3.3%) is significant")
    assert second.startswith("Compared with tissue 1, it is ") and second.endswith(said)
    assert "%" not in second


def test_pairs_that_share_alike_are_told_at_once():
    means, lfsr = np.full((6, 3), 2.0), np.full((6, 3), 1e-3)
    answer = mash_page(make_result(6, 3, posterior_mean=means, lfsr=lfsr)).answer
    assert answer[1].startswith("Any two contexts share 100% of their effects (same sign")


@pytest.mark.parametrize("most", [0, 1, 3, 5])
def test_axes_of_few_have_ticks_at_whole_numbers(most):
    axes = [
        found_by_context(["a"], *(np.array([n]) for n in (most, 0, 0)))["layout"]["xaxis"],
        found_by_program(["a"], np.array([most]), np.array([0]))["layout"]["xaxis"],
        histogram(np.r_[np.zeros(max(most, 1)), 1.0], None, None, "x")["layout"]["yaxis"],
    ]
    for axis in axes:
        assert (axis["dtick"], axis["tick0"], axis["rangemode"]) == (1, 0, "tozero")
    assert "dtick" not in count_axis("effects", 4000)


def test_more_significant_than_shown():
    made = mash_page(make_result(2000, 4), most=100)
    assert len(made.table.effects) == 100
    assert re.match(r"The 100 surest of \d{3} significant effects", made.table.note)
    all_of_them = mash_page(make_result(300, 4))
    assert all_of_them.table.note.startswith("All ")


def lamp(result, title, **about):
    found = {v.title: v.state for v in mash_page(result, described=about).verdicts}
    assert title in found, found
    return found[title]


def test_traffic_light():
    fit = {"method": "mixsqp", "converged": False, "dual_gap": 1e-3}
    assert lamp(make_result(optim=fit), "Not converged") == "bad"
    assert mash_page(make_result(optim=fit)).verdict == "Do not rely on this"
    assert lamp(make_result(optim={}), "Convergence not recorded") == "unknown"
    described = {"command": "fit", "converged": True, "dual_gap": 1e-11}
    assert lamp(make_result(optim={}), "Converged", **described) == "good"
    assert lamp(make_result(optim={}), "Weights given", command="apply") == "good"
    assert lamp(make_result(50), "Too few effects") == "bad"
    assert lamp(make_result(500), "Little data") == "caution"
    assert lamp(make_result(5000), "Enough data", train_size=1000) == "good"


def test_doubts_of_a_study_are_lamps():
    """Under their own titles; one that says what a lamp says stands in its place."""
    doubts = {
        "Few signals": "only 3 signals; raise --strong-p (strong_p=).",
        "Enough data": "not so much.",
    }
    lamps = mash_page(make_result(5000), described={"doubts": doubts}).verdicts
    assert [(v.state, v.reason) for v in lamps if v.title == "Few signals"] == [
        ("caution", "Only 3 signals; raise --strong-p.")
    ]
    assert [v.reason for v in lamps if v.title == "Enough data"] == ["Not so much."]


def prior(pi, pointmass=True, **more):
    return FittedG(
        np.asarray(pi, dtype=float),
        {"identity": np.eye(4)},
        np.array([1.0, 2.0]),
        pointmass,
        **more,
    )


def test_traffic_light_on_the_prior():
    few = make_result(fitted_g=prior([0.02, 0.98, 0.0]))
    assert lamp(few, "Few null effects") == "caution"
    assert lamp(make_result(), "Plausible share of null effects") == "good"
    edge = make_result(fitted_g=prior([0.7, 0.1, 0.2]))
    assert lamp(edge, "Effects at the end of the grid") == "caution"
    nothing = make_result(fitted_g=prior([1.0, 0.0, 0.0]))
    assert lamp(nothing, "Nearly all effects null") == "caution"
    check_figures(mash_page(nothing))
    without = make_result(fitted_g=prior([0.5, 0.5], pointmass=False))
    assert lamp(without, "No null component") == "caution"
    independent = make_result(fitted_g=prior([0.7, 0.3, 0.0], V_hint=np.eye(4)))
    assert lamp(independent, "Errors taken as independent") == "unknown"
    assert lamp(make_result(), "Error correlation accounted for") == "good"
    unrecorded = make_result(fitted_g=prior([0.7, 0.3, 0.0]))
    assert lamp(unrecorded, "Error correlation not recorded") == "unknown"
    many = make_result(2000, fitted_g=prior([0.7, 0.3, 0.0]))
    assert mash_page(many).verdict == "Sound as far as the file tells"


def test_patterns_are_called_learned_where_some_were():
    """Canonical ones alone are called so: they were given."""
    data = mash_set_data(np.ones((3, 4)), np.ones((3, 4)))
    canonical = cov_canonical(data)
    learned = {"ED_1": np.eye(4) + np.outer([1, 2, 0, 1], [1, 2, 0, 1])}

    def title(patterns):
        pi = np.full(1 + len(patterns), 1 / (1 + len(patterns)))
        fitted = FittedG(pi, patterns, np.ones(1), True)
        (found,) = (
            part.title
            for part in mash_page(make_result(fitted_g=fitted)).sections
            if part.name == "prior-section"
        )
        return found

    assert title(canonical) == "The canonical patterns"
    assert title(canonical | learned) == "The patterns that were learned"
    assert title({"one context": np.diag([0.0, 2.0, 0.0, 0.0])}) == "The canonical patterns"
    assert title(learned) == "The patterns that were learned"


def test_contexts_of_the_output_may_differ_from_those_of_the_prior():
    """With an output map A the result has other columns than the prior."""
    check_figures(mash_page(make_result(200, 3, fitted_g=prior([0.7, 0.3, 0.0]))))


def test_one_context_at_a_time():
    sim = simple_sims(100, 3, 0.5, seed=1)
    result = mash_1by1(mash_set_data(sim["Bhat"], sim["Shat"]))
    made = mash_page(result)
    assert "One context at a time" in {v.title for v in made.verdicts}
    assert "Run" in made.settings
    check_figures(made)
    render(made)
    render(mash_page(make_result(fitted_g=[])))


def test_settings_are_in_words(tmp_path):
    """Nothing is called as in the code, and every option that is named is one of the command."""
    sim = simple_sims(100, 3, 0.5, seed=1)
    data = mash_set_data(sim["Bhat"], sim["Shat"], alpha=1)
    matrices = cov_canonical(data)
    write_effects(Effects(sim["Bhat"], sim["Shat"]), tmp_path / "e.zarr")
    stored = mash_open_data(tmp_path / "e.zarr", 1)
    fitted = mash(data, matrices)
    trained = mash_train_apply(data, matrices, n_train=200).apply_result
    apply_mash_prior_to_store(stored, fitted.fitted_g, tmp_path / "r.zarr")
    described = {
        "command": "fit", "seed": 1, "train_size": 200, "select_method": "random",
        "background_fraction": None, "weighting": "none", "usepointmass": True, "loglik": -1.0,
        "doubts": {"Few": "few."},
    }  # fmt: skip
    commands = get_command(app).commands["mash"].commands
    flags = {p.opts[0] for name in ("fit", "apply") for p in commands[name].params}
    for result in (fitted, trained, MashResult.open(tmp_path / "r.zarr"), mash_1by1(data)):
        groups = mash_page(result, described=described).settings
        for name, text in (pair for group in groups.values() for pair in group.items()):
            assert "_" not in name and text != "None" and "{" not in text, (name, text)
            assert set(re.findall(r"--[\w-]+", name)) <= flags
        weights = groups["Mixture weights"]
        assert weights["do they stand for those left out (--weighting)"] == "no"
        assert weights["which ones (--select-method)"] == "random ones"
        assert "seconds" not in weights
    assert groups["Model"]["alike between effects (--alpha)"] == "z-scores (1)"


def test_lazy_arrays(tmp_path):
    made = write_mash_report(make_result(30_000, 5, lazy=True), tmp_path / "r.html")
    plain = mash_page(make_result(30_000, 5), title="Effects across contexts")
    assert made.answer == plain.answer
    assert made.table.effects == plain.table.effects


def test_size_is_bounded(tmp_path):
    """60 contexts with long names, more significant effects than fit: still below 12 MB."""
    width, n = 60, 4000
    names = tuple(f"Brain_Nucleus_accumbens_basal_ganglia_{r:02d}" for r in range(width))
    random = np.random.default_rng(0)
    result = make_result(
        n, width, condition_names=names, lfsr=random.uniform(0, 1e-6, size=(n, width)),
        effect_names=np.array([f"chr1_{j:09d}_A_G_b38_ENSG00000{j:06d}" for j in range(n)]),
    )  # fmt: skip
    made = write_mash_report(result, tmp_path / "r.html")
    assert len(made.table.effects) == 2000
    assert (tmp_path / "r.html").stat().st_size < 12e6


def test_refuses_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "r.html").write_text("mine")
    monkeypatch.setattr("plait.report.mash.collect", lambda *_: pytest.fail("worked"))
    with pytest.raises(OutputError, match="exists"):
        write_mash_report(make_result(), tmp_path / "r.html")
    with pytest.raises(OutputError, match="does not exist"):
        write_mash_report(make_result(), tmp_path / "no" / "r.html")
    assert (tmp_path / "r.html").read_text() == "mine"


def test_overwrite(tmp_path):
    (tmp_path / "r.html").write_text("old")
    write_mash_report(make_result(), tmp_path / "r.html", overwrite=True)
    assert (tmp_path / "r.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_no_posterior(tmp_path):
    with pytest.raises(NotAvailableError, match="outputlevel=2"):
        write_mash_report(make_result(posterior_mean=None), tmp_path / "r.html")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("library", ["jinja2", "plotly"])
def test_missing_library(library, monkeypatch, tmp_path):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == library:
            raise ModuleNotFoundError(f"No module named {library!r}", name=library)
        return real(name, *args, **kwargs)

    page._environment.cache_clear()
    page._plotly.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DependencyError, match=rf"{library}.*pip install 'plait\[plot\]'"):
        write_mash_report(make_result(), tmp_path / "r.html")
    assert not list(tmp_path.iterdir())


def test_citation_agrees_with_the_citation_file():
    text = (Path(__file__).parents[2] / "CITATION.cff").read_text(encoding="utf-8")
    made = mash_page(make_result(20))
    own, paper = made.citations
    for words in ("10.1038/s41588-018-0268-8", "Nature Genetics", "187", "2019", "Urbut"):
        assert words in text
        assert words in paper.bibtex
    version = re.search(r"^version: (\S+)$", text, re.M)[1]
    assert version in own.text
    assert "The plait developers" in text
    assert "The plait developers" in own.text


def test_options_and_powers_are_not_broken_at_the_end_of_a_line():
    said = page.unbroken("<b> -- or --null ntc-empirical, a--b, --on-disk.")
    assert said == (
        "&lt;b&gt; -- or <code>--null</code> ntc-empirical, a--b, <code>--on-disk</code>."
    )
    said = page.unbroken("p = 8.9e-216, below 1e-11. Not x1e-5, 2026-11-21 or -0.5")
    assert said == (
        '<span class="power">p = 8.9e-216</span>, below <span class="power">1e-11</span>. Not '
        "x1e-5, 2026-11-21 or -0.5"
    )


def test_long_labels_are_shortened_in_the_middle():
    assert short("Liver") == "Liver"
    shown = short("Brain_Nucleus_accumbens_basal_ganglia")
    assert len(shown) == 26
    assert shown.startswith("Brain_Nucleus")
    assert shown.endswith("ganglia")
    assert short("<" * 30).count("&lt;") == 25


def test_main_direction():
    vector, title = main_direction(np.diag([4.0, 1.0]))
    np.testing.assert_allclose(vector, [1, 0], atol=1e-12)
    assert "80%" in title
    vector, title = main_direction(np.eye(3))
    assert not vector.any()
    assert title.startswith("no main")
    assert not main_direction(np.zeros((3, 3)))[0].any()
