"""Student tails against mpmath, from the centre to far beyond what a double can hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import beta, betainc, log, mpf, workdps

from plait.errors import InputError
from plait.numerics.student import log10_p_value, student_log_tail, t_from_log10_p


@workdps(60)
def exact_log_p(t, df):
    """ln I_x(df/2, 1/2) in 60 digits: by mpmath, or by a continued fraction in the tail."""
    a, b = mpf(df) / 2, mpf(1) / 2
    x = mpf(df) / (mpf(df) + mpf(t) ** 2)
    if x > 0.5 and t < 8:
        return float(log(betainc(a, b, 0, x, regularized=True)))
    fraction, terms = mpf(1), 8000 if x > 0.5 else 400
    for m in range(terms, 0, -1):  # DLMF 8.17.22, from its far end
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        fraction = 1 + even / (1 + odd / fraction)
    fraction = 1 - (a + b) * x / (a + 1) / fraction
    return float(a * log(x) + b * log(1 - x) - log(a) - log(beta(a, b)) - log(fraction))


DEGREES = (0.5, 1.0, 3.5, 7.0, 29.0, 39.9, 40.0, 60.0, 599.0, 2000.0, 1e5, 1e7)


@pytest.mark.parametrize("df", DEGREES)
def test_log_p_value(df):
    t = np.array([1e-8, 1e-3, 0.1, 0.7, 1.0, 1.7, 2.0, 3.0, 6.0, 9.0, 20.0, 38.0, 100.0, 1e4, 1e40])
    found = log10_p_value(t, df) * np.log(10)
    expected = [exact_log_p(value, df) for value in t]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_array_equal(log10_p_value(-t, df), log10_p_value(t, df))
    np.testing.assert_allclose(student_log_tail(t, df), found - np.log(2), rtol=1e-14)


@settings(max_examples=300, deadline=None)
@given(st.floats(-8, 6), st.floats(-1, 7))
def test_anywhere(log_t, log_df):
    t, df = 10.0**log_t, 10.0**log_df
    assert float(log10_p_value(t, df) * np.log(10)) == pytest.approx(exact_log_p(t, df), rel=1e-12)


def test_a_depth_that_no_double_holds():
    assert float(log10_p_value(700.0, 1e7)) < -1e5
    found = float(log10_p_value(1e200, 4.0)) * np.log(10)
    assert found == pytest.approx(exact_log_p(1e200, 4.0), rel=1e-12)


def test_special_values():
    found = log10_p_value(np.array([0.0, np.nan, np.inf, -np.inf]), 10.0)
    assert found[0] == 0
    assert np.isnan(found[1])
    assert (found[2:] == -np.inf).all()
    assert log10_p_value(np.ones((2, 3)), np.array([5.0, 6.0, 7.0])).shape == (2, 3)
    with pytest.raises(InputError, match="positive"):
        log10_p_value(1.0, 0.0)


def test_the_normal_tail_would_mislead():
    """At 50 degrees of freedom and t = 6 a normal tail is 110 times too small."""
    from scipy.stats import norm

    assert 10 ** float(log10_p_value(6.0, 50.0)) / (2 * norm.sf(6.0)) == pytest.approx(111, abs=1)


@pytest.mark.parametrize("df", [1.0, 3.0, 17.0, 198.0, 838.0, 1e5])
def test_t_of_log10_p(df):
    logs = np.array([0, -0.2, -1.3, -5, -100, -289, -290.5, -400, -412.7, -5000, -1e5, np.nan, 0.1])
    t = t_from_log10_p(logs, df)
    assert np.isnan(t[-2:]).all()
    held = np.isfinite(t) & (t < 1e150)  # with one degree of freedom t is as large as 1 / p
    np.testing.assert_allclose(log10_p_value(t[held], df), logs[held], rtol=1e-10, atol=1e-12)
    # The digits of t itself, where t says more than p.
    back = t_from_log10_p(log10_p_value([2.5, 40.0, 90.0, 1e4], df), df)
    np.testing.assert_allclose(back, [2.5, 40.0, 90.0, 1e4], rtol=1e-10)
    with pytest.raises(InputError, match="positive"):
        t_from_log10_p([-1.0], 0)


@pytest.mark.parametrize("df", [9.0, 10.0, 40.0, 1993.0, 1e7])
def test_interpolated_p_values(df):
    """Between tabulated values, at the ends of intervals, beyond the table, and of few df."""
    from plait.numerics import student_kernels as kernels

    t = np.concatenate([np.linspace(-8.5, 9, 2001), [1e-30, 1e-9, 30.0, np.inf, np.nan, 0.0]])
    table, constant = kernels.table_of_log10_p(df), kernels.log_gamma_step(0.5 * df)
    assert (len(table) > 0) == (df >= 10)
    found = [kernels.tabulated_log10_p(one, df, constant, table) for one in t]
    np.testing.assert_allclose(found, log10_p_value(t, df), rtol=3e-14)


@pytest.mark.parametrize("t", [2.5, [2.5], [[2.5]], [2.5, -1.0], np.array([[2.5], [-1.0]])])
@pytest.mark.parametrize("df", [7.0, [7.0], [7.0, 7.0]])
def test_shapes_are_broadcast(t, df):
    found = log10_p_value(t, df)
    values, freedom = np.broadcast_arrays(t, df)
    assert found.shape == values.shape
    expected = [
        float(log10_p_value(one, other))
        for one, other in zip(values.flat, freedom.flat, strict=True)
    ]
    np.testing.assert_array_equal(found.ravel(), expected)
