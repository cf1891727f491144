"""Maximum-likelihood weights of a mixture whose component likelihoods are known.

The problem (Kim, Carbonetto, Stephens and Anitescu 2020, eq. 2, with pseudo-counts)::

    maximise  F(x) = sum_j w_j log (L x)_j + sum_p c_p log x_p    over the simplex

is convex. With ``W = sum w + sum c`` and ``g_p = dF/dx_p``, the optimum has ``g_p <= W`` with
equality where ``x_p > 0``, and ``max_p g_p / W - 1`` bounds how far F is from its optimum, per unit
of weight: the *dual gap*, which certifies the answer.

Few components of hundreds carry weight. The solver works on an active set of columns: sequential
quadratic programming on those (cost n a^2 per step), then one pass over all columns (cost n P) that
certifies the answer or names the columns to add.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve

from plait.errors import InputError, OptionError, ShapeError

Array = NDArray[np.float64]
Columns = NDArray[np.intp]

_CONVERGED = "converged to optimal solution"
_EXCEEDED = "exceeded maximum number of iterations"

CERTIFIED = 1e-8
"""Dual gap up to which a solution counts as converged."""


@runtime_checkable
class Likelihoods(Protocol):
    """Relative likelihoods of n rows under P components, in blocks of rows.

    A block is a (P, T) array with one column per row and a maximum of 1 in every column.
    """

    n_rows: int
    n_components: int

    def map_blocks(
        self, function: Callable[[slice, Array], Any], columns: Columns | None = None
    ) -> list[Any]:
        """Apply ``function(rows, block)`` to every block and return the results in order.

        ``columns`` restricts the blocks to some components.
        """


class DenseLikelihoods:
    """Likelihoods held as one (P, n) array, cut into fixed blocks of rows."""

    BLOCK = 1024

    def __init__(self, transposed: Array) -> None:
        self._values = transposed
        self.n_components, self.n_rows = transposed.shape

    def map_blocks(
        self, function: Callable[[slice, Array], Any], columns: Columns | None = None
    ) -> list[Any]:
        """Apply a function to every block, in order."""
        results = []
        for start in range(0, self.n_rows, self.BLOCK):
            rows = slice(start, min(start + self.BLOCK, self.n_rows))
            block = self._values[:, rows]
            results.append(function(rows, block if columns is None else block[columns]))
        return results


@dataclass(frozen=True, eq=False)
class WeightFit:
    """Fitted mixture weights and their certificate.

    Attributes
    ----------
    pi : (P,) array
        The weights, non-negative with sum 1.
    objective : float
        F at ``pi``, on the relative likelihoods.
    dual_gap : float
        ``max_p g_p / W - 1`` over all components, in float64.
    converged : bool
        Whether the dual gap is at most 1e-8.
    iterations : int
    method, status : str
    seconds : float
    """

    pi: Array
    objective: float
    dual_gap: float
    converged: bool
    iterations: int
    method: str
    status: str
    seconds: float


@dataclass(frozen=True, slots=True)
class _Problem:
    likelihoods: Likelihoods
    weights: Array
    counts: Array

    @property
    def total(self) -> float:
        return float(self.weights.sum() + self.counts.sum())

    def evaluate(self, x: Array) -> tuple[float, Array]:
        """Return F and its gradient over all columns at ``x`` (one pass over the likelihoods)."""
        support = np.flatnonzero(x)

        def one(rows: slice, block: Array) -> tuple[float, Array]:
            mixture = x[support] @ block[support]
            w = self.weights[rows]
            # A row that no component of the mixture supports has F = -inf; its gradient is the
            # limit that pulls in whatever does support it.
            safe = np.maximum(mixture, 1e-300)
            value = float(np.sum(w * np.log(safe))) if np.all(mixture > 0) else -np.inf
            return value, block @ (w / safe)

        value, gradient = 0.0, np.zeros(len(x))
        for part, slope in self.likelihoods.map_blocks(one):
            value += part
            gradient += slope
        counted = self.counts > 0
        with np.errstate(divide="ignore"):
            value += float(np.sum(self.counts[counted] * np.log(x[counted])))
            gradient[counted] += self.counts[counted] / x[counted]
        return value, gradient

    def dual_gap(self, gradient: Array) -> float:
        return float(gradient.max() / self.total - 1)


def check_likelihoods(matrix: ArrayLike) -> Array:
    """Return a matrix of likelihoods as float64, or say what is wrong with it."""
    values = np.asarray(matrix, dtype=np.float64)
    if values.ndim != 2 or values.size == 0:
        raise ShapeError(f"the likelihood matrix must be 2-D and not empty, not {values.shape}.")
    if not np.isfinite(values).all():
        j, p = np.argwhere(~np.isfinite(values))[0]
        raise InputError(f"the likelihood matrix must be finite (row {j}, column {p} is not).")
    if np.any(values < 0):
        j, p = np.argwhere(values < 0)[0]
        raise InputError(f"likelihoods must be non-negative (row {j}, column {p} is not).")
    if np.any(values.max(axis=1) <= 0):
        j = int(np.argmin(values.max(axis=1)))
        raise InputError(f"row {j} of the likelihood matrix is zero: no component supports it.")
    return values


def fit_mixture_weights(
    likelihoods: Likelihoods | ArrayLike,
    weights: ArrayLike | None = None,
    pseudo_counts: ArrayLike | None = None,
    *,
    method: str = "mixsqp",
    control: Mapping[str, Any] | None = None,
    initial: ArrayLike | None = None,
) -> WeightFit:
    """Fit the weights of a mixture.

    Parameters
    ----------
    likelihoods : Likelihoods, or (n, P) array
        Likelihood of every row under every component; rows of an array may be scaled freely.
    weights : (n,) array, optional
        Positive weights of the rows. Default 1.
    pseudo_counts : (P,) array, optional
        ``c_p >= 0``, the prior's counts less one. Default 0.
    method : {"mixsqp", "em", "squarem", "mixip", "slsqp", "auto"}
        ``"mixsqp"`` returns a certified optimum.
    control : mapping, optional
        ``max_iter``, ``tol`` and the names of `mixsqp`'s control.
    initial : (P,) array, optional
        Where the iterative methods start. Default uniform.

    Returns
    -------
    WeightFit

    Raises
    ------
    OptionError
        Unknown method or control name.
    """
    from plait.numerics import mixture_weights_alternatives as alternatives

    started = time.perf_counter()
    if isinstance(likelihoods, Likelihoods):
        source = likelihoods
    else:
        values = check_likelihoods(likelihoods)
        source = DenseLikelihoods(
            np.ascontiguousarray((values / values.max(axis=1, keepdims=True)).T)
        )
    n, size = source.n_rows, source.n_components
    problem = _Problem(
        source,
        as_vector(weights, n, "weights", 1.0),
        as_vector(pseudo_counts, size, "pseudo-counts", 0.0),
    )
    settings = check_control(control)
    start = (
        np.full(size, 1.0 / size) if initial is None else as_vector(initial, size, "initial", 0.0)
    )
    if method == "mixsqp":
        pi, iterations = _active_set(problem, start / start.sum(), settings)
    else:
        pi, iterations, method = alternatives.run(method, problem, start / start.sum(), settings)
    value, gradient = problem.evaluate(pi)
    gap = problem.dual_gap(gradient)
    converged = gap <= CERTIFIED
    status = (
        "converged to optimal solution" if converged else "exceeded maximum number of iterations"
    )
    return WeightFit(
        pi, value, gap, converged, iterations, method, status, time.perf_counter() - started
    )


def as_vector(values: ArrayLike | None, size: int, what: str, default: float) -> Array:
    """Return a finite, non-negative vector of the given size; None is filled with the default."""
    if values is None:
        return np.full(size, default)
    vector = np.asarray(values, dtype=np.float64)
    if vector.shape != (size,):
        raise ShapeError(f"{what} has the wrong length: {vector.shape}, expected ({size},).")
    if not np.isfinite(vector).all() or np.any(vector < 0):
        raise InputError(f"{what} must be finite and not negative.")
    return vector


_MIXSQP_DEFAULTS: dict[str, Any] = {
    "normalize_rows": True,
    "tol_svd": 1e-6,
    "convtol_sqp": 1e-8,
    "convtol_activeset": 1e-10,
    "zero_threshold_solution": 1e-8,
    "zero_threshold_searchdir": 1e-14,
    "suffdecr_linesearch": 0.01,
    "stepsizereduce": 0.75,
    "minstepsize": 1e-8,
    "identity_contrib_increase": 10.0,
    "eps": 1e-8,
    "maxiter_sqp": 1000,
    "maxiter_activeset": None,
    "numiter_em": 10,
    "verbose": False,
}


def check_control(control: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the control settings with their defaults; an unknown name is an error.

    The names of R's mixsqp are accepted. Those that tune its approximations (``tol_svd``, ``eps``,
    the thresholds of its working set) have no effect on an exact solution.
    """
    known = {"max_iter": 2000, "tol": 1e-8, **_MIXSQP_DEFAULTS}
    unknown = sorted(set(control or {}) - set(known))
    if unknown:
        raise OptionError(f"unknown control {', '.join(unknown)}; known are {', '.join(known)}.")
    return {**known, **(control or {})}


