"""Updates of one prior covariance in ultimate deconvolution (`cov_ud`), given responsibilities.

Unless a function says otherwise the errors are ``N(0, I)`` (whitened), ``n = sum_j p_j`` is the
total responsibility of the component and ``moment = sum_j p_j x_j x_j^T / n``. Every update raises
(or keeps) the penalised expected log-likelihood

    -1/2 n [ log det(U + I) + tr((U + I)^{-1} moment) ] - 1/2 penalty(U)
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_SMALLEST_EIGENVALUE = 1e-8
_LARGEST_EIGENVALUE = 1e6
_LARGEST_SCALE = 1e6
_BALANCE = 0.5
"""Share ``a`` of the nuclear norm of U (against that of its inverse) in the penalty "nu"."""


@dataclass(frozen=True)
class Penalty:
    """Strength ``lambda`` and kind ("iw" or "nu") of the penalty on unconstrained matrices.

    With the eigenvalues u of U and a scale ``s2`` that is estimated along,

        iw:  lambda sum( log u + s2 / u - log s2 )      (inverse Wishart)
        nu:  lambda sum( a u / s2 + (1 - a) s2 / u )    (nuclear norms, a = 1/2)
    """

    strength: float = 0.0
    kind: str = "iw"

    def value(self, U: Array, s2: float) -> float:
        """Return the penalty of a matrix."""
        if self.strength == 0:
            return 0.0
        u = np.maximum(np.linalg.eigvalsh(U), _SMALLEST_EIGENVALUE)
        if self.kind == "iw":
            terms = np.log(u) + s2 / u - np.log(s2)
        else:
            terms = _BALANCE * u / s2 + (1 - _BALANCE) * s2 / u
        return self.strength * float(terms.sum())

    def scale(self, U: Array) -> float:
        """Return the ``s2`` with the smallest penalty for a matrix."""
        u = np.maximum(np.linalg.eigvalsh(U), _SMALLEST_EIGENVALUE)
        inverse = float(np.sum(1 / u))
        if self.kind == "iw":
            return len(u) / inverse
        return float(np.sqrt(_BALANCE / (1 - _BALANCE) * float(u.sum()) / inverse))


def _compose(vectors: Array, values: Array) -> Array:
    matrix: Array = (vectors * values) @ vectors.T
    return matrix


def truncated_eigenvalues(moment: Array, rank: int | None = None) -> Array:
    """TED: the maximum-likelihood U, of at most the given rank (Won et al. 2013)."""
    values, vectors = np.linalg.eigh(moment)
    kept = np.maximum(values - 1.0, 0.0)
    if rank is not None:
        kept[: len(kept) - rank] = 0.0
    return _compose(vectors, kept)


def penalised_eigenvalues(moment: Array, n: float, penalty: Penalty, s2: float) -> Array:
    """TED with a penalty: every eigenvalue of the moment solves a problem of its own."""
    values, vectors = np.linalg.eigh(moment)
    kept = np.array([_best_eigenvalue(n, float(d), penalty, s2) for d in values])
    return _compose(vectors, kept)


def _best_eigenvalue(n: float, d: float, penalty: Penalty, s2: float) -> float:
    """Minimise ``n log(u+1) + n d/(u+1) + penalty(u)`` over the allowed range.

    The stationary points are the positive roots of the derivative times ``u^2 (u+1)^2``.
    """
    strength = penalty.strength
    a = strength * _BALANCE / s2
    b = strength * (1 - _BALANCE) * s2
    if penalty.kind == "iw":
        ls = strength * s2
        coefficients = [n + strength, n - n * d + 2 * strength - ls, strength - 2 * ls, -ls]
    else:
        coefficients = [a, n + 2 * a, n - n * d + a - b, -2 * b, -b]
    roots = np.roots(coefficients)
    real = roots.real[np.abs(roots.imag) <= 1e-6 * np.abs(roots)]
    inside = real[(real > _SMALLEST_EIGENVALUE) & (real < _LARGEST_EIGENVALUE)]
    u = np.concatenate([[_SMALLEST_EIGENVALUE, _LARGEST_EIGENVALUE], inside])
    costs = n * np.log1p(u) + n * d / (1 + u)
    costs += strength * np.log(u) + strength * s2 / u if penalty.kind == "iw" else a * u + b / u
    return float(u[int(np.argmin(costs))])


def extreme_deconvolution_update(
    U: Array, W: Array, n: float, penalty: Penalty, s2: float
) -> Array:
    """ED: the posterior second moment ``U + U W U / n``, drawn to the penalty's centre.

    Holds in any coordinates and for any errors; ``W`` is that of `deconvolution_statistics`.
    """
    moment = U + U @ W @ U / n
    moment = 0.5 * (moment + moment.T)
    if penalty.strength == 0:
        return moment
    if penalty.kind == "iw":
        centre = penalty.strength * s2 * np.eye(len(U))
        drawn: Array = (n * moment + centre) / (n + penalty.strength)
        return drawn
    # n log u + (n d + b) / u + a u is smallest at the positive root of a u^2 + n u - (n d + b).
    values, vectors = np.linalg.eigh(moment)
    a = penalty.strength * _BALANCE / s2
    c = n * np.maximum(values, 0.0) + penalty.strength * (1 - _BALANCE) * s2
    root = 2 * c / (n + np.sqrt(n**2 + 4 * a * c))
    return _compose(vectors, root)


def factor_analysis_update(U: Array, moment: Array, minval: float) -> Array:
    """FA: one EM step for the factor F of ``U = F F^T`` (Rubin and Thayer 1982)."""
    values, vectors = np.linalg.eigh(U)
    keep = values > minval
    if not keep.any():
        return U
    F = vectors[:, keep] * np.sqrt(values[keep])
    spread = np.linalg.inv(F.T @ F + np.eye(F.shape[1]))
    cross = moment @ F @ spread
    F = np.linalg.solve(spread @ F.T @ cross + spread, cross.T).T
    updated: Array = F @ F.T + minval * np.eye(len(U))
    return updated


def rank1_factor_update(u: Array, moment: Array) -> Array:
    """FA for ``U = u u^T``."""
    s = 1.0 / (float(u @ u) + 1.0)
    projected = moment @ u
    updated: Array = s * projected / (s * s * float(u @ projected) + s)
    return updated


def rank1_row_sums(u: Array, inverses: Array, scaled: Array, p: Array) -> tuple[Array, Array]:
    """FA for ``U = u u^T`` with errors of each row: sums over rows of its matrix and vector.

    ``inverses`` (n, R, R) are the ``V_j^{-1}``, ``scaled`` (n, R) the ``V_j^{-1} x_j``; the update
    solves the summed matrix against the summed vector.
    """
    s = 1.0 / (np.einsum("r,jrs,s->j", u, inverses, u) + 1.0)
    m = s * (scaled @ u)
    return np.tensordot(p * (m * m + s), inverses, axes=1), (p * m) @ scaled


def scale_terms(base: Array, inverses: Array, scaled: Array) -> tuple[Array, Array]:
    """Eigenvalues ``lam`` (n, R) of the whitened fixed matrix, and ``lam y^2`` of the rotated rows.

    With ``base = F F^T`` both come from ``F^T V_j^{-1} F``, so that a singular base needs no care.
    """
    values, vectors = np.linalg.eigh(base)
    F = vectors * np.sqrt(np.maximum(values, 0.0))
    lam, rotations = np.linalg.eigh(F.T @ inverses @ F)
    projected = np.einsum("jrs,jr->js", rotations, scaled @ F)
    return np.maximum(lam, 0.0), projected**2


def common_scale_terms(base: Array, moment: Array) -> tuple[Array, Array]:
    """Return `scale_terms` as (1, R) for errors ``N(0, I)``, averaged over the rows."""
    values, vectors = np.linalg.eigh(base)
    values = np.maximum(values, 0.0)
    return values[None], (values * np.einsum("rs,rt,ts->s", vectors, moment, vectors))[None]


def scale_em(lam: Array, power: Array, p: Array, current: float) -> float:
    """Maximise the log-likelihood over the scale s of ``s U0`` on [0, 1e6].

    All stationary points are bracketed on a logarithmic grid; with several, or when the derivative
    at 0 is negative but a larger s is better still, the best one wins: no update goes downhill.
    """
    from scipy.optimize import brentq

    def slope(s: float) -> float:
        shrunk = 1.0 + s * lam
        return float(p @ np.sum(power / shrunk**2 - lam / shrunk, axis=1))

    def gain(s: float) -> float:
        shrunk = 1.0 + s * lam
        return float(p @ np.sum(s * power / shrunk - np.log(shrunk), axis=1))

    largest = float(lam.max(initial=0.0))
    if largest == 0.0:
        return current
    grid = np.concatenate([[0.0], np.geomspace(1e-9, 1e9, 55) / largest])
    grid = np.append(grid[grid < _LARGEST_SCALE], _LARGEST_SCALE)
    slopes = [slope(float(s)) for s in grid]
    candidates = [0.0, current]
    for i in range(len(grid) - 1):
        if slopes[i] > 0 >= slopes[i + 1]:
            low, high = float(grid[i]), float(grid[i + 1])
            candidates.append(float(brentq(slope, low, high, xtol=1e-14, rtol=1e-12)))
    if slopes[-1] > 0:
        candidates.append(_LARGEST_SCALE)
    return max(candidates, key=gain)


def scale_factor_update(lam: Array, power: Array, p: Array, current: float, rank: int) -> float:
    """FA for the scale: the mean posterior second moment of the standardised factors.

    The factors of a base matrix of rank ``rank`` are the last ``rank`` columns; where one of them
    is 0 (all its cells are missing) the posterior is the prior.
    """
    if current == 0.0 or rank == 0:
        return current
    spread = current / (1.0 + current * lam[:, -rank:])
    return float(p @ np.sum(power[:, -rank:] * spread**2 + spread, axis=1)) / (
        float(p.sum()) * rank
    )


def residual_update(covariances: Array, V: Array, n: Array, scatter: Array) -> Array:
    """EM step for the error covariance V common to all rows.

    ``(1/J) sum_jk p_jk [ C_k + (x_j - m_jk)(x_j - m_jk)^T ]`` with the posterior means and
    covariances of the components; equal to the formula in the moments of the mixture's posterior.
    """
    gains = np.linalg.solve(covariances + V, covariances).transpose(0, 2, 1)
    left = np.eye(len(V)) - gains
    posterior = left @ covariances
    total = np.einsum("k,krs->rs", n, posterior) + np.sum(
        left @ scatter @ left.transpose(0, 2, 1), axis=0
    )
    updated: Array = total / n.sum()
    return 0.5 * (updated + updated.T)


def embedded_inverses(sigma: Array, observed: NDArray[np.bool_]) -> Array:
    """Inverses (n, R, R) of the observed blocks, with zeros for missing cells."""
    both = observed[:, :, None] & observed[:, None, :]
    missing = np.eye(sigma.shape[1]) * ~observed[:, None, :]
    inverses = np.linalg.inv(np.where(both, sigma, missing))
    return np.where(both, 0.5 * (inverses + inverses.transpose(0, 2, 1)), 0.0)
