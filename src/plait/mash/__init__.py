"""Multivariate adaptive shrinkage.

Which effects are real, and in which contexts are they shared? Start with `mash_set_data`,
`cov_canonical` and `mash`.
"""

from plait.mash import covariances, likelihoods
from plait.mash.ash import AshResult, NormalMixture, ash, mash_1by1
from plait.mash.checks import check_mash_data, regularize_cov
from plait.mash.contrasts import contrast_matrix
from plait.mash.covariances import (
    cov_canonical,
    cov_from_factors,
    cov_pca,
    cov_simple_het,
    cov_udi,
    lift_cov,
    r1cov,
)
from plait.mash.credible_sets import (
    CredibleSetSummary,
    format_credible_set_report,
    renumber_credible_sets_by_logbf,
    renumber_credible_sets_from_result,
)
from plait.mash.data import MashData, mash_set_data, mash_update_data, subset_mash_data
from plait.mash.extreme_deconvolution import cov_ed, extreme_deconvolution
from plait.mash.grid import autoselect_grid
from plait.mash.model import (
    mash,
    mash_compute_loglik,
    mash_compute_posterior_matrices,
    mash_compute_vloglik,
)
from plait.mash.null_correlation import (
    NullCorrelationFit,
    estimate_null_correlation_simple,
    mash_estimate_corr_em,
)
from plait.mash.plots import (
    mash_plot_meta,
    plot_pattern,
    plot_sharing,
    plot_shrinkage,
    plot_weights,
)
from plait.mash.results import (
    ChunkedApplyResult,
    FittedG,
    MashResult,
    PosteriorMatrices,
    TrainApplyResult,
)
from plait.mash.selection import select_training_effects, strong_effects
from plait.mash.stored import StoredData, mash_open_data
from plait.mash.summaries import (
    get_estimated_pi,
    get_fitted_g,
    get_lfdr,
    get_lfsr,
    get_log10bf,
    get_loglik,
    get_n_significant_conditions,
    get_ncond,
    get_np,
    get_pairwise_sharing,
    get_pairwise_sharing_from_samples,
    get_pm,
    get_posterior_condition_wise_summary,
    get_psd,
    get_samples,
    get_significant_results,
    pairwise_sharing_prob,
)
from plait.mash.truncated_em import teem
from plait.mash.ultimate_deconvolution import cov_ud
from plait.mash.workflow import (
    apply_mash_prior,
    apply_mash_prior_chunked,
    apply_mash_prior_to_store,
    fit_mash_prior,
    mash_train_apply,
)
from plait.numerics.mixsqp import MixsqpResult, mixsqp, optimize_pi
from plait.simulate.effects import sim_contrast1, sim_contrast2, simple_sims, simple_sims2

__all__ = [
    "AshResult",
    "ChunkedApplyResult",
    "CredibleSetSummary",
    "FittedG",
    "MashData",
    "MashResult",
    "MixsqpResult",
    "NormalMixture",
    "NullCorrelationFit",
    "PosteriorMatrices",
    "StoredData",
    "TrainApplyResult",
    "apply_mash_prior",
    "apply_mash_prior_chunked",
    "apply_mash_prior_to_store",
    "ash",
    "autoselect_grid",
    "check_mash_data",
    "contrast_matrix",
    "cov_canonical",
    "cov_ed",
    "cov_from_factors",
    "cov_pca",
    "cov_simple_het",
    "cov_ud",
    "cov_udi",
    "covariances",
    "estimate_null_correlation_simple",
    "extreme_deconvolution",
    "fit_mash_prior",
    "format_credible_set_report",
    "get_estimated_pi",
    "get_fitted_g",
    "get_lfdr",
    "get_lfsr",
    "get_log10bf",
    "get_loglik",
    "get_n_significant_conditions",
    "get_ncond",
    "get_np",
    "get_pairwise_sharing",
    "get_pairwise_sharing_from_samples",
    "get_pm",
    "get_posterior_condition_wise_summary",
    "get_psd",
    "get_samples",
    "get_significant_results",
    "lift_cov",
    "likelihoods",
    "mash",
    "mash_1by1",
    "mash_compute_loglik",
    "mash_compute_posterior_matrices",
    "mash_compute_vloglik",
    "mash_estimate_corr_em",
    "mash_open_data",
    "mash_plot_meta",
    "mash_set_data",
    "mash_train_apply",
    "mash_update_data",
    "mixsqp",
    "optimize_pi",
    "pairwise_sharing_prob",
    "plot_pattern",
    "plot_sharing",
    "plot_shrinkage",
    "plot_weights",
    "r1cov",
    "regularize_cov",
    "renumber_credible_sets_by_logbf",
    "renumber_credible_sets_from_result",
    "select_training_effects",
    "sim_contrast1",
    "sim_contrast2",
    "simple_sims",
    "simple_sims2",
    "strong_effects",
    "subset_mash_data",
    "teem",
]
