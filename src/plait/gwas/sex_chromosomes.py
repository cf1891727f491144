"""Which chromosomes are X, Y and mitochondria, where they have names and where they have numbers.

PLINK 1 writes X, Y, XY (what both share) and MT of humans as 23 to 26. Cattle, dogs and fish have
autosomes of these numbers, so that the numbers alone tell nothing; heterozygous males do.
"""

import logging
import warnings
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from plait.data.dosages import hard_calls
from plait.data.genotypes import GenotypeCounts, GenotypeSource, pack
from plait.data.ploidy import HAPLOID, bare
from plait.errors import DataWarning, OptionError
from plait.io.genotypes import SelectedGenotypes

RULES = ("auto", "human", "none")
HUMAN = {"23": "X", "24": "Y", "25": "XY", "26": "MT"}
"""What PLINK's numbers mean in humans."""
NOT_AUTOSOMES = HAPLOID | {"X", "XY"}

_LOOKED_AT = 2000
"""Variants on chromosome 23 that are looked at, evenly spaced."""
_CALLS = 200
"""Calls of each sex that rates of heterozygotes need."""
_RARE, _SOME = 0.2, 0.01
"""Male heterozygotes of X are at most this share of the female ones, which are at least so many."""

_TOLD = 0.9
"""Share of the variance of the sex that covariates tell, where they hold it."""

_log = logging.getLogger("plait.gwas")


def meanings(genotypes: GenotypeSource, rule: str = "auto") -> dict[str, str]:
    """Return what the chromosomes of some genotypes are: a number, X, Y, XY, MT or another name.

    Parameters
    ----------
    genotypes : GenotypeSource
    rule : {"auto", "human", "none"}
        What 23 to 26 are: X, Y, XY and MT, or autosomes. "auto": the former where females are
        heterozygous on 23 and males are not (at most a fifth as often), with sexes as in the .fam
        or .psam, and no chromosome has a higher number; what was found is logged.

    Raises
    ------
    OptionError
        The rule is none of these.
    """
    if rule not in RULES:
        raise OptionError(f"sex_chromosomes is {rule!r}; give 'auto', 'human' or 'none'.")
    names = {name: bare(name) for name, _ in genotypes.variants.chromosomes}
    known = set(names.values())
    if rule == "none" or known.isdisjoint(HUMAN):
        return names
    if rule == "human" or (_may_be_human(known) and _looks_human(genotypes, names)):
        return {name: HUMAN.get(own, own) for name, own in names.items()}
    return names


def known_meanings(genotypes: GenotypeSource) -> dict[str, str]:
    """Return what chromosomes are for a scan: as `meanings` tells by itself, but nothing is said.

    23 to 26 are X, Y, XY and MT where females are heterozygous on 23 and males are not.
    """
    names = {name: bare(name) for name, _ in genotypes.variants.chromosomes}
    known = set(names.values())
    if "23" in known and _may_be_human(known) and _is_x(genotypes):
        return {name: HUMAN.get(own, own) for name, own in names.items()}
    return names


def haploid_chromosomes(genotypes: GenotypeSource, tell: bool = True) -> list[str]:
    """Return the chromosomes, by their names here, of which nobody has two copies: Y and MT.

    The numbers 24 and 26 are these where 23 is X (see `known_meanings`). ``tell`` logs what that
    means for effects.
    """
    found = [name for name, own in known_meanings(genotypes).items() if own in HAPLOID]
    if found and tell:
        _log.info(
            "effects on chromosome %s are of one copy, 0 or 1 in a sample, as in PLINK 2.",
            " and ".join(found),
        )
    return found


