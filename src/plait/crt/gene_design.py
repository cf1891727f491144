"""Designs of the regressions of genes and guides: a formula over the covariates of cells."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.crt.gene_covariates import COUNT_COVARIATES, RESERVED
from plait.crt.gene_data import GeneScreenData
from plait.data.words import counted, known_names
from plait.errors import InputError, InputTypeError, LabelError, OptionError

Array = NDArray[np.float64]

_log = logging.getLogger("plait.crt")

N_ASSIGNED = "grna_n_assigned"
"""The covariate that is known when guides are assigned: how many a cell has."""
_MOST_LEVELS_OF_NUMBERS = 15
"""A numeric covariate with so many distinct values has no part in the default formula."""
_NOT_BY_DEFAULT = ("response_p_mito", "grna_max_fraction")
_OF_GUIDES = ("grna_n_nonzero", "grna_n_umis")
_TERM = re.compile(r"(?:(log|log1p)\(\s*([\w.]+)\s*(?:\+\s*(1))?\s*\)|([\w.]+))")
_ALIASED = 1e-9


@dataclass(frozen=True, eq=False)
class GeneDesign:
    """The design of a regression, with a well-conditioned basis of its columns.

    Attributes
    ----------
    names : tuple of str
        Columns, "(Intercept)" first.
    rows : (columns, cells) array
        The basis: its first row is ones, the others orthogonal to it and to one another with mean
        square 1.
    """

    names: tuple[str, ...]
    rows: Array

    @classmethod
    def of(
        cls, names: Sequence[str], matrix: Array, *, leave_out_determined: bool = False
    ) -> "GeneDesign":
        """Return the design of (cells, columns), ones first.

        Parameters
        ----------
        names : sequence of str
        matrix : (cells, columns) array
        leave_out_determined : bool
            Leave columns out that are determined by those before them, and say which.

        Raises
        ------
        InputError
            Columns are determined by the ones before them, or are as many as cells.
        """
        names = list(names)
        if len(matrix) <= matrix.shape[1]:
            raise InputError(
                f"the design has {counted(matrix.shape[1], 'column')} and "
                f"{counted(len(matrix), 'cell')}. A category with a level for each cell is the "
                "usual cause; leave it out."
            )
        left_out = []
        while True:
            q, r = np.linalg.qr(matrix)
            size = np.sqrt((matrix**2).sum(axis=0))
            aliased = np.abs(np.diag(r)) <= _ALIASED * size
            if not aliased.any():
                break
            # What comes after the first one is judged anew: it lost a direction to that one.
            column = int(np.argmax(aliased))
            if not leave_out_determined:
                raise InputError(
                    f"the design has {counted(matrix.shape[1], 'column')} and they are not "
                    f"independent ({names[column]!r} is determined by those before it). A "
                    "covariate that is constant, or nested in another (each batch in one "
                    "replicate), is the usual cause; leave one of them out of the formula."
                )
            left_out.append(names.pop(column))
            matrix = np.delete(matrix, column, axis=1)
        if left_out:
            _log.info(
                "left out of the formula in %d cells, as determined by the rest: %s",
                len(matrix),
                ", ".join(left_out),
                extra={"notice": True},
            )
        scale = np.sign(np.diag(r)) * np.sqrt(len(matrix))
        rows = np.ascontiguousarray((q * scale).T)
        rows[0] = 1.0
        return cls(tuple(names), rows)


def default_formula(data: GeneScreenData, *, with_guides: bool | None = None) -> str:
    """Return the formula of all covariates that are usually adjusted for.

    Parameters
    ----------
    data : GeneScreenData
    with_guides : bool, optional
        Whether counts of guides are covariates. Default where cells have many guides.

    Returns
    -------
    str
        Logarithms of counts (of one more where there are zeros) and further covariates, but for
        numbers of 15 or more distinct values and the share of mitochondrial counts. Where guides
        came assigned, and not as counts, the sum of their ones is their number, which is enough.

    Notes
    -----
    These are sceptre's covariates. Guides with counts are those that a cell has and some of the
    background, which there is more of in deeper cells; so, of cells with as many counts of guides
    and guides with counts, those that have a certain guide are less deep, and depth moves all
    genes. Counts of genes say how deep a cell is, but of few genes not well enough: without
    effects, in simulated screens of 80 genes, 1.36 times as many p-values are below 0.05 as should
    be, and 1.55 times as many below 0.01. With the guides that a cell has been assigned
    (`formula_by_assigned`) these are 1.04 and 1.07; docs/crt.md has a table.
    """
    if with_guides is None:
        with_guides = data.moi == "high"
    terms = []
    for name, values in data.covariates.items():
        if name in _NOT_BY_DEFAULT or (name in _OF_GUIDES and not with_guides):
            continue
        if name == "grna_n_umis" and data.is_assigned:
            continue
        if name in COUNT_COVARIATES:
            terms.append(f"log({name} + 1)" if (values == 0).any() else f"log({name})")
        elif name in data.levels or len(np.unique(values)) < _MOST_LEVELS_OF_NUMBERS:
            terms.append(name)
    return " + ".join(terms) if terms else "1"


def left_out_by_default(data: GeneScreenData) -> tuple[str, ...]:
    """Return the user's covariates that the default formula leaves out: numbers of many values."""
    terms = default_formula(data).split(" + ")
    return tuple(name for name in data.covariates if name not in (*RESERVED, *terms))


