"""The interaction scan against statsmodels, its calibration and its invariances."""

from contextlib import nullcontext

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from plait.data.phenotypes import SampleTable
from plait.errors import (
    DataWarning,
    InputError,
    LabelError,
    MissingCovariateError,
    ModelWarning,
    OptionError,
    TooFewSamplesError,
)
from plait.gwas.interaction import scan_interaction
from plait.gwas.interaction_results import STATISTICS, InteractionResult
from plait.gwas.quality import VariantFilter
from tests.gwas.conftest import InMemory, draw_calls

ALL = VariantFilter(min_call_rate=None, min_minor_count=None)
FIELDS = (*STATISTICS, "n", "frequency")


def table(values, names=None):
    values = np.asarray(values, dtype=float)
    names = [f"t{i}" for i in range(values.shape[1])] if names is None else names
    return SampleTable(np.array([f"s{i}" for i in range(len(values))]), tuple(names), values)


@pytest.fixture
def random():
    return np.random.default_rng(11)


@pytest.fixture
def study(random):
    """150 samples, 20 variants with missing calls, 3 traits on 2 sets of samples, E far from 0."""
    calls = draw_calls(random, 20, 150, missing=0.05)
    environment = random.normal(20, 3, 150)
    covariates = random.normal(size=(150, 2))
    traits = random.normal(size=(150, 3)) * (environment[:, None] / 10) + covariates[:, :1]
    traits += 0.2 * np.maximum(calls[3], 0)[:, None] * (environment[:, None] - 18)
    traits[5:20, 1] = np.nan
    return calls, traits, table(environment[:, None], ["heat"]), covariates


def satterthwaite(X):
    """Bell and McCaffrey's degrees of freedom of HC3, for the last two coefficients."""
    rest = np.eye(len(X)) - X @ np.linalg.pinv(X)
    found = []
    for row in np.linalg.pinv(X)[-2:]:
        B = rest @ np.diag((row / np.diagonal(rest)) ** 2) @ rest
        found.append(np.trace(B) ** 2 / np.trace(B @ B))
    return np.array(found)


@pytest.mark.parametrize("robust", [False, True])
def test_against_statsmodels(study, robust):
    calls, traits, environment, covariates = study
    found = scan_interaction(
        InMemory(calls), table(traits), environment, table(covariates, ["a", "b"]),
        robust=robust, variant_filter=ALL,
    )  # fmt: skip
    e = environment.values[:, 0]
    for t in range(3):
        used = ~np.isnan(traits[:, t])
        for j, call in enumerate(calls.astype(float)):
            g = np.where(call < 0, call[used & (call >= 0)].mean(), call)
            X = np.column_stack([np.ones(150), covariates, e, g, g * e])[used]
            fit = sm.OLS(traits[used, t], X).fit()
            if robust:
                fit = fit.get_robustcov_results("HC3", use_t=True)
            close = {"rel": 1e-8, "abs": 1e-10}
            assert found.beta_main[j, t] == pytest.approx(fit.params[4], **close)
            assert found.beta_interaction[j, t] == pytest.approx(fit.params[5], **close)
            assert found.se_main[j, t] == pytest.approx(fit.bse[4], **close)
            assert found.se_interaction[j, t] == pytest.approx(fit.bse[5], **close)
            assert found.covariance[j, t] == pytest.approx(fit.cov_params()[4, 5], rel=1e-8)
            joint = fit.f_test(np.eye(6)[4:])
            df = satterthwaite(X) if robust else np.full(2, fit.df_resid)
            p = 2 * stats.t.sf(np.abs(fit.tvalues[4:]), df)
            assert 10 ** found.log10p_main[j, t] == pytest.approx(p[0], **close)
            assert 10 ** found.log10p_interaction[j, t] == pytest.approx(p[1], **close)
            p = stats.f.sf(float(np.squeeze(joint.fvalue)), 2, df[1])
            assert 10 ** found.log10p_joint[j, t] == pytest.approx(p, **close)
            assert found.n[j, t] == used.sum()
            at, covariance = found.effects_at([15.0, 25.0])
            contrasts = np.array([[0, 0, 0, 0, 1, 15.0], [0, 0, 0, 0, 1, 25.0]])
            np.testing.assert_allclose(at[j, t], contrasts @ fit.params, rtol=1e-8, atol=1e-10)
            np.testing.assert_allclose(
                covariance[j, t], contrasts @ fit.cov_params() @ contrasts.T, rtol=1e-6, atol=1e-12
            )


