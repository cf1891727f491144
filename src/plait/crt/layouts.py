"""Where a file holds the guides of a screen: one file serves tests of programs and of genes.

Files made for programs say which cells have which guides (``guide_assignment``, ``guide_names``,
``guide2gene``), files made for genes how often each guide was counted (``grna_counts``,
``grna_ids``, ``grna_target_table``). Both kinds of test understand both.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse

from plait.crt.gene_data import NON_TARGETING
from plait.crt.guides import build_gene_to_cols, targets_of, to_csc_matrix
from plait.crt.model import NEGATIVE_CONTROLS
from plait.errors import LabelError, OptionError
from plait.io.anndata import CONTAINERS, TARGET_COLUMNS

COUNTS = ("grna_counts", "guide_umis")
_ASSIGNED = ("guide_assignment",)
FEWEST_COUNTS = 5
"""Counts from which a guide is taken for present where nobody assigned guides, as in sceptre."""

FOR_PROGRAMS: dict[str, tuple[str, ...]] = {
    "usage": ("cnmf_usage", "usage"),
    "covar": ("covar",),
    "guides": (*_ASSIGNED, *COUNTS),
    "guide_names": ("guide_names", "grna_ids"),
    "targets": ("guide2gene", "grna_target_table", "guide2gene_json"),
}
FOR_GENES: dict[str, tuple[str, ...]] = {
    "guides": (*COUNTS, *_ASSIGNED),
    "guide_names": ("grna_ids", "guide_names"),
    "targets": ("grna_target_table", "guide2gene", "guide2gene_json"),
}
"""The usual keys of each part, the first that is there being used."""
_WHAT = {
    "usage": "usage of programs",
    "covar": "covariates",
    "guides": "guides of cells",
    "guide_names": "names of guides",
    "targets": "targets of guides",
}
_IN_UNS = ("guide_names", "targets")

_log = logging.getLogger("plait.crt")


def find_keys(
    adata: Any,
    usual: Mapping[str, Sequence[str]],
    asked: Mapping[str, str | None],
    advice: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the keys under which a screen holds its parts, and note them.

    Parameters
    ----------
    adata : AnnData or any object with some of its containers
    usual : mapping of str to sequence of str
        `FOR_PROGRAMS` or `FOR_GENES`, or some of it.
    asked : mapping of str to str or None
        Keys that were asked for, which are used whatever else there is; None: the usual ones.
        Names of guides are only looked for where guides are no DataFrame.
    advice : mapping of str to str, optional
        What else to do where a part is missing.

    Raises
    ------
    LabelError
        Parts are missing: all are named, with what was looked for and what there is.
    OptionError
        Names of guides were asked for, and the guides have names of their own.
    """
    found: dict[str, tuple[str, str]] = {}
    lacking: dict[str, str] = {}
    for part, keys in usual.items():
        given = asked.get(part)
        if part == "guide_names" and "guides" in found and _has_names(adata, *found["guides"]):
            if given is not None:
                raise OptionError(
                    f"guide_names={given} does nothing: {_written(*found['guides'])} is a table "
                    "whose columns are the names of guides. Leave it out."
                )
            continue
        place = _place(adata, part, keys if given is None else (given,), given is not None)
        if place is None:
            looked = " or ".join(map(repr, keys if given is None else (given,)))
            lacking[part] = f"no {looked} for {_WHAT[part]} ({part}=KEY)"
        else:
            found[part] = place
    if lacking:
        more = " ".join(text for part, text in (advice or {}).items() if part in lacking)
        raise LabelError(
            f"there is {', '.join(lacking.values())}; {_held(adata)}. "
            f"Say with KEY where it is. {more}".rstrip()
        )
    told = "; ".join(f"{_WHAT[part]}: {_written(*place)}" for part, place in found.items())
    _log.info("%s", told, extra={"notice": True})
    return {part: key for part, (_, key) in found.items()}


def present_guides(source: Any, name: str, are_counts: bool) -> Any:
    """Return which cells have which guides, for tests of programs.

    Parameters
    ----------
    source : (N, G) DataFrame, array or sparse array
    name : str
        Its key.
    are_counts : bool
        Whether numbers above 1 are counts of which few are background: a guide is then present
        from `FEWEST_COUNTS` on. Otherwise anything but 0 is present.

    Notes
    -----
    A note says what was done where there are numbers above 1.
    """
    values = to_csc_matrix(source).data
    largest = float(values.max(initial=0))
    if largest <= 1.0:
        return source
    if not are_counts:
        done = "anything but 0 is taken for a guide that is present, background too"
    else:
        done = (
            f"a guide is taken for present from {FEWEST_COUNTS} counts on. To decide otherwise, "
            "give the guides of cells as zeros and ones"
        )
    _log.info(
        "%r has numbers up to %g: %s.", name, largest, done, extra={"notice": True}
    )  # fmt: skip
    return source >= FEWEST_COUNTS if are_counts else source


def counted_guides(source: Any) -> Any:
    """Return counts of guides, or truth values where there are only zeros and ones.

    Parameters
    ----------
    source : (N, G) DataFrame, array or sparse array
    """
    matrix = source if issparse(source) else np.asarray(source)
    if matrix.dtype.kind not in "iuf":
        return matrix
    values = matrix.data if issparse(matrix) else matrix
    if not np.isin(values, (0, 1)).all():
        return matrix
    _log.info(
        "guides of cells are zeros and ones: taken as assigned, not as counts.",
        extra={"notice": True},
    )
    return matrix.astype(bool)


