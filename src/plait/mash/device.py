"""Likelihoods and posteriors of effects with common errors on a GPU, through PyTorch.

The same formulas as `plait.mash.likelihoods` and `plait.mash.kernels`, in float64 and on many rows
at a time; the numbers agree to rounding, not to the bit.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from plait.mash.likelihoods import CommonErrors, Plan
    from plait.mash.posterior import CommonPosterior

Array = NDArray[np.float64]

ROWS = 32_768
"""Rows that are sent to the device at a time."""

_SQRT_HALF = 0.5**0.5


class DeviceMixture:
    """The components of a mixture on a device, for effects that share one error covariance."""

    def __init__(self, common: "CommonErrors", device: Any) -> None:
        import torch

        self.torch, self.device, self.common = torch, device, common
        self.inverse_factor = self._send(common.inverse_factor)
        self.projection = self._send(common.projection)
        self.squared_roots = [self._send(root) ** 2 for root in common.roots]

    def _send(self, values: Any) -> Any:
        return self.torch.tensor(np.asarray(values), device=self.device)

    def log_likelihoods(self, effects: Array, plan: "Plan") -> Any:
        """Return the (components, n) log-likelihoods of n effects, on the device."""
        torch, common = self.torch, self.common
        x = self._send(effects).T
        yy = ((self.inverse_factor @ x) ** 2).sum(0)
        squares = (self.projection @ x) ** 2
        scales = self._send(plan.scales)
        out = torch.empty((plan.size, len(effects)), dtype=torch.float64, device=self.device)
        if plan.null_position >= 0:
            out[plan.null_position] = common.constant - 0.5 * yy
        offsets = common.components.offsets
        for b, base in enumerate(plan.bases):
            part = slice(int(plan.pointers[b]), int(plan.pointers[b + 1]))
            own = squares[int(offsets[base]) : int(offsets[base + 1])]
            shrunk = 1 + scales[part, None] * self.squared_roots[int(base)]
            values = (-0.5 / shrunk) @ own
            values += common.constant - 0.5 * torch.log(shrunk).sum(1, keepdim=True)
            if len(own) < common.width:
                values -= 0.5 * torch.clamp(yy - own.sum(0), min=0.0)
            out[self._send(plan.positions[part])] = values
        return out

    def relative(self, effects: Array, plan: "Plan", maxima: Array | None) -> tuple[Array, Array]:
        """Return likelihoods (components, n) relative to the largest of each row, and these."""
        values = self.log_likelihoods(effects, plan)
        largest = values.max(0).values if maxima is None else self._send(maxima)
        return self.torch.exp(values - largest).cpu().numpy(), largest.cpu().numpy()

    def mixture(self, values: Any, pi: Array) -> Array:
        """Return the log of the mixture density of (P, n) log-likelihoods."""
        with np.errstate(divide="ignore"):
            weights = self._send(np.log(pi))[:, None]
        found: Array = self.torch.logsumexp(values + weights, 0).cpu().numpy()
        return found

    def responsibilities(self, values: Any, pi: Array) -> Any:
        """Return the posterior weights of the components, (P, n)."""
        return self.torch.softmax(values + self._send(np.log(pi))[:, None], 0)

    def posterior(self, effects: Array, weights: Any, parts: "CommonPosterior") -> dict[str, Array]:
        """Return posterior summaries of n effects under components with (P, n) ``weights``."""
        torch, offsets = self.torch, self.common.components.offsets
        z = self.projection @ self._send(effects).T
        maps, scale = self._send(parts.maps), self._send(parts.mean_scale)
        variances, alive = self._send(parts.variances), self._send(parts.alive)
        shape = (len(effects), maps.shape[1])
        mean, second, negative, positive, zero = torch.zeros(
            (5, *shape), dtype=torch.float64, device=self.device
        )
        for centred in (False, True):  # the variance about the mean, not as a difference
            for p, base in enumerate(parts.bases):
                w = weights[p][:, None]
                m = torch.zeros(shape, dtype=torch.float64, device=self.device)
                if base >= 0:
                    own = slice(int(offsets[base]), int(offsets[base + 1]))
                    coefficients = scale[p, : own.stop - own.start, None] * z[own]
                    m = torch.where(alive[p], coefficients.T @ maps[own], m)
                if centred:
                    second += w * ((m - mean) ** 2 + variances[p])
                    continue
                mean += w * m
                # A variance of 1 where there is no effect: what comes of it is not used.
                sd = torch.sqrt(torch.where(alive[p], variances[p], 1.0))
                tail = 0.5 * torch.erfc(m.abs() / sd * _SQRT_HALF)
                below = torch.where(m > 0, tail, 1 - tail)
                above = torch.where(m > 0, 1 - tail, tail)
                negative += torch.where(alive[p], w * below, 0.0)
                positive += torch.where(alive[p], w * above, 0.0)
                zero += torch.where(alive[p], 0.0, w)
        lfsr = torch.clamp(zero + torch.minimum(negative, positive), max=1.0)
        found = {
            "posterior_mean": mean,
            "posterior_sd": torch.sqrt(second),
            "negative_prob": torch.clamp(negative, max=1.0),
            "zero_prob": torch.clamp(zero, max=1.0),
            "lfsr": lfsr,
        }
        return {name: values.cpu().numpy() for name, values in found.items()}
