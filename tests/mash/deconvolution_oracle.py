"""Plain transcription of extreme deconvolution, one row and one component at a time."""

import numpy as np
from scipy.stats import multivariate_normal


def iterate(y, sigma, weights, means, covs, steps, **options):
    """Average log-likelihood path and parameters after some steps."""
    path = []
    for _ in range(steps):
        value, weights, means, covs = one_step(y, sigma, weights, means, covs, **options)
        path.append(value)
    return np.array(path), weights, means, covs


def one_step(
    y, sigma, weights, means, covs, w=0.0, observed=None, projection=None, row_weights=None,
    fixamp=None, fixmean=None, fixcovar=None,
):  # fmt: skip
    J, K, R = len(y), len(weights), means.shape[1]
    fixamp, fixmean, fixcovar = (
        np.zeros(K, bool) if flag is None else np.broadcast_to(flag, K)
        for flag in (fixamp, fixmean, fixcovar)
    )
    row_weights_given = row_weights is not None
    row_weights = np.ones(J) if row_weights is None else row_weights
    total, q_sum = 0.0, np.zeros(K)
    mean_sum, second_sum = np.zeros((K, R)), np.zeros((K, R, R))
    for j in range(J):
        P = np.eye(R) if projection is None else projection[j]
        seen = np.arange(len(P)) if observed is None else np.flatnonzero(observed[j])
        P, S, x = P[seen], sigma[j][np.ix_(seen, seen)], y[j][seen]
        logs, b, B = np.empty(K), np.empty((K, R)), np.empty((K, R, R))
        for k in range(K):
            T = P @ covs[k] @ P.T + S
            inverse = np.linalg.inv(T)
            density = (
                multivariate_normal(np.zeros(len(x)), T).logpdf(x - P @ means[k]) if len(x) else 0.0
            )
            with np.errstate(divide="ignore"):
                logs[k] = np.log(weights[k]) + density
            gain = covs[k] @ P.T @ inverse
            b[k] = means[k] + gain @ (x - P @ means[k])
            B[k] = covs[k] - gain @ P @ covs[k]
        log_sum = np.logaddexp.reduce(logs)
        total += row_weights[j] * log_sum
        q = row_weights[j] * np.exp(logs - log_sum)
        q_sum += q
        mean_sum += q[:, None] * b
        second_sum += q[:, None, None] * (b[:, :, None] * b[:, None, :] + B)
    new_weights, new_means, new_covs = weights.copy(), means.copy(), covs.copy()
    for k in range(K):
        if q_sum[k] == 0:
            new_weights[k] = 0.0
            continue
        if not fixamp[k]:
            new_weights[k] = q_sum[k]
        moved = mean_sum[k] / q_sum[k]
        if not fixmean[k]:
            new_means[k] = moved
        if not fixcovar[k]:
            m = new_means[k]
            S = second_sum[k] + q_sum[k] * (
                np.outer(m, m) - np.outer(m, moved) - np.outer(moved, m)
            )
            new_covs[k] = (S + w * np.eye(R)) / (q_sum[k] + 1) if w > 0 else S / q_sum[k]
    free = ~fixamp
    if free.any() and (row_weights_given or fixamp.any()):
        new_weights[free] *= (1 - new_weights[fixamp].sum()) / new_weights[free].sum()
    elif free.any():
        new_weights /= J
    return total / J, new_weights, new_means, new_covs
