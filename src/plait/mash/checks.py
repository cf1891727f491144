"""The door of mash: every check of the data, in the order in which a user should hear of them.

The order of the steps is part of the contract: it decides which error is shown first.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.data.words import listed
from plait.errors import (
    DataWarning,
    InputError,
    InputTypeError,
    LabelError,
    ModelWarning,
    NotPositiveDefiniteError,
    OptionError,
    ShapeError,
)
from plait.numerics.gaussian import z_from_two_sided_p
from plait.numerics.linalg import (
    cholesky,
    cov_to_cor,
    is_identity,
    symmetrise,
    told_by_others,
)
from plait.numerics.student import normal_errors

Array = NDArray[np.float64]
Names = tuple[str, ...] | None
RowNames = NDArray[np.str_] | None


def read_matrices(
    Bhat: Any, Shat: Any, condition_names: Sequence[str] | None, effect_names: Sequence[str] | None
) -> tuple[Array, Array | None, Names, RowNames]:
    """Return float64 copies of the inputs and their labels (steps 1 and 4)."""
    columns, rows = _frame_labels(Bhat)
    shat_columns, shat_rows = _frame_labels(Shat)
    for what, ours, theirs in (("column", columns, shat_columns), ("row", rows, shat_rows)):
        if ours is not None and theirs is not None and list(ours) != list(theirs):
            raise LabelError(
                f"the {what} labels of Bhat and Shat differ{_first_difference(ours, theirs)}. "
                "They are never aligned silently: put both tables in the same order first."
            )
    columns = list(condition_names) if condition_names is not None else columns or shat_columns
    rows = list(effect_names) if effect_names is not None else rows or shat_rows
    effects = _matrix(Bhat, "Bhat")
    if effects.shape[0] == 0 or effects.shape[1] == 0:
        raise ShapeError(f"Bhat is empty: its dimensions are {effects.shape}.")
    errors = None
    if Shat is not None:
        if np.ndim(Shat) == 0:
            errors = np.full(effects.shape, float(Shat))
        else:
            errors = _matrix(Shat, "Shat")
        if errors.shape != effects.shape:
            raise ShapeError(
                f"the dimensions of Bhat {effects.shape} and Shat {errors.shape} differ; "
                "they must be equal."
            )
    return (
        effects,
        errors,
        _names(columns, effects.shape[1], "condition"),
        _row_names(rows, effects),
    )


def _frame_labels(value: Any) -> tuple[list[str] | None, list[str] | None]:
    if not hasattr(value, "columns") or not hasattr(value, "to_numpy"):
        return None, None
    columns = [str(name) for name in value.columns]
    if not hasattr(value, "index"):
        return columns, None
    if type(value.index).__name__ == "RangeIndex":
        return columns, None
    return columns, [str(name) for name in value.index]


def _first_difference(ours: list[str], theirs: list[str]) -> str:
    if sorted(ours) == sorted(theirs):
        return " in their order"
    for position, (a, b) in enumerate(zip(ours, theirs, strict=False)):
        if a != b:
            return f" (first at position {position + 1}: {a!r} and {b!r})"
    return f" ({len(ours)} and {len(theirs)} of them)"


def _matrix(value: Any, what: str) -> Array:
    try:
        matrix: Array = np.array(value, dtype=np.float64, order="C")
    except (TypeError, ValueError) as error:
        raise InputTypeError(f"{what} must be numeric: {error}.") from None
    if matrix.ndim != 2:
        raise ShapeError(
            f"{what} must have two dimensions (effects x conditions), not {matrix.ndim}."
        )
    return matrix


def _names(names: list[str] | None, count: int, what: str) -> Names:
    if names is None:
        return None
    if len(names) != count:
        raise ShapeError(f"{len(names)} {what} names were given for {count} {what}s.")
    labels = tuple(str(name) for name in names)
    if len(set(labels)) < count:
        repeated = next(label for label in labels if labels.count(label) > 1)
        raise LabelError(f"the {what} name {repeated!r} occurs more than once; names must differ.")
    return labels


def _row_names(names: list[str] | None, effects: Array) -> RowNames:
    if names is None:
        return None
    if len(names) != len(effects):
        raise ShapeError(f"{len(names)} effect names were given for {len(effects)} effects.")
    labels: NDArray[np.str_] = np.asarray(names, dtype=np.str_)
    labels.flags.writeable = False
    return labels


def place(cell: Any, rows: RowNames, columns: Names) -> str:
    """Name a cell for an error message."""
    j, r = int(cell[0]), int(cell[1])
    row = repr(str(rows[j])) if rows is not None else str(j)
    column = repr(columns[r]) if columns is not None else str(r)
    return f"row {row}, column {column}"


def check_sources(Shat: Any, pval: ArrayLike | None, df: ArrayLike) -> None:
    """Refuse two sources of the standard errors (step 2)."""
    if pval is None:
        return
    if Shat is not None:
        raise OptionError("cannot both give Shat and pval: the standard errors follow from pval.")
    if np.any(np.isfinite(np.asarray(df, dtype=np.float64))):
        raise OptionError("cannot both give pval and a finite df.")


def errors_from_p_values(
    effects: Array, errors: Array | None, pval: ArrayLike | None
) -> tuple[Array, Array]:
    """Derive standard errors from p-values, or take 1 where neither is given (steps 1, 3)."""
    if pval is None:
        return effects, np.ones_like(effects) if errors is None else errors
    p = _matrix(pval, "pval")
    if p.shape != effects.shape:
        raise ShapeError(f"the dimensions of Bhat {effects.shape} and pval {p.shape} differ.")
    if np.any(p <= 0) or np.any(p > 1):
        cell = np.argwhere((p <= 0) | (p > 1))[0]
        raise InputError(
            f"p-values must be in (0, 1]; found {p[tuple(cell)]:g} at {place(cell, None, None)}."
        )
    undefined = ((p == 1) | (effects == 0)) & ~np.isnan(p) & ~np.isnan(effects)
    if undefined.any():
        cell = np.argwhere(undefined)[0]
        raise InputError(
            f"{int(undefined.sum())} cells have p-value 1 or effect 0, which leaves the standard "
            f"error undefined (first: {place(cell, None, None)}). Give Shat, or mark them missing."
        )
    return effects, np.abs(effects) / z_from_two_sided_p(p)


def check_infinite(effects: Array, errors: Array) -> tuple[Array, Array]:
    """Refuse infinite effects; take an infinite standard error for a missing cell (step 5)."""
    if np.isinf(effects).any():
        cell = np.argwhere(np.isinf(effects))[0]
        raise InputError(f"Bhat contains Inf (first: {place(cell, None, None)}).")
    if np.any(errors == -np.inf):
        cell = np.argwhere(errors == -np.inf)[0]
        raise InputError(f"Shat contains -Inf (first: {place(cell, None, None)}).")
    missing = np.isposinf(errors)
    if missing.any():
        effects = np.where(missing, np.nan, effects)
        errors = np.where(missing, np.nan, errors)
    return effects, errors


def check_zero_errors(
    effects: Array,
    errors: Array,
    tolerance: float,
    both_reset: float,
    shat_reset: float,
    rows: RowNames,
    columns: Names,
) -> Array:
    """Refuse negative standard errors and refuse or reset zeros (steps 6 and 7)."""
    negative = errors < -tolerance
    if negative.any():
        cell = np.argwhere(negative)[0]
        raise InputError(
            f"Shat contains {int(negative.sum())} negative values (first: "
            f"{place(cell, rows, columns)}). Have Bhat and Shat been swapped?"
        )
    zero = errors <= tolerance
    if not zero.any():
        return errors
    both = zero & (np.abs(effects) <= tolerance)
    errors = errors.copy()
    for cells, reset, option in (
        (both, both_reset, "zero_Bhat_Shat_reset"),
        (zero & ~both, shat_reset, "zero_Shat_reset"),
    ):
        if not cells.any():
            continue
        if reset <= 0:
            first = np.argwhere(cells)[0]
            raise InputError(
                f"standard errors contain {int(cells.sum())} zeros (first: "
                f"{place(first, rows, columns)}). A standard error must be positive. If these "
                "cells were not tested, mark them missing (NaN); to give them a value, use "
                f"{option}."
            )
        errors[cells] = reset
    return errors


def check_correlation(V: ArrayLike | None, n_effects: int, width: int, v_ridge: float) -> Array:
    """Return the error correlation as (R, R) or (J, R, R) (step 8)."""
    if V is None:
        matrices: Array = np.eye(width)
    else:
        matrices = np.array(V, dtype=np.float64, order="C")
    if matrices.ndim == 3 and matrices.shape != (n_effects, width, width):
        if matrices.shape == (width, width, n_effects):
            matrices = np.ascontiguousarray(matrices.transpose(2, 0, 1))
        else:
            raise ShapeError(
                f"V has dimension {matrices.shape}; expected ({width}, {width}) or "
                f"({n_effects}, {width}, {width})."
            )
    if matrices.ndim not in (2, 3) or matrices.shape[-2:] != (width, width):
        raise ShapeError(
            f"V has dimension {matrices.shape}; expected ({width}, {width}) for {width} conditions."
        )
    if not np.isfinite(matrices).all():
        raise InputError("V contains values that are not finite.")
    if np.abs(matrices - np.swapaxes(matrices, -1, -2)).max() > 1e-10:
        raise InputError("V must be symmetric (to 1e-10).")
    if v_ridge < 0:
        raise OptionError(f"v_ridge is {v_ridge:g}; it cannot be negative.")
    matrices = symmetrise(matrices)
    if v_ridge > 0:
        matrices = matrices + v_ridge * np.eye(width)
    try:
        cholesky(matrices, "V")
    except NotPositiveDefiniteError as error:
        raise NotPositiveDefiniteError(
            f"V must be positive definite: {error} A small v_ridge may help."
        ) from None
    return matrices


def errors_from_t(effects: Array, errors: Array, df: ArrayLike) -> Array:
    """Inflate the errors of t statistics to give the t-test's p-values (step 9)."""
    degrees = np.asarray(df, dtype=np.float64)
    if np.isnan(degrees).any() or np.any(degrees <= 0):
        raise InputError("df must be positive.")
    if not np.isfinite(degrees).any():
        return errors
    try:
        degrees = np.broadcast_to(degrees, effects.shape)
    except ValueError:
        raise ShapeError(
            f"df has dimensions {degrees.shape}; give one number or {effects.shape}."
        ) from None
    use = np.isfinite(degrees) & ~np.isnan(effects) & ~np.isnan(errors)
    adjusted = errors.copy()
    adjusted[use] = normal_errors(effects[use], errors[use], degrees[use])
    return adjusted


