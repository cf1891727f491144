"""Diagnostics of a screen under the null: records of units, their summary, files and figures."""

import csv
import json

import numpy as np
import pytest
from scipy import stats

from plait.crt import compute_gene_null_pvals, prepare_crt_inputs, run_all_genes_union_crt
from plait.crt.diagnostics import (
    UNIT_FIELDS,
    diagnostics_summary,
    skewness,
    summary_text,
    thirds,
    uniformity_by,
    uniformity_words,
    unit_diagnostics,
)
from plait.crt.global_null import run_global_null_diagnostics
from plait.errors import InputError, OptionError, OutputError, ShapeError
from plait.numerics.uniformity import uniformity
from plait.simulate import make_sceptre_style_synth

SMALL = {"N": 500, "K": 4, "n_target_genes": 8, "B": 99, "seed": 3, "n_ensemble": 2,
         "n_bins": 2, "group_size": 2, "n_null_groups": 3}  # fmt: skip


def arrays(seed=0, n_cells=80, resamples=200):
    random = np.random.default_rng(seed)
    design = np.column_stack([np.ones(n_cells), random.normal(size=(n_cells, 2))])
    return {
        "treated": np.arange(0, n_cells, 4), "design": design, "guide_count": 3, "seed_base": 7,
        "denominator": 12.5, "probabilities": random.uniform(0.1, 0.6, n_cells),
        "beta": random.normal(size=3), "null": random.gamma(2.0, size=(resamples, 3)),
        "p_raw": np.array([0.2, 1.0, 0.01]), "p_skew": np.array([0.3, 0.9, 1.0]),
    }  # fmt: skip


def test_a_record_holds_what_its_names_say():
    given = arrays()
    record = unit_diagnostics("g", "real_gene", **given)
    assert tuple(record) == UNIT_FIELDS
    x = np.zeros(80)
    x[given["treated"]] = 1
    assert record["u_norm"] == pytest.approx(np.linalg.norm(given["design"].T @ x))
    assert (record["x_mean"], record["n_treated"], record["n_control"]) == (0.25, 20, 60)
    assert (record["pmin_raw"], record["pmin_skew"]) == (0.01, 0.3)
    assert record["pvals_raw_eq1_frac"] == record["pvals_skew_eq1_frac"] == pytest.approx(1 / 3)
    null, p_hat = given["null"][:, 0], given["probabilities"]
    assert record["beta_null_skew"] == pytest.approx(stats.skew(null, bias=False))
    assert record["null_z_skew"] == pytest.approx(stats.skew(null, bias=False))
    assert record["null_z_mean"] == pytest.approx(0, abs=1e-12)
    assert record["z_obs"] == pytest.approx((given["beta"][0] - null.mean()) / null.std())
    treated = x == 1
    auc = stats.mannwhitneyu(p_hat[treated], p_hat[~treated]).statistic / (20 * 60)
    assert record["propensity_auc"] == pytest.approx(auc)
    assert record["p_hat_var"] == pytest.approx(p_hat.var())
    assert record["propensity_separation_flag"] is False and record["den_is_bad"] is False


def test_flags_of_separation_denominators_and_missing_numbers():
    given = arrays()
    given["probabilities"][3] = 5e-5
    given["null"][:50] = np.nan
    given["beta"][1] = np.nan
    record = unit_diagnostics("g", "ntc_group", **{**given, "denominator": 1e-13})
    assert record["propensity_separation_flag"] and record["den_is_bad"] and record["beta_obs_nan"]
    assert record["null_nan_frac"] == 0.25 and np.isfinite(record["beta_null_sd"])
    constant = unit_diagnostics("g", "ntc_group", **{**given, "null": np.ones((9, 3))})
    assert constant["beta_null_sd"] == 0 and np.isnan(constant["z_obs"])
    assert np.isnan(constant["beta_null_skew"]) and np.isnan(skewness(np.array([1.0, 2.0])))


def test_units_of_no_or_all_cells_are_skipped():
    given = arrays()
    for cells in ([], np.arange(80)):
        record = unit_diagnostics(
            "g", "real_gene", cells, given["design"], guide_count=1, seed_base=0
        )
        assert record["skip_reason"] == "all_or_none" and np.isnan(record["p_raw"])
        assert tuple(record) == UNIT_FIELDS
    with pytest.raises(InputError, match="'g' has treated and untreated cells"):
        unit_diagnostics("g", "real_gene", [1], given["design"], guide_count=1, seed_base=0)
    with pytest.raises(ShapeError, match="for 80 cells"):
        unit_diagnostics("g", "real_gene", **{**given, "probabilities": np.ones(3)})


def test_the_summary_is_of_each_type_and_of_all():
    records = [unit_diagnostics(f"g{i}", "real_gene", **arrays(i)) for i in range(5)]
    one = arrays(9)
    records.append(
        unit_diagnostics("n", "ntc_group", [], one["design"], guide_count=1, seed_base=0)
    )
    summary = diagnostics_summary(records, B=200, seed_base=7)
    assert (summary["n_units"], summary["B"], summary["real_gene"]["n_units"]) == (6, 200, 5)
    assert summary["real_gene"]["n_treated_median"] == 20
    assert summary["real_gene"]["pvals_skew_eq1_frac"] == pytest.approx(1 / 3)
    assert summary["overall_pvals_skew_eq1_frac"] == pytest.approx(1 / 3)
    raw = summary["real_gene"]["calibration"]["raw"]
    assert raw["count"] == 5 and raw["level"] == 0.0
    assert summary["ntc_group"]["calibration"] == {"raw": None, "skew": None}
    assert summary["ntc_group"]["p_hat_mean_median"] is None
    read = json.loads(summary_text(summary))
    assert read["real_gene"]["n_units"] == 5
    assert json.loads(summary_text({"a": [np.float64("nan"), np.int64(3)]})) == {"a": [None, 3]}


