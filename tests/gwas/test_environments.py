"""The scan of several environments and of groups: statsmodels, calibration, stores and mash."""

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm
from matplotlib import pyplot as plt
from scipy import stats

from plait.data.phenotypes import SampleTable
from plait.errors import (
    FileFormatError,
    InputError,
    LabelError,
    NotAvailableError,
    OptionError,
    TooFewSamplesError,
)
from plait.execution import stored_output
from plait.gwas import (
    EnvironmentsResult,
    InteractionResult,
    VariantFilter,
    plot_manhattan,
    plot_qq,
    scan_interaction,
)
from plait.gwas.environments_results import STATISTICS
from plait.io import read_covariates, read_effects
from tests.gwas.conftest import InMemory, draw_calls

ALL = VariantFilter(min_call_rate=None, min_minor_count=None)
FIELDS = (*STATISTICS, "n", "frequency")
CLOSE = {"rtol": 1e-8, "atol": 1e-10}


def table(values, names=None):
    values = np.asarray(values, dtype=float)
    names = [f"t{i}" for i in range(values.shape[1])] if names is None else names
    return SampleTable(np.array([f"s{i}" for i in range(len(values))]), tuple(names), values)


@pytest.fixture
def random():
    return np.random.default_rng(12)


@pytest.fixture
def study(random):
    """180 samples, 15 variants with missing calls, 3 traits on 2 sets of samples."""
    calls = draw_calls(random, 15, 180, missing=0.05)
    environments = np.column_stack([random.normal(20, 3, 180), random.normal(-4, 1, 180)])
    covariates = random.normal(size=(180, 2))
    traits = random.normal(size=(180, 3)) * (environments[:, :1] / 10) + covariates[:, :1]
    traits += 0.2 * np.maximum(calls[3], 0)[:, None] * (environments[:, :1] - 18)
    traits[5:20, 1] = np.nan
    return calls, traits, environments, covariates


@pytest.fixture
def groups(random):
    """A frame with a text of 4 groups, the most frequent of them ``c``."""
    cage = random.choice(list("abcd"), 180, p=[0.2, 0.2, 0.4, 0.2])
    return pl.DataFrame({"IID": [f"s{i}" for i in range(180)], "cage": cage})


def brute_force_degrees(X, contrasts):
    """Zhang's degrees of freedom of HC3 by loops over elements and matrices of all samples."""
    rest = np.eye(len(X)) - X @ np.linalg.pinv(X)
    room = np.diagonal(rest)
    rows = contrasts @ np.linalg.pinv(X) / room
    mean = (rows * room) @ rows.T
    half = np.linalg.inv(np.linalg.cholesky(mean)) @ rows
    q = len(contrasts)
    total = 0.0
    for s in range(q):
        for t in range(q):
            W = (half[s] * half[t])[:, None] * rest
            total += 2 * np.sum(W * W.T)
    return q * (q + 1) / total


