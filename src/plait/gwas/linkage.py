"""Linkage disequilibrium: thinning variants, and one variant for each signal."""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.data.genotypes import GenotypeCounts, GenotypeSource, Packed, pack
from plait.data.variants import VariantTable
from plait.errors import OptionError, ShapeError
from plait.execution.progress import stage
from plait.gwas.inputs import opened_genotypes

if TYPE_CHECKING:
    from plait.gwas.inputs import GenotypesLike

Indices = NDArray[np.intp]
Single = NDArray[np.float32]

_log = logging.getLogger("plait.gwas")

_BLOCK = 256
_NAMED = 5
_WINDOW_KB = 1000.0
_STEP = 5
_ROUNDING = 2.0**-44
"""By how much limits are exceeded before that counts, as in PLINK."""
_VECTOR = 128
"""Bytes of packed calls that fill a vector of the kernels."""
_LANES = 16
"""Dosages that do."""


@dataclass(frozen=True, eq=False)
class Clumps:
    """Groups of variants that share a signal.

    Attributes
    ----------
    index : (C,) int array
        The surest variant of each group, the surest first.
    members : list of int arrays
        The other variants of each group, ascending.
    """

    index: Indices
    members: list[Indices]


def ld_prune(
    genotypes: "GenotypesLike",
    *,
    r2: float = 0.2,
    window_kb: float | None = None,
    window_variants: int | None = None,
    step: int | None = None,
    min_frequency: float = 0.0,
    samples: NDArray[np.integer] | None = None,
) -> Indices:
    """Choose variants of which no two nearby ones are correlated.

    Parameters
    ----------
    genotypes : path or GenotypeSource
        Where positions do not ascend, variants are compared in the order of their positions.
    r2 : float
        Largest squared correlation of two variants that are both kept.
    window_kb : float, optional
        Distance up to which variants are compared, in thousands of bases. Default 1000.
    window_variants : int, optional
        Compare within windows of this many consecutive variants instead, 2 at least.
    step : int, optional
        By how many variants a window of variants moves, at most its own length: two variants that
        no window holds together are not compared. Default 5, or its length where that is less.
        Windows of a distance move by one variant.
    min_frequency : float
        Variants whose rarer allele is rarer are left out, though windows of variants count them;
        those that do not vary are never kept.
    samples : integers, optional
        Numbers of the samples to use. Default all.

    Returns
    -------
    (kept,) int array
        Numbers of variants, ascending.

    Raises
    ------
    OptionError
        ``r2``, a window or the step is out of range, there are two windows, or a step of a window
        of a distance.

    Notes
    -----
    In a window each variant in turn is compared with those after it until one has a larger r2; of
    the two the one with the rarer allele goes, the later one of a tie. That is repeated until none
    goes, and the window moves on, chromosome by chromosome.

    Of hard calls r2 is that of the samples that have both genotypes, from whole numbers, and what
    is kept of autosomes is what PLINK 2 keeps with ``--indep-pairwise`` (of founders, as which it
    takes all samples without parents in the file), but for a variant that does not vary and has no
    neighbour in its window, which PLINK keeps. Of dosages, of which PLINK takes the nearest calls,
    r2 is their own, a missing one counting as the mean.

    Cost: N / 8 operations on bits (with missing calls N / 2; of dosages 2 N flops) for every two
    variants that are compared. Memory: of a window, 3 N / 8 bytes for each variant that varies
    (dosages: 4 N).
    """
    from plait.gwas.linkage_kernels import prune_windows

    window_kb, step = _check_windows(r2, window_kb, window_variants, step)
    genotypes = opened_genotypes(genotypes)
    n = genotypes.n_samples if samples is None else len(samples)
    kept: list[Indices] = []
    with stage("pruning", genotypes.n_variants) as advance:
        for order in _by_position(genotypes.variants):
            # Variants go by their rank on the chromosome, from here on.
            starts, ends = _windows(genotypes.variants.pos[order], window_kb, window_variants, step)
            held, done, size = None, 0, genotypes.block_size()
            for start in range(0, len(order), size):
                block = order[start : start + size]
                new = _read_candidates(genotypes, block, start, samples, min_frequency)
                held = new if held is None else held.then(new)
                whole = int(np.searchsorted(ends, start + len(block), side="right"))
                alive = np.ones(len(held.numbers), dtype=np.bool_)
                prune_windows(
                    starts[done:whole], ends[done:whole], *held, n, alive, r2 * (1 + _ROUNDING)
                )
                done = whole
                passed = held.numbers < (starts[done] if done < len(starts) else len(order))
                kept.append(order[held.numbers[alive & passed]])
                held = held.where(alive & ~passed)
                advance(len(block))
    return np.sort(np.concatenate(kept)) if kept else np.empty(0, dtype=np.intp)


