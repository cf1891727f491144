"""The mixed-model scan: a linear scan that knows how the samples are related.

    trait = covariates + beta * copies of the effect allele + u + error,  u ~ N(0, s2 h2 K)

The share h2 is estimated once per trait (and chromosome, when that is left out of K), without any
variant (Kang et al. 2010, Nature Genetics 42). With ``P`` the inverse of the covariance between
samples, covariates projected out, a variant g has the slope ``s / v``, ``s = g^T P y`` and ``v =
g^T P g``. Scores s are products with one vector for each trait. Variances v of common variants
follow from a few more products where that is accurate enough, those of rare variants from the
carriers (`plait.gwas.calibration`); else from rotated genotypes.
Variants with small p-values are done again, each by itself, with h2 estimated beside the variant.

The model of all chromosomes is exact (`plait.numerics.reml`); models that leave one out are found
near it (`plait.numerics.krylov_reml`), or are exact where that does as well.
"""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.data.genotype_blocks import TILE, GenotypeBlock, padded
from plait.data.genotypes import GenotypeSource
from plait.errors import OptionError
from plait.execution.memory import memory_budget
from plait.execution.threads import single_threaded_blas
from plait.gwas.calibration import (
    DRAWN,
    Calibration,
    calibrate,
    random_variants,
    rare_copies,
    tested_genotypes,
)
from plait.gwas.chromosome_runs import gathered
from plait.gwas.design import EXACT_BELOW, Design, rows_of_any
from plait.gwas.given_relationships import relationships_of
from plait.gwas.likelihood_ratio import LikelihoodRatio
from plait.gwas.linear import NOTHING, Associations, GroupedScan
from plait.gwas.null_models import LeftOutModel, NullModel
from plait.gwas.quality import VariantFilter
from plait.gwas.relationship import relationship_matrix
from plait.io.relationship_files import RelationshipFile
from plait.numerics.krylov_reml import Reference
from plait.numerics.linalg import cov_to_cor, project_positive_definite, symmetrise
from plait.numerics.reml import RestrictedModel

Array = NDArray[np.float64]

_AT_ONCE = 64
"""Variants that are rotated together without a rotation prepared, or done again together; it
divides `TILE`."""
_SINGLE = 1e-3
"""Relative error of t in single precision: variants so close to `EXACT_BELOW` are looked at."""
_SURE = 5.0
"""Root mean squares of errors of standard errors by which t may be off near `EXACT_BELOW`."""
_COPIES = 5
"""Matrices of the size of the relationships that a chromosome takes while it is made ready."""
_EXACT_TESTS = 5
"""Tests done again per sample from which an exact model takes less time."""
_log = logging.getLogger("plait.gwas")


