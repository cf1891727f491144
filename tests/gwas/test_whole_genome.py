"""Whole-genome regression against fits written out in full, its calibration, and what it gains."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from plait.data.genotype_blocks import read_block
from plait.data.phenotypes import SampleTable
from plait.errors import CapacityError, InputError, OptionError, TooFewSamplesError
from plait.gwas import VariantFilter, genome_prediction, scan
from plait.gwas.design import make_designs
from plait.gwas.genome_prediction import SHARES
from plait.gwas.whole_genome import WholeGenomeModel
from plait.io.plink import write_bed
from tests.gwas.conftest import Dosages, InMemory, draw_calls, least_squares

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


def written_out(Z, y, fold, blocks, chromosomes):
    """Both levels for one trait: predictions from all and from all but one, out of fold; their R2.

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
    found, errors = second_level(W, nested, y, fold)
    best = np.argmin(errors[:5])
    if errors[best] >= y @ y:
        best = 5 + np.argmin(errors[5:])
    predictions = [apply(W, fold, found[best])]
    for chromosome in np.unique(chromosomes):
        use = np.repeat(chromosomes != chromosome, 5)
        found, _ = second_level(W[:, use], nested[:, :, use], y, fold)
        predictions.append(apply(W[:, use], fold, found[best]))
    return predictions, max(1 - errors[best] / (y @ y), 0), SHARES[best % 5], best >= 5


def second_level(W, nested, y, fold):
    """Coefficients (10, K, P), and squared errors out of fold.

    The first five are of blocks with weights of their own, for each share, others of their sums.
    """
    width = W.shape[1]
    s = np.sqrt(np.mean(W**2, axis=0))
    found, errors = np.zeros((10, 5, width)), np.zeros(10)
    for k in range(5):
        rest = fold != k
        A = W[rest] / s
        s_nested = np.sqrt(np.mean(nested[k, rest] ** 2, axis=0))
        cross = (nested[k, rest] / s_nested).T @ y[rest]
        sums = np.zeros((width, 5))
        for r in range(5):
            sums[r::5, r] = s[r::5]
        sums /= np.sqrt(np.mean((A @ sums) ** 2, axis=0))
        for i, h in enumerate(SHARES):
            prior = h / (1 - h) * (np.eye(width) / width + sums @ sums.T / 5)
            found[i, k] = np.linalg.solve(A.T @ A + np.linalg.inv(prior), cross) / s
            gram = sums.T @ A.T @ A @ sums + np.eye(5) * 5 * (1 - h) / h
            found[5 + i, k] = sums @ np.linalg.solve(gram, sums.T @ cross) / s
        errors += np.sum((y[~rest, None] - W[~rest] @ found[:, k].T) ** 2, axis=0)
    return found, errors


def apply(W, fold, coefficients):
    return np.array([W[i] @ coefficients[fold[i]] for i in range(len(W))])


@pytest.fixture
def small(monkeypatch):
    """A polygenic trait, another one, and one that some samples lack; blocks of 10."""
    monkeypatch.setattr(genome_prediction, "BLOCK", 10)
    random = np.random.default_rng(4)
    calls = draw_calls(random, 60, 120, missing=0.01)
    calls[13] = 1
    covariates = random.normal(size=(120, 2))
    genetic = np.maximum(calls, 0).T @ random.normal(size=(60, 3))
    traits = genetic / genetic.std(axis=0) + 0.7 * random.normal(size=(120, 3)) + covariates[:, [0]]
    traits[[3, 50, 51, 90], 2] = np.nan
    return InMemory(calls, chromosomes=np.repeat(["1", "2", "3"], 20)), traits, covariates


