"""Empirical nulls of negative controls: programDE's numbers, exact draws, calibration, errors."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest

from plait.crt import prepare_crt_inputs, run_all_genes_union_crt
from plait.crt.guides import indicator_matrix
from plait.crt.ntc_crossfit import (
    compute_ntc_empirical_pvals_crossfit,
    compute_ntc_empirical_pvals_gene_agg_crossfit,
)
from plait.crt.ntc_empirical import (
    BatchOfEffects,
    NTCEmpiricalOptions,
    are_few_guides,
    batch_p_values,
    ntc_empirical_tests,
)
from plait.crt.ntc_null import UnitEffects
from plait.crt.ntc_units import CellSubset, draw_ntc_units
from plait.crt.statistic import ols_statistics
from plait.errors import InputError, MissingCovariateError, OptionError
from plait.execution.threads import single_threaded_blas
from plait.numerics.multiple_testing import false_discovery_rates
from plait.simulate.screen import make_sceptre_style_synth
from tests.crt.screens import reference_screen, small_screen
from tests.reference_files import load

BOTH = pytest.mark.parametrize("name", ["synth_a", "synth_b"])
MATCHING = {"n_n1_bins": 4, "n_d_bins": 3, "min_ntc_per_bin": 25}
PEER = {"ntc_labels": ["NTC"], "guides_per_unit": 3, "matching": MATCHING,
        "filter_ntc_units": False}  # fmt: skip


@BOTH
def test_units_and_halves_are_those_of_programde(name):
    known, inputs = load(f"crt/{name}", "ntc_empirical.npz"), screen_of(name)
    columns = [j for j, guide in enumerate(inputs.guide_names) if guide.startswith("NTC")]
    units = draw_ntc_units(columns, 3, len(known["units"]), 123 + 17, split_seed=123 + 91)
    np.testing.assert_array_equal(units.guides, known["units"])
    np.testing.assert_array_equal(units.a, known["ids_A"])
    np.testing.assert_array_equal(units.b, known["ids_B"])


@BOTH
def test_pooled_p_values_and_effects_are_those_of_programde(name):
    known = load(f"crt/{name}", "ntc_empirical.npz")
    options = {**PEER, "n_ntc_units": len(known["units"]), "batch_mode": "pooled"}
    found = ntc_empirical_tests(screen_of(name), list(known["genes"]), options, qq_crossfit=True)
    np.testing.assert_allclose(found.p, known["pooled_fisher_p"], rtol=1e-9)
    for what in ("real_vs_A", "ntcB_vs_A", "real_gene_vs_A", "ntcB_gene_vs_A"):
        expected = known[f"pooled_fisher_meta_p_{what}"]
        np.testing.assert_allclose(found.crossfit[f"meta_p_{what}"], expected, rtol=1e-9)
        assert found.crossfit[f"p_{what}_by_batch"] == {}
    frames = found.frames()
    np.testing.assert_array_equal(frames["pvals_df"], found.p)
    assert list(frames["betas_df"].index) == list(known["genes"])


@BOTH
@pytest.mark.parametrize("method", ["fisher", "stouffer"])
def test_meta_p_values_are_those_of_programde_by_its_arithmetic(name, method):
    """programDE keeps columns that are constant in a batch and inverts the singular C'C.

    LAPACK does not see that it is singular, so the stored p-values hold rounding errors of one
    BLAS; with the same arithmetic on the same effects ours are the same numbers.
    """
    known = load(f"crt/{name}", "ntc_empirical.npz")
    design = load(f"crt/{name}", "deterministic.npz")
    usage = load(f"crt/{name}", "inputs.npz")["usage"]
    with single_threaded_blas():
        if not np.array_equal(np.linalg.inv(design["C"].T @ design["C"]), design["A"]):
            pytest.skip("this BLAS rounds differently from the one of the reference")
        batches = list(peer_batches(screen_of(name), usage, known, design["C"]))
    combine = "stouffer_abs" if method == "stouffer" else method
    options = NTCEmpiricalOptions.from_mapping({**PEER, "combine_method": combine})
    a, b = known["ids_A"], known["ids_B"]
    found = batch_p_values(batches, options)
    np.testing.assert_allclose(found.p, known[f"meta_{method}_p"], rtol=1e-9)
    for what, tested in (("real", None), ("ntcB", b)):
        for by_unit, suffix in ((False, ""), (True, "_gene")):
            found = batch_p_values(batches, options, tested=tested, null=a, by_unit=by_unit)
            expected = known[f"meta_{method}_meta_p_{what}{suffix}_vs_A"]
            np.testing.assert_allclose(np.squeeze(found.p), expected, rtol=1e-9)


@BOTH
def test_effects_in_a_batch_are_least_squares_where_programde_inverts_a_singular_matrix(name):
    known, inputs = load(f"crt/{name}", "ntc_empirical.npz"), screen_of(name)
    design = inputs.C
    for batch in ("b0", "b1"):
        cells = np.flatnonzero(inputs.batch_raw == batch)
        varying = [0, *np.flatnonzero(np.ptp(design[cells], axis=0))]
        assert len(varying) < design.shape[1]
        subset = CellSubset.of_batch(inputs.G, inputs.Y, design, cells)
        rows = inputs.G.tocsr()[cells]
        found = subset.effects(list(known["units"][:8]), ["u"] * 8)
        for j, guides in enumerate(known["units"][:8]):
            x = (rows[:, guides].sum(axis=1) > 0).astype(float)
            regressors = np.column_stack([x, design[np.ix_(cells, varying)]])
            with single_threaded_blas():
                expected = np.linalg.lstsq(regressors, inputs.Y[cells], rcond=None)[0][0]
                of_x = np.linalg.lstsq(regressors[:, 1:], x, rcond=None)[0]
            np.testing.assert_allclose(found.beta[j], expected, rtol=1e-8, atol=1e-12)
            left = x - regressors[:, 1:] @ of_x
            np.testing.assert_allclose(found.d[j], left @ left, rtol=1e-8)


def test_the_door_of_the_seed_returns_the_same_numbers():
    inputs = screen_of("synth_b")
    options = {**PEER, "n_ntc_units": 60}
    found = ntc_empirical_tests(inputs, options=options)
    door = {"null_method": "ntc_empirical", "null_kwargs": options}
    out = run_all_genes_union_crt(inputs, **door, qq_crossfit=True)
    np.testing.assert_array_equal(out["pvals_df"], found.p)
    assert out["stat_name"] == "beta" and out["null_method"] == "ntc_empirical"
    assert [record.gene for record in out["results"]] == list(inputs.units)
    assert set(out["ntc_crossfit"]["p_real_vs_A_by_batch"]) == {"b0", "b1"}
    p, betas, treated, records = run_all_genes_union_crt(inputs, **door, return_format="tuple")
    np.testing.assert_array_equal(p, found.p)
    assert (len(betas), len(treated), len(records)) == (25, 25, 25)
    for option in ({"test_stat": "utest"}, {"calibrate_skew_normal": True}, {"side": "left"}):
        with pytest.raises(OptionError, match="ntc_empirical"):
            run_all_genes_union_crt(inputs, **door, **option)


def test_frame_functions_of_the_crossfit_agree_with_the_run():
    name = "synth_a"
    known = load(f"crt/{name}", "ntc_empirical.npz")
    screen = load(f"crt/{name}", "deterministic.npz")
    real = pd.DataFrame(screen["betas"], known["genes"])
    features = pd.DataFrame({"n1": screen["n_treated"], "d": screen["denom"]}, known["genes"])
    beta = pd.DataFrame(known["unit_beta"])
    sig = pd.DataFrame({"n1": known["unit_n1"], "d": known["unit_denom"]})
    a, b = known["ids_A"], known["ids_B"]
    given = (real, features, beta.loc[a], sig.loc[a], beta.loc[b], sig.loc[b], MATCHING)
    of_real, of_b, info = compute_ntc_empirical_pvals_crossfit(*given)
    np.testing.assert_allclose(of_real, known["pooled_fisher_meta_p_real_vs_A"], rtol=1e-9)
    np.testing.assert_allclose(of_b, known["pooled_fisher_meta_p_ntcB_vs_A"], rtol=1e-9)
    assert list(of_real.index) == list(known["genes"]) and list(of_b.index) == list(b)
    assert set(info) == {"real_vs_A", "ntcB_vs_A"}
    gene_real, gene_b, _ = compute_ntc_empirical_pvals_gene_agg_crossfit(*given)
    np.testing.assert_allclose(gene_real, known["pooled_fisher_meta_p_real_gene_vs_A"], rtol=1e-9)
    np.testing.assert_allclose(gene_b, known["pooled_fisher_meta_p_ntcB_gene_vs_A"], rtol=1e-9)
    with pytest.raises(InputError, match="n1"):
        compute_ntc_empirical_pvals_crossfit(real, features[["d"]], *given[2:])
    with pytest.raises(InputError, match="same units"):
        compute_ntc_empirical_pvals_crossfit(real, features[::-1], *given[2:])


def test_one_sided_crossfit_is_by_signed_effects():
    random = np.random.default_rng(0)
    frames = [pd.DataFrame(random.normal(size=(n, 1))) for n in (4, 60, 60)]
    sigs = [pd.DataFrame({"n1": np.full(len(f), 9), "d": np.ones(len(f))}) for f in frames]
    given = [x for pair in zip(frames, sigs, strict=True) for x in pair]
    p, _, _ = compute_ntc_empirical_pvals_crossfit(*given, {}, two_sided=False)
    larger = (frames[0].to_numpy() <= frames[1].to_numpy().T).sum(axis=1)
    np.testing.assert_allclose(p[0], (1 + larger) / 61)


def test_halves_of_guides_share_none():
    units = draw_ntc_units(np.arange(20), 3, 50, 1, split_seed=2, frac_A=0.4, split_by="guides")
    assert (len(units.a), len(units.b)) == (20, 30)
    assert not set(units.guides[units.a].ravel()) & set(units.guides[units.b].ravel())
    assert all(len(set(row)) == 3 for row in units.guides.tolist())
    assert units.names[7] == "NTC_unit_000007"


def test_few_guides_make_each_unit_once():
    """9 guides make 126 units of 4: no p-value is finer than 1/127, however many are asked for."""
    units = draw_ntc_units(np.arange(9), 4, 5000)
    assert len(np.unique(units.guides, axis=0)) == len(units.guides) == 126
    assert sorted([*units.a, *units.b]) == list(range(126))
    for count in (125, 13):
        fewer = draw_ntc_units(np.arange(9), 4, count, seed=3).guides
        assert len(np.unique(fewer, axis=0)) == len(fewer) == count
    halves = draw_ntc_units(np.arange(9), 4, 5000, split_by="guides")
    assert (len(halves.a), len(halves.b)) == (1, 5)


def test_batches_without_cells_or_units_are_left_out():
    screen = small_screen(n_cells=200, guides_per_gene=4)
    screen.obsm["covar"] = pd.DataFrame(screen.obsm["covar"], columns=["x", "y"]).assign(
        batch=["a"] * 150 + ["b"] * 45 + ["c"] * 5
    )
    inputs = prepare_crt_inputs(screen)
    options = {"guides_per_unit": 2, "n_ntc_units": 40, "min_treated": 15}
    found = ntc_empirical_tests(inputs, options=options, qq_crossfit=True)
    assert found.matching_info["batches"] == ["a", "b"]
    assert ((found.p > 0) & (found.p <= 1)).all()
    none = ntc_empirical_tests(inputs, options={**options, "min_treated": 190})
    assert (none.p == 1).all() and none.matching_info == {"reason": "no_batches_passed"}


def test_numbers_do_not_depend_on_the_order_of_genes_and_cells():
    screen = small_screen(n_cells=160, guides_per_gene=4)
    batch = np.tile(["a", "b"], 80)
    screen.obsm["covar"] = pd.DataFrame(screen.obsm["covar"], columns=["x", "y"])
    screen.obsm["covar"]["batch"] = batch
    options = {"guides_per_unit": 2, "n_ntc_units": 60, "min_treated": 3,
               "matching": {"n_n1_bins": 2, "n_d_bins": 2, "min_ntc_per_bin": 10}}  # fmt: skip
    inputs = prepare_crt_inputs(screen)
    genes = list(inputs.units)
    found = ntc_empirical_tests(inputs, genes, options)
    turned = ntc_empirical_tests(inputs, genes[::-1], options)
    np.testing.assert_array_equal(turned.p[::-1], found.p)
    order = np.random.default_rng(1).permutation(160)
    for name, values in screen.obsm.items():
        is_frame = hasattr(values, "iloc")
        screen.obsm[name] = values.iloc[order] if is_frame else values[order]
    shuffled = ntc_empirical_tests(prepare_crt_inputs(screen), genes, options)
    np.testing.assert_allclose(shuffled.p, found.p, rtol=1e-12)
    np.testing.assert_allclose(shuffled.beta, found.beta, rtol=1e-9, atol=1e-12)


def test_propensities_can_be_matched_too():
    """programDE fails here: its own propensity model returns a tuple."""
    inputs = screen_of("synth_b")
    matching = {**MATCHING, "use_pbar": True, "n_pbar_bins": 3}
    found = ntc_empirical_tests(
        inputs, options={**PEER, "n_ntc_units": 60, "matching": matching, "batch_mode": "pooled"}
    )
    assert found.matching_info["n_bins_pbar"] == 3
    assert all(len(key) == 3 for key in found.matching_info["bin_sizes"])


def test_mean_logit_of_constant_propensities_is_the_logit_of_the_share():
    inputs = screen_of("synth_b")
    cells = CellSubset(inputs.G, inputs.residuals, inputs.basis, inputs.C)
    units = [[0], [1, 2], []]
    found = cells.effects(units, ["a", "b", "c"], "const")
    share = found.n1[:2] / inputs.n_cells
    np.testing.assert_allclose(found.pbar, [*np.log(share / (1 - share)), 0.0], rtol=1e-12)


def test_units_without_treated_cells_do_not_make_p_values_smaller():
    null = UnitEffects(np.array([[0.0], [1.0], [2.0]]), np.array([0, 20, 20]), np.ones(3) * 15)
    real = UnitEffects(np.array([[1.5]]), np.array([20]), np.array([15.0]))
    batch = [BatchOfEffects("b", 100, real, null, np.ones(1))]
    options = {"matching": {"min_ntc_per_bin": 1}, "ntc_labels": "NTC"}
    strict = batch_p_values(batch, NTCEmpiricalOptions.from_mapping(options))
    loose = batch_p_values(
        batch, NTCEmpiricalOptions.from_mapping({**options, "filter_ntc_units": False})
    )
    assert (strict.p[0, 0], loose.p[0, 0]) == (2 / 3, 2 / 4)


@pytest.mark.filterwarnings("ignore::plait.errors.DataWarning")
@pytest.mark.parametrize("combine", ["fisher", "stouffer"])
def test_held_out_units_are_calibrated_under_a_global_null(combine):
    """Units of one half do not share guides with the null, and each is tested on one program."""
    made = make_sceptre_style_synth(
        N=6000, K=4, n_target_genes=40, ntc_frac_guides=0.6, n_effect_programs=0, moi_mean=8,
        n_cov_extra=1, seed=3, global_null=True,
    )  # fmt: skip
    _, batch, depth, _ = made.obsm["covar"].T
    made.obsm["covar"] = pd.DataFrame(
        {"batch": batch.astype(int).astype(str), "depth": depth}, index=made.obs_names
    )
    found = ntc_empirical_tests(
        prepare_crt_inputs(made, usage_key="usage"),
        options={"guides_per_unit": 1, "n_ntc_units": 720, "combine_method": combine,
                 "split_by": "guides", "matching": {"n_n1_bins": 3, "n_d_bins": 1}},
        qq_crossfit=True,
    )  # fmt: skip
    # Units of one guide drawn twice are the same test, so each guide counts once.
    p = found.crossfit["meta_p_ntcB_vs_A"]
    first = np.unique(found.units.guides[found.units.b], return_index=True)[1]
    values = p.to_numpy()[first, 0]
    assert len(values) > 100
    assert kstest(values, "uniform").pvalue > 1e-6
    assert (values <= 0.05).mean() < 0.05 + 5 * np.sqrt(0.0475 / len(values))


def test_standardised_effects_are_proportional_to_their_t_without_effects():
    inputs = screen_of("synth_b")
    options = {**PEER, "n_ntc_units": 80, "batch_mode": "pooled", "statistic": "z",
               "matching": {"n_n1_bins": 1, "n_d_bins": 1}}  # fmt: skip
    found = ntc_empirical_tests(inputs, options=options)
    genes = ols_statistics(inputs.residuals, inputs.basis, inputs.treated_matrix())
    units = ols_statistics(
        inputs.residuals, inputs.basis, indicator_matrix(inputs.G, found.units.guides)
    )
    z, null = (np.abs(x.beta * np.sqrt(x.denominator)[:, None]) for x in (genes, units))
    expected = (1 + (null[None] >= z[:, None]).sum(axis=1)) / 81
    np.testing.assert_allclose(found.p, expected, rtol=1e-12)
    np.testing.assert_allclose(found.beta, genes.beta, rtol=1e-12)


@pytest.mark.filterwarnings("ignore::plait.errors.DataWarning")
def test_genes_unlike_all_controls_are_said_and_standardised_effects_are_calibrated(caplog):
    """Frequencies of genes vary and those of controls do not, so that no control is like most."""
    p = {"beta": [], "z": []}
    for seed in range(6):
        made = make_sceptre_style_synth(
            N=2000, K=3, n_target_genes=60, ntc_frac_guides=0.4, n_effect_programs=0,
            n_cov_extra=1, moi_mean=6, seed=seed, global_null=True,
        )  # fmt: skip
        inputs = prepare_crt_inputs(made, usage_key="usage")
        genes = [gene for gene in inputs.units if gene != "NTC"]
        for statistic, values in p.items():
            found = ntc_empirical_tests(
                inputs, genes, {"n_ntc_units": 1000, "batch_mode": "pooled", "statistic": statistic}
            )
            values.append(found.p[:, 0])
    assert found.matching_info["n_outside"] > 20
    assert "statistic='z'" in caplog.text and len(caplog.records) == 6
    beta, z = (np.concatenate(p[name]) for name in ("beta", "z"))
    # A screen's 240 control guides are its null; its share of 60 genes has about twice a
    # binomial's variance for it.
    error = np.sqrt(2 * 0.0475 / len(z))
    assert abs((z <= 0.05).mean() - 0.05) < 4 * error
    assert (beta <= 0.05).mean() > (z <= 0.05).mean()


def test_only_tests_in_batches_are_counted_as_unlike_controls(caplog):
    """COMMON is tested in one of four batches, and there alone more frequent than all controls."""
    random = np.random.default_rng(3)
    names = ["COMMON_g0", "LIKE_g0", *(f"NTC_g{i}" for i in range(40))]
    guides = (random.random((800, len(names))) < 0.1).astype(np.int8)
    guides[:, 0] = 0
    guides[:60, 0] = np.arange(60) % 4 < 3
    batch = np.repeat(["a", "b", "c", "d"], 200)
    guides[batch != "a", 1] = 0
    screen = small_screen(n_cells=800)
    screen.obsm["guide_assignment"] = guides
    screen.obsm["covar"] = pd.DataFrame(screen.obsm["covar"], columns=["x", "y"])
    screen.obsm["covar"]["batch"] = batch
    screen.uns = {"guide_names": names, "guide2gene": {n: n.split("_")[0] for n in names}}
    found = ntc_empirical_tests(
        prepare_crt_inputs(screen), ["COMMON", "LIKE"],
        {"guides_per_unit": 1, "n_ntc_units": 200, "matching": {"min_ntc_per_bin": 10}},
    )  # fmt: skip
    assert found.matching_info["batches"] == ["a"]
    (info,) = found.matching_info["batch_matching_info"]
    assert info["n_outside"] == 1
    assert "1 of 2 tests are of genes rarer or more frequent" in caplog.text


def screen_of_rare_and_common():
    """Return a screen in which RARE has 8 cells in each of two batches; NTC has 8 guides."""
    random = np.random.default_rng(3)
    names = ["C_g0", "RARE_g0", *(f"NTC_g{i}" for i in range(8))]
    guides = (random.random((400, len(names))) < 0.12).astype(np.int8)
    guides[:, 1] = 0
    guides[[*range(8), *range(200, 208)], 1] = 1
    screen = small_screen(n_cells=400)
    screen.obsm["guide_assignment"] = guides
    screen.obsm["covar"] = pd.DataFrame(screen.obsm["covar"], columns=["x", "y"])
    screen.obsm["covar"]["batch"] = np.repeat(["a", "b"], 200)
    screen.uns = {"guide_names": names, "guide2gene": {n: n.split("_")[0] for n in names}}
    return prepare_crt_inputs(screen)


FEW = {"guides_per_unit": 2, "matching": {"min_ntc_per_bin": 10}}


def test_genes_that_no_batch_tests_are_listed_and_take_no_part(caplog):
    inputs = screen_of_rare_and_common()
    door = {"null_method": "ntc_empirical", "null_kwargs": FEW}
    out = run_all_genes_union_crt(inputs, **door)
    assert out["status_df"].to_dict() == {"C": "ok", "NTC": "ok", "RARE": "few_cells"}
    assert "1 of 3 genes are not tested (p = 1): no batch has 10 treated" in caplog.text
    assert "RARE" in caplog.text
    assert (out["pvals_df"].loc["RARE"] == 1).all()
    q = out["qvals_df"]
    assert q.loc[["RARE", "NTC"]].isna().all(axis=None)
    np.testing.assert_allclose(q.loc["C"], false_discovery_rates(out["pvals_df"].loc["C"], "BH"))
    found = ntc_empirical_tests(inputs, options={**FEW, "min_treated": 3})
    assert (found.status == "ok").all()


def test_smallest_p_values_are_those_that_the_controls_of_a_bin_can_give():
    inputs = screen_of_rare_and_common()
    pooled = ntc_empirical_tests(inputs, options={**FEW, "batch_mode": "pooled"})
    counts = pooled.matching_info["bin_sizes"].values()
    np.testing.assert_allclose(
        sorted(set(pooled.smallest_p)), sorted({1 / (m + 1) for m in counts})
    )
    assert (pooled.p >= pooled.smallest_p[:, None]).all()
    batches = ntc_empirical_tests(inputs, options=FEW)
    assert (batches.p >= batches.smallest_p[:, None]).all()
    assert batches.smallest_p[0] < pooled.smallest_p[0] and batches.smallest_p[2] == 1.0


def test_few_control_guides_are_said(caplog):
    inputs = screen_of_rare_and_common()
    found = ntc_empirical_tests(inputs, options=FEW)
    assert (found.n_control_guides, found.guides_per_unit) == (8, 2)
    assert "2 of 8 control guides" in caplog.text and "30 guides are needed" in caplog.text
    assert are_few_guides(29, 2) and not are_few_guides(30, 2)


def test_bins_can_leave_out_targets_that_are_controls():
    inputs = screen_of_rare_and_common()
    options = {**FEW, "batch_mode": "pooled"}
    genes = ["C", "RARE"]
    alone = ntc_empirical_tests(inputs, genes, options)
    matching = {**FEW["matching"], "with_controls": False}
    beside = ntc_empirical_tests(inputs, [*genes, "NTC"], {**options, "matching": matching})
    np.testing.assert_array_equal(beside.p[:2], alone.p)
    found = ntc_empirical_tests(inputs, [*genes, "NTC"], options, qq_crossfit=True)
    assert found.is_control.tolist() == [False, False, True]
    assert found.crossfit["negative_controls"] == ["NTC"]
    with pytest.raises(TypeError, match="with_controls is 'no'"):
        ntc_empirical_tests(inputs, options={"matching": {"with_controls": "no"}})


@pytest.mark.parametrize("dtype", ["string", "category", "object"])
@pytest.mark.filterwarnings("ignore:covariates with missing categories")
def test_missing_batches_are_refused_whatever_stands_for_them(dtype):
    screen = small_screen()
    batch = pd.Series(["a", "b", None] * 20, dtype=dtype)
    screen.obsm["covar"] = pd.DataFrame({"depth": screen.obsm["covar"][:, 0], "batch": batch})
    inputs = prepare_crt_inputs(screen)
    with pytest.raises(MissingCovariateError, match="the batch of 20 cells is missing"):
        ntc_empirical_tests(inputs, options={"guides_per_unit": 1, "n_ntc_units": 2})


def test_errors_say_what_to_do():
    inputs = prepare_crt_inputs(small_screen())
    with pytest.raises(InputError, match="no batches"):
        ntc_empirical_tests(inputs, options={"guides_per_unit": 1, "n_ntc_units": 10})
    with pytest.raises(KeyError, match="no covariate 'lane'"):
        ntc_empirical_tests(
            inputs, options={"guides_per_unit": 1, "n_ntc_units": 10, "batch_key": "lane"}
        )
    pooled = {"batch_mode": "pooled", "n_ntc_units": 10}
    with pytest.raises(InputError, match="2 negative-control guides cannot make units of 6"):
        ntc_empirical_tests(inputs, options=pooled)
    with pytest.raises(InputError, match="no guide has a target"):
        ntc_empirical_tests(inputs, options={**pooled, "ntc_labels": "nobody"})
    with pytest.raises(InputError, match="cannot be split"):
        ntc_empirical_tests(inputs, options={**pooled, "guides_per_unit": 2, "n_ntc_units": 1})
    with pytest.raises(TypeError, match="unknown options of matching: bins"):
        ntc_empirical_tests(inputs, options={**pooled, "matching": {"bins": 3}})
    with pytest.raises(TypeError, match="unknown options of the empirical null: unit_size"):
        ntc_empirical_tests(inputs, options={"unit_size": 3})
    for option in ({"batch_mode": "both"}, {"combine_method": "mean"}, {"min_treated": 0},
                   {"statistic": "t"}):  # fmt: skip
        with pytest.raises(OptionError, match=next(iter(option))):
            NTCEmpiricalOptions.from_mapping(option)


def screen_of(name):
    return prepare_crt_inputs(reference_screen(name)[0])


def peer_batches(inputs, usage, known, design):
    """Yield the effects in batches as programDE computes them, operation by operation."""
    usage = np.maximum(usage, inputs.eps)
    usage = usage / usage.sum(axis=1, keepdims=True)
    outcome = np.log(usage) - np.log(usage).mean(axis=1, keepdims=True)
    genes = inputs.treated_matrix(list(known["genes"])).tocsr()
    sets = [np.unique(inputs.G[:, guides].nonzero()[0]) for guides in known["units"]]
    for batch in dict.fromkeys(inputs.batch_raw):
        cells = np.flatnonzero(inputs.batch_raw == batch)
        place = np.full(inputs.n_cells, -1)
        place[cells] = np.arange(len(cells))
        C, Y = np.ascontiguousarray(design[cells]), outcome[cells]
        inverse, cross = np.linalg.inv(C.T @ C), C.T @ Y
        columns = genes[cells].tocsc()
        of_genes = [np.sort(columns.indices[i:j]) for i, j in pairwise(columns.indptr)]
        of_units = [place[rows][place[rows] >= 0] for rows in sets]
        yield BatchOfEffects(
            batch,
            len(cells),
            *(peer_effects(C, Y, inverse, cross, lists) for lists in (of_genes, of_units)),
            np.ones(Y.shape[1]),
        )


def peer_effects(C, Y, inverse, cross, lists):
    beta, d = np.zeros((len(lists), Y.shape[1])), np.zeros(len(lists))
    for j, cells in enumerate(lists):
        v, s = C[cells].sum(axis=0), Y[cells].sum(axis=0)
        t = inverse @ v
        d[j] = len(cells) - t @ v
        if d[j] > 1e-12:
            beta[j] = (s - t @ cross) / d[j]
    return UnitEffects(beta, np.array([len(cells) for cells in lists]), d)
