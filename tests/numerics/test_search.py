"""Brent's search against functions whose maxima are known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.numerics.reml import search_of

FUNCTIONS = {
    "parabola": (0.37, lambda x: -((x - 0.37) ** 2)),
    "flat": (0.37, lambda x: -((x - 0.37) ** 4)),
    "corner": (0.37, lambda x: -abs(x - 0.37)),
    "skewed": (0.37, lambda x: 37 * math.log(x) - 100 * x if x > 0.0 else -math.inf),
    "likelihood": (0.452, lambda x: 20 * math.log(0.2 + x) + 30 * math.log(1.43 - x)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("guess", [0.0, 0.1, 0.37, 0.9, 1.0])
def test_maxima_inside(name, guess):
    peak, function = FUNCTIONS[name]
    asked = []

    def height(x):
        asked.append(x)
        return function(x)

    value, place = search_of(height)(0.0, guess, 1.0, 1e-7)
    assert value == function(place) == max(map(function, asked))
    # Where a function is flat, rounding tells nothing of its place.
    assert place == pytest.approx(peak, abs=1e-4 if name == "flat" else 2e-7)
    assert min(asked) >= 0.0
    assert max(asked) <= 1.0
    assert len(asked) < (60 if name in ("flat", "corner") else 25)


@given(st.floats(-2.0, 3.0), st.floats(0.01, 100.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_maxima_at_bounds_and_inside(peak, scale, guess, low):
    """A maximum beyond the bounds is found at the bound itself, a guess as high is kept."""

    def height(x):
        return -scale * (x - peak) ** 2

    low, high = min(low, 0.5), 0.5 + 0.5 * low
    guess = low + guess * (high - low)
    _, place = search_of(height)(low, guess, high, 1e-8)
    best = np.clip(peak, low, high)
    assert place == pytest.approx(best, abs=1e-6)
    if abs(peak - 0.5 * (low + high)) > high - low:
        assert place == best or (place == guess and height(guess) == height(best))


def test_a_function_without_values_ends():
    """Bounds draw together whatever is compared with values that are missing."""
    value, place = search_of(lambda x: math.nan)(0.0, 0.5, 1.0, 1e-6)
    assert math.isnan(value)
    assert 0.0 <= place <= 1.0
