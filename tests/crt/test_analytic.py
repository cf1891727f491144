"""Analytic p-values under Bernoulli resampling: against draws, importance sampling, themselves."""

import pickle

import numpy as np
import pytest
from scipy import sparse, stats

from plait.crt.analytic import analytic_p_values, analytic_table, rank_analytic_table
from plait.crt.analytic_laws import BernoulliLaw
from plait.crt.importance import importance_p_value
from plait.crt.null_statistics import (
    null_effects,
    null_rank_biserial,
    rank_biserial_of_index_lists,
    rank_table,
)
from plait.crt.ranks import rank_columns
from plait.crt.resampling import BernoulliResampler
from plait.crt.seeds import UnitStream
from plait.crt.staged import staged_p_values
from plait.crt.statistic import ols_statistics
from plait.errors import InputError, OptionError, ShapeError
from tests.crt.cases import random_screen, reference_screen
from tests.reference_files import load

NAMES = ["one", "two", "three", "four", "five", "six"]


@pytest.fixture(scope="module")
def screen():
    """A screen of 3,000 cells with skewed outcomes, and its table."""
    made = random_screen(n_cells=3000, n_outcomes=4, n_covariates=3, mean=0.03, seed=4)
    random = np.random.default_rng(5)
    outcome = np.log(random.gamma(0.7, size=(3000, 4)))
    made.residuals = outcome - made.basis @ (made.basis.T @ outcome)
    made.table = analytic_table(made.residuals, made.basis)
    return made


def null_deviation(screen, probabilities):
    """Standard deviation of effects under the null, to first order in D."""
    p = probabilities[:, None]
    return np.sqrt((p * (1 - p) * screen.residuals**2).sum(axis=0)) / probabilities.sum()


def tolerance(p, draws):
    """What section 19 of the specification allows of ln(p / p0)."""
    return np.where(p > 1e-3, 0.10, 0.25) + 5.0 / np.sqrt(np.maximum(p * draws, 1e-9))


def test_against_the_peers_screen_and_its_millions_of_draws():
    oracle, screen = load("crt/synth_a", "oracle.npz"), reference_screen("synth_a")
    table = analytic_table(screen.residuals, screen.basis)
    names = [str(gene) for gene in oracle["genes"]]
    draws = oracle["B"][:, None].astype(float)
    sure = []
    for place in range(oracle["thresholds"].shape[2]):
        beta = oracle["thresholds"][:, :, place]
        given = (beta, oracle["propensity_optimum"], names)
        right = oracle["count_right"]
        for side, counts in (("both", right + oracle["count_left"]), ("right", right)):
            p = analytic_p_values(table, *given, side=side).p_value
            hits = counts[:, :, place].astype(float)
            p0 = hits / draws
            known = hits >= 20
            error = np.abs(np.log(p[known] / p0[known]))
            assert (error <= tolerance(p0, draws)[known]).all()
            if side == "both":
                sure.append(error[hits[known] >= 1000])
    assert np.median(np.concatenate(sure)) <= 0.02


def test_deep_tails_of_the_peers_screen():
    oracle, screen = load("crt/synth_a", "oracle.npz"), reference_screen("synth_a")
    table = analytic_table(screen.residuals, screen.basis)
    names = [str(gene) for gene in oracle["genes"]]
    given = oracle["propensity_optimum"]
    for factor in (1.5, 3.0):
        beta = factor * oracle["thresholds"][:, :, 3]
        found = analytic_p_values(table, beta, given, names)
        for j, k in ((0, 0), (6, 3), (14, 7)):
            truth = importance_p_value(
                screen.residuals[:, k],
                screen.basis,
                given[:, j],
                float(beta[j, k]),
                stream=UnitStream(1, names[j]),
                draws=2048,
            )
            assert truth.log10_p < -4.5 and truth.relative_error < 0.1
            assert abs(found.log10_p[j, k] - truth.log10_p) < np.log10(1.3)


