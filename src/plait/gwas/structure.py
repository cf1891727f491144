"""Population structure: principal components of the genotypes.

The components are the leading eigenvectors of the relationship matrix ``K = Z^T Z / M`` of common
variants that are not linked, ``z = (g - 2 f) / sqrt(2 f (1 - f))`` (Patterson, Price and Reich
2006). Up to `EXACT_SAMPLES` samples K is made and decomposed. Beyond that a block Krylov space is
grown from random vectors (Musco and Musco 2015), one pass over the genotypes for each block, and
the best approximations in it are taken (Rayleigh-Ritz), with their residuals.
"""

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from plait.data.genotypes import GenotypeSource
from plait.data.phenotypes import SampleTable
from plait.data.sample_names import no_overlap
from plait.data.summary_statistics import standard_build
from plait.data.words import counted
from plait.errors import CapacityError, ConvergenceWarning, InputError, LabelError, OptionError
from plait.execution.grains import GRAIN, Grain, map_grains
from plait.execution.memory import memory_budget, parse_bytes
from plait.execution.threads import resolve_threads, single_threaded_blas
from plait.gwas.inputs import opened_covariates, opened_genotypes
from plait.gwas.linkage import ld_prune
from plait.gwas.long_range_linkage import LONG_RANGE_LINKAGE, long_range_variants
from plait.gwas.quality import VariantFilter
from plait.gwas.relationship import relationship_matrix, scaled_genotypes
from plait.io.genotypes import SelectedGenotypes, variants_in_region
from plait.io.result import Result
from plait.provenance import Provenance

if TYPE_CHECKING:
    from polars import DataFrame

    from plait.gwas.inputs import GenotypesLike, TableLike

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

EXACT_SAMPLES = 5000
"""Up to this many samples ``method="auto"`` decomposes the whole relationship matrix."""
_METHODS = ("auto", "exact", "randomised")
_OVERSAMPLING = 10
_MAX_PASSES = 12
_TOLERANCE = 1e-4
_INACCURATE = 0.1
_DEPENDENT = 1e-5
_EVERYTHING = VariantFilter(None, None, None)


@dataclass(frozen=True, eq=False, repr=False)
class PrincipalComponents(Result):
    """Principal components of N samples.

    Attributes
    ----------
    scores : (N, k) array
        Each of mean 0 and variance 1. The score of largest size is positive.
    eigenvalues : (k,) array
        Of the relationship matrix, descending.
    variance_explained : (k,) array
        Share of the trace of the relationship matrix.
    residuals : (k,) array
        ``|K v - eigenvalue v| / eigenvalue``: 0 for exact components.
    variants : (M,) array of int
        Numbers of the variants that were used.
    samples : (N,) array of str
    components : tuple of str
        ``PC1``, ``PC2``, ...
    method : {"exact", "randomised"}
    provenance : Provenance or None
    """

    kind: ClassVar[str] = "principal_components"
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "scores": ("samples", "components"),
        **dict.fromkeys(("eigenvalues", "variance_explained", "residuals"), ("components",)),
        "variants": ("variants_used",),
    }
    frame_dims: ClassVar[tuple[str, ...]] = ("samples", "components")

    scores: Array
    eigenvalues: Array
    variance_explained: Array
    residuals: Array
    variants: Indices
    samples: NDArray[np.str_]
    components: tuple[str, ...]
    method: str
    provenance: Provenance | None = None

    def __repr__(self) -> str:
        return (
            f"PrincipalComponents({counted(len(self.components), 'component')} of "
            f"{len(self.samples):,} samples, from {len(self.variants):,} variants; {self.method})"
        )

    def summary(self) -> str:
        """Say how much each component explains."""
        lines = [repr(self)]
        options = {} if self.provenance is None else self.provenance.options
        if regions := options.get("exclude_regions"):
            lines.append(f"  variants in {', '.join(regions)}, left out: {options['n_excluded']:,}")
        for name, value, share in zip(
            self.components, self.eigenvalues, self.variance_explained, strict=True
        ):
            lines.append(f"  {name:<5} eigenvalue {value:8.3f}  {share:7.2%} of the variance")
        return "\n".join(lines)

    def to_table(self) -> "DataFrame":
        """Return ``IID`` and a column for each component, as `plait.io.read_covariates` reads."""
        import polars as pl

        columns = dict(zip(self.components, self.scores.T, strict=True))
        return pl.DataFrame({"IID": self.samples, **columns})

    def to_covariates(self, others: "TableLike | None" = None) -> SampleTable:
        """Return the components as covariates of `plait.gwas.scan`.

        Parameters
        ----------
        others : path, pandas or polars DataFrame, or SampleTable, optional
            Further covariates, which come first; samples that lack either are left out.

        Raises
        ------
        LabelError
            No sample has both, or a covariate has the name of a component.
        """
        mine = SampleTable(self.samples, self.components, self.scores)
        if others is None:
            return mine
        others = opened_covariates(others)
        shared = check_covariates(others, self.samples, len(self.components))
        place = {name: row for row, name in enumerate(self.samples.tolist())}
        own = {name: row for row, name in enumerate(others.samples.tolist())}
        values = np.column_stack(
            [
                others.values[[own[name] for name in shared]],
                self.scores[[place[name] for name in shared]],
            ]
        )
        return SampleTable(np.array(shared), (*others.names, *self.components), values)


