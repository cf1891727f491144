"""Names that two tables write differently: what is said of them."""

import numpy as np
import pytest

from plait.data.phenotypes import SampleTable, align
from plait.data.sample_names import no_overlap, renaming_advice
from plait.errors import LabelError

NUMBERS = [str(number) for number in range(775, 835)]


def advice(first, second):
    return renaming_advice("genotypes", first, "phenotypes", second)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda name: f"L{name}", "the prefix 'L' of the genotypes left out"),
        (lambda name: f"{name}_1", "the suffix '_1' of the genotypes left out"),
        (lambda name: f"F{name}_{name}", "a family name such as 'FID_' left out in the genotypes"),
        (lambda name: f"{name}_{name}", "a family name such as 'FID_' left out in the genotypes"),
        (lambda name: f"{int(name):06d}", "the prefix '000' of the genotypes left out"),
        (lambda name: f"{name[0]}-{name[1:]}", "'-', '.', '_' and blanks left out in the geno"),
    ],
)
def test_what_makes_names_match(change, words):
    """Whichever side is written so, it is the one that is named."""
    theirs = [change(name) for name in NUMBERS]
    assert f" 60 would match with {words}" in advice(theirs, NUMBERS)
    turned = words.replace("genotypes", "phenotypes").replace("geno", "pheno")
    assert f" 60 would match with {turned}" in advice(NUMBERS, theirs)


def test_other_changes():
    lines = [f"s{number}" for number in range(1, 40)]
    padded = [f"s{number:03d}" for number in range(1, 40)]
    assert " 39 would match with leading zeros left out in the genotypes" in advice(padded, lines)
    upper = [name.upper() for name in lines]
    assert " 39 would match with capital and small letters the same" in advice(upper, lines)
    # Where a name itself has the separator, the family is looked for on one side alone.
    twice = [f"P_{number}" for number in range(20)]
    doubled = [f"{name}_{name}" for name in twice]
    assert " 20 would match with a family name" in advice(doubled, twice)
    mixed = [f"FAM_S-{number:04d}" for number in range(1, 40)]
    assert (
        " 39 would match with family names, leading zeros, decimals, separators and case"
    ) in advice(mixed, lines)
    # 1.0 is 1, and not 10 without its separator.
    numbers = [f"{number:03d}" for number in range(1, 40)]
    said = advice(numbers, [f"{number}.0" for number in range(1, 40)])
    assert " 39 would match with family names, leading zeros, decimals" in said


def test_nothing_is_said_of_names_that_are_others():
    assert advice(["Ann", "Bob"], ["Cid", "Dora"]) == ""
    # One number among many ends as another one does: that is chance.
    others = [f"x{number}y" for number in range(1, 60)] + ["9934"]
    assert advice(others, ["34", *map(str, range(200, 400))]) == ""
    assert advice(["a"], ["b"]) == ""


def test_the_message():
    said = no_overlap("genotypes", ["L1", "L2", "L3", "L4"], "traits", ["1", "2"])
    assert said == (
        "genotypes and traits have no sample in common: genotypes begin 'L1', 'L2', 'L3', traits "
        "begin '1', '2'. 2 would match with the prefix 'L' of the genotypes left out: rename the "
        "samples of one of the two."
    )


def test_alignment_never_mends_names():
    table = SampleTable(np.array(NUMBERS), ("y",), np.arange(60.0)[:, None])
    with pytest.raises(LabelError, match="60 would match with the prefix 'L' of the genotypes"):
        align([f"L{name}" for name in NUMBERS], table)
    nothing = SampleTable(np.array(NUMBERS), ("c",), np.full((60, 1), np.nan))
    with pytest.raises(LabelError, match="every sample of the phenotypes has missing values"):
        align(NUMBERS, nothing)
    with pytest.raises(LabelError, match="every sample of the covariates has missing values"):
        align(NUMBERS, table, nothing, covariate_missing="drop")
