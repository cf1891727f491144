"""What the page says about the scan behind the effects: pictures, settings, and the lamp."""

import json
from dataclasses import replace

import numpy as np
import pytest

from plait import gwas
from plait.gwas.results import AssociationResult
from plait.provenance import Provenance
from plait.report import mash_page, render
from plait.report.scan import collect_scan, inflation_verdict, scan_warning
from tests.report.results import make_result
from tests.report.test_page import NASTY, check_figures, data_of, without_scripts

OPTIONS = {
    "model": "linear", "loco": None, "missing_genotypes": "mean", "transform": "rank",
    "covariates": ["age", "PC1", "PC2"], "min_call_rate": 0.95, "min_minor_count": 20,
    "min_frequency": None, "min_info": 0.3, "n_genotyped": 500, "n_phenotyped": 450,
    "n_with_covariates": 420, "n_used": 400,
}  # fmt: skip


def make_scan(n=3000, n_traits=3, inflation=1.0, chromosomes=5, quiet=0, **changes):
    """z-scores of variance ``inflation`` but on the first ``quiet`` chromosomes; hits."""
    random = np.random.default_rng(7)
    chrom = np.sort(np.arange(n) % chromosomes)
    scale = np.where(chrom < quiet, 1.0, np.sqrt(inflation))[:, None]
    z = scale * random.normal(size=(n, n_traits))
    for k in range(n_traits):
        z[min(37 * k + 20, n - 1), k] = 9.0 + k
    from scipy.special import log_ndtr

    options = OPTIONS | {name: changes.pop(name) for name in list(changes) if name in OPTIONS}
    return AssociationResult(**{
        "beta": 0.1 * z,
        "se": np.full(z.shape, 0.1),
        "log10p": (log_ndtr(-np.abs(z)) + np.log(2)) / np.log(10),
        "n": np.full(z.shape, 400),
        "frequency": np.full(n, 0.3),
        "chrom": np.array([f"{k + 1}" for k in chrom]),
        "pos": np.arange(1, n + 1),
        "id": np.array([f"rs{k}" for k in range(n)]),
        "oa": np.full(n, "A"),
        "ea": np.full(n, "G"),
        "traits": tuple(f"t{k}" for k in range(n_traits)),
        "V0": np.eye(n_traits),
        "filtered": {"call rate": 12},
        "provenance": Provenance("gwas scan", options),
    } | changes)  # fmt: skip


def page_of(scan):
    width = len(scan.traits)
    result = make_result(600, width, condition_names=tuple(scan.traits))
    return mash_page(result, scan=scan)


def test_the_section():
    made = page_of(make_scan())
    section = made.sections[0]
    assert section.title == "The scan"
    assert [figure.name for figure in section.figures] == ["manhattan", "qq"]
    assert "3,000 variants tested for 3 traits" in section.intro
    assert "by the linear model: 3 associations at p < 5e-8" in section.intro
    facts = section.facts
    assert facts["samples"] == (
        "400 (500 with genotypes, 450 with traits, 420 with covariates)"
    )  # fmt: skip
    assert facts["covariates"] == "age, PC1, PC2"
    assert facts["traits"] == "normal scores of ranks"
    assert facts["variants must have"] == (
        "a call rate of 0.95 or more, 20 copies of the rarer allele or more, an imputation "
        "quality of 0.3 or more"
    )
    assert facts["variants"] == "3,000 in the genotypes, 3,000 tested"
    assert facts["tests left out"] == "12 by call rate"
    manhattan, qq = section.figures
    assert list(manhattan.views) == ["the surest trait at every variant", "t0", "t1", "t2"]
    assert manhattan.spec is manhattan.views["the surest trait at every variant"]
    leads = {row[0]: row for row in manhattan.numbers.rows}
    assert leads["t2"][1] == "1" and leads["t2"][3:6] == ["rs94", "1:95", "G"]
    assert [text.split(", ")[0] for _, text in qq.key] == ["t0", "t1", "t2"]
    check_figures(made)
    shown = without_scripts(render(made))
    for words in ("The scan", "Associations along the genome", "p-values against chance",
                  "age, PC1, PC2", 'data-views="manhattan"'):  # fmt: skip
        assert words in shown, words


def test_without_a_scan_there_is_no_section():
    made = mash_page(make_result())
    assert "The scan" not in {section.title for section in made.sections}
    nothing = make_scan(se=np.full((3000, 3), np.nan), log10p=np.full((3000, 3), np.nan))
    assert "The scan" not in {section.title for section in page_of(nothing).sections}


