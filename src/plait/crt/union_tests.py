"""The names that users of programDE know: tests of genes by the union of their guides.

Thin doors to `plait.crt.model.perturbation_effects` and `plait.crt.unit_tests.UnitTester`.
"""

import logging
import os
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plait.crt.data import CRTInputs
from plait.crt.model import NEGATIVE_CONTROLS, Rates, chosen_units, run_tests
from plait.crt.ntc_empirical import NTCEmpirical, ntc_empirical_tests
from plait.crt.options import METHOD_NAMES, CRTOptions, refuse_idle, side_of_code
from plait.crt.propensity import PropensityModel, fit_propensity_logistic
from plait.crt.results import CRTResult
from plait.errors import OptionError
from plait.execution.executors import workforce
from plait.execution.progress import ProgressListener, listen
from plait.provenance import Provenance, json_safe

if TYPE_CHECKING:
    from pandas import DataFrame

Array = NDArray[np.float64]
SETTINGS = "plait"
"""What frames call, in their ``attrs``, how they were made."""
_log = logging.getLogger("plait.crt")


@dataclass(frozen=True, slots=True, eq=False)
class GeneRecord:
    """The tests of one gene, as programDE records them.

    Attributes
    ----------
    gene : str
    pvals, betas : (K,) arrays
    n_treated : int
    pvals_sn : (K,) array or None
        Skew-normal p-values.
    skew_params : (K, 3) array or None
        Location, scale and shape of the standardised null.
    pvals_raw : (K,) array or None
        Counted p-values.
    """

    gene: str
    pvals: Array
    betas: Array
    n_treated: int
    pvals_sn: Array | None = None
    skew_params: Array | None = None
    pvals_raw: Array | None = None


