import warnings

import numpy as np
import pytest

from plait.errors import DataWarning


def random_correlation(random, width):
    factor = random.normal(size=(width, width + 2))
    covariance = factor @ factor.T
    scale = np.sqrt(np.diag(covariance))
    return covariance / np.outer(scale, scale)


@pytest.fixture
def random():
    return np.random.default_rng(20)


@pytest.fixture(autouse=True)
def _allow_few_conditions():
    """Tests use two conditions where that is all they need."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="there (is|are) only", category=DataWarning)
        yield
