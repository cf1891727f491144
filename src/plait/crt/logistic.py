"""Penalised logistic regressions of many treatments on one design, by Newton's method.

Treatments are fitted together, because the products of covariates that their Hessians need are
the same. A treatment's sums are made alike whichever others there are, so that a fit has the same
bits beside any.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

Array = NDArray[np.float64]

WIDTH = 16
"""Treatments that are fitted together."""
_ROUNDING = 1e-12
"""Share of the objective that an increase may be and still be rounding."""
_FLAT = 1e-9
"""Decrease of the objective, as Newton's method expects it, that is none."""
_LONG = 0.1
"""Change of the linear predictor of some cell that is not one of convergence."""


@dataclass(frozen=True, slots=True, eq=False)
class LogisticFit:
    """Fitted logistic regressions, one for each treatment.

    Attributes
    ----------
    coefficients : (1 + p, treatments) array
        The intercept's, then the covariates'.
    iterations : (treatments,) int64 array
        Newton steps taken.
    halvings : (treatments,) int64 array
        Steps tried in vain and halved.
    converged, separated : (treatments,) bool arrays
        Whether the last step was below the tolerance; whether the objective has no minimum, because
        the covariates separate some treated from untreated cells.
    """

    coefficients: Array
    iterations: NDArray[np.int64]
    halvings: NDArray[np.int64]
    converged: NDArray[np.bool_]
    separated: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Design:
    """Covariates and an intercept, ready to be fitted on.

    Attributes
    ----------
    columns : (1 + p, cells) array
        Ones, then the covariates, a row for each.
    reaches : (1 + p,) array
        1, then the largest distance of a value from its column's mean.
    """

    columns: Array
    reaches: Array

    @classmethod
    def of(cls, covariates: Array) -> "Design":
        """Return the design of (cells, p) covariates, none of which is constant."""
        columns = np.empty((1 + covariates.shape[1], len(covariates)))
        columns[0] = 1.0
        columns[1:] = covariates.T
        means = columns.mean(axis=1)
        reaches = np.maximum(columns.max(axis=1) - means, means - columns.min(axis=1))
        reaches[0] = 1.0
        return cls(columns, reaches)


def fit_logistic(
    design: Design, treated: csc_array, penalty: float, tolerance: float, max_iterations: int
) -> LogisticFit:
    """Fit up to `WIDTH` treatments, each of some but not all cells.

    Parameters
    ----------
    design : Design
        Intercept and covariates.
    treated : (cells, treatments) csc_array
        Ones at the treated cells.
    penalty : float
        1 / C_value, half of which weighs the squared coefficients of the covariates; 0 for none.
    tolerance : float
        A full Newton step with no larger entry is the last one.
    max_iterations : int
        Of steps and halvings together.

    Returns
    -------
    LogisticFit

    Notes
    -----
    A step that would raise the objective is halved until it does not: without that, Newton's method
    runs off where treated cells are few. Time O(cells x p^2) for each iteration and treatment.
    """
    q, n_cells = design.columns.shape
    n = treated.shape[1]
    response = np.asarray(treated.T @ design.columns.T).T  # X'y
    penalties = np.full((q, 1), penalty)
    penalties[0] = 0.0
    coefficients = np.zeros((q, n))
    share = response[0] / n_cells
    coefficients[0] = np.log(share / (1.0 - share))
    problem = _Problem(design, penalties)
    objective, gradient, hessian = problem.evaluate(coefficients, response)
    step = _newton_step(hessian, gradient)
    scale = np.ones(n)
    iterations, halvings = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    converged, separated = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    for _ in range(max_iterations):
        active = np.flatnonzero(~(converged | separated))
        # A full step below the tolerance is the last; that it is no worse need not be seen.
        is_last = (scale[active] == 1.0) & (np.abs(step[:, active]).max(axis=0) < tolerance)
        last, active = active[is_last], active[~is_last]
        coefficients[:, last] -= step[:, last]
        iterations[last] += 1
        converged[last] = True
        if not len(active):
            break
        trial = coefficients[:, active] - scale[active] * step[:, active]
        value, slope, curvature = problem.evaluate(trial, response[:, active])
        is_better = value <= objective[active] + _ROUNDING * np.abs(objective[active])
        worse, better = active[~is_better], active[is_better]
        scale[worse] /= 2.0
        halvings[worse] += 1
        coefficients[:, better] = trial[:, is_better]
        objective[better] = value[is_better]
        iterations[better] += 1
        step[:, better] = _newton_step(curvature[is_better], slope[:, is_better])
        scale[better] = 1.0
        # A long step that gains nothing goes off to infinity.
        gain = np.einsum("qj,qj->j", step[:, better], slope[:, is_better])
        length = np.abs(step[:, better] * design.reaches[:, None]).max(axis=0)
        separated[better] = ~(np.isfinite(length) & ~((gain < _FLAT) & (length > _LONG)))
    return LogisticFit(coefficients, iterations, halvings, converged & ~separated, separated)


def write_probabilities(
    design: Design, coefficients: Array, least: float, places: NDArray[np.int64], rows: Array
) -> None:
    """Write probabilities, at least ``least`` away from 0 and 1.

    Parameters
    ----------
    design : Design
    coefficients : (1 + p, n) array
    least : float
    places : (n,) int64 array
        The row of each treatment.
    rows : (treatments, cells) array
    """
    from plait.crt.logistic_kernels import fill_probabilities

    by_treatment = np.ascontiguousarray(coefficients.T)
    fill_probabilities(design.columns, by_treatment, least, places, rows)


class _Problem:
    """The penalised objective with its first two derivatives."""

    def __init__(self, design: Design, penalties: Array) -> None:
        self.columns = design.columns
        self.penalties = penalties
        self.upper = np.triu_indices(len(penalties))

    def evaluate(self, coefficients: Array, response: Array) -> tuple[Array, Array, Array]:
        """Return objectives (n,), gradients (q, n) and Hessians (n, q, q)."""
        from plait.crt.logistic_kernels import evaluate

        q, n = coefficients.shape
        padded = np.zeros((WIDTH, q))
        padded[:n] = coefficients.T
        loss, slope = np.zeros(WIDTH), np.zeros((q, WIDTH))
        curvature = np.zeros((len(self.upper[0]), WIDTH))
        evaluate(self.columns, padded, n, loss, slope, curvature)
        shrunk = self.penalties * coefficients
        objective = loss[:n] + np.einsum(
            "qj,qj->j", coefficients, 0.5 * shrunk - response, optimize=False
        )
        hessian = np.empty((n, q, q))
        hessian[:, self.upper[0], self.upper[1]] = curvature[:, :n].T
        hessian[:, self.upper[1], self.upper[0]] = curvature[:, :n].T
        hessian[:, np.arange(q), np.arange(q)] += self.penalties[:, 0]
        return objective, slope[:, :n] - response + shrunk, hessian


def _newton_step(hessian: Array, gradient: Array) -> Array:
    """Return each treatment's step (q, n); not finite where its Hessian is singular."""
    step = np.full(gradient.shape, np.nan)
    try:
        step[:] = np.linalg.solve(hessian, gradient.T[:, :, None])[:, :, 0].T
    except np.linalg.LinAlgError:
        for j, matrix in enumerate(hessian):
            if np.linalg.matrix_rank(matrix, hermitian=True) == len(matrix):
                step[:, j] = np.linalg.solve(matrix, gradient[:, j])
    return step
