"""A simulated screen without effects, tested unit by unit, to see whether p-values are right."""

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from plait.crt.arguments import whole_number
from plait.crt.composition import quantile_of_usages
from plait.crt.data import CRTInputs, prepare_crt_inputs
from plait.crt.diagnostics import UNIT_FIELDS, diagnostics_summary, summary_text, unit_diagnostics
from plait.crt.guides import indicator_matrix
from plait.crt.logistic import WIDTH
from plait.crt.negative_controls import (
    NTCGroups,
    build_ntc_group_inputs,
    make_ntc_groups_ensemble,
)
from plait.crt.ntc_groups import NullHistogram
from plait.crt.null_statistics import with_statistic
from plait.crt.options import CRTOptions
from plait.crt.p_values import (
    compute_null_pvals_from_null_stats,
    empirical_p_values,
    skew_normal_p_values,
)
from plait.crt.propensity import PropensityModel, fit_propensity_logistic, propensity_blocks
from plait.crt.qq_plots import qq_plot_ntc_pvals
from plait.crt.staged import set_ties, tie_of_effects
from plait.crt.statistic import ols_statistics
from plait.crt.unit_tests import UnitTester
from plait.execution.blocks import Block, plan_blocks
from plait.execution.executors import run_blocks, workforce
from plait.execution.progress import stage
from plait.io.atomic import replace_file
from plait.plot.style import check_figure_path, save_figure, write_caption
from plait.simulate.screen import make_sceptre_style_synth

if TYPE_CHECKING:
    from pandas import DataFrame

Array = NDArray[np.float64]
Path = str | os.PathLike[str]
_CONTROLS = "NTC"
_LABELS = {
    "raw": "control guides, counted",
    "skew": "control guides, skew-normal",
    "null": "resamples of control guides, counted",
    "all": "targets, counted",
    "band": "95% of chance, for as many as resamples",
    "reference": "expected",
    "ensemble": "control guides, middle half of the sets",
}
"""What the legend calls the curves."""
_CAPTION = (
    "p-values of a simulated screen against those that chance alone would give. What has no effect "
    "should follow the line: control guides, and targets as well unless some were given effects. "
    "Counted p-values are not below one over the number of resamples, where the dashed "
    "curve ends."
)
_FLOOR = 1e-4
"""Quantile of the usages that is the floor under them, as in screens."""


@dataclass(frozen=True, slots=True, eq=False)
class GlobalNullDiagnostics:
    """What was found of a screen under the null.

    Attributes
    ----------
    records : list of dict
        A record for each unit; see `plait.crt.diagnostics.unit_diagnostics`.
    summary : dict
        See `plait.crt.diagnostics.diagnostics_summary`.
    """

    records: list[dict[str, Any]]
    summary: dict[str, Any]


