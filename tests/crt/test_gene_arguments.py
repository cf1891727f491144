"""Absurd arguments of gene-level screens are refused where they come in, in words."""

import numpy as np
import pytest

from plait import crt
from plait.crt.assignment import assign_guides
from plait.crt.detectable_effects import DetectableEffects
from plait.errors import InputError, InputTypeError
from tests.crt.gene_cases import random_screen

NAN = float("nan")


@pytest.fixture(scope="module")
def counts():
    return random_screen(n_cells=120)[0]


@pytest.fixture(scope="module")
def data(counts):
    return crt.gene_screen_data(**counts)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"moi": 3}, "moi is 3"),
        ({"responses": None}, "counts of genes are of type NoneType with 0 dimensions"),
        ({"responses": "counts.h5ad"}, "counts of genes are of type str"),
        ({"guides": None}, "counts of guides"),
        ({"targets": 3}, "a table was expected and a int was given"),
        ({"response_names": None}, "names of genes are of type NoneType; give a list"),
        ({"response_names": "TP53"}, "names of genes are of type str; give a list"),
        ({"guide_names": 3}, "names of guides are of type int"),
        ({"cell_names": 3}, "names of cells are of type int"),
        ({"covariates": "batch"}, "covariates are of type str; give a DataFrame"),
    ],
)
def test_counts(counts, options, words):
    with pytest.raises(InputError, match=words):
        crt.gene_screen_data(**(counts | options))


@pytest.mark.parametrize(
    "call",
    [crt.GeneScreen, assign_guides, crt.trans_pairs, crt.positive_control_pairs],
)
@pytest.mark.parametrize("data", [None, "screen.h5ad"])
def test_what_is_no_screen(call, data):
    with pytest.raises(InputTypeError, match=r"data is of type .*what gene_screen_data returns"):
        call(data)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"discovery_pairs": 3}, "the pairs are 3; give a table"),
        ({"discovery_pairs": "trans"}, "the pairs are 'trans'; give a table"),
        ({"discovery_pairs": [1, 2]}, "give a table with grna_target and response_id"),
        ({"positive_control_pairs": [("T0",)]}, "or tuples of a target and a gene"),
        ({"level": NAN}, "level is nan"),
        ({"level": "0.1"}, "level is '0.1'; give a number"),
        ({"seed": -1}, "seed is -1; give at least 0"),
        ({"seed": NAN}, "seed is nan"),
        ({"max_resamples": 0}, "max_resamples is 0"),
        ({"max_resamples": 10**30}, "give at most 1,000,000,000"),
        ({"formula": 3}, "the formula is 3; give a text"),
        ({"formula": "~ log(n_umis)"}, r"formula has 'n_umis'.*near it: 'grna_n_umis'; there are"),
        ({"weights": []}, r"weights is \[\], which is no covariate"),
        ({"side": []}, r"side is \[\]"),
        ({"strategy": []}, r"strategy is \[\]"),
        ({"mechanism": []}, r"mechanism is \[\]"),
        ({"resampling": []}, r"resampling is \[\]"),
        ({"fdr": 3}, "3"),
    ],
)
def test_parameters(data, options, words):
    with pytest.raises(InputError, match=words):
        crt.GeneScreen(data).set_parameters(**options)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (lambda s: s.assign_guides(3), "method is 3"),
        (lambda s: s.assign_guides("thresholding", threshold="5"), "threshold is '5'"),
        (lambda s: s.assign_guides("thresholding", threshold=NAN), "threshold is nan"),
        (lambda s: s.assign_guides("mixture", threshold=-1), "threshold is -1; give at least 1"),
        (lambda s: s.assign_guides("mixture", smallest_probability=NAN), "probability is nan"),
        (lambda s: s.assign_guides("mixture", smallest_probability=0), "probability is 0.0; give"),
        (lambda s: s.assign_guides("mixture", smallest_probability="1"), "probability is '1'"),
        (lambda s: s.assign_guides(smallest_share=3), "smallest_share is 3"),
        (lambda s: s.assign_guides(smallest_count=NAN), "smallest_count is nan"),
        (lambda s: s.use_assignment(None), "assigned guides is of type NoneType"),
        (
            lambda s: s.use_assignment({"grna_id": ["T0_g0"], "cell": ["cell 1", "cell 2"]}),
            "the assignment has 1 guide and 2 cells",
        ),
        (lambda s: s.quality_control(umis_quantiles=3), "umis_quantiles is 3; give two"),
        (lambda s: s.quality_control(nonzero_quantiles="ab"), "nonzero_quantiles is 'ab'"),
        (lambda s: s.quality_control(nonzero_quantiles=(0, 0.5, 1)), "give two shares"),
        (lambda s: s.quality_control(umis_quantiles=(NAN, 1)), "two ascending shares"),
        (lambda s: s.quality_control(umis_quantiles=("0", 1)), "umis_quantiles is '0'"),
        (lambda s: s.quality_control(max_mito=NAN), "max_mito is nan; give a share of counts"),
        (lambda s: s.quality_control(max_mito="all"), "max_mito is 'all'"),
        (lambda s: s.quality_control(remove=3), "3 was given for names"),
        (lambda s: s.quality_control(remove="nobody"), "1 of 1 cell to leave out are not"),
        (lambda s: s.quality_control(min_treated=NAN), "min_treated is nan"),
        (lambda s: s.quality_control(min_controls=1.5), "min_controls is 1.5"),
        (lambda s: s.run_calibration_check(n_pairs=NAN), "n_pairs is nan"),
        (lambda s: s.run_calibration_check(n_pairs=0), "n_pairs is 0; give at least 1"),
        (lambda s: s.run_calibration_check(group_size=NAN), "group_size is nan"),
        (lambda s: s.run_calibration_check(group_size=-1), "a group has -1 guides"),
        (lambda s: s.run_calibration_check(pairs=3), "the pairs are 3"),
        (lambda s: s.use_result(None), "result is of type NoneType"),
        (lambda s: s.detectable_effects("0.8", p_threshold=0.1), "power is '0.8'"),
        (lambda s: s.detectable_effects(0.8, p_threshold=NAN), "p_threshold is nan"),
        (lambda s: s.detectable_effects(p_threshold=0.1, fold_changes=2), "fold_changes is 2"),
        (lambda s: s.detectable_effects(p_threshold=0.1, fold_changes=["2"]), "fold change is '2'"),
        (lambda s: s.detectable_effects(p_threshold=0.1, fold_changes=[NAN]), "change is nan"),
    ],
)
def test_steps(data, step, words):
    screen = crt.GeneScreen(data).set_parameters(discovery_pairs=crt.trans_pairs(data))
    with pytest.raises(InputError, match=words):
        step(screen)


def test_whole_numbers_of_numpy_are_numbers(data):
    pairs = [("T0", "T0"), ("T1", "gene1")]
    screen = crt.GeneScreen(data).set_parameters(discovery_pairs=pairs, level=np.float32(0.1))
    screen.assign_guides("thresholding", threshold=np.int16(5))
    screen.quality_control(umis_quantiles=np.array([0.0, 1.0]), min_treated=np.int64(3))
    found = screen.detectable_effects(p_threshold=0.1, fold_changes=np.array([2.0]))
    assert isinstance(found, DetectableEffects) and len(found) == 2
