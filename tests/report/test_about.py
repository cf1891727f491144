"""What pages say about settings, in words."""

import pytest

from plait.crt.options import CRTOptions
from plait.crt.screen_parameters import ScreenParameters
from plait.provenance import Provenance
from plait.report.about import in_words, told
from plait.report.screen_words import WORDS, formula_in_words
from tests.crt.gene_cases import random_data


def test_settings_have_names_and_values_of_a_person():
    words = {"fdr": ("correction", {"BH": "Benjamini and Hochberg"}), "is_fast": ("fast", {})}
    settings = {"fdr": "BH", "is_fast": True, "n_bins": 4, "absent": None, "more": {"fdr": "none"}}
    assert in_words({**settings, "more": None}, words) == {
        "correction": "Benjamini and Hochberg",
        "fast": "yes",
        "n bins": 4,
    }
    assert in_words(settings, words)["correction"] == "none"


def test_how_a_result_was_made():
    origin = Provenance("crt run", options={"fdr": "BH"}, seed=7, threads=2, seconds=1.25)
    groups = told({"fdr": "BH", "level": 0.05}, origin, WORDS)
    assert groups["How it was tested"] == {
        "correction for many tests": "Benjamini and Hochberg",
        "false discovery rate of what is significant": "0.05",
    }
    assert groups["Run"]["analysis"] == "crt run"
    assert groups["Run"]["time"] == "1.2 s" and groups["Run"]["seed"] == "7"
    assert "seed" not in told({"seed": 7}, origin, WORDS)["Run"]
    assert list(told({"fdr": "BH"}, None, WORDS)) == ["How it was tested"]


@pytest.mark.parametrize("sampler", ["bernoulli", "stratified"])
@pytest.mark.parametrize("statistic", ["ols", "utest"])
def test_every_setting_of_a_screen_of_programs_has_words(sampler, statistic):
    settings = CRTOptions(sampler=sampler, statistic=statistic).described()
    said = in_words({**settings, "fdr": "BH", "fdr_scope": "all", "eps": 1e-5}, WORDS)
    text = " ".join([*said, *(value for value in said.values() if isinstance(value, str))])
    assert "_" not in text.replace("float64", "")
    assert said["statistic"] != statistic


def test_every_setting_of_a_screen_of_genes_has_words():
    settings = ScreenParameters.of(
        random_data(),
        discovery_pairs=None,
        positive_control_pairs=None,
        control_group=None,
        mechanism=None,
        formula=None,
        side="both",
        strategy="union",
        resampling="sceptre_staged",
        approximation="skew_normal",
        fdr="BH",
        level=0.1,
        max_resamples=1000,
        seed=1,
    ).described()
    said = in_words(settings, WORDS)
    formula = said.pop("covariates")
    assert formula == settings["formula"]
    assert "_" not in formula_in_words(formula)
    assert formula_in_words("log(my_response_n_umis)") == "log(my_response_n_umis)"
    text = " ".join([*said, *(value for value in said.values() if isinstance(value, str))])
    assert "_" not in text
    assert len(said) == len(settings) - 1
