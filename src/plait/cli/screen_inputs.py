"""Reading a perturbation screen as the commands of ``plait crt`` are told."""

import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any

from plait.cli.options import INPUT, MODEL, option
from plait.data.words import counted, known_names
from plait.errors import FileFormatError, InputError, LabelError, OptionError

if TYPE_CHECKING:
    from pandas import DataFrame

    from plait.crt import CRTInputs

H5ad = Annotated[
    Path,
    option(
        "--h5ad",
        metavar="FILE",
        panel=INPUT,
        help="The screen: .h5ad, .h5mu with a modality of guides, or Cell Ranger's .h5 "
        "(filtered_feature_bc_matrix.h5).",
    ),
]
Usage = Annotated[
    str | None,
    option(
        "--usage",
        metavar="KEY|FILE",
        panel=INPUT,
        show_default="cnmf_usage or usage",
        help="Usage of gene programs: a key of the file, or cNMF's table of usages (.txt).",
    ),
]
Covar = Annotated[
    str | None,
    option(
        "--covar",
        metavar="KEY",
        panel=INPUT,
        show_default="covar",
        help="Covariates of cells: a key of the file.",
    ),
]
Covariates = Annotated[
    str | None,
    option(
        "--covariates",
        metavar="LIST",
        panel=INPUT,
        help="Columns of obs that are the covariates, instead of --covar, separated by commas; "
        "log(NAME) takes the logarithm, as counts need. An .h5 has n_umis, n_nonzero and gem_well.",
    ),
]
Guides = Annotated[
    str | None,
    option(
        "--guides",
        metavar="KEY",
        panel=INPUT,
        show_default="guide_assignment, or else grna_counts or guide_umis",
        help="Guides of cells, cells x guides: anything but 0 is present. Of the two with counts, "
        "found without this option, 5 counts or more.",
    ),
]
GuideNames = Annotated[
    str | None,
    option(
        "--guide-names",
        metavar="KEY",
        panel=INPUT,
        show_default="guide_names or grna_ids",
        help="Names of the guides, in uns, where they are not those of columns.",
    ),
]
Targets = Annotated[
    str | None,
    option(
        "--targets",
        metavar="KEY|FILE",
        panel=INPUT,
        show_default="guide2gene, grna_target_table or guide2gene_json; of .h5 target_gene_name",
        help="Target of each guide: a mapping (or JSON), or a table with grna_id and grna_target. "
        "With an .h5 the name of such a table's file.",
    ),
]
Batch = Annotated[
    str | None,
    option(
        "--batch",
        metavar="NAME",
        panel=INPUT,
        show_default="batch, if there",
        help="The covariate, or column of obs, that holds the batch.",
    ),
]
Eps = Annotated[
    float | None,
    option(
        "--eps",
        panel=MODEL,
        show_default="the 1e-4 quantile",
        help="Floor under usages, whose logarithms are taken.",
    ),
]
NumericAsCategory = Annotated[
    int,
    option(
        "--numeric-as-category",
        min=0,
        panel=MODEL,
        help="Covariates that are numbers of at most so many different values are taken as "
        "categories; 0: none, they are amounts.",
    ),
]
Controls = Annotated[
    str | None,
    option(
        "--controls",
        metavar="LIST",
        panel=INPUT,
        show_default="NTC, SAFE, non-targeting, safe-targeting",
        help="Targets that are negative controls, separated by commas.",
    ),
]

BATCH = "batch"
CELL_RANGER = ".h5"
_OF_FILE, _OF_OBS = "usage of the file", "columns of obs"
_OF_GENES = "A screen without programs is tested gene by gene: plait crt discover."
_LIKE_A_FILE = re.compile(r"/|\.(txt|tsv|csv|npz|gz)$")
_LOGGED = re.compile(r"log\((.+)\)")


def read_inputs(
    h5ad: Path,
    usage: str | None,
    covar: str | None,
    covariates: str | None,
    guides: str | None,
    guide_names: str | None,
    targets: str | None,
    batch: str | None,
    eps: float | None,
    numeric_as_category: int,
) -> "CRTInputs":
    """Read a screen and make it ready for testing."""
    from plait.cli.inputs import errors_naming, refuse_idle
    from plait.crt import get_from_adata_any, prepare_crt_inputs, read_cnmf_usage
    from plait.crt.layouts import COUNTS, FOR_PROGRAMS, find_keys, present_guides

    refuse_idle(("covar",), covariates is not None, "with --covariates")
    screen = _screen(h5ad, targets)
    if h5ad.suffix == CELL_RANGER:
        targets = None  # a file, which was read
    obsm = dict(screen.obsm)
    asked = {
        "usage": usage, "covar": covar, "guides": guides, "guide_names": guide_names,
        "targets": targets,
    }  # fmt: skip
    elsewhere: dict[str, str] = {}
    if usage is not None and not Path(usage).is_file() and _LIKE_A_FILE.search(usage):
        raise FileFormatError(f"there is no file {usage}, which --usage names.")
    if usage is not None and Path(usage).is_file():
        obsm[_OF_FILE] = read_cnmf_usage(usage, screen.obs_names)
        elsewhere["usage"] = _OF_FILE
    if covariates is not None:
        obsm[_OF_OBS] = _columns(screen.obs, covariates, h5ad)
        elsewhere["covar"] = _OF_OBS
    with errors_naming(str(h5ad)):
        usual = {part: keys for part, keys in FOR_PROGRAMS.items() if part not in elsewhere}
        keys = elsewhere | find_keys(
            screen, usual, asked, {"usage": _OF_GENES, "covar": _advice(screen.obs)}
        )
        source = get_from_adata_any(screen, keys["guides"])
        are_counts = guides is None and (keys["guides"] in COUNTS or h5ad.suffix == ".h5mu")
        obsm[keys["guides"]] = present_guides(source, keys["guides"], are_counts)
        parts = SimpleNamespace(
            obsm=obsm, uns=screen.uns, obs=screen.obs, layers=screen.layers,
            obs_names=screen.obs_names,
        )  # fmt: skip
        if batch is not None:
            _require_batch(batch, get_from_adata_any(parts, keys["covar"]), screen.obs)
        return prepare_crt_inputs(
            parts,
            usage_key=keys["usage"],
            covar_key=keys["covar"],
            guide_assignment_key=keys["guides"],
            guide_names_key=keys.get("guide_names", ""),
            guide2gene_key=keys["targets"],
            batch_key=batch or BATCH,
            eps=eps,
            numeric_as_category_threshold=numeric_as_category or None,
        )  # fmt: skip