def design_columns(
    data: GeneScreenData, formula: str, guides_per_cell: NDArray[Any] | None = None
) -> tuple[tuple[str, ...], Array]:
    """Return the columns of a formula in all cells.

    Parameters
    ----------
    data : GeneScreenData
    formula : str
        Terms joined by "+": a covariate, ``log(x)``, ``log(x + 1)`` or ``log1p(x)`` of one; "1"
        for none. A leading "~" is allowed. There is always an intercept.
    guides_per_cell : (N,) array of int, optional
        Guides assigned to cells, which are the covariate ``grna_n_assigned``.

    Returns
    -------
    names : tuple of str
        "(Intercept)", then terms; of a category ``name_level`` for each level but the first.
    matrix : (cells, columns) array

    Raises
    ------
    OptionError
        A term is none of these, among them offsets.
    LabelError
        There is no such covariate (also a KeyError).
    InputError
        The logarithm of a number that is not positive is asked for.
    """
    if guides_per_cell is not None:
        assigned = {N_ASSIGNED: np.asarray(guides_per_cell, dtype=np.float64)}
        data = replace(data, covariates=data.covariates | assigned)
    names, columns = ["(Intercept)"], [np.ones(data.n_cells)]
    for term in _terms(formula):
        match = _TERM.fullmatch(term)
        if match is None:
            what = "an offset" if term.startswith("offset") else "a term"
            raise OptionError(
                f"the formula has {what} {term!r}; terms are covariates, log(x), log(x + 1) and "
                "log1p(x), joined by '+'. Add what else is wanted to the covariates."
            )
        function, inner, plus_one, plain = match.groups()
        name = inner or plain
        if name not in data.covariates:
            raise LabelError(
                f"the formula has {name!r}, which is no covariate; "
                f"{known_names(name, data.covariates)}. Name one of these, leave it out, or make a "
                "column of obs a covariate: --covariates (covariates=)."
            )
        values = data.covariates[name]
        if name in data.levels:
            if function:
                raise OptionError(f"the formula has {term!r}, but {name!r} is a category.")
            for level in data.levels[name][1:]:
                names.append(f"{name}_{level}")
                columns.append((values == level).astype(np.float64))
            continue
        names.append(term)
        columns.append(_transformed(values, function, bool(plus_one), term))
    return tuple(names), np.column_stack(columns)


def check_formula(data: GeneScreenData, formula: str, *, is_usual: bool) -> None:
    """Say what is wrong with a formula before guides are assigned, or left out of the usual one.

    Raises
    ------
    OptionError, LabelError, InputError
        See `design_columns` and `GeneDesign.of`.
    """
    if isinstance(formula, str) and N_ASSIGNED in formula:
        # Not known yet; what has no meaning yet cannot be determined by others, either.
        design_columns(data, formula, data.covariates["grna_n_nonzero"] + 1)
        return
    names, columns = design_columns(data, formula)
    GeneDesign.of(names, columns, leave_out_determined=is_usual)


def formula_by_assigned(formula: str) -> str:
    """Return a formula with the guides that are assigned in place of those with counts.

    It can be typed as it is; counts of guides have 1 added, whether or not one is 0.
    """
    counts = formula.strip().removeprefix("~").strip()
    for name in ("grna_n_nonzero", "grna_n_umis"):
        counts = counts.replace(f"log({name})", f"log({name} + 1)")
    return f"~ {counts.replace('grna_n_nonzero', N_ASSIGNED)}"


def _terms(formula: str) -> list[str]:
    """Cut a formula at each "+" outside parentheses."""
    if not isinstance(formula, str):
        raise InputTypeError(f"the formula is {formula!r}; give a text, as '~ batch'.")
    text = formula.strip().removeprefix("~")
    terms, depth, begin = [], 0, 0
    for place, letter in enumerate([*text, "+"]):
        depth += (letter == "(") - (letter == ")")
        if letter == "+" and depth == 0:
            terms.append(text[begin:place].strip())
            begin = place + 1
    if depth != 0:
        raise OptionError(f"the formula {formula!r} has parentheses that do not match.")
    return [term for term in terms if term not in ("", "1")]


def _transformed(values: Array, function: str | None, plus_one: bool, term: str) -> Array:
    if function is None:
        return values.astype(np.float64)
    shifted = values + float(plus_one or function == "log1p")
    if (shifted <= 0).any():
        raise InputError(
            f"the formula has {term}, without a logarithm in "
            f"{counted(int((shifted <= 0).sum()), 'cell')}; log(x + 1) allows zeros."
        )
    return np.log(shifted)
