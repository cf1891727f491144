import json
import logging
from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array

from plait.crt import add_burden_covariate, compute_guide_burden, prepare_crt_inputs
from plait.errors import InputError, MissingAttributeError, ShapeError
from tests.crt.screens import small_screen
from tests.reference_files import reference_file


@pytest.fixture(scope="module")
def reference():
    return json.loads(reference_file("crt", "encoding_clr_burden.json").read_text())


@pytest.mark.parametrize("kind", [np.array, csr_array, pd.DataFrame])
def test_burdens_agree_with_programde(reference, kind):
    assignment = kind(np.array(reference["assignment"]))
    for name, expected in reference["burden"].items():
        controls, nonzero, logged = (int(part[-1]) for part in name.split("_"))
        burden = compute_guide_burden(
            assignment,
            guide_names=reference["guide_names"],
            guide2gene=reference["guide2gene"],
            ntc_labels=["NTC"],
            include_ntc=bool(controls),
            count_nonzero=bool(nonzero),
            use_log1p=bool(logged),
        )
        np.testing.assert_allclose(burden, expected, rtol=1e-9, err_msg=name)


def test_a_stored_zero_is_no_guide():
    assignment = csr_array((np.array([1.0, 0.0]), np.array([0, 1]), np.array([0, 2])), shape=(1, 2))
    assert compute_guide_burden(assignment, use_log1p=False) == [1.0]
    assert assignment.nnz == 2


@pytest.mark.parametrize(
    "missing", [{"guide_names": None}, {"guide2gene": None}, {"ntc_labels": []}]
)
def test_leaving_out_controls_needs_to_know_them(missing):
    given = {"guide_names": ["g"], "guide2gene": {"g": "A"}, "ntc_labels": ["NTC"]} | missing
    with pytest.raises(InputError, match="guide_names, guide2gene and at least one of ntc_labels"):
        compute_guide_burden(np.ones((3, 1)), include_ntc=False, **given)


def test_names_must_be_as_many_as_columns():
    with pytest.raises(ShapeError, match="1 name and 2 columns"):
        compute_guide_burden(
            np.ones((3, 2)),
            guide_names=["g"],
            guide2gene={"g": "A"},
            ntc_labels=["NTC"],
            include_ntc=False,
        )


def test_the_burden_becomes_a_covariate():
    screen = small_screen()
    adata = anndata.AnnData(
        obs=pd.DataFrame(index=[f"cell{i}" for i in range(60)]), obsm=screen.obsm, uns=screen.uns
    )
    before = adata.obsm["covar"].copy()
    frame = add_burden_covariate(adata)
    assert frame.columns.tolist() == ["covar_0", "covar_1", "log1p_non_ntc_guides_per_cell"]
    np.testing.assert_array_equal(frame[["covar_0", "covar_1"]], before)
    expected = np.log1p(screen.obsm["guide_assignment"][:, :6].sum(axis=1))
    np.testing.assert_allclose(frame["log1p_non_ntc_guides_per_cell"], expected)
    assert adata.obsm["covar"].equals(frame)
    assert add_burden_covariate(adata).equals(frame)
    everything = add_burden_covariate(adata, include_ntc=True, burden_key="all", use_log1p=False)
    np.testing.assert_array_equal(everything["all"], screen.obsm["guide_assignment"].sum(axis=1))
    names = prepare_crt_inputs(adata, numeric_as_category_threshold=None).covar_cols
    assert names == tuple(everything.columns)


def test_a_burden_of_few_values_is_not_encoded_silently(caplog):
    # programDE: a number of guides becomes up to 19 indicators, and nobody is told.
    screen = small_screen()
    add_burden_covariate(screen)
    with caplog.at_level(logging.INFO, logger="plait.crt"):
        names = prepare_crt_inputs(screen).covar_cols
    assert sum("log1p_non_ntc_guides_per_cell_" in name for name in names) > 1
    assert "encoded as categories: log1p_non_ntc_guides_per_cell" in caplog.text


def test_without_a_place_for_covariates():
    with pytest.raises(MissingAttributeError, match="has no obsm"):
        add_burden_covariate(SimpleNamespace(uns={}))
    assert issubclass(MissingAttributeError, AttributeError)


def test_numbers_of_cells_must_agree():
    screen = small_screen()
    screen.obsm["covar"] = screen.obsm["covar"][:-1]
    with pytest.raises(ShapeError, match="59 in the covariates, 60 in the guide assignment"):
        add_burden_covariate(screen)
