"""Tables of summary statistics: what is derived, what is refused."""

import logging
import math

import mpmath
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from plait.data.p_values import absolute_z_of_log10_p, log10_of_text, log10_p_of_z
from plait.data.summary_derivations import derive, lambda_gc
from plait.data.summary_statistics import COLUMNS, SummaryStatistics
from plait.errors import InputError, LabelError, NotAvailableError, OptionError, ShapeError


def table(**columns):
    rows = len(next(iter(columns.values())))
    given = {
        "chrom": ["1"] * rows,
        "pos": list(range(1, rows + 1)),
        "ea": ["A"] * rows,
        "oa": ["G"] * rows,
    }
    return pl.DataFrame({**given, **columns})


def test_p_beyond_a_double():
    logs = log10_of_text(
        pl.Series(["1.2e-412", " 3E-310", "1e-5", ".5", "0", "0e-400", "x", None, "1"])
    )
    expected = [math.log10(1.2) - 412, math.log10(3) - 310, -5, math.log10(0.5)]
    np.testing.assert_allclose(logs[:4], expected, rtol=1e-13)
    assert np.isnan(logs[4:8]).all() and logs[8] == 0


@pytest.mark.parametrize("z", [1e-8, 0.3, 1.959964, 5, 38.5, 400.0])
def test_z_and_p_against_mpmath(z):
    with mpmath.workdps(50):
        exact = float(mpmath.log10(mpmath.erfc(mpmath.mpf(z) / mpmath.sqrt(2))))
    assert log10_p_of_z(-z) == pytest.approx(exact, rel=1e-12, abs=1e-15)
    if z > 0.1:
        assert absolute_z_of_log10_p(exact) == pytest.approx(z, rel=1e-10)


def derived(**columns):
    return {k: v[0] for k, v in derive({k: np.array([v]) for k, v in columns.items()}).items()}


def test_rules_and_their_order():
    p = math.log10(0.05)
    assert derived(odds_ratio=1.5)["beta"] == pytest.approx(math.log(1.5))
    from_t = derived(beta=-0.3, log10p=p, t=7.0, ci_lower=-9.0, ci_upper=9.0)
    assert from_t["se"] == pytest.approx(0.3 / 7) and from_t["z"] == pytest.approx(-7)
    assert derived(beta=0.0, t=0.0, log10p=0.0, ci_lower=-1, ci_upper=1)["se"] == pytest.approx(
        2 / 3.919928
    )
    from_z = derived(beta=-0.3, z=-2.0, log10p=p)
    assert from_z["se"] == pytest.approx(0.15) and from_z["z"] == -2
    from_p = derived(beta=-0.3, log10p=p, ci_lower=-9.0, ci_upper=9.0)
    assert from_p["se"] == pytest.approx(0.3 / 1.9599639845)
    assert from_p["z"] == pytest.approx(-1.9599639845)
    from_interval = derived(odds_ratio=1.5, ci_lower=1.2, ci_upper=1.9)
    assert from_interval["se"] == pytest.approx(math.log(1.9 / 1.2) / (2 * 1.959964))
    assert derived(beta=0.3, ci_lower=0.1, ci_upper=0.5)["se"] == pytest.approx(0.4 / 3.919928)
    for beta in (-0.7, -0.02, 0.0, 0.02, 1.1, 3.0):  # beta, and the interval of the ratio
        limits = np.exp([beta - 0.2, beta + 0.2]).round(3)
        of_ratio = derived(
            beta=beta, odds_ratio=np.exp(beta), ci_lower=limits[0], ci_upper=limits[1]
        )
        assert of_ratio["se"] == pytest.approx(0.4 / 3.919928, rel=0.02)
        of_beta = derived(beta=beta, ci_lower=beta - 0.2, ci_upper=beta + 0.2)
        assert of_beta["se"] == pytest.approx(0.4 / 3.919928)
    assert derived(beta=-0.3, t=-2.0)["se"] == pytest.approx(0.15)
    assert derived(beta=0.3, se=0.1, log10p=p)["z"] == pytest.approx(3)
    assert derived(z=-3.0)["log10p"] == pytest.approx(math.log10(0.0026997960632601866))
    assert derived(beta=1.0, se=0.02, log10p=-2.0)["log10p"] == -2


def test_the_error_of_a_regression_comes_from_its_t():
    """With few samples |beta| / z(p) is another number than the standard error; beta / t is it."""
    random = np.random.default_rng(5)
    x, y = random.standard_normal((2, 40, 20))
    fits = [stats.linregress(a, b) for a, b in zip(x, y, strict=True)]
    beta = np.array([fit.slope for fit in fits])
    errors = np.array([fit.stderr for fit in fits])
    given = {
        "beta": beta,
        "t": beta / errors,
        "log10p": np.log10([fit.pvalue for fit in fits]),
    }
    np.testing.assert_allclose(derive(given)["se"], errors, rtol=1e-14)
    without = derive({name: values for name, values in given.items() if name != "t"})
    assert np.max(without["se"] / errors) > 1.05 and np.min(without["se"] / errors) > 1


def test_z_of_a_p_beyond_a_double():
    made = SummaryStatistics.from_frame(table(beta=[-0.5], p=["1.2e-412"]))
    z = made.column("z")[0]
    assert z < 0 and log10_p_of_z(z) == pytest.approx(math.log10(1.2) - 412, rel=1e-12)
    assert made.p[0] == 0 and made.column("log10p")[0] < -411


