"""Analyses of gene-level screens into stores of a folder, so that a killed command goes on."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.cli.console import say
from plait.cli.gene_screen_options import (
    DETECTABLE,
    Mixture,
    Multiplicity,
    Resampling,
    Strategy,
)
from plait.cli.inputs import refuse_idle, split_numbers
from plait.data.words import counted
from plait.errors import FileFormatError, OptionError

if TYPE_CHECKING:
    from plait.crt.gene_results import GeneTestResult
    from plait.crt.gene_screen import GeneScreen

UNFINISHED = ".crt-genes.json"
KEPT_GUIDES = ".crt-guides.npz"
"""Mixtures of guides, kept until the command is finished."""
STORES = {name: f"{name}.zarr" for name in ("calibration", "power", "discovery")}


def run_analysis(
    screen: "GeneScreen",
    name: str,
    out: Path,
    *,
    threads: int | None,
    keep_draws: bool = False,
    **options: Any,
) -> "GeneTestResult":
    """Run an analysis into its store in a folder, or open it if it was finished there.

    Parameters
    ----------
    screen : GeneScreen
        With parameters, assignment and cells.
    name : {"calibration", "power", "discovery"}
    out : Path
        The folder; `UNFINISHED` in it says what is finished, and is removed by `finish`.
    threads : int, optional
    keep_draws : bool
    **options
        Of the calibration check.
    """
    from plait.crt.stored_pairs import open_result
    from plait.studies.stages import Stages

    run = {
        "calibration": screen.run_calibration_check,
        "power": screen.run_power_check,
        "discovery": screen.run_discovery,
    }[name]
    store = out / STORES[name]
    out.mkdir(exist_ok=True)

    def work() -> None:
        run(threads=threads, out=store, overwrite=True, keep_draws=keep_draws, **options)

    stages = Stages(out, _inputs(screen), lambda *_: None, UNFINISHED)
    assert screen.parameters is not None
    assert screen.pair_quality is not None
    asked = {
        **screen.parameters.described(),
        **asdict(screen.pair_quality),
        **options,
        "keep_draws": keep_draws,
    }
    stages.run(name, "", work, (STORES[name],), asked)
    if getattr(screen, name) is None:
        screen.use_result(open_result(store))
    found: GeneTestResult = getattr(screen, name)
    return found


def has_controls(screen: "GeneScreen", quiet: bool) -> bool:
    """Return whether there are negative controls to test; say where there are too few of them."""
    from plait.crt.calibration_pairs import controls_needed

    assert screen.parameters is not None
    found = int(screen.data.targets.is_control.sum())
    needed = controls_needed(screen.parameters.control_group)
    if 0 < found < needed:
        say(
            quiet,
            f"note: no calibration check, which needs {needed} non-targeting guides where others "
            f"are compared with them; there is {found}. With --control-group complement it needs "
            "one.",
        )
    return found >= needed


def say_calibration(checked: "GeneTestResult | None", quiet: bool) -> None:
    """Say what share of negative controls has small p-values."""
    if checked is not None and checked.pass_qc.any():
        p = checked.p_value[checked.pass_qc]
        share = float((p < 0.05).mean())
        pairs = counted(len(p), "pair")
        say(quiet, f"negative controls: {share:.1%} of {pairs} have p < 0.05 (5% expected)")


def finish(out: Path) -> None:
    """Say that nothing is left to do."""
    (out / KEPT_GUIDES).unlink(missing_ok=True)
    (out / UNFINISHED).unlink()


def assign_guides(
    screen: "GeneScreen", out: Path, method: str | None, options: dict[str, Any]
) -> None:
    """Assign guides, or take what a command that was killed has assigned.

    Only mixtures are kept, which take a second of a core for each 700,000 pairs of a cell and a
    guide; other ways of assigning guides, and the choice of cells, are done in no time.
    """
    import numpy as np

    from plait.crt.assignment import GuideAssignment, default_method
    from plait.io import replace_file
    from plait.studies.stages import Stages

    if (method or default_method(screen.data)) != "mixture":
        screen.assign_guides(method, **options)
        return
    out.mkdir(exist_ok=True)

    def work() -> None:
        screen.assign_guides(method, **options)
        assert screen.assignment is not None
        arrays: dict[str, Any] = screen.assignment.to_arrays()
        with replace_file(out / KEPT_GUIDES, overwrite=True) as temporary:
            np.savez(temporary, **arrays)

    stages = Stages(out, _inputs_of_guides(screen), lambda *_: None, UNFINISHED)
    stages.run("guides", "", work, (KEPT_GUIDES,), {"method": method, **options})
    if screen.assignment is None:
        with np.load(out / KEPT_GUIDES, allow_pickle=False) as kept:
            screen.use_assignment(GuideAssignment.of_arrays(kept, screen.data))


def _inputs_of_guides(screen: "GeneScreen") -> dict[str, str]:
    """Return fingerprints of what mixtures of guides depend on."""
    from plait.crt.gene_design import default_formula, design_columns
    from plait.provenance import fingerprint

    data = screen.data
    arrays = {
        "counts": data.guides.data,
        "cells": data.guides.indices,
        "guides": data.guides.indptr,
        "names": data.targets.guides,
        "covariates": design_columns(data, default_formula(data, with_guides=True))[1],
    }
    return {name: fingerprint(values) for name, values in arrays.items()}


def _inputs(screen: "GeneScreen") -> dict[str, str]:
    """Return fingerprints of what all analyses of a screen depend on."""
    import numpy as np

    from plait.crt.gene_counts import fingerprint_of_counts
    from plait.crt.gene_design import design_columns
    from plait.provenance import fingerprint

    assert screen.parameters is not None
    assert screen.assignment is not None
    assert screen.cells is not None
    assigned, parameters = screen.assignment.cells, screen.parameters
    arrays = {
        "cells": screen.cells.is_used,
        "assignment": np.concatenate([assigned.indptr, assigned.indices]),
        "covariates": design_columns(
            screen.data, parameters.formula, screen.assignment.guides_per_cell
        )[1],
        "genes": screen.data.response_names,
        "targets": np.stack([screen.data.targets.guides, screen.data.targets.targets]),
    }
    if parameters.weights is not None:
        arrays["weights"] = screen.data.covariates[parameters.weights]
    for name in ("discovery_pairs", "positive_control_pairs"):
        if (pairs := getattr(parameters, name)) is not None:
            arrays[name] = np.stack([pairs.targets, pairs.responses])
    found = {name: fingerprint(values) for name, values in arrays.items()}
    return found | {"counts": fingerprint_of_counts(screen.data.responses)}


def refuse_draws(keep_draws: bool, resampling: Resampling) -> None:
    """Refuse to keep draws where there are none."""
    if keep_draws:
        is_analytic = resampling is Resampling.ANALYTIC
        refuse_idle(("keep_draws",), is_analytic, "without --resampling sceptre_staged")


def refuse_power(power: float | None, strategy: Strategy, weights: str | None) -> None:
    """Refuse a power before anything is computed."""
    if power is None:
        return
    if not 0.0 < power < 1.0:
        raise OptionError(f"--detectable is {power:g}; give a number between 0 and 1.")
    if weights is not None:
        raise OptionError("--detectable is not known with --weights; leave one of them out.")
    if strategy is Strategy.BONFERRONI:
        raise OptionError(
            "--detectable is of what is tested, which with --strategy bonferroni is each guide; "
            "give --strategy singleton or union."
        )


def write_detectable(
    screen: "GeneScreen", out: Path, power: float, threads: int | None
) -> list[str]:
    """Write which fold changes a discovery can find; return it in words."""
    from plait.cli.outputs import write_table

    found = screen.detectable_effects(power, threads=threads)
    write_table(out / DETECTABLE, found.to_frame(), overwrite=True)
    return found.summary().splitlines()


def guide_options(
    threshold: int, mixture: Mixture, smallest_share: float, smallest_count: int
) -> dict[str, Any]:
    """Return the options of `plait.crt.assignment.assign_guides`."""
    return {
        "threshold": threshold,
        "mixture": str(mixture),
        "smallest_share": smallest_share,
        "smallest_count": smallest_count,
    }


def cell_options(
    moi: Multiplicity,
    max_mito: float,
    umis_quantiles: str,
    nonzero_quantiles: str,
    remove: Path | None,
    keep_with_non_targeting: bool,
) -> dict[str, Any]:
    """Return the options of `plait.crt.cell_quality.cell_quality`, with the names of a file."""
    is_high = moi is Multiplicity.HIGH
    refuse_idle(("keep_with_non_targeting",), is_high, "with --moi high, where all are kept")
    quantiles = {}
    for name, text in (("umis", umis_quantiles), ("nonzero", nonzero_quantiles)):
        numbers = split_numbers(text, f"--{name}-quantiles")
        if numbers is None or len(numbers) != 2:
            raise OptionError(f"--{name}-quantiles is {text!r}; give two numbers, as 0.01,0.99.")
        quantiles[f"{name}_quantiles"] = (float(numbers[0]), float(numbers[1]))
    return {
        "max_mito": max_mito,
        **quantiles,
        "remove": [] if remove is None else _names_of_cells(remove),
        "keep_with_non_targeting": keep_with_non_targeting,
    }


def _names_of_cells(path: Path) -> list[str]:
    """Return the names in the first column of a file, quoted or not, but for the header "cell"."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path} cannot be read as text: {error}.") from None
    names = [line.replace(",", "\t").split("\t")[0].strip().strip('"') for line in lines]
    return [name for i, name in enumerate(names) if name and (i or name != "cell")]
