"""The regression and the score statistic of a gene, against independent computations."""

import numpy as np
import pytest
from scipy import optimize, special
from scipy.sparse import csc_array

from plait.crt.gene_design import GeneDesign
from plait.crt.negative_binomial import fit_gene, score_statistics
from plait.crt.negative_binomial_kernels import _log_totals
from plait.errors import InputError, ShapeError
from tests.crt.gene_cases import coefficients_of_columns


def case(seed=0, n=400, mean=1.5, theta=2.0):
    random = np.random.default_rng(seed)
    x = np.column_stack([np.ones(n), 5 + 0.5 * random.standard_normal(n), random.integers(0, 2, n)])
    mu = mean * np.exp(0.6 * (x[:, 1] - 5) - 0.4 * x[:, 2])
    return x, random.poisson(mu * random.gamma(theta, 1 / theta, n)).astype(float)


def design_of(x):
    return GeneDesign.of([f"x{i}" for i in range(x.shape[1])], x)


@pytest.mark.parametrize("seed", range(3))
def test_poisson_regression_agrees_with_statsmodels(seed):
    import statsmodels.api as sm

    x, y = case(seed)
    design = design_of(x)
    fit = fit_gene(design.rows, y)
    expected = sm.GLM(y, x, family=sm.families.Poisson()).fit(tol=1e-12)
    np.testing.assert_allclose(
        coefficients_of_columns(fit, x), expected.params, rtol=1e-6, atol=1e-7
    )
    np.testing.assert_allclose(fit.mean, expected.fittedvalues, rtol=1e-6)
    assert fit.converged


def test_theta_maximises_the_likelihood():
    x, y = case(4, n=2000)
    fit = fit_gene(design_of(x).rows, y)

    def loss(log_theta):
        t = np.exp(log_theta)
        return -np.sum(
            special.gammaln(t + y)
            - special.gammaln(t)
            + t * np.log(t / (t + fit.mean))
            + y * np.log(fit.mean / (t + fit.mean))
        )

    best = optimize.minimize_scalar(loss, bounds=(-3, 5), method="bounded", options={"xatol": 1e-9})
    assert fit.theta == pytest.approx(np.exp(best.x), rel=1e-4)
    assert 1.5 < fit.theta < 2.7


def test_theta_without_a_maximum():
    """Counts that vary less than Poisson ones have no theta; sceptre's first guess is taken."""
    random = np.random.default_rng(5)
    x = np.ones((600, 1))
    regular = random.binomial(20, 0.5, 600).astype(float)
    guess = 600 / np.sum((regular / regular.mean() - 1) ** 2)
    assert fit_gene(design_of(x).rows, regular).theta == pytest.approx(guess)


def test_theta_stays_within_bounds():
    x, rare = np.ones((600, 1)), np.zeros(600)
    rare[:3] = 5000.0
    assert fit_gene(design_of(x).rows, rare).theta == 0.01
    almost_constant = np.full(600, 5000.0)
    almost_constant[0] = 5001.0
    assert fit_gene(design_of(x).rows, almost_constant).theta == 1000.0


def test_statistic_by_matrices():
    """z is the efficient score of the treatment over the root of its information."""
    x, y = case(6)
    fit = fit_gene(design_of(x).rows, y)
    random = np.random.default_rng(7)
    treated = (random.random((len(y), 5)) < 0.2).astype(np.int8)
    found = score_statistics(fit, csc_array(treated))
    w = fit.mean / (1 + fit.mean / fit.theta)
    a = (y - fit.mean) / (1 + fit.mean / fit.theta)
    for j in range(5):
        t = treated[:, j].astype(float)
        inner = np.linalg.solve(x.T * w @ x, x.T @ (w * t))
        information = t @ (w * t) - (x.T @ (w * t)) @ inner
        assert found.z[j] == pytest.approx(a @ t / np.sqrt(information), rel=1e-9)
        fold = y @ t / (fit.mean @ t)
        assert found.fold_change[j] == pytest.approx(fold, rel=1e-12)
        error = np.sqrt(np.sum((t * (y - fold * fit.mean)) ** 2)) / (fit.mean @ t)
        assert found.se_fold_change[j] == pytest.approx(error, rel=1e-12)


def test_a_treatment_that_the_covariates_determine_has_no_statistic():
    x, y = case(8)
    fit = fit_gene(design_of(x).rows, y)
    found = score_statistics(fit, csc_array(x[:, [2]].astype(np.int8)))
    assert np.isnan(found.z[0])


def test_columns_that_others_determine_among_some_cells_are_left_out():
    x, y = case(9)
    design = design_of(x)
    cells = np.flatnonzero(x[:, 2] == 1)  # there the third column is constant
    fit = fit_gene(design.rows[:, cells], y[cells])
    alone = fit_gene(design_of(x[cells][:, :2]).rows, y[cells])
    np.testing.assert_allclose(fit.mean, alone.mean, rtol=1e-6)
    assert fit.theta == pytest.approx(alone.theta, rel=1e-6)
    treated = csc_array((np.arange(len(cells)) % 3 == 0).astype(np.int8)[:, None])
    assert score_statistics(fit, treated).z[0] == pytest.approx(
        score_statistics(alone, treated).z[0], rel=1e-6
    )


def test_errors():
    x, y = case()
    rows = design_of(x).rows
    with pytest.raises(ShapeError, match="the design has shape"):
        fit_gene(rows, y[:-1])
    with pytest.raises(InputError, match="all counts of the gene are 0"):
        fit_gene(rows, np.zeros_like(y))


@pytest.mark.parametrize(("n_treated", "n_controls"), [(40, 500), (200, 200), (500, 50)])
def test_fold_changes_are_those_among_cells_of_which_treated_ones_are_a_part(n_treated, n_controls):
    random = np.random.default_rng(n_treated)
    n = n_treated + n_controls
    is_treated = np.arange(n) < n_treated
    y = random.poisson(np.where(is_treated, 0.8, 4.0)).astype(float)
    fit = fit_gene(np.ones((1, n)), y)
    found = score_statistics(fit, csc_array(is_treated[:, None].astype(np.int8)))
    share, change = n_treated / n, y[is_treated].mean() / y[~is_treated].mean()
    expected = change / (1 - share + share * change)
    np.testing.assert_allclose(found.fold_change, expected, rtol=1e-9)


@pytest.mark.parametrize("theta", [1e-150, 1e-3, 0.5, 40.0, 1e9])
@pytest.mark.parametrize("scale", [0.0, 1e-8, 1.0, 1e5, 1e150])
def test_logarithms_of_products_are_sums_of_logarithms(theta, scale):
    mu = scale * np.random.default_rng(1).exponential(size=1500)
    found, expected = _log_totals(mu, mu.max(), theta), np.log1p(mu / theta).sum()
    assert found == pytest.approx(expected, rel=1e-13, abs=1500 * np.finfo(float).eps)
