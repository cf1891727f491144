"""Consecutive variants in memory, as a scan goes over them: the same for calls and for dosages."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from plait.data.dosages import DosageCounts
from plait.data.genotypes import GenotypeCounts, GenotypeSource, Packed
from plait.data.ploidy import Haploids, haploids
from plait.errors import InputError

Array = NDArray[np.float64]
Samples = NDArray[np.integer[Any]]

TILE = 256
"""Variants that are centred and multiplied together; tiles begin at multiples of it."""
_SPAN = 8192
"""Samples over which sums are in the precision of the regressors."""
_ROUNDING = 0.01
"""How far sums of rounded probabilities may lie outside of what dosages can be."""


class GenotypeBlock(ABC):
    """Consecutive variants of some samples. Centred genotypes are 0 where missing: the mean.

    Attributes
    ----------
    start : int
        Number of the first variant among all.
    n_samples : int
        Number of samples N.
    calls : GenotypeCounts or DosageCounts
        What rules for variants need to know.
    squares : (n,) array
        Sums of squares of the centred genotypes.
    """

    def __init__(
        self, start: int, n_samples: int, calls: GenotypeCounts | DosageCounts, squares: Array
    ) -> None:
        self.start, self.n_samples, self.calls, self.squares = start, n_samples, calls, squares

    def __len__(self) -> int:
        return len(self.squares)

    def of_samples(self, samples: Samples) -> Self:
        """Return the block of some samples, given by their numbers, in this order."""
        if np.array_equal(samples, np.arange(self.n_samples)):
            return self
        return self._selected(samples)

    def tiles(self, dtype: DTypeLike) -> Iterator[tuple[slice, NDArray[Any], slice]]:
        """Centre variants in tiles of `TILE` that begin at multiples of it.

        So every variant has the same place in its tile, and its products the same bits, however
        variants are cut into blocks.

        Yields
        ------
        slice, (TILE, W) array, slice
            Which variants of the block, their centred genotypes, and their rows of the tile. Other
            rows, and columns beyond the last sample (see `padded`), are 0. The array is used again
            for the next tile.
        """
        n, offset = len(self), self.start % TILE
        tile = np.zeros((TILE, _width(self.n_samples)), dtype=dtype)
        for number in range(-(-(offset + n) // TILE)):
            first = max(number * TILE - offset, 0)
            last = min((number + 1) * TILE - offset, n)
            place = first + offset - number * TILE
            part, used = slice(first, last), slice(place, place + last - first)
            if last - first < TILE:
                tile[:] = 0.0
            self._centre(part, tile[used])
            yield part, tile, used

    def products(self, regressors: NDArray[Any]) -> Array:
        """Multiply the centred genotypes by regressors, to (n, K) in double precision.

        ``regressors`` (see `padded`) are in single or double precision, and so are sums within
        spans of samples. Whatever the cut into blocks, the same bits.
        """
        out = np.empty((len(self), regressors.shape[1]))
        for part, tile, used in self.tiles(regressors.dtype):
            total = np.zeros((TILE, regressors.shape[1]))
            for begin in range(0, tile.shape[1], _SPAN):
                span = slice(begin, begin + _SPAN)
                total += tile[:, span] @ regressors[span]
            out[part] = total[used]
        return out

    @abstractmethod
    def centred(self, variants: Samples) -> Array:
        """Return centred genotypes (k, N) of some variants, in double precision."""

    @abstractmethod
    def is_missing(self, variants: Samples) -> NDArray[np.bool_]:
        """Return which samples (k, N) lack a genotype of some variants."""

    @abstractmethod
    def rarer_copies(self, variants: Samples) -> tuple[Array, Array]:
        """Return copies of the rarer allele (k, N), exactly 0 where there is none.

        And (k,): 1 where that is the effect allele, else -1. A missing genotype is the mean.
        """

    @abstractmethod
    def _selected(self, samples: Samples) -> Self:
        """Return the block of some samples."""

    @abstractmethod
    def _centre(self, variants: slice, out: NDArray[Any]) -> None:
        """Fill the rows of a tile with centred genotypes."""


class CallBlock(GenotypeBlock):
    """Hard calls, which stay packed in two bits each until a tile needs them.

    Parameters
    ----------
    packed : (n, ceil(N / 4)) array
        See `plait.data.genotypes.PACKED_MISSING`.
    n_samples, start : int
    haploid : Haploids, optional
        In whom variants are haploid. Default nobody.
    """

    def __init__(
        self, packed: Packed, n_samples: int, start: int, haploid: Haploids | None = None
    ) -> None:
        from plait.data.genotype_kernels import centred_values, count_genotypes

        self.haploid = haploid
        self.packed = packed if haploid is None else haploid.hide_calls(packed)
        self.codes = count_genotypes(self.packed, n_samples)
        n = len(packed)
        self.values, squares = np.empty((n, 4)), np.empty(n)
        centred_values(self.codes, self.values, squares)
        among = None if haploid is None else haploid.count_calls(self.packed, self.codes)
        super().__init__(start, n_samples, GenotypeCounts.of_codes(self.codes, among), squares)

    def products(self, regressors: NDArray[Any]) -> Array:
        """See `GenotypeBlock.products`; in single precision without decoding."""
        from plait.data.genotype_kernels import multiply_calls
        from plait.numerics.lane_kernels import FLOATS

        if regressors.dtype != np.float32:
            return super().products(regressors)
        count = regressors.shape[1]
        whole = np.zeros((4 * self.packed.shape[1], -(-count // FLOATS) * FLOATS), dtype=np.float32)
        whole[: self.n_samples, :count] = regressors[: self.n_samples]
        out = np.empty((len(self), whole.shape[1]))
        multiply_calls(self.packed, self.codes, whole, out)
        return out[:, :count]

    def centred(self, variants: Samples) -> Array:
        """See `GenotypeBlock.centred`."""
        from plait.data.genotype_kernels import decode_exactly

        genotypes: Array = decode_exactly(
            self.packed[variants], self.values[variants], self.n_samples
        )
        return genotypes

    def is_missing(self, variants: Samples) -> NDArray[np.bool_]:
        """See `GenotypeBlock.is_missing`."""
        from plait.data.genotype_kernels import missing_calls

        flags: NDArray[np.bool_] = missing_calls(self.packed[variants], self.n_samples)
        return flags

    def rarer_copies(self, variants: Samples) -> tuple[Array, Array]:
        """See `GenotypeBlock.rarer_copies`."""
        from plait.data.genotype_kernels import rarer_copies

        copies, signs = rarer_copies(self.packed[variants], self.codes[variants], self.n_samples)
        return copies, signs

    def _selected(self, samples: Samples) -> "CallBlock":
        from plait.data.genotype_kernels import select_samples

        chosen = select_samples(self.packed, samples)
        haploid = None if self.haploid is None else self.haploid.of_samples(samples)
        return CallBlock(chosen, len(samples), self.start, haploid)

    def _centre(self, variants: slice, out: NDArray[Any]) -> None:
        from plait.data.genotype_kernels import decode

        decode(self.packed[variants], self.values[variants].astype(out.dtype), out)


class DosageBlock(GenotypeBlock):
    """Dosages as they were read.

    Parameters
    ----------
    dosages : (n, N) float32 array
        Between 0 and ``ploidy``, NaN where missing.
    start, ploidy : int
    haploid : Haploids, optional
        In whom variants are haploid. Default nobody.
    """

    def __init__(
        self,
        dosages: NDArray[np.float32],
        start: int,
        ploidy: int,
        haploid: Haploids | None = None,
    ) -> None:
        from plait.data.genotype_kernels import summarise_dosages

        if haploid is not None:
            dosages = haploid.hide_dosages(dosages)
        self.dosages, self.ploidy, self.haploid = dosages, ploidy, haploid
        n, n_samples = dosages.shape
        sums, self.means, squares = np.empty((3, n))
        n_missing = np.empty(n, dtype=np.int64)
        summarise_dosages(dosages, sums, self.means, squares, n_missing)
        among = None if haploid is None else haploid.count_dosages(dosages)
        calls = DosageCounts(n_samples - n_missing, n_missing, sums, squares, ploidy, among)
        super().__init__(start, n_samples, calls, squares)

    def centred(self, variants: Samples) -> Array:
        """See `GenotypeBlock.centred`."""
        from plait.data.genotype_kernels import centre_dosages

        out = np.empty((len(variants), self.n_samples))
        centre_dosages(self.dosages[variants], self.means[variants], out)
        return out

    def is_missing(self, variants: Samples) -> NDArray[np.bool_]:
        """See `GenotypeBlock.is_missing`."""
        flags: NDArray[np.bool_] = np.isnan(self.dosages[variants])
        return flags

    def rarer_copies(self, variants: Samples) -> tuple[Array, Array]:
        """See `GenotypeBlock.rarer_copies`."""
        copies = self.dosages[variants].astype(np.float64)
        means = self.means[variants][:, None]
        copies = np.where(np.isnan(copies), means, copies)
        is_other = means > 0.5 * self.ploidy
        copies = np.where(is_other, self.ploidy - copies, copies)
        return copies, np.where(is_other[:, 0], -1.0, 1.0)

    def _selected(self, samples: Samples) -> "DosageBlock":
        # An index would leave the columns contiguous; kernels go along rows.
        chosen = np.take(self.dosages, samples, axis=1)
        haploid = None if self.haploid is None else self.haploid.of_samples(samples)
        return DosageBlock(chosen, self.start, self.ploidy, haploid)

    def _centre(self, variants: slice, out: NDArray[Any]) -> None:
        from plait.data.genotype_kernels import centre_dosages

        centre_dosages(self.dosages[variants], self.means[variants], out)


def read_block(
    source: GenotypeSource,
    variants: slice,
    samples: Samples | None = None,
    meanings: Mapping[str, str] | None = None,
) -> GenotypeBlock:
    """Read consecutive variants: packed where the source has hard calls, else as dosages.

    Parameters
    ----------
    source : GenotypeSource
    variants : slice
        From its start to its stop, by ones.
    samples : integers, optional
        Which samples, in which order. Default all.
    meanings : mapping of str to str, optional
        What chromosomes are, by name, for what is haploid (see `plait.data.ploidy.haploids`).
        Default: nothing is.

    Raises
    ------
    InputError
        A dosage is not between 0 and the ploidy.
    """
    haploid = None if meanings is None else haploids(source, variants, meanings, samples)
    if source.kind == "hardcall":
        n_samples = source.n_samples if samples is None else len(samples)
        return CallBlock(source.read_packed(variants, samples), n_samples, variants.start, haploid)
    dosages = np.ascontiguousarray(source.read(variants, samples, np.float32))
    low = np.fmin.reduce(dosages, axis=None, initial=0.0)
    high = np.fmax.reduce(dosages, axis=None, initial=0.0)
    if not (low >= -_ROUNDING and high <= source.ploidy + _ROUNDING):
        wrong = (dosages < -_ROUNDING) | (dosages > source.ploidy + _ROUNDING)
        row, column = np.argwhere(wrong)[0]
        name = str(source.samples[column if samples is None else samples[column]])
        raise InputError(
            f"{source.variants.keys[variants.start + int(row)]}: the dosage of sample "
            f"{str(name)!r} is {dosages[row, column]:g}. Dosages are copies of an allele, 0 to "
            f"{source.ploidy}; correct them, or mark them as missing."
        )
    return DosageBlock(dosages, variants.start, source.ploidy, haploid)


def padded(values: Array, dtype: DTypeLike) -> NDArray[Any]:
    """Add rows of 0 to an array with a row for each sample, for products with tiles."""
    out = np.zeros((_width(len(values)), values.shape[1]), dtype=dtype)
    out[: len(values)] = values
    return out


def _width(n_samples: int) -> int:
    """Columns of a tile: whole bytes of packed calls."""
    return 4 * -(-n_samples // 4)
