"""The variances of a variant's scores without rotating it: calibrated on a few hundred variants.

A scan with related samples needs ``v = g^T P g`` of every variant, 2 N^2 flops each. Where samples
are hardly related, v is nearly a constant share c of ``g^T g`` (both with the covariates projected
out; Svishcheva et al. 2012, Nature Genetics 44; Loh et al. 2015, Nature Genetics 47). Population
structure and families spoil that along the leading eigenvectors of the relationships, on which some
variants lie and others do not. Along those, v is known exactly:

    v = sum_{i <= k} w_i (u_i^T g)^2 + c (g^T g - sum_{i <= k} (u_i^T g)^2),
    w_i = 1 / (h2 S_i + 1 - h2),

so that c stands for the rest alone. Half of the variants estimate c, the others tell the error.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.data.genotype_blocks import CallBlock, DosageBlock, GenotypeBlock
from plait.data.genotypes import GenotypeSource, pack
from plait.gwas.design import Design
from plait.gwas.quality import VariantFilter
from plait.numerics.reml import RestrictedModel

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
_DRAWN = 1024
_USED = 256
_ENOUGH = 128
_log = logging.getLogger("plait.gwas")


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
        Relative errors of standard errors, of variants that did not take part: the root of the
        mean square (of the worst trait), and the largest.
    """

    directions: Array
    constants: Array
    weights: Array
    error: float
    worst: float


def calibrate(
    model: RestrictedModel, h2: Array, genotypes: Array
) -> tuple[Calibration | None, dict[str, Any]]:
    """Estimate how v follows from a few products.

    Parameters
    ----------
    model : RestrictedModel
    h2 : (T,) array
    genotypes : (n, N) array
        Centred genotypes of random variants, covariates projected out.

    Returns
    -------
    Calibration or None
        None where no number of leading eigenvectors keeps the error below `TOLERANCE`: there,
        variants have to be rotated.
    dict
        What was found out: ``variants``, ``ratio_sd`` (relative SD of ``v / g^T g``, of the worst
        trait), ``leading`` (the number of eigenvectors, None if variants are rotated), and, of the
        last number that was tried, ``error`` and ``worst``.
    """
    from plait.gwas.mixed_kernels import tridiagonal_variances

    report: dict[str, Any] = {"variants": len(genotypes), "leading": None}
    if len(genotypes) < _ENOUGH:
        return None, report
    lengths = np.linalg.norm(genotypes, axis=1)
    rotated = model.relationships.rotated(np.ascontiguousarray(genotypes.T) / lengths)
    variances = np.empty((len(genotypes), len(h2)))
    tridiagonal_variances(rotated, *model.factors(h2), variances)
    exact = variances.T
    report["ratio_sd"] = float((exact.std(axis=1) / exact.mean(axis=1)).max())
    for count in LEADING:
        if count * _SHARE > model.df:
            break
        values, vectors = model.relationships.leading(count)
        along = (vectors.T @ rotated) ** 2
        weights = 1.0 / (h2[:, None] * values + 1.0 - h2[:, None])
        known, rest = weights @ along, 1.0 - along.sum(axis=0)
        constants = (exact - known)[:, ::2].sum(axis=1) / rest[::2].sum()
        found = known + constants[:, None] * rest
        errors = np.sqrt(exact / found)[:, 1::2] - 1.0
        error = float(np.sqrt((errors**2).mean(axis=1)).max())
        worst = float(np.abs(errors).max())
        report |= {"error": error, "worst": worst}
        if error <= TOLERANCE:
            report["leading"] = count
            directions = model.relationships.rotated_back(vectors)
            differences = weights - constants[:, None]
            return Calibration(directions, constants, differences, error, worst), report
    return None, report


def random_variants(source: GenotypeSource, runs: Sequence[slice]) -> GenotypeBlock:
    """Read random variants of some runs: the same ones whoever asks."""
    numbers = np.concatenate([np.arange(run.start, run.stop) for run in runs])
    random = np.random.default_rng(np.random.SeedSequence([int(numbers[0]), len(numbers)]))
    if len(numbers) > _DRAWN:
        numbers = np.sort(random.choice(numbers, _DRAWN, replace=False))
    if source.kind == "hardcall":
        return CallBlock(pack(source.read(numbers, None, np.int8)), source.n_samples, 0)
    return DosageBlock(source.read(numbers, None, np.float32), 0, source.ploidy)


def tested_genotypes(block: GenotypeBlock, design: Design, rules: VariantFilter) -> Array:
    """Return genotypes (n, N) of variants that are tested, evenly from a block.

    They are centred, and the covariates are projected out.
    """
    block = block.of_samples(design.rows)
    gone = np.logical_or.reduce(list(rules.removed(block.calls).values()))
    kept = np.flatnonzero(~gone)
    if len(kept) > _USED:
        kept = kept[np.arange(_USED) * len(kept) // _USED]
    genotypes = block.centred(kept)
    left = genotypes - (genotypes @ design.basis) @ design.basis.T
    apart = (left**2).sum(axis=1) > 0.01 * block.squares[kept]
    result: Array = left[apart]
    return result
