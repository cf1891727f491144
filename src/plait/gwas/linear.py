"""The linear scan: every variant against every trait in one pass over the genotypes (spec 5.1).

Genotypes, calls or dosages, are centred in tiles of `TILE` variants and multiplied once by the
covariates and the residual traits of a design; slopes, errors and p-values follow from those
products and from sums of squares. Products are in single precision, sums over more than `_SPAN`
samples in double; where the covariates explain nearly all of a variant, or a variant nearly all of
a trait, they are done again in double precision.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from plait.data.genotype_blocks import TILE, GenotypeBlock, padded, read_block
from plait.data.genotypes import GenotypeSource
from plait.errors import OptionError
from plait.gwas.design import Design
from plait.gwas.quality import VariantFilter

Array = NDArray[np.float64]

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

    def run(self, block: GenotypeBlock) -> Associations:
        """Return the statistics of a block of all samples."""


class GroupedScan:
    """Scans variants for groups of traits, each with samples of its own."""

    def __init__(self, source: GenotypeSource, groups: Sequence[TraitGroup], n_traits: int) -> None:
        self.source, self.groups, self.n_traits = source, groups, n_traits

    def run(self, rows: slice) -> Associations:
        """Return the statistics of some variants, whatever the cut the same bits."""
        n = rows.stop - rows.start
        block = read_block(self.source, rows)
        beta, se, log10p = np.full((3, n, self.n_traits), np.nan)
        counts = np.zeros((n, self.n_traits), dtype=np.int64)
        filtered: dict[str, int] = {}
        for group in self.groups:
            found = group.run(block)
            columns = group.columns
            beta[:, columns], se[:, columns], log10p[:, columns] = (
                found.beta,
                found.se,
                found.log10p,
            )
            counts[:, columns] = found.n
            for name, count in found.filtered.items():
                filtered[name] = filtered.get(name, 0) + count
        return Associations(beta, se, log10p, counts, block.calls.frequency, filtered)


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
        groups = [_Group(design, missing_genotypes, precision, rules) for design in designs]
        super().__init__(source, groups, n_traits)


class _Group:
    """The traits of one design."""

    def __init__(
        self, design: Design, missing_genotypes: str, precision: str, rules: VariantFilter
    ) -> None:
        self.design, self.rules, self.columns = design, rules, design.columns
        self.drops = missing_genotypes == "drop"
        self.dtype = np.dtype(np.float32 if precision == "single" else np.float64)
        self.exact = design.regressors
        self.regressors = padded(self.exact, self.dtype)

    def run(self, block: GenotypeBlock) -> Associations:
        from plait.gwas.kernels import complete_case_statistics, linear_statistics

        design, n = self.design, len(block)
        block = block.of_samples(design.rows)
        squares, products = block.squares, self._products(block)
        beta, se, log10p = np.empty((3, n, design.traits.shape[1]))
        inexact = np.zeros(n, dtype=np.bool_)
        covariates = design.basis.shape[1] - 1
        outputs = (beta, se, log10p)
        df = float(design.df)
        linear_statistics(products, squares, covariates, df, beta, se, log10p, inexact)
        again = np.flatnonzero(inexact)
        if len(again) and self.dtype == np.float32:
            # Row by row: the same bits whichever variants need it together.
            products[again] = [self.exact.T @ row for row in block.centred(again)]
            part = np.empty((3, len(again), beta.shape[1]))
            taken = products[again], squares[again], covariates, df
            linear_statistics(*taken, part[0], part[1], part[2], inexact[again])
            for whole, exact in zip(outputs, part, strict=True):
                whole[again] = exact
        used = np.full(n, block.n_samples)
        if self.drops:
            rows = np.flatnonzero(block.calls.n_missing)
            missing = block.is_missing(rows)
            complete_case_statistics(
                missing, rows, products, squares, design.basis, design.traits, *outputs, used
            )
        removed = self.rules.removed(block.calls)
        gone = np.logical_or.reduce(list(removed.values()))
        untested = ~gone & np.isnan(beta[:, 0])
        for values in outputs:
            values[gone] = np.nan
        beta *= design.lengths
        se *= design.lengths
        filtered = {name: int(flags.sum()) * beta.shape[1] for name, flags in removed.items()}
        filtered["explained by the covariates"] = int(untested.sum()) * beta.shape[1]
        samples = np.repeat(used[:, None], beta.shape[1], axis=1)
        return Associations(beta, se, log10p, samples, block.calls.frequency, filtered)

    def _products(self, block: GenotypeBlock) -> Array:
        """Return (n, p - 1 + T) products of the centred genotypes with the regressors."""
        out = np.empty((len(block), self.regressors.shape[1]))
        for part, tile, used in block.tiles(self.dtype):
            out[part] = self._multiply(tile)[used]
        return out

    def _multiply(self, tile: NDArray[Any]) -> Array:
        """Multiply a tile by the regressors, spans of samples added in double precision."""
        total = np.zeros((TILE, self.regressors.shape[1]))
        for begin in range(0, tile.shape[1], _SPAN):
            span = slice(begin, begin + _SPAN)
            total += tile[:, span] @ self.regressors[span]
        return total
