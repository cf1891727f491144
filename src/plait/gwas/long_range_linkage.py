"""Regions of the human genome in which linkage reaches over millions of bases."""

import numpy as np
from numpy.typing import NDArray

from plait.data.variants import VariantTable
from plait.errors import GenomeBuildError
from plait.gwas.table_checks import builds_excluded
from plait.io.summary_statistics import chromosome_names

LONG_RANGE_LINKAGE = {
    "GRCh37": (
        (1, 48.2, 52.3), (2, 86.1, 101.2), (2, 134.7, 138.3), (2, 183.2, 190.3), (3, 47.5, 50.1),
        (3, 83.4, 87.0), (3, 88.9, 96.1), (5, 44.4, 50.5), (5, 97.9, 100.5), (5, 128.9, 132.0),
        (5, 135.4, 138.5), (6, 25.3, 33.4), (6, 56.8, 64.0), (6, 139.9, 142.5), (7, 55.0, 66.4),
        (8, 7.9, 12.0), (8, 42.8, 49.9), (8, 111.9, 115.0), (10, 36.9, 43.7), (11, 46.0, 57.3),
        (11, 87.8, 90.9), (12, 33.1, 41.8), (12, 111.0, 113.6), (20, 32.5, 35.1),
    ),
    "GRCh38": (
        (1, 47.7, 51.8), (2, 85.9, 100.6), (2, 134.0, 137.6), (2, 182.4, 189.5), (3, 47.4, 50.0),
        (3, 83.3, 86.9), (3, 88.8, 96.3), (5, 44.4, 51.2), (5, 98.6, 101.2), (5, 129.6, 132.7),
        (5, 136.1, 139.2), (6, 25.3, 33.5), (6, 57.0, 63.3), (6, 139.6, 142.2), (7, 54.9, 66.9),
        (8, 8.1, 12.2), (8, 43.0, 49.0), (8, 110.9, 114.0), (10, 36.6, 43.2), (11, 46.0, 57.5),
        (11, 88.1, 91.2), (12, 32.9, 41.4), (12, 110.5, 113.1), (20, 33.9, 36.5),
    ),
}  # fmt: skip
"""The 24 regions of Price et al. (2008, Am J Hum Genet 83:132), among them the lactase gene, the
MHC and the inversion of 8p23: chromosome, first and last million of bases, rounded outward."""


def long_range_variants(variants: VariantTable, build: str) -> NDArray[np.bool_]:
    """Tell which variants lie in one of the 24 regions.

    Parameters
    ----------
    variants : VariantTable
        On chromosomes named with or without ``chr``.
    build : {"GRCh37", "GRCh38"}
        Of the positions.

    Returns
    -------
    (M,) bool array

    Raises
    ------
    GenomeBuildError
        A position lies beyond the end of its chromosome in this build.
    """
    frame = variants.frame.select(chromosome_names(variants.frame["chrom"]).alias("chrom"), "pos")
    if why := builds_excluded(frame).get(build):
        raise GenomeBuildError(f"the genotypes are not on {build}: {why}.")
    chrom, pos = frame["chrom"], frame["pos"].to_numpy()
    inside = np.zeros(len(variants), dtype=np.bool_)
    for chromosome, first, last in LONG_RANGE_LINKAGE[build]:
        here = (chrom == str(chromosome)).to_numpy()
        inside |= here & (pos >= 1e6 * first) & (pos <= 1e6 * last)
    return inside
