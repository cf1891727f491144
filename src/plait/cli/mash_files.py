"""Reading the inputs of the mash commands and writing their outputs."""

import json
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plait.cli.console import Session
from plait.errors import FileFormatError, InputError, OptionError, OutputError
from plait.io.atomic import check_writable, replace_file
from plait.io.matrices import read_covariances, read_effect_tables, read_square
from plait.io.store import check_store_writable, read_effects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plait.mash.data import MashData
    from plait.mash.results import MashResult

Array = NDArray[np.float64]

RESULT_ARRAYS = (
    "posterior_mean", "posterior_sd", "lfsr", "lfdr", "negative_prob", "posterior_cov",
    "posterior_samples", "posterior_weights", "component_index", "vloglik", "lik_matrix",
    "null_loglik", "alt_loglik",
)  # fmt: skip


def names_of(text: str | None) -> list[str] | None:
    """Return the names in a list separated by commas."""
    if text is None:
        return None
    return [name for name in (part.strip() for part in text.split(",")) if name]


@dataclass(frozen=True)
class Tables:
    """What the Input options say."""

    bhat: Path | None
    shat: Path | None = None
    effects: str | None = None
    conditions: str | None = None
    v: Path | None = None
    missing: str | None = None
    zero_shat_reset: float = 0.0
    zero_bhat_shat_reset: float = 0.0

    def load(self, run: Session, alpha: float) -> "MashData":
        """Read and check the data.

        Raises
        ------
        InputError
            They cannot be used; the message names the file.
        """
        from plait.mash.data import mash_set_data

        settings: dict[str, Any] = {
            "alpha": alpha,
            "zero_Shat_reset": self.zero_shat_reset,
            "zero_Bhat_Shat_reset": self.zero_bhat_shat_reset,
        }
        if self.effects is not None:
            if any(path is not None for path in (self.bhat, self.shat, self.v)):
                raise OptionError("--effects cannot be combined with --bhat, --shat or --v.")
            source = read_effects(self.effects)
            if (wanted := names_of(self.conditions)) is not None:
                source = source.select(contexts=wanted)
            with errors_naming(self.effects):
                data = mash_set_data(source, missing=self.missing or "exact", **settings)
        else:
            data = self._load_tables(run, settings)
        run.say(
            f"{data.n_effects:,} effects x {data.n_conditions} conditions"
            + ("" if data.missing_mask is None else f", {int(data.missing_mask.sum()):,} missing")
        )
        return data

    def _load_tables(self, run: Session, settings: dict[str, Any]) -> "MashData":
        from plait.mash.data import mash_set_data

        if self.bhat is None:
            raise OptionError("give the effects: --bhat FILE (and --shat FILE), or --effects STORE.")
        bhat, shat = read_effect_tables(self.bhat, self.shat, names_of(self.conditions))
        names = bhat.column_names or (None if shat is None else shat.column_names)
        rows = bhat.row_names
        if rows is None and shat is not None:
            rows = shat.row_names
        V = None
        if self.v is not None:
            V = read_square(self.v, names).values
        if shat is None:
            run.say("no --shat: the effects are taken for z-scores (standard error 1)")
        with errors_naming(*(str(path) for path in (self.bhat, self.shat, self.v) if path)):
            return mash_set_data(
                bhat.values,
                None if shat is None else shat.values,
                V=V,
                condition_names=names,
                effect_names=None if rows is None else list(rows),
                missing=self.missing or "auto",
                **settings,
            )

    def fingerprints(self) -> dict[str, str]:
        """Return the digests of the files, for the record."""
        from plait.provenance import fingerprint

        paths = (self.bhat, self.shat, self.v)
        return {str(path): fingerprint(path) for path in paths if path is not None}


