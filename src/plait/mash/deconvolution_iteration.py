"""The maximisation step of extreme deconvolution, and the iteration with its stopping rule."""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from plait.errors import ConvergenceWarning, OptionError
from plait.execution.progress import stage
from plait.execution.threads import single_threaded_blas
from plait.mash.deconvolution_statistics import Mixture, Rows, Statistics, expectation

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
Progress = Callable[[int, float], object]

UNBOUNDED = 10**9
"""The default of ``maxiter``: in effect no bound (as in R)."""

_SMALLEST = float(np.finfo(np.float64).tiny)
_LONGEST_STEP = 256.0


@dataclass(frozen=True, eq=False)
class Restrictions:
    """What the updates may change, and the prior on the covariances.

    ``amplitudes``, ``means`` and ``covariances`` tell which components are fixed (K,);
    ``prior_weight`` is the strength ``w`` of the conjugate prior.
    """

    amplitudes: Bools
    means: Bools
    covariances: Bools
    prior_weight: float = 0.0

    @classmethod
    def zero_means(cls, count: int, prior_weight: float = 0.0) -> "Restrictions":
        """Fix the means, free everything else."""
        free = np.zeros(count, dtype=bool)
        return cls(free, ~free, free, prior_weight)


@dataclass(frozen=True, eq=False)
class Control:
    """When to stop, whom to tell, and on how many threads."""

    tol: float = 1e-6
    maxiter: int = UNBOUNDED
    accelerate: bool = False
    max_seconds: float | None = None
    progress: Progress | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if int(self.maxiter) < 1:
            raise OptionError(f"maxiter is {self.maxiter}; it must be at least 1.")
        if np.isnan(self.tol):
            raise OptionError(
                "tol is NaN; give a number (0 or less runs exactly maxiter iterations)."
            )
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise OptionError(f"max_seconds is {self.max_seconds}; it must be positive.")
        if self.tol <= 0 and self.maxiter >= UNBOUNDED and self.max_seconds is None:
            raise OptionError("tol <= 0 runs exactly maxiter iterations: give maxiter.")


@dataclass(frozen=True, eq=False)
class Fit:
    """A mixture, the average log-likelihoods that led to it, and the number of plain steps made."""

    mixture: Mixture
    path: Array
    steps: int
    converged: bool


def maximise(
    mixture: Mixture, sums: Statistics, restrictions: Restrictions, n_rows: int | None
) -> Mixture:
    """Return the parameters that maximise the expected log-likelihood.

    ``n_rows`` divides the sums into weights; None (weighted rows) normalises them instead. A
    component without responsibility keeps its mean and covariance and gets weight zero for good.
    """
    n = np.where(sums.n < _SMALLEST, 0.0, sums.n)
    alive = n > 0
    divisor = np.where(alive, n, 1.0)[:, None]
    moved = np.einsum("krs,ks->kr", mixture.covariances, sums.v) / divisor
    moves = alive & ~restrictions.means
    means = np.where(moves[:, None], mixture.means + moved, mixture.means)
    second = mixture.covariances @ sums.W @ mixture.covariances
    updated = mixture.covariances + second / divisor[:, :, None]
    updated -= np.where(moves, 1.0, 0.0)[:, None, None] * moved[:, :, None] * moved[:, None, :]
    if restrictions.prior_weight > 0:
        share = divisor[:, :, None]
        ridge = restrictions.prior_weight * np.eye(means.shape[1])
        updated = (share * updated + ridge) / (share + 1.0)
    updated = 0.5 * (updated + updated.transpose(0, 2, 1))
    changes = (alive & ~restrictions.covariances)[:, None, None]
    return Mixture(
        _amplitudes(mixture.weights, n, restrictions.amplitudes, n_rows),
        means,
        np.where(changes, updated, mixture.covariances),
    )


def _amplitudes(weights: Array, n: Array, fixed: Bools, n_rows: int | None) -> Array:
    if n_rows is not None and not weights[fixed].any():
        return np.where(fixed, weights, n / n_rows)
    return _share_out(n, weights, fixed)


def _share_out(values: Array, weights: Array, fixed: Bools) -> Array:
    """Return fixed weights unchanged and the others proportional to ``values``."""
    free = float(values[~fixed].sum())
    if free == 0:
        return weights
    return np.where(fixed, weights, values / free * (1.0 - float(weights[fixed].sum())))


