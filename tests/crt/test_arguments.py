"""Values of a wrong kind are refused where they come in, by name, before anything is computed."""

from types import SimpleNamespace

import numpy as np
import pytest

from plait import crt
from plait.crt.arguments import number_array, option_names, real_number, share, whole_number
from plait.errors import InputError, InputTypeError, OptionError, ShapeError


@pytest.mark.parametrize("value", ["3", 3.0, None, True, [3], float("nan")])
def test_whole_numbers(value):
    assert whole_number(np.int8(3), "n") == 3
    with pytest.raises(TypeError, match=r"n is .*; give a whole number"):
        whole_number(value, "n")
    with pytest.raises(OptionError, match="n is 0; give at least 1"):
        whole_number(0, "n", least=1)
    with pytest.raises(OptionError, match="n is 2000; give at most 1,000"):
        whole_number(2000, "n", most=1000)


@pytest.mark.parametrize("value", ["3", None, False, [3.0], 1j])
def test_numbers(value):
    assert real_number(np.float32(0.5), "share") == 0.5
    with pytest.raises(InputTypeError, match="share is"):
        real_number(value, "share")


@pytest.mark.parametrize("value", ["x", None, ["a", "b"], [[1], [1, 2]], {}, object(), [None, "b"]])
def test_arrays(value):
    np.testing.assert_array_equal(number_array([True, False], "x"), [1.0, 0.0])
    np.testing.assert_array_equal(number_array(np.array([1, 2.5], dtype=object), "x"), [1, 2.5])
    with pytest.raises(InputTypeError, match="x holds"):
        number_array(value, "x")


@pytest.mark.parametrize("value", [3, "n_bins", [("n_bins", 2)]])
def test_options(value):
    assert option_names(None, ("a",), "it") == {}
    with pytest.raises(InputTypeError, match="give a mapping"):
        option_names(value, ("n_bins",), "it")
    with pytest.raises(InputTypeError, match="unknown options of it: b, c; there are a"):
        option_names({"a": 1, "c": 2, "b": 3}, ("a",), "it")


@pytest.fixture(scope="module")
def inputs():
    from plait.simulate import make_synthetic_adata

    adata = make_synthetic_adata(np.random.default_rng(0), n_cells=200, n_programs=3)
    return crt.prepare_crt_inputs(adata)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strata": {"n_bins": "a"}}, "n_bins is 'a'"),
        ({"strata": {"n_burden_bins": 2.5}}, "n_burden_bins is 2.5"),
        ({"strata": {"n_bins": 10**30}}, "n_bins is 10*; give at most 1,000,000"),
        ({"strata": {"n_burden_bins": 10**30}}, "n_burden_bins is 10*; give at most 1,000,000"),
        ({"strata": {"min_stratum_size": "2"}}, "min_stratum_size is '2'"),
        ({"strata": {"stratify_by_batch": "no"}}, "stratify_by_batch is 'no'"),
        ({"strata": {"batch_key": None}}, "batch_key is None"),
        ({"strata": {"burden_key": 3}}, "burden_key is 3"),
        ({"strata": {"burden_clip_quantiles": 0.1}}, "clip quantiles are 0.1"),
        ({"strata": {"burden_clip_quantiles": ("a", 1)}}, "clip quantile is 'a'"),
        ({"strata": 20}, "options of stratified permutation are 20"),
        ({"ranks": "usage"}, "options of the U statistic are 'usage'"),
        ({"ranks": {"rank_dtype": "int"}}, "ranks were asked for as 'int'"),
        ({"ranks": {"rank_dtype": "no type"}}, "ranks were asked for as 'no type'"),
        ({"ranks": {"rank_method": "mean"}}, "rank method is 'mean'"),
        ({"propensity_model": None}, "propensity model is None"),
        ({"propensity_model": np.ones(3)}, "given propensities have 1 dimension;"),
        ({"method": ["analytic"]}, "method is"),
        ({"resamples": 99.0}, "resamples is 99.0"),
        ({"resamples": 10**30, "method": "empirical"}, "resamples is 1000.*; give at most 10,000"),
        ({"resamples": True}, "resamples is True"),
        ({"seed": "1"}, "the seed is '1'"),
        ({"seed": -1}, "the seed is -1; give at least 0"),
        ({"threads": "all"}, "threads is 'all'"),
        ({"exclude": 3}, "3 was given for names"),
        ({"units": 3}, "3 was given for names"),
    ],
)
def test_options_of_a_screen(inputs, options, words):
    with pytest.raises(InputError, match=words):
        crt.perturbation_effects(inputs, **options)


@pytest.mark.parametrize("value", ["0.5", None, True, float("nan"), -0.1, 1.1])
def test_shares(value):
    assert share(np.float32(0.5), "x") == 0.5
    with pytest.raises(InputError, match="x is"):
        share(value, "x")


