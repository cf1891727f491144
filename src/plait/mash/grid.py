"""The grid of effect sizes."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from plait.errors import InputError, OptionError
from plait.mash.data import MashData

if TYPE_CHECKING:
    from plait.mash.stored import StoredData

Array = NDArray[np.float64]

_LONGEST = 5000


def autoselect_grid(data: "MashData | StoredData", mult: float = np.sqrt(2.0)) -> Array:
    """Choose the grid of prior standard deviations that the data can tell apart.

    Parameters
    ----------
    data : MashData or StoredData
    mult : float
        Ratio of neighbouring grid values (> 1), or 0 for the two values 0 and half the largest.

    Returns
    -------
    (G,) array, ascending

    Raises
    ------
    InputError
        No cell was measured, or the standard errors span so many orders of magnitude that the grid
        would have thousands of values.

    Notes
    -----
    From a tenth of the smallest standard error to twice the largest excess of an effect over its
    error (Stephens 2017; spec section 6). Missing cells left out of the likelihood do not count.
    """
    from plait.mash.stored import StoredData

    if isinstance(data, StoredData):
        return grid_between(data.known.smallest_error, data.known.largest_excess, mult)
    return grid_of(*counted_cells(data), mult)


def counted_cells(data: MashData) -> tuple[Array, Array]:
    """Return effects and errors of the cells that enter the likelihood."""
    if data.missing != "exact" or data.missing_mask is None:
        return data.Bhat, data.Shat
    keep = ~data.missing_mask
    return data.Bhat[keep], data.Shat[keep]


def grid_of(effects: Array, errors: Array, mult: float) -> Array:
    """Return the grid for the given cells; see `autoselect_grid`."""
    return grid_between(*grid_extremes(effects, errors), mult)


def grid_extremes(effects: Array, errors: Array) -> tuple[float, float]:
    """Return the smallest standard error and the largest ``effect^2 - error^2``.

    They are infinite where no cell counts; those of parts combine by minimum and maximum.
    """
    use = np.isfinite(errors) & (errors != 0) & ~np.isnan(effects)
    if not use.any():
        return np.inf, -np.inf
    return float(errors[use].min()), float((effects[use] ** 2 - errors[use] ** 2).max())


def grid_between(smallest: float, excess: float, mult: float) -> Array:
    """Return the grid for given `grid_extremes`."""
    if mult != 0 and not mult > 1:
        raise OptionError(f"gridmult is {mult:g}; give 0 or a ratio above 1.")
    if smallest == np.inf:
        raise InputError("no cell has an effect and a positive standard error: there is no grid.")
    smallest = smallest / 10
    largest = 8 * smallest if excess <= 0 else 2 * np.sqrt(excess)
    if largest <= smallest:
        largest = 8 * smallest
    if mult == 0:
        return np.array([0.0, largest / 2])
    steps = int(np.ceil(np.log2(largest / smallest) / np.log2(mult)))
    if steps > _LONGEST:
        raise InputError(
            f"the grid would have {steps} values, from {smallest:.3g} to {largest:.3g}: a standard "
            "error is probably far too small. Check the smallest ones, or give grid or gridmult."
        )
    return largest * float(mult) ** np.arange(-steps, 1.0)
