"""Single-cell containers: AnnData and MuData files, cNMF usages, and long tables of guides."""

import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csc_array, issparse

from plait.data.labels import require_distinct
from plait.errors import (
    DependencyError,
    FileFormatError,
    InputError,
    InputTypeError,
    LabelError,
    OptionError,
)
from plait.io.atomic import replace_file
from plait.io.hdf5_heaps import check_text_heaps

if TYPE_CHECKING:
    from pandas import DataFrame
    from polars import DataFrame as PolarsDataFrame

CONTAINERS = ("obsm", "layers", "obsp", "uns", "obs")
"""Where a key is looked for, in this order."""

_CNMF_NAME = re.compile(r"\.usages\.k_(\d+)\.dt_(\d+)_(\d+)\.")
_MISSING_CELLS = ("error", "drop", "uniform")


def get_from_adata_any(adata: Any, key: str) -> Any:
    """Return what an AnnData holds under a key, wherever that is.

    Parameters
    ----------
    adata : AnnData or any object with some of its containers
    key : str
        Looked for in ``obsm``, ``layers``, ``obsp``, ``uns`` and ``obs``, in this order, and at
        last as ``adata[key]``.

    Returns
    -------
    object
        The first found, as it is there; what is on disk is read.

    Raises
    ------
    LabelError
        It is nowhere (also a KeyError).
    InputTypeError
        The key is no text (also a TypeError).
    """
    if not isinstance(key, str):
        raise InputTypeError(f"the key {key!r} is of type {type(key).__name__}; give a text.")
    for name in CONTAINERS:
        container = getattr(adata, name, None)
        if container is not None and key in container:
            return _in_memory(container[key])
    try:
        found = adata[key]
    except (KeyError, IndexError, TypeError):
        found = None
    # Indexing an AnnData by the name of a cell or gene gives a part of it, which is no answer.
    if found is None or isinstance(found, type(adata)):
        present = [name for name in CONTAINERS if getattr(adata, name, None) is not None]
        raise LabelError(
            f"there is no {key!r} in this {type(adata).__name__}; searched "
            f"{', '.join(present) or 'no container, as it has none'} and the object itself. "
            f"{_held_keys(adata, present)}"
        )
    return _in_memory(found)


def get_from_uns(adata: Any, key: str) -> Any:
    """Return what is in ``uns`` under a key, or None."""
    uns = getattr(adata, "uns", None)
    return uns[key] if uns is not None and key in uns else None


def read_screen(
    path: str | os.PathLike[str],
    *,
    guide_modality: str | None = None,
    target_column: str | None = None,
) -> Any:
    """Open a perturbation screen.

    Parameters
    ----------
    path : path
        ``.h5ad``: opened with the expression matrix left on disk. ``.h5mu``: read, see
        `screen_from_mudata`.
    guide_modality, target_column : str, optional
        For ``.h5mu``.

    Returns
    -------
    AnnData

    Raises
    ------
    FileFormatError
        There is no such file, it is damaged or neither of the two.
    DependencyError
        anndata or mudata is not installed.
    """
    data = _read_single_cell(Path(path), backed=Path(path).suffix == ".h5ad")
    if Path(path).suffix == ".h5ad":
        return data
    return screen_from_mudata(data, guide_modality=guide_modality, target_column=target_column)


def read_counts(path: str | os.PathLike[str], backed: bool = False) -> Any:
    """Read a screen with its counts.

    Parameters
    ----------
    path : path
        ``.h5ad`` or ``.h5mu``.
    backed : bool
        Whether X stays on disk.

    Returns
    -------
    AnnData or MuData

    Raises
    ------
    FileFormatError
        There is no such file, it is damaged or neither of the two.
    DependencyError
        anndata or mudata is not installed.
    """
    return _read_single_cell(Path(path), backed=backed)


def _read_single_cell(path: Path, backed: bool) -> Any:
    if path.suffix not in {".h5ad", ".h5mu"}:
        raise FileFormatError(f"{path} ends in {path.suffix!r}; expected .h5ad or .h5mu.")
    if not path.is_file():
        raise FileFormatError(f"there is no file {path}.")
    try:
        if path.suffix == ".h5ad":
            import anndata
        else:
            import mudata
    except ModuleNotFoundError as missing:
        raise DependencyError(
            f"{missing.name} is not installed, which reads {path.suffix}: pip install "
            "'plait[singlecell]'."
        ) from missing
    try:
        check_text_heaps(path)
        if path.suffix == ".h5ad":
            return anndata.read_h5ad(path, backed="r" if backed else None)
        # Columns are taken from the modalities.
        with _logging_left_alone(), mudata.set_options(pull_on_update=False):
            return mudata.read_h5mu(path, backed="r" if backed else None)
    except FileFormatError:
        raise
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise FileFormatError(f"{path} cannot be read as {path.suffix}: {error}.") from error


