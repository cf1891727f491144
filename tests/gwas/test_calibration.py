"""Variances of scores without rotation: rare variants of relatives, and what is said of errors."""

from itertools import pairwise

import numpy as np
import pytest

from plait.data.phenotypes import SampleTable
from plait.gwas import VariantFilter, relationship_matrix, scan
from plait.gwas.calibration import TOLERANCE, RareVariances, rare_copies
from plait.gwas.design import EXACT_BELOW, make_designs
from plait.gwas.linear import GroupedScan
from plait.gwas.mixed import MixedGroup, MixedModel
from plait.gwas.null_models import NullModel
from plait.gwas.passes import joined
from tests.gwas.conftest import Dosages, InMemory

N_SAMPLES, N_VARIANTS, N_FAMILIES, SIZE = 600, 12_000, 8, 5
RARE = np.arange(50, N_VARIANTS, 600)


def table(values):
    samples = np.array([f"s{i}" for i in range(len(values))])
    return SampleTable(samples, tuple(f"t{i}" for i in range(values.shape[1])), values)


def outbred_with_sibships(random, n_families=N_FAMILIES, size=SIZE):
    """Calls of mostly unrelated samples, and the family of the first few."""
    frequency = random.uniform(0.1, 0.9, (N_VARIANTS, 1))
    calls = random.binomial(2, frequency, (N_VARIANTS, N_SAMPLES)).astype(np.int8)
    family = np.repeat(np.arange(n_families), size)
    parents = random.random((N_VARIANTS, n_families, 2, 2)) < frequency[:, :, None, None]
    everyone = np.arange(N_VARIANTS)
    for i, k in enumerate(family):
        calls[:, i] = sum(
            parents[everyone, k, parent, random.integers(0, 2, N_VARIANTS)].astype(np.int8)
            for parent in range(2)
        )
    return calls, family


def polygenic(random, calls, shares):
    """Traits of which such shares follow all common variants."""
    weights = random.normal(size=(len(calls), len(shares))).astype(np.float32)
    weights[RARE] = 0.0
    genetic = (calls - calls.mean(axis=1, keepdims=True, dtype=np.float32)).T @ weights
    genetic /= genetic.std(axis=0)
    noise = random.normal(size=genetic.shape)
    return np.sqrt(shares) * genetic + np.sqrt(1 - np.array(shares)) * noise


@pytest.fixture(scope="module")
def whole_sibships():
    """Rare variants that whole sibships carry, two of them with effects."""
    random = np.random.default_rng(0)
    calls, family = outbred_with_sibships(random)
    calls[RARE] = 0
    for j in RARE:
        carrying = random.choice(N_FAMILIES, 5, replace=False)
        calls[j, : len(family)] = np.isin(family, carrying)
    traits = polygenic(random, calls, [0.6, 0.4])
    traits += 3.0 * calls[RARE[0]][:, None] - 3.0 * calls[RARE[1]][:, None]
    return calls, traits


@pytest.fixture(scope="module")
def segregating():
    """Rare variants of one family of 60, half of which carries them."""
    random = np.random.default_rng(1)
    calls, family = outbred_with_sibships(random, 1, 60)
    calls[RARE] = 0
    calls[RARE, : len(family)] = random.integers(0, 2, (len(RARE), len(family)))
    traits = polygenic(random, calls, [0.0, 0.05, 0.3, 0.5, 0.6, 0.7])
    traits += 1.2 * calls[RARE[0]][:, None]
    return calls, traits


def scanned(source, traits, exact_below):
    """Return what calibration and rotation find, and what was checked."""
    designs = make_designs(table(traits), None, np.arange(N_SAMPLES))
    rules = VariantFilter()
    model = MixedModel(source, designs, rules, False, exact_below, None, 1)
    ((_, make),) = model.passes()
    everything = slice(0, N_VARIANTS)
    found = make().run(everything)
    groups = [MixedGroup(model._nulls()[0], None, rules, exact_below)]
    rotated = GroupedScan(source, groups, traits.shape[1]).run(everything)
    return found, rotated, model.checks[0]


