"""Which cells have which guides: by a threshold, by the largest count, or by a mixture."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from plait.crt.arguments import require_made_by, share, whole_number
from plait.crt.gene_data import GeneScreenData
from plait.crt.gene_design import GeneDesign, default_formula, design_columns
from plait.data.labels import describe_difference, require_distinct
from plait.data.words import counted
from plait.errors import (
    DataWarning,
    InputError,
    InputTypeError,
    LabelError,
    OptionError,
    ShapeError,
)
from plait.execution.blocks import Block, plan_blocks
from plait.execution.executors import run_blocks, workforce
from plait.execution.progress import stage

if TYPE_CHECKING:
    from polars import DataFrame

Array = NDArray[np.float64]

METHODS = ("thresholding", "maximum", "mixture", "given")
_IN_WORDS = {
    "thresholding": "those with enough counts",
    "maximum": "the one with the largest count",
    "mixture": "by mixtures of their counts and a background",
    "given": "as they were given",
}
_MIXTURES = ("log_link", "legacy")
_SHARES = np.array(
    [
        0.05858417249783875,
        0.00090449011278338743,
        0.02938102380202385,
        0.027744722042519137,
        0.081359285751008426,
    ]
)
_EFFECTS = np.array(
    [
        3.9210416299978474,
        6.8044838200572926,
        7.9335927143859131,
        8.2004981364621354,
        2.7571493049453513,
    ]
)
_STARTS = np.array([3.0, 10.0, 30.0, 100.0, 300.0, 1000.0])
"""Counts that at first are a guide's; backgrounds of many counts need high ones."""
_FEWEST_CELLS = 10
"""A guide found in fewer cells is assigned by the threshold."""
_GUIDES_PER_BLOCK = 8
_TRUE, _FALSE = ("true", "1"), ("false", "0")


