"""Results of a screen's tests in the AnnData that they came from."""

import json
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from plait.crt.arguments import number_array
from plait.crt.results import CRTResult
from plait.crt.union_tests import SETTINGS, frames_of
from plait.errors import InputTypeError, MissingAttributeError

if TYPE_CHECKING:
    from pandas import DataFrame

PREFIX = "crt_union_gene_program"
"""Of the keys in ``uns``, unless another is given."""


def store_results_in_adata(
    adata: Any,
    pvals_df: "DataFrame",
    betas_df: "DataFrame",
    treated_df: Any,
    prefix: str = PREFIX,
    pvals_skew_df: "DataFrame | None" = None,
    skew_params: ArrayLike | None = None,
    *,
    settings: dict[str, Any] | None = None,
) -> None:
    """Put the frames of a run into ``adata.uns``.

    Parameters
    ----------
    adata : AnnData
        Changed in place, which is what is asked for.
    pvals_df, betas_df : (genes, programs) DataFrame
    treated_df : (genes,) Series or DataFrame
        Treated cells of each gene.
    prefix : str
        Keys are ``<prefix>_pvals``, ``_betas``, ``_n_positive``, ``_pvals_skew``, ``_skew_params``,
        ``_settings`` and, of `store_in_adata`, ``_table``.
    pvals_skew_df : (genes, programs) DataFrame, optional
    skew_params : (genes, programs, 3) array, optional
    settings : dict, optional
        How they were made, stored as JSON: versions, seed, resamples, floor, methods. Default what
        frames of `run_all_genes_union_crt` say of themselves (``pvals_df.attrs``).

    Raises
    ------
    MissingAttributeError
        The object has no ``uns`` (also an AttributeError).
    InputTypeError
        A frame is none, or the parameters are no numbers (also a TypeError).

    Notes
    -----
    All of it survives `write_h5ad` and `read_h5ad`: a Series is stored as a frame of one column.
    """
    uns = getattr(adata, "uns", None)
    if uns is None:
        raise MissingAttributeError(
            f"a {type(adata).__name__} has no uns to put results in; give an AnnData."
        )
    parts = {
        "pvals": pvals_df,
        "betas": betas_df,
        "n_positive": treated_df.to_frame() if hasattr(treated_df, "to_frame") else treated_df,
        "pvals_skew": pvals_skew_df,
    }
    for name, frame in parts.items():
        if frame is not None and not (hasattr(frame, "columns") and hasattr(frame, "index")):
            raise InputTypeError(
                f"{name} is of type {type(frame).__name__}; give a DataFrame, as "
                "run_all_genes_union_crt returns it."
            )
    for name, frame in parts.items():
        if frame is not None:
            uns[f"{prefix}_{name}"] = _storable(frame)
    if skew_params is not None:
        uns[f"{prefix}_skew_params"] = number_array(skew_params, "skew_params").copy()
    if settings is None:
        settings = getattr(pvals_df, "attrs", {}).get(SETTINGS)
    if settings is not None:
        uns[f"{prefix}_settings"] = json.dumps(settings, sort_keys=True)


def store_in_adata(result: CRTResult, adata: Any, prefix: str = PREFIX) -> None:
    """Put a result into ``adata.uns`` under the names of `store_results_in_adata`.

    Beside them ``<prefix>_table`` has a row for each unit and program, with everything that
    `CRTResult.to_frame` tells of it: errors, logs of p-values, false discovery rates, statuses.

    Parameters
    ----------
    result : CRTResult
    adata : AnnData
        Changed in place.
    prefix : str

    Raises
    ------
    MissingAttributeError
        The object has no ``uns`` (also an AttributeError).
    """
    frames = frames_of(result)
    store_results_in_adata(
        adata,
        frames["pvals_df"],
        frames["betas_df"],
        frames["treated_df"],
        prefix,
        frames.get("pvals_skew_df"),
        frames.get("skew_params"),
    )
    adata.uns[f"{prefix}_table"] = _table(result)


def _table(result: CRTResult) -> "DataFrame":
    import pandas as pd

    table = result.to_frame()
    columns = {
        name: table[name].to_numpy() if table[name].dtype.is_numeric() else table[name].to_list()
        for name in table.columns
    }
    return pd.DataFrame(columns, index=[str(row) for row in range(len(table))])


def _storable(frame: "DataFrame") -> "DataFrame":
    """Return a copy whose labels HDF5 can hold."""
    stored = frame.copy()
    stored.index = stored.index.astype(str)
    stored.columns = stored.columns.astype(str)
    return stored