def _check_windows(
    r2: float, window_kb: float | None, window_variants: int | None, step: int | None
) -> tuple[float, int]:
    """Return the distance, and the step, of windows that are in range."""
    if not 0 < r2 <= 1:
        raise OptionError(f"r2 is {r2}; give a number above 0, at most 1.")
    if window_kb is not None and window_variants is not None:
        raise OptionError("window_kb and window_variants are both given; give one window.")
    if window_variants is None:
        if step not in (None, 1):
            raise OptionError(
                f"step is {step}; windows of a distance move by 1 variant. Give window_variants."
            )
        window_kb = _WINDOW_KB if window_kb is None else window_kb
        if not window_kb >= 0:
            raise OptionError(f"window_kb is {window_kb}; give a distance, 0 at least.")
        return window_kb, 1
    if window_variants < 2:
        raise OptionError(f"window_variants is {window_variants}; give 2 or more.")
    step = min(_STEP, window_variants) if step is None else step
    if not 1 <= step <= window_variants:
        raise OptionError(
            f"step is {step}; give 1 to {window_variants}, the variants of a window: further steps "
            "would skip some."
        )
    return 0.0, step


def _windows(
    place: NDArray[np.int64], window_kb: float, window_variants: int | None, step: int
) -> tuple[Indices, Indices]:
    """Return where windows of a chromosome start and end, as ranks.

    The last one is the first to reach the end; those that hold nothing new are left out.
    """
    starts: Indices = np.arange(0, len(place), step)
    if window_variants is None:
        reach = int(1000 * window_kb * (1 + _ROUNDING))
        ends = np.searchsorted(place, place + reach, side="right")
    else:
        ends = np.minimum(starts + window_variants, len(place))
    adds = np.diff(ends, prepend=0) > 0
    return starts[adds], ends[adds]


class _Candidates(NamedTuple):
    """Variants of a chromosome that may be kept, as `linkage_kernels.prune_windows` takes them."""

    numbers: Indices
    words: NDArray[np.uint64]
    sums: NDArray[np.int64]
    values: Single
    minor: NDArray[np.float64]
    unchecked: Indices

    def then(self, others: "_Candidates") -> "_Candidates":
        """Return these and others that come after them."""
        pairs: Any = zip(self, others, strict=True)
        return _Candidates._make(np.concatenate(pair) for pair in pairs)

    def where(self, flags: NDArray[np.bool_]) -> "_Candidates":
        """Return some of them."""
        return _Candidates._make(array[flags] for array in self)