class MixedGroup:
    """Scans the traits of one design under one null model.

    Parameters
    ----------
    null : NullModel or LeftOutModel
    calibration : Calibration or None
        None rotates every variant, which takes a NullModel.
    rules : VariantFilter
    exact_below : float
        See `EXACT_BELOW`; 0 keeps the variance shares of the null model, 1 estimates all again.
    n_variants : int, optional
        How many will be scanned: for a few, no rotation is prepared. Default many.
    test : {"wald", "lrt", "score"}
        See `plait.gwas.scan`; "lrt" takes a NullModel and ``exact_below=1``, "score" 0.
    """

    def __init__(
        self,
        null: NullModel | LeftOutModel,
        calibration: Calibration | None,
        rules: VariantFilter,
        exact_below: float = EXACT_BELOW,
        n_variants: int | None = None,
        test: str = "wald",
    ) -> None:
        from scipy.special import stdtrit

        self.design, self.model, self.h2 = null.design, null.model, null.h2
        self.columns, self.rules = null.design.columns, rules
        self.calibration, self.exact_below = calibration, exact_below
        self.is_score = test == "score"
        self.ratio: LikelihoodRatio | None = None
        if test == "lrt":
            if not isinstance(null, NullModel):
                raise TypeError("likelihoods are compared by models that are exact")
            self.ratio = LikelihoodRatio(null)
        basis = self.design.basis
        projected, self.lengths = null.projected_traits()
        directions = np.empty((len(basis), 0)) if calibration is None else calibration.directions
        self.n_directions = directions.shape[1]
        self.regressors = padded(np.hstack([basis[:, 1:], directions, projected]), np.float32)
        if calibration is None:
            self.factors = self._exact.factors(self.h2)
            self.rotation = None
            # To prepare it takes 4 N^3 flops; then a variant takes N^2 less in double precision.
            if n_variants is None or n_variants > len(basis):
                self.rotation = self._rotation()
        self.rare_up_to = 0 if calibration is None else rare_copies(len(basis))
        slack = 0.0 if calibration is None else max(calibration.worst, _SURE * calibration.error)
        cut = -float(stdtrit(self.design.df, 0.5 * exact_below)) if exact_below else np.inf
        self.cut = cut * (1.0 - min(slack + _SINGLE, 0.5))
        """Variants with a larger t are done again in double precision."""

    @property
    def _exact(self) -> RestrictedModel:
        if not isinstance(self.model, RestrictedModel):
            raise TypeError("variants are rotated by models that are exact")
        return self.model

    def _rotation(self) -> NDArray[np.float32]:
        """Return the rotation of all variants, (N, samples of a tile)."""
        reduced, basis = self._exact.relationships, self.design.basis
        with single_threaded_blas():
            rotation = reduced.rotated(np.eye(len(basis)) - basis @ basis.T)
        return np.ascontiguousarray(padded(rotation.T, np.float32).T)

    def run(self, block: GenotypeBlock) -> Associations:
        """Return the statistics of a block of all samples, whatever the cut the same bits."""
        from plait.gwas.mixed_kernels import left_by_covariates, mixed_statistics

        design = self.design
        block = block.of_samples(design.rows)
        n, n_traits, p = len(block), len(self.h2), design.basis.shape[1]
        variances = np.empty((n, n_traits))
        products = block.products(self.regressors)
        left, inexact = np.empty(n), np.empty(n, dtype=np.bool_)
        left_by_covariates(block.squares, products[:, : p - 1], left, inexact)
        removed = self.rules.removed(block.calls)
        gone = np.logical_or.reduce(list(removed.values()))
        self._fill_variances(block, left, products, variances)
        rare = np.flatnonzero(~gone & (block.calls.minor_count <= self.rare_up_to))
        self._fill_rare(block, rare[~np.isnan(left[rare])], left, variances, inexact)
        outputs = tuple(np.empty((3, n, n_traits)))
        beta, se, log10p = outputs
        scores = products[:, -n_traits:]
        mixed_statistics(scores, variances, self.lengths, float(design.df), *outputs, inexact)
        with np.errstate(invalid="ignore", divide="ignore"):
            again = (np.abs(beta / se) >= self.cut) | inexact[:, None]
        self._again(block, again & ~gone[:, None], left, outputs)
        if self.is_score:
            _as_score_tests(beta, se, log10p, design.df)
        untested = ~gone & np.isnan(left)
        for array in outputs:
            array[gone] = np.nan
        beta *= design.lengths
        se *= design.lengths
        filtered = {name: int(flags.sum()) * n_traits for name, flags in removed.items()}
        filtered["collinearity with the covariates"] = int(untested.sum()) * n_traits
        perfect = np.isnan(beta) & ~(gone | untested)[:, None]
        filtered["a perfect fit of the trait"] = int(perfect.sum())
        used = np.full((n, n_traits), block.n_samples)
        return Associations(beta, se, log10p, used, block.calls.frequency, filtered)

    def _rotate(self, tile: NDArray[np.float32], used: slice, variances: Array) -> None:
        """Fill the variances of the variants of a tile, (TILE, T), from rotated genotypes."""
        from plait.gwas.mixed_kernels import tridiagonal_variances

        if self.rotation is not None:
            tridiagonal_variances(self.rotation @ tile.T, *self.factors, variances)
            return
        basis = self.design.basis
        for start in range(used.start // _AT_ONCE * _AT_ONCE, used.stop, _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            columns = np.ascontiguousarray(tile[part, : len(basis)].T, dtype=np.float64)
            columns -= basis @ (basis.T @ columns)
            rotated = self._exact.relationships.rotated(columns)
            tridiagonal_variances(rotated, *self.factors, variances[part])

    def _fill_variances(
        self, block: GenotypeBlock, left: Array, products: Array, variances: Array
    ) -> None:
        from plait.gwas.mixed_kernels import calibrated_variances

        if self.calibration is None:
            whole = np.empty((TILE, len(self.h2)))
            for part, tile, used in block.tiles(np.float32):
                self._rotate(tile, used, whole)
                variances[part] = whole[used]
            variances[np.isnan(left)] = np.nan
            return
        p = self.design.basis.shape[1]
        along = products[:, p - 1 : p - 1 + self.n_directions]
        taken = self.calibration.constants, self.calibration.weights
        calibrated_variances(left, along, *taken, variances)

    def _fill_rare(
        self,
        block: GenotypeBlock,
        rare: NDArray[np.intp],
        left: Array,
        variances: Array,
        inexact: NDArray[np.bool_],
    ) -> None:
        """Replace the variances of rare variants; mark those that are done one by one."""
        if self.calibration is None or self.calibration.rare is None:
            inexact[rare] = True
            return
        for start in range(0, len(rare), TILE):
            part = rare[start : start + TILE]
            exact = np.empty((len(part), len(self.h2)))
            self.calibration.rare.fill(block.rarer_copies(part)[0], left[part], exact)
            variances[part] = exact

    def _again(
        self,
        block: GenotypeBlock,
        again: NDArray[np.bool_],
        left: Array,
        outputs: tuple[Array, ...],
    ) -> None:
        """Do tests again in double precision, small p-values with h2 beside the variant.

        ``left``, what covariates leave of a variant, becomes NaN where that is nothing after all.
        """
        from plait.gwas.kernels import COLLINEAR

        basis, numbers = self.design.basis, np.flatnonzero(again.any(axis=1))
        for start in range(0, len(numbers), _AT_ONCE):
            which = numbers[start : start + _AT_ONCE]
            genotypes, kept = block.centred(which), np.ones(len(which), dtype=np.bool_)
            for place, (j, genotype) in enumerate(zip(which, genotypes, strict=True)):
                # One by one: the same bits whichever variants need it together.
                genotype -= basis @ (basis.T @ genotype)
                if not genotype @ genotype > COLLINEAR * block.squares[j]:
                    kept[place], left[j] = False, np.nan
                    for array in outputs:
                        array[j] = np.nan
            prepared = self.model.prepared(genotypes[kept])
            tests = [
                (j, t, variant)
                for j, variant in zip(which[kept].tolist(), prepared, strict=True)
                for t in np.flatnonzero(again[j]).tolist()
            ]
            rows, columns = [j for j, _, _ in tests], [t for _, t, _ in tests]
            found = self._one_by_one([(variant, t) for _, t, variant in tests])
            for array, values in zip(outputs, found, strict=True):
                array[rows, columns] = values

    def _one_by_one(self, tests: list[tuple[Any, int]]) -> Array:
        """Return slopes, errors and log10 p (3, n) of variants and traits; NaN of perfect fits."""
        from plait.numerics.student import log10_p_value

        found = np.full((3, len(tests)), np.nan)

        def fill(some: list[int], shares: list[float]) -> None:
            for k, h2 in zip(some, shares, strict=True):
                beta, se = self.model.regression(*tests[k], h2)
                is_perfect = not se**2 * self.design.df > NOTHING * beta**2
                found[:2, k] = (np.nan, np.nan) if is_perfect else (beta, se)
            found[2, some] = log10_p_value(found[0, some] / found[1, some], self.design.df)

        null = [float(self.h2[t]) for _, t in tests]
        fill(list(range(len(tests))), null)
        if self.exact_below:
            small = np.flatnonzero(found[2] <= np.log10(self.exact_below)).tolist()
            fill(small, [self.model.share_beside(*tests[k], null[k]) for k in small])
        if self.ratio is not None:
            for k in np.flatnonzero(~np.isnan(found[2])).tolist():
                found[2, k] = self.ratio.log10p(*tests[k])
        return found


def _as_score_tests(beta: Array, se: Array, log10p: Array, df: int) -> None:
    """Make score tests of t tests, in place.

    The variance of the errors is then that without the variant, ``y^T P y / (df + 1)``: with the
    squared correlation ``r^2 = t^2 / (df + t^2)``, chi-square is ``(df + 1) r^2``.
    """
    from scipy.special import log_ndtr

    with np.errstate(divide="ignore", invalid="ignore"):
        t = beta / se
        se *= np.sqrt((df + t**2) / (df + 1))
        log10p[:] = (np.log(2.0) + log_ndtr(-np.abs(beta / se))) / np.log(10.0)


class MixedModel:
    """The mixed models of all designs.

    Parameters
    ----------
    genotypes : GenotypeSource
    designs : list of Design
    rules : VariantFilter
    loco : bool
        Leave the chromosome of a variant out of the relationships.
    exact_below : float
    memory : int, str or None
        For relationships and what is made of them.
    threads : int
        As many chromosomes are made ready at the same time, where memory allows.
    precision : {"single", "double"}
        Of models without a chromosome. Single: near the model of all chromosomes, from products
        (`plait.numerics.krylov_reml`). Double: exact. They are exact in any case with fewer than
        1,000 samples, or 32 for each trait, on chromosomes with up to 1,024 variants, where shares
        are near 1 or eigenvalues lie far apart (many close relatives), where variants have to be
        rotated, and where ``exact_below`` leaves many variants to be done again.
    given : RelationshipFile, optional
        Relationships instead of those of the genotypes; ``loco`` is False then.
    test : {"wald", "lrt", "score"}
        "lrt": models are exact, and every test is done by itself.

    Attributes
    ----------
    h2, h2_se : (T,) arrays
        Share of each trait's variance that follows the relationships of all chromosomes.
    V0 : (T, T) array
        Correlation of the scores ``g^T P y`` of any two traits, g a variant without effects whose
        genotypes covary as the relationships K say: that of ``y_1^T P_1 K P_2 y_2``, with a P for
        each trait, 0 where a sample lacks it. Where few independent variants make K, it is drawn
        towards the correlation of the traits' genetic values: by up to 0.12 with 600 samples and
        1,800 unlinked variants, up to 0.02 with 500 and 7,000 (h2 0.5).
    checks : list of dict
        One for every pass that was made ready, and there for every design: ``chromosome`` (None for
        all), ``samples``, ``h2`` of the traits, ``h2_step`` (from those of all chromosomes),
        ``h2_noise`` (standard deviation by random vectors, 0 where the model is exact), and the
        report of `plait.gwas.calibration.calibrate`.
    order : (M,) array of int or None
        Rows of the variants of passes among the genotypes, where chromosomes alternate there and
        each is left out (see `plait.gwas.chromosome_runs`).

    Notes
    -----
    Cost: N^2 M flops for the relationships; 4/3 N^3 for each design, and as much for every
    chromosome whose model is exact, else some 30 N^2 for a trait and 2,000 N^2 for all; for each
    N^3 for every trait (for some 4 to 8 of many) if there are rare variants; 2 N M (p + k + T) for
    the scan, k the number of leading eigenvectors that it needs, and c^2 for a rare variant with c
    carriers, or 2 N^2 M where samples are too closely related (4 N^2 M where a pass has few
    variants, up to 1024, which are all rotated); some 10 N^2 for each variant with a small p-value.
    """

    def __init__(
        self,
        genotypes: GenotypeSource,
        designs: list[Design],
        rules: VariantFilter,
        loco: bool,
        exact_below: float,
        memory: int | str | None,
        threads: int,
        precision: str = "single",
        given: RelationshipFile | None = None,
        test: str = "wald",
    ) -> None:
        if not 0 <= exact_below <= 1:
            raise OptionError(f"exact_below is {exact_below}; give a p-value between 0 and 1.")
        if precision not in ("single", "double"):
            raise OptionError(f"precision is {precision!r}; give 'single' or 'double'.")
        self.genotypes, self.order = gathered(genotypes) if loco else (genotypes, None)
        self.designs, self.rules = designs, rules
        self.test = test
        self.loco = loco
        self.exact_below = {"lrt": 1.0, "score": 0.0}.get(test, exact_below)
        self._samples = rows_of_any(designs)
        if given is not None:
            self._relationships = relationships_of(given, genotypes.samples[self._samples])
        else:
            self._relationships = relationship_matrix(
                self.genotypes,
                samples=self._samples,
                by_chromosome=loco,
                memory=memory,
                threads=threads,
            )
        n_traits = sum(len(design.columns) for design in designs)
        self.h2, self.h2_se = np.empty(n_traits), np.empty(n_traits)
        self.checks: list[dict[str, Any]] = []
        everything = self._nulls()
        for design, null in zip(designs, everything, strict=True):
            self.h2[design.columns], self.h2_se[design.columns] = null.fit.h2, null.fit.se
        self.V0 = self._score_correlation(everything)
        self._everything = [] if loco else everything
        self._references: list[Reference | None] = [None] * len(designs)
        if loco and precision == "single" and test != "lrt":
            self._references = [null.reference() for null in everything]
        left = memory_budget(memory) - self._relationships.sums.nbytes
        room = left // (_COPIES * 8 * len(self._samples) ** 2 * len(designs))
        self._at_once = max(1, min(threads, room))
        self._made: dict[str, list[NullModel | LeftOutModel]] = {}

    def passes(self) -> Iterator[tuple[list[slice], Callable[[], GroupedScan]]]:
        """Yield the variants of each pass, and what prepares it."""
        if not self.loco:
            everything = [slice(0, self.genotypes.n_variants)]
            yield everything, partial(self._scan, None, everything)
            return
        runs = self.genotypes.variants.chromosomes
        for name in dict.fromkeys(name for name, _ in runs):
            where = self._runs(name)
            yield where, partial(self._scan, name, where)

    def _score_correlation(self, nulls: list[NullModel]) -> Array:
        projected = np.zeros((len(self._samples), len(self.h2)))
        for null in nulls:
            rows = np.searchsorted(self._samples, null.design.rows)
            projected[np.ix_(rows, null.design.columns)] = null.projected_traits()[0]
        with single_threaded_blas():
            matrix = projected.T @ self._relationships.times(projected)
        return project_positive_definite(cov_to_cor(symmetrise(matrix)))

    def _matrix(
        self, design: Design, without: str | None, dtype: type[np.floating[Any]] = np.float64
    ) -> NDArray[Any]:
        """Return the relationships of the samples of a design, in memory of their own."""
        rows = np.searchsorted(self._samples, design.rows)
        samples = None if len(rows) == len(self._samples) else rows
        return self._relationships.matrix(without, samples=samples, dtype=dtype)

    def _nulls(self, without: str | None = None) -> list[NullModel]:
        """Return exact models of the designs."""
        return [NullModel(design, self._matrix(design, without)) for design in self.designs]

    def _left_out(self, name: str) -> list[NullModel | LeftOutModel]:
        """Return models of the designs without a chromosome, exact where others do not pay."""
        n_variants = sum(run.stop - run.start for run in self._runs(name))
        again = n_variants * self.exact_below * _EXACT_TESTS > len(self._samples)
        found: list[NullModel | LeftOutModel] = []
        for design, reference in zip(self.designs, self._references, strict=True):
            model = None
            if reference is not None and n_variants > DRAWN and not again:
                given = self._matrix(design, name, np.float32)
                model = LeftOutModel.of(design, given, reference)
            if model is None:
                found.append(NullModel(design, self._matrix(design, name)))
            else:
                found.append(model)
        return found

    def _runs(self, name: str) -> list[slice]:
        runs = self.genotypes.variants.chromosomes
        return [run for chromosome, run in runs if chromosome == name]

    def _ready(self, name: str) -> list[NullModel | LeftOutModel]:
        """Return the models without a chromosome, made together with those of the next ones."""
        if name not in self._made:
            names = self._relationships.chromosomes
            names = names[names.index(name) :][: self._at_once]
            with single_threaded_blas(), ThreadPoolExecutor(len(names)) as pool:
                self._made = dict(zip(names, pool.map(self._left_out, names), strict=True))
        return self._made.pop(name)

    def _scan(self, name: str | None, runs: list[slice]) -> GroupedScan:
        n_variants = sum(run.stop - run.start for run in runs)
        block = random_variants(self.genotypes, runs) if n_variants > DRAWN else None
        groups = []
        for null in self._everything if name is None else self._ready(name):
            calibration: Calibration | None = None
            report: dict[str, Any] = {"variants": n_variants, "leading": None}
            if block is not None:
                with single_threaded_blas():
                    drawn = tested_genotypes(block, null.design, self.rules)
                    calibration, report = calibrate(null, drawn)
                    if calibration is None and isinstance(null, LeftOutModel):
                        null = NullModel(null.design, self._matrix(null.design, name))
                        calibration, report = calibrate(null, drawn)
            check = {"chromosome": name, "samples": len(null.design.rows), "h2": null.h2.tolist()}
            check["h2_step"] = (null.h2 - self.h2[null.design.columns]).tolist()
            check["h2_noise"] = null.noise.tolist()
            self.checks.append(check | report)
            _log.info("%s", _described(self.checks[-1]))
            given = null, calibration, self.rules, self.exact_below, n_variants, self.test
            groups.append(MixedGroup(*given))
        return GroupedScan(self.genotypes, groups, len(self.h2))


def _described(check: dict[str, Any]) -> str:
    """Return a line for the log about how the variances of scores are found."""
    where = "all variants" if check["chromosome"] is None else f"chromosome {check['chromosome']}"
    if "error" not in check:
        why = f"only {check['variants']} variants to calibrate on"
    else:
        why = f"standard errors by calibration are off by {check['error']:.2%} (root mean square), "
        why += f"at most {check['worst']:.2%}, of {check['compared']} variants"
    if check["leading"] is None:
        return f"{where}: variants are rotated; {why}"
    return f"{where}: calibrated with {check['leading']} leading eigenvectors; {why}"
