import numpy as np
import pytest

from plait.errors import InputError, OptionError
from plait.mash.covariances import (
    cov_canonical,
    cov_from_factors,
    cov_pca,
    cov_simple_het,
    cov_udi,
    expand_cov,
    lift_cov,
    normalize_Ulist,
    r1cov,
    scale_cov,
)
from plait.mash.data import mash_set_data, subset_mash_data
from plait.mash.grid import autoselect_grid
from tests.reference_files import load


@pytest.fixture
def data(random):
    return mash_set_data(random.normal(size=(200, 3)) * 2, condition_names=["a", "identity", "c"])


def test_canonical(data):
    found = cov_canonical(data)
    assert list(found) == [
        "identity", "a", "singleton_2", "c", "equal_effects",
        "simple_het_1", "simple_het_2", "simple_het_3",
    ]  # fmt: skip
    assert found["c"][2, 2] == 1
    assert found["c"].sum() == 1
    assert found["simple_het_1"][0, 1] == 0.25
    assert list(cov_canonical(data, ["null", "id", "eq"])) == ["null", "identity", "equal_effects"]
    with pytest.raises(OptionError, match="choose from"):
        cov_canonical(data, ["s"])
    with pytest.raises(OptionError, match="not in"):
        cov_simple_het(data, [1.5])


def test_reference_pca():
    file = load("mash", "b_datadriven.npz")
    data = mash_set_data(file["Bhat"], file["Shat"])
    with pytest.warns(Warning, match="advisable"):
        found = cov_pca(data, 3, subset=file["strong_0based"])
    assert list(found) == ["PCA_1", "PCA_2", "PCA_3", "tPCA"]
    np.testing.assert_allclose(np.stack(list(found.values())), file["pca_stack"], atol=1e-8)


def test_reference_udi():
    file = load("mash", "l_df_pval_udi.npz")
    data = mash_set_data(np.ones((4, 3)), V=file["V3"])
    found = cov_udi(data)
    assert list(found) == [str(name) for name in file["udi_names"]]
    np.testing.assert_allclose(np.stack(list(found.values())), file["udi_stack"], rtol=1e-9)
    np.testing.assert_allclose(cov_udi(data, "DUI")["cov_udi_DUI"], file["udi_DUI"], rtol=1e-9)
    with pytest.raises(OptionError, match="at least one D"):
        cov_udi(data, "UUI")


@pytest.mark.parametrize(
    ("npc", "subset", "fragment"),
    [
        (1, None, "npc"),
        (4, None, "npc"),
        (3, [0, 1], "npc"),
        (2, [], "empty"),
        (2, [500], "does not fit"),
    ],
)
def test_pca_errors(data, npc, subset, fragment):
    with pytest.raises(InputError, match=fragment):
        cov_pca(data, npc, np.array(subset, dtype=int) if subset is not None else None)


def test_lifted_matrices_have_more_on_the_diagonal_alone():
    U = np.array([[4.0, 2.0], [2.0, 1.0]])
    found = lift_cov({"a": U, "zero": np.zeros((2, 2))}, 0.2)
    np.testing.assert_allclose(found["a"], [[4.5, 2.0], [2.0, 1.5]], rtol=1e-15)
    assert list(found) == ["a", "zero"] and not found["zero"].any()
    np.testing.assert_array_equal(lift_cov({"a": U}, 0)["a"], U)
    np.testing.assert_array_equal(lift_cov({"a": U})["a"], lift_cov({"a": U}, 0.05)["a"])
    for share in (-0.1, np.nan, np.inf):
        with pytest.raises(OptionError, match=r"share is .*; it must be zero or positive"):
            lift_cov({"a": U}, share)


def test_small_functions():
    np.testing.assert_array_equal(r1cov([1, 2]), [[1, 2], [2, 4]])
    assert list(cov_from_factors(np.ones((2, 3)), "f")) == ["f_1", "f_2"]
    scaled = scale_cov({"a": np.eye(2), "b": np.ones((2, 2))}, [1, 2])
    assert [m[0, 0] for m in scaled] == [1, 1, 4, 4]
    assert len(expand_cov([np.eye(2)], [1, 2])) == 3
    assert len(expand_cov([np.eye(2)], [1, 2], usepointmass=False)) == 2
    kept = normalize_Ulist({"x": 4 * np.eye(2), "zero": np.zeros((2, 2))})
    assert list(kept) == ["x", "zero"]
    assert kept["x"][0, 0] == 1
    assert kept["zero"][0, 0] == 0


@pytest.mark.parametrize("name", ["d_corr", "e_per_effect_V", "k_missing"])
def test_reference_grid(name):
    file = load("mash", f"{name}.npz")
    bhat = file.get("Bhat_in_nan", file["Bhat"])
    data = mash_set_data(bhat, file.get("Shat_in_nan", file["Shat"]))
    np.testing.assert_allclose(autoselect_grid(data), file["fit_grid"], rtol=1e-12)


def test_grid_edges():
    weak = mash_set_data([[0.1, 0.1, 0.1]], [[1.0, 2.0, 1.0]])
    grid = autoselect_grid(weak)
    assert grid[-1] == pytest.approx(0.8)
    barely = mash_set_data([[1 + 1e-9, 0.0, 0.0]])
    assert autoselect_grid(barely)[-1] == pytest.approx(0.8)
    strong = mash_set_data([[9.0, 0.0, 0.0]])
    np.testing.assert_allclose(autoselect_grid(strong, 0), [0, np.sqrt(80)])
    tiny = mash_set_data([[9.0, 1.0, 1.0]], [[1e-12, 1.0, 1.0]])
    with pytest.raises(InputError, match="grid would have"):
        autoselect_grid(tiny, 1.0001)
    nothing = mash_set_data(np.full((2, 3), np.nan), np.full((2, 3), np.nan), missing="exact")
    with pytest.raises(InputError, match="no grid"):
        autoselect_grid(nothing)
    holes = mash_set_data([[9.0, np.nan, 1.0]], [[1.0, np.nan, 1.0]], missing="exact")
    np.testing.assert_allclose(autoselect_grid(holes), autoselect_grid(strong))
    assert len(autoselect_grid(subset_mash_data(strong, slice(0, 1)))) == len(
        autoselect_grid(strong)
    )