def _read_candidates(
    genotypes: GenotypeSource,
    rows: Indices,
    first: int,
    samples: NDArray[np.integer] | None,
    min_frequency: float,
) -> _Candidates:
    """Read the variants of some rows, the first of which has the rank ``first``."""
    n = genotypes.n_samples if samples is None else len(samples)
    if genotypes.kind == "hardcall":
        run = _run(rows)
        if isinstance(run, slice):
            packed = genotypes.read_packed(run, samples)
        else:
            packed = pack(genotypes.read(run, samples, np.int8))
        counts = GenotypeCounts.of_packed(packed, n)
        minor, words = counts.minor_frequency, _bits(packed)
        differ = counts.n2 - counts.n0
        sums = np.column_stack([counts.n_called, differ, counts.n0 + counts.n2])
        varies = sums[:, 0] * sums[:, 2] > differ**2
        values = np.empty((len(rows), 0), dtype=np.float32)
    else:
        rows_read, minor = standardised(genotypes, _run(rows), samples)
        values = np.pad(rows_read, ((0, 0), (0, -n % _LANES)))
        words = np.empty((len(rows), 3, 0), dtype=np.uint64)
        sums = np.empty((len(rows), 3), dtype=np.int64)
        varies = minor > 0
    usable = varies & (minor >= min_frequency)
    numbers = first + np.flatnonzero(usable)
    return _Candidates(
        numbers, words[usable], sums[usable], values[usable], minor[usable], numbers + 1
    )