# ------------------------------------------------------------------ the active-set solver


_TARGET = 1e-10
_INNER_TARGET = 1e-12
_MOST_ADDED = 30


def _active_set(problem: _Problem, start: Array, settings: dict[str, Any]) -> tuple[Array, int]:
    """Solve on an active set of columns that grows until no column is violated."""
    total = problem.total
    _, gradient = problem.evaluate(start)
    if problem.dual_gap(gradient) <= _TARGET:
        return start, 0
    em_step = start * gradient / total
    active = np.sort(np.argsort(-em_step, kind="stable")[:40])
    active = np.union1d(active, np.flatnonzero(problem.counts > 0))
    x = em_step / em_step.sum()
    iterations = 0
    for _ in range(200):
        inner, steps = _solve_on(problem, active, x, settings, settings["maxiter_sqp"] - iterations)
        iterations += steps
        x = np.zeros_like(start)
        x[active] = inner
        _, gradient = problem.evaluate(x)
        if problem.dual_gap(gradient) <= _TARGET or iterations >= settings["maxiter_sqp"]:
            break
        violation = gradient / total - 1
        order = np.argsort(-violation, kind="stable")[:_MOST_ADDED]
        added = np.setdiff1d(order[violation[order] > _TARGET], active)
        if len(added) == 0:
            break
        keep = active[(x[active] > 0) | (problem.counts[active] > 0)]
        active = np.union1d(keep, added)
    return x / x.sum(), iterations


