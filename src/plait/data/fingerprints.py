"""What tells the inputs of a study from others."""

from pathlib import Path

import numpy as np

from plait.data.genotypes import GenotypeSource
from plait.data.phenotypes import SampleTable
from plait.provenance import fingerprint, glance


def study_fingerprints(
    genotypes: GenotypeSource,
    traits: SampleTable | None = None,
    covariates: SampleTable | None = None,
) -> dict[str, str]:
    """Return digests of genotypes and, where they matter, traits and covariates, by name.

    Of the genotypes that is what they say of samples and positions, and the size, time and ends of
    their file: to read all of it may take longer than to scan it.
    """
    found = {
        "the samples": fingerprint(genotypes.samples),
        "the positions of the variants": fingerprint(genotypes.variants.pos),
        "whether genotypes are calls or dosages": genotypes.kind,
    }
    if genotypes.path is not None and Path(genotypes.path).is_file():
        found["the genotypes"] = glance(genotypes.path)
    for name, table in (("traits", traits), ("covariates", covariates)):
        if table is not None:
            found[f"the {name}"] = fingerprint(table.values)
            found[f"the names of the {name}"] = fingerprint(np.array(table.names, dtype=np.str_))
            found[f"the samples of the {name}"] = fingerprint(table.samples)
    return found
