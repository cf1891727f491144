import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from plait.data import Effects
from plait.errors import (
    InputError,
    InputTypeError,
    LabelError,
    NotPositiveDefiniteError,
    ShapeError,
)
from plait.provenance import Provenance

BHAT = np.array([[1.0, -2.0], [0.5, 0.0], [3.0, 1.0]])
SHAT = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
V = np.array([[1.0, 0.3], [0.3, 1.0]])
ROWS, COLUMNS = ["rs1", "rs2", "rs3"], ["liver", "lung"]


def test_arrays_are_copied_and_read_only():
    bhat, shat, V_given = BHAT.copy(), SHAT.copy(), V.copy()
    effects = Effects(bhat, shat, V_given, ROWS, COLUMNS, Provenance("test"))
    bhat[0, 0] = shat[0, 0] = V_given[0, 1] = 99.0
    np.testing.assert_array_equal(effects.bhat, BHAT)
    np.testing.assert_array_equal(effects.shat, SHAT)
    np.testing.assert_array_equal(effects.V, V)
    for array in (effects.bhat, effects.shat, effects.V, effects.effects):
        assert not array.flags.writeable
    assert (effects.n_effects, effects.n_contexts, effects.common_V) == (3, 2, True)
    assert effects.contexts == ("liver", "lung")
    assert list(effects.effects) == ROWS
    assert repr(effects) == "Effects(3 effects x 2 contexts, common V)"


@given(
    arrays(np.float64, (4, 3), elements=st.floats(-1e6, 1e6)),
    arrays(np.bool_, (4, 3)),
    st.booleans(),
)
def test_missing_cells_have_effect_zero_and_infinite_error(bhat, missing, as_nan):
    given_bhat, given_shat = bhat.copy(), np.ones((4, 3))
    given_shat[missing] = np.nan if as_nan else np.inf
    if as_nan:
        given_bhat[missing] = np.nan
    before = given_bhat.copy(), given_shat.copy()
    effects = Effects(given_bhat, given_shat)
    np.testing.assert_array_equal(effects.missing_mask, missing)
    np.testing.assert_array_equal(effects.bhat, np.where(missing, 0.0, bhat))
    assert np.all(np.isinf(effects.shat) == missing)
    np.testing.assert_array_equal(given_bhat, before[0])
    np.testing.assert_array_equal(given_shat, before[1])


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"bhat": BHAT[:2]}, ShapeError, r"\(2, 2\) and shat \(3, 2\)"),
        ({"bhat": BHAT[0]}, ShapeError, "two dimensions"),
        ({"bhat": np.zeros((0, 2)), "shat": np.zeros((0, 2))}, ShapeError, "empty"),
        ({"bhat": [["a", "b"]]}, InputTypeError, "numeric"),
        ({"effects": ["a", "b", "a"]}, LabelError, "effect label 'a' occurs more than once"),
        ({"contexts": ["a", "a"]}, LabelError, "context label 'a'"),
        ({"contexts": ["a"]}, ShapeError, "1 context labels"),
        ({"V": np.eye(3)}, ShapeError, r"\(2, 2\), or \(3, 2, 2\)"),
        ({"V": [["x", 1], [1, 1]]}, InputTypeError, "V must be numeric"),
        ({"V": [[1, 0.2], [0.3, 1]]}, InputError, "not symmetric"),
        ({"V": [[1, np.nan], [np.nan, 1]]}, InputError, "NaN or Inf"),
        ({"V": [[1, 1], [1, 1]]}, NotPositiveDefiniteError, "V must be positive definite"),
        (
            {"V": np.stack([V, V, [[1, 2], [2, 1]]])},
            NotPositiveDefiniteError,
            r"V\[2\] must be positive definite; its smallest eigenvalue is -1",
        ),
    ],
)
def test_errors(change, error, text):
    arguments = {"bhat": BHAT, "shat": SHAT, "effects": ROWS, "contexts": COLUMNS} | change
    if change.get("bhat") is not None and len(change["bhat"]) == 0:
        arguments |= {"effects": None}
    with pytest.raises(error, match=text):
        Effects(**arguments)


@pytest.mark.parametrize(
    ("bhat", "shat", "text"),
    [
        (np.inf, 1.0, "bhat is Inf in 1 cell .first: effect 'rs2', context 'lung'"),
        (1.0, 0.0, "shat is not positive"),
        (1.0, -1.0, "shat is not positive"),
        (1.0, -np.inf, "shat is not positive"),
        (np.nan, 1.0, "bhat is NaN and shat is not"),
        (1.0, np.nan, "shat is NaN and bhat is not"),
    ],
)
def test_bad_cells_are_named(bhat, shat, text):
    effects, errors = BHAT.copy(), SHAT.copy()
    effects[1, 1], errors[1, 1] = bhat, shat
    with pytest.raises(InputError, match=text):
        Effects(effects, errors, None, ROWS, COLUMNS)


def test_frames_of_pandas_and_polars_give_the_same():
    pandas = [pd.DataFrame(values, ROWS, COLUMNS) for values in (BHAT, SHAT)]
    polars = [
        pl.DataFrame({"id": ROWS} | dict(zip(COLUMNS, values.T, strict=True)))
        for values in (BHAT, SHAT)
    ]
    plain = [frame.reset_index(names="id") for frame in pandas]
    square = pd.DataFrame(V, COLUMNS, COLUMNS)
    for frames in (pandas, polars, plain):
        effects = Effects.from_frames(*frames, square)
        np.testing.assert_array_equal(effects.bhat, BHAT)
        np.testing.assert_array_equal(effects.shat, SHAT)
        np.testing.assert_array_equal(effects.V, V)
        assert list(effects.effects) == ROWS
        assert effects.contexts == tuple(COLUMNS)