@contextmanager
def errors_naming(*places: str) -> "Iterator[None]":
    """Let errors about values say which files they are in."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{', '.join(places)}: {error}") from error


def read_ulist(
    path: Path | None, methods: str | None, data: "MashData"
) -> dict[str, Array]:
    """Return the covariance matrices that --ulist and --cov-methods ask for."""
    from plait.mash.covariances import CANONICAL, cov_canonical

    matrices: dict[str, Array] = {}
    if path is None or methods is not None:
        wanted = names_of(methods)
        chosen = CANONICAL if wanted is None or wanted == ["all"] else wanted
        if not chosen:
            raise OptionError("--cov-methods is empty; leave it out for all four kinds.")
        matrices = cov_canonical(data, chosen)
    if path is not None:
        learned = read_covariances(path, data.n_conditions)
        twice = sorted(set(matrices) & set(learned))
        if twice:
            raise InputError(f"{path}: the name {twice[0]!r} is one of a canonical matrix too.")
        matrices |= learned
    return matrices


def numbers_of(text: str | None, option: str) -> Array | None:
    """Return the numbers of an option that takes several."""
    if text is None:
        return None
    try:
        return np.array([float(part) for part in text.replace(",", " ").split()])
    except ValueError:
        raise OptionError(f"{option} is {text!r}; give numbers.") from None


@dataclass(frozen=True)
class Target:
    """Where a result goes: PREFIX.npz and PREFIX.json, or a store. Checked when it is made."""

    out: str
    overwrite: bool = False
    paths: tuple[Path, ...] = field(init=False)

    def __post_init__(self) -> None:
        paths: tuple[Path, ...] = ()
        if self.is_store:
            check_store_writable(self.out, self.overwrite)
        else:
            prefix = self.out.removesuffix(".npz")
            if prefix.endswith("/") or not prefix:
                raise OutputError(f"--out {self.out!r} is not the beginning of a file name.")
            paths = (Path(f"{prefix}.npz"), Path(f"{prefix}.json"))
            for path in paths:
                check_writable(path, self.overwrite)
        object.__setattr__(self, "paths", paths)

    @property
    def is_store(self) -> bool:
        """Whether the output is a store."""
        return "://" in self.out or self.out.rstrip("/").endswith(".zarr")

    @property
    def name(self) -> str:
        """The outputs in words."""
        return self.out if self.is_store else " · ".join(map(str, self.paths))

    def write(self, result: "MashResult", description: dict[str, Any]) -> None:
        """Write everything or nothing."""
        if self.is_store:
            result.save(self.out, overwrite=self.overwrite)
            return
        from plait.provenance import json_safe

        arrays = arrays_of(result)
        text = json.dumps(json_safe(description), indent=2, allow_nan=False) + "\n"
        npz, json_path = self.paths
        with (
            replace_file(npz, self.overwrite) as arrays_file,
            replace_file(json_path, self.overwrite) as text_file,
        ):
            text_file.write_text(text, encoding="utf-8")
            np.savez_compressed(arrays_file, **arrays)


def arrays_of(result: "MashResult") -> dict[str, Any]:
    """Return the arrays of the ``.npz`` output, see docs/mash.md."""
    from plait.mash.results import FittedG

    arrays: dict[str, Any] = {
        name: value for name in RESULT_ARRAYS if (value := getattr(result, name)) is not None
    }
    prior = result.fitted_g
    if isinstance(prior, FittedG):
        arrays["pi"] = prior.pi
        arrays["grid"] = prior.grid
        arrays["fitted_u_stack"] = np.stack(list(prior.Ulist.values()))
        arrays["u_names"] = np.array(list(prior.Ulist), dtype=np.str_)
    arrays["alpha"] = np.float64(result.alpha)
    for name in ("condition_names", "effect_names"):
        if (labels := getattr(result, name)) is not None:
            arrays[name] = np.asarray(labels, dtype=np.str_)
    return arrays


def describe(result: "MashResult", command: str, **more: Any) -> dict[str, Any]:
    """Return what the ``.json`` output says about a fit."""
    from plait import __version__
    from plait.mash.results import FittedG

    prior = result.fitted_g
    with_prior = isinstance(prior, FittedG)
    totals = {
        f"{name}_total": None if (values := getattr(result, name)) is None else float(values.sum())
        for name in ("null_loglik", "alt_loglik")
    }
    return {
        "command": command,
        "loglik": result.loglik,
        "n_effects": result.n_effects,
        "n_conditions": None if result.posterior_mean is None else result.n_conditions,
        "n_components_active": int(np.sum(prior.pi > 1e-10)) if with_prior else None,
        "alpha": result.alpha,
        "usepointmass": prior.usepointmass if with_prior else True,
        **totals,
        "converged": result.converged,
        "dual_gap": result.optim.get("dual_gap"),
        "niter": result.optim.get("niter"),
        "version": __version__,
        **more,
    }


def read_result(place: str) -> "MashResult":
    """Read a result that a mash command wrote.

    Raises
    ------
    FileFormatError
        There is no such result, or it is damaged.
    """
    from plait.mash.results import FittedG, MashResult

    if "://" in place or place.rstrip("/").endswith(".zarr"):
        return MashResult.load(place)
    path = Path(place)
    if not path.exists() and Path(f"{place}.npz").exists():
        path = Path(f"{place}.npz")
    arrays = read_arrays(path)
    if "vloglik" not in arrays:
        raise FileFormatError(f"{path} is not a result of mash: it has no vloglik.")
    prior: Any = FittedG.load(path) if "fitted_u_stack" in arrays else []
    names = arrays.get("condition_names")
    parts: dict[str, Any] = {name: arrays.get(name) for name in RESULT_ARRAYS}
    return MashResult(
        **parts,
        zero_prob=arrays.get("lfdr"),
        loglik=float(arrays["vloglik"].sum()),
        fitted_g=prior,
        alpha=float(arrays.get("alpha", 0.0)),
        condition_names=None if names is None else tuple(str(name) for name in names),
        effect_names=arrays.get("effect_names"),
    )


def read_arrays(path: Path) -> dict[str, Any]:
    """Read all arrays of an ``.npz`` file."""
    from zipfile import BadZipFile

    if not path.exists():
        raise FileFormatError(f"{path} does not exist.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not hasattr(archive, "files"):
                raise FileFormatError(f"{path} holds one array; expected the .npz of a result.")
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, BadZipFile) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"{path} is damaged or not an .npz file: {error}.") from None


def write_covariances(path: Path, matrices: dict[str, Array], overwrite: bool) -> None:
    """Write covariance matrices as ``u_stack`` and ``u_names``, which --ulist reads."""
    with replace_file(path, overwrite) as temporary:
        np.savez_compressed(
            temporary,
            u_stack=np.stack(list(matrices.values())),
            u_names=np.array(list(matrices), dtype=np.str_),
        )


def check_output(path: Path, suffixes: Sequence[str], overwrite: bool) -> None:
    """Refuse an output that cannot be written, or whose format is not known by its name."""
    if not path.name.lower().endswith(tuple(suffixes)):
        raise OutputError(f"{path}: the output is written as one of {', '.join(suffixes)}.")
    check_writable(path, overwrite)


MATRIX_SUFFIXES = (".npy", ".csv", ".tsv")
TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")


def write_matrix(
    path: Path, matrix: Array, names: Sequence[str] | None, overwrite: bool
) -> None:
    """Write an R x R matrix, with the condition names where the format has room for them."""
    labels = [str(i + 1) for i in range(len(matrix))] if names is None else list(map(str, names))
    with replace_file(path, overwrite) as temporary:
        if path.suffix == ".npy":
            np.save(temporary, matrix)
            return
        import polars as pl

        columns = {"condition": labels, **dict(zip(labels, matrix.T, strict=True))}
        pl.DataFrame(columns).write_csv(temporary, separator="\t" if path.suffix == ".tsv" else ",")


def write_table(path: Path, frame: Any, overwrite: bool) -> None:
    """Write a polars table."""
    with replace_file(path, overwrite) as temporary:
        if path.suffix == ".parquet":
            frame.write_parquet(temporary)
        else:
            frame.write_csv(temporary, separator="\t" if path.suffix == ".tsv" else ",")
