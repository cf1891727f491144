"""The logistic scan against statsmodels, its calibration and its invariances."""

import logging

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from plait.data.phenotypes import SampleTable
from plait.errors import ConstantTraitError, InputError, OptionError
from plait.gwas import AssociationResult, VariantFilter, scan
from plait.gwas.binary import BinaryScan, fit_null, make_binary_designs
from tests.gwas.conftest import Dosages, InMemory, draw_calls

ALL = VariantFilter(min_call_rate=None, min_minor_count=None)
FIELDS = ("beta", "se", "log10p", "n", "frequency")


def table(values, prefix="t"):
    values = np.asarray(values, dtype=float)
    names = [f"{prefix}{i}" for i in range(values.shape[1])]
    return SampleTable(np.array([f"s{i}" for i in range(len(values))]), tuple(names), values)


def draw_cases(random, risk):
    return (random.random(risk.shape) < 1 / (1 + np.exp(-risk))).astype(float)


@pytest.fixture
def random():
    return np.random.default_rng(7)


@pytest.fixture
def study(random):
    """400 samples, 40 variants with missing calls, 3 traits on 2 sets of samples, 2 covariates."""
    calls = draw_calls(random, 40, 400, missing=0.03)
    covariates = np.column_stack([random.normal(size=400), random.integers(0, 2, 400)])
    risk = -0.5 + covariates @ [0.5, -0.4] + 0.3 * np.maximum(calls[3], 0)
    traits = draw_cases(random, np.column_stack([risk, risk - 1, risk]))
    traits[10:40, 1] = np.nan
    return calls, traits, covariates


def filled(calls, used):
    """Genotypes of some samples, the mean where missing."""
    genotypes = calls[:, used].astype(float)
    genotypes[genotypes < 0] = np.nan
    means = np.nanmean(genotypes, axis=1, keepdims=True)
    return np.where(np.isnan(genotypes), means, genotypes)


def without_saddlepoint(calls, traits, covariates, precision="double"):
    values = table(traits)
    rows = np.arange(len(traits))
    designs = make_binary_designs(values, table(covariates, "c"), rows)
    work = BinaryScan(
        InMemory(calls), designs, traits.shape[1], precision, ALL, saddlepoint_above=np.inf
    )
    return work.run(slice(0, len(calls)))


def test_score_test_and_null_model_of_statsmodels(study):
    calls, traits, covariates = study
    found = without_saddlepoint(calls, traits, covariates)
    single = without_saddlepoint(calls, traits, covariates, "single")
    for t in range(3):
        used = ~np.isnan(traits[:, t])
        y, X = traits[used, t], sm.add_constant(covariates[used])
        null = sm.GLM(y, X, family=sm.families.Binomial()).fit(tol=1e-14)
        genotypes = filled(calls, used)
        mine = fit_null(np.linalg.qr(X)[0], y)
        np.testing.assert_allclose(mine, null.mu, rtol=1e-9)
        for j, genotype in enumerate(genotypes):
            chi2, p = null.score_test(exog_extra=genotype[:, None])[:2]
            z = found.beta[j, t] / found.se[j, t]
            assert z**2 == pytest.approx(float(np.squeeze(chi2)), rel=1e-8, abs=1e-12)
            assert 10 ** found.log10p[j, t] == pytest.approx(float(np.squeeze(p)), rel=1e-8)
        np.testing.assert_array_equal(found.n[:, t], used.sum())
    np.testing.assert_allclose(single.beta / single.se, found.beta / found.se, atol=1e-4)
    np.testing.assert_allclose(single.se, found.se, rtol=1e-5)


def firth(X, y):
    """The last coefficient of a logistic regression with Firth's penalty on all of them."""
    slope = np.zeros(X.shape[1])
    for _ in range(500):
        m = 1 / (1 + np.exp(-X @ slope))
        w = m * (1 - m)
        inverse = np.linalg.inv((X.T * w) @ X)
        leverages = w * np.einsum("ia,ab,ib->i", X, inverse, X)
        step = inverse @ X.T @ (y - m + leverages * (0.5 - m))
        step /= max(1, 2 * np.abs(step).max())
        slope += step
        if np.abs(step).max() < 1e-10:
            return slope[-1]
    raise AssertionError("no convergence")


