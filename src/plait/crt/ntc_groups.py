"""P-values of groups of negative-control guides, tested as genes are, and of their resamples.

Groups come from `plait.crt.negative_controls`. The random numbers of a group depend on the seed,
its set and its name alone, so counted, skew-normal and null p-values are of the same resamples.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csc_array

from plait.crt.arguments import whole_number
from plait.crt.data import CRTInputs, require_inputs
from plait.crt.guides import guide_columns, indicator_matrix
from plait.crt.logistic import WIDTH
from plait.crt.model import BlockOfTests
from plait.crt.negative_controls import NTCGroups
from plait.crt.options import CRTOptions, side_of_code
from plait.crt.p_values import compute_null_pvals_from_null_stats
from plait.crt.propensity import PropensityModel, fit_propensity_logistic, propensity_blocks
from plait.crt.seeds import guide_set_name
from plait.crt.unit_tests import UnitTester
from plait.data.words import counted
from plait.errors import InputError, InputTypeError, LabelError, OptionError
from plait.execution.blocks import Block, plan_blocks
from plait.execution.executors import run_blocks, workforce
from plait.execution.progress import stage

if TYPE_CHECKING:
    from pandas import DataFrame

Array = NDArray[np.float64]
_log = logging.getLogger("plait.crt")


@dataclass(frozen=True, slots=True, eq=False)
class NullHistogram:
    """How often each p-value occurs among those of resamples.

    Attributes
    ----------
    p : (B,) array
        1/B, 2/B, ..., 1.
    counts : (B,) int array
    """

    p: Array
    counts: NDArray[np.int64]


def crt_pvals_for_guide_set(
    inputs: CRTInputs,
    guide_idx: ArrayLike,
    B: int = 1023,
    seed: int = 123,
    propensity_model: PropensityModel = fit_propensity_logistic,
    resampling_method: str = "bernoulli_index",
    resampling_kwargs: Mapping[str, Any] | None = None,
    test_stat: str | None = "ols",
    test_stat_kwargs: Mapping[str, Any] | None = None,
) -> Array:
    """Return the counted p-values of the union of some guides.

    Parameters
    ----------
    inputs : CRTInputs
    guide_idx : sequence of int
        Columns of the guides; repeats count once.
    B, seed : int
        Resamples, and the seed; the random numbers also depend on the names of the guides.
    propensity_model, resampling_method, resampling_kwargs, test_stat, test_stat_kwargs
        See `plait.crt.run_all_genes_union_crt`.

    Returns
    -------
    (K,) array
        1 where no cell or every cell is treated.

    Raises
    ------
    InputError
        There are no guides, or one is no column.
    InputTypeError
        The guides are not whole numbers (also a TypeError).
    OptionError
        Another option is unknown or out of range.

    Notes
    -----
    Time as for one target of `plait.crt.perturbation_effects`.
    """
    options = CRTOptions.from_programde(
        "empirical", B, seed, propensity_model, resampling_method, resampling_kwargs, test_stat,
        test_stat_kwargs,
    )  # fmt: skip
    p: Array = _of_guide_set(inputs, guide_idx, options)["p_raw"][0]
    return p


def crt_pvals_for_guide_set_skew(
    inputs: CRTInputs,
    guide_idx: ArrayLike,
    B: int = 1023,
    seed: int = 123,
    propensity_model: PropensityModel = fit_propensity_logistic,
    resampling_method: str = "bernoulli_index",
    resampling_kwargs: Mapping[str, Any] | None = None,
    side_code: int = 0,
    test_stat: str | None = "ols",
    test_stat_kwargs: Mapping[str, Any] | None = None,
) -> tuple[Array, Array]:
    """Return the skew-normal and the counted p-values of the union of some guides.

    Parameters
    ----------
    side_code : {-1, 0, 1}
        Side of the skew-normal p-values: left, both or right.
    inputs, guide_idx, B, seed, propensity_model, resampling_method, resampling_kwargs
        See `crt_pvals_for_guide_set`.
    test_stat, test_stat_kwargs
        See `crt_pvals_for_guide_set`.

    Returns
    -------
    p_skew, p_raw : (K,) arrays
        Of the same resamples; 1 where no cell or every cell is treated.

    Raises
    ------
    InputError, InputTypeError, OptionError
        See `crt_pvals_for_guide_set`; also a side code that there is not.
    """
    options = CRTOptions.from_programde(
        "skew-normal", B, seed, propensity_model, resampling_method, resampling_kwargs, test_stat,
        test_stat_kwargs, calibrated_side=side_of_code(side_code),
    )  # fmt: skip
    found = _of_guide_set(inputs, guide_idx, options)
    return found["p_skew"][0], found["p_raw"][0]


def crt_pvals_for_ntc_groups_ensemble(
    inputs: CRTInputs,
    ntc_groups_ens: Sequence[NTCGroups],
    B: int = 1023,
    seed0: int = 0,
    propensity_model: PropensityModel = fit_propensity_logistic,
    resampling_method: str = "bernoulli_index",
    resampling_kwargs: Mapping[str, Any] | None = None,
    test_stat: str | None = "ols",
    test_stat_kwargs: Mapping[str, Any] | None = None,
    expected_group_size: int = 6,
    n_jobs: int | None = None,
) -> dict[int, "DataFrame"]:
    """Return the counted p-values of sets of groups of control guides.

    Parameters
    ----------
    inputs : CRTInputs
    ntc_groups_ens : sequence of dict
        From `plait.crt.make_ntc_groups_ensemble`.
    B, seed0 : int
        Resamples, and the seed; the random numbers also depend on the set and the group.
    propensity_model, resampling_method, resampling_kwargs, test_stat, test_stat_kwargs
        See `plait.crt.run_all_genes_union_crt`.
    expected_group_size : int
        Guides of every group.
    n_jobs : int, optional
        Threads, default all cores; never changes the numbers.

    Returns
    -------
    dict of DataFrame
        Number of the set to its p-values, groups x programs.

    Raises
    ------
    InputError
        A set is empty, or a group of another size.
    InputTypeError
        The sets are no list of mappings, as where one set is given alone (also a TypeError).
    LabelError
        A guide is unknown.
    OptionError
        Another option is unknown or out of range.

    Notes
    -----
    Time as for as many targets of `plait.crt.perturbation_effects`.
    """
    options = CRTOptions.from_programde(
        "empirical", B, seed0, propensity_model, resampling_method, resampling_kwargs, test_stat,
        test_stat_kwargs,
    )  # fmt: skip
    found = _of_ensemble(inputs, ntc_groups_ens, options, expected_group_size, n_jobs)
    return _frames(found["p_raw"], ntc_groups_ens, inputs.program_names)


def crt_pvals_for_ntc_groups_ensemble_skew(
    inputs: CRTInputs,
    ntc_groups_ens: Sequence[NTCGroups],
    B: int = 1023,
    seed0: int = 0,
    propensity_model: PropensityModel = fit_propensity_logistic,
    resampling_method: str = "bernoulli_index",
    resampling_kwargs: Mapping[str, Any] | None = None,
    side_code: int = 0,
    test_stat: str | None = "ols",
    test_stat_kwargs: Mapping[str, Any] | None = None,
    expected_group_size: int = 6,
    n_jobs: int | None = None,
    return_both: bool = False,
) -> Any:
    """Return the skew-normal p-values of sets of groups of control guides.

    Parameters
    ----------
    side_code : {-1, 0, 1}
        Left, both or right.
    inputs, ntc_groups_ens, B, seed0, propensity_model, resampling_method, resampling_kwargs
        See `crt_pvals_for_ntc_groups_ensemble`.
    test_stat, test_stat_kwargs, expected_group_size, n_jobs
        See `crt_pvals_for_ntc_groups_ensemble`.
    return_both : bool
        Return the counted p-values of the same resamples too, which cost nothing more.

    Returns
    -------
    dict of DataFrame, or two of them
        Skew-normal and, with ``return_both``, counted p-values.

    Raises
    ------
    InputError, InputTypeError, LabelError, OptionError
        See `crt_pvals_for_ntc_groups_ensemble`; also a side code that there is not.
    """
    options = CRTOptions.from_programde(
        "skew-normal", B, seed0, propensity_model, resampling_method, resampling_kwargs, test_stat,
        test_stat_kwargs, calibrated_side=side_of_code(side_code),
    )  # fmt: skip
    found = _of_ensemble(inputs, ntc_groups_ens, options, expected_group_size, n_jobs)
    skew = _frames(found["p_skew"], ntc_groups_ens, inputs.program_names)
    if not return_both:
        return skew
    return skew, _frames(found["p_raw"], ntc_groups_ens, inputs.program_names)


def compute_ntc_group_null_pvals_parallel(
    inputs: CRTInputs,
    ntc_groups_ens: Sequence[NTCGroups],
    B: int = 1023,
    base_seed: int = 123,
    n_jobs: int | None = 8,
    backend: str = "threading",
    propensity_model: PropensityModel = fit_propensity_logistic,
    resampling_method: str = "bernoulli_index",
    resampling_kwargs: Mapping[str, Any] | None = None,
    side_code: int = 0,
    test_stat: str | None = "ols",
    test_stat_kwargs: Mapping[str, Any] | None = None,
    *,
    reduce: str | None = None,
) -> Any:
    """Return p-values of the resamples of all groups, each among those of its group and program.

    Parameters
    ----------
    n_jobs : int or None
        Threads; never changes the numbers.
    backend : str
        Not used: threads share the inputs.
    side_code : {-1, 0, 1}
        Left, both or right.
    reduce : {None, "hist"}
        "hist" counts the p-values, rounded to multiples of 1/B, instead of keeping all of them.
    inputs, ntc_groups_ens, B, base_seed, propensity_model, resampling_method, resampling_kwargs
        See `crt_pvals_for_ntc_groups_ensemble`.
    test_stat, test_stat_kwargs
        See `crt_pvals_for_ntc_groups_ensemble`.

    Returns
    -------
    (sets x groups x B x K,) array, or NullHistogram
        In the order of sets, groups, resamples, programs; without resamples that treat no cell.

    Raises
    ------
    InputError
        There are no groups, or no cell or every cell is treated in one.
    InputTypeError, LabelError, OptionError
        See `crt_pvals_for_ntc_groups_ensemble`; also an unknown ``reduce`` or side code, or B below
        1.

    Notes
    -----
    Memory 8 B K bytes for each group, or with ``reduce="hist"`` 16 B bytes in all.
    """
    del backend
    if reduce not in (None, "hist"):
        raise OptionError(f"reduce is {reduce!r}; give None or 'hist'.")
    whole_number(B, "B", least=1)
    options = CRTOptions.from_programde(
        "empirical", B, base_seed, propensity_model, resampling_method, resampling_kwargs,
        test_stat, test_stat_kwargs,
    )  # fmt: skip
    side_of_code(side_code)
    names, treated = _groups(inputs, ntc_groups_ens)
    counts = np.diff(treated.indptr)
    if ((counts == 0) | (counts == inputs.n_cells)).any():
        wrong = names[int(np.argmax((counts == 0) | (counts == inputs.n_cells)))]
        raise InputError(
            f"no cell or every cell carries a guide of the group {wrong!r}; it has no null."
        )
    work = _NullOfBlock(UnitTester(inputs, options), names, treated, side_code)
    parts: list[Array] = []
    histogram = np.zeros(B, dtype=np.int64)
    with stage("groups of controls", len(names)) as advance:
        blocks = plan_blocks(len(names), WIDTH)
        for block, found in run_blocks(work, blocks, workforce(threads=n_jobs), "crt"):
            if reduce is None:
                parts.append(found)
            else:
                rank = np.clip(np.rint(found * B).astype(np.int64), 1, B)
                histogram += np.bincount(rank - 1, minlength=B)
            advance(len(block))
    if reduce is None:
        return np.concatenate(parts)
    return NullHistogram(np.arange(1, B + 1) / B, histogram)


@dataclass(frozen=True, eq=False)
class _NullOfBlock:
    """Makes the null p-values of a block of groups, flattened."""

    tester: UnitTester
    names: tuple[str, ...]
    treated: csc_array
    side_code: int

    def __call__(self, block: Block) -> Array:
        treated, names = csc_array(self.treated[:, block.rows]), self.names[block.rows]
        model = self.tester.propensity_model_of(names)
        found = []
        for units, probabilities in propensity_blocks(
            model, self.tester.covariates, treated, names
        ):
            for place, j in enumerate(range(units.start, units.stop)):
                cells = treated.indices[treated.indptr[j] : treated.indptr[j + 1]]
                null = self.tester.null_statistics(names[j], cells, probabilities[:, place]).tested
                if len(null):
                    found.append(compute_null_pvals_from_null_stats(null, self.side_code).ravel())
        return np.concatenate(found) if found else np.empty(0)


def _of_guide_set(
    inputs: CRTInputs, guide_idx: ArrayLike, options: CRTOptions
) -> dict[str, NDArray[Any]]:
    require_inputs(inputs)
    columns = guide_columns(guide_idx, len(inputs.guide_names))
    name = guide_set_name([inputs.guide_names[j] for j in columns.tolist()])
    treated = indicator_matrix(inputs.G, [columns])
    return BlockOfTests(UnitTester(inputs, options), (name,), treated)(Block(0, 1))


def _of_ensemble(
    inputs: CRTInputs,
    ensemble: Sequence[NTCGroups],
    options: CRTOptions,
    expected_size: int,
    threads: int | None,
) -> dict[str, NDArray[Any]]:
    whole_number(expected_size, "expected_group_size", least=1)
    names, treated = _groups(inputs, ensemble)
    sizes = [len(guides) for groups in ensemble for guides in groups.values()]
    if set(sizes) != {expected_size}:
        raise InputError(
            f"groups have {min(sizes)} to {counted(max(sizes), 'guide')} (median "
            f"{np.median(sizes):g}); all must have expected_group_size={expected_size}."
        )
    _log.info(
        "%d groups of %d control guides; %d to %d treated cells, %g in the middle",
        len(names), expected_size, *np.quantile(np.diff(treated.indptr), [0, 1, 0.5]),
    )  # fmt: skip
    work = BlockOfTests(UnitTester(inputs, options), names, treated)
    return work.in_memory(workforce(threads=threads), "groups of controls")


def _groups(inputs: CRTInputs, ensemble: Sequence[NTCGroups]) -> tuple[tuple[str, ...], csc_array]:
    """Return the names and treated cells of all groups, set by set."""
    require_inputs(inputs)
    if isinstance(ensemble, str) or not isinstance(ensemble, Sequence):
        raise InputTypeError(
            f"the sets of groups are of type {type(ensemble).__name__}; give a list of what "
            "make_ntc_groups_matched_by_freq returns, or what make_ntc_groups_ensemble does."
        )
    if not len(ensemble):
        raise InputError("there are no sets of groups of negative-control guides.")
    column = {guide: j for j, guide in enumerate(inputs.guide_names)}
    names: list[str] = []
    sets: list[list[int]] = []
    for e, groups in enumerate(ensemble):
        if not isinstance(groups, Mapping):
            raise InputTypeError(f"set {e} is {groups!r}; give a mapping of groups to guides.")
        if not groups:
            raise InputError(f"set {e} of the ensemble has no groups of negative-control guides.")
        for group, guides in groups.items():
            if unknown := [guide for guide in guides if guide not in column]:
                raise LabelError(
                    f"the group {group!r} of set {e} has no known guide {unknown[0]!r}."
                )
            names.append(f"ntc:{e}:{group}")
            sets.append([column[guide] for guide in guides])
    return tuple(names), indicator_matrix(inputs.G, sets)


def _frames(
    p: Array, ensemble: Sequence[NTCGroups], programs: Sequence[str]
) -> dict[int, "DataFrame"]:
    import pandas as pd

    frames, begin = {}, 0
    for e, groups in enumerate(ensemble):
        frames[e] = pd.DataFrame(p[begin : begin + len(groups)], list(groups), list(programs))
        begin += len(groups)
    return frames
