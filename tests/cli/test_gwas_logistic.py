"""``plait gwas scan --model logistic``."""

import json

import numpy as np
import polars as pl
import pytest

from plait.cli.main import main
from plait.io import read_effects
from plait.io.plink import write_bed
from plait.simulate import cohort


@pytest.fixture
def files(tmp_path, monkeypatch):
    simulated = cohort(n_samples=300, n_variants=400, n_causal=4, seed=5)
    write_bed(tmp_path / "g.bed", simulated.blocks(), simulated.variants, simulated.samples)
    values = simulated.traits.values[:, :2]
    cases = np.where(values > np.nanquantile(values, 0.7, axis=0), 2, 1)
    frame = {"IID": simulated.samples.tolist(), "asthma": cases[:, 0], "gout": cases[:, 1]}
    pl.DataFrame(frame | {"height": values[:, 0]}).write_csv(tmp_path / "traits.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_logistic_scan(files, capsys):
    base = "gwas scan --geno g.bed --pheno traits.csv --model logistic"
    assert main(f"{base} --traits asthma,gout --out scanned".split()) == 0
    out = capsys.readouterr()
    assert "90 cases and 210 controls" in out.out + out.err
    about = json.loads((files / "scanned" / "run.json").read_text())
    assert about["options"]["model"] == "logistic"
    effects = read_effects(files / "scanned" / "effects.zarr")
    assert effects.contexts == ("asthma", "gout")
    assert main(f"{base} --out other".split()) == 2
    out = capsys.readouterr()
    assert "'height' has 300 values" in out.err
