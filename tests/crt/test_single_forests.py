"""Tests with means from random forests, under a null that no generalised linear model fits."""

import sys

import numpy as np
import pytest
from scipy import stats

from plait.crt import single_fits
from plait.crt.single_fits import forest_mean
from plait.crt.single_tests import dcrt_test, gcm_test, spacrt_test
from plait.errors import DependencyError, InputError, OptionError, TooFewSamplesError

sklearn_ensemble = pytest.importorskip("sklearn.ensemble")
FOREST = {"x_fit": "forest", "y_fit": "forest", "threads": 1}


def study(seed, n=500, effect=0.0, width=3):
    """Treatment and outcome that share a curve of a covariate: its square."""
    random = np.random.default_rng(seed)
    Z = random.uniform(-1, 1, (n, width))
    chance = 1 / (1 + np.exp(2 - 3 * Z[:, 0] ** 2 - Z[:, 0] * Z[:, 1]))
    x = (random.random(n) < chance).astype(float)
    mean = np.exp(0.2 + 1.5 * Z[:, 0] ** 2 + effect * x)
    return x, random.negative_binomial(2, 2 / (2 + mean)).astype(float), Z


@pytest.fixture
def small(monkeypatch):
    """Forests of fewer trees: many are grown here."""
    monkeypatch.setattr(single_fits, "_TREES", 50)
    monkeypatch.setattr(single_fits, "_TREES_TO_CHOOSE", 25)


def test_forests_hold_where_linear_models_fail(small):
    """In 40 true nulls at level 0.05; approximately: a level of 0.25 is ruled out, of 0.1 not."""
    found = {"linear": [], "forest": [], "forest, drawn": []}
    for run in range(40):
        x, y, Z = study(100 + run, n=400)
        found["linear"].append(spacrt_test(x, y, Z).p_value)
        means = {
            name: forest_mean(v, Z, name, seed=run, threads=1)
            for name, v in zip("xy", (x, y), strict=True)
        }
        given = {"x_mean": np.clip(means["x"], 1e-3, 1 - 1e-3), "y_mean": means["y"]}
        found["forest"].append(gcm_test(x, y, Z, **given).p_value)
        found["forest, drawn"].append(spacrt_test(x, y, Z, **given).p_value)
    rejected = {name: int((np.array(p) < 0.05).sum()) for name, p in found.items()}
    assert rejected["linear"] >= 30
    assert rejected["forest"] <= 4 and rejected["forest, drawn"] <= 5
    assert stats.binom.cdf(5, 40, 0.25) < 0.05 < stats.binom.sf(3, 40, 0.1)


def test_in_sample_means_break_the_test():
    """Residuals shrink and the law that x is drawn from has seen x: p-values are not uniform."""
    p = []
    for seed in range(50):
        x, y, Z = study(seed, n=300, width=5)
        x_mean, y_mean = (
            sklearn_ensemble.RandomForestRegressor(60, random_state=seed).fit(Z, v).predict(Z)
            for v in (x, y)
        )
        assert np.var(x - x_mean) < 0.3 * np.var(x)
        x_mean = np.clip(x_mean, 1 / 600, 1 - 1 / 600)
        p.append(spacrt_test(x, y, Z, x_mean=x_mean, y_mean=y_mean).p_value)
    assert stats.kstest(p, "uniform").pvalue < 1e-3
    assert np.median(p) > 0.6


def test_effects_are_found(small):
    for test in (gcm_test, dcrt_test, spacrt_test):
        x, y, Z = study(3, effect=0.8)
        assert test(x, y, Z, side="greater", **FOREST).p_value < 1e-3
        assert test(x, y, Z, side="less", **FOREST).p_value > 0.99


def test_draws_agree_with_the_saddlepoint(small):
    x, y, Z = study(8, effect=0.2)
    exact = spacrt_test(x, y, Z, seed=5, **FOREST)
    drawn = dcrt_test(x, y, Z, seed=5, B=20_000, **FOREST)
    assert exact.statistic == pytest.approx(drawn.statistic, rel=1e-9)
    error = np.sqrt(2 * exact.p_value / 20_000) + 1e-4
    assert abs(exact.p_value - drawn.p_value) < 4.5 * error + 0.02 * exact.p_value


def test_means_are_those_of_trees_that_have_not_seen_the_value():
    """Of one value changed far out of range, its own mean changes the least."""
    _, y, Z = study(4, n=200)
    before = forest_mean(y, Z, "y", seed=1)
    far = y.copy()
    far[17] += 1000.0
    change = np.abs(forest_mean(far, Z, "y", seed=1) - before)
    near = np.argsort(((Z - Z[17]) ** 2).sum(axis=1))[1:6]
    assert change[17] < change[near].min()


def test_threads_change_no_bits_and_seeds_do(small):
    x, y, Z = study(5)
    one = spacrt_test(x, y, Z, seed=3, **FOREST)
    assert one == spacrt_test(x, y, Z, seed=3, **FOREST | {"threads": 2})
    assert one != spacrt_test(x, y, Z, seed=4, **FOREST)
    assert np.array_equal(
        forest_mean(y, Z, "y", seed=9, threads=1), forest_mean(y, Z, "y", seed=9, threads=2)
    )


def test_probabilities_stay_inside(small):
    """Where hardly any cell is treated, some out-of-bag means are 0; the law needs more."""
    random = np.random.default_rng(6)
    Z = random.uniform(-1, 1, (400, 1))
    x = ((Z[:, 0] > 0.8) & (random.random(400) < 0.5)).astype(float)
    assert forest_mean(x, Z, "x", seed=1).min() == 0.0
    x[0] = 1.0 - x[0]
    y = random.poisson(2.0, 400)
    for family in ("binomial", "poisson"):
        found = spacrt_test(x, y, Z, x_family=family, **FOREST)
        assert found.success and 0.0 < found.p_value <= 1.0
    assert 0 < dcrt_test(x, y, Z, x_family="negative.binomial", B=99, **FOREST).p_value <= 1


def test_values_of_any_kind(small):
    """No family is asked of what a forest fits: both may be continuous."""
    random = np.random.default_rng(7)
    Z = random.uniform(-1, 1, (400, 2))
    x = np.abs(Z[:, 0]) + random.normal(size=400)
    y = np.abs(Z[:, 0]) - 0.5 * x + random.normal(size=400)
    assert gcm_test(x, y, Z, **FOREST).p_value < 1e-6
    assert gcm_test(x, y, Z, side="less", **FOREST).statistic < 0


def test_errors(monkeypatch):
    x, y, Z = study(1)
    with pytest.raises(OptionError, match="x_fit is 'rf'; give one of glm, forest"):
        gcm_test(x, y, Z, x_fit="rf")
    with pytest.raises(OptionError, match="y_mean is given; y_fit='forest' fits nothing"):
        gcm_test(x, y, Z, y_mean=y, y_fit="forest")
    with pytest.raises(TooFewSamplesError, match="needs 20 observations; there are 12"):
        gcm_test(x[:12], y[:12], Z[:12], **FOREST)
    with pytest.raises(InputError, match="needs covariates; Z has none"):
        gcm_test(x, y, np.empty((500, 0)), **FOREST)
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(DependencyError, match=r"pip install 'plait\[forest\]'"):
        gcm_test(x, y, Z, **FOREST)
