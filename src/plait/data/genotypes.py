"""Genotypes: what every source of them offers, whatever its format."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from plait.data.variants import VariantTable
from plait.errors import LabelError, OptionError, ShapeError

Rows = slice | NDArray[np.integer[Any]]
Packed = NDArray[np.uint8]

_BLOCK_BYTES = 32 << 20
_SMALLEST_BLOCK = 256
_LARGEST_BLOCK = 16_384

PACKED_MISSING = 1
"""Two-bit codes, as in PLINK's bed: 0 two copies of the effect allele, 1 missing, 2 one, 3 none."""


@dataclass(frozen=True, eq=False)
class HaploidCounts:
    """What samples carry that have one copy of a variant, or none, (M,) each.

    Attributes
    ----------
    n_called : int array
        Samples of one copy that have a genotype.
    allele_count : array
        Sum of their dosages, in which an allele counts twice.
    n_without : int array
        Samples that do not have the chromosome: females on Y. Their genotypes are missing.
    """

    n_called: NDArray[np.int64]
    allele_count: NDArray[Any]
    n_without: NDArray[np.int64]


class AlleleCounts(ABC):
    """What rules for variants need to know; (M,) each."""

    n_missing: NDArray[np.int64]
    haploid: HaploidCounts | None

    @property
    @abstractmethod
    def _sums(self) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]:
        """Samples with a genotype, the sum of their dosages, and the largest that it could be."""

    @property
    def call_rate(self) -> NDArray[np.float64]:
        """Share of the samples that have a genotype, of those that have the chromosome."""
        called, _, _ = self._sums
        asked = called + self.n_missing
        if self.haploid is not None:
            asked = asked - self.haploid.n_without
        rate: NDArray[np.float64] = called / np.maximum(asked, 1)
        return rate

    @property
    def minor_count(self) -> NDArray[Any]:
        """Copies of the rarer allele, expected ones of dosages: one of a haploid, as in PLINK 2."""
        _, copies, total = self._sums
        if self.haploid is not None:
            copies = copies - 0.5 * self.haploid.allele_count
            total = total - self.haploid.n_called
        count: NDArray[Any] = np.minimum(copies, total - copies)
        return count

    @property
    def minor_frequency(self) -> NDArray[np.float64]:
        """Frequency of the rarer allele; 0 without any genotype. Dosages weigh alike."""
        _, copies, total = self._sums
        result: NDArray[np.float64] = np.minimum(copies, total - copies) / np.maximum(total, 1)
        return result


