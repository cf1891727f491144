"""How a scan goes over the variants: in passes, and there in blocks.

A pass is what is scanned with the same preparation: all variants, or those of one chromosome where
that is left out of something. Passes are made ready one after another, so that only one of them
takes memory.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from plait.data.genotype_blocks import TILE
from plait.data.genotypes import GenotypeSource
from plait.execution.blocks import Block, plan_blocks
from plait.execution.executors import Workforce, run_blocks
from plait.execution.progress import stage
from plait.gwas.binary import BinaryDesign, BinaryScan
from plait.gwas.design import Design, residual_correlation
from plait.gwas.linear import LinearScan
from plait.gwas.quality import VariantFilter
from plait.gwas.results import AssociationResult
from plait.gwas.sex_chromosomes import haploid_chromosomes
from plait.gwas.variant_results import VariantResult

if TYPE_CHECKING:
    from plait.gwas.whole_genome import WholeGenomeModel
    from plait.gwas.whole_genome_logistic import WholeGenomeLogistic
    from plait.io.relationship_files import RelationshipFile

Part_co = TypeVar("Part_co", covariant=True)
Result_co = TypeVar("Result_co", bound=VariantResult, covariant=True)


class Statistics(Protocol):
    """What is found out of consecutive variants (n) and traits (T).

    A dataclass; its fields but ``filtered`` are the arrays of a result: ``n`` (n, T) of int,
    ``frequency`` (n,), and those (n, T) of float that `VariantResult.statistics` names.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def filtered(self) -> dict[str, int]:
        """How many tests each rule left out."""


Found = TypeVar("Found", bound=Statistics)
_COUNTS = "filtered"
_PER_COPY = {
    **dict.fromkeys(("beta", "se", "beta_main", "se_main"), 1),
    **dict.fromkeys(("beta_interaction", "se_interaction", "coefficients"), 1),
    "covariance": 2,
}
"""Statistics that depend on the unit of genotypes, and by which power of it."""


class VariantScan(Protocol):
    """Scans consecutive variants, whatever the cut to the same bits."""

    source: GenotypeSource

    def run(self, rows: slice) -> Statistics:
        """Return what is found out of some variants."""


@dataclass(frozen=True, eq=False)
class Pass:
    """Variants that are scanned with the same preparation.

    Attributes
    ----------
    runs : list of slice
        Consecutive variants.
    make : callable
        Prepares the scan of these variants.
    """

    runs: list[slice]
    make: Callable[[], VariantScan]


class VariantMethod(Protocol[Result_co]):
    """A model whose preparation without variants is done."""

    @property
    def bytes_per_sample(self) -> int:
        """What a worker holds of every sample besides the genotypes that are read."""

    @property
    def result(self) -> type[Result_co]:
        """What all of it becomes."""

    @property
    def inner(self) -> Mapping[str, tuple[int, ...]]:
        """Further dimensions of statistics that have more than variants and traits."""

    @property
    def checks(self) -> Sequence[dict[str, Any]]:
        """What was checked while passes were made ready; see `AssociationResult.checks`."""

    @property
    def order(self) -> NDArray[np.intp] | None:
        """Rows of the genotypes (M,) that variants of passes are; None where they are the same."""

    def passes(self) -> Iterable[Pass]:
        """Return the passes, which are over all variants together."""

    def totals(self) -> dict[str, Any]:
        """Return the fields of the result that are not of variants; after all passes."""


class ScanMethod(VariantMethod[AssociationResult], Protocol):
    """A model of the association scan."""


class _Associating:
    """What is found by every model of the association scan."""

    bytes_per_sample: int = 8 * TILE  # two tiles in single precision, or one in double
    result: type[AssociationResult] = AssociationResult
    inner: Mapping[str, tuple[int, ...]] = MappingProxyType({})
    checks: Sequence[dict[str, Any]] = ()
    order: NDArray[np.intp] | None = None


class SinglePass:
    """All variants with one preparation, which is ``work``."""

    work: VariantScan
    order: NDArray[np.intp] | None = None

    def passes(self) -> list[Pass]:
        """Return the only pass."""
        return [Pass([slice(0, self.work.source.n_variants)], lambda: self.work)]


