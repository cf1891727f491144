"""Rows of genotypes asked for; dosages as floats or hard calls, and what is counted of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from plait.data.genotypes import AlleleCounts, HaploidCounts, Rows
from plait.errors import OptionError, ShapeError

HARD_CALL_DISTANCE = 0.1
"""A dosage at most this far from 0, 1 or 2 is a hard call, as in PLINK; others are missing."""


@dataclass(frozen=True, eq=False)
class DosageCounts(AlleleCounts):
    """What is expected of the alleles that samples carry, (M,) each; see `GenotypeCounts`.

    Attributes
    ----------
    n_called, n_missing : int arrays
        Samples with and without a dosage.
    allele_count : array
        Sum of the dosages.
    squares : array
        Sum of their squares about the mean.
    ploidy : int
    haploid : HaploidCounts or None
        What samples carry that have one copy only, which counts twice; None where there are none.
    """

    n_called: NDArray[np.int64]
    n_missing: NDArray[np.int64]
    allele_count: NDArray[np.float64]
    squares: NDArray[np.float64]
    ploidy: int
    haploid: HaploidCounts | None = None

    @property
    def frequency(self) -> NDArray[np.float64]:
        """Frequency of the effect allele; NaN without any dosage."""
        with np.errstate(invalid="ignore"):
            return self.allele_count / (self.ploidy * self.n_called)

    @property
    def _sums(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
        return self.n_called, self.allele_count, self.ploidy * self.n_called

    @property
    def info(self) -> NDArray[np.float64]:
        """Imputation quality, 0 where nothing varies.

        Variance of the dosages over that of genotypes in Hardy-Weinberg proportions, the r2 of MaCH
        (Li et al. 2010, Genetic Epidemiology 34). That of haploid samples is twice as large, as
        their allele counts twice. Inbred samples can have twice as much, too.
        """
        f, varying = self.minor_frequency, self.n_called
        if self.haploid is not None:
            varying = varying + self.haploid.n_called
        expected = self.ploidy * f * (1.0 - f) * varying
        return np.divide(self.squares, expected, out=np.zeros_like(f), where=expected > 0)


def row_numbers(variants: Rows, count: int) -> NDArray[np.intp]:
    """Return the numbers of the variants asked for, out of ``count``.

    Raises
    ------
    ShapeError
        A number is out of range, or these are not numbers.
    """
    if isinstance(variants, slice):
        return np.arange(*variants.indices(count), dtype=np.intp)
    numbers = np.asarray(variants)
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise ShapeError("variants are given as a slice or as a list of their numbers.")
    if numbers.size and not (numbers.min() >= 0 and numbers.max() < count):
        raise ShapeError(
            f"variants are numbered 0 to {count - 1}, not {numbers.min()} to {numbers.max()}."
        )
    return numbers.astype(np.intp)


def as_slices(numbers: NDArray[np.integer[Any]]) -> list[slice]:
    """Cut numbers into runs of consecutive ones, in their order."""
    if not len(numbers):
        return []
    breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
    starts = numbers[np.concatenate([[0], breaks])]
    stops = numbers[np.concatenate([breaks - 1, [len(numbers) - 1]])] + 1
    return [slice(int(a), int(b)) for a, b in zip(starts, stops, strict=True)]


def as_dosages(values: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """Return dosages, NaN where missing, in the type asked for.

    Raises
    ------
    OptionError
        They are asked for as int8 or in another type.
    """
    kind = np.dtype(dtype)
    if kind == np.int8:
        raise OptionError(
            "these genotypes are dosages; hard calls are needed here. Open them with "
            "dosage='hardcall'."
        )
    if kind not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise OptionError(f"genotypes are read as int8, float32 or float64, not {kind}.")
    return values.astype(kind, copy=False)


def hard_calls(values: NDArray[Any]) -> NDArray[np.int8]:
    """Round dosages to int8 hard calls, -1 where they are missing or not close to a call."""
    nearest = np.rint(values)
    with np.errstate(invalid="ignore"):
        # The margin lets a dosage of 0.1 stored in a few bits be as close as it was meant to be.
        sure = np.abs(values - nearest) <= HARD_CALL_DISTANCE * (1 + 1e-6)
    return np.where(sure, nearest, -1).astype(np.int8)


def other_allele(calls: NDArray[np.int8], ploidy: int) -> NDArray[np.int8]:
    """Return the copies of the other allele, -1 where missing."""
    return np.where(calls < 0, np.int8(-1), np.int8(ploidy) - calls).astype(np.int8)
