import numpy as np
import pytest

from plait.mash import deconvolution_rows
from plait.mash.data import mash_set_data
from plait.mash.deconvolution_kernels import row_log_densities, row_statistics
from plait.mash.deconvolution_rows import RowInputs, pad_to_tiles
from plait.mash.extreme_deconvolution import cov_ed, extreme_deconvolution
from tests.mash.conftest import random_correlation


def problem(random, n, R, K, own):
    observed = random.random((n, R)) > 0.2
    observed[0] = False
    V = np.stack([random_correlation(random, R) for _ in range(n if own else 1)])
    inputs = RowInputs(
        3 * random.normal(size=(n, R)), random.uniform(0.5, 1.5, (n, R)), V, observed
    )
    factors = random.normal(size=(K, R, R))
    return inputs, random.normal(size=(K, R)), factors @ factors.transpose(0, 2, 1)


def brute_force(inputs, mean, U, j):
    o = np.flatnonzero(inputs.observed[j])
    V, s = inputs.correlations[j % len(inputs.correlations)], inputs.scales[j]
    total = (U + s[:, None] * s * V)[np.ix_(o, o)]
    residual = (inputs.effects[j] - mean)[o]
    inverse = np.linalg.inv(total)
    t, W = np.zeros(len(s)), np.zeros((len(s), len(s)))
    t[o] = inverse @ residual
    W[np.ix_(o, o)] = np.outer(t[o], t[o]) - inverse
    quadratic = residual @ t[o] + len(o) * np.log(2 * np.pi)
    return -0.5 * (quadratic + np.linalg.slogdet(total)[1]), t, W


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("R", [1, 2, 3, 4, 5, 7, 8, 13, 44])
def test_all_widths_agree_with_brute_force(random, R, own):
    n, K = 21, 2
    inputs, means, U = problem(random, n, R, K, own)
    arrays = (*inputs.padded(), means, pad_to_tiles(U))
    shares = random.random((K, n))
    shares[0, 5] = 0.0
    values, first, second = np.empty((K, n)), np.empty((K, R)), np.empty((K, R, R))
    assert row_log_densities(*arrays, 0, 8, values) == -1
    assert row_log_densities(*arrays, 8, n, values) == -1
    row_statistics(*arrays, shares, 3, n, first, second)
    for k in range(K):
        rows = [brute_force(inputs, means[k], U[k], j) for j in range(n)]
        np.testing.assert_allclose(values[k], [row[0] for row in rows], rtol=1e-10, atol=1e-12)
        v = sum(shares[k, j] * rows[j][1] for j in range(3, n))
        W = sum(shares[k, j] * rows[j][2] for j in range(3, n))
        np.testing.assert_allclose(first[k], v, rtol=1e-9, atol=1e-9 * np.abs(v).max())
        np.testing.assert_allclose(second[k], W, rtol=1e-9, atol=1e-9 * np.abs(W).max())


def test_the_determinant_survives_any_scale(random):
    """The product of the pivots would overflow; the sum of its logarithms does not."""
    for size in (1e-150, 1e150):
        inputs = RowInputs(
            np.zeros((3, 40)), np.full((3, 40), size), np.eye(40)[None], np.ones((3, 40), bool)
        )
        values = np.empty((1, 3))
        row_log_densities(*inputs.padded(), np.zeros((1, 40)), np.zeros((1, 40, 40)), 0, 3, values)
        np.testing.assert_allclose(
            values, -40 * (0.5 * np.log(2 * np.pi) + np.log(size)), rtol=1e-14
        )


def test_an_infinite_total_has_no_density():
    inputs = RowInputs(np.zeros((2, 3)), np.ones((2, 3)), np.eye(3)[None], np.ones((2, 3), bool))
    inputs.scales[1, 2] = 1e200
    values = np.empty((1, 2))
    row_log_densities(
        *inputs.padded(), np.zeros((1, 3)), pad_to_tiles(np.eye(3)[None]), 0, 2, values
    )
    assert np.isfinite(values[0, 0]) and not np.isfinite(values[0, 1])


def test_the_first_singular_row_is_named(random):
    inputs, means, _ = problem(random, 30, 3, 1, False)
    inputs.observed[:] = True
    inputs.scales[[13, 22], 1] = 0.0
    arrays = (*inputs.padded(), means, np.zeros((1, 4, 4)))
    assert row_log_densities(*arrays, 0, 30, np.empty((1, 30))) == 13


@pytest.mark.parametrize("kind", ["per row", "mixed"])
def test_sharing_a_grain_among_threads_does_not_change_bits(random, kind, monkeypatch):
    monkeypatch.setattr(deconvolution_rows, "_WORTH_HELPERS", 0)
    errors = random.uniform(0.5, 1.5, (700, 5))
    if kind == "mixed":
        errors[:300] = 1.0
    data = mash_set_data(3 * random.normal(size=(700, 5)), errors)
    factors = random.normal(size=(3, 5, 5))
    U = list(factors @ factors.transpose(0, 2, 1))
    found = [
        cov_ed(data, U, tol=0, maxiter=4, threads=threads, details=True) for threads in (1, 2, 7)
    ]
    for other in found[1:]:
        assert np.array_equal(found[0]["objective"], other["objective"])
        for name, matrix in found[0]["Ulist"].items():
            assert np.array_equal(matrix, other["Ulist"][name])


def test_shares_that_are_nothing_add_nothing(random):
    """A component far from most rows is updated by the rows that are near it."""
    y = np.concatenate([random.normal(size=(40, 2)), 1e4 + random.normal(size=(5, 2))])
    errors = random.uniform(0.5, 1.5, y.shape)
    means = np.array([[0.0, 0.0], [1e4, 1e4]])
    both = extreme_deconvolution(y, errors, [0.5, 0.5], means, [np.eye(2)] * 2, tol=0, maxiter=5)
    for k, rows in enumerate((slice(0, 40), slice(40, 45))):
        alone = extreme_deconvolution(
            y[rows], errors[rows], [1.0], means[k : k + 1], [np.eye(2)], tol=0, maxiter=5
        )
        np.testing.assert_allclose(both.xcovar[k], alone.xcovar[0], rtol=1e-9)
        np.testing.assert_allclose(both.xmean[k], alone.xmean[0], rtol=1e-12)