@pytest.mark.parametrize(
    "call",
    [
        crt.perturbation_effects,
        crt.run_all_genes_union_crt,
        lambda i: crt.run_one_gene_union_crt("A", i),
        crt.control_group_effects,
        crt.build_ntc_group_inputs,
        lambda i: crt.crt_pvals_for_guide_set(i, [0], 10, 1),
        lambda i: crt.compute_ntc_group_null_pvals_parallel(i, [{"a": ["g"]}]),
        lambda i: crt.compute_gene_null_pvals("GENE0", i),
        lambda i: crt.compute_guide_set_null_pvals([0], i),
        lambda i: crt.crt_null_stats_for_test("GENE0", 0, i),
    ],
)
@pytest.mark.parametrize("inputs", [None, "screen.h5ad", SimpleNamespace(obsm={}, uns={})])
def test_a_screen_that_was_not_prepared(call, inputs):
    with pytest.raises(InputTypeError, match=r"inputs is of type .*what prepare_crt_inputs"):
        call(inputs)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"usage_key": ["usage"]}, r"the key \['usage'\] is of type list; give a text"),
        ({"eps": float("nan")}, "eps is nan"),
        ({"eps_quantile": float("nan")}, "nan"),
        ({"numeric_as_category_threshold": float("nan")}, "threshold is nan"),
    ],
)
def test_what_a_screen_is_prepared_with(options, words):
    import pandas as pd

    from tests.crt.screens import small_screen

    screen = small_screen()
    screen.obsm["covar"] = pd.DataFrame(screen.obsm["covar"], columns=["a", "b"])
    with pytest.raises(InputError, match=words):
        crt.prepare_crt_inputs(screen, **options)


def test_propensities_that_are_no_numbers(inputs):
    with pytest.raises(InputTypeError, match="the model's answer holds"):
        crt.perturbation_effects(inputs, propensity_model=lambda C, y: ["high"] * len(y))
    with pytest.raises(InputTypeError, match="y01 holds"):
        crt.fit_propensity_logistic(inputs.C, "treated")
    with pytest.raises(InputTypeError, match="C_value is '1'"):
        crt.fit_propensity_logistic(inputs.C, np.ones(200), C_value="1")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda i: crt.crt_null_stats_for_test("GENE0", "program_0", i), "program_index is"),
        (lambda i: crt.compute_bins(["low", "high"], 2), "vector to bin holds"),
        (lambda i: crt.compute_bins([1.0, 2.0], "2"), "n_bins is '2'"),
        (lambda i: crt.compute_bins([1.0, 2.0], 10**30), "give at most 1,000,000"),
        (lambda i: crt.qq_coords(["a"]), "array of p-values holds"),
        (lambda i: crt.bootstrap_qq_envelope([0.1], seed="s"), "seed is 's'"),
        (lambda i: crt.usage_floor("usage"), "the usage holds"),
        (lambda i: crt.centered_log_ratio(np.ones((2, 2)), 0.0), "eps is 0.0"),
        (lambda i: crt.floor_usage(np.ones(2), 0.1), "usage has 1 dimension;"),
        (lambda i: crt.encode_categorical_covariates(i.C), "give a DataFrame"),
        (lambda i: crt.ols_statistics(i.residuals, i.basis, i.C), "perturbations as a sparse"),
        (lambda i: crt.union_obs_idx_from_cols(i.G, [-1]), "the column -1"),
        (lambda i: crt.union_obs_idx_from_cols(i.G.toarray(), [0]), "give what to_csc_matrix"),
        (lambda i: crt.build_gene_to_cols(["g"], [("g", "A")]), "give a mapping of guides"),
        (lambda i: crt.split_ntc_units(["a", "b"], frac_A="half"), "frac_A is 'half'"),
        (lambda i: crt.build_ntc_group_inputs(i, group_size=2.0), "group_size is 2.0"),
        (lambda i: crt.ntc_empirical_tests(i, options={"n_ntc_units": "many"}), "n_ntc_units is"),
        (
            lambda i: crt.ntc_empirical_tests(i, options={"matching": {"n_d_bins": 1.5}}),
            "n_d_bins is 1.5",
        ),
        # One set is no list of sets.
        (
            lambda i: crt.crt_pvals_for_ntc_groups_ensemble(i, {"ntc_0": ["g"]}),
            "sets of groups are of type dict",
        ),
        (lambda i: crt.limit_threading("1"), "n is '1'"),
        (lambda i: crt.gcm_test(["a"], [1], [1]), "x holds"),
        (lambda i: crt.dcrt_test([0, 1], [1, 2], [1, 2], B=1.5), "B is 1.5"),
    ],
)
def test_functions_of_their_own(inputs, call, words):
    with pytest.raises(InputError, match=words):
        call(inputs)


def test_shapes_and_lengths_of_single_tests():
    with pytest.raises(ShapeError, match=r"y has the shape \(3,\); 2 observations"):
        crt.gcm_test([0, 1], [1, 2, 3], [1, 2])
    with pytest.raises(ShapeError, match="Z has the shape"):
        crt.gcm_test([0, 1], [1, 2], np.ones((2, 1, 1)))
    with pytest.raises(InputError, match="0 observations"):
        crt.gcm_test([], [], np.empty((0, 1)))


def test_one_label_is_not_its_letters():
    """Of one text for labels no letter is one."""
    guides = np.array([[1, 0, 1], [0, 1, 1]])
    options = {
        "guide_names": ["a", "b", "c"],
        "guide2gene": {"a": "N", "b": "A", "c": "NTC"},
        "include_ntc": False,
        "use_log1p": False,
    }
    found = crt.compute_guide_burden(guides, ntc_labels="NTC", **options)
    np.testing.assert_array_equal(found, [1.0, 1.0])
