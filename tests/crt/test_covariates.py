import json
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from plait.crt import encode_categorical_covariates, get_covar_matrix
from plait.crt.covariates import encode_covariates, independent_columns
from plait.errors import (
    DataWarning,
    InputError,
    InputTypeError,
    LabelError,
    MissingCovariateError,
    OptionError,
    ShapeError,
    TooFewSamplesError,
)
from tests.reference_files import reference_file


def of(covariates):
    return SimpleNamespace(obsm={"covar": covariates})


@pytest.fixture(scope="module")
def reference():
    return json.loads(reference_file("crt", "encoding_clr_burden.json").read_text())


@pytest.fixture(scope="module")
def table(reference):
    frame = pd.DataFrame(reference["table"])
    frame["phase"] = pd.Categorical(frame["phase"], categories=reference["phase_categories"])
    kinds = {name: kind for name, kind in reference["dtypes"].items() if kind != "category"}
    return frame.astype(kinds)


CASES = [
    "default",
    "threshold_none",
    "threshold_2",
    "keep_all_levels",
    "no_standardize_no_intercept",
]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore:covariates:plait.errors.DataWarning")
def test_designs_agree_with_programde(reference, table, name):
    case = next(case for case in reference["cases"] if case["name"] == name)
    design, names = get_covar_matrix(of(table), **case["options"])
    with_intercept = case["options"].get("add_intercept", True)
    expected = dict(
        zip(
            (["the intercept"] if with_intercept else []) + case["columns"],
            np.array(case["matrix"]).T,
            strict=True,
        )
    )
    names = (["the intercept"] if with_intercept else []) + names
    assert names == [column for column in expected if column in names]
    np.testing.assert_allclose(
        design, np.column_stack([expected[column] for column in names]), atol=2e-9
    )
    # What is left out adds nothing.
    whole = np.column_stack(list(expected.values()))
    assert np.linalg.matrix_rank(whole) == design.shape[1]


def test_a_level_that_no_cell_has_gets_no_column(table):
    with pytest.warns(DataWarning, match="missing categories: 'donor' \\(2 cells\\)"):
        _, names = get_covar_matrix(of(table))
    assert "phase_G2M" in names and "phase_never" not in names


def test_arrays_agree_with_programde(reference, table):
    cases = {case["name"]: case for case in reference["cases"]}
    with pytest.warns(DataWarning, match="left out .*'covar_2'"):
        design, names = get_covar_matrix(of(table[["depth", "lane", "const"]].to_numpy()))
    assert names is None
    expected = np.array(cases["ndarray_numeric"]["matrix"])
    assert not expected[:, 3].any()
    np.testing.assert_allclose(design, expected[:, :3], atol=2e-9)
    design, names = get_covar_matrix(of(table["depth"].to_numpy()))
    np.testing.assert_allclose(design, cases["ndarray_1d"]["matrix"], atol=2e-9)
    objects = table[["donor", "lane"]].astype(str).to_numpy(dtype=object)
    design, names = get_covar_matrix(of(objects), object_policy="categorical")
    assert names == cases["ndarray_object"]["columns"]
    np.testing.assert_allclose(design, cases["ndarray_object"]["matrix"], atol=2e-9)
    with pytest.raises(InputError, match="'covar_0', 'covar_1' are not numbers"):
        get_covar_matrix(of(objects), object_policy="categorical", one_hot_encode=False)


def test_numbers_held_as_objects_are_numbers():
    random = np.random.default_rng(1)
    numbers = random.normal(size=40)
    objects = np.empty((40, 2), dtype=object)
    objects[:, 0], objects[:, 1] = numbers, np.where(numbers > 0, "high", "low")
    with pytest.warns(DataWarning, match="covar_0.* are taken as numbers"):
        design, names = get_covar_matrix(of(objects))
    assert names == ["covar_0", "covar_1_low"]
    np.testing.assert_allclose(design[:, 1], (numbers - numbers.mean()) / numbers.std())


def test_numeric_columns_that_were_encoded_are_said(caplog):
    frame = pd.DataFrame(
        {"lane": np.arange(30) % 3, "depth": np.linspace(0, 1, 30), "two": np.arange(30) % 2}
    )
    design = encode_covariates(frame)
    assert "at most 20 values are encoded as categories: lane (3 values)," in caplog.text
    assert "depth" not in caplog.text
    assert "two" not in caplog.text.replace("two values", "")  # one indicator, the number itself
    assert design.names == ("depth", "lane_1", "lane_2", "two_1")
    assert design.numbers_as_categories == ("lane",)
    assert encode_covariates(frame, numeric_as_category_threshold=None).names == tuple(frame)


def test_a_constant_column_is_left_out_and_named():
    # The generator of programDE puts the intercept into the covariates and then fails.
    random = np.random.default_rng(2)
    frame = pd.DataFrame({"one": np.full(50, 0.1), "x": random.normal(size=50)})
    frame["again"] = 3.0 - 2.0 * frame["x"]
    with pytest.warns(DataWarning, match="determined by the others: 'one', 'again'") as caught:
        design = encode_covariates(frame, numeric_as_category_threshold=None)
    assert len(caught) == 1
    assert design.dropped == ("one", "again") and design.names == ("x",)
    np.testing.assert_allclose(design.inverse, np.eye(2) / 50, atol=1e-12)
    np.testing.assert_allclose(design.basis.T @ design.basis, np.eye(2), atol=1e-14)


