"""Train on some, apply to all: selection, weights, chunks and bits."""

import numpy as np
import pytest

from plait.errors import InputError, OptionError
from plait.mash.covariances import cov_canonical
from plait.mash.data import mash_set_data
from plait.mash.model import mash
from plait.mash.selection import (
    _first_distinct,
    draw_rows,
    select_effects,
    select_training_effects,
)
from plait.mash.workflow import (
    apply_mash_prior,
    apply_mash_prior_chunked,
    fit_mash_prior,
    mash_train_apply,
)


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(4)
    active = random.random((6000, 1)) < 0.1
    effects = np.where(active, random.normal(size=(6000, 1)) * 3, 0.0)
    return mash_set_data(effects + random.normal(size=(6000, 3)))


def test_selection(data):
    rows = select_training_effects(data, 500, seed=3)
    assert len(np.unique(rows)) == 500
    assert np.all(np.diff(rows) > 0)
    np.testing.assert_array_equal(rows, select_training_effects(data, 500, seed=3))
    strong = select_training_effects(data, 500, "topz_random", background_fraction=0.2)
    assert len(np.unique(strong)) == 500
    order = np.argsort(-np.abs(data.Bhat).max(axis=1), kind="stable")
    assert set(order[:400]) <= set(strong)


def test_inclusion_weights_stand_for_everything(data):
    weights = select_effects(data, 500, "topz_random").inclusion_weights()
    assert weights.sum() == pytest.approx(6000)
    assert np.sum(weights == 1) == 400


def test_weighting_keeps_the_null_honest(data):
    """The weighted subset estimates the same null weight as all effects; unweighted it cannot."""
    Ulist = cov_canonical(data)
    full = mash(data, Ulist, outputlevel=1).fitted_g.pi[0]
    options = {"n_train": 2000, "select_method": "topz_random", "background_fraction": 0.5}
    weighted, _, _ = fit_mash_prior(data, Ulist, **options)
    with pytest.warns(Warning, match="null will be too small"):
        plain, _, _ = fit_mash_prior(data, Ulist, weighting="none", **options)
    assert abs(weighted.pi[0] - full) < 0.1
    assert full - plain.pi[0] > 0.15


def test_chunks_do_not_change_a_bit(data, tmp_path):
    fitted, _, _ = fit_mash_prior(data, cov_canonical(data), n_train=3000)
    options = {"mash_kwargs": {"output_lfdr": True}}
    whole = apply_mash_prior(data, fitted, **options)
    for size in (1, 700, 1024, 5999, 10**6):
        if size == 1:
            continue
        part = apply_mash_prior_chunked(data, fitted, chunk_size=size, **options)
        for name in ("posterior_mean", "posterior_sd", "lfsr", "lfdr", "negative_prob", "vloglik"):
            np.testing.assert_array_equal(part.arrays[name], getattr(whole, name), err_msg=name)
        assert part.loglik == whole.loglik
        assert part.n_chunks == -(-6000 // size)
    prefix = tmp_path / "deep" / "out"
    filed = apply_mash_prior_chunked(data, fitted, chunk_size=2000, out_prefix=prefix)
    assert (tmp_path / "deep" / "out.lfsr.npy").exists()
    assert "lfdr" not in filed.arrays
    np.testing.assert_array_equal(np.load(filed.output_paths["lfsr"]), whole.lfsr)


def test_train_apply_equals_its_parts(data):
    Ulist = cov_canonical(data)
    study = mash_train_apply(
        data,
        Ulist,
        n_train=1000,
        select_method="topz_random",
        select_seed=1,
        train_mash_kwargs={"grid": np.array([0.5, 1.0]), "outputlevel": 1},
        apply_mash_kwargs={"outputlevel": 2, "output_lfdr": True},
    )
    assert study.train_result.posterior_mean is None
    again = mash(data, g=study.train_result, fixg=True, output_lfdr=True)
    np.testing.assert_array_equal(again.lfsr, study.apply_result.lfsr)
    assert len(study.train_indices) == 1000


def test_automatic_two_stages(data):
    Ulist = cov_canonical(data)
    small = mash(data, Ulist, chunk_size=1500)
    full = mash(data, Ulist, chunk_size=None)
    assert small.posterior_mean.shape == full.posterior_mean.shape
    assert 0 <= full.loglik - small.loglik < 20
    either = (small.lfsr < 0.05) | (full.lfsr < 0.05)
    assert np.mean((small.lfsr < 0.05)[either] == (full.lfsr < 0.05)[either]) > 0.9
    np.testing.assert_array_equal(small.fitted_g.grid, full.fitted_g.grid)
    np.testing.assert_array_equal(mash(data, Ulist, chunk_size=0).lfsr, full.lfsr)


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        ({}, "n_train"),
        ({"n_train": 0}, "n_train"),
        ({"n_train": 7000}, "n_train"),
        ({"n_train": 10, "select_method": "best"}, "select_method"),
        (
            {"n_train": 10, "select_method": "topz_random", "background_fraction": 1.5},
            "background_fraction",
        ),
        (
            {"n_train": 10, "select_method": "topz_random", "background_fraction": 0},
            "background_fraction",
        ),
        ({"n_train": 10, "weighting": "some"}, "weighting"),
    ],
)
def test_bad_selection(data, options, fragment):
    with pytest.raises(OptionError, match=fragment):
        fit_mash_prior(data, cov_canonical(data), **options)


