"""A gene-level screen step by step: states, calibration, the same bits however it is run."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from plait.crt.gene_data import gene_screen_data
from plait.crt.gene_design import design_columns, formula_by_assigned
from plait.crt.gene_results import GeneTestResult
from plait.crt.gene_screen import GeneScreen
from plait.crt.gene_tests import GeneTestOptions
from plait.crt.pairs import Pairs, positive_control_pairs, trans_pairs
from plait.crt.seeds import Method, UnitStream
from plait.data.p_values import p_value_text
from plait.errors import (
    ConvergenceWarning,
    InputError,
    LabelError,
    ModelWarning,
    NotAvailableError,
    OptionError,
)
from tests.crt.gene_cases import frame_of, random_data, random_screen
from tests.reference_files import real_data


def ready(seed=0, moi="high", effect=0.0, data=None, pairs=None, **options):
    if data is None:
        data = random_data(seed=seed, moi=moi, effect=effect, n_cells=500)
    pairs = trans_pairs(data) if pairs is None else pairs
    return (
        GeneScreen(data)
        .set_parameters(discovery_pairs=pairs, **options)
        .assign_guides("thresholding")
        .quality_control()
    )


def test_steps_come_in_order():
    data = random_data()
    screen = GeneScreen(data)
    for step in ("assign_guides", "quality_control", "run_calibration_check", "run_discovery"):
        with pytest.raises(NotAvailableError, match="set_parameters, which is missing"):
            getattr(screen, step)()
    screen.set_parameters()
    with pytest.raises(NotAvailableError, match="no discovery_pairs"):
        screen.run_discovery()
    with pytest.raises(NotAvailableError, match="no positive_control_pairs"):
        screen.run_power_check()
    with pytest.raises(OptionError, match="give n_pairs and group_size"):
        screen.run_calibration_check()


def test_skipped_steps_are_done_and_repeated_ones_drop_what_follows():
    screen = GeneScreen(random_data()).set_parameters(discovery_pairs=[("T0", "T0")])
    result = screen.run_discovery()
    assert screen.assignment is not None and screen.cells is not None
    assert screen.discovery is result
    screen.quality_control()
    assert screen.discovery is None and screen.assignment is not None
    screen.run_discovery()
    screen.assign_guides("thresholding")
    assert screen.discovery is None and screen.cells is None
    screen.set_parameters(discovery_pairs=[("T0", "T0")])
    assert screen.assignment is None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"side": "up"}, OptionError, "side is 'up'"),
        ({"strategy": "some"}, OptionError, "strategy is 'some'"),
        ({"control_group": "nt_cells"}, OptionError, "give 'complement'"),
        ({"mechanism": "magic"}, OptionError, "mechanism is 'magic'"),
        ({"resampling": "magic"}, OptionError, "resampling is 'magic'"),
        ({"approximation": "magic"}, OptionError, "approximation is 'magic'"),
        ({"fdr": "magic"}, OptionError, "fdr is 'magic'"),
        ({"level": 1.0}, OptionError, "level is 1.0"),
        ({"seed": -1}, OptionError, "seed is -1; give at least 0"),
        ({"formula": "offset(batch)"}, OptionError, "an offset"),
        ({"discovery_pairs": [("T9", "T0")]}, LabelError, "'T9'"),
    ],
)
def test_parameters_that_are_refused_before_anything_is_computed(options, error, message):
    with pytest.raises(error, match=message):
        GeneScreen(random_data()).set_parameters(**options)


def test_more_refusals():
    with pytest.raises(OptionError, match="min_treated is 0; give at least 1"):
        GeneScreen(random_data()).set_parameters().quality_control(min_treated=0)
    with pytest.raises(OptionError, match="max_resamples is 0; give at least 1"):
        GeneTestOptions(max_resamples=0)
    options, _ = random_screen(moi="low")
    targets = options["targets"].copy()
    targets.loc[targets.grna_target == "non-targeting", "grna_target"] = "T9"
    data = gene_screen_data(**(options | {"targets": targets}))
    with pytest.raises(OptionError, match="no guide has the target 'non-targeting'"):
        GeneScreen(data).set_parameters()
    screen = GeneScreen(data).set_parameters(
        control_group="complement", discovery_pairs=trans_pairs(data)
    )
    with pytest.raises(InputError, match="there are 0 non-targeting guides"):
        screen.run_calibration_check()


def test_an_effect_is_found():
    screen = ready(effect=-1.2, side="left", level=0.01)
    found = screen.run_discovery()
    assert (found.grna_target[0], found.response_id[0]) == ("T0", "T0")
    assert found.significant.sum() == 1
    assert found.log10_p[0] < -8
    # Treated cells are a quarter of those that say what is expected: the change is seen smaller.
    assert -1.2 / np.log(2) < found.log_2_fold_change[0] < -0.9
    assert "discoveries at a false discovery rate of 0.01: 1" in found.summary()
    surest = p_value_text(float(found.log10_p[0]))
    assert f"T0 -> T0: log2 fold change {found.log_2_fold_change[0]:+.2f}, p = {surest}" in (
        found.summary()
    )
    # Pairs that are no discoveries are not named below their number.
    assert found.summary().count(" -> ") == 1 and found.pass_qc.sum() > 1
    p = found.p_value[found.pass_qc]
    assert (np.diff(found.log10_p[found.pass_qc]) >= 0).all()
    assert ((p > 0) & (p <= 1)).all()


@pytest.mark.parametrize("resampling", ["analytic", "sceptre_staged"])
@pytest.mark.parametrize(
    "options",
    [
        {"moi": "high"},
        {"moi": "high", "mechanism": "permutations"},
        {"moi": "low"},
        {"moi": "low", "mechanism": "crt"},
        {"moi": "low", "control_group": "complement", "strategy": "singleton"},
    ],
)
@pytest.mark.filterwarnings("ignore:the covariates separate")
def test_the_same_bits_for_any_threads_pairs_and_order(resampling, options):
    data = random_data(moi=options["moi"], n_cells=400)
    options = {name: value for name, value in options.items() if name != "moi"}
    whole = ready(data=data, resampling=resampling, **options)
    one, two = (whole.run_discovery(threads=threads) for threads in (1, 2))
    assert one.pass_qc.sum() > 20
    assert one.allclose(two, rtol=0)
    pairs = trans_pairs(data)
    some = np.random.default_rng(0).permutation(len(pairs))[:17]
    few = Pairs(pairs.targets[some], pairs.responses[some])
    part = frame_of(ready(data=data, pairs=few, resampling=resampling, **options).run_discovery())
    names = ["p_value", "log10_p", "z_orig", "fold_change", "theta", "p_method"]
    same = frame_of(one)
    if "strategy" in options:
        part, same = (
            table.reset_index().set_index(["response_id", "grna_id"]) for table in (part, same)
        )
    assert part[names].equals(same.loc[part.index, names])


@pytest.mark.parametrize("moi", ["high", "low"])
def test_order_of_cells_and_scale_of_covariates_do_not_matter(moi):
    options, _ = random_screen(moi=moi, n_cells=400)
    random = np.random.default_rng(3)
    x = random.standard_normal(400)
    covariates = {"batch": options["covariates"].batch.to_numpy().astype(str), "x": x}
    formula = "batch + x + log(response_n_umis)"
    order = random.permutation(400)
    tables = []
    for cells, scaled in ((slice(None), x), (order, 1e3 - 50.0 * x)):
        data = gene_screen_data(
            **options
            | {
                "responses": options["responses"][cells],
                "guides": options["guides"][cells],
                "covariates": {"batch": covariates["batch"][cells], "x": scaled[cells]},
            }
        )
        found = frame_of(ready(data=data, formula=formula).run_discovery())
        tables.append(found[~found.p_method.isin(["monte carlo", "tilted draws"])])
    assert len(tables[0]) > 10
    first, second = tables[0], tables[1].loc[tables[0].index]
    for name in ("z_orig", "theta", "fold_change"):
        np.testing.assert_allclose(first[name], second[name], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(first.log10_p, second.log10_p, rtol=1e-3, atol=1e-5)


def test_a_real_screen():
    """Papalexi et al. 2021: what is known of interferon's pathway comes first."""
    anndata = pytest.importorskip("anndata")
    adata = anndata.read_h5ad(real_data("crt", "papalexi.h5ad"))
    screen = GeneScreen.from_anndata(adata, "low", covariates=["bio_rep"])
    controls = positive_control_pairs(screen.data)
    genes = ["STAT1", "JAK2", "PSMB9", "UBE2L6", "CMTM6", "ITGB1BP1"]
    known = {"IFNGR1", "IFNGR2", "JAK2", "STAT1"}
    pairs = trans_pairs(screen.data, controls, "pc_pairs")
    pairs = pairs.without(~np.isin(pairs.responses, genes))
    screen.set_parameters(discovery_pairs=pairs, positive_control_pairs=controls)
    power = screen.run_power_check()
    assert len(power) == 9 and power.pass_qc.all()
    assert (power.p_value < 0.01).mean() >= 8 / 9
    assert (power.log_2_fold_change[power.p_value < 0.01] < 0).all()
    found = screen.run_discovery()
    assert set(found.grna_target[:8].tolist()) <= known
    assert found.log10_p[0] < -100 and np.isfinite(found.log10_p[found.pass_qc]).all()
    null = screen.run_calibration_check(n_pairs=1500)
    assert null.pass_qc.all() and null.p_value.min() > 1e-6
    assert 0.02 < np.mean(null.p_value < 0.05) < 0.08


