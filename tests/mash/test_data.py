"""The door: every check, in its order, and what the data object promises."""

import numpy as np
import pandas as pd
import pytest

from plait.data.effects import Effects
from plait.errors import InputError, LabelError, ModelWarning, OptionError, ShapeError
from plait.io import write_effects
from plait.mash import cov_canonical, mash, mash_open_data
from plait.mash.checks import check_mash_data, regularize_cov
from plait.mash.contrasts import contrast_matrix
from plait.mash.data import mash_set_data, mash_update_data, subset_mash_data
from tests.mash.conftest import random_correlation
from tests.reference_files import load

B = np.array([[1.0, -2.0, 3.0], [0.5, 0.1, -4.0]])
S = np.array([[1.0, 0.5, 2.0], [0.7, 1.0, 1.5]])


def changed(matrix, cell, value):
    copy = matrix.copy()
    copy[cell] = value
    return copy


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        ({"Shat": S, "pval": S}, "cannot both"),
        ({"pval": np.full((2, 3), 0.1), "df": 5}, "cannot both"),
        ({"pval": np.zeros((2, 3))}, r"\(0, 1\]"),
        ({"pval": np.full((2, 3), 1.5)}, r"\(0, 1\]"),
        ({"pval": np.ones((2, 3))}, "p-value 1"),
        ({"Shat": S[:, :2]}, "dimensions"),
        ({"Bhat": changed(B, (0, 1), np.inf), "Shat": S}, "Inf"),
        ({"Shat": changed(S, (0, 1), -np.inf)}, "Inf"),
        ({"Shat": -S}, "negative"),
        ({"Shat": changed(S, (1, 1), 0)}, "zero_Shat_reset"),
        ({"Bhat": changed(B, (1, 1), 0), "Shat": changed(S, (1, 1), 0)}, "zero_Bhat_Shat_reset"),
        ({"Shat": S, "V": np.eye(2)}, "dimension"),
        ({"Shat": S, "V": np.ones((3, 3))}, "positive definite"),
        ({"Shat": S, "V": np.triu(np.ones((3, 3)))}, "symmetric"),
        ({"Shat": S, "V": np.full((3, 3), np.nan)}, "not finite"),
        ({"Bhat": changed(B, (0, 0), np.nan), "Shat": S}, "Missing data pattern"),
        ({"Shat": S, "missing": "ignore"}, "large_se"),
        ({"Shat": S, "df": -1.0}, "df"),
        ({"Shat": S, "df": np.ones((2, 2))}, "df has dimensions"),
        ({"Shat": S, "condition_names": ["a", "a", "b"]}, "more than once"),
        ({"Shat": S, "condition_names": ["a"]}, "condition names"),
        ({"Bhat": np.ones(3)}, "two dimensions"),
        ({"Bhat": np.empty((0, 3))}, "empty"),
        ({"Bhat": [["x", "y", "z"]]}, "numeric"),
    ],
)
def test_errors(arguments, fragment):
    with pytest.raises(InputError, match=fragment):
        mash_set_data(**{"Bhat": B, **arguments})


def test_the_message_names_the_place():
    bhat = pd.DataFrame(B, index=["rs1", "rs2"], columns=["liver", "lung", "skin"])
    shat = pd.DataFrame(changed(S, (1, 0), 0.0), index=bhat.index, columns=bhat.columns)
    with pytest.raises(InputError, match=r"1 zeros \(first: row 'rs2', column 'liver'\)"):
        mash_set_data(bhat, shat)


def test_both_groups_of_zeros_are_handled_in_one_call():
    """The reference program leaves the second group unhandled, and takes -2 for a zero."""
    bhat, shat = changed(B, (1, 1), 0.0), changed(changed(S, (1, 1), 0.0), (0, 1), 0.0)
    data = mash_set_data(bhat, shat, zero_Bhat_Shat_reset=5.0, zero_Shat_reset=0.25)
    assert data.Shat[1, 1] == 5.0
    assert data.Shat[0, 1] == 0.25


