"""How far effects vary under the null, in closed form: no treatment is drawn."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from plait.crt.strata import Strata

Array = NDArray[np.float64]
_CELLS = 4096
"""Cells whose squares are held at a time."""
_UNITS = 16
"""Units whose sums are made together."""
_COLUMNS = 8
"""Sums have a multiple of this many columns, which one instruction adds."""
_SMALLEST_DENOMINATOR = 1e-12


def bernoulli_spread(residuals: Array, basis: Array, probabilities: Array) -> Array:
    """Return the standard deviation of effects when each cell is treated by its propensity.

    To first order in the denominator it is ``sqrt(sum_i v_i r_ik^2) / D`` with ``v = p (1 - p)``
    and the expected denominator ``D = sum_i p_i M_ii + p'Mp - sum_i p_i^2 M_ii``, where
    ``M = I - QQ'``.

    Parameters
    ----------
    residuals : (N, K) array
        R.
    basis : (N, p) array
        Q, orthonormal.
    probabilities : (N, J) array
        Propensities of the units.

    Returns
    -------
    (J, K) array
        Infinite where the expected denominator is 0.

    Notes
    -----
    Cost 2 N J (K + p) flops.
    """
    n_units = probabilities.shape[1]
    variance = np.zeros((n_units, residuals.shape[1]))
    denominator = np.zeros(n_units)
    projection = np.zeros((n_units, basis.shape[1]))
    for first in range(0, n_units, _UNITS):
        units = slice(first, min(first + _UNITS, n_units))
        # As many units in every product of matrices: its bits depend on their number.
        p = np.zeros((_UNITS, _CELLS))
        for begin in range(0, len(residuals), _CELLS):
            rows = slice(begin, min(begin + _CELLS, len(residuals)))
            near = p[:, : rows.stop - begin]
            near[: units.stop - first] = probabilities[rows, units].T
            v = near * (1.0 - near)
            q = basis[rows]
            leverage = np.einsum("ij,ij->i", q, q)
            n = units.stop - first
            variance[units] += (v @ residuals[rows] ** 2)[:n]
            projection[units] += (near @ q)[:n]
            # sum of p M_ii + p^2 (1 - M_ii); the p^2 of p'Mp cancels but for its leverage.
            denominator[units] += (near.sum(axis=1) - v @ leverage)[:n]
    denominator -= np.einsum("jp,jp->j", projection, projection)
    return _ratio(variance, denominator)


def stratified_spread(residuals: Array, basis: Array, strata: Sequence[Strata]) -> Array:
    """Return the standard deviation of effects when treatment is permuted within strata.

    ``sqrt(sum_s m_s (n_s - m_s) / (n_s (n_s - 1)) SS_s) / D``, SS_s being the sum of squares of
    the residuals about their mean in stratum s, and D the expected denominator, to first order.

    Parameters
    ----------
    residuals : (N, K) array
        R.
    basis : (N, p) array
        Q, orthonormal.
    strata : sequence of Strata
        Of the units.

    Returns
    -------
    (J, K) array
        Infinite where the expected denominator is 0.
    """
    k, p = residuals.shape[1], basis.shape[1]
    sums = _sums(residuals, basis, strata)
    totals, square_totals = sums[:, 0, :, : k + p], sums[:, 1, :, : k + p]
    n, m = np.zeros(totals.shape[:2]), np.zeros(totals.shape[:2])
    for j, unit in enumerate(strata):
        n[j, : len(unit.sizes)], m[j, : len(unit.sizes)] = unit.sizes, unit.treated
    within = np.maximum(square_totals - totals**2 / np.maximum(n, 1.0)[:, :, None], 0.0)
    factor = np.divide(m * (n - m), n * (n - 1.0), out=np.zeros_like(n), where=n > 1.0)
    share = np.divide(m, n, out=np.zeros_like(n), where=n > 0.0)
    variance, denominator = np.empty((len(strata), k)), m.sum(axis=1)
    for j, unit in enumerate(strata):
        # A product of its own strata alone: its bits do not depend on the other units.
        own = slice(len(unit.sizes))
        of_unit = factor[j, own] @ within[j, own]
        expected = share[j, own] @ totals[j, own, k:]
        variance[j] = of_unit[:k]
        denominator[j] -= expected @ expected
        denominator[j] -= of_unit[k:].sum()
    return _ratio(variance, denominator)


def _sums(residuals: Array, basis: Array, strata: Sequence[Strata]) -> Array:
    """Return (units, 2, strata, columns) sums of residuals, basis, zeros; and of their squares."""
    from plait.crt.stratified_kernels import add_by_stratum

    most = max(len(unit.sizes) for unit in strata)
    columns = -(-(residuals.shape[1] + basis.shape[1]) // _COLUMNS) * _COLUMNS
    sums = np.zeros((len(strata), 2, most, columns))
    numbers = np.array([unit.stratum for unit in strata], dtype=np.int32)
    add_by_stratum(residuals, basis, numbers, sums)
    return sums


def _ratio(variance: Array, denominator: Array) -> Array:
    spread = np.full(variance.shape, np.inf)
    some = denominator > _SMALLEST_DENOMINATOR
    spread[some] = np.sqrt(variance[some]) / denominator[some, None]
    return spread
