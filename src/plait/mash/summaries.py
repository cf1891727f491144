"""Reading a result: the ``get_*`` functions, significance and sharing."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import InputError, LabelError, NotAvailableError, OptionError, ShapeError
from plait.io.stored_arrays import parts_of
from plait.mash.data import MashData
from plait.mash.results import (
    ChunkedApplyResult,
    FittedG,
    MashResult,
    PosteriorMatrices,
    TrainApplyResult,
)
from plait.numerics.bivariate_normal import same_sign_probability

if TYPE_CHECKING:
    from pandas import Series

Array = NDArray[np.float64]
AnyResult = MashResult | PosteriorMatrices | TrainApplyResult | ChunkedApplyResult

_BLOCK_BYTES = 1 << 25
"""Memory of the temporary arrays of a block of rows."""

_NEGLIGIBLE = 1e-12
"""Responsibility below which a component does not count for an effect's sharing."""

_CANCELLED = 1e-13
"""Relative variance up to which a difference of two effects is a constant."""


def _whole(m: AnyResult) -> MashResult | PosteriorMatrices | ChunkedApplyResult:
    """Return the part of a result that is about all effects."""
    return m.apply_result if isinstance(m, TrainApplyResult) else m


def quantity(m: AnyResult, name: str) -> Any:
    """Return a quantity of any kind of result, or say that it is not there.

    That of a stored result stays in its store until it is indexed.
    """
    m = _whole(m)
    value = m.arrays.get(name) if isinstance(m, ChunkedApplyResult) else None
    if value is None:
        value = getattr(m, name, None)
    if value is None:
        raise NotAvailableError(f"{name} is not available in this result.")
    return value


def get_pm(m: AnyResult) -> Array:
    """Return the (J, R) posterior means."""
    return np.asarray(quantity(m, "posterior_mean"))


def get_psd(m: AnyResult) -> Array:
    """Return the (J, R) posterior standard deviations."""
    return np.asarray(quantity(m, "posterior_sd"))


def get_lfsr(m: AnyResult) -> Array:
    """Return the (J, R) local false sign rates."""
    return np.asarray(quantity(m, "lfsr"))


def get_lfdr(m: AnyResult) -> Array:
    """Return the (J, R) local false discovery rates."""
    return np.asarray(quantity(m, "lfdr"))


def get_np(m: AnyResult) -> Array:
    """Return the (J, R) posterior probabilities of a negative effect."""
    return np.asarray(quantity(m, "negative_prob"))


def get_samples(m: AnyResult) -> Array:
    """Return the (J, R, M) posterior samples."""
    samples: Array = quantity(m, "posterior_samples")
    return samples


def get_ncond(m: AnyResult) -> int:
    """Return the number of conditions."""
    return int(quantity(m, "posterior_mean").shape[1])


def get_fitted_g(m: AnyResult) -> Any:
    """Return the fitted prior."""
    return quantity(m, "fitted_g")


def get_loglik(m: AnyResult) -> float:
    """Return the log-likelihood."""
    return float(quantity(m, "loglik"))


def get_log10bf(m: AnyResult) -> Array | None:
    """Return the (J,) log10 Bayes factors of any effect against none.

    Returns
    -------
    (J,) array or None
        None where the prior has no null component.

    Raises
    ------
    NotAvailableError
        The result holds no log-likelihoods (posterior matrices, one condition at a time).

    Notes
    -----
    The alternative is the fitted mixture without its null component.
    """
    try:
        null = np.asarray(quantity(m, "null_loglik"))
        alternative = np.asarray(quantity(m, "alt_loglik"))
    except NotAvailableError:
        prior = getattr(_whole(m), "fitted_g", None)
        if isinstance(prior, FittedG) and not prior.usepointmass:
            return None
        raise NotAvailableError("log10bf is not available in this result.") from None
    result: Array = (alternative - null) / np.log(10)
    return result


