"""Propensities: each cell's probability of being treated, given its covariates.

The model of a unit is L2-penalised logistic regression with a free intercept,

    minimise  sum_i [log(1 + exp(eta_i)) - y_i eta_i] + |theta|^2 / (2 C_value)

over b0 and theta, where eta = b0 + C theta. It is solved to its optimum, where the mean propensity
is the share of treated cells. A constant column has coefficient 0 there, because the intercept is
free and it is not; it is left out.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from plait.crt.arguments import number_array, real_number, whole_number
from plait.crt.logistic import WIDTH, Design, fit_logistic, write_probabilities
from plait.crt.resampling import check_probabilities
from plait.data.words import counted
from plait.errors import (
    ConvergenceWarning,
    InputError,
    InputTypeError,
    ModelWarning,
    OptionError,
    ShapeError,
)
from plait.execution.threads import single_threaded_blas

Array = NDArray[np.float64]
PropensityModel = Callable[..., Any] | str | Array
"""A function of (C, y01), "const", or propensities (cells, units)."""

SMALLEST_PROPENSITY = 1e-6
"""Propensities are kept this far from 0 and 1."""
UNITS_PER_BLOCK = 2 * WIDTH
"""Units whose propensities are held together, at most."""
_HELD = 1 << 21
"""Propensities that are held together, where those of `WIDTH` units are no more."""
_IRRELEVANT = ("solver", "tol", "random_state", "warm_start", "verbose")
"""scikit-learn's options of how the optimum is found, which change nothing here."""


@dataclass(frozen=True, slots=True, eq=False)
class PropensityFit:
    """Fitted propensities of some units.

    Attributes
    ----------
    probabilities : (cells, units) array
        In [1e-6, 1 - 1e-6].
    intercepts : (units,) array
        Infinite for a unit of no or all cells.
    coefficients : (p, units) array
        0 for constant columns.
    iterations, halvings : (units,) int64 arrays
        Newton steps, and steps tried in vain and halved.
    converged : (units,) bool array
        Whether the last step was below the tolerance.
    separated : (units,) bool array
        Whether the unpenalised model had no optimum, so that ``C_value=1`` was used.
    """

    probabilities: Array
    intercepts: Array
    coefficients: Array
    iterations: NDArray[np.int64]
    halvings: NDArray[np.int64]
    converged: NDArray[np.bool_]
    separated: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class PropensityLogistic:
    """The fitted model of one unit.

    Attributes
    ----------
    intercept : float
        b0.
    coefficients : (p,) array
        theta, one for each column of C.
    iterations : int
        Newton steps.
    converged : bool
        Whether the last step was below the tolerance.
    """

    intercept: float
    coefficients: Array
    iterations: int
    converged: bool


@dataclass(frozen=True, slots=True, eq=False)
class PropensityDesign:
    """Covariates on which propensities are ready to be fitted, for many units in turn.

    Attributes
    ----------
    covariates : (cells, p) array
    varies : (p,) bool array
        The columns that are not constant.
    columns : Design
        The intercept and these.
    """

    covariates: Array
    varies: NDArray[np.bool_]
    columns: Design

    @classmethod
    def of(cls, C: Array) -> "PropensityDesign":
        """Return the design of (cells, p) covariates.

        Raises
        ------
        InputError, ShapeError
            They are no matrix, or not finite.
        """
        if C.ndim != 2:
            raise ShapeError(
                f"the covariates have the shape {C.shape}; a matrix with a row for each cell is "
                "expected."
            )
        columns = np.empty((1 + C.shape[1], len(C)))
        columns[0], columns[1:] = 1.0, C.T
        lowest, highest = columns.min(axis=1), columns.max(axis=1)
        wrong = np.flatnonzero(~(np.isfinite(lowest) & np.isfinite(highest))[1:])
        if len(wrong):
            raise InputError(
                f"the covariates are not finite in {counted(len(wrong), 'column')} (first: column "
                f"{wrong[0]})."
            )
        varies = highest > lowest
        varies[0] = True
        return cls(C, varies[1:], Design.of(columns if varies.all() else columns[varies]))


