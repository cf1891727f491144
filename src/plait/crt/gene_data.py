"""Counts of genes and guides in the cells of a screen, checked once at the door."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from plait.crt.gene_counts import (
    GeneCounts,
    as_counts,
    in_memory,
    is_on_disk,
    stored_counts,
)
from plait.crt.gene_covariates import count_covariates, is_missing, users_covariates
from plait.crt.guides import warn_of_guides_without_target
from plait.data.labels import describe_difference, require_distinct
from plait.data.words import counted, known_names
from plait.errors import (
    InputError,
    InputTypeError,
    LabelError,
    OptionError,
    ShapeError,
)

Array = NDArray[np.float64]

_log = logging.getLogger("plait.crt")

NON_TARGETING = "non-targeting"
"""The target of guides that are negative controls."""
_MOI = ("low", "high")
_POSITIONS = ("chr", "start", "end")


@dataclass(frozen=True, eq=False)
class GuideTargets:
    """What each guide targets.

    Attributes
    ----------
    guides, targets : (G,) arrays of str
    chromosome : (G,) array of str or None
    start, end : (G,) arrays or None
        Positions of the targets; NaN where there is none.
    """

    guides: NDArray[np.str_]
    targets: NDArray[np.str_]
    chromosome: NDArray[np.str_] | None = None
    start: Array | None = None
    end: Array | None = None

    @property
    def is_control(self) -> NDArray[np.bool_]:
        """Which guides are non-targeting."""
        return np.asarray(self.targets == NON_TARGETING)

    def columns_of(self, target: str) -> NDArray[np.intp]:
        """Return the places of a target's guides."""
        return np.flatnonzero(self.targets == target)


@dataclass(frozen=True, eq=False, kw_only=True)
class GeneScreenData:
    """A screen of N cells with counts of J genes (responses) and G guides.

    Build it with `gene_screen_data` or `gene_screen_from_anndata`.

    Attributes
    ----------
    responses : (N, J) csc_array of float32 or StoredCounts
        Counts of genes, in memory or in a temporary file; float32 holds whole numbers to 16.7
        million exactly.
    guides : (N, G) csc_array of float32
        Counts of guides, or ones where `is_assigned`.
    is_assigned : bool
        Whether ``guides`` says which cells have which guides, so that nothing is to be assigned.
    response_names, cell_names : arrays of str
    targets : GuideTargets
        Of the columns of ``guides``.
    moi : {"low", "high"}
        Multiplicity of infection: whether cells are meant to have one guide or many.
    covariates : dict of str to (N,) array
        Those of `plait.crt.gene_covariates.count_covariates`, then the user's; numbers, or text
        for categories.
    levels : dict of str to tuple of str
        The levels of each categorical covariate, in order.
    """

    responses: GeneCounts
    guides: csc_array
    is_assigned: bool
    response_names: NDArray[np.str_]
    cell_names: NDArray[np.str_]
    targets: GuideTargets
    moi: str
    covariates: dict[str, NDArray[Any]]
    levels: dict[str, tuple[str, ...]]

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return int(self.responses.shape[0])

    @property
    def target_names(self) -> tuple[str, ...]:
        """The targets in order of their first guide, without the non-targeting ones."""
        return tuple(t for t in dict.fromkeys(self.targets.targets.tolist()) if t != NON_TARGETING)

    def __repr__(self) -> str:
        return (
            f"GeneScreenData({counted(self.n_cells, 'cell')}, "
            f"{counted(len(self.response_names), 'gene')}, "
            f"{counted(len(self.targets.guides), 'guide')} of "
            f"{counted(len(self.target_names), 'target')}, {int(self.targets.is_control.sum())} "
            f"non-targeting, {self.moi} MOI)"
        )


