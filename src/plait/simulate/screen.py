"""Simulated perturbation screens: guides, covariates and program usage, with known effects."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plait.errors import DependencyError, OptionError

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_array

Array = NDArray[np.float64]
_MOST_GUIDES = 50


@dataclass(frozen=True)
class Library:
    """Guides of a screen: those of each gene in turn, then the controls.

    Attributes
    ----------
    genes : list of str
    names, targets : list of str
        Of the guides.
    per_gene, n_controls : int
    """

    genes: list[str]
    names: list[str]
    targets: list[str]
    per_gene: int
    n_controls: int


def make_sceptre_style_synth(
    N: int = 50_000,
    K: int = 70,
    n_target_genes: int = 300,
    guides_per_gene: int = 6,
    ntc_frac_guides: float = 0.15,
    moi_mean: float = 5.5,
    frac_causal_genes: float = 0.10,
    n_effect_programs: int = 3,
    effect_size: float = 0.6,
    n_cov_extra: int = 6,
    confound_strength: float = 0.0,
    eps_near_zero: float = 1e-6,
    sprinkle_near_zero_frac: float = 0.15,
    seed: int = 0,
    global_null: bool = False,
) -> "AnnData":
    """Simulate a screen of many guides per cell, whose usage depends on covariates and targets.

    Parameters
    ----------
    N, K : int
        Cells and programs.
    n_target_genes, guides_per_gene : int
    ntc_frac_guides : float
        Share of all guides, and of the guides of a cell, that are controls; in [0, 1).
    moi_mean : float
        Mean of the Poisson number of guides drawn for a cell (at most 50).
    frac_causal_genes : float
        Share of the genes with effects; at least one gene unless it is 0.
    n_effect_programs : int
        Programs that a causal gene changes.
    effect_size : float
        Shift of the logit of usage, with a random sign.
    n_cov_extra : int
        Standard normal covariates besides intercept, batch and log depth.
    confound_strength : float
        Standard deviation of the log ratio, halved, of a gene's frequencies in the two batches.
    eps_near_zero, sprinkle_near_zero_frac : float
        Factor, and share of usages that are multiplied by it.
    seed : int
    global_null : bool
        No effects at all. Everything else is the same as with effects, bit for bit.

    Returns
    -------
    AnnData
        N x 1, empty. ``obsm``: ``covar`` (with the intercept), ``usage`` (rows sum to 1),
        ``guide_assignment`` (CSR, int8). ``uns``: ``guide_names``, ``guide2gene``, ``gene2guides``,
        ``target_gene_names``, ``ntc_gene_name``, ``causal_genes``, ``gene_effects`` (gene to the
        shifts of its K logits) and ``synth_params``.

    Raises
    ------
    OptionError
        An option is outside its range.
    DependencyError
        anndata is not installed.

    Notes
    -----
    Time and memory O(N (K + covariates + moi_mean)).
    """
    params = dict(locals())
    _check(params)
    random = np.random.default_rng(seed)
    library = library_of(n_target_genes, guides_per_gene, ntc_frac_guides)
    batch = random.integers(0, 2, N)
    log_depth = np.log1p(random.lognormal(10.0, 0.35, N))
    covariates = np.column_stack(
        [np.ones(N), batch, log_depth, random.standard_normal((N, n_cov_extra))]
    )
    logits = covariates @ (0.25 * random.standard_normal((covariates.shape[1], K)))
    logits += 0.3 * random.standard_normal((N, K))
    effects = _effects(random, n_target_genes, K, frac_causal_genes, n_effect_programs, effect_size)
    weights = random.lognormal(0.0, 0.6, n_target_genes)
    tilt = confound_strength * random.standard_normal(n_target_genes)
    weights_of_batch = weights * np.exp(np.array([[-1.0], [1.0]]) * tilt)
    guides = draw_guides(random, library, batch, weights_of_batch, moi_mean, ntc_frac_guides)
    if global_null:
        effects = {}
    for gene, shift in effects.items():
        own = slice(gene * guides_per_gene, (gene + 1) * guides_per_gene)
        logits[np.unique(guides[:, own].nonzero()[0])] += shift
    usage = np.exp(logits - logits.max(axis=1, keepdims=True))
    usage /= usage.sum(axis=1, keepdims=True)
    usage[random.random((N, K)) < sprinkle_near_zero_frac] *= eps_near_zero
    usage /= usage.sum(axis=1, keepdims=True)
    return _as_anndata(covariates, usage, guides, library, effects, params)


def _check(params: dict[str, Any]) -> None:
    for name in ("N", "K", "n_target_genes", "guides_per_gene"):
        if params[name] < 1:
            raise OptionError(f"{name} is {params[name]} and must be at least 1.")
    for name in ("moi_mean", "n_cov_extra", "confound_strength", "eps_near_zero"):
        if not 0 <= params[name] < np.inf:
            raise OptionError(f"{name} is {params[name]} and must be finite and not negative.")
    for name in ("frac_causal_genes", "sprinkle_near_zero_frac"):
        if not 0 <= params[name] <= 1:
            raise OptionError(f"{name} is {params[name]} and must be between 0 and 1.")
    if not 0 <= params["ntc_frac_guides"] < 1:
        raise OptionError(
            f"ntc_frac_guides is {params['ntc_frac_guides']} and must be at least 0 and below 1."
        )
    if not 0 <= params["n_effect_programs"] <= params["K"]:
        raise OptionError(
            f"n_effect_programs is {params['n_effect_programs']}, of K={params['K']} programs."
        )


def library_of(
    n_genes: int,
    per_gene: int,
    control_share: float,
    *,
    gene: str = "GENE{:05d}",
    guide: str = "{}_g{:02d}",
    first: int = 1,
) -> Library:
    """Return the guides of a screen.

    Parameters
    ----------
    n_genes, per_gene : int
    control_share : float
        Share of the guides that are controls, in [0, 1).
    gene, guide : str
        How genes and their guides are named by number.
    first : int
        Number of a gene's first guide.
    """
    genes = [gene.format(g) for g in range(n_genes)]
    n_controls = round(control_share / (1 - control_share) * per_gene * n_genes)
    names = [guide.format(name, i + first) for name in genes for i in range(per_gene)]
    names += [f"NTC_g{i + 1:04d}" for i in range(n_controls)]
    targets = [name for name in genes for _ in range(per_gene)] + ["NTC"] * n_controls
    return Library(genes, names, targets, per_gene, n_controls)


def _effects(
    random: np.random.Generator,
    n_genes: int,
    n_programs: int,
    share: float,
    n_effects: int,
    size: float,
) -> dict[int, Array]:
    n_causal = max(1, round(share * n_genes)) if share > 0 else 0
    effects = {}
    for gene in random.choice(n_genes, n_causal, replace=False):
        shift = np.zeros(n_programs)
        programs = random.choice(n_programs, n_effects, replace=False)
        shift[programs] = size * random.choice([-1.0, 1.0], n_effects)
        effects[int(gene)] = shift
    return effects


def draw_guides(
    random: np.random.Generator,
    library: Library,
    batch: NDArray[np.int64],
    weights: Array,
    mean: float,
    control_share: float,
) -> "csr_array":
    """Draw the guides of every cell: controls without replacement, others collapse if equal.

    Parameters
    ----------
    random : Generator
    library : Library
    batch : (cells,) array of 0 and 1
    weights : (2, genes) array
        Relative frequency of each gene in each batch.
    mean : float
        Mean of the Poisson number of guides of a cell.
    control_share : float
        Chance that a guide is a control.

    Returns
    -------
    (cells, guides) csr_array of int8
    """
    from scipy.sparse import csr_array

    n_cells, n_guides = len(batch), len(library.names)
    drawn = np.minimum(random.poisson(mean, n_cells), min(_MOST_GUIDES, n_guides))
    cell = np.repeat(np.arange(n_cells), drawn)
    control = random.random(len(cell)) < control_share
    targeting = np.flatnonzero(~control)
    column = np.empty(len(cell), dtype=np.int64)
    for b in (0, 1):
        own = targeting[batch[cell[targeting]] == b]
        gene = random.choice(len(library.genes), len(own), p=weights[b] / weights[b].sum())
        column[own] = gene * library.per_gene + random.integers(0, library.per_gene, len(own))
    first = len(library.genes) * library.per_gene
    wanted = np.bincount(cell[control], minlength=n_cells)
    at = np.flatnonzero(control)
    starts = np.cumsum(wanted) - wanted
    keep = np.ones(len(cell), dtype=bool)
    for i in np.flatnonzero(wanted):
        # A cell cannot have more distinct controls than there are.
        n = min(int(wanted[i]), library.n_controls)
        positions = at[starts[i] : starts[i] + wanted[i]]
        column[positions[:n]] = first + random.choice(library.n_controls, n, replace=False)
        keep[positions[n:]] = False
    flat = np.unique(cell[keep] * n_guides + column[keep])
    return csr_array(
        (np.ones(len(flat), dtype=np.int8), (flat // n_guides, flat % n_guides)),
        shape=(n_cells, n_guides),
    )


def _as_anndata(
    covariates: Array,
    usage: Array,
    guides: "csr_array",
    library: Library,
    effects: dict[int, Array],
    params: dict[str, Any],
) -> "AnnData":
    made = empty_screen(len(usage), guides)
    made.obsm["covar"] = covariates
    made.obsm["usage"] = usage
    gene2guides: dict[str, list[str]] = {}
    for guide, gene in zip(library.names, library.targets, strict=True):
        gene2guides.setdefault(gene, []).append(guide)
    made.uns.update(
        guide_names=library.names,
        guide2gene=dict(zip(library.names, library.targets, strict=True)),
        gene2guides=gene2guides,
        target_gene_names=library.genes,
        ntc_gene_name="NTC",
        causal_genes=[library.genes[g] for g in effects],
        gene_effects={library.genes[g]: shift for g, shift in effects.items()},
        synth_params=params,
    )
    return made


def empty_screen(n_cells: int, guides: "csr_array", counts: Any = None) -> "AnnData":
    """Return an AnnData of cells with their guides; ``cell0000000`` and so on.

    Parameters
    ----------
    n_cells : int
    guides : (cells, guides) csr_array
    counts : (cells, genes) sparse matrix, optional
        Default one column of zeros.

    Raises
    ------
    DependencyError
        anndata is not installed.
    """
    try:
        import anndata
        import pandas as pd
    except ModuleNotFoundError as error:
        if error.name not in ("anndata", "pandas"):
            raise
        raise DependencyError(
            "anndata is required for simulated screens; install it with: pip install anndata",
            name=error.name,
        ) from None
    from scipy.sparse import csr_matrix

    made = anndata.AnnData(
        X=np.zeros((n_cells, 1), dtype=np.float32) if counts is None else counts,
        obs=pd.DataFrame(index=[f"cell{i:07d}" for i in range(n_cells)]),
    )
    if counts is None:
        made.var_names = ["empty"]
    made.obsm["guide_assignment"] = csr_matrix(guides)
    return made
