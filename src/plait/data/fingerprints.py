"""What tells the inputs of a study from others."""

from pathlib import Path
from typing import Any

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

    Of the genotypes that is what they say of samples and variants (where these are, what they are
    called, and which allele is counted), how they are read, and the size, time and ends of their
    file: to read all of it may take longer than to scan it.
    """
    found = {
        "the samples": fingerprint(genotypes.samples),
        "the variants": genotypes.variants.digest,
        "whether genotypes are calls or dosages": genotypes.kind,
        "how the genotypes are read": _reading(genotypes),
    }
    if genotypes.path is not None and Path(genotypes.path).is_file():
        file = glance(genotypes.path)
        found["the genotypes"] = f"sha256:{file['sha256']} {file['bytes']} {file['modified']}"
    for name, table in (("traits", traits), ("covariates", covariates)):
        if table is not None:
            found[f"the {name}"] = fingerprint(table.values)
            found[f"the names of the {name}"] = fingerprint(np.array(table.names, dtype=np.str_))
            found[f"the samples of the {name}"] = fingerprint(table.samples)
    return found


def _reading(genotypes: GenotypeSource) -> str:
    """Return the options by which a file gives other numbers for the same variants."""
    inner: Any = genotypes
    while hasattr(inner, "source"):
        inner = inner.source
    options = {name: getattr(inner, name, None) for name in ("count", "dosage")}
    return ", ".join(f"{name}={value}" for name, value in options.items() if value is not None)
