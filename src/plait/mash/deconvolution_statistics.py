"""The expectation step of deconvolution: the sums over rows from which every update follows.

Rows obey ``y_j ~ sum_k pi_k N(R_j m_k, R_j U_k R_j^T + Sigma_j)``, with ``R_j`` the identity unless
projections are given. With responsibilities ``q_jk``, ``T_jk = R_j U_k R_j^T + Sigma_j`` and
``t_jk = T_jk^{-1} (y_j - R_j m_k)``, all updates of means and covariances are functions of

    n_k = sum_j q_jk
    v_k = sum_j q_jk R_j^T t_jk
    W_k = sum_j q_jk R_j^T (t_jk t_jk^T - T_jk^{-1}) R_j

(Bovy, Hogg and Roweis 2011, equations 22-26, written without the conditional moments). How the sums
are formed depends on what the rows share: see `plait.mash.deconvolution_rows`. Memory is that of a
grain; no array has J x K x R entries.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from plait.errors import ConvergenceError, NotPositiveDefiniteError
from plait.execution.grains import Grain, map_grains
from plait.execution.threads import resolve_threads

Array = NDArray[np.float64]
Indices = NDArray[np.intp]
Sums = tuple[Array, ...]
Accumulate = Callable[[Array], Sums]


@dataclass(frozen=True, eq=False)
class Mixture:
    """Parameters: ``weights`` (K,), ``means`` (K, R) and ``covariances`` (K, R, R)."""

    weights: Array
    means: Array
    covariances: Array


@dataclass(frozen=True, eq=False)
class Statistics:
    """Sums over rows: the log-likelihood, ``n`` (K,), ``v`` (K, R) and ``W`` (K, R, R)."""

    log_likelihood: float
    n: Array
    v: Array
    W: Array


class Step(Protocol):
    """The rows under one value of the parameters."""

    def evaluate(self, grain: Grain) -> tuple[Array, Accumulate]:
        """Return the (K, n) log-densities of a grain, and what sums it up given (K, n) ``q``."""

    def finish(self, n: Array, sums: Sums) -> tuple[Array, Array]:
        """Turn sums over all rows into ``v`` and ``W``."""


class Rows(Protocol):
    """Data whose mixture is wanted."""

    @property
    def n_rows(self) -> int:
        """Number of rows J."""

    def prepare(self, means: Array, covariances: Array, threads: int = 1) -> Step:
        """Compute what the rows share under these parameters.

        With fewer grains than ``threads`` the step may share a grain out.
        """


class SingularRowError(NotPositiveDefiniteError):
    """The total covariance of row ``row`` cannot be factorised."""

    def __init__(self, row: int) -> None:
        self.row = row
        super().__init__(
            f"the prior covariance plus the error covariance of effect {row} is not positive "
            "definite: its error covariance is singular or nearly so. Check the standard errors of "
            "that effect and the correlation of the errors (mash_set_data has v_ridge)."
        )


class ImpossibleRowError(ConvergenceError):
    """Row ``row`` has no finite likelihood."""

    def __init__(self, row: int) -> None:
        self.row = row
        super().__init__(
            f"effect {row} has no finite likelihood under any component: its values are too far "
            "from zero for its errors."
        )


@contextmanager
def naming_rows(numbers: Indices) -> Iterator[None]:
    """Let errors about a row of a subset name its number in the whole."""
    try:
        yield
    except (SingularRowError, ImpossibleRowError) as error:
        raise type(error)(int(numbers[error.row])) from None


def soft_assign(values: Array) -> tuple[Array, Array]:
    """Return ``log sum_k exp(values)`` (n,) and the responsibilities (K, n) of (K, n) values."""
    largest = values.max(axis=0)
    with np.errstate(invalid="ignore"):
        shares = np.exp(values - largest)
    total = shares.sum(axis=0)
    shares /= total
    log_sum: Array = largest + np.log(total)
    return log_sum, shares


def log_of(weights: Array) -> Array:
    """Return the logarithm of mixture weights, -inf where they are zero."""
    with np.errstate(divide="ignore"):
        return np.log(weights)


def check_finite(log_likelihoods: Array, start: int) -> None:
    """Raise where no component gives a row a finite likelihood."""
    if not np.isfinite(log_likelihoods).all():
        raise ImpossibleRowError(start + int(np.argmin(np.isfinite(log_likelihoods))))


def expectation(
    rows: Rows,
    mixture: Mixture,
    row_weights: Array | None = None,
    *,
    likelihood_only: bool = False,
    threads: int | None = None,
) -> Statistics:
    """Return the sums over rows, added up grain by grain in order."""
    step = rows.prepare(mixture.means, mixture.covariances, resolve_threads(threads))
    log_likelihood, n, sums = sum_over_rows(
        step, rows.n_rows, mixture.weights, row_weights, likelihood_only, threads
    )
    if likelihood_only:
        return Statistics(log_likelihood, n, mixture.means, mixture.covariances)
    v, W = step.finish(n, sums)
    return Statistics(log_likelihood, n, v, 0.5 * (W + W.transpose(0, 2, 1)))


def sum_over_rows(
    step: Step,
    n_rows: int,
    weights: Array,
    row_weights: Array | None,
    likelihood_only: bool,
    threads: int | None,
) -> tuple[float, Array, Sums]:
    """Return the log-likelihood, the responsibilities (K,) and the raw sums over all rows."""
    log_weights = log_of(weights)[:, None]

    def one(grain: Grain) -> tuple[float, Array, Sums]:
        values, accumulate = step.evaluate(grain)
        log_likelihoods, shares = soft_assign(values + log_weights)
        check_finite(log_likelihoods, grain.start)
        if row_weights is not None:
            log_likelihoods = log_likelihoods * row_weights[grain.rows]
            shares *= row_weights[grain.rows]
        sums = () if likelihood_only else accumulate(shares)
        return float(log_likelihoods.sum()), shares.sum(axis=1), sums

    return combine(map_grains(one, 0, n_rows, threads=threads))


def combine(parts: Any) -> tuple[float, Array, Sums]:
    """Add the results of grains in order."""
    iterator = iter(parts)
    log_likelihood, n, sums = next(iterator)
    for more, n_more, sums_more in iterator:
        log_likelihood += more
        n = n + n_more
        sums = add_sums((sums, sums_more))
    return log_likelihood, n, sums


def add_sums(parts: Iterable[Sums]) -> Sums:
    """Add sums in order."""
    totals, *others = parts
    for more in others:
        totals = tuple(a + b for a, b in zip(totals, more, strict=True))
    return totals
