"""``plait demo``: from genotypes to shared effects and pictures, where the truth is known."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plait.cli.console import announce_compilation, say, session
from plait.cli.outputs import check_folder, use_no_window
from plait.cli.records import RECORD, write_record
from plait.data.words import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from plait.gwas import AssociationResult
    from plait.mash.data import MashData
    from plait.mash.results import MashResult
    from plait.simulate.cohort import Cohort

    Flags = NDArray[np.bool_]

LEVEL = 0.05

FILES = (
    "genotypes.bed", "genotypes.bim", "genotypes.fam", "traits.csv", "covariates.csv", "truth.csv",
    RECORD,
)  # fmt: skip
TABLES = (
    "bhat.csv", "shat.csv", "vhat.csv", "ulist.npz", "results.npz", "results.json", "screen.npz",
    "screen.json",
)  # fmt: skip
FIGURES = (
    "overview.png", "manhattan.png", "qq.png", "sharing.png", "weights.png", "patterns.png",
    "forest.png", "shrinkage.png",
)  # fmt: skip


def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder to write to.")] = Path("demo"),
    people: Annotated[int, typer.Option(min=200, help="Number of simulated people.")] = 2000,
    variants: Annotated[int, typer.Option(min=1000, help="Number of simulated variants.")] = 20_000,
    seed: Annotated[int, typer.Option(help="Seed of the simulation.")] = 1,
    threads: Annotated[int | None, typer.Option(help="Threads.", show_default="all cores")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Simulate a cohort, go from its genotypes to shared effects, and compare with the truth."""
    from plait.studies.gwas_to_mash import OUTPUTS

    check_folder(out, (*FILES, *OUTPUTS), overwrite)
    if out.is_dir():
        for folder, names in (("tables", TABLES), ("figures", FIGURES)):
            check_folder(out / folder, names, overwrite)
    with session(threads, True, debug):
        from plait import __version__
        from plait.simulate import cohort

        n_causal = max(10, 3 * variants // 1000)
        study = cohort(people, variants, n_causal, seed)
        say(
            quiet,
            f"plait {__version__} · simulated {counted(people, 'person', 'people')} x "
            f"{counted(variants, 'variant')} (realistic linkage), "
            f"{counted(len(study.traits.names), 'trait')}, "
            f"{counted(n_causal, 'causal variant')}",
        )
        announce_compilation(quiet)
        out.mkdir(exist_ok=True)
        write_cohort(study, out)
        result, pages = take_the_road(study, out, threads, quiet)
        scanned, data, screen = write_tables(out)
        drawn = draw(study, scanned, data, screen, result, out, quiet)
        for line in findings(study, scanned, screen, result):
            say(quiet, line)
    counts = {"samples": people, "variants": variants, "causal": n_causal}
    write_record(out / RECORD, counts | {"traits": len(study.traits.names)})
    if pages:
        say(quiet, f"Report   {out}/report.html: open it in a browser")
    say(quiet, f"Results  {out}/significant.csv · associations.parquet · result.zarr")
    if drawn:
        say(quiet, f"Figures  {out}/figures/" + " · ".join(FIGURES))
    say(quiet, f"Tables   {out}/tables: effects and results for the commands of plait mash")
    say(
        quiet,
        f"By hand  plait gwas-to-mash --geno {out}/genotypes.bed --pheno {out}/traits.csv --covar "
        f"{out}/covariates.csv --out my_study",
    )


def write_cohort(study: "Cohort", out: Path) -> None:
    """Write the files that a user would have, and the truth that a user would not."""
    import polars as pl

    from plait.cli.outputs import write_table
    from plait.io.plink import write_bed

    write_bed(out / "genotypes.bed", study.blocks(), study.variants, study.samples, overwrite=True)
    for name, table in (("traits", study.traits), ("covariates", study.covariates)):
        columns = dict(zip(table.names, table.values.T, strict=True))
        frame = pl.DataFrame({"IID": table.samples.tolist()} | columns)
        write_table(out / f"{name}.csv", frame, overwrite=True)
    effects = dict(zip(study.traits.names, study.truth.T, strict=True))
    causal = study.variants[study.causal].frame
    named = causal.select(pl.col("id").alias("variant"), "chrom", "pos", "oa", "ea")
    write_table(out / "truth.csv", named.with_columns(**effects), overwrite=True)


def take_the_road(
    study: "Cohort", out: Path, threads: int | None, quiet: bool
) -> tuple["MashResult", bool]:
    """Go from the files to the posterior; return it, and whether there is a report."""
    from importlib.util import find_spec

    from plait.cli.study import teller
    from plait.io import open_genotypes, read_covariates, read_phenotypes
    from plait.studies import gwas_to_mash

    pages = find_spec("plotly") is not None and find_spec("jinja2") is not None
    result = gwas_to_mash(
        open_genotypes(out / "genotypes.bed"),
        read_phenotypes(out / "traits.csv"),
        read_covariates(out / "covariates.csv"),
        out,
        with_report=pages,
        with_figures=False,
        overwrite=True,
        tell=teller(quiet),
        threads=threads,
    )
    return result, pages


def write_tables(out: Path) -> tuple["AssociationResult", "MashData", "MashResult"]:
    """Write effects and results as tables too; return the scan, the data and the screen."""
    import polars as pl

    from plait import mash
    from plait.cli.outputs import write_covariances, write_matrix, write_result, write_table
    from plait.gwas import AssociationResult
    from plait.io import read_effects
    from plait.mash.results import MashResult
    from plait.studies.gwas_to_mash import KEPT

    tables = out / "tables"
    tables.mkdir(exist_ok=True)
    effects = read_effects(out / KEPT / "effects.zarr")
    traits = list(effects.contexts or ())
    names = [] if effects.effects is None else effects.effects.tolist()
    for name, values in (("bhat", effects.bhat), ("shat", effects.shat)):
        columns = dict(zip(traits, values.T, strict=True))
        frame = pl.DataFrame({"effect": names} | columns)
        write_table(tables / f"{name}.csv", frame, overwrite=True)
    write_matrix(tables / "vhat.csv", effects.V, traits, True)
    data = mash.mash_set_data(
        effects.bhat, effects.shat, alpha=1, V=effects.V, condition_names=traits, effect_names=names
    )
    screen = mash.mash_1by1(data)
    write_result(screen, str(tables / "screen"), True, "onebyone", {})
    with_patterns = mash.FittedG.load(out / KEPT / "prior.npz")
    learned = {name: U for name, U in with_patterns.Ulist.items() if name.startswith("ED_")}
    write_covariances(tables / "ulist.npz", learned or with_patterns.Ulist, True)
    whole = MashResult.load(out / "result.zarr")
    write_result(whole, str(tables / "results"), True, "fit", {})
    return AssociationResult.load(out), data, screen


class Truth:
    """What the tested variants really do, through linkage with causal ones."""

    def __init__(self, study: "Cohort", scanned: "AssociationResult") -> None:
        import numpy as np

        tested = np.flatnonzero(np.isfinite(scanned.se).any(axis=1))
        self.tested = tested
        self.sign = np.sign(study.marginal_effects()[tested])
        self.causal = np.isin(tested, study.causal)
        self.causal_sign = np.sign(study.truth[np.isin(study.causal, tested)])
        self.total = study.truth.size

    def judge(self, called: "Flags", effects: "NDArray[Any]") -> tuple[int, float]:
        """Count the true effects that were called, and the fraction of calls that are wrong.

        A call is wrong where the variant has the other effect, or none at all.
        """
        import numpy as np

        right = called[self.causal] & (np.sign(effects[self.causal]) == self.causal_sign)
        wrong = called & (np.sign(effects) != self.sign)
        return int(right.sum()), float(wrong.sum() / max(int(called.sum()), 1))

    def at_the_same_rate(self, log10p: "NDArray[Any]", beta: "NDArray[Any]", rate: float) -> int:
        """Count the true effects called by p-values at the largest level with such a rate."""
        import numpy as np

        order = np.argsort(log10p, axis=None, kind="stable")
        wrong = (np.sign(beta) != self.sign).ravel()[order]
        rates = np.cumsum(wrong) / np.arange(1, len(order) + 1)
        allowed = np.flatnonzero(rates <= rate)
        if not len(allowed):
            return 0
        called = np.zeros(log10p.size, dtype=bool)
        called[order[: allowed[-1] + 1]] = True
        return self.judge(called.reshape(log10p.shape), beta)[0]


def findings(
    study: "Cohort", scanned: "AssociationResult", screen: "MashResult", result: "MashResult"
) -> list[str]:
    """Say what was found, next to the truth."""
    import numpy as np

    from plait.mash import get_pairwise_sharing

    truth = Truth(study, scanned)
    lines = ["", "What was found (truth is known here)"]
    rate = 0.0
    for name, fit in (("one trait at a time", screen), ("mash", result)):
        called = np.asarray(fit.lfsr) < LEVEL
        found, rate = truth.judge(called, np.asarray(fit.posterior_mean))
        lines.append(
            f"  {name:<20} lfsr < {LEVEL:g}  {found:>4} of {counted(truth.total, 'true effect')}   "
            f"realised false-sign rate {rate:.3f}"
        )
    beta, log10p = scanned.beta[truth.tested], scanned.log10p[truth.tested]
    same = truth.at_the_same_rate(log10p, beta, rate)
    lines.append(f"  p-values of the scan at the same realised rate as mash: {same}")
    matrix = get_pairwise_sharing(result)
    together = (matrix[0, 1] + matrix[0, 2] + matrix[1, 2]) / 3
    apart = matrix[4, :4].mean()
    if np.isfinite(together + apart):
        lines.append(
            f"  sharing: traits 1-3 share {together:.2f} of their effects (same sign, within a "
            f"factor 2), trait 5 shares {apart:.2f} with the others"
        )
    return [*lines, ""]


def draw(
    study: "Cohort",
    scanned: "AssociationResult",
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
    from plait import gwas, plot
    from plait.mash import plots

    use_no_window()
    truth = Truth(study, scanned)
    row = rescued(truth, screen, result)
    drawn: dict[str, Callable[[], Any]] = {
        "overview.png": lambda: overview(truth, scanned, data, screen, result, row),
        "manhattan.png": lambda: gwas.plot_manhattan(scanned, caption=True),
        "qq.png": lambda: gwas.plot_qq(scanned, caption=True),
        "sharing.png": lambda: plots.plot_sharing(result, caption=True),
        "weights.png": lambda: plots.plot_weights(result, caption=True),
        "patterns.png": lambda: plots.plot_patterns(result, caption=True)[0],
        "forest.png": lambda: plots.mash_plot_meta(result, row, data=data, caption=True),
        "shrinkage.png": lambda: plots.plot_shrinkage(result, data, caption=True),
    }
    (out / "figures").mkdir(exist_ok=True)
    for name, picture in drawn.items():
        plot.save_figure(picture(), out / "figures" / name, overwrite=True)
    return True


def rescued(truth: Truth, screen: "MashResult", result: "MashResult") -> int:
    """Return the causal variant for which looking at all traits together helps most."""
    import numpy as np

    missed = np.asarray(screen.lfsr) >= LEVEL
    called = np.asarray(result.lfsr) < LEVEL
    right = np.sign(np.asarray(result.posterior_mean)) == truth.sign
    gained = (missed & called & right).sum(axis=1) * truth.causal
    candidates = np.flatnonzero(gained == gained.max())
    strength = np.abs(np.asarray(result.posterior_mean)[candidates]).max(axis=1)
    return int(candidates[int(np.argmax(strength))])


def overview(
    truth: Truth,
    scanned: "AssociationResult",
    data: "MashData",
    screen: "MashResult",
    result: "MashResult",
    row: int,
) -> Any:
    """Draw the pictures that tell the story: the scan, what is found, one variant, and sharing."""
    import numpy as np

    from plait import gwas
    from plait.mash import plots
    from plait.plot.style import BLUE, GREY, set_counts, styled

    counts = [
        truth.judge(np.asarray(fit.lfsr) < LEVEL, np.asarray(fit.posterior_mean))
        for fit in (screen, result)
    ]
    with styled() as plt:
        figure = plt.figure(figsize=(12.0, 6.4), layout="constrained")
        above, below = figure.subfigures(2, 1, height_ratios=(0.8, 1.0))
        gwas.plot_manhattan(scanned, ax=above.subplots())
        left, middle, right = below.subplots(1, 3, width_ratios=(0.75, 1.1, 1.2))
        left.bar([0, 1], [found for found, _ in counts], width=0.62, color=[GREY, BLUE])
        for place, (found, wrong) in enumerate(counts):
            left.annotate(
                f"{found:,}", (place, found), (0, 3), textcoords="offset points", ha="center"
            )
            left.annotate(
                f"{wrong:.1%} wrong", (place, 0), (0, 5), textcoords="offset points",
                ha="center", color="white", fontsize=8,
            )  # fmt: skip
        left.set_xticks([0, 1], ["each trait\nby itself", "mash"])
        set_counts(left.yaxis)
        left.set_ylabel(f"true effects found (of {truth.total:,})")
        left.set_title("Found at lfsr < 0.05")
    plots.mash_plot_meta(result, row, ax=middle, data=data, ylab="")
    plots.plot_sharing(result, ax=right)
    return figure
