"""Truncated-eigenvalue EM (TEEM): data-driven covariance matrices from z-scores.

With errors ``N(0, I)`` the marginal covariance of a component is ``T_k = U_k + I``; its M-step is
the weighted second moment of the z-scores with eigenvalues raised to 1 (Won, Lim, Kim and
Rajaratnam 2013). Unlike extreme deconvolution it may change the rank of a matrix.
"""

import time
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import ConvergenceWarning, DataWarning, InputError, OptionError, ShapeError
from plait.execution.progress import stage
from plait.mash.covariances import check_Ulist
from plait.mash.data import MashData
from plait.mash.deconvolution_iteration import Progress
from plait.mash.deconvolution_rows import CommonErrors, scatter_expectation
from plait.numerics.linalg import cholesky, is_identity

Array = NDArray[np.float64]


def teem(
    data: MashData,
    Ulist_init: Mapping[str, ArrayLike] | Iterable[ArrayLike],
    w_init: ArrayLike | None = None,
    maxiter: int = 5000,
    converge_tol: float = 1e-7,
    eigen_tol: float = 1e-7,
    whiten: bool = False,
    details: bool = False,
    max_seconds: float | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
) -> Any:
    """Fit a mixture of normals to z-scores by truncated-eigenvalue EM.

    The model is ``z_j ~ sum_k w_k N(0, U_k + I)`` with ``z_j = bhat_j / shat_j``.

    Parameters
    ----------
    data : MashData
        With uncorrelated errors, unless ``whiten``. Missing cells must be filled
        (``missing="large_se"``); they then count as z-scores of zero.
    Ulist_init : dict or list of (R, R) arrays
        Starting values on the scale of z-scores.
    w_init : (K,) array, optional
        Starting weights, scaled to sum 1. Default equal.
    maxiter : int
    converge_tol : float
        Stop when no weight changes by this much.
    eigen_tol : float
        Eigenvalues of ``U_k + I`` at most 1 become ``1 + eigen_tol``.
    whiten : bool
        Multiply z-scores by the inverse Cholesky factor of V and map the matrices back.
    details : bool
        Return the whole fit.
    max_seconds, progress, threads
        As in `cov_ed`; ``progress`` gets the log-likelihood.

    Returns
    -------
    dict of str to (R, R) array, or with ``details`` a dict of ``Ulist``, ``w`` (K,), ``objective``
    (log-likelihood after each iteration), ``maxd`` (largest change of a weight in each), ``niter``
    and ``converged``

    Raises
    ------
    InputError
        The errors are correlated and ``whiten`` is False, or cells are missing and marginalised.
    OptionError
        ``w_init``, a tolerance or ``maxiter`` is out of range.

    Notes
    -----
    Cost per iteration: 4 J K R^2 flops. Memory: the (J, R) z-scores.
    """
    starts = check_Ulist(Ulist_init, data.n_conditions)
    factor = _whitening_factor(data, whiten)
    weights = _start_weights(w_init, len(starts))
    if not (converge_tol >= 0 and eigen_tol >= 0 and int(maxiter) >= 1):
        raise OptionError(
            "converge_tol and eigen_tol must not be negative, and maxiter at least 1."
        )
    z = data.Bhat / data.Shat
    totals = np.stack(list(starts.values()))
    if factor is not None:
        inverse = np.linalg.inv(factor)
        z, totals = z @ inverse.T, inverse @ totals @ inverse.T
    identity = np.eye(data.n_conditions)
    rows = CommonErrors(z, np.zeros_like(identity))
    fit = _iterate(
        rows,
        weights,
        totals + identity,
        (int(maxiter), converge_tol, eigen_tol),
        max_seconds,
        progress,
        threads,
    )
    covariances = fit.pop("totals") - identity
    if factor is not None:
        covariances = factor @ covariances @ factor.T
    covariances = 0.5 * (covariances + covariances.transpose(0, 2, 1))
    fit["Ulist"] = dict(zip(starts, covariances, strict=True))
    return fit if details else fit["Ulist"]


def _iterate(
    rows: CommonErrors,
    weights: Array,
    totals: Array,
    limits: tuple[int, float, float],
    max_seconds: float | None,
    progress: Progress | None,
    threads: int | None,
) -> dict[str, Any]:
    maxiter, converge_tol, eigen_tol = limits
    objective: list[float] = []
    changes: list[float] = []
    converged = False
    started = time.monotonic()
    with stage("truncated-eigenvalue EM", maxiter) as advance:
        _, n, scatter = scatter_expectation(rows, weights, totals, threads)
        while len(objective) < maxiter and not converged:
            totals = _raise_eigenvalues(totals, n, scatter, eigen_tol)
            before, weights = weights, n / rows.n_rows
            value, n, scatter = scatter_expectation(rows, weights, totals, threads)
            objective.append(value)
            changes.append(float(np.abs(weights - before).max()))
            converged = changes[-1] < converge_tol
            if progress is not None:
                progress(len(objective), value)
            advance(1, f"log-likelihood {value:.4f}")
            if max_seconds is not None and time.monotonic() - started >= max_seconds:
                break
    if not converged and converge_tol > 0:
        warnings.warn(
            f"TEEM stopped after {len(objective)} iterations while a weight still changed by "
            f"{changes[-1]:.2g} (converge_tol={converge_tol:g}).",
            ConvergenceWarning,
            stacklevel=4,
        )
    return {
        "totals": totals,
        "w": weights,
        "objective": np.array(objective),
        "maxd": np.array(changes),
        "niter": len(objective),
        "converged": converged,
    }


def _raise_eigenvalues(totals: Array, n: Array, scatter: Array, eigen_tol: float) -> Array:
    """Return the M-step; a component without responsibility keeps its matrix."""
    alive = n > 0
    moments = scatter / np.where(alive, n, 1.0)[:, None, None]
    values, vectors = np.linalg.eigh(moments)
    values = np.where(values <= 1.0, 1.0 + eigen_tol, values)
    raised = (vectors * values[:, None, :]) @ vectors.transpose(0, 2, 1)
    return np.where(alive[:, None, None], raised, totals)


def _whitening_factor(data: MashData, whiten: bool) -> Array | None:
    V = data.V if data.L is None else data.LSVSLt
    assert V is not None
    if data.missing_mask is not None:
        if data.missing == "exact":
            raise InputError(
                "TEEM cannot marginalise missing cells: use algorithm='bovy', or data made with "
                "missing='large_se'."
            )
        warnings.warn(
            f"TEEM takes the {int(data.missing_mask.sum())} missing cells for z-scores of zero, "
            "which draws the matrices towards zero; algorithm='bovy' leaves them out.",
            DataWarning,
            stacklevel=4,
        )
    if V.ndim == 2 and is_identity(V):
        return None
    if not whiten:
        raise InputError(
            "TEEM assumes uncorrelated errors (V the identity), and these are correlated: use "
            "algorithm='bovy', or whiten=True."
        )
    if V.ndim == 3:
        raise InputError("whiten=True needs one error correlation common to all effects.")
    return cholesky(V, "V")


def _start_weights(w_init: ArrayLike | None, count: int) -> Array:
    if w_init is None:
        return np.full(count, 1.0 / count)
    weights = np.array(w_init, dtype=np.float64)
    if weights.shape != (count,):
        raise ShapeError(f"w_init has wrong length: {weights.shape} for {count} matrices.")
    if not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() == 0:
        raise OptionError("w_init must not be negative and must have a positive sum.")
    normalised: Array = weights / weights.sum()
    return normalised
