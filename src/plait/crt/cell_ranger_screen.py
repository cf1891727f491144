"""Screens with counts of genes as Cell Ranger writes them."""

import os
from typing import Any

import numpy as np

from plait.crt.gene_data import GeneScreenData, gene_screen_data
from plait.errors import InputError

_GENES, _GUIDES = "Gene Expression", "CRISPR Guide Capture"


def gene_screen_from_cell_ranger(
    path: str | os.PathLike[str],
    moi: str,
    targets: Any,
    *,
    covariates: Any = None,
    on_disk: bool = True,
) -> GeneScreenData:
    """Read the counts of genes and guides of a ``.h5`` of Cell Ranger.

    Parameters
    ----------
    path : path
        ``filtered_feature_bc_matrix.h5`` with the feature types "Gene Expression" and "CRISPR Guide
        Capture".
    moi : {"low", "high"}
    targets : table
        ``grna_id`` and ``grna_target`` of the guides: see `gene_screen_data`.
    covariates : table, optional
        Further covariates of the cells, in the order of the file.
    on_disk : bool
        Whether counts of genes stay on disk: see `read_gene_screen`.

    Returns
    -------
    GeneScreenData
        Genes and guides have their names, those of which there are two their ids.

    Raises
    ------
    FileFormatError
        There is no such file, or it is none of Cell Ranger's.
    DependencyError
        h5py is not installed.
    InputError
        A feature type is missing; for others see `gene_screen_data`.
    """
    from plait.io.cell_ranger import open_cell_ranger

    with open_cell_ranger(path) as found:
        columns = {}
        for kind in (_GENES, _GUIDES):
            columns[kind] = np.flatnonzero(found.kinds == kind)
            if not len(columns[kind]):
                there = ", ".join(map(repr, np.unique(found.kinds).tolist()))
                raise InputError(f"{path} has no features of the type {kind!r}; it has {there}.")
        genes = found.counts.select(columns[_GENES])
        return gene_screen_data(
            genes if on_disk else genes.to_memory(),
            found.counts.select(columns[_GUIDES]).to_memory(),
            targets,
            moi,
            response_names=found.features[columns[_GENES]].tolist(),
            guide_names=found.features[columns[_GUIDES]].tolist(),
            covariates=covariates,
            cell_names=found.barcodes.tolist(),
        )
