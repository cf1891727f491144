"""Normal quantiles against mpmath, from the centre to far beyond what a double can hold."""

import numpy as np
from mpmath import erfc, exp, log, mpf, pi, sqrt, workdps
from scipy.stats import norm

from plait.numerics.gaussian import z_from_log_tail, z_from_two_sided_p


@workdps(60)
def exact_z(log_tail, near):
    """Newton's method in 60 digits."""
    z = mpf(float(near))
    for _ in range(8):
        tail = erfc(z / sqrt(2)) / 2
        z += (log(tail) - mpf(float(log_tail))) * tail / exp(-z * z / 2) * sqrt(2 * pi)
    return float(z)


def test_z_scores_invert_tails():
    z = np.array([0.3, 2.0, 9.0, 37.0, 200.0])
    np.testing.assert_allclose(z_from_log_tail(norm.logsf(z)), z, rtol=1e-12)
    np.testing.assert_allclose(z_from_two_sided_p(2 * norm.sf(z[:3])), z[:3], rtol=1e-12)


def test_z_of_log_tails_is_exact():
    """Relative to z itself: up to the rounding of ln 2 beside the centre."""
    beside = -np.log(2) - np.geomspace(1e-12, 1, 60)
    logs = np.concatenate([beside, -np.geomspace(1.7, 1e7, 120), np.linspace(-1.5, -2.5, 101)])
    found = z_from_log_tail(logs)
    expected = [exact_z(one, near) for one, near in zip(logs, found, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=4e-15, atol=2e-16)
    below = -np.geomspace(1e-3, 5, 50)
    np.testing.assert_allclose(z_from_log_tail(norm.logsf(below)), below, rtol=1e-9)


def test_z_of_special_log_tails():
    logs = np.array([[-np.log(2), -np.inf, np.nan], [0.0, 1.0, -1.7e308]])
    found = z_from_log_tail(logs)
    np.testing.assert_array_equal(found[0], [0.0, np.inf, np.nan])
    np.testing.assert_array_equal(found[1, :2], [-np.inf, np.nan])
    np.testing.assert_allclose(found[1, 2], np.sqrt(3.4) * 1e154, rtol=1e-15)
    assert z_from_log_tail(-1.0).shape == ()
