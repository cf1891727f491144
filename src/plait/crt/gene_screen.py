"""A gene-level screen from counts to discoveries, step by step.

import -> parameters -> assignment of guides -> quality control -> calibration check, power check,
discovery. Each step needs those before it, and doing one again drops what came after it.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from plait.crt.arguments import require_made_by, whole_number
from plait.crt.assignment import GuideAssignment, assign_guides, assignment_from_table
from plait.crt.calibration_pairs import (
    choose_pairs,
    control_group_size,
    control_groups,
    control_guides,
    groups_of_names,
    groups_wanted,
)
from plait.crt.cell_quality import CellQuality, cell_quality
from plait.crt.detectable_effects import (
    DetectableEffects,
    detectable_effects,
    realised_threshold,
)
from plait.crt.gene_data import GeneScreenData, gene_screen_from_anndata
from plait.crt.gene_results import GeneTestResult
from plait.crt.pair_tests import PairedUnits, PairQuality, ScreenCells, pairs_tested
from plait.crt.pairs import Pairs
from plait.crt.screen_parameters import ScreenParameters
from plait.crt.stored_pairs import StoreOptions
from plait.errors import NotAvailableError, OptionError
from plait.execution.executors import workforce


@dataclass(frozen=True, slots=True)
class _Quality:
    """Cells that are used, and how many of them must have counts of a pair's gene."""

    cells: CellQuality
    pairs: PairQuality