def test_against_fits_written_out(small):
    """Of the traits, the fourth is noise, for which blocks have the same weights."""
    source, traits, covariates = small
    traits = np.column_stack([traits, np.random.default_rng(4).normal(size=120)])
    designs = designs_of(traits, covariates)
    model = WholeGenomeModel(source, designs, ALL, precision="double", seed=3)
    assert (model.n_predictors, model.n_blocks) == (59, 6)
    used = np.delete(np.arange(60), 13)
    cuts = [used[:10], used[10:19], *np.split(used[19:], 4)]
    blocks = [np.searchsorted(used, block) for block in cuts]
    names = np.repeat([1, 2, 3], 2)
    passes = [make() for _, make in model.passes()]
    kinds = []
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
            predictions, explained, share, alike = written_out(Z, y / length, fold, blocks, names)
            kinds.append(alike)
            assert model.explained[trait] == pytest.approx(explained, abs=1e-9)
            assert model.shares[trait] == share
            for c, work in enumerate(passes):
                left = y - length * predictions[1 + c]
                left -= hat @ left
                own = work.groups[d].design
                np.testing.assert_allclose(own.traits[:, t] * own.lengths[t], left, atol=1e-8)
            everything = y - length * predictions[0]
            everything -= hat @ everything
            everything /= np.linalg.norm(everything)
            np.testing.assert_allclose(model.residuals[d][:, t], everything, atol=1e-8)
    assert kinds == [False, False, True, False]
    assert model.explained[3] == 0
    assert model.explained[:3].min() > 0.1


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
    monkeypatch.setattr(genome_prediction, "_TILE", 2)
    monkeypatch.setattr(genome_prediction, "_SPAN", 16)
    designs = designs_of(traits, covariates)
    one = WholeGenomeModel(source, designs, ALL, threads=1)
    two = WholeGenomeModel(source, designs, ALL, threads=2)
    kept = []
    put = genome_prediction.StoredPredictions.put

    def spied(self, number, d, values):
        kept.append(Path(self.folder).parent)
        put(self, number, d, values)

    monkeypatch.setattr(genome_prediction.StoredPredictions, "put", spied)
    monkeypatch.setattr(genome_prediction, "_MEMORY_SHARE", 1 << 40)
    stored = WholeGenomeModel(source, designs, ALL, threads=2, folder=tmp_path)
    assert kept == [tmp_path] * 12
    assert not list(tmp_path.iterdir())
    for other in (two, stored):
        np.testing.assert_array_equal(other.explained, one.explained)
        for ours, theirs in zip(scanned(one, source), scanned(other, source), strict=True):
            np.testing.assert_array_equal(ours, theirs)


FRESH = """
import sys
import numpy as np
from plait.data.phenotypes import SampleTable
from plait.execution import threads
from plait.gwas import VariantFilter
from plait.gwas.design import make_designs
from plait.gwas.whole_genome import WholeGenomeModel
from plait.io import open_genotypes

limit, seen = threads.limit_blas, []

def spied(*given):
    seen.append("scipy.linalg" in sys.modules)
    return limit(*given)

threads.limit_blas = spied
genotypes = open_genotypes("g.bed")
traits = SampleTable(genotypes.samples, ("t",), np.arange(120.0)[:, None] % 7)
before = "scipy.linalg" in sys.modules
WholeGenomeModel(genotypes, make_designs(traits, None, np.arange(120)), VariantFilter())
print(before, len(seen) > 0, all(seen))
"""


def test_blas_is_limited_after_scipy_has_come(small, tmp_path):
    """SciPy brings a BLAS of its own, which a limit that was set before would miss."""
    source = small[0]
    write_bed(tmp_path / "g.bed", [source.calls], source.variants, list(source.samples))
    words = [sys.executable, "-c", FRESH]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "True"]


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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_variant_that_is_a_covariate_does_not_predict(small, dtype):
    """Nothing but rounding errors is left of it, which must not be scaled up."""
    source, traits, covariates = small
    source.calls[4] = np.maximum(source.calls[4], 0)
    taken = np.column_stack([covariates, source.calls[4] == 1, source.calls[4] == 2])
    design = designs_of(traits[:, :1], taken)[0]
    part = genome_prediction.FoldedDesign(design, 120, 1, np.dtype(dtype))
    block = read_block(source, slice(0, 10))
    grams, crosses, scale, _ = genome_prediction.FoldedGenotypes(
        [(block, np.arange(10))], part
    ).products()
    np.testing.assert_array_equal(scale == 0, np.arange(10) == 4)
    assert not grams[:, 4].any()
    assert not crosses[:, 4].any()
    left = np.delete(np.einsum("kjj->j", grams), 4)
    np.testing.assert_allclose(left, 120 - 5, rtol=1e-5)


@pytest.mark.parametrize("runs", ["interleaved", "far apart"])
def test_blocks_are_of_chromosomes_wherever_their_variants_lie(small, monkeypatch, runs):
    source, traits, covariates = small
    monkeypatch.setattr(genome_prediction, "TILE", 4)
    order = np.random.default_rng(1).permutation(60)
    if runs == "far apart":
        order = np.concatenate([np.arange(14), np.arange(20, 60), np.arange(14, 20)])
    # Chromosomes and their variants in the order in which they were.
    chromosomes = np.array(source.variants.frame["chrom"].to_list())[order]
    place = np.argsort(chromosomes, kind="stable")
    moved = np.empty_like(source.calls)
    moved[place] = source.calls
    designs = designs_of(traits, covariates)
    found = [
        WholeGenomeModel(InMemory(calls, chromosomes=names), designs, ALL, precision="double")
        for calls, names in ((source.calls, np.sort(chromosomes)), (moved, chromosomes))
    ]
    assert found[0].n_blocks == found[1].n_blocks == 6
    for d in range(len(designs)):
        for without in ("", "1", "2", "3"):
            sorted_, interleaved = (model.predictions(d, without) for model in found)
            np.testing.assert_allclose(interleaved, sorted_, atol=1e-8)


