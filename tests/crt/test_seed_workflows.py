"""The code that users of programDE have, word for word but for the imports, on a small screen."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")

LIBRARY_USAGE = """
from plait.crt import (
    prepare_crt_inputs,
    run_all_genes_union_crt,
    store_results_in_adata,
    limit_threading,
)

# It is recommended to limit BLAS threads for reproducibility
limit_threading()

inputs = prepare_crt_inputs(
    adata=adata,
    usage_key="cnmf_usage",
    covar_key="covar",
    guide_assignment_key="guide_assignment",
    guide2gene_key="guide2gene",
)

out = run_all_genes_union_crt(
    inputs=inputs,
    B=1023,      # Number of permutations
    n_jobs=16,   # Number of parallel jobs
    calibrate_skew_normal=True,
    return_skew_normal=True,
)

# Store results back into the AnnData object
store_results_in_adata(
    adata=adata,
    pvals_df=out["pvals_df"],
    betas_df=out["betas_df"],
    treated_df=out["treated_df"],
)
"""
STRATIFIED = """
out = run_all_genes_union_crt(
    inputs=inputs,
    B=1023,
    n_jobs=16,
    resampling_method="stratified_perm",
    resampling_kwargs=dict(
        n_bins=20,
        stratify_by_batch=True,
        batch_key="batch",
        min_stratum_size=2,
    ),
    calibrate_skew_normal=False,
    return_raw_pvals=True,
)
"""
BURDEN = """
from plait.crt import add_burden_covariate

add_burden_covariate(
    adata=adata,
    guide_assignment_key="guide_assignment",
    covar_key="covar",
    guide_names_key="guide_names",
    guide2gene_key="guide2gene",
    burden_key="log1p_non_ntc_guides_per_cell",
    ntc_labels=["non-targeting", "safe-targeting", "NTC"],
    include_ntc=False,
    count_nonzero=True,
    use_log1p=True,
)
"""
U_TEST = """
out = run_all_genes_union_crt(
    inputs=inputs,
    B=1023,
    n_jobs=16,
    resampling_method="stratified_perm",
    resampling_kwargs=dict(
        n_bins=20,
        stratify_by_batch=True,
        batch_key="batch",
        min_stratum_size=2,
    ),
    test_stat="utest",
    test_stat_kwargs=dict(use="clr", rank_method="average"),
    calibrate_skew_normal=False,
)
"""
NTC_EMPIRICAL = """
from plait.crt import prepare_crt_inputs, run_all_genes_union_crt

# 1) Ensure covariates are a DataFrame with batch
covar_df = adata.obsm["covar"].copy()
if "batch" not in covar_df.columns:
    raise ValueError("covar_df must contain a 'batch' column for ntc_empirical.")
adata.obsm["covar"] = covar_df

# 2) Prepare inputs
inputs = prepare_crt_inputs(adata=adata, usage_key="cnmf_usage", covar_key="covar")

# 3) Run NTC empirical-null CRT
out = run_all_genes_union_crt(
    inputs=inputs,
    null_method="ntc_empirical",
    null_kwargs=dict(
        ntc_labels=["SAFE", "non-targeting", "NTC"],
        guides_per_unit=6,
        n_ntc_units=N_UNITS,
        batch_mode="meta",          # per-batch pvals + Fisher combine
        combine_method="fisher",
        matching=dict(
            n_n1_bins=10,
            n_d_bins=10,
            min_ntc_per_bin=50,
            use_pbar=True,           # optional: add pbar matching
            n_pbar_bins=8,
        ),
        min_treated=10,
        min_control=10,
    ),
)

pvals_ntc = out["pvals_df"]
betas = out["betas_df"]
matching_info = out.get("ntc_matching_info", {})
"""
NTC_QQ = """
from plait.crt import make_ntc_empirical_qq_plots, run_all_genes_union_crt

out = run_all_genes_union_crt(
    inputs=inputs,
    null_method="ntc_empirical",
    qq_crossfit=True,
    null_kwargs=dict(
        ntc_labels=["SAFE", "non-targeting", "NTC"],
        guides_per_unit=6,
        n_ntc_units=N_UNITS,
        batch_mode="meta",
        combine_method="fisher",
        matching=dict(n_n1_bins=10, n_d_bins=10, min_ntc_per_bin=50),
        min_treated=10,
        min_control=10,
        qq_crossfit_seed=11,
        qq_crossfit_frac_A=0.5,
    ),
)

