"""Reading a perturbation screen as the commands of ``plait crt`` are told."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any

from plait.cli.options import INPUT, MODEL, option
from plait.errors import InputError, LabelError, OptionError

if TYPE_CHECKING:
    from pandas import DataFrame

    from plait.crt import CRTInputs

H5ad = Annotated[
    Path,
    option(
        "--h5ad",
        metavar="FILE",
        panel=INPUT,
        help="The screen: .h5ad (expression stays on disk), or .h5mu with a modality of guides.",
    ),
]
Usage = Annotated[
    str,
    option(
        "--usage",
        metavar="KEY|FILE",
        panel=INPUT,
        help="Usage of gene programs: a key of the file, or cNMF's table of usages (.txt).",
    ),
]
Covar = Annotated[
    str,
    option("--covar", metavar="KEY", panel=INPUT, help="Covariates of cells: a key of the file."),
]
Covariates = Annotated[
    str | None,
    option(
        "--covariates",
        metavar="LIST",
        panel=INPUT,
        help="Columns of obs that are the covariates, instead of --covar, separated by commas; "
        "log(NAME) takes the logarithm, as counts need.",
    ),
]
Guides = Annotated[
    str,
    option("--guides", metavar="KEY", panel=INPUT, help="Guides of cells, cells x guides."),
]
GuideNames = Annotated[
    str,
    option(
        "--guide-names",
        metavar="KEY",
        panel=INPUT,
        help="Names of the guides, where they are not those of columns.",
    ),
]
Targets = Annotated[
    str,
    option(
        "--targets", metavar="KEY", panel=INPUT, help="Target of each guide: a mapping, or JSON."
    ),
]
Batch = Annotated[
    str,
    option(
        "--batch",
        metavar="NAME",
        panel=INPUT,
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

_LOGGED = re.compile(r"log\((.+)\)")


def read_inputs(
    h5ad: Path,
    usage: str,
    covar: str,
    covariates: str | None,
    guides: str,
    guide_names: str,
    targets: str,
    batch: str,
    eps: float | None,
) -> "CRTInputs":
    """Read a screen and make it ready for testing."""
    from plait.crt import prepare_crt_inputs, read_cnmf_usage, read_screen

    screen = read_screen(h5ad)
    obsm = dict(screen.obsm)
    if Path(usage).is_file():
        obsm["usage of the file"] = read_cnmf_usage(usage, screen.obs_names)
        usage = "usage of the file"
    if covariates is not None:
        obsm[covar] = _columns(screen.obs, covariates, h5ad)
    elif not _is_held(screen, covar):
        raise LabelError(
            f"{h5ad} has no {covar!r} for covariates. Say which columns of obs they are, as in "
            f"--covariates {_suggested(screen.obs)}; there are {_listed(screen.obs)}."
        )
    _check_held(screen, h5ad, obsm, usage, guides, guide_names, targets)
    return prepare_crt_inputs(
        SimpleNamespace(
            obsm=obsm, uns=screen.uns, obs=screen.obs, layers=screen.layers,
            obs_names=screen.obs_names,
        ),
        usage_key=usage,
        covar_key=covar,
        guide_assignment_key=guides,
        guide_names_key=guide_names,
        guide2gene_key=targets,
        batch_key=batch,
        eps=eps,
    )  # fmt: skip


def control_labels(controls: str | None) -> tuple[str, ...]:
    """Return the targets that are negative controls."""
    from plait.cli.inputs import split_list
    from plait.crt import NEGATIVE_CONTROLS

    return tuple(split_list(controls) or NEGATIVE_CONTROLS)


def _columns(obs: "DataFrame", covariates: str, place: Path) -> "DataFrame":
    """Return columns of obs by name, some of them logged."""
    import numpy as np
    import pandas as pd

    found: dict[str, Any] = {}
    for text in (part.strip() for part in covariates.split(",")):
        logged = _LOGGED.fullmatch(text)
        name = logged[1].strip() if logged else text
        if name not in obs.columns:
            raise LabelError(
                f"{place} has no column {name!r} in obs for --covariates; there are {_listed(obs)}."
            )
        if logged is None:
            found[name] = obs[name]
            continue
        values = np.asarray(obs[name])
        if values.dtype.kind not in "iuf" or not (values >= 0).all():
            raise InputError(
                f"{place}: column {name!r} of obs is not of numbers of 0 or more; log({name}) "
                "cannot be taken."
            )
        found[text] = np.log1p(values) if (values == 0).any() else np.log(values)
    if not found:
        raise OptionError("--covariates names no column.")
    return pd.DataFrame(found, index=obs.index)


def _check_held(
    screen: Any,
    place: Path,
    obsm: dict[str, Any],
    usage: str,
    guides: str,
    guide_names: str,
    targets: str,
) -> None:
    """Refuse a file that lacks something, naming all that it lacks and the options for it."""
    has_names = hasattr(obsm.get(guides), "columns") or guide_names in screen.uns
    lacks = [
        f"no {key!r} for {what} ({name})"
        for name, key, what, is_there in (
            ("--usage", usage, "usage of programs", usage in obsm or _is_held(screen, usage)),
            ("--guides", guides, "guides of cells", _is_held(screen, guides)),
            ("--guide-names", guide_names, "names of guides", has_names),
            ("--targets", targets, "targets of guides", _is_held(screen, targets)),
        )
        if not is_there
    ]
    if lacks:
        held = "; ".join(
            f"{slot}: {', '.join(map(str, getattr(screen, slot))) or 'nothing'}"
            for slot in ("obsm", "uns")
        )
        raise LabelError(
            f"{place} has {', '.join(lacks)}. Say with these options where it is; there are {held}."
        )


def _is_held(screen: Any, key: str) -> bool:
    return any(key in getattr(screen, name) for name in ("obsm", "layers", "uns", "obs"))


def _listed(obs: "DataFrame") -> str:
    names = [str(name) for name in obs.columns]
    return ", ".join(names[:20]) + (" ..." if len(names) > 20 else "") if names else "none"


def _suggested(obs: "DataFrame") -> str:
    names = [
        f"log({name})" if obs[name].dtype.kind in "iuf" else str(name) for name in obs.columns[:3]
    ]
    return f"'{','.join(names)}'" if names else "NAME,NAME"
