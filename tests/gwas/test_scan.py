"""The linear scan against ordinary regressions, its invariances and its calibration."""

import warnings

import numpy as np
import pytest
from scipy import stats

from plait import mash
from plait.data.phenotypes import SampleTable
from plait.data.variants import VariantTable
from plait.errors import (
    ConstantTraitError,
    DataWarning,
    LabelError,
    MissingCovariateError,
    NotAvailableError,
    OptionError,
    TooFewSamplesError,
)
from plait.gwas import VariantFilter, scan, scan_interaction
from tests.gwas.conftest import Dosages, InMemory, draw_calls, least_squares

ALL = VariantFilter(min_call_rate=None, min_minor_count=None)
FIELDS = ("beta", "se", "log10p", "n", "frequency")


def table(values, prefix="t"):
    values = np.asarray(values, dtype=float)
    names = [f"{prefix}{i}" for i in range(values.shape[1])]
    return SampleTable(np.array([f"s{i}" for i in range(len(values))]), tuple(names), values)


@pytest.fixture
def random():
    return np.random.default_rng(5)


@pytest.fixture
def study(random):
    """60 samples, 30 variants with missing calls, traits with missing values, 3 covariates."""
    calls = draw_calls(random, 30, 60, missing=0.1)
    traits = random.normal(size=(60, 4)) + 0.5 * np.maximum(calls[3], 0)[:, None]
    traits[4:9, 1] = np.nan
    traits[7:20, 3] = np.nan
    return calls, traits, random.normal(size=(60, 3))


def expected(calls, traits, covariates, missing):
    beta, se, log10p, n = np.empty((4, len(calls), traits.shape[1]))
    for j, genotype in enumerate(calls.astype(float)):
        for t in range(traits.shape[1]):
            used = ~np.isnan(traits[:, t])
            called = genotype >= 0
            if missing == "drop":
                used &= called
            g = np.where(called, genotype, genotype[used & called].mean())
            found = least_squares(g[used], traits[used, t], covariates[used])
            beta[j, t], se[j, t], log10p[j, t] = found
            n[j, t] = used.sum()
    return beta, se, log10p, n


@pytest.mark.parametrize("missing", ["mean", "drop"])
@pytest.mark.parametrize(("precision", "tolerance"), [("double", 1e-10), ("single", 2e-5)])
def test_every_regression(study, missing, precision, tolerance):
    calls, traits, covariates = study
    found = scan(
        InMemory(calls), table(traits), table(covariates, "c"),
        missing_genotypes=missing, precision=precision, variant_filter=ALL,
    )  # fmt: skip
    beta, se, log10p, n = expected(calls, traits, covariates, missing)
    np.testing.assert_allclose(found.beta / se, beta / se, atol=tolerance)
    np.testing.assert_allclose(found.se, se, rtol=tolerance)
    np.testing.assert_allclose(found.log10p, log10p, atol=10 * tolerance)
    np.testing.assert_array_equal(found.n, n)


def test_single_precision_where_it_is_hard(random):
    """Variants nearly explained by covariates, and traits nearly explained by a variant."""
    calls = draw_calls(random, 20, 500)
    covariates = calls[:3].T + 1e-2 * random.normal(size=(500, 3))
    traits = np.column_stack([calls[5] + 1e-3 * random.normal(size=500), random.normal(size=500)])
    source = InMemory(calls)
    single = scan(source, table(traits), table(covariates, "c"), variant_filter=ALL)
    double = scan(
        source, table(traits), table(covariates, "c"), precision="double", variant_filter=ALL
    )
    assert np.abs(double.t).max() > 5000
    limit = 1e-4 * np.maximum(1, np.abs(double.t))
    assert (np.abs(single.t - double.t) <= limit).all()


def test_a_large_mean_changes_nothing(study):
    calls, traits, covariates = study
    source, c = InMemory(calls), table(covariates, "c")
    for precision, tolerance in (("double", 1e-7), ("single", 1e-4)):
        base = scan(source, table(traits), c, precision=precision, variant_filter=ALL)
        moved = scan(source, table(traits + 1e6), c, precision=precision, variant_filter=ALL)
        np.testing.assert_allclose(moved.t, base.t, atol=tolerance)
        np.testing.assert_allclose(moved.se, base.se, rtol=tolerance)


