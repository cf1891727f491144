"""Adaptive shrinkage of one condition at a time: `ash`, and `mash_1by1` as a screening step."""

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from plait.errors import ConvergenceWarning, InputError, OptionError, ShapeError
from plait.execution.grains import Grain, grains, map_grains, sum_in_order
from plait.execution.threads import single_threaded_blas
from plait.io.result import Result
from plait.mash.data import MashData
from plait.mash.grid import grid_of
from plait.mash.results import MashResult
from plait.numerics.mixture_weights import DenseLikelihoods, WeightFit, fit_mixture_weights
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
    betahat : (n,) array
        Effects; NaN is missing.
    sebetahat : (n,) array or scalar
        Standard errors. Effects with a missing value, or a standard error of zero or infinity, are
        left out of the fit and get the prior as their posterior (on the exchangeable scale, as
        there is no error to scale back by).
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
        Positive weights of the effects in the fit of ``pi``. Default 1.
    pi_thresh : float
        Components with a smaller weight do not enter the posterior.
    optmethod, control
        As in `mash`.

    Returns
    -------
    AshResult

    Raises
    ------
    InputError
        Something other than normal mixtures was asked for, sizes differ, an effect is infinite or
        a standard error negative, or no effect has data.

    Notes
    -----
    Stephens (2017), Biostatistics 18:275. With G components the cost is about ``20 n G`` flops;
    memory ``8 n G`` bytes. The local false sign rate of an effect without data is
    ``(1 + pi_0) / 2``: its sign is unknown and it may be zero.
    """
    if mixcompdist != "normal" or mode != 0:
        raise OptionError("ash fits normal mixtures around zero: mixcompdist='normal', mode=0.")
    if fixg and g is None:
        raise OptionError("cannot fix g without a g: give the fitted prior to keep.")
    if g is not None and mixsd is not None:
        raise OptionError("cannot supply both g and mixsd: g brings its own.")
    mixture = g.fitted_g if isinstance(g, AshResult) else g
    settings = _Settings(
        alpha, prior, nullweight, pointmass, mixsd, gridmult, mixture, fixg, pi_thresh, optmethod,
        control,
    )  # fmt: skip
    return _shrink(betahat, sebetahat, settings, weights)[0]


@dataclass(frozen=True, slots=True)
class _Settings:
    """The options of one fit, as `ash` documents them."""

    alpha: float
    prior: str | ArrayLike
    nullweight: float
    pointmass: bool
    mixsd: ArrayLike | None
    gridmult: float
    mixture: NormalMixture | None
    fixg: bool
    pi_thresh: float
    optmethod: str
    control: Mapping[str, Any] | None


def _shrink(
    betahat: ArrayLike,
    sebetahat: ArrayLike,
    settings: _Settings,
    weights: ArrayLike | None = None,
    where: str = "",
) -> tuple[AshResult, Array]:
    """Return the fit and the log-likelihoods of the effects; ``where`` names the condition."""
    rows = _standardised(betahat, sebetahat, settings.alpha, where)
    use, mixture = rows.use, settings.mixture
    sd = _grid(rows, settings, where) if mixture is None else mixture.sd
    fit = None
    if settings.fixg and mixture is not None:
        pi = mixture.pi
    else:
        counts = _counts(settings.prior, settings.nullweight, sd)
        fit = _fit(rows, sd, _row_weights(weights, use), counts, settings, where)
        pi = fit.pi
    summaries = _posterior(rows, pi, sd, settings.pi_thresh)
    vloglik = summaries.pop("vloglik")
    result = AshResult(
        **summaries,
        svalue=running_mean(summaries["lfsr"]),
        qvalue=running_mean(summaries["lfdr"]),
        loglik=sum_in_order(vloglik),
        fitted_g=NormalMixture(pi, sd),
        optim=_describe(fit),
    )
    return result, vloglik


@dataclass(frozen=True, slots=True)
class _Rows:
    """Effects and errors on the exchangeable scale, what maps them back, and which count."""

    x: Array
    s: Array
    scale: Array
    use: NDArray[np.bool_]


def _standardised(betahat: ArrayLike, sebetahat: ArrayLike, alpha: float, where: str) -> _Rows:
    effects = np.asarray(betahat, dtype=np.float64)
    if effects.ndim != 1 or effects.size == 0:
        raise ShapeError(f"betahat must be one-dimensional and not empty, not {effects.shape}.")
    errors = np.asarray(sebetahat, dtype=np.float64)
    if errors.ndim > 0 and errors.shape != effects.shape:
        raise ShapeError(
            f"sebetahat must have the dimensions {effects.shape} of betahat, not {errors.shape}."
        )
    errors = np.broadcast_to(errors, effects.shape)
    if np.isinf(effects).any():
        j = int(np.argmax(np.isinf(effects)))
        raise InputError(f"betahat is Inf at row {j}{where}; a missing effect is NaN.")
    if np.any(errors < 0):
        j = int(np.argmax(errors < 0))
        raise InputError(f"sebetahat is negative ({errors[j]:g}) at row {j}{where}.")
    use = np.isfinite(effects) & np.isfinite(errors) & (errors > 0)
    safe = np.where(use, errors, 1.0)
    scale = safe**alpha
    return _Rows(np.where(use, effects, 0.0) / scale, safe ** (1 - alpha), scale, use)


def _row_weights(weights: ArrayLike | None, use: NDArray[np.bool_]) -> Array | None:
    if weights is None:
        return None
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != use.shape:
        raise ShapeError(f"weights has the wrong length: {values.shape}, expected {use.shape}.")
    if not np.isfinite(values).all() or np.any(values <= 0):
        raise OptionError("weights must be positive and finite.")
    return values[use]


def _grid(rows: _Rows, settings: _Settings, where: str) -> Array:
    """Return the standard deviations of the mixture, zero first with ``pointmass``."""
    if settings.mixsd is not None:
        values: Array = np.array(settings.mixsd, dtype=np.float64)
        if values.ndim != 1 or values.size == 0:
            raise ShapeError(f"mixsd must be one-dimensional and not empty, not {values.shape}.")
        if not np.isfinite(values).all() or np.any(values < 0):
            raise OptionError("mixsd must be finite and not negative.")
    else:
        if not rows.use.any():
            raise InputError(
                f"no effect{where} has both a value and a positive standard error: there is "
                "nothing to learn a prior from."
            )
        values = grid_of(rows.x[rows.use], rows.s[rows.use], settings.gridmult)
    if settings.pointmass and not np.any(values == 0):
        values = np.concatenate([[0.0], values])
    return values


def _log_densities(x: Array, s: Array, sd: Array) -> Array:
    """Return the (G, n) log-densities of effects under ``N(0, s^2 + sd_k^2)``."""
    variance = s**2 + sd[:, None] ** 2
    result: Array = -_HALF_LOG_2PI - 0.5 * (np.log(variance) + x**2 / variance)
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
    if not np.isfinite(parameters).all() or np.any(parameters < 1):
        raise OptionError("prior parameters must be finite and at least 1.")
    return parameters - 1


def _fit(
    rows: _Rows,
    sd: Array,
    weights: Array | None,
    counts: Array,
    settings: _Settings,
    where: str,
) -> WeightFit:
    x, s = rows.x[rows.use], rows.s[rows.use]
    relative = np.empty((len(sd), len(x)))

    def one(grain: Grain) -> None:
        log_density = _log_densities(x[grain.rows], s[grain.rows], sd)
        log_density -= log_density.max(axis=0)
        np.exp(log_density, out=relative[:, grain.rows])

    for _ in map_grains(one, 0, len(x)):
        pass
    with single_threaded_blas():
        fit = fit_mixture_weights(
            DenseLikelihoods(relative), weights, counts,
            method=settings.optmethod, control=settings.control,
        )  # fmt: skip
    if not fit.converged:
        warnings.warn(
            f"the mixture weights{where} ({fit.method}) are not optimal: dual gap "
            f"{fit.dual_gap:.2g} after {fit.iterations} iterations ({len(sd)} components, "
            f"{len(x)} effects).",
            ConvergenceWarning,
            stacklevel=4,
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


def _posterior(rows: _Rows, pi: Array, sd: Array, pi_thresh: float) -> dict[str, Array]:
    """Return the posterior summaries and log-likelihoods of all effects, grain by grain."""
    support = pi > 0
    pi, sd = pi[support], sd[support]
    keep = pi > pi_thresh
    if not keep.any():
        keep[int(np.argmax(pi))] = True
    out: dict[str, Array] = {}

    def one(grain: Grain) -> dict[str, Array]:
        part = grain.rows
        x, s, use = rows.x[part], rows.s[part], rows.use[part]
        # Without data every component keeps its prior weight, mean 0 and prior variance.
        log_density = np.where(use, _log_densities(x, s, sd), 0.0)
        largest = log_density.max(axis=0)
        joint = np.exp(log_density - largest) * pi[:, None]
        found = _summaries(x, s, use, log_density[keep], pi[keep], sd[keep])
        found["posterior_mean"] *= rows.scale[part]
        found["posterior_sd"] *= rows.scale[part]
        loglik = np.log(joint.sum(axis=0)) + largest - np.log(rows.scale[part])
        found["vloglik"] = np.where(use, loglik, 0.0)
        return found

    parts = map_grains(one, 0, len(rows.x))
    for grain, found in zip(grains(0, len(rows.x)), parts, strict=True):
        for name, values in found.items():
            out.setdefault(name, np.empty(len(rows.x)))[grain.rows] = values
    return out


def _summaries(
    x: Array, s: Array, use: NDArray[np.bool_], log_density: Array, pi: Array, sd: Array
) -> dict[str, Array]:
    """Return the posterior summaries of a grain on the exchangeable scale."""
    w = np.exp(log_density - log_density.max(axis=0)) * pi[:, None]
    w /= w.sum(axis=0)
    prior_variance = sd[:, None] ** 2
    shrink = np.where(use, prior_variance / (s**2 + prior_variance), 0.0)
    m = shrink * x
    v = np.where(use, shrink * s**2, prior_variance)
    mean = (w * m).sum(axis=0)
    variance = (w * ((m - mean) ** 2 + v)).sum(axis=0)
    alive = sd > 0
    z = m[alive] / np.sqrt(v[alive])
    # Both tails are summed: 1 - negative would round the rate of a strong effect to zero.
    negative = (w[alive] * ndtr(-z)).sum(axis=0)
    positive = (w[alive] * ndtr(z)).sum(axis=0)
    zero = w[~alive].sum(axis=0)
    return {
        "posterior_mean": mean,
        "posterior_sd": np.sqrt(variance),
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


_NOTHING = NormalMixture(np.ones(1), np.zeros(1))
"""The prior of a condition in which nothing was measured."""


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
        On the scale of the effects that were given. ``fitted_g`` is a list with the weights
        ``pi`` and standard deviations ``sd`` of each condition's mixture; ``vloglik`` sums the
        conditions. Missing cells have the prior as their posterior; with ``missing="exact"`` they
        are left out of the fit, else they take part with the standard error that stands for them.
        A condition in which no effect was measured has effects of zero and an lfsr of 1.

    Raises
    ------
    InputError
        No condition has a measured effect.
    """
    started = time.perf_counter()
    settings = _Settings(
        alpha, prior, nullweight, pointmass, mixsd, gridmult, None, False, 1e-10, optmethod, control
    )
    observed = data.observed(slice(None))
    if observed is not None and not observed.any():
        raise InputError("no effect was measured in any condition: there is nothing to screen.")
    names = data.condition_names or tuple(str(r + 1) for r in range(data.n_conditions))
    fits, vloglik = [], -np.log(data.Shat_alpha).sum(axis=1)
    for r, name in enumerate(names):
        errors = data.Shat[:, r]
        if observed is not None:
            errors = np.where(observed[:, r], errors, np.inf)
        chosen = settings
        if observed is not None and not observed[:, r].any():
            chosen = replace(settings, mixture=_NOTHING, fixg=True)
        fit, part = _shrink(data.Bhat[:, r], errors, chosen, where=f" of condition {name!r}")
        fits.append(fit)
        vloglik += part

    def stack(name: str) -> Array:
        return np.column_stack([getattr(fit, name) for fit in fits])

    seconds = time.perf_counter() - started
    zero = stack("lfdr")
    return MashResult(
        posterior_mean=stack("posterior_mean") * data.Shat_alpha,
        posterior_sd=stack("posterior_sd") * data.Shat_alpha,
        lfsr=stack("lfsr"),
        lfdr=zero,
        negative_prob=stack("negative_prob"),
        zero_prob=zero,
        loglik=sum_in_order(vloglik),
        vloglik=vloglik,
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
            "niter": max(fit.optim["niter"] for fit in fits),
            "converged": all(fit.optim["converged"] for fit in fits),
            "dual_gap": max(fit.optim.get("dual_gap", 0.0) for fit in fits),
            "objective": sum(fit.optim.get("objective", 0.0) for fit in fits),
            "seconds": seconds,
        },
        provenance=Provenance("mash_1by1", options={"alpha": alpha}, seconds=seconds),
    )
