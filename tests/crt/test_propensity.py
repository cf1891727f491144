import functools
import warnings

import numpy as np
import pytest
from scipy import optimize, sparse
from statsmodels.discrete.discrete_model import Logit

from plait.crt.logistic import WIDTH
from plait.crt.propensity import (
    UNITS_PER_BLOCK,
    PropensityDesign,
    evaluate_propensity_model,
    fit_propensities,
    fit_propensity_logistic,
    propensity_blocks,
    units_per_block,
)
from plait.errors import (
    ConvergenceWarning,
    InputError,
    InputTypeError,
    ModelWarning,
    OptionError,
    ShapeError,
)
from tests.crt.cases import random_screen, reference_screen
from tests.reference_files import load

SCREENS = ["synth_a", "synth_b"]


def linear_predictor(fit, design):
    return fit.intercepts + design @ fit.coefficients


def objective(eta, treated, coefficients, C_value=1.0):
    """Return each unit's penalised objective."""
    loss = (np.logaddexp(0, eta) - treated * eta).sum(axis=0)
    return loss + 0.5 * (coefficients**2).sum(axis=0) / C_value


def treated_cells(probabilities, n_units, seed=0):
    draws = np.random.default_rng(seed).random((len(probabilities), n_units))
    return sparse.csc_array((draws < probabilities[:, None]).astype(float))


@pytest.mark.parametrize("name", SCREENS)
def test_fits_are_optima(name):
    """The facts of the optimum: no gradient, and the mean propensity is the treated share."""
    screen = reference_screen(name)
    fit = fit_propensities(screen.design, screen.treated)
    treated = screen.treated.toarray()
    assert fit.converged.all()
    assert fit.iterations.max() <= 13
    unclipped = 1 / (1 + np.exp(-linear_predictor(fit, screen.design)))
    np.testing.assert_allclose(unclipped.mean(axis=0), treated.mean(axis=0), rtol=0, atol=1e-10)
    gradient = screen.design.T @ (unclipped - treated) + fit.coefficients
    assert np.abs(gradient).max() < 1e-8
    assert np.abs((unclipped - treated).sum(axis=0)).max() < 1e-8
    np.testing.assert_array_equal(fit.coefficients[0], 0)  # the column of ones
    np.testing.assert_allclose(fit.probabilities, np.clip(unclipped, 1e-6, 1 - 1e-6), rtol=1e-12)


def test_a_design_made_once_fits_the_same():
    screen = reference_screen("synth_b")
    plain = fit_propensities(screen.design, screen.treated)
    design = PropensityDesign.of(screen.design)
    for units in (slice(0, 3), slice(3, None)):
        fit = fit_propensities(design, screen.treated[:, units])
        np.testing.assert_array_equal(fit.probabilities, plain.probabilities[:, units])
        np.testing.assert_array_equal(fit.coefficients, plain.coefficients[:, units])
    with pytest.raises(ShapeError, match="a matrix with a row for each cell"):
        PropensityDesign.of(screen.design[:, 0])


@pytest.mark.parametrize("name", SCREENS)
def test_objective_is_not_above_programdes(name):
    """programDE's propensities give its linear predictor, and that its coefficients."""
    screen = reference_screen(name)
    theirs = screen.known["propensity"]
    n = theirs.shape[1]
    fit = fit_propensities(screen.design, screen.treated[:, :n])
    treated = screen.treated[:, :n].toarray()
    inside = (theirs > 1e-6) & (theirs < 1 - 1e-6)
    for j in range(n):
        rows = inside[:, j]
        eta = np.log(theirs[rows, j] / (1 - theirs[rows, j]))
        coefficients = np.linalg.lstsq(screen.design[rows], eta, rcond=None)[0]
        eta = screen.design @ coefficients
        # The constant is theirs to split between intercept and column of ones: at best all free.
        peer = objective(eta, treated[:, j], coefficients[1:])
        eta = linear_predictor(fit, screen.design)[:, j]
        assert objective(eta, treated[:, j], fit.coefficients[:, j]) <= peer


