"""Data that stay in their store: looked over once, then read block by block."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.data.effects import Effects
from plait.errors import FileFormatError, InputError, LabelError, OptionError
from plait.execution.blocks import Block, block_rows, plan_blocks, workers_that_fit
from plait.execution.executors import Workforce, run_blocks, workforce
from plait.execution.progress import stage
from plait.io.store import check_schema_of
from plait.io.stored_arrays import StoredArray, chunk_rows, has_array, place_of
from plait.mash import checks
from plait.mash.covariances import select_rows
from plait.mash.data import MashData, Whole, assemble, counted_cells, grid_extremes
from plait.numerics.order_statistics import LEADING_BITS, leading_bits

Array = NDArray[np.float64]
Output = TypeVar("Output")

_COPIES = 18
"""Arrays of the size of a block's effects that are alive while it is worked on (measured)."""

_OUTPUT_COPIES = 9
"""The same of every output column beyond those of the effects (measured)."""

_COLUMNS = 10
"""Numbers that are kept of every effect, however many conditions there are (measured)."""

_LABEL_BYTES = 160
"""Of a label of an effect while its block is worked on: two copies of about 30 characters."""

Values = tuple[Array, Array, Array]


@dataclass(frozen=True, eq=False)
class Facts:
    """What one pass over all effects found out.

    Attributes
    ----------
    whole : Whole
        What parts must know to be computed with the same bits.
    smallest_error, largest_excess : float
        What the grid is chosen from.
    score_bins, score_counts : integer arrays
        The leading 16 bits of ``max |z|`` that occur, ascending, and in how many effects.
    n_missing : int
        Cells that were not measured.
    fingerprint : str
        Digest of all numbers and of the labels of the effects.
    """

    whole: Whole
    smallest_error: float
    largest_excess: float
    score_bins: NDArray[np.int64]
    score_counts: NDArray[np.int64]
    n_missing: int
    fingerprint: str


