"""The effect of a perturbation on every program: least squares given the covariates."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, issparse

from plait.crt.arguments import number_array
from plait.data.words import counted
from plait.errors import InputTypeError, ShapeError
from plait.execution.grains import Grain, map_grains

Array = NDArray[np.float64]

_NO_VARIATION = 1e-10


@dataclass(frozen=True, eq=False)
class OLSStatistics:
    """Least-squares effects of J perturbations on K programs.

    Attributes
    ----------
    beta : (J, K) array
        Shift of the log of a program's usage relative to the geometric mean of the cell's usages;
        0 where it cannot be estimated.
    denominator : (J,) array
        ``D = x'Mx``, what is left of the indicator given the covariates; never negative.
    n_treated : (J,) array of int
    se : (J, K) array
        Standard errors; infinite where the effect cannot be estimated.
    t : (J, K) array
        ``beta / se``, with N - p - 1 degrees of freedom.
    """

    beta: Array
    denominator: Array
    n_treated: NDArray[np.int64]
    se: Array
    t: Array


def ols_statistics(residuals: Array, basis: Array, treated: csc_array) -> OLSStatistics:
    """Regress every program on every perturbation and the covariates.

    The model of program k is ``Y_k = beta_k x + C gamma_k + e``. With ``R = M Y`` the residuals of
    the programs and Q an orthonormal basis of the covariates, ``S_k = sum of R_ik over treated
    cells``, ``u = Q'x``, ``D = n_1 - |u|^2`` and ``beta_k = S_k / D`` (Frisch and Waugh), so that
    only treated cells are visited.

    Parameters
    ----------
    residuals : (N, K) array
        R, orthogonal to the covariates (`CRTInputs.residuals`).
    basis : (N, p) array
        Q (`CRTInputs.basis`).
    treated : (N, J) sparse array
        1 in treated cells (`CRTInputs.treated_matrix`).

    Returns
    -------
    OLSStatistics

    Raises
    ------
    ShapeError
        The numbers of cells differ.
    InputTypeError
        An array is no matrix of numbers, or ``treated`` is not sparse (also a TypeError).

    Notes
    -----
    Time O(n_1 (K + p)) for each perturbation, memory that of the result. A column of the result
    does not depend on which others are computed with it, bit for bit.
    """
    residuals = number_array(residuals, "residuals", copy=False)
    basis = number_array(basis, "the basis", copy=False)
    if not issparse(treated) or residuals.ndim != 2 or basis.ndim != 2:
        raise InputTypeError(
            "give residuals and basis as matrices and the perturbations as a sparse one."
        )
    n_cells = len(basis)
    if residuals.shape[0] != n_cells or treated.shape[0] != n_cells:
        raise ShapeError(
            f"residuals have {counted(residuals.shape[0], 'cell')}, the basis {n_cells:,} and the "
            f"perturbations {treated.shape[0]:,}."
        )
    return ols_of_block(residuals, basis, treated.tocsc(), sums_of_squares(residuals))


def sums_of_squares(residuals: Array) -> Array:
    """Return the sum of squares of each program's residuals, (K,)."""
    return np.asarray(np.einsum("ik,ik->k", residuals, residuals))


def ols_of_block(residuals: Array, basis: Array, treated: csc_array, total: Array) -> OLSStatistics:
    """Return `ols_statistics` of some of a screen's perturbations, their arrays taken as they are.

    ``total`` are `sums_of_squares`, which all cells are visited for: once for a screen.
    """
    from plait.crt.treated_kernels import add_treated

    n_cells, width = basis.shape
    starts, cells = treated.indptr.astype(np.int64), treated.indices.astype(np.int32, copy=False)
    n_treated = np.diff(starts)
    sums = np.zeros((len(n_treated), residuals.shape[1]))
    projections = np.zeros((len(n_treated), width))
    add_treated(residuals, starts, cells, sums)
    add_treated(basis, starts, cells, projections)
    # |u|^2 is rounded relative to n_1, so a D below that is none; one cell that does not fit the
    # covariates is far above.
    denominator = np.maximum(n_treated - (projections**2).sum(axis=1), 0.0)
    varies = denominator > _NO_VARIATION * n_treated
    divisor = np.where(varies, denominator, 1.0)[:, None]
    beta = np.where(varies[:, None], sums / divisor, 0.0)
    unexplained = np.maximum(total - beta**2 * divisor, 0.0)
    se = np.where(varies[:, None], np.sqrt(unexplained / (n_cells - width - 1) / divisor), np.inf)
    t = np.divide(beta, se, out=np.copysign(np.inf, beta), where=se > 0.0)
    t[beta == 0.0] = 0.0
    return OLSStatistics(beta=beta, denominator=denominator, n_treated=n_treated, se=se, t=t)


def residualize(values: Array, basis: Array, threads: int | None = None) -> Array:
    """Return what is left of columns after projection on a basis, ``R = Y - QQ'Y``.

    Parameters
    ----------
    values : (N, K) array
    basis : (N, p) array
        Orthonormal.
    threads : int, optional
        Default all cores; never changes the numbers.

    Returns
    -------
    (N, K) array
        Orthogonal to the basis to rounding: the projection is done twice.
    """
    residuals = values.copy()
    for _ in range(2):
        _subtract(residuals, basis, cross_product(basis, residuals, threads), threads)
    return residuals


def cross_product(left: Array, right: Array, threads: int | None = None) -> Array:
    """Return ``L'R`` (p, K) of (N, p) and (N, K) arrays, the same bits for any threads."""

    def product(grain: Grain) -> Array:
        return np.asarray(left[grain.rows].T @ right[grain.rows])

    total = np.zeros((left.shape[1], right.shape[1]))
    for part in map_grains(product, 0, len(left), threads=threads):
        total += part
    return total


def residual_correlation(residuals: Array, threads: int | None = None) -> Array:
    """Return the correlation of residuals between programs; that of a constant one is 0.

    Parameters
    ----------
    residuals : (N, K) array
    threads : int, optional
        Default all cores; never changes the numbers.

    Returns
    -------
    (K, K) array

    Notes
    -----
    In blocks of cells: no second (N, K) array is made.
    """
    count = len(residuals)
    mean = cross_product(np.ones((count, 1)), residuals, threads)[0] / count
    covariance = cross_product(residuals, residuals, threads) / count - np.outer(mean, mean)
    scale = np.sqrt(np.diag(covariance))
    scale[scale == 0.0] = 1.0
    correlation = covariance / np.outer(scale, scale)
    np.fill_diagonal(correlation, 1.0)
    return np.asarray((correlation + correlation.T) / 2.0)


def _subtract(values: Array, basis: Array, coefficients: Array, threads: int | None) -> None:
    def subtract(grain: Grain) -> None:
        values[grain.rows] -= basis[grain.rows] @ coefficients

    for _ in map_grains(subtract, 0, len(values), threads=threads):
        pass
