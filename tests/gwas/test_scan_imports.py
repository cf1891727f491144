"""What a scan does without: libraries that would take more memory than the scan itself."""

import subprocess
import sys

import numpy as np
import polars as pl

from plait.data.variants import VariantTable
from plait.io.plink import write_bed

_PROGRAM = """
import sys
from plait.cli.main import main
assert main(sys.argv[1:]) == 0
unwanted = ("plait.mash", "scipy.stats", "scipy.optimize", "xarray", "pandas", "torch")
unwanted += ("numba.misc.cffiimpl",)  # of what Numba registers to compile
unwanted += ("plait.gwas.structure", "plait.gwas.harmonisation", "plait.gwas.interaction")
unwanted += ("plait.gwas.mixed", "plait.gwas.whole_genome", "scipy.linalg", "scipy.special")
print("LOADED", [name for name in unwanted if name in sys.modules])
"""


def test_a_linear_scan_with_its_tables_and_pictures(tmp_path):
    random = np.random.default_rng(3)
    names = [f"s{i}" for i in range(60)]
    calls = random.binomial(2, 0.4, (40, 60)).astype(np.int8)
    table = VariantTable.of(["1"] * 40, np.arange(1, 41), ["A"] * 40, ["G"] * 40)
    write_bed(tmp_path / "g.bed", [calls], table, names)
    traits = pl.DataFrame({"IID": names, "a": random.normal(size=60), "b": random.normal(size=60)})
    traits.write_csv(tmp_path / "y.csv")
    words = ["gwas", "scan", "--geno", "g.bed", "--pheno", "y.csv", "--out", "o", "--overwrite"]
    for _ in range(2):  # the first may have to compile
        found = subprocess.run(
            [sys.executable, "-c", _PROGRAM, *words],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1] == "LOADED []"
    assert (tmp_path / "o/qq.png").exists()