def test_fits_match_the_stored_optimum():
    """Except units 3, 11 and 13, whose stored values are no optimum (the reference's README)."""
    screen, known = reference_screen("synth_a"), load("crt/synth_a", "oracle.npz")
    fit = fit_propensities(screen.design, screen.treated)
    good = np.setdiff1d(np.arange(len(screen.genes)), [3, 11, 13])
    np.testing.assert_allclose(
        fit.probabilities[:, good], known["propensity_optimum"][:, good], rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("C_value", [0.01, 1.0, 50.0])
def test_no_lower_objective_is_found(C_value):
    screen = random_screen(n_cells=300, n_covariates=3)
    treated = treated_cells(screen.probabilities, 2)
    fit = fit_propensities(screen.design, treated, C_value=C_value)
    for j in range(2):
        y = treated[:, [j]].toarray()[:, 0]

        def value(b, y=y):
            return objective(b[0] + screen.design @ b[1:], y, b[1:], C_value)

        found = optimize.minimize(value, np.zeros(5), method="BFGS", options={"gtol": 1e-7})
        ours = np.append(fit.intercepts[j], fit.coefficients[:, j])
        assert value(ours) <= found.fun + 1e-10
        np.testing.assert_allclose(ours, found.x, atol=1e-4)


def test_without_penalty_it_is_maximum_likelihood():
    screen = random_screen(n_cells=500, n_covariates=3)
    treated = treated_cells(screen.probabilities, 3)
    fit = fit_propensities(screen.design, treated, C_value=np.inf)
    score = screen.design.T @ (fit.probabilities - treated.toarray())
    assert np.abs(score).max() < 1e-8
    assert not fit.separated.any()


def test_separated_units_fall_back_to_the_penalty():
    screen = random_screen(n_cells=400)
    level = np.zeros(400)
    level[:15] = 1
    design = np.column_stack([screen.design, (level - level.mean()) / level.std()])
    treated = treated_cells(screen.probabilities, 3).toarray()
    treated[:15, 1] = 0  # a level without a treated cell: its coefficient has no end
    treated[:15, 2] = 1
    treated[[0, 1], 0] = [1, 0]
    treated = sparse.csc_array(treated)
    with pytest.warns(ModelWarning, match=r"of units 'B', 'C'; .* C_value=1"):
        fit = fit_propensities(design, treated, names=["A", "B", "C"], C_value=np.inf)
    np.testing.assert_array_equal(fit.separated, [False, True, True])
    assert fit.converged.all()
    penalised = fit_propensities(design, treated)
    np.testing.assert_array_equal(fit.probabilities[:, 1:], penalised.probabilities[:, 1:])


@pytest.mark.parametrize("noise", [1.0, 1e-3])
def test_without_penalty_it_is_the_fit_of_statsmodels(noise):
    """Also where a covariate is nearly another, so that the Hessian is nearly singular."""
    screen = random_screen(n_cells=800, n_covariates=3)
    random = np.random.default_rng(5)
    design = np.column_stack([screen.design, screen.design[:, 1] + noise * random.normal(size=800)])
    treated = treated_cells(screen.probabilities, 3)
    fit = fit_propensities(design, treated, C_value=np.inf)
    assert fit.converged.all()
    assert not fit.separated.any()
    for j in range(3):
        model = Logit(treated[:, [j]].toarray()[:, 0], design)
        known = model.fit(method="newton", tol=1e-9, disp=False)
        assert known.mle_retvals["converged"]
        np.testing.assert_allclose(fit.coefficients[1:, j], known.params[1:], rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(fit.probabilities[:, j], known.predict(), rtol=1e-9)


def test_a_singular_design_without_penalty_falls_back_to_it():
    """A covariate that is another: no minimum is the only one."""
    screen = random_screen(n_cells=400, n_covariates=3)
    design = np.column_stack([screen.design, screen.design[:, 1]])
    treated = treated_cells(screen.probabilities, 2)
    with pytest.warns(ModelWarning, match=r"of units 'A', 'B'; .* C_value=1"):
        fit = fit_propensities(design, treated, names=["A", "B"], C_value=np.inf)
    assert fit.converged.all()
    np.testing.assert_allclose(fit.coefficients[1], fit.coefficients[-1], rtol=1e-9)
    penalised = fit_propensities(design, treated)
    np.testing.assert_array_equal(fit.probabilities, penalised.probabilities)


def test_bits_do_not_depend_on_the_other_units():
    screen = random_screen(n_cells=2500, n_covariates=6)
    treated = treated_cells(screen.probabilities, 2 * UNITS_PER_BLOCK + 3)
    together = fit_propensities(screen.design, treated)
    for chosen in ([0], [34], [5, 20], list(range(34, -1, -1)), list(range(3, 20))):
        some = fit_propensities(screen.design, treated[:, chosen])
        np.testing.assert_array_equal(some.probabilities, together.probabilities[:, chosen])
        np.testing.assert_array_equal(some.iterations, together.iterations[chosen])


def test_units_of_no_or_all_cells_are_constant():
    screen = random_screen(n_cells=50)
    treated = sparse.csc_array(np.column_stack([np.zeros(50), np.ones(50), np.arange(50) % 2]))
    fit = fit_propensities(screen.design, treated)
    np.testing.assert_array_equal(fit.probabilities[:, 0], 1e-6)
    np.testing.assert_array_equal(fit.probabilities[:, 1], 1 - 1e-6)
    np.testing.assert_array_equal(fit.intercepts[:2], [-np.inf, np.inf])
    assert fit.converged.all()


def test_a_design_of_ones_gives_the_share():
    treated = sparse.csc_array((np.arange(40) < 7).astype(float)[:, None])
    for design in (np.ones((40, 1)), np.empty((40, 0))):
        fit = fit_propensities(design, treated)
        np.testing.assert_allclose(fit.probabilities, 7 / 40, rtol=1e-12)


def test_iterations_that_run_out_are_said():
    screen = random_screen()
    treated = treated_cells(screen.probabilities, 7)
    with pytest.warns(ConvergenceWarning, match=r"of units '0', .* and 2 more did not converge"):
        fit = fit_propensities(screen.design, treated, max_iterations=1)
    assert not fit.converged.any()
    assert np.isfinite(fit.probabilities).all()


def test_the_door_of_programde():
    screen = random_screen()
    y = treated_cells(screen.probabilities, 1).toarray()[:, 0]
    p, model = fit_propensity_logistic(screen.design, y, n_jobs=4, solver="lbfgs")
    expected = fit_propensities(screen.design, sparse.csc_array(y[:, None]))
    np.testing.assert_array_equal(p, expected.probabilities[:, 0])
    eta = model.intercept + screen.design @ model.coefficients
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-eta)), rtol=1e-12)
    assert model.converged
    assert model.iterations == expected.iterations[0]
    unpenalised = fit_propensity_logistic(screen.design, y, penalty=None)[0]
    np.testing.assert_array_equal(
        unpenalised, fit_propensity_logistic(screen.design, y, C_value=np.inf)[0]
    )
    with pytest.raises(InputTypeError, match=r"unknown options .*: l1_ratio"):
        fit_propensity_logistic(screen.design, y, l1_ratio=0.5)
    with pytest.raises(OptionError, match="'l1'"):
        fit_propensity_logistic(screen.design, y, penalty="l1")
    with pytest.raises(InputError, match="zeros and ones"):
        fit_propensity_logistic(screen.design, y + 1)