@pytest.mark.parametrize("robust", [False, True])
@pytest.mark.parametrize("kind", ["numbers", "groups"])
def test_against_statsmodels(study, groups, kind, robust):
    calls, traits, environments, covariates = study
    c = table(covariates, ["a", "b"])
    if kind == "numbers":
        given, E = table(environments, ["heat", "rain"]), environments
    else:
        given = groups
        E = np.column_stack([(groups["cage"] == name).to_numpy() for name in "abd"]).astype(float)
    q = E.shape[1]
    found = scan_interaction(
        InMemory(calls), table(traits), given, c, robust=robust, variant_filter=ALL
    )
    for t in range(3):
        used = ~np.isnan(traits[:, t])
        for j, call in enumerate(calls.astype(float)):
            g = np.where(call < 0, call[used & (call >= 0)].mean(), call)
            X = np.column_stack([np.ones(180), covariates, E, g, g[:, None] * E])[used]
            fit = sm.OLS(traits[used, t], X).fit()
            own = np.eye(X.shape[1])[-1 - q :]
            if robust:
                fit = fit.get_robustcov_results("HC3", use_t=True)
            np.testing.assert_allclose(found.coefficients[j, t], own @ fit.params, **CLOSE)
            known = own @ fit.cov_params() @ own.T
            np.testing.assert_allclose(found.covariance[j, t], known, rtol=1e-7, atol=1e-10)
            tests = (found.log10p_interaction, own[1:]), (found.log10p_joint, own)
            for logs, contrasts in tests:
                f, k = float(np.squeeze(fit.f_test(contrasts).fvalue)), len(contrasts)
                df = fit.df_resid
                if robust:
                    degrees = brute_force_degrees(X, contrasts)
                    df = degrees - k + 1
                    f *= df / degrees
                p = stats.f.sf(f, k, df)
                assert 10 ** logs[j, t] == pytest.approx(p, rel=1e-7, abs=1e-10)
            assert found.n[j, t] == used.sum()
            if kind == "groups":
                # Effects in each group, from a fit without a common effect.
                L = np.column_stack([np.ones(4), np.vstack([np.zeros(3), np.eye(3)])])
                beta, covariance = found.effects_at(rows=slice(j, j + 1))
                np.testing.assert_allclose(beta[0, t], L @ own @ fit.params, **CLOSE)
                np.testing.assert_allclose(covariance[0, t], L @ known @ L.T, rtol=1e-7, atol=1e-10)
    if kind == "groups":
        assert found.groups == ("cage=c", "cage=a", "cage=b", "cage=d")
        assert found.environment == "cage"
    else:
        assert found.terms == ("main", "heat", "rain")
        assert found.groups is None


@pytest.mark.parametrize("n_covariates", [1, 60])
def test_robust_degrees_of_freedom_count_the_covariates(random, n_covariates):
    """Few carriers and many covariates: residuals are correlated through the covariates, too."""
    n = 300
    group = random.choice(3, n, p=[0.6, 0.2, 0.2])
    E = (group[:, None] == [1, 2]).astype(float)
    covariates = random.normal(size=(n, n_covariates))
    calls = random.binomial(2, 0.2, (4, n)).astype(np.int8)
    found = scan_interaction(
        InMemory(calls), table(random.normal(size=(n, 1))), table(E, ["e=1", "e=2"]),
        table(covariates, [f"c{i}" for i in range(n_covariates)]), robust=True,
        variant_filter=ALL,
    )  # fmt: skip
    for j, g in enumerate(calls.astype(float)):
        X = np.column_stack([np.ones(n), covariates, E, g, g[:, None] * E])
        own = np.eye(X.shape[1])[-3:]
        slopes, V = found.coefficients[j, 0], found.covariance[j, 0]
        for logs, first in ((found.log10p_interaction, 1), (found.log10p_joint, 0)):
            b, q = slopes[first:], 3 - first
            d = brute_force_degrees(X, own[first:])
            f = (d - q + 1) / (q * d) * b @ np.linalg.solve(V[first:, first:], b)
            known = stats.f.logsf(f, q, d - q + 1) / np.log(10)
            assert logs[j, 0] == pytest.approx(known, rel=1e-8)


def test_two_columns_of_which_one_does_nothing_are_the_test_of_one(study):
    """One environment: the same F as Student's t, by a scan with the machinery of several."""
    from plait.data.phenotypes import align
    from plait.gwas.design import make_designs
    from plait.gwas.environments_scan import EnvironmentsScan

    calls, traits, environments, covariates = study
    both = table(np.column_stack([covariates, environments[:, 0]]), ["a", "b", "heat"])
    samples = align(InMemory(calls).samples, table(traits[:, :1]), both)
    designs = make_designs(samples.traits, samples.covariates, samples.rows)
    for robust in (False, True):
        work = EnvironmentsScan(
            InMemory(calls), designs, [environments[:, :1]], 1, robust, ALL
        ).run(slice(0, 15))
        plain = scan_interaction(
            InMemory(calls), table(traits[:, :1]), table(environments[:, :1], ["heat"]),
            table(covariates, ["a", "b"]), robust=robust, variant_filter=ALL,
        )  # fmt: skip
        np.testing.assert_allclose(work.log10p_interaction, plain.log10p_interaction, rtol=1e-9)
        np.testing.assert_allclose(work.coefficients[..., 0], plain.beta_main, rtol=1e-8)
        np.testing.assert_allclose(
            np.sqrt(work.covariance[..., 1, 1]), plain.se_interaction, rtol=1e-9
        )
        np.testing.assert_allclose(work.covariance[..., 0, 1], plain.covariance, rtol=1e-9)
        if not robust:
            np.testing.assert_allclose(work.log10p_joint, plain.log10p_joint, rtol=1e-9)