def _solve_on(
    problem: _Problem, active: Columns, warm: Array, settings: dict[str, Any], budget: int
) -> tuple[Array, int]:
    """Sequential quadratic programming on some columns, from a warm start made positive."""
    blocks = problem.likelihoods.map_blocks(lambda rows, block: (rows, block.copy()), active)
    counts = problem.counts[active]
    share = 0.1 if np.all(warm[active] > 0) else 0.05
    x = (1 - share) * warm[active] / max(warm[active].sum(), 1e-300) + share / len(active)
    local = _Local(blocks, problem.weights, counts, problem.total)
    x = local.em(x, settings["numiter_em"])
    value, gradient, hessian = local.expand(x)
    steps = 0
    for _ in range(max(budget, 1)):
        residual = local.residual(x, gradient)
        if residual <= _INNER_TARGET:
            break
        target = nonnegative_quadratic(hessian, gradient - hessian @ x, x)
        accepted = _line_search(local, x, value, gradient, target, residual, settings)
        if accepted is None and (residual <= CERTIFIED / 10 or steps + 1 >= budget):
            break
        # A quadratic model that leads nowhere: EM steps always improve, then try again.
        x = local.em(x, settings["numiter_em"]) if accepted is None else accepted
        value, gradient, hessian = local.expand(x)
        steps += 1
    return x / x.sum(), steps


def _line_search(
    local: "_Local",
    x: Array,
    value: float,
    gradient: Array,
    target: Array,
    residual: float,
    settings: dict[str, Any],
) -> Array | None:
    """Backtrack from the full step; None when no step improves the answer any more."""
    direction = target - x
    slope = float(gradient @ direction)
    length = 1.0
    while length >= settings["minstepsize"]:
        candidate = np.maximum(x + length * direction, 0.0)
        trial = local.value(candidate)
        if trial <= value + settings["suffdecr_linesearch"] * length * slope:
            return candidate
        # Next to the optimum the objective is flat to rounding: let the gradient decide.
        if abs(trial - value) <= 1e-13 * max(1.0, abs(value)):
            _, slopes, _ = local.expand(candidate)
            return candidate if local.residual(candidate, slopes) < 0.9 * residual else None
        length *= settings["stepsizereduce"]
    return None


