"""Scans whose models without a chromosome are near the exact one of all: against exact ones."""

import pickle
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from plait.errors import OptionError
from plait.gwas import VariantFilter, scan
from plait.gwas.calibration import TOLERANCE
from plait.gwas.design import make_designs
from plait.gwas.mixed import EXACT_BELOW, MixedModel
from plait.gwas.null_models import LeftOutModel
from plait.gwas.passes import joined
from tests.gwas.conftest import InMemory
from tests.gwas.test_mixed import families, populations, table

N, EACH = 1000, 1200
CHROMOSOMES = ["1"] * EACH + ["2"] * EACH + ["3"] * EACH


def outbred(random):
    frequency = random.uniform(0.05, 0.95, (3 * EACH, 1))
    calls = random.binomial(2, frequency, (3 * EACH, N)).astype(np.int8)
    calls[random.random(calls.shape) < 0.01] = -1
    return calls


def with_sibships(random):
    """A tenth of the samples are siblings, and whole sibships carry some rare variants."""
    calls = outbred(random)
    calls[:, :100] = families(random, 3 * EACH, 25, 4)[0]
    rare = np.arange(7, 3 * EACH, 60)
    calls[rare] = 0
    for j in rare:
        calls[j, :100] = np.isin(np.repeat(np.arange(25), 4), random.choice(25, 6, replace=False))
    return calls


def two_populations(random):
    return populations(random, 3 * EACH, N, 0.05)


def traits_of(random, calls, n_traits):
    weights = random.normal(size=(len(calls), n_traits)).astype(np.float32)
    weights *= random.random((len(calls), 1)) < 0.05
    genetic = np.maximum(calls, 0).astype(np.float32).T @ weights
    genetic /= genetic.std(axis=0)
    shares = np.linspace(0.3, 0.8, n_traits)
    values = np.sqrt(shares) * genetic + np.sqrt(1 - shares) * random.normal(size=genetic.shape)
    values[:, -1] = random.normal(size=N)  # a boundary, or near it
    return values


@pytest.fixture(scope="module", params=[outbred, with_sibships, two_populations])
def study(request):
    random = np.random.default_rng(5)
    calls = request.param(random)
    source = InMemory(calls, chromosomes=CHROMOSOMES)
    return source, traits_of(random, calls, 4), random.normal(size=(N, 2))


def compare(near, exact):
    """Assert that small p-values are those of exact models, and others within calibration."""
    np.testing.assert_array_equal(np.isnan(near.se), np.isnan(exact.se))
    small = exact.log10p < np.log10(EXACT_BELOW)
    np.testing.assert_array_equal(near.log10p < np.log10(EXACT_BELOW), small)
    np.testing.assert_allclose(near.log10p[small], exact.log10p[small], rtol=0.005)
    np.testing.assert_allclose(near.se[small], exact.se[small], rtol=0.002)
    ratio = near.se / exact.se - 1
    assert np.sqrt(np.nanmean(ratio**2, axis=0)).max() < 0.5 * TOLERANCE
    assert np.nanmedian(np.abs(ratio)) < 1e-3
    t = near.t - exact.t
    assert np.sqrt(np.nanmean(t**2, axis=0)).max() < 0.01


def test_as_exact_models(study):
    source, values, covariates = study
    given = source, table(values), table(covariates, "c")
    near = scan(*given, model="mixed")
    exact = scan(*given, model="mixed", precision="double")
    for one, other in zip(near.checks, exact.checks, strict=True):
        step = np.array(one["h2"]) - other["h2"]
        assert (np.abs(step) < 0.1 * near.h2_se)[~np.isnan(near.h2_se)].all()
        assert np.abs(step).max() < 0.01
        assert (np.array(one["h2_noise"]) < 0.05 * near.h2_se)[~np.isnan(near.h2_se)].all()
        assert max(one["h2_noise"]) > 0
        assert other["h2_noise"] == [0.0] * 4
        np.testing.assert_allclose(one["h2_step"], np.array(one["h2"]) - near.h2)
        assert one["leading"] == other["leading"] is not None
        assert max(one["error"], other["error"]) < TOLERANCE
    np.testing.assert_array_equal(near.h2, exact.h2)
    assert (exact.log10p < np.log10(EXACT_BELOW)).sum() > 5
    compare(near, exact)


