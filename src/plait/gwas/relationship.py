"""Genomic relationships of samples: one pass over the genotypes, a matrix for each chromosome.

Where variants count alike, products of hard calls are made from counts of bits, exactly and several
times as fast as by multiplication; others are products of floats.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from plait.data.genotype_blocks import GenotypeBlock, read_block
from plait.data.genotypes import GenotypeCounts, GenotypeSource, Packed
from plait.errors import CapacityError, OptionError
from plait.execution.memory import memory_budget
from plait.execution.progress import stage
from plait.execution.threads import resolve_threads, single_threaded_blas
from plait.gwas.chromosome_runs import gathered
from plait.gwas.inputs import opened_genotypes
from plait.gwas.quality import VariantFilter
from plait.gwas.relationship_codings import ROWS, coded_genotypes
from plait.gwas.relationship_missing import Missing, missing_genotypes
from plait.gwas.relationship_results import Relationships

if TYPE_CHECKING:
    from plait.gwas.inputs import GenotypesLike

Array = NDArray[np.float64]
Samples = NDArray[np.integer[Any]]
Flags = NDArray[np.bool_]
Tile = tuple[slice, slice]
Item = TypeVar("Item")
Output = TypeVar("Output")

_PANEL = 512
"""Samples of a panel: a thread multiplies two panels at a time, whatever the number of threads."""
_GROUP = 8
"""Samples whose words are compared together, as `plait.numerics.lane_kernels.WORDS`."""
_GRAIN = 1024
_MANY_MISSING = 0.05
"""Share of missing calls from which multiplying is faster than looking after each of them."""
_METHODS = ("vanraden", "gcta", "standardised", "dominance", "ibs")
_PAIRWISE = ("gcta", "ibs")
"""Those that are divided by how many variants two samples have calls of."""


def relationship_matrix(
    genotypes: "GenotypesLike",
    method: str = "vanraden",
    *,
    samples: NDArray[np.integer] | None = None,
    min_frequency: float = 0.01,
    min_call_rate: float | None = None,
    by_chromosome: bool = True,
    halves: bool = False,
    memory: int | str | None = None,
    threads: int | None = None,
) -> Relationships:
    """Compute genomic relationships.

    Parameters
    ----------
    genotypes : path or GenotypeSource
        A file as `plait.io.open_genotypes` takes it, or what that returns.
    method : {"vanraden", "gcta", "standardised", "dominance", "ibs"}
        "vanraden": ``W W^T / (2 sum f (1 - f))`` with ``w = g - 2 f`` (VanRaden 2008, method 1).
        "gcta": the mean of ``z_i z_j``, ``z = w / sqrt(2 f (1 - f))``, over the variants with a
        call of both samples (Yang et al. 2011, equation 3), as GCTA and PLINK have it.
        "standardised": ``Z Z^T / M``, the same where nothing is missing (Patterson, Price and Reich
        2006).
        "dominance": ``H H^T / sum (2 f (1 - f))^2``, h the deviation of a genotype from what its
        copies predict (Vitezica et al. 2013), for the variance by dominance beside the additive
        one. "ibs": the share of alleles that two samples have in common, 0 to 1, of the variants
        with a call of both (as PLINK's ``--distance ibs``). Both are of hard calls.
    samples : integers, optional
        Numbers of the samples. Default all.
    min_frequency : float
        Variants whose rarer allele is rarer than this do not count.
    min_call_rate : float, optional
        Nor do variants with a smaller share of these samples that have a genotype. Default: all
        count, as in a mixed scan. ``plait gwas kinship`` asks for 0.95.
    by_chromosome : bool
        Keep a sum for each chromosome (for leaving one out), or one for all.
    halves : bool
        With ``by_chromosome=False``: keep a sum for each half of the variants, from which
        `close_relatives` tells relatives from chance.
    memory : int or str, optional
        Bytes for the matrices. Default half of what is free.
    threads : int, optional

    Returns
    -------
    Relationships

    Raises
    ------
    OptionError
        The method is unknown, or is of hard calls and these are dosages; ``by_chromosome`` and
        ``halves`` are both asked for; or a limit is not between 0 and 1.
    CapacityError
        The matrices do not fit.

    Notes
    -----
    A missing genotype is the mean of its variant. But for "gcta" and "ibs" its product counts
    neither in the sum nor in what that is divided by: samples with few calls then are as related as
    others, and the matrix may have eigenvalues a little below 0. The others never have, which a
    mixed model and principal components need.

    Cost: N^2 M flops ("ibs" 2 N^2 M) in single precision, added up in double precision every 2048
    variants; or, of hard calls by VanRaden's method where few are missing, N^2 M / 128 comparisons
    of words of 64 variants and N^2 M flops times the share of missing calls. "gcta" and "ibs" add,
    for a variant that m samples lack, m^2 / 2 whole numbers, or N^2 / 128 comparisons where many
    are missing. Memory: N^2 times 2 bytes for each chromosome ("gcta", "ibs": 4), and 12 more.
    """
    if method not in _METHODS:
        raise OptionError(f"method is {method!r}; give one of {', '.join(map(repr, _METHODS))}.")
    if by_chromosome and halves:
        raise OptionError("relationships are kept by chromosome or by halves of them, not both.")
    genotypes = opened_genotypes(genotypes, "hardcall" if method in ROWS else "auto")
    if method in ROWS and genotypes.kind != "hardcall":
        raise OptionError(
            f"method is {method!r}, which is of hard calls, and these genotypes are dosages. Open "
            "them with dosage='hardcall'."
        )
    rows = np.arange(genotypes.n_samples) if samples is None else np.asarray(samples)
    runs = genotypes.variants.chromosomes if by_chromosome else _parts(genotypes, halves)
    names = tuple(dict.fromkeys(name for name, _ in runs))
    if len(runs) > len(names):
        genotypes = gathered(genotypes)[0]
        runs = genotypes.variants.chromosomes
    n, each = len(rows), 4 if method in _PAIRWISE else 2
    needed, budget = (each * len(names) + 12) * n * n, memory_budget(memory)
    if needed > budget:
        less = ""
        if len(names) > 1:
            less = ", or give by_chromosome=False (in a scan, loco=False)"
        raise CapacityError(
            f"relationships of {n:,} samples on {len(names)} chromosome(s) take "
            f"{needed / 2**20:,.0f} MiB and memory is {budget / 2**20:,.0f} MiB: raise --memory "
            f"(memory=){less}."
        )
    sums = np.zeros((len(names), n * (n + 1) // 2), dtype=np.float32)
    norms = np.zeros(len(names))
    counted = np.zeros(len(names), dtype=np.int64)
    lacking = np.zeros(sums.shape, dtype=np.int32) if method in _PAIRWISE else None
    rules = VariantFilter(min_call_rate, None, min_frequency)
    with (
        single_threaded_blas(),
        ThreadPoolExecutor(resolve_threads(threads)) as pool,
        stage("relationships", genotypes.n_variants) as advance,
    ):
        total = _total(genotypes, rows, rules, method)
        for name, run in runs:
            k = names.index(name)
            total.begin(None if lacking is None else lacking[k])
            blocks = _cut(run, genotypes.n_variants, total.at_once)
            for block, (read, norm, used) in zip(
                blocks, _one_ahead(pool, total.read, blocks), strict=True
            ):
                list(pool.map(partial(total.add, read), total.tasks))
                norms[k] += norm
                counted[k] += used
                advance(block.stop - block.start)
            for one, two in _tiles(n):
                total.add_tile(one, two, sums[k])
    return Relationships(genotypes.samples[rows], names, sums, norms, counted, method, lacking)


def _parts(genotypes: GenotypeSource, halves: bool) -> list[tuple[str, slice]]:
    if not halves:
        return [("all", slice(0, None))]
    middle = genotypes.n_variants // 2
    return [("first half", slice(0, middle)), ("second half", slice(middle, None))]


def _cut(run: slice, n_variants: int, size: int) -> list[slice]:
    start, stop, _ = run.indices(n_variants)
    return [slice(a, min(a + size, stop)) for a in range(start, stop, size)]


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


def _panels(n: int) -> list[slice]:
    return [slice(a, min(a + _PANEL, n)) for a in range(0, n, _PANEL)]


def _tiles(n: int) -> list[Tile]:
    """Return the pairs of panels on and below the diagonal."""
    panels = _panels(n)
    return [(one, two) for i, one in enumerate(panels) for two in panels[: i + 1]]


class _Total(ABC, Generic[Item]):
    """The sum over the variants of a run; threads add to different parts of it.

    Attributes
    ----------
    at_once : int
        Variants of a block.
    tasks : list of Tile
        Parts that can be added to at the same time.
    """

    at_once: int
    tasks: list[Any]

    @abstractmethod
    def begin(self, lacking: NDArray[np.int32] | None) -> None:
        """Begin a sum, of a method that looks at pairs with what two samples lack together.

        The memory of the sum before is used again: to touch new memory takes longer.
        """

    @abstractmethod
    def read(self, block: slice) -> tuple[Item, float, int]:
        """Return a block made ready, what it adds to the norm, and how many variants count."""

    @abstractmethod
    def add(self, read: Item, task: Any) -> None:
        """Add a block to one part."""

    @abstractmethod
    def add_tile(self, one: slice, two: slice, triangle: NDArray[np.float32]) -> None:
        """Add a tile of the sum, on or below the diagonal, to a triangle of `Relationships`."""


def _total(
    genotypes: GenotypeSource, rows: Samples, rules: VariantFilter, method: str
) -> _Total[Any]:
    if method == "vanraden" and genotypes.kind == "hardcall":
        return _CallTotal(genotypes, rows, rules)
    return _DosageTotal(genotypes, rows, rules, method)


@dataclass(frozen=True, eq=False)
class _Scaled:
    """A block of scaled genotypes (height, N), and which of them are missing."""

    values: NDArray[np.float32]
    missing: Missing | None


class _DosageTotal(_Total[_Scaled]):
    """Products of scaled genotypes, tile by tile.

    Of methods that look at pairs, the variants that two samples lack together are added to
    ``lacking``, a triangle.
    """

    height = 2048  # sums over so many rows are in single precision

    def __init__(
        self, genotypes: GenotypeSource, rows: Samples, rules: VariantFilter, method: str
    ) -> None:
        self._what = genotypes, rows
        self._rules, self._method = rules, method
        self.at_once = self.height // ROWS.get(method, 1)
        n = len(rows)
        self._total = np.empty((n, n))
        self.tasks = [*_panels(n), *_tiles(n)] if method in _PAIRWISE else _tiles(n)

    def begin(self, lacking: NDArray[np.int32] | None) -> None:
        self._total.fill(0.0)
        self._lacking = lacking

    def read(self, block: slice) -> tuple[_Scaled, float, int]:
        genotypes, rows = self._what
        read = read_block(genotypes, block, rows)
        values, norm, used = _scaled(read, genotypes.ploidy, self._method, self._rules, self.height)
        missing = None if self._lacking is None else missing_genotypes(read, used)
        return _Scaled(values, missing), norm, int(used.sum())

    def add(self, read: _Scaled, task: slice | Tile) -> None:
        if not isinstance(task, slice):
            one, two = task
            self._total[task] += read.values[:, one].T @ read.values[:, two]
        if self._lacking is not None and read.missing is not None:
            read.missing.add(task, self._lacking)

    def add_tile(self, one: slice, two: slice, triangle: NDArray[np.float32]) -> None:
        from plait.gwas.relationship_kernels import add_rows

        add_rows(self._total[one, two], one.start, two.start, triangle)


@dataclass(frozen=True, eq=False)
class _Calls:
    """A block of hard calls: see `plait.gwas.relationship_kernels`."""

    packed: Packed
    means: NDArray[np.float32]
    planes: NDArray[np.uint64]
    starts: NDArray[np.int64]
    members: NDArray[np.int32]


class _CallTotal(_Total[_Calls | NDArray[np.float32]]):
    """Products of centred calls, from those of whole numbers.

    With h the copies less 1, 0 where missing (x = 1), and m the mean of a variant less 1, centred
    calls are ``w = h - m + m x``. Products of h are counts of bits, without any rounding. To these,
    ``w_i w_k`` adds ``m x_k (w_i - m x_i / 2)``, which counts only where k lacks a call, and
    ``m^2 x_i - m w_i``, of one sample alone; both again with i and k exchanged; and ``-m^2``.
    Blocks in which many calls are missing are multiplied instead.
    """

    at_once = 4096
    """A multiple of 64; the decoded calls of `STRIP` samples stay in the second cache."""

    def __init__(self, genotypes: GenotypeSource, rows: Samples, rules: VariantFilter) -> None:
        from plait.gwas.relationship_kernels import STRIP

        n = len(rows)
        everyone = np.array_equal(rows, np.arange(genotypes.n_samples))
        self._genotypes, self._rows, self._rules = genotypes, None if everyone else rows, rules
        whole = -(-n // _GROUP) * _GROUP
        self._products = np.empty((whole, whole), dtype=np.int32)
        # What is added, with its transpose, to products; columns lie apart in strips.
        self._halves = np.empty((-(-n // STRIP), n, STRIP))
        self._alone = np.empty(n)
        self.tasks = [*_panels(n), *_tiles(n)]

    def begin(self, lacking: NDArray[np.int32] | None) -> None:
        for total in (self._products, self._halves, self._alone):
            total.fill(0)

    def read(self, block: slice) -> tuple[_Calls | NDArray[np.float32], float, int]:
        from plait.gwas.relationship_kernels import listed, turn_calls

        n = len(self._alone)
        packed = self._genotypes.read_packed(block, self._rows)
        counts = GenotypeCounts.of_packed(packed, n)
        used = ~np.logical_or.reduce(list(self._rules.removed(counts).values()))
        if counts.n_missing[used].sum() > _MANY_MISSING * n * used.sum():
            rows = np.arange(n) if self._rows is None else self._rows
            rules = self._rules
            return scaled_genotypes(self._genotypes, block, rows, "vanraden", rules, self.at_once)
        frequency = counts.frequency
        words = -(-len(packed) // 64)
        planes = np.empty((len(self._products) // _GROUP, words, 2 * _GROUP), dtype=np.uint64)
        missing = np.empty((n, words), dtype=np.uint64)
        turn_calls(packed, used, planes, missing)
        means = np.where(used, 2 * frequency - 1, 0.0).astype(np.float32)
        norm = float((2 * frequency * (1 - frequency))[used].sum())
        return _Calls(packed, means, planes, *listed(missing)), norm, int(used.sum())

    def add(self, read: _Calls | NDArray[np.float32], task: slice | Tile) -> None:
        from plait.gwas.relationship_kernels import STRIP, add_missing, add_products
        from plait.numerics.lane_kernels import at_cache_line

        if isinstance(read, np.ndarray):
            if not isinstance(task, slice):
                one, two = task
                product = (1.0 if one != two else 0.5) * (read[:, one].T @ read[:, two])
                for begin in range(0, product.shape[1], STRIP):
                    part = product[:, begin : begin + STRIP]
                    self._halves[(two.start + begin) // STRIP, one, : part.shape[1]] += part
        elif isinstance(task, slice):
            taken = read.packed, read.means, read.starts, read.members, task.start, task.stop
            values = at_cache_line((len(read.packed), STRIP), np.float32)
            add_missing(*taken, self._alone, values, self._halves)
            self._alone[task] -= 0.5 * np.square(read.means, dtype=np.float64).sum()
        else:
            rows, columns = task
            where = rows.start, rows.stop, columns.start, columns.stop
            add_products(read.planes, *where, self._products)

    def add_tile(self, one: slice, two: slice, triangle: NDArray[np.float32]) -> None:
        from plait.gwas.relationship_kernels import add_tile

        where = one.start, one.stop, two.start, two.stop
        add_tile(self._products, self._halves, self._alone, *where, triangle)


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
    out, norm, used = _scaled(read, genotypes.ploidy, method, rules, height)
    return out, norm, int(used.sum())


def _scaled(
    read: GenotypeBlock, ploidy: int, method: str, rules: VariantFilter, height: int
) -> tuple[NDArray[np.float32], float, Flags]:
    """Return scaled genotypes, what they add to the norm, and which variants count."""
    removed, frequency = rules.removed(read.calls), read.calls.frequency
    used = ~np.logical_or.reduce(list(removed.values()))
    if method in ROWS:
        return *coded_genotypes(read, used, method, height), used
    variance = np.where(used, ploidy * frequency * (1 - frequency), 1.0)
    is_centred_only = method == "vanraden"
    scales = used.astype(np.float64) if is_centred_only else used / np.sqrt(variance)
    out = np.zeros((height, read.n_samples), dtype=np.float32)
    for part, tile, places in read.tiles(np.float32):
        factors = scales[part, None].astype(np.float32)
        np.multiply(tile[places, : read.n_samples], factors, out=out[part])
    return out, float(variance[used].sum() if is_centred_only else used.sum()), used
