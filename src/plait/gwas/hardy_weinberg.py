"""Exact test of Hardy-Weinberg proportions (Wigginton, Cutler and Abecasis 2005)."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import InputError, ShapeError


def hardy_weinberg_p(
    n0: ArrayLike, n1: ArrayLike, n2: ArrayLike, mid_p: bool = False
) -> NDArray[np.float64]:
    """Return exact p-values of Hardy-Weinberg proportions.

    Parameters
    ----------
    n0, n1, n2 : (M,) int arrays
        Samples with 0, 1 and 2 copies of an allele.
    mid_p : bool
        Count outcomes as likely as the observed one by half.

    Returns
    -------
    (M,) array
        1 for monomorphic variants.

    Notes
    -----
    Given the allele counts, heterozygotes are counted outward from the most likely number by the
    ratio ``P(h + 2) / P(h) = 4 a b / ((h + 2) (h + 1))``, ``a`` and ``b`` the homozygotes at h.
    Cost: O(copies of the rarer allele) for each variant.
    """
    from plait.gwas.kernels import exact_hardy_weinberg

    counts = [np.atleast_1d(np.asarray(values, dtype=np.int64)) for values in (n0, n1, n2)]
    if len({values.shape for values in counts}) > 1 or counts[0].ndim != 1:
        raise ShapeError(f"n0, n1 and n2 have shapes {[values.shape for values in counts]}.")
    if any((values < 0).any() for values in counts):
        raise InputError("counts of samples cannot be negative.")
    out = np.empty(len(counts[0]))
    exact_hardy_weinberg(counts[0], counts[1], counts[2], mid_p, out)
    return out
