"""Unbiased p-values of single tests at any depth, to check the analytic ones by."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from plait.crt.null_statistics import residual_table, treated_sums
from plait.crt.propensity import SMALLEST_PROPENSITY
from plait.crt.resampling import BernoulliResampler, check_probabilities
from plait.crt.seeds import UnitStream
from plait.errors import InputError, OptionError, ShapeError

Array = NDArray[np.float64]
_LOG_10 = math.log(10.0)
_NO_VARIATION = 1e-6
"""Share of n1 below which D is rounding."""
_TIE = 1e-6


class ImportanceEstimate(NamedTuple):
    """An estimated p-value.

    Attributes
    ----------
    log10_p : float
        Minus infinity where no draw was extreme.
    relative_error : float
        Its standard error, as a share of p.
    """

    log10_p: float
    relative_error: float


def importance_p_value(
    residuals: Array,
    basis: Array,
    probabilities: Array,
    beta: float,
    *,
    stream: UnitStream,
    side: str = "both",
    draws: int = 10_240,
) -> ImportanceEstimate:
    """Estimate one p-value under Bernoulli resampling by importance sampling.

    Parameters
    ----------
    residuals : (cells,) array
        Of the program, orthogonal to the covariates.
    basis : (cells, p) array
        Orthonormal basis of the covariates.
    probabilities : (cells,) array
        Propensities of the unit.
    beta : float
        The observed effect; not 0 for both sides.
    stream : UnitStream
        The random numbers.
    side : {"both", "left", "right"}
        As of `analytic_p_values`.
    draws : int
        For each tail (10,240).

    Returns
    -------
    ImportanceEstimate

    Raises
    ------
    InputError, ShapeError, OptionError
        The arrays do not fit, or there is no saddlepoint: nothing can be as extreme to first order.

    Notes
    -----
    Treatments are drawn from the tilted law ``q_i = p_i e^(s w_i) / (1 - p_i + p_i e^(s w_i))`` at
    the saddlepoint s of the linear form, under which the observed effect is typical. Each has its
    exact effect S / D and, if that is as extreme, counts ``exp(K(s) - s sum x w)``: the estimate is
    unbiased for the exact p-value, whatever the linear form leaves out. About 2 percent of relative
    error from 10,000 draws at any depth.
    """
    if side not in ("both", "left", "right"):
        raise OptionError(f"side is {side!r}; give 'both', 'left' or 'right'.")
    p = check_probabilities(probabilities)
    p = np.clip(p, SMALLEST_PROPENSITY, 1.0 - SMALLEST_PROPENSITY)
    r = np.ascontiguousarray(residuals, dtype=np.float64)
    if r.ndim != 1 or basis.ndim != 2 or not len(r) == len(basis) == len(p):
        raise ShapeError(
            f"residuals have the shape {r.shape}, the basis {basis.shape} and the propensities "
            f"{p.shape}; they must be of the same cells."
        )
    tails = {
        "both": [(1.0, abs(beta)), (-1.0, abs(beta))],
        "right": [(1.0, beta)],
        "left": [(-1.0, -beta)],
    }[side]
    if side == "both" and beta == 0.0:
        return ImportanceEstimate(0.0, 0.0)
    total, variance = 0.0, 0.0
    found = []
    for sign, threshold in tails:
        part = UnitStream(stream.base_seed, f"{stream.unit}:tilted:{sign:+.0f}")
        found.append(_tail(r, basis, p, sign, threshold, draws, part))
    largest = max(log_mean for log_mean, _ in found)
    if largest == -math.inf:
        return ImportanceEstimate(-math.inf, math.nan)
    for log_mean, error in found:
        share = math.exp(log_mean - largest)
        total += share
        variance += (share * error) ** 2
    return ImportanceEstimate((largest + math.log(total)) / _LOG_10, math.sqrt(variance) / total)


def _tail(
    r: Array, basis: Array, p: Array, sign: float, threshold: float, draws: int, stream: UnitStream
) -> tuple[float, float]:
    """Return the log of P(sign beta* >= threshold) and its relative error."""
    from plait.crt.analytic_kernels import project_denominator
    from plait.numerics.saddlepoint_kernels import saddlepoint_of_many, sum_cumulants

    g = np.empty(len(p))
    leverage = np.einsum("ij,ij->i", basis, basis)
    _, constant, _ = project_denominator(p, np.ascontiguousarray(basis.T), leverage, g)
    w = sign * r - threshold * g
    c = threshold * constant
    mean, variance, third, _, _, smallest, largest = sum_cumulants(w, p)
    if not smallest < c < largest:
        if c <= smallest:
            return 0.0, 0.0
        raise InputError(
            f"the effect {sign * threshold:g} lies beyond what the linear form of the effect can "
            "be; draw treatments instead (staged_p_values)."
        )
    s, _, _ = saddlepoint_of_many(c, w, p, mean, variance, third)
    a = s * w
    q = p / (p + (1.0 - p) * np.exp(-a))
    table = residual_table(np.column_stack([r, w]), basis)
    both, counts = treated_sums(table, BernoulliResampler(q, stream), draws)
    sums, projection = both[:, 1], both[:, 2:]
    denominator = counts - np.einsum("bp,bp->b", projection, projection)
    is_defined = denominator > _NO_VARIATION * counts
    effects = np.zeros(draws)
    np.divide(both[:, 0], denominator, out=effects, where=is_defined)
    log_moment = np.sum(np.log1p(p * np.expm1(np.minimum(a, 700.0))))
    is_extreme = sign * effects >= threshold - _TIE * abs(threshold)
    if not is_extreme.any():
        return -math.inf, math.nan
    log_weights = log_moment - s * sums[is_extreme]
    top = log_weights.max()
    weights = np.zeros(draws)
    weights[is_extreme] = np.exp(log_weights - top)
    average = weights.mean()
    return top + math.log(average), float(weights.std() / average / math.sqrt(draws))
