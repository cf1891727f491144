import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plait.crt import composition
from plait.crt.composition import centered_log_ratio, check_usage, floor_usage, usage_floor
from plait.errors import DataWarning, InputError, OptionError
from tests.reference_files import reference_file

NAMES = ("p0", "p1", "p2", "p3")


def usages(seed, n_cells=40, n_programs=4):
    return np.random.default_rng(seed).dirichlet(np.full(n_programs, 0.3), size=n_cells)


def test_log_ratios_agree_with_programde():
    reference = json.loads(reference_file("crt", "encoding_clr_burden.json").read_text())
    usage = np.array(reference["usage"])
    for quantile, expected in reference["clr"].items():
        eps = usage_floor(usage, float(quantile))
        np.testing.assert_allclose(centered_log_ratio(usage, eps), expected, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 1000),
    quantile=st.floats(0, 1),
    height=st.sampled_from([4, 16, 64, 1 << 20]),
)
def test_the_floor_is_the_quantile_of_all_entries(seed, quantile, height, monkeypatch_module):
    monkeypatch_module.setattr(composition, "_BLOCK_NUMBERS", height)
    usage = usages(seed)
    assert usage_floor(usage, quantile) == pytest.approx(np.quantile(usage, quantile), rel=1e-13)


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000), eps=st.sampled_from([1e-9, 1e-4, 0.05]))
def test_invariances_of_log_ratios(seed, eps):
    usage = usages(seed)
    ratios = centered_log_ratio(usage, eps)
    np.testing.assert_allclose(ratios.sum(axis=1), 0.0, atol=1e-12)
    order = np.random.default_rng(seed).permutation(len(usage))
    np.testing.assert_array_equal(centered_log_ratio(usage[order], eps), ratios[order])
    columns = np.random.default_rng(seed).permutation(4)
    np.testing.assert_allclose(
        centered_log_ratio(usage[:, columns], eps), ratios[:, columns], atol=1e-12
    )
    # A factor of a row changes nothing above the floor.
    above = np.maximum(usage, eps)
    np.testing.assert_allclose(
        centered_log_ratio(above * np.linspace(1, 9, len(usage))[:, None], eps), ratios, atol=1e-12
    )
    floored = floor_usage(usage, eps)
    np.testing.assert_allclose(floored.sum(axis=1), 1.0)
    logs = np.log(floored)
    np.testing.assert_allclose(logs - logs.mean(axis=1, keepdims=True), ratios, atol=1e-11)


def test_exact_zeros_give_the_smallest_positive_usage():
    usage = usages(1)
    usage[:10, 0] = 0.0
    with pytest.warns(DataWarning, match="6.250% of the usages are 0"):
        eps = usage_floor(usage, 1e-3)
    assert eps == usage[usage > 0].min()
    assert np.isfinite(centered_log_ratio(usage, eps)).all()


@pytest.mark.parametrize("quantile", [-0.1, 1.1, np.nan])
def test_quantiles_out_of_range(quantile):
    with pytest.raises(OptionError, match="between 0 and 1"):
        usage_floor(usages(2), quantile)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda usage: usage.__setitem__((3, 1), np.nan), "'p1' by cell 'c3' is nan"),
        (lambda usage: usage.__setitem__((3, 1), np.inf), "'p1' by cell 'c3' is inf"),
        (lambda usage: usage.__setitem__((3, 1), -1e-9), "'p1' by cell 'c3' is -1e-09"),
        (
            lambda usage: usage.__setitem__(7, 0.0),
            "without any positive usage, the first being 'c7'",
        ),
    ],
)
def test_what_is_no_composition(change, message):
    usage = usages(3)
    change(usage)
    cells = np.array([f"c{i}" for i in range(len(usage))])
    with pytest.raises(InputError, match=message):
        check_usage(usage, NAMES, cells)


@pytest.mark.parametrize("shape", [(0, 4), (5, 1)])
def test_too_little_usage(shape):
    with pytest.raises(InputError, match="at least 2 programs"):
        check_usage(np.ones(shape), NAMES[: shape[1]], np.array(["c"] * shape[0]))


def test_a_floor_under_nothing():
    with pytest.raises(InputError, match="no usage is positive"):
        usage_floor(np.zeros((3, 2)))


def test_rows_that_do_not_sum_to_one_are_named():
    usage = usages(4)
    usage[5] *= 3.0
    with pytest.warns(DataWarning, match=r"1 of 40 cells .*first: 'c5', 3\)"):
        check_usage(usage, NAMES, np.array([f"c{i}" for i in range(40)]))


def test_a_floor_that_is_none_is_told(caplog):
    random = np.random.default_rng(0)
    usage = random.dirichlet(np.full(8, 5.0), 500)
    sprinkled = np.where(random.random(usage.shape) < 0.01, 1e-10, usage)
    with caplog.at_level("INFO", "plait.crt"):
        assert usage_floor(usage) > 1e-4
        assert not caplog.records
        assert usage_floor(sprinkled) == pytest.approx(1e-10)
    assert "less than a millionth of their median" in caplog.text
    assert "Give as eps what you would call none: 1e-04" in caplog.text
