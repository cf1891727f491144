"""Association scan: from genotypes and phenotypes to effects.

What is used is imported then: a scan takes a third of the modules, and a program is to start soon.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plait.gwas.checked_genotypes import CheckedGenotypes, QualityControl, quality_control
    from plait.gwas.combination import Combined, combine_summary_statistics
    from plait.gwas.environments_results import EnvironmentsResult
    from plait.gwas.hardy_weinberg import hardy_weinberg_p, hardy_weinberg_x_p
    from plait.gwas.harmonisation import Harmonised, harmonise
    from plait.gwas.interaction import scan_interaction
    from plait.gwas.interaction_results import InteractionResult
    from plait.gwas.linkage import Clumps, clump, ld_prune
    from plait.gwas.model import scan
    from plait.gwas.plots import plot_manhattan, plot_qq, plot_regional
    from plait.gwas.quality import VariantFilter
    from plait.gwas.relationship import relationship_matrix
    from plait.gwas.relationship_degrees import Relatives, close_relatives
    from plait.gwas.relationship_results import Relationships
    from plait.gwas.results import AssociationResult
    from plait.gwas.sample_quality import GenotypeQuality, genotype_quality
    from plait.gwas.status_codes import gwaslab_status
    from plait.gwas.structure import PrincipalComponents, principal_components
    from plait.gwas.summary_filters import Filtered, filter_summary_statistics

__all__ = [
    "AssociationResult",
    "CheckedGenotypes",
    "Clumps",
    "Combined",
    "EnvironmentsResult",
    "Filtered",
    "GenotypeQuality",
    "Harmonised",
    "InteractionResult",
    "PrincipalComponents",
    "QualityControl",
    "Relationships",
    "Relatives",
    "VariantFilter",
    "close_relatives",
    "clump",
    "combine_summary_statistics",
    "filter_summary_statistics",
    "genotype_quality",
    "gwaslab_status",
    "hardy_weinberg_p",
    "hardy_weinberg_x_p",
    "harmonise",
    "ld_prune",
    "plot_manhattan",
    "plot_qq",
    "plot_regional",
    "principal_components",
    "quality_control",
    "relationship_matrix",
    "scan",
    "scan_interaction",
]

_MODULES = {
    "checked_genotypes": "CheckedGenotypes QualityControl quality_control",
    "combination": "Combined combine_summary_statistics",
    "environments_results": "EnvironmentsResult",
    "hardy_weinberg": "hardy_weinberg_p hardy_weinberg_x_p",
    "harmonisation": "Harmonised harmonise",
    "interaction": "scan_interaction",
    "interaction_results": "InteractionResult",
    "linkage": "Clumps clump ld_prune",
    "model": "scan",
    "plots": "plot_manhattan plot_qq plot_regional",
    "quality": "VariantFilter",
    "relationship": "relationship_matrix",
    "relationship_degrees": "Relatives close_relatives",
    "relationship_results": "Relationships",
    "results": "AssociationResult",
    "sample_quality": "GenotypeQuality genotype_quality",
    "status_codes": "gwaslab_status",
    "structure": "PrincipalComponents principal_components",
    "summary_filters": "Filtered filter_summary_statistics",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
