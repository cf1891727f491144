"""Effects that stay in their store: the same bits as in memory, however the work is cut."""

import numpy as np
import pytest

from plait import mash
from plait.data import Effects
from plait.errors import FileFormatError, InputError, LabelError, OptionError
from plait.io import write_effects

NAMES = ("liver", "lung", "brain")


def study(n_effects, varying, missing=0.0, seed=0):
    random = np.random.default_rng(seed)
    active = random.random((n_effects, 1)) < 0.1
    truth = np.where(active, random.normal(size=(n_effects, 1)) * 3, 0.0)
    errors = random.uniform(0.5, 2, (n_effects, 3)) if varying else np.ones((n_effects, 3))
    bhat = (truth + random.normal(size=(n_effects, 3))) * errors
    errors[random.random(bhat.shape) < missing] = np.inf
    V = np.array([[1, 0.4, 0.1], [0.4, 1, 0.2], [0.1, 0.2, 1]])
    labels = [f"rs{i}" for i in range(n_effects)] if missing else None
    return Effects(bhat, errors, V, labels, NAMES)


CASES = {
    "z-scores": (False, 0.0, 1.0),
    "varying errors": (True, 0.0, 0.0),
    "scaled, with missing cells": (True, 0.1, 0.5),
}


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    varying, missing, alpha = CASES[request.param]
    effects = study(150_000, varying, missing)
    url = tmp_path_factory.mktemp("store") / "effects.zarr"
    write_effects((effects.select(slice(s, s + 40_000)) for s in range(0, 150_000, 40_000)), url)
    return url, mash.mash_set_data(effects, alpha=alpha, missing="exact"), alpha


def test_the_store_gives_the_bits_of_memory(case, tmp_path):
    url, data, alpha = case
    Ulist = mash.cov_canonical(data)
    options = {"n_train": 5000, "select_method": "topz_random", "select_seed": 4}
    expected = mash.mash_train_apply(data, Ulist, **options)
    stored = mash.mash_open_data(url, alpha)
    assert stored.n_effects == 150_000
    np.testing.assert_array_equal(mash.autoselect_grid(stored), mash.autoselect_grid(data))
    found = mash.mash_train_apply(stored, Ulist, **options, out=tmp_path / "r.zarr")
    np.testing.assert_array_equal(found.train_indices, expected.train_indices)
    np.testing.assert_array_equal(found.train_result.fitted_g.pi, expected.train_result.fitted_g.pi)
    whole = expected.apply_result
    for name in ("posterior_mean", "posterior_sd", "lfsr", "negative_prob", "vloglik"):
        np.testing.assert_array_equal(
            np.asarray(getattr(found.apply_result, name)), getattr(whole, name), err_msg=name
        )
    assert found.apply_result.loglik == whole.loglik
    assert found.apply_result.summary().splitlines()[-1] == whole.summary().splitlines()[-1]
    loaded = mash.MashResult.load(tmp_path / "r.zarr")
    np.testing.assert_array_equal(loaded.lfsr, whole.lfsr)
    assert loaded.condition_names == NAMES
    assert (loaded.effect_names is None) == (data.effect_names is None)
    if data.effect_names is not None:
        np.testing.assert_array_equal(loaded.effect_names, data.effect_names)
        assert found.apply_result.effect_names[3] == "rs3"
    assert loaded.fitted_g.allclose(found.train_result.fitted_g)


def test_what_is_learned_from_a_store(case):
    url, data, alpha = case
    stored = mash.mash_open_data(url, alpha)
    for method in ("simple", "truncated_ml"):
        np.testing.assert_array_equal(
            mash.estimate_null_correlation_simple(stored, method=method),
            mash.estimate_null_correlation_simple(data, method=method),
        )
    for name, U in mash.cov_pca(data, 2).items():
        np.testing.assert_allclose(mash.cov_pca(stored, 2)[name], U, rtol=1e-8, atol=1e-8)
    for method in ("random", "topz_random"):
        rows = mash.select_training_effects(data, 3000, method)
        np.testing.assert_array_equal(mash.select_training_effects(stored, 3000, method), rows)
    start = mash.cov_pca(data, 2, rows)
    np.testing.assert_allclose(mash.cov_pca(stored, 2, rows)["tPCA"], start["tPCA"], rtol=1e-12)
    learned = mash.cov_ed(stored, start, subset=rows, maxiter=3, tol=0)
    for name, U in mash.cov_ed(data, start, subset=rows, maxiter=3, tol=0).items():
        np.testing.assert_allclose(learned[name], U, rtol=1e-10)
    with pytest.raises(OptionError, match="strong_effects"):
        mash.cov_ed(stored, start)


