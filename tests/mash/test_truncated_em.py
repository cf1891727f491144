import numpy as np
import pytest
from scipy.stats import multivariate_normal

from plait.errors import ConvergenceWarning, DataWarning, InputError, OptionError, ShapeError
from plait.mash.data import mash_set_data, mash_update_data, subset_mash_data
from plait.mash.extreme_deconvolution import cov_ed
from plait.mash.truncated_em import teem
from tests.mash.conftest import random_correlation
from tests.reference_files import load


def stack(Ulist):
    return np.stack(list(Ulist.values()))


def starts(random, count, width):
    factors = random.normal(size=(count, width, width))
    return {f"U{k}": U for k, U in enumerate(factors @ factors.transpose(0, 2, 1))}


def plain_teem(z, U, weights, steps, eigen_tol=1e-7):
    """Plain transcription of expectation maximisation with truncated eigenvalues."""
    R = z.shape[1]
    totals = np.stack(list(U.values())) + np.eye(R)

    def densities():
        return np.stack([multivariate_normal(np.zeros(R), T).pdf(z) for T in totals]).T * weights

    path, changes = [], []
    for _ in range(steps):
        P = densities()
        P /= P.sum(axis=1, keepdims=True)
        for k in range(len(totals)):
            values, vectors = np.linalg.eigh((z * P[:, [k]]).T @ z / P[:, k].sum())
            values[values <= 1] = 1 + eigen_tol
            totals[k] = (vectors * values) @ vectors.T
        changes.append(np.abs(P.mean(axis=0) - weights).max())
        weights = P.mean(axis=0)
        path.append(np.log(densities().sum(axis=1)).sum())
    return totals - np.eye(R), weights, path, changes


