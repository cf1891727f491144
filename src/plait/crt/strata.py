"""Strata of cells with like propensity, batch and burden, within which treatment is permuted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.crt.arguments import number_array, option_names, real_number, whole_number
from plait.crt.resampling import check_probabilities
from plait.data.words import counted
from plait.errors import InputError, InputTypeError, LabelError, OptionError, ShapeError

_BIN_METHODS = ("quantile", "uniform")
_MOST_BINS = 1_000_000
_EVERYWHERE = np.empty(0, dtype=np.int64)
"""Stands for a batch or a burden that cells are not stratified by."""


@dataclass(frozen=True, slots=True)
class StrataOptions:
    """How strata are made.

    Attributes
    ----------
    n_bins : int
        Quantile bins of the propensity (20); at most 1 gives a single one.
    stratify_by_batch : bool
        Keep batches apart (True).
    batch_key : str
        The covariate that holds the batch ("batch").
    min_stratum_size : int or None
        Strata with fewer cells are merged into one (2); None or at most 1 merges none.
    burden_key : str or None
        A covariate to stratify by too, such as the number of guides of a cell (None).
    n_burden_bins : int
        Its bins (8).
    burden_bin_method : str
        "quantile" (default) or "uniform" bins of it.
    burden_clip_quantiles : tuple of float
        It is clipped to these quantiles before it is binned, (0, 1).

    Raises
    ------
    InputTypeError
        A value is of another type (also a TypeError).
    OptionError
        A value is out of range.
    """

    n_bins: int = 20
    stratify_by_batch: bool = True
    batch_key: str = "batch"
    min_stratum_size: int | None = 2
    burden_key: str | None = None
    n_burden_bins: int = 8
    burden_bin_method: str = "quantile"
    burden_clip_quantiles: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        whole_number(self.n_bins, "n_bins", most=_MOST_BINS)
        whole_number(self.n_burden_bins, "n_burden_bins", most=_MOST_BINS)
        if self.min_stratum_size is not None:
            whole_number(self.min_stratum_size, "min_stratum_size")
        if not isinstance(self.stratify_by_batch, (bool, np.bool_)):
            raise InputTypeError(
                f"stratify_by_batch is {self.stratify_by_batch!r}; give True or False."
            )
        for name in ("batch_key", "burden_key"):
            key = getattr(self, name)
            if not isinstance(key, str) and not (name == "burden_key" and key is None):
                raise InputTypeError(f"{name} is {key!r}; give the name of a covariate.")
        _check_bins(self.burden_bin_method, self.burden_clip_quantiles)

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any] | None) -> Self:
        """Return the options of a dictionary.

        Raises
        ------
        InputTypeError
            They are no mapping, an option is unknown, or its value of another type; it is also a
            TypeError.
        OptionError
            A value is out of range.
        """
        known = [field.name for field in fields(cls)]
        return cls(**option_names(options, known, "stratified permutation"))


def compute_bins(
    values: ArrayLike,
    n_bins: int,
    method: str = "quantile",
    clip_quantiles: tuple[float, float] = (0.0, 1.0),
) -> tuple[NDArray[np.int64], int, NDArray[np.float64]]:
    """Cut values into bins.

    Parameters
    ----------
    values : (cells,) array
        Finite numbers.
    n_bins : int
        Bins wanted, up to a million; at most 1 gives a single one.
    method : str
        "quantile": edges at equally spaced probabilities (linear interpolation). "uniform": edges
        equally spaced from the least to the greatest value.
    clip_quantiles : tuple of float
        Values are clipped to these quantiles first.

    Returns
    -------
    bins : (cells,) int64 array
        A bin includes its lower edge; the last one its upper edge too.
    n_effective : int
        Bins left after equal edges were joined.
    edges : array
        Distinct, ascending; n_effective + 1 of them, or for a single bin at most two.

    Raises
    ------
    OptionError, InputError, ShapeError, InputTypeError
        An option or value is not as described.

    Notes
    -----
    Time O(cells log cells).
    """
    _check_bins(method, clip_quantiles)
    n_bins = whole_number(n_bins, "n_bins", most=_MOST_BINS)
    numbers = number_array(values, "the vector to bin")
    if numbers.ndim != 1:
        raise ShapeError(
            f"values to bin have {counted(numbers.ndim, 'dimension')}; a vector is expected."
        )
    is_finite = np.isfinite(numbers)
    if not is_finite.all():
        raise InputError(f"{int((~is_finite).sum())} of the values to bin are not finite.")
    single = np.zeros(len(numbers), dtype=np.int64)
    if n_bins <= 1 or not len(numbers):
        return single, 1, np.empty(0)
    if tuple(clip_quantiles) != (0.0, 1.0):
        numbers = np.clip(numbers, *np.quantile(numbers, clip_quantiles))
    # In order, quantiles are single values, and bins are runs.
    order = np.argsort(numbers)
    ascending = numbers[order]
    if method == "quantile":
        edges = _quantiles(ascending, np.linspace(0.0, 1.0, n_bins + 1))
    else:
        edges = np.unique(np.linspace(ascending[0], ascending[-1], n_bins + 1))
    if len(edges) <= 2:
        return single, 1, edges
    n_effective = len(edges) - 1
    firsts = np.searchsorted(ascending, edges[1:-1])
    sizes = np.diff(firsts, prepend=0, append=len(numbers))
    bins = np.empty(len(numbers), dtype=np.int64)
    bins[order] = np.repeat(np.arange(n_effective), sizes)
    return bins, n_effective, edges


def _quantiles(ascending: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distinct quantiles of values in order."""
    from plait.crt.strata_kernels import fill_edges

    edges = np.empty(len(shares))
    return edges[: fill_edges(ascending, shares, edges)]


