"""Dosages of one record of a VCF: from GT, DS or GP."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from plait.errors import FileFormatError

DOSAGE_FIELDS = ("DS", "GP")
"""Fields of FORMAT that dosages come from, the first one first."""
_PLOIDY = 2
_ABSENT = -2
Flags = NDArray[np.bool_]
_Found = tuple[NDArray[Any], Flags] | None  # copies of one allele of a haploid; who is haploid


class Alternative(NamedTuple):
    """An ALT allele (1 is the first), or all others in its place."""

    allele: int
    others: bool


def hard_calls_of(record: Any, wanted: Alternative, path: Path) -> tuple[NDArray[np.int8], Flags]:
    """Return copies of an allele by GT, -1 where an allele is missing; and who is haploid."""
    from plait.data.genotype_kernels import count_allele

    if "GT" not in (record.FORMAT or ()):
        raise FileFormatError(
            f"{path}: the record at {record.CHROM}:{record.POS} has no GT. Read dosages instead "
            "(dosage='auto')."
        )
    alleles = record.genotype.array()[:, :-1]
    require_diploid(alleles, f"{path}: the record at {record.CHROM}:{record.POS}")
    copies: NDArray[np.int8] = count_allele(alleles, wanted.allele, wanted.others)
    return copies, haploid(alleles) & (copies >= 0)  # "." is missing whatever the ploidy


def dosages_of(
    record: Any, wanted: Alternative, path: Path, fields: Sequence[str] = DOSAGE_FIELDS
) -> tuple[NDArray[Any], Flags]:
    """Return the dosage of an allele, and who is haploid.

    It is that of the first of some fields (`DOSAGE_FIELDS`) of which the record has any value, else
    that of GT. A sample without a value of the field has the dosage of its call: PLINK 2 writes DS
    and GP only where they differ from the call (``vcf-dosage=DS``). Where a record has such a field
    without any value, and no GT, all are missing.
    """
    n_alts = max(len(record.ALT), 1)
    own = record.FORMAT or ()
    known = [field for field in fields if field in own]
    for field in known:
        values = record.format(field)
        if not np.isnan(values).all():
            found = _FROM[field](record, values, wanted.allele, n_alts)
            if found is None:
                raise FileFormatError(
                    f"{path}: the record at {record.CHROM}:{record.POS} has {values.shape[1]} "
                    f"values of {field} for {n_alts} ALT alleles."
                )
            copies, alone = found
            copies = np.where(alone, _PLOIDY * copies, copies)
            if "GT" in own and np.isnan(copies).any():
                calls, of_one = hard_calls_of(record, Alternative(wanted.allele, False), path)
                by_call = np.isnan(copies) & (calls >= 0)
                copies = np.where(by_call, calls.astype(copies.dtype), copies)
                alone = alone | (by_call & of_one)
            return _PLOIDY - copies if wanted.others else copies, alone
    if "GT" not in own:
        if not known:
            raise FileFormatError(
                f"{path}: the record at {record.CHROM}:{record.POS} has none of "
                f"{', '.join(fields)} and GT, so that there is no dosage."
            )
        return np.full(len(values), np.float32(np.nan)), np.zeros(len(values), dtype=np.bool_)
    calls, alone = hard_calls_of(record, wanted, path)
    return np.where(calls < 0, np.float32(np.nan), calls.astype(np.float32)), alone


def haploid(alleles: NDArray[Any]) -> Flags:
    """Return which genotypes (..., ploidy) are of one allele: the others are not there (-2)."""
    flags: Flags = (alleles[..., 1:] == _ABSENT).all(axis=-1)
    return flags


def require_diploid(alleles: NDArray[Any], where: str) -> None:
    """Raise where a genotype (..., ploidy) has more than two alleles, saying where.

    Copies beyond two would be taken for missing.
    """
    if alleles.shape[-1] > _PLOIDY and (alleles[..., _PLOIDY:] != _ABSENT).any():
        raise FileFormatError(
            f"{where} has genotypes of {alleles.shape[-1]} alleles; plait takes one or two. Of "
            "polyploids give dosages, divided by half the ploidy so that they are 0 to 2."
        )


def _from_ds(record: Any, values: NDArray[Any], allele: int, n_alts: int) -> _Found:
    if values.shape[1] != n_alts:
        return None
    alone = np.zeros(len(values), dtype=np.bool_)
    if "GT" in record.FORMAT:  # DS alone does not say whether it is of one allele or of two
        alone = haploid(record.genotype.array()[:, :-1]) & ~np.isnan(values[:, allele - 1])
    return values[:, allele - 1], alone


def _from_gp(record: Any, values: NDArray[Any], allele: int, n_alts: int) -> _Found:
    copies = _copies_by_genotype(allele, n_alts)
    total = np.nansum(values, axis=1)
    # As PLINK does: 0,0,0 is missing, and what does not add up to 1 is taken in proportion.
    values = values / np.where(total > 0, total, np.nan)[:, None]
    if values.shape[1] == n_alts + 1:  # every sample is haploid: one probability per allele
        return values[:, allele], ~np.isnan(values[:, 0])
    if values.shape[1] != len(copies):
        return None
    # A haploid sample among diploid ones has one probability per allele; the rest is not there.
    alone = np.isnan(values[:, n_alts + 1 :]).all(axis=1) & ~np.isnan(values[:, 0])
    return np.where(alone, values[:, allele], values @ copies), alone


@lru_cache(maxsize=256)
def _copies_by_genotype(allele: int, n_alts: int) -> NDArray[np.float32]:
    """Return the copies of an allele in the diploid genotypes, in the order of the format."""
    pairs = [(j, k) for k in range(n_alts + 1) for j in range(k + 1)]
    return np.array([(j == allele) + (k == allele) for j, k in pairs], dtype=np.float32)


_FROM = {"DS": _from_ds, "GP": _from_gp}
