"""The linear scan: every variant against every trait in one pass over the genotypes (spec 5.1).

Genotypes are decoded into tiles of `TILE` variants, centred, and multiplied once by the covariates
and the residual traits of a design; slopes, errors and p-values follow from those products and from
counts. Products are in single precision, sums over more than `_SPAN` samples in double; where the
covariates explain nearly all of a variant, or a variant nearly all of a trait, they are done again
in double precision.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from plait.data.genotypes import GenotypeCounts, GenotypeSource, Packed
from plait.errors import OptionError
from plait.gwas.design import Design
from plait.gwas.quality import VariantFilter

Array = NDArray[np.float64]

TILE = 256
"""Variants that are decoded and multiplied together; tiles begin at multiples of it."""
_SPAN = 8192


@dataclass(frozen=True, eq=False)
class Associations:
    """Statistics of consecutive variants: (n, T) unless said otherwise.

    Attributes
    ----------
    beta, se, log10p : arrays
        NaN where a variant was not tested.
    n : (n, T) int array
        Samples behind each test.
    frequency : (n,) array
        Of the effect allele among all genotyped samples with a call.
    filtered : dict of str to int
        How many tests each rule left out.
    """

    beta: Array
    se: Array
    log10p: Array
    n: NDArray[np.int64]
    frequency: Array
    filtered: dict[str, int] = field(default_factory=dict)


class TraitGroup(Protocol):
    """Traits that were measured on the same samples, ready to be scanned."""

    columns: NDArray[np.intp]
    """The traits, as numbers among all traits."""

    def run(self, packed: Packed, start: int) -> Associations:
        """Return the statistics of packed variants of all samples, the first of them ``start``."""


class GroupedScan:
    """Scans variants for groups of traits, each with samples of its own."""

    def __init__(self, source: GenotypeSource, groups: Sequence[TraitGroup], n_traits: int) -> None:
        self.source, self.groups, self.n_traits = source, groups, n_traits

    def run(self, rows: slice) -> Associations:
        """Return the statistics of some variants, whatever the cut the same bits."""
        n = rows.stop - rows.start
        packed = self.source.read_packed(rows)
        beta, se, log10p = np.full((3, n, self.n_traits), np.nan)
        counts = np.zeros((n, self.n_traits), dtype=np.int64)
        filtered: dict[str, int] = {}
        for group in self.groups:
            found = group.run(packed, rows.start)
            columns = group.columns
            beta[:, columns], se[:, columns], log10p[:, columns] = (
                found.beta,
                found.se,
                found.log10p,
            )
            counts[:, columns] = found.n
            for name, count in found.filtered.items():
                filtered[name] = filtered.get(name, 0) + count
        everyone = GenotypeCounts.of_packed(packed, self.source.n_samples)
        return Associations(beta, se, log10p, counts, everyone.frequency, filtered)


def aligned_tiles(
    packed: Packed, values: Array, start: int, dtype: Any
) -> Iterator[tuple[slice, NDArray[Any], slice]]:
    """Decode variants into tiles of `TILE` that begin at multiples of it.

    So every variant has the same place in its tile, and its products the same bits, however
    variants are cut into blocks.

    Yields
    ------
    slice, (TILE, 4 bytes) array, slice
        Which of the variants, decoded as ``values[j, code]`` (n, 4), and their rows of the tile;
        the array is used again for the next tile.
    """
    from plait.data.genotype_kernels import decode

    n, width = packed.shape
    offset = start % TILE
    table = values.astype(dtype)
    tile = np.zeros((TILE, 4 * width), dtype=dtype)
    for number in range(-(-(offset + n) // TILE)):
        first = max(number * TILE - offset, 0)
        last = min((number + 1) * TILE - offset, n)
        place = first + offset - number * TILE
        used = slice(place, place + last - first)
        if last - first < TILE:
            tile[:] = 0.0
        decode(packed[first:last], table[first:last], tile[used])
        yield slice(first, last), tile, used


class LinearScan(GroupedScan):
    """The linear scan of some designs.

    Parameters
    ----------
    source : GenotypeSource
    designs : list of Design
    n_traits : int
    missing_genotypes : {"mean", "drop"}
        Impute the mean of the variant, or leave the samples out of that variant's regression.
    precision : {"single", "double"}
        Of the products with the genotypes; t-statistics differ by less than 1e-4 max(1, |t|).
    rules : VariantFilter
        Which variants are tested.
    """

    def __init__(
        self,
        source: GenotypeSource,
        designs: list[Design],
        n_traits: int,
        missing_genotypes: str = "mean",
        precision: str = "single",
        rules: VariantFilter | None = None,
    ) -> None:
        if missing_genotypes not in ("mean", "drop"):
            raise OptionError(f"missing_genotypes is {missing_genotypes!r}; give 'mean' or 'drop'.")
        if precision not in ("single", "double"):
            raise OptionError(f"precision is {precision!r}; give 'single' or 'double'.")
        rules = VariantFilter() if rules is None else rules
        groups = [_Group(design, source, missing_genotypes, precision, rules) for design in designs]
        super().__init__(source, groups, n_traits)


class _Group:
    """The traits of one design."""

    def __init__(
        self,
        design: Design,
        source: GenotypeSource,
        missing_genotypes: str,
        precision: str,
        rules: VariantFilter,
    ) -> None:
        self.design, self.rules, self.columns = design, rules, design.columns
        self.drops = missing_genotypes == "drop"
        self.dtype = np.dtype(np.float32 if precision == "single" else np.float64)
        self.n_samples = len(design.rows)
        everyone = np.arange(source.n_samples)
        self.rows = None if np.array_equal(design.rows, everyone) else design.rows
        self.exact = design.regressors
        padded = np.zeros((4 * -(-self.n_samples // 4), self.exact.shape[1]))
        padded[: self.n_samples] = self.exact
        self.regressors = padded.astype(self.dtype)

    def run(self, packed: Packed, start: int) -> Associations:
        from plait.data.genotype_kernels import count_genotypes, select_samples
        from plait.gwas.kernels import (
            centred_values,
            complete_case_statistics,
            linear_statistics,
        )

        design, n = self.design, len(packed)
        if self.rows is not None:
            packed = select_samples(packed, self.rows)
        counts = count_genotypes(packed, self.n_samples)
        values, frequency, squares = np.empty((n, 4)), np.empty(n), np.empty(n)
        centred_values(counts, values, frequency, squares)
        products = self._products(packed, values, start)
        beta, se, log10p = np.empty((3, n, design.traits.shape[1]))
        inexact = np.zeros(n, dtype=np.bool_)
        covariates = design.basis.shape[1] - 1
        outputs = (beta, se, log10p)
        df = float(design.df)
        linear_statistics(products, squares, covariates, df, beta, se, log10p, inexact)
        again = np.flatnonzero(inexact)
        if len(again) and self.dtype == np.float32:
            products[again] = self._exact_products(packed[again], values[again])
            part = np.empty((3, len(again), beta.shape[1]))
            taken = products[again], squares[again], covariates, df
            linear_statistics(*taken, part[0], part[1], part[2], inexact[again])
            for whole, exact in zip(outputs, part, strict=True):
                whole[again] = exact
        used = np.full(n, self.n_samples)
        if self.drops:
            rows = np.flatnonzero(counts[:, 1])
            complete_case_statistics(
                packed, rows, products, squares, design.basis, design.traits, *outputs, used
            )
        removed = self.rules.removed(GenotypeCounts.of_codes(counts))
        gone = np.logical_or.reduce(list(removed.values()))
        untested = ~gone & np.isnan(beta[:, 0])
        for values in outputs:
            values[gone] = np.nan
        beta *= design.lengths
        se *= design.lengths
        filtered = {name: int(flags.sum()) * beta.shape[1] for name, flags in removed.items()}
        filtered["explained by the covariates"] = int(untested.sum()) * beta.shape[1]
        samples = np.repeat(used[:, None], beta.shape[1], axis=1)
        return Associations(beta, se, log10p, samples, frequency, filtered)

    def _products(self, packed: Packed, values: Array, start: int) -> Array:
        """Return (n, p - 1 + T) products of the centred genotypes with the regressors."""
        out = np.empty((len(packed), self.regressors.shape[1]))
        for part, tile, used in aligned_tiles(packed, values, start, self.dtype):
            out[part] = self._multiply(tile)[used]
        return out

    def _multiply(self, tile: NDArray[Any]) -> Array:
        """Multiply a tile by the regressors, spans of samples added in double precision."""
        total = np.zeros((TILE, self.regressors.shape[1]))
        for begin in range(0, tile.shape[1], _SPAN):
            span = slice(begin, begin + _SPAN)
            total += tile[:, span] @ self.regressors[span]
        return total

    def _exact_products(self, packed: Packed, values: Array) -> Array:
        from plait.data.genotype_kernels import decode_exactly

        genotypes = decode_exactly(packed, values, self.n_samples)
        # Row by row: the same bits whichever variants need it together.
        return np.array([self.exact.T @ row for row in genotypes])
