"""The road on real data: what comes out must agree with the reference and with biology."""

import numpy as np
import pandas as pd

from plait.mash.data import mash_set_data
from tests.reference_files import real_data


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
