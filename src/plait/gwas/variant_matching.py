"""Which variant of a reference each row of a table is, and which way round."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from plait.gwas.variant_normalisation import normalised, on_genome

if TYPE_CHECKING:
    from polars import DataFrame, Expr, Series

    from plait.io.fasta import Fasta

Rows = NDArray[np.int64]

CATEGORIES = (
    "forward", "flipped", "strand", "strand_flipped", "palindromic_dropped", "no_match",
    "not_in_reference", "incomplete", "duplicate", "indel_undecided",
)  # fmt: skip
"""What can happen to a row: four ways to fit, six to be left out."""
FORWARD, FLIPPED, STRAND, STRAND_FLIPPED, PALINDROMIC_DROPPED, NO_MATCH = range(6)
NOT_IN_REFERENCE, INCOMPLETE, DUPLICATE, INDEL_UNDECIDED = 6, 7, 8, 9

USUAL = 0.99
"""Share of the rows above which the others are taken to be alike (rule of the GWAS Catalog)."""
COMPLEMENT = {"A": "T", "T": "A", "C": "G", "G": "C"}
ROUNDING = 1e-9
"""Of 1 - f: limits of frequencies are this much wider, so that a table and its flip fare alike."""
_PARTNER = np.zeros(256, dtype=np.uint8)
"""Of a letter's code, that of the letter on the other strand."""
_PARTNER[[ord(letter) for letter in COMPLEMENT]] = [ord(x) for x in COMPLEMENT.values()]
_ALLELES = ("chrom", "pos", "ea", "oa")
_KEY = ("chrom", "pos", "first", "second")


def counts_of(categories: NDArray[np.int8]) -> dict[str, int]:
    """Return how many rows are of each of `CATEGORIES`, by name."""
    counts = np.bincount(categories, minlength=len(CATEGORIES)).tolist()
    return dict(zip(CATEGORIES, counts, strict=True))


def complement(allele: "Expr") -> "Expr":
    """Return the letter of an allele on the other strand; null of any but a single letter."""
    import polars as pl

    return allele.replace_strict(COMPLEMENT, default=None, return_dtype=pl.String)


def distinct(target: "DataFrame") -> "DataFrame":
    """Keep the first row of each variant, whichever way round its alleles are."""
    import polars as pl

    first, second = pl.min_horizontal("ea", "oa"), pl.max_horizontal("ea", "oa")
    keyed = target.with_columns(first_=first, second_=second)
    return keyed.unique(
        ["chrom", "pos", "first_", "second_"], keep="first", maintain_order=True
    ).drop("first_", "second_")


def match(
    frame: "DataFrame", target: "DataFrame", genome: "Fasta | None" = None
) -> tuple[NDArray[np.int8], Rows]:
    """Return how each row fits the reference, and where; palindromic ones by their letters.

    Parameters
    ----------
    frame : polars.DataFrame
        A table (M rows) with ``chrom``, ``pos``, ``ea`` and ``oa``.
    target : polars.DataFrame
        The reference, with the same columns.
    genome : Fasta, optional
        Where insertions and deletions of both are moved to the left.

    Returns
    -------
    categories, rows : (M,) arrays
        Numbers into `CATEGORIES`, and rows of ``target`` (-1 where none fits).
    """
    import polars as pl

    categories = np.full(frame.height, NO_MATCH, dtype=np.int8)
    rows = np.full(frame.height, -1, dtype=np.int64)
    keys, wanted = frame.select("chrom", "pos", "ea", "oa"), target.select(*_ALLELES)
    _match_keys(keys, wanted, categories, rows)
    short, short_wanted = normalised(keys, genome), normalised(wanted, genome)
    if not (short.equals(keys) and short_wanted.equals(wanted)):
        # Only what does not fit as it is written: other variants may have the same short alleles.
        _match_keys(short, short_wanted, categories, rows)
    places = [table.select("chrom", "pos") for table in (wanted, short_wanted)]
    known = short.select("chrom", "pos").join(
        pl.concat(places).unique().with_columns(there=pl.lit(True)),
        on=["chrom", "pos"],
        how="left",
        maintain_order="left",
    )["there"]
    categories[(rows < 0) & known.is_null().to_numpy()] = NOT_IN_REFERENCE
    lacking = keys.select(pl.any_horizontal(pl.all().is_null())).to_series().to_numpy()
    categories[lacking] = INCOMPLETE
    return categories, rows


