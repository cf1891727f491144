import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plait.errors import ConvergenceWarning, InputError, OptionError, ShapeError
from plait.numerics.mixsqp import mixsqp, optimize_pi
from plait.numerics.mixture_weights import fit_mixture_weights
from tests.reference_files import load


@pytest.mark.parametrize("name", ["ashr.binom", "ashr", "flashr", "mashr", "smashr", "tacks"])
def test_example_matrices(name):
    file = load("mash", f"i_mixsqp_{name}.npz")
    result = mixsqp(file["L"], file["w"])
    assert result.value <= float(file["best_value_noeps"]) + 1e-9
    assert result.dual_gap <= 1e-9
    assert result.status == "converged to optimal solution"
    assert result.x.sum() == pytest.approx(1)
    assert np.all(result.x >= 0)


@pytest.mark.parametrize("method", ["em", "squarem", "mixip", "slsqp", "auto"])
def test_other_methods_reach_the_optimum(method):
    file = load("mash", "i_mixsqp_ashr.npz")
    fit = fit_mixture_weights(file["L"], method=method, control={"max_iter": 5000})
    best = fit_mixture_weights(file["L"])
    assert best.converged
    assert fit.objective <= best.objective + 1e-9
    assert fit.objective >= best.objective - 1e-5


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 60),
    size=st.integers(1, 40),
    counts=st.booleans(),
)
def test_the_certificate_always_holds(seed, n, size, counts):
    random = np.random.default_rng(seed)
    logs = random.normal(size=(n, size)) * random.choice([0.01, 1, 30, 300])
    likelihoods = np.exp(logs - logs.max(axis=1, keepdims=True))
    weights = random.exponential(size=n) + 0.01
    pseudo = np.where(random.random(size) < 0.3, 5.0, 0.0) if counts else None
    fit = fit_mixture_weights(likelihoods, weights, pseudo)
    assert fit.pi.sum() == pytest.approx(1)
    assert fit.dual_gap <= 1e-8
    assert fit.converged
    # The certificate, computed again from scratch.
    gradient = likelihoods.T @ (weights / (likelihoods @ fit.pi))
    total = weights.sum()
    if pseudo is not None:
        total += pseudo.sum()
        gradient += np.divide(pseudo, fit.pi, out=np.zeros(size), where=pseudo > 0)
    assert gradient.max() / total - 1 <= 2e-8


def test_duplicated_rows_are_weights(random_matrix):
    doubled = fit_mixture_weights(np.concatenate([random_matrix, random_matrix[:10]]))
    weights = np.ones(len(random_matrix))
    weights[:10] = 2
    assert doubled.objective == pytest.approx(
        fit_mixture_weights(random_matrix, weights).objective, abs=1e-8
    )


@pytest.fixture
def random_matrix():
    return np.random.default_rng(3).random((80, 6)) + 0.01


def test_log_input_is_the_same(random_matrix):
    a, b = mixsqp(random_matrix), mixsqp(np.log(random_matrix) - 2000.0, log=True)
    np.testing.assert_allclose(a.x, b.x, atol=1e-6)
    assert b.value == pytest.approx(a.value + 2000, abs=1e-6)


def test_a_column_of_zeros_gets_no_weight(random_matrix):
    matrix = np.column_stack([random_matrix, np.zeros(80)])
    with pytest.warns(ConvergenceWarning, match="1 columns of L are zero"):
        result = mixsqp(matrix)
    assert result.x[-1] == 0


def test_one_usable_column():
    assert mixsqp(np.ones((4, 1))).status == "SQP algorithm was not run"


@pytest.mark.parametrize(
    ("matrix", "fragment"),
    [
        (np.ones(3), "2-D"),
        (np.array([[1.0, np.nan]]), "finite"),
        (np.array([[1.0, -1.0]]), "non-negative"),
        (np.array([[1.0, 1.0], [0.0, 0.0]]), "row 1"),
    ],
)
def test_bad_matrices(matrix, fragment):
    with pytest.raises(InputError, match=fragment):
        mixsqp(matrix)


def test_bad_options(random_matrix):
    with pytest.raises(OptionError, match="unknown control nonsense"):
        mixsqp(random_matrix, control={"nonsense": 1})
    with pytest.raises(OptionError, match="mixsqp"):
        fit_mixture_weights(random_matrix, method="nonsense")
    with pytest.raises(ShapeError, match="wrong length"):
        optimize_pi(random_matrix, prior=np.ones(3))
    with pytest.raises(OptionError, match="at least 1"):
        optimize_pi(random_matrix, prior=np.full(6, 0.5))
    with pytest.raises(ShapeError, match="wrong length"):
        mixsqp(random_matrix, w=np.ones(3))


def test_an_unfinished_run_says_so(random_matrix):
    with pytest.warns(ConvergenceWarning, match="dual gap"):
        result = mixsqp(random_matrix, control={"maxiter_sqp": 1, "numiter_em": 0})
    assert result.status == "exceeded maximum number of iterations"


def test_a_huge_pseudo_count_pins_its_weight(random_matrix):
    counts = np.zeros(6)
    counts[2] = 1e9
    fit = fit_mixture_weights(random_matrix, pseudo_counts=counts)
    assert fit.converged
    assert fit.pi[2] == pytest.approx(1, abs=1e-6)