make_ntc_empirical_qq_plots(
    out=out,
    out_dir="results/qq_ntc",
    programs_to_plot="top_var",
    n_programs=6,
    make_per_batch=True,
    make_meta=True,
    envelope_boot=200,
    seed=0,
)

from pathlib import Path
print(sorted(Path("results/qq_ntc").glob("**/*.png")))
"""
S_CRT = """
from plait.crt import (
    add_burden_covariate,
    build_ntc_group_inputs,
    compute_ntc_group_null_pvals_parallel,
    crt_pvals_for_ntc_groups_ensemble,
    crt_pvals_for_ntc_groups_ensemble_skew,
    make_ntc_groups_ensemble,
    prepare_crt_inputs,
    run_all_genes_union_crt,
)
from plait.crt import qq_plot_ntc_pvals

# 1) Make covariates a DataFrame with batch
covar_df = adata.obsm["covar"].copy()
if "batch" not in covar_df.columns:
    raise ValueError("covar_df must contain a 'batch' column for stratification.")
adata.obsm["covar"] = covar_df

# 2) Optional burden column (exclude NTC guides if desired)
add_burden_covariate(
    adata=adata,
    guide_assignment_key="guide_assignment",
    covar_key="covar",
    guide_names_key="guide_names",
    guide2gene_key="guide2gene",
    burden_key="log1p_non_ntc_guides_per_cell",
    ntc_labels=["non-targeting", "safe-targeting", "NTC"],
    include_ntc=False,
    use_log1p=True,
)

# 3) Prepare CRT inputs
inputs = prepare_crt_inputs(adata=adata, covar_key="covar", batch_key="batch")

# 4) Shared S-CRT settings
resampling_kwargs = dict(
    n_bins=20,
    stratify_by_batch=True,
    batch_key="batch",
    min_stratum_size=2,
    burden_key="log1p_non_ntc_guides_per_cell",
    n_burden_bins=8,
    burden_bin_method="quantile",
    burden_clip_quantiles=(0.0, 1.0),
)

# 5) Run gene-level CRT with stratified permutation
out = run_all_genes_union_crt(
    inputs=inputs,
    B=1023,
    n_jobs=16,
    resampling_method="stratified_perm",
    resampling_kwargs=resampling_kwargs,
    calibrate_skew_normal=True,
    return_raw_pvals=True,
    return_skew_normal=True,
)

# 6) Build NTC guide groups (6-guide units) + compute NTC p-values
ntc_labels = ["non-targeting", "safe-targeting", "NTC"]
ntc_guides, guide_freq, guide_to_bin, real_sigs = build_ntc_group_inputs(
    inputs=inputs,
    ntc_label=ntc_labels,
    group_size=6,
    n_bins=10,
)
ntc_groups_ens = make_ntc_groups_ensemble(
    ntc_guides=ntc_guides,
    ntc_freq=guide_freq,
    real_gene_bin_sigs=real_sigs,
    guide_to_bin=guide_to_bin,
    n_ensemble=3,
    seed0=7,
    group_size=6,
    max_groups=None,
)
ntc_group_pvals_ens = crt_pvals_for_ntc_groups_ensemble(
    inputs=inputs,
    ntc_groups_ens=ntc_groups_ens,
    B=1023,
    seed0=23,
    resampling_method="stratified_perm",
    resampling_kwargs=resampling_kwargs,
)
ntc_group_pvals_skew_ens = crt_pvals_for_ntc_groups_ensemble_skew(
    inputs=inputs,
    ntc_groups_ens=ntc_groups_ens,
    B=1023,
    seed0=23,
    resampling_method="stratified_perm",
    resampling_kwargs=resampling_kwargs,
)

# 7) CRT-null p-values matched to the same NTC units
null_pvals = compute_ntc_group_null_pvals_parallel(
    inputs=inputs,
    ntc_groups_ens=ntc_groups_ens,
    B=1023,
    n_jobs=8,
    backend="threading",
    resampling_method="stratified_perm",
    resampling_kwargs=resampling_kwargs,
)

# 8) QQ plot
ax = qq_plot_ntc_pvals(
    pvals_raw_df=out["pvals_raw_df"],
    guide2gene=adata.uns["guide2gene"],
    ntc_genes=ntc_labels,
    pvals_skew_df=out["pvals_df"],
    null_pvals=null_pvals,
    ntc_group_pvals_ens=ntc_group_pvals_ens,
    ntc_group_pvals_skew_ens=ntc_group_pvals_skew_ens,
    show_ntc_ensemble_band=True,
    show_all_pvals=True,
    title="QQ plot: S-CRT (grouped NTC controls)",
)
"""
SYNTHETIC = """
from plait.simulate import make_sceptre_style_synth
from plait.crt import prepare_crt_inputs

