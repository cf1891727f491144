"""The variances of a variant's scores without rotating it.

A scan with related samples needs ``v = g^T P g`` of every variant, 2 N^2 flops each. What is done
instead depends on how many samples carry the rarer allele.

Few carriers may all be relatives, so that v can be anything; but only they count: P projects
the constant and covariates out, so that genotypes need not be centred. With a the copies of the
rarer allele, ``v = sum_ij a_i P_ij a_j`` over pairs of carriers is exact (`RareVariances`).

Many carriers are most pairs of samples alike. Where these are hardly related, v is nearly a
constant share c of ``g^T g`` (both with the covariates projected out; Svishcheva et al. 2012,
Nature Genetics 44; Loh et al. 2015, Nature Genetics 47). Population structure and families spoil
that along the leading eigenvectors of the relationships, on which some variants lie and others do
not. Along those, v is known exactly:

    v = sum_{i <= k} w_i (u_i^T g)^2 + c (g^T g - sum_{i <= k} (u_i^T g)^2),
    w_i = 1 / (h2 S_i + 1 - h2),

so that c stands for the rest alone. It is estimated from common variants that are drawn; each of
them, with the c that the others give, and rare ones tell the error.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.data.genotype_blocks import CallBlock, DosageBlock, GenotypeBlock
from plait.data.genotypes import GenotypeSource, pack
from plait.data.ploidy import haploids
from plait.gwas.design import Design
from plait.gwas.null_models import LeftOutModel, NullModel
from plait.gwas.quality import VariantFilter
from plait.gwas.sex_chromosomes import known_meanings

Array = NDArray[np.float64]

TOLERANCE = 0.01
"""Root mean square of the relative errors of standard errors that calibration may make.