def test_frames_without_row_labels_and_with_two():
    effects = Effects.from_frames(pd.DataFrame(BHAT), pd.DataFrame(SHAT))
    assert effects.effects is None
    assert effects.contexts == ("0", "1")
    index = pd.MultiIndex.from_product([["g1"], ROWS])
    effects = Effects.from_frames(
        pd.DataFrame(BHAT, index, COLUMNS), pd.DataFrame(SHAT, index, COLUMNS)
    )
    assert effects.effects[1] == "g1:rs2"


def test_nulls_of_frames_are_missing():
    bhat = pl.DataFrame({"id": ["a", "b"], "x": [1.0, None], "y": [1, 2]})
    shat = pl.DataFrame({"id": ["a", "b"], "x": [1.0, None], "y": [1, 1]})
    assert Effects.from_frames(bhat, shat).missing_mask.tolist() == [[False, False], [True, False]]
    bhat = pd.DataFrame({"x": pd.array([1, None], dtype="Int64")})
    shat = pd.DataFrame({"x": [1.0, np.nan]})
    assert Effects.from_frames(bhat, shat).missing_mask.tolist() == [[False], [True]]


def test_frames_are_never_aligned():
    bhat, shat = (pd.DataFrame(values, ROWS, COLUMNS) for values in (BHAT, SHAT))
    with pytest.raises(LabelError, match=r"another order .first at 1: 'rs1' and 'rs3'"):
        Effects.from_frames(bhat, shat[::-1])
    with pytest.raises(LabelError, match=r"contexts of bhat and shat differ.*another order"):
        Effects.from_frames(bhat, shat[["lung", "liver"]])
    with pytest.raises(LabelError, match=r"1 only in the second .'rs9'"):
        Effects.from_frames(bhat, shat.rename(index={"rs2": "rs9"}))
    with pytest.raises(LabelError, match="3 and 2 of them"):
        Effects.from_frames(bhat, shat[:2])
    with pytest.raises(LabelError, match="bhat has labels of effects and shat has none"):
        Effects.from_frames(bhat, shat.reset_index(drop=True))
    with pytest.raises(LabelError, match="columns of V"):
        Effects.from_frames(bhat, shat, pd.DataFrame(V, COLUMNS, COLUMNS[::-1]))
    with pytest.raises(LabelError, match="rows of V"):
        Effects.from_frames(bhat, shat, pd.DataFrame(V, COLUMNS[::-1], COLUMNS))


def test_frames_of_the_wrong_kind():
    frame = pd.DataFrame(BHAT, ROWS, COLUMNS)
    with pytest.raises(InputTypeError, match=r"Effects.bhat, shat"):
        Effects.from_frames(BHAT, SHAT)
    with pytest.raises(InputTypeError, match="column 'lung' of shat is not numeric"):
        Effects.from_frames(frame, frame.assign(lung=["a", "b", "c"]))
    with pytest.raises(ShapeError, match="no numeric column"):
        Effects.from_frames(pl.DataFrame({"id": ROWS}), pl.DataFrame({"id": ROWS}))


def test_select_by_label_position_mask_and_slice():
    stack = np.stack([V, np.eye(2), V])
    effects = Effects(BHAT, SHAT, stack, ROWS, COLUMNS, Provenance("test"))
    part = effects.select(["rs3", "rs1"], ["lung"])
    np.testing.assert_array_equal(part.bhat, BHAT[[2, 0]][:, [1]])
    np.testing.assert_array_equal(part.V, np.ones((2, 1, 1)))
    assert list(part.effects) == ["rs3", "rs1"]
    assert part.contexts == ("lung",)
    assert part.provenance == effects.provenance
    for rows in ([1, 2], np.array([False, True, True]), slice(1, None), [-2, -1]):
        np.testing.assert_array_equal(effects.select(rows).bhat, BHAT[1:])
        np.testing.assert_array_equal(effects.select(rows).V, stack[1:])
    np.testing.assert_array_equal(effects.select("rs2").shat, SHAT[1:2])
    swapped = Effects(BHAT, SHAT, [[2, 0.3], [0.3, 1]]).select(contexts=[1, 0])
    np.testing.assert_array_equal(swapped.V, [[1, 0.3], [0.3, 2]])
    assert effects.select().n_effects == 3


@pytest.mark.parametrize(
    ("rows", "error", "text"),
    [
        (["rs1", "nope"], LabelError, "'nope'"),
        ([3], ShapeError, "beyond the 3"),
        ([True], ShapeError, "mask has 1 values for 3"),
        ([[0]], ShapeError, "one-dimensional"),
        ([], ShapeError, "empty"),
        ([0, 0], LabelError, "more than once"),
    ],
)
def test_select_errors(rows, error, text):
    with pytest.raises(error, match=text):
        Effects(BHAT, SHAT, None, ROWS).select(rows)


def test_select_by_label_needs_labels():
    with pytest.raises(LabelError, match="no labels"):
        Effects(BHAT, SHAT).select(["rs1"])
