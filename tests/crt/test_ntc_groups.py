"""Grouped p-values of negative controls: programDE's, the same draws everywhere, errors."""

import json

import numpy as np
import pandas as pd
import pytest

from plait.crt import (
    build_ntc_group_inputs,
    compute_guide_set_null_pvals,
    compute_ntc_group_null_pvals_parallel,
    crt_pvals_for_guide_set,
    crt_pvals_for_guide_set_skew,
    crt_pvals_for_ntc_groups_ensemble,
    crt_pvals_for_ntc_groups_ensemble_skew,
    make_ntc_groups_ensemble,
    prepare_crt_inputs,
)
from plait.errors import InputError, LabelError, OptionError
from tests.crt.screens import reference_screen, small_screen
from tests.reference_files import reference_file

GROUPS = [
    {"ntc_0": ["NTC_g12", "NTC_g13"], "ntc_1": ["NTC_g14", "NTC_g15"]},
    {"ntc_0": ["NTC_g13", "NTC_g14"]},
]
SETTINGS = {"B": 63, "expected_group_size": 2}


@pytest.fixture(scope="module")
def inputs():
    return prepare_crt_inputs(small_screen(n_cells=90, guides_per_gene=4))


@pytest.mark.parametrize("name", ["synth_a", "synth_b"])
def test_counted_p_values_are_those_of_programde_within_their_error(name):
    table = pd.read_csv(reference_file("crt", f"{name}/ntc_group_pvals_B511.csv.gz"), index_col=0)
    raw = table[table["kind"] == "raw"]
    sets = json.loads(reference_file("crt", f"{name}/ntc_groups.json").read_text())
    counts = raw.groupby("e").size().tolist()
    (ensemble,) = [
        s["ensemble"][: len(counts)]
        for s in sets.values()
        if [len(groups) for groups in s["ensemble"][: len(counts)]] == counts
    ]
    screen = prepare_crt_inputs(reference_screen(name)[0])
    found = crt_pvals_for_ntc_groups_ensemble(screen, ensemble, B=4095, seed0=1)
    z = []
    for e, frame in found.items():
        theirs = raw[raw["e"] == e].loc[frame.index, frame.columns].to_numpy()
        ours = frame.to_numpy()
        # Shares of exceedances, (1 + count) / (B + 1) undone.
        p0, p = (theirs * 512 - 1) / 511, (ours * 4096 - 1) / 4095
        z.append((p0 - p) / np.sqrt(p * (1 - p) * (1 / 511 + 1 / 4095)))
    z = np.concatenate(z).ravel()
    assert np.abs(z).max() < 5.5
    assert 0.4 < (z**2).mean() < 1.9


def test_counted_skew_normal_and_null_are_of_the_same_resamples(inputs):
    raw = crt_pvals_for_ntc_groups_ensemble(inputs, GROUPS, seed0=5, **SETTINGS)
    skew, both = crt_pvals_for_ntc_groups_ensemble_skew(
        inputs, GROUPS, seed0=5, return_both=True, n_jobs=1, **SETTINGS
    )
    alone = crt_pvals_for_ntc_groups_ensemble_skew(inputs, GROUPS, seed0=5, **SETTINGS)
    for e, frame in raw.items():
        pd.testing.assert_frame_equal(frame, both[e])
        pd.testing.assert_frame_equal(skew[e], alone[e])
        assert list(frame.index) == list(GROUPS[e]) and tuple(frame.columns) == inputs.program_names
    assert (skew[0].to_numpy() != raw[0].to_numpy()).any()
    # A group's numbers do not depend on the other groups and sets.
    less = crt_pvals_for_ntc_groups_ensemble(inputs, GROUPS[:1], seed0=5, **SETTINGS)
    pd.testing.assert_frame_equal(less[0], raw[0])


