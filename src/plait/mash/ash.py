"""Adaptive shrinkage of one condition at a time: `ash`, and `mash_1by1` as a screening step."""

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from plait.errors import ConvergenceWarning, OptionError, ShapeError
from plait.io.result import Result
from plait.mash.data import MashData
from plait.mash.grid import grid_of
from plait.mash.results import MashResult
from plait.numerics.mixture_weights import WeightFit, fit_mixture_weights
from plait.provenance import Provenance

Array = NDArray[np.float64]

_HALF_LOG_2PI = 0.5 * float(np.log(2 * np.pi))


@dataclass(frozen=True, eq=False, repr=False)
class NormalMixture(Result):
    """A mixture of normals with mean zero: weights ``pi`` and standard deviations ``sd``."""

    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {"pi": ("components",), "sd": ("components",)}
    frame_dims: ClassVar[tuple[str, ...]] = ("components",)

    pi: Array
    sd: Array


@dataclass(frozen=True, eq=False, repr=False)
class AshResult(Result):
    """Adaptive shrinkage of n effects; see `ash`.

    Attributes
    ----------
    posterior_mean, posterior_sd : (n,) arrays
        On the scale of ``betahat``.
    lfsr, lfdr, negative_prob : (n,) arrays
        Local false sign and discovery rates, and the probability of a negative effect.
    svalue, qvalue : (n,) arrays
        Mean lfsr and lfdr of all effects at least as significant.
    loglik : float
    fitted_g : NormalMixture
    optim : dict
        ``method, niter, converged, dual_gap, objective, seconds``.
    """

    kind: ClassVar[str] = "ash"
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "posterior_mean": ("effects",),
        "posterior_sd": ("effects",),
        "lfsr": ("effects",),
        "lfdr": ("effects",),
        "negative_prob": ("effects",),
        "svalue": ("effects",),
        "qvalue": ("effects",),
    }
    frame_dims: ClassVar[tuple[str, ...]] = ("effects",)

    posterior_mean: Array
    posterior_sd: Array
    lfsr: Array
    lfdr: Array
    negative_prob: Array
    svalue: Array
    qvalue: Array
    loglik: float
    fitted_g: NormalMixture
    optim: dict[str, Any] = field(default_factory=dict)


def ash(
    betahat: ArrayLike,
    sebetahat: ArrayLike,
    mixcompdist: str = "normal",
    mode: float = 0,
    alpha: float = 0,
    prior: str | ArrayLike = "nullbiased",
    nullweight: float = 10,
    pointmass: bool = True,
    mixsd: ArrayLike | None = None,
    gridmult: float = float(np.sqrt(2.0)),
    g: NormalMixture | AshResult | None = None,
    fixg: bool = False,
    weights: ArrayLike | None = None,
    pi_thresh: float = 1e-10,
    optmethod: str = "mixsqp",
    control: Mapping[str, Any] | None = None,
) -> AshResult:
    """Shrink effects towards zero with a prior learned from all of them.

    Parameters
    ----------
    betahat, sebetahat : (n,) arrays
        Effects and standard errors. Effects with a missing value, or a standard error of zero or
        infinity, are left out of the fit and get the prior as their posterior.
    mixcompdist : {"normal"}
    mode : {0}
    alpha : float
        Effects are exchangeable after division by ``sebetahat^alpha``.
    prior : {"nullbiased", "uniform"} or array
        Dirichlet parameters of the weights, at least 1.
    nullweight : float
        Parameter of the null with ``"nullbiased"``.
    pointmass : bool
        Include a component at zero.
    mixsd : array, optional
        Prior standard deviations. Default chosen from the data.
    gridmult : float
        Ratio of neighbouring default values.
    g : NormalMixture or AshResult, optional
        A prior whose standard deviations (with ``fixg`` its weights too) are used.
    fixg : bool
    weights : (n,) array, optional
        Weights of the effects in the fit.
    pi_thresh : float
        Components with a smaller weight do not enter the posterior.
    optmethod, control
        As in `mash`.

    Returns
    -------
    AshResult

    Raises
    ------
    OptionError, ShapeError
        Something other than normal mixtures was asked for, or sizes differ.

    Notes
    -----
    Stephens (2017), Biostatistics 18:275. The local false sign rate of an effect without data is
    ``(1 + pi_0) / 2``: its sign is unknown and it may be zero.
    """
    if mixcompdist != "normal" or mode != 0:
        raise OptionError("ash fits normal mixtures around zero: mixcompdist='normal', mode=0.")
    if fixg and g is None:
        raise OptionError("cannot fix g without a g: give the fitted prior to keep.")
    x, s, scale, use = _standardised(betahat, sebetahat, alpha)
    mixture = g.fitted_g if isinstance(g, AshResult) else g
    sd = _grid(x[use], s[use], mixsd, gridmult, pointmass) if mixture is None else mixture.sd
    log_density = _log_densities(x[use], s[use], sd)
    fit = None
    if fixg and mixture is not None:
        pi = mixture.pi
    else:
        row_weights = None if weights is None else np.asarray(weights, dtype=np.float64)[use]
        fit = _fit(log_density, row_weights, _counts(prior, nullweight, sd), optmethod, control)
        pi = fit.pi
    summaries = _posterior(x, s, scale, use, pi, sd, pi_thresh)
    jacobian = float(alpha * np.sum(np.log(np.asarray(sebetahat, dtype=np.float64)[use])))
    return AshResult(
        **summaries,
        svalue=running_mean(summaries["lfsr"]),
        qvalue=running_mean(summaries["lfdr"]),
        loglik=float(_log_mixture(log_density, pi).sum()) - (jacobian if alpha else 0.0),
        fitted_g=NormalMixture(pi, sd),
        optim=_describe(fit),
    )


