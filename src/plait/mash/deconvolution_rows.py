"""The kinds of rows of deconvolution, by what they share.

One error covariance (`CommonErrors`), one up to a factor (`ProportionalErrors`), none
(`RowErrors`), the first two with exceptions (`MixedErrors`), or projections (`ProjectedRows`). Each
says how the sums over rows of `plait.mash.deconvolution_statistics` are formed.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from plait.execution.grains import GRAIN, Grain
from plait.mash.data import MashData
from plait.mash.deconvolution_statistics import (
    Accumulate,
    SingularRowError,
    Step,
    Sums,
    add_sums,
    sum_over_rows,
)

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
Indices = NDArray[np.intp]
Output = TypeVar("Output")

_LOG_2PI = float(np.log(2 * np.pi))
_WELL_CONDITIONED = 1e6
_PROPORTIONAL = 1e-12
_PART = 128
_TILE = 4
"""`plait.mash.lane_kernels.TILE`; the compiled loops are imported when they are needed."""
_WORTH_HELPERS = 3e7
"""Rows x K x R^3 of a grain from which more threads pay for their start."""
_WORTH_SHARING = 0.05
"""Share of rows with common errors from which products over whole grains pay for themselves."""


def factorise(total: Array, row: int) -> Array:
    """Return the Cholesky factors of a stack of total covariances, the same for all rows."""
    try:
        factors = np.asarray(np.linalg.cholesky(total), dtype=np.float64)
    except np.linalg.LinAlgError:
        raise SingularRowError(row) from None
    return factors


class CommonErrors:
    """Rows with one error covariance: a whitening and a weighted scatter per component.

    Cost per iteration: K R^3 / 3 and 4 J K R^2 flops, in matrix products.
    """

    def __init__(self, effects: Array, covariance: Array, row: int = 0) -> None:
        self.effects = effects
        self.covariance = covariance
        self.row = row

    @property
    def n_rows(self) -> int:
        """Number of rows J."""
        return len(self.effects)

    def prepare(self, means: Array, covariances: Array, threads: int = 1) -> "CommonStep":
        """Factorise ``T_k``."""
        return CommonStep(self, means, factorise(covariances + self.covariance, self.row))


class CommonStep:
    """See `CommonErrors`; sums are kept in the whitened coordinates of each component."""

    def __init__(self, rows: CommonErrors, means: Array, factors: Array) -> None:
        self.effects = rows.effects
        self.factors = factors
        count, width = means.shape
        self.inverse = np.asarray(np.linalg.inv(factors), dtype=np.float64)
        self.stacked = np.ascontiguousarray(self.inverse.reshape(count * width, width))
        self.shift = np.einsum("krs,ks->kr", self.inverse, means) if means.any() else None
        diagonals = np.diagonal(factors, axis1=1, axis2=2)
        self.constants: Array = -0.5 * width * _LOG_2PI - np.log(diagonals).sum(axis=1)

    def evaluate(self, grain: Grain) -> tuple[Array, Accumulate]:
        """Whiten the tile for all components in one product."""
        tile = grain.pad(self.effects[grain.rows])
        z = (self.stacked @ tile.T).reshape(*self.factors.shape[:2], GRAIN)
        if self.shift is not None:
            z -= self.shift[:, :, None]
        values = self.constants[:, None] - 0.5 * np.einsum("krt,krt->kt", z, z)

        def accumulate(shares: Array) -> Sums:
            q = np.zeros((len(z), GRAIN))
            q[:, grain.tile_rows] = shares
            weighted = z * q[:, None, :]
            return weighted.sum(axis=2), weighted @ z.transpose(0, 2, 1)

        return values[:, grain.tile_rows], accumulate

    def finish(self, n: Array, sums: Sums) -> tuple[Array, Array]:
        """Map ``sum q z`` and ``sum q (z z^T - I)`` back by the inverse factors."""
        first, second = sums
        excess = second - n[:, None, None] * np.eye(second.shape[-1])
        transposed = self.inverse.transpose(0, 2, 1)
        return np.einsum("krs,ks->kr", transposed, first), transposed @ excess @ self.inverse

    def scatter(self, second: Array) -> Array:
        """Return ``sum_j q_jk (y_j - m_k)(y_j - m_k)^T`` (K, R, R) from the whitened sums."""
        raw: Array = self.factors @ second @ self.factors.transpose(0, 2, 1)
        return 0.5 * (raw + raw.transpose(0, 2, 1))


def scatter_expectation(
    rows: CommonErrors, weights: Array, covariances: Array, threads: int | None = None
) -> tuple[float, Array, Array]:
    """Return the log-likelihood, ``n`` (K,) and ``sum_j q_jk y_j y_j^T`` (K, R, R), means zero."""
    step = rows.prepare(np.zeros(covariances.shape[:2]), covariances)
    log_likelihood, n, sums = sum_over_rows(step, rows.n_rows, weights, None, False, threads)
    return log_likelihood, n, step.scatter(sums[1])


class ProportionalErrors:
    """Rows whose error covariances are ``scale_j`` times one matrix ``Sigma = L L^T``.

    With ``L^{-1} U_k L^{-T} = Q diag(d) Q^T`` the coordinates ``z = Q^T L^{-1} (y - m_k)`` have the
    variances ``d + scale_j``: no row is factorised. Cost: 4 J K R^2 flops per iteration.
    """

    def __init__(self, effects: Array, covariance: Array, scales: Array, row: int = 0) -> None:
        self.effects = effects
        self.scales = scales
        self.row = row
        self.factor = factorise(covariance, row)
        self.inverse_factor = np.asarray(np.linalg.inv(self.factor), dtype=np.float64)

    @property
    def n_rows(self) -> int:
        """Number of rows J."""
        return len(self.effects)

    def prepare(self, means: Array, covariances: Array, threads: int = 1) -> "ProportionalStep":
        """Diagonalise every prior covariance in whitened coordinates."""
        return ProportionalStep(self, means, covariances)


class ProportionalStep:
    """See `ProportionalErrors`."""

    def __init__(self, rows: ProportionalErrors, means: Array, covariances: Array) -> None:
        self.rows = rows
        whitened = rows.inverse_factor @ covariances @ rows.inverse_factor.T
        values, vectors = np.linalg.eigh(0.5 * (whitened + whitened.transpose(0, 2, 1)))
        self.variances: Array = values
        self.projection: Array = vectors.transpose(0, 2, 1) @ rows.inverse_factor
        self.stacked = np.ascontiguousarray(self.projection.reshape(-1, means.shape[1]))
        self.shift = np.einsum("krs,ks->kr", self.projection, means) if means.any() else None
        log_det = float(np.log(np.diagonal(rows.factor)).sum())
        self.constant = -0.5 * means.shape[1] * _LOG_2PI - log_det

    def evaluate(self, grain: Grain) -> tuple[Array, Accumulate]:
        """Rotate the tile for all components in one product."""
        tile = grain.pad(self.rows.effects[grain.rows])
        scales = grain.pad(self.rows.scales[grain.rows], 1.0)
        z = (self.stacked @ tile.T).reshape(*self.variances.shape, GRAIN)
        if self.shift is not None:
            z -= self.shift[:, :, None]
        total = self.variances[:, :, None] + scales
        if not (total > 0).all():
            raise SingularRowError(grain.start)
        t = z / total
        values = self.constant - 0.5 * (np.einsum("krt,krt->kt", z, t) + np.log(total).sum(axis=1))

        def accumulate(shares: Array) -> Sums:
            q = np.zeros((len(z), GRAIN))
            q[:, grain.tile_rows] = shares
            weighted = t * q[:, None, :]
            second = weighted @ t.transpose(0, 2, 1)
            diagonal = np.arange(second.shape[-1])
            second[:, diagonal, diagonal] -= (q[:, None, :] / total).sum(axis=2)
            return weighted.sum(axis=2), second

        return values[:, grain.tile_rows], accumulate

    def finish(self, n: Array, sums: Sums) -> tuple[Array, Array]:
        """Rotate back."""
        first, second = sums
        back = self.projection.transpose(0, 2, 1)
        return np.einsum("krs,ks->kr", back, first), back @ second @ self.projection


@dataclass(frozen=True, eq=False)
class RowInputs:
    """Some rows: effects, observed cells, and errors ``scale_i correlation_ij scale_j``.

    ``correlations`` is (1, R, R), common to the rows, or (n, R, R).
    """

    effects: Array
    scales: Array
    correlations: Array
    observed: Bools

    def padded(self) -> tuple[Array, Array, Array, Bools]:
        """Return what the kernels take."""
        correlations = self.correlations
        if len(correlations) == 1:
            correlations = pad_to_tiles(correlations)
        return self.effects, self.scales, correlations, self.observed


def pad_to_tiles(matrices: Array) -> Array:
    """Return square matrices with rows and columns of zeros added, as the kernels take them."""
    count, width, _ = matrices.shape
    wide = -(-width // _TILE) * _TILE
    padded = np.zeros((count, wide, wide))
    padded[:, :width, :width] = matrices
    return padded


Fetch = Callable[[Any], RowInputs]


class RowErrors:
    """Rows of any error covariance, each factorised on its observed cells by compiled loops.

    ``fetch(rows)`` gives the inputs of some rows. Cost: R^3 / 6 multiply-adds per row, component
    and iteration, and R^3 / 2 more where the row has a share in the component.
    """

    def __init__(self, n_rows: int, fetch: Fetch) -> None:
        self.n_rows = n_rows
        self.fetch = fetch

    def prepare(self, means: Array, covariances: Array, threads: int = 1) -> "RowStep":
        """Nothing is shared by rows."""
        busy = min(self.n_rows, GRAIN) * covariances.size * means.shape[1] > _WORTH_HELPERS
        helpers = threads // max(1, -(-self.n_rows // GRAIN)) if busy else 1
        return RowStep(self, np.ascontiguousarray(means), covariances, helpers)


class RowStep:
    """See `RowErrors`. Sums are formed part by part of a grain, and the parts added in order."""

    def __init__(self, rows: RowErrors, means: Array, covariances: Array, helpers: int) -> None:
        self.rows = rows
        self.means = means
        self.covariances = pad_to_tiles(covariances)
        self.helpers = helpers

    def evaluate(self, grain: Grain) -> tuple[Array, Accumulate]:
        """Evaluate all rows of a grain."""
        return self.evaluate_rows(np.arange(grain.start, grain.stop))

    def evaluate_rows(self, numbers: Indices) -> tuple[Array, Accumulate]:
        """Evaluate some rows."""
        from plait.mash.deconvolution_kernels import row_log_densities, row_statistics

        inputs = self.rows.fetch(numbers).padded()
        parameters = (self.means, self.covariances)
        values = np.empty((len(self.means), len(numbers)))
        parts = [(i, min(i + _PART, len(numbers))) for i in range(0, len(numbers), _PART)]

        def evaluate(part: tuple[int, int]) -> int:
            return int(row_log_densities(*inputs, *parameters, *part, values))

        failed = [row for row in _run_parts(evaluate, parts, self.helpers) if row >= 0]
        if failed:
            raise SingularRowError(int(numbers[failed[0]]))

        def accumulate(shares: Array) -> Sums:
            shares = np.ascontiguousarray(shares)

            def add_up(part: tuple[int, int]) -> Sums:
                first = np.empty(self.means.shape)
                second = np.empty((*self.means.shape, self.means.shape[1]))
                row_statistics(*inputs, *parameters, shares, *part, first, second)
                return first, second

            return add_sums(_run_parts(add_up, parts, self.helpers))

        return values, accumulate

    def finish(self, n: Array, sums: Sums) -> tuple[Array, Array]:
        """Return the sums, which are ``v`` and ``W`` already."""
        return sums[0], sums[1]


def _run_parts(
    function: Callable[[tuple[int, int]], Output], parts: list[tuple[int, int]], helpers: int
) -> list[Output]:
    """Return the results for all parts of a grain, in order, computed by some threads."""
    helpers = min(helpers, len(parts))
    if helpers <= 1:
        return [function(part) for part in parts]
    with ThreadPoolExecutor(helpers) as pool:
        return list(pool.map(function, parts))


class MixedErrors:
    """Rows that mostly share an error covariance (up to a factor), and others that do not."""

    def __init__(
        self, shared: CommonErrors | ProportionalErrors, alone: RowErrors, is_shared: Bools
    ) -> None:
        self.shared = shared
        self.alone = alone
        self.is_shared = is_shared

    @property
    def n_rows(self) -> int:
        """Number of rows J."""
        return self.shared.n_rows

    def prepare(self, means: Array, covariances: Array, threads: int = 1) -> "MixedStep":
        """Prepare both kinds."""
        return MixedStep(
            self,
            self.shared.prepare(means, covariances),
            self.alone.prepare(means, covariances, threads),
        )


class MixedStep:
    """See `MixedErrors`."""

    def __init__(self, rows: MixedErrors, shared: Step, alone: RowStep) -> None:
        self.rows = rows
        self.shared = shared
        self.alone = alone

    def evaluate(self, grain: Grain) -> tuple[Array, Accumulate]:
        """Evaluate the rows of each kind in its own way."""
        is_shared = self.rows.is_shared[grain.rows]
        others = np.flatnonzero(~is_shared)
        values, accumulate_shared = self.shared.evaluate(grain)
        values[:, others], accumulate_alone = self.alone.evaluate_rows(grain.start + others)

        def accumulate(shares: Array) -> Sums:
            ours = shares * is_shared
            return (
                ours.sum(axis=1),
                *accumulate_shared(ours),
                *accumulate_alone(shares[:, others]),
            )

        return values, accumulate

    def finish(self, n: Array, sums: Sums) -> tuple[Array, Array]:
        """Add the two kinds."""
        n_shared, first, second, v_alone, W_alone = sums
        v, W = self.shared.finish(n_shared, (first, second))
        return v + v_alone, W + W_alone


class ProjectedRows:
    """Rows seen through projections ``R_j`` (J, S, R), by batched products (the general case).

    ``errors(rows)`` gives the (n, S, S) error covariances.
    """

    def __init__(
        self, effects: Array, projections: Array, errors: Callable[[slice], Array]
    ) -> None:
        self.effects = effects
        self.projections = projections
        self.errors = errors

    @property
    def n_rows(self) -> int:
        """Number of rows J."""
        return len(self.effects)

    def prepare(self, means: Array, covariances: Array, threads: int = 1) -> "ProjectedStep":
        """Nothing is shared by rows."""
        return ProjectedStep(self, means, covariances)


class ProjectedStep:
    """See `ProjectedRows`."""

    def __init__(self, rows: ProjectedRows, means: Array, covariances: Array) -> None:
        self.rows = rows
        self.means = means
        self.covariances = covariances

    def evaluate(self, grain: Grain) -> tuple[Array, Accumulate]:
        """Factorise ``T_jk`` of every row and component."""
        effects = self.rows.effects[grain.rows]
        projections = self.rows.projections[grain.rows]
        errors = self.rows.errors(grain.rows)
        values, kept = np.empty((len(self.means), len(effects))), []
        for k, (mean, covariance) in enumerate(zip(self.means, self.covariances, strict=True)):
            total = projections @ covariance @ projections.transpose(0, 2, 1) + errors
            factors = _factorise_rows(total, grain.start)
            residual = (effects - projections @ mean)[:, :, None]
            whitened = np.linalg.solve(factors, np.concatenate([projections, residual], axis=2))
            back, z = whitened[:, :, :-1], whitened[:, :, -1]
            log_det = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
            constant = -0.5 * effects.shape[1] * _LOG_2PI
            values[k] = constant - log_det - 0.5 * np.einsum("ji,ji->j", z, z)
            kept.append((back, np.einsum("jir,ji->jr", back, z)))

        def accumulate(shares: Array) -> Sums:
            first, second = np.empty(self.means.shape), np.empty(self.covariances.shape)
            for k, (back, t) in enumerate(kept):
                weighted = shares[k, :, None] * t
                spread = (shares[k, :, None, None] * back).reshape(-1, t.shape[1])
                first[k] = weighted.sum(axis=0)
                second[k] = weighted.T @ t - spread.T @ back.reshape(-1, t.shape[1])
            return first, second

        return values, accumulate

    def finish(self, n: Array, sums: Sums) -> tuple[Array, Array]:
        """Return the sums, which are ``v`` and ``W`` already."""
        return sums[0], sums[1]


def _factorise_rows(total: Array, start: int) -> Array:
    try:
        factors = np.asarray(np.linalg.cholesky(total), dtype=np.float64)
    except np.linalg.LinAlgError:
        for j, matrix in enumerate(total):
            try:
                np.linalg.cholesky(matrix)
            except np.linalg.LinAlgError:
                raise SingularRowError(start + j) from None
        raise
    return factors


def rows_of(data: MashData) -> CommonErrors | ProportionalErrors | RowErrors | MixedErrors:
    """Choose how the sums over the effects of a data set are formed."""
    effects = data.Bhat
    alone = RowErrors(data.n_effects, row_inputs_of(data))
    if not data.common_V:
        return alone
    is_shared = data.reference_rows(slice(None))
    row = int(np.argmax(is_shared))
    shared: CommonErrors | ProportionalErrors
    shared = CommonErrors(effects, data.reference_cov(), row)
    if not is_shared.all():
        scales, proportional = _proportional_rows(data)
        if proportional.sum() > is_shared.sum():
            shared = ProportionalErrors(effects, data.reference_cov(), scales, row)
            is_shared = proportional
    if is_shared.mean() < _WORTH_SHARING:
        return alone
    return shared if is_shared.all() else MixedErrors(shared, alone, is_shared)


def fetch_from(data: MashData) -> Callable[[Any], tuple[Array, Array, Bools]]:
    """Return what gives the effects, error covariances and observed cells of some rows."""

    def fetch(rows: Any) -> tuple[Array, Array, Bools]:
        effects, seen = _observed_effects(data, rows)
        return effects, data.error_covariances(rows), seen

    return fetch


def row_inputs_of(data: MashData) -> Fetch:
    """Return what gives the inputs of some rows."""

    def fetch(rows: Any) -> RowInputs:
        effects, seen = _observed_effects(data, rows)
        if data.L is not None:
            return RowInputs(effects, np.ones(effects.shape), data.error_covariances(rows), seen)
        errors = data.Shat if data.Shat_orig is None else data.Shat_orig
        correlations = data.V[None] if data.common_V else data.V[rows]
        return RowInputs(effects, np.ascontiguousarray(errors[rows]), correlations, seen)

    return fetch


def _observed_effects(data: MashData, rows: Any) -> tuple[Array, Bools]:
    effects = np.ascontiguousarray(data.Bhat[rows])
    observed = data.observed(rows)
    seen = np.ones(effects.shape, bool) if observed is None else np.ascontiguousarray(observed)
    return effects, seen


def _proportional_rows(data: MashData) -> tuple[Array, Bools]:
    """Return ``scale_j`` with ``Sigma_j = scale_j Sigma``, and for which rows that holds."""
    errors = data.Shat if data.Shat_orig is None else data.Shat_orig
    reference = data.Shat_reference
    ratio = errors[:, 0] / reference[0]
    fits: Bools = np.all(
        np.abs(errors - ratio[:, None] * reference) <= _PROPORTIONAL * errors, axis=1
    )
    observed = data.observed(slice(None))
    if observed is not None:
        fits &= observed.all(axis=1)
    # Rotated coordinates lose the accuracy that the condition number of the errors costs.
    values = np.linalg.eigvalsh(data.reference_cov())
    if values[0] * _WELL_CONDITIONED < values[-1]:
        fits[:] = False
    return np.where(fits, ratio**2, 1.0), fits