@dataclass(frozen=True, slots=True, eq=False)
class Strata:
    """The strata of one unit.

    Attributes
    ----------
    stratum : (cells,) int64 array
        Each cell's stratum; the merged one, if any, is the last.
    sizes, treated : (strata,) int64 arrays
        Cells and treated cells.
    propensity_bins : int
        Bins of the propensity that were left after equal edges were joined.
    """

    stratum: NDArray[np.int64]
    sizes: NDArray[np.int64]
    treated: NDArray[np.int64]
    propensity_bins: int

    @property
    def is_informative(self) -> NDArray[np.bool_]:
        """Strata with treated and untreated cells: only they vary between resamples."""
        return (self.treated > 0) & (self.treated < self.sizes)

    @property
    def n_informative(self) -> int:
        """Number of informative strata; without any, every resample equals the data."""
        return int(self.is_informative.sum())

    @property
    def uninformative_treated_share(self) -> float:
        """Share of the treated cells that are in uninformative strata; 0 without any treated."""
        treated = int(self.treated.sum())
        return float(self.treated[~self.is_informative].sum() / treated) if treated else 0.0


class Stratification:
    """Makes each unit's strata; what units share is computed once.

    Parameters
    ----------
    options : StrataOptions
        How.
    batch : (cells,) array, optional
        Batch values of any type; missing values are a batch of their own. None: not stratified by.
    burden : (cells,) array, optional
        Burden values; None: not stratified by.

    Raises
    ------
    InputError, ShapeError
        The burden is missing somewhere or not numeric.
    """

    def __init__(
        self,
        options: StrataOptions,
        batch: ArrayLike | None = None,
        burden: ArrayLike | None = None,
    ) -> None:
        self.options = options
        n_bins = options.n_bins
        self._shares = np.linspace(0.0, 1.0, n_bins + 1) if n_bins > 1 else np.empty(0)
        self._batch = None if batch is None else first_appearance_codes(batch)
        self.burden_bins: NDArray[np.int64] | None = None
        self.n_burden_bins = 1
        self.burden_edges = np.empty(0)
        if burden is not None:
            self.burden_bins, self.n_burden_bins, self.burden_edges = compute_bins(
                numeric_burden(burden, options.burden_key),
                options.n_burden_bins,
                options.burden_bin_method,
                options.burden_clip_quantiles,
            )

    def strata(
        self, probabilities: NDArray[np.float64], treated_cells: NDArray[np.integer]
    ) -> Strata:
        """Return the strata of one unit.

        Parameters
        ----------
        probabilities : (cells,) array
            The unit's propensities.
        treated_cells : integer array
            Its treated cells, each once.

        Returns
        -------
        Strata

        Raises
        ------
        InputError, ShapeError
            The propensities are not one probability for each cell.
        """
        from plait.crt.strata_kernels import fill_strata

        probabilities = check_probabilities(probabilities)
        n_cells = len(probabilities)
        for name, shared in (("batch", self._batch), ("burden", self.burden_bins)):
            if shared is not None and len(shared) != n_cells:
                raise ShapeError(
                    f"the cells have {counted(n_cells, 'propensity', 'propensities')} and "
                    f"{counted(len(shared), 'value')} of the {name}."
                )
        stratum, sizes = np.empty(n_cells, dtype=np.int64), np.empty(n_cells, dtype=np.int64)
        n_strata, n_bins = fill_strata(
            probabilities,
            np.sort(probabilities),
            self._shares,
            _EVERYWHERE if self._batch is None else self._batch,
            _EVERYWHERE if self.burden_bins is None else self.burden_bins,
            self.n_burden_bins,
            max(self.options.min_stratum_size or 1, 1),
            stratum,
            sizes,
        )
        treated = np.bincount(stratum[treated_cells], minlength=n_strata)
        return Strata(stratum, sizes[:n_strata].copy(), treated, n_bins)


