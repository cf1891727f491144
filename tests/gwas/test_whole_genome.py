"""Whole-genome regression against fits written out in full, its calibration, and what it gains."""

from pathlib import Path

import numpy as np
import pytest

from plait.data.phenotypes import SampleTable
from plait.errors import InputError, TooFewSamplesError
from plait.gwas import VariantFilter, whole_genome
from plait.gwas.design import make_designs
from plait.gwas.whole_genome import SHARES, WholeGenomeModel
from tests.gwas.conftest import InMemory, draw_calls, least_squares

ALL = VariantFilter(min_call_rate=None, min_minor_count=None)


def table(values, prefix="t"):
    names = tuple(f"{prefix}{i}" for i in range(values.shape[1]))
    return SampleTable(np.array([f"s{i}" for i in range(len(values))]), names, values)


def designs_of(traits, covariates=None):
    covariates = None if covariates is None else table(covariates, "c")
    return make_designs(table(traits), covariates, np.arange(len(traits)))


def scanned(model, source):
    """Scan all passes: t-statistics and effects (variants, traits)."""
    shape = (source.n_variants, len(model.explained))
    beta, se, log10p = np.full((3, *shape), np.nan)
    for runs, make in model.passes():
        work = make()
        for run in runs:
            part = work.run(run)
            beta[run], se[run], log10p[run] = part.beta, part.se, part.log10p
    return beta, se, log10p


def folds_of(rows, n_samples, seed):
    place = np.random.default_rng(np.random.SeedSequence(seed)).permutation(n_samples)
    fold = np.empty(len(rows), dtype=int)
    fold[np.argsort(place[rows])] = np.arange(len(rows)) % 5
    return fold


def written_out(Z, y, fold, blocks):
    """Both levels for one trait: predictions (blocks, N), out of fold, and their R2.

    Genotypes Z (N, M) and y are residuals of variance 1.
    """
    n, count = len(y), len(blocks)
    penalties = Z.shape[1] * (1 - SHARES) / SHARES

    def fitted(block, penalty, left_out):
        seen = ~np.isin(fold, left_out)
        X = Z[seen][:, block]
        return np.linalg.solve(X.T @ X + penalty * np.eye(len(block)), X.T @ y[seen])

    W = np.zeros((n, 5 * count))
    nested = np.zeros((5, n, 5 * count))
    for b, block in enumerate(blocks):
        for r, penalty in enumerate(penalties):
            for k in range(5):
                mine = fold == k
                W[mine, 5 * b + r] = Z[mine][:, block] @ fitted(block, penalty, [k])
                for unseen in set(range(5)) - {k}:
                    coefficients = fitted(block, penalty, [k, unseen])
                    nested[unseen, mine, 5 * b + r] = Z[mine][:, block] @ coefficients
    s = np.sqrt(np.mean(W**2, axis=0))
    found, errors = np.zeros((len(SHARES), 5, 5 * count)), np.zeros(len(SHARES))
    for k in range(5):
        rest = fold != k
        A = W[rest] / s
        s_nested = np.sqrt(np.mean(nested[k, rest] ** 2, axis=0))
        cross = (nested[k, rest] / s_nested).T @ y[rest]
        sums = np.zeros((5 * count, 5))
        for r in range(5):
            sums[r::5, r] = s[r::5]
        sums /= np.sqrt(np.mean((A @ sums) ** 2, axis=0))
        for i, h in enumerate(SHARES):
            prior = h / (1 - h) * (np.eye(5 * count) / (5 * count) + sums @ sums.T / 5)
            beta = np.linalg.solve(A.T @ A + np.linalg.inv(prior), cross)
            found[i, k] = beta / s
            errors[i] += np.sum((y[~rest] - W[~rest] @ found[i, k]) ** 2)
    explained = 1 - errors / (y @ y)
    best = found[np.argmax(explained)]
    predictions = np.zeros((count, n))
    for b in range(count):
        for i in range(n):
            columns = slice(5 * b, 5 * b + 5)
            predictions[b, i] = W[i, columns] @ best[fold[i], columns]
    return predictions, explained.max(), SHARES[np.argmax(explained)]


@pytest.fixture
def small(monkeypatch):
    """A polygenic trait, another one, and one that some samples lack; blocks of 10."""
    monkeypatch.setattr(whole_genome, "BLOCK", 10)
    random = np.random.default_rng(4)
    calls = draw_calls(random, 60, 120, missing=0.01)
    calls[13] = 1
    covariates = random.normal(size=(120, 2))
    genetic = np.maximum(calls, 0).T @ random.normal(size=(60, 3))
    traits = genetic / genetic.std(axis=0) + 0.7 * random.normal(size=(120, 3)) + covariates[:, [0]]
    traits[[3, 50, 51, 90], 2] = np.nan
    return InMemory(calls, chromosomes=np.repeat(["1", "2", "3"], 20)), traits, covariates


