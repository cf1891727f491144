"""The doors that users of programDE know, and results in AnnData."""

import json
from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from plait.crt import (
    compute_gene_null_pvals,
    compute_guide_set_null_pvals,
    crt_null_stats_for_test,
    perturbation_effects,
    prepare_crt_inputs,
    run_all_genes_union_crt,
    run_one_gene_union_crt,
    store_in_adata,
    store_results_in_adata,
)
from plait.crt.results import CRTResult
from plait.errors import InputError, OptionError, OutputError
from plait.numerics.multiple_testing import false_discovery_rates
from tests.crt.screens import reference_screen

BOTH = {"calibrate_skew_normal": True, "return_skew_normal": True, "return_raw_pvals": True}


@pytest.fixture(scope="module")
def inputs():
    return prepare_crt_inputs(reference_screen("synth_b")[0])


@pytest.fixture(scope="module")
def out(inputs):
    return run_all_genes_union_crt(inputs, B=199, n_jobs=16, **BOTH)


def test_the_frames(inputs, out):
    found = perturbation_effects(inputs, method="skew-normal", resamples=199)
    np.testing.assert_array_equal(out["pvals_df"], found.p_skew)
    np.testing.assert_array_equal(out["pvals_skew_df"], found.p_skew)
    np.testing.assert_array_equal(out["pvals_raw_df"], found.p_raw)
    np.testing.assert_array_equal(out["skew_params"], found.skew_parameters)
    np.testing.assert_allclose(out["t_df"], found.beta / found.se)
    assert list(out["betas_df"].index) == list(inputs.units)
    assert list(out["betas_df"].columns) == list(inputs.program_names)
    assert out["treated_df"].name == "n_union_positive_cells"
    assert out["stat_name"] == "beta"


def test_one_gene_is_the_row_of_all(inputs, out):
    gene = inputs.units[7]
    alone = run_one_gene_union_crt(gene, inputs, B=199, **BOTH)
    of_all = out["results"][7]
    assert alone.gene == of_all.gene == gene
    for name in ("pvals", "betas", "n_treated", "pvals_sn", "skew_params", "pvals_raw"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(of_all, name))


def test_tuples(inputs, out):
    found = run_all_genes_union_crt(inputs, B=199, return_format="tuple", **BOTH)
    assert len(found) == 7
    pd.testing.assert_frame_equal(found[0], out["pvals_df"])
    pd.testing.assert_frame_equal(found[4], out["pvals_raw_df"])
    assert len(run_all_genes_union_crt(inputs, B=9, return_format="tuple")) == 4


def test_the_u_statistic_has_its_alias(inputs):
    found = run_all_genes_union_crt(
        inputs, B=99, test_stat="Wilcoxon", test_stat_kwargs={"use": "usage"}
    )
    assert found["stat_name"] == "rank_biserial"
    assert found["stats_df"] is found["betas_df"]
    assert "se_df" not in found


def confounded_screen(effect, n_genes=1):
    """Return a screen in which depth moves treatment and program 0; effects go against that."""
    random = np.random.default_rng(0)
    depth = random.normal(size=3000)
    treated = random.random((3000, n_genes)) < 0.06 * np.exp(0.9 * depth - 0.4)[:, None]
    ratios = random.normal(size=(3000, 4))
    ratios[:, 0] += 0.8 * depth + effect * treated[:, 0]
    guides = [f"g{j}" for j in range(n_genes)]
    return prepare_crt_inputs(
        SimpleNamespace(
            obsm={
                "cnmf_usage": np.exp(ratios) / np.exp(ratios).sum(axis=1, keepdims=True),
                "covar": depth,
                "guide_assignment": treated.astype(np.int8),
            },
            uns={"guide_names": guides, "guide2gene": {g: f"GENE_{g}" for g in guides}},
        )
    )


def test_a_u_statistic_that_sees_effects_against_the_confounding():
    """By parity with programDE |r| is not centred, so that such an effect has p near 1."""
    options = {"B": 199, "test_stat": "utest"}
    inputs = confounded_screen(effect=-0.7)

    def p(**more):
        return run_all_genes_union_crt(inputs, **options, **more)["pvals_df"].iloc[0, 0]

    assert p() > 0.9
    assert p(test_stat_kwargs={"use": "residual"}) == 1 / 200
    assert p(calibrate_skew_normal=True) < 1e-4
    assert p(side="left") == 1 / 200
    # Without effects both are p-values, in 150 genes of like confounding.
    inputs = confounded_screen(effect=0.0, n_genes=150)
    for use in ("clr", "residual"):
        found = run_all_genes_union_crt(inputs, **options, test_stat_kwargs={"use": use})
        assert stats.kstest(found["pvals_df"].iloc[:, 0], "uniform").pvalue > 1e-3


