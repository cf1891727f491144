"""A locus: the associations around a lead variant, and the linkage of the others with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plait.data.genotypes import GenotypeSource
from plait.data.summary_statistics import SummaryStatistics
from plait.data.variants import KEY, UNKNOWN_IDS
from plait.errors import LabelError, NotAvailableError, OptionError
from plait.gwas.inputs import opened_genotypes
from plait.gwas.linkage import r2_with
from plait.gwas.results import AssociationResult
from plait.gwas.variant_results import VARIANT_COLUMNS
from plait.io.stored_arrays import find_label, parts_of
from plait.io.summary_statistics import chromosome_names
from plait.plot.manhattan import NOWHERE

if TYPE_CHECKING:
    from polars import DataFrame

    from plait.gwas.inputs import GenotypesLike

Array = NDArray[np.float64]

WINDOWS_KB = (500.0, 1000.0, 2000.0, 5000.0)
"""How far a locus reaches to both sides: the first of them, or where variants are few, further."""
_ENOUGH = 50
"""Variants that show how a signal falls off; beside fewer of them a locus is widened."""


@dataclass(frozen=True, eq=False)
class Locus:
    """M variants around a lead variant, and what was found for T traits there.

    Attributes
    ----------
    chrom : str
    lead : int
        Which of the variants is the lead.
    variants : polars.DataFrame
        ``chrom``, ``pos``, ``id``, ``oa`` and ``ea``.
    log10p : (M, T) array
        NaN where a variant was not tested.
    r2 : (M,) array
        Squared correlation with the lead; NaN where the genotypes do not tell.
    traits : tuple of str
    window : (int, int)
        First and last position of the locus: as far as asked, or as the variants of the chromosome
        reach.
    window_kb : float
        How far the locus was to reach to both sides, in thousands of bases.
    """

    chrom: str
    lead: int
    variants: "DataFrame"
    log10p: Array
    r2: Array
    traits: tuple[str, ...]
    window: tuple[int, int]
    window_kb: float

    @property
    def lead_name(self) -> str:
        """The lead variant's id, or ``chrom:pos:oa:ea`` where it has none."""
        row = self.variants.row(self.lead, named=True)
        has_id = row["id"] not in (None, *UNKNOWN_IDS)
        return str(row["id"]) if has_id else ":".join(str(row[k]) for k in KEY)


def locus_around(
    result: AssociationResult | SummaryStatistics,
    genotypes: "GenotypesLike | None" = None,
    lead: str | None = None,
    window_kb: float | None = None,
    traits: str | Sequence[str] | None = None,
) -> Locus:
    """Return what was found around a lead variant.

    Parameters
    ----------
    result : AssociationResult or SummaryStatistics
    genotypes : path or GenotypeSource, optional
        Where linkage is taken from: the scanned genotypes, or a reference panel on the same genome
        build. Variants are matched by chromosome, position and alleles, whichever is counted.
    lead : str, optional
        Its id or ``chrom:pos:oa:ea``. Default the variant of the smallest p-value.
    window_kb : float, optional
        How far the locus reaches to both sides, in thousands of bases. Default 500; where fewer
        than 50 variants are that near, the first of 1000, 2000 and 5000 that holds 50, or as many
        as 5000 holds.
    traits : str or sequence of str, optional
        Default the trait of the smallest p-value: at the lead, or anywhere.

    Raises
    ------
    LabelError
        There is no such trait or variant, several have this id, or the genotypes lack the lead.
    NotAvailableError
        The lead was not tested for any of the traits, or its place is not known (chromosome 0, or
        a position below 1).
    """
    if window_kb is not None and not window_kb > 0:
        raise OptionError(f"window_kb is {window_kb}; give a number above 0.")
    if genotypes is not None:
        genotypes = opened_genotypes(genotypes)
    found = _Scanned.of(result)
    columns = _columns(found.traits, traits)
    row = found.surest(columns) if lead is None else found.row_of(lead)
    found.require_place(row)
    at_lead = found.log10p_of(slice(row, row + 1))[0]
    wanted = np.arange(len(found.traits)) if columns is None else columns
    if np.isnan(at_lead[wanted]).all():
        name = lead or found.name(row)
        raise NotAvailableError(
            f"the variant {name!r} was not tested for {_listed(found.traits, columns)}: it has no "
            "p-value there. Choose another lead."
        )
    if columns is None:
        columns = np.array([int(np.nanargmin(at_lead))])
    window_kb = found.telling_window(row) if window_kb is None else window_kb
    rows = found.near(row, 1000 * window_kb)
    variants = found.variants_of(rows)
    here = int(np.flatnonzero(rows == row)[0])
    return Locus(
        chrom=str(variants["chrom"][here]),
        lead=here,
        variants=variants,
        log10p=found.log10p_of(rows)[:, columns],
        r2=_linkage(genotypes, variants, here),
        traits=tuple(found.traits[k] for k in columns),
        window=found.window(row, 1000 * window_kb),
        window_kb=window_kb,
    )


