"""Perturbation screens: conditional randomization tests of perturbations on gene programs.

What does each perturbation do to each program, with calibrated p-values? Start with
`prepare_crt_inputs`, then `perturbation_effects` (or `run_all_genes_union_crt`, which returns the
frames that programDE returns).
"""

from plait.crt.burden import add_burden_covariate, compute_guide_burden
from plait.crt.composition import centered_log_ratio, floor_usage, usage_floor
from plait.crt.covariates import encode_categorical_covariates, get_covar_matrix
from plait.crt.data import CRTInputs, get_program_names, prepare_crt_inputs
from plait.crt.guides import build_gene_to_cols, to_csc_matrix, union_obs_idx_from_cols
from plait.crt.model import perturbation_effects
from plait.crt.p_values import (
    compute_null_pvals_from_null_stats,
    crt_null_pvals_from_null_stats_fast,
    crt_null_pvals_from_null_stats_matrix,
)
from plait.crt.propensity import fit_propensity_logistic
from plait.crt.results import CRTResult
from plait.crt.statistic import OLSStatistics, ols_statistics
from plait.crt.storage import store_in_adata, store_results_in_adata
from plait.crt.strata import compute_bins
from plait.crt.threads import limit_threading
from plait.crt.union_tests import (
    compute_gene_null_pvals,
    compute_guide_set_null_pvals,
    crt_null_stats_for_test,
    run_all_genes_union_crt,
    run_one_gene_union_crt,
)
from plait.io.anndata import (
    get_from_adata_any,
    read_cnmf_usage,
    read_guide_table,
    read_screen,
    screen_from_mudata,
)

__all__ = [
    "CRTInputs",
    "CRTResult",
    "OLSStatistics",
    "add_burden_covariate",
    "build_gene_to_cols",
    "centered_log_ratio",
    "compute_bins",
    "compute_gene_null_pvals",
    "compute_guide_burden",
    "compute_guide_set_null_pvals",
    "compute_null_pvals_from_null_stats",
    "crt_null_pvals_from_null_stats_fast",
    "crt_null_pvals_from_null_stats_matrix",
    "crt_null_stats_for_test",
    "encode_categorical_covariates",
    "fit_propensity_logistic",
    "floor_usage",
    "get_covar_matrix",
    "get_from_adata_any",
    "get_program_names",
    "limit_threading",
    "ols_statistics",
    "perturbation_effects",
    "prepare_crt_inputs",
    "read_cnmf_usage",
    "read_guide_table",
    "read_screen",
    "run_all_genes_union_crt",
    "run_one_gene_union_crt",
    "screen_from_mudata",
    "store_in_adata",
    "store_results_in_adata",
    "to_csc_matrix",
    "union_obs_idx_from_cols",
    "usage_floor",
]
