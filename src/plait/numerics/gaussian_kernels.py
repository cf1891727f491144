"""Compiled inverse of the normal tail; see `plait.numerics.gaussian`."""

import math

from plait.numerics.compiled import njit

_LOG_2 = math.log(2.0)
_ROOT_TWO = math.sqrt(2.0)
_ROOT_TWO_PI = math.sqrt(2.0 * math.pi)
_FAR = 1e10
"""From here on z is ``sqrt(-2 ln Q)`` to the last digit."""


@njit(nogil=True, cache=True)
def fill_z(log_tail, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` with the z of vectors of ln Q(z)."""
    for i in range(log_tail.shape[0]):
        out[i] = z_of_log_tail(log_tail[i])


@njit(nogil=True, cache=True)
def z_of_log_tail(log_tail):  # type: ignore[no-untyped-def]
    """Invert ``ln Q(z)`` by an approximation within 4.5e-4 and two steps that cube the error.

    Abramowitz and Stegun 26.2.23, and Halley's steps: near the centre on ``1 - 2 Q = erf``, which
    has a precise difference from 0, else on ln Q, of which the derivative is minus the hazard.
    """
    if log_tail > -_LOG_2:
        return -_above_centre(math.log1p(-math.exp(log_tail)))
    return _above_centre(log_tail)


@njit(nogil=True, cache=True)
def _above_centre(log_tail):  # type: ignore[no-untyped-def]
    """`z_of_log_tail` for a tail of at most 1/2."""
    if log_tail == -_LOG_2:
        return 0.0
    far = _ROOT_TWO * math.sqrt(-log_tail)
    if far > _FAR:
        return far
    z = far - (2.515517 + far * (0.802853 + far * 0.010328)) / (
        1.0 + far * (1.432788 + far * (0.189269 + far * 0.001308))
    )
    if z < 1.0:
        share = -math.expm1(log_tail + _LOG_2)
        for _ in range(2):
            slope = 2.0 / _ROOT_TWO_PI * math.exp(-0.5 * z * z)
            step = (math.erf(z / _ROOT_TWO) - share) / slope
            z -= step / (1.0 + 0.5 * z * step)
        return z
    for _ in range(2):
        scaled = scaled_erfc(z / _ROOT_TWO)
        hazard = 2.0 / (scaled * _ROOT_TWO_PI)
        step = (log_tail - math.log(0.5 * scaled) + 0.5 * z * z) / hazard
        z -= step / (1.0 - 0.5 * (hazard - z) * step)
    return z


@njit(nogil=True, cache=True)
def scaled_erfc(z):  # type: ignore[no-untyped-def]
    """``exp(z^2) erfc(z)`` for z >= 0."""
    if z < 4.0:
        return math.exp(z * z) * math.erfc(z)
    total = z
    for k in range(40, 0, -1):
        total = z + 0.5 * k / total
    return 1.0 / (total * math.sqrt(math.pi))
