"""Repeats among hashes in parts, against a count of all of them."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.numerics.repeats import met, repeated

# Hashes that are the same in the last 32 bits, or in the first, or in all.
HASHES = st.lists(st.sampled_from([a << 32 | b for a in range(4) for b in (0, 7, 2**32 - 1)]))


def in_parts(hashes, size):
    def parts():
        for start in range(0, len(hashes), size):
            part = np.array(hashes[start : start + size], dtype=np.uint64)
            yield np.arange(start, start + len(part)), part

    return parts


@given(HASHES, HASHES, st.integers(1, 5))
def test_items_that_have_the_hash_of_another(hashes, others, size):
    count = Counter(hashes)
    expected = [row for row, value in enumerate(hashes) if count[value] > 1]
    assert repeated(in_parts(hashes, size)).tolist() == expected
    among = set(others)
    expected = [row for row, value in enumerate(hashes) if value in among]
    assert met(in_parts(hashes, size), in_parts(others, size)).tolist() == expected


@pytest.mark.parametrize("n", [0, 200_000])
def test_many_hashes_that_share_their_ends_by_chance(n):
    hashes = np.random.default_rng(1).integers(0, 2**63, n, dtype=np.uint64)
    assert not len(repeated(in_parts(hashes.tolist(), 1 << 14)))
    assert n == 0 or len(np.unique(hashes.astype(np.uint32))) < n