def test_what_is_drawn_is_what_was_found():
    scan = make_scan()
    spec = page_of(scan).sections[0].figures[0].views["t1"]
    heights = np.concatenate([part["y"] for part in spec["data"]])
    np.testing.assert_allclose(np.sort(heights), np.sort(-scan.log10p[:, 1]), rtol=1e-3)
    (hit,) = [part for part in spec["data"] if part["marker"]["color"] == "var(--trait-1)"]
    assert hit["customdata"] == [["rs57", "1:58"]]
    assert [note["text"] for note in spec["layout"]["annotations"]] == ["rs57"]
    assert spec["layout"]["xaxis"]["ticktext"] == ["1", "2", "3", "4", "5"]
    surest = page_of(scan).sections[0].figures[0].spec
    told = [about for part in surest["data"] for about in part.get("customdata", ())]
    assert ["rs57", "1:58, t1"] in told


@pytest.mark.parametrize("n_traits", [1, 2, 12])
@pytest.mark.parametrize("n", [1, 40, 2500])
def test_every_shape(n, n_traits):
    made = page_of(make_scan(n, n_traits, chromosomes=min(n, 30)))
    check_figures(made)
    section = made.sections[0]
    assert "nan" not in json.dumps(data_of(render(made))["figures"])
    assert "nan" not in section.intro
    views = section.figures[0].views
    assert len(views) == (1 if n_traits == 1 else 1 + min(n_traits, 8))
    assert ("lambda of the others is" in section.figures[1].caption) == (n_traits > 8)


def test_nothing_stands_out():
    """No point is high enough to say what it is, and no peak has a name."""
    made = page_of(make_scan(log10p=np.full((3000, 3), -0.5)))
    for view in made.sections[0].figures[0].views.values():
        assert view["layout"]["annotations"] == []
        assert all(part["hoverinfo"] == "skip" for part in view["data"])
    check_figures(made)


def test_labels_are_harmless():
    n = 60
    ids = np.array([f"{NASTY[k % len(NASTY)]} {k}" for k in range(n)])
    scan = make_scan(n, len(NASTY), traits=tuple(NASTY), id=ids, covariates=NASTY)
    made = page_of(scan)
    text = render(made)
    assert "<script>alert" not in text
    assert "</script><b>" not in text
    for figure in made.figures:
        for spec in (figure.spec, *figure.views.values()):
            assert "<script" not in json.dumps(spec)
    check_figures(made)