@contextmanager
def _logging_left_alone() -> Iterator[None]:
    """Keep a library that logs by the root logger from setting up logging for the program."""
    nothing, root = logging.NullHandler(), logging.getLogger()
    root.addHandler(nothing)
    try:
        yield
    finally:
        root.removeHandler(nothing)


def screen_from_mudata(
    mdata: Any, *, guide_modality: str | None = None, target_column: str | None = None
) -> Any:
    """Make one AnnData of a MuData with a modality of guides.

    Parameters
    ----------
    mdata : MuData
    guide_modality : str, optional
        Default "guide", "guides", "grna", "gRNA" or "crispr", whichever there is.
    target_column : str, optional
        Column of the guides' ``var`` with the target of each. Default "intended_target_name",
        "target_gene", "gene", "target" or "grna_target", whichever there is; without any, targets
        are those under "guide2gene", "grna_target_table" or "guide2gene_json" of ``uns``, if there.

    Returns
    -------
    AnnData
        Without expression: cells are those of all modalities together, ``obs``, ``obsm`` and
        ``uns`` are the MuData's and those of its modalities (the MuData's first, then modalities in
        order; of modalities only where they have all cells). ``obsm["guide_assignment"]`` is the
        layer "guide_assignment" of the guides or, without it, their X; ``uns["guide_names"]`` and
        ``uns["guide2gene"]`` say what they are.

    Raises
    ------
    LabelError
        There is no such modality or column.
    InputError
        A cell has no guides in the guide modality: the modalities have different cells.
    """
    import anndata
    import pandas as pd

    guides = mdata.mod[_one_of(mdata.mod, guide_modality, _GUIDE_MODALITIES, "modality of guides")]
    is_in_uns = target_column is None and any(
        key in part.uns for part in (mdata, *mdata.mod.values()) for key in _TARGETS_IN_UNS
    )
    target = None
    if not (is_in_uns and guides.var.columns.intersection(TARGET_COLUMNS).empty):
        target = _one_of(guides.var.columns, target_column, TARGET_COLUMNS, "column of targets")
    rows = guides.obs_names.get_indexer(mdata.obs_names)
    if (rows < 0).any():
        raise InputError(
            f"{int((rows < 0).sum()):,} of {len(rows):,} cells are not in the modality of guides "
            f"(first: {mdata.obs_names[int(np.argmax(rows < 0))]!r}). {SHARED_CELLS}"
        )
    assignment = guides.layers.get("guide_assignment", guides.X)[rows]
    screen = anndata.AnnData(
        obs=pd.DataFrame(index=mdata.obs_names), obsm={"guide_assignment": assignment}
    )
    for part in (mdata, *mdata.mod.values()):
        places = part.obs_names.get_indexer(mdata.obs_names)
        if (places < 0).any():
            continue
        for name in part.obs.columns.difference(screen.obs.columns, sort=False):
            screen.obs[name] = part.obs[name].to_numpy()[places]
        for name in set(part.obsm) - set(screen.obsm) - set(mdata.mod):
            value = part.obsm[name]
            screen.obsm[name] = value.iloc[places] if hasattr(value, "iloc") else value[places]
        for name in set(part.uns) - set(screen.uns):
            screen.uns[name] = part.uns[name]
    screen.uns["guide_names"] = guides.var_names.astype(str).to_numpy()
    if target is not None:
        named = guides.var[target].notna().to_numpy()
        screen.uns["guide2gene"] = dict(
            zip(
                guides.var_names[named].astype(str),
                guides.var[target][named].astype(str),
                strict=True,
            )
        )
    return screen


