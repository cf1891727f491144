"""Lanczos iterations against dense algebra."""

import pickle

import numpy as np
import pytest

from plait.numerics.krylov import KrylovSpaces, ProjectedMatrix, Quadrature, multiplied

SHARES = np.array([0.0, 0.2, 0.6, 0.9])


@pytest.fixture(scope="module")
def spread():
    """A matrix with three outlying eigenvalues, what is left of it by covariates, and its parts."""
    random = np.random.default_rng(1)
    n = 300
    factors = random.normal(size=(n, 700))
    factors[:, :3] *= 8.0
    K = (factors @ factors.T / 700).astype(np.float32)
    K = np.tril(K) + np.tril(K, -1).T
    basis = np.linalg.qr(np.column_stack([np.ones(n), random.normal(size=(n, 4))]))[0]
    M = np.eye(n) - basis @ basis.T
    A = M @ K.astype(np.float64) @ M
    return ProjectedMatrix(K, basis), K.astype(np.float64), A, M


def resolvent(A, h2):
    return np.linalg.inv(h2 * A + (1 - h2) * np.eye(len(A)))


def test_products_and_moments(spread):
    matrix, _, A, _ = spread
    columns = matrix.project(np.random.default_rng(2).normal(size=(300, 7)))
    np.testing.assert_allclose(matrix.times(columns), A @ columns, atol=1e-12)
    single = matrix.times(columns.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, A @ columns, atol=2e-4)
    np.testing.assert_allclose(matrix.moments(), (np.trace(A), np.trace(A @ A)), rtol=1e-6)
    assert matrix.df == 295


def test_solutions_at_any_share(spread):
    matrix, _, A, _ = spread
    y = matrix.project(np.random.default_rng(3).normal(size=(300, 3)))
    spaces = KrylovSpaces(y)
    times = matrix.times
    for h2 in SHARES:
        assert spaces.reach(times, np.full(3, h2), 1e-10, 80)
    steps = len(spaces.vectors)
    sent = pickle.loads(pickle.dumps(spaces))
    for h2 in SHARES:
        assert (spaces.residuals(np.full(3, h2)) <= 1e-10).all()
        for t in range(3):
            solved = spaces.solution(h2, t)
            left = h2 * A @ solved + (1 - h2) * solved - y[:, t]
            assert np.linalg.norm(left) < 2e-10 * np.linalg.norm(y[:, t])
            np.testing.assert_allclose(solved, resolvent(A, h2) @ y[:, t], atol=1e-8)
            np.testing.assert_array_equal(sent.solution(h2, t), solved)
            expected = y[:, t] @ resolvent(A, h2) @ y[:, t]
            assert spaces.lengths[t] * spaces.coefficients(h2, t)[0] == pytest.approx(expected)
    assert len(spaces.vectors) == steps
    assert not spaces.reach(times, np.full(3, 1 - 1e-9), 1e-14, steps + 3)


@pytest.mark.parametrize(
    ("precision", "tolerance", "error"), [(4, 1e-4, 5e-4), (4, 3e-6, 1.5e-5), (8, 1e-11, 5e-11)]
)
def test_forms(spread, precision, tolerance, error):
    matrix, _, A, _ = spread
    columns = matrix.project(np.random.default_rng(4).normal(size=(300, 5)))
    columns[:, 2] = 0.0
    times = matrix.times
    found = Quadrature.of(times, columns.astype(f"f{precision}"), SHARES, tolerance, 60)
    assert found.converged
    forms = found.forms(SHARES)
    nodes, weights = found.nodes()
    for s, h2 in enumerate(SHARES):
        expected = np.einsum("ij,ik,kj->j", columns, resolvent(A, h2), columns)
        np.testing.assert_allclose(forms[:, s], expected, rtol=error)
        by_nodes = (weights / (h2 * nodes + 1 - h2)).sum(axis=1)
        np.testing.assert_allclose(by_nodes, forms[:, s], rtol=1e-9)
    assert not Quadrature.of(times, columns.astype(f"f{precision}"), SHARES, tolerance, 3).converged


def test_forms_do_not_depend_on_company(spread):
    """Each vector has steps of its own."""
    matrix, K, _, _ = spread
    random = np.random.default_rng(5)
    columns = matrix.project(random.normal(size=(300, 8)))
    others = matrix.project(random.normal(size=(300, 8)))
    others[:, 4] = columns[:, 3]
    others[:, 5] = np.linalg.eigh(K)[1][:, -1]
    found = [
        Quadrature.of(matrix.times, given.astype(np.float32), SHARES, 1e-4, 60)
        for given in (columns, others, columns[:, 3:4])
    ]
    expected = found[0].forms(SHARES)[3]
    for forms in (found[1].forms(SHARES)[4], found[2].forms(SHARES)[0]):
        np.testing.assert_array_equal(forms, expected)
    np.testing.assert_array_equal(found[0].of_vector(3).forms(SHARES)[0], expected)


@pytest.mark.parametrize(("of_matrix", "of_columns"), [("f4", "f4"), ("f4", "f8"), ("f8", "f8")])
def test_products_of_rows_and_columns(of_matrix, of_columns):
    """Against BLAS, and the same bits whatever the rows and columns that are beside them."""
    random = np.random.default_rng(6)
    matrix = random.normal(size=(37, 613)).astype(of_matrix)
    columns = random.normal(size=(613, 19)).astype(of_columns)
    found = multiplied(matrix, columns)
    assert found.dtype == of_columns
    whole, others = matrix.astype(float), columns.astype(float)
    bound = 613 * np.finfo(of_columns).eps * (np.abs(whole) @ np.abs(others))
    assert (np.abs(found - whole @ others) < bound).all()
    for rows in (slice(0, 1), slice(5, 37), slice(36, 37)):
        for which in (slice(0, 1), slice(2, 18), slice(18, 19)):
            part = multiplied(matrix[rows], columns[:, which])
            np.testing.assert_array_equal(part, found[rows, which])
    assert multiplied(matrix[:0], columns).shape == (0, 19)
    assert multiplied(matrix, columns[:, :0]).shape == (37, 0)


def test_few_eigenvalues():
    """The iteration ends by itself: relationships of unrelated samples, and of two groups."""
    basis = np.full((100, 1), 0.1)
    y = ProjectedMatrix(np.eye(100, dtype=np.float32), basis).project(
        np.random.default_rng(6).normal(size=(100, 2))
    )
    group = (np.arange(100) % 2)[:, None] == np.arange(100) % 2
    for K in (np.eye(100), np.eye(100) + 0.5 * group):
        matrix = ProjectedMatrix(K.astype(np.float32), basis)
        A = matrix.times(np.eye(100) - 0.01)
        spaces = KrylovSpaces(y)
        assert spaces.reach(matrix.times, np.full(2, 0.7), 1e-10, 20)
        assert len(spaces.vectors) <= 3
        expected = resolvent(A, 0.7) @ y
        np.testing.assert_allclose(spaces.solution(0.7, 1), expected[:, 1], atol=1e-9)


def test_leading(spread):
    matrix, _, A, M = spread
    expected = np.linalg.eigh(A)
    values, vectors = matrix.leading(3)
    np.testing.assert_allclose(values, expected[0][::-1][:3], rtol=1e-3)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(M @ vectors, vectors, atol=1e-12)
    apart = np.abs(vectors.T @ expected[1][:, ::-1][:, :3])
    np.testing.assert_allclose(np.linalg.svd(apart)[1], 1.0, atol=1e-3)
    assert matrix.leading(0)[1].shape == (300, 0)
