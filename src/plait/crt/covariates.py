"""Covariates of cells as a design matrix of full rank: encoding, scaling, aliased columns."""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse

from plait.crt.arguments import real_number
from plait.data.words import counted
from plait.errors import (
    DataWarning,
    InputError,
    InputTypeError,
    LabelError,
    MissingCovariateError,
    OptionError,
    ShapeError,
    TooFewSamplesError,
)
from plait.execution.threads import single_threaded_blas
from plait.io.anndata import get_from_adata_any

if TYPE_CHECKING:
    from pandas import DataFrame

Array = NDArray[np.float64]

OBJECT_POLICIES = ("numeric", "categorical")

_ALIASED = 1e-7
_CONSTANT = 1e-12
_log = logging.getLogger("plait.crt")


@dataclass(frozen=True, eq=False)
class CovariateDesign:
    """Covariates made ready for regression.

    Attributes
    ----------
    matrix : (N, p) array
        The design C, columns linearly independent; the intercept, if any, is first.
    names : tuple of str or None
        Its columns without the intercept; None where the covariates were an array of numbers.
    basis : (N, p) array
        Q, orthonormal, with the span of C.
    inverse : (p, p) array
        ``A = (C'C)^-1``.
    dropped : tuple of str
        Columns that were left out because the others and the intercept determine them.
    numbers_as_categories : tuple of str
        Numeric covariates of more than two values that became indicators.
    """

    matrix: Array
    names: tuple[str, ...] | None
    basis: Array
    inverse: Array
    dropped: tuple[str, ...]
    numbers_as_categories: tuple[str, ...] = ()


def get_covar_matrix(
    adata: Any,
    covar_key: str = "covar",
    add_intercept: bool = True,
    standardize: bool = True,
    one_hot_encode: bool = True,
    drop_first: bool = True,
    numeric_as_category_threshold: int | None = 20,
    object_policy: str = "numeric",
) -> tuple[Array, list[str] | None]:
    """Return the design matrix of the covariates of an AnnData.

    Parameters
    ----------
    adata : AnnData or any object with some of its containers
    covar_key : str
        Where the covariates are (`get_from_adata_any`): a DataFrame of any types, or an array.
    add_intercept : bool
        Put a column of ones first.
    standardize : bool
        Scale every column, indicators too, to mean 0 and (population) standard deviation 1.
    one_hot_encode : bool
        Replace categorical columns by indicators of their levels. Without it such columns are an
        error.
    drop_first : bool
        Leave out the indicator of the first level.
    numeric_as_category_threshold : int or None
        Numeric columns of a DataFrame with at most this many distinct values are categorical. In a
        small data set that may be a continuous covariate: a logged warning names those of more than
        two values. None: never.
    object_policy : {"numeric", "categorical"}
        What to do with an array of objects or text. "numeric": columns that can be read as numbers
        are numbers, with a warning; "categorical": all columns are categorical.

    Returns
    -------
    C : (N, p) array
        Of full rank: columns that the columns before them determine are left out, with one warning.
    names : list of str or None
        Columns of C without the intercept; None for an array of numbers.

    Raises
    ------
    LabelError
        There are no covariates under the key (also a KeyError), or a column occurs twice.
    MissingCovariateError, InputError
        A number is missing or infinite; the message names the columns.
    TooFewSamplesError
        There are not more cells than columns and one.
    InputTypeError
        A column is neither numbers, truth values, text nor categories.

    Notes
    -----
    Levels are in sorted order, or in the order of the categories, of which unused ones are left
    out. A missing category has no indicator and so counts as the level that was left out; a warning
    says so.
    """
    design = encode_covariates(
        get_from_adata_any(adata, covar_key),
        add_intercept=add_intercept,
        standardize=standardize,
        one_hot_encode=one_hot_encode,
        drop_first=drop_first,
        numeric_as_category_threshold=numeric_as_category_threshold,
        object_policy=object_policy,
    )
    return design.matrix, None if design.names is None else list(design.names)


