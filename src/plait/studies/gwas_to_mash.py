"""From genotypes and phenotypes to what traits share: the whole road in one call.

    scan -> one variant per signal -> a thinned random set -> correlation of the errors
         -> patterns of sharing -> how common they are -> posterior of every variant -> report

What a person opens stands at the top of the folder; what stages hand to one another in `KEPT`.

Patterns are learned from the strong set, their weights from the random set: weights fitted on
selected variants would leave no room for the null.
"""

import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import plait  # its methods are imported when they are used
from plait import gwas
from plait.data.effects import Effects
from plait.data.fingerprints import study_fingerprints
from plait.data.genotypes import GenotypeSource
from plait.data.phenotypes import SampleTable
from plait.data.words import counted
from plait.errors import ModelWarning, NotAvailableError, OptionError
from plait.gwas.inputs import open_study
from plait.gwas.model import check_options
from plait.io import read_effects, replace_file
from plait.io.folders import check_folder, made_folder
from plait.studies.stages import Stages
from plait.studies.trait_checks import require_own_errors, trait_doubts

if TYPE_CHECKING:
    import plait.mash
    from plait.gwas.inputs import GenotypesLike, TableLike

Indices = NDArray[np.intp]
Teller = Callable[[str, str, float | None], None]

KEPT, FIGURES = "stages", "figures"
"""Folders inside the folder of a study: what stages hand to one another; pictures."""

RECORD = f"{KEPT}/stages.json"
"""Says in the folder of a study which stages are done."""

LEVEL = 0.05
"""Effects with an lfsr below it are in the table."""

OUTPUTS = (
    "report.html", "significant.csv", "associations.parquet", "associations.zarr", "result.zarr",
)  # fmt: skip
"""What a person opens in the folder of a study, the page first."""

_ALL_NULL = 0.999
_MORE = "More samples help; a larger --strong-p (strong_p=) takes weaker signals."
_SAME_UNIT = 2.0
"""Most times that the standard deviation of one trait is another's for sharing to compare sizes."""


@dataclass(frozen=True)
class StudySettings:
    """Choices of the road; the defaults are the usual ones.

    Attributes
    ----------
    model : str
        See `plait.gwas.scan`.
    loco : bool or None
    missing_genotypes : {"mean", "drop"}
    transform : {"none", "rank", "rank-residuals"}
    min_call_rate, min_minor_count, min_frequency, min_info
        See `plait.gwas.VariantFilter`.
    strong_p : float
        Largest p-value (in any trait) of a variant in the strong set.
    clump_r2, clump_kb : float
        Which variants belong to one signal.
    random_size : int
        Most variants in the random set.
    prune_r2, prune_kb : float
        How the random set is thinned.
    n_patterns : int
        Principal components that learning starts from.
    alpha : float
        See `plait.mash.mash_set_data`.
    seed : int
        Of the random set, and of the folds of a whole-genome model.
    """

    model: str = "linear"
    loco: bool | None = None
    missing_genotypes: str = "mean"
    transform: str = "none"
    min_call_rate: float | None = 0.95
    min_minor_count: int | None = 20
    min_frequency: float | None = None
    min_info: float | None = None
    strong_p: float = 1e-4
    clump_r2: float = 0.1
    clump_kb: float = 250.0
    random_size: int = 20_000
    prune_r2: float = 0.2
    prune_kb: float = 1000.0
    n_patterns: int = 5
    alpha: float = 1.0
    seed: int = 1

    def __post_init__(self) -> None:
        check_options(self.model, self.loco, self.missing_genotypes, self.transform)
        if not 0 < self.strong_p < 1:
            raise OptionError(f"strong_p is {self.strong_p}; give a p-value between 0 and 1.")
        if self.random_size < 100:
            raise OptionError(f"random_size is {self.random_size}; give at least 100.")


