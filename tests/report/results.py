"""Results made up for the tests of the page: any shape, known numbers, lazy or not."""

import numpy as np

from plait.mash.results import FittedG, MashResult


class Lazy:
    """An array that gives rows when it is sliced, and fails when all of it is asked for."""

    def __init__(self, values):
        self._values = np.asarray(values)
        self.shape = self._values.shape
        self.most_rows = 0

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        assert isinstance(rows, slice)
        part = self._values[rows]
        self.most_rows = max(self.most_rows, len(part))
        return part

    def __array__(self, *args, **kwargs):
        raise AssertionError("the whole array was asked for")


def make_result(n=400, width=4, *, names=True, strength=1.0, seed=0, lazy=False, **changes):
    """Return a result in which one effect in four is real, shared by the first two contexts."""
    from scipy.special import log_ndtr

    random = np.random.default_rng(seed)
    real = random.random(n) < 0.25
    shared = 5 * strength * random.normal(size=(n, 1)) * real[:, None]
    mean = shared * np.linspace(1, 0.2, width) + 0.1 * random.normal(size=(n, width))
    sd = random.uniform(0.3, 0.6, size=(n, width))
    lfsr = np.exp(log_ndtr(-np.abs(mean) / sd))
    if strength == 0:
        lfsr = np.maximum(lfsr, 0.2)
    matrices = {
        "equal_effects": np.ones((width, width)),
        "identity": np.eye(width),
        "first": np.diag([1.0] + [0.0] * (width - 1)),
        "learned": np.outer(mean[0], mean[0]) + 0.1 * np.eye(width),
    }
    grid = np.array([0.5, 1.0, 2.0])
    pi = np.zeros(1 + 4 * 3)
    pi[[0, 1, 4, 5, 8]] = [0.7, 0.1, 0.05, 0.05, 0.1]
    keep = Lazy if lazy else np.asarray
    labels = np.array([f"rs{j}" for j in range(n)])
    fields = {
        "posterior_mean": keep(mean),
        "posterior_sd": keep(sd),
        "lfsr": keep(lfsr),
        "lfdr": None,
        "negative_prob": None,
        "zero_prob": None,
        "loglik": -123.4,
        "vloglik": np.zeros(n),
        "null_loglik": None,
        "alt_loglik": None,
        "fitted_g": FittedG(pi, matrices, grid, True, 1.0, 0.9 * np.eye(width) + 0.1),
        "posterior_weights": None,
        "component_index": None,
        "alpha": 1.0,
        "condition_names": tuple(f"tissue {r + 1}" for r in range(width)) if names else None,
        "effect_names": keep(labels) if names else None,
        "optim": {"method": "mixsqp", "niter": 7, "converged": True, "dual_gap": 2e-10},
    }
    return MashResult(**fields | changes)
