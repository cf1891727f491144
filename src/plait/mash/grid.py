"""The grid of effect sizes."""

import numpy as np
from numpy.typing import NDArray

from plait.errors import InputError, OptionError
from plait.mash.data import MashData, counted_cells, grid_extremes
from plait.mash.stored import StoredData

Array = NDArray[np.float64]

_LONGEST = 5000


def autoselect_grid(data: MashData | StoredData, mult: float = np.sqrt(2.0)) -> Array:
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
    error (Stephens 2017). Missing cells left out of the likelihood do not count.
    """
    if isinstance(data, StoredData):
        return grid_between(data.known.smallest_error, data.known.largest_excess, mult)
    return grid_of(*counted_cells(data), mult)


def grid_of(effects: Array, errors: Array, mult: float) -> Array:
    """Return the grid for the given cells; see `autoselect_grid`."""
    return grid_between(*grid_extremes(effects, errors), mult)


def grid_between(smallest: float, excess: float, mult: float) -> Array:
    """Return the grid for given `plait.mash.data.grid_extremes`."""
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