def missing_pattern(effects: Array, errors: Array) -> NDArray[np.bool_] | None:
    """Return the missing cells, the same in both tables (step 10)."""
    mask: NDArray[np.bool_] = np.isnan(effects)
    if not np.all(errors == 1) and not np.array_equal(mask, np.isnan(errors)):
        cell = np.argwhere(mask != np.isnan(errors))[0]
        raise InputError(
            "Missing data pattern is inconsistent between Bhat and Shat (first: "
            f"{place(cell, None, None)}): a cell must be missing in both or in neither."
        )
    return mask if mask.any() else None


def resolve_missing(missing: str, mask: NDArray[np.bool_] | None, V: Array) -> str:
    """Choose how missing cells enter the likelihood."""
    if missing not in ("auto", "exact", "large_se"):
        raise OptionError(f"missing is {missing!r}; choose 'auto', 'exact' or 'large_se'.")
    if missing == "auto":
        return "exact" if mask is not None and not _no_correlation(V) else "large_se"
    if missing == "large_se":
        warn_if_overconfident(missing, mask, V)
    return missing


def _no_correlation(V: Array) -> bool:
    return is_identity(V) if V.ndim == 2 else bool(np.all(np.eye(V.shape[-1]) == V))


def warn_if_overconfident(missing: str, mask: NDArray[np.bool_] | None, V: Array) -> None:
    """Warn where filling missing cells conditions on an error of zero."""
    off_diagonal = V * (1 - np.eye(V.shape[-1]))
    if missing == "large_se" and mask is not None and np.any(off_diagonal != 0):
        warnings.warn(
            "missing cells filled with effect 0 and standard error 1e6 make correlated errors look "
            'smaller than they are; missing="exact" leaves these cells out instead.',
            ModelWarning,
            stacklevel=3,
        )


