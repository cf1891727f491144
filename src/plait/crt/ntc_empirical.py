"""P-values of genes among pseudo-genes of negative-control guides, in all cells or over batches.

In each batch a gene is compared with the pseudo-genes that have as many treated cells and as much
variation left by the covariates; p-values of batches are then combined. Half of the pseudo-genes
held against the other half tell whether such p-values are calibrated.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plait.crt.arguments import option_names, real_number, whole_number
from plait.crt.data import CRTInputs
from plait.crt.guides import as_names
from plait.crt.ntc_null import (
    MatchingOptions,
    UnitEffects,
    combine_fisher,
    combine_stouffer,
    combine_stouffer_abs,
    matched_p_values,
)
from plait.crt.ntc_units import (
    CellSubset,
    NTCUnits,
    batches_of_cells,
    control_columns,
    draw_ntc_units,
)
from plait.crt.propensity import PropensityModel, check_propensity_model, fit_propensity_logistic
from plait.errors import InputError, OptionError

if TYPE_CHECKING:
    from pandas import DataFrame

Array = NDArray[np.float64]
_log = logging.getLogger("plait.crt")
_BATCH_MODES = ("meta", "pooled")
_COMBINATIONS = ("fisher", "stouffer", "stouffer_abs")
_STATISTICS = ("beta", "z")
_SMALLEST_DENOMINATOR = 1e-12
_MANY_OUTSIDE = 0.1
FEWEST_GUIDES = 15
"""Control guides, to each guide of a pseudo-gene, from which p-values are about right."""
_UNITS_SEED, _SPLIT_SEED = 17, 91
"""Added to the seed of a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NTCEmpiricalOptions:
    """How genes are compared with negative controls.

    Attributes
    ----------
    ntc_labels : tuple of str
        Targets that stand for negative controls ("SAFE", "non-targeting", "NTC").
    guides_per_unit : int
        Guides of a pseudo-gene (6).
    n_ntc_units : int
        Pseudo-genes (5000).
    batch_mode : {"meta", "pooled"}
        Compare within batches and combine, or compare in all cells.
    combine_method : {"fisher", "stouffer", "stouffer_abs"}
        "stouffer" uses the signs of effects; "stouffer_abs" does not, as programDE, and is not
        calibrated. Largest effects of a gene have no sign: with "stouffer" they are combined by
        Fisher's method.
    statistic : {"beta", "z"}
        What is compared: effects, as programDE ("beta"), or effects over their standard
        deviation without effects, which is proportional to ``1 / sqrt(D)`` ("z"). Effects are
        comparable only among units of like D. Where controls have a narrower range of it than
        genes, matching cannot mend that, and rare genes' p-values come out too small; "z" then is
        the one to take. See the notes of `ntc_empirical_tests`.
    min_treated, min_control : int
        Cells that a gene needs in a batch to be tested there (10 each).
    matching : MatchingOptions
    qq_crossfit_frac_A : float
        Share of the pseudo-genes that is the null of the cross-fit (0.5).
    qq_crossfit_seed : int or None
        Default the seed of the run + 91.
    split_by : {"units", "guides"}
        See `plait.crt.ntc_units.draw_ntc_units`.
    filter_ntc_units : bool
        Whether a pseudo-gene needs as many cells as a gene (True). Those without treated cells
        have the effect 0 and would make p-values too small.
    batch_key : str or None
        Covariate that holds the batch; default the one of `prepare_crt_inputs`.
    propensity_model : callable, "const"
        For ``matching["use_pbar"]``.
    """

    ntc_labels: tuple[str, ...] = ("SAFE", "non-targeting", "NTC")
    guides_per_unit: int = 6
    n_ntc_units: int = 5000
    batch_mode: str = "meta"
    combine_method: str = "fisher"
    statistic: str = "beta"
    min_treated: int = 10
    min_control: int = 10
    matching: MatchingOptions = field(default_factory=MatchingOptions)
    qq_crossfit_frac_A: float = 0.5
    qq_crossfit_seed: int | None = None
    split_by: str = "units"
    filter_ntc_units: bool = True
    batch_key: str | None = None
    propensity_model: PropensityModel = fit_propensity_logistic

    def __post_init__(self) -> None:
        for name, value, known in (
            ("batch_mode", self.batch_mode, _BATCH_MODES),
            ("combine_method", self.combine_method, _COMBINATIONS),
            ("statistic", self.statistic, _STATISTICS),
        ):
            if value not in known:
                raise OptionError(f"{name} is {value!r}; give one of {', '.join(known)}.")
        for name in ("guides_per_unit", "n_ntc_units", "min_treated", "min_control"):
            whole_number(getattr(self, name), name, least=1)
        if self.qq_crossfit_seed is not None:
            whole_number(self.qq_crossfit_seed, "qq_crossfit_seed", least=0)
        real_number(self.qq_crossfit_frac_A, "qq_crossfit_frac_A")
        check_propensity_model(self.propensity_model)
        if isinstance(self.propensity_model, np.ndarray):
            raise OptionError(
                "pseudo-genes have no given propensities; give 'const' or a function of (C, y01)."
            )

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any] | None) -> "NTCEmpiricalOptions":
        """Return the options of a dictionary, as ``null_kwargs`` of `run_all_genes_union_crt`.

        ``pbar_propensity_model`` is another name of ``propensity_model``.

        Raises
        ------
        InputTypeError
            They are no mapping, an option is unknown, or its value of another type; it is also a
            TypeError.
        OptionError
            A value is unknown or out of range.
        """
        known = [f.name for f in fields(cls)]
        given = option_names(options, [*known, "pbar_propensity_model"], "the empirical null")
        if "pbar_propensity_model" in given:
            given["propensity_model"] = given.pop("pbar_propensity_model")
        given["matching"] = MatchingOptions.from_mapping(given.get("matching"))
        if "ntc_labels" in given:
            given["ntc_labels"] = as_names(given["ntc_labels"])
        return cls(**given)


