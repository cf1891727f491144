"""How strongly miscalibrated controls are called so."""

from dataclasses import replace

import numpy as np
import pytest

from plait.crt import control_group_effects, perturbation_effects, prepare_crt_inputs
from plait.report.screen_verdicts import (
    NON_TARGETING_GROUPS,
    calibration,
    like_controls,
    share_verdict,
    verdicts,
)
from tests.reference_files import real_data
from tests.report.test_screen import made, uniform


def judged(small, tests, units=20, effective=None):
    """Return the verdict on so many small p-values of so many tests, spread over units."""
    p = np.full(tests, 0.5)
    p[:small] = 0.01
    units = np.arange(tests) % units
    return share_verdict(np.log10(p), units, effective or tests, "groups", "Do this.")


@pytest.mark.parametrize(
    ("small", "tests", "state", "title"),
    [
        (12, 72, "bad", "P-values too small"),
        (10, 72, "caution", "P-values may be too small"),
        (4, 72, "good", "Calibrated"),
        (64, 1000, "good", "Calibrated"),
        (65, 1000, "caution", "P-values may be too small"),
        (93, 1000, "bad", "P-values too small"),
        (92, 1000, "caution", "P-values may be too small"),
        (22, 1000, "caution", "P-values too large"),
        (23, 1000, "good", "Calibrated"),
        (1, 20, "unknown", "Too few controls to tell"),
    ],
)
def test_the_interval_of_the_share_decides(small, tests, state, title):
    verdict = judged(small, tests)
    assert (verdict.state, verdict.title) == (state, title)
    assert ("do not take discoveries at face value. Do this." in verdict.reason) == (state == "bad")


def test_tests_that_go_together_say_less():
    assert judged(12, 72).state == "bad"
    assert judged(12, 72, effective=36).state == "caution"


def test_one_guide_that_does_something_does_not_condemn_the_others():
    p = np.full((6, 12), 0.5)
    p[2, :10] = 0.001
    units = np.repeat(np.arange(6), 12)
    verdict = share_verdict(np.log10(p.ravel()), units, 72, "groups", "Do this.")
    assert verdict.state == "caution"
    assert "Most of it comes from one of them." in verdict.reason


def test_controls_that_cannot_check():
    null = made(uniform(30, 4), controls=["GENE1"], method="ntc-empirical")
    assert calibration(null, None).reason.startswith("P-values are shares of pseudo-genes")
    settings = {**null.settings, "control_guides": 9, "guides_per_unit": 3, "smallest_p": 1 / 85}
    few = verdicts(replace(null, settings=settings), None, 0.1)
    assert (few[0].state, few[0].title) == ("caution", "P-values may be too small")
    assert "Controls have 9 guides" in few[0].reason and "45 guides are needed" in few[0].reason
    assert few[1].title == "P-values cannot be small" and "below 0.012," in few[1].reason
    many = verdicts(replace(null, settings={**settings, "control_guides": 45}), None, 0.1)
    assert many[0].title == "Calibration not checked"
    untested = replace(null, status=np.where(np.arange(30) == 4, "few_cells", null.status))
    said = verdicts(untested, None, 0.1)[1].reason
    assert "too few cells in every batch to compare with controls: GENE4" in said
    one = made(uniform(30, 4), controls=["GENE1"])
    assert calibration(one, None).reason.startswith("There is 1 negative-control target, too few")
    few = calibration(one, made(uniform(2, 4), prefix="ntc_")).reason
    assert few.startswith("There are 2 groups of negative-control guides, too few")


def test_false_alarms_are_rare():
    """Uniform p-values of dependent programs: the interval misses on one side in 2.5 % at most."""
    from scipy.special import ndtr

    random = np.random.default_rng(8)
    rho = 0.6 + 0.4 * np.eye(12)
    states = []
    for _ in range(600):
        z = random.multivariate_normal(np.zeros(12), rho, 10)
        p = 2 * ndtr(-np.abs(z))
        controls = made(np.maximum(p, 1e-12), prefix="ntc_", residual_correlation=rho)
        states.append(calibration(made(uniform(20, 12)), controls).state)
    count = {state: states.count(state) for state in set(states)}
    # Bounds at a false-alarm rate of 1e-6 of 600 draws with 2.5 % and 0.5 %.
    assert count.get("caution", 0) + count.get("bad", 0) <= 35
    assert count.get("bad", 0) <= 15


def test_controls_of_a_real_screen_with_one_guide_per_cell():
    anndata = pytest.importorskip("anndata")
    adata = anndata.read_h5ad(real_data("crt", "papalexi.h5ad"))
    adata.obsm["covar"] = adata.obs[["bio_rep"]].assign(
        depth=np.log(adata.obs["n_umis"]), genes=np.log(adata.obs["n_nonzero"])
    )
    with pytest.warns(UserWarning, match="of the usages are 0"):
        inputs = prepare_crt_inputs(
            adata, usage_key="usage", guide_names_key="grna_ids", guide2gene_key="guide2gene_json"
        )
    verdict = calibration(perturbation_effects(inputs), control_group_effects(inputs))
    assert verdict.state == "bad"
    assert "16.7% of 72 p-values" in verdict.reason
    assert "one guide per cell" in verdict.reason
    assert "ntc-empirical" not in verdict.reason  # nine guides are too few to be a null