def test_size_is_bounded():
    """Half a million variants, of which a tenth is beyond 1e-3 and many are beyond the line."""
    n, n_traits = 500_000, 3
    random = np.random.default_rng(0)
    log10p = np.log10(random.uniform(size=(n, n_traits)))
    log10p[::10] -= random.uniform(3, 20, size=(n // 10, n_traits))
    values = np.ones((n, n_traits))
    scan = make_scan(n, n_traits, log10p=log10p, beta=values, se=values)
    spec = page_of(scan).sections[0].figures[0].views
    assert len(json.dumps(spec)) < 1.2e6
    for view in spec.values():
        across = np.concatenate([part["x"] for part in view["data"]])
        assert 1500 < len(across) <= 4000
        assert np.histogram(across, bins=10, range=(0, 1000))[0].min() > 100


def test_a_stored_scan_gives_the_same_page(tmp_path):
    scan = make_scan()
    scan.save(tmp_path / "a.zarr")
    opened = AssociationResult.open(tmp_path / "a.zarr")
    first, second = (page_of(one).sections[0] for one in (scan, opened))
    assert first.facts == second.facts and first.intro == second.intro
    for one, other in zip(first.figures, second.figures, strict=True):
        assert one.spec == other.spec and one.views == other.views and one.numbers == other.numbers


def lamp(**about):
    return inflation_verdict(collect_scan(make_scan(**about)))


def test_a_scan_without_inflation_is_a_green_lamp():
    found = lamp()
    assert found.state == "good"
    assert "lambda is 1." in found.reason


def test_inflation_everywhere_and_where_effects_are_are_told_apart():
    everywhere = lamp(inflation=1.7)
    assert (everywhere.state, everywhere.title) == ("caution", "Scan inflated")
    assert "All chromosomes are raised, from 1." in everywhere.reason
    assert "true effects in linkage raise it, and so do relatives" in everywhere.reason
    some = lamp(inflation=2.2, quiet=2)
    assert (some.state, some.title) == ("caution", "Scan raised on some chromosomes")
    assert "true effects raise the chromosomes that they are on" in some.reason
    worst = lamp(inflation=3.5)
    assert (worst.state, worst.title) == ("bad", "Scan inflated everywhere")
    assert lamp(inflation=3.5, quiet=2).state == "caution"
    for found in (everywhere, some, worst):
        assert "--model mixed tells" in found.reason


def test_what_the_lamp_knows_of_the_model():
    mixed = lamp(inflation=1.7, model="mixed")
    assert mixed.state == "good"
    assert "what is left is mostly signal" in mixed.reason
    assert "--model whole-genome-logistic tells" in lamp(inflation=1.7, model="logistic").reason
    assert "2 principal components among the covariates take" in lamp(inflation=1.7).reason
    assert "principal" not in lamp(inflation=1.7, covariates=["age"]).reason
    one = lamp(inflation=1.7, chromosomes=1)
    assert one.state == "caution" and "chromosome" not in one.reason
    nothing_known = inflation_verdict(collect_scan(make_scan(provenance=None)))
    assert nothing_known.state == "good"


@pytest.mark.parametrize(
    ("about", "own"),
    [
        ({"model": "mixed"}, False),
        ({"model": "mixed", "loco": False}, True),
        ({"model": "mixed", "chromosomes": 1}, True),
        ({"model": "linear", "chromosomes": 1}, False),
    ],
)
def test_relationships_by_the_chromosome_of_the_variant_itself_are_told(about, own):
    facts = page_of(make_scan(**about)).sections[0].facts
    assert facts["model"].endswith("too: tests are conservative") == own


def test_chance_makes_lambda_of_few_tests_large():
    few = collect_scan(make_scan(inflation=1.4))
    worst = few.most_inflated
    height, n = few.inflation[worst], few.tests[worst]
    assert inflation_verdict(few).state == "caution" and height > 1 + 7 / n**0.5
    least = int((7 / (height - 1)) ** 2)  # up to so many tests, it is within three errors
    for number, state in ((least, "good"), (least + 1, "caution")):
        tests = np.full(len(few.traits), number)
        lamp_of_few = inflation_verdict(replace(few, tests=tests))
        assert lamp_of_few.state == state
        assert ("chance with" in lamp_of_few.reason) == (state == "good")


def test_the_trait_that_is_named_is_inflated_beyond_chance():
    found = collect_scan(make_scan())
    inflation, tests = np.full(len(found.traits), 1.0), np.full(len(found.traits), 100_000)
    inflation[:2], tests[0] = (1.5, 1.3), 100
    found = replace(found, inflation=inflation, tests=tests)
    assert found.most_inflated == 1 and found.is_inflated


def test_a_trait_without_tests_is_called_so():
    """No lambda is told of it, whether it has a colour or is one of many others."""
    for width in (3, 12):
        whole, untested = make_scan(n_traits=width), np.isin(np.arange(width), (1, 2))
        left = {
            name: np.where(untested, np.nan, getattr(whole, name))
            for name in ("beta", "se", "log10p")
        }
        scan = make_scan(n_traits=width, **left)
        section = page_of(scan).sections[0]
        assert "lambda nan" not in scan.summary() and "nan" not in section.figures[1].caption
        assert scan.summary().count("  t1: no variant tested\n") == 1
        assert [row[2] for row in section.figures[0].numbers.rows[1:3]] == 2 * ["not tested"]
        told = [text for _, text in section.figures[1].key]
        assert ("t1, not tested" in told) == (width == 3) and "nan" not in " ".join(told)


def test_what_is_said_without_the_page():
    assert scan_warning(make_scan()) == ""
    warning = scan_warning(make_scan(inflation=3.5))
    assert warning.startswith("scan inflated everywhere. The largest lambda is ")


def test_the_lamp_is_the_first_of_the_page():
    made = page_of(make_scan(inflation=3.5))
    assert made.verdicts[0].title == "Scan inflated everywhere"
    assert made.verdict == "Do not rely on this"
    good = [lamp.title.lower() for lamp in made.verdicts if lamp.state == "good"]
    assert made.reasons[0] == "scan inflated everywhere" and not set(good) & set(made.reasons)


def test_the_words_of_the_static_figure():
    ax = gwas.plot_qq(make_scan(), caption=True)
    said = " ".join(ax.figure.get_supxlabel().split())
    assert "very many true effects in linkage, or from relatedness and population" in said
    import matplotlib.pyplot as plt

    plt.close(ax.figure)
