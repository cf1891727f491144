"""What mash returns: the fitted prior, and posterior effects with their labels."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from plait.data.words import counted
from plait.errors import FileFormatError, NotAvailableError, OptionError
from plait.io.atomic import replace_file
from plait.io.result import Result
from plait.io.stored_arrays import parts_of
from plait.mash.likelihoods import Components
from plait.provenance import Provenance

Array = NDArray[np.float64]

_PRIOR_FORMAT = "plait/mash-prior"
_PRIOR_VERSION = 1


@dataclass(frozen=True, eq=False, repr=False)
class FittedG(Result):
    """A fitted mash prior: mixture weights over covariances and grid.

    Attributes
    ----------
    pi : (P,) array
        Weights of the components: the null (with ``usepointmass``), then grid-major.
    Ulist : dict of str to (R, R) array
        Base covariance matrices.
    grid : (G,) array
    usepointmass : bool
    alpha : float or None
        Scaling of the data it was fitted on; checked when it is applied.
    V_hint : (R, R) array or None
        Error correlation it was fitted with, for information.
    """

    kind: ClassVar[str] = "mash_prior"
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "pi": ("components",),
        "Ulist": ("covariances", "contexts", "contexts"),
        "grid": ("grid_values",),
        "V_hint": ("contexts", "contexts"),
    }

    pi: Array
    Ulist: dict[str, Array]
    grid: Array
    usepointmass: bool = True
    alpha: float | None = None
    V_hint: Array | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        expected = len(self.Ulist) * len(self.grid) + int(self.usepointmass)
        if self.pi.shape != (expected,):
            raise OptionError(
                f"pi has length {len(self.pi)}, but {len(self.Ulist)} matrices x {len(self.grid)} "
                f"grid values{' + a null' if self.usepointmass else ''} make {expected}."
            )

    @property
    def components(self) -> Components:
        """The components of the mixture."""
        return Components(self.Ulist, self.grid, self.usepointmass)

    def __repr__(self) -> str:
        return (
            f"FittedG({len(self.Ulist)} covariances x {len(self.grid)} grid values, "
            f"{int(np.sum(self.pi > 1e-10))} of {len(self.pi)} components active)"
        )

    def expand(self) -> dict[str, Array]:
        """Return the prior covariance of every component by its label."""
        from plait.mash.covariances import expand_cov

        matrices = expand_cov(self.Ulist, self.grid, self.usepointmass)
        return dict(zip(self.components.names, matrices, strict=True))

    def prune(self, thresh: float = 1e-10) -> "FittedG":
        """Return the prior with weights at most ``thresh`` set to zero and unused matrices gone."""
        pi = np.where(self.pi > thresh, self.pi, 0.0)
        if not pi.any():
            pi[int(np.argmax(self.pi))] = 1.0
        start = int(self.usepointmass)
        table = pi[start:].reshape(len(self.grid), len(self.Ulist))
        used = np.asarray(table.any(axis=0), dtype=bool)
        used[0] |= not used.any()
        names = [name for name, use in zip(self.Ulist, used, strict=True) if use]
        weights = np.concatenate([pi[:start], table[:, used].ravel()])
        return replace(
            self, pi=weights / weights.sum(), Ulist={name: self.Ulist[name] for name in names}
        )

    def save(self, path: str | os.PathLike[str], overwrite: bool = True) -> None:
        """Write the prior as an npz file with a JSON header."""
        header = {
            "format": _PRIOR_FORMAT,
            "version": _PRIOR_VERSION,
            "names": list(self.Ulist),
            "usepointmass": self.usepointmass,
            "alpha": self.alpha,
        }
        arrays: dict[str, Any] = {
            "header": np.array(json.dumps(header)),
            "pi": self.pi,
            "grid": self.grid,
            "u_stack": np.stack(list(self.Ulist.values())),
        }
        if self.V_hint is not None:
            arrays["V_hint"] = self.V_hint
        with replace_file(path, overwrite=overwrite) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a prior written by `save`, or the npz output of ``plait mash fit``."""
        try:
            with (
                Path(path).open("rb") as stream,
                np.load(stream, allow_pickle=False) as archive,
            ):
                arrays = {name: archive[name] for name in archive.files}
        except FileNotFoundError:
            raise FileFormatError(f"{path}: there is no such file.") from None
        except (OSError, ValueError, EOFError, BadZipFile) as error:
            raise FileFormatError(f"{path}: not a readable npz file ({error}).") from None
        if "header" in arrays:
            return cls._from_header(arrays, path)
        if {"pi", "grid", "fitted_u_stack"} <= set(arrays):
            stack = arrays["fitted_u_stack"]
            names = arrays.get("u_names", np.array([f"U_{k + 1}" for k in range(len(stack))]))
            pointmass = len(arrays["pi"]) == len(stack) * len(arrays["grid"]) + 1
            alpha = float(arrays["alpha"]) if "alpha" in arrays else None
            Ulist = {str(n): U for n, U in zip(names, stack, strict=True)}
            V = arrays.get("V_hint")
            return cls(arrays["pi"], Ulist, arrays["grid"], pointmass, alpha, V)
        raise FileFormatError(f"{path}: holds no mash prior (expected pi, grid and covariances).")

    @classmethod
    def _from_header(cls, arrays: Mapping[str, Any], path: str | os.PathLike[str]) -> Self:
        header = json.loads(str(arrays["header"]))
        if header.get("format") != _PRIOR_FORMAT or header.get("version", 0) > _PRIOR_VERSION:
            raise FileFormatError(
                f"{path}: format {header.get('format')!r} version {header.get('version')}; this "
                f"plait reads {_PRIOR_FORMAT!r} up to version {_PRIOR_VERSION}."
            )
        Ulist = dict(zip(header["names"], arrays["u_stack"], strict=True))
        return cls(
            arrays["pi"],
            Ulist,
            arrays["grid"],
            header["usepointmass"],
            header["alpha"],
            arrays.get("V_hint"),
        )


