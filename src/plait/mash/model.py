"""Multivariate adaptive shrinkage.

For effect j, ``bhat_j | b_j ~ N(b_j, Sigma_j)`` and ``b_j ~ sum_p pi_p N(0, omega_g^2 U_k)``
(Urbut, Wang, Carbonetto and Stephens 2019, Nature Genetics 51:187, eq. 1-3). Fitting estimates
``pi`` by penalised maximum likelihood; the posterior of b_j is a mixture of normals.
"""

import time
import warnings
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import ConvergenceWarning, InputError, ModelWarning, OptionError, ShapeError
from plait.execution.grains import sum_in_order
from plait.execution.threads import single_threaded_blas, use_threads
from plait.mash.covariances import check_Ulist, normalize_cov
from plait.mash.data import MashData, part_of
from plait.mash.grid import autoselect_grid
from plait.mash.likelihoods import Components, ErrorModel, RelativeLikelihoods, calc_lik_matrix
from plait.mash.posterior import Request, apply_mixture
from plait.mash.results import (
    FittedG,
    MashResult,
    PosteriorMatrices,
    as_components,
    check_prior_width,
)
from plait.numerics.mixture_weights import WeightFit, fit_mixture_weights
from plait.provenance import Provenance

Array = NDArray[np.float64]
Value = TypeVar("Value")


class _NotGiven:
    """Marks an argument that was left at its default, where it matters whether it was."""

    def __repr__(self) -> str:
        return "<default>"


_DEFAULT: Any = _NotGiven()


def _or(value: Any, default: Value) -> Value:
    chosen: Value = default if isinstance(value, _NotGiven) else value
    return chosen


def mash(
    data: MashData,
    Ulist: Any = None,
    gridmult: float = float(np.sqrt(2.0)),
    grid: ArrayLike | None = None,
    normalizeU: bool = _DEFAULT,
    usepointmass: bool = _DEFAULT,
    g: MashResult | FittedG | None = None,
    fixg: bool = False,
    prior: str | ArrayLike = _DEFAULT,
    nullweight: float = 10,
    optmethod: str = _DEFAULT,
    control: Mapping[str, Any] | None = None,
    pi_thresh: float = 1e-10,
    A: ArrayLike | None = None,
    posterior_samples: int = 0,
    seed: int = 123,
    outputlevel: int = 2,
    output_lfdr: bool = False,
    chunk_size: int | None = 250_000,
    n_jobs: int | None = None,
    verbose: bool = False,
    weights: ArrayLike | None = None,
    device: str = "cpu",
) -> MashResult:
    """Fit mash and compute the posterior of every effect.

    Parameters
    ----------
    data : MashData
        From `mash_set_data`.
    Ulist : dict or list of (R, R) arrays
        Covariance matrices that describe how effects may be shared, see `cov_canonical`.
    gridmult : float
        Ratio of neighbouring values of the automatic grid.
    grid : (G,) array, optional
        Prior standard deviations that multiply every matrix. Default `autoselect_grid`.
    normalizeU : bool
        Scale every matrix to a largest variance of 1 (default True).
    usepointmass : bool
        Include a null component (default True).
    g : MashResult or FittedG, optional
        A fitted prior: its matrices and grid are used, and with ``fixg`` its weights too.
    fixg : bool
        Keep the weights of ``g``.
    prior : {"nullbiased", "uniform"} or (P,) array
        Dirichlet parameters (at least 1) of the weights; "nullbiased" (default) gives the null
        ``nullweight``.
    nullweight : float
        At least 1.
    optmethod : str
        "mixsqp" (default, certified), "em", "squarem", "mixip", "slsqp" or "auto".
    control : mapping, optional
        Settings of the optimiser.
    pi_thresh : float
        Components with a smaller weight do not enter the posterior.
    A : (Q, R) array, optional
        Report the posterior of ``A b`` instead of b.
    posterior_samples : int
        Number of draws per effect.
    seed : int
        Of the draws and of the choice of training effects.
    outputlevel : {1, 2, 3, 4}
        1 weights and log-likelihoods; 2 adds posterior mean, sd, lfsr; 3 posterior covariances; 4
        the likelihood matrix.
    output_lfdr : bool
        Report the local false discovery rate too.
    chunk_size : int or None
        Above this many effects the weights are fitted on a weighted subset of that size, see
        `mash_train_apply`. None or 0 always fits on all effects.
    n_jobs : int, optional
        Threads. Default all cores. Does not change the result.
    verbose : bool
        Print a line per stage.
    weights : (J,) array, optional
        Positive weights of the effects in the fit.
    device : {"cpu", "cuda", "auto"}
        Where likelihoods and posteriors are computed. A GPU (through PyTorch) serves effects that
        share one error covariance, up to outputlevel 2, and agrees to rounding; "auto" takes it
        where there is one and it can.

    Returns
    -------
    MashResult

    Raises
    ------
    InputError
        Arguments conflict or are out of range; the message says what to do.

    Notes
    -----
    With K matrices of rank r and G grid values the fit costs about ``2 J K r (R + G)`` flops for
    the likelihoods where all effects share one error covariance, and ``30 J K G`` for the weights.
    """
    started = time.perf_counter()
    if not isinstance(data, MashData):
        raise InputError("data must come from mash_set_data().")
    _check_options(outputlevel, posterior_samples, pi_thresh, chunk_size)
    if g is None:
        components = _new_components(data, Ulist, grid, gridmult, normalizeU, usepointmass)
    else:
        _refuse_with_g(Ulist, grid, normalizeU, usepointmass)
        components = as_components(g, data.alpha)[1]
        check_prior_width(as_components(g, data.alpha)[0], data.n_conditions)
    if fixg:
        _refuse_with_fixg(g, prior, optmethod)
    with use_threads(n_jobs):
        if _must_split(data, chunk_size, fixg, outputlevel, posterior_samples):
            return _fit_in_two_stages(
                data,
                components,
                chunk_size,
                seed,
                outputlevel,
                A,
                output_lfdr,
                pi_thresh,
                {
                    "prior": _or(prior, "nullbiased"),
                    "nullweight": nullweight,
                    "control": control,
                    "optmethod": _or(optmethod, "mixsqp"),
                    "device": device,
                },
                weights,
            )
        fit = None
        if fixg and g is not None:
            pi = as_components(g, data.alpha)[0].pi
        else:
            fit = _fit_weights(
                data,
                components,
                _or(prior, "nullbiased"),
                nullweight,
                _or(optmethod, "mixsqp"),
                control,
                weights,
                device,
            )
            pi = fit.pi
        _say(verbose, started, f"weights of {components.size} components")
        result = assemble(
            data,
            components,
            pi,
            fit,
            started=started,
            A=A,
            posterior_samples=posterior_samples,
            seed=seed,
            outputlevel=outputlevel,
            output_lfdr=output_lfdr,
            pi_thresh=pi_thresh,
            device=device,
        )
    _say(verbose, started, "posterior")
    return result


