"""Tails of the F distribution against mpmath and Student's tail."""

import mpmath
import numpy as np
import pytest
from scipy import stats

from plait.errors import InputError
from plait.numerics.fisher import log10_f_p_value
from plait.numerics.student import log10_p_value


@pytest.fixture(autouse=True)
def digits():
    with mpmath.workdps(60):
        yield


def exact(ratio, q, df):
    """log10 of I_x(df / 2, q / 2) at 60 digits; from its complement where that is the smaller."""
    ratio, a, b = mpmath.mpf(ratio), mpmath.mpf(df) / 2, mpmath.mpf(q) / 2
    x = 1 / (1 + ratio)
    if ratio * (a + b) > b:
        # Terms rise with order only up to b, so that a finite sum has every digit.
        order = mpmath.mpf(0) if q % 2 == 0 else mpmath.mpf(1) / 2
        total = mpmath.betainc(a, order, 0, x, regularized=True) if q % 2 else mpmath.mpf(0)
        while order < b:
            log_term = mpmath.loggamma(a + order) - mpmath.loggamma(a) - mpmath.loggamma(order + 1)
            total += mpmath.exp(log_term + a * mpmath.log(x) + order * mpmath.log(1 - x))
            order += 1
        return mpmath.log10(total)
    return mpmath.log1p(-mpmath.betainc(b, a, 0, 1 - x, regularized=True)) / mpmath.log(10)


@pytest.mark.parametrize("q", [2, 3, 4, 7, 12, 41])
@pytest.mark.parametrize("df", [1, 2.7, 9, 50, 1993.5, 40_000])
def test_every_digit_at_any_depth(q, df):
    ratio = np.array([1e-9, 1e-3, 0.1, 0.3, 0.9, 1.0, 1.2, 2.0, 6.0, 40.0, 2e3]) * q / df
    found = log10_f_p_value(ratio, q, df)
    for value, log in zip(ratio.tolist(), found.tolist(), strict=True):
        known = exact(value, q, df)
        if known > -1e-290:  # ln p that a double cannot hold
            assert -1e-289 < log <= 0
            continue
        assert abs(log / known - 1) < 1e-12


def test_the_incomplete_beta_function_itself():
    """The oracle's own sum is I_x(a, b)."""
    for ratio, q, df in ((0.05, 5, 60.5), (0.3, 6, 12), (2.0, 3, 4)):
        x = 1 / (1 + mpmath.mpf(ratio))
        direct = mpmath.betainc(mpmath.mpf(df) / 2, mpmath.mpf(q) / 2, 0, x, regularized=True)
        assert abs(exact(ratio, q, df) - mpmath.log10(direct)) < mpmath.mpf(10) ** -40


def test_many_samples_and_many_numerators():
    """At ten million samples, and where terms outgrow a double before they are scaled."""
    for q, f in ((2, 300.0), (5, 80.0), (400, 30.0)):
        found = float(log10_f_p_value(f * q / 1e7, q, 1e7))
        assert abs(found / exact(f * q / 1e7, q, 1e7) - 1) < 1e-11


def test_as_student_and_scipy():
    t = np.array([0.0, 0.3, 2.0, 11.0, 300.0])
    np.testing.assert_array_equal(log10_f_p_value(t**2 / 25, 1, 25), log10_p_value(t, 25))
    f = np.array([0.2, 1.0, 3.0, 9.0])
    known = stats.f.logsf(f, 4, 77.3) / np.log(10)
    np.testing.assert_allclose(log10_f_p_value(f * 4 / 77.3, 4, 77.3), known, rtol=1e-10)


def test_ends():
    values = log10_f_p_value([0.0, np.inf, np.nan], 3, 12)
    np.testing.assert_array_equal(values, [0.0, -np.inf, np.nan])
    with pytest.raises(InputError, match="numerator"):
        log10_f_p_value(1.0, 0, 3)
    with pytest.raises(InputError, match="denominator"):
        log10_f_p_value(1.0, 2, 0)
    with pytest.raises(InputError, match="negative"):
        log10_f_p_value(-1.0, 2, 3)