def _standardised(
    betahat: ArrayLike, sebetahat: ArrayLike, alpha: float
) -> tuple[Array, Array, Array, NDArray[np.bool_]]:
    """Return effects, errors and back-scale on the exchangeable scale, and which rows count."""
    effects = np.asarray(betahat, dtype=np.float64)
    errors = np.broadcast_to(np.asarray(sebetahat, dtype=np.float64), effects.shape)
    if effects.ndim != 1 or effects.size == 0:
        raise ShapeError(f"betahat must be one-dimensional and not empty, not {effects.shape}.")
    use = np.isfinite(effects) & np.isfinite(errors) & (errors > 0)
    safe = np.where(use, errors, 1.0)
    scale = safe**alpha
    return np.where(use, effects, 0.0) / scale, safe ** (1 - alpha), scale, use


def _grid(x: Array, s: Array, mixsd: Any, gridmult: float, pointmass: bool) -> Array:
    if mixsd is not None:
        values: Array = np.array(mixsd, dtype=np.float64)
        if values.ndim != 1 or values.size == 0:
            raise ShapeError(f"mixsd must be one-dimensional and not empty, not {values.shape}.")
        if not np.isfinite(values).all() or np.any(values < 0):
            raise OptionError("mixsd must be finite and not negative.")
    else:
        values = grid_of(x, s, gridmult)
    if pointmass and not np.any(values == 0):
        values = np.concatenate([[0.0], values])
    return values


def _log_densities(x: Array, s: Array, sd: Array) -> Array:
    variance = s[:, None] ** 2 + sd**2
    result: Array = -_HALF_LOG_2PI - 0.5 * (np.log(variance) + x[:, None] ** 2 / variance)
    return result


def _log_mixture(log_density: Array, pi: Array) -> Array:
    largest = log_density.max(axis=1)
    result: Array = np.log(np.exp(log_density - largest[:, None]) @ pi) + largest
    return result


def _counts(prior: str | ArrayLike, nullweight: float, sd: Array) -> Array:
    if isinstance(prior, str):
        if prior not in ("nullbiased", "uniform"):
            raise OptionError(f"prior is {prior!r}; choose 'nullbiased', 'uniform' or numbers.")
        counts = np.zeros(len(sd))
        if prior == "nullbiased":
            if nullweight < 1:
                raise OptionError(f"nullweight is {nullweight:g}; it must be at least 1.")
            counts[int(np.argmin(sd))] = nullweight - 1
        return counts
    parameters = np.asarray(prior, dtype=np.float64)
    if parameters.shape != sd.shape:
        raise OptionError(f"prior has the wrong length: {parameters.shape}, expected {sd.shape}.")
    if np.any(parameters < 1):
        raise OptionError("prior parameters must be at least 1.")
    return parameters - 1


def _fit(
    log_density: Array, weights: Array | None, counts: Array, method: str, control: Any
) -> WeightFit:
    relative = np.exp(log_density - log_density.max(axis=1, keepdims=True))
    fit = fit_mixture_weights(relative, weights, counts, method=method, control=control)
    if not fit.converged:
        warnings.warn(
            f"the mixture weights ({method}) are not optimal: dual gap {fit.dual_gap:.2g} after "
            f"{fit.iterations} iterations.",
            ConvergenceWarning,
            stacklevel=3,
        )
    return fit


def _describe(fit: WeightFit | None) -> dict[str, Any]:
    if fit is None:
        return {"method": "fixed", "niter": 0, "converged": True}
    return {
        "method": fit.method,
        "niter": fit.iterations,
        "converged": fit.converged,
        "dual_gap": fit.dual_gap,
        "objective": fit.objective,
        "seconds": fit.seconds,
    }


