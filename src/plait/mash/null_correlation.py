"""The correlation of the errors, estimated from effects that are (nearly) null."""

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

from plait.errors import InputError, ModelWarning, OptionError
from plait.mash.data import MashData, mash_update_data
from plait.mash.model import mash
from plait.mash.posterior import correlation_from_moment, error_second_moment
from plait.mash.results import MashResult, as_prior
from plait.numerics.bivariate_normal import bivariate_normal_cdf
from plait.numerics.linalg import cov_to_cor, project_positive_definite, symmetrise

Array = NDArray[np.float64]


def estimate_null_correlation_simple(
    data: MashData,
    z_thresh: float = 2.0,
    est_cor: bool = True,
    on_insufficient_null: str = "error",
    v_ridge: float = 0.0,
    method: str = "simple",
) -> Array:
    """Estimate the correlation of the errors from effects without a large z-score.

    Parameters
    ----------
    data : MashData
    z_thresh : float
        Effects with ``max |z|`` below this count as null.
    est_cor : bool
        Return a correlation; otherwise the covariance of the z-scores.
    on_insufficient_null : {"error", "identity", "all"}
        With fewer null effects than conditions: raise, return the identity, or use all effects.
    v_ridge : float
        Added to the diagonal.
    method : {"simple", "truncated_ml"}
        ``"simple"`` is the sample covariance, shrunk by the selection of small z-scores;
        ``"truncated_ml"`` fits each pair's truncated bivariate normal, which is not.

    Returns
    -------
    (R, R) array

    Notes
    -----
    Missing cells are left out pair by pair, and the result is then made positive definite.
    """
    if method not in ("simple", "truncated_ml"):
        raise OptionError(f"method is {method!r}; choose 'simple' or 'truncated_ml'.")
    z, missing = data.Bhat / data.Shat, data.missing_mask
    largest = np.abs(z if missing is None else np.where(missing, 0.0, z)).max(axis=1)
    null = largest < z_thresh
    if missing is not None:
        null &= ~missing.all(axis=1)
    width = data.n_conditions
    if null.sum() < width:
        null = _too_few(int(null.sum()), width, z_thresh, on_insufficient_null, len(z))
        if not null.any():
            return np.eye(width)
    observed = None if missing is None else ~missing[null]
    if method == "truncated_ml":
        V = _truncated_correlations(z[null], observed, z_thresh)
    else:
        V = _pairwise_covariance(z[null], observed)
        if est_cor:
            V = cov_to_cor(V)
    if observed is not None:
        V = project_positive_definite(V)
    return V + v_ridge * np.eye(width)


def _too_few(found: int, width: int, z_thresh: float, choice: str, n: int) -> NDArray[np.bool_]:
    text = f"not enough null effects: {found} have every |z| < {z_thresh:g}, {width} are needed"
    if choice == "error":
        raise InputError(
            f"{text}. Raise z_thresh, or choose on_insufficient_null='identity' or 'all'."
        )
    if choice not in ("identity", "all"):
        raise OptionError(
            f"on_insufficient_null is {choice!r}; choose 'error', 'identity' or 'all'."
        )
    taken = "the identity is returned" if choice == "identity" else "all effects are used"
    warnings.warn(f"{text}; {taken}.", ModelWarning, stacklevel=3)
    return np.full(n, choice == "all")


def _pairwise_covariance(z: Array, observed: NDArray[np.bool_] | None) -> Array:
    """Return the sample covariance, of the rows in which both conditions were measured."""
    if observed is None:
        return np.atleast_2d(np.cov(z, rowvar=False))
    width = z.shape[1]
    result = np.eye(width)
    for i in range(width):
        for j in range(i, width):
            both = observed[:, i] & observed[:, j]
            if both.sum() > 1:
                result[i, j] = result[j, i] = np.cov(z[both, i], z[both, j])[0, 1]
    return result


def _truncated_correlations(z: Array, observed: NDArray[np.bool_] | None, bound: float) -> Array:
    """Return pairwise maximum-likelihood correlations of normals truncated to ``|z| < bound``."""
    width = z.shape[1]
    result = np.eye(width)
    for i in range(width):
        for j in range(i + 1, width):
            both = slice(None) if observed is None else observed[:, i] & observed[:, j]
            x, y = z[both, i], z[both, j]
            if len(x) > 2:
                result[i, j] = result[j, i] = _truncated_correlation(x, y, bound)
    return project_positive_definite(result)


