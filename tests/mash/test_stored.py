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
    np.testing.assert_array_equal(
        found.train_result.fitted_g.pi, expected.train_result.fitted_g.pi
    )
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
