"""Of whom the genotypes of a variant are those of one copy: males on X and Y, everyone on MT.

One allele counts twice (see `plait.data.genotypes`), so that among such samples copies vary twice
as much as among diploid ones with the same frequency: by ``4 f (1 - f)``, not ``2 f (1 - f)``.
Where sexes are known, only males have Y: what others are called there is missing, as in PLINK 2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.data.genotypes import GenotypeSource, HaploidCounts, Packed, Rows, pack

HAPLOID = frozenset(["Y", "MT", "M"])
"""Chromosomes of which everyone who has them has one, as `bare` writes them."""
_END_OF_FIRST, _START_OF_SECOND = 2_781_479, 154_931_044
"""What X shares with Y in either build of the human genome ends and begins there at the latest and
the earliest: in GRCh37 at 2,699,520 and 154,931,044, in GRCh38 at 2,781,479 and 155,701,383."""


def bare(name: str) -> str:
    """Return the name of a chromosome in capitals and without ``chr``."""
    return name.upper().removeprefix("CHR")


@dataclass(frozen=True, eq=False)
class Haploids:
    """Which of n variants are haploid in whom of N samples.

    Attributes
    ----------
    in_all, in_males : (n,) bool arrays
    males_only : (n,) bool array
        Those of ``in_all`` that only males have: on Y, where sexes are known.
    is_male : (N,) bool array
    """

    in_all: NDArray[np.bool_]
    in_males: NDArray[np.bool_]
    males_only: NDArray[np.bool_]
    is_male: NDArray[np.bool_]

    def of_samples(self, samples: NDArray[np.integer[Any]]) -> "Haploids":
        """Return those of some samples."""
        return Haploids(self.in_all, self.in_males, self.males_only, self.is_male[samples])

    def hide_calls(self, packed: Packed) -> Packed:
        """Return packed calls (n, ceil(N / 4)) in which who does not have a variant has no call."""
        if not self.males_only.any() or self.is_male.all():
            return packed
        kept = pack(np.where(self.is_male, 0, 2).astype(np.int8)[None])
        missing = pack(np.where(self.is_male, 2, -1).astype(np.int8)[None])
        hidden = packed.copy()
        hidden[self.males_only] = packed[self.males_only] & kept | missing
        return hidden

    def hide_dosages(self, dosages: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return dosages (n, N) in which who does not have a variant has none."""
        if not self.males_only.any() or self.is_male.all():
            return dosages
        hidden = dosages.copy()
        hidden[np.ix_(self.males_only, ~self.is_male)] = np.nan
        return hidden

    def count_calls(self, packed: Packed, codes: NDArray[np.int64]) -> HaploidCounts:
        """Count what haploid samples carry, of packed calls and counts (n, 4) of their codes."""
        from plait.data.genotype_kernels import count_genotypes, select_samples

        males = np.flatnonzero(self.is_male)
        among = np.where(self.in_all[:, None], codes, 0)
        if self.in_males.any() and len(males):
            of_males = select_samples(packed[self.in_males], males)
            among[self.in_males] = count_genotypes(of_males, len(males))
        n2, _, n1, n0 = among.T
        return HaploidCounts(n0 + n1 + n2, n1 + 2 * n2, self._without())

    def count_dosages(self, dosages: NDArray[np.floating[Any]]) -> HaploidCounts:
        """Count what haploid samples carry, of dosages (n, N), NaN where missing."""
        n_called = np.zeros(len(dosages), dtype=np.int64)
        copies = np.zeros(len(dosages))
        for flags, who in ((self.in_all, slice(None)), (self.in_males, self.is_male)):
            if flags.any():
                part = dosages[flags][:, who]
                n_called[flags] = (~np.isnan(part)).sum(axis=1)
                copies[flags] = np.nansum(part, axis=1, dtype=np.float64)
        return HaploidCounts(n_called, copies, self._without())

    def _without(self) -> NDArray[np.int64]:
        return np.where(self.males_only, np.count_nonzero(~self.is_male), 0)


def haploids(
    source: GenotypeSource,
    variants: Rows,
    meanings: Mapping[str, str],
    samples: NDArray[np.integer[Any]] | None = None,
) -> Haploids | None:
    """Return in whom variants are haploid, by their chromosomes and the sexes; None if in nobody.

    Parameters
    ----------
    source : GenotypeSource
        Without ``sexes`` (1 male, 2 female) nobody is known to be haploid on X, and everyone may
        have Y.
    variants : slice or integers
    meanings : mapping of str to str
        What chromosomes are, by name: ``X``, ``Y``, ``MT`` or another, as `bare` writes them.
    samples : integers, optional
        Default all.
    """
    if HAPLOID.isdisjoint(meanings.values()) and "X" not in meanings.values():
        return None
    frame = source.variants[variants].frame

    def on(*chromosomes: str) -> NDArray[np.bool_]:
        names = [name for name, own in meanings.items() if own in chromosomes]
        return frame["chrom"].is_in(names).to_numpy()

    in_all, pos = on(*HAPLOID), frame["pos"].to_numpy()
    in_males = on("X") & (pos > _END_OF_FIRST) & (pos < _START_OF_SECOND)
    said = getattr(source, "sexes", None)
    sexes = np.zeros(source.n_samples, dtype=np.int64) if said is None else np.asarray(said)
    males_only = on("Y") & np.isin(sexes, (1, 2)).any()
    is_male = sexes == 1
    if samples is not None:
        is_male = is_male[samples]
    if not in_all.any() and not (in_males.any() and is_male.any()):
        return None
    return Haploids(in_all, in_males, males_only, is_male)