def test_sides_of_calibrated_and_raw_p_values(inputs):
    left = run_all_genes_union_crt(inputs, B=199, skew_normal_side_code=-1, **BOTH)
    right = run_all_genes_union_crt(inputs, B=199, skew_normal_side_code=1, **BOTH)
    pd.testing.assert_frame_equal(left["pvals_raw_df"], right["pvals_raw_df"])
    np.testing.assert_allclose((left["pvals_df"] + right["pvals_df"]).to_numpy(), 1.0, atol=0.02)
    # Both are of the one side that is asked for.
    lower = run_all_genes_union_crt(inputs, B=199, side="left", **BOTH)
    pd.testing.assert_frame_equal(lower["pvals_df"], left["pvals_df"])
    assert not lower["pvals_raw_df"].equals(left["pvals_raw_df"])
    two_sided = run_all_genes_union_crt(inputs, B=199, side="left", skew_normal_side_code=0, **BOTH)
    pd.testing.assert_frame_equal(two_sided["pvals_raw_df"], lower["pvals_raw_df"])
    assert not two_sided["pvals_df"].equals(lower["pvals_df"])
    one_sided = run_all_genes_union_crt(inputs, B=199, side="right")
    positive = (one_sided["betas_df"] > 0).to_numpy()
    p = one_sided["pvals_df"].to_numpy()
    assert p[positive].mean() < 0.5 < p[~positive].mean()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"return_raw_pvals": True, "pvalue_method": "analytic"}, "return_raw_pvals does nothing"),
        ({"return_raw_pvals": True, "null_method": "ntc_empirical"}, "return_raw_pvals does"),
        ({"return_skew_normal": True}, "return_skew_normal does nothing"),
        ({"return_format": "list"}, "return_format"),
        ({"resampling_method": "bootstrap"}, "sampler is 'bootstrap'"),
        ({"null_method": "theory"}, "null_method"),
        ({"test_stat": "t"}, "statistic is 't'"),
        ({"skew_normal_side_code": 2}, "side code"),
        ({"pvalue_method": "empirical", "calibrate_skew_normal": True}, "contradicts"),
        ({"qq_crossfit": True}, "ntc_empirical"),
        ({"fdr_scope": "per_guide"}, "fdr_scope is 'per_guide'"),
        ({"fdr": "holm", "null_method": "ntc_empirical"}, "holm"),
        ({"store": "x", "null_method": "ntc_empirical"}, "store does nothing"),
        ({"resampling_kwargs": {"n_bins": 5}}, "resampling_kwargs does nothing"),
        ({"test_stat_kwargs": {"use": "clr"}}, "test_stat_kwargs does nothing"),
        ({"skew_normal_side_code": 1}, "skew_normal_side_code does nothing"),
        ({"null_method": "ntc_empirical", "B": 99}, "B does nothing"),
        ({"null_method": "ntc_empirical", "propensity_model": "const"}, "propensity_model does"),
        ({"null_method": "ntc_empirical", "resampling_method": "stratified_perm"}, "resampling_me"),
    ],
)
def test_contradictions_are_found_before_anything_is_computed(options, words, monkeypatch):
    with pytest.raises(OptionError, match=words):
        run_all_genes_union_crt(SimpleNamespace(), **options)


def test_p_values_of_resamples(inputs):
    gene = inputs.units[0]
    null = crt_null_stats_for_test(gene, 2, inputs, B=99, base_seed=5)
    p = compute_gene_null_pvals(gene, inputs, B=99, base_seed=5)
    assert p.shape == (99, inputs.n_programs)
    np.testing.assert_array_equal(np.argsort(-np.abs(null)), np.argsort(p[:, 2]))
    np.testing.assert_allclose(np.sort(p[:, 2]), np.arange(1, 100) / 99)
    right = compute_gene_null_pvals(gene, inputs, B=99, base_seed=5, side_code=1)
    np.testing.assert_array_equal(np.argsort(-null), np.argsort(right[:, 2]))


def test_sets_of_guides(inputs):
    columns = inputs.columns("NTC")[:3]
    p = compute_guide_set_null_pvals(columns, inputs, B=50)
    again = compute_guide_set_null_pvals([*columns[::-1], columns[0]], inputs, B=50)
    np.testing.assert_array_equal(p, again)
    with pytest.raises(InputError, match="empty"):
        compute_guide_set_null_pvals([], inputs)
    with pytest.raises(OptionError, match="B is 0"):
        compute_guide_set_null_pvals(columns, inputs, B=0)
    with pytest.raises(OptionError, match="from 0"):
        crt_null_stats_for_test("NTC", 99, inputs)