def run_all_genes_union_crt(
    inputs: CRTInputs,
    genes: Iterable[str] | None = None,
    B: int = 1023,
    n_jobs: int | None = 8,
    base_seed: int = 123,
    propensity_model: PropensityModel = fit_propensity_logistic,
    backend: str = "loky",
    resampling_method: str = "bernoulli_index",
    resampling_kwargs: Mapping[str, Any] | None = None,
    null_method: str = "crt",
    null_kwargs: Mapping[str, Any] | None = None,
    qq_crossfit: bool = False,
    calibrate_skew_normal: bool = False,
    skew_normal_side_code: int | None = None,
    return_skew_normal: bool = False,
    return_raw_pvals: bool = False,
    return_format: str = "dict",
    test_stat: str | None = "ols",
    test_stat_kwargs: Mapping[str, Any] | None = None,
    *,
    pvalue_method: str | None = None,
    side: str = "both",
    exclude_labels: Iterable[str] = (),
    fdr: str | None = "BH",
    fdr_scope: str = "all",
    threads: int | None = None,
    executor: Any = None,
    store: str | os.PathLike[str] | None = None,
    resume: bool = True,
    progress: ProgressListener | None = None,
) -> Any:
    """Test every gene on every program; programDE's name for `perturbation_effects`.

    Parameters
    ----------
    inputs : CRTInputs
    genes : iterable of str, optional
        Default all, sorted.
    B : int
        Resamples.
    n_jobs : int or None
        Threads, where ``threads`` does not say; never changes the numbers.
    base_seed : int
    propensity_model : callable, "const", (cells, units) array or DataFrame
        An array has a column for each of ``inputs.units``, in that order, whichever are tested; the
        columns of a DataFrame are found by the names of genes.
    backend : str
        Not used: threads share the inputs.
    resampling_method : {"bernoulli_index", "stratified_perm"}
    resampling_kwargs : mapping, optional
        Of stratified permutation: `plait.crt.strata.StrataOptions`.
    null_method : {"crt", "ntc_empirical"}
        The second compares effects with those of pseudo-genes made of negative-control guides:
        `plait.crt.ntc_empirical_tests`.
    null_kwargs : mapping, optional
        Options of "ntc_empirical": `plait.crt.ntc_empirical.NTCEmpiricalOptions`.
    qq_crossfit : bool
        Of "ntc_empirical": also hold half of the pseudo-genes against the other half.
    calibrate_skew_normal : bool
        Whether ``pvals_df`` holds skew-normal p-values.
    skew_normal_side_code : {-1, 0, 1}, optional
        Side of those alone: left, both or right. Default that of ``side``.
    return_skew_normal, return_raw_pvals : bool
        Whether skew-normal p-values and those that are counted are returned beside ``pvals_df``;
        without ``calibrate_skew_normal`` the latter are those of ``pvals_df``.
    return_format : {"dict", "tuple"}
    test_stat : {"ols", "utest"}
        And the peer's other names of them.
    test_stat_kwargs : mapping, optional
        Of the U statistic: what is ranked (``use``: "clr" as in programDE, "usage", or "residual",
        log-ratios given the covariates), ``rank_method`` and ``rank_dtype``. See the notes.
    pvalue_method : {"analytic", "empirical", "skew-normal", "adaptive"}, optional
        What ``pvals_df`` holds; by default what ``calibrate_skew_normal`` says.
    side : {"both", "left", "right"}
        Of all p-values.
    exclude_labels : iterable of str
        Genes, such as negative controls, that are not tested.
    fdr : {"BH", "BY", "storey", None}
        What ``qvals_df`` holds, over all tests that are not of negative controls.
    fdr_scope : {"all", "per_program", "per_gene"}
        What one family of tests is.
    threads, executor
        Who works: `perturbation_effects`.
    store : str or path, optional
        A store to write block by block, for `CRTResult.load`.
    resume : bool
        Whether the same call goes on from where an interrupted one was; else the store is replaced.
    progress : ProgressListener, optional
        Who is told how far the work is: `plait.execution.progress`.

    Returns
    -------
    dict or tuple
        ``pvals_df``, ``betas_df`` (genes x programs), ``treated_df``, ``results`` (list of
        `GeneRecord`), then on request ``pvals_raw_df``, ``pvals_skew_df``, ``skew_params``; of a
        dict also ``stat_name``, ``se_df``, ``t_df``, ``qvals_df``, ``status_df``, ``p_method_df``,
        ``resamples_df`` and, where they apply, ``p_flag_df`` (why an analytic p-value was drawn),
        ``sn_status_df`` (whether a skew-normal fits), ``strata_df`` and, of the U statistic,
        ``stats_df``. Of "ntc_empirical" it has the first four and
        ``stat_name``, ``qvals_df``, ``status_df``, ``null_method``, ``ntc_matching_info`` and, with
        ``qq_crossfit``, ``ntc_crossfit``.

    Raises
    ------
    OptionError
        Options are unknown or contradict one another; said before anything is computed.
    LabelError
        A gene has no guide (also a KeyError).
    InputTypeError
        An option has a value of another type (also a TypeError).
    InputError
        Propensities or strata cannot be made.

    Notes
    -----
    As in programDE the U statistic is not adjusted for covariates, and ``|r|`` of the data is held
    against ``|r|`` of resamples as they are. Where treatment goes with covariates that move a
    program, resamples have a mean: p-values are right without effects, but an effect against that
    mean is not seen (p near 1). Three ways see it: ``test_stat_kwargs={"use": "residual"}``, whose
    resamples have a mean of about 0; ``calibrate_skew_normal=True``, which takes twice the smaller
    tail; and one ``side``.

    Time and memory as of `perturbation_effects`: O(B n_1 (K + p)) for a gene of n_1 treated cells.
    """
    if return_format not in ("dict", "tuple"):
        raise OptionError(f"return_format is {return_format!r}; give 'dict' or 'tuple'.")
    as_dict = return_format == "dict"
    if null_method not in ("crt", "ntc_empirical"):
        raise OptionError(f"null_method is {null_method!r}; give 'crt' or 'ntc_empirical'.")
    options = CRTOptions.from_programde(
        _method(pvalue_method, calibrate_skew_normal), B, base_seed, propensity_model,
        resampling_method, resampling_kwargs, test_stat, test_stat_kwargs, side=side,
        calibrated_side=(
            None if skew_normal_side_code is None else side_of_code(skew_normal_side_code)
        ),
    )  # fmt: skip
    Rates(fdr, fdr_scope, ())  # says what is wrong before anything is computed
    is_calibrated, skewed = options.method == "skew-normal", "skew-normal p-values"
    is_counted = options.is_resampled and null_method == "crt"
    for option, asked, is_used, belongs_to in (
        ("skew_normal_side_code", skew_normal_side_code, is_calibrated, skewed),
        ("return_skew_normal", return_skew_normal, is_calibrated, skewed),
        ("return_raw_pvals", return_raw_pvals, is_counted, "p-values that are counted"),
    ):
        refuse_idle(option, asked or None, is_used, belongs_to)
    if null_method == "ntc_empirical":
        _refuse_resampling(B, propensity_model, resampling_method, resampling_kwargs)
        if options.statistic != "ols" or calibrate_skew_normal or pvalue_method or side != "both":
            raise OptionError(
                "null_method='ntc_empirical' compares absolute effects by least squares: take "
                "test_stat='ols', side='both', and neither calibrate_skew_normal nor pvalue_method."
            )
        for name, given in (("executor", executor), ("store", store)):
            refuse_idle(name, given, False, "null_method='crt'")
        names = chosen_units(inputs, genes, exclude_labels)
        found = ntc_empirical_tests(
            inputs, names, null_kwargs, base_seed=base_seed, qq_crossfit=qq_crossfit
        )
        frames = _frames_against_controls(found, fdr, fdr_scope)
        about = {"null_method": null_method, "null_kwargs": null_kwargs, "eps": inputs.eps}
        origin = Provenance("run_all_genes_union_crt", about, base_seed)
        frames["pvals_df"].attrs[SETTINGS] = origin.to_dict()
        return _view(frames, as_dict)
    if qq_crossfit or null_kwargs:
        raise OptionError("qq_crossfit and null_kwargs belong to null_method='ntc_empirical'.")
    _log.info("backend=%r is not used: threads share the inputs", backend)
    names = chosen_units(inputs, genes, exclude_labels)
    rates = Rates(fdr, fdr_scope, tuple(name for name in names if name in NEGATIVE_CONTROLS))
    force = workforce(executor, threads=n_jobs if threads is None else threads)
    with nullcontext() if progress is None else listen(progress):
        result = run_tests(inputs, names, options, rates, force, store, overwrite=not resume)
    view = frames_of(result)
    if not return_raw_pvals:
        view.pop("pvals_raw_df", None)
    if not return_skew_normal:
        view.pop("pvals_skew_df", None)
        view.pop("skew_params", None)
    return _view(view, as_dict)