def test_effects_are_log_odds_ratios_with_few_cases(random):
    """1 case to 50 controls, where a single step of Newton's is up to twice too long."""
    frequencies, effects = np.repeat([0.02, 0.1], 20), np.tile([1.0, 1.5], 20)
    calls = random.binomial(2, frequencies[:, None], (40, 5000)).astype(np.int8)
    traits = draw_cases(random, np.log(0.02) + effects * calls.T)
    found = scan(InMemory(calls), table(traits), model="logistic", variant_filter=ALL)
    beta, z = np.diag(found.beta), np.diag(found.t)
    family = sm.families.Binomial()
    fits = [
        sm.GLM(y, sm.add_constant(g.astype(float)), family=family).fit()
        for g, y in zip(calls, traits.T, strict=True)
    ]
    likeliest = np.array([fit.params[1] for fit in fits])
    beyond = np.abs(z) > 2
    assert beyond.sum() >= 35
    np.testing.assert_allclose(beta[beyond], likeliest[beyond], atol=0.06)
    assert abs(np.mean(beta[beyond] - likeliest[beyond])) < 0.02
    p = (np.log(2) + stats.norm.logsf(np.abs(z))) / np.log(10)
    np.testing.assert_allclose(np.diag(found.log10p)[beyond], p[beyond], rtol=1e-6)


def test_what_one_step_is_off_below_the_cut(random):
    """8 copies expected in cases: 10 %, too large where they have more, too small where less."""
    n, n_cases = 2000, 40
    calls = random.binomial(2, 0.1, (1500, n)).astype(np.int8)
    y = (np.arange(n) < n_cases).astype(float)[:, None]
    designs = make_binary_designs(table(y), None, np.arange(n))
    one, full = (
        BinaryScan(InMemory(calls), designs, 1, saddlepoint_above=cut).run(slice(0, 1500))
        for cut in (np.inf, 0.5)
    )
    z = one.beta / one.se
    ratios = one.beta / full.beta
    assert 1.05 < np.median(ratios[(z > 1) & (z < 2)]) < 1.15
    assert 0.85 < np.median(ratios[(z < -1) & (z > -2)]) < 0.95


def test_effects_of_separated_carriers():
    """With the constant only, Firth's penalty is half a sample in each cell of the table."""
    n, n_cases = 5000, 100
    y = np.zeros((n, 1))
    y[:n_cases] = 1
    counts = [(20, 20), (40, 20), (40, 5), (200, 20), (600, 0), (3000, 100), (4000, 60)]
    calls = np.zeros((len(counts), n), dtype=np.int8)
    for row, (carriers, cases) in zip(calls, counts, strict=True):
        row[:cases] = 1
        row[n_cases : n_cases + carriers - cases] = 1
    found = scan(InMemory(calls), table(y), model="logistic", precision="double")
    assert (np.abs(found.t) > 2).all()
    for (carriers, cases), beta in zip(counts, found.beta[:, 0], strict=True):
        inside = np.log((cases + 0.5) / (carriers - cases + 0.5))
        outside = np.log((n_cases - cases + 0.5) / (n - n_cases - carriers + cases + 0.5))
        assert beta == pytest.approx(inside - outside, abs=2e-4)