def _match_keys(
    keys: "DataFrame", wanted: "DataFrame", categories: NDArray[np.int8], rows: Rows
) -> None:
    """Place the rows that have no place yet, in place."""
    import polars as pl

    # One variant for both orders of its alleles, so that a table and its flip fit the same one.
    several = distinct(wanted.with_columns(place=pl.int_range(pl.len(), dtype=pl.Int64)))
    index = several.select("chrom", "pos", first="ea", second="oa", place="place")
    ea, oa = pl.col("ea"), pl.col("oa")
    single = (ea.str.len_bytes() == 1) & (oa.str.len_bytes() == 1)

    other_ea, other_oa = (pl.when(single).then(complement(allele)) for allele in (ea, oa))
    ways = ((ea, oa), (oa, ea), (other_ea, other_oa), (other_oa, other_ea))
    for number, (first, second) in enumerate(ways):
        asked = keys.select("chrom", "pos", first=first, second=second)
        found = asked.join(index, on=list(_KEY), how="left", maintain_order="left")["place"]
        hit = found.fill_null(-1).to_numpy()
        new = (rows < 0) & (hit >= 0)
        rows[new], categories[new] = hit[new], number


@dataclass(frozen=True, eq=False)
class GenomeMatch:
    """How the rows of a table (M) fit a genome.

    Attributes
    ----------
    target : polars.DataFrame
        The variants found, with the genome's allele as ``oa``: ``chrom``, ``pos``, ``ea``, ``oa``
        and ``eaf`` (NaN).
    categories, rows : (M,) arrays
        As `match` returns them.
    by_order : (M,) array of bool
        Insertions and deletions either allele of which stands in the genome, and which were taken
        in the order of the other rows.
    """

    target: "DataFrame"
    categories: NDArray[np.int8]
    rows: Rows
    by_order: NDArray[np.bool_]


def match_genome(frame: "DataFrame", genome: "Fasta") -> GenomeMatch:
    """Find the genome's allele in each row of a table, and with it the variant.

    Insertions and deletions are moved to the left first. Both alleles of a deletion stand in the
    genome, the short one as the beginning of the long one, and so do those of an insertion that
    repeats what follows it (A and AA in a run of A): the genome alone does not tell which was
    meant. They are taken as the other rows are, if more than 99 % of these have the genome's allele
    in the same column, and are undecided otherwise.

    Parameters
    ----------
    frame : polars.DataFrame
        A table (M rows) with ``chrom``, ``pos``, ``ea`` and ``oa``.
    genome : Fasta
    """
    import polars as pl

    keys = normalised(frame, genome)
    categories = np.full(frame.height, NO_MATCH, dtype=np.int8)
    reference = _letters_at(keys, genome)
    categories[reference == 0] = NOT_IN_REFERENCE
    incomplete = keys.select(pl.any_horizontal(pl.all().is_null())).to_series().to_numpy()
    categories[incomplete] = INCOMPLETE
    ea, oa = _codes(keys["ea"]), _codes(keys["oa"])
    candidate = (
        (reference > 0) & ~incomplete & (keys["ea"] != keys["oa"]).fill_null(False).to_numpy()
    )
    single = candidate & (ea > 0) & (oa > 0)
    # Backwards: of a palindromic pair the letters as they are written come first.
    ways = ((FORWARD, oa), (FLIPPED, ea), (STRAND, _PARTNER[oa]), (STRAND_FLIPPED, _PARTNER[ea]))
    for category, letters in reversed(ways):
        categories[single & (letters == reference)] = category
    long = np.flatnonzero(candidate & ~single)
    stands = on_genome(keys[long], genome)
    categories[long[stands[:, 0]]] = FLIPPED
    categories[long[stands[:, 1]]] = FORWARD
    either = long[stands.all(axis=1)]
    decided = (categories <= STRAND_FLIPPED) & ~(single & (_PARTNER[ea] == oa))
    decided[either] = False
    order = _usual_order(categories[decided])
    categories[either] = INDEL_UNDECIDED if order is None else order
    by_order = np.zeros(frame.height, dtype=bool)
    by_order[either] = order is not None
    target, rows = _variants_on(keys, categories)
    return GenomeMatch(target, categories, rows, by_order)