def _columns(m: AnyResult, width: int, conditions: Any) -> NDArray[np.intp]:
    """Return column numbers of conditions given by number or name."""
    if conditions is None:
        return np.arange(width)
    names: tuple[str, ...] = getattr(_whole(m), "condition_names", None) or ()
    single = isinstance(conditions, (str, int, np.integer))
    chosen = []
    for condition in [conditions] if single else conditions:
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

    Returns
    -------
    (n,) integer array
        Rows ordered by their smallest rate, ties by row.

    Raises
    ------
    InputError
        A condition is unknown.
    """
    values = _rates(m, sig_fn)
    columns = _columns(m, values.shape[1], conditions)
    rows, rates = [np.zeros(0, dtype=np.intp)], [np.zeros(0)]
    for part in parts_of(values):
        smallest = values[part][:, columns].min(axis=1)
        found = np.flatnonzero(smallest < thresh)
        rows.append(part.start + found)
        rates.append(smallest[found])
    return np.concatenate(rows)[np.argsort(np.concatenate(rates), kind="stable")]


def _rates(m: AnyResult, sig_fn: Callable[[Any], Array]) -> Any:
    """Return rates to be read part by part: those of a stored result stay in their store."""
    names = {get_lfsr: "lfsr", get_lfdr: "lfdr"}
    return quantity(m, names[sig_fn]) if sig_fn in names else sig_fn(m)


def get_n_significant_conditions(
    m: AnyResult,
    thresh: float = 0.05,
    conditions: Sequence[int | str] | None = None,
    sig_fn: Callable[[Any], Array] = get_lfsr,
) -> NDArray[np.intp]:
    """Return the (J,) numbers of conditions in which each effect is significant."""
    values = _rates(m, sig_fn)
    columns = _columns(m, values.shape[1], conditions)
    counts = [np.sum(values[part][:, columns] < thresh, axis=1) for part in parts_of(values)]
    return np.concatenate([np.zeros(0, dtype=np.intp), *counts])


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
    return prior


def _identity(values: Array) -> Array:
    return values


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
        Applied, element by element, to the posterior means first; ``np.abs`` compares magnitudes
        alone.

    Returns
    -------
    (R, R) array
        Symmetric; NaN where no effect is significant in either condition. Two means of zero are
        not similar.

    Raises
    ------
    OptionError
        ``factor`` is not from 0 to 1.

    Notes
    -----
    Urbut et al. (2019), online methods. Cost O(n R^2) for n significant effects.
    """
    means = quantity(m, "posterior_mean")
    return _sharing(m, lambda part: FUN(means[part])[:, :, None], factor, lfsr_thresh, draws=1)


def get_pairwise_sharing_from_samples(
    m: AnyResult,
    factor: float = 0.5,
    lfsr_thresh: float = 0.05,
    FUN: Callable[[Array], Array] = _identity,
) -> Array:
    """Return `get_pairwise_sharing` with posterior uncertainty: averaged over posterior draws.

    Parameters
    ----------
    m, factor, lfsr_thresh, FUN
        As there.

    Returns
    -------
    (R, R) array

    Raises
    ------
    NotAvailableError
        The result holds no posterior samples.
    """
    samples = get_samples(m)
    return _sharing(m, lambda part: FUN(samples[part]), factor, lfsr_thresh, samples.shape[2])