def test_inputs_are_never_changed():
    bhat, shat = changed(B, (0, 0), np.nan), changed(S, (0, 0), np.nan)
    before = bhat.copy(), shat.copy()
    data = mash_set_data(bhat, shat, alpha=0.5)
    np.testing.assert_array_equal(bhat, before[0])
    np.testing.assert_array_equal(shat, before[1])
    bhat[:] = 99
    assert data.Bhat[0, 1] != 99
    with pytest.raises(ValueError, match="read-only"):
        data.Bhat[0, 0] = 1


def test_infinite_errors_are_missing_cells():
    data = mash_set_data(B, changed(S, (0, 1), np.inf))
    assert data.missing_mask.tolist() == [[False, True, False], [False, False, False]]
    assert data.Bhat[0, 1] == 0
    assert data.Shat[0, 1] == 1e6
    z = mash_set_data(changed(B, (0, 1), np.nan))
    assert z.missing_mask.sum() == 1


def test_scaling():
    half = mash_set_data(B, S, alpha=0.5)
    np.testing.assert_allclose(half.Bhat, B / np.sqrt(S))
    np.testing.assert_allclose(half.Shat, np.sqrt(S))
    one = mash_set_data(B, S, alpha=1)
    assert np.all(one.Shat == 1)
    np.testing.assert_array_equal(one.Shat_alpha, S)
    assert one.is_common_cov_shat()
    assert not one.is_common_cov_shat_alpha()


def test_common_errors_are_compared_exactly():
    tiny = mash_set_data(B, np.array([[1e-9, 1e-9, 1e-9], [1e-9, 2e-9, 1e-9]]))
    assert not tiny.is_common_cov_shat()
    assert mash_set_data(B, 0.5).is_common_cov_shat()
    assert mash_set_data(B[:1], S[:1]).is_common_cov_shat()


def test_reference_t_and_p_values():
    file = load("mash", "l_df_pval_udi.npz")
    by_df = mash_set_data(file["Bhat"], file["Shat"], df=7)
    np.testing.assert_allclose(by_df.Shat, file["df7_Shat"], rtol=1e-9)
    by_p = mash_set_data(file["Bhat"], pval=file["pval"])
    np.testing.assert_allclose(by_p.Shat, file["pval_Shat"], rtol=1e-9)
    np.testing.assert_allclose(contrast_matrix(5, "mean"), file["L_mean"], atol=1e-15)


def test_df_edges():
    data = mash_set_data([[0.0, 5.0, 1.0]], [[0.4, 0.01, 0.4]], df=[[5.0, 30.0, np.inf]])
    assert data.Shat[0, 0] == 0.4
    assert 0.2 < data.Shat[0, 1] < 0.4
    assert data.Shat[0, 2] == 0.4


def test_warnings():
    with pytest.warns(Warning, match="alpha=1"):
        mash_set_data(B, [[1e-3, 1e-3, 1e-3], [1e-3, 1e-3, 10.0]])
    with pytest.warns(Warning, match="only 2 conditions"):
        mash_set_data(B[:, :2], S[:, :2])


def test_conditions_that_others_tell(random, tmp_path):
    """Of a lipid that is computed from others, errors have next to no direction of their own."""
    samples, names = random.normal(size=(489, 4)), ["hdl", "tg", "tc", "ldl", "bmi"]
    traits = np.column_stack([samples[:, :3], samples[:, 2] - samples[:, 0], samples[:, 3]])
    traits -= traits.mean(axis=0)
    copies = random.binomial(2, 0.3, size=(489, 1500)) - 0.6
    squares = (copies**2).sum(axis=0)[:, None]
    effects = copies.T @ traits / squares
    errors = np.sqrt((traits**2).sum(axis=0) / squares - effects**2) / np.sqrt(487)
    V = np.corrcoef(traits, rowvar=False) * (1 - 1e-8) + 1e-8 * np.eye(5)
    about = {"df": 487, "condition_names": names}
    with pytest.warns(ModelWarning, match="'hdl', 'tc', 'ldl' follow from one another"):
        told = mash_set_data(effects, errors, V=V, **about)
    write_effects(Effects(effects, errors, V=V, contexts=names), tmp_path / "e.zarr")
    with pytest.warns(ModelWarning, match="'hdl', 'tc', 'ldl' follow"):
        mash_open_data(tmp_path / "e.zarr")
    mended = mash_set_data(effects, errors, V=V, v_ridge=0.01, **about)
    with pytest.warns(ModelWarning, match="'hdl', 'tc', 'ldl' follow"):
        mash_update_data(mended, V=V)
    found = [int((mash(data, cov_canonical(data)).lfsr < 0.05).sum()) for data in (told, mended)]
    assert found[0] > 100
    assert found[1] == 0