def test_alleles_units_bases_samples_cuts_and_threads(study, groups, random, monkeypatch):
    calls, traits, environments, covariates = study
    source, c = InMemory(calls), table(covariates, ["a", "b"])
    E = np.column_stack([(groups["cage"] == name).to_numpy() for name in "abd"]).astype(float)
    from_c = table(E, ["cage=a", "cage=b", "cage=d"])
    from_a = table(np.column_stack([E[:, 1:], 1 - E.sum(axis=1)]), ["cage=b", "cage=d", "cage=c"])
    for robust in (False, True):
        options = {"variant_filter": ALL, "robust": robust}
        heat = table(environments, ["heat", "rain"])
        base = scan_interaction(source, table(traits), heat, c, **options)
        flipped = InMemory(np.where(calls < 0, calls, 2 - calls))
        other = scan_interaction(flipped, table(traits), heat, c, **options)
        np.testing.assert_allclose(other.coefficients, -base.coefficients, rtol=1e-6)
        np.testing.assert_allclose(other.log10p_interaction, base.log10p_interaction, rtol=1e-7)
        turned = environments @ np.array([[2.0, 1.0], [-0.3, 5.0]]) + 7
        other = scan_interaction(source, table(traits), table(turned, ["u", "v"]), c, **options)
        for name in ("log10p_interaction", "log10p_joint"):
            np.testing.assert_allclose(getattr(other, name), getattr(base, name), rtol=1e-7)
        order = random.permutation(180)
        shuffled = InMemory(calls[:, order], [f"s{i}" for i in order])
        other = scan_interaction(shuffled, table(traits), heat, c, **options)
        np.testing.assert_allclose(other.log10p_interaction, base.log10p_interaction, rtol=1e-7)
        one = scan_interaction(source, table(traits), from_c, c, **options)
        two = scan_interaction(source, table(traits), from_a, c, **options)
        np.testing.assert_allclose(one.log10p_joint, two.log10p_joint, rtol=1e-7)
        np.testing.assert_allclose(one.log10p_interaction, two.log10p_interaction, rtol=1e-7)
        np.testing.assert_allclose(
            one.effects_at()[0], two.effects_at()[0][..., [3, 0, 1, 2]], rtol=1e-6
        )

    many = InMemory(draw_calls(random, 1100, 180, missing=0.02))
    whole = scan_interaction(many, table(traits), from_c, c, robust=True, threads=1)
    for size, threads in ((256, 3), (512, 2)):
        monkeypatch.setattr(InMemory, "block_size", lambda self, size=size: size)
        again = scan_interaction(many, table(traits), from_c, c, robust=True, threads=threads)
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))