def test_against_draws(screen):
    draws = 200_000
    for side in ("both", "right", "left"):
        null = null_effects(
            screen.table.cells,
            BernoulliResampler(screen.probabilities, UnitStream(1, side)),
            draws,
        ).values
        for deviations in (-2.0, -0.5, 0.3, 1.0, 2.0, 3.0):
            beta = deviations * null_deviation(screen, screen.probabilities)
            found = analytic_p_values(
                screen.table, beta[None], screen.probabilities[:, None], ["unit"], side=side
            )
            extreme = {
                "both": np.abs(null) >= np.abs(beta), "right": null >= beta, "left": null <= beta
            }[side]  # fmt: skip
            p0 = extreme.mean(axis=0)
            known = p0 * draws >= 50
            error = np.abs(np.log(found.p_value[0] / p0))[known]
            assert (error <= 0.05 + 5 / np.sqrt(p0 * draws)[known]).all()
    # The moments of the same draws.
    assert found.null_mean[0] == pytest.approx(null.mean(axis=0), abs=0.02 * null.std(axis=0).min())
    assert found.null_sd[0] == pytest.approx(null.std(axis=0), rel=0.05)


@pytest.mark.parametrize("deviations", [3.0, 5.0, 8.0, 12.0])
def test_deep_tails_against_importance_sampling(screen, deviations):
    beta = deviations * null_deviation(screen, screen.probabilities)
    for side in ("both", "right", "left"):
        observed = -beta if side == "left" else beta
        found = analytic_p_values(
            screen.table, observed[None], screen.probabilities[:, None], ["unit"], side=side
        )
        for k in range(2):
            truth = importance_p_value(
                screen.residuals[:, k],
                screen.basis,
                screen.probabilities,
                float(observed[k]),
                stream=UnitStream(2, "unit"),
                side=side,
                draws=4096,
            )
            assert found.method[0, k] == "saddlepoint"
            assert truth.relative_error < 0.1
            assert abs(found.log10_p[0, k] - truth.log10_p) < np.log10(1.3)


def test_importance_sampling_against_draws(screen):
    draws, k = 200_000, 1
    null = null_effects(
        screen.table.cells, BernoulliResampler(screen.probabilities, UnitStream(3, "u")), draws
    ).values[:, k]
    beta = float(2.5 * null_deviation(screen, screen.probabilities)[k])
    for side, extreme in (
        ("both", np.abs(null) >= beta), ("right", null >= beta), ("left", null <= beta),
    ):  # fmt: skip
        p0 = extreme.mean()
        estimate = importance_p_value(
            screen.residuals[:, k],
            screen.basis,
            screen.probabilities,
            beta,
            stream=UnitStream(4, "u"),
            side=side,
        )
        error = np.hypot(estimate.relative_error, np.sqrt((1 - p0) / (p0 * draws)))
        assert abs(10**estimate.log10_p / p0 - 1) < 5 * error


def test_the_pass_in_single_precision_is_accurate(screen):
    """Cumulants within the error that the documentation claims."""
    table, p = screen.table, screen.probabilities
    thresholds = np.array([[0.0, 0.2, 1.0, -0.3]])
    moments = BernoulliLaw(table.columns, p[None]).moments(thresholds)
    projected = np.eye(len(p)) - screen.basis @ screen.basis.T
    diagonal = np.diag(projected)
    mean_d = p @ diagonal + p @ projected @ p - p**2 @ diagonal
    g = diagonal + 2 * (projected @ p - p * diagonal)
    assert moments.denominator[0] == pytest.approx(mean_d, rel=1e-12)
    assert moments.constant[0] == pytest.approx(mean_d - g @ p, rel=1e-9)
    assert moments.mean_g[0] == pytest.approx(g @ p, rel=1e-12)
    r = screen.residuals * table.per_effect
    v = p * (1 - p)
    deviation = np.sqrt(v @ r**2)
    assert moments.mean[0] == pytest.approx(p @ r, abs=1e-6 * deviation.min())
    assert moments.variance[0] == pytest.approx(deviation**2, rel=1e-6)
    for slot, sign in enumerate((1.0, -1.0)):
        w = sign * r - thresholds * g[:, None]
        scale = np.sqrt(v @ w**2)
        exact = [v @ w**2, (v * (1 - 2 * p)) @ w**3, (v * (1 - 6 * v)) @ w**4, v**2 @ w**4]
        for power, (number, value) in enumerate(zip((2, 3, 4, 4), exact, strict=True)):
            given = moments.cumulants[0, :, slot, power]
            assert given == pytest.approx(value, rel=1e-5, abs=1e-6 * (scale**number).min())


def case_of_six(screen):
    random = np.random.default_rng(6)
    p = np.clip(screen.probabilities[:, None] * random.uniform(0.3, 2.0, 6), 1e-6, 0.9)
    treated = sparse.csc_array((random.random(p.shape) < p).astype(float))
    beta = ols_statistics(screen.residuals, screen.basis, treated).beta
    beta[2] *= 3.0
    return beta, p


