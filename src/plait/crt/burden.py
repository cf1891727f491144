"""How many guides a cell carries: a covariate of its own."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plait.crt.covariates import as_frame_or_array
from plait.crt.guides import as_names, guide_labels, guide_targets, to_csc_matrix
from plait.data.words import counted
from plait.errors import InputError, MissingAttributeError, ShapeError
from plait.io.anndata import get_from_adata_any

if TYPE_CHECKING:
    from pandas import DataFrame

NTC_LABELS = ("non-targeting", "safe-targeting", "NTC")
"""What the targets of negative controls are usually called."""


def compute_guide_burden(
    G: Any,
    *,
    guide_names: Sequence[str] | None = None,
    guide2gene: Mapping[str, str] | None = None,
    ntc_labels: str | Iterable[str] | None = None,
    include_ntc: bool = True,
    count_nonzero: bool = True,
    use_log1p: bool = True,
) -> NDArray[np.float64]:
    """Count the guides of each cell.

    Parameters
    ----------
    G : (N, G) DataFrame, array or sparse array
        Guides of cells; anything but 0 is present.
    guide_names : sequence of str, optional
        Its columns.
    guide2gene : mapping of str to str, optional
        Targets of guides.
    ntc_labels : str or iterable of str, optional
        Targets of negative controls.
    include_ntc : bool
        Count the guides of negative controls too; without them the three above are needed. Guides
        without a target are counted always.
    count_nonzero : bool
        Count guides; otherwise add up their entries.
    use_log1p : bool
        Return ``log(1 + burden)``.

    Returns
    -------
    (N,) array

    Raises
    ------
    InputError
        ``include_ntc=False`` without names, targets or labels, or an entry is negative.
    ShapeError
        There are not as many names as columns.
    InputTypeError
        The guides or labels are of another type (also a TypeError).

    Notes
    -----
    Time O(entries of G).
    """
    guides = to_csc_matrix(G)
    if not include_ntc:
        labels = set() if ntc_labels is None else set(as_names(ntc_labels))
        if guide_names is None or guide2gene is None or not labels:
            raise InputError(
                "to leave out negative controls (include_ntc=False), guide_names, guide2gene and "
                "at least one of ntc_labels are needed."
            )
        if len(guide_names) != guides.shape[1]:
            raise ShapeError(
                f"the guides have {counted(len(guide_names), 'name')} and "
                f"{counted(guides.shape[1], 'column')}."
            )
        kept = [j for j, name in enumerate(guide_names) if guide2gene.get(name) not in labels]
        guides = guides[:, kept]
    entries = np.ones(guides.nnz) if count_nonzero else guides.data.astype(np.float64)
    burden = np.zeros(guides.shape[0])
    np.add.at(burden, guides.indices, entries)
    return np.log1p(burden) if use_log1p else burden


def add_burden_covariate(
    adata: Any,
    *,
    guide_assignment_key: str = "guide_assignment",
    covar_key: str = "covar",
    guide_names_key: str = "guide_names",
    guide2gene_key: str = "guide2gene",
    burden_key: str = "log1p_non_ntc_guides_per_cell",
    ntc_labels: str | Iterable[str] | None = NTC_LABELS,
    include_ntc: bool = False,
    count_nonzero: bool = True,
    use_log1p: bool = True,
) -> "DataFrame":
    """Add the number of guides of each cell to the covariates of an AnnData.

    The one function that changes an AnnData before a test: ``obsm[covar_key]`` becomes a new
    DataFrame with the column ``burden_key`` (in place of one of this name).

    Parameters
    ----------
    adata : AnnData or an object with ``obsm``
    guide_assignment_key, covar_key, guide_names_key, guide2gene_key : str
        As in `prepare_crt_inputs`. Covariates in an array get the names ``covar_0``, ....
    burden_key : str
        Name of the new column.
    ntc_labels, include_ntc, count_nonzero, use_log1p
        As in `compute_guide_burden`.

    Returns
    -------
    pandas.DataFrame
        The covariates with the new column.

    Raises
    ------
    MissingAttributeError
        The object has no ``obsm`` (also an AttributeError).
    LabelError, InputError, ShapeError
        As in `prepare_crt_inputs` and `compute_guide_burden`.

    Notes
    -----
    From then on the burden is an adjustment covariate too. With few distinct numbers of guides (20
    at most by default) it is encoded as categories, which is logged; give
    ``numeric_as_category_threshold=None`` to keep it a number.
    """
    import pandas as pd

    if getattr(adata, "obsm", None) is None:
        raise MissingAttributeError(
            f"this {type(adata).__name__} has no obsm, where covariates are; expected an AnnData."
        )
    assignment = get_from_adata_any(adata, guide_assignment_key)
    needs_targets = not include_ntc
    burden = compute_guide_burden(
        assignment,
        guide_names=guide_labels(adata, assignment, guide_names_key) if needs_targets else None,
        guide2gene=guide_targets(adata, guide2gene_key) if needs_targets else None,
        ntc_labels=ntc_labels,
        include_ntc=include_ntc,
        count_nonzero=count_nonzero,
        use_log1p=use_log1p,
    )
    table = as_frame_or_array(get_from_adata_any(adata, covar_key))
    if isinstance(table, np.ndarray):
        table = pd.DataFrame(
            table,
            columns=[f"covar_{j}" for j in range(table.shape[1])],
            index=getattr(adata, "obs_names", None),
        )
    if len(table) != len(burden):
        raise ShapeError(
            f"numbers of cells differ: {len(table):,} in the covariates, {len(burden):,} in the "
            "guide assignment."
        )
    table = table.assign(**{str(burden_key): burden})
    adata.obsm[covar_key] = table
    return table
