"""What the background of a guide's counts is regressed on: for each guide, the counts of others.

Counts of guides are covariates of the background, since cells differ in how much of all guides was
sequenced. With a guide's own counts among them, the regression explains these counts by themselves:
in small libraries, cells of several guides then seem to have background only. Where cells have one
guide it is the other way round: a cell has a guide if it has no counts of others, and its own are
not left out.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plait.crt.gene_data import GeneScreenData
from plait.crt.gene_design import (
    GeneDesign,
    default_formula,
    design_columns,
    numeric_term,
)

Array = NDArray[np.float64]

_ALIASED = 1e-9


@dataclass(frozen=True, eq=False)
class Backgrounds:
    """The designs of the backgrounds of all guides.

    Attributes
    ----------
    rows : (columns, cells) array
        The basis (as of `GeneDesign`) of what is the same for all guides.
    of_guides : tuple of (covariate, is_log)
        The terms that are counts of guides, in the order of the formula; without terms, a guide's
        own counts are not left out.
    data : GeneScreenData
    """

    rows: Array
    of_guides: tuple[tuple[str, bool], ...]
    data: GeneScreenData

    @classmethod
    def of(cls, data: GeneScreenData, formula: str | None, *, leave_out_own: bool) -> "Backgrounds":
        """Return the designs of a formula; see `plait.crt.gene_design.design_columns`.

        Of the default one (None), columns that are determined by others are left out.
        """
        is_usual = formula is None
        names, columns = design_columns(data, background_formula(data, formula))
        whole = GeneDesign.of(names, columns, leave_out_determined=is_usual)
        kept = [names.index(name) for name in whole.names]
        names, columns = whole.names, columns[:, kept]
        terms = [numeric_term(name) for name in names] if leave_out_own else [None] * len(names)
        own = [term is not None and term[0] in _OWN for term in terms]
        if not any(own):
            return cls(whole.rows, (), data)
        fixed = [j for j, is_own in enumerate(own) if not is_own]
        rows = GeneDesign.of([names[j] for j in fixed], columns[:, fixed]).rows
        chosen = tuple(term for term, is_own in zip(terms, own, strict=True) if is_own and term)
        return cls(rows, chosen, data)

    def without(self, cells: NDArray[np.int32], counts: NDArray[np.float32]) -> Array:
        """Return the design of the guide with these counts.

        Parameters
        ----------
        cells, counts : arrays
            Cells with counts of the guide, and the counts.

        Returns
        -------
        (columns, cells) array
            Logarithms are those of one more, since cells may have no other guide. What does not
            vary, or follows from the rest, is left out.
        """
        rows = self.rows
        for name, is_log in self.of_guides:
            values = self.data.covariates[name].astype(np.float64)
            values[cells] -= _OWN[name](counts)
            values = np.maximum(values, 0.0)
            rows = _with(rows, np.log1p(values) if is_log else values)
        return rows


def background_formula(data: GeneScreenData, formula: str | None) -> str:
    """Return the formula of the background, by default of all covariates."""
    return default_formula(data, with_guides=True) if formula is None else formula


_OWN = {
    "grna_n_umis": lambda counts: counts,
    "grna_n_nonzero": lambda counts: (counts > 0).astype(np.float64),
}
"""What a guide's own counts add to covariates."""


def _with(rows: Array, column: Array) -> Array:
    """Add a column to a basis, or not, if it follows from it."""
    size = float(np.sqrt(column @ column))
    rest = column
    for _ in range(2):  # once leaves rounding errors of the size of what is taken away
        rest = rest - (rows @ rest / rows.shape[1]) @ rows
    length = float(np.sqrt(rest @ rest))
    if length <= _ALIASED * size:
        return rows
    return np.vstack([rows, rest * (np.sqrt(len(rest)) / length)])
