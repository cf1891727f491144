"""What is in one file of eQTL results."""

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from plait.data.p_values import log10_p_of_z
from plait.data.summary_derivations import lambda_gc
from plait.errors import FileFormatError
from plait.io.eqtl import parse_variant_ids, scan_eqtl
from plait.io.eqtl_formats import EqtlFormat
from plait.numerics.uniformity import log10_p_limit

if TYPE_CHECKING:
    from polars import LazyFrame, Series


@dataclass(frozen=True)
class EqtlContents:
    """What is in a table of a row for each gene and variant.

    Attributes
    ----------
    n_effects : int
        Rows with an effect and a standard error above 0.
    n_genes, n_variants : int
    n_repeated : int
        Rows whose gene and variant occur again with other numbers: their effects have no one name.
    builds : tuple of str
        Genome builds that variant ids such as chr1_64764_C_T_b38 name.
    n_placed : int
        Variants whose id tells position and alleles.
    lambda_gc : float
        Median of z squared over its value under the null; NaN where rows were chosen by p.
    largest_z : float
    log10p_limit : float
        log10 of the p-value of z that no row exceeds, where rows were chosen by it, as in tables of
        significant pairs; NaN where they were not (`plait.numerics.uniformity.log10_p_limit`).
    """

    n_effects: int
    n_genes: int
    n_variants: int
    n_repeated: int
    builds: tuple[str, ...]
    n_placed: int
    lambda_gc: float
    largest_z: float
    log10p_limit: float


def eqtl_contents(path: str | os.PathLike[str], found: EqtlFormat) -> EqtlContents:
    """Look through a file of eQTL results.

    Parameters
    ----------
    path : path
    found : EqtlFormat
        Its format (`plait.io.eqtl.find_eqtl_format`).

    Raises
    ------
    FileFormatError
        The file cannot be read, or has no row with an effect.

    Notes
    -----
    The file is streamed. Memory: its distinct variants, and 8 bytes per row.
    """
    import polars as pl

    scanned = scan_eqtl(path, found.name)
    try:
        z = scanned.select(pl.col("beta") / pl.col("se")).collect(engine="streaming")["beta"]
        variants = _distinct(scanned, "variant")
        genes = _distinct(scanned, "gene")
        rows = scanned.unique().group_by("gene", "variant").len()
        repeated = rows.filter(pl.col("len") > 1).select(pl.col("len").sum()).collect()
    except pl.exceptions.PolarsError as error:
        first = str(error).strip().splitlines()[0]
        raise FileFormatError(f"{path} cannot be read: {first}.") from None
    if not len(z):
        raise FileFormatError(f"{path} has no row with an effect and a standard error.")
    placed = parse_variant_ids(variants)
    limit = log10_p_limit(log10_p_of_z(z.to_numpy()))
    return EqtlContents(
        n_effects=len(z),
        n_genes=len(genes),
        n_variants=len(variants),
        n_repeated=int(repeated.item() or 0),
        builds=tuple(placed["build"].drop_nulls().unique().sort().to_list()),
        n_placed=len(placed["pos"].drop_nulls()),
        lambda_gc=lambda_gc(z.to_numpy()) if math.isnan(limit) else math.nan,
        largest_z=float(np.abs(z.to_numpy()).max()),
        log10p_limit=limit,
    )


def _distinct(scanned: "LazyFrame", name: str) -> "Series":
    return scanned.select(name).unique().drop_nulls().collect(engine="streaming")[name]