def test_penalised_effects_of_small_and_extreme_studies(random):
    """Whatever the counts, the fit comes to rest at the penalised estimate."""
    for _ in range(40):
        n = int(random.integers(20, 200))
        n_cases = int(random.integers(2, n // 2 + 1))
        y = (random.permutation(n) < n_cases).astype(float)
        dosages = np.clip(random.normal(random.uniform(0.1, 1), 0.7, (6, n)), 0, 2)
        dosages[:3] = np.round(dosages[:3])
        dosages[3:] = np.round(4 * dosages[3:]) / 4
        dosages[[0, 3]] += y * (2 - dosages[[0, 3]])  # all cases have two copies
        designs = make_binary_designs(table(y[:, None]), None, np.arange(n))
        work = BinaryScan(Dosages(dosages), designs, 1, rules=ALL, saddlepoint_above=1e-6)
        for genotype, beta in zip(dosages, work.run(slice(0, 6)).beta[:, 0], strict=True):
            if np.ptp(genotype) > 0:
                full = firth(np.column_stack([np.ones(n), genotype]), y)
                assert beta == pytest.approx(full, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("prevalence", [0.02, 0.4])
@pytest.mark.parametrize("correlation", [0.0, 0.5])
def test_effects_with_covariates_fixed(random, prevalence, correlation):
    """Against all coefficients fitted anew, with covariates that genotypes follow or not."""
    n, m = 3000, 24
    covariates = random.normal(size=(n, 2))
    frequency = np.repeat([0.05, 0.2, 0.4], 8)
    logit = np.log(frequency / (1 - frequency))[:, None] + correlation * covariates[:, 0]
    calls = random.binomial(2, 1 / (1 + np.exp(-logit))).astype(np.int8)
    effects = random.choice([-1.0, -0.5, 0.5, 1.0], m)
    base = np.log(prevalence / (1 - prevalence)) + covariates @ [0.5, -0.4]
    traits = draw_cases(random, base[:, None] + (effects[:, None] * calls).T)
    found = scan(
        InMemory(calls), table(traits), table(covariates, "c"), model="logistic",
        variant_filter=ALL,
    )  # fmt: skip
    beyond = np.flatnonzero(np.abs(np.diag(found.t)) > 2)
    assert len(beyond) > 12
    X = sm.add_constant(covariates)
    full = np.array([firth(np.column_stack([X, calls[j]]), traits[:, j]) for j in beyond])
    ratios = np.diag(found.beta)[beyond] / full
    assert np.abs(ratios - 1).max() < (0.1 if correlation else 0.03)
    assert np.abs(np.median(ratios) - 1) < 0.015


def test_effects_and_p_values_of_the_whole_regression(random):
    """Against fits with the variant: the same to the order of asymptotics."""
    n = 4000
    calls = draw_calls(random, 12, n)
    covariates = random.normal(size=(n, 2))
    y = draw_cases(random, covariates @ [0.5, 0.3] + 0.2 * calls[2])[:, None]
    found = scan(InMemory(calls), table(y), table(covariates, "c"), model="logistic")
    X = sm.add_constant(covariates)
    family = sm.families.Binomial()
    null = sm.GLM(y[:, 0], X, family=family).fit()
    for j, genotype in enumerate(calls.astype(float)):
        fit = sm.GLM(y[:, 0], np.column_stack([X, genotype]), family=family).fit()
        assert found.beta[j, 0] == pytest.approx(fit.params[-1], rel=0.03, abs=1e-3)
        assert found.se[j, 0] == pytest.approx(fit.bse[-1], rel=0.03)
        log10p = stats.chi2.logsf(null.deviance - fit.deviance, 1) / np.log(10)
        assert found.log10p[j, 0] == pytest.approx(log10p, rel=0.03, abs=0.005)
    assert found.log10p[2, 0] < -4
    assert found.n_cases.tolist() == [int(y.sum())]
    assert f"{int(y.sum()):,} cases and {n - int(y.sum()):,} controls" in found.summary()
    z = np.abs(found.beta / found.se)
    p = (np.log(2) + stats.norm.logsf(z)) / np.log(10)
    np.testing.assert_allclose(found.log10p, p, rtol=1e-6)


def rare(random, n_variants, n, low, high):
    frequency = random.uniform(low, high, (n_variants, 1))
    return random.binomial(2, frequency, (n_variants, n)).astype(np.int8)


def test_calibration_with_few_cases_and_rare_alleles(random):
    """1 case to 20 controls: the normal test gives far too many small p-values."""
    n, m = 2000, 15_000
    covariates = random.normal(size=(n, 2))
    risk = -3.2 + covariates @ [0.5, 0.3]
    traits = draw_cases(random, np.repeat(risk[:, None], 8, axis=1))
    calls = rare(random, m, n, 0.006, 0.03)
    values, rows = table(traits), np.arange(n)
    designs = make_binary_designs(values, table(covariates, "c"), rows)
    rules = VariantFilter(min_minor_count=10)
    source = InMemory(calls)
    p = {}
    for name, cut in (("saddlepoint", 2.0), ("normal", np.inf)):
        work = BinaryScan(source, designs, 8, rules=rules, saddlepoint_above=cut)
        p[name] = 10 ** work.run(slice(0, m)).log10p
        p[name] = p[name][~np.isnan(p[name])]
    tests = len(p["normal"])
    assert tests > 100_000
    for level in (1e-3, 1e-4):
        low, high = stats.binom.ppf([1e-5, 1 - 1e-5], tests, level)
        assert low <= (p["saddlepoint"] < level).sum() <= high
        assert (p["normal"] < level).sum() > 2 * high


def test_uniform_when_balanced(random):
    n, m = 1000, 10_000
    traits = draw_cases(random, random.normal(0, 0.3, (n, 3)))
    found = scan(InMemory(draw_calls(random, m, n)), table(traits), model="logistic")
    for t in range(3):
        assert stats.kstest(10 ** found.log10p[:, t], "uniform").pvalue > 1e-6
    assert (np.abs(found.lambda_gc - 1) < 0.06).all()


def test_tails_against_a_parametric_bootstrap(random):
    """The p-value of the worst variant, against draws of cases from the model without it."""
    n = 600
    covariates = random.normal(size=(n, 1))
    y = draw_cases(random, -2.8 + 0.5 * covariates)
    calls = rare(random, 300, n, 0.01, 0.03)
    found = scan(InMemory(calls), table(y), table(covariates, "c"), model="logistic")
    j = int(np.nanargmin(found.log10p[:, 0]))
    X = sm.add_constant(covariates)
    mu = fit_null(np.linalg.qr(X)[0], y[:, 0])
    weights = mu * (1 - mu)
    g = calls[j].astype(float)
    g -= X @ np.linalg.solve((X.T * weights) @ X, (X.T * weights) @ g)
    draws = (random.random((200_000, n), dtype=np.float32) < mu.astype(np.float32)) @ g - mu @ g
    observed = abs(g @ (y[:, 0] - mu))
    share = (np.abs(draws) >= observed).mean()
    assert share * 200_000 > 100
    # The statistic has few values, so that the tail at one of them is not sharp.
    above = (np.abs(draws) > observed * (1 + 1e-6)).mean()
    assert np.log10(above) - 0.1 < found.log10p[j, 0] < np.log10(share) + 0.1


def test_rare_and_common_ways_agree(random):
    """Few carriers as a sparse sum, many as a whole one: no step where they meet."""
    n = 1200
    y = draw_cases(random, np.full((n, 1), -2.5))
    case = np.flatnonzero(y[:, 0] == 1)
    calls = np.zeros((2, n), dtype=np.int8)
    for row, size in enumerate((598, 602)):  # carriers: just below and above half of the samples
        calls[row, case[:60]] = 1
        others = np.setdiff1d(np.arange(n), case)[: size - 60]
        calls[row, others] = 1
    found = scan(InMemory(calls), table(y), model="logistic", precision="double")
    assert found.log10p[0, 0] == pytest.approx(found.log10p[1, 0], rel=0.1)


def test_alleles_codes_samples_cuts_and_threads(study, random, monkeypatch):
    calls, traits, covariates = study
    source, c = InMemory(calls), table(covariates, "c")

    def run(source, traits, c=c, **options):
        return scan(source, traits, c, model="logistic", variant_filter=ALL, **options)

    base = run(source, table(traits), precision="double")
    twos = run(source, table(traits + 1), precision="double")
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(twos, name), getattr(base, name))
    flipped = run(
        InMemory(np.where(calls < 0, calls, 2 - calls)), table(traits), precision="double"
    )
    np.testing.assert_allclose(flipped.beta, -base.beta, rtol=1e-9)
    np.testing.assert_allclose(flipped.log10p, base.log10p, rtol=1e-9)
    turned = run(source, table(1 - traits), precision="double")
    np.testing.assert_allclose(turned.beta, -base.beta, rtol=1e-8)
    np.testing.assert_allclose(turned.log10p, base.log10p, rtol=1e-7)
    order = random.permutation(400)
    shuffled = InMemory(calls[:, order], [f"s{i}" for i in order])
    np.testing.assert_allclose(
        run(shuffled, table(traits), precision="double").beta, base.beta, rtol=1e-8
    )
    alone = scan(
        source, table(traits[:, 1:2]), c, model="logistic", variant_filter=ALL, precision="double"
    )
    np.testing.assert_allclose(alone.beta[:, 0], base.beta[:, 1], rtol=1e-10)

    many = InMemory(draw_calls(random, 1300, 400, missing=0.02))
    whole = scan(many, table(traits), model="logistic", threads=1)
    for size, threads in ((256, 3), (512, 2)):
        monkeypatch.setattr(InMemory, "block_size", lambda self, size=size: size)
        again = scan(many, table(traits), model="logistic", threads=threads)
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))