def test_targets_have_streams_of_their_own():
    """In sceptre all targets share the draws of one generator with the seed 4 (defect 12)."""
    first, second = (
        UnitStream(123, name).generator(Method.BERNOULLI, 0).random(4) for name in ("T0", "T1")
    )
    assert (first != second).all()
    p = [
        ready(resampling="sceptre_staged", seed=seed).run_discovery().p_value for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(p[0], p[1])
    assert (p[0] != p[2]).any()


@pytest.mark.parametrize("moi", ["high", "low"])
def test_calibration_check(moi):
    screen = ready(seed=2, moi=moi)
    found = screen.run_calibration_check()
    discovery = screen.run_discovery()
    assert found.pass_qc.all()
    assert len(found) == min(discovery.pass_qc.sum(), 15 * 12)
    guides = [name.split("&") for name in found.grna_target.tolist()]
    controls = set(screen.data.targets.guides[screen.data.targets.is_control].tolist())
    assert all(len(group) == 2 and set(group) <= controls for group in guides)
    assert found.analysis == "calibration" and "5% expected" in found.summary()
    pairs = found.to_frame().select("grna_target", "response_id")
    again = screen.run_calibration_check(pairs=pairs)
    assert again.allclose(found, rtol=0)
    single = screen.run_calibration_check(n_pairs=5, group_size=1)
    assert len(single) == 5


def test_cells_with_a_target_are_no_controls():
    options, _ = random_screen(moi="low", n_cells=600)
    guides = options["guides"].toarray()
    has_target = guides[:, :2].max(axis=1) > 5
    guides[has_target, 8] = 40.0  # a non-targeting guide in the cells of T0, too
    data = gene_screen_data(**(options | {"guides": guides}))
    screen = GeneScreen(data).set_parameters(discovery_pairs=[("T0", "gene1")])
    screen.assign_guides("thresholding").quality_control(keep_with_non_targeting=True)
    cells = screen._screen_cells()
    targeting = cells.problem.guides[:, :8].toarray().any(axis=1)
    assert (targeting & cells.problem.guides[:, [8]].toarray()[:, 0].astype(bool)).sum() > 30
    assert not targeting[cells.problem.controls].any()
    assert screen.run_discovery().pass_qc.all()


def test_rates_from_negative_controls():
    screen = ready(effect=-1.2, side="left")
    found, null = screen.run_discovery(), screen.run_calibration_check()
    rates = found.rates_from_calibration(null)
    assert np.argmin(rates) == 0 and (np.diff(rates[found.pass_qc]) >= 0).all()
    p = found.log10_p[found.pass_qc]
    by_definition = [(1 + np.sum(null.log10_p <= t)) / (1 + len(null)) / np.mean(p <= t) for t in p]
    smallest = [min(1.0, *by_definition[i:]) for i in range(len(p))]
    np.testing.assert_allclose(rates[found.pass_qc], smallest, rtol=1e-12)
    assert null.rates_from_calibration(null)[null.pass_qc].min() >= 1.0


def test_null_p_values_are_uniform():
    """Twelve independent screens without effects: 1,400 p-values, of few cells too."""
    p = []
    for seed in range(12):
        data = random_data(seed=100 + seed, n_cells=500, n_targets=8, n_genes=15)
        found = ready(data=data, side="right").run_discovery()
        p.append(found.p_value[found.pass_qc])
    p = np.sort(np.concatenate(p))
    assert len(p) > 1300
    grid = np.arange(1, len(p) + 1) / len(p)
    assert np.abs(p - grid).max() < 2.7 / np.sqrt(len(p))
    for level in (0.05, 0.01):
        error = np.sqrt(level * (1 - level) / len(p))
        assert abs(np.mean(p <= level) - level) < 5.5 * error


def test_no_approximation_draws_for_the_smallest_p_value():
    screen = ready(
        effect=-1.5,
        side="left",
        resampling="sceptre_staged",
        approximation="no_approximation",
        level=0.5,
        pairs=[("T0", "T0"), ("T1", "T0")],
    )
    found = screen.run_discovery()
    third = 5 * 2 / 0.5
    assert found.stage[0] == 3
    assert found.p_value[0] == pytest.approx(1 / (third + 1))
    assert np.isnan(found.xi).all()


def test_results_are_saved_and_written(tmp_path):
    screen = ready(moi="low", resampling="sceptre_staged", strategy="singleton")
    found = screen.run_discovery()
    found.save(tmp_path / "found.zarr")
    again = GeneTestResult.load(tmp_path / "found.zarr")
    assert again.allclose(found, rtol=0)
    assert again.to_frame().equals(found.to_frame())
    assert f"    {found.grna_id[0]} -> {found.response_id[0]}: " in found.summary()
    files = screen.write_tables(tmp_path / "tables")
    assert files == ["assignment.tsv.gz", "cells.tsv.gz", "discovery.tsv", "summary.txt"]
    import polars as pl

    table = pl.read_csv(tmp_path / "tables" / "discovery.tsv", separator="\t")
    assert table.height == len(found)
    assert table.columns[:3] == ["response_id", "grna_id", "grna_target"]
    assigned = pl.read_csv(tmp_path / "tables" / "assignment.tsv.gz", separator="\t")
    screen.use_assignment(assigned).quality_control()
    assert screen.run_discovery().allclose(found, rtol=0)


@pytest.mark.filterwarnings("default:the covariates separate")
def test_treatments_that_covariates_separate_are_named():
    options, has = random_screen()
    guides = options["guides"].toarray()
    batch = options["covariates"].batch.to_numpy() == "1"
    guides[:, :2] = np.where((np.arange(300) % 5 == 0) & batch, 40.0, 0.0)[:, None]
    data = gene_screen_data(**(options | {"guides": guides}))
    with pytest.warns(ModelWarning, match="unit 'T0'"):
        found = ready(data=data, pairs=[("T0", "gene1"), ("T1", "gene1")]).run_discovery()
    assert found.pass_qc.all() and np.isfinite(found.p_value).all()
    assert has.any()


def test_regressions_that_do_not_converge_are_named(monkeypatch):
    from plait.crt import gene_problem

    fit_gene = gene_problem.fit_gene
    monkeypatch.setattr(
        gene_problem, "fit_gene", lambda *given: replace(fit_gene(*given), converged=False)
    )
    with pytest.warns(ConvergenceWarning, match="2 of 2 pairs did not converge; .*'gene1'"):
        ready(pairs=[("T0", "gene1"), ("T1", "gene1")]).run_discovery()


def test_a_process_pool_gives_the_same_bits():
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    screen = ready()
    alone = screen.run_discovery(threads=1)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        assert screen.run_discovery(executor=pool).allclose(alone, rtol=0)


def test_a_stored_result_takes_its_place():
    screen, other = ready(pairs=[("T0", "T0")]), ready(pairs=[("T0", "T0")])
    result = screen.run_discovery()
    assert other.use_result(result).discovery is result
    assert other.calibration is None and other.pair_quality == screen.pair_quality
    assert result.settings["max_resamples"] == 10**6


def test_assigned_guides_in_cells_with_many_are_tested_with_the_defaults():
    """For zeros and ones the sum of a cell's guides and their number are the same covariate."""
    made, has = random_screen(seed=3, effect=-1.5)
    data = gene_screen_data(**made | {"guides": has})
    screen = GeneScreen(data).set_parameters(discovery_pairs=trans_pairs(data))
    result = screen.run_discovery(threads=1)
    first = result.response_id[0], result.grna_target[0]
    assert first == ("T0", "T0") and result.significant[0]


def test_only_a_written_formula_is_refused_for_what_its_terms_determine(caplog):
    made, _ = random_screen(seed=3)
    batch = made["covariates"]["batch"]
    covariates = pd.DataFrame({"batch": batch, "lane": "lane" + batch.astype(str)})
    data = gene_screen_data(**made | {"covariates": covariates})
    pairs = trans_pairs(data)
    with pytest.raises(InputError, match="'lane_lane1' is determined by those before it"):
        GeneScreen(data).set_parameters(formula="batch + lane")
    with caplog.at_level("INFO", "plait.crt"):
        screen = GeneScreen(data).set_parameters(discovery_pairs=pairs)
    assert "determined by the rest: lane_lane1" in caplog.text
    known = gene_screen_data(**made)
    alone = GeneScreen(known).set_parameters(discovery_pairs=pairs)
    both = [one.run_discovery(threads=1) for one in (screen, alone)]
    np.testing.assert_array_equal(both[0].p_value, both[1].p_value)


def test_a_batch_without_controls_is_no_batch_of_the_calibration_check():
    options, has = random_screen(seed=2, moi="low", n_cells=600)
    is_control = has[:, 8:].any(axis=1)
    random = np.random.default_rng(0)
    batch = np.where(is_control, random.integers(0, 2, 600), random.integers(0, 3, 600))
    results = []
    for values in (batch.astype(str), (batch == 1).astype(float)):
        data = gene_screen_data(**(options | {"covariates": {"batch": values}, "guides": has}))
        screen = GeneScreen(data).set_parameters(
            discovery_pairs=trans_pairs(data), formula="batch + log(response_n_umis)"
        )
        results.append(screen.run_calibration_check(threads=1))
    np.testing.assert_array_equal(results[0].p_value, results[1].p_value)


def test_covariates_that_the_default_formula_leaves_out_are_named(caplog):
    options, _ = random_screen(moi="low")
    score = np.random.default_rng(0).standard_normal(300)
    data = gene_screen_data(**(options | {"covariates": {"score": score, "weight": score**2 + 1}}))
    usual = "log(response_n_nonzero) + log(response_n_umis)"
    with caplog.at_level("INFO", "plait.crt"):
        screen = GeneScreen(data).set_parameters(discovery_pairs=[("T0", "T0")], weights="weight")
    assert screen.parameters.formula == usual
    assert "not adjusted for, as numbers of 15 or more values: score." in caplog.text
    assert f"the formula '~ {usual} + score'" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO", "plait.crt"):
        screen.set_parameters(discovery_pairs=[("T0", "T0")], formula=f"{usual} + score")
    assert "not adjusted for" not in caplog.text


def _rates_of_few_genes(formula, screens, n_genes=60):
    """Return the shares of p-values below 0.05 and 0.01 in screens without effects."""
    from plait.simulate import make_count_screen

    p = []
    for seed in screens:
        adata = make_count_screen(
            N=2000, n_genes=n_genes, n_targets=20, moi="high", seed=seed, global_null=True
        )
        screen = GeneScreen.from_anndata(adata, "high", covariates=["batch"])
        screen.set_parameters(
            discovery_pairs=trans_pairs(screen.data), side="left", formula=formula
        )
        p.append(screen.run_discovery(threads=1).p_value)
    found = np.concatenate(p)
    return [float(np.mean(found[np.isfinite(found)] < level)) for level in (0.05, 0.01)]


_BY_COUNTS = (
    "log(response_n_nonzero) + log(response_n_umis) + log(grna_n_nonzero + 1) + "
    "log(grna_n_umis + 1) + batch"
)


@pytest.mark.slow
def test_guides_assigned_are_a_covariate_that_few_genes_allow():
    """Of 7,200 tests, guides with counts give too many small p-values, guides assigned do not."""
    pytest.importorskip("anndata")
    by_counts = _rates_of_few_genes(_BY_COUNTS, range(6))
    by_assigned = _rates_of_few_genes(formula_by_assigned(_BY_COUNTS), range(6))
    assert by_counts[0] > 1.15 * 0.05
    assert 0.85 * 0.05 < by_assigned[0] < 1.1 * 0.05
    assert by_assigned[1] < 1.2 * 0.01 and by_assigned[1] < by_counts[1]


def test_guides_assigned_are_a_covariate(caplog):
    made, has = random_screen(seed=3)
    data = gene_screen_data(**made)
    with caplog.at_level("INFO", "plait.crt"):
        usual = GeneScreen(data).set_parameters(discovery_pairs=trans_pairs(data))
    better = formula_by_assigned(usual.parameters.formula)
    assert "with 12 genes and guides in the formula" in caplog.text and better in caplog.text
    assert better.startswith("~ ") and formula_by_assigned("~ log(grna_n_umis)") == (
        "~ log(grna_n_umis + 1)"
    )
    assert "log(grna_n_assigned + 1)" in better and "grna_n_nonzero" not in better
    found = (
        GeneScreen(data)
        .set_parameters(discovery_pairs=trans_pairs(data), formula=better)
        .assign_guides("thresholding")
    )
    per_cell = found.assignment.guides_per_cell
    names, columns = design_columns(data, better, per_cell)
    np.testing.assert_allclose(
        columns[:, names.index("log(grna_n_assigned + 1)")], np.log1p(has.sum(axis=1))
    )
    assert found.parameters.notes == ()
    as_given = dict(data.covariates) | {"known": per_cell.astype(float)}
    known = GeneScreen(replace(data, covariates=as_given)).set_parameters(
        discovery_pairs=trans_pairs(data), formula=better.replace("grna_n_assigned", "known")
    )
    known.use_assignment(found.assignment)
    np.testing.assert_array_equal(
        found.run_discovery(threads=1).p_value, known.run_discovery(threads=1).p_value
    )


@pytest.mark.parametrize("formula", [None, "log(grna_n_nonzero + 1) + log(response_n_umis)"])
def test_results_of_small_panels_carry_a_note(tmp_path, formula):
    screen = ready(formula=formula)
    for found in (screen.run_discovery(), screen.run_calibration_check(20)):
        (note,) = found.notes
        assert "with 12 genes and guides in the formula, p-values can be too small" in note
        assert formula_by_assigned(screen.parameters.formula) in note
        assert f"  note: {note}" in found.summary() and note in screen.summary()
        found.save(tmp_path / f"{found.analysis}.zarr")
        again = type(found).load(tmp_path / f"{found.analysis}.zarr")
        assert again.notes == found.notes and again.summary() == found.summary()
    assert ready(moi="low").run_discovery().notes == ()