def test_the_intercept_stays_whatever_the_scale_of_a_constant():
    values = np.column_stack([np.full(30, 1e6), np.random.default_rng(3).normal(size=30)])
    with pytest.warns(DataWarning, match="'covar_0'"):
        design = encode_covariates(values, standardize=False)
    np.testing.assert_array_equal(design.matrix[:, 0], 1.0)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000), extra=st.integers(0, 3))
def test_independent_columns_span_the_same(seed, extra):
    random = np.random.default_rng(seed)
    whole = random.normal(size=(40, 4))
    copies = whole @ random.normal(size=(4, extra))
    order = random.permutation(4 + extra)
    matrix = np.concatenate([whole, copies], axis=1)[:, order] * 10.0 ** random.integers(
        -6, 6, size=4 + extra
    )
    kept, basis, triangle = independent_columns(matrix)
    assert len(kept) == 4
    np.testing.assert_allclose(basis @ triangle, matrix[:, kept], rtol=1e-9, atol=1e-12 * 10**6)
    scaled = matrix / np.linalg.norm(matrix, axis=0)
    np.testing.assert_allclose(basis @ (basis.T @ scaled), scaled, atol=1e-9)
    # Every column that was left out is determined by those before it.
    for j in set(range(4 + extra)) - set(kept.tolist()):
        before = scaled[:, [i for i in kept if i < j]]
        left = scaled[:, j] - before @ np.linalg.lstsq(before, scaled[:, j])[0]
        assert np.linalg.norm(left) < 1e-9


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000))
def test_the_order_of_cells_does_not_matter(seed):
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "batch": random.choice(["b0", "b1", "b2"], size=50),
            "flag": random.random(50) < 0.5,
            "x": random.normal(size=50),
        }
    )
    order = random.permutation(50)
    design, names = get_covar_matrix(of(frame))
    shuffled, again = get_covar_matrix(of(frame.iloc[order]))
    assert names == again
    np.testing.assert_allclose(shuffled, design[order], atol=1e-12)


def test_types_of_covariates():
    random = np.random.default_rng(4)
    frame = pd.DataFrame(
        {
            "text": pd.array(random.choice(["a", "b"], size=40), dtype="string"),
            "whole": pd.array(random.integers(0, 100, size=40), dtype="Int64"),
            7: random.choice([1.0, 2.0], size=40),
        }
    )
    _, names = get_covar_matrix(of(frame))
    assert names == ["whole", "text_b", "7_2.0"]
    _, names = get_covar_matrix(of(pd.DataFrame({"h": np.arange(40, dtype=np.float16) % 3})))
    assert names == ["h_1.0", "h_2.0"]
    for nothing in (frame[[]], np.empty((40, 0))):
        np.testing.assert_array_equal(get_covar_matrix(of(nothing))[0], np.ones((40, 1)))
    series = frame["text"].rename("batch")
    assert get_covar_matrix(of(series))[1] == ["batch_b"]
    sparse = csr_array(random.normal(size=(40, 2)))
    assert get_covar_matrix(of(sparse))[0].shape == (40, 3)


def test_encode_categorical_covariates_gives_missing_a_level():
    frame = pd.DataFrame({"donor": ["a", None, "b", "a"]})
    encoded = encode_categorical_covariates(frame, drop_first=False, dummy_na=True)
    assert encoded.columns.tolist() == ["donor_a", "donor_b", "donor_nan"]
    np.testing.assert_array_equal(encoded.sum(axis=1), 1.0)
    assert encode_categorical_covariates(frame[[]]).empty


@pytest.mark.parametrize(
    ("covariates", "options", "error", "message"),
    [
        (
            pd.DataFrame({"x": [0.1, np.nan, 3.0, 1.0]}),
            {},
            MissingCovariateError,
            "'x' \\(1 cell\\)",
        ),
        (pd.DataFrame({"x": [0.1, np.inf, 3.0, 1.0]}), {}, InputError, "infinite values: 'x'"),
        (np.array([[0.1], [np.nan], [1.0]]), {}, MissingCovariateError, "'covar_0'"),
        (pd.DataFrame([[1.0, 2.0]] * 5, columns=["x", "x"]), {}, LabelError, "'x' occurs twice"),
        (pd.DataFrame({"t": pd.to_datetime(["2020"] * 5)}), {}, InputTypeError, "datetime64"),
        (
            pd.DataFrame({"t": [[1], [2]] * 5}),
            {},
            InputTypeError,
            r"'t' holds objects such as \[1\]",
        ),
        (
            pd.DataFrame({"t": pd.array([True, None] * 5, dtype="boolean")}),
            {},
            MissingCovariateError,
            r"'t' \(5 cells\)",
        ),
        (pd.DataFrame({"c": list("abcdefgh")}), {}, TooFewSamplesError, "'c' alone 8"),
        (np.random.default_rng(5).normal(size=(4, 3)), {}, TooFewSamplesError, "4 cells and 4"),
        (np.zeros((5, 2, 2)), {}, ShapeError, "3 dimensions"),
        (np.zeros((5, 2), dtype=complex), {}, InputTypeError, "complex"),
        (np.zeros((5, 2)), {"object_policy": "guess"}, OptionError, "'numeric' or 'categorical'"),
        (np.ones((5, 1)), {"add_intercept": False}, InputError, "no covariate varies"),
    ],
)
def test_what_cannot_be_encoded(covariates, options, error, message):
    with warnings.catch_warnings(), pytest.raises(error, match=message):
        get_covar_matrix(of(covariates), **options)


def test_missing_covariates_are_a_key_error():
    with pytest.raises(KeyError, match="no 'covar'"):
        get_covar_matrix(SimpleNamespace(obsm={}))