def gene_screen_data(
    responses: Any,
    guides: Any,
    targets: Any,
    moi: str,
    *,
    response_names: Sequence[str],
    guide_names: Sequence[str],
    covariates: Any = None,
    cell_names: Sequence[str] | None = None,
    guide_cell_names: Sequence[str] | None = None,
) -> GeneScreenData:
    """Check the counts of a screen and make its covariates.

    Parameters
    ----------
    responses : (cells, genes) array or sparse array
        UMI counts. The matrix of a file (X of a backed AnnData) stays on disk: it is copied into a
        temporary file by genes (`plait.crt.gene_counts.stored_counts`).
    guides : (cells, guides) array or sparse array
        UMI counts, or truth values: which guides a cell has.
    targets : table
        A DataFrame of pandas or Polars, or a mapping of columns: ``grna_id``, ``grna_target``
        ("non-targeting" for negative controls), and, where there are, ``chr``, ``start``, ``end``
        and ``vector_id``. Guides of one vector are taken for one guide: their counts are added,
        and its position reaches over theirs.
    moi : {"low", "high"}
        Whether cells are meant to have one guide or many.
    response_names, guide_names : sequences of str
        Of the columns.
    covariates : table, optional
        Further covariates of cells: numbers, or text and categories (of whatever kind, so that
        batches of a categorical column are batches even where they are numbers). The index of a
        DataFrame, where it is text, must agree with ``cell_names``.
    cell_names, guide_cell_names : sequences of str, optional
        Barcodes of the rows of ``responses`` and of ``guides``, which must agree.

    Returns
    -------
    GeneScreenData
        Guides that are not in the table count for the covariates alone, which a logged warning
        says.

    Raises
    ------
    ShapeError
        Numbers of cells, or of names and columns, differ.
    LabelError
        A name occurs twice, barcodes are in another order, the table names a guide that has no
        counts, the name of a guide or vector holds "&" or is "non-targeting", or a covariate has a
        reserved name.
    InputError
        A count is negative or not whole, something is missing in the table or a position no number,
        guides of a vector differ in target or chromosome, a covariate is infinite or has a level
        without cells.
    OptionError
        ``moi`` is neither "low" nor "high".
    """
    if moi not in _MOI:
        raise OptionError(f"moi is {moi!r}; give 'low' (one guide in a cell) or 'high' (many).")
    guide_counts = as_counts(guides, "the counts of guides")
    if len(np.shape(responses)) != 2:
        raise ShapeError(
            f"the counts of genes are of type {type(responses).__name__} with "
            f"{counted(len(np.shape(responses)), 'dimension')}; expected a row for each cell and a "
            "column for each gene."
        )
    n_cells = np.shape(responses)[0]
    if n_cells != guide_counts.shape[0]:
        raise ShapeError(
            f"counts of genes are of {counted(n_cells, 'cell')} and counts of guides of "
            f"{guide_counts.shape[0]:,}."
        )
    if 0 in np.shape(responses):
        raise InputError(
            f"the counts of genes are of {counted(n_cells, 'cell')} and "
            f"{counted(np.shape(responses)[1], 'gene')}, so that there is nothing to test; give a "
            "screen with cells and genes."
        )
    what = "the counts of genes"
    stays = is_on_disk(responses)
    counts = stored_counts(responses, what) if stays else as_counts(responses, what)
    genes = _names("gene", response_names, counts.shape[1])
    names = _names("guide", guide_names, guide_counts.shape[1])
    cells = _cells(counts.shape[0], cell_names, guide_cell_names)
    if cell_names is not None:
        _require_order_of_cells(covariates, cells)
    table = _table(targets)
    kept, about, others = _kept_guides(guide_counts, names, table)
    made = count_covariates(counts, [kept, others], genes)
    extra, levels = users_covariates(covariates, counts.shape[0])
    return GeneScreenData(
        responses=counts,
        guides=kept,
        is_assigned=_are_truth_values(guides),
        response_names=genes,
        cell_names=cells,
        targets=about,
        moi=moi,
        covariates=made | extra,
        levels=levels,
    )