@dataclass(frozen=True, slots=True)
class _Local:
    """The problem restricted to some columns: ``f(x) = -F(x)/W + sum(x)``, minimised over x >= 0.

    Without the constraint on the sum: the minimiser has ``sum(x) = 1``.
    """

    blocks: list[tuple[slice, Array]]
    weights: Array
    counts: Array
    total: float

    def value(self, x: Array) -> float:
        result = 0.0
        counted = self.counts > 0
        if np.any(x[counted] <= 0):
            return np.inf
        for rows, block in self.blocks:
            mixture = x @ block
            if mixture.min() <= 0:
                return np.inf
            result += float(self.weights[rows] @ np.log(mixture))
        result += float(self.counts[counted] @ np.log(x[counted]))
        return -result / self.total + float(x.sum())

    def expand(self, x: Array) -> tuple[float, Array, Array]:
        """Return the value, gradient and Hessian of f."""
        gradient, hessian = np.zeros(len(x)), np.zeros((len(x), len(x)))
        result = 0.0
        for rows, block in self.blocks:
            mixture = np.maximum(x @ block, 1e-300)
            w = self.weights[rows]
            result += float(w @ np.log(mixture))
            gradient += block @ (w / mixture)
            scaled = block * (np.sqrt(w) / mixture)
            hessian += scaled @ scaled.T
        counted = self.counts > 0
        inside = np.where(counted, x, 1.0)
        result += float(self.counts @ np.log(inside))
        gradient += self.counts / inside
        hessian[np.diag_indices_from(hessian)] += self.counts / inside**2
        return (
            -result / self.total + float(x.sum()),
            1 - gradient / self.total,
            hessian / self.total,
        )

    def em(self, x: Array, steps: int) -> Array:
        """Take EM steps, which never fail: they bring the first quadratic model within reach."""
        for _ in range(steps):
            gradient = np.zeros(len(x))
            for rows, block in self.blocks:
                gradient += block @ (self.weights[rows] / np.maximum(x @ block, 1e-300))
            x = (x * gradient + self.counts) / self.total
        return x

    @staticmethod
    def residual(x: Array, gradient: Array) -> float:
        """How far the optimality conditions are from holding."""
        return float(max((-gradient).max(), np.abs(x * gradient).max()))


def nonnegative_quadratic(hessian: Array, linear: Array, warm: Array) -> Array:
    """Minimise ``y^T H y / 2 + linear^T y`` over ``y >= 0`` by the active-set method.

    ``warm >= 0`` is where it starts; its zeros are the first working set. H is positive
    semi-definite; a multiple of the identity at rounding level keeps its factor defined.
    """
    size = len(linear)
    ridge = 1e-15 * max(float(np.trace(hessian)) / size, 1e-300)
    y = warm.copy()
    free = y > 0
    scale = max(float(np.abs(linear).max()), 1.0)
    for _ in range(20 * size + 20):
        solution = np.zeros(size)
        solution[free] = _solve_positive(hessian[np.ix_(free, free)], -linear[free], ridge)
        if np.all(solution[free] >= 0):
            y = solution
            slope = hessian @ y + linear
            slope[free] = np.inf
            entering = int(np.argmin(slope))
            if slope[entering] >= -1e-14 * scale:
                break
            free[entering] = True
        else:
            falling = free & (solution < 0)
            with np.errstate(divide="ignore", invalid="ignore"):
                length = np.where(falling, y / (y - solution), np.inf)
            step = float(length.min())
            y = y + step * (solution - y)
            blocked = falling & (length <= step * (1 + 1e-12))
            y[blocked] = 0.0
            free &= ~blocked
    return np.maximum(y, 0.0)


def _solve_positive(matrix: Array, right: Array, ridge: float) -> Array:
    """Solve a positive semi-definite system, adding to the diagonal until it has a factor."""
    if len(right) == 0:
        return right
    identity = np.eye(len(right))
    while True:
        try:
            factor = cho_factor(matrix + ridge * identity, check_finite=False)
        except np.linalg.LinAlgError:
            ridge *= 10
            continue
        solution: Array = cho_solve(factor, right, check_finite=False)
        # One refinement removes the ridge from the solution where the matrix allows it.
        refined: Array = solution + cho_solve(factor, right - matrix @ solution, check_finite=False)
        return refined