@dataclass(frozen=True, slots=True, eq=False)
class BatchOfEffects:
    """Effects of genes and pseudo-genes in one batch, or in all cells.

    Attributes
    ----------
    name : str
    n_cells : int
    real, ntc : UnitEffects
    sd : (K,) array
        Standard deviation of the programs given the covariates.
    """

    name: str
    n_cells: int
    real: UnitEffects
    ntc: UnitEffects
    sd: Array

    def standardised(self) -> "BatchOfEffects":
        """Return effects over their standard deviation without effects, ``sd / sqrt(D)``."""
        sd = np.where(self.sd > 0, self.sd, 1.0)

        def scaled(units: UnitEffects) -> UnitEffects:
            return replace(units, beta=units.beta * np.sqrt(units.d)[:, None] / sd)

        return replace(self, real=scaled(self.real), ntc=scaled(self.ntc))

    def is_tested(
        self, units: UnitEffects, min_treated: int, min_control: int
    ) -> NDArray[np.bool_]:
        """Return which units have cells enough and vary given the covariates."""
        return (
            (units.n1 >= min_treated)
            & (self.n_cells - units.n1 >= min_control)
            & (units.d > _SMALLEST_DENOMINATOR)
        )


@dataclass(frozen=True, slots=True, eq=False)
class BatchPValues:
    """P-values of units in batches, and combined.

    Attributes
    ----------
    p : (units, K) array
        Combined; 1 where no batch tests a unit.
    by_batch : dict of str to (units, K) array
        NaN where a unit is not tested.
    n_batches : (units,) int array
        Batches that test a unit.
    smallest : (units,) array
        The smallest p-value that so many controls can give; 1 where no batch tests a unit.
    matching_info : list of dict
        Of each batch; see `plait.crt.ntc_null.matched_p_values`.
    """

    p: Array
    by_batch: dict[str, Array]
    n_batches: NDArray[np.int64]
    smallest: Array
    matching_info: list[dict[str, Any]]


