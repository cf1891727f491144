"""Genomic relationships of samples: one pass over the genotypes, a matrix for each chromosome.

Sums are kept by chromosome, so that the matrix without any one of them is a subtraction.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plait.data.genotypes import GenotypeCounts, GenotypeSource
from plait.errors import CapacityError, LabelError, OptionError
from plait.execution.memory import memory_budget
from plait.execution.progress import stage
from plait.execution.threads import resolve_threads, single_threaded_blas
from plait.gwas.quality import VariantFilter

Array = NDArray[np.float64]

_PANEL = 512
"""Samples of a panel: what one thread multiplies at a time; the same for any number of threads."""
_VARIANTS = 1024
_METHODS = ("vanraden", "gcta")


@dataclass(frozen=True, eq=False)
class Relationships:
    """Sums of products of genotypes over variants, by chromosome.

    Attributes
    ----------
    samples : (N,) array of str
    chromosomes : tuple of str
    sums : (chromosomes, N, N) array
        Not divided by anything.
    norms : (chromosomes,) array
        What to divide by.
    n_variants : (chromosomes,) int array
    method : {"vanraden", "gcta"}
    """

    samples: NDArray[np.str_]
    chromosomes: tuple[str, ...]
    sums: Array
    norms: Array
    n_variants: NDArray[np.int64]
    method: str

    def matrix(self, without: str | None = None) -> Array:
        """Return the relationship matrix (N, N), of all chromosomes or all but one."""
        kept = np.ones(len(self.chromosomes), dtype=bool)
        if without is not None:
            if without not in self.chromosomes:
                raise LabelError(f"there is no chromosome {without!r} among the relationships.")
            kept[self.chromosomes.index(without)] = False
        total = self.sums.sum(axis=0) if kept.all() else self.sums[kept].sum(axis=0)
        result: Array = total / self.norms[kept].sum()
        return result


def relationship_matrix(
    genotypes: GenotypeSource,
    method: str = "vanraden",
    *,
    samples: NDArray[np.integer] | None = None,
    min_frequency: float = 0.01,
    by_chromosome: bool = True,
    memory: int | str | None = None,
    threads: int | None = None,
) -> Relationships:
    """Compute genomic relationships.

    Parameters
    ----------
    genotypes : GenotypeSource
    method : {"vanraden", "gcta"}
        "vanraden": ``W W^T / (2 sum f (1 - f))`` with ``w = g - 2 f`` (VanRaden 2008, method 1).
        "gcta": ``Z Z^T / M`` with ``z = w / sqrt(2 f (1 - f))`` (Yang et al. 2011).
    samples : integers, optional
        Numbers of the samples. Default all.
    min_frequency : float
        Variants whose rarer allele is rarer than this do not count.
    by_chromosome : bool
        Keep a sum for each chromosome (for leaving one out), or one for all.
    memory : int or str, optional
        Bytes for the matrices. Default half of what is free.
    threads : int, optional

    Returns
    -------
    Relationships

    Raises
    ------
    CapacityError
        The matrices do not fit.

    Notes
    -----
    A missing genotype counts as the mean of its variant. Cost: N^2 M flops in single precision,
    added up in double precision every 1024 variants.
    """
    if method not in _METHODS:
        raise OptionError(f"method is {method!r}; give 'vanraden' or 'gcta'.")
    rows = np.arange(genotypes.n_samples) if samples is None else np.asarray(samples)
    runs = genotypes.variants.chromosomes if by_chromosome else [("all", slice(0, None))]
    names = tuple(dict.fromkeys(name for name, _ in runs))
    n = len(rows)
    if (needed := 8 * len(names) * n * n) > memory_budget(memory):
        raise CapacityError(
            f"relationships of {n:,} samples on {len(names)} chromosomes take "
            f"{needed / 2**30:.1f} GiB. Raise memory, or give by_chromosome=False."
        )
    sums, norms = np.zeros((len(names), n, n)), np.zeros(len(names))
    counted = np.zeros(len(names), dtype=np.int64)
    rules = VariantFilter(None, None, min_frequency)
    with (
        single_threaded_blas(),
        ThreadPoolExecutor(resolve_threads(threads)) as pool,
        stage("relationships", genotypes.n_variants) as advance,
    ):
        for name, run in runs:
            k = names.index(name)
            start, stop, _ = run.indices(genotypes.n_variants)
            for first in range(start, stop, _VARIANTS):
                block = slice(first, min(first + _VARIANTS, stop))
                values, norm, used = scaled_genotypes(genotypes, block, rows, method, rules)
                panels = list(_panels(n))
                products = pool.map(
                    lambda panel, z=values: z[:, panel].T @ z[:, : panel.stop], panels
                )
                for panel, product in zip(panels, products, strict=True):
                    sums[k, panel, : panel.stop] += product
                norms[k] += norm
                counted[k] += used
                advance(block.stop - block.start)
    for matrix in sums:
        lower = np.tril_indices(n, -1)
        matrix.T[lower] = matrix[lower]
    return Relationships(genotypes.samples[rows], names, sums, norms, counted, method)


def _panels(n: int) -> Iterator[slice]:
    for start in range(0, n, _PANEL):
        yield slice(start, min(start + _PANEL, n))


def scaled_genotypes(
    genotypes: GenotypeSource,
    block: slice,
    rows: NDArray[np.integer],
    method: str,
    rules: VariantFilter,
) -> tuple[NDArray[np.float32], float, int]:
    """Return centred and scaled genotypes, what they add to the norm, and how many count.

    Genotypes are (`_VARIANTS`, N); variants that do not count, and padding, are rows of zeros.
    """
    from plait.data.genotype_kernels import count_genotypes, decode
    from plait.gwas.kernels import centred_values

    packed = genotypes.read_packed(block, rows)
    counts = count_genotypes(packed, len(rows))
    values, frequency, squares = (
        np.zeros((len(packed), 4)), np.empty(len(packed)), np.empty(len(packed))
    )  # fmt: skip
    centred_values(counts, values, frequency, squares)
    removed = rules.removed(GenotypeCounts.of_codes(counts))
    used = ~np.logical_or.reduce(list(removed.values()))
    values[~used] = 0.0
    variance = 2 * frequency * (1 - frequency)
    if method == "gcta":
        values[used] /= np.sqrt(variance[used])[:, None]
    out = np.zeros((_VARIANTS, 4 * packed.shape[1]), dtype=np.float32)
    decode(packed, values.astype(np.float32), out[: len(packed)])
    norm = float(variance[used].sum()) if method == "vanraden" else float(used.sum())
    return out[:, : len(rows)], norm, int(used.sum())
