"""Files in which the chromosomes alternate, even variant by variant.

Where each chromosome is prepared for or left out, its variants are taken together: what takes as
long for a run of one variant as for a block is done once for a chromosome then.
"""

import numpy as np
from numpy.typing import NDArray

from plait.data.genotypes import GenotypeSource
from plait.io.genotypes import SelectedGenotypes


def gathered(genotypes: GenotypeSource) -> tuple[GenotypeSource, NDArray[np.intp] | None]:
    """Return genotypes with the variants of each chromosome in one run, and their rows in the file.

    Chromosomes, and the variants of each, keep their order. None for rows that are as in the file.
    """
    runs = genotypes.variants.chromosomes
    pieces: dict[str, list[NDArray[np.intp]]] = {}
    for name, run in runs:
        pieces.setdefault(name, []).append(np.arange(run.start, run.stop))
    if len(pieces) == len(runs):
        return genotypes, None
    order = np.concatenate([piece for own in pieces.values() for piece in own])
    return SelectedGenotypes(genotypes, order), order
