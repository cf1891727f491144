"""The tests of a whole screen: the same numbers however they are run, and honest under the null."""

import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.sparse import csc_array
from scipy.stats import kstest, mannwhitneyu

from plait import mash
from plait.crt import (
    control_group_effects,
    floor_usage,
    model,
    prepare_crt_inputs,
    run_all_genes_union_crt,
)
from plait.crt.model import BlockOfTests, perturbation_effects
from plait.crt.options import CRTOptions
from plait.crt.results import CRTResult
from plait.data.effects import Effects
from plait.errors import (
    DataWarning,
    InputError,
    LabelError,
    NotAvailableError,
    OptionError,
    OutputError,
)
from plait.execution.blocks import Block, plan_blocks
from plait.execution.executors import workforce
from plait.execution.stored_output import write_region
from plait.simulate.screen import make_sceptre_style_synth
from tests.crt.screens import reference_screen

SETTINGS = [
    {},
    {"sampler": "stratified"},
    {"statistic": "utest"},
    {"method": "empirical", "resamples": 300},
    {"method": "skew-normal", "resamples": 300},
    {"method": "skew-normal", "resamples": 300, "sampler": "stratified"},
    {"method": "empirical", "resamples": 300, "statistic": "utest", "sampler": "stratified"},
    {"method": "skew-normal", "resamples": 300, "statistic": "utest"},
    {"statistic": "utest", "sampler": "stratified"},
]


@pytest.fixture(scope="module")
def inputs():
    return prepare_crt_inputs(reference_screen("synth_b")[0])


def assert_same_bits(one, other):
    assert one.units == other.units
    assert one.allclose(other, rtol=0.0)


@pytest.mark.parametrize("options", SETTINGS)
def test_threads_order_and_other_units_change_nothing(inputs, options):
    whole = perturbation_effects(inputs, **options, threads=2)
    for threads in (1, 4):
        assert_same_bits(whole, perturbation_effects(inputs, **options, threads=threads))
    for some in ([*whole.units[5:2:-1], whole.units[-1]], whole.units[:0:-2], whole.units[3:4]):
        part = perturbation_effects(inputs, some, **options, fdr=None)
        rows = [whole.units.index(name) for name in some]
        assert part.units == tuple(some)
        for name in ("beta", "se", "p", "log10p", "status", "n_treated", "null_sd", "p_skew"):
            if getattr(whole, name) is not None:
                np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[rows])


@pytest.mark.parametrize(
    "options",
    [
        {"method": "empirical", "resamples": 100},
        {"sampler": "stratified"},
        {"statistic": "utest", "side": "left"},
    ],
)
def test_other_processes_find_the_same(inputs, options):
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        found = perturbation_effects(inputs, **options, executor=pool)
    assert_same_bits(found, perturbation_effects(inputs, **options))


def test_more_resamples_extend_fewer(inputs):
    few, many = (
        perturbation_effects(inputs, method="empirical", resamples=b, fdr=None) for b in (99, 999)
    )
    assert (many.p * 1000 >= few.p * 100 - 1e-9).all()  # what was extreme among few still is


@pytest.mark.parametrize("options", [SETTINGS[0], *SETTINGS[4:7]])
def test_a_store_holds_the_same_and_opens_again(inputs, tmp_path, options):
    found = perturbation_effects(inputs, **options, out=tmp_path / "screen.zarr")
    assert_same_bits(found, perturbation_effects(inputs, **options))
    assert_same_bits(found, CRTResult.load(tmp_path / "screen.zarr"))
    with pytest.raises(OutputError, match="exists"):
        perturbation_effects(inputs, **options, out=tmp_path / "screen.zarr")


KILLED = """
import os, sys
from plait import mash
from plait.crt import prepare_crt_inputs
from plait.crt import model
from tests.crt.screens import reference_screen

region, count = model.write_region, []

def dying(*given):
    digest = region(*given)
    count.append(digest)
    if len(count) == 2:
        os.kill(os.getpid(), 9)
    return digest

model.write_region = dying
model.WIDTH = 4
inputs = prepare_crt_inputs(reference_screen("synth_b")[0])
model.perturbation_effects(inputs, method="empirical", resamples=50, threads=1, out=sys.argv[1])
"""


