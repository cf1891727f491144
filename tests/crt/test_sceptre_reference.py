"""The runs of sceptre: what is not drawn agrees, and p-values agree within their noise."""

import numpy as np
import pytest

from plait.crt.assignment import assign_guides
from plait.crt.gene_covariates import COUNT_COVARIATES
from plait.crt.gene_design import GeneDesign
from plait.crt.negative_binomial import fit_gene
from plait.crt.pairs import positive_control_pairs
from tests.crt.gene_cases import (
    RUNS,
    close_relative,
    coefficients_of_columns,
    frame_of,
    reference_data,
    reference_screen,
    reference_table,
)

pytest.importorskip("anndata")


@pytest.mark.parametrize("moi", ["high", "low"])
def test_covariates_and_positive_controls(moi):
    data = reference_data(moi)
    covariates = reference_table(f"{moi}_covariates")
    for name in COUNT_COVARIATES:
        np.testing.assert_array_equal(data.covariates[name], covariates[name])
    np.testing.assert_array_equal(data.covariates["batch"], covariates["batch"])
    pairs = positive_control_pairs(data)
    if moi == "high":
        known = reference_table("high_pc_pairs")
        assert set(pairs.targets.tolist()) == set(known.grna_target)
        assert (pairs.targets == pairs.responses).all()


def test_cis_pairs():
    pairs = reference_screen("high_crt_left").parameters.discovery_pairs
    known = reference_table("high_cis_pairs")
    assert set(zip(pairs.targets.tolist(), pairs.responses.tolist(), strict=True)) == set(
        zip(known.grna_target, known.response_id, strict=True)
    )


@pytest.mark.parametrize(
    ("moi", "table", "options"),
    [
        ("high", "assign_threshold5", {"method": "thresholding"}),
        ("high", "assign_mixture", {"method": "mixture", "mixture": "legacy"}),
        ("low", "assign_thresholding", {"method": "thresholding"}),
        ("low", "assign_maximum", {}),
        ("low", "assign_mixture", {"method": "mixture", "mixture": "legacy"}),
    ],
)
def test_assignments(moi, table, options):
    data = reference_data(moi)
    found = assign_guides(data, **options).to_frame().select("grna_id", "cell")
    rows = {name: i + 1 for i, name in enumerate(data.cell_names.tolist())}
    ours = {(guide, rows[cell]) for guide, cell in found.iter_rows()}
    known = reference_table(f"{moi}_{table}")
    assert ours == set(zip(known.grna_id, known.cell, strict=True))


@pytest.mark.parametrize("run", RUNS)
def test_cells_and_fits(run):
    screen = reference_screen(run)
    cells = reference_table(f"{run}_cells_in_use").cell_in_use.to_numpy() - 1
    np.testing.assert_array_equal(screen.cells.cells, cells)
    used = screen._screen_cells()
    problem, chosen = used.calibration_problem(), used.problem.controls
    columns = used.columns if chosen is None else used.columns[chosen]
    known = reference_table(f"{run}_response_precomputation")
    genes = screen.data.response_names.tolist()
    assert len(known) > 90
    for row in known.itertuples(index=False):
        counts = problem.responses[:, [genes.index(row.response_id)]].toarray()[:, 0]
        fit = fit_gene(problem.design.rows, counts)
        assert fit.converged
        assert fit.theta == pytest.approx(row.theta, rel=1e-6)
        coefficients = coefficients_of_columns(fit, columns)
        np.testing.assert_allclose(coefficients, np.array(row[2:], float), rtol=1e-6, atol=1e-6)
    assert isinstance(problem.design, GeneDesign)


def _same_table(result, known, keys=("response_id", "grna_target")):
    found, known = frame_of(result, keys), known.set_index(list(keys))
    assert len(found) == len(known)
    found = found.loc[known.index]
    passing = known.pass_qc.to_numpy()
    np.testing.assert_array_equal(found.pass_qc, passing)
    for name in ("n_nonzero_trt", "n_nonzero_cntrl"):
        np.testing.assert_array_equal(found[name], known[name])
    found, known = found[passing], known[passing]
    for ours, theirs in (
        ("z_orig", "z_orig"),
        ("fold_change", "fold_change"),
        ("se_fold_change", "se_fold_change"),
        ("log_2_fold_change", "log_2_fold_change"),
    ):
        close_relative(found[ours], known[theirs], 1e-6)
    return found, known