@dataclass(frozen=True, eq=False)
class GenotypeCounts(AlleleCounts):
    """How many samples carry each genotype, (M,) each: ``n0``, ``n1``, ``n2`` copies, missing.

    ``haploid`` says what haploid ones carry; None where there are none, or it does not matter.
    """

    n0: NDArray[np.int64]
    n1: NDArray[np.int64]
    n2: NDArray[np.int64]
    n_missing: NDArray[np.int64]
    haploid: HaploidCounts | None = None

    @classmethod
    def of_codes(
        cls, counts: NDArray[np.int64], haploid: HaploidCounts | None = None
    ) -> "GenotypeCounts":
        """Take the counts (M, 4) of the codes 0, 1, 2 and 3."""
        n2, n_missing, n1, n0 = counts.T
        return cls(n0, n1, n2, n_missing, haploid)

    @classmethod
    def of_packed(cls, packed: "Packed", n_samples: int) -> "GenotypeCounts":
        """Count packed genotypes."""
        from plait.data.genotype_kernels import count_genotypes

        return cls.of_codes(count_genotypes(packed, n_samples))

    @property
    def n_called(self) -> NDArray[np.int64]:
        """Samples with a call."""
        return self.n0 + self.n1 + self.n2

    @property
    def frequency(self) -> NDArray[np.float64]:
        """Frequency of the effect allele among the calls; NaN without any."""
        with np.errstate(invalid="ignore"):
            return (self.n1 + 2 * self.n2) / (2 * self.n_called)

    @property
    def _sums(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        return self.n_called, self.n1 + 2 * self.n2, 2 * self.n_called

    @property
    def info(self) -> NDArray[np.float64]:
        """Imputation quality, which is 1: calls are taken as certain."""
        return np.ones(len(self.n0))


class GenotypeSource(ABC):
    """Genotypes of N samples at M variants, read block by block, never as a whole.

    A dosage is the number of copies of the effect allele, between 0 and ``ploidy``. A source can be
    sent to another process, which opens the file for itself.
    """

    ploidy: int = 2
    kind: Literal["hardcall", "dosage"] = "hardcall"
    """Whether dosages are whole numbers, so that they can be packed."""
    lies_packed: bool = False
    """Whether `read_packed` reads them as they are, few variants as fast, for each, as many."""
    samples: NDArray[np.str_]
    """Names of the samples (N,), each of them once."""
    path: Any = None
    """The file behind it, if there is one."""

    @property
    @abstractmethod
    def n_variants(self) -> int:
        """Number of variants M."""

    @property
    @abstractmethod
    def variants(self) -> VariantTable:
        """All variants, in the order of the file."""

    @abstractmethod
    def read(
        self,
        variants: Rows = slice(None),
        samples: NDArray[np.integer[Any]] | None = None,
        dtype: DTypeLike = np.float32,
    ) -> NDArray[Any]:
        """Return dosages (variants, samples).

        Parameters
        ----------
        variants : slice or integers
            Rows of `variants`.
        samples : integers, optional
            Which samples, in which order. Default all.
        dtype : int8, float32 or float64
            Missing genotypes are -1 in int8 and NaN in floats. Dosages cannot be read as int8.
        """

    def read_packed(
        self, variants: slice, samples: NDArray[np.integer[Any]] | None = None
    ) -> Packed:
        """Return hard calls in two bits each, (variants, ceil(N / 4)), low bits first.

        Codes are those of `PACKED_MISSING`; codes beyond the last sample are 1 (missing).
        """
        return pack(self.read(variants, samples, np.int8))

    @property
    def n_samples(self) -> int:
        """Number of samples N."""
        return len(self.samples)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.samples.tolist())}

    def sample_numbers(self, names: Any) -> NDArray[np.intp]:
        """Return where samples are, by name.

        Raises
        ------
        LabelError
            A sample is not among them.
        """
        unknown = [str(name) for name in names if name not in self._numbers]
        if unknown:
            some = ", ".join(map(repr, unknown[:3]))
            raise LabelError(
                f"{len(unknown)} of {len(names)} samples have no genotypes (first: {some})."
            )
        return np.array([self._numbers[name] for name in names], dtype=np.intp)

    def block_size(self) -> int:
        """Return how many variants make a block of at most 32 MiB of float32."""
        per_variant = 4 * max(self.n_samples, 1)
        size = _BLOCK_BYTES // per_variant // _SMALLEST_BLOCK * _SMALLEST_BLOCK
        return int(min(max(size, _SMALLEST_BLOCK), _LARGEST_BLOCK))

    def blocks(self, size: int | None = None, by_chromosome: bool = True) -> list[slice]:
        """Return consecutive blocks of variants.

        Parameters
        ----------
        size : int, optional
            Variants of a block; default `block_size`.
        by_chromosome : bool
            Whether a block ends with its chromosome.
        """
        size = self.block_size() if size is None else size
        if size < 1:
            raise OptionError(f"a block has at least 1 variant, not {size}.")
        whole = [("", slice(0, self.n_variants))]
        return [
            slice(start, min(start + size, run.stop))
            for _, run in (self.variants.chromosomes if by_chromosome else whole)
            for start in range(run.start, run.stop, size)
        ]

    def counts(self, variants: slice = slice(None)) -> GenotypeCounts:
        """Count genotypes of hard calls, without making floats."""
        from plait.data.genotype_kernels import count_genotypes

        start, stop, _ = variants.indices(self.n_variants)
        found = np.zeros((stop - start, 4), dtype=np.int64)
        for first in range(start, stop, _LARGEST_BLOCK):
            rows = slice(first, min(first + _LARGEST_BLOCK, stop))
            part = self.read_packed(rows)
            found[rows.start - start : rows.stop - start] = count_genotypes(part, self.n_samples)
        return GenotypeCounts.of_codes(found)

    def close(self) -> None:  # noqa: B027 - a source without a file has nothing to close
        """Release the file; the source is not used afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.n_samples:,} samples x {self.n_variants:,} variants)"


def as_floats(calls: NDArray[np.int8], dtype: DTypeLike) -> NDArray[Any]:
    """Return int8 hard calls as they are, or as floats with NaN where missing."""
    kind = np.dtype(dtype)
    if kind == np.int8:
        return calls
    if kind not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise OptionError(f"genotypes are read as int8, float32 or float64, not {kind}.")
    values = calls.astype(kind)
    values[calls < 0] = np.nan
    return values


def pack(calls: NDArray[np.int8]) -> Packed:
    """Pack int8 hard calls (variants, samples), -1 where missing, into two bits each."""
    from plait.data.genotype_kernels import pack_calls

    if calls.ndim != 2:
        raise ShapeError(f"hard calls are a table (variants, samples), not {calls.ndim}-d.")
    packed: Packed = pack_calls(np.ascontiguousarray(calls))
    return packed
