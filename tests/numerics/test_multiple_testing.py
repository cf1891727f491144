import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from plait.errors import InputError, OptionError
from plait.numerics.multiple_testing import false_discovery_rates

P_VALUES = st.lists(st.floats(0.0, 1.0, allow_subnormal=False), min_size=1, max_size=40)


@given(P_VALUES)
def test_benjamini_is_statsmodels(p):
    for ours, theirs in (("BH", "fdr_bh"), ("BY", "fdr_by")):
        expected = multipletests(p, method=theirs)[1]
        np.testing.assert_allclose(false_discovery_rates(p, ours), expected, rtol=1e-12, atol=0)


@given(P_VALUES)
def test_storey_is_between_its_share_of_nulls_and_benjamini_and_hochberg(p):
    rates, plain = false_discovery_rates(p, "storey"), false_discovery_rates(p)
    nulls = min(1.0, (1 + sum(x > 0.5 for x in p)) / (0.5 * len(p)))
    assert (rates <= plain + 1e-15).all()
    assert (rates >= nulls * plain - 1e-12).all()


def test_what_is_not_tested_does_not_count():
    p = np.array([[0.01, np.nan], [0.02, 0.9]])
    rates = false_discovery_rates(p)
    assert np.isnan(rates[0, 1])
    np.testing.assert_allclose(rates[~np.isnan(p)], false_discovery_rates([0.01, 0.02, 0.9]))
    assert np.isnan(false_discovery_rates([np.nan])).all()


def test_errors():
    with pytest.raises(OptionError, match="fdr is 'FDR'"):
        false_discovery_rates([0.1], "FDR")
    with pytest.raises(InputError, match=r"range from 0\.1 to 2"):
        false_discovery_rates([0.1, 2.0])
