"""Bringing summary statistics to the alleles of a reference, and several of them together."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from plait.data.effects import Effects
from plait.data.summary_statistics import SummaryStatistics, described, standard_build
from plait.data.variants import VariantTable
from plait.errors import HarmonisationError, InputTypeError, OptionError, ShapeError
from plait.gwas.table_checks import TableChecks, check_table, require_same_build
from plait.provenance import Provenance

if TYPE_CHECKING:
    from polars import DataFrame, Expr

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
_log = logging.getLogger("plait.gwas")

CATEGORIES = (
    "forward", "flipped", "strand", "strand_flipped", "palindromic_dropped", "no_match",
    "not_in_reference", "incomplete", "duplicate",
)  # fmt: skip
"""What can happen to a row: four ways to fit, five to be left out."""
FORWARD, FLIPPED, STRAND, STRAND_FLIPPED, PALINDROMIC_DROPPED, NO_MATCH = range(6)
NOT_IN_REFERENCE, INCOMPLETE, DUPLICATE = 6, 7, 8

_CODE, _CODE_BY_FREQUENCY, _CODE_BY_ASSUMPTION = 10, 1, 5
"""Of the GWAS Catalog, for rows that fit as they are; flipped and other strands follow in order."""
_PALINDROMIC = ("drop", "keep_forward", "infer")
_INFER_ABOVE = 0.99
_ROUNDING = 1e-9  # of 1 - f, so that a table and its flip are treated alike
_COMPLEMENT = {"A": "T", "T": "A", "C": "G", "G": "C"}
_ALLELES = ("chrom", "pos", "ea", "oa")
_KEY = ("chrom", "pos", "first", "second")


@dataclass(frozen=True, eq=False)
class Harmonised:
    """A table brought to the alleles of a reference.

    Attributes
    ----------
    table : SummaryStatistics
        The rows that fit, with the reference's alleles: ``ea`` its effect allele.
    categories : (M,) array of int
        What happened to each row that was given: numbers into `CATEGORIES`.
    reference_rows : (rows of table,) array of int
        The reference's variant of each row of the table.
    counts : dict of str to int
        Rows of each category.
    hm_code : (rows of table,) array of int
        What happened to each row of the table in the codes of the GWAS Catalog: 10 as it is, 11
        flipped, 12 on the other strand, 13 both; 1 to 4 the same for palindromic rows decided by
        frequency, 5 to 8 for those whose strand was assumed.
    palindromic : dict of str to int
        Palindromic rows decided by frequency, by assumption, and dropped.
    checks : TableChecks
        Checks of the table.
    """

    table: SummaryStatistics
    categories: NDArray[np.int8] = field(repr=False)
    reference_rows: Rows = field(repr=False)
    hm_code: NDArray[np.int8] = field(repr=False)
    counts: dict[str, int]
    palindromic: dict[str, int]
    checks: TableChecks = field(repr=False)


def harmonise(
    table: SummaryStatistics,
    reference: "SummaryStatistics | VariantTable | DataFrame",
    *,
    palindromic: str = "drop",
    palindromic_maf: float = 0.40,
    reference_build: str | None = None,
) -> Harmonised:
    """Bring a table to the alleles of a reference.

    Parameters
    ----------
    table : SummaryStatistics
    reference : SummaryStatistics, VariantTable or polars.DataFrame
        Variants with ``chrom``, ``pos``, ``ea``, ``oa`` and, if known, ``eaf``. A variant that
        occurs twice counts once.
    palindromic : {"drop", "keep_forward", "infer"}
        What happens to A/T and C/G variants whose strand the frequencies do not tell: they are
        left out, taken to be on the forward strand, or taken to be on the strand of more than
        99 % of the other variants and left out when there is no such strand.
    palindromic_maf : float
        Frequencies tell the strand where the minor allele's is at most this in both.
    reference_build : str, optional
        Genome build of the reference, where it does not say.

    Returns
    -------
    Harmonised

    Raises
    ------
    HarmonisationError
        No row fits.
    GenomeBuildError
        The positions are of different genome builds.

    Notes
    -----
    With the reference's alleles (A, B), a row (ea, oa) fits as (A, B), flipped as (B, A), or as
    one of these after complementing both letters. Flipping negates beta and z and turns ``eaf``
    into ``1 - eaf``. Insertions and deletions fit as exact text only, after letters that both
    alleles share at their ends are taken off; they are never complemented, and nothing is shifted
    to the left, which needs the genome. Of rows that come to be the same variant the one with the
    largest n is kept, then the smallest p. Memory: a few copies of the table's keys.
    """
    if palindromic not in _PALINDROMIC:
        raise OptionError(f"palindromic is {palindromic!r}; give one of {_PALINDROMIC}.")
    if not 0 <= palindromic_maf <= 0.5:
        raise OptionError(f"palindromic_maf is {palindromic_maf}; it is between 0 and 0.5.")
    target, build = _as_reference(reference, reference_build)
    if len(table):
        name = _name(table)
        require_same_build(name, table.frame, table.build, "the reference", target, build)
    categories, rows = _match(table.frame, target)
    base, by = _resolve_palindromic(table, target, categories, rows, palindromic, palindromic_maf)
    _drop_duplicates(table, categories, rows)
    counts = {name: int((categories == number).sum()) for number, name in enumerate(CATEGORIES)}
    kept = np.flatnonzero(categories <= STRAND_FLIPPED)
    if not len(kept) and len(table):
        raise HarmonisationError(_explain(counts, _name(table), len(table), target.height))
    result = _rewritten(table, target, categories, rows, kept, build)
    _log.info("harmonised %s of %s rows: %s", f"{len(kept):,}", f"{len(table):,}", counts)
    return Harmonised(
        table=result,
        categories=categories,
        reference_rows=rows[kept],
        hm_code=base[kept] + categories[kept],
        counts=counts,
        palindromic=by,
        checks=check_table(result, target["eaf"].to_numpy()[rows[kept]]),
    )


def flip(table: SummaryStatistics) -> SummaryStatistics:
    """Return the table with effect and other allele exchanged."""
    import polars as pl

    frame = table.frame.with_columns(
        ea=pl.col("oa"),
        oa=pl.col("ea"),
        beta=0.0 - pl.col("beta"),
        z=0.0 - pl.col("z"),
        eaf=1.0 - pl.col("eaf"),
    )
    return replace(table, frame=frame)


def combine_summary_statistics(
    tables: Mapping[str, SummaryStatistics],
    *,
    join: str = "outer",
    reference: "SummaryStatistics | VariantTable | DataFrame | None" = None,
    palindromic: str = "drop",
    palindromic_maf: float = 0.40,
    scale: str = "beta",
) -> Effects:
    """Join the tables of several contexts into effects, on one set of alleles.

    Parameters
    ----------
    tables : mapping of context to SummaryStatistics
    join : {"outer", "inner"}
        All variants, with cells that were not measured (``shat = inf``), or those of all contexts.
    reference : optional
        See `harmonise`; only its variants are kept. Default: the first context; with
        ``join="outer"`` variants that it lacks are added in the order of the contexts.
    palindromic, palindromic_maf
        See `harmonise`.
    scale : {"beta", "z"}
        Effects with standard errors, or z with standard error 1.

    Returns
    -------
    Effects
        Rows are ``chrom:pos:oa:ea``. ``provenance.options["rows"]`` counts what happened to the
        rows of each context, as `Harmonised.counts` does, and how many were ``added``.

    Raises
    ------
    HarmonisationError, GenomeBuildError
        See `harmonise`; also when no variant is in all contexts.
    """
    if join not in ("outer", "inner"):
        raise OptionError(f"join is {join!r}; give 'outer' or 'inner'.")
    if not tables:
        raise ShapeError("there are no tables to combine.")
    options = {"palindromic": palindromic, "palindromic_maf": palindromic_maf}
    first = next(iter(tables))
    target, build = _as_reference(tables[first] if reference is None else reference, None)
    placed: dict[str, tuple[Rows, Array, Array]] = {}
    rows_of: dict[str, dict[str, int]] = {}
    for context, table in tables.items():
        # The first context is the reference: its strand is the strand by definition, and that of
        # the other contexts in its file.
        same_file = table.file is not None and table.file == tables[first].file
        own = reference is None and (context == first or same_file)
        fits = harmonise(
            table,
            target,
            palindromic="keep_forward" if own else palindromic,
            palindromic_maf=palindromic_maf,
            reference_build=build,
        )
        rows, estimates = fits.reference_rows, fits.table.estimates(scale)
        rows_of[context] = dict(fits.counts)
        if join == "outer" and reference is None:
            target, added, taken = _extended(target, table, fits.categories)
            more = table.select(taken).estimates(scale)
            rows = np.concatenate([rows, added])
            rows_of[context]["added"] = len(added)
            estimates = (
                np.concatenate([estimates[0], more[0]]),
                np.concatenate([estimates[1], more[1]]),
            )
        placed[context] = (rows, *estimates)
        build = build or table.build
    bhat = np.zeros((target.height, len(placed)))
    shat = np.full(bhat.shape, np.inf)
    for column, (rows, effects, errors) in enumerate(placed.values()):
        bhat[rows, column], shat[rows, column] = effects, errors
    measured = np.isfinite(shat)
    kept = measured.all(axis=1) if join == "inner" else measured.any(axis=1)
    if not kept.any():
        raise HarmonisationError(f"no variant is in all of the contexts {', '.join(placed)}.")
    labels = _labels(target.filter(kept))
    _log.info("combined %s contexts: %s variants", len(placed), f"{int(kept.sum()):,}")
    settings = {"join": join, "scale": scale, **options, "rows": rows_of}
    made = Provenance("combine_summary_statistics", settings)
    return Effects(bhat[kept], shat[kept], effects=labels, contexts=tuple(placed), provenance=made)


def _as_reference(
    reference: "SummaryStatistics | VariantTable | DataFrame", build: str | None
) -> tuple["DataFrame", str | None]:
    """Return chrom, pos, ea, oa, eaf, id and rsid of a reference, and its build."""
    import polars as pl

    if isinstance(reference, SummaryStatistics):
        build = build or reference.build
    frame = reference if isinstance(reference, pl.DataFrame) else getattr(reference, "frame", None)
    if frame is None or not {"chrom", "pos", "ea", "oa"} <= set(frame.columns):
        raise InputTypeError(
            "the reference is to be SummaryStatistics, a VariantTable, or a polars DataFrame with "
            f"the columns chrom, pos, ea and oa, not {type(reference).__name__}."
        )
    names = [name for name in ("id", "rsid") if name in frame.columns]
    eaf = pl.col("eaf") if "eaf" in frame.columns else pl.lit(np.nan)
    upper = [pl.col(name).cast(pl.String).str.to_uppercase() for name in ("ea", "oa")]
    target = frame.select(
        pl.col("chrom").cast(pl.String),
        pl.col("pos").cast(pl.Int64),
        *upper,
        eaf.cast(pl.Float64).fill_null(np.nan).alias("eaf"),
        *names,
    ).drop_nulls(["chrom", "pos", "ea", "oa"])
    return _distinct(target), standard_build(build)


def _distinct(target: "DataFrame") -> "DataFrame":
    """Keep the first row of each variant, whichever way round its alleles are."""
    import polars as pl

    first, second = pl.min_horizontal("ea", "oa"), pl.max_horizontal("ea", "oa")
    keyed = target.with_columns(first_=first, second_=second)
    return keyed.unique(
        ["chrom", "pos", "first_", "second_"], keep="first", maintain_order=True
    ).drop("first_", "second_")


def _trimmed(frame: "DataFrame") -> "DataFrame":
    """Return chrom, pos and alleles without the letters that both share at their ends."""
    import polars as pl

    keys = frame.select("chrom", "pos", pl.col("ea"), pl.col("oa"))
    long = (keys["ea"].str.len_bytes() > 1) & (keys["oa"].str.len_bytes() > 1)
    rows = np.flatnonzero(long.fill_null(False).to_numpy())
    if not len(rows):
        return keys
    changed = []
    for pos, ea, oa in keys[rows].select("pos", "ea", "oa").iter_rows():
        while len(ea) > 1 and len(oa) > 1 and ea[-1] == oa[-1]:
            ea, oa = ea[:-1], oa[:-1]
        while len(ea) > 1 and len(oa) > 1 and ea[0] == oa[0]:
            ea, oa, pos = ea[1:], oa[1:], None if pos is None else pos + 1
        changed.append((pos, ea, oa))
    new = pl.DataFrame(changed, schema=["pos", "ea", "oa"], orient="row")
    columns = {
        name: keys[name].scatter(rows, new[name].cast(keys[name].dtype))
        for name in ("pos", "ea", "oa")
    }
    return keys.with_columns(**columns)


def _match(frame: "DataFrame", target: "DataFrame") -> tuple[NDArray[np.int8], Rows]:
    """Return how each row fits the reference, and where; palindromic ones by their letters."""
    import polars as pl

    categories = np.full(frame.height, NO_MATCH, dtype=np.int8)
    rows = np.full(frame.height, -1, dtype=np.int64)
    keys, wanted = frame.select("chrom", "pos", "ea", "oa"), target.select(*_ALLELES)
    _match_keys(keys, wanted, categories, rows)
    short, short_wanted = _trimmed(keys), _trimmed(wanted)
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
    distinct = _distinct(wanted.with_columns(place=pl.int_range(pl.len(), dtype=pl.Int64)))
    index = distinct.select("chrom", "pos", first="ea", second="oa", place="place")
    ea, oa = pl.col("ea"), pl.col("oa")
    single = (ea.str.len_bytes() == 1) & (oa.str.len_bytes() == 1)

    def other(allele: "Expr") -> "Expr":
        return pl.when(single).then(
            allele.replace_strict(_COMPLEMENT, default=None, return_dtype=pl.String)
        )

    ways = ((ea, oa), (oa, ea), (other(ea), other(oa)), (other(oa), other(ea)))
    for number, (first, second) in enumerate(ways):
        asked = keys.select("chrom", "pos", first=first, second=second)
        found = asked.join(index, on=list(_KEY), how="left", maintain_order="left")["place"]
        hit = found.fill_null(-1).to_numpy()
        new = (rows < 0) & (hit >= 0)
        rows[new], categories[new] = hit[new], number


def _resolve_palindromic(
    table: SummaryStatistics,
    target: "DataFrame",
    categories: NDArray[np.int8],
    rows: Rows,
    rule: str,
    limit: float,
) -> tuple[NDArray[np.int8], dict[str, int]]:
    """Decide the strand of palindromic rows, in place.

    Returns the catalogue's code of each row if it fits as it is, and counts of palindromic rows.
    """
    import polars as pl

    pair = table.frame.select((pl.col("ea") + pl.col("oa")).alias("pair"))["pair"]
    palindromic = pair.is_in(["AT", "TA", "CG", "GC"]).fill_null(False).to_numpy() & (rows >= 0)
    others = categories[~palindromic & (rows >= 0)]
    letters = np.flatnonzero(palindromic)
    ours = table.column("eaf")[letters]
    ours = np.where(categories[letters] == FLIPPED, 1 - ours, ours)
    theirs = target["eaf"].to_numpy()[rows[letters]]
    with np.errstate(invalid="ignore"):
        rare = [np.minimum(f, 1 - f) <= limit + _ROUNDING for f in (ours, theirs)]
        # A frequency of exactly one half has no side.
        told = rare[0] & rare[1] & (ours != 0.5) & (theirs != 0.5)
        opposite = told & ((ours > 0.5) != (theirs > 0.5))
    on_other_strand = {FORWARD: STRAND_FLIPPED, FLIPPED: STRAND}
    swapped = np.array([on_other_strand.get(int(c), c) for c in categories[letters]], np.int8)
    decided = np.where(opposite, swapped, categories[letters]).astype(np.int8)
    left = ~told
    if rule == "infer":
        forward = float((others <= FLIPPED).mean()) if len(others) else 0.5
        if forward < 1 - _INFER_ABOVE:
            decided[left] = swapped[left]
        elif not forward > _INFER_ABOVE:
            decided[left] = PALINDROMIC_DROPPED
    elif rule == "drop":
        decided[left] = PALINDROMIC_DROPPED
    categories[letters] = decided
    base = np.full(len(categories), _CODE, dtype=np.int8)
    base[letters] = np.where(told, _CODE_BY_FREQUENCY, _CODE_BY_ASSUMPTION)
    dropped = int((decided == PALINDROMIC_DROPPED).sum())
    return base, {
        "by_frequency": int(told.sum()),
        "by_assumption": int(left.sum()) - dropped,
        "dropped": dropped,
    }


def _drop_duplicates(table: SummaryStatistics, categories: NDArray[np.int8], rows: Rows) -> None:
    """Keep one row of each variant: the largest n, then the smallest p, then the first."""
    fits = np.flatnonzero(categories <= STRAND_FLIPPED)
    n = np.nan_to_num(table.column("n")[fits], nan=-1.0)
    log10p = np.nan_to_num(table.column("log10p")[fits], nan=1.0)
    order = fits[np.lexsort((fits, log10p, -n, rows[fits]))]
    again = order[1:][rows[order[1:]] == rows[order[:-1]]]
    if len(again):
        mask = np.zeros(len(categories), dtype=bool)
        mask[again] = True
        _log.warning("variants that occur again: %s; left out", described(table.frame, mask))
        categories[again] = DUPLICATE


def _rewritten(
    table: SummaryStatistics,
    target: "DataFrame",
    categories: NDArray[np.int8],
    rows: Rows,
    kept: Rows,
    build: str | None,
) -> SummaryStatistics:
    """Return the rows that fit with the reference's positions and alleles."""
    import polars as pl

    reference = target[rows[kept]]
    flipped = pl.Series(np.isin(categories[kept], (FLIPPED, STRAND_FLIPPED)))
    turned = pl.when(flipped)
    frame = table.frame[kept].with_columns(
        *(reference[name] for name in ("chrom", "pos", "ea", "oa")),
        turned.then(0.0 - pl.col("beta")).otherwise("beta").alias("beta"),
        turned.then(0.0 - pl.col("z")).otherwise("z").alias("z"),
        turned.then(1.0 - pl.col("eaf")).otherwise("eaf").alias("eaf"),
    )
    return replace(table, frame=frame, build=table.build or build)


