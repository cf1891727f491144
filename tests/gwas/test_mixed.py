"""The mixed-model scan against dense algebra, its limits, and what it is for."""

import numpy as np
import pytest
from scipy import optimize, stats

from plait.data.genotype_blocks import read_block
from plait.data.phenotypes import SampleTable
from plait.errors import ModelWarning, OptionError
from plait.gwas import VariantFilter, relationship_matrix, scan
from plait.gwas.design import make_designs
from plait.gwas.mixed import MixedGroup, NullModel
from plait.numerics.reml import RestrictedModel
from tests.gwas.conftest import InMemory, least_squares

ALL = VariantFilter(min_call_rate=None, min_minor_count=None)


def table(values, prefix="t"):
    names = tuple(f"{prefix}{i}" for i in range(values.shape[1]))
    return SampleTable(np.array([f"s{i}" for i in range(len(values))]), names, values)


def families(random, n_variants, n_families, size):
    """Families of full siblings: genotypes (variants, samples) and the family of each sample."""
    frequency = random.uniform(0.2, 0.8, (n_variants, 1))
    parents = random.random((n_variants, n_families, 2, 2)) < frequency[:, :, None, None]
    calls = np.zeros((n_variants, n_families, size), dtype=np.int8)
    for child in range(size):
        for parent in range(2):
            which = random.integers(0, 2, (n_variants, n_families))
            calls[:, :, child] += np.take_along_axis(
                parents[:, :, parent], which[:, :, None], axis=2
            )[:, :, 0]
    return calls.reshape(n_variants, -1), np.repeat(np.arange(n_families), size)


@pytest.fixture
def related():
    random = np.random.default_rng(11)
    calls, family = families(random, 300, 40, 3)
    background = random.normal(size=(40, 3))[family]
    traits = background + random.normal(size=(120, 3)) + 0.4 * calls[7][:, None]
    return calls, traits, random.normal(size=(120, 2)), random


def dense(y, X, K):
    """REML of h2 by dense algebra, and the generalised least squares of the last column."""

    def at(h2):
        V = h2 * K + (1 - h2) * np.eye(len(K))
        inverse = np.linalg.inv(V)
        gram = X.T @ inverse @ X
        b = np.linalg.solve(gram, X.T @ inverse @ y)
        e = y - X @ b
        n = len(y) - X.shape[1]
        squares = e @ inverse @ e
        value = n * np.log(squares) + np.linalg.slogdet(V)[1] + np.linalg.slogdet(gram)[1]
        return value, b[-1], np.sqrt(squares / n * np.linalg.inv(gram)[-1, -1])

    grid = np.linspace(0, 0.999, 200)
    best = grid[np.argmin([at(h2)[0] for h2 in grid])]
    found = optimize.minimize_scalar(
        lambda h2: at(h2)[0],
        bounds=(max(best - 0.01, 0), min(best + 0.01, 0.999999)),
        method="bounded",
        options={"xatol": 1e-12},
    )
    return found.x, at


def test_against_dense_algebra(related):
    calls, traits, covariates, _ = related
    source = InMemory(calls)
    K = relationship_matrix(source).matrix()
    K = K / np.diag(K).mean()
    fixed = scan(
        source, table(traits), table(covariates, "c"),
        model="mixed", loco=False, exact_below=0, variant_filter=ALL,
    )  # fmt: skip
    exact = scan(
        source, table(traits), table(covariates, "c"),
        model="mixed", loco=False, exact_below=1, variant_filter=ALL,
    )  # fmt: skip
    null = np.column_stack([np.ones(120), covariates])
    for t in range(3):
        h2, _ = dense(traits[:, t], null, K)
        assert fixed.h2[t] == pytest.approx(h2, abs=1e-5)
        for j in (0, 7, 100):
            X = np.column_stack([null, calls[j]])
            own, at = dense(traits[:, t], X, K)
            _, beta, se = at(h2)
            assert fixed.beta[j, t] / se == pytest.approx(beta / se, abs=2e-5)
            assert fixed.se[j, t] == pytest.approx(se, rel=2e-5)
            _, beta, se = at(own)
            assert exact.beta[j, t] == pytest.approx(beta, abs=1e-4 * se)
            assert exact.se[j, t] == pytest.approx(se, rel=1e-4)
            p = 2 * stats.t.sf(abs(beta / se), 120 - 4)
            assert 10 ** exact.log10p[j, t] == pytest.approx(p, rel=1e-3)


