"""Dosages of one record of a VCF: from GT, DS or GP."""

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from plait.errors import FileFormatError

_PLOIDY = 2


class Alternative(NamedTuple):
    """An ALT allele (1 is the first), or all others in its place."""

    allele: int
    others: bool


def hard_calls_of(record: Any, wanted: Alternative, path: Path) -> NDArray[np.int8]:
    """Return copies of an allele by GT, -1 where an allele is missing."""
    from plait.data.genotype_kernels import count_allele

    try:
        alleles = record.genotype.array()[:, :-1]
    except Exception:  # cyvcf2 raises plain exceptions
        raise FileFormatError(
            f"{path}: the record at {record.CHROM}:{record.POS} has no GT. Read dosages instead "
            "(dosage='dosage')."
        ) from None
    copies: NDArray[np.int8] = count_allele(alleles, wanted.allele, wanted.others)
    return copies


def dosages_of(record: Any, wanted: Alternative, path: Path) -> NDArray[Any]:
    """Return the dosage of an allele by the first of DS, GP and GT that the record has."""
    n_alts = max(len(record.ALT), 1)
    for field, dosage in (("DS", _from_ds), ("GP", _from_gp)):
        values = record.format(field)
        if values is not None and not np.isnan(values).all():
            found = dosage(values, wanted.allele, n_alts)
            if found is None:
                raise FileFormatError(
                    f"{path}: the record at {record.CHROM}:{record.POS} has {values.shape[1]} "
                    f"values of {field} for {n_alts} ALT alleles."
                )
            return _PLOIDY - found if wanted.others else found
    calls = hard_calls_of(record, wanted, path)
    return np.where(calls < 0, np.float32(np.nan), calls.astype(np.float32))


def _from_ds(values: NDArray[Any], allele: int, n_alts: int) -> NDArray[Any] | None:
    found: NDArray[Any] = values[:, allele - 1]
    return found if values.shape[1] == n_alts else None


def _from_gp(values: NDArray[Any], allele: int, n_alts: int) -> NDArray[Any] | None:
    copies = _copies_by_genotype(allele, n_alts)
    if values.shape[1] == n_alts + 1:  # every sample is haploid: one probability per allele
        haploid: NDArray[Any] = values[:, allele]
        return haploid
    if values.shape[1] != len(copies):
        return None
    # A haploid sample among diploid ones has one probability per allele; the rest is not there.
    haploid_rows = np.isnan(values[:, n_alts + 1 :]).all(axis=1)
    dosage: NDArray[Any] = values @ copies
    return np.where(haploid_rows, values[:, allele], dosage)


@lru_cache(maxsize=256)
def _copies_by_genotype(allele: int, n_alts: int) -> NDArray[np.float32]:
    """Return the copies of an allele in the diploid genotypes, in the order of the format."""
    pairs = [(j, k) for k in range(n_alts + 1) for j in range(k + 1)]
    return np.array([(j == allele) + (k == allele) for j, k in pairs], dtype=np.float32)