@dataclass(frozen=True, eq=False)
class PosteriorMatrices:
    """Posterior summaries of J effects in Q output coordinates; see `MashResult`."""

    posterior_mean: Array
    posterior_sd: Array
    negative_prob: Array
    zero_prob: Array
    lfsr: Array
    lfdr: Array
    posterior_cov: Array | None = None
    posterior_samples: Array | None = None


@dataclass(frozen=True, eq=False, repr=False)
class MashResult(Result):
    """A fitted mash model and the posterior effects.

    Attributes
    ----------
    posterior_mean, posterior_sd : (J, R) arrays
        On the scale of the effects that were given.
    lfsr : (J, R) array
        Local false sign rate.
    lfdr, zero_prob : (J, R) arrays
        Probability of an effect of exactly zero (``lfdr`` only when asked for).
    negative_prob : (J, R) array
        Probability of a negative effect.
    loglik, vloglik, null_loglik, alt_loglik
        Log-likelihood in all and per effect; under the null; under the alternative.
    fitted_g : FittedG
        The prior (for `mash_1by1`, a list of one univariate mixture per condition).
    posterior_weights : (J, K) array or None
        Responsibilities of the active components, whose numbers are ``component_index``.
    posterior_cov : (J, R, R) array, posterior_samples : (J, R, M) array, lik_matrix : (J, P) array
        On request; ``lik_matrix`` holds log-likelihoods relative to each row's largest.
    alpha : float
    condition_names, effect_names : labels or None
    optim : dict
        ``method, niter, converged, dual_gap, objective, seconds`` of the weights.
    """

    kind: ClassVar[str] = "mash"
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "posterior_mean": ("effects", "contexts"),
        "posterior_sd": ("effects", "contexts"),
        "lfsr": ("effects", "contexts"),
        "lfdr": ("effects", "contexts"),
        "negative_prob": ("effects", "contexts"),
        "zero_prob": ("effects", "contexts"),
        "vloglik": ("effects",),
        "null_loglik": ("effects",),
        "alt_loglik": ("effects",),
        "posterior_weights": ("effects", "active_components"),
        "component_index": ("active_components",),
        "posterior_cov": ("effects", "contexts", "contexts"),
        "posterior_samples": ("effects", "contexts", "draws"),
        "lik_matrix": ("effects", "components"),
    }
    label_fields: ClassVar[Mapping[str, str]] = {
        "effects": "effect_names",
        "contexts": "condition_names",
    }

    posterior_mean: Array | None
    posterior_sd: Array | None
    lfsr: Array | None
    lfdr: Array | None
    negative_prob: Array | None
    zero_prob: Array | None
    loglik: float
    vloglik: Array
    null_loglik: Array | None
    alt_loglik: Array | None
    fitted_g: FittedG | list[Any]
    posterior_weights: Array | None
    component_index: NDArray[np.intp] | None
    alpha: float
    posterior_cov: Array | None = None
    posterior_samples: Array | None = None
    lik_matrix: Array | None = None
    condition_names: tuple[str, ...] | None = None
    effect_names: NDArray[np.str_] | None = None
    optim: dict[str, Any] = field(default_factory=dict)
    provenance: Provenance | None = None

    @property
    def converged(self) -> bool:
        """Whether the mixture weights are certified (dual gap at most 1e-8)."""
        return bool(self.optim.get("converged", True))

    @property
    def n_effects(self) -> int:
        """Number of effects."""
        return len(self.vloglik)

    @property
    def n_conditions(self) -> int:
        """Number of output conditions."""
        if self.posterior_mean is None:
            raise NotAvailableError("posterior_mean is not available in this result.")
        return int(self.posterior_mean.shape[1])

    def __repr__(self) -> str:
        return f"MashResult({self.n_effects} effects; log-likelihood {self.loglik:.2f})"

    def summary(self) -> str:
        """Say in a few lines what was fitted and what was found."""
        return "\n".join([*self._fit_lines(), *self._finding_lines()])

    def _fit_lines(self) -> list[str]:
        lines = [f"mash: {self.n_effects:,} effects, log-likelihood {self.loglik:,.2f}"]
        if isinstance(self.fitted_g, FittedG):
            g = self.fitted_g
            active = int(np.sum(g.pi > 1e-10))
            lines.append(
                f"prior: {len(g.Ulist)} covariances x {len(g.grid)} grid values; {active} of "
                f"{len(g.pi)} components carry weight"
            )
            table = g.pi[int(g.usepointmass) :].reshape(len(g.grid), len(g.Ulist)).sum(axis=0)
            order = np.argsort(-table, kind="stable")[:3]
            shares = [f"{list(g.Ulist)[k]} {table[k]:.1%}" for k in order if table[k] >= 0.001]
            null = [f"null {g.pi[0]:.1%}"] if g.usepointmass else []
            lines.append("weights: " + ", ".join(null + shares))
        if "dual_gap" in self.optim:
            state = "converged" if self.converged else "NOT CONVERGED"
            lines.append(f"{state} (dual gap {self.optim['dual_gap']:.1e})")
        return lines

    def _finding_lines(self) -> list[str]:
        if self.lfsr is None:
            return []
        counts, total = np.zeros(self.n_conditions, dtype=np.int64), 0
        for rows in parts_of(self.lfsr):
            significant = self.lfsr[rows] < 0.05
            counts += significant.sum(axis=0)
            total += int(significant.any(axis=1).sum())
        names = self.condition_names or tuple(str(r + 1) for r in range(len(counts)))
        shown = ", ".join(f"{n} {c:,}" for n, c in list(zip(names, counts, strict=True))[:12])
        more = ", ..." if len(counts) > 12 else ""
        found = counted(total, "effect")
        return [f"lfsr < 0.05: {found} in at least one condition  ({shown}{more})"]