class LinearMethod(_Associating, SinglePass):
    """Independent errors: one pass."""

    def __init__(
        self,
        genotypes: GenotypeSource,
        designs: list[Design],
        n_traits: int,
        missing_genotypes: str,
        precision: str,
        rules: VariantFilter,
    ) -> None:
        self.designs, self.n_traits = designs, n_traits
        self.work = LinearScan(genotypes, designs, n_traits, missing_genotypes, precision, rules)

    def totals(self) -> dict[str, Any]:
        """Return V0 and degrees of freedom."""
        residuals = [design.traits for design in self.designs]
        V0 = residual_correlation(self.designs, residuals, self.n_traits)
        return {"V0": V0, **_freedom(self.designs, self.n_traits)}


class LogisticMethod(_Associating, SinglePass):
    """Cases and controls: one pass."""

    def __init__(
        self,
        genotypes: GenotypeSource,
        nulls: list[BinaryDesign],
        n_traits: int,
        precision: str,
        rules: VariantFilter,
    ) -> None:
        self.nulls, self.n_traits = nulls, n_traits
        self.work = BinaryScan(genotypes, nulls, n_traits, precision, rules)

    def totals(self) -> dict[str, Any]:
        """Return V0 and the number of cases."""
        return _of_binary_traits(self.nulls, self.n_traits)


class MixedMethod(_Associating):
    """Errors of related samples: a pass over each chromosome, where it is left out."""

    def __init__(
        self,
        genotypes: GenotypeSource,
        designs: list[Design],
        rules: VariantFilter,
        loco: bool,
        exact_below: float,
        memory: int | str | None,
        threads: int,
        precision: str,
        relationships: "RelationshipFile | None" = None,
        test: str = "wald",
    ) -> None:
        from plait.gwas.mixed import MixedModel

        given = genotypes, designs, rules, loco, exact_below, memory, threads, precision
        self.model = MixedModel(*given, relationships, test)
        self.checks = self.model.checks  # which grow with the passes
        self.order = self.model.order

    def passes(self) -> Iterator[Pass]:
        """Yield a pass for each chromosome, or one for all."""
        for runs, make in self.model.passes():
            yield Pass(runs, make)

    def totals(self) -> dict[str, Any]:
        """Return V0, degrees of freedom and the shares of variance."""
        model = self.model
        is_t = model.test == "wald"
        freedom = _freedom(model.designs, len(model.h2)) if is_t else {}
        return {"V0": model.V0, "h2": model.h2, "h2_se": model.h2_se, **freedom}


class WholeGenomeMethod(_Associating):
    """Traits less what other chromosomes predict: a pass over each chromosome."""

    def __init__(self, model: "WholeGenomeModel") -> None:
        self.model, self.order = model, model.order

    def passes(self) -> Iterator[Pass]:
        """Yield a pass for each chromosome."""
        for runs, make in self.model.passes():
            yield Pass(runs, make)

    def totals(self) -> dict[str, Any]:
        """Return V0, degrees of freedom and the shares of variance that are predicted."""
        model = self.model
        V0 = residual_correlation(model.designs, model.residuals, len(model.explained))
        freedom = _freedom(model.designs, len(model.explained))
        return {"V0": V0, "explained": model.explained, **freedom}


class WholeGenomeLogisticMethod(_Associating):
    """Cases and controls beside what other chromosomes predict: a pass over each chromosome."""

    def __init__(self, model: "WholeGenomeLogistic") -> None:
        self.model, self.order = model, model.model.order

    def passes(self) -> Iterator[Pass]:
        """Yield a pass for each chromosome."""
        for runs, make in self.model.passes():
            yield Pass(runs, make)

    def totals(self) -> dict[str, Any]:
        """Return V0, the number of cases, and the shares of variance that are predicted."""
        totals = _of_binary_traits(self.model.everything, len(self.model.names))
        return {**totals, "explained": self.model.model.explained}


def _freedom(designs: list[Design], n_traits: int) -> dict[str, Any]:
    """Return degrees of freedom, and the columns that take them, of each trait."""
    df, columns = np.empty(n_traits, dtype=np.int64), np.empty(n_traits, dtype=np.int64)
    for design in designs:
        df[design.columns] = design.df
        columns[design.columns] = len(design.rows) - design.df
    return {"df": df, "n_regressors": columns}


def _of_binary_traits(nulls: list[BinaryDesign], n_traits: int) -> dict[str, Any]:
    """Return V0 and the number of cases."""
    designs = [null.design for null in nulls]
    residuals = [null.unit_residuals for null in nulls]
    n_cases = np.empty(n_traits, dtype=np.int64)
    for null in nulls:
        n_cases[null.design.columns] = null.n_cases
    return {"V0": residual_correlation(designs, residuals, n_traits), "n_cases": n_cases}