def warn_if_mean_contrast_mixes(mask: NDArray[np.bool_] | None, reference: str | None) -> None:
    """Warn that the mean of conditions takes in the filled cells."""
    if mask is not None and reference == "mean":
        warnings.warn(
            "the contrast with the mean mixes the standard error 1e6 of missing cells into every "
            "condition of their rows.",
            ModelWarning,
            stacklevel=4,
        )


def warn_about_data(
    errors: Array, alpha: float, V: Array, names: tuple[str, ...] | None, width: int
) -> None:
    """Warn of standard errors that vary a lot, of errors without a spread, of few conditions."""
    positive = errors[errors > 0]
    if alpha == 0 and len(positive) > 1:
        spread = float(positive.std() / positive.mean())
        warn_about_spread(spread, float(positive.max() / positive.min()))
    if V.ndim == 2:
        warn_about_told_errors(V, names)
    warn_about_width(width)


def warn_about_told_errors(V: Array, names: tuple[str, ...] | None) -> None:
    """Warn where the errors of conditions follow from those of others."""
    told = told_by_others(V)
    if not told:
        return
    named = [str(r + 1) if names is None else repr(names[r]) for r in told]
    warnings.warn(
        f"V says that the errors of the conditions {listed(named)} follow from one another: one is "
        "a copy, or is made of others. What rounding and chance leave there would count as effects "
        "on single conditions. Leave one of them out, or give v_ridge=0.01.",
        ModelWarning,
        stacklevel=4,
    )


