"""Medians of columns that come in parts."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from plait.numerics.order_statistics import column_medians

NUMBERS = st.one_of(
    st.floats(0, 1e300, allow_subnormal=True), st.just(np.nan), st.sampled_from([0.0, 1.0, 1.5])
)


@given(arrays(np.float64, st.tuples(st.integers(1, 30), st.integers(1, 3)), elements=NUMBERS))
def test_medians_are_those_of_numpy(values):
    def parts():
        yield values[:7]
        yield values[7:]

    found = column_medians(parts, values.shape[1])
    for k, column in enumerate(values.T):
        known = column[~np.isnan(column)]
        assert np.array_equal(found[k], np.median(known) if len(known) else np.nan, equal_nan=True)
