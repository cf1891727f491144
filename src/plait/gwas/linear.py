"""The linear scan: every variant against every trait in one pass over the genotypes.

Centred genotypes, calls or dosages, are multiplied once by the covariates and the residual traits
of a design; slopes, errors and p-values follow from those products and from sums of squares.
Products are in single precision, sums over many samples in double
(`plait.data.genotype_blocks.GenotypeBlock.products`). Where the covariates explain nearly all of a
variant, or a variant nearly all of a trait, differences of such sums are too rough (`_ENOUGH`):
these variants are fitted one by one, from residuals, in double precision.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from plait.data.genotype_blocks import GenotypeBlock, padded, read_block
from plait.data.genotypes import GenotypeSource
from plait.errors import OptionError
from plait.gwas.design import Design, rows_of_any, without
from plait.gwas.quality import VariantFilter
from plait.gwas.sex_chromosomes import known_meanings

Array = NDArray[np.float64]

_ENOUGH = {"single": 1e-2, "double": 1e-4}
"""Share left of a sum of squares from which differences of products are precise enough.

Products of a precision eps leave a share r with a relative error of some eps / r: 1e-5 and 1e-11.
"""
NOTHING = 1e-14
"""Share of a sum of squares below which nothing is left: 1e-7 of a length.

As little is refused of a trait that covariates explain (`plait.gwas.design`), and dosages are not
known better.
"""
_RULES = (
    "collinearity with the covariates",
    "without variation of the trait",
    "a perfect fit of the trait",
)
"""Why a test of a variant has no result, as numbered from 1 in `plait.gwas.kernels`."""


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
        Of the effect allele among the samples of any trait that have a call.
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

    design: Design
    columns: NDArray[np.intp]
    """The traits, as numbers among all traits."""

    def run(self, block: GenotypeBlock) -> Associations:
        """Return the statistics of a block of all samples."""


class GroupedScan:
    """Scans variants for groups of traits, each with samples of its own."""

    def __init__(self, source: GenotypeSource, groups: Sequence[TraitGroup], n_traits: int) -> None:
        self.source, self.groups, self.n_traits = source, groups, n_traits
        self.meanings = known_meanings(source)
        self.rows = rows_of_any([group.design for group in groups])

    def run(self, rows: slice) -> Associations:
        """Return the statistics of some variants, whatever the cut the same bits."""
        n = rows.stop - rows.start
        block = read_block(self.source, rows, meanings=self.meanings)
        if len(self.groups) == 1 and len(self.groups[0].columns) == self.n_traits:
            return self.groups[0].run(block)
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
        frequency = block.of_samples(self.rows).calls.frequency
        return Associations(beta, se, log10p, counts, frequency, filtered)


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
    measured : list of Design, optional
        The designs with the traits as they were measured, where predictions are taken off those of
        ``designs``: what does not vary among the samples with a call is the trait, not what is
        predicted of it.
    """

    def __init__(
        self,
        source: GenotypeSource,
        designs: list[Design],
        n_traits: int,
        missing_genotypes: str = "mean",
        precision: str = "single",
        rules: VariantFilter | None = None,
        measured: list[Design] | None = None,
    ) -> None:
        if missing_genotypes not in ("mean", "drop"):
            raise OptionError(f"missing_genotypes is {missing_genotypes!r}; give 'mean' or 'drop'.")
        if precision not in ("single", "double"):
            raise OptionError(f"precision is {precision!r}; give 'single' or 'double'.")
        rules = VariantFilter() if rules is None else rules
        groups = [
            _Group(design, missing_genotypes, precision, rules, None if measured is None else own)
            for design, own in zip(designs, measured or designs, strict=True)
        ]
        super().__init__(source, groups, n_traits)


