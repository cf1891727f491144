"""Tridiagonal reductions against dense algebra."""

import pickle

import numpy as np
import pytest

from plait.numerics.tridiagonal import Tridiagonal


def relationships(random, n, rank):
    factors = random.normal(size=(n, rank))
    return factors @ factors.T / rank


@pytest.mark.parametrize("n", [3, 4, 128, 129, 130, 300])
def test_the_reduction(n):
    random = np.random.default_rng(n)
    matrix = relationships(random, n, 2 * n)
    reduced = Tridiagonal.of(matrix)
    rotation = reduced.rotated_back(np.eye(n))
    between = np.diag(reduced.off_diagonal, 1)
    T = np.diag(reduced.diagonal) + between + between.T
    np.testing.assert_allclose(rotation @ T @ rotation.T, matrix, atol=1e-12)
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(n), atol=1e-13)
    some = random.normal(size=(n, 3))
    np.testing.assert_allclose(reduced.rotated(some), rotation.T @ some, atol=1e-12)
    np.testing.assert_allclose(reduced.rotated(some[:, 0]), rotation.T @ some[:, 0], atol=1e-12)
    pivots, below = reduced.factor(0.7, 0.3)
    L = np.eye(n) + np.diag(below, -1)
    np.testing.assert_allclose(L * pivots @ L.T, 0.7 * T + 0.3 * np.eye(n), atol=1e-12)


def test_leading_eigenvectors():
    random = np.random.default_rng(1)
    matrix = relationships(random, 200, 30)
    reduced = Tridiagonal.of(matrix)
    values, vectors = reduced.leading(12)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix)[::-1][:12], rtol=1e-10)
    vectors = reduced.rotated_back(vectors)
    np.testing.assert_allclose(matrix @ vectors, vectors * values, atol=1e-10)
    assert reduced.leading(0)[1].shape == (200, 0)


def test_eigenvalues_below_zero_are_lifted():
    random = np.random.default_rng(3)
    matrix = relationships(random, 60, 20) - 1e-6 * np.eye(60)
    reduced = Tridiagonal.of(matrix)
    assert reduced.lifted == pytest.approx(1e-6, rel=1e-6)
    pivots, _ = reduced.factor(1 - 1e-6, 1e-6)
    assert (pivots > 0).all()


def test_another_process_gets_the_same_bits():
    random = np.random.default_rng(4)
    reduced = Tridiagonal.of(relationships(random, 301, 200))
    sent = pickle.loads(pickle.dumps(reduced))
    for columns in (random.normal(size=301), random.normal(size=(301, 7))):
        np.testing.assert_array_equal(sent.rotated(columns), reduced.rotated(columns))