def test_a_killed_run_goes_on(inputs, tmp_path, monkeypatch):
    out = tmp_path / "screen.zarr"
    done = subprocess.run([sys.executable, "-c", KILLED, str(out)], check=False)
    assert done.returncode == -9
    monkeypatch.setattr("plait.crt.model.WIDTH", 4)
    calls = []
    test = perturbation_effects.__globals__["UnitTester"].test
    monkeypatch.setattr(
        "plait.crt.unit_tests.UnitTester.test",
        lambda *given: calls.append(given[1]) or test(*given),
    )
    options = {"method": "empirical", "resamples": 50}
    found = perturbation_effects(inputs, **options, threads=1, out=out)
    assert sum(map(len, calls)) < len(found.units)
    assert_same_bits(found, perturbation_effects(inputs, **options))


def test_a_run_does_not_go_on_with_another_propensity_model(inputs, tmp_path, monkeypatch):
    """Two functions without a name of their own are not the same function."""
    monkeypatch.setattr("plait.crt.model.WIDTH", 4)
    region, written = write_region, []

    def stopping(*given):
        written.append(given)
        if len(written) == 2:
            raise KeyboardInterrupt
        return region(*given)

    out = tmp_path / "screen.zarr"
    options = {"method": "empirical", "resamples": 50, "threads": 1}
    options["propensity_model"] = lambda _, y: np.full(len(y), 0.5)
    with monkeypatch.context() as patch:
        patch.setattr("plait.crt.model.write_region", stopping)
        with pytest.raises(KeyboardInterrupt):
            perturbation_effects(inputs, **options, out=out)
    options["propensity_model"] = lambda _, y: np.full(len(y), 0.1)
    with pytest.warns(DataWarning, match="cannot be continued"):
        found = perturbation_effects(inputs, **options, out=out)
    np.testing.assert_allclose(found.expected_treated, 0.1 * inputs.n_cells)
    assert_same_bits(found, perturbation_effects(inputs, **options))


def test_the_peers_effects_and_counts(inputs):
    """Against programDE on its own generator: effects exactly, p-values up to its draws."""
    _, expected = reference_screen("synth_b")
    found = perturbation_effects(inputs, method="empirical")
    np.testing.assert_allclose(found.beta, expected["betas"], rtol=1e-9)
    np.testing.assert_array_equal(found.n_treated, expected["n_treated"])


def test_rank_biserial_is_scipys(inputs):
    found = perturbation_effects(inputs, method="empirical", resamples=9, statistic="utest")
    treated = np.zeros(inputs.n_cells, dtype=bool)
    treated[inputs.treated(found.units[0])] = True
    n1 = treated.sum()
    for k, values in enumerate(inputs.Y.T):
        u = mannwhitneyu(values[treated], values[~treated]).statistic
        assert found.beta[0, k] == pytest.approx(2 * u / (n1 * (len(treated) - n1)) - 1, abs=1e-12)
    with pytest.raises(InputError, match="rank-biserial"):
        found.to_effects()


@pytest.mark.parametrize("sampler", ["bernoulli", "stratified"])
def test_ranks_of_residuals_see_effects_against_the_confounding(sampler):
    """Ranks of log-ratios as they are do not: resamples have a mean, and |r| is below theirs."""
    random = np.random.default_rng(0)
    depth = random.normal(size=4000)
    treated = random.random(4000) < 0.05 * np.exp(0.9 * depth - 0.4)
    ratios = random.normal(size=(4000, 5))
    ratios[:, 0] += 0.8 * depth - 0.6 * treated
    screen = SimpleNamespace(
        obsm={
            "cnmf_usage": np.exp(ratios) / np.exp(ratios).sum(axis=1, keepdims=True),
            "covar": depth,
            "guide_assignment": treated[:, None].astype(np.int8),
        },
        uns={"guide_names": ["g"], "guide2gene": {"g": "GENE"}},
    )
    inputs = prepare_crt_inputs(screen)
    options = {"statistic": "utest", "sampler": sampler}
    if sampler == "stratified":
        options["strata"] = {"stratify_by_batch": False}
    assert perturbation_effects(inputs, **options).p[0, 0] > 0.99
    assert perturbation_effects(inputs, **options, ranks={"use": "residual"}).p[0, 0] < 1e-6
    assert perturbation_effects(inputs, **options, side="left").p[0, 0] < 1e-6
    assert perturbation_effects(inputs).p[0, 0] < 1e-6


