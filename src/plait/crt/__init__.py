"""Perturbation screens: conditional randomization tests of perturbations on gene programs.

What does each perturbation do to each program, with calibrated p-values? Start with
`prepare_crt_inputs`.
"""

from plait.crt.burden import add_burden_covariate, compute_guide_burden
from plait.crt.composition import centered_log_ratio, floor_usage, usage_floor
from plait.crt.covariates import encode_categorical_covariates, get_covar_matrix
from plait.crt.data import CRTInputs, get_program_names, prepare_crt_inputs
from plait.crt.guides import build_gene_to_cols, to_csc_matrix, union_obs_idx_from_cols
from plait.crt.statistic import OLSStatistics, ols_statistics
from plait.crt.threads import limit_threading
from plait.io.anndata import (
    get_from_adata_any,
    read_cnmf_usage,
    read_guide_table,
    read_screen,
    screen_from_mudata,
)

__all__ = [
    "CRTInputs",
    "OLSStatistics",
    "add_burden_covariate",
    "build_gene_to_cols",
    "centered_log_ratio",
    "compute_guide_burden",
    "encode_categorical_covariates",
    "floor_usage",
    "get_covar_matrix",
    "get_from_adata_any",
    "get_program_names",
    "limit_threading",
    "ols_statistics",
    "prepare_crt_inputs",
    "read_cnmf_usage",
    "read_guide_table",
    "read_screen",
    "screen_from_mudata",
    "to_csc_matrix",
    "union_obs_idx_from_cols",
    "usage_floor",
]