def batch_p_values(
    batches: Sequence[BatchOfEffects],
    options: NTCEmpiricalOptions,
    *,
    tested: NDArray[np.int64] | None = None,
    null: NDArray[np.int64] | None = None,
    matched_to: NDArray[np.bool_] | None = None,
    by_unit: bool = False,
) -> BatchPValues:
    """Return p-values of units among matched pseudo-genes in each batch, and combine them.

    Parameters
    ----------
    batches : sequence of BatchOfEffects
        A batch that tests no gene, or has no pseudo-gene to compare with, is left out.
    options : NTCEmpiricalOptions
    tested : array of int, optional
        Pseudo-genes to test; default the genes.
    null : array of int, optional
        Pseudo-genes of the null; default all.
    matched_to : (genes,) array of bool, optional
        Genes at whose quantiles bins are; default all.
    by_unit : bool
        One p-value for a unit, of its largest absolute effect; K is 1 then.

    Returns
    -------
    BatchPValues
    """
    least = (options.min_treated, options.min_control)
    every = np.arange(len(batches[0].ntc)) if null is None else null
    p, signs, infos, names, smallest = [], [], [], [], []
    for batch in batches:
        units = batch.real if tested is None else batch.ntc.take(tested)
        controls = batch.ntc.take(every)
        if options.filter_ntc_units:
            controls = controls.take(batch.is_tested(controls, *least))
        if not batch.is_tested(batch.real, *least).any() or not len(controls):
            continue
        real = batch.real if matched_to is None else batch.real.take(matched_to)
        is_left_out = ~batch.is_tested(units, *least)
        found, info = matched_p_values(
            units, controls, real, options.matching, by_unit=by_unit, counted=~is_left_out
        )
        counts = options.matching.matched_counts(units, real, info)
        found[is_left_out] = np.nan
        p.append(found)
        smallest.append(np.where(is_left_out, np.nan, 1.0 / (counts + 1.0))[:, None])
        signs.append(np.sign(units.beta))
        infos.append(info)
        names.append(batch.name)
    n_units = len(batches[0].real) if tested is None else len(tested)
    width = 1 if by_unit else batches[0].real.beta.shape[1]
    if not p:
        none = np.zeros(n_units, dtype=np.int64)
        return BatchPValues(np.ones((n_units, width)), {}, none, np.ones(n_units), [])
    floors = np.array(smallest)
    method = "fisher" if by_unit and options.combine_method == "stouffer" else None
    return BatchPValues(
        _combined(np.array(p), np.array(signs), method or options.combine_method),
        dict(zip(names, p, strict=True)),
        (~np.isnan(floors[:, :, 0])).sum(axis=0),
        _combined(floors, np.ones(floors.shape), method or options.combine_method)[:, 0],
        infos,
    )


def _combined(values: Array, signs: Array, method: str) -> Array:
    """Combine p-values of batches; NaN counts for nothing."""
    counts = ~np.isnan(values)
    if len(values) == 1:
        return np.asarray(np.where(counts, values, 1.0)[0])
    if method == "stouffer_abs":
        return combine_stouffer_abs(values, counts)
    if method == "stouffer":
        return combine_stouffer(values, signs, counts)
    return combine_fisher(values, counts)