def _say(verbose: bool, started: float, what: str) -> None:
    if verbose:
        print(f"mash: {what} done after {time.perf_counter() - started:.2f} s")


def _check_options(
    outputlevel: int, samples: int, pi_thresh: float, chunk_size: int | None
) -> None:
    if outputlevel not in (1, 2, 3, 4):
        raise OptionError(f"outputlevel is {outputlevel}; choose 1, 2, 3 or 4.")
    if samples < 0:
        raise OptionError(f"posterior_samples is {samples}; it cannot be negative.")
    if not 0 <= pi_thresh < 1:
        raise OptionError(f"pi_thresh is {pi_thresh:g}; it must be in [0, 1).")
    if chunk_size is not None and chunk_size < 0:
        raise OptionError(f"chunk_size is {chunk_size}; give None or 0 to fit on all effects.")


def _new_components(
    data: MashData, Ulist: Any, grid: Any, gridmult: float, normalizeU: Any, usepointmass: Any
) -> Components:
    if Ulist is None:
        raise OptionError("you must supply Ulist (see cov_canonical) or a fitted prior g.")
    matrices = check_Ulist(Ulist, data.n_conditions)
    if _or(normalizeU, True):
        matrices = {name: normalize_cov(U) for name, U in matrices.items()}
    if grid is None:
        values = autoselect_grid(data, gridmult)
    else:
        values = np.array(grid, dtype=np.float64)
        if values.ndim != 1 or values.size == 0:
            raise ShapeError(f"grid must be one-dimensional and not empty, not {values.shape}.")
        if not np.isfinite(values).all() or np.any(values < 0):
            raise OptionError("grid values must be finite and not negative.")
    return Components(matrices, values, bool(_or(usepointmass, True)))


def _refuse_with_g(Ulist: Any, grid: Any, normalizeU: Any, usepointmass: Any) -> None:
    for name, given in (
        ("Ulist", Ulist is not None),
        ("grid", grid is not None),
        ("normalizeU", not isinstance(normalizeU, _NotGiven)),
        ("usepointmass", not isinstance(usepointmass, _NotGiven)),
    ):
        if given:
            raise OptionError(f"cannot supply both g and {name}: g brings its own.")


def _refuse_with_fixg(g: Any, prior: Any, optmethod: Any) -> None:
    if g is None:
        raise OptionError("cannot fix g without a g: give the fitted prior to keep.")
    for name, value in (("prior", prior), ("optmethod", optmethod)):
        if not isinstance(value, _NotGiven):
            raise OptionError(f"cannot supply both fixg and {name}: nothing is fitted.")


