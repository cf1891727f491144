import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import multivariate_normal

from plait.errors import InputError, NotPositiveDefiniteError, OptionError, ShapeError
from plait.mash import deconvolution_updates as updates
from plait.mash.data import mash_set_data, subset_mash_data
from plait.mash.deconvolution_updates import Penalty
from plait.mash.extreme_deconvolution import cov_ed
from plait.mash.ultimate_deconvolution import cov_ud
from tests.mash.conftest import random_correlation


def stack(Ulist):
    return np.stack(list(Ulist.values()))


def moment_of(random, width=4, n=60):
    x = random.normal(size=(n, width)) @ np.diag(np.linspace(0.5, 3.0, width))
    return x.T @ x / n


def gain(U, moment, n=1.0):
    """Expected log-likelihood of a component under errors N(0, I)."""
    T = U + np.eye(len(U))
    return -0.5 * n * (np.linalg.slogdet(T)[1] + np.trace(np.linalg.solve(T, moment)))


PLANTED = {
    "rank one": np.outer([2.0, 2.0, -1.0, 0.0], [2.0, 2.0, -1.0, 0.0]) * 2,
    "shared": 6.0 * np.ones((4, 4)),
    "free": np.array([[5.0, 1, 0, 2], [1, 4, -1, 0], [0, -1, 3, 1], [2, 0, 1, 6]]),
}


def simulate(random, J=600, kind="common"):
    V = random_correlation(random, 4) if kind != "V per row" else None
    factors = np.stack([np.linalg.cholesky(U + 1e-9 * np.eye(4)) for U in PLANTED.values()])
    which = random.integers(3, size=J)
    effects = np.einsum("jrs,js->jr", factors[which], random.normal(size=(J, 4)))
    errors = np.ones((J, 4)) * (1.0 if kind == "common" else random.uniform(0.6, 1.4, (J, 4)))
    if kind == "V per row":
        V = np.stack([random_correlation(random, 4) for _ in range(J)])
    chol = np.broadcast_to(np.linalg.cholesky(V), (J, 4, 4))
    noisy = effects + errors * np.einsum("jrs,js->jr", chol, random.normal(size=(J, 4)))
    if kind == "missing":
        gone = random.random(noisy.shape) < 0.2
        gone[5] = True
        noisy, errors = np.where(gone, np.nan, noisy), np.where(gone, np.nan, errors)
    return mash_set_data(noisy, errors, V=V)


def common_cases():
    for scaled in ("em", "fa"):
        for rank1 in ("ted", "fa"):
            for unconstrained in ("ted", "ed", "fa"):
                for resid in ("none", "em"):
                    yield scaled, rank1, unconstrained, resid, 0.0, "iw"
                if unconstrained != "fa":
                    for penalty in ("iw", "nu"):
                        yield scaled, rank1, unconstrained, "none", 4.0, penalty


@pytest.mark.parametrize(
    ("scaled", "rank1", "unconstrained", "resid", "strength", "penalty"), list(common_cases())
)
def test_objective_never_falls_with_common_errors(
    random, scaled, rank1, unconstrained, resid, strength, penalty
):
    data = simulate(random)
    fit = cov_ud(
        data, n_rank1=1, n_unconstrained=2, scaled_update=scaled, rank1_update=rank1,
        unconstrained_update=unconstrained, resid_update=resid, lambda_=strength,
        penalty_type=penalty, maxiter=30, tol_lik=-np.inf, tol=0, details=True,
    )  # fmt: skip
    assert len(fit["objective"]) == 31
    assert np.diff(fit["objective"]).min() > -1e-8 * data.n_effects


@pytest.mark.parametrize("strength", [0.0, 4.0])
@pytest.mark.parametrize("penalty", ["iw", "nu"])
@pytest.mark.parametrize("scaled", ["em", "fa"])
@pytest.mark.parametrize("kind", ["per row", "missing", "V per row"])
def test_objective_never_falls_with_errors_per_row(random, kind, scaled, penalty, strength):
    data = simulate(random, J=200, kind=kind)
    fit = cov_ud(
        data, n_rank1=2, n_unconstrained=2, scaled_update=scaled, lambda_=strength,
        penalty_type=penalty, maxiter=20, tol_lik=-np.inf, tol=0, details=True,
    )  # fmt: skip
    assert np.diff(fit["objective"]).min() > -1e-8 * data.n_effects
    assert fit["V"] is None