def collected(model, screen, treated):
    names = [f"unit{j}" for j in range(treated.shape[1])]
    result = np.full(treated.shape, np.nan)
    for units, found in propensity_blocks(model, screen.design, treated, names):
        assert found.shape[1] <= UNITS_PER_BLOCK
        result[:, units] = found
    return result


def test_many_cells_have_few_units_together():
    held = [units_per_block(n_cells) for n_cells in (1, 50_000, 100_000, 10**6)]
    assert held == [UNITS_PER_BLOCK, UNITS_PER_BLOCK, 20, WIDTH]


def test_every_kind_of_model_gives_blocks():
    screen = random_screen()
    treated = treated_cells(screen.probabilities, UNITS_PER_BLOCK + 4)
    fitted = collected(fit_propensity_logistic, screen, treated)
    np.testing.assert_array_equal(fitted, fit_propensities(screen.design, treated).probabilities)
    # A function may return the propensities alone or with a model.
    for model in (
        functools.partial(fit_propensity_logistic, C_value=1.0),
        lambda C, y: fit_propensity_logistic(C, y)[0],
    ):
        np.testing.assert_array_equal(collected(model, screen, treated), fitted)
    np.testing.assert_array_equal(collected(fitted, screen, treated), fitted)
    constant = collected("const", screen, treated)
    np.testing.assert_allclose(
        constant, np.broadcast_to(treated.toarray().mean(axis=0), treated.shape)
    )