def test_cuts_and_threads_do_not_change_a_bit(random, monkeypatch):
    calls = draw_calls(random, 1500, 70, missing=0.02)
    traits, source = table(random.normal(size=(70, 2))), InMemory(calls)
    base = scan(source, traits, threads=1)
    for size, threads in ((256, 3), (512, 2), (1024, 1)):
        monkeypatch.setattr(InMemory, "block_size", lambda self, size=size: size)
        again = scan(source, traits, threads=threads)
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(again, name), getattr(base, name))
    order = random.permutation(1500)
    monkeypatch.undo()
    turned = scan(InMemory(calls[order]), traits)
    np.testing.assert_allclose(turned.t, base.t[order], atol=1e-4)


def test_order_of_samples_and_alleles(study, random):
    calls, traits, _ = study
    base = scan(InMemory(calls), table(traits), precision="double", variant_filter=ALL)
    order = random.permutation(60)
    names = [f"s{i}" for i in order]
    turned = scan(
        InMemory(calls[:, order], names), table(traits), precision="double", variant_filter=ALL
    )
    np.testing.assert_allclose(turned.t, base.t, rtol=1e-10)
    flipped = np.where(calls < 0, calls, 2 - calls)
    other = scan(InMemory(flipped), table(traits), precision="double", variant_filter=ALL)
    np.testing.assert_allclose(other.beta, -base.beta, rtol=1e-10)
    np.testing.assert_allclose(other.se, base.se, rtol=1e-12)
    np.testing.assert_allclose(other.frequency, 1 - base.frequency, rtol=1e-12)


def test_what_is_not_tested_is_missing(random):
    calls = draw_calls(random, 7, 80)
    calls[0] = 1  # everyone heterozygous: nothing to regress on
    calls[1] = 0
    calls[2, :40] = -1
    calls[4] = np.arange(80) < 3
    covariates = np.column_stack([calls[3], random.normal(size=80)])
    found = scan(InMemory(calls), table(random.normal(size=(80, 2))), table(covariates, "c"))
    for values in (found.beta, found.se, found.log10p):
        assert np.isnan(values[:5]).all()
        assert np.isfinite(values[5:]).all()
    assert found.filtered == {
        "call rate": 2, "monomorphic": 2, "minor allele count": 2,
        "collinearity with the covariates": 4,
    }  # fmt: skip
    effects = found.to_effects()
    assert effects.n_effects == 2
    with pytest.raises(NotAvailableError, match="no variant was tested"):
        scan(InMemory(calls[:2]), table(random.normal(size=(80, 2)))).to_effects()
    assert effects.contexts == ("t0", "t1")
    assert "tests left out: 2 by call rate" in found.summary()


def test_effects_for_mash(study):
    calls, traits, covariates = study
    source, c = InMemory(calls), table(covariates, "c")
    found = scan(source, table(traits), c, variant_filter=VariantFilter(min_call_rate=0.5))
    effects = found.to_effects()
    data = mash.mash_set_data(effects.bhat, effects.shat, V=effects.V)
    assert data.n_effects == effects.n_effects > 20
    assert found.to_table().columns[:6] == ["chrom", "pos", "id", "oa", "ea", "eaf"]


@pytest.mark.parametrize("missing", ["mean", "drop"])
def test_effects_for_mash_have_the_p_values_of_the_t_tests(study, missing):
    calls, traits, covariates = study
    found = scan(
        InMemory(calls[:, :40]), table(traits[:40]), table(covariates[:40], "c"),
        variant_filter=VariantFilter(min_call_rate=0.5), missing_genotypes=missing,
    )  # fmt: skip
    effects = found.to_effects()
    tested = np.isfinite(found.se).any(axis=1)
    known = np.isfinite(found.se[tested])
    p = 2 * stats.norm.sf(np.abs(effects.bhat / effects.shat)[known])
    np.testing.assert_allclose(p, 10.0 ** found.log10p[tested][known], rtol=1e-9)
    np.testing.assert_array_equal(effects.bhat[known], found.beta[tested][known])
    assert (effects.shat[known] > found.se[tested][known]).all()


def test_variants_at_the_same_place(random):
    """Two probes of one variant are two effects, with names of their own."""
    source = InMemory(draw_calls(random, 5, 80))
    frame = source.variants.frame
    place = frame["pos"].to_numpy().copy()
    place[[2, 4]] = place[1]
    source._variants = VariantTable.of(
        frame["chrom"], place, frame["oa"], frame["ea"], ["a", "b", "c", "d", "c"]
    )
    found = scan(source, table(random.normal(size=(80, 2))))
    assert found.variants.tolist() == ["a", "b", "1:2:A:G:c", "d", "1:2:A:G:c:2"]
    assert found.to_effects().n_effects == 5


