"""Ridge regression in folds against fits to the samples themselves; stacking without a leak."""

import numpy as np
import pytest

from plait.errors import NotPositiveDefiniteError
from plait.numerics.ridge import StackedProducts, ridge_coefficients, ridge_in_folds

PENALTIES = np.array([0.5, 4.0, 300.0])


def sums_of(Z, Y, fold):
    grams = np.array([Z[fold == k].T @ Z[fold == k] for k in range(fold.max() + 1)])
    crosses = np.array([Z[fold == k].T @ Y[fold == k] for k in range(fold.max() + 1)])
    return grams, crosses


def test_coefficients_minimise_the_penalised_squares():
    random = np.random.default_rng(1)
    Z, y = random.normal(size=(30, 6)), random.normal(size=30)
    penalty = random.uniform(0.1, 5, 6)
    b = ridge_coefficients(Z.T @ Z, Z.T @ y, penalty)
    np.testing.assert_allclose(Z.T @ (y - Z @ b), penalty * b, atol=1e-12)
    both = ridge_coefficients(Z.T @ Z, np.column_stack([Z.T @ y, Z.T @ y]), penalty)
    np.testing.assert_allclose(both, np.column_stack([b, b]), atol=1e-14)


def test_what_is_given_is_not_changed():
    gram, cross = np.eye(3), np.ones((3, 2))
    ridge_coefficients(gram, cross, 1.0)
    np.testing.assert_array_equal(gram, np.eye(3))
    np.testing.assert_array_equal(cross, np.ones((3, 2)))


def test_products_that_cannot_be():
    with pytest.raises(NotPositiveDefiniteError, match="not positive definite"):
        ridge_coefficients(-np.eye(3), np.ones(3), 0.5)


def test_folds_against_fits_to_samples():
    random = np.random.default_rng(2)
    Z, Y, fold = random.normal(size=(60, 7)), random.normal(size=(60, 2)), np.arange(60) % 4
    found = ridge_in_folds(*sums_of(Z, Y, fold), PENALTIES)

    def fitted(left_out, r):
        seen = ~np.isin(fold, left_out)
        X = Z[seen]
        return np.linalg.solve(X.T @ X + PENALTIES[r] * np.eye(7), X.T @ Y[seen])

    for r in range(3):
        for k in range(4):
            mine = fold == k
            b = fitted([k], r)
            np.testing.assert_allclose(found.coefficients[k, r], b, atol=1e-12)
            held_out = np.sum(Y[mine] * (Z[mine] @ b), axis=0)
            np.testing.assert_allclose(found.held_out[k, r], held_out, atol=1e-11)
            nested, squares = np.zeros(2), np.zeros(2)
            for j in set(range(4)) - {k}:
                other = Z[fold == j] @ fitted([j, k], r)
                nested += np.sum(Y[fold == j] * other, axis=0)
                squares += np.sum(other**2, axis=0)
            np.testing.assert_allclose(found.nested[k, r], nested, atol=1e-11)
            np.testing.assert_allclose(found.nested_squares[k, r], squares, atol=1e-11)


def stacked(Z, y, fold, n_blocks, leaking=False):
    """First level on blocks of columns; ``leaking``: the second level is fitted as is published."""
    n_folds, blocks = fold.max() + 1, np.array_split(np.arange(Z.shape[1]), n_blocks)
    W = np.empty((len(y), n_blocks * len(PENALTIES)))
    sums = []
    for b, block in enumerate(blocks):
        fit = ridge_in_folds(*sums_of(Z[:, block], y[:, None], fold), PENALTIES * Z.shape[1])
        for k in range(n_folds):
            columns = slice(b * len(PENALTIES), (b + 1) * len(PENALTIES))
            W[fold == k, columns] = Z[fold == k][:, block] @ fit.coefficients[k, :, :, 0].T
        sums.append(np.array([fit.held_out, fit.nested, fit.nested_squares])[..., 0])
    held_out, nested, squares = np.concatenate(sums, axis=2)
    grams = np.array([W[fold == k].T @ W[fold == k] for k in range(n_folds)])
    if leaking:
        rest = [fold != k for k in range(n_folds)]
        nested = np.array([W[use].T @ y[use] for use in rest])
        squares = np.array([np.sum(W[use] ** 2, axis=0) for use in rest])
    kinds = np.tile(np.arange(len(PENALTIES)), n_blocks)
    return W, StackedProducts(grams, held_out, nested, squares, np.bincount(fold), kinds)


