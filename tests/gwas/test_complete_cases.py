"""Where the samples that lack a call carry what varies, or nothing is left to be tested."""

import numpy as np
import pytest

from plait.gwas import VariantFilter, scan
from tests.gwas.conftest import Dosages, InMemory, as_dosages, draw_calls
from tests.gwas.test_scan import ALL, table

CONSTANT = "without variation of the trait"
PERFECT = "a perfect fit of the trait"
EXPLAINED = "collinearity with the covariates"
PRECISIONS = pytest.mark.parametrize("precision", ["single", "double"])
SOURCES = pytest.mark.parametrize(
    "source", [InMemory, lambda calls: Dosages(as_dosages(calls))], ids=["calls", "dosages"]
)


def t_by_qr(genotype, y, covariates):
    """The t-statistic of the samples with a call, from residuals."""
    used = genotype >= 0
    columns = [np.ones(used.sum()), *covariates[used].T, genotype[used]]
    X = np.column_stack([column / np.linalg.norm(column) for column in columns])
    q, r = np.linalg.qr(X)
    slope = np.linalg.solve(r, q.T @ y[used])
    residual = y[used] - X @ slope
    error = np.sqrt(residual @ residual / (used.sum() - X.shape[1])) / abs(r[-1, -1])
    return slope[-1] / error


@PRECISIONS
@SOURCES
def test_a_trait_that_does_not_vary_among_the_called(random_calls, precision, source):
    """All cases lack the call of 20 variants; the second trait varies everywhere."""
    random, calls = random_calls
    calls[:20, :5] = -1
    traits = np.column_stack([np.arange(300) < 5, random.normal(size=300)])
    found = scan(source(calls), table(traits), missing_genotypes="drop", precision=precision)
    assert np.isnan(found.log10p[:20, 0]).all()
    assert np.isfinite(found.log10p[20:, 0]).all()
    assert np.isfinite(found.log10p[:, 1]).all()
    assert found.filtered == {CONSTANT: 20}
    alone = scan(source(calls), table(traits[:, 1:]), missing_genotypes="drop", precision=precision)
    np.testing.assert_allclose(found.t[:, 1], alone.t[:, 0], atol=1e-4)


@PRECISIONS
def test_a_trait_that_covariates_explain_among_the_called(random_calls, precision):
    random, calls = random_calls
    calls[:20, :5] = -1
    covariate = random.normal(size=(300, 1))
    trait = 2 * covariate + 1
    trait[:5] += 1
    found = scan(
        InMemory(calls), table(trait), table(covariate, "c"),
        missing_genotypes="drop", precision=precision,
    )  # fmt: skip
    assert np.isnan(found.se[:20]).all()
    assert np.isfinite(found.se[20:]).all()
    assert found.filtered == {CONSTANT: 20}


@pytest.mark.parametrize(("seed", "is_predicted"), [(3, False), (4, True)])
def test_whole_genome_with_cases_that_lack_the_call(seed, is_predicted):
    """What predictions leave of the trait varies, but nothing was seen of it."""
    calls = draw_calls(np.random.default_rng(seed), 60, 300)
    calls[:20, :5] = -1
    source = InMemory(calls, chromosomes=["1"] * 30 + ["2"] * 30)
    trait = (np.arange(300) < 5).astype(float)[:, None]
    found = scan(source, table(trait), model="whole-genome", missing_genotypes="drop")
    assert (found.explained[0] > 0) == is_predicted
    assert np.isnan([found.beta[:20], found.se[:20], found.log10p[:20]]).all()
    assert np.isfinite(found.log10p[20:]).all()
    assert found.filtered == {CONSTANT: 20}