def _extended(
    target: "DataFrame", table: SummaryStatistics, categories: NDArray[np.int8]
) -> tuple["DataFrame", Rows, Rows]:
    """Add the variants that the reference lacks; return it, their rows there and in the table."""
    import polars as pl

    new = np.flatnonzero((categories == NOT_IN_REFERENCE) | (categories == NO_MATCH))
    frame = table.frame[new].with_columns(
        row=pl.Series(new), sample=pl.col("n").fill_nan(-1.0), tail=pl.col("log10p").fill_nan(1.0)
    )
    # Of a variant that occurs twice the same row is taken as among those that fit.
    frame = frame.sort(["sample", "tail"], descending=[True, False], maintain_order=True)
    frame = _distinct(frame).sort("row")
    added = np.arange(target.height, target.height + frame.height)
    return (
        pl.concat([target, frame.select(target.columns)]),
        added,
        frame["row"].to_numpy(),
    )


def _labels(target: "DataFrame") -> NDArray[np.str_]:
    import polars as pl

    keys = target.select(pl.concat_str("chrom", "pos", "oa", "ea", separator=":"))
    return np.array(keys.to_series().to_list(), dtype=np.str_)


def _name(table: SummaryStatistics) -> str:
    """Return how a table is called in messages: by its trait, if it has one."""
    traits = table.frame["trait"].drop_nulls().unique()
    return f"the table of {traits[0]!r}" if len(traits) == 1 else "the table"


_LOST = {
    "palindromic_dropped": "are A/T or C/G, of unknown strand",
    "no_match": "have other alleles",
    "not_in_reference": "are at other positions",
    "incomplete": "lack a position or an allele",
    "duplicate": "occur again",
}


def _explain(counts: Mapping[str, int], table: str, n_rows: int, n_reference: int) -> str:
    lost = ", ".join(f"{counts[name]:,} {words}" for name, words in _LOST.items() if counts[name])
    message = (
        f"none of the {n_rows:,} rows of {table} fits the {n_reference:,} variants of the "
        f"reference: {lost}."
    )
    if counts["not_in_reference"] > n_rows / 2:
        message += (
            " Most positions are not in the reference: the two are on different genome builds, "
            "cover other regions, or name chromosomes differently."
        )
    elif counts["no_match"] > n_rows / 2:
        message += " Positions are there and alleles differ: probably another genome build."
    elif counts["incomplete"] > n_rows / 2:
        message += " Most rows lack a position or an allele."
    return message