@pytest.mark.parametrize("kind", ["common", "per row", "missing"])
def test_log_likelihood_is_that_of_the_mixture(random, kind):
    data = simulate(random, J=80, kind=kind)
    fit = cov_ud(data, n_rank1=1, n_unconstrained=1, maxiter=4, details=True)
    sigma, observed = data.error_covariances(slice(None)), data.observed(slice(None))
    total = 0.0
    for j in range(80):
        seen = np.arange(4) if observed is None else np.flatnonzero(observed[j])
        if len(seen):
            total += np.log(sum(
                weight * multivariate_normal(
                    np.zeros(len(seen)), (U + sigma[j])[np.ix_(seen, seen)]
                ).pdf(data.Bhat[j, seen])
                for weight, U in zip(fit["pi"], fit["Ulist"].values(), strict=True)
            ))  # fmt: skip
    assert fit["loglik"] == pytest.approx(total, rel=1e-10)
    assert fit["objective"][-1] == fit["loglik"]


@pytest.mark.parametrize("kind", ["common", "per row"])
def test_planted_matrices_are_recovered(random, kind):
    data = simulate(random, J=4000, kind=kind)
    fit = cov_ud(
        data, U_scaled={"shared": np.ones((4, 4))}, U_rank1={"rank one": [1.0, 1.0, -0.2, 0.1]},
        U_unconstrained={"free": np.eye(4)}, maxiter=40 if kind == "common" else 200,
        tol_lik=1e-6, details=True,
    )  # fmt: skip
    assert list(fit["Ulist"]) == ["shared", "rank one", "free"]
    np.testing.assert_allclose(fit["pi"], 1 / 3, atol=0.05)
    for name, found in fit["Ulist"].items():
        assert np.abs(found - PLANTED[name]).max() < 0.15 * np.abs(PLANTED[name]).max()
    assert np.linalg.matrix_rank(fit["Ulist"]["rank one"]) == 1
    shared = fit["Ulist"]["shared"]
    assert np.ptp(shared) == 0.0


def test_error_covariance_is_recovered(random):
    V = 0.4 * np.ones((3, 3)) + 0.6 * np.eye(3)
    u = np.array([3.0, -2.0, 1.0])
    effects = np.where(random.random((5000, 1)) < 0.3, random.normal(size=(5000, 1)) * u, 0.0)
    data = mash_set_data(effects + random.multivariate_normal(np.zeros(3), V, size=5000))
    fit = cov_ud(
        data, U_scaled={"null": np.zeros((3, 3))}, U_rank1=[u], U_unconstrained={},
        n_unconstrained=0, resid_update="em", maxiter=200, tol_lik=1e-6, details=True,
    )  # fmt: skip
    np.testing.assert_allclose(fit["V"], V, atol=0.06)


def test_one_component_of_each_update_agrees_in_the_limit(random):
    """At K = 1 TED is the maximum; ED and FA from a full-rank start tend to it."""
    data = simulate(random, J=400)
    options = {
        "U_scaled": None, "U_unconstrained": [5 * np.eye(4)], "tol_lik": 0.0, "tol": 0.0,
        "details": True,
    }  # fmt: skip
    ted = cov_ud(data, unconstrained_update="ted", maxiter=2, **options)
    for update in ("ed", "fa"):
        other = cov_ud(data, unconstrained_update=update, maxiter=400, **options)
        assert ted["loglik"] - 0.05 < other["loglik"] <= ted["loglik"] + 1e-6
        np.testing.assert_allclose(
            stack(other["Ulist"]), stack(ted["Ulist"]), atol=0.02 * stack(ted["Ulist"]).max()
        )
    best = cov_ed(data, [5 * np.eye(4)], ridge=0, tol=0, maxiter=400, details=True)
    one_more = cov_ud(data, unconstrained_update="ed", maxiter=399, **options)
    assert best["av_loglik"] * 400 == pytest.approx(one_more["loglik"], abs=1e-8)


