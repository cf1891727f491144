"""The correlation of the errors, estimated from effects that are (nearly) null."""

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import ndtr

from plait.errors import InputError, ModelWarning, OptionError
from plait.execution.blocks import Block
from plait.execution.executors import Workforce, workforce
from plait.execution.threads import single_threaded_blas, use_threads
from plait.io.result import Result
from plait.mash.checks import regularize_cov
from plait.mash.data import MashData, mash_update_data, subset_mash_data
from plait.mash.model import mash
from plait.mash.posterior import correlation_from_moment, error_second_moment
from plait.mash.results import MashResult, as_prior
from plait.mash.stored import StoredData, units_of
from plait.numerics.bivariate_normal import bivariate_normal_cdf
from plait.numerics.linalg import project_positive_definite, symmetrise
from plait.provenance import Provenance

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


def estimate_null_correlation_simple(
    data: MashData | StoredData,
    z_thresh: float = 2.0,
    est_cor: bool = True,
    on_insufficient_null: str = "error",
    v_ridge: float = 0.0,
    method: str = "simple",
    *,
    executor: Any = None,
    memory: int | str | None = None,
    threads: int | None = None,
) -> Array:
    """Estimate the correlation of the errors from effects without a large z-score.

    Parameters
    ----------
    data : MashData or StoredData
    z_thresh : float
        Effects with ``max |z|`` below this count as null.
    est_cor : bool
        Return a correlation; otherwise the covariance of the z-scores.
    on_insufficient_null : {"error", "identity", "all"}
        With fewer null effects than conditions: raise, return the identity, or use all effects.
    v_ridge : float
        Added to the diagonal (of a correlation, which is then rescaled to a unit diagonal).
    method : {"simple", "truncated_ml"}
        ``"simple"`` is the sample covariance of the null effects: selecting small z-scores shrinks
        its correlations, the more the more conditions there are. ``"truncated_ml"`` fits a
        truncated bivariate normal to the effects that are small in both conditions of a pair,
        which undoes the selection.
    executor, memory, threads
        Who looks through data in a store, as in `mash_open_data`.

    Returns
    -------
    (R, R) array

    Raises
    ------
    InputError
        There are not enough null effects, or an option is unknown.

    Notes
    -----
    Missing cells are left out pair by pair, and the result is then made positive definite. Cost
    O(J R^2); memory O(R^2) beyond the data.
    """
    if method not in ("simple", "truncated_ml"):
        raise OptionError(f"method is {method!r}; choose 'simple' or 'truncated_ml'.")
    if method == "truncated_ml" and not est_cor:
        raise OptionError("method='truncated_ml' estimates a correlation; est_cor must be True.")
    if not z_thresh > 0:
        raise OptionError(f"z_thresh is {z_thresh:g}; it must be positive.")
    force = workforce(executor, memory, threads)
    sums = _moments(data, partial(_choose, method, z_thresh), force)
    found = int(sums.count.min()) if method == "truncated_ml" else sums.n_effects
    if found < data.n_conditions:
        if not _use_all(found, data.n_conditions, z_thresh, on_insufficient_null):
            return np.eye(data.n_conditions)
        method, sums = "simple", _moments(data, _everything, force)
    if method == "truncated_ml":
        V = _truncated_correlations(sums, z_thresh)
    else:
        V = _sample_covariance(sums, est_cor)
    if method == "truncated_ml" or sums.is_pairwise:
        V = project_positive_definite(V)
    return V if v_ridge == 0 else regularize_cov(V, v_ridge, to_correlation=est_cor)


@dataclass(frozen=True, eq=False)
class _Moments:
    """Sums over the effects that count in both conditions of each pair.

    Attributes
    ----------
    n_effects : int
        Effects that count in at least one condition.
    is_pairwise : bool
        Whether some of them do not count in every condition.
    count, total, square, product : (R, R) arrays
        Of 1, z_i, z_i^2 and z_i z_j.
    """

    n_effects: int
    is_pairwise: bool
    count: Array
    total: Array
    square: Array
    product: Array

    @classmethod
    def of(cls, z: Array, seen: Flags) -> "_Moments":
        use, values = seen.astype(np.float64), np.where(seen, z, 0.0)
        some = seen.any(axis=1)
        return cls(
            int(some.sum()),
            bool((some & ~seen.all(axis=1)).any()),
            use.T @ use,
            values.T @ use,
            (values**2).T @ use,
            values.T @ values,
        )

    def plus(self, other: "_Moments") -> "_Moments":
        return _Moments(
            self.n_effects + other.n_effects,
            self.is_pairwise or other.is_pairwise,
            self.count + other.count,
            self.total + other.total,
            self.square + other.square,
            self.product + other.product,
        )