def scan_in_memory(
    method: VariantMethod[Any], genotypes: GenotypeSource, n_traits: int, force: Workforce
) -> dict[str, Any]:
    """Scan all variants; return the statistics, how many tests each rule left out, and totals."""
    n_variants = genotypes.n_variants
    values: dict[str, NDArray[Any]] = {
        name: np.full((n_variants, n_traits, *method.inner.get(name, ())), np.nan)
        for name in method.result.statistics
    }
    values["n"] = np.zeros((n_variants, n_traits), dtype=np.int64)
    values["frequency"] = np.full(n_variants, np.nan)
    filtered: dict[str, int] = {}
    haploid, order = haploid_chromosomes(genotypes), method.order
    with stage("scan", n_variants) as advance:
        for part in method.passes():
            work = per_copy(part.make(), haploid)
            for run in part.runs:
                for block, found in scan_blocks(work, genotypes, run, force):
                    rows = block.rows if order is None else order[block.rows]
                    for name, array in arrays_of(found).items():
                        values[name][rows] = array
                    add_counts(filtered, found.filtered)
                    advance(len(block))
    return {**values, **found_out(method, filtered, list(method.checks))}


def per_copy(work: VariantScan, haploid: Sequence[str]) -> VariantScan:
    """Return a scan whose effects on haploid chromosomes are of one copy, not of two.

    The allele of a haploid counts twice in dosages, so that the effect of one of them is half of
    what it has.
    """
    runs = [run for name, run in work.source.variants.chromosomes if name in haploid]
    return _PerCopy(work, runs) if runs else work


class _PerCopy:
    """Doubles effects of some runs of variants; to the bit, as 2 is a power of 2."""

    def __init__(self, work: VariantScan, runs: Sequence[slice]) -> None:
        self.work, self.source = work, work.source
        self.doubled = np.zeros(work.source.n_variants, dtype=bool)
        for run in runs:
            self.doubled[run] = True

    def run(self, rows: slice) -> Statistics:
        found, doubled = self.work.run(rows), self.doubled[rows]
        for name, array in arrays_of(found).items():
            if power := _PER_COPY.get(name):
                array[doubled] *= 2.0**power
        return found


def found_out(
    method: VariantMethod[Any], filtered: dict[str, int], checks: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the fields of the result that are known after all passes."""
    checked = {"checks": checks} if checks else {}
    return {"filtered": without_zeros(filtered), **checked, **method.totals()}


def arrays_of(found: Statistics) -> dict[str, NDArray[Any]]:
    """Return what was found, by name."""
    return {item.name: getattr(found, item.name) for item in fields(found) if item.name != _COUNTS}


def add_counts(total: dict[str, int], more: dict[str, int]) -> None:
    """Add how many tests each rule left out."""
    for name, count in more.items():
        total[name] = total.get(name, 0) + count


def without_zeros(counts: dict[str, int]) -> dict[str, int]:
    """Return the rules that left tests out."""
    return {name: count for name, count in counts.items() if count}


class Work(Protocol[Part_co]):
    """What scans consecutive variants."""

    def run(self, rows: slice) -> Part_co:
        """Return what is found in some variants."""


def scan_blocks(
    work: Work[Part_co], genotypes: GenotypeSource, run: slice, force: Workforce
) -> Iterator[tuple[Block, Part_co]]:
    """Scan consecutive variants, block by block."""
    blocks = blocks_within(run, readable(genotypes))
    yield from run_blocks(_ScanBlock(work), blocks, force, "scan")


def readable(genotypes: GenotypeSource) -> int:
    """Return how many variants are read at a time, in whole tiles."""
    return max(genotypes.block_size() // TILE, 1) * TILE


def blocks_within(run: slice, unit: int) -> list[Block]:
    """Cut consecutive variants wherever a number is a multiple of ``unit``."""
    first = run.start // unit * unit
    blocks = plan_blocks(run.stop - first, unit)
    return [Block(max(first + b.start, run.start), first + b.stop) for b in blocks]


class _ScanBlock(Generic[Part_co]):
    """Scans one block of variants."""

    def __init__(self, work: Work[Part_co]) -> None:
        self.work = work

    def __call__(self, block: Block) -> Part_co:
        return self.work.run(block.rows)


def joined(parts: list[Found]) -> Found:
    """Put statistics of consecutive variants together."""
    filtered: dict[str, int] = {}
    for part in parts:
        add_counts(filtered, part.filtered)
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in arrays_of(parts[0])
    }
    return replace(parts[0], **arrays, filtered=filtered)
