"""Which covariates are left out because others say the same."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import qr

from plait.data.phenotypes import SampleTable, split_covariates


def split(values):
    names = tuple(f"c{i}" for i in range(values.shape[1]))
    table = SampleTable([f"s{i}" for i in range(len(values))], names, values)
    kept, said = split_covariates(table)
    return list(kept.names), said


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.integers(20, 60), st.integers(1, 9), st.integers(1, 9))
def test_as_many_stay_as_with_lapack(seed, n, columns, rank):
    random = np.random.default_rng(seed)
    mixture = random.integers(-2, 3, size=(rank, columns))
    values = random.normal(size=(n, rank)) @ mixture
    kept, _ = split(values)
    centred = values - values.mean(axis=0)
    spread = np.sqrt((centred**2).mean(axis=0))
    scaled = centred[:, spread > 1e-12] / spread[spread > 1e-12]
    diagonal = np.abs(np.diagonal(qr(scaled, mode="r", pivoting=True)[0]))
    limit = max(n, columns) * np.finfo(float).eps * diagonal.max(initial=0.0)
    assert len(kept) == (diagonal > limit).sum()
    both = np.column_stack([np.ones(n), values[:, [int(name[1:]) for name in kept]]])
    assert np.linalg.matrix_rank(both) == len(kept) + 1


def test_of_covariates_that_say_the_same_the_first_stays():
    random = np.random.default_rng(5)
    a, b = random.normal(size=(2, 50))
    kept, said = split(np.column_stack([a, b, 3 - a, np.ones(50), 7 * b]))
    assert kept == ["c0", "c1"]
    assert said == [
        "covariates left out, constant: 'c3'.",
        "covariates left out, a combination of the others: 'c2', 'c4'.",
    ]
    assert split(np.ones((4, 1))) == ([], ["covariates left out, constant: 'c0'."])
    assert split(np.empty((4, 0))) == ([], [])
    assert len(split(random.normal(size=(4, 9)))[0]) == 3  # beside the constant