def test_equals_R():
    files = load("mash", "b_datadriven.npz")
    data = mash_set_data(files["Bhat"], files["Shat"], V=files["V"])
    start = dict(zip(files["pca_names"], files["pca_stack"], strict=True))
    fit = cov_ed(
        data, start, subset=files["strong_0based"].astype(int), algorithm="teem", details=True
    )
    assert list(fit["Ulist"]) == [f"ED_{name}" for name in start]
    np.testing.assert_allclose(stack(fit["Ulist"]), files["teem_U_stack"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(fit["pi"], files["teem_w"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(fit["objective"], files["teem_objective"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(fit["maxd"], files["teem_maxd"], rtol=0, atol=1e-6)
    assert fit["converged"] and fit["niter"] == len(files["teem_objective"])
    assert fit["av_loglik"] == pytest.approx(fit["objective"][-1] / len(files["strong_0based"]))


def test_agrees_with_brute_force(random):
    errors = random.uniform(0.5, 1.5, (120, 3))
    effects = errors * random.normal(size=(120, 3)) * 2
    U, w = starts(random, 3, 3), np.array([1.0, 2.0, 5.0])
    fit = teem(mash_set_data(effects, errors), U, w_init=w, maxiter=6, converge_tol=0, details=True)
    matrices, weights, path, changes = plain_teem(effects / errors, U, w / 8, 6)
    assert list(fit["Ulist"]) == list(U)
    np.testing.assert_allclose(stack(fit["Ulist"]), matrices, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(fit["w"], weights, rtol=1e-10)
    np.testing.assert_allclose(fit["objective"], path, rtol=1e-12)
    np.testing.assert_allclose(fit["maxd"], changes, rtol=1e-9)


def test_objective_never_falls_and_eigenvalues_are_bounded(random):
    data = mash_set_data(2 * random.normal(size=(300, 4)))
    fit = teem(data, starts(random, 3, 4), details=True)
    # Raising eigenvalues by eigen_tol above 1 costs at most about eigen_tol per row.
    assert np.diff(fit["objective"]).min() > -300 * 1e-7
    assert np.linalg.eigvalsh(stack(fit["Ulist"])).min() > 0.9e-7


def test_one_component_is_the_closed_form(random):
    z = random.normal(size=(500, 3)) @ np.diag([3.0, 1.0, 0.5])
    found = teem(mash_set_data(z), [np.eye(3)])["U_1"]
    values, vectors = np.linalg.eigh(z.T @ z / 500)
    expected = (vectors * np.where(values <= 1, 1e-7, values - 1)) @ vectors.T
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_whitening_equals_whitening_by_hand(random):
    V = random_correlation(random, 3)
    z, U = 2 * random.normal(size=(200, 3)), starts(random, 2, 3)
    chol = np.linalg.cholesky(V)
    inverse = np.linalg.inv(chol)
    found = teem(mash_set_data(z, V=V), U, whiten=True)
    white = teem(mash_set_data(z @ inverse.T), {k: inverse @ u @ inverse.T for k, u in U.items()})
    for name, expected in white.items():
        np.testing.assert_allclose(found[name], chol @ expected @ chol.T, atol=1e-9)


def test_threads_do_not_change_bits_and_row_order_only_rounding(random):
    data, U = mash_set_data(2 * random.normal(size=(2500, 3))), starts(random, 2, 3)
    one, two = (teem(data, U, maxiter=4, converge_tol=0, threads=t) for t in (1, 3))
    assert np.array_equal(stack(one), stack(two))
    shuffled = teem(subset_mash_data(data, random.permutation(2500)), U, maxiter=4, converge_tol=0)
    np.testing.assert_allclose(stack(shuffled), stack(one), rtol=1e-9, atol=1e-12)


def test_a_component_without_responsibility_keeps_its_matrix(random):
    data, U = mash_set_data(random.normal(size=(30, 2))), starts(random, 2, 2)
    fit = teem(data, U, w_init=[1.0, 0.0], maxiter=3, converge_tol=0, details=True)
    np.testing.assert_allclose(fit["Ulist"]["U1"], U["U1"], atol=1e-12)
    assert fit["w"][1] == 0.0


def test_correlated_errors_are_refused(random):
    data, U = (
        mash_set_data(random.normal(size=(20, 3)), V=random_correlation(random, 3)),
        [np.eye(3)],
    )
    with pytest.raises(InputError, match="V the identity"):
        cov_ed(data, U, algorithm="teem")
    assert np.isfinite(cov_ed(data, U, algorithm="teem", whiten=True)["ED_1"]).all()
    contrast = mash_update_data(mash_set_data(random.normal(size=(20, 3))), ref=0)
    with pytest.raises(InputError, match="V the identity"):
        teem(contrast, [np.eye(2)])
    per_effect = mash_set_data(
        random.normal(size=(20, 3)), V=np.stack([random_correlation(random, 3)] * 20)
    )
    with pytest.raises(InputError, match="common to all"):
        teem(per_effect, U, whiten=True)


def test_missing_cells(random):
    effects = random.normal(size=(20, 3))
    effects[2, 1] = np.nan
    errors = np.where(np.isnan(effects), np.nan, 1.0)
    with pytest.warns(DataWarning, match="1 missing cells for z-scores of zero"):
        filled = teem(mash_set_data(effects, errors), [np.eye(3)])
    zero = teem(mash_set_data(np.nan_to_num(effects)), [np.eye(3)])
    np.testing.assert_allclose(filled["U_1"], zero["U_1"], atol=1e-12)
    with pytest.raises(InputError, match="cannot marginalise"):
        teem(mash_set_data(effects, errors, missing="exact"), [np.eye(3)])


def test_limits_progress_and_ridge(random):
    data, U, calls = mash_set_data(2 * random.normal(size=(80, 3))), starts(random, 2, 3), []
    with pytest.warns(ConvergenceWarning, match="after 3 iterations"):
        fit = cov_ed(
            data, U, algorithm="teem", maxiter=3, details=True, ridge=0.5,
            progress=lambda iteration, value: calls.append((iteration, value)),
        )  # fmt: skip
    assert calls == [(i + 1, value) for i, value in enumerate(fit["objective"])]
    plain = cov_ed(data, U, algorithm="teem", maxiter=3, converge_tol=0)
    np.testing.assert_array_equal(stack(fit["Ulist"]), stack(plain) + 0.5 * np.eye(3))
    with pytest.warns(ConvergenceWarning, match="after 1 iterations"):
        teem(data, U, max_seconds=1e-9)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"w_init": [1.0]}, ShapeError, "wrong length"),
        ({"w_init": [1.0, -1.0]}, OptionError, "w_init must not be negative"),
        ({"w_init": [0.0, 0.0]}, OptionError, "positive sum"),
        ({"maxiter": 0}, OptionError, "maxiter"),
        ({"converge_tol": -1.0}, OptionError, "converge_tol"),
        ({"eigen_tol": np.nan}, OptionError, "eigen_tol"),
    ],
)
def test_bad_options(random, options, error, message):
    with pytest.raises(error, match=message):
        teem(mash_set_data(random.normal(size=(10, 2))), starts(random, 2, 2), **options)