def stratification_values(
    options: StrataOptions,
    covariates: Any = None,
    batch: ArrayLike | None = None,
    batch_name: str | None = None,
) -> tuple[ArrayLike | None, ArrayLike | None]:
    """Look up the batch and the burden that the options name.

    Parameters
    ----------
    options : StrataOptions
        What to look for.
    covariates : DataFrame or mapping, optional
        Raw covariates by name; None where they came as an array.
    batch : (cells,) array, optional
        The batch that is taken where the covariates have none, if it has the name asked for or
        nobody named one.
    batch_name : str, optional
        What it is called.

    Returns
    -------
    batch, burden : arrays or None
        None where not stratified by; for the batch also where there is none, which the caller
        should warn about.

    Raises
    ------
    LabelError
        The burden's covariate does not exist, or the batch's, and it is named.
    """
    burden = None
    if options.burden_key is not None:
        if covariates is None or options.burden_key not in covariates:
            raise LabelError(
                f"there is no covariate {options.burden_key!r} to take the burden from; give the "
                "covariates as a DataFrame with that column or leave burden_key out."
            )
        burden = covariates[options.burden_key]
    if not options.stratify_by_batch:
        return None, burden
    if covariates is not None and options.batch_key in covariates:
        batch = covariates[options.batch_key]
    elif options.batch_key not in (batch_name, StrataOptions().batch_key):
        names = [] if covariates is None else [repr(str(name)) for name in covariates]
        known = f"the covariates {', '.join(names)}" if names else "no covariates with names"
        stored = "" if batch_name is None else f" and the batch {batch_name!r} of the inputs"
        raise LabelError(
            f"there is no covariate {options.batch_key!r}, which batch_key names; there are {known}"
            f"{stored}. Name one of them, or give stratify_by_batch=False."
        )
    return batch, burden


def first_appearance_codes(values: ArrayLike) -> NDArray[np.int64]:
    """Return values as numbers from 0 in order of first appearance; missing ones are one value."""
    listed = np.asarray(values, dtype=object)
    if listed.ndim != 1:
        raise ShapeError(
            f"batch values have {counted(listed.ndim, 'dimension')}; a vector is expected."
        )
    numbers: dict[Any, int] = {}
    # Few are distinct: only they are looked at one by one.
    codes = dict.fromkeys(listed.tolist(), 0)
    for value in codes:
        # A value that differs from itself (NaN) or has no truth (pandas.NA) is missing.
        is_missing = value is None or not _equals_itself(value)
        codes[value] = numbers.setdefault(None if is_missing else value, len(numbers))
    return np.fromiter(map(codes.__getitem__, listed.tolist()), np.int64, len(listed))


def _equals_itself(value: Any) -> bool:
    try:
        return bool(value == value)
    except TypeError:
        return False


def numeric_burden(burden: ArrayLike, key: str | None) -> NDArray[np.float64]:
    """Return a burden as numbers, or say what is wrong with it."""
    try:
        values = np.asarray(burden, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"the burden {key!r} is not numeric ({error}).") from error
    if not np.isfinite(values).all():
        raise InputError(
            f"the burden {key!r} is missing or infinite in "
            f"{counted(int((~np.isfinite(values)).sum()), 'cell')}; fill it in or remove them."
        )
    return values


def _check_bins(method: str, clip_quantiles: tuple[float, float]) -> None:
    if method not in _BIN_METHODS:
        raise OptionError(f"the bin method is {method!r}; give one of {', '.join(_BIN_METHODS)}.")
    if not isinstance(clip_quantiles, Sequence) or isinstance(clip_quantiles, str):
        raise InputTypeError(f"the clip quantiles are {clip_quantiles!r}; give two numbers.")
    bounds = [real_number(bound, "a clip quantile") for bound in clip_quantiles]
    if len(bounds) != 2 or not 0 <= bounds[0] <= bounds[1] <= 1:
        raise OptionError(
            f"the clip quantiles are {clip_quantiles}; give a lower and an upper one between 0 "
            "and 1."
        )