def read_cnmf_usage(
    path: str | os.PathLike[str], obs_names: ArrayLike, missing: str = "error"
) -> "DataFrame":
    """Read the usages that cNMF found, for the cells of an AnnData.

    Parameters
    ----------
    path : path
        ``NAME.usages.k_K.dt_T.consensus.txt``: cells × programs, delimited by tabs.
    obs_names : (N,) array of str
        The cells, in the order wanted. Others in the file are left out.
    missing : {"error", "drop", "uniform"}
        Cells that the file does not have (cNMF leaves out cells without counts) are an error, are
        left out, or get the same usage of every program.

    Returns
    -------
    pandas.DataFrame
        Cells × programs, rows scaled to sum to 1. ``attrs`` hold ``n_programs`` and
        ``density_threshold`` where the name of the file says them.

    Raises
    ------
    FileFormatError
        There is no such file, it is not such a table, or has not the number of programs that its
        name says.
    LabelError
        A cell occurs twice, or is not in the file (``missing="error"``).
    InputError
        A usage is negative or not finite, or a cell uses no program.
    OptionError
        ``missing`` is none of the three.
    """
    import pandas as pd

    if missing not in _MISSING_CELLS:
        raise OptionError(f"missing is {missing!r}; give {', '.join(map(repr, _MISSING_CELLS))}.")
    path = Path(path)
    table = _read_delimited(path, "\t")
    if table.width < 2 or table.height == 0:
        raise FileFormatError(f"{path} has no usages: expected cells × programs between tabs.")
    found = table.to_series(0).cast(str).to_list()
    programs = table.columns[1:]
    attributes = _cnmf_settings(path, len(programs))
    usage = _usages(path, table, found)
    require_distinct(f"cell of {path}", found)
    wanted = [str(name) for name in np.asarray(obs_names)]
    require_distinct("cell", wanted)
    places = {cell: row for row, cell in enumerate(found)}
    rows = np.array([places.get(cell, -1) for cell in wanted], dtype=np.intp)
    absent = np.flatnonzero(rows < 0)
    if len(absent) and (missing == "error" or len(absent) == len(wanted)):
        some = ", ".join(repr(wanted[i]) for i in absent[:3])
        raise LabelError(
            f"{len(absent):,} of {len(wanted):,} cells are not in {path} (first: {some}; the file "
            f"begins with {found[0]!r}). Give missing='drop' to leave them out or 'uniform' to "
            "give them the same usage of every program."
        )
    aligned = usage[rows]
    aligned[absent] = 1.0 / len(programs)
    frame = pd.DataFrame(aligned, index=wanted, columns=programs)
    if missing == "drop":
        frame = frame.iloc[np.flatnonzero(rows >= 0)]
    frame.attrs.update(attributes)
    return frame


def read_guide_table(
    path: str | os.PathLike[str],
    obs_names: ArrayLike,
    *,
    cell: str = "cell",
    guide: str = "guide",
    count: str | None = None,
) -> tuple[csc_array, list[str]]:
    """Read which guides were found in which cells from a long table.

    Parameters
    ----------
    path : path
        A row for each guide in a cell, delimited by commas (``.csv``, ``.csv.gz``) or tabs.
    obs_names : (N,) array of str
        The cells, in the order wanted. Others in the file are left out.
    cell, guide : str
        Columns of the file.
    count : str, optional
        Column of counts. Default 1 for every row; rows of the same cell and guide are added.

    Returns
    -------
    assignment : (N, G) sparse array
        For ``obsm["guide_assignment"]``.
    guide_names : list of str
        Sorted, those of all rows; for ``uns["guide_names"]``.

    Raises
    ------
    FileFormatError
        There is no such file, or a column has missing values or no counts.
    LabelError
        A column is missing, or no cell of the file is among those wanted.
    """
    path = Path(path)
    table = _read_delimited(path, "," if ".csv" in path.suffixes else "\t")
    columns = [cell, guide] if count is None else [cell, guide, count]
    for name in columns:
        if name not in table.columns:
            raise LabelError(
                f"{path} has no column {name!r}; it has {', '.join(table.columns[:10])}."
            )
        if table[name].null_count():
            line = int(np.argmax(table[name].is_null().to_numpy())) + 2
            raise FileFormatError(f"line {line} of {path} has no {name!r}.")
    wanted = [str(name) for name in np.asarray(obs_names)]
    require_distinct("cell", wanted)
    places = {name: row for row, name in enumerate(wanted)}
    rows = np.array([places.get(name, -1) for name in table[cell].cast(str)], dtype=np.intp)
    guides = table[guide].cast(str).to_numpy().astype(np.str_)
    labels, columns_of = np.unique(guides, return_inverse=True)
    known = rows >= 0
    if not known.any():
        raise LabelError(
            f"none of the cells of {path} is among those of the data: it has "
            f"{table[cell][0]!r}, the data have {wanted[0]!r}."
        )
    values = np.ones(len(rows)) if count is None else _counts(path, table, count)
    assignment = csc_array(
        (values[known], (rows[known], columns_of[known])), shape=(len(wanted), len(labels))
    )
    assignment.sum_duplicates()
    return assignment, labels.tolist()


