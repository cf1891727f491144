"""p-values as text."""

import numpy as np
import pytest

from plait.data.p_values import p_value_text


@pytest.mark.parametrize(
    ("log10p", "decimals", "text"),
    [
        (np.log10(9.97e-7), 1, "1.0e-6"),  # the digits are rounded up to ten
        (np.log10(9.97e-7), 0, "1e-6"),
        (np.log10(9.4e-7), 1, "9.4e-7"),
        (-400.0001, 1, "1.0e-400"),
        (-412.3, 0, "5e-413"),
        (np.log10(0.012), 1, "0.012"),
        (np.log10(5e-4), 1, "0.00050"),  # as many digits as 5.0e-5
        (np.log10(0.3), 1, "0.30"),
        (np.log10(0.996), 1, "1.0"),
        (-3.9999, 1, "0.00010"),
        (-4.0, 1, "1.0e-4"),
        (np.log10(0.012), 0, "0.01"),
        (-1.0, 0, "0.1"),
        (0.0, 1, "1.0"),
        (0.0, 0, "1"),
    ],
)
def test_p_values_are_carried_and_go_below_doubles(log10p, decimals, text):
    assert p_value_text(log10p, decimals) == text
