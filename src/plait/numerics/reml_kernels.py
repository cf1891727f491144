"""Compiled sums of restricted maximum likelihood; see `plait.numerics.reml`."""

import math

from plait.numerics.compiled import njit

_TOGETHER = 16


@njit(nogil=True, cache=True)
def forms(diagonal, off_diagonal, h2, y, g):  # type: ignore[no-untyped-def]
    """Return ``ln |V|`` and ``y^T V^-1 y``, ``g^T V^-1 y``, ``g^T V^-1 g``.

    ``V = h2 T + (1 - h2) I`` is factored ``L D L^T`` on the way.
    """
    rest = 1.0 - h2
    d = h2 * diagonal[0] + rest
    a, b = y[0], g[0]
    log_determinant, product = 0.0, d
    yy, gy, gg = a * a / d, b * a / d, b * b / d
    for i in range(1, diagonal.shape[0]):
        below = h2 * off_diagonal[i - 1]
        multiple = below / d
        d = h2 * diagonal[i] + rest - multiple * below
        a = y[i] - multiple * a
        b = g[i] - multiple * b
        product *= d
        if i % _TOGETHER == 0:  # within 1e-6 and N each, so that few cannot overflow
            log_determinant += math.log(product)
            product = 1.0
        inverse = 1.0 / d
        yy += a * a * inverse
        gy += b * a * inverse
        gg += b * b * inverse
    return log_determinant + math.log(product), yy, gy, gg
