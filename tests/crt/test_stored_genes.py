"""Gene-level tests into a store: the same bits however often a run was killed, and null draws."""

import math
import subprocess
import sys

import numpy as np
import pytest

from plait.crt import gene_tests, stored_pairs
from plait.crt.gene_results import GeneTestResult
from plait.crt.gene_tests import BlockOfPairs
from plait.errors import DataWarning, OptionError, OutputError
from tests.crt.test_gene_screen import ready

KILLED = """
import os, sys
from plait.crt import gene_tests, stored_pairs
from tests.crt.test_gene_screen import ready

gene_tests._LEAST_WORK = 1  # small blocks, so that some are left
region, count = stored_pairs.write_region, []

def dying(*given):
    digest = region(*given)
    count.append(digest)
    if len(count) == 5:
        os.kill(os.getpid(), 9)
    return digest

stored_pairs.write_region = dying
screen = ready(moi=sys.argv[2], resampling=sys.argv[3])
keep = sys.argv[3] == "sceptre_staged"
screen.run_discovery(threads=1, out=sys.argv[1], keep_draws=keep)
"""


@pytest.mark.parametrize(
    ("moi", "resampling"), [("high", "analytic"), ("low", "analytic"), ("high", "sceptre_staged")]
)
def test_a_killed_run_goes_on(tmp_path, monkeypatch, moi, resampling):
    out = tmp_path / "found.zarr"
    died = subprocess.run([sys.executable, "-c", KILLED, str(out), moi, resampling], check=False)
    assert died.returncode == -9
    assert not out.exists()
    monkeypatch.setattr(gene_tests, "_LEAST_WORK", 1, raising=False)
    worked, work = [], BlockOfPairs.__call__
    monkeypatch.setattr(
        BlockOfPairs, "__call__", lambda self, block: worked.append(block) or work(self, block)
    )
    screen = ready(moi=moi, resampling=resampling)
    keep = resampling == "sceptre_staged"
    found = screen.run_discovery(out=out, keep_draws=keep)
    assert screen.discovery is found
    tested = int(found.pass_qc.sum())
    assert 0 < sum(map(len, worked)) < tested
    alone = ready(moi=moi, resampling=resampling).run_discovery()
    again = GeneTestResult.load(out)
    for one in (found, again):
        for name, dims in GeneTestResult.dims.items():
            if dims == ("pairs",) and getattr(alone, name) is not None:
                np.testing.assert_array_equal(getattr(one, name), getattr(alone, name))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.zarr"]
    with pytest.raises(OutputError, match="exists"):
        screen.run_discovery(out=out)


def test_all_analyses_have_stores(tmp_path):
    screen = ready(pairs=[("T0", "T0"), ("T1", "gene3")], positive_control_pairs=[("T0", "T0")])
    for name, run in (
        ("calibration", screen.run_calibration_check),
        ("power", screen.run_power_check),
        ("discovery", screen.run_discovery),
    ):
        found = run(out=tmp_path / f"{name}.zarr")
        assert found.analysis == name
        assert GeneTestResult.load(tmp_path / f"{name}.zarr").allclose(run(), rtol=0)


def test_pairs_of_which_none_can_be_tested(tmp_path):
    screen = ready(pairs=[("T0", "T0")]).quality_control(min_treated=400)
    found = screen.run_discovery(out=tmp_path / "none.zarr")
    assert not found.pass_qc.any()
    assert GeneTestResult.load(tmp_path / "none.zarr").allclose(screen.run_discovery(), rtol=0)


@pytest.mark.parametrize("other", [{"side": "left"}, {"moi": "low"}, {"effect": -1.0}])
def test_a_run_does_not_go_on_with_other_data_or_parameters(tmp_path, monkeypatch, other):
    region, written = stored_pairs.write_region, []

    def stopping(*given):
        written.append(given)
        if len(written) == 3:
            raise KeyboardInterrupt
        return region(*given)

    out = tmp_path / "found.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(stored_pairs, "write_region", stopping)
        patch.setattr(gene_tests, "_LEAST_WORK", 1, raising=False)
        with pytest.raises(KeyboardInterrupt):
            ready(resampling="sceptre_staged").run_discovery(out=out, threads=1)
    screen = ready(resampling="sceptre_staged", **other)
    with pytest.warns(DataWarning, match="cannot be continued"):
        found = screen.run_discovery(out=out)
    assert found.allclose(screen.run_discovery(), rtol=0)


@pytest.mark.parametrize("approximation", ["skew_normal", "no_approximation"])
@pytest.mark.parametrize("strategy", ["union", "bonferroni"])
def test_p_values_are_those_of_the_draws_that_are_kept(tmp_path, strategy, approximation):
    out = tmp_path / "found.zarr"
    screen = ready(
        effect=-1.2,
        resampling="sceptre_staged",
        strategy=strategy,
        approximation=approximation,
        level=0.1,
        side="left",
    )
    found = screen.run_discovery(out=out, keep_draws=True)
    draws = np.asarray(found.null_draws)
    kept = np.isfinite(draws).sum(axis=1)
    sizes = {1: 499, 2: 4999, 3: 4999 if approximation == "skew_normal" else draws.shape[1]}
    stages = np.where(found.pass_qc, found.stage, 0)
    assert kept.tolist() == [sizes.get(int(stage), 0) for stage in stages]
    assert {1, 2 if approximation == "skew_normal" else 3} <= set(stages.tolist())
    counted = np.flatnonzero(found.p_method == "empirical")
    times = 2 if strategy == "bonferroni" else 1
    for row in counted:
        null = draws[row, : kept[row]]
        p = (1 + np.sum(null <= found.z_orig[row])) / (kept[row] + 1)
        assert found.p_value[row] == pytest.approx(min(1, times * p), rel=1e-12)
    assert np.isfinite(found.xi[stages == 2]).all()
    opened = GeneTestResult.open(out)
    np.testing.assert_array_equal(opened.null_draws[:3], draws[:3])
    assert found.to_frame().equals(screen.run_discovery().to_frame())
    assert math.isclose(GeneTestResult.load(out).p_value[0], found.p_value[0])


def test_draws_are_kept_only_where_there_are_some(tmp_path):
    out = tmp_path / "x.zarr"
    with pytest.raises(OptionError, match="analytic p-values are made without drawing any"):
        ready().run_discovery(out=out, keep_draws=True)
    with pytest.raises(OptionError, match="keep_draws needs out"):
        ready(resampling="sceptre_staged").run_calibration_check(keep_draws=True)
    assert not out.exists()