def test_units_do_not_depend_on_each_other_or_on_threads(screen):
    beta, p = case_of_six(screen)
    whole = analytic_p_values(screen.table, beta, p, NAMES, threads=1)
    for threads in (2, 4):
        again = analytic_p_values(screen.table, beta, p, NAMES, threads=threads)
        assert np.array_equal(again.log10_p, whole.log10_p)
    order = [5, 3, 2]
    some = analytic_p_values(
        screen.table, beta[order], p[:, order], [NAMES[j] for j in order], threads=2
    )
    for name in ("p_value", "log10_p", "method", "flag", "null_mean", "null_sd", "resamples"):
        assert np.array_equal(getattr(some, name), getattr(whole, name)[order])
    none = analytic_p_values(screen.table, beta[:0], p[:, :0], [])
    assert none.p_value.shape == (0, 4)


def test_scales_signs_and_sides(screen):
    beta, p = case_of_six(screen)
    base = analytic_p_values(screen.table, beta, p, NAMES, bulk_above=0.5)
    scaled = analytic_table(-8.0 * screen.residuals, screen.basis)
    turned = analytic_p_values(scaled, -8.0 * beta, p, NAMES, bulk_above=0.5)
    assert turned.log10_p == pytest.approx(base.log10_p, rel=1e-9, abs=1e-12)
    assert turned.null_mean == pytest.approx(-8.0 * base.null_mean, rel=1e-6)
    order, programs = np.random.default_rng(11).permutation(3000), [2, 0, 3, 1]
    shuffled = analytic_table(screen.residuals[order][:, programs], screen.basis[order])
    moved = analytic_p_values(shuffled, beta[:, programs], p[order], NAMES, bulk_above=0.5)
    assert np.array_equal(moved.method, base.method[:, programs])
    assert moved.log10_p == pytest.approx(base.log10_p[:, programs], rel=1e-5, abs=1e-6)
    again = analytic_p_values(
        pickle.loads(pickle.dumps(shuffled)), beta[:, programs], p[order], NAMES
    )
    assert again.p_value == pytest.approx(moved.p_value, rel=0.01)
    right = analytic_p_values(screen.table, beta, p, NAMES, side="right")
    left = analytic_p_values(scaled, -8.0 * beta, p, NAMES, side="left")
    assert left.log10_p == pytest.approx(right.log10_p, rel=1e-9, abs=1e-12)
    other = analytic_p_values(screen.table, -beta, p, NAMES, side="left")
    positive = beta > 0
    assert positive.sum() > 5
    both = right.p_value + other.p_value
    assert both[positive] == pytest.approx(base.p_value[positive], rel=0.02)


def test_p_values_below_the_smallest_double():
    random = np.random.default_rng(7)
    basis = np.full((40_000, 1), 1 / 200.0)
    values = random.standard_normal((40_000, 1))
    values -= values.mean()
    table = analytic_table(values, basis)
    p = np.full((40_000, 1), 0.1)
    found = analytic_p_values(table, np.array([[0.8]]), p, ["unit"])
    assert found.p_value[0, 0] == 0.0
    truth = importance_p_value(
        values[:, 0], basis, p[:, 0], 0.8, stream=UnitStream(1, "u"), draws=2048
    )
    assert found.log10_p[0, 0] == pytest.approx(truth.log10_p, abs=np.log10(1.3))
    assert truth.log10_p < -400


def test_bulk_and_saddlepoint_agree_where_they_meet(screen):
    p = np.clip(4 * screen.probabilities, 0, 0.9)
    beta = np.linspace(0.1, 2.6, 30)[:, None] * null_deviation(screen, p)
    names = [str(j) for j in range(30)]
    many = np.repeat(p[:, None], 30, axis=1)
    bulk = analytic_p_values(screen.table, beta, many, names, bulk_above=0.005)
    tail = analytic_p_values(screen.table, beta, many, names, bulk_above=0.999)
    both = (bulk.method == "bulk") & (tail.method == "saddlepoint")
    assert both.sum() > 50
    assert np.abs(np.log(bulk.p_value / tail.p_value))[both].max() < 0.01
    assert (np.diff(tail.log10_p, axis=0) < 0).all()


