"""P-values from null statistics: counted, left out one by one, and by a fitted skew-normal."""

import numpy as np
import pandas as pd
import pytest

from plait.crt.p_values import (
    SkewNormalTests,
    calibrated_p_value,
    compute_null_pvals_from_null_stats,
    crt_null_pvals_from_null_stats_fast,
    crt_null_pvals_from_null_stats_matrix,
    empirical_p_values,
    skew_normal_p_values,
)
from plait.errors import InputError, ShapeError
from tests.reference_files import load, reference_file

SIDES = {-1: "left", 0: "both", 1: "right"}


@pytest.mark.parametrize("screen", ["synth_a", "synth_b"])
def test_peer_skew_normal(screen):
    nulls = load("crt", f"{screen}/skew_normal_nulls.npz")
    table = pd.read_csv(
        reference_file("crt", f"{screen}/skew_normal.csv.gz"), float_precision="round_trip"
    )
    assert len(table) > 50
    for row in table.itertuples():
        null = nulls[row.null]
        p, parameters, status = calibrated_p_value(row.z_obs, null, side=SIDES[row.side_code])
        np.testing.assert_allclose(parameters, [row.xi, row.omega, row.alpha], rtol=1e-9)
        is_right = row.z_obs >= np.sort(null)[(null.size - 1) // 2]
        tail_ok = row.right_tail_ok if is_right else row.left_tail_ok
        assert status == ("outlier" if not row.outlier_ok else "ok" if tail_ok else "tail")
        assert (row.p_skew_normal < 0) == (status != "ok")
        expected = min(row.p_skew_normal if status == "ok" else row.p_empirical, 1.0)
        assert 0 < p <= 1
        if expected > 1e-12:
            assert p == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("screen", ["synth_a", "synth_b"])
def test_peer_counts(screen):
    given = load("crt", f"{screen}/fixed_resamples.npz")
    p = empirical_p_values(given["beta_obs"], given["beta_null"])
    np.testing.assert_allclose(p, given["p_raw"], rtol=1e-12)
    for code, name in ((0, "loo_two"), (1, "loo_right"), (-1, "loo_left")):
        found = compute_null_pvals_from_null_stats(given["beta_null"], code)
        np.testing.assert_allclose(found, given[name], rtol=1e-12)


def test_no_two_sided_p_exceeds_one():
    """programDE reports 1.12 here: the fitted and the empirical medians differ."""
    null = np.random.default_rng(0).gamma(2.0, size=(999, 1))
    null = np.hstack([null, -null])
    observed = np.median(null, axis=0)
    assert empirical_p_values(observed, null, two_sided="double_tail").max() <= 1
    for shift in np.linspace(-0.5, 0.5, 21):
        found = skew_normal_p_values(observed + shift, null).p_values
        assert ((found > 0) & (found <= 1)).all()


def test_left_skewed_null_is_fitted_like_right_skewed():
    """sceptre limits only positive skewness, so that left-skewed nulls have no fit there."""
    null = np.random.default_rng(1).exponential(size=(4999, 1))
    right = skew_normal_p_values([5.0], null, side="right")
    left = skew_normal_p_values([-5.0], -null, side="left")
    assert np.isfinite(left.parameters).all()
    np.testing.assert_array_equal(left.status, right.status)
    np.testing.assert_allclose(left.p_values, right.p_values, rtol=1e-9)


def test_sides_and_ties():
    null = np.array([[-2.0], [-1.0], [0.0], [1.0], [2.0], [np.nan], [1.0]])
    assert empirical_p_values([1.0], null, side="right")[0] == 4 / 8
    assert empirical_p_values([1.0], null, side="left")[0] == 6 / 8
    assert empirical_p_values([1.0], null)[0] == 6 / 8
    assert empirical_p_values([1.0], null, two_sided="double_tail")[0] == 1.0
    assert empirical_p_values([np.nan], null)[0] == 1.0


def test_leave_one_out_of_distinct_values():
    null = np.random.default_rng(2).normal(size=(50, 3))
    p = compute_null_pvals_from_null_stats(null)
    np.testing.assert_allclose(np.sort(p, axis=0), np.arange(1, 51)[:, None] / 50 * np.ones(3))
    np.testing.assert_array_equal(crt_null_pvals_from_null_stats_fast(null[:, 0]), p[:, 0])
    np.testing.assert_array_equal(crt_null_pvals_from_null_stats_matrix(null), p)


@pytest.mark.parametrize("code", [-1, 0, 1])
def test_leave_one_out_by_definition(code):
    null = np.random.default_rng(4).integers(-4, 5, size=40).astype(float)
    extreme = np.abs(null) if code == 0 else code * null
    others = [(np.delete(extreme, b) >= extreme[b]).sum() for b in range(40)]
    expected = (1 + np.array(others)) / 40
    np.testing.assert_allclose(compute_null_pvals_from_null_stats(null, code), expected)


def test_null_that_does_not_vary_is_counted():
    found = skew_normal_p_values([0.3, 0.1, np.nan], np.full((30, 3), 0.1))
    assert list(found.status) == ["degenerate", "degenerate", "nonfinite"]
    np.testing.assert_allclose(found.p_values, [1 / 31, 1.0, 1.0])
    assert np.isnan(found.parameters).all()


def test_errors():
    with pytest.raises(ShapeError, match="resamples x programs"):
        empirical_p_values([1.0], [1.0, 2.0])
    with pytest.raises(InputError, match="side is 'up'"):
        empirical_p_values([1.0], [[1.0]], side="up")
    with pytest.raises(InputError, match="side is 'up'"):
        skew_normal_p_values([1.0], [[1.0]], side="up")
    with pytest.raises(InputError, match="side is 'up'"):
        calibrated_p_value(1.0, [1.0], side="up")
    with pytest.raises(InputError, match="two_sided"):
        empirical_p_values([1.0], [[1.0]], two_sided="sum")
    for null, code in (([], 0), (np.zeros((2, 2, 2)), 0), ([1.0], 2), ([np.nan], 0)):
        with pytest.raises(InputError):
            compute_null_pvals_from_null_stats(null, code)


@pytest.mark.parametrize("side", ["both", "left", "right"])
def test_programs_together_are_as_each_alone(side):
    random = np.random.default_rng(5)
    null = random.gamma(50.0, size=(600, 6)) * [1.0, -1.0, 1.0, 1e-3, 1e3, 1.0]
    null[:, 2] = 0.3
    null[7, 4] *= 30.0
    null[:, 5] = np.sign(null[:, 5] - 50.0) * np.abs(null[:, 5] - 50.0) ** 1.5
    observed = null.max(axis=0) * [1.0, 0.9, 1.0, 0.9, 1.1, 1.0]
    together = skew_normal_p_values(observed, null, side=side)
    assert set(together.status) == {"ok", "degenerate", "outlier", "tail"}
    for k in np.flatnonzero(together.status != "degenerate"):
        mean, deviation = null[:, k].mean(), null[:, k].std()
        p, parameters, status = calibrated_p_value(
            (observed[k] - mean) / deviation, (null[:, k] - mean) / deviation, side=side
        )
        assert status == together.status[k]
        assert p == pytest.approx(together.p_values[k], rel=1e-9)
        np.testing.assert_allclose(parameters, together.parameters[k], rtol=1e-9)


def test_units_together_are_as_each_alone():
    """To the bit: deep in the tails, without a fit, and with other numbers of resamples."""
    random = np.random.default_rng(6)
    nulls = [
        random.gamma(3.0, size=(resamples, 5)) * [1.0, -1.0, 1e-3, 0.0, 1.0]
        for resamples in (300, 200, 301, 200, 1)
    ]
    observed = [null.mean(axis=0) + depth * null.std(axis=0) for depth, null in enumerate(nulls)]
    observed[2] = observed[2] * [40.0, 20.0, -30.0, 1.0, np.nan]
    tests = SkewNormalTests("both")
    for values, null in zip(observed, nulls, strict=True):
        tests.add(values, null)
    together = tests.p_values()
    assert set(together.status) >= {"ok", "tail", "degenerate", "nonfinite"}
    assert together.p_values.min() < 1e-12
    for j, (values, null) in enumerate(zip(observed, nulls, strict=True)):
        alone, rows = skew_normal_p_values(values, null), slice(5 * j, 5 * j + 5)
        np.testing.assert_array_equal(alone.p_values, together.p_values[rows])
        np.testing.assert_array_equal(alone.parameters, together.parameters[rows])
        np.testing.assert_array_equal(alone.status, together.status[rows])


def test_null_statistics_are_not_changed():
    null = np.random.default_rng(7).normal(size=(50, 1))
    before = null.copy()
    skew_normal_p_values([0.3], null)
    calibrated_p_value(0.3, null[:, 0])
    np.testing.assert_array_equal(null, before)