@pytest.mark.parametrize("n_covariates", [1, 60])
def test_robust_degrees_of_freedom_count_the_covariates(random, n_covariates):
    """Few carriers and many covariates: residuals are correlated through the covariates, too."""
    n = 300
    environment = (random.random(n) < 0.4).astype(float)
    covariates = random.normal(size=(n, n_covariates))
    calls = random.binomial(2, 0.1, (4, n)).astype(np.int8)
    y = random.normal(size=n)
    found = scan_interaction(
        InMemory(calls), table(y[:, None]), table(environment[:, None], ["e"]),
        table(covariates, [f"c{i}" for i in range(n_covariates)]), robust=True,
        variant_filter=ALL,
    )  # fmt: skip
    for j, g in enumerate(calls.astype(float)):
        X = np.column_stack([np.ones(n), covariates, environment, g, g * environment])
        values = found.beta_main[j, 0], found.beta_interaction[j, 0]
        errors = found.se_main[j, 0], found.se_interaction[j, 0]
        known = stats.t.logsf(np.abs(np.divide(values, errors)), satterthwaite(X))
        logs = found.log10p_main[j, 0], found.log10p_interaction[j, 0]
        np.testing.assert_allclose(logs, (known + np.log(2)) / np.log(10), rtol=1e-9)


def test_a_sample_fitted_perfectly_has_no_robust_errors(random):
    calls = draw_calls(random, 2, 200)
    treated = np.arange(200) >= 150
    calls[0, treated] = 0
    calls[0, 199] = 1
    for robust in (False, True):
        found = scan_interaction(
            InMemory(calls), table(random.normal(size=(200, 2))),
            table(treated[:, None], ["treated"]), robust=robust, variant_filter=ALL,
        )  # fmt: skip
        assert np.isnan(found.log10p_interaction[0]).all() == robust
        reason = "a sample fitted perfectly, without robust errors"
        assert found.filtered == ({reason: 2} if robust else {})


def test_alleles_units_samples_cuts_and_threads(study, random, monkeypatch):
    calls, traits, environment, covariates = study
    source, c = InMemory(calls), table(covariates, ["a", "b"])
    for robust in (False, True):
        options = {"variant_filter": ALL, "robust": robust}
        base = scan_interaction(source, table(traits), environment, c, **options)
        flipped = InMemory(np.where(calls < 0, calls, 2 - calls))
        other = scan_interaction(flipped, table(traits), environment, c, **options)
        np.testing.assert_allclose(other.beta_interaction, -base.beta_interaction, rtol=1e-8)
        np.testing.assert_allclose(other.beta_main, -base.beta_main, rtol=1e-7)
        np.testing.assert_allclose(other.log10p_interaction, base.log10p_interaction, rtol=1e-8)
        moved = table(10 * environment.values - 7, ["heat"])
        other = scan_interaction(source, table(traits), moved, c, **options)
        np.testing.assert_allclose(other.beta_interaction, base.beta_interaction / 10, rtol=1e-8)
        np.testing.assert_allclose(other.log10p_interaction, base.log10p_interaction, rtol=1e-8)
        np.testing.assert_allclose(other.log10p_joint, base.log10p_joint, rtol=1e-8)
        order = random.permutation(150)
        shuffled = InMemory(calls[:, order], [f"s{i}" for i in order])
        other = scan_interaction(shuffled, table(traits), environment, c, **options)
        np.testing.assert_allclose(other.log10p_interaction, base.log10p_interaction, rtol=1e-7)
    among = table(np.column_stack([covariates, environment.values]), ["a", "b", "heat"])
    same = scan_interaction(source, table(traits), environment, among, variant_filter=ALL)
    plain = scan_interaction(source, table(traits), environment, c, variant_filter=ALL)
    np.testing.assert_array_equal(same.beta_main, plain.beta_main)

    many = InMemory(draw_calls(random, 1100, 150, missing=0.02))
    whole = scan_interaction(many, table(traits), environment, c, robust=True, threads=1)
    for size, threads in ((256, 3), (512, 2)):
        monkeypatch.setattr(InMemory, "block_size", lambda self, size=size: size)
        again = scan_interaction(many, table(traits), environment, c, robust=True, threads=threads)
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))


