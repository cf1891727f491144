"""Likelihoods of effects under every component of the mixture.

With one error covariance, each base matrix costs one whitening product and one product with all its
grid values at once; otherwise one tridiagonal reduction per row and base matrix serves all of them.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import qr

from plait.errors import ConvergenceError, NotPositiveDefiniteError, OptionError
from plait.execution.devices import torch_device
from plait.execution.grains import GRAIN, Grain, map_grains
from plait.mash.covariances import Covariances, check_Ulist
from plait.mash.data import MashData
from plait.mash.device import ROWS, DeviceMixture
from plait.numerics.linalg import cholesky, psd_factor

Array = NDArray[np.float64]
Columns = NDArray[np.intp]

_CACHE_BYTES = 1 << 30
"""Likelihood matrices up to this size are kept; larger ones are computed again when needed."""


@dataclass(frozen=True, eq=False)
class Components:
    """The components of the mixture: a null, then grid-major ``omega_g^2 U_k``.

    Attributes
    ----------
    covariances : dict of str to (R, R) array
        K base matrices.
    grid : (G,) array
    usepointmass : bool
        Whether component 0 is the null.
    """

    covariances: Covariances
    grid: Array
    usepointmass: bool

    @property
    def size(self) -> int:
        """Number of components P."""
        return len(self.covariances) * len(self.grid) + int(self.usepointmass)

    @property
    def names(self) -> list[str]:
        """Labels ``null`` and ``<matrix>.<grid number from 1>``."""
        labels = [f"{name}.{g + 1}" for g in range(len(self.grid)) for name in self.covariances]
        return ["null", *labels] if self.usepointmass else labels

    @cached_property
    def factors(self) -> list[Array]:
        """``F_k`` (R x rank) with ``U_k = F_k F_k^T``."""
        return [psd_factor(matrix) for matrix in self.covariances.values()]

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Where each base matrix's rows start in `stacked`."""
        return np.concatenate([[0], np.cumsum([f.shape[1] for f in self.factors])]).astype(np.int64)

    @cached_property
    def stacked(self) -> Array:
        """All factors as rows, (total rank, R)."""
        return np.ascontiguousarray(np.concatenate([f.T for f in self.factors]))

    @cached_property
    def padded(self) -> Array:
        """`stacked` with columns of zeros up to whole tiles of the compiled loops."""
        return _to_tiles(self.stacked)

    @cached_property
    def products(self) -> Array:
        """``F_k F_k^T``, with zeros up to whole tiles."""
        matrices = [_to_tiles(factor @ factor.T) for factor in self.factors]
        size = matrices[0].shape[1]
        out = np.zeros((len(matrices), size, size))
        for k, matrix in enumerate(matrices):
            out[k, : len(matrix)] = matrix
        return out

    @cached_property
    def triangular(self) -> tuple[Array, Array, NDArray[np.int64]]:
        """Factors rotated so that they are upper triangular in an order of the conditions.

        Returns
        -------
        (total rank, padded R) array
            The rotated factors as rows.
        (total rank, padded R) array
            The same with the conditions in the order of each: row c ends at ``c + R - rank``.
        (K, R) array
            The orders.

        Notes
        -----
        By a QR decomposition of ``F^T`` with pivoting, turned about both axes. The columns of the
        rotated factor are graded by pivots, and apart from that well conditioned.
        """
        width = self.factors[0].shape[0]
        rotated, turned, orders = [], [], []
        for factor in self.factors:
            root, pivots = qr(factor.T, mode="r", pivoting=True)
            order = pivots[::-1]
            root = root[: factor.shape[1]][::-1, ::-1]
            turned.append(root)
            rotated.append(np.empty_like(root))
            rotated[-1][:, order] = root
            orders.append(order)
        rows, ordered = (np.concatenate(parts).reshape(-1, width) for parts in (rotated, turned))
        return _to_tiles(rows), _to_tiles(ordered), np.array(orders, dtype=np.int64)

    def base_of(self, columns: Columns) -> NDArray[np.int64]:
        """Return the base matrix of each component, -1 for the null."""
        shifted = np.asarray(columns, dtype=np.int64) - int(self.usepointmass)
        return np.where(shifted < 0, -1, shifted % len(self.covariances))

    def scale_of(self, columns: Columns) -> Array:
        """Return ``omega^2`` of each component, 0 for the null."""
        shifted = np.asarray(columns, dtype=np.int64) - int(self.usepointmass)
        values = self.grid[np.maximum(shifted, 0) // len(self.covariances)] ** 2
        return np.where(shifted < 0, 0.0, values)


def _to_tiles(rows: Array) -> Array:
    from plait.mash.lane_kernels import TILE

    return np.ascontiguousarray(np.pad(rows, ((0, 0), (0, -rows.shape[1] % TILE))))


@dataclass(frozen=True, eq=False)
class Plan:
    """Some components sorted by base matrix, so that work on a base matrix is done once."""

    bases: NDArray[np.int64]
    pointers: NDArray[np.int64]
    scales: Array
    positions: NDArray[np.int64]
    null_position: int
    size: int

    @property
    def arrays(self) -> tuple[Any, ...]:
        """What the compiled loops take."""
        return self.bases, self.pointers, self.scales, self.positions, self.null_position

    @classmethod
    def of(cls, components: Components, columns: Columns | None) -> "Plan":
        """Plan the given components, in this order (None is all)."""
        wanted = np.arange(components.size) if columns is None else np.asarray(columns)
        base = components.base_of(wanted)
        order = np.argsort(base, kind="stable")
        order = order[base[order] >= 0]
        bases, starts = np.unique(base[order], return_index=True)
        null = np.flatnonzero(base < 0)
        return cls(
            bases=bases.astype(np.int64),
            pointers=np.append(starts, len(order)).astype(np.int64),
            scales=np.ascontiguousarray(components.scale_of(wanted)[order]),
            positions=order.astype(np.int64),
            null_position=int(null[0]) if len(null) else -1,
            size=len(wanted),
        )


class CommonErrors:
    """Everything about one error covariance that is shared by the rows that have it.

    With ``Sigma = M M^T`` and the singular value decomposition ``M^{-1} F_k = P diag(root) W^T``:
    ``z = P^T M^{-1} bhat`` are independent, their prior variance is ``omega^2 root^2``, and
    ``F_k W`` maps the posterior of the coefficients back to the effects.
    """

    def __init__(self, covariance: Array, components: Components) -> None:
        self.components = components
        self.width = len(covariance)
        chol = cholesky(covariance, "the error covariance")
        self.inverse_factor = np.asarray(np.linalg.inv(chol), dtype=np.float64)
        self.constant = -0.5 * self.width * np.log(2 * np.pi) - float(
            np.log(np.diagonal(chol)).sum()
        )
        projections, roots, maps = [], [], []
        for factor in components.factors:
            left, singular, right = np.linalg.svd(self.inverse_factor @ factor, full_matrices=False)
            projections.append(left.T @ self.inverse_factor)
            roots.append(singular)
            mapped = factor @ right.T
            mapped[~factor.any(axis=1)] = 0.0
            maps.append(mapped.T)
        self.projection: Array = np.ascontiguousarray(np.concatenate(projections))
        self.roots: list[Array] = roots
        self.maps: list[Array] = maps

    def whiten(self, tile: Array) -> tuple[Array, Array]:
        """Return ``z`` (total rank, T) of all base matrices and ``|y|^2`` (T,) of a (T, R) tile."""
        y = self.inverse_factor @ tile.T
        return self.projection @ tile.T, np.einsum("rt,rt->t", y, y)

    def log_likelihoods(self, tile: Array, plan: Plan) -> Array:
        """Return the (components, T) log-likelihoods of a tile."""
        z, yy = self.whiten(tile)
        np.multiply(z, z, out=z)
        out = np.empty((plan.size, tile.shape[0]))
        if plan.null_position >= 0:
            out[plan.null_position] = self.constant - 0.5 * yy
        offsets = self.components.offsets
        for b, base in enumerate(plan.bases):
            part = slice(plan.pointers[b], plan.pointers[b + 1])
            squares = z[offsets[base] : offsets[base + 1]]
            shrunk = 1 + plan.scales[part, None] * self.roots[base] ** 2
            values = (-0.5 / shrunk) @ squares
            values += self.constant - 0.5 * np.log(shrunk).sum(axis=1)[:, None]
            if len(squares) < self.width:
                values -= 0.5 * np.maximum(yy - squares.sum(axis=0), 0.0)
            out[plan.positions[part]] = values
        return out


class ErrorModel:
    """Log-likelihoods grain by grain: shared work where errors are common, per row elsewhere.

    With a device, that of all rows together, which must have common errors.
    """

    def __init__(self, data: MashData, components: Components, device: str = "cpu") -> None:
        self.data = data
        self.components = components
        shared = data.reference_rows(slice(0, None))
        shares_errors = data.common_V and shared.any()
        self.common = CommonErrors(data.reference_cov(), components) if shares_errors else None
        self.on_device: DeviceMixture | None = None
        wanted = torch_device(device)
        if wanted is not None and self.common is not None and shared.all():
            self.on_device = DeviceMixture(self.common, wanted)
        elif device == "cuda":
            raise OptionError(
                "device='cuda' needs effects that share one error covariance, without missing "
                "cells, as z-scores (alpha=1) do; choose 'cpu' or 'auto'."
            )

    def shared_rows(self, grain: Grain) -> NDArray[np.bool_]:
        """Which rows of a grain have the common error covariance."""
        return self.data.reference_rows(grain.rows)

    def row_inputs(self, rows: Any) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Effects, error covariances and observed cells of some rows, for the kernels."""
        observed = self.data.observed(rows)
        effects = np.array(self.data.Bhat[rows], order="C")
        if observed is None:
            observed = np.ones(effects.shape, dtype=bool)
        return effects, self.data.error_covariances(rows), np.ascontiguousarray(observed)

    def log_likelihoods(self, grain: Grain, plan: Plan) -> Array:
        """Return the (components, GRAIN) log-likelihoods of a padded grain."""
        shared = self.shared_rows(grain)
        if self.common is not None and shared.any():
            out = self.common.log_likelihoods(grain.pad(self.data.Bhat[grain.rows]), plan)
        else:
            out = np.zeros((plan.size, GRAIN))
        if not shared.all():
            alone = np.flatnonzero(~shared)
            out[:, grain.offset + alone] = self._per_row(grain.start + alone, plan)
        return out

    def _per_row(self, rows: NDArray[np.intp], plan: Plan) -> Array:
        from plait.mash.kernels import row_log_likelihoods

        errors = self.row_inputs(rows)
        out = np.empty((plan.size, len(rows)))
        parts = self.components
        failures = [
            row_log_likelihoods(
                errors,
                alike,
                diagonal,
                parts.padded,
                parts.products,
                parts.offsets,
                plan.arrays,
                out,
            )
            for alike, diagonal in alike_rows(errors, np.ones(len(rows), dtype=bool))
        ]
        failed = min((row for row in failures if row >= 0), default=-1)
        if failed >= 0:
            raise NotPositiveDefiniteError(
                f"the error covariance of effect {rows[failed]} is not positive definite in "
                "floating point: its standard errors are too small or its V too close to singular."
            )
        return out


def alike_rows(
    errors: tuple[Array, Array, NDArray[np.bool_]], select: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[np.intp], bool]]:
    """Yield the selected rows with diagonal error covariances (True), and the others (False)."""
    from plait.mash.row_batch_kernels import find_diagonal

    diagonal = np.empty(len(select), dtype=bool)
    find_diagonal(errors[1], errors[2], diagonal)
    for kind in (True, False):
        rows = np.flatnonzero(select & (diagonal == kind))
        if len(rows):
            yield rows, kind


class RelativeLikelihoods:
    """Likelihoods relative to each row's largest, for `plait.numerics.mixture_weights`.

    Held in memory up to a bound, else computed again at every pass (cheap, see `ErrorModel`).
    """

    def __init__(self, model: ErrorModel, label: str | None = "likelihoods") -> None:
        self.n_rows = model.data.n_effects
        self.n_components = model.components.size
        self.row_maxima: Array = np.full(self.n_rows, np.nan)
        self._model = model
        self._label = label
        self._keep = 8 * self.n_rows * self.n_components <= _CACHE_BYTES
        self._kept: dict[int, Array] = {}
        self._everything = Plan.of(model.components, None)

    def map_blocks(
        self, function: Callable[[slice, Array], Any], columns: Columns | None = None
    ) -> list[Any]:
        """Apply ``function(rows, (P, rows) likelihoods)`` to every grain, in order."""
        plan = self._everything if columns is None else Plan.of(self._model.components, columns)
        first_pass = bool(self.n_rows) and bool(np.isnan(self.row_maxima[0]))
        if self._model.on_device is not None:
            blocks = self._from_device(self._model.on_device, plan, columns)
            return [function(rows, block) for rows, block in blocks]

        def one(grain: Grain) -> Any:
            return function(grain.rows, self._block(grain, plan, columns))

        label = self._label if first_pass else None
        return list(map_grains(one, 0, self.n_rows, label=label))

    def _from_device(
        self, device: DeviceMixture, plan: Plan, columns: Columns | None
    ) -> Iterator[tuple[slice, Array]]:
        for start in range(0, self.n_rows, ROWS):
            rows = slice(start, min(start + ROWS, self.n_rows))
            kept = self._kept.get(start)
            if kept is not None:
                yield rows, kept if columns is None else kept[columns]
                continue
            effects = self._model.data.Bhat[rows]
            maxima = None if columns is None else self.row_maxima[rows]
            values, maxima = device.relative(effects, plan, maxima)
            if columns is None:
                self._keep_maxima(rows, maxima)
                if self._keep:
                    self._kept[start] = values
            yield rows, values

    def _block(self, grain: Grain, plan: Plan, columns: Columns | None) -> Array:
        kept = self._kept.get(grain.index)
        if kept is not None:
            return kept if columns is None else kept[columns]
        values = self._model.log_likelihoods(grain, plan)[:, grain.tile_rows]
        if columns is None:
            self._keep_maxima(grain.rows, values.max(axis=0))
        block = np.exp(values - self.row_maxima[grain.rows])
        if self._keep and columns is None:
            self._kept[grain.index] = block
        return block

    def _keep_maxima(self, rows: slice, maxima: Array) -> None:
        if not np.isfinite(maxima).all():
            worst = rows.start + int(np.argmin(np.isfinite(maxima)))
            raise ConvergenceError(
                f"effect {worst} has no finite likelihood under any component: its effects are "
                "too far from what the grid covers, or its errors too small."
            )
        self.row_maxima[rows] = maxima


def _components_of(data: MashData, Ulist: Any) -> Components:
    """Wrap matrices that are already expanded: one base matrix each, grid 1, no point mass."""
    if isinstance(Ulist, Components):
        return Ulist
    return Components(check_Ulist(Ulist, data.n_conditions), np.ones(1), False)


def calc_lik_matrix(
    data: MashData, Ulist: Mapping[str, ArrayLike] | Iterable[ArrayLike], log: bool = False
) -> Array:
    """Return the (J, P) likelihoods of every effect under ``N(0, Sigma_j + U_p)``.

    Parameters
    ----------
    data : MashData
    Ulist : dict or list of (R, R) arrays
        One prior covariance per component, for example from `expand_cov`.
    log : bool
        Return log-likelihoods.

    Notes
    -----
    On the scale of the data object (after alpha scaling). Cost: see the module.
    """
    components = _components_of(data, Ulist)
    model, plan = ErrorModel(data, components), Plan.of(components, None)
    out = np.empty((data.n_effects, components.size))

    def one(grain: Grain) -> None:
        out[grain.rows] = model.log_likelihoods(grain, plan)[:, grain.tile_rows].T

    for _ in map_grains(one, 0, data.n_effects, label="likelihoods"):
        pass
    return out if log else np.exp(out)


def calc_relative_lik_matrix(
    data: MashData, Ulist: Mapping[str, ArrayLike] | Iterable[ArrayLike]
) -> dict[str, Array]:
    """Return log-likelihoods relative to each row's largest.

    Returns
    -------
    dict
        ``loglik_matrix`` (J, P) with row maximum 0, and ``lfactors`` (J,), the row maxima.
    """
    values = calc_lik_matrix(data, Ulist, log=True)
    largest = values.max(axis=1)
    if not np.isfinite(values).all():
        bad = np.flatnonzero(~np.isfinite(values).all(axis=0))
        warnings.warn(f"components {bad.tolist()} have infinite log-likelihoods.", stacklevel=2)
    return {"loglik_matrix": values - largest[:, None], "lfactors": largest}
