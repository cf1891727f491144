import tracemalloc

import numpy as np
import pytest

from plait.errors import (
    ConvergenceError,
    ConvergenceWarning,
    InputError,
    NotPositiveDefiniteError,
    OptionError,
    ShapeError,
)
from plait.execution.progress import listen
from plait.mash.data import mash_set_data, mash_update_data, subset_mash_data
from plait.mash.deconvolution_rows import (
    CommonErrors,
    MixedErrors,
    ProportionalErrors,
    RowErrors,
    rows_of,
)
from plait.mash.extreme_deconvolution import cov_ed, extreme_deconvolution
from tests.mash import deconvolution_oracle as oracle
from tests.mash.conftest import random_correlation
from tests.reference_files import load


def stack(Ulist):
    return np.stack(list(Ulist.values()))


def starts(random, count, width, rank=None):
    factors = random.normal(size=(count, width, rank or width + 1))
    return list(factors @ factors.transpose(0, 2, 1))


def relative(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


def simulate(random, J=60, R=3, kind="common"):
    """Data of one of the kinds that are summed up in different ways."""
    V = random_correlation(random, R)
    effects = 2 * random.normal(size=(J, R)) + random.normal(size=(J, R))
    errors = np.ones((J, R)) * random.uniform(0.7, 1.4, R)
    if kind == "proportional":
        errors = errors * random.uniform(0.6, 1.6, (J, 1))
    if kind in ("per row", "contrast", "missing"):
        errors = errors * random.uniform(0.7, 1.3, (J, R))
    if kind == "V per row":
        V = np.stack([random_correlation(random, R) for _ in range(J)])
    if kind in ("missing", "common and missing", "proportional and missing"):
        effects[random.random((J, R)) < (0.3 if kind == "missing" else 0.05)] = np.nan
        effects[3] = np.nan
        if kind == "proportional and missing":
            errors = errors * random.uniform(0.6, 1.6, (J, 1))
        errors = np.where(np.isnan(effects), np.nan, errors)
    data = mash_set_data(effects, errors, V=V)
    return mash_update_data(data, ref=0) if kind == "contrast" else data


KINDS = {
    "common": CommonErrors,
    "proportional": ProportionalErrors,
    "per row": RowErrors,
    "V per row": RowErrors,
    "contrast": RowErrors,
    "missing": RowErrors,
    "common and missing": MixedErrors,
    "proportional and missing": MixedErrors,
}


# Against R ---------------------------------------------------------------------------------------


def reference_data(run):
    files = load("mash", "j_ed_path.npz")
    if run.startswith("diag"):
        return files, mash_set_data(files["Y_diag"], files["S"])
    if run == "full":
        return files, mash_set_data(files["Y_full"], files["S"], V=files["V"])
    return files, mash_set_data(files["Y_full"] / files["S"], V=files["V"])


@pytest.mark.parametrize("run", ["diag", "full", "common", "diag_w2"])
def test_path_and_parameters_equal_those_of_R(run):
    files, data = reference_data(run)
    w = 2.0 if run == "diag_w2" else 0.0
    for steps, tolerance in ((1, 1e-12), (5, 1e-11), (30, 1e-9)):
        fit = cov_ed(data, files["init_stack"], tol=0, maxiter=steps, w=w, ridge=0, details=True)
        assert relative(fit["pi"], files[f"{run}_xamp_after{steps}"]) < tolerance
        assert relative(stack(fit["Ulist"]), files[f"{run}_xcovar_after{steps}"]) < tolerance
    np.testing.assert_allclose(fit["objective"], files[f"{run}_avgloglik_path"], rtol=0, atol=1e-10)
    assert fit["niter"] == 30 and not fit["converged"]


@pytest.mark.parametrize("run", ["diag", "full", "common", "diag_w2"])
def test_converged_fit_equals_that_of_R(run):
    files, data = reference_data(run)
    w = 2.0 if run == "diag_w2" else 0.0
    fit = cov_ed(data, files["init_stack"], w=w, ridge=0, details=True)
    assert fit["converged"]
    assert abs(fit["av_loglik"] - files[f"{run}_final_avgloglik"]) < 1e-6
    assert relative(fit["pi"], files[f"{run}_final_xamp"]) < 1e-5
    assert relative(stack(fit["Ulist"]), files[f"{run}_final_xcovar"]) < 1e-5


def test_free_means_equal_those_of_R():
    files = load("mash", "j_ed_path.npz")
    fit = extreme_deconvolution(
        files["Y_diag"], files["S"] ** 2, np.full(4, 0.25), files["freemean_init_xmean"],
        files["init_stack"], tol=0, maxiter=10,
    )  # fmt: skip
    assert abs(fit.avgloglikedata - files["freemean_avgloglik10"]) < 1e-10
    assert relative(fit.xamp, files["freemean_xamp_after10"]) < 1e-10
    assert relative(fit.xmean, files["freemean_xmean_after10"]) < 1e-10
    assert relative(fit.xcovar, files["freemean_xcovar_after10"]) < 1e-10


def test_data_driven_matrices_equal_those_of_R():
    files = load("mash", "b_datadriven.npz")
    data = mash_set_data(files["Bhat"], files["Shat"], V=files["V"])
    start = dict(zip(files["pca_names"], files["pca_stack"], strict=True))
    fit = cov_ed(data, start, subset=files["strong_0based"], details=True)
    assert list(fit["Ulist"]) == list(files["ed_names"])
    assert abs(fit["av_loglik"] - files["ed_avloglik"]) < 1e-8
    assert relative(fit["pi"], files["ed_pi"]) < 1e-5
    assert relative(stack(fit["Ulist"]), files["ed_stack"]) < 1e-5


def test_published_example_with_projections():
    """The example in the documentation of extreme-deconvolution: its data, its tolerances."""
    y = 1 + np.random.RandomState(1).randn(200)
    projection = np.array([[[i % 2, (i + 1) % 2]] for i in range(1, 201)])
    fit = extreme_deconvolution(
        y, np.full((200, 1), 0.01), [0.5, 0.5],
        [[0.86447943, 0.322681], [0.67078879, 0.45087394]],
        [[[0.03821028, 0.04108113], [0.04108113, 0.03173839]],
         [[0.06219194, 0.04302473], [0.04302473, 0.06778009]]],
        projection=projection,
    )  # fmt: skip
    assert abs(fit.avgloglikedata + 1.3114744655258121) < 1e-4
    expected = [[2.30368235, 1.70701517], [1.08009397, 0.8888667]]
    np.testing.assert_allclose(fit.xmean, expected, atol=1e-5)
    np.testing.assert_allclose(fit.xamp, [0.11968415, 0.880315852981], atol=1e-5)
    assert abs(fit.xcovar[0, 0, 0] - 0.445645987259) < 1e-5


# Against a plain transcription -------------------------------------------------------------------


@pytest.mark.parametrize("w", [0.0, 2.0])
@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_of_errors_agrees_with_brute_force(random, kind, w):
    data = simulate(random, kind=kind)
    assert type(rows_of(data)) is KINDS[kind]
    R = data.n_conditions
    U = np.stack([*starts(random, 2, R), *starts(random, 1, R, rank=1)])
    path, weights, _, covs = oracle.iterate(
        data.Bhat, data.error_covariances(slice(None)), np.full(3, 1 / 3), np.zeros((3, R)), U, 4,
        w=w, observed=data.observed(slice(None)), fixmean=True,
    )  # fmt: skip
    fit = cov_ed(data, U, tol=0, maxiter=4, w=w, ridge=0, details=True)
    np.testing.assert_allclose(fit["objective"], path, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(fit["pi"], weights, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(stack(fit["Ulist"]), covs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", ["common", "per row", "missing"])
def test_large_se_is_what_R_makes_of_missing_cells(random, kind):
    """With uncorrelated errors, filled and marginalised cells lead to the same matrices."""
    effects = 2 * random.normal(size=(50, 3))
    effects[random.random(effects.shape) < 0.2] = np.nan
    errors = np.where(np.isnan(effects), np.nan, random.uniform(0.8, 1.2, effects.shape))
    U = starts(random, 2, 3)
    filled, exact = (
        stack(cov_ed(mash_set_data(effects, errors, missing=m), U, tol=0, maxiter=5, ridge=0))
        for m in ("large_se", "exact")
    )
    np.testing.assert_allclose(filled, exact, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fixamp": [True, False, False]},
        {"fixmean": [False, True, False], "fixcovar": [False, False, True]},
        {"fixmean": True},
        {"fixamp": True, "fixcovar": True},
        {"w": 1.5},
        {"weight": "given"},
        {"weight": "given", "logweight": True, "fixamp": [False, False, True]},
    ],
)
@pytest.mark.parametrize("shape", ["common", "diagonal", "full", "projected"])
def test_low_level_options_agree_with_brute_force(random, shape, options):
    J, R, K = 40, 3, 3
    y = random.normal(size=(J, R)) * 2
    projection, errors = None, random.uniform(0.5, 1.5, (J, R))
    if shape == "common":
        errors = np.broadcast_to(errors[0], (J, R))
    if shape in ("full", "projected"):
        errors = np.stack(starts(random, J, R))
    if shape == "projected":
        projection = random.normal(size=(J, 2, R))
        y, errors = y[:, :2], errors[:, :2, :2]
    sigma = errors if errors.ndim == 3 else errors[:, :, None] * np.eye(R)
    weights, means = np.array([0.2, 0.3, 0.5]), random.normal(size=(K, R))
    U = np.stack(starts(random, K, R))
    plain = {key: value for key, value in options.items() if key not in ("weight", "logweight")}
    options = dict(options)
    if "weight" in options:
        plain["row_weights"] = random.uniform(0.2, 2.0, J)
        logweight = options.get("logweight", False)
        options["weight"] = np.log(plain["row_weights"]) if logweight else plain["row_weights"]
    path, *expected = oracle.iterate(y, sigma, weights, means, U, 3, projection=projection, **plain)
    fit = extreme_deconvolution(
        y, errors, weights, means, U, projection=projection, tol=0, maxiter=3, **options
    )
    np.testing.assert_allclose(fit.objective, path, rtol=1e-11)
    for found, wanted in zip((fit.xamp, fit.xmean, fit.xcovar), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-10)
    alone = extreme_deconvolution(
        y, errors, weights, means, U, projection=projection, likeonly=True,
        weight=options.get("weight"), logweight=options.get("logweight", False),
    )  # fmt: skip
    assert alone == pytest.approx(path[0], rel=1e-12)


def test_errors_as_a_list_or_with_the_rows_last(random):
    y, errors = random.normal(size=(7, 2)), np.stack(starts(random, 7, 2))
    arguments = ([1.0], np.zeros((1, 2)), [np.eye(2)])
    first, second, third = (
        extreme_deconvolution(y, given, *arguments, tol=0, maxiter=2).xcovar
        for given in (errors, list(errors), errors.transpose(1, 2, 0))
    )
    assert np.array_equal(first, second) and np.array_equal(first, third)


# Properties --------------------------------------------------------------------------------------


@pytest.mark.parametrize("accelerate", [False, True])
@pytest.mark.parametrize("kind", ["common", "proportional", "missing"])
def test_log_likelihood_never_falls(random, kind, accelerate):
    data = simulate(random, J=150, R=4, kind=kind)
    fit = cov_ed(data, starts(random, 3, 4), ridge=0, accelerate=accelerate, details=True)
    assert np.diff(fit["objective"]).min() > -1e-12
    assert fit["converged"]


def test_penalised_log_likelihood_never_falls(random):
    """With w the covariances have the prior ``exp(-(log det U + w tr U^-1) / 2)``."""
    data, U, totals = simulate(random, J=80), starts(random, 2, 3), []
    for steps in range(1, 12):
        fit = cov_ed(data, U, tol=0, maxiter=steps, w=3.0, ridge=0, details=True)
        found = stack(fit["Ulist"])
        traces = np.trace(np.linalg.inv(found), axis1=1, axis2=2)
        penalty = np.sum(np.linalg.slogdet(found)[1] + 3.0 * traces)
        totals.append(80 * average_log_likelihood(data, found, fit["pi"]) - 0.5 * penalty)
    assert np.diff(totals).min() > -1e-10


def average_log_likelihood(data, covs, weights):
    return extreme_deconvolution(
        data.Bhat, data.error_covariances(slice(None)), weights,
        np.zeros((len(covs), data.n_conditions)), covs, likeonly=True,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_acceleration_reaches_at_least_the_plain_objective(seed):
    random = np.random.default_rng(seed)
    factors = 2 * random.normal(size=(3, 4, 2))
    effects = np.einsum("jrs,js->jr", factors[random.integers(3, size=300)],
                        random.normal(size=(300, 2)))  # fmt: skip
    data = mash_set_data(effects + random.normal(size=effects.shape))
    U, w = starts(random, 3, 4, rank=2 if seed % 2 else None), 2.0 if seed == 5 else 0.0
    plain = cov_ed(data, U, w=w, ridge=0, details=True)
    fast = cov_ed(data, U, w=w, ridge=0, accelerate=True, details=True)
    assert fast["av_loglik"] >= plain["av_loglik"] - 1e-9
    assert fast["niter"] < plain["niter"]
    if seed % 2 and w == 0:
        ranks = np.linalg.eigvalsh(stack(fast["Ulist"]))
        assert np.abs(ranks[:, :2]).max() < 1e-7 * ranks.max()


def test_acceleration_with_means_and_fixed_parts(random):
    y = np.concatenate([random.normal(3, 1.5, (100, 2)), random.normal(-2, 1.2, (150, 2))])
    arguments = (y, np.full(y.shape, 0.5), [0.5, 0.3, 0.2], random.normal(size=(3, 2)))
    U = [np.eye(2), 2 * np.eye(2), 3 * np.eye(2)]
    options = {"fixamp": [False, False, True], "fixcovar": [True, False, False]}
    plain = extreme_deconvolution(*arguments, U, **options)
    fast = extreme_deconvolution(*arguments, U, accelerate=True, **options)
    assert fast.avgloglikedata >= plain.avgloglikedata - 1e-9
    assert fast.xamp[2] == 0.2 and fast.xamp.sum() == pytest.approx(1.0)
    np.testing.assert_array_equal(fast.xcovar[0], np.eye(2))


@pytest.mark.parametrize("kind", ["common", "missing"])
def test_planted_matrices_are_recovered(random, kind):
    u = np.array([3.0, 3.0, -2.0])
    planted = [np.outer(u, u), np.diag([0.0, 0.0, 9.0])]
    J = 3000
    which = random.integers(2, size=J)
    effects = np.where(which[:, None] == 0, u, [0.0, 0.0, 3.0]) * random.normal(size=(J, 1))
    V = random_correlation(random, 3)
    noisy = effects + random.multivariate_normal(np.zeros(3), V, size=J)
    errors = np.ones((J, 3))
    if kind == "missing":
        gone = random.random((J, 3)) < 0.15
        noisy[gone] = np.nan
        errors[gone] = np.nan
    data = mash_set_data(noisy, errors, V=V)
    start = [np.outer(u, u) + np.eye(3), np.diag([1.0, 1.0, 4.0])]
    fit = cov_ed(data, start, ridge=0, accelerate=True, details=True)
    for found, truth in zip(fit["Ulist"].values(), planted, strict=True):
        assert np.abs(found - truth).max() < 1.0
    np.testing.assert_allclose(fit["pi"], 0.5, atol=0.05)


def test_one_component_tends_to_the_closed_form(random):
    """At K = 1 with common errors the maximum truncates the whitened second moment (TED)."""
    V = random_correlation(random, 4)
    factor = random.normal(size=(4, 2))
    effects = random.normal(size=(400, 2)) @ factor.T + random.multivariate_normal(
        np.zeros(4), V, size=400
    )
    data = mash_set_data(effects, V=V)
    found = cov_ed(data, [np.eye(4)], ridge=0, tol=0, maxiter=1000, accelerate=True)["ED_1"]
    chol = np.linalg.cholesky(V)
    white = np.linalg.solve(chol, effects.T)
    values, vectors = np.linalg.eigh(white @ white.T / 400)
    closed = chol @ (vectors * np.maximum(values - 1, 0)) @ vectors.T @ chol.T
    np.testing.assert_allclose(found, closed, atol=3e-3)


@pytest.mark.parametrize("kind", ["common", "proportional", "per row", "common and missing"])
def test_threads_do_not_change_bits_and_row_order_only_rounding(random, kind):
    data = simulate(random, J=2600, R=3, kind=kind)
    U = starts(random, 3, 3)
    one, two = (stack(cov_ed(data, U, tol=0, maxiter=3, threads=threads)) for threads in (1, 3))
    assert np.array_equal(one, two)
    shuffled = subset_mash_data(data, random.permutation(2600))
    np.testing.assert_allclose(stack(cov_ed(shuffled, U, tol=0, maxiter=3)), one, rtol=1e-10)


def test_condition_order_only_permutes_the_result(random):
    data, order = simulate(random, kind="per row"), np.array([2, 0, 1])
    U = starts(random, 2, 3)
    turned = mash_set_data(data.Bhat[:, order], data.Shat[:, order], V=data.V[np.ix_(order, order)])
    expected = stack(cov_ed(data, U, tol=0, maxiter=5))[:, order][:, :, order]
    found = stack(cov_ed(turned, [u[np.ix_(order, order)] for u in U], tol=0, maxiter=5))
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_rows_missing_everywhere_keep_the_prior(random):
    """A row without data adds its share to the weights and nothing to the matrices' direction."""
    data = simulate(random, J=30)
    padded = mash_set_data(
        np.concatenate([data.Bhat, np.full((30, 3), np.nan)]),
        np.concatenate([data.Shat, np.full((30, 3), np.nan)]),
        V=data.V,
    )
    U = np.stack(starts(random, 1, 3))
    step = stack(cov_ed(data, U, tol=0, maxiter=1, ridge=0)) - U
    padded_step = stack(cov_ed(padded, U, tol=0, maxiter=1, ridge=0)) - U
    np.testing.assert_allclose(padded_step, step / 2, rtol=1e-10)
    empty = mash_set_data(np.full((4, 3), np.nan), np.full((4, 3), np.nan), V=data.V)
    fit = cov_ed(empty, U, ridge=0, details=True)
    np.testing.assert_array_equal(stack(fit["Ulist"]), U)
    assert fit["av_loglik"] == 0.0


def test_one_row_one_condition_one_component():
    data = mash_set_data([[3.0]], [[1.0]])
    found = cov_ed(data, {"a": [[1.0]]}, ridge=0, tol=1e-13)
    assert found["ED_a"][0, 0] == pytest.approx(8.0, rel=1e-4)


def test_subset_and_ridge(random):
    data, U = simulate(random, J=50), starts(random, 2, 3)
    rows = np.array([3, 5, 8, 20, 30, 31, 32, 44, 45])
    plain = stack(cov_ed(data, U, subset=rows, ridge=0))
    chosen = cov_ed(subset_mash_data(data, rows), U, ridge=0)
    assert np.array_equal(plain, stack(chosen))
    assert list(chosen) == ["ED_1", "ED_2"]
    mask = np.isin(np.arange(50), rows)
    np.testing.assert_array_equal(stack(cov_ed(data, U, subset=mask)), plain + np.eye(3) / 3)
    np.testing.assert_array_equal(stack(cov_ed(data, U, subset=mask, ridge=0.25)),
                                  plain + 0.25 * np.eye(3))  # fmt: skip


def test_a_component_without_responsibility_is_frozen(random):
    y = random.normal(size=(20, 2))
    fit = extreme_deconvolution(
        y, np.ones((20, 2)), [0.5, 0.5], [[0, 0], [1e5, 1e5]], [np.eye(2), np.eye(2)],
        tol=0, maxiter=3,
    )  # fmt: skip
    assert fit.xamp[1] == 0.0
    np.testing.assert_array_equal(fit.xcovar[1], np.eye(2))
    np.testing.assert_array_equal(fit.xmean[1], [1e5, 1e5])


@pytest.mark.parametrize("kind", ["common", "per row"])
def test_memory_is_that_of_a_grain(random, kind):
    J, R, K = 40_000, 4, 30
    data = simulate(random, J=J, R=R, kind=kind)
    U = starts(random, K, R)
    cov_ed(data, U, subset=np.arange(100), tol=0, maxiter=1)
    tracemalloc.start()
    cov_ed(data, U, tol=0, maxiter=1, threads=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.4 * 8 * J * R * K


# Stopping, listening, errors ---------------------------------------------------------------------


def test_stopping_rule_and_counts(random):
    data, U = simulate(random, J=100), starts(random, 2, 3)
    fit = cov_ed(data, U, tol=1e-4, details=True)
    gains = np.diff(fit["objective"])
    assert gains[-1] <= 1e-4 and (gains[:-1] > 1e-4).all()
    assert fit["niter"] == len(fit["objective"])
    loose = cov_ed(data, U, tol=100.0, details=True)
    assert loose["niter"] == 2 and loose["converged"]


@pytest.mark.parametrize("accelerate", [False, True])
def test_limits_warn(random, accelerate):
    data, U = simulate(random, J=100), starts(random, 2, 3)
    with pytest.warns(ConvergenceWarning, match="maxiter or max_seconds"):
        cov_ed(data, U, tol=1e-12, maxiter=4, accelerate=accelerate)
    with pytest.warns(ConvergenceWarning, match="stopped after"):
        cov_ed(data, U, tol=1e-15, max_seconds=1e-6, accelerate=accelerate)


def test_progress_callback_and_listener(random):
    class Listener:
        def __init__(self):
            self.labels, self.steps, self.open = [], 0, 0

        def begin(self, label, total):
            self.labels.append((label, total))
            self.open += 1
            return 1

        def advance(self, key, steps, note=""):
            self.steps += steps

        def end(self, key):
            self.open -= 1

    data, U, calls, listener = simulate(random), starts(random, 2, 3), [], Listener()
    with listen(listener):
        fit = cov_ed(
            data, U, tol=0, maxiter=7, details=True,
            progress=lambda iteration, value: calls.append((iteration, value)),
        )  # fmt: skip
    assert calls == [(i + 1, value) for i, value in enumerate(fit["objective"])]
    assert listener.labels == [("extreme deconvolution", 7)]
    assert listener.steps == 7 and listener.open == 0


@pytest.mark.parametrize("shape", ["common", "full", "projected"])
def test_a_singular_total_covariance_names_the_row(random, shape):
    y, errors = random.normal(size=(6, 2)), np.ones((6, 2))
    errors = errors[:, :, None] * np.eye(2)
    errors[0 if shape == "common" else 4] = 0.0
    if shape == "common":
        errors[:] = 0.0
    projection = np.broadcast_to(np.eye(2), (6, 2, 2)) if shape == "projected" else None
    with pytest.raises(
        NotPositiveDefiniteError, match="effect 0" if shape == "common" else "effect 4"
    ):
        extreme_deconvolution(
            y, errors, [1.0], np.zeros((1, 2)), [np.zeros((2, 2))], projection=projection
        )


def test_a_singular_row_of_a_subset_is_named_by_its_number_in_the_whole(random):
    width = 3
    V = np.stack([np.eye(width)] * 12)
    errors = random.uniform(0.5, 1.5, (12, width))
    V[9] = 0.5 + 0.5 * np.eye(width)
    data = mash_set_data(random.normal(size=(12, width)), errors, V=V)
    # Beyond what the door lets through: a correlation that became singular by rounding.
    broken = data.V.copy()
    broken[9] = 1.0 + 1e-3
    object.__setattr__(data, "V", broken)
    with pytest.raises(NotPositiveDefiniteError, match="effect 9 is not positive"):
        cov_ed(data, [np.zeros((width, width))], subset=[2, 7, 9])


def test_values_beyond_floating_point_name_the_row():
    data = mash_set_data([[1.0, 2.0, 3.0], [1e200, 0.0, 0.0]])
    with pytest.raises(ConvergenceError, match="effect 1 has no finite likelihood"):
        cov_ed(data, [np.eye(3)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithm": "em"}, "choose 'bovy' or 'teem'"),
        ({"w": -1.0}, "w is -1"),
        ({"ridge": "none"}, "ridge"),
        ({"ridge": np.inf}, "ridge"),
        ({"tol": np.nan}, "tol is NaN"),
        ({"tol": 0.0}, "give maxiter"),
        ({"maxiter": 0}, "maxiter"),
        ({"max_seconds": 0.0}, "max_seconds"),
        ({"whiten": True}, "has no option whiten"),
        ({"algorithm": "teem", "tolerance": 1.0}, "has no option tolerance"),
        ({"algorithm": "teem", "w": 1.0}, "belong to algorithm 'bovy'"),
    ],
)
def test_bad_options_of_cov_ed(random, options, message):
    with pytest.raises(OptionError, match=message):
        cov_ed(simulate(random), starts(random, 2, 3), **options)


def test_bad_matrices_and_subsets_of_cov_ed(random):
    data = simulate(random)
    with pytest.raises(InputError, match="subset"):
        cov_ed(data, [np.eye(3)], subset=np.array([], dtype=int))
    with pytest.raises(ShapeError, match="must be of dimension"):
        cov_ed(data, {"a": np.eye(2)})
    with pytest.raises(NotPositiveDefiniteError, match="positive semi-definite"):
        cov_ed(data, {"a": -np.eye(3)})
    with pytest.raises(InputError, match="empty"):
        cov_ed(data, [])


Y, S, ONE = np.zeros((5, 2)) + 1, np.ones((5, 2)), ([1.0], np.zeros((1, 2)), np.eye(2)[None])


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((Y, S, *ONE), {"splitnmerge": 2}, NotImplementedError, "splitnmerge"),
        ((Y, S, *ONE), {"maxsnm": True}, NotImplementedError, "maxsnm"),
        ((np.full((5, 2), np.nan), S, *ONE), {}, InputError, "ydata contains"),
        ((np.zeros((2, 2, 2)), S, *ONE), {}, ShapeError, "ydata has dimensions"),
        ((Y, S[:3], *ONE), {}, ShapeError, "ycovar has dimensions"),
        ((Y, S * np.inf, *ONE), {}, InputError, "ycovar contains"),
        ((Y, S, [1.0, 1.0], *ONE[1:]), {}, ShapeError, "xamp"),
        ((Y, S, [-1.0], *ONE[1:]), {}, InputError, "xamp must not"),
        ((Y, S, *ONE[:2], np.ones((1, 3, 3))), {}, ShapeError, "xcovar has"),
        ((Y, S, *ONE[:2], [[[1.0, 2.0], [0.0, 1.0]]]), {}, InputError, "symmetric"),
        ((Y, S, ONE[0], [[np.inf, 0.0]], ONE[2]), {}, InputError, "xmean contains"),
        ((Y, S, [1.0], np.zeros((1, 3)), np.eye(3)[None]), {}, ShapeError, "give the projection"),
        ((Y, S, *ONE), {"projection": np.ones((5, 2, 3))}, ShapeError, "projection has"),
        ((Y, S, *ONE), {"weight": np.ones(4)}, ShapeError, "weight has"),
        ((Y, S, *ONE), {"weight": -np.ones(5)}, InputError, "weight must"),
        ((Y, S, *ONE), {"fixamp": [True, False]}, ShapeError, "fixamp"),
    ],
)
def test_bad_input_of_extreme_deconvolution(arguments, options, error, message):
    with pytest.raises(error, match=message):
        extreme_deconvolution(*arguments, **options)