def principal_components(
    genotypes: "GenotypesLike",
    k: int = 10,
    method: str = "auto",
    *,
    r2: float | None = 0.2,
    window_kb: float = 1000.0,
    min_frequency: float = 0.05,
    min_call_rate: float = 0.95,
    exclude_regions: Sequence[str] = (),
    samples: NDArray[np.integer[Any]] | None = None,
    seed: int = 1,
    memory: int | str | None = None,
    threads: int | None = None,
) -> PrincipalComponents:
    """Compute principal components of common variants that are not linked.

    Parameters
    ----------
    genotypes : path or GenotypeSource
        Hard calls; of a path they are read.
    k : int
        How many components.
    method : {"auto", "exact", "randomised"}
        "auto": exact up to 5000 samples.
    r2, window_kb
        Variants are thinned as in `plait.gwas.ld_prune`; ``r2=None`` keeps them all.
    min_frequency, min_call_rate : float
        Rarer variants and those with fewer genotypes are left out.
    exclude_regions : sequence of str
        Regions or whole chromosomes that are left out, as ``"6:25000000-33500000"`` or ``"X"``:
        long stretches of linkage make components of their own. ``"GRCh37"`` or ``"GRCh38"``, the
        build of a human genome, is all 24 of `plait.gwas.long_range_linkage`, among them the MHC.
    samples : integers, optional
        Numbers of the samples. Default all.
    seed : int
        Of the random start; exact components need none.
    memory : int or str, optional
        Bytes. Default half of what is free.
    threads : int, optional
        They never change the numbers.

    Returns
    -------
    PrincipalComponents

    Raises
    ------
    OptionError
        An option is unknown or out of range.
    InputError
        Fewer variants than components are left.
    LabelError
        A region is on a chromosome that is not there, or of a build that is not known.
    GenomeBuildError
        The genotypes are not on the build of which regions are excluded.
    CapacityError
        The relationship matrix does not fit: use ``method="randomised"``.

    Notes
    -----
    A missing genotype counts as the mean of its variant. Relatives make components of their own:
    leave all but one of a family out. Cost: exact N^2 M + 4/3 N^3 flops and 8 N^2 bytes;
    randomised at most 12 passes of 4 N M (k + 10) flops each. Signs do not depend on which allele
    is counted.
    """
    started = time.perf_counter()
    genotypes = opened_genotypes(genotypes, "hardcall")
    n = genotypes.n_samples if samples is None else len(samples)
    if method not in _METHODS:
        raise OptionError(f"method is {method!r}; give 'auto', 'exact' or 'randomised'.")
    if not 1 <= k < n:
        raise OptionError(f"k is {k}; of {n} samples there are 1 to {n - 1} components.")
    if r2 is not None and not 0 < r2 <= 1:
        raise OptionError(f"r2 is {r2}; give a number above 0, at most 1.")
    if memory is not None:
        memory = parse_bytes(memory)
    if method == "auto":
        method = "exact" if n <= EXACT_SAMPLES else "randomised"
    kept = _outside(genotypes, exclude_regions)
    used = _choose_variants(genotypes, kept, r2, window_kb, min_frequency, min_call_rate, samples)
    if len(used) <= k:
        outside = f" of the {len(kept):,} outside the excluded regions" if exclude_regions else ""
        raise InputError(
            f"{len(used)} variants{outside} are common, called and unlinked enough for components; "
            f"{k} components need more than {k}. Lower min_frequency or raise r2."
        )
    chosen = SelectedGenotypes(genotypes, used, samples)
    if method == "exact":
        try:
            values, vectors, trace = _exact(chosen, k, memory, threads)
        except CapacityError as error:
            raise CapacityError(
                f"{str(error).removesuffix('.')}, or give method='randomised'."
            ) from None
        residuals = np.zeros(k)
    else:
        values, vectors, residuals, trace = _randomised(chosen, k, seed, memory, threads)
    vectors = vectors - vectors.mean(axis=0)  # 0 but for rounding
    vectors /= vectors.std(axis=0, ddof=1)
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(k)]
    return PrincipalComponents(
        scores=vectors * np.sign(largest),
        eigenvalues=values,
        variance_explained=values / trace,
        residuals=residuals,
        variants=used,
        samples=chosen.samples,
        components=component_names(k),
        method=method,
        provenance=Provenance(
            "gwas pca",
            options={
                "k": k,
                "method": method,
                "r2": r2,
                "window_kb": window_kb,
                "min_frequency": min_frequency,
                "min_call_rate": min_call_rate,
                "exclude_regions": list(exclude_regions),
                "n_excluded": genotypes.n_variants - len(kept),
                "n_variants": len(used),
            },
            seed=seed if method == "randomised" else None,
            seconds=time.perf_counter() - started,
            threads=resolve_threads(threads),
        ),
    )