@pytest.mark.parametrize("run", RUNS[:4])
def test_statistics_of_pairs(run):
    screen = reference_screen(run)
    _same_table(screen.run_discovery(), reference_table(f"{run}_discovery"))
    _same_table(screen.run_power_check(), reference_table(f"{run}_power"))
    known = reference_table(f"{run}_calibration")
    found = screen.run_calibration_check(pairs=known[["grna_target", "response_id"]])
    _same_table(found, known)


def test_single_guides_of_the_calibration_check():
    known = reference_table("low_perm_nt_bonferroni_calibration")
    known["grna_target"] = known.grna_id
    screen = reference_screen("low_perm_nt_bonferroni")
    found = screen.run_calibration_check(pairs=known[["grna_target", "response_id"]])
    _same_table(found, known)


@pytest.mark.parametrize("run", RUNS[:4])
def test_analytic_p_values_are_what_counted_ones_scatter_about(run):
    """Stage 1 counts 499 resamples: its binomial error explains all of the difference."""
    screen = reference_screen(run)
    known = reference_table(f"{run}_discovery").set_index(["response_id", "grna_target"])
    known = known[known.pass_qc & (known.stage == 1)]
    found = frame_of(screen.run_discovery()).loc[known.index]
    folds = 2.0 if screen.parameters.side == "both" else 1.0
    exact = found.p_value.to_numpy(float) / folds
    counted = known.p_value.to_numpy() / folds
    is_inside = (exact > 0.02) & (exact < (0.42 if folds == 2.0 else 0.98))
    z = ((counted - exact) / np.sqrt(exact * (1 - exact) / 499))[is_inside]
    assert len(z) > 1000
    assert 0.6 < np.mean(z**2) < 1.5
    assert np.abs(z).max() < 6


@pytest.mark.parametrize("run", ["high_crt_left", "low_perm_nt"])
def test_staged_p_values(run):
    """Stages agree with sceptre's as well as with those of another seed."""
    known = reference_table(f"{run}_discovery").set_index(["response_id", "grna_target"])
    known = known[known.pass_qc]
    found = [
        frame_of(reference_screen(run, "sceptre_staged", seed=seed).run_discovery()).loc[
            known.index
        ]
        for seed in (1, 2)
    ]
    folds = 2.0 if run == "low_perm_nt" else 1.0
    first = known.stage.eq(1) & found[0].stage.eq(1) & (known.p_value / folds < 0.42)
    a, b = (table.p_value[first].to_numpy(float) / folds for table in (known, found[0]))
    middle = np.clip((a + b) / 2, 1 / 500, None)
    z = (a - b) / np.sqrt(2 * middle * (1 - middle) / 499)
    assert first.sum() > 500
    assert 0.6 < np.mean(z**2) < 1.5
    second = known.stage.eq(2) & found[0].stage.eq(2) & found[1].stage.eq(2)
    theirs = np.log(known.p_value[second].to_numpy(float))
    ours = [np.log(table.p_value[second].to_numpy(float)) for table in found]
    assert second.sum() > 25
    assert np.median(np.abs(ours[0] - theirs)) < 0.35
    assert np.std(ours[0] - theirs) < 1.6 * np.std(ours[0] - ours[1])
    agree = (known.stage == found[0].stage).mean()
    assert agree > 0.98


def test_bonferroni_over_guides():
    run = "low_perm_nt_bonferroni"
    known = reference_table(f"{run}_discovery").set_index(["response_id", "grna_target"])
    found = frame_of(reference_screen(run).run_discovery()).loc[known.index]
    passing = known.pass_qc.to_numpy()
    np.testing.assert_array_equal(found.pass_qc, passing)
    np.testing.assert_array_equal(found.n_nonzero_trt[~passing], known.n_nonzero_trt[~passing])
    np.testing.assert_array_equal(found.n_nonzero_cntrl, known.n_nonzero_cntrl)
    # Where p-values of guides are near one another, drawn ones choose now the one, now the other.
    clear = passing & (known.p_value < 0.02).to_numpy()
    close_relative(found.log_2_fold_change[clear], known.log_2_fold_change[clear].to_numpy(), 1e-6)
    ratios = np.log(found.p_value[passing].to_numpy(float) / known.p_value[passing].to_numpy())
    assert abs(np.median(ratios)) < 0.1