def _truncated_correlation(x: Array, y: Array, bound: float) -> float:
    n, squares, products = len(x), float(x @ x + y @ y), float(x @ y)

    def negative(rho: float) -> float:
        rest = 1 - rho**2
        corners = bivariate_normal_cdf([bound, bound], [bound, -bound], rho)
        # P(|X| < b, |Y| < b) by symmetry of the two pairs of opposite corners.
        inside = 2 * float(corners[0] - corners[1]) - (2 * _phi(bound) - 1)
        size = n * (np.log(max(inside, 1e-300)) + 0.5 * np.log(rest))
        return float(size + (squares - 2 * rho * products) / (2 * rest))

    found = minimize_scalar(negative, bounds=(-0.999, 0.999), method="bounded")
    return float(np.asarray(found.x))


def _phi(x: float) -> float:
    from scipy.special import ndtr

    return float(ndtr(x))


@dataclass(frozen=True, eq=False)
class NullCorrelationFit:
    """Outcome of `mash_estimate_corr_em`.

    Attributes
    ----------
    V : (R, R) array
    mash_model : MashResult
        The fit under V.
    loglik : (niter,) array
        Log-likelihoods of the initial and every accepted V.
    niter : int
    trace : list of (R, R) arrays
        With ``track_fit``, the accepted V.
    """

    V: Array
    mash_model: MashResult
    loglik: Array
    niter: int
    trace: list[Array] = field(default_factory=list)


def mash_estimate_corr_em(
    data: MashData,
    Ulist: Any,
    init: ArrayLike | None = None,
    max_iter: int = 30,
    tol: float = 1.0,
    est_cor: bool = True,
    track_fit: bool = False,
    prior: str | ArrayLike = "nullbiased",
    details: bool = True,
    **mash_kwargs: Any,
) -> NullCorrelationFit | Array:
    """Estimate the correlation of the errors by EM, using the sharing that mash learns.

    Parameters
    ----------
    data : MashData
        Without a contrast.
    Ulist : dict or list of (R, R) arrays
    init : (R, R) array, optional
        Default `estimate_null_correlation_simple`, or the identity if that fails.
    max_iter : int
    tol : float
        Stop when the log-likelihood gains no more than this.
    est_cor : bool
        Keep V a correlation matrix.
    track_fit : bool
        Keep every accepted V.
    prior : str or array
        As in `mash`, as are further keyword arguments.
    details : bool
        Return a `NullCorrelationFit`; otherwise V alone.

    Notes
    -----
    Yang, Carbonetto and Stephens (2022). The second moment of the errors is accumulated on the
    fly, R x R; missing cells left out of the likelihood are completed by their expectation.
    The monitored log-likelihood is not penalised, so a small decrease is normal: it ends the
    iteration and the previous V is kept.
    """
    if data.L is not None:
        raise OptionError("the error correlation cannot be estimated from contrasts.")
    V = _initial(data) if init is None else np.asarray(init, dtype=np.float64)
    options = {"chunk_size": None, **mash_kwargs, "prior": prior}
    data = mash_update_data(data, V=V)
    model = mash(data, Ulist, outputlevel=1, **options)
    path, trace = [model.loglik], [V]
    for _ in range(max_iter):
        fitted = as_prior(model)
        moment, count = error_second_moment(data, fitted.components, fitted.pi)
        proposal = symmetrise(correlation_from_moment(moment, count, est_cor))
        candidate = mash_update_data(data, V=proposal)
        refit = mash(candidate, Ulist, outputlevel=1, **options)
        gain = refit.loglik - path[-1]
        if gain < 0:
            break
        V, data, model = proposal, candidate, refit
        path.append(model.loglik)
        trace.append(V)
        if gain <= tol:
            break
    if not details:
        return V
    final = mash(data, g=model, fixg=True, outputlevel=2, chunk_size=None)
    return NullCorrelationFit(
        V, _with_optim(final, model), np.array(path), len(path), trace if track_fit else []
    )


def _initial(data: MashData) -> Array:
    try:
        return estimate_null_correlation_simple(data)
    except InputError as error:
        warnings.warn(f"{error} EM starts from the identity.", ModelWarning, stacklevel=3)
        return np.eye(data.n_conditions)


def _with_optim(final: MashResult, fitted: MashResult) -> MashResult:
    """Return the posterior of the last fit with the optimiser's own report."""
    from dataclasses import replace

    return replace(final, optim=fitted.optim)