def gene_screen_from_anndata(
    adata: Any,
    moi: str,
    *,
    guides: str | None = None,
    guide_names: str | None = None,
    targets: str | None = None,
    covariates: Sequence[str] = (),
    layer: str | None = None,
) -> GeneScreenData:
    """Take the counts of a screen from an AnnData, or from a MuData with two modalities.

    Parameters
    ----------
    adata : AnnData or MuData
        Counts of genes in X. Of a MuData the modality "rna", "gex" or "gene" and, for guides,
        "guide", "guides", "grna", "gRNA" or "crispr", whose cells are found by their names; those
        without counts of genes are left out.
    moi : {"low", "high"}
        Whether cells are meant to have one guide or many.
    guides : str, optional
        Key of counts of guides in ``obsm``, or of truth values (also zeros and ones) that say which
        cells have which; of a DataFrame the columns are the guides. Default "grna_counts",
        "guide_umis" or "guide_assignment", the first that there is. A MuData has them in X.
    guide_names : str, optional
        Key of the names of guides in ``uns``, where ``guides`` is no DataFrame. Default "grna_ids"
        or "guide_names".
    targets : str, optional
        Key in ``uns`` of the table of targets (see `gene_screen_data`) or of a mapping of guides to
        targets (or its JSON). Default "grna_target_table", "guide2gene" or "guide2gene_json"; in a
        MuData, before these, a column of the guides' ``var``: "grna_target", or those of
        `screen_from_mudata`. If no guide is "non-targeting", those of "NTC", "SAFE" and
        "safe-targeting" are, and of these names in other letters ("Non-Targeting").
    covariates : sequence of str
        Columns of ``obs`` that are covariates.
    layer : str, optional
        Counts of genes are in this layer and not in X.

    Returns
    -------
    GeneScreenData

    Raises
    ------
    LabelError
        A key, a column or a modality is not there, or cells of genes are not in the modality of
        guides (also a KeyError).
    InputError
        See `gene_screen_data`.
    """
    from plait.crt.layouts import FOR_GENES, counted_guides, find_keys, target_table
    from plait.io.anndata import get_from_adata_any

    if hasattr(adata, "mod"):
        return _from_mudata(adata, moi, targets, covariates, layer)
    asked = {"guides": guides, "guide_names": guide_names, "targets": targets}
    keys = find_keys(adata, FOR_GENES, asked)
    source = get_from_adata_any(adata, keys["guides"])
    is_frame = hasattr(source, "columns")
    names = source.columns if is_frame else adata.uns[keys["guide_names"]]
    return gene_screen_data(
        _expression(adata, layer),
        counted_guides(source),
        target_table(get_from_adata_any(adata, keys["targets"]), names),
        moi,
        response_names=adata.var_names,
        guide_names=names,
        covariates=_observed(adata.obs, covariates),
        cell_names=adata.obs_names,
        guide_cell_names=source.index if is_frame else None,
    )


def read_gene_screen(
    path: str | os.PathLike[str], moi: str, *, on_disk: bool = False, **options: Any
) -> GeneScreenData:
    """Read the counts of a screen from a file.

    Parameters
    ----------
    path : path
        ``.h5ad``, ``.h5mu``, or the ``.h5`` of Cell Ranger.
    moi : {"low", "high"}
    on_disk : bool
        Whether counts of genes, if they are in X, stay on disk: they are copied into a temporary
        file (8 bytes for each that is not 0, in the folder that ``TMPDIR`` says) and read gene by
        gene, so that memory does not grow with the number of genes. The results are the same bits.
    **options
        Of `gene_screen_from_anndata`, or of ``.h5`` those of `gene_screen_from_cell_ranger`.

    Raises
    ------
    FileFormatError
        There is no such file, it is damaged or none of the three.
    DependencyError
        anndata, mudata or h5py is not installed.
    InputError, LabelError
        See `gene_screen_from_anndata`.
    """
    from plait.io.anndata import read_counts

    if Path(path).suffix == ".h5":
        from plait.crt.cell_ranger_screen import gene_screen_from_cell_ranger

        return gene_screen_from_cell_ranger(path, moi, on_disk=on_disk, **options)
    read = read_counts(path, backed=on_disk)
    data = gene_screen_from_anndata(read, moi, **options)
    if on_disk:
        read.file.close()
    return data


def _from_mudata(
    mdata: Any, moi: str, targets: str | None, covariates: Sequence[str], layer: str | None
) -> GeneScreenData:
    from plait.crt.layouts import counted_guides, mudata_targets, target_table

    genes = _modality(mdata, ("rna", "gex", "gene"))
    guides = _modality(mdata, ("guide", "guides", "grna", "gRNA", "crispr"))
    table = mudata_targets(mdata, guides, targets)
    rows = _rows_of_guides(genes.obs_names, guides.obs_names)
    obs = genes.obs if all(name in genes.obs.columns for name in covariates) else mdata.obs
    return gene_screen_data(
        _expression(genes, layer),
        counted_guides(in_memory(guides.X)[rows]),
        target_table(table, guides.var_names),
        moi,
        response_names=genes.var_names,
        guide_names=guides.var_names,
        covariates=_observed(obs.loc[genes.obs_names], covariates),
        cell_names=genes.obs_names,
    )


def _rows_of_guides(cells: Any, of_guides: Any) -> NDArray[np.intp]:
    """Return where the modality of guides has the cells of genes, by their names."""
    from plait.io.anndata import SHARED_CELLS

    for what, names in (("genes", cells), ("guides", of_guides)):
        require_distinct(f"cell of the modality of {what}", [str(name) for name in names])
    rows: NDArray[np.intp] = of_guides.get_indexer(cells)
    if absent := int((rows < 0).sum()):
        raise LabelError(
            f"{absent:,} of {counted(len(rows), 'cell')} with counts of genes are not in the "
            f"modality of guides (first: {cells[int(np.argmax(rows < 0))]!r}; that of guides "
            f"begins with {of_guides[0]!r}). {SHARED_CELLS}"
        )
    if more := len(of_guides) - len(rows):
        _log.info(
            "left out, as they have no counts of genes: %s of the modality of guides",
            counted(more, "cell"),
            extra={"notice": True},
        )
    return rows


