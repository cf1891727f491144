"""Relationships of samples as sums over variants, from which matrices are made.

Sums are kept by chromosome, as lower triangles: the matrix without any one of them is a
subtraction, and half of a symmetric matrix tells all of it.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.errors import InputError, LabelError

Array = NDArray[np.float64]
Samples = NDArray[np.integer[Any]]
Flags = NDArray[np.bool_]

_FEW = 8
"""Chromosomes that are added up for each matrix: a sum of all of them takes as long to make."""
_ROWS = 256
"""Samples whose relationships to those before them are made together."""


@dataclass(frozen=True, eq=False)
class Relationships:
    """Sums of products of genotypes over variants, by chromosome.

    Attributes
    ----------
    samples : (N,) array of str
    chromosomes : tuple of str
    sums : (chromosomes, N (N + 1) / 2) float32 array
        Lower triangles, row after row. Not divided by anything; added up in double precision.
    norms : (chromosomes,) array
        What to divide by where nothing is missing.
    n_variants : (chromosomes,) int array
    method : {"vanraden", "gcta", "standardised", "dominance", "ibs"}
    jointly_missing : (chromosomes, N (N + 1) / 2) int32 array or None
        Of "gcta" and "ibs": the variants that count and both samples lack, on the diagonal those
        that one lacks.
    """

    samples: NDArray[np.str_]
    chromosomes: tuple[str, ...]
    sums: NDArray[np.float32]
    norms: Array
    n_variants: NDArray[np.int64]
    method: str
    jointly_missing: NDArray[np.int32] | None = None

    def matrix(
        self,
        without: str | None = None,
        *,
        samples: Samples | None = None,
        dtype: type[np.floating[Any]] = np.float64,
    ) -> NDArray[Any]:
        """Return the relationship matrix (n, n), of all chromosomes or all but one.

        ``samples`` (n,) are numbers of those that are wanted, by default all. Sums are in double
        precision whatever the ``dtype``.

        Raises
        ------
        LabelError
            There is no such chromosome.
        InputError
            No variant of the chromosomes counts; "gcta", "ibs": two samples have no call in common.
        """
        kept, n = self._kept(without), len(self.samples) if samples is None else len(samples)
        out = np.empty((n, n), dtype=dtype)
        for part in self.parts:
            rows = self.rows(kept, part)
            if samples is None:
                out[part, : part.stop] = rows
                out[: part.start, part] = rows[:, : part.start].T
                continue
            before = np.flatnonzero(samples < part.stop)
            own = before[samples[before] >= part.start]
            chosen = rows[np.ix_(samples[own] - part.start, samples[before])]
            out[np.ix_(own, before)] = chosen
            out[np.ix_(before, own)] = chosen.T
        return out

    def times(self, columns: Array) -> Array:
        """Return the product of the matrix of all chromosomes and columns (N, n)."""
        kept, product = self._kept(None), np.zeros(columns.shape)
        for part in self.parts:
            rows = self.rows(kept, part)
            product[part] += rows @ columns[: part.stop]
            product[: part.start] += rows[:, : part.start].T @ columns[part]
        return product

    def pair_counts(self, without: str | None = None) -> NDArray[np.int64]:
        """Return how many variants are behind each relationship (N, N), read-only.

        Of "gcta" and "ibs" those with a call of both samples: ``M - m_i - m_j + m_ij``. Of other
        methods, which take a missing genotype for the mean of its variant, all that count.
        """
        return self._pair_counts(self._kept(without))

    def rows(self, kept: Flags, part: slice) -> Array:
        """Return relationships of consecutive samples to all up to the last of them, (n, stop).

        ``kept`` (chromosomes,) tells from which chromosomes; their norms are not 0.
        """
        rows = _unfolded(self._sum(kept, _of_triangle(part)), part)
        if self.jointly_missing is None:
            rows /= float(self.norms[kept].sum())
            return rows
        counts = self._pair_counts_of(self.jointly_missing, kept, part)
        if not counts.all():
            raise InputError(self._without_calls(kept))
        rows /= counts
        if self.method == "ibs":
            rows += 0.5  # see `plait.gwas.relationship_codings`
        return rows

    @property
    def parts(self) -> list[slice]:
        """Consecutive samples whose `rows` are made together."""
        n = len(self.samples)
        return [slice(start, min(start + _ROWS, n)) for start in range(0, n, _ROWS)]

    def _sum(self, kept: Flags, where: slice) -> Array:
        """Add up chromosomes, or take a few that are left out away from the sum of many."""
        left_out = np.flatnonzero(~kept)
        if len(kept) > _FEW and 2 * len(left_out) < len(kept):
            total = np.array(self._everything[where])
            for k in left_out:
                total -= self.sums[k, where]
            return total
        total = np.zeros(where.stop - where.start)
        for k in np.flatnonzero(kept):
            total += self.sums[k, where]
        return total

    @cached_property
    def _everything(self) -> Array:
        """The sum of all chromosomes, a triangle.

        It has room for sums in single precision as they are, so that taking one away again costs no
        precision.
        """
        total = np.zeros(self.sums.shape[1])
        for part in self.sums:
            total += part
        return total

    def _kept(self, without: str | None) -> Flags:
        """Return which chromosomes are left; some of their variants count."""
        kept = np.ones(len(self.chromosomes), dtype=bool)
        if without is not None:
            if without not in self.chromosomes:
                raise LabelError(f"there is no chromosome {without!r} among the relationships.")
            kept[self.chromosomes.index(without)] = False
        if not self.norms[kept].sum() > 0:
            where = "" if without is None else f" once chromosome {without!r} is left out"
            raise InputError(
                f"no variant is common enough to tell how samples are related{where}. Give more "
                "variants, or (in a scan) loco=False."
            )
        return kept

    def _pair_counts(self, kept: Flags) -> NDArray[np.int64]:
        n = len(self.samples)
        if self.jointly_missing is None:
            return np.broadcast_to(self.n_variants[kept].sum(), (n, n))
        counts = np.empty((n, n), dtype=np.int64)
        for part in self.parts:
            rows = self._pair_counts_of(self.jointly_missing, kept, part)
            counts[part, : part.stop] = rows
            counts[: part.start, part] = rows[:, : part.start].T
        counts.setflags(write=False)
        return counts

    def _pair_counts_of(
        self, jointly_missing: NDArray[np.int32], kept: Flags, part: slice
    ) -> NDArray[np.int64]:
        """Return counts of consecutive samples and all up to the last of them, (n, stop)."""
        where, n = _of_triangle(part), len(self.samples)
        both = np.zeros(where.stop - where.start, dtype=np.int64)
        for k in np.flatnonzero(kept):
            both += jointly_missing[k, where]
        diagonal = np.cumsum(np.arange(1, n + 1)) - 1
        lacking = jointly_missing[np.ix_(kept, diagonal)].sum(axis=0, dtype=np.int64)
        counts = _unfolded(both, part)
        counts += self.n_variants[kept].sum() - lacking[: part.stop]
        counts -= lacking[part, None]
        return counts

    def _without_calls(self, kept: Flags) -> str:
        """Say which samples have no variant in common."""
        counts = self._pair_counts(kept)
        alone = np.flatnonzero(np.diagonal(counts) == 0)
        if len(alone):
            who = f"sample {str(self.samples[alone[0]])!r} has no call"
        else:
            one, two = (str(name) for name in self.samples[np.argwhere(counts == 0)[0]])
            who = f"samples {one!r} and {two!r} have no call in common"
        return (
            f"{who} at any of {int(self.n_variants[kept].sum()):,} variants, which method "
            f"{self.method!r} relates samples by. Leave one out, or take method 'vanraden', for "
            "which a missing genotype is the mean of its variant."
        )


def _of_triangle(part: slice) -> slice:
    """Return where the rows of consecutive samples are in a triangle."""
    return slice(part.start * (part.start + 1) // 2, part.stop * (part.stop + 1) // 2)


def _unfolded(values: NDArray[Any], part: slice) -> NDArray[Any]:
    """Return rows of a triangle as those of a matrix, (n, stop)."""
    from plait.gwas.relationship_kernels import unfold

    rows = np.empty((part.stop - part.start, part.stop), dtype=values.dtype)
    unfold(values, part.start, rows)
    return rows