@pytest.mark.filterwarnings("ignore:covariates left out")
@pytest.mark.parametrize("options", [*SETTINGS[:3], SETTINGS[4], SETTINGS[5], SETTINGS[7]])
def test_p_values_are_uniform_where_nothing_happens(options):
    """Confounded by batch, no effect: one program of 300 independent targets, KS at 1e-6."""
    screen = make_sceptre_style_synth(
        N=3000, K=4, n_target_genes=300, effect_size=0.0, confound_strength=0.5, seed=5
    )
    inputs = prepare_crt_inputs(screen, usage_key="usage")
    strata = {"strata": {"stratify_by_batch": False}} if "sampler" in options else {}
    found = perturbation_effects(inputs, **options, **strata, exclude=["NTC"])
    assert kstest(found.p[:, 0], "uniform").pvalue > 1e-6


def degenerate_screen():
    screen, _ = reference_screen("synth_b")
    guides = screen.obsm["guide_assignment"].tolil()
    names = screen.uns["guide_names"]
    guides[:, 0], guides[:, 1] = 0, 1
    screen.obsm["guide_assignment"] = guides.tocsc()
    screen.uns["guide2gene"] |= {names[0]: "NOBODY", names[1]: "EVERYBODY"}
    return screen


@pytest.mark.parametrize("options", SETTINGS)
def test_units_that_cannot_be_tested_say_so(options):
    found = perturbation_effects(prepare_crt_inputs(degenerate_screen()), **options)
    for name in ("NOBODY", "EVERYBODY"):
        j = found.units.index(name)
        assert found.status[j] == "degenerate"
        assert (found.p[j] == 1).all()
        assert (found.beta[j] == 0).all()
    assert "1 perturbation (no cell is treated: NOBODY)" in found.summary()
    assert np.isfinite(found.p).all()
    assert np.isnan(found.q[found.units.index("NOBODY")]).all()
    if found.se is not None:
        assert "NOBODY" not in found.to_effects().effects


def test_strata_that_leave_nothing_to_vary(inputs):
    """A stratum for every cell: every resample is the data."""
    strata = {"burden_key": "cell", "n_burden_bins": inputs.n_cells, "min_stratum_size": None}
    numbered = inputs.covar_df_raw.assign(cell=np.arange(inputs.n_cells))
    found = perturbation_effects(
        replace(inputs, covar_df_raw=numbered),
        method="empirical",
        sampler="stratified",
        strata=strata,
    )
    assert set(found.status) == {"no_variation"}
    assert (found.p == 1).all()


def test_resamples_that_are_the_data_count_as_extreme(inputs):
    """Three treated of six cells, the most extreme three: one resample in 20 is the data."""
    for k, values in enumerate(inputs.residuals.T):
        for sign, side in ((1, "right"), (-1, "left")):
            cells = np.argsort(-sign * values)[[0, 1, 2, 500, 501, 502]]
            stratum = np.repeat("a", inputs.n_cells)
            stratum[cells] = "b"
            treated = np.zeros((inputs.n_cells, 1), dtype=np.int8)
            treated[cells[:3]] = 1
            few = replace(
                inputs,
                G=csc_array(treated),
                guide_names=("g",),
                guide2gene={"g": "FEW"},
                gene_to_cols={"FEW": np.array([0])},
                covar_df_raw=inputs.covar_df_raw.assign(batch=stratum),
            )
            found = perturbation_effects(
                few, method="empirical", sampler="stratified", side=side, resamples=1999,
                propensity_model="const", strata={"min_stratum_size": None},
            )  # fmt: skip
            assert abs(found.p[0, k] - 0.05) < 7 * np.sqrt(0.05 * 0.95 / 1999)