class _Group:
    """The traits of one design."""

    def __init__(
        self,
        design: Design,
        missing_genotypes: str,
        precision: str,
        rules: VariantFilter,
        measured: Design | None,
    ) -> None:
        self.measured = measured
        self.design, self.rules, self.columns = design, rules, design.columns
        self.drops, self.least = missing_genotypes == "drop", _ENOUGH[precision]
        self.dtype = np.dtype(np.float32 if precision == "single" else np.float64)
        self.regressors = padded(design.regressors, self.dtype)

    def run(self, block: GenotypeBlock) -> Associations:
        from plait.gwas.kernels import CONSTANT_TRAIT, EXPLAINED

        design, n = self.design, len(block)
        block = block.of_samples(design.rows)
        removed = self.rules.removed(block.calls)
        gone = np.logical_or.reduce(list(removed.values()))
        beta, se, log10p = outputs = tuple(np.empty((3, n, design.traits.shape[1])))
        reasons = np.zeros(beta.shape, dtype=np.uint8)
        used = np.full(n, block.n_samples)
        inexact = self._fill(block, outputs, used, reasons)
        for j in np.flatnonzero(inexact & ~gone):
            # One by one: the same bits whichever variants need it together.
            row = np.array([j])
            called = ~block.is_missing(row)[0] if self.drops else np.ones(block.n_samples, bool)
            fit = fit_directly(block.centred(row)[0], called, design)
            beta[j], se[j], log10p[j], reasons[j] = fit
        if self.drops and self.measured is not None:
            constant = constant_traits(block, self.measured, self.least)
            reasons[constant & (reasons != EXPLAINED)] = CONSTANT_TRAIT
            for values in outputs:
                values[constant] = np.nan
        for values in outputs:
            values[gone] = np.nan
        beta *= design.lengths
        se *= design.lengths
        filtered = {name: int(flags.sum()) * beta.shape[1] for name, flags in removed.items()}
        left = reasons[~gone]
        filtered |= {name: np.count_nonzero(left == k) for k, name in enumerate(_RULES, start=1)}
        samples = np.broadcast_to(used[:, None], beta.shape).copy()
        return Associations(beta, se, log10p, samples, block.calls.frequency, filtered)

    def _fill(
        self,
        block: GenotypeBlock,
        outputs: tuple[Array, ...],
        used: NDArray[np.int64],
        reasons: NDArray[np.uint8],
    ) -> NDArray[np.bool_]:
        """Fill statistics from products; return which variants (n,) need a fit of their own."""
        from plait.gwas.kernels import complete_case_statistics, linear_statistics

        design, squares, products = self.design, block.squares, block.products(self.regressors)
        inexact = np.zeros(len(block), dtype=np.bool_)
        shape = design.basis.shape[1] - 1, float(design.df), self.least
        linear_statistics(products, squares, *shape, *outputs, reasons, inexact)
        if self.drops:
            rows = np.flatnonzero(block.calls.n_missing)
            taken = rows, products, squares, design.basis, design.traits, self.least
            missing = block.is_missing(rows)
            complete_case_statistics(missing, *taken, *outputs, used, reasons, inexact)
        return inexact


def constant_traits(block: GenotypeBlock, design: Design, least: float) -> NDArray[np.bool_]:
    """Return which traits (n, T) do not vary among the samples that have a call of a variant.

    ``least`` is the share from which differences of sums are precise enough.
    """
    from plait.gwas.kernels import left_of_traits

    constant = np.zeros((len(block), design.traits.shape[1]), dtype=np.bool_)
    rows = np.flatnonzero(block.calls.n_missing)
    missing = block.is_missing(rows)
    lengths, inexact = np.empty((len(rows), constant.shape[1])), np.zeros(len(rows), np.bool_)
    left_of_traits(missing, design.basis, design.traits, least, lengths, inexact)
    for k in np.flatnonzero(inexact):
        called = ~missing[k]
        left = without(design.traits[called], np.linalg.qr(design.basis[called])[0])
        constant[rows[k]] = np.einsum("it,it->t", left, left) <= NOTHING
    return constant


def fit_directly(
    genotype: Array, called: NDArray[np.bool_], design: Design
) -> tuple[Array, Array, Array, NDArray[np.uint8]]:
    """Fit one variant by least squares on the samples that have a call.

    Parameters
    ----------
    genotype : (N,) array
        Centred at its mean over these samples.
    called : (N,) bool array
    design : Design

    Returns
    -------
    (T,) arrays
        Slopes, errors and log10 p-values of traits of length 1; NaN where there is a reason, the
        fourth array (see `plait.gwas.kernels.EXPLAINED`).

    Notes
    -----
    Of residuals, so that small differences are not those of large sums. N p^2 flops where a call is
    missing, else N (p + T).
    """
    from plait.gwas.kernels import COLLINEAR, CONSTANT_TRAIT, EXPLAINED, PERFECT, TESTED
    from plait.numerics.student import log10_p_value

    g, basis, y = genotype, design.basis, design.traits
    nothing = np.full(y.shape[1], np.nan)
    explained = nothing, nothing, nothing, np.full(y.shape[1], EXPLAINED, dtype=np.uint8)
    if not called.all():
        g, y = g[called], y[called]
        basis, triangle = np.linalg.qr(basis[called])
        if (np.diagonal(triangle) ** 2 <= NOTHING).any():  # covariates depend on one another here
            return explained
        y = without(y, basis)
    squares = g @ g
    g = without(g, basis)
    v, lengths = g @ g, np.einsum("it,it->t", y, y)
    if not v > COLLINEAR * squares:
        return explained
    slopes = g @ y / v
    errors = y - np.outer(g, slopes)
    residuals = np.einsum("it,it->t", errors, errors)
    df = len(y) - basis.shape[1] - 1
    reasons = np.full(len(slopes), TESTED, dtype=np.uint8)
    reasons[residuals <= NOTHING * lengths] = PERFECT
    reasons[lengths <= NOTHING] = CONSTANT_TRAIT
    tested = reasons == TESTED
    se = np.where(tested, np.sqrt(residuals / (df * v)), np.nan)
    log10p = log10_p_value(slopes / se, np.full(len(slopes), df))
    return np.where(tested, slopes, np.nan), se, log10p, reasons
