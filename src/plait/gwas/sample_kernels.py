"""Compiled loops over the genotypes of samples: arrays in, arrays out."""

from plait.numerics.compiled import njit


@njit(nogil=True, cache=True)
def add_sample_sums(packed, expected, missing, heterozygous, expected_missing):  # type: ignore[no-untyped-def]
    """Add what variants tell about each sample to the last three arrays (N,).

    ``expected[j]`` is the probability of a heterozygote, 0 for a variant of which heterozygotes do
    not count. ``expected_missing`` sums it where the genotype is missing.
    """
    n_samples = len(missing)
    for j in range(packed.shape[0]):
        counts_here = expected[j] > 0
        for i in range(n_samples):
            code = (packed[j, i >> 2] >> (2 * (i & 3))) & 3
            if code == 1:
                missing[i] += 1
                expected_missing[i] += expected[j]
            elif code == 2 and counts_here:
                heterozygous[i] += 1