def _refuse_resampling(
    B: int, propensity_model: PropensityModel, method: str, kwargs: Mapping[str, Any] | None
) -> None:
    """Refuse options of resampling where effects are compared with those of controls."""
    usual = CRTOptions(method="empirical")
    for name, given in (
        ("B", None if usual.resamples == B else B),
        ("propensity_model", None if propensity_model is usual.propensity_model else "one"),
        ("resampling_method", None if method == "bernoulli_index" else method),
        ("resampling_kwargs", kwargs),
    ):
        refuse_idle(name, given, False, "null_method='crt'")


def _view(frames: dict[str, Any], as_dict: bool) -> Any:
    """Return frames as they are, or as programDE's tuple."""
    if as_dict:
        return frames
    order = ("pvals_df", "betas_df", "treated_df", "results", "pvals_raw_df", "pvals_skew_df",
             "skew_params")  # fmt: skip
    return tuple(frames[name] for name in order if name in frames)


def _frames_against_controls(found: NTCEmpirical, fdr: str | None, scope: str) -> dict[str, Any]:
    frames = found.frames()
    controls = tuple(np.asarray(found.genes)[found.is_control].tolist())
    rates = Rates(fdr, scope, controls).of(found.p, found.status, found.genes)
    if rates is not None:
        like = frames["pvals_df"]
        frames["qvals_df"] = like.__class__(rates, like.index, like.columns)
    return _with_records(frames)


