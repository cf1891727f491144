"""The base of every result: labelled arrays that print, tabulate, save and load themselves."""

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from html import escape
from re import sub
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self, get_args, get_origin, get_type_hints

import numpy as np

from plait.errors import FileFormatError, NotAvailableError, OptionError
from plait.io.store import (
    SCHEMA_VERSION,
    Contents,
    distinct_dims,
    extend_store,
    label_arrays,
    local_path,
    read_labels,
    read_provenance,
    read_store,
    require_apart,
    write_store,
)
from plait.io.stored_arrays import StoredArray, has_array
from plait.provenance import Provenance

if TYPE_CHECKING:
    from polars import DataFrame
    from xarray import Dataset

_FIELDS = "fields"


def freeze(array: Any) -> Any:
    """Return a read-only view of a NumPy array; anything else is returned as it is."""
    if not isinstance(array, np.ndarray):
        return array
    view = array.view()
    view.flags.writeable = False
    return view


class Result:
    """Base of results; subclasses are ``@dataclass(frozen=True, eq=False)``.

    A field is one of:

    - an *array*, when ``dims`` names its dimensions; it may be None (not computed). A dict of
      equally shaped arrays is stored as one, its keys being the labels of the first dimension;
    - *labels* of a dimension: the field named in ``label_fields``, or like the dimension; a tuple
      or an array of str, or None;
    - another `Result`, or None;
    - ``provenance``;
    - anything else that JSON can hold: numbers, text, lists, dicts.

    Arrays are read-only views from construction on (a subclass with its own ``__post_init__``
    calls this one).
    """

    __slots__ = ()

    dims: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType({})
    """Dimensions of each array field."""
    label_fields: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Dimension -> field that labels it, where the field is not called like the dimension."""
    frame_dims: ClassVar[tuple[str, ...]] = ("effects", "contexts")
    """Dimensions of the fields that `to_frame` tabulates."""
    kind: ClassVar[str] = ""
    """What a store of it is called; the class name in snake case by default."""
    schema_version: ClassVar[str] = SCHEMA_VERSION

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "kind" not in cls.__dict__:
            cls.kind = sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
        if "__repr__" not in cls.__dict__:  # or the dataclass would print whole arrays
            cls.__repr__ = Result.__repr__  # type: ignore[method-assign]

    def __post_init__(self) -> None:
        for name in _field_names(type(self)):
            value = getattr(self, name)
            if isinstance(value, np.ndarray):
                object.__setattr__(self, name, freeze(value))
            elif name in self.dims and isinstance(value, Mapping):
                object.__setattr__(self, name, {key: freeze(part) for key, part in value.items()})

    @classmethod
    def _label_field(cls, dimension: str) -> str | None:
        """Return the field that holds the labels of a dimension; array fields never do."""
        field = cls.label_fields.get(dimension, dimension)
        return field if field in _field_names(cls) and field not in cls.dims else None

    def labels(self, dimension: str) -> list[str] | None:
        """Return the labels of a dimension, or None when it has none."""
        field = self._label_field(dimension)
        if field is not None and (values := getattr(self, field)) is not None:
            return [str(value) for value in values]
        for name, dims in self.dims.items():
            if dims[0] == dimension and isinstance(value := getattr(self, name), Mapping):
                return [str(key) for key in value]
        return None

    def sizes(self) -> dict[str, int]:
        """Return the length of every dimension that occurs."""
        lengths: dict[str, int] = {}
        for name, dims in self.dims.items():
            if (value := getattr(self, name)) is not None:
                lengths.update(zip(dims, np.shape(_stacked(value)), strict=True))
        return lengths

    def summary(self) -> str:
        """Say in a few lines what is in the result."""
        lines = [repr(self), f"  holds {', '.join(self._held())}"]
        origin: Provenance | None = getattr(self, "provenance", None)
        if origin is not None:
            seconds = "" if origin.seconds is None else f", {origin.seconds:.3g} s"
            lines.append(
                f"  by {origin.method} (plait {origin.version}{seconds}), {origin.created}"
            )
        return "\n".join(lines)

    def to_xarray(self) -> "Dataset":
        """Return the arrays as an `xarray.Dataset`, labels as coordinates.

        A dimension that occurs twice in an array is numbered (``contexts_2``).
        """
        return self._contents(frozenset()).to_xarray()

    def _held(self) -> list[str]:
        """Return the names of the arrays that there are."""
        return [name for name in self.dims if getattr(self, name) is not None]

    def _contents(self, left_out: frozenset[str]) -> Contents:
        """Return the arrays and labels, but for some that are not wanted."""
        held = self._held()
        arrays = {
            name: (distinct_dims(self.dims[name]), _stacked(getattr(self, name)))
            for name in held
            if name not in left_out
        }
        used = {dimension for name in held for dimension in self.dims[name]}
        wanted = sorted(used - left_out - set(arrays))
        return Contents({**arrays, **label_arrays({name: self.labels(name) for name in wanted})})

    def to_frame(self, kind: str = "long") -> "DataFrame":
        """Return a table.

        Parameters
        ----------
        kind : {"long", "wide"}
            ``"long"`` (default): one row per effect and context, one column per quantity.
            ``"wide"``: one row per effect, one column ``<quantity>.<context>`` per quantity and
            context, after the quantities that an effect has one of.

        Returns
        -------
        polars.DataFrame
            Without labels, effects and contexts are numbered from 0.

        Raises
        ------
        NotAvailableError
            The result holds nothing to tabulate.
        """
        import polars as pl

        if kind not in ("long", "wide"):
            raise OptionError(f"kind is {kind!r}; expected 'long' or 'wide'.")
        first, *rest = self.frame_dims
        full = self._arrays_with(self.frame_dims)
        single = self._arrays_with((first,))
        if not full and not single:
            raise NotAvailableError(
                f"this {type(self).__name__} holds no array of {' x '.join(self.frame_dims)}."
            )
        sizes = self.sizes()
        names = [self._label_series(name, sizes[name]) for name in self.frame_dims if name in sizes]
        if not full or not rest:
            return pl.DataFrame(
                [names[0], *(pl.Series(k, v) for k, v in {**single, **full}.items())]
            )
        rows, columns = sizes[first], sizes[rest[0]]
        if kind == "long":
            row, column = np.divmod(np.arange(rows * columns), columns)
            flat = (pl.Series(name, values.reshape(-1)) for name, values in full.items())
            return pl.DataFrame([names[0].gather(row), names[1].gather(column), *flat])
        wide = (
            pl.Series(f"{name}.{label}", np.ascontiguousarray(values[:, i]))
            for name, values in full.items()
            for i, label in enumerate(names[1])
        )
        return pl.DataFrame([names[0], *(pl.Series(k, v) for k, v in single.items()), *wide])

    def take(self, rows: Any) -> Self:
        """Return the result of some rows (slice or row numbers), in memory."""
        first = self.frame_dims[0]
        parts = {
            name: getattr(self, name)[rows] for name in self._held() if self.dims[name][0] == first
        }
        field = self._label_field(first)
        if field is not None and (labels := getattr(self, field)) is not None:
            parts[field] = labels[rows]
        return replace(self, **parts)  # type: ignore[type-var]

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Save as a store (Zarr v3).

        Parameters
        ----------
        path : str or path
            A path, by custom ending in ``.zarr``, or any fsspec URL.
        overwrite : bool
            Whether a store that exists is replaced.

        Raises
        ------
        OutputError
            The store exists, the folder is missing or not writable, or the disk is full. Nothing
            half-written is left.
        """
        if local_path(path) is None:  # there the old store goes before the new one is written
            for name in _field_names(type(self)):
                if isinstance(value := getattr(self, name), StoredArray):
                    require_apart(path, value.url)
        groups: dict[str, Contents] = {}
        root = self._gather("", groups)
        write_store(
            root,
            path,
            kind=self.kind,
            provenance=getattr(self, "provenance", None),
            overwrite=overwrite,
            groups=groups,
            schema_version=self.schema_version,
        )

    def save_around(self, path: str | os.PathLike[str], written: Collection[str]) -> None:
        """Complete a store whose large arrays were written block by block.

        Parameters
        ----------
        path : str or path
        written : collection of str
            The fields, and the dimensions whose labels, are in the store already.
        """
        groups: dict[str, Contents] = {}
        root = self._gather("", groups, frozenset(written))
        extend_store(
            root,
            path,
            kind=self.kind,
            provenance=getattr(self, "provenance", None),
            groups=groups,
            schema_version=self.schema_version,
        )

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open what `save` wrote, leaving the arrays and labels of the rows in the store.

        They are read when they are indexed (see `plait.io.stored_arrays.StoredArray`); everything
        else is loaded.

        Raises
        ------
        FileFormatError
            See `load`.
        """
        return cls._from_store(path, "", lazy=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Load what `save` wrote.

        Raises
        ------
        FileFormatError
            There is no such store, it is damaged, holds another kind of result, or was written by
            a later version of plait with another layout.
        """
        return cls._from_store(path, "")

    def allclose(self, other: Any, rtol: float = 1e-9, atol: float = 0.0) -> bool:
        """Tell whether two results hold the same numbers and labels.

        Parameters
        ----------
        other : Result
        rtol, atol : float
            Relative and absolute tolerance of numbers. NaN equals NaN. Provenance and times
            (``seconds``) are not compared.
        """
        if type(self) is not type(other):
            return False
        names = (name for name in _field_names(type(self)) if name not in _NOT_COMPARED)
        return all(_same(getattr(self, n), getattr(other, n), rtol, atol) for n in names)

    def __repr__(self) -> str:
        sizes = " x ".join(f"{size} {name}" for name, size in self.sizes().items())
        return f"{type(self).__name__}({sizes})"

    def __rich__(self) -> Any:
        """Return what Rich prints: the summary in a panel."""
        from rich.panel import Panel
        from rich.text import Text

        return Panel(Text(self.summary()), title=type(self).__name__, expand=False)

    def _repr_html_(self) -> str:
        try:
            table = self.take(slice(0, 8)).to_frame().head(8)._repr_html_()
        except NotAvailableError:
            table = ""
        return f"<pre>{escape(self.summary())}</pre>{table}"

    def _arrays_with(self, dims: tuple[str, ...]) -> dict[str, Any]:
        return {
            name: np.asarray(getattr(self, name))
            for name, own in self.dims.items()
            if tuple(own) == dims and getattr(self, name) is not None
        }

    def _label_series(self, dimension: str, length: int) -> Any:
        import polars as pl

        labels = self.labels(dimension)
        values = np.arange(length) if labels is None else labels
        return pl.Series(dimension.removesuffix("s"), values)

    def _gather(
        self, prefix: str, groups: dict[str, Contents], written: frozenset[str] = frozenset()
    ) -> Contents:
        """Return what this result holds and put the results inside it into ``groups``.

        Fields in ``written``, and labels of dimensions in it, stand in the store already.
        """
        others: dict[str, Any] = {}
        used = {dimension for name in self._held() for dimension in self.dims[name]}
        coordinates = {self._label_field(name) for name in used}
        for name in _field_names(type(self)):
            value = getattr(self, name)
            if name in written or (name in coordinates and value is not None):
                continue
            if isinstance(value, Result):
                groups[prefix + name] = value._gather(f"{prefix}{name}/", groups)
            elif not isinstance(value, Provenance) and (name not in self.dims or value is None):
                others[name] = _plain(value)
        text = json.dumps(others, default=_json_default)
        contents = self._contents(written).with_attributes(**{_FIELDS: text})
        if prefix and isinstance(origin := getattr(self, "provenance", None), Provenance):
            contents = contents.with_attributes(provenance=json.dumps(origin.to_dict()))
        return contents

    @classmethod
    def _from_store(
        cls, path: str | os.PathLike[str], prefix: str, root: str = "", lazy: bool = False
    ) -> Self:
        rows = cls.frame_dims[0]
        left = {name for name, dims in cls.dims.items() if dims[0] == rows} if lazy else set()
        contents = read_store(
            path,
            kind=root or cls.kind,
            group=prefix.rstrip("/") or None,
            leave_out=[*left, rows] if lazy else (),
            schema_version=cls.schema_version,
        )
        hints = get_type_hints(cls)
        try:
            values: dict[str, Any] = json.loads(contents.attributes[_FIELDS])
        except KeyError:
            raise FileFormatError(
                f"{path} is damaged: {prefix or cls.kind} has no fields."
            ) from None
        for dimension in contents.labelled:
            if (name := cls._label_field(dimension)) is not None:
                labels: Any = read_labels(contents, dimension)
                is_list = _is_one_of(hints[name], (tuple, list))
                values[name] = labels.tolist() if is_list else labels
        for name in _field_names(cls):
            if name in values:
                values[name] = _restored(values[name], hints[name])
            elif name in cls.dims and name in contents:
                values[name] = _unstacked(contents[name], contents, cls.dims[name], hints[name])
            elif name == "provenance":
                values[name] = read_provenance(contents)
            elif name in left and has_array(path, prefix + name):
                values[name] = StoredArray(path, prefix + name)
            elif (inner := _result_type(hints[name])) is not None:
                values[name] = inner._from_store(path, f"{prefix}{name}/", root or cls.kind)
        if lazy and (name := cls._label_field(rows)) and has_array(path, prefix + rows):
            values[name] = StoredArray(path, prefix + rows)
        known = set(_field_names(cls))
        return cls(**{name: value for name, value in values.items() if name in known})


