"""Quantiles of ranks against mpmath and SciPy."""

import numpy as np
import pytest
from mpmath import betainc, workdps
from scipy.special import betaincinv

from plait.numerics.uniform_ranks import quantiles_of_ranks

LEVELS = (1e-6, 0.025, 0.5, 0.975)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("count", [1, 2, 3, 17, 1000, 10**5, 10**7])
def test_quantiles_are_those_of_scipy(count, level):
    ranks = np.unique(np.round(np.geomspace(1, count, 200)).astype(np.int64))
    ranks = np.union1d(ranks, count + 1 - ranks)
    found = quantiles_of_ranks(ranks, count, level)
    np.testing.assert_allclose(found, betaincinv(ranks, count - ranks + 1, level), rtol=2e-10)


@pytest.mark.parametrize("level", LEVELS)
def test_quantiles_hold_their_share(level):
    for count in (5, 40):
        ranks = np.arange(1, count + 1)
        for rank, one in zip(ranks, quantiles_of_ranks(ranks, count, level), strict=True):
            with workdps(30):
                held = betainc(int(rank), int(count - rank + 1), 0, float(one), regularized=True)
            assert float(held) == pytest.approx(level, rel=1e-12)
