"""Small simulated perturbation screens, for tests and examples."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plait.errors import OptionError
from plait.simulate.screen import draw_guides, empty_screen, library_of

if TYPE_CHECKING:
    from anndata import AnnData

Array = NDArray[np.float64]
_CONFOUNDING = 0.5


def make_synthetic_adata(
    rng: np.random.Generator | int = 0,
    n_cells: int = 120,
    n_programs: int = 5,
    n_genes: int = 3,
    guides_per_gene: int = 2,
    n_covariates: int = 3,
    effect_gene: str | None = None,
    effect_program: int = 0,
    effect_size: float = 0.0,
    include_categorical: bool = False,
    categorical_levels: int = 3,
    propensity_mode: str = "covariate",
    ntc_genes: Sequence[str] = ("non-targeting", "safe-targeting"),
    ntc_frac_guides: float = 0.15,
    moi_mean: float = 5.5,
) -> "AnnData":
    """Simulate a small screen that `plait.crt.prepare_crt_inputs` takes as it is.

    Parameters
    ----------
    rng : Generator or int
        Random numbers, or their seed.
    n_cells, n_programs, n_genes, guides_per_gene : int
        Genes are ``gene_0`` and on, guides ``gene_0_g0`` and on.
    n_covariates : int
        Standard normal covariates ``covar_0`` and on, which shift logits of usages.
    effect_gene : str, optional
        The gene with an effect, default the first; its guides are twice as frequent.
    effect_program : int
        The program that it changes, from 0.
    effect_size : float
        Shift of the logit of its usage; 0 is a global null.
    include_categorical : bool
        Whether there is a covariate ``batch`` of ``categorical_levels`` levels ``b0`` and on.
    categorical_levels : int
    propensity_mode : {"covariate", "constant"}
        Whether the first covariate tilts which genes a cell is treated for.
    ntc_genes : sequence of str
        Targets of the control guides, which are shared out evenly.
    ntc_frac_guides : float
        Share of all guides, and of the guides of a cell, that are controls; in [0, 1).
    moi_mean : float
        Mean of the Poisson number of guides drawn for a cell.

    Returns
    -------
    AnnData
        N x 1, empty. ``obsm``: ``covar`` and ``cnmf_usage`` (DataFrames; rows of usages sum to 1),
        ``guide_assignment`` (CSR, int8). ``uns``: ``guide_names``, ``guide2gene``,
        ``program_names``, ``ntc_gene_names``, ``effect_gene``.

    Raises
    ------
    OptionError
        An option is outside its range.
    DependencyError
        anndata is not installed.
    """
    _check(locals())
    random = np.random.default_rng(rng)
    library = library_of(
        n_genes, guides_per_gene, ntc_frac_guides, gene="gene_{}", guide="{}_g{}", first=0
    )
    affected = library.genes[0] if effect_gene is None else effect_gene
    if affected not in library.genes:
        raise OptionError(f"effect_gene is {affected!r}; there are {', '.join(library.genes)}.")
    covariates = random.standard_normal((n_cells, n_covariates))
    level = random.integers(0, categorical_levels, n_cells)
    logits = covariates @ (0.25 * random.standard_normal((n_covariates, n_programs)))
    if include_categorical:
        logits += 0.25 * random.standard_normal((categorical_levels, n_programs))[level]
    logits += 0.3 * random.standard_normal((n_cells, n_programs))
    weights = random.lognormal(0.0, 0.6, n_genes)
    weights[library.genes.index(affected)] *= 2.0
    tilt = _CONFOUNDING * random.standard_normal(n_genes)
    side = (covariates[:, 0] > 0).astype(np.int64) if n_covariates else np.zeros(n_cells, np.int64)
    if propensity_mode == "constant":
        tilt[:] = 0.0
    weights_of_side = weights * np.exp(np.array([[-1.0], [1.0]]) * tilt)
    guides = draw_guides(random, library, side, weights_of_side, moi_mean, ntc_frac_guides)
    first = library.genes.index(affected) * guides_per_gene
    carriers = np.unique(guides[:, first : first + guides_per_gene].nonzero()[0])
    logits[carriers, effect_program] += effect_size
    usage = np.exp(logits - logits.max(axis=1, keepdims=True))
    usage /= usage.sum(axis=1, keepdims=True)
    made = empty_screen(n_cells, guides)
    _write(made, covariates, level if include_categorical else None, usage)
    controls = [f"{ntc_genes[i % len(ntc_genes)]}_g{i // len(ntc_genes)}"
                for i in range(library.n_controls)]  # fmt: skip
    names = library.names[: n_genes * guides_per_gene] + controls
    targets = library.targets[: n_genes * guides_per_gene] + [
        ntc_genes[i % len(ntc_genes)] for i in range(library.n_controls)
    ]
    made.uns.update(
        guide_names=names,
        guide2gene=dict(zip(names, targets, strict=True)),
        program_names=[f"program_{k}" for k in range(n_programs)],
        ntc_gene_names=list(ntc_genes),
        effect_gene=affected,
    )
    return made


def _check(options: dict[str, Any]) -> None:
    for name in ("n_cells", "n_programs", "n_genes", "guides_per_gene", "categorical_levels"):
        if options[name] < 1:
            raise OptionError(f"{name} is {options[name]} and must be at least 1.")
    if options["n_covariates"] < 0 or not 0 <= options["moi_mean"] < np.inf:
        raise OptionError("n_covariates and moi_mean must be finite and not negative.")
    if not 0 <= options["effect_program"] < options["n_programs"]:
        raise OptionError(
            f"effect_program is {options['effect_program']}; there are {options['n_programs']}, "
            "from 0."
        )
    if options["propensity_mode"] not in ("covariate", "constant"):
        raise OptionError(
            f"propensity_mode is {options['propensity_mode']!r}; give 'covariate' or 'constant'."
        )
    if not 0 <= options["ntc_frac_guides"] < 1:
        raise OptionError(
            f"ntc_frac_guides is {options['ntc_frac_guides']} and must be at least 0 and below 1."
        )
    if options["ntc_frac_guides"] > 0 and not options["ntc_genes"]:
        raise OptionError("ntc_genes names no target for the control guides.")


def _write(
    made: "AnnData", covariates: Array, level: NDArray[np.int64] | None, usage: Array
) -> None:
    import pandas as pd

    covar = pd.DataFrame(
        covariates, made.obs_names, [f"covar_{j}" for j in range(covariates.shape[1])]
    )
    if level is not None:
        covar["batch"] = pd.Categorical([f"b{i}" for i in level.tolist()])
    made.obsm["covar"] = covar
    made.obsm["cnmf_usage"] = pd.DataFrame(
        usage, made.obs_names, [f"program_{k}" for k in range(usage.shape[1])]
    )
