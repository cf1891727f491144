"""Propensities from elsewhere, by the names of the units that they are of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from plait.crt.arguments import number_array
from plait.data.labels import describe_difference, require_distinct
from plait.data.words import counted
from plait.errors import LabelError, ShapeError

if TYPE_CHECKING:
    from pandas import DataFrame

Array = NDArray[np.float64]


def is_labelled(model: Any) -> TypeGuard["DataFrame"]:
    """Return whether a propensity model is a DataFrame of propensities."""
    return hasattr(model, "columns") and hasattr(model, "to_numpy")


@dataclass(frozen=True, slots=True, eq=False)
class GivenPropensities:
    """Propensities of cells, a column for each unit.

    Attributes
    ----------
    values : (cells, columns) array
    units : tuple of str
        What the columns are of.
    is_labelled : bool
        Whether they came with these names; else they are those of the screen's targets, in order.
    """

    values: Array
    units: tuple[str, ...]
    is_labelled: bool

    @classmethod
    def of_model(
        cls, model: Any, cells: NDArray[np.str_], units: Sequence[str]
    ) -> "GivenPropensities | None":
        """Return the propensities that a propensity model holds, or None if it is another one.

        Parameters
        ----------
        model : array, DataFrame or another propensity model
            An array has a column for each target of the screen, in the order of its ``units``. A
            DataFrame has columns named by units, any of them in any order; its index is that of
            the cells, in any order, or the default one, 0 to cells - 1 in this order.
        cells : (cells,) array of str
        units : sequence of str
            The targets of the screen.

        Raises
        ------
        ShapeError
            An array is not of all cells and all targets, or a DataFrame not of all cells.
        LabelError
            Columns occur twice, or the index is of other cells (also a KeyError).
        """
        if is_labelled(model):
            names = tuple(str(name) for name in model.columns)
            require_distinct("column of the given propensities", names)
            values = number_array(model.to_numpy(), "the table of given propensities", copy=False)
            if len(values) != len(cells):
                raise ShapeError(
                    f"the given propensities have {counted(len(values), 'row')} for "
                    f"{counted(len(cells), 'cell')}."
                )
            return cls(_in_order(values, getattr(model, "index", None), cells), names, True)
        if not isinstance(model, np.ndarray):
            return None
        if model.shape != (len(cells), len(units)):
            raise ShapeError(
                f"the given propensities have the shape {model.shape}; the screen has "
                f"{counted(len(cells), 'cell')} and {counted(len(units), 'target')}, and an array "
                "has a column for each of them in the order of inputs.units, whichever are "
                "tested. A DataFrame is matched by the names of its columns."
            )
        return cls(model, tuple(units), False)

    def of(self, names: Sequence[str]) -> Array:
        """Return the columns of some units, (cells, units); for errors see `require`."""
        self.require(names)
        column = {unit: j for j, unit in enumerate(self.units)}
        return np.asarray(self.values[:, [column[name] for name in names]])

    def require(self, names: Sequence[str]) -> None:
        """Refuse units without a column.

        Raises
        ------
        LabelError
            One has none (also a KeyError).
        """
        missing = [name for name in names if name not in set(self.units)]
        if not missing:
            return
        some = ", ".join(map(repr, missing[:5])) + (", ..." if len(missing) > 5 else "")
        how = (
            "the DataFrame has no such columns"
            if self.is_labelled
            else "the array is of the screen's targets; give a DataFrame with columns of these "
            "names, 'const' or a function of (C, y01)"
        )
        raise LabelError(
            f"there are no given propensities for {len(missing):,} of "
            f"{counted(len(names), 'unit')} ({some}): {how}."
        )


def _in_order(values: Array, index: Any, cells: NDArray[np.str_]) -> Array:
    """Return rows in the order of the cells, where they have names."""
    import pandas as pd

    # A reversed or cut frame keeps a RangeIndex, but that names its rows.
    if index is None or index.equals(pd.RangeIndex(len(values))):
        return values
    rows = [str(name) for name in index]
    if rows == cells.tolist():
        return values
    require_distinct("cell of the given propensities", rows)
    if set(rows) != set(cells.tolist()):
        raise LabelError(
            "the given propensities are of other cells: "
            f"{describe_difference(cells.tolist(), rows)}."
        )
    row = {name: i for i, name in enumerate(rows)}
    return values[[row[name] for name in cells.tolist()]]