def test_calibration_and_what_robust_is_for(random):
    """Four groups of which three are small; the variance differs among them."""
    n, m = 800, 4000
    group = random.choice(4, n, p=[0.55, 0.15, 0.15, 0.15])
    E = table((group[:, None] == np.arange(1, 4)).astype(float), ["c=1", "c=2", "c=3"])
    even = random.normal(size=(n, 2))
    uneven = even * np.linspace(1, 4, 4)[group][:, None]
    common = InMemory(draw_calls(random, m, n))
    rare = InMemory(random.binomial(2, 50 / (2 * n), (m, n)).astype(np.int8))
    for traits, robust in ((even, False), (even, True), (uneven, True)):
        found = scan_interaction(common, table(traits), E, robust=robust)
        for p in (found.log10p_interaction, found.log10p_joint):
            assert 0.006 < (p < -2).mean() < 0.015
    p = 10 ** scan_interaction(common, table(even), E).log10p_interaction
    assert stats.kstest(p[:, 0], "uniform").pvalue > 1e-6
    wrong = scan_interaction(common, table(uneven), E)
    assert (wrong.log10p_interaction < -2).mean() > 0.05
    for traits in (even, uneven):
        found = scan_interaction(rare, table(traits), E, robust=True)
        for p in (found.log10p_interaction, found.log10p_joint):
            known = p[~np.isnan(p)]
            assert len(known) > 6000
            assert (known < -2).mean() < 0.014
            assert (known < -3).mean() < 0.0035


def test_what_is_not_tested(random):
    calls = draw_calls(random, 4, 200)
    group = np.arange(200) % 3
    calls[1, group == 2] = 0  # nobody in a group has the allele
    E = table((group[:, None] == [1, 2]).astype(float), ["c=1", "c=2"])
    traits = table(random.normal(size=(200, 2)))
    for robust in (False, True):
        found = scan_interaction(InMemory(calls), traits, E, robust=robust)
        assert np.isnan(found.coefficients[1]).all()
        assert np.isnan(found.log10p_joint[1]).all()
        assert np.isfinite(found.covariance[[0, 2, 3]]).all()
        assert found.filtered == {
            "collinearity with covariates or main effect, or no variation in a group": 2
        }


def test_too_few_degrees_of_freedom_are_said(random):
    """Two carriers in each of 6 groups: five changes cannot be tested robustly."""
    n, k = 240, 6
    group = np.arange(n) % k
    calls = np.zeros((2, n), dtype=np.int8)
    for row, each in ((0, 2), (1, 20)):
        for level in range(k):
            calls[row, np.flatnonzero(group == level)[:each]] = 1
    E = table((group[:, None] == np.arange(1, k)).astype(float), [f"c={i}" for i in range(1, k)])
    found = scan_interaction(
        InMemory(calls), table(random.normal(size=(n, 1))), E, robust=True,
        variant_filter=VariantFilter(min_minor_count=5),
    )  # fmt: skip
    assert np.isnan(found.log10p_joint[0]).all()
    assert np.isfinite(found.log10p_joint[1]).all()
    assert np.isnan(found.log10p_interaction[0]).all()
    assert np.isfinite(found.coefficients[0]).all()
    assert found.filtered == {"too few degrees of freedom for robust errors": 1}
    assert found.to_effects("t0").n_effects == 1


def test_a_sample_fitted_perfectly_and_a_joint_test_alone_are_counted(random):
    """One carrier in a group; and few degrees that are enough for the changes, not for all."""
    n = 60
    group = np.arange(n) % 4
    calls = draw_calls(random, 3, n)
    for row, each in ((0, (3, 1, 2, 2)), (1, (2, 2, 2, 2))):
        calls[row] = 0
        for level, carriers in enumerate(each):
            calls[row, np.flatnonzero(group == level)[:carriers]] = 1
    E = table((group[:, None] == [1, 2, 3]).astype(float), ["c=1", "c=2", "c=3"])
    X = np.column_stack([np.ones(n), E.values, calls[1], calls[1][:, None] * E.values])
    assert brute_force_degrees(X, np.eye(8)[5:]) > 2
    assert brute_force_degrees(X, np.eye(8)[4:]) < 3
    traits = table(random.normal(size=(n, 2)))
    plain = scan_interaction(InMemory(calls[[0, 2]]), traits, E, variant_filter=ALL)
    assert plain.filtered == {}
    found = scan_interaction(InMemory(calls), traits, E, robust=True, variant_filter=ALL)
    missing = np.isnan(found.log10p_interaction)
    assert missing.all(axis=1).tolist() == [True, False, False]
    assert np.isnan(found.log10p_joint).all(axis=1).tolist() == [True, True, False]
    assert found.filtered == {
        "a sample fitted perfectly, without robust errors": 2,
        "too few degrees of freedom for the robust joint test alone": 2,
    }


