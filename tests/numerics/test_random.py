"""Philox4x32-10 against the published test vectors, and the numbers made of it."""

import numpy as np
import pytest

from plait.numerics.random import fill_normals, philox, uniform


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0] * 4, 0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        (
            [0xFFFFFFFF] * 4,
            0xFFFFFFFFFFFFFFFF,
            [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
        ),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            0x299F31D0A4093822,
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_published_vectors(counter, key, expected):
    out = np.zeros(4, dtype=np.uint64)
    philox(np.array(counter, dtype=np.uint64), np.uint64(key), out)
    assert out.tolist() == expected


def test_normals_are_normal():
    from scipy.stats import kstest

    counter, words = np.zeros(4, dtype=np.uint64), np.zeros(4, dtype=np.uint64)
    values = np.empty((5000, 5))
    for item in range(5000):
        fill_normals(item, 3, np.uint64(9), counter, words, values[item], 5)
    assert kstest(values.ravel(), "norm").pvalue > 1e-7
    assert np.abs(np.corrcoef(values, rowvar=False) - np.eye(5)).max() < 0.08
    uniforms = [uniform(item, 0, np.uint64(9), counter, words) for item in range(5000)]
    assert kstest(uniforms, "uniform").pvalue > 1e-7