@pytest.mark.parametrize("data", ["whole_sibships", "segregating"])
def test_rare_variants_of_relatives(data, request):
    calls, traits = request.getfixturevalue(data)
    found, rotated, check = scanned(InMemory(calls), traits, 0.0)
    assert check["leading"] is not None
    assert check["error"] < TOLERANCE
    ratio = found.se / rotated.se - 1
    assert np.abs(ratio[RARE]).max() < 2e-3
    t, exact = found.beta / found.se, rotated.beta / rotated.se
    np.testing.assert_allclose(t[RARE], exact[RARE], rtol=2e-3, atol=1e-5)
    common = np.delete(ratio, RARE, axis=0)
    assert np.sqrt(np.nanmean(common**2, axis=0)).max() < 1.3 * check["error"]
    # What a constant share of the genotypes' variance says of these variants is far off.
    left = np.array([((row - row.mean()) ** 2).sum() for row in calls])[:, None]
    share = 1.0 / (left * rotated.se**2)
    off = np.sqrt(share[RARE] / np.nanmedian(share, axis=0)) - 1
    assert np.abs(off).max() > 0.1


@pytest.mark.parametrize("data", ["whole_sibships", "segregating"])
def test_hits_among_rare_variants_of_relatives(data, request):
    calls, traits = request.getfixturevalue(data)
    found, rotated, _ = scanned(InMemory(calls), traits, EXACT_BELOW)
    small = rotated.log10p < np.log10(EXACT_BELOW)
    assert small[RARE].any()
    np.testing.assert_array_equal(found.log10p < np.log10(EXACT_BELOW), small)
    np.testing.assert_array_equal(found.log10p[small], rotated.log10p[small])
    np.testing.assert_array_equal(found.beta[small], rotated.beta[small])


def test_rare_dosages(whole_sibships):
    """Imputation leaves a little of the allele to everyone."""
    calls, traits = whole_sibships
    random = np.random.default_rng(5)
    dosages = np.abs(calls + 0.01 * random.normal(size=calls.shape)).astype(np.float32)
    dosages[random.random(calls.shape) < 0.01] = np.nan
    found, rotated, check = scanned(Dosages(np.minimum(dosages, 2)), traits, 0.0)
    assert check["leading"] is not None
    assert np.abs(found.se / rotated.se - 1)[RARE].max() < 5e-3


def test_missing_calls_of_rare_variants(whole_sibships):
    calls, traits = whole_sibships
    calls = calls.copy()
    calls[np.random.default_rng(6).random(calls.shape) < 0.02] = -1
    found, rotated, check = scanned(InMemory(calls), traits, 0.0)
    assert check["leading"] is not None
    assert np.abs(found.se / rotated.se - 1)[RARE].max() < 1e-3


def test_rare_variants_that_were_not_drawn_are_done_one_by_one(whole_sibships, monkeypatch):
    calls, traits = whole_sibships
    monkeypatch.setattr(
        "plait.gwas.calibration.Drawn.is_rare", property(lambda d: d.copies[:, 0] < 0)
    )
    found, rotated, _ = scanned(InMemory(calls), traits, 0.0)
    np.testing.assert_allclose(found.se[RARE], rotated.se[RARE], rtol=1e-5)


def test_rare_variants_have_the_same_bits_for_any_cut(segregating):
    calls, traits = segregating
    designs = make_designs(table(traits), None, np.arange(N_SAMPLES))
    runs = []
    for threads, cuts in ((1, [0, 1300]), (2, [0, 51, 100, 651, 1300])):
        given = designs, VariantFilter(), False, EXACT_BELOW, None, threads
        ((_, make),) = MixedModel(InMemory(calls), *given).passes()
        work = make()
        runs.append(joined([work.run(slice(*ends)) for ends in pairwise(cuts)]))
    for name in ("beta", "se", "log10p"):
        np.testing.assert_array_equal(*(getattr(run, name) for run in runs))