@dataclass(frozen=True, slots=True, eq=False)
class NTCEmpirical:
    """What genes are compared with negative controls.

    Attributes
    ----------
    genes, programs : tuple of str
    beta, n_treated : (J, K) and (J,) arrays
        In all cells.
    p : (J, K) array; 1 where a gene is not tested
    status : (J,) array of str
        "ok"; "degenerate": no cell or every cell is treated, or the covariates determine the
        treatment; "few_cells": no batch has ``min_treated`` treated cells and ``min_control``
        others, or no pseudo-gene has that many.
    smallest_p : (J,) array
        The smallest p-value that a gene could have: ``1 / (m + 1)`` of the m pseudo-genes of its
        bin, combined over batches.
    n_control_guides, guides_per_unit : int
        Guides that pseudo-genes are made of, and those of each.
    is_control : (J,) array of bool
        Genes that are negative controls.
    matching_info : dict
    units : NTCUnits
    crossfit : dict or None
        See `ntc_empirical_tests`.
    """

    genes: tuple[str, ...]
    programs: tuple[str, ...]
    beta: Array
    n_treated: NDArray[np.int64]
    p: Array
    status: NDArray[np.str_]
    smallest_p: Array
    n_control_guides: int
    guides_per_unit: int
    is_control: NDArray[np.bool_]
    matching_info: dict[str, Any]
    units: NTCUnits
    crossfit: dict[str, Any] | None

    def frames(self) -> dict[str, Any]:
        """Return what programDE returns: frames of genes x programs, and how they were matched.

        Returns
        -------
        dict
            ``pvals_df``, ``betas_df``, ``treated_df``, ``status_df``, ``null_method``,
            ``ntc_matching_info``, ``stat_name`` and, if it was made, ``ntc_crossfit``.
        """
        import pandas as pd

        genes = pd.Index(self.genes, name="gene")
        view = {
            "pvals_df": pd.DataFrame(self.p, genes, list(self.programs)),
            "betas_df": pd.DataFrame(self.beta, genes, list(self.programs)),
            "treated_df": pd.Series(self.n_treated, genes, name="n_union_positive_cells"),
            "status_df": pd.Series(self.status, genes, name="status"),
            "null_method": "ntc_empirical",
            "ntc_matching_info": self.matching_info,
            "stat_name": "beta",
        }
        return view if self.crossfit is None else view | {"ntc_crossfit": self.crossfit}