class _Scanned:
    """What a scan or a table of summary statistics holds, read by rows."""

    def __init__(self, columns: dict[str, Any], log10p: Any, traits: tuple[str, ...]) -> None:
        self.columns, self.log10p, self.traits = columns, log10p, traits

    @classmethod
    def of(cls, result: AssociationResult | SummaryStatistics) -> "_Scanned":
        """Take a result, or the rows of a table that have a position."""
        if isinstance(result, AssociationResult):
            columns = {name: getattr(result, name) for name in VARIANT_COLUMNS}
            return cls(columns, result.log10p, result.traits)
        table = result.frame.filter(result.frame["pos"].is_not_null())
        names = table["trait"].drop_nulls().unique().to_list()
        columns = {name: table[name].fill_null("").to_numpy() for name in ("chrom", "oa", "ea")}
        columns |= {"pos": table["pos"].to_numpy(), "id": table["id"].fill_null("").to_numpy()}
        log10p = table["log10p"].to_numpy()[:, None]
        return cls(columns, log10p, (names[0] if len(names) == 1 else "",))

    def surest(self, columns: NDArray[np.intp] | None) -> int:
        """Return the variant with the smallest p-value of some traits."""
        best, smallest = -1, np.inf
        for rows in parts_of(self.log10p):
            part = self.log10p[rows] if columns is None else self.log10p[rows][:, columns]
            values = np.where(np.isnan(part), np.inf, part).min(axis=1)
            if len(values) and values.min() < smallest:
                best, smallest = rows.start + int(values.argmin()), float(values.min())
        if best < 0:
            raise NotAvailableError("no variant was tested.")
        return best

    def row_of(self, lead: str) -> int:
        """Return the variant of an id or a key."""
        rows = find_label(self.columns["id"], lead)
        parts = lead.split(":")
        if not rows and len(parts) == len(KEY) and parts[1].isdigit():
            pos = np.asarray(self.columns["pos"])
            for row in np.flatnonzero(pos == int(parts[1])).tolist():
                if self.key(row) == lead:
                    rows.append(row)
        if not rows:
            raise LabelError(
                f"there is no variant {lead!r}; give its id or chrom:pos:oa:ea, as "
                f"{self.name(0)!r}."
            )
        if len(rows) > 1:
            keys = ", ".join(self.key(row) for row in rows[:3])
            raise LabelError(f"{len(rows)} variants are called {lead!r}: say which, as {keys}.")
        return rows[0]

    def require_place(self, row: int) -> None:
        """Refuse a variant of which nobody knows what is around it."""
        chrom, pos = (np.asarray(self.columns[k][row : row + 1])[0] for k in ("chrom", "pos"))
        if str(chrom) != NOWHERE and pos > 0:
            return
        raise NotAvailableError(
            f"the variant {self.name(row)!r} is unplaced (chromosome {chrom}, position {pos}), so "
            "that nobody knows which variants are around it. Choose a lead whose place is known "
            "(lead=...), or scan genotypes that have the places of their variants."
        )

    def near(self, row: int, distance: float) -> NDArray[np.intp]:
        """Return the variants of the same chromosome up to a distance from one of them."""
        pos = np.asarray(self.columns["pos"])
        close = np.flatnonzero(np.abs(pos - pos[row]) <= distance)
        first = int(close.min())
        chrom = np.asarray(self.columns["chrom"][first : int(close.max()) + 1])
        same: NDArray[np.intp] = close[chrom[close - first] == chrom[row - first]]
        return same

    def telling_window(self, row: int) -> float:
        """Return the smallest of some windows with enough variants, or with all of the widest."""
        counts: list[int] = []
        for window_kb in WINDOWS_KB:
            counts.append(len(self.near(row, 1000 * window_kb)))
            if counts[-1] >= _ENOUGH:
                return window_kb
        return WINDOWS_KB[counts.index(counts[-1])]

    def window(self, row: int, distance: float) -> tuple[int, int]:
        """Return the positions up to a distance from a variant that its chromosome is known to."""
        pos, chrom = np.asarray(self.columns["pos"]), np.asarray(self.columns["chrom"])
        here = pos[chrom == chrom[row]]
        first, last = int(pos[row] - distance), int(pos[row] + distance)
        return max(first, int(here.min())), min(last, int(here.max()))

    def variants_of(self, rows: NDArray[np.intp]) -> "DataFrame":
        """Return where some variants are, and their alleles."""
        import polars as pl

        first, last = int(rows.min()), int(rows.max()) + 1
        table = {}
        for name, values in self.columns.items():
            chosen = np.asarray(values[first:last])[rows - first]
            table[name] = chosen if name == "pos" else np.array(chosen, dtype=np.str_)
        return pl.DataFrame(table).select(VARIANT_COLUMNS)

    def log10p_of(self, rows: "slice | NDArray[np.intp]") -> Array:
        """Return log10 of p-values of some variants, of all traits."""
        if isinstance(rows, slice):
            return np.asarray(self.log10p[rows])
        first, last = int(rows.min()), int(rows.max()) + 1
        values: Array = np.asarray(self.log10p[first:last])[rows - first]
        return values

    def key(self, row: int) -> str:
        """Return ``chrom:pos:oa:ea`` of a variant."""
        return ":".join(str(np.asarray(self.columns[k][row : row + 1])[0]) for k in KEY)

    def name(self, row: int) -> str:
        """Return the id of a variant, its key where it has none."""
        text = str(np.asarray(self.columns["id"][row : row + 1])[0])
        return text if text not in UNKNOWN_IDS else self.key(row)


