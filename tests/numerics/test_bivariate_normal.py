"""Bivariate normal probabilities against mpmath's quadrature and against draws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import asin, cos, exp, mpf, ncdf, pi, quad, sin, workdps
from scipy.special import ndtr

from plait.numerics.bivariate_normal import bivariate_normal_cdf, same_sign_probability


@workdps(25)
def exact_cdf(h, k, rho):
    """Plackett's integral over the correlation, in 25 digits."""
    h, k, angle = mpf(h), mpf(k), asin(mpf(rho))

    def slope(t):
        return exp(-(h * h + k * k - 2 * h * k * sin(t)) / (2 * cos(t) ** 2))

    nodes = [0, *(angle * (1 - mpf(10) ** -p) for p in range(1, 6)), angle]
    return float(ncdf(h) * ncdf(k) + quad(slope, nodes) / (2 * pi))


@pytest.mark.parametrize("rho", [-0.999999, -0.95, -0.3, 0.0, 0.6, 0.99, 0.99999999])
def test_against_quadrature(rho):
    h, k = (v.ravel() for v in np.meshgrid([-8.0, -2.9, 0.0, 0.4, 2.0], [-3.0, -1e-9, 0.0, 0.4]))
    expected = [exact_cdf(a, b, rho) for a, b in zip(h, k, strict=True)]
    np.testing.assert_allclose(bivariate_normal_cdf(h, k, rho), expected, rtol=0, atol=1e-14)


def test_limits():
    h, k = np.array([0.3, -1.0, 2.0]), np.array([1.0, -1.0, -0.5])
    np.testing.assert_allclose(bivariate_normal_cdf(h, k, 1.0), ndtr(np.minimum(h, k)))
    np.testing.assert_allclose(
        bivariate_normal_cdf(h, k, -1.0), np.maximum(ndtr(h) - ndtr(-k), 0), atol=1e-16
    )
    np.testing.assert_allclose(bivariate_normal_cdf(h, 40.0, 0.7), ndtr(h), rtol=1e-14)
    np.testing.assert_allclose(bivariate_normal_cdf(h, -40.0, 0.7), 0.0, atol=1e-15)


@settings(deadline=None, max_examples=50)
@given(st.floats(-6, 6), st.floats(-6, 6), st.floats(-1, 1))
def test_quadrants_add_up(h, k, rho):
    """The four quadrants around a point cover the plane, and coordinates may be swapped."""
    quadrants = bivariate_normal_cdf([h, h, -h, -h], [k, -k, k, -k], [rho, -rho, -rho, rho])
    assert quadrants.sum() == pytest.approx(1, abs=1e-13)
    assert quadrants[0] == pytest.approx(float(bivariate_normal_cdf(k, h, rho)), abs=1e-14)


def test_same_sign_of_centred_normals_is_known():
    rho = np.array([-1.0, -0.4, 0.0, 0.8, 1.0])
    covariance = np.empty((5, 2, 2))
    covariance[:, 0, 0], covariance[:, 1, 1] = 4.0, 0.25
    covariance[:, 0, 1] = covariance[:, 1, 0] = rho
    expected = 0.5 + np.arcsin(rho) / np.pi
    found = same_sign_probability(np.zeros((5, 2)), covariance)
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_same_sign_against_draws():
    random = np.random.default_rng(3)
    mean, covariance = np.array([0.7, -0.4]), np.array([[1.0, 0.5], [0.5, 2.0]])
    draws = random.multivariate_normal(mean, covariance, size=200_000)
    share = np.mean(draws[:, 0] * draws[:, 1] > 0)
    assert abs(float(same_sign_probability(mean, covariance)) - share) < 6 * 0.5 / np.sqrt(2e5)


def test_constants_have_the_sign_of_their_mean():
    half = np.array([[1.0, 0.0], [0.0, 0.0]])
    found = same_sign_probability(
        np.array([[0.0, 2.0], [1.0, -3.0], [1.0, 0.0]]), np.stack([half] * 3)
    )
    np.testing.assert_allclose(found, [0.5, ndtr(-1.0), 0.0])
    both = same_sign_probability(
        np.array([[1.0, 2.0], [1.0, -2.0], [0.0, 1.0]]), np.zeros((3, 2, 2))
    )
    np.testing.assert_array_equal(both, [1.0, 0.0, 0.0])
