"""Whether the lfsr of a study holds its rate: simulated studies of traits on overlapping samples.

    python benchmarks/study_calibration.py [LIFT ...]

4,000 people, 4,000 unlinked variants, 120 of them with effects: a third the same on all traits, a
third independent, a third on one trait. Each trait is measured on other people, errors correlate by
0.75. For each share that is added to the diagonal of learned patterns (default: the study's own)
four studies are made, of 40 to 50 signals each; counted are effects with a small lfsr whose sign is
wrong, or which are none.
"""

import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

from plait.data.phenotypes import SampleTable
from plait.data.variants import VariantTable
from plait.io.plink import write_bed
from plait.mash import covariances
from plait.studies import StudySettings, gwas_to_mash

N, M, T, CAUSAL = 4000, 4000, 5, 120
SEEDS = (11, 12, 13, 14)
LEVELS = (0.01, 0.05)


def simulate(seed, folder):
    """Write genotypes; return traits (N, T) and the true effects (M, T)."""
    random = np.random.default_rng(seed)
    f = random.uniform(0.05, 0.5, M)
    calls = random.binomial(2, f[:, None], (M, N)).astype(np.int8)
    effects = np.zeros((M, T))
    kind, only = random.integers(0, 3, CAUSAL), random.integers(0, T, CAUSAL)
    drawn = np.where((kind == 0)[:, None], random.normal(size=(CAUSAL, 1)), 0.0) + np.where(
        (kind == 1)[:, None], random.normal(size=(CAUSAL, T)), 0.0
    )
    drawn[kind == 2, only[kind == 2]] = 1.3 * random.normal(size=int((kind == 2).sum()))
    effects[random.choice(M, CAUSAL, replace=False)] = drawn
    genetic = (calls - 2 * f[:, None]).T @ effects
    noise = random.multivariate_normal(np.zeros(T), 0.75 + 0.25 * np.eye(T), N)
    traits = genetic / genetic.std(axis=0) + noise
    order = random.permutation(N)
    traits[order[1300:], 1] = np.nan
    traits[order[:2000], 2] = np.nan
    traits[random.random(N) < 0.6, 3] = np.nan
    traits[order[:600], 4] = np.nan
    names = np.array([f"s{i}" for i in range(N)])
    chrom = [str(1 + 5 * j // M) for j in range(M)]
    ids = [f"v{j}" for j in range(M)]
    variants = VariantTable.of(chrom, 20_000 * np.arange(1, M + 1), ["A"] * M, ["G"] * M, ids)
    write_bed(folder / "g.bed", [calls], variants, names)
    return SampleTable(names, tuple(f"t{t}" for t in range(T)), traits), effects


def main():
    warnings.simplefilter("ignore")  # of few signals to learn from
    own = covariances.LEARNED_LIFT
    for lift in [float(text) for text in sys.argv[1:]] or [own]:
        covariances.LEARNED_LIFT = lift
        counts = np.zeros((len(LEVELS), 2), dtype=int)
        for seed in SEEDS:
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place)
                traits, effects = simulate(seed, folder)
                result = gwas_to_mash(
                    folder / "g.bed", traits, None, folder / "study", StudySettings(),
                    with_report=False, with_figures=False,
                )  # fmt: skip
                truth = effects[[int(name[1:]) for name in result.effect_names]]
                wrong = np.sign(result.posterior_mean) != np.sign(truth)
                lfsr = np.asarray(result.lfsr)
            for k, level in enumerate(LEVELS):
                counts[k] += (lfsr < level).sum(), (wrong & (lfsr < level)).sum()
        for level, (called, false) in zip(LEVELS, counts, strict=True):
            print(f"lift {lift:g}  lfsr < {level}  {called} effects  {false / called:.1%} wrong")


if __name__ == "__main__":
    main()