def test_unrelated_samples_give_ordinary_regressions(related):
    calls, traits, covariates, _ = related
    source, rows = InMemory(calls), np.arange(120)
    design = make_designs(table(traits), table(covariates, "c"), rows)[0]
    null = NullModel(design, np.eye(120))
    found = MixedGroup(null, None, ALL, 0.0).run(read_block(source, slice(0, 20)))
    for j in range(20):
        for t in range(3):
            beta, se, log10p = least_squares(calls[j], traits[:, t], covariates)
            assert found.beta[j, t] / se == pytest.approx(beta / se, abs=2e-5)
            assert found.log10p[j, t] == pytest.approx(log10p, abs=1e-4)


def test_without_heritability_it_is_the_linear_scan(related):
    calls, _, _, random = related
    source = InMemory(calls)
    traits = table(random.normal(size=(120, 4)))
    mixed = scan(source, traits, model="mixed", loco=False, exact_below=0)
    linear = scan(source, traits)
    zero = mixed.h2 < 1e-6
    assert zero.any()
    np.testing.assert_allclose(mixed.t[:, zero], linear.t[:, zero], atol=5e-5)


def test_boundaries_and_errors_of_the_share():
    """Traits that follow K entirely, or not at all; the standard error by simulation."""
    random = np.random.default_rng(1)
    values = random.gamma(1.0, 1.0, 600)
    X = np.ones((600, 1)) + 0.1 * random.normal(size=(600, 1))
    share = np.array([0.0, 0.5, 0.999])
    d = share * values[:, None] + 1 - share
    basis, K = np.linalg.qr(X)[0], np.diag(values)
    fit = RestrictedModel.of(K, basis, np.sqrt(d) * random.normal(size=(600, 3))).fit()
    assert fit.h2[0] < 0.2
    assert fit.h2[2] > 0.9
    many = np.sqrt(0.5 * values + 0.5)[:, None] * random.normal(size=(600, 300))
    fit = RestrictedModel.of(K, basis, many).fit()
    inside = ~fit.at_boundary
    assert abs(fit.h2.mean() - 0.5) < 5 * fit.h2.std() / np.sqrt(300)
    assert np.median(fit.se[inside]) == pytest.approx(fit.h2.std(), rel=0.25)


def test_cuts_and_threads_do_not_change_a_bit(related, monkeypatch):
    calls, traits, _, _ = related
    source = InMemory(calls, chromosomes=["1"] * 130 + ["2"] * 170)
    base = scan(source, table(traits), model="mixed", threads=1)
    monkeypatch.setattr(InMemory, "block_size", lambda self: 256)
    again = scan(source, table(traits), model="mixed", threads=3)
    for name in ("beta", "se", "log10p", "h2", "V0"):
        np.testing.assert_array_equal(getattr(again, name), getattr(base, name))


def test_relatedness_inflates_the_linear_scan_only():
    """Polygenic traits in families: null variants lie on chromosomes of their own."""
    random = np.random.default_rng(2)
    calls, _ = families(random, 3000, 100, 4)
    causal = calls[:1500].astype(float)
    causal -= causal.mean(axis=1, keepdims=True)
    polygenic = causal.T @ random.normal(size=(1500, 2))
    polygenic /= polygenic.std(axis=0)
    traits = table(polygenic + 0.7 * random.normal(size=(400, 2)))
    source = InMemory(calls, chromosomes=["1"] * 1500 + ["2"] * 1500)
    linear = scan(source, traits, variant_filter=VariantFilter())
    mixed = scan(source, traits, model="mixed")
    null = slice(1500, None)
    inflation = [np.median(result.t[null] ** 2) / 0.4549 for result in (linear, mixed)]
    assert inflation[0] > 1.3
    assert 0.85 < inflation[1] < 1.15
    assert (mixed.h2 > 0.4).all()
    assert "h2 0." in mixed.summary()


def test_bad_input(related):
    calls, traits, _, _ = related
    source = InMemory(calls)
    with pytest.raises(OptionError, match="missing_genotypes='mean' only"):
        scan(source, table(traits), model="mixed", missing_genotypes="drop")
    with pytest.raises(OptionError, match="exact_below"):
        scan(source, table(traits), model="mixed", loco=False, exact_below=2)
    with pytest.warns(ModelWarning, match="one chromosome only"):
        scan(source, table(traits[:, :1]), model="mixed", loco=True, exact_below=0)


def test_what_is_left_out_is_counted_by_tests(related):
    calls, traits, _, _ = related
    calls = calls.copy()
    calls[:2] = 0
    found = scan(InMemory(calls), table(traits), model="mixed")
    assert found.filtered["monomorphic"] == 2 * traits.shape[1]