def target_table(source: Any, guide_names: Sequence[str]) -> Any:
    """Return what guides target, for tests of genes.

    Parameters
    ----------
    source : table, mapping or str
        A table with ``grna_id`` and ``grna_target``, which is returned with all of its columns, or
        a mapping of guides to targets (or its JSON); guides without counts are left out of the
        latter.
    guide_names : sequence of str
        The guides that have counts.

    Returns
    -------
    table or mapping of columns
        If no guide is "non-targeting", those of the usual negative controls are, written with
        small or capital letters.

    Raises
    ------
    InputError
        No guide has a target.
    InputTypeError
        It is no table, no mapping and no JSON.
    """
    if _is_table(source):
        names = list(source) if isinstance(source, Mapping) else list(source.columns)
        table = {str(name): np.asarray(source[name]) for name in names}
    else:
        known = targets_of(source, "targets of guides")
        guides = [str(name) for name in guide_names]
        build_gene_to_cols(guides, known)
        kept = [name for name in guides if name in known]
        table = {
            "grna_id": np.array(kept, dtype=np.str_),
            "grna_target": np.array([known[name] for name in kept], dtype=np.str_),
        }
    return _with_controls(table)


def mudata_targets(mdata: Any, guides: Any, asked: str | None) -> Any:
    """Return what the guides of a MuData target, a table or a mapping, and note where it was found.

    Parameters
    ----------
    mdata : MuData
    guides : AnnData
        Its modality of guides.
    asked : str or None
        A key of ``uns``, or a column of the guides' ``var``. Default "grna_target" or another of
        `plait.io.anndata.TARGET_COLUMNS`, else the usual keys of ``uns``.

    Raises
    ------
    LabelError
        It is nowhere.
    """
    columns = ("grna_target", *TARGET_COLUMNS) if asked is None else (asked,)
    keys = FOR_GENES["targets"] if asked is None else (asked,)
    places = {"uns of the file": mdata.uns, "uns of the guides": guides.uns}
    held = [
        (f"{key!r} in {name}", uns[key])
        for key in keys
        for name, uns in places.items()
        if key in uns
    ]
    column = next((name for name in columns if name in guides.var.columns), None)
    if held and (asked is not None or column is None):
        where, table = held[0]
    elif column is not None:
        where = f"the column {column!r} of the guides"
        about = guides.var.assign(grna_target=guides.var[column])
        table = about.drop(columns="grna_id", errors="ignore").reset_index(names="grna_id")
        if column != "grna_target":  # elsewhere guides without a target are usual
            table = table[table["grna_target"].notna()]
    else:
        raise LabelError(
            f"there are no targets of guides: looked for {' or '.join(map(repr, columns))} among "
            f"the columns of the guides ({', '.join(guides.var.columns) or 'none'}) and for "
            f"{' or '.join(map(repr, keys))} in uns ({', '.join(mdata.uns) or 'nothing'}). Say "
            "where with targets=KEY."
        )
    _log.info("targets of guides: %s", where, extra={"notice": True})
    return table


def _with_controls(table: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    if "grna_target" not in table:
        return table  # which is refused, with the columns that there are
    targets = table["grna_target"]
    usual = {name.lower() for name in NEGATIVE_CONTROLS}
    # Cell Ranger writes "Non-Targeting".
    others = [name for name in dict.fromkeys(targets.tolist()) if str(name).lower() in usual]
    if NON_TARGETING in others or not others:
        return table
    _log.info(
        "no guide is %r: those of %s are taken for it.",
        NON_TARGETING,
        " and ".join(map(repr, others)),
        extra={"notice": True},
    )
    changed = [NON_TARGETING if name in others else name for name in targets.tolist()]
    return table | {"grna_target": np.array(changed, dtype=object)}


def _is_table(source: Any) -> bool:
    return hasattr(source, "columns") or (isinstance(source, Mapping) and "grna_id" in source)


def _place(adata: Any, part: str, keys: Sequence[str], is_asked: bool) -> tuple[str, str] | None:
    """Return the container and the key of the first that is there."""
    if part == "guide_names":
        containers: tuple[str, ...] = ("uns",)
    elif is_asked:
        containers = CONTAINERS
    else:  # a column of obs that happens to be called like it is none
        containers = ("uns",) if part in _IN_UNS else ("obsm", "layers")
    for key in keys:
        for name in containers:
            container = getattr(adata, name, None)
            if container is not None and key in container:
                return name, key
    return None


def _has_names(adata: Any, container: str, key: str) -> bool:
    return hasattr(getattr(adata, container)[key], "columns")


def _written(container: str, key: str) -> str:
    return f"{container}[{key!r}]"


def _held(adata: Any) -> str:
    held = [
        f"{name}: {', '.join(map(repr, list(getattr(adata, name))[:20])) or 'nothing'}"
        for name in ("obsm", "layers", "uns")
        if getattr(adata, name, None) is not None
    ]
    return f"there are {'; '.join(held)}" if held else "there is nothing"
