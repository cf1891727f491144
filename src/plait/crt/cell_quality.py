"""Which cells of a screen are used: those of usual depth and, where meant, with one guide."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plait.crt.arguments import real_number, share
from plait.crt.assignment import GuideAssignment
from plait.crt.gene_data import GeneScreenData
from plait.crt.guides import as_names
from plait.data.words import counted
from plait.errors import InputError, InputTypeError, LabelError, ModelWarning, OptionError

if TYPE_CHECKING:
    from polars import DataFrame


COVARIATES = {
    "response_n_nonzero": "genes with counts",
    "response_n_umis": "counts of genes",
    "response_p_mito": "share of mitochondrial counts",
    "grna_n_nonzero": "guides with counts",
    "grna_n_umis": "counts of guides",
    "grna_max_fraction": "share of the largest guide",
    "grna_n_assigned": "guides assigned",
}
"""Covariates of cells that are made of their counts, in words."""
_FEWEST_SINGLE = 14
"""Cells with one guide: by default a pair needs seven treated and seven control cells."""


@dataclass(frozen=True, eq=False)
class CellQuality:
    """Cells that are used, and why others are not.

    Attributes
    ----------
    is_used : (N,) array of bool
    removed : dict of str to int
        Cells that each reason speaks against; some have several.
    cell_names : (N,) array of str
    settings : dict
    """

    is_used: NDArray[np.bool_]
    removed: dict[str, int]
    cell_names: NDArray[np.str_]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def cells(self) -> NDArray[np.intp]:
        """The places of the cells that are used, ascending."""
        return np.flatnonzero(self.is_used)

    def to_frame(self) -> "DataFrame":
        """Return a table of cells: ``cell``, ``is_used``."""
        import polars as pl

        return pl.DataFrame({"cell": self.cell_names, "is_used": self.is_used})

    def summary(self) -> str:
        """Say in a few lines which cells are left out."""
        n = len(self.is_used)
        lines = [f"{int(self.is_used.sum()):,} of {counted(n, 'cell')} are used"]
        if not self.is_used.all():
            lines.append("  left out, some for several reasons:")
        lines += [
            f"    {COVARIATES.get(reason, reason)}: {count:,}"
            for reason, count in self.removed.items()
            if count
        ]
        return "\n".join(lines)


def cell_quality(
    data: GeneScreenData,
    assignment: GuideAssignment,
    *,
    umis_quantiles: tuple[float, float] = (0.01, 0.99),
    nonzero_quantiles: tuple[float, float] = (0.01, 0.99),
    max_mito: float = 0.2,
    remove: Iterable[str] = (),
    keep_with_non_targeting: bool = False,
) -> CellQuality:
    """Choose the cells that are used.

    Parameters
    ----------
    data : GeneScreenData
    assignment : GuideAssignment
    umis_quantiles, nonzero_quantiles : pairs of float
        Cells with fewer counts of genes (or genes with counts) than the one quantile of all cells,
        or more than the other, are left out.
    max_mito : float
        Cells with a larger share of mitochondrial counts are left out.
    remove : iterable of str
        Names of cells to leave out.
    keep_with_non_targeting : bool
        Where cells are meant to have one guide, keep those with one that targets something and
        others that are non-targeting. They are no controls. Guides assigned by "maximum" are one in
        a cell, so that there are none to keep.

    Returns
    -------
    CellQuality
        Where cells are meant to have one guide, those with none or several, and those whose guide
        is uncertain, are left out too.

    Raises
    ------
    OptionError
        A quantile or a share is out of range, or cells with non-targeting guides are to be kept
        where guides are assigned by "maximum".
    LabelError
        A cell to leave out is none of the data's.
    InputError
        No cell is left, or fewer than 14, a treated and a control group of seven, where cells are
        meant to have one guide and most have several.

    Warns
    -----
    ModelWarning
        Half of the cells or more have several guides, or an uncertain one, where they are meant to
        have one.
    """
    reasons: dict[str, NDArray[np.bool_]] = {}
    for name, quantiles in (("n_umis", umis_quantiles), ("n_nonzero", nonzero_quantiles)):
        low, high = _two_shares(quantiles, f"{name.removeprefix('n_')}_quantiles")
        values = data.covariates[f"response_{name}"]
        bounds = np.quantile(values, [low, high])
        reasons[f"response_{name}"] = (values < bounds[0]) | (values > bounds[1])
    share(max_mito, "max_mito", "a share of counts")
    if "response_p_mito" in data.covariates:
        reasons["response_p_mito"] = data.covariates["response_p_mito"] > max_mito
    unwanted = set(as_names(remove))
    if unknown := sorted(unwanted - set(data.cell_names.tolist())):
        raise LabelError(
            f"{len(unknown):,} of {counted(len(unwanted), 'cell')} to leave out are not in the "
            f"data (first: {unknown[0]!r}; the data begin with {str(data.cell_names[0])!r}); name "
            "cells as the data do."
        )
    reasons["asked for"] = np.isin(data.cell_names, sorted(unwanted))
    if keep_with_non_targeting and assignment.settings.get("method") == "maximum":
        raise OptionError(
            "keep_with_non_targeting does nothing where guides are assigned by method='maximum', "
            "which gives a cell one guide; give method='thresholding' or method='mixture'."
        )
    if data.moi == "low":
        per_cell = assignment.guides_per_cell
        several = per_cell > 1
        if keep_with_non_targeting:
            targeting = np.flatnonzero(~data.targets.is_control)
            several &= (
                np.bincount(assignment.cells[:, targeting].indices, minlength=data.n_cells) != 1
            )
        reasons |= {
            "no guide": per_cell == 0,
            "several guides": several,
            "uncertain guide": assignment.is_uncertain,
        }
        useless = int((several | assignment.is_uncertain).sum())
        if useless >= 0.5 * data.n_cells:
            single = data.n_cells - int((several | assignment.is_uncertain | (per_cell == 0)).sum())
            if single < _FEWEST_SINGLE:
                raise InputError(
                    f"only {single:,} of {counted(data.n_cells, 'cell')} "
                    f"{'has' if single == 1 else 'have'} a single guide, too few to test. If cells "
                    "are meant to have many guides, give moi='high'."
                )
            warnings.warn(
                f"{useless:,} of {counted(data.n_cells, 'cell')} have several guides, or none "
                "with most of their guide counts, and are left out. If cells are meant to have "
                "many guides, give moi='high'.",
                ModelWarning,
                stacklevel=2,
            )
    is_used = ~np.logical_or.reduce(list(reasons.values()))
    removed = {reason: int(speaks.sum()) for reason, speaks in reasons.items()}
    if not is_used.any():
        counts = ", ".join(
            f"{COVARIATES.get(reason, reason)}: {count:,}"
            for reason, count in removed.items()
            if count
        )
        raise InputError(f"quality control leaves no cell of {data.n_cells:,} ({counts}).")
    return CellQuality(
        is_used,
        removed,
        data.cell_names,
        {
            "umis_quantiles": list(umis_quantiles),
            "nonzero_quantiles": list(nonzero_quantiles),
            "max_mito": max_mito,
            "removed_by_name": len(unwanted),
            "keep_with_non_targeting": keep_with_non_targeting,
        },
    )


def _two_shares(given: Any, name: str) -> tuple[float, float]:
    if isinstance(given, str) or not isinstance(given, Sequence | np.ndarray) or len(given) != 2:
        raise InputTypeError(f"{name} is {given!r}; give two shares of cells.")
    low, high = (real_number(value, name) for value in given)
    if not 0.0 <= low < high <= 1.0:
        raise OptionError(f"{name} is {given}; give two ascending shares of cells.")
    return low, high