def test_false_discovery_rates_leave_controls_out(inputs):
    found = perturbation_effects(inputs, method="empirical")
    assert found.negative_controls == ("NTC",)
    assert np.isnan(found.q[found.is_control]).all()
    assert np.isfinite(found.q[~found.is_control]).all()
    one = perturbation_effects(inputs, method="empirical", fdr_scope="per_program")
    alone = perturbation_effects(inputs, method="empirical", exclude=["NTC"], fdr="BY")
    assert "NTC" not in alone.units
    assert (alone.q >= found.q[~found.is_control] - 1e-12).all()
    assert not np.array_equal(one.q, found.q, equal_nan=True)


def test_effects_for_mash_sum_to_zero_and_can_be_inverted(inputs):
    found = perturbation_effects(inputs, method="empirical", resamples=10)
    effects = found.to_effects()
    np.testing.assert_allclose(effects.bhat.sum(axis=1), 0.0, atol=1e-10)
    assert effects.contexts == inputs.program_names
    assert np.linalg.eigvalsh(effects.V)[0] > 0.1
    np.testing.assert_allclose(np.diag(effects.V), 1.0, rtol=1e-12)
    plain = found.to_effects(null_correlation=None, with_controls=True)
    assert plain.V is None
    np.testing.assert_array_equal(plain.shat, found.null_sd)
    of_squares = found.to_effects(se="ols", null_correlation=None, with_controls=True)
    np.testing.assert_array_equal(of_squares.shat, found.se)


def test_effects_for_mash_are_those_of_perturbations(inputs, caplog):
    found = perturbation_effects(inputs, method="empirical", resamples=10)
    with caplog.at_level("INFO", "plait.crt"):
        effects = found.to_effects()
    assert "left out of the effects, as negative controls: NTC" in caplog.text
    assert list(effects.effects) == [name for name in found.units if name != "NTC"]
    np.testing.assert_array_equal(effects.bhat, found.beta[~found.is_control])
    kept = found.to_effects(with_controls=True)
    assert tuple(kept.effects) == found.units
    np.testing.assert_array_equal(kept.V, effects.V)
    groups = control_group_effects(inputs, method="empirical", resamples=10)
    with pytest.raises(NotAvailableError, match=r"all perturbations .* are negative controls"):
        groups.to_effects()
    assert tuple(groups.to_effects(with_controls=True).effects) == groups.units
    caplog.clear()
    status = np.where(np.isin(found.units, found.units[2:4]), "degenerate", found.status)
    cause = "the covariates determine the treatment"
    fewer = replace(found, status=status).to_effects()
    assert set(found.units[2:4]).isdisjoint(fewer.effects)
    assert (
        f"not tested: 2 perturbations ({cause}: {found.units[2]}, {found.units[3]})" in caplog.text
    )


def test_effects_for_mash_keep_their_errors_where_the_data_say_something(inputs):
    """What is added to the exact error covariance is along the direction that has none."""
    found = perturbation_effects(inputs, method="empirical", resamples=10)
    effects = found.to_effects(with_controls=True)
    growth = (effects.shat / found.null_sd)[0]
    carried = growth[:, None] * effects.V * growth
    added = carried - found.residual_correlation
    scale = inputs.residuals.std(axis=0)
    empty = scale / np.linalg.norm(scale)
    np.testing.assert_allclose(found.residual_correlation @ empty, 0.0, atol=1e-12)
    np.testing.assert_allclose(added, np.trace(added) * np.outer(empty, empty), atol=1e-12)


