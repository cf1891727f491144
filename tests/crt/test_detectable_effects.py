"""What fold changes a gene-level screen can find: predicted power is what simulations realise."""

import numpy as np
import pytest
from scipy.sparse import csc_array

from plait.crt import power_kernels as kernels
from plait.crt.detectable_effects import (
    DetectableEffects,
    _BlockOfPowers,
    _grouped,
    realised_threshold,
)
from plait.crt.gene_design import GeneDesign
from plait.crt.gene_problem import GeneProblem
from plait.crt.gene_tests import BlockOfPairs, GeneTestOptions, pairs_found
from plait.crt.negative_binomial import fit_gene, score_statistics
from plait.errors import NotAvailableError, OptionError
from plait.execution.blocks import Block
from plait.execution.executors import workforce
from tests.crt.test_gene_screen import ready

CASES = [
    # cells, share treated, mean, theta, mechanism, threshold, side, confounding, fold changes
    (2000, 0.05, 2.0, 2.0, "crt", 1e-3, "both", 0.0, (0.67, 1.25, 1.5)),
    (2000, 0.05, 0.3, 1.0, "crt", 1e-3, "both", 0.0, (0.25, 0.5, 2.0)),
    (2000, 0.1, 1.0, 1.0, "crt", 1e-3, "both", 0.6, (0.67, 1.25, 1.5)),
    (2000, 0.5, 0.5, 1.0, "permutations", 1e-3, "both", 0.0, (0.8, 1.25, 1.0)),
    (1000, 0.1, 5.0, 5.0, "permutations", 1e-4, "left", 0.0, (0.67, 0.8)),
    (1000, 0.1, 1.0, 0.5, "permutations", 1e-4, "right", 0.0, (1.5, 2.0)),
    (4000, 0.02, 1.0, 1.0, "crt", 0.01, "left", 0.0, (0.5, 0.67, 0.8)),
    (4000, 0.1, 0.1, 1.0, "crt", 0.01, "both", 0.0, (0.5, 0.67, 1.5)),
    # Few treated cells: their number is no evidence, and that none has counts can be enough.
    pytest.param(
        (3000, 0.004, 3.0, 2.0, "crt", 1e-3, "both", 0.0, (0.2, 0.35, 2.2)), marks=pytest.mark.slow
    ),
    (3000, 0.004, 3.0, 2.0, "crt", 1e-3, "both", 0.7, (0.2, 2.2)),
    (3000, 0.004, 3.0, 2.0, "permutations", 1e-4, "both", 0.0, (0.0, 0.2)),
    pytest.param(
        (3000, 0.0025, 3.0, 2.0, "crt", 1e-3, "left", 0.0, (0.0, 0.1, 0.2)), marks=pytest.mark.slow
    ),
    # Large counts of few treated cells are in the resamples, too, of genes that vary much.
    (5000, 0.02, 0.3, 0.3, "crt", 1e-6, "both", 0.0, (4.0, 6.0)),
    (2000, 0.025, 5.0, 0.3, "permutations", 1e-6, "both", 0.0, (2.0, 3.0)),
    (2000, 0.05, 5.0, 0.1, "permutations", 1e-4, "both", 0.0, (0.5, 2.0, 3.0)),
    pytest.param(
        (2000, 0.1, 0.5, 0.1, "crt", 1e-6, "right", 0.6, (2.0, 3.0)), marks=pytest.mark.slow
    ),
    (2000, 0.01, 0.5, 10.0, "permutations", 1e-6, "both", 0.0, (3.0,)),
    (2000, 0.05, 1.0, 0.3, "crt", 0.05, "both", 0.0, (0.5, 1.5)),
    # A permutation knows nothing of what covariates say of the treatment, which V does.
    (400, 0.25, 2.0, 1.0, "permutations", 1e-4, "both", 1.0, (0.55, 1.8)),
]