def test_labels():
    bhat = pd.DataFrame(B, index=["rs1", "rs2"], columns=["x", "y", "z"])
    data = mash_set_data(bhat, pd.DataFrame(S, index=bhat.index, columns=bhat.columns))
    assert data.condition_names == ("x", "y", "z")
    assert data.effect_names.tolist() == ["rs1", "rs2"]
    swapped = pd.DataFrame(S, index=["rs2", "rs1"], columns=bhat.columns)
    with pytest.raises(LabelError, match="row labels of Bhat and Shat differ in their order"):
        mash_set_data(bhat, swapped)
    other = pd.DataFrame(S, index=bhat.index, columns=["x", "y", "w"])
    with pytest.raises(LabelError, match="'z' and 'w'"):
        mash_set_data(bhat, other)


def test_effects_bring_everything(random):
    V = random_correlation(random, 3)
    shat = changed(S, (0, 2), np.inf)
    effects = Effects(
        changed(B, (0, 2), 0.0), shat, V=V, effects=["a", "b"], contexts=["x", "y", "z"]
    )
    data = mash_set_data(effects)
    assert data.missing == "exact"
    assert data.condition_names == ("x", "y", "z")
    np.testing.assert_allclose(data.V, V)
    assert data.missing_mask[0, 2]
    for name, value in (("Shat", S), ("V", V), ("condition_names", ["x", "y", "z"])):
        with pytest.raises(OptionError, match="bring their own"):
            mash_set_data(effects, **{name: value})


def test_V_layouts(random):
    stack = np.stack([random_correlation(random, 3) for _ in range(2)])
    data = mash_set_data(B, S, V=stack)
    turned = mash_set_data(B, S, V=stack.transpose(1, 2, 0))
    np.testing.assert_array_equal(data.V, turned.V)
    expected = np.outer(S[1], S[1]) * stack[1]
    np.testing.assert_allclose(data.get_cov(1), expected)
    bad = stack.copy()
    bad[1] = 1.0
    with pytest.raises(InputError, match="positive definite: V 1"):
        mash_set_data(B, S, V=bad)
    ridged = mash_set_data(B, S, V=np.ones((3, 3)), v_ridge=0.5)
    assert ridged.V[0, 0] == 1.5


def test_contrasts(random):
    names = ["a", "b", "c"]
    np.testing.assert_array_equal(contrast_matrix(3, "b", names), [[1, -1, 0], [0, -1, 1]])
    _, labels, reference = contrast_matrix(3, 2, names, details=True)
    assert labels == ("a-c", "b-c")
    assert reference == "c"
    for ref, fragment in (("x", "not in the given conditions"), (3, "not in the given conditions")):
        with pytest.raises(LabelError, match=fragment):
            contrast_matrix(3, ref, names)
    with pytest.raises(LabelError, match="2 times"):
        contrast_matrix(3, "a", ["a", "a", "c"])
    V = random_correlation(random, 3)
    data = mash_set_data(B, S, V=V, condition_names=names)
    contrast = mash_update_data(data, ref="b")
    L = contrast.L
    sigma = L @ (np.outer(S[0], S[0]) * V) @ L.T
    np.testing.assert_allclose(contrast.get_cov(0), sigma)
    np.testing.assert_allclose(contrast.Shat[0], np.sqrt(np.diag(sigma)))
    with pytest.raises(OptionError, match="already"):
        mash_update_data(contrast, ref="a")
    with pytest.raises(OptionError, match="alpha"):
        mash_update_data(mash_set_data(B, S, alpha=1), ref=0)
    again = mash_update_data(contrast, V=np.eye(3))
    np.testing.assert_allclose(again.get_cov(0), L @ np.diag(S[0] ** 2) @ L.T)