def _posterior(
    x: Array,
    s: Array,
    scale: Array,
    use: NDArray[np.bool_],
    pi: Array,
    sd: Array,
    pi_thresh: float,
) -> dict[str, Array]:
    keep = pi > pi_thresh
    if not keep.any():
        keep[int(np.argmax(pi))] = True
    pi, sd = pi[keep] / pi[keep].sum(), sd[keep]
    log_density = _log_densities(x, s, sd)
    # Without data every component keeps its prior weight, mean 0 and prior variance.
    log_density[~use] = 0.0
    w = np.exp(log_density - log_density.max(axis=1, keepdims=True)) * pi
    w /= w.sum(axis=1, keepdims=True)
    shrink = np.where(use[:, None], sd**2 / (s[:, None] ** 2 + sd**2), 0.0)
    m = shrink * x[:, None]
    v = np.where(use[:, None], shrink * s[:, None] ** 2, sd**2)
    mean = (w * m).sum(axis=1)
    variance = (w * ((m - mean[:, None]) ** 2 + v)).sum(axis=1)
    alive = sd > 0
    z = m[:, alive] / np.sqrt(v[:, alive])
    negative = (w[:, alive] * ndtr(-z)).sum(axis=1)
    positive = (w[:, alive] * ndtr(z)).sum(axis=1)
    zero = w[:, ~alive].sum(axis=1)
    return {
        "posterior_mean": mean * scale,
        "posterior_sd": np.sqrt(variance) * scale,
        "lfsr": np.minimum(zero + np.minimum(negative, positive), 1.0),
        "lfdr": zero,
        "negative_prob": negative,
    }


def running_mean(rates: ArrayLike) -> Array:
    """Return s-values of lfsr (or q-values of lfdr): the mean rate of all at least as small."""
    values = np.asarray(rates, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    result = np.empty(len(values))
    result[order] = np.cumsum(values[order]) / np.arange(1, len(values) + 1)
    return result


def mash_1by1(
    data: MashData,
    alpha: float = 0,
    mixsd: ArrayLike | None = None,
    gridmult: float = float(np.sqrt(2.0)),
    prior: str | ArrayLike = "nullbiased",
    nullweight: float = 10,
    optmethod: str = "mixsqp",
    control: Mapping[str, Any] | None = None,
    pointmass: bool = True,
) -> MashResult:
    """Run `ash` on every condition by itself: the screening step before `mash`.

    Parameters
    ----------
    data : MashData
    alpha : float
        ash's own scaling, applied to the data as they are stored (after theirs).
    mixsd : array, optional
        Prior standard deviations shared by all conditions.
    gridmult, prior, nullweight, optmethod, control, pointmass
        As in `ash`.

    Returns
    -------
    MashResult
        On the scale of the effects that were given. ``fitted_g`` is a list with the weights and
        standard deviations of each condition's mixture; ``vloglik`` sums the conditions.
    """
    started = time.perf_counter()
    width = data.n_conditions
    observed = data.observed(slice(None))
    fits = []
    for r in range(width):
        errors = data.Shat[:, r]
        if observed is not None:
            errors = np.where(observed[:, r], errors, np.inf)
        fits.append(
            ash(
                data.Bhat[:, r], errors, alpha=alpha, mixsd=mixsd, gridmult=gridmult, prior=prior,
                nullweight=nullweight, optmethod=optmethod, control=control, pointmass=pointmass,
            )
        )  # fmt: skip
    back = data.Shat_alpha

    def stack(name: str) -> Array:
        return np.column_stack([getattr(fit, name) for fit in fits])

    seconds = time.perf_counter() - started
    jacobian = float(np.log(back).sum())
    zero = stack("lfdr")
    return MashResult(
        posterior_mean=stack("posterior_mean") * back,
        posterior_sd=stack("posterior_sd") * back,
        lfsr=stack("lfsr"),
        lfdr=zero,
        negative_prob=stack("negative_prob"),
        zero_prob=zero,
        loglik=sum(fit.loglik for fit in fits) - jacobian,
        vloglik=_vector_loglik(data, fits, alpha) - np.log(back).sum(axis=1),
        null_loglik=None,
        alt_loglik=None,
        fitted_g=[{"pi": fit.fitted_g.pi.tolist(), "sd": fit.fitted_g.sd.tolist()} for fit in fits],
        posterior_weights=None,
        component_index=None,
        alpha=data.alpha,
        condition_names=data.condition_names,
        effect_names=data.effect_names,
        optim={
            "method": optmethod,
            "converged": all(fit.optim["converged"] for fit in fits),
            "dual_gap": max(fit.optim["dual_gap"] for fit in fits),
            "seconds": seconds,
        },
        provenance=Provenance("mash_1by1", options={"alpha": alpha}, seconds=seconds),
    )


def _vector_loglik(data: MashData, fits: list[AshResult], alpha: float) -> Array:
    """Log-likelihood of every effect, summed over its observed conditions."""
    observed = data.observed(slice(None))
    total = np.zeros(data.n_effects)
    for r, fit in enumerate(fits):
        seen = np.ones(data.n_effects, dtype=bool) if observed is None else observed[:, r]
        errors = np.where(seen, data.Shat[:, r], np.inf)
        x, s, scale, use = _standardised(data.Bhat[:, r], errors, alpha)
        density = _log_mixture(_log_densities(x, s, fit.fitted_g.sd), fit.fitted_g.pi)
        total += np.where(use, density - np.log(scale), 0.0)
    return total