class _Road:
    """The stages of one study; every stage reads what those before it wrote."""

    def __init__(
        self,
        genotypes: GenotypeSource,
        traits: SampleTable,
        covariates: SampleTable | None,
        folder: Path,
        settings: StudySettings,
        workers: dict[str, Any],
    ) -> None:
        self.genotypes, self.traits, self.covariates = genotypes, traits, covariates
        self.folder, self.settings, self.workers = folder, settings, workers
        self.kept, self.figures = folder / KEPT, folder / FIGURES

    def steps(self) -> list[tuple[str, str, Callable[[], None], tuple[str, ...], dict[str, Any]]]:
        """Return the stages: name, what is done, work, outputs, and options it depends on."""
        chosen = asdict(self.settings)
        size = f"{counted(self.genotypes.n_variants, 'variant')} x {len(self.traits.names)} traits"
        scanning = (
            "model", "loco", "missing_genotypes", "transform", "seed",
            "min_call_rate", "min_minor_count", "min_frequency", "min_info",
        )  # fmt: skip
        selecting = (
            "strong_p", "clump_r2", "clump_kb", "random_size", "prune_r2", "prune_kb", "seed"
        )  # fmt: skip
        return [
            ("scan", size, self.scan,
             ("associations.parquet", "associations.zarr", f"{KEPT}/effects.zarr"),
             _of(chosen, scanning)),
            ("select", "one variant per signal; a thinned random set", self.select,
             (f"{KEPT}/sets.npz",), _of(chosen, selecting)),
            ("learn", "patterns of sharing, from the strong set", self.learn,
             (f"{KEPT}/patterns.npz",), _of(chosen, ("n_patterns", "alpha"))),
            ("fit", "how common they are, from the random set", self.fit,
             (f"{KEPT}/prior.npz", f"{KEPT}/fit.json"), {}),
            ("apply", "the posterior of every variant", self.apply, ("result.zarr",), {}),
            ("tabulate", "the significant effects", self.tabulate, ("significant.csv",), {}),
            ("draw", "Manhattan and QQ plots", self.draw,
             (f"{FIGURES}/manhattan.png", f"{FIGURES}/qq.png"), {}),
            ("report", "a page to open in a browser", self.report, ("report.html",), {}),
        ]  # fmt: skip

    def scan(self) -> None:
        s = self.settings
        result = gwas.scan(
            self.genotypes,
            self.traits,
            self.covariates,
            model=s.model,
            loco=s.loco,
            missing_genotypes=s.missing_genotypes,
            transform=s.transform,
            seed=s.seed,
            variant_filter=gwas.VariantFilter(
                s.min_call_rate, s.min_minor_count, s.min_frequency, s.min_info
            ),
            out=self.folder / "associations.zarr",
            overwrite=True,
            **self.workers,
        )
        result.write_parquet(self.folder / "associations.parquet", overwrite=True)
        result.write_effects(self.kept / "effects.zarr", overwrite=True)

    def select(self) -> None:
        """Write the rows (among the tested variants) of the strong and of the random set."""
        s, result, tested = self.settings, self.associations(), self.tested()
        surest, below, expected = np.full(len(result.n), np.nan), 0, 0.0
        for rows in result.parts():
            logs = np.asarray(result.log10p[rows])
            surest[rows] = np.fmin.reduce(logs, axis=1)
            below += int(np.count_nonzero(logs <= np.log10(s.strong_p)))
            expected += s.strong_p * np.count_nonzero(np.isfinite(logs))
        clumps = gwas.clump(
            self.genotypes, surest, r2=s.clump_r2, window_kb=s.clump_kb,
            p_index=s.strong_p, p_member=max(s.strong_p, 1e-2),
        )  # fmt: skip
        thinned = gwas.ld_prune(self.genotypes, r2=s.prune_r2, window_kb=s.prune_kb)
        thinned = thinned[np.isin(thinned, tested)]
        if len(thinned) > s.random_size:
            random = np.random.default_rng(np.random.SeedSequence([s.seed, 0]))
            thinned = np.sort(random.choice(thinned, s.random_size, replace=False))
        if not len(thinned):
            raise NotAvailableError("no tested variant is left for the random set.")
        with replace_file(self.kept / "sets.npz", overwrite=True) as temporary:
            np.savez(
                temporary,
                strong=np.searchsorted(tested, np.sort(clumps.index)),
                random=np.searchsorted(tested, thinned),
                chance=min(expected / max(below, 1), 1.0),
            )

    def learn(self) -> None:
        """Write the patterns: canonical ones, and those learned from the strong set."""
        from plait.mash.covariances import LEARNED_LIFT, START_LIFT, lift_cov

        effects, sets = read_effects(self.kept / "effects.zarr"), self.sets()
        strong = sets.strong
        data = _mash_data(effects, self.settings.alpha)
        patterns = dict(plait.mash.cov_canonical(data))
        if n_patterns := self.n_learned(sets):
            with warnings.catch_warnings():  # said by `doubts`, also where this stage is kept
                warnings.filterwarnings("ignore", "only .* effects for the principal components")
                directions = plait.mash.cov_pca(data, n_patterns, strong)
            learned = plait.mash.cov_ed(data, lift_cov(directions, START_LIFT), strong)
            patterns |= lift_cov(learned, LEARNED_LIFT)
        with replace_file(self.kept / "patterns.npz", overwrite=True) as temporary:
            np.savez(
                temporary,
                u_stack=np.stack(list(patterns.values())),
                u_names=np.array(list(patterns), dtype=np.str_),
            )

    def n_learned(self, sets: "_Sets") -> int:
        """Return how many patterns the signals can start.

        None where those that chance does not explain are too few for the traits, or fewer than
        those that it does: patterns would be of noise.
        """
        n_traits, others = len(self.traits.names), len(sets.strong) - sets.by_chance
        is_enough = others > max(n_traits, sets.by_chance)
        return min(self.settings.n_patterns, n_traits) if is_enough else 0

    def fit(self) -> None:
        """Write how common the patterns are, from the random set."""
        from plait.io import read_covariances

        sets = self.sets()
        chosen = sets.random
        patterns = read_covariances(self.kept / "patterns.npz")
        prior, _, fitted = plait.mash.fit_mash_prior(self.data(), patterns, train_indices=chosen)
        prior.save(self.kept / "prior.npz")
        described = {
            name: fitted.optim[name] for name in ("method", "converged", "dual_gap", "niter")
        }
        scanned = self.associations().take(self.tested()[chosen])
        units = different_units(scanned)
        doubts = self.doubts(sets, prior) | trait_doubts(self.associations()) | units
        described |= {"train_size": len(chosen), "doubts": doubts}
        described["same_unit"] = not units
        with replace_file(self.kept / "fit.json", overwrite=True) as temporary:
            temporary.write_text(json.dumps(described) + "\n")

    def doubts(self, sets: "_Sets", prior: "plait.mash.FittedG") -> dict[str, str]:
        """Say what a prior does not know, and what follows from it, each under a title."""
        from plait.mash.covariances import few_to_learn_from

        s, said, n_traits = self.settings, {}, len(self.traits.names)
        n_strong = len(sets.strong)
        if s.n_patterns and not self.n_learned(sets):
            signals = "1 signal has" if n_strong == 1 else f"{n_strong} signals have"
            needed = f", and more than {n_traits} are needed, the number of traits"
            if n_strong > n_traits:
                by_chance = round(sets.by_chance)
                needed = (
                    f", of which chance alone gives about {by_chance}, and of others more than "
                    f"{max(n_traits, by_chance)} are needed"
                )
            said["No patterns learned"] = (
                f"no patterns were learned: {signals} p < {s.strong_p:g} in some trait{needed}. "
                "Sharing is "
                "judged by canonical patterns alone (one trait, all traits alike, or each by "
                "itself): effects that only some traits share, or that are opposite, are shrunken "
                f"more than need be, and missed more often. {_MORE}"
            )
        elif s.n_patterns and (few := few_to_learn_from(n_strong, n_traits)):
            said["Patterns learned from few signals"] = (
                f"{few} Learned patterns are rough then, and with them how effects are shared "
                f"between traits. {_MORE}"
            )
        if (null := float(prior.pi[0])) > _ALL_NULL:
            said["Nearly all effects null"] = (
                f"{null:.1%} of the weight is on no effect in any trait: posterior effects are "
                "nearly 0 everywhere, and nothing can be said of sharing."
            )
        return said

    def apply(self) -> None:
        """Write the posterior of every tested variant."""
        prior = plait.mash.FittedG.load(self.kept / "prior.npz")
        plait.mash.apply_mash_prior_to_store(
            self.data(), prior, self.folder / "result.zarr", overwrite=True, **self.workers
        )

    def tabulate(self) -> None:
        """Write the significant effects, the surest first, with where their variants are."""
        import polars as pl

        result = plait.mash.MashResult.open(self.folder / "result.zarr")
        rows = np.sort(plait.mash.get_significant_results(result, LEVEL))
        frame = result.take(rows).to_frame()
        effect, context = frame.columns[:2]
        variants = self.associations().take(self.tested()[rows]).to_table()
        repeated = np.repeat(np.arange(len(rows)), result.n_conditions)
        where = variants.select("chrom", "pos", "oa", "ea")[repeated]
        columns = ("posterior_mean", "posterior_sd", "lfsr")
        table = (
            frame.with_columns(where)
            .select(effect, *where.columns, pl.col(context).alias("condition"), *columns)
            .filter(pl.col("lfsr") < LEVEL)
            .sort("lfsr", maintain_order=True)
        )
        with replace_file(self.folder / "significant.csv", overwrite=True) as temporary:
            table.write_csv(temporary)

    def draw(self) -> None:
        from plait.plot import save_figure

        self.figures.mkdir(exist_ok=True)
        result = self.associations()
        for name, picture in (("manhattan", gwas.plot_manhattan), ("qq", gwas.plot_qq)):
            figure = picture(result, caption=True)
            save_figure(figure, self.figures / f"{name}.png", overwrite=True)

    def report(self) -> None:
        from plait.report import write_mash_report

        write_mash_report(
            plait.mash.MashResult.open(self.folder / "result.zarr"),
            self.folder / "report.html",
            title=f"Effects on {len(self.traits.names)} traits",
            described=json.loads((self.kept / "fit.json").read_text(encoding="utf-8")),
            scan=self.associations(),
            overwrite=True,
        )

    def data(self) -> "plait.mash.StoredData":
        return plait.mash.mash_open_data(
            self.kept / "effects.zarr", self.settings.alpha, **self.workers
        )

    def associations(self) -> gwas.AssociationResult:
        return gwas.AssociationResult.open(self.folder / "associations.zarr")

    def tested(self) -> Indices:
        """Return the variants that were tested for some trait: the rows of the effects."""
        return np.flatnonzero(np.isfinite(np.asarray(self.associations().se)).any(axis=1))

    def sets(self) -> "_Sets":
        """Return what was selected to learn from."""
        with np.load(self.kept / "sets.npz") as archive:
            return _Sets(archive["strong"], archive["random"], float(archive["chance"]))


