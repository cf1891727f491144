"""The mixed-model scan against dense algebra, its limits, and what it is for."""

import numpy as np
import pytest
from scipy import optimize, stats

from plait.data.genotype_blocks import read_block
from plait.data.phenotypes import SampleTable
from plait.errors import ModelWarning, OptionError
from plait.gwas import VariantFilter, relationship_matrix, scan
from plait.gwas.calibration import TOLERANCE
from plait.gwas.design import EXACT_BELOW, make_designs
from plait.gwas.linear import GroupedScan
from plait.gwas.mixed import MixedGroup, MixedModel
from plait.gwas.null_models import NullModel
from plait.gwas.passes import joined
from plait.numerics.reml import RestrictedModel
from tests.gwas.conftest import InMemory, draw_calls, least_squares

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


def populations(random, n_variants, n_samples, apart):
    """Three populations whose frequencies differ (Balding and Nichols 1995)."""
    p = random.uniform(0.1, 0.9, (n_variants, 1))
    spread = (1 - apart) / apart
    own = random.beta(np.repeat(p * spread, 3, axis=1), np.repeat((1 - p) * spread, 3, axis=1))
    return random.binomial(2, own[:, np.arange(n_samples) % 3]).astype(np.int8)


@pytest.fixture(scope="module")
def structured():
    """Genotypes on two chromosomes, and the scan of traits that follow them, calibrated."""
    random = np.random.default_rng(21)
    calls = populations(random, 3000, 500, 0.1)
    calls[random.random(calls.shape) < 0.01] = -1
    source = InMemory(calls, chromosomes=["1"] * 1500 + ["2"] * 1500)
    effects = random.normal(size=(3000, 2)) * (random.random((3000, 1)) < 0.003)
    genetic = np.maximum(calls, 0).T @ effects
    traits = table(genetic / genetic.std(axis=0) + random.normal(size=(500, 2)))
    return source, make_designs(traits, None, np.arange(500))


def scans(source, designs, exact_below=EXACT_BELOW, threads=1):
    """Return the model, its scans with calibration where it serves, and with rotation."""
    model = MixedModel(source, designs, ALL, True, exact_below, None, threads)
    calibrated, rotated = [], []
    for runs, make in model.passes():
        work = make()
        nulls = model._nulls(model.checks[-1]["chromosome"])
        groups = [MixedGroup(null, None, ALL, exact_below) for null in nulls]
        exact = GroupedScan(source, groups, len(model.h2))
        calibrated += [work.run(run) for run in runs]
        rotated += [exact.run(run) for run in runs]
    return model, joined(calibrated), joined(rotated)


def test_structure_is_calibrated_along_leading_eigenvectors(structured):
    model, calibrated, rotated = scans(*structured, exact_below=0)
    assert [check["chromosome"] for check in model.checks] == ["1", "2"]
    for check in model.checks:
        assert check["leading"] == 16
        assert check["ratio_sd"] > 0.03
        assert check["error"] < TOLERANCE
    ratio = calibrated.se / rotated.se - 1
    measured = max(check["error"] for check in model.checks)
    assert 0.3 * measured < np.sqrt((ratio**2).mean()) < 1.3 * measured


def test_small_p_values_do_not_depend_on_calibration(structured):
    _, calibrated, rotated = scans(*structured)
    small = rotated.log10p < np.log10(EXACT_BELOW)
    assert small.sum() > 10
    np.testing.assert_array_equal(calibrated.log10p < np.log10(EXACT_BELOW), small)
    np.testing.assert_array_equal(calibrated.beta[small], rotated.beta[small])
    np.testing.assert_array_equal(calibrated.log10p[small], rotated.log10p[small])


def test_scores_are_those_of_the_inverse_covariance(structured):
    source, designs = structured
    K = relationship_matrix(source).matrix("1")
    null = NullModel(designs[0], K)
    K = K / np.diag(K).mean()
    projected, lengths = null.projected_traits()
    X = np.ones((500, 1))
    for t, h2 in enumerate(null.fit.h2):
        inverse = np.linalg.inv(h2 * K + (1 - h2) * np.eye(500))
        P = inverse - inverse @ X @ np.linalg.inv(X.T @ inverse @ X) @ X.T @ inverse
        y = designs[0].traits[:, t]
        np.testing.assert_allclose(projected[:, t], P @ y, atol=1e-8)
        assert lengths[t] == pytest.approx(y @ P @ y, rel=1e-8)


def test_close_relatives_are_rotated(caplog):
    random = np.random.default_rng(4)
    calls, family = families(random, 2200, 30, 10)
    source = InMemory(calls, chromosomes=["1"] * 1100 + ["2"] * 1100)
    traits = table(1.5 * random.normal(size=(30, 1))[family] + random.normal(size=(300, 1)))
    designs = make_designs(traits, None, np.arange(300))
    with caplog.at_level("INFO", logger="plait.gwas"):
        model, found, rotated = scans(source, designs)
    assert all(check["leading"] is None for check in model.checks)
    assert all(check["error"] > TOLERANCE for check in model.checks)
    np.testing.assert_array_equal(found.se, rotated.se)
    assert "chromosome 2: variants are rotated; standard errors by calibration" in caplog.text