def _modality(mdata: Any, names: Sequence[str]) -> Any:
    for name in names:
        if name in mdata.mod:
            return mdata.mod[name]
    raise LabelError(
        f"there is no modality {' or '.join(map(repr, names))}; there are "
        f"{', '.join(map(repr, mdata.mod))}."
    )


def _expression(adata: Any, layer: str | None) -> Any:
    if layer is not None and layer not in adata.layers:
        raise LabelError(f"there is no layer {layer!r}; there are {', '.join(adata.layers)}.")
    source = adata.X if layer is None else adata.layers[layer]
    if source is None:
        raise InputError("there are no counts of genes: X is empty.")
    is_kept = is_on_disk(source) or not hasattr(source, "to_memory")
    return source if is_kept else source.to_memory()


def _observed(obs: Any, covariates: Sequence[str]) -> Any:
    absent = [name for name in covariates if name not in obs.columns]
    if absent:
        more = "; logarithms are taken in the formula" if "log" in absent[0] else ""
        raise LabelError(
            f"obs has no column {absent[0]!r} for a covariate; "
            f"{known_names(absent[0], obs.columns)}. Name one of these, or leave it out{more}."
        )
    return obs[list(covariates)] if covariates else None


def _are_truth_values(guides: Any) -> bool:
    kind = guides.dtype if hasattr(guides, "dtype") else np.asarray(guides).dtype
    return bool(kind == np.bool_)


def _names(what: str, names: Sequence[str], expected: int) -> NDArray[np.str_]:
    labels = np.array(_texts(names, f"names of {what}s"), dtype=np.str_)
    if len(labels) != expected:
        raise ShapeError(
            f"the counts have {counted(len(labels), 'name')} of {what}s and "
            f"{counted(expected, 'column')}."
        )
    require_distinct(what, labels.tolist())
    return labels


def _texts(names: Any, what: str) -> list[str]:
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise InputTypeError(f"the {what} are of type {type(names).__name__}; give a list of text.")
    return [str(name) for name in names]


def _cells(
    n_cells: int, names: Sequence[str] | None, others: Sequence[str] | None
) -> NDArray[np.str_]:
    given = [_texts(part, "names of cells") for part in (names, others) if part is not None]
    for labels in given:
        if len(labels) != n_cells:
            raise ShapeError(
                f"the counts have {counted(len(labels), 'name')} of cells and "
                f"{counted(n_cells, 'cell')}."
            )
    if len(given) == 2 and given[0] != given[1]:
        raise LabelError(
            "the cells of genes and of guides are not the same in the same order: "
            f"{describe_difference(given[0], given[1])}."
        )
    if not given:
        return np.array([f"cell {i + 1}" for i in range(n_cells)])
    return np.array(given[0], dtype=np.str_)


def _require_order_of_cells(covariates: Any, cells: NDArray[np.str_]) -> None:
    """Refuse covariates whose index names other cells than the counts, or in another order."""
    index = getattr(covariates, "index", None)
    if getattr(index, "dtype", None) is None or np.asarray(index).dtype.kind not in "OUT":
        return  # of polars, a mapping, or with rows that are numbered only
    names = [str(name) for name in np.asarray(index)]
    if len(names) == len(cells) and names != cells.tolist():
        raise LabelError(
            "the cells of genes and of covariates are not the same in the same order: "
            f"{describe_difference(cells.tolist(), names)}."
        )


def _columns_of(table: Any) -> dict[str, NDArray[Any]]:
    """Return the columns of a DataFrame of any library, or of a mapping."""
    if not isinstance(table, Mapping) and not hasattr(table, "columns"):
        raise InputTypeError(
            f"a table was expected and a {type(table).__name__} was given; give a DataFrame or a "
            "mapping of columns."
        )
    names = list(table) if isinstance(table, Mapping) else list(table.columns)
    return {str(name): np.asarray(table[name]) for name in names}