@dataclass(frozen=True)
class _Sets:
    """The variants to learn from, by their rows among the effects.

    Attributes
    ----------
    strong, random : arrays of int
        One variant per signal; variants thinned by linkage.
    chance : float
        The share of p-values up to that of strong variants which chance alone gives, at most 1.
    """

    strong: Indices
    random: Indices
    chance: float

    @property
    def by_chance(self) -> float:
        """Signals that chance gives."""
        return self.chance * len(self.strong)


def gwas_to_mash(
    genotypes: "GenotypesLike",
    traits: "TableLike",
    covariates: "TableLike | None",
    out: Path | str,
    settings: StudySettings | None = None,
    *,
    with_report: bool = True,
    with_figures: bool = True,
    overwrite: bool = False,
    tell: Teller = lambda name, what, seconds: None,
    executor: Any = None,
    memory: int | str | None = None,
    threads: int | None = None,
) -> "plait.mash.MashResult":
    """Go from genotypes and phenotypes to shared effects, and write everything into a folder.

    Parameters
    ----------
    genotypes : path or GenotypeSource
    traits, covariates : path, pandas or polars DataFrame, or SampleTable
        As in `plait.gwas.scan`. Two traits or more; covariates may be None.
    out : path
        Folder, made if it is not there. A stage that was done with the same inputs and options is
        kept.
    settings : StudySettings, optional
    with_report, with_figures : bool
        Write ``report.html``; ``figures/manhattan.png`` and ``figures/qq.png``.
    overwrite : bool
        Write into a folder with other files too, and replace those called as these are.
    tell : callable, optional
        Called after every stage with its name, what it did, and its seconds (None: it was kept).
    executor, memory, threads
        As everywhere in plait.

    Returns
    -------
    MashResult
        Opened from ``result.zarr``, one row per tested variant.

    Warns
    -----
    ModelWarning
        The signals are too few to learn patterns from, or few; nearly all effects are null;
        traits are in different units (`different_units`), have no test, or nearly tell one another.

    Raises
    ------
    OptionError
        Fewer than two traits.
    InputError
        Traits tell one another (`plait.studies.trait_checks.require_own_errors`).
    OutputError
        The folder holds other files, or cannot be written.
    InputTypeError
        Something is neither a file nor a table.
    """
    settings = StudySettings() if settings is None else settings
    genotypes, traits, covariates = open_study(genotypes, traits, covariates)
    require_several(traits)
    require_own_errors(genotypes, traits, covariates, settings.model, settings.transform)
    folder = Path(out)
    check_study_folder(folder, overwrite)
    workers = {"executor": executor, "memory": memory, "threads": threads}
    road = _Road(genotypes, traits, covariates, folder, settings, workers)
    inputs = study_fingerprints(genotypes, traits, covariates)
    stages = Stages(folder, inputs, tell, RECORD)
    wanted = {"draw": with_figures, "report": with_report}
    with made_folder(folder), made_folder(folder / KEPT):
        for name, what, work, outputs, options in road.steps():
            if wanted.get(name, True):
                stages.run(name, what, work, outputs, options)
    fitted = json.loads((road.kept / "fit.json").read_text(encoding="utf-8"))
    for doubt in fitted["doubts"].values():
        warnings.warn(doubt, ModelWarning, stacklevel=2)
    return plait.mash.MashResult.open(folder / "result.zarr")


