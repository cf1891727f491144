"""Effects that stay in their store: the same bits as in memory, however the work is cut."""

import tracemalloc

import numpy as np
import pytest

from plait import mash
from plait.data import Effects
from plait.errors import (
    CapacityError,
    FileFormatError,
    InputError,
    LabelError,
    ModelWarning,
    OptionError,
    OutputError,
)
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


def labelled(labels, n_effects=3000):
    effects = study(n_effects, True)
    return Effects(effects.bhat, effects.shat, effects.V, labels, NAMES)


def test_the_fingerprint_knows_numbers_labels_and_correlation(tmp_path):
    labels = [f"rs{i}" for i in range(3000)]
    write_effects(labelled(labels), tmp_path / "a.zarr")
    first = mash.mash_open_data(tmp_path / "a.zarr").known.fingerprint
    assert mash.mash_open_data(tmp_path / "a.zarr", memory="3MB").known.fingerprint == first
    labels[2999] = "another"
    write_effects(labelled(labels), tmp_path / "b.zarr")
    assert mash.mash_open_data(tmp_path / "b.zarr").known.fingerprint != first
    assert mash.mash_open_data(tmp_path / "a.zarr", V=np.eye(3)).known.fingerprint != first


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_workers_may_have_another_working_directory(tmp_path, monkeypatch, prefix):
    write_effects(study(2000, True, 0.1), tmp_path / "e.zarr")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    stored = mash.mash_open_data(f"{prefix}{tmp_path}/e.zarr" if prefix else "e.zarr")
    names = stored.effect_names
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert stored.read(slice(0, 3)).effect_names.tolist() == ["rs0", "rs1", "rs2"]
    assert names[5] == "rs5"


def test_one_long_label_does_not_break_the_budget(tmp_path):
    import zarr

    base = study(65_536, True)
    labels = [f"rs{i}" for i in range(65_536)]
    write_effects(Effects(base.bhat, base.shat, None, labels, NAMES), tmp_path / "e.zarr")
    zarr.open_group(tmp_path / "e.zarr", mode="r+")["effects"][777] = "x" * 5000
    work = {"memory": "50MB", "threads": 1}
    tracemalloc.start()
    try:
        stored = mash.mash_open_data(tmp_path / "e.zarr", **work)
        prior, _, _ = mash.fit_mash_prior(stored, mash.cov_canonical(stored), n_train=500, **work)
        mash.apply_mash_prior_to_store(stored, prior, tmp_path / "r.zarr", **work)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 400e6
    result = mash.MashResult.open(tmp_path / "r.zarr")
    assert len(result.effect_names[777]) == 5000
    assert result.effect_names[778] == "rs778"


def test_filled_cells_and_correlated_errors_are_warned_of(tmp_path):
    effects = study(2000, True, 0.1)
    write_effects(effects, tmp_path / "e.zarr")
    with pytest.warns(ModelWarning, match="smaller than they are"):
        mash.mash_open_data(tmp_path / "e.zarr", V=effects.V, missing="large_se")


def test_fewer_work_where_there_is_room_for_few(tmp_path):
    write_effects(study(70_000, True), tmp_path / "e.zarr")
    stored = mash.mash_open_data(tmp_path / "e.zarr", memory="40MB", threads=64)
    assert stored.known.n_missing == 0
    write_effects(study(100, True), tmp_path / "small.zarr")
    assert mash.mash_open_data(tmp_path / "small.zarr", memory="2MB", threads=64).n_effects == 100


def test_the_unit_knows_of_one_correlation_per_effect(tmp_path):
    random = np.random.default_rng(0)
    bhat = random.normal(size=(50, 40))
    effects = Effects(bhat, np.ones_like(bhat), np.broadcast_to(np.eye(40), (50, 40, 40)))
    write_effects(effects, tmp_path / "e.zarr")
    stored = mash.mash_open_data(tmp_path / "e.zarr", memory="3MB")
    assert stored.unit == 1024
    assert mash.mash_open_data(tmp_path / "e.zarr", V=np.eye(40)).unit > 1024


def test_strong_effects_and_selection_do_not_depend_on_blocks(tmp_path):
    """Scores that tie in masses are chosen by row, however the rows are cut."""
    random = np.random.default_rng(3)
    bhat = random.integers(0, 5, size=(140_000, 2)).astype(float)
    write_effects(Effects(bhat, np.ones_like(bhat)), tmp_path / "e.zarr")
    data = mash.mash_set_data(bhat)
    stored = mash.mash_open_data(tmp_path / "e.zarr")
    options = {"n_train": 1000, "method": "topz_random", "seed": 2}
    expected = mash.select_training_effects(data, **options)
    for memory, threads in (("40MB", 1), ("1GB", 3)):
        found = mash.select_training_effects(stored, **options, memory=memory, threads=threads)
        np.testing.assert_array_equal(found, expected)
    few = [
        mash.strong_effects(stored, level=0.2, most=50, memory=memory, threads=1)
        for memory in ("40MB", "1GB")
    ]
    np.testing.assert_array_equal(*few)
    assert len(few[0]) == 50


