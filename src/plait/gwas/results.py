"""What a scan returns: the effect of every variant on every trait, with its error."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from plait.data.effects import Effects
from plait.errors import NotAvailableError
from plait.io.result import Result
from plait.provenance import Provenance

if TYPE_CHECKING:
    from polars import DataFrame

Array = NDArray[np.float64]

GENOME_WIDE = 5e-8
_MEDIAN_CHI2 = 0.4549364231195724
"""Median of chi-square with 1 degree of freedom."""
VARIANT_COLUMNS = ("chrom", "pos", "id", "oa", "ea")


@dataclass(frozen=True, eq=False, repr=False)
class AssociationResult(Result):
    """Effects of M variants on T traits, one at a time.

    Attributes
    ----------
    beta, se : (M, T) arrays
        Effect of one copy of the effect allele, in the unit of the trait, and its standard error.
        NaN where a variant was not tested (see ``filtered``).
    log10p : (M, T) array
        log10 of the two-sided p-value.
    n : (M, T) int array
        Samples behind each test.
    frequency : (M,) array
        Frequency of the effect allele.
    chrom, pos, id, oa, ea : (M,) arrays
        The variants, as in `plait.data.variants.VariantTable`.
    traits : tuple of str
    V0 : (T, T) array
        Correlation of the errors between traits.
    h2, h2_se : (T,) array or None
        Of a mixed model: the share of each trait's variance that follows the relationships of all
        chromosomes, given the covariates, and its standard error.
    n_cases : (T,) int array or None
        Of a logistic model: how many of the samples of each trait are cases. Effects are logs of
        odds ratios then.
    filtered : dict of str to int
        How many tests (of one variant and trait) each rule left out.
    provenance : Provenance or None
    """

    kind: ClassVar[str] = "association"
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **dict.fromkeys(("beta", "se", "log10p", "n"), ("variants", "traits")),
        **dict.fromkeys(("frequency", *VARIANT_COLUMNS), ("variants",)),
        "V0": ("traits", "traits"),
        **dict.fromkeys(("h2", "h2_se", "n_cases"), ("traits",)),
    }
    frame_dims: ClassVar[tuple[str, ...]] = ("variants", "traits")

    beta: Array
    se: Array
    log10p: Array
    n: NDArray[np.int64]
    frequency: Array
    chrom: NDArray[np.str_]
    pos: NDArray[np.int64]
    id: NDArray[np.str_]
    oa: NDArray[np.str_]
    ea: NDArray[np.str_]
    traits: tuple[str, ...]
    V0: Array
    h2: Array | None = None
    h2_se: Array | None = None
    n_cases: NDArray[np.int64] | None = None
    filtered: dict[str, int] = field(default_factory=dict)
    provenance: Provenance | None = None

    def __repr__(self) -> str:
        tested = int(np.isfinite(self.se).any(axis=1).sum())
        return (
            f"AssociationResult({len(self.beta):,} variants x {len(self.traits)} traits; "
            f"{tested:,} variants tested)"
        )

    @cached_property
    def variants(self) -> NDArray[np.str_]:
        """Keys ``chrom:pos:oa:ea`` of the variants; where one repeats, with id and number added."""
        parts = zip(
            self.chrom.tolist(), self.pos.tolist(), self.oa.tolist(), self.ea.tolist(), strict=True
        )
        keys = [":".join(map(str, part)) for part in parts]
        times = Counter(keys)
        if len(times) < len(keys):
            again = [times[key] > 1 for key in keys]
            seen: Counter[str] = Counter()
            for row in np.flatnonzero(again).tolist():
                key = f"{keys[row]}:{self.id[row]}"
                seen[key] += 1
                keys[row] = key if seen[key] == 1 else f"{key}:{seen[key]}"
        return np.array(keys, dtype=np.str_)

    @property
    def t(self) -> Array:
        """Test statistics (M, T)."""
        ratio: Array = self.beta / self.se
        return ratio

    @property
    def lambda_gc(self) -> Array:
        """Median of the squared statistics over that without any effect, (T,)."""
        return np.asarray(np.nanmedian(self.t**2, axis=0) / _MEDIAN_CHI2)

    def summary(self) -> str:
        """Say in a few lines what was tested and found."""
        lines = [repr(self)]
        if self.filtered:
            left_out = ", ".join(f"{name} {count:,}" for name, count in self.filtered.items())
            lines.append(f"  tests left out: {left_out}")
        for number, trait in enumerate(self.traits):
            column = self.log10p[:, number]
            found = int((column < np.log10(GENOME_WIDE)).sum())
            line = f"  {trait}: {found:,} variants at p < 5e-8, lambda {self.lambda_gc[number]:.3f}"
            if self.h2 is not None and self.h2_se is not None:
                line += f", h2 {self.h2[number]:.2f} ({self.h2_se[number]:.2f})"
            if self.n_cases is not None:
                cases = int(self.n_cases[number])
                controls = int(self.n[:, number].max(initial=cases)) - cases
                line += f", {cases:,} cases and {controls:,} controls"
            if np.isfinite(column).any():
                best = int(np.nanargmin(column))
                line += f", surest {self.id[best]} ({self.chrom[best]}:{self.pos[best]})"
                line += f" log10 p {column[best]:.1f}"
            lines.append(line)
        return "\n".join(lines)

    def to_effects(self) -> Effects:
        """Return the effects, errors and error correlation, as `plait.mash` takes them.

        A variant that was not tested for a trait is a missing cell, never an effect of zero.
        Variants without any test are left out.

        Raises
        ------
        NotAvailableError
            No variant was tested.
        """
        tested = np.isfinite(self.se).any(axis=1)
        if not tested.any():
            why = ", ".join(f"{name} {count:,}" for name, count in self.filtered.items())
            raise NotAvailableError(f"no variant was tested; tests left out: {why}.")
        beta, se = self.beta[tested], self.se[tested]
        return Effects(
            np.where(np.isfinite(se), beta, np.nan),
            np.where(np.isfinite(se), se, np.nan),
            self.V0,
            self.variants[tested],
            self.traits,
            self.provenance,
        )

    def to_table(self) -> "DataFrame":
        """Return one row per variant, with ``beta.<trait>``, ``se.``, ``log10p.`` and ``n.``."""
        import polars as pl

        columns: dict[str, Any] = {name: getattr(self, name) for name in VARIANT_COLUMNS}
        columns["eaf"] = self.frequency
        for number, trait in enumerate(self.traits):
            for name in ("beta", "se", "log10p", "n"):
                columns[f"{name}.{trait}"] = getattr(self, name)[:, number]
        return pl.DataFrame(columns)

    def write_parquet(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write `to_table` as a parquet file."""
        from plait.io import replace_file

        with replace_file(path, overwrite) as temporary:
            self.to_table().write_parquet(temporary, compression="zstd")
