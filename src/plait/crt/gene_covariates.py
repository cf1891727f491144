"""Covariates of the cells of a gene-level screen: those of its counts, and the user's."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from plait.crt.gene_counts import GeneCounts, blocks_of_genes, genes_of
from plait.data.labels import require_distinct
from plait.data.words import counted
from plait.errors import InputError, InputTypeError, LabelError, MissingCovariateError, ShapeError

COUNT_COVARIATES = ("response_n_nonzero", "response_n_umis", "grna_n_nonzero", "grna_n_umis")
"""Covariates that are made of the counts themselves."""
RESERVED = (*COUNT_COVARIATES, "response_p_mito", "grna_max_fraction", "grna_n_assigned")
"""Names that the user's covariates cannot have."""
_INTERCEPT = "1"


def is_missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell which values of a column are missing: NaN, None, or NA of pandas."""
    if values.dtype.kind == "f":
        return np.asarray(np.isnan(values))
    if values.dtype.kind == "O":
        return np.array([_is_no_value(value) for value in values], dtype=bool)
    return np.zeros(len(values), dtype=bool)


def _is_no_value(value: Any) -> bool:
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas.NA has no truth
        return True


def count_covariates(
    counts: GeneCounts, guides: Sequence[csc_array], genes: NDArray[np.str_]
) -> dict[str, NDArray[Any]]:
    """Return the covariates that counts make: `COUNT_COVARIATES` and shares of counts.

    Parameters
    ----------
    counts : (cells, genes) csc_array or StoredCounts
    guides : sequence of (cells, guides) csc_array
        Guides of one vector are one: a cell has the vector, and not so many guides.
    genes : (genes,) array of str
        Those that begin with "MT-", large or small, are mitochondrial.

    Returns
    -------
    dict of (cells,) arrays
        ``response_p_mito`` if there are mitochondrial genes, and ``grna_max_fraction`` last.
    """
    n_cells = counts.shape[0]
    made: dict[str, NDArray[Any]] = {}
    for name, matrices in (("response", [counts]), ("grna", guides)):
        n_nonzero, n_umis = np.zeros(n_cells), np.zeros(n_cells)
        for matrix in matrices:
            for _, block in blocks_of_genes(matrix):
                n_nonzero += np.bincount(block.indices, minlength=n_cells)
                n_umis += np.bincount(block.indices, block.data, minlength=n_cells)
        made[f"{name}_n_nonzero"], made[f"{name}_n_umis"] = n_nonzero, n_umis
    is_mitochondrial = np.char.startswith(np.char.upper(genes), "MT-")
    if is_mitochondrial.any():
        part = genes_of(counts, np.flatnonzero(is_mitochondrial))
        umis = np.bincount(part.indices, part.data, minlength=n_cells)
        made["response_p_mito"] = umis / np.maximum(made["response_n_umis"], 1.0)
    largest = np.zeros(n_cells)
    for part in guides:
        np.maximum.at(largest, part.indices, part.data)
    made["grna_max_fraction"] = largest / np.maximum(made["grna_n_umis"], 1.0)
    return made


def users_covariates(
    source: Any, n_cells: int
) -> tuple[dict[str, NDArray[Any]], dict[str, tuple[str, ...]]]:
    """Return the user's covariates and the levels of the categorical ones.

    Parameters
    ----------
    source : table or None
        What pandas calls a category is one, whatever its levels are; of other columns numbers are
        amounts, and text and truth values are categories.
    n_cells : int

    Returns
    -------
    values : dict of (cells,) arrays
        Of numbers, or of text for categories.
    levels : dict of str to tuple of str
        Those of each category, in order.

    Raises
    ------
    InputTypeError, ShapeError, LabelError, MissingCovariateError, InputError
        See `plait.crt.gene_data.gene_screen_data`.
    """
    if source is None:
        return {}, {}
    if not isinstance(source, Mapping) and not hasattr(source, "columns"):
        raise InputTypeError(
            f"the covariates are of type {type(source).__name__}; give a DataFrame or a mapping of "
            "columns."
        )
    values: dict[str, NDArray[Any]] = {}
    levels: dict[str, tuple[str, ...]] = {}
    names = list(source) if isinstance(source, Mapping) else list(source.columns)
    require_distinct("covariate", [str(name) for name in names])
    for name in names:
        column, label = source[name], str(name)
        if label in RESERVED:
            raise LabelError(f"a covariate is called {label!r}, which is made of the counts.")
        if label == _INTERCEPT:
            raise LabelError(
                f"a covariate is called {label!r}, which stands for the intercept in a formula; "
                "rename it."
            )
        array, categories = _values_and_categories(column)
        if array.shape != (n_cells,):
            raise ShapeError(
                f"the covariate {label!r} has {len(array):,} of {counted(n_cells, 'cell')}."
            )
        if (missing := is_missing(array)).any():
            raise MissingCovariateError(
                f"the covariate {label!r} is missing in {counted(int(missing.sum()), 'cell')} "
                f"(first: cell {int(np.argmax(missing)) + 1}); fill it in, or leave these cells or "
                "the covariate out."
            )
        if array.dtype.kind in "iuf":
            if not np.isfinite(array).all():
                bad = ~np.isfinite(array)
                raise InputError(
                    f"the covariate {label!r} is infinite in {counted(int(bad.sum()), 'cell')} "
                    f"(first: cell {int(np.argmax(bad)) + 1}), as a logarithm of 0 is; leave these "
                    "cells or the covariate out."
                )
            values[label] = array.astype(np.float64)
            continue
        values[label] = array.astype(np.str_)
        present = set(values[label].tolist())
        known = sorted(present) if categories is None else categories
        if empty := [level for level in known if level not in present]:
            raise InputError(
                f"no cell has the level {empty[0]!r} of the covariate {label!r}; remove unused "
                "categories."
            )
        levels[label] = tuple(known)
    return values, levels


def _values_and_categories(column: Any) -> tuple[NDArray[Any], list[str] | None]:
    """Return the values of a column, text of a category, and the levels that pandas knows of it."""
    holder = getattr(column, "cat", column)
    if getattr(holder, "categories", None) is None:
        return np.asarray(column), None
    levels = [str(level) for level in holder.categories]
    codes = np.asarray(holder.codes)
    return np.array([*levels, None], dtype=object)[codes], levels  # -1, a missing one, is the last
