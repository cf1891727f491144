"""The skew-normal: moments and tails against mpmath's quadrature and scipy."""

import math

import mpmath
import numpy as np
import pytest
import scipy.stats

from plait.errors import InputError
from plait.numerics.skew_normal import fit_by_moments, log_upper_tail


def integrated_tail(t, shape):
    """``ln`` of the tail, the density integrated piece by piece with 40 digits."""
    with mpmath.workdps(40):
        # The density falls from t on at about this rate.
        unit = 1 / (abs(mpmath.mpf(t)) * (1 + min(shape, 0) ** 2) + 1)
        edges = [mpmath.mpf(t) + unit * k for k in (0, 1, 2, 4, 8, 16, 32, 64, 128)]
        if edges[-1] < 12:
            edges.append(mpmath.mpf(12))
        density = lambda u: 2 * mpmath.npdf(u) * mpmath.ncdf(shape * u)  # noqa: E731
        return float(mpmath.log(mpmath.quad(density, edges)))


@pytest.mark.parametrize("shape", [-6.1, -3.0, -1.0, -0.3, 0.0, 0.4, 2.0, 6.1])
@pytest.mark.parametrize("t", [-2.0, 0.3, 1.0, 1.5, 2.0, 3.0, 5.9, 6.1, 9.0, 30.0])
def test_tail(shape, t):
    found = float(log_upper_tail(1.0 + 2.0 * t, 1.0, 2.0, shape))
    assert found == pytest.approx(integrated_tail(t, shape), abs=1e-7)


def test_negative_shape_does_not_cancel():
    # Phi(-3) + 2 T(3, -3) is negative in double precision.
    tails = log_upper_tail(np.linspace(0, 40, 4001), 0.0, 1.0, -3.0)
    assert np.isfinite(tails).all()
    assert (np.diff(tails) < 0).all()


def test_moments_are_those_of_the_fitted_distribution():
    values = np.random.default_rng(5).gamma(40.0, size=3000)
    location, scale, shape, mean, deviation = fit_by_moments(values)
    m, v, s = scipy.stats.skewnorm.stats(shape, location, scale, moments="mvs")
    assert m == pytest.approx(mean, rel=1e-12)
    assert v == pytest.approx(deviation**2, rel=1e-10)
    assert s == pytest.approx(scipy.stats.skew(values), rel=1e-9)


def test_symmetric_sample_is_normal():
    location, scale, shape, mean, deviation = fit_by_moments([-1.0, 1.0])
    assert (location, scale, shape) == (mean, deviation, 0.0)


def test_skewness_is_limited_on_both_sides():
    values = np.random.default_rng(3).exponential(size=2000)
    right, left = fit_by_moments(values), fit_by_moments(-values)
    assert all(map(math.isfinite, right))
    np.testing.assert_allclose(left, np.array(right) * [-1, 1, -1, -1, 1], rtol=1e-12)
    skewness = float(scipy.stats.skewnorm.stats(left[2], moments="s"))
    assert skewness == pytest.approx(-0.8955, rel=1e-9)


def test_constant_sample_has_no_fit():
    assert math.isnan(fit_by_moments([2.0, 2.0, 2.0])[2])


def test_errors():
    with pytest.raises(InputError, match="one-dimensional"):
        fit_by_moments(np.zeros((2, 2)))
    with pytest.raises(InputError, match="positive"):
        log_upper_tail(1.0, 0.0, 0.0, 1.0)


def test_tails_of_several_distributions_at_once():
    location, scale = np.array([[0.0], [1.0], [-2.0]]), np.array([[1.0], [0.5], [3.0]])
    shape, values = np.array([[-3.0], [0.0], [4.0]]), np.linspace(-3.0, 20.0, 24)
    found = log_upper_tail(values, location, scale, shape)
    for row, *parameters in zip(found, location[:, 0], scale[:, 0], shape[:, 0], strict=True):
        np.testing.assert_array_equal(row, log_upper_tail(values, *parameters))
