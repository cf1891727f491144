"""Pseudo-genes of negative-control guides, and the effects that they are compared by."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csc_array

from plait.crt.data import CRTInputs
from plait.crt.guides import indicator_matrix
from plait.crt.ntc_null import UnitEffects, split_ntc_units
from plait.crt.propensity import PropensityModel, propensity_blocks
from plait.crt.statistic import ols_statistics, residualize
from plait.data.words import counted
from plait.errors import InputError, LabelError, MissingCovariateError, OptionError
from plait.execution.threads import single_threaded_blas

Array = NDArray[np.float64]
_UNITS_AT_ONCE = 256
_RANK_TOLERANCE = 1e-9
_LISTED = 10
"""Sets of guides that there are, to units, up to which they are listed so that none comes twice."""


@dataclass(frozen=True, slots=True, eq=False)
class NTCUnits:
    """Pseudo-genes: sets of control guides as large as those of genes.

    Attributes
    ----------
    guides : (units, guides per unit) array of int
        Columns of the guides, ascending in each unit.
    a, b : arrays of int
        The units of the two halves, of which A is the null and B is held against it.
    """

    guides: NDArray[np.int64]
    a: NDArray[np.int64]
    b: NDArray[np.int64]

    @property
    def names(self) -> list[str]:
        """``NTC_unit_000000`` and so on."""
        return [f"NTC_unit_{i:06d}" for i in range(len(self.guides))]


def draw_ntc_units(
    columns: ArrayLike,
    guides_per_unit: int = 6,
    n_ntc_units: int = 5000,
    seed: int = 0,
    *,
    split_seed: int = 0,
    frac_A: float = 0.5,
    split_by: str = "units",
) -> NTCUnits:
    """Draw pseudo-genes of control guides and split them into halves A and B.

    Parameters
    ----------
    columns : (controls,) array of int
        Columns of the control guides.
    guides_per_unit : int
        Distinct guides of a unit (6); units share guides.
    n_ntc_units : int
        Units (5000), each of them once: drawn again and again they would promise finer p-values
        than so many different units can give. Where there are fewer different ones, all of them;
        where there are more than 10 times as many, a few may come twice.
    seed, split_seed : int
        Of the draws, and of the split.
    frac_A : float
        Share of A, in (0, 1).
    split_by : {"units", "guides"}
        "units" splits the units, whose halves then share guides, so that B is not independent of
        its null A. "guides" splits the guides and draws the units of each half from its own.

    Returns
    -------
    NTCUnits

    Raises
    ------
    InputError
        There are too few guides, or fewer than 2 units.
    OptionError
        An option is unknown or out of range.
    """
    own = np.asarray(columns, dtype=np.int64)
    if guides_per_unit < 1:
        raise OptionError(f"guides_per_unit is {guides_per_unit}; give at least 1.")
    if split_by not in ("units", "guides"):
        raise OptionError(f"split_by is {split_by!r}; give 'units' or 'guides'.")
    random = np.random.default_rng(seed)
    if split_by == "units":
        guides = _draws(random, own, guides_per_unit, n_ntc_units)
        return NTCUnits(guides, *split_ntc_units(np.arange(len(guides)), frac_A, split_seed))
    halves = split_ntc_units(own, frac_A, split_seed)
    first = len(split_ntc_units(np.arange(n_ntc_units), frac_A, split_seed)[0])
    parts = [
        _draws(random, np.sort(half), guides_per_unit, count)
        for half, count in zip(halves, (first, n_ntc_units - first), strict=True)
    ]
    first, count = len(parts[0]), len(parts[0]) + len(parts[1])
    return NTCUnits(np.vstack(parts), np.arange(first), np.arange(first, count))


def _draws(
    random: np.random.Generator, columns: NDArray[np.int64], size: int, count: int
) -> NDArray[np.int64]:
    if len(columns) < size:
        raise InputError(
            f"{counted(len(columns), 'negative-control guide')} cannot make units of {size}; take "
            "fewer guides_per_unit, or name more labels of controls."
        )
    possible = math.comb(len(columns), size)
    if possible <= _LISTED * count:
        every = np.array(list(combinations(np.sort(columns).tolist(), size)), dtype=np.int64)
        if possible <= count:
            return every
        return every[np.sort(random.choice(possible, count, replace=False))]
    drawn = [random.choice(columns, size, replace=False) for _ in range(count)]
    return np.sort(np.array(drawn, dtype=np.int64).reshape(count, size), axis=1)


def control_columns(
    guide_names: Sequence[str], guide2gene: dict[str, str], labels: Iterable[str]
) -> NDArray[np.int64]:
    """Return the columns of the guides whose target is one of some labels, ascending.

    Raises
    ------
    InputError
        There are none.
    """
    wanted = {labels} if isinstance(labels, str) else set(labels)
    found = [j for j, guide in enumerate(guide_names) if guide2gene.get(guide) in wanted]
    if not found:
        raise InputError(
            f"no guide has a target among the labels of negative controls {sorted(wanted)}."
        )
    return np.array(found, dtype=np.int64)


def batches_of_cells(inputs: CRTInputs, key: str | None) -> NDArray[np.str_]:
    """Return the batch of each cell as text.

    Parameters
    ----------
    inputs : CRTInputs
    key : str or None
        The covariate that holds it; default the batch of the inputs.

    Raises
    ------
    LabelError
        There is no such batch (also a KeyError).
    MissingCovariateError
        Cells have none.
    """
    import pandas as pd

    if key is None or key == inputs.batch_key:
        values = inputs.batch_raw
        missing = "the screen has no batches"
    else:
        frame = inputs.covar_df_raw
        values = frame[key].to_numpy() if frame is not None and key in frame.columns else None
        missing = f"there is no covariate {key!r}"
    if values is None:
        raise LabelError(
            f"{missing}, and batch_mode='meta' compares within batches: give the covariates as a "
            "DataFrame with such a column (batch_key of prepare_crt_inputs), or "
            "batch_mode='pooled'."
        )
    if absent := int(pd.isna(values).sum()):
        raise MissingCovariateError(
            f"the batch of {counted(absent, 'cell')} is missing; give every cell one."
        )
    return np.array([str(value) for value in values.tolist()])


@dataclass(frozen=True, slots=True, eq=False)
class CellSubset:
    """The cells in which effects are estimated: all, or those of a batch.

    Attributes
    ----------
    guides : (cells, guides) csc_array
    residuals : (cells, K) array
        Programs given the covariates.
    basis : (cells, p) array
        Orthonormal basis of the covariates that vary among these cells, and the intercept.
    design : (cells, p) array
        The same covariates as they are, for propensities.
    """

    guides: csc_array
    residuals: Array
    basis: Array
    design: Array

    @classmethod
    def of_batch(
        cls, guides: csc_array, outcome: Array, design: Array, cells: NDArray[np.intp]
    ) -> "CellSubset":
        """Take some cells and regress their programs on the covariates that vary among them.

        Notes
        -----
        The basis has the rank of the covariates of these cells. Inverting ``C'C`` as it is would
        return rounding errors: a batch indicator is constant in its batch.
        """
        own = design[cells]
        basis = _orthonormal_basis(own)
        return cls(
            csc_array(guides.tocsr()[cells]), residualize(outcome[cells], basis, 1), basis, own
        )

    def effects(
        self,
        sets: Sequence[ArrayLike],
        names: Sequence[str],
        propensity_model: PropensityModel | None = None,
    ) -> UnitEffects:
        """Return the effects of sets of guides, block by block.

        They are 0, with nothing that the covariates leave of a treatment, where there are no more
        cells than covariates and one treatment.

        Parameters
        ----------
        sets : sequence of arrays of int
            Columns of the guides of each unit.
        names : sequence of str
            For messages of the propensity model.
        propensity_model : optional
            Default none, and no ``pbar``; see `plait.crt.propensity.propensity_blocks`.
        """
        parts = []
        for begin in range(0, len(sets), _UNITS_AT_ONCE):
            treated = indicator_matrix(self.guides, sets[begin : begin + _UNITS_AT_ONCE])
            beta, d = self._estimates(treated)
            own = names[begin : begin + _UNITS_AT_ONCE]
            pbar = None
            if propensity_model is not None:
                pbar = mean_logit_propensities(propensity_model, self.design, treated, own)
            parts.append(UnitEffects(beta, np.diff(treated.indptr).astype(np.int64), d, pbar))
        return UnitEffects(
            np.concatenate([part.beta for part in parts]),
            np.concatenate([part.n1 for part in parts]),
            np.concatenate([part.d for part in parts]),
            None
            if propensity_model is None
            else np.concatenate([part.pbar for part in parts if part.pbar is not None]),
        )

    def _estimates(self, treated: csc_array) -> tuple[Array, Array]:
        n_cells, width = self.basis.shape
        if n_cells <= width + 1:
            return np.zeros((treated.shape[1], self.residuals.shape[1])), np.zeros(treated.shape[1])
        found = ols_statistics(self.residuals, self.basis, treated)
        return found.beta, found.denominator


def mean_logit_propensities(
    model: PropensityModel, C: Array, treated: csc_array, names: Sequence[str]
) -> Array:
    """Return each unit's mean over cells of the logit of its propensities.

    Parameters
    ----------
    model : callable, "const" or (cells, units) array
        See `plait.crt.propensity.propensity_blocks`.
    C : (cells, p) array
    treated : (cells, units) csc_array
    names : sequence of str
        For messages.

    Returns
    -------
    (units,) array
        0 for a unit of no or all cells.
    """
    n_treated = np.diff(treated.indptr)
    mixed = np.flatnonzero((n_treated > 0) & (n_treated < treated.shape[0]))
    means = np.zeros(treated.shape[1])
    own = [names[j] for j in mixed.tolist()]
    chosen = model[:, mixed] if isinstance(model, np.ndarray) else model
    for units, p in propensity_blocks(chosen, C, csc_array(treated[:, mixed]), own):
        means[mixed[units]] = (np.log(p) - np.log1p(-p)).mean(axis=0)
    return means


def _orthonormal_basis(design: Array) -> Array:
    """Return an orthonormal basis of the span of columns; the first one is the intercept."""
    scale = np.sqrt((design**2).sum(axis=0))
    with single_threaded_blas():
        vectors, values, _ = np.linalg.svd(
            design / np.where(scale > 0, scale, 1.0), full_matrices=False
        )
    return np.ascontiguousarray(vectors[:, values > _RANK_TOLERANCE * values[0]])