@pytest.fixture
def long(random, groups):
    calls = draw_calls(random, 9000, 180, missing=0.01)
    ids = [f"rs{j}" for j in range(9000)]
    traits = random.normal(size=(180, 2))
    traits[3:6, 1] = np.nan
    return InMemory(calls, ids=ids), table(traits, ["a", "b"]), read_covariates(groups)


class Stop(Exception):
    """The end of a scan in the middle of it."""


def test_stores_resume_pictures_and_lambda(long, tmp_path, monkeypatch):
    expected = scan_interaction(*long)
    recorded = stored_output.Run.record
    seen = []

    def record(self, block, *what):
        recorded(self, block, *what)
        seen.append(block)
        if len(seen) == 1:
            raise Stop

    monkeypatch.setattr(stored_output.Run, "record", record)
    with pytest.raises(Stop):
        scan_interaction(*long, out=tmp_path / "a.zarr", threads=1)
    found = scan_interaction(*long, out=tmp_path / "a.zarr")
    assert [block.start for block in seen] == [0, 8192]
    assert isinstance(found, EnvironmentsResult)
    for name in (*FIELDS, "chrom", "pos", "id"):
        np.testing.assert_array_equal(getattr(found, name)[:], getattr(expected, name))
    assert (found.terms, found.groups) == (expected.terms, expected.groups)
    assert EnvironmentsResult.load(tmp_path / "a.zarr").allclose(expected, rtol=0)
    expected.save(tmp_path / "b.zarr")
    assert EnvironmentsResult.open(tmp_path / "b.zarr").allclose(expected, rtol=0)
    with pytest.raises(FileFormatError, match="environments"):
        InteractionResult.open(tmp_path / "a.zarr")
    known = stats.chi2.isf(10 ** np.nanmedian(found.surest[:], axis=0), 1) / stats.chi2.isf(0.5, 1)
    np.testing.assert_allclose(found.lambda_gc, known, rtol=1e-9)
    assert found.summary() == expected.summary()
    assert "a: 0 interactions at p < 5e-8" in found.summary()
    assert plot_manhattan(found, "b").get_title("left") == "b: interaction with cage"
    caption = plot_qq(found, caption=True).figure.texts[0].get_text()
    assert "without any interaction" in " ".join(caption.split())
    plt.close("all")
    made = found.to_table()
    beta, covariance = expected.effects_at()
    np.testing.assert_array_equal(made["beta_cage=c.b"], beta[:, 1, 0])
    np.testing.assert_array_equal(made["se_cage=d.a"], np.sqrt(covariance[:, 0, 3, 3]))
    assert made.width == 6 + 2 * (3 + 8)
    found.write_parquet(tmp_path / "a.parquet")
    assert pl.read_parquet(tmp_path / "a.parquet").equals(made, null_equal=True)
    assert found.to_xarray()["covariance"].dims == ("variants", "traits", "terms", "terms_2")


def test_effects_of_groups_go_to_mash(long, tmp_path):
    found = scan_interaction(*long, out=tmp_path / "a.zarr")
    effects = found.to_effects("b")
    assert effects.contexts == ("cage=c", "cage=a", "cage=b", "cage=d")
    beta, covariance = (part[:, 1] for part in found.effects_at())
    tested = ~np.isnan(found.log10p_interaction[:, 1])
    np.testing.assert_array_equal(effects.bhat, beta[tested])
    scaled = effects.shat[:, :, None] * effects.V * effects.shat[:, None, :]
    wider = (scaled[:, 0, 0] / covariance[tested, 0, 0])[:, None, None]
    assert (wider > 1 - 1e-12).all() and wider.max() > 1.01
    np.testing.assert_allclose(scaled, wider * covariance[tested], rtol=1e-12)
    found.write_effects(tmp_path / "effects.zarr", "b")
    again = read_effects(tmp_path / "effects.zarr")
    np.testing.assert_array_equal(again.V, effects.V)
    with pytest.raises(LabelError, match="no trait 'c'; there are a, b"):
        found.to_effects("c")
    nobody = scan_interaction(*long, variant_filter=VariantFilter(min_minor_count=1000))
    with pytest.raises(NotAvailableError, match="no variant was tested for 'a'"):
        nobody.to_effects("a")


