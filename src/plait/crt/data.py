"""The inputs of a perturbation screen's tests, checked once at the door."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, issparse

from plait.crt.arguments import real_number, require_made_by, whole_number
from plait.crt.composition import centered_log_ratio, check_usage, usage_floor
from plait.crt.covariates import CovariateDesign, as_frame_or_array, encode_covariates
from plait.crt.guides import (
    build_gene_to_cols,
    guide_labels,
    guide_targets,
    indicator_matrix,
    to_csc_matrix,
    union_obs_idx_from_cols,
    warn_of_guides_without_target,
)
from plait.crt.statistic import cross_product, residualize
from plait.crt.threads import limit_threading
from plait.data.labels import describe_difference, require_distinct
from plait.data.words import counted
from plait.errors import (
    DataWarning,
    InputError,
    InputTypeError,
    LabelError,
    OptionError,
    ShapeError,
)
from plait.io.anndata import get_from_adata_any, get_from_uns
from plait.io.result import freeze

if TYPE_CHECKING:
    from pandas import DataFrame

Array = NDArray[np.float64]

_USUAL_BATCH = "batch"
_PARTS = ("guide_names", "guide2gene", "gene_to_cols", "G", "C")
_ROUNDING = 16.0
"""Log-ratios are off by so many times the precision of usages and their own size."""


@dataclass(frozen=True, eq=False, kw_only=True)
class CRTInputs:
    """A perturbation screen, ready to be tested: N cells, K programs, G guides, p covariates.

    Build it with `prepare_crt_inputs`. Arrays are read-only and no part of the AnnData.

    Attributes
    ----------
    C : (N, p) array
        Design of the covariates, of full rank; the intercept first.
    A : (p, p) array
        ``(C'C)^-1``.
    CTY : (p, K) array
        ``C'Y``.
    basis : (N, p) array
        Q, orthonormal, with the span of C.
    residuals : (N, K) array
        ``R = MY = Y - QQ'Y``.
    G : (N, G) csc_array
        Guides of cells; what is stored is present.
    guide_names : tuple of str
    guide2gene : dict of str to str
        The target of each guide that has one.
    gene_to_cols : dict of str to (n,) array of int
        The columns of G of each target, ascending; targets are sorted.
    program_names : tuple of str
    cell_names : (N,) array of str
    usage : (N, K) array
        Usages as they came.
    usage_eps_quantile : float or None
        The quantile that gave the floor; None where the floor was given.
    eps : float
        The floor under usages.
    covar_cols : tuple of str or None
        Columns of C without the intercept; None where the covariates were an array of numbers.
    covar_df_raw : pandas.DataFrame or None
        The covariates as they came, if they were a DataFrame.
    batch_raw : (N,) array or None
        The batch of each cell.
    batch_key : str or None
        The name that it has; None where there is none.
    dropped_covariates : tuple of str
        Left out of C because they are constant or determined by the others.
    numbers_as_categories : tuple of str
        Numeric covariates of more than two values that became indicators.
    """

    C: Array
    A: Array
    CTY: Array
    basis: Array
    residuals: Array
    G: csc_array
    guide_names: tuple[str, ...]
    guide2gene: dict[str, str]
    gene_to_cols: dict[str, NDArray[np.intp]]
    program_names: tuple[str, ...]
    cell_names: NDArray[np.str_]
    usage: NDArray[np.floating]
    usage_eps_quantile: float | None
    eps: float
    covar_cols: tuple[str, ...] | None = None
    covar_df_raw: "DataFrame | None" = None
    batch_raw: NDArray[Any] | None = None
    batch_key: str | None = None
    dropped_covariates: tuple[str, ...] = ()
    numbers_as_categories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("C", "A", "CTY", "basis", "residuals", "usage", "cell_names", "batch_raw"):
            object.__setattr__(self, name, freeze(getattr(self, name)))

    @property
    def n_cells(self) -> int:
        """Number of cells N."""
        return int(self.usage.shape[0])

    @property
    def n_programs(self) -> int:
        """Number of programs K."""
        return int(self.usage.shape[1])

    @property
    def Y(self) -> Array:
        """Centered log-ratios of the usages, (N, K); made anew whenever asked for."""
        return centered_log_ratio(self.usage, self.eps)

    @property
    def U(self) -> NDArray[np.float32]:
        """Usages in single precision, (N, K); made anew whenever asked for."""
        return self.usage.astype(np.float32)

    @property
    def R(self) -> None:
        """The cache of ranks of programDE: always None, as tests make the ranks they need."""
        return None

    @property
    def rank_info(self) -> None:
        """What that cache would hold: always None."""
        return None

    @property
    def units(self) -> tuple[str, ...]:
        """The targets with at least one guide, sorted."""
        return tuple(self.gene_to_cols)

    def treated(self, gene: str) -> NDArray[np.int32]:
        """Return the cells that carry a guide of a target, ascending.

        Raises
        ------
        LabelError
            No guide has this target (also a KeyError).
        """
        return union_obs_idx_from_cols(self.G, self.columns(gene))

    def treated_matrix(self, genes: Iterable[str] | None = None) -> csc_array:
        """Return which cells carry a guide of which target.

        Parameters
        ----------
        genes : iterable of str, optional
            Default `units`.

        Returns
        -------
        (N, J) csc_array of int8
            1 where a cell carries at least one guide of a target, rows ascending in each column.

        Raises
        ------
        LabelError
            No guide has this target (also a KeyError).
        """
        return indicator_matrix(
            self.G, [self.columns(gene) for gene in (self.units if genes is None else genes)]
        )

    def columns(self, gene: str) -> NDArray[np.intp]:
        """Return the columns of a target's guides, ascending.

        Raises
        ------
        LabelError
            No guide has this target (also a KeyError).
        """
        if gene not in self.gene_to_cols:
            some = ", ".join(map(repr, self.units[:5]))
            raise LabelError(
                f"no guide targets {gene!r}; the screen has "
                f"{counted(len(self.gene_to_cols), 'target')} "
                f"({some}{', ...' if len(self.gene_to_cols) > 5 else ''})."
            )
        return self.gene_to_cols[gene]

    def __repr__(self) -> str:
        return (
            f"CRTInputs({counted(self.n_cells, 'cell')}, {counted(self.n_programs, 'program')}, "
            f"{counted(len(self.guide_names), 'guide')} of "
            f"{counted(len(self.gene_to_cols), 'target')}, {counted(self.C.shape[1], 'column')} of "
            "covariates)"
        )


def require_inputs(inputs: Any) -> None:
    """Refuse what `prepare_crt_inputs` has not made, as an AnnData.

    Raises
    ------
    InputTypeError
        It is something else (also a TypeError).
    """
    require_made_by(inputs, "inputs", _PARTS, "prepare_crt_inputs")


def prepare_crt_inputs(
    adata: Any,
    usage_key: str = "cnmf_usage",
    covar_key: str = "covar",
    guide_assignment_key: str = "guide_assignment",
    guide_names_key: str = "guide_names",
    guide2gene_key: str = "guide2gene",
    eps_quantile: float = 1e-4,
    add_intercept: bool = True,
    standardize: bool = True,
    numeric_as_category_threshold: int | None = 20,
    batch_key: str = _USUAL_BATCH,
    clamp_threads: bool = True,
    *,
    eps: float | None = None,
    object_policy: str = "numeric",
    threads: int | None = None,
) -> CRTInputs:
    """Check a perturbation screen and make it ready for testing.

    Parameters
    ----------
    adata : AnnData or any object with some of its containers
        In memory or backed; it is not changed. Keys are looked for in ``obsm``, ``layers``,
        ``obsp``, ``uns``, ``obs`` and the object itself, in this order.
    usage_key : str
        Usage of gene programs (N, K), a DataFrame or array of non-negative numbers.
    covar_key : str
        Covariates of cells, a DataFrame of any types or an array; counts should be logged.
    guide_assignment_key : str
        Guides of cells (N, G): a DataFrame whose columns are the guides, an array, or sparse.
        Anything but 0 is present.
    guide_names_key : str
        Key of ``uns``: names of the columns, needed unless they are those of a DataFrame.
    guide2gene_key : str
        Target of each guide: a mapping, or one written as JSON. Guides without a target (None, NaN
        or blank) stay in ``G`` and belong to no unit, which a logged warning says.
    eps_quantile : float
        The floor under usages as a quantile of all N K of them.
    add_intercept, standardize, numeric_as_category_threshold, object_policy
        How covariates are encoded: `get_covar_matrix`.
    batch_key : str
        A column of the covariates, or else of ``obs``, that holds batches. Without a column of the
        default name there are no batches; another name must be there.
    clamp_threads : bool
        Call `limit_threading`, as programDE: BLAS and OpenMP of this process have one thread from
        then on. plait's own work keeps them at one in any case; ``threads`` take blocks of cells.
    eps : float, optional
        The floor itself, instead of a quantile.
    threads : int, optional
        Default all cores; never changes the numbers.

    Returns
    -------
    CRTInputs

    Raises
    ------
    LabelError
        A key is nowhere, the batch's among them, or a guide, program or covariate occurs twice
        (also a KeyError).
    ShapeError
        Numbers of cells, guides or programs disagree.
    InputError
        There are no names of guides, no target has a guide, no program varies, or numbers are
        missing, infinite or negative where they may not be. `get_covar_matrix` names further
        errors.
    InputTypeError
        A value is not of a type that can be used (also a TypeError).
    OptionError
        ``eps`` is not positive, or not below the largest usage.

    Warns
    -----
    DataWarning
        Usages do not sum to about 1 or are 0 so often that the quantile is; covariates were left
        out; programs do not vary.

    Notes
    -----
    Names of programs are ``uns["program_names"]``, else the columns of a DataFrame of usages, else
    ``program_0`` and so on. Memory is that of a copy of the usages and 8 N (K + 2 p) bytes, and
    8 N K more for a while; time O(N K p + N p^2).
    """
    if clamp_threads:
        limit_threading()
    if eps is not None and not 0.0 < real_number(eps, "eps") < np.inf:
        raise OptionError(f"eps is {eps}; the floor under usages is positive.")
    usage_source = get_from_adata_any(adata, usage_key)
    covariates = as_frame_or_array(get_from_adata_any(adata, covar_key), object_policy)
    guides_source = get_from_adata_any(adata, guide_assignment_key)
    usage = _as_usage(usage_source, usage_key)
    guide_names = guide_labels(adata, guides_source, guide_names_key)
    _require_equal_rows(covariates, usage, guides_source)
    cells = _cell_names(adata, (usage_source, covariates, guides_source), len(usage))
    programs = get_program_names(adata, usage.shape[1], usage_source)
    check_usage(usage, programs, cells)
    guides = to_csc_matrix(guides_source)
    guide2gene = guide_targets(adata, guide2gene_key)
    gene_to_cols = build_gene_to_cols(guide_names, guide2gene)
    warn_of_guides_without_target(guide_names, guide2gene, "are guides of no perturbation")
    design = encode_covariates(
        covariates,
        add_intercept=add_intercept,
        standardize=standardize,
        numeric_as_category_threshold=numeric_as_category_threshold,
        object_policy=object_policy,
    )
    floor = usage_floor(usage, eps_quantile) if eps is None else _given_floor(usage, eps)
    is_frame = not isinstance(covariates, np.ndarray)
    batches = _batches(adata, covariates, batch_key)
    return _assemble(
        centered_log_ratio(usage, floor),
        design,
        threads,
        G=guides,
        guide_names=guide_names,
        guide2gene=guide2gene,
        gene_to_cols=gene_to_cols,
        program_names=programs,
        cell_names=cells,
        usage=np.array(usage),
        usage_eps_quantile=eps_quantile if eps is None else None,
        eps=floor,
        covar_df_raw=covariates.copy() if is_frame else None,
        batch_raw=batches,
        batch_key=None if batches is None else batch_key,
    )


def get_program_names(adata: Any, n_programs: int, usage: Any = None) -> tuple[str, ...]:
    """Return the names of programs.

    Parameters
    ----------
    adata : AnnData
        ``uns["program_names"]`` are the names, if there.
    n_programs : int
    usage : DataFrame or anything, optional
        Otherwise its columns are, or else ``program_0``, ``program_1``, ....

    Returns
    -------
    tuple of str

    Raises
    ------
    ShapeError
        There are not as many names as programs.
    LabelError
        A name occurs twice.
    InputTypeError
        The number is no whole one (also a TypeError).
    """
    n_programs = whole_number(n_programs, "n_programs", least=0)
    given = get_from_uns(adata, "program_names")
    if given is None:
        given = getattr(usage, "columns", None)
    if given is None:
        return tuple(f"program_{k}" for k in range(n_programs))
    names = tuple(str(name) for name in given)
    if len(names) != n_programs:
        raise ShapeError(
            f"the screen has {counted(len(names), 'name')} of programs and "
            f"{counted(n_programs, 'program')}."
        )
    require_distinct("program", names)
    return names


def _given_floor(usage: NDArray[np.floating], eps: float) -> float:
    largest = float(usage.max())
    if eps >= largest:
        raise OptionError(
            f"eps is {eps:g} and the largest usage {largest:.3g}: with this floor all usages are "
            "the same. Give a smaller one."
        )
    return float(eps)


def _assemble(
    outcome: Array, design: CovariateDesign, threads: int | None, **fields: Any
) -> CRTInputs:
    residuals = residualize(outcome, design.basis, threads)
    _silence_constant(residuals, outcome, fields["usage"], fields["program_names"])
    return CRTInputs(
        C=design.matrix,
        A=design.inverse,
        CTY=cross_product(design.matrix, outcome, threads),
        basis=design.basis,
        residuals=residuals,
        covar_cols=design.names,
        dropped_covariates=design.dropped,
        numbers_as_categories=design.numbers_as_categories,
        **fields,
    )


def _silence_constant(
    residuals: Array, outcome: Array, usage: NDArray[np.floating], programs: Sequence[str]
) -> None:
    """Set residuals that are rounding errors to 0, in place: they would be tested as if data."""
    largest = np.maximum(outcome.max(axis=0), -outcome.min(axis=0))
    rounding = _ROUNDING * np.finfo(usage.dtype).eps * np.maximum(largest, 1.0)
    spread = np.sqrt(np.einsum("ik,ik->k", residuals, residuals) / len(residuals))
    constant = np.flatnonzero(spread <= rounding)
    if not len(constant):
        return
    named = ", ".join(repr(programs[k]) for k in constant[:10])
    if len(constant) == len(programs):
        raise InputError(
            "no program varies between cells beyond what the covariates determine "
            f"({named}{', ...' if len(constant) > 10 else ''}); there is nothing to test."
        )
    residuals[:, constant] = 0.0
    warnings.warn(
        f"programs whose log-ratios do not vary beyond what the covariates determine: {named}"
        f"{', ...' if len(constant) > 10 else ''}. Their effects are 0, with p = 1.",
        DataWarning,
        stacklevel=4,
    )


def _as_matrix(values: NDArray[Any], what: str) -> NDArray[Any]:
    if values.dtype.kind not in "biuf":
        raise InputTypeError(f"{what} holds {values.dtype}; expected numbers.")
    if values.ndim != 2:
        raise ShapeError(
            f"{what} has {counted(values.ndim, 'dimension')}; expected a row for each cell."
        )
    return values


def _as_usage(source: Any, key: str) -> NDArray[np.floating]:
    values = source.toarray() if issparse(source) else np.asarray(source)
    matrix = _as_matrix(values, f"the usage {key!r}")
    return matrix if matrix.dtype in (np.float32, np.float64) else matrix.astype(np.float64)


def _require_equal_rows(covariates: Any, usage: Any, assignment: Any) -> None:
    counts = (len(covariates), len(usage), np.shape(assignment)[0])
    if len(set(counts)) > 1:
        raise ShapeError(
            f"numbers of cells differ: {counts[0]:,} in the covariates, {counts[1]:,} in the "
            f"usage, {counts[2]:,} in the guide assignment."
        )


def _cell_names(adata: Any, tables: Sequence[Any], n_cells: int) -> NDArray[np.str_]:
    sources = [getattr(adata, "obs_names", None)]
    for table in tables:
        index = getattr(table, "index", None)
        # The default index of pandas is no name; a sparse array has none.
        if index is not None and not callable(index) and type(index).__name__ != "RangeIndex":
            sources.append(index)
    labels = [np.array([str(name) for name in source]) for source in sources if source is not None]
    if not labels:
        return np.array([f"cell {i}" for i in range(n_cells)])
    if len(labels[0]) != n_cells:
        raise ShapeError(
            f"the screen has {counted(len(labels[0]), 'name')} of cells and "
            f"{counted(n_cells, 'cell')}."
        )
    for other in labels[1:]:
        if not np.array_equal(labels[0], other):
            raise LabelError(
                "the cells are not the same or not in the same order everywhere: "
                f"{describe_difference(labels[0].tolist(), other.tolist())}."
            )
    return labels[0]


def _batches(adata: Any, covariates: Any, key: str) -> NDArray[Any] | None:
    """Return the batches of cells; None where nobody has named them and there are none."""
    frames: tuple[Any, ...] = (covariates, getattr(adata, "obs", None))
    known: list[str] = []
    for frame in frames:
        if not hasattr(frame, "columns"):
            continue
        if key in frame.columns:
            return np.array(frame[key])
        known += [str(name) for name in frame.columns]
    if key == _USUAL_BATCH:
        return None
    some = get_close_matches(str(key), known, n=3, cutoff=0.5) or known[:5]
    raise LabelError(
        f"there is no covariate or column of obs {key!r}, which batch_key names; "
        + (f"there are {', '.join(map(repr, some))}" if some else "covariates have no names")
        + (f" and {len(known) - len(some):,} more." if len(known) > len(some) else ".")
    )
