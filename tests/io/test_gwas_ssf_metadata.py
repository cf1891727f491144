"""Metadata of GWAS-SSF: of one file for several traits, and what is wrong with them."""

import re
from pathlib import Path

import pytest

from plait.errors import InputError, LabelError
from plait.io.gwas_ssf_metadata import (
    completed,
    metadata_of_trait,
    metadata_of_traits,
    metadata_problems,
)
from plait.io.metadata_yaml import read_yaml

COMMON = {
    "genome_assembly": "GRCh38",
    "genotyping_technology": "Genome-wide genotyping array",
    "samples": {"sample_ancestry_category": "European"},
}


def test_a_trait_without_a_description_is_called_by_its_name():
    given = COMMON | {
        "traits": {"LDL": {"trait_description": "LDL cholesterol", "author_notes": "fasting"}}
    }
    found = metadata_of_traits(given, ("HDL", "LDL"))
    assert found["HDL"]["trait_description"] == ["HDL"]
    assert found["LDL"]["trait_description"] == ["LDL cholesterol"]
    assert found["LDL"]["author_notes"] == "fasting" and "author_notes" not in found["HDL"]
    for each in found.values():
        assert "traits" not in each
        assert each["samples"] == [{"sample_ancestry_category": ["European"]}]
        assert each["genotyping_technology"] == ["Genome-wide genotyping array"]
    assert metadata_of_trait(given, "LDL")["trait_description"] == "LDL cholesterol"
    assert "trait_description" not in metadata_of_trait(given, "HDL")
    assert metadata_of_trait(COMMON, None) == COMMON
    one = metadata_of_traits(COMMON | {"trait_description": "height"}, ("h",))
    assert one["h"]["trait_description"] == ["height"]
    # More traits may be described than are scanned.
    metadata_of_traits(given, ("LDL",))


@pytest.mark.parametrize(
    ("more", "error", "text"),
    [
        ({"trait_description": "x"}, InputError, "one trait_description for 2 traits.*'HDL'"),
        ({"traits": {"ldl": {}}}, LabelError, "'ldl' below traits.*not described are 'HDL', 'LDL'"),
        ({"traits": ["LDL"]}, InputError, "below 'traits:' stand names of traits"),
        ({"traits": {"LDL": "LDL"}}, InputError, "below 'traits:' stand names of traits"),
        ({"genome_assembly": None}, InputError, "m.yaml: missing genome_assembly.$"),
        ({"traits": {"LDL": {"sex": "X"}}}, InputError, "m.yaml: trait 'LDL': sex is M, F, comb"),
        (
            {"genotyping_technology": "", "traits": {"LDL": {"genotyping_technology": "x"}}},
            InputError,
            "m.yaml: trait 'HDL': missing genotyping_technology.$",
        ),
        ({"samples": [{}]}, InputError, "m.yaml: sample 1 lacks sample_ancestry_category.$"),
        ({"samples": [{}, {}]}, InputError, "sample 1 lacks sample_size, sample_ancestry_c"),
        ({"samples": "all"}, InputError, "samples is a list of mappings"),
    ],
)
def test_what_is_refused_before_a_scan(more, error, text):
    with pytest.raises(error, match=text):
        metadata_of_traits(COMMON | more, ("HDL", "LDL"), "m.yaml")


def test_which_trait_is_to_be_known():
    with pytest.raises(LabelError, match="describe the traits LDL; say which"):
        metadata_of_trait({"traits": {"LDL": {}}}, None)


def test_numbers_and_lists_of_the_standard():
    given = read_yaml(
        "samples:\n  - sample_size: 60\n    case_count: 20\n    sample_ancestry: Dutch\n"
        "adjusted_covariates: age\nsex: F\n",
        "x",
    )
    found = completed(given, {"sex": "M", "genome_assembly": "GRCh37"}, 50)
    assert list(found) == ["genome_assembly", "samples", "adjusted_covariates", "sex"]
    assert found["samples"] == [{"sample_size": 60, "case_count": 20, "sample_ancestry": ["Dutch"]}]
    assert found["adjusted_covariates"] == ["age"] and found["sex"] == "F"
    # The size of one sample is that of the table; of several it is to be given.
    assert completed({"samples": [{}]}, n=7)["samples"] == [{"sample_size": 7}]
    assert completed({"samples": [{}, {}]}, n=7)["samples"] == [{}, {}]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"gwas_id": "1"}, "'1' is not GCST"),
        ({"samples": [{}]}, "sample 1 lacks sample_size"),
        ({"samples": ["x"]}, "mappings"),
        ({"samples": [{"sample_size": "6e4"}]}, "sample_size '6e4' is not a whole number"),
        ({"samples": [{"case_control_study": "x"}]}, "case_control_study is true or false"),
        ({"coordinate_system": "2-based"}, "0-based"),
        ({"date_metadata_last_modified": "1 May"}, "YYYY"),
        ({"is_sorted": "yes"}, "is_sorted is true or false, not 'yes'"),
        ({"sex": "both"}, "sex is M, F, combined or NR, not 'both'"),
        ({"file_type": "plain"}, "'plain' is not GWAS-SSF v1.0"),
        ({"trait_description": "height"}, "trait_description is a list, not 'height'"),
        ({"genotyping_technology": "array"}, "genotyping_technology is a list, not 'array'"),
        ({"adjusted_covariates": "age"}, "adjusted_covariates is a list, not 'age'"),
        (
            {"samples": [{"sample_ancestry_category": "European"}]},
            "sample 1: sample_ancestry_category is a list, not 'European'",
        ),
    ],
)
def test_problems(given, text):
    assert text in " ".join(metadata_problems(given))


def test_the_example_of_the_guide():
    """The metadata file of docs/gwas.md is complete for the traits that it describes."""
    text = (Path(__file__).parents[2] / "docs/gwas.md").read_text(encoding="utf-8")
    given = read_yaml(re.search(r"```yaml\n(.*?)```", text, flags=re.DOTALL)[1], "docs/gwas.md")
    assert len(given["traits"]) == 2
    found = metadata_of_traits(given, (*given["traits"], "another"))
    assert [each["trait_description"] for each in found.values()][-1] == ["another"]
    for each in list(found.values())[:2]:
        assert each["trait_description"] != ["another"]
