import numpy as np

from plait.numerics.gaussian import z_from_log_tail, z_from_two_sided_p


def test_z_scores_invert_tails():
    from scipy.stats import norm

    z = np.array([0.3, 2.0, 9.0, 37.0, 200.0])
    np.testing.assert_allclose(z_from_log_tail(norm.logsf(z)), z, rtol=1e-12)
    np.testing.assert_allclose(z_from_two_sided_p(2 * norm.sf(z[:3])), z[:3], rtol=1e-12)
