"""Weights of cells: the same as each cell so many times, and p-values that stay right."""

import numpy as np
import pytest
from scipy.sparse import csc_array

from plait.crt.gene_data import gene_screen_data
from plait.crt.gene_design import GeneDesign
from plait.crt.gene_problem import GeneProblem
from plait.crt.gene_results import GeneTestResult
from plait.crt.gene_tests import GeneTestOptions, pairs_found
from plait.crt.negative_binomial import fit_gene, score_statistics
from plait.crt.weighted_fits import fit_weighted_gene
from plait.errors import InputError, LabelError, OptionError
from plait.execution.executors import workforce
from tests.crt.gene_cases import random_screen
from tests.crt.test_gene_screen import ready


def gene(seed=1, mean=2.0, n=400):
    random = np.random.default_rng(seed)
    x = random.standard_normal(n)
    counts = random.poisson(mean * np.exp(0.4 * x) * random.gamma(2.0, 0.5, n)).astype(float)
    design = GeneDesign.of(["1", "x"], np.column_stack([np.ones(n), x]))
    treated = np.flatnonzero(random.random(n) < 0.1)
    return random, design.rows, counts, treated


def treatment(cells, n):
    bounds = np.array([0, len(cells)])
    return csc_array((np.ones(len(cells)), cells.astype(np.int32), bounds), shape=(n, 1))


@pytest.mark.parametrize("mean", [0.2, 2.0, 20.0])
def test_whole_weights_are_cells_that_occur_so_many_times(mean):
    random, rows, counts, treated = gene(mean=mean)
    times = random.integers(1, 4, len(counts))
    again = np.repeat(np.arange(len(counts)), times)
    weighted = fit_weighted_gene(rows, counts, times.astype(float))
    repeated = fit_gene(np.ascontiguousarray(rows[:, again]), counts[again])
    assert weighted.converged and repeated.converged
    assert weighted.theta == pytest.approx(repeated.theta, rel=1e-9)
    np.testing.assert_allclose(weighted.coefficients, repeated.coefficients, rtol=1e-9)
    one = score_statistics(weighted, treatment(treated, len(counts)))
    many = np.flatnonzero(np.isin(again, treated))
    other = score_statistics(repeated, treatment(many, len(again)))
    assert one.z[0] == pytest.approx(other.z[0], rel=1e-9)
    assert one.fold_change[0] == pytest.approx(other.fold_change[0], rel=1e-9)


def test_equal_weights_change_nothing():
    _, rows, counts, _ = gene()
    one, other = fit_weighted_gene(rows, counts, np.ones(len(counts))), fit_gene(rows, counts)
    np.testing.assert_allclose(one.parts, other.parts, atol=1e-10)
    determined = np.vstack([rows, rows[1:]])
    weighted = fit_weighted_gene(determined, counts, np.ones(len(counts)))
    expected = fit_gene(determined, counts)
    np.testing.assert_allclose(weighted.parts, expected.parts, atol=1e-9)


@pytest.mark.parametrize("mechanism", ["crt", "permutations"])
def test_p_values_stay_uniform_where_weights_go_with_covariates(mechanism):
    """Weights from a fiftieth to fifty times the mean that go with the depth of a cell."""
    n, repeats = 800, 2500
    random = np.random.default_rng(5)
    x = random.standard_normal(n)
    weights = np.exp(1.5 * x + random.standard_normal(n))
    weights /= weights.mean()
    design = GeneDesign.of(["1", "x"], np.column_stack([np.ones(n), x]))
    confounding = 0.5 * x if mechanism == "crt" else 0.0
    chance = 1 / (1 + np.exp(2.0 - confounding)) + np.zeros(n)
    is_treated = random.random((n, repeats)) < chance[:, None]
    counts = random.poisson(2.0 * np.exp(0.5 * x) * random.gamma(2.0, 0.5, (repeats, n)))
    problem = GeneProblem(
        csc_array(counts.T.astype(np.float32)),
        design.rows,
        csc_array(is_treated.astype(np.int8)),
        tuple(f"u{i}" for i in range(repeats)),
        weights=weights,
    )
    options = GeneTestOptions(side="right", mechanism=mechanism, max_resamples=20_000)
    pairs = np.arange(repeats)
    p = np.sort(pairs_found(problem, pairs, pairs, options, workforce(None, None, 2))["p_value"])
    assert np.abs(p - np.arange(1, repeats + 1) / repeats).max() < 2.7 / np.sqrt(repeats)
    for level in (0.05, 0.01):
        assert abs(np.mean(p <= level) - level) < 5.2 * np.sqrt(level / repeats)


def weighted_data(moi, weights=None):
    options, _ = random_screen(seed=2, moi=moi, n_cells=500)
    batch = options["covariates"].batch.to_numpy().astype(str)
    random = np.random.default_rng(0)
    quality = random.gamma(4.0, 0.25, 500) if weights is None else weights
    return gene_screen_data(**(options | {"covariates": {"batch": batch, "quality": quality}}))


@pytest.mark.parametrize("moi", ["high", "low"])
@pytest.mark.filterwarnings("ignore:the covariates separate")
def test_a_screen_with_weights(tmp_path, moi):
    data = weighted_data(moi)
    weighted, plain = (ready(data=data, weights=name) for name in ("quality", None))
    one, two = (weighted.run_discovery(threads=threads) for threads in (1, 2))
    assert one.allclose(two, rtol=0)
    assert one.settings["weights"] == "quality"
    tested = plain.run_discovery()
    by_pair = {
        (r, t): z for r, t, z in zip(one.response_id, one.grna_target, one.z_orig, strict=True)
    }
    same = [
        (by_pair[r, t], z)
        for r, t, z in zip(tested.response_id, tested.grna_target, tested.z_orig, strict=True)
        if np.isfinite(z)
    ]
    correlation = np.corrcoef(np.array(same).T)[0, 1]
    assert 0.7 < correlation < 0.999
    weighted.run_calibration_check(out=tmp_path / "c.zarr")
    stored = GeneTestResult.load(tmp_path / "c.zarr")
    assert stored.allclose(weighted.run_calibration_check(), rtol=0)
    with pytest.raises(OptionError, match="with weights of cells power is not known"):
        weighted.detectable_effects(p_threshold=0.01)


def test_weights_that_are_refused():
    data = weighted_data("high", np.r_[0.0, np.ones(499)])
    with pytest.raises(InputError, match="'quality' are not positive in 1 cell"):
        ready(data=data, weights="quality")
    for name in ("batch", "other"):
        with pytest.raises(LabelError, match=f"weights is '{name}', which is no covariate"):
            ready(data=data, weights=name)