@pytest.mark.filterwarnings("ignore:covariates left out")
def test_mash_finds_more_than_single_tests_at_the_same_realised_rate():
    """And an error correlation that is nearly singular, as if programs were seen not to move
    together, would hide effects."""
    screen = make_sceptre_style_synth(
        N=8000, K=12, n_target_genes=250, frac_causal_genes=0.4, effect_size=0.08,
        sprinkle_near_zero_frac=0.0, seed=2,
    )  # fmt: skip
    inputs = prepare_crt_inputs(screen, usage_key="usage")
    found = perturbation_effects(inputs, method="empirical", resamples=1, exclude=["NTC"])
    truth = np.array([screen.uns["gene_effects"].get(name, np.zeros(12)) for name in found.units])
    truth -= truth.mean(axis=1, keepdims=True)

    def discoveries(estimate, rank):
        order = np.argsort(rank, axis=None)
        wrong = (np.sign(estimate) != np.sign(truth)).ravel()[order]
        rate = np.cumsum(wrong) / np.arange(1, wrong.size + 1)
        return int(np.flatnonzero(rate <= 0.05)[-1]) + 1

    def by_mash(effects):
        data = mash.mash_set_data(effects.bhat, effects.shat, V=effects.V)
        fitted = mash.mash(data, Ulist=mash.cov_canonical(data))
        lfsr = mash.get_lfsr(fitted)
        realised = (np.sign(mash.get_pm(fitted)) != np.sign(truth))[lfsr < 0.05].mean()
        return discoveries(mash.get_pm(fitted), lfsr), realised

    effects = found.to_effects()
    values, vectors = np.linalg.eigh(found.residual_correlation)
    floored = (vectors * np.maximum(values, 1e-3)) @ vectors.T
    scale = np.sqrt(np.diag(floored))
    single = discoveries(found.beta, -np.abs(found.beta / found.null_sd))
    carried, realised = by_mash(effects)
    nearly_singular, _ = by_mash(
        Effects(found.beta, found.null_sd, floored / np.outer(scale, scale))
    )
    assert carried > 1.3 * single
    assert carried > 1.15 * nearly_singular
    assert realised < 0.05


def test_the_closed_form_spread_is_that_of_the_draws(inputs):
    """To first order: where n1 cells are treated, a varying denominator adds about 1.5 / n1."""
    for sampler in ("bernoulli", "stratified"):
        options = CRTOptions(method="empirical", sampler=sampler, resamples=4000)
        names = ("NTC", *inputs.units[:3])
        work = BlockOfTests.of(inputs, options, names)
        found = work(Block(0, 4))
        probabilities = work.propensities(slice(0, 4), work.treated)
        for j, name in enumerate(names):
            null = work.tester.null_statistics(name, inputs.treated(name), probabilities[:, j])
            ratio = null.tested.std(axis=0) / found["null_sd"][j]
            sampling = 7.0 / np.sqrt(2 * 4000)
            assert np.abs(np.log(ratio)).max() < sampling + 3.0 / found["expected_treated"][j]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"units": ["nobody"]}, LabelError, "no guide targets 'nobody'"),
        ({"units": ["NTC", "NTC"]}, LabelError, "more than once|twice"),
        ({"exclude": ["nobody"]}, LabelError, "left out"),
        ({"method": "magic"}, OptionError, "method is 'magic'"),
        ({"statistic": "t"}, OptionError, "statistic is 't'"),
        ({"sampler": "jackknife"}, OptionError, "sampler"),
        ({"side": "up"}, OptionError, "side is 'up'"),
        ({"fdr": "none"}, OptionError, "fdr is 'none'"),
        ({"fdr_scope": "gene"}, OptionError, "fdr_scope"),
        ({"strata": {"bins": 3}}, TypeError, "bins"),
        ({"ranks": {"method": "min"}}, TypeError, "method"),
        ({"ranks": {"use": "raw"}}, OptionError, "use is 'raw'"),
        ({"seed": -1}, OptionError, "seed"),
        ({"seed": 1.5}, TypeError, "seed is 1.5; give a whole number"),
        ({"method": "empirical", "resamples": 99.0}, TypeError, "resamples is 99.0"),
        ({"propensity_model": "probit"}, OptionError, "probit"),
    ],
)
def test_bad_options(inputs, options, error, words):
    with pytest.raises(error, match=words):
        perturbation_effects(inputs, **{"method": "empirical", **options})


