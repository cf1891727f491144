"""Options that say how genotypes are read, and which of their samples and variants are used."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from plait.cli.options import INPUT, option

if TYPE_CHECKING:
    from plait.data.genotypes import GenotypeSource


class Dosage(StrEnum):
    """What genotypes are read as."""

    AUTO = "auto"
    DS = "DS"
    GP = "GP"
    GT = "GT"


DosageOption = Annotated[
    Dosage,
    option(
        "--dosage",
        panel=INPUT,
        help="auto: dosages where there are any, of a VCF the first of DS, GP and GT that a record "
        "has; DS, GP: this field of a VCF, else GT; GT: hard calls, of any format.",
    ),
]
MapFile = Annotated[
    Path | None,
    option(
        "--map",
        metavar="FILE",
        panel=INPUT,
        help="Where the markers of a genotype table are: columns marker (or SNP, id), chrom and "
        "pos, also ref and alt.",
    ),
]
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
    """How the genotypes of a command are read; None where a list or a map is not given."""

    keep_samples: Path | None = None
    exclude_samples: Path | None = None
    keep_variants: Path | None = None
    exclude_variants: Path | None = None
    map: Path | None = None
    dosage: Dosage = Dosage.AUTO


def open_chosen(geno: str, choice: Choice, hard_calls: bool = False) -> "GenotypeSource":
    """Open genotypes, of which the lists choose samples and variants."""
    from plait.io import open_genotypes, read_names, select_genotypes

    options: dict[str, Any] = {} if choice.map is None else {"map": choice.map}
    hard_calls = hard_calls or choice.dosage is Dosage.GT
    source = open_genotypes(
        geno, dosage="hardcall" if hard_calls else str(choice.dosage), **options
    )
    lists = {name: getattr(choice, name) for name in Choice._fields[:4]}
    names = {name: None if path is None else read_names(path) for name, path in lists.items()}
    return select_genotypes(source, **names)