def ntc_empirical_tests(
    inputs: CRTInputs,
    genes: Iterable[str] | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    base_seed: int = 123,
    qq_crossfit: bool = False,
) -> NTCEmpirical:
    """Compare effects of genes with those of pseudo-genes of negative-control guides.

    Parameters
    ----------
    inputs : CRTInputs
    genes : iterable of str, optional
        Default all, sorted; bins are quantiles of these.
    options : mapping, optional
        See `NTCEmpiricalOptions`.
    base_seed : int
        Pseudo-genes are drawn with ``base_seed + 17`` and split with ``base_seed + 91``.
    qq_crossfit : bool
        Whether genes and pseudo-genes B are also compared with pseudo-genes A alone.

    Returns
    -------
    NTCEmpirical
        ``matching_info`` of "pooled": ``bin_sizes``, ``fallback_counts``, ``n_bins_n1``,
        ``n_bins_d``, ``min_ntc_per_bin``, ``use_pbar``; of "meta": ``batch_mode``,
        ``combine_method``, ``batch_count`` and ``batch_matching_info``, a list of these; or
        ``reason`` where no batch can be used and all p-values are 1.

        ``crossfit``: ``batches``; ``p_real_vs_A_by_batch``, ``p_ntcB_vs_A_by_batch``,
        ``p_real_gene_vs_A_by_batch`` and ``p_ntcB_gene_vs_A_by_batch``, dicts of frames and series
        (NaN where not tested; empty if pooled); ``meta_p_real_vs_A``, ``meta_p_ntcB_vs_A``,
        ``meta_p_real_gene_vs_A`` and ``meta_p_ntcB_gene_vs_A``; ``matching_diagnostics``;
        ``negative_controls``, the genes that are controls themselves.

    Raises
    ------
    InputError
        There are too few control guides, or "meta" has no batches.
    OptionError, InputTypeError
        An option is unknown or out of range.

    Notes
    -----
    A p-value depends on which genes are tested together: bins are at their quantiles.

    Pseudo-genes of few guides share most of them: they are not as many independent controls, and
    their effects spread less than those of genes, by ``1 - g / n`` in variance for g of n guides.
    With fewer than 15 control guides to each guide of a pseudo-gene a warning is logged: in
    simulated screens without effects, with 3 of them 9 % of the p-values are at most 0.05, with 5
    7 %, with 10 6 %, with 15 5.3 to 6 %, and with 20 and more 4.8 to 5.9 %
    (``benchmarks/crt_negative_controls.py guides``).

    Gene-level p-values compare the largest absolute effect on any program. Time
    O(units x treated cells x (K + p)) for all batches together.

    In 40 simulated screens without effects, where 90 % of the genes had 55 to 379 treated cells and
    90 % of the pseudo-genes 154 to 197, 8.8 % of the p-values were at most 0.05 with
    ``statistic="beta"`` (pooled; 9.1 % over batches by Fisher's method) and 5.0 % (4.7 %) with "z":
    ``benchmarks/crt_negative_controls.py``.
    """
    chosen = NTCEmpiricalOptions.from_mapping(options)
    whole_number(base_seed, "base_seed", least=0)
    names = inputs.units if genes is None else as_names(genes)
    if not names:
        raise InputError("there is no gene to test.")
    columns = control_columns(inputs.guide_names, inputs.guide2gene, chosen.ntc_labels)
    split_seed = chosen.qq_crossfit_seed
    units = draw_ntc_units(
        columns,
        chosen.guides_per_unit,
        chosen.n_ntc_units,
        base_seed + _UNITS_SEED,
        split_seed=base_seed + _SPLIT_SEED if split_seed is None else split_seed,
        frac_A=chosen.qq_crossfit_frac_A,
        split_by=chosen.split_by,
    )
    whole = CellSubset(inputs.G, inputs.residuals, inputs.basis, inputs.C)
    everywhere = _effects("all cells", whole, inputs, names, units, chosen)
    if chosen.batch_mode == "pooled":
        batches = [everywhere]
        chosen = replace(chosen, min_treated=1, min_control=1)
    else:
        batches = _effects_of_batches(inputs, names, units, chosen)
    if chosen.statistic == "z":
        batches = [batch.standardised() for batch in batches]
    labels = set(chosen.ntc_labels)
    is_control = np.array([name in labels for name in names])
    matched_to = ~is_control if not chosen.matching.with_controls and (~is_control).any() else None
    found = batch_p_values(batches, chosen, matched_to=matched_to)
    status = _status(everywhere, found)
    _tell(names, status, len(columns), chosen)
    outside, n_tests = sum(i["n_outside"] for i in found.matching_info), found.n_batches.sum()
    if chosen.statistic == "beta" and outside > _MANY_OUTSIDE * n_tests:
        _log.warning(
            "%d of %d tests are of genes rarer or more frequent than every unit of controls; "
            "statistic='z' makes their effects comparable", outside, n_tests,
        )  # fmt: skip
    return NTCEmpirical(
        names,
        inputs.program_names,
        everywhere.real.beta,
        everywhere.real.n1,
        found.p,
        status,
        found.smallest,
        len(columns),
        chosen.guides_per_unit,
        is_control,
        _matching_info(found, chosen),
        units,
        _crossfit(batches, names, inputs.program_names, units, chosen, matched_to)
        | {"negative_controls": np.asarray(names)[is_control].tolist()}
        if qq_crossfit
        else None,
    )


def _status(everywhere: BatchOfEffects, found: BatchPValues) -> NDArray[np.str_]:
    """Return which genes were tested, and why others were not."""
    could_be = everywhere.is_tested(everywhere.real, 1, 1)
    return np.where(found.n_batches > 0, "ok", np.where(could_be, "few_cells", "degenerate"))


def _tell(
    genes: Sequence[str], status: NDArray[np.str_], n_guides: int, options: NTCEmpiricalOptions
) -> None:
    """Log which genes were not tested, and that control guides are few."""
    if left := [gene for gene, own in zip(genes, status, strict=True) if own != "ok"]:
        _log.warning(
            "%d of %d genes are not tested (p = 1): no batch has %d treated cells and %d others, "
            "or the covariates determine the treatment: %s%s",
            len(left), len(genes), options.min_treated, options.min_control,
            ", ".join(left[:5]), ", ..." if len(left) > 5 else "",
        )  # fmt: skip
    if are_few_guides(n_guides, options.guides_per_unit):
        _log.warning(
            "pseudo-genes of %d of %d control guides share many of them, and their p-values come "
            "out too small; %d guides are needed",
            options.guides_per_unit, n_guides, FEWEST_GUIDES * options.guides_per_unit,
        )  # fmt: skip