def encode_covariates(
    covariates: Any,
    *,
    add_intercept: bool = True,
    standardize: bool = True,
    one_hot_encode: bool = True,
    drop_first: bool = True,
    numeric_as_category_threshold: int | None = 20,
    object_policy: str = "numeric",
) -> CovariateDesign:
    """Encode covariates; see `get_covar_matrix` for the options and what is refused."""
    if object_policy not in OBJECT_POLICIES:
        raise OptionError(
            f"object_policy is {object_policy!r}; give {' or '.join(map(repr, OBJECT_POLICIES))}."
        )
    table = as_frame_or_array(covariates, object_policy)
    numbers: dict[str, int] = {}
    if isinstance(table, np.ndarray):
        names = [f"covar_{j}" for j in range(table.shape[1])]
        values = table.astype(np.float64)
        _require_finite(values, names)
    else:
        _require_encodable(table)
        if one_hot_encode:
            numbers = _numbers_of_many_values(table, numeric_as_category_threshold)
            table = encode_categorical_covariates(
                table,
                drop_first=drop_first,
                numeric_as_category_threshold=numeric_as_category_threshold,
            )
        elif categorical := _categorical_columns(table, None, including_bool=False):
            raise InputError(
                f"the covariates {', '.join(map(repr, categorical))} are not numbers; with "
                "one_hot_encode=False all have to be."
            )
        names = [str(name) for name in table.columns]
        values = table.to_numpy(dtype=np.float64, na_value=np.nan)
    values = np.ascontiguousarray(values)  # sums have the same bits however the data were laid out
    if standardize:
        values = _standardized(values)
    if add_intercept:
        values = np.concatenate([np.ones((len(values), 1)), values], axis=1)
        names = ["the intercept", *names]
    design = _full_rank(values, names, add_intercept, isinstance(table, np.ndarray))
    if not numbers:
        return design
    _log.warning(
        "numeric covariates of at most %s values are encoded as categories: %s, which makes %d "
        "columns. If they are amounts, give numeric_as_category_threshold=None "
        "(--numeric-as-category 0)",
        numeric_as_category_threshold,
        ", ".join(f"{name} ({counted(count, 'value')})" for name, count in numbers.items()),
        sum(numbers.values()) - len(numbers),
    )
    return replace(design, numbers_as_categories=tuple(numbers))


def as_frame_or_array(covariates: Any, object_policy: str = "numeric") -> "DataFrame | Array":
    """Return covariates as a DataFrame, or as a two-dimensional array if they are plain numbers."""
    if hasattr(covariates, "to_frame") and not hasattr(covariates, "columns"):
        covariates = covariates.to_frame()  # a Series
    if hasattr(covariates, "iloc"):
        return covariates
    values = covariates.toarray() if issparse(covariates) else np.asarray(covariates)
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2:
        raise ShapeError(
            f"the covariates have {counted(values.ndim, 'dimension')}; expected a row for each "
            "cell and a column for each covariate."
        )
    if values.dtype.kind in "biuf":
        return np.asarray(values)
    if values.dtype.kind not in "OUST":
        raise InputTypeError(
            f"the covariates are an array of {values.dtype}; expected numbers, text or objects."
        )
    return _object_frame(values, object_policy)


def encode_categorical_covariates(
    df: "DataFrame",
    drop_first: bool = True,
    dummy_na: bool = False,
    numeric_as_category_threshold: int | None = None,
) -> "DataFrame":
    """Replace the categorical columns of a DataFrame by indicators of their levels.

    Parameters
    ----------
    df : pandas.DataFrame
        Columns of truth values, text, objects and categories are categorical.
    drop_first : bool
        Leave out the first level of each.
    dummy_na : bool
        Add an indicator of missing values; otherwise they count as the level that was left out,
        with a warning.
    numeric_as_category_threshold : int or None
        Numeric columns with at most this many distinct values are categorical too.

    Returns
    -------
    pandas.DataFrame
        The other columns first, then the indicators, named ``column_level``, as float64.

    Raises
    ------
    TooFewSamplesError
        There would be as many columns as rows.
    InputTypeError
        There is no DataFrame, a column holds other objects than text, or the threshold is no number
        (also a TypeError).
    OptionError
        The threshold is NaN.

    Warns
    -----
    DataWarning
        Categories are missing and ``dummy_na`` is not given.
    """
    import pandas as pd

    if not isinstance(df, pd.DataFrame):
        raise InputTypeError(f"the covariates are of type {type(df).__name__}; give a DataFrame.")
    threshold = numeric_as_category_threshold
    if threshold is not None and np.isnan(real_number(threshold, "numeric_as_category_threshold")):
        raise OptionError("numeric_as_category_threshold is nan; give a number, or None for never.")
    categorical = _categorical_columns(df, numeric_as_category_threshold)
    if not categorical:
        return df
    _require_few_levels(df, categorical)
    if not dummy_na:
        _warn_of_missing_categories(df, categorical)
    used = df.copy(deep=False)
    for name in categorical:
        if isinstance(df[name].dtype, pd.CategoricalDtype):
            used[name] = df[name].cat.remove_unused_categories()
        elif df[name].dtype == np.float16:  # of which pandas makes no categories
            used[name] = df[name].astype(np.float32)
    return pd.get_dummies(
        used, columns=categorical, drop_first=drop_first, dummy_na=dummy_na, dtype=np.float64
    )


