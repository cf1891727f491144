"""``plait crt``: what each perturbation of a screen does to each gene program."""

import gc
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from plait.cli import options, screen_inputs
from plait.cli.console import announce_compilation, say, session, workers_of
from plait.cli.inputs import refuse_idle, split_list
from plait.cli.options import MODEL, OUTPUT, RUN, command_group, documented, option
from plait.cli.outputs import check_file, check_folder
from plait.cli.records import RECORD, write_record
from plait.cli.screen_inputs import BATCH, control_labels, read_inputs
from plait.data.words import counted, known_names
from plait.errors import InputError, LabelError, OptionError

if TYPE_CHECKING:
    from plait.crt import CRTInputs, CRTResult
    from plait.report.page import Page, Verdict

DOCS = "docs/crt.md"
EXAMPLE = "plait crt run --h5ad screen.h5ad --usage usage --covar covar --out screened"
STORE, CONTROLS, EFFECTS, TABLE, REPORT = (
    "result.zarr",
    "controls.zarr",
    "effects.zarr",
    "effects.parquet",
    "report.html",
)
FILES = (STORE, CONTROLS, EFFECTS, TABLE, REPORT, RECORD)
UNFINISHED = ".crt.json"
"""Tells a folder whose tests are done and whose tables and page are not."""


class Sampler(StrEnum):
    """How treatments are drawn anew."""

    BERNOULLI = "bernoulli"
    STRATIFIED = "stratified"


class Statistic(StrEnum):
    """What is measured."""

    OLS = "ols"
    UTEST = "utest"


class Method(StrEnum):
    """The p-value."""

    ANALYTIC = "analytic"
    EMPIRICAL = "empirical"
    SKEW_NORMAL = "skew-normal"
    ADAPTIVE = "adaptive"


class Side(StrEnum):
    """The alternative."""

    BOTH = "both"
    LEFT = "left"
    RIGHT = "right"


class Null(StrEnum):
    """What effects are compared with."""

    CRT = "crt"
    NTC_EMPIRICAL = "ntc-empirical"


OutFolder = Annotated[
    Path,
    option(
        "--out",
        metavar="FOLDER",
        panel=OUTPUT,
        help="Folder to write to. The same command goes on with a run that was killed.",
    ),
]
Level = Annotated[
    float,
    option("--level", panel=OUTPUT, help="False discovery rate of what is called significant."),
]