def test_calibration_and_what_robust_is_for(random):
    """Where the variance follows E, and E differs among genotypes' groups, only HC3 holds."""
    n, m = 800, 6000
    environment = (random.random(n) < 0.2).astype(float)
    calls = draw_calls(random, m, n)
    even = random.normal(size=(n, 2))
    uneven = even * np.where(environment == 1, 3.0, 1.0)[:, None]
    e = table(environment[:, None], ["treated"])
    source = InMemory(calls)
    for traits, robust in ((even, False), (even, True), (uneven, True)):
        found = scan_interaction(source, table(traits), e, robust=robust)
        for p in (found.log10p_interaction, found.log10p_joint):
            share = (p < -2).mean()
            assert 0.006 < share < 0.015
    wrong = scan_interaction(source, table(uneven), e)
    assert (wrong.log10p_interaction < -2).mean() > 0.05
    p = 10 ** scan_interaction(source, table(even), e).log10p_interaction
    assert stats.kstest(p[:, 0], "uniform").pvalue > 1e-6


@pytest.mark.parametrize("robust", [False, True])
def test_a_perfect_fit_has_no_errors(random, robust):
    """It is missing, as in a scan, and the other trait and variants are as they were."""
    calls, heat = draw_calls(random, 20, 60), random.normal(size=(60, 1))
    traits = random.normal(size=(60, 2))
    given = InMemory(calls), table(heat, ["E"])
    before = scan_interaction(given[0], table(traits), given[1], robust=robust, variant_filter=ALL)
    traits[:, 0] = calls[3] * (1.5 + heat[:, 0])
    with pytest.warns(ModelWarning, match="'t0', skewness") if robust else nullcontext():
        found = scan_interaction(
            given[0], table(traits), given[1], robust=robust, variant_filter=ALL
        )
    assert found.filtered == {"a perfect fit of the trait": 1}
    for name in STATISTICS:
        values = getattr(found, name)
        assert np.argwhere(np.isnan(values)).tolist() == [[3, 0]]
        np.testing.assert_array_equal(values[:, 1], getattr(before, name)[:, 1])
    effects = found.to_effects("t0", (0, 1))
    assert len(effects.bhat) == 19 and (effects.shat > 0).all()


def test_cases_and_controls_ask_for_robust_errors(random):
    """Where the environment changes their risk, ordinary errors find interactions everywhere."""
    n = 2000
    heat = (random.random((n, 1)) < 0.2).astype(float)
    cases = (random.random((n, 40)) < np.where(heat == 1, 0.5, 0.05)).astype(float)
    given = InMemory(draw_calls(random, 300, n)), table(cases), table(heat, ["E"])
    with pytest.warns(ModelWarning, match="cases and controls: 40 of 40 .first: 't0'"):
        ordinary = scan_interaction(*given).log10p_interaction
    assert (ordinary < -3).mean() > 0.02
    with pytest.warns(ModelWarning, match=r"skewed traits: .* --model logistic"):
        robust = scan_interaction(*given, robust=True).log10p_interaction
    assert (robust < -3).mean() < 0.002


def test_skewed_traits_are_warned_of_and_mended_by_ranks(random):
    """Carriers without a large value have a small variance too, and tests miss it."""
    n = 1000
    exposed = (np.arange(n) < 0.2 * n).astype(float)[:, None]
    calls = random.binomial(2, 0.04, (1500, n)).astype(np.int8)
    given = InMemory(calls), table(random.exponential(size=(n, 10))), table(exposed, ["E"])
    with pytest.warns(ModelWarning, match=r"skewed traits: 10 of 10 .*--transform rank") as told:
        found = scan_interaction(*given, robust=True)
    assert len(told) == 1
    for p in (found.log10p_main, found.log10p_joint):
        assert (p < -3).mean() > 0.002
    ranked = scan_interaction(*given, robust=True, transform="rank")
    for name in ("main", "interaction", "joint"):
        p = getattr(ranked, f"log10p_{name}")
        for log_level in (-2, -3):
            expected = 10.0**log_level
            assert (p < log_level).mean() < expected + 4 * (expected / p.size) ** 0.5
    # At 3.29 errors, from the moments of what covariates leave; copies enough are not warned of.
    values = given[1].values[:, 0].reshape(5, -1)
    values = np.append(values[0] - values[0].mean(), values[1:] - values[1:].mean())
    needed = int(88 * stats.skew(values) ** 2 - 7.6 * stats.kurtosis(values))
    one = table(given[1].values[:, :1])
    with pytest.warns(ModelWarning, match=f"about {needed:,} copies"):
        scan_interaction(given[0], one, given[2], robust=True)
    enough = VariantFilter(min_minor_count=needed + 1)
    scan_interaction(given[0], one, given[2], robust=True, variant_filter=enough)