def warn_without_sex(
    genotypes: GenotypeSource, rows: NDArray[np.intp], covariates: NDArray[np.float64] | None
) -> None:
    """Warn where a scan of chromosome X or Y lacks the sex among its covariates.

    Parameters
    ----------
    genotypes : GenotypeSource
    rows : (N,) array of int
        The samples that are scanned.
    covariates : (N, p) array or None

    Warns
    -----
    DataWarning
        There are both sexes, as the .fam or .psam says, and covariates do not tell them apart. On X
        the genotypes of males, 0 or 2 copies, vary twice as much, and on Y theirs alone vary. Where
        a trait is higher in one sex, the errors of tests are then too small, or too large: with
        15 % males and a difference of 1.5 standard deviations 4.5 times as many p-values on X below
        0.001 as should be, of cases.
    """
    known = {bare(name) for name, _ in genotypes.variants.chromosomes}
    said = getattr(genotypes, "sexes", None)
    if said is None or known.isdisjoint({"X", "Y", "23"}):
        return
    sexes = np.asarray(said)[rows]
    used = np.flatnonzero((sexes == 1) | (sexes == 2))
    male = (sexes[used] == 1).astype(np.float64)
    n_males, n = int(male.sum()), len(used)
    if not 0 < n_males < n:
        return
    left = male - n_males / n
    if covariates is not None:
        centred = covariates[used] - covariates[used].mean(axis=0)
        left = left - centred @ np.linalg.lstsq(centred, left, rcond=None)[0]
    if left @ left <= (1 - _TOLD) * n_males * (1 - n_males / n):
        return
    there = set(known_meanings(genotypes).values())
    on = " and ".join(f"chromosome {name}" for name in ("X", "Y") if name in there)
    if not on:
        return
    warnings.warn(
        f"variants on {on} are scanned in {n_males:,} males and {n - n_males:,} females, and no "
        "covariate tells them apart. There genotypes vary more among males (0 or 2 copies on X) "
        "than among females, so that p-values of a trait that differs between the sexes are too "
        "small or too large. Add the sex to the covariates.",
        DataWarning,
        stacklevel=3,
    )


def _may_be_human(known: set[str]) -> bool:
    return "X" not in known and all(int(name) <= 26 for name in known if name.isdecimal())


def _looks_human(genotypes: GenotypeSource, names: dict[str, str]) -> bool:
    """Tell by the heterozygotes of both sexes whether chromosome 23 is X."""
    rates = _heterozygosity(genotypes, [name for name, own in names.items() if own == "23"])
    if rates is None:
        numbers = ", ".join(sorted(own for own in set(names.values()) if own in HUMAN))
        _log.info(
            "chromosomes numbered %s are taken as autosomes: sexes or genotypes are too few to "
            "tell. If they are X, Y, XY or MT of humans, as PLINK numbers them: "
            "sex_chromosomes='human'.",
            numbers,
            extra={"notice": True},
        )
        return False
    males, females = rates
    is_x = _rarely_in_males(males, females)
    _log.info(
        "chromosome 23 is taken as %s: %.1f %% of the genotypes of males are heterozygous there, "
        "and %.1f %% of those of females.%s",
        "X, and 24 to 26 as Y, XY and MT" if is_x else "an autosome",
        100 * males,
        100 * females,
        " Where it is not: sex_chromosomes='none'." if is_x else "",
        extra={"notice": is_x},
    )
    return is_x


def _is_x(genotypes: GenotypeSource) -> bool:
    """Tell whether males are rarely heterozygous on chromosome 23."""
    names = [name for name, _ in genotypes.variants.chromosomes if bare(name) == "23"]
    rates = _heterozygosity(genotypes, names)
    return rates is not None and _rarely_in_males(*rates)


def _rarely_in_males(males: float, females: float) -> bool:
    return females >= _SOME and males <= _RARE * females


def _heterozygosity(genotypes: GenotypeSource, names: list[str]) -> tuple[float, float] | None:
    """Return the share of heterozygotes of males and of females; None where there are too few."""
    sexes = getattr(genotypes, "sexes", None)
    rows = np.flatnonzero(genotypes.variants.frame["chrom"].is_in(names).to_numpy())
    if sexes is None or not len(rows):
        return None
    spread = rows[np.unique(np.linspace(0, len(rows) - 1, _LOOKED_AT).round().astype(int))]
    rates = []
    for sex in (1, 2):
        samples = np.flatnonzero(np.asarray(sexes) == sex)
        called = heterozygous = 0
        for counts in _counts_of(SelectedGenotypes(genotypes, spread, samples)):
            called += int(counts.n_called.sum())
            heterozygous += int(counts.n1.sum())
        if called < _CALLS:
            return None
        rates.append(heterozygous / called)
    return rates[0], rates[1]


def _counts_of(genotypes: GenotypeSource) -> Iterator[GenotypeCounts]:
    """Yield counts of genotypes; dosages are rounded where they are close to a call."""
    if genotypes.kind == "hardcall":
        yield genotypes.counts()
        return
    for rows in genotypes.blocks(by_chromosome=False):
        packed = pack(hard_calls(genotypes.read(rows)))
        yield GenotypeCounts.of_packed(packed, genotypes.n_samples)