class _Run:
    """The expectation steps of one fit: counts them, keeps the path, knows when time is up."""

    def __init__(
        self, rows: Rows, restrictions: Restrictions, control: Control, row_weights: Array | None
    ) -> None:
        self.rows = rows
        self.restrictions = restrictions
        self.control = control
        self.row_weights = row_weights
        self.steps = 0
        self.path: list[float] = []
        self._started = time.monotonic()

    def step(self, mixture: Mixture) -> tuple[float, Mixture]:
        """Return the average log-likelihood at ``mixture`` and the next parameters."""
        sums = expectation(self.rows, mixture, self.row_weights, threads=self.control.threads)
        self.steps += 1
        size = self.rows.n_rows
        following = maximise(
            mixture, sums, self.restrictions, size if self.row_weights is None else None
        )
        return sums.log_likelihood / size, following

    def record(self, value: float) -> None:
        """Add an average log-likelihood to the path and tell the listener."""
        self.path.append(value)
        if self.control.progress is not None:
            self.control.progress(len(self.path), value)

    @property
    def exhausted(self) -> bool:
        """Whether the iterations or the seconds are used up."""
        limit = self.control.max_seconds
        late = limit is not None and time.monotonic() - self._started >= limit
        return late or self.steps >= self.control.maxiter

    def settled(self, before: float, after: float) -> bool:
        """R's rule: stop when the average log-likelihood gains at most ``tol``."""
        return self.control.tol > 0 and after - before <= self.control.tol

    def finish(self, mixture: Mixture, converged: bool) -> Fit:
        """Wrap up, warning when the tolerance was not reached."""
        if not converged and self.control.tol > 0:
            warnings.warn(
                f"extreme deconvolution stopped after {self.steps} iterations, before the average "
                f"log-likelihood gained less than tol={self.control.tol:g} per iteration: raise "
                "maxiter or max_seconds, or take accelerate=True.",
                ConvergenceWarning,
                stacklevel=5,
            )
        return Fit(mixture, np.array(self.path), self.steps, converged)


def iterate(
    rows: Rows,
    start: Mixture,
    restrictions: Restrictions,
    control: Control,
    row_weights: Array | None = None,
) -> Fit:
    """Iterate expectation and maximisation until the average log-likelihood settles.

    The path holds the value at the parameters entering each iteration; the parameters returned are
    one update further, as in R.
    """
    run = _Run(rows, restrictions, control, row_weights)
    total = control.maxiter if control.maxiter < UNBOUNDED else 0
    with single_threaded_blas(), stage("extreme deconvolution", total) as advance:
        return (_accelerated if control.accelerate else _plain)(run, start, advance)


def _plain(run: _Run, mixture: Mixture, advance: Callable[..., None]) -> Fit:
    while True:
        value, mixture = run.step(mixture)
        run.record(value)
        advance(1, f"average log-likelihood {value:.6f}")
        if len(run.path) > 1 and run.settled(run.path[-2], value):
            return run.finish(mixture, True)
        if run.exhausted:
            return run.finish(mixture, False)


def _accelerated(run: _Run, mixture: Mixture, advance: Callable[..., None]) -> Fit:
    """SQUAREM (Varadhan and Roland 2008, scheme 3) on square roots of weights and covariances.

    A cycle makes two plain steps, extrapolates them, and goes on from the extrapolated point if its
    likelihood is not below that of the plain steps; otherwise from where they led. So the path
    never falls. It stops when a whole cycle gains at most ``tol``.
    """
    value, first = run.step(mixture)
    run.record(value)
    longest = 4.0
    while not run.exhausted:
        entering = value
        middle, second = run.step(first)
        step = _step_length(_roots(mixture), _roots(first), _roots(second), longest)
        candidate = _extrapolate(mixture, first, second, step, run.restrictions)
        value, following = run.step(candidate)
        accepted = value >= middle
        if not accepted:
            longest = max(longest / 4.0, 1.0)
            candidate = second
            value, following = run.step(candidate)
        elif step >= longest:
            longest = min(4.0 * longest, _LONGEST_STEP)
        run.record(value)
        advance(3 if accepted else 4, f"average log-likelihood {value:.6f}")
        mixture, first = candidate, following
        if run.settled(entering, value):
            return run.finish(first, True)
    return run.finish(first, False)


def _roots(mixture: Mixture) -> tuple[Array, Array, Array]:
    values, vectors = np.linalg.eigh(mixture.covariances)
    roots = np.sqrt(np.maximum(values, 0.0))
    factors = (vectors * roots[:, None, :]) @ vectors.transpose(0, 2, 1)
    return np.sqrt(mixture.weights), mixture.means, factors


Roots = tuple[Array, Array, Array]


def _step_length(zero: Roots, one: Roots, two: Roots, longest: float) -> float:
    moved = bent = 0.0
    for a, b, c in zip(zero, one, two, strict=True):
        moved += float(np.sum((b - a) ** 2))
        bent += float(np.sum((c - 2.0 * b + a) ** 2))
    return float(np.clip(np.sqrt(moved / bent), 1.0, longest)) if bent > 0 else 1.0


def _extrapolate(
    zero: Mixture, one: Mixture, two: Mixture, step: float, restrictions: Restrictions
) -> Mixture:
    if step == 1.0:
        return two
    weights, means, factors = (
        a + 2.0 * step * (b - a) + step**2 * (c - 2.0 * b + a)
        for a, b, c in zip(_roots(zero), _roots(one), _roots(two), strict=True)
    )
    covariances = factors @ factors.transpose(0, 2, 1)
    fixed = restrictions.covariances[:, None, None]
    return replace(
        two,
        weights=_share_out(weights**2, two.weights, restrictions.amplitudes),
        means=np.where(restrictions.means[:, None], two.means, means),
        covariances=np.where(fixed, two.covariances, covariances),
    )
