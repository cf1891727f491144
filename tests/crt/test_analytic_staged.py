"""P-values from as many resamples as they need."""

import numpy as np
import pytest

from plait.crt.staged import staged_p_values
from plait.errors import OptionError, ShapeError


def blocks_of(values):
    """Null statistics of one program, by block."""
    padded = np.zeros(-(-len(values) // 512) * 512)
    padded[: len(values)] = values
    return lambda block: padded[512 * block : 512 * block + 512, None]


def test_stops_where_the_last_exceedance_is():
    null = np.zeros(5000)
    null[[100, 200, 1500, 1700, 1701, 4000]] = 2.0
    found = staged_p_values([2.0], blocks_of(null), exceedances=4, max_resamples=5000)
    assert (found.resamples[0], found.exceedances[0]) == (1701, 4)
    assert found.p_value[0] == 4 / 1701
    # Never enough: counted in all of them, of which the last block is not whole.
    found = staged_p_values([2.0], blocks_of(null), exceedances=7, max_resamples=3900)
    assert found.p_value[0] == 6 / 3901 and found.resamples[0] == 3900
    # Enough in the first stage: counted in all of that.
    found = staged_p_values([2.0], blocks_of(null), exceedances=2, max_resamples=5000)
    assert found.p_value[0] == 3 / 1025 and found.resamples[0] == 1024
    # Less than a first stage.
    found = staged_p_values([2.0], blocks_of(null), exceedances=2, max_resamples=150)
    assert found.p_value[0] == 2 / 151


def test_programs_stop_one_by_one_and_drawing_stops_with_the_last():
    drawn = []

    def null_of_block(block):
        drawn.append(block)
        return np.random.default_rng((2, block)).standard_normal((512, 4))

    observed = [0.5, 2.9, -3.2, np.nan]
    found = staged_p_values(observed, null_of_block, exceedances=10, max_resamples=200_000)
    assert found.p_value[3] == 1.0 and found.resamples[3] == 0
    assert found.resamples[0] == 1024
    assert found.resamples[2] > found.resamples[1] > 1024
    assert drawn == list(range(-(-found.resamples[2] // 512)))
    for k in (1, 2):
        alone = staged_p_values(
            [observed[k]],
            lambda block, k=k: null_of_block(block)[:, [k]],
            exceedances=10,
            max_resamples=200_000,
        )
        assert alone.p_value[0] == found.p_value[k]


def test_sides_ties_and_nan():
    """A resample without a statistic is none; one that has it for another program counts."""
    null = np.tile([-1.0, 0.0, 1.0, np.nan], 256)
    for observed, side, share in (
        (1.0, "both", 0.5), (1.0, "right", 0.25), (1.0, "left", 0.75), (-1.0, "left", 0.25),
        (1.0 + 1e-8, "right", 0.25), (1.0 + 1e-4, "right", 0.0),
    ):  # fmt: skip
        found = staged_p_values([observed], blocks_of(null), side=side, max_resamples=1024)
        assert found.p_value[0] == (1 + share * 1024) / (1 + 768)
        assert found.resamples[0] == 768
        other = staged_p_values(
            [observed, 9.0],
            lambda block: np.column_stack([blocks_of(null)(block), np.zeros(512)]),
            side=side,
            max_resamples=1024,
        )
        assert other.p_value[0] == (1 + share * 1024) / 1025


def test_resamples_without_a_statistic_could_as_well_not_have_been_drawn():
    """Wherever the last exceedance is: in or after the first stage, or nowhere."""
    random = np.random.default_rng(8)
    null = random.standard_normal(512 * 16)
    null[random.random(len(null)) < 0.6] = np.nan
    null[512 * 5 : 512 * 6] = np.nan
    for observed in (1.0, 2.0, 2.8, 3.3, 9.0):
        found = staged_p_values([observed], blocks_of(null), exceedances=5, max_resamples=8000)
        first = null[:1024][~np.isnan(null[:1024])]
        tested = null[:8000][~np.isnan(null[:8000])]
        ends = np.flatnonzero(np.abs(tested) >= observed) + 1
        if (ends <= len(first)).sum() >= 5:
            expected, used = (1 + (ends <= len(first)).sum()) / (len(first) + 1), len(first)
        elif len(ends) >= 5:
            expected, used = 5 / ends[4], ends[4]
        else:
            expected, used = (1 + len(ends)) / (len(tested) + 1), len(tested)
        assert (found.p_value[0], found.resamples[0]) == (expected, used)
    nothing = staged_p_values([1.0], lambda block: np.full((512, 1), np.nan), max_resamples=2000)
    assert (nothing.p_value[0], nothing.resamples[0]) == (1.0, 0)


def test_p_values_are_valid():
    """P(p <= a) <= a at any level, and near a: observed and null are exchangeable."""
    random = np.random.default_rng(3)
    n, limit, h = 20_000, 8192, 5
    # The p-value depends on ranks alone: draw exceedances at their rate given the observed.
    u = random.random(n)
    p = np.empty(n)
    for i in range(n):
        null_of_block = blocks_of(random.random(limit) < u[i])
        p[i] = staged_p_values(
            [1.0], null_of_block, side="right", exceedances=h, max_resamples=limit
        ).p_value[0]
    for level in (0.5, 0.1, 0.02, h / 1025, 0.003, 0.001):
        rate = (p <= level).mean()
        error = 4.9 * np.sqrt(level * (1 - level) / n)
        assert rate <= level + error
        assert rate >= 0.9 * level - error


def test_errors():
    with pytest.raises(OptionError, match="side is 'up'"):
        staged_p_values([1.0], blocks_of(np.zeros(512)), side="up")
    with pytest.raises(OptionError, match="exceedances are 0"):
        staged_p_values([1.0], blocks_of(np.zeros(512)), exceedances=0)
    with pytest.raises(ShapeError, match="2 programs were observed"):
        staged_p_values([1.0, 2.0], blocks_of(np.zeros(512)))
    with pytest.raises(ShapeError, match="2 dimensions"):
        staged_p_values([[1.0]], blocks_of(np.zeros(512)))
