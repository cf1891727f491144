"""P-values of a set of guides' resamples, each among the others, under programDE's names."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.crt.arguments import whole_number
from plait.crt.data import CRTInputs, require_inputs
from plait.crt.guides import guide_columns, indicator_matrix
from plait.crt.options import CRTOptions
from plait.crt.p_values import compute_null_pvals_from_null_stats
from plait.crt.propensity import PropensityModel, fit_propensity_logistic, propensity_blocks
from plait.crt.seeds import guide_set_name
from plait.crt.unit_tests import UnitTester
from plait.data.words import counted
from plait.errors import InputError, OptionError

Array = NDArray[np.float64]


def compute_gene_null_pvals(
    gene: str,
    inputs: CRTInputs,
    B: int = 1023,
    base_seed: int = 123,
    propensity_model: PropensityModel = fit_propensity_logistic,
    resampling_method: str = "bernoulli_index",
    resampling_kwargs: Mapping[str, Any] | None = None,
    side_code: int = 0,
    test_stat: str | None = "ols",
    test_stat_kwargs: Mapping[str, Any] | None = None,
) -> Array:
    """Return p-values of a gene's resamples, each among the others.

    Parameters
    ----------
    gene : str
    inputs : CRTInputs
    side_code : {-1, 0, 1}
        Left, both or right.
    B, base_seed, propensity_model, resampling_method, resampling_kwargs
        As in `run_all_genes_union_crt`.
    test_stat, test_stat_kwargs
        As in `run_all_genes_union_crt`.

    Returns
    -------
    (B, K) array
        `plait.crt.compute_null_pvals_from_null_stats` of each program, without the rows of
        resamples that treat no cell; see `crt_null_stats_for_test`.

    Raises
    ------
    InputError
        No cell or every cell is treated, or B is less than 1.
    LabelError
        The gene has no guide (also a KeyError).
    OptionError, InputTypeError
        See `run_all_genes_union_crt`.

    Notes
    -----
    Time O(B n_1 (K + p) + B K log B) for n_1 treated cells.
    """
    require_inputs(inputs)
    options = CRTOptions.from_programde(
        "empirical", B, base_seed, propensity_model, resampling_method, resampling_kwargs,
        test_stat, test_stat_kwargs,
    )  # fmt: skip
    null = null_statistics_of(inputs, gene, inputs.columns(gene), options)
    return compute_null_pvals_from_null_stats(null, side_code)


def compute_guide_set_null_pvals(
    guide_idx: ArrayLike,
    inputs: CRTInputs,
    B: int = 1023,
    base_seed: int = 123,
    propensity_model: PropensityModel = fit_propensity_logistic,
    resampling_method: str = "bernoulli_index",
    resampling_kwargs: Mapping[str, Any] | None = None,
    side_code: int = 0,
    test_stat: str | None = "ols",
    test_stat_kwargs: Mapping[str, Any] | None = None,
) -> Array:
    """Return p-values of the resamples of a set of guides, each among the others.

    Parameters
    ----------
    guide_idx : sequence of int
        Columns of the guides; repeats count once.
    inputs : CRTInputs
    side_code : {-1, 0, 1}
        Left, both or right.
    B, base_seed, propensity_model, resampling_method, resampling_kwargs
        As in `run_all_genes_union_crt`.
    test_stat, test_stat_kwargs
        As in `run_all_genes_union_crt`.

    Returns
    -------
    (B, K) array
        As of `compute_gene_null_pvals`.

    Raises
    ------
    InputError
        The set is empty, one is no column, no cell or every cell is treated, or B is less than 1.
    OptionError, InputTypeError
        See `run_all_genes_union_crt`.

    Notes
    -----
    Time as of `compute_gene_null_pvals`.
    """
    require_inputs(inputs)
    options = CRTOptions.from_programde(
        "empirical", B, base_seed, propensity_model, resampling_method, resampling_kwargs,
        test_stat, test_stat_kwargs,
    )  # fmt: skip
    columns = guide_columns(guide_idx, len(inputs.guide_names))
    name = guide_set_name([inputs.guide_names[j] for j in columns])
    null = null_statistics_of(inputs, name, columns, options)
    return compute_null_pvals_from_null_stats(null, side_code)


def crt_null_stats_for_test(
    gene: str, program_index: int, inputs: CRTInputs, B: int = 1023, base_seed: int = 123
) -> Array:
    """Return the effects of a gene on one program in all resamples.

    Parameters
    ----------
    gene : str
    program_index : int
        From 0.
    inputs : CRTInputs
    B, base_seed : int

    Returns
    -------
    (B,) array
        Without resamples that treat no cell (or every cell, or what the covariates determine): the
        gene would not be tested then. With few treated cells these are many; with 28 or more fewer
        than one in a million million.

    Raises
    ------
    InputError
        There is no such program, no cell or every cell is treated, or B is less than 1.
    LabelError
        The gene has no guide (also a KeyError).

    Notes
    -----
    Of all programs at once: time as of `compute_gene_null_pvals`.
    """
    require_inputs(inputs)
    if not 0 <= whole_number(program_index, "program_index") < inputs.n_programs:
        raise OptionError(
            f"program_index is {program_index}; there are {counted(inputs.n_programs, 'program')}, "
            "from 0."
        )
    options = CRTOptions(method="empirical", resamples=B, seed=base_seed)
    return null_statistics_of(inputs, gene, inputs.columns(gene), options)[:, program_index]


def null_statistics_of(
    inputs: CRTInputs, name: str, columns: ArrayLike, options: CRTOptions
) -> Array:
    """Return the statistic of a set of guides in the resamples that could be tested.

    Parameters
    ----------
    inputs : CRTInputs
    name : str
        Names the random stream.
    columns : sequence of int
        Of the guides.
    options : CRTOptions

    Returns
    -------
    (B, K) array
        Without resamples that treat no cell.

    Raises
    ------
    InputError
        No cell or every cell is treated, in the data or in all resamples, or B is less than 1.
    """
    treated = indicator_matrix(inputs.G, [columns])
    if not 0 < treated.nnz < inputs.n_cells:
        raise InputError(
            f"{name!r} has {treated.nnz:,} treated of {counted(inputs.n_cells, 'cell')}; treated "
            "and untreated cells are needed."
        )
    if options.resamples < 1:
        raise OptionError(f"B is {options.resamples}; give at least 1 resample.")
    tester = UnitTester(inputs, options)
    model = tester.propensity_model_of([name])
    ((_, probabilities),) = propensity_blocks(model, inputs.C, treated, [name])
    null = tester.null_statistics(name, treated.indices, probabilities[:, 0]).tested
    if not len(null):
        raise InputError(
            f"no cell is treated in {counted(options.resamples, 'resample')} of {name!r}; draw "
            "more of them (B), or leave it out."
        )
    return null
