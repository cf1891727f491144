"""Perturbation screens: conditional randomization tests of perturbations on programs and genes.

What does each perturbation do to each program, with calibrated p-values? Start with
`prepare_crt_inputs`, then `perturbation_effects` (or `run_all_genes_union_crt`, which returns the
frames that programDE returns). What does it do to each gene? Start with `GeneScreen`, which goes
from counts to discoveries as sceptre does.
"""

from plait.crt.assignment import GuideAssignment, assign_guides, assignment_from_table
from plait.crt.burden import add_burden_covariate, compute_guide_burden
from plait.crt.cell_quality import CellQuality, cell_quality
from plait.crt.cell_ranger_screen import gene_screen_from_cell_ranger
from plait.crt.composition import centered_log_ratio, floor_usage, usage_floor
from plait.crt.control_groups import control_group_effects
from plait.crt.covariates import encode_categorical_covariates, get_covar_matrix
from plait.crt.data import CRTInputs, get_program_names, prepare_crt_inputs
from plait.crt.detectable_effects import DetectableEffects
from plait.crt.diagnostics import thirds, uniformity_by, uniformity_words
from plait.crt.effect_plots import plot_calibration, plot_effect_map, plot_volcano
from plait.crt.gene_data import (
    GeneScreenData,
    gene_screen_data,
    gene_screen_from_anndata,
    read_gene_screen,
)
from plait.crt.gene_plots import (
    pair_expression,
    plot_cells,
    plot_gene_calibration,
    plot_guides,
    plot_pair_quality,
    plot_pairs,
    plot_power,
)
from plait.crt.gene_results import GeneTestResult
from plait.crt.gene_screen import GeneScreen
from plait.crt.global_null import GlobalNullDiagnostics, run_global_null_diagnostics
from plait.crt.guides import build_gene_to_cols, to_csc_matrix, union_obs_idx_from_cols
from plait.crt.model import NEGATIVE_CONTROLS, perturbation_effects
from plait.crt.negative_controls import (
    build_ntc_group_inputs,
    guide_frequency,
    make_ntc_groups_ensemble,
    make_ntc_groups_matched_by_freq,
)
from plait.crt.ntc_crossfit import (
    compute_ntc_empirical_pvals_crossfit,
    compute_ntc_empirical_pvals_gene_agg_crossfit,
)
from plait.crt.ntc_empirical import NTCEmpirical, ntc_empirical_tests
from plait.crt.ntc_groups import (
    NullHistogram,
    compute_ntc_group_null_pvals_parallel,
    crt_pvals_for_guide_set,
    crt_pvals_for_guide_set_skew,
    crt_pvals_for_ntc_groups_ensemble,
    crt_pvals_for_ntc_groups_ensemble_skew,
)
from plait.crt.ntc_null import split_ntc_units
from plait.crt.p_values import (
    compute_null_pvals_from_null_stats,
    crt_null_pvals_from_null_stats_fast,
    crt_null_pvals_from_null_stats_matrix,
)
from plait.crt.pairs import Pairs, cis_pairs, positive_control_pairs, trans_pairs
from plait.crt.propensity import fit_propensity_logistic
from plait.crt.qq import (
    bootstrap_qq_envelope,
    expected_quantiles,
    is_bh_adjusted_like,
    qq_coords,
    qq_expected_grid,
)
from plait.crt.qq_plots import make_ntc_empirical_qq_plots, qq_plot_ntc_pvals
from plait.crt.results import CRTResult, z_scores
from plait.crt.single_tests import SingleTest, dcrt_test, gcm_test, spacrt_test
from plait.crt.statistic import OLSStatistics, ols_statistics
from plait.crt.storage import store_in_adata, store_results_in_adata
from plait.crt.strata import compute_bins
from plait.crt.threads import limit_threading
from plait.crt.union_nulls import (
    compute_gene_null_pvals,
    compute_guide_set_null_pvals,
    crt_null_stats_for_test,
)
from plait.crt.union_tests import run_all_genes_union_crt, run_one_gene_union_crt
from plait.io.anndata import (
    get_from_adata_any,
    read_cnmf_usage,
    read_guide_table,
    read_screen,
    screen_from_mudata,
)

__all__ = [
    "NEGATIVE_CONTROLS",
    "CRTInputs",
    "CRTResult",
    "CellQuality",
    "DetectableEffects",
    "GeneScreen",
    "GeneScreenData",
    "GeneTestResult",
    "GlobalNullDiagnostics",
    "GuideAssignment",
    "NTCEmpirical",
    "NullHistogram",
    "OLSStatistics",
    "Pairs",
    "SingleTest",
    "add_burden_covariate",
    "assign_guides",
    "assignment_from_table",
    "bootstrap_qq_envelope",
    "build_gene_to_cols",
    "build_ntc_group_inputs",
    "cell_quality",
    "centered_log_ratio",
    "cis_pairs",
    "compute_bins",
    "compute_gene_null_pvals",
    "compute_guide_burden",
    "compute_guide_set_null_pvals",
    "compute_ntc_empirical_pvals_crossfit",
    "compute_ntc_empirical_pvals_gene_agg_crossfit",
    "compute_ntc_group_null_pvals_parallel",
    "compute_null_pvals_from_null_stats",
    "control_group_effects",
    "crt_null_pvals_from_null_stats_fast",
    "crt_null_pvals_from_null_stats_matrix",
    "crt_null_stats_for_test",
    "crt_pvals_for_guide_set",
    "crt_pvals_for_guide_set_skew",
    "crt_pvals_for_ntc_groups_ensemble",
    "crt_pvals_for_ntc_groups_ensemble_skew",
    "dcrt_test",
    "encode_categorical_covariates",
    "expected_quantiles",
    "fit_propensity_logistic",
    "floor_usage",
    "gcm_test",
    "gene_screen_data",
    "gene_screen_from_anndata",
    "gene_screen_from_cell_ranger",
    "get_covar_matrix",
    "get_from_adata_any",
    "get_program_names",
    "guide_frequency",
    "is_bh_adjusted_like",
    "limit_threading",
    "make_ntc_empirical_qq_plots",
    "make_ntc_groups_ensemble",
    "make_ntc_groups_matched_by_freq",
    "ntc_empirical_tests",
    "ols_statistics",
    "pair_expression",
    "perturbation_effects",
    "plot_calibration",
    "plot_cells",
    "plot_effect_map",
    "plot_gene_calibration",
    "plot_guides",
    "plot_pair_quality",
    "plot_pairs",
    "plot_power",
    "plot_volcano",
    "positive_control_pairs",
    "prepare_crt_inputs",
    "qq_coords",
    "qq_expected_grid",
    "qq_plot_ntc_pvals",
    "read_cnmf_usage",
    "read_gene_screen",
    "read_guide_table",
    "read_screen",
    "run_all_genes_union_crt",
    "run_global_null_diagnostics",
    "run_one_gene_union_crt",
    "screen_from_mudata",
    "spacrt_test",
    "split_ntc_units",
    "store_in_adata",
    "store_results_in_adata",
    "thirds",
    "to_csc_matrix",
    "trans_pairs",
    "uniformity_by",
    "uniformity_words",
    "union_obs_idx_from_cols",
    "usage_floor",
    "z_scores",
]