def _must_split(
    data: MashData, chunk_size: int | None, fixg: bool, outputlevel: int, samples: int
) -> bool:
    large = bool(chunk_size) and data.n_effects > int(chunk_size or 0)
    return large and not fixg and outputlevel <= 2 and samples == 0


def pseudo_counts(components: Components, prior: str | ArrayLike, nullweight: float) -> Array:
    """Return the prior's Dirichlet parameters less one."""
    size = components.size
    if isinstance(prior, str):
        if prior not in ("nullbiased", "uniform"):
            raise OptionError(
                f"prior is {prior!r}; choose 'nullbiased', 'uniform' or give numbers."
            )
        counts = np.zeros(size)
        if prior == "nullbiased":
            if nullweight < 1:
                raise OptionError(f"nullweight is {nullweight:g}; it must be at least 1.")
            counts[0] = nullweight - 1
            if not components.usepointmass and nullweight > 1:
                warnings.warn(
                    "without a point mass the null-biased prior favours the first covariance at "
                    'the smallest grid value (as in R); prior="uniform" favours none.',
                    ModelWarning,
                    stacklevel=4,
                )
        return counts
    parameters = np.asarray(prior, dtype=np.float64)
    if parameters.shape != (size,):
        raise OptionError(f"prior has the wrong length: {parameters.shape}, expected ({size},).")
    if not np.isfinite(parameters).all() or np.any(parameters < 1):
        raise OptionError("prior parameters must be finite and at least 1.")
    return parameters - 1


def _fit_weights(
    data: MashData,
    components: Components,
    prior: str | ArrayLike,
    nullweight: float,
    method: str,
    control: Mapping[str, Any] | None,
    weights: ArrayLike | None,
    device: str,
) -> WeightFit:
    counts = pseudo_counts(components, prior, nullweight)
    if weights is not None:
        row_weights = np.asarray(weights, dtype=np.float64)
        if row_weights.shape != (data.n_effects,):
            raise OptionError(
                f"weights has the wrong length: {row_weights.shape}, expected ({data.n_effects},)."
            )
        if not np.isfinite(row_weights).all() or np.any(row_weights <= 0):
            raise OptionError("weights must be positive and finite.")
    likelihoods = RelativeLikelihoods(ErrorModel(data, components, device))
    with single_threaded_blas():
        fit = fit_mixture_weights(likelihoods, weights, counts, method=method, control=control)
    if not fit.converged:
        warnings.warn(
            f"the mixture weights ({method}) are not optimal: dual gap {fit.dual_gap:.2g} after "
            f"{fit.iterations} iterations ({components.size} components, "
            f"{data.n_effects} effects).",
            ConvergenceWarning,
            stacklevel=3,
        )
    return fit


def assemble(
    data: MashData,
    components: Components,
    pi: Array,
    fit: WeightFit | None,
    *,
    started: float,
    A: ArrayLike | None,
    posterior_samples: int = 0,
    seed: int,
    outputlevel: int,
    output_lfdr: bool,
    pi_thresh: float,
    device: str = "cpu",
) -> MashResult:
    """Compute the outputs of a fitted (or fixed) mixture and wrap them."""
    request = Request(
        A=None if A is None else np.asarray(A, dtype=np.float64),
        posterior=outputlevel >= 2,
        covariance=outputlevel >= 3,
        samples=posterior_samples,
        seed=seed,
        pi_thresh=pi_thresh,
        weights=True,
        device=device,
    )
    parts = apply_mixture(data, components, pi, request)
    kept = np.flatnonzero(pi > pi_thresh)
    lik_matrix = None
    if outputlevel >= 4:
        lik_matrix = calc_lik_matrix(data, components, log=True)  # type: ignore[arg-type]
        lik_matrix -= lik_matrix.max(axis=1, keepdims=True)
    prior = FittedG(
        pi,
        components.covariances,
        components.grid,
        components.usepointmass,
        data.alpha,
        data.V if data.common_V else None,
    )
    seconds = time.perf_counter() - started
    optim = {"method": "fixed", "niter": 0, "converged": True, "seconds": seconds}
    if fit is not None:
        optim = {
            "method": fit.method,
            "niter": fit.iterations,
            "converged": fit.converged,
            "dual_gap": fit.dual_gap,
            "objective": fit.objective,
            "seconds": fit.seconds,
        }
    zero = parts.get("zero_prob")
    return MashResult(
        posterior_mean=parts.get("posterior_mean"),
        posterior_sd=parts.get("posterior_sd"),
        lfsr=parts.get("lfsr"),
        lfdr=zero if output_lfdr else None,
        negative_prob=parts.get("negative_prob"),
        zero_prob=zero,
        loglik=sum_in_order(parts["vloglik"]),
        vloglik=parts["vloglik"],
        null_loglik=parts.get("null_loglik"),
        alt_loglik=parts.get("alt_loglik"),
        fitted_g=prior,
        posterior_weights=parts["posterior_weights"],
        component_index=kept if len(kept) else np.array([int(np.argmax(pi))]),
        alpha=data.alpha,
        posterior_cov=parts.get("posterior_cov"),
        posterior_samples=parts.get("posterior_samples"),
        lik_matrix=lik_matrix,
        condition_names=output_names(data, A),
        effect_names=data.effect_names,
        optim=optim,
        provenance=Provenance(
            "mash",
            options={
                "alpha": data.alpha,
                "outputlevel": outputlevel,
                "pi_thresh": pi_thresh,
                "missing": data.missing,
                "components": components.size,
            },
            seed=seed,
            seconds=seconds,
        ),
    )