def test_strata_are_compared_one_by_one():
    p = np.random.default_rng(1).random(600)
    p[:200] **= 3
    strata = np.repeat(["low", "middle", "high"], 200)
    found = uniformity_by(p, strata)
    assert list(found) == ["high", "low", "middle"]
    assert found["low"].ks_p < 1e-6 < min(found["middle"].ks_p, found["high"].ks_p)
    p[strata == "high"] = np.nan
    assert list(uniformity_by(p, strata)) == ["low", "middle"]
    with pytest.raises(ShapeError, match="strata"):
        uniformity_by(p, strata[1:])
    assert list(thirds([1, 2, 3, 4, 5, 6])) == ["low"] * 2 + ["middle"] * 2 + ["high"] * 2
    assert set(thirds(np.ones(4))) == {"low"}


def test_words_follow_the_numbers():
    p = np.random.default_rng(2).random(400)
    assert uniformity_words(uniformity(p)).startswith("p-values look uniform (Kolmogorov-Smirnov")
    few = uniformity_words(uniformity(p[:20]))
    assert few.startswith("so few p-values cannot tell whether they are uniform (Kolm")
    assert "too small" in uniformity_words(uniformity(p[:20] ** 9))
    small, large = uniformity_words(uniformity(p**3)), uniformity_words(uniformity(p ** (1 / 3)))
    assert small.startswith("p-values are NOT uniform but too small")
    assert large.startswith("p-values are NOT uniform but too large")
    assert "p < 1e-300" in uniformity_words(uniformity(np.full(3000, 1e-9)))


def test_the_summary_compares_units_with_few_and_many_treated_cells():
    random = np.random.default_rng(4)
    records = []
    for i in range(90):
        given = {**arrays(i), "treated": np.arange(0, 80, 8 if i < 30 else 4 if i < 60 else 2)}
        given["p_raw"] = np.full(
            3, (i % 30 + 1) / 2000 if i < 30 else random.integers(1, 201) / 201
        )
        records.append(unit_diagnostics(f"g{i}", "real_gene", **given))
    found = diagnostics_summary(records, B=200, seed_base=7)["real_gene"]["calibration_by_treated"]
    assert list(found["raw"]) == ["high", "low", "middle"]
    assert found["raw"]["low"]["count"] == 30
    assert found["raw"]["low"]["ks_p"] < 1e-6 < found["raw"]["high"]["ks_p"]
    assert set(found["skew"]) == set(found["raw"])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("diagnose")
    files = {"out_csv": folder / "units.csv", "out_summary": folder / "summary.txt",
             "plot_fit": folder / "fit.png", "plot_oracle": folder / "oracle.png"}  # fmt: skip
    return run_global_null_diagnostics(**SMALL, **files, n_jobs=2), files


def test_files_and_figures_are_written(run):
    found, files = run
    with files["out_csv"].open() as rows:
        table = list(csv.DictReader(rows))
    assert [row["unit_id"] for row in table] == [record["unit_id"] for record in found.records]
    assert float(table[0]["p_raw"]) == found.records[0]["p_raw"]
    assert json.loads(files["out_summary"].read_text())["n_units"] == len(table)
    fit, oracle = (files[name].read_bytes() for name in ("plot_fit", "plot_oracle"))
    assert fit.startswith(b"\x89PNG") and oracle.startswith(b"\x89PNG") and fit != oracle
    with pytest.raises(OutputError):
        run_global_null_diagnostics(**SMALL, out_csv=files["out_csv"], out_summary=None)


def test_units_have_the_p_values_of_the_usual_run(run):
    found, _ = run
    screen = make_sceptre_style_synth(
        500, 4, 8, frac_causal_genes=0.2, effect_size=0.0, n_effect_programs=3, seed=3
    )
    inputs = prepare_crt_inputs(screen, usage_key="usage", add_intercept=False, standardize=False)
    genes = [record["unit_id"] for record in found.records if record["unit_type"] == "real_gene"]
    out = run_all_genes_union_crt(
        inputs, genes, B=99, base_seed=3, calibrate_skew_normal=True, return_raw_pvals=True
    )
    by_name = {record["unit_id"]: record for record in found.records}
    for gene in genes:
        assert by_name[gene]["p_raw"] == out["pvals_raw_df"].loc[gene].iloc[0]
        assert by_name[gene]["p_skew"] == out["pvals_df"].loc[gene].iloc[0]
        assert by_name[gene]["pmin_raw"] == out["pvals_raw_df"].loc[gene].min()
    null = compute_gene_null_pvals(genes[0], inputs, B=99, base_seed=3)
    assert null.shape == (99, 4)
    groups = [record for record in found.records if record["unit_type"] == "ntc_group"]
    assert {record["unit_id"].split(":")[1] for record in groups} == {"0", "1"}
    assert all(record["guide_count"] == 2 for record in groups)


def test_numbers_do_not_depend_on_threads(run):
    found, _ = run
    again = run_global_null_diagnostics(**SMALL, out_csv=None, out_summary=None, n_jobs=1)
    np.testing.assert_equal(again.records, found.records)


def test_options_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(OptionError, match="B is 0"):
        run_global_null_diagnostics(B=0)
    with pytest.raises(OutputError, match=r"\.png"):
        run_global_null_diagnostics(plot_fit=tmp_path / "fit.txt")