@SOURCES
@pytest.mark.parametrize(("precision", "tolerance"), [("double", 1e-10), ("single", 1e-5)])
@pytest.mark.parametrize("scale", [1, 10, 1e2, 1e4])
@pytest.mark.parametrize("noise", [1, 0.05, 2e-3])
def test_covariates_and_traits_that_the_missing_dominate(
    random_calls, precision, tolerance, source, scale, noise
):
    random, calls = random_calls
    calls[:, :20] = -1
    covariates = calls[:2].T + noise * random.normal(size=(300, 2))
    covariates[:20] = scale * random.normal(size=(20, 2))
    traits = random.normal(size=(300, 2))
    traits[:20, 1] *= scale
    found = scan(
        source(calls), table(traits), table(covariates, "c"),
        missing_genotypes="drop", precision=precision, variant_filter=ALL,
    )  # fmt: skip
    expected = [[t_by_qr(g, y, covariates) for y in traits.T] for g in calls]
    np.testing.assert_allclose(found.t, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("precision", "tolerance"), [("double", 1e-10), ("single", 1e-5)])
@pytest.mark.parametrize("noise", [0.1, 1e-2, 1e-3, 1e-5])
def test_a_trait_that_is_nearly_the_genotype(random_calls, precision, tolerance, noise):
    random, calls = random_calls
    calls[0, :9] = -1
    trait = calls[0] + noise * random.normal(size=300)
    trait[:9] = 30 * random.normal(size=9)
    found = scan(
        InMemory(calls[:1]), table(trait[:, None]),
        missing_genotypes="drop", precision=precision, variant_filter=ALL,
    )  # fmt: skip
    expected = t_by_qr(calls[0], trait, np.empty((300, 0)))
    assert found.t[0, 0] == pytest.approx(expected, rel=tolerance)


@PRECISIONS
def test_a_covariate_that_is_the_variant_among_the_called(random_calls, precision):
    random, calls = random_calls
    calls[:3, :20] = -1
    covariates = calls[:3].T.astype(float)
    covariates[:20] = 20 * random.normal(size=(20, 3))
    found = scan(
        InMemory(calls), table(random.normal(size=(300, 2))), table(covariates, "c"),
        missing_genotypes="drop", precision=precision, variant_filter=ALL,
    )  # fmt: skip
    assert np.isnan(found.se[:3]).all()
    assert np.isfinite(found.se[3:]).all()
    assert found.filtered == {EXPLAINED: 6}


@PRECISIONS
@SOURCES
@pytest.mark.parametrize("missing", ["mean", "drop"])
@pytest.mark.parametrize("with_missing", [False, True])
def test_a_trait_that_is_a_genotype(random_calls, precision, source, missing, with_missing):
    """An error of 0 is never honest: the test has no result, the others and mash go on."""
    random, calls = random_calls
    covariate = random.normal(size=(300, 1))
    traits = np.column_stack([2 * calls[3] + 3 * covariate[:, 0] + 1, random.normal(size=300)])
    if with_missing:
        traits[:9, 0] = np.nan if missing == "mean" else 1.0
        calls[3, :9] = -1
    found = scan(
        source(calls), table(traits), table(covariate, "c"),
        missing_genotypes=missing, precision=precision,
    )  # fmt: skip
    assert np.isnan([found.beta[3, 0], found.se[3, 0], found.log10p[3, 0]]).all()
    assert found.filtered == {PERFECT: 1}
    assert np.isfinite(np.delete(found.log10p.ravel(), 6)).all()
    assert np.isfinite(found.lambda_gc).all()
    assert found.to_effects().n_effects >= 59


def test_variants_that_rules_remove_are_not_counted_twice(random_calls):
    _, calls = random_calls
    calls[:20, :5] = -1
    trait = (np.arange(300) < 5).astype(float)[:, None]
    rules = VariantFilter(min_call_rate=0.99)
    found = scan(InMemory(calls), table(trait), missing_genotypes="drop", variant_filter=rules)
    assert found.filtered == {"call rate": 20}


@pytest.fixture
def random_calls():
    random = np.random.default_rng(11)
    return random, draw_calls(random, 60, 300)
