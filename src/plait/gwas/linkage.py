"""Linkage disequilibrium: thinning variants, and one variant for each signal."""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.data.genotypes import GenotypeSource
from plait.data.variants import VariantTable
from plait.errors import OptionError, ShapeError
from plait.execution.progress import stage
from plait.execution.threads import single_threaded_blas
from plait.gwas.inputs import opened_genotypes

if TYPE_CHECKING:
    from plait.gwas.inputs import GenotypesLike

Indices = NDArray[np.intp]
Single = NDArray[np.float32]

_log = logging.getLogger("plait.gwas")

_BLOCK = 256
_NAMED = 5


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
        Compare within this many consecutive variants instead, 2 at least.
    min_frequency : float
        Variants whose rarer allele is rarer are left out; monomorphic ones always are.
    samples : integers, optional
        Numbers of the samples to use. Default all.

    Returns
    -------
    (kept,) int array
        Numbers of variants, ascending.

    Raises
    ------
    OptionError
        ``r2`` or a window is out of range, or there are two windows.

    Notes
    -----
    Greedy along the chromosome: of two variants with a larger r2 the one with the rarer allele
    goes (the later one of a tie). Windows move by one variant. PLINK's ``--indep-pairwise`` does
    this too, but compares in another order, breaks ties of frequencies otherwise and takes r2 from
    the samples that have both genotypes, where here missing ones count as the mean: sets are much
    alike, and seldom the same. Cost: 2 N flops for every variant and kept variant of its window.
    """
    if not 0 < r2 <= 1:
        raise OptionError(f"r2 is {r2}; give a number above 0, at most 1.")
    if window_kb is not None and window_variants is not None:
        raise OptionError("window_kb and window_variants are both given; give one window.")
    if window_variants is not None and window_variants < 2:
        raise OptionError(f"window_variants is {window_variants}; give 2 or more.")
    window_kb = 1000.0 if window_kb is None else window_kb
    if not window_kb >= 0:
        raise OptionError(f"window_kb is {window_kb}; give a distance, 0 at least.")
    from plait.gwas.kernels import prune_block

    genotypes = opened_genotypes(genotypes)
    kept: list[Indices] = []
    with single_threaded_blas(), stage("pruning", genotypes.n_variants) as advance:
        for order in _by_position(genotypes.variants):
            # Variants go by their rank on the chromosome, from here on.
            place = genotypes.variants.pos[order]
            numbers: Indices = np.empty(0, dtype=np.intp)
            rows: Single = np.empty((0, 0), dtype=np.float32)
            minor: NDArray[np.float64] = np.empty(0)
            for start in range(0, len(order), _BLOCK):
                block = np.arange(start, min(start + _BLOCK, len(order)))
                new, frequency = standardised(genotypes, _run(order[block]), samples)
                usable = (frequency > 0) & (frequency >= min_frequency)
                if window_variants is None:
                    first = np.searchsorted(place, place[block] - 1000 * window_kb)
                else:
                    first = np.maximum(block - window_variants + 1, 0)
                near = numbers >= first[0]
                kept.append(order[numbers[~near]])
                numbers, minor = numbers[near], minor[near]
                rows = rows[near] if len(numbers) else new[:0]
                everyone = np.concatenate([numbers, block])
                stacked = np.concatenate([rows, new])
                squares = (new @ stacked.T) ** 2
                alive = np.concatenate([np.ones(len(numbers), dtype=np.bool_), usable])
                frequencies = np.concatenate([minor, frequency])
                prune_block(squares, everyone, first, frequencies, alive, len(numbers), r2)
                numbers, rows, minor = everyone[alive], stacked[alive], frequencies[alive]
                advance(len(block))
            kept.append(order[numbers])
    return np.sort(np.concatenate(kept)) if kept else np.empty(0, dtype=np.intp)


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