class GeneScreen:
    """A screen with counts of genes, and the steps of its analysis.

    Parameters
    ----------
    data : GeneScreenData
        From `gene_screen_data` or `gene_screen_from_anndata`.

    Attributes
    ----------
    data : GeneScreenData
    parameters : ScreenParameters or None
    assignment : GuideAssignment or None
    cells : CellQuality or None
    pair_quality : PairQuality or None
    calibration, power, discovery : GeneTestResult or None

    Notes
    -----
    Every step returns the screen, or its result, so that steps can be chained. Assignment and
    quality control are done with their defaults where they are skipped.

    Examples
    --------
    ::

        screen = GeneScreen.from_anndata(adata, "high", covariates=["batch"])
        screen.set_parameters(discovery_pairs=trans_pairs(screen.data), side="left")
        print(screen.run_calibration_check().summary())
        print(screen.run_discovery().summary())
    """

    def __init__(self, data: GeneScreenData) -> None:
        require_made_by(data, "data", ("responses", "targets", "moi"), "gene_screen_data")
        self.data = data
        self.parameters: ScreenParameters | None = None
        self.assignment: GuideAssignment | None = None
        self._quality: _Quality | None = None
        self.calibration: GeneTestResult | None = None
        self.power: GeneTestResult | None = None
        self.discovery: GeneTestResult | None = None

    @classmethod
    def from_anndata(cls, adata: Any, moi: str, **options: Any) -> Self:
        """Return the screen of an AnnData or MuData; see `gene_screen_from_anndata`."""
        return cls(gene_screen_from_anndata(adata, moi, **options))

    @property
    def cells(self) -> CellQuality | None:
        """Which cells are used, after quality control."""
        return None if self._quality is None else self._quality.cells

    @property
    def pair_quality(self) -> PairQuality | None:
        """How many cells must have counts of a pair's gene, after quality control."""
        return None if self._quality is None else self._quality.pairs

    def set_parameters(
        self,
        *,
        discovery_pairs: Any = None,
        positive_control_pairs: Any = None,
        side: str = "both",
        strategy: str = "union",
        control_group: str | None = None,
        mechanism: str | None = None,
        formula: str | None = None,
        weights: str | None = None,
        resampling: str = "analytic",
        approximation: str = "skew_normal",
        fdr: str = "BH",
        level: float = 0.1,
        max_resamples: int = 10**6,
        seed: int = 123,
    ) -> Self:
        """Say what is tested, and how.

        Parameters
        ----------
        discovery_pairs, positive_control_pairs : Pairs, table or iterable of tuples, optional
            Pairs of a target and a gene: see `plait.crt.pairs`. A table has ``grna_target`` and
            ``response_id``.
        side : {"both", "left", "right"}
            "left" looks for genes that go down. Of both the smaller tail is doubled.
        strategy : {"union", "singleton", "bonferroni"}
            Cells with any guide of a target are treated alike; guides are tested one by one; or
            that, and a target has the smallest p-value of its guides times their number.
        control_group : {"complement", "nt_cells"}, optional
            Treated cells are compared with all others, or with those of non-targeting guides.
            Default the latter where cells have one guide; elsewhere it cannot be had.
        mechanism : {"crt", "permutations"}, optional
            Treatments are drawn given the covariates, or permuted. Default "permutations" where
            cells have one guide.
        formula : str, optional
            Covariates: see `plait.crt.gene_design.design_columns`; default
            `plait.crt.gene_design.default_formula`. Where cells have many guides and genes are few,
            take ``grna_n_assigned`` in place of ``grna_n_nonzero`` (see there).
        weights : str, optional
            A covariate of positive numbers that says how much each cell counts, in the regression
            of a gene's counts and in the score. P-values are as right as without for weights that
            follow from the covariates or say how good a cell is, and not for weights made of the
            gene's counts or of the cell's guides. Fold changes are weighted, too.
        resampling : {"analytic", "sceptre_staged"}
            P-values of infinitely many resamples, or of sceptre's stages of 499, 4,999 and more.
        approximation : {"skew_normal", "no_approximation"}
            Of staged resamples: a skew-normal in the second stage, or counts alone.
        fdr : {"BH", "BY", "storey", "bonferroni", "none"}
        level : float
            A pair is significant where its false discovery rate is below this.
        max_resamples : int
            The most for a p-value that has to be counted.
        seed : int
            Random numbers depend on it and on the name of the target (or guides) alone.

        Raises
        ------
        OptionError
            An option is unknown, out of range, or does not go with the multiplicity of infection.
        LabelError
            A pair has a target or a gene that the data do not have, or the formula a covariate.
        InputError
            Covariates of a given formula determine one another (of the default: are left out).
        """
        parameters = ScreenParameters.of(
            self.data,
            discovery_pairs=discovery_pairs,
            positive_control_pairs=positive_control_pairs,
            side=side,
            strategy=strategy,
            control_group=control_group,
            mechanism=mechanism,
            formula=formula,
            weights=weights,
            resampling=resampling,
            approximation=approximation,
            fdr=fdr,
            level=level,
            max_resamples=max_resamples,
            seed=seed,
        )
        self.parameters = parameters
        self.assignment = None
        self._quality = None
        self._forget()
        return self

    def assign_guides(self, method: str | None = None, **options: Any) -> Self:
        """Decide which cells have which guides; see `plait.crt.assignment.assign_guides`."""
        self._require_parameters("assign_guides")
        return self._with(assign_guides(self.data, method, **options))

    def use_assignment(self, table: Any) -> Self:
        """Take an assignment, or its table, made before; see `assignment_from_table`."""
        self._require_parameters("use_assignment")
        return self._with(assignment_from_table(self.data, table))

    def quality_control(
        self,
        *,
        umis_quantiles: tuple[float, float] = (0.01, 0.99),
        nonzero_quantiles: tuple[float, float] = (0.01, 0.99),
        max_mito: float = 0.2,
        remove: Iterable[str] = (),
        keep_with_non_targeting: bool = False,
        min_treated: int = 7,
        min_controls: int = 7,
    ) -> Self:
        """Choose the cells that are used, and how many must have counts for a pair to be tested.

        Parameters
        ----------
        umis_quantiles, nonzero_quantiles, max_mito, remove, keep_with_non_targeting
            See `plait.crt.cell_quality.cell_quality`.
        min_treated, min_controls : int
            Treated cells, and controls, with counts of the gene.
        """
        self._require_parameters("quality_control")
        pairs = PairQuality(min_treated, min_controls)
        cells = cell_quality(
            self.data,
            self._assigned(),
            umis_quantiles=umis_quantiles,
            nonzero_quantiles=nonzero_quantiles,
            max_mito=max_mito,
            remove=remove,
            keep_with_non_targeting=keep_with_non_targeting,
        )
        self._quality = _Quality(cells, pairs)
        self._forget()
        return self

    def run_calibration_check(
        self,
        n_pairs: int | None = None,
        group_size: int | None = None,
        *,
        pairs: Any = None,
        threads: int | None = None,
        executor: Any = None,
        out: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        keep_draws: bool = False,
    ) -> GeneTestResult:
        """Test groups of non-targeting guides, of which none has an effect.

        Parameters
        ----------
        n_pairs : int, optional
            Default as many as there are discovery pairs that can be tested.
        group_size : int, optional
            Guides that stand for a target; default the median number of guides of a target.
        pairs : table or iterable of tuples, optional
            The very pairs to test: guides joined by "&", and genes.
        threads : int, optional
            Default all cores; never changes the numbers.
        executor : concurrent.futures.Executor or dask.distributed.Client, optional
        out, overwrite, keep_draws
            See `run_discovery`.

        Returns
        -------
        GeneTestResult

        Raises
        ------
        NotAvailableError
            Parameters are not set.
        OptionError
            There are no discovery pairs and a size is not given.
        InputError
            There are too few non-targeting guides.
        """
        parameters = self._require_parameters("run_calibration_check")
        store = StoreOptions.of(out, overwrite, keep_draws, parameters.resampling)
        screen = self._screen_cells()
        controls = control_guides(self.data.targets, parameters.control_group)
        if pairs is not None:
            given = Pairs.of(pairs)
            groups = groups_of_names(given.targets, self.data.targets.guides[controls])
        else:
            given, groups = self._calibration_pairs(screen, controls, n_pairs, group_size)
        units = PairedUnits.of_groups(given, groups, controls, self.data)
        problem = screen.calibration_problem()
        force = workforce(executor, None, threads)
        result = pairs_tested("calibration", problem, units, parameters, force, store=store)
        self.calibration = result
        return result

    def run_power_check(
        self,
        *,
        threads: int | None = None,
        executor: Any = None,
        out: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        keep_draws: bool = False,
    ) -> GeneTestResult:
        """Test the positive controls, of which all should have an effect.

        Parameters
        ----------
        threads, executor, out, overwrite, keep_draws
            See `run_discovery`.

        Raises
        ------
        NotAvailableError
            Parameters are not set, or have no positive controls.
        """
        parameters = self._require_parameters("run_power_check")
        store = StoreOptions.of(out, overwrite, keep_draws, parameters.resampling)
        result = self._tested("power", threads, executor, store)
        self.power = result
        return result

    def run_discovery(
        self,
        *,
        threads: int | None = None,
        executor: Any = None,
        out: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        keep_draws: bool = False,
    ) -> GeneTestResult:
        """Test the pairs that the screen is about.

        Parameters
        ----------
        threads : int, optional
            Default all cores; never changes the numbers.
        executor : concurrent.futures.Executor or dask.distributed.Client, optional
            Who works on blocks of pairs; with ``out`` on disk, one that sees the same files.
        out : str or path, optional
            A store (``.zarr``; a path or any fsspec URL) that is filled block by block: a run that
            was killed goes on when it is called again with the same screen and parameters, and ends
            with the same bits. `GeneTestResult.load` reads it.
        overwrite : bool
            Whether a store that exists is replaced.
        keep_draws : bool
            With ``resampling="sceptre_staged"``: keep the null statistics of every pair, those of
            the stage that its p-value is from, as ``null_draws`` of the store. They take 8 bytes
            each on disk (499 of most pairs, 4,999 or more of those with p <= 0.02), and 64 MiB of
            memory for each worker. Analytic p-values have none.

        Raises
        ------
        NotAvailableError
            Parameters are not set, or have no discovery pairs.
        OptionError
            There are no draws to keep, or no store for them.
        OutputError
            The store exists or cannot be written, or another run has taken over.

        Warns
        -----
        DataWarning
            What an interrupted run left is of other data or parameters; it starts anew.
        """
        parameters = self._require_parameters("run_discovery")
        store = StoreOptions.of(out, overwrite, keep_draws, parameters.resampling)
        result = self._tested("discovery", threads, executor, store)
        self.discovery = result
        return result

    def use_result(self, result: GeneTestResult) -> Self:
        """Take the result of an analysis that was made before, with this screen as it is now.

        Parameters
        ----------
        result : GeneTestResult
            Its ``analysis`` says which it is; see `plait.crt.stored_pairs.open_result`.
        """
        self._require_parameters("use_result")
        require_made_by(result, "result", ("analysis", "log10_p"), "an analysis or open_result")
        setattr(self, result.analysis, result)
        return self

    def detectable_effects(
        self,
        power: float = 0.8,
        *,
        p_threshold: float | None = None,
        fold_changes: Sequence[float] = (0.5, 0.75, 1.5, 2.0),
        threads: int | None = None,
        executor: Any = None,
    ) -> DetectableEffects:
        """Return the smallest fold changes that the discovery finds, and its power at given ones.

        Parameters
        ----------
        power : float
            Probability with which the smallest ones are found.
        p_threshold : float, optional
            Pairs with p-values up to this are found. Default the largest significant p-value of
            `run_discovery` or, where none is significant, the one that a first discovery needs.
        fold_changes : sequence of float
            Of counts in treated cells; 1 is no change.
        threads, executor
            See `run_discovery`.

        Returns
        -------
        DetectableEffects
            In the order of the discovery pairs.

        Raises
        ------
        NotAvailableError
            There are no discovery pairs, or no discovery that would give a threshold.
        OptionError
            An option is out of range, the strategy is "bonferroni", or cells have weights.

        Notes
        -----
        A pair's fitted means stand for cells without an effect; treated cells have a fold change of
        them, of which the covariates' regression takes up a part. Counts are negative binomial with
        the gene's theta, p-values those of infinitely many resamples of as many treated cells, and
        power the probability that data are as deep in the tail of their own resamples
        (`plait.crt.power_kernels`). In 1,440 simulated settings (20 to 500 treated cells, theta 0.1
        to 10, 7.5 to 2,500 expected counts in these, fold changes 0.5 to 3, p from 0.05 to 1e-6) it
        is within 0.05 of the share that is found, as chance makes. With 12 treated cells it is up
        to 0.03 off, and 0.1 too large with "crt"; of decreases that leave treated cells 2 counts,
        or none, it is too small. Time O(cells x columns) for a pair, and 1 to 3 ms.
        """
        parameters = self._require_parameters("detectable_effects")
        if parameters.discovery_pairs is None:
            raise NotAvailableError("there is nothing to test: set_parameters had no pairs.")
        if p_threshold is None:
            if self.discovery is None:
                raise NotAvailableError(
                    "run_discovery comes first and says which p-values are significant; or give "
                    "p_threshold."
                )
            p_threshold = realised_threshold(self.discovery)
        return detectable_effects(
            self._screen_cells().problem,
            PairedUnits.of_targets(parameters.discovery_pairs, self.data, parameters.strategy),
            parameters,
            workforce(executor, None, threads),
            power=power,
            p_threshold=p_threshold,
            fold_changes=fold_changes,
        )

    def summary(self) -> str:
        """Say what has been done so far."""
        lines = [repr(self.data)]
        if self.parameters is not None:
            about = self.parameters.described()
            lines.append("parameters: " + ", ".join(f"{k} {v}" for k, v in about.items()))
        parts = (self.assignment, self.cells, self.calibration, self.power, self.discovery)
        lines += [part.summary() for part in parts if part is not None]
        return "\n".join(lines)

    def write_tables(
        self, folder: str | os.PathLike[str], overwrite: bool = False
    ) -> Sequence[str]:
        """Write what there is into a folder: tables between tabs, and the summary.

        Returns
        -------
        list of str
            Names of the files: ``assignment.tsv.gz``, ``cells.tsv.gz``, ``calibration.tsv``,
            ``power.tsv``, ``discovery.tsv`` and ``summary.txt``.

        Raises
        ------
        OutputError
            A file exists or cannot be written.
        """
        import gzip

        from plait.io.atomic import check_writable, replace_file

        tables: dict[str, Any] = {
            "assignment.tsv.gz": self.assignment,
            "cells.tsv.gz": self.cells,
            "calibration.tsv": self.calibration,
            "power.tsv": self.power,
            "discovery.tsv": self.discovery,
        }
        place = Path(folder)
        place.mkdir(exist_ok=True)
        written = [name for name, part in tables.items() if part is not None]
        for name in (*written, "summary.txt"):
            check_writable(place / name, overwrite)
        for name in written:
            text = tables[name].to_frame().write_csv(separator="\t").encode()
            with replace_file(place / name, overwrite) as temporary:
                temporary.write_bytes(gzip.compress(text, mtime=0) if name.endswith("gz") else text)
        with replace_file(place / "summary.txt", overwrite) as temporary:
            temporary.write_text(self.summary() + "\n", encoding="utf-8")
        return [*written, "summary.txt"]

    def __repr__(self) -> str:
        return f"GeneScreen({self.data!r})"

    def _forget(self) -> None:
        self.calibration = self.power = self.discovery = None

    def _with(self, assignment: GuideAssignment) -> Self:
        self.assignment = assignment
        self._quality = None
        self._forget()
        return self

    def _require_parameters(self, step: str) -> ScreenParameters:
        if self.parameters is None:
            raise NotAvailableError(f"{step} comes after set_parameters, which is missing.")
        return self.parameters

    def _assigned(self) -> GuideAssignment:
        if self.assignment is None:
            self.assign_guides()
        assert self.assignment is not None
        return self.assignment

    def _screen_cells(self) -> ScreenCells:
        parameters = self._require_parameters("a test")
        if self._quality is None:
            self.quality_control()
        assert self._quality is not None
        return ScreenCells.of(
            self.data, self._assigned(), self._quality.cells, self._quality.pairs, parameters
        )

    def _tested(
        self, analysis: str, threads: int | None, executor: Any, store: StoreOptions | None
    ) -> GeneTestResult:
        parameters = self._require_parameters(f"run_{analysis}")
        name = "discovery_pairs" if analysis == "discovery" else "positive_control_pairs"
        pairs: Pairs | None = getattr(parameters, name)
        if pairs is None:
            raise NotAvailableError(f"there is nothing to test: set_parameters had no {name}.")
        screen = self._screen_cells()
        units = PairedUnits.of_targets(pairs, self.data, parameters.strategy)
        force = workforce(executor, None, threads)
        most = self._most_pairs(screen)
        return pairs_tested(analysis, screen.problem, units, parameters, force, most, store)

    def _passing(self, screen: ScreenCells, pairs: Pairs | None) -> tuple[int, int]:
        """Return how many pairs can be tested, and how many there are."""
        if pairs is None or self.parameters is None or not len(pairs):
            return 0, 0
        units = PairedUnits.of_targets(pairs, self.data, self.parameters.strategy)
        return int(screen.problem.quality(units).passing.sum()), len(units.unit)

    def _most_pairs(self, screen: ScreenCells) -> int:
        """Return the larger number of pairs of an analysis: what the third stage is made for."""
        assert self.parameters is not None
        if self.parameters.approximation == "skew_normal":
            return 0
        both = (self.parameters.discovery_pairs, self.parameters.positive_control_pairs)
        return max(self._passing(screen, pairs)[0] for pairs in both)

    def _calibration_pairs(
        self,
        screen: ScreenCells,
        controls: np.ndarray,
        n_pairs: int | None,
        group_size: int | None,
    ) -> tuple[Pairs, dict[str, tuple[int, ...]]]:
        parameters = self._require_parameters("run_calibration_check")
        passing, whole = self._passing(screen, parameters.discovery_pairs)
        if whole == 0 and (n_pairs is None or group_size is None):
            raise OptionError("there are no discovery pairs: give n_pairs and group_size.")
        n_pairs = passing if n_pairs is None else whole_number(n_pairs, "n_pairs", least=1)
        kept = int(parameters.control_group == "nt_cells")
        if group_size is None:
            most = len(controls) - kept if parameters.strategy == "union" else 1
            group_size = control_group_size(self.data.targets, most)
        genes = self.data.response_names
        share = passing / whole if whole else 1.0
        wanted = groups_wanted(n_pairs, share, len(genes))
        names = self.data.targets.guides[controls]
        groups = {
            "&".join(names[list(group)].tolist()): group
            for group in control_groups(len(controls), group_size, wanted, parameters.seed, kept)
        }
        pairs = Pairs(
            np.repeat(np.array(list(groups), dtype=np.str_), len(genes)),
            np.tile(genes, len(groups)),
        )
        units = PairedUnits.of_groups(pairs, groups, controls, self.data)
        passes = screen.calibration_problem().quality(units).passing
        chosen = choose_pairs(passes, n_pairs, parameters.seed)
        chosen_pairs = Pairs(pairs.targets[chosen], pairs.responses[chosen])
        used = set(chosen_pairs.targets.tolist())
        return chosen_pairs, {name: group for name, group in groups.items() if name in used}