def test_frequencies_are_of_the_samples_that_are_scanned(random):
    """An allele may be rarer in others, whose traits are not known: another population, say."""
    calls = draw_calls(random, 40, 90, missing=0.02)
    calls[:, 60:] = 2
    several = np.full((90, 2), np.nan)
    several[:40, 0], several[20:60, 1] = random.normal(size=(2, 40))
    covariates, cases = random.normal(size=(90, 1)), np.full((90, 1), np.nan)
    cases[:60, 0] = random.random(60) < 0.5
    chromosomes = ["1"] * 20 + ["2"] * 20
    source, c = InMemory(calls, chromosomes=chromosomes), table(covariates, "c")
    known = np.ma.masked_less(calls[:, :60], 0).mean(axis=1) / 2
    one = several[:, :1].copy()
    one[40:60, 0] = random.normal(size=20)
    for found in (
        scan(source, table(one), c, variant_filter=ALL),
        scan(source, table(several), c, variant_filter=ALL, missing_genotypes="drop"),
        scan(source, table(several), c, variant_filter=ALL, model="mixed"),
        scan(source, table(several), c, variant_filter=ALL, model="whole-genome"),
        scan(source, table(cases), c, variant_filter=ALL, model="logistic"),
        scan_interaction(source, table(several), c, variant_filter=ALL),
    ):
        np.testing.assert_allclose(found.frequency, known, rtol=1e-12)


def test_the_errors_of_two_traits_correlate_as_V0_says(random):
    """z-scores of null variants, traits measured on overlapping samples."""
    n, m = 400, 20_000
    shared = random.normal(size=(n, 1))
    traits = 0.8 * shared + 0.6 * random.normal(size=(n, 3))
    traits[:100, 1] = np.nan
    traits[250:, 2] = np.nan
    found = scan(InMemory(draw_calls(random, m, n)), table(traits))
    correlation = np.corrcoef(found.t.T)
    np.testing.assert_allclose(correlation, found.V0, atol=5 / np.sqrt(m))
    assert found.V0[0, 1] == pytest.approx(0.64 * np.sqrt(0.75), abs=0.08)


def test_calibration(random):
    calls = draw_calls(random, 100_000, 300)
    found = scan(InMemory(calls), table(random.normal(size=(300, 10))))
    for t in range(10):
        p = 10 ** found.log10p[:, t]
        assert stats.kstest(p, "uniform").pvalue > 1e-8
    assert (found.lambda_gc > 0.96).all()
    assert (found.lambda_gc < 1.04).all()


def test_lambda_is_1_without_effects_however_few_the_samples(random):
    """With 6 degrees of freedom the median of t squared is 1.13 times that of chi-square."""
    found = scan(
        Dosages(np.clip(random.normal(1, 0.2, (40_000, 8)), 0, 2)),  # t is exact of normal ones
        table(random.normal(size=(8, 3))),
        variant_filter=ALL,
    )
    np.testing.assert_allclose(found.lambda_gc, 1, atol=0.03)


def test_rank_transform_of_residuals(random, study):
    """Blom's scores of the residuals of each trait's own samples, covariates in both steps."""
    calls, traits, covariates = study
    found = scan(
        InMemory(calls), table(traits), table(covariates, "c"),
        transform="rank-residuals", precision="double", variant_filter=ALL,
    )  # fmt: skip
    for t in range(4):
        used = ~np.isnan(traits[:, t])
        X = np.column_stack([np.ones(used.sum()), covariates[used]])
        y = traits[used, t]
        left = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
        scores = stats.norm.ppf((stats.rankdata(left) - 0.375) / (used.sum() + 0.25))
        for j in (0, 3, 29):
            call = calls[j].astype(float)
            g = np.where(call >= 0, call, call[used & (call >= 0)].mean())[used]
            beta, se, log10p = least_squares(g, scores, covariates[used])
            assert found.beta[j, t] == pytest.approx(beta, rel=1e-9)
            assert found.se[j, t] == pytest.approx(se, rel=1e-9)
            assert found.log10p[j, t] == pytest.approx(log10p, rel=1e-9)
    grouped = table(random.integers(0, 2, (60, 2)), "c")
    counted = table(random.poisson(2, (60, 1)))
    one = scan(InMemory(calls), counted, grouped, transform="rank-residuals")
    order = random.permutation(60)
    moved = InMemory(calls[:, order], [f"s{i}" for i in order])
    two = scan(moved, counted, grouped, transform="rank-residuals")
    np.testing.assert_allclose(two.t, one.t, atol=1e-4)  # ties stay ties