def explained(W, products, y, fold, shares):
    errors = np.zeros(len(shares))
    for k in range(fold.max() + 1):
        mine = fold == k
        b = products.coefficients(k, shares)
        found = products.squared_errors(k, b, float(y[mine] @ y[mine]))
        direct = np.sum((y[mine, None] - W[mine] @ b.T) ** 2, axis=0)
        np.testing.assert_allclose(found, direct, rtol=1e-10)
        errors += direct
    return 1 - errors / (y @ y)


def test_noise_is_not_predicted_out_of_fold():
    """Fitted to predictions that have seen the fold left out, the second level predicts noise."""
    random = np.random.default_rng(3)
    shares = np.array([0.01, 0.25, 0.5])
    honest, leaking = [], []
    for _ in range(4):
        Z, y = random.normal(size=(500, 4000)), random.normal(size=500)
        fold = np.arange(500) % 5
        W, products = stacked(Z, y, fold, 80)
        honest.append(explained(W, products, y, fold, shares).max())
        W, products = stacked(Z, y, fold, 80, leaking=True)
        leaking.append(explained(W, products, y, fold, shares).max())
    assert np.mean(honest) < 0.005
    assert np.mean(leaking) > 0.05


def test_predictions_are_found_where_there_is_something():
    """With all of the effect in one block of 20, predictions are its own."""
    random = np.random.default_rng(4)
    Z, fold = random.normal(size=(800, 400)), np.arange(800) % 5
    signal = Z[:, :20] @ random.normal(size=20)
    y = signal + 3 * random.normal(size=800)
    W, products = stacked(Z, y, fold, 20)
    assert explained(W, products, y, fold, np.array([0.5]))[0] > 0.5
    b = products.coefficients(0, np.array([0.5]))[0]
    own, others = W[:, :3] @ b[:3], W[:, 3:] @ b[3:]
    assert np.corrcoef(own, signal)[0, 1] > 0.95
    assert others.std() < 0.25 * own.std()


def test_blocks_that_are_weighted_alike():
    """A ridge regression on the sums of the predictions of each kind, scaled to one length."""
    random = np.random.default_rng(6)
    Z, fold = random.normal(size=(200, 40)), np.arange(200) % 5
    y = Z @ random.normal(size=40) + 5 * random.normal(size=200)
    W, products = stacked(Z, y, fold, 8)
    rest, shares = fold != 2, np.array([0.1, 0.6])
    kept = np.arange(24) >= 3
    s = np.sqrt(np.mean(W**2, axis=0))
    cross = products.nested[2] / np.sqrt(products.nested_squares[2] / rest.sum())
    sums = (W * kept).reshape(200, 8, 3).sum(axis=1)
    length = np.sqrt(np.mean(sums[rest] ** 2, axis=0))
    target = (cross * s * kept).reshape(8, 3).sum(axis=0) / length
    found = products.coefficients(2, shares, kept, alike=True)
    for b, h in zip(found, shares, strict=True):
        scaled = sums[rest] / length
        weights = np.linalg.solve(scaled.T @ scaled + 3 * (1 - h) / h * np.eye(3), target) / length
        np.testing.assert_allclose(b, np.tile(weights, 8) * kept, rtol=1e-9)


def test_predictions_that_are_all_zero_change_nothing():
    random = np.random.default_rng(5)
    Z, y, fold = random.normal(size=(100, 30)), random.normal(size=100), np.arange(100) % 5
    shares = np.array([0.25])
    _, products = stacked(Z, y, fold, 3)
    _, more = stacked(np.hstack([Z, np.zeros((100, 10))]), y, fold, 4)
    b = more.coefficients(2, shares)[0]
    np.testing.assert_array_equal(b[9:], 0.0)
    assert np.isfinite(b).all()
    assert not np.array_equal(b[:9], products.coefficients(2, shares)[0])  # P enters the penalty
