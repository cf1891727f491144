"""Plain transcriptions of the model, one effect and one component at a time."""

import numpy as np
from scipy.stats import multivariate_normal, norm


def log_density(bhat, covariance):
    if len(bhat) == 0:
        return 0.0
    return multivariate_normal(np.zeros(len(bhat)), covariance, allow_singular=False).logpdf(bhat)


def log_likelihoods(bhat, sigma, components, observed=None):
    """(J, P) log-likelihoods by brute force, marginalising what is not observed."""
    out = np.empty((len(bhat), len(components)))
    for j in range(len(bhat)):
        o = np.arange(bhat.shape[1]) if observed is None else np.flatnonzero(observed[j])
        for p, U in enumerate(components):
            out[j, p] = log_density(bhat[j, o], (sigma[j] + U)[np.ix_(o, o)])
    return out


def posterior(bhat, sigma, components, pi, observed=None, A=None):
    """Posterior mean, sd, negative and zero probability, lfsr and covariance by brute force."""
    J, R = bhat.shape
    A = np.eye(R) if A is None else A
    loglik = log_likelihoods(bhat, sigma, components, observed)
    weights = np.exp(loglik - loglik.max(axis=1, keepdims=True)) * pi
    weights /= weights.sum(axis=1, keepdims=True)
    Q = len(A)
    mean, neg, zero = (np.zeros((J, Q)) for _ in range(3))
    cov = np.zeros((J, Q, Q))
    for j in range(J):
        o = np.arange(R) if observed is None else np.flatnonzero(observed[j])
        for p, U in enumerate(components):
            gain = (
                U[:, o] @ np.linalg.inv((U + sigma[j])[np.ix_(o, o)])
                if len(o)
                else np.zeros((R, 0))
            )
            m = A @ (gain @ bhat[j, o])
            C = A @ (U - gain @ U[o]) @ A.T
            w = weights[j, p]
            mean[j] += w * m
            cov[j] += w * (C + np.outer(m, m))
            prior = np.diag(A @ U @ A.T)
            size = np.diag(np.abs(A) @ np.abs(U) @ np.abs(A).T)
            alive = prior > 1e-12 * size
            zero[j] += w * ~alive
            v = np.where(alive, np.diag(C), 1.0)
            neg[j] += w * np.where(alive, norm.cdf(-m / np.sqrt(v)), 0.0)
        cov[j] -= np.outer(mean[j], mean[j])
    lfsr = np.where(neg > 0.5 * (1 - zero), 1 - neg, neg + zero)
    return {
        "posterior_mean": mean,
        "posterior_sd": np.sqrt(np.maximum(np.einsum("jqq->jq", cov), 0)),
        "negative_prob": neg,
        "zero_prob": zero,
        "lfsr": lfsr,
        "posterior_cov": cov,
        "vloglik": np.log(np.exp(loglik - loglik.max(1, keepdims=True)) @ pi) + loglik.max(1),
    }