def palindromic_of(frame: "DataFrame") -> NDArray[np.bool_]:
    """Tell which rows (M,) are A/T or C/G, which read the same on the other strand."""
    import polars as pl

    pair = frame.select((pl.col("ea") + pl.col("oa")).alias("pair"))["pair"]
    found: NDArray[np.bool_] = pair.is_in(["AT", "TA", "CG", "GC"]).fill_null(False).to_numpy()
    return found


def _letters_at(keys: "DataFrame", genome: "Fasta") -> NDArray[np.uint8]:
    """Return the genome's letter at each position; 0 where there is none."""
    letters = np.zeros(keys.height, dtype=np.uint8)
    placed = keys.with_row_index("row").drop_nulls(["chrom", "pos"])
    for (chrom,), part in placed.group_by("chrom"):
        if chrom in genome:
            letters[part["row"].to_numpy()] = genome.letters(str(chrom), part["pos"].to_numpy())
    return letters


def _codes(alleles: "Series") -> NDArray[np.uint8]:
    """Return the ASCII codes of single letters A, C, G and T; 0 for all else."""
    import polars as pl

    codes = {letter: ord(letter) for letter in COMPLEMENT}
    found: NDArray[np.uint8] = (
        alleles.replace_strict(codes, default=0, return_dtype=pl.UInt8).fill_null(0).to_numpy()
    )
    return found


def _usual_order(categories: NDArray[np.int8]) -> int | None:
    """Return whether nearly all rows have the genome's allele as the other one, or as ea."""
    if not len(categories):
        return None
    as_other = np.isin(categories, (FORWARD, STRAND))
    if as_other.mean() > USUAL:
        return FORWARD
    return FLIPPED if (~as_other).mean() > USUAL else None


def _variants_on(keys: "DataFrame", categories: NDArray[np.int8]) -> tuple["DataFrame", Rows]:
    """Return the variants of the rows that fit, the genome's allele as oa, and their rows there."""
    import polars as pl

    fits = np.flatnonzero(categories <= STRAND_FLIPPED)
    kept = keys[fits].with_columns(way=pl.Series(categories[fits]))
    first, second = (
        pl.when(pl.col("way").is_in([STRAND, STRAND_FLIPPED]))
        .then(complement(pl.col(name)))
        .otherwise(name)
        for name in ("ea", "oa")
    )
    turned = pl.when(pl.col("way").is_in([FLIPPED, STRAND_FLIPPED]))
    variants = kept.select("chrom", "pos", first=first, second=second, way="way").select(
        "chrom",
        "pos",
        ea=turned.then("second").otherwise("first"),
        oa=turned.then("first").otherwise("second"),
    )
    target = variants.unique(maintain_order=True)
    places = variants.join(
        target.with_columns(place=pl.int_range(pl.len(), dtype=pl.Int64)),
        on=list(_ALLELES),
        how="left",
        maintain_order="left",
    )["place"]
    rows = np.full(keys.height, -1, dtype=np.int64)
    rows[fits] = places.to_numpy()
    return target.with_columns(eaf=pl.lit(np.nan)), rows
