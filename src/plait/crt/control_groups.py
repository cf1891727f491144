"""Groups of negative-control guides, tested like targets, say whether p-values are right."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from plait.crt.data import CRTInputs, require_inputs
from plait.crt.guides import as_names, indicator_matrix
from plait.crt.model import (
    NEGATIVE_CONTROLS,
    BlockOfTests,
    Rates,
    assembled,
    correlation_of,
    options_of,
)
from plait.crt.negative_controls import build_ntc_group_inputs, make_ntc_groups_matched_by_freq
from plait.crt.results import CRTResult
from plait.crt.unit_tests import UnitTester
from plait.data.words import counted
from plait.errors import InputError
from plait.execution.executors import workforce

_ENOUGH_GROUPS = 10


def control_group_effects(
    inputs: CRTInputs,
    *,
    negative_controls: Iterable[str] = NEGATIVE_CONTROLS,
    group_size: int | None = None,
    n_bins: int = 5,
    group_seed: int = 7,
    threads: int | None = None,
    **options: Any,
) -> CRTResult:
    """Test disjoint groups of negative-control guides on every program.

    Parameters
    ----------
    inputs : CRTInputs
    negative_controls : iterable of str
        Targets whose guides are controls.
    group_size : int, optional
        Guides of a group. Default as many as targets have in the middle, but so few that there are
        10 groups.
    n_bins : int
        Groups have the guide frequencies of some target, in so many bins of frequency.
    group_seed : int
        Of the partition into groups.
    threads : int, optional
        Default all cores; never changes the numbers.
    **options
        Of `perturbation_effects`: ``method``, ``statistic``, ``sampler``, ``side``, ``resamples``,
        ``propensity_model``, ``strata``, ``ranks``, ``seed``. Take those of the run that is to be
        judged.

    Returns
    -------
    CRTResult
        Units ``ntc_0``, ``ntc_1``, ..., without false discovery rates.

    Raises
    ------
    InputError
        No guide is a control, or all are.
    OptionError
        An option is unknown or out of range.

    Notes
    -----
    Groups share no guides, so in a screen of one guide per cell they are independent. There,
    however, the cells they are compared with are mostly perturbed ones: controls that differ from
    those show perturbations, not a fault of the test.
    """
    require_inputs(inputs)
    labels = as_names(negative_controls)
    sizes = [len(columns) for gene, columns in inputs.gene_to_cols.items() if gene not in labels]
    n_controls = sum(len(inputs.gene_to_cols[gene]) for gene in labels if gene in inputs.units)
    if not sizes or not n_controls:
        raise InputError(
            f"the screen has {counted(n_controls, 'guide')} of the negative controls "
            f"{', '.join(labels)} and {counted(len(sizes), 'other target')}; both are needed to "
            "see whether p-values are calibrated. Name other targets as negative_controls=."
        )
    if group_size is None:
        group_size = min(round(float(np.median(sizes))), max(1, n_controls // _ENOUGH_GROUPS))
    guides, frequencies, bins, signatures = build_ntc_group_inputs(
        inputs, labels, group_size, n_bins
    )
    groups = make_ntc_groups_matched_by_freq(
        guides, frequencies, signatures, bins, group_size, group_seed
    )
    column = {guide: j for j, guide in enumerate(inputs.guide_names)}
    treated = indicator_matrix(
        inputs.G, [[column[guide] for guide in group] for group in groups.values()]
    )
    chosen = options_of(**options)
    work = BlockOfTests(UnitTester(inputs, chosen), tuple(groups), treated)
    found = work.in_memory(workforce(threads=threads), "control groups")
    about = chosen.described() | {
        "cells": inputs.n_cells,
        "group_size": group_size,
        "group_seed": group_seed,
        "group_bins": getattr(groups, "n_bins", None),
        "control_guides": n_controls,
        "guides_of_target": round(float(np.median(sizes))),
    }
    rates, correlation = Rates(None, "all", tuple(groups)), correlation_of(inputs, chosen)
    return assembled(found, work, rates, about, None, correlation)
