"""Options that say which samples and variants of the genotypes a command uses."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from plait.cli.options import INPUT, option

if TYPE_CHECKING:
    from plait.data.genotypes import GenotypeSource

KeepSamples = Annotated[
    Path | None,
    option(
        "--keep-samples",
        metavar="FILE",
        panel=INPUT,
        help="List of the samples to use, a name in each line, as qc writes it.",
    ),
]
ExcludeSamples = Annotated[
    Path | None,
    option(
        "--exclude-samples",
        metavar="FILE",
        panel=INPUT,
        help="List of samples to leave out.",
    ),
]
KeepVariants = Annotated[
    Path | None,
    option(
        "--keep-variants",
        metavar="FILE",
        panel=INPUT,
        help="List of the variants to use: ids, or chrom:pos:oa:ea.",
    ),
]
ExcludeVariants = Annotated[
    Path | None,
    option(
        "--exclude-variants",
        metavar="FILE",
        panel=INPUT,
        help="List of variants to leave out.",
    ),
]


class Choice(NamedTuple):
    """The lists of a command; None where there is none."""

    keep_samples: Path | None = None
    exclude_samples: Path | None = None
    keep_variants: Path | None = None
    exclude_variants: Path | None = None


def open_chosen(geno: str, choice: Choice, dosage: str = "auto") -> "GenotypeSource":
    """Open genotypes, of which the lists choose samples and variants."""
    from plait.io import open_genotypes, read_names, select_genotypes

    lists = {
        name: None if path is None else read_names(path) for name, path in choice._asdict().items()
    }
    return select_genotypes(open_genotypes(geno, dosage=dosage), **lists)