@dataclass(frozen=True, eq=False)
class StoredData:
    """Effects in a store, ready for mash; made by `mash_open_data`.

    Attributes
    ----------
    url : str
    alpha : float
    missing : {"exact", "large_se"}
    V : (R, R) array or None
        Correlation of the errors; None when the store has one per effect.
    n_effects, n_conditions : int
    condition_names : tuple of str or None
    columns : tuple of int
        The columns of the store that are analysed.
    has_effect_names : bool
    facts : Facts or None
    """

    url: str
    alpha: float
    missing: str
    V: Array | None
    n_effects: int
    n_conditions: int
    condition_names: tuple[str, ...] | None
    columns: tuple[int, ...]
    has_effect_names: bool
    facts: Facts | None = None

    def __repr__(self) -> str:
        return (
            f"StoredData({self.n_effects} effects x {self.n_conditions} conditions in {self.url}, "
            f"alpha={self.alpha:g})"
        )

    @property
    def unit(self) -> int:
        """Rows of a unit: sums over effects are made unit by unit."""
        return _unit_rows(self.n_conditions, self.V is not None)

    @property
    def known(self) -> Facts:
        """The facts, once they are known."""
        if self.facts is None:
            raise InputError("the data were not looked over; make them with mash_open_data().")
        return self.facts

    def read(self, rows: slice | NDArray[np.intp], labelled: bool = True) -> MashData:
        """Read some effects; they are computed with the bits they have among all.

        Reading labels can take longer than reading numbers: sums need none.
        """
        if not isinstance(rows, slice):
            rows = select_rows(self, rows)
        return self.prepare(self.values(rows), self.labels(rows) if labelled else None)

    def prepare(self, values: Values, labels: NDArray[Any] | None) -> MashData:
        """Make data of the values and labels of some effects."""
        effects, errors, V = values
        missing = np.isnan(errors) | np.isposinf(errors) | np.isnan(effects)
        mask = missing if missing.any() else None
        if mask is not None:
            effects, errors = np.where(mask, np.nan, effects), np.where(mask, np.nan, errors)
        data = assemble(
            effects, errors, self.alpha, V, mask, self.missing, self.condition_names, labels,
        )  # fmt: skip
        whole = None if self.facts is None else self.facts.whole
        return replace(data, missing_chosen=True, whole=whole)

    @property
    def effect_names(self) -> Any:
        """The labels of all effects, in the store; None when they have none."""
        return StoredArray(self.url, "effects") if self.has_effect_names else None

    def labels(self, rows: slice | NDArray[np.intp]) -> NDArray[Any] | None:
        """Return the labels of some effects, as Python strings."""
        names = self.effect_names
        if names is None:
            return None
        labels: NDArray[Any] = names[rows]
        return labels

    def check(self, values: Values, rows: slice) -> None:
        """Refuse bad numbers, naming the row by its label or its number in the store."""
        effects, errors, V = values
        if not _are_usable(effects, errors):
            names = self.labels(rows)
            if names is None:
                names = np.arange(*rows.indices(self.n_effects)).astype(np.str_)
            elif len(names) > len(set(names)):
                names = None  # the labels of effects need not differ: a fit does not use them
            Effects(effects, errors, None, names, self.condition_names)
        if V.ndim == 3:
            try:
                Effects(effects, errors, V)
            except InputError as error:
                text = f"in the effects from row {rows.start} on: {error}"
                raise type(error)(text) from None

    def map_blocks(
        self,
        function: Callable[[Block], Output],
        force: Workforce,
        label: str,
        finished: Sequence[Block] = (),
        width: int = 0,
    ) -> Iterator[tuple[Block, Output]]:
        """Yield ``(block, function(block))`` of the blocks that are not finished, in order.

        ``width`` is the number of columns that a block makes, where these are more than the data
        have.
        """
        numbers = _COPIES * self.n_conditions + _COLUMNS
        numbers += _OUTPUT_COPIES * max(width - self.n_conditions, 0)
        if self.V is None:
            numbers += 3 * self.n_conditions**2
        per_effect = 8 * numbers + (_LABEL_BYTES if self.has_effect_names else 0)
        size = (self.unit, per_effect, force.memory, force.workers, self.n_effects)
        if force.executor is None:
            fewer = workers_that_fit(*size)
            force, size = replace(force, workers=fewer), (*size[:3], fewer, size[4])
        blocks = plan_blocks(self.n_effects, block_rows(*size), finished)
        with stage(label, self.n_effects) as advance:
            if done := sum(len(block) for block in finished):
                advance(done, note=f"resumed after {done:,}")
            for block, output in run_blocks(function, blocks, force, label):
                yield block, output
                advance(len(block))

    def cross_product(self, force: Workforce) -> Array:
        """Return ``Bhat^T Bhat`` (R x R) of the effects as they enter the model."""
        blocks = self.map_blocks(_CrossProduct(self), force, "principal components")
        total = np.zeros((self.n_conditions, self.n_conditions))
        for _, parts in blocks:
            for part in parts:
                total += part
        return total

    def units(self, block: Block) -> list[slice]:
        """Return the rows of the units of a block."""
        return _cut(block.start, block.stop, self.unit)

    def values(self, rows: slice | NDArray[np.intp]) -> Values:
        """Read effects, standard errors and error correlation as they are stored."""

        def read(name: str) -> Array:
            values = np.asarray(StoredArray(self.url, name)[rows], dtype=np.float64)
            is_all = self.columns == tuple(range(values.shape[1]))
            return values if is_all else np.ascontiguousarray(values[:, list(self.columns)])

        V = self.V
        if V is None:
            stack = np.asarray(StoredArray(self.url, "V")[rows], dtype=np.float64)
            chosen = np.ix_(range(len(stack)), self.columns, self.columns)
            V = np.ascontiguousarray(stack[chosen])
        return read("bhat"), read("shat"), V


def mash_open_data(
    url: str | os.PathLike[str],
    alpha: float = 0.0,
    *,
    V: ArrayLike | None = None,
    v_ridge: float = 0.0,
    conditions: Sequence[str] | None = None,
    missing: str = "exact",
    executor: Any = None,
    memory: int | str | None = None,
    threads: int | None = None,
) -> StoredData:
    """Open effects in a store for mash, without loading them.

    Parameters
    ----------
    url : str or path
        A store of `plait.data.Effects`, as `plait.io.write_effects` makes it: a path or any fsspec
        URL that the workers can reach.
    alpha : float
        As in `mash_set_data`.
    V : (R, R) array, optional
        Correlation of the errors, instead of the store's own. Default the store's, or the identity.
    v_ridge : float
        Added to the diagonal of V.
    conditions : sequence of str, optional
        The contexts to analyse. Default all.
    missing : {"exact", "large_se"}
        As in `mash_set_data`.
    executor : concurrent.futures.Executor or dask.distributed.Client, optional
        Who looks over the data. Default threads of this process.
    memory : int or str, optional
        Bytes, or text such as ``"2GB"``, that this may take. Default half of what is free.
    threads : int, optional
        Default all cores.

    Returns
    -------
    StoredData
        For `select_training_effects`, `fit_mash_prior`, `mash_train_apply`,
        `apply_mash_prior_chunked`, `estimate_null_correlation_simple`, `strong_effects`,
        `cov_canonical`, `cov_pca` and `cov_ed`.

    Raises
    ------
    FileFormatError
        There is no such store, or it holds something else.
    InputError
        The numbers cannot be used; the message says where.

    Notes
    -----
    Reads every number once, to check it and to learn what parts must know of the whole. Memory
    follows the budget, not the number of effects.
    """
    if missing not in ("exact", "large_se"):
        raise OptionError(f"missing is {missing!r}; choose 'exact' or 'large_se'.")
    data = _described(place_of(url), float(alpha), missing, conditions)
    if V is not None or v_ridge > 0:
        data = _with_correlation(data, V, v_ridge)
    return replace(data, facts=_look_over(data, workforce(executor, memory, threads)))


