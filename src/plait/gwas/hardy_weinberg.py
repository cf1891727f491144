"""Exact tests of Hardy-Weinberg proportions.

Of autosomes by Wigginton, Cutler and Abecasis (2005); of chromosome X, both sexes together, by
Graffelman and Weir (2016).
"""

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

    counts = _checked("n0, n1 and n2", n0, n1, n2)
    out = np.empty(len(counts[0]))
    exact_hardy_weinberg(counts[0], counts[1], counts[2], mid_p, out)
    return out


def hardy_weinberg_x_p(
    males0: ArrayLike,
    males1: ArrayLike,
    females0: ArrayLike,
    females1: ArrayLike,
    females2: ArrayLike,
) -> NDArray[np.float64]:
    """Return exact p-values of Hardy-Weinberg proportions on chromosome X, of both sexes together.

    Parameters
    ----------
    males0, males1 : (M,) int arrays
        Males without and with the allele on their one X.
    females0, females1, females2 : (M,) int arrays
        Females with 0, 1 and 2 copies.

    Returns
    -------
    (M,) array
        1 for monomorphic variants. Small where heterozygous females are too many or too few, or
        where the allele is not as frequent in males as in females.

    Notes
    -----
    Given the counts of alleles and sexes, the probability of ``a`` males with the allele and ``h``
    heterozygous females is ``nA! nB! m! f! 2^h / (a! (m - a)! f0! h! f2! (m + 2 f)!)`` (Graffelman
    and Weir 2016, eq. 4, https://doi.org/10.1038/hdy.2016.20); outcomes as likely as the observed
    one or less are added up. Cost: the outcomes that are not negligible against it, about as many
    as the squared standard deviations of a and h together.
    """
    from scipy.special import gammaln

    from plait.gwas.hardy_weinberg_kernels import exact_hardy_weinberg_x

    counts = _checked("counts", males0, males1, females0, females1, females2)
    alleles = np.sum(counts[:2], axis=0) + 2 * np.sum(counts[2:], axis=0)
    most = int(alleles.max(initial=0))
    out = np.empty(len(counts[0]))
    exact_hardy_weinberg_x(*counts, gammaln(np.arange(most + 1) + 1.0), out)
    return out


def _checked(names: str, *given: ArrayLike) -> list[NDArray[np.int64]]:
    counts = [np.atleast_1d(np.asarray(values, dtype=np.int64)) for values in given]
    if len({values.shape for values in counts}) > 1 or counts[0].ndim != 1:
        raise ShapeError(f"{names} have shapes {[values.shape for values in counts]}.")
    if any((values < 0).any() for values in counts):
        raise InputError("counts of samples cannot be negative.")
    return counts
