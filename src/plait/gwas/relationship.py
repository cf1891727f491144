"""Genomic relationships of samples: one pass over the genotypes, a matrix for each chromosome.

Sums are kept by chromosome, so that the matrix without any one of them is a subtraction.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from plait.data.genotype_blocks import read_block
from plait.data.genotypes import GenotypeSource
from plait.errors import CapacityError, InputError, LabelError, OptionError
from plait.execution.memory import memory_budget
from plait.execution.progress import stage
from plait.execution.threads import resolve_threads, single_threaded_blas
from plait.gwas.quality import VariantFilter

Array = NDArray[np.float64]
Item = TypeVar("Item")
Output = TypeVar("Output")

_PANEL = 512
"""Samples of a panel: a thread multiplies two panels at a time, whatever the number of threads."""
_VARIANTS = 2048
"""Variants that are multiplied together: sums over them are in single precision."""
_GRAIN = 1024
_METHODS = ("vanraden", "gcta")


@dataclass(frozen=True, eq=False)
class Relationships:
    """Sums of products of genotypes over variants, by chromosome.

    Attributes
    ----------
    samples : (N,) array of str
    chromosomes : tuple of str
    sums : (chromosomes, N, N) float32 array
        Not divided by anything; added up in double precision.
    norms : (chromosomes,) array
        What to divide by.
    n_variants : (chromosomes,) int array
    method : {"vanraden", "gcta"}
    """

    samples: NDArray[np.str_]
    chromosomes: tuple[str, ...]
    sums: NDArray[np.float32]
    norms: Array
    n_variants: NDArray[np.int64]
    method: str

    def matrix(self, without: str | None = None) -> Array:
        """Return the relationship matrix (N, N), of all chromosomes or all but one.

        Raises
        ------
        LabelError
            There is no such chromosome.
        InputError
            No variant of the chromosomes counts.
        """
        kept = np.ones(len(self.chromosomes), dtype=bool)
        if without is not None:
            if without not in self.chromosomes:
                raise LabelError(f"there is no chromosome {without!r} among the relationships.")
            kept[self.chromosomes.index(without)] = False
        norm = float(self.norms[kept].sum())
        if not norm > 0:
            where = "" if without is None else f" once chromosome {without!r} is left out"
            raise InputError(
                f"no variant is common enough to tell how samples are related{where}. Give more "
                "variants, or (in a scan) loco=False."
            )
        total = np.zeros(self.sums.shape[1:])
        for k in np.flatnonzero(kept):
            total += self.sums[k]
        total /= norm
        return total


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
    added up in double precision every 2048 variants; 4 bytes for each chromosome and pair.
    """
    if method not in _METHODS:
        raise OptionError(f"method is {method!r}; give 'vanraden' or 'gcta'.")
    rows = np.arange(genotypes.n_samples) if samples is None else np.asarray(samples)
    runs = genotypes.variants.chromosomes if by_chromosome else [("all", slice(0, None))]
    names = tuple(dict.fromkeys(name for name, _ in runs))
    n = len(rows)
    if (needed := (4 * len(names) + 16) * n * n) > memory_budget(memory):
        raise CapacityError(
            f"relationships of {n:,} samples on {len(names)} chromosomes take "
            f"{needed / 2**30:.1f} GiB. Raise memory, or give by_chromosome=False."
        )
    sums, norms = np.zeros((len(names), n, n), dtype=np.float32), np.zeros(len(names))
    counted = np.zeros(len(names), dtype=np.int64)
    rules = VariantFilter(None, None, min_frequency)

    def made(block: slice) -> tuple[NDArray[np.float32], float, int]:
        return scaled_genotypes(genotypes, block, rows, method, rules, _VARIANTS)

    with (
        single_threaded_blas(),
        ThreadPoolExecutor(resolve_threads(threads)) as pool,
        stage("relationships", genotypes.n_variants) as advance,
    ):
        for name, run in runs:
            k, total = names.index(name), np.zeros((n, n))
            blocks = _cut(run, genotypes.n_variants)
            for block, (values, norm, used) in zip(
                blocks, _one_ahead(pool, made, blocks), strict=True
            ):
                list(pool.map(partial(_add_products, values, total), _tiles(n)))
                norms[k] += norm
                counted[k] += used
                advance(block.stop - block.start)
            for one, two in _tiles(n):
                total[two, one] = total[one, two].T
            sums[k] += total
    return Relationships(genotypes.samples[rows], names, sums, norms, counted, method)


def _cut(run: slice, n_variants: int) -> list[slice]:
    start, stop, _ = run.indices(n_variants)
    return [slice(a, min(a + _VARIANTS, stop)) for a in range(start, stop, _VARIANTS)]


def _one_ahead(
    pool: ThreadPoolExecutor, function: Callable[[Item], Output], items: Sequence[Item]
) -> Iterator[Output]:
    """Yield ``function(item)`` of each item, while the pool already works on the next one."""
    ahead = None
    for item in items:
        behind, ahead = ahead, pool.submit(function, item)
        if behind is not None:
            yield behind.result()
    if ahead is not None:
        yield ahead.result()


def _tiles(n: int) -> list[tuple[slice, slice]]:
    """Return the pairs of panels on and below the diagonal."""
    panels = [slice(a, min(a + _PANEL, n)) for a in range(0, n, _PANEL)]
    return [(one, two) for i, one in enumerate(panels) for two in panels[: i + 1]]


def _add_products(values: NDArray[np.float32], total: Array, tile: tuple[slice, slice]) -> None:
    one, two = tile
    total[one, two] += values[:, one].T @ values[:, two]


def scaled_genotypes(
    genotypes: GenotypeSource,
    block: slice,
    rows: NDArray[np.integer],
    method: str,
    rules: VariantFilter,
    height: int = _GRAIN,
) -> tuple[NDArray[np.float32], float, int]:
    """Return centred and scaled genotypes, what they add to the norm, and how many count.

    Genotypes are (``height``, N); variants that do not count, and padding, are rows of zeros.
    """
    read = read_block(genotypes, block, rows)
    removed, frequency = rules.removed(read.calls), read.calls.frequency
    used = ~np.logical_or.reduce(list(removed.values()))
    variance = np.where(used, genotypes.ploidy * frequency * (1 - frequency), 1.0)
    scales = used / np.sqrt(variance) if method == "gcta" else used.astype(np.float64)
    out = np.zeros((height, len(rows)), dtype=np.float32)
    for part, tile, places in read.tiles(np.float32):
        factors = scales[part, None].astype(np.float32)
        np.multiply(tile[places, : len(rows)], factors, out=out[part])
    norm = float(variance[used].sum()) if method == "vanraden" else float(used.sum())
    return out, norm, int(used.sum())
