"""Likelihood-ratio tests of variants in a mixed model, by maximum likelihood.

The restricted likelihood of `plait.numerics.reml` is of what covariates leave, which is less once a
variant is one of them; likelihoods that are compared must be of the same data. So these are whole
ones: twice the logarithm is ``-N ln(y^T P y) - ln |V|`` and a constant, ``V = h2 K + (1 - h2) I``
the covariance of all samples, P its inverse once covariates (and the variant) are projected out.
Each of the two models has the h2 that makes it most likely (Zhou and Stephens 2012, Nature Genetics
44).
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from plait.execution.threads import single_threaded_blas
from plait.gwas.null_models import NullModel
from plait.numerics.reml import LARGEST, maximum_near

Array = NDArray[np.float64]

_GRID = 101


class LikelihoodRatio:
    """Compares models with and without a variant.

    Parameters
    ----------
    null : NullModel
        Its relationships are decomposed here once more, without covariates: 4/3 N^3 flops.
    """

    def __init__(self, null: NullModel) -> None:
        from scipy.linalg import eigvalsh

        self.model = null.model
        with single_threaded_blas():
            values = eigvalsh(null.relationships)
        self._eigenvalues: Array = np.maximum(values, 0.0)
        self._shares: list[float] = []
        self._heights: list[float] = []
        for t in range(null.model.traits.shape[1]):
            height = self._without(t)
            grid = np.linspace(0.0, LARGEST, _GRID)
            start = float(grid[np.argmax([height(float(value)) for value in grid])])
            share = maximum_near(height, start, 1e-8)
            self._shares.append(share)
            self._heights.append(height(share))

    def log10p(self, regressor: Array, trait: int) -> float:
        """Return log10 of the p-value of a variant, by the chi-square of one degree of freedom.

        ``regressor`` is what `RestrictedModel.prepared` returns.
        """
        from scipy.special import log_ndtr

        height = self._beside(regressor, trait)
        share = maximum_near(height, self._shares[trait], 1e-8)
        statistic = max(2.0 * (height(share) - self._heights[trait]), 0.0)
        return (math.log(2.0) + float(log_ndtr(-math.sqrt(statistic)))) / math.log(10.0)

    def _likelihood(self, h2: float, squares: float) -> float:
        n = len(self._eigenvalues)
        determinant = float(np.log(h2 * self._eigenvalues + 1.0 - h2).sum())
        return -0.5 * (n * math.log(max(squares, 1e-300)) + determinant)

    def _without(self, trait: int) -> Callable[[float], float]:
        y = self.model.traits[:, trait]

        def height(h2: float) -> float:
            return self._likelihood(h2, float(y @ self.model.solve(h2, y)))

        return height

    def _beside(self, regressor: Array, trait: int) -> Callable[[float], float]:
        from plait.numerics.reml_kernels import forms

        y, reduced = self.model.traits[:, trait], self.model.relationships

        def height(h2: float) -> float:
            _, yy, gy, gg = forms(reduced.diagonal, reduced.off_diagonal, h2, y, regressor)
            return self._likelihood(h2, yy - gy * gy / gg)

        return height