def test_any_number_of_shares():
    """Against dense algebra, at shares from 0 to nearly 1, with covariates."""
    random = np.random.default_rng(7)
    n = 200
    family = np.repeat(np.arange(50), 4)
    K = 0.5 * np.eye(n) + 0.5 * (family[:, None] == family)
    values = random.normal(size=(n, 12))
    covariates = table(random.normal(size=(n, 2)))
    design = make_designs(table(values), covariates, np.arange(n))[0]
    null = NullModel(design, K)
    copies = np.zeros((6, n))
    for j in range(6):
        copies[j, random.choice(n, 5 + 3 * j, replace=False)] = 1.0
        copies[j, 4 * j : 4 * j + 8] = 1.0
    centred = copies - (copies @ design.basis) @ design.basis.T
    left = (centred**2).sum(axis=1)
    shares = [
        (np.array([0.4]), 1e-6),  # P in single precision
        (np.array([0.995]), 1e-10),
        (np.array([0.0, 0.005, 0.3]), 1e-4),
        (np.linspace(0.2, 0.8, 12), 4e-3),  # more than there are nodes
        (np.linspace(0.0, 0.9, 30), 1e-2),
        (np.array([0.5, 1 - 1e-6]), 1e-3),
    ]
    for h2, tolerance in shares:
        found = np.empty((6, len(h2)))
        RareVariances.of(null, h2).fill(copies, left, found)
        for t, share in enumerate(h2):
            V = share * K / np.diag(K).mean() + (1 - share) * np.eye(n)
            inverse = np.linalg.inv(V)
            X = design.basis
            P = inverse - inverse @ X @ np.linalg.solve(X.T @ inverse @ X, X.T @ inverse)
            expected = np.einsum("ji,ik,jk->j", copies, P, copies)
            np.testing.assert_allclose(found[:, t], expected, rtol=tolerance)


def test_strata_are_reported(whole_sibships):
    calls, traits = whole_sibships
    result = scan(InMemory(calls), table(traits), model="mixed", loco=False)
    (check,) = result.checks
    assert check["rare_up_to"] == rare_copies(N_SAMPLES) == 128
    strata = check["strata"]
    assert sum(one["compared"] for one in strata) == check["compared"]
    assert max(one["worst"] for one in strata) == check["worst"]
    ends = [end for one in strata for end in one["copies"]]
    assert ends == sorted(ends)
    assert f"of the {check['compared']} variants compared" in result.summary()


def test_correlation_of_scores_of_traits_with_unlike_shares():
    """In families, against the correlation of the statistics of variants without effects."""
    random = np.random.default_rng(8)
    calls, _ = outbred_with_sibships(random, 120, SIZE)
    source = InMemory(calls)
    weights = random.normal(size=(N_VARIANTS, 1))
    genetic = (calls - calls.mean(axis=1, keepdims=True)).T @ weights
    genetic /= genetic.std()
    noise = random.normal(size=(N_SAMPLES, 2))
    noise[:, 1] = 0.8 * noise[:, 0] + 0.6 * noise[:, 1]
    shares = np.array([0.1, 0.9])
    traits = np.sqrt(shares) * genetic + np.sqrt(1 - shares) * noise
    result = scan(source, table(traits), model="mixed", loco=False, exact_below=0)
    expected = np.corrcoef(result.t.T)[0, 1]
    assert result.V0[0, 1] == pytest.approx(expected, abs=0.01)
    K = relationship_matrix(source, by_chromosome=False).matrix()
    K /= np.diag(K).mean()
    whitened = []
    for t, h2 in enumerate(result.h2):
        values, vectors = np.linalg.eigh(h2 * K + (1 - h2) * np.eye(N_SAMPLES))
        y = traits[:, t] - traits[:, t].mean()
        whitened.append(vectors @ (vectors.T @ y / np.sqrt(values)))
    assert abs(np.corrcoef(whitened)[0, 1] - expected) > 0.015


def test_correlation_of_scores_of_different_samples():
    """Against dense algebra; scores correlate where samples are related but not the same."""
    random = np.random.default_rng(9)
    calls, _ = outbred_with_sibships(random, 120, SIZE)
    values = random.normal(size=(120, 1))[np.repeat(np.arange(120), SIZE)]
    values = values + random.normal(size=(N_SAMPLES, 3))
    values[:250, 1] = np.nan
    values[np.arange(N_SAMPLES) % 2 == 0, 2] = np.nan
    source = InMemory(calls[:3000])
    result = scan(source, table(values), model="mixed", loco=False)
    K = relationship_matrix(source, by_chromosome=False).matrix()
    projected = np.zeros((N_SAMPLES, 3))
    for t, h2 in enumerate(result.h2):
        has = np.flatnonzero(~np.isnan(values[:, t]))
        own = K[np.ix_(has, has)]
        inverse = np.linalg.inv(h2 * own / np.diag(own).mean() + (1 - h2) * np.eye(len(has)))
        P = inverse - np.outer(inverse.sum(axis=1), inverse.sum(axis=0)) / inverse.sum()
        projected[has, t] = P @ values[has, t]
    covariance = projected.T @ K @ projected
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(result.V0, covariance / sd / sd[:, None], atol=1e-6)
