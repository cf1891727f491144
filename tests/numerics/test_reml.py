"""Restricted maximum likelihood against dense algebra."""

import numpy as np
import pytest
from scipy import optimize

from plait.numerics.reml import RestrictedModel


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(5)
    n = 140
    factors = random.normal(size=(n, 60))
    K = factors @ factors.T / 60
    X = np.column_stack([np.ones(n), random.normal(size=(n, 3))])
    Y = np.linalg.cholesky(0.5 * K + 0.5 * np.eye(n)) @ random.normal(size=(n, 3))
    return K, X, Y, random.normal(size=n)


def dense(y, X, V):
    """Twice the negative log-likelihood without constants, and the last column's slope, error."""
    inverse = np.linalg.inv(V)
    gram = X.T @ inverse @ X
    slopes = np.linalg.solve(gram, X.T @ inverse @ y)
    left = y - X @ slopes
    n = len(y) - X.shape[1]
    squares = left @ inverse @ left
    value = n * np.log(squares) + np.linalg.slogdet(V)[1] + np.linalg.slogdet(gram)[1]
    return value, slopes[-1], np.sqrt(squares / n * np.linalg.inv(gram)[-1, -1])


def covariance(K, h2):
    return h2 * K + (1 - h2) * np.eye(len(K))


def test_likelihoods(data):
    K, X, Y, _ = data
    model = RestrictedModel.of(K, np.linalg.qr(X)[0], Y)
    n = len(Y) - X.shape[1]
    constant = n * (1 + np.log(2 * np.pi / n)) - np.linalg.slogdet(X.T @ X)[1]
    for h2 in (0.0, 0.3, 0.99, 1 - 1e-6):
        for t in range(3):
            direct = -0.5 * (dense(Y[:, t], X, covariance(K, h2))[0] + constant)
            assert model.log_likelihood(h2)[t] == pytest.approx(direct, abs=1e-7)


def test_maxima(data):
    K, X, Y, _ = data
    fit = RestrictedModel.of(K, np.linalg.qr(X)[0], Y).fit()
    for t in range(3):
        found = optimize.minimize_scalar(
            lambda h2, t=t: dense(Y[:, t], X, covariance(K, h2))[0],
            bounds=(max(fit.h2[t] - 0.05, 0), min(fit.h2[t] + 0.05, 1)),
            method="bounded",
            options={"xatol": 1e-10},
        )
        assert fit.h2[t] == pytest.approx(found.x, abs=1e-6)


def test_one_more_regressor(data):
    K, X, Y, g = data
    basis = np.linalg.qr(X)[0]
    model = RestrictedModel.of(K, basis, Y)
    rotated = model.relationships.rotated(g - basis @ (basis.T @ g))
    design = np.column_stack([X, g])
    for h2 in (0.0, 0.4, 0.9):
        _, slope, error = dense(Y[:, 1], design, covariance(K, h2))
        assert model.regression(rotated, 1, h2) == pytest.approx((slope, error), rel=1e-9)
    for start in (0.02, 0.5, 0.95):
        found = model.share_beside(rotated, 1, start)
        direct = optimize.minimize_scalar(
            lambda h2: dense(Y[:, 1], design, covariance(K, h2))[0],
            bounds=(0.2, 0.95),
            method="bounded",
            options={"xatol": 1e-9},
        )
        assert found == pytest.approx(direct.x, abs=1e-5)


def test_without_relationships_it_is_ordinary_regression(data):
    _, X, Y, g = data
    basis = np.linalg.qr(X)[0]
    model = RestrictedModel.of(np.eye(len(Y)), basis, Y)
    rotated = model.relationships.rotated(g - basis @ (basis.T @ g))
    _, slope, error = dense(Y[:, 0], np.column_stack([X, g]), np.eye(len(Y)))
    for h2 in (0.0, 0.6):
        assert model.regression(rotated, 0, h2) == pytest.approx((slope, error), rel=1e-9)