def test_dosages_are_taken_as_they_are(small):
    """Whole dosages give the results of calls."""
    source, traits, covariates = small
    designs = designs_of(traits, covariates)
    calls = WholeGenomeModel(source, designs, ALL, precision="double")
    values = np.where(source.calls < 0, np.nan, source.calls).astype(np.float32)
    dosages = Dosages(values)
    dosages._variants = source.variants
    same = WholeGenomeModel(dosages, designs, ALL, precision="double")
    np.testing.assert_allclose(same.explained, calls.explained, atol=1e-10)
    np.testing.assert_allclose(scanned(same, dosages), scanned(calls, source), rtol=1e-8)


def test_noise_is_left_as_it_is(monkeypatch):
    """Nothing of noise is predicted out of fold, p-values are uniform, errors as they were."""
    monkeypatch.setattr(genome_prediction, "BLOCK", 50)
    random = np.random.default_rng(7)
    source = InMemory(draw_calls(random, 5000, 600), chromosomes=np.repeat(list("12345"), 1000))
    traits = random.normal(size=(600, 12))
    model = WholeGenomeModel(source, designs_of(traits), ALL)
    assert model.explained.mean() < 0.005
    assert model.explained.max() < 0.02
    _, se, log10p = scanned(model, source)
    ratio = np.median(se / scan(source, table(traits), variant_filter=ALL).se, axis=0)
    assert (np.abs(ratio - 1) < 0.01).all()
    for column in log10p.T:
        assert stats.kstest(10**column, "uniform").pvalue > 1e-5


@pytest.fixture(scope="module")
def polygenic():
    """Six traits of 80 causal variants on four chromosomes of five; the scans of both models."""
    random = np.random.default_rng(8)
    calls = draw_calls(random, 2500, 1500)
    names = np.repeat(list("12345"), 500)
    causal = random.choice(2000, 80, replace=False)
    effects = np.zeros((2500, 6))
    effects[causal] = 0.25 * random.normal(size=(80, 6))
    traits = calls.T @ effects + random.normal(size=(1500, 6))
    source = InMemory(calls, chromosomes=names)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(genome_prediction, "BLOCK", 50)
        model = WholeGenomeModel(source, designs_of(traits), ALL)
    return source, traits, causal, effects, model, scanned(model, source)


def test_power_is_gained(polygenic):
    """What is predicted leaves smaller errors: at the causal variants chi-squares rise so much."""
    source, traits, causal, _, model, (beta, se, _) = polygenic
    linear = scan(source, table(traits), variant_filter=ALL)
    assert (model.explained > 0.15).all()
    gain = np.mean((beta[causal] / se[causal]) ** 2, axis=0) / np.mean(
        linear.t[causal] ** 2, axis=0
    )
    assert (gain > 1 + 0.5 * model.explained).all()
    assert gain.mean() > 1.1
    ratio = np.median(se / linear.se, axis=0) ** 2
    assert (ratio < 1 - 0.6 * model.explained).all()


def test_effects_are_not_shrunken(polygenic):
    """Predictions that had seen a sample would take its trait, and so the effects, away."""
    _, _, causal, effects, _, (beta, se, _) = polygenic
    b, true, error = beta[causal], effects[causal], se[causal]
    weight = 1 / error**2
    slope = np.sum(weight * b * true) / np.sum(weight * true**2)
    assert abs(slope - 1) < 4 / np.sqrt(np.sum(weight * true**2))
    assert 4 / np.sqrt(np.sum(weight * true**2)) < 0.05


def test_variants_without_effects_are_calibrated(polygenic):
    _, _, _, _, _, (beta, se, log10p) = polygenic
    null = slice(2000, None)
    for column in log10p[null].T:
        assert stats.kstest(10**column, "uniform").pvalue > 1e-5
    chi2 = (beta[null] / se[null]) ** 2
    assert abs(chi2.mean() - 1) < 5 * np.sqrt(2 / chi2.size)