def test_robust_p_values_with_few_carriers(random):
    """30 copies of the allele, a fifth of the samples treated: HC3 itself finds 20 times 0.001."""
    n, m = 800, 5000
    environment = (random.random(n) < 0.2).astype(float)
    calls = random.binomial(2, 30 / (2 * n), (m, n)).astype(np.int8)
    even = random.normal(size=(n, 2))
    e = table(environment[:, None], ["treated"])
    for traits in (even, even * np.where(environment == 1, 3.0, 1.0)[:, None]):
        p = scan_interaction(InMemory(calls), table(traits), e, robust=True).log10p_interaction
        p = p[~np.isnan(p)]
        assert len(p) > 8000
        assert (p < -2).mean() < 0.016
        assert (p < -3).mean() < 0.003


def test_robust_errors_with_few_carriers_are_widened_for_mash(random):
    """Taken for normal as they are, these errors make too many changes beyond 3.3 of them."""
    calls = (random.random((600, 300)) < 0.06).astype(np.int8)
    traits, heat = table(random.normal(size=(300, 10))), table(random.normal(size=(300, 1)), ["E"])
    found = scan_interaction(InMemory(calls), traits, heat, robust=True)
    as_they_are, for_mash = [], []
    for k, name in enumerate(found.traits):
        tested = np.isfinite(found.se_interaction[:, k])
        z = found.beta_interaction[tested, k] / found.se_interaction[tested, k]
        effects = found.to_effects(name, (0, 1))
        contrast = effects.bhat[:, 1] - effects.bhat[:, 0]
        both = 2 * effects.V[:, 0, 1] * effects.shat[:, 0] * effects.shat[:, 1]
        normal = contrast / np.sqrt((effects.shat**2).sum(axis=1) - both)
        p = 10 ** found.log10p_interaction[tested, k]
        np.testing.assert_allclose(2 * stats.norm.sf(np.abs(normal)), p, rtol=1e-6)
        as_they_are += z.tolist()
        for_mash += normal.tolist()
    assert np.mean(np.abs(as_they_are) > 3.29) > 0.004
    assert np.mean(np.abs(for_mash) > 3.29) < 0.0015


def test_ordinary_errors_of_few_samples_are_widened_for_mash(random):
    """Taken for normal as they are, those of 40 samples make twice too many effects beyond 3.3."""
    calls, heat = draw_calls(random, 500, 40), table(random.normal(3, 1, (40, 1)), ["E"])
    traits = random.normal(size=(40, 200))
    traits[:, 0] += 2 * calls[7]
    found = scan_interaction(InMemory(calls), table(traits), heat, variant_filter=ALL)
    as_they_are, for_mash = [], []
    for k, name in enumerate(found.traits):
        effects = found.to_effects(name, (2, 4))
        beta, own = found.effects_at((2, 4))
        kept = np.isfinite(beta[:, k]).all(axis=1)
        own = own[kept, k]
        covariance = effects.shat[:, :, None] * effects.V * effects.shat[:, None, :]
        wider = covariance / own
        np.testing.assert_allclose(wider, np.broadcast_to(wider[:, :1, :1], own.shape), rtol=1e-6)
        change = effects.bhat[:, 1] - effects.bhat[:, 0]
        of_change = covariance[:, 0, 0] + covariance[:, 1, 1] - 2 * covariance[:, 0, 1]
        both = np.einsum("nr,nrs,ns->n", effects.bhat, np.linalg.inv(covariance), effects.bhat)
        normal = np.stack(
            [
                stats.norm.logsf(np.abs(change) / of_change**0.5) + np.log(2),
                stats.chi2.logsf(both, 2),
            ]
        )
        tests = np.stack([found.log10p_interaction[kept, k], found.log10p_joint[kept, k]])
        tests *= np.log(10)
        # One of the two has the p-value of its test, the other a larger one.
        assert (normal > tests - 1e-6).all()
        np.testing.assert_allclose(np.abs(normal - tests).min(axis=0), 0, atol=1e-6)
        as_they_are.append(beta[kept, k] / np.sqrt(np.diagonal(own, axis1=1, axis2=2)))
        for_mash.append(effects.bhat / effects.shat)
    assert np.mean(np.abs(np.concatenate(as_they_are[1:])) > 3.29) > 0.0018
    assert np.mean(np.abs(np.concatenate(for_mash[1:])) > 3.29) < 0.0013


