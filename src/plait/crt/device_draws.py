"""Resampled effects on a GPU, through PyTorch: dense draws and one product for all programs.

The draws are others than those of the CPU, of the same law. They depend on the seed, the unit's
name and the kind of device.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.crt.null_statistics import CellTable, NullStatistics, effects_of_sums
from plait.crt.resampling import blocks_of_resamples, check_resamples
from plait.crt.seeds import RESAMPLES_PER_BLOCK, Method, UnitStream

_CELLS = 1 << 16
"""Cells drawn at a time: 128 MiB of uniforms."""


@dataclass(frozen=True, eq=False)
class DeviceTable:
    """Residuals and basis of all cells on a device.

    Attributes
    ----------
    rows : (cells, columns) float32 tensor
    n_outcomes, n_basis : int
        How many columns are outcomes and basis.
    """

    rows: Any
    n_outcomes: int
    n_basis: int

    @classmethod
    def of(cls, table: CellTable, device: Any) -> "DeviceTable":
        """Send a `plait.crt.null_statistics.residual_table` to a device."""
        import torch

        width = table.n_outcomes + table.n_basis
        rows = torch.tensor(np.ascontiguousarray(table.rows[:, :width]), device=device)
        return cls(rows, table.n_outcomes, table.n_basis)


def null_effects_on_device(
    table: DeviceTable, probabilities: NDArray[np.float64], stream: UnitStream, resamples: int
) -> NullStatistics:
    """Return one unit's effects where each cell is treated by its propensity.

    Parameters
    ----------
    table : DeviceTable
    probabilities : (cells,) array
        Propensities.
    stream : UnitStream
        The unit's random numbers.
    resamples : int
        At least 1; more of them extend fewer.

    Returns
    -------
    NullStatistics
        As of `plait.crt.null_statistics.null_effects`, of other draws.

    Notes
    -----
    2 x resamples x cells x columns flops, whatever the propensities are; the CPU's draws cost as
    much for each treated cell instead.
    """
    import torch

    check_resamples(resamples)
    device = table.rows.device
    chances = torch.tensor(probabilities, dtype=torch.float32, device=device)
    shape = (RESAMPLES_PER_BLOCK, table.rows.shape[1])
    sums = np.empty((resamples, shape[1]))
    counts = np.empty(resamples, dtype=np.int64)
    for block, size in blocks_of_resamples(resamples):
        seed = int(stream.generator(Method.DEVICE, block).integers(1 << 62))
        generator = torch.Generator(device=device).manual_seed(seed)
        total = torch.zeros(shape, dtype=torch.float64, device=device)
        treated = torch.zeros(shape[0], dtype=torch.int64, device=device)
        for begin in range(0, len(chances), _CELLS):
            own = slice(begin, begin + _CELLS)
            uniform = torch.rand((shape[0], len(chances[own])), generator=generator, device=device)
            drawn = uniform < chances[own]
            total += drawn.to(torch.float32) @ table.rows[own]
            treated += drawn.sum(1)
        rows = slice(block * RESAMPLES_PER_BLOCK, block * RESAMPLES_PER_BLOCK + size)
        sums[rows], counts[rows] = total[:size].cpu().numpy(), treated[:size].cpu().numpy()
    k = table.n_outcomes
    return NullStatistics(effects_of_sums(sums[:, :k], sums[:, k:], counts), counts)
