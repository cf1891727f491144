"""Which variants two samples lack together: whole numbers, from lists or from bits.

Where few genotypes are missing, the samples that lack a variant are few, and their pairs are
counted one by one. Where many are, bits of 64 variants are compared at a time, for all pairs.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plait.data.genotype_blocks import CallBlock, GenotypeBlock
from plait.data.genotypes import pack

_MANY = 1 / 300
"""Pairs that lack a variant together, of all, from which bits are faster."""


class Missing(ABC):
    """Which genotypes of a block are missing."""

    @abstractmethod
    def add(self, task: slice | tuple[slice, slice], triangle: NDArray[np.int32]) -> None:
        """Add how many variants pairs of samples lack together to the rows of a lower triangle.

        A task is a panel of samples or a pair of panels; doing both, of all, adds every pair once.
        """


@dataclass(frozen=True, eq=False)
class _Lists(Missing):
    """The samples that lack each variant, and the variants that each sample lacks.

    Variant j is missing in ``samples[variant_starts[j]:variant_starts[j + 1]]``, ascending; so too
    for samples.
    """

    variant_starts: NDArray[np.int64]
    samples: NDArray[np.int32]
    sample_starts: NDArray[np.int64]
    variants: NDArray[np.int32]

    def add(self, task: slice | tuple[slice, slice], triangle: NDArray[np.int32]) -> None:
        from plait.gwas.relationship_kernels import add_jointly_listed

        if isinstance(task, slice):
            lists = self.variant_starts, self.samples, self.sample_starts, self.variants
            add_jointly_listed(*lists, task.start, task.stop, triangle)


@dataclass(frozen=True, eq=False)
class _Bits(Missing):
    """A bit for each variant that a sample lacks, (N, words of 64 variants)."""

    words: NDArray[np.uint64]

    def add(self, task: slice | tuple[slice, slice], triangle: NDArray[np.int32]) -> None:
        from plait.gwas.relationship_kernels import add_jointly_set

        if not isinstance(task, slice):
            one, two = task
            add_jointly_set(self.words, one.start, one.stop, two.start, two.stop, triangle)


def missing_genotypes(read: GenotypeBlock, used: NDArray[np.bool_]) -> Missing | None:
    """Return which genotypes of the variants ``used`` (n,) are missing; None if there is none."""
    from plait.gwas.relationship_kernels import listed, lists_turned, turn_calls
    from plait.numerics.lane_kernels import WORDS

    numbers, n = np.where(used, read.calls.n_missing, 0), read.n_samples
    lacking = np.flatnonzero(numbers)
    if not len(lacking):
        return None
    if np.square(numbers, dtype=np.float64).sum() > _MANY * n * n * len(lacking):
        bits = np.packbits(read.is_missing(lacking), axis=0, bitorder="little")
        held = np.zeros((n, 8 * -(-len(bits) // 8)), dtype=np.uint8)
        held[:, : len(bits)] = bits.T
        return _Bits(held.view(np.uint64))
    if isinstance(read, CallBlock):
        packed = read.packed
    else:
        packed = pack(-read.is_missing(np.arange(len(read))).astype(np.int8))
    words = -(-len(read) // 64)
    planes = np.empty((-(-n // WORDS), words, 2 * WORDS), dtype=np.uint64)
    missing = np.empty((n, words), dtype=np.uint64)
    turn_calls(packed, used, planes, missing)
    sample_starts, variants = listed(missing)
    variant_starts, samples = lists_turned(sample_starts, variants, len(read))
    return _Lists(variant_starts, samples, sample_starts, variants)
