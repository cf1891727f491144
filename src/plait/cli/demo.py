"""``plait demo``: the whole road on simulated data with known truth."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plait.cli import options
from plait.cli.console import announce_compilation, out, say, session
from plait.cli.options import OUTPUT

if TYPE_CHECKING:
    from plait.mash.results import MashResult

_CONTEXTS = ("liver", "lung", "skin", "brain", "heart", "blood")


def demo(
    out_: Annotated[
        Path, typer.Option("--out", help="Folder for data, results and figures.",
                           rich_help_panel=OUTPUT)
    ] = Path("demo"),
    effects: Annotated[
        int, typer.Option(help="Number of simulated effects.", rich_help_panel=options.MODEL)
    ] = 20_000,
    seed: options.Seed = 1,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
    overwrite: options.Overwrite = False,
) -> None:  # fmt: skip
    """Run mash on simulated data with known truth, and say what was recovered.

    Example: plait demo --out demo

    More: README.md
    """
    import time

    import numpy as np

    from plait import __version__
    from plait import mash as pm
    from plait.cli.outputs import check_target, write_result
    from plait.cli.results import save_figure

    out_.mkdir(parents=True, exist_ok=True)
    target = str(out_ / "results")
    check_target(target, overwrite)
    say(quiet, f"plait {__version__} · simulating {effects:,} effects in {len(_CONTEXTS)} tissues")
    study = _simulate(effects, seed)
    _write_tables(out_, study, overwrite)
    with session(threads, quiet):
        announce_compilation(quiet)
        step = _Steps(quiet, time.perf_counter)
        data = pm.mash_set_data(study["Bhat"], study["Shat"], condition_names=_CONTEXTS)
        screen = pm.mash_1by1(data)
        strong = pm.get_significant_results(screen)
        step(f"screen      {len(strong):,} strong effects, one tissue at a time")
        V = pm.estimate_null_correlation_simple(data, method="truncated_ml")
        data = pm.mash_update_data(data, V=V)
        step(f"errors      correlation {V[0, 1]:.2f} between {_CONTEXTS[0]} and {_CONTEXTS[1]}")
        covariances = pm.cov_canonical(data)
        # Rank-1 starts stay (nearly) rank 1 and make lfsr too small: start from full rank.
        starts = {
            name: U + 0.1 * np.trace(U) / len(U) * np.eye(len(U))
            for name, U in pm.cov_pca(data, 3, strong).items()
        }
        learned = pm.cov_ed(data, starts, subset=strong)
        step(f"covariances {len(covariances)} canonical + {len(learned)} learned")
        result = pm.mash(data, {**covariances, **learned})
        step(f"mash        converged (gap {result.optim['dual_gap']:.0e})")
        written = write_result(result, target, overwrite, "demo", {"seed": seed})
        save_figure(out_ / "sharing.png", pm.plot_sharing(result), overwrite)
        save_figure(out_ / "weights.png", pm.plot_weights(result), overwrite)
        save_figure(out_ / "shrinkage.png", pm.plot_shrinkage(result, data), overwrite)
        top = int(pm.get_significant_results(result)[0])
        save_figure(out_ / "strongest.png", pm.mash_plot_meta(result, top), overwrite)
    if not quiet:
        out.print(_report(study["B"], screen, result), markup=False)
        out.print(f"Results  {' · '.join(written)}", markup=False)
        out.print(f"Figures  {out_}/sharing.png · weights.png · shrinkage.png · strongest.png")


class _Steps:
    """Prints what each step did and how long it took."""

    def __init__(self, quiet: bool, clock: Any) -> None:
        self._quiet, self._clock = quiet, clock
        self._last = clock()

    def __call__(self, text: str) -> None:
        now = self._clock()
        say(self._quiet, f"  {text:<58} {now - self._last:5.1f} s")
        self._last = now


def _simulate(effects: int, seed: int) -> dict[str, Any]:
    """Most effects are null; the others are shared by five tissues, in one group, or in blood."""
    import numpy as np

    from plait.simulate import simulate_effects

    size = len(_CONTEXTS)
    shared = np.zeros((size, size))
    shared[:5, :5] = 0.9
    np.fill_diagonal(shared, np.append(np.ones(5), 0.0))
    group = np.zeros(size)
    group[3:5] = [1.0, 0.6]
    blood = np.zeros((size, size))
    blood[-1, -1] = 1.0
    errors = np.full((size, size), 0.3)
    np.fill_diagonal(errors, 1.0)
    return simulate_effects(
        effects,
        {"five tissues": 6 * shared, "brain and heart": 9 * np.outer(group, group),
         "blood": 9 * blood},
        {"five tissues": 0.06, "brain and heart": 0.02, "blood": 0.02},
        error_correlation=errors,
        seed=seed,
    )  # fmt: skip


def _write_tables(folder: Path, study: dict[str, Any], overwrite: bool) -> None:
    import csv

    from plait.io import replace_file

    for name, key in (("bhat", "Bhat"), ("shat", "Shat"), ("truth", "B")):
        with (
            replace_file(folder / f"{name}.csv", overwrite) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as stream,
        ):
            writer = csv.writer(stream)
            writer.writerow(["effect", *_CONTEXTS])
            for j, row in enumerate(study[key].tolist()):
                writer.writerow([f"effect{j + 1}", *(f"{value:.6g}" for value in row)])


def _report(truth: Any, screen: "MashResult", result: "MashResult") -> str:
    """Compare the calls of both analyses with the truth."""
    from plait.mash import get_lfsr, get_pairwise_sharing

    real = int((truth != 0).sum())
    lines = ["", "What was found (truth is known here)"]
    for name, fit in (("one tissue at a time", screen), ("mash", result)):
        called = get_lfsr(fit) < 0.05
        right = (truth * fit.posterior_mean > 0) & called
        wrong = (called.sum() - right.sum()) / max(int(called.sum()), 1)
        lines.append(
            f"  {name + ', lfsr < 0.05':<34} {int(right.sum()):>6,} of {real:,} effects    "
            f"realised false-sign rate {wrong:.3f}"
        )
    sharing = get_pairwise_sharing(result)
    inside = sharing[:5, :5][~_diagonal(5)].mean()
    lines.append(
        f"  sharing: {', '.join(_CONTEXTS[:5])} share {inside:.2f} of their effects (same sign, "
        f"within a factor of 2), with blood {sharing[:5, 5].mean():.2f}"
    )
    return "\n".join(lines)


def _diagonal(size: int) -> Any:
    import numpy as np

    return np.eye(size, dtype=bool)
