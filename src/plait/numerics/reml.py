"""Restricted maximum likelihood of one variance ratio, in the eigenbasis of the relationships.

    y = X a + u + e,   u ~ N(0, s2 h2 K),   e ~ N(0, s2 (1 - h2) I),   K = U S U^T

After multiplication by U^T everything is diagonal: the variances are ``s2 d_i``, ``d_i = h2 S_i +
1 - h2``, which stay finite at h2 = 0 (ordinary regression). See Kang et al. (2008), Genetics 178,
and Lippert et al. (2011), Nature Methods 8.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_GRID = 101
_LARGEST = 1.0 - 1e-6
_TOLERANCE = 1e-10


@dataclass(frozen=True, eq=False)
class VarianceFit:
    """Variance ratios of T traits.

    Attributes
    ----------
    h2 : (T,) array
        Share of the variance that follows the relationships, in [0, 1).
    se : (T,) array
        From the observed information; NaN at a boundary.
    at_boundary : (T,) bool array
    variance : (T,) array
        ``s2``.
    log_likelihood : (T,) array
        Restricted, constants kept.
    """

    h2: Array
    se: Array
    at_boundary: NDArray[np.bool_]
    variance: Array
    log_likelihood: Array


class SpectralModel:
    """The model of T traits in the eigenbasis of K.

    Parameters
    ----------
    values : (N,) array
        Eigenvalues S.
    traits : (N, T) array
        ``U^T Y``.
    covariates : (N, p) array
        ``U^T X`` with X of full rank.
    """

    def __init__(self, values: Array, traits: Array, covariates: Array) -> None:
        self.values = np.maximum(values, 0.0)
        self.traits, self.covariates = traits, covariates
        self._log_det_x = float(np.linalg.slogdet(covariates.T @ covariates)[1])

    @property
    def df(self) -> int:
        """Degrees of freedom of the residuals, N - p."""
        return int(self.covariates.shape[0] - self.covariates.shape[1])

    def variances(self, h2: float) -> Array:
        """Return ``d`` (N,)."""
        d: Array = h2 * self.values + (1.0 - h2)
        return d

    def residual_squares(self, h2: float, columns: NDArray[np.intp] | None = None) -> Array:
        """Return ``y^T P y`` (T,) with the variances ``d``."""
        y = self.traits if columns is None else self.traits[:, columns]
        weights = 1.0 / self.variances(h2)
        weighted = self.covariates * weights[:, None]
        gram, cross = weighted.T @ self.covariates, weighted.T @ y
        total = weights @ y**2 - np.einsum("pt,pt->t", cross, np.linalg.solve(gram, cross))
        return np.asarray(total)

    def log_likelihood(self, h2: float, columns: NDArray[np.intp] | None = None) -> Array:
        """Return the restricted log-likelihood (T,), maximised over ``s2``."""
        d = self.variances(h2)
        gram = (self.covariates / d[:, None]).T @ self.covariates
        n = self.df
        squares = self.residual_squares(h2, columns)
        twice = n * (np.log(squares) + 1 + np.log(2 * np.pi / n)) + np.log(d).sum()
        twice += np.linalg.slogdet(gram)[1] - self._log_det_x
        return np.asarray(-0.5 * twice)

    def fit(self) -> VarianceFit:
        """Maximise over h2: a grid of 101 values, then every maximum of it refined."""
        grid = np.linspace(0.0, _LARGEST, _GRID)
        table = np.array([self.log_likelihood(float(value)) for value in grid])
        h2 = np.empty(table.shape[1])
        for t in range(len(h2)):
            padded = np.concatenate([[-np.inf], table[:, t], [-np.inf]])
            peaks = np.flatnonzero((padded[1:-1] >= padded[:-2]) & (padded[1:-1] >= padded[2:]))
            found = [self._refined(grid, int(peak), t) for peak in peaks]
            h2[t] = max(found)[1]
        return self._described(h2)

    def near(self, start: float, trait: int = 0) -> float:
        """Return the maximum over h2 in the neighbourhood of a good guess, for one trait."""
        width = 0.1
        while True:
            grid = np.array([max(start - width, 0.0), start, min(start + width, _LARGEST)])
            best = self._refined(grid, 1, trait)[1]
            inside = grid[0] + 1e-6 < best < grid[2] - 1e-6
            if inside or width >= 1 or best in (0.0, _LARGEST):
                return best
            start, width = best, 2 * width

    def _refined(self, grid: Array, peak: int, trait: int) -> tuple[float, float]:
        """Return the largest log-likelihood between the neighbours of a grid value, and where."""
        from scipy.optimize import minimize_scalar

        column = np.array([trait])

        def loss(h2: float) -> float:
            return -float(self.log_likelihood(float(h2), column)[0])

        low, high = float(grid[max(peak - 1, 0)]), float(grid[min(peak + 1, len(grid) - 1)])
        found = minimize_scalar(
            loss, bounds=(low, high), method="bounded", options={"xatol": _TOLERANCE}
        )
        places = [float(found.x), low, float(grid[peak]), high]
        return max((-loss(place), place) for place in places)

    def _described(self, h2: Array) -> VarianceFit:
        count = len(h2)
        se, variance, heights = np.full(count, np.nan), np.empty(count), np.empty(count)
        at_boundary = (h2 <= 1e-6) | (h2 >= _LARGEST - 1e-6)
        for t, value in enumerate(h2.tolist()):
            column = np.array([t])
            variance[t] = self.residual_squares(value, column)[0] / self.df
            heights[t] = self.log_likelihood(value, column)[0]
            step = min(1e-3, 0.25 * value, 0.25 * (1 - value))
            if not at_boundary[t]:
                left, right = (self.log_likelihood(value + s, column)[0] for s in (-step, step))
                curvature = (2 * heights[t] - left - right) / step**2
                se[t] = curvature**-0.5 if curvature > 0 else np.nan
        return VarianceFit(h2, se, at_boundary, variance, heights)
