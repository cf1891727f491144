"""Association scan: from genotypes and phenotypes to effects."""

from plait.gwas.model import scan
from plait.gwas.quality import VariantFilter
from plait.gwas.results import AssociationResult

__all__ = ["AssociationResult", "VariantFilter", "scan"]
