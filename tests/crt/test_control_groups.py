import numpy as np
import pytest

from plait.crt import control_group_effects, prepare_crt_inputs
from plait.errors import InputError
from tests.crt.screens import reference_screen


@pytest.fixture(scope="module")
def inputs():
    return prepare_crt_inputs(reference_screen("synth_b")[0])


def test_groups_are_disjoint_and_tested_like_targets(inputs):
    found = control_group_effects(inputs, method="empirical", resamples=50)
    assert found.units[:2] == ("ntc_0", "ntc_1")
    assert 8 <= len(found.units) <= 96 // 6
    assert found.is_control.all()
    assert found.q is None
    assert found.n_treated.sum() <= inputs.treated_matrix(["NTC"]).nnz * 1.2
    assert found.settings["group_size"] == 6
    again = control_group_effects(inputs, method="empirical", resamples=50, threads=1)
    assert found.allclose(again, rtol=0.0)
    other = control_group_effects(inputs, method="empirical", resamples=50, group_seed=8)
    assert not np.array_equal(other.n_treated, found.n_treated)


def test_smaller_groups_where_controls_are_few(inputs):
    from dataclasses import replace

    few = inputs.columns("NTC")[:25]
    fewer = replace(inputs, gene_to_cols={**inputs.gene_to_cols, "NTC": few}, guide2gene={
        guide: gene
        for j, guide in enumerate(inputs.guide_names)
        if (gene := inputs.guide2gene[guide]) != "NTC" or j in few
    })  # fmt: skip
    found = control_group_effects(fewer, method="empirical", resamples=9)
    assert found.settings["group_size"] == 2


def test_both_controls_and_targets_are_needed(inputs):
    with pytest.raises(InputError, match="0 guides of the negative controls nothing"):
        control_group_effects(inputs, negative_controls=["nothing"])
    with pytest.raises(InputError, match="0 other targets"):
        control_group_effects(inputs, negative_controls=inputs.units)
