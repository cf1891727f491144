"""Variants without their genotypes: the tables that lie beside PLINK files."""

import os
from pathlib import Path

from plait.data.variants import VariantTable
from plait.errors import FileFormatError
from plait.io.genotype_files import require_file
from plait.io.pgen import read_pvar
from plait.io.plink_tables import read_bim

BIM = (".bim", ".bim.gz")
PVAR = (".pvar", ".pvar.zst")


def is_variant_file(path: str | os.PathLike[str]) -> bool:
    """Tell by its name whether a file is a .bim or a .pvar."""
    return Path(path).name.lower().endswith((*BIM, *PVAR))


def read_variants(
    path: str | os.PathLike[str], normalise_chromosomes: bool = False
) -> VariantTable:
    """Read the variants of a .bim or .pvar; the other files need not be there.

    Parameters
    ----------
    path : path
        Ends in .bim, .bim.gz, .pvar or .pvar.zst.
    normalise_chromosomes : bool
        Whether ``chr1`` and ``01`` become ``1``, 23 ``X``, 24 ``Y`` and 26 ``MT``, as
        `plait.io.read_summary_statistics` does.

    Returns
    -------
    VariantTable
        Effect alleles are the first ones of a .bim (its fifth column) and ALT of a .pvar, one row
        for each of several ALT.

    Raises
    ------
    FileFormatError
        The file is not there, or is neither.
    """
    place = Path(path)
    name = place.name.lower()
    if not is_variant_file(place):
        raise FileFormatError(f"{place}: variants are read from {', '.join((*BIM, *PVAR))}.")
    require_file(place)
    table = read_bim(place) if name.endswith(BIM) else read_pvar(place)
    if not normalise_chromosomes:
        return table
    from plait.io.summary_statistics import chromosome_names

    frame = table.frame
    return VariantTable(frame.with_columns(chromosome_names(frame["chrom"]).alias("chrom")))