Choice = Callable[[Array, Flags], Flags]


def _choose(method: str, z_thresh: float, z: Array, observed: Flags) -> Flags:
    """Return which cells count: pair by pair, or of effects that are small throughout."""
    small = np.abs(z) < z_thresh
    if method == "truncated_ml":
        return small & observed
    null: Flags = np.all(small | ~observed, axis=1, keepdims=True)
    return observed & null


def _everything(z: Array, observed: Flags) -> Flags:
    return observed


def _moments(data: MashData | StoredData, choose: Choice, force: Workforce) -> _Moments:
    """Sum over all effects, unit by unit and in order."""
    if isinstance(data, StoredData):
        blocks = data.map_blocks(partial(_block_moments, data, choose), force, "error correlation")
        return reduce(_Moments.plus, (part for _, found in blocks for part in found))
    units = (subset_mash_data(data, rows) for rows in units_of(data))
    with single_threaded_blas():
        return reduce(_Moments.plus, (_part_moments(unit, choose) for unit in units))


def _block_moments(data: StoredData, choose: Choice, block: Block) -> list[_Moments]:
    return [_part_moments(data.read(rows, labelled=False), choose) for rows in data.units(block)]


def _part_moments(part: MashData, choose: Choice) -> _Moments:
    z = part.Bhat / part.Shat
    return _Moments.of(z, choose(z, _observed(part)))


def _observed(data: MashData) -> Flags:
    """Return which z-scores were measured; a contrast needs all conditions that it compares."""
    if data.missing_mask is None:
        return np.ones(data.Bhat.shape, dtype=bool)
    if data.L is None:
        return ~data.missing_mask
    involved: Flags = data.missing_mask.astype(np.float64) @ np.abs(data.L).T == 0
    return involved


def _use_all(found: int, width: int, z_thresh: float, choice: str) -> bool:
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
    return choice == "all"


def _sample_covariance(sums: _Moments, est_cor: bool) -> Array:
    """Return the sample covariance (or correlation); pair by pair where cells are missing."""
    enough = sums.count > 1
    count = np.where(enough, sums.count, 2.0)
    covariance = (sums.product - sums.total * sums.total.T / count) / (count - 1)
    variance = (sums.square - sums.total**2 / count) / (count - 1)
    if not est_cor:
        return np.where(enough, covariance, np.eye(len(count)))
    scale = np.sqrt(variance * variance.T)
    correlation = np.where(enough & (scale > 0), covariance / np.where(scale > 0, scale, 1), 0.0)
    np.fill_diagonal(correlation, 1.0)
    return correlation


def _truncated_correlations(sums: _Moments, bound: float) -> Array:
    """Return pairwise maximum-likelihood correlations of normals truncated to ``|z| < bound``.

    A pair is selected by its own two z-scores alone: selecting by the other conditions too would
    truncate it in a way that the bivariate likelihood does not know of.
    """
    width = len(sums.count)
    squares = sums.square + sums.square.T
    result = np.eye(width)
    for i in range(width):
        for j in range(i + 1, width):
            result[i, j] = result[j, i] = _truncated_correlation(
                float(sums.count[i, j]), float(squares[i, j]), float(sums.product[i, j]), bound
            )
    return result


def _truncated_correlation(n: float, squares: float, products: float, bound: float) -> float:
    def negative(rho: float) -> float:
        rest = 1 - rho**2
        corners = bivariate_normal_cdf([bound, bound], [bound, -bound], rho)
        # P(|X| < b, |Y| < b) by symmetry of the two pairs of opposite corners.
        inside = 2 * float(corners[0] - corners[1]) - (2 * float(ndtr(bound)) - 1)
        normalised = np.log(max(inside, 1e-300)) + 0.5 * np.log(rest)
        return float(n * normalised + (squares - 2 * rho * products) / (2 * rest))

    return float(minimize_scalar(negative, bounds=(-0.999, 0.999), method="bounded").x)