def test_a_new_correlation_decides_again_about_missing_cells(random):
    V = random_correlation(random, 3)
    bhat, shat = changed(B, (0, 0), np.nan), changed(S, (0, 0), np.nan)
    data = mash_set_data(bhat, shat)
    assert data.missing == "large_se"
    updated = mash_update_data(data, V=V)
    assert updated.missing == "exact"
    direct = mash_set_data(bhat, shat, V=V)
    np.testing.assert_array_equal(updated.Shat, direct.Shat)
    np.testing.assert_array_equal(updated.observed(slice(None)), direct.observed(slice(None)))
    assert mash_update_data(updated, V=np.eye(3)).missing == "large_se"
    with pytest.warns(Warning, match="smaller than they are"):
        kept = mash_update_data(mash_set_data(bhat, shat, missing="large_se"), V=V)
    assert kept.missing == "large_se"


def test_contrasts_with_missing_cells(random):
    V = random_correlation(random, 3)
    bhat, shat = changed(B, (0, 0), np.nan), changed(S, (0, 0), np.nan)
    exact = mash_set_data(bhat, shat, V=V, missing="exact")
    with pytest.raises(OptionError, match="exact"):
        mash_update_data(exact, ref=1)
    automatic = mash_set_data(bhat, shat, V=V)
    assert automatic.missing == "exact"
    with pytest.warns(Warning, match="smaller than they are"):
        contrast = mash_update_data(automatic, ref=1)
    assert contrast.Shat[0, 0] > 1e5
    with pytest.warns(Warning, match="mixes"):
        mash_update_data(mash_set_data(bhat, shat), ref="mean")


def test_subset(random):
    stack = np.stack([random_correlation(random, 3) for _ in range(2)])
    data = mash_set_data(B, S, V=stack, effect_names=["a", "b"])
    part = subset_mash_data(data, [1])
    np.testing.assert_array_equal(part.V, stack[1:])
    assert part.effect_names.tolist() == ["b"]
    view = subset_mash_data(data, slice(0, 1))
    assert np.shares_memory(view.Bhat, data.Bhat)
    with pytest.raises(InputError, match="beyond"):
        subset_mash_data(data, [2])
    with pytest.raises(ShapeError):
        subset_mash_data(data, [[0]])


def test_diagnostics(capsys):
    found = check_mash_data(B, [[1e-9, 1, 1], [1, -1, 9]], se_cv_thresh=0.5)
    assert {"nonpositive_se", "high_se_variability", "near_zero_se"} <= set(found)
    assert "[check_mash_data]" in capsys.readouterr().out
    column = np.arange(9.0)
    nearly = np.column_stack([column, column * (1 + 1e-9) + 1e-9 * (-1) ** np.arange(9)])
    assert "ill_conditioned_traits" in check_mash_data(nearly, np.ones((9, 2)), verbose=False)
    assert check_mash_data(B, np.full((2, 3), np.nan), verbose=False).keys() == {"invalid_shat"}


def test_regularize():
    V = np.array([[1.0, 1.0], [1.0, 1.0]])
    ridged = regularize_cov(V, 0.1)
    assert ridged[0, 0] == pytest.approx(1.1)
    correlation = regularize_cov(V, 0.1, to_correlation=True)
    assert correlation[0, 0] == 1.0
    assert correlation[0, 1] == pytest.approx(1 / 1.1)
    with pytest.raises(OptionError, match="ridge"):
        regularize_cov(V, -1)