def test_a_model_returns_propensities_alone_or_with_itself():
    for model in (lambda C, y: y, lambda C, y: (y, "model")):
        np.testing.assert_array_equal(
            evaluate_propensity_model(model, np.ones((2, 1)), np.array([0.0, 1.0])), [0, 1]
        )


def test_unusable_input_is_refused():
    screen = random_screen(n_cells=20)
    treated = treated_cells(np.full(20, 0.5), 2)
    for options in ({"C_value": 0.0}, {"C_value": np.nan}):
        with pytest.raises(OptionError, match="C_value is"):
            fit_propensities(screen.design, treated, **options)
    for options in ({"tolerance": 0.0}, {"max_iterations": 0}):
        with pytest.raises(OptionError, match="must be positive"):
            fit_propensities(screen.design, treated, **options)
    with pytest.raises(ShapeError, match=r"\(19, 3\)"):
        fit_propensities(screen.design[1:], treated)
    with pytest.raises(InputError, match=r"1 column .*column 1"):
        fit_propensities(np.where(np.arange(3) == 1, np.nan, screen.design), treated)
    with pytest.raises(InputError, match="zeros and ones"):
        fit_propensities(screen.design, 2 * treated)
    with pytest.raises(OptionError, match="'probit'"):
        collected("probit", screen, treated)
    with pytest.raises(ShapeError, match=r"\(20, 3\).*20 cells x 2 units"):
        collected(np.full((20, 3), 0.5), screen, treated)
    with pytest.raises(InputError, match=r"unit 'unit0': propensities are not .* in 20 cells"):
        collected(lambda C, y: np.full(len(y), np.nan), screen, treated)
    with pytest.raises(ShapeError, match="unit 'unit0' has 3 propensities for 20"):
        collected(lambda C, y: np.full(3, 0.5), screen, treated)


def test_rare_treatments_do_not_run_off():
    """Undamped Newton steps overshoot to a singular Hessian with many indicators."""
    random = np.random.default_rng(8)
    levels = np.eye(30)[random.integers(0, 30, 900)][:, 1:]
    design = np.column_stack([np.ones(900), (levels - levels.mean(0)) / levels.std(0)])
    treated = sparse.csc_array((random.random((900, 12)) < 0.01).astype(float))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = fit_propensities(design, treated)
    gradient = design.T @ (fit.probabilities - treated.toarray()) + fit.coefficients
    assert np.abs(gradient).max() < 1e-7


def test_compiled_loops_have_room_for_all_that_is_fitted_together():
    from plait.crt import logistic, logistic_kernels

    assert logistic_kernels.WIDTH == logistic.WIDTH
    assert logistic_kernels.TILE == logistic.TILE
