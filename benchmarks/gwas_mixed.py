"""The mixed scan that leaves each chromosome out, against PANICLE: N = 2000, 1 % missing.

Claims: relationships, scan and exact small p-values in a fraction of the CPU seconds, with 1 trait
and with 10; growth linear in variants and samples beside the relationships; linear scans from the
file to the result, and of genotypes in memory. One thread each. PANICLE 0.5.0 needs an environment
of its own: ``--panicle-python``; without it, plait alone is measured.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from common import HERE, median, write_results
from gwas_peer import FROM_FILE, WARM_UP
from gwas_scan import measured
from scipy.special import ndtri

from plait.data.variants import VariantTable
from plait.io.plink import write_bed

SAMPLES = 2000
CHROMOSOMES = 5
CAUSAL = 100
MISSING = 0.01
LINKED = 0.9
TASKS = {
    "mixed in memory": "mixed scan, relationships included",
    "mixed": "the same, whole process from the file",
    "linear": "linear scan, whole process from the file",
    FROM_FILE: "linear scan from the file, within a process",
    "linear in memory": "linear scan of genotypes in memory",
}
COLUMNS = {
    "what": "what",
    "program": "program",
    "traits": "traits",
    "cpu": "CPU s",
    "seconds": "s",
    "peak_mb": "peak MB",
    "ratio": "PANICLE / plait, CPU",
}
GROWTH = {
    "samples": "samples",
    "variants": "variants",
    "relationships": "relationships, CPU s",
    "preparation": "preparation, CPU s",
    "scanning": "scan, CPU s",
    "leading": "leading eigenvectors",
    "error": "error of standard errors",
    "worst": "largest",
}


def write_study(folder, samples, variants, seed=1):
    """Write genotypes with linkage, and ten traits half of which is their genetics.

    Haplotypes are where a normal value, which changes a little from variant to variant, is below
    what the frequency of the allele asks for.
    """
    folder.mkdir()
    random = np.random.default_rng(seed)
    names = [f"s{i}" for i in range(samples)]
    each, every = variants // CHROMOSOMES, max(variants // CAUSAL, 1)
    genetic = np.zeros((samples, 10))

    def blocks(size=1000):
        for _ in range(CHROMOSOMES):
            values = random.standard_normal(2 * samples, dtype=np.float32)
            for start in range(0, each, size):
                calls = np.empty((min(size, each - start), samples), dtype=np.int8)
                for j, row in enumerate(calls):
                    values *= LINKED
                    news = random.standard_normal(2 * samples, dtype=np.float32)
                    values += np.float32((1 - LINKED**2) ** 0.5) * news
                    carried = values < ndtri(random.uniform(0.05, 0.95))
                    row[:] = carried[:samples].astype(np.int8) + carried[samples:]
                    if (start + j) % every == 0:
                        centred = (row - row.mean()) / row.std()
                        genetic[:] += np.outer(centred, random.standard_normal(10))
                calls[random.random(calls.shape, dtype=np.float32) < MISSING] = -1
                yield calls

    chrom = np.repeat([str(k + 1) for k in range(CHROMOSOMES)], each)
    table = VariantTable.of(
        chrom, np.arange(1, variants + 1), ["A"] * variants, ["G"] * variants,
        [f"v{j}" for j in range(variants)],
    )  # fmt: skip
    write_bed(folder / "g.bed", blocks(), table, names)
    covariates = random.standard_normal((samples, 5))
    traits = genetic / genetic.std(axis=0) + random.standard_normal((samples, 10))
    traits += covariates @ random.standard_normal((5, 10))
    for name, values in (("y1", traits[:, :1]), ("y10", traits), ("c", covariates)):
        columns = {f"{name[0]}{k}": column for k, column in enumerate(values.T)}
        pl.DataFrame({"#IID": names} | columns).write_csv(folder / f"{name}.tsv", separator="\t")


def run(python, program, task, folder, traits):
    """Measure one run: the task alone where it is in memory, else the whole process."""
    words = [python, HERE / "gwas_peer.py", program, task, folder, traits]
    if program == "plait" and task in ("mixed", "linear"):
        given = ["--geno", "g.bed", "--pheno", f"y{traits}.tsv", "--covar", "c.tsv", "--quiet"]
        words = [python, "-m", "plait", "gwas", "scan", *given, "--model", task]
        words += ["--threads", 1, "--out", "o", "--overwrite"]
    whole = measured(words, folder)
    if task in ("mixed", "linear"):
        return whole
    return json.loads((folder / "measured.json").read_text())


def compared(options, folder):
    """Return a row for every task, number of traits and program."""
    programs = {"plait": sys.executable}
    if options.panicle_python:
        programs["panicle"] = options.panicle_python
    rows = []
    for task, what in TASKS.items():
        for traits in (1, 10):
            pair = {}
            for program, python in programs.items():
                runs = [run(python, program, task, folder, traits) for _ in range(options.repeats)]
                keys = ("cpu", "seconds", "peak_mb")
                pair[program] = {key: median(one[key] for one in runs) for key in keys}
                pair[program] |= {"what": what, "program": program, "traits": traits}
                print(pair[program], flush=True)
            if len(pair) > 1:
                pair["plait"]["ratio"] = pair["panicle"]["cpu"] / pair["plait"]["cpu"]
            rows += pair.values()
    return rows


def growth(options, parent):
    """Return what the parts of the mixed scan take, by samples and variants."""
    rows, M = [], options.variants
    for samples, variants in ((SAMPLES, M), (SAMPLES, 2 * M), (2 * SAMPLES, M)):
        folder = parent / f"{samples}_{variants}"
        write_study(folder, samples, variants)
        found = run(sys.executable, "plait", "parts in memory", folder, 1)
        rows.append({"samples": samples, "variants": variants} | found)
        print(rows[-1], flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--panicle-python", help="the interpreter of an environment with PANICLE")
    parser.add_argument("--variants", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    os.environ.update(one)
    with tempfile.TemporaryDirectory() as name:
        parent = Path(name)
        write_study(parent / WARM_UP, 300, 2000)
        write_study(parent / "study", SAMPLES, options.variants)
        for task in TASKS:  # kernels are compiled once
            run(sys.executable, "plait", task, parent / WARM_UP, 10)
            if options.panicle_python:
                run(options.panicle_python, "panicle", task, parent / WARM_UP, 10)
        rows, parts = compared(options, parent / "study"), growth(options, parent)
    settings = vars(options) | {"panicle_python": None}
    notes = [
        "one trait, five chromosomes; error: the root mean square of relative errors, measured on "
        "variants that calibration has not seen",
    ]
    write_results("gwas_mixed_growth", parts, GROWTH, notes, settings)
    notes = [
        "CPU seconds are medians; PANICLE's whole process writes no results, plait's does",
        "PANICLE fills missing genotypes with the commoner homozygote, plait with the mean",
        "in memory: PANICLE's genotypes are bytes; plait's mixed scan reads the file twice",
    ]
    write_results("gwas_mixed", rows, COLUMNS, notes, settings)


if __name__ == "__main__":
    main()
