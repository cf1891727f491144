"""Association scan: from genotypes and phenotypes to effects."""

from plait.gwas.hardy_weinberg import hardy_weinberg_p, hardy_weinberg_x_p
from plait.gwas.harmonisation import Harmonised, combine_summary_statistics, harmonise
from plait.gwas.interaction import scan_interaction
from plait.gwas.interaction_results import InteractionResult
from plait.gwas.linkage import Clumps, clump, ld_prune
from plait.gwas.model import scan
from plait.gwas.plots import plot_manhattan, plot_qq, plot_regional
from plait.gwas.quality import VariantFilter
from plait.gwas.relationship import Relationships, relationship_matrix
from plait.gwas.results import AssociationResult
from plait.gwas.sample_quality import GenotypeQuality, genotype_quality
from plait.gwas.structure import PrincipalComponents, principal_components

__all__ = [
    "AssociationResult",
    "Clumps",
    "GenotypeQuality",
    "Harmonised",
    "InteractionResult",
    "PrincipalComponents",
    "Relationships",
    "VariantFilter",
    "clump",
    "combine_summary_statistics",
    "genotype_quality",
    "hardy_weinberg_p",
    "hardy_weinberg_x_p",
    "harmonise",
    "ld_prune",
    "plot_manhattan",
    "plot_qq",
    "plot_regional",
    "principal_components",
    "relationship_matrix",
    "scan",
    "scan_interaction",
]