def test_a_text_is_one_name_not_its_letters(inputs):
    targets = np.resize(["NTC", "C", "T"], len(inputs.guide_names))
    lettered = replace(
        inputs,
        guide2gene=dict(zip(inputs.guide_names, targets.tolist(), strict=True)),
        gene_to_cols={name: np.flatnonzero(targets == name) for name in ("C", "NTC", "T")},
    )
    found = perturbation_effects(lettered, negative_controls="NTC", exclude="T")
    assert found.units == ("C", "NTC")
    assert found.negative_controls == ("NTC",)
    assert perturbation_effects(lettered, "NTC").units == ("NTC",)
    one, listed = (
        control_group_effects(lettered, negative_controls=controls, group_size=2)
        for controls in ("NTC", ["NTC"])
    )
    assert_same_bits(one, listed)


def test_no_batches_to_keep_apart(inputs):
    without = replace(inputs, covar_df_raw=None, batch_raw=None)
    with pytest.warns(DataWarning, match="without batches"):
        perturbation_effects(without, method="empirical", resamples=5, sampler="stratified")


def test_a_floor_that_is_given_floors_usages_that_are_ranked():
    screen = reference_screen("synth_b")[0]
    ranked = {
        "statistic": "utest",
        "ranks": {"use": "usage"},
        "method": "empirical",
        "resamples": 9,
    }

    def beta(eps):
        inputs = prepare_crt_inputs(screen, eps=eps)
        return inputs, perturbation_effects(inputs, **ranked).beta

    inputs, found = beta(0.05)
    floored = floor_usage(inputs.usage, 0.05)
    cells = inputs.treated(inputs.units[0])
    treated = np.zeros(inputs.n_cells, dtype=bool)
    treated[cells] = True
    for k in range(inputs.n_programs):
        u = mannwhitneyu(floored[treated, k], floored[~treated, k]).statistic
        expected = 2 * u / (treated.sum() * (~treated).sum()) - 1
        np.testing.assert_allclose(found[0, k], expected, atol=1e-12)
    assert not np.array_equal(found, beta(1e-4)[1])


@pytest.mark.parametrize(
    "options",
    [
        {"strata": {"n_bins": 5}},
        {"ranks": {"use": "usage"}},
        {"resamples": 1023},
        {"resamples": 99, "method": "adaptive"},
        {"exceedances": 20, "method": "empirical"},
        {"max_resamples": 2000, "method": "skew-normal"},
        {"bulk_above": 0.1, "method": "adaptive"},
    ],
)
def test_options_that_do_nothing_are_refused(inputs, options):
    with pytest.raises(OptionError, match=f"{next(iter(options))} does nothing here"):
        perturbation_effects(inputs, **options)
    with pytest.raises(OptionError, match="does nothing here"):
        control_group_effects(inputs, **options)


def test_every_p_value_says_how_many_resamples_it_is_of_and_why(inputs):
    few = perturbation_effects(inputs, max_resamples=4000, exceedances=5)
    is_drawn = few.p_method == "monte carlo"
    assert is_drawn.any() and not is_drawn.all()
    np.testing.assert_array_equal(few.n_resamples > 0, is_drawn)
    assert few.n_resamples.max() <= 4000
    assert set(few.p_flag[is_drawn]) <= {"few_treated", "skewed", "few_cells", "beyond_support"}
    assert set(few.p_flag[few.p_method == "saddlepoint"]) == {"ok"}
    assert f"drawn: {is_drawn.sum()} of {is_drawn.size} p-values" in few.summary()
    assert {"n_resamples", "p_flag"} <= set(few.to_frame().columns)
    # A p-value is what these numbers say: h of l, or (1 + count) / (B + 1).
    late = is_drawn & (few.n_resamples > 1024) & (few.n_resamples < 4000)
    np.testing.assert_allclose(few.p[late], 5 / few.n_resamples[late])
    more = perturbation_effects(inputs, max_resamples=4000, bulk_above=0.5)
    assert (more.p_method == "bulk").sum() < (few.p_method == "bulk").sum()
    adaptive = perturbation_effects(inputs, inputs.units[:2], method="adaptive", max_resamples=1500)
    assert adaptive.p_flag is None and 1024 <= adaptive.n_resamples.max() <= 1500
    counted = perturbation_effects(inputs, inputs.units[:2], method="empirical", resamples=9)
    assert set(counted.n_resamples.ravel()) == {9}