def _sharing(
    m: AnyResult,
    values_of: Callable[[slice], Array],
    factor: float,
    lfsr_thresh: float,
    draws: int,
) -> Array:
    """Return the share of similar values; ``values_of(rows)`` is an (n, R, draws) array."""
    if not 0 <= factor <= 1:
        raise OptionError(f"factor is {factor:g}; it must be from 0 to 1.")
    rates = quantity(m, "lfsr")
    width = rates.shape[1]
    upper = np.inf if factor == 0 else 1 / factor
    shared = np.zeros((width, width), dtype=np.int64)
    counted = np.zeros((width, width), dtype=np.int64)
    step = max(1, _BLOCK_BYTES // (8 * width * draws))
    for start in range(0, len(rates), step):
        part = slice(start, start + step)
        significant = rates[part] < lfsr_thresh
        rows = significant.any(axis=1)
        if not rows.any():
            continue
        significant = significant[rows]
        values = np.asarray(values_of(part)[rows], dtype=np.float64)
        for i in range(width):
            either = significant[:, i, None] | significant[:, i:]
            # 0/0 is not a similarity: the comparison with NaN is false, as it should be.
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = values[:, i, None] / values[:, i:]
            similar = (ratio > factor) & (ratio < upper) & either[:, :, None]
            shared[i, i:] += similar.sum(axis=(0, 2))
            counted[i, i:] += draws * either.sum(axis=0)
    with np.errstate(invalid="ignore"):
        result = shared / counted
    lower = np.tril_indices(width, -1)
    result[lower] = result.T[lower]
    return result


def pairwise_sharing_prob(
    m: AnyResult,
    data: MashData,
    factor: float = 0.5,
    lfsr_thresh: float = 0.05,
    A: ArrayLike | None = None,
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
    A : (Q, R) array, optional
        The output map that the result was computed with, if there was one.

    Returns
    -------
    dict
        ``same_sign`` and ``in_band``, symmetric (Q, Q) arrays; NaN where no effect is significant.

    Raises
    ------
    OptionError, ShapeError
        ``factor`` is not in [0, 1), or the result and the data are of different sizes.
    NotAvailableError
        The result has no prior over covariances.

    Notes
    -----
    Exact: the posterior of a pair is a mixture of bivariate normals, and the ratio x/y is between
    ``factor`` and ``1 / factor`` when ``x - factor y`` and ``y - factor x`` have the same sign.
    Cost about 2 us per significant effect, pair of conditions and component that matters to it.
    """
    from plait.mash.data import subset_mash_data
    from plait.mash.posterior import Request, apply_mixture

    if not 0 <= factor < 1:
        raise OptionError(f"factor is {factor:g}; it must be in [0, 1).")
    prior, significant = as_prior_of(m), get_lfsr(m) < lfsr_thresh
    if len(significant) != data.n_effects:
        raise ShapeError(f"the result has {len(significant)} effects, the data {data.n_effects}.")
    rows = np.flatnonzero(significant.any(axis=1))
    width = significant.shape[1]
    totals, counts = np.zeros((2, width, width)), np.zeros((width, width))
    step = max(1024, _BLOCK_BYTES // (8 * width**2))
    output = None if A is None else np.asarray(A, dtype=np.float64)
    kept = np.flatnonzero(prior.pi > Request().pi_thresh)
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        subset, sure = subset_mash_data(data, part), significant[part]
        either = sure[:, :, None] | sure[:, None, :]
        counts += either.sum(axis=0)
        found = apply_mixture(
            subset, prior.components, prior.pi, Request(output, False, weights=True)
        )
        for p, weight in zip(kept, found["posterior_weights"].T, strict=True):
            alone = np.zeros(len(prior.pi))
            alone[p] = 1.0
            used = np.flatnonzero(weight > _NEGLIGIBLE)
            if len(used):
                component = apply_mixture(
                    subset_mash_data(subset, used), prior.components, alone,
                    Request(output, covariance=True), label=None,
                )  # fmt: skip
                mean, cov = component["posterior_mean"], component["posterior_cov"]
                if mean.shape[1] != width:
                    raise ShapeError(
                        f"the result has {width} columns, the data give {mean.shape[1]}: "
                        "give the A of the result."
                    )
                _add_sharing(totals, mean, cov, weight[used], either[used], factor)
    with np.errstate(invalid="ignore"):
        same_sign, in_band = totals / counts
    return {"same_sign": same_sign, "in_band": in_band}


def _add_sharing(
    totals: Array,
    mean: Array,
    cov: Array,
    weight: Array,
    either: NDArray[np.bool_],
    factor: float,
) -> None:
    """Add one component's probabilities of the same sign and of the band to the totals."""
    width = mean.shape[1]
    for i in range(width):
        for j in range(i, width):
            rows = np.flatnonzero(either[:, i, j])
            if len(rows) == 0:
                continue
            pair = np.array([i, j])
            centre, spread = mean[np.ix_(rows, pair)], cov[np.ix_(rows, pair, pair)]
            for total, f in zip(totals, (0.0, factor), strict=True):
                shared = same_sign_probability(*_band(centre, spread, f))
                total[i, j] += weight[rows] @ shared
                total[j, i] = total[i, j]


def _band(mean: Array, cov: Array, factor: float) -> tuple[Array, Array]:
    """Return mean and covariance of ``(x - factor y, y - factor x)``.

    Where the prior ties y to x so that a difference is zero, it cancels only to rounding: its
    variance and mean are then set to zero, and it has no sign.
    """
    to = np.array([[1.0, -factor], [-factor, 1.0]])
    centre, spread = mean @ to.T, to @ cov @ to.T
    size = np.einsum("qi,nij,qj->nq", np.abs(to), np.abs(cov), np.abs(to))
    tied = np.einsum("nqq->nq", spread) <= _CANCELLED * size
    centre = np.where(tied, 0.0, centre)
    return centre, np.where(tied[:, :, None] | tied[:, None, :], 0.0, spread)


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

    Returns
    -------
    PosteriorMatrices
        With Q columns.

    Raises
    ------
    ShapeError
        A does not have one column per condition.
    """
    from plait.mash.model import mash_compute_posterior_matrices

    return mash_compute_posterior_matrices(as_prior_of(m), data, A=A)
