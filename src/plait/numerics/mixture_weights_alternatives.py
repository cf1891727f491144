"""Other ways to the same mixture weights: EM, SQUAREM, interior point and SLSQP.

They are kept because users of the original programs know them; `mixsqp` is faster and certified.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.errors import OptionError
from plait.numerics import mixture_weights as core

Array = NDArray[np.float64]
Solver = Callable[["core._Problem", Array, dict[str, Any]], tuple[Array, int]]


def run(
    method: str, problem: "core._Problem", start: Array, settings: dict[str, Any]
) -> tuple[Array, int, str]:
    """Run one of the methods by name; returns the weights, iterations and the method used."""
    solvers: dict[str, Solver] = {
        "em": _em,
        "squarem": _squarem,
        "mixip": _interior_point,
        "slsqp": _slsqp,
    }
    if method == "auto":
        small = problem.likelihoods.n_components <= 128
        order = ["mixsqp", "squarem", "slsqp", "em"] if small else ["squarem", "mixsqp", "em"]
        for name in order:
            solver = core._active_set if name == "mixsqp" else solvers[name]
            pi, iterations = solver(problem, start, settings)
            if problem.dual_gap(problem.evaluate(pi)[1]) <= core.CERTIFIED:
                break
        return pi, iterations, name
    if method not in solvers:
        raise OptionError(
            f"optmethod {method!r} is unknown; choose mixsqp, {', '.join(solvers)} or auto."
        )
    pi, iterations = solvers[method](problem, start, settings)
    return pi, iterations, method


def _em_step(problem: "core._Problem", x: Array) -> tuple[Array, float]:
    """One EM step, and F before it."""
    value, gradient = problem.evaluate(x)
    # x_p g_p is the responsibility of p summed over rows plus its pseudo-count.
    step = np.where(x > 0, x * gradient, 0.0)
    return step / step.sum(), value


def _em(problem: "core._Problem", start: Array, settings: dict[str, Any]) -> tuple[Array, int]:
    x, iteration = start, 0
    while iteration < settings["max_iter"]:
        iteration += 1
        new, _ = _em_step(problem, x)
        change = float(np.abs(new - x).max())
        x = new
        if change < settings["tol"]:
            break
    return x, iteration


def _squarem(problem: "core._Problem", start: Array, settings: dict[str, Any]) -> tuple[Array, int]:
    """SQUAREM scheme 3 (Varadhan and Roland 2008), monotone."""
    x = start
    for iteration in range(1, settings["max_iter"] + 1):
        first, value = _em_step(problem, x)
        second, _ = _em_step(problem, first)
        r = first - x
        v = second - first - r
        if np.abs(second - x).max() < settings["tol"] or not np.any(v):
            return second, iteration
        step = float(np.clip(-np.linalg.norm(r) / np.linalg.norm(v), -10.0, -1.0))
        jump = np.maximum(x - 2 * step * r + step**2 * v, 0.0)
        # Weights at zero cannot come back by EM, so the extrapolation keeps a floor.
        jump = np.where(second > 0, np.maximum(jump, 1e-12 * second), 0.0)
        landed, jump_value = _em_step(problem, jump / jump.sum())
        x = landed if jump_value >= value else second
    return x, iteration


def _columns(problem: "core._Problem") -> tuple[Array, Array]:
    """Return all likelihoods as one (P, m) matrix with pseudo-counts as rows, and the weights."""
    blocks = problem.likelihoods.map_blocks(lambda rows, block: block.copy())
    counted = np.flatnonzero(problem.counts > 0)
    extra = np.zeros((problem.likelihoods.n_components, len(counted)))
    extra[counted, np.arange(len(counted))] = 1.0
    weights = np.concatenate([problem.weights, problem.counts[counted]])
    return np.concatenate([*blocks, extra], axis=1), weights


def _interior_point(
    problem: "core._Problem", start: Array, settings: dict[str, Any]
) -> tuple[Array, int]:
    """Primal-dual interior point (after Koenker and Mizera 2014).

    Works on ``minimise -sum w log(Lx)/W + sum x`` with the barrier ``-mu sum log x``; the
    multipliers ``s`` of ``x >= 0`` are the slacks of the dual.
    """
    likelihoods, weights = _columns(problem)
    total = weights.sum()
    x = np.maximum(start, 1e-3 / len(start))
    s = np.full(len(x), 1.0)
    iteration = 0
    while iteration < min(settings["max_iter"], 200):
        iteration += 1
        mixture = x @ likelihoods
        gradient = 1 - likelihoods @ (weights / mixture) / total
        if max(float((-gradient).max()), float(x @ s)) <= 1e-10:
            break
        scaled = likelihoods * (np.sqrt(weights / total) / mixture)
        mu = 0.1 * float(x @ s) / len(x)
        system = scaled @ scaled.T
        system[np.diag_indices_from(system)] += s / x
        dx = core._solve_positive(system, mu / x - gradient, 1e-300)
        ds = mu / x - s - s / x * dx
        length = 1.0
        for values, step in ((x, dx), (s, ds)):
            falling = step < 0
            if falling.any():
                length = min(length, 0.99 * float((-values[falling] / step[falling]).min()))
        x, s = x + length * dx, s + length * ds
    return x / x.sum(), iteration


def _slsqp(problem: "core._Problem", start: Array, settings: dict[str, Any]) -> tuple[Array, int]:
    from scipy.optimize import LinearConstraint, minimize

    likelihoods, weights = _columns(problem)
    total = weights.sum()

    def objective(x: Array) -> tuple[float, Array]:
        mixture = np.maximum(x @ likelihoods, 1e-300)
        return -float(weights @ np.log(mixture)) / total, -(
            likelihoods @ (weights / mixture)
        ) / total

    found = minimize(
        objective,
        start,
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * len(start),
        constraints=[LinearConstraint(np.ones(len(start)), 1.0, 1.0)],
        options={"maxiter": settings["max_iter"], "ftol": 1e-14},
    )
    x = np.maximum(found.x, 0.0)
    return x / x.sum(), int(found.nit)