def run_one_gene_union_crt(gene: str, inputs: CRTInputs, **options: Any) -> GeneRecord:
    """Test one gene on every program.

    Parameters
    ----------
    gene : str
    inputs : CRTInputs
    **options
        Of `run_all_genes_union_crt`.

    Returns
    -------
    GeneRecord
        The same numbers as in a run of all genes.

    Raises
    ------
    OptionError, InputTypeError, InputError
        See `run_all_genes_union_crt`; also options of a run of all genes only.
    LabelError
        The gene has no guide (also a KeyError).
    """
    of_all = ("genes", "exclude_labels", "return_format", "null_method", "qq_crossfit", "store")
    unused = [name for name in of_all if name in options]
    if unused:
        raise OptionError(f"{unused[0]} is an option of run_all_genes_union_crt only.")
    record: GeneRecord = run_all_genes_union_crt(inputs, [gene], **options)["results"][0]
    return record


def _method(pvalue_method: str | None, calibrate_skew_normal: bool) -> str:
    if pvalue_method is None:
        return "skew-normal" if calibrate_skew_normal else "empirical"
    if calibrate_skew_normal and METHOD_NAMES.get(pvalue_method) != "skew-normal":
        raise OptionError(
            f"pvalue_method={pvalue_method!r} contradicts calibrate_skew_normal=True; give one of "
            "them."
        )
    return pvalue_method


def frames_of(result: CRTResult) -> dict[str, Any]:
    """Return a result as the dictionary of frames that programDE returns.

    Parameters
    ----------
    result : CRTResult

    Returns
    -------
    dict
        See `run_all_genes_union_crt`; what the method does not make is not in it.
    """
    import pandas as pd

    genes = pd.Index(result.units, name="gene")
    origin = {} if result.provenance is None else result.provenance.to_dict()

    def frame(values: Any) -> "DataFrame":
        made = pd.DataFrame(values, index=genes, columns=list(result.programs))
        made.attrs[SETTINGS] = {**origin, "options": json_safe(result.settings)}
        return made

    view: dict[str, Any] = {
        "pvals_df": frame(result.p),
        "betas_df": frame(result.beta),
        "treated_df": pd.Series(result.n_treated, index=genes, name="n_union_positive_cells"),
        "results": _records(result),
        "stat_name": "beta" if result.se is not None else "rank_biserial",
        "status_df": pd.Series(result.status, index=genes, name="status"),
        "p_method_df": frame(result.p_method),
    }
    if result.q is not None:
        view["qvals_df"] = frame(result.q)
    if result.se is None:
        view["stats_df"] = view["betas_df"]
    else:
        view["se_df"] = frame(result.se)
        view["t_df"] = frame(result.beta / result.se)
    if result.n_resamples is not None:
        view["resamples_df"] = frame(result.n_resamples)
    if result.p_flag is not None:
        view["p_flag_df"] = frame(result.p_flag)
    if result.skew_status is not None:
        view["sn_status_df"] = frame(result.skew_status)
    if strata := result.of_strata():
        view["strata_df"] = pd.DataFrame(strata, index=genes)
    if result.p_raw is not None:
        view["pvals_raw_df"] = frame(result.p_raw)
    if result.p_skew is not None:
        view["pvals_skew_df"] = frame(result.p_skew)
        view["skew_params"] = np.array(result.skew_parameters)
    return view


def _with_records(view: dict[str, Any]) -> dict[str, Any]:
    p, beta, treated = view["pvals_df"], view["betas_df"], view["treated_df"]
    records = [
        GeneRecord(gene, p.loc[gene].to_numpy(), beta.loc[gene].to_numpy(), int(treated[gene]))
        for gene in p.index
    ]
    return view | {"results": records}


def _records(result: CRTResult) -> list[GeneRecord]:
    def row(values: Array | None, j: int) -> Array | None:
        return None if values is None else values[j]

    return [
        GeneRecord(
            gene,
            result.p[j],
            result.beta[j],
            int(result.n_treated[j]),
            row(result.p_skew, j),
            row(result.skew_parameters, j),
            row(result.p_raw, j),
        )
        for j, gene in enumerate(result.units)
    ]
