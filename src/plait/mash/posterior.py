"""Posterior summaries of effects under a fitted mixture, grain by grain."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import CapacityError, OptionError, ShapeError
from plait.execution.grains import Grain, map_grains
from plait.mash.data import MashData
from plait.mash.device import ROWS, DeviceMixture
from plait.mash.likelihoods import CommonErrors, Components, ErrorModel, Plan, alike_rows
from plait.numerics.linalg import cov_to_cor, symmetrise

Array = NDArray[np.float64]
Columns = NDArray[np.intp]

_COVARIANCE_BYTES = 2 << 30
_CANCELLED = 1e-13


@dataclass(frozen=True, slots=True)
class Request:
    """What to compute: output map, optional outputs, and how."""

    A: Array | None = None
    posterior: bool = True
    covariance: bool = False
    samples: int = 0
    seed: int = 123
    pi_thresh: float = 1e-10
    weights: bool = False
    device: str = "cpu"


def output_map(data: MashData, A: ArrayLike | None) -> Array | None:
    """Return the (Q, n_conditions) map to the output coordinates; None is the identity.

    With a contrast against the mean, the output has all R deviations.
    """
    expanded = data.L is not None and data.reference == "mean"
    width = data.n_conditions + (1 if expanded else 0)
    full = None
    if expanded:
        full = np.vstack([np.eye(data.n_conditions), -np.ones((1, data.n_conditions))])
    if A is None:
        return full
    matrix = np.atleast_2d(np.array(A, dtype=np.float64))
    if matrix.ndim != 2 or matrix.shape[1] != width or not np.isfinite(matrix).all():
        raise ShapeError(
            f"A has invalid dimensions {matrix.shape}; expected finite numbers in {width} columns, "
            "one per condition."
        )
    return matrix if full is None else matrix @ full


class CommonPosterior:
    """Per-component quantities shared by rows with one error covariance."""

    def __init__(
        self, common: CommonErrors, columns: Columns, A: Array | None, back: Array, covariance: bool
    ) -> None:
        components = common.components
        self.bases = components.base_of(columns)
        scales = components.scale_of(columns)
        outward, moved = [], []
        for factor in common.maps:
            if A is None:
                mapped = factor * back
                moved.append(mapped.any(axis=0))
            else:
                mapped = factor @ (A * back).T
                size = (np.abs(factor) @ np.abs(A * back).T) ** 2
                moved.append((mapped**2).sum(axis=0) > _CANCELLED * size.sum(axis=0))
            outward.append(np.where(moved[-1], mapped, 0.0))
        self.maps: Array = np.ascontiguousarray(np.concatenate(outward))
        width = self.maps.shape[1]
        largest = max((len(root) for root in common.roots), default=0)
        count = len(columns)
        self.mean_scale = np.zeros((count, max(largest, 1)))
        self.variances = np.zeros((count, width))
        self.alive = np.zeros((count, width), dtype=bool)
        self.covariances = np.zeros((count, width, width) if covariance else (1, 1, 1))
        for p, (base, scale) in enumerate(zip(self.bases, scales, strict=True)):
            if base < 0 or scale == 0:
                self.bases[p] = -1
                continue
            root = common.roots[base]
            shrunk = 1 + scale * root**2
            self.mean_scale[p, : len(root)] = scale * root / shrunk
            mapped = outward[base]
            self.variances[p] = (scale / shrunk) @ mapped**2
            self.alive[p] = moved[base]
            if covariance:
                self.covariances[p] = mapped.T @ (mapped * (scale / shrunk)[:, None])


def groups_of(components: Components, columns: Columns) -> tuple[NDArray[Any], ...]:
    """Group components by base matrix for `kernels.row_posterior`, by rising rank: null first.

    What is cheap comes first because the others are needed only where they matter beside it.

    Returns
    -------
    tuple of arrays
        By group: first and last row of the base matrix in the stacked factors (the null has none),
        number of the base matrix, where its components start; by component in that order:
        ``omega^2``, and place in ``columns``.
    """
    base = components.base_of(columns)
    null, offsets = base < 0, components.offsets
    rank = np.where(null, 0, np.diff(offsets)[base])
    order = np.lexsort((base, rank))
    starts = np.flatnonzero(np.diff(base[order], prepend=-2))
    bases = np.maximum(base[order[starts]], 0)
    begins = offsets[bases]
    ends = begins + rank[order[starts]]
    pointers = np.append(starts, len(order))
    return begins, ends, bases, pointers, components.scale_of(columns)[order], order


class Applier:
    """Applies a fitted mixture to data: responsibilities, log-likelihoods, posterior summaries."""

    def __init__(self, data: MashData, components: Components, pi: Array, request: Request) -> None:
        self.data, self.components, self.request = data, components, request
        self.model = ErrorModel(data, components, request.device)
        self.A = output_map(data, request.A)
        self.width = data.n_conditions if self.A is None else len(self.A)
        self.kept: Columns = np.flatnonzero(pi > request.pi_thresh)
        if len(self.kept) == 0:
            self.kept = np.array([int(np.argmax(pi))])
        # Everything that has weight, and the null for the Bayes factor.
        self.columns: Columns = np.flatnonzero(pi > 0)
        if components.usepointmass:
            self.columns = np.union1d(self.columns, [0])
            if pi[0] == 1:
                self.columns = np.arange(components.size)
        self.plan = Plan.of(components, self.columns)
        self.groups = groups_of(components, self.kept)
        self.pi = pi
        # A map that mixes coordinates must act on effects on their own scale, row by row.
        self.rescale_after = self.A is None
        back_is_common = data.is_common_cov_shat_alpha()
        self.shared = self.model.common is not None and (self.rescale_after or back_is_common)
        self.common: CommonPosterior | None = None
        if self.shared and self.model.common is not None and request.posterior:
            back = np.ones(data.n_conditions) if self.rescale_after else data.Shat_alpha[0]
            self.common = CommonPosterior(
                self.model.common, self.kept, self.A, back, request.covariance
            )

    def run(self, grain: Grain) -> dict[str, Array]:
        """Return everything requested for the rows of one grain."""
        values = self.model.log_likelihoods(grain, self.plan)
        out = self._log_likelihoods(values[:, grain.tile_rows], grain)
        kept = values[np.searchsorted(self.columns, self.kept)]
        weights = kept - kept.max(axis=0)
        np.exp(weights, out=weights)
        weights *= self.pi[self.kept][:, None]
        weights /= weights.sum(axis=0)
        weights = np.ascontiguousarray(weights)
        if self.request.weights:
            out["posterior_weights"] = np.ascontiguousarray(weights[:, grain.tile_rows].T)
        if self.request.posterior:
            out |= self._posterior(grain, weights)
        if self.request.samples:
            out["posterior_samples"] = self._samples(grain, weights)
        return out

    def run_on_device(self, device: DeviceMixture, rows: slice) -> dict[str, Array]:
        """Return everything requested for some rows, computed by a device."""
        effects, back = self.data.Bhat[rows], self.data.Shat_alpha[rows]
        values = device.log_likelihoods(effects, self.plan)
        jacobian = np.log(back).sum(axis=1)
        pi = self.pi[self.columns]
        out = {"vloglik": device.mixture(values, pi) - jacobian}
        if self.components.usepointmass:
            out["null_loglik"] = values[0].cpu().numpy() - jacobian
            out["alt_loglik"] = device.mixture(values[1:], _alternative(pi)) - jacobian
        kept = np.searchsorted(self.columns, self.kept)
        weights = device.responsibilities(values[kept], self.pi[self.kept])
        if self.request.weights:
            out["posterior_weights"] = weights.T.cpu().numpy()
        if self.common is not None:
            out |= device.posterior(effects, weights, self.common)
            if self.rescale_after:
                out["posterior_mean"] *= back
                out["posterior_sd"] *= back
        return out

    def _log_likelihoods(self, values: Array, grain: Grain) -> dict[str, Array]:
        """Log-likelihoods under the fit, the null and the alternative."""
        pi = self.pi[self.columns]
        jacobian = np.log(self.data.Shat_alpha[grain.rows]).sum(axis=1)
        out = {"vloglik": _mixture(values, pi) - jacobian}
        if self.components.usepointmass:
            out["null_loglik"] = values[0] - jacobian
            out["alt_loglik"] = _mixture(values[1:], _alternative(pi)) - jacobian
        return out

    def _posterior(self, grain: Grain, weights: Array) -> dict[str, Array]:
        from plait.mash.kernels import common_posterior, row_posterior

        n, width = grain.stop - grain.start, self.width
        want_cov = self.request.covariance
        mean, sd, negative, zero, lfsr = np.empty((5, n, width))
        cov = np.empty((n, width, width) if want_cov else (1, 1, 1))
        outputs = (mean, sd, negative, zero, lfsr, cov)
        shared = self.model.shared_rows(grain) if self.shared else np.zeros(n, dtype=bool)
        if self.common is not None and self.model.common is not None and shared.any():
            z, _ = self.model.common.whiten(grain.pad(self.data.Bhat[grain.rows]))
            c = self.common
            common_posterior(
                z,
                weights,
                shared,
                grain.offset,
                c.bases,
                self.components.offsets,
                c.mean_scale,
                c.variances,
                c.alive,
                c.maps,
                c.covariances,
                want_cov,
                *outputs,
            )
        if not shared.all():
            errors = self.model.row_inputs(grain.rows)
            for rows, diagonal in alike_rows(errors, ~shared):
                row_posterior(
                    errors,
                    rows,
                    diagonal,
                    weights,
                    grain.offset,
                    self.groups,
                    self.components.triangular,
                    (not self.rescale_after, self._map(), self._back(grain)),
                    want_cov,
                    outputs,
                )
        out = {
            "posterior_mean": mean,
            "posterior_sd": sd,
            "negative_prob": negative,
            "zero_prob": zero,
            "lfsr": lfsr,
        }
        if self.rescale_after:
            back = self.data.Shat_alpha[grain.rows]
            mean *= back
            sd *= back
            if want_cov:
                cov *= back[:, :, None] * back[:, None, :]
        if want_cov:
            out["posterior_cov"] = symmetrise(cov)
        return out

    def _back(self, grain: Grain) -> Array:
        """Return what takes prior coordinates to the scale on which the kernels report."""
        back = self.data.Shat_alpha[grain.rows]
        # A copy: of values that are read-only the kernels would be compiled once more.
        return np.ones(back.shape) if self.rescale_after else np.array(back, order="C")

    def _map(self) -> Array:
        return np.zeros((1, 1)) if self.A is None else np.ascontiguousarray(self.A)

    def _samples(self, grain: Grain, weights: Array) -> Array:
        from plait.mash.sampling_kernels import draw_posterior

        effects, sigma, observed = self.model.row_inputs(grain.rows)
        draws = np.empty((len(effects), self.width, self.request.samples))
        key = np.random.SeedSequence(self.request.seed).generate_state(1, np.uint64)[0]
        draw_posterior(
            effects,
            sigma,
            observed,
            self._back(grain),
            weights,
            grain.offset,
            grain.start,
            self.components.base_of(self.kept),
            self.components.scale_of(self.kept),
            self.components.stacked,
            self.components.offsets,
            not self.rescale_after,
            self._map(),
            key,
            draws,
        )
        if self.rescale_after:
            draws *= self.data.Shat_alpha[grain.rows][:, :, None]
        return draws


def _alternative(pi: Array) -> Array:
    """Return the weights of the components that are not the null, among themselves."""
    weights: Array = pi[1:] if pi[0] < 1 else np.ones(len(pi) - 1)
    return np.asarray(weights / weights.sum())


def _mixture(values: Array, pi: Array) -> Array:
    """Log of the mixture density of (P, n) log-likelihoods."""
    largest = values.max(axis=0)
    with np.errstate(divide="ignore"):
        result: Array = np.log(pi @ np.exp(values - largest)) + largest
    return result


def apply_mixture(
    data: MashData,
    components: Components,
    pi: Array,
    request: Request,
    *,
    rows: slice | None = None,
    out: dict[str, Any] | None = None,
    label: str | None = "posterior",
    threads: int | None = None,
) -> dict[str, Array]:
    """Compute the requested summaries of some rows (default all) into arrays.

    ``out`` may hold arrays (for example memory maps) of all J rows to be filled at ``rows``; other
    outputs are allocated for ``rows`` alone.
    """
    start, stop, _ = (slice(None) if rows is None else rows).indices(data.n_effects)
    applier = Applier(data, components, pi, request)
    if request.covariance and 8 * (stop - start) * applier.width**2 > _COVARIANCE_BYTES:
        raise CapacityError(
            f"posterior covariances of {stop - start} effects x {applier.width} conditions need "
            f"{8 * (stop - start) * applier.width**2 / 2**30:.1f} GiB. Use outputlevel=2, or ask "
            "for the covariances of a subset of the effects."
        )
    results: dict[str, Array] = {}
    work: Iterator[dict[str, Array]] = map_grains(
        applier.run, start, stop, label=label, threads=threads
    )
    if (device := _device_for(applier)) is not None:
        work = (
            applier.run_on_device(device, slice(first, min(first + ROWS, stop)))
            for first in range(start, stop, ROWS)
        )
    position = start
    for part in work:
        count = len(part["vloglik"])
        for name, values in part.items():
            if out is not None and name in out:
                out[name][position : position + count] = values
            elif out is None:
                if name not in results:
                    results[name] = np.empty((stop - start, *values.shape[1:]))
                results[name][position - start : position - start + count] = values
        position += count
    return results


def _device_for(applier: Applier) -> DeviceMixture | None:
    """Return the device, where it can compute all that is requested."""
    device, request = applier.model.on_device, applier.request
    if device is None:
        return None
    unusual = request.covariance or request.samples
    if not unusual and (applier.common is not None or not request.posterior):
        return device
    if request.device == "cuda":
        raise OptionError(
            "device='cuda' computes outputlevel 1 or 2 without posterior samples, and an output "
            "map A only of effects on one scale; choose 'cpu' or 'auto'."
        )
    return None


def error_second_moment(
    data: MashData, components: Components, pi: Array, pi_thresh: float = 1e-10
) -> tuple[Array, int]:
    """Sum over effects of the posterior second moment of the standardised errors.

    Returns
    -------
    (R, R) array
        ``sum_j E[e_j e_j^T | data]``, ``e_j = (bhat_j - b_j) / shat_j``.
    int
        Number of effects that were counted: those with anything observed.

    Notes
    -----
    Missing cells left out of the likelihood are completed from their distribution given the
    observed errors: ``E_mo = W E_oo``, ``E_mm = V_mm - W V_om + W E_oo W^T``, ``W = V_mo V_oo^-1``.
    """
    applier = Applier(data, components, pi, Request(covariance=True, pi_thresh=pi_thresh))
    scale = data.Shat * data.Shat_alpha

    def one(grain: Grain) -> tuple[Array, int]:
        part = applier.run(grain)
        s = scale[grain.rows]
        z = data.Bhat[grain.rows] / data.Shat[grain.rows]
        error = z - part["posterior_mean"] / s
        spread = part["posterior_cov"] / (s[:, :, None] * s[:, None, :])
        observed = data.observed(grain.rows)
        if observed is None:
            return error.T @ error + spread.sum(axis=0), len(s)
        kept = np.flatnonzero(observed.any(axis=1))
        moments = spread[kept] + error[kept, :, None] * error[kept, None, :]
        V = data.V if data.common_V else data.V[grain.start + kept]
        completed = completed_moments(moments, observed[kept], V)
        return completed.sum(axis=0), len(kept)

    total, count = np.zeros((data.n_conditions, data.n_conditions)), 0
    for part, number in map_grains(one, 0, data.n_effects, label="error correlation"):
        total += part
        count += number
    return symmetrise(total), count


def completed_moments(moments: Array, observed: NDArray[np.bool_], V: Array) -> Array:
    """Complete second moments of errors over missing cells; rows that miss the same are summed.

    ``V`` is (R, R), or (n, R, R) and then nothing is summed.
    """
    if V.ndim == 3:
        return _complete(moments, observed, V, np.ones(len(moments)))
    packed = np.packbits(observed, axis=1)
    order = np.lexsort(packed.T)
    changes = (packed[order[1:]] != packed[order[:-1]]).any(axis=1)
    starts = np.concatenate([[0], 1 + np.flatnonzero(changes)])[: len(order)]
    counts = np.diff(np.append(starts, len(order)))
    sums = np.add.reduceat(moments[order], starts, axis=0)
    return _complete(sums, observed[order[starts]], V, counts)


def _complete(moments: Array, observed: NDArray[np.bool_], V: Array, counts: Array) -> Array:
    """Complete sums of ``counts`` second moments.

    With the map T from observed to all cells, ``T E T^T + counts (V - T V T^T)``; the latter is
    zero but for the missing block.
    """
    seen, missing = observed[:, :, None], ~observed[:, :, None]
    both = seen & observed[:, None, :]
    identity = np.eye(observed.shape[1])
    across = np.where(seen & ~observed[:, None, :], V, 0.0)
    weights = np.linalg.solve(np.where(both, V, identity), across).transpose(0, 2, 1)
    inside = np.where(both, moments, 0.0)
    filled = weights + identity * seen
    result: Array = filled @ inside @ filled.transpose(0, 2, 1)
    rest = np.where(missing & ~observed[:, None, :], V, 0.0) - weights @ across
    result += counts[:, None, None] * rest
    return result


def correlation_from_moment(total: Array, count: int, est_cor: bool) -> Array:
    """Return the error covariance (or correlation) of a summed second moment."""
    covariance = symmetrise(total / count)
    return cov_to_cor(covariance) if est_cor else covariance