def test_blocks_send_no_more_than_is_wanted(tmp_path):
    from plait.execution.blocks import Block
    from plait.mash import selection

    write_effects(study(5000, True), tmp_path / "e.zarr")
    stored = mash.mash_open_data(tmp_path / "e.zarr")
    scores, rows = selection._at_least(stored, 0, 7, Block(0, 5000))
    assert len(scores) == len(rows) == 7
    priors = [selection.NormalMixture(np.array([0.5, 0.5]), np.array([0.0, 3.0]))] * 3
    assert len(selection._surely_signed(stored, priors, 0.5, 9, Block(0, 5000))[1]) == 9


def test_a_condition_that_was_never_measured(tmp_path):
    effects = study(3000, True, 0.05)
    errors = effects.shat.copy()
    errors[:, 1] = np.inf
    write_effects(Effects(effects.bhat, errors, None, None, NAMES), tmp_path / "e.zarr")
    stored = mash.mash_open_data(tmp_path / "e.zarr")
    screened = mash.mash_1by1(stored.read(slice(None)))
    assert (screened.lfsr[:, 1] == 1).all()
    assert (screened.posterior_mean[:, 1] == 0).all()
    strong = mash.strong_effects(stored)
    assert len(strong) > 20
    np.testing.assert_array_equal(strong, np.sort(mash.get_significant_results(screened)))


def test_rows_that_are_not_there(tmp_path):
    write_effects(study(100, True), tmp_path / "e.zarr")
    stored = mash.mash_open_data(tmp_path / "e.zarr")
    with pytest.raises(InputError, match="there is no row 100"):
        stored.read(np.array([3, 100]))
    np.testing.assert_array_equal(
        stored.read(np.array([-1])).Bhat, stored.read(np.array([99])).Bhat
    )


def test_principal_components_take_an_executor(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    write_effects(study(3000, True), tmp_path / "e.zarr")
    stored = mash.mash_open_data(tmp_path / "e.zarr")
    used = []

    class Pool(ThreadPoolExecutor):
        def submit(self, *arguments):
            used.append(1)
            return super().submit(*arguments)

    with Pool(2) as pool:
        found = mash.cov_pca(stored, 2, executor=pool, memory="100MB")
    assert used
    for name, U in mash.cov_pca(stored, 2, threads=1).items():
        np.testing.assert_array_equal(found[name], U)


def test_files_of_chunks_are_whole_or_not_there(tmp_path, monkeypatch):
    from plait.mash import workflow

    data = mash.mash_set_data(study(3000, True))
    prior, _, _ = mash.fit_mash_prior(data, mash.cov_canonical(data), n_train=300)
    prefix = tmp_path / "out"
    mash.apply_mash_prior_chunked(data, prior, out_prefix=prefix)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert "out.lfsr.npy" in before
    with pytest.raises(OutputError, match="overwrite"):
        mash.apply_mash_prior_chunked(data, prior, out_prefix=prefix)

    def fail(*_, **__):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(workflow, "apply_mixture", fail)
        with pytest.raises(MemoryError):
            mash.apply_mash_prior_chunked(data, prior, out_prefix=prefix, overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    mash.apply_mash_prior_chunked(data, prior, out_prefix=prefix, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == set(before)


def test_labels_of_a_chunked_result_stay_in_the_store(tmp_path):
    from plait.io.stored_arrays import StoredArray

    write_effects(study(2000, True, 0.1), tmp_path / "e.zarr")
    stored = mash.mash_open_data(tmp_path / "e.zarr")
    prior, _, _ = mash.fit_mash_prior(stored, mash.cov_canonical(stored), n_train=300)
    found = mash.apply_mash_prior_chunked(stored, prior)
    assert isinstance(found.effect_names, StoredArray)
    assert found.effect_names[7] == "rs7"


def test_the_spread_of_errors_is_summed_by_unit(tmp_path):
    from plait.execution.executors import Workforce
    from plait.mash import stored as module

    write_effects(study(140_000, True, 0.1), tmp_path / "e.zarr")
    data = mash.mash_open_data(tmp_path / "e.zarr")
    seen = []
    for memory in (2**26, 2**30):
        tally = module._Tally()
        blocks = data.map_blocks(module._LookOver(data), Workforce(None, 1, memory), "checking")
        for _, units in blocks:
            for unit in units:
                tally.add(unit)
        seen.append(tally.sums)
    np.testing.assert_array_equal(*seen)


def test_duplicate_labels_are_no_obstacle(tmp_path):
    import zarr

    write_effects(labelled([f"rs{i}" for i in range(3000)]), tmp_path / "e.zarr")
    group = zarr.open_group(tmp_path / "e.zarr", mode="r+")
    group["effects"][1] = "rs0"
    assert mash.mash_open_data(tmp_path / "e.zarr").n_effects == 3000
    group["shat"][1, 1] = -1.0
    with pytest.raises(InputError, match="shat is not positive"):
        mash.mash_open_data(tmp_path / "e.zarr")


def test_many_output_columns_count_in_the_budget(tmp_path):
    write_effects(study(66_000, True), tmp_path / "e.zarr")
    stored = mash.mash_open_data(tmp_path / "e.zarr")
    prior, _, _ = mash.fit_mash_prior(stored, mash.cov_canonical(stored), n_train=300)
    with pytest.raises(CapacityError, match="raise --memory"):
        mash.apply_mash_prior_to_store(
            stored, prior, tmp_path / "r.zarr", memory="100MB", mash_kwargs={"A": np.ones((40, 3))}
        )
