"""Association scan: from genotypes and phenotypes to effects."""

from plait.gwas.hardy_weinberg import hardy_weinberg_p
from plait.gwas.linkage import Clumps, clump, ld_prune
from plait.gwas.model import scan
from plait.gwas.plots import plot_manhattan, plot_qq
from plait.gwas.quality import VariantFilter
from plait.gwas.relationship import Relationships, relationship_matrix
from plait.gwas.results import AssociationResult

__all__ = [
    "AssociationResult",
    "Clumps",
    "Relationships",
    "VariantFilter",
    "clump",
    "hardy_weinberg_p",
    "ld_prune",
    "plot_manhattan",
    "plot_qq",
    "relationship_matrix",
    "scan",
]
