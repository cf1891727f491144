"""Likelihoods near a model that is exact, against exact ones."""

import pickle

import numpy as np
import pytest

from plait.numerics.krylov_kernels import log_determinant
from plait.numerics.krylov_reml import KrylovModel, Reference
from plait.numerics.reml import RestrictedModel, projected_inverse

N = 600
SIMULATED = (0.0, 0.1, 0.3, 0.5, 0.7, 0.85)


def outbred(random):
    return random.binomial(2, 0.4, (3000, N))


def populations(random):
    p = random.uniform(0.1, 0.9, (3000, 1))
    own = random.beta(np.repeat(p * 19, 2, axis=1), np.repeat((1 - p) * 19, 2, axis=1))
    return random.binomial(2, own[:, np.arange(N) % 2])


def sibships(random):
    p = random.uniform(0.2, 0.8, (3000, 1, 1))
    parents = random.random((3000, N // 3, 4)) < p
    calls = np.empty((3000, N // 3, 3))
    for child in range(3):
        passed = random.integers(0, 2, (2, 3000, N // 3, 1))
        mother = np.take_along_axis(parents[:, :, :2], passed[0], axis=2)[:, :, 0]
        father = np.take_along_axis(parents[:, :, 2:], passed[1], axis=2)[:, :, 0]
        calls[:, :, child] = mother.astype(float) + father
    return calls.reshape(3000, N)


def duplicates(random):
    calls = outbred(random)
    calls[:, 1::2] = calls[:, ::2]
    return calls


@pytest.fixture(scope="module", params=[outbred, populations, sibships, duplicates])
def models(request):
    """An exact model of half of the variants and one near that of all, by the same traits."""
    random = np.random.default_rng(1)
    calls = request.param(random).astype(float)
    calls -= calls.mean(axis=1, keepdims=True)
    both = []
    for part in (calls, calls[500:]):
        K = part.T @ part
        both.append(K / np.diag(K).mean())
    basis = np.linalg.qr(np.column_stack([np.ones(N), random.normal(size=(N, 2))]))[0]
    values, vectors = np.linalg.eigh(both[0])
    values = np.maximum(values, 0.0)
    traits = np.column_stack(
        [vectors @ (np.sqrt(h2 * values + 1 - h2) * random.normal(size=N)) for h2 in SIMULATED]
    )
    traits -= basis @ (basis.T @ traits)
    traits /= np.linalg.norm(traits, axis=0)
    whole = RestrictedModel.of(both[0], basis, traits)
    reference = Reference.of(whole, whole.fit().h2, both[0], basis)
    assert reference is not None
    near = KrylovModel.of(both[1].copy(), basis, traits, reference)
    assert near is not None
    return RestrictedModel.of(both[1], basis, traits), near, both[1], basis, random


def test_shares(models):
    exact, near, *_ = models
    fit = exact.fit()
    np.testing.assert_array_equal(near.h2[fit.at_boundary], fit.h2[fit.at_boundary])
    inside = ~fit.at_boundary
    off = np.abs(near.h2 - fit.h2)[inside]
    assert (off < 0.1 * fit.se[inside]).all()
    assert (near.noise[inside] < 0.05 * fit.se[inside]).all()
    assert (off < 4.5 * near.noise[inside] + 1e-6).all()  # six normal values at most


def test_solutions_and_forms(models):
    exact, near, K, basis, random = models
    genotypes = random.binomial(2, 0.3, (N, 40)).astype(float)
    genotypes -= basis @ (basis.T @ genotypes)
    variances = near.variances(genotypes)
    solved, lengths = near.projected_traits()
    for t, h2 in enumerate(near.h2):
        P = projected_inverse(K, basis, h2, 0.0)
        expected = P @ near.matrix.project(exact.relationships.rotated_back(exact.traits[:, [t]]))
        np.testing.assert_allclose(solved[:, [t]], expected, atol=1e-6 * np.abs(expected).max())
        y = exact.relationships.rotated_back(exact.traits[:, t])
        assert lengths[t] == pytest.approx(y @ P @ y, rel=1e-6)
        forms = np.einsum("ij,ik,kj->j", genotypes, P, genotypes)
        np.testing.assert_allclose(variances[:, t], forms, rtol=3e-4)
        pivots = exact.relationships.factor(h2, 1 - h2)[0]
        whole = exact._log_determinant(h2, float(np.log(pivots).sum()))
        assert near.determinant.logarithm(h2) == pytest.approx(whole, abs=0.5)


def test_one_more_regressor(models):
    exact, near, _, basis, random = models
    for t in range(len(near.h2)):
        y = exact.relationships.rotated_back(exact.traits[:, t])
        g = random.normal(size=N) / np.sqrt(N) + 0.3 * y
        g -= basis @ (basis.T @ g)
        ready, expected = near.prepared(g[None])[0], exact.prepared(g[None])[0]
        h2 = near.h2[t]
        np.testing.assert_allclose(
            near.regression(ready, t, h2), exact.regression(expected, t, h2), rtol=1e-4
        )
        share = exact.share_beside(expected, t, h2)
        assert near.share_beside(ready, t, h2) == pytest.approx(share, abs=0.01)


def test_variants_together_or_alone(models):
    """The same bits: an exact model's too."""
    exact, near, _, basis, random = models
    genotypes = random.binomial(2, 0.3, (20, N)).astype(float)
    genotypes -= (genotypes @ basis) @ basis.T
    for model in (exact, near):
        together = model.prepared(genotypes)
        for j in (0, 3, 19):
            alone = model.prepared(genotypes[[j]])[0]
            for share in (0.0, 0.1):
                found = [model.regression(one, 2, share) for one in (together[j], alone)]
                assert found[0] == found[1]
            shares = [model.share_beside(one, 2, near.h2[2]) for one in (together[j], alone)]
            assert shares[0] == shares[1]
        assert model.prepared(genotypes[:0]) == []


def test_determinants_are_tabulated(models):
    """As precisely as they are added up, and beyond the table as they are."""
    determinant = models[1].determinant
    known = determinant.reference
    own = known.diagonal, known.off_diagonal, determinant.nodes, determinant.weights
    for share in (0.0, 1e-3, 0.0081, 0.0083, 0.1, 0.25, 0.5, 0.7777, 0.95, 0.9917, 0.99, 0.995):
        expected = log_determinant(*own, share)
        expected -= known.n_covariates * np.log(share * known.lifted + 1 - share)
        assert determinant.logarithm(share) == pytest.approx(expected, abs=1e-9)


def test_a_variant_that_is_the_trait(models):
    exact, near, *_ = models
    for t in (0, 3):
        y = exact.relationships.rotated_back(exact.traits[:, t])
        slope, error = near.regression(near.prepared(2.0 * y[None])[0], t, near.h2[t])
        assert slope == pytest.approx(0.5)
        assert error**2 * near.df < 1e-14 * slope**2


def test_another_process_gets_the_same_bits(models):
    _, near, _, basis, random = models
    sent = pickle.loads(pickle.dumps(near))
    g = random.normal(size=N)
    g -= basis @ (basis.T @ g)
    found = [one.regression(one.prepared(g[None])[0], 3, 0.4) for one in (near, sent)]
    assert found[0] == found[1]


def test_the_noise_is_that_of_the_probes(monkeypatch):
    """Of shares by other probes."""
    random = np.random.default_rng(3)
    calls = sibships(random)
    calls -= calls.mean(axis=1, keepdims=True)
    K = calls.T @ calls / (calls**2).sum() * N
    less = calls[1500:].T @ calls[1500:] / (calls[1500:] ** 2).sum() * N
    values, vectors = np.linalg.eigh(K)
    y = vectors @ (np.sqrt(0.7 * np.maximum(values, 0) + 0.3) * random.normal(size=N))
    basis = np.full((N, 1), N**-0.5)
    y -= y.mean()
    given = basis, y[:, None] / np.linalg.norm(y)
    model = RestrictedModel.of(K, *given)
    h2, exact = model.fit().h2, RestrictedModel.of(less, *given).fit().h2[0]
    off, noise = [], []
    for seed in range(40):
        monkeypatch.setattr(np.random, "SeedSequence", lambda words, seed=seed: [*words, seed])
        near = KrylovModel.of(less.copy(), *given, Reference.of(model, h2, K, basis))
        off.append(near.h2[0] - exact)
        noise.append(near.noise[0])
    assert 0.6 < np.sqrt(np.mean(np.square(off))) / np.sqrt(np.mean(np.square(noise))) < 1.5


def test_what_takes_long_is_left_to_exact_models():
    random = np.random.default_rng(4)
    factors = random.normal(size=(N, N)) * np.geomspace(1.0, 1e-3, N)
    K = factors @ factors.T
    K /= np.diag(K).mean()
    basis = np.full((N, 1), N**-0.5)
    y = np.linalg.cholesky(0.9 * K + 0.1 * np.eye(N)) @ random.normal(size=(N, 1))
    y -= y.mean()
    model = RestrictedModel.of(K, basis, y)
    assert Reference.of(model, np.array([0.995]), K, basis) is None
    assert Reference.of(model, np.array([0.9]), K, basis) is None
    reference = Reference.of(model, np.array([0.3]), K, basis)
    found = None if reference is None else KrylovModel.of(K.copy(), basis, y, reference)
    assert found is None or found.h2[0] <= 0.99


def test_a_large_effect_hides_what_relationships_explain():
    """The share beside it is far above the one without it, where near models are not sure."""
    random = np.random.default_rng(5)
    calls = duplicates(random).astype(float)
    calls -= calls.mean(axis=1, keepdims=True)
    K = calls.T @ calls / (calls**2).sum() * N
    less = calls[500:].T @ calls[500:] / (calls[500:] ** 2).sum() * N
    values, vectors = np.linalg.eigh(K)
    basis = np.full((N, 1), N**-0.5)
    g = random.normal(size=N)
    y = vectors @ (np.sqrt(0.8 * np.maximum(values, 0) + 0.2) * random.normal(size=N)) + 2.0 * g
    given = basis, (y - y.mean())[:, None] / np.linalg.norm(y - y.mean())
    model, exact = RestrictedModel.of(K, *given), RestrictedModel.of(less, *given)
    h2 = model.fit().h2
    near = KrylovModel.of(less.copy(), *given, Reference.of(model, h2, K, basis))
    ready, expected = (
        near.prepared((g - g.mean())[None])[0],
        exact.prepared((g - g.mean())[None])[0],
    )
    share = exact.share_beside(expected, 0, h2[0])
    assert share > near.limits[0] + 0.1
    found = near.share_beside(ready, 0, near.h2[0])
    assert found == pytest.approx(share, abs=1e-4)
    np.testing.assert_allclose(
        near.regression(ready, 0, found), exact.regression(expected, 0, share), rtol=1e-4
    )
    forged = Reference.of(model, h2 * 0.0, K, basis)
    assert h2[0] > 0.06
    assert KrylovModel.of(less.copy(), *given, forged) is None