def test_degrees_of_freedom(study, tmp_path):
    calls, traits, covariates = study
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        same = np.column_stack([covariates, covariates[:, 0]])
        given = InMemory(calls), table(traits), table(same, "c")
        found = scan(*given, variant_filter=ALL)
        dropped = scan(*given, variant_filter=ALL, missing_genotypes="drop", out=tmp_path / "a")
    n = (~np.isnan(traits)).sum(axis=0)
    np.testing.assert_array_equal(found.df, n - 5)
    np.testing.assert_array_equal(dropped.df, n - 5)
    np.testing.assert_array_equal(dropped.n_regressors, [5] * 4)
    np.testing.assert_array_equal(found.degrees_of_freedom(), np.tile(n - 5, (30, 1)))
    freedom = dropped.degrees_of_freedom(slice(3, 9))
    np.testing.assert_array_equal(freedom, dropped.n[3:9] - 5)
    for result in (found, dropped):
        logs = stats.t.logsf(np.abs(result.t), result.degrees_of_freedom()) + np.log(2)
        np.testing.assert_allclose(np.asarray(result.log10p), logs / np.log(10), rtol=1e-6)
    logistic = scan(
        InMemory(calls), table((traits[:, :1] > 0).astype(float)), model="logistic",
        variant_filter=ALL,
    )  # fmt: skip
    assert logistic.df is None
    with pytest.raises(NotAvailableError, match="not t tests"):
        logistic.degrees_of_freedom()


def test_rank_transform(random):
    calls = draw_calls(random, 5, 90)
    y = random.normal(size=(90, 1))
    plain = scan(InMemory(calls), table(y), transform="rank")
    np.testing.assert_allclose(
        scan(InMemory(calls), table(np.exp(3 * y)), transform="rank").t, plain.t, rtol=1e-5
    )


def test_bad_input(study):
    calls, traits, covariates = study
    source = InMemory(calls)
    with pytest.raises(OptionError, match="missing_genotypes"):
        scan(source, table(traits), missing_genotypes="zero")
    with pytest.raises(OptionError, match="precision"):
        scan(source, table(traits), precision="half")
    with pytest.raises(OptionError, match="transform"):
        scan(source, table(traits), transform="log")
    with pytest.raises(OptionError, match="model"):
        scan(source, table(traits), model="cubic")
    holes = covariates.copy()
    holes[5, 1] = np.nan
    with pytest.raises(MissingCovariateError, match="'c1' is missing for 1 of 60"):
        scan(source, table(traits), table(holes, "c"))
    found = scan(source, table(traits), table(holes, "c"), covariate_missing="drop")
    assert found.n[0, 0] == 59
    with pytest.raises(ConstantTraitError, match="'t0' does not vary"):
        scan(source, table(np.ones((60, 1))))
    few = np.full((60, 1), np.nan)
    few[:4, 0] = [1.0, 2.0, 3.0, 5.0]
    with pytest.raises(TooFewSamplesError, match="'t0' is measured on 4"):
        scan(source, table(few), table(covariates, "c"))
    renamed = SampleTable(np.array([f"F_s{i}" for i in range(60)]), ("y",), traits[:, :1])
    with pytest.raises(
        LabelError,
        match=r"no sample in common.* 60 would match with the prefix 'F_' of the phenotypes",
    ):
        scan(source, renamed)
    with pytest.warns(DataWarning, match=r"left out, constant: 'c3'"):
        scan(source, table(traits), table(np.column_stack([covariates, np.ones(60)]), "c"))


def test_covariates_left_out_are_said_once_and_not_recorded(study):
    """Those left out of all samples, and those of the samples of one trait."""
    calls, traits, covariates = study
    values = np.column_stack([covariates, np.ones(60), covariates[:, 0] * 2, np.arange(60) < 3])
    part = traits.copy()
    part[:3, 0] = np.nan  # the last covariate is constant in the samples of these traits
    part[:4, 1] = np.nan
    source = InMemory(calls)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = scan(source, table(part), table(values, "c"), precision="double")
    told = sorted(str(warning.message) for warning in said)
    assert told[0].startswith("covariates left out, a combination of the others: 'c")
    assert told[1:] == [f"covariates left out, constant: '{name}'." for name in ("c3", "c5")]
    used = found.provenance.options["covariates"]
    assert used in (["c0", "c1", "c2", "c5"], ["c1", "c2", "c4", "c5"])
    plain = scan(source, table(part), table(covariates, "c"), precision="double")
    np.testing.assert_allclose(found.t[:, 0], plain.t[:, 0], rtol=1e-9)
