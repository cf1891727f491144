"""Summary statistics and their references from paths, whatever format the files have."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from plait.data.summary_statistics import SummaryStatistics
from plait.data.variants import VariantTable
from plait.errors import FileFormatError
from plait.io.dialects import find_contexts, find_roles
from plait.io.eqtl import find_eqtl_format
from plait.io.fasta import Fasta, is_fasta
from plait.io.gwas_ssf import read_gwas_ssf
from plait.io.gwas_vcf import is_gwas_vcf
from plait.io.summary_statistics import (
    chromosome_names,
    header_of,
    read_summary_statistics,
)
from plait.io.variant_files import is_variant_file, read_variants

if TYPE_CHECKING:
    from polars import DataFrame

GENOTYPES = {".bed": ".bim", ".pgen": ".pvar"}
"""Files of genotypes, and where their variants are."""


def read_table(path: str | os.PathLike[str], context: str | None = None) -> SummaryStatistics:
    """Read a table of summary statistics of any tool, with the metadata beside it.

    Parameters
    ----------
    path : path
        See `plait.io.read_summary_statistics`; of GWAS-SSF the metadata are read, too.
    context : str, optional
        What the table is of: of a table with several contexts side by side, and one of this name,
        that one is read.

    Raises
    ------
    FileFormatError
        It cannot be read, or has a row for each gene and variant.
    """
    place = Path(path)
    eqtl = find_eqtl_format(place)
    if eqtl is not None:
        raise FileFormatError(
            f"{place} holds eQTL results (format {eqtl.name}): a row for each gene and variant, "
            "where this takes one for each variant. 'plait sumstats check' says how they are "
            "joined."
        )
    header = header_of(place)
    among = context if context in find_contexts(header, None, str(place)) else None
    if find_roles(header, None, None, str(place), among)[0] == "gwas-ssf":
        return read_gwas_ssf(place, **({} if context is None else {"trait": context}))
    return read_summary_statistics(place, context=among, trait=context)


def read_reference(
    path: str | os.PathLike[str],
) -> "Fasta | VariantTable | DataFrame | SummaryStatistics":
    """Return what tables are brought to.

    Parameters
    ----------
    path : path
        A genome (FASTA), the variants of a .bim, .pvar or VCF, or a table of summary statistics.

    Raises
    ------
    FileFormatError
        It is genotypes, whose variants are in another file, or cannot be read.
    """
    place = Path(path)
    if is_fasta(place):
        return Fasta(place)
    if (beside := GENOTYPES.get(place.suffix)) is not None:
        raise FileFormatError(
            f"{place} holds genotypes; a reference is a list of variants. Theirs is the {beside} "
            f"beside it: give {place.with_suffix(beside)}."
        )
    if is_variant_file(place):
        return read_variants(place, normalise_chromosomes=True)
    is_text = place.name.endswith((".vcf", ".vcf.gz", ".vcf.bgz")) and place.is_file()
    if place.suffix == ".bcf" or (is_text and not is_gwas_vcf(place)):
        from plait.io.vcf import read_vcf_sites

        sites = read_vcf_sites(place)
        return sites.with_columns(chromosome_names(sites["chrom"]).alias("chrom"))
    return read_table(place)
