"""A cohort with realistic linkage disequilibrium, and traits of known genetics."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.data.phenotypes import SampleTable
from plait.data.variants import VariantTable
from plait.errors import CapacityError, DependencyError, OptionError

Array = NDArray[np.float64]

TRAITS = ("trait1", "trait2", "trait3", "trait4", "trait5")
"""The first three share their genetics, the fourth half of it, the fifth is on its own."""

_GENETIC = np.array(
    [
        [1.0, 0.95, 0.9, 0.5, 0.0],
        [0.95, 1.0, 0.9, 0.5, 0.0],
        [0.9, 0.9, 1.0, 0.5, 0.0],
        [0.5, 0.5, 0.5, 1.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 1.0],
    ]
)
_ENVIRONMENT = 0.3
_HERITABILITY = 0.3
_POPULATION_SIZE = 10_000
_MUTATION_RATE = 1.25e-8
_RECOMBINATION_RATE = 1.2e-8
_COMMON = 0.01
_VARIANTS_PER_BASE = 1.9e-3
"""Variants of a frequency of at least 1 % that these rates give."""


@dataclass(frozen=True, eq=False)
class Cohort:
    """A simulated cohort.

    Attributes
    ----------
    calls : (M, N) int8 array
        Copies of the effect allele.
    variants : VariantTable
    traits, covariates : SampleTable
        Five traits; age, sex and a batch.
    causal : (C,) int array
        Variants with effects, ascending. The last chromosome has none.
    truth : (C, T) array
        Their effects, in units of the standard deviation of the trait.
    """

    calls: NDArray[np.int8]
    variants: VariantTable
    traits: SampleTable
    covariates: SampleTable
    causal: NDArray[np.intp]
    truth: Array

    @property
    def samples(self) -> NDArray[np.str_]:
        """Names of the samples (N,)."""
        return self.traits.samples

    def blocks(self, size: int = 4096) -> Iterator[NDArray[np.int8]]:
        """Yield the calls block by block, as writers take them."""
        for start in range(0, len(self.calls), size):
            yield self.calls[start : start + size]

    def marginal_effects(self) -> Array:
        """Return the effect (M, T) of every variant by itself, through linkage with causal ones.

        It is exactly what a regression on the variant alone estimates: ``sum_c cov(g, g_c) b_c /
        var(g)`` over the samples, with causal variants of the same chromosome alone, 0 elsewhere.
        """
        out = np.zeros((len(self.calls), self.truth.shape[1]))
        for _, run in self.variants.chromosomes:
            inside = (self.causal >= run.start) & (self.causal < run.stop)
            if not inside.any():
                continue
            genotypes = self.calls[run].astype(np.float64)
            genotypes -= genotypes.mean(axis=1, keepdims=True)
            causal = genotypes[self.causal[inside] - run.start]
            covariances = genotypes @ causal.T
            out[run] = covariances @ self.truth[inside] / (genotypes**2).sum(axis=1)[:, None]
        return out


def cohort(
    n_samples: int = 2000, n_variants: int = 20_000, n_causal: int = 60, seed: int = 1
) -> Cohort:
    """Simulate genotypes by the coalescent with recombination, and five traits.

    Parameters
    ----------
    n_samples, n_variants : int
        Variants have a frequency of at least 1 %, on five chromosomes of equal length.
    n_causal : int
        Variants with effects, on all chromosomes but the last.
    seed : int

    Returns
    -------
    Cohort

    Raises
    ------
    DependencyError
        msprime is not installed.

    Notes
    -----
    Population of 10,000, 1.25e-8 mutations and 1.2e-8 recombinations per base and generation
    (Kelleher, Etheridge and McVean 2016). Effects of a causal variant on the traits are normal with
    the correlations of `TRAITS`; together they make up 30 % of each trait. What is left correlates
    by 0.3 between traits, as it does when traits are measured on the same people.
    """
    if n_samples < 50 or n_variants < 100 or not 1 <= n_causal <= n_variants // 4:
        raise OptionError(
            f"a cohort of {n_samples} samples, {n_variants} variants and {n_causal} causal ones is "
            "too small; give at least 50 samples, 100 variants and 4 variants per causal one."
        )
    if n_samples * n_variants > 4 << 30:
        raise CapacityError(
            f"{n_samples:,} x {n_variants:,} genotypes do not fit; simulate fewer variants."
        )
    random = np.random.default_rng(np.random.SeedSequence([seed, 0]))
    calls, chrom, pos = _genotypes(n_samples, n_variants, seed)
    names = np.array([f"person{i + 1:05d}" for i in range(n_samples)])
    ids = [f"{c}_{p}" for c, p in zip(chrom, pos, strict=True)]
    letters = np.array(["A", "C", "G", "T"])
    oa = random.integers(0, 4, len(pos))
    ea = (oa + random.integers(1, 4, len(pos))) % 4
    variants = VariantTable.of(chrom, pos, letters[oa], letters[ea], ids)
    last = variants.chromosomes[-1][1]
    causal = np.sort(random.choice(last.start, n_causal, replace=False))
    truth = random.multivariate_normal(np.zeros(5), _GENETIC, n_causal, method="cholesky")
    frequency = calls[causal].mean(axis=1) / 2
    truth /= np.sqrt(2 * frequency * (1 - frequency))[:, None]
    genetic = (calls[causal] - 2 * frequency[:, None]).T @ truth
    scale = np.sqrt(_HERITABILITY) / genetic.std(axis=0)
    truth, genetic = truth * scale, genetic * scale
    residual = np.full((5, 5), _ENVIRONMENT) + (1 - _ENVIRONMENT) * np.eye(5)
    noise = random.multivariate_normal(np.zeros(5), residual, n_samples, method="cholesky")
    age, sex = random.uniform(20, 80, n_samples), random.integers(0, 2, n_samples)
    batch = random.integers(0, 3, n_samples)
    shifts = 0.01 * (age[:, None] - 50) + 0.4 * sex[:, None] + 0.2 * (batch == 2)[:, None]
    values = genetic + np.sqrt(1 - _HERITABILITY) * noise + shifts
    covariates = np.column_stack([age, sex, batch == 1, batch == 2]).astype(np.float64)
    return Cohort(
        calls,
        variants,
        SampleTable(names, TRAITS, values),
        SampleTable(names, ("age", "sex", "batch1", "batch2"), covariates),
        causal,
        truth,
    )


def _genotypes(
    n_samples: int, n_variants: int, seed: int
) -> tuple[NDArray[np.int8], list[str], NDArray[np.int64]]:
    """Return calls, chromosomes and positions of common variants on five chromosomes."""
    parts: list[Any] = []
    each = -(-n_variants // 5)
    for chromosome in range(5):
        length = 1.3 * each / _VARIANTS_PER_BASE
        seeds = np.random.SeedSequence([seed, 1, chromosome]).generate_state(2)
        while True:
            calls, pos = _simulated(n_samples, length, seeds)
            if len(pos) >= each:
                break
            length *= 1.5
        parts.append((calls[:each], pos[:each]))
    chrom = [str(k + 1) for k, (_, pos) in enumerate(parts) for _ in range(len(pos))]
    calls = np.concatenate([calls for calls, _ in parts])[:n_variants]
    return calls, chrom[:n_variants], np.concatenate([pos for _, pos in parts])[:n_variants]


def _simulated(
    n_samples: int, length: float, seeds: NDArray[Any]
) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    try:
        import msprime
    except ModuleNotFoundError as error:
        raise DependencyError(
            "a simulated cohort needs msprime: pip install 'plait[simulate]'."
        ) from error
    trees = msprime.sim_ancestry(
        samples=n_samples,
        sequence_length=round(length),
        population_size=_POPULATION_SIZE,
        recombination_rate=_RECOMBINATION_RATE,
        random_seed=int(seeds[0] % (2**31 - 2)) + 1,
    )
    trees = msprime.sim_mutations(
        trees,
        rate=_MUTATION_RATE,
        model=msprime.BinaryMutationModel(),
        random_seed=int(seeds[1] % (2**31 - 2)) + 1,
    )
    rows, places = [], []
    fewest = _COMMON * 2 * n_samples
    for variant in trees.variants():
        copies = int(variant.genotypes.sum())
        if fewest <= copies <= 2 * n_samples - fewest:
            rows.append(variant.genotypes.reshape(-1, 2).sum(axis=1).astype(np.int8))
            places.append(round(variant.site.position) + 1)
    return np.array(rows, dtype=np.int8).reshape(-1, n_samples), np.array(places, dtype=np.int64)