def test_traits_on_different_samples():
    """Each pattern of missing traits has models of its own; small ones are exact."""
    random = np.random.default_rng(6)
    calls = np.hstack([outbred(random), outbred(random)[:, :300]])
    values = random.normal(size=(N + 300, 3)) + (calls[3] + calls[1500])[:, None]
    values[N:, 1] = np.nan
    values[500:, 2] = np.nan
    given = InMemory(calls, chromosomes=CHROMOSOMES), table(values)
    near = scan(*given, model="mixed")
    exact = scan(*given, model="mixed", precision="double")
    assert [check["samples"] for check in near.checks[:3]] == [N + 300, N, 500]
    compare(near, exact)
    np.testing.assert_array_equal(near.se[:, 2], exact.se[:, 2])


def test_cuts_threads_and_processes_do_not_change_a_bit():
    random = np.random.default_rng(8)
    calls = with_sibships(random)
    source = InMemory(calls, chromosomes=CHROMOSOMES)
    designs = make_designs(table(traits_of(random, calls, 3)), None, np.arange(N))
    found = []
    for threads, cuts in ((1, (0, EACH)), (2, (0, 17, 300, 1111, EACH))):
        given = designs, VariantFilter(), True, EXACT_BELOW, None, threads
        _, make = next(MixedModel(source, *given).passes())
        work = make()
        for one in (work, pickle.loads(pickle.dumps(work))):
            runs = [one.run(slice(a, b)) for a, b in pairwise(cuts)]
            found.append(joined(runs))
    assert (found[0].log10p < np.log10(EXACT_BELOW)).any()
    for other in found[1:]:
        for name in ("beta", "se", "log10p"):
            np.testing.assert_array_equal(getattr(other, name), getattr(found[0], name))


def test_families_are_left_to_exact_models():
    """Variants of families have to be rotated, and clones near a share of 1 are no easy matter."""
    random = np.random.default_rng(9)
    calls, family = families(random, 3 * EACH, 100, 10)
    source = InMemory(calls, chromosomes=CHROMOSOMES)
    values = random.normal(size=(100, 1))[family] + random.normal(size=(N, 1))
    near = scan(source, table(values), model="mixed")
    exact = scan(source, table(values), model="mixed", precision="double")
    assert all(check["leading"] is None for check in near.checks)
    assert all(check["h2_noise"] == [0.0] for check in near.checks)
    np.testing.assert_array_equal(near.log10p, exact.log10p)


@pytest.mark.parametrize("why", ["double", "again", "traits", "share"])
def test_when_models_are_exact(why):
    random = np.random.default_rng(10)
    calls = outbred(random)
    if why == "share":
        calls[:, 1::2] = calls[:, ::2]
    source, n_traits = InMemory(calls, chromosomes=CHROMOSOMES), 40 if why == "traits" else 1
    values = random.normal(size=(N, n_traits))
    if why == "share":
        values[1::2] = values[::2]
    designs = make_designs(table(values), None, np.arange(N))
    options = 0.5 if why == "again" else EXACT_BELOW, None, 1
    options += ("double" if why == "double" else "single",)
    model = MixedModel(source, designs, VariantFilter(), True, *options)
    assert not any(isinstance(null, LeftOutModel) for null in model._left_out("2"))


def test_null_p_values_are_uniform():
    """Polygenic traits of sibships: variants of chromosomes without effects."""
    random = np.random.default_rng(12)
    calls = with_sibships(random)
    values = traits_of(random, np.where(np.arange(3 * EACH)[:, None] < EACH, calls, 0), 8)
    near = scan(InMemory(calls, chromosomes=CHROMOSOMES), table(values), model="mixed")
    null = near.log10p[EACH:, :7]
    p = 10.0 ** null[~np.isnan(null).any(axis=1)]
    inflation = stats.chi2.isf(np.median(p, axis=0), 1) / stats.chi2.isf(0.5, 1)
    assert np.abs(inflation - 1).max() < 0.2
    assert abs(np.mean(p < 0.05) - 0.05) < 0.01


def test_bad_precision():
    random = np.random.default_rng(11)
    given = InMemory(outbred(random), chromosomes=CHROMOSOMES), table(random.normal(size=(N, 1)))
    with pytest.raises(OptionError, match="precision is 'quad'"):
        scan(*given, model="mixed", precision="quad")