def test_an_interaction_is_found(random, tmp_path):
    n = 1000
    calls = draw_calls(random, 30, n)
    environment = random.normal(size=n)
    y = 0.5 * calls[7] * environment + random.normal(size=n)
    e = table(environment[:, None], ["heat"])
    found = scan_interaction(InMemory(calls), table(y[:, None]), e, robust=True)
    assert int(np.argmin(found.log10p_interaction[:, 0])) == 7
    assert found.beta_interaction[7, 0] == pytest.approx(0.5, abs=4 * found.se_interaction[7, 0])
    assert f"1 interaction at p < 5e-8, lambda {found.lambda_gc[0]:.3f}, surest" in found.summary()
    assert found.summary().splitlines()[1] == "  samples: 1,000"
    assert found.to_table().shape == (30, 6 + len(FIELDS) - 1)
    assert len(found.variants) == 30
    found.save(tmp_path / "found.zarr")
    assert InteractionResult.load(tmp_path / "found.zarr").allclose(found)


def test_what_is_not_tested(random):
    calls = draw_calls(random, 5, 200)
    calls[0] = 0
    environment = random.integers(0, 2, 200).astype(float)
    calls[1, environment == 1] = 0  # carriers in one environment only: no interaction
    covariates = np.column_stack([calls[2], random.normal(size=200)])
    for robust in (False, True):
        found = scan_interaction(
            InMemory(calls), table(random.normal(size=(200, 2))),
            table(environment[:, None], ["treated"]), table(covariates, ["a", "b"]), robust=robust,
        )  # fmt: skip
        for name in FIELDS[:-2]:
            assert np.isnan(getattr(found, name)[:3]).all()
            assert np.isfinite(getattr(found, name)[3:]).all()
        assert found.filtered == {
            "monomorphic": 2,
            "collinearity with covariates or main effect, or no variation in a group": 4,
        }


def test_bad_input(study):
    calls, traits, environment, covariates = study
    source, c = InMemory(calls), table(covariates, ["a", "b"])
    with pytest.raises(OptionError, match="no column besides names of samples"):
        scan_interaction(source, table(traits), table(np.empty((150, 0))), c)
    with pytest.raises(InputError, match="environment 'heat' is the same for all 150 samples"):
        scan_interaction(source, table(traits), table(np.ones((150, 1)), ["heat"]), c)
    holes = environment.values.copy()
    holes[3] = np.nan
    with pytest.raises(MissingCovariateError, match="'heat' is missing for 1 of 150"):
        scan_interaction(source, table(traits), table(holes, ["heat"]), c)
    found = scan_interaction(
        source, table(traits), table(holes, ["heat"]), c, covariate_missing="drop"
    )
    assert found.n[0].tolist() == [149, 134, 149]
    renamed = SampleTable(np.array([f"x{i}" for i in range(150)]), ("heat",), environment.values)
    with pytest.raises(LabelError, match="no sample in common"):
        scan_interaction(source, table(traits), renamed, c)
    few = np.full((150, 1), np.nan)
    few[:6, 0] = np.arange(6.0)
    with pytest.raises(
        TooFewSamplesError, match=r"3 covariates, 'heat' among them, and .* at least 7"
    ):
        scan_interaction(source, table(few), environment, c)
    with pytest.warns(DataWarning, match="a combination of the others"):
        scan_interaction(source, table(traits), environment, table(environment.values, ["same"]))