def run(
    h5ad: screen_inputs.H5ad,
    out: OutFolder,
    usage: screen_inputs.Usage = None,
    covar: screen_inputs.Covar = None,
    covariates: screen_inputs.Covariates = None,
    guides: screen_inputs.Guides = None,
    guide_names: screen_inputs.GuideNames = None,
    targets: screen_inputs.Targets = None,
    batch: screen_inputs.Batch = None,
    controls: screen_inputs.Controls = None,
    method: Annotated[
        Method,
        option(
            "--method",
            panel=MODEL,
            help="P-values: of infinitely many resamples, counted in some, by a skew-normal fitted "
            "to them, or counted in as many as it takes.",
        ),
    ] = Method.ANALYTIC,
    sampler: Annotated[
        Sampler,
        option(
            "--sampler",
            panel=MODEL,
            help="Treat each cell by its propensity, or permute among cells of like propensity "
            "and the same batch.",
        ),
    ] = Sampler.BERNOULLI,
    statistic: Annotated[
        Statistic,
        option(
            "--statistic",
            panel=MODEL,
            help="Effects given the covariates, or rank-biserial correlations given them.",
        ),
    ] = Statistic.OLS,
    side: Annotated[
        Side, option("--side", panel=MODEL, help="Effects of which sign are looked for.")
    ] = Side.BOTH,
    null: Annotated[
        Null,
        option(
            "--null",
            panel=MODEL,
            help="Compare with resampled treatments, or (within batches, if there are any) with "
            "pseudo-genes of as many negative-control guides as targets have.",
        ),
    ] = Null.CRT,
    resamples: Annotated[
        int,
        option("--resamples", min=1, panel=MODEL, help="For --method empirical and skew-normal."),
    ] = 1023,
    eps: screen_inputs.Eps = None,
    numeric_as_category: screen_inputs.NumericAsCategory = 20,
    exclude: Annotated[
        str | None,
        option("--exclude", metavar="LIST", panel=MODEL, help="Targets not to test, with commas."),
    ] = None,
    level: Level = 0.1,
    write_h5ad: Annotated[
        Path | None,
        option(
            "--write-h5ad",
            metavar="H5AD",
            panel=OUTPUT,
            help="A copy of the .h5ad with the results in uns.",
        ),
    ] = None,
    seed: options.Seed = 123,
    device: Annotated[
        options.Devices,
        option(
            "--device",
            panel=RUN,
            help="Where resamples are drawn: cuda is a GPU (through PyTorch), for --method "
            "empirical and skew-normal.",
        ),
    ] = options.Devices.CPU,
    overwrite: options.Overwrite = False,
    threads: options.Threads = None,
    memory: options.ScreenMemory = None,
    dask: options.Dask = None,
    log_json: options.LogJson = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Test what every perturbation does to every gene program, and write results and a page."""
    _check(out, h5ad, write_h5ad, level, overwrite)
    _refuse_idle(method, sampler, null)
    chosen: dict[str, Any] = {
        "method": str(method),
        "statistic": str(statistic),
        "sampler": str(sampler),
        "side": str(side),
        "resamples": resamples if method in (Method.EMPIRICAL, Method.SKEW_NORMAL) else None,
        "strata": None,
        # Ranks of log-ratios as they are hide effects against the confounding: docs/crt.md.
        "ranks": {"use": "residual"} if statistic is Statistic.UTEST else None,
        "seed": seed,
        "device": str(device),
    }
    with session(threads, quiet, debug, log_json), workers_of(dask, memory, threads) as workers:
        inputs = read_inputs(
            h5ad, usage, covar, covariates, guides, guide_names, targets, batch, eps,
            numeric_as_category,
        )  # fmt: skip
        # Commands look for garbage rarely, and the file's usages and guides are in cycles.
        gc.collect()
        _say_inputs(inputs, quiet)
        announce_compilation(quiet)
        chosen["strata"] = _strata(inputs, sampler, batch or BATCH, quiet)
        labels = control_labels(controls)
        if controls is not None:
            _require_targets(inputs, labels, "--controls")
        _require_targets(inputs, split_list(exclude) or [], "--exclude")
        pseudo_genes = _pseudo_genes(inputs, labels) if null is Null.NTC_EMPIRICAL else None
        told = {"controls": labels, "exclude": split_list(exclude) or [], "null": str(null)}
        result = _tested(out, inputs, chosen, told, workers)
        if pseudo_genes is not None:
            result = _against_controls(result, inputs, pseudo_genes, seed)
            result.save(out / STORE, overwrite=True)
        gc.collect()  # of the tables that the tests made: those of controls are made anew
        judged = _controls(inputs, chosen, labels, threads) if null is Null.CRT else None
        written, page = _write(out, result, judged, level)
        if page is None:
            say(quiet, _nothing_to_show(result))
        if write_h5ad is not None:
            _write_back(result, h5ad, write_h5ad, overwrite)
        for line in result.summary(level).splitlines():
            say(quiet, line)
        say_verdicts(() if page is None else page.verdicts, quiet)
    counts = {"cells": inputs.n_cells, "guides": len(inputs.guide_names)}
    counts |= {"perturbations": len(result.units), "programs": inputs.n_programs}
    write_record(out / RECORD, counts, dropped_covariates=list(inputs.dropped_covariates))
    (out / UNFINISHED).unlink()
    say(quiet, "written: " + " · ".join(f"{out}/{name}" for name in (*written, RECORD)))


def _say_inputs(inputs: "CRTInputs", quiet: bool) -> None:
    guides, targets = len(inputs.guide_names), len(inputs.units)
    say(
        quiet,
        f"{counted(inputs.n_cells, 'cell')}, {counted(guides, 'guide')} of "
        f"{counted(targets, 'target')}, {counted(inputs.n_programs, 'program')}, "
        f"{counted(inputs.C.shape[1], 'column')} of covariates",
    )


def say_verdicts(verdicts: "Sequence[Verdict]", quiet: bool) -> None:
    """Say which checks are in order, and of the others what is wrong."""
    if good := [lamp.title.lower() for lamp in verdicts if lamp.state == "good"]:
        say(quiet, f"in order: {', '.join(good)}")
    for lamp in verdicts:
        if lamp.state != "good":
            say(quiet, f"attention: {lamp.title.lower()}. {lamp.reason}")


def _check(out: Path, h5ad: Path, write_h5ad: Path | None, level: float, overwrite: bool) -> None:
    """Refuse outputs that cannot be written, and a level that is none, before the work starts."""
    check_folder(out, FILES, overwrite, UNFINISHED)
    if write_h5ad is not None:
        check_file(write_h5ad, (".h5ad",), overwrite)
        refuse_idle(("write_h5ad",), h5ad.suffix != ".h5ad", f"with {h5ad}, which is no .h5ad")
    require_level(level)


def _refuse_idle(method: Method, sampler: Sampler, null: Null) -> None:
    is_counted = method in (Method.EMPIRICAL, Method.SKEW_NORMAL)
    has_batches = sampler is Sampler.STRATIFIED or null is Null.NTC_EMPIRICAL
    refuse_idle(("resamples",), not is_counted, "without --method empirical or skew-normal")
    refuse_idle(("batch",), not has_batches, "without --sampler stratified or --null ntc-empirical")
    refuse_idle(
        ("method", "side", "statistic", "resamples"),
        null is Null.NTC_EMPIRICAL,
        "with --null ntc-empirical",
    )


def _tested(
    out: Path,
    inputs: "CRTInputs",
    chosen: dict[str, Any],
    told: dict[str, Any],
    workers: dict[str, Any],
) -> "CRTResult":
    """Test into the store of a folder, or open the store where the same was done already."""
    from plait.crt import CRTResult, perturbation_effects
    from plait.crt.model import digests_of, options_of
    from plait.studies.stages import Stages

    out.mkdir(exist_ok=True)

    def work() -> None:
        perturbation_effects(
            inputs, exclude=told["exclude"], negative_controls=told["controls"], **chosen,
            out=out / STORE, overwrite=True, **workers,
        )  # fmt: skip

    stages = Stages(out, digests_of(inputs, options_of(**chosen)), lambda *_: None, UNFINISHED)
    stages.run("test", "", work, (STORE,), {**chosen, **told})
    return CRTResult.load(out / STORE)


def require_level(level: float) -> None:
    """Refuse a level that is no rate before hours of work."""
    if not 0.0 < level < 1.0:
        raise OptionError(f"--level is {level:g}; give a number between 0 and 1.")


def _strata(
    inputs: "CRTInputs", sampler: Sampler, batch: str, quiet: bool
) -> dict[str, Any] | None:
    """Return how cells are stratified; without batches if nobody named any."""
    if sampler is not Sampler.STRATIFIED:
        return None
    if inputs.batch_raw is not None:
        return {"batch_key": batch}
    say(
        quiet,
        f"note: there is no covariate or column of obs {batch!r}, so that treatments are permuted "
        "across batches. If there are batches, name them with --batch.",
    )
    return {"stratify_by_batch": False}


def _require_targets(inputs: "CRTInputs", labels: Sequence[str], flag: str) -> None:
    """Refuse targets that no guide has: a typing error would go unnoticed."""
    if unknown := [label for label in labels if label not in inputs.gene_to_cols]:
        raise LabelError(
            f"no guide targets {unknown[0]!r}, which {flag} names; "
            f"{known_names(unknown[0], inputs.units, 5)}."
        )


def _pseudo_genes(inputs: "CRTInputs", labels: tuple[str, ...]) -> dict[str, Any]:
    """Return how pseudo-genes are made of negative-control guides, before anything is tested."""
    import numpy as np

    sizes = [len(columns) for name, columns in inputs.gene_to_cols.items() if name not in labels]
    size = round(float(np.median(sizes or [1])))
    n_controls = sum(len(inputs.gene_to_cols.get(label, ())) for label in labels)
    if n_controls < size:
        raise InputError(
            f"the negative controls {', '.join(labels)} have {counted(n_controls, 'guide')}, and "
            f"pseudo-genes need {size}, as many as targets have. Name more targets that are "
            "controls with --controls, or leave --null out."
        )
    return {
        "ntc_labels": labels,
        "guides_per_unit": size,
        "batch_mode": "pooled" if inputs.batch_raw is None else "meta",
        "statistic": "z",  # controls are seldom as rare and as frequent as targets
        "matching": {"with_controls": False},
    }


def _against_controls(
    result: "CRTResult", inputs: "CRTInputs", options: dict[str, Any], seed: int
) -> "CRTResult":
    """Return the result with p-values among pseudo-genes of negative-control guides."""
    import numpy as np

    from plait.crt import ntc_empirical_tests
    from plait.crt.model import Rates

    found = ntc_empirical_tests(inputs, result.units, options, base_seed=seed)
    status = np.where(result.status == "ok", found.status, result.status)
    is_tested = status == "ok"
    p = np.where(is_tested[:, None], found.p, 1.0)
    rates = Rates("BH", "all", result.negative_controls)
    about = {
        "method": "ntc-empirical",
        "control_guides": found.n_control_guides,
        "guides_per_unit": found.guides_per_unit,
        "smallest_p": float(found.smallest_p[is_tested].min(initial=1.0)),
    }
    return replace(
        result,
        p=p,
        log10p=np.log10(p),
        q=rates.of(p, status, result.units),
        p_method=np.repeat(np.where(is_tested, "controls", "none")[:, None], p.shape[1], axis=1),
        status=status,
        n_resamples=None,
        p_flag=None,
        settings={**result.settings, **about},
    )


def _controls(
    inputs: "CRTInputs", chosen: dict[str, Any], labels: tuple[str, ...], threads: int | None
) -> "CRTResult | None":
    """Test groups of negative-control guides, where the screen has some and other targets."""
    from plait.crt import control_group_effects

    are_controls = {name in labels for name in inputs.gene_to_cols}
    if len(are_controls) < 2:
        return None
    return control_group_effects(inputs, negative_controls=labels, threads=threads, **chosen)


def _write(
    out: Path, result: "CRTResult", judged: "CRTResult | None", level: float
) -> "tuple[list[str], Page | None]":
    """Write tables and, if there is something to show, the page; return their names, and it."""
    import numpy as np

    from plait.io import replace_file, write_effects
    from plait.report.screen import write_screen_report

    written = [STORE, TABLE]
    with replace_file(out / TABLE, overwrite=True) as temporary:
        result.to_frame().write_parquet(temporary, compression="zstd")
    if judged is not None:
        judged.save(out / CONTROLS, overwrite=True)
        written.append(CONTROLS)
    if result.null_sd is not None and ((result.status == "ok") & ~result.is_control).any():
        write_effects(result.to_effects(), out / EFFECTS, overwrite=True)
        written.append(EFFECTS)
    if not np.isfinite(np.asarray(result.q)).any():
        return written, None
    page = write_screen_report(
        result, out / REPORT, title=f"What perturbations do: {out.name}", level=level,
        controls=judged, overwrite=True,
    )  # fmt: skip
    return [*written, REPORT], page


def _nothing_to_show(result: "CRTResult") -> str:
    why = "every target is a negative control" if result.is_control.all() else "nothing was tested"
    return f"There is no page: {why}."


def _write_back(result: "CRTResult", source: Path, target: Path, overwrite: bool) -> None:
    from types import SimpleNamespace

    from plait.crt import store_in_adata
    from plait.io.anndata import write_with_uns

    held = SimpleNamespace(uns={})
    store_in_adata(result, held)
    write_with_uns(source, target, held.uns, overwrite)


app = command_group(
    "Perturbation screens: what each perturbation does to gene programs, and to genes.", DOCS
)
documented(app, "run", run, EXAMPLE, DOCS)