@pytest.mark.parametrize("patterns", [1, 2])
def test_few_variants_are_rotated(related, patterns, monkeypatch):
    """Without a rotation prepared, which gives the same; whatever the cut, the same bits."""
    calls, traits, covariates, _ = related
    traits[:20, patterns - 1 :] = np.nan
    source = InMemory(calls, chromosomes=["1"] * 70 + ["2"] * 230)
    given = make_designs(table(traits), table(covariates, "c"), np.arange(120))
    monkeypatch.setattr("plait.gwas.mixed._AT_ONCE", 16)  # so that some are left out of a tile
    model = MixedModel(source, given, ALL, True, EXACT_BELOW, None, 1)
    (_, _), (runs, make) = model.passes()
    work = make()  # 230 variants of 120 samples are worth a rotation
    monkeypatch.setattr(MixedGroup, "_rotation", None)  # 10 are not
    for check in model.checks:
        assert check["leading"] is None
        assert check["variants"] == 230
    whole = work.run(runs[0])
    few = [MixedGroup(null, None, ALL, EXACT_BELOW, 10) for null in model._nulls("2")]
    direct = GroupedScan(source, few, 3)
    found = direct.run(runs[0])
    np.testing.assert_allclose(found.se, whole.se, rtol=1e-5)
    np.testing.assert_allclose(found.beta / found.se, whole.beta / whole.se, rtol=1e-5, atol=1e-6)
    cuts = slice(70, 75), slice(75, 291), slice(291, 300)
    parts = joined([direct.run(rows) for rows in cuts])
    for name in ("beta", "se", "log10p"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(found, name))


def test_ordinary_regression_to_double_precision(related):
    calls, traits, covariates, _ = related
    design = make_designs(table(traits), table(covariates, "c"), np.arange(120))[0]
    group = MixedGroup(NullModel(design, np.eye(120)), None, ALL, 1.0)
    found = group.run(read_block(InMemory(calls), slice(0, 20)))
    for j in range(20):
        for t in range(3):
            expected = least_squares(calls[j], traits[:, t], covariates)
            values = found.beta[j, t], found.se[j, t], found.log10p[j, t]
            assert values == pytest.approx(expected, rel=1e-8)


def test_dosages_that_are_calls(structured):
    source, designs = structured

    class Dosages(InMemory):
        kind = "dosage"

    same = Dosages(source.calls, chromosomes=["1"] * 1500 + ["2"] * 1500)
    _, calls, _ = scans(source, designs)
    _, dosages, _ = scans(same, designs)
    np.testing.assert_allclose(
        dosages.beta / dosages.se, calls.beta / calls.se, rtol=1e-4, atol=1e-5
    )


def test_traits_on_different_samples(structured):
    source, _ = structured
    random = np.random.default_rng(8)
    values = random.normal(size=(500, 2))
    values[300:, 1] = np.nan
    designs = make_designs(table(values), None, np.arange(500))
    model, found, rotated = scans(source, designs, exact_below=0)
    assert [check["samples"] for check in model.checks] == [500, 300, 500, 300]
    assert (found.n[0] == [500, 300]).all()
    assert np.abs(found.se / rotated.se - 1).max() < 0.05


def test_calibration_has_the_same_bits_for_any_cut(structured):
    source, designs = structured
    model = MixedModel(source, designs, ALL, True, EXACT_BELOW, None, 1)
    again = MixedModel(source, designs, ALL, True, EXACT_BELOW, None, 3)
    _, make = next(model.passes())
    whole = make().run(slice(0, 1500))
    _, make = next(again.passes())
    work = make()
    parts = joined([work.run(rows) for rows in (slice(0, 100), slice(100, 777), slice(777, 1500))])
    for name in ("beta", "se", "log10p"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


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


def test_a_trait_that_is_a_genotype_has_no_test(related):
    calls, traits, _, _ = related
    traits = np.column_stack([calls[3] * 2.0 + 1.0, traits[:, 0]])
    found = scan(InMemory(calls), table(traits), model="mixed", loco=False, variant_filter=ALL)
    assert np.isnan(found.se[3]).tolist() == [True, False]
    assert found.filtered["a perfect fit of the trait"] == int(np.isnan(found.se[:, 0]).sum())
    assert (found.se[np.isfinite(found.se)] > 0).all()
    found.to_effects()


def test_relationships_that_hold_the_effect_hide_it():
    """One chromosome by itself: its variants are left out of nothing, which the summary says."""
    random = np.random.default_rng(11)
    calls = draw_calls(random, 300, 400)
    linked = random.random((60, 400)) < 0.9
    calls[20:80] = np.where(linked, calls[40], calls[20:80])
    y = calls[40] - calls[40].mean() + random.normal(size=400)
    chromosomes = ["1"] * 100 + ["2"] * 200
    whole = scan(InMemory(calls, chromosomes=chromosomes), table(y[:, None]), model="mixed")
    alone = scan(InMemory(calls[:100]), table(y[:, None]), model="mixed")
    within = scan(
        InMemory(calls, chromosomes=chromosomes), table(y[:, None]), model="mixed", loco=False
    )
    for found, hidden in ((whole, False), (alone, True), (within, True)):
        assert found.counts_own_chromosome == hidden
        assert ("effects may be missed" in found.summary()) == hidden
        if hidden:
            assert found.log10p[40, 0] > whole.log10p[40, 0] + 1
    assert not scan(InMemory(calls[:100]), table(y[:, None])).counts_own_chromosome