@dataclass(frozen=True, eq=False)
class TrainApplyResult:
    """Outcome of `mash_train_apply`: training rows, the fit on them, the posterior of all."""

    train_indices: NDArray[np.intp]
    train_result: MashResult
    apply_result: MashResult


@dataclass(frozen=True, eq=False)
class ChunkedApplyResult:
    """Outcome of `apply_mash_prior_chunked`.

    Attributes
    ----------
    arrays : dict of str to array
        The summaries, memory-mapped when they were written to files.
    output_paths : dict of str to Path, or None
    loglik : float
    n_effects, n_conditions, chunk_size, n_chunks : int
    alpha : float
    fitted_g : FittedG
    """

    arrays: dict[str, Any]
    output_paths: dict[str, Path] | None
    loglik: float
    n_effects: int
    n_conditions: int
    chunk_size: int
    n_chunks: int
    alpha: float
    fitted_g: FittedG
    condition_names: tuple[str, ...] | None = None
    effect_names: NDArray[np.str_] | None = None


def as_prior(g: "MashResult | FittedG") -> FittedG:
    """Return the prior of a mash result, or the prior itself."""
    prior = g.fitted_g if isinstance(g, MashResult) else g
    if not isinstance(prior, FittedG):
        raise OptionError("g must be a MashResult of mash() or a FittedG.")
    return prior


def as_components(g: "MashResult | FittedG", alpha: float) -> tuple[FittedG, Components]:
    """Return the prior of a result or a prior, after checking its alpha against the data's."""
    prior = as_prior(g)
    if prior.alpha is not None and prior.alpha != alpha:
        raise OptionError(
            f"the prior was fitted with alpha={prior.alpha:g}, the data have alpha={alpha:g}; "
            "they must agree."
        )
    return prior, prior.components


def check_prior_width(prior: FittedG, width: int) -> None:
    """Refuse a prior made for another number of conditions."""
    found = next(iter(prior.Ulist.values())).shape[0]
    if found != width:
        raise OptionError(f"the prior is for {found} conditions, the data have {width}.")