def test_z_scores_of_two_traits_correlate_as_V0_says(random):
    n, m = 600, 8000
    shared = random.normal(size=n)
    traits = (shared[:, None] + random.normal(size=(n, 3)) > 0.5).astype(float)
    traits[:150, 1] = np.nan
    found = scan(InMemory(draw_calls(random, m, n)), table(traits), model="logistic")
    np.testing.assert_allclose(np.corrcoef(found.t.T), found.V0, atol=5 / np.sqrt(m))
    assert 0.2 < found.V0[0, 2] < 0.6
    assert found.to_effects().n_effects == m


def test_what_is_not_tested(random, tmp_path):
    calls = draw_calls(random, 6, 200)
    calls[0] = 0
    calls[1] = np.arange(200) < 3
    covariates = np.column_stack([calls[3], random.normal(size=200)])
    y = draw_cases(random, np.zeros((200, 2)))
    for precision in ("single", "double"):
        found = scan(
            InMemory(calls), table(y), table(covariates, "c"), model="logistic",
            precision=precision,
        )  # fmt: skip
        assert np.isnan(found.beta[[0, 1, 3]]).all()
        assert np.isfinite(found.log10p[[2, 4, 5]]).all()
        assert found.filtered == {
            "monomorphic": 2, "minor allele count": 2, "collinearity with the covariates": 2,
        }  # fmt: skip
    found.save(tmp_path / "found.zarr")
    assert AssociationResult.load(tmp_path / "found.zarr").allclose(found)