def run_global_null_diagnostics(
    N: int = 5000,
    K: int = 20,
    n_target_genes: int = 50,
    B: int = 1000,
    seed: int = 0,
    frac_causal_genes: float = 0.2,
    effect_size: float = 0.0,
    n_ensemble: int = 3,
    group_size: int = 6,
    n_bins: int = 10,
    n_null_groups: int = 10,
    out_csv: Path | None = "diagnostics_units.csv",
    out_summary: Path | None = "diagnostics_summary.txt",
    plot_fit: Path | None = None,
    plot_oracle: Path | None = None,
    *,
    n_jobs: int | None = None,
    overwrite: bool = False,
) -> GlobalNullDiagnostics:
    """Simulate a screen, test its genes and groups of control guides, and say how that went.

    Parameters
    ----------
    N, K, n_target_genes, frac_causal_genes, effect_size
        Of `plait.simulate.make_sceptre_style_synth`; an effect of 0 is a global null.
    B : int
        Resamples of every unit, at least 1.
    seed : int
        Of the screen, the groups and the resamples.
    n_ensemble, group_size, n_bins : int
        Sets of groups, guides of a group, and bins of guide frequency.
    n_null_groups : int
        Groups whose resamples make the null curve of the figures; 0 takes all.
    out_csv, out_summary : str or path, optional
        A row for each unit, and the summary as JSON.
    plot_fit, plot_oracle : str or path, optional
        QQ plots with fitted propensities, and with the share of treated cells, which is the truth
        in this screen as far as guides do not depend on covariates.
    n_jobs : int, optional
        Threads, default all cores; never changes the numbers.
    overwrite : bool
        Whether files that exist are replaced.

    Returns
    -------
    GlobalNullDiagnostics

    Raises
    ------
    OptionError
        An option is outside its range.
    OutputError
        A file exists, or cannot be written.
    DependencyError
        anndata is not installed.

    Notes
    -----
    Time as of ``n_target_genes`` targets and all groups in `perturbation_effects`, twice with
    ``plot_oracle``.
    """
    whole_number(B, "B", least=1)
    for path in (plot_fit, plot_oracle):
        if path is not None:
            check_figure_path(path)
    screen = make_sceptre_style_synth(
        N, K, n_target_genes, frac_causal_genes=frac_causal_genes, effect_size=effect_size,
        n_effect_programs=min(3, K), seed=seed,
    )  # fmt: skip
    # The simulated covariates hold an intercept.
    inputs = prepare_crt_inputs(
        screen, usage_key="usage", add_intercept=False, standardize=False, threads=n_jobs,
        # The usual floor, without advice on it: nobody can choose that of a simulated screen.
        eps=quantile_of_usages(screen.obsm["usage"], _FLOOR) or None,
    )  # fmt: skip
    guides, frequency, bins, signatures = build_ntc_group_inputs(
        inputs, _CONTROLS, group_size, n_bins
    )
    ensemble = make_ntc_groups_ensemble(
        guides, frequency, signatures, bins, n_ensemble, seed, group_size
    )
    units = _Units.of(inputs, ensemble, n_null_groups)
    found = units.test(fit_propensity_logistic, B, seed, n_jobs)
    records = [one.record for one in found]
    summary = diagnostics_summary(records, B=B, seed_base=seed)
    if out_csv is not None:
        _write(out_csv, _table(records), overwrite)
    if out_summary is not None:
        _write(out_summary, summary_text(summary) + "\n", overwrite)
    if plot_fit is not None:
        units.draw(found, plot_fit, "Simulated screen, propensities fitted", overwrite)
    if plot_oracle is not None:
        known = units.test("const", B, seed, n_jobs)
        units.draw(known, plot_oracle, "Simulated screen, propensities known", overwrite)
    return GlobalNullDiagnostics(records, summary)


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """What was found of one unit."""

    record: dict[str, Any]
    p_raw: Array
    p_skew: Array
    null_counts: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class _Units:
    """The genes of a screen, and then groups of its control guides."""

    inputs: CRTInputs
    ensemble: list[NTCGroups]
    genes: tuple[str, ...]
    names: tuple[str, ...]
    sets: list[NDArray[np.intp]]
    treated: csc_array
    last_with_null: int

    @classmethod
    def of(cls, inputs: CRTInputs, ensemble: list[NTCGroups], n_null_groups: int) -> "_Units":
        column = {guide: j for j, guide in enumerate(inputs.guide_names)}
        genes = tuple(gene for gene in inputs.units if gene != _CONTROLS)
        groups = {
            f"ntc:{e}:{name}": np.array([column[guide] for guide in guides], dtype=np.intp)
            for e, set_of in enumerate(ensemble)
            for name, guides in set_of.items()
        }
        sets = [inputs.columns(gene) for gene in genes] + list(groups.values())
        shown = min(n_null_groups, len(groups)) if n_null_groups > 0 else len(groups)
        return cls(
            inputs, ensemble, genes, (*genes, *groups), sets,
            indicator_matrix(inputs.G, sets), len(genes) + shown,
        )  # fmt: skip

    def test(self, model: PropensityModel, B: int, seed: int, n_jobs: int | None) -> list[_Found]:
        """Test all units with one model of propensities."""
        options = CRTOptions(method="empirical", resamples=B, seed=seed)
        work = _TestOfBlock(self, UnitTester(self.inputs, options), model)
        found: list[_Found] = []
        with stage("units under the null", len(self.names)) as advance:
            blocks = plan_blocks(len(self.names), WIDTH)
            for block, part in run_blocks(work, blocks, workforce(threads=n_jobs), "crt"):
                found += part
                advance(len(block))
        return found

    def draw(self, found: Sequence[_Found], path: Path, title: str, overwrite: bool) -> None:
        """Draw groups and genes beside the resamples of groups."""
        raw, skew = (
            np.array([getattr(one, name) for one in found]) for name in ("p_raw", "p_skew")
        )
        counts = sum(one.null_counts for one in found)
        assert isinstance(counts, np.ndarray)
        null = NullHistogram(np.arange(1, len(counts) + 1) / len(counts), counts)
        n_genes = len(self.genes)
        ax = qq_plot_ntc_pvals(
            self._frame(raw[:n_genes], self.genes),
            self.inputs.guide2gene,
            _CONTROLS,
            pvals_skew_df=self._frame(skew[:n_genes], self.genes),
            null_pvals=null,
            ntc_group_pvals_ens=self._of_sets(raw[n_genes:]),
            ntc_group_pvals_skew_ens=self._of_sets(skew[n_genes:]),
            show_ntc_ensemble_band=len(self.ensemble) > 1,
            title=title,
            labels=_LABELS,
        )
        ax.set(xlabel="expected −log₁₀ p", ylabel="observed −log₁₀ p")
        highest = max(float(np.max(line.get_ydata())) for line in ax.get_lines())
        ax.set_ylim(0, 1.1 * highest)  # of the diagonal, not of the band
        write_caption(ax, _CAPTION)
        save_figure(ax, path, overwrite)

    def _of_sets(self, p: Array) -> list["DataFrame"]:
        ends = np.cumsum([len(groups) for groups in self.ensemble])
        return [
            self._frame(part, list(groups))
            for part, groups in zip(np.split(p, ends[:-1]), self.ensemble, strict=True)
        ]

    def _frame(self, p: Array, names: Sequence[str]) -> "DataFrame":
        import pandas as pd

        return pd.DataFrame(p, list(names), list(self.inputs.program_names))