def test_against_fits_written_out(small):
    source, traits, covariates = small
    designs = designs_of(traits, covariates)
    model = WholeGenomeModel(source, designs, ALL, precision="double", seed=3)
    assert (model.n_predictors, model.n_blocks) == (59, 6)
    used = np.delete(np.arange(60), 13)
    cuts = [used[:10], used[10:19], *np.split(used[19:], 4)]
    blocks = [np.searchsorted(used, block) for block in cuts]
    passes = [make() for _, make in model.passes()]
    for d, design in enumerate(designs):
        genotypes = source.calls[used][:, design.rows].T.astype(float)
        genotypes[genotypes < 0] = np.nan
        genotypes = np.where(np.isnan(genotypes), np.nanmean(genotypes, axis=0), genotypes)
        X = np.column_stack([np.ones(len(genotypes)), covariates[design.rows]])
        hat = X @ np.linalg.pinv(X)
        unit = np.sqrt(len(X) - 3)
        Z = genotypes - hat @ genotypes
        Z *= unit / np.linalg.norm(Z, axis=0)
        fold = folds_of(design.rows, 120, seed=3)
        for t, trait in enumerate(design.columns):
            y = traits[design.rows, trait] - hat @ traits[design.rows, trait]
            length = np.linalg.norm(y) / unit
            predictions, explained, share = written_out(Z, y / length, fold, blocks)
            assert model.explained[trait] == pytest.approx(explained, abs=1e-9)
            assert model.shares[trait] == share
            for c, work in enumerate(passes):
                others = [b for b in range(6) if b // 2 != c]
                left = y - length * predictions[others].sum(axis=0)
                left -= hat @ left
                own = work.groups[d].design
                np.testing.assert_allclose(own.traits[:, t] * own.lengths[t], left, atol=1e-8)
            everything = y - length * predictions.sum(axis=0)
            everything -= hat @ everything
            everything /= np.linalg.norm(everything)
            np.testing.assert_allclose(model.residuals[d][:, t], everything, atol=1e-8)


def test_effects_are_in_units_of_the_trait(small):
    """A pass is an ordinary regression of the trait less its prediction."""
    source, traits, covariates = small
    designs = designs_of(traits[:, :1], covariates)
    model = WholeGenomeModel(source, designs, ALL, precision="double")
    beta, se, log10p = scanned(model, source)
    work = next(iter(model.passes()))[1]()
    design = work.groups[0].design
    left = design.traits[:, 0] * design.lengths[0]
    for j in (0, 5, 19):
        genotype = source.calls[j].astype(float)
        genotype[genotype < 0] = genotype[genotype >= 0].mean()
        found = (beta[j, 0], se[j, 0], log10p[j, 0])
        np.testing.assert_allclose(found, least_squares(genotype, left, covariates), rtol=1e-8)


def test_threads_and_stores_do_not_change_a_bit(small, monkeypatch, tmp_path):
    source, traits, covariates = small
    monkeypatch.setattr(whole_genome, "_TILE", 2)
    monkeypatch.setattr(whole_genome, "_SPAN", 16)
    designs = designs_of(traits, covariates)
    one = WholeGenomeModel(source, designs, ALL, threads=1)
    two = WholeGenomeModel(source, designs, ALL, threads=2)
    kept = []
    put = whole_genome._Predictions.put

    def spied(self, number, d, values):
        kept.append(Path(self.folder).parent)
        put(self, number, d, values)

    monkeypatch.setattr(whole_genome._Predictions, "put", spied)
    monkeypatch.setattr(whole_genome, "_MEMORY_SHARE", 1 << 40)
    stored = WholeGenomeModel(source, designs, ALL, threads=2, folder=tmp_path)
    assert kept == [tmp_path] * 12
    assert not list(tmp_path.iterdir())
    for other in (two, stored):
        np.testing.assert_array_equal(other.explained, one.explained)
        for ours, theirs in zip(scanned(one, source), scanned(other, source), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_single_precision_is_close(small):
    source, traits, covariates = small
    designs = designs_of(traits, covariates)
    double = WholeGenomeModel(source, designs, ALL, precision="double")
    single = WholeGenomeModel(source, designs, ALL)
    beta, se, _ = scanned(double, source)
    near, error, _ = scanned(single, source)
    tested = ~np.isnan(beta)
    assert tested.sum() == 59 * 3
    t = beta[tested] / se[tested]
    gap = np.abs(near[tested] / error[tested] - t)
    assert (gap <= 1e-4 * np.maximum(1, np.abs(t))).all()


def test_constant_and_rare_variants_do_not_predict(small):
    source, traits, covariates = small
    designs = designs_of(traits, covariates)
    base = WholeGenomeModel(source, designs, ALL)
    calls = np.insert(source.calls, [5, 40], [np.zeros(120), np.full(120, -1)], axis=0)
    calls = np.insert(calls, 30, np.eye(1, 120, 7), axis=0)
    names = np.repeat(["1", "2", "3"], [21, 21, 21])
    more = WholeGenomeModel(InMemory(calls, chromosomes=names), designs, ALL)
    assert more.n_predictors == base.n_predictors
    np.testing.assert_array_equal(more.explained, base.explained)
    np.testing.assert_array_equal(more.residuals[0], base.residuals[0])
    np.testing.assert_array_equal(more.residuals[1], base.residuals[1])


def test_bad_input(small):
    source, traits, _ = small
    with pytest.raises(InputError, match="are on chromosome 1 only"):
        WholeGenomeModel(InMemory(source.calls), designs_of(traits), ALL)
    with pytest.raises(InputError, match="on no chromosome only"):
        WholeGenomeModel(InMemory(np.zeros((6, 120))), designs_of(traits), ALL)
    few = traits[:, :1].copy()
    few[9:] = np.nan
    with pytest.raises(TooFewSamplesError, match="9 genotyped samples"):
        WholeGenomeModel(source, designs_of(few), ALL)
