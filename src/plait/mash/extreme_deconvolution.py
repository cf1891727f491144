"""Extreme deconvolution: data-driven covariance matrices from noisy effects.

Bovy, Hogg and Roweis (2011), "Extreme deconvolution: inferring complete distribution functions from
noisy, heterogeneous and incomplete observations", Annals of Applied Statistics 5, 1657-1677.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import InputError, OptionError, ShapeError
from plait.mash.covariances import Covariances, check_Ulist, take_effects
from plait.mash.data import MashData
from plait.mash.deconvolution_iteration import (
    UNBOUNDED,
    Control,
    Progress,
    Restrictions,
    iterate,
)
from plait.mash.deconvolution_rows import (
    CommonErrors,
    ProjectedRows,
    RowErrors,
    RowInputs,
    rows_of,
)
from plait.mash.deconvolution_statistics import Mixture, Rows, expectation, naming_rows
from plait.mash.stored import StoredData
from plait.mash.truncated_em import teem

Array = NDArray[np.float64]

_TEEM_OPTIONS = ("w_init", "converge_tol", "eigen_tol", "whiten")
_TEEM_MAXITER = 5000


def cov_ed(
    data: MashData | StoredData,
    Ulist_init: Mapping[str, ArrayLike] | Iterable[ArrayLike],
    subset: Any = None,
    algorithm: str = "bovy",
    tol: float = 1e-6,
    maxiter: int = UNBOUNDED,
    w: float = 0.0,
    ridge: float | str = "auto",
    accelerate: bool = False,
    details: bool = False,
    max_seconds: float | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
    **teem_options: Any,
) -> Any:
    """Refine covariance matrices by extreme deconvolution of (strong) effects.

    Fits ``bhat_j ~ sum_k pi_k N(0, U_k + Sigma_j)`` by maximum likelihood, starting from equal
    weights and the given matrices. The rank of each matrix stays that of its start.

    Parameters
    ----------
    data : MashData or StoredData
        Of data in a store, the subset is read into memory.
        Effects on the scale of the data object (alpha-scaled, with its contrast if it has one).
        Missing cells under ``missing="exact"`` are marginalised.
    Ulist_init : dict or list of (R, R) arrays
        Starting values, normally from `cov_pca`. Rank-deficient ones are allowed.
    subset : integer or bool array, optional
        The effects to learn from, normally the strong ones. Default all.
    algorithm : {"bovy", "teem"}
        Extreme deconvolution, or truncated-eigenvalue EM (see `teem`).
    tol : float
        Stop when the average log-likelihood gains at most this in an iteration. Zero or less runs
        exactly ``maxiter`` iterations.
    maxiter : int
        Largest number of iterations (1e9; 5000 with "teem").
    w : float
        Strength of the conjugate prior that draws each matrix to ``w I``; 0 is maximum likelihood.
    ridge : float or "auto"
        Added to the diagonal at the end. "auto" is ``1 / sqrt(number of effects)`` with "bovy"
        (against over-confident signs from matrices of low rank) and nothing with "teem".
    accelerate : bool
        Take SQUAREM steps; reaches the optimum in fewer iterations by another path.
    details : bool
        Return the whole fit.
    max_seconds : float, optional
        Stop after the iteration that passes this time.
    progress : callable, optional
        Called as ``progress(iteration, average_log_likelihood)`` after each iteration.
    threads : int, optional
        See `plait.execution.threads.resolve_threads`. Never changes the numbers.
    **teem_options
        ``w_init``, ``converge_tol``, ``eigen_tol`` and ``whiten`` of `teem`.

    Returns
    -------
    dict of str to (R, R) array
        ``ED_<name>``, or ``ED_1``, ``ED_2``, ... for a list. With ``details``: a dict of ``pi``
        (K,), ``Ulist``, ``av_loglik`` (at the parameters entering the last iteration, before the
        ridge), ``objective`` (its path), ``niter`` (expectation steps) and ``converged``. With
        "teem" ``objective`` is the path of the log-likelihood after each iteration, and ``maxd``
        is added.

    Raises
    ------
    NotPositiveDefiniteError
        A starting matrix is indefinite, or ``U_k + Sigma_j`` is singular for the effect named.
    OptionError
        An option is unknown or out of range.

    Notes
    -----
    Cost per iteration: 4 J K R^2 flops when the effects share their error covariance up to a
    factor, else up to 4 J K R^3 / 3. Memory: a few K x R x 1024 arrays per thread.
    """
    rows, chosen = take_effects(data, subset)
    starts = _named_starts(Ulist_init, data.n_conditions)
    lift = _ridge(ridge, algorithm, len(rows))
    if algorithm == "teem":
        _check_teem_options(teem_options, tol, w, accelerate)
        limit = _TEEM_MAXITER if maxiter == UNBOUNDED else maxiter
        with naming_rows(rows):
            result = teem(
                chosen,
                starts,
                maxiter=limit,
                details=True,
                max_seconds=max_seconds,
                progress=progress,
                threads=threads,
                **teem_options,
            )
        result["pi"] = result.pop("w")
        result["av_loglik"] = float(result["objective"][-1]) / len(rows)
    elif algorithm == "bovy":
        if teem_options:
            raise OptionError(
                f"cov_ed has no option {', '.join(teem_options)} with algorithm 'bovy'."
            )
        control = Control(tol, maxiter, accelerate, max_seconds, progress, threads)
        with naming_rows(rows):
            result = _bovy(chosen, starts, _prior_weight(w), control)
    else:
        raise OptionError(f"algorithm is {algorithm!r}; choose 'bovy' or 'teem'.")
    result["Ulist"] = {
        f"ED_{name}": U + lift * np.eye(len(U)) if lift else U
        for name, U in zip(starts, result["Ulist"].values(), strict=True)
    }
    return result if details else result["Ulist"]


def _bovy(data: MashData, starts: Covariances, w: float, control: Control) -> dict[str, Any]:
    count, width = len(starts), data.n_conditions
    start = Mixture(
        np.full(count, 1.0 / count), np.zeros((count, width)), np.stack(list(starts.values()))
    )
    fit = iterate(rows_of(data), start, Restrictions.zero_means(count, w), control)
    return {
        "pi": fit.mixture.weights,
        "Ulist": dict(zip(starts, fit.mixture.covariances, strict=True)),
        "av_loglik": float(fit.path[-1]),
        "objective": fit.path,
        "niter": fit.steps,
        "converged": fit.converged,
    }


def _named_starts(Ulist: Any, width: int) -> Covariances:
    if not isinstance(Ulist, Mapping) and not (isinstance(Ulist, np.ndarray) and Ulist.ndim == 2):
        Ulist = {str(i + 1): U for i, U in enumerate(Ulist)}
    return check_Ulist(Ulist, width)


def _ridge(ridge: float | str, algorithm: str, n_rows: int) -> float:
    if isinstance(ridge, str):
        if ridge != "auto":
            raise OptionError(f"ridge is {ridge!r}; give a number or 'auto'.")
        return 0.0 if algorithm == "teem" else 1.0 / float(np.sqrt(n_rows))
    if not np.isfinite(ridge):
        raise OptionError(f"ridge is {ridge}; give a finite number or 'auto'.")
    return float(ridge)


def _prior_weight(w: float) -> float:
    if not (np.isfinite(w) and w >= 0):
        raise OptionError(f"w is {w}; it must be zero or positive.")
    return float(w)


def _check_teem_options(options: Mapping[str, Any], tol: float, w: float, accelerate: bool) -> None:
    unknown = sorted(set(options) - set(_TEEM_OPTIONS))
    if unknown:
        raise OptionError(
            f"cov_ed has no option {', '.join(unknown)}; with algorithm 'teem' it takes "
            f"{', '.join(_TEEM_OPTIONS)}."
        )
    if w != 0 or accelerate or tol != 1e-6:
        raise OptionError(
            "w, accelerate and tol belong to algorithm 'bovy'; 'teem' takes converge_tol."
        )


@dataclass(frozen=True, eq=False)
class ExtremeDeconvolution:
    """A mixture fitted by `extreme_deconvolution` (R's names).

    Attributes
    ----------
    xamp, xmean, xcovar : (K,), (K, R) and (K, R, R) arrays
    avgloglikedata : float
        Average log-likelihood at the parameters entering the last iteration.
    objective : (iterations,) array
        Its path.
    niter : int
        Number of expectation steps; with ``accelerate`` more than the length of the path.
    converged : bool
    """

    xamp: Array
    xmean: Array
    xcovar: Array
    avgloglikedata: float
    objective: Array
    niter: int
    converged: bool


def extreme_deconvolution(
    ydata: ArrayLike,
    ycovar: Any,
    xamp: ArrayLike,
    xmean: ArrayLike,
    xcovar: Any,
    projection: Any = None,
    weight: ArrayLike | None = None,
    fixamp: Any = None,
    fixmean: Any = None,
    fixcovar: Any = None,
    tol: float = 1e-6,
    maxiter: int = UNBOUNDED,
    w: float = 0.0,
    likeonly: bool = False,
    logweight: bool = False,
    splitnmerge: int = 0,
    maxsnm: bool = False,
    accelerate: bool = False,
    max_seconds: float | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
) -> Any:
    """Fit a mixture of Gaussians to noisy, projected and weighted data.

    The model is ``y_j ~ sum_k alpha_k N(R_j m_k, R_j V_k R_j^T + S_j)``.

    Parameters
    ----------
    ydata : (J, S) array
        Data; a vector is one column.
    ycovar : (J, S) or (J, S, S) array, or sequence of (S, S) arrays
        Error variances, or error covariances ((S, S, J) is understood as well).
    xamp, xmean, xcovar : (K,), (K, R) and (K, R, R) arrays
        Starting weights, means and covariances. R equals S without projections.
    projection : (J, S, R) array or sequence of (S, R) arrays, optional
        ``R_j``.
    weight : (J,) array, optional
        Weights of the rows; logarithms of them with ``logweight``.
    fixamp, fixmean, fixcovar : bool or (K,) array of bool, optional
        What stays at its start. Free weights share ``1 - sum(fixed)``.
    tol, maxiter, w, accelerate, max_seconds, progress, threads
        As in `cov_ed`.
    likeonly : bool
        Return the average log-likelihood of the start.
    splitnmerge, maxsnm
        Not available.

    Returns
    -------
    ExtremeDeconvolution, or float with ``likeonly``

    Raises
    ------
    InputError
        Shapes do not agree, values are not finite, or an option is out of range.
    NotPositiveDefiniteError
        ``R_j V_k R_j^T + S_j`` is singular for the row named.
    NotImplementedError
        ``splitnmerge`` or ``maxsnm`` was asked for.
    """
    for name, value in (("splitnmerge", splitnmerge), ("maxsnm", maxsnm)):
        if value:
            raise NotImplementedError(f"{name}: split-and-merge moves are not available.")
    effects = _matrix(ydata, "ydata")
    start = _start(xamp, xmean, xcovar)
    count, width = start.means.shape
    rows = _rows(effects, ycovar, projection, width)
    row_weights = _row_weights(weight, logweight, len(effects))
    restrictions = Restrictions(
        _flags(fixamp, count, "fixamp"),
        _flags(fixmean, count, "fixmean"),
        _flags(fixcovar, count, "fixcovar"),
        _prior_weight(w),
    )
    if likeonly:
        sums = expectation(rows, start, row_weights, likelihood_only=True, threads=threads)
        return sums.log_likelihood / len(effects)
    control = Control(tol, maxiter, accelerate, max_seconds, progress, threads)
    fit = iterate(rows, start, restrictions, control, row_weights)
    found = fit.mixture
    return ExtremeDeconvolution(
        found.weights,
        found.means,
        found.covariances,
        float(fit.path[-1]),
        fit.path,
        fit.steps,
        fit.converged,
    )


def _matrix(values: Any, name: str) -> Array:
    array = np.array(values, dtype=np.float64)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.size == 0:
        raise ShapeError(f"{name} has dimensions {array.shape}; expected (rows, columns).")
    if not np.isfinite(array).all():
        raise InputError(f"{name} contains values that are not finite.")
    return array


def _start(xamp: Any, xmean: Any, xcovar: Any) -> Mixture:
    amplitudes = np.atleast_1d(np.array(xamp, dtype=np.float64))
    means = np.array(xmean, dtype=np.float64)
    covariances = np.array(xcovar, dtype=np.float64)
    count = len(amplitudes)
    if amplitudes.ndim != 1 or means.ndim != 2 or len(means) != count:
        raise ShapeError(
            f"the dimensions of xamp are {amplitudes.shape} and of xmean {means.shape}; "
            "expected (K,) and (K, R)."
        )
    if covariances.shape != (count, means.shape[1], means.shape[1]):
        raise ShapeError(
            f"xcovar has dimensions {covariances.shape}; expected "
            f"{(count, means.shape[1], means.shape[1])}."
        )
    for name, values in (("xamp", amplitudes), ("xmean", means), ("xcovar", covariances)):
        if not np.isfinite(values).all():
            raise InputError(f"{name} contains values that are not finite.")
    if (amplitudes < 0).any() or not amplitudes.any():
        raise InputError("xamp must not be negative, nor zero everywhere.")
    if not np.allclose(covariances, covariances.transpose(0, 2, 1), rtol=1e-10, atol=1e-12):
        raise InputError("the matrices of xcovar must be symmetric.")
    return Mixture(amplitudes, means, 0.5 * (covariances + covariances.transpose(0, 2, 1)))


def _rows(effects: Array, ycovar: Any, projection: Any, width: int) -> Rows:
    errors = _errors(ycovar, effects.shape)

    def covariances(rows: Any) -> Array:
        part: Array = errors[rows]
        return part if part.ndim == 3 else part[:, :, None] * np.eye(part.shape[1])

    if projection is not None:
        projections = np.array(projection, dtype=np.float64)
        if projections.shape != (*effects.shape, width):
            raise ShapeError(
                f"projection has dimensions {projections.shape}; "
                f"expected {(*effects.shape, width)}."
            )
        return ProjectedRows(effects, projections, covariances)
    if effects.shape[1] != width:
        raise ShapeError(
            f"ydata has {effects.shape[1]} columns and xmean {width}: give the projection."
        )
    if np.all(errors == errors[0]):
        return CommonErrors(effects, covariances(slice(0, 1))[0])
    return RowErrors(len(effects), lambda rows: _row_inputs(effects[rows], errors[rows]))


def _row_inputs(effects: Array, errors: Array) -> RowInputs:
    everything = np.ones(effects.shape, dtype=bool)
    if errors.ndim == 3:
        return RowInputs(effects, np.ones(effects.shape), errors, everything)
    return RowInputs(effects, np.sqrt(errors), np.eye(errors.shape[1])[None], everything)


def _errors(ycovar: Any, shape: tuple[int, ...]) -> Array:
    """Return error variances (J, S) or covariances (J, S, S)."""
    errors = np.array(ycovar, dtype=np.float64)
    rows, columns = shape
    if errors.ndim == 1 and columns == 1:
        errors = errors[:, None]
    if errors.ndim == 3 and errors.shape != (rows, columns, columns):
        errors = np.moveaxis(errors, -1, 0)
    if errors.shape not in (shape, (rows, columns, columns)):
        raise ShapeError(
            f"ycovar has dimensions {np.shape(ycovar)}; expected {shape} (variances) or "
            f"{(rows, columns, columns)} (covariances)."
        )
    if not np.isfinite(errors).all():
        raise InputError("ycovar contains values that are not finite.")
    return np.ascontiguousarray(errors)


def _row_weights(weight: ArrayLike | None, logweight: bool, n_rows: int) -> Array | None:
    if weight is None:
        return None
    weights = np.array(weight, dtype=np.float64)
    if weights.shape != (n_rows,):
        raise ShapeError(f"weight has dimensions {weights.shape}; expected ({n_rows},).")
    weights = np.exp(weights) if logweight else weights
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise InputError("weight must be finite and not negative, nor zero everywhere.")
    return weights


def _flags(flag: bool | Sequence[bool] | None, count: int, name: str) -> NDArray[np.bool_]:
    values = np.asarray(False if flag is None else flag, dtype=bool)
    if values.shape not in ((), (count,)):
        raise ShapeError(f"{name} has dimensions {values.shape}; give one bool or {count}.")
    return np.array(np.broadcast_to(values, (count,)))
