"""Ultimate deconvolution: data-driven covariances of several kinds, fitted together.

The mixture of extreme deconvolution with three kinds of prior matrix: a fixed matrix times an
estimated scale, a matrix of rank 1, and an unconstrained matrix, each with its own updates
(`deconvolution_updates`) and an optional penalty.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.errors import InputError, OptionError, ShapeError
from plait.execution.grains import Grain, map_grains
from plait.execution.progress import stage
from plait.mash import deconvolution_updates as updates
from plait.mash.covariances import check_Ulist, take_effects
from plait.mash.data import MashData
from plait.mash.deconvolution_rows import (
    CommonErrors,
    fetch_from,
    rows_of,
    scatter_expectation,
)
from plait.mash.deconvolution_statistics import (
    Sums,
    check_finite,
    combine,
    log_of,
    naming_rows,
    soft_assign,
)
from plait.mash.deconvolution_updates import Penalty
from plait.mash.stored import StoredData
from plait.numerics.linalg import cholesky, symmetrise

Array = NDArray[np.float64]

_METHODS = {
    "scaled_update": ("em", "fa", "none"),
    "rank1_update": ("ted", "fa", "none"),
    "unconstrained_update": ("ted", "ed", "fa", "none"),
    "resid_update": ("none", "em"),
    "weights_update": ("em", "none"),
    "penalty_type": ("iw", "nu"),
}


@dataclass(frozen=True, eq=False)
class PriorMatrix:
    """One prior covariance: ``scale * base``, ``vector vector^T``, or any matrix."""

    name: str
    kind: str
    matrix: Array
    base: Array | None = None
    scale: float = 1.0
    vector: Array | None = None
    penalty_scale: float = 1.0

    def rescaled(self, scale: float) -> "PriorMatrix":
        """Return a scaled matrix with another scale."""
        return replace(self, scale=scale, matrix=scale * np.asarray(self.base))

    def turned(self, vector: Array) -> "PriorMatrix":
        """Return a rank-1 matrix with another vector."""
        return replace(self, vector=vector, matrix=np.outer(vector, vector))


@dataclass(frozen=True)
class Settings:
    """The chosen updates, by the names of `cov_ud`."""

    scaled_update: str
    rank1_update: str
    unconstrained_update: str
    resid_update: str
    weights_update: str
    penalty: Penalty
    minval: float
    threads: int | None


@dataclass(frozen=True, eq=False)
class State:
    """The parameters of a fit; ``V`` is the common error covariance, None when rows differ."""

    priors: tuple[PriorMatrix, ...]
    weights: Array
    V: Array | None


@dataclass(frozen=True, eq=False)
class Expected:
    """An expectation step: (penalised) log-likelihood, ``n``, and the sums updates need."""

    objective: float
    log_likelihood: float
    n: Array
    scatter: Array
    rank1: tuple[Array, Array] | None = None


class CommonProblem:
    """Rows with one error covariance: every update follows from the weighted scatter matrices."""

    def __init__(self, data: MashData, settings: Settings) -> None:
        self.effects = data.Bhat
        self.settings = settings

    def expect(self, state: State) -> Expected:
        """Return the scatter ``sum_j p_jk x_j x_j^T`` of each component."""
        assert state.V is not None
        covariances = np.stack([prior.matrix for prior in state.priors])
        rows = CommonErrors(self.effects, state.V)
        value, n, scatter = scatter_expectation(
            rows, state.weights, covariances, self.settings.threads
        )
        penalty = 0.0
        if self.settings.penalty.strength > 0:
            inverse = np.asarray(np.linalg.inv(cholesky(state.V, "V")), dtype=np.float64)
            penalty = _penalty(self.settings.penalty, state.priors, inverse)
        return Expected(value - 0.5 * penalty, value, n, scatter)

    def improve(self, state: State, expected: Expected) -> State:
        """Update the errors, then the prior matrices in whitened coordinates."""
        assert state.V is not None
        V = state.V
        if self.settings.resid_update == "em":
            covariances = np.stack([prior.matrix for prior in state.priors])
            V = updates.residual_update(covariances, V, expected.n, expected.scatter)
        factor = cholesky(V, "the updated error covariance")
        inverse = np.asarray(np.linalg.inv(factor), dtype=np.float64)
        scatters = symmetrise(inverse @ expected.scatter @ inverse.T)
        priors = tuple(
            self._update(prior, float(n), scatter, factor, inverse) if n > 0 else prior
            for prior, n, scatter in zip(state.priors, expected.n, scatters, strict=True)
        )
        return State(priors, _weights(state, expected, len(self.effects), self.settings), V)

    def _update(
        self, prior: PriorMatrix, n: float, scatter: Array, factor: Array, inverse: Array
    ) -> PriorMatrix:
        moment = scatter / n
        if prior.kind == "scaled":
            if self.settings.scaled_update == "none":
                return prior
            base = symmetrise(inverse @ np.asarray(prior.base) @ inverse.T)
            lam, power = updates.common_scale_terms(base, moment)
            return prior.rescaled(_scale(self.settings, prior, lam, power, np.array([n])))
        if prior.kind == "rank1":
            if self.settings.rank1_update == "none":
                return prior
            if self.settings.rank1_update == "fa":
                return prior.turned(
                    factor @ updates.rank1_factor_update(inverse @ np.asarray(prior.vector), moment)
                )
            values, vectors = np.linalg.eigh(updates.truncated_eigenvalues(moment, rank=1))
            return prior.turned(factor @ vectors[:, -1] * np.sqrt(max(values[-1], 0.0)))
        return self._unconstrained(prior, n, moment, factor, inverse)

    def _unconstrained(
        self, prior: PriorMatrix, n: float, moment: Array, factor: Array, inverse: Array
    ) -> PriorMatrix:
        method, penalty = self.settings.unconstrained_update, self.settings.penalty
        if method == "none":
            return prior
        U = symmetrise(inverse @ prior.matrix @ inverse.T)
        if method == "fa":
            U = updates.factor_analysis_update(U, moment, self.settings.minval)
        elif method == "ed":
            total_inverse = np.linalg.inv(U + np.eye(len(U)))
            W = n * (total_inverse @ moment @ total_inverse - total_inverse)
            U = updates.extreme_deconvolution_update(U, W, n, penalty, prior.penalty_scale)
        elif penalty.strength > 0:
            U = updates.penalised_eigenvalues(moment, n, penalty, prior.penalty_scale)
        else:
            U = updates.truncated_eigenvalues(moment)
        s2 = penalty.scale(U) if penalty.strength > 0 else 1.0
        return replace(prior, matrix=symmetrise(factor @ U @ factor.T), penalty_scale=s2)


class RowProblem:
    """Rows with their own error covariances."""

    def __init__(self, data: MashData, settings: Settings, priors: tuple[PriorMatrix, ...]) -> None:
        self.data = data
        self.settings = settings
        self.rows = rows_of(data)
        self.fetch = fetch_from(data)
        kinds = np.array([prior.kind for prior in priors])
        self.ours = kinds == "unconstrained"
        self.rank1 = np.flatnonzero((kinds == "rank1") & (settings.rank1_update == "fa"))
        self.scaled = np.flatnonzero((kinds == "scaled") & (settings.scaled_update != "none"))
        self.shares = np.empty((len(self.scaled), data.n_effects))
        self.terms = [self._scale_terms(np.asarray(priors[k].base)) for k in self.scaled]

    def _scale_terms(self, base: Array) -> tuple[Array, Array]:
        def one(grain: Grain) -> tuple[Array, Array]:
            return updates.scale_terms(base, *self._inverses(grain))

        parts = list(map_grains(one, 0, self.data.n_effects, threads=self.settings.threads))
        return np.concatenate([a for a, _ in parts]), np.concatenate([b for _, b in parts])

    def _inverses(self, grain: Grain) -> tuple[Array, Array]:
        effects, sigma, observed = self.fetch(grain.rows)
        inverses = updates.embedded_inverses(sigma, observed)
        return inverses, np.einsum("jrs,js->jr", inverses, effects)

    def expect(self, state: State) -> Expected:
        """Return ``W_k`` in place of the scatter, and the sums of the rank-1 updates."""
        covariances = np.stack([prior.matrix for prior in state.priors])
        step = self.rows.prepare(np.zeros(covariances.shape[:2]), covariances)
        log_weights = log_of(state.weights)[:, None]

        def one(grain: Grain) -> tuple[float, Array, Sums]:
            values, accumulate = step.evaluate(grain)
            log_likelihoods, shares = soft_assign(values + log_weights)
            check_finite(log_likelihoods, grain.start)
            self.shares[:, grain.rows] = shares[self.scaled]
            sums = accumulate(np.where(self.ours[:, None], shares, 0.0))
            n = shares.sum(axis=1)
            return float(log_likelihoods.sum()), n, (*self._rank1(state, grain, shares), *sums)

        parts = map_grains(one, 0, self.data.n_effects, threads=self.settings.threads)
        value, n, (matrices, vectors, *sums) = combine(parts)
        _, W = step.finish(np.where(self.ours, n, 0.0), tuple(sums))
        penalty = _penalty(self.settings.penalty, state.priors, None)
        return Expected(value - 0.5 * penalty, value, n, symmetrise(W), (matrices, vectors))

    def _rank1(self, state: State, grain: Grain, shares: Array) -> tuple[Array, Array]:
        width = self.data.n_conditions
        matrices = np.zeros((len(self.rank1), width, width))
        vectors = np.zeros((len(self.rank1), width))
        if len(self.rank1):
            inverses, scaled = self._inverses(grain)
            for i, k in enumerate(self.rank1):
                u = np.asarray(state.priors[k].vector)
                sums = updates.rank1_row_sums(u, inverses, scaled, shares[k])
                matrices[i], vectors[i] = sums
        return matrices, vectors

    def improve(self, state: State, expected: Expected) -> State:
        """Update every prior matrix and the weights."""
        priors = list(state.priors)
        assert expected.rank1 is not None
        for i, k in enumerate(self.rank1):
            if expected.n[k] > 0:
                matrix, vector = expected.rank1[0][i], expected.rank1[1][i]
                # A condition that no row has observed leaves its entry undetermined: keep it at 0.
                priors[k] = priors[k].turned(np.linalg.lstsq(matrix, vector, rcond=None)[0])
        for i, k in enumerate(self.scaled):
            if expected.n[k] > 0:
                priors[k] = priors[k].rescaled(
                    _scale(self.settings, priors[k], *self.terms[i], self.shares[i])
                )
        penalty = self.settings.penalty
        for k in np.flatnonzero(self.ours & (expected.n > 0)):
            if self.settings.unconstrained_update == "none":
                continue
            U = updates.extreme_deconvolution_update(
                priors[k].matrix,
                expected.scatter[k],
                float(expected.n[k]),
                penalty,
                priors[k].penalty_scale,
            )
            s2 = penalty.scale(U) if penalty.strength > 0 else 1.0
            priors[k] = replace(priors[k], matrix=symmetrise(U), penalty_scale=s2)
        weights = _weights(state, expected, self.data.n_effects, self.settings)
        return State(tuple(priors), weights, None)


def _scale(settings: Settings, prior: PriorMatrix, lam: Array, power: Array, p: Array) -> float:
    if settings.scaled_update == "em":
        return updates.scale_em(lam, power, p, prior.scale)
    values = np.linalg.eigvalsh(np.asarray(prior.base))
    rank = int(np.sum(values > 1e-12 * max(values[-1], 0.0)))
    return updates.scale_factor_update(lam, power, p, prior.scale, rank)


def _weights(state: State, expected: Expected, n_rows: int, settings: Settings) -> Array:
    return state.weights if settings.weights_update == "none" else expected.n / n_rows


def _penalty(penalty: Penalty, priors: tuple[PriorMatrix, ...], inverse: Array | None) -> float:
    total = 0.0
    for prior in priors:
        if penalty.strength > 0 and prior.kind == "unconstrained":
            U = prior.matrix if inverse is None else symmetrise(inverse @ prior.matrix @ inverse.T)
            total += penalty.value(U, prior.penalty_scale)
    return total


def cov_ud(
    data: MashData | StoredData,
    n_rank1: int = 0,
    n_unconstrained: int = 8,
    U_scaled: Any = "default",
    U_rank1: Any = None,
    U_unconstrained: Any = None,
    scaled_update: str | None = None,
    rank1_update: str | None = None,
    unconstrained_update: str | None = None,
    resid_update: str = "none",
    weights_update: str = "em",
    lambda_: float = 0.0,
    penalty_type: str = "iw",
    maxiter: int = 20,
    minval: float = 1e-8,
    tol: float = 1e-6,
    tol_lik: float = 1e-3,
    seed: int | np.random.SeedSequence | np.random.Generator | None = 1,
    subset: Any = None,
    details: bool = False,
    threads: int | None = None,
) -> Any:
    """Fit scaled, rank-1 and unconstrained covariance matrices to (strong) effects together.

    Parameters
    ----------
    data : MashData or StoredData
        Of data in a store, the subset is read into memory.
        With ``alpha`` 0 or 1. Missing cells under ``missing="exact"`` are marginalised.
    n_rank1, n_unconstrained : int
        How many random starts of each kind (ignored where matrices are given).
    U_scaled : dict or list of (R, R) arrays, None or "default"
        Fixed matrices whose scale is estimated. "default" is the identity and ``11^T + 1e-4 I``.
    U_rank1 : dict or list of (R,) vectors or (R, R) arrays of rank 1, optional
    U_unconstrained : dict or list of (R, R) arrays, optional
        Starting values.
    scaled_update : {"em", "fa", "none"}, optional
        Default "em" (the best scale).
    rank1_update : {"ted", "fa", "none"}, optional
    unconstrained_update : {"ted", "ed", "fa", "none"}, optional
        Truncated eigenvalues, extreme deconvolution, or factor analysis. Default "ted" for both
        when the effects share one error covariance, else "fa" for rank 1 and "ed".
    resid_update : {"none", "em"}
        Whether to estimate the (common) error covariance.
    weights_update : {"em", "none"}
    lambda_ : float
        Strength of the penalty on unconstrained matrices.
    penalty_type : {"iw", "nu"}
        Inverse Wishart or nuclear norm.
    maxiter : int
    minval : float
        Smallest eigenvalue kept by "fa".
    tol, tol_lik : float
        Stop when no parameter changes by ``tol``, or when the penalised log-likelihood gains less
        than ``tol_lik``.
    seed : int, SeedSequence, Generator or None
        Of the random starts.
    subset : integer or bool array, optional
        The effects to learn from. Default all.
    details : bool
        Return the whole fit.
    threads : int, optional
        Never changes the numbers.

    Returns
    -------
    dict of str to (R, R) array, or with ``details`` a dict of ``Ulist``, ``pi`` (K,), ``V`` (the
    common error covariance or None), ``loglik``, ``objective`` (penalised log-likelihood at the
    start and after each iteration), ``niter`` and ``converged``

    Raises
    ------
    InputError
        The matrices or the data cannot be used.
    OptionError
        An option is unknown, out of range, or needs one error covariance common to all effects.

    Notes
    -----
    Model and updates as in the R package udr. Cost per iteration: 4 J K R^2 flops with common
    errors, O(J K R^3) otherwise.
    """
    if data.alpha not in (0, 1):
        raise OptionError(f"cov_ud needs alpha 0 or 1; the data have alpha={data.alpha:g}.")
    rows, chosen = take_effects(data, subset)
    is_common = bool(chosen.reference_rows(slice(None)).all())
    defaults = ("em", "ted", "ted") if is_common else ("em", "fa", "ed")
    settings = Settings(
        scaled_update or defaults[0],
        rank1_update or defaults[1],
        unconstrained_update or defaults[2],
        resid_update,
        weights_update,
        Penalty(float(lambda_), penalty_type),
        float(minval),
        threads,
    )
    _check(settings, is_common, maxiter)
    width = data.n_conditions
    random = np.random.default_rng(seed)
    priors = (
        *_scaled_priors(U_scaled, width),
        *_rank1_priors(U_rank1, n_rank1, width, random),
        *_unconstrained_priors(U_unconstrained, n_unconstrained, width, random),
    )
    _check_names(priors)
    V = chosen.reference_cov() if is_common else None
    state = State(priors, np.full(len(priors), 1.0 / len(priors)), V)
    with naming_rows(rows):
        problem: CommonProblem | RowProblem = (
            CommonProblem(chosen, settings) if is_common else RowProblem(chosen, settings, priors)
        )
        fit = _fit(problem, state, int(maxiter), float(tol), float(tol_lik))
    return fit if details else fit["Ulist"]


def _fit(
    problem: CommonProblem | RowProblem, state: State, maxiter: int, tol: float, tol_lik: float
) -> dict[str, Any]:
    converged = False
    with stage("ultimate deconvolution", maxiter) as advance:
        expected = problem.expect(state)
        objective = [expected.objective]
        while len(objective) <= maxiter and not converged:
            before = state
            state = problem.improve(state, expected)
            expected = problem.expect(state)
            objective.append(expected.objective)
            advance(1, f"log-likelihood {expected.objective:.4f}")
            gain = objective[-1] - objective[-2]
            converged = gain < tol_lik or _largest_change(before, state) < tol
    return {
        "Ulist": {prior.name: prior.matrix for prior in state.priors},
        "pi": state.weights,
        "V": state.V,
        "loglik": expected.log_likelihood,
        "objective": np.array(objective),
        "niter": len(objective) - 1,
        "converged": converged,
    }


def _largest_change(before: State, after: State) -> float:
    changes = [float(np.abs(after.weights - before.weights).max())]
    changes += [
        float(np.abs(new.matrix - old.matrix).max())
        for old, new in zip(before.priors, after.priors, strict=True)
    ]
    if before.V is not None and after.V is not None:
        changes.append(float(np.abs(after.V - before.V).max()))
    return max(changes)


def _check(settings: Settings, is_common: bool, maxiter: int) -> None:
    for name, allowed in _METHODS.items():
        value = settings.penalty.kind if name == "penalty_type" else getattr(settings, name)
        if value not in allowed:
            raise OptionError(f"{name} is {value!r}; choose from {', '.join(allowed)}.")
    if int(maxiter) < 1:
        raise OptionError(f"maxiter is {maxiter}; it must be at least 1.")
    strength = settings.penalty.strength
    if not (np.isfinite(strength) and strength >= 0):
        raise OptionError(f"lambda_ is {strength}; it must be zero or positive.")
    if strength > 0 and settings.unconstrained_update == "fa":
        raise OptionError(
            "unconstrained_update='fa' has no penalty: use 'ted' or 'ed' with lambda_."
        )
    if strength > 0 and settings.resid_update == "em":
        raise OptionError(
            "the penalty is measured in units of the error covariance, which resid_update='em' "
            "changes: use one or the other."
        )
    needs_common = [
        f"{name}='{value}'"
        for name, value, bad in (
            ("rank1_update", settings.rank1_update, ("ted",)),
            ("unconstrained_update", settings.unconstrained_update, ("ted", "fa")),
            ("resid_update", settings.resid_update, ("em",)),
        )
        if value in bad
    ]
    if needs_common and not is_common:
        raise OptionError(
            f"{', '.join(needs_common)} needs one error covariance common to all effects, with no "
            "cell missing; these data have one per effect."
        )


def _named(matrices: Any, prefix: str) -> dict[str, Any]:
    if matrices is None:
        return {}
    if isinstance(matrices, Mapping):
        return {str(name): matrix for name, matrix in matrices.items()}
    return {f"{prefix}_{i + 1}": matrix for i, matrix in enumerate(matrices)}


def _scaled_priors(given: Any, width: int) -> list[PriorMatrix]:
    if isinstance(given, str):
        if given != "default":
            raise OptionError(f"U_scaled is {given!r}; give matrices, None or 'default'.")
        given = {
            "identity": np.eye(width),
            "equal_effects": np.ones((width, width)) + 1e-4 * np.eye(width),
        }
    named = _named(given, "scaled")
    checked = check_Ulist(named, width) if named else {}
    return [PriorMatrix(name, "scaled", U, base=U) for name, U in checked.items()]


def _rank1_priors(
    given: Any, count: int, width: int, random: np.random.Generator
) -> list[PriorMatrix]:
    named = _named(given, "rank1") or {
        f"rank1_{i + 1}": random.standard_normal(width) for i in range(_count(count, "n_rank1"))
    }
    return [_rank1(name, value, width) for name, value in named.items()]


def _rank1(name: str, given: Any, width: int) -> PriorMatrix:
    value = np.array(given, dtype=np.float64)
    if value.ndim == 2 and width > 1:
        matrix = check_Ulist({name: value}, width)[name]
        values, vectors = np.linalg.eigh(matrix)
        if width > 1 and values[-2] > 1e-8 * values[-1]:
            raise InputError(f"U_rank1[{name!r}] has a rank above 1.")
        value = vectors[:, -1] * np.sqrt(max(values[-1], 0.0))
    value = value.reshape(-1)
    if value.shape != (width,) or not np.isfinite(value).all():
        raise ShapeError(f"U_rank1[{name!r}] must be a finite vector of length {width}.")
    return PriorMatrix(name, "rank1", np.outer(value, value), vector=value)


def _unconstrained_priors(
    given: Any, count: int, width: int, random: np.random.Generator
) -> list[PriorMatrix]:
    named = _named(given, "unconstrained")
    if not named:
        for i in range(_count(count, "n_unconstrained")):
            draws = random.standard_normal((max(4, width), width))
            named[f"unconstrained_{i + 1}"] = draws.T @ draws
    checked = check_Ulist(named, width) if named else {}
    return [PriorMatrix(name, "unconstrained", U) for name, U in checked.items()]


def _count(count: int, name: str) -> int:
    if count < 0 or int(count) != count:
        raise OptionError(f"{name} is {count}; it must be zero or a positive whole number.")
    return int(count)


def _check_names(priors: tuple[PriorMatrix, ...]) -> None:
    names = [prior.name for prior in priors]
    if not names:
        raise InputError("there is no prior matrix: give or ask for at least one.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"prior matrices of different kinds have the same name: {', '.join(twice)}."
        )
