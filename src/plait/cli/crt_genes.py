"""``plait crt assign|qc|calibrate|power|discover``: a screen with counts of genes, step by step."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plait.cli import options
from plait.cli.console import announce_compilation, say, session
from plait.cli.crt import DOCS, Side, say_verdicts
from plait.cli.gene_screen_figures import FIGURES, REPORT, write_figures
from plait.cli.gene_screen_options import (
    DETECTABLE,
    AssignBy,
    Assignment,
    AssignmentTable,
    BackgroundFormula,
    ControlGroupOption,
    Covariates,
    Detectable,
    FalseDiscoveries,
    Fdr,
    Formula,
    GenePositions,
    GuideCounts,
    GuideNames,
    KeepDraws,
    KeepWithNonTargeting,
    Layer,
    Level,
    MaxMito,
    MechanismOption,
    MinControls,
    MinTreated,
    Mixture,
    MixtureOption,
    Moi,
    Multiplicity,
    NonzeroQuantiles,
    OnDisk,
    OutFolder,
    OutTable,
    PairsOption,
    PositiveControls,
    Remove,
    Resampling,
    ResamplingOption,
    SideOption,
    SmallestCount,
    SmallestShare,
    Strategy,
    StrategyOption,
    Targets,
    Threshold,
    UmisQuantiles,
    Weights,
)
from plait.cli.gene_screen_runs import (
    STORES,
    UNFINISHED,
    assign_guides,
    cell_options,
    finish,
    guide_options,
    has_controls,
    refuse_draws,
    refuse_power,
    run_analysis,
    say_calibration,
    write_detectable,
)
from plait.cli.gene_screen_tables import (
    ASSIGNED,
    known_pairs,
    pairs_of,
    read_table_with,
    read_tables,
)
from plait.cli.inputs import errors_naming, refuse_idle, split_list
from plait.cli.options import MODEL, documented, option
from plait.cli.outputs import TABLES, check_file, check_folder, write_table
from plait.cli.records import RECORD, beside, write_record
from plait.cli.screen_inputs import CELL_RANGER, H5ad, cell_ranger_targets
from plait.data.words import counted
from plait.errors import InputError, OptionError

if TYPE_CHECKING:
    from plait.crt.gene_results import GeneTestResult
    from plait.crt.gene_screen import GeneScreen

FILES = (
    *("assignment.tsv.gz", "cells.tsv.gz", "calibration.tsv", "power.tsv", "discovery.tsv"),
    *("summary.txt", *FIGURES, REPORT, RECORD, *STORES.values(), DETECTABLE),
)
SCREEN = "--h5ad screen.h5ad --moi low --covariates batch"
EXAMPLES = {
    "assign": f"plait crt assign {SCREEN} --out assignment.tsv",
    "qc": f"plait crt qc {SCREEN} --assignment assignment.tsv --out cells.tsv",
    "calibrate": f"plait crt calibrate {SCREEN} --pairs trans --out calibrated",
    "power": f"plait crt power {SCREEN} --out powered",
    "discover": f"plait crt discover {SCREEN} --pairs trans --out discovered",
}


def assign(
    h5ad: H5ad,
    moi: Moi,
    out: OutTable,
    guides: GuideCounts = None,
    guide_names: GuideNames = None,
    targets: Targets = None,
    covariates: Covariates = None,
    layer: Layer = None,
    method: AssignBy = None,
    threshold: Threshold = 5,
    mixture: MixtureOption = Mixture.LOG_LINK,
    smallest_share: SmallestShare = 0.8,
    smallest_count: SmallestCount = 5,
    formula: BackgroundFormula = None,
    overwrite: options.Overwrite = False,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Decide which cells have which guides, from counts of guides."""
    check_file(out, TABLES, overwrite)
    chosen = _refuse_assignment(moi, None, method)
    refuse_idle(("formula",), chosen is not Assignment.MIXTURE, "without --assign mixture")
    assigning = guide_options(threshold, mixture, smallest_share, smallest_count)
    with session(threads, quiet, debug):
        screen = _open(h5ad, moi, guides, guide_names, targets, covariates, layer)
        _say_data(screen, quiet)
        announce_compilation(quiet)
        screen.set_parameters()
        _assign(screen, None, None, method, assigning | {"formula": formula})
        assert screen.assignment is not None
        write_table(out, screen.assignment.to_frame(), overwrite)
        _say(screen.assignment, quiet)
    write_record(beside(out), {"cells": screen.data.n_cells})
    say(quiet, f"written: {out}")


