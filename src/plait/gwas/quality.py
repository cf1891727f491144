"""Which variants are worth testing, from counts of their genotypes or dosages."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plait.data.dosages import DosageCounts
from plait.data.genotypes import GenotypeCounts
from plait.errors import OptionError

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class VariantFilter:
    """Rules for variants, applied in this order; None switches one off.

    Attributes
    ----------
    min_call_rate : float or None
        Smallest share of samples with a genotype; on Y of males, where sexes are known.
    min_minor_count : int or None
        Fewest copies of the rarer allele among the samples of a trait; of dosages, expected copies.
        A haploid has one, as in PLINK 2: males on X, where sexes are known, all on Y and MT.
    min_frequency : float or None
        Smallest frequency of the rarer allele.
    min_info : float or None
        Smallest imputation quality of dosages (`plait.data.dosages.DosageCounts.info`) among the
        samples of a trait. Hard calls always pass.

    Notes
    -----
    Monomorphic variants are never tested. Hardy-Weinberg proportions are not asked for: inbred
    lines violate them by design.
    """

    min_call_rate: float | None = 0.95
    min_minor_count: int | None = 20
    min_frequency: float | None = None
    min_info: float | None = None

    def __post_init__(self) -> None:
        shares = (("min_call_rate", 1.0), ("min_frequency", 0.5), ("min_info", 1.0))
        for name, largest in shares:
            value = getattr(self, name)
            if value is not None and not 0 <= value <= largest:
                raise OptionError(f"{name} is {value}; give a number between 0 and {largest:g}.")
        if self.min_minor_count is not None and self.min_minor_count < 0:
            raise OptionError(f"min_minor_count is {self.min_minor_count}; it cannot be negative.")

    def removed(self, counts: GenotypeCounts | DosageCounts) -> dict[str, Flags]:
        """Return which variants each rule removes, of those that the rules before it kept."""
        minor = counts.minor_count
        rules: dict[str, Flags] = {}
        if self.min_call_rate is not None:
            rules["call rate"] = counts.call_rate < self.min_call_rate
        rules["monomorphic"] = minor <= 0
        if self.min_minor_count is not None:
            rules["minor allele count"] = minor < self.min_minor_count
        if self.min_frequency is not None:
            rules["minor allele frequency"] = counts.minor_frequency < self.min_frequency
        if self.min_info is not None:
            rules["imputation quality"] = counts.info < self.min_info
        gone = np.zeros(len(minor), dtype=bool)
        for name, flags in rules.items():
            rules[name] = flags & ~gone
            gone |= flags
        return rules
