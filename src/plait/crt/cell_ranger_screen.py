"""Screens with counts of genes as Cell Ranger writes them."""

import os
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from plait.crt.gene_data import GeneScreenData, gene_screen_data
from plait.errors import LabelError


def gene_screen_from_cell_ranger(
    path: str | os.PathLike[str],
    moi: str,
    targets: Any = None,
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
    targets : table or mapping, optional
        ``grna_id`` and ``grna_target`` of the guides (see `gene_screen_data`), or guides and their
        targets. Default ``target_gene_name`` of the feature reference, whose "Non-Targeting" guides
        are the negative controls and whose "None" and "Ignore" have no target.
    covariates : table or sequence of str, optional
        Further covariates of the cells, in the order of the file; or ``["gem_well"]``, the number
        behind the barcodes, which says which well of a chip a cell was in.
    on_disk : bool
        Whether counts of genes stay on disk: see `read_gene_screen`.

    Returns
    -------
    GeneScreenData
        Genes and guides have their names; genes, or guides, of one name have their ids.

    Raises
    ------
    FileFormatError
        There is no such file, or it is none of Cell Ranger's.
    DependencyError
        h5py is not installed.
    LabelError
        The file does not say what guides target and ``targets`` does not, or a covariate is named
        that is not "gem_well".
    InputError
        A feature type is missing; for others see `gene_screen_data`.
    """
    from plait.crt.layouts import target_table
    from plait.io.cell_ranger import GENES, GUIDES, open_cell_ranger

    with open_cell_ranger(path) as found:
        genes, guides = (found.counts.select(found.places(kind)) for kind in (GENES, GUIDES))
        names = found.features[found.places(GUIDES)].tolist()
        known = found.target_of_guides() if targets is None else targets
        return gene_screen_data(
            genes if on_disk else genes.to_memory(),
            guides.to_memory(),
            target_table(known, names),
            moi,
            response_names=found.features[found.places(GENES)].tolist(),
            guide_names=names,
            covariates=_covariates(covariates, found.barcodes),
            cell_names=found.barcodes.tolist(),
        )


def _covariates(given: Any, barcodes: NDArray[Any]) -> Any:
    """Return a table of covariates, of which a file of Cell Ranger has one."""
    from plait.io.cell_ranger import GEM_WELL, gem_wells

    if given is None or isinstance(given, Mapping) or hasattr(given, "columns"):
        return given
    names = [given] if isinstance(given, str) else list(given)
    if others := [name for name in names if name != GEM_WELL]:
        raise LabelError(
            f"a .h5 of Cell Ranger has no covariate {others[0]!r}; it has {GEM_WELL!r}, the number "
            "behind the barcodes. Others need an .h5ad, as columns of its obs."
        )
    return {GEM_WELL: gem_wells(barcodes)} if names else None