FEW = [
    # Of 12 treated cells, their number differs between draws; here it is taken as given.
    (3000, 12, 2.0, 0.5, "permutations", 1e-5, (3.0, 5.0, 10.0), 0.03),
    (3000, 12, 2.0, 0.5, "crt", 1e-5, (3.0, 5.0, 10.0), 0.1),
    (3000, 12, 10.0, 0.5, "crt", 1e-4, (3.0, 6.0, 12.0), 0.1),
    (3000, 40, 1.0, 0.5, "crt", 1e-5, (2.0, 4.0, 8.0), 0.03),
]


@pytest.mark.parametrize("case", FEW)
def test_increases_of_genes_that_vary_much_in_few_cells(case):
    """Power grows with the fold change, and is what simulations realise."""
    n, n_treated, mean, theta, mechanism, threshold, folds, off = case
    random = np.random.default_rng(7)
    x = random.standard_normal(n)
    design = GeneDesign.of(["1", "x"], np.column_stack([np.ones(n), x]))
    mu = mean * np.exp(0.4 * x)
    is_treated = np.zeros(n, dtype=bool)
    is_treated[random.choice(n, n_treated, replace=False)] = True
    treated = csc_array(is_treated.astype(np.int8)[:, None])
    options = GeneTestOptions(mechanism=mechanism)
    force = workforce(None, None, 2)

    def problem(means, repeats):
        counts = random.poisson(means * random.gamma(theta, 1 / theta, (repeats, n)))
        return GeneProblem(csc_array(counts.T.astype(np.float32)), design.rows, treated, ("u",))

    work = BlockOfPairs.of(problem(mu, 20), np.arange(20), np.zeros(20, int), options, force)
    wide = np.array([*folds, 30.0, 200.0])
    powers = _BlockOfPowers(work, threshold / 2, 0.8, wide - 1)(Block(0, 20))
    assert (np.diff(powers["power_at"], axis=1) > -1e-9).all()
    assert (powers["power_at"][:, -1] > 0.98).all()
    assert np.isfinite(powers["log_2_increase"]).all()
    repeats = 200
    for fold, predicted in zip(folds, powers["power_at"].mean(axis=0), strict=False):
        changed = problem(np.where(is_treated, fold, 1.0) * mu, repeats)
        pairs = (np.arange(repeats), np.zeros(repeats, int))
        p = pairs_found(changed, *pairs, options, force)["p_value"]
        error = np.sqrt(max(predicted * (1 - predicted), 0.01) / repeats)
        assert abs(np.mean(p <= threshold) - predicted) < off + 3 * error, (fold, predicted)


@pytest.mark.parametrize("case", CASES)
def test_predicted_power_is_realised(case):
    n, share, mean, theta, mechanism, threshold, side, confounding, folds = case
    random = np.random.default_rng(7)
    x, batch = random.standard_normal(n), random.integers(0, 2, n)
    design = GeneDesign.of(["1", "x", "b"], np.column_stack([np.ones(n), x, batch]))
    mu = mean * np.exp(0.4 * x + 0.3 * batch)
    odds = np.log(share / (1 - share)) + confounding * x
    is_treated = random.random(n) < 1 / (1 + np.exp(-odds))
    treated = csc_array(is_treated.astype(np.int8)[:, None])
    options = GeneTestOptions(side=side, mechanism=mechanism)
    force = workforce(None, None, 2)

    def problem(counts):
        return GeneProblem(csc_array(counts.T.astype(np.float32)), design.rows, treated, ("u",))

    def counts(means, repeats):
        return random.poisson(means * random.gamma(theta, 1 / theta, (repeats, n)))

    null = problem(counts(mu, 40))
    work = BlockOfPairs.of(null, np.arange(40), np.zeros(40, int), options, force)
    tail = threshold / 2 if side == "both" else threshold
    powers = _BlockOfPowers(work, tail, 0.8, np.array(folds) - 1)(Block(0, 40))
    repeats = 700
    for fold, predicted in zip(folds, powers["power_at"].mean(axis=0), strict=True):
        changed = problem(counts(np.where(is_treated, fold, 1.0) * mu, repeats))
        pairs = (np.arange(repeats), np.zeros(repeats, int))
        p = pairs_found(changed, *pairs, options, force)["p_value"]
        error = np.sqrt(max(predicted * (1 - predicted), 0.002) / repeats)
        assert abs(np.mean(p <= threshold) - predicted) < 0.02 + 4 * error, (fold, predicted)


