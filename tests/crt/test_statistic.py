import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csc_array

from plait.crt import ols_statistics, prepare_crt_inputs
from plait.crt.statistic import cross_product, residualize
from plait.errors import ShapeError
from tests.crt.screens import small_screen


def statistics(inputs, genes=None):
    return ols_statistics(inputs.residuals, inputs.basis, inputs.treated_matrix(genes))


def test_effects_agree_with_statsmodels():
    OLS = pytest.importorskip("statsmodels.api").OLS
    inputs = prepare_crt_inputs(small_screen())
    found = statistics(inputs)
    for j, gene in enumerate(inputs.units):
        x = np.zeros(inputs.n_cells)
        x[inputs.treated(gene)] = 1.0
        for k in range(inputs.n_programs):
            fit = OLS(inputs.Y[:, k], np.column_stack([x, inputs.C])).fit()
            assert found.beta[j, k] == pytest.approx(fit.params[0], rel=1e-10)
            assert found.se[j, k] == pytest.approx(fit.bse[0], rel=1e-10)
            assert found.t[j, k] == pytest.approx(fit.tvalues[0], rel=1e-9)
        projected = inputs.C @ inputs.A @ (inputs.C.T @ x)
        assert found.denominator[j] == pytest.approx(x @ (x - projected), rel=1e-10)


def test_with_an_intercept_alone_it_is_a_difference_of_means():
    random = np.random.default_rng(1)
    outcome = random.normal(size=(40, 3))
    x = np.arange(40) % 4 == 0
    basis = np.full((40, 1), 40**-0.5)
    found = ols_statistics(residualize(outcome, basis), basis, csc_array(x[:, None].astype(int)))
    assert found.denominator[0] == pytest.approx(10 * (1 - 10 / 40))
    np.testing.assert_allclose(found.beta[0], outcome[x].mean(axis=0) - outcome[~x].mean(axis=0))


def test_what_covariates_determine_has_no_effect():
    screen = small_screen()
    treated = screen.obsm["guide_assignment"][:, :2].any(axis=1).astype(float)
    screen.obsm["covar"] = np.column_stack([screen.obsm["covar"], treated])
    inputs = prepare_crt_inputs(screen)
    found = statistics(inputs)
    assert not found.beta[0].any() and not found.t[0].any()
    assert np.isinf(found.se[0]).all()
    assert found.denominator[0] == pytest.approx(0.0, abs=1e-12)
    assert np.isfinite(found.se[1:]).all() and found.beta[1:].all()


def test_what_covariates_determine_is_seen_among_many_cells():
    # A running sum over a million cells leaves D / n_1 of 1e-11, and effects of 1e9.
    random = np.random.default_rng(3)
    n_cells = 400_000
    half = random.random(n_cells) < 0.5
    off_by_one = half.copy()
    off_by_one[0] = not half[0]
    design = np.column_stack([np.ones(n_cells), random.normal(size=n_cells), half])
    treated = csc_array(
        np.column_stack([np.ones(n_cells), half, ~half, off_by_one]).astype(np.int8)
    )
    outcome = random.normal(size=(n_cells, 1))
    basis = np.linalg.qr(design)[0]
    found = ols_statistics(residualize(outcome, basis), basis, treated)
    assert not found.beta[:3].any() and np.isinf(found.se[:3]).all()
    # One cell that does not fit is enough for an effect: that cell's residual.
    assert found.denominator[3] == pytest.approx(1.0, abs=1e-4)
    assert np.abs(found.beta[3, 0]) == pytest.approx(
        np.abs(outcome[0, 0] - outcome[half == half[0]].mean()), rel=1e-2
    )


@pytest.mark.parametrize("everywhere", [False, True])
def test_all_or_no_cells_treated(everywhere):
    screen = small_screen()
    screen.obsm["guide_assignment"][:, :2] = everywhere
    inputs = prepare_crt_inputs(screen)
    found = statistics(inputs)
    assert found.n_treated[0] == (inputs.n_cells if everywhere else 0)
    assert not found.beta[0].any() and not np.isnan(found.se).any()


def test_a_target_does_not_depend_on_the_others():
    inputs = prepare_crt_inputs(small_screen())
    whole, alone = statistics(inputs), statistics(inputs, ["B"])
    for name in ("beta", "se", "t"):
        np.testing.assert_array_equal(getattr(alone, name)[0], getattr(whole, name)[1])
    assert alone.denominator[0] == whole.denominator[1]


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 500))
def test_the_order_of_cells_does_not_matter(seed):
    screen = small_screen(seed)
    order = np.random.default_rng(seed).permutation(60)
    shuffled = small_screen(seed)
    for name in shuffled.obsm:
        shuffled.obsm[name] = shuffled.obsm[name][order]
    one, other = (statistics(prepare_crt_inputs(which)) for which in (screen, shuffled))
    np.testing.assert_allclose(other.beta, one.beta, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(other.denominator, one.denominator, rtol=1e-10)


def test_threads_never_change_the_numbers():
    random = np.random.default_rng(2)
    values, basis = random.normal(size=(5000, 7)), np.linalg.qr(random.normal(size=(5000, 5)))[0]
    one, four = (residualize(values, basis, threads=threads) for threads in (1, 4))
    np.testing.assert_array_equal(one, four)
    np.testing.assert_allclose(one, values - basis @ (basis.T @ values), atol=1e-13)
    np.testing.assert_allclose(basis.T @ one, 0.0, atol=1e-13)
    np.testing.assert_allclose(cross_product(basis, values), basis.T @ values, atol=1e-12)


def test_numbers_of_cells_must_agree():
    with pytest.raises(ShapeError, match=r"residuals have 5 cells, the basis 6 and .* 6"):
        ols_statistics(np.ones((5, 2)), np.ones((6, 1)), csc_array(np.ones((6, 1))))


def test_residuals_are_not_copied():
    """Of a million cells and a hundred programs a copy, made for each block, would be 0.8 GB."""
    import tracemalloc

    random = np.random.default_rng(0)
    residuals = random.normal(size=(20_000, 50))
    basis = np.full((20_000, 1), 20_000**-0.5)
    treated = csc_array((random.random((20_000, 4)) < 0.01).astype(np.int8))
    ols_statistics(residuals, basis, treated)
    tracemalloc.start()
    ols_statistics(residuals, basis, treated)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < residuals.nbytes / 10
