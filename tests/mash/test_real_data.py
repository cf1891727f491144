"""The road on real data: what comes out must agree with the reference and with biology."""

import numpy as np
import pandas as pd
import pytest

from plait import mash as pm
from plait.errors import InputError
from plait.mash.data import mash_set_data
from tests.reference_files import load, real_data


def wheat_data(alpha=1):
    bhat = pd.read_csv(real_data("mash", "wheat_marker_env_bhat.csv.gz"), index_col="marker")
    shat = pd.read_csv(real_data("mash", "wheat_marker_env_shat.csv.gz"), index_col="marker")
    V = pd.read_csv(real_data("mash", "wheat_phenotype_correlation.csv"), index_col=0)
    drop = ["allele_freq"]
    return mash_set_data(bhat.drop(columns=drop), shat.drop(columns=drop), alpha=alpha, V=V)


def lipids_data():
    table = pd.read_csv(real_data("mash", "lipids_z_max_per_ld_block.csv.gz"), index_col="rsid")
    return mash_set_data(table[["HDL", "LDL", "TG", "TC"]])


def test_wheat_labels_are_kept():
    data = wheat_data()
    assert data.condition_names == ("E1", "E2", "E4", "E5")
    assert data.effect_names[0] == "wPt.0538"
    assert np.all(data.Shat == 1)


@pytest.mark.filterwarnings("ignore:only .* effects for the principal components")
def test_wheat():
    """Yield effects of markers: the wet environments E2, E4, E5 share, E1 goes its own way."""
    file = load("mash", "r_wheat.npz")
    data = wheat_data()
    strong = file["strong_0based"]
    pca = pm.cov_pca(data, 3, subset=strong)
    learned = pm.cov_ed(data, pca, subset=strong)
    np.testing.assert_allclose(np.stack(list(learned.values())), file["ed_stack"], atol=1e-3)
    result = pm.mash(data, {**pm.cov_canonical(data), **learned})
    assert abs(result.loglik - 2253.498) < 3e-3
    assert result.optim["dual_gap"] <= 1e-9
    assert result.optim["objective"] >= float(file["penalised_objective"]) - 1e-3
    assert abs(len(pm.get_significant_results(result)) - 830) <= 2
    sharing = pm.get_pairwise_sharing(result)
    np.testing.assert_allclose(sharing, file["sharing"], atol=0.02)
    assert sharing[1:, 1:].min() > sharing[0, 1:].max()


def test_lipids():
    """LDL and total cholesterol share nearly everything; HDL and triglycerides oppose."""
    file = load("mash", "r_lipids.npz")
    data = lipids_data()
    pca = pm.cov_pca(data, 4)
    np.testing.assert_allclose(np.stack(list(pca.values())), file["pca_stack"], atol=1e-8)
    learned = pm.cov_ed(data, pca)
    np.testing.assert_allclose(np.stack(list(learned.values())), file["ed_stack"], rtol=1e-3)
    result = pm.mash(data, {**pm.cov_canonical(data), **learned})
    assert abs(result.loglik - float(file["fit_loglik"])) < 1e-2
    sharing = pm.get_pairwise_sharing(result)
    np.testing.assert_allclose(sharing, file["sharing"], atol=0.02)
    assert sharing[1, 3] == np.max(sharing[np.triu_indices(4, 1)])
    mean = result.posterior_mean[pm.get_significant_results(result)]
    assert np.corrcoef(mean[:, 0], mean[:, 2])[0, 1] < 0


def test_gtex_pairs_with_missing_cells():
    table = pd.read_csv(real_data("mash", "gtex_two_tissue_cis_eqtl.csv.gz"))
    bhat = table[["slope_t1", "slope_t2"]].to_numpy()
    shat = table[["slope_se_t1", "slope_se_t2"]].to_numpy()
    with pytest.raises(InputError, match="Missing data pattern"):
        pm.mash_set_data(bhat, shat)
    holes = np.isnan(bhat) | np.isnan(shat)
    data = pm.mash_set_data(np.where(holes, np.nan, bhat), np.where(holes, np.nan, shat), alpha=1)
    result = pm.mash(data, pm.cov_canonical(data))
    assert result.converged
    assert np.isfinite(result.lfsr).all()
    tested = ~holes.any(axis=1)
    signs = np.sign(bhat[tested & (result.lfsr < 0.05).all(axis=1)])
    assert np.mean(signs[:, 0] == signs[:, 1]) > 0.8
