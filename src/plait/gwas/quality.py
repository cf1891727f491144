"""Which variants are worth testing, from their genotype counts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plait.data.genotypes import GenotypeCounts
from plait.errors import OptionError

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class VariantFilter:
    """Rules for variants, applied in this order; None switches one off.

    Attributes
    ----------
    min_call_rate : float or None
        Smallest share of samples with a genotype.
    min_minor_count : int or None
        Fewest copies of the rarer allele among the samples of a trait.
    min_frequency : float or None
        Smallest frequency of the rarer allele.

    Notes
    -----
    Monomorphic variants are never tested. Hardy-Weinberg proportions are not asked for: inbred
    lines violate them by design.
    """

    min_call_rate: float | None = 0.95
    min_minor_count: int | None = 20
    min_frequency: float | None = None

    def __post_init__(self) -> None:
        for name, largest in (("min_call_rate", 1.0), ("min_frequency", 0.5)):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= largest:
                raise OptionError(f"{name} is {value}; give a number between 0 and {largest:g}.")
        if self.min_minor_count is not None and self.min_minor_count < 0:
            raise OptionError(f"min_minor_count is {self.min_minor_count}; it cannot be negative.")

    def removed(self, counts: GenotypeCounts) -> dict[str, Flags]:
        """Return which variants each rule removes, of those that the rules before it kept."""
        called = counts.n_called
        minor = counts.minor_count
        rules: dict[str, Flags] = {}
        if self.min_call_rate is not None:
            rate = called / np.maximum(called + counts.n_missing, 1)
            rules["call rate"] = rate < self.min_call_rate
        rules["monomorphic"] = minor == 0
        if self.min_minor_count is not None:
            rules["minor allele count"] = minor < self.min_minor_count
        if self.min_frequency is not None:
            frequency = minor / np.maximum(2 * called, 1)
            rules["minor allele frequency"] = frequency < self.min_frequency
        gone = np.zeros(len(called), dtype=bool)
        for name, flags in rules.items():
            rules[name] = flags & ~gone
            gone |= flags
        return rules
