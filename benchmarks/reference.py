"""The plain-NumPy reference: mash as it is written in the papers, without plait's algorithms.

One factorisation per component (per effect and component where errors vary), weights by SQUAREM
(Varadhan and Roland 2008) over the whole likelihood matrix, extreme deconvolution with one inverse
per effect. Rows are cut over threads, and work goes through LAPACK and level-3 BLAS where NumPy
offers it.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import ndtr

CHUNK = 2048


def expand(matrices, grid):
    """Return the covariances of all components: the null, then grid-major."""
    width = matrices.shape[1]
    scaled = (grid[:, None, None, None] ** 2 * matrices).reshape(-1, width, width)
    return np.concatenate([np.zeros((1, width, width)), scaled])


def _over_rows(function, n, threads):
    """Apply a function to slices of the rows, on threads."""
    parts = [slice(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, parts))


def common_log_likelihoods(effects, error, priors, threads):
    """Return (J, P) log-likelihoods under one error covariance."""
    out = np.empty((len(effects), len(priors)))
    factors = np.linalg.cholesky(error + priors)
    constants = -np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)

    def one(rows):
        for p, factor in enumerate(factors):
            y = solve_triangular(factor, effects[rows].T, lower=True, check_finite=False)
            out[rows, p] = constants[p] - 0.5 * np.sum(y * y, axis=0)

    _over_rows(one, len(effects), threads)
    return out - 0.5 * effects.shape[1] * np.log(2 * np.pi)


def varying_log_likelihoods(effects, variances, priors, threads):
    """Return (J, P) log-likelihoods; every effect has its own error variances."""
    out = np.empty((len(effects), len(priors)))
    width = effects.shape[1]

    def one(rows):
        errors, y = variances[rows][:, :, None] * np.eye(width), np.empty_like(effects[rows])
        for p, prior in enumerate(priors):
            factor = np.linalg.cholesky(errors + prior)
            diagonal = np.diagonal(factor, axis1=1, axis2=2)
            for r in range(width):
                done = np.einsum("jk,jk->j", factor[:, r, :r], y[:, :r])
                y[:, r] = (effects[rows, r] - done) / diagonal[:, r]
            out[rows, p] = -0.5 * np.sum(y * y, axis=1) - np.log(diagonal).sum(axis=1)

    _over_rows(one, len(effects), threads)
    return out - 0.5 * width * np.log(2 * np.pi)


def fit_weights(likelihoods, counts, threads, tol=1e-8, max_iter=2000):
    """Maximise the penalised log-likelihood by SQUAREM until a step gains ``tol`` of it."""
    total = len(likelihoods) + counts.sum()
    counted = counts > 0

    def step(x):
        def one(rows):
            mixture = likelihoods[rows] @ x
            return np.log(mixture).sum(), (1 / mixture) @ likelihoods[rows]

        value, slope = map(sum, zip(*_over_rows(one, len(likelihoods), threads), strict=True))
        return (x * slope + counts) / total, value + counts[counted] @ np.log(x[counted])

    x, last = np.full(likelihoods.shape[1], 1.0 / likelihoods.shape[1]), -np.inf
    for _ in range(max_iter):
        first, value = step(x)
        if value - last <= tol * (1 + abs(value)) and np.isfinite(last):
            return first
        last = value
        second, _ = step(first)
        change, curvature = first - x, second - 2 * first + x
        length = np.linalg.norm(change) / max(np.linalg.norm(curvature), 1e-300)
        jump = x + 2 * length * change + length**2 * curvature
        jump = np.maximum(jump, 1e-300) / np.maximum(jump, 1e-300).sum()
        settled, reached = step(jump)
        x = settled if np.isfinite(reached) and reached >= value else second
    return x


def _summaries(weights, means, variances, out, rows):
    """Add one component to mean, second moment, and both tails."""
    w = weights[:, None]
    sd = np.sqrt(np.maximum(variances, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        below = np.where(sd > 0, ndtr(-means / sd), 0.0)
    mean, second, negative, zero = out
    mean[rows] += w * means
    second[rows] += w * (means**2 + variances)
    negative[rows] += w * below
    zero[rows] += w * (sd == 0)


def posterior(effects, errors, priors, weights, threads):
    """Return posterior mean, sd and lfsr; ``errors`` is (R, R), or (J, R) variances."""
    out = np.zeros((4, *effects.shape))
    width, common = effects.shape[1], errors.shape == (effects.shape[1],) * 2

    def one(rows):
        own = None if common else errors[rows][:, :, None] * np.eye(width)
        for prior, w in zip(priors, weights.T, strict=True):
            if common:
                gain = np.linalg.solve(errors + prior, prior).T
                means = effects[rows] @ gain.T
                variances = np.broadcast_to((prior - gain @ prior).diagonal(), means.shape)
            else:
                gain = np.linalg.solve(own + prior, np.broadcast_to(prior, own.shape))
                means = np.einsum("jrs,jr->js", gain, effects[rows])
                variances = prior.diagonal() - np.einsum("rs,jsr->jr", prior, gain)
            _summaries(w[rows], means, variances, out, rows)

    _over_rows(one, len(effects), threads)
    mean, second, negative, zero = out
    sd = np.sqrt(np.maximum(second - mean**2, 0.0))
    return mean, sd, np.minimum(negative, 1 - negative - zero) + zero


def _log_likelihoods(arrays, priors, threads):
    """Scale the data by alpha; return scale, effects, errors and their log-likelihoods."""
    alpha = float(arrays["alpha"])
    scale = arrays["shat"] ** alpha
    effects = arrays["bhat"] / scale
    if alpha == 1:
        errors = np.eye(effects.shape[1])
        return scale, effects, errors, common_log_likelihoods(effects, errors, priors, threads)
    errors = (arrays["shat"] / scale) ** 2
    return scale, effects, errors, varying_log_likelihoods(effects, errors, priors, threads)


def apply(arrays, threads):
    """Posterior under given weights."""
    kept = np.flatnonzero(arrays["pi"] > 1e-10)
    priors = expand(arrays["matrices"], arrays["grid"])[kept]
    scale, effects, errors, logs = _log_likelihoods(arrays, priors, threads)
    weights = np.exp(logs - logs.max(axis=1, keepdims=True)) * arrays["pi"][kept]
    weights /= weights.sum(axis=1, keepdims=True)
    mean, sd, lfsr = posterior(effects, errors, priors, weights, threads)
    return {"posterior_mean": mean * scale, "posterior_sd": sd * scale, "lfsr": lfsr}


def fit(arrays, threads):
    """Likelihoods, weights with the null-biased prior, and posterior."""
    priors = expand(arrays["matrices"], arrays["grid"])
    scale, effects, errors, logs = _log_likelihoods(arrays, priors, threads)
    logs -= logs.max(axis=1, keepdims=True)
    likelihoods = np.exp(logs, out=logs)
    pi = fit_weights(likelihoods, np.where(np.arange(len(priors)) == 0, 9.0, 0.0), threads)
    kept = np.flatnonzero(pi > 1e-10)
    weights = likelihoods[:, kept] * pi[kept]
    weights /= weights.sum(axis=1, keepdims=True)
    mean, sd, lfsr = posterior(effects, errors, priors[kept], weights, threads)
    return {"pi": pi, "posterior_mean": mean * scale, "posterior_sd": sd * scale, "lfsr": lfsr}


def deconvolve(arrays, threads):
    """Extreme deconvolution (Bovy et al. 2011), a fixed number of iterations."""
    effects, variances, matrices = arrays["bhat"], arrays["shat"] ** 2, arrays["matrices"].copy()
    n, width = effects.shape
    pi = np.full(len(matrices), 1 / len(matrices))
    objective = []

    def one(rows):
        errors, y = variances[rows][:, :, None] * np.eye(width), effects[rows]
        logs, means, covs = [], [], []
        for weight, U in zip(pi, matrices, strict=True):
            inverse = np.linalg.inv(errors + U)
            _, log_det = np.linalg.slogdet(inverse)
            solved = np.einsum("jrs,js->jr", inverse, y)
            logs.append(np.log(weight) + 0.5 * log_det - 0.5 * np.sum(solved * y, axis=1))
            means.append(solved @ U)
            covs.append(U - U @ inverse @ U)
        logs = np.array(logs) - 0.5 * width * np.log(2 * np.pi)
        top = logs.max(axis=0)
        q = np.exp(logs - top)
        density = q.sum(axis=0)
        q /= density
        scatter = [
            (q_k * m.T) @ m + np.tensordot(q_k, c, 1)
            for q_k, m, c in zip(q, means, covs, strict=True)
        ]
        return float((np.log(density) + top).sum()), q.sum(axis=1), np.array(scatter)

    for _ in range(int(arrays["iterations"])):
        value, counts, scatter = map(sum, zip(*_over_rows(one, n, threads), strict=True))
        matrices, pi = scatter / counts[:, None, None], counts / n
        objective.append(value / n)
    return {"pi": pi, "matrices": matrices, "objective": np.array(objective)}