def _numbers_of_many_values(frame: "DataFrame", threshold: int | None) -> dict[str, int]:
    """Return numeric columns that become more than one indicator, and their numbers of values."""
    from pandas.api.types import is_any_real_numeric_dtype

    numeric = [name for name in frame.columns if is_any_real_numeric_dtype(frame[name].dtype)]
    values = {str(name): int(frame[name].nunique()) for name in numeric}
    most = 0 if threshold is None else threshold
    return {name: count for name, count in values.items() if 2 < count <= most}


def independent_columns(matrix: Array) -> tuple[NDArray[np.intp], Array, Array]:
    """Find the columns that no columns before them determine, and an orthonormal basis.

    Parameters
    ----------
    matrix : (N, p) array

    Returns
    -------
    kept : (r,) array of int
        Ascending. A column counts as determined when less than 1e-7 of its length is left after
        projection on the kept ones before it (as in R's ``lm``).
    basis : (N, r) array
        Q of ``matrix[:, kept] = Q T``.
    triangle : (r, r) array
        T, upper triangular with a positive diagonal, so that both are unique.

    Notes
    -----
    A QR decomposition with limited pivoting, O(N p^2): the same column is left out whatever the
    scales, and of two equal columns the first stays. BLAS runs on one thread.
    """
    with single_threaded_blas():
        basis, triangle = np.linalg.qr(matrix)
        kept = _not_determined(triangle)
        if len(kept) < matrix.shape[1]:
            basis, triangle = np.linalg.qr(matrix[:, kept])
    sign = np.where(np.diagonal(triangle) < 0.0, -1.0, 1.0)
    return kept, basis * sign, triangle * sign[:, None]


def _not_determined(triangle: Array) -> NDArray[np.intp]:
    found = np.zeros((len(triangle), min(triangle.shape)))
    kept: list[int] = []
    for j, column in enumerate(triangle.T):
        before = found[:, : len(kept)]
        left = column.copy()
        for _ in range(2):  # twice is enough for orthogonality to rounding
            left -= before @ (before.T @ left)
        remaining = np.linalg.norm(left)
        if remaining > _ALIASED * np.linalg.norm(column):
            found[:, len(kept)] = left / remaining
            kept.append(j)
    return np.array(kept, dtype=np.intp)


def _full_rank(
    values: Array, names: list[str], add_intercept: bool, is_array: bool
) -> CovariateDesign:
    n_cells, width = values.shape
    if n_cells < width + 2:
        raise TooFewSamplesError(
            f"the screen has {counted(n_cells, 'cell')} and {counted(width, 'column')} of "
            "covariates (with the intercept); a regression needs at least 2 cells more than "
            "columns. Leave covariates out, or see numeric_as_category_threshold."
        )
    kept, basis, triangle = independent_columns(values)
    if not len(kept):
        raise InputError(
            "no covariate varies and there is no intercept: give add_intercept=True or leave "
            "standardize off."
        )
    dropped = tuple(names[j] for j in sorted(set(range(width)) - set(kept.tolist())))
    if dropped:
        warnings.warn(
            "covariates left out because they are constant or determined by the others: "
            f"{', '.join(map(repr, dropped))}.",
            DataWarning,
            stacklevel=4,
        )
        values = values[:, kept]
    inverse_triangle = np.linalg.inv(triangle)
    return CovariateDesign(
        matrix=values,
        names=None
        if is_array
        else tuple(names[j] for j in kept[1 if add_intercept else 0 :].tolist()),
        basis=basis,
        inverse=inverse_triangle @ inverse_triangle.T,
        dropped=dropped,
    )


