"""The cases of the mash benchmarks: arrays for the workers, and one judge for all weights."""

import numpy as np
from common import simulate

from plait import mash

SIZES = ((20_000, 5), (20_000, 20), (50_000, 40))


def fit_arrays(n_effects, width, alpha, learned, seed=1):
    """Return data, matrices and grid of a fit, as every side gets them."""
    made = simulate(n_effects, width, seed, alpha, learned)
    data = mash.mash_set_data(made["bhat"], made["shat"], alpha=alpha)
    matrices = mash.cov_canonical(data)
    matrices |= {f"learned_{k + 1}": U for k, U in enumerate(made["learned"])}
    return {
        "bhat": made["bhat"],
        "shat": made["shat"],
        "alpha": np.array(float(alpha)),
        "names": np.array(list(matrices)),
        "matrices": np.array([U / U.diagonal().max() for U in matrices.values()]),
        "grid": mash.autoselect_grid(data, float(np.sqrt(2))),
    }


def objective(arrays, pi):
    """Return the log-likelihood of weights, and the penalised one, by the same function for all."""
    alpha = float(arrays["alpha"])
    data = mash.mash_set_data(arrays["bhat"], arrays["shat"], alpha=alpha)
    matrices = dict(zip(arrays["names"].tolist(), arrays["matrices"], strict=True))
    pi = np.asarray(pi) / np.sum(pi)
    prior = mash.FittedG(pi, matrices, arrays["grid"], True, alpha)
    loglik = mash.mash_compute_loglik(prior, data)
    return loglik, loglik + 9 * float(np.log(max(pi[0], 1e-300)))
