"""Local false sign rates and posterior intervals are honest on data drawn from the model.

The prior that generated the effects is applied (not refitted). In each bin of lfsr the number of
wrong signs (a true zero is always wrong) is compared with the sum of lfsr, for one randomly chosen
condition per effect, since the cells of a row depend on each other. Bins are merged until each
expects 2000 wrong signs, so that a 20 % error in any of them is 9 standard deviations, while
|z| < 5.5 in at most 20 bins has a false alarm below 1e-6.
"""

import numpy as np
import pytest
from scipy.stats import chi2

from plait.mash.data import mash_set_data
from plait.mash.likelihoods import Components
from plait.mash.posterior import Request, apply_mixture
from tests.mash.conftest import random_correlation

EFFECTS, WIDTH = 120_000, 4


def draw_study(setting):
    random = np.random.default_rng(11)
    low = random.normal(size=(WIDTH, 2))
    matrices = {
        "identity": np.eye(WIDTH),
        "equal": np.ones((WIDTH, WIDTH)),
        "second": np.diag([0.0, 1.0, 0.0, 0.0]),
        "low": low @ low.T / 2,
    }
    components = Components(matrices, np.array([0.5, 1.5, 4.0]), True)
    pi = np.concatenate([[0.3], np.full(12, 0.7 / 12)])
    chosen = random.choice(components.size, EFFECTS, p=pi)
    effects = np.zeros((EFFECTS, WIDTH))
    base, scale = components.base_of(chosen), np.sqrt(components.scale_of(chosen))
    for k, factor in enumerate(components.factors):
        rows = np.flatnonzero(base == k)
        coefficients = random.normal(size=(len(rows), factor.shape[1]))
        effects[rows] = scale[rows, None] * (coefficients @ factor.T)
    shat = np.ones((EFFECTS, WIDTH))
    V = np.eye(WIDTH)
    if setting != "common":
        shat = np.exp(0.4 * random.normal(size=(EFFECTS, WIDTH)))
        V = random_correlation(random, WIDTH)
    bhat = effects + shat * (random.normal(size=(EFFECTS, WIDTH)) @ np.linalg.cholesky(V).T)
    if setting == "missing":
        holes = random.random((EFFECTS, WIDTH)) < 0.25
        bhat[holes] = np.nan
        shat[holes] = np.nan
    return effects, mash_set_data(bhat, shat, V=V), components, pi, random


@pytest.mark.parametrize("setting", ["common", "varying", "missing"])
def test_lfsr_and_ranks(setting):
    effects, data, components, pi, random = draw_study(setting)
    draws = 19
    found = apply_mixture(data, components, pi, Request(samples=draws, seed=3))
    column = random.integers(WIDTH, size=EFFECTS)
    rows = np.arange(EFFECTS)

    lfsr = found["lfsr"][rows, column]
    negative = found["negative_prob"][rows, column]
    positive = 1 - negative - found["zero_prob"][rows, column]
    truth = effects[rows, column]
    wrong = truth * np.where(negative > positive, -1.0, 1.0) <= 0
    bins = merged_bins(lfsr)
    assert 5 <= len(bins) <= 20
    for inside in bins:
        expected = lfsr[inside].sum()
        deviation = (wrong[inside].sum() - expected) / np.sqrt(
            (lfsr[inside] * (1 - lfsr[inside])).sum()
        )
        assert abs(deviation) < 5.5

    samples = found["posterior_samples"][rows, column]
    below = (samples < truth[:, None]).sum(axis=1)
    ties = (samples == truth[:, None]).sum(axis=1)
    rank = below + random.integers(0, ties + 1)
    counts = np.bincount(rank, minlength=draws + 1)
    expected = EFFECTS / (draws + 1)
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert chi2.sf(statistic, draws) > 1e-7


def merged_bins(lfsr, wanted=2000.0):
    """Cut the effects, sorted by lfsr, into bins that each expect ``wanted`` wrong signs."""
    order = np.argsort(lfsr, kind="stable")
    reached = np.cumsum(lfsr[order])
    count = min(int(reached[-1] // wanted), 20)
    edges = np.searchsorted(reached, np.linspace(0, reached[-1], count + 1)[1:-1])
    return np.split(order, edges)
