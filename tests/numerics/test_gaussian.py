import numpy as np
import pytest
from mpmath import betainc, log, mp, mpf

from plait.numerics.gaussian import student_log_tail, z_from_log_tail, z_from_two_sided_p


@pytest.mark.parametrize("t", [0.1, 1.0, 8.0, 50.0, 1e4, 1e40])
@pytest.mark.parametrize("df", [1.0, 3.5, 7.0, 60.0, 2000.0])
def test_student_tail(t, df):
    mp.dps = 40
    a, x = mpf(df) / 2, mpf(df) / (mpf(df) + mpf(t) ** 2)
    exact = float(log(betainc(a, mpf(1) / 2, 0, x, regularized=True) / 2))
    assert float(student_log_tail(t, df)) == pytest.approx(exact, rel=1e-11)


def test_z_scores_invert_tails():
    from scipy.stats import norm

    z = np.array([0.3, 2.0, 9.0, 37.0, 200.0])
    np.testing.assert_allclose(z_from_log_tail(norm.logsf(z)), z, rtol=1e-12)
    np.testing.assert_allclose(z_from_two_sided_p(2 * norm.sf(z[:3])), z[:3], rtol=1e-12)