def test_controls_of_other_names_are_asked_for():
    names = ["negative_control", "ctrl-1", "NTC2", "NT", "AAVS1", "STAT1", "LUC7L", "NTRK1", "CTRL"]
    assert like_controls(names) == ["negative_control", "ctrl-1", "NTC2", "NT", "AAVS1", "CTRL"]
    none = made(uniform(30, 4))
    units = ["my_control", *none.units[1:]]
    reason = calibration(replace(none, units=tuple(units)), None).reason
    assert reason.startswith("There are 0 negative-control targets")
    assert "--controls NAME. These look like controls: my_control." in reason
    assert "look like controls" not in calibration(none, None).reason
    known = made(uniform(30, 4), controls=["GENE1"])
    assert "--controls" not in calibration(known, None).reason


def with_cells(treated, **changes):
    """Return the verdict on perturbations of so many treated cells."""
    result = made(uniform(len(treated), 4), n_treated=np.array(treated), **changes)
    return next(lamp for lamp in verdicts(result, None, 0.1) if "treated cells" in lamp.reason)


@pytest.mark.parametrize(
    ("few", "state", "title"),
    [
        (0, "good", "Enough treated cells"),
        (5, "good", "Enough treated cells"),
        (6, "caution", "Some have few treated cells"),
        (50, "caution", "Some have few treated cells"),
        (51, "bad", "Few treated cells"),
        (100, "bad", "Few treated cells"),
    ],
)
def test_green_is_when_nearly_all_have_enough_treated_cells(few, state, title):
    verdict = with_cells([19] * few + [20] * (100 - few))
    assert (verdict.state, verdict.title) == (state, title)
    if few:
        assert verdict.reason.startswith(f"{few} of 100 perturbations ({few}.0%) have fewer than")


def test_one_group_is_called_one():
    p = np.log10(np.full(20, 0.5))
    one = share_verdict(p, np.zeros(20), 20, NON_TARGETING_GROUPS)
    assert "of 20 p-values of 1 group of non-targeting guides are below" in one.reason
    two = share_verdict(p, np.arange(20) % 2, 20, NON_TARGETING_GROUPS)
    assert "of 20 p-values of 2 groups of non-targeting guides are below" in two.reason


def test_few_treated_cells_are_a_reason_for_strata():
    drawn, kept = {"sampler": "bernoulli"}, {"sampler": "stratified"}
    assert "--sampler stratified keeps it" in with_cells([8] * 10, settings=drawn).reason
    for treated, settings in (([8] * 10, kept), ([8] * 10, {}), ([8] + [20] * 30, drawn)):
        assert "--sampler" not in with_cells(treated, settings=settings).reason


def test_those_with_fewest_treated_cells_are_named():
    reason = with_cells([300, 12, 900, 3, 19, 8, 17, 11, 40, 20]).reason
    assert reason == (
        "6 of 10 perturbations (60.0%) have fewer than 20 treated cells, so that only large "
        "effects of these can be seen, and that none was found says little: GENE3 (3), GENE5 (8), "
        "GENE7 (11), GENE1 (12), GENE6 (17) and 1 more. The median is 18 treated cells (3 to 900)."
    )
    assert with_cells([1234, 20, 40]).reason == (
        "All 3 perturbations have at least 20 treated cells. The median is 40 treated cells (20 to "
        "1,234)."
    )
    assert "1 of 30 perturbations (3.3%) has fewer" in with_cells([5] + [50] * 29).reason
    assert "effects of it can be seen" in with_cells([5] + [50] * 29).reason


def test_treated_cells_are_those_of_perturbations_that_were_tested():
    controls = with_cells([5, 50, 900], controls=["GENE0"])
    assert controls.reason.endswith("The median is 475 treated cells (50 to 900).")
    left = with_cells([0, 50, 900], status=np.array(["degenerate", "ok", "ok"]))
    assert (left.state, "All 2 perturbations" in left.reason) == ("good", True)
    alone = with_cells([50, 900], controls=["GENE1"])
    assert alone.reason == "The one perturbation that was tested has 50 treated cells."
    alone = with_cells([1, 900], controls=["GENE1"])
    assert alone.state == "bad" and alone.reason.endswith("was tested has 1 treated cell.")


def test_how_many_groups_of_controls_are_needed():
    few = calibration(made(uniform(30, 4)), made(uniform(4, 4), prefix="ntc_"))
    assert few.reason == (
        "There are 4 groups of negative-control guides, too few to see whether p-values are "
        "uniform: at least 5 are needed."
    )
    assert few.state == "unknown"
    enough = calibration(made(uniform(30, 4)), made(uniform(5, 4), prefix="ntc_"))
    assert enough.title != "Calibration not checked"
    alone = calibration(made(uniform(30, 4), controls=["GENE1"]), None).reason
    assert "uniform: at least 5 are needed. plait crt run makes groups" in alone


def test_advice_to_stratify_says_its_limits():
    def advice(**settings):
        small = made(uniform(30, 4) ** 3, prefix="ntc_")
        controls = replace(small, settings={**small.settings, **settings})
        verdict = calibration(made(uniform(30, 4)), controls)
        assert verdict.state == "bad"
        return verdict.reason

    drawn = advice(sampler="bernoulli")
    assert drawn.endswith(
        "or test with --sampler stratified (docs/crt.md says when). It learns only from strata "
        "(cells of one batch and of like propensity) that have both treated and untreated cells, "
        "and 20 bins of the propensity are too few where treatment goes strongly with covariates."
    )
    permuted = advice(sampler="stratified", ranks=None)
    assert "--sampler stratified" not in permuted and "or make more strata, as 20 bins" in permuted
    assert "make more strata" in advice(sampler="stratified", ranks={"use": "residual"})
    assert "ranks={'use': 'residual'}" in advice(sampler="stratified", ranks={"use": "clr"})