def test_structure_is_removed_as_by_the_mixed_model(monkeypatch):
    """Two populations that differ in the trait through many variants.

    Where a chromosome is left out of a fit to all, squares of null t-statistics average 3.7.
    """
    monkeypatch.setattr(genome_prediction, "BLOCK", 100)
    random = np.random.default_rng(9)
    frequency = random.uniform(0.15, 0.85, (2000, 1))
    shift = 0.1 * random.normal(size=(2000, 1)) * np.where(np.arange(1500) % 2, 1, -1)
    calls = random.binomial(2, np.clip(frequency + shift, 0.03, 0.97)).astype(np.int8)
    source = InMemory(calls, chromosomes=np.repeat(list("12345"), 400))
    scaled = calls[:1600] - calls[:1600].mean(axis=1, keepdims=True)
    genetic = scaled.T @ random.normal(size=(1600, 4))
    traits = genetic / genetic.std(axis=0) + random.normal(size=(1500, 4))
    found = [
        scan(source, table(traits), model=model).t for model in ("linear", "mixed", "whole-genome")
    ]
    linear, mixed, whole = ((t[1600:] ** 2).mean() for t in found)
    assert linear > 3
    assert abs(mixed - 1) < 0.15
    assert abs(whole - 1) < 0.15
    alike = np.corrcoef([t.ravel() for t in found])
    assert alike[0, 1] < 0.6
    assert alike[1, 2] > 0.95


def test_close_relatives_make_it_conservative(monkeypatch):
    """In sibships of four few small p-values, never too many; the mixed model has what is due."""
    monkeypatch.setattr(genome_prediction, "BLOCK", 100)
    random = np.random.default_rng(21)
    m, families, size = 2400, 150, 4
    parents = random.random((m, families, 2, 2)) < random.uniform(0.1, 0.9, (m, 1, 1, 1))
    calls = np.zeros((m, families, size), dtype=np.int8)
    for child in range(size):
        for parent in range(2):
            passed = random.integers(0, 2, (m, families, 1))
            calls[:, :, child] += np.take_along_axis(parents[:, :, parent], passed, 2)[:, :, 0]
    calls = calls.reshape(m, families * size)
    genetic = (calls - calls.mean(axis=1, keepdims=True))[:1200].T @ random.normal(size=(1200, 8))
    noise = random.normal(size=genetic.shape)
    traits = np.sqrt(0.7) * genetic / genetic.std(axis=0) + np.sqrt(0.3) * noise
    source = InMemory(calls, chromosomes=np.repeat(list("1234"), 600))
    found = {model: scan(source, table(traits), model=model) for model in ("whole-genome", "mixed")}
    squares = {model: (result.t[1200:] ** 2).mean() for model, result in found.items()}
    assert 0.75 < squares["whole-genome"] < 0.97
    assert abs(squares["mixed"] - 1) < 0.06
    assert (found["whole-genome"].log10p[1200:] < -2).mean() < 0.01


def test_scan_in_memory_and_into_a_store(small, tmp_path):
    source, traits, covariates = small
    designs = designs_of(traits, covariates)
    model = WholeGenomeModel(source, designs, ALL, seed=5)
    given = source, table(traits), table(covariates, "c")
    options = {"model": "whole-genome", "variant_filter": ALL, "seed": 5}
    result = scan(*given, **options)
    np.testing.assert_array_equal([result.beta, result.se, result.log10p], scanned(model, source))
    np.testing.assert_array_equal(result.explained, model.explained)
    left = model.residuals[0]
    assert result.V0[0, 1] == pytest.approx(left[:, 0] @ left[:, 1])
    assert "predicted from other samples" in result.summary()
    stored = scan(*given, **options, out=tmp_path / "stored.zarr")
    np.testing.assert_array_equal(stored.t, result.t)
    np.testing.assert_array_equal(stored.explained, result.explained)
    other = scan(*given, **options | {"seed": 6})
    assert not np.array_equal(other.explained, result.explained)
    dropped = scan(*given, **options, missing_genotypes="drop")
    assert (dropped.n < result.n).any()
    with pytest.raises(OptionError, match="always leaves chromosomes out"):
        scan(*given, **options, loco=False)


def test_bad_input(small, monkeypatch):
    source, traits, _ = small
    with pytest.raises(InputError, match="are on chromosome 1 only"):
        WholeGenomeModel(InMemory(source.calls), designs_of(traits), ALL)
    with pytest.raises(InputError, match="on no chromosome only"):
        WholeGenomeModel(InMemory(np.zeros((6, 120))), designs_of(traits), ALL)
    few = traits[:, :1].copy()
    few[9:] = np.nan
    with pytest.raises(TooFewSamplesError, match="9 genotyped samples"):
        WholeGenomeModel(source, designs_of(few), ALL)
    with pytest.raises(OptionError, match="precision is 'half'"):
        WholeGenomeModel(source, designs_of(traits), ALL, precision="half")
    monkeypatch.setattr(genome_prediction, "BLOCK", 1000)
    many = InMemory(np.tile(source.calls, (30, 1)), chromosomes=np.repeat(["1", "2"], 900))
    with pytest.raises(CapacityError, match=r"885 variants .* raise --memory"):
        WholeGenomeModel(many, designs_of(traits), ALL, memory="1MiB")