def fit_propensities(
    C: Array | PropensityDesign,
    treated: csc_array,
    *,
    names: Sequence[str] | None = None,
    C_value: float = 1.0,
    tolerance: float = 1e-8,
    max_iterations: int = 200,
) -> PropensityFit:
    """Fit the propensities of several units on the same covariates.

    Parameters
    ----------
    C : (cells, p) array or PropensityDesign
        Covariates, finite; constant columns are left out.
    treated : (cells, units) sparse array
        A column for each unit with ones at its treated cells.
    names : sequence of str, optional
        The units, for messages; by default their numbers.
    C_value : float
        Inverse strength of the penalty (1). ``inf`` means none; a unit whose treated cells the
        covariates then separate is fitted with 1 instead, with a warning.
    tolerance : float
        Newton's method ends after a full step with no larger entry (1e-8).
    max_iterations : int
        Of Newton steps and halvings of them (200).

    Returns
    -------
    PropensityFit
        The same bits whichever other units are fitted with a unit.

    Raises
    ------
    OptionError, InputError, ShapeError
        An option is out of range, or the arrays are not as described.

    Warns
    -----
    ConvergenceWarning
        Units reached ``max_iterations``; their propensities are those of the last step.
    ModelWarning
        Units were separated.

    Notes
    -----
    Memory 8 x cells x (units + p) bytes; see `propensity_blocks` for many units.
    """
    treated = treated.tocsc()
    design = C if isinstance(C, PropensityDesign) else PropensityDesign.of(C)
    _check_treated(design, treated)
    if not real_number(C_value, "C_value") > 0:
        raise OptionError(f"C_value is {C_value}; give a positive number, or inf for no penalty.")
    if (
        not real_number(tolerance, "the tolerance") > 0
        or whole_number(max_iterations, "max_iterations") < 1
    ):
        raise OptionError(
            f"the tolerance is {tolerance} and max_iterations {max_iterations}; both must be "
            "positive."
        )
    names = [str(j) for j in range(treated.shape[1])] if names is None else list(names)
    fits = _Fits(design, treated, 1.0 / C_value, tolerance, max_iterations)
    with single_threaded_blas():
        fits.fit(fits.is_varied)
        separated = fits.separated.copy()
        if separated.any():
            fits.penalty = 1.0
            fits.fit(separated)
    if separated.any():
        warnings.warn(
            "the covariates separate treated from untreated cells, or determine one another, in "
            f"fits of {_listed(names, separated)}; their propensities are fitted with C_value=1.",
            ModelWarning,
            stacklevel=2,
        )
    failed = fits.is_varied & ~fits.converged
    if failed.any():
        warnings.warn(
            f"the propensities of {_listed(names, failed)} did not converge within "
            f"{counted(max_iterations, 'iteration')}; give a larger max_iterations.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return PropensityFit(
        fits.probabilities,
        fits.intercepts,
        fits.coefficients,
        fits.iterations,
        fits.halvings,
        ~failed,
        separated,
    )


def fit_propensity_logistic(
    C: Array,
    y01: Array,
    penalty: str | None = "l2",
    C_value: float = 1.0,
    max_iter: int = 200,
    n_jobs: int = 1,
    **kw: Any,
) -> tuple[Array, PropensityLogistic]:
    """Fit one unit's propensities; programDE's name for it.

    Parameters
    ----------
    C : (cells, p) array
        Covariates.
    y01 : (cells,) array
        1 for treated cells, 0 for others.
    penalty : str or None
        "l2", or None for no penalty.
    C_value : float
        Inverse strength of the penalty (1).
    max_iter : int
        Newton steps and halvings of them (200).
    n_jobs : int
        Not used: one unit is fitted by one thread.
    **kw
        scikit-learn's solver, tol, random_state, warm_start and verbose are accepted and not used:
        the optimum is found in any case.

    Returns
    -------
    p : (cells,) array
        In [1e-6, 1 - 1e-6].
    model : PropensityLogistic

    Raises
    ------
    InputTypeError
        An option is unknown, or a value is no number (also a TypeError).
    OptionError, InputError, ShapeError
        See `fit_propensities`.

    Notes
    -----
    Minimises ``sum ln(1 + exp(eta)) - y eta + |theta|^2 / (2 C_value)``, ``eta = b0 + C theta``, by
    Newton's method with halved steps, so that the mean of p is the share of treated cells. Time
    O(cells p^2) for each of about 10 steps.
    """
    unknown = sorted(set(kw) - set(_IRRELEVANT))
    if unknown:
        raise InputTypeError(f"unknown options of the propensity model: {', '.join(unknown)}.")
    if penalty not in ("l2", None):
        raise OptionError(f"the penalty is {penalty!r}; give 'l2' or None.")
    C, y = number_array(C, "C"), number_array(y01, "y01")
    if y.ndim != 1 or not np.isin(y, (0.0, 1.0)).all():
        raise InputError("the treatment must be a vector of zeros and ones.")
    fit = fit_propensities(
        C,
        csc_array(y[:, None]),
        C_value=np.inf if penalty is None else C_value,
        max_iterations=max_iter,
    )
    model = PropensityLogistic(
        float(fit.intercepts[0]),
        fit.coefficients[:, 0],
        int(fit.iterations[0]),
        bool(fit.converged[0]),
    )
    return fit.probabilities[:, 0], model


