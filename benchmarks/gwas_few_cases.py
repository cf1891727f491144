"""Whether whole-genome scans of cases and controls hold their rates where little can be predicted.

    python benchmarks/gwas_few_cases.py [REPLICATES]

Unlinked variants on five chromosomes, in blocks of 100 so that there are 15 of them; two
populations of the same size, FST 0.05, in which a different share are cases, or one population;
a trait of the populations alone, or of 60 variants of the first four chromosomes, too. For each
model: the share of p-values of variants without effects below 0.05, 0.01 and 0.001, with the
standard error between replicates, the range in which 95 % of shares of as many independent tests
are, the mean chi-squared of these variants, that of the variants with effects, and the share of
traits of which anything was predicted better than by the mean. ``+ PC`` is with the leading
principal component as a covariate.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import stats

from plait.data.phenotypes import SampleTable
from plait.data.variants import VariantTable
from plait.gwas import genome_prediction, principal_components, scan
from plait.io.plink import write_bed

M, CHROMOSOMES, CAUSAL = 1500, 5, 60
LEVELS = (0.05, 0.01, 0.001)
MODELS = (
    "logistic",
    "logistic + PC",
    "whole-genome",
    "whole-genome-logistic",
    "whole-genome-logistic + PC",
)
SETTINGS = (
    # samples, FST, shares of cases in the populations, variance share of variants
    (1500, 0.05, (0.03, 0.06), 0.0),
    (1000, 0.05, (0.03, 0.09), 0.0),
    (1500, 0.05, (0.30, 0.36), 0.0),
    (1500, 0.0, (0.03, 0.03), 0.0),
    (1500, 0.0, (0.06, 0.06), 0.0),
    (1500, 0.0, (0.30, 0.30), 0.0),
    (1500, 0.0, (0.06, 0.06), 0.5),
    (1500, 0.0, (0.30, 0.30), 0.5),
    (1500, 0.05, (0.03, 0.06), 0.5),
    (1500, 0.05, (0.30, 0.36), 0.5),
)


def simulate(seed, n, fst, risks, share):
    """Return genotypes (M, n), cases (n,) and which variants have effects."""
    random = np.random.default_rng(seed)
    population = np.arange(n) % 2
    f = np.tile(random.uniform(0.1, 0.9, M), (2, 1))
    if fst:
        f = random.beta(f * (1 - fst) / fst, (1 - f) * (1 - fst) / fst)
    calls = random.binomial(2, f[population].T).astype(np.int8)
    causal = np.zeros(M, dtype=bool)
    liability = random.normal(size=n)
    if share:
        causal[random.choice(M - M // CHROMOSOMES, CAUSAL, replace=False)] = True
        genetic = random.normal(size=CAUSAL) @ calls[causal]
        for p in (0, 1):  # the risks of the populations are as asked
            here = population == p
            genetic[here] = (genetic[here] - genetic[here].mean()) / genetic[here].std()
        liability = np.sqrt(share) * genetic + np.sqrt(1 - share) * liability
    return calls, (liability > stats.norm.isf(np.array(risks))[population]).astype(float), causal


def scans(calls, cases, folder):
    """Return the results of all models."""
    n = len(cases)
    names = np.array([f"s{i}" for i in range(n)])
    chrom = [str(1 + CHROMOSOMES * j // M) for j in range(M)]
    ids = [f"v{j}" for j in range(M)]
    variants = VariantTable.of(chrom, 20_000 * np.arange(1, M + 1), ["A"] * M, ["G"] * M, ids)
    write_bed(folder / "g.bed", [calls], variants, names, overwrite=True)
    table = SampleTable(names, ("trait",), cases[:, None])
    component = principal_components(folder / "g.bed", k=1)
    beside = SampleTable(component.samples, ("PC1",), component.scores)
    return {
        model: scan(
            folder / "g.bed",
            table,
            beside if model.endswith("PC") else None,
            model=model.removesuffix(" + PC"),
        )
        for model in MODELS
    }


def main():
    genome_prediction.BLOCK = 100
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    for setting in SETTINGS:
        n, fst, risks, share = setting
        start, found = time.process_time(), {model: [] for model in MODELS}
        with tempfile.TemporaryDirectory() as place:
            for seed in range(count):
                calls, cases, causal = simulate(seed, *setting)
                for model, result in scans(calls, cases, Path(place)).items():
                    tested = ~np.isnan(result.log10p[:, 0])
                    null, true = tested & ~causal, tested & causal
                    small = [(result.log10p[null, 0] < np.log10(p)).mean() for p in LEVELS]
                    squares = result.t[:, 0] ** 2
                    gain = squares[true].mean() if share else np.nan
                    any_of_it = np.nan if result.explained is None else result.explained[0] > 0
                    found[model].append([*small, squares[null].mean(), gain, any_of_it])
        tests = count * (M - (CAUSAL if share else 0))
        low, high = (stats.binom.ppf(q, tests, LEVELS) / tests for q in (0.025, 0.975))
        ranges = ", ".join(f"{a:.5f} to {b:.5f}" for a, b in zip(low, high, strict=True))
        print(
            f"\n{n} samples, FST {fst:g}, risks {risks[0]:g} and {risks[1]:g}, variance share "
            f"{share:g}: {count} replicates, {time.process_time() - start:.0f} CPU s"
        )
        print(f"95 % of rates of independent tests: {ranges}")
        print(f"{'':28}  p < 0.05 (error)   p < 0.01   p < 0.001  null   effects  predicted")
        for model, rows in found.items():
            mean, error = np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1) / count**0.5
            print(
                f"{model:28}  {mean[0]:.4f} ({error[0]:.4f})   {mean[1]:.4f}     {mean[2]:.5f}  "
                f"{mean[3]:.3f}  {mean[4]:7.3f}  {mean[5]:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