def warn_about_spread(spread: float, ratio: float) -> None:
    """Warn where standard errors vary so much that effects are hardly exchangeable."""
    if spread > 1.0:
        warnings.warn(
            f"standard errors vary a lot (coefficient of variation {spread:.2f}, largest / "
            f"smallest {ratio:.3g}); consider alpha=1.",
            ModelWarning,
            stacklevel=4,
        )


def warn_about_width(width: int) -> None:
    """Warn where there are too few conditions to share anything."""
    if width < 3:
        warnings.warn(
            f"there {'is' if width == 1 else 'are'} only {width} condition"
            f"{'' if width == 1 else 's'}: mash has little to share.",
            DataWarning,
            stacklevel=4,
        )


def check_mash_data(
    Bhat: ArrayLike,
    Shat: ArrayLike,
    *,
    near_zero_tol: float = 1e-6,
    se_cv_thresh: float = 1.0,
    corr_cond_thresh: float = 1e4,
    verbose: bool = True,
) -> dict[str, str]:
    """Look for what commonly spoils a mash analysis, without changing anything.

    Parameters
    ----------
    Bhat, Shat : (J, R) arrays
    near_zero_tol : float
        Positive standard errors below this are reported.
    se_cv_thresh : float
        Coefficient of variation of the standard errors above which ``alpha=1`` is suggested.
    corr_cond_thresh : float
        Condition number of the correlation of z-scores above which columns look redundant.
    verbose : bool
        Print each message.

    Returns
    -------
    dict
        Messages under the keys ``invalid_shat``, ``nonpositive_se``, ``high_se_variability``,
        ``near_zero_se`` and ``ill_conditioned_traits``, where they apply.
    """
    effects, errors = _matrix(Bhat, "Bhat"), _matrix(Shat, "Shat")
    if effects.shape != errors.shape:
        raise ShapeError(f"the dimensions of Bhat {effects.shape} and Shat {errors.shape} differ.")
    found: dict[str, str] = {}
    finite = errors[np.isfinite(errors)]
    positive = finite[finite > 0]
    if len(finite) == 0:
        found["invalid_shat"] = "no standard error is finite."
    if np.any(finite <= 0):
        found["nonpositive_se"] = f"{int(np.sum(finite <= 0))} standard errors are not positive."
    if len(positive):
        spread = float(positive.std() / positive.mean())
        if spread > se_cv_thresh:
            found["high_se_variability"] = (
                f"standard errors vary a lot (coefficient of variation {spread:.2f}); "
                "consider alpha=1."
            )
        if np.any(positive < near_zero_tol):
            found["near_zero_se"] = (
                f"{int(np.sum(positive < near_zero_tol))} standard errors are below "
                f"{near_zero_tol:g}."
            )
    condition = _condition_number(effects, errors)
    if condition > corr_cond_thresh:
        found["ill_conditioned_traits"] = (
            f"the correlation of the z-scores has condition number {condition:.3g}: "
            "some conditions are nearly copies of one another."
        )
    if verbose:
        for message in found.values():
            print(f"[check_mash_data] {message}")
    return found


def _condition_number(effects: Array, errors: Array) -> float:
    if effects.shape[0] < 2 or effects.shape[1] < 2:
        return 1.0
    usable = np.isfinite(effects) & np.isfinite(errors) & (errors > 0)
    z = np.where(usable, effects / np.where(usable, errors, 1.0), 0.0)
    z = z[:, z.std(axis=0) > 0]
    if z.shape[1] < 2:
        return 1.0
    return float(np.linalg.cond(np.corrcoef(z, rowvar=False)))


def regularize_cov(V: ArrayLike, ridge: float = 1e-6, to_correlation: bool = False) -> Array:
    """Return ``V + ridge * I``, symmetrised, and rescaled to a unit diagonal on request.

    Parameters
    ----------
    V : (R, R) or (J, R, R) array
    ridge : float
        Not negative.
    to_correlation : bool
        Rescale to a correlation matrix, whose diagonal is exactly 1.
    """
    if ridge < 0:
        raise OptionError(f"ridge is {ridge:g}; it cannot be negative.")
    matrices = np.array(V, dtype=np.float64)
    if matrices.ndim not in (2, 3) or matrices.shape[-1] != matrices.shape[-2]:
        raise ShapeError(f"V has dimension {matrices.shape}; expected square matrices.")
    result = symmetrise(matrices) + ridge * np.eye(matrices.shape[-1])
    return cov_to_cor(result) if to_correlation else result
