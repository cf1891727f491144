"""Of whom the genotypes of a variant are those of one copy: males on X, everyone on Y and MT.

One allele counts twice (see `plait.data.genotypes`), so that among such samples copies vary twice
as much as among diploid ones with the same frequency: by ``4 f (1 - f)``, not ``2 f (1 - f)``.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.data.genotypes import GenotypeSource, Rows

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
    is_male : (N,) bool array
    """

    in_all: NDArray[np.bool_]
    in_males: NDArray[np.bool_]
    is_male: NDArray[np.bool_]

    def of_samples(self, samples: NDArray[np.integer[Any]]) -> "Haploids":
        """Return those of some samples."""
        return Haploids(self.in_all, self.in_males, self.is_male[samples])

    def count(self, dosages: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
        """Return how many haploid samples have a dosage (n, N), NaN where missing."""
        found = np.zeros(len(dosages), dtype=np.int64)
        for flags, who in ((self.in_all, slice(None)), (self.in_males, self.is_male)):
            if flags.any():
                found[flags] = (~np.isnan(dosages[flags][:, who])).sum(axis=1)
        return found


def haploids(
    source: GenotypeSource, variants: Rows, samples: NDArray[np.integer[Any]] | None = None
) -> Haploids | None:
    """Return in whom variants are haploid, by names of chromosomes and sexes; None if in nobody.

    Parameters
    ----------
    source : GenotypeSource
        Without ``sexes`` (1 male) nobody is known to be haploid on X.
    variants : slice or integers
    samples : integers, optional
        Default all.
    """
    frame = source.variants[variants].frame
    names = {name: bare(name) for name in frame["chrom"].unique().to_list()}
    in_all = frame["chrom"].is_in([n for n, own in names.items() if own in HAPLOID]).to_numpy()
    on_x = frame["chrom"].is_in([n for n, own in names.items() if own == "X"]).to_numpy()
    pos = frame["pos"].to_numpy()
    in_males = on_x & (pos > _END_OF_FIRST) & (pos < _START_OF_SECOND)
    sexes = getattr(source, "sexes", None)
    is_male = np.zeros(source.n_samples, dtype=bool) if sexes is None else np.asarray(sexes) == 1
    if samples is not None:
        is_male = is_male[samples]
    if not in_all.any() and not (in_males.any() and is_male.any()):
        return None
    return Haploids(in_all, in_males, is_male)