@pytest.mark.parametrize("kind", ["common", "per row"])
def test_ed_updates_are_those_of_extreme_deconvolution(random, kind):
    data, U = simulate(random, J=150, kind=kind), [np.eye(4), PLANTED["free"]]
    options = {"U_scaled": None, "tol": 0.0, "tol_lik": -np.inf, "maxiter": 6}
    found = cov_ud(data, U_unconstrained=U, unconstrained_update="ed", **options)
    expected = cov_ed(data, U, ridge=0, tol=0, maxiter=6)
    np.testing.assert_allclose(stack(found), stack(expected), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", ["common", "per row"])
def test_threads_do_not_change_bits(random, kind):
    data = simulate(random, J=2300, kind=kind)
    one, two = (cov_ud(data, n_rank1=1, n_unconstrained=1, maxiter=2, threads=t) for t in (1, 3))
    assert np.array_equal(stack(one), stack(two))
    shuffled = subset_mash_data(data, random.permutation(2300))
    other = cov_ud(shuffled, n_rank1=1, n_unconstrained=1, maxiter=2)
    np.testing.assert_allclose(stack(other), stack(one), rtol=1e-7, atol=1e-9)


def test_scaled_common_and_row_updates_agree(random):
    """The same errors on every row, seen as common or as one per row, give the same fit."""
    data = simulate(random, J=120)
    per_row = mash_set_data(data.Bhat, V=np.stack([data.V] * 120))
    options = {"n_rank1": 1, "n_unconstrained": 1, "unconstrained_update": "ed",
               "rank1_update": "fa", "maxiter": 5, "tol_lik": -np.inf, "tol": 0.0}  # fmt: skip
    for scaled in ("em", "fa"):
        common, rows = (stack(cov_ud(d, scaled_update=scaled, **options)) for d in (data, per_row))
        np.testing.assert_allclose(rows, common, rtol=1e-7, atol=1e-9)


# Single updates ----------------------------------------------------------------------------------


def test_ted_is_the_maximum_among_perturbations(random):
    moment = moment_of(random)
    for rank in (None, 1, 2):
        best = updates.truncated_eigenvalues(moment, rank)
        assert np.linalg.matrix_rank(best, tol=1e-9) <= (rank or 4)
        values, vectors = np.linalg.eigh(best)
        F = vectors[:, values > 1e-9] * np.sqrt(values[values > 1e-9])
        for _ in range(50):
            G = F + 0.05 * random.normal(size=F.shape)
            assert gain(G @ G.T, moment) <= gain(best, moment) + 1e-12


@pytest.mark.parametrize("kind", ["iw", "nu"])
@pytest.mark.parametrize("strength", [0.1, 5.0, 200.0])
def test_penalised_eigenvalues_are_the_global_minimum(kind, strength):
    penalty = Penalty(strength, kind)
    for n in (0.5, 30.0):
        for d in (0.0, 0.7, 1.5, 40.0):
            for s2 in (0.01, 1.0, 20.0):

                def cost(log_u, n=n, d=d, s2=s2):
                    u = np.exp(log_u)
                    terms = np.log(u) + s2 / u if kind == "iw" else 0.5 * u / s2 + 0.5 * s2 / u
                    return n * np.log1p(u) + n * d / (1 + u) + strength * terms

                found = updates.penalised_eigenvalues(np.array([[d]]), n, penalty, s2)[0, 0]
                grid = np.linspace(np.log(1e-8), np.log(1e6), 4001)
                start = grid[np.argmin(cost(grid))]
                best = minimize_scalar(
                    cost, bounds=(start - 0.02, start + 0.02), options={"xatol": 1e-12}
                )
                assert cost(np.log(found)) <= best.fun + 1e-9 * (1 + abs(best.fun))


@pytest.mark.parametrize("kind", ["iw", "nu"])
def test_penalty_scale_minimises_the_penalty(random, kind):
    U, penalty = moment_of(random), Penalty(2.0, kind)
    best = penalty.scale(U)
    assert all(penalty.value(U, best) < penalty.value(U, best * f) for f in (0.9, 1.1))
    assert Penalty().value(U, 1.0) == 0.0


@pytest.mark.parametrize("kind", ["iw", "nu"])
def test_penalised_ed_maximises_its_expected_objective(random, kind):
    U, moment, n, s2 = moment_of(random), moment_of(random), 12.0, 0.7
    penalty = Penalty(3.0, kind)
    inverse = np.linalg.inv(U + np.eye(4))
    W = n * (inverse @ moment @ inverse - inverse)
    posterior = U + U @ W @ U / n
    best = updates.extreme_deconvolution_update(U, W, n, penalty, s2)

    def expected(X):
        return n * (np.linalg.slogdet(X)[1] + np.trace(np.linalg.solve(X, posterior))) + (
            penalty.value(X, s2)
        )

    for _ in range(50):
        step = 0.02 * random.normal(size=(4, 4))
        assert expected(best) <= expected(best + step @ step.T) + 1e-10
        assert expected(best) <= expected(best - 0.01 * step @ step.T) + 1e-10


def test_single_factor_updates_never_lose(random):
    moment, u = moment_of(random), random.normal(size=4)
    U = np.outer(u, u)
    for _ in range(20):
        v = updates.rank1_factor_update(u, moment)
        assert gain(np.outer(v, v), moment) >= gain(np.outer(u, u), moment) - 1e-12
        u = v
        better = updates.factor_analysis_update(U, moment, 1e-8)
        assert gain(better, moment) >= gain(U, moment) - 1e-7
        U = better
    zero = np.zeros((4, 4))
    assert updates.factor_analysis_update(zero, moment, 1e-8) is zero


def test_best_scale_is_the_global_maximum(random):
    for _ in range(20):
        lam = random.uniform(0.0, 3.0, (30, 3)) * random.integers(0, 2, (30, 3))
        power = lam * random.chisquare(1, (30, 3)) * random.uniform(0, 10)
        p = random.random(30)

        def value(s, lam=lam, power=power, p=p):
            return p @ np.sum(s * power / (1 + s * lam) - np.log1p(s * lam), axis=1)

        found = updates.scale_em(lam, power, p, 1.0)
        grid = np.concatenate([[0.0], np.geomspace(1e-6, 1e6, 3000)])
        assert value(found) >= max(value(s) for s in grid) - 1e-9
    assert updates.scale_em(np.zeros((1, 3)), np.zeros((1, 3)), np.ones(1), 0.7) == 0.7
    assert updates.scale_em(np.ones((1, 2)), np.full((1, 2), 1e9), np.ones(1), 1.0) == 1e6
    assert updates.scale_factor_update(np.ones((1, 2)), np.ones((1, 2)), np.ones(1), 0.0, 2) == 0.0


def test_residual_update_equals_the_mixture_moments(random):
    x, P = random.normal(size=(40, 3)), random.dirichlet([1, 1], 40)
    U = np.stack([moment_of(random, 3), np.outer([1.0, 2, 0], [1.0, 2, 0])])
    V = random_correlation(random, 3)
    scatter = np.einsum("jk,jr,js->krs", P, x, x)
    expected = np.zeros((3, 3))
    for j in range(40):
        means = np.stack([u @ np.linalg.solve(u + V, x[j]) for u in U])
        covs = np.stack([u - u @ np.linalg.solve(u + V, u) for u in U])
        m = P[j] @ means
        C = np.einsum("k,krs->rs", P[j], covs + means[:, :, None] * means[:, None]) - np.outer(m, m)
        expected += C + np.outer(x[j] - m, x[j] - m)
    found = updates.residual_update(U, V, P.sum(axis=0), scatter)
    np.testing.assert_allclose(found, expected / 40, rtol=1e-10)


def test_embedded_inverses_leave_missing_cells_out(random):
    sigma = np.stack([moment_of(random) for _ in range(5)])
    observed = random.random((5, 4)) < 0.6
    observed[0] = False
    found = updates.embedded_inverses(sigma, observed)
    for S, seen, A in zip(sigma, observed, found, strict=True):
        block = np.ix_(seen, seen)
        np.testing.assert_allclose(A[block], np.linalg.inv(S[block]), rtol=1e-10)
        assert np.all(A[~seen] == 0) and np.all(A[:, ~seen] == 0)


# Doors -------------------------------------------------------------------------------------------


def test_names_and_defaults(random):
    data = simulate(random, J=60)
    found = cov_ud(data, n_rank1=2, n_unconstrained=1, maxiter=1)
    assert list(found) == ["identity", "equal_effects", "rank1_1", "rank1_2", "unconstrained_1"]
    assert all(np.linalg.eigvalsh(U).min() > -1e-10 for U in found.values())
    again = cov_ud(data, n_rank1=2, n_unconstrained=1, maxiter=1)
    other = cov_ud(data, n_rank1=2, n_unconstrained=1, maxiter=1, seed=2)
    assert np.array_equal(stack(found), stack(again))
    assert not np.array_equal(stack(found), stack(other))


def test_updates_can_be_switched_off(random):
    data = simulate(random, J=60)
    start = {"a": np.eye(4)}, {"b": np.ones(4)}, {"c": PLANTED["free"]}
    for common in (data, mash_set_data(data.Bhat, V=np.stack([data.V] * 60))):
        fit = cov_ud(
            common, U_scaled=start[0], U_rank1=start[1], U_unconstrained=start[2],
            scaled_update="none", rank1_update="none", unconstrained_update="none",
            weights_update="none", details=True,
        )  # fmt: skip
        assert fit["niter"] == 1 and fit["converged"]
        np.testing.assert_array_equal(fit["pi"], 1 / 3)
        np.testing.assert_array_equal(
            stack(fit["Ulist"]), np.stack([np.eye(4), np.ones((4, 4)), PLANTED["free"]])
        )


def test_subset_and_rank1_matrices(random):
    data, rows = simulate(random, J=100), np.arange(10, 60)
    u = np.array([1.0, 0, 2, 0])
    part = subset_mash_data(data, rows)
    first = cov_ud(data, U_rank1=[np.outer(u, u)], n_unconstrained=1, subset=rows, maxiter=3)
    second = cov_ud(part, U_rank1=[u], n_unconstrained=1, maxiter=3)
    np.testing.assert_allclose(stack(first), stack(second), rtol=1e-10, atol=1e-12)


def test_result_feeds_mash(random):
    from plait.mash.model import mash

    data = simulate(random, J=60)
    assert np.isfinite(mash(data, cov_ud(data, n_unconstrained=2, maxiter=3)).loglik)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"scaled_update": "ted"}, OptionError, "scaled_update is 'ted'; choose from em, fa, none"),
        ({"rank1_update": "ed"}, OptionError, "rank1_update"),
        ({"unconstrained_update": "em"}, OptionError, "unconstrained_update"),
        ({"resid_update": "fa"}, OptionError, "resid_update"),
        ({"weights_update": "sqp"}, OptionError, "weights_update"),
        ({"penalty_type": "l1"}, OptionError, "penalty_type is 'l1'"),
        ({"lambda_": -1.0}, OptionError, "lambda_ is -1"),
        ({"lambda_": 1.0, "unconstrained_update": "fa"}, OptionError, "has no penalty"),
        ({"lambda_": 1.0, "resid_update": "em"}, OptionError, "resid_update='em' changes"),
        ({"maxiter": 0}, OptionError, "maxiter"),
        ({"n_rank1": -1}, OptionError, "n_rank1"),
        ({"n_unconstrained": 1.5}, OptionError, "n_unconstrained"),
        ({"U_scaled": "canonical"}, OptionError, "U_scaled"),
        ({"U_scaled": None, "n_unconstrained": 0}, InputError, "no prior matrix"),
        ({"U_rank1": [np.eye(4)]}, InputError, "rank above 1"),
        ({"U_rank1": [np.ones(3)]}, ShapeError, "vector of length 4"),
        ({"U_unconstrained": [-np.eye(4)]}, NotPositiveDefiniteError, "positive semi-definite"),
        ({"U_unconstrained": {"identity": np.eye(4)}}, InputError, "same name: identity"),
        ({"subset": np.array([], dtype=int)}, InputError, "empty"),
    ],
)
def test_bad_options(random, options, error, message):
    with pytest.raises(error, match=message):
        cov_ud(simulate(random, J=20), **options)


@pytest.mark.parametrize(
    "options", [{"rank1_update": "ted"}, {"unconstrained_update": "ted"},
                {"unconstrained_update": "fa"}, {"resid_update": "em"}],
)  # fmt: skip
def test_updates_that_need_common_errors(random, options):
    with pytest.raises(OptionError, match="needs one error covariance common"):
        cov_ud(simulate(random, J=30, kind="per row"), **options)


def test_alpha_must_be_0_or_1(random):
    data = mash_set_data(random.normal(size=(30, 3)), random.uniform(0.8, 1.2, (30, 3)), alpha=0.5)
    with pytest.raises(OptionError, match="alpha"):
        cov_ud(data)