def _require_batch(batch: str, covariates: Any, obs: Any) -> None:
    """Refuse a batch that is nowhere, in the words of the command line."""
    columns = [str(name) for name in getattr(covariates, "columns", ())]
    if batch not in columns and batch not in obs:
        raise LabelError(
            f"there is no covariate or column of obs {batch!r}, which --batch names; "
            f"{known_names(batch, dict.fromkeys([*columns, *map(str, obs.columns)]))}. Name one of "
            "these, or leave --batch out where there are no batches."
        )


def _screen(place: Path, targets: str | None) -> Any:
    """Open a screen; with a file of Cell Ranger ``targets`` is a file, too."""
    from plait.crt import read_screen

    if place.suffix != CELL_RANGER:
        return read_screen(place)
    from plait.cli.inputs import errors_naming
    from plait.io.cell_ranger import screen_from_cell_ranger

    table = cell_ranger_targets(targets, ("guides", "guide_names"))
    with errors_naming(str(place)):
        return screen_from_cell_ranger(place, table)


def cell_ranger_targets(targets: str | None, idle: Sequence[str]) -> Any:
    """Return the table of targets of a file; options that name keys do nothing with an .h5."""
    from plait.cli.gene_screen_tables import read_table_with
    from plait.cli.inputs import refuse_idle

    refuse_idle(idle, True, "with Cell Ranger's .h5, whose features say what guides are")
    if targets is None:
        return None
    if not Path(targets).is_file():
        raise FileFormatError(
            f"there is no file {targets}, which --targets names: with an .h5 it is a table with "
            "grna_id and grna_target."
        )
    return read_table_with(Path(targets), "grna_id", "grna_target")


def control_labels(controls: str | None) -> tuple[str, ...]:
    """Return the targets that are negative controls."""
    from plait.cli.inputs import split_list
    from plait.crt import NEGATIVE_CONTROLS

    return tuple(split_list(controls) or NEGATIVE_CONTROLS)


def _columns(obs: "DataFrame", covariates: str, place: Path) -> "DataFrame":
    """Return columns of obs by name, some of them logged."""
    import numpy as np
    import pandas as pd

    from plait.cli.inputs import split_list

    found: dict[str, Any] = {}
    for text in split_list(covariates) or []:
        logged = _LOGGED.fullmatch(text)
        name = logged[1].strip() if logged else text
        if name not in obs.columns:
            raise LabelError(
                f"{place} has no column {name!r} in obs for --covariates"
                f"{'' if text == name else f', which names {text}'}; "
                f"{known_names(name, obs.columns)}. Name one of these, by itself or as log(NAME), "
                "or leave it out."
            )
        if logged is None:
            found[name] = obs[name]
            continue
        values = np.asarray(obs[name])
        if wrong := _no_logarithm(values, obs.index):
            raise InputError(
                f"{place}: {text} of --covariates needs numbers of 0 or more, and column {name!r} "
                f"of obs {wrong}."
            )
        found[text] = np.log1p(values) if (values == 0).any() else np.log(values)
    if not found:
        raise OptionError("--covariates names no column.")
    return pd.DataFrame(found, index=obs.index)


def _no_logarithm(values: Any, cells: Any) -> str:
    """Say why a column has no logarithm, and what to do; nothing where it has."""
    import numpy as np

    if values.dtype.kind not in "iuf":
        return f"holds others, such as {values[0]!r}. Name it without log()"
    for what, bad in (("missing", np.isnan(values)), ("negative", values < 0)):
        if bad.any():
            count, first = counted(int(bad.sum()), "cell"), str(cells[int(np.argmax(bad))])
            return (
                f"is {what} in {count} (first: {first!r}). Leave these cells or the covariate "
                "out, or fill it in"
            )
    return ""


def _advice(obs: "DataFrame") -> str:
    return (
        "Covariates can be columns of obs instead, as in --covariates "
        f"{_suggested(obs)}; there are {_listed(obs)}."
    )


def _listed(obs: "DataFrame") -> str:
    names = [str(name) for name in obs.columns]
    return ", ".join(names[:20]) + (" ..." if len(names) > 20 else "") if names else "none"


def _are_amounts(values: Any) -> bool:
    """Tell whether a column holds counts, which differ in size: shares and scores do not."""
    is_number = values.dtype.kind in "iuf"
    return bool(is_number and (values >= 0).all() and (values % 1 == 0).all())


def _suggested(obs: "DataFrame") -> str:
    names = [f"log({name})" if _are_amounts(obs[name]) else str(name) for name in obs.columns[:3]]
    return f"'{','.join(names)}'" if names else "NAME,NAME"
