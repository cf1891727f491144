"""Snippets that users of the original know run with only the import and program changed."""

import json

import numpy as np
import pandas as pd
import pytest

from plait import mash
from plait.cli.main import main

pytestmark = pytest.mark.filterwarnings(
    "ignore:only .* effects for the principal components", "ignore:standard errors vary a lot"
)


def test_quick_start():
    sim = mash.simple_sims(nsamp=500, ncond=5, err_sd=1.0, seed=1)
    data = mash.mash_set_data(sim["Bhat"], sim["Shat"])
    U_c = mash.cov_canonical(data)
    result = mash.mash(data, Ulist=U_c)
    pm = mash.get_pm(result)
    lfsr = mash.get_lfsr(result)
    sig = mash.get_significant_results(result, thresh=0.05)
    assert pm.shape == lfsr.shape == (2000, 5)
    assert len(sig) > 50


def test_two_stage_workflow(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sim = mash.simple_sims(nsamp=500, ncond=5, err_sd=0.5, seed=2)
    Bhat, Shat = sim["Bhat"], sim["Shat"]

    data = mash.mash_set_data(Bhat, Shat, alpha=1)
    m1 = mash.mash_1by1(data)
    strong_idx = mash.get_significant_results(m1, thresh=0.05)
    data_strong = mash.mash_set_data(Bhat[strong_idx], Shat[strong_idx], alpha=1)
    U_c = mash.cov_canonical(data)
    U_pca = mash.cov_pca(data_strong, npc=5)
    U_ed = mash.cov_ed(data_strong, U_pca)
    U_all = {**U_c, **U_ed}
    workflow = mash.mash_train_apply(
        data,
        U_all,
        n_train=500,
        select_method="topz_random",
        background_fraction=0.2,
        select_seed=1,
        train_mash_kwargs={"grid": np.array([0.5, 1.0]), "outputlevel": 1},
        apply_mash_kwargs={"outputlevel": 2, "output_lfdr": True},
    )
    result = workflow.apply_result
    train_idx = workflow.train_indices
    fitted_g = workflow.train_result.fitted_g
    assert len(train_idx) == 500
    chunked = mash.apply_mash_prior_chunked(
        data,
        fitted_g,
        chunk_size=250_000,
        mash_kwargs={"outputlevel": 2, "output_lfdr": False},
        out_prefix="results/gwas40",
    )
    pm = chunked.arrays["posterior_mean"]
    assert isinstance(pm, np.memmap)
    np.testing.assert_array_equal(pm, result.posterior_mean)


def test_loading_trait_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(1)
    trait_files = [f"trait{i + 1}.csv" for i in range(5)]
    for f in trait_files:
        pd.DataFrame(
            {
                "SNP": [f"rs{j}" for j in range(60)],
                "BETA": random.normal(size=60),
                "SE": random.uniform(0.5, 1, size=60),
            }
        ).to_csv(f, index=False)

    frames = []
    for i, f in enumerate(trait_files):
        df = pd.read_csv(f)
        frame = df.set_index("SNP")[["BETA", "SE"]].rename(
            columns={"BETA": f"BETA_{i}", "SE": f"SE_{i}"}
        )
        frames.append(frame)
    merged = frames[0]
    for frame in frames[1:]:
        merged = merged.join(frame, how="inner")
    beta_cols = [f"BETA_{i}" for i in range(len(trait_files))]
    se_cols = [f"SE_{i}" for i in range(len(trait_files))]
    Bhat = merged[beta_cols].to_numpy()
    Shat = merged[se_cols].to_numpy()
    Zhat = Bhat / Shat
    data = mash.mash_set_data(Zhat, np.ones_like(Zhat))
    assert data.n_effects == 60


def test_command_line_tutorial(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sim = mash.simple_sims(nsamp=100, ncond=4, err_sd=0.5, seed=1)
    np.savetxt("bhat.csv", sim["Bhat"], delimiter=",")
    np.savetxt("shat.csv", sim["Shat"], delimiter=",")
    assert (
        main(["mash", "fit", "--bhat", "bhat.csv", "--shat", "shat.csv", "--out", "my_result"]) == 0
    )

    res = np.load("my_result.npz")
    pm = res["posterior_mean"]
    lfsr = res["lfsr"]
    sig = np.any(lfsr < 0.05, axis=1)
    assert pm.shape == (400, 4)
    assert sig.sum() > 20
    with open("my_result.json") as f:  # noqa: PTH123
        meta = json.load(f)
    assert meta["command"] == "fit"
    assert meta["loglik"] == pytest.approx(res["vloglik"].sum())

    commands = (
        "mash onebyone --bhat bhat.csv --shat shat.csv --out onebyone_out",
        "mash estimate-null-corr-simple --bhat bhat.csv --shat shat.csv --out vhat.npy",
    )
    for command in commands:
        assert main(command.split()) == 0
    assert np.load("vhat.npy").shape == (4, 4)
