"""Effects with errors: what flows from a scan or a screen to the methods that compare contexts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.data.labels import describe_difference, first_repeat
from plait.data.words import counted
from plait.errors import (
    InputError,
    InputTypeError,
    LabelError,
    NotPositiveDefiniteError,
    ShapeError,
)
from plait.provenance import Provenance

Array = NDArray[np.float64]
_SYMMETRY_TOLERANCE = 1e-10
_MATRICES_PER_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class Effects:
    """Estimated effects of J things in R contexts with their standard errors.

    These are estimates with errors, not posterior means: what is already shrunken must not be
    shrunken again.

    Parameters
    ----------
    bhat : (J, R) array
        Estimated effects.
    shat : (J, R) array
        Their standard errors, positive, in the unit of ``bhat``. A cell that was not measured has
        ``shat = inf``, or NaN in both tables; it is stored as ``bhat = 0, shat = inf``.
    V : (R, R) or (J, R, R) array, optional
        Correlation of the errors between contexts, common or per effect. None: independent.
    effects, contexts : sequence of str, optional
        Labels of rows and columns, each without duplicates.
    provenance : Provenance, optional
        Where the numbers came from.

    Attributes
    ----------
    bhat, shat, V : arrays
        Float64, read-only copies of what was given.
    effects : (J,) array of str or None
    contexts : tuple of str or None
    provenance : Provenance or None

    Raises
    ------
    ShapeError
        Arrays or labels do not fit together.
    LabelError
        A label occurs twice.
    NotPositiveDefiniteError
        V is not a positive definite matrix.
    InputError
        An effect is infinite, a standard error is not positive, or only one of the two is missing.

    Notes
    -----
    Memory: 16 bytes per cell, plus V. Checking one V per effect costs ``J R^3 / 3`` flops.
    """

    bhat: Array
    shat: Array
    V: Array | None = None
    effects: NDArray[np.str_] | None = None
    contexts: tuple[str, ...] | None = None
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        bhat, shat = _matrix(self.bhat, "bhat"), _matrix(self.shat, "shat")
        if bhat.shape != shat.shape:
            raise ShapeError(
                f"bhat has shape {bhat.shape} and shat {shat.shape}; they must be equal."
            )
        effects = _labels(self.effects, len(bhat), "effect")
        contexts = _labels(self.contexts, bhat.shape[1], "context")
        _check_cells(bhat, shat, effects, contexts)
        missing = np.isnan(shat) | (shat == np.inf)
        bhat[missing], shat[missing] = 0.0, np.inf
        correlation = None if self.V is None else _check_correlation(self.V, bhat.shape)
        for array in (bhat, shat, correlation):
            if array is not None:
                array.flags.writeable = False
        rows = None if effects is None else np.array(effects, dtype=np.str_)
        if rows is not None:
            rows.flags.writeable = False
        for name, value in (
            ("bhat", bhat),
            ("shat", shat),
            ("V", correlation),
            ("effects", rows),
            ("contexts", None if contexts is None else tuple(contexts)),
        ):
            object.__setattr__(self, name, value)

    @property
    def n_effects(self) -> int:
        """Number of effects J."""
        return len(self.bhat)

    @property
    def n_contexts(self) -> int:
        """Number of contexts R."""
        return int(self.bhat.shape[1])

    @property
    def missing_mask(self) -> NDArray[np.bool_]:
        """Which cells were not measured, (J, R)."""
        return np.isinf(self.shat)

    @property
    def common_V(self) -> bool:
        """Whether one error correlation (or none) serves all effects."""
        return self.V is None or self.V.ndim == 2

    def __repr__(self) -> str:
        parts = [f"{self.n_effects} effects x {self.n_contexts} contexts"]
        if missing := int(self.missing_mask.sum()):
            parts.append(f"{missing} missing cells")
        if self.V is not None:
            parts.append("common V" if self.common_V else "one V per effect")
        return f"Effects({', '.join(parts)})"

    @classmethod
    def from_frames(
        cls, bhat: Any, shat: Any, V: Any = None, *, provenance: Provenance | None = None
    ) -> Self:
        """Make effects from two data frames whose labels must agree.

        Parameters
        ----------
        bhat, shat : pandas or polars DataFrame
            One column per context. The rows are labelled by the index (pandas, unless it is the
            default range) or by the leading text columns (polars, and pandas with the default
            index); several are joined with ``":"``.
        V : DataFrame or (R, R) array, optional
            Correlation of the errors; labels of a frame must be the contexts in their order.
        provenance : Provenance, optional

        Raises
        ------
        LabelError
            Labels differ or are in another order. Tables are never aligned silently.
        InputTypeError
            A column is not numeric.
        """
        effects, contexts, values = _split_frame(bhat, "bhat")
        shat_effects, shat_contexts, errors = _split_frame(shat, "shat")
        _require_equal("effects", "bhat", effects, "shat", shat_effects)
        _require_equal("contexts", "bhat", contexts, "shat", shat_contexts)
        if V is not None and hasattr(V, "columns"):
            rows, columns, V = _split_frame(V, "V")
            _require_equal("contexts", "bhat", contexts, "the columns of V", columns)
            if rows is not None:
                _require_equal("contexts", "bhat", contexts, "the rows of V", rows)
        labels = None if effects is None else np.array(effects, dtype=np.str_)
        return cls(values, errors, V, labels, tuple(contexts), provenance)

    def select(self, effects: Any = None, contexts: Any = None) -> Self:
        """Return some of the effects and contexts, in the order asked.

        Parameters
        ----------
        effects, contexts : slice, boolean mask, integers or labels, optional
            What to keep. None keeps all. Positions count from 0.

        Raises
        ------
        LabelError
            A label is unknown.
        ShapeError
            A position is out of range, or a mask has the wrong length.
        """
        rows = _positions(effects, self.n_effects, self.effects, "effect")
        columns = _positions(contexts, self.n_contexts, self.contexts, "context")
        V = self.V
        if V is not None:
            V = (V if V.ndim == 2 else V[rows])[..., columns[:, None], columns]
        return type(self)(
            self.bhat[np.ix_(rows, columns)],
            self.shat[np.ix_(rows, columns)],
            V,
            None if self.effects is None else self.effects[rows],
            None if self.contexts is None else tuple(self.contexts[i] for i in columns),
            self.provenance,
        )


def _matrix(values: ArrayLike, what: str) -> Array:
    try:
        matrix: Array = np.array(values, dtype=np.float64, order="C")
    except (TypeError, ValueError) as error:
        raise InputTypeError(f"{what} must be numeric: {error}.") from None
    if matrix.ndim != 2:
        raise ShapeError(f"{what} must have two dimensions (effects, contexts), not {matrix.ndim}.")
    if matrix.size == 0:
        raise ShapeError(f"{what} is empty: its shape is {matrix.shape}.")
    return matrix


def _labels(labels: Any, count: int, what: str) -> list[str] | None:
    if labels is None:
        return None
    names = [str(label) for label in labels]
    if len(names) != count:
        raise ShapeError(f"{len(names)} {what} labels were given for {count} {what}s.")
    if len(set(names)) < count:
        repeated = names[first_repeat(names)[1]]
        raise LabelError(
            f"the {what} label {repeated!r} occurs more than once; labels must differ."
        )
    return names


def _check_cells(
    bhat: Array, shat: Array, effects: list[str] | None, contexts: list[str] | None
) -> None:
    def complain(bad: NDArray[np.bool_], found: str, advice: str) -> None:
        if not bad.any():
            return
        row, column = (int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))
        effect = row if effects is None else repr(effects[row])
        context = column if contexts is None else repr(contexts[column])
        raise InputError(
            f"{found} in {counted(int(bad.sum()), 'cell')} (first: effect {effect}, context "
            f"{context}). {advice}"
        )

    complain(np.isinf(bhat), "bhat is Inf", "Effects must be finite; NaN marks a missing cell.")
    complain(
        shat <= 0,
        "shat is not positive",
        "A standard error must be positive; a cell that was not measured has shat = inf.",
    )
    one_sided = "A missing cell is NaN in both bhat and shat, or has shat = inf."
    complain(np.isnan(bhat) & np.isfinite(shat), "bhat is NaN and shat is not", one_sided)
    complain(np.isnan(shat) & ~np.isnan(bhat), "shat is NaN and bhat is not", one_sided)


def _check_correlation(values: ArrayLike, shape: tuple[int, ...]) -> Array:
    n_effects, n_contexts = shape
    try:
        V: Array = np.array(values, dtype=np.float64, order="C")
    except (TypeError, ValueError) as error:
        raise InputTypeError(f"V must be numeric: {error}.") from None
    expected = ((n_contexts, n_contexts), (n_effects, n_contexts, n_contexts))
    if V.shape not in expected:
        raise ShapeError(
            f"V has dimension {V.shape}; expected {expected[0]}, or {expected[1]} (one per effect)."
        )
    stack = V.reshape(-1, n_contexts, n_contexts)
    for start in range(0, len(stack), _MATRICES_PER_BLOCK):
        _check_stack(stack[start : start + _MATRICES_PER_BLOCK], start, V.ndim == 3)
    return V


def _check_stack(stack: Array, start: int, per_effect: bool) -> None:
    """Check some matrices at once; the first one that is bad is named."""

    def name(bad: Any) -> str:
        return f"V[{start + int(bad.argmax())}]" if per_effect else "V"

    infinite = ~np.isfinite(stack).all(axis=(1, 2))
    if infinite.any():
        raise InputError(f"{name(infinite)} holds NaN or Inf; it must be finite.")
    skew = np.abs(stack - stack.transpose(0, 2, 1)).max(axis=(1, 2))
    if (skew > _SYMMETRY_TOLERANCE).any():
        raise InputError(
            f"{name(skew > _SYMMETRY_TOLERANCE)} is not symmetric "
            f"(largest difference {skew.max():.3g})."
        )
    try:
        np.linalg.cholesky(stack)
    except np.linalg.LinAlgError:
        smallest = np.linalg.eigvalsh(stack)[:, 0]
        worst = smallest == smallest.min()
        raise NotPositiveDefiniteError(
            f"{name(worst)} must be positive definite; its smallest eigenvalue is "
            f"{smallest.min():.3g}. Add a small number to the diagonal, or use a better estimate."
        ) from None


def _split_frame(frame: Any, what: str) -> tuple[list[str] | None, list[str], Array]:
    """Return row labels, column labels and values of a pandas or polars DataFrame."""
    if not hasattr(frame, "columns") or not hasattr(frame, "to_numpy"):
        raise InputTypeError(
            f"{what} is a {type(frame).__name__}; expected a pandas or polars DataFrame. "
            "For arrays use Effects(bhat, shat, ...)."
        )
    names = [str(name) for name in frame.columns]
    columns = [_column(frame, position) for position in range(len(names))]
    leading = 0
    labels: list[str] | None = None
    index = getattr(frame, "index", None)
    if index is not None and type(index).__name__ != "RangeIndex":
        labels = [":".join(map(str, label)) if isinstance(label, tuple) else str(label)
                  for label in index]  # fmt: skip
    else:
        while leading < len(names) and columns[leading].dtype.kind in "OSU":
            leading += 1
        if leading:
            labels = [":".join(map(str, parts)) for parts in zip(*columns[:leading], strict=True)]
    for name, column in zip(names[leading:], columns[leading:], strict=True):
        if column.dtype.kind not in "fiu":
            raise InputTypeError(f"column {name!r} of {what} is not numeric.")
    if leading == len(names):
        raise ShapeError(f"{what} has no numeric column.")
    return labels, names[leading:], np.column_stack(columns[leading:]).astype(np.float64)


def _column(frame: Any, position: int) -> NDArray[Any]:
    """Return one column as an array in which a missing number is NaN."""
    if hasattr(frame, "iloc"):
        column = frame.iloc[:, position]
        kind = getattr(column.dtype, "kind", "O")
        if kind in "fiu":
            return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))
    else:
        column = frame.to_series(position)
        if column.dtype.is_numeric():
            return np.asarray(column.cast(float).to_numpy())
    return np.asarray(column.to_numpy(), dtype=object)


def _require_equal(
    what: str, ours: str, labels: list[str] | None, theirs: str, others: list[str] | None
) -> None:
    if labels == others:
        return
    if labels is None or others is None:
        with_labels, without = (theirs, ours) if labels is None else (ours, theirs)
        raise LabelError(f"{with_labels} has labels of {what} and {without} has none.")
    raise LabelError(
        f"the {what} of {ours} and {theirs} differ: {describe_difference(labels, others)}. "
        "They are never aligned silently: put both in the same order first."
    )


def _positions(wanted: Any, count: int, labels: Sequence[str] | Any, what: str) -> NDArray[np.intp]:
    if wanted is None:
        return np.arange(count)
    if isinstance(wanted, slice):
        return np.arange(count)[wanted]
    items = np.asarray([wanted] if isinstance(wanted, str | int | np.integer) else wanted)
    if items.ndim != 1:
        raise ShapeError(f"{what}s to select must be one-dimensional, not {items.ndim}.")
    if items.dtype.kind == "b":
        if len(items) != count:
            raise ShapeError(f"the mask has {len(items)} values for {count} {what}s.")
        return np.flatnonzero(items)
    if items.dtype.kind in "iu" or len(items) == 0:
        positions = items.astype(np.intp)
        if len(items) and (positions.min() < -count or positions.max() >= count):
            raise ShapeError(f"a position reaches beyond the {count} {what}s.")
        return np.asarray(np.arange(count)[positions])
    if labels is None:
        raise LabelError(f"the {what}s have no labels; select them by position.")
    place = {str(label): i for i, label in enumerate(labels)}
    unknown = [str(item) for item in items if str(item) not in place]
    if unknown:
        raise LabelError(f"{len(unknown)} {what}s are unknown (first: {unknown[0]!r}).")
    return np.array([place[str(item)] for item in items], dtype=np.intp)