def propensity_blocks(
    model: PropensityModel, C: Array | PropensityDesign, treated: csc_array, names: Sequence[str]
) -> Iterator[tuple[slice, Array]]:
    """Yield the propensities of units by any model, a block of units after another.

    Parameters
    ----------
    model : callable, "const" or (cells, units) array
        `fit_propensity_logistic` fits units of a block together. Any other function of (C, y01)
        may return p or (p, model) and is called for each unit. "const" is the share of treated
        cells. An array holds propensities from elsewhere.
    C : (cells, p) array or PropensityDesign
        Covariates; who asks for one block after another gives a design, made once.
    treated : (cells, units) sparse array
        A column for each unit with ones at its treated cells.
    names : sequence of str
        The units, for messages.

    Yields
    ------
    units : slice
        Of at most `units_per_block` units.
    probabilities : (cells, units of the block) array
        In [1e-6, 1 - 1e-6].

    Raises
    ------
    OptionError, InputError, ShapeError
        The model is unknown, or does not return a probability for each cell; also what
        `fit_propensities` raises.
    """
    treated = treated.tocsc()
    n_cells, n_units = treated.shape
    check_propensity_model(model)
    if isinstance(model, np.ndarray) and model.shape != (n_cells, n_units):
        raise ShapeError(
            f"the given propensities have the shape {model.shape}; {counted(n_cells, 'cell')} x "
            f"{counted(n_units, 'unit')} are expected."
        )
    covariates = C.covariates if isinstance(C, PropensityDesign) else C
    size = units_per_block(n_cells)
    for begin in range(0, n_units, size):
        units = slice(begin, min(begin + size, n_units))
        part = treated if n_units <= size else treated[:, units]
        if isinstance(model, str):
            shares = np.diff(part.indptr) / n_cells
            found = _clipped(np.broadcast_to(shares, part.shape))
        elif model is fit_propensity_logistic:
            found = fit_propensities(C, part, names=names[units]).probabilities
        else:
            found = np.empty(part.shape, order="F")
            for j, name in enumerate(names[units]):
                values = (
                    model[:, begin + j]
                    if isinstance(model, np.ndarray)
                    else evaluate_propensity_model(model, covariates, part[:, [j]].toarray()[:, 0])
                )
                found[:, j] = _checked(values, n_cells, name)
        yield units, found


