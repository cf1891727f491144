"""Cases and controls beside predictions: against regressions in full, calibration, power."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from plait.errors import ConvergenceError, InputError, OptionError
from plait.gwas import VariantFilter, genome_prediction, scan
from plait.gwas.binary import make_binary_designs
from plait.gwas.whole_genome import WholeGenomeModel
from plait.gwas.whole_genome_logistic import WholeGenomeLogistic
from tests.gwas.conftest import InMemory, draw_calls
from tests.gwas.test_binary import firth
from tests.gwas.test_whole_genome import table

ALL = VariantFilter(min_call_rate=None, min_minor_count=None)
MODEL = "whole-genome-logistic"


def binary(random, genetic, prevalence, noise):
    liability = genetic / genetic.std(axis=0) + noise * random.normal(size=genetic.shape)
    return (liability > np.quantile(liability, 1 - prevalence, axis=0)).astype(float)


@pytest.fixture
def study(monkeypatch):
    """Two traits, one of them missing for some samples, and a covariate."""
    monkeypatch.setattr(genome_prediction, "BLOCK", 10)
    random = np.random.default_rng(6)
    calls = draw_calls(random, 90, 400, missing=0.01)
    covariates = random.normal(size=(400, 1))
    genetic = np.maximum(calls, 0).T @ random.normal(size=(90, 2)) + covariates
    traits = binary(random, genetic, 0.4, 0.7)
    traits[::17, 1] = np.nan
    return InMemory(calls, chromosomes=np.repeat(["1", "2", "3"], 30)), traits, covariates


def test_against_a_regression_beside_the_prediction(study):
    """The score test is that of statsmodels, with the prediction as one more covariate."""
    source, traits, covariates = study
    nulls = make_binary_designs(table(traits), table(covariates, "c"), np.arange(400))
    fitted = WholeGenomeModel(source, [null.design for null in nulls], ALL, precision="double")
    assert (fitted.explained > 0.02).all()
    result = scan(
        source, table(traits), table(covariates, "c"),
        model=MODEL, variant_filter=ALL, precision="double",
    )  # fmt: skip
    np.testing.assert_array_equal(result.explained, fitted.explained)
    np.testing.assert_array_equal(result.n_cases, np.nansum(traits, axis=0))
    n_beyond = 0
    for d, null in enumerate(nulls):
        rows, column = null.design.rows, int(null.design.columns[0])
        for chromosome, variants in (("1", (0, 3, 29)), ("3", (60, 88))):
            prediction = fitted.predictions(d, chromosome)[:, 0]
            X = np.column_stack([np.ones(len(rows)), covariates[rows], prediction])
            mu = sm.Logit(traits[rows, column], X).fit(disp=0, tol=1e-12).predict()
            for j in variants:
                genotype = source.calls[j, rows].astype(float)
                genotype[genotype < 0] = genotype[genotype >= 0].mean()
                w = mu * (1 - mu)
                across = X.T @ (w * genotype)
                v = genotype @ (w * genotype) - across @ np.linalg.solve((X.T * w) @ X, across)
                slope = genotype @ (traits[rows, column] - mu) / v
                if abs(slope) * np.sqrt(v) < 2:
                    assert result.beta[j, column] == pytest.approx(slope, rel=1e-6)
                    assert result.se[j, column] == pytest.approx(v**-0.5, rel=1e-6)
                else:
                    full = firth(np.column_stack([X, genotype]), traits[rows, column])
                    assert result.beta[j, column] == pytest.approx(full, rel=0.03)
                    n_beyond += 1
    assert n_beyond >= 3


def test_threads_and_stores_do_not_change_a_bit(study, tmp_path):
    source, traits, covariates = study
    given, options = (source, table(traits), table(covariates, "c")), {"model": MODEL}
    one = scan(*given, **options, threads=1)
    stored = scan(*given, **options, threads=2, out=tmp_path / "stored.zarr")
    for name in ("beta", "se", "log10p", "V0", "explained", "n_cases"):
        np.testing.assert_array_equal(getattr(stored, name), getattr(one, name))


def test_what_cannot_be_predicted_is_scanned_nearly_as_it_is(study):
    """The prediction of noise takes few degrees of freedom from the tests."""
    source = study[0]
    random = np.random.default_rng(1)
    noise = table(random.integers(0, 2, (400, 8)).astype(float))
    result = scan(source, noise, model=MODEL)
    plain = scan(source, noise, model="logistic")
    none = result.explained == 0
    assert none.sum() >= 3
    ratio = np.median(result.se[:, none] / plain.se[:, none], axis=0)
    assert ((ratio > 1) & (ratio < 1.02)).all()
    for ours, theirs in zip(result.t.T[none], plain.t.T[none], strict=True):
        assert np.corrcoef(ours, theirs)[0, 1] > 0.98


def test_power_is_gained_and_null_variants_are_calibrated(monkeypatch):
    monkeypatch.setattr(genome_prediction, "BLOCK", 50)
    random = np.random.default_rng(12)
    calls = draw_calls(random, 2500, 3000)
    causal = random.choice(2000, 60, replace=False)
    genetic = calls[causal].T @ random.normal(size=(60, 3))
    traits = table(binary(random, genetic, 0.25, 0.6))
    source = InMemory(calls, chromosomes=np.repeat(list("12345"), 500))
    plain, beside = (scan(source, traits, model=model) for model in ("logistic", MODEL))
    for column in beside.log10p[2000:].T:
        assert stats.kstest(10**column, "uniform").pvalue > 1e-5
    null = beside.t[2000:] ** 2
    assert abs(null.mean() - 1) < 5 * np.sqrt(2 / null.size)
    gain = np.mean(beside.t[causal] ** 2, axis=0) / np.mean(plain.t[causal] ** 2, axis=0)
    assert (gain > 1.05).all()


def test_structure_is_removed(monkeypatch):
    """Populations with other shares of cases: the logistic scan is inflated, this one is not."""
    monkeypatch.setattr(genome_prediction, "BLOCK", 100)
    random = np.random.default_rng(13)
    frequency = random.uniform(0.15, 0.85, (2000, 1))
    shift = 0.1 * random.normal(size=(2000, 1)) * np.where(np.arange(2000) % 2, 1, -1)
    calls = random.binomial(2, np.clip(frequency + shift, 0.03, 0.97)).astype(np.int8)
    scaled = calls[:1600] - calls[:1600].mean(axis=1, keepdims=True)
    traits = table(binary(random, scaled.T @ random.normal(size=(1600, 4)), 0.3, 0.8))
    source = InMemory(calls, chromosomes=np.repeat(list("12345"), 400))
    plain, beside = (scan(source, traits, model=model) for model in ("logistic", MODEL))
    assert (plain.t[1600:] ** 2).mean() > 2
    assert abs((beside.t[1600:] ** 2).mean() - 1) < 0.15


def test_bad_input(study):
    source, traits, _ = study
    with pytest.raises(OptionError, match="takes missing_genotypes='mean' only"):
        scan(source, table(traits), model=MODEL, missing_genotypes="drop")
    with pytest.raises(OptionError, match="takes traits as they are"):
        scan(source, table(traits), model=MODEL, transform="rank")
    with pytest.raises(InputError, match="0 and 1"):
        scan(source, table(np.arange(400.0)[:, None]), model=MODEL)
    nulls = make_binary_designs(table(traits[:, :1]), None, np.arange(400))
    fitted = WholeGenomeModel(source, [nulls[0].design], ALL)
    fitted._predicted[0][:] = nulls[0].design.traits
    with pytest.raises(ConvergenceError, match=r"trait 't0': .*Use model='logistic'"):
        WholeGenomeLogistic(fitted, nulls, ["t0"])


def few_cases(random, n=1000, m=1500, shift=0.7):
    """Six cases in 100 samples of two populations of other risk, FST 0.05; no effects."""
    population = np.arange(n) % 2
    ancestral = random.uniform(0.1, 0.9, m)
    frequencies = random.beta(19 * ancestral, 19 * (1 - ancestral), (2, m))
    calls = random.binomial(2, frequencies[population].T).astype(np.int8)
    liability = random.normal(size=n) + shift * population
    cases = (liability > np.sort(liability)[-1 - 6 * n // 100])[:, None].astype(float)
    return InMemory(calls, chromosomes=np.repeat(list("12345"), m // 5)), cases


def test_a_noisy_prediction_is_an_offset_on_its_own_scale(monkeypatch):
    """The null model against statsmodels with that offset, and scores against its residuals."""
    monkeypatch.setattr(genome_prediction, "BLOCK", 100)
    source, cases = few_cases(np.random.default_rng(0))
    X = sm.add_constant(np.random.default_rng(1).normal(size=1000))
    [null] = make_binary_designs(table(cases), table(X[:, 1:], "c"), np.arange(1000))
    rules = VariantFilter()
    model = WholeGenomeModel(source, [null.design], rules, precision="double")
    made = WholeGenomeLogistic(model, [null], ["t0"])._beside("2")[0]
    prediction = model.predictions(0, "2")[:, 0] * null.design.lengths[0]
    apart = prediction - X @ np.linalg.lstsq(X, prediction, rcond=None)[0]
    assert 0.3 < apart @ cases[:, 0] / (apart @ apart) < 0.95
    mu = made.probabilities[0]
    assert apart @ mu == pytest.approx(apart @ apart, rel=1e-6)
    log_odds = np.log(mu / (1 - mu))
    slope = np.linalg.lstsq(np.column_stack([X, apart]), log_odds, rcond=None)[0][2]
    fit = sm.GLM(cases[:, 0], X, family=sm.families.Binomial(), offset=slope * apart).fit(tol=1e-12)
    np.testing.assert_allclose(mu, fit.mu, rtol=1e-6)
    residuals = cases[:, 0] - mu
    ratio = (residuals @ residuals) / (mu @ (1 - mu))
    assert 1 < ratio < 1.1
    np.testing.assert_allclose(made.residuals[0], residuals / np.sqrt(ratio), rtol=1e-6)
    result = scan(
        source, table(cases), table(X[:, 1:], "c"), model=MODEL, precision="double"
    )  # fmt: skip
    w = mu * (1 - mu)
    for j in range(300, 330):
        g = source.calls[j].astype(float)
        across = X.T @ (w * g)
        v = g @ (w * g) - across @ np.linalg.solve((X.T * w) @ X, across)
        z = g @ residuals / np.sqrt(v * ratio)
        if abs(z) < 2:
            assert result.t[j, 0] == pytest.approx(z, rel=1e-5, abs=1e-8)


def test_few_cases_in_two_populations(monkeypatch):
    """A coefficient fitted to the noisy prediction would leave a part of the populations."""
    monkeypatch.setattr(genome_prediction, "BLOCK", 100)
    squares = {"logistic": [], MODEL: []}
    for seed in range(4):
        source, cases = few_cases(np.random.default_rng(seed))
        for name, kept in squares.items():
            kept.append(np.nanmean(scan(source, table(cases), model=name).t ** 2))
    assert np.mean(squares["logistic"]) > 1.6
    assert abs(np.mean(squares[MODEL]) - 1) < 4 * np.sqrt(2 / 6000)


def test_populations_that_the_mean_predicts_better(monkeypatch):
    """Risks of 0.045 and 0.075: the sum of all blocks follows them, its errors outweigh that."""
    monkeypatch.setattr(genome_prediction, "BLOCK", 100)
    squares = {"logistic": [], "whole-genome": [], MODEL: []}
    unpredicted = []
    for seed in range(12):
        source, cases = few_cases(np.random.default_rng(seed), n=1500, shift=0.25)
        found = {name: scan(source, table(cases), model=name) for name in squares}
        for name, result in found.items():
            squares[name].append(np.nanmean(result.t**2))
        unpredicted.append(found[MODEL].explained[0] == 0)
    assert sum(unpredicted) >= 4
    assert np.mean(squares["logistic"]) > 1.25
    for name in ("whole-genome", MODEL):
        assert abs(np.mean(squares[name]) - 1) < 0.05
        assert abs(np.mean(np.array(squares[name])[unpredicted]) - 1) < 0.08
