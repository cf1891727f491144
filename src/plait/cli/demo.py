"""``plait demo``: mash from tables to pictures, on data of which the truth is known."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plait.cli.console import announce_compilation, say, session
from plait.cli.mash_show import check_folder, significant_frame, use_no_window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from plait.mash.data import MashData
    from plait.mash.results import MashResult
    from plait.simulate.tissues import TissueStudy

LEVEL = 0.05

FILES = (
    "bhat.csv", "shat.csv", "truth.csv", "vhat.csv", "screen.npz", "screen.json", "ulist.npz",
    "results.npz", "results.json", "significant.csv",
)  # fmt: skip
FIGURES = (
    "overview.png", "sharing.png", "weights.png", "patterns.png", "forest.png", "shrinkage.png"
)  # fmt: skip
PAGE = "report.html"


def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder to write to.")] = Path("demo"),
    effects: Annotated[int, typer.Option(min=500, help="Number of simulated effects.")] = 20_000,
    seed: Annotated[int, typer.Option(help="Seed of the simulation.")] = 1,
    threads: Annotated[int | None, typer.Option(help="Threads.", show_default="all cores")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Simulate a study of six tissues, run mash on it, and compare what it finds with the truth."""
    check_folder(out, FILES + FIGURES + (PAGE,), overwrite)
    with session(threads, True, debug):
        from plait import __version__
        from plait.simulate.tissues import tissue_study

        study = tissue_study(effects, seed)
        nulls = int((study.kind == "none").sum())
        say(
            quiet,
            f"plait {__version__} · simulated {effects:,} effects in {len(study.tissues)} tissues: "
            f"{nulls:,} null, the others shared by all tissues, by the brain, or in blood alone",
        )
        announce_compilation(quiet)
        out.mkdir(exist_ok=True)
        write_study(study, out)
        data, screen, result = analyse(study, out, quiet)
        drawn = draw(study, data, screen, result, out, quiet)
        page = write_page(result, out)
        for line in findings(study, screen, result):
            say(quiet, line)
    say(quiet, f"Results  {out}/results.npz · {out}/results.json · {out}/significant.csv")
    if drawn:
        say(quiet, f"Figures  {out}/overview.png · " + " · ".join(FIGURES[1:]))
    if page:
        say(quiet, f"Page     {out}/{PAGE}: open it in a browser")
    say(
        quiet,
        f"By hand  plait mash fit --bhat {out}/bhat.csv --shat {out}/shat.csv --alpha 1 --v "
        f"{out}/vhat.csv --ulist {out}/ulist.npz --cov-methods all --out my_result",
    )


def write_study(study: "TissueStudy", out: Path) -> None:
    """Write the tables that a user would have, and the truth that a user would not."""
    import polars as pl

    from plait.cli.outputs import write_table

    for name, values in (("bhat", study.bhat), ("shat", study.shat), ("truth", study.truth)):
        columns = dict(zip(study.tissues, values.T, strict=True))
        frame = pl.DataFrame({"effect": study.effects.tolist(), **columns})
        write_table(out / f"{name}.csv", frame, overwrite=True)


def analyse(
    study: "TissueStudy", out: Path, quiet: bool
) -> "tuple[MashData, MashResult, MashResult]":
    """Run the recipe of docs/mash.md; return the data, the one-by-one screen and the result."""
    import numpy as np

    from plait import mash
    from plait.cli.outputs import write_covariances, write_matrix, write_result, write_table
    from plait.mash.extreme_deconvolution import cov_ed

    size = f"{len(study.bhat):,} x {len(study.tissues)}"
    data = mash.mash_set_data(
        study.bhat, study.shat, alpha=1,
        condition_names=study.tissues, effect_names=study.effects.tolist(),
    )  # fmt: skip
    with _step(quiet, "screen", f"each tissue by itself, {size}") as outcome:
        screen = mash.mash_1by1(data)
        strong = mash.get_significant_results(screen, thresh=LEVEL)
        outcome.append(f"{len(strong):,} strong effects")
    with _step(quiet, "errors", "their correlation, from effects without signal"):
        V = mash.estimate_null_correlation_simple(data, method="truncated_ml")
        data = mash.mash_update_data(data, V=V)
    with _step(quiet, "learn", "covariances: 3 principal components, refined") as outcome:
        # Rank-1 starts stay of rank 1 and make lfsr too small (docs/mash.md): lift them.
        starts = {
            name: U + 0.1 * np.trace(U) / len(U) * np.eye(len(U))
            for name, U in mash.cov_pca(data, 3, strong).items()
        }
        learned = cov_ed(data, starts, strong, details=True)
        outcome.append(f"{learned['niter']} iterations")
    patterns = {**mash.cov_canonical(data), **learned["Ulist"]}
    what = f"{len(patterns)} patterns of sharing, {size}"
    with _step(quiet, "mash", what) as outcome:
        result = mash.mash(data, patterns)
        state = "converged" if result.converged else "NOT CONVERGED"
        outcome.append(f"{state} (gap {result.optim['dual_gap']:.0e})")
    write_result(screen, str(out / "screen"), True, "onebyone", {})
    write_matrix(out / "vhat.csv", V, study.tissues, True)
    write_covariances(out / "ulist.npz", learned["Ulist"], True)
    write_result(result, str(out / "results"), True, "fit", {"train_size": len(study.bhat)})
    write_table(out / "significant.csv", significant_frame(result, LEVEL), True)
    return data, screen, result


