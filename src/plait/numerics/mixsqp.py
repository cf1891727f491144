"""mixsqp and optimize_pi: the interfaces that users of the original programs know."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import ConvergenceError, ConvergenceWarning, InputError, OptionError, ShapeError
from plait.numerics.mixture_weights import (
    CERTIFIED,
    as_vector,
    check_control,
    check_likelihoods,
    fit_mixture_weights,
)

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MixsqpResult:
    """What `mixsqp` returns; see there."""

    x: Array
    status: str
    value: float
    grad: Array
    hessian: Array
    progress: dict[str, Any]
    dual_gap: float


def mixsqp(
    L: ArrayLike,
    w: ArrayLike | None = None,
    x0: ArrayLike | None = None,
    log: bool = False,
    control: Mapping[str, Any] | None = None,
) -> MixsqpResult:
    """Maximum-likelihood estimation of mixture proportions, certified.

    Parameters
    ----------
    L : (n, P) array
        Likelihoods, or their logarithms with ``log=True``.
    w : (n,) array, optional
        Positive weights of the rows, normalised to sum 1. Default equal.
    x0 : (P,) array, optional
        Start. Default uniform.
    log : bool
    control : mapping, optional
        See `check_control`.

    Returns
    -------
    MixsqpResult
        ``x`` (P,) with sum 1, ``status``, ``value`` (``-sum_j w_j log (L x)_j``), ``grad`` and
        ``hessian`` of the scaled problem at ``x``, ``progress`` and ``dual_gap``.

    Notes
    -----
    Kim, Carbonetto, Stephens and Anitescu (2020), with two differences: no smoothing of the
    likelihoods, and optimality tested over all coordinates.
    """
    settings = check_control(control)
    values = np.asarray(L, dtype=np.float64)
    offset = np.zeros(values.shape[0] if values.ndim == 2 else 0)
    if log:
        if values.ndim != 2 or np.isnan(values).any() or np.isposinf(values).any():
            raise InputError("the log-likelihood matrix must be 2-D, without NaN or +inf.")
        offset = values.max(axis=1)
        values = np.exp(values - offset[:, None])
    values = check_likelihoods(values)
    scale = values.max(axis=1)
    values = values / scale[:, None]
    offset = offset + np.log(scale)
    rows = as_vector(w, len(values), "w", 1.0)
    rows = rows / rows.sum()
    usable = np.flatnonzero(values.max(axis=0) > 0)
    if len(usable) < values.shape[1]:
        warnings.warn(
            f"{values.shape[1] - len(usable)} columns of L are zero; their weight is 0.",
            ConvergenceWarning,
            stacklevel=2,
        )
    x = np.zeros(values.shape[1])
    iterations = 0
    if len(usable) == 1:
        x[usable] = 1.0
        status = "SQP algorithm was not run"
    else:
        start = None if x0 is None else np.asarray(x0, dtype=np.float64)[usable]
        fit = fit_mixture_weights(values[:, usable], rows, initial=start, control=control)
        x[usable], status, iterations = fit.pi, fit.status, fit.iterations
    mixture = values @ x
    if np.any(mixture <= 0):
        raise ConvergenceError("mixsqp ended at weights that leave a row without likelihood.")
    scaled = values / mixture[:, None]
    gradient = -(rows @ scaled)
    gap = float(-gradient.min() - 1)
    if gap > CERTIFIED:
        warnings.warn(
            f"mixsqp stopped after {iterations} of {settings['maxiter_sqp']} iterations with dual "
            f"gap {gap:.2g}.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return MixsqpResult(
        x=x,
        status=status,
        value=float(-rows @ (np.log(mixture) + offset)),
        grad=gradient,
        hessian=(scaled * rows[:, None]).T @ scaled,
        progress={"iterations": iterations},
        dual_gap=gap,
    )


def optimize_pi(
    matrix_lik: ArrayLike,
    pi_init: ArrayLike | None = None,
    prior: ArrayLike | None = None,
    method: str = "mixsqp",
    control: Mapping[str, Any] | None = None,
    weights: ArrayLike | None = None,
) -> Array:
    """Return the (P,) mixture weights that maximise the penalised likelihood.

    Parameters
    ----------
    matrix_lik : (n, P) array
        Finite, non-negative likelihoods.
    pi_init : (P,) array, optional
    prior : (P,) array, optional
        Dirichlet parameters, at least 1. Default 1 (no penalty).
    method, control, weights
        As in `fit_mixture_weights`.
    """
    values = check_likelihoods(matrix_lik)
    counts = None
    if prior is not None:
        parameters = np.asarray(prior, dtype=np.float64)
        if parameters.shape != (values.shape[1],):
            raise ShapeError(
                f"prior has the wrong length: {parameters.shape}, expected ({values.shape[1]},)."
            )
        if np.any(parameters < 1):
            raise OptionError("prior parameters must be at least 1.")
        counts = parameters - 1
    fit = fit_mixture_weights(
        values, weights, counts, method=method, control=control, initial=pi_init
    )
    return fit.pi