t-statistics are off by as much, slopes by twice that. With N samples, standard errors are
themselves estimates with a relative error of about ``(2 N)^(-1/2)``: 1.6 % of 2000. Variants with
small p-values are done exactly anyway.
"""
LEADING = (0, 16, 64, 256)
"""How many leading eigenvectors are tried, the fewest first."""
_SHARE = 4
"""At most one eigenvector for so many samples: with more, rotating variants is hardly dearer."""
DRAWN = 1024
"""Most variants that are drawn; where there are no more, all are rotated for about as much."""
_ENOUGH = 128
"""Variants of a kind, common or rare, that are looked at; with fewer common ones, none is."""
_FEW = 32
"""Variants of a stratum from which its error counts by itself."""
_LOWEST = 0.01
"""Smaller shares h2 are between this one and 0, where ``v = g^T g``."""
_SINGLE_BELOW = 0.99
"""Shares for which P, whose elements are at most ``1 / (1 - h2)``, is kept in half the room."""
_PRECISION = 1 / 300
"""Of the logarithm of v between shares, in units of how much that varies."""
_log = logging.getLogger("plait.gwas")


def rare_copies(n_samples: int) -> int:
    """Return up to how many copies of its rarer allele a variant is rare.

    Pairs of carriers are then fewer than N^2 / 512, or a few thousand.
    """
    return max(n_samples // 16, min(128, n_samples // 4))


@dataclass(frozen=True, eq=False)
class Drawn:
    """Random variants that are tested, covariates projected out.

    Attributes
    ----------
    genotypes : (n, N) array
        Centred.
    copies : (n, N) array
        Of the rarer allele, as they are.
    minor_counts : (n,) array
        Sums of the copies over the samples that have a genotype.
    """

    genotypes: Array
    copies: Array
    minor_counts: Array

    @property
    def is_rare(self) -> NDArray[np.bool_]:
        """See `rare_copies`."""
        return np.asarray(self.minor_counts <= rare_copies(self.genotypes.shape[1]))


@dataclass(frozen=True, eq=False)
class RareVariances:
    """Exact v of rare variants, of T traits, from P at m shares.

    Between shares the logarithm of v is interpolated, in ``ln (h2 / (1 - h2))``, where its nearest
    singularities are pi away from the real line: every share more divides the error by several.

    Attributes
    ----------
    inverses : (N, N, m) array
        P at the shares, in single precision where no share is close to 1.
    averages : (m,) array
        Means of their eigenvalues: v for genotypes that are noise.
    weights : (T, m) array
        Of the logarithms.
    reach : (T,) array
        1, or how far h2 is from 0 to `_LOWEST`.
    """

    inverses: NDArray[np.floating]
    averages: Array
    weights: Array
    reach: Array

    @classmethod
    def of(cls, null: NullModel | LeftOutModel, h2: Array) -> "RareVariances":
        """Prepare P for traits of some shares (T,); N^3 flops for each of m."""
        places = _log_odds(np.maximum(h2, _LOWEST))
        nodes = _nodes(places)
        shares, n = 1.0 / (1.0 + np.exp(-nodes)), len(null.design.basis)
        single = shares.max() < _SINGLE_BELOW
        inverses = np.empty((n, n, len(nodes)), dtype=np.float32 if single else np.float64)
        for k, share in enumerate(shares.tolist()):
            inverses[:, :, k] = null.inverse(share)
        averages = np.trace(inverses, dtype=np.float64) / (null.design.df + 1)
        weights = np.ones((len(h2), len(nodes)))
        for k, node in enumerate(nodes):
            for other in np.delete(nodes, k):
                weights[:, k] *= (places - other) / (node - other)
        return cls(inverses, averages, weights, np.minimum(h2 / _LOWEST, 1.0))

    def fill(self, copies: Array, left: Array, variances: Array) -> None:
        """Fill v (n, T) of copies (n, N), of which ``left`` (n,) is ``g^T g``."""
        from plait.gwas.mixed_kernels import rare_variances

        taken = self.inverses, self.averages, self.weights, self.reach
        rare_variances(copies, left, *taken, variances)


def _log_odds(share: Array) -> Array:
    return np.asarray(np.log(share / (1.0 - share)))


def _nodes(places: Array) -> Array:
    """Return the places of the traits, or as many Chebyshev points as it takes between them."""
    own = np.unique(places)
    half = 0.5 * (own[-1] - own[0])
    if half == 0.0:
        return own
    count = math.ceil(-math.log(_PRECISION) / math.asinh(math.pi / half))
    if count >= len(own):
        return own
    points = np.cos(np.pi * (2 * np.arange(count) + 1) / (2 * count))
    return np.asarray(own[0] + half * (1.0 + points))


@dataclass(frozen=True, eq=False)
class Calibration:
    """How v follows from a few products, for T traits.

    Attributes
    ----------
    directions : (N, k) array
        Leading eigenvectors of the relationships; no sums with the covariates.
    constants : (T,) array
    weights : (T, k) array
        ``w_i - c``.
    error, worst : float
        See `calibrate`.
    rare : RareVariances or None
        None where no rare variant was drawn.
    """

    directions: Array
    constants: Array
    weights: Array
    error: float
    worst: float
    rare: RareVariances | None


def calibrate(
    null: NullModel | LeftOutModel, drawn: Drawn
) -> tuple[Calibration | None, dict[str, Any]]:
    """Estimate how v follows from a few products.

    Parameters
    ----------
    null : NullModel or LeftOutModel
    drawn : Drawn

    Returns
    -------
    Calibration or None
        None where no number of leading eigenvectors keeps the error below `TOLERANCE`: there,
        variants have to be rotated.
    dict
        What was found out: ``variants`` (common ones that were drawn), ``rare_up_to`` (copies),
        ``ratio_sd`` (relative SD of ``v / g^T g`` among common variants, of the worst trait),
        ``leading`` (the number of eigenvectors, None if variants are rotated), and, of the last
        number that was tried, relative errors of standard errors among ``compared`` variants, none
        of which took part in what its own was compared with: ``error`` (the root of the mean
        square, of the worst trait, among all or among those of a stratum), ``worst`` (the largest),
        and ``strata``: the same for variants by ``copies`` of the rarer allele, from and to.
    """
    h2 = null.h2
    common = np.flatnonzero(~drawn.is_rare)
    report: dict[str, Any] = {"variants": len(common), "leading": None}
    report["rare_up_to"] = rare_copies(drawn.genotypes.shape[1])
    if len(common) < _ENOUGH:
        return None, report
    squares = (drawn.genotypes**2).sum(axis=1)
    columns = np.ascontiguousarray(drawn.genotypes.T) / np.sqrt(squares)
    shares = null.variances(columns)  # v of genotypes of length 1
    if shares is None:
        return None, report
    exact = shares[common].T
    report["ratio_sd"] = float((exact.std(axis=1) / exact.mean(axis=1)).max())
    for count in LEADING:
        if count * _SHARE > null.design.df + 1:
            break
        values, directions = null.leading(count)
        along = (directions.T @ columns[:, common]) ** 2
        weights = 1.0 / (h2[:, None] * values + 1.0 - h2[:, None])
        known, rest = weights @ along, 1.0 - along.sum(axis=0)
        left = exact - known
        constants = left.sum(axis=1) / rest.sum()
        # Of each variant, with the constant that the others give.
        others = (left.sum(axis=1, keepdims=True) - left) / (rest.sum() - rest)
        errors = np.sqrt(exact / (known + others * rest)) - 1.0
        counts = drawn.minor_counts[common]
        report |= _compared(errors, counts, report["rare_up_to"])
        if report["error"] > TOLERANCE:
            continue
        rare = None
        if drawn.is_rare.any():
            rare = RareVariances.of(null, h2)
            errors = np.hstack([_errors_of_rare(rare, drawn, squares, shares), errors])
            counts = np.concatenate([drawn.minor_counts[drawn.is_rare], counts])
            report |= _compared(errors, counts, report["rare_up_to"])
            if report["error"] > TOLERANCE:
                break
        report["leading"] = count
        found = report["error"], report["worst"]
        off = weights - constants[:, None]
        return Calibration(directions, constants, off, *found, rare), report
    return None, report


def _errors_of_rare(rare: RareVariances, drawn: Drawn, squares: Array, shares: Array) -> Array:
    """Return relative errors (T, n) of the standard errors of rare variants."""
    which = drawn.is_rare
    found = np.empty((int(which.sum()), shares.shape[1]))
    rare.fill(drawn.copies[which], squares[which], found)
    errors: Array = np.sqrt(shares[which] * squares[which, None] / found).T - 1.0
    return errors


def _compared(errors: Array, counts: Array, rare_up_to: int) -> dict[str, Any]:
    """Describe errors (T, n) of variants with so many copies of the rarer allele."""

    def mean_square(part: Array) -> float:
        return float(np.sqrt((part**2).mean(axis=1)).max())

    error, strata = mean_square(errors), []
    edges = (0, rare_up_to, 4 * rare_up_to, np.inf)
    for low, high in pairwise(edges):
        inside = (counts > low) & (counts <= high)
        if not inside.any():
            continue
        part, number = errors[:, inside], int(inside.sum())
        copies = [float(counts[inside].min()), float(counts[inside].max())]
        strata.append({"copies": copies, "compared": number, "error": mean_square(part)})
        strata[-1]["worst"] = float(np.abs(part).max())
        if number >= _FEW:
            error = max(error, mean_square(part))
    worst = float(np.abs(errors).max())
    return {"compared": errors.shape[1], "error": error, "worst": worst, "strata": strata}


def random_variants(source: GenotypeSource, runs: Sequence[slice]) -> GenotypeBlock:
    """Read random variants of some runs: the same ones whoever asks."""
    numbers = np.concatenate([np.arange(run.start, run.stop) for run in runs])
    random = np.random.default_rng(np.random.SeedSequence([int(numbers[0]), len(numbers)]))
    if len(numbers) > DRAWN:
        numbers = np.sort(random.choice(numbers, DRAWN, replace=False))
    haploid = haploids(source, numbers, known_meanings(source))
    if source.kind == "hardcall":
        return CallBlock(pack(source.read(numbers, None, np.int8)), source.n_samples, 0, haploid)
    dosages = source.read(numbers, None, np.float32)
    return DosageBlock(dosages, 0, source.ploidy, haploid)


def tested_genotypes(block: GenotypeBlock, design: Design, rules: VariantFilter) -> Drawn:
    """Return variants of a block that are tested, common and rare ones, each kind evenly."""
    block = block.of_samples(design.rows)
    gone = np.logical_or.reduce(list(rules.removed(block.calls).values()))
    counts = np.asarray(block.calls.minor_count, dtype=np.float64)
    is_rare = counts <= rare_copies(block.n_samples)
    kinds = [np.flatnonzero(~gone & kind) for kind in (~is_rare, is_rare)]
    kept = np.concatenate([_evenly(kind, _ENOUGH) for kind in kinds])
    genotypes = block.centred(kept)
    left = genotypes - (genotypes @ design.basis) @ design.basis.T
    apart = (left**2).sum(axis=1) > 0.01 * block.squares[kept]
    kept, left = kept[apart], left[apart]
    return Drawn(left, block.rarer_copies(kept)[0], counts[kept])


def _evenly(numbers: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    return numbers[np.arange(most) * len(numbers) // most] if len(numbers) > most else numbers