def test_strata_are_reported(inputs):
    found = perturbation_effects(inputs, sampler="stratified", strata={"n_bins": 5})
    table = found.to_frame()
    for name, values in found.of_strata().items():
        np.testing.assert_array_equal(table[name], np.repeat(values, inputs.n_programs))
    assert found.n_propensity_bins.max() <= 5
    assert "strata (medians): 10 of a perturbation" in found.summary()
    out = run_all_genes_union_crt(
        inputs, B=9, resampling_method="stratified_perm", resampling_kwargs={"n_bins": 5}
    )
    np.testing.assert_array_equal(out["strata_df"]["n_strata"], found.n_strata)
    assert list(out["strata_df"].columns) == list(found.of_strata())


def test_little_memory_is_for_few_units_at_once(inputs, monkeypatch):
    seen = []
    fitted = model.propensity_blocks

    def spy(propensities, C, treated, names):
        seen.append(len(names))
        return fitted(propensities, C, treated, names)

    whole = perturbation_effects(inputs, threads=1)
    monkeypatch.setattr(model, "propensity_blocks", spy)
    of_unit = 8 * inputs.n_cells * 5
    work = BlockOfTests.of(inputs, CRTOptions(), inputs.units)
    few, force = work.fitting(replace(workforce(threads=4), memory=3 * of_unit))
    assert (few.at_once, force.workers) == (3, 1)
    many, force = work.fitting(replace(workforce(threads=2), memory=100 * of_unit))
    assert (many.at_once, force.workers) == (32, 2)
    some, force = work.fitting(replace(workforce(threads=2), memory=40 * of_unit))
    assert (some.at_once, force.workers) == (20, 2)
    tight, force = work.fitting(replace(workforce(threads=2), memory=17 * of_unit))
    assert (tight.at_once, force.workers) == (16, 1)
    found = few(Block(0, len(inputs.units)))
    assert max(seen) == 3 and sum(seen) == len(inputs.units)
    np.testing.assert_array_equal(found["log10p"], whole.log10p)


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 33, 48, 100, 208, 1000])
def test_two_workers_have_as_much_to_do_of_a_short_stored_screen(count):
    unit = model.units_of_stored_block(count)
    assert unit <= model.units_of_block(count) == 16
    blocks = plan_blocks(count, unit)
    done = [sum(map(len, blocks[worker::2])) for worker in range(2)]
    assert abs(done[0] - done[1]) <= unit // 2 + 1


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 7, 16, 17, 50, 208, 2000])
def test_every_round_of_blocks_keeps_all_workers_as_busy(inputs, count, workers):
    """Fits of a number of units that is no multiple of 4 take as long as those of the next."""
    work = BlockOfTests.of(inputs, CRTOptions(), inputs.units[:1])
    blocks = replace(work, names=tuple(map(str, range(count))))._balanced(workers)
    assert [unit for block in blocks for unit in range(block.start, block.stop)] == [*range(count)]
    sizes = [len(block) for block in blocks]
    assert max(sizes) <= model.units_of_block(count)
    last = 2 * workers if workers > 1 and sum(sizes[-2 * workers :]) >= 8 * workers else workers
    rounds = [sizes[k : k + workers] for k in range(0, len(sizes) - last, workers)]
    assert all(len(set(one)) == 1 and one[0] % 4 == 0 for one in rounds)
    assert max(sizes[-last:]) - min(sizes[-last:]) <= 1
    if workers > 1 and count >= 64 * workers:
        assert max(sizes[-last:]) <= max(sizes) / 2