def test_few_treated_cells_are_drawn(screen):
    p = np.clip(0.1 * screen.probabilities, 1e-6, 1)
    assert p.sum() < 20
    beta = 1.5 * null_deviation(screen, p)
    found = analytic_p_values(
        screen.table, beta[None], p[:, None], ["rare"], seed=5, max_resamples=20_000
    )
    assert (found.method == "monte carlo").all() and (found.flag == "few_treated").all()
    null = null_effects(
        screen.table.cells, BernoulliResampler(p, UnitStream(5, "rare")), 20_480
    ).values
    again = staged_p_values(
        beta, lambda block: null[512 * block : 512 * block + 512], max_resamples=20_000
    )
    assert found.p_value[0] == pytest.approx(again.p_value, rel=1e-12)
    assert np.array_equal(found.resamples[0], again.resamples)
    # A treatment that the covariates nearly determine: D is small, not the number of cells.
    aliased = np.full((3000, 1), 1e-6)
    aliased[:60] = 1 - 1e-6
    column = np.zeros((3000, 1))
    column[:60] = 1
    basis = np.linalg.qr(np.hstack([screen.design, column]))[0]
    residuals = screen.residuals - basis @ (basis.T @ screen.residuals)
    found = analytic_p_values(
        analytic_table(residuals, basis), beta[None], aliased, ["aliased"], max_resamples=1000
    )
    assert (found.flag == "few_treated").all()


def test_tails_that_are_not_to_be_trusted_are_drawn():
    n = 2000
    basis = np.full((n, 1), 1 / np.sqrt(n))
    random = np.random.default_rng(8)
    even = random.choice([-1.0, 1.0], n)
    one = even.copy()
    one[0] = 400.0
    few = 1e-3 * even
    few[1:11] = np.tile([3.0, -3.0], 5)
    values = np.stack([one, few, even], axis=1)
    values -= values.mean(axis=0)
    p = np.full(n, 0.05)
    p[1:11] = 0.2113  # where the fourth cumulant is 0: all seems normal
    p[0] = 0.01
    largest = np.abs(values).max(axis=0)
    found = analytic_p_values(
        analytic_table(values, basis),
        np.array([[0.5, 0.01, 0.3], [5.0, 0.02, 1.2 * largest[2]]]),
        np.stack([p, p], axis=1),
        ["a", "b"],
        max_resamples=2000,
    )
    assert found.flag[0].tolist() == ["skewed", "few_cells", "ok"]
    assert found.flag[1, 2] == "beyond_support"
    drawn = found.flag != "ok"
    assert (found.method[drawn] == "monte carlo").all()
    assert found.p_value[1, 2] == pytest.approx(1 / 2001)
    assert (found.p_value[drawn] > 0).all()


def test_units_without_a_test_have_p_1(screen):
    beta, p = case_of_six(screen)
    beta[1], beta[3, 2] = 0.0, 0.0
    found = analytic_p_values(screen.table, beta, p, NAMES)
    none = beta == 0.0
    assert (found.method[none] == "none").all() and (found.p_value[none] == 1.0).all()
    assert (found.method[~none] != "none").all()


def test_rank_biserial_against_draws():
    random = np.random.default_rng(9)
    n, draws = 2000, 100_000
    ranks = rank_columns(np.round(random.gamma(1.0, size=(n, 2)), 1))
    cells = rank_table(ranks)
    table = rank_analytic_table(ranks, cells)
    p = np.clip(0.04 * np.exp(random.normal(0, 0.5, n)), 1e-6, 0.5)
    null = null_rank_biserial(cells, BernoulliResampler(p, UnitStream(1, "u")), draws).values
    deviation = null.std(axis=0)
    for z in (0.5, 1.5, 3.0):
        found = analytic_p_values(table, z * deviation[None], p[:, None], ["u"])
        p0 = (np.abs(null) >= z * deviation).mean(axis=0)
        assert (np.abs(np.log(found.p_value[0] / p0)) <= 0.02 + 5 / np.sqrt(p0 * draws)).all()
    # Few treated cells: drawn, and observed draws count as ties exactly.
    rare = np.clip(0.1 * p, 1e-6, 1)
    treated = np.flatnonzero(random.random(n) < rare).astype(np.int32)
    starts = np.array([0, len(treated)])
    r = rank_biserial_of_index_lists(cells, starts, treated).values
    found = analytic_p_values(table, r, rare[:, None], ["u"], seed=3, max_resamples=2000)
    sample = null_rank_biserial(cells, BernoulliResampler(rare, UnitStream(3, "u")), 2000).values
    assert (found.method == "monte carlo").all()
    again = staged_p_values(r[0], lambda b: sample[512 * b : 512 * b + 512], max_resamples=2000)
    assert found.p_value[0] == pytest.approx(again.p_value, rel=1e-12)


