"""Options of the commands for gene-level screens, each with one name and one meaning."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from plait.cli.crt import Side
from plait.cli.options import INPUT, MODEL, OUTPUT, option

GUIDES, CELLS = "Guides of cells", "Cells that are used"
DETECTABLE = "detectable.tsv"
"""The file that --detectable asks for."""


class Multiplicity(StrEnum):
    """Guides of a cell."""

    LOW = "low"
    HIGH = "high"


class Assignment(StrEnum):
    """How guides are assigned."""

    THRESHOLDING = "thresholding"
    MAXIMUM = "maximum"
    MIXTURE = "mixture"


class Mixture(StrEnum):
    """How counts of guides are told from their background."""

    LOG_LINK = "log_link"
    LEGACY = "legacy"


class FalseDiscoveries(StrEnum):
    """What is made of the p-values of many tests."""

    BH = "BH"
    BY = "BY"
    STOREY = "storey"
    BONFERRONI = "bonferroni"
    NONE = "none"


class Strategy(StrEnum):
    """What becomes of the guides of a target."""

    UNION = "union"
    SINGLETON = "singleton"
    BONFERRONI = "bonferroni"


class ControlGroup(StrEnum):
    """What treated cells are compared with."""

    COMPLEMENT = "complement"
    NT_CELLS = "nt_cells"


class Mechanism(StrEnum):
    """How treatments are drawn anew."""

    CRT = "crt"
    PERMUTATIONS = "permutations"


class Resampling(StrEnum):
    """How p-values are made."""

    ANALYTIC = "analytic"
    STAGED = "sceptre_staged"


Moi = Annotated[
    Multiplicity,
    option("--moi", panel=INPUT, help="Whether cells are meant to have one guide or many."),
]
GuideCounts = Annotated[
    str | None,
    option(
        "--guide-counts",
        metavar="KEY",
        panel=INPUT,
        show_default="grna_counts, guide_umis or guide_assignment",
        help="Counts of guides, cells x guides; zeros and ones say which cells have which.",
    ),
]
GuideNames = Annotated[
    str | None,
    option(
        "--guide-names",
        metavar="KEY",
        panel=INPUT,
        show_default="grna_ids or guide_names",
        help="Names of the guides, in uns, where they are not those of columns.",
    ),
]
Targets = Annotated[
    str | None,
    option(
        "--targets",
        metavar="KEY|FILE",
        panel=INPUT,
        show_default="grna_target_table, guide2gene or guide2gene_json; of .h5 target_gene_name",
        help="Target of each guide, in uns: a table with grna_id and grna_target "
        "('non-targeting' for controls), or a mapping (or JSON). With an .h5 the name of such a "
        "table's file.",
    ),
]
Covariates = Annotated[
    str | None,
    option(
        "--covariates",
        metavar="LIST",
        panel=INPUT,
        help="Columns of obs that are covariates, separated by commas, beside the counts of a "
        "cell, which are made. An .h5 has gem_well, the number behind barcodes.",
    ),
]
Layer = Annotated[
    str | None,
    option(
        "--layer", metavar="KEY", panel=INPUT, show_default="X", help="Layer with counts of genes."
    ),
]
OnDisk = Annotated[
    bool,
    option(
        "--on-disk",
        panel=INPUT,
        help="Leave counts of genes (in X) on disk, in a temporary file (TMPDIR), and read them "
        "gene by gene: memory does not grow with their number. Numbers are the same.",
    ),
]
AssignmentTable = Annotated[
    Path | None,
    option(
        "--assignment",
        metavar="FILE",
        panel=INPUT,
        show_default="made now",
        help="What 'plait crt assign' wrote.",
    ),
]
AssignBy = Annotated[
    Assignment | None,
    option(
        "--assign",
        panel=GUIDES,
        show_default="maximum, or with --moi high mixture",
        help="Assign guides by a threshold, the largest count, or a mixture of Poissons.",
    ),
]
Threshold = Annotated[
    int,
    option(
        "--threshold",
        min=1,
        panel=GUIDES,
        help="Fewest counts of a guide that is present, with --assign thresholding and for guides "
        "that no mixture fits.",
    ),
]
MixtureOption = Annotated[
    Mixture,
    option(
        "--mixture",
        panel=GUIDES,
        help="With --assign mixture: the background is fitted to cells without the guide, or to "
        "all as in sceptre (legacy).",
    ),
]
SmallestShare = Annotated[
    float,
    option(
        "--smallest-share",
        min=0.0,
        max=1.0,
        panel=GUIDES,
        help="With --assign maximum: cells are left out whose largest guide has no larger share "
        "of their guide counts.",
    ),
]
SmallestCount = Annotated[
    int,
    option(
        "--smallest-count",
        min=0,
        panel=GUIDES,
        help="With --assign maximum: cells are left out that have fewer guide counts.",
    ),
]
PairsOption = Annotated[
    str | None,
    option(
        "--pairs",
        metavar="trans|cis|FILE",
        panel=INPUT,
        help="What is tested: all targets and genes, those close to each other, or a table with "
        "grna_target and response_id.",
    ),
]
GenePositions = Annotated[
    Path | None,
    option(
        "--gene-positions",
        metavar="FILE",
        panel=INPUT,
        help="For --pairs cis: response_id, chr and position of genes.",
    ),
]
PositiveControls = Annotated[
    Path | None,
    option(
        "--positive-controls",
        metavar="FILE",
        panel=INPUT,
        show_default="targets that are called like a gene, with it",
        help="Pairs that should have an effect: a table with grna_target and response_id.",
    ),
]
SideOption = Annotated[
    Side, option("--side", panel=MODEL, help="left looks for genes that go down.")
]
StrategyOption = Annotated[
    Strategy, option("--strategy", panel=MODEL, help="Guides of a target together, or one by one.")
]
ControlGroupOption = Annotated[
    ControlGroup | None,
    option(
        "--control-group",
        panel=MODEL,
        show_default="nt_cells, or with --moi high complement",
        help="Compare with all other cells, or with those of non-targeting guides.",
    ),
]
MechanismOption = Annotated[
    Mechanism | None,
    option(
        "--mechanism",
        panel=MODEL,
        show_default="permutations, or with --moi high crt",
        help="Draw treatments given the covariates, or permute them.",
    ),
]
Formula = Annotated[
    str | None,
    option(
        "--formula",
        panel=MODEL,
        show_default="all covariates, counts logged",
        help="Covariates of a gene's counts, as in '~ log(response_n_umis) + batch'; "
        "grna_n_assigned is the number of guides that a cell has.",
    ),
]
BackgroundFormula = Annotated[
    str | None,
    option(
        "--formula",
        panel=MODEL,
        show_default="all covariates, counts logged",
        help="With mixture: covariates of the background of a guide's counts, as in "
        "'~ log(response_n_umis) + batch'.",
    ),
]
Weights = Annotated[
    str | None,
    option(
        "--weights",
        metavar="NAME",
        panel=MODEL,
        show_default="all the same",
        help="Column of obs with positive numbers, how much each cell counts; not made of the "
        "counts of genes that are tested, nor of guides.",
    ),
]
ResamplingOption = Annotated[
    Resampling,
    option(
        "--resampling",
        panel=MODEL,
        help="P-values of infinitely many resamples, or of sceptre's stages.",
    ),
]
MinTreated = Annotated[
    int,
    option(
        "--min-treated", min=1, panel=MODEL, help="Treated cells with counts that a pair needs."
    ),
]
MinControls = Annotated[
    int,
    option(
        "--min-controls", min=1, panel=MODEL, help="Control cells with counts that a pair needs."
    ),
]
MaxMito = Annotated[
    float,
    option(
        "--max-mito",
        min=0.0,
        max=1.0,
        panel=CELLS,
        help="Largest share of mitochondrial counts of a cell.",
    ),
]
UmisQuantiles = Annotated[
    str,
    option(
        "--umis-quantiles",
        metavar="LOW,HIGH",
        panel=CELLS,
        help="Cells with fewer counts of genes than the one quantile, or more than the other, are "
        "left out.",
    ),
]
NonzeroQuantiles = Annotated[
    str,
    option(
        "--nonzero-quantiles",
        metavar="LOW,HIGH",
        panel=CELLS,
        help="The same of the number of genes with counts.",
    ),
]
Remove = Annotated[
    Path | None,
    option(
        "--remove",
        metavar="FILE",
        panel=CELLS,
        show_default="none",
        help="Names of further cells to leave out, one in a line (of a table the first column).",
    ),
]
KeepWithNonTargeting = Annotated[
    bool,
    option(
        "--keep-with-non-targeting",
        panel=CELLS,
        help="With --moi low: keep cells with one guide of a target and non-targeting ones "
        "(--assign maximum finds one guide in each).",
    ),
]
Fdr = Annotated[
    FalseDiscoveries,
    option("--fdr", panel=MODEL, help="How p-values are corrected for the number of tests."),
]
Level = Annotated[
    float, option("--level", panel=MODEL, help="False discovery rate of what is significant.")
]
OutTable = Annotated[
    Path,
    option(
        "--out",
        metavar="TABLE",
        panel=OUTPUT,
        help="A table: .csv or .tsv (also .gz), or .parquet.",
    ),
]
OutFolder = Annotated[
    Path,
    option("--out", metavar="FOLDER", panel=OUTPUT, help="Folder for tables, stores and pictures."),
]
KeepDraws = Annotated[
    bool,
    option(
        "--keep-draws",
        panel=OUTPUT,
        help="With --resampling sceptre_staged: keep the null statistics that every p-value is "
        "from, as null_draws of the store.",
    ),
]
Detectable = Annotated[
    float | None,
    option(
        "--detectable",
        metavar="POWER",
        panel=MODEL,
        show_default="not asked",
        help="Say which fold changes are found with this power (0.8, say), and the power at some: "
        f"{DETECTABLE}.",
    ),
]