def test_bad_chunks(data):
    fitted, _, _ = fit_mash_prior(data, cov_canonical(data), n_train=100)
    with pytest.raises(OptionError, match="chunk_size"):
        apply_mash_prior_chunked(data, fitted, chunk_size=0)
    for options in ({"outputlevel": 3}, {"posterior_samples": 2}, {"g": fitted}, {"prior": "x"}):
        with pytest.raises(OptionError):
            apply_mash_prior_chunked(data, fitted, mash_kwargs=options)
    with pytest.raises(OptionError, match="fixg"):
        apply_mash_prior(data, fitted, mash_kwargs={"fixg": True})


def test_a_mask_of_training_effects_is_a_mask(data):
    Ulist = cov_canonical(data)
    mask = np.zeros(6000, dtype=bool)
    mask[100:1100] = True
    by_mask, rows, _ = fit_mash_prior(data, Ulist, train_indices=mask)
    np.testing.assert_array_equal(rows, np.arange(100, 1100))
    by_number, _, _ = fit_mash_prior(data, Ulist, train_indices=rows)
    np.testing.assert_array_equal(by_mask.pi, by_number.pi)


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        ({"train_indices": [True, False]}, "2 bools"),
        ({"train_indices": []}, "empty"),
        ({"train_indices": [0, 6000]}, "no row 6000"),
        ({"train_indices": [0.5, 1.0]}, "row numbers"),
        ({"train_indices": [[0, 1], [2, 3]]}, "row numbers"),
        ({"train_indices": [0, 1], "n_train": 10}, "not both"),
        ({"n_train": 10, "train_weights": np.ones(10)}, "train_weights"),
        ({"train_indices": [0, 1], "train_weights": np.ones(3)}, "train_weights"),
    ],
)
def test_bad_training_effects(data, tmp_path, options, fragment):
    from plait.data import Effects
    from plait.io import write_effects
    from plait.mash import mash_open_data

    write_effects(Effects(data.Bhat, np.ones_like(data.Bhat)), tmp_path / "e.zarr")
    for source in (data, mash_open_data(tmp_path / "e.zarr")):
        with pytest.raises(InputError, match=fragment):
            fit_mash_prior(source, cov_canonical(data), **options)


def test_a_background_that_rounds_to_nothing(data):
    with pytest.raises(OptionError, match="n_train 2 effects rounds to no"):
        fit_mash_prior(data, cov_canonical(data), n_train=2, select_method="topz_random")


@pytest.mark.parametrize(
    "options", [{"memory": "1GB"}, {"overwrite": True}, {"executor": object()}, {"out": "r.zarr"}]
)
def test_options_of_stores_are_refused_in_memory(data, options):
    with pytest.raises(OptionError, match=f"no {next(iter(options))}.*mash_open_data"):
        mash_train_apply(data, cov_canonical(data), n_train=100, **options)


@pytest.mark.parametrize("total", [50_000, 3_000_000, 2_000_000_000])
def test_rows_are_drawn_from_any_number(total):
    rows = draw_rows(total, 2000, seed=1)
    np.testing.assert_array_equal(rows, draw_rows(total, 2000, seed=1))
    assert len(np.unique(rows)) == 2000
    assert np.all(np.diff(rows) > 0)
    assert rows[0] >= 0 and rows[-1] < total
    assert abs(rows.mean() / total - 0.5) < 0.04


def test_draws_with_replacement_are_made_distinct():
    rows = _first_distinct(np.random.default_rng(0), 1000, 990)
    assert len(np.unique(rows)) == 990