def test_robust_errors_are_widened_for_mash(study):
    """Taken for normal, errors give the p-values of tests with few degrees of freedom."""
    calls, traits, environments, _ = study
    given = InMemory(calls), table(traits), table(environments, ["heat", "rain"])
    found = scan_interaction(*given, robust=True, variant_filter=ALL)
    places = np.array([[15, -4], [25, -4], [15, 0.5]])
    effects = found.to_effects("t0", places)
    tested = ~np.isnan(found.log10p_interaction[:, 0])
    covariance = effects.shat[:, :, None] * effects.V * effects.shat[:, None, :]
    differences = np.array([[-1.0, 1, 0], [-1, 0, 1]])
    changes = effects.bhat @ differences.T
    inverse = np.linalg.inv(differences @ covariance @ differences.T)
    squares = np.einsum("nq,nqr,nr->n", changes, inverse, changes)
    p = 10 ** found.log10p_interaction[tested, 0]
    np.testing.assert_allclose(stats.chi2.sf(squares, 2), p, rtol=1e-8)
    own = found.effects_at(places)[1][tested, 0]
    widened = covariance / own
    assert (widened > 1).all()
    np.testing.assert_allclose(widened, np.broadcast_to(widened[:, :1, :1], own.shape), rtol=1e-8)


@pytest.mark.parametrize("robust", [False, True])
def test_a_perfect_fit_has_no_errors(study, robust):
    calls, traits, environments, _ = study
    traits = traits.copy()
    traits[:, 0] = np.where(np.isnan(traits[:, 0]), np.nan, environments[:, 0])
    called = np.where(calls[3] < 0, 1, calls[3])
    calls = np.concatenate([calls, called[None]])
    traits[:, 0] *= called
    given = InMemory(calls), table(traits), table(environments, ["heat", "rain"])
    found = scan_interaction(*given, robust=robust, variant_filter=ALL)
    assert found.filtered["a perfect fit of the trait"] == 1
    for values in (found.coefficients, found.covariance, found.log10p_joint):
        assert np.isnan(values[-1, 0]).all() and np.isfinite(values[-1, 1]).all()
    places = np.array([[15, -4], [25, -4], [15, 0.5]])
    assert (found.to_effects("t0", places).shat > 0).all()


def test_ordinary_errors_are_widened_for_mash(study):
    """Of changes and of all effects, one has the p-value of its test and the other a larger one."""
    calls, traits, environments, _ = study
    given = InMemory(calls), table(traits), table(environments, ["heat", "rain"])
    found = scan_interaction(*given, variant_filter=ALL)
    places = np.array([[15, -4], [25, -4], [15, 0.5]])
    effects = found.to_effects("t0", places)
    tested = ~np.isnan(found.log10p_interaction[:, 0])
    covariance = effects.shat[:, :, None] * effects.V * effects.shat[:, None, :]
    normal = []
    for contrast in (np.array([[-1.0, 1, 0], [-1, 0, 1]]), np.eye(3)):
        some = effects.bhat @ contrast.T
        inverse = np.linalg.inv(contrast @ covariance @ contrast.T)
        squares = np.einsum("nq,nqr,nr->n", some, inverse, some)
        normal.append(stats.chi2.logsf(squares, len(contrast)))
    tests = np.stack([found.log10p_interaction[tested, 0], found.log10p_joint[tested, 0]])
    tests *= np.log(10)
    assert (normal > tests - 1e-8).all()
    np.testing.assert_allclose(np.abs(normal - tests).min(axis=0), 0, atol=1e-8)


