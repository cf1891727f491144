"""Simulated effects in several conditions, with known truth."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import OptionError, ShapeError

Array = NDArray[np.float64]


def _observed(effects: Array, err_sd: float, random: np.random.Generator) -> dict[str, Array]:
    noise = err_sd * random.standard_normal(effects.shape)
    return {"B": effects, "Bhat": effects + noise, "Shat": np.full(effects.shape, float(err_sd))}


def simple_sims(
    nsamp: int = 100, ncond: int = 5, err_sd: float = 0.01, seed: int | None = None
) -> dict[str, Array]:
    """Simulate four kinds of effects: null, independent, in condition 1 alone, and equal.

    Parameters
    ----------
    nsamp : int
        Effects of each kind.
    ncond : int
        Conditions.
    err_sd : float
        Standard error.
    seed : int, optional

    Returns
    -------
    dict
        ``B`` (truth), ``Bhat`` and ``Shat``, (4 nsamp, ncond) arrays; effects are N(0, 1).
    """
    random = np.random.default_rng(seed)
    effects = np.zeros((4, nsamp, ncond))
    effects[1] = random.standard_normal((nsamp, ncond))
    effects[2, :, 0] = random.standard_normal(nsamp)
    effects[3] = random.standard_normal((nsamp, 1))
    return _observed(effects.reshape(4 * nsamp, ncond), err_sd, random)


def simple_sims2(
    nsamp: int = 100, err_sd: float = 0.01, seed: int | None = None
) -> dict[str, Array]:
    """Simulate 5 conditions in two blocks: effects equal in 1-2, or equal in 3-5.

    Parameters
    ----------
    nsamp : int
        Effects of each kind.
    err_sd : float
        Standard error.
    seed : int, optional

    Returns
    -------
    dict
        ``B`` (truth), ``Bhat`` and ``Shat``, (2 nsamp, 5) arrays; effects are N(0, 1).
    """
    random = np.random.default_rng(seed)
    effects = np.zeros((2, nsamp, 5))
    effects[0, :, :2] = random.standard_normal((nsamp, 1))
    effects[1, :, 2:] = random.standard_normal((nsamp, 1))
    return _observed(effects.reshape(2 * nsamp, 5), err_sd, random)


def sim_contrast1(
    nsamp: int = 100,
    ncond: int = 5,
    err_sd: float = float(np.sqrt(0.5)),
    seed: int | None = None,
) -> dict[str, Array]:
    """Simulate a baseline N(10, 1) that is the same in every condition: contrasts are null.

    Parameters
    ----------
    nsamp, ncond : int
        Effects and conditions.
    err_sd : float
        Standard error. Default the square root of 1/2.
    seed : int, optional

    Returns
    -------
    dict
        ``B`` (truth), ``Bhat`` and ``Shat``, (nsamp, ncond) arrays.
    """
    random = np.random.default_rng(seed)
    baseline = 10 + random.standard_normal((nsamp, 1))
    return _observed(np.repeat(baseline, ncond, axis=1), err_sd, random)


def sim_contrast2(
    nsamp: int = 1000,
    ncond: int = 5,
    err_sd: float = float(np.sqrt(0.5)),
    seed: int | None = None,
) -> dict[str, Array]:
    """Simulate a baseline with deviations in a tenth of the effects; the last condition has none.

    A third of the deviations are independent, a third identical, the rest in condition 1 alone;
    all are N(0, 1).

    Parameters
    ----------
    nsamp, ncond, err_sd, seed
        As in `sim_contrast1`.

    Returns
    -------
    dict
        ``B`` (truth), ``Bhat`` and ``Shat``, (nsamp, ncond) arrays; null effects come first.
    """
    random = np.random.default_rng(seed)
    effects = np.repeat(10 + random.standard_normal((nsamp, 1)), ncond, axis=1)
    active = int(np.ceil(0.1 * nsamp))
    third = active // 3
    deviations = np.zeros((nsamp, ncond))
    start = nsamp - active
    deviations[start : start + third, :-1] = random.standard_normal((third, ncond - 1))
    deviations[start + third : start + 2 * third, :-1] = random.standard_normal((third, 1))
    deviations[start + 2 * third :, 0] = random.standard_normal(active - 2 * third)
    return _observed(effects + deviations, err_sd, random)


def simulate_effects(
    n_effects: int,
    covariances: Mapping[str, ArrayLike],
    weights: Mapping[str, float],
    *,
    error_correlation: ArrayLike | None = None,
    error_spread: float = 0.0,
    missing: float = 0.0,
    seed: int | None = None,
) -> dict[str, NDArray[Any]]:
    """Simulate effects from a mixture of covariances, observed with error.

    Parameters
    ----------
    n_effects : int
    covariances : mapping of str to (R, R) array
        Prior covariances of the effects, positive semi-definite.
    weights : mapping of str to float
        Share of each covariance; the rest of the effects are null.
    error_correlation : (R, R) array, optional
        Default the identity.
    error_spread : float
        Standard deviation of the logarithm of the standard errors, whose median is 1. Default 0:
        every standard error is 1.
    missing : float
        Share of cells that are missing (NaN in ``Bhat`` and ``Shat``), from 0 to 1.
    seed : int, optional

    Returns
    -------
    dict
        ``B`` (truth), ``Bhat``, ``Shat`` (J, R), and ``component`` (J,): the index of the
        covariance an effect was drawn from, -1 for the null.

    Raises
    ------
    OptionError, ShapeError
        The weights or the missing share are out of range, a weight has no covariance, or the
        matrices have different sizes.
    """
    matrices = _checked_mixture(covariances, weights, error_correlation, missing)
    random = np.random.default_rng(seed)
    shares = np.array([weights.get(name, 0.0) for name in matrices])
    width = len(next(iter(matrices.values())))
    chosen = random.choice(
        len(shares) + 1, n_effects, p=np.append(shares, max(1 - shares.sum(), 0.0))
    )
    chosen = np.where(chosen == len(shares), -1, chosen)
    effects = np.zeros((n_effects, width))
    for k, U in enumerate(matrices.values()):
        values, vectors = np.linalg.eigh(U)
        factor = vectors * np.sqrt(np.maximum(values, 0.0))
        rows = np.flatnonzero(chosen == k)
        effects[rows] = random.standard_normal((len(rows), width)) @ factor.T
    V = np.eye(width) if error_correlation is None else np.asarray(error_correlation, float)
    shat = np.exp(error_spread * random.standard_normal((n_effects, width)))
    noise = random.standard_normal((n_effects, width)) @ np.linalg.cholesky(V).T
    bhat = effects + shat * noise
    if missing > 0:
        holes = random.random((n_effects, width)) < missing
        bhat[holes] = np.nan
        shat[holes] = np.nan
    return {"B": effects, "Bhat": bhat, "Shat": shat, "component": chosen}


def _checked_mixture(
    covariances: Mapping[str, ArrayLike],
    weights: Mapping[str, float],
    error_correlation: ArrayLike | None,
    missing: float,
) -> dict[str, Array]:
    """Return the covariances as arrays, or say what does not fit together."""
    matrices = {name: np.asarray(U, dtype=np.float64) for name, U in covariances.items()}
    if not matrices:
        raise OptionError("covariances is empty: give at least one (its weight may be 0).")
    width = len(next(iter(matrices.values())))
    others = {} if error_correlation is None else {"error_correlation": error_correlation}
    for name, U in {**matrices, **others}.items():
        if np.shape(U) != (width, width):
            raise ShapeError(f"{name} has shape {np.shape(U)}; expected {(width, width)}.")
    if unknown := sorted(set(weights) - set(matrices)):
        raise OptionError(f"weights names {', '.join(unknown)}, which is no covariance.")
    shares = np.array(list(weights.values()), dtype=np.float64)
    if np.any(shares < 0) or shares.sum() > 1 + 1e-12:
        raise OptionError("weights must not be negative and must sum to at most 1.")
    if not 0 <= missing <= 1:
        raise OptionError(f"missing is {missing:g}; it must be from 0 to 1.")
    return matrices
