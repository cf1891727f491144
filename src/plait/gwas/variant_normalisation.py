"""One way of writing an insertion or deletion, of the many that there are."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from polars import DataFrame

    from plait.io.fasta import Fasta

_LETTERS = r"^[ACGTN]+$"
_REACH = 256
"""Bases that are looked at together while a variant moves to the left."""


def normalised(frame: "DataFrame", genome: "Fasta | None" = None) -> "DataFrame":
    """Return positions and alleles as short, and as far to the left, as they can be written.

    Parameters
    ----------
    frame : polars.DataFrame
        ``chrom``, ``pos``, ``ea`` and ``oa`` (M rows). Which of the alleles is the genome's does
        not matter.
    genome : Fasta, optional
        Without it letters that both alleles share are taken off their ends, and nothing moves to
        the left. With it variants one of whose alleles stands in the genome do, and those neither
        of whose alleles does are left as they are.

    Returns
    -------
    polars.DataFrame
        These four columns.

    Notes
    -----
    The algorithm of Tan, Abecasis and Kang (2015, Bioinformatics 31:2202): while the alleles end
    alike, the last letter is taken off, and where that leaves one of them empty, both begin one
    base further to the left; then letters with which both begin are taken off. What comes out is
    the same for all ways of writing the same change of the genome. Rows with single letters cost
    nothing; others some microseconds each.
    """
    import polars as pl

    keys = frame.select("chrom", "pos", "ea", "oa")
    lengths = [keys[name].str.len_bytes() for name in ("ea", "oa")]
    letters = keys.select(
        pl.all_horizontal(pl.col("ea", "oa").str.contains(_LETTERS)).fill_null(False)
    ).to_series()
    if genome is None:
        wanted = (lengths[0] > 1) & (lengths[1] > 1)
    else:
        wanted = (lengths[0] > 1) | (lengths[1] > 1)
    rows = np.flatnonzero(
        (wanted.fill_null(False) & letters & (keys["ea"] != keys["oa"]).fill_null(False)).to_numpy()
    )
    if not len(rows):
        return keys
    chosen = keys[rows].with_columns(row=rows).sort("chrom", "pos")  # pieces of the genome in order
    changed = [
        (row, *_written(genome, chrom, pos, ea, oa))
        for chrom, pos, ea, oa, row in chosen.iter_rows()
    ]
    new = pl.DataFrame(changed, schema=["row", "pos", "ea", "oa"], orient="row").sort("row")
    columns = {
        name: keys[name].scatter(rows, new[name].cast(keys[name].dtype))
        for name in ("pos", "ea", "oa")
    }
    return keys.with_columns(**columns)


def on_genome(frame: "DataFrame", genome: "Fasta") -> NDArray[np.bool_]:
    """Return which of ``ea`` and ``oa`` (M, 2) stand in the genome at their position."""
    import polars as pl

    found = np.zeros((frame.height, 2), dtype=bool)
    order = frame.select("chrom", "pos", "ea", "oa").with_row_index("row").sort("chrom", "pos")
    usable = order.drop_nulls().filter(pl.col("chrom").is_in(list(genome.lengths)))
    for row, chrom, pos, ea, oa in usable.iter_rows():
        for column, allele in enumerate((ea, oa)):
            found[row, column] = _stands(genome, chrom, pos, allele)
    return found


def _stands(genome: "Fasta", chrom: str, pos: int, allele: str) -> bool:
    return pos > 0 and genome.sequence(chrom, pos, pos + len(allele) - 1) == allele


def _written(
    genome: "Fasta | None", chrom: str | None, pos: int | None, ea: str, oa: str
) -> tuple[int | None, str, str]:
    """Return position and alleles of one variant."""
    if genome is not None and chrom in genome and pos is not None:
        assert chrom is not None
        if not (_stands(genome, chrom, pos, ea) or _stands(genome, chrom, pos, oa)):
            return pos, ea, oa  # without its neighbours it might stand there by chance
        pos, ea, oa = _moved(genome, chrom, pos, ea, oa)
    shared = _shared_end(ea, oa)
    ea, oa = ea[: len(ea) - shared], oa[: len(oa) - shared]
    start = 0
    while start < min(len(ea), len(oa)) - 1 and ea[start] == oa[start]:
        start += 1
    return None if pos is None else pos + start, ea[start:], oa[start:]


def _shared_end(a: str, b: str) -> int:
    """Return how many letters can be taken off both ends so that one letter is left of each."""
    shared, most = 0, min(len(a), len(b)) - 1
    while shared < most and a[-1 - shared] == b[-1 - shared]:
        shared += 1
    return shared


def _moved(genome: "Fasta", chrom: str, pos: int, ea: str, oa: str) -> tuple[int, str, str]:
    """Move a variant to the left as long as its alleles end alike."""
    while True:
        shared = _shared_end(ea, oa)
        ea, oa = ea[: len(ea) - shared], oa[: len(oa) - shared]
        if pos == 1 or ea[-1] != oa[-1]:
            return pos, ea, oa
        # One of them is a single letter, the last of the other too: both lose it, and begin with
        # bases before them, of which several are taken at once.
        before = genome.sequence(chrom, pos - _REACH, pos - 1)
        pos, ea, oa = pos - len(before), before + ea[:-1], before + oa[:-1]
