import numpy as np
import pytest

from plait.numerics.random_kernels import fill_exponentials, fill_words, words_of_state


def generator(seed):
    return np.random.Generator(np.random.PCG64DXSM(seed))


@pytest.mark.parametrize("seed", [0, 1, 2**100 + 7])
def test_words_are_those_of_numpy(seed):
    expected = generator(seed).bit_generator.random_raw(50_000)
    state, words = words_of_state(generator(seed)), np.empty(50_000, np.uint64)
    fill_words(state, words[:20_001])
    fill_words(state, words[20_001:])
    np.testing.assert_array_equal(words, expected)


@pytest.mark.parametrize("seed", [0, 1, 2**100 + 7])
def test_exponentials_are_those_of_numpy(seed):
    """Of 2,000,000, all layers of the ziggurat and its tail (chance 4.5e-4) occur."""
    expected = generator(seed).standard_exponential(2_000_000)
    state, values = words_of_state(generator(seed)), np.empty(2_000_000)
    fill_exponentials(state, values[:900_001])
    fill_exponentials(state, values[900_001:])
    np.testing.assert_array_equal(values, expected)
    assert (expected > 7.7).sum() > 500


def test_the_state_is_where_numpys_is():
    drawn = generator(5)
    drawn.standard_exponential(1000)
    state = words_of_state(generator(5))
    fill_exponentials(state, np.empty(1000))
    np.testing.assert_array_equal(state, words_of_state(drawn))
