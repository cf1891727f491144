"""The data of a mash analysis, checked once at the door."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.data.effects import Effects
from plait.errors import InputError, OptionError, ShapeError
from plait.mash import checks
from plait.mash.contrasts import contrast_matrix
from plait.numerics.linalg import cov_to_cor

Array = NDArray[np.float64]
Rows = slice | NDArray[np.intp]

MISSING_SHAT = 1e6
"""Standard error that stands for a missing cell in ``missing="large_se"`` (as in R)."""


@dataclass(frozen=True, eq=False)
class Whole:
    """What the parts of a data set must know of the whole, to be computed with the same bits.

    Attributes
    ----------
    reference_errors : (R,) array
        Standard errors of the first completely observed effect.
    is_common_scale : bool
        Whether all rows of ``Shat_alpha`` are equal.
    """

    reference_errors: Array
    is_common_scale: bool


@dataclass(frozen=True, eq=False)
class MashData:
    """Effects and standard errors of J effects in R conditions, ready to be fitted.

    Build it with `mash_set_data`. Arrays are float64 and read-only. With ``alpha != 0`` the effects
    and errors are on the scaled scale ``Bhat / Shat^alpha``.

    Attributes
    ----------
    Bhat, Shat, Shat_alpha : (J, R) arrays
        Scaled effects, their scaled standard errors, and ``Shat^alpha``, which maps back.
    V : (R, R) or (J, R, R) array
        Correlation of the errors, common or per effect (in the original conditions).
    common_V : bool
        Whether one V serves all effects.
    alpha : float
        0 exchangeable effects, 1 exchangeable z-scores.
    L : (R - 1, R) array or None
        Contrast applied to the conditions.
    Shat_orig, LSVSLt, reference
        Standard errors before the contrast, correlation of the contrast's errors, and the baseline.
    condition_names : tuple of str or None
    effect_names : (J,) array of str or None
    missing_mask : (J, R) bool array or None
        Cells that were not measured.
    missing : {"exact", "large_se"}
        How missing cells enter the likelihood.
    missing_chosen : bool
        Whether the caller chose ``missing``; otherwise a contrast may change it.
    original_names : tuple of str or None
        Condition names before a contrast.
    whole : Whole or None
        For a part of a larger data set that is worked on part by part.
    """

    Bhat: Array
    Shat: Array
    Shat_alpha: Array
    V: Array
    common_V: bool
    alpha: float
    L: Array | None = None
    Shat_orig: Array | None = None
    LSVSLt: Array | None = None
    reference: str | None = None
    condition_names: tuple[str, ...] | None = None
    effect_names: NDArray[np.str_] | None = None
    missing_mask: NDArray[np.bool_] | None = None
    missing: str = "large_se"
    missing_chosen: bool = False
    original_names: tuple[str, ...] | None = None
    whole: Whole | None = None

    @property
    def n_effects(self) -> int:
        """Number of effects J."""
        return len(self.Bhat)

    @property
    def n_conditions(self) -> int:
        """Number of columns of ``Bhat``: R, or R - 1 with a contrast."""
        return int(self.Bhat.shape[1])

    def __repr__(self) -> str:
        parts = [
            f"{self.n_effects} effects x {self.n_conditions} conditions",
            f"alpha={self.alpha:g}",
        ]
        if self.L is not None:
            parts.append(f"contrast with {self.reference}")
        if self.missing_mask is not None:
            parts.append(f"{int(self.missing_mask.sum())} missing cells ({self.missing})")
        return f"MashData({', '.join(parts)})"

    def get_cov(self, j: int) -> Array:
        """Return the error covariance of effect ``j``."""
        first: Array = self.error_covariances(np.array([j]))[0]
        return first

    def error_covariances(self, rows: Rows) -> Array:
        """Return the (n, R, R) error covariances of some effects.

        In ``missing="exact"`` the rows and columns of missing cells are placeholders: use
        `observed` to leave them out.
        """
        scale = (self.Shat if self.Shat_orig is None else self.Shat_orig)[rows]
        correlation = self.V if self.common_V else self.V[rows]
        covariance: Array = scale[:, :, None] * scale[:, None, :] * correlation
        if self.L is not None:
            covariance = self.L @ covariance @ self.L.T
            covariance = 0.5 * (covariance + covariance.transpose(0, 2, 1))
        return np.ascontiguousarray(covariance)

    def observed(self, rows: Rows) -> NDArray[np.bool_] | None:
        """Return which cells of some effects enter the likelihood; None when all do."""
        if self.missing != "exact" or self.missing_mask is None:
            return None
        return ~self.missing_mask[rows]

    def is_common_cov_shat(self) -> bool:
        """Tell whether all rows of the standard errors are exactly equal."""
        return _all_rows_equal(self.Shat if self.Shat_orig is None else self.Shat_orig)

    def is_common_cov_shat_alpha(self) -> bool:
        """Tell whether all rows of ``Shat_alpha`` are exactly equal."""
        if self.whole is not None:
            return self.whole.is_common_scale
        return _all_rows_equal(self.Shat_alpha)

    def reference_cov(self) -> Array:
        """Return the error covariance shared by the rows named by `reference_rows`."""
        covariance = (
            self.Shat_reference[:, None]
            * self.Shat_reference[None, :]
            * (self.V if self.common_V else self.V[0])
        )
        if self.L is not None:
            covariance = self.L @ covariance @ self.L.T
        return 0.5 * (covariance + covariance.T)

    @property
    def Shat_reference(self) -> Array:
        """Standard errors of the first completely observed effect (of the first one if none is)."""
        if self.whole is not None:
            return self.whole.reference_errors
        errors = self.Shat if self.Shat_orig is None else self.Shat_orig
        complete = 0
        if self.missing_mask is not None:
            complete = int(np.argmin(self.missing_mask.any(axis=1)))
        row: Array = errors[complete]
        return row

    def reference_rows(self, rows: Rows) -> NDArray[np.bool_]:
        """Tell which effects are completely observed with exactly `reference_cov` as covariance."""
        errors = (self.Shat if self.Shat_orig is None else self.Shat_orig)[rows]
        if not self.common_V:
            return np.zeros(len(errors), dtype=bool)
        same: NDArray[np.bool_] = np.all(errors == self.Shat_reference, axis=1)
        observed = self.observed(rows)
        return same if observed is None else same & observed.all(axis=1)


def _all_rows_equal(values: Array) -> bool:
    if values.strides[0] == 0 or len(values) <= 1:
        return True
    return bool(np.all(values == values[0]))


def _read_only(values: Array) -> Array:
    values.flags.writeable = False
    return values


def mash_set_data(
    Bhat: ArrayLike | Effects,
    Shat: ArrayLike | None = None,
    alpha: float = 0.0,
    df: ArrayLike = np.inf,
    pval: ArrayLike | None = None,
    V: ArrayLike | None = None,
    v_ridge: float = 0.0,
    zero_check_tol: float = float(np.finfo(np.float64).eps),
    zero_Bhat_Shat_reset: float = 0.0,
    zero_Shat_reset: float = 0.0,
    condition_names: Sequence[str] | None = None,
    effect_names: Sequence[str] | None = None,
    missing: str = "auto",
) -> MashData:
    """Check effects and standard errors and make them ready for mash.

    Parameters
    ----------
    Bhat : (J, R) array, pandas DataFrame, or plait.data.Effects
        Estimated effects. NaN is missing. A DataFrame's labels become the names. An `Effects`
        brings its own standard errors, error correlation, labels and missing cells.
    Shat : (J, R) array, DataFrame or scalar, optional
        Standard errors, positive; NaN or +inf is missing. Default 1 (``Bhat`` are z-scores).
    alpha : float
        0 (default): effects are exchangeable. 1: z-scores are exchangeable (usual for GWAS).
    df : scalar or (J, R) array
        Degrees of freedom of the t statistics; finite values inflate ``Shat`` so that the normal
        approximation gives the t-test's p-value.
    pval : (J, R) array, optional
        Two-sided p-values in (0, 1] from which the standard errors are derived.
    V : (R, R), (J, R, R) or (R, R, J) array, optional
        Correlation of the errors. Default identity.
    v_ridge : float
        Added to the diagonal of V.
    zero_check_tol, zero_Bhat_Shat_reset, zero_Shat_reset : float
        Standard errors at most ``zero_check_tol`` are an error unless reset to the given value,
        separately where the effect is zero too and where it is not.
    condition_names, effect_names : sequence of str, optional
    missing : {"auto", "exact", "large_se"}
        ``"exact"`` leaves missing cells out of the likelihood, ``"large_se"`` gives them effect 0
        and standard error 1e6 (as R does; over-confident when errors correlate). ``"auto"`` takes
        ``"exact"`` where V is not the identity and cells are missing, else ``"large_se"``.

    Returns
    -------
    MashData

    Raises
    ------
    InputError
        The inputs cannot be used; the message says where and what to do.
    """
    V_given, names_given, rows_given = V is not None, condition_names, effect_names
    if isinstance(Bhat, Effects):
        if Shat is not None or V_given or names_given is not None or rows_given is not None:
            raise OptionError(
                "Effects bring their own standard errors, V and labels: "
                "do not give Shat, V, condition_names or effect_names as well."
            )
        source = Bhat
        Bhat, Shat = source.bhat, source.shat
        V = source.V
        condition_names, effect_names = _labels_of(source)
    checks.check_sources(Shat, pval, df)
    effects, errors, columns, rows = checks.read_matrices(Bhat, Shat, condition_names, effect_names)
    effects, errors = checks.errors_from_p_values(effects, errors, pval)
    effects, errors = checks.check_infinite(effects, errors)
    errors = checks.check_zero_errors(
        effects, errors, zero_check_tol, zero_Bhat_Shat_reset, zero_Shat_reset, rows, columns
    )
    correlation = checks.check_correlation(V, effects.shape[0], effects.shape[1], v_ridge)
    errors = checks.errors_from_t(effects, errors, df)
    mask = checks.missing_pattern(effects, errors)
    checks.warn_about_data(errors, alpha, correlation, columns, effects.shape[1])
    resolved = checks.resolve_missing(missing, mask, correlation)
    data = assemble(effects, errors, float(alpha), correlation, mask, resolved, columns, rows)
    return replace(data, missing_chosen=missing != "auto")


def _labels_of(source: Effects) -> tuple[Any, Any]:
    return source.contexts, source.effects


def assemble(
    effects: Array,
    errors: Array,
    alpha: float,
    V: Array,
    mask: NDArray[np.bool_] | None,
    missing: str,
    columns: tuple[str, ...] | None,
    rows: NDArray[np.str_] | None,
) -> MashData:
    """Scale by alpha, fill the missing cells (NaN) and freeze."""
    ones = np.broadcast_to(np.float64(1.0), effects.shape)
    shat_alpha = ones
    if alpha != 0 and not np.all(errors == 1):
        with np.errstate(invalid="ignore"):
            shat_alpha = errors**alpha
            effects = effects / shat_alpha
            errors = ones if alpha == 1 else errors ** (1 - alpha)
    if mask is not None:
        fill = 1.0 if missing == "exact" else MISSING_SHAT
        effects = np.where(mask, 0.0, effects)
        errors = np.where(mask, fill, errors)
        shat_alpha = np.where(mask, 1.0, shat_alpha)
        if missing == "exact" and np.all(errors == 1):
            errors = ones
        mask.flags.writeable = False
    return MashData(
        Bhat=_read_only(effects),
        Shat=_read_only(errors),
        Shat_alpha=_read_only(shat_alpha),
        V=_read_only(V),
        common_V=V.ndim == 2,
        alpha=alpha,
        condition_names=columns,
        effect_names=rows,
        missing_mask=mask,
        missing=missing,
    )


def mash_update_data(
    data: MashData,
    ref: int | str | None = None,
    V: ArrayLike | None = None,
    v_ridge: float = 0.0,
) -> MashData:
    """Return the data with another error correlation and/or a contrast applied.

    Parameters
    ----------
    data : MashData
    ref : int, str or None
        Baseline of the contrast: a column number from 0, a condition name, or ``"mean"``.
    V : array, optional
        New correlation of the errors, in the original R conditions.
    v_ridge : float
        Added to the diagonal of V.

    Raises
    ------
    OptionError
        The data already have a contrast, or were scaled with ``alpha != 0``.
    """
    if ref is not None and data.L is not None:
        raise OptionError(f"the data already have a contrast (with {data.reference}).")
    if ref is not None and data.alpha != 0:
        raise OptionError(
            f"a contrast needs effects on their own scale, and the data have alpha={data.alpha:g}: "
            "make them with alpha=0."
        )
    if V is not None or v_ridge > 0:
        width = data.V.shape[-1]
        given = data.V if V is None else V
        correlation = _read_only(checks.check_correlation(given, data.n_effects, width, v_ridge))
        data = replace(data, V=correlation, common_V=correlation.ndim == 2)
        if data.common_V:
            names = data.condition_names if data.L is None else None
            checks.warn_about_told_errors(correlation, names)
        if data.L is not None:
            data = _with_contrast_errors(data)
        elif not data.missing_chosen:
            data = _with_missing(data, checks.resolve_missing("auto", data.missing_mask, data.V))
        else:
            checks.warn_if_overconfident(data.missing, data.missing_mask, data.V)
    return data if ref is None else _apply_contrast(data, ref)


def _apply_contrast(data: MashData, ref: int | str) -> MashData:
    if data.missing_mask is not None and data.missing == "exact":
        if data.missing_chosen:
            raise OptionError(
                "a contrast cannot be combined with missing='exact': a contrast with a missing "
                "condition is itself missing. Drop those rows, or use missing='large_se'."
            )
        data = _with_missing(data, "large_se")
        checks.warn_if_overconfident(data.missing, data.missing_mask, data.V)
    L, names, reference = contrast_matrix(
        data.n_conditions, ref, data.condition_names, details=True
    )
    data = replace(
        data,
        Bhat=_read_only(data.Bhat @ L.T),
        Shat_orig=data.Shat,
        Shat_alpha=_read_only(np.broadcast_to(np.float64(1.0), (data.n_effects, len(L)))),
        L=_read_only(L),
        reference=reference,
        condition_names=names,
        original_names=data.condition_names,
    )
    checks.warn_if_mean_contrast_mixes(data.missing_mask, reference)
    return _with_contrast_errors(data)


def _with_missing(data: MashData, missing: str) -> MashData:
    """Return the data with missing cells handled in another way."""
    if data.missing_mask is None or data.missing == missing:
        return replace(data, missing=missing)
    fill = 1.0 if missing == "exact" else MISSING_SHAT
    errors = np.where(data.missing_mask, fill, data.Shat)
    return replace(data, missing=missing, Shat=_read_only(errors))


def _with_contrast_errors(data: MashData) -> MashData:
    """Derive ``Shat`` and ``LSVSLt`` of contrast data from the original errors."""
    if data.common_V and data.is_common_cov_shat():
        covariance = data.error_covariances(slice(0, 1))
        scale = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
        correlation = cov_to_cor(covariance)[0]
        shat: Array = np.broadcast_to(scale, data.Bhat.shape)
    else:
        covariance = data.error_covariances(slice(None))
        shat = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)).copy()
        correlation = cov_to_cor(covariance)
    return replace(data, Shat=_read_only(shat), LSVSLt=_read_only(correlation))


def part_of(data: MashData, rows: Rows) -> MashData:
    """Return some effects of a data set, to be computed with the bits they have in the whole."""
    whole = data.whole or Whole(data.Shat_reference, data.is_common_cov_shat_alpha())
    return replace(subset_mash_data(data, rows), whole=whole)


def subset_mash_data(data: MashData, rows: slice | Sequence[int] | NDArray[np.intp]) -> MashData:
    """Return the data of some effects.

    Parameters
    ----------
    data : MashData
    rows : slice or integer array
        A slice gives views, an array copies.
    """
    pick: Any = rows if isinstance(rows, slice) else np.asarray(rows)
    if not isinstance(pick, slice):
        if pick.ndim != 1 or pick.dtype.kind not in "iu":
            raise ShapeError("rows must be a slice or a one-dimensional array of integers.")
        if len(pick) and (pick.min() < -data.n_effects or pick.max() >= data.n_effects):
            raise InputError(f"rows reach beyond the {data.n_effects} effects.")

    def part(values: Any) -> Any:
        if values is None:
            return None
        taken = (
            np.broadcast_to(values[0], (len(np.arange(len(values))[pick]), *values.shape[1:]))
            if len(values) and values.strides[0] == 0
            else values[pick]
        )
        taken.flags.writeable = False
        return taken

    per_effect_correlation = data.LSVSLt is not None and data.LSVSLt.ndim == 3
    return replace(
        data,
        Bhat=part(data.Bhat),
        Shat=part(data.Shat),
        Shat_alpha=part(data.Shat_alpha),
        V=data.V if data.common_V else part(data.V),
        Shat_orig=part(data.Shat_orig),
        LSVSLt=part(data.LSVSLt) if per_effect_correlation else data.LSVSLt,
        effect_names=part(data.effect_names),
        missing_mask=part(data.missing_mask),
    )


def counted_cells(data: MashData) -> tuple[Array, Array]:
    """Return effects and errors of the cells that enter the likelihood."""
    if data.missing != "exact" or data.missing_mask is None:
        return data.Bhat, data.Shat
    keep = ~data.missing_mask
    return data.Bhat[keep], data.Shat[keep]


def grid_extremes(effects: Array, errors: Array) -> tuple[float, float]:
    """Return the smallest standard error and the largest ``effect^2 - error^2``.

    They are infinite where no cell counts; those of parts combine by minimum and maximum.
    """
    use = np.isfinite(errors) & (errors != 0) & ~np.isnan(effects)
    if not use.any():
        return np.inf, -np.inf
    return float(errors[use].min()), float((effects[use] ** 2 - errors[use] ** 2).max())