_NOT_COMPARED = {"provenance", "seconds"}


def _field_names(cls: type) -> list[str]:
    return [item.name for item in fields(cls)]


def _stacked(value: Any) -> Any:
    """Return a dict of equally shaped arrays as one array, text as Zarr wants it."""
    if isinstance(value, Mapping):
        value = np.stack([np.asarray(part) for part in value.values()])
    is_text = isinstance(value, np.ndarray) and value.dtype.kind == "U"
    return value.astype(object) if is_text else value


def _unstacked(values: Any, contents: Contents, dims: tuple[str, ...], hint: Any) -> Any:
    if values.dtype.kind in "OT":
        values = values.astype(object).astype(np.str_)
    if not _is_one_of(hint, (dict, Mapping)):
        return values
    return dict(zip((str(key) for key in contents[dims[0]]), values, strict=True))


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the type itself."""
    origin = get_origin(hint)
    is_union = origin is not None and origin.__name__ in ("Union", "UnionType")
    return get_args(hint) if is_union else (hint,)


def _is_one_of(hint: Any, types: tuple[type, ...]) -> bool:
    """Tell whether a type annotation allows one of some types."""
    return any((get_origin(part) or part) in types for part in _alternatives(hint))


def _result_type(hint: Any) -> type[Result] | None:
    for part in _alternatives(hint):
        if isinstance(part, type) and issubclass(part, Result):
            return part
    return None


def _plain(value: Any) -> Any:
    """Keep apart on the way through JSON what it would merge: arrays and lists."""
    if isinstance(value, np.ndarray):
        return {"__array__": value.tolist(), "dtype": value.dtype.str}
    return value


def _restored(value: Any, hint: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"__array__", "dtype"}:
        return np.array(value["__array__"], dtype=value["dtype"])
    if isinstance(value, list) and _is_one_of(hint, (tuple,)):
        return tuple(value)
    return value


def _json_default(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a result cannot store a {type(value).__name__}.")


def _same(one: Any, other: Any, rtol: float, atol: float) -> bool:
    if isinstance(one, Result):
        return one.allclose(other, rtol, atol)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(
            _same(part, other[key], rtol, atol)
            for key, part in one.items()
            if key not in _NOT_COMPARED
        )
    if one is None or other is None:
        return one is other
    try:
        ours, theirs = np.asarray(one), np.asarray(other)
    except ValueError:  # nested lists of unequal lengths
        return bool(one == other)
    if ours.shape != theirs.shape:
        return False
    if ours.dtype.kind in "fiubc" and theirs.dtype.kind in "fiubc":
        return bool(np.allclose(ours, theirs, rtol=rtol, atol=atol, equal_nan=True))
    return bool(np.array_equal(ours, theirs))