def are_few_guides(n_guides: int, guides_per_unit: int) -> bool:
    """Return whether p-values among pseudo-genes of so many control guides are too small."""
    return n_guides < FEWEST_GUIDES * guides_per_unit


def _effects_of_batches(
    inputs: CRTInputs, genes: Sequence[str], units: NTCUnits, options: NTCEmpiricalOptions
) -> list[BatchOfEffects]:
    of_cell = batches_of_cells(inputs, options.batch_key)
    found = []
    for name in dict.fromkeys(of_cell.tolist()):
        cells = np.flatnonzero(of_cell == name)
        subset = CellSubset.of_batch(inputs.G, inputs.Y, inputs.C, cells)
        found.append(_effects(name, subset, inputs, genes, units, options))
    return found


def _effects(
    name: str,
    cells: CellSubset,
    inputs: CRTInputs,
    genes: Sequence[str],
    units: NTCUnits,
    options: NTCEmpiricalOptions,
) -> BatchOfEffects:
    model = options.propensity_model if options.matching.use_pbar else None
    return BatchOfEffects(
        name,
        len(cells.residuals),
        cells.effects([inputs.columns(gene) for gene in genes], genes, model),
        cells.effects(list(units.guides), units.names, model),
        cells.residuals.std(axis=0),
    )


def _matching_info(found: BatchPValues, options: NTCEmpiricalOptions) -> dict[str, Any]:
    if not found.matching_info:
        return {"reason": "no_batches_passed"}
    if options.batch_mode == "pooled":
        return found.matching_info[0]
    return {
        "batch_mode": "meta",
        "combine_method": options.combine_method,
        "batch_count": len(found.matching_info),
        "batches": list(found.by_batch),
        "batch_matching_info": found.matching_info,
    }


def _crossfit(
    batches: Sequence[BatchOfEffects],
    genes: Sequence[str],
    programs: Sequence[str],
    units: NTCUnits,
    options: NTCEmpiricalOptions,
    matched_to: NDArray[np.bool_] | None,
) -> dict[str, Any]:
    """Compare genes and half B with half A; see `ntc_empirical_tests`."""
    import pandas as pd

    held_out = [units.names[i] for i in units.b]
    view: dict[str, Any] = {}
    infos: dict[str, Any] = {}
    is_pooled = options.batch_mode == "pooled"
    for what, labels, tested in (("real", list(genes), None), ("ntcB", held_out, units.b)):
        for by_unit in (False, True):
            found = batch_p_values(
                batches, options, tested=tested, null=units.a, matched_to=matched_to,
                by_unit=by_unit,
            )  # fmt: skip
            suffix = f"{what}_gene_vs_A" if by_unit else f"{what}_vs_A"

            def labelled(
                p: Array, labels: list[str] = labels, by_unit: bool = by_unit
            ) -> "DataFrame":
                return (
                    pd.Series(p[:, 0], labels)
                    if by_unit
                    else pd.DataFrame(p, labels, list(programs))
                )

            by_batch = {} if is_pooled else found.by_batch
            view[f"p_{suffix}_by_batch"] = {name: labelled(p) for name, p in by_batch.items()}
            view[f"meta_p_{suffix}"] = labelled(found.p)
            if not by_unit:
                view["batches"] = list(by_batch)
                infos[suffix] = _matching_info(found, options)
    view["matching_diagnostics"] = {
        "batch_mode": options.batch_mode,
        "combine_method": options.combine_method,
        "ntc_A_count": len(units.a),
        "ntc_B_count": len(units.b),
        **infos,
    }
    return view