def check_covariates(others: SampleTable, samples: NDArray[np.str_], k: int) -> list[str]:
    """Return the samples that have covariates and genotypes, in the order of the covariates.

    Parameters
    ----------
    others : SampleTable
        Covariates that are to stand beside components.
    samples : (N,) array of str
        The genotyped samples.
    k : int
        How many components.

    Raises
    ------
    LabelError
        There is no such sample, or a covariate has the name of a component.
    """
    taken = next((name for name in component_names(k) if name in others.names), None)
    if taken is not None:
        raise LabelError(
            f"the covariates have a column {taken!r} already, the name of a component. Leave it "
            "out of the covariates, or compute no components."
        )
    known = set(samples.tolist())
    shared = [name for name in others.samples.tolist() if name in known]
    if not shared:
        names = others.samples.tolist()
        raise LabelError(no_overlap("genotypes", samples.tolist(), "covariates", names))
    return shared


def component_names(k: int) -> tuple[str, ...]:
    """Return what the first components are called."""
    return tuple(f"PC{number + 1}" for number in range(k))


def _outside(genotypes: GenotypeSource, exclude_regions: Sequence[str]) -> Indices:
    """Return the numbers of the variants outside some regions, ascending."""
    kept: Indices = np.arange(genotypes.n_variants)
    for region in exclude_regions:
        if region.lower().startswith(("grch", "hg")):
            build = _build_with_regions(region)
            gone = np.flatnonzero(long_range_variants(genotypes.variants, build))
        else:
            gone = variants_in_region(genotypes.variants, region, "the table of variants")
        kept = np.setdiff1d(kept, gone)
    return kept


def _build_with_regions(name: str) -> str:
    """Return a build of the human genome by its one name, as hg19 is GRCh37."""
    try:
        build = standard_build(name)
    except OptionError:
        build = None
    if build not in LONG_RANGE_LINKAGE:
        raise LabelError(
            f"{name!r} is no build whose regions are known; there are "
            f"{', '.join(LONG_RANGE_LINKAGE)}."
        )
    return build


def _choose_variants(
    genotypes: GenotypeSource,
    kept: Indices,
    r2: float | None,
    window_kb: float,
    min_frequency: float,
    min_call_rate: float,
    samples: NDArray[np.integer[Any]] | None,
) -> Indices:
    """Return which of the variants kept so far components are made of, ascending."""
    rules = VariantFilter(min_call_rate, None, min_frequency)
    if not len(kept):
        return kept
    removed = rules.removed(SelectedGenotypes(genotypes, kept, samples).counts())
    kept = kept[~np.logical_or.reduce(list(removed.values()))]
    if r2 is None or not len(kept):
        return kept
    chosen = SelectedGenotypes(genotypes, kept, samples)
    return kept[ld_prune(chosen, r2=r2, window_kb=window_kb)]