def _bits(packed: Packed) -> NDArray[np.uint64]:
    """Return the words (variants, 3, words) of hard calls; samples are in one order in all."""
    n, n_bytes = packed.shape
    padded = np.full((n, -(-n_bytes // _VECTOR) * _VECTOR), 0x55, dtype=np.uint8)
    padded[:, :n_bytes] = packed
    pairs = padded.view(np.uint64).reshape(n, -1, 2)
    even, one = np.uint64(0x5555555555555555), np.uint64(1)
    low = (pairs[..., 0] & even) | ((pairs[..., 1] & even) << one)
    high = ((pairs[..., 0] >> one) & even) | (pairs[..., 1] & ~even)
    varies = ~(low ^ high)
    return np.stack([varies, varies & high, ~low | high], axis=1)


def _by_position(variants: VariantTable) -> list[Indices]:
    """Return the numbers of the variants of each chromosome in the order of their positions."""
    runs: dict[str, list[Indices]] = {}
    for name, run in variants.chromosomes:
        runs.setdefault(name, []).append(np.arange(run.start, run.stop))
    found = {name: np.concatenate(parts) for name, parts in runs.items()}
    mixed = [name for name, rows in found.items() if (np.diff(variants.pos[rows]) < 0).any()]
    for name in mixed:
        found[name] = found[name][np.argsort(variants.pos[found[name]], kind="stable")]
    if mixed:
        _log.info(
            "positions do not ascend on chromosome %s%s: sorted to find linked variants",
            ", ".join(mixed[:_NAMED]),
            ", ..." if len(mixed) > _NAMED else "",
            extra={"notice": True},
        )
    return list(found.values())


def _run(rows: Indices) -> "slice | Indices":
    """Return numbers as a slice where they follow one another, which is read faster."""
    first, last = int(rows[0]), int(rows[-1])
    is_run = last - first == len(rows) - 1 and bool((np.diff(rows) == 1).all())
    return slice(first, last + 1) if is_run else rows


def clump(
    genotypes: "GenotypesLike",
    log10p: ArrayLike,
    *,
    r2: float = 0.1,
    window_kb: float = 250.0,
    p_index: float = 1e-4,
    p_member: float = 1e-2,
    samples: NDArray[np.integer] | None = None,
) -> Clumps:
    """Find one variant for each signal: the surest, with the variants correlated with it.

    Parameters
    ----------
    genotypes : path or GenotypeSource
    log10p : (M,) array
        log10 of p-values; NaN where a variant was not tested.
    r2 : float
        Squared correlation from which a variant belongs to a surer one.
    window_kb : float
        Distance up to which it does.
    p_index, p_member : float
        Largest p-value of the surest variant of a group, and of its other members.
    samples : integers, optional

    Returns
    -------
    Clumps

    Raises
    ------
    ShapeError
        There is not one p-value for each variant.
    OptionError
        Not 0 < p_index <= p_member.

    Notes
    -----
    Greedy by p-value, ties in the order of the file. A variant belongs to one group.
    """
    genotypes = opened_genotypes(genotypes)
    values = np.asarray(log10p, dtype=np.float64)
    if values.shape != (genotypes.n_variants,):
        raise ShapeError(
            f"log10p has shape {values.shape}; expected one value for each of "
            f"{genotypes.n_variants} variants."
        )
    if not 0 < p_index <= p_member <= 1:
        raise OptionError(
            f"p_index is {p_index} and p_member {p_member}; give 0 < p_index <= p_member."
        )
    variants = genotypes.variants
    chromosome = np.zeros(len(variants), dtype=np.intp)
    numbers: dict[str, int] = {}
    for name, run in variants.chromosomes:
        chromosome[run] = numbers.setdefault(name, len(numbers))
    candidates = np.flatnonzero(values <= np.log10(p_member))
    free = np.zeros(len(values), dtype=bool)
    free[candidates] = True
    index, members = [], []
    order = candidates[np.argsort(values[candidates], kind="stable")]
    for variant in order[values[order] <= np.log10(p_index)]:
        if not free[variant]:
            continue
        near = np.flatnonzero(free & (chromosome == chromosome[variant]))
        near = near[np.abs(variants.pos[near] - variants.pos[variant]) <= 1000 * window_kb]
        rows, _ = standardised(genotypes, near, samples)
        own = int(np.searchsorted(near, variant))
        together = near[(rows @ rows[own]) ** 2 >= r2]
        together = together[together != variant]
        free[variant] = False
        free[together] = False
        index.append(int(variant))
        members.append(together)
    return Clumps(np.array(index, dtype=np.intp), members)


def r2_with(
    genotypes: GenotypeSource,
    lead: int,
    variants: Indices,
    samples: NDArray[np.integer] | None = None,
) -> NDArray[np.float64]:
    """Return the squared correlation of variants with one of them.

    Parameters
    ----------
    genotypes : GenotypeSource
    lead : int
        Number of the variant that the others are compared with.
    variants : (K,) int array
    samples : integers, optional
        Numbers of the samples to use. Default all.

    Returns
    -------
    (K,) array
        NaN where a variant, or the lead, does not vary.

    Notes
    -----
    Missing genotypes count as the mean. Single precision: right to about 1e-6. Cost: 2 N K flops.
    """
    own, frequency = standardised(genotypes, np.array([lead]), samples)
    if not frequency[0]:
        return np.full(len(variants), np.nan)
    parts = []
    for start in range(0, len(variants), _BLOCK):
        rows, varies = standardised(genotypes, variants[start : start + _BLOCK], samples)
        squares = (rows @ own[0]).astype(np.float64) ** 2
        parts.append(np.where(varies > 0, np.minimum(squares, 1.0), np.nan))
    return np.concatenate(parts) if parts else np.empty(0)


def standardised(
    genotypes: GenotypeSource,
    variants: "slice | Indices",
    samples: NDArray[np.integer] | None = None,
) -> tuple[Single, NDArray[np.float64]]:
    """Return genotypes as rows of mean 0 and length 1, and the frequency of the rarer allele.

    Monomorphic variants are rows of zeros with a frequency of 0.
    """
    rows = genotypes.read(variants, samples, np.float32)
    missing = np.isnan(rows)
    called = np.maximum((~missing).sum(axis=1), 1)
    mean = np.where(missing, 0, rows).sum(axis=1, dtype=np.float64) / called
    rows -= mean[:, None].astype(np.float32)
    rows[missing] = 0
    length = np.sqrt((rows**2).sum(axis=1, dtype=np.float64))
    constant = length <= 1e-6 * np.sqrt(rows.shape[1])
    rows /= np.where(constant, 1, length)[:, None].astype(np.float32)
    rows[constant] = 0
    frequency = mean / genotypes.ploidy
    minor = np.where(constant, 0.0, np.minimum(frequency, 1 - frequency))
    return rows, minor