def test_strong_effects_are_those_of_the_screen(case):
    url, data, alpha = case
    found = mash.strong_effects(mash.mash_open_data(url, alpha), level=0.01)
    screened = mash.get_significant_results(mash.mash_1by1(data), thresh=0.01)
    # The priors come from a sample of 100,000 of the 150,000: those near the level may differ.
    assert len(np.setxor1d(found, screened)) < 0.02 * len(screened)
    few = mash.strong_effects(mash.mash_open_data(url, alpha), level=0.01, most=100)
    assert len(few) == 100
    assert set(few) <= set(found)


def test_chunks_of_a_store_into_npy_files(case, tmp_path):
    url, data, alpha = case
    fitted, _, _ = mash.fit_mash_prior(data, mash.cov_canonical(data), n_train=2000)
    expected = mash.apply_mash_prior(data, fitted)
    found = mash.apply_mash_prior_chunked(
        mash.mash_open_data(url, alpha), fitted, chunk_size=50_001, out_prefix=tmp_path / "out"
    )
    np.testing.assert_array_equal(np.load(tmp_path / "out.lfsr.npy"), expected.lfsr)
    assert found.n_chunks == 3


def test_conditions_and_correlation_can_be_chosen(tmp_path):
    effects = study(3000, True)
    write_effects(effects, tmp_path / "e.zarr")
    stored = mash.mash_open_data(tmp_path / "e.zarr", conditions=["brain", "liver"])
    part = effects.select(contexts=["brain", "liver"])
    np.testing.assert_array_equal(stored.read(slice(None)).Bhat, part.bhat)
    np.testing.assert_array_equal(stored.V, part.V)
    other = mash.mash_open_data(tmp_path / "e.zarr", V=np.eye(3), v_ridge=0.1)
    np.testing.assert_allclose(other.V, 1.1 * np.eye(3))
    with pytest.raises(LabelError, match="liver, lung, brain"):
        mash.mash_open_data(tmp_path / "e.zarr", conditions=["heart"])


def test_one_correlation_per_effect(tmp_path):
    random = np.random.default_rng(0)
    base = study(4000, True)
    rho = random.uniform(-0.3, 0.3, 4000)
    V = np.eye(3) + rho[:, None, None] * (1 - np.eye(3))
    effects = Effects(base.bhat, base.shat, V)
    write_effects(
        (effects.select(slice(s, s + 1000)) for s in range(0, 4000, 1000)), tmp_path / "e"
    )
    data = mash.mash_set_data(effects)
    stored = mash.mash_open_data(tmp_path / "e")
    Ulist = mash.cov_canonical(data)
    expected = mash.mash_train_apply(data, Ulist, n_train=1000)
    found = mash.mash_train_apply(stored, Ulist, n_train=1000, out=tmp_path / "r.zarr")
    np.testing.assert_array_equal(np.asarray(found.apply_result.lfsr), expected.apply_result.lfsr)


def test_bad_numbers_are_named_by_row(tmp_path):
    import zarr

    write_effects(study(70_000, False), tmp_path / "e.zarr")
    group = zarr.open_group(tmp_path / "e.zarr", mode="r+")
    group["shat"][66_666, 1] = -1.0
    with pytest.raises(InputError, match=r"66666.*lung|lung.*66666"):
        mash.mash_open_data(tmp_path / "e.zarr")
    group["shat"][66_666, 1] = 1.0
    group["bhat"][3, 0] = np.inf
    with pytest.raises(InputError, match="bhat is Inf"):
        mash.mash_open_data(tmp_path / "e.zarr")


def test_what_cannot_be_opened(tmp_path):
    with pytest.raises(FileFormatError, match="does not exist"):
        mash.mash_open_data(tmp_path / "none.zarr")
    write_effects(study(100, False), tmp_path / "e.zarr")
    with pytest.raises(OptionError, match="missing"):
        mash.mash_open_data(tmp_path / "e.zarr", missing="auto")
    stored = mash.mash_open_data(tmp_path / "e.zarr")
    with pytest.raises(OptionError, match="need out"):
        mash.mash_train_apply(stored, mash.cov_canonical(stored), n_train=50)
    prior, _, _ = mash.fit_mash_prior(stored, mash.cov_canonical(stored), n_train=50)
    other = mash.mash_open_data(tmp_path / "e.zarr", alpha=1)
    with pytest.raises(OptionError, match="alpha"):
        mash.apply_mash_prior_to_store(other, prior, tmp_path / "r.zarr")
    assert not list(tmp_path.glob(".*run"))