def test_separation_is_named(random):
    n = 100
    calls = draw_calls(random, 3, n)
    y = draw_cases(random, np.zeros(n))
    batch = np.where(y == 1, 0, random.integers(0, 2, n)).astype(float)  # controls only
    other = random.normal(size=n)
    with pytest.raises(InputError, match="trait 't0': the covariate 'c1' tells some cases"):
        scan(
            InMemory(calls), table(y[:, None]), table(np.column_stack([other, batch]), "c"),
            model="logistic",
        )  # fmt: skip
    together = np.column_stack([other, (2 * y - 1) * random.uniform(0.1, 1, n) - other])
    with pytest.raises(InputError, match="the covariates together tell"):
        scan(InMemory(calls), table(y[:, None]), table(together, "c"), model="logistic")
    # A steep but proper regression is no separation.
    steep = other * 8
    risk = draw_cases(random, steep)[:, None]
    assert scan(InMemory(calls), table(risk), table(other[:, None], "c"), model="logistic")


def test_bad_input_and_the_note(random, caplog):
    calls = draw_calls(random, 3, 60)
    source = InMemory(calls)
    y = draw_cases(random, np.zeros((60, 1)))
    weights = np.column_stack([y[:, 0], random.integers(0, 4, 60)])
    with pytest.raises(InputError, match=r"'t1' has 4 values \(0, 1, 2, 3\)"):
        scan(source, table(weights), model="logistic")
    with pytest.raises(InputError, match=r"'t0' has 1 value \(1\)"):
        scan(source, table(np.ones((60, 1))), model="logistic")
    few = y.copy()
    few[:59] = 1.0
    few[59] = 0.0
    only = SampleTable(np.array([f"s{i}" for i in range(59)] + ["x"]), ("t0",), few)
    with pytest.raises(ConstantTraitError, match="'t0' does not vary"):
        scan(source, only, model="logistic")
    with pytest.raises(OptionError, match="missing_genotypes='mean'"):
        scan(source, table(y), model="logistic", missing_genotypes="drop")
    with pytest.raises(OptionError, match="transform='none'"):
        scan(source, table(y), model="logistic", transform="rank")
    with pytest.raises(OptionError, match="precision"):
        scan(source, table(y), model="logistic", precision="half")
    with pytest.raises(OptionError, match="saddlepoint_above"):
        BinaryScan(source, [], 1, saddlepoint_above=0)
    with caplog.at_level(logging.INFO, logger="plait.gwas"):
        scan(source, table(y))
    assert "model='logistic' estimates odds ratios" in caplog.text
