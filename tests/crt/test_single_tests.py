"""Tests of one treatment and one outcome: against formulas, enumeration, draws and statsmodels."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from plait.crt.single_fits import fitted_mean
from plait.crt.single_tests import dcrt_test, gcm_test, spacrt_test
from plait.errors import ConvergenceWarning, InputError, OptionError, ShapeError

SIDES = ("two.sided", "greater", "less")


def study(seed=0, n=600, rate=-2.5, effect=0.0, counts=False):
    """Covariates, treatment and an overdispersed outcome."""
    random = np.random.default_rng(seed)
    Z = random.standard_normal((n, 2))
    eta = rate + 0.8 * Z[:, 0]
    x = random.poisson(np.exp(eta)) if counts else random.random(n) < 1 / (1 + np.exp(-eta))
    mean = np.exp(0.3 + 0.5 * Z[:, 0] + effect * x)
    y = random.negative_binomial(1.5, 1.5 / (1.5 + mean))
    return x.astype(float), y.astype(float), Z


@pytest.mark.parametrize("side", SIDES)
def test_gcm_is_its_formula(side):
    x, y, Z = study()
    random = np.random.default_rng(1)
    x_mean, y_mean = random.random(600) * 0.2, random.random(600) * 2
    found = gcm_test(x, y, Z, x_mean=x_mean, y_mean=y_mean, side=side)
    products = (x - x_mean) * (y - y_mean)
    statistic = products.sum() / np.sqrt(600) / products.std()
    p = {
        "two.sided": 2 * stats.norm.sf(abs(statistic)),
        "greater": stats.norm.sf(statistic),
        "less": stats.norm.cdf(statistic),
    }[side]
    assert found.statistic == pytest.approx(statistic, rel=1e-12)
    assert found.p_value == pytest.approx(p, rel=1e-12)
    assert found.log10_p == pytest.approx(np.log10(p), rel=1e-12)


def test_fits_against_statsmodels():
    sm = pytest.importorskip("statsmodels.api")
    x, y, Z = study(2)
    design = sm.add_constant(Z)
    for values, family, model in (
        (x, "binomial", sm.families.Binomial()), (y, "poisson", sm.families.Poisson()),
    ):  # fmt: skip
        mean, theta = fitted_mean(values, Z, family, "values")
        expected = sm.GLM(values, design, family=model).fit(tol=1e-12).fittedvalues
        np.testing.assert_allclose(mean, expected, rtol=1e-7)
        assert theta == np.inf
    mean, theta = fitted_mean(y, Z, "negative.binomial", "y")
    model = sm.families.NegativeBinomial(alpha=1 / theta)
    expected = sm.GLM(y, design, family=model).fit(tol=1e-12).fittedvalues
    np.testing.assert_allclose(mean, expected, rtol=1e-6)
    # theta is the maximum of the likelihood given the means of the Poisson regression.
    poisson = fitted_mean(y, Z, "poisson", "y")[0]

    def likelihood(theta):
        return stats.nbinom.logpmf(y, theta, theta / (theta + poisson)).sum()

    assert likelihood(theta) > max(likelihood(0.999 * theta), likelihood(1.001 * theta))


def test_dispersion_of_counts_that_have_none():
    random = np.random.default_rng(3)
    Z = random.standard_normal((300, 1))
    y = random.binomial(4, 0.5, 300).astype(float)
    mean, theta = fitted_mean(y, Z, "negative.binomial", "y")
    assert theta > 1e4
    np.testing.assert_allclose(mean, fitted_mean(y, Z, "poisson", "y")[0], rtol=1e-3)
    few = np.zeros(300)
    few[:2] = 400.0
    assert 1e-4 <= fitted_mean(few, Z, "negative.binomial", "y")[1] < 0.1


@pytest.mark.parametrize("side", SIDES)
def test_the_saddlepoint_against_enumeration(side):
    """All 2^14 treatments of 14 observations."""
    random = np.random.default_rng(4)
    p, w = random.uniform(0.2, 0.7, 14), random.standard_normal(14)
    everything = np.array(list(product((0.0, 1.0), repeat=14)))
    chance = np.prod(np.where(everything == 1, p, 1 - p), axis=1)
    null = (everything - p) @ w
    for place in (3, 5000, 9000, 16_000):
        x = everything[place]
        tie = 1e-9
        greater = chance[null >= null[place] - tie].sum()
        less = chance[null <= null[place] + tie].sum()
        exact = {"greater": greater, "less": less, "two.sided": min(1, 2 * min(greater, less))}
        given = {"x_mean": p, "y_mean": np.zeros(14), "side": side}
        found = spacrt_test(x, w, np.zeros((14, 1)), **given)
        assert found.success
        assert found.p_value == pytest.approx(exact[side], rel=0.05, abs=0.003)
        drawn = dcrt_test(x, w, np.zeros((14, 1)), **given, B=40_000, seed=place)
        error = 2 * np.sqrt(exact[side] * (1 - exact[side] / 2) / 40_000) + 1e-4
        assert abs(drawn.p_value - exact[side]) < 4.5 * error
        assert drawn.statistic == pytest.approx(null[place] / np.sqrt(14), rel=1e-9)


@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize("side", SIDES)
def test_the_saddlepoint_is_the_limit_of_draws(counts, side):
    family = "poisson" if counts else "binomial"
    for seed, effect in ((5, 0.0), (6, 0.25), (7, -0.2)):
        x, y, Z = study(seed, effect=effect, counts=counts)
        exact = spacrt_test(x, y, Z, x_family=family, side=side)
        drawn = dcrt_test(x, y, Z, x_family=family, side=side, B=12_000, seed=seed)
        assert exact.success and exact.statistic == pytest.approx(drawn.statistic, rel=1e-9)
        error = np.sqrt(2 * exact.p_value / 12_000) + 1e-4
        assert abs(exact.p_value - drawn.p_value) < 4.5 * error + 0.01 * exact.p_value
        assert exact.log10_p == pytest.approx(np.log10(exact.p_value), rel=1e-9)


def test_deep_tails_neither_overflow_nor_vanish():
    random = np.random.default_rng(8)
    n = 4000
    p = np.full(n, 0.3)
    w = 1e3 * random.standard_normal(n)
    x = (w > 200).astype(float)
    found = spacrt_test(x, w, np.zeros((n, 1)), x_mean=p, y_mean=np.zeros(n))
    assert found.success and found.p_value == 0.0
    assert -2000 < found.log10_p < -308
    scaled = spacrt_test(x, 1e-5 * w, np.zeros((n, 1)), x_mean=p, y_mean=np.zeros(n))
    assert scaled.log10_p == pytest.approx(found.log10_p, rel=1e-6)


def test_without_a_saddlepoint_the_result_is_normal():
    p, w = np.full(30, 0.4), np.linspace(-1, 1, 30)
    x = (w > 0).astype(float)  # the largest sum that there is
    given = {"x_mean": p, "y_mean": np.zeros(30)}
    for side in SIDES:
        found = spacrt_test(x, w, np.zeros((30, 1)), side=side, **given)
        normal = gcm_test(x, w, np.zeros((30, 1)), side=side, **given)
        assert not found.success
        assert (found.statistic, found.p_value) == (normal.statistic, normal.p_value)


@pytest.mark.filterwarnings("ignore:the regression of")
def test_treatments_without_variation_are_not_significant():
    """A saddlepoint of a law that is one point would find p = 0."""
    _, y, Z = study(12, n=60)
    few = np.random.default_rng(1).normal(size=(10, 30))
    for x, outcome, covariates in (
        (np.zeros(60), y, Z), (np.ones(60), y, Z), (y[:10] % 2, y[:10], few),
    ):  # fmt: skip
        found = spacrt_test(x, outcome, covariates, y_family="poisson")
        normal = gcm_test(x, outcome, covariates, y_family="poisson")
        assert not found.success
        assert found.p_value == normal.p_value > 0.05


@pytest.mark.filterwarnings("ignore:the regression of")
def test_what_covariates_explain_wholly_is_not_significant():
    """What a regression leaves of separated treatments are rounding errors with the signs of x."""
    random = np.random.default_rng(3)
    z = random.normal(size=(200, 1))
    x = (z[:, 0] > 0).astype(float)
    y = random.poisson(np.exp(1.0 + 2.0 * x)).astype(float)
    for found in (gcm_test(x, y, z, y_family="poisson"), spacrt_test(x, y, z, y_family="poisson")):
        assert (found.statistic, found.p_value, found.log10_p) == (0.0, 1.0, 0.0)
    few = random.normal(size=(10, 30))
    for scale in (1.0, 1e-6):  # of whatever has means of its own
        given = {"x_mean": scale * (x[:10] - 1e-14), "y_mean": np.full(10, 2.0)}
        assert gcm_test(scale * x[:10], y[:10], few, **given).p_value == 1.0
    assert gcm_test(x[:10], y[:10], few, y_family="poisson").p_value == 1.0


def test_two_sided_p_values_are_at_most_1():
    p, w = np.full(2000, 0.5), np.tile([1.0, -1.0], 1000)
    x = np.tile([1.0, 1.0, 0.0, 0.0], 500)
    given = {"x_mean": p, "y_mean": np.zeros(2000)}
    assert spacrt_test(x, w, np.zeros(2000), **given).p_value == 1.0
    assert dcrt_test(x, w, np.zeros(2000), **given, B=500).p_value <= 1.0


def test_p_values_are_uniform_under_the_null():
    found = {"spa": [], "gcm": []}
    for seed in range(400):
        x, y, Z = study(1000 + seed, n=300)
        found["spa"].append(spacrt_test(x, y, Z).p_value)
        found["gcm"].append(gcm_test(x, y, Z).p_value)
    assert stats.kstest(found["spa"], "uniform").pvalue > 1e-4
    rank = stats.spearmanr(found["spa"], found["gcm"]).statistic
    assert rank > 0.95


def test_draws_of_negative_binomial_treatments():
    random = np.random.default_rng(9)
    Z = random.standard_normal((600, 2))
    x = random.negative_binomial(0.8, 0.8 / (0.8 + np.exp(-1.0 + 0.5 * Z[:, 0]))).astype(float)
    y = random.poisson(np.exp(0.3 + 0.5 * Z[:, 0] + 0.04 * x)).astype(float)
    one = dcrt_test(x, y, Z, x_family="negative.binomial", B=5000, seed=1)
    assert one == dcrt_test(x, y, Z, x_family="negative.binomial", B=5000, seed=1)
    mean, theta = fitted_mean(x, Z, "negative.binomial", "x")
    w = y - fitted_mean(y, Z, "negative.binomial", "y")[0]
    law = stats.nbinom(theta, theta / (theta + mean))
    null = law.rvs((10_000, len(x)), random_state=np.random.default_rng(2)) @ w
    tail = min((null >= x @ w).mean(), (null <= x @ w).mean())
    error = 2 * np.sqrt(tail * (1 - tail) * (1 / 5000 + 1 / 10_000))
    assert abs(one.p_value - 2 * tail) < 5 * error
    poisson = spacrt_test(x, y, Z, x_family="poisson")  # which varies less
    assert poisson.p_value < one.p_value - 5 * error
    with pytest.raises(OptionError, match="not the dispersion"):
        dcrt_test(x, y, Z, x_family="negative.binomial", x_mean=mean)


def test_separated_treatments_warn():
    random = np.random.default_rng(11)
    Z = np.sort(random.standard_normal((80, 1)), axis=0)
    x = (Z[:, 0] > 0).astype(float)
    with pytest.warns(ConvergenceWarning, match="regression of x"):
        fitted_mean(x, Z, "binomial", "x")


def test_errors():
    x, y, Z = study()
    with pytest.raises(OptionError, match="side is 'both'"):
        gcm_test(x, y, Z, side="both")
    with pytest.raises(OptionError, match="family is 'normal'"):
        gcm_test(x, y, Z, y_family="normal")
    with pytest.raises(OptionError, match="a saddlepoint is there"):
        spacrt_test(x, y, Z, x_family="negative.binomial")
    with pytest.raises(OptionError, match="at least 1"):
        dcrt_test(x, y, Z, B=0)
    with pytest.raises(ShapeError, match="y has the shape"):
        gcm_test(x, y[:-1], Z)
    one_missing = np.where(np.arange(600)[:, None] == 0, [np.nan, 0.0], Z)
    with pytest.raises(InputError, match="Z has 1 value not finite"):
        gcm_test(x, y, one_missing)
    with pytest.raises(InputError, match="zeros and ones"):
        gcm_test(2 * x, y, Z)
    with pytest.raises(InputError, match="must be counts"):
        gcm_test(x, y - 0.5, Z)
    with pytest.raises(InputError, match="means of x must lie"):
        spacrt_test(x, y, Z, x_mean=np.full(600, 1.5))
    with pytest.raises(InputError, match="impossible by their means"):
        dcrt_test(x, y, Z, x_mean=1 - x)
    with pytest.raises(InputError, match="impossible by their means"):
        spacrt_test(x, y, Z, x_family="poisson", x_mean=np.zeros(600))
    with pytest.raises(InputError, match="do not vary"):
        gcm_test(x, y, Z, x_mean=x, y_mean=y)