def different_units(scanned: gwas.AssociationResult) -> dict[str, str]:
    """Say, under a title, that sizes of effects cannot be compared between traits.

    Standard deviations of traits (given covariates, and what a model predicts) are told by standard
    errors: ``se sqrt(f (1 - f) n)`` is proportional to them at every variant, and its median over
    variants is taken. Posterior effects are in the units of traits, and those within a factor of 2
    are another set in other units; their signs are not.

    Parameters
    ----------
    scanned : AssociationResult
        Its errors are read; some thousands of variants, not selected by their effects, will do.

    Returns
    -------
    dict of str to str
        Empty where no standard deviation is more than twice another, and of logistic models:
        logs of odds ratios have no unit.
    """
    if scanned.n_cases is not None:
        return {}
    f, n = np.asarray(scanned.frequency)[:, None], np.asarray(scanned.n)
    deviation = np.asarray(scanned.se) * np.sqrt(f * (1 - f) * n)
    medians = {
        name: float(np.median(known))
        for name, column in zip(scanned.traits, deviation.T, strict=True)
        if len(known := column[np.isfinite(column) & (column > 0)])
    }
    if not medians:
        return {}
    small, large = min(medians, key=medians.__getitem__), max(medians, key=medians.__getitem__)
    if (ratio := medians[large] / medians[small]) <= _SAME_UNIT:
        return {}
    return {
        "Traits in different units": (
            f"traits are in different units: the standard deviation of {large!r} is "
            f"{float(f'{ratio:.2g}'):,g} times that of {small!r}. Effects are in the unit of each "
            "trait, so that how many two traits share in size (within a factor of 2) depends on "
            "the units, and may be few or many for that alone; whether they have the same sign "
            "holds in any unit. To compare sizes, divide each trait by its standard deviation, or "
            "give rank as --transform (transform=)."
        )
    }


def check_study_folder(folder: Path, overwrite: bool = False) -> None:
    """Refuse a folder with other files than those of a study.

    Parameters
    ----------
    folder : Path
        What stands in the folder of a study is its own: the same study goes on, another replaces
        it.
    overwrite : bool
        Write beside other files, and replace those called as a study's are.

    Raises
    ------
    OutputError
        It holds other files, or cannot be written.
    """
    check_folder(folder, OUTPUTS, overwrite, RECORD, own=(KEPT, FIGURES, "run.json"))


def require_several(traits: SampleTable) -> None:
    """Refuse a single trait.

    Raises
    ------
    OptionError
        There are fewer than two traits.
    """
    if len(traits.names) < 2:
        raise OptionError(
            "effects are shared by two traits or more; one trait is what gwas scan is for."
        )


def _of(chosen: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: chosen[name] for name in names}


def _mash_data(effects: Effects, alpha: float) -> "plait.mash.MashData":
    return plait.mash.mash_set_data(
        effects.bhat, effects.shat, alpha=alpha, V=effects.V, missing="exact",
        condition_names=effects.contexts,
    )  # fmt: skip