def stored_conditions(
    url: str | os.PathLike[str], conditions: Sequence[str] | None = None
) -> tuple[str, ...] | None:
    """Return the names of the conditions that `mash_open_data` would analyse.

    Raises
    ------
    FileFormatError, LabelError
        As `mash_open_data`.
    """
    return _described(place_of(url), 0.0, "exact", conditions).condition_names


def _with_correlation(data: StoredData, V: ArrayLike | None, v_ridge: float) -> StoredData:
    """Return data, not yet looked over, with another (R, R) correlation of the errors."""
    given = data.V if V is None else V
    if given is None:
        raise OptionError("v_ridge needs one V for all effects, and the store has one each.")
    if np.ndim(given) != 2:
        raise OptionError("data in a store take one (R, R) correlation V from outside.")
    correlation = checks.check_correlation(given, data.n_effects, data.n_conditions, v_ridge)
    correlation.flags.writeable = False
    return replace(data, V=correlation)


def _described(
    url: str, alpha: float, missing: str, conditions: Sequence[str] | None
) -> StoredData:
    check_schema_of(url, "effects")
    if lacking := [name for name in ("bhat", "shat") if not has_array(url, name)]:
        raise FileFormatError(f"{url} lacks {lacking[0]!r}.")
    shape, other = StoredArray(url, "bhat").shape, StoredArray(url, "shat").shape
    if shape != other or len(shape) != 2 or 0 in shape:
        raise FileFormatError(f"{url}: bhat has shape {shape} and shat {other}.")
    names = _optional(url, "contexts")
    labels = None if names is None else tuple(str(name) for name in names[:])
    columns = _columns(url, labels, shape[1], conditions)
    V: Array | None = np.eye(len(columns))
    correlation = _optional(url, "V")
    if correlation is not None:
        V = None
        if correlation.ndim == 2:
            V = checks.check_correlation(
                correlation[:][np.ix_(columns, columns)], shape[0], len(columns), 0.0
            )
    return StoredData(
        url=url,
        alpha=alpha,
        missing=missing,
        V=V,
        n_effects=shape[0],
        n_conditions=len(columns),
        condition_names=None if labels is None else tuple(labels[i] for i in columns),
        columns=columns,
        has_effect_names=_optional(url, "effects") is not None,
    )


def _optional(url: str, name: str) -> StoredArray | None:
    return StoredArray(url, name) if has_array(url, name) else None


def _columns(
    url: str, labels: tuple[str, ...] | None, width: int, conditions: Sequence[str] | None
) -> tuple[int, ...]:
    if conditions is None:
        return tuple(range(width))
    if labels is None:
        raise LabelError(f"{url}: the contexts have no names to choose by.")
    if unknown := [name for name in conditions if name not in labels]:
        raise LabelError(f"{url} has no context {unknown[0]!r}; it has {', '.join(labels)}.")
    if len(set(conditions)) < len(conditions) or not conditions:
        raise LabelError("name every condition once, and at least one.")
    return tuple(labels.index(name) for name in conditions)


@dataclass(frozen=True, eq=False)
class _Glance:
    """What is found in the rows of a unit."""

    reference: Array | None
    first_scale: Array
    is_common_scale: bool
    smallest_error: float
    largest_excess: float
    score_bins: NDArray[np.int64]
    score_counts: NDArray[np.int64]
    n_missing: int
    sums: Array
    digest: bytes


class _Tally:
    """What is found in the units so far, which are added in order."""

    def __init__(self) -> None:
        self.reference: Array | None = None
        self.first_scale: Array | None = None
        self.is_common_scale = True
        self.smallest_error, self.largest_excess = np.inf, -np.inf
        self.scores = np.zeros(1 << LEADING_BITS, dtype=np.int64)
        self.n_missing = 0
        self.sums, self.largest_counted = np.zeros(3), 0.0
        self.digest = hashlib.blake2b(digest_size=16)

    def add(self, unit: _Glance) -> None:
        """Add what is found in the next unit."""
        if self.reference is None:
            self.reference = unit.reference
        if self.first_scale is None:
            self.first_scale = unit.first_scale
        same = np.array_equal(self.first_scale, unit.first_scale)
        self.is_common_scale &= unit.is_common_scale and same
        self.smallest_error = min(self.smallest_error, unit.smallest_error)
        self.largest_excess = max(self.largest_excess, unit.largest_excess)
        self.scores[unit.score_bins] += unit.score_counts
        self.n_missing += unit.n_missing
        self.sums += unit.sums[:3]
        self.largest_counted = max(self.largest_counted, float(unit.sums[3]))
        self.digest.update(unit.digest)


