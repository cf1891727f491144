"""How treatments are drawn, as analytic p-values need it: cumulants and tails of weighted sums.

See `plait.crt.analytic_kernels` for the notation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from plait.crt.strata import Strata

Array = NDArray[np.float64]

UNITS_TOGETHER = 16
"""Units that share a pass over the residuals."""


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Outcomes and basis of a screen with the cells innermost.

    Attributes
    ----------
    residuals : (programs, cells) float32 array
        Divided by their root mean squares.
    basis : (p, cells) array
        Orthonormal rows.
    leverage : (cells,) array
        ``h_i = |Q_i|^2``.
    """

    residuals: NDArray[np.float32]
    basis: Array
    leverage: Array


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Moments of the units of a group; K programs, thresholds t.

    Attributes
    ----------
    treated : (units,) array
        Treated cells that vary, expected.
    denominator : (units,) array
        The mean of D.
    constant : (units,) array
        ``S - t D >= 0`` is ``sum x w >= t constant`` to first order.
    mean_g : (units,) array
        Mean of ``sum x g``.
    mean, variance : (units, K) arrays
        Of S.
    cumulants : (units, K, 2, 4) array
        For ``w = r - t g`` and ``w = -r - t g``: second to fourth cumulant of ``sum x w``, and
        the sum of squares of the cells' parts of the second.
    """

    treated: Array
    denominator: Array
    constant: Array
    mean_g: Array
    mean: Array
    variance: Array
    cumulants: Array


class Law(Protocol):
    """The law of the resampled treatments of a group of units."""

    def moments(self, thresholds: Array) -> Moments:
        """Return moments at (units, K) thresholds."""

    def tails(
        self,
        wanted: NDArray[np.bool_],
        thresholds: Array,
        signs: Array,
        other: bool,
        moments: Moments,
    ) -> tuple[Array, NDArray[np.int64]]:
        """Return (units, K) log p-values by the saddlepoint where wanted, and their status.

        The p-value is the probability of ``sign beta* >= t`` and, with ``other``, of
        ``sign beta* <= -t``. Where it is not wanted, it is 1.
        """


class BernoulliLaw:
    """Every cell of a unit is treated independently with its propensity.

    Parameters
    ----------
    columns : Columns
    probabilities : (units, cells) array
        Propensities, contiguous.
    """

    def __init__(self, columns: Columns, probabilities: Array) -> None:
        from plait.crt.analytic_kernels import project_denominators

        self._columns, self._p = columns, probabilities
        self._g = np.empty(probabilities.shape)
        self._about_d = np.empty((3, len(probabilities)))
        project_denominators(probabilities, columns.basis, columns.leverage, self._g, self._about_d)

    def moments(self, thresholds: Array) -> Moments:
        """Return moments at (units, K) thresholds."""
        from plait.crt.analytic_kernels import N_SUMS, TILE, weighted_sums

        sums = np.empty((*thresholds.shape, N_SUMS))
        weighted_sums(
            self._columns.residuals,
            self._p,
            self._g,
            thresholds.astype(np.float32),
            np.empty((5, TILE), dtype=np.float32),
            sums,
        )
        denominator, constant, mean_g = self._about_d
        return _from_sums(sums, self._p.sum(axis=1), denominator, constant, mean_g)

    def tails(
        self,
        wanted: NDArray[np.bool_],
        thresholds: Array,
        signs: Array,
        other: bool,
        moments: Moments,
    ) -> tuple[Array, NDArray[np.int64]]:
        """Return (units, K) log p-values by the saddlepoint where wanted, and their status."""
        from plait.crt.analytic_kernels import saddlepoint_tails

        log_p, status = np.zeros(wanted.shape), np.zeros(wanted.shape, dtype=np.int64)
        saddlepoint_tails(
            self._columns.residuals,
            self._p,
            self._columns.basis,
            self._columns.leverage,
            self._g,
            moments.constant,
            wanted,
            thresholds,
            signs,
            other,
            log_p,
            status,
        )
        return log_p, status


class StratifiedLaw:
    """The treatment of a unit is permuted within strata.

    Parameters
    ----------
    columns : Columns
    strata : sequence of Strata
        Of the units; each has a stratum with treated and untreated cells.
    """

    def __init__(self, columns: Columns, strata: Sequence[Strata]) -> None:
        self._units = [_StratifiedUnit(columns, unit) for unit in strata]

    def moments(self, thresholds: Array) -> Moments:
        """Return moments at (units, K) thresholds."""
        return _from_sums(
            np.array([u.sums(t) for u, t in zip(self._units, thresholds, strict=True)]),
            np.array([float(unit.treated.sum()) for unit in self._units]),
            np.array([unit.denominator for unit in self._units]),
            np.array([unit.constant for unit in self._units]),
            np.array([unit.mean_g for unit in self._units]),
        )

    def tails(
        self,
        wanted: NDArray[np.bool_],
        thresholds: Array,
        signs: Array,
        other: bool,
        moments: Moments,
    ) -> tuple[Array, NDArray[np.int64]]:
        """Return (units, K) log p-values by the saddlepoint where wanted, and their status."""
        log_p, status = np.zeros(wanted.shape), np.zeros(wanted.shape, dtype=np.int64)
        for u in np.flatnonzero(wanted.any(axis=1)).tolist():
            programs = np.flatnonzero(wanted[u])
            sign = signs[u, programs]
            slots = np.where(np.stack([sign, -sign], axis=1) > 0, 0, 1)
            log_p[u, programs], status[u, programs] = self._units[u].tails(
                programs,
                thresholds[u, programs],
                sign,
                other,
                moments.mean[u, programs],
                moments.cumulants[u, programs[:, None], slots],
            )
        return log_p, status


class _StratifiedUnit:
    """One unit, its cells in the order of strata; only strata that vary have cells here."""

    def __init__(self, columns: Columns, strata: Strata) -> None:
        from plait.crt.stratified_kernels import finite_population, project_within_strata

        varies = strata.is_informative
        # Of 16 bits, NumPy's stable sort takes time linear in the number of cells.
        small = strata.stratum.astype(np.int16 if len(strata.sizes) < 2**15 else np.int64)
        order = np.argsort(small, kind="stable")
        self._order = order[varies[strata.stratum[order]]].astype(np.int32)
        self.treated = strata.treated[varies]
        self._starts = np.concatenate([[0], np.cumsum(strata.sizes[varies])]).astype(np.int64)
        self._factors = np.empty((len(self.treated), 4))
        finite_population(strata.sizes[varies], self.treated, self._factors)
        self._columns = columns
        share = strata.treated / np.maximum(strata.sizes, 1)
        p = share[strata.stratum]
        n_columns, n_cells = len(columns.basis), len(self._order)
        self._basis = np.empty((n_columns, n_cells))
        self._projection, self._g = np.empty(n_columns), np.empty(n_cells)
        spread = project_within_strata(
            p, columns.basis, self._order, self._starts, self._factors, self._basis,
            self._projection, self._g, np.empty(len(self.treated)),
        )  # fmt: skip
        # D = n1 - |Q'x|^2: about a = Q'p it is level + |a|^2 - 2 a . Q'x to first order.
        explained = float((self._projection**2).sum())
        self._level = float(strata.treated.sum()) - spread
        self.denominator = self._level - explained
        self.constant = self._level + explained
        self.mean_g = -2.0 * explained
        always = np.flatnonzero((strata.treated == strata.sizes)[strata.stratum])
        self._always = columns.residuals[:, always].sum(axis=1, dtype=np.float64)

    def sums(self, thresholds: Array) -> Array:
        """Return the (K, 10) sums at K thresholds."""
        from plait.crt.analytic_kernels import N_SUMS
        from plait.crt.stratified_kernels import stratified_sums

        sums = np.empty((len(thresholds), N_SUMS))
        stratified_sums(
            self._columns.residuals,
            self._order,
            self._starts,
            self.treated,
            self._factors,
            self._g,
            thresholds,
            np.empty(len(self._order)),
            sums,
        )
        sums[:, 0] += self._always
        return sums

    def tails(
        self,
        programs: NDArray[np.int64],
        thresholds: Array,
        signs: Array,
        other: bool,
        means: Array,
        cumulants: Array,
    ) -> tuple[Array, NDArray[np.int64]]:
        """Return log p-values of programs by the double saddlepoint, and their status."""
        from plait.crt.stratified_kernels import stratified_tails

        log_p, status = np.empty(len(programs)), np.empty(len(programs), dtype=np.int64)
        stratified_tails(
            self._columns.residuals,
            self._order,
            self._starts,
            self.treated,
            self._basis,
            self._projection,
            self._level,
            programs,
            thresholds,
            signs,
            other,
            means,
            cumulants,
            np.empty(len(self._order)),
            np.empty(len(self._order)),
            log_p,
            status,
        )
        return log_p, status


def _from_sums(
    sums: Array, treated: Array, denominator: Array, constant: Array, mean_g: Array
) -> Moments:
    """Name the ten sums of the kernels."""
    return Moments(
        treated,
        denominator,
        constant,
        mean_g,
        sums[:, :, 0],
        sums[:, :, 1],
        sums[:, :, 2:].reshape(*sums.shape[:2], 2, 4),
    )
