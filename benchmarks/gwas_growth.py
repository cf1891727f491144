"""How the linear scan of a .bed grows with variants and samples, and how near the machine it is.

Within a process, one thread, 10 traits and 5 covariates. The work is that of the products,
2 N M (p + T) flops for p regressors (constant and covariates) and T traits, and N M / 4 bytes of
genotypes; all that a scan does is timed: variants read, calls counted, products, tests. The
ceilings are a float32 product of 2000 x 2000 and a copy. Products of packed calls look sums up in
tables, and so may be above the ceiling of those that multiply.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from common import best_of, median, timed, write_results
from gwas_scan import write_study
from threadpoolctl import threadpool_limits

from plait.gwas import scan

TRAITS, REGRESSORS = 10, 6
SIZES = [(2000, 50_000), (2000, 100_000), (2000, 200_000), (2000, 400_000)]
SIZES += [(1000, 50_000), (4000, 50_000), (8000, 50_000), (16_000, 50_000)]
COLUMNS = {
    "samples": "samples",
    "variants": "variants",
    "cpu": "CPU s",
    "growth": "exponent",
    "gflop": "GFLOP",
    "gbyte": "GB",
    "gflops": "GFLOP/s",
    "share_of_gemm": "% of float32 GEMM",
    "gbytes": "GB/s",
    "share_of_copy": "% of copy",
}


def ceilings():
    """Return GFLOP/s of a float32 product and GB/s of a copy, on one thread."""
    square = np.random.default_rng(0).standard_normal((2000, 2000)).astype(np.float32)
    source = np.ones(1 << 24)
    target = np.empty_like(source)
    with threadpool_limits(1, user_api="blas"):
        gemm = 16 / best_of(lambda: square @ square)
    return gemm, 2 * source.nbytes / best_of(lambda: np.copyto(target, source)) / 1e9


def seconds(samples, variants, repeats):
    """Return the median CPU seconds of a scan."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_study(folder, variants, samples=samples)
        paths = folder / "g.bed", folder / "y10.tsv", folder / "c.tsv"
        found = [timed(lambda: scan(*paths, threads=1))[2] for _ in range(1 + repeats)]
    return median(found[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    gemm, copy = ceilings()
    rows, before = [], None
    for samples, variants in SIZES:
        cpu = seconds(samples, variants, options.repeats)
        gflop = 2e-9 * samples * variants * (REGRESSORS + TRAITS)
        gbyte = 1e-9 * samples * variants / 4
        row = {"samples": samples, "variants": variants, "cpu": cpu, "gflop": gflop}
        row |= {"gbyte": gbyte, "gflops": gflop / cpu, "gbytes": gbyte / cpu}
        row |= {
            "share_of_gemm": 100 * gflop / cpu / gemm,
            "share_of_copy": 100 * gbyte / cpu / copy,
        }
        if before is not None and before["gflop"] < gflop:
            row["growth"] = float(np.log(cpu / before["cpu"]) / np.log(gflop / before["gflop"]))
        rows.append(row)
        before = row
        print(row, flush=True)
    notes = [
        f"ceilings on one thread: {gemm:.0f} GFLOP/s, {copy:.1f} GB/s",
        "exponent: of CPU seconds in the work, from the row before",
    ]
    write_results("gwas_growth", rows, COLUMNS, notes, vars(options))


if __name__ == "__main__":
    main()