def test_results_survive_a_file(inputs, out, tmp_path):
    adata = anndata.AnnData(obs=pd.DataFrame(index=inputs.cell_names))
    store_results_in_adata(
        adata,
        out["pvals_df"],
        out["betas_df"],
        out["treated_df"],
        pvals_skew_df=out["pvals_skew_df"],
        skew_params=out["skew_params"],
    )
    found = perturbation_effects(inputs, method="empirical", resamples=19)
    store_in_adata(found, adata, prefix="other")
    adata.write_h5ad(tmp_path / "screen.h5ad")
    back = anndata.read_h5ad(tmp_path / "screen.h5ad").uns
    start = "crt_union_gene_program"
    np.testing.assert_array_equal(back[f"{start}_pvals"], out["pvals_df"])
    assert list(back[f"{start}_betas"].index) == list(inputs.units)
    assert list(back[f"{start}_betas"].columns) == list(inputs.program_names)
    np.testing.assert_array_equal(back[f"{start}_n_positive"].iloc[:, 0], out["treated_df"])
    np.testing.assert_array_equal(back[f"{start}_skew_params"], out["skew_params"])
    np.testing.assert_array_equal(back["other_betas"], found.beta)
    settings = json.loads(back["other_settings"])
    assert settings["options"]["resamples"] == 19
    assert settings["options"]["eps"] == pytest.approx(inputs.eps)
    # Frames know how they were made, so that the call of programDE's users stores it, too.
    settings = json.loads(back[f"{start}_settings"])
    assert settings["options"]["resamples"] == 199 and settings["seed"] == 123
    assert settings["options"]["eps"] == pytest.approx(inputs.eps)
    assert settings["version"] and settings["libraries"]["numpy"]
    table = back["other_table"]
    assert {"beta", "se", "p", "log10p", "q", "status", "p_method"} <= set(table.columns)
    assert table["unit"].tolist() == np.repeat(inputs.units, inputs.n_programs).tolist()
    np.testing.assert_array_equal(table["q"], found.q.ravel())
    np.testing.assert_array_equal(table["n_treated"][:: inputs.n_programs], found.n_treated)


def test_families_of_false_discovery_rates_and_genes_left_out(inputs):
    found = run_all_genes_union_crt(
        inputs, B=99, fdr="BY", fdr_scope="per_gene", exclude_labels=["NTC"], threads=1
    )
    assert "NTC" not in found["pvals_df"].index
    for gene in found["pvals_df"].index[:3]:
        np.testing.assert_allclose(
            found["qvals_df"].loc[gene], false_discovery_rates(found["pvals_df"].loc[gene], "BY")
        )
    assert "qvals_df" not in run_all_genes_union_crt(inputs, inputs.units[:2], B=9, fdr=None)
    against = {"null_method": "ntc_empirical", "null_kwargs": {"guides_per_unit": 2}}
    found = run_all_genes_union_crt(inputs, **against, fdr_scope="per_program")
    tested = found["status_df"].drop("NTC") == "ok"
    q, p = (found[name].loc[tested[tested].index].iloc[:, 1] for name in ("qvals_df", "pvals_df"))
    np.testing.assert_allclose(q, false_discovery_rates(p, "BH"))
    assert 0 < len(q) < len(tested)


def test_statuses_are_in_the_dictionary(inputs, out):
    assert set(out["status_df"]) == {"ok"}
    fits = out["sn_status_df"].to_numpy()
    assert set(np.unique(fits)) <= {"ok", "outlier", "tail", "nonfinite", "degenerate"}
    np.testing.assert_array_equal(fits == "ok", out["p_method_df"] == "skew-normal")
    # Resamples that treat no cell are none.
    assert (out["resamples_df"][out["treated_df"] > 27] == 199).all(axis=None)
    assert out["resamples_df"].min(axis=None) > 190


def test_a_store_is_gone_on_with_or_replaced(inputs, tmp_path):
    told = []

    class Listener:
        def begin(self, label, total):
            told.append((label, total))
            return 0

        def advance(self, key, steps, note=""):
            told.append(steps)

        def end(self, key):
            told.append("end")

    options = {"genes": inputs.units[:3], "B": 19, "store": tmp_path / "run.zarr"}
    out = run_all_genes_union_crt(inputs, **options, progress=Listener())
    assert ("perturbations", 3) in told and told[-1] == "end"
    plain = run_all_genes_union_crt(inputs, inputs.units[:3], B=19)
    pd.testing.assert_frame_equal(out["pvals_df"], plain["pvals_df"])
    np.testing.assert_array_equal(CRTResult.load(tmp_path / "run.zarr").p, out["pvals_df"])
    with pytest.raises(OutputError):
        run_all_genes_union_crt(inputs, **options)  # it is done
    again = run_all_genes_union_crt(inputs, **options | {"B": 9}, resume=False)
    assert (again["resamples_df"] == 9).all(axis=None)


def test_nowhere_to_put_results(out):
    with pytest.raises(AttributeError, match="uns"):
        store_results_in_adata(
            SimpleNamespace(), out["pvals_df"], out["betas_df"], out["treated_df"]
        )