_GUIDE_MODALITIES = ("guide", "guides", "grna", "gRNA", "crispr")
TARGET_COLUMNS = ("intended_target_name", "target_gene", "gene", "target", "grna_target")
"""Columns of the guides' ``var`` that may hold the target of each."""
SHARED_CELLS = (
    "Restrict modalities to the cells they share: muon.pp.intersect_obs(mdata), or mdata[cells]."
)
_TARGETS_IN_UNS = ("guide2gene", "grna_target_table", "guide2gene_json")


def write_with_uns(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    entries: Mapping[str, Any],
    overwrite: bool = False,
) -> None:
    """Write a copy of an .h5ad with more in ``uns``; nothing of it is read.

    Parameters
    ----------
    source, target : path
    entries : mapping
        DataFrames, arrays and text by their keys; keys that exist are replaced.
    overwrite : bool
        Whether a file that exists is replaced.

    Raises
    ------
    OutputError
        The file exists or cannot be written.
    DependencyError
        anndata is not installed.
    """
    try:
        import h5py
        from anndata.io import write_elem
    except ModuleNotFoundError as missing:
        raise DependencyError(
            f"{missing.name} is not installed, which writes .h5ad: pip install 'plait[singlecell]'."
        ) from missing
    with replace_file(target, overwrite) as temporary:
        shutil.copyfile(source, temporary)
        with h5py.File(temporary, "r+") as file:
            for key, value in entries.items():
                write_elem(file.require_group("uns"), key, value)


def _in_memory(value: Any) -> Any:
    return value.to_memory() if hasattr(value, "to_memory") and not issparse(value) else value


def _held_keys(adata: Any, containers: Sequence[str]) -> str:
    held = [
        f"{name}: {', '.join(map(repr, list(getattr(adata, name).keys())[:8]))}"
        for name in containers
        if len(getattr(adata, name).keys())
    ]
    return f"It holds {'; '.join(held)}." if held else "It holds nothing."


def _one_of(present: Any, asked: str | None, usual: Sequence[str], what: str) -> str:
    for name in usual if asked is None else [asked]:
        if name in present:
            return name
    raise LabelError(
        f"there is no {what} {' or '.join(map(repr, usual if asked is None else [asked]))}; there "
        f"are {', '.join(map(repr, list(present)[:10]))}."
    )


def _read_delimited(path: Path, delimiter: str) -> "PolarsDataFrame":
    import polars as pl

    if not path.is_file():
        raise FileFormatError(f"there is no file {path}.")
    try:
        return pl.read_csv(path, separator=delimiter, infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        raise FileFormatError(f"{path} is not a table with a header: {error}.") from error


def _cnmf_settings(path: Path, n_programs: int) -> dict[str, Any]:
    match = _CNMF_NAME.search(path.name)
    if match is None:
        return {}
    named = int(match[1])
    if named != n_programs:
        raise FileFormatError(
            f"{path} has {n_programs} programs and its name says {named}; is it cut off, or not "
            "delimited by tabs?"
        )
    return {"n_programs": named, "density_threshold": float(f"{match[2]}.{match[3]}")}


def _usages(path: Path, table: "PolarsDataFrame", cells: Sequence[str]) -> NDArray[np.float64]:
    import polars as pl

    for name in table.columns[1:]:
        if not table[name].dtype.is_numeric():
            raise FileFormatError(f"the program {name!r} of {path} has values that are no numbers.")
    usage = table[:, 1:].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    bad = ~np.isfinite(usage) | (usage < 0.0)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InputError(
            f"the usage of program {table.columns[column + 1]!r} by cell {cells[row]!r} in {path} "
            f"is {usage[row, column]}; usages are finite and not negative."
        )
    totals = usage.sum(axis=1, keepdims=True)
    if (totals == 0.0).any():
        raise InputError(
            f"cell {cells[int(np.argmin(totals))]!r} in {path} uses no program; leave such cells "
            "out."
        )
    return np.asarray(usage / totals, dtype=np.float64)


def _counts(path: Path, table: "PolarsDataFrame", count: str) -> NDArray[np.float64]:
    if not table[count].dtype.is_numeric():
        raise FileFormatError(f"the column {count!r} of {path} has values that are no numbers.")
    return table[count].to_numpy().astype(np.float64)