@dataclass(frozen=True)
class _CrossProduct:
    """Sums the products of effects, unit by unit."""

    data: StoredData

    def __call__(self, block: Block) -> list[Array]:
        units = (self.data.read(rows, labelled=False).Bhat for rows in self.data.units(block))
        return [effects.T @ effects for effects in units]


@dataclass(frozen=True)
class _LookOver:
    """Checks a block and says what was found."""

    data: StoredData

    def __call__(self, block: Block) -> list[_Glance]:
        return [self._unit(rows) for rows in self.data.units(block)]

    def _unit(self, rows: slice) -> _Glance:
        values = self.data.values(rows)
        self.data.check(values, rows)
        part = self.data.prepare(values, None)
        reference = None
        if part.missing_mask is None or not part.missing_mask.any(axis=1).all():
            reference = part.Shat_reference.copy()
        smallest, excess = grid_extremes(*counted_cells(part))
        counted = part.Shat if part.missing_mask is None else part.Shat[~part.missing_mask]
        digest = hashlib.blake2b(digest_size=16)
        for array in values[:2] if part.common_V else values:
            digest.update(np.ascontiguousarray(array).data)
        labels = self.data.labels(rows)
        if labels is not None:
            digest.update("\0".join(labels).encode())
        counts = np.bincount(leading_bits(strengths(part)), minlength=1 << LEADING_BITS)
        bins = np.flatnonzero(counts)
        return _Glance(
            reference,
            np.array(part.Shat_alpha[0]),
            part.is_common_cov_shat_alpha(),
            smallest,
            excess,
            bins,
            counts[bins],
            0 if part.missing_mask is None else int(part.missing_mask.sum()),
            np.array([counted.size, counted.sum(), (counted**2).sum(), counted.max(initial=0.0)]),
            digest.digest(),
        )


def _look_over(data: StoredData, force: Workforce) -> Facts:
    found = _Tally()
    for _, units in data.map_blocks(_LookOver(data), force, "checking"):
        for unit in units:
            found.add(unit)
    _warn(data, found)
    reference = found.reference
    if reference is None:
        reference = data.read(slice(0, 1)).Shat[0]
    digest = found.digest
    digest.update(f"{data.n_effects} {data.unit}".encode())
    if data.V is not None:
        digest.update(np.ascontiguousarray(data.V).data)
    bins = np.flatnonzero(found.scores)
    return Facts(
        Whole(np.array(reference), found.is_common_scale),
        found.smallest_error,
        found.largest_excess,
        bins,
        found.scores[bins],
        found.n_missing,
        f"blake2b:{digest.hexdigest()}",
    )


def _warn(data: StoredData, found: _Tally) -> None:
    count, total, squares = found.sums
    if data.alpha == 0 and count > 1:
        mean = total / count
        spread = np.sqrt(max(squares / count - mean**2, 0.0)) / mean
        checks.warn_about_spread(float(spread), found.largest_counted / found.smallest_error)
    if data.V is not None:
        checks.warn_about_told_errors(data.V, data.condition_names)
    checks.warn_about_width(data.n_conditions)
    if data.missing == "large_se" and data.V is not None and found.n_missing:
        checks.warn_if_overconfident(data.missing, np.ones((1, 1), bool), data.V)


def _are_usable(effects: Array, errors: Array) -> bool:
    """Tell whether `Effects` takes these numbers, without the copies that it makes."""
    if np.isfinite(effects).all() and np.all(errors > 0):
        return True
    missing = np.isnan(effects) & np.isnan(errors)
    return bool(
        np.all(
            missing | (errors == np.inf) & ~np.isinf(effects) | (errors > 0) & np.isfinite(effects)
        )
    )


def _unit_rows(n_conditions: int, is_common_V: bool) -> int:
    """Return the rows of a unit, which are those of a chunk of the widest array."""
    return chunk_rows(8 * n_conditions * (1 if is_common_V else n_conditions))


def units_of(data: MashData) -> list[slice]:
    """Return the rows of the units of data in memory, the same as those of data in a store."""
    return _cut(0, data.n_effects, _unit_rows(data.n_conditions, data.common_V))


def _cut(start: int, stop: int, step: int) -> list[slice]:
    return [slice(first, min(first + step, stop)) for first in range(start, stop, step)]


def strengths(data: MashData) -> Array:
    """Return the largest ``|z|`` of every effect; cells without one count as 0."""
    z = np.abs(data.Bhat) / np.maximum(data.Shat, np.finfo(np.float64).tiny)
    score: Array = np.where(np.isfinite(z), z, 0.0).max(axis=1)
    return score