def test_null_p_values_are_those_of_each_group_in_order(inputs):
    whole = compute_ntc_group_null_pvals_parallel(inputs, GROUPS, B=63, base_seed=5, n_jobs=2)
    assert whole.shape == (3 * 63 * 4,)
    np.testing.assert_array_equal(
        whole, compute_ntc_group_null_pvals_parallel(inputs, GROUPS, B=63, base_seed=5, n_jobs=1)
    )
    by_group = whole.reshape(3, 63, 4)
    np.testing.assert_allclose(by_group.min(axis=1), 1 / 63)
    # Few ties: the mean of leave-one-out p-values of distinct statistics is (B + 1) / 2B.
    assert abs(by_group.mean() - 64 / 126) < 0.02
    histogram = compute_ntc_group_null_pvals_parallel(
        inputs, GROUPS, B=63, base_seed=5, reduce="hist"
    )
    values, counts = np.unique(np.rint(whole * 63), return_counts=True)
    np.testing.assert_array_equal(histogram.p[histogram.counts > 0] * 63, values)
    np.testing.assert_array_equal(histogram.counts[histogram.counts > 0], counts)


def test_the_u_statistic_and_strata_are_passed_on(inputs):
    options = {"test_stat": "utest", "resampling_method": "stratified_perm",
               "resampling_kwargs": {"n_bins": 3, "stratify_by_batch": False}}  # fmt: skip
    found = crt_pvals_for_ntc_groups_ensemble(inputs, GROUPS, **options, **SETTINGS)
    assert found[1].shape == (1, 4)
    null = compute_ntc_group_null_pvals_parallel(inputs, GROUPS, B=31, **options)
    assert null.shape == (3 * 31 * 4,)


def test_a_set_of_guides_is_tested_like_a_gene(inputs):
    columns = [3, 1, 3]
    raw = crt_pvals_for_guide_set(inputs, columns, B=63, seed=9)
    skew, same = crt_pvals_for_guide_set_skew(inputs, [1, 3], B=63, seed=9)
    np.testing.assert_array_equal(raw, same)
    assert skew.shape == (4,) and ((skew > 0) & (skew <= 1)).all()
    null = compute_guide_set_null_pvals(columns, inputs, B=63, base_seed=9)
    assert null.shape == (63, 4)
    for test in (crt_pvals_for_guide_set, lambda i, c: compute_guide_set_null_pvals(c, i)):
        for wrong, error, message in (
            ([], InputError, "empty"),
            ([0, -1], InputError, "has the column -1; the screen has 16 guides"),
            ([0, 16], InputError, "has the column 16"),
            (np.arange(8) < 2, TypeError, "holds bool; give positions"),
            (["A_g0"], TypeError, "holds <U"),
        ):
            with pytest.raises(error, match=message):
                test(inputs, wrong)


def test_the_workflow_of_groups_on_a_reference_screen():
    inputs = prepare_crt_inputs(reference_screen("synth_b")[0])
    guides, frequency, bins, signatures = build_ntc_group_inputs(inputs=inputs, n_bins=10)
    ensemble = make_ntc_groups_ensemble(
        ntc_guides=guides, ntc_freq=frequency, real_gene_bin_sigs=signatures, guide_to_bin=bins,
        n_ensemble=2, seed0=7, group_size=6, max_groups=3,
    )  # fmt: skip
    null = compute_ntc_group_null_pvals_parallel(
        inputs=inputs, ntc_groups_ens=ensemble, B=127, n_jobs=8, backend="threading"
    )
    assert null.shape == (2 * 3 * 127 * 5,)


def test_errors_say_which_group(inputs):
    with pytest.raises(InputError, match=r"2 to 2 guides .* expected_group_size=6"):
        crt_pvals_for_ntc_groups_ensemble(inputs, GROUPS, B=3)
    with pytest.raises(InputError, match="no sets"):
        compute_ntc_group_null_pvals_parallel(inputs, [], B=3)
    with pytest.raises(InputError, match="set 1 of the ensemble has no groups"):
        crt_pvals_for_ntc_groups_ensemble(inputs, [GROUPS[0], {}], B=3)
    with pytest.raises(LabelError, match=r"'ntc_0' of set 0 .* 'x'"):
        crt_pvals_for_ntc_groups_ensemble(inputs, [{"ntc_0": ["x"]}], B=3)
    for option in ({"reduce": "mean"}, {"B": 0}, {"side_code": 2}):
        with pytest.raises(OptionError):
            compute_ntc_group_null_pvals_parallel(inputs, GROUPS, **{"B": 3, **option})