def units_per_block(n_cells: int) -> int:
    """Return of how many units propensities are held together.

    `WIDTH` are fitted together; where cells are few, two such fits share what is done between.
    """
    return min(max(_HELD // n_cells, WIDTH), UNITS_PER_BLOCK)


def check_propensity_model(model: Any) -> None:
    """Refuse what is no propensity model.

    Raises
    ------
    OptionError
        It is a text other than "const".
    InputTypeError
        It is neither "const", a function nor an array (also a TypeError).
    ShapeError
        It is an array, but no matrix.
    """
    if isinstance(model, np.ndarray) and model.ndim != 2:
        raise ShapeError(
            f"the given propensities have {counted(model.ndim, 'dimension')}; cells x units are "
            "expected."
        )
    if (isinstance(model, str) and model == "const") or isinstance(model, np.ndarray):
        return
    if not callable(model):
        error = OptionError if isinstance(model, str) else InputTypeError
        raise error(
            f"the propensity model is {model!r}; give 'const', a function of (C, y01) or an array "
            "of cells x units."
        )


def evaluate_propensity_model(model: Callable[..., Any], C: Array, y01: Array) -> Any:
    """Return the propensities of a function that returns them alone or with a model."""
    returned = model(C, y01)
    return returned[0] if isinstance(returned, tuple) else returned


class _Fits:
    """Fits of all units, filled in block by block."""

    def __init__(
        self,
        design: PropensityDesign,
        treated: csc_array,
        penalty: float,
        tolerance: float,
        max_iterations: int,
    ) -> None:
        self.penalty, self.tolerance, self.max_iterations = penalty, tolerance, max_iterations
        self.treated = treated
        n_cells, n_units = treated.shape
        self._varies, self._design = design.varies, design.columns
        counts = np.diff(treated.indptr)
        self.is_varied = (counts > 0) & (counts < n_cells)
        self._rows = np.empty((n_units, n_cells))
        fixed = np.flatnonzero(~self.is_varied)
        self._rows[fixed] = _clipped(counts[fixed] / n_cells)[:, None]
        self.intercepts = np.where(counts > 0, np.inf, -np.inf)
        self.coefficients = np.zeros((len(design.varies), n_units))
        self.iterations = np.zeros(n_units, dtype=np.int64)
        self.halvings = np.zeros(n_units, dtype=np.int64)
        self.converged = np.zeros(n_units, dtype=bool)
        self.separated = np.zeros(n_units, dtype=bool)

    @property
    def probabilities(self) -> Array:
        """The (cells, units) propensities; a unit's are in one piece."""
        return self._rows.T

    def fit(self, wanted: NDArray[np.bool_]) -> None:
        """Fit the wanted units."""
        units = np.flatnonzero(wanted)
        for begin in range(0, len(units), WIDTH):
            block = units[begin : begin + WIDTH]
            is_all = len(block) == self.treated.shape[1]
            fit = fit_logistic(
                self._design,
                self.treated if is_all else self.treated[:, block],
                self.penalty,
                self.tolerance,
                self.max_iterations,
            )
            write_probabilities(
                self._design, fit.coefficients, SMALLEST_PROPENSITY, block, self._rows
            )
            self.intercepts[block] = fit.coefficients[0]
            self.coefficients[np.ix_(self._varies, block)] = fit.coefficients[1:]
            self.iterations[block] = fit.iterations
            self.halvings[block] = fit.halvings
            self.converged[block] = fit.converged
            self.separated[block] = fit.separated


def _clipped(values: Array) -> Array:
    return np.clip(values, SMALLEST_PROPENSITY, 1.0 - SMALLEST_PROPENSITY)


def _checked(values: Any, n_cells: int, name: str) -> Array:
    """Return one unit's propensities, or say whose are unusable."""
    try:
        checked = check_probabilities(number_array(values, "the model's answer"))
    except InputError as error:
        raise type(error)(f"unit {name!r}: {error}") from error
    if len(checked) != n_cells:
        raise ShapeError(
            f"unit {name!r} has {counted(len(checked), 'propensity', 'propensities')} for "
            f"{counted(n_cells, 'cell')}."
        )
    return _clipped(checked)


def _check_treated(design: PropensityDesign, treated: csc_array) -> None:
    if len(design.covariates) != treated.shape[0]:
        raise ShapeError(
            f"the covariates have the shape {design.covariates.shape} and the treatments "
            f"{treated.shape}; both must be matrices with a row for each cell."
        )
    if not (treated.data == 1).all():
        raise InputError("the treatments must be zeros and ones.")


def _listed(names: Sequence[str], chosen: NDArray[np.bool_]) -> str:
    """Return names for a message, the first five of them in words."""
    units = [name for name, is_chosen in zip(names, chosen, strict=True) if is_chosen]
    more = f" and {len(units) - 5} more" if len(units) > 5 else ""
    return ("unit " if len(units) == 1 else "units ") + ", ".join(map(repr, units[:5])) + more
