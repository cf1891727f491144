"""Genotypes coded so that products over variants are other relationships than those of copies.

"dominance": ``h = 2 p q + (q - p) w - w^2`` of the centred copies w, p the frequency of the effect
allele and q = 1 - p: -2 p^2 of no copy, 2 p q of one, -2 q^2 of two, which in Hardy-Weinberg
proportions has the mean 0, the variance (2 p q)^2 and no correlation with w (Vitezica, Varona and
Legarra 2013, Genetics 195, "genotypic" deviations).

"ibs": with s = 1 or -1 as a sample has one copy or none, and t as it has two or fewer, samples i
and k have ``1 - |g_i - g_k| / 2 = 1 / 2 + (s_i s_k + t_i t_k) / 4`` of their alleles in common.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from plait.data.genotype_blocks import GenotypeBlock

Array = NDArray[np.float64]
Single = NDArray[np.float32]

ROWS = {"dominance": 1, "ibs": 2}
"""Rows that a variant is coded as."""


def coded_genotypes(
    read: GenotypeBlock, used: NDArray[np.bool_], method: str, height: int
) -> tuple[Single, float]:
    """Return coded hard calls of the variants that count, and what they add to the norm.

    Parameters
    ----------
    read : GenotypeBlock
        At most ``height`` variants over the rows of each (`ROWS`).
    used : (n,) flags
    method : {"dominance", "ibs"}
    height : int

    Returns
    -------
    (height, N) float32 array, float
        Rows of 0 for variants that do not count, for what is missing, and beyond the last one. The
        norm is ``sum (2 p q)^2``, or the number of variants.
    """
    frequency = np.where(used, read.calls.frequency, 0.5)
    out = np.zeros((height, read.n_samples), dtype=np.float32)
    n = len(read)
    for part, tile, places in read.tiles(np.float32):
        centred = tile[places, : read.n_samples]
        variants = np.arange(part.start, part.stop)
        counts = used[part, None] & ~read.is_missing(variants)
        for k, rows in enumerate(_CODINGS[method](centred, frequency[part, None])):
            np.multiply(rows, counts, out=out[k * n + part.start : k * n + part.stop])
    p = frequency[used]
    norm = ((2 * p * (1 - p)) ** 2).sum() if method == "dominance" else used.sum()
    return out, float(norm)


def _dominance(centred: Single, p: Array) -> list[Single]:
    slope, constant = (1 - 2 * p).astype(np.float32), (2 * p * (1 - p)).astype(np.float32)
    return [constant + (slope - centred) * centred]


def _shared_alleles(centred: Single, p: Array) -> list[Single]:
    """Return halves of the signs, so that sums of products are exact."""
    halfway = 1 - (2 * p).astype(np.float32)  # between none and one, less what centring took
    above_one = centred > halfway + np.float32(0.5)
    above_none = centred > halfway - np.float32(0.5)
    return [above.astype(np.float32) - np.float32(0.5) for above in (above_none, above_one)]


_CODINGS: Mapping[str, Callable[[Single, Array], list[Single]]] = {
    "dominance": _dominance,
    "ibs": _shared_alleles,
}
