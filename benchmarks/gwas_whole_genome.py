"""Whole-genome regression: CPU seconds and memory as samples, variants and traits grow.

Each case runs in a process of its own, from a bed file of unlinked variants on 22 chromosomes; half
of the variance of a trait comes from 1 % of the variants. Kernels are compiled before. Small blocks
show what the second level costs with as many blocks as half a million variants have.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import peak_bytes, timed, write_results

COLUMNS = {
    "samples": "samples",
    "variants": "variants",
    "traits": "traits",
    "block": "block",
    "kept": "predictions in",
    "fit_cpu": "fit, CPU s",
    "scan_cpu": "scan, CPU s",
    "start_mb": "MB before",
    "peak_mb": "peak MB",
    "explained": "explained",
}
CASES = [
    (5000, 5000, 1, 1000, "memory"),
    (5000, 20_000, 1, 1000, "memory"),
    (10_000, 20_000, 1, 1000, "memory"),
    (10_000, 50_600, 1, 100, "memory"),
    (20_000, 20_000, 1, 1000, "memory"),
    (20_000, 20_000, 1, 1000, "a store"),
    (20_000, 20_000, 10, 1000, "memory"),
    (20_000, 40_000, 1, 1000, "memory"),
]


def write_study(folder, samples, variants, seed=1):
    """Write genotypes and ten traits."""
    from plait.data.variants import VariantTable
    from plait.io.plink import write_bed

    random = np.random.default_rng(seed)
    genetic = np.zeros((samples, 10))

    def blocks(size=1000):
        for start in range(0, variants, size):
            count = min(size, variants - start)
            cut = random.integers(13, 243, (count, 1), dtype=np.uint8)
            draws = random.integers(0, 256, (2, count, samples), dtype=np.uint8)
            calls = (draws < cut).sum(axis=0, dtype=np.int8)
            causal = random.choice(count, max(count // 100, 1), replace=False)
            scaled = calls[causal] - calls[causal].mean(axis=1, keepdims=True)
            genetic[:] += scaled.T @ random.standard_normal((len(causal), 10))
            yield calls

    chromosomes = np.sort(np.arange(variants) % 22) + 1
    table = VariantTable.of(
        chromosomes.astype(str), np.arange(1, variants + 1), ["A"] * variants, ["G"] * variants
    )
    write_bed(folder / "g.bed", blocks(), table, [f"s{i}" for i in range(samples)])
    noise = random.standard_normal(genetic.shape)
    np.save(folder / "traits.npy", genetic / genetic.std(axis=0) + noise)


def run_case(folder, traits, threads, block, kept):
    """Fit and scan; print what was measured."""
    from plait.data.phenotypes import SampleTable
    from plait.execution.threads import single_threaded_blas
    from plait.gwas import VariantFilter, genome_prediction, whole_genome
    from plait.gwas.design import make_designs
    from plait.io import open_genotypes

    genome_prediction.BLOCK = block
    if kept == "a store":
        genome_prediction._MEMORY_SHARE = 1 << 40
    genotypes = open_genotypes(folder / "g.bed")
    values = np.load(folder / "traits.npy")[:, :traits]
    names = tuple(f"t{k}" for k in range(traits))
    table = SampleTable(genotypes.samples, names, values)
    designs = make_designs(table, None, np.arange(genotypes.n_samples))
    before = peak_bytes()

    def fit():
        return whole_genome.WholeGenomeModel(
            genotypes, designs, VariantFilter(), threads=threads, folder=folder
        )

    def scan(model):
        step = genotypes.block_size()
        for runs, make in model.passes():
            work = make()
            for run in runs:
                with single_threaded_blas():
                    for start in range(run.start, run.stop, step):
                        work.run(slice(start, min(start + step, run.stop)))

    model, _, fit_cpu = timed(fit)
    _, _, scan_cpu = timed(scan, model)
    measured = {"fit_cpu": fit_cpu, "scan_cpu": scan_cpu, "start_mb": round(before / 1e6)}
    measured |= {"peak_mb": round(peak_bytes() / 1e6), "explained": float(model.explained.mean())}
    print(json.dumps(measured))


def measured(folder, *case):
    """Run a case in a process of its own."""
    words = [sys.executable, __file__, "--case", folder, *case]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--case", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        folder, *numbers, kept = options.case
        run_case(Path(folder), *map(int, numbers), kept)
        return
    with tempfile.TemporaryDirectory() as name:  # kernels are compiled once
        write_study(Path(name), 500, 2200)
        measured(name, 1, 1, 1000, "memory")
    rows, made = [], None
    folder = tempfile.TemporaryDirectory()
    for samples, variants, traits, block, kept in CASES:
        if made != (samples, variants):
            folder.cleanup()
            folder, made = tempfile.TemporaryDirectory(), (samples, variants)
            write_study(Path(folder.name), samples, variants)
        row = {"samples": samples, "variants": variants, "traits": traits, "block": block}
        found = measured(folder.name, traits, options.threads, block, kept)
        rows.append(row | {"kept": kept} | found)
        print(rows[-1], flush=True)
    folder.cleanup()
    notes = ["explained: share of the variance predicted out of fold; half of it is genetic"]
    write_results("gwas_whole_genome", rows, COLUMNS, notes, {"threads": options.threads})


if __name__ == "__main__":
    main()
