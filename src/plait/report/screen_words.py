"""Settings of perturbation screens in words, for the pages of programs and of genes."""

import re
from collections.abc import Mapping
from typing import Any

from plait.crt.cell_quality import COVARIATES
from plait.report.about import Words

_SIDES = {
    "both": "effects of both signs",
    "left": "effects that lower",
    "right": "effects that raise",
}

WORDS: Words = {
    # Of both.
    "level": ("false discovery rate of what is significant", {}),
    "side": ("looked for", _SIDES),
    "calibrated_side": ("looked for by skew-normals", _SIDES),
    "seed": ("seed", {}),
    "fdr": (
        "correction for many tests",
        {
            "BH": "Benjamini and Hochberg",
            "BY": "Benjamini and Yekutieli",
            "storey": "Storey",
            "bonferroni": "Bonferroni",
            "none": "none",
        },
    ),
    # Of programs.
    "statistic": (
        "statistic",
        {
            "ols": "effect by least squares given the covariates",
            "utest": "rank-biserial correlation",
        },
    ),
    "sampler": (
        "treatments are drawn",
        {
            "bernoulli": "cell by cell, by propensities given the covariates",
            "stratified": "by permuting them among cells of like propensity",
        },
    ),
    "method": (
        "p-values",
        {
            "analytic": "analytic, those of infinitely many resamples",
            "empirical": "counted in resamples",
            "skew-normal": "of skew-normals fitted to resamples",
            "adaptive": "counted in as many resamples as each test needs",
            "ntc-empirical": "among pseudo-genes made of negative-control guides",
        },
    ),
    "resamples": ("resamples", {}),
    "exceedances": ("resamples as extreme that end the drawing of a p-value", {}),
    "bulk_above": ("p-value above which four cumulants are enough", {}),
    "propensity_model": (
        "propensities",
        {"fit_propensity_logistic": "logistic regression on the covariates"},
    ),
    "device": ("resamples are drawn on", {"cpu": "the processor", "cuda": "a GPU"}),
    "fdr_scope": (
        "corrected together",
        {
            "all": "all tests",
            "per_program": "the tests of a program",
            "per_unit": "the tests of a perturbation",
        },
    ),
    "cells": ("cells", {}),
    "eps": ("smallest usage, to which smaller ones are raised", {}),
    "numbers_as_categories": ("numbers that are taken as categories", {}),
    "n_bins": ("bins of the propensity", {}),
    "stratify_by_batch": ("batches are kept apart", {}),
    "batch_key": ("covariate that holds the batch", {}),
    "min_stratum_size": ("cells below which strata are merged", {}),
    "burden_key": ("covariate by which cells are stratified, too", {}),
    "n_burden_bins": ("its bins", {}),
    "burden_bin_method": ("how these are cut", {"quantile": "at quantiles", "uniform": "evenly"}),
    "burden_clip_quantiles": ("quantiles to which it is clipped", {}),
    "use": (
        "what is ranked",
        {
            "clr": "log-ratios of usages",
            "usage": "usages",
            "residual": "log-ratios given the covariates",
        },
    ),
    "rank_method": ("equal values get", {"average": "their average rank"}),
    "rank_dtype": ("ranks are computed in", {}),
    "control_guides": ("guides of negative controls", {}),
    "guides_per_unit": ("guides of a pseudo-gene", {}),
    "smallest_p": ("smallest p-value that these can give", {}),
    # Of genes.
    "strategy": (
        "guides of a target",
        {
            "union": "are taken together",
            "singleton": "are tested one by one",
            "bonferroni": "are tested one by one; the smallest p-value, times their number, counts",
        },
    ),
    "control_group": (
        "treated cells are compared with",
        {"complement": "all other cells", "nt_cells": "cells of non-targeting guides"},
    ),
    "mechanism": (
        "treatments are drawn",
        {
            "crt": "cell by cell, by propensities given the covariates",
            "permutations": "by permuting",
        },
    ),
    "formula": ("covariates", {}),
    "responses": ("counts of genes", {}),
    "resampling": (
        "p-values",
        {
            "analytic": "analytic, those of infinitely many resamples",
            "sceptre_staged": "by the stages of sceptre",
        },
    ),
    "max_resamples": ("most resamples of a p-value that is counted", {}),
    "approximation": (
        "second stage",
        {
            "skew_normal": "a skew-normal fitted to resamples",
            "no_approximation": "none, p-values are counted",
        },
    ),
}


def with_commas(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with large numbers as they are written elsewhere: "20,729", "1e-7"."""
    written: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            value = with_commas(value)
        elif isinstance(value, int) and not isinstance(value, bool) and name != "seed":
            value = f"{value:,}"
        elif isinstance(value, float):
            value = re.sub(r"e-0(\d)$", r"e-\1", f"{value:.3g}")
        written[name] = value
    return written


def formula_in_words(formula: str) -> str:
    """Return a formula with the covariates that are made of counts under a person's names."""
    for name, words in COVARIATES.items():
        formula = re.sub(rf"\b{name}\b", words, formula)
    return formula
