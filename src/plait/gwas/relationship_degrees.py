"""Which samples are relatives of one another, and not by chance of the variants.

The coefficient of relationship of two samples is ``r_ij = A_ij / sqrt(A_ii A_jj)`` (Wright 1922,
American Naturalist 56): 1 of clones, 1/2 of parents and children, 1/8 of first cousins. From few
variants, or many on a short genome, it errs a lot, and the largest of all pairs by far more than
normal errors: unrelated samples share some long stretches. How much it errs is seen from two halves
of the genome. Relatives share in both of them, chance does not repeat itself: with errors e_1 and
e_2 of the halves, independent and as often negative as not, ``P(|e_1 - e_2| > c)`` is at least
``P(e_1 > c)``, so that ``P(e_1 > c, e_2 > c)`` is at most its square, whatever the distribution,
if that is the same for all pairs. By GCTA's method it is not: pairs with few calls in common err
more. Halves are therefore compared as if a missing genotype were the mean of its variant.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from plait.errors import OptionError
from plait.gwas.relationship_codings import ROWS
from plait.gwas.relationship_results import Relationships

if TYPE_CHECKING:
    from polars import DataFrame

Array = NDArray[np.float64]

DEGREES = (
    ("identical", 2**-0.5),
    ("first degree", 2**-1.5),
    ("second degree", 2**-2.5),
    ("third degree", 2**-3.5),
)
"""The smallest coefficient of each degree: half-way, in powers of 2, to that of the next."""
_FALSE_PAIRS = 0.01
"""Expected number of pairs of unrelated samples taken for relatives."""
_MANY = 10
"""Relatives of a sample that has some, on average, that families hardly have."""
_MOST_ROUNDS = 10


@dataclass(frozen=True, eq=False)
class Relatives:
    """Pairs of relatives, third degree or closer.

    Attributes
    ----------
    samples : (N,) array of str
    pairs : (P, 2) int array
        Numbers of samples, the closest pair first.
    coefficients : (P,) array
        Of relationship.
    chance : float
        Coefficient that unrelated samples exceed in both halves of the variants in less than 0.01
        pairs, of all of them; infinite where variants are not enough for two halves. Pairs below
        it may be relatives, which these variants cannot tell.
    """

    samples: NDArray[np.str_]
    pairs: NDArray[np.intp]
    coefficients: Array
    chance: float

    @property
    def degrees(self) -> NDArray[np.str_]:
        """The degree of each pair (P,): one of `DEGREES`."""
        names = np.array([name for name, _ in DEGREES])
        limits = np.array([limit for _, limit in DEGREES])
        degrees: NDArray[np.str_] = names[(self.coefficients[:, None] < limits).sum(axis=1)]
        return degrees

    def summary(self) -> str:
        """Say how many pairs of each degree there are, and what could not have been seen."""
        if not np.isfinite(self.chance):
            return "relatives: not looked for, there are too few variants"
        lowest = max(self.chance, DEGREES[-1][1])
        unseen = f"coefficient of relationship above {lowest:.3f}"
        if self.chance > DEGREES[-1][1]:
            unseen += "; less may be chance with these variants"
        if not len(self.pairs):
            return f"relatives: none ({unseen})"
        degrees, samples = self.degrees, len(np.unique(self.pairs))
        counts = [(name, int((degrees == name).sum())) for name, _ in DEGREES]
        one, two = (str(name) for name in self.samples[self.pairs[0]])
        why = "; so many come of populations or lines rather than families" if self.is_many else ""
        number = f"{len(self.pairs):,} {'pair' if len(self.pairs) == 1 else 'pairs'}"
        return (
            f"relatives: {number} of {samples:,} samples ({unseen}): "
            f"{', '.join(f'{count:,} {name}' for name, count in counts if count)}; "
            f"closest {one} and {two}, {self.coefficients[0]:.3f}{why}"
        )

    @property
    def is_many(self) -> bool:
        """Whether samples that have relatives have more than 10 on average.

        They come of populations, lines, or clones.
        """
        return 2 * len(self.pairs) > _MANY * len(np.unique(self.pairs))

    def to_table(self) -> "DataFrame":
        """Return a row for each pair: ``sample1 sample2 coefficient degree``."""
        import polars as pl

        return pl.DataFrame(
            {
                "sample1": self.samples[self.pairs[:, 0]],
                "sample2": self.samples[self.pairs[:, 1]],
                "coefficient": self.coefficients,
                "degree": self.degrees,
            }
        )


def close_relatives(relationships: Relationships) -> Relatives:
    """Find relatives of third degree or closer that chance does not explain.

    Parameters
    ----------
    relationships : Relationships
        By chromosome, or made with ``halves=True``.

    Returns
    -------
    Relatives

    Raises
    ------
    OptionError
        They are shares of alleles or of dominance, which have other values for each degree.

    Notes
    -----
    A pair is taken for relatives if its coefficient is at least 2^-3.5 = 0.088, and in both halves
    of the variants above what chance may reach: the quantile ``1 - sqrt(0.01 / pairs)`` of the
    differences between halves, over all pairs but those already taken, which is done again until no
    other pair is taken. Relationships are to the average of the samples: members of one of several
    populations, or inbred lines of one origin, are relatives in this sense. Cost: some passes over
    the matrix.
    """
    if relationships.method in ROWS:
        raise OptionError(
            f"method is {relationships.method!r}, which does not tell degrees of relatives; give "
            "'vanraden' or 'gcta' to relationship_matrix."
        )
    halves = _halves(relationships.norms)
    n = len(relationships.samples)
    if halves is None or n < 2:
        nobody = np.empty((0, 2), dtype=np.intp)
        return Relatives(relationships.samples, nobody, np.empty(0), np.inf)
    coefficients = _coefficients(replace(relationships, jointly_missing=None), halves)
    together = _coefficients(relationships, [halves[0] | halves[1]])
    chance = np.inf
    for _ in range(_MOST_ROUNDS):
        lower = _chance(relationships.parts, coefficients, chance)
        if lower >= chance:
            break
        chance = lower
    pairs: list[NDArray[np.intp]] = []
    found: list[Array] = []
    for part in relationships.parts:
        first, second = coefficients(part)
        (both,) = together(part)
        taken = _below(part) & (both >= DEGREES[-1][1])
        taken &= np.minimum(first, second) > chance
        rows, columns = np.nonzero(taken)
        pairs.append(np.column_stack([columns, rows + part.start]))
        found.append(both[taken])
    every, values = np.concatenate(pairs), np.concatenate(found)
    order = np.argsort(-values, kind="stable")
    return Relatives(relationships.samples, every[order], values[order], float(chance))


def _halves(norms: Array) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
    """Return which chromosomes make up two halves of about the same weight; None if one is empty.

    The largest first, each goes to the half that has less.
    """
    first, weights = np.zeros(len(norms), dtype=bool), [0.0, 0.0]
    for k in np.argsort(-norms, kind="stable"):
        to_first = weights[0] <= weights[1]
        first[k] = to_first
        weights[0 if to_first else 1] += float(norms[k])
    return (first, ~first) if min(weights) > 0 else None


def _coefficients(
    relationships: Relationships, parts: Sequence[NDArray[np.bool_]]
) -> Callable[[slice], list[Array]]:
    """Return what makes the coefficients of consecutive samples to all up to the last of them.

    For each part, which flags chromosomes; a sample's own relationship is that of all parts.
    """
    everything = np.logical_or.reduce(parts)
    own = np.empty(len(relationships.samples))
    for rows in relationships.parts:
        own[rows] = np.diagonal(relationships.rows(everything, rows), offset=rows.start)
    with np.errstate(divide="ignore"):
        scales = np.where(own > 0, 1 / np.sqrt(own), 0.0)

    def of_rows(rows: slice) -> list[Array]:
        scale = scales[rows, None] * scales[: rows.stop]
        return [relationships.rows(part, rows) * scale for part in parts]

    return of_rows


def _below(part: slice) -> NDArray[np.bool_]:
    """Return which pairs of consecutive samples and all up to the last are below the diagonal."""
    below: NDArray[np.bool_] = np.arange(part.stop) < np.arange(part.start, part.stop)[:, None]
    return below


def _chance(
    parts: Sequence[slice],
    coefficients: Callable[[slice], list[Array]],
    relatives_above: float,
) -> float:
    """Return what chance may reach, from pairs that are not above a coefficient in both halves."""
    n_pairs = parts[-1].stop * (parts[-1].stop - 1) // 2
    share = (_FALSE_PAIRS / n_pairs) ** 0.5
    most, used = int(share * n_pairs) + 1, 0
    largest = np.empty(0)
    for part in parts:
        first, second = coefficients(part)
        kept = _below(part) & (np.minimum(first, second) <= relatives_above)
        apart = np.abs(first - second)[kept]
        used += len(apart)
        largest = np.concatenate([largest, apart])
        if len(largest) > most:
            largest = np.partition(largest, len(largest) - most)[-most:]
    if not used:
        return relatives_above
    return float(np.sort(largest)[-(int(share * used) + 1)])
