"""Reading a result: the ``get_*`` functions, significance and sharing."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import InputError, LabelError, NotAvailableError, OptionError
from plait.mash.data import MashData
from plait.mash.results import (
    ChunkedApplyResult,
    FittedG,
    MashResult,
    PosteriorMatrices,
    TrainApplyResult,
    as_prior,
)
from plait.numerics.bivariate_normal import same_sign_probability

if TYPE_CHECKING:
    from pandas import Series

Array = NDArray[np.float64]
AnyResult = MashResult | PosteriorMatrices | TrainApplyResult | ChunkedApplyResult


def _part(m: AnyResult, name: str) -> Any:
    """Return a quantity of any kind of result, or say that it is not there."""
    if isinstance(m, TrainApplyResult):
        m = m.apply_result
    value = m.arrays.get(name) if isinstance(m, ChunkedApplyResult) else None
    if value is None:
        value = getattr(m, name, None)
    if value is None:
        raise NotAvailableError(f"{name} is not available in this result.")
    return value


def get_pm(m: AnyResult) -> Array:
    """Return the (J, R) posterior means."""
    return np.asarray(_part(m, "posterior_mean"))


def get_psd(m: AnyResult) -> Array:
    """Return the (J, R) posterior standard deviations."""
    return np.asarray(_part(m, "posterior_sd"))


def get_lfsr(m: AnyResult) -> Array:
    """Return the (J, R) local false sign rates."""
    return np.asarray(_part(m, "lfsr"))


def get_lfdr(m: AnyResult) -> Array:
    """Return the (J, R) local false discovery rates."""
    return np.asarray(_part(m, "lfdr"))


def get_np(m: AnyResult) -> Array:
    """Return the (J, R) posterior probabilities of a negative effect."""
    return np.asarray(_part(m, "negative_prob"))


def get_samples(m: AnyResult) -> Array:
    """Return the (J, R, M) posterior samples."""
    samples: Array = _part(m, "posterior_samples")
    return samples


def get_ncond(m: AnyResult) -> int:
    """Return the number of conditions."""
    return int(get_pm(m).shape[1])


def get_fitted_g(m: AnyResult) -> Any:
    """Return the fitted prior."""
    return _part(m, "fitted_g")


def get_loglik(m: AnyResult) -> float:
    """Return the log-likelihood."""
    return float(_part(m, "loglik"))


def get_log10bf(m: AnyResult) -> Array | None:
    """Return the (J,) log10 Bayes factors of any effect against none; None without a null.

    Notes
    -----
    The alternative is the fitted mixture without its null component (spec section 10).
    """
    try:
        null = np.asarray(_part(m, "null_loglik"))
    except NotAvailableError:
        return None
    result: Array = (np.asarray(_part(m, "alt_loglik")) - null) / np.log(10)
    return result


def _columns(m: AnyResult, values: Array, conditions: Any) -> NDArray[np.intp]:
    """Return column numbers of conditions given by number or name."""
    width = values.shape[1]
    if conditions is None:
        return np.arange(width)
    whole = m.apply_result if isinstance(m, TrainApplyResult) else m
    names: tuple[str, ...] = getattr(whole, "condition_names", None) or ()
    chosen = []
    for condition in [conditions] if isinstance(conditions, (str, int)) else conditions:
        if isinstance(condition, str):
            if condition not in names:
                known = ", ".join(names) if names else "not named"
                raise LabelError(f"there is no condition {condition!r}; they are {known}.")
            chosen.append(names.index(condition))
        elif not 0 <= condition < width:
            raise InputError(f"there is no condition {condition}; give 0 to {width - 1}.")
        else:
            chosen.append(int(condition))
    if not chosen:
        raise InputError("conditions is empty.")
    return np.asarray(chosen, dtype=np.intp)


def get_significant_results(
    m: AnyResult,
    thresh: float = 0.05,
    conditions: Sequence[int | str] | None = None,
    sig_fn: Callable[[Any], Array] = get_lfsr,
) -> NDArray[np.intp]:
    """Return the rows significant in at least one condition, the most significant first.

    Parameters
    ----------
    m : result
    thresh : float
        A row counts when its smallest rate is below this.
    conditions : sequence of column numbers or names, optional
        Default all.
    sig_fn : callable
        `get_lfsr` (default), `get_lfdr` or another function of the result.
    """
    values = sig_fn(m)
    smallest = values[:, _columns(m, values, conditions)].min(axis=1)
    rows = np.flatnonzero(smallest < thresh)
    return rows[np.argsort(smallest[rows], kind="stable")]


def get_n_significant_conditions(
    m: AnyResult,
    thresh: float = 0.05,
    conditions: Sequence[int | str] | None = None,
    sig_fn: Callable[[Any], Array] = get_lfsr,
) -> NDArray[np.intp]:
    """Return the (J,) numbers of conditions in which each effect is significant."""
    values = sig_fn(m)
    counts: NDArray[np.intp] = np.sum(values[:, _columns(m, values, conditions)] < thresh, axis=1)
    return counts


def get_estimated_pi(m: AnyResult | FittedG, dimension: str = "cov") -> "Series[float]":
    """Return the fitted mixture weights, summed by covariance matrix, by grid value, or all.

    Parameters
    ----------
    m : result or FittedG
    dimension : {"cov", "grid", "all"}

    Returns
    -------
    pandas.Series
        Labelled ``null`` and the covariance names, the grid numbers from 1, or both joined.
    """
    import pandas as pd

    prior = m if isinstance(m, FittedG) else as_prior_of(m)
    start = int(prior.usepointmass)
    table = prior.pi[start:].reshape(len(prior.grid), len(prior.Ulist))
    if dimension == "all":
        return pd.Series(np.array(prior.pi), index=prior.components.names)
    if dimension == "cov":
        values, names = table.sum(axis=0), list(prior.Ulist)
    elif dimension == "grid":
        values, names = table.sum(axis=1), [str(g + 1) for g in range(len(prior.grid))]
    else:
        raise OptionError(f"dimension is {dimension!r}; choose 'cov', 'grid' or 'all'.")
    null = ["null"] if prior.usepointmass else []
    return pd.Series(np.concatenate([prior.pi[:start], values]), index=null + names)


def as_prior_of(m: AnyResult) -> FittedG:
    """Return the fitted prior of any result, refusing those that have none of their own."""
    prior = get_fitted_g(m)
    if not isinstance(prior, FittedG):
        raise NotAvailableError("a mixture over covariances is not available in this result.")
    return as_prior(prior)


def _identity(values: Array) -> Array:
    return values


def _significant_pairs(m: AnyResult, thresh: float) -> NDArray[np.bool_]:
    return get_lfsr(m) < thresh


def get_pairwise_sharing(
    m: AnyResult,
    factor: float = 0.5,
    lfsr_thresh: float = 0.05,
    FUN: Callable[[Array], Array] = _identity,
) -> Array:
    """Return how often two conditions have similar effects, among effects significant in either.

    Parameters
    ----------
    m : result
    factor : float
        Effects are similar when their ratio is between ``factor`` and ``1 / factor``; 0 asks for
        the same sign only.
    lfsr_thresh : float
    FUN : callable
        Applied to the posterior means first; ``np.abs`` compares magnitudes alone.

    Returns
    -------
    (R, R) array
        Symmetric; NaN where no effect is significant in either condition.
    """
    if not 0 <= factor <= 1:
        raise OptionError(f"factor is {factor:g}; it must be from 0 to 1.")
    significant = _significant_pairs(m, lfsr_thresh)
    values = np.asarray(FUN(get_pm(m)), dtype=np.float64)
    return _sharing(values, significant, factor)


def _sharing(values: Array, significant: NDArray[np.bool_], factor: float) -> Array:
    width = values.shape[1]
    upper = np.inf if factor == 0 else 1 / factor
    result = np.full((width, width), np.nan)
    for i in range(width):
        either = significant[:, i, None] | significant[:, i:]
        # 0/0 is not a similarity: the comparison with NaN is false, as it should be.
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = values[:, i, None] / values[:, i:]
        shared = (ratio > factor) & (ratio < upper) & either
        counts = either.sum(axis=0)
        with np.errstate(invalid="ignore"):
            result[i, i:] = np.where(counts > 0, shared.sum(axis=0) / counts, np.nan)
        result[i:, i] = result[i, i:]
    return result


def get_pairwise_sharing_from_samples(
    m: AnyResult,
    factor: float = 0.5,
    lfsr_thresh: float = 0.05,
    FUN: Callable[[Array], Array] = _identity,
) -> Array:
    """Return `get_pairwise_sharing` with posterior uncertainty: averaged over posterior draws.

    Raises
    ------
    NotAvailableError
        The result holds no posterior samples.
    """
    significant = _significant_pairs(m, lfsr_thresh)
    rows = np.flatnonzero(significant.any(axis=1))
    samples = np.asarray(FUN(get_samples(m)[rows]), dtype=np.float64)
    significant = significant[rows]
    width = significant.shape[1]
    upper = np.inf if factor == 0 else 1 / factor
    result = np.full((width, width), np.nan)
    for i in range(width):
        for j in range(i, width):
            either = significant[:, i] | significant[:, j]
            if not either.any():
                continue
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = samples[either, i] / samples[either, j]
            shared = (ratio > factor) & (ratio < upper)
            result[i, j] = result[j, i] = shared.mean(axis=1).mean()
    return result


def pairwise_sharing_prob(
    m: AnyResult, data: MashData, factor: float = 0.5, lfsr_thresh: float = 0.05
) -> dict[str, Array]:
    """Return posterior probabilities of sharing, averaged over effects significant in either.

    Parameters
    ----------
    m : MashResult or other result with a fitted prior
    data : MashData
        The data of the result.
    factor : float
        Effects are similar when their ratio is between ``factor`` and ``1 / factor``.
    lfsr_thresh : float

    Returns
    -------
    dict
        ``same_sign`` and ``in_band``, symmetric (R, R) arrays; NaN where no effect is significant.

    Notes
    -----
    Exact: the posterior of a pair is a mixture of bivariate normals; ``factor < x/y < 1/factor``
    says that ``x - factor y`` and ``y - factor x`` have the same sign.
    """
    from plait.mash.data import subset_mash_data

    if not 0 <= factor < 1:
        raise OptionError(f"factor is {factor:g}; it must be in [0, 1).")
    significant = _significant_pairs(m, lfsr_thresh)
    rows = np.flatnonzero(significant.any(axis=1))
    width = significant.shape[1]
    result = {name: np.full((width, width), np.nan) for name in ("same_sign", "in_band")}
    if len(rows) == 0:
        return result
    parts = list(_components(as_prior_of(m), subset_mash_data(data, rows)))
    for i in range(width):
        for j in range(i, width):
            either = (significant[rows, i] | significant[rows, j]).nonzero()[0]
            if len(either) == 0:
                continue
            for name, map_ in (
                ("same_sign", np.eye(2)),
                ("in_band", np.array([[1.0, -factor], [-factor, 1.0]])),
            ):
                total = 0.0
                for weight, mean, cov in parts:
                    pair = np.ix_(either, [i, j])
                    square = cov[either][:, [i, j]][:, :, [i, j]]
                    shared = same_sign_probability(mean[pair] @ map_.T, map_ @ square @ map_.T)
                    total += float(weight[either] @ shared)
                result[name][i, j] = result[name][j, i] = total / len(either)
    return result


def _components(prior: FittedG, data: MashData) -> Iterator[tuple[Array, Array, Array]]:
    """Yield the responsibility, mean and covariance of every component that matters."""
    from plait.mash.model import mash, mash_compute_posterior_matrices

    fit = mash(data, g=prior, fixg=True, outputlevel=1)
    if fit.posterior_weights is None or fit.component_index is None:
        raise NotAvailableError("posterior_weights is not available in this result.")
    for weight, p in zip(fit.posterior_weights.T, fit.component_index, strict=True):
        if weight.max() < 1e-12:
            continue
        alone = np.zeros(len(prior.pi))
        alone[p] = 1.0
        found = mash_compute_posterior_matrices(
            replace(prior, pi=alone), data, output_posterior_cov=True
        )
        if found.posterior_cov is not None:
            yield weight, found.posterior_mean, found.posterior_cov


def get_posterior_condition_wise_summary(
    data: MashData, m: AnyResult, A: ArrayLike
) -> PosteriorMatrices:
    """Return the posterior of ``A b`` under a finished fit.

    Parameters
    ----------
    data : MashData
    m : result with a fitted prior
    A : (Q, R) array
        One contrast of the conditions per row.
    """
    from plait.mash.model import mash_compute_posterior_matrices

    return mash_compute_posterior_matrices(as_prior_of(m), data, A=A)