def _standardized(values: Array) -> Array:
    centered = values - values.mean(axis=0)
    spread = np.sqrt((centered**2).mean(axis=0))
    # What rounding leaves of a constant column is not variation.
    constant = spread <= _CONSTANT * np.abs(values).max(axis=0, initial=0.0)
    centered[:, constant] = 0.0
    scaled: Array = centered / np.where(constant, 1.0, spread)
    return scaled


def _categorical_columns(
    frame: "DataFrame", threshold: int | None, including_bool: bool = True
) -> list[Any]:
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    found = []
    for name in frame.columns:
        column = frame[name]
        if is_bool_dtype(column.dtype):
            categorical = including_bool
        elif is_numeric_dtype(column.dtype):
            categorical = threshold is not None and column.nunique() <= threshold
        else:
            categorical = True
        if categorical:
            found.append(name)
    return found


def _require_encodable(frame: "DataFrame") -> None:
    import pandas as pd

    if frame.columns.has_duplicates:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise LabelError(f"the covariate {twice!r} occurs twice; rename one of them.")
    numeric = []
    for name in frame.columns:
        dtype = frame[name].dtype
        if pd.api.types.is_bool_dtype(dtype) or pd.api.types.is_any_real_numeric_dtype(dtype):
            numeric.append(name)
        elif dtype.kind != "O":  # text and categories are objects to NumPy
            raise InputTypeError(
                f"the covariate {name!r} is of type {dtype}; expected numbers, truth values, text "
                "or categories."
            )
    _require_finite(
        frame[numeric].to_numpy(dtype=np.float64, na_value=np.nan), [str(c) for c in numeric]
    )


def _require_finite(values: Array, names: Sequence[str]) -> None:
    for what, bad, error in (
        ("missing", np.isnan(values), MissingCovariateError),
        ("infinite", np.isinf(values), InputError),
    ):
        columns = np.flatnonzero(bad.any(axis=0))
        if len(columns):
            counts = [(j, int(bad[:, j].sum())) for j in columns[:10]]
            said = ", ".join(f"{names[j]!r} ({counted(n, 'cell')})" for j, n in counts)
            raise error(
                f"covariates with {what} values: {said}. Leave these cells or covariates out, or "
                "fill them in."
            )


def _require_few_levels(frame: "DataFrame", categorical: Sequence[Any]) -> None:
    levels = {name: _n_levels(frame, name) for name in categorical}
    if sum(levels.values()) - len(levels) + 2 > len(frame):
        most = max(levels, key=levels.__getitem__)
        raise TooFewSamplesError(
            f"the categorical covariates have {counted(sum(levels.values()), 'level')} ({most!r} "
            f"alone {levels[most]:,}) in {counted(len(frame), 'cell')}: there would be as many "
            "columns as cells. Leave out columns that name cells, and store numbers as numbers."
        )


def _n_levels(frame: "DataFrame", name: Any) -> int:
    try:
        return int(frame[name].nunique())
    except TypeError:
        raise InputTypeError(
            f"the covariate {name!r} holds objects such as {frame[name].iloc[0]!r}; expected "
            "numbers, truth values, text or categories."
        ) from None


def _warn_of_missing_categories(frame: "DataFrame", categorical: Sequence[Any]) -> None:
    counts = {name: int(frame[name].isna().sum()) for name in categorical}
    missing = [
        f"{str(name)!r} ({counted(count, 'cell')})" for name, count in counts.items() if count
    ]
    if missing:
        warnings.warn(
            f"covariates with missing categories: {', '.join(missing)}. These cells count as the "
            "level that has no indicator; name the missing level to give it one.",
            DataWarning,
            stacklevel=5,
        )


def _object_frame(values: NDArray[Any], object_policy: str) -> "DataFrame":
    import pandas as pd

    frame = pd.DataFrame({f"covar_{j}": values[:, j] for j in range(values.shape[1])}, dtype=object)
    if object_policy == "categorical":
        return frame
    converted = []
    for name in frame.columns:
        try:
            frame[name] = pd.to_numeric(frame[name])
        except (ValueError, TypeError):
            continue
        converted.append(name)
    if converted:
        warnings.warn(
            f"columns of the covariates that hold numbers as objects or text: "
            f"{', '.join(converted)}. They are taken as numbers; object_policy='categorical' takes "
            "them as categories.",
            DataWarning,
            stacklevel=4,
        )
    return frame