def test_p_values_are_uniform_under_the_null(screen):
    """Treatments drawn from the propensities: rates of one program per draw, and all by draws."""
    random = np.random.default_rng(10)
    draws, p = 6000, screen.probabilities
    treated = (random.random((draws, len(p))) < p).astype(float)
    projection = treated @ screen.basis
    beta = (treated @ screen.residuals) / (treated.sum(1) - (projection**2).sum(1))[:, None]
    found = analytic_p_values(
        screen.table, beta, np.repeat(p[:, None], draws, axis=1), [str(d) for d in range(draws)]
    ).p_value
    for k in range(4):
        assert stats.kstest(found[:, k], "uniform").pvalue > 1e-6
    for level in (0.5, 0.05, 0.01):
        counts = (found <= level).sum(axis=1)
        error = counts.std() / np.sqrt(draws) / 4
        assert abs(counts.mean() / 4 - level) < 4.9 * error


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["bernoulli", "stratified"])
def test_screens_without_effects(sampler):
    """The road a user takes: simulated counts of guides, fitted propensities, every unit once."""
    pytest.importorskip("anndata")
    from plait.crt import perturbation_effects, prepare_crt_inputs
    from plait.simulate.screen import make_sceptre_style_synth

    data = make_sceptre_style_synth(
        N=15_000, K=6, n_target_genes=2000, n_cov_extra=3, confound_strength=0.3, seed=3,
        global_null=True,
    )  # fmt: skip
    inputs = prepare_crt_inputs(drop_constant(data), usage_key="usage")
    options = {"strata": {"stratify_by_batch": False}} if sampler == "stratified" else {}
    p = np.asarray(perturbation_effects(inputs, sampler=sampler, exclude=["NTC"], **options).p)
    assert len(p) >= 1990
    assert stats.kstest(p[:, 0], "uniform").pvalue > 1e-6
    for level in (0.05, 0.01, 0.001):
        counts = (p <= level).sum(axis=1)
        error = max(counts.std(), np.sqrt(6 * level)) / np.sqrt(len(p)) / 6
        assert abs(counts.mean() / 6 - level) < 4.9 * error


def drop_constant(data):
    """Covariates without the intercept, which the design has already."""
    data.obsm["covar"] = data.obsm["covar"][:, 1:]
    return data


def test_errors(screen):
    beta, p = case_of_six(screen)
    with pytest.raises(OptionError, match="side is 'two'"):
        analytic_p_values(screen.table, beta, p, NAMES, side="two")
    with pytest.raises(ShapeError, match="units x 4 programs"):
        analytic_p_values(screen.table, beta[:, :3], p, NAMES)
    with pytest.raises(ShapeError, match="3,000 cells x 6 units"):
        analytic_p_values(screen.table, beta, p[1:], NAMES)
    with pytest.raises(ShapeError, match="effects are of 6 units, names of 2"):
        analytic_p_values(screen.table, beta, p, NAMES[:2])
    with pytest.raises(InputError, match=r"effects of 1 unit are not finite \(first: unit 2\)"):
        analytic_p_values(
            screen.table, np.where(np.arange(6)[:, None] == 2, np.nan, beta), p, NAMES
        )
    with pytest.raises(InputError, match="not numbers between 0 and 1"):
        analytic_p_values(screen.table, beta, p - 0.5, NAMES)
    with pytest.raises(ShapeError, match="a row for each cell"):
        analytic_table(screen.residuals[1:], screen.basis, screen.table.cells)
    with pytest.raises(ShapeError, match="the table of cells"):
        analytic_table(screen.residuals[:, :2], screen.basis, screen.table.cells)
    one = (screen.residuals[:, 0], screen.basis, screen.probabilities)
    stream = UnitStream(1, "u")
    with pytest.raises(OptionError, match="side is"):
        importance_p_value(*one, 0.1, stream=stream, side="up")
    with pytest.raises(ShapeError, match="of the same cells"):
        importance_p_value(one[0][1:], *one[1:], 0.1, stream=stream)
    with pytest.raises(InputError, match="draw treatments instead"):
        importance_p_value(*one, 100.0, stream=stream)
    assert importance_p_value(*one, 0.0, stream=stream).log10_p == 0.0
