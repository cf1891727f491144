"""Files in, files out: matrices of numbers, stores, and the results that are saved in them."""

from plait.io.atomic import check_writable, replace_file, replace_folder
from plait.io.effects_store import read_effects, write_effects
from plait.io.eqtl import read_contexts, scan_eqtl
from plait.io.fasta import Fasta
from plait.io.genotype_selection import read_names, select_genotypes
from plait.io.genotypes import SelectedGenotypes, convert_genotypes, open_genotypes
from plait.io.gwas_ssf import read_gwas_ssf, validate_gwas_ssf, write_gwas_ssf
from plait.io.matrices import (
    LabelledMatrix,
    read_covariances,
    read_effect_tables,
    read_matrix,
    read_square,
)
from plait.io.phenotypes import read_covariates, read_phenotypes
from plait.io.relationship_files import read_relationships, write_relationships
from plait.io.result import Result, freeze
from plait.io.store import check_store_writable
from plait.io.summary_statistics import (
    read_summary_contexts,
    read_summary_statistics,
    write_summary_statistics,
)
from plait.io.variant_files import read_variants

__all__ = [
    "Fasta",
    "LabelledMatrix",
    "Result",
    "SelectedGenotypes",
    "check_store_writable",
    "check_writable",
    "convert_genotypes",
    "freeze",
    "open_genotypes",
    "read_contexts",
    "read_covariances",
    "read_covariates",
    "read_effect_tables",
    "read_effects",
    "read_gwas_ssf",
    "read_matrix",
    "read_names",
    "read_phenotypes",
    "read_relationships",
    "read_square",
    "read_summary_contexts",
    "read_summary_statistics",
    "read_variants",
    "replace_file",
    "replace_folder",
    "scan_eqtl",
    "select_genotypes",
    "validate_gwas_ssf",
    "write_effects",
    "write_gwas_ssf",
    "write_relationships",
    "write_summary_statistics",
]