def test_effects_at_places_of_numbers(study):
    calls, traits, environments, _ = study
    found = scan_interaction(
        InMemory(calls), table(traits), table(environments, ["heat", "rain"]), variant_filter=ALL
    )
    with pytest.raises(OptionError, match="give environments, rows of 2 values: heat, rain"):
        found.to_effects("t0")
    places = [[15, -4], [25, -4], [15, 0.5]]
    effects = found.to_effects("t0", places)
    assert effects.contexts == ("heat=15,rain=-4", "heat=25,rain=-4", "heat=15,rain=0.5")
    np.testing.assert_allclose(
        effects.bhat[:, 1], found.coefficients[:, 0] @ [1, 25, -4], rtol=1e-10
    )
    with pytest.raises(OptionError, match="follow from those in the others"):
        found.to_effects("t0", [[15, 0], [20, 0], [25, 0]])
    with pytest.raises(OptionError, match="rows of 2 finite numbers"):
        found.effects_at([15, 0])


def test_environments_by_name(study, groups):
    calls, traits, environments, _ = study
    frame = groups.with_columns(
        heat=pl.Series(environments[:, 0]), rain=pl.Series(environments[:, 1])
    )
    c = read_covariates(frame)
    source = InMemory(calls)
    named = scan_interaction(source, table(traits), ["heat", "rain"], c, variant_filter=ALL)
    given = scan_interaction(
        source, table(traits), table(environments, ["heat", "rain"]),
        c.select(["cage=a", "cage=b", "cage=d"]), variant_filter=ALL,
    )  # fmt: skip
    np.testing.assert_allclose(named.log10p_interaction, given.log10p_interaction, rtol=1e-8)
    mixed = scan_interaction(source, table(traits), ["heat", "cage"], c, variant_filter=ALL)
    assert mixed.terms == ("main", "heat", "cage=a", "cage=b", "cage=d")
    assert mixed.groups is None
    assert mixed.environment == "heat, cage=a, cage=b, cage=d"
    assert scan_interaction(source, table(traits), "cage", c).groups[0] == "cage=c"
    some = scan_interaction(source, table(traits), ["cage=a", "cage=b"], c, variant_filter=ALL)
    assert some.groups == ("cage=(others)", "cage=a", "cage=b")
    assert "beta_cage=(others).t0" in some.to_table().columns
    assert some.to_effects("t0").contexts == some.groups
    chosen = c.select(["cage=b", "cage=d"])
    assert scan_interaction(source, table(traits), chosen).groups[0] == "cage=(others)"
    whole = scan_interaction(source, table(traits), ["cage=d", "cage=b", "cage=a"], c)
    assert whole.groups == ("cage=c", "cage=d", "cage=b", "cage=a")
    with pytest.raises(LabelError, match="the environment 'snow' is no covariate"):
        scan_interaction(source, table(traits), ["heat", "snow"], c)
    with pytest.raises(OptionError, match="no environment is named"):
        scan_interaction(source, table(traits), [], c)


def test_environments_that_follow_from_others(study):
    calls, traits, environments, _ = study
    sums = np.column_stack([environments, environments.sum(axis=1)])
    with pytest.raises(InputError, match="'sum' follows from heat, rain in the samples"):
        scan_interaction(InMemory(calls), table(traits), table(sums, ["heat", "rain", "sum"]))


def test_groups_that_are_too_small_are_named(random):
    calls = draw_calls(random, 4, 200)
    group = np.minimum(np.arange(200), 9) % 4  # 2, 2 + 190, 3, 3 samples
    E = table((group[:, None] == [1, 2, 3]).astype(float), ["c=1", "c=2", "c=3"])
    with pytest.raises(TooFewSamplesError, match=r"of the 4 groups .* 3 have fewer"):
        scan_interaction(InMemory(calls), table(random.normal(size=(200, 1))), E)