def qc(
    h5ad: H5ad,
    moi: Moi,
    out: OutTable,
    guides: GuideCounts = None,
    guide_names: GuideNames = None,
    targets: Targets = None,
    covariates: Covariates = None,
    layer: Layer = None,
    assignment: AssignmentTable = None,
    method: AssignBy = None,
    threshold: Threshold = 5,
    mixture: MixtureOption = Mixture.LOG_LINK,
    smallest_share: SmallestShare = 0.8,
    smallest_count: SmallestCount = 5,
    max_mito: MaxMito = 0.2,
    umis_quantiles: UmisQuantiles = "0.01,0.99",
    nonzero_quantiles: NonzeroQuantiles = "0.01,0.99",
    remove: Remove = None,
    keep_with_non_targeting: KeepWithNonTargeting = False,
    overwrite: options.Overwrite = False,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Choose the cells that are used, and say why others are not."""
    check_file(out, TABLES, overwrite)
    _refuse_assignment(moi, assignment, method)
    assigning = guide_options(threshold, mixture, smallest_share, smallest_count)
    cells = cell_options(
        moi, max_mito, umis_quantiles, nonzero_quantiles, remove, keep_with_non_targeting
    )
    with session(threads, quiet, debug):
        table = read_table_with(assignment, *ASSIGNED)
        screen = _open(h5ad, moi, guides, guide_names, targets, covariates, layer)
        _say_data(screen, quiet)
        announce_compilation(quiet)
        screen.set_parameters()
        _assign(screen, assignment, table, method, assigning)
        screen.quality_control(**cells)
        chosen = screen.cells
        assert chosen is not None
        write_table(out, chosen.to_frame(), overwrite)
        _say(chosen, quiet)
    write_record(beside(out), {"cells": screen.data.n_cells, "removed": chosen.removed})
    say(quiet, f"written: {out}")


def calibrate(
    h5ad: H5ad,
    moi: Moi,
    out: OutFolder,
    pairs: PairsOption = "trans",
    guides: GuideCounts = None,
    guide_names: GuideNames = None,
    targets: Targets = None,
    covariates: Covariates = None,
    layer: Layer = None,
    assignment: AssignmentTable = None,
    method: AssignBy = None,
    threshold: Threshold = 5,
    mixture: MixtureOption = Mixture.LOG_LINK,
    smallest_share: SmallestShare = 0.8,
    smallest_count: SmallestCount = 5,
    gene_positions: GenePositions = None,
    positive_controls: PositiveControls = None,
    side: SideOption = Side.BOTH,
    strategy: StrategyOption = Strategy.UNION,
    control_group: ControlGroupOption = None,
    mechanism: MechanismOption = None,
    formula: Formula = None,
    weights: Weights = None,
    resampling: ResamplingOption = Resampling.ANALYTIC,
    max_mito: MaxMito = 0.2,
    umis_quantiles: UmisQuantiles = "0.01,0.99",
    nonzero_quantiles: NonzeroQuantiles = "0.01,0.99",
    remove: Remove = None,
    keep_with_non_targeting: KeepWithNonTargeting = False,
    min_treated: MinTreated = 7,
    min_controls: MinControls = 7,
    n_pairs: Annotated[
        int | None,
        option(
            "--n-pairs",
            min=1,
            panel=MODEL,
            show_default="as many as are to be tested",
            help="Pairs of a group of controls and a gene.",
        ),
    ] = None,
    group_size: Annotated[
        int | None,
        option(
            "--group-size",
            min=1,
            panel=MODEL,
            show_default="as many as targets have",
            help="Non-targeting guides that stand for a target.",
        ),
    ] = None,
    level: Level = 0.1,
    fdr: Fdr = FalseDiscoveries.BH,
    on_disk: OnDisk = False,
    keep_draws: KeepDraws = False,
    seed: options.Seed = 123,
    overwrite: options.Overwrite = False,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Test groups of non-targeting guides, of which none has an effect on any gene."""
    check_folder(out, FILES, overwrite, UNFINISHED)
    refuse_draws(keep_draws, resampling)
    assigning = guide_options(threshold, mixture, smallest_share, smallest_count)
    cells = cell_options(
        moi, max_mito, umis_quantiles, nonzero_quantiles, remove, keep_with_non_targeting
    )
    with session(threads, quiet, debug):
        screen = _prepared(
            quiet, h5ad, moi, guides, guide_names, targets, covariates, layer, assignment,
            method, assigning, pairs, gene_positions, positive_controls, cells, min_treated,
            min_controls, on_disk, out, side=side, strategy=strategy,
            control_group=control_group, mechanism=mechanism, formula=formula, weights=weights,
            resampling=resampling, level=level, fdr=fdr, seed=seed,
        )  # fmt: skip
        result = run_analysis(
            screen, "calibration", out, threads=threads, keep_draws=keep_draws, n_pairs=n_pairs,
            group_size=group_size,
        )  # fmt: skip
        if n_pairs is not None and len(result) < n_pairs:
            say(
                quiet,
                f"note: {counted(len(result), 'pair')} can be made, fewer than --n-pairs "
                f"{n_pairs:,}.",
            )
        _finish(screen, result, out, quiet)


def power(
    h5ad: H5ad,
    moi: Moi,
    out: OutFolder,
    guides: GuideCounts = None,
    guide_names: GuideNames = None,
    targets: Targets = None,
    covariates: Covariates = None,
    layer: Layer = None,
    assignment: AssignmentTable = None,
    method: AssignBy = None,
    threshold: Threshold = 5,
    mixture: MixtureOption = Mixture.LOG_LINK,
    smallest_share: SmallestShare = 0.8,
    smallest_count: SmallestCount = 5,
    positive_controls: PositiveControls = None,
    side: SideOption = Side.BOTH,
    strategy: StrategyOption = Strategy.UNION,
    control_group: ControlGroupOption = None,
    mechanism: MechanismOption = None,
    formula: Formula = None,
    weights: Weights = None,
    resampling: ResamplingOption = Resampling.ANALYTIC,
    max_mito: MaxMito = 0.2,
    umis_quantiles: UmisQuantiles = "0.01,0.99",
    nonzero_quantiles: NonzeroQuantiles = "0.01,0.99",
    remove: Remove = None,
    keep_with_non_targeting: KeepWithNonTargeting = False,
    min_treated: MinTreated = 7,
    min_controls: MinControls = 7,
    on_disk: OnDisk = False,
    keep_draws: KeepDraws = False,
    seed: options.Seed = 123,
    overwrite: options.Overwrite = False,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Test positive controls, of which all should have an effect."""
    check_folder(out, FILES, overwrite, UNFINISHED)
    refuse_draws(keep_draws, resampling)
    assigning = guide_options(threshold, mixture, smallest_share, smallest_count)
    cells = cell_options(
        moi, max_mito, umis_quantiles, nonzero_quantiles, remove, keep_with_non_targeting
    )
    with session(threads, quiet, debug):
        screen = _prepared(
            quiet, h5ad, moi, guides, guide_names, targets, covariates, layer, assignment,
            method, assigning, None, None, positive_controls, cells, min_treated, min_controls,
            on_disk, out, side=side, strategy=strategy, control_group=control_group,
            mechanism=mechanism, formula=formula, weights=weights, resampling=resampling,
            seed=seed,
        )  # fmt: skip
        result = run_analysis(screen, "power", out, threads=threads, keep_draws=keep_draws)
        _finish(screen, result, out, quiet)


def discover(
    h5ad: H5ad,
    moi: Moi,
    out: OutFolder,
    pairs: PairsOption = "trans",
    guides: GuideCounts = None,
    guide_names: GuideNames = None,
    targets: Targets = None,
    covariates: Covariates = None,
    layer: Layer = None,
    assignment: AssignmentTable = None,
    method: AssignBy = None,
    threshold: Threshold = 5,
    mixture: MixtureOption = Mixture.LOG_LINK,
    smallest_share: SmallestShare = 0.8,
    smallest_count: SmallestCount = 5,
    gene_positions: GenePositions = None,
    positive_controls: PositiveControls = None,
    side: SideOption = Side.BOTH,
    strategy: StrategyOption = Strategy.UNION,
    control_group: ControlGroupOption = None,
    mechanism: MechanismOption = None,
    formula: Formula = None,
    weights: Weights = None,
    resampling: ResamplingOption = Resampling.ANALYTIC,
    max_mito: MaxMito = 0.2,
    umis_quantiles: UmisQuantiles = "0.01,0.99",
    nonzero_quantiles: NonzeroQuantiles = "0.01,0.99",
    remove: Remove = None,
    keep_with_non_targeting: KeepWithNonTargeting = False,
    min_treated: MinTreated = 7,
    min_controls: MinControls = 7,
    level: Level = 0.1,
    fdr: Fdr = FalseDiscoveries.BH,
    on_disk: OnDisk = False,
    keep_draws: KeepDraws = False,
    detectable: Detectable = None,
    seed: options.Seed = 123,
    overwrite: options.Overwrite = False,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Test what targets do to the expression of genes, check the tests, and write a page."""
    check_folder(out, FILES, overwrite, UNFINISHED)
    refuse_draws(keep_draws, resampling)
    assigning = guide_options(threshold, mixture, smallest_share, smallest_count)
    cells = cell_options(
        moi, max_mito, umis_quantiles, nonzero_quantiles, remove, keep_with_non_targeting
    )
    refuse_power(detectable, strategy, weights)
    with session(threads, quiet, debug):
        screen = _prepared(
            quiet, h5ad, moi, guides, guide_names, targets, covariates, layer, assignment,
            method, assigning, pairs, gene_positions, positive_controls, cells, min_treated,
            min_controls, on_disk, out, side=side, strategy=strategy,
            control_group=control_group, mechanism=mechanism, formula=formula, weights=weights,
            resampling=resampling, level=level, fdr=fdr, seed=seed,
        )  # fmt: skip
        if has_controls(screen, quiet):
            run_analysis(screen, "calibration", out, threads=threads, keep_draws=keep_draws)
        assert screen.parameters is not None
        if screen.parameters.positive_control_pairs is not None:
            run_analysis(screen, "power", out, threads=threads, keep_draws=keep_draws)
        result = run_analysis(screen, "discovery", out, threads=threads, keep_draws=keep_draws)
        can: list[str] = []
        if detectable is not None and result.pass_qc.any():
            can = write_detectable(screen, out, detectable, threads)
        _finish(screen, result, out, quiet, can)


def _open(
    h5ad: Path,
    moi: Multiplicity,
    guides: str | None,
    guide_names: str | None,
    targets: str | None,
    covariates: str | None,
    layer: str | None,
    on_disk: bool = False,
) -> "GeneScreen":
    from plait.crt import GeneScreen, gene_screen_from_anndata, gene_screen_from_cell_ranger
    from plait.io.anndata import read_counts

    if h5ad.suffix == CELL_RANGER:
        table = cell_ranger_targets(targets, ("guides", "guide_names", "layer"))
        names = split_list(covariates)
        with errors_naming(str(h5ad)):
            return GeneScreen(
                gene_screen_from_cell_ranger(
                    h5ad, str(moi), table, covariates=names, on_disk=on_disk
                )
            )
    is_mudata = h5ad.suffix == ".h5mu"
    unused = ("guides", "guide_names")
    refuse_idle(unused, is_mudata, "with an .h5mu, which has a modality of guides")
    adata = read_counts(h5ad, backed=on_disk)
    with errors_naming(str(h5ad)):
        data = gene_screen_from_anndata(
            adata,
            str(moi),
            guides=guides,
            guide_names=guide_names,
            targets=targets,
            covariates=split_list(covariates) or (),
            layer=layer,
        )
    return GeneScreen(data)


def _prepared(
    quiet: bool,
    h5ad: Path,
    moi: Multiplicity,
    guides: str | None,
    guide_names: str | None,
    targets: str | None,
    covariates: str | None,
    layer: str | None,
    assignment: Path | None,
    method: Assignment | None,
    assigning: dict[str, Any],
    pairs: str | None,
    gene_positions: Path | None,
    positive_controls: Path | None,
    cells: dict[str, Any],
    min_treated: int,
    min_controls: int,
    on_disk: bool,
    out: Path,
    **parameters: Any,
) -> "GeneScreen":
    """Return a screen whose guides are assigned and whose cells are chosen."""
    from plait.crt.pairs import positive_control_pairs

    _refuse_assignment(moi, assignment, method)
    tables = read_tables(pairs, gene_positions, positive_controls, assignment)
    weights = parameters["weights"]
    named = [*(split_list(covariates) or ()), *([] if weights is None else [weights])]
    columns = ",".join(dict.fromkeys(named)) or None
    screen = _open(h5ad, moi, guides, guide_names, targets, columns, layer, on_disk)
    _say_data(screen, quiet)
    announce_compilation(quiet)
    known = (
        positive_control_pairs(screen.data)
        if positive_controls is None
        else known_pairs(screen.data, tables["positive_controls"], positive_controls)
    )
    if pairs is None and not len(known):
        raise InputError(
            f"{h5ad}: no target is called like a gene, so that there are no positive controls. "
            "Name them with --positive-controls FILE: a table with grna_target and response_id."
        )
    told: dict[str, Any] = {
        name: str(value) if isinstance(value, StrEnum) else value
        for name, value in parameters.items()
    }
    screen.set_parameters(
        discovery_pairs=pairs_of(screen.data, pairs, gene_positions, tables, known),
        positive_control_pairs=known if len(known) else None,
        **told,
    )
    _assign(screen, assignment, tables["assignment"], method, assigning, out)
    screen.quality_control(**cells, min_treated=min_treated, min_controls=min_controls)
    return screen


def _refuse_assignment(
    moi: Multiplicity, table: Path | None, method: Assignment | None
) -> Assignment:
    """Refuse ways of assigning guides that contradict one another, or do nothing; return which."""
    of_maximum = ("smallest_share", "smallest_count")
    refuse_idle(
        ("method", "threshold", "mixture", *of_maximum), table is not None, "with --assignment"
    )
    chosen = method
    if chosen is None:
        chosen = Assignment.MAXIMUM if moi is Multiplicity.LOW else Assignment.MIXTURE
    refuse_idle(("mixture",), chosen is not Assignment.MIXTURE, "without --assign mixture")
    refuse_idle(of_maximum, chosen is not Assignment.MAXIMUM, "without --assign maximum")
    if chosen is Assignment.MAXIMUM:
        refuse_idle(("threshold",), True, "with --assign maximum (the default with --moi low)")
        if moi is Multiplicity.HIGH:
            raise OptionError(
                "--assign maximum finds one guide in each cell, but with --moi high cells have "
                "many; give mixture or thresholding."
            )
    return chosen


def _assign(
    screen: "GeneScreen",
    path: Path | None,
    table: Any,
    method: Assignment | None,
    assigning: dict[str, Any],
    out: Path | None = None,
) -> None:
    """Assign guides; where a folder is given, a killed command does not do it again."""
    chosen = None if method is None else str(method)
    if table is not None:
        with errors_naming(str(path)):
            screen.use_assignment(table)
    elif out is not None:
        assign_guides(screen, out, chosen, assigning)
    else:
        screen.assign_guides(chosen, **assigning)


def _say_data(screen: "GeneScreen", quiet: bool) -> None:
    data = screen.data
    cells, genes = counted(data.n_cells, "cell"), counted(len(data.response_names), "gene")
    guides, targets = counted(len(data.targets.guides), "guide"), len(data.target_names)
    controls = f"({int(data.targets.is_control.sum()):,} non-targeting)"
    say(quiet, f"{cells}, {genes}, {guides} {controls} of {counted(targets, 'target')}")


def _say(part: Any, quiet: bool) -> None:
    for line in part.summary().splitlines():
        say(quiet, line)


def _finish(
    screen: "GeneScreen",
    result: "GeneTestResult",
    out: Path,
    quiet: bool,
    can: Sequence[str] = (),
) -> None:
    """Write the tables and pictures of an analysis, and say what was found, and can be (``can``).

    What a command that was killed left of them is replaced.
    """
    tables = screen.write_tables(out, overwrite=True)
    figures, lamps = write_figures(screen, result, out, overwrite=True)
    stores = [STORES[name] for name in STORES if (out / STORES[name]).exists()]
    written = [*stores, *tables, *([DETECTABLE] if can else []), *figures]
    for line in result.summary().splitlines():
        if not line.startswith("  note: "):  # said before the tests
            say(quiet, line)
    if result is not screen.calibration:
        say_calibration(screen.calibration, quiet)
    for line in can:
        say(quiet, line)
    say_verdicts(lamps, quiet)
    counts = {"pairs": len(result), "tested": int(result.pass_qc.sum())}
    write_record(out / RECORD, counts)
    finish(out)
    say(quiet, "written: " + " · ".join(f"{out}/{name}" for name in (*written, RECORD)))


def register(app: typer.Typer) -> None:
    """Add the commands to those of ``plait crt``."""
    for name, command in (
        ("assign", assign),
        ("qc", qc),
        ("calibrate", calibrate),
        ("power", power),
        ("discover", discover),
    ):
        documented(app, name, command, EXAMPLES[name], DOCS)