@dataclass(frozen=True, eq=False)
class _TestOfBlock:
    """Tests a block of units."""

    units: _Units
    tester: UnitTester
    model: PropensityModel

    def __call__(self, block: Block) -> list[_Found]:
        treated = csc_array(self.units.treated[:, block.rows])
        names = self.units.names[block.rows]
        inputs = self.tester.inputs
        effects = ols_statistics(inputs.residuals, inputs.basis, treated)
        found = []
        for part, probabilities in propensity_blocks(self.model, inputs.C, treated, names):
            for place, j in enumerate(range(part.start, part.stop)):
                cells = treated.indices[treated.indptr[j] : treated.indptr[j + 1]]
                found.append(
                    self._one(
                        block.start + j,
                        cells,
                        probabilities[:, place],
                        effects.beta[j],
                        float(effects.denominator[j]),
                    )
                )
        return found

    def _one(
        self, unit: int, cells: NDArray[np.int32], p_hat: Array, beta: Array, denominator: float
    ) -> _Found:
        units, inputs = self.units, self.tester.inputs
        B, seed = self.tester.options.resamples, self.tester.options.seed
        name, is_gene = units.names[unit], unit < len(units.genes)
        about: dict[str, Any] = {"guide_count": len(units.sets[unit]), "seed_base": seed}
        counts = np.zeros(B, dtype=np.int64)
        p_raw = p_skew = np.ones(inputs.n_programs)
        if 0 < len(cells) < inputs.n_cells:
            null = self.tester.null_statistics(name, cells, p_hat).values
            tested = with_statistic(null)
            if len(tested):
                set_ties(tested, beta, tie_of_effects(len(cells), denominator))
                p_raw = empirical_p_values(beta, tested)
                p_skew = skew_normal_p_values(beta, tested).p_values
                if not is_gene and unit < units.last_with_null:
                    own = np.rint(compute_null_pvals_from_null_stats(tested).ravel() * B)
                    counts = np.bincount(own.astype(np.int64) - 1, minlength=B)
            about |= {"probabilities": p_hat, "beta": beta, "null": null, "p_raw": p_raw,
                      "p_skew": p_skew, "denominator": denominator}  # fmt: skip
        unit_type = "real_gene" if is_gene else "ntc_group"
        record = unit_diagnostics(name, unit_type, cells, inputs.C, **about)
        return _Found(record, p_raw, p_skew, counts)


def _table(records: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, UNIT_FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _write(path: Path, text: str, overwrite: bool) -> None:
    with replace_file(path, overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")