def output_names(data: MashData, A: ArrayLike | None) -> tuple[str, ...] | None:
    """Return the names of the output coordinates, where they are known."""
    if A is not None:
        return None
    names = data.condition_names
    if data.L is None or data.reference != "mean" or names is None:
        return names
    # All R deviations are reported, the last one too.
    last = data.V.shape[-1]
    original = data.original_names
    return (*names, f"{original[-1] if original else last}-mean")


def _fit_in_two_stages(
    data: MashData,
    components: Components,
    chunk_size: int | None,
    seed: int,
    outputlevel: int,
    A: ArrayLike | None,
    output_lfdr: bool,
    pi_thresh: float,
    fit_options: dict[str, Any],
    weights: ArrayLike | None,
) -> MashResult:
    """Fit the weights on a subset weighted by inverse inclusion, then apply them to everything."""
    from plait.mash.selection import select_effects

    started = time.perf_counter()
    n_train = int(chunk_size or data.n_effects)
    chosen = select_effects(data, n_train, method="topz_random", seed=seed)
    row_weights = chosen.inclusion_weights()
    if weights is not None:
        row_weights = row_weights * np.asarray(weights, dtype=np.float64)[chosen.rows]
    fit = _fit_weights(
        part_of(data, chosen.rows),
        components,
        fit_options["prior"],
        fit_options["nullweight"],
        fit_options["optmethod"],
        fit_options["control"],
        row_weights,
        fit_options["device"],
    )
    return assemble(
        data,
        components,
        fit.pi,
        fit,
        started=started,
        A=A,
        seed=seed,
        outputlevel=outputlevel,
        output_lfdr=output_lfdr,
        pi_thresh=pi_thresh,
        device=fit_options["device"],
    )


def mash_compute_posterior_matrices(
    g: MashResult | FittedG,
    data: MashData,
    pi_thresh: float = 1e-10,
    A: ArrayLike | None = None,
    output_posterior_cov: bool = False,
    posterior_samples: int = 0,
    seed: int = 123,
    chunk_size: int = 250_000,
) -> PosteriorMatrices:
    """Compute posterior summaries of data under a fitted prior.

    Parameters
    ----------
    g : MashResult or FittedG
    data : MashData
        Possibly other effects than the prior was fitted on, with the same alpha and conditions.
    pi_thresh, A, posterior_samples, seed
        As in `mash`.
    output_posterior_cov : bool
        Return the (J, Q, Q) posterior covariances.
    chunk_size : int
        Accepted for the users of the original; memory does not depend on it.

    Raises
    ------
    OptionError
        The prior was fitted with another alpha or another number of conditions.
    """
    prior, components = as_components(g, data.alpha)
    check_prior_width(prior, data.n_conditions)
    request = Request(
        A=None if A is None else np.asarray(A, dtype=np.float64),
        covariance=output_posterior_cov,
        samples=posterior_samples,
        seed=seed,
        pi_thresh=pi_thresh,
    )
    parts = apply_mixture(data, components, prior.pi, request)
    return PosteriorMatrices(
        posterior_mean=parts["posterior_mean"],
        posterior_sd=parts["posterior_sd"],
        negative_prob=parts["negative_prob"],
        zero_prob=parts["zero_prob"],
        lfsr=parts["lfsr"],
        lfdr=parts["zero_prob"],
        posterior_cov=parts.get("posterior_cov"),
        posterior_samples=parts.get("posterior_samples"),
    )


def mash_compute_vloglik(g: MashResult | FittedG, data: MashData) -> Array:
    """Return the (J,) log-likelihoods of effects under a fitted prior, on their own scale."""
    prior, components = as_components(g, data.alpha)
    check_prior_width(prior, data.n_conditions)
    parts = apply_mixture(data, components, prior.pi, Request(posterior=False), label=None)
    return parts["vloglik"]


def mash_compute_loglik(g: MashResult | FittedG, data: MashData) -> float:
    """Return the log-likelihood of data under a fitted prior."""
    return sum_in_order(mash_compute_vloglik(g, data))