@dataclass(frozen=True, eq=False, repr=False)
class NullCorrelationFit(Result):
    """Outcome of `mash_estimate_corr_em`.

    Attributes
    ----------
    V : (R, R) array
    mash_model : MashResult
        The fit under V.
    loglik : (niter,) array
        Log-likelihoods of the initial and every accepted V.
    niter : int
    trace : (niter, R, R) array or None
        With ``track_fit``, the initial and every accepted V.
    condition_names : tuple of str or None
    """

    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "V": ("contexts", "contexts"),
        "loglik": ("iterations",),
        "trace": ("iterations", "contexts", "contexts"),
    }
    label_fields: ClassVar[Mapping[str, str]] = {"contexts": "condition_names"}
    frame_dims: ClassVar[tuple[str, ...]] = ("iterations",)

    V: Array
    mash_model: MashResult
    loglik: Array
    niter: int
    trace: Array | None = None
    condition_names: tuple[str, ...] | None = None
    provenance: Provenance | None = None


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
        Without a contrast. Its own V, if it has one, is not used.
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

    Returns
    -------
    NullCorrelationFit or (R, R) array

    Raises
    ------
    OptionError
        The data are contrasts, or ``max_iter`` is negative.

    Notes
    -----
    Yang, Carbonetto and Stephens (2022). The second moment of the errors is accumulated on the
    fly, R x R. Missing cells are left out of the likelihood and completed by their expectation,
    unless the data were made with ``missing="large_se"``: that counts them as errors of zero, which
    biases V towards the identity. The cost is that of a `mash` fit per iteration.
    The monitored log-likelihood is not penalised, so a small decrease is normal: it ends the
    iteration and the previous V is kept.
    """
    if data.L is not None:
        raise OptionError("the error correlation cannot be estimated from contrasts.")
    started = time.perf_counter()
    if max_iter < 0:
        raise OptionError(f"max_iter is {max_iter}; it cannot be negative.")
    data = _without_filled_cells(data)
    V = _initial(data) if init is None else np.asarray(init, dtype=np.float64)
    outputs = {name: mash_kwargs.pop(name) for name in _OUTPUTS & set(mash_kwargs)}
    options = {"chunk_size": None, **mash_kwargs, "prior": prior, "outputlevel": 1}
    data = mash_update_data(data, V=V)
    with use_threads(mash_kwargs.get("n_jobs")), single_threaded_blas():
        model = mash(data, Ulist, **options)
        path, trace = [model.loglik], [V]
        for _ in range(max_iter):
            fitted = as_prior(model)
            moment, count = error_second_moment(data, fitted.components, fitted.pi)
            proposal = symmetrise(correlation_from_moment(moment, count, est_cor))
            candidate = mash_update_data(data, V=proposal)
            refit = mash(candidate, Ulist, **options)
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
    final = mash(data, g=model, fixg=True, n_jobs=mash_kwargs.get("n_jobs"), **outputs)
    # The weights were found in the last fit: its certificate belongs to the result.
    final = replace(final, optim=model.optim)
    return NullCorrelationFit(
        V,
        final,
        np.array(path),
        len(path),
        np.stack(trace) if track_fit else None,
        data.condition_names,
        Provenance(
            "mash_estimate_corr_em",
            options={"max_iter": max_iter, "tol": tol, "est_cor": est_cor},
            seconds=time.perf_counter() - started,
        ),
    )


_OUTPUTS = {"A", "outputlevel", "output_lfdr", "pi_thresh", "posterior_samples", "seed"}


def _without_filled_cells(data: MashData) -> MashData:
    """Leave missing cells out of the likelihood from the first fit on, unless told otherwise.

    Were it left to the V of the moment, a start at the identity would compare log-likelihoods of
    different data.
    """
    if data.missing_mask is None or data.missing == "exact":
        return data
    if data.missing_chosen:
        warnings.warn(
            "missing='large_se' counts missing cells as errors of zero, which biases their "
            "correlation towards zero; missing='exact' does not.",
            ModelWarning,
            stacklevel=3,
        )
        return data
    errors = np.where(data.missing_mask, 1.0, data.Shat)
    errors.flags.writeable = False
    return replace(data, Shat=errors, missing="exact", missing_chosen=True)


def _initial(data: MashData) -> Array:
    try:
        return estimate_null_correlation_simple(data)
    except InputError as error:
        warnings.warn(f"{error} EM starts from the identity.", ModelWarning, stacklevel=3)
        return np.eye(data.n_conditions)
