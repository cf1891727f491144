"""Propensities from elsewhere are those of the units by name, whichever units are tested."""

import numpy as np
import pandas as pd
import pytest

from plait import crt
from plait.crt.given_propensities import GivenPropensities
from plait.crt.propensity import propensity_blocks
from plait.errors import LabelError, ShapeError
from tests.crt.screens import reference_screen


@pytest.fixture(scope="module")
def inputs():
    return crt.prepare_crt_inputs(reference_screen("synth_b")[0])


@pytest.fixture(scope="module")
def given(inputs):
    """Fitted propensities, so that a run with them must equal one that fits them."""
    blocks = propensity_blocks(
        crt.fit_propensity_logistic, inputs.C, inputs.treated_matrix(), inputs.units
    )
    return np.concatenate([p for _, p in blocks], axis=1)


def test_columns_are_those_of_the_units_tested(inputs, given):
    whole = crt.perturbation_effects(inputs)
    chosen = {
        "some": {"units": inputs.units[3:6]},
        "reversed": {"units": inputs.units[::-1]},
        "without": {"exclude": inputs.units[:2]},
    }
    for options in chosen.values():
        fitted = crt.perturbation_effects(inputs, **options)
        np.testing.assert_array_equal(
            crt.perturbation_effects(inputs, propensity_model=given, **options).log10p,
            fitted.log10p,
        )
        rows = [whole.units.index(unit) for unit in fitted.units]
        np.testing.assert_array_equal(fitted.log10p, whole.log10p[rows])


def test_names_of_programde_take_the_column_of_the_gene(inputs, given):
    gene = inputs.units[4]
    options = {"B": 200, "propensity_model": given}
    one = crt.run_one_gene_union_crt(gene, inputs, **options)
    fitted = crt.run_one_gene_union_crt(gene, inputs, B=200)
    np.testing.assert_array_equal(one.pvals, fitted.pvals)
    some = crt.run_all_genes_union_crt(inputs, [gene], **options)["pvals_df"]
    np.testing.assert_array_equal(some.loc[gene], fitted.pvals)
    np.testing.assert_array_equal(
        crt.compute_gene_null_pvals(gene, inputs, **options),
        crt.compute_gene_null_pvals(gene, inputs, B=200),
    )


def test_a_table_is_matched_by_names_of_units_and_cells(inputs, given):
    table = pd.DataFrame(given, columns=list(inputs.units), index=inputs.cell_names)
    order = np.random.default_rng(0).permutation(len(table))
    shuffled = table.iloc[order, ::-1].drop(columns=inputs.units[0])
    units = inputs.units[1:5]
    np.testing.assert_array_equal(
        crt.perturbation_effects(inputs, units, propensity_model=shuffled).log10p,
        crt.perturbation_effects(inputs, units).log10p,
    )
    with pytest.raises(LabelError, match=f"1 of {len(inputs.units)} units.*{inputs.units[0]}"):
        crt.perturbation_effects(inputs, propensity_model=shuffled)
    other = table.set_axis([f"x{i}" for i in range(len(table))])
    with pytest.raises(LabelError, match="other cells"):
        crt.perturbation_effects(inputs, propensity_model=other)


def test_a_range_index_is_the_default_one_only_in_its_order():
    """Reversed and cut frames keep a RangeIndex, whose rows are no longer the cells in order."""
    table = pd.DataFrame({"u": [0.1, 0.2, 0.3, 0.4]})
    twice = pd.DataFrame({"u": np.repeat(table["u"], 2).to_numpy()})
    for numbers in ("0123", "3210", "2031"):
        cells = np.array(list(numbers))
        found = GivenPropensities.of_model(table[::-1], cells, ["u"])
        np.testing.assert_array_equal(found.values[:, 0], table["u"].to_numpy()[cells.astype(int)])
    named = np.array(["a", "b", "c", "d"])
    found = GivenPropensities.of_model(table, named, ["u"])
    np.testing.assert_array_equal(found.values, table.to_numpy())
    for other in (table[::-1], twice[4:], twice[::2]):
        assert isinstance(other.index, pd.RangeIndex)
        with pytest.raises(LabelError, match="other cells"):
            GivenPropensities.of_model(other, named, ["u"])


def test_arrays_of_other_shapes_are_refused_with_counts(inputs, given):
    n_cells, n_units = given.shape
    with pytest.raises(
        ShapeError, match=rf"\({n_cells}, 3\).*{n_cells:,} cells and {n_units} targets"
    ):
        crt.perturbation_effects(inputs, inputs.units[:3], propensity_model=given[:, :3])
    with pytest.raises(ShapeError, match=f"3 rows for {n_cells:,} cells"):
        crt.perturbation_effects(
            inputs, propensity_model=pd.DataFrame(given[:3], columns=list(inputs.units))
        )


def test_groups_of_controls_need_columns_of_their_own(inputs, given):
    with pytest.raises(LabelError, match=r"'ntc_0'.*'const' or a function"):
        crt.control_group_effects(inputs, propensity_model=given)
    with pytest.raises(LabelError, match="guides:"):
        crt.crt_pvals_for_guide_set(inputs, [0, 1], B=50, propensity_model=given)
    fitted = crt.control_group_effects(inputs)
    own = pd.DataFrame(
        np.full((inputs.n_cells, len(fitted.units)), 0.1), columns=list(fitted.units)
    )
    assert crt.control_group_effects(inputs, propensity_model=own).units == fitted.units