def _columns(known: tuple[str, ...], traits: str | Sequence[str] | None) -> NDArray[np.intp] | None:
    if traits is None:
        return None
    names = [traits] if isinstance(traits, str) else list(traits)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        what = f"there is no trait {unknown[0]!r}" if unknown else "no trait was named"
        raise LabelError(f"{what}; there are {', '.join(known)}.")
    return np.array([known.index(name) for name in names])


def _listed(known: tuple[str, ...], columns: NDArray[np.intp] | None) -> str:
    names = known if columns is None else [known[k] for k in columns]
    listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return listed or "its trait"


def _linkage(genotypes: GenotypeSource | None, variants: "DataFrame", lead: int) -> Array:
    """Return the squared correlation of every variant with the lead, NaN where it is not known."""
    import polars as pl

    r2 = np.full(variants.height, np.nan)
    if genotypes is None:
        return r2

    def keyed(frame: "DataFrame") -> "DataFrame":
        return frame.select(
            chromosome_names(frame["chrom"]).alias("chrom"),
            "pos",
            first=pl.min_horizontal("ea", "oa"),
            second=pl.max_horizontal("ea", "oa"),
        ).with_row_index("row")

    asked = keyed(variants)
    pos = variants["pos"].to_numpy()
    span = (int(pos.min()), int(pos.max()))
    known = keyed(genotypes.variants.frame).filter(pl.col("pos").is_between(*span))
    keys = ["chrom", "pos", "first", "second"]
    known = known.unique(keys, keep="first", maintain_order=True)
    both = asked.join(known, on=keys, suffix="_there").sort("row_there")
    rows, there = both["row"].to_numpy(), both["row_there"].to_numpy().astype(np.intp)
    own = there[rows == lead]
    if not len(own):
        chrom, pos, _, oa, ea = variants.row(lead)
        names = list(dict.fromkeys(name for name, _ in genotypes.variants.chromosomes))
        if asked["chrom"][lead] not in chromosome_names(pl.Series(names)).to_list():
            raise LabelError(
                f"the genotypes have no chromosome {chrom!r}, on which the lead variant is; they "
                f"have {', '.join(map(repr, names[:5]))}{', ...' if len(names) > 5 else ''}. Name "
                "the chromosomes of both alike, or draw it without genotypes."
            )
        raise LabelError(
            f"the genotypes lack the lead variant {chrom}:{pos}:{oa}:{ea}, so that linkage with it "
            "is not known. Choose another lead, or draw it without genotypes."
        )
    r2[rows] = r2_with(genotypes, int(own[0]), there)
    r2[lead] = 1.0
    return r2
