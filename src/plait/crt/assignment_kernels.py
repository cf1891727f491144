"""Compiled loops of sceptre's mixture, which tells guides in cells from their background."""

import math

import numpy as np

from plait.numerics.compiled import njit

_MOST_STEPS, _FEWEST_STEPS = 50, 3
_SAME_LIKELIHOOD = 5e-5
_SMALLEST_DENSITY = 1e-100


@njit(nogil=True, cache=True, error_model="numpy")
def _expect(counts, background, log_background, log_density, share, effect, posterior):  # type: ignore[no-untyped-def]
    """Fill posterior probabilities; return the log-likelihood, NaN where it cannot go on.

    ``log_density`` is the log density of each count under the background.
    """
    odds = math.log1p(-share) - math.log(share)
    likelihood, largest = 0.0, 0.0
    for i in range(counts.shape[0]):
        mean = background[i] + effect
        change = counts[i] * (math.log(mean) - log_background[i]) - effect
        p = 1.0 / (1.0 + math.exp(odds - change))
        if not math.isfinite(p):
            return np.nan
        posterior[i] = p
        largest = max(largest, p)
        density = math.exp(log_density[i])
        both = (1.0 - share) * density + share * math.exp(log_density[i] + change)
        likelihood += math.log(max(both, _SMALLEST_DENSITY))
    return likelihood if largest > _SMALLEST_DENSITY else np.nan


@njit(nogil=True, cache=True, error_model="numpy")
def _one_start(counts, background, log_background, log_density, share, effect, posterior):  # type: ignore[no-untyped-def]
    """Run the EM algorithm from one start; return the log-likelihood, NaN where it fails."""
    before = 0.0
    n = counts.shape[0]
    for step in range(1, _MOST_STEPS + 1):
        likelihood = _expect(
            counts, background, log_background, log_density, share, effect, posterior
        )
        if math.isnan(likelihood):
            return np.nan
        total = 0.0
        for i in range(n):
            total += posterior[i]
        share = total / n
        if share > 0.5:
            share = 1.0 - share
            for i in range(n):
                posterior[i] = 1.0 - posterior[i]
        if step >= _FEWEST_STEPS:
            change = abs(likelihood - before) / min(abs(likelihood), abs(before))
            if change < _SAME_LIKELIHOOD:
                return likelihood
        before = likelihood
        top, bottom = 0.0, 0.0
        for i in range(n):
            top += posterior[i] * counts[i]
            bottom += posterior[i] * background[i]
        effect = math.log(top) - math.log(bottom)
        if not (math.isfinite(effect) and share > 0.0):
            return np.nan
    return np.nan


@njit(nogil=True, cache=True, error_model="numpy")
def additive_posterior(counts, background, shares, effects, posterior):  # type: ignore[no-untyped-def]
    """Fill each cell's probability that it has the guide, by the best of several starts.

    Two Poisson distributions: with the mean ``background`` in a share of cells, and with
    ``background + g`` in the others, where ``g`` is estimated as if it multiplied (sceptre's issue
    220). Returns whether any start converged.
    """
    n = counts.shape[0]
    log_background, log_density = np.empty(n), np.empty(n)
    for i in range(n):
        log_background[i] = math.log(background[i])
        log_density[i] = (
            counts[i] * log_background[i] - background[i] - math.lgamma(counts[i] + 1.0)
        )
    trial = np.empty(n)
    best = np.nan
    for start in range(shares.shape[0]):
        found = _one_start(
            counts,
            background,
            log_background,
            log_density,
            shares[start],
            effects[start],
            trial,
        )
        if not math.isnan(found) and not found <= best:
            best = found
            posterior[:] = trial
    return not math.isnan(best)