def _exact(
    genotypes: GenotypeSource, k: int, memory: int | str | None, threads: int | None
) -> tuple[Array, Array, float]:
    """Return the leading eigenvalues and eigenvectors, and the trace."""
    found = relationship_matrix(
        genotypes,
        "standardised",
        min_frequency=0.0,
        by_chromosome=False,
        memory=memory,
        threads=threads,
    )
    matrix, n = found.matrix(), genotypes.n_samples
    trace = float(np.trace(matrix))
    # A threaded eigendecomposition is many times slower where other work shares the cores.
    with single_threaded_blas():
        values, vectors = eigh(matrix, subset_by_index=[n - k, n - 1], overwrite_a=True)
    return values[::-1].copy(), vectors[:, ::-1].copy(), trace


def _randomised(
    genotypes: GenotypeSource, k: int, seed: int, memory: int | str | None, threads: int | None
) -> tuple[Array, Array, Array, float]:
    """Return the leading eigenvalues, eigenvectors and their residuals, and the trace."""
    n = genotypes.n_samples
    width = min(k + _OVERSAMPLING, n - 1)
    # A thread holds one grain of genotypes and, waiting to be added, a few products.
    each = 4 * GRAIN * n + 4 * 8 * n * width
    workers = max(1, min(resolve_threads(threads), memory_budget(memory) // each))
    random = np.random.default_rng(np.random.SeedSequence([seed]))
    start = random.standard_normal((n, width))
    with single_threaded_blas():
        # Genotypes are centred: constant vectors are in the null space of K.
        basis = np.linalg.qr(start - start.mean(axis=0))[0]
    images, trace = _times_relationships(genotypes, basis, workers)
    newest = images
    while True:
        with single_threaded_blas():
            projected = basis.T @ images
            values, coordinates = np.linalg.eigh(0.5 * (projected + projected.T))
            values, coordinates = values[: -k - 1 : -1], coordinates[:, : -k - 1 : -1]
            vectors = basis @ coordinates
            apart = images @ coordinates - vectors * values
            residuals = np.linalg.norm(apart, axis=0) / values
            if (residuals <= _TOLERANCE).all() or images.shape[1] >= _MAX_PASSES * width:
                break
            more = _new_directions(basis, newest, values[0])
        if not more.shape[1] or basis.shape[1] + more.shape[1] >= n:
            break
        newest, _ = _times_relationships(genotypes, more, workers)
        basis, images = np.hstack([basis, more]), np.hstack([images, newest])
    if (residuals > _INACCURATE).any():
        first = int((residuals > _INACCURATE).argmax()) + 1
        warnings.warn(
            f"components from PC{first} on are inaccurate: their eigenvalues hardly differ from "
            "those of chance. Ask for fewer of them.",
            ConvergenceWarning,
            stacklevel=3,
        )
    return values, vectors, residuals, trace


def _new_directions(basis: Array, images: Array, largest: float) -> Array:
    """Return an orthonormal basis of what images add to a basis."""
    for _ in range(2):  # twice is enough for orthogonality in double precision
        images = images - basis @ (basis.T @ images)
    vectors, sizes, _ = np.linalg.svd(images, full_matrices=False)
    vectors = vectors[:, sizes > _DEPENDENT * largest]
    vectors -= basis @ (basis.T @ vectors)
    directions: Array = np.linalg.qr(vectors)[0]
    return directions


def _times_relationships(
    genotypes: GenotypeSource, vectors: Array, threads: int
) -> tuple[Array, float]:
    """Return K times vectors, in one pass over the genotypes, and the trace of K."""
    everyone = np.arange(genotypes.n_samples)
    single = vectors.astype(np.float32)

    def one(grain: Grain) -> tuple[Array, float, float]:
        z, used, _ = scaled_genotypes(genotypes, grain.rows, everyone, "gcta", _EVERYTHING)
        squares = float(np.einsum("ij,ij->i", z, z).sum(dtype=np.float64))
        return (z.T @ (z @ single)).astype(np.float64), squares, used

    out, trace, count = np.zeros(vectors.shape), 0.0, 0.0
    for product, squares, used in map_grains(
        one, 0, genotypes.n_variants, threads=threads, label="components"
    ):
        out += product
        trace += squares
        count += used
    return out / count, trace / count