def _table(source: Any) -> dict[str, NDArray[Any]]:
    columns = _columns_of(source)
    for name in ("grna_id", "grna_target"):
        if name not in columns:
            raise LabelError(
                f"the table of targets has no column {name!r}; it has {', '.join(columns)}."
            )
    for name in ("grna_id", "grna_target", "vector_id"):
        if name not in columns:
            continue
        missing = is_missing(columns[name]) | (np.char.strip(columns[name].astype(np.str_)) == "")
        if missing.any():
            raise InputError(
                f"{name!r} is missing in row {int(np.argmax(missing)) + 1} of the table of targets."
            )
        columns[name] = columns[name].astype(np.str_)
    ids = columns["grna_id"].tolist()
    require_distinct("guide", ids)
    for what, column in (("guide", "grna_id"), ("vector", "vector_id")):
        for name in columns[column].tolist() if column in columns else ():
            if "&" in name or name == NON_TARGETING:
                raise LabelError(
                    f"a {what} is called {name!r}; names of {what}s may not contain '&', which "
                    f"joins those of a group, nor be {NON_TARGETING!r}, which is a target."
                )
    return columns


def _kept_guides(
    counts: csc_array, names: NDArray[np.str_], table: dict[str, NDArray[Any]]
) -> tuple[csc_array, GuideTargets, csc_array]:
    """Return the guides of the table, those of one vector as one, and those that it has not."""
    places = {name: column for column, name in enumerate(names.tolist())}
    ids = table["grna_id"]
    if absent := [name for name in ids.tolist() if name not in places]:
        raise LabelError(
            f"{len(absent):,} of the {counted(len(ids), 'guide')} of the table of targets have no "
            f"counts (first: {absent[0]!r}; the counts begin with {str(names[0])!r})."
        )
    warn_of_guides_without_target(
        names.tolist(), set(ids.tolist()), "count for the covariates alone"
    )
    columns = np.array([places[name] for name in ids.tolist()])
    targets = table["grna_target"]
    groups, firsts = np.arange(len(ids)), np.arange(len(ids))
    if "vector_id" in table:
        vectors = table["vector_id"]
        order = {name: None for name in vectors.tolist()}
        ranks = {name: rank for rank, name in enumerate(order)}
        groups = np.array([ranks[name] for name in vectors.tolist()])
        firsts = np.unique(groups, return_index=True)[1]
        ids = vectors[firsts]
        _require_alike(ids, groups, targets, firsts, "have different targets")
    chosen = counts[:, columns]
    if len(firsts) < len(columns):
        adding = csc_array(
            (np.ones(len(groups), dtype=np.float32), (np.arange(len(groups)), groups))
        )
        chosen = csc_array(chosen @ adding)
        chosen.sort_indices()
    others = counts[:, np.setdiff1d(np.arange(counts.shape[1]), columns)]
    return chosen, _positions(ids, targets[firsts], groups, firsts, table), others


def _require_alike(
    vectors: NDArray[np.str_],
    groups: NDArray[np.intp],
    values: NDArray[np.str_],
    firsts: NDArray[np.intp],
    problem: str,
) -> None:
    """Refuse guides of a vector that have not the value of its first guide."""
    expected = values[firsts][groups]
    if (differs := values != expected).any():
        guide = int(np.argmax(differs))
        raise InputError(
            f"the guides of vector {str(vectors[groups[guide]])!r} {problem} "
            f"({str(expected[guide])!r} and {str(values[guide])!r})."
        )


def _positions(
    ids: NDArray[np.str_],
    targets: NDArray[np.str_],
    groups: NDArray[np.intp],
    firsts: NDArray[np.intp],
    table: dict[str, NDArray[Any]],
) -> GuideTargets:
    """Return the targets with their positions; a vector's reach over those of its guides."""
    if not all(name in table for name in _POSITIONS):
        return GuideTargets(ids, targets)
    known = np.where(is_missing(table["chr"]), "", table["chr"].astype(np.str_)).astype(np.str_)
    _require_alike(ids, groups, known, firsts, "are on different chromosomes")
    start, end = np.full(len(ids), np.inf), np.full(len(ids), -np.inf)
    with np.errstate(invalid="ignore"):  # NaN of a guide is its vector's
        np.minimum.at(start, groups, _numbers(table, "start"))
        np.maximum.at(end, groups, _numbers(table, "end"))
    return GuideTargets(ids, targets, known[firsts], start, end)


def _numbers(table: dict[str, NDArray[Any]], name: str) -> Array:
    """Return a column of positions, NaN where there is none."""
    values = table[name]
    missing = is_missing(values)
    found = np.full(len(values), np.nan)
    for row in np.flatnonzero(~missing):
        try:
            found[row] = float(values[row])
        except (TypeError, ValueError):
            raise InputError(
                f"{name!r} is {str(values[row])!r} in row {row + 1} of the table of targets; "
                "expected a position in bases."
            ) from None
    return found