@pytest.mark.parametrize("theta", [0.05, 0.5, 5.0, 1000.0])
@pytest.mark.parametrize("mean", [0.0, 0.02, 3.0, 700.0, 5e4])
def test_counts_that_stand_for_others_have_the_law_of_all(mean, theta):
    """Masses of ranges of counts give the mean, the variance and the generating function."""
    values, masses = np.empty((2, kernels.MOST_NODES))
    n = kernels.fill_law(mean, theta, values, masses)
    assert 0 < n < kernels.MOST_NODES
    values, masses = values[:n], masses[:n]
    assert masses.sum() == pytest.approx(1.0) and (np.diff(values) > 0).all()
    variance = mean + mean**2 / theta
    assert masses @ values == pytest.approx(mean, abs=2e-3 * np.sqrt(variance))
    assert masses @ (values - mean) ** 2 == pytest.approx(variance, rel=5e-3)
    rate = 1.0 / max(np.sqrt(variance), 1.0)
    generating = (1.0 + mean / theta * -np.expm1(-rate)) ** -theta
    assert masses @ np.exp(-rate * values) == pytest.approx(generating, abs=2e-4)


def test_what_the_variance_of_a_treatment_lacks_of_that_of_permutations():
    """With V of the statistic: z = A / sqrt(V), and covariates say much of the treatment."""
    random = np.random.default_rng(5)
    x = random.standard_normal(400)
    design = GeneDesign.of(["1", "x"], np.column_stack([np.ones(400), x])).rows
    is_treated = random.random(400) < 1 / (1 + np.exp(-x))
    treated = csc_array(is_treated.astype(np.int8)[:, None])
    fit = fit_gene(design, random.poisson(2.0, 400))
    rows, factor = np.flatnonzero(is_treated).astype(np.int32), np.empty((2, 2))
    chances = np.full(400, len(rows) / 400)
    taken_up, influence, g = np.empty((3, 400))
    kernels.fill_projection(design, fit.mean, factor)
    variance, lack = kernels.prepare_pair(
        design, factor, fit.parts, fit.mean, rows, chances, True, taken_up, influence, g
    )
    own = fit.parts[0, rows].sum() / score_statistics(fit, treated).z[0]
    first_order = (g[rows].sum() - chances @ g) / (2.0 * np.sqrt(variance))
    assert np.sqrt(variance) + first_order - lack == pytest.approx(own, rel=1e-9)
    assert lack > 0.03 * own


def test_cells_of_like_means_are_taken_together():
    random = np.random.default_rng(2)
    is_treated = (random.random(500) < 0.01).astype(float)
    mean, chance, taken_up, g, influence = random.random((5, 500))
    groups = _grouped(is_treated, mean, chance, taken_up, g, influence)
    assert len(groups.count) == 12 + int(is_treated.sum())  # one for each of the few treated
    assert set(groups.is_treated) == {0.0, 1.0}
    assert groups.count @ groups.is_treated == is_treated.sum()
    for values, averages in ((mean, groups.mean), (chance, groups.chance), (g, groups.g)):
        assert groups.count @ averages == pytest.approx(values.sum())
    squares = groups.spread + groups.influence**2
    assert groups.count @ squares == pytest.approx((influence**2).sum())