def test_standardised_effects_only_when_allowed():
    given = table(z=[3.0], eaf=[0.3], n=[1000.0])
    plain = SummaryStatistics.from_frame(given, trait="t")
    assert not plain.has_effects and "z only" in repr(plain)
    with pytest.raises(NotAvailableError, match="scale='z'"):
        plain.to_effects()
    assert plain.to_effects(scale="z").bhat[0, 0] == 3
    allowed = SummaryStatistics.from_frame(given, allow_standardised=True)
    se = 1 / math.sqrt(2 * 0.3 * 0.7 * (1000 + 9))
    assert allowed.column("se")[0] == pytest.approx(se)
    assert allowed.column("beta")[0] == pytest.approx(3 * se)


@pytest.mark.parametrize("bad", [0.0, -0.1, None, float("nan"), float("inf")])
def test_rows_without_a_usable_error(bad, caplog):
    given = table(beta=[0.1, 0.2, 0.3], se=[0.1, bad, 0.1])
    with caplog.at_level(logging.WARNING, "plait.io"):
        made = SummaryStatistics.from_frame(given)
    assert len(made) == 2 and made.counts == {"bad_se": 1}
    assert "1 rows (1:2:G:A)" in caplog.text
    with pytest.raises(InputError, match="1:2:G:A"):
        SummaryStatistics.from_frame(given, bad_se="error")


def test_rows_with_impossible_ratios_and_p(caplog):
    made = SummaryStatistics.from_frame(
        table(odds_ratio=[1.1, 0.0, 2.0, 1.3], se=[0.1] * 4, p=["0.5", "0.1", "0", "1.5"])
    )
    assert made.counts == {"bad_ratio": 1} and len(made) == 3
    assert "p is written as 0" in caplog.text and "outside 0 to 1" in caplog.text
    np.testing.assert_allclose(
        made.column("log10p")[1:], log10_p_of_z(np.log([2.0, 1.3]) / 0.1), rtol=1e-12
    )


def test_all_rows_bad():
    with pytest.raises(InputError, match="1 rows"):
        SummaryStatistics.from_frame(table(beta=[0.1], se=[0.0]))


def test_what_is_refused():
    with pytest.raises(ShapeError, match="effect"):
        SummaryStatistics.from_frame(table(se=[0.1]))
    with pytest.raises(ShapeError, match="unknown columns"):
        SummaryStatistics.from_frame(table(beta=[0.1], b=[0.1]))
    with pytest.raises(ShapeError, match="completes"):
        SummaryStatistics(table(beta=[0.1]))
    with pytest.raises(OptionError, match="bad_se"):
        SummaryStatistics.from_frame(table(beta=[0.1], se=[0.1]), bad_se="keep")
    with pytest.raises(InputError, match="frequency"):
        SummaryStatistics.from_frame(table(beta=[0.1], se=[0.1], eaf=[1.2]))
    with pytest.raises(InputError, match="sample size"):
        SummaryStatistics.from_frame(table(beta=[0.1], se=[0.1], n=[-1.0]))
    with pytest.raises(InputError, match="position"):
        SummaryStatistics.from_frame(table(beta=[0.1], se=[0.1], pos=[-1]))


def test_to_effects_and_keys():
    made = SummaryStatistics.from_frame(table(beta=[0.1, 0.2], se=[0.1, 0.2]), trait="height")
    effects = made.to_effects()
    assert effects.effects.tolist() == ["1:1:G:A", "1:2:G:A"] and effects.contexts == ("height",)
    np.testing.assert_array_equal(effects.shat[:, 0], [0.1, 0.2])
    again = SummaryStatistics.from_frame(table(beta=[0.1, 0.2], se=[0.1] * 2, pos=[1, 1]))
    with pytest.raises(LabelError, match="repeat a variant"):
        again.to_effects("x")
    with pytest.raises(NotAvailableError, match="context"):
        again.to_effects()
    by_id = SummaryStatistics.from_frame(pl.DataFrame({"id": ["rs1"], "z": [1.0]}))
    assert by_id.keys.to_list() == ["rs1"]
    nameless = SummaryStatistics.from_frame(pl.DataFrame({"z": [1.0]}))
    with pytest.raises(LabelError, match="neither"):
        nameless.to_effects("x", scale="z")
    with pytest.raises(OptionError, match="scale"):
        made.estimates("odds")


def test_empty():
    empty = SummaryStatistics.from_frame(table(beta=[], se=[]).cast({"beta": float, "se": float}))
    assert len(empty) == 0 and empty.frame.columns == list(COLUMNS)


def test_lambda_gc_of_normal_quantiles():
    from scipy.special import ndtri

    assert lambda_gc(ndtri((np.arange(9999) + 0.5) / 9999)) == pytest.approx(1, abs=1e-3)


@settings(max_examples=60, deadline=None)
@given(st.floats(-5, 5).filter(lambda b: abs(b) > 1e-6), st.floats(1e-3, 10))
def test_se_from_p_inverts_p_from_z(beta, se):
    forward = derived(beta=beta, se=se)
    if abs(forward["z"]) > 1e-3:
        back = derived(beta=beta, log10p=forward["log10p"])
        assert back["se"] == pytest.approx(se, rel=1e-8)
        assert back["z"] == pytest.approx(forward["z"], rel=1e-8)
