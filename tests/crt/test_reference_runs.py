"""Deterministic numbers of programDE: design, floor, log-ratios, effects, burden."""

import numpy as np
import pytest

from plait.crt import compute_guide_burden, ols_statistics, prepare_crt_inputs
from tests.crt.screens import reference_screen


@pytest.fixture(scope="module", params=["synth_a", "synth_b"])
def run(request):
    screen, expected = reference_screen(request.param)
    return screen, prepare_crt_inputs(screen), expected


def test_design_and_outcome(run):
    _, inputs, expected = run
    assert inputs.covar_cols == tuple(expected["covar_cols"])
    assert inputs.dropped_covariates == ()
    np.testing.assert_allclose(inputs.C, expected["C"], rtol=1e-9, atol=1e-12)
    assert inputs.eps == pytest.approx(float(expected["eps"]), rel=1e-12)
    np.testing.assert_allclose(inputs.Y[:50], expected["Y_first"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(inputs.Y.mean(axis=0), expected["Y_colmean"], rtol=1e-9)
    np.testing.assert_allclose(inputs.Y.std(axis=0), expected["Y_sd"], rtol=1e-9)
    scale = np.abs(expected["A"]).max()
    np.testing.assert_allclose(inputs.A, expected["A"], rtol=1e-8, atol=1e-8 * scale)
    scale = np.abs(expected["CTY"]).max()
    np.testing.assert_allclose(inputs.CTY, expected["CTY"], rtol=1e-9, atol=1e-12 * scale)


def test_effects(run):
    _, inputs, expected = run
    assert inputs.units == tuple(expected["genes"])
    found = ols_statistics(inputs.residuals, inputs.basis, inputs.treated_matrix())
    np.testing.assert_allclose(found.beta, expected["betas"], rtol=1e-9)
    np.testing.assert_allclose(found.denominator, expected["denom"], rtol=1e-9)
    np.testing.assert_array_equal(found.n_treated, expected["n_treated"])


def test_burden(run):
    screen, inputs, expected = run
    burden = compute_guide_burden(
        screen.obsm["guide_assignment"],
        guide_names=inputs.guide_names,
        guide2gene=inputs.guide2gene,
        ntc_labels=["NTC"],
        include_ntc=False,
    )
    np.testing.assert_allclose(burden, expected["burden"], rtol=1e-12)
