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
TILE = 4
"""Treatments whose sums are added up together; fewer take as long."""


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
        the covariates separate some treated from untreated cells, or more than one, because they
        determine one another (without a penalty).
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
    def of(cls, columns: Array) -> "Design":
        """Return the design of ``columns``, of which only the ones are constant."""
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
    from plait.crt.logistic_kernels import fit

    n = treated.shape[1]
    found = LogisticFit(
        np.empty((n, len(design.columns))).T,
        np.empty(n, dtype=np.int64),
        np.empty(n, dtype=np.int64),
        np.empty(n, dtype=bool),
        np.empty(n, dtype=bool),
    )
    fit(
        design.columns,
        design.reaches,
        treated.indptr.astype(np.int64),
        treated.indices.astype(np.int64),
        float(penalty),
        float(tolerance),
        max_iterations,
        found.coefficients.T,
        found.iterations,
        found.halvings,
        found.converged,
        found.separated,
    )
    return found


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
