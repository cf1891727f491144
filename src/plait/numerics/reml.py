"""Restricted maximum likelihood of one variance ratio.

    y = X a + u + e,   u ~ N(0, s2 h2 K),   e ~ N(0, s2 (1 - h2) I)

With the covariates projected out of trait and relationships, ``M = I - X (X^T X)^-1 X^T``, the
likelihood is that of ``M y`` with variance ``s2 (h2 M K M + (1 - h2) I)`` on the space orthogonal
to X (Patterson and Thompson 1971, Biometrika 58), and the best linear estimates are those of
regressions there. ``M K M`` is made tridiagonal once; then a likelihood costs O(N) at any h2, and
stays finite at h2 = 0 (ordinary regression).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import get_blas_funcs
from scipy.linalg.lapack import dpttrs, get_lapack_funcs

from plait.numerics.tridiagonal import Tridiagonal

Array = NDArray[np.float64]

_GRID = 101
LARGEST = 1.0 - 1e-6
"""The largest share h2 that is looked at."""
_TOLERANCE = 1e-8
EDGE = 1e-6
"""Shares so close to 0 or `LARGEST` are at a boundary."""


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


@dataclass(frozen=True, eq=False)
class RestrictedModel:
    """The model of T traits on N samples, covariates projected out.

    Attributes
    ----------
    relationships : Tridiagonal
        ``M K M = Q T Q^T``.
    traits : (N, T) array
        ``Q^T M Y``.
    n_covariates : int
        p, the constant among them.
    """

    relationships: Tridiagonal
    traits: Array
    n_covariates: int

    @classmethod
    def of(cls, relationships: Array, basis: Array, traits: Array) -> "RestrictedModel":
        """Prepare relationships K (N, N) and traits (N, T).

        ``basis`` (N, p) of the covariates is orthonormal. Cost: 4/3 N^3 flops; K is not changed.
        """
        reduced = Tridiagonal.of(_projected(relationships, basis), overwrite=True)
        left = traits - basis @ (basis.T @ traits)
        return cls(reduced, np.asfortranarray(reduced.rotated(left)), basis.shape[1])

    @property
    def df(self) -> int:
        """Degrees of freedom of the residuals, N - p."""
        return len(self.relationships) - self.n_covariates

    def factors(self, h2: Array) -> tuple[Array, Array]:
        """Return D (T, N) and the subdiagonals of L (T, N - 1) for each share of T traits."""
        found = [self.relationships.factor(value, 1.0 - value) for value in h2.tolist()]
        return np.array([pivots for pivots, _ in found]), np.array([below for _, below in found])

    def solve(self, h2: float, columns: Array) -> Array:
        """Return ``(h2 T + (1 - h2) I)^-1 columns``."""
        solved: Array = dpttrs(*self.relationships.factor(h2, 1.0 - h2), columns)[0]
        return solved

    def inverse(self, h2: float, relationships: Array, basis: Array) -> Array:
        """Return ``P = M (h2 M K M + (1 - h2) I)^-1 M`` (N, N), symmetric.

        ``relationships`` and ``basis`` are those that the model was made `of`. Cost: N^3 flops.
        """
        return projected_inverse(relationships, basis, h2, self.relationships.lifted)

    def log_likelihood(self, h2: float, columns: NDArray[np.intp] | None = None) -> Array:
        """Return the restricted log-likelihood (T,), maximised over ``s2``."""
        y = self.traits if columns is None else self.traits[:, columns]
        pivots, _ = self.relationships.factor(h2, 1.0 - h2)
        squares = np.einsum("it,it->t", y, self.solve(h2, y))
        return self._height(squares, self._log_determinant(h2, float(np.log(pivots).sum())))

    def _log_determinant(self, h2: float, whole: float) -> float:
        """Leave out the eigenvalues of the directions of the covariates, in which T is 0."""
        covariates = math.log(h2 * self.relationships.lifted + 1.0 - h2)
        return whole - self.n_covariates * covariates

    def _height(self, squares: Array, log_determinant: float) -> Array:
        n = self.df
        twice = n * (np.log(squares) + 1 + math.log(2 * math.pi / n)) + log_determinant
        return np.asarray(-0.5 * twice)

    def fit(self) -> VarianceFit:
        """Maximise over h2: a grid of 101 values, then every maximum of it refined."""
        grid = np.linspace(0.0, LARGEST, _GRID).tolist()
        table = np.array([self.log_likelihood(value) for value in grid])
        h2 = np.empty(table.shape[1])
        for t in range(len(h2)):
            column = np.array([t])

            def height(value: float, column: NDArray[np.intp] = column) -> float:
                return float(self.log_likelihood(value, column)[0])

            padded = np.concatenate([[-np.inf], table[:, t], [-np.inf]])
            peaks = np.flatnonzero((padded[1:-1] >= padded[:-2]) & (padded[1:-1] >= padded[2:]))
            last = len(grid) - 1
            search = search_of(height)
            found = [
                search(grid[max(p - 1, 0)], grid[p], grid[min(p + 1, last)], _TOLERANCE)
                for p in peaks.tolist()
            ]
            h2[t] = max(found)[1]
        return self._described(h2)

    def _described(self, h2: Array) -> VarianceFit:
        count = len(h2)
        se, variance, heights = np.full(count, np.nan), np.empty(count), np.empty(count)
        at_boundary = (h2 <= EDGE) | (h2 >= LARGEST - EDGE)
        for t, value in enumerate(h2.tolist()):
            column = np.array([t])
            y = self.traits[:, t]
            variance[t] = y @ self.solve(value, y) / self.df
            heights[t] = self.log_likelihood(value, column)[0]
            step = min(1e-3, 0.25 * value, 0.25 * (1 - value))
            if not at_boundary[t]:
                left, right = (self.log_likelihood(value + s, column)[0] for s in (-step, step))
                curvature = (2 * heights[t] - left - right) / step**2
                se[t] = curvature**-0.5 if curvature > 0 else np.nan
        return VarianceFit(h2, se, at_boundary, variance, heights)

    def prepared(self, genotypes: Array) -> list[Array]:
        """Return ``Q^T M g`` of variants ``M g`` (n, N), for `regression` and `share_beside`.

        One by one, so that bits of a variant do not depend on which others it is with.
        """
        return [self.relationships.rotated(genotype) for genotype in genotypes]

    def regression(self, regressor: Array, trait: int, h2: float) -> tuple[float, float]:
        """Return the slope of one more regressor, ``Q^T M g``, and its standard error."""
        from plait.numerics.reml_kernels import forms

        _, yy, gy, gg = forms(*self._numbers(h2), self.traits[:, trait], regressor)
        left = max(yy - gy * gy / gg, 0.0)
        return gy / gg, math.sqrt(left / ((self.df - 1) * gg))

    def share_beside(self, regressor: Array, trait: int, start: float) -> float:
        """Return h2 with one more regressor, ``Q^T M g``: the maximum next to a good guess."""
        from plait.numerics.reml_kernels import forms

        y, n = self.traits[:, trait], self.df - 1

        def height(h2: float) -> float:
            whole, yy, gy, gg = forms(*self._numbers(h2), y, regressor)
            left = max(yy - gy * gy / gg, 1e-300)
            return -0.5 * (n * math.log(left) + self._log_determinant(h2, whole) + math.log(gg))

        return maximum_near(search_of(height), start)

    def likelihood_beside(self, regressor: Array, trait: int, h2: float) -> float:
        """Return the log-likelihood of the same contrasts with one more regressor, ``Q^T M g``.

        Not the restricted one of that model, which is of one contrast less: this is comparable to
        `log_likelihood`.
        """
        from plait.numerics.reml_kernels import forms

        whole, yy, gy, gg = forms(*self._numbers(h2), self.traits[:, trait], regressor)
        left = max(yy - gy * gy / gg, 1e-300)
        return float(self._height(np.array(left), self._log_determinant(h2, whole)))

    def _numbers(self, h2: float) -> tuple[Array, Array, float]:
        return self.relationships.diagonal, self.relationships.off_diagonal, h2


def projected_inverse(
    relationships: NDArray[Any], basis: Array, h2: float, lifted: float
) -> NDArray[Any]:
    """Return ``M (h2 (M K M + lifted I) + (1 - h2) I)^-1 M`` (N, N), symmetric.

    In the precision of K (N, N); N^3 flops.
    """
    rest = 1.0 - h2 + h2 * lifted
    matrix = _projected(relationships, basis.astype(relationships.dtype, copy=False))
    matrix *= h2
    matrix[np.diag_indices(len(matrix))] += rest
    potrf, potri = get_lapack_funcs(("potrf", "potri"), (matrix,))
    factor, failed = potrf(matrix, lower=1, overwrite_a=1)
    if failed:
        raise np.linalg.LinAlgError(f"the covariance at h2 = {h2} is not positive definite")
    inverse: NDArray[Any] = potri(factor, lower=1, overwrite_c=1)[0]
    for row in range(1, len(inverse)):
        inverse[:row, row] = inverse[row, :row]
    inverse -= (basis / rest) @ basis.T
    return inverse.T  # the same, its rows contiguous


def _projected(relationships: NDArray[Any], basis: NDArray[Any]) -> NDArray[Any]:
    """Return ``M K M`` in Fortran order; what is above its diagonal means nothing."""
    product = relationships @ basis
    product -= 0.5 * basis @ (basis.T @ product)
    columns = np.asfortranarray(basis), np.asfortranarray(product)
    given = {"beta": 1.0, "c": np.array(relationships.T, order="F"), "lower": 1, "overwrite_c": 1}
    return np.asarray(get_blas_funcs("syr2k", columns)(-1.0, *columns, **given))


Search = Callable[[float, float, float, float], tuple[float, float]]
"""Takes a lower bound, a guess, an upper bound and a tolerance; returns the largest value of a
function with one maximum between them, bounds and guess included, and where it is."""


def maximum_near(
    search: Search, start: float, tolerance: float = 1e-6, largest: float = LARGEST
) -> float:
    """Return the share of the largest likelihood next to a good guess, up to the largest share."""
    width = 0.1
    while True:
        low, high = max(start - width, 0.0), min(start + width, largest)
        best = search(low, start, high, tolerance)[1]
        if low + EDGE < best < high - EDGE or width >= 1 or best in (0.0, largest):
            return best
        start, width = best, 2 * width


def search_of(height: Callable[[float], float]) -> Search:
    """Return a search for the maximum of a function."""
    from plait.numerics.search_kernels import BEST, SEARCH, first_place, next_place

    def search(low: float, guess: float, high: float, tolerance: float) -> tuple[float, float]:
        state = np.empty(SEARCH)
        place = first_place(state, low, guess, high)
        while not math.isnan(place):
            place = next_place(state, height(place), tolerance)
        return max((height(place), place) for place in (float(state[BEST]), low, guess, high))

    return search
