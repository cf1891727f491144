"""Likelihood-ratio and score tests of the mixed model against dense likelihoods."""

import numpy as np
import pytest
from scipy import optimize, stats

from plait.data.phenotypes import SampleTable
from plait.errors import OptionError
from plait.gwas import VariantFilter, scan
from plait.io.relationship_files import RelationshipFile
from tests.gwas.conftest import InMemory, draw_calls

ALL = VariantFilter(min_call_rate=None, min_minor_count=None)


def table(values, prefix="t"):
    names = tuple(f"{prefix}{i}" for i in range(values.shape[1]))
    return SampleTable(np.array([f"s{i}" for i in range(len(values))]), names, values)


@pytest.fixture
def study():
    """99 samples in families of three, two traits that follow them, one of them with effects."""
    random = np.random.default_rng(21)
    calls = draw_calls(random, 5, 99)
    family = np.arange(99) // 3
    K = 0.5 * np.equal.outer(family, family) + 0.5 * np.eye(99)
    traits = random.normal(size=(33, 2))[family] + random.normal(size=(99, 2))
    traits[:, 0] += 0.5 * calls[2]
    covariates = random.normal(size=(99, 1))
    names = np.array([f"s{i}" for i in range(99)])
    return calls, traits, covariates, RelationshipFile(names, names, K)


def most_likely(y, X, variances):
    """The largest log-likelihood over coefficients, h2 and s2, of independent values."""

    def minus(h2):
        d = h2 * variances + 1 - h2
        b = np.linalg.lstsq(X / np.sqrt(d)[:, None], y / np.sqrt(d))[0]
        s2 = np.mean((y - X @ b) ** 2 / d)
        return -stats.norm.logpdf(y, X @ b, np.sqrt(s2 * d)).sum()

    grid = np.linspace(0, 1 - 1e-6, 101)
    best = int(np.argmin([minus(h2) for h2 in grid]))
    bounds = grid[max(best - 1, 0)], grid[min(best + 1, 100)]
    found = optimize.minimize_scalar(
        minus, bounds=bounds, method="bounded", options={"xatol": 1e-10}
    )
    return -min(found.fun, minus(bounds[0]), minus(bounds[1]))


def ratio_test(y, g, X, K):
    """log10 p by the likelihoods, with and without g, of the contrasts that X leaves."""
    contrasts = np.linalg.svd(X)[0][:, X.shape[1] :]
    variances, vectors = np.linalg.eigh(contrasts.T @ K @ contrasts)
    y, g = vectors.T @ contrasts.T @ y, vectors.T @ contrasts.T @ g
    nothing = np.empty((len(y), 0))
    heights = [most_likely(y, columns, variances) for columns in (nothing, g[:, None])]
    return np.log10(stats.chi2.sf(2 * (heights[1] - heights[0]), 1))


def test_ratio_of_dense_likelihoods(study):
    calls, traits, covariates, given = study
    options = {"model": "mixed", "relationships": given, "variant_filter": ALL}
    study = InMemory(calls), table(traits), table(covariates, "c")
    found = scan(*study, test="lrt", **options)
    X = np.column_stack([np.ones(99), covariates])
    for t in range(2):
        for j in range(5):
            expected = ratio_test(traits[:, t], calls[j].astype(float), X, given.matrix)
            assert found.log10p[j, t] == pytest.approx(expected, rel=1e-5, abs=1e-7)
    exact = scan(*study, exact_below=1, **options)
    np.testing.assert_array_equal(found.beta, exact.beta)
    np.testing.assert_array_equal(found.se, exact.se)
    assert found.provenance.options["test"] == "lrt"
    assert found.df is None
    assert exact.df is not None


def test_ratio_where_relationships_have_no_inverse():
    """Centred genotypes: the likelihood of the whole data grows without end as h2 nears 1."""
    random = np.random.default_rng(4)
    calls = draw_calls(random, 400, 80)
    source = InMemory(calls)
    traits = random.normal(size=(80, 4))
    options = {"model": "mixed", "loco": False, "variant_filter": ALL}
    found = scan(source, table(traits), test="lrt", **options)
    assert (found.h2 < 0.99).sum() >= 2
    centred = calls - calls.mean(axis=1, keepdims=True)
    K = centred.T @ centred
    K /= np.mean(np.diagonal(K))
    for t in np.flatnonzero(found.h2 < 0.99):
        for j in range(3):
            expected = ratio_test(traits[:, t], calls[j].astype(float), np.ones((80, 1)), K)
            assert found.log10p[j, t] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    wald = scan(source, table(traits), **options)
    np.testing.assert_allclose(found.log10p, wald.log10p, rtol=0.2, atol=0.1)


def test_score_test_of_dense_matrices(study):
    calls, traits, covariates, given = study
    options = {"model": "mixed", "relationships": given, "variant_filter": ALL}
    found = scan(InMemory(calls), table(traits), table(covariates, "c"), test="score", **options)
    X = np.column_stack([np.ones(99), covariates])
    for t in range(2):
        V = found.h2[t] * given.matrix + (1 - found.h2[t]) * np.eye(99)
        inverse = np.linalg.inv(V)
        P = inverse - inverse @ X @ np.linalg.solve(X.T @ inverse @ X, X.T @ inverse)
        y = traits[:, t]
        s2 = y @ P @ y / (99 - 2)
        for j in range(5):
            g = calls[j].astype(float)
            chi2 = (g @ P @ y) ** 2 / (g @ P @ g * s2)
            p = np.log10(stats.chi2.sf(chi2, 1))
            assert found.log10p[j, t] == pytest.approx(p, rel=2e-4, abs=2e-5)
            assert found.t[j, t] ** 2 == pytest.approx(chi2, rel=2e-4, abs=1e-6)


def test_tests_agree_where_samples_are_many():
    """Without effects and in large samples the three are one; with LOCO, and exact models."""
    random = np.random.default_rng(2)
    calls = draw_calls(random, 160, 600)
    source = InMemory(calls, chromosomes=["1"] * 80 + ["2"] * 80)
    traits = table(random.normal(size=(600, 1)) + 0.2 * calls[:30].sum(axis=0)[:, None])
    found = {
        test: scan(source, traits, model="mixed", test=test, variant_filter=ALL)
        for test in ("wald", "lrt", "score")
    }
    small = found["wald"].log10p[:, 0] > -3
    assert 100 < small.sum() <= 160
    for test in ("lrt", "score"):
        ours, theirs = found[test].log10p[small, 0], found["wald"].log10p[small, 0]
        np.testing.assert_allclose(ours, theirs, rtol=0.05, atol=0.02)


def test_what_does_not_go_together(study):
    calls, traits, _, given = study
    source = InMemory(calls), table(traits)
    with pytest.raises(OptionError, match="'lrt' is for model='mixed'; model is 'linear'"):
        scan(*source, test="lrt")
    with pytest.raises(OptionError, match="test is 'f'; give one of 'wald', 'lrt', 'score'"):
        scan(*source, model="mixed", test="f")
    with pytest.raises(OptionError, match=r"exact_below is 0\.5; test='lrt' always takes 1"):
        scan(*source, model="mixed", test="lrt", exact_below=0.5, relationships=given)