@contextmanager
def _step(quiet: bool, name: str, what: str) -> Iterator[list[str]]:
    started = time.perf_counter()
    outcome: list[str] = []
    yield outcome
    seconds = time.perf_counter() - started
    say(quiet, f"{name:<8} {what:<46} {seconds:5.1f} s   {' '.join(outcome)}".rstrip())


def calls(study: "TissueStudy", result: "MashResult") -> tuple[int, int, float]:
    """Count what a result calls at `LEVEL`.

    Returns
    -------
    found : int
        True effects (of one variant in one tissue) called with the right sign.
    total : int
        True effects.
    wrong : float
        Of all calls, the fraction with the wrong sign or without any effect.
    """
    import numpy as np

    called = np.asarray(result.lfsr) < LEVEL
    right = called & (np.sign(np.asarray(result.posterior_mean)) == np.sign(study.truth))
    right &= study.truth != 0
    wrong = 1.0 - right.sum() / max(int(called.sum()), 1)
    return int(right.sum()), int((study.truth != 0).sum()), float(wrong)


def findings(study: "TissueStudy", screen: "MashResult", result: "MashResult") -> list[str]:
    """Say what was found, next to the truth."""
    from plait.mash import get_pairwise_sharing

    lines = ["", "What was found (truth is known here)"]
    for name, fit in (("each tissue by itself", screen), ("mash", result)):
        found, total, wrong = calls(study, fit)
        lines.append(
            f"  {name:<22} lfsr < {LEVEL:g}  {found:>6,} of {total:,} true effects   "
            f"realised false-sign rate {wrong:.3f}"
        )
    matrix = get_pairwise_sharing(result)
    brain = (matrix[0, 1] + matrix[0, 2] + matrix[1, 2]) / 3
    others = matrix[:3, 3:].mean()
    lines.append(
        f"  sharing: brain tissues share {brain:.2f} of their effects with one another (same sign, "
        f"within a factor 2), {others:.2f} with other tissues"
    )
    return [*lines, ""]


def draw(
    study: "TissueStudy",
    data: "MashData",
    screen: "MashResult",
    result: "MashResult",
    out: Path,
    quiet: bool,
) -> bool:
    """Draw the figures; without matplotlib say what to install and return False."""
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        say(quiet, "no figures: matplotlib is not installed (pip install 'plait[plot]')")
        return False
    from plait import plot
    from plait.mash import plots

    use_no_window()
    row = rescued(study, screen, result)
    drawn = {
        "overview.png": overview(study, data, screen, result, row),
        "sharing.png": plots.plot_sharing(result, caption=True),
        "weights.png": plots.plot_weights(result, caption=True),
        "patterns.png": plots.plot_patterns(result, caption=True)[0],
        "forest.png": plots.mash_plot_meta(result, row, data=data, caption=True),
        "shrinkage.png": plots.plot_shrinkage(result, data, caption=True),
    }
    for name, figure in drawn.items():
        plot.save_figure(figure, out / name, overwrite=True)
    return True


def write_page(result: "MashResult", out: Path) -> bool:
    """Write the page of `plait report`; without its libraries return False."""
    from importlib.util import find_spec

    if find_spec("plotly") is None or find_spec("jinja2") is None:
        return False
    from plait.report import write_mash_report

    title = "Effects in six simulated tissues"
    write_mash_report(result, out / PAGE, title=title, overwrite=True)
    return True


def rescued(study: "TissueStudy", screen: "MashResult", result: "MashResult") -> int:
    """Return the effect for which looking at all tissues together helps most."""
    import numpy as np

    missed: NDArray[np.bool_] = np.asarray(screen.lfsr) >= LEVEL
    called = np.asarray(result.lfsr) < LEVEL
    right = np.sign(np.asarray(result.posterior_mean)) == np.sign(study.truth)
    gained = (missed & called & right & (study.truth != 0)).sum(axis=1)
    gained[(called & (study.truth == 0)).any(axis=1)] = 0
    candidates = np.flatnonzero((gained == gained.max()) & (study.kind == "brain"))
    if len(candidates) == 0:
        return int(np.argmax(gained))
    strength = np.abs(np.asarray(result.posterior_mean)[candidates]).max(axis=1)
    return int(candidates[int(np.argmax(strength))])


def overview(
    study: "TissueStudy", data: "MashData", screen: "MashResult", result: "MashResult", row: int
) -> Any:
    """Draw the three pictures that tell the story: what is found, one effect, and sharing."""
    from plait.mash import plots
    from plait.plot.style import BLUE, GREY, styled

    counts = [calls(study, fit) for fit in (screen, result)]
    with styled() as plt:
        figure, (left, middle, right) = plt.subplots(
            1, 3, figsize=(12.0, 3.7), layout="constrained", width_ratios=(0.75, 1.1, 1.2)
        )
        left.bar([0, 1], [found for found, _, _ in counts], width=0.62, color=[GREY, BLUE])
        for place, (found, _, wrong) in enumerate(counts):
            left.annotate(
                f"{found:,}", (place, found), (0, 3), textcoords="offset points", ha="center"
            )
            left.annotate(
                f"{wrong:.1%} wrong", (place, 0), (0, 5), textcoords="offset points",
                ha="center", color="white", fontsize=8,
            )  # fmt: skip
        left.set_xticks([0, 1], ["each tissue\nby itself", "mash"])
        left.set_ylabel(f"true effects found (of {counts[0][1]:,})")
        left.set_title("Found at lfsr < 0.05")
    plots.mash_plot_meta(result, row, ax=middle, data=data, ylab="")
    plots.plot_sharing(result, ax=right)
    return figure