@pytest.mark.parametrize("moi", ["high", "low"])
@pytest.mark.parametrize("side", ["both", "left", "right"])
def test_the_smallest_fold_changes_have_the_power_that_is_wanted(moi, side):
    screen = ready(moi=moi, side=side, seed=4)
    found = screen.detectable_effects(0.7, p_threshold=0.01, fold_changes=(1.0, 0.5, 2.0))
    assert len(found) == len(screen.parameters.discovery_pairs)
    tested = np.isfinite(found.theta)
    result = screen.run_discovery()
    assert tested.sum() == result.pass_qc.sum()
    sides = {"left": ["log_2_decrease"], "right": ["log_2_increase"]}
    for name in ("log_2_decrease", "log_2_increase"):
        values = getattr(found, name)
        if name not in sides.get(side, [name]):
            assert values is None
            continue
        row = int(np.flatnonzero(np.isfinite(values))[0])
        fold = 2.0 ** values[row]
        assert (fold > 1) == (name == "log_2_increase")
        again = screen.detectable_effects(0.7, p_threshold=0.01, fold_changes=(fold,))
        assert again.power_at[row, 0] == pytest.approx(0.7, abs=0.01)
        strict = getattr(screen.detectable_effects(0.7, p_threshold=1e-4), name)
        both = np.isfinite(values) & np.isfinite(strict)
        assert (np.abs(strict[both]) > np.abs(values[both])).all()
    # Without a change, as many are found as the threshold says.
    assert np.median(found.power_at[tested, 0]) == pytest.approx(0.01, rel=0.25)


def test_the_same_bits_for_any_threads_and_a_store(tmp_path):
    screen = ready(moi="low")
    one, two = (screen.detectable_effects(p_threshold=0.01, threads=n) for n in (1, 2))
    assert one.allclose(two, rtol=0)
    about = one.provenance
    assert about.options["p_threshold"] == 0.01 and about.seed == screen.parameters.seed
    assert about.inputs == screen.run_discovery().provenance.inputs and about.seconds > 0.0
    one.save(tmp_path / "d.zarr")
    assert DetectableEffects.load(tmp_path / "d.zarr").allclose(one, rtol=0)
    table = one.to_frame()
    assert table.columns[-4:] == [f"power_at_{fold}" for fold in (0.5, 0.75, 1.5, 2)]
    assert table["log_2_decrease"].null_count() == np.isnan(one.log_2_decrease).sum()


def test_few_counts_cannot_be_seen_to_fall():
    from tests.crt.gene_cases import random_data

    data = random_data(mean=0.05, n_cells=500)
    screen = ready(data=data)
    screen.quality_control(min_treated=1)
    found = screen.detectable_effects(p_threshold=1e-5)
    tested = np.isfinite(found.theta)
    assert tested.any() and np.isnan(found.log_2_decrease[tested]).all()
    assert np.isfinite(found.log_2_increase[tested]).any()
    assert "decrease found: none" in found.summary()


def test_the_threshold_is_that_of_the_discovery():
    screen = ready(effect=-1.2, side="left", level=0.05)
    with pytest.raises(NotAvailableError, match="run_discovery comes first"):
        screen.detectable_effects()
    result = screen.run_discovery()
    assert realised_threshold(result) == result.p_value[result.significant].max()
    found = screen.detectable_effects()
    assert found.p_threshold == realised_threshold(result)
    nothing = ready(seed=1, level=0.001).run_discovery()
    assert not nothing.significant.any()
    assert realised_threshold(nothing) == 0.001 / nothing.pass_qc.sum()
    harmonic = np.sum(1 / np.arange(1, nothing.pass_qc.sum() + 1))
    other = ready(seed=1, level=0.001, fdr="BY").run_discovery()
    assert realised_threshold(other) == pytest.approx(0.001 / other.pass_qc.sum() / harmonic)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"power": 1.0}, "power is 1.0"),
        ({"p_threshold": 0.0}, "p_threshold is 0.0"),
        ({"p_threshold": 0.1, "fold_changes": [-1.0]}, "a fold change is -1.0"),
    ],
)
def test_refused(options, message):
    with pytest.raises(OptionError, match=message):
        ready().detectable_effects(**({"p_threshold": 0.01} | options))


def test_guides_one_by_one_have_power_and_their_smallest_p_value_has_not():
    found = ready(strategy="singleton").detectable_effects(p_threshold=0.01)
    assert found.grna_id is not None and len(found) == 2 * 4 * 12
    with pytest.raises(OptionError, match="strategy 'bonferroni'"):
        ready(strategy="bonferroni").detectable_effects(p_threshold=0.01)
    screen = ready()
    screen.set_parameters()
    with pytest.raises(NotAvailableError, match="nothing to test"):
        screen.detectable_effects()
