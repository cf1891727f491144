"""Covariance matrices that describe how effects are shared: canonical, PCA, and their scaling."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import (
    DataWarning,
    InputError,
    NotPositiveDefiniteError,
    OptionError,
    ShapeError,
)
from plait.execution.executors import workforce
from plait.mash.data import MashData, subset_mash_data

if TYPE_CHECKING:
    from plait.mash.stored import StoredData

Array = NDArray[np.float64]
Covariances = dict[str, Array]

CANONICAL = ("identity", "singletons", "equal_effects", "simple_het")
_METHODS = ("null", *CANONICAL)

START_LIFT, LEARNED_LIFT = 0.1, 0.05
"""Shares of the mean variance that are added to the diagonal of starts, and of learned patterns.

What is learned from some tens of signals is nearly of rank 1 again: benchmarks/study_calibration.py
counts how often effects in one context are then taken for small certain ones in others.
"""


def cov_canonical(data: "MashData | StoredData", methods: Sequence[str] = CANONICAL) -> Covariances:
    """Return the canonical covariance matrices.

    Parameters
    ----------
    data : MashData or StoredData
    methods : sequence of str
        Any of ``null``, ``identity`` (independent effects), ``singletons`` (one matrix per
        condition), ``equal_effects`` and ``simple_het`` (equal variances, correlations 0.25, 0.5
        and 0.75), or unique beginnings of these. Default all but ``null``: R + 5 matrices.

    Returns
    -------
    dict of str to (R, R) array, in the order asked

    Raises
    ------
    OptionError
        A method is unknown or ambiguous.
    """
    width = data.n_conditions
    result: Covariances = {}
    wanted = [_method(name) for name in ([methods] if isinstance(methods, str) else methods)]
    for method in wanted:
        if method == "null":
            result["null"] = np.zeros((width, width))
        elif method == "identity":
            result["identity"] = np.eye(width)
        elif method == "equal_effects":
            result["equal_effects"] = np.ones((width, width))
        elif method == "simple_het":
            result.update(cov_simple_het(data))
        else:
            result.update(_singletons(data, taken={*result, *_METHODS}))
    return result


def _method(name: str) -> str:
    found = [method for method in _METHODS if method.startswith(name)]
    if name in found:
        return name
    if len(found) != 1:
        raise OptionError(
            f"{name!r} is not a canonical covariance; choose from {', '.join(_METHODS)}."
        )
    return found[0]


def _singletons(data: "MashData | StoredData", taken: set[str]) -> Covariances:
    result: Covariances = {}
    for r in range(data.n_conditions):
        name = None if data.condition_names is None else data.condition_names[r]
        if name is None or name in taken:
            name = f"singleton_{r + 1}"
        matrix = np.zeros((data.n_conditions, data.n_conditions))
        matrix[r, r] = 1.0
        result[name] = matrix
    return result


def cov_simple_het(
    data: "MashData | StoredData", corr: Sequence[float] = (0.25, 0.5, 0.75)
) -> Covariances:
    """Return matrices with unit variances and one correlation each.

    Parameters
    ----------
    data : MashData
    corr : sequence of float
        Correlations in [-1, 1]. One below ``-1/(R-1)`` gives an indefinite matrix, which `mash`
        refuses.
    """
    result: Covariances = {}
    for i, c in enumerate(corr):
        if not -1 <= c <= 1:
            raise OptionError(f"the correlation {c:g} is not in [-1, 1].")
        matrix = np.full((data.n_conditions, data.n_conditions), float(c))
        np.fill_diagonal(matrix, 1.0)
        result[f"simple_het_{i + 1}"] = matrix
    return result


def r1cov(x: ArrayLike) -> Array:
    """Return the rank-1 covariance ``x x^T`` of a vector."""
    vector = np.asarray(x, dtype=np.float64)
    return np.outer(vector, vector)


def cov_from_factors(F: ArrayLike, name: str) -> Covariances:
    """Return ``{name_1: f1 f1^T, ...}`` for the rows of ``F``."""
    factors = np.atleast_2d(np.asarray(F, dtype=np.float64))
    return {f"{name}_{i + 1}": r1cov(row) for i, row in enumerate(factors)}


def select_rows(data: "MashData | StoredData", subset: Any) -> NDArray[np.intp]:
    """Return the row numbers named by ``subset`` (None is all); an empty subset is an error."""
    size = data.n_effects
    if subset is None:
        return np.arange(size)
    if isinstance(subset, slice):
        rows: NDArray[np.intp] = np.arange(*subset.indices(size))
    else:
        given = np.atleast_1d(np.asarray(subset))
        if given.size == 0:
            raise InputError("the subset of effects is empty.")
        if given.ndim != 1 or given.dtype.kind not in "iub":
            raise ShapeError("a subset is a slice, row numbers, or one bool per effect.")
        if given.dtype.kind == "b":
            if len(given) != size:
                raise InputError(
                    f"the subset does not fit {size} effects: it has {len(given)} bools."
                )
            rows = np.flatnonzero(given)
        else:
            rows = given.astype(np.intp)
            outside = (rows < -size) | (rows >= size)
            if outside.any():
                raise InputError(
                    f"the subset does not fit {size} effects: there is no row {rows[outside][0]}."
                )
            rows = np.where(rows < 0, rows + size, rows)
    if rows.size == 0:
        raise InputError("the subset of effects is empty.")
    return rows


def cov_pca(
    data: "MashData | StoredData",
    npc: int,
    subset: Any = None,
    *,
    executor: Any = None,
    memory: int | str | None = None,
    threads: int | None = None,
) -> Covariances:
    """Return covariance matrices from the principal components of (strong) effects.

    Parameters
    ----------
    data : MashData or StoredData
        Of data in a store, only sums of products are kept.
    npc : int
        Number of components: more than 1, at most R and at most the number of rows used.
    subset : integer or bool array, optional
        The rows to use, normally the strong effects. Default all.
    executor, memory, threads
        Who looks through all data in a store, as in `mash_open_data`.

    Returns
    -------
    dict
        ``PCA_1 .. PCA_npc`` (rank 1) and ``tPCA`` (all of them, weighted by their variance).

    Notes
    -----
    Thin SVD of the (alpha-scaled) effects, neither centred nor divided by their errors
    (Urbut et al. 2019, Methods). Cost O(n R^2).
    """
    if not 1 < npc <= data.n_conditions:
        raise OptionError(f"npc is {npc}; it must be from 2 to the {data.n_conditions} conditions.")
    if subset is None and not isinstance(data, MashData):
        product = data.cross_product(workforce(executor, memory, threads))
        values, vectors = np.linalg.eigh(product)
        n_effects = data.n_effects
        singular, right = np.sqrt(np.maximum(values[::-1], 0.0)), vectors[:, ::-1].T
    else:
        _, chosen = take_effects(data, subset)
        n_effects = chosen.n_effects
        _, singular, right = np.linalg.svd(chosen.Bhat, full_matrices=False)
    if npc > n_effects:
        raise OptionError(f"npc is {npc}, more than the {n_effects} effects it is learned from.")
    if few := few_to_learn_from(n_effects, data.n_conditions):
        warnings.warn(few, DataWarning, stacklevel=2)
    result = cov_from_factors(right[:npc], "PCA")
    scaled = right[:npc] * singular[:npc, None]
    result["tPCA"] = scaled.T @ scaled / n_effects
    return result


def few_to_learn_from(n_effects: int, n_conditions: int) -> str:
    """Say that there are few effects for the principal components of conditions; or nothing."""
    enough = 20 * n_conditions
    if n_effects >= enough:
        return ""
    return (
        f"only {n_effects} effects for the principal components of {n_conditions} conditions; "
        f"{enough} or more are advisable."
    )


def take_effects(data: "MashData | StoredData", subset: Any) -> tuple[NDArray[np.intp], MashData]:
    """Return the rows named by ``subset`` and their data, read into memory if need be."""
    if not isinstance(data, MashData) and subset is None:
        raise OptionError(
            "data in a store are not loaded whole: give the subset of effects to learn from, for "
            "example strong_effects(data)."
        )
    rows = select_rows(data, subset)
    if not isinstance(data, MashData):
        return rows, data.read(rows)
    return rows, data if subset is None else subset_mash_data(data, rows)


def cov_udi(data: MashData, model: Sequence[str] | str | None = None) -> Covariances:
    """Return "unassociated / direct / indirect" covariances.

    Parameters
    ----------
    data : MashData
        With one V for all effects.
    model : word or sequence of words, optional
        One letter of U, D, I per condition, at least one D. Default all ``3^R - 2^R`` words, the
        first condition varying fastest; above 8 conditions the words must be given.

    Returns
    -------
    dict
        ``cov_udi_<word>`` to (R, R) arrays.
    """
    if not data.common_V:
        raise InputError("cov_udi needs one V common to all effects.")
    width = data.n_conditions
    if model is None:
        if width > 8:
            raise OptionError(
                f"all models of {width} conditions are too many: give a list of words."
            )
        words = ["".join(reversed(letters)) for letters in product("UDI", repeat=width)]
        words = [word for word in words if "D" in word]
    else:
        words = [model] if isinstance(model, str) else list(model)
    V = data.V if data.L is None else data.LSVSLt
    return {f"cov_udi_{word}": _udi(np.asarray(V), word) for word in words}


def _udi(V: Array, word: str) -> Array:
    if len(word) != len(V) or set(word) - set("UDI") or "D" not in word:
        raise OptionError(
            f"{word!r} is not a model: give {len(V)} letters out of U, D, I with at least one D."
        )
    letters = np.array(list(word))
    u, d, i = (np.flatnonzero(letters == letter) for letter in "UDI")
    direct = V[np.ix_(d, d)]
    if len(u):
        direct = direct - V[np.ix_(d, u)] @ np.linalg.solve(V[np.ix_(u, u)], V[np.ix_(u, d)])
    result = np.zeros_like(V)
    result[np.ix_(d, d)] = direct
    if len(i):
        ud = np.concatenate([u, d])
        to_direct = np.linalg.inv(V[np.ix_(ud, ud)])[:, len(u) :]
        through = V[np.ix_(i, ud)] @ to_direct
        result[np.ix_(i, d)] = through @ direct
        result[np.ix_(d, i)] = result[np.ix_(i, d)].T
        result[np.ix_(i, i)] = through @ direct @ through.T
    return result


def lift_cov(Ulist: Mapping[str, ArrayLike], share: float = LEARNED_LIFT) -> Covariances:
    """Return covariance matrices with a share of their mean variance added to the diagonal.

    A prior of rank 1, or nearly so, says that effects in all conditions are proportional, and takes
    effects in one of them for small certain ones in others. What is learned from strong effects is
    lifted twice: starts of `cov_ed`, which keeps their rank, by `START_LIFT`, and its result by
    `LEARNED_LIFT`.

    Parameters
    ----------
    Ulist : dict of str to (R, R) array
    share : float
        Of ``trace(U) / R``; not negative.

    Returns
    -------
    dict of str to (R, R) array

    Raises
    ------
    OptionError
        ``share`` is negative or not finite.
    """
    if not (np.isfinite(share) and share >= 0):
        raise OptionError(f"share is {share}; it must be zero or positive.")
    matrices = {name: np.asarray(U, dtype=np.float64) for name, U in Ulist.items()}
    return {name: U + share * np.trace(U) / len(U) * np.eye(len(U)) for name, U in matrices.items()}


def normalize_cov(U: ArrayLike) -> Array:
    """Return a matrix divided by its largest diagonal entry (unchanged where that is zero)."""
    matrix = np.array(U, dtype=np.float64)
    largest = float(np.diagonal(matrix).max())
    return matrix if largest == 0 else matrix / largest


def normalize_Ulist(Ulist: Mapping[str, ArrayLike] | Iterable[ArrayLike]) -> Any:
    """Apply `normalize_cov` to every matrix of a dict or list, keeping the names."""
    if isinstance(Ulist, Mapping):
        return {name: normalize_cov(U) for name, U in Ulist.items()}
    return [normalize_cov(U) for U in Ulist]


def scale_cov(Ulist: Mapping[str, ArrayLike] | Iterable[ArrayLike], grid: ArrayLike) -> list[Array]:
    """Return the matrices times every squared grid value, grid-major."""
    matrices = list(Ulist.values()) if isinstance(Ulist, Mapping) else list(Ulist)
    scales = np.asarray(grid, dtype=np.float64) ** 2
    return [scale * np.asarray(U, dtype=np.float64) for scale in scales for U in matrices]


def expand_cov(
    Ulist: Mapping[str, ArrayLike] | Iterable[ArrayLike],
    grid: ArrayLike,
    usepointmass: bool = True,
) -> list[Array]:
    """Return `scale_cov` with the zero matrix in front when there is a point mass."""
    scaled = scale_cov(Ulist, grid)
    return [np.zeros_like(scaled[0]), *scaled] if usepointmass else scaled


def check_Ulist(Ulist: Any, width: int) -> Covariances:
    """Validate covariance matrices and return them as a dict of float64 arrays."""
    if not isinstance(Ulist, Mapping):
        if isinstance(Ulist, np.ndarray) and Ulist.ndim == 2:
            raise ShapeError("Ulist must be a dict or a list of matrices, not one matrix.")
        Ulist = {f"U_{i + 1}": U for i, U in enumerate(Ulist)}
    if len(Ulist) == 0:
        raise InputError("Ulist is empty; give at least one covariance matrix.")
    return {str(name): _check_covariance(name, U, width) for name, U in Ulist.items()}


def _check_covariance(name: Any, U: Any, width: int) -> Array:
    try:
        matrix: Array = np.array(U, dtype=np.float64)
    except (TypeError, ValueError):
        raise ShapeError(f"Ulist[{name!r}] is not a numeric matrix.") from None
    if matrix.shape != (width, width):
        raise ShapeError(
            f"Ulist[{name!r}] has dimension {matrix.shape}; it must be of dimension "
            f"({width}, {width})."
        )
    if not np.isfinite(matrix).all():
        raise InputError(f"Ulist[{name!r}] contains values that are not finite.")
    largest = float(np.abs(np.diagonal(matrix)).max())
    if np.abs(matrix - matrix.T).max() > 1e-10 * max(largest, 1.0):
        raise InputError(f"Ulist[{name!r}] must be symmetric.")
    matrix = 0.5 * (matrix + matrix.T)
    smallest = float(np.linalg.eigvalsh(matrix)[0])
    if smallest < -1e-8 * largest:
        raise NotPositiveDefiniteError(
            f"Ulist[{name!r}] must be positive semi-definite; its smallest eigenvalue is "
            f"{smallest:.3g}."
        )
    return matrix