adata = make_sceptre_style_synth(
    N=10000,
    K=20,
    n_target_genes=200,
    guides_per_gene=6,
    ntc_frac_guides=0.15,
    moi_mean=5.5,
    frac_causal_genes=0.10,
    n_effect_programs=3,
    effect_size=0.6,
    confound_strength=0.0,
    seed=0,
)

# The generator stores usage in adata.obsm["usage"].
# Pass usage_key="usage" when preparing inputs.
inputs = prepare_crt_inputs(adata=adata, usage_key="usage")
"""


def run(code, **names):
    exec(compile(code, "the seed", "exec"), names)
    return names


@pytest.fixture
def adata():
    """A screen of 12 targets and 60 control guides, as the seed's users have them."""
    from plait.simulate import make_sceptre_style_synth

    made = make_sceptre_style_synth(
        N=2500, K=6, n_target_genes=12, ntc_frac_guides=0.45, effect_size=0.6,
        sprinkle_near_zero_frac=0.0, seed=2,
    )  # fmt: skip
    made.obsm["cnmf_usage"] = made.obsm.pop("usage")
    given = np.asarray(made.obsm["covar"])
    made.obsm["covar"] = pd.DataFrame(
        {"batch": np.where(given[:, 1] > 0, "b1", "b0"), "log_depth": given[:, 2]},
        index=made.obs_names,
    )
    return made


@pytest.fixture
def inputs(adata):
    from plait.crt import prepare_crt_inputs

    return prepare_crt_inputs(adata)


def test_main_workflow(adata, monkeypatch):
    from plait.crt import threads

    kept = []
    limit = threads.ThreadLimit.__init__
    monkeypatch.setattr(
        threads.ThreadLimit, "__init__", lambda self, n: (kept.append(self), limit(self, n))[1]
    )
    found = run(LIBRARY_USAGE, adata=adata)
    kept[0].lift()  # the tests that follow keep their threads
    assert found["out"]["pvals_df"].shape == (13, 6)
    assert "crt_union_gene_program_pvals" in adata.uns


def test_stratified_permutation(inputs):
    from plait.crt import run_all_genes_union_crt

    out = run(STRATIFIED, inputs=inputs, run_all_genes_union_crt=run_all_genes_union_crt)["out"]
    pd.testing.assert_frame_equal(out["pvals_raw_df"], out["pvals_df"])
    assert "pvals_skew_df" not in out


def test_burden(adata):
    run(BURDEN, adata=adata)
    guides = np.asarray(adata.obsm["guide_assignment"].todense()) != 0
    names, target = adata.uns["guide_names"], adata.uns["guide2gene"]
    own = [target[name] not in ("non-targeting", "safe-targeting", "NTC") for name in names]
    burden = adata.obsm["covar"]["log1p_non_ntc_guides_per_cell"]
    np.testing.assert_allclose(burden, np.log1p(guides[:, own].sum(axis=1)), rtol=1e-12)


def test_u_test(inputs):
    from plait.crt import run_all_genes_union_crt

    out = run(U_TEST, inputs=inputs, run_all_genes_union_crt=run_all_genes_union_crt)["out"]
    assert out["stats_df"].abs().to_numpy().max() <= 1.0


def test_ntc_empirical(adata):
    found = run(NTC_EMPIRICAL, adata=adata, N_UNITS=300)
    assert found["pvals_ntc"].notna().all().all()
    assert found["matching_info"]["batch_count"] == 2


def test_ntc_empirical_figures(inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(NTC_QQ, inputs=inputs, N_UNITS=300)
    names = {p.name for p in tmp_path.glob("results/qq_ntc/*.png")}
    assert "qq_ntc_empirical_genelevel_meta.png" in names
    assert len(names) == 7
    for batch in ("b0", "b1"):
        made = list(tmp_path.glob(f"results/qq_ntc/per_batch/{batch}/*.png"))
        assert len(made) == 7


def test_stratified_workflow_with_grouped_controls(adata):
    found = run(S_CRT, adata=adata)
    assert found["ax"].get_title(loc="left") == "QQ plot: S-CRT (grouped NTC controls)"
    n_groups = sum(map(len, found["ntc_groups_ens"]))
    assert found["null_pvals"].size == 1023 * 6 * n_groups
    mpl.pyplot.close("all")


def test_synthetic_screen_can_be_prepared():
    with pytest.warns(UserWarning, match="covariates left out"):
        assert run(SYNTHETIC)["inputs"].n_programs == 20
