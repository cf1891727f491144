"""Tails of weighted sums of independent yes-or-no events, to full depth."""

import math

import numpy as np
from numpy.typing import ArrayLike

from plait.errors import InputError, ShapeError

_LOG_10 = math.log(10.0)


def log10_tail(
    value: float,
    weights: ArrayLike,
    probabilities: ArrayLike,
    *,
    alternative: str = "two-sided",
    extra_variance: float = 0.0,
) -> float:
    """Return log10 of the tail of a weighted sum of independent Bernoulli variables.

    The sum is ``S = sum_i w_i (x_i - p_i) + e`` with ``x_i ~ Bernoulli(p_i)`` and
    ``e ~ N(0, extra_variance)``; its mean is 0.

    Parameters
    ----------
    value : float
        Where the tail begins, as a deviation from the mean.
    weights, probabilities : (n,) arrays
    alternative : {"two-sided", "greater", "less"}
        ``P(|S| >= |value|)``, ``P(S >= value)`` or ``P(S <= value)``.
    extra_variance : float
        Variance of a normal part: of many terms too small to be followed one by one (Dey et al.
        2017, American Journal of Human Genetics 101, the fast version).

    Returns
    -------
    float
        At most 0; minus infinity beyond the support.

    Notes
    -----
    Barndorff-Nielsen's form (1986, Biometrika 73): with ``K'(s) = c``,

        r = sign(s) sqrt(2 (s c - K(s))),  u = s sqrt(K''(s)),  P ~ Phi(-(r + ln(u / r) / r)),

    which has the error of Lugannani and Rice's formula but stays inside [0, 1]. Within 0.03
    standard deviations of the mean it is replaced by its limit, Edgeworth's expansion, and so are
    both tails together where S is so nearly normal that one pass over the terms suffices (within
    0.1 percent). Where S has few, evenly spaced values the result lies between ``P(S > c)`` and
    ``P(S >= c)``.
    """
    from plait.numerics.saddlepoint_kernels import log_two_sided, log_upper_tail

    w = np.ascontiguousarray(weights, dtype=np.float64)
    p = np.ascontiguousarray(probabilities, dtype=np.float64)
    if w.ndim != 1 or w.shape != p.shape:
        raise ShapeError(f"weights have shape {w.shape} and probabilities {p.shape}.")
    if not ((p >= 0) & (p <= 1)).all():
        raise InputError("probabilities must lie between 0 and 1.")
    if not (np.isfinite(w).all() and math.isfinite(value)):
        raise InputError("the value and all weights must be finite.")
    if not extra_variance >= 0:
        raise InputError(f"extra_variance is {extra_variance}; it cannot be negative.")
    c, extra = float(value), float(extra_variance)
    if alternative == "two-sided":
        return float(log_two_sided(c, w, p, extra)) / _LOG_10
    if alternative == "greater":
        return float(log_upper_tail(c, w, p, 1.0, extra)) / _LOG_10
    if alternative == "less":
        return float(log_upper_tail(-c, w, p, -1.0, extra)) / _LOG_10
    raise InputError(f"alternative is {alternative!r}; give 'two-sided', 'greater' or 'less'.")
