"""Simulated perturbation screens of counts: gene expression by programs, and UMIs of guides."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plait.errors import OptionError, ShapeError
from plait.simulate.screen import Library, draw_guides, empty_screen, library_of

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_array

Array = NDArray[np.float64]
_CELLS_AT_ONCE = 2048


def make_count_screen(
    N: int = 5_000,
    n_genes: int = 500,
    K: int = 8,
    n_targets: int = 40,
    guides_per_target: int = 4,
    ntc_frac_guides: float = 0.15,
    moi: str = "high",
    moi_mean: float = 5.5,
    frac_causal: float = 0.5,
    n_downstream: int = 10,
    effect_size: float = 0.5,
    knockdown: float = 1.5,
    dispersion: tuple[float, float] = (1.0, 0.5),
    depth_mean: float = 5_000.0,
    depth_sd: float = 0.35,
    confound_strength: float = 0.0,
    guide_umi_mean: float = 30.0,
    guide_background: float = 0.02,
    seed: int = 0,
    global_null: bool = False,
) -> "AnnData":
    """Simulate a screen with negative binomial counts of genes and UMIs of guides.

    A cell's expected counts are its depth times the mixture of programs by its usages; usages
    depend on batch and depth. Targets are the first genes, so that each has itself to knock down.

    Parameters
    ----------
    N, n_genes, K : int
        Cells, genes and programs.
    n_targets, guides_per_target : int
        Targeted genes, at most ``n_genes``, and guides of each.
    ntc_frac_guides : float
        Share of all guides, and of the guides of a cell, that are controls; in [0, 1).
    moi : {"high", "low"}
        A Poisson number of guides in a cell, or exactly one.
    moi_mean : float
        Mean of that number.
    frac_causal : float
        Share of the targets that change other genes.
    n_downstream : int
        How many each changes.
    effect_size : float
        Log fold change of those, with a random sign.
    knockdown : float
        Every target's own log fold change is ``-knockdown``.
    dispersion : (float, float)
        Median size theta of the genes and standard deviation of its log; the variance of a count
        is ``mu + mu^2 / theta``.
    depth_mean, depth_sd : float
        Mean total count of a cell, and standard deviation of its log.
    confound_strength : float
        As in `make_sceptre_style_synth`: ties targets to batches, and batches shift usages.
    guide_umi_mean, guide_background : float
        See `guide_umi_counts`.
    seed : int
    global_null : bool
        No effects at all, on the targets neither; guides and covariates are the same as with
        effects, bit for bit.

    Returns
    -------
    AnnData
        N x n_genes, ``X`` of counts (CSR, int32). ``obs``: ``batch``, ``log_depth``. ``obsm``:
        ``usage``, ``covar`` (DataFrame), ``guide_assignment`` (the truth) and ``guide_umis`` (CSR).
        ``uns``: ``guide_names``, ``guide2gene``, ``causal_genes``, ``gene_effects`` (target to the
        log fold changes of all genes), ``synth_params``. ``var``: ``theta``.

    Raises
    ------
    OptionError
        An option is outside its range.
    DependencyError
        anndata is not installed.

    Notes
    -----
    Time O(N x n_genes x K), memory that of the counts and 8 x 2048 x n_genes bytes.
    """
    params = dict(locals())
    _check(params)
    # A stream for each part, so that effects change counts alone.
    layout, expression, umis = (
        np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(3)
    )
    library = library_of(n_targets, guides_per_target, ntc_frac_guides)
    batch = layout.integers(0, 2, N)
    depth = depth_mean * np.exp(depth_sd * layout.standard_normal(N) - depth_sd**2 / 2)
    tilt = confound_strength * layout.standard_normal(n_targets)
    weights = layout.lognormal(0.0, 0.6, n_targets) * np.exp(np.array([[-1.0], [1.0]]) * tilt)
    if moi == "high":
        guides = draw_guides(layout, library, batch, weights, moi_mean, ntc_frac_guides)
    else:
        guides = _one_guide_each(layout, library, batch, weights, ntc_frac_guides)
    relative = np.log(depth / depth_mean)
    shift = np.column_stack([batch - 0.5, relative]) @ (0.5 * layout.standard_normal((2, K)))
    usage = np.exp(shift + 0.5 * layout.standard_normal((N, K)))
    usage /= usage.sum(axis=1, keepdims=True)
    programs = layout.lognormal(0.0, 1.5, (K, n_genes))
    programs /= programs.sum(axis=1, keepdims=True)
    theta = dispersion[0] * np.exp(dispersion[1] * layout.standard_normal(n_genes))
    effects = _log_fold_changes(layout, n_targets, n_genes, frac_causal, n_downstream, effect_size)
    effects[np.arange(n_targets), np.arange(n_targets)] = -knockdown
    if global_null:
        effects[:] = 0.0
    counts = _counts(expression, usage * depth[:, None], programs, theta, guides, library, effects)
    seen = guide_umi_counts(
        umis, guides, guide_umi_mean, guide_background, relative_depth=depth / depth_mean
    )
    made = empty_screen(N, guides, counts)
    _write(made, library, batch, depth, usage, theta, seen, effects, params)
    return made


def guide_umi_counts(
    random: np.random.Generator,
    assignment: "csr_array",
    mean: float = 30.0,
    background: float = 0.02,
    *,
    relative_depth: Array | None = None,
) -> "csr_array":
    """Draw the UMIs of guides: a Poisson of cells that carry one, and a background in all cells.

    Parameters
    ----------
    random : Generator
    assignment : (cells, guides) csr_array
        What is stored is present.
    mean, background : float
        Mean UMIs of a guide in a cell that carries it, on top of those in any cell.
    relative_depth : (cells,) array, optional
        Multiplies both; default 1.

    Returns
    -------
    (cells, guides) csr_array of int32
        Without explicit zeros; a carried guide may have none.

    Notes
    -----
    The background is drawn as its total and then placed, so time is O(entries) and not
    O(cells x guides).
    """
    from scipy.sparse import csr_array

    if not (0 <= mean < np.inf and 0 <= background < np.inf):
        raise OptionError(f"mean is {mean} and background {background}; give 0 or more.")
    n_cells, n_guides = assignment.shape
    depth = np.ones(n_cells) if relative_depth is None else np.asarray(relative_depth)
    if depth.shape != (n_cells,) or not (depth > 0).all():
        raise ShapeError(
            f"relative_depth has shape {depth.shape}; give {n_cells} positive numbers."
        )
    carried = csr_array(assignment)
    cell = np.repeat(np.arange(n_cells), np.diff(carried.indptr))
    of_carriers = random.poisson(mean * depth[cell])
    per_cell = random.poisson(background * n_guides * depth)
    place = np.repeat(np.arange(n_cells), per_cell)
    guide = random.integers(0, n_guides, len(place))
    counts = csr_array(
        (
            np.concatenate([of_carriers, np.ones(len(place), dtype=np.int64)]),
            (np.concatenate([cell, place]), np.concatenate([carried.indices, guide])),
        ),
        shape=assignment.shape,
    ).astype(np.int32)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    return counts


def _check(params: dict[str, Any]) -> None:
    for name in ("N", "n_genes", "K", "n_targets", "guides_per_target"):
        if params[name] < 1:
            raise OptionError(f"{name} is {params[name]} and must be at least 1.")
    if params["n_targets"] > params["n_genes"]:
        raise OptionError(
            f"n_targets is {params['n_targets']}, of n_genes={params['n_genes']}; a target is a "
            "gene."
        )
    if not 0 <= params["n_downstream"] <= params["n_genes"]:
        raise OptionError(
            f"n_downstream is {params['n_downstream']}, of {params['n_genes']} genes."
        )
    if params["moi"] not in ("high", "low"):
        raise OptionError(f"moi is {params['moi']!r}; give 'high' or 'low'.")
    if not 0 <= params["ntc_frac_guides"] < 1 or not 0 <= params["frac_causal"] <= 1:
        raise OptionError("ntc_frac_guides must be in [0, 1) and frac_causal in [0, 1].")
    if min(params["dispersion"][0], params["depth_mean"]) <= 0 or params["depth_sd"] < 0:
        raise OptionError("dispersion and depth_mean must be positive, depth_sd not negative.")


def _one_guide_each(
    random: np.random.Generator,
    library: Library,
    batch: NDArray[np.int64],
    weights: Array,
    control_share: float,
) -> "csr_array":
    from scipy.sparse import csr_array

    n_cells, n_guides = len(batch), len(library.names)
    first = len(library.genes) * library.per_gene
    column = np.empty(n_cells, dtype=np.int64)
    for b in (0, 1):
        own = np.flatnonzero(batch == b)
        gene = random.choice(len(library.genes), len(own), p=weights[b] / weights[b].sum())
        column[own] = gene * library.per_gene + random.integers(0, library.per_gene, len(own))
    if library.n_controls:
        is_control = random.random(n_cells) < control_share
        column[is_control] = random.integers(first, n_guides, int(is_control.sum()))
    return csr_array(
        (np.ones(n_cells, dtype=np.int8), (np.arange(n_cells), column)), shape=(n_cells, n_guides)
    )


def _log_fold_changes(
    random: np.random.Generator,
    n_targets: int,
    n_genes: int,
    share: float,
    n_downstream: int,
    size: float,
) -> Array:
    effects = np.zeros((n_targets, n_genes))
    for target in random.choice(n_targets, round(share * n_targets), replace=False):
        genes = random.choice(n_genes, n_downstream, replace=False)
        effects[target, genes] = size * random.choice([-1.0, 1.0], n_downstream)
    return effects


def _counts(
    random: np.random.Generator,
    usage_of_depth: Array,
    programs: Array,
    theta: Array,
    guides: "csr_array",
    library: Library,
    effects: Array,
) -> Any:
    """Draw negative binomials as Poissons of gamma means, some cells after the others."""
    from scipy.sparse import csr_array, csr_matrix, vstack

    n_cells, n_targets = len(usage_of_depth), len(effects)
    targeting = guides[:, : n_targets * library.per_gene]
    column = targeting.indices // library.per_gene
    carries = csr_array(
        (np.ones(len(column)), column, targeting.indptr), shape=(n_cells, n_targets)
    )
    carries.sum_duplicates()
    carries.data[:] = 1.0
    parts = []
    for begin in range(0, n_cells, _CELLS_AT_ONCE):
        rows = slice(begin, begin + _CELLS_AT_ONCE)
        means = (usage_of_depth[rows] @ programs) * np.exp(carries[rows] @ effects)
        frailty = random.standard_gamma(np.broadcast_to(theta, means.shape)) / theta
        parts.append(csr_matrix(random.poisson(means * frailty).astype(np.int32)))
    return vstack(parts, format="csr")


def _write(
    made: "AnnData",
    library: Library,
    batch: NDArray[np.int64],
    depth: Array,
    usage: Array,
    theta: Array,
    umis: "csr_array",
    effects: Array,
    params: dict[str, Any],
) -> None:
    import pandas as pd
    from scipy.sparse import csr_matrix

    made.var_names = [f"GENE{g:05d}" for g in range(made.n_vars)]
    made.var["theta"] = theta
    made.obs["batch"] = pd.Categorical([f"b{b}" for b in batch.tolist()])
    made.obs["log_depth"] = np.log(depth)
    made.obsm["covar"] = made.obs[["batch", "log_depth"]].copy()
    made.obsm["usage"] = usage
    made.obsm["guide_umis"] = csr_matrix(umis)
    downstream = effects.copy()
    np.fill_diagonal(downstream, 0.0)
    causal = np.flatnonzero((downstream != 0).any(axis=1)).tolist()
    made.uns.update(
        guide_names=library.names,
        guide2gene=dict(zip(library.names, library.targets, strict=True)),
        causal_genes=[library.genes[j] for j in causal],
        gene_effects=dict(zip(library.genes, effects, strict=True)),
        synth_params=params | {"dispersion": list(params["dispersion"])},
    )