@dataclass(frozen=True, eq=False)
class GuideAssignment:
    """Which cells have which guides.

    Attributes
    ----------
    cells : (N, G) csc_array of int8
        1 where a cell has a guide.
    guides : (G,) array of str
    cell_names : (N,) array of str
    is_uncertain : (N,) array of bool
        Cells whose largest guide has too small a share of their guide counts, or which have too
        few of these (by the method "maximum").
    by_threshold : tuple of str
        Guides that the mixture could not be fitted to, and which a threshold assigned.
    settings : dict
    """

    cells: csc_array
    guides: NDArray[np.str_]
    cell_names: NDArray[np.str_]
    is_uncertain: NDArray[np.bool_]
    by_threshold: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def guides_per_cell(self) -> NDArray[np.int64]:
        """How many guides each cell has."""
        return np.bincount(self.cells.indices, minlength=self.cells.shape[0])

    def to_frame(self) -> "DataFrame":
        """Return a table of guides and the cells that have them.

        Returns
        -------
        polars.DataFrame
            ``grna_id``, ``cell`` and ``is_uncertain`` (of the cell).
        """
        import polars as pl

        counts = np.diff(self.cells.indptr)
        return pl.DataFrame(
            {
                "grna_id": np.repeat(self.guides, counts),
                "cell": self.cell_names[self.cells.indices],
                "is_uncertain": self.is_uncertain[self.cells.indices],
            }
        )

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return arrays, for `numpy.savez`, that `of_arrays` makes the same assignment of."""
        return {
            "indptr": self.cells.indptr,
            "indices": self.cells.indices,
            "is_uncertain": self.is_uncertain,
            "by_threshold": np.array(self.by_threshold, dtype=np.str_),
            "settings": np.array(json.dumps(self.settings)),
        }

    @classmethod
    def of_arrays(
        cls, arrays: Mapping[str, NDArray[Any]], data: GeneScreenData
    ) -> "GuideAssignment":
        """Return the assignment that `to_arrays` was called of, with the same data."""
        indices = arrays["indices"]
        return cls(
            csc_array(
                (np.ones(len(indices), dtype=np.int8), indices, arrays["indptr"]),
                shape=(data.n_cells, len(data.targets.guides)),
            ),
            data.targets.guides,
            data.cell_names,
            arrays["is_uncertain"],
            tuple(arrays["by_threshold"].tolist()),
            json.loads(str(arrays["settings"])),
        )

    def summary(self) -> str:
        """Say in a few lines what was assigned."""
        per_guide, per_cell = np.diff(self.cells.indptr), self.guides_per_cell
        lines = [
            f"{counted(len(self.guides), 'guide')} assigned to "
            f"{counted(len(self.cell_names), 'cell')}: "
            f"{_IN_WORDS[self.settings['method']]}",
            f"  cells with a guide: {int((per_cell > 0).sum()):,}; with one: "
            f"{int((per_cell == 1).sum()):,}; guides in a cell: {per_cell.mean():.2f}",
            f"  cells of a guide: {np.median(per_guide):,.0f} (median), {per_guide.min():,} to "
            f"{per_guide.max():,}",
        ]
        if count := int(self.is_uncertain.sum()):
            lines.append(f"  uncertain, without most counts in one guide: {counted(count, 'cell')}")
        if self.by_threshold:
            guides = counted(len(self.by_threshold), "guide")
            lines.append(f"  assigned by the threshold, as no mixture fits: {guides}")
        return "\n".join(lines)


def assign_guides(
    data: GeneScreenData,
    method: str | None = None,
    *,
    threshold: int = 5,
    smallest_share: float = 0.8,
    smallest_count: int = 5,
    smallest_probability: float = 0.8,
    mixture: str = "log_link",
    formula: str | None = None,
    threads: int | None = None,
    executor: Any = None,
) -> GuideAssignment:
    """Decide which cells have which guides.

    Parameters
    ----------
    data : GeneScreenData
    method : {"thresholding", "maximum", "mixture"}, optional
        Guides with at least ``threshold`` counts; the guide with the most counts (where cells have
        one guide; the default there); or a mixture of two distributions for each guide (the default
        where they have many). Guides that came as truth values are taken as they are.
    threshold : int
        Counts, of "thresholding", and of guides that the mixture cannot be fitted to.
    smallest_share, smallest_count : float, int
        Of "maximum": cells are uncertain where the guide's share of all guide counts is not above
        the one (0.8), or these are fewer than the other (5). Quality control removes them.
    smallest_probability : float
        Of "mixture": what a cell's probability of having the guide must be (0.8).
    mixture : {"log_link", "legacy"}
        With "log_link" (default) the background's mean has a logarithm that is linear in the
        formula, fitted to cells without the guide, and the guide's counts have a mean and a spread
        of their own. "legacy" is sceptre's, for its tables: the background is fitted to all cells,
        and the guide adds to it (its update of the effect multiplies; see its issue 220).
    formula : str, optional
        Of the background: see `plait.crt.gene_design.design_columns`. Default all covariates,
        counts of guides among them.
    threads : int, optional
        Default all cores; never changes the result.
    executor : concurrent.futures.Executor or dask.distributed.Client, optional
        Who works on the mixtures.

    Returns
    -------
    GuideAssignment

    Raises
    ------
    OptionError
        An option is unknown, out of range, or "maximum" is asked for where cells have many guides.
    InputError, LabelError
        The formula cannot be used.

    Warns
    -----
    DataWarning
        No cell has any guide.

    Notes
    -----
    Mixture: of counts y in cells with covariates x, Poisson with the mean ``exp(x b)`` without the
    guide, and negative binomial above 0 with it. EM from the cells with at least 3, 10, 30, 100,
    300 or 1,000 counts, at most 100 steps each, to a change of the log-likelihood below 1e-3; the
    best is kept. In a step, b is moved once by Newton's method over the cells weighted by their
    probabilities of not having the guide, with a standard normal prior of slopes; mean and variance
    with the guide are those of counts weighted by the others, the size at least 1. A count that is
    not above the background's mean is never a guide's. "legacy": a Poisson regression of all
    counts, then EM from five starts, at most 50 steps each, to a relative change below 5e-5.

    A guide with counts in fewer than 10 cells, or that no mixture can be fitted to, is assigned by
    the threshold. Time O(cells) for each step and guide. docs/crt.md compares the rules.
    """
    require_made_by(data, "data", ("guides", "is_assigned", "moi"), "gene_screen_data")
    whole_number(threshold, "threshold", least=1)
    whole_number(smallest_count, "smallest_count", least=0)
    share(smallest_share, "smallest_share")
    if share(smallest_probability, "smallest_probability") == 0.0:
        raise OptionError("smallest_probability is 0.0; give a number above 0, up to 1.")
    if method is None:
        method = default_method(data)
    if method not in METHODS:
        raise OptionError(f"method is {method!r}; give 'thresholding', 'maximum' or 'mixture'.")
    if mixture not in _MIXTURES:
        raise OptionError(f"mixture is {mixture!r}; give 'log_link' or 'legacy'.")
    if method == "maximum" and data.moi == "high":
        raise OptionError(
            "method 'maximum' finds one guide in each cell, but moi is 'high'; give 'mixture' or "
            "'thresholding'."
        )
    if data.is_assigned != (method == "given"):
        raise OptionError(
            f"method is {method!r}, but the guides came as "
            f"{'truth values, which need none' if data.is_assigned else 'counts'}."
        )
    uncertain = np.zeros(data.n_cells, dtype=bool)
    by_threshold: tuple[str, ...] = ()
    settings: dict[str, Any] = {"method": method}
    if method == "thresholding":
        settings["threshold"] = threshold
        lists = [_at_least(data, column, threshold) for column in range(data.guides.shape[1])]
    elif method == "given":
        lists = [_at_least(data, column, 1) for column in range(data.guides.shape[1])]
    elif method == "maximum":
        settings |= {"smallest_share": smallest_share, "smallest_count": smallest_count}
        lists, uncertain = _largest(data, smallest_share, smallest_count)
    else:
        settings |= {
            "mixture": mixture,
            "smallest_probability": smallest_probability,
            "threshold": threshold,
            "formula": default_formula(data, with_guides=True) if formula is None else formula,
        }
        names, columns = design_columns(data, settings["formula"])
        design = GeneDesign.of(names, columns, leave_out_determined=formula is None)
        work = _Mixtures(data, design.rows, threshold, smallest_probability, mixture == "legacy")
        lists, by_threshold = _mixtures(work, threads, executor)
    return _assembled(data, lists, uncertain, by_threshold, settings)


def assignment_from_table(data: GeneScreenData, table: Any) -> GuideAssignment:
    """Return an assignment that was made before, from its table.

    Parameters
    ----------
    data : GeneScreenData
    table : DataFrame, mapping of columns or GuideAssignment
        ``grna_id`` and ``cell`` (names of cells), as `GuideAssignment.to_frame` returns, and
        ``is_uncertain`` if there is such a column.

    Raises
    ------
    LabelError
        A column is missing, a guide or a cell is not among those of the data, or cells of the data
        have the same name. An assignment is of other cells or guides, or of others in order.
    InputError
        ``is_uncertain`` holds what is no truth value.
    InputTypeError
        It is no table (also a TypeError).
    ShapeError
        Its columns are of different lengths.
    """
    if isinstance(table, GuideAssignment):
        _require_same(table, data)
        return table
    if not isinstance(table, Mapping) and not hasattr(table, "columns"):
        raise InputTypeError(
            f"the table of assigned guides is of type {type(table).__name__}; give a DataFrame or "
            "a mapping of columns."
        )
    columns = []
    require_distinct("cell of the data", data.cell_names.tolist())
    for name, known in (("grna_id", data.targets.guides), ("cell", data.cell_names)):
        if name not in table:
            raise LabelError(f"the table of assigned guides has no column {name!r}.")
        values = np.asarray(table[name]).astype(np.str_)
        places = {label: place for place, label in enumerate(known.tolist())}
        if absent := [value for value in values.tolist() if value not in places]:
            raise LabelError(f"{absent[0]!r} in the column {name!r} is none of the data's.")
        columns.append(np.array([places[value] for value in values.tolist()], dtype=np.int32))
    guides, cells = columns
    if len(guides) != len(cells):
        raise ShapeError(
            f"the assignment has {counted(len(guides), 'guide')} and {counted(len(cells), 'cell')}."
        )
    order = np.argsort(guides, kind="stable")
    ends = np.cumsum(np.bincount(guides, minlength=len(data.targets.guides)))[:-1]
    lists = [np.unique(part) for part in np.split(cells[order], ends)]
    uncertain = np.zeros(data.n_cells, dtype=bool)
    if "is_uncertain" in table:
        uncertain[cells] = _truth_values(np.asarray(table["is_uncertain"]))
    return _assembled(data, lists, uncertain, (), {"method": "given"})


def _require_same(assignment: GuideAssignment, data: GeneScreenData) -> None:
    """Refuse an assignment of other cells or guides, whose places would mean others here."""
    for what, names, known in (
        ("cells", assignment.cell_names, data.cell_names),
        ("guides", assignment.guides, data.targets.guides),
    ):
        if not np.array_equal(names, known):
            difference = describe_difference(known.tolist(), names.tolist())
            raise LabelError(
                f"the assignment is not of the same {what} in the same order as the data: "
                f"{difference}. Of the same in another order give its table, assignment.to_frame()."
            )


def _truth_values(values: NDArray[Any]) -> NDArray[np.bool_]:
    texts = np.char.lower(values.astype(np.str_))
    known = np.isin(texts, [*_TRUE, *_FALSE])
    if not known.all():
        raise InputError(
            f"the column 'is_uncertain' of the table of assigned guides holds "
            f"{str(values[int(np.argmin(known))])!r}; give true or false."
        )
    return np.isin(texts, _TRUE)


def default_method(data: GeneScreenData) -> str:
    """Return how guides are assigned unless one says otherwise."""
    if data.is_assigned:
        return "given"
    return "maximum" if data.moi == "low" else "mixture"


def _assembled(
    data: GeneScreenData,
    lists: list[NDArray[np.int32]],
    uncertain: NDArray[np.bool_],
    by_threshold: tuple[str, ...],
    settings: dict[str, Any],
) -> GuideAssignment:
    cells = indicator_of_lists(lists, data.n_cells)
    if cells.nnz == 0:
        warnings.warn(
            "no cell has any guide; are the counts of guides the right ones?",
            DataWarning,
            stacklevel=3,
        )
    return GuideAssignment(
        cells, data.targets.guides, data.cell_names, uncertain, by_threshold, settings
    )


def indicator_of_lists(lists: list[NDArray[np.int32]], n_cells: int) -> csc_array:
    """Return the (cells, lists) matrix of ones at the ascending cells of each list."""
    bounds = np.concatenate([[0], np.cumsum([len(part) for part in lists])]).astype(np.int64)
    cells = np.concatenate([np.empty(0, dtype=np.int32), *lists]).astype(np.int32)
    ones = np.ones(len(cells), dtype=np.int8)
    return csc_array((ones, cells, bounds), shape=(n_cells, len(lists)))


def _column(data: GeneScreenData, column: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    part = slice(data.guides.indptr[column], data.guides.indptr[column + 1])
    return data.guides.indices[part], data.guides.data[part]


def _at_least(data: GeneScreenData, column: int, threshold: int) -> NDArray[np.int32]:
    cells, counts = _column(data, column)
    return cells[counts >= threshold]


def _largest(
    data: GeneScreenData, smallest_share: float, smallest_count: int
) -> tuple[list[NDArray[np.int32]], NDArray[np.bool_]]:
    """Return the cells of which each guide has the most counts (the first, of equal ones)."""
    largest = np.zeros(data.n_cells, dtype=np.float32)
    winner = np.zeros(data.n_cells, dtype=np.int64)
    for column in range(data.guides.shape[1]):
        cells, counts = _column(data, column)
        above = counts > largest[cells]
        largest[cells[above]], winner[cells[above]] = counts[above], column
    total = np.bincount(data.guides.indices, data.guides.data, minlength=data.n_cells)
    uncertain = (largest <= smallest_share * total) | (total < smallest_count)
    lists = [
        np.flatnonzero((winner == column) & (largest > 0)).astype(np.int32)
        for column in range(data.guides.shape[1])
    ]
    return lists, uncertain


@dataclass(frozen=True, eq=False)
class _Mixtures:
    """Fits the mixtures of a block of guides."""

    data: GeneScreenData
    design: Array
    threshold: int
    smallest_probability: float
    is_legacy: bool

    def __call__(self, block: Block) -> list[tuple[NDArray[np.int32], bool]]:
        """Return each guide's cells, and whether the mixture was fitted."""
        return [self._cells(column) for column in range(block.start, block.stop)]

    def _cells(self, column: int) -> tuple[NDArray[np.int32], bool]:
        cells, counts = _column(self.data, column)
        if len(cells) >= _FEWEST_CELLS:
            found = self._legacy(cells, counts) if self.is_legacy else self._fit(cells, counts)
            if found is not None:
                return found, True
        return cells[counts >= self.threshold], False

    def _fit(
        self, cells: NDArray[np.int32], counts: NDArray[np.float32]
    ) -> NDArray[np.int32] | None:
        """Return the cells with the guide, None without a fit."""
        from plait.crt.assignment_signal_kernels import signal_posterior

        own = counts.astype(np.float64)
        levels, level_of = np.unique(own, return_inverse=True)
        posterior = np.empty(len(own))
        fitted = signal_posterior(self.design, cells, own, levels, level_of, _STARTS, posterior)
        return cells[posterior >= self.smallest_probability] if fitted else None

    def _legacy(
        self, cells: NDArray[np.int32], counts: NDArray[np.float32]
    ) -> NDArray[np.int32] | None:
        """As `_fit`, as sceptre does, where cells without counts may have the guide."""
        from plait.crt.assignment_kernels import additive_posterior
        from plait.crt.negative_binomial_kernels import fit_poisson

        dense = np.zeros(self.data.n_cells)
        dense[cells] = counts
        background, posterior = np.empty(len(dense)), np.empty(len(dense))
        fit_poisson(self.design, dense, np.empty(len(self.design)), background)
        if not additive_posterior(dense, background, _SHARES, _EFFECTS, posterior):
            return None
        return np.flatnonzero(posterior >= self.smallest_probability).astype(np.int32)


def _mixtures(
    work: _Mixtures, threads: int | None, executor: Any
) -> tuple[list[NDArray[np.int32]], tuple[str, ...]]:
    guides = work.data.targets.guides
    found: list[tuple[NDArray[np.int32], bool]] = []
    with stage("guides", len(guides)) as advance:
        blocks = plan_blocks(len(guides), _GUIDES_PER_BLOCK)
        for block, part in run_blocks(work, blocks, workforce(executor, None, threads), "assign"):
            found += part
            advance(len(block))
    failed = tuple(str(name) for name, (_, fitted) in zip(guides, found, strict=True) if not fitted)
    return [cells for cells, _ in found], failed
